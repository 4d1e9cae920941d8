/* needs: nothing.
 * does:  removes with_history where no gradient can come to it, or where what it leads to has no history: the
 * usual case, as optimisers write to parameters under no_grad and nothing differentiates what they wrote. One
 * that is declared with sizes less known stays: what takes it may not take the others.
 * keeps: everything else. */
#include "graph/grad/grad.h"
#include "graph/internal.h"
#include "graph/pipeline.h"
#include <string.h>

typedef struct history {
  kn_builder *b;
  kn_node **nodes; /* the with_history ones */
  uint32_t n;
  kn_value **from; /* where history may come from: inputs and slots */
  uint32_t nfrom;
  bool *used;      /* by value id: a gradient may come to it */
  kn_value **with; /* by value id: what takes its place */
} history;

static bool push(history *h, kn_value ***list, uint32_t *n, kn_value *v) {
  return kn_build_push(h->b, list, n, &v, sizeof v);
}

static bool gather(history *h, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_with_history && !kn_build_push(h->b, &h->nodes, &h->n, &n, sizeof n)) return false;
    if (n->slot && n->nout && n->slot->kind != KN_SLOT_CONST && !push(h, &h->from, &h->nfrom, n->out[0]))
      return false;
    for (int i = 0; i < n->nregions; i++)
      if (!gather(h, n->regions[i])) return false;
  }
  return true;
}

/* May a gradient come to the node's i-th input by it? */
static bool leads_back(const kn_node *n, uint32_t i) {
  if (kn_opcode_is_op(n->op)) return !n->no_grad && i < n->ntensor;
  if (n->op == KN_NODE_loop) return true;
  if (n->op == KN_NODE_detach || n->op == KN_NODE_host_call || n->op == KN_NODE_with_history) return false;
  return n->nout && !kn_is_scalar(n->out[0]->type.kind);
}

static void note_uses(history *h, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin; i++) h->used[n->in[i]->id] |= leads_back(n, i);
    for (int i = 0; i < n->nregions; i++) note_uses(h, n->regions[i]);
  }
  for (uint32_t i = 0; i < r->nyields; i++) h->used[r->yields[i]->id] = true;
}

static kn_value *instead(const history *h, kn_value *v) {
  while (h->with[v->id]) v = h->with[v->id];
  return v;
}

static void rewrite(history *h, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin; i++) n->in[i] = instead(h, n->in[i]);
    for (int i = 0; i < n->nregions; i++) rewrite(h, n->regions[i]);
  }
  for (uint32_t i = 0; i < r->nyields; i++) r->yields[i] = instead(h, r->yields[i]);
}

static void rewrite_trees(const history *h, kn_tree *t, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (t[i].kind == KN_TREE_VALUE) t[i].value = instead(h, t[i].value);
    if (kn_tree_has_items(t[i].kind)) rewrite_trees(h, t[i].items, t[i].n);
  }
}

static bool decide(history *h, uint32_t *changes) {
  bool *leads = kn_build_alloc(h->b, h->n), more = true;
  kn_value **ys = kn_build_alloc(h->b, h->n * sizeof *ys);
  if (!leads || !ys) return false;
  for (uint32_t i = 0; i < h->n; i++) ys[i] = h->nodes[i]->in[1];
  if (h->nfrom && !kn_values_depend(h->b, ys, h->n, h->from, h->nfrom, leads)) return false;
  note_uses(h, h->b->graph->body);
  while (more) {
    more = false;
    for (uint32_t i = h->n; i-- > 0;) {
      const kn_node *n = h->nodes[i];
      if (h->used[n->out[0]->id] && !h->used[n->in[1]->id]) h->used[n->in[1]->id] = more = true;
    }
  }
  for (uint32_t i = 0; i < h->n; i++) {
    const kn_node *n = h->nodes[i];
    if (leads[i] && h->used[n->out[0]->id]) continue;
    if (!kn_vtype_equal(&n->in[0]->type, &n->out[0]->type)) continue;
    h->with[n->out[0]->id] = n->in[0];
    ++*changes;
  }
  return true;
}

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  history h = {.b = b};
  for (uint32_t i = 0; i < g->body->nparams; i++)
    if (!push(&h, &h.from, &h.nfrom, g->body->params[i])) return b->status;
  if (!gather(&h, g->body) || !h.n) return b->status;
  h.used = kn_build_alloc(b, g->nvalues + 1);
  h.with = kn_build_alloc(b, (g->nvalues + 1) * sizeof *h.with);
  if (!h.used || !h.with || !decide(&h, changes) || !*changes) return b->status;
  rewrite(&h, g->body);
  rewrite_trees(&h, g->results, g->nresults);
  for (uint32_t i = 0; i < h.n; i++)
    if (h.with[h.nodes[i]->out[0]->id]) kn_node_remove(h.nodes[i]);
  return b->status;
}

const kn_pass kn_pass_history = {"history", run};
