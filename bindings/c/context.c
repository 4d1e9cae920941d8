/* Contexts, versions, statuses, backends: the parts of kiln.h that are not about tensors and graphs. */
#include "backends/registry.h"
#include "bindings/c/handle.h"
#include "core/parallel.h"
#include <stdio.h>
#include <string.h>

#define X(name, value, text) _Static_assert((int)KN_##name == (int)KILN_##name, "statuses differ: " #name);
KN_STATUSES(X)
#undef X
_Static_assert((int)KN_OUT_PRINT == (int)KILN_OUTPUT_PRINT && (int)KN_OUT_LOG == (int)KILN_OUTPUT_LOG &&
                   (int)KN_OUT_WARN == (int)KILN_OUTPUT_WARN && (int)KN_OUT_ERROR == (int)KILN_OUTPUT_ERROR,
               "outputs differ");
_Static_assert((int)KN_MAX_RANK == (int)KILN_MAX_RANK, "ranks differ");

int kiln_version(void) { return KILN_VERSION_NUMBER; }

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
const char *kiln_version_text(void) {
  return TEXT(KILN_VERSION_MAJOR) "." TEXT(KILN_VERSION_MINOR) "." TEXT(KILN_VERSION_PATCH);
}

const char *kiln_status_text(kiln_status status) { return kn_status_text((kn_status)status); }

void kiln_give(void *out, size_t out_size, void *filled, size_t size) {
  memcpy(filled, &out_size, sizeof out_size);
  memcpy(out, filled, out_size < size ? out_size : size);
}

/* ---- contexts ---- */

enum { MOST_THREADS = 4096 };

static kiln_status refuse(char *error, size_t size, kn_status st, const char *text) {
  if (error && size) snprintf(error, size, "%s", text);
  return outside(st);
}

/* The host's function has the same shape, but other types. */
typedef struct output { /* of a root context: its output_ud */
  kiln_output_fn fn;
  void *ud;
} output;

static void pass_output(void *ud, kn_out kind, const char *text, size_t len) {
  const output *o = ud;
  o->fn(o->ud, kind == KN_OUT_WRITE ? KILN_OUTPUT_PRINT : (kiln_output)kind, text, len);
}

/* The host's pool, as far as it says its size; its threads become the context's. */
static const char *use_pool(kn_context *ctx, const kiln_pool *given, int threads, kn_status *st) {
  kiln_pool p = {.size = sizeof p};
  memcpy(&p, given, given->size < sizeof p ? given->size : sizeof p);
  *st = KN_ARG;
  if (given->size < offsetof(kiln_pool, run) + sizeof p.run) return "the pool does not say its size";
  if (!p.run) return "the pool has no function `run`";
  if (p.threads < 1 || p.threads > MOST_THREADS) return "a pool has 1 … 4096 threads";
  if (!kn_parallel_use(ctx, &(kn_host_pool){p.ud, p.threads, p.run})) {
    *st = KN_NOMEM;
    return "out of memory: a context";
  }
  ctx->threads = threads && threads < p.threads ? threads : p.threads;
  return NULL;
}

kiln_status kiln_context_new(const kiln_context_options *options, kiln_context **out, char *error,
                             size_t error_size) {
  kiln_context_options o = {.size = sizeof o};
  if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
  if (options && options->size < offsetof(kiln_context_options, alloc_ud))
    return refuse(error, error_size, KN_ARG, "the options do not say their size");
  if (o.threads < 0 || o.threads > MOST_THREADS)
    return refuse(error, error_size, KN_ARG, "a number of threads is 0 … 4096");
  kn_heap *heap = kn_heap_new(o.alloc, o.alloc_ud, o.memory_limit);
  kn_context *ctx = heap ? kn_context_new(heap, o.debug) : NULL;
  output *to = ctx && o.output ? kn_alloc(heap, sizeof *to) : NULL;
  if (!ctx || (o.output && !to)) {
    kn_context_free(ctx);
    kn_heap_release(heap);
    return refuse(error, error_size, KN_NOMEM, "out of memory: a context");
  }
  if (to) {
    *to = (output){o.output, o.output_ud};
    ctx->output = pass_output;
    ctx->output_ud = to;
  }
  if (o.threads) ctx->threads = o.threads;
  kn_random_seed(&ctx->random, o.seed);
  kn_status st = KN_OK;
  const char *why = o.pool ? use_pool(ctx, o.pool, o.threads, &st) : NULL;
  if (why) {
    kiln_context_free((kiln_context *)ctx);
    kn_heap_release(heap);
    return refuse(error, error_size, st, why);
  }
  st = kn_registry_open_with(ctx, o.backend, o.libraries);
  if (st == KN_OK && o.cache && *o.cache) st = kn_registry_remember(ctx, o.cache);
  ctx->tuning = o.tune == KILN_TUNE_ALWAYS                            ? KN_TUNING_MEASURE
                : o.tune == KILN_TUNE_PREPARED && o.cache && *o.cache ? KN_TUNING_KNOWN
                                                                      : KN_TUNING_FIXED;
  if (st == KN_OK)
    *out = (kiln_context *)ctx;
  else {
    refuse(error, error_size, st, kn_error(ctx));
    kiln_context_free((kiln_context *)ctx);
  }
  kn_heap_release(heap);
  return outside(st);
}

kiln_status kiln_context_child(kiln_context *ctx, kiln_context **out) {
  kn_context *child = kn_context_child(core_context(ctx));
  if (!child) return outside(kn_fail_nomem(core_context(ctx), sizeof *child));
  *out = (kiln_context *)child;
  return KILN_OK;
}

void kiln_context_free(kiln_context *handle) {
  kn_context *ctx = core_context(handle);
  if (!ctx) return;
  if (!ctx->parent) {
    kn_registry_close(ctx);
    if (ctx->output == pass_output) kn_free(ctx->heap, ctx->output_ud, sizeof(output));
  }
  kn_context_free(ctx);
}

const char *kiln_error(const kiln_context *ctx) { return kn_error((const kn_context *)ctx); }

void kiln_context_memory(const kiln_context *ctx, kiln_memory *out) {
  kn_heap_stats s = kn_heap_read_stats(((const kn_context *)ctx)->heap);
  kiln_memory m = {.bytes = s.bytes, .peak = s.peak, .blocks = s.blocks};
  kiln_give(out, out->size, &m, sizeof m);
}

/* ---- backends ---- */

int kiln_backend_count(void) { return kn_registry_count(); }

kiln_status kiln_backend_report(kiln_context *handle, int index, kiln_backend *out) {
  kn_context *ctx = core_context(handle);
  if (index < 0 || index >= kn_registry_count())
    return outside(kn_fail(ctx, KN_INDEX, "there is no backend number %d", index));
  kn_backend_report r;
  kn_registry_report(ctx, index, &r);
  if (!r.available && !strcmp(r.reason, KN_WHY_MEMORY)) return outside(kn_fail_nomem(ctx, 0));
  kiln_backend b = {.name = r.name, .available = r.available};
  snprintf(b.version, sizeof b.version, "%.*s", (int)sizeof b.version - 1, r.version);
  snprintf(b.reason, sizeof b.reason, "%s", r.reason);
  kiln_give(out, out->size, &b, sizeof b);
  return KILN_OK;
}
