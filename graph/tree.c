/* Shapes of arguments and results: nested tables whose leaves are values or constants. */
#include "graph/graph.h"
#include "graph/internal.h"
#include <string.h>

static bool copy_one(kn_builder *b, kn_tree *to, const kn_tree *from, kn_tree_place place, void *ud,
                     int depth) {
  if (depth > KN_TREE_DEPTH) {
    kn_build_fail(b, kn_fail(b->ctx, KN_LIMIT, "tables are nested more than %d deep", KN_TREE_DEPTH));
    return false;
  }
  *to = *from;
  if (from->kind == KN_TREE_VALUE) return place(ud, to);
  if (from->kind == KN_TREE_STRING) {
    char *s = kn_build_alloc(b, (size_t)from->n + 1);
    if (s && from->n) memcpy(s, from->text, from->n);
    to->text = s;
    return s != NULL;
  }
  if (!kn_tree_has_items(from->kind)) return true;
  if (from->kind == KN_TREE_TEXT && !(to->text = kn_build_text(b, from->text ? from->text : "")))
    return false;
  to->keys = kn_build_alloc(b, (from->n + (size_t)!from->n) * sizeof *to->keys);
  to->items = kn_build_alloc(b, (from->n + (size_t)!from->n) * sizeof *to->items);
  if (!to->keys || !to->items) return false;
  for (uint32_t i = 0; i < from->n; i++) {
    kn_tree_kind k = from->keys[i].kind;
    if (k != KN_TREE_INT && k != KN_TREE_STRING) {
      kn_build_fail(b, kn_fail(b->ctx, KN_ARG, "keys of a table given or returned are integers or strings"));
      return false;
    }
    if (!copy_one(b, &to->keys[i], &from->keys[i], place, ud, depth + 1) ||
        !copy_one(b, &to->items[i], &from->items[i], place, ud, depth + 1))
      return false;
  }
  return true;
}

bool kn_tree_copy(kn_builder *b, kn_tree *to, const kn_tree *from, uint32_t n, kn_tree_place place,
                  void *ud) {
  for (uint32_t i = 0; i < n; i++)
    if (!copy_one(b, &to[i], &from[i], place, ud, 0)) return false;
  return b->status == KN_OK;
}

typedef struct placing {
  kn_builder *b;
  kn_value **list; /* leaves met so far */
  uint32_t n;
} placing;

/* Results: every leaf is an output of its own, in the order met. */
static bool place_result(void *ud, kn_tree *leaf) {
  placing *p = ud;
  if (!leaf->value) {
    kn_build_fail(p->b, kn_fail(p->b->ctx, KN_INTERNAL, "a result has no value"));
    return false;
  }
  leaf->i = p->n;
  return kn_build_push(p->b, &p->list, &p->n, &leaf->value, sizeof leaf->value);
}

/* Arguments: leaves are the body's parameters; one met again is the same argument. */
static bool place_arg(void *ud, kn_tree *leaf) {
  placing *p = ud;
  kn_value *v = leaf->value;
  if (!v || v->def || v->region != p->b->graph->body) {
    kn_build_fail(p->b, kn_fail(p->b->ctx, KN_INTERNAL, "an argument is not an input of the graph"));
    return false;
  }
  for (uint32_t i = 0; i < p->n; i++)
    if (p->list[i] == v) {
      leaf->i = i;
      return true;
    }
  leaf->i = p->n;
  return kn_build_push(p->b, &p->list, &p->n, &v, sizeof v);
}

static bool set_trees(kn_builder *b, const kn_tree *trees, uint32_t n, kn_tree_place place, placing *p,
                      kn_tree **out) {
  kn_tree *copy = kn_build_alloc(b, (n + (size_t)!n) * sizeof *copy);
  if (!copy || !kn_tree_copy(b, copy, trees, n, place, p)) return false;
  *out = copy;
  return true;
}

bool kn_set_results(kn_builder *b, kn_value *const *flat, uint32_t n, const kn_tree *trees, uint32_t ntrees) {
  if (b->status != KN_OK) return false;
  kn_graph *g = b->graph;
  placing p = {.b = b};
  if (!set_trees(b, trees, ntrees, place_result, &p, &g->results)) return false;
  g->nresults = ntrees;
  if (!ntrees)
    for (uint32_t i = 0; i < n; i++)
      if (!kn_build_push(b, &p.list, &p.n, &flat[i], sizeof flat[i])) return false;
  g->body->yields = p.list;
  g->body->nyields = p.n;
  return true;
}

bool kn_set_args(kn_builder *b, const kn_tree *trees, uint32_t ntrees) {
  if (b->status != KN_OK) return false;
  kn_graph *g = b->graph;
  placing p = {.b = b};
  if (!set_trees(b, trees, ntrees, place_arg, &p, &g->args)) return false;
  if (p.n != g->body->nparams) {
    kn_build_fail(b, kn_fail(b->ctx, KN_INTERNAL, "the graph has %u inputs, its arguments name %u",
                             g->body->nparams, p.n));
    return false;
  }
  g->nargs = ntrees;
  for (uint32_t i = 0; i < p.n; i++) { /* inputs take the order of the arguments */
    g->body->params[i] = p.list[i];
    p.list[i]->index = i;
  }
  return true;
}
