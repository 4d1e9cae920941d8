/* libcuda.so.1 of the software device: the device itself, streams, events, modules and launches. */
#define _GNU_SOURCE
#include "inside.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
sim_counts sim_counted;
static CUgraphNode queue, *queue_end = &queue;
static unsigned long long given, finished, captures;
static double device_clock, next_takes; /* seconds */
static unsigned streams;

API sim_counts sim_count(void) {
  pthread_mutex_lock(&sim_lock);
  sim_counts c = sim_counted;
  pthread_mutex_unlock(&sim_lock);
  return c;
}

/* ---- what tests ask for ---- */

static FILE *trace_file;
bool sim_traces(void) {
  static int on = -1;
  if (on < 0) {
    const char *path = getenv("SIM_TRACE");
    trace_file = path ? fopen(path, "w") : NULL;
    on = trace_file != NULL;
  }
  return on;
}

void sim_trace(const char *format, ...) {
  va_list list;
  if (!sim_traces()) return;
  va_start(list, format);
  vfprintf(trace_file, format, list);
  fputc('\n', trace_file);
  fflush(trace_file);
  va_end(list);
}

/* SIM_FAIL=cuMemAlloc:3 */
bool sim_fails(const char *name) {
  static unsigned long calls;
  const char *what = getenv("SIM_FAIL");
  size_t n = strlen(name);
  return what && !strncmp(what, name, n) && what[n] == ':' && ++calls == strtoul(what + n + 1, NULL, 10);
}

/* ---- the device ---- */

API CUresult cuInit(unsigned flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }
API CUresult cuDriverGetVersion(int *version) { return *version = 13000, CUDA_SUCCESS; }
API CUresult cuDeviceGetCount(int *n) { return *n = 1, CUDA_SUCCESS; }
API CUresult cuDeviceGet(CUdevice *device, int i) {
  return *device = 0, i ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
API CUresult cuDeviceGetName(char *name, int n, CUdevice device) {
  snprintf(name, (size_t)n, "software device");
  return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

API CUresult cuDeviceGetAttribute(int *out, CUdevice_attribute what, CUdevice device) {
  const char *capability = getenv("SIM_CAPABILITY");
  const int sm = capability ? atoi(capability) : 90;
  const int values[][2] = {{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, sm / 10},
                           {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, sm % 10},
                           {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 2},
                           {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
                           {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
                           {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
                           {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10},
                           {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 232448},
                           {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 233472},
                           {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 50 << 20},
                           {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1980000},
                           {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 3201000},
                           {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 6144}};
  if (device) return CUDA_ERROR_INVALID_DEVICE;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++)
    if (values[i][0] == (int)what) return *out = values[i][1], CUDA_SUCCESS;
  return CUDA_ERROR_NOT_SUPPORTED;
}

static const struct {
  CUresult r;
  const char *name;
} names[] = {
#define NAME(r)                                                                                              \
  { r, #r }
    NAME(CUDA_SUCCESS),
    NAME(CUDA_ERROR_INVALID_VALUE),
    NAME(CUDA_ERROR_OUT_OF_MEMORY),
    NAME(CUDA_ERROR_INVALID_DEVICE),
    NAME(CUDA_ERROR_INVALID_IMAGE),
    NAME(CUDA_ERROR_INVALID_HANDLE),
    NAME(CUDA_ERROR_NOT_FOUND),
    NAME(CUDA_ERROR_NOT_READY),
    NAME(CUDA_ERROR_NOT_SUPPORTED),
    NAME(CUDA_ERROR_NOT_PERMITTED),
    NAME(CUDA_ERROR_ILLEGAL_ADDRESS),
    NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
    NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
    NAME(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE),
};
API CUresult cuGetErrorName(CUresult r, const char **out) {
  *out = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].r == r) return *out = names[i].name, CUDA_SUCCESS;
  return CUDA_ERROR_INVALID_VALUE;
}
API CUresult cuGetErrorString(CUresult r, const char **out) { return cuGetErrorName(r, out); }

static int context;
API CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device) {
  *out = (CUcontext)&context;
  return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
API CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  return device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
API CUresult cuCtxSetCurrent(CUcontext c) {
  return c && c != (CUcontext)&context ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}
API CUresult cuCtxGetCurrent(CUcontext *out) { return *out = (CUcontext)&context, CUDA_SUCCESS; }

/* ---- work ---- */

CUgraphNode sim_piece(CUstream s, sim_what what) {
  if (s && s->capture) {
    CUgraphNode n = sim_node(s->capture, what, s->tails, s->ntails);
    s->tails = realloc(s->tails, sizeof *s->tails);
    s->tails[0] = n;
    s->ntails = 1;
    return n;
  }
  CUgraphNode n = calloc(1, sizeof *n);
  n->what = what;
  return n;
}

void sim_submit(CUstream s, CUgraphNode n) {
  if (s && s->capture) return;
  *queue_end = n;
  queue_end = &n->next;
  given++;
  device_clock += next_takes > 0 ? next_takes : 1e-6;
  next_takes = 0;
}

API void sim_takes(double seconds) {
  pthread_mutex_lock(&sim_lock);
  next_takes = seconds;
  pthread_mutex_unlock(&sim_lock);
}

void sim_drain(void) {
  if (!queue) return;
  sim_enter();
  while (queue) {
    CUgraphNode n = queue;
    queue = n->next;
    if (!queue) queue_end = &queue;
    sim_node_run(n);
    free(n->kernel.arguments);
    free(n->work.arg);
    free(n);
    finished++;
  }
  sim_leave();
}

static CUresult wait(CUstream s) {
  if (s && s->capture) return s->broken = true, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  sim_drain();
  sim_counted.waits++;
  sim_trace("wait");
  return CUDA_SUCCESS;
}

API bool sim_enqueue(CUstream s, void (*run)(void *), const void *arg, size_t bytes) {
  pthread_mutex_lock(&sim_lock);
  CUgraphNode n = sim_piece(s, SIM_WORK);
  n->work.run = run;
  n->work.arg = malloc(bytes ? bytes : 1);
  n->work.bytes = bytes;
  memcpy(n->work.arg, arg, bytes);
  if (sim_traces()) sim_trace("%s library", s && s->capture ? "  node" : "launch");
  sim_submit(s, n);
  pthread_mutex_unlock(&sim_lock);
  return true;
}

/* ---- streams ---- */

API CUresult cuStreamCreate(CUstream *out, unsigned flags) {
  (void)flags;
  CUstream s = calloc(1, sizeof *s);
  if (!s) return CUDA_ERROR_OUT_OF_MEMORY;
  pthread_mutex_lock(&sim_lock);
  s->number = ++streams;
  pthread_mutex_unlock(&sim_lock);
  *out = s;
  return CUDA_SUCCESS;
}
API CUresult cuStreamDestroy(CUstream s) {
  pthread_mutex_lock(&sim_lock);
  sim_drain();
  pthread_mutex_unlock(&sim_lock);
  free(s->tails);
  free(s);
  return CUDA_SUCCESS;
}
API CUresult cuStreamSynchronize(CUstream s) { return LOCKED(wait(s)); }
API CUresult cuCtxSynchronize(void) { return LOCKED(wait(NULL)); }
API CUresult cuStreamQuery(CUstream s) {
  pthread_mutex_lock(&sim_lock);
  CUresult r = s && s->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
               : queue         ? CUDA_ERROR_NOT_READY
                               : CUDA_SUCCESS;
  if (r == CUDA_ERROR_NOT_READY) sim_drain(); /* it is, when asked again */
  pthread_mutex_unlock(&sim_lock);
  return r;
}
API CUresult cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus *out) {
  *out = s && s->capture ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
/* One queue for all streams: whatever is waited for has been given before. */
API CUresult cuStreamWaitEvent(CUstream s, CUevent e, unsigned flags) {
  (void)flags;
  return (s && s->capture) || !e ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}

/* ---- events ---- */

API CUresult cuEventCreate(CUevent *out, unsigned flags) {
  (void)flags;
  return (*out = calloc(1, sizeof **out)) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
API CUresult cuEventDestroy(CUevent e) {
  free(e);
  return CUDA_SUCCESS;
}
API CUresult cuEventRecord(CUevent e, CUstream s) {
  if (s && s->capture) return CUDA_ERROR_NOT_SUPPORTED;
  pthread_mutex_lock(&sim_lock);
  *e = (struct CUevent_st){given, device_clock, true};
  pthread_mutex_unlock(&sim_lock);
  return CUDA_SUCCESS;
}
/* Who only asks does not do the work: a thread of the device's does, for as long as it takes. */
static void *drain_beside(void *beside) {
  pthread_mutex_lock(&sim_lock);
  sim_drain();
  *(bool *)beside = false;
  pthread_mutex_unlock(&sim_lock);
  return NULL;
}
API CUresult cuEventQuery(CUevent e) {
  static bool beside; /* guarded by the lock */
  pthread_t thread;
  if (pthread_mutex_trylock(&sim_lock)) return CUDA_ERROR_NOT_READY;
  const bool done = !e->recorded || e->after <= finished;
  if (!done && !beside && !pthread_create(&thread, NULL, drain_beside, &beside)) {
    beside = true;
    pthread_detach(thread);
  }
  pthread_mutex_unlock(&sim_lock);
  return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
API CUresult cuEventSynchronize(CUevent e) {
  (void)e;
  return LOCKED(wait(NULL));
}
API CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
  if (!from->recorded || !to->recorded) return CUDA_ERROR_INVALID_HANDLE;
  *ms = (float)(1e3 * (to->at - from->at));
  return CUDA_SUCCESS;
}

/* ---- copies ---- */

static CUresult copy(CUstream s, void *to, const void *from, size_t bytes, CUdeviceptr device1,
                     CUdeviceptr device2) {
  if (!bytes) return CUDA_SUCCESS;
  if ((device1 && !sim_is_device(device1, bytes)) || (device2 && !sim_is_device(device2, bytes)))
    return CUDA_ERROR_INVALID_VALUE;
  bool up = device1 && !device2, down = !device1, capturing = s && s->capture;
  const void *host = up ? from : down ? to : NULL;
  bool pageable = host && !sim_is_pinned(host);
  sim_counted.copies += up || down;
  if (sim_traces())
    sim_trace("%s copy %zu %s -> %s", capturing ? "  node" : "launch", bytes,
              down || !up ? sim_address((CUdeviceptr)(uintptr_t)from) : "host",
              up || !down ? sim_address((CUdeviceptr)(uintptr_t)to) : "host");
  if (pageable && capturing) return s->broken = true, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  CUgraphNode n = sim_piece(s, SIM_COPY);
  if (pageable && up) { /* taken at once */
    n->work.arg = malloc(bytes);
    memcpy(n->work.arg, from, bytes);
    from = n->work.arg;
  }
  n->copying.to = to;
  n->copying.from = from;
  n->copying.bytes = bytes;
  sim_submit(s, n);
  if (pageable && down) {
    sim_drain();
    sim_counted.waits++;
  }
  return CUDA_SUCCESS;
}

#define HOST(p) ((void *)(uintptr_t)(p))
API CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t n, CUstream s) {
  return LOCKED(copy(s, HOST(to), from, n, to, 0));
}
API CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t n, CUstream s) {
  return LOCKED(copy(s, to, HOST(from), n, 0, from));
}
API CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s) {
  return LOCKED(copy(s, HOST(to), HOST(from), n, to, from));
}

static CUresult set(CUstream s, CUdeviceptr to, unsigned value, unsigned width, size_t n) {
  if (!n) return CUDA_SUCCESS;
  if (!sim_is_device(to, n * width) || to % width) return CUDA_ERROR_INVALID_VALUE;
  CUgraphNode p = sim_piece(s, SIM_SET);
  p->set.to = to, p->set.value = value, p->set.width = width, p->set.n = n;
  if (sim_traces())
    sim_trace("%s set %s %zu x %u = %#x", s && s->capture ? "  node" : "launch", sim_address(to), n, width,
              value);
  sim_submit(s, p);
  return CUDA_SUCCESS;
}
API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char v, size_t n, CUstream s) {
  return LOCKED(set(s, to, v, 1, n));
}
API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short v, size_t n, CUstream s) {
  return LOCKED(set(s, to, v, 2, n));
}
API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned v, size_t n, CUstream s) {
  return LOCKED(set(s, to, v, 4, n));
}

/* ---- modules and launches ---- */

API CUresult cuModuleLoadData(CUmodule *out, const void *image) { return LOCKED(sim_load(out, image)); }
static CUresult unload(CUmodule m) {
  sim_drain();
  sim_unload(m);
  return CUDA_SUCCESS;
}
API CUresult cuModuleUnload(CUmodule m) { return LOCKED(unload(m)); }
static CUresult function(CUfunction *out, CUmodule m, const char *name) {
  CUfunction f = sim_function(m, name);
  if (f) *out = f;
  return f ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
API CUresult cuModuleGetFunction(CUfunction *out, CUmodule m, const char *name) {
  return LOCKED(function(out, m, name));
}
API CUresult cuFuncLoad(CUfunction f) { return f ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; }
API CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute what, int value) {
  if (what == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    if (value > 232448) return CUDA_ERROR_INVALID_VALUE;
    f->shared = value;
  }
  return CUDA_SUCCESS;
}
API CUresult cuFuncGetAttribute(int *out, CUfunction_attribute what, CUfunction f) {
  (void)f;
  *out = what == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : what == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
  return CUDA_SUCCESS;
}
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *out, CUfunction f, int threads, size_t shared) {
  (void)f, (void)shared;
  *out = threads > 0 ? 2048 / threads : 0;
  return CUDA_SUCCESS;
}

static CUresult launch(CUstream s, CUfunction f, const unsigned grid[3], const unsigned block[3],
                       unsigned shared, void **arguments) {
  sim_kernel k;
  if (!f) return CUDA_ERROR_INVALID_HANDLE;
  if (sim_fails("cuLaunchKernel")) return CUDA_ERROR_LAUNCH_FAILED;
  CUresult r = sim_kernel_make(&k, f, grid, block, shared, arguments);
  if (r) return r;
  CUgraphNode n = sim_piece(s, SIM_KERNEL);
  n->kernel = k;
  if (!(s && s->capture)) sim_counted.launches++;
  if (sim_traces())
    sim_trace("%s kernel %s <%u %u %u, %u, %u>", s && s->capture ? "  node" : "launch", f->name, grid[0],
              grid[1], grid[2], block[0], shared);
  sim_submit(s, n);
  return CUDA_SUCCESS;
}
API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                            unsigned bz, unsigned shared, CUstream s, void **arguments, void **extra) {
  if (extra) return CUDA_ERROR_NOT_SUPPORTED;
  return LOCKED(launch(s, f, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, arguments));
}
API CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **arguments, void **extra) {
  return cuLaunchKernel(f, c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->blockDimY, c->blockDimZ,
                        c->sharedMemBytes, c->hStream, arguments, extra);
}

/* ---- capture ---- */

static CUresult begin(CUstream s, CUgraph g, const CUgraphNode *needs, size_t n, bool to_given) {
  if (!s || s->capture) return CUDA_ERROR_INVALID_VALUE;
  s->capture = g;
  s->to_given = to_given;
  s->broken = false;
  s->id = ++captures;
  s->tails = realloc(s->tails, (n ? n : 1) * sizeof *s->tails);
  s->ntails = n;
  if (n) memcpy(s->tails, needs, n * sizeof *needs);
  if (sim_traces()) sim_trace("begin g%u", g->number);
  return CUDA_SUCCESS;
}
API CUresult cuStreamBeginCapture(CUstream s, CUstreamCaptureMode mode) {
  CUgraph g;
  (void)mode;
  CUresult r = cuGraphCreate(&g, 0);
  return r ? r : LOCKED(begin(s, g, NULL, 0, false));
}
API CUresult cuStreamBeginCaptureToGraph(CUstream s, CUgraph g, const CUgraphNode *needs,
                                         const CUgraphEdgeData *data, size_t n, CUstreamCaptureMode mode) {
  (void)data, (void)mode;
  return LOCKED(begin(s, g, needs, n, true));
}
static CUresult end(CUstream s, CUgraph *out) {
  if (!s || !s->capture) return CUDA_ERROR_INVALID_VALUE;
  CUgraph g = s->capture;
  s->capture = NULL;
  *out = s->broken ? NULL : g;
  if (sim_traces()) sim_trace("end g%u%s", g->number, s->broken ? " broken" : "");
  if (s->broken && !s->to_given) sim_graph_free(g);
  return s->broken ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}
API CUresult cuStreamEndCapture(CUstream s, CUgraph *out) { return LOCKED(end(s, out)); }
API CUresult cuStreamGetCaptureInfo(CUstream s, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *g,
                                    const CUgraphNode **needs, const CUgraphEdgeData **data, size_t *n) {
  bool on = s && s->capture;
  *status = !on         ? CU_STREAM_CAPTURE_STATUS_NONE
            : s->broken ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                        : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (!on) return CUDA_SUCCESS;
  if (id) *id = s->id;
  if (g) *g = s->capture;
  if (needs) *needs = s->tails;
  if (data) *data = NULL;
  if (n) *n = s->ntails;
  return CUDA_SUCCESS;
}
static CUresult depend(CUstream s, CUgraphNode *needs, size_t n, unsigned flags) {
  if (!s || !s->capture) return CUDA_ERROR_ILLEGAL_STATE;
  size_t keep = flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES ? 0 : s->ntails;
  CUgraphNode *all = malloc((keep + n + 1) * sizeof *all);
  if (keep) memcpy(all, s->tails, keep * sizeof *all);
  if (n) memcpy(all + keep, needs, n * sizeof *all);
  free(s->tails);
  s->tails = all;
  s->ntails = keep + n;
  return CUDA_SUCCESS;
}
API CUresult cuStreamUpdateCaptureDependencies(CUstream s, CUgraphNode *needs, const CUgraphEdgeData *data,
                                               size_t n, unsigned flags) {
  (void)data;
  return LOCKED(depend(s, needs, n, flags));
}
