/* A CUDA device as kiln uses it: context, stream, memory, kernels, library handles. One for each registry;
 * children of its context share it from any thread. What is computed goes to `stream`, in order, and nothing
 * waits for it but copies to the host. */
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

/* What a graph keeps of what is captured into it: memory for workspaces, and whose faults are whose. */
typedef struct cu_room {
  CUdeviceptr at;
  size_t bytes, used;
  size_t wanted; /* the most that was asked for at once */
  int live;
  cu_suspect *suspects; /* in the order of their sites */
  size_t nsuspects;
} cu_room;

typedef struct cu_device {
  cu_api api;
  kn_heap *heap;        /* retained */
  pthread_mutex_t lock; /* held while a library is opened, or the device itself */
  atomic_bool open;     /* there are a context and a stream */
  CUdevice id;
  int number, count; /* which of the machine's it is, from 0; how many there are */
  CUcontext context;
  CUstream stream;
  char name[128];
  int capability; /* 90: sm_90 */
  int driver;     /* its version, 13000 */
  int processors, threads_per_processor;
  size_t shared;  /* bytes a block may use, opted in */
  size_t memory;  /* bytes in all */
  bool capturing; /* what is launched becomes a graph: no allocation, no waiting, no copies to the host */
  cu_room *room;  /* where workspaces come from, of who captures; NULL: the pool */
  enum { CU_UNTRIED, CU_OFFERED, CU_NOT_OFFERED } conditions; /* conditional nodes of graphs (capture.c) */
  kn_device_launches launches;
  CUdeviceptr faults; /* fault.c; 0: not asked for yet */
  uint64_t turns;     /* sites of faults, so far */
  CUdeviceptr random; /* while capturing: seed and offset that draws go on from, which are then counted … */
  uint64_t random_base;       /* … from this offset of the context's stream; 0: the stream itself */
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

/* Memory of the device by the pool, 256-byte aligned; freed blocks are used again in the order of the stream.
 * NOMEM when there is none, after what is cached has been given back. */
kn_status cu_alloc(kn_context *ctx, cu_device *d, size_t bytes, CUdeviceptr *out);
void cu_free(cu_device *d, CUdeviceptr p, size_t bytes);
double cu_clock(void); /* seconds that only move forward */

/* Workspace for what is launched next; free it at once: the stream's order keeps it apart. Where there is a
 * room it comes from that, or LIMIT. */
kn_status cu_workspace(kn_context *ctx, cu_device *d, size_t bytes, CUdeviceptr *out);

/* Address of a tensor's first element. */
static inline CUdeviceptr cu_address(const kn_tensor *t) { return (CUdeviceptr)(uintptr_t)kn_tensor_data(t); }

#endif
