/* Gradients of the views and of what puts a view's gradient back: each is the other turned round. */
#include "core/grad/vjp.h"

#define BACK(name, expr)                                                                                     \
  void kn_vjp_##name(kn_vjp *v) {                                                                            \
    kn_scope *s = v->s;                                                                                      \
    kn_tensor *g = v->gout[0];                                                                               \
    if (v->need[0]) v->gin[0] = expr;                                                                        \
  }

static kn_tensor *same_attrs(kn_vjp *v, kn_op op, kn_tensor *t) {
  return kx_apply(v->s, op, v->attrs, &t, 1);
}

static kn_tensor *put_back(kn_vjp *v, kn_op op) {
  return kx_apply(v->s, op, v->attrs, (kn_tensor *[]){v->gout[0], kv_like(v, 0)}, 2);
}

static kn_tensor *permuted_back(kn_vjp *v) {
  const kn_attrs_axes *at = v->attrs;
  kn_attrs_axes back = {.dims.n = at->dims.n};
  for (int i = 0; i < at->dims.n; i++) {
    int64_t d = at->dims.v[i];
    back.dims.v[d < 0 ? d + at->dims.n : d] = i;
  }
  return kx_apply(v->s, KN_OP_permute, &back, v->gout, 1);
}

BACK(reshape, kx_reshape_as(s, g, kv_like(v, 0)))
BACK(reshape_as, kx_reshape_as(s, g, kv_like(v, 0)))
BACK(squeeze, kx_reshape_as(s, g, kv_like(v, 0)))
BACK(unsqueeze, kx_reshape_as(s, g, kv_like(v, 0)))
BACK(expand, ((void)s, kv_fit(v, g, 0)))
BACK(expand_as, ((void)s, kv_fit(v, g, 0)))
BACK(transpose, ((void)s, same_attrs(v, KN_OP_transpose, g)))
BACK(permute, ((void)s, (void)g, permuted_back(v)))
BACK(select, ((void)s, (void)g, put_back(v, KN_OP_select_grad)))
BACK(slice, ((void)s, (void)g, put_back(v, KN_OP_slice_grad)))
BACK(select_grad, ((void)s, same_attrs(v, KN_OP_select, g)))
BACK(slice_grad, ((void)s, same_attrs(v, KN_OP_slice, g)))
BACK(diagonal, ((void)s, (void)g, put_back(v, KN_OP_diagonal_grad)))
BACK(diagonal_grad, ((void)s, same_attrs(v, KN_OP_diagonal, g)))
BACK(unfold, ((void)s, (void)g, put_back(v, KN_OP_unfold_grad)))
BACK(unfold_grad, ((void)s, same_attrs(v, KN_OP_unfold, g)))
BACK(strided, ((void)s, (void)g, put_back(v, KN_OP_strided_grad)))
BACK(strided_grad, ((void)s, same_attrs(v, KN_OP_strided, g)))
BACK(flip, ((void)s, same_attrs(v, KN_OP_flip, g)))
BACK(tril, ((void)s, same_attrs(v, KN_OP_tril, g)))
BACK(triu, ((void)s, same_attrs(v, KN_OP_triu, g)))
BACK(to_device, kx_beside(s, g, v->in[0]))

/* The padding is cut off again, what was cut off is padded with zeros. A placeholder cannot be negated: a
 * slice from it on, as long as the input, does the same. */
void kn_vjp_constant_pad(kn_vjp *v) {
  const kn_attrs_constant_pad *at = v->attrs;
  kn_attrs_constant_pad back = {.pad = {.n = at->pad.n}};
  kn_tensor *g = v->gout[0];
  for (int i = 0; i < at->pad.n; i += 2) {
    int64_t before = at->pad.v[i], after = at->pad.v[i + 1];
    int dim = v->in[0]->type.rank - 1 - i / 2;
    if (!kn_is_dyn(before) && !kn_is_dyn(after)) {
      back.pad.v[i] = -before, back.pad.v[i + 1] = -after;
      continue;
    }
    kn_attrs_slice from = {.dim = dim, .start = before, .stop = KN_TO_END, .step = 1};
    kn_attrs_slice upto = {.dim = dim, .stop = kv_size(v, 0, dim), .step = 1};
    g = kx_apply(v->s, KN_OP_slice, &from, &g, 1);
    g = kx_apply(v->s, KN_OP_slice, &upto, &g, 1);
  }
  v->gin[0] = kx_apply(v->s, KN_OP_constant_pad, &back, &g, 1);
}

/* Where something was put, nothing flows to what was there. `part` is what takes it from there. */
static void put_away(kn_vjp *v, kn_op put, kn_op part) {
  kn_tensor *g = v->gout[0];
  if (v->need[0]) v->gin[0] = kx_apply(v->s, put, v->attrs, (kn_tensor *[]){g, kx_single(v->s, 0, g)}, 2);
  if (v->need[1]) v->gin[1] = kv_fit(v, kx_apply(v->s, part, v->attrs, &g, 1), 1);
}

void kn_vjp_select_put(kn_vjp *v) { put_away(v, KN_OP_select_put, KN_OP_select); }
void kn_vjp_slice_put(kn_vjp *v) { put_away(v, KN_OP_slice_put, KN_OP_slice); }
void kn_vjp_strided_put(kn_vjp *v) { put_away(v, KN_OP_strided_put, KN_OP_strided); }
