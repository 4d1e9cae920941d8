/* Gradients inside captured functions: backward, kiln.grad, the fields grad and requires_grad. Private to
 * this room. */
#ifndef KC_GRADS_H
#define KC_GRADS_H
#include "lua/capture/interp.h"

/* Where a tensor's gradient is kept while capturing: a cell, as of an upvalue, so that joins and loops carry
 * it. */
typedef struct kc_grad_place {
  kc_val of;      /* the tensor: plain or a handle */
  kc_look *leaf;  /* where it was found outside; NULL: made inside */
  kc_look *entry; /* its gradient when the function began, once somebody asked */
  uint32_t cell;
} kc_grad_place;

/* The cell's value when nothing has been written to it. */
kc_res kc_grad_entry(kc_cap *c, uint32_t cell, kc_val *out);
/* t.grad, t.requires_grad … and t.grad = v: *done false when the field is another. */
kc_res kc_grad_field(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out, bool *done);
kc_res kc_backward(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out);
kc_res kc_gradients(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out);
kc_res kc_require_grad(kc_cap *c, kc_state **s, const kc_val *a, int n, kc_values *out);
/* From here on it matters whether gradients are on. */
kc_res kc_ask_grad(kc_cap *c);
/* What the gradients of outside tensors are at the end. */
kc_res kc_grad_stores(kc_cap *c, kc_state *s);

/* A gradient that is being made reads v, which `reader` used: not if v was overwritten since. Called from
 * inside an op: nothing here may raise. */
void kc_saved_read(void *capture, const kn_value *v, const kn_node *reader, const char *what, int i);

#endif
