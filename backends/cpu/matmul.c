/* Matrix products of all ranks and dtypes, by the blocked product of gemm.h. Halves are computed in float32
 * and the small integers in int32, of which the result is a rounding or the lower bits. Compiled once. */
#include "backends/cpu/gemm.h"
#include "core/kernels/kernel.h"
#include <string.h>

typedef struct products {
  const kn_context *ctx;
  cp_gemm g;                                                           /* of the first batch */
  int rank;                                                            /* batch dims */
  int64_t dims[KN_MAX_RANK], a_step[KN_MAX_RANK], b_step[KN_MAX_RANK]; /* elements; 0: broadcast */
  int64_t batches, parts;
  char *room; /* for each of `parts` ranges of batches */
  size_t bytes;
} products;

static kn_dtype computed_in(kn_dtype d) {
  switch (d) {
  case KN_F16:
  case KN_BF16: return KN_F32;
  case KN_I8:
  case KN_U8:
  case KN_I16: return KN_I32;
  default: return d;
  }
}

static int64_t batch_step(const kn_tensor *t, int matrix, int rank, int d) {
  int at = d - (rank - (t->type.rank - matrix));
  return at < 0 || t->type.dims[at] == 1 ? 0 : t->strides[at];
}

/* A 1-d first operand is a row, a 1-d second one a column. */
static void set(products *p, const cp_kit *kit, const kn_tensor *a, const kn_tensor *b,
                const kn_tensor *out) {
  int ar = a->type.rank, br = b->type.rank, am = ar > 1 ? 2 : 1, bm = br > 1 ? 2 : 1;
  p->g = (cp_gemm){
      .kit = kit,
      .m = am == 2 ? a->type.dims[ar - 2] : 1,
      .k = a->type.dims[ar - 1],
      .n = bm == 2 ? b->type.dims[br - 1] : 1,
      .a = kn_tensor_data(a),
      .b = kn_tensor_data(b),
      .c = kn_tensor_data(out),
      .a_row = am == 2 ? a->strides[ar - 2] : 0,
      .a_column = a->strides[ar - 1],
      .b_row = b->strides[br - bm],
      .b_column = bm == 2 ? b->strides[br - 1] : 1,
  };
  p->g.c_row = p->g.n;
  p->rank = out->type.rank - (am == 2) - (bm == 2);
  for (int d = 0; d < p->rank; d++) {
    p->dims[d] = out->type.dims[d];
    p->a_step[d] = batch_step(a, am, p->rank, d);
    p->b_step[d] = batch_step(b, bm, p->rank, d);
  }
  /* Rows of several matrices that meet the same one are rows of one matrix. */
  while (p->rank) {
    int d = p->rank - 1;
    if (p->dims[d] != 1 && (p->b_step[d] || (p->g.m != 1 && p->a_step[d] != p->g.m * p->g.a_row))) break;
    if (p->g.m == 1) p->g.a_row = p->a_step[d];
    p->g.m *= p->dims[d];
    p->rank--;
  }
  p->batches = 1;
  for (int d = 0; d < p->rank; d++) p->batches *= p->dims[d];
}

static cp_gemm of_batch(const products *p, int64_t i) {
  cp_gemm g = p->g;
  int64_t rest = i;
  for (int d = p->rank - 1; d >= 0; d--) {
    g.a += rest % p->dims[d] * p->a_step[d] * g.kit->size;
    g.b += rest % p->dims[d] * p->b_step[d] * g.kit->size;
    rest /= p->dims[d];
  }
  g.c += i * g.m * g.n * g.kit->size;
  return g;
}

static void run_parts(void *ud, int64_t begin, int64_t end) {
  const products *p = ud;
  for (int64_t part = begin; part < end; part++)
    for (int64_t i = p->batches * part / p->parts; i < p->batches * (part + 1) / p->parts; i++) {
      cp_gemm g = of_batch(p, i);
      cp_gemm_in(p->ctx, &g, p->room + (size_t)part * p->bytes);
    }
}

/* Many matrices: each is one thread's work; a few are done one after the other. */
static kn_status run_all(kn_context *ctx, products *p) {
  if (!p->batches || !p->g.m || !p->g.n) return KN_OK;
  if (p->batches == 1) return cp_gemm_run(ctx, &p->g);
  if (p->batches < 2 * ctx->threads || p->batches < 2) {
    kn_status st = KN_OK;
    for (int64_t i = 0; i < p->batches && st == KN_OK; i++) {
      cp_gemm g = of_batch(p, i);
      st = cp_gemm_run(ctx, &g);
    }
    return st;
  }
  p->parts = 1;
  if ((double)p->batches * (double)p->g.m * (double)p->g.n * (double)p->g.k > 2 * CP_LEAST_WORK)
    p->parts = ctx->threads;
  p->bytes = (cp_gemm_room(&p->g) + 63) / 64 * 64;
  _Alignas(64) char few[8192];
  size_t bytes = p->bytes * (size_t)p->parts;
  p->room = bytes <= sizeof few ? few : kn_scratch_take(ctx, bytes);
  if (!p->room) return kn_fail_nomem(ctx, bytes);
  kn_parallel_for(ctx, p->parts, 1, run_parts, p);
  if (p->room != few) kn_scratch_give(ctx, p->room, bytes);
  return KN_OK;
}

static kn_status run(kn_context *ctx, const cp_kit *kit, const kn_tensor *a, const kn_tensor *b,
                     const kn_tensor *out) {
  products p;
  set(&p, kit, a, b, out);
  p.ctx = ctx;
  return run_all(ctx, &p);
}

kn_status cp_matmul(kn_context *ctx, const cp_kit *const kits[KN_DTYPE_COUNT], kn_tensor *const *in,
                    kn_tensor *out) {
  kn_dtype own = kn_tensor_dtype(out), wide = computed_in(own);
  if (!kits[wide]) return KN_DECLINED;
  kn_tensor *a = NULL, *b = NULL, *to = kn_tensor_retain(out);
  kn_status st = kk_cast(ctx, in[0], wide, &a);
  if (st == KN_OK) st = kk_cast(ctx, in[1], wide, &b);
  if (st == KN_OK && wide != own) {
    kn_type type = out->type;
    type.dtype = (uint8_t)wide;
    kn_tensor_release(to);
    to = NULL;
    st = kn_tensor_new(ctx, &type, &to);
  }
  if (st == KN_OK) st = run(ctx, kits[wide], a, b, to);
  if (st == KN_OK && wide != own) {
    kk_view x = kk_view_of(out), y = kk_view_of(to);
    kk_copy(ctx, &x, &y);
  }
  kn_tensor_release(a);
  kn_tensor_release(b);
  kn_tensor_release(to);
  return st;
}

/* ---- in graphs ---- */

struct cp_product {
  products p;
  int64_t strides[2][KN_MAX_RANK];
};

kn_status cp_product_new(kn_context *ctx, const cp_kit *const kits[KN_DTYPE_COUNT], kn_tensor *const *in,
                         const kn_tensor *out, cp_product **made) {
  kn_dtype dtype = kn_tensor_dtype(out);
  bool alike = kn_tensor_dtype(in[0]) == dtype && kn_tensor_dtype(in[1]) == dtype;
  if (!alike || computed_in(dtype) != dtype || !kits[dtype]) return KN_DECLINED;
  cp_product *c = kn_alloc(ctx->heap, sizeof *c);
  if (!c) return kn_fail_nomem(ctx, sizeof *c);
  set(&c->p, kits[dtype], in[0], in[1], out);
  c->p.g.way = cp_gemm_way_of(&c->p.g);
  for (int i = 0; i < 2; i++) memcpy(c->strides[i], in[i]->strides, sizeof c->strides[i]);
  *made = c;
  return KN_OK;
}

void cp_product_free(kn_context *ctx, cp_product *p) { kn_free(ctx->heap, p, sizeof *p); }

bool cp_product_fits(const cp_product *p, kn_tensor *const *in) {
  bool same = true;
  for (int i = 0; i < 2; i++)
    for (int d = 0; d < in[i]->type.rank; d++) same &= p->strides[i][d] == in[i]->strides[d];
  return same;
}

kn_status cp_product_run(kn_context *ctx, cp_product *p, kn_tensor *const *in, const kn_tensor *out) {
  p->p.ctx = ctx;
  p->p.g.a = kn_tensor_data(in[0]);
  p->p.g.b = kn_tensor_data(in[1]);
  p->p.g.c = kn_tensor_data(out);
  return run_all(ctx, &p->p);
}
