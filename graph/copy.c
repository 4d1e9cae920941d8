/* Copying nodes between graphs; see copy.h. */
#include "graph/copy.h"
#include "graph/internal.h"
#include <string.h>

bool kn_copy_begin(kn_copy *c, kn_builder *b, const kn_graph *g) {
  *c = (kn_copy){.b = b, .from = g, .room = g->nvalues + 1};
  c->map = kn_calloc(b->ctx->heap, c->room, sizeof *c->map);
  if (!c->map) return kn_build_fail(b, kn_fail_nomem(b->ctx, c->room * sizeof *c->map)) != NULL;
  for (uint32_t i = 0; i < g->nsymbols; i++) kn_symbol_intern(b, g->symbols[i]);
  for (uint32_t i = 0; i < g->nslots; i++) {
    const kn_slot *s = g->slots[i];
    kn_slot *made = kn_add_slot(b, s->kind, s->name, &s->type, s->tensor);
    if (made) made->scalar = s->scalar;
  }
  return b->status == KN_OK;
}

void kn_copy_end(kn_copy *c) {
  kn_free(c->b->ctx->heap, c->map, c->room * sizeof *c->map);
  c->map = NULL;
}

bool kn_copy_inputs(kn_copy *c) {
  const kn_region *body = c->from->body;
  for (uint32_t i = 0; i < body->nparams; i++)
    c->map[body->params[i]->id] = kn_add_input(c->b, body->params[i]->name, &body->params[i]->type);
  return c->b->status == KN_OK;
}

static const kn_where *place(kn_copy *c, const kn_where *w) {
  return w ? kn_where_intern(c->b, w->chunk, w->line, place(c, w->at)) : NULL;
}

static kn_value *mapped(kn_copy *c, const kn_value *v) {
  kn_value *to = c->map[v->id];
  if (!to && c->b->status == KN_OK)
    kn_build_fail(c->b, kn_fail(c->b->ctx, KN_INTERNAL, "copy: value %u is used before it is there", v->id));
  return to;
}

/* The list as an array of the builder's graph. */
static kn_value **mapped_all(kn_copy *c, kn_value *const *list, uint32_t n) {
  kn_value **to = kn_build_array(c->b, NULL, 0, (n + 1) * sizeof *to);
  for (uint32_t i = 0; to && i < n; i++) to[i] = mapped(c, list[i]);
  return to;
}

static bool copy_region(kn_copy *c, const kn_region *r, kn_node *owner, kn_region **out) {
  kn_builder *b = c->b;
  kn_region *to = kn_region_new(b, owner), *at = b->at;
  if (!to) return false;
  for (uint32_t i = 0; i < r->nparams; i++)
    c->map[r->params[i]->id] = kn_add_param(b, to, r->params[i]->name, &r->params[i]->type);
  b->at = to;
  bool fine = !r->first || kn_copy_nodes(c, r->first);
  b->at = at;
  for (uint32_t i = 0; fine && i < r->nyields; i++) {
    kn_value *v = mapped(c, r->yields[i]);
    fine = v && kn_build_push(b, &to->yields, &to->nyields, &v, sizeof v);
  }
  *out = to;
  return fine;
}

bool kn_copy_node(kn_copy *c, const kn_node *n) {
  kn_builder *b = c->b;
  kn_vtype few[KN_MAX_OUTPUTS];
  kn_value **in = mapped_all(c, n->in, n->nin);
  bool control = n->nregions > 0;
  if (!in) return false;
  for (uint32_t i = 0; !control && i < n->nout && i < KN_MAX_OUTPUTS; i++) few[i] = n->out[i]->type;
  kn_node *to = kn_add_node(b, n->op, n->attrs, in, n->nin, few, control ? 0 : n->nout);
  if (!to) return false;
  to->ntensor = n->ntensor;
  to->no_grad = n->no_grad;
  to->again = n->again;
  to->told = n->told;
  to->scalar = n->scalar;
  to->slot = n->slot ? b->graph->slots[n->slot->index] : NULL;
  to->text = kn_build_text(b, n->text);
  to->where = place(c, n->where);
  for (int k = 0; k < n->nregions; k++) {
    if (!copy_region(c, n->regions[k], to, &to->regions[k])) return false;
    to->nregions++;
  }
  for (uint32_t i = 0; i < n->nout; i++) {
    if (control) {
      kn_value *v = kn_build_value(b, to->region, to, i, &n->out[i]->type);
      if (!v || !kn_build_push(b, &to->out, &to->nout, &v, sizeof v)) return false;
    }
    kn_value_name(b, to->out[i], n->out[i]->name);
    c->map[n->out[i]->id] = to->out[i];
  }
  return b->status == KN_OK;
}

bool kn_copy_nodes(kn_copy *c, const kn_node *first) {
  for (const kn_node *n = first; n; n = n->next)
    if (!(n->nout && c->map[n->out[0]->id]) && !kn_copy_node(c, n)) return false;
  return c->b->status == KN_OK;
}

/* ---- whole graphs ---- */

/* A tree whose leaves are the values of the copy; its constants are still those of the graph. */
static bool map_tree(kn_copy *c, kn_tree *to, const kn_tree *from) {
  *to = *from;
  if (from->kind == KN_TREE_VALUE) return (to->value = mapped(c, from->value)) != NULL;
  if (!kn_tree_has_items(from->kind)) return true;
  to->items = kn_build_alloc(c->b, (from->n + (size_t)!from->n) * sizeof *to->items);
  for (uint32_t i = 0; to->items && i < from->n; i++)
    if (!map_tree(c, &to->items[i], &from->items[i])) return false;
  return to->items != NULL;
}

static kn_tree *map_trees(kn_copy *c, const kn_tree *from, uint32_t n) {
  kn_tree *to = kn_build_alloc(c->b, (n + (size_t)!n) * sizeof *to);
  for (uint32_t i = 0; to && i < n; i++)
    if (!map_tree(c, &to[i], &from[i])) return NULL;
  return to;
}

static bool copy_trees(kn_copy *c) {
  const kn_graph *g = c->from;
  kn_tree *args = map_trees(c, g->args, g->nargs), *results = map_trees(c, g->results, g->nresults);
  kn_value **flat = mapped_all(c, g->body->yields, g->body->nyields);
  return args && results && flat && (!g->nargs || kn_set_args(c->b, args, g->nargs)) &&
         kn_set_results(c->b, flat, g->body->nyields, results, g->nresults);
}

/* What is assumed and needed, and where slots were met. */
static bool copy_rest(kn_copy *c) {
  const kn_graph *g = c->from;
  kn_builder *b = c->b;
  for (uint32_t i = 0; i < g->nslots; i++) b->graph->slots[i]->where = place(c, g->slots[i]->where);
  for (uint32_t i = 0; i < g->nguards; i++)
    kn_add_guard(b, g->guards[i].kind, g->guards[i].name, g->guards[i].value, place(c, g->guards[i].where));
  for (uint32_t i = 0; i < g->nneeds; i++) {
    kn_need need = g->needs[i];
    if (need.input) need.input = c->map[need.input->id];
    kn_add_need(b, need);
  }
  return b->status == KN_OK;
}

kn_status kn_graph_copy(kn_context *ctx, const kn_graph *g, kn_builder *b, kn_graph **out) {
  return kn_graph_copy_tell(ctx, g, b, NULL, 0, out);
}

kn_status kn_graph_copy_tell(kn_context *ctx, const kn_graph *g, kn_builder *b, kn_value **list, uint32_t n,
                             kn_graph **out) {
  kn_graph *made;
  kn_copy c = {0};
  KN_TRY(kn_graph_new(ctx, g->name, &made));
  kn_builder_init(b, ctx, made);
  made->partial = g->partial;
  bool fine = kn_copy_begin(&c, b, g) && kn_copy_inputs(&c) &&
              (!g->body->first || kn_copy_nodes(&c, g->body->first)) && copy_trees(&c) && copy_rest(&c);
  for (uint32_t i = 0; fine && i < n; i++) list[i] = c.map[list[i]->id];
  if (c.map) kn_copy_end(&c);
  if (!fine) {
    kn_graph_release(made);
    return b->status;
  }
  *out = made;
  return KN_OK;
}
