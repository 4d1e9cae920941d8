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

/* t, of src's shape, cut to index's. */
static kn_tensor *cut(kn_vjp *v, kn_tensor *t) {
  const kn_type *index = &v->in[1]->type, *src = &v->in[2]->type;
  for (int d = 0; d < src->rank; d++) {
    if (index->dims[d] == src->dims[d] && index->dims[d] != KN_DIM_UNKNOWN) continue;
    kn_attrs_slice at = {.dim = d, .stop = kv_size(v, 1, d), .step = 1};
    t = kx_apply(v->s, KN_OP_slice, &at, &t, 1);
  }
  return t;
}

static kn_tensor *is_zero(kn_scope *s, kn_tensor *x) { return kx_eq(s, x, kx_number(s, 0, x)); }

/* What two or more share: the folded values, and src where index names a place. */
typedef struct fold {
  kn_scope *s;
  kn_attrs_axis along;
  kn_tensor *x, *index, *src;
} fold;

static kn_tensor *fold_gather(const fold *f, kn_tensor *t) {
  return kx_apply(f->s, KN_OP_gather, &f->along, (kn_tensor *[]){t, f->index}, 2);
}
static kn_tensor *fold_count(const fold *f, kn_tensor *into, kn_tensor *flags) {
  kn_tensor *ones = flags ? kx_cast(f->s, flags, kn_tensor_dtype(f->x)) : NULL;
  return kx_apply(f->s, KN_OP_scatter_add, &f->along, (kn_tensor *[]){into, f->index, ones}, 3);
}
static kn_tensor *fold_prod(const fold *f, kn_tensor *x, kn_tensor *src) {
  const kn_attrs_scatter_fold a = {.dim = f->along.dim, .reduce = KN_CHOICE_fold_prod};
  return kx_apply(f->s, KN_OP_scatter_fold, &a, (kn_tensor *[]){x, f->index, src}, 3);
}

/* Those that are the extreme share its gradient evenly. */
static void extreme_back(kn_vjp *v, const fold *f, kn_tensor *y) {
  kn_scope *s = f->s;
  kn_tensor *here = kx_eq(s, f->x, y), *there = kx_eq(s, f->src, fold_gather(f, y));
  kn_tensor *count = here ? fold_count(f, kx_cast(s, here, kn_tensor_dtype(f->x)), there) : NULL;
  kn_tensor *g = kx_div(s, v->gout[0], count ? kx_maximum(s, count, kx_number(s, 1, count)) : NULL);
  if (!g) return;
  if (v->need[0]) v->gin[0] = kx_where(s, here, g, kx_number(s, 0, g));
  if (v->need[2]) v->gin[2] = padded(v, kx_where(s, there, fold_gather(f, g), kx_number(s, 0, g)));
}

/* The product over a factor, or where that is 0 the product of the others. */
static void prod_back(kn_vjp *v, const fold *f, kn_tensor *y) {
  kn_scope *s = f->s;
  kn_tensor *g = v->gout[0], *one = kx_number(s, 1, f->x), *zero = is_zero(s, f->src);
  if (v->need[0]) {
    kn_tensor *x = kx_where(s, is_zero(s, f->x), one, f->x);
    v->gin[0] = kx_mul(s, g, kx_div(s, fold_prod(f, x, f->src), x));
  }
  if (!v->need[2]) return;
  kn_tensor *zeros_there = fold_gather(f, fold_count(f, kx_zeros_like(s, f->x), zero));
  kn_tensor *alone = zeros_there ? kx_bitwise_and(s, zero, kx_eq(s, zeros_there, one)) : NULL;
  kn_tensor *others = fold_prod(f, f->x, kx_where(s, alone, one, f->src));
  kn_tensor *over = kx_div(s, fold_gather(f, kx_mul(s, g, y)), kx_where(s, zero, one, f->src));
  v->gin[2] = padded(v, kx_where(s, alone, fold_gather(f, kx_mul(s, g, others)), over));
}

void kn_vjp_scatter_fold(kn_vjp *v) {
  const kn_attrs_scatter_fold *a = v->attrs;
  fold f = {.s = v->s, .along = {.dim = a->dim}, .x = kv_in(v, 0), .index = kv_in(v, 1)};
  f.src = cut(v, kv_in(v, 2));
  kn_tensor *y = kv_out(v, 0);
  if (!f.x || !f.src || !y) return;
  if (a->reduce == KN_CHOICE_fold_prod)
    prod_back(v, &f, y);
  else
    extreme_back(v, &f, y);
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
