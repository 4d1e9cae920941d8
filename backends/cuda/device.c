/* Finding a device, opening it when it is first needed, and what its failures are called. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "backends/cuda/device.h"
#include "backends/cuda/blas.h"
#include "backends/cuda/cuda.h"
#include "backends/cuda/dnn.h"
#include "backends/cuda/kernel.h"
#include "backends/cuda/fault.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/wait.h"
#include "backends/registry.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { OLDEST = 75 }; /* the oldest devices that NVRTC 13 compiles for: sm_75 */

/* ---- finding ---- */

static bool refused(const cu_device *d, CUresult r, const char *what, char *why, size_t size) {
  char text[96];
  if (r == CUDA_SUCCESS) return false;
  if (r == CUDA_ERROR_STUB_LIBRARY)
    snprintf(why, size, "%s is the toolkit's stand-in for a driver, which has no device",
             d->api.path[CU_DRIVER]);
  else if (r == CUDA_ERROR_NO_DEVICE)
    snprintf(why, size, "the driver has no device");
  else
    snprintf(why, size, "%s: %s", what, cu_error_text(&d->api, r, text, sizeof text));
  return true;
}

static bool ask(const cu_device *d, CUdevice id, CUdevice_attribute what, int *to, char *why, size_t size) {
  return !refused(d, d->api.cuDeviceGetAttribute(to, what, id), "its properties", why, size);
}

/* Of one of the machine's devices. */
static bool look_at(cu_device *d, int i, CUdevice *id, kn_device_facts *f, char *why, size_t size) {
  const cu_api *a = &d->api;
  return !refused(d, a->cuDeviceGet(id, i), "the device", why, size) &&
         !refused(d, a->cuDeviceGetName(f->name, (int)sizeof f->name, *id), "its name", why, size) &&
         !refused(d, a->cuDeviceTotalMem(&f->memory, *id), "its memory", why, size) &&
         ask(d, *id, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &f->major, why, size) &&
         ask(d, *id, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &f->minor, why, size) &&
         ask(d, *id, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &f->processors, why, size);
}

static bool take(cu_device *d, int i, char *why, size_t size) {
  kn_device_facts f = {.major = 0};
  CUdevice id;
  int shared = 0, threads = 0;
  if (!look_at(d, i, &id, &f, why, size) ||
      !ask(d, id, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, &threads, why, size) ||
      !ask(d, id, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &shared, why, size))
    return false;
  if (10 * f.major + f.minor < OLDEST) {
    snprintf(why, size, "%s (sm_%d) is too old: sm_%d is the oldest that kernels are compiled for", f.name,
             10 * f.major + f.minor, OLDEST);
    return false;
  }
  d->id = id;
  d->number = i;
  memcpy(d->name, f.name, sizeof d->name);
  d->capability = 10 * f.major + f.minor;
  d->processors = f.processors;
  d->threads_per_processor = threads;
  d->shared = (size_t)shared;
  d->memory = f.memory;
  return true;
}

static bool start(cu_device *d, char *why, size_t size) {
  const cu_api *a = &d->api;
  return !refused(d, a->cuInit(0), "the driver does not start", why, size) &&
         !refused(d, a->cuDriverGetVersion(&d->driver), "the driver's version", why, size) &&
         !refused(d, a->cuDeviceGetCount(&d->count), "counting devices", why, size) &&
         !refused(d, d->count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE, "", why, size) && take(d, 0, why, size);
}

static kn_status check_number(kn_context *ctx, const cu_device *d, int i) {
  if (i >= 0 && i < d->count) return KN_OK;
  return kn_fail(ctx, KN_ARG, "there is no device %d; there are 0 to %d", i, d->count - 1);
}

kn_status cu_device_choose(kn_context *ctx, cu_device *d, int i) {
  char why[KN_BACKEND_REASON] = "";
  KN_TRY(check_number(ctx, d, i));
  if (i == d->number) return KN_OK;
  pthread_mutex_lock(&d->lock);
  bool open = d->open, taken = !open && take(d, i, why, sizeof why);
  pthread_mutex_unlock(&d->lock);
  if (open)
    return kn_fail(ctx, KN_STATE, "device %d is in use: choose before the first tensor is there", d->number);
  return taken ? KN_OK : kn_fail(ctx, KN_UNSUPPORTED, "%s", why);
}

kn_status cu_device_facts(kn_context *ctx, cu_device *d, int i, kn_device_facts *out) {
  char why[KN_BACKEND_REASON] = "";
  CUdevice id;
  KN_TRY(check_number(ctx, d, i));
  *out = (kn_device_facts){.major = 0};
  return look_at(d, i, &id, out, why, sizeof why) ? KN_OK : kn_fail(ctx, KN_INTERNAL, "%s", why);
}

cu_device *cu_device_find(kn_context *ctx, char *why, size_t size) {
  cu_device *d = kn_calloc(ctx->heap, 1, sizeof *d);
  char file[64];
  snprintf(why, size, KN_WHY_MEMORY);
  if (!d || pthread_mutex_init(&d->lock, NULL)) {
    kn_free(ctx->heap, d, sizeof *d);
    return NULL;
  }
  pthread_mutex_init(&d->captures.lock, NULL);
  d->heap = kn_heap_retain(ctx->heap);
  d->api.folders = kn_registry_libraries(ctx);
  if (cu_memory_open(d) && cu_api_open(&d->api, CU_DRIVER, why, size) && start(d, why, size)) {
    if (cu_api_there(&d->api, CU_NVRTC)) return d;
    snprintf(why, size, "%s is there, but not %s, which compiles its kernels", d->name,
             cu_api_file(CU_NVRTC, file, sizeof file));
  }
  cu_device_close(d);
  return NULL;
}

void cu_device_close(cu_device *d) {
  if (d->open) {
    (void)d->api.cuCtxSetCurrent(d->context);
    (void)d->api.cuStreamSynchronize(d->main);
    cu_dnn_close(d);
    cu_blas_close(d);
    cu_stop_close(d);
    cu_kernels_close(d);
  }
  cu_fault_close(d);
  cu_memory_close(d);
  if (d->open) {
    (void)d->api.cuStreamDestroy(d->main);
    (void)d->api.cuDevicePrimaryCtxRelease(d->id);
  }
  cu_api_close(&d->api);
  pthread_mutex_destroy(&d->captures.lock);
  pthread_mutex_destroy(&d->lock);
  kn_heap *heap = d->heap;
  kn_free(heap, d, sizeof *d);
  kn_heap_release(heap);
}

/* ---- opening ---- */

static kn_status open_locked(kn_context *ctx, cu_device *d) {
  const cu_api *a = &d->api;
  CU_TRY(ctx, d, a->cuDevicePrimaryCtxRetain(&d->context, d->id), "opening the device");
  CUresult r = a->cuCtxSetCurrent(d->context);
  if (r == CUDA_SUCCESS) r = a->cuStreamCreate(&d->main, CU_STREAM_NON_BLOCKING);
  kn_status st = r == CUDA_SUCCESS ? KN_OK : cu_fail(ctx, d, r, "opening the device");
  if (st == KN_OK) st = cu_kernels_open(ctx, d);
  d->open = st == KN_OK;
  if (st == KN_OK) return st;
  if (d->main) (void)a->cuStreamDestroy(d->main);
  d->main = NULL;
  (void)a->cuDevicePrimaryCtxRelease(d->id);
  return st;
}

kn_status cu_device_of(kn_context *ctx, cu_device **out) {
  cu_device *d = kn_backend_state(ctx, &kn_cuda_backend);
  if (!d) return kn_fail(ctx, KN_UNSUPPORTED, "there is no CUDA device (kiln.backends() says why)");
  if (d->open) {
    CU_TRY(ctx, d, d->api.cuCtxSetCurrent(d->context), "the device");
  } else {
    pthread_mutex_lock(&d->lock);
    kn_status st = d->open ? KN_OK : open_locked(ctx, d);
    pthread_mutex_unlock(&d->lock);
    KN_TRY(st);
  }
  *out = d;
  return KN_OK;
}

kn_status cu_need(kn_context *ctx, cu_device *d, cu_library library) {
  char why[256] = "";
  pthread_mutex_lock(&d->lock);
  bool opened = cu_api_open(&d->api, library, why, sizeof why);
  pthread_mutex_unlock(&d->lock);
  return opened ? KN_OK : kn_fail(ctx, KN_UNSUPPORTED, "%s", why);
}

/* ---- failures ---- */

kn_status cu_fail(kn_context *ctx, const cu_device *d, CUresult r, const char *what) {
  char text[96];
  kn_status st = r == CUDA_ERROR_OUT_OF_MEMORY   ? KN_NOMEM
                 : r == CUDA_ERROR_NOT_SUPPORTED ? KN_UNSUPPORTED
                                                 : KN_INTERNAL;
  return kn_fail(ctx, st, "%s: %s", what, cu_error_text(&d->api, r, text, sizeof text));
}

double cu_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
