/* Finding what joins a product or convolution, and running it: see joined.h. */
#include "backends/cuda/joined.h"
#include "backends/cuda/blas.h"
#include "backends/cuda/chain.h"
#include "backends/cuda/conv.h"
#include <string.h>

/* ---- which nodes ---- */

typedef struct search {
  const kn_part *part;
  const kn_node *const *next;
  const kn_node *const *end;
  cu_joined *j;
} search;

static const kn_type *type_of(const search *s, const kn_value *v) { return &s->part->types[v->id]; }

static bool same_type(const kn_type *a, const kn_type *b) {
  return a->device == b->device && kn_type_equal(a, b);
}

/* The next node, if it is this op, all of its result lies apart, and it alone reads what there is so far. */
static const kn_node *next(const search *s, kn_op op) {
  const kn_node *n = s->next < s->end ? *s->next : NULL;
  if (!n || n->op != op || s->part->reads[s->j->out] != 1) return NULL;
  const uint32_t v = n->out[0]->id;
  return s->part->root[v] == v && same_type(type_of(s, n->out[0]), &s->part->types[s->j->out]) ? n : NULL;
}

static void take(search *s, const kn_node *n) {
  s->part->room[s->j->out] = KN_ROOM_NONE;
  s->j->out = n->out[0]->id;
  s->j->n++;
  s->next++;
}

/* add of what there is so far and something else, which is given back. */
static const kn_value *find_add(const search *s, const kn_node **n) {
  *n = next(s, KN_OP_add);
  if (!*n) return NULL;
  const bool turned = (*n)->in[1]->id == s->j->out;
  const kn_value *other = (*n)->in[!turned];
  return (*n)->in[turned]->id == s->j->out && other->id != s->j->out ? other : NULL;
}

/* One number for each column of the result. */
static bool is_row(const search *s, const kn_value *v) {
  const kn_type *t = type_of(s, v), *out = &s->part->types[s->j->out];
  const int64_t n = out->dims[out->rank - 1];
  return t->rank && t->device == out->device && t->dtype == out->dtype && t->dims[t->rank - 1] == n &&
         kn_type_numel(t) == n;
}

static void find_relu(search *s) {
  const kn_node *n = next(s, KN_OP_relu);
  if (!n) return;
  s->j->relu = true;
  take(s, n);
}

static void find_product(search *s) {
  const kn_node *n;
  const kn_value *bias = find_add(s, &n);
  if (bias && is_row(s, bias)) {
    s->j->bias = bias->id;
    take(s, n);
  }
  find_relu(s);
}

static void find_conv(search *s) {
  const kn_node *n;
  const kn_value *other = find_add(s, &n);
  if (s->j->main->ntensor > 2) s->j->bias = s->j->main->in[2]->id;
  if (other && same_type(type_of(s, other), &s->part->types[s->j->out])) {
    s->j->add = other->id;
    take(s, n);
  }
  find_relu(s);
}

static bool is_conv(uint32_t op) {
  return op == KN_OP_conv2d || op == KN_OP_conv2d_grad_input || op == KN_OP_conv2d_grad_weight;
}

static bool leads(const search *s, const kn_node *n) {
  const kn_type *t = type_of(s, n->out[0]);
  char why[64];
  if ((n->op != KN_OP_matmul && !is_conv(n->op)) || t->device != KN_CUDA) return false;
  if (!kn_node_static(n, s->part->types, why, sizeof why) || !kn_type_numel(t)) return false;
  if (t->dtype != KN_F32 && t->dtype != KN_F16 && t->dtype != KN_BF16) return false;
  for (uint32_t i = 0; i < n->ntensor; i++)
    if (type_of(s, n->in[i])->dtype != t->dtype) return false;
  return s->part->root[n->out[0]->id] == n->out[0]->id;
}

void cu_joined_find(const kn_part *part, uint32_t first, cu_joined *out) {
  const kn_node *n = part->nodes[first];
  search s = {part, part->nodes + first + 1, part->nodes + part->n, out};
  *out = (cu_joined){.main = n};
  if (!leads(&s, n)) return;
  out->out = n->out[0]->id;
  out->n = 1;
  if (n->op == KN_OP_conv2d)
    find_conv(&s);
  else if (n->op == KN_OP_matmul && type_of(&s, n->out[0])->rank >= 2 && type_of(&s, n->in[1])->rank == 2)
    find_product(&s); /* epilogues are of single products */
  if (out->n > 1) part->together[first] = out->n;
}

/* ---- runs ---- */

/* What the library has left: over the result, where it lies. */
static kn_status finish(kn_context *ctx, cu_device *d, const kn_tensor *out, const kn_tensor *with,
                        bool relu) {
  cu_chain c = {.rank = out->type.rank};
  memcpy(c.dims, out->type.dims, sizeof c.dims);
  int x = cu_chain_input(&c, out);
  const kn_dtype dtype = kn_tensor_dtype(out);
  if (with) x = cu_chain_step(&c, KN_OP_add, NULL, (int[]){x, cu_chain_input(&c, with)}, 2, dtype, dtype);
  if (relu) x = cu_chain_step(&c, KN_OP_relu, NULL, &x, 1, dtype, dtype);
  cu_chain_output(&c, x, out);
  return with || relu ? cu_chain_run(ctx, d, &c) : KN_OK;
}

/* But for addresses. */
static cu_product product_of(const cu_joined *j, cu_view a, cu_view b, const kn_type *out) {
  cu_product p;
  cu_product_of(&p, a, b, out);
  p.epilogue = (j->bias ? CUBLASLT_EPILOGUE_BIAS : 0) | (j->relu ? CUBLASLT_EPILOGUE_RELU : 0);
  p.planned = true;
  return p;
}

static cu_conv_kind kind_of(const kn_node *n) {
  return n->op == KN_OP_conv2d              ? CU_CONV_FORWARD
         : n->op == KN_OP_conv2d_grad_input ? CU_CONV_GRAD_INPUT
                                            : CU_CONV_GRAD_WEIGHT;
}

static void tune_conv(kn_context *ctx, cu_device *d, const cu_joined *j, const cu_view *in, cu_view out) {
  enum { THERE = 256 };
  const cu_conv_kind kind = kind_of(j->main);
  const cu_view x = kind == CU_CONV_FORWARD      ? in[0]
                    : kind == CU_CONV_GRAD_INPUT ? out
                                                 : in[1],
                w = kind == CU_CONV_GRAD_WEIGHT ? out : in[1], y = kind == CU_CONV_FORWARD ? out : in[0];
  const cu_conv_data at = {THERE, THERE, THERE, j->bias ? THERE : 0, j->add ? THERE : 0};
  cu_conv c;
  if (x.type->rank != 4) return;
  cu_conv_of(&c, kind, j->main->attrs, x, w, y, &at);
  c.relu = j->relu;
  cu_conv_tune(ctx, d, &c);
}

void cu_joined_tune(kn_context *ctx, cu_device *d, const cu_joined *j, const kn_type *types) {
  int64_t strides[3][KN_MAX_RANK];
  cu_view in[2];
  const cu_view out = {&types[j->out], strides[2]};
  for (int i = 0; i < 2; i++) {
    kn_guess_strides(j->main->in[i], types, strides[i]);
    in[i] = (cu_view){&types[j->main->in[i]->id], strides[i]};
  }
  kn_strides_contiguous(out.type, strides[2]);
  if (is_conv(j->main->op)) {
    tune_conv(ctx, d, j, in, out);
    return;
  }
  cu_product p = product_of(j, in[0], in[1], out.type);
  p.bias = j->bias != 0;
  cu_blas_tune(ctx, d, &p);
}

static kn_status run_product(kn_context *ctx, cu_device *d, const cu_joined *j, kn_tensor *const *vals,
                             const char **how) {
  const kn_tensor *a = vals[j->main->in[0]->id], *b = vals[j->main->in[1]->id], *out = vals[j->out],
                  *bias = j->bias ? vals[j->bias] : NULL;
  cu_product p = product_of(j, cu_view_of(a), cu_view_of(b), &out->type);
  p.a.at = cu_address(a), p.b.at = cu_address(b), p.c = cu_address(out);
  p.bias = bias ? cu_address(bias) : 0;
  *how = j->n > 1 ? "cublasLt, one call" : "cuda";
  const int last = bias ? bias->type.rank - 1 : 0;
  kn_status st = bias && p.n > 1 && bias->strides[last] != 1 ? KN_DECLINED : cu_product_run(ctx, d, &p);
  if (st != KN_DECLINED) return st;
  *how = "a product and a kernel";
  p.epilogue = 0, p.bias = 0;
  KN_TRY(cu_product_run(ctx, d, &p));
  return finish(ctx, d, out, bias, j->relu);
}

static kn_status run_conv(kn_context *ctx, cu_device *d, const cu_joined *j, kn_tensor *const *vals,
                          const char **how) {
  kn_tensor *out = vals[j->out], *add = j->add ? vals[j->add] : NULL;
  const cu_conv_with with = {j->bias ? vals[j->bias] : NULL, add, j->relu, true};
  bool whole;
  if (kind_of(j->main) != CU_CONV_FORWARD) {
    kn_tensor *in[] = {vals[j->main->in[0]->id], vals[j->main->in[1]->id]};
    *how = "cuda";
    return cu_conv_gradient(ctx, kind_of(j->main), j->main->attrs, in, out, true);
  }
  KN_TRY(cu_conv_forward(ctx, d, j->main->attrs, vals[j->main->in[0]->id], vals[j->main->in[1]->id], out,
                         &with, &whole));
  *how = j->n == 1 ? "cuda" : whole ? "cuDNN, one plan" : "a convolution and a kernel";
  return whole ? KN_OK : finish(ctx, d, out, add, j->relu);
}

kn_status cu_joined_run(kn_context *ctx, cu_device *d, const cu_joined *j, kn_tensor *const *vals,
                        const char **how) {
  return j->main->op == KN_OP_matmul ? run_product(ctx, d, j, vals, how) : run_conv(ctx, d, j, vals, how);
}
