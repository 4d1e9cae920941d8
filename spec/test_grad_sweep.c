/* The gradient sweep, driven by the op table: every differentiable row is compared with differences in
 * float64, for contiguous and for permuted inputs, then its gradient is, then it is run on symbolic sizes. A
 * row without a case in spec/gen.h fails. */
#define _DEFAULT_SOURCE /* mmap's MAP_ANONYMOUS */
#ifdef KN_HAS_CUDA
#include "spec/cuda/software.h"
#endif
#include "spec/fake_device.h"
#include "spec/suite.h"
#include "spec/gen.h"
#include "spec/tensors.h"
#include "core/expr.h"
#include "core/grad/gradcheck.h"
#include "core/grad/tape.h"

typedef struct sweep {
  const gen_case *c;
  bool permuted; /* inputs of two dims and more are views with the order of dims reversed */
} sweep;

/* ---- the function under test ---- */

static bool is_permuted(const sweep *w, int i) { return w->permuted && w->c->in[i].rank > 1; }

static kn_tensor *apply_case(kn_scope *s, const sweep *w, kn_tensor *const *leaf) {
  kn_tensor *in[GEN_MAX_IN];
  for (int i = 0; i < w->c->n; i++) {
    in[i] = leaf[i];
    kn_attrs_axes back = {.dims.n = w->c->in[i].rank};
    for (int d = 0; d < back.dims.n; d++) back.dims.v[d] = back.dims.n - 1 - d;
    if (is_permuted(w, i)) in[i] = kx_apply(s, KN_OP_permute, &back, &in[i], 1);
    if (w->c->in[i].kind == GEN_SYM)
      in[i] = kx_mul(s, kx_add(s, in[i], kx_transpose(s, in[i], -2, -1)), kx_number(s, 0.5, in[i]));
  }
  if (kn_ops[w->c->op].flags & KN_FLAG_WRITES) in[0] = kx_clone(s, in[0]);
  return kx_apply(s, w->c->op, &w->c->attrs, in, w->c->n);
}

static kn_status first_order(kn_context *ctx, void *ud, kn_tensor *const *in, int n, kn_tensor **out) {
  (void)n;
  kn_scope s;
  kn_scope_open(&s, ctx);
  return kn_scope_close(&s, apply_case(&s, ud, in), out);
}

/* sum(c · d sum(y²) / d in) + 0 · in, with an uneven c: what flows into a rule then depends on the inputs
 * too. */
static kn_tensor *gradient_sum(kn_scope *s, const sweep *w, kn_tensor *const *in, int n) {
  kn_tensor *xs[GEN_MAX_IN], *gs[GEN_MAX_IN] = {NULL}, *y = apply_case(s, w, in), *all = NULL;
  const kn_ints every = {0};
  int nx = 0;
  for (int i = 0; i < n; i++)
    if (kn_requires_grad(in[i])) xs[nx++] = in[i];
  kn_tensor *z = kx_sum(s, kx_mul(s, y, y), &every, false);
  if (!z) return NULL;
  kn_status st = kn_gradients(s->ctx, &z, 1, NULL, xs, nx, true, gs);
  if (st != KN_OK) return kx_fail(s, st);
  for (int i = 0; i < nx; i++) {
    kn_tensor *weights = kx_apply(s, KN_OP_sin, NULL, (kn_tensor *[]){xs[i]}, 1);
    kn_tensor *part = kx_mul(s, xs[i], kx_number(s, 0, xs[i]));
    if (gs[i]) part = kx_add(s, part, kx_mul(s, kx_own(s, gs[i]), weights));
    part = kx_sum(s, part, &every, false);
    all = all ? kx_add(s, all, part) : part;
  }
  return all;
}

static kn_status second_order(kn_context *ctx, void *ud, kn_tensor *const *in, int n, kn_tensor **out) {
  kn_scope s;
  bool mode = ctx->grad_enabled;
  ctx->grad_enabled = true;
  kn_scope_open(&s, ctx);
  kn_status st = kn_scope_close(&s, gradient_sum(&s, ud, in, n), out);
  ctx->grad_enabled = mode;
  return st;
}

/* ---- running a case ---- */

static void make_leaves(kn_context *ctx, const sweep *w, kn_dtype dtype, kn_tensor **in) {
  gen_case turned = *w->c;
  for (int i = 0; i < w->c->n; i++) {
    for (int d = 0; is_permuted(w, i) && d < w->c->in[i].rank; d++)
      turned.in[i].dims[d] = w->c->in[i].dims[w->c->in[i].rank - 1 - d];
    OK(ctx, gen_make(ctx, &turned, i, dtype, &in[i]));
    if (gen_is_float(&turned.in[i])) OK(ctx, kn_set_requires_grad(ctx, in[i], true));
  }
}

static const char *describe(const sweep *w, char *text, size_t size) {
  int at = snprintf(text, size, "%s(", kn_op_name(w->c->op));
  for (int i = 0; i < w->c->n; i++) {
    at += snprintf(text + at, size - (size_t)at, i ? ", [" : "[");
    for (int d = 0; d < w->c->in[i].rank; d++)
      at += snprintf(text + at, size - (size_t)at, d ? ",%lld" : "%lld", (long long)w->c->in[i].dims[d]);
    at += snprintf(text + at, size - (size_t)at, "]");
  }
  snprintf(text + at, size - (size_t)at, ")%s", w->permuted ? ", permuted" : "");
  return text;
}

static void check_case(kn_gradcheck_fn fn, const gen_case *c, bool permuted) {
  char text[256];
  sweep w = {c, permuted};
  kn_context *ctx = suite_context();
  kn_tensor *in[GEN_MAX_IN];
  make_leaves(ctx, &w, KN_F64, in);
  kn_status st = kn_gradcheck(ctx, fn, &w, in, c->n, 1e-6, 1e-6, 1e-6);
  bool refused = kn_ops[c->op].flags & KN_FLAG_ONCE && fn == second_order;
  if (refused) {
    ck_assert_msg(st == KN_UNSUPPORTED, "%s: \"%s\"", describe(&w, text, sizeof text), kn_error(ctx));
    ck_assert_msg(strstr(kn_error(ctx), "is not differentiable") != NULL, "%s: \"%s\"",
                  describe(&w, text, sizeof text), kn_error(ctx));
  } else {
    ck_assert_msg(st == KN_OK, "%s: %s", describe(&w, text, sizeof text), kn_error(ctx));
  }
  for (int i = 0; i < c->n; i++) kn_tensor_release(in[i]);
  suite_done(ctx);
}

/* Through rows without a rule, and through some composites, nothing flows: results do not require grad. */
static bool is_flat(const gen_case *c) { return c->flat || (!kn_ops[c->op].vjp && !kn_ops[c->op].composite); }

START_TEST(every_row_has_a_case) {
  gen_case unused;
  for (int op = 0; op < KN_OP_COUNT; op++) {
    const kn_op_info *row = &kn_ops[op];
    bool needs = row->vjp ? row->vjp != kn_vjp_not_differentiable : row->composite && row->max_in > 0;
    needs &= !(row->flags & KN_FLAG_RANDOM); /* differences of draws say nothing */
    needs &= !kn_op_is_host((kn_op)op);      /* test_capi_op.c has them */
    ck_assert_msg(!needs || gen_has_case((kn_op)op) || gen_default((kn_op)op, &unused),
                  "%s has a gradient and no case in spec/gen.h", row->name);
  }
}
END_TEST

START_TEST(nothing_flows) {
  for (int i = 0; i < GEN_CASES; i++) {
    sweep w = {&gen_cases[i], false};
    kn_context *ctx = suite_context();
    kn_tensor *in[GEN_MAX_IN], *y;
    make_leaves(ctx, &w, KN_F64, in);
    OK(ctx, first_order(ctx, &w, in, w.c->n, &y));
    ck_assert_msg(kn_requires_grad(y) != is_flat(w.c), "%s", kn_op_name(w.c->op));
    kn_tensor_release(y);
    for (int k = 0; k < w.c->n; k++) kn_tensor_release(in[k]);
    suite_done(ctx);
  }
}
END_TEST

static void check_all(kn_gradcheck_fn fn) {
  for (int i = 0; i < GEN_CASES; i++)
    if (!is_flat(&gen_cases[i])) {
      check_case(fn, &gen_cases[i], false);
      check_case(fn, &gen_cases[i], true);
    }
  for (int op = 0; op < KN_OP_COUNT; op++) {
    gen_case c;
    if (!kn_ops[op].vjp || gen_has_case((kn_op)op) || !gen_default((kn_op)op, &c)) continue;
    check_case(fn, &c, false);
    check_case(fn, &c, true);
  }
}

START_TEST(first) { check_all(first_order); }
END_TEST
START_TEST(second) { check_all(second_order); }
END_TEST

/* ---- on a device ---- */

static kn_tensor *on(kn_context *ctx, kn_tensor *t, kn_device_id d) {
  const kn_attrs_device to = {.device = (int32_t)d};
  kn_tensor *there;
  OK(ctx, kn_apply(ctx, KN_OP_to_device, &to, &t, 1, &there));
  return there;
}

/* Gradients of `fn` for the leaves, brought to the host; NULL where none flows. */
static void gradients_on(kn_context *ctx, kn_gradcheck_fn fn, sweep *w, kn_dtype dtype, kn_device_id d,
                         kn_tensor **gs) {
  kn_tensor *leaf[GEN_MAX_IN], *in[GEN_MAX_IN], *xs[GEN_MAX_IN], *y, *found[GEN_MAX_IN] = {NULL};
  int nx = 0;
  make_leaves(ctx, w, dtype, leaf);
  for (int i = 0; i < w->c->n; i++) {
    const bool wants = kn_requires_grad(leaf[i]);
    OK(ctx, kn_set_requires_grad(ctx, leaf[i], false));
    in[i] = on(ctx, leaf[i], d);
    OK(ctx, kn_set_requires_grad(ctx, in[i], wants));
    if (wants) xs[nx++] = in[i];
  }
  OK(ctx, fn(ctx, w, in, w->c->n, &y));
  ck_assert_msg(y->type.device == d || w->c->op == KN_OP_to_device, "%s: elsewhere", kn_op_name(w->c->op));
  kn_tensor *ones;
  const kn_attrs_value one = {.value = 1};
  OK(ctx, kn_apply(ctx, KN_OP_full_like, &one, &y, 1, &ones));
  if (kn_requires_grad(y)) OK(ctx, kn_gradients(ctx, &y, 1, &ones, xs, nx, false, found));
  for (int i = 0; i < nx; i++) {
    gs[i] = found[i] ? on(ctx, found[i], KN_CPU) : NULL;
    ck_assert_msg(!found[i] || found[i]->type.device == d, "%s: the gradient is elsewhere",
                  kn_op_name(w->c->op));
    kn_tensor_release(found[i]);
  }
  for (int i = nx; i < GEN_MAX_IN; i++) gs[i] = NULL;
  kn_tensor_release(ones), kn_tensor_release(y);
  for (int i = 0; i < w->c->n; i++) kn_tensor_release(leaf[i]), kn_tensor_release(in[i]);
}

/* As on the CPU, within `most` of the largest element; 0: to the bit. */
static void check_on_device(kn_context *ctx, kn_gradcheck_fn fn, const gen_case *c, bool permuted,
                            kn_dtype dtype, double most) {
  char text[256];
  sweep w = {c, permuted};
  kn_tensor *want[GEN_MAX_IN], *got[GEN_MAX_IN];
  gradients_on(ctx, fn, &w, dtype, KN_CPU, want);
  gradients_on(ctx, fn, &w, dtype, KN_CUDA, got);
  for (int i = 0; i < GEN_MAX_IN; i++) {
    double largest = 1;
    ck_assert_msg(!want[i] == !got[i], "%s: input %d", describe(&w, text, sizeof text), i + 1);
    for (int64_t k = 0; want[i] && k < kn_tensor_numel(want[i]); k++)
      largest = fmax(largest, fabs(element(want[i], k)));
    for (int64_t k = 0; want[i] && k < kn_tensor_numel(want[i]); k++) {
      const double a = element(want[i], k), b = element(got[i], k);
      ck_assert_msg(!memcmp(&a, &b, sizeof a) ||
                        (most > 0 && (fabs(a - b) <= most * largest || (isnan(a) && isnan(b)))),
                    "%s: gradient %d, %s, element %d is %.17g, on the device %.17g",
                    describe(&w, text, sizeof text), i + 1, kn_dtype_name(dtype), (int)k + 1, a, b);
    }
    kn_tensor_release(want[i]), kn_tensor_release(got[i]);
  }
}

static void check_all_on_device(kn_context *ctx, kn_dtype dtype, double most) {
  for (int i = 0; i < GEN_CASES; i++) {
    const gen_case *c = &gen_cases[i];
    if (is_flat(c)) continue;
    check_on_device(ctx, first_order, c, false, dtype, most);
    check_on_device(ctx, first_order, c, true, dtype, most);
    if (!(kn_ops[c->op].flags & KN_FLAG_ONCE)) check_on_device(ctx, second_order, c, false, dtype, most);
  }
}

/* One whose memory the host cannot read: the reference's kernels. */
START_TEST(on_a_device) {
  kn_context *ctx = suite_context();
  fake_device f;
  fake_device_open(&f, ctx);
  check_all_on_device(ctx, KN_F64, 0);
  fake_device_close(&f);
  suite_done(ctx);
}
END_TEST

/* The CUDA backend's kernels. */
START_TEST(on_the_software_device) {
#ifdef KN_HAS_CUDA
  kn_context *ctx = software_context();
  check_all_on_device(ctx, KN_F64, 1e-10);
  check_all_on_device(ctx, KN_F32, 1e-4);
  kn_registry_close(ctx);
  suite_done(ctx);
#else
  (void)suite_skips("this build was made without CUDA's headers");
#endif
}
END_TEST

/* Rows that are differentiable only once say so in the table. Random ones cannot be compared with
 * differences; that their second derivative is refused can be seen. There is one row now: a second is a step
 * back. */
START_TEST(once_only) {
  int count = 0;
  for (int op = 0; op < KN_OP_COUNT; op++) {
    const kn_op_info *row = &kn_ops[op];
    if (!(row->flags & KN_FLAG_ONCE)) continue;
    count++;
    ck_assert(row->vjp && row->vjp != kn_vjp_not_differentiable);
    if (!(row->flags & KN_FLAG_RANDOM)) continue;
    ck_assert_int_eq(row->max_in, 1);
    kn_context *ctx = suite_context();
    gen_case c = GEN1(neg, GEN_P(2, 3));
    kn_tensor *x, *y, *z, *g, *gg;
    OK(ctx, gen_make(ctx, &c, 0, KN_F64, &x));
    OK(ctx, kn_set_requires_grad(ctx, x, true));
    OK(ctx, kn_apply(ctx, (kn_op)op, NULL, &x, 1, &y));
    kn_attrs_reduce all = {.keepdim = false};
    OK(ctx, kn_apply(ctx, KN_OP_sum, &all, &y, 1, &z));
    OK(ctx, kn_gradients(ctx, &z, 1, NULL, &x, 1, true, &g));
    kn_tensor_release(z);
    OK(ctx, kn_apply(ctx, KN_OP_sum, &all, &g, 1, &z));
    FAILS(ctx, KN_UNSUPPORTED, "is not differentiable", kn_gradients(ctx, &z, 1, NULL, &x, 1, false, &gg));
    kn_tensor_release(x);
    kn_tensor_release(y);
    kn_tensor_release(z);
    kn_tensor_release(g);
    suite_done(ctx);
  }
  ck_assert_int_eq(count, 1);
}
END_TEST

/* The check itself: it must find a wrong gradient. */
static kn_status half_hidden(kn_context *ctx, void *ud, kn_tensor *const *in, int n, kn_tensor **out) {
  (void)ud, (void)n;
  kn_scope s;
  kn_scope_open(&s, ctx);
  kn_tensor *hidden;
  OK(ctx, kn_tensor_alias(ctx, in[0], &hidden));
  return kn_scope_close(&s, kx_mul(&s, in[0], kx_own(&s, hidden)), out);
}

START_TEST(finds_faults) {
  kn_context *ctx = suite_context();
  gen_case c = GEN2(mul, GEN_P(3), GEN_I(3, 2));
  kn_tensor *x, *f, *i;
  OK(ctx, gen_make(ctx, &c, 0, KN_F64, &x));
  OK(ctx, gen_make(ctx, &c, 0, KN_F32, &f));
  OK(ctx, gen_make(ctx, &c, 1, KN_F64, &i));
  FAILS(ctx, KN_ARG, "no input requires grad", kn_gradcheck(ctx, half_hidden, NULL, &x, 1, 1e-6, 1e-6, 1e-6));
  OK(ctx, kn_set_requires_grad(ctx, x, true));
  OK(ctx, kn_set_requires_grad(ctx, f, true));
  FAILS(ctx, KN_STATE, "for input 1, element 1, backward gives",
        kn_gradcheck(ctx, half_hidden, NULL, &x, 1, 1e-6, 1e-6, 1e-6));
  FAILS(ctx, KN_ARG, "input 1, float32[3], must be a float64 leaf",
        kn_gradcheck(ctx, half_hidden, NULL, &f, 1, 1e-6, 1e-6, 1e-6));
  kn_tensor_release(x);
  kn_tensor_release(f);
  kn_tensor_release(i);
  suite_done(ctx);
}
END_TEST

/* ---- symbolic sizes: the rules must not need to know them ---- */

typedef struct fake {
  kn_recorder recorder;
  int values;
} fake;

static kn_status fake_apply(kn_recorder *r, kn_context *ctx, kn_op op, const void *attrs,
                            kn_tensor *const *in, int n, const kn_type *types, kn_tensor **out) {
  (void)attrs, (void)in, (void)n;
  ((fake *)r)->values++;
  for (int i = 0; i < kn_ops[op].outs; i++) OK(ctx, kn_tensor_symbolic(ctx, &types[i], r, &out[i]));
  return KN_OK;
}

static kn_status fake_size(kn_recorder *r, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out) {
  (void)r, (void)ctx, (void)t, (void)dim;
  *out = (kn_scalar){.kind = KN_SCALAR_SYMBOL};
  return KN_OK;
}

static kn_status fake_item(kn_recorder *r, kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  (void)r, (void)ctx, (void)t;
  *out = (kn_scalar){.kind = KN_SCALAR_SYMBOL};
  return KN_OK;
}

static kn_status fake_to_tensor(kn_recorder *r, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                                kn_tensor **out) {
  kn_type type = {.dtype = (uint8_t)dtype};
  (void)s;
  ((fake *)r)->values++;
  return kn_tensor_symbolic(ctx, &type, r, out);
}

static kn_status fake_dynamic(kn_recorder *r, kn_context *ctx, const kn_scalar *s, int64_t *placeholder) {
  (void)ctx, (void)s;
  *placeholder = KN_DYN(((fake *)r)->values++);
  return KN_OK;
}

/* Sizes above 1 become symbols, the same for the same size, or unknown. */
static kn_status symbolic_case(kn_context *ctx, fake *f, const gen_case *c, bool named) {
  kn_tensor *in[GEN_MAX_IN], *y = NULL, *ones = NULL, *xs[GEN_MAX_IN], *gs[GEN_MAX_IN];
  int nx = 0;
  for (int i = 0; i < c->n; i++) {
    kn_type type = {.dtype = gen_is_float(&c->in[i])     ? KN_F64
                             : c->in[i].kind == GEN_BOOL ? KN_BOOL
                                                         : KN_I64,
                    .rank = (uint8_t)c->in[i].rank};
    for (int d = 0; d < type.rank; d++) {
      int64_t size = c->in[i].dims[d];
      type.dims[d] = size == 1 ? 1 : named ? KN_DIM_SYMBOL(size) : KN_DIM_UNKNOWN;
    }
    OK(ctx, kn_tensor_symbolic(ctx, &type, f, &in[i]));
    if (!gen_is_float(&c->in[i]) || ((kn_ops[c->op].flags & KN_FLAG_WRITES) && i == 0)) continue;
    OK(ctx, kn_set_requires_grad(ctx, in[i], true));
    xs[nx++] = in[i];
  }
  ctx->grad_enabled =
      !(kn_ops[c->op].flags & KN_FLAG_WRITES); /* writes with history are not there while recording */
  kn_tensor *all[KN_MAX_OUTPUTS];
  kn_status st = kn_apply(ctx, c->op, &c->attrs, in, c->n, all);
  for (int i = 1; i < kn_ops[c->op].outs && st == KN_OK; i++) kn_tensor_release(all[i]);
  if (st == KN_OK) y = all[0];
  ctx->grad_enabled = true;
  if (st == KN_OK && (kn_ops[c->op].flags & KN_FLAG_WRITES))
    OK(ctx, kn_tape_record(ctx, c->op, NULL, in, c->n, &y));
  bool inferred = st == KN_OK;
  if (inferred) OK(ctx, kn_tensor_symbolic(ctx, &y->type, f, &ones));
  if (inferred) st = kn_gradients(ctx, &y, 1, &ones, xs, nx, true, gs);
  for (int i = 0; i < nx && inferred && st == KN_OK; i++) {
    if (!gs[i]) continue;
    ck_assert(kn_tensor_is_symbolic(gs[i]));
    ck_assert_int_eq(gs[i]->type.rank, xs[i]->type.rank);
    kn_tensor_release(gs[i]);
  }
  kn_tensor_release(y);
  kn_tensor_release(ones);
  for (int i = 0; i < c->n; i++) kn_tensor_release(in[i]);
  return inferred ? st
                  : KN_OK; /* a shape rule that must know sizes says so; that is not the gradient's fault */
}

START_TEST(symbolic) {
  int through = 0;
  for (int i = 0; i < GEN_CASES; i++)
    for (int named = 0; named < 2; named++) {
      if (is_flat(&gen_cases[i])) continue;
      kn_context *ctx = suite_context();
      fake f = {.recorder = {.apply = fake_apply,
                             .item = fake_item,
                             .size = fake_size,
                             .to_tensor = fake_to_tensor,
                             .dynamic = fake_dynamic}};
      ctx->recorder = &f.recorder;
      kn_status st = symbolic_case(ctx, &f, &gen_cases[i], named);
      through += f.values > 1;
      ck_assert_msg(st == KN_OK, "%s, case %d: %s", kn_op_name(gen_cases[i].op), i, kn_error(ctx));
      suite_done(ctx);
    }
  ck_assert_int_gt(through, GEN_CASES); /* most of them, both ways */
}
END_TEST

SUITE("grad sweep", every_row_has_a_case, nothing_flows, first, second, once_only, finds_faults, symbolic,
      on_a_device, on_the_software_device)
