/* kn_parallel_for on OpenMP, or in the calling thread when built without. */
#include "core/parallel.h"
#include "core/context.h"
#ifdef KN_THREADS_OPENMP
#include <omp.h>
#endif

void kn_parallel_for(const kn_context *ctx, int64_t n, int64_t grain, kn_range_fn fn, void *ud) {
  if (n <= 0) return;
#ifdef KN_THREADS_OPENMP
  if (grain < 1) grain = 1;
  if (n / 2 < grain) { /* most calls by far */
    fn(ud, 0, n);
    return;
  }
  int64_t parts = n / grain;
  if (parts > ctx->threads) parts = ctx->threads;
  if (parts > 1 && !omp_in_parallel()) {
#pragma omp parallel for num_threads((int)parts) schedule(static, 1)
    for (int64_t p = 0; p < parts; p++) fn(ud, n * p / parts, n * (p + 1) / parts);
    return;
  }
#else
  (void)ctx, (void)grain;
#endif
  fn(ud, 0, n);
}

int kn_parallel_default_threads(void) {
#ifdef KN_THREADS_OPENMP
  int n = omp_get_max_threads();
  return n > 0 ? n : 1;
#else
  return 1;
#endif
}

const char *kn_parallel_name(void) {
#ifdef KN_THREADS_OPENMP
  return "openmp";
#else
  return "none";
#endif
}
