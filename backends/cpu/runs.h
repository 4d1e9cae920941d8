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

#endif
