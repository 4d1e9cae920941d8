/* Loops of layer_norm and of batch_norm by running values, while a row is in the first cache. Each value goes
 * through the same roundings as the parts one after the other (core/composite_norm.c), sums too, so a
 * captured graph, which holds the parts, gives the same bits. Compiled once for each instruction set. */
#include "backends/cpu/norm.h"
#include "backends/cpu/runs.h"
#include <math.h>

extern const cp_norms CP(norms);

#define NORMS(T, E, ROOT)                                                                                    \
  static double squares_##E(T *restrict to, const T *restrict x, int64_t n, T mean, cp_short_fn sum) {       \
    T square[CP_LONGEST];                                                                                    \
    double acc = 0;                                                                                          \
    for (int64_t i = 0; i < n; i += CP_LONGEST) {                                                            \
      const int64_t m = n - i < CP_LONGEST ? n - i : CP_LONGEST;                                             \
      for (int64_t k = 0; k < m; k++) {                                                                      \
        const T d = x[i + k] - mean;                                                                         \
        to[i + k] = d, square[k] = d * d;                                                                    \
      }                                                                                                      \
      sum(&acc, (const char *)square, 1, m);                                                                 \
    }                                                                                                        \
    return acc;                                                                                              \
  }                                                                                                          \
  static void affine_##E(T *restrict y, const T *restrict w, const T *restrict b, int64_t n, T by) {         \
    if (w && b)                                                                                              \
      for (int64_t i = 0; i < n; i++) y[i] = y[i] * by * w[i] + b[i];                                        \
    else if (w)                                                                                              \
      for (int64_t i = 0; i < n; i++) y[i] = y[i] * by * w[i];                                               \
    else                                                                                                     \
      for (int64_t i = 0; i < n; i++) y[i] = y[i] * by;                                                      \
  }                                                                                                          \
  static void rows_##E(const cp_norm *j, int64_t begin, int64_t end) {                                       \
    for (int64_t r = begin; r < end; r++) {                                                                  \
      const T *x = (const T *)j->x + r * j->n;                                                               \
      T *y = (T *)j->to + r * j->n;                                                                          \
      double sum = 0;                                                                                        \
      j->sum(&sum, (const char *)x, 1, j->n);                                                                \
      sum = squares_##E(y, x, j->n, (T)(sum / (double)j->n), j->sum);                                        \
      const T by = 1 / ROOT((T)(sum / (double)j->n) + (T)j->eps);                                            \
      affine_##E(y, (const T *)j->w, (const T *)j->b, j->n, by);                                             \
    }                                                                                                        \
  }                                                                                                          \
  static void rms_##E(const cp_norm *j, int64_t begin, int64_t end) {                                        \
    const T *restrict w = (const T *)j->w;                                                                   \
    T square[CP_LONGEST];                                                                                    \
    for (int64_t r = begin; r < end; r++) {                                                                  \
      const T *restrict x = (const T *)j->x + r * j->n;                                                      \
      T *restrict y = (T *)j->to + r * j->n;                                                                 \
      double acc = 0;                                                                                        \
      for (int64_t i = 0; i < j->n; i += CP_LONGEST) {                                                       \
        const int64_t m = j->n - i < CP_LONGEST ? j->n - i : CP_LONGEST;                                     \
        for (int64_t k = 0; k < m; k++) square[k] = x[i + k] * x[i + k];                                     \
        j->sum(&acc, (const char *)square, 1, m);                                                            \
      }                                                                                                      \
      const T by = 1 / ROOT((T)(acc / (double)j->n) + (T)j->eps);                                            \
      if (w)                                                                                                 \
        for (int64_t i = 0; i < j->n; i++) y[i] = x[i] * by * w[i];                                          \
      else                                                                                                   \
        for (int64_t i = 0; i < j->n; i++) y[i] = x[i] * by;                                                 \
    }                                                                                                        \
  }                                                                                                          \
  static void planes_##E(const cp_norm *j, int64_t begin, int64_t end) {                                     \
    const T *mean = (const T *)j->mean, *var = (const T *)j->var, *w = (const T *)j->w,                      \
            *b = (const T *)j->b;                                                                            \
    for (int64_t p = begin; p < end; p++) {                                                                  \
      const int64_t c = p % j->channels;                                                                     \
      const T *restrict x = (const T *)j->x + p * j->n;                                                      \
      T *restrict y = (T *)j->to + p * j->n, scale = 1 / ROOT(var[c] + (T)j->eps);                           \
      if (w) scale *= w[c];                                                                                  \
      const T moved = mean[c] * scale, shift = b ? b[c] - moved : -moved;                                    \
      for (int64_t i = 0; i < j->n; i++) y[i] = x[i] * scale + shift;                                        \
    }                                                                                                        \
  }
NORMS(float, f32, sqrtf)
NORMS(double, f64, sqrt)

const cp_norms CP(norms) = {
    .rows = {[KN_F32] = rows_f32, [KN_F64] = rows_f64},
    .rms = {[KN_F32] = rms_f32, [KN_F64] = rms_f64},
    .planes = {[KN_F32] = planes_f32, [KN_F64] = planes_f64},
};
