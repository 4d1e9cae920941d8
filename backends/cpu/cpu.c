/* The backend's row: which instruction sets there are, and which this machine has. */
#include "backends/cpu/cpu.h"
#include <stdio.h>

/* Those that were compiled (CP_SETS, from meson.build), the plainest first. */
#define X(isa)                                                                                               \
  extern const kn_provider cp_##isa##_provider;                                                              \
  extern const cp_loops cp_##isa##_loops[KN_OP_COUNT];                                                       \
  extern const cp_kit *const cp_##isa##_kits[KN_DTYPE_COUNT];                                                \
  extern const cp_norms cp_##isa##_norms;                                                                    \
  extern const cp_folds cp_##isa##_folds;                                                                    \
  extern const cp_softmaxes cp_##isa##_softmaxes;                                                            \
  extern const cp_attends cp_##isa##_attends;                                                                \
  extern const cp_isa cp_##isa##_isa;
CP_SETS(X)
#undef X

static const cp_set sets[] = {
#define X(isa)                                                                                               \
  {&cp_##isa##_provider, cp_##isa##_loops,      cp_##isa##_kits,     &cp_##isa##_norms,                      \
   &cp_##isa##_folds,    &cp_##isa##_softmaxes, &cp_##isa##_attends, &cp_##isa##_isa},
    CP_SETS(X)
#undef X
};

/* Whether this machine can run them all up to provider i; each set holds those before it. */
static bool runs_here(int i) {
#ifdef CP_X86
#ifndef __clang__ /* which does not know the name; a machine with AVX2 that lacks it is a virtual one */
  if (i > 0 && !__builtin_cpu_supports("f16c")) return false;
#endif
  if (i == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (i == 2)
    return runs_here(1) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  return i == 0;
}

int cp_provider_count(void) {
  int n = 1;
  while (n < (int)(sizeof sets / sizeof *sets) && runs_here(n)) n++;
  return n;
}

const kn_provider *cp_provider_at(int i) { return sets[i].provider; }

const cp_set *cp_set_at(int i) { return &sets[i]; }

const cp_set *cp_best_set(void) { return &sets[cp_provider_count() - 1]; }

static const kn_provider *best(void) { return cp_best_set()->provider; }

static bool probe(kn_context *ctx, void **state, char *version, char *why, size_t size) {
  (void)ctx, (void)state, (void)why, (void)size;
  snprintf(version, 64, "%s %s", KN_VERSION_TEXT, best()->name + sizeof "cpu:" - 1);
  return true;
}

const kn_backend kn_cpu_backend = {
    .name = "cpu",
    .device = KN_CPU,
    .probe = probe,
    .provider = best,
    .target = cp_target,
};
