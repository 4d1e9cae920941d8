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

static kn_tensor *addmm(kn_scope *s, kn_tensor *const *in, const kn_attrs_addmm *a) {
  kn_tensor *y = kx_scale(s, product(s, in[1], 2, in[2], 2, "two matrices are needed"), a->alpha);
  return a->beta == 0 ? y : kx_add(s, kx_scale(s, in[0], a->beta), y);
}

static kn_tensor *outer(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  if (!ranks(s, a, 1, b, 1, "two vectors are needed")) return NULL;
  return kx_mul(s, kx_axis(s, KN_OP_unsqueeze, a, 1), b);
}

EXPRESSION(bmm, bmm(s, in[0], in[1]))
EXPRESSION(mm, product(s, in[0], 2, in[1], 2, "two matrices are needed"))
EXPRESSION(mv, product(s, in[0], 2, in[1], 1, "a matrix and a vector are needed"))
EXPRESSION(dot, product(s, in[0], 1, in[1], 1, "two vectors are needed"))
EXPRESSION(outer, outer(s, in[0], in[1]))
EXPRESSION(addmm, addmm(s, in, attrs))
