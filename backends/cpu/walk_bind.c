/* How a chain is walked in a run: where its operands lie, how rows are cut into tiles and units of work, and
 * the room that a tile needs. Compiled once. */
#include "backends/cpu/walk.h"
#include <string.h>

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- room of a tile: blocks, copies of operands, numbers of rows, accumulators, stages of totals ---- */

static size_t lines(int64_t bytes) { return ((size_t)bytes + CP_LINE - 1) & ~(size_t)(CP_LINE - 1); }

/* What waits to be folded: rows whose columns are folded at once, or elements of a total. */
static size_t stage_of(const cp_step *s, int64_t wide, int64_t rows) {
  if (s->kind == CP_STEP_TOTAL) return lines(CP_LONGEST * s->size);
  return s->kind == CP_STEP_COLUMNS ? lines(8 * cp_cut_columns(rows, wide).lined * wide * s->size) : 0;
}

cp_room cp_room_of(const cp_chain *c, int64_t high, int64_t wide, int64_t rows, uint32_t ncopies) {
  cp_room r = {.block = lines(most(high * wide * c->width, high * CP_NUMBER)),
               .numbers = lines(high * CP_NUMBER)};
  for (uint32_t i = 0; i < c->nsteps; i++) {
    const size_t stage = stage_of(&c->steps[i], wide, rows);
    if (stage > r.stage) r.stage = stage;
  }
  r.copies = c->nblocks * r.block;
  r.rows = r.copies + ncopies * r.block;
  r.accs = r.rows + c->nnumbers * r.numbers;
  r.stages = r.accs + r.numbers;
  r.end = r.stages + c->nfolds * r.stage;
  return r;
}

/* Rows of n elements of a tile of about so many: one where they do not stay whole, as totals take elements in
 * their order. */
static int64_t height(int64_t tile, int64_t n, int64_t rows) { return least(most(tile / n, 1), rows); }

static int64_t count(const cp_chain *c, int from, int to) {
  int64_t n = 1;
  for (int d = from; d < to; d++) n *= c->shape.dims[d];
  return n;
}

bool cp_chain_fits(const cp_chain *c) {
  if (!c->whole) return true; /* tiles as large as there is room */
  const int lead = c->shape.rank - c->inner;
  const int64_t n = count(c, lead, c->shape.rank), rows = count(c, 0, lead);
  return cp_room_of(c, height(CP_TILE, n, rows), n, rows, c->nmemory).end <= CP_WALK_ROOM;
}

kn_status cp_chain_reserve(kn_context *ctx, cp_chain *c) {
  const int lead = c->shape.rank - c->inner;
  const int64_t n = count(c, lead, c->shape.rank), rows = count(c, 0, lead), total = rows * n;
  for (uint32_t i = 0; i < c->nsteps; i++) {
    if (c->steps[i].kind < CP_STEP_COLUMNS) continue;
    cp_folding *f = &c->folds[c->steps[i].fold];
    if (c->steps[i].kind == CP_STEP_COLUMNS)
      f->cut = cp_cut_columns(rows, n), f->width = n * f->cut.lined, f->pieces = f->cut.pieces;
    else
      f->width = 1, f->pieces = total < 2 * CP_PIECE ? 1 : divide_up(total, CP_PIECE);
    const size_t bytes = (size_t)(f->pieces * f->width) * CP_NUMBER;
    f->partial = kn_alloc(ctx->heap, bytes);
    if (!f->partial) return kn_fail_nomem(ctx, bytes);
  }
  return KN_OK;
}

void cp_chain_free(kn_context *ctx, cp_chain *c) {
  if (!c) return;
  for (uint32_t i = 0; i < c->nfolds; i++)
    kn_free(ctx->heap, c->folds[i].partial, (size_t)(c->folds[i].pieces * c->folds[i].width) * CP_NUMBER);
  kn_free(ctx->heap, c->turned, c->turned_bytes);
  kn_free(ctx->heap, c, sizeof *c);
}

/* ---- where operands lie ---- */

/* Of operand k along the chain's dims, in bytes; 0 where it is repeated. */
static void set_strides(const cp_chain *c, const cp_memory *m, const kn_tensor *t, int64_t size,
                        int64_t *to) {
  const int lead = m->rank - t->type.rank; /* dims that it does not have */
  for (int d = 0; d < c->shape.rank; d++) {
    const bool repeats =
        m->factor || d < lead || d >= m->rank || (t->type.dims[d - lead] == 1 && c->shape.dims[d] != 1);
    to[d] = repeats ? 0 : t->strides[d - lead] * size;
  }
}

static bool continues(const cp_chain *c, int64_t (*strides)[KN_MAX_RANK], int a, int b) {
  for (uint32_t k = 0; k < c->nmemory; k++)
    if (strides[k][a] != strides[k][b] * c->shape.dims[b]) return false;
  return true;
}

/* Dims [from, to) of the chain without those of size 1, neighbours joined that lie one after the other in all
 * operands: sizes into `dims`, for each the dim that its strides are those of into `as`. */
static int join_dims(const cp_chain *c, int64_t (*strides)[KN_MAX_RANK], int from, int to, int64_t *dims,
                     int *as) {
  int n = 0;
  for (int d = from; d < to; d++) {
    if (c->shape.dims[d] == 1) continue;
    if (n && continues(c, strides, as[n - 1], d))
      dims[n - 1] *= c->shape.dims[d];
    else
      dims[n++] = c->shape.dims[d];
    as[n - 1] = d;
  }
  return n;
}

/* Rows and their dims. */
static void set_dims(cp_chain *c, int64_t (*strides)[KN_MAX_RANK]) {
  int as[KN_MAX_RANK], lead = c->shape.rank - c->inner;
  int64_t dims[KN_MAX_RANK];
  c->nlead = c->ninner = 0;
  c->rows = c->row = 1;
  int n = join_dims(c, strides, 0, lead, dims, as);
  for (int d = 0; d < n; d++) {
    const bool in_row = !c->inner && d == n - 1;
    int64_t *size = in_row ? &c->within[c->ninner++] : &c->lead[c->nlead++];
    *size = dims[d];
    for (uint32_t k = 0; k < c->nmemory; k++)
      *(in_row ? &c->operands[k].inner[c->ninner - 1] : &c->operands[k].lead[c->nlead - 1]) =
          strides[k][as[d]];
  }
  n = c->inner ? join_dims(c, strides, lead, c->shape.rank, dims, as) : 0;
  for (int d = 0; d < n; d++) {
    c->within[c->ninner++] = dims[d];
    for (uint32_t k = 0; k < c->nmemory; k++) c->operands[k].inner[c->ninner - 1] = strides[k][as[d]];
  }
  for (int d = 0; d < c->nlead; d++) c->rows *= c->lead[d];
  for (int d = 0; d < c->ninner; d++) c->row *= c->within[d];
}

static bool lies_as_rows(const cp_chain *c, const cp_memory *m, const kn_tensor *t) {
  return kn_tensor_numel(t) == (m->numbers ? c->rows : c->rows * c->row) && kn_tensor_contiguous(t);
}

static cp_way way_of(const cp_chain *c, const cp_memory *m, const cp_operand *o, const kn_tensor *t) {
  bool same = true, repeated = true, line = c->ninner == 1 && o->inner[0] == o->size;
  if (m->factor || lies_as_rows(c, m, t)) return CP_WAY_AS_IS;
  for (int d = 0; d < c->nlead; d++) same &= !o->lead[d];
  for (int d = 0; d < c->ninner; d++) repeated &= !o->inner[d];
  if (!m->numbers && line && c->high == 1) return CP_WAY_LINE;
  return same && (m->numbers || repeated || c->wide == c->row) ? CP_WAY_ONCE : CP_WAY_COPY;
}

static void set_tile(cp_chain *c) {
  int64_t tile = CP_TILE;
  c->wide = c->row;
  c->high = height(tile, c->row, c->rows);
  if (c->whole) return;
  do {
    c->wide = least(c->row, tile);
    c->high = height(tile, c->wide, c->rows);
    tile /= 2;
  } while (cp_room_of(c, c->high, c->wide, c->rows, c->nmemory).end > CP_WALK_ROOM);
}

static int64_t common_part(int64_t a, int64_t b) { return b ? common_part(b, a % b) : a; }

/* Rows, or of a single row elements, that a fold's pieces let one thread have. */
static int64_t unit_of(const cp_chain *c, const cp_step *s) {
  const cp_folding *f = &c->folds[s->fold];
  if (s->kind < CP_STEP_COLUMNS) return 1;
  if (f->pieces == 1) return c->rows == 1 ? c->row : c->rows;
  if (s->kind == CP_STEP_COLUMNS) return f->cut.rows;
  return c->rows == 1 ? CP_PIECE : CP_PIECE / common_part(CP_PIECE, c->row);
}

static void set_units(cp_chain *c) {
  const int64_t all = c->rows == 1 ? c->row : c->rows;
  int64_t unit = 1;
  for (uint32_t i = 0; i < c->nsteps; i++) {
    const int64_t u = unit_of(c, &c->steps[i]);
    unit = least(unit / common_part(unit, u) * u, all);
  }
  c->unit = least(c->columns || c->totals ? unit : c->rows == 1 ? c->wide : c->high, all);
  c->units = divide_up(all, c->unit);
}

/* Is the product's second operand what was turned? Hosts may replace constants. */
static bool is_turned(const cp_chain *c, kn_tensor *const *vals) {
  if (!c->turned) return false;
  const kn_tensor *b = vals[c->memory[c->steps[0].from[1]].value];
  return kn_tensor_data(b) == c->origin.data &&
         !memcmp(b->strides, c->origin.strides, sizeof c->origin.strides) &&
         atomic_load_explicit(&b->storage->version, memory_order_relaxed) == c->origin.version;
}

/* The product is the chain's first step, its operands the first in memory (one, where they are one). */
static void set_head(cp_chain *c, kn_tensor *const *vals) {
  const cp_step *s = &c->steps[0];
  const kn_tensor *a = vals[c->memory[s->from[0]].value], *b = vals[c->memory[s->from[1]].value];
  c->turns = is_turned(c, vals);
  c->head = (cp_gemm){.kit = c->head.kit,
                      .m = a->type.dims[0],
                      .n = b->type.dims[1],
                      .k = a->type.dims[1],
                      .a_row = a->strides[0],
                      .a_column = a->strides[1],
                      .b_row = c->turns ? b->type.dims[1] : b->strides[0],
                      .b_column = c->turns ? 1 : b->strides[1],
                      .c_row = b->type.dims[1]};
  c->head.way = cp_gemm_way_of(&c->head);
}

void cp_chain_bind(cp_chain *c, kn_tensor *const *vals) {
  int64_t strides[CP_MOST_MEMORY][KN_MAX_RANK];
  for (uint32_t k = 0; k < c->nmemory; k++) {
    const kn_tensor *t = vals[c->memory[k].value];
    c->operands[k].size = (int64_t)kn_dtype_size(c->memory[k].dtype);
    set_strides(c, &c->memory[k], t, c->operands[k].size, strides[k]);
    memcpy(c->strides[k], t->strides, sizeof c->strides[k]);
  }
  set_dims(c, strides);
  set_tile(c);
  c->ncopies = 0;
  for (uint32_t k = 0; k < c->nmemory; k++) {
    cp_operand *o = &c->operands[k];
    o->way = way_of(c, &c->memory[k], o, vals[c->memory[k].value]);
    if (o->way >= CP_WAY_ONCE) o->room = (uint8_t)c->ncopies++;
  }
  if (c->head.kit) set_head(c, vals);
  set_units(c);
  c->room = cp_room_of(c, c->high, c->wide, c->rows, c->ncopies);
  c->single = c->rows <= c->high && c->row <= c->wide && !c->columns && !c->totals;
  c->bound = true;
}

/* Do all operands lie as in the last run? */
bool cp_chain_lies_as_before(const cp_chain *c, kn_tensor *const *vals) {
  bool same = c->bound && c->turns == is_turned(c, vals);
  for (uint32_t k = 0; same && k < c->nmemory; k++) {
    const kn_tensor *t = vals[c->memory[k].value];
    for (int d = 0; d < t->type.rank; d++) same &= c->strides[k][d] == t->strides[d];
  }
  return same;
}
