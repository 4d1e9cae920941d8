/* needs: nothing.
 * does:  what is computed from the same inputs as something that is there already is that; what was asserted
 * is not asserted again. keeps: effects, what raises first, names of numbers that differ; handles that
 * somebody sees, two results from one; how gradients add up, which cse_all (for inference) leaves to
 * rounding. */
#include "graph/internal.h"
#include "graph/passes/care.h"
#include "graph/pipeline.h"
#include <string.h>

typedef struct entry { /* a node whose result may be used from here on */
  kn_node *node;
  uint32_t next; /* in its bucket: 1 + index */
  uint32_t bucket;
  const kn_node *loop; /* around it */
} entry;

enum { LOOK_BACK = 64 }; /* most nodes compared with one */

typedef struct finder {
  kn_care care;
  const kn_node *loop; /* around this place */
  kn_value **instead;  /* by value id */
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

/* ---- what may be compared ---- */

/* A number that depends on its inputs alone, where tensors are never written to. */
static bool is_number(const kn_node *n) {
  bool computed = n->op >= KN_NODE_lua_add && n->op <= KN_NODE_for_count;
  return computed || n->op == KN_NODE_size || n->op == KN_NODE_item || n->op == KN_NODE_list_length ||
         n->op == KN_NODE_defined || n->op == KN_NODE_same;
}

/* The same tensor both times, whoever asks. */
static bool is_one_handle(const kn_node *n) { return n->op == KN_NODE_param || n->op == KN_NODE_tensor; }

static bool is_plain(const finder *f, const kn_node *n) {
  if (n->op == KN_NODE_assert) return true;
  bool plain = is_number(n) || n->op == KN_NODE_select || is_one_handle(n) || n->op == KN_NODE_to_tensor ||
               n->op == KN_NODE_detach || n->op == KN_NODE_with_history || kn_care_pure_op(n);
  for (uint32_t i = 0; plain && i < n->nin; i++) plain = !kn_care_written(&f->care, n->in[i]);
  for (uint32_t i = 0; plain && i < n->nout; i++)
    plain = !kn_care_written(&f->care, n->out[i]) && !kn_is_list(n->out[i]->type.kind);
  return plain;
}

/* Further inputs of an assert are for its text. */
static uint32_t inputs_of(const kn_node *n) { return n->op == KN_NODE_assert ? 1 : n->nin; }

static void add_hash(void *ud, int64_t *v) {
  uint32_t *h = ud;
  *h = *h * 31 + (uint32_t)*v;
}

static uint32_t bucket_of(const finder *f, const kn_node *n) {
  uint32_t h = n->op;
  kn_attrs_any room;
  for (uint32_t i = 0; i < inputs_of(n); i++) h = h * 31 + n->in[i]->id;
  if (n->slot) h = h * 31 + n->slot->index;
  if (kn_opcode_is_op(n->op) && n->attrs) {
    memcpy(&room, n->attrs, kn_attrs_describe(kn_ops[n->op].attrs).size);
    kn_attrs_each_int(kn_ops[n->op].attrs, &room, add_hash, &h);
  }
  return h % f->nbuckets;
}

static bool same_attrs(const kn_node *a, const kn_node *b) {
  if (kn_opcode_is_op(a->op)) return kn_attrs_equal(kn_ops[a->op].attrs, a->attrs, b->attrs);
  if (a->op == KN_NODE_size) return *(const int64_t *)a->attrs == *(const int64_t *)b->attrs;
  if (a->op == KN_NODE_to_tensor) return *(const kn_dtype *)a->attrs == *(const kn_dtype *)b->attrs;
  return true;
}

/* What b gives may be what a gives, if b is left out. */
static bool may_be(const finder *f, const entry *a, const kn_node *n, uint32_t i) {
  const kn_value *x = a->node->out[i], *v = n->out[i];
  if (!kn_vtype_equal(&x->type, &v->type)) return false;
  if (kn_is_scalar(v->type.kind)) return !v->name || (x->name && !strcmp(x->name, v->name));
  if (!kn_care_may_be(&f->care, v, x)) return false;
  if (is_one_handle(n) || !kn_care_seen(&f->care, v)) return true;
  return !kn_care_seen(&f->care, x) && a->loop == f->loop; /* a loop makes another each trip */
}

static bool same(const finder *f, const entry *a, const kn_node *n) {
  const kn_node *m = a->node;
  if (m->op != n->op || m->slot != n->slot || m->again != n->again || m->nout != n->nout) return false;
  if (inputs_of(m) != inputs_of(n)) return false;
  for (uint32_t i = 0; i < inputs_of(n); i++)
    if (m->in[i] != n->in[i]) return false;
  if (n->op == KN_NODE_assert) return true;
  if (!same_attrs(m, n)) return false;
  for (uint32_t i = 0; i < n->nout; i++)
    if (!may_be(f, a, n, i)) return false;
  return true;
}

/* ---- the walk ---- */

static void replace(finder *f, const kn_node *n, const kn_node *with) {
  for (uint32_t i = 0; i < n->nout; i++) {
    f->instead[n->out[i]->id] = with->out[i];
    if (!with->out[i]->name) with->out[i]->name = n->out[i]->name;
    kn_care_note(&f->care, n->out[i], with->out[i]);
  }
}

static void look(finder *f, kn_node *n) {
  uint32_t bucket = bucket_of(f, n), seen = 0;
  for (uint32_t i = f->buckets[bucket]; i && seen < LOOK_BACK; i = f->entries[i - 1].next, seen++) {
    if (!same(f, &f->entries[i - 1], n)) continue;
    replace(f, n, f->entries[i - 1].node);
    kn_node_remove(n);
    f->changes++;
    return;
  }
  f->entries[f->n++] = (entry){n, f->buckets[bucket], bucket, f->loop};
  f->buckets[bucket] = f->n;
}

static void find_region(finder *f, kn_region *r) {
  uint32_t outside = f->n;
  const kn_node *loop = f->loop;
  if (r->owner && r->owner->op == KN_NODE_loop) f->loop = r->owner;
  for (kn_node *n = r->first, *next; n; n = next) {
    next = n->next;
    rewrite(f, n->in, n->nin);
    for (int k = 0; k < n->nregions; k++) find_region(f, n->regions[k]);
    if (is_plain(f, n)) look(f, n);
  }
  rewrite(f, r->yields, r->nyields);
  f->loop = loop;
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

static kn_status find(kn_builder *b, bool freely, uint32_t *changes) {
  kn_graph *g = b->graph;
  kn_heap *h = b->ctx->heap;
  uint32_t nodes = count_nodes(g->body) + 1, ids = g->nvalues + 1;
  finder f = {.nbuckets = nodes};
  KN_TRY(kn_care_begin(&f.care, b, freely));
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
  kn_care_end(&f.care);
  return st;
}

static kn_status run(kn_builder *b, uint32_t *changes) { return find(b, false, changes); }
static kn_status run_all(kn_builder *b, uint32_t *changes) { return find(b, true, changes); }
const kn_pass kn_pass_cse = {"cse", run}, kn_pass_cse_all = {"cse_all", run_all};
