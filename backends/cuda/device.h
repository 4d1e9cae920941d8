/* A CUDA device as kiln uses it: context, stream, memory, kernels, library handles. One for each registry;
 * children of its context share it from any thread. What is computed goes to one stream, in order, and
 * nothing waits for it but copies to the host.
 *
 * Threads. A context is used by one thread at a time, so what belongs to a thread is found by its context:
 *   - a capture (capture.h) has a stream, a room for workspaces, memory that it holds and a cell for faults
 * of its own; other contexts go on with the device's stream meanwhile. `captures` has its lock.
 *   - each call sets the driver's context for its thread (cu_device_of).
 * What is shared: `lock` guards opening, libraries and their functions (api), `conditions`, `blas`, `dnn`,
 * cells of faults and the pinned memory of copies; the pool, the kernels, cuBLASLt's and cuDNN's states have
 * locks in themselves, which are held while something is added, and with the libraries while they launch.
 * None of them is held while another of `lock`'s is asked for. Counts are atomic. Facts are written before
 * `open` is. Blocks of memory may go from thread to thread, as what they are used for is in the order of the
 * one stream. */
#ifndef KN_CUDA_DEVICE_H
#define KN_CUDA_DEVICE_H
#include "backends/backend.h"
#include "backends/cuda/api.h"
#include "core/device.h"
#include "core/tensor.h"
#include <pthread.h>

/* A node that may fail by data, and how many sites of faults (fault.h) there were before it. */
typedef struct cu_suspect {
  const struct kn_node *node;
  uint64_t turns;
} cu_suspect;

/* What a graph keeps of what is captured into it: memory for workspaces, where faults are noted, and whose
 * they are. */
typedef struct cu_room {
  CUdeviceptr at;
  size_t bytes, used;
  size_t wanted; /* the most that was asked for at once */
  int live;
  cu_suspect *suspects; /* in the order of their sites */
  size_t nsuspects;
  CUdeviceptr faults; /* the cell, cleared by who launches (fault.h) */
  uint64_t turns;     /* sites of faults, so far */
} cu_room;

/* The time in which what a context launches becomes a graph: no waiting, no copies to the host. */
typedef struct cu_capture {
  struct cu_capture *next;
  const kn_context *ctx;       /* who captures */
  const struct kn_node *meets; /* what it is at; NULL */
  CUstream stream;             /* that is captured */
  cu_room *room;               /* where workspaces come from */
  struct cu_hold *hold;        /* what memory is taken for (memory.h) */
  CUdeviceptr random; /* seed and offset that draws go on from, 0: none are made; they are then counted … */
  uint64_t random_base; /* … from this offset of the context's stream */
} cu_capture;

enum { CU_FAULT_CELLS = 8 };

typedef struct cu_device {
  cu_api api;
  kn_heap *heap; /* retained */
  pthread_mutex_t lock;
  atomic_bool open; /* there are a context and a stream */
  CUdevice id;
  int number, count; /* which of the machine's it is, from 0; how many there are */
  CUcontext context;
  CUstream main; /* cu_stream says which one a context is to use */
  char name[128];
  int capability; /* 90: sm_90 */
  int driver;     /* its version, 13000 */
  int processors, threads_per_processor;
  size_t shared;                                              /* bytes a block may use, opted in */
  size_t memory;                                              /* bytes in all */
  enum { CU_UNTRIED, CU_OFFERED, CU_NOT_OFFERED } conditions; /* conditional nodes of graphs (capture.c) */
  struct {
    atomic_uint_fast64_t captured, launches, waits, syncs, nanoseconds; /* cu_launches_of tells them */
    atomic_uint_fast64_t ids;
    atomic_bool loops;          /* some may be under way that nobody watches */
    atomic_uint_fast64_t *stop; /* the launch that is to end; the host's memory, and the device reads it */
  } launches;
  struct {
    pthread_mutex_t lock;
    cu_capture *_Atomic first; /* NULL: nobody captures */
  } captures;
  struct {
    CUdeviceptr cell[CU_FAULT_CELLS]; /* that nothing is noted in and nobody uses */
    int n;
  } faults;                   /* fault.c's */
  kn_memory tensors;          /* core's door to the memory below */
  struct cu_pool *pool;       /* memory.c */
  struct cu_staging *staging; /* transfer.c */
  struct cu_kernels *kernels; /* kernel.c */
  struct cu_blas *blas;       /* blas.c; NULL: not asked for yet */
  struct cu_dnn *dnn;         /* dnn.c; likewise */
} cu_device;

/* Looks for a driver and a device, and fills what is known before there is a context; NULL with the reason.
 */
cu_device *cu_device_find(kn_context *ctx, char *why, size_t size);
void cu_device_close(cu_device *d);
/* Another of the machine's devices, before this one is opened; STATE after that, ARG where there is none. */
kn_status cu_device_choose(kn_context *ctx, cu_device *d, int i);
kn_status cu_device_facts(kn_context *ctx, cu_device *d, int i, kn_device_facts *out);
extern const kn_device_door cu_door;
/* The device of this context, current for this thread; a failure says why there is none. */
kn_status cu_device_of(kn_context *ctx, cu_device **out);
/* Its library, opened if it is not yet, or UNSUPPORTED with the reason. */
kn_status cu_need(kn_context *ctx, cu_device *d, cu_library library);
/* A failure of a driver call: "what: CUDA_ERROR_… (2)", with a status by its kind (NOMEM, …). */
kn_status cu_fail(kn_context *ctx, const cu_device *d, CUresult r, const char *what);
#define CU_TRY(ctx, d, call, what)                                                                           \
  do {                                                                                                       \
    const CUresult cu_result_ = (call);                                                                      \
    if (cu_result_ != CUDA_SUCCESS) return cu_fail(ctx, d, cu_result_, what);                                \
  } while (0)

/* The capture of this context; NULL: what it launches is done. */
cu_capture *cu_capture_of(const kn_context *ctx, cu_device *d);
static inline bool cu_captures(const kn_context *ctx, cu_device *d) { return cu_capture_of(ctx, d) != NULL; }
/* Where what this context launches goes. */
static inline CUstream cu_stream(const kn_context *ctx, cu_device *d) {
  const cu_capture *c = cu_capture_of(ctx, d);
  return c ? c->stream : d->main;
}

/* Memory of the device by the pool, 256-byte aligned; freed blocks are used again in the order of the stream.
 * NOMEM when there is none, after what is cached has been given back. */
kn_status cu_alloc(kn_context *ctx, cu_device *d, size_t bytes, CUdeviceptr *out);
void cu_free(cu_device *d, CUdeviceptr p, size_t bytes);
double cu_clock(void); /* seconds that only move forward */

/* Workspace for what is launched next; free it at once: the stream's order keeps it apart. While capturing it
 * comes from the room, or LIMIT. */
kn_status cu_workspace(kn_context *ctx, cu_device *d, size_t bytes, CUdeviceptr *out);

/* Address of a tensor's first element. */
static inline CUdeviceptr cu_address(const kn_tensor *t) { return (CUdeviceptr)(uintptr_t)kn_tensor_data(t); }

#endif
