/* What the machine reaches at its best: a large matrix product and a large copy, by the same kernels as eager
 * ops. Each is repeated until it takes long enough to be timed, and the fastest of a few counts. */
#include "core/dispatch.h"
#include "graph/profile.h"

enum { TIMES = 5, MOST_TIMES = 20, FIRST_SIDE = 256, LAST_SIDE = 2048, COPIED = 8 << 20 };
static const double long_enough = 4e-3; /* seconds of one product */

static kn_status matrix(kn_context *ctx, int64_t rows, int64_t columns, kn_tensor **out) {
  kn_type t = {.dtype = KN_F32, .rank = 2, .dims = {rows, columns}};
  KN_TRY(kn_tensor_new(ctx, &t, out));
  float *x = kn_tensor_data(*out);
  for (int64_t i = 0; i < rows * columns; i++) x[i] = (float)(i % 7) * 0.25f - 0.5f;
  return KN_OK;
}

/* Seconds of the fastest of at least `times` runs of an op, and of more where that takes no time. */
static kn_status fastest(kn_context *ctx, kn_op op, kn_tensor **in, int times, double *best) {
  double first = kn_profile_clock(), end = first;
  for (int i = 0; i < times || (i < MOST_TIMES && end - first < times * long_enough); i++) {
    kn_tensor *out;
    double start = kn_profile_clock();
    KN_TRY(kn_apply(ctx, op, NULL, in, 2, &out));
    end = kn_profile_clock();
    kn_tensor_release(out);
    if (!i || end - start < *best) *best = end - start;
  }
  return KN_OK;
}

static kn_status product(kn_context *ctx, int64_t side, double *seconds) {
  kn_tensor *in[2] = {NULL, NULL};
  kn_status st = matrix(ctx, side, side, &in[0]);
  if (st == KN_OK) st = matrix(ctx, side, side, &in[1]);
  if (st == KN_OK) st = fastest(ctx, KN_OP_matmul, in, 2, seconds); /* the first opens what it needs */
  if (st == KN_OK && (*seconds >= long_enough || side == LAST_SIDE)) {
    double again;
    st = fastest(ctx, KN_OP_matmul, in, TIMES, &again);
    if (st == KN_OK && again < *seconds) *seconds = again;
  }
  kn_tensor_release(in[0]);
  kn_tensor_release(in[1]);
  return st;
}

static kn_status copy(kn_context *ctx, double *seconds) {
  kn_tensor *in[2] = {NULL, NULL};
  kn_status st = matrix(ctx, 1, COPIED, &in[0]);
  if (st == KN_OK) st = matrix(ctx, 1, COPIED, &in[1]);
  if (st == KN_OK) st = fastest(ctx, KN_OP_copy_, in, TIMES, seconds);
  kn_tensor_release(in[0]);
  kn_tensor_release(in[1]);
  return st;
}

static kn_status measure(kn_context *ctx, kn_peaks *peaks) {
  double took = 0;
  int64_t side = FIRST_SIDE;
  for (;; side *= 2) {
    KN_TRY(product(ctx, side, &took));
    if (took >= long_enough || side == LAST_SIDE) break;
  }
  peaks->flops = 2 * (double)side * (double)side * (double)side / took;
  KN_TRY(copy(ctx, &took));
  peaks->bytes = 2 * 4 * (double)COPIED / took;
  peaks->threads = ctx->threads;
  return KN_OK;
}

kn_status kn_peaks_measure(kn_context *ctx) {
  if (ctx->peaks.threads == ctx->threads) return KN_OK;
  kn_peaks peaks;
  bool grad = ctx->grad_enabled;
  kn_recorder *recorder = ctx->recorder;
  ctx->grad_enabled = false;
  ctx->recorder = NULL;
  kn_status st = measure(ctx, &peaks);
  ctx->grad_enabled = grad;
  ctx->recorder = recorder;
  if (st == KN_OK) ctx->peaks = peaks;
  return st;
}
