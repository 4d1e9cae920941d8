/* Products with few rows, of which nothing is packed, for gemm_loops.c: each element of the many is read
 * once. Dots are sums along both operands, in lanes; strips and turned add up in the order of k, product by
 * product, as tiles do, so that how operands lie does not show. Sums are vectors throughout: compilers round
 * loops of scalars in ways of their own. */
#ifndef KN_CPU_GEMM_THIN_H
#define KN_CPU_GEMM_THIN_H
#include "backends/cpu/isa.h"

/* Of four vectors the sums of their elements: neighbours are added ever further apart, and where two were
 * added there is room for another vector's. Vectors of 4 elements or more. */
#define PAIR(N, x, y, s)                                                                                     \
  x = __builtin_shufflevector(x, y, PICK_##N(LOW, N, s)) + __builtin_shufflevector(x, y, PICK_##N(HIGH, N, s))
#define ACROSS(T, E, name, N)                                                                                \
  typedef T name##_##E __attribute__((vector_size((N) * sizeof(T)), aligned(sizeof(T)), may_alias));         \
  ALWAYS void name##_across_##E(name##_##E *v, four_##E *to) {                                               \
    union {                                                                                                  \
      name##_##E all;                                                                                        \
      four_##E part[(N) / 4];                                                                                \
    } u;                                                                                                     \
    PAIR(N, v[0], v[1], 1);                                                                                  \
    PAIR(N, v[2], v[3], 1);                                                                                  \
    PAIR(N, v[0], v[2], 2);                                                                                  \
    u.all = v[0];                                                                                            \
    UNROLL for (int n = (N) / 8; n >= 1; n /= 2) UNROLL for (int i = 0; i < n; i++) u.part[i] +=             \
        u.part[i + n];                                                                                       \
    *to += u.part[0];                                                                                        \
  }                                                                                                          \
  /* Sums of mm rows of x with four of y over whole vectors, from p on; where they end. */                   \
  ALWAYS int64_t name##_sums_##E(const int mm, int64_t p, int64_t k, const T *x, int64_t x_row, const T *y,  \
                                 int64_t y_row, four_##E *r) {                                               \
    name##_##E s[4][4];                                                                                      \
    if (p + (N) > k) return p;                                                                               \
    UNROLL for (int i = 0; i < mm; i++) UNROLL for (int j = 0; j < 4; j++) s[i][j] = (name##_##E){0};        \
    for (; p + (N) <= k; p += (N)) {                                                                         \
      name##_##E v[4];                                                                                       \
      UNROLL for (int j = 0; j < 4; j++) v[j] = *(const name##_##E *)(y + j * y_row + p);                    \
      UNROLL for (int i = 0; i < mm; i++) {                                                                  \
        const name##_##E u = *(const name##_##E *)(x + i * x_row + p);                                       \
        UNROLL for (int j = 0; j < 4; j++) s[i][j] += u * v[j];                                              \
      }                                                                                                      \
    }                                                                                                        \
    UNROLL for (int i = 0; i < mm; i++) name##_across_##E(s[i], &r[i]);                                      \
    return p;                                                                                                \
  }

/* mm rows of x with four of y. */
#define DOTS(T, E, WIDE)                                                                                     \
  typedef T four_##E __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));             \
  ACROSS(T, E, quad, 4)                                                                                      \
  ACROSS(T, E, wide, WIDE)                                                                                   \
  ALWAYS void dots_of_##E(const int mm, int64_t k, const T *x, int64_t x_row, const T *y, int64_t y_row,     \
                          T *c, int64_t c_row, int64_t c_column) {                                           \
    four_##E r[4];                                                                                           \
    UNROLL for (int i = 0; i < mm; i++) r[i] = (four_##E){0};                                                \
    int64_t p = wide_sums_##E(mm, 0, k, x, x_row, y, y_row, r);                                              \
    p = quad_sums_##E(mm, p, k, x, x_row, y, y_row, r);                                                      \
    for (; p < k; p++) {                                                                                     \
      const four_##E v = {y[p], y[y_row + p], y[2 * y_row + p], y[3 * y_row + p]};                           \
      UNROLL for (int i = 0; i < mm; i++) r[i] += (x[i * x_row + p] - (four_##E){0}) * v;                    \
    }                                                                                                        \
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

/* N columns of mm rows. */
#define STRIP(T, E, N)                                                                                       \
  enum { STRIP##N##_##E = (N) < V_##E ? (N) : V_##E, PARTS##N##_##E = (N) / STRIP##N##_##E };                \
  typedef T strip##N##_##E                                                                                   \
      __attribute__((vector_size(STRIP##N##_##E * sizeof(T)), aligned(sizeof(T)), may_alias));               \
  ALWAYS void strip##N##_of_##E(const int mm, int64_t k, const T *a, int64_t a_row, int64_t a_column,        \
                                const T *b, int64_t b_row, T *c, int64_t c_row, bool add) {                  \
    enum { W = STRIP##N##_##E, PARTS = PARTS##N##_##E };                                                     \
    strip##N##_##E s[PARTS == 1 ? 8 : 4][PARTS];                                                             \
    const T *row[8];                                                                                         \
    UNROLL for (int i = 0; i < mm; i++) row[i] = a + i * a_row;                                              \
    UNROLL for (int i = 0; i < mm; i++) UNROLL for (int q = 0; q < PARTS; q++) s[i][q] =                     \
        (strip##N##_##E){0};                                                                                 \
    for (int64_t p = 0; p < k; p++, b += b_row) {                                                            \
      strip##N##_##E v[PARTS];                                                                               \
      UNROLL for (int q = 0; q < PARTS; q++) v[q] = *(const strip##N##_##E *)(b + q * W);                    \
      UNROLL for (int i = 0; i < mm; i++) {                                                                  \
        const strip##N##_##E x = row[i][p * a_column] - (strip##N##_##E){0};                                 \
        UNROLL for (int q = 0; q < PARTS; q++) s[i][q] += x * v[q];                                          \
      }                                                                                                      \
    }                                                                                                        \
    UNROLL for (int i = 0; i < mm; i++) UNROLL for (int q = 0; q < PARTS; q++) {                             \
      strip##N##_##E *to = (strip##N##_##E *)(c + i * c_row + q * W);                                        \
      if (add) s[i][q] += *to;                                                                               \
      *to = s[i][q];                                                                                         \
    }                                                                                                        \
  }                                                                                                          \
  static __attribute__((noinline)) void strip##N##_each_##E(int64_t m, int64_t k, const T *a, int64_t a_row, \
                                                            int64_t a_column, const T *b, int64_t b_row,     \
                                                            T *c, int64_t c_row, bool add) {                 \
    int64_t i = 0;                                                                                           \
    for (; PARTS##N##_##E == 1 && i + 8 <= m; i += 8)                                                        \
      strip##N##_of_##E(8, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);          \
    for (; i + 4 <= m; i += 4)                                                                               \
      strip##N##_of_##E(4, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);          \
    for (; i + 2 <= m; i += 2)                                                                               \
      strip##N##_of_##E(2, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);          \
    for (; i < m; i++)                                                                                       \
      strip##N##_of_##E(1, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);          \
  }

/* Up to four columns; element p of column j is at b[p * b_row + j * b_column]. */
#define LAST_COLUMNS(T, E)                                                                                   \
  static void last_##E(int64_t m, int64_t n, int64_t k, const T *a, int64_t a_row, int64_t a_column,         \
                       const T *b, int64_t b_row, int64_t b_column, T *c, int64_t c_row, bool add) {         \
    const int64_t j1 = n > 1 ? b_column : 0, j2 = n > 2 ? 2 * b_column : j1, j3 = n > 3 ? 3 * b_column : j2; \
    for (int64_t i = 0; i < m; i++, a += a_row, c += c_row) {                                                \
      four_##E s = {0};                                                                                      \
      for (int64_t p = 0; p < k; p++) {                                                                      \
        const T *at = b + p * b_row;                                                                         \
        const four_##E v = {at[0], at[j1], at[j2], at[j3]};                                                  \
        s += (a[p * a_column] - (four_##E){0}) * v;                                                          \
      }                                                                                                      \
      for (int64_t j = 0; j < n; j++) c[j] = add ? (T)(s[j] + c[j]) : s[j];                                  \
    }                                                                                                        \
  }

/* Rows that are read at once; sums that are held meanwhile. */
enum { STREAMS = 8, STREAM_BYTES = 16384 };

#define STRIPS(T, E)                                                                                         \
  STRIP(T, E, 32)                                                                                            \
  STRIP(T, E, 16)                                                                                            \
  STRIP(T, E, 8)                                                                                             \
  STRIP(T, E, 4)                                                                                             \
  LAST_COLUMNS(T, E)                                                                                         \
  static void strips_##E(int64_t m, int64_t n, int64_t k, const char *as, int64_t a_row, int64_t a_column,   \
                         const char *bs, int64_t b_row, char *cs, int64_t c_row, bool add) {                 \
    const T *a = (const T *)as, *b = (const T *)bs;                                                          \
    T *c = (T *)cs;                                                                                          \
    int64_t j = 0;                                                                                           \
    for (; j + 32 <= n; j += 32)                                                                             \
      strip32_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);                           \
    for (; j + 16 <= n; j += 16)                                                                             \
      strip16_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);                           \
    for (; j + 8 <= n; j += 8) strip8_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);   \
    for (; j + 4 <= n; j += 4) strip4_each_##E(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);   \
    if (j < n) last_##E(m, n - j, k, a, a_row, a_column, b + j, b_row, 1, c + j, c_row, add);                \
  }                                                                                                          \
  /* Rows of a large b, read from end to end eight at a time, as machines fetch ahead best; sums wait in the \
   * first cache. */                                                                                         \
  ALWAYS void stream_of_##E(const int kk, int64_t n, const T *a, int64_t a_column, const T *b,               \
                            int64_t b_row, T *s) {                                                           \
    vec_##E x[STREAMS];                                                                                      \
    UNROLL for (int q = 0; q < kk; q++) x[q] = a[q * a_column] - (vec_##E){0};                               \
    for (int64_t j = 0; j < n; j += V_##E) {                                                                 \
      vec_##E r = *(const vec_##E *)(s + j);                                                                 \
      UNROLL for (int q = 0; q < kk; q++) r += x[q] * *(const vec_##E *)(b + q * b_row + j);                 \
      *(vec_##E *)(s + j) = r;                                                                               \
    }                                                                                                        \
  }                                                                                                          \
  static void streams_##E(int64_t m, int64_t n, int64_t k, const char *as, int64_t a_row, int64_t a_column,  \
                          const char *bs, int64_t b_row, char *cs, int64_t c_row, bool add) {                \
    const T *a = (const T *)as, *b = (const T *)bs;                                                          \
    T *c = (T *)cs;                                                                                          \
    _Alignas(64) T s[STREAM_BYTES / sizeof(T)];                                                              \
    const int64_t whole = n / V_##E * V_##E, most = STREAM_BYTES / (int64_t)sizeof(T) / m / V_##E * V_##E;   \
    for (int64_t j = 0; j < whole; j += most) {                                                              \
      const int64_t w = j + most > whole ? whole - j : most;                                                 \
      const T *at = b + j;                                                                                   \
      int64_t p = 0;                                                                                         \
      memset(s, 0, sizeof(T) * (size_t)(m * w));                                                             \
      for (; p + STREAMS <= k; p += STREAMS)                                                                 \
        for (int64_t i = 0; i < m; i++)                                                                      \
          stream_of_##E(STREAMS, w, a + i * a_row + p * a_column, a_column, at + p * b_row, b_row,           \
                        s + i * w);                                                                          \
      for (; p < k; p++)                                                                                     \
        for (int64_t i = 0; i < m; i++)                                                                      \
          stream_of_##E(1, w, a + i * a_row + p * a_column, a_column, at + p * b_row, b_row, s + i * w);     \
      for (int64_t i = 0; i < m; i++)                                                                        \
        for (int64_t e = 0; e < w; e += V_##E) {                                                             \
          vec_##E r = *(const vec_##E *)(s + i * w + e), *to = (vec_##E *)(c + i * c_row + j + e);           \
          if (add) r += *to;                                                                                 \
          *to = r;                                                                                           \
        }                                                                                                    \
    }                                                                                                        \
    if (whole < n)                                                                                           \
      strips_##E(m, n - whole, k, as, a_row, a_column, (const char *)(b + whole), b_row,                     \
                 (char *)(c + whole), c_row, add);                                                           \
  }                                                                                                          \
  /* Columns of b that lie along k, turned a square at a time. */                                            \
  ALWAYS void turned_of_##E(const int mm, int64_t k, const T *a, int64_t a_row, int64_t a_column,            \
                            const T *b, int64_t b_column, T *c, int64_t c_row) {                             \
    side_##E s[4], square[SIDE_##E];                                                                         \
    int64_t p = 0;                                                                                           \
    UNROLL for (int i = 0; i < mm; i++) s[i] = (side_##E){0};                                                \
    for (; p + SIDE_##E <= k; p += SIDE_##E) {                                                               \
      turn_##E(b + p, b_column, (T *)square, SIDE_##E);                                                      \
      UNROLL for (int q = 0; q < SIDE_##E; q++) UNROLL for (int i = 0; i < mm; i++) s[i] +=                  \
          (a[i * a_row + (p + q) * a_column] - (side_##E){0}) * square[q];                                   \
    }                                                                                                        \
    for (; p < k; p++) {                                                                                     \
      side_##E v;                                                                                            \
      UNROLL for (int e = 0; e < SIDE_##E; e++) v[e] = b[e * b_column + p];                                  \
      UNROLL for (int i = 0; i < mm; i++) s[i] += (a[i * a_row + p * a_column] - (side_##E){0}) * v;         \
    }                                                                                                        \
    UNROLL for (int i = 0; i < mm; i++) * (side_##E *)(c + i * c_row) = s[i];                                \
  }                                                                                                          \
  static void turned_##E(int64_t m, int64_t n, int64_t k, const char *as, int64_t a_row, int64_t a_column,   \
                         const char *bs, int64_t b_column, char *cs, int64_t c_row) {                        \
    const T *a = (const T *)as, *b = (const T *)bs;                                                          \
    T *c = (T *)cs;                                                                                          \
    for (int64_t j = 0; n < SIDE_##E && j < n; j += 4)                                                       \
      last_##E(m, n - j < 4 ? n - j : 4, k, a, a_row, a_column, b + j * b_column, 1, b_column, c + j, c_row, \
               false);                                                                                       \
    for (int64_t next = 0; n >= SIDE_##E && next < n; next += SIDE_##E) {                                    \
      const int64_t j = next + SIDE_##E > n ? n - SIDE_##E : next; /* the last one over the one before */    \
      const T *at = b + j * b_column;                                                                        \
      int64_t i = 0;                                                                                         \
      for (; i + 2 <= m; i += 2)                                                                             \
        turned_of_##E(2, k, a + i * a_row, a_row, a_column, at, b_column, c + i * c_row + j, c_row);         \
      for (; i < m; i++)                                                                                     \
        turned_of_##E(1, k, a + i * a_row, a_row, a_column, at, b_column, c + i * c_row + j, c_row);         \
    }                                                                                                        \
  }

#endif
