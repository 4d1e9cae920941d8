/* Gradients of linear algebra (Giles, "Collected matrix derivative results", 2008; Seeger et al.,
 * "Auto-differentiating linear algebra", 2017; Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973, for pinv).
 * Written in ops that have gradients themselves, so any order can be taken. Vectors of svd and eigh are
 * defined up to their sign, and not at all where values repeat: what depends on that has no gradient, and
 * where values repeat the gradient of vectors is infinite or nan, as in PyTorch. */
#include "core/composite.h"
#include "core/grad/vjp.h"
#include "core/infer.h"

/* ---- small expressions, all on the last two dims ---- */

static kn_tensor *turned(kn_scope *s, kn_tensor *t) { return kx_transpose(s, t, -2, -1); }
static kn_tensor *product(kn_scope *s, kn_tensor *a, kn_tensor *b) { return kx_matmul(s, a, b); }
static kn_tensor *turned_product(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  return kx_matmul(s, turned(s, a), b);
}
static kn_tensor *product_turned(kn_scope *s, kn_tensor *a, kn_tensor *b) {
  return kx_matmul(s, a, turned(s, b));
}

static kn_tensor *triangle(kn_scope *s, kn_op op, kn_tensor *t, int64_t diagonal) {
  kn_attrs_diagonal at = {.diagonal = diagonal};
  return kx_with(s, op, &at, t);
}

static kn_tensor *row(kn_scope *s, kn_tensor *t) { return kx_axis(s, KN_OP_unsqueeze, t, -2); }
static kn_tensor *column(kn_scope *s, kn_tensor *t) { return kx_axis(s, KN_OP_unsqueeze, t, -1); }
/* Numbers as matrices of one element. */
static kn_tensor *scalar(kn_scope *s, kn_tensor *t) { return column(s, column(s, t)); }

/* Square matrices in the shape of `like` with d on their diagonals. */
static kn_tensor *on_diagonal(kn_scope *s, kn_tensor *d, kn_tensor *like) {
  kn_attrs_diagonal_of at = {.dim1 = -2, .dim2 = -1};
  return kx_with2(s, KN_OP_diagonal_grad, &at, d, like);
}

static kn_tensor *solve_triangular(kn_scope *s, kn_tensor *a, kn_tensor *b, bool upper, bool left) {
  kn_attrs_solve_triangular at = {.upper = upper, .left = left};
  return kx_with2(s, KN_OP_solve_triangular, &at, a, b);
}

static kn_tensor *plus(kn_scope *s, kn_tensor *a, kn_tensor *b) { return !a ? b : !b ? a : kx_add(s, a, b); }

/* ---- inverses and systems ---- */

void kn_vjp_inv(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *y = kv_out(v, 0);
  v->gin[0] = kx_neg(s, product_turned(s, turned_product(s, y, v->gout[0]), y));
}

void kn_vjp_det(kn_vjp *v) {
  kn_scope *s = v->s;
  v->gin[0] =
      kx_mul(s, scalar(s, v->gout[0]), kx_apply(s, KN_OP_cofactor, NULL, (kn_tensor *[]){kv_in(v, 0)}, 1));
}

/* The sign is constant. */
void kn_vjp_slogdet(kn_vjp *v) {
  kn_scope *s = v->s;
  if (!v->gout[1]) return;
  kn_tensor *inverse = kx_apply(s, KN_OP_inv, NULL, (kn_tensor *[]){kv_in(v, 0)}, 1);
  v->gin[0] = kx_mul(s, scalar(s, v->gout[1]), turned(s, inverse));
}

/* c = det(x) x^-T; with b = x^-T: <g, c> b - b g^T c. */
void kn_vjp_cofactor(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *c = kv_out(v, 0), *g = v->gout[0];
  kn_tensor *b = turned(s, kx_apply(s, KN_OP_inv, NULL, (kn_tensor *[]){kv_in(v, 0)}, 1));
  kn_tensor *inner = kx_sum(s, kx_mul(s, g, c), &(kn_ints){2, {-2, -1}}, true);
  v->gin[0] = kx_sub(s, kx_mul(s, inner, b), product(s, b, turned_product(s, g, c)));
}

void kn_vjp_solve(kn_vjp *v) {
  kn_scope *s = v->s;
  const kn_attrs_solve *at = v->attrs;
  kn_tensor *a = kv_in(v, 0), *x = kv_out(v, 0);
  bool vector = kn_solve_is_vector(&v->in[0]->type, &v->in[1]->type);
  if (!a || !x) return;
  kn_tensor *g = vector ? column(s, v->gout[0]) : v->gout[0];
  kn_tensor *gb = kx_with2(s, KN_OP_solve, at, turned(s, a), g);
  if (v->need[0]) {
    kn_tensor *m = vector ? column(s, x) : x;
    kn_tensor *ga = at->left ? product_turned(s, gb, m) : turned_product(s, m, gb);
    v->gin[0] = kv_fit(v, kx_neg(s, ga), 0);
  }
  if (!v->need[1]) return;
  kn_attrs_optional_axis last = {.dim = -1};
  if (vector) gb = kx_with(s, KN_OP_squeeze, &last, gb);
  v->gin[1] = kv_fit(v, gb, 1);
}

/* What is not read of a gets no gradient. */
void kn_vjp_solve_triangular(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_attrs_solve_triangular at = *(const kn_attrs_solve_triangular *)v->attrs;
  kn_tensor *a = kv_in(v, 0), *x = kv_out(v, 0);
  bool upper = at.upper;
  at.upper = !upper;
  kn_tensor *gb = kx_with2(s, KN_OP_solve_triangular, &at, turned(s, a), v->gout[0]);
  if (v->need[0]) {
    kn_tensor *ga = kx_neg(s, at.left ? product_turned(s, gb, x) : turned_product(s, x, gb));
    int64_t off = at.unitriangular ? upper ? 1 : -1 : 0;
    v->gin[0] = kv_fit(v, triangle(s, upper ? KN_OP_triu : KN_OP_tril, ga, off), 0);
  }
  if (v->need[1]) v->gin[1] = kv_fit(v, gb, 1);
}

/* ---- factors ---- */

/* The lower triangle with half its diagonal. */
static kn_tensor *half(kn_scope *s, kn_tensor *t) {
  return kx_scale(s, kx_add(s, triangle(s, KN_OP_tril, t, 0), triangle(s, KN_OP_tril, t, -1)), 0.5);
}

/* x = l l^T: l^-T half(l^T g) l^-1, made symmetric. */
void kn_vjp_cholesky(kn_vjp *v) {
  kn_scope *s = v->s;
  const kn_attrs_cholesky *at = v->attrs;
  kn_tensor *l = kv_out(v, 0), *g = v->gout[0];
  if (at->upper) l = turned(s, l), g = turned(s, g);
  kn_tensor *phi = half(s, turned_product(s, l, triangle(s, KN_OP_tril, g, 0)));
  phi = solve_triangular(s, turned(s, l), phi, true, true);
  phi = solve_triangular(s, l, phi, false, false);
  v->gin[0] = kx_scale(s, kx_add(s, phi, turned(s, phi)), 0.5);
}

/* The first `k` columns (dim -1) or rows (dim -2) of t, or those after them. */
static kn_tensor *part(kn_scope *s, kn_tensor *t, int dim, int64_t k, bool after) {
  kn_attrs_slice at = {.dim = dim, .start = after ? k : 0, .stop = after ? KN_TO_END : k, .step = 1};
  return kx_with(s, KN_OP_slice, &at, t);
}

/* Surely no more rows than columns, or no more columns than rows. */
static bool surely_not_wide(const kn_type *t) {
  int64_t m = t->dims[t->rank - 2], n = t->dims[t->rank - 1];
  return m == n ? m != KN_DIM_UNKNOWN : kn_dim_known(m) && kn_dim_known(n) && m > n;
}
static bool surely_not_tall(const kn_type *t) {
  int64_t m = t->dims[t->rank - 2], n = t->dims[t->rank - 1];
  return m == n ? m != KN_DIM_UNKNOWN : kn_dim_known(m) && kn_dim_known(n) && m < n;
}

static bool surely_tall(const kn_type *t) {
  int64_t m = t->dims[t->rank - 2], n = t->dims[t->rank - 1];
  return kn_dim_known(m) && kn_dim_known(n) && m > n;
}

/* x = q r, r square: (gq + q c) r^-T, c = r gr^T - gq^T q mirrored at its diagonal from below. */
static kn_tensor *qr_square(kn_scope *s, kn_tensor *q, kn_tensor *r, kn_tensor *gq, kn_tensor *gr) {
  kn_tensor *m = gr ? product_turned(s, r, gr) : NULL;
  if (gq) m = plus(s, m, kx_neg(s, turned_product(s, gq, q)));
  kn_tensor *low = triangle(s, KN_OP_tril, m, -1);
  kn_tensor *c = kx_add(s, triangle(s, KN_OP_tril, m, 0), turned(s, low));
  return solve_triangular(s, turned(s, r), plus(s, product(s, q, c), gq), false, false);
}

/* A wide x = (a b) = q (u w): a = q u, and b = q w, so that gb = q gw, and gq gets b gw^T. */
void kn_vjp_qr(kn_vjp *v) {
  kn_scope *s = v->s;
  const kn_attrs_qr *at = v->attrs;
  const kn_type *type = &v->in[0]->type;
  kn_tensor *q = kv_out(v, 0), *r = kv_out(v, 1), *gq = v->gout[0], *gr = v->gout[1];
  if (!q || !r) return;
  if (at->mode == KN_CHOICE_qr_mode_r) {
    kx_fail(s, kn_fail(s->ctx, KN_UNSUPPORTED, "mode 'r' has no gradient, which needs q; say 'reduced'"));
    return;
  }
  if (at->mode == KN_CHOICE_qr_mode_complete && surely_tall(type)) {
    kx_fail(s, kn_fail(s->ctx, KN_UNSUPPORTED,
                       "mode 'complete' has a gradient only when there are no more rows than columns"));
    return;
  }
  if (surely_not_wide(type)) {
    v->gin[0] = qr_square(s, q, r, gq, gr);
    return;
  }
  kn_ints k = {0};
  kx_put_sizes(s, q, q->type.rank - 1, q->type.rank, &k);
  if (s->status != KN_OK) return;
  kn_tensor *u = part(s, r, -1, k.v[0], false), *w = part(s, r, -1, k.v[0], true), *gb;
  if (gr) {
    kn_tensor *gw = part(s, gr, -1, k.v[0], true);
    gq = plus(s, gq, product_turned(s, product(s, q, w), gw));
    gb = product(s, q, gw);
    gr = part(s, gr, -1, k.v[0], false);
  } else {
    gb = kx_full_like(s, product(s, q, w), 0);
  }
  kn_attrs_axis_first join = {.dim = -1};
  v->gin[0] = kx_with2(s, KN_OP_cat, &join, qr_square(s, q, u, gq, gr), gb);
}

/* ---- values and vectors ---- */

static kn_tensor *skew(kn_scope *s, kn_tensor *t) { return kx_sub(s, t, turned(s, t)); }

/* x_j - x_i off the diagonal, 1 on it. */
static kn_tensor *differences(kn_scope *s, kn_tensor *x) {
  kn_tensor *d = kx_sub(s, row(s, x), column(s, x));
  return kx_add(s, d, on_diagonal(s, kx_full_like(s, x, 1), d));
}

/* What g has outside the space of the columns of u, divided by s. */
static kn_tensor *outside(kn_scope *s, kn_tensor *g, kn_tensor *u, kn_tensor *sv) {
  return kx_div(s, kx_sub(s, g, product(s, u, turned_product(s, u, g))), row(s, sv));
}

/* With e = differences of s²: u (skew(u^T gu) / e s + s skew(v^T gv) / e + gs) v^T, and what lies outside. */
void kn_vjp_svd(kn_vjp *v) {
  kn_scope *s = v->s;
  const kn_attrs_svd *at = v->attrs;
  const kn_type *type = &v->in[0]->type;
  kn_tensor *u = kv_out(v, 0), *sv = kv_out(v, 1), *vh = kv_out(v, 2), *inner = NULL;
  kn_tensor *gu = v->gout[0], *gs = v->gout[1], *gvh = v->gout[2];
  if (!u || !sv || !vh) return;
  if (at->full_matrices) { /* the columns beyond k are any that complete the others */
    kn_ints k = {0};
    kx_put_sizes(s, sv, sv->type.rank - 1, sv->type.rank, &k);
    if (s->status != KN_OK) return;
    u = part(s, u, -1, k.v[0], false), vh = part(s, vh, -2, k.v[0], false);
    if (gu) gu = part(s, gu, -1, k.v[0], false);
    if (gvh) gvh = part(s, gvh, -2, k.v[0], false);
  }
  kn_tensor *vv = turned(s, vh), *gv = gvh ? turned(s, gvh) : NULL;
  kn_tensor *e = gu || gv ? differences(s, kx_mul(s, sv, sv)) : NULL;
  if (gu) inner = kx_mul(s, kx_div(s, skew(s, turned_product(s, u, gu)), e), row(s, sv));
  if (gv) inner = plus(s, inner, kx_mul(s, column(s, sv), kx_div(s, skew(s, turned_product(s, vv, gv)), e)));
  if (gs)
    inner =
        plus(s, inner, on_diagonal(s, gs, inner ? inner : product_turned(s, column(s, gs), column(s, gs))));
  kn_tensor *g = product(s, product(s, u, inner), vh);
  if (gu && !surely_not_tall(type)) g = plus(s, g, product(s, outside(s, gu, u, sv), vh));
  if (gv && !surely_not_wide(type)) g = plus(s, g, product_turned(s, u, outside(s, gv, vv, sv)));
  v->gin[0] = g;
}

void kn_vjp_eigh(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *values = kv_out(v, 0), *vectors = kv_out(v, 1), *gl = v->gout[0], *gv = v->gout[1];
  if (!values || !vectors) return;
  kn_tensor *inner = gv ? turned_product(s, vectors, gv) : NULL;
  if (gv)
    inner = kx_div(
        s,
        kx_sub(s, inner,
               on_diagonal(s, /* vectors keep their length */
                           kx_with(s, KN_OP_diagonal, &(kn_attrs_diagonal_of){.dim1 = -2, .dim2 = -1}, inner),
                           inner)),
        differences(s, values));
  if (gl) inner = plus(s, inner, on_diagonal(s, gl, vectors));
  v->gin[0] = product_turned(s, product(s, vectors, inner), vectors);
}

/* With y the result, where the rank does not change: -(y^T g y^T) + (1 - x y)^T-like terms of what lies
 * outside: (1 - x y) g^T (y y^T) + (y^T y) g^T (1 - y x), all of them turned where needed. */
void kn_vjp_pinv(kn_vjp *v) {
  kn_scope *s = v->s;
  kn_tensor *x = kv_in(v, 0), *y = kv_out(v, 0), *g = v->gout[0];
  kn_tensor *gt = turned(s, g), *yt = turned(s, y);
  kn_tensor *a = product(s, gt, product(s, y, yt)); /* g^T y y^T */
  kn_tensor *b = product(s, product(s, yt, y), gt); /* y^T y g^T */
  kn_tensor *inside = product_turned(s, product(s, yt, g), y);
  a = kx_sub(s, a, product(s, x, product(s, y, a)));
  b = kx_sub(s, b, product(s, product(s, b, y), x));
  v->gin[0] = kx_sub(s, kx_add(s, a, b), inside);
}
