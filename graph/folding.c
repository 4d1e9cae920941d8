/* Making folds: see folding.h. */
#include "graph/folding.h"
#include "graph/internal.h"

static void replace_list(kn_value **list, uint32_t n, const kn_value *from, kn_value *to) {
  for (uint32_t i = 0; i < n; i++)
    if (list[i] == from) list[i] = to;
}

static void replace_region(const kn_region *r, const kn_value *from, kn_value *to) {
  KN_EACH_NODE (n, r) {
    replace_list(n->in, n->nin, from, to);
    for (int i = 0; i < n->nregions; i++) replace_region(n->regions[i], from, to);
  }
  replace_list(r->yields, r->nyields, from, to);
}

static void replace_trees(kn_tree *t, uint32_t n, const kn_value *from, kn_value *to) {
  for (uint32_t i = 0; i < n; i++) {
    if (t[i].kind == KN_TREE_VALUE && t[i].value == from) t[i].value = to;
    if (kn_tree_has_items(t[i].kind)) replace_trees(t[i].items, t[i].n, from, to);
  }
}

void kn_fold_replace(kn_graph *g, kn_value *from, kn_value *to) {
  replace_region(g->body, from, to);
  replace_trees(g->results, g->nresults, from, to);
}

kn_node *kn_fold_place(kn_node *n, kn_node *last) {
  if (n && last->next && last->next != n) kn_node_move_before(n, last->next);
  return n;
}

static kn_status make_one(kn_builder *b, const kn_folding *folding, kn_known *k, const kn_fold *f) {
  kn_value **to = kn_build_alloc(b, f->n * sizeof *to);
  if (!to || !folding->make(b, k, f, to)) return b->status;
  for (uint32_t i = 0; i < f->n; i++) kn_fold_replace(b->graph, f->from[i], to[i]);
  return b->status;
}

kn_status kn_folding_run(kn_builder *b, const kn_folding *folding, const bool *only, uint32_t *changes) {
  kn_known k;
  kn_fold *list = NULL;
  uint32_t n = 0;
  KN_TRY(kn_known_begin(b->ctx, b->graph, &k));
  kn_status st = kn_known_region(&k, b->graph->body);
  if (st == KN_OK) st = folding->find(b, &k, &list, &n);
  for (uint32_t i = 0; i < n && st == KN_OK; i++) {
    if (list[i].never || (only && !only[i])) continue;
    st = make_one(b, folding, &k, &list[i]);
    ++*changes;
  }
  kn_known_end(&k);
  return st;
}
