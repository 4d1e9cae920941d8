/* What kiln.grad and backward are given beside tensors: options, and lists of tensors; as captured code has
 * them. */
#ifndef KC_GRAD_OPTIONS_H
#define KC_GRAD_OPTIONS_H
#include "lua/capture/interp.h"

typedef enum kc_grad_call { KC_OF_GRAD = 1, KC_OF_BACKWARD = 2 } kc_grad_call;

typedef struct kc_grad_options {
  bool again;  /* create_graph */
  bool unused; /* allow_unused */
  size_t memory;
  kc_val outputs, inputs; /* as given; nil */
} kc_grad_options;

/* a is nil or a table with options of that call. */
kc_res kc_grad_options_read(kc_cap *c, kc_state *s, kc_val a, kc_grad_call of, kc_grad_options *o);
/* The tensors of a table, or the one given. `holes`: false may stand in for one. */
kc_res kc_grad_list(kc_cap *c, kc_state *s, kc_val a, const char *call, const char *what, bool holes,
                    kc_val **list, uint32_t *n);

#endif
