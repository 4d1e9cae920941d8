/* What trials of a library's algorithms share: memory of random numbers, and the device's own clock around
 * several launches in a row. Failures are told to nobody: such an algorithm is not taken. */
#ifndef KN_CUDA_TRIAL_H
#define KN_CUDA_TRIAL_H
#include "backends/cuda/device.h"

enum { CU_TRIAL_OPERANDS = 5 };

typedef struct cu_trial {
  kn_context *ctx; /* of its own */
  cu_device *d;
  size_t bytes[CU_TRIAL_OPERANDS]; /* 0: there is none */
  CUdeviceptr at[CU_TRIAL_OPERANDS];
  CUevent from, to;
} cu_trial;

/* Of operands of so many bytes, set before. False: there is no room for them. */
bool cu_trial_open(cu_trial *t, kn_dtype dtype);
void cu_trial_close(cu_trial *t); /* also where opening failed */
/* How long one takes of what `launch` asks for; false where that fails. */
bool cu_trial_time(cu_trial *t, kn_status (*launch)(void *ud), void *ud, double *seconds);

#endif
