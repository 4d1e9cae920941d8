/* Composites: names for matrix products, each with the ranks that it takes. */
#include "core/composite.h"

static bool ranks(kn_scope *s, kn_tensor *a, int ra, kn_tensor *b, int rb, const char *sentence) {
  if (a->type.rank == ra && b->type.rank == rb) return true;
  kx_refuse(s, KN_SHAPE, sentence, a, b);
  return false;
}

static kn_tensor *product(kn_scope *s, kn_tensor *a, int ra, kn_tensor *b, int rb, const char *sentence) {
  return ranks(s, a, ra, b, rb, sentence) ? kx_matmul(s, a, b) : NULL;
}

static kn_tensor *bmm(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  if (!ranks(s, a, 3, b, 3, "two batches of matrices are needed")) return NULL;
  int64_t na = a->type.dims[0], nb = b->type.dims[0];
  if (kn_dim_known(na) && kn_dim_known(nb) && na != nb)
    return kx_refuse(s, KN_SHAPE, "the batches differ in size", a, b);
  return kx_matmul(s, a, b);
}

static kn_tensor *outer(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  if (!ranks(s, a, 1, b, 1, "two vectors are needed")) return NULL;
  return kx_mul(s, kx_axis(s, KN_OP_unsqueeze, a, 1), b);
}

/* beta c + alpha y */
static kn_tensor *added(kn_scope *s, kn_tensor *c, kn_tensor *y, const kn_attrs_addmm *a) {
  y = kx_scale_exact(s, y, a->alpha_number);
  return a->beta == 0 ? y : kx_add(s, kx_scale_exact(s, c, a->beta_number), y);
}

/* Over the last dims of both; a number scales. */
static kn_tensor *inner(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  if (a->type.rank == 0 || b->type.rank == 0) return kx_mul(s, a, b);
  if (b->type.rank == 1) return kx_matmul(s, a, b);
  kn_ints sizes = {0}, rows = {2, {-1, 0}};
  kx_put_sizes(s, a, 0, a->type.rank - 1, &sizes);
  kx_put_sizes(s, b, 0, b->type.rank - 1, &sizes);
  rows.n = 1;
  kx_put_sizes(s, b, b->type.rank - 1, b->type.rank, &rows);
  if (s->status != KN_OK) return NULL;
  kn_tensor *lines = b->type.rank == 2 ? b : kx_reshape(s, b, &rows);
  kn_tensor *y = kx_matmul(s, a, kx_transpose(s, lines, 0, 1));
  return b->type.rank == 2 ? y : kx_reshape(s, y, &sizes);
}

EXPRESSION(inner, inner(s, in[0], in[1]))
EXPRESSION(addmv, added(s, in[0], product(s, in[1], 2, in[2], 1, "a matrix and a vector are needed"), attrs))
EXPRESSION(addr, added(s, in[0], outer(s, in[1], in[2]), attrs))
EXPRESSION(baddbmm, added(s, in[0], bmm(s, in[1], in[2]), attrs))
EXPRESSION(addbmm,
           added(s, in[0], kx_reduce(s, KN_OP_sum, bmm(s, in[1], in[2]), (kn_ints){1, {0}}, false), attrs))

EXPRESSION(bmm, bmm(s, in[0], in[1]))
EXPRESSION(mm, product(s, in[0], 2, in[1], 2, "two matrices are needed"))
EXPRESSION(mv, product(s, in[0], 2, in[1], 1, "a matrix and a vector are needed"))
EXPRESSION(dot, product(s, in[0], 1, in[1], 1, "two vectors are needed"))
EXPRESSION(outer, outer(s, in[0], in[1]))
EXPRESSION(addmm, added(s, in[0], product(s, in[1], 2, in[2], 2, "two matrices are needed"), attrs))
