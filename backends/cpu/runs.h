/* Names of this instruction set's loops, and what the files of loops share. */
#ifndef KN_CPU_RUNS_H
#define KN_CPU_RUNS_H
#include "backends/cpu/isa.h"
#include "backends/cpu/run.h"

#define X(op, grain) extern const cp_run CP(op##_runs)[KN_DTYPE_COUNT];
CP_ELEMENTWISE(X)
CP_FUSED(X)
#undef X

/* Loops of one and two inputs; x and y are the elements. */
#define CP_LOOP1(fn, TO, T, value)                                                                           \
  static void fn(char *const *p, int64_t n, const void *arg) {                                               \
    (void)arg;                                                                                               \
    TO *restrict to = (TO *)p[0];                                                                            \
    const T *restrict a = (const T *)p[1];                                                                   \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T x = a[i];                                                                                      \
      to[i] = (TO)(value);                                                                                   \
    }                                                                                                        \
  }
#define CP_LOOP2(fn, TO, T, value)                                                                           \
  static void fn(char *const *p, int64_t n, const void *arg) {                                               \
    (void)arg;                                                                                               \
    TO *restrict to = (TO *)p[0];                                                                            \
    const T *restrict a = (const T *)p[1], *restrict b = (const T *)p[2];                                    \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const T x = a[i], y = b[i];                                                                            \
      to[i] = (TO)(value);                                                                                   \
    }                                                                                                        \
  }
#define CP_ROW(op, ...) const cp_run CP(op##_runs)[KN_DTYPE_COUNT] = {__VA_ARGS__};

/* fn(v): the lanes of a vector joined by ONE(a, b), or added up, 16 bytes at a time, so that it stays in
 * registers. */
#define CP_UNROLL _Pragma("GCC unroll 16")
#define CP_JOIN_BY(fn, T, VEC, ONE, ...)                                                                     \
  static inline T fn(VEC v) {                                                                                \
    enum { FEW = 16 / sizeof(T), PARTS = CP_VECTOR / 16 };                                                   \
    typedef T few __attribute__((vector_size(16)));                                                          \
    few part[PARTS];                                                                                         \
    T lane[FEW];                                                                                             \
    memcpy(part, &v, sizeof part);                                                                           \
    CP_UNROLL for (int h = PARTS / 2; h >= 1; h /= 2) CP_UNROLL for (int k = 0; k < h; k++) __VA_ARGS__;     \
    memcpy(lane, part, sizeof lane);                                                                         \
    CP_UNROLL for (int h = FEW / 2; h >= 1; h /= 2) CP_UNROLL for (int k = 0; k < h; k++) lane[k] =          \
        ONE(lane[k], lane[k + h]);                                                                           \
    return lane[0];                                                                                          \
  }
#define CP_JOIN(fn, T, VEC, ONE)                                                                             \
  CP_JOIN_BY(fn, T, VEC, ONE,                                                                                \
             CP_UNROLL for (int i = 0; i < FEW; i++) part[k][i] = ONE(part[k][i], part[k + h][i]))
#define CP_ADD(a, b) ((a) + (b))
#define CP_JOIN_SUM(fn, T, VEC) CP_JOIN_BY(fn, T, VEC, CP_ADD, part[k] += part[k + h])

#endif
