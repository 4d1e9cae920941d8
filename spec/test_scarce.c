/* Memory that runs out, driven by the op table: every row with a case in spec/gen.h is applied in its
 * in-place form, and applied, taped and walked back, with each allocation failing in turn, once and from
 * there on. Each time: an error that says so, nothing lost, the inputs as they were, and the same context
 * gives the right answer afterwards. Plain application is starved in test_ops.c, over the dtypes. */
#include "backends/registry.h"
#include "core/grad/tape.h"
#include "spec/gen.h"
#include "spec/scarce.h"
#include "spec/tensors.h"

typedef struct rig {
  scarce memory;
  kn_heap *heap;
  kn_context *c;
  bool caches; /* its backends keep things: what is in use may grow */
} rig;

/* backend NULL: the reference kernels alone; "": all there are. */
static void open_rig(rig *r, const char *backend) {
  *r = (rig){.memory.left = -1};
  r->heap = kn_heap_new(scarce_alloc, &r->memory, 0);
  ck_assert_ptr_nonnull(r->c = kn_context_new(r->heap, NULL));
  r->c->threads = 1;
  r->caches = backend != NULL;
  if (backend) OK(r->c, kn_registry_open(r->c, backend));
}

static void close_rig(rig *r) {
  if (r->caches) kn_registry_close(r->c);
  suite_done(r->c);
  kn_heap_release(r->heap);
}

/* ---- what is done to a case ---- */

typedef struct outcome {
  kn_tensor *y, *grad[GEN_MAX_IN];
} outcome;

static void forget(outcome *o) {
  kn_tensor_release(o->y);
  for (int i = 0; i < GEN_MAX_IN; i++) kn_tensor_release(o->grad[i]);
  *o = (outcome){NULL};
}

typedef kn_status (*deed)(kn_context *c, const gen_case *g, kn_tensor **in, outcome *out);

static const void *attrs_of(const gen_case *g) {
  return kn_ops[g->op].attrs == KN_ATTRS_none ? NULL : &g->attrs;
}

/* All results, the first one kept. */
static kn_status apply(kn_context *c, const gen_case *g, kn_tensor *const *in, kn_tensor **y) {
  kn_tensor *all[KN_MAX_OUTPUTS];
  kn_random_seed(&c->random, 7);
  KN_TRY(kn_apply(c, g->op, attrs_of(g), in, g->n, all));
  for (int i = 1; i < kn_ops[g->op].outs; i++) kn_tensor_release(all[i]);
  *y = all[0];
  return KN_OK;
}

/* The results and their sum, which a gradient may be asked of. Rows that write get a copy to write to. */
typedef struct forward {
  kn_tensor *copy, *y, *sum;
} forward;

static kn_status go_forward(kn_context *c, const gen_case *g, kn_tensor *const *in, forward *f) {
  kn_tensor *args[GEN_MAX_IN];
  kn_attrs_reduce all = {.keepdim = false};
  *f = (forward){NULL, NULL, NULL};
  memcpy(args, in, sizeof args);
  if (kn_ops[g->op].flags & KN_FLAG_WRITES) {
    KN_TRY(kn_apply(c, KN_OP_clone, NULL, in, 1, &f->copy));
    args[0] = f->copy;
  }
  KN_TRY(apply(c, g, args, &f->y));
  return kn_apply(c, KN_OP_sum, &all, &f->y, 1, &f->sum);
}

/* Whether it has succeeded or not; then the result is the outcome's. */
static kn_status end_forward(forward *f, kn_status st, outcome *out) {
  if (st == KN_OK) out->y = kn_tensor_retain(f->y);
  kn_tensor_release(f->sum);
  kn_tensor_release(f->y);
  kn_tensor_release(f->copy);
  return st;
}

/* d sum(y) / d in, with a graph of the gradient when `higher`. */
static kn_status gradients(kn_context *c, const gen_case *g, kn_tensor **in, outcome *out, bool higher) {
  kn_tensor *x[GEN_MAX_IN], *dx[GEN_MAX_IN];
  forward f;
  int n = 0;
  kn_status st = go_forward(c, g, in, &f);
  for (int i = 0; i < g->n; i++)
    if (kn_requires_grad(in[i])) x[n++] = in[i];
  if (st == KN_OK && kn_requires_grad(f.sum)) {
    st = kn_gradients(c, &f.sum, 1, NULL, x, n, higher, dx);
    for (int i = 0; i < n && st == KN_OK; i++) out->grad[i] = dx[i];
  }
  return end_forward(&f, st, out);
}

static kn_status walk_back(kn_context *c, const gen_case *g, kn_tensor **in, outcome *out) {
  return gradients(c, g, in, out, false);
}

static kn_status walk_back_taped(kn_context *c, const gen_case *g, kn_tensor **in, outcome *out) {
  return gradients(c, g, in, out, true);
}

/* Gradients that add up in the leaves. */
static kn_status accumulate(kn_context *c, const gen_case *g, kn_tensor **in, outcome *out) {
  forward f;
  kn_status st = go_forward(c, g, in, &f);
  if (st == KN_OK && kn_requires_grad(f.sum)) st = kn_backward(c, f.sum, NULL, false);
  for (int i = 0; i < g->n && st == KN_OK; i++) {
    if (!kn_grad_of(in[i])) continue;
    out->grad[i] = kn_tensor_retain(kn_grad_of(in[i]));
    OK(c, kn_set_grad(c, in[i], NULL));
  }
  return end_forward(&f, st, out);
}

/* in[0] is written to; the caller makes it anew after success. */
static kn_status write_over(kn_context *c, const gen_case *g, kn_tensor **in, outcome *out) {
  kn_random_seed(&c->random, 7);
  return kn_apply_inplace(c, g->op, attrs_of(g), in, g->n, &out->y);
}

/* ---- starving ---- */

static void make_inputs(rig *r, const gen_case *g, bool leaves, kn_tensor **in) {
  for (int i = 0; i < g->n; i++) {
    OK(r->c, gen_make(r->c, g, i, KN_F64, &in[i]));
    if (leaves && gen_is_float(&g->in[i])) OK(r->c, kn_set_requires_grad(r->c, in[i], true));
  }
}

static void release_inputs(const gen_case *g, kn_tensor **in) {
  for (int i = 0; i < g->n; i++) kn_tensor_release(in[i]);
}

static void check_inputs(const gen_case *g, kn_tensor *const *in) {
  for (int i = 0; i < g->n; i++) {
    ck_assert_msg(!kn_grad_of(in[i]), "%s: a gradient was left at input %d", kn_op_name(g->op), i + 1);
    for (int64_t k = 0; k < kn_tensor_numel(in[i]); k++) {
      double x = gen_value(&g->in[i], k, i);
      ck_assert_msg(element(in[i], k) == x, "%s: input %d was changed", kn_op_name(g->op), i + 1);
    }
  }
}

static void check_same(const gen_case *g, const kn_tensor *a, const kn_tensor *b) {
  ck_assert_msg(!a == !b, "%s: a result is missing", kn_op_name(g->op));
  if (!a) return;
  ck_assert_msg(kn_type_equal(&a->type, &b->type), "%s: the type differs", kn_op_name(g->op));
  for (int64_t k = 0; k < kn_tensor_numel(a); k++)
    ck_assert_msg(near(element(a, k), element(b, k), 1e-12), "%s: a value differs afterwards",
                  kn_op_name(g->op));
}

static void check_failure(rig *r, const gen_case *g, kn_status st, long n, uint64_t blocks, size_t bytes) {
  kn_heap_stats now = kn_heap_read_stats(r->heap);
  ck_assert_msg(st == KN_NOMEM, "%s, allocation %ld: \"%s\" instead of out of memory: %s", kn_op_name(g->op),
                n, kn_status_text(st), kn_error(r->c));
  ck_assert_msg(strstr(kn_error(r->c), "out of memory") != NULL, "%s, allocation %ld: says \"%s\"",
                kn_op_name(g->op), n, kn_error(r->c));
  ck_assert_msg(r->caches || (now.blocks == blocks && now.bytes == bytes),
                "%s, allocation %ld: %lld blocks, %lld bytes are lost", kn_op_name(g->op), n,
                (long long)(now.blocks - blocks), (long long)(now.bytes - bytes));
  ck_assert_msg(r->c->grad_enabled && !r->c->recorder, "%s: a mode was left switched", kn_op_name(g->op));
}

/* KILN_SWEEP=whole: every case, every allocation. Else a case a row, and of its later allocations some. */
static bool whole_sweep(void) {
  const char *sweep = getenv("KILN_SWEEP");
  return sweep && !strcmp(sweep, "whole");
}

/* False: the case cannot be done at all. */
static bool starve(rig *r, const gen_case *g, deed what, bool leaves, bool once) {
  kn_tensor *in[GEN_MAX_IN];
  outcome right = {NULL}, after = {NULL};
  make_inputs(r, g, leaves, in);
  if (what(r->c, g, in, &right) != KN_OK) {
    release_inputs(g, in);
    return false;
  }
  kn_tensor *y = right.y; /* an in-place result is the input: keep its values, give the input back */
  if (what == write_over) {
    OK(r->c, kn_apply(r->c, KN_OP_clone, NULL, &y, 1, &right.y));
    kn_tensor_release(y);
    release_inputs(g, in);
    make_inputs(r, g, leaves, in);
  }
  long n = 0;
  for (bool refused = true; refused; n += whole_sweep() || n < 16 ? 1 : n / 8) {
    kn_heap_stats before = kn_heap_read_stats(r->heap);
    scarce_begin(&r->memory, n, once);
    kn_status st = what(r->c, g, in, &after);
    refused = scarce_end(&r->memory);
    if (st != KN_OK) {
      check_failure(r, g, st, n + 1, before.blocks, before.bytes);
      check_inputs(g, in);
    } else {
      check_same(g, right.y, after.y);
      for (int i = 0; i < GEN_MAX_IN; i++) check_same(g, right.grad[i], after.grad[i]);
      forget(&after);
      if (what != write_over) check_inputs(g, in);
      if (what == write_over && refused) { /* a retry came through: once more from the start */
        release_inputs(g, in);
        make_inputs(r, g, leaves, in);
      }
    }
    ck_assert_msg(refused || st == KN_OK, "%s: %s", kn_op_name(g->op), kn_error(r->c));
    ck_assert_int_lt(n, 3000);
  }
  forget(&right);
  release_inputs(g, in);
  return true;
}

/* How many rows could be done. */
static int starve_all(const char *backend, deed what, bool leaves, bool once) {
  bool whole = whole_sweep(), done[KN_OP_COUNT] = {false};
  int rows = 0;
  rig r;
  open_rig(&r, backend);
  for (int i = 0; i < GEN_CASES + KN_OP_COUNT; i++) {
    gen_case made;
    const gen_case *g = i < GEN_CASES ? &gen_cases[i] : &made;
    if (i >= GEN_CASES &&
        (gen_has_case((kn_op)(i - GEN_CASES)) || !gen_default((kn_op)(i - GEN_CASES), &made)))
      continue;
    if (done[g->op] && !whole) continue;
    bool first = !done[g->op], through = starve(&r, g, what, leaves, once);
    done[g->op] |= through;
    rows += first && through;
  }
  close_rig(&r);
  return rows;
}

START_TEST(in_place) {
  for (int once = 0; once < 2; once++) ck_assert_int_gt(starve_all(NULL, write_over, false, once), 60);
}
END_TEST

START_TEST(taped_and_walked_back) {
  for (int once = 0; once < 2; once++) ck_assert_int_gt(starve_all(NULL, walk_back, true, once), 180);
}
END_TEST

START_TEST(gradients_of_gradients) { ck_assert_int_gt(starve_all(NULL, walk_back_taped, true, false), 180); }
END_TEST

START_TEST(gradients_that_add_up) { ck_assert_int_gt(starve_all(NULL, accumulate, true, true), 180); }
END_TEST

START_TEST(on_the_best_backends) {
  for (int once = 0; once < 2; once++) ck_assert_int_gt(starve_all("", walk_back, true, once), 180);
}
END_TEST

SUITE("scarce", in_place, taped_and_walked_back, gradients_of_gradients, gradients_that_add_up,
      on_the_best_backends)
