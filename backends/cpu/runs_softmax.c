/* Loops of softmax and log_softmax: the largest element, the sum of exponentials, the results, while a row is
 * in the first cache. nan, a row of -inf and one with +inf need no care: exponentials and so the sum become
 * nan. Sums go on in double every CP_BLOCK elements. Compiled once for each instruction set. */
#include "backends/cpu/formula64.h"
#include "backends/cpu/runs.h"
#include "backends/cpu/softmax.h"

#define LARGER(a, b) ((b) > (a) ? (b) : (a))

/* A row has at least V elements; its last ones are a vector that may overlap with the one before. */
#define ROWS(T, E)                                                                                           \
  typedef T vec_##E __attribute__((vector_size(CP_VECTOR), aligned(sizeof(T)), may_alias));                  \
  enum { V_##E = CP_VECTOR / sizeof(T) };                                                                    \
  static T top_##E(const T *x, int64_t n) {                                                                  \
    T top[V_##E];                                                                                            \
    memcpy(top, x + n - V_##E, sizeof top);                                                                  \
    int64_t i = 0;                                                                                           \
    for (; i + 4 * V_##E <= n; i += 4 * V_##E) {                                                             \
      const T *a = x + i, *b = a + V_##E, *c = b + V_##E, *d = c + V_##E;                                    \
      for (int k = 0; k < V_##E; k++) {                                                                      \
        const T p = LARGER(a[k], b[k]), q = LARGER(c[k], d[k]), r = LARGER(p, q);                            \
        top[k] = LARGER(top[k], r);                                                                          \
      }                                                                                                      \
    }                                                                                                        \
    for (; i + V_##E <= n; i += V_##E)                                                                       \
      for (int k = 0; k < V_##E; k++) top[k] = LARGER(top[k], x[i + k]);                                     \
    for (int h = V_##E / 2; h >= 1; h /= 2)                                                                  \
      CP_UNROLL for (int k = 0; k < h; k++) top[k] = LARGER(top[k], top[k + h]);                             \
    return top[0];                                                                                           \
  }                                                                                                          \
  static T add_up_##E(const T *x, int n) { /* a multiple of V */                                             \
    vec_##E a = {0}, b = {0}, c = {0}, d = {0};                                                              \
    int i = 0;                                                                                               \
    for (; i + 4 * V_##E <= n; i += 4 * V_##E) {                                                             \
      const vec_##E *v = (const vec_##E *)(x + i);                                                           \
      a += v[0], b += v[1], c += v[2], d += v[3];                                                            \
    }                                                                                                        \
    for (; i < n; i += V_##E) a += *(const vec_##E *)(x + i);                                                \
    a = (a + b) + (c + d);                                                                                   \
    T sum[V_##E];                                                                                            \
    memcpy(sum, &a, sizeof sum);                                                                             \
    for (int h = V_##E / 2; h >= 1; h /= 2) CP_UNROLL for (int k = 0; k < h; k++) sum[k] += sum[k + h];      \
    return sum[0];                                                                                           \
  }                                                                                                          \
  /* Exponentials of a row into `to`, or with log only their sum. */                                         \
  static double exps_##E(T *restrict to, const T *restrict x, int64_t n, T top, bool log) {                  \
    T block[CP_BLOCK];                                                                                       \
    double sum = 0;                                                                                          \
    const int64_t full = n / V_##E * V_##E;                                                                  \
    for (int64_t i = 0; i < full; i += CP_BLOCK) {                                                           \
      const int m = full - i < CP_BLOCK ? (int)(full - i) : CP_BLOCK;                                        \
      T *restrict y = log ? block : to + i;                                                                  \
      const T *restrict from = x + i;                                                                        \
      for (int k = 0; k < m / (int)V_##E * (int)V_##E; k++) y[k] = cp_below_##E(from[k] - top);              \
      sum += (double)add_up_##E(y, m);                                                                       \
    }                                                                                                        \
    if (full == n) return sum;                                                                               \
    T last[V_##E]; /* the first of them were counted already */                                              \
    const T *restrict from = x + n - V_##E;                                                                  \
    for (int k = 0; k < V_##E; k++) last[k] = cp_below_##E(from[k] - top);                                   \
    if (!log) memcpy(to + n - V_##E, last, sizeof last);                                                     \
    for (int k = 0; k < V_##E; k++) last[k] = k < V_##E - (n - full) ? 0 : last[k];                          \
    return sum + (double)add_up_##E(last, V_##E);                                                            \
  }                                                                                                          \
  static void row_##E(T *restrict to, const T *restrict x, int64_t n, bool logs) {                           \
    const T top = top_##E(x, n);                                                                             \
    const double sum = exps_##E(to, x, n, top, logs);                                                        \
    const T by = logs ? (T)log(sum) : (T)(1 / sum);                                                          \
    if (logs)                                                                                                \
      for (int64_t i = 0; i < n; i++) to[i] = x[i] - top - by;                                               \
    else                                                                                                     \
      for (int64_t i = 0; i < n; i++) to[i] *= by;                                                           \
  }                                                                                                          \
  static void rows_##E(char *to, const char *from, int64_t rows, int64_t n, bool logs) {                     \
    T *y = (T *)to, wide[V_##E], made[V_##E];                                                                \
    const T *x = (const T *)from;                                                                            \
    if (n >= V_##E) {                                                                                        \
      for (; rows > 0; rows--, x += n, y += n) row_##E(y, x, n, logs);                                       \
      return;                                                                                                \
    }                                                                                                        \
    for (int k = 0; k < V_##E; k++) wide[k] = (T)-INFINITY; /* adds nothing */                               \
    for (; rows > 0; rows--, x += n, y += n) {                                                               \
      for (int64_t k = 0; k < n; k++) wide[k] = x[k];                                                        \
      row_##E(made, wide, V_##E, logs);                                                                      \
      for (int64_t k = 0; k < n; k++) y[k] = made[k];                                                        \
    }                                                                                                        \
  }                                                                                                          \
  static void columns_##E(char *to, const char *from, int64_t columns, int64_t n, int64_t apart,             \
                          bool logs) {                                                                       \
    T top[CP_BLOCK], by[CP_BLOCK];                                                                           \
    double sum[CP_BLOCK];                                                                                    \
    for (int64_t k = 0; k < columns; k++) top[k] = (T)-INFINITY, sum[k] = 0;                                 \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T *restrict x = (const T *)from + i * apart;                                                     \
      for (int64_t k = 0; k < columns; k++) top[k] = LARGER(top[k], x[k]);                                   \
    }                                                                                                        \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T *restrict x = (const T *)from + i * apart;                                                     \
      T *restrict y = (T *)to + i * apart;                                                                   \
      for (int64_t k = 0; k < columns; k++) sum[k] += (double)(y[k] = cp_below_##E(x[k] - top[k]));          \
    }                                                                                                        \
    for (int64_t k = 0; k < columns; k++) by[k] = logs ? (T)log(sum[k]) : (T)(1 / sum[k]);                   \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T *restrict x = (const T *)from + i * apart;                                                     \
      T *restrict y = (T *)to + i * apart;                                                                   \
      if (logs)                                                                                              \
        for (int64_t k = 0; k < columns; k++) y[k] = x[k] - top[k] - by[k];                                  \
      else                                                                                                   \
        for (int64_t k = 0; k < columns; k++) y[k] *= by[k];                                                 \
    }                                                                                                        \
  }
ROWS(float, f32)
ROWS(double, f64)

const cp_softmaxes CP(softmaxes) = {
    .rows = {[KN_F32] = rows_f32, [KN_F64] = rows_f64},
    .columns = {[KN_F32] = columns_f32, [KN_F64] = columns_f64},
};
