/* What hangs on the tape beside rows of the op table: hooks, custom functions, checkpoints, writes through
 * views. Here: every allocation that may fail, and the overlap of layouts. What they mean is in spec/lua. */
#include "spec/suite.h"
#include "spec/tensors.h"
#include "core/expr.h"
#include "core/grad/checkpoint.h"
#include "core/grad/tape.h"
#include "core/overlap.h"

/* ---- functions such as a front end would hang there ---- */

typedef struct counted { /* one per piece of data: each must be released once */
  int made, released, called;
} counted;

static void release(void *ud) { ((counted *)ud)->released++; }

static kn_status twice(kn_context *ctx, void *ud, kn_tensor *g, kn_tensor **out) {
  ((counted *)ud)->called++;
  return kn_apply(ctx, KN_OP_add, NULL, (kn_tensor *[]){g, g}, 2, out);
}

/* y = x * x by hand: gradient 2 g x */
static kn_status square_back(kn_context *ctx, void *ud, const kn_custom_call *c) {
  kn_scope s;
  ((counted *)ud)->called++;
  kn_scope_open(&s, ctx);
  kn_tensor *half = kx_mul(&s, c->gout[0], c->kept[0]), *r = kx_add(&s, half, half);
  return kn_scope_close(&s, r, &c->gin[0]);
}

static kn_tensor *square(kn_scope *s, kn_tensor *x, counted *n) {
  bool mode = s->ctx->grad_enabled, keep[2] = {true, false}, flat[1] = {false};
  s->ctx->grad_enabled = false;
  kn_tensor *y = kx_mul(s, x, x);
  s->ctx->grad_enabled = mode;
  if (!y) return NULL;
  kn_custom f = {.name = "square",
                 .in = &x,
                 .out = &y,
                 .n = 1,
                 .outs = 1,
                 .keep = keep,
                 .flat = flat,
                 .fn = square_back,
                 .ud = n,
                 .release = release};
  n->made++;
  kn_status st = kn_tape_custom(s->ctx, &f);
  return st == KN_OK ? y : kx_fail(s, st);
}

typedef struct again {
  counted *n;
  kn_tensor *x;
} again;

static kn_tensor *wave(kn_scope *s, kn_tensor *x) { return x ? kx_mul(s, kx_sin(s, x), x) : NULL; }

static kn_status wave_again(kn_context *ctx, void *ud) {
  again *a = ud;
  kn_scope s;
  a->n->called++;
  kn_scope_open(&s, ctx);
  wave(&s, a->x);
  return kn_scope_close(&s, NULL, NULL);
}

static void release_again(void *ud) { ((again *)ud)->n->released++; }

static kn_tensor *checked_wave(kn_scope *s, kn_tensor *x, again *a) {
  kn_checkpoint *point;
  if (!x) return NULL;
  a->x = x;
  a->n->made++;
  kn_status st = kn_checkpoint_new(s->ctx, wave_again, a, release_again, &point);
  if (st != KN_OK) return kx_fail(s, st);
  s->ctx->checkpoint = point;
  kn_tensor *y = wave(s, x);
  s->ctx->checkpoint = NULL;
  kn_checkpoint_release(point);
  return y;
}

/* ---- one step with all of them ---- */

typedef struct step {
  counted hook, custom, point;
  again again;
} step;

static kn_status write(kn_scope *s, kn_tensor *into, kn_tensor *by) {
  kn_tensor *same;
  if (s->status != KN_OK) return s->status;
  kn_status st = kn_apply_inplace(s->ctx, KN_OP_mul, NULL, (kn_tensor *[]){into, by}, 2, &same);
  if (st == KN_OK) kn_tensor_release(same);
  return st;
}

static kn_status run(kn_context *c, kn_tensor *x, kn_tensor *w, step *n) {
  kn_scope s;
  kn_hook *hook = NULL;
  kn_scope_open(&s, c);
  kn_attrs_slice part = {.dim = 0, .start = 1, .stop = 3, .step = 1};
  kn_attrs_sizes line = {.sizes = {1, {-1}}};
  n->again.n = &n->point;
  kn_tensor *y = kx_add(&s, x, x), *v = kx_apply(&s, KN_OP_slice, &part, &y, 1);
  kn_tensor *row = kx_apply(&s, KN_OP_reshape, &line, &y, 1);
  kn_status st = write(&s, v, w); /* y = 2 x, its second and third element times w */
  if (st == KN_OK) st = kn_tape_retain_grad(c, y);
  if (st == KN_OK) {
    n->hook.made++;
    st = kn_tape_hook(c, row, false, twice, &n->hook, release, &hook);
  }
  if (st == KN_OK) {
    kn_tensor *z = checked_wave(&s, square(&s, row, &n->custom), &n->again);
    kn_tensor *sum = z ? kx_sum(&s, z, &(kn_ints){0}, false) : NULL;
    st = sum ? kn_backward(c, sum, NULL, false) : s.status;
  }
  if (st == KN_OK) ck_assert_ptr_nonnull(kn_grad_of(y));
  kn_hook_release(hook);
  kn_scope_close(&s, NULL, NULL);
  return st;
}

typedef struct shaky {
  uint64_t calls, fail_at;
} shaky;

static void *shaky_alloc(void *ud, void *p, size_t old, size_t size) {
  shaky *h = ud;
  (void)old;
  if (!size) {
    free(p);
    return NULL;
  }
  return ++h->calls == h->fail_at ? NULL : realloc(p, size);
}

START_TEST(out_of_memory) {
  bool done = false;
  for (uint64_t fail_at = 1; !done; fail_at++) {
    ck_assert_uint_lt(fail_at, 100000);
    shaky h = {0};
    step n = {{0}, {0}, {0}, {NULL, NULL}};
    kn_heap *heap = kn_heap_new(shaky_alloc, &h, 0);
    kn_context *c = kn_context_new(heap, NULL);
    kn_tensor *x = make(c, KN_F64, DIMS(4), LIST(1, 2, 3, 4)), *w = make(c, KN_F64, DIMS(2), LIST(0.5, -1));
    OK(c, kn_set_requires_grad(c, x, true));
    OK(c, kn_set_requires_grad(c, w, true));
    h.fail_at = h.calls + fail_at;
    kn_status st = run(c, x, w, &n);
    done = h.calls < h.fail_at;
    h.fail_at = 0;
    ck_assert_msg(st == KN_OK || st == KN_NOMEM, "%s", kn_error(c));
    ck_assert(st == KN_OK || !done);
    ck_assert(c->grad_enabled && !c->checkpoint);
    ck_assert((kn_grad_of(x) != NULL) == (st == KN_OK)); /* all or nothing */
    ck_assert((kn_grad_of(w) != NULL) == (st == KN_OK));
    ck_assert_int_eq(n.hook.made, n.hook.released);
    ck_assert_int_eq(n.custom.made, n.custom.released);
    ck_assert_int_eq(n.point.made, n.point.released);
    if (done) {
      ck_assert_int_eq(n.hook.called, 1);
      ck_assert_int_eq(n.custom.called, 1);
      ck_assert_int_eq(n.point.called, 1);
      /* y = 2 x (times w), z = y²: d(sin z · z) = (cos z · z + sin z) 2 y, doubled by the hook */
      double ys[4] = {2, 4 * 0.5, 6 * -1, 8}, by[4] = {2, 2 * 0.5, 2 * -1, 2}, want[4];
      for (int i = 0; i < 4; i++) {
        double z = ys[i] * ys[i];
        want[i] = 2 * (cos(z) * z + sin(z)) * 2 * ys[i] * by[i];
      }
      expect_near(kn_grad_of(x), KN_F64, DIMS(4), want, 1e-12);
    }
    kn_tensor_release(x);
    kn_tensor_release(w);
    kn_heap_release(heap);
    suite_done(c);
  }
}
END_TEST

/* ---- overlap ---- */

static bool overlaps(const int64_t *dims, const int64_t *strides, int rank) {
  bool taken[512] = {false};
  int64_t count = 1;
  for (int d = 0; d < rank; d++) count *= dims[d];
  for (int64_t k = 0; k < count; k++) {
    int64_t at = 0, rest = k;
    for (int d = 0; d < rank; d++) {
      at += rest % dims[d] * strides[d];
      rest /= dims[d];
    }
    if (taken[at]) return true;
    taken[at] = true;
  }
  return false;
}

START_TEST(overlap_is_exact) {
  kn_context *c = suite_context();
  uint32_t seed = 1;
  int yes = 0, no = 0;
  for (int round = 0; round < 20000; round++) {
    int64_t dims[3], strides[3];
    int rank = 1 + round % 3;
    for (int d = 0; d < rank; d++) {
      seed = seed * 1664525u + 1013904223u;
      dims[d] = (seed >> 16) % 5;
      strides[d] = (seed >> 20) % 13;
    }
    bool got = false, want = overlaps(dims, strides, rank);
    OK(c, kn_overlaps_itself(c, rank, dims, strides, &got));
    ck_assert_msg(got == want, "round %d", round);
    *(want ? &yes : &no) += 1;
  }
  ck_assert_int_gt(yes, 1000);
  ck_assert_int_gt(no, 1000);
  suite_done(c);
}
END_TEST

START_TEST(overlap_of_two) {
  kn_context *c = suite_context();
  kn_tensor *x = make(c, KN_F32, DIMS(6), LIST(1, 2, 3, 4, 5, 6)),
            *y = make(c, KN_F32, DIMS(6), LIST(1, 2, 3, 4, 5, 6));
  kn_scope s;
  kn_scope_open(&s, c);
  kn_attrs_slice low = {.dim = 0, .start = 0, .stop = 4, .step = 1},
                 high = {.dim = 0, .start = 4, .stop = 6, .step = 1};
  kn_attrs_slice mid = {.dim = 0, .start = 1, .stop = 5, .step = 1};
  kn_tensor *a = kx_apply(&s, KN_OP_slice, &low, &x, 1), *b = kx_apply(&s, KN_OP_slice, &high, &x, 1);
  kn_tensor *m = kx_apply(&s, KN_OP_slice, &mid, &x, 1), *again_a = kx_apply(&s, KN_OP_slice, &low, &x, 1);
  ck_assert_int_eq(kn_tensor_overlap(x, y), KN_OVERLAP_NONE);
  ck_assert_int_eq(kn_tensor_overlap(a, b), KN_OVERLAP_NONE);
  ck_assert_int_eq(kn_tensor_overlap(a, m), KN_OVERLAP_MIXED);
  ck_assert_int_eq(kn_tensor_overlap(a, again_a), KN_OVERLAP_SAME);
  OK(c, kn_scope_close(&s, NULL, NULL));
  kn_tensor_release(x);
  kn_tensor_release(y);
  suite_done(c);
}
END_TEST

SUITE("tape", out_of_memory, overlap_is_exact, overlap_of_two)
