/* Loops of the gradient of max pooling by windows of two by two side by side: a row of windows, as many at a
 * time as make a vector. Compiled once for each instruction set. */
#include "backends/cpu/pool.h"
#include "backends/cpu/runs.h"

enum { AT_ONCE = 16 };

/* Is b chosen where a was so far: larger, or the first nan? */
#define BEATS(b, a) (((b) > (a)) | (((b) != (b)) & ((a) == (a))))

/* A sum with zero, as the reference adds to zeros: it makes of -0 a 0. */
#define ROW(T, E)                                                                                            \
  static inline void some_##E(T *restrict d0, T *restrict d1, const T *restrict x0, const T *restrict x1,    \
                              const T *restrict g) {                                                         \
    for (int i = 0; i < AT_ONCE; i++) {                                                                      \
      const T a = x0[2 * i], b = x0[2 * i + 1], c = x1[2 * i], d = x1[2 * i + 1], v = g[i] + (T)0;           \
      const int at_b = BEATS(b, a);                                                                          \
      const T ab = cp_pick_##E(at_b, b, a);                                                                  \
      const int at_c = BEATS(c, ab);                                                                         \
      const T abc = cp_pick_##E(at_c, c, ab);                                                                \
      const int at_d = BEATS(d, abc);                                                                        \
      d0[2 * i] = cp_pick_##E(at_b | at_c | at_d, 0, v);                                                     \
      d0[2 * i + 1] = cp_pick_##E((at_b ^ 1) | at_c | at_d, 0, v);                                           \
      d1[2 * i] = cp_pick_##E((at_c ^ 1) | at_d, 0, v);                                                      \
      d1[2 * i + 1] = cp_pick_##E(at_d, v, 0);                                                               \
    }                                                                                                        \
  }                                                                                                          \
  static void row_##E(void *to, void *below, const void *x, const void *under, const void *g, int64_t n) {   \
    T *d0 = to, *d1 = below, d[2][2 * AT_ONCE], y[2][2 * AT_ONCE] = {{0}}, of[AT_ONCE] = {0};                \
    const T *x0 = x, *x1 = under, *v = g;                                                                    \
    for (; n >= AT_ONCE; n -= AT_ONCE, v += AT_ONCE) {                                                       \
      some_##E(d0, d1, x0, x1, v);                                                                           \
      d0 += 2 * AT_ONCE, d1 += 2 * AT_ONCE, x0 += 2 * AT_ONCE, x1 += 2 * AT_ONCE;                            \
    }                                                                                                        \
    if (!n) return;                                                                                          \
    const size_t windows = (size_t)n * sizeof(T);                                                            \
    memcpy(y[0], x0, 2 * windows);                                                                           \
    memcpy(y[1], x1, 2 * windows);                                                                           \
    memcpy(of, v, windows);                                                                                  \
    some_##E(d[0], d[1], y[0], y[1], of);                                                                    \
    memcpy(d0, d[0], 2 * windows);                                                                           \
    memcpy(d1, d[1], 2 * windows);                                                                           \
  }
ROW(float, f32)
ROW(double, f64)

const cp_pools CP(pools) = {.rows = {[KN_F32] = row_f32, [KN_F64] = row_f64}};
