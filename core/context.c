/* Context life, error sentences and log output. */
#include "core/host_op.h"
#include "core/show.h"
#include "core/context.h"
#include "core/device.h"
#include "core/parallel.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const status_texts[] = {
#define X(name, value, text) [value] = text,
    KN_STATUSES(X)
#undef X
};

const char *kn_status_text(kn_status s) {
  size_t i = (size_t)s;
  return i < sizeof status_texts / sizeof *status_texts ? status_texts[i] : "unknown status";
}

static const char *const topics[KN_DEBUG_COUNT] = {
#define X(e, name, doc) name,
    KN_DEBUG_TOPICS(X)
#undef X
};

/* "exec,mem" to bits; unknown topics are ignored by libkiln, the executables warn about them. */
static unsigned parse_debug(const char *text) {
  unsigned bits = 0;
  while (text && *text) {
    size_t n = strcspn(text, ",");
    for (unsigned i = 0; i < KN_DEBUG_COUNT; i++)
      if (n == strlen(topics[i]) && !strncmp(text, topics[i], n)) bits |= 1u << i;
    text += n + (text[n] == ',');
  }
  return bits;
}

enum { USUAL_CACHE = 1 << 20 };

kn_context *kn_context_new(kn_heap *heap, const char *debug) {
  heap = heap ? kn_heap_retain(heap) : kn_heap_new(NULL, NULL, 0);
  if (!heap) return NULL;
  kn_context *ctx = kn_calloc(heap, 1, sizeof *ctx);
  if (!ctx) {
    kn_heap_release(heap);
    return NULL;
  }
  ctx->heap = heap;
  if (!kn_parallel_open(ctx)) {
    kn_free(heap, ctx, sizeof *ctx);
    kn_heap_release(heap);
    return NULL;
  }
  ctx->grad_enabled = true;
  ctx->debug = parse_debug(debug);
  ctx->print = kn_print_usual;
  ctx->threads = kn_parallel_default_threads();
  ctx->cache = USUAL_CACHE;
  kn_random_seed(&ctx->random, 0);
  ctx->providers[KN_CPU][0] = &kn_ref_provider;
  return ctx;
}

kn_context *kn_context_child(kn_context *parent) {
  kn_context *ctx = kn_alloc(parent->heap, sizeof *ctx);
  if (!ctx) return NULL;
  *ctx = *parent;
  kn_heap_retain(ctx->heap);
  ctx->parent = parent;
  ctx->recorder = NULL;
  ctx->inference = ctx->anomaly = false;
  ctx->autocast = KN_BOOL;
  ctx->walks = 0;
  ctx->checkpoint = NULL;
  ctx->profile = NULL;
  ctx->keeps_scratch = false;
  ctx->runs = NULL;
  ctx->deterministic = false; /* the parent is asked */
  memset(ctx->scratch, 0, sizeof ctx->scratch);
  ctx->reclaimers = NULL;
  ctx->reclaims = ctx->reclaiming = false;
  ctx->error[0] = 0;
  ctx->op_count = 0;
  return ctx;
}

void kn_context_free(kn_context *ctx) {
  if (!ctx) return;
  kn_heap *heap = ctx->heap;
  if (!ctx->parent) {
    kn_parallel_close(ctx);
    kn_host_ops_free(ctx);
  }
  for (int i = 0; i < KN_MOST_SCRATCH; i++) kn_free_aligned(heap, ctx->scratch[i].p, ctx->scratch[i].bytes);
  kn_free(heap, ctx, sizeof *ctx);
  kn_heap_release(heap);
}

bool kn_context_deterministic(const kn_context *ctx) {
  for (; ctx; ctx = ctx->parent)
    if (ctx->deterministic) return true;
  return false;
}

kn_tuning kn_context_tuning(const kn_context *ctx) {
  return kn_context_deterministic(ctx) ? KN_TUNING_FIXED : ctx->tuning;
}

kn_float32_precision kn_context_precision(const kn_context *ctx) {
  while (ctx->parent) ctx = ctx->parent;
  return (kn_float32_precision)ctx->float32_precision;
}

/* ---- memory with a second try ---- */

void kn_context_add_reclaimer(kn_context *ctx, kn_reclaimer *r) {
  r->next = ctx->reclaimers;
  ctx->reclaimers = r;
}

void kn_context_remove_reclaimer(kn_context *ctx, kn_reclaimer *r) {
  kn_reclaimer **at = &ctx->reclaimers;
  while (*at && *at != r) at = &(*at)->next;
  if (*at) *at = r->next;
}

bool kn_reclaim(kn_context *ctx) {
  kn_context *root = ctx;
  while (root->parent && root->reclaims) root = root->parent;
  if (!root->reclaimers || root->reclaiming) return false;
  root->reclaiming = true;
  for (kn_reclaimer *r = root->reclaimers; r; r = r->next) r->fn(r->ud);
  root->reclaiming = false;
  return true;
}

void *kn_claim(kn_context *ctx, size_t size) {
  kn_heap *h = kn_claim_heap(ctx);
  void *p = kn_alloc(h, size);
  return p || !kn_reclaim(ctx) ? p : kn_alloc(h, size);
}

static void *claim_aligned(kn_context *ctx, kn_heap *h, size_t size) {
  void *p = kn_alloc_aligned(h, size);
  return p || !kn_reclaim(ctx) ? p : kn_alloc_aligned(h, size);
}

void *kn_claim_aligned(kn_context *ctx, size_t size) { return claim_aligned(ctx, kn_claim_heap(ctx), size); }
void *kn_claim_kept(kn_context *ctx, size_t size) { return claim_aligned(ctx, ctx->heap, size); }

/* ---- scratch ---- */

void *kn_scratch_take(kn_context *ctx, size_t bytes) {
  int i = 0;
  while (i < KN_MOST_SCRATCH && ctx->scratch[i].taken) i++;
  if (!ctx->keeps_scratch || i == KN_MOST_SCRATCH) return kn_claim_aligned(ctx, bytes);
  struct kn_scratch *s = &ctx->scratch[i];
  if (bytes > s->bytes || !s->p) {
    kn_free_aligned(ctx->heap, s->p, s->bytes);
    s->bytes = 0;
    s->p = kn_claim_kept(ctx, bytes);
    if (!s->p) return NULL;
    s->bytes = bytes;
  }
  s->taken = true;
  return s->p;
}

void kn_scratch_give(kn_context *ctx, void *p, size_t bytes) {
  for (int i = 0; p && i < KN_MOST_SCRATCH; i++)
    if (p == ctx->scratch[i].p) {
      ctx->scratch[i].taken = false;
      return;
    }
  kn_free_aligned(kn_claim_heap(ctx), p, bytes);
}

/* ---- sentences ---- */

kn_status kn_fail(kn_context *ctx, kn_status s, const char *fmt, ...) {
  char text[KN_ERROR_SIZE]; /* arguments may point into ctx->error */
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  memcpy(ctx->error, text, sizeof text);
  ctx->error_status = s;
  ctx->error_placed = false;
  return s;
}

void kn_error_prefix(kn_context *ctx, const char *fmt, ...) {
  char old[KN_ERROR_SIZE];
  memcpy(old, ctx->error, sizeof old);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(ctx->error, sizeof ctx->error - 3, fmt, ap);
  va_end(ap);
  size_t at = strlen(ctx->error), rest = strlen(old);
  memcpy(ctx->error + at, ": ", 2);
  at += 2;
  if (rest > sizeof ctx->error - 1 - at) rest = sizeof ctx->error - 1 - at; /* cut what does not fit */
  memcpy(ctx->error + at, old, rest);
  ctx->error[at + rest] = 0;
  ctx->error_placed = false;
}

void kn_error_unname(kn_context *ctx, const char *name) {
  size_t n = strlen(name);
  if (strncmp(ctx->error, name, n) != 0 || strncmp(ctx->error + n, ": ", 2) != 0) return;
  memmove(ctx->error, ctx->error + n + 2, strlen(ctx->error + n + 2) + 1);
}

kn_status kn_fail_nomem(kn_context *ctx, size_t bytes) {
  if (!bytes) return kn_fail(ctx, KN_NOMEM, "out of memory");
  kn_heap_stats s = kn_heap_read_stats(ctx->heap);
  if (s.limit && (bytes > s.limit || s.bytes > s.limit - bytes))
    return kn_fail(ctx, KN_NOMEM, "out of memory: wanted %zu more bytes with %zu in use and a limit of %zu",
                   bytes, s.bytes, s.limit);
  return kn_fail(ctx, KN_NOMEM, "out of memory: wanted %zu more bytes with %zu in use", bytes, s.bytes);
}

void kn_log(kn_context *ctx, const char *fmt, ...) {
  if (!ctx->output) return;
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n < 0) return;
  ctx->output(ctx->output_ud, KN_OUT_LOG, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void kn_print(kn_context *ctx, kn_out kind, const char *text, size_t len) {
  if (ctx->output) ctx->output(ctx->output_ud, kind, text, len);
}
