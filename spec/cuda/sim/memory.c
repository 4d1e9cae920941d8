/* Memory of the software device: one stretch of addresses that the host cannot touch but while the device
 * works. Blocks have room around them that must stay as it is, are filled with rubbish when they are new, and
 * are never used again. */
#define _GNU_SOURCE
#include "inside.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { EDGE = 4096, RUBBISH = 0xcb, MARK = 0x5e };
#define SPACE ((size_t)1 << 38)

typedef struct block {
  struct block *next;
  char *p;
  size_t bytes;
  unsigned number;
} block;

static char *space;
static size_t used, limit;
static block *blocks;
static unsigned numbers;
static struct pinned {
  struct pinned *next;
  char *p;
  size_t bytes;
} * pinned;

static size_t rounded(size_t n) { return (n + EDGE - 1) / EDGE * EDGE; }

static bool open_space(void) {
  if (space) return true;
  const char *most = getenv("SIM_MEMORY");
  limit = most ? strtoull(most, NULL, 10) : (size_t)4 << 30;
  space = mmap(NULL, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) space = NULL;
  return space != NULL;
}

static bool open_to_host(void) {
  static int open = -1;
  if (open < 0) open = getenv("SIM_OPEN") != NULL;
  return open;
}
static void allow(int what) {
  for (const block *b = blocks; b; b = b->next) mprotect(b->p - EDGE, rounded(b->bytes) + 2 * EDGE, what);
}
void sim_enter(void) { allow(PROT_READ | PROT_WRITE); }
void sim_leave(void) {
  if (!open_to_host()) allow(PROT_NONE);
}

static void check_edges(const block *b) {
  for (size_t i = 0; i < EDGE; i++)
    if (b->p[-(ptrdiff_t)i - 1] != MARK || (b->p[rounded(b->bytes) + i]) != MARK)
      sim_die("something wrote outside of a block of %zu bytes of device memory (m%u)", b->bytes, b->number);
  for (size_t i = b->bytes; i < rounded(b->bytes); i++)
    if (b->p[i] != MARK)
      sim_die("something wrote behind a block of %zu bytes of device memory (m%u)", b->bytes, b->number);
}

static CUresult allocate(CUdeviceptr *out, size_t bytes) {
  if (!bytes) return CUDA_ERROR_INVALID_VALUE;
  if (!open_space()) return CUDA_ERROR_OUT_OF_MEMORY;
  if (sim_fails("cuMemAlloc") || bytes > limit || sim_counted.allocated + bytes > limit ||
      used + rounded(bytes) + 2 * EDGE > SPACE)
    return CUDA_ERROR_OUT_OF_MEMORY;
  block *b = calloc(1, sizeof *b);
  if (!b) return CUDA_ERROR_OUT_OF_MEMORY;
  b->p = space + used + EDGE;
  b->bytes = bytes;
  b->number = ++numbers;
  size_t all = rounded(bytes) + 2 * EDGE;
  if (mprotect(space + used, all, PROT_READ | PROT_WRITE)) {
    free(b);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  memset(b->p - EDGE, MARK, EDGE);
  memset(b->p, RUBBISH, bytes < (size_t)8 << 20 ? bytes : (size_t)8 << 20);
  memset(b->p + bytes, MARK, rounded(bytes) - bytes + EDGE);
  used += all;
  b->next = blocks;
  blocks = b;
  sim_leave();
  sim_counted.allocated += bytes;
  sim_counted.blocks++;
  if (sim_counted.allocated > sim_counted.most) sim_counted.most = sim_counted.allocated;
  *out = (CUdeviceptr)(uintptr_t)b->p;
  sim_trace("cuMemAlloc %zu -> m%u", bytes, b->number);
  return CUDA_SUCCESS;
}

static CUresult release(CUdeviceptr p) {
  sim_drain(); /* as the real one waits */
  for (block **b = &blocks; *b; b = &(*b)->next)
    if ((*b)->p == (char *)(uintptr_t)p) {
      block *old = *b;
      sim_trace("cuMemFree m%u", old->number);
      sim_enter();
      check_edges(old);
      sim_leave();
      *b = old->next;
      mmap(old->p - EDGE, rounded(old->bytes) + 2 * EDGE, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
      sim_counted.allocated -= old->bytes;
      sim_counted.blocks--;
      free(old);
      return CUDA_SUCCESS;
    }
  return p ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

__attribute__((destructor)) static void check_all(void) {
  sim_enter();
  for (block *b = blocks; b; b = b->next) check_edges(b);
  sim_leave();
}

static block *find(CUdeviceptr at) {
  const char *p = (const char *)(uintptr_t)at;
  for (block *b = blocks; b; b = b->next)
    if (p >= b->p && p < b->p + b->bytes) return b;
  return NULL;
}

bool sim_is_device(CUdeviceptr p, size_t bytes) {
  const block *b = find(p);
  return b && (size_t)(b->p + b->bytes - (char *)(uintptr_t)p) >= bytes;
}

const char *sim_address(CUdeviceptr p) {
  static char text[4][48];
  static int k;
  const block *b = find(p);
  char *to = text[k++ % 4];
  if (!b)
    snprintf(to, sizeof text[0], "host");
  else if (b->p == (char *)(uintptr_t)p)
    snprintf(to, sizeof text[0], "m%u", b->number);
  else
    snprintf(to, sizeof text[0], "m%u+%zu", b->number, (size_t)((char *)(uintptr_t)p - b->p));
  return to;
}

API CUresult cuMemAlloc(CUdeviceptr *out, size_t bytes) { return LOCKED(allocate(out, bytes)); }
API CUresult cuMemFree(CUdeviceptr p) { return LOCKED(release(p)); }
API CUresult cuMemGetInfo(size_t *left, size_t *all) {
  pthread_mutex_lock(&sim_lock);
  (void)open_space();
  *all = limit;
  *left = limit - sim_counted.allocated;
  pthread_mutex_unlock(&sim_lock);
  return CUDA_SUCCESS;
}
API CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
  size_t left;
  return device ? CUDA_ERROR_INVALID_DEVICE : cuMemGetInfo(&left, bytes);
}

/* ---- memory of the host that the device reads by itself ---- */

bool sim_is_pinned(const void *p) {
  for (const struct pinned *x = pinned; x; x = x->next)
    if ((const char *)p >= x->p && (const char *)p < x->p + x->bytes) return true;
  return false;
}

API CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
  (void)flags;
  struct pinned *x = calloc(1, sizeof *x);
  if (!x || sim_fails("cuMemHostAlloc") || !(x->p = malloc(bytes ? bytes : 1))) {
    free(x);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  pthread_mutex_lock(&sim_lock);
  x->bytes = bytes;
  x->next = pinned;
  pinned = x;
  pthread_mutex_unlock(&sim_lock);
  *out = x->p;
  return CUDA_SUCCESS;
}

API CUresult cuMemFreeHost(void *p) {
  pthread_mutex_lock(&sim_lock);
  sim_drain();
  CUresult r = CUDA_ERROR_INVALID_VALUE;
  for (struct pinned **x = &pinned; *x; x = &(*x)->next)
    if ((*x)->p == p) {
      struct pinned *old = *x;
      *x = old->next;
      free(old->p);
      free(old);
      r = CUDA_SUCCESS;
      break;
    }
  pthread_mutex_unlock(&sim_lock);
  return r;
}
