/* needs: nothing; fold makes it see more.
 * does:  a loop whose trips constants tell, of few nodes in all, becomes its trips one behind the other.
 * keeps: what the trips do, in their order, and where errors stand. A limit of steps counts trips, of which
 * there are fewer then; the host is polled before each part as ever. */
#include "graph/copy.h"
#include "graph/internal.h"
#include "graph/pipeline.h"
#include "graph/scalar.h"

enum { MOST_NODES = 64 };

typedef struct unroller {
  kn_builder *b;
  kn_value **instead, **map; /* by value id; map: for the copier */
  kn_scalar *number;         /* by value id: in the trip that is gone through, where knows says so */
  bool *knows;
  uint32_t ids, changes;
} unroller;

static kn_value *present(const unroller *u, kn_value *v) {
  while (v->id < u->ids && u->instead[v->id]) v = u->instead[v->id];
  return v;
}

static void rewrite(const unroller *u, kn_value **list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) list[i] = present(u, list[i]);
}

static void rewrite_tree(const unroller *u, kn_tree *t) {
  if (t->kind == KN_TREE_VALUE) t->value = present(u, t->value);
  if (kn_tree_has_items(t->kind))
    for (uint32_t i = 0; i < t->n; i++) rewrite_tree(u, &t->items[i]);
}

/* ---- how many trips ---- */

static uint32_t count_nodes(const kn_region *r) {
  uint32_t n = 0;
  KN_EACH_NODE (node, r) {
    n++;
    for (int k = 0; k < node->nregions; k++) n += count_nodes(node->regions[k]);
  }
  return n;
}

static bool number_of(const unroller *u, const kn_value *v, kn_scalar *out) {
  bool constant = v->def && v->def->op == KN_NODE_const;
  if (constant) *out = v->def->scalar;
  if (constant || v->id >= u->ids || !u->knows[v->id]) return constant;
  *out = u->number[v->id];
  return true;
}

/* The number that the node gives in this trip. */
static bool compute(const unroller *u, const kn_node *n, kn_scalar *out) {
  kn_scalar in[3];
  kn_vkind kinds[3], kind;
  if (!n->nin || n->nin > 3 || n->nout != 1 || kn_opcode_is_op(n->op) || n->nregions) return false;
  for (uint32_t i = 0; i < n->nin; i++) {
    if (!number_of(u, n->in[i], &in[i])) return false;
    kinds[i] = n->in[i]->type.kind;
  }
  return kn_scalar_result(n->op, kinds, n->nin, &kind) &&
         kn_scalar_eval(u->b->ctx, n->op, in, n->nin, out) == KN_OK;
}

static void set(unroller *u, const kn_value *v, bool knows, kn_scalar number) {
  u->knows[v->id] = knows;
  u->number[v->id] = number;
}

/* The parameters as they are in the next trip. */
static bool go_on(unroller *u, const kn_region *body) {
  kn_scalar next[MOST_NODES];
  bool knows[MOST_NODES];
  for (uint32_t i = 0; i < body->nparams; i++) knows[i] = number_of(u, body->yields[1 + i], &next[i]);
  for (uint32_t i = 0; i < body->nparams; i++) set(u, body->params[i], knows[i], next[i]);
  return true;
}

/* 0: not known, or too many. */
static uint32_t count_trips(unroller *u, const kn_node *n) {
  const kn_region *body = n->regions[0];
  uint32_t nodes = count_nodes(body) + 1;
  if (nodes > MOST_NODES || body->nparams > MOST_NODES) return 0;
  kn_scalar s = {0};
  for (uint32_t i = 0; i < n->nin; i++) {
    bool known = number_of(u, n->in[i], &s);
    set(u, body->params[i], known, s);
  }
  for (uint32_t trips = 1; trips * nodes <= MOST_NODES; trips++) {
    KN_EACH_NODE (at, body)
      for (uint32_t i = 0; i < at->nout; i++) {
        bool known = compute(u, at, &s);
        set(u, at->out[i], known, s);
      }
    if (!number_of(u, body->yields[0], &s)) return 0;
    if (!s.as.b) return trips;
    go_on(u, body);
  }
  return 0;
}

/* ---- the trips ---- */

/* What the region defines stands for itself no more, or for itself again. */
static void map_region(unroller *u, const kn_region *r, bool itself) {
  for (uint32_t i = 0; i < r->nparams; i++) u->map[r->params[i]->id] = itself ? r->params[i] : NULL;
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++)
      if (n->out[i]->id < u->ids) u->map[n->out[i]->id] = itself ? n->out[i] : NULL;
    for (int k = 0; k < n->nregions; k++) map_region(u, n->regions[k], itself);
  }
}

static kn_value *mapped(const unroller *u, kn_value *v) { return v->id < u->ids ? u->map[v->id] : v; }

static bool copy_trip(unroller *u, kn_copy *c, const kn_region *body, kn_value **now) {
  map_region(u, body, false);
  for (uint32_t i = 0; i < body->nparams; i++) u->map[body->params[i]->id] = now[i];
  KN_EACH_NODE (n, body)
    if (!kn_copy_node(c, n)) return false;
  for (uint32_t i = 0; i < body->nparams; i++) now[i] = mapped(u, body->yields[1 + i]);
  return true;
}

static void unroll(unroller *u, kn_node *n, uint32_t trips) {
  kn_builder *b = u->b;
  const kn_region *body = n->regions[0];
  kn_region *at = b->at;
  kn_node *last = n->region->last;
  kn_copy c = {.b = b, .from = b->graph, .map = u->map, .room = u->ids};
  kn_value **now = kn_build_array(b, n->in, n->nin, sizeof *now);
  b->at = n->region;
  for (uint32_t i = 0; now && i < trips && copy_trip(u, &c, body, now); i++) {
  }
  b->at = at;
  if (b->status != KN_OK) return;
  while (last->next) kn_node_move_before(last->next, n);
  for (uint32_t i = 0; i < n->nout; i++) u->instead[n->out[i]->id] = mapped(u, body->yields[1 + n->nin + i]);
  kn_node_remove(n);
  u->changes++;
}

/* Values from earlier trips of this pass have ids past all tables; the copier would look them up. */
static bool is_old(const unroller *u, const kn_region *r) {
  for (uint32_t i = 0; i < r->nyields; i++)
    if (r->yields[i]->id >= u->ids) return false;
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin; i++)
      if (n->in[i]->id >= u->ids) return false;
    for (uint32_t i = 0; i < n->nout; i++)
      if (n->out[i]->id >= u->ids) return false;
    for (int k = 0; k < n->nregions; k++)
      if (!is_old(u, n->regions[k])) return false;
  }
  return true;
}

static void walk(unroller *u, kn_region *r) {
  for (kn_node *n = r->first, *next; n && u->b->status == KN_OK; n = next) {
    next = n->next;
    rewrite(u, n->in, n->nin);
    for (int k = 0; k < n->nregions; k++) walk(u, n->regions[k]);
    if (n->op != KN_NODE_loop || !is_old(u, n->regions[0])) continue;
    uint32_t trips = count_trips(u, n), room = u->b->budget ? u->b->budget : KN_NODE_BUDGET;
    bool fits =
        u->b->graph->nnodes + MOST_NODES <= room; /* else it stays a loop, and the graph can be made */
    if (trips && fits) unroll(u, n, trips);
  }
  rewrite(u, r->yields, r->nyields);
}

/* ---- the pass ---- */

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  kn_heap *h = b->ctx->heap;
  if (!kn_region_has(g->body, KN_NODE_loop)) return KN_OK;
  unroller u = {.b = b, .ids = g->nvalues + 1};
  u.instead = kn_calloc(h, u.ids, sizeof *u.instead);
  u.map = kn_calloc(h, u.ids, sizeof *u.map);
  u.number = kn_calloc(h, u.ids, sizeof *u.number);
  u.knows = kn_calloc(h, u.ids, sizeof *u.knows);
  kn_status st = KN_OK;
  if (!u.instead || !u.map || !u.number || !u.knows)
    st = kn_fail_nomem(b->ctx, u.ids * sizeof *u.number);
  else {
    map_region(&u, g->body, true);
    walk(&u, g->body);
    for (uint32_t i = 0; i < g->nresults; i++) rewrite_tree(&u, &g->results[i]);
    *changes = u.changes;
    st = b->status;
  }
  kn_free(h, u.instead, u.ids * sizeof *u.instead);
  kn_free(h, u.map, u.ids * sizeof *u.map);
  kn_free(h, u.number, u.ids * sizeof *u.number);
  kn_free(h, u.knows, u.ids * sizeof *u.knows);
  return st;
}

const kn_pass kn_pass_unroll = {"unroll", run};
