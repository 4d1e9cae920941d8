/* Life of a graph, its types, its regions as linked lists, and finishing. Emitting nodes is in build.c. */
#include "graph/mutant.h"
#include "core/device.h"
#include "graph/graph.h"
#include "graph/internal.h"
#include "graph/verify.h"
#include <stdio.h>
#include <string.h>

/* ---- life ---- */

kn_status kn_graph_new(kn_context *ctx, const char *name, kn_graph **out) {
  kn_graph *g = kn_calloc(ctx->heap, 1, sizeof *g);
  if (!g) return kn_fail_nomem(ctx, sizeof *g);
  atomic_init(&g->refs, 1);
  g->heap = kn_heap_retain(ctx->heap);
  kn_arena_init(&g->arena, g->heap);
  kn_builder b;
  kn_builder_init(&b, ctx, g);
  g->name = kn_build_text(&b, name ? name : "graph");
  g->body = kn_region_new(&b, NULL);
  if (b.status != KN_OK) {
    kn_graph_release(g);
    return b.status;
  }
  *out = g;
  return KN_OK;
}

kn_graph *kn_graph_retain(kn_graph *g) {
  atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
  return g;
}

void kn_graph_release(kn_graph *g) {
  if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
  for (uint32_t i = 0; i < g->nslots; i++) kn_tensor_release(g->slots[i]->tensor);
  kn_arena_free(&g->arena);
  kn_heap *heap = g->heap;
  kn_free(heap, g, sizeof *g);
  kn_heap_release(heap);
}

/* ---- types of values ---- */

bool kn_vtype_equal(const kn_vtype *a, const kn_vtype *b) {
  return a->kind == b->kind &&
         (kn_innermost(a->kind) != KN_V_TENSOR || kn_type_equal(&a->tensor, &b->tensor));
}

static bool is_number(kn_vkind k) { return k == KN_V_INT || k == KN_V_FLOAT || k == KN_V_NUMBER; }

bool kn_vtype_join(const kn_vtype *a, const kn_vtype *b, kn_vtype *out) {
  if (a->kind != b->kind) {
    if (!is_number(a->kind) || !is_number(b->kind)) return false;
    *out = (kn_vtype){.kind = KN_MUTANT(integer_or_float_is_float) ? KN_V_FLOAT : KN_V_NUMBER};
    return true;
  }
  kn_vtype t = *a;
  if (kn_innermost(t.kind) == KN_V_TENSOR) {
    if (a->tensor.dtype != b->tensor.dtype || a->tensor.device != b->tensor.device ||
        a->tensor.rank != b->tensor.rank)
      return false;
    for (int i = 0; i < t.tensor.rank; i++)
      if (a->tensor.dims[i] != b->tensor.dims[i]) t.tensor.dims[i] = KN_DIM_UNKNOWN;
  }
  *out = t;
  return true;
}

kn_vtype kn_stacked(const kn_vtype *list) {
  kn_vtype t = {.kind = KN_V_TENSOR, .tensor = list->tensor};
  for (int i = t.tensor.rank++; i > 0; i--) t.tensor.dims[i] = t.tensor.dims[i - 1];
  t.tensor.dims[0] = KN_DIM_UNKNOWN;
  return t;
}

bool kn_vtype_fits(const kn_vtype *from, const kn_vtype *to) {
  kn_vtype t;
  return kn_vtype_join(from, to, &t) && kn_vtype_equal(&t, to);
}

bool kn_vtype_may_be(const kn_vtype *from, const kn_vtype *to) {
  kn_vtype t;
  if (!kn_vtype_join(from, to, &t) || t.kind != to->kind) return false;
  for (int i = 0; kn_innermost(t.kind) == KN_V_TENSOR && i < t.tensor.rank; i++) {
    int64_t x = from->tensor.dims[i], y = to->tensor.dims[i];
    if (kn_dim_known(x) && kn_dim_known(y) && x != y) return false;
  }
  return true;
}

char *kn_vtype_text(const kn_graph *g, const kn_vtype *t, char *buf, size_t size) {
  static const char *const names[] = {
      [KN_V_INT] = "integer", [KN_V_FLOAT] = "float", [KN_V_NUMBER] = "number", [KN_V_BOOL] = "boolean"};
  if (kn_is_list(t->kind)) {
    kn_vtype inner = kn_element_of(*t);
    char text[KN_TYPE_TEXT];
    snprintf(buf, size, "list[%s]", kn_vtype_text(g, &inner, text, sizeof text));
    return buf;
  }
  if (t->kind != KN_V_TENSOR) {
    snprintf(buf, size, "%s", names[t->kind]);
    return buf;
  }
  size_t at = (size_t)snprintf(buf, size, "%s[", kn_dtype_name((kn_dtype)t->tensor.dtype));
  for (int i = 0; i <= t->tensor.rank && at < size; i++) {
    int64_t d = i < t->tensor.rank ? t->tensor.dims[i] : 0;
    const char *comma = i ? "," : "";
    uint64_t k = kn_dim_symbol_of(d);
    int n;
    if (i == t->tensor.rank)
      n = snprintf(buf + at, size - at, "]");
    else if (kn_dim_known(d))
      n = snprintf(buf + at, size - at, "%s%lld", comma, (long long)d);
    else if (d != KN_DIM_UNKNOWN && g && k < g->nsymbols)
      n = snprintf(buf + at, size - at, "%s%s", comma, g->symbols[k]);
    else
      n = snprintf(buf + at, size - at, "%s?", comma);
    at += (size_t)n;
  }
  if (t->tensor.device != KN_CPU && at < size)
    snprintf(buf + at, size - at, "@%s", kn_device_name((kn_device_id)t->tensor.device));
  return buf;
}

/* ---- regions ---- */

bool kn_value_inside(const kn_value *v, const kn_region *r) {
  for (const kn_region *at = v->region; at; at = at->owner ? at->owner->region : NULL)
    if (at == r) return true;
  return false;
}

void kn_node_remove(kn_node *n) {
  kn_region *r = n->region;
  if (!r) return;
  *(n->prev ? &n->prev->next : &r->first) = n->next;
  *(n->next ? &n->next->prev : &r->last) = n->prev;
  n->prev = n->next = NULL;
  n->region = NULL;
}

void kn_region_truncate(kn_region *r, kn_node *mark) {
  while (r->last && r->last != mark) kn_node_remove(r->last);
}

void kn_region_append(kn_region *to, kn_region *from) {
  KN_EACH_NODE (n, from) {
    n->region = to;
    for (uint32_t i = 0; i < n->nout; i++) n->out[i]->region = to;
  }
  if (!from->first) return;
  from->first->prev = to->last;
  *(to->last ? &to->last->next : &to->first) = from->first;
  to->last = from->last;
  from->first = from->last = NULL;
}

void kn_node_move_before(kn_node *n, kn_node *at) {
  if (n == at) return;
  kn_node_remove(n);
  kn_region *r = at->region;
  n->region = r;
  n->next = at;
  n->prev = at->prev;
  *(at->prev ? &at->prev->next : &r->first) = n;
  at->prev = n;
  for (uint32_t i = 0; i < n->nout; i++) n->out[i]->region = r;
}

/* ---- finishing ---- */

bool kn_region_has(const kn_region *r, kn_opcode op) {
  KN_EACH_NODE (n, r) {
    if (n->op == op) return true;
    for (int i = 0; i < n->nregions; i++)
      if (kn_region_has(n->regions[i], op)) return true;
  }
  return false;
}

typedef struct counter {
  uint32_t values, nodes;
} counter;

/* Ids in the order of the text: a node's results, then what its regions define. */
static void renumber(kn_region *r, counter *c) {
  for (uint32_t i = 0; i < r->nparams; i++) r->params[i]->id = ++c->values;
  KN_EACH_NODE (n, r) {
    c->nodes++;
    for (uint32_t i = 0; i < n->nout; i++) n->out[i]->id = ++c->values;
    for (int i = 0; i < n->nregions; i++) renumber(n->regions[i], c);
  }
}

void kn_graph_renumber(kn_graph *g) {
  counter c = {0, 0};
  renumber(g->body, &c);
  g->nvalues = c.values;
  g->nnodes = c.nodes;
}

/* A graph built without trees takes and gives its inputs and outputs one by one. */
static bool default_trees(kn_builder *b, kn_value *const *values, uint32_t n, bool args) {
  if (!n) return true;
  kn_tree *trees = kn_build_alloc(b, n * sizeof *trees);
  for (uint32_t i = 0; trees && i < n; i++) trees[i] = (kn_tree){.kind = KN_TREE_VALUE, .value = values[i]};
  if (!trees) return false;
  return args ? kn_set_args(b, trees, n) : kn_set_results(b, values, n, trees, n);
}

kn_status kn_build_finish(kn_builder *b, bool untrusted) {
  if (b->status != KN_OK) return b->status;
  kn_graph *g = b->graph;
  if (g->finished) return kn_fail(b->ctx, KN_STATE, "the graph %s is finished already", g->name);
  if (!g->nargs && !default_trees(b, g->body->params, g->body->nparams, true)) return b->status;
  if (!g->nresults && !default_trees(b, g->body->yields, g->body->nyields, false)) return b->status;
  kn_graph_renumber(g);
  kn_status st = kn_graph_verify_to(b->ctx, g, untrusted, &b->fault);
  if (st != KN_OK) {
    kn_build_fail(b, st);
    return st;
  }
  g->finished = true;
  return KN_OK;
}

kn_status kn_graph_finish(kn_builder *b) { return kn_build_finish(b, false); }
