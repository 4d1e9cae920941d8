/* Passes keep the meaning: random graphs evaluated before and after, as they are and with numbers made
 * constant so that branches and loops fold. What each pass does is in spec/text/. */
#include "spec/random_graph.h"
#include "graph/pipeline.h"
#include "graph/text.h"
#include "graph/verify.h"

static kn_graph *copy_of(kn_context *c, const kn_graph *g) {
  char *text;
  size_t n;
  kn_graph *copy;
  OK(c, kn_graph_print(c, g, KN_TEXT_FULL, &text, &n));
  OK(c, kn_graph_parse(c, text, n, &copy));
  kn_free(c->heap, text, n + 1);
  return copy;
}

static void swap_in(kn_value **list, uint32_t n, const kn_value *from, kn_value *to) {
  for (uint32_t i = 0; i < n; i++)
    if (list[i] == from) list[i] = to;
}

static void swap_region(kn_region *r, const kn_value *from, kn_value *to) {
  KN_EACH_NODE (n, r) {
    swap_in(n->in, n->nin, from, to);
    for (int k = 0; k < n->nregions; k++) swap_region(n->regions[k], from, to);
  }
  swap_in(r->yields, r->nyields, from, to);
}

/* The input's value is known: a constant takes its place. */
static void make_constant(kn_builder *b, uint32_t input, kn_scalar s) {
  kn_graph *g = b->graph;
  kn_node *first = g->body->first;
  kn_value *from = g->body->params[input], *to = kn_add_const(b, s);
  if (first) kn_node_move_before(to->def, first);
  swap_region(g->body, from, to);
  for (uint32_t i = 0; i < g->nresults; i++)
    if (g->results[i].value == from) g->results[i].value = to;
}

static const kn_slot *slot_of(const kn_graph *g, const char *name, uint32_t *at) {
  for (*at = 0; *at < g->nslots; ++*at)
    if (!strcmp(g->slots[*at]->name, name)) return g->slots[*at];
  return NULL;
}

typedef struct tally {
  unsigned ran, smaller, folded;
} tally;

static uint32_t count_kind(const kn_region *r, kn_opcode op) {
  uint32_t n = 0;
  KN_EACH_NODE (x, r) {
    n += x->op == op;
    for (int k = 0; k < x->nregions; k++) n += count_kind(x->regions[k], op);
  }
  return n;
}

static void compare_one(kn_context *c, uint64_t seed, bool known, int run, tally *count) {
  kn_graph *g = random_graph(c, seed, 10 + (int)seed % 60), *h = copy_of(c, g);
  kn_rvalue in[4], slots[2], others[2], a[6], b[6];
  rg_inputs(c, seed, run, in);
  kn_builder builder;
  h->finished = false;
  kn_builder_init(&builder, c, h);
  if (known)
    for (uint32_t i = 2; i < 4; i++) make_constant(&builder, i, in[i].scalar);
  uint32_t before = h->nnodes, regions = count_kind(h->body, KN_NODE_if) + count_kind(h->body, KN_NODE_loop);
  if (seed % 4) kn_add_need(&builder, (kn_need){.kind = KN_NEED_no_gradients}); /* else little may change */
  OK(c, kn_pipeline_run(&builder, KN_PIPELINE_CAPTURE));
  OK(c, kn_graph_finish(&builder));
  OK(c, kn_graph_verify(c, h, true));
  count->smaller += h->nnodes < before;
  count->folded += count_kind(h->body, KN_NODE_if) + count_kind(h->body, KN_NODE_loop) < regions;
  slots[0].tensor = make(c, KN_F32, DIMS(3, 3), LIST(1, 0.5, -0.25, 0, 1, 0.75, 0.125, -1, 1));
  slots[1].tensor = make(c, KN_F32, DIMS(3), LIST(0.5, -0.5, 1));
  for (uint32_t i = 0, at; i < h->nslots; i++) {
    slot_of(g, h->slots[i]->name, &at);
    others[i].tensor = kn_tensor_retain(slots[at].tensor);
  }
  kn_random start = c->random;
  kn_status want = evaluate(c, g, slots, in, a);
  uint64_t drawn = c->random.offset;
  c->random = start;
  kn_status got = evaluate(c, h, others, in, b);
  ck_assert_msg(got == want || got == KN_OK, "seed %d, run %d: %s instead of %s: %s", (int)seed, run,
                kn_status_text(got), kn_status_text(want),
                kn_error(c)); /* an error that nobody would see may be gone */
  if (want == KN_OK) {
    count->ran++;
    ck_assert(c->random.offset == drawn);
    for (uint32_t i = 0, at; i < h->nslots; i++) {
      slot_of(g, h->slots[i]->name, &at);
      ck_assert_msg(same_result(&others[i], &slots[at]), "seed %d, run %d: slot %s differs", (int)seed, run,
                    h->slots[i]->name);
    }
  }
  for (int i = 0; i < 6; i++) {
    ck_assert_msg(want != KN_OK || same_result(&a[i], &b[i]), "seed %d, run %d: result %d differs", (int)seed,
                  run, i + 1);
    if (want == KN_OK) kn_tensor_release(a[i].tensor);
    if (got == KN_OK) kn_tensor_release(b[i].tensor);
  }
  for (uint32_t i = 0; i < h->nslots; i++) kn_tensor_release(others[i].tensor);
  for (int i = 0; i < 2; i++) {
    kn_tensor_release(slots[i].tensor);
    kn_tensor_release(in[i].tensor);
  }
  kn_graph_release(g);
  kn_graph_release(h);
}

static tally compare_many(bool known, int seeds) {
  kn_context *c = suite_context();
  c->threads = 1;
  tally count = {0};
  for (int seed = 1; seed <= seeds; seed++)
    for (int run = 0; run < 4; run++) compare_one(c, (uint64_t)seed, known, run, &count);
  suite_done(c);
  return count;
}

START_TEST(random_graphs_mean_the_same) {
  tally n = compare_many(false, 120);
  ck_assert_msg(n.ran > 300 && n.smaller > 300, "%u ran, %u got smaller", n.ran, n.smaller);
}
END_TEST

START_TEST(random_graphs_with_known_numbers_mean_the_same) {
  tally n = compare_many(true, 120);
  ck_assert_msg(n.ran > 300 && n.folded > 100, "%u ran, %u lost branches or loops", n.ran, n.folded);
}
END_TEST

SUITE("passes", random_graphs_mean_the_same, random_graphs_with_known_numbers_mean_the_same)
