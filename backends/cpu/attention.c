/* Attention as one walk: blocks of queries of each batch are units of work, independent of each other, by the
 * loops of runs_attention.c; few queries (as when a text is continued by a token) by the products that eager
 * code takes for them, a batch after the other. Compiled once. */
#include "backends/cpu/attention.h"
#include "backends/cpu/cpu.h"
#include <string.h>

enum { LONGEST = 16384 }; /* keys: scores of a block of queries should fit into the caches */

struct cp_attention {
  const cp_set *set;
  kn_attention_nodes f;
  kn_type scores, out; /* of the two products */
  kn_type given;       /* as the last node gives it */
  int64_t width;
};

/* ---- for the target ---- */

static bool find(const kn_part *part, const kn_node *const *list, uint32_t n, kn_attention_nodes *found) {
  if (!kn_attention_find(part, list, n, found)) return false;
  const kn_type *scores = &part->types[found->scores];
  return scores->dims[scores->rank - 1] <= LONGEST;
}

kn_status cp_attention_new(kn_context *ctx, const cp_set *set, const kn_part *part, uint32_t first,
                           cp_attention **out) {
  kn_attention_nodes f;
  *out = NULL;
  if (!find(part, part->nodes + first, part->n - first, &f)) return KN_OK;
  const kn_type *scores = &part->types[f.scores], *q = &part->types[f.q];
  if (!set->attends->queries[scores->dtype]) return KN_OK;
  cp_attention *a = kn_alloc(ctx->heap, sizeof *a);
  if (!a) return kn_fail_nomem(ctx, sizeof *a);
  *a = (cp_attention){.set = set, .f = f, .scores = *scores, .out = *scores, .width = q->dims[q->rank - 1]};
  a->given = part->types[f.out];
  const kn_type *v = &part->types[f.v];
  a->out.dims[a->out.rank - 1] = v->dims[v->rank - 1];
  part->together[first] = f.length;
  for (uint32_t i = 0; i < f.nhidden; i++) part->room[f.hidden[i]] = KN_ROOM_NONE;
  *out = a;
  return KN_OK;
}

void cp_attention_free(kn_context *ctx, cp_attention *a) { kn_free(ctx->heap, a, sizeof *a); }

uint32_t cp_attention_length(const cp_attention *a) { return a->f.length; }

uint32_t cp_attention_others(const cp_attention *a, const uint32_t **which) {
  *which = a->f.others;
  return a->f.nothers;
}

/* ---- a run ---- */

typedef struct strided { /* an operand, by the dims that scores have; elements of `size` bytes */
  int64_t steps[KN_MAX_RANK], size;
  const char *data;
} strided;

typedef struct job {
  const cp_attention *a;
  const kn_context *ctx;
  cp_attend first; /* the first block */
  int batch;       /* dims */
  strided q, k, v, to, kept, ops[KN_SCORE_STEPS];
  int64_t queries, block, blocks, units, parts;
  char *room;
  size_t bytes; /* for each part */
  int32_t *limits[KN_SCORE_STEPS];
} job;

/* As it is broadcast to `type`. */
static strided spread(const kn_tensor *t, const kn_type *type) {
  strided s = {.size = (int64_t)kn_dtype_size(kn_tensor_dtype(t)), .data = kn_tensor_data(t)};
  for (int d = 0; d < type->rank; d++) {
    const int at = d - (type->rank - t->type.rank);
    s.steps[d] = at < 0 || t->type.dims[at] == 1 ? 0 : t->strides[at];
  }
  return s;
}

/* The result, or what it is copied to at once: [..., queries, heads, values] of [..., heads, queries,
 * values]. */
static strided target(const cp_attention *a, const kn_tensor *out) {
  strided s = {.size = (int64_t)kn_dtype_size(kn_tensor_dtype(out)), .data = kn_tensor_data(out)};
  kn_type type = a->out;
  const int r = type.rank;
  if (a->f.turned) type.dims[r - 2] = a->out.dims[r - 3], type.dims[r - 3] = a->out.dims[r - 2];
  kn_strides_contiguous(&type, s.steps);
  const int64_t heads = s.steps[r - 2];
  if (a->f.turned) s.steps[r - 2] = s.steps[r - 3], s.steps[r - 3] = heads;
  return s;
}

static double number_at(kn_tensor *const *vals, uint32_t v) {
  return kn_element_float(kn_tensor_dtype(vals[v]), kn_tensor_data(vals[v]));
}

static void set(job *j, kn_tensor *const *vals) {
  const cp_attention *a = j->a;
  const int r = a->scores.rank;
  const kn_dtype dtype = (kn_dtype)a->scores.dtype;
  cp_attend *b = &j->first;
  j->batch = r - 2;
  j->queries = a->scores.dims[r - 2];
  j->q = spread(vals[a->f.q], &a->scores);
  j->k = spread(vals[a->f.k], &a->scores);
  j->v = spread(vals[a->f.v], &a->scores);
  j->to = target(a, vals[a->f.out]);
  *b = (cp_attend){.kit = a->set->kits[dtype],
                   .keys = a->scores.dims[r - 1],
                   .width = a->width,
                   .values = a->out.dims[r - 1],
                   .q_row = j->q.steps[r - 2],
                   .q_column = j->q.steps[r - 1],
                   .k_row = j->k.steps[r - 1],
                   .k_column = j->k.steps[r - 2],
                   .v_row = j->v.steps[r - 2],
                   .v_column = j->v.steps[r - 1],
                   .to_row = j->to.steps[r - 2],
                   .nops = a->f.nops};
  if ((b->scaled = a->f.scale != 0)) b->scale = number_at(vals, a->f.scale), b->divided = a->f.divided;
  for (uint32_t o = 0; o < b->nops; o++) {
    const kn_attention_op *op = &a->f.ops[o];
    b->ops[o] = (cp_score_op){.step = op->step, .number = op->number ? number_at(vals, op->number) : 0};
    if (!op->operand) continue;
    j->ops[o] = spread(vals[op->operand], &a->scores);
    b->ops[o].row = j->ops[o].steps[r - 2];
    b->ops[o].column = j->ops[o].steps[r - 1];
  }
  if (!a->f.kept) return;
  j->kept = spread(vals[a->f.kept], &a->scores);
  b->kept_row = j->kept.steps[r - 2];
  b->unkept = number_at(vals, a->f.unkept);
}

static const char *moved(const strided *s, const int64_t *at, int rank) {
  int64_t offset = 0;
  for (int d = 0; d < rank; d++) offset += at[d] * s->steps[d];
  return s->data + offset * s->size;
}

static cp_attend block_at(const job *j, int64_t unit) {
  cp_attend b = j->first;
  int64_t at[KN_MAX_RANK] = {0}, rest = unit / j->blocks;
  at[j->batch] = unit % j->blocks * j->block;
  for (int d = j->batch - 1; d >= 0; d--) {
    at[d] = rest % j->a->scores.dims[d];
    rest /= j->a->scores.dims[d];
  }
  const int64_t left = j->queries - at[j->batch];
  b.queries = left < j->block ? left : j->block;
  b.q = moved(&j->q, at, j->batch + 1);
  b.to = (char *)(uintptr_t)moved(&j->to, at, j->batch + 1);
  b.k = moved(&j->k, at, j->batch);
  b.v = moved(&j->v, at, j->batch);
  if (j->kept.data) b.kept = moved(&j->kept, at, j->batch + 1);
  for (uint32_t o = 0; o < b.nops; o++) {
    if (j->ops[o].data) b.ops[o].data = moved(&j->ops[o], at, j->batch + 1);
    if (j->limits[o]) b.ops[o].limits = j->limits[o] + at[j->batch];
  }
  return b;
}

/* ---- masks that are the same for all batches, and keep the first keys of each query ---- */

static bool find_limits(const job *j, const cp_score_op *o, const strided *mask, int32_t *limits) {
  const size_t keys = (size_t)j->first.keys;
  for (int64_t i = 0; i < j->queries; i++) {
    const char *row = mask->data + i * o->row, *end = memchr(row, 0, keys);
    const size_t kept = end ? (size_t)(end - row) : keys;
    if (memchr(row + kept, 1, keys - kept)) return false;
    limits[i] = (int32_t)kept;
  }
  return true;
}

static void look_at_masks(job *j, int32_t *room) {
  for (uint32_t o = 0; o < j->first.nops; o++) {
    const cp_score_op *op = &j->first.ops[o];
    bool shared = op->step == KN_SCORE_KEEP && op->row && op->column == 1;
    for (int d = 0; d < j->batch; d++) shared &= !j->ops[o].steps[d];
    if (shared && find_limits(j, op, &j->ops[o], room)) j->limits[o] = room;
    room += j->queries;
  }
}

/* ---- few queries ---- */

static cp_gemm scores_of(const cp_attend *b) {
  return (cp_gemm){.kit = b->kit,
                   .m = b->queries,
                   .n = b->keys,
                   .k = b->width,
                   .a = b->q,
                   .b = b->k,
                   .a_row = b->q_row,
                   .a_column = b->q_column,
                   .b_row = b->k_column,
                   .b_column = b->k_row,
                   .c_row = b->keys};
}

static cp_gemm results_of(const cp_attend *b) {
  return (cp_gemm){.kit = b->kit,
                   .m = b->queries,
                   .n = b->values,
                   .k = b->keys,
                   .b = b->v,
                   .a_row = b->keys,
                   .a_column = 1,
                   .b_row = b->v_row,
                   .b_column = b->v_column,
                   .c = b->to,
                   .c_row = b->to_row};
}

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Scores, weights, scaled queries, room of the products. */
static size_t few_room(const cp_attend *b) {
  const cp_gemm g = scores_of(b), h = results_of(b);
  const size_t one = cp_gemm_room(&g), other = cp_gemm_room(&h), size = (size_t)b->kit->size;
  return 2 * aligned((size_t)(b->queries * b->keys) * size) +
         aligned((size_t)(b->queries * b->width) * size) + aligned(one > other ? one : other);
}

#define FEW(T)                                                                                               \
  static void scale_##T(const cp_attend *b, T *to) {                                                         \
    const T *q = (const T *)b->q, by = (T)b->scale;                                                          \
    for (int64_t i = 0; i < b->queries; i++)                                                                 \
      for (int64_t p = 0; p < b->width; p++, to++) {                                                         \
        const T x = q[i * b->q_row + p * b->q_column];                                                       \
        *to = b->divided ? x / by : x * by;                                                                  \
      }                                                                                                      \
  }                                                                                                          \
  static void change_##T(const cp_score_op *o, int64_t queries, int64_t keys, T *x) {                        \
    const T number = (T)o->number;                                                                           \
    const bool kept = o->step == KN_SCORE_KEEP;                                                              \
    for (int64_t i = 0; i < queries; i++, x += keys) {                                                       \
      const T *y = (const T *)o->data + i * o->row;                                                          \
      const bool *keep = (const bool *)o->data + i * o->row;                                                 \
      if (o->step == KN_SCORE_MUL)                                                                           \
        for (int64_t s = 0; s < keys; s++) x[s] *= number;                                                   \
      else if (o->step == KN_SCORE_DIV)                                                                      \
        for (int64_t s = 0; s < keys; s++) x[s] /= number;                                                   \
      else if (o->step == KN_SCORE_ADD)                                                                      \
        for (int64_t s = 0; s < keys; s++) x[s] += y[s * o->column];                                         \
      else if (o->column == 1)                                                                               \
        for (int64_t s = 0; s < keys; s++) x[s] = keep[s] == kept ? x[s] : number;                           \
      else                                                                                                   \
        for (int64_t s = 0; s < keys; s++) x[s] = keep[s * o->column] == kept ? x[s] : number;               \
    }                                                                                                        \
  }                                                                                                          \
  static void unkeep_##T(const cp_attend *b, T *x) {                                                         \
    for (int64_t i = 0; i < b->queries; i++, x += b->keys)                                                   \
      for (int64_t s = 0; !b->kept[i * b->kept_row] && s < b->keys; s++) x[s] = (T)b->unkept;                \
  }
FEW(float)
FEW(double)

static void few(const job *j, const cp_attend *b, char *room) {
  const kn_dtype dtype = (kn_dtype)j->a->scores.dtype;
  const bool narrow = dtype == KN_F32;
  const size_t size = (size_t)b->kit->size;
  const size_t each = aligned((size_t)(b->queries * b->keys) * size);
  char *x = room, *weights = x + each, *scaled = weights + each,
       *rest = scaled + aligned((size_t)(b->queries * b->width) * size);
  cp_gemm g = scores_of(b), h = results_of(b);
  if (b->scaled) {
    narrow ? scale_float(b, (float *)scaled) : scale_double(b, (double *)scaled);
    g.a = scaled, g.a_row = b->width, g.a_column = 1;
  }
  g.c = x;
  cp_gemm_in(j->ctx, &g, rest);
  for (uint32_t o = 0; o < b->nops; o++)
    narrow ? change_float(&b->ops[o], b->queries, b->keys, (float *)x)
           : change_double(&b->ops[o], b->queries, b->keys, (double *)x);
  j->a->set->softmaxes->rows[dtype](weights, x, b->queries, b->keys, false);
  if (b->kept) narrow ? unkeep_float(b, (float *)weights) : unkeep_double(b, (double *)weights);
  h.a = weights;
  cp_gemm_in(j->ctx, &h, rest);
}

/* ---- all of it ---- */

static void run_parts(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  const kn_dtype dtype = (kn_dtype)j->a->scores.dtype;
  for (int64_t part = begin; part < end; part++)
    for (int64_t i = j->units * part / j->parts; i < j->units * (part + 1) / j->parts; i++) {
      const cp_attend b = block_at(j, i);
      char *room = j->room + (size_t)part * j->bytes;
      if (j->queries <= CP_FEW_ROWS)
        few(j, &b, room);
      else
        j->a->set->attends->block[dtype](&b, room);
    }
}

kn_status cp_attention_run(kn_context *ctx, cp_attention *a, kn_tensor **vals) {
  const kn_dtype dtype = (kn_dtype)a->scores.dtype;
  /* Of a reshape that somebody keeps the plan makes no tensor: it could have been a view. */
  if (!vals[a->f.out]) KN_TRY(kn_tensor_new(ctx, &a->given, &vals[a->f.out]));
  job j = {.a = a, .ctx = ctx, .parts = 1};
  set(&j, vals);
  const bool is_few = j.queries <= CP_FEW_ROWS;
  j.block = is_few ? j.queries : a->set->attends->queries[dtype];
  j.blocks = (j.queries + j.block - 1) / j.block;
  j.units = kn_type_numel(&a->scores) / (j.queries * j.first.keys) * j.blocks;
  cp_attend b = j.first;
  b.queries = j.block;
  j.bytes = aligned(is_few ? few_room(&b) : a->set->attends->room[dtype](&b));
  const double work = (double)kn_type_numel(&a->scores) * (double)(a->width + b.values + 8);
  if (work > 2 * CP_LEAST_WORK && j.units > 1)
    j.parts = j.units < 4 * ctx->threads ? j.units : 4 * ctx->threads;
  if (ctx->threads == 1) j.parts = 1;
  const size_t limits = is_few ? 0 : aligned(b.nops * (size_t)j.queries * sizeof(int32_t));
  const size_t bytes = j.bytes * (size_t)j.parts + limits;
  _Alignas(64) char little[8192];
  char *room = bytes <= sizeof little ? little : kn_scratch_take(ctx, bytes);
  if (!room) return kn_fail_nomem(ctx, bytes);
  j.room = room + limits;
  if (limits) look_at_masks(&j, (int32_t *)room);
  kn_parallel_for(ctx, j.parts, 1, run_parts, &j);
  if (room != little) kn_scratch_give(ctx, room, bytes);
  return KN_OK;
}

/* ---- before the part is whole ---- */

/* Nodes from n on, as the graph has them. */
static uint32_t gather(const kn_node *n, const kn_node **list, uint32_t have) {
  for (const kn_node *c = n; c && have < KN_ATTENTION_LOOK; c = c == n ? n->next : c->next)
    if (c == n || (kn_opcode_is_op(c->op) && kn_ops[c->op].op_class != KN_CLASS_VIEW)) list[have++] = c;
  return have;
}

static bool has_loops(const cp_set *set, const kn_part *part, uint32_t v) {
  return set->attends->queries[part->types[v].dtype] > 0;
}

bool cp_attention_wants(const cp_set *set, const kn_part *so_far, const kn_node *n) {
  const kn_node *list[KN_ATTENTION_LOOK];
  kn_attention_nodes found;
  if (n->op != KN_OP_matmul || !has_loops(set, so_far, n->out[0]->id)) return false;
  return find(so_far, list, gather(n, list, 0), &found);
}

bool cp_attention_joins(const cp_set *set, const kn_part *so_far, const kn_node *n) {
  if ((n->op != KN_OP_matmul && n->op != KN_OP_reshape) || !has_loops(set, so_far, n->out[0]->id))
    return false;
  const uint32_t back = so_far->n < KN_ATTENTION_LOOK - 1 ? so_far->n : KN_ATTENTION_LOOK - 1;
  for (uint32_t from = so_far->n - back; from <= so_far->n; from++) {
    const kn_node *list[KN_ATTENTION_LOOK];
    kn_attention_nodes found;
    uint32_t have = 0;
    for (uint32_t i = from; i < so_far->n; i++) list[have++] = so_far->nodes[i];
    const uint32_t at = have;
    have = gather(n, list, have);
    if (find(so_far, list, have, &found) && at < found.length) return true;
  }
  return false;
}
