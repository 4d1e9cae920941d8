/* The element loop, strided views, copies and casts, kernels run in wider dtypes: what the kernels share. */
#include "core/kernels/kernel.h"
#include <stdlib.h>

/* ---- views ---- */

kk_view kk_view_of(const kn_tensor *t) {
  kk_view v;
  v.data = kn_tensor_data(t), v.dtype = kn_tensor_dtype(t), v.rank = t->type.rank;
  for (int d = 0; d < v.rank; d++) {
    v.dims[d] = t->type.dims[d];
    v.strides[d] = t->strides[d] * (int64_t)kn_dtype_size(v.dtype);
  }
  return v;
}

void kk_select(kk_view *v, int dim, int64_t at) {
  v->data += at * v->strides[dim];
  v->rank--;
  for (int d = dim; d < v->rank; d++) {
    v->dims[d] = v->dims[d + 1];
    v->strides[d] = v->strides[d + 1];
  }
}

void kk_slice(kk_view *v, int dim, int64_t start, int64_t length, int64_t step) {
  v->data += length ? start * v->strides[dim] : 0;
  v->dims[dim] = length;
  v->strides[dim] = length > 1 ? v->strides[dim] * step : 0;
}

int64_t kk_count(const kk_view *v) {
  int64_t n = 1;
  for (int d = 0; d < v->rank; d++) n *= v->dims[d];
  return n;
}

/* ---- the element loop ---- */

typedef struct loop {
  int rank, count;
  int64_t dims[KN_MAX_RANK];
  int64_t strides[KK_OPERANDS][KN_MAX_RANK];
  char *data[KK_OPERANDS];
  kk_inner_fn inner;
  const void *arg;
} loop;

/* Whether dim `b`, which follows dim `a`, continues it in every operand. */
static bool continues(const loop *l, int a, int b) {
  for (int k = 0; k < l->count; k++)
    if (l->strides[k][a] != l->strides[k][b] * l->dims[b]) return false;
  return true;
}

static void move_dim(loop *l, int to, int from) {
  l->dims[to] = l->dims[from];
  for (int k = 0; k < l->count; k++) l->strides[k][to] = l->strides[k][from];
}

/* Drops dims of size 1 and joins neighbours that lie one after the other, so that runs are long. */
static void simplify(loop *l) {
  int rank = 0;
  for (int d = 0; d < l->rank; d++) {
    if (l->dims[d] == 1) continue;
    if (rank && continues(l, rank - 1, d)) {
      int64_t joined = l->dims[rank - 1] * l->dims[d];
      move_dim(l, rank - 1, d);
      l->dims[rank - 1] = joined;
    } else {
      move_dim(l, rank++, d);
    }
  }
  if (rank == 0) {
    l->dims[rank] = 1;
    for (int k = 0; k < l->count; k++) l->strides[k][rank] = 0;
    rank = 1;
  }
  l->rank = rank;
}

/* Short runs beside a longer dim, both within the first cache: the longer one's runs are fewer. */
static void lengthen(loop *l) {
  enum { SHORT = 4, NEAR = 1 << 14 };
  int last = l->rank - 1;
  if (last < 1 || l->dims[last] > SHORT || l->dims[last - 1] <= l->dims[last]) return;
  for (int k = 0; k < l->count; k++)
    if (llabs(l->strides[k][last - 1]) > NEAR / l->dims[last - 1]) return;
  loop was = *l;
  move_dim(l, last, last - 1);
  l->dims[last - 1] = was.dims[last];
  for (int k = 0; k < l->count; k++) l->strides[k][last - 1] = was.strides[k][last];
}

static void run_range(void *ud, int64_t begin, int64_t end) {
  const loop *l = ud;
  int last = l->rank - 1;
  int64_t at[KN_MAX_RANK], step[KK_OPERANDS];
  char *p[KK_OPERANDS];
  for (int64_t d = last, rest = begin; d >= 0; d--) {
    at[d] = rest % l->dims[d];
    rest /= l->dims[d];
  }
  for (int k = 0; k < l->count; k++) step[k] = l->strides[k][last];
  while (begin < end) {
    for (int k = 0; k < l->count; k++) {
      p[k] = l->data[k];
      for (int d = 0; d <= last; d++) p[k] += at[d] * l->strides[k][d];
    }
    int64_t n = l->dims[last] - at[last];
    if (n > end - begin) n = end - begin;
    l->inner(p, step, n, l->arg);
    begin += n;
    at[last] = 0; /* a run that stops early is the range's last */
    for (int d = last - 1; d >= 0 && ++at[d] == l->dims[d]; d--) at[d] = 0;
  }
}

static void run_loop(const kn_context *ctx, const kk_view *operands, int count, kk_inner_fn inner,
                     const void *arg, bool any_order) {
  loop l; /* not cleared: large for the few numbers that are used */
  l.rank = operands[0].rank, l.count = count;
  l.inner = inner, l.arg = arg;
  for (int d = 0; d < l.rank; d++) l.dims[d] = operands[0].dims[d];
  for (int k = 0; k < count; k++) {
    const kk_view *v = &operands[k];
    int lead = l.rank - v->rank; /* dims that this operand does not have: it is repeated there */
    l.data[k] = v->data;
    for (int d = 0; d < l.rank; d++)
      l.strides[k][d] = d < lead || (v->dims[d - lead] == 1 && l.dims[d] != 1) ? 0 : v->strides[d - lead];
  }
  int64_t total = kk_count(&operands[0]);
  if (total == 0) return;
  simplify(&l);
  if (any_order) lengthen(&l);
  kn_parallel_for(ctx, total, KK_GRAIN, run_range, &l);
}

void kk_loop(const kn_context *ctx, const kk_view *operands, int count, kk_inner_fn inner, const void *arg) {
  run_loop(ctx, operands, count, inner, arg, false);
}

static int64_t count_of(const kn_tensor *t) {
  int64_t n = 1;
  for (int d = 0; d < t->type.rank; d++) n *= t->type.dims[d];
  return n;
}

bool kk_run_flat(kn_tensor *out, kn_tensor *const *in, int n, kn_dtype dtype, kk_inner_fn inner,
                 const void *arg) {
  int64_t total = count_of(out), step[KK_OPERANDS];
  char *p[KK_OPERANDS];
  kn_dtype result = kn_tensor_dtype(out);
  if (total >= KK_GRAIN || kk_wide(dtype) != dtype || kk_wide(result) != result) return false;
  p[0] = kn_tensor_data(out), step[0] = (int64_t)kn_dtype_size(result);
  for (int i = 0; i < n; i++) {
    int64_t count = count_of(in[i]);
    bool one = count == 1 && total != 1;
    if (kn_tensor_dtype(in[i]) != dtype || (!one && (count != total || !kn_tensor_contiguous(in[i]))))
      return false;
    p[i + 1] = kn_tensor_data(in[i]), step[i + 1] = one ? 0 : (int64_t)kn_dtype_size(dtype);
  }
  if (total) inner(p, step, total, arg);
  return true;
}

/* ---- runs of casts ---- */

#define CAST(fn, TO, E_TO, FROM, E_FROM)                                                                     \
  static void fn(char *const *p, const int64_t *step, int64_t n, const void *arg) {                          \
    (void)arg;                                                                                               \
    if (step[0] == (int64_t)sizeof(TO) && step[1] == (int64_t)sizeof(FROM)) {                                \
      TO *y = (TO *)p[0];                                                                                    \
      const FROM *x = (const FROM *)p[1];                                                                    \
      for (int64_t i = 0; i < n; i++) y[i] = KN_PUT(E_TO, kn_get_##E_FROM(x[i]));                            \
    } else {                                                                                                 \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const FROM x = *(const FROM *)(p[1] + i * step[1]);                                                  \
        *(TO *)(p[0] + i * step[0]) = KN_PUT(E_TO, kn_get_##E_FROM(x));                                      \
      }                                                                                                      \
    }                                                                                                        \
  }
/* Into and out of the three types of numbers; all other ways lead through one of them. */
#define HUBS(T, E)                                                                                           \
  CAST(E##_to_int, int64_t, I64, T, E)                                                                       \
  CAST(E##_to_float, float, F32, T, E)                                                                       \
  CAST(E##_to_double, double, F64, T, E)                                                                     \
  CAST(int_to_##E, T, E, int64_t, I64)                                                                       \
  CAST(float_to_##E, T, E, float, F32)                                                                       \
  CAST(double_to_##E, T, E, double, F64)
KN_ELEMENTS(HUBS)

/* The same dtype: bits are moved. */
#define MOVE(SIZE)                                                                                           \
  static void move_##SIZE(char *const *p, const int64_t *step, int64_t n, const void *arg) {                 \
    (void)arg;                                                                                               \
    if (step[0] == SIZE && step[1] == SIZE)                                                                  \
      memmove(p[0], p[1], (size_t)n *SIZE);                                                                  \
    else                                                                                                     \
      for (int64_t i = 0; i < n; i++) memcpy(p[0] + i * step[0], p[1] + i * step[1], SIZE);                  \
  }
MOVE(1)
MOVE(2)
MOVE(4)
MOVE(8)

static bool is_hub(kn_dtype d) { return d == KN_I64 || d == KN_F32 || d == KN_F64; }

kk_inner_fn kk_cast_run(kn_dtype from, kn_dtype to) {
  static const kk_inner_fn moves[9] = {[1] = move_1, [2] = move_2, [4] = move_4, [8] = move_8};
#define IN(T, E) [KN_##E] = {[KN_I64] = E##_to_int, [KN_F32] = E##_to_float, [KN_F64] = E##_to_double},
#define OUT(T, E) [KN_##E] = {[KN_I64] = int_to_##E, [KN_F32] = float_to_##E, [KN_F64] = double_to_##E},
  static const kk_inner_fn in[KN_DTYPE_COUNT][KN_DTYPE_COUNT] = {KN_ELEMENTS(IN)};
  static const kk_inner_fn out[KN_DTYPE_COUNT][KN_DTYPE_COUNT] = {KN_ELEMENTS(OUT)};
  if (from == to) return moves[kn_dtype_size(to)];
  return is_hub(to) ? in[from][to] : out[to][from];
}

/* ---- the loop over operands of other dtypes ---- */

/* The casts that lead from an operand to `inner`, or for operand 0 back: none, or up to three. */
typedef struct way {
  int n;
  kk_inner_fn step[3];
  int64_t size[3]; /* of an element after each */
} way;

typedef struct adapter {
  kk_inner_fn inner;
  const void *arg;
  int count;
  int64_t size[KK_OPERANDS]; /* of an element as `inner` sees it */
  way ways[KK_OPERANDS];
} adapter;

typedef struct room {
  _Alignas(64) char at[KK_BLOCK * 8];
} room;

static void add_step(way *w, kn_dtype from, kn_dtype to) {
  if (from == to) return;
  w->step[w->n] = kk_cast_run(from, to);
  w->size[w->n++] = (int64_t)kn_dtype_size(to);
}

static void lead(way *w, kn_dtype from, kn_dtype to) {
  kn_dtype hub = from == KN_BOOL ? KN_I64 : kk_wide(from);
  bool direct = from == to || is_hub(from) || is_hub(to);
  add_step(w, from, direct ? to : hub);
  if (!direct) add_step(w, hub, to);
}

/* m elements at p into `to`. */
static void go(const way *w, char *to, int64_t to_step, char *p, int64_t step, int64_t m) {
  room between[2];
  for (int i = 0; i < w->n; i++) {
    bool last = i == w->n - 1;
    char *next = last ? to : between[i % 2].at;
    int64_t next_step = last ? to_step : w->size[i];
    w->step[i]((char *[]){next, p}, (int64_t[]){next_step, step}, m, NULL);
    p = next, step = next_step;
  }
}

/* What is repeated with a step of 0 is cast once. */
static void adapted(char *const *p, const int64_t *step, int64_t n, const void *arg) {
  const adapter *a = arg;
  room rooms[KK_OPERANDS];
  char *q[KK_OPERANDS];
  int64_t steps[KK_OPERANDS];
  for (int64_t i = 0; i < n; i += KK_BLOCK) {
    int64_t m = n - i < KK_BLOCK ? n - i : KK_BLOCK;
    for (int k = 0; k < a->count; k++) {
      bool cast = a->ways[k].n > 0, one = k > 0 && step[k] == 0;
      q[k] = cast ? rooms[k].at : p[k] + i * step[k];
      steps[k] = cast && !one ? a->size[k] : step[k];
      if (cast && k > 0 && (!one || i == 0))
        go(&a->ways[k], q[k], a->size[k], p[k] + i * step[k], step[k], one ? 1 : m);
    }
    a->inner(q, steps, m, a->arg);
    if (a->ways[0].n) go(&a->ways[0], p[0] + i * step[0], step[0], q[0], steps[0], m);
  }
}

static bool whole(kn_dtype d) { return kn_dtypes[d].category != KN_CAT_FLOAT; }

/* Whether an operand must first become `by`, which is then widened: rounded to a half, but no integer
 * narrowed. */
static bool narrows(kn_dtype own, kn_dtype by) {
  return own != by && by != kk_wide(by) && !(whole(own) && whole(by));
}

static bool needs_cast(const kk_view *operands, const kn_dtype *as, int count) {
  for (int k = 0; k < count; k++)
    if (operands[k].dtype != kk_wide(as[k]) || (k > 0 && narrows(operands[k].dtype, as[k]))) return true;
  return false;
}

void kk_loop_as(const kn_context *ctx, const kk_view *operands, const kn_dtype *as, int count,
                kk_inner_fn inner, const void *arg) {
  if (!needs_cast(operands, as, count)) {
    kk_loop(ctx, operands, count, inner, arg);
    return;
  }
  adapter a = {.inner = inner, .arg = arg, .count = count};
  for (int k = 0; k < count; k++) {
    kn_dtype own = operands[k].dtype, by = as[k], wide = kk_wide(by);
    bool first = k > 0 && narrows(own, by);
    a.size[k] = (int64_t)kn_dtype_size(wide);
    if (first) lead(&a.ways[k], own, by);
    lead(&a.ways[k], k == 0 ? wide : first ? by : own, k == 0 ? own : wide);
  }
  kk_loop(ctx, operands, count, adapted, &a);
}

/* ---- copies and casts of tensors ---- */

/* The last cast is the loop's, those before lead to it. */
void kk_copy(const kn_context *ctx, const kk_view *dst, const kk_view *src) {
  const kk_view both[] = {*dst, *src};
  adapter a = {.count = 2, .size = {(int64_t)kn_dtype_size(dst->dtype), 0}};
  way *w = &a.ways[1];
  lead(w, src->dtype, dst->dtype);
  a.inner = w->n ? w->step[--w->n] : kk_cast_run(src->dtype, dst->dtype);
  if (w->n) a.size[1] = w->size[w->n - 1];
  run_loop(ctx, both, 2, w->n ? adapted : a.inner, &a, true);
}

static void zero_range(void *ud, int64_t begin, int64_t end) {
  memset((char *)ud + begin, 0, (size_t)(end - begin));
}

void kk_zero(const kn_context *ctx, kn_tensor *t) {
  size_t bytes = 0;
  kn_type_bytes(&t->type, &bytes);
  kn_parallel_for(ctx, (int64_t)bytes, 1 << 20, zero_range, kn_tensor_data(t));
}

kn_status kk_cast(kn_context *ctx, kn_tensor *t, kn_dtype dtype, kn_tensor **out) {
  if (kn_tensor_dtype(t) == dtype) {
    *out = kn_tensor_retain(t);
    return KN_OK;
  }
  kn_type type = t->type;
  type.dtype = (uint8_t)dtype;
  kn_tensor *made;
  KN_TRY(kn_tensor_new(ctx, &type, &made));
  kk_view dst = kk_view_of(made), src = kk_view_of(t);
  kk_copy(ctx, &dst, &src);
  *out = made;
  return KN_OK;
}

kn_status kk_contiguous(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  if (kn_tensor_contiguous(t)) {
    *out = kn_tensor_retain(t);
    return KN_OK;
  }
  kn_tensor *made;
  KN_TRY(kn_tensor_new(ctx, &t->type, &made));
  kk_view dst = kk_view_of(made), src = kk_view_of(t);
  kk_copy(ctx, &dst, &src);
  *out = made;
  return KN_OK;
}

void kk_release_all(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

kn_status kk_contiguous_all(kn_context *ctx, kn_tensor *const *in, int n, kn_tensor **out) {
  for (int i = 0; i < n; i++) {
    kn_status st = kk_contiguous(ctx, in[i], &out[i]);
    if (st == KN_OK) continue;
    kk_release_all(out, i);
    return st;
  }
  return KN_OK;
}

/* ---- the same in memory to work in ---- */

static kk_view dense_view(const kk_view *from, void *data) {
  kk_view v = *from;
  int64_t step = (int64_t)kn_dtype_size(v.dtype);
  v.data = data;
  for (int d = v.rank - 1; d >= 0; step *= v.dims[d--]) v.strides[d] = step;
  return v;
}

static size_t dense_bytes(const kk_view *v) {
  return ((size_t)kk_count(v) * kn_dtype_size(v->dtype) + 63) / 64 * 64;
}

kn_status kk_dense_take(kn_context *ctx, const kk_view *from, int n, unsigned copy, kk_dense *d) {
  *d = (kk_dense){.room = NULL};
  for (int i = 0; i < n; i++) d->bytes += copy >> i & 1u ? dense_bytes(&from[i]) : 0;
  if (d->bytes && !(d->room = kn_scratch_take(ctx, d->bytes))) return kn_fail_nomem(ctx, d->bytes);
  char *at = d->room;
  for (int i = 0; i < n; i++) {
    bool copied = d->room && copy >> i & 1u; /* of nothing there is no copy */
    d->data[i] = copied ? at : from[i].data;
    if (!copied) continue;
    kk_view dst = dense_view(&from[i], at);
    kk_copy(ctx, &dst, &from[i]);
    at += dense_bytes(&from[i]);
  }
  return KN_OK;
}

kn_status kk_dense_all(kn_context *ctx, kn_tensor *const *in, int n, kk_dense *d) {
  kk_view from[KK_MOST_DENSE];
  unsigned copy = 0;
  for (int i = 0; i < n; i++) {
    from[i] = kk_view_of(in[i]);
    copy |= kn_tensor_contiguous(in[i]) ? 0 : 1u << i;
  }
  return kk_dense_take(ctx, from, n, copy, d);
}

void kk_dense_give(kn_context *ctx, kk_dense *d) {
  if (d->room) kn_scratch_give(ctx, d->room, d->bytes);
}

/* ---- kernels run in wider dtypes ---- */

static kn_status widen(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  return kk_cast(ctx, t, kk_wide(kn_tensor_dtype(t)), out);
}

/* A tensor like the result t, but wide; t itself when it is. */
static kn_status wide_result(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_type type = t->type;
  type.dtype = (uint8_t)kk_wide((kn_dtype)type.dtype);
  if (type.dtype != t->type.dtype)
    return t->storage ? kn_tensor_new(ctx, &type, out) : kn_tensor_symbolic(ctx, &type, NULL, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

/* The result was made wide, maybe only now with sizes and storage. */
static kn_status narrow_result(kn_context *ctx, const kn_tensor *wide, kn_tensor *t) {
  if (wide == t) return KN_OK;
  kn_type type = wide->type;
  type.dtype = t->type.dtype;
  if (!t->storage) KN_TRY(kn_tensor_allocate(ctx, t, &type));
  kk_view to = kk_view_of(t), from = kk_view_of(wide);
  kk_copy(ctx, &to, &from);
  return KN_OK;
}

static bool all_wide(kn_tensor *const *t, int n) {
  for (int i = 0; i < n; i++)
    if (kk_wide(kn_tensor_dtype(t[i])) != kn_tensor_dtype(t[i])) return false;
  return true;
}

kn_status kk_run_wide(kn_context *ctx, kn_op op, kn_kernel_fn kernel, const void *attrs, kn_tensor *const *in,
                      int n, kn_tensor *const *out) {
  int outs = kn_ops[op].outs, ins = 0, made = 0;
  if (all_wide(in, n) && all_wide(out, outs)) return kernel(ctx, attrs, in, n, out);
  kn_tensor *as[KN_MAX_INPUTS], *to[KN_MAX_OUTPUTS];
  kn_status st = KN_OK;
  for (; st == KN_OK && ins < n; ins += st == KN_OK) st = widen(ctx, in[ins], &as[ins]);
  for (; st == KN_OK && made < outs; made += st == KN_OK) st = wide_result(ctx, out[made], &to[made]);
  if (st == KN_OK) st = kernel(ctx, attrs, as, n, to);
  for (int i = 0; st == KN_OK && i < outs; i++) st = narrow_result(ctx, to[i], out[i]);
  kk_release_all(as, ins);
  kk_release_all(to, made);
  return st;
}
