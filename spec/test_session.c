/* What surrounds a run: slots and their rollback, the random stream, limits, writes into tensors, observers,
 * partition between targets, the registry of backends. */
#include "backends/registry.h"
#include "spec/exec.h"

/* ---- slots ---- */

static const char counter_text[] = "graph g(%x: float32[2], %stop: integer) {\n"
                                   "  slot state \"n\": integer\n"
                                   "  slot state \"mean\": float32[2]\n"
                                   "  %n = load_state \"n\"\n"
                                   "  %one = const 1\n"
                                   "  %n2: integer = lua.add %n, %one\n"
                                   "  store_state \"n\", %n2\n"
                                   "  %m = load_state \"mean\"\n"
                                   "  %m2: float32[2] = add %m, %x\n"
                                   "  store_state \"mean\", %m2\n"
                                   "  %again = load_state \"mean\"\n"
                                   "  %twice: float32[2] = add %again, %again\n"
                                   "  store_state \"mean\", %twice\n"
                                   "  %ok: boolean = lua.lt %n, %stop\n"
                                   "  assert %ok \"too many\"\n"
                                   "  %last = load_state \"mean\"\n"
                                   "  return %n2, %m, %again, %last\n"
                                   "}\n";

START_TEST(state_commits_and_rolls_back) {
  rig r;
  rig_open(&r, counter_text);
  kn_tensor *x = VEC(&r, 1, 2), *zero = VEC(&r, 0, 0);
  kn_rvalue out[4], v;
  kn_context *c = rig_ctx(&r);
  FAILS(c, KN_STATE, "slot \"mean\" has no data", RUN(&r, out, 4, T(x), INT(5)));
  OK(c, kn_session_get_slot(r.s, 0, &v)); /* the store before the failure is undone */
  ck_assert_int_eq(v.scalar.as.i, 0);
  FAILS(c, KN_STATE, "has no data", kn_session_get_slot(r.s, 1, &v));
  FAILS(c, KN_ARG, "slot \"mean\": float32[2] is needed (got an integer)",
        kn_session_set_slot(r.s, 1, &(kn_rvalue){0}));
  FAILS(c, KN_ARG, "slot \"n\": integer is needed (got float32[2])",
        kn_session_set_slot(r.s, 0, &(kn_rvalue){.tensor = x}));
  FAILS(c, KN_INDEX, "has 2 slots", kn_session_set_slot(r.s, 2, &(kn_rvalue){.tensor = x}));
  OK(c, kn_session_set_slot(r.s, 1, &(kn_rvalue){.tensor = zero}));
  double mean = 0;
  for (int i = 1; i <= 3; i++) {
    OK(c, RUN(&r, out, 4, T(x), INT(3)));
    ck_assert_int_eq(out[0].scalar.as.i, i);
    GIVES(&out[1], mean, 2 * mean);
    GIVES(&out[2], mean + 1, 2 * mean + 2);
    mean = 2 * (mean + 1);
    GIVES(&out[3], mean, 2 * mean);
  }
  expect(zero, KN_F32, DIMS(2), LIST(0, 0)); /* the tensor that was set is not written */
  for (int i = 0; i < 2; i++) {
    FAILS(c, KN_RAISED, "too many", RUN(&r, out, 4, T(x), INT(3)));
    OK(c, kn_session_get_slot(r.s, 0, &v));
    ck_assert_int_eq(v.scalar.as.i, 3);
    OK(c, kn_session_get_slot(r.s, 1, &v));
    GIVES(&v, mean, 2 * mean);
  }
  OK(c, kn_session_set_slot(r.s, 0, &(kn_rvalue){.scalar = {KN_SCALAR_INT, {.i = 1}}}));
  OK(c, RUN(&r, out, 4, T(x), INT(3)));
  ck_assert_int_eq(out[0].scalar.as.i, 2);
  for (int i = 1; i < 4; i++) kn_tensor_release(out[i].tensor);
  kn_tensor_release(x), kn_tensor_release(zero);
  rig_close(&r);
}
END_TEST

/* What is stored is computed where it is to lie: none of it is in the arena. Whoever holds what was stored
 * before keeps it. */
START_TEST(stores_in_place) {
  static const char text[] = "graph g(%x: float32[2], %fine: boolean) {\n"
                             "  slot state \"a\": float32[2]\n"
                             "  slot state \"b\": float32[2]\n"
                             "  slot state \"c\": float32[2]\n"
                             "  %a = load_state \"a\"\n"
                             "  %a2: float32[2] = add %a, %x\n"
                             "  %b2: float32[2] = mul %a2, %a\n"
                             "  store_state \"a\", %a2\n"
                             "  %now = load_state \"a\"\n"
                             "  %x2: float32[2] = sub %now, %b2\n"
                             "  store_state \"b\", %b2\n"
                             "  store_state \"c\", %b2\n"
                             "  update %x, %x2\n"
                             "  assert %fine \"not fine\"\n"
                             "  return\n"
                             "}\n";
  rig r;
  rig_open(&r, text);
  kn_context *c = rig_ctx(&r);
  kn_tensor *x = VEC(&r, 1, 2), *a = VEC(&r, 3, 4), *held = NULL;
  kn_rvalue v, yes = {.scalar = {KN_SCALAR_BOOL, {.b = true}}},
               no = {.scalar = {KN_SCALAR_BOOL, {.b = false}}};
  kn_run_memory m;
  double want[2][3] = {{3, 0, 1}, {4, 0, 2}}; /* a, b, x */
  OK(c, kn_session_set_slot(r.s, 0, &(kn_rvalue){.tensor = a}));
  OK(c, kn_session_prepare(r.s, (kn_rvalue[]){T(x), yes}, 2, &m));
  ck_assert_uint_eq(m.arena, 0);
  for (int i = 0; i < 5; i++) {
    FAILS(c, KN_RAISED, "not fine", RUN(&r, NULL, 0, T(x), no));
    expect(x, KN_F32, DIMS(2), LIST(want[0][2], want[1][2]));
    OK(c, RUN(&r, NULL, 0, T(x), yes));
    if (held) expect(held, KN_F32, DIMS(2), LIST(want[0][0], want[1][0]));
    for (int k = 0; k < 2; k++) {
      double *w = want[k], was = w[0];
      w[0] += w[2], w[1] = w[0] * was, w[2] = w[0] - w[1];
    }
    expect(x, KN_F32, DIMS(2), LIST(want[0][2], want[1][2]));
    for (uint32_t k = 0; k < 3; k++) {
      OK(c, kn_session_get_slot(r.s, k, &v));
      if (!k) {
        kn_tensor_release(held);
        held = kn_tensor_retain(v.tensor);
      }
      GIVES(&v, want[0][k > 0], want[1][k > 0]);
    }
  }
  expect(a, KN_F32, DIMS(2), LIST(3, 4));
  kn_tensor_release(x), kn_tensor_release(a), kn_tensor_release(held);
  rig_close(&r);
}
END_TEST

/* A sum to its own sizes that is also a result is no other name of what it sums, over which something else is
 * written before the store. */
START_TEST(stores_of_what_is_overwritten) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %z: float32[]) {\n"
               "  slot state \"a\": float32[2]\n"
               "  %h: float32[2] = mul %x, %x\n"
               "  %y: float32[2] = sum_to %h, %x\n"
               "  %w: float32[2] = select_put %h, %z {dim = 1, index = 1}\n"
               "  store_state \"a\", %y\n"
               "  %s: float32[2] = add %w, %w\n"
               "  return %y, %s\n"
               "}\n");
  kn_tensor *x = VEC(&r, 2, 3), *z = number(rig_ctx(&r), KN_F32, 50);
  for (int i = 0; i < 3; i++) {
    kn_rvalue out[2], v;
    OK(rig_ctx(&r), RUN(&r, out, 2, T(x), T(z)));
    GIVES(&out[0], 4, 9);
    GIVES(&out[1], 100, 18);
    OK(rig_ctx(&r), kn_session_get_slot(r.s, 0, &v));
    GIVES(&v, 4, 9);
  }
  kn_tensor_release(x), kn_tensor_release(z);
  rig_close(&r);
}
END_TEST

/* Two sessions of one graph have a state each; what was read stays as it was read. */
START_TEST(sessions_are_apart) {
  rig r;
  rig_open(&r, counter_text);
  kn_session *other;
  OK(r.c, kn_session_new(r.c, r.g, (const kn_target *[]){&r.target}, 1, &other));
  kn_tensor *x = VEC(&r, 1, 2), *zero = VEC(&r, 0, 0);
  kn_rvalue out[4], kept, v;
  OK(rig_ctx(&r), kn_session_set_slot(r.s, 1, &(kn_rvalue){.tensor = zero}));
  OK(rig_ctx(&r), kn_session_set_slot(other, 1, &(kn_rvalue){.tensor = zero}));
  OK(rig_ctx(&r), RUN(&r, out, 4, T(x), INT(9)));
  for (int i = 1; i < 4; i++) kn_tensor_release(out[i].tensor);
  OK(rig_ctx(&r), kn_session_get_slot(r.s, 1, &kept));
  for (int n = 0; n < 3; n++) {
    OK(rig_ctx(&r), RUN(&r, out, 4, T(x), INT(9)));
    for (int i = 1; i < 4; i++) kn_tensor_release(out[i].tensor);
  }
  GIVES(&kept, 2, 4);
  OK(kn_session_context(other), kn_session_get_slot(other, 1, &v));
  GIVES(&v, 0, 0);
  kn_session_free(other);
  kn_tensor_release(x), kn_tensor_release(zero);
  rig_close(&r);
}
END_TEST

/* ---- random numbers ---- */

START_TEST(random_stream) {
  rig r;
  rig_open(&r, "graph g(%n: integer) {\n"
               "  %a: float32[3] = rand {sizes = {3}}\n"
               "  %one = const 1\n"
               "  %t: float32[2] = loop (%i: integer = %one) {\n"
               "    %u: float32[2] = randn {sizes = {2}}\n"
               "    %more: boolean = lua.lt %i, %n\n"
               "    %i2: integer = lua.add %i, %one\n"
               "    continue_if %more next(%i2) exit(%u)\n"
               "  }\n"
               "  %two = const 2\n"
               "  %ok: boolean = lua.le %n, %two\n"
               "  assert %ok \"no\"\n"
               "  return %a, %t\n"
               "}\n");
  kn_context *c = rig_ctx(&r), *e = r.c;
  kn_rvalue out[2];
  kn_random_seed(&e->random, 0);
  kn_random_seed(&c->random, 0);
  kn_random live = e->random;
  for (int turn = 0; turn < 4; turn++) { /* the same numbers as eager code draws, in order */
    if (turn == 2) {                     /* from the caller's stream, which goes on where eager stopped */
      kn_session_use_random(r.s, &live);
      live = e->random;
    }
    kn_random before = turn < 2 ? c->random : live;
    FAILS(c, KN_RAISED, "no", RUN(&r, out, 2, INT(3)));
    ck_assert_int_eq((turn < 2 ? c->random : live).offset, before.offset); /* a failed run draws nothing */
    OK(c, RUN(&r, out, 2, INT(2)));
    kn_tensor *a, *t;
    kn_attrs_create three = {.sizes = DIMS(3), .dtype = KN_F32}, two = {.sizes = DIMS(2), .dtype = KN_F32};
    OK(e, kn_apply(e, KN_OP_rand, &three, NULL, 0, &a));
    OK(e, kn_apply(e, KN_OP_randn, &two, NULL, 0, &t));
    kn_tensor_release(t);
    OK(e, kn_apply(e, KN_OP_randn, &two, NULL, 0, &t));
    gives(&out[0], DIMS(3), LIST(element(a, 0), element(a, 1), element(a, 2)));
    gives(&out[1], DIMS(2), LIST(element(t, 0), element(t, 1)));
    kn_tensor_release(a), kn_tensor_release(t);
    if (turn >= 2)
      ck_assert_int_eq(live.offset, e->random.offset);
    else
      ck_assert_int_eq(c->random.offset, e->random.offset);
  }
  kn_session_use_random(r.s, NULL);
  rig_close(&r);
}
END_TEST

/* ---- limits ---- */

static const char endless_text[] = "graph g(%x: float32[2]) {\n"
                                   "  slot state \"n\": integer\n"
                                   "  %zero = const 0\n"
                                   "  %yes = const true\n"
                                   "  store_state \"n\", %zero\n"
                                   "  %y: float32[2] = loop (%h: float32[2] = %x) {\n"
                                   "    %h2: float32[2] = neg %h\n"
                                   "    continue_if %yes next(%h2) exit(%h2)\n"
                                   "  }\n"
                                   "  return %y\n"
                                   "}\n";

typedef struct poller {
  uint64_t calls, last;
  kn_session *s;
} poller;

static kn_status stop_at_100(void *ud, uint64_t steps) {
  poller *p = ud;
  kn_rvalue v;
  p->calls++;
  p->last = steps;
  if (kn_session_get_slot(p->s, 0, &v) != KN_STATE) return KN_INTERNAL; /* not while it runs */
  return steps < 100 ? KN_OK : KN_CANCELLED;
}

START_TEST(limits_and_cancel) {
  rig r;
  rig_open(&r, endless_text);
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[1] = {{0}};
  kn_context *c = rig_ctx(&r);
  kn_session_set_step_limit(r.s, 1000);
  for (int i = 0; i < 2; i++) FAILS(c, KN_LIMIT, "the limit of 1000 steps", RUN(&r, out, 1, T(x)));
  poller p = {.s = r.s};
  kn_session_set_poll(r.s, stop_at_100, &p);
  FAILS(c, KN_CANCELLED, "stopped by the host", RUN(&r, out, 1, T(x)));
  ck_assert_int_eq(p.last, 100);
  ck_assert_int_eq(p.calls, 101);
  ck_assert_ptr_null(out[0].tensor);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- writing into tensors, comparing handles ---- */

/* Text from outside may not hold ops that write, so these graphs are written with another op in their place.
 */
static void make_writes(kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_OP_minimum) n->op = KN_OP_copy_;
    for (int i = 0; i < n->nregions; i++) make_writes(n->regions[i]);
  }
}

START_TEST(writes_are_seen_by_all_views) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2,2], %n: integer) {\n"
               "  %one = const 1\n"
               "  %a: float32[2,2] = neg %x\n"
               "  %row: float32[2] = select %a {dim = 1, index = 1}\n"
               "  %ten: float32[2] = full {sizes = {2}, value = 10}\n"
               "  %w: float32[2] = minimum %row, %ten\n"
               "  %b: float32[2,2] = add %a, %x\n"
               "  %t: float32[2,2] = loop (%h: float32[2,2] = %a, %i: integer = %one) {\n"
               "    %d: float32[2,2] = mul %h, %h\n"
               "    %h2: float32[2,2] = minimum %h, %d\n"
               "    %more: boolean = lua.lt %i, %n\n"
               "    %i2: integer = lua.add %i, %one\n"
               "    continue_if %more next(%h2, %i2) exit(%h2)\n"
               "  }\n"
               "  %c: float32[2,2] = add %a, %x\n"
               "  %same: boolean = same %t, %a\n"
               "  %other: boolean = same %t, %x\n"
               "  %nine: float32[] = full {sizes = {}, value = 9}\n"
               "  %col: float32[2] = select %x {dim = 2, index = 1}\n"
               "  %into: float32[2] = minimum %col, %nine\n"
               "  return %b, %c, %same, %other, %w\n"
               "}\n");
  make_writes(r.g->body);
  kn_rvalue out[5];
  for (int n = 0; n < 2; n++) {
    kn_tensor *x = f32(&r, DIMS(2, 2), LIST(1, 2, 3, 4));
    OK(rig_ctx(&r), RUN(&r, out, 5, T(x), INT(2)));
    gives(&out[0], DIMS(2, 2), LIST(11, 12, 0, 0));
    gives(&out[1], DIMS(2, 2), LIST(10001, 10002, 84, 260));
    ck_assert(out[2].scalar.as.b && !out[3].scalar.as.b);
    GIVES(&out[4], 10000, 10000);                    /* a view of %a too */
    expect(x, KN_F32, DIMS(2, 2), LIST(9, 2, 9, 4)); /* as eager code would leave it */
    kn_tensor_release(x);
  }
  rig_close(&r);
}
END_TEST

/* An input that is updated changes when all has succeeded, and at no other time. */
START_TEST(updates_inputs) {
  static const char text[] = "graph g(%x: float32[2], %y: float32[2], %fine: boolean) {\n"
                             "  slot param \"w\": float32[2]\n"
                             "  %w = param \"w\"\n"
                             "  %1: float32[2] = add %x, %y\n"
                             "  %2: float32[2] = mul %1, %w\n"
                             "  assert %fine \"not fine\"\n"
                             "  update %x, %2\n"
                             "  return %x, %2\n"
                             "}\n";
  rig r;
  rig_open(&r, text);
  kn_tensor *x = VEC(&r, 1, 2), *y = VEC(&r, 10, 20), *w = VEC(&r, 2, 2);
  kn_context *c = rig_ctx(&r);
  kn_rvalue out[2], yes = {.scalar = {KN_SCALAR_BOOL, {.b = true}}},
                    no = {.scalar = {KN_SCALAR_BOOL, {.b = false}}};
  OK(c, kn_session_set_slot(r.s, 0, &(kn_rvalue){.tensor = w}));
  unsigned version = atomic_load(&x->storage->version);
  FAILS(c, KN_RAISED, "not fine", RUN(&r, out, 2, T(x), T(y), no));
  expect(x, KN_F32, DIMS(2), LIST(1, 2));
  ck_assert_uint_eq(atomic_load(&x->storage->version), version);
  OK(c, RUN(&r, out, 2, T(x), T(y), yes));
  expect(x, KN_F32, DIMS(2), LIST(22, 44));
  ck_assert_uint_eq(atomic_load(&x->storage->version), version + 1);
  GIVES(&out[0], 1, 2); /* what it held */
  GIVES(&out[1], 22, 44);
  FAILS(c, KN_ARG, "input x is overwritten, and input y shares memory", RUN(&r, out, 2, T(x), T(x), yes));
  FAILS(c, KN_ARG, "input x is overwritten, and 'w', which the graph reads",
        RUN(&r, out, 2, T(w), T(y), yes));
  expect(x, KN_F32, DIMS(2), LIST(22, 44));
  for (int i = 0; i < 2; i++) kn_tensor_release(out[i].tensor);
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(w);
  rig_close(&r);
}
END_TEST

START_TEST(writes_into_slots) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %ok: boolean) {\n"
               "  slot state \"s\": float32[2]\n"
               "  %s = load_state \"s\"\n"
               "  %t: float32[2] = add %s, %x\n"
               "  %w: float32[2] = minimum %s, %t\n"
               "  %again = load_state \"s\"\n"
               "  assert %ok \"no\"\n"
               "  return %again\n"
               "}\n");
  make_writes(r.g->body);
  kn_tensor *x = VEC(&r, 1, 2), *zero = VEC(&r, 0, 0);
  kn_rvalue out[1], v;
  kn_context *c = rig_ctx(&r);
  OK(c, kn_session_set_slot(r.s, 0, &(kn_rvalue){.tensor = zero}));
  for (int i = 1; i < 4; i++) {
    OK(c, RUN(&r, out, 1, T(x), BOOL(true)));
    GIVES(&out[0], i, 2 * i);
    FAILS(c, KN_RAISED, "no", RUN(&r, out, 1, T(x), BOOL(false)));
    OK(c, kn_session_get_slot(r.s, 0, &v));
    GIVES(&v, i, 2 * i);
  }
  expect(zero, KN_F32, DIMS(2), LIST(0, 0));
  kn_tensor_release(x), kn_tensor_release(zero);
  rig_close(&r);
  rig_open(&r, "graph g(%x: float32[2]) {\n"
               "  slot param \"p\": float32[2]\n"
               "  %p = param \"p\"\n"
               "  %w: float32[2] = minimum %p, %x\n"
               "  return %w\n"
               "}\n");
  make_writes(r.g->body);
  x = VEC(&r, 1, 2);
  FAILS(rig_ctx(&r), KN_UNSUPPORTED, "it would write into \"p\"", RUN(&r, out, 1, T(x)));
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- observers, checks, several targets ---- */

/* A target that takes what its name says ("neg,add"), and computes negation, right or wrong. */
struct kn_program {
  const kn_node *const *nodes;
  uint32_t n;
};
typedef struct picky {
  kn_target target;
  kn_op op;
  float factor;     /* -1 is right */
  bool gives_up;    /* compile fails */
  int parts, nodes; /* compiled */
} picky;

static bool picky_supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                           size_t size) {
  (void)ctx;
  picky *p = self;
  if (n->op != p->op) return snprintf(why, size, "not to its taste"), false;
  return kn_node_static(n, types, why, size);
}
static kn_status picky_compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  picky *p = self;
  if (p->gives_up) return kn_fail(ctx, KN_UNSUPPORTED, "too hard");
  kn_program *q = kn_alloc(ctx->heap, sizeof *q);
  if (!q) return kn_fail_nomem(ctx, sizeof *q);
  *q = (kn_program){part->nodes, part->n};
  p->parts++;
  p->nodes += (int)part->n;
  *out = q;
  return KN_OK;
}
static kn_status picky_run(void *self, kn_context *ctx, kn_program *q, kn_tensor **vals,
                           const kn_scalar *scalars) {
  picky *p = self;
  (void)ctx, (void)scalars;
  for (uint32_t i = 0; i < q->n; i++) {
    kn_tensor *x = vals[q->nodes[i]->in[0]->id], *y = vals[q->nodes[i]->out[0]->id];
    ck_assert(kn_tensor_contiguous(y));
    for (int64_t k = 0; k < kn_tensor_numel(x); k++) set_element(y, k, element(x, k) * (double)p->factor);
  }
  return KN_OK;
}
static void picky_free(void *self, kn_context *ctx, kn_program *q) {
  (void)self;
  kn_free(ctx->heap, q, sizeof *q);
}

static const char mixed_text[] = "graph g(%x: float32[2,2], %n: integer) {\n"
                                 "  %a: float32[2,2] = neg %x                  ; a.lua:1\n"
                                 "  %t: float32[2,2] = transpose %a            ; a.lua:2\n"
                                 "  %u: float32[2,2] = clone %t                ; a.lua:3\n"
                                 "  %b: float32[2,2] = neg %u                  ; a.lua:4\n"
                                 "  %c: float32[2,2] = neg %b                  ; a.lua:5\n"
                                 "  %row: float32[?,2] = slice %c {dim = 1, start = %n}\n"
                                 "  %d: float32[?,2] = neg %row                ; a.lua:6\n"
                                 "  %s: float32[] = sum %d\n"
                                 "  %f: float = item %s\n"
                                 "  return %c, %d, %f\n"
                                 "}\n";

static void open_picky(rig *r, picky *p, const char *debug) {
  rig_open_debug(r, mixed_text, debug);
  p->target = (kn_target){.name = "picky",
                          .supports = picky_supports,
                          .compile = picky_compile,
                          .run = picky_run,
                          .free = picky_free,
                          .self = p};
  kn_session_free(r->s);
  OK(r->c, kn_session_new(r->c, r->g, (const kn_target *[]){&p->target, &r->target}, 2, &r->s));
}

START_TEST(partition) {
  rig r;
  kn_rvalue out[3];
  for (int up = 0; up < 2; up++) {
    picky p = {.op = KN_OP_neg, .factor = -1, .gives_up = up};
    open_picky(&r, &p, "dispatch,exec");
    kn_tensor *x = f32(&r, DIMS(2, 2), LIST(1, 2, 3, 4));
    OK(rig_ctx(&r), RUN(&r, out, 3, T(x), INT(1)));
    gives(&out[0], DIMS(2, 2), LIST(-1, -3, -2, -4));
    gives(&out[1], DIMS(1, 2), LIST(2, 4));
    ck_assert(out[2].scalar.as.f == 6);
    ck_assert_int_eq(p.parts, up ? 0 : 2);
    ck_assert_int_eq(p.nodes, up ? 0 : 3);
    ck_assert_ptr_null(strstr(r.log, "transpose")); /* a view in the arena is there with the plan */
    ck_assert_ptr_nonnull(strstr(r.log, "dispatch: picky refuses clone (not to its taste) a.lua:3"));
    ck_assert_ptr_nonnull(
        strstr(r.log, "dispatch: picky refuses neg (sizes are only known when it runs) a.lua:6"));
    ck_assert(!strstr(r.log, "dispatch: picky gave up a part: too hard") == !up);
    ck_assert_ptr_nonnull(strstr(r.log, "exec graph    item           = 6"));
    kn_tensor_release(x);
    rig_close(&r);
  }
}
END_TEST

typedef struct watcher {
  int ops, others;
  char names[400];
} watcher;

static void watch(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars) {
  watcher *w = ud;
  if (kn_opcode_is_op(n->op))
    w->ops++;
  else
    w->others++;
  strcat(strcat(w->names, n->out[0]->name), " ");
  if (!strcmp(n->out[0]->name, "a")) ck_assert(element(vals[n->out[0]->id], 0) == -1);
  if (!strcmp(n->out[0]->name, "f")) ck_assert(scalars[n->out[0]->id].as.f == 6);
}

START_TEST(observer) {
  rig r;
  picky p = {.op = KN_OP_neg, .factor = -1};
  open_picky(&r, &p, NULL);
  kn_tensor *x = f32(&r, DIMS(2, 2), LIST(1, 2, 3, 4));
  kn_rvalue out[3];
  watcher w = {0};
  kn_session_observe(r.s, watch, &w);
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), RUN(&r, out, 3, T(x), INT(1)));
    gives(&out[0], DIMS(2, 2), LIST(-1, -3, -2, -4));
    gives(&out[1], DIMS(1, 2), LIST(2, 4));
    kn_session_observe(r.s, NULL, NULL); /* off again */
  }
  ck_assert_int_eq(w.ops, 8);
  ck_assert_int_eq(w.others, 1);
  ck_assert_str_eq(w.names, "a t u b c row d s f ");
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

START_TEST(check_finds_the_liar) {
  rig r;
  kn_rvalue out[3];
  picky p = {.op = KN_OP_neg, .factor = -1.001f};
  open_picky(&r, &p, NULL);
  kn_tensor *x = f32(&r, DIMS(2, 2), LIST(1, 2, 3, 4));
  OK(rig_ctx(&r), RUN(&r, out, 3, T(x), INT(1)));
  kn_tensor_release(out[0].tensor), kn_tensor_release(out[1].tensor);
  kn_session_set_check(r.s, true);
  FAILS(rig_ctx(&r), KN_INTERNAL, "a.lua:1: neg by picky differs from the reference: element [1,1] is -1.00",
        RUN(&r, out, 3, T(x), INT(1)));
  p.factor = -1.000001f; /* rounding */
  OK(rig_ctx(&r), RUN(&r, out, 3, T(x), INT(1)));
  kn_tensor_release(out[0].tensor), kn_tensor_release(out[1].tensor);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- registry ---- */

/* Is a library of this name in the process? */
static bool loaded(const char *name) {
  char line[1024];
  bool found = false;
  FILE *f = fopen("/proc/self/maps", "r");
  while (f && fgets(line, sizeof line, f)) found |= strstr(line, name) != NULL;
  if (f) fclose(f);
  return found;
}

START_TEST(registry) {
  kn_context *c = suite_context();
  kn_backend_report rep;
  const kn_target *const *targets;
  int n;
  FAILS(c, KN_STATE, "not open", kn_registry_targets(c, &targets, &n));
  FAILS(c, KN_ARG, "there is no backend \"tpu\"; known are cuda, onednn, cpu, ref",
        kn_registry_open(c, "tpu"));
  OK(c, kn_registry_open(c, "ref"));
  FAILS(c, KN_STATE, "open already", kn_registry_open(c, NULL));
  ck_assert_ptr_eq(c->providers[KN_CPU][0], &kn_ref_provider);
  kn_context *child = kn_context_child(c);
  OK(child, kn_registry_targets(child, &targets, &n));
  ck_assert_int_eq(n, 1);
  ck_assert_str_eq(targets[0]->name, "ref");
  ck_assert_ptr_null(kn_backend_state(child, &kn_ref_backend)); /* it has none */
  kn_context_free(child);
  kn_registry_close(c);
  kn_registry_close(c);

  OK(c, kn_registry_open(c, ""));
  ck_assert(!loaded("libdnnl")); /* a start opens nothing */
  ck_assert_int_eq(kn_registry_count(), 4);
  bool onednn = false, cuda = false; /* which was asked for, too, and may be there */
  for (int i = 0; i < kn_registry_count(); i++) {
    kn_registry_report(c, i, &rep);
    ck_assert(rep.available ? rep.version[0] && !rep.reason[0] : rep.reason[0] && !rep.version[0]);
    if (!strcmp(rep.name, "onednn")) onednn = rep.available, ck_assert(loaded("libdnnl") == onednn);
    if (!strcmp(rep.name, "cuda")) cuda = rep.available;
    if (!strcmp(rep.name, "ref")) ck_assert(rep.available);
  }
  OK(c, kn_registry_targets(c, &targets, &n));
  ck_assert_int_eq(n, 2 + onednn + cuda);
  ck_assert_str_eq(targets[n - 2]->name, "cpu");
  ck_assert_str_eq(targets[n - 1]->name, "ref");
  kn_registry_report(c, 7, &rep);
  ck_assert(!rep.available && rep.reason[0]);
  kn_registry_close(c);
  if (!onednn)
    FAILS(c, KN_UNSUPPORTED, "backend onednn cannot be used here: ", kn_registry_open(c, "onednn"));
  suite_done(c);
}
END_TEST

SUITE("session", state_commits_and_rolls_back, stores_in_place, stores_of_what_is_overwritten,
      sessions_are_apart, random_stream, limits_and_cancel, writes_are_seen_by_all_views, updates_inputs,
      writes_into_slots, partition, observer, check_finds_the_liar, registry)
