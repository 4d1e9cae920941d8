/* The inner loops of matrix products, in vectors of the compiler's: a tile of C in registers, packing;
 * products with few rows are in gemm_thin.h. Compiled once for each instruction set, with products and sums
 * in one rounding where the machine can. */
#include "backends/cpu/gemm.h"
#include "backends/cpu/isa.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* Rows of a tile: with two vectors a row, as many as registers hold. */
#if CP_VECTOR == 64
enum { ROWS = 8 };
#else
enum { ROWS = 6 };
#endif

/* Places in two vectors of N elements where neighbours, s apart, are exchanged: lists of constants, which
 * compilers do not make out of loops. */
#define LOW(e, N, s) (((e) & (s) ? (N) + (e) - (s) : (e)) % (2 * (N)))
#define HIGH(e, N, s) (((e) & (s) ? (N) + (e) : (e) + (s)) % (2 * (N)))
#define PICK_2(at, N, s) at(0, N, s), at(1, N, s)
#define PICK_4(at, N, s) PICK_2(at, N, s), at(2, N, s), at(3, N, s)
#define PICK_8(at, N, s) PICK_4(at, N, s), at(4, N, s), at(5, N, s), at(6, N, s), at(7, N, s)
#define PICK_16(at, N, s)                                                                                    \
  PICK_8(at, N, s), at(8, N, s), at(9, N, s), at(10, N, s), at(11, N, s), at(12, N, s), at(13, N, s),        \
      at(14, N, s), at(15, N, s)
#include "backends/cpu/gemm_thin.h"

/* ---- a tile ---- */

#define TILE(T, E)                                                                                           \
  typedef T vec_##E __attribute__((vector_size(CP_VECTOR), aligned(sizeof(T)), may_alias));                  \
  enum { V_##E = CP_VECTOR / sizeof(T), COLUMNS_##E = 2 * V_##E };                                           \
  ALWAYS void tile_of_##E(const int rows, int64_t k, const T *a, const T *b, int64_t b_step, T *c,           \
                          int64_t c_row, int64_t columns, bool add) {                                        \
    vec_##E s[ROWS][2];                                                                                      \
    UNROLL for (int r = 0; r < rows; r++) s[r][0] = s[r][1] = (vec_##E){0};                                  \
    for (int64_t p = 0; p < k; p++, a += rows, b += b_step) {                                                \
      const vec_##E b0 = *(const vec_##E *)b, b1 = *(const vec_##E *)(b + V_##E);                            \
      UNROLL for (int r = 0; r < rows; r++) {                                                                \
        const vec_##E x = a[r] - (vec_##E){0};                                                               \
        s[r][0] += x * b0;                                                                                   \
        s[r][1] += x * b1;                                                                                   \
      }                                                                                                      \
    }                                                                                                        \
    if (columns == COLUMNS_##E) {                                                                            \
      UNROLL for (int r = 0; r < rows; r++, c += c_row) {                                                    \
        vec_##E *c0 = (vec_##E *)c, *c1 = (vec_##E *)(c + V_##E);                                            \
        if (add) s[r][0] += *c0, s[r][1] += *c1;                                                             \
        *c0 = s[r][0];                                                                                       \
        *c1 = s[r][1];                                                                                       \
      }                                                                                                      \
      return;                                                                                                \
    }                                                                                                        \
    T some[ROWS][COLUMNS_##E];                                                                               \
    UNROLL for (int r = 0; r < rows; r++) memcpy(some[r], s[r], sizeof some[r]);                             \
    for (int r = 0; r < rows; r++, c += c_row)                                                               \
      for (int64_t j = 0; j < columns; j++) c[j] = add ? (T)(c[j] + some[r][j]) : some[r][j];                \
  }                                                                                                          \
  static void tile_##E(int64_t rows, int64_t k, const char *a, const char *b, int64_t b_step, char *c,       \
                       int64_t c_row, int64_t columns, bool add) {                                           \
    switch (rows) { EACH_ROW_COUNT(E, T) }                                                                   \
  }
#define CASE_ROWS(rows, E, T)                                                                                \
  case rows:                                                                                                 \
    tile_of_##E(rows, k, (const T *)a, (const T *)b, b_step, (T *)c, c_row, columns, add);                   \
    break;
#define UP_TO_6(E, T)                                                                                        \
  CASE_ROWS(1, E, T)                                                                                         \
  CASE_ROWS(2, E, T) CASE_ROWS(3, E, T) CASE_ROWS(4, E, T) CASE_ROWS(5, E, T) CASE_ROWS(6, E, T)
#if CP_VECTOR == 64
#define EACH_ROW_COUNT(E, T) UP_TO_6(E, T) CASE_ROWS(7, E, T) CASE_ROWS(8, E, T)
#else
#define EACH_ROW_COUNT(E, T) UP_TO_6(E, T)
#endif

/* ---- packing ---- */

/* Lines that lie along k are turned, a square at a time, by exchanging ever smaller squares in it. */
#define EXCHANGE(E, SIDE, s)                                                                                 \
  UNROLL for (int i = 0; i < (SIDE); i++) if (!(i & (s))) {                                                  \
    const side_##E x = r[i], y = r[i ^ (s)];                                                                 \
    r[i] = __builtin_shufflevector(x, y, PICK_##SIDE(LOW, SIDE, s));                                         \
    r[i ^ (s)] = __builtin_shufflevector(x, y, PICK_##SIDE(HIGH, SIDE, s));                                  \
  }
#define PACK(T, E, SIDE)                                                                                     \
  typedef T side_##E __attribute__((vector_size((SIDE) * sizeof(T)), aligned(sizeof(T)), may_alias));        \
  enum { SIDE_##E = SIDE };                                                                                  \
  ALWAYS void turn_##E(const T *from, int64_t line, T *to, int64_t to_step) {                                \
    side_##E r[SIDE_##E];                                                                                    \
    UNROLL for (int i = 0; i < SIDE_##E; i++) r[i] = *(const side_##E *)(from + i * line);                   \
    if (SIDE > 4) EXCHANGE(E, SIDE, 4)                                                                       \
    if (SIDE > 2) EXCHANGE(E, SIDE, 2)                                                                       \
    EXCHANGE(E, SIDE, 1)                                                                                     \
    UNROLL for (int i = 0; i < SIDE_##E; i++) * (side_##E *)(to + i * to_step) = r[i];                       \
  }                                                                                                          \
  static void pack_##E(int64_t width, int64_t full, int64_t k, const char *data, int64_t line, int64_t step, \
                       char *panel) {                                                                        \
    const T *from = (const T *)data;                                                                         \
    T *to = (T *)panel;                                                                                      \
    if (line == 1 && width == COLUMNS_##E && full == COLUMNS_##E) {                                          \
      for (int64_t p = 0; p < k; p++, from += step, to += COLUMNS_##E)                                       \
        memcpy(to, from, sizeof(T) * COLUMNS_##E);                                                           \
      return;                                                                                                \
    }                                                                                                        \
    if (line == 1 && width == ROWS && full == ROWS) {                                                        \
      for (int64_t p = 0; p < k; p++, from += step, to += ROWS) memcpy(to, from, sizeof(T) * ROWS);          \
      return;                                                                                                \
    }                                                                                                        \
    int64_t done = 0;                                                                                        \
    if (step == 1)                                                                                           \
      for (; done + SIDE_##E <= width; done += SIDE_##E) {                                                   \
        int64_t p = 0;                                                                                       \
        for (; p + SIDE_##E <= k; p += SIDE_##E)                                                             \
          turn_##E(from + done * line + p, line, to + p * full + done, full);                                \
        for (; p < k; p++)                                                                                   \
          for (int64_t i = done; i < done + SIDE_##E; i++) to[p * full + i] = from[i * line + p];            \
      }                                                                                                      \
    if (done == full) return;                                                                                \
    for (int64_t p = 0; p < k; p++) {                                                                        \
      int64_t i = done;                                                                                      \
      for (; i < width; i++) to[p * full + i] = from[i * line + p * step];                                   \
      for (; i < full; i++) to[p * full + i] = 0;                                                            \
    }                                                                                                        \
  }

/* ---- runs, and a value for each row ---- */

#define RUNS(T, E)                                                                                           \
  static void runs_##E(int64_t count, const int64_t *start, const int64_t *offset, const char *data,         \
                       char *panel, bool last) {                                                             \
    const T *from = (const T *)data;                                                                         \
    T *to = (T *)panel;                                                                                      \
    for (int64_t s = 0; s < count; s++) {                                                                    \
      const T *at = from + offset[s] - start[s];                                                             \
      int64_t i = start[s];                                                                                  \
      if (last)                                                                                              \
        for (; i < COLUMNS_##E; i++) to[i] = at[i];                                                          \
      for (; i < COLUMNS_##E; i += V_##E) *(vec_##E *)(to + i) = *(const vec_##E *)(at + i);                 \
    }                                                                                                        \
  }                                                                                                          \
  static void fill_##E(int64_t rows, int64_t columns, const char *values, char *c, int64_t c_row) {          \
    for (int64_t r = 0; r < rows; r++) {                                                                     \
      const T x = ((const T *)values)[r];                                                                    \
      T *to = (T *)c + r * c_row;                                                                            \
      for (int64_t j = 0; j < columns; j++) to[j] = x;                                                       \
    }                                                                                                        \
  }

#define KIT(T, E, SIDE, WIDE)                                                                                \
  TILE(T, E)                                                                                                 \
  PACK(T, E, SIDE)                                                                                           \
  DOTS(T, E, WIDE)                                                                                           \
  STRIPS(T, E)                                                                                               \
  RUNS(T, E)                                                                                                 \
  static const cp_kit kit_##E = {ROWS,       COLUMNS_##E, sizeof(T),  pack_##E, tile_##E, dots_##E,          \
                                 strips_##E, streams_##E, turned_##E, runs_##E, fill_##E};

/* Integers are unsigned here: they wrap around. The numbers: sides of the squares that are turned, elements
 * of the vectors of dots. */
#if CP_VECTOR == 64
KIT(float, F32, 8, 16)
KIT(double, F64, 4, 8)
KIT(uint32_t, I32, 8, 16)
KIT(uint64_t, I64, 4, 8)
#elif CP_VECTOR == 32
KIT(float, F32, 8, 8)
KIT(double, F64, 4, 4)
KIT(uint32_t, I32, 8, 8)
KIT(uint64_t, I64, 4, 4)
#else
KIT(float, F32, 4, 4)
KIT(double, F64, 2, 4)
KIT(uint32_t, I32, 4, 4)
KIT(uint64_t, I64, 2, 4)
#endif

extern const cp_kit *const CP(kits)[KN_DTYPE_COUNT];
const cp_kit *const CP(kits)[KN_DTYPE_COUNT] = {
    [KN_F32] = &kit_F32, [KN_F64] = &kit_F64, [KN_I32] = &kit_I32, [KN_I64] = &kit_I64};
