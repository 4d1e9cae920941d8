/* Layers of recurrent networks: the walk over the steps. Samples are independent, so a thread takes rows of
 * them through all steps, a block of rows at a time, by tiles of the blocked product with the recurrent
 * weight, which is packed once. Of few samples nothing is packed: the weight streams through the caches as it
 * lies, and threads share the units of a step. Compiled once. */
#include "backends/cpu/rnn.h"
#include "backends/cpu/run.h"
#include "core/kernels/kernel.h"
#include "core/parallel.h"

enum { FEW = 4, BLOCK_ROWS = 32, CHUNK = 64, FEW_WORK = 1 << 16 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t up(int64_t a, int64_t b) { return over(a, b) * b; }

typedef struct row {
  int8_t gates, weight;
  bool back;
  int8_t state, states, result;
} row;
#define X(op, ...) [KN_OP_##op] = {__VA_ARGS__},
static const row rows_of[KN_OP_COUNT] = {CP_RECURRENT(X)};
#undef X

/* A tensor as the walk sees it: elements from one step to the next, and from one sample to the next. */
typedef struct lay {
  char *data;
  int64_t step, row;
} lay;

typedef struct layer {
  const kn_context *ctx;
  const cp_kit *kit;
  const row *op;
  cp_units_fn units;
  bool reverse, relu;
  int64_t steps, n, h;
  int64_t k, columns;    /* of the product */
  int64_t piece, padded; /* k is cut into pieces; columns with those that fill the last panel */
  int64_t block, parts;  /* rows of a block; who take blocks in turn */
  lay in[CP_RNN_INS], out[CP_RNN_OUTS];
  char *zeros, *packed, *own; /* a bias that was left out; the weight; `each` bytes for each part */
  size_t each, panels;        /* the first `panels` of which are rows of the product's operand, packed */
  int64_t at, turn;           /* of few samples: the step; the how manyeth */
} layer;

/* ---- where things are ---- */

static char *place(const layer *l, const lay *t, int64_t step, int64_t first) {
  return t->data ? t->data + (step * t->step + first * t->row) * l->kit->size : NULL;
}

static int64_t step_at(const layer *l, int64_t i) { return l->reverse ? l->steps - 1 - i : i; }

/* What stood before step number i: the first state, or what the step before left. */
static const char *before(const layer *l, int64_t i, int64_t first, const lay *state, const lay *states) {
  return i ? place(l, states, step_at(l, i - 1), first) : place(l, state, 0, first);
}

/* Rows from `first` on at step number i. */
static cp_units units_at(const layer *l, int64_t i, int64_t first, int64_t rows) {
  const row *op = l->op;
  int64_t t = step_at(l, i);
  cp_units u = {.rows = rows, .h = l->h, .last = l->h, .relu = l->relu};
  for (int k = 0; k < CP_RNN_INS; k++) u.in[k] = place(l, &l->in[k], t, first);
  for (int k = 0; k < CP_RNN_OUTS; k++) u.out[k] = place(l, &l->out[k], t, first);
  if (op->state >= 0)
    u.before = before(l, i, first, &l->in[op->state], op->back ? &l->in[op->states] : &l->out[op->states]);
  return u;
}

/* ---- rows through all steps ---- */

static void pack_weight(void *ud, int64_t begin, int64_t end) {
  const layer *l = ud;
  const cp_kit *kit = l->kit;
  const char *w = l->in[l->op->weight].data;
  int64_t line = l->op->back ? 1 : l->h, step = l->op->back ? l->h : 1;
  for (int64_t j = begin; j < end; j++)
    for (int64_t p = 0; p < l->k; p += l->piece) {
      int64_t k = least(l->piece, l->k - p), column = j * kit->columns;
      kit->pack(least(kit->columns, l->columns - column), kit->columns, k,
                w + (column * line + p * step) * kit->size, line, step,
                l->packed + (p * l->padded + column * k) * kit->size);
    }
}

/* c = or += a times the weight. */
static void product(const layer *l, int64_t rows, const char *a, char *panels, char *c, int64_t c_row,
                    bool add) {
  const cp_kit *kit = l->kit;
  int64_t columns = add ? l->columns : l->padded;
  for (int64_t p = 0; p < l->k; p += l->piece) {
    int64_t k = least(l->piece, l->k - p);
    for (int64_t r = 0; r < rows; r += kit->rows) {
      int64_t m = least(kit->rows, rows - r);
      kit->pack(m, m, k, a + (r * l->k + p) * kit->size, l->k, 1, panels + r * k * kit->size);
    }
    for (int64_t j = 0; j < columns; j += kit->columns)
      for (int64_t r = 0; r < rows; r += kit->rows)
        kit->tile(least(kit->rows, rows - r), k, panels + r * k * kit->size,
                  l->packed + (p * l->padded + j * k) * kit->size, kit->columns,
                  c + (r * c_row + j) * kit->size, c_row, least(kit->columns, columns - j), add || p > 0);
  }
}

static void walk(const layer *l, int64_t first, int64_t rows, char *own) {
  for (int64_t i = 0; i < l->steps; i++) {
    int64_t at = l->op->back ? l->steps - 1 - i : i;
    cp_units u = units_at(l, at, first, rows);
    if (!l->op->back) {
      u.part = own + l->panels, u.part_row = l->padded;
      product(l, rows, before(l, at, first, &l->in[2], &l->out[0]), own, own + l->panels, l->padded, false);
    }
    l->units(&u);
    if (l->op->back) product(l, rows, u.out[l->op->result], own, u.out[l->op->result + 1], l->h, true);
  }
}

static void walk_parts(void *ud, int64_t begin, int64_t end) {
  const layer *l = ud;
  int64_t blocks = over(l->n, l->block);
  for (int64_t part = begin; part < end; part++)
    for (int64_t b = blocks * part / l->parts; b < blocks * (part + 1) / l->parts; b++)
      walk(l, b * l->block, least(l->block, l->n - b * l->block), l->own + (size_t)part * l->each);
}

/* ---- few rows, step by step ---- */

/* Ranges are of chunks of units. The weight may be larger than the second cache: every other step goes the
 * other way, so that it begins with what the one before left there. */
static void few_units(void *ud, int64_t begin, int64_t end) {
  const layer *l = ud;
  const cp_kit *kit = l->kit;
  const char *h = before(l, l->at, 0, &l->in[2], &l->out[0]), *w = l->in[l->op->weight].data;
  cp_units u = units_at(l, l->at, 0, l->n);
  u.part = l->own, u.part_row = l->columns;
  for (int64_t i = begin; i < end; i++) {
    u.first = (l->turn % 2 ? begin + end - 1 - i : i) * CHUNK, u.last = least(l->h, u.first + CHUNK);
    for (int g = 0; g < l->op->gates; g++) {
      int64_t j = g * l->h + u.first;
      kit->dots(l->n, u.last - u.first, l->k, h, l->h, w + j * l->k * kit->size, l->k, l->own + j * kit->size,
                l->columns, 1);
    }
    l->units(&u);
  }
}

static void few_back(void *ud, int64_t begin, int64_t end) {
  const layer *l = ud;
  const cp_kit *kit = l->kit;
  int64_t t = step_at(l, l->at), first = begin * CHUNK, last = least(l->h, end * CHUNK);
  kit->strips(l->n, last - first, l->k, place(l, &l->out[l->op->result], t, 0), l->k, 1,
              l->in[l->op->weight].data + first * kit->size, l->h,
              l->out[l->op->result + 1].data + first * kit->size, l->h, true);
}

static void walk_few(layer *l) {
  int64_t chunks = over(l->h, CHUNK), grain = over(FEW_WORK, l->n * CHUNK * l->op->gates * l->h);
  for (l->turn = 0; l->turn < l->steps; l->turn++) {
    l->at = l->op->back ? l->steps - 1 - l->turn : l->turn;
    if (l->op->back) {
      cp_units u = units_at(l, l->at, 0, l->n);
      l->units(&u);
    }
    kn_parallel_for(l->ctx, chunks, grain, l->op->back ? few_back : few_units, l);
  }
}

/* ---- memory ---- */

static size_t aligned(int64_t elements, const layer *l) {
  return (size_t)up(elements * l->kit->size, CP_LINE);
}

/* Cuts the work, and gives every part its place in *room, of so many bytes. */
static kn_status arrange(kn_context *ctx, layer *l, char **room, size_t *bytes) {
  const cp_kit *kit = l->kit;
  bool few = l->n <= FEW;
  l->k = l->op->back ? l->op->gates * l->h : l->h;
  l->columns = l->op->back ? l->h : l->op->gates * l->h;
  l->piece = over(l->k, over(l->k, CP_PANEL_K));
  l->padded = up(l->columns, kit->columns);
  double work = (double)l->steps * (double)l->n * (double)l->k * (double)l->columns;
  l->parts = work > 2 * CP_LEAST_WORK ? least(ctx->threads, over(l->n, kit->rows)) : 1;
  l->block = least(up(over(l->n, l->parts), kit->rows), up(BLOCK_ROWS, kit->rows));
  l->parts = least(l->parts, over(l->n, l->block));
  size_t zeros = aligned(3 * l->h, l), packed = few ? 0 : aligned(l->k * l->padded, l);
  l->panels = aligned(l->block * l->piece, l);
  l->each = few ? aligned(l->n * l->columns, l) : l->panels + aligned(l->block * l->padded, l);
  *bytes = zeros + packed + (size_t)(few ? 1 : l->parts) * l->each;
  if (!(*room = kn_scratch_take(ctx, *bytes))) return kn_fail_nomem(ctx, *bytes);
  l->zeros = *room, l->packed = l->zeros + zeros, l->own = l->packed + packed;
  return KN_OK;
}

static kn_status run(kn_context *ctx, layer *l) {
  char *room;
  size_t bytes;
  KN_TRY(arrange(ctx, l, &room, &bytes));
  memset(l->zeros, 0, (size_t)(3 * l->h * l->kit->size));
  if (!l->op->back && l->op->gates == 3 && !l->in[3].data) l->in[3].data = l->zeros;
  for (int k = l->op->result + 1; l->op->back && k < CP_RNN_OUTS; k++)
    if (l->out[k].data) memset(l->out[k].data, 0, (size_t)(l->n * l->h * l->kit->size));
  if (l->n <= FEW) {
    walk_few(l);
  } else {
    int64_t panels = l->padded / l->kit->columns;
    kn_parallel_for(ctx, panels, CP_LEAST_WORK / (8 * l->kit->columns * l->k) + 1, pack_weight, l);
    kn_parallel_for(ctx, l->parts, 1, walk_parts, l);
  }
  kn_scratch_give(ctx, room, bytes);
  return KN_OK;
}

/* ---- the kernel ---- */

/* Of a tensor [T,N,*], [N,H], or [*], which no step and no sample moves, with its elements in one piece. */
static lay lay_of(const kn_tensor *t, char *data) {
  int rank = t->type.rank;
  lay x = {.data = data};
  if (rank > 1) x.row = t->type.dims[rank - 1];
  if (rank > 2) x.step = x.row * t->type.dims[1];
  return x;
}

kn_status cp_rnn(kn_context *ctx, const cp_rnns *rnns, const cp_kit *const kits[KN_DTYPE_COUNT], kn_op op,
                 const void *attrs, kn_tensor *const *in, int n, kn_tensor *const *out) {
  kn_dtype dtype = kn_tensor_dtype(in[0]);
  const kn_attrs_rnn_direction *way = attrs;
  bool plain = kn_ops[op].attrs == KN_ATTRS_rnn_direction;
  kk_dense dense;
  layer l = {.ctx = ctx, .kit = kits[dtype], .op = &rows_of[op], .units = rnns->units[op][dtype]};
  if (!l.units || !l.kit || !kn_tensor_numel(in[0])) return KN_DECLINED;
  l.reverse = plain ? way->reverse : ((const kn_attrs_direction *)attrs)->reverse;
  l.relu = plain && way->nonlinearity == KN_CHOICE_nonlinearity_relu;
  l.steps = in[0]->type.dims[0], l.n = in[0]->type.dims[1], l.h = in[l.op->weight]->type.dims[1];
  KN_TRY(kk_dense_all(ctx, in, n, &dense));
  for (int i = 0; i < n; i++) l.in[i] = lay_of(in[i], dense.data[i]);
  for (int i = 0; i < kn_ops[op].outs; i++) l.out[i] = lay_of(out[i], kn_tensor_data(out[i]));
  kn_status st = run(ctx, &l);
  kk_dense_give(ctx, &dense);
  return st;
}
