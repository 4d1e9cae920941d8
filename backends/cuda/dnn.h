/* Graphs of cuDNN: a few ops on tensors, described to the library, which finds an engine that computes them
 * as one and makes a plan for it. Plans are kept in memory, and on disk as the library writes them down.
 * Which engines are allowed follows the context's precision and its deterministic switch. */
#ifndef KN_CUDA_DNN_H
#define KN_CUDA_DNN_H
#include "backends/cuda/kernel.h"

typedef struct cu_dnn cu_dnn;

/* The state: of a device, opened when it is first needed; or one without a device, for a machine that the
 * JSON text tells of (DEVICEPROP of the library), whose plans can be made but not run. */
kn_status cu_dnn_of(kn_context *ctx, cu_device *d, cu_dnn **out, const char **why); /* DECLINED: no library */
kn_status cu_dnn_open_without(kn_context *ctx, const cu_api *api, const char *json, cu_dnn **out);
void cu_dnn_free(cu_dnn *s);     /* NULL is fine */
void cu_dnn_close(cu_device *d); /* with the device */

/* ---- a graph that is being made (dnn_graph.c) ---- */

enum { CU_DNN_RANK = 5, CU_DNN_DESCRIPTORS = 160, CU_DNN_OPS = 48, CU_DNN_REAL = 16 };
typedef cudnnBackendDescriptor_t cu_desc;

typedef struct cu_graph {
  cu_dnn *s;
  const cu_api *api;
  cu_desc made[CU_DNN_DESCRIPTORS], ops[CU_DNN_OPS];
  int nmade, nops;
  int64_t next,
      real[CU_DNN_REAL]; /* numbers of tensors; of those with memory, in the order they were made in */
  int nreal;
  cu_text text; /* what is asked for, in full: the same text, the same graph */
  bool failed;  /* what follows does nothing */
  cudnnStatus_t status;
  char why[256];
} cu_graph;

/* Sizes and steps of a tensor, the slowest first for cuDNN's reading: [N, C, H, W]. */
typedef struct cu_shape {
  cudnnDataType_t type;
  int rank;
  int64_t dims[CU_DNN_RANK], strides[CU_DNN_RANK];
} cu_shape;
cu_shape cu_shape_dense(cudnnDataType_t type, int rank, const int64_t *dims);
/* False when cuDNN has no such dtype. */
bool cu_dnn_type(kn_dtype d, cudnnDataType_t *out);

/* A tensor with memory takes part in cu_plan_run's list, in the order they are made in; a VIRTUAL one exists
 * inside the graph only; the address of a NUMBER is the host's, and is read when the plan runs. */
typedef enum cu_tensor_kind { CU_MEMORY, CU_VIRTUAL, CU_NUMBER } cu_tensor_kind;
cu_desc cu_graph_tensor(cu_graph *g, const cu_shape *shape, cu_tensor_kind kind, int64_t alignment);

typedef enum cu_conv_kind {
  CU_CONV_FORWARD,
  CU_CONV_GRAD_INPUT,
  CU_CONV_GRAD_WEIGHT,
  CU_CONV_KINDS
} cu_conv_kind;
void cu_graph_conv(cu_graph *g, cu_conv_kind kind, cudnnDataType_t compute, const int64_t padding[2],
                   const int64_t stride[2], const int64_t dilation[2], cu_desc x, cu_desc w, cu_desc y);
/* y = mode(x, b, t); b and t may be NULL. GEN_INDEX takes the axis. */
void cu_graph_pointwise(cu_graph *g, cudnnPointwiseMode_t mode, cudnnDataType_t compute, int64_t axis,
                        cu_desc x, cu_desc b, cu_desc t, cu_desc y);
void cu_graph_reduce(cu_graph *g, cudnnReduceTensorOp_t op, cudnnDataType_t compute, cu_desc x, cu_desc y);
void cu_graph_matmul(cu_graph *g, cudnnDataType_t compute, cu_desc a, cu_desc b, cu_desc c);
void cu_graph_reshape(cu_graph *g, cu_desc x, cu_desc y);

void cu_graph_open(cu_graph *g, cu_dnn *s);
void cu_graph_close(cu_graph *g);

/* ---- plans (dnn_plan.c) ---- */

typedef struct cu_plan cu_plan;
typedef struct cu_plan_facts {
  int64_t workspace;                /* bytes */
  int64_t engine;                   /* its number; -1: read from disk */
  bool tensor_cores, deterministic; /* as the engine's notes say */
  int configurations;               /* that the heuristics gave */
  const char *why;                  /* NULL; or why there is no plan */
} cu_plan_facts;

/* The plan of a graph that `make` describes from the problem, whose bytes (zeroed before they were filled)
 * and maker name it in memory. nth: by the heuristics' first engine that is allowed (0), or a later one.
 * `exact`: float32 is asked for, and the precision of the context holds. KN_DECLINED where there is no engine
 * for it (facts.why says why), which is remembered as well. */
typedef void (*cu_make_fn)(cu_graph *g, const void *problem);
kn_status cu_dnn_plan(kn_context *ctx, cu_dnn *s, cu_make_fn make, const void *problem, size_t size,
                      bool exact, int nth, const cu_plan **out, const char **why);
cu_plan_facts cu_plan_read(const cu_plan *p);
/* data: an address for each tensor with memory and each number. */
kn_status cu_plan_run(kn_context *ctx, cu_device *d, const cu_plan *p, void *const *data, int n);
/* What the library writes down, and a plan of it: for tests. */
kn_status cu_plan_write(kn_context *ctx, cu_dnn *s, const cu_plan *p, char **json, size_t *bytes);
bool cu_plan_reads(cu_dnn *s, const char *json, size_t bytes);

#endif
