/* What front ends ask of the devices and of the memory of the one that is used. */
#include "backends/cuda/launch.h"
#include "backends/cuda/memory.h"

static int count(void *state) { return ((cu_device *)state)->count; }

static int current(void *state) { return ((cu_device *)state)->number; }

static kn_status facts(void *state, kn_context *ctx, int i, kn_device_facts *out) {
  return cu_device_facts(ctx, state, i, out);
}

static kn_status choose(void *state, kn_context *ctx, int i) { return cu_device_choose(ctx, state, i); }

static kn_status room(void *state, kn_context *ctx, size_t *left, size_t *all) {
  cu_device *d;
  (void)state;
  KN_TRY(cu_device_of(ctx, &d));
  CU_TRY(ctx, d, d->api.cuMemGetInfo(left, all), "asking for memory");
  return KN_OK;
}

static kn_device_usage usage(void *state) {
  cu_memory_stats s = cu_pool_stats(((cu_device *)state)->pool);
  return (kn_device_usage){s.allocated, s.reserved, s.peak_allocated, s.peak_reserved,
                           s.blocks,    s.segments, s.calls,          s.retries};
}

static kn_device_launches launches(void *state) { return cu_launches_of(state); }

static void reset_peak(void *state) { cu_pool_reset_peak(((cu_device *)state)->pool); }

static void empty_cache(void *state) { cu_pool_trim(((cu_device *)state)->pool); }

const kn_device_door cu_door = {count, facts,    current,    choose,     room,
                                usage, launches, reset_peak, empty_cache};
