/* The driver of elementwise ops: from tensors of any strides and dtypes to loops over elements that lie one
 * after the other. Where an operand is not like that, blocks of it are gathered, repeated or cast into a
 * buffer that stays in the first cache. Which dtype an op is computed in is what the reference computes, see
 * kernels/kernel.h. Compiled once. */
#include "backends/cpu/run.h"
#include "core/infer.h"
#include <string.h>

enum { MOST_DIMS = KN_MAX_RANK + 1, TILE = 128 };

typedef struct operand {
  char *data;
  int64_t strides[MOST_DIMS]; /* bytes */
  int64_t size;               /* of an element */
  cp_run casts[2];            /* on its way to the loop; NULL: none. Of operand 0: on its way back */
  int64_t width;              /* of an element as the loop sees it */
} operand;

typedef struct walk {
  cp_run run;
  const void *arg;
  int count, rank; /* operands, the result among them */
  bool copies;     /* the loop only moves its one input */
  int64_t dims[MOST_DIMS];
  operand operands[CP_OPERANDS];
} walk;

typedef struct room {
  _Alignas(CP_LINE) char at[CP_BLOCK * 8];
} room;

/* ---- what an op is computed in ---- */

static bool whole(kn_dtype d) { return kn_dtypes[d].category != KN_CAT_FLOAT; }

/* Into what the inputs are cast: the result's dtype, or where the result is a truth about them, what they
 * promote to. The condition of where is none of them. */
static kn_dtype seen_as(kn_tensor *const *in, int n, const kn_tensor *out) {
  if (kn_tensor_dtype(out) != KN_BOOL || n == 3) return kn_tensor_dtype(out);
  return n == 2 ? kn_promote_types(&in[0]->type, &in[1]->type) : kn_tensor_dtype(in[0]);
}

/* The dtype of the loop: the one the inputs are seen as, or the wide one that stands for it. Integers are
 * never narrowed on their way in, so beside wider ones (which only 0-d tensors can be) all are int64. */
static kn_dtype loop_dtype(const cp_run *runs, kn_dtype as, kn_tensor *const *in, int n) {
  bool narrowed = false;
  for (int i = n == 3; i < n && kn_dtypes[as].category == KN_CAT_INT; i++)
    narrowed |= kn_dtype_promote(as, kn_tensor_dtype(in[i])) != as;
  return runs[as] && !narrowed ? as : kn_dtypes[as].wide;
}

/* ---- the quick way: all lie one after the other and need no cast ---- */

static bool plain(const walk *w, kn_tensor *const *in, int n, const kn_tensor *out) {
  for (int k = 0; k <= n; k++)
    if (w->operands[k].casts[0]) return false;
  for (int i = 0; i < n; i++) {
    if (in[i]->type.rank != out->type.rank) return false;
    for (int d = 0; d < out->type.rank; d++)
      if (in[i]->type.dims[d] != out->type.dims[d]) return false;
    if (!kn_tensor_contiguous(in[i])) return false;
  }
  return true;
}

static void plain_range(void *ud, int64_t begin, int64_t end) {
  const walk *w = ud;
  char *p[CP_OPERANDS];
  for (int k = 0; k < w->count; k++) p[k] = w->operands[k].data + begin * w->operands[k].size;
  w->run(p, end - begin, w->arg);
}

/* ---- the general way ---- */

/* m elements, `step` bytes apart or all the same one, laid one after the other. */
#define GATHER(T)                                                                                            \
  for (int64_t i = 0; i < m; i++) ((T *)to)[i] = *(const T *)(from + i * step)
static void gather(char *to, const char *from, int64_t step, int64_t m, int64_t size) {
  if (step == size) {
    memcpy(to, from, (size_t)(m * size));
    return;
  }
  switch (size) {
  case 1: GATHER(uint8_t); break;
  case 2: GATHER(uint16_t); break;
  case 4: GATHER(uint32_t); break;
  default: GATHER(uint64_t);
  }
}

static void cast(const operand *o, char *to, char *from, int64_t m) {
  room between;
  if (!o->casts[1]) {
    o->casts[0]((char *[]){to, from}, m, NULL);
  } else {
    o->casts[0]((char *[]){between.at, from}, m, NULL);
    o->casts[1]((char *[]){to, between.at}, m, NULL);
  }
}

/* Where m elements from p on are once they are as the loop wants them: in place, or in `to`. */
static char *bring(const operand *o, char *p, int64_t step, int64_t m, room *to) {
  room gathered;
  if (step == o->size && !o->casts[0]) return p;
  if (step == 0) { /* one element is cast, then repeated */
    char one[8];
    if (o->casts[0]) cast(o, one, p, 1);
    gather(to->at, o->casts[0] ? one : p, 0, m, o->width);
    return to->at;
  }
  if (!o->casts[0]) {
    gather(to->at, p, step, m, o->size);
    return to->at;
  }
  if (step != o->size) {
    gather(gathered.at, p, step, m, o->size);
    p = gathered.at;
  }
  cast(o, to->at, p, m);
  return to->at;
}

/* m elements, cast or not, to where they are wanted one after the other. */
static void deliver(const operand *o, char *p, int64_t step, int64_t m, char *to) {
  room gathered;
  if (!o->casts[0]) {
    gather(to, p, step, m, o->size);
    return;
  }
  if (step != o->size) {
    gather(gathered.at, p, step, m, o->size);
    p = gathered.at;
  }
  cast(o, to, p, m);
}

#define SCATTER(T)                                                                                           \
  for (int64_t i = 0; i < m; i++) *(T *)(to + i * step) = ((const T *)from)[i]
static void scatter(char *to, const char *from, int64_t step, int64_t m, int64_t size) {
  switch (size) {
  case 1: SCATTER(uint8_t); break;
  case 2: SCATTER(uint16_t); break;
  case 4: SCATTER(uint32_t); break;
  default: SCATTER(uint64_t);
  }
}

/* What is repeated is brought once, and stays good for rows that are not longer. */
typedef struct repeated {
  const char *of[CP_OPERANDS];
  int64_t n[CP_OPERANDS];
} repeated;

static void row(const walk *w, char *const *p, const int64_t *step, int64_t n, room *rooms, repeated *held) {
  char *q[CP_OPERANDS];
  bool direct = true;
  for (int k = 0; k < w->count; k++) direct &= step[k] == w->operands[k].size && !w->operands[k].casts[0];
  if (direct) {
    w->run(p, n, w->arg);
    return;
  }
  for (int64_t at = 0; at < n; at += CP_BLOCK) {
    const int64_t m = n - at < CP_BLOCK ? n - at : CP_BLOCK;
    if (w->copies && step[0] == w->operands[0].size) {
      deliver(&w->operands[1], p[1] + at * step[1], step[1], m, p[0] + at * step[0]);
      continue;
    }
    for (int k = 1; k < w->count; k++) {
      if (step[k] == 0 && held->of[k] == p[k] && held->n[k] >= m) {
        q[k] = rooms[k].at;
        continue;
      }
      q[k] = bring(&w->operands[k], p[k] + at * step[k], step[k], m, &rooms[k]);
      held->of[k] = step[k] == 0 ? p[k] : NULL;
      held->n[k] = m;
    }
    const operand *out = &w->operands[0];
    char *to = p[0] + at * step[0];
    bool apart = step[0] != out->size;
    q[0] = out->casts[0] || apart ? rooms[0].at : to;
    w->run(q, m, w->arg);
    if (out->casts[0])
      cast(out, to, q[0], m);
    else if (apart)
      scatter(to, q[0], step[0], m, out->size);
  }
}

static void walk_range(void *ud, int64_t begin, int64_t end) {
  const walk *w = ud;
  int last = w->rank - 1;
  int64_t at[MOST_DIMS], step[CP_OPERANDS];
  char *p[CP_OPERANDS];
  room rooms[CP_OPERANDS];
  repeated held = {{NULL}, {0}};
  for (int64_t d = last, rest = begin; d >= 0; d--) {
    at[d] = rest % w->dims[d];
    rest /= w->dims[d];
  }
  for (int k = 0; k < w->count; k++) step[k] = w->operands[k].strides[last];
  while (begin < end) {
    for (int k = 0; k < w->count; k++) {
      p[k] = w->operands[k].data;
      for (int d = 0; d <= last; d++) p[k] += at[d] * w->operands[k].strides[d];
    }
    int64_t n = w->dims[last] - at[last];
    if (n > end - begin) n = end - begin;
    row(w, p, step, n, rooms, &held);
    begin += n;
    at[last] = 0; /* a row that stops early is the range's last */
    for (int d = last - 1; d >= 0 && ++at[d] == w->dims[d]; d--) at[d] = 0;
  }
}

/* ---- dims ---- */

static void set_strides(operand *o, const kn_tensor *t, const kn_type *shape) {
  int lead = shape->rank - t->type.rank; /* dims that this operand does not have: it is repeated there */
  for (int d = 0; d < shape->rank; d++) {
    bool repeats = d < lead || (t->type.dims[d - lead] == 1 && shape->dims[d] != 1);
    o->strides[d] = repeats ? 0 : t->strides[d - lead] * o->size;
  }
}

/* Whether dim `b`, which follows dim `a`, continues it in every operand. */
static bool continues(const walk *w, int a, int b) {
  for (int k = 0; k < w->count; k++)
    if (w->operands[k].strides[a] != w->operands[k].strides[b] * w->dims[b]) return false;
  return true;
}

static void move_dim(walk *w, int to, int from, int64_t size) {
  w->dims[to] = size;
  for (int k = 0; k < w->count; k++) w->operands[k].strides[to] = w->operands[k].strides[from];
}

/* Drops dims of size 1 and joins neighbours that lie one after the other, so that rows are long. */
static void simplify(walk *w) {
  int rank = 0;
  for (int d = 0; d < w->rank; d++) {
    if (w->dims[d] == 1) continue;
    if (rank && continues(w, rank - 1, d))
      move_dim(w, rank - 1, d, w->dims[rank - 1] * w->dims[d]);
    else
      move_dim(w, rank++, d, w->dims[d]);
  }
  if (rank == 0) {
    w->dims[rank] = 1;
    for (int k = 0; k < w->count; k++) w->operands[k].strides[rank] = w->operands[k].size;
    rank = 1;
  }
  w->rank = rank;
}

/* ---- tiles ---- */

/* The dim along which an input lies that does not lie along the last one; -1: there is none. */
static int crossing(const walk *w) {
  int last = w->rank - 1;
  for (int k = 1; k < w->count && w->dims[last] >= 16; k++) {
    const operand *o = &w->operands[k];
    if (o->strides[last] == o->size || o->strides[last] == 0) continue;
    for (int d = 0; d < last; d++)
      if (o->strides[d] == o->size && w->dims[d] >= 8) return d;
  }
  return -1;
}

/* Columns [first, first + n) of the last dim in tiles: a cache line that is fetched for one row still is
 * there when the next rows, along dim d, want their part of it. */
static void walk_tiles(kn_context *ctx, const walk *w, int d, int64_t first, int64_t n, int64_t tile,
                       int64_t grain) {
  walk t = *w;
  int last = w->rank - 1, rank = 0;
  for (int i = 0; i < last; i++)
    if (i != d) t.dims[rank++] = w->dims[i];
  t.rank = rank + 3;
  t.dims[rank] = n / tile, t.dims[rank + 1] = w->dims[d], t.dims[rank + 2] = tile;
  int64_t total = 1;
  for (int i = 0; i < t.rank; i++) total *= t.dims[i];
  for (int k = 0; k < w->count; k++) {
    const int64_t *from = w->operands[k].strides;
    int64_t *to = t.operands[k].strides;
    rank = 0;
    for (int i = 0; i < last; i++)
      if (i != d) to[rank++] = from[i];
    to[rank] = from[last] * tile, to[rank + 1] = from[d], to[rank + 2] = from[last];
    t.operands[k].data += first * from[last];
  }
  if (total) kn_parallel_for(ctx, total, grain, walk_range, &t);
}

/* All dims and strides are set. */
static void walk_all(kn_context *ctx, walk *w, int64_t total, int64_t grain) {
  simplify(w);
  int d = total >= 16384 ? crossing(w) : -1;
  if (d < 0) {
    kn_parallel_for(ctx, total, grain, walk_range, w);
    return;
  }
  int64_t n = w->dims[w->rank - 1], rest = n % TILE;
  walk_tiles(ctx, w, d, 0, n - rest, TILE, grain);
  if (rest) walk_tiles(ctx, w, d, n - rest, rest, rest, grain);
}

/* ---- an op ---- */

/* The way of an input from its own dtype to the loop's: rounded to a half first where it is seen as one. */
static void lead(const cp_isa *isa, operand *o, kn_dtype own, kn_dtype as, kn_dtype loop) {
  bool narrows = own != as && as != loop && !(whole(own) && whole(as));
  o->size = (int64_t)kn_dtype_size(own);
  o->width = (int64_t)kn_dtype_size(loop);
  o->casts[0] = o->casts[1] = NULL;
  if (narrows)
    o->casts[0] = isa->cast[own][as], o->casts[1] = isa->cast[as][loop];
  else if (own != loop)
    o->casts[0] = isa->cast[own][loop];
}

/* Few elements, or many that need nothing done to them: each operand lies as the result does, or is one
 * element. No walk has to be set up, which for a handful of elements is most of the work. */
enum { FEW = 64 };

/* Whether it is the last dims of the result, repeated along those before. */
static bool repeats(const kn_tensor *t, int64_t count, int64_t total, const kn_tensor *out) {
  if (!count || total > FEW || !kn_tensor_contiguous(t)) return false;
  int64_t left = count;
  for (int d = t->type.rank - 1, o = out->type.rank - 1; d >= 0 && left > 1; d--, o--) {
    if (t->type.dims[d] != out->type.dims[o]) return false;
    left /= t->type.dims[d];
  }
  return true;
}

static bool run_simple(cp_run run, kn_dtype loop, const void *attrs, kn_tensor *const *in, int n,
                       kn_tensor *out) {
  _Alignas(CP_LINE) char same[CP_OPERANDS][FEW * 8];
  char *p[CP_OPERANDS];
  int64_t total = 1;
  for (int d = 0; d < out->type.rank; d++) total *= out->type.dims[d];
  if (total > CP_DEAR || (kn_tensor_dtype(out) != KN_BOOL && kn_tensor_dtype(out) != loop)) return false;
  p[0] = kn_tensor_data(out);
  for (int i = 0; i < n; i++) {
    const kn_tensor *t = in[i];
    int64_t count = 1;
    for (int d = 0; d < t->type.rank; d++) count *= t->type.dims[d];
    if (kn_tensor_dtype(t) != (n == 3 && i == 0 ? KN_BOOL : loop)) return false;
    p[i + 1] = kn_tensor_data(t);
    if (count == total) {
      if (!kn_tensor_contiguous(t)) return false;
    } else if (count == 1 && total <= FEW) {
      gather(same[i], p[i + 1], 0, total, (int64_t)kn_dtype_size(kn_tensor_dtype(t)));
      p[i + 1] = same[i];
    } else if (repeats(t, count, total, out)) {
      size_t bytes = (size_t)count * kn_dtype_size(kn_tensor_dtype(t));
      for (int64_t k = 0; k < total / count; k++) memcpy(same[i] + (size_t)k * bytes, p[i + 1], bytes);
      p[i + 1] = same[i];
    } else {
      return false;
    }
  }
  if (total) run(p, total, attrs);
  return true;
}

kn_status cp_elementwise(kn_context *ctx, const cp_isa *isa, const cp_run *runs, int64_t grain,
                         const void *attrs, kn_tensor *const *in, int n, kn_tensor *out) {
  kn_dtype as = seen_as(in, n, out), loop = loop_dtype(runs, as, in, n), to = kn_tensor_dtype(out);
  if (!runs[loop]) return KN_DECLINED;
  if (as == loop && run_simple(runs[loop], loop, attrs, in, n, out)) return KN_OK;
  int64_t total = kn_tensor_numel(out);
  walk w = {.run = runs[loop], .arg = attrs, .count = n + 1, .rank = out->type.rank};
  if (total == 0) return KN_OK;
  for (int k = 0; k <= n; k++) {
    const kn_tensor *t = k ? in[k - 1] : out;
    w.operands[k].data = kn_tensor_data(t);
    bool condition = n == 3 && k == 1;
    lead(isa, &w.operands[k], kn_tensor_dtype(t), condition ? KN_BOOL : as, condition ? KN_BOOL : loop);
  }
  operand *o = &w.operands[0];
  o->casts[0] = o->casts[1] = NULL;
  if (to != KN_BOOL && to != loop) o->casts[0] = isa->cast[loop][to];
  if (plain(&w, in, n, out)) {
    kn_parallel_for(ctx, total, grain, plain_range, &w);
    return KN_OK;
  }
  for (int d = 0; d < w.rank; d++) w.dims[d] = out->type.dims[d];
  for (int k = 0; k <= n; k++) set_strides(&w.operands[k], k ? in[k - 1] : out, &out->type);
  walk_all(ctx, &w, total, grain);
  return KN_OK;
}

/* Parts of composites that are not WIDE round halves one by one. */
kn_status cp_fused(kn_context *ctx, const cp_isa *isa, kn_op op, const cp_run *runs, int64_t grain,
                   const void *attrs, kn_tensor *x, kn_tensor *out) {
  kn_dtype own = kn_tensor_dtype(x), wide = kn_dtypes[own].wide;
  if (!runs[wide] || (own != wide && !(kn_ops[op].flags & KN_FLAG_WIDE))) return KN_DECLINED;
  KN_TRY(kn_tensor_allocate(ctx, out, &x->type));
  return cp_elementwise(ctx, isa, runs, grain, attrs, &x, 1, out);
}

/* ---- copies ---- */

kn_status cp_copy(kn_context *ctx, const cp_isa *isa, const kn_tensor *x, const kn_tensor *out) {
  kn_dtype own = kn_tensor_dtype(x), to = kn_tensor_dtype(out);
  int64_t total = kn_tensor_numel(out);
  walk w = {.run = isa->cast[to][to], .count = 2, .rank = out->type.rank, .copies = true};
  if (total == 0) return KN_OK;
  w.operands[0].data = kn_tensor_data(out);
  w.operands[1].data = kn_tensor_data(x);
  lead(isa, &w.operands[0], to, to, to);
  lead(isa, &w.operands[1], own, to, to);
  for (int d = 0; d < w.rank; d++) w.dims[d] = out->type.dims[d];
  set_strides(&w.operands[0], out, &out->type);
  set_strides(&w.operands[1], x, &out->type);
  if (kn_tensor_contiguous(out) && kn_tensor_contiguous(x) && x->type.rank == w.rank &&
      total == kn_tensor_numel(x)) {
    w.run = isa->cast[own][to];
    kn_parallel_for(ctx, total, CP_CHEAP, plain_range, &w);
    return KN_OK;
  }
  walk_all(ctx, &w, total, CP_CHEAP);
  return KN_OK;
}
