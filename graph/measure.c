/* Runs that compare: see measure.h. */
#include "graph/measure.h"
#include "core/device.h"
#include "core/dispatch.h"
#include "core/expr.h"
#include <float.h>
#include <math.h>
#include <string.h>

/* ---- runs ---- */

static bool overwrites(const kn_graph *g) { /* updates stand in the body alone */
  KN_EACH_NODE (n, g->body)
    if (n->op == KN_NODE_update) return true;
  return false;
}

static kn_status take_values(kn_session *to, kn_session *from) {
  for (uint32_t i = 0; i < kn_session_graph(to)->nslots; i++) {
    kn_rvalue v = {0};
    KN_TRY(kn_session_get_slot(from, i, &v));
    kn_status st = kn_session_set_slot(to, i, &v);
    kn_tensor_release(v.tensor);
    KN_TRY(st);
  }
  return KN_OK;
}

static kn_status copy_inputs(kn_context *ctx, const kn_rvalue *in, uint32_t n, kn_rvalue *out) {
  for (uint32_t i = 0; i < n; i++) {
    out[i] = in[i];
    out[i].tensor = NULL;
    if (in[i].tensor)
      KN_TRY(kn_apply(ctx, KN_OP_clone, NULL, (kn_tensor *[]){in[i].tensor}, 1, &out[i].tensor));
  }
  return KN_OK;
}

void kn_measure_release(kn_rvalue *list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    kn_tensor_release(list[i].tensor);
    list[i].tensor = NULL;
  }
}

static kn_status run(kn_context *ctx, kn_session *s, const kn_rvalue *in, kn_rvalue *out) {
  const kn_graph *g = kn_session_graph(s);
  uint32_t nin = g->body->nparams;
  if (!overwrites(g)) return kn_session_run(s, in, nin, out, g->body->nyields);
  kn_rvalue *copies = kn_calloc(ctx->heap, nin + 1u, sizeof *copies);
  if (!copies) return kn_fail_nomem(ctx, nin * sizeof *copies);
  kn_status st = copy_inputs(ctx, in, nin, copies);
  if (st == KN_OK) st = kn_session_run(s, copies, nin, out, g->body->nyields);
  kn_measure_release(copies, nin);
  kn_free(ctx->heap, copies, (nin + 1u) * sizeof *copies);
  return st;
}

kn_status kn_measure_run(kn_context *ctx, const kn_optimize *o, kn_graph *g, kn_session *values,
                         const kn_rvalue *in, bool any_sizes, kn_observe_fn fn, void *ud, kn_rvalue *out) {
  kn_session *s;
  KN_TRY(kn_session_new(ctx, g, o->targets, o->ntargets, &s));
  kn_context *run_ctx = kn_session_context(s);
  run_ctx->output = NULL;
  run_ctx->threads = ctx->threads;
  kn_random_seed(&run_ctx->random, 1);
  kn_session_observe(s, fn, ud);
  kn_session_set_any_sizes(s, any_sizes);
  kn_status st = values ? take_values(s, values) : KN_OK;
  if (st == KN_OK) st = run(ctx, s, in, out);
  if (st != KN_OK && *kn_error(run_ctx)) kn_fail(ctx, st, "%s", kn_error(run_ctx));
  kn_session_free(s);
  return st;
}

/* ---- differences ---- */

static double spacing(kn_dtype d) { /* of numbers from 1 on */
  return d == KN_F16 ? 0x1p-10 : d == KN_BF16 ? 0x1p-7 : d == KN_F32 ? FLT_EPSILON : DBL_EPSILON;
}

double kn_measure_limit(const kn_budget *b, kn_dtype dtype) {
  if (b->most >= 0) return b->most;
  return fmax(KN_BUDGET, 4 * spacing(dtype));
}

/* Over the largest, or over its last place. */
static double counted(bool ulps, kn_dtype d, double difference, double most) {
  if (difference == 0) return 0;
  if (!(most > 0)) return INFINITY;
  return difference / (ulps ? ldexp(spacing(d), ilogb(most)) : most);
}

static double element(const kn_tensor *t, int64_t i) {
  kn_dtype d = kn_tensor_dtype(t);
  return kn_element_float(d, (const char *)kn_tensor_data(t) + i * (int64_t)kn_dtype_size(d));
}

typedef struct spread { /* of elements that are numbers */
  double apart, most;   /* the largest difference; the largest of those that were wanted */
} spread;

static spread spread_f32(const float *a, const float *b, int64_t n) {
  float apart = 0, most = 0;
  bool odd = false; /* something infinite, or no number */
  for (int64_t i = 0; i < n; i++) {
    float d = fabsf(a[i] - b[i]), m = fabsf(b[i]);
    odd |= !(d <= FLT_MAX);
    apart = d > apart ? d : apart;
    most = m > most ? m : most;
  }
  return odd ? (spread){-1, -1} : (spread){(double)apart, (double)most};
}

static spread spread_any(const kn_tensor *got, const kn_tensor *want, int64_t n) {
  spread s = {0, 0};
  for (int64_t i = 0; i < n; i++) {
    double a = element(got, i), b = element(want, i);
    if (isfinite(b)) s.most = fmax(s.most, fabs(b));
    if (a == b || (isnan(a) && isnan(b))) continue;
    if (!isfinite(a) || !isfinite(b)) return (spread){INFINITY, 1};
    s.apart = fmax(s.apart, fabs(a - b));
  }
  return s;
}

/* Both contiguous, of one type. */
static double distance(bool ulps, const kn_tensor *got, const kn_tensor *want) {
  kn_dtype d = kn_tensor_dtype(want);
  int64_t n = kn_tensor_numel(want);
  if (!kn_dtype_is_float(d))
    return memcmp(kn_tensor_data(got), kn_tensor_data(want), (size_t)n * kn_dtype_size(d)) ? INFINITY : 0;
  spread s = {-1, -1};
  if (d == KN_F32) s = spread_f32(kn_tensor_data(got), kn_tensor_data(want), n);
  if (s.apart < 0) s = spread_any(got, want, n);
  return isfinite(s.apart) ? counted(ulps, d, s.apart, s.most) : INFINITY;
}

/* The tensor itself where its elements lie in order. */
static kn_status in_order(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  if (t->type.device != KN_CPU) return kn_to_host(ctx, t, out);
  if (!kn_tensor_contiguous(t)) return kn_apply(ctx, KN_OP_clone, NULL, &t, 1, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

kn_status kn_measure_tensors(kn_context *ctx, bool ulps, kn_tensor *got, kn_tensor *want, double *error) {
  kn_tensor *a = NULL, *b = NULL;
  *error = got == want ? 0 : INFINITY;
  if (!got || !want || got == want || !kn_type_equal(&got->type, &want->type)) return KN_OK;
  bool grad = ctx->grad_enabled;
  ctx->grad_enabled = false;
  kn_status st = in_order(ctx, got, &a);
  if (st == KN_OK) st = in_order(ctx, want, &b);
  if (st == KN_OK) *error = distance(ulps, a, b);
  ctx->grad_enabled = grad;
  kn_tensor_release(a);
  kn_tensor_release(b);
  return st;
}

static double scalars_apart(bool ulps, const kn_scalar *a, const kn_scalar *b) {
  if (a->kind != b->kind) return INFINITY;
  if (a->kind == KN_SCALAR_BOOL) return a->as.b == b->as.b ? 0 : INFINITY;
  if (a->kind != KN_SCALAR_FLOAT) return a->as.i == b->as.i ? 0 : INFINITY;
  if (a->as.f == b->as.f || (isnan(a->as.f) && isnan(b->as.f))) return 0;
  if (!isfinite(a->as.f) || !isfinite(b->as.f)) return INFINITY;
  return counted(ulps, KN_F32, fabs(a->as.f - b->as.f), fabs(b->as.f)); /* it comes from a tensor, likely */
}

kn_status kn_measure_outputs(kn_context *ctx, const kn_budget *b, const kn_rvalue *got, const kn_rvalue *want,
                             uint32_t n, double *share, double *error) {
  for (uint32_t i = 0; i < n; i++) {
    double e = 0;
    kn_dtype d = want[i].tensor ? kn_tensor_dtype(want[i].tensor) : KN_F32;
    if (got[i].tensor || want[i].tensor)
      KN_TRY(kn_measure_tensors(ctx, b->ulps, got[i].tensor, want[i].tensor, &e));
    else
      e = scalars_apart(b->ulps, &got[i].scalar, &want[i].scalar);
    double limit = kn_measure_limit(b, d);
    *error = fmax(*error, e);
    *share = fmax(*share, e == 0 ? 0 : limit > 0 ? e / limit : INFINITY);
  }
  return KN_OK;
}

/* ---- samples of our own ---- */

/* Sizes to try where they have a name: of first dims, which are often a count, and of others. */
static const int64_t tries[][2] = {{2, 32}, {2, 2}, {8, 8}, {1, 64}, {1, 224}, {1, 1}};
enum { TRIES = sizeof tries / sizeof *tries, MOST_ELEMENTS = 1 << 24, IMAGE = 56 };

/* What stands for a size that is fixed. A fold is as good for two rows as for a hundred, and for small images
 * as for large ones; where a graph does not take them after all, the next attempt has more of what it says.
 */
static int64_t smaller(const kn_type *t, int d, int attempt) {
  int64_t n = t->dims[d];
  if (attempt < KN_MEASURE_SMALLER && d == 0 && t->rank > 1 && n > 2) return 2;
  bool image = attempt == 0 && t->rank == 4 && d > 1 && kn_dtype_is_float((kn_dtype)t->dtype);
  return image && n >= 2 * IMAGE && n % 4 == 0 ? n / 4 : n;
}

static bool region_follows(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++)
      for (int d = 0; n->out[i]->type.kind == KN_V_TENSOR && d < n->out[i]->type.tensor.rank; d++)
        if (n->out[i]->type.tensor.dims[d] == KN_DIM_UNKNOWN) return false;
    for (int i = 0; i < n->nregions; i++)
      if (!region_follows(n->regions[i])) return false;
  }
  return true;
}

/* Has attempt something that the next one has not? */
static bool is_other(const kn_graph *g, int attempt) {
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    const kn_type *t = &g->body->params[i]->type.tensor;
    if (g->body->params[i]->type.kind != KN_V_TENSOR) continue;
    for (int d = 0; d < t->rank; d++)
      if (kn_dim_known(t->dims[d]) && smaller(t, d, attempt) != smaller(t, d, attempt + 1)) return true;
  }
  return false;
}

static bool sizes_of(const kn_type *t, int64_t *named, uint32_t nnamed, int attempt, kn_type *out) {
  int number = attempt < KN_MEASURE_SMALLER ? 0 : attempt - KN_MEASURE_SMALLER;
  *out = *t;
  for (int d = 0; d < t->rank; d++) {
    uint64_t k = kn_dim_symbol_of(t->dims[d]);
    if (kn_dim_known(t->dims[d])) out->dims[d] = smaller(t, d, attempt);
    if (kn_dim_known(t->dims[d])) continue;
    if (t->dims[d] == KN_DIM_UNKNOWN || k >= nnamed) return false;
    if (named[k] < 0) named[k] = tries[number][d > 0];
    out->dims[d] = named[k];
  }
  return kn_type_numel(out) <= MOST_ELEMENTS;
}

/* Numbers about 0, of variance 1; of integers ones and twos, which are positions wherever there are two. */
static kn_status random_tensor(kn_context *ctx, const kn_type *type, kn_tensor **out) {
  kn_type wide = *type;
  kn_tensor *made;
  bool is_float = kn_dtype_is_float((kn_dtype)type->dtype);
  wide.dtype = KN_F32;
  wide.device = KN_CPU;
  KN_TRY(kn_tensor_new(ctx, &wide, &made));
  float *at = kn_tensor_data(made);
  uint64_t n = (uint64_t)kn_tensor_numel(made), seed = ctx->random.seed,
           first = kn_random_take(&ctx->random, 3 * n);
  for (uint64_t i = 0; i < n; i++) {
    float u[3];
    for (unsigned k = 0; k < 3; k++) u[k] = kn_uniform_f32(kn_random_word(seed, first, 3 * i + k));
    at[i] = is_float ? 2 * (u[0] + u[1] + u[2]) - 3 : u[0] < 0.5F ? 1.0F : 2.0F;
  }
  kn_scope s;
  kn_scope_open(&s, ctx);
  kx_own(&s, made);
  kn_tensor *cast = kx_cast(&s, made, (kn_dtype)type->dtype);
  return kn_scope_close(&s, kx_to_device(&s, cast, (kn_device_id)type->device), out);
}

bool kn_measure_invent(kn_context *ctx, const kn_graph *g, int *which, kn_rvalue *in, const char **why,
                       kn_status *st) {
  bool follows = *which >= KN_MEASURE_SMALLER || region_follows(g->body);
  while (*which < KN_MEASURE_SMALLER && (!follows || !is_other(g, *which))) ++*which;
  int attempt = *which, last = KN_MEASURE_SMALLER + (g->nsymbols ? TRIES - 1 : 0);
  int64_t *named = kn_calloc(ctx->heap, g->nsymbols + 1u, sizeof *named);
  kn_context *own = kn_context_child(ctx);
  bool fine = attempt <= last;
  *why = NULL;
  *st = named && own ? KN_OK : kn_fail_nomem(ctx, g->nsymbols * sizeof *named);
  if (own) kn_random_seed(&own->random, 20), own->grad_enabled = false;
  for (uint32_t k = 0; named && k < g->nsymbols; k++) named[k] = -1;
  for (uint32_t i = 0; fine && *st == KN_OK && i < g->body->nparams; i++) {
    const kn_vtype *t = &g->body->params[i]->type;
    kn_type type;
    in[i] = (kn_rvalue){0};
    if (t->kind == KN_V_BOOL)
      in[i].scalar = (kn_scalar){KN_SCALAR_BOOL, {.b = true}};
    else if (t->kind == KN_V_FLOAT)
      in[i].scalar = (kn_scalar){KN_SCALAR_FLOAT, {.f = 0.5}};
    else if (t->kind != KN_V_TENSOR)
      in[i].scalar = (kn_scalar){KN_SCALAR_INT, {.i = 2}};
    else if (!sizes_of(&t->tensor, named, g->nsymbols, attempt, &type))
      *why = "the sizes of its inputs are not known", fine = false;
    else
      *st = random_tensor(own, &type, &in[i].tensor);
  }
  if (*st != KN_OK && own && *kn_error(own)) kn_fail(ctx, *st, "%s", kn_error(own));
  if (!fine || *st != KN_OK) kn_measure_release(in, g->body->nparams);
  kn_context_free(own);
  kn_free(ctx->heap, named, (g->nsymbols + 1u) * sizeof *named);
  return fine && *st == KN_OK;
}
