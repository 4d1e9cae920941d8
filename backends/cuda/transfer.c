/* A device's memory as core sees it: tensors from the pool, and copies. Copies to the device go through
 * pinned memory of the host in pieces, so that they may be done later than asked for; only copies to the host
 * wait. */
#include "backends/cuda/memory.h"
#include "backends/cuda/wait.h"
#include <string.h>

/* Pinned memory in two halves: one is filled while the other is still being read. */
struct cu_staging {
  char *room[2];
  CUevent done[2];
  bool busy[2];
  int next;
};

enum { PIECE = 1 << 20 };

/* ---- the pool's base ---- */

static bool get_segment(void *ud, size_t bytes, CUdeviceptr *out) {
  const cu_device *d = ud;
  return d->api.cuMemAlloc(out, bytes) == CUDA_SUCCESS;
}

static void give_back_segment(void *ud, CUdeviceptr p, size_t bytes) {
  const cu_device *d = ud;
  (void)bytes;
  (void)d->api.cuCtxSetCurrent(d->context); /* memory may be freed by a thread that never used the device */
  (void)d->api.cuMemFree(p);
}

/* ---- blocks ---- */

static kn_status no_memory(kn_context *ctx, const cu_device *d, size_t bytes) {
  cu_memory_stats s = cu_pool_stats(d->pool);
  size_t left = 0, all = 0;
  (void)d->api.cuMemGetInfo(&left, &all);
  return kn_fail(
      ctx, KN_NOMEM,
      "out of memory on cuda: %zu bytes were asked for, %zu are in use, %zu kept for others of kiln, %zu "
      "of %zu free",
      bytes, s.allocated, s.reserved - s.allocated, left, all);
}

kn_status cu_alloc(kn_context *ctx, cu_device *d, size_t bytes, CUdeviceptr *out) {
  const cu_capture *c = cu_capture_of(ctx, d);
  cu_hold *hold = c ? c->hold : NULL;
  CUdeviceptr p = cu_pool_get(d->pool, bytes, hold);
  if (!p && kn_reclaim(ctx)) p = cu_pool_get(d->pool, bytes, hold);
  if (!p) return no_memory(ctx, d, bytes);
  *out = p;
  return KN_OK;
}

/* Of a capture of this thread, which goes on: the room that it is of. */
static cu_room *room_of(cu_device *d, CUdeviceptr p) {
  cu_room *found = NULL;
  if (!atomic_load(&d->captures.first)) return NULL;
  pthread_mutex_lock(&d->captures.lock);
  for (const cu_capture *c = d->captures.first; c && !found; c = c->next)
    if (p >= c->room->at && p < c->room->at + c->room->bytes) found = c->room;
  pthread_mutex_unlock(&d->captures.lock);
  return found;
}

void cu_free(cu_device *d, CUdeviceptr p, size_t bytes) {
  cu_room *r = room_of(d, p);
  (void)bytes;
  if (r) {
    if (!--r->live) r->used = 0;
  } else if (p)
    cu_pool_put(d->pool, p);
}

kn_status cu_workspace(kn_context *ctx, cu_device *d, size_t bytes, CUdeviceptr *out) {
  const cu_capture *c = cu_capture_of(ctx, d);
  size_t size = (bytes + CU_ROUND - 1) / CU_ROUND * CU_ROUND;
  if (!c) return cu_alloc(ctx, d, bytes, out);
  cu_room *r = c->room;
  if (r->used + size > r->wanted) r->wanted = r->used + size;
  if (size > r->bytes - r->used)
    return kn_fail(ctx, KN_LIMIT, "a workspace of %zu bytes does not fit in the %zu bytes set aside",
                   r->used + size, r->bytes);
  *out = r->at + r->used;
  r->used += size;
  r->live++;
  return KN_OK;
}

/* ---- what core asks for ---- */

static kn_status alloc_tensor(void *self, kn_context *ctx, size_t bytes, void **data) {
  cu_device *d;
  CUdeviceptr p;
  (void)self;
  KN_TRY(cu_device_of(ctx, &d));
  KN_TRY(cu_alloc(ctx, d, bytes, &p));
  *data = (void *)(uintptr_t)p;
  return KN_OK;
}

/* ud is the pool, which outlives its blocks. */
static void release_tensor(void *ud, void *data, size_t bytes) {
  (void)bytes;
  cu_pool_put(ud, (CUdeviceptr)(uintptr_t)data);
}

/* What is there already stays for the next try. */
static kn_status open_staging(kn_context *ctx, cu_device *d) {
  struct cu_staging *s = d->staging;
  for (int i = 0; i < 2; i++) {
    void *room = NULL;
    if (s->room[i]) continue;
    if (!s->done[i])
      CU_TRY(ctx, d, d->api.cuEventCreate(&s->done[i], CU_EVENT_DISABLE_TIMING), "an event for copies");
    CU_TRY(ctx, d, d->api.cuMemHostAlloc(&room, PIECE, 0), "pinned memory for copies");
    s->room[i] = room;
  }
  return KN_OK;
}

static kn_status copy_piece(kn_context *ctx, cu_device *d, CUdeviceptr to, const char *from, size_t bytes) {
  struct cu_staging *s = d->staging;
  int i = s->next;
  if (s->busy[i]) CU_TRY(ctx, d, d->api.cuEventSynchronize(s->done[i]), "waiting for a copy to the device");
  s->busy[i] = false;
  memcpy(s->room[i], from, bytes);
  CU_TRY(ctx, d, d->api.cuMemcpyHtoDAsync(to, s->room[i], bytes, cu_stream(ctx, d)), "copying to the device");
  CU_TRY(ctx, d, d->api.cuEventRecord(s->done[i], cu_stream(ctx, d)), "copying to the device");
  s->busy[i] = true;
  s->next = i ^ 1;
  return KN_OK;
}

static kn_status copy_to_device(kn_context *ctx, cu_device *d, CUdeviceptr to, const char *from,
                                size_t bytes) {
  pthread_mutex_lock(&d->lock);
  kn_status st = open_staging(ctx, d);
  for (size_t at = 0; st == KN_OK && at < bytes; at += PIECE)
    st = copy_piece(ctx, d, to + at, from + at, bytes - at < PIECE ? bytes - at : PIECE);
  pthread_mutex_unlock(&d->lock);
  return st;
}

static kn_status copy(void *self, kn_context *ctx, void *to, const void *from, size_t bytes,
                      kn_copy_way way) {
  cu_device *d;
  CUdeviceptr to_there = (CUdeviceptr)(uintptr_t)to, from_there = (CUdeviceptr)(uintptr_t)from;
  (void)self;
  KN_TRY(cu_device_of(ctx, &d));
  if (!bytes) return KN_OK;
  if (cu_captures(ctx, d) && way != KN_WITHIN_DEVICE)
    return kn_fail(ctx, KN_STATE, "what is launched becomes a graph, and copies to and from the host do not");
  if (way == KN_TO_DEVICE) return copy_to_device(ctx, d, to_there, from, bytes);
  if (way == KN_WITHIN_DEVICE)
    CU_TRY(ctx, d, d->api.cuMemcpyDtoDAsync(to_there, from_there, bytes, cu_stream(ctx, d)),
           "copying on the device");
  else {
    CU_TRY(ctx, d, d->api.cuMemcpyDtoHAsync(to, from_there, bytes, cu_stream(ctx, d)), "copying to the host");
    return cu_wait(ctx, d);
  }
  return KN_OK;
}

static kn_status synchronize(void *self, kn_context *ctx) {
  cu_device *d;
  (void)self;
  KN_TRY(cu_device_of(ctx, &d));
  return cu_wait(ctx, d);
}

/* ---- life ---- */

bool cu_memory_open(cu_device *d) {
  const cu_base base = {d, get_segment, give_back_segment};
  d->staging = kn_calloc(d->heap, 1, sizeof *d->staging);
  d->pool = d->staging ? cu_pool_new(d->heap, &base) : NULL;
  d->tensors = (kn_memory){d->pool, alloc_tensor, release_tensor, copy, synchronize};
  return d->pool != NULL;
}

void cu_memory_close(cu_device *d) {
  struct cu_staging *s = d->staging;
  for (int i = 0; s && i < 2; i++) {
    if (s->done[i]) (void)d->api.cuEventDestroy(s->done[i]);
    if (s->room[i]) (void)d->api.cuMemFreeHost(s->room[i]);
  }
  if (d->pool) cu_pool_close(d->pool);
  kn_free(d->heap, s, sizeof *s);
  d->pool = NULL;
  d->staging = NULL;
}
