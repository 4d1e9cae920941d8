/* needs: nothing.
 * does:  a number that is computed from the same numbers as one that is there already is that one; what was
 * asserted is not asserted again. keeps: tensors, effects, what raises first; names that differ. */
#include "graph/internal.h"
#include "graph/pipeline.h"
#include <string.h>

typedef struct entry { /* a node whose result may be used from here on */
  kn_node *node;
  uint32_t next; /* in its bucket: 1 + index */
  uint32_t bucket;
} entry;

typedef struct finder {
  kn_value **instead; /* by value id */
  uint32_t *buckets, nbuckets;
  entry *entries;
  uint32_t n, changes;
} finder;

static void rewrite(const finder *f, kn_value **list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    while (f->instead[list[i]->id]) list[i] = f->instead[list[i]->id];
}

static void rewrite_tree(const finder *f, kn_tree *t) {
  if (t->kind == KN_TREE_VALUE) rewrite(f, &t->value, 1);
  if (kn_tree_has_items(t->kind))
    for (uint32_t i = 0; i < t->n; i++) rewrite_tree(f, &t->items[i]);
}

/* Depends on its inputs alone, which never change. */
static bool is_plain(const kn_node *n) {
  if (n->op == KN_NODE_assert) return true;
  if (n->nout != 1 || !kn_is_scalar(n->out[0]->type.kind)) return false;
  bool computed = n->op >= KN_NODE_lua_add && n->op <= KN_NODE_for_count;
  return computed || n->op == KN_NODE_select || n->op == KN_NODE_size;
}

/* Further inputs of an assert are for its text. */
static uint32_t inputs_of(const kn_node *n) { return n->op == KN_NODE_assert ? 1 : n->nin; }

static uint32_t bucket_of(const finder *f, const kn_node *n) {
  uint32_t h = n->op;
  for (uint32_t i = 0; i < inputs_of(n); i++) h = h * 31 + n->in[i]->id;
  return h % f->nbuckets;
}

static bool same(const kn_node *a, const kn_node *b) {
  if (a->op != b->op || inputs_of(a) != inputs_of(b)) return false;
  for (uint32_t i = 0; i < inputs_of(a); i++)
    if (a->in[i] != b->in[i]) return false;
  if (a->op == KN_NODE_assert) return true;
  if (a->op == KN_NODE_size && *(const int64_t *)a->attrs != *(const int64_t *)b->attrs) return false;
  const char *x = a->out[0]->name, *y = b->out[0]->name;
  return kn_vtype_equal(&a->out[0]->type, &b->out[0]->type) && (!y || (x && !strcmp(x, y)));
}

static void look(finder *f, kn_node *n) {
  uint32_t bucket = bucket_of(f, n);
  for (uint32_t i = f->buckets[bucket]; i; i = f->entries[i - 1].next) {
    if (!same(f->entries[i - 1].node, n)) continue;
    if (n->nout) f->instead[n->out[0]->id] = f->entries[i - 1].node->out[0];
    kn_node_remove(n);
    f->changes++;
    return;
  }
  f->entries[f->n++] = (entry){n, f->buckets[bucket], bucket};
  f->buckets[bucket] = f->n;
}

static void find_region(finder *f, kn_region *r) {
  uint32_t outside = f->n;
  for (kn_node *n = r->first, *next; n; n = next) {
    next = n->next;
    rewrite(f, n->in, n->nin);
    for (int k = 0; k < n->nregions; k++) find_region(f, n->regions[k]);
    if (is_plain(n)) look(f, n);
  }
  rewrite(f, r->yields, r->nyields);
  while (f->n > outside) { /* what the region computed is not there behind it */
    entry *e = &f->entries[--f->n];
    f->buckets[e->bucket] = e->next;
  }
}

static uint32_t count_nodes(const kn_region *r) {
  uint32_t count = 0;
  KN_EACH_NODE (n, r) {
    count++;
    for (int k = 0; k < n->nregions; k++) count += count_nodes(n->regions[k]);
  }
  return count;
}

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  kn_heap *h = b->ctx->heap;
  uint32_t nodes = count_nodes(g->body) + 1, ids = g->nvalues + 1;
  finder f = {.nbuckets = nodes};
  f.instead = kn_calloc(h, ids, sizeof *f.instead);
  f.buckets = kn_calloc(h, nodes, sizeof *f.buckets);
  f.entries = kn_calloc(h, nodes, sizeof *f.entries);
  kn_status st = KN_OK;
  if (!f.instead || !f.buckets || !f.entries)
    st = kn_fail_nomem(b->ctx, ids * sizeof *f.instead);
  else {
    find_region(&f, g->body);
    for (uint32_t i = 0; i < g->nresults; i++) rewrite_tree(&f, &g->results[i]);
    *changes = f.changes;
  }
  kn_free(h, f.instead, ids * sizeof *f.instead);
  kn_free(h, f.buckets, nodes * sizeof *f.buckets);
  kn_free(h, f.entries, nodes * sizeof *f.entries);
  return st;
}

const kn_pass kn_pass_cse = {"cse", run};
