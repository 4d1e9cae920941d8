/* What the files of dnn*.c share. */
#ifndef KN_CUDA_DNN_INSIDE_H
#define KN_CUDA_DNN_INSIDE_H
#include "backends/cuda/dnn.h"
#include "backends/cuda/kernel_inside.h"
#include <pthread.h>

enum { CU_DNN_BUCKETS = 128 };

struct cu_dnn {
  const cu_api *api;
  kn_heap *heap;
  pthread_mutex_t lock;
  cudnnHandle_t handle; /* NULL without a device */
  cu_desc device;       /* DEVICEPROP */
  char absent[256];     /* why there is no library; "": there is */
  char identity[320];   /* device, driver, library: whose plans these are */
  cu_disk disk;         /* keeps nothing without a device */
  cu_plan *plans[CU_DNN_BUCKETS];
  bool listening;    /* the library's messages are wanted */
  char reasons[512]; /* the last of them */
};

struct cu_plan {
  cu_plan *next;
  cu_make_fn make;
  void *problem;
  size_t size;
  bool exact, deterministic;
  int nth, left; /* it is the nth of the engines that are allowed, from 0; those to be passed over yet */
  cu_desc plan;  /* NULL: facts.why */
  int nreal;
  int64_t real[CU_DNN_REAL];
  cu_plan_facts facts;
  char why[384];
};

/* "what: CUDNN_STATUS_… (2000): what it says". */
void cu_dnn_error(const cu_dnn *s, cudnnStatus_t r, const char *what, char *text, size_t size);
kn_status cu_dnn_fail(kn_context *ctx, const cu_dnn *s, cudnnStatus_t r, const char *what);
#define DNN_TRY(ctx, s, call, what)                                                                          \
  do {                                                                                                       \
    const cudnnStatus_t dnn_result_ = (call);                                                                \
    if (dnn_result_ != CUDNN_STATUS_SUCCESS) return cu_dnn_fail(ctx, s, dnn_result_, what);                  \
  } while (0)

void cu_dnn_drop_plans(cu_dnn *s);

#endif
