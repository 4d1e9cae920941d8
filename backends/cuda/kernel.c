/* Programs of kernels: made, compiled by NVRTC and loaded when they are first asked for, then found by their
 * key. What was compiled is kept in the folder for caches (kernel_disk.c). */
#include "backends/cuda/kernel_inside.h"
#include "backends/cuda/prelude.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct function {
  struct function *next;
  CUfunction f;
  char name[]; /* as long as it is */
} function;

typedef struct program {
  struct program *next; /* in the bucket */
  uint64_t hash;
  CUmodule module;
  function *functions;
  char key[];
} program;

enum { BUCKETS = 512, ARCHS = 64 };

struct cu_kernels {
  pthread_mutex_t lock; /* guards all below */
  program *buckets[BUCKETS];
  cu_disk disk;
  char identity[512]; /* whose programs these are: device, compiler, prelude. "" until it is known */
  char option[48];    /* --gpu-architecture=sm_90, or compute_90 where NVRTC does not know the device */
  bool ptx;
  cu_source_hook hook;
  void *hook_ud;
  cu_kernels_stats stats;
};

kn_status cu_kernels_open(kn_context *ctx, cu_device *d) {
  cu_kernels *k = kn_calloc(d->heap, 1, sizeof *k);
  if (!k || pthread_mutex_init(&k->lock, NULL)) {
    kn_free(d->heap, k, sizeof *k);
    return kn_fail_nomem(ctx, sizeof *k);
  }
  cu_disk_open(&k->disk, d->heap, kn_registry_cache(ctx));
  d->kernels = k;
  return KN_OK;
}

static size_t text_bytes(const char *s) { return strlen(s) + 1; }

static void free_program(cu_device *d, program *p) {
  while (p->functions) {
    function *f = p->functions;
    p->functions = f->next;
    kn_free(d->heap, f, sizeof *f + text_bytes(f->name));
  }
  if (p->module) (void)d->api.cuModuleUnload(p->module);
  kn_free(d->heap, p, sizeof *p + text_bytes(p->key));
}

void cu_kernels_close(cu_device *d) {
  cu_kernels *k = d->kernels;
  if (!k) return;
  for (int i = 0; i < BUCKETS; i++)
    while (k->buckets[i]) {
      program *p = k->buckets[i];
      k->buckets[i] = p->next;
      free_program(d, p);
    }
  pthread_mutex_destroy(&k->lock);
  kn_free(d->heap, k, sizeof *k);
  d->kernels = NULL;
}

void cu_kernels_watch(cu_device *d, cu_source_hook hook, void *ud) {
  pthread_mutex_lock(&d->kernels->lock);
  d->kernels->hook = hook;
  d->kernels->hook_ud = ud;
  pthread_mutex_unlock(&d->kernels->lock);
}

cu_kernels_stats cu_kernels_read_stats(cu_device *d) {
  pthread_mutex_lock(&d->kernels->lock);
  cu_kernels_stats s = d->kernels->stats;
  pthread_mutex_unlock(&d->kernels->lock);
  return s;
}

uint64_t cu_hash(const void *data, size_t n) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)data)[i]) * UINT64_C(0x100000001b3);
  return h ^ h >> 32;
}

/* ---- compiling ---- */

static kn_status nvrtc_fail(kn_context *ctx, const cu_device *d, nvrtcResult r, const char *what,
                            const char *key) {
  const char *name = d->api.nvrtcGetErrorString(r);
  return kn_fail(ctx, r == NVRTC_ERROR_OUT_OF_MEMORY ? KN_NOMEM : KN_INTERNAL,
                 "%s the kernels \"%s\": %s (%d)", what, key, name ? name : "NVRTC gives no reason", (int)r);
}

/* What NVRTC compiles for: the device itself, or the newest virtual one before it, whose PTX the driver
 * translates. */
static kn_status choose_target(kn_context *ctx, cu_device *d) {
  cu_kernels *k = d->kernels;
  int archs[ARCHS], n = 0, best = 0;
  if (k->option[0]) return KN_OK;
  KN_TRY(cu_need(ctx, d, CU_NVRTC));
  nvrtcResult r = d->api.nvrtcGetNumSupportedArchs(&n);
  if (r || n > ARCHS || (r = d->api.nvrtcGetSupportedArchs(archs)))
    return nvrtc_fail(ctx, d, r, "finding out whom NVRTC compiles for, for", "all");
  for (int i = 0; i < n; i++)
    if (archs[i] <= d->capability && archs[i] > best) best = archs[i];
  k->ptx = best != d->capability;
  if (best == 0)
    return kn_fail(ctx, KN_UNSUPPORTED, "%s compiles for no device like %s (sm_%d)", d->api.path[CU_NVRTC],
                   d->name, d->capability);
  snprintf(k->option, sizeof k->option, "--gpu-architecture=%s_%d", k->ptx ? "compute" : "sm", best);
  return KN_OK;
}

/* The compiler's log of its first lines, for the error. */
static kn_status compile_failed(kn_context *ctx, cu_device *d, nvrtcProgram p, nvrtcResult r,
                                const char *key) {
  size_t n = 0;
  char *log = !d->api.nvrtcGetProgramLogSize(p, &n) && n ? kn_alloc(d->heap, n) : NULL;
  if (r != NVRTC_ERROR_COMPILATION || !log || d->api.nvrtcGetProgramLog(p, log))
    (void)nvrtc_fail(ctx, d, r, "compiling", key);
  else
    (void)kn_fail(ctx, KN_INTERNAL, "the kernels \"%s\" cannot be compiled: %.600s", key, log);
  kn_free(d->heap, log, n);
  return KN_INTERNAL;
}

static kn_status take_image(kn_context *ctx, cu_device *d, nvrtcProgram p, const char *key, cu_image *out) {
  const cu_api *a = &d->api;
  bool ptx = d->kernels->ptx;
  cu_image i = {0};
  nvrtcResult r = ptx ? a->nvrtcGetPTXSize(p, &i.bytes) : a->nvrtcGetCUBINSize(p, &i.bytes);
  if (r) return nvrtc_fail(ctx, d, r, "compiling", key);
  i.data = kn_alloc(d->heap, i.bytes);
  if (!i.data) return kn_fail_nomem(ctx, i.bytes);
  r = ptx ? a->nvrtcGetPTX(p, i.data) : a->nvrtcGetCUBIN(p, i.data);
  if (r) {
    kn_free(d->heap, i.data, i.bytes);
    return nvrtc_fail(ctx, d, r, "compiling", key);
  }
  *out = i;
  return KN_OK;
}

static kn_status compile(kn_context *ctx, cu_device *d, const char *key, const char *source, cu_image *out) {
  KN_TRY(choose_target(ctx, d));
  const cu_api *a = &d->api;
  const char *options[] = {d->kernels->option, "--std=c++17", "--minimal", "--fmad=false"};
  const int n = strncmp(key, CU_ROUNDED, sizeof CU_ROUNDED - 1) ? 3 : 4;
  nvrtcProgram p = NULL;
  nvrtcResult r = a->nvrtcCreateProgram(&p, source, "kernels", 0, NULL, NULL);
  if (r) return nvrtc_fail(ctx, d, r, "compiling", key);
  r = a->nvrtcCompileProgram(p, n, options);
  kn_status st = r ? compile_failed(ctx, d, p, r, key) : take_image(ctx, d, p, key, out);
  (void)a->nvrtcDestroyProgram(&p);
  return st;
}

/* ---- programs ---- */

/* Of the compiler only its file is looked at, as opening it takes as long as loading many kernels. */
static void identify(cu_device *d) {
  cu_kernels *k = d->kernels;
  struct stat s = {0};
  int major = 0, minor = 0;
  if (k->identity[0]) return;
  (void)cu_api_there(&d->api, CU_NVRTC);
  (void)stat(d->api.path[CU_NVRTC], &s);
  if (d->api.filled[CU_NVRTC]) (void)d->api.nvrtcVersion(&major, &minor);
  snprintf(k->identity, sizeof k->identity,
           "kiln " KN_VERSION_TEXT ", prelude %016llx, sm_%d, NVRTC %d.%d %s %lld %lld",
           (unsigned long long)cu_hash(cu_prelude, sizeof cu_prelude), d->capability, major, minor,
           d->api.path[CU_NVRTC], (long long)s.st_size, (long long)s.st_mtime);
}

static kn_status load(kn_context *ctx, cu_device *d, program *p, const cu_image *i) {
  CUresult r = d->api.cuModuleLoadData(&p->module, i->data);
  if (r == CUDA_SUCCESS) return KN_OK;
  p->module = NULL;
  char what[256];
  snprintf(what, sizeof what, "loading the kernels \"%.200s\"", p->key);
  return cu_fail(ctx, d, r, what);
}

/* From the disk, or from the compiler and to the disk. */
static kn_status make_module(kn_context *ctx, cu_device *d, program *p, const cu_text *source) {
  cu_kernels *k = d->kernels;
  cu_image i = {0};
  const char *body = source->s + sizeof cu_prelude - 1;
  identify(d);
  if (cu_disk_read(&k->disk, k->identity, p->key, body, &i)) {
    kn_status st = load(ctx, d, p, &i);
    kn_free(d->heap, i.data, i.bytes);
    if (st == KN_OK) {
      k->stats.read++;
      return KN_OK;
    } /* else another driver's: compiled again */
  }
  double before = cu_clock();
  KN_TRY(compile(ctx, d, p->key, source->s, &i));
  k->stats.compiled++;
  if (kn_debugging(ctx, KN_DEBUG_DISPATCH))
    kn_log(ctx, "dispatch: cuda compiled %s in %.0f ms", p->key, 1e3 * (cu_clock() - before));
  kn_status st = load(ctx, d, p, &i);
  if (st == KN_OK) cu_disk_write(&k->disk, k->identity, p->key, body, &i);
  kn_free(d->heap, i.data, i.bytes);
  return st;
}

static kn_status make_program(kn_context *ctx, cu_device *d, const char *key, uint64_t hash,
                              cu_write_fn write, void *ud, program **out) {
  cu_kernels *k = d->kernels;
  cu_text source = {.heap = d->heap};
  program *p = kn_calloc(d->heap, 1, sizeof *p + text_bytes(key));
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  memcpy(p->key, key, text_bytes(key));
  p->hash = hash;
  cu_put(&source, "%s", cu_prelude);
  write(ud, &source);
  kn_status st = source.failed ? kn_fail_nomem(ctx, source.n) : KN_OK;
  if (st == KN_OK && k->hook) k->hook(k->hook_ud, key, source.s);
  if (st == KN_OK) st = make_module(ctx, d, p, &source);
  cu_text_free(&source);
  if (st != KN_OK) {
    free_program(d, p);
    return st;
  }
  p->next = k->buckets[hash % BUCKETS];
  k->buckets[hash % BUCKETS] = p;
  *out = p;
  return KN_OK;
}

static program *find_program(const cu_kernels *k, const char *key, uint64_t hash) {
  for (program *p = k->buckets[hash % BUCKETS]; p; p = p->next)
    if (p->hash == hash && !strcmp(p->key, key)) return p;
  return NULL;
}

static kn_status find_function(kn_context *ctx, cu_device *d, program *p, const char *name, CUfunction *out) {
  function *f = p->functions;
  while (f && strcmp(f->name, name)) f = f->next;
  if (!f) {
    char what[256];
    f = kn_alloc(d->heap, sizeof *f + text_bytes(name));
    if (!f) return kn_fail_nomem(ctx, sizeof *f);
    CUresult r = d->api.cuModuleGetFunction(&f->f, p->module, name);
    if (r) {
      kn_free(d->heap, f, sizeof *f + text_bytes(name));
      snprintf(what, sizeof what, "finding the kernel %.64s in \"%.150s\"", name, p->key);
      return cu_fail(ctx, d, r, what);
    }
    memcpy(f->name, name, text_bytes(name));
    f->next = p->functions;
    p->functions = f;
  }
  *out = f->f;
  return KN_OK;
}

kn_status cu_kernel(kn_context *ctx, cu_device *d, const char *key, const char *name, cu_write_fn write,
                    void *ud, CUfunction *out) {
  cu_kernels *k = d->kernels;
  uint64_t hash = cu_hash(key, strlen(key));
  pthread_mutex_lock(&k->lock);
  program *p = find_program(k, key, hash);
  kn_status st = p ? KN_OK : make_program(ctx, d, key, hash, write, ud, &p);
  if (st == KN_OK) st = find_function(ctx, d, p, name, out);
  pthread_mutex_unlock(&k->lock);
  return st;
}

/* ---- launching ---- */

enum { PLAIN_SHARED = 48 << 10 }; /* what a block may use without asking */

kn_status cu_launch(kn_context *ctx, cu_device *d, CUfunction f, const unsigned grid[3], unsigned threads,
                    unsigned shared, void **args) {
  if (!grid[0] || !grid[1] || !grid[2]) return KN_OK;
  if (shared > PLAIN_SHARED)
    CU_TRY(ctx, d, d->api.cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared),
           "asking for shared memory");
  CU_TRY(ctx, d,
         d->api.cuLaunchKernel(f, grid[0], grid[1], grid[2], threads, 1, 1, shared, cu_stream(ctx, d), args,
                               NULL),
         "launching a kernel");
  return KN_OK;
}

unsigned cu_grid(const cu_device *d, int64_t n, unsigned threads, unsigned each) {
  enum { WAVES = 4 };
  int64_t per = (int64_t)threads * each, blocks = n / per + (n % per > 0);
  int64_t most = (int64_t)d->processors * (d->threads_per_processor / (int)threads) * WAVES;
  if (most < 1) most = 1;
  return (unsigned)(blocks > most ? most : blocks);
}
