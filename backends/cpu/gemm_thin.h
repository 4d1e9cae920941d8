/* Products with few rows, of which nothing is packed, for gemm_loops.c: rows of both along the sum (dots),
 * and sums of rows of B (strips). Each element of the many is read once. The order of the sums is fixed by
 * the sizes alone. */
#ifndef KN_CPU_GEMM_THIN_H
#define KN_CPU_GEMM_THIN_H
#include "backends/cpu/isa.h"

/* Of four vectors the sums of their elements: neighbours are added ever further apart, and where two were
 * added there is room for another vector's. Vectors of 4 elements or more. */
#define ACROSS(T, E, I, name, N)                                                                             \
  typedef T name##_##E __attribute__((vector_size((N) * sizeof(T)), aligned(sizeof(T)), may_alias));         \
  typedef I name##_pick_##E __attribute__((vector_size((N) * sizeof(T))));                                   \
  ALWAYS void name##_pair_##E(name##_##E *x, const name##_##E *y, const int s) {                             \
    name##_pick_##E low, high;                                                                               \
    UNROLL for (int e = 0; e < (N); e++) {                                                                   \
      low[e] = (I)(e & s ? (N) + e - s : e);                                                                 \
      high[e] = (I)(e & s ? (N) + e : e + s);                                                                \
    }                                                                                                        \
    *x = __builtin_shuffle(*x, *y, low) + __builtin_shuffle(*x, *y, high);                                   \
  }                                                                                                          \
  ALWAYS void name##_across_##E(name##_##E *v, four_##E *to) {                                               \
    union {                                                                                                  \
      name##_##E all;                                                                                        \
      four_##E part[(N) / 4];                                                                                \
    } u;                                                                                                     \
    name##_pair_##E(&v[0], &v[1], 1);                                                                        \
    name##_pair_##E(&v[2], &v[3], 1);                                                                        \
    name##_pair_##E(&v[0], &v[2], 2);                                                                        \
    u.all = v[0];                                                                                            \
    UNROLL for (int n = (N) / 8; n >= 1; n /= 2) UNROLL for (int i = 0; i < n; i++) u.part[i] +=             \
        u.part[i + n];                                                                                       \
    *to += u.part[0];                                                                                        \
  }

/* mm rows of x with four of y. */
#define DOTS(T, E, I)                                                                                        \
  typedef T four_##E __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));             \
  enum { WIDE_##E = CP_VECTOR / sizeof(T) < 4 ? 4 : CP_VECTOR / sizeof(T) };                                 \
  ACROSS(T, E, I, quad, 4)                                                                                   \
  ACROSS(T, E, I, wide, WIDE_##E)                                                                            \
  ALWAYS void dots_of_##E(const int mm, int64_t k, const T *x, int64_t x_row, const T *y, int64_t y_row,     \
                          T *c, int64_t c_row, int64_t c_column) {                                           \
    four_##E r[4];                                                                                           \
    int64_t p = 0;                                                                                           \
    UNROLL for (int i = 0; i < mm; i++) r[i] = (four_##E){0};                                                \
    if (k >= WIDE_##E) {                                                                                     \
      wide_##E s[4][4];                                                                                      \
      UNROLL for (int i = 0; i < mm; i++) UNROLL for (int j = 0; j < 4; j++) s[i][j] = (wide_##E){0};        \
      for (; p + WIDE_##E <= k; p += WIDE_##E) {                                                             \
        wide_##E v[4];                                                                                       \
        UNROLL for (int j = 0; j < 4; j++) v[j] = *(const wide_##E *)(y + j * y_row + p);                    \
        UNROLL for (int i = 0; i < mm; i++) {                                                                \
          const wide_##E u = *(const wide_##E *)(x + i * x_row + p);                                         \
          UNROLL for (int j = 0; j < 4; j++) s[i][j] += u * v[j];                                            \
        }                                                                                                    \
      }                                                                                                      \
      UNROLL for (int i = 0; i < mm; i++) wide_across_##E(s[i], &r[i]);                                      \
    }                                                                                                        \
    if (p + 4 <= k) {                                                                                        \
      quad_##E s[4][4];                                                                                      \
      UNROLL for (int i = 0; i < mm; i++) UNROLL for (int j = 0; j < 4; j++) s[i][j] = (quad_##E){0};        \
      for (; p + 4 <= k; p += 4) {                                                                           \
        quad_##E v[4];                                                                                       \
        UNROLL for (int j = 0; j < 4; j++) v[j] = *(const quad_##E *)(y + j * y_row + p);                    \
        UNROLL for (int i = 0; i < mm; i++) {                                                                \
          const quad_##E u = *(const quad_##E *)(x + i * x_row + p);                                         \
          UNROLL for (int j = 0; j < 4; j++) s[i][j] += u * v[j];                                            \
        }                                                                                                    \
      }                                                                                                      \
      UNROLL for (int i = 0; i < mm; i++) quad_across_##E(s[i], &r[i]);                                      \
    }                                                                                                        \
    for (; p < k; p++)                                                                                       \
      UNROLL for (int i = 0; i < mm; i++) UNROLL for (int j = 0; j < 4; j++) r[i][j] +=                      \
          x[i * x_row + p] * y[j * y_row + p];                                                               \
    UNROLL for (int i = 0; i < mm; i++) {                                                                    \
      if (c_column == 1)                                                                                     \
        *(four_##E *)(c + i * c_row) = r[i];                                                                 \
      else                                                                                                   \
        UNROLL for (int j = 0; j < 4; j++) c[i * c_row + j * c_column] = r[i][j];                            \
    }                                                                                                        \
  }                                                                                                          \
  static void dots_##E(int64_t m, int64_t n, int64_t k, const char *xs, int64_t x_row, const char *ys,       \
                       int64_t y_row, char *cs, int64_t c_row, int64_t c_column) {                           \
    const T *x = (const T *)xs, *y = (const T *)ys;                                                          \
    T *c = (T *)cs;                                                                                          \
    int64_t j = 0;                                                                                           \
    for (; j + 4 <= n; j += 4) {                                                                             \
      const T *at = y + j * y_row;                                                                           \
      T *to = c + j * c_column;                                                                              \
      int64_t i = 0;                                                                                         \
      for (; i + 4 <= m; i += 4)                                                                             \
        dots_of_##E(4, k, x + i * x_row, x_row, at, y_row, to + i * c_row, c_row, c_column);                 \
      for (; i + 2 <= m; i += 2)                                                                             \
        dots_of_##E(2, k, x + i * x_row, x_row, at, y_row, to + i * c_row, c_row, c_column);                 \
      for (; i < m; i++)                                                                                     \
        dots_of_##E(1, k, x + i * x_row, x_row, at, y_row, to + i * c_row, c_row, c_column);                 \
    }                                                                                                        \
    for (; j < n; j++) /* as one of four, so that it does not matter where threads begin */                  \
      for (int64_t i = 0; i < m; i++) {                                                                      \
        T r[4];                                                                                              \
        dots_of_##E(1, k, x + i * x_row, x_row, y + j * y_row, 0, r, 4, 1);                                  \
        c[i * c_row + j * c_column] = r[0];                                                                  \
      }                                                                                                      \
  }

/* N columns of mm rows: sums of rows of b, `u` of them apart so that no sum waits for the one before. */
#define STRIP(T, E, N, U)                                                                                    \
  typedef T strip##N##_##E __attribute__((vector_size((N) * sizeof(T)), aligned(sizeof(T)), may_alias));     \
  ALWAYS void strip##N##_of_##E(const int mm, int64_t k, const T *a, int64_t a_row, int64_t a_column,        \
                                const T *b, int64_t b_row, T *c, int64_t c_row) {                            \
    strip##N##_##E s[4][U];                                                                                  \
    UNROLL for (int i = 0; i < mm; i++) UNROLL for (int u = 0; u < (U); u++) s[i][u] = (strip##N##_##E){0};  \
    int64_t p = 0;                                                                                           \
    for (; p + (U) <= k; p += (U)) UNROLL for (int u = 0; u < (U); u++) {                                    \
        const strip##N##_##E v = *(const strip##N##_##E *)(b + (p + u) * b_row);                             \
        UNROLL for (int i = 0; i < mm; i++) s[i][u] +=                                                       \
            (a[i * a_row + (p + u) * a_column] - (strip##N##_##E){0}) * v;                                   \
      }                                                                                                      \
    for (; p < k; p++) {                                                                                     \
      const strip##N##_##E v = *(const strip##N##_##E *)(b + p * b_row);                                     \
      UNROLL for (int i = 0; i < mm; i++) s[i][0] +=                                                         \
          (a[i * a_row + p * a_column] - (strip##N##_##E){0}) * v;                                           \
    }                                                                                                        \
    UNROLL for (int i = 0; i < mm; i++) {                                                                    \
      UNROLL for (int n = (U) / 2; n >= 1; n /= 2) UNROLL for (int u = 0; u < n; u++) s[i][u] +=             \
          s[i][u + n];                                                                                       \
      *(strip##N##_##E *)(c + i * c_row) = s[i][0];                                                          \
    }                                                                                                        \
  }                                                                                                          \
  ALWAYS void strip##N##_each_##E(int64_t m, int64_t k, const T *a, int64_t a_row, int64_t a_column,         \
                                  const T *b, int64_t b_row, T *c, int64_t c_row) {                          \
    int64_t i = 0;                                                                                           \
    for (; i + 4 <= m; i += 4)                                                                               \
      strip##N##_of_##E(4, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row);               \
    for (; i + 2 <= m; i += 2)                                                                               \
      strip##N##_of_##E(2, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row);               \
    for (; i < m; i++)                                                                                       \
      strip##N##_of_##E(1, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row);               \
  }

#define STRIPS(T, E)                                                                                         \
  STRIP(T, E, 32, 1)                                                                                         \
  STRIP(T, E, 8, 4)                                                                                          \
  STRIP(T, E, 4, 4)                                                                                          \
  static void strips_##E(int64_t m, int64_t n, int64_t k, const char *as, int64_t a_row, int64_t a_column,   \
                         const char *bs, int64_t b_row, char *cs, int64_t c_row) {                           \
    const T *a = (const T *)as, *b = (const T *)bs;                                                          \
    T *c = (T *)cs;                                                                                          \
    int64_t j = 0;                                                                                           \
    for (; j + 32 <= n; j += 32) strip32_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row);     \
    for (; j + 8 <= n; j += 8) strip8_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row);        \
    for (; j + 4 <= n; j += 4) strip4_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row);        \
    for (; j < n; j++)                                                                                       \
      for (int64_t i = 0; i < m; i++) {                                                                      \
        T sum = 0;                                                                                           \
        for (int64_t p = 0; p < k; p++) sum = (T)(sum + a[i * a_row + p * a_column] * b[p * b_row + j]);     \
        c[i * c_row + j] = sum;                                                                              \
      }                                                                                                      \
  }

#endif
