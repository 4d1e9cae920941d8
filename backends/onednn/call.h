/* An op prepared for inputs that lie in memory in a certain way: what the eager kernels make for each call
 * and a compiled graph keeps from run to run. Used by one thread at a time. */
#ifndef KN_ONEDNN_CALL_H
#define KN_ONEDNN_CALL_H
#include "backends/onednn/state.h"

typedef struct dn_call {
  kn_op op;
  dn_runner *runner; /* NULL: not prepared */
  unsigned copy;     /* a bit for each input that is copied into one piece first */
  int64_t step[2];   /* of input 1, when copied, only every step[0]th row and step[1]th column; 0: all */
  int n;
  int64_t strides[DN_MAX_IN][KN_MAX_RANK]; /* of the inputs it is prepared for */
} dn_call;

/* KN_DECLINED with a short reason when oneDNN does not do it. On failure `c` is left unprepared. */
kn_status dn_call_prepare(dn_state *s, kn_context *ctx, kn_op op, const void *attrs, const dn_view *in, int n,
                          const kn_type *out, dn_call *c, char *why, size_t size);
void dn_call_drop(dn_call *c); /* also when it is not prepared */
/* Is it prepared for these tensors (whose sizes are those it was prepared with)? */
bool dn_call_fits(const dn_call *c, kn_tensor *const *in);
/* KN_DECLINED with a reason, before anything is written, when the values are such that oneDNN answers
 * otherwise than the reference. workspace: of the size the primitive wants, or NULL to allocate it for this
 * call. */
kn_status dn_call_run(kn_context *ctx, dn_call *c, kn_tensor *const *in, kn_tensor *out, void *workspace,
                      char *why, size_t size);
static inline const char *dn_call_impl(const dn_call *c) {
  return dn_primitive_impl(dn_runner_primitive(c->runner));
}
static inline size_t dn_call_workspace(const dn_call *c) {
  return dn_primitive_workspace(dn_runner_primitive(c->runner));
}

#endif
