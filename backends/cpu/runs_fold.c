/* Loops of reductions: rows of elements folded into a row of accumulators, element by element, eight rows at
 * a time, so that accumulators cost little. Floats are accumulated in double, whole numbers in int64, as the
 * reference does. Compiled once for each instruction set. */
#include "backends/cpu/fold.h"
#include "backends/cpu/runs.h"
#include <math.h>

/* fold(acc, x, apart, rows, n): acc[j] takes x[r][j]; rows are `apart` bytes from each other. E8: eight
 * elements of one column as one T, or something wider that holds it; ONE: an accumulator and what it takes.
 */
#define FOLD(fn, A, T, EIGHT, ONE)                                                                           \
  static void fn(void *to, const char *from, int64_t apart, int64_t rows, int64_t n) {                       \
    A *restrict acc = to;                                                                                    \
    for (; rows >= 8; rows -= 8, from += 8 * apart) {                                                        \
      const T *restrict a = (const T *)from, *restrict b = (const T *)(from + apart);                        \
      const T *restrict c = (const T *)(from + 2 * apart), *restrict d = (const T *)(from + 3 * apart);      \
      const T *restrict e = (const T *)(from + 4 * apart), *restrict f = (const T *)(from + 5 * apart);      \
      const T *restrict g = (const T *)(from + 6 * apart), *restrict h = (const T *)(from + 7 * apart);      \
      for (int64_t j = 0; j < n; j++)                                                                        \
        acc[j] = ONE(acc[j], EIGHT(a[j], b[j], c[j], d[j], e[j], f[j], g[j], h[j]));                         \
    }                                                                                                        \
    for (; rows > 0; rows--, from += apart) {                                                                \
      const T *restrict a = (const T *)from;                                                                 \
      for (int64_t j = 0; j < n; j++) acc[j] = ONE(acc[j], a[j]);                                            \
    }                                                                                                        \
  }
/* One row after the other, by row(x, n), which folds all of it. */
#define EACH(fn, A, T, ROW, ONE)                                                                             \
  static void fn##_each(void *to, const char *from, int64_t rows, int64_t n) {                               \
    const T *x = (const T *)from;                                                                            \
    for (int64_t r = 0; r < rows; r++, x += n) ((A *)to)[r] = ONE(((A *)to)[r], ROW(x, n));                  \
  }
/* As the machine takes whole numbers: in any order. */
#define FOLD_WHOLE(fn, A, T, EIGHT, ONE)                                                                     \
  FOLD(fn, A, T, EIGHT, ONE)                                                                                 \
  static inline A fn##_row(A acc, const T *x, int64_t n) {                                                   \
    for (int64_t j = 0; j < n; j++) acc = ONE(acc, x[j]);                                                    \
    return acc;                                                                                              \
  }                                                                                                          \
  static void fn##_each(void *to, const char *from, int64_t rows, int64_t n) {                               \
    for (int64_t r = 0; r < rows; r++) ((A *)to)[r] = fn##_row(((A *)to)[r], (const T *)from + r * n, n);    \
  }
#define EIGHT_OF(one, a, b, c, d, e, f, g, h) one(one(one(a, b), one(c, d)), one(one(e, f), one(g, h)))

#define ADD_F64(a, b) ((double)(a) + (double)(b))
#define MUL_F64(a, b) ((double)(a) * (double)(b))
#define ADD_F32(a, b) ((a) + (b))
#define ADD_I64(a, b) ((int64_t)((uint64_t)(int64_t)(a) + (uint64_t)(int64_t)(b)))
#define ADD_I32(a, b) ((int32_t)(a) + (int32_t)(b)) /* of eight narrow ones */
#define MUL_I64(a, b) ((int64_t)((uint64_t)(int64_t)(a) * (uint64_t)(int64_t)(b)))
#define SUM8_F32(...) EIGHT_OF(ADD_F32, __VA_ARGS__)
#define SUM8_F64(...) EIGHT_OF(ADD_F64, __VA_ARGS__)
#define PROD8_F64(...) EIGHT_OF(MUL_F64, __VA_ARGS__)
#define SUM8_I64(...) EIGHT_OF(ADD_I64, __VA_ARGS__)
#define SUM8_I32(...) EIGHT_OF(ADD_I32, __VA_ARGS__)
#define PROD8_I64(...) EIGHT_OF(MUL_I64, __VA_ARGS__)
/* Sums of float32, which memory should bound: twice eight rows at a time, for less work on accumulators. */
FOLD(sum_rest_F32, double, float, SUM8_F32, ADD_F64)
#define AT(x, r) (((const float *)((x) + (r)*apart))[j])
#define SUM8_AT(x) SUM8_F32(AT(x, 0), AT(x, 1), AT(x, 2), AT(x, 3), AT(x, 4), AT(x, 5), AT(x, 6), AT(x, 7))
static void sum_F32(void *to, const char *from, int64_t apart, int64_t rows, int64_t n) {
  double *restrict acc = to;
  for (; rows >= 16; rows -= 16, from += 16 * apart) {
    const char *next = from + 8 * apart;
    for (int64_t j = 0; j < n; j++) acc[j] = ADD_F64(ADD_F64(acc[j], SUM8_AT(from)), SUM8_AT(next));
  }
  sum_rest_F32(to, from, apart, rows, n);
}
FOLD(sum_F64, double, double, SUM8_F64, ADD_F64)
FOLD_WHOLE(sum_I64, int64_t, int64_t, SUM8_I64, ADD_I64)
FOLD_WHOLE(sum_I32, int64_t, int32_t, SUM8_I64, ADD_I64)
FOLD_WHOLE(sum_I16, int64_t, int16_t, SUM8_I32, ADD_I64)
FOLD_WHOLE(sum_I8, int64_t, int8_t, SUM8_I32, ADD_I64)
FOLD_WHOLE(sum_U8, int64_t, uint8_t, SUM8_I32, ADD_I64)
FOLD(prod_F32, double, float, PROD8_F64, MUL_F64)
FOLD(prod_F64, double, double, PROD8_F64, MUL_F64)
FOLD_WHOLE(prod_I64, int64_t, int64_t, PROD8_I64, MUL_I64)

/* nan replaces all, and nothing replaces it. */
static inline double more_f64(double a, double b) { return cp_pick_f64((b > a) | (b != b), b, a); }
static inline double less_f64(double a, double b) { return cp_pick_f64((b < a) | (b != b), b, a); }
#define MORE(a, b) ((b) > (a) ? (b) : (a))
#define LESS(a, b) ((b) < (a) ? (b) : (a))
#define MORE8(...) EIGHT_OF(MORE, __VA_ARGS__)
#define LESS8(...) EIGHT_OF(LESS, __VA_ARGS__)
/* The machine's own maximum loses nan, so that is looked for besides. */
#define BEST8(fn, T, BEST, PICK)                                                                             \
  static inline T fn(T a, T b, T c, T d, T e, T f, T g, T h) {                                               \
    const T best = EIGHT_OF(BEST, a, b, c, d, e, f, g, h);                                                   \
    const int lost = __builtin_isunordered(a, b) | __builtin_isunordered(c, d) |                             \
                     __builtin_isunordered(e, f) | __builtin_isunordered(g, h);                              \
    return PICK(lost, (T)NAN, best);                                                                         \
  }
BEST8(more8_f32, float, MORE, cp_pick_f32)
BEST8(less8_f32, float, LESS, cp_pick_f32)
BEST8(more8_f64, double, MORE, cp_pick_f64)
BEST8(less8_f64, double, LESS, cp_pick_f64)
#define MORE_WHOLE(a, b) MORE(a, (int64_t)(b))
#define LESS_WHOLE(a, b) LESS(a, (int64_t)(b))
#define MORE_WIDE(a, b) more_f64(a, (double)(b))
#define LESS_WIDE(a, b) less_f64(a, (double)(b))
#define WHOLES(T, E)                                                                                         \
  FOLD_WHOLE(max_##E, int64_t, T, MORE8, MORE_WHOLE)                                                         \
  FOLD_WHOLE(min_##E, int64_t, T, LESS8, LESS_WHOLE)
WHOLES(uint8_t, U8)
WHOLES(int8_t, I8)
WHOLES(int16_t, I16)
WHOLES(int32_t, I32)
WHOLES(int64_t, I64)
FOLD(max_F32, double, float, more8_f32, MORE_WIDE)
FOLD(min_F32, double, float, less8_f32, LESS_WIDE)
FOLD(max_F64, double, double, more8_f64, MORE_WIDE)
FOLD(min_F64, double, double, less8_f64, LESS_WIDE)

/* ---- rows of floats, in vectors whose lanes are joined at the end ---- */

typedef float vec_f32 __attribute__((vector_size(CP_VECTOR), aligned(4), may_alias));
typedef double vec_f64 __attribute__((vector_size(CP_VECTOR), aligned(8), may_alias));

#define JOIN(T, lanes, ONE)                                                                                  \
  CP_UNROLL for (int h = CP_VECTOR / (int)sizeof(T) / 2; h >= 1; h /= 2)                                     \
      CP_UNROLL for (int k = 0; k < h; k++)(lanes)[k] = ONE((lanes)[k], (lanes)[k + h])

/* A vector of the row's last elements of which only so many lanes are left, the others 0: they were taken
 * already. */
static const uint8_t lanes_left[2 * CP_VECTOR] = {[CP_VECTOR... 2 * CP_VECTOR - 1] = 0xff};

/* ROW_SUM: of at most CP_LONGEST elements in T; the sum of longer rows goes on in double. */
#define ROW_SUM(T, E, I)                                                                                     \
  typedef I mask_##E __attribute__((vector_size(CP_VECTOR), aligned(1), may_alias));                         \
  static inline vec_##E last_##E(const T *end, int64_t left) {                                               \
    const vec_##E x = *(const vec_##E *)(end - CP_VECTOR / sizeof(T));                                       \
    return (vec_##E)((mask_##E)x & *(const mask_##E *)(lanes_left + left * (int64_t)sizeof(T)));             \
  }                                                                                                          \
  CP_JOIN_SUM(lanes_##E, T, vec_##E)                                                                         \
  static inline double part_##E(const T *x, int64_t n) {                                                     \
    enum { V = CP_VECTOR / sizeof(T) };                                                                      \
    vec_##E a = {0}, b = {0}, c = {0}, d = {0};                                                              \
    T rest = 0;                                                                                              \
    if (n < V) {                                                                                             \
      for (int64_t k = 0; k < n; k++) rest += x[k];                                                          \
      return (double)rest;                                                                                   \
    }                                                                                                        \
    for (; n >= 4 * V; n -= 4 * V, x += 4 * V) {                                                             \
      const vec_##E *v = (const vec_##E *)x;                                                                 \
      a += v[0], b += v[1], c += v[2], d += v[3];                                                            \
    }                                                                                                        \
    for (; n >= V; n -= V, x += V) {                                                                         \
      const vec_##E t = b;                                                                                   \
      b = a + *(const vec_##E *)x, a = t;                                                                    \
    }                                                                                                        \
    if (n) c += last_##E(x + n, n);                                                                          \
    return (double)lanes_##E((a + b) + (c + d));                                                             \
  }                                                                                                          \
  static double row_sum_##E(const T *x, int64_t n) {                                                         \
    double sum = 0;                                                                                          \
    for (; n > CP_LONGEST; n -= CP_LONGEST, x += CP_LONGEST) sum += part_##E(x, CP_LONGEST);                 \
    return sum + part_##E(x, n);                                                                             \
  }
ROW_SUM(float, f32, int32_t)
ROW_SUM(double, f64, int64_t)
EACH(sum_F32, double, float, row_sum_f32, ADD_F64)
EACH(sum_F64, double, double, row_sum_f64, ADD_F64)

#define ABOVE(a, b) ((a) > (b))
#define BELOW(a, b) ((a) < (b))
/* A row's last elements are a vector that may overlap with the one before. The machine's maximum may lose a
 * nan, the sum of all cannot: it is nan too when there are infinities of both signs, so then elements are
 * looked at. */
#define ROW_BEST(fn, T, E, BETTER, BEST, WIDE)                                                               \
  static inline vec_##E fn##_of(vec_##E a, vec_##E b) {                                                      \
    const mask_##E take = BETTER(b, a);                                                                      \
    return (vec_##E)(((mask_##E)b & take) | ((mask_##E)a & ~take));                                          \
  }                                                                                                          \
  CP_JOIN(fn##_lane, T, vec_##E, BEST)                                                                       \
  static bool fn##_lost(const T *x, int64_t n) {                                                             \
    int lost = 0;                                                                                            \
    for (int64_t k = 0; k < n; k++) lost |= x[k] != x[k];                                                    \
    return lost;                                                                                             \
  }                                                                                                          \
  static double fn(const T *x, int64_t n) {                                                                  \
    enum { V = CP_VECTOR / sizeof(T) };                                                                      \
    double best = (double)x[0];                                                                              \
    if (n < V) {                                                                                             \
      for (int64_t k = 1; k < n; k++) best = WIDE(best, x[k]);                                               \
      return best;                                                                                           \
    }                                                                                                        \
    vec_##E top1 = *(const vec_##E *)(x + n - V), top2 = top1, s = top1, t = {0};                            \
    int64_t i = 0;                                                                                           \
    for (; i + 4 * V <= n; i += 4 * V) {                                                                     \
      const vec_##E *v = (const vec_##E *)(x + i);                                                           \
      vec_##E a = v[0], b = v[1], c = v[2], d = v[3];                                                        \
      CP_LOADED(a);                                                                                          \
      CP_LOADED(b);                                                                                          \
      CP_LOADED(c);                                                                                          \
      CP_LOADED(d);                                                                                          \
      top1 = fn##_of(top1, fn##_of(a, b)), s += a + b;                                                       \
      top2 = fn##_of(top2, fn##_of(c, d)), t += c + d;                                                       \
    }                                                                                                        \
    for (; i + V <= n; i += V) {                                                                             \
      const vec_##E a = *(const vec_##E *)(x + i);                                                           \
      top1 = fn##_of(top1, a), s += a;                                                                       \
    }                                                                                                        \
    top1 = fn##_of(top1, top2), s += t;                                                                      \
    const T sum = lanes_##E(s);                                                                              \
    return sum != sum && fn##_lost(x, n) ? NAN : (double)fn##_lane(top1);                                    \
  }
ROW_BEST(row_max_f32, float, f32, ABOVE, MORE, MORE_WIDE)
ROW_BEST(row_min_f32, float, f32, BELOW, LESS, LESS_WIDE)
ROW_BEST(row_max_f64, double, f64, ABOVE, MORE, MORE_WIDE)
ROW_BEST(row_min_f64, double, f64, BELOW, LESS, LESS_WIDE)
EACH(max_F32, double, float, row_max_f32, more_f64)
EACH(min_F32, double, float, row_min_f32, less_f64)
EACH(max_F64, double, double, row_max_f64, more_f64)
EACH(min_F64, double, double, row_min_f64, less_f64)

#define ROW_PROD(fn, T)                                                                                      \
  static double fn(const T *x, int64_t n) {                                                                  \
    enum { V = CP_VECTOR / sizeof(double) };                                                                 \
    double prod[V], rest = 1;                                                                                \
    for (int k = 0; k < V; k++) prod[k] = 1;                                                                 \
    for (; n >= 8 * V; n -= 8 * V, x += 8 * V)                                                               \
      for (int k = 0; k < V; k++)                                                                            \
        prod[k] *= PROD8_F64(x[k], x[V + k], x[2 * V + k], x[3 * V + k], x[4 * V + k], x[5 * V + k],         \
                             x[6 * V + k], x[7 * V + k]);                                                    \
    for (int64_t k = 0; k < n; k++) rest *= (double)x[k];                                                    \
    JOIN(double, prod, MUL_F64);                                                                             \
    return prod[0] * rest;                                                                                   \
  }
ROW_PROD(row_prod_f32, float)
ROW_PROD(row_prod_f64, double)
EACH(prod_F32, double, float, row_prod_f32, MUL_F64)
EACH(prod_F64, double, double, row_prod_f64, MUL_F64)

/* Of columns, the best so far and the row it came from; `row` is the number of the first. */
#define PLACES(fn, A, T, BETTER)                                                                             \
  static void fn(void *to, int64_t *places, const char *from, int64_t apart, int64_t row, int64_t rows,      \
                 int64_t n) {                                                                                \
    A *restrict best = to;                                                                                   \
    int64_t *restrict at = places;                                                                           \
    for (; rows > 0; rows--, row++, from += apart) {                                                         \
      const T *restrict x = (const T *)from;                                                                 \
      for (int64_t j = 0; j < n; j++) {                                                                      \
        const A y = (A)x[j], b = best[j];                                                                    \
        const int64_t take = -(int64_t)((BETTER) | (at[j] < 0));                                             \
        uint64_t u, v;                                                                                       \
        memcpy(&u, &y, 8), memcpy(&v, &b, 8);                                                                \
        u = (u & (uint64_t)take) | (v & ~(uint64_t)take);                                                    \
        memcpy(&best[j], &u, 8);                                                                             \
        at[j] = (row & take) | (at[j] & ~take);                                                              \
      }                                                                                                      \
    }                                                                                                        \
  }
PLACES(most_F32, double, float, (y > b) | ((y != y) & (b == b)))
PLACES(most_F64, double, double, (y > b) | ((y != y) & (b == b)))
PLACES(most_I64, int64_t, int64_t, y > b)
PLACES(least_F32, double, float, (y < b) | ((y != y) & (b == b)))
PLACES(least_F64, double, double, (y < b) | ((y != y) & (b == b)))
PLACES(least_I64, int64_t, int64_t, y < b)

#define BOTH(fn)                                                                                             \
  { fn, fn##_each }
#define FLOATS(name) [KN_F32] = BOTH(name##_F32), [KN_F64] = BOTH(name##_F64)
#define INTS(name)                                                                                           \
  [KN_BOOL] = BOTH(name##_U8), [KN_U8] = BOTH(name##_U8), [KN_I8] = BOTH(name##_I8),                         \
  [KN_I16] = BOTH(name##_I16), [KN_I32] = BOTH(name##_I32), [KN_I64] = BOTH(name##_I64)
const cp_folds CP(folds) = {
    .of = {[CP_SUM] = {FLOATS(sum), INTS(sum)},
           [CP_PROD] = {FLOATS(prod), [KN_I64] = BOTH(prod_I64)},
           [CP_MAX] = {FLOATS(max), INTS(max)},
           [CP_MIN] = {FLOATS(min), INTS(min)}},
    .places = {{[KN_F32] = most_F32, [KN_F64] = most_F64, [KN_I64] = most_I64},
               {[KN_F32] = least_F32, [KN_F64] = least_F64, [KN_I64] = least_I64}},
};
