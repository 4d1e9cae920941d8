/* The eager kernels: each call finds its primitive in the cache of the state. */
#include "backends/onednn/call.h"
#include "backends/onednn/onednn.h"
#include "backends/registry.h"
#include "core/infer.h"

static kn_status compute(dn_state *s, kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in,
                         int n, kn_tensor *out, char *why, size_t size) {
  if (n > DN_MAX_IN) return KN_DECLINED;
  dn_view views[DN_MAX_IN];
  for (int i = 0; i < n; i++) views[i] = (dn_view){&in[i]->type, in[i]->strides};
  dn_call c;
  KN_TRY(dn_call_prepare(s, ctx, op, attrs, views, n, &out->type, &c, why, size));
  kn_status st = dn_call_run(ctx, &c, in, out, NULL, why, size);
  dn_call_drop(&c);
  return st;
}

/* ---- what other backends do better ---- */

bool dn_offered_elsewhere(const kn_context *ctx, kn_op op) {
  for (int i = 0; i < KN_MAX_PROVIDERS && ctx->providers[KN_CPU][i]; i++) {
    const kn_provider *p = ctx->providers[KN_CPU][i];
    if (p != &dn_provider && p != &kn_ref_provider && p->kernel[op]) return true;
  }
  return false;
}

enum {
  SMALL_PRODUCT = 1 << 13,
  FEW_ROWS = 8,
  FEW_COLUMNS = 4,
  FEW_PLACES = 64,
  SOME_IMAGES = 4,
  SMALL_CONV = 1 << 18,
  MOST_TAPS = 64,
  FAR_APART = 8
};

/* A call of oneDNN costs more than a small product, and products with few rows or columns wait for memory: it
 * reads matrices that lie along the sum, as weights do, at half the speed of plain dot products. */
static bool small_or_thin(const dn_view *a, const dn_view *b) {
  int ar = a->type->rank, br = b->type->rank;
  if (!ar || !br) return false;
  int64_t k = a->type->dims[ar - 1], m = ar > 1 ? a->type->dims[ar - 2] : 1,
          n = br > 1 ? b->type->dims[br - 1] : 1;
  if (br < 3 && k) m = kn_type_numel(a->type) / k;
  if (m * n * k <= SMALL_PRODUCT) return true;
  bool b_along = br < 2 || b->strides[br - 2] == 1, b_across = br < 2 || b->strides[br - 1] == 1;
  if (m <= FEW_ROWS) return b_across || (b_along && a->strides[ar - 1] == 1);
  return n <= FEW_COLUMNS && b_along && a->strides[ar - 1] == 1;
}

/* Taps of one element at the few places of each of several images: places of all of them make one product. */
static bool deep_layer(const kn_attrs_conv2d *a, const kn_type *x, const kn_type *w) {
  for (int i = 0; i < 2; i++)
    if (w->dims[2 + i] != 1 || kn_ints_at(&a->padding, i)) return false;
  return a->groups == 1 && x->dims[0] >= SOME_IMAGES &&
         x->dims[2] * x->dims[3] < FEW_PLACES * kn_ints_at(&a->stride, 0) * kn_ints_at(&a->stride, 1);
}

/* Filters that oneDNN would not reorder for so few places: its product of windows takes up to twice as long,
 * and the first of a process 20 ms more, in which it makes the code of products of all kinds. Not what the
 * CPU backend declines, as nobody but the reference would compute it. */
static bool small_conv(const kn_attrs_conv2d *a, const kn_type *x, const kn_type *w) {
  int64_t taps = w->dims[2] * w->dims[3], filters = w->dims[0], k = w->dims[1] * taps, places = x->dims[0];
  for (int i = 0; i < 2; i++) {
    const int64_t stride = kn_ints_at(&a->stride, i),
                  span = kn_ints_at(&a->dilation, i) * (w->dims[2 + i] - 1);
    if (stride > FAR_APART) return false;
    places *= (x->dims[2 + i] + 2 * kn_ints_at(&a->padding, i) - span - 1) / stride + 1;
  }
  return a->groups == 1 && taps > 1 && taps <= MOST_TAPS && filters >= 8 && k >= 8 && places >= 16 &&
         places < DN_LEAST_PLACES && filters * k <= SMALL_CONV / places;
}

bool dn_is_slow(kn_op op, const void *attrs, const dn_view *in) {
  return op == KN_OP_matmul ? small_or_thin(&in[0], &in[1])
         : op == KN_OP_conv2d
             ? deep_layer(attrs, in[0].type, in[1].type) || small_conv(attrs, in[0].type, in[1].type)
             : false;
}

bool dn_better_elsewhere(const kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in) {
  if (op != KN_OP_matmul && op != KN_OP_conv2d) return false;
  const dn_view views[] = {{&in[0]->type, in[0]->strides}, {&in[1]->type, in[1]->strides}};
  return dn_is_slow(op, attrs, views) && dn_offered_elsewhere(ctx, op);
}

static kn_status kernel(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                        kn_tensor *out) {
  if (dn_better_elsewhere(ctx, op, attrs, in)) return KN_DECLINED;
  dn_state *s = kn_backend_state(ctx, &kn_onednn_backend);
  if (!s) return KN_DECLINED;
  char why[96] = "";
  kn_status st = compute(s, ctx, op, attrs, in, n, out, why, sizeof why);
  if (st == KN_DECLINED && kn_debugging(ctx, KN_DEBUG_DISPATCH))
    kn_log(ctx, "dispatch: onednn declines %s: %s", kn_op_name(op), why);
  return st;
}

/* A kernel is not told its op, so there is one function each. */
#define X(op, a, b, c, o)                                                                                    \
  static kn_status onednn_##op(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out) {                                                      \
    return kernel(ctx, KN_OP_##op, attrs, in, n, out[0]);                                                    \
  }
DN_OPS(X)
#undef X

const kn_provider dn_provider = {
    .name = "onednn",
    .kernel =
        {
#define X(op, a, b, c, o) [KN_OP_##op] = onednn_##op,
            DN_OPS(X)
#undef X
        },
};
