/* What the two files of the software device's libcudnn share: descriptors as lists of what was set, and the
 * interpreter of graphs made of them. */
#ifndef SPEC_SIM_DNN_H
#define SPEC_SIM_DNN_H
#include "spec/cuda/sim/sim.h"
#include <cudnn.h>
#include <stdint.h>

typedef struct sim_attribute {
  int name, type; /* cudnnBackendAttributeName_t, …Type_t */
  int64_t count;
  void *data; /* of descriptors: struct sim_desc *[count], each counted */
  struct sim_attribute *next;
} sim_attribute;

typedef struct sim_desc {
  cudnnBackendDescriptorType_t type;
  int refs;
  bool final;
  sim_attribute *set; /* in the order in which they were set */
} sim_desc;

/* NULL: it was not set. */
const sim_attribute *sim_attribute_of(const sim_desc *d, int name);
sim_desc *sim_desc_of(const sim_desc *d, int name, int64_t i); /* a descriptor among its attributes */
int64_t sim_int_of(const sim_desc *d, int name, int64_t otherwise);

/* A plan and where its tensors lie; numbers of the host are read before. */
enum { SIM_DNN_MOST = 24 };
typedef struct sim_dnn_run {
  const sim_desc *plan;
  int64_t n, uids[SIM_DNN_MOST];
  void *data[SIM_DNN_MOST];
  double numbers[SIM_DNN_MOST]; /* of tensors that are numbers */
} sim_dnn_run;
void sim_dnn_interpret(void *run);
/* Engines are numbers: 1 rounds factors of float32 to TF32, as tensor cores do. */
enum { SIM_ENGINE_TENSOR_CORE = 1, SIM_ENGINE_PLAIN = 2 };
int64_t sim_engine_of(const sim_desc *plan);
const sim_desc *sim_graph_of(const sim_desc *plan);

#endif
