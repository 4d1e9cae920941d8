/* The backend's row, and its providers, one for each instruction set: the registry uses the best that this
 * machine has, tests use all. */
#ifndef KN_CPU_H
#define KN_CPU_H
#include "backends/backend.h"
#include "backends/cpu/attention.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/norm.h"
#include "backends/cpu/rnn.h"
#include "backends/cpu/softmax.h"

extern const kn_backend kn_cpu_backend;

/* From the plainest to the best of this machine: 0 <= i < cp_provider_count(). */
int cp_provider_count(void);
const kn_provider *cp_provider_at(int i);
/* What graphs take of the best one beside its kernels. */
typedef struct cp_set {
  const kn_provider *provider;
  const cp_loops *loops;     /* by op */
  const cp_kit *const *kits; /* by dtype */
  const cp_norms *norms;
  const cp_folds *folds;
  const cp_softmaxes *softmaxes;
  const cp_attends *attends;
  const cp_isa *isa;
} cp_set;
const cp_set *cp_best_set(void);
const cp_set *cp_set_at(int i);
bool cp_target(kn_context *ctx, void *state, kn_target *out);
kn_target cp_target_of(const cp_set *set);

#endif
