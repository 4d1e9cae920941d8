/* The state of cuDNN: its handle, the machine that plans are for, and what the library says when it refuses.
 */
#include "backends/cuda/dnn_inside.h"
#include "core/heap.h"
#include <string.h>

/* ---- errors ---- */

void cu_dnn_error(const cu_dnn *s, cudnnStatus_t r, const char *what, char *text, size_t size) {
  char said[256] = "";
  s->api->cudnnGetLastErrorString(said, sizeof said);
  const char *name = s->api->cudnnGetErrorString(r);
  snprintf(text, size, "cuDNN: %s: %s (%d)%s%s", what, name ? name : "an error without a name", (int)r,
           said[0] ? ": " : "", said);
}

kn_status cu_dnn_fail(kn_context *ctx, const cu_dnn *s, cudnnStatus_t r, const char *what) {
  char text[512];
  cu_dnn_error(s, r, what, text, sizeof text);
  return kn_fail(ctx, r == CUDNN_STATUS_ALLOC_FAILED ? KN_NOMEM : KN_INTERNAL, "%s", text);
}

/* Why engines do not suit is only told to a callback: lines, each ended by a zero, the last by two, a stack
 * of reasons for each engine, the innermost first. That of the engine which was liked best is kept. */
static void listen(cudnnSeverity_t severity, void *ud, const cudnnDebug_t *debug, const char *message) {
  cu_dnn *s = ud;
  (void)severity, (void)debug;
  for (const char *line = message; s->listening && !s->reasons[0] && *line; line += strlen(line) + 1)
    if (strstr(line, "Reason: ")) {
      const char *from = strstr(line, "CUDNN_STATUS_");
      snprintf(s->reasons, sizeof s->reasons, "%s", from ? from : strstr(line, "Reason: "));
    }
}

/* ---- opening ---- */

static kn_status set_device(kn_context *ctx, cu_dnn *s, const char *json) {
  const cu_api *f = s->api;
  DNN_TRY(ctx, s, f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &s->device),
          "the device");
  if (json)
    DNN_TRY(ctx, s,
            f->cudnnBackendSetAttribute(s->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                        (int64_t)strlen(json), json),
            "the device as text");
  else
    DNN_TRY(ctx, s,
            f->cudnnBackendSetAttribute(s->device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                        &s->handle),
            "the device of the handle");
  DNN_TRY(ctx, s, f->cudnnBackendFinalize(s->device), "the device");
  return KN_OK;
}

/* stream: of a device; NULL: none. */
static kn_status fill(kn_context *ctx, cu_dnn *s, const cu_device *d, const char *json) {
  const cu_api *f = s->api;
  if (d) {
    DNN_TRY(ctx, s, f->cudnnCreate(&s->handle), "it cannot be opened");
    snprintf(s->identity, sizeof s->identity, "%s sm_%d %d processors %zu shared driver %d cudnn %zu",
             d->name, d->capability, d->processors, d->shared, d->driver, f->cudnnGetVersion());
    cu_disk_open(&s->disk, s->heap, kn_registry_cache(ctx));
  }
  DNN_TRY(ctx, s, f->cudnnSetCallback(CUDNN_SEV_ERROR_EN | CUDNN_SEV_WARNING_EN, s, listen), "its messages");
  return set_device(ctx, s, json);
}

static kn_status open_state(kn_context *ctx, kn_heap *heap, const cu_api *api, const cu_device *d,
                            const char *json, cu_dnn **out) {
  cu_dnn *s = kn_calloc(heap, 1, sizeof *s);
  if (!s) return kn_fail_nomem(ctx, sizeof *s);
  s->api = api;
  s->heap = heap;
  pthread_mutex_init(&s->lock, NULL);
  kn_status st = fill(ctx, s, d, json);
  if (st == KN_OK)
    *out = s;
  else
    cu_dnn_free(s);
  return st;
}

/* A library that is not there is looked for once. */
static kn_status open_of(kn_context *ctx, cu_device *d) {
  char why[256] = "";
  if (cu_api_open(&d->api, CU_DNN, why, sizeof why))
    return open_state(ctx, d->heap, &d->api, d, NULL, &d->dnn);
  cu_dnn *s = kn_calloc(d->heap, 1, sizeof *s);
  if (!s) return kn_fail_nomem(ctx, sizeof *s);
  *s = (cu_dnn){.api = &d->api, .heap = d->heap};
  pthread_mutex_init(&s->lock, NULL);
  memcpy(s->absent, why, sizeof why);
  d->dnn = s;
  return KN_OK;
}

kn_status cu_dnn_open_without(kn_context *ctx, const cu_api *api, const char *json, cu_dnn **out) {
  return open_state(ctx, ctx->heap, api, NULL, json, out);
}

void cu_dnn_free(cu_dnn *s) {
  if (!s) return;
  cu_dnn_drop_plans(s);
  if (!s->absent[0]) s->api->cudnnSetCallback(0, NULL, NULL);
  if (s->device) s->api->cudnnBackendDestroyDescriptor(s->device);
  if (s->handle) s->api->cudnnDestroy(s->handle);
  pthread_mutex_destroy(&s->lock);
  kn_free(s->heap, s, sizeof *s);
}

void cu_dnn_close(cu_device *d) {
  cu_dnn_free(d->dnn);
  d->dnn = NULL;
}

kn_status cu_dnn_of(kn_context *ctx, cu_device *d, cu_dnn **out, const char **why) {
  kn_status st = KN_OK;
  pthread_mutex_lock(&d->lock);
  if (!d->dnn) st = open_of(ctx, d);
  *out = d->dnn;
  pthread_mutex_unlock(&d->lock);
  if (st != KN_OK || !(*out)->absent[0]) return st;
  *why = (*out)->absent;
  return KN_DECLINED;
}
