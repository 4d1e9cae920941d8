/* Composites: tensors put side by side, and elements put on diagonals. */
#include "core/composite.h"

/* ---- at least so many dims ---- */

static kn_tensor *unsqueezed(kn_scope *s, kn_tensor *x, int dim) {
  return kx_axis(s, KN_OP_unsqueeze, x, dim);
}

/* A list becomes a row; of a matrix the third dim is new. */
static kn_tensor *at_least(kn_scope *s, kn_tensor *x, int rank) {
  if (x && x->type.rank >= rank) return kx_reshape_as(s, x, x);
  if (x && x->type.rank == 0 && rank >= 1) x = unsqueezed(s, x, 0);
  if (x && x->type.rank == 1 && rank >= 2) x = unsqueezed(s, x, 0);
  if (x && x->type.rank == 2 && rank >= 3) x = unsqueezed(s, x, 2);
  return x;
}
EXPRESSION(atleast_1d, at_least(s, in[0], 1))
EXPRESSION(atleast_2d, at_least(s, in[0], 2))
EXPRESSION(atleast_3d, at_least(s, in[0], 3))

/* ---- stacks ---- */

static kn_tensor *joined(kn_scope *s, kn_tensor *const *in, int n, int rank, int dim) {
  kn_tensor *part[KN_MAX_INPUTS];
  kn_attrs_axis_first at = {.dim = dim};
  for (int i = 0; i < n; i++) {
    part[i] = at_least(s, in[i], rank);
    if (!part[i]) return NULL;
  }
  return kx_apply(s, KN_OP_cat, &at, part, n);
}
EXPRESSION(hstack, joined(s, in, n, 1, in[0]->type.rank < 2 ? 0 : 1))
EXPRESSION(vstack, joined(s, in, n, 2, 0))
EXPRESSION(dstack, joined(s, in, n, 3, 2))

/* A list is a column. */
static kn_tensor *column_stack(kn_scope *s, kn_tensor *const *in, int n) {
  kn_tensor *part[KN_MAX_INPUTS];
  const kn_ints column = {2, {-1, 1}};
  kn_attrs_axis_first at = {.dim = 1};
  for (int i = 0; i < n; i++) {
    part[i] = in[i]->type.rank < 2 ? kx_reshape(s, in[i], &column) : in[i];
    if (!part[i]) return NULL;
  }
  return kx_apply(s, KN_OP_cat, &at, part, n);
}
EXPRESSION(column_stack, column_stack(s, in, n))

/* ---- blocks ---- */

/* Each block is padded on its right, the rows so far on theirs: sizes of one are amounts of the other. */
static kn_tensor *block_diag(kn_scope *s, kn_tensor *const *in, int n) {
  kn_tensor *all = NULL;
  for (int i = 0; i < n; i++) {
    if (in[i]->type.rank > 2) return kx_refuse(s, KN_SHAPE, "blocks have at most two dims", in[i], NULL);
    kn_tensor *block = at_least(s, in[i], 2);
    if (!all || !block) {
      all = block;
      continue;
    }
    kn_ints left = {0}, right = {0};
    kx_put_sizes(s, all, 1, 2, &left);
    kx_put_sizes(s, block, 1, 2, &right);
    if (s->status != KN_OK) return NULL;
    kn_attrs_constant_pad after = {.pad = {2, {0, right.v[0]}}}, before = {.pad = {2, {left.v[0], 0}}};
    kn_tensor *rows[] = {kx_with(s, KN_OP_constant_pad, &after, all),
                         kx_with(s, KN_OP_constant_pad, &before, block)};
    kn_attrs_axis_first down = {.dim = 0};
    all = kx_apply(s, KN_OP_cat, &down, rows, 2);
  }
  return n == 1 ? kx_with(s, KN_OP_clone, NULL, all) : all;
}
EXPRESSION(block_diag, block_diag(s, in, n))

/* ---- diagonals ---- */

/* The last dim on the diagonal of two new ones: [*, n] beside [*, n, n] that the gradient of diagonal fills,
 * padded to the offset, then the dims to where they belong. */
static kn_tensor *diag_embed(kn_scope *s, kn_tensor *x, const kn_attrs_embed *a) {
  if (!x) return NULL;
  int rank = x->type.rank;
  if (rank == 0) return kx_refuse(s, KN_SHAPE, "at least one dim is needed", x, NULL);
  if (kn_is_dyn(a->offset)) return kx_refuse(s, KN_ARG, "offset must be known while recording", x, NULL);
  int dim1 = kx_dim(s, a->dim1, rank + 1), dim2 = kx_dim(s, a->dim2, rank + 1);
  if (s->status == KN_OK && dim1 == dim2) return kx_refuse(s, KN_ARG, "the two dims must differ", x, NULL);
  kn_ints sizes = {0};
  kx_put_sizes(s, x, 0, rank, &sizes);
  kx_put_sizes(s, x, rank - 1, rank, &sizes);
  kn_tensor *wide = unsqueezed(s, x, rank - 1),
            *like = s->status == KN_OK ? kx_expand(s, wide, &sizes) : NULL;
  kn_attrs_diagonal_of on = {.dim1 = rank - 1, .dim2 = rank};
  kn_tensor *square = kx_with2(s, KN_OP_diagonal_grad, &on, x, like);
  int64_t right = a->offset > 0 ? a->offset : 0, down = a->offset < 0 ? -a->offset : 0;
  kn_attrs_constant_pad by = {.pad = {4, {right, down, down, right}}};
  if (a->offset) square = kx_with(s, KN_OP_constant_pad, &by, square);
  kn_attrs_movedim to = {.source = {2, {rank - 1, rank}}, .destination = {2, {dim1, dim2}}};
  return kx_with(s, KN_OP_movedim, &to, square);
}
EXPRESSION(diag_embed, diag_embed(s, in[0], attrs))

static kn_tensor *diagflat(kn_scope *s, kn_tensor *x, const kn_attrs_offset *a) {
  const kn_ints line = {1, {-1}};
  const kn_attrs_embed on = {.offset = a->offset, .dim1 = 0, .dim2 = 1};
  return diag_embed(s, kx_reshape(s, x, &line), &on);
}
EXPRESSION(diagflat, diagflat(s, in[0], attrs))

/* Coordinates in a triangle: [2, count], 1-based. */
static kn_tensor *triangle(kn_scope *s, kn_op op, const kn_attrs_triangle_indices *a) {
  const kn_attrs_fill ones = {
      .sizes = {2, {a->row, a->col}}, .value = 1, .dtype = KN_BOOL, .device = a->device};
  const kn_attrs_diagonal at = {.diagonal = a->offset};
  if ((!kn_is_dyn(a->row) && a->row < 0) || (!kn_is_dyn(a->col) && a->col < 0))
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "row and col must not be negative"));
  return kx_transpose(s, kx_nonzero(s, kx_with(s, op, &at, kx_apply(s, KN_OP_full, &ones, NULL, 0))), 0, 1);
}
#define INDICES(name, op)                                                                                    \
  COMPOSITE(name) {                                                                                          \
    kn_scope s;                                                                                              \
    (void)in, (void)n;                                                                                       \
    kn_scope_open(&s, ctx);                                                                                  \
    kn_tensor *r = triangle(&s, op, attrs);                                                                  \
    return kn_scope_close(&s, r, out);                                                                       \
  }
INDICES(tril_indices, KN_OP_tril)
INDICES(triu_indices, KN_OP_triu)

/* ---- a part replaced ---- */

/* x where the gradient of `view` puts nothing, else src, which has the shape of the view. */
static kn_tensor *scattered(kn_scope *s, kn_op view, kn_op spread, const void *attrs, kn_tensor *x,
                            kn_tensor *src) {
  kn_tensor *part = kx_with(s, view, attrs, x);
  if (!part || !src) return NULL;
  if (src->type.rank != part->type.rank)
    return kx_refuse(s, KN_SHAPE, "src must have the shape of the part that it replaces", x, src);
  src = kx_cast(s, kx_expand_as(s, src, part), kn_tensor_dtype(x));
  kn_tensor *mask = kx_with2(s, spread, attrs, kx_full_like(s, part, 1), x);
  return kx_where(s, kx_cast(s, mask, KN_BOOL), kx_with2(s, spread, attrs, src, x), x);
}
EXPRESSION(select_scatter, scattered(s, KN_OP_select, KN_OP_select_grad, attrs, in[0], in[1]))
EXPRESSION(diagonal_scatter, scattered(s, KN_OP_diagonal, KN_OP_diagonal_grad, attrs, in[0], in[1]))

/* ---- order ---- */

static kn_tensor *flipped(kn_scope *s, kn_tensor *x, int dim) {
  if (x->type.rank <= dim) return kx_refuse(s, KN_SHAPE, "there are not enough dims", x, NULL);
  const kn_attrs_axes at = {.dims = {1, {dim}}};
  return kx_with(s, KN_OP_flip, &at, x);
}
EXPRESSION(fliplr, flipped(s, in[0], 1))
EXPRESSION(flipud, flipped(s, in[0], 0))

/* Quarter turns in the plane of two dims, from the first to the second. */
static kn_tensor *rot90(kn_scope *s, kn_tensor *x, const kn_attrs_rot90 *a) {
  kn_ints plane = a->dims.n ? a->dims : (kn_ints){2, {0, 1}};
  if (plane.n != 2 || x->type.rank < 2) return kx_refuse(s, KN_ARG, "two dims are needed", x, NULL);
  if (kn_is_dyn(a->k)) return kx_refuse(s, KN_ARG, "k must be known while recording", x, NULL);
  int d0 = kx_dim(s, plane.v[0], x->type.rank), d1 = kx_dim(s, plane.v[1], x->type.rank);
  if (s->status == KN_OK && d0 == d1) return kx_refuse(s, KN_ARG, "the two dims must differ", x, NULL);
  int turns = (int)((a->k % 4 + 4) % 4);
  const kn_attrs_axes both = {.dims = {2, {d0, d1}}}, second = {.dims = {1, {d1}}};
  if (turns == 0) return kx_with(s, KN_OP_clone, NULL, x);
  if (turns == 2) return kx_with(s, KN_OP_flip, &both, x);
  return turns == 1 ? kx_transpose(s, kx_with(s, KN_OP_flip, &second, x), d0, d1)
                    : kx_with(s, KN_OP_flip, &second, kx_transpose(s, x, d0, d1));
}
EXPRESSION(rot90, rot90(s, in[0], attrs))

static kn_tensor *ravel(kn_scope *s, kn_tensor *x) {
  const kn_ints line = {1, {-1}}, none = {1, {0}};
  return kx_reshape(s, x, kn_tensor_numel(x) == 0 ? &none : &line);
}
EXPRESSION(ravel, ravel(s, in[0]))

static kn_tensor *unflatten(kn_scope *s, kn_tensor *x, const kn_attrs_unflatten *a) {
  int rank = x->type.rank, dim = kx_dim(s, a->dim, rank);
  kn_ints sizes = {0};
  if (rank == 0) return kx_refuse(s, KN_SHAPE, "at least one dim is needed", x, NULL);
  kx_put_sizes(s, x, 0, dim, &sizes);
  for (int i = 0; i < a->sizes.n; i++) kx_put_size(s, a->sizes.v[i], &sizes);
  kx_put_sizes(s, x, dim + 1, rank, &sizes);
  return s->status == KN_OK ? kx_reshape(s, x, &sizes) : NULL;
}
EXPRESSION(unflatten, unflatten(s, in[0], attrs))
