/* Attention that runs as one (backends/cpu/attention*.c): random forms of it, sizes, strides and masks
 * against the reference, node by node, on every instruction set's loops; that it does run as one, and where
 * it must not. */
#include "backends/cpu/cpu.h"
#include "spec/exec.h"
#include <fenv.h>

/* ---- a target that tells how long the longest group was ---- */

typedef struct looker {
  kn_target of;
  uint32_t longest, hidden;
} looker;

static bool look_supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                          size_t size) {
  const kn_target *t = &((looker *)self)->of;
  return t->supports(t->self, ctx, n, types, why, size);
}
static bool look_wants(void *self, const kn_part *part, const kn_node *n) {
  const kn_target *t = &((looker *)self)->of;
  return t->wants(t->self, part, n);
}
static bool look_joins(void *self, const kn_part *part, const kn_node *n) {
  const kn_target *t = &((looker *)self)->of;
  return t->joins(t->self, part, n);
}
static kn_status look_compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  looker *l = self;
  KN_TRY(l->of.compile(l->of.self, ctx, part, out));
  for (uint32_t i = 0; i < part->n; i++) {
    if (part->together[i] > l->longest) l->longest = part->together[i];
    l->hidden += part->room[part->nodes[i]->out[0]->id] == KN_ROOM_NONE;
  }
  return KN_OK;
}
static kn_status look_run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals,
                          const kn_scalar *scalars) {
  const kn_target *t = &((looker *)self)->of;
  return t->run(t->self, ctx, p, vals, scalars);
}
static void look_free(void *self, kn_context *ctx, kn_program *p) {
  const kn_target *t = &((looker *)self)->of;
  t->free(t->self, ctx, p);
}
static kn_target target_of(looker *l, const cp_set *set) {
  *l = (looker){.of = cp_target_of(set)};
  return (kn_target){.name = "cpu",
                     .supports = look_supports,
                     .joins = look_joins,
                     .wants = look_wants,
                     .compile = look_compile,
                     .run = look_run,
                     .free = look_free,
                     .self = l};
}

/* ---- graphs ---- */

enum { INPUTS = 6 }; /* q, k, v, a bool mask, one to add, rows to keep */

typedef struct maker {
  char text[4000], *at;
  uint64_t seed, drawn;
  kn_dtype dtype;
  int64_t b, h, l, s, e, w;
  kn_ints dims[INPUTS];
  uint32_t nodes; /* that should run as one */
  bool odd;       /* nan and infinities among the elements */
} maker;

static int draw(maker *m, int n) { return (int)(kn_random_word(m->seed, 11, m->drawn++) % (uint64_t)n); }
#define PUT(...) m->at += sprintf(m->at, __VA_ARGS__)

static void put_dims(maker *m, int input, const char *dtype) {
  PUT("%s[", dtype);
  for (int d = 0; d < m->dims[input].n; d++) PUT("%s%d", d ? "," : "", (int)m->dims[input].v[d]);
  PUT("]");
}

static kn_ints mask_dims(maker *m) {
  switch (draw(m, 5)) {
  case 0: return DIMS(m->l, m->s);
  case 1: return DIMS(m->b, 1, 1, m->s);
  case 2: return DIMS(m->b, m->h, m->l, m->s);
  case 3: return DIMS(m->b, 1, m->l, m->s);
  default: return DIMS(m->l, 1);
  }
}

/* The scores so far, changed by one more step. */
static void put_step(maker *m, int i) {
  const char *at = i ? "s" : "p";
  switch (draw(m, 5)) {
  case 0: PUT("  %%s%d = mul %%%s%d, %%scale\n", i + 1, at, i); break;
  case 1: PUT("  %%s%d = div %%%s%d, %%scale\n", i + 1, at, i); break;
  case 2: PUT("  %%s%d = add %%a, %%%s%d\n", i + 1, at, i); break;
  case 3: PUT("  %%s%d = where %%m, %%%s%d, %%low\n", i + 1, at, i); break;
  default: PUT("  %%s%d = where %%m, %%low, %%%s%d\n", i + 1, at, i);
  }
  m->nodes++;
}

static void make_text(maker *m, uint64_t seed, kn_dtype dtype) {
  static const int64_t lengths[] = {1, 2, 4, 5, 7, 16, 17, 33, 40, 64, 70},
                       widths[] = {1, 3, 8, 16, 20, 32, 40};
  const char *d = kn_dtypes[dtype].name;
  *m = (maker){.seed = seed, .dtype = dtype};
  m->at = m->text;
  m->b = 1 + draw(m, 2), m->h = 1 + draw(m, 3);
  m->l = lengths[draw(m, COUNT(lengths))], m->s = draw(m, 2) ? m->l : lengths[draw(m, COUNT(lengths))];
  m->e = widths[draw(m, COUNT(widths))], m->w = draw(m, 2) ? m->e : widths[draw(m, COUNT(widths))];
  m->odd = !draw(m, 5);
  const bool apart = draw(m, 2), keys = draw(m, 2), turned = draw(m, 2);
  const int64_t kb = draw(m, 3) ? m->b : 1, kh = draw(m, 3) ? m->h : 1; /* keys and values of several heads */
  const bool fewer = !apart && !draw(m, 6) && m->b == kb;               /* dims in front */
  m->dims[0] = apart ? DIMS(m->b, m->l, m->h, m->e) : DIMS(m->b, m->h, m->l, m->e);
  if (fewer) m->dims[0] = DIMS(m->h, m->l, m->e);
  m->dims[1] = keys ? DIMS(kb, kh, m->s, m->e) : DIMS(kb, kh, m->e, m->s);
  m->dims[2] = apart ? DIMS(kb, m->s, kh, m->w) : DIMS(kb, kh, m->s, m->w);
  m->dims[3] = mask_dims(m), m->dims[4] = mask_dims(m), m->dims[5] = DIMS(m->l, 1);
  static const char *const names[] = {"q", "k", "v", "m", "a", "r"};
  PUT("graph g(");
  for (int i = 0; i < INPUTS; i++) {
    PUT("%s%%%s: ", i ? ", " : "", names[i]);
    put_dims(m, i, i == 3 || i == 5 ? "bool" : d);
  }
  PUT(") {\n  %%half = const 0.375\n  %%scale: %s[] = to_tensor %%half\n", d);
  PUT("  %%lowest = const %s\n  %%low: %s[] = to_tensor %%lowest\n", draw(m, 3) ? "-inf" : "-3.5", d);
  PUT("  %%none = const 0.0\n  %%zero: %s[] = to_tensor %%none\n", d);
  PUT("  %%q1 = %s\n", apart ? "transpose %q {dim0 = 2, dim1 = 3}" : "neg %q");
  PUT("  %%v0 = %s\n", apart ? "transpose %v {dim0 = 2, dim1 = 3}" : "neg %v");
  PUT("  %%k0 = %s\n", keys ? "transpose %k {dim0 = 3, dim1 = 4}" : "neg %k");
  const int spread = draw(m, 3);
  if (spread == 1)
    PUT("  %%v1 = expand %%v0 {sizes = {%d, %d, -1, -1}}\n  %%k1 = expand %%k0 {sizes = {%d, %d, -1, -1}}\n",
        (int)m->b, (int)m->h, (int)m->b, (int)m->h);
  else
    PUT("  %%v1 = transpose %%v0 {dim0 = 1, dim1 = 1}\n  %%k1 = transpose %%k0 {dim0 = 1, dim1 = 1}\n");
  m->nodes = 3;
  const int scaled = draw(m, 3);
  if (scaled) PUT("  %%q2 = %s %%q1, %%scale\n", scaled == 1 ? "mul" : "div");
  m->nodes += scaled > 0;
  PUT("  %%p0 = matmul %%q%d, %%k1\n", scaled ? 2 : 1);
  const int steps = draw(m, 4);
  for (int i = 0; i < steps; i++) put_step(m, i);
  PUT("  %%w0 = softmax %%%s%d {dim = %d}\n", steps ? "s" : "p", steps, draw(m, 2) ? -1 : 4);
  const bool kept = !draw(m, 3);
  if (kept) PUT("  %%w1 = where %%r, %%w0, %%zero\n");
  m->nodes += kept;
  PUT("  %%y = matmul %%w%d, %%v1\n", kept);
  if (turned) {
    PUT("  %%t = transpose %%y {dim0 = 2, dim1 = 3}\n  %%z = reshape %%t {sizes = {%d, %d, %d}}\n", (int)m->b,
        (int)m->l, (int)(m->h * m->w));
    m->nodes += m->h > 1 && m->l > 1 && m->w > 1;
    PUT("  %%z1 = relu %%z\n  %%z2 = add %%z, %%z1\n  return %%z2\n}\n");
  } else
    PUT("  return %%y\n}\n");
}

/* ---- node by node, and as one ---- */

static double drawn_element(const maker *m, int input, int64_t k) {
  const uint64_t w = kn_random_word(m->seed, 20 + (uint64_t)input, (uint64_t)k);
  if (input == 3 && m->dims[3].v[m->dims[3].n - 1] == m->s && m->seed % 2)
    return k % m->s <= k / m->s % (m->l + 3); /* as causal ones */
  if (input == 3 || input == 5) return w % 3 != 0;
  if (m->odd && w % 97 == 0) return (double[]){NAN, INFINITY, -INFINITY}[w / 97 % 3];
  if (input == 4 && w % 11 == 0) return -INFINITY;
  return (double)(w % 4096) / 1024 - 2;
}

static void watch(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars) {
  (void)ud, (void)n, (void)vals, (void)scalars;
}

static void run_both(kn_context *c, const maker *m, const cp_set *set) {
  looker look;
  const kn_target cpu = target_of(&look, set);
  kn_graph *g = parse(c, m->text);
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_session *s[3];
  OK(c, kn_session_new(c, g, (const kn_target *[]){&ref}, 1, &s[0]));
  OK(c, kn_session_new(c, g, (const kn_target *[]){&cpu, &ref}, 2, &s[1]));
  OK(c, kn_session_new(c, g, (const kn_target *[]){&cpu, &ref}, 2, &s[2]));
  kn_session_observe(s[0], watch, NULL);
  kn_session_set_check(s[2], true);
  kn_rvalue in[INPUTS] = {{0}}, out[3] = {{0}};
  for (int i = 0; i < INPUTS; i++) {
    const kn_type t = type_of(i == 3 || i == 5 ? KN_BOOL : m->dtype, m->dims[i]);
    OK(c, kn_tensor_new(c, &t, &in[i].tensor));
    for (int64_t k = 0; k < kn_tensor_numel(in[i].tensor); k++)
      set_element(in[i].tensor, k, drawn_element(m, i, k));
  }
  for (int i = 0; i < (m->odd ? 2 : 3); i++)
    OK(kn_session_context(s[i]), kn_session_run(s[i], in, INPUTS, &out[i], 1));
  ck_assert_msg(look.longest >= m->nodes && look.hidden >= m->nodes - 1,
                "%d of %d nodes as one, %d hidden:\n%s", (int)look.longest, (int)m->nodes, (int)look.hidden,
                m->text);
  const kn_tensor *want = out[0].tensor, *got = out[1].tensor;
  ck_assert(kn_type_equal(&want->type, &got->type));
  for (int64_t k = 0; k < kn_tensor_numel(want); k++) {
    const double x = element(want, k), y = element(got, k);
    ck_assert_msg(near(x, y, m->dtype == KN_F32 ? 3e-5 : 1e-12),
                  "%s, seed %d, element %d is %.9g instead of %.9g:\n%s", set->provider->name, (int)m->seed,
                  (int)k + 1, y, x, m->text);
  }
  for (int i = 0; i < 3; i++) kn_tensor_release(out[i].tensor), kn_session_free(s[i]);
  for (int i = 0; i < INPUTS; i++) kn_tensor_release(in[i].tensor);
  kn_graph_release(g);
}

START_TEST(random_attention) {
  kn_context *c = suite_context();
  for (int isa = 0; isa < cp_provider_count(); isa++)
    for (uint64_t seed = 1; seed <= 90; seed++) {
      maker m;
      c->threads = 1 + (int)(seed % 2);
      make_text(&m, seed, seed % 4 ? KN_F32 : KN_F64);
      run_both(c, &m, cp_set_at(isa));
    }
  suite_done(c);
}
END_TEST

/* ---- which nodes ---- */

static uint32_t longest(const char *text) {
  kn_context *c = suite_context();
  looker look;
  const kn_target cpu = target_of(&look, cp_best_set());
  kn_graph *g = parse(c, text);
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_session *s;
  OK(c, kn_session_new(c, g, (const kn_target *[]){&cpu, &ref}, 2, &s));
  kn_rvalue in[3] = {{0}}, out[2] = {{0}};
  for (uint32_t i = 0; i < 3; i++) {
    OK(c, kn_tensor_new(c, &g->body->params[i]->type.tensor, &in[i].tensor));
    for (int64_t k = 0; k < kn_tensor_numel(in[i].tensor); k++) set_element(in[i].tensor, k, (double)(k % 7));
  }
  OK(kn_session_context(s), kn_session_run(s, in, 3, out, g->body->nyields));
  for (int i = 0; i < 3; i++) kn_tensor_release(in[i].tensor);
  for (int i = 0; i < 2; i++) kn_tensor_release(out[i].tensor);
  kn_session_free(s);
  kn_graph_release(g);
  suite_done(c);
  return look.longest;
}

#define HEAD "graph g(%q: float32[2,9,8], %k: float32[2,8,9], %v: float32[2,9,8]) {\n"

/* Whoever else reads scores or weights gets them, and so does a gradient. */
START_TEST(scores_that_others_read_are_stored) {
  ck_assert_int_eq(longest(HEAD "  %s = matmul %q, %k\n  %w = softmax %s {dim = -1}\n  %y = matmul %w, %v\n"
                                "  return %y\n}\n"),
                   3);
  ck_assert_int_eq(longest(HEAD "  %s = matmul %q, %k\n  %w = softmax %s {dim = -1}\n  %y = matmul %w, %v\n"
                                "  return %y, %w\n}\n"),
                   0);
  ck_assert_int_eq(longest(HEAD "  %s = matmul %q, %k\n  %w = softmax %s {dim = -1}\n  %y = matmul %w, %v\n"
                                "  %t = sum %s\n  return %y, %t\n}\n"),
                   0);
  ck_assert_int_eq(longest(HEAD "  %s = matmul %q, %k\n  %w = softmax %s {dim = 2}\n  %y = matmul %w, %v\n"
                                "  return %y\n}\n"),
                   0);
  ck_assert_int_eq(longest(HEAD "  %s = matmul %q, %k\n  %w = softmax %s {dim = -1}\n  %y = matmul %w, %w\n"
                                "  return %y\n}\n"),
                   0);
}
END_TEST

/* What has nothing to do with it may stand between. */
START_TEST(others_run_before) {
  ck_assert_int_eq(longest(HEAD "  %s = matmul %q, %k\n  %a = relu %v\n  %w = softmax %s {dim = -1}\n"
                                "  %b = neg %a\n  %y = matmul %w, %b\n  return %y, %a\n}\n"),
                   5);
}
END_TEST

/* ---- what is none of one walk runs all the same ---- */

/* As it is, with KILN_CHECK, and node by node. */
static void same_by_all(const char *text, const kn_type *type) {
  kn_context *c = suite_context();
  const kn_target cpu = cp_target_of(cp_best_set());
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  kn_graph *g = parse(c, text);
  kn_rvalue in[3] = {{0}}, out[3][2] = {{{0}}};
  for (uint32_t i = 0; i < 3; i++) {
    OK(c, kn_tensor_new(c, type, &in[i].tensor));
    for (int64_t k = 0; k < kn_tensor_numel(in[i].tensor); k++)
      set_element(in[i].tensor, k, (double)((k * 7 + i) % 13) / 4);
  }
  for (int i = 0; i < 3; i++) {
    kn_session *s;
    OK(c, kn_session_new(c, g, (const kn_target *[]){&cpu, &ref}, 2, &s));
    if (i == 1) kn_session_set_check(s, true);
    if (i == 2) kn_session_observe(s, watch, NULL);
    OK(kn_session_context(s), kn_session_run(s, in, 3, out[i], g->body->nyields));
    kn_session_free(s);
  }
  for (uint32_t o = 0; o < g->body->nyields; o++)
    for (int i = 0; i < 3; i++) {
      for (int64_t k = 0; k < kn_tensor_numel(out[0][o].tensor); k++)
        ck_assert(near(element(out[i][o].tensor, k), element(out[2][o].tensor, k), 3e-5));
      if (i) kn_tensor_release(out[i][o].tensor);
    }
  for (uint32_t o = 0; o < g->body->nyields; o++) kn_tensor_release(out[0][o].tensor);
  for (int i = 0; i < 3; i++) kn_tensor_release(in[i].tensor);
  kn_graph_release(g);
  suite_done(c);
}

#define HEADS "graph g(%q: float32[2,3,9,8], %k: float32[2,3,9,8], %v: float32[2,3,9,8]) {\n"
#define TURNED(y, t, z)                                                                                      \
  "  %" t " = transpose %" y " {dim0 = 2, dim1 = 3}\n  %" z " = reshape %" t " {sizes = {2, 9, 24}}\n"

/* Two that take turns: each stands among the nodes of the other, copies behind them too. */
START_TEST(two_that_take_turns) {
  const kn_type type = type_of(KN_F32, DIMS(2, 3, 9, 8));
  same_by_all(HEADS "  %a = transpose %k {dim0 = 3, dim1 = 4}\n  %b = neg %a\n"
                    "  %p1 = matmul %q, %a\n  %p2 = matmul %q, %b\n  %w1 = softmax %p1 {dim = -1}\n"
                    "  %w2 = softmax %p2 {dim = -1}\n  %y1 = matmul %w1, %v\n" TURNED(
                        "y1", "t1", "z1") "  %y2 = matmul %w2, %v\n" TURNED("y2", "t2",
                                                                            "z2") "  return %z1, %z2\n}\n",
              &type);
  same_by_all(HEADS "  %a = transpose %k {dim0 = 3, dim1 = 4}\n  %b = neg %a\n"
                    "  %p1 = matmul %q, %a\n  %p2 = matmul %q, %b\n  %w1 = softmax %p1 {dim = -1}\n"
                    "  %w2 = softmax %p2 {dim = -1}\n  %y2 = matmul %w2, %v\n" TURNED(
                        "y2", "t2", "z2") "  %y1 = matmul %w1, %v\n" TURNED("y1", "t1",
                                                                            "z1") "  return %z1, %z2\n}\n",
              &type);
}
END_TEST

/* A product with a number makes floats of whole numbers: these are no queries. */
START_TEST(whole_numbers_are_scaled) {
  const kn_type type = type_of(KN_F32, DIMS(2, 3, 9, 8));
  same_by_all(HEADS
              "  %a = transpose %k {dim0 = 3, dim1 = 4}\n  %half = const 0.375\n"
              "  %scale: float32[] = to_tensor %half\n  %n: int32[2,3,9,8] = cast %q {dtype = \"int32\"}\n"
              "  %m = mul %n, %scale\n  %p1 = matmul %m, %a\n  %w1 = softmax %p1 {dim = -1}\n"
              "  %y1 = matmul %w1, %v\n  return %y1\n}\n",
              &type);
}
END_TEST

/* Nobody makes room beforehand for a reshape that a list takes up. */
START_TEST(a_list_takes_it_up) {
  const kn_type type = type_of(KN_F32, DIMS(2, 3, 9, 8));
  same_by_all(HEADS
              "  %a = transpose %k {dim0 = 3, dim1 = 4}\n  %none: list[float32[2,9,24]] = list\n"
              "  %p1 = matmul %q, %a\n  %w1 = softmax %p1 {dim = -1}\n"
              "  %y1 = matmul %w1, %v\n" TURNED("y1", "t1", "z1") "  %one = append %none, %z1\n"
                                                                  "  %s = list_stack %one\n  return %s\n}\n",
              &type);
}
END_TEST

/* Processors take a hundred times as long for a product that vanishes: what a mask hides is made none. Not
 * asked of the plain loops, where there are others: GCC 14 has them multiply first and choose afterwards. */
START_TEST(what_is_hidden_vanishes_by_no_rounding) {
  static const kn_op ops[] = {KN_OP_softmax, KN_OP_log_softmax, KN_OP_exp, KN_OP_sigmoid};
  const kn_attrs_axis last = {.dim = -1};
  kn_context *c = suite_context();
  for (int d = KN_F32; d <= KN_F64; d++) {
    const kn_type t = type_of((kn_dtype)d, DIMS(5, 70));
    kn_tensor *x, *y;
    OK(c, kn_tensor_new(c, &t, &x));
    OK(c, kn_tensor_new(c, &t, &y));
    for (int64_t i = 0; i < kn_tensor_numel(x); i++) set_element(x, i, i % 3 ? -1e9 : (double)(i % 7) / 8);
    for (int k = cp_provider_count() > 1; k < cp_provider_count(); k++)
      for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        feclearexcept(FE_ALL_EXCEPT);
        OK(c, cp_provider_at(k)->kernel[ops[i]](c, i < 2 ? &last : NULL, &x, 1, &y));
        ck_assert_msg(!fetestexcept(FE_UNDERFLOW), "%s: %s of %s", cp_provider_at(k)->name,
                      kn_op_name(ops[i]), kn_dtype_name((kn_dtype)d));
      }
    kn_tensor_release(x), kn_tensor_release(y);
  }
  suite_done(c);
}
END_TEST

SUITE("attention", random_attention, scores_that_others_read_are_stored, others_run_before,
      two_that_take_turns, whole_numbers_are_scaled, a_list_takes_it_up,
      what_is_hidden_vanishes_by_no_rounding)
