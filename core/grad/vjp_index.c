/* Gradients of joining, picking and putting elements. */
#include "core/grad/vjp.h"

/* ---- cat and stack: each input gets its part of the gradient ---- */

static kn_tensor *part(kn_scope *s, kn_tensor *t, int64_t dim, int64_t start, int64_t stop) {
  kn_attrs_slice at = {.dim = dim, .start = start, .stop = stop, .step = 1};
  return kx_apply(s, KN_OP_slice, &at, &t, 1);
}

/* Cuts from the front of what is left, so that sizes need not be added up: they may be graph values. */
static void cut_front(kn_vjp *v, int dim) {
  kn_tensor *rest = v->gout[0];
  for (int i = 0; i < v->n && rest; i++) {
    int64_t size = kv_size(v, i, dim);
    if (v->need[i]) v->gin[i] = part(v->s, rest, dim, 0, size);
    if (i + 1 < v->n) rest = part(v->s, rest, dim, size, KN_TO_END);
  }
}

void kn_vjp_cat(kn_vjp *v) {
  const kn_attrs_axis_first *at = v->attrs;
  int rank = v->out[0]->type.rank, dim = (int)(at->dim < 0 ? at->dim + rank : at->dim);
  int64_t start = 0;
  for (int i = 0; i < v->n; i++)
    if (!kn_dim_known(v->in[i]->type.dims[dim])) {
      cut_front(v, dim);
      return;
    }
  for (int i = 0; i < v->n; i++) {
    int64_t stop = start + v->in[i]->type.dims[dim];
    if (v->need[i]) v->gin[i] = part(v->s, v->gout[0], dim, start, stop);
    start = stop;
  }
}

void kn_vjp_stack(kn_vjp *v) {
  const kn_attrs_axis_first *at = v->attrs;
  for (int i = 0; i < v->n; i++) {
    kn_attrs_select one = {.dim = at->dim, .index = i};
    if (v->need[i]) v->gin[i] = kx_apply(v->s, KN_OP_select, &one, v->gout, 1);
  }
}

/* ---- by index: x, index, and for the putting ops src ---- */

static kn_tensor *zeros(kn_vjp *v, int like) { return kx_full_like(v->s, kv_like(v, like), 0); }

static kn_tensor *pick(kn_vjp *v, kn_op op) {
  return kx_apply(v->s, op, v->attrs, (kn_tensor *[]){v->gout[0], kv_in(v, 1)}, 2);
}

static kn_tensor *put(kn_vjp *v, kn_op op, kn_tensor *into, kn_tensor *src) {
  return kx_apply(v->s, op, v->attrs, (kn_tensor *[]){into, kv_in(v, 1), src}, 3);
}

void kn_vjp_gather(kn_vjp *v) { v->gin[0] = put(v, KN_OP_scatter_add, zeros(v, 0), v->gout[0]); }
void kn_vjp_index_select(kn_vjp *v) { v->gin[0] = put(v, KN_OP_index_add, zeros(v, 0), v->gout[0]); }

/* index may be smaller than src, whose rest is not used: t, of index's shape, with zeros for the rest. */
static kn_tensor *padded(kn_vjp *v, kn_tensor *t) {
  kn_tensor *corner[KN_MAX_RANK];
  kn_attrs_slice at[KN_MAX_RANK];
  const kn_type *index = &v->in[1]->type, *src = &v->in[2]->type;
  kn_tensor *c = kv_like(v, 2);
  for (int d = 0; d < src->rank; d++) {
    if (index->dims[d] == src->dims[d] && index->dims[d] != KN_DIM_UNKNOWN) continue;
    at[d] = (kn_attrs_slice){.dim = d, .stop = kv_size(v, 1, d), .step = 1};
    corner[d] = c;
    c = kx_apply(v->s, KN_OP_slice, &at[d], &c, 1);
  }
  for (int d = src->rank - 1; d >= 0; d--)
    if (index->dims[d] != src->dims[d] || index->dims[d] == KN_DIM_UNKNOWN)
      t = kx_apply(v->s, KN_OP_slice_grad, &at[d], (kn_tensor *[]){t, corner[d]}, 2);
  return t;
}

/* Where something was put, nothing flows to what was there. */
void kn_vjp_scatter(kn_vjp *v) {
  if (v->need[0])
    v->gin[0] = put(v, KN_OP_scatter, v->gout[0],
                    kx_cast(v->s, kx_full_like(v->s, kv_in(v, 1), 0), kn_tensor_dtype(v->gout[0])));
  if (v->need[2]) v->gin[2] = padded(v, pick(v, KN_OP_gather));
}

void kn_vjp_scatter_add(kn_vjp *v) {
  if (v->need[0]) v->gin[0] = v->gout[0];
  if (v->need[2]) v->gin[2] = padded(v, pick(v, KN_OP_gather));
}

void kn_vjp_index_add(kn_vjp *v) {
  if (v->need[0]) v->gin[0] = v->gout[0];
  if (v->need[2]) v->gin[2] = pick(v, KN_OP_index_select);
}

void kn_vjp_index_copy(kn_vjp *v) {
  if (v->need[0]) v->gin[0] = put(v, KN_OP_index_copy, v->gout[0], zeros(v, 2));
  if (v->need[2]) v->gin[2] = pick(v, KN_OP_index_select);
}

/* The values' gradient goes back to where they came from. */
void kn_vjp_sort(kn_vjp *v) {
  const kn_attrs_sort *at = v->attrs;
  kn_attrs_axis along = {.dim = at->dim};
  if (v->gout[0])
    v->gin[0] =
        kx_apply(v->s, KN_OP_scatter, &along, (kn_tensor *[]){zeros(v, 0), kv_out(v, 1), v->gout[0]}, 3);
}

/* What was there is gone, so nothing flows to it. */
void kn_vjp_copy_(kn_vjp *v) {
  if (v->need[1]) v->gin[1] = kv_fit(v, v->gout[0], 1);
}
