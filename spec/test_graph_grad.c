/* Gradients of graphs: random ones against the tape, over branches, loops, views and lists of sizes. What the
 * gradient graph gives is compared with what the tape gives when the same graph is evaluated op by op, absent
 * gradients included. */
#include "spec/random_graph.h"
#include "backends/ref/ref.h"
#include "core/grad/tape.h"
#include "graph/grad/grad.h"
#include "graph/pipeline.h"
#include "graph/text.h"

enum { TENSORS = 4 }; /* results of a random graph that are tensors; they come first */

typedef struct pair { /* gradients of x, y, m: from the tape, and from the graph */
  kn_tensor *tape[3];
  kn_status st;
} pair;

static kn_tensor *filled(kn_context *c, kn_ints dims, uint64_t seed) {
  kn_tensor *t;
  kn_type type = type_of(KN_F32, dims);
  OK(c, kn_tensor_new(c, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)kn_random_word(seed, 7, (uint64_t)k) / 0x1p31 - 1);
  return t;
}

/* The tape's gradients; weights of the results are made here, as large as they turned out. */
static kn_status by_tape(kn_context *c, const kn_graph *g, kn_rvalue *slots, kn_rvalue *in,
                         kn_tensor **weights, pair *p) {
  kn_rvalue out[6];
  kn_tensor *xs[3] = {in[0].tensor, in[1].tensor, slots[0].tensor}, *ys[TENSORS], *gs[TENSORS];
  for (int i = 0; i < 3; i++) OK(c, kn_set_requires_grad(c, xs[i], true));
  c->grad_enabled = true;
  kn_status st = evaluate(c, g, slots, in, out);
  int ny = 0;
  for (int i = 0; st == KN_OK && i < TENSORS; i++) {
    kn_ints dims = {.n = 2};
    memcpy(dims.v, out[i].tensor->type.dims, sizeof dims.v);
    weights[i] = filled(c, dims, (uint64_t)i + 3);
    if (!kn_requires_grad(out[i].tensor)) continue;
    gs[ny] = weights[i];
    ys[ny++] = out[i].tensor;
  }
  if (st == KN_OK && ny) OK(c, kn_gradients(c, ys, ny, gs, xs, 3, false, p->tape));
  for (int i = 0; st == KN_OK && i < TENSORS; i++) kn_tensor_release(out[i].tensor);
  for (int i = 0; i < 3; i++) OK(c, kn_set_requires_grad(c, xs[i], false));
  c->grad_enabled = false;
  return st;
}

static void swap_in(kn_value **list, uint32_t n, kn_value *to) {
  for (uint32_t i = 0; i < n; i++)
    if (list[i]->def && list[i]->def != to->def && list[i]->def->op == KN_NODE_param &&
        list[i]->def->slot == to->def->slot)
      list[i] = to;
}

/* One param node for the slot, so that there is one gradient for it. */
static void swap_region(kn_region *r, kn_value *to) {
  KN_EACH_NODE (n, r) {
    swap_in(n->in, n->nin, to);
    for (int k = 0; k < n->nregions; k++) swap_region(n->regions[k], to);
  }
  swap_in(r->yields, r->nyields, to);
}

/* g becomes its own gradient: takes weights of the results too, gives the gradients and whether they are
 * there. */
static bool differentiate(kn_context *c, kn_graph *g, bool passes) {
  kn_builder b;
  kn_record r;
  kn_value *ys[TENSORS], *xs[64];
  kn_gradient gs[TENSORS], gx[64];
  uint32_t nx = 2;
  g->finished = false;
  g->partial = true;
  g->nargs = g->nresults = 0;
  kn_builder_init(&b, c, g);
  for (int i = 0; i < TENSORS; i++) ys[i] = g->body->yields[i];
  for (int i = 0; i < TENSORS; i++) gs[i] = (kn_gradient){kn_add_input(&b, "w", &ys[i]->type), false};
  xs[0] = g->body->params[0];
  xs[1] = g->body->params[1];
  kn_value *m = kn_add_slot_node(&b, KN_NODE_param, g->slots[0]);
  kn_node_move_before(m->def, g->body->first);
  swap_region(g->body, m);
  xs[nx++] = m;
  kn_record_init(&r, &b);
  kn_number_pool pool = {.b = &b};
  r.outside = kn_pooled_number;
  r.ud = &pool;
  kn_gradient_request q = {&r, ys, gs, TENSORS, xs, nx, 0};
  if (!kn_emit_gradients(&q, gx) && strstr(kn_error(c), "lists")) return kn_record_free(&r), false;
  ck_assert_msg(b.status == KN_OK, "%s", kn_error(c));
  kn_value *outs[6];
  for (int i = 0; i < 3; i++) {
    outs[2 * i] = gx[i].v ? gx[i].v : kn_add_undef(&b, &xs[i]->type);
    outs[2 * i + 1] = kn_add_defined(&b, outs[2 * i]);
  }
  kn_record_free(&r);
  kn_set_results(&b, outs, 6, NULL, 0);
  OK(c, b.status);
  if (passes) OK(c, kn_pipeline_run(&b, KN_PIPELINE_CAPTURE));
  OK(c, kn_graph_finish(&b));
  return true;
}

static bool close_to(const kn_tensor *a, const kn_tensor *b) {
  if (!kn_type_equal(&a->type, &b->type)) return false;
  for (int64_t k = 0; k < kn_tensor_numel(a); k++) {
    float x = *(const float *)element_at(a, k), y = *(const float *)element_at(b, k);
    if (isnan(x) || isnan(y) ? isnan(x) != isnan(y) : fabsf(x - y) > 1e-4f * (1 + fabsf(x))) return false;
  }
  return true;
}

typedef struct tally {
  unsigned ran, some, none, exact;
} tally;

static kn_status run_session(kn_context *c, kn_graph *g, kn_rvalue *slots, const kn_rvalue *in,
                             kn_rvalue *out) {
  kn_target target;
  kn_session *s;
  ck_assert(kn_ref_backend.target(c, NULL, &target));
  OK(c, kn_session_new(c, g, (const kn_target *[]){&target}, 1, &s));
  for (uint32_t i = 0; i < g->nslots; i++) {
    bool param = !strcmp(g->slots[i]->name, "m");
    if (param || !strcmp(g->slots[i]->name, "s")) OK(c, kn_session_set_slot(s, i, &slots[param ? 0 : 1]));
  }
  kn_session_use_random(s, &c->random);
  kn_status st = kn_session_run(s, in, 4 + TENSORS, out, 6);
  if (st != KN_OK) kn_fail(c, st, "%s", kn_error(kn_session_context(s)));
  kn_session_free(s);
  return st;
}

static void compare_one(kn_context *c, uint64_t seed, int run, tally *count) {
  kn_graph *g = random_graph(c, seed, 10 + (int)seed % 50);
  kn_rvalue in[4 + TENSORS] = {0}, slots[2], out[6];
  kn_tensor *weights[TENSORS] = {NULL};
  pair p = {.tape = {NULL}};
  for (int i = 0; i < 2; i++) in[i].tensor = filled(c, DIMS(1 + run, 3), seed * 2 + (uint64_t)i);
  in[2] = (kn_rvalue){.scalar = {KN_SCALAR_INT, {.i = run}}};
  in[3] = (kn_rvalue){.scalar = {KN_SCALAR_FLOAT, {.f = run * 0.3 - 0.5}}};
  slots[0].tensor = make(c, KN_F32, DIMS(3, 3), LIST(1, 0.5, -0.25, 0, 1, 0.75, 0.125, -1, 1));
  slots[1].tensor = make(c, KN_F32, DIMS(3), LIST(0.5, -0.5, 1));
  kn_tensor *state = kn_tensor_retain(slots[1].tensor);
  kn_random start = c->random;
  p.st = by_tape(c, g, slots, in, weights, &p);
  c->random = start;
  kn_tensor_release(slots[1].tensor);
  slots[1].tensor = state;
  if (p.st == KN_OK) {
    for (int i = 0; i < TENSORS; i++) in[4 + i].tensor = weights[i];
    if (!differentiate(c, g, seed % 2)) goto done;
    kn_status st = run_session(c, g, slots, in, out);
    ck_assert_msg(st == KN_OK, "seed %d, run %d: %s", (int)seed, run, kn_error(c));
    count->ran++;
    for (int i = 0; i < 3; i++) {
      kn_tensor *want = p.tape[i], *got = out[2 * i].tensor;
      ck_assert_msg(out[2 * i + 1].scalar.as.b == (got != NULL), "seed %d: defined?", (int)seed);
      ck_assert_msg((want != NULL) == (got != NULL), "seed %d, run %d: the gradient of %d is%s there",
                    (int)seed, run, i, got ? "" : " not");
      count->some += got != NULL;
      count->none += got == NULL;
      if (got)
        ck_assert_msg(close_to(want, got), "seed %d, run %d: the gradient of %d differs", (int)seed, run, i);
      kn_tensor_release(got);
    }
  }
done:
  for (int i = 0; i < 3; i++) kn_tensor_release(p.tape[i]);
  for (int i = 0; i < TENSORS; i++) kn_tensor_release(weights[i]);
  for (int i = 0; i < 2; i++) kn_tensor_release(in[i].tensor), kn_tensor_release(slots[i].tensor);
  kn_graph_release(g);
}

START_TEST(random_graphs_as_the_tape) {
  kn_context *c = suite_context();
  c->threads = 1;
  tally n = {0};
  const char *one = getenv("KILN_SEED");
  int from = one ? atoi(one) : 1, to = one ? from : 150;
  for (int seed = from; seed <= to; seed++)
    for (int run = 0; run < 3; run++) compare_one(c, (uint64_t)seed, run, &n);
  ck_assert_msg(one || (n.ran > 200 && n.some > 300 && n.none > 20), "%u ran, %u gradients, %u absent", n.ran,
                n.some, n.none);
  suite_done(c);
}
END_TEST

SUITE("graph_grad", random_graphs_as_the_tape)
