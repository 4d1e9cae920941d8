/* Attention as one op and its gradient, a query after the other: scores, weights and sums in double. */
#include "core/infer.h"
#include "core/kernels/kernel.h"
#include <math.h>

enum { N, HEADS, ROWS, WIDTH, MOST_INPUTS = 7 };

typedef struct attention {
  int64_t heads, groups, queries, keys, width, values; /* groups: heads of keys and values */
  int64_t mask[4];                                     /* steps of its dims; 0: one stands for all */
  bool causal;
  double scale;
  const void *in[MOST_INPUTS], *m; /* NULL: no mask */
  void *out[3];
  double *room; /* of each task */
  int64_t each;
} attention;

static int64_t seen(const attention *a, int64_t query) {
  return a->causal && query + 1 < a->keys ? query + 1 : a->keys;
}

/* Head n of all: n / heads of the batch. */
static int64_t group_of(const attention *a, int64_t n) {
  return n / a->heads * a->groups + n % a->heads / (a->heads / a->groups);
}

#define KERNELS(T, E)                                                                                        \
  static double score_##E(const attention *a, int64_t n, int64_t i, int64_t j) {                             \
    const T *q = (const T *)a->in[0] + (n * a->queries + i) * a->width, *m = a->m;                           \
    const T *k = (const T *)a->in[1] + (group_of(a, n) * a->keys + j) * a->width;                            \
    double s = 0;                                                                                            \
    for (int64_t x = 0; x < a->width; x++) s += (double)q[x] * (double)k[x];                                 \
    s *= a->scale;                                                                                           \
    if (m)                                                                                                   \
      s += (double)m[n / a->heads * a->mask[N] + n % a->heads * a->mask[HEADS] + i * a->mask[ROWS] +         \
                     j * a->mask[WIDTH]];                                                                    \
    return s;                                                                                                \
  }                                                                                                          \
  static void forward_##E(void *ud, int64_t begin, int64_t end) {                                            \
    const attention *a = ud;                                                                                 \
    for (int64_t n = begin; n < end; n++)                                                                    \
      for (int64_t i = 0; i < a->queries; i++) {                                                             \
        const T *v = (const T *)a->in[2] + group_of(a, n) * a->keys * a->values;                             \
        T *o = (T *)a->out[0] + (n * a->queries + i) * a->values;                                            \
        double *p = a->room + n * a->each, most = -INFINITY, sum = 0;                                        \
        const int64_t keys = seen(a, i);                                                                     \
        for (int64_t j = 0; j < keys; j++) {                                                                 \
          p[j] = score_##E(a, n, i, j);                                                                      \
          most = p[j] > most || p[j] != p[j] ? p[j] : most;                                                  \
        }                                                                                                    \
        for (int64_t j = 0; j < keys; j++) sum += p[j] = exp(p[j] - most);                                   \
        for (int64_t x = 0; x < a->values; x++) {                                                            \
          double s = 0;                                                                                      \
          for (int64_t j = 0; j < keys; j++) s += p[j] * (double)v[j * a->values + x];                       \
          o[x] = (T)(keys ? s / sum : 0);                                                                    \
        }                                                                                                    \
        ((T *)a->out[1])[n * a->queries + i] = (T)(most + log(sum));                                         \
      }                                                                                                      \
  }                                                                                                          \
  /* One query: its dq, and what it adds to those of keys and values. */                                     \
  static void query_back_##E(const attention *a, int64_t n, int64_t i, double *dq, double *dk, double *dv) { \
    const int64_t row = n * a->queries + i, group = group_of(a, n);                                          \
    const T *q = (const T *)a->in[0] + row * a->width, *o = (const T *)a->in[3] + row * a->values,           \
            *g = (const T *)a->in[5] + row * a->values;                                                      \
    double dot = 0, top = (double)((const T *)a->in[4])[row];                                                \
    for (int64_t x = 0; x < a->values; x++) dot += (double)g[x] * (double)o[x];                              \
    for (int64_t x = 0; x < a->width; x++) dq[x] = 0;                                                        \
    for (int64_t j = 0; j < seen(a, i); j++) {                                                               \
      const T *k = (const T *)a->in[1] + (group * a->keys + j) * a->width,                                   \
              *v = (const T *)a->in[2] + (group * a->keys + j) * a->values;                                  \
      double p = exp(score_##E(a, n, i, j) - top), dp = 0;                                                   \
      for (int64_t x = 0; x < a->values; x++) {                                                              \
        dp += (double)g[x] * (double)v[x];                                                                   \
        dv[j * a->values + x] += p * (double)g[x];                                                           \
      }                                                                                                      \
      const double ds = p * (dp - dot) * a->scale;                                                           \
      for (int64_t x = 0; x < a->width; x++) {                                                               \
        dq[x] += ds * (double)k[x];                                                                          \
        dk[j * a->width + x] += ds * (double)q[x];                                                           \
      }                                                                                                      \
    }                                                                                                        \
  }                                                                                                          \
  static void backward_##E(void *ud, int64_t begin, int64_t end) {                                           \
    const attention *a = ud;                                                                                 \
    const int64_t sharing = a->heads / a->groups, k_size = a->keys * a->width, v_size = a->keys * a->values; \
    for (int64_t group = begin; group < end; group++) {                                                      \
      double *dk = a->room + group * a->each, *dv = dk + k_size, *dq = dv + v_size;                          \
      memset(dk, 0, (size_t)(k_size + v_size) * sizeof *dk);                                                 \
      for (int64_t r = 0; r < sharing * a->queries; r++) {                                                   \
        const int64_t n = group / a->groups * a->heads + group % a->groups * sharing + r / a->queries;       \
        query_back_##E(a, n, r % a->queries, dq, dk, dv);                                                    \
        T *to = (T *)a->out[0] + (n * a->queries + r % a->queries) * a->width;                               \
        for (int64_t x = 0; x < a->width; x++) to[x] = (T)dq[x];                                             \
      }                                                                                                      \
      for (int64_t x = 0; x < k_size; x++) ((T *)a->out[1])[group * k_size + x] = (T)dk[x];                  \
      for (int64_t x = 0; x < v_size; x++) ((T *)a->out[2])[group * v_size + x] = (T)dv[x];                  \
    }                                                                                                        \
  }
KK_FLOATS(KERNELS)

static attention describe(const kn_attrs_fused_attention *given, kn_tensor *const *in,
                          const kn_tensor *mask) {
  const int64_t *q = in[0]->type.dims, *k = in[1]->type.dims;
  attention a = {.heads = q[HEADS],
                 .groups = k[HEADS],
                 .queries = q[ROWS],
                 .keys = k[ROWS],
                 .width = q[WIDTH],
                 .values = in[2]->type.dims[WIDTH],
                 .causal = given->is_causal,
                 .scale = kn_attention_scale(given->scale, q[WIDTH])};
  for (int64_t d = 4, step = 1; mask && d-- > 0; step *= mask->type.dims[d])
    a.mask[d] = mask->type.dims[d] == 1 ? 0 : step;
  return a;
}

/* `tasks` of them, each with `each` numbers of room. */
static kn_status run(kn_context *ctx, attention *a, kn_tensor *const *in, int n, int mask,
                     kn_tensor *const *out, int64_t tasks, int64_t each,
                     void (*fn)(void *, int64_t, int64_t)) {
  kn_tensor *dense[MOST_INPUTS];
  const size_t bytes = (size_t)(tasks * each + 1) * sizeof(double);
  KN_TRY(kk_contiguous_all(ctx, in, n, dense));
  for (int i = 0; i < n; i++) a->in[i] = kn_tensor_data(dense[i]);
  a->m = n > mask ? a->in[mask] : NULL;
  for (int i = 0; i < 3; i++) a->out[i] = out[i] ? kn_tensor_data(out[i]) : NULL;
  a->each = each;
  a->room = kn_scratch_take(ctx, bytes);
  kn_status st = a->room ? KN_OK : kn_fail_nomem(ctx, bytes);
  if (st == KN_OK) kn_parallel_for(ctx, tasks, 1, fn, a);
  if (a->room) kn_scratch_give(ctx, a->room, bytes);
  kk_release_all(dense, n);
  return st;
}

WIDE_KERNEL(fused_attention) {
  static void (*const fn[KN_DTYPE_COUNT])(void *, int64_t,
                                          int64_t) = {[KN_F32] = forward_F32, [KN_F64] = forward_F64};
  attention a = describe(attrs, in, n > 3 ? in[3] : NULL);
  kn_tensor *const both[] = {out[0], out[1], NULL};
  return run(ctx, &a, in, n, 3, both, in[0]->type.dims[N] * a.heads, a.keys, fn[kn_tensor_dtype(in[0])]);
}

WIDE_KERNEL(fused_attention_grad) {
  static void (*const fn[KN_DTYPE_COUNT])(void *, int64_t,
                                          int64_t) = {[KN_F32] = backward_F32, [KN_F64] = backward_F64};
  attention a = describe(attrs, in, n > 6 ? in[6] : NULL);
  return run(ctx, &a, in, n, 6, out, in[0]->type.dims[N] * a.groups, a.keys * (a.width + a.values) + a.width,
             fn[kn_tensor_dtype(in[0])]);
}
