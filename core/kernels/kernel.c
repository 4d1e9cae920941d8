/* The element loop, strided views, copies and casts: what the kernels share. */
#include "core/kernels/kernel.h"

/* ---- views ---- */

kk_view kk_view_of(const kn_tensor *t) {
  kk_view v = {.data = kn_tensor_data(t), .dtype = kn_tensor_dtype(t), .rank = t->type.rank};
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

void kk_loop(const kn_context *ctx, const kk_view *operands, int count, kk_inner_fn inner, const void *arg) {
  loop l = {.rank = operands[0].rank, .count = count, .inner = inner, .arg = arg};
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
  kn_parallel_for(ctx, total, KK_GRAIN, run_range, &l);
}

/* ---- copies and casts ---- */

/* A run of elements of type FROM to type TO; VALUE says how, of x. */
#define CAST(TO, E_TO, FROM, E_FROM, VALUE)                                                                  \
  static void cast_##E_FROM##_to_##E_TO(char *const *p, const int64_t *step, int64_t n, const void *arg) {   \
    (void)arg;                                                                                               \
    if (step[0] == (int64_t)sizeof(TO) && step[1] == (int64_t)sizeof(FROM)) {                                \
      TO *y = (TO *)p[0];                                                                                    \
      const FROM *a = (const FROM *)p[1];                                                                    \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const FROM x = a[i];                                                                                 \
        y[i] = VALUE;                                                                                        \
      }                                                                                                      \
    } else {                                                                                                 \
      for (int64_t i = 0; i < n; i++) {                                                                      \
        const FROM x = *(const FROM *)(p[1] + i * step[1]);                                                  \
        *(TO *)(p[0] + i * step[0]) = VALUE;                                                                 \
      }                                                                                                      \
    }                                                                                                        \
  }

#define CAST_FROM(FROM, E)                                                                                   \
  CAST(uint8_t, BOOL, FROM, E, x != 0)                                                                       \
  CAST(float, F32, FROM, E, (float)x)                                                                        \
  CAST(double, F64, FROM, E, (double)x)
KK_TYPES(CAST_FROM)
CAST(int64_t, I64, uint8_t, BOOL, x != 0)
CAST(int64_t, I64, int64_t, I64, x)
CAST(int64_t, I64, float, F32, kn_f64_to_i64((double)x))
CAST(int64_t, I64, double, F64, kn_f64_to_i64(x))

#define ROW(FROM, E)                                                                                         \
  [KN_##E] = {                                                                                               \
      [KN_BOOL] = cast_##E##_to_BOOL,                                                                        \
      [KN_I64] = cast_##E##_to_I64,                                                                          \
      [KN_F32] = cast_##E##_to_F32,                                                                          \
      [KN_F64] = cast_##E##_to_F64,                                                                          \
  },
static const kk_inner_fn casts[KN_DTYPE_COUNT][KN_DTYPE_COUNT] = {KK_TYPES(ROW)};

void kk_copy(const kn_context *ctx, const kk_view *dst, const kk_view *src) {
  kk_loop(ctx, (kk_view[]){*dst, *src}, 2, casts[src->dtype][dst->dtype], NULL);
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
