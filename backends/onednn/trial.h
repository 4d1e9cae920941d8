/* One primitive with operands of random numbers, to see how long it takes. For those who choose between ways
 * of doing something (choice.c, choice_conv.c). */
#ifndef KN_ONEDNN_TRIAL_H
#define KN_ONEDNN_TRIAL_H
#include "backends/onednn/sequence.h"

typedef struct dn_trial {
  dnnl_primitive_t primitive;
  dnnl_memory_t memory[DN_STEP_ARGS];
  dnnl_exec_arg_t args[DN_STEP_ARGS];
  int nargs;
} dn_trial;

/* n numbers between -1 and 1, none so small that it is slow. */
kn_status dn_trial_floats(kn_context *ctx, int64_t n, kn_tensor **out);
/* Bytes of an argument of pd's; 0: it has none. */
size_t dn_trial_bytes(const dn_library *l, dnnl_primitive_desc_t pd, int arg);
/* What pd reads or writes as `arg` is at data; nothing where it has no such argument. */
dnnl_status_t dn_trial_bind(dn_state *s, dn_trial *t, dnnl_primitive_desc_t pd, int arg, void *data);
void dn_trial_free(const dn_library *l, dn_trial *t); /* a zero one is fine */

#endif
