/* Inlining: see inline.h. Values are mapped by id, places are chained to the builder's, named sizes become
 * what they are of the inputs given, or unknown. */
#include "graph/inline.h"
#include "graph/internal.h"
#include <string.h>

typedef struct inliner {
  kn_inlining *x;
  kn_value **map;   /* by id */
  int64_t *symbols; /* by named size: the size here */
  const kn_where *site;
} inliner;

/* ---- types and places ---- */

static int64_t size_here(const inliner *c, int64_t dim) {
  uint64_t k = kn_dim_symbol_of(dim);
  if (kn_dim_known(dim) || dim == KN_DIM_UNKNOWN) return dim;
  return k < c->x->graph->nsymbols ? c->symbols[k] : KN_DIM_UNKNOWN;
}

static kn_vtype type_here(const inliner *c, const kn_vtype *t) {
  kn_vtype to = *t;
  if (kn_innermost(t->kind) == KN_V_TENSOR)
    for (int d = 0; d < t->tensor.rank; d++) to.tensor.dims[d] = size_here(c, t->tensor.dims[d]);
  return to;
}

static kn_status bind(inliner *c) {
  const kn_graph *g = c->x->graph;
  kn_builder *b = c->x->b;
  for (uint32_t k = 0; k < g->nsymbols; k++) c->symbols[k] = KN_DIM_UNKNOWN;
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    const kn_vtype *want = &g->body->params[i]->type, *got = &c->x->in[i]->type;
    kn_vtype join;
    char a[KN_TYPE_TEXT], e[KN_TYPE_TEXT];
    if (!kn_vtype_join(want, got, &join) || (kn_is_scalar(want->kind) && !kn_vtype_fits(got, want)))
      return kn_fail(b->ctx, KN_ARG, "%s: input %u must be %s (got %s)", c->x->name, i + 1,
                     kn_vtype_text(g, want, a, sizeof a), kn_vtype_text(b->graph, got, e, sizeof e));
    for (int d = 0; want->kind == KN_V_TENSOR && d < want->tensor.rank; d++) {
      int64_t w = want->tensor.dims[d], h = got->tensor.dims[d];
      uint64_t k = kn_dim_symbol_of(w);
      if (kn_dim_known(w) && kn_dim_known(h) && w != h)
        return kn_fail(b->ctx, KN_SHAPE, "%s: input %u must be %s (got %s)", c->x->name, i + 1,
                       kn_vtype_text(g, want, a, sizeof a), kn_vtype_text(b->graph, got, e, sizeof e));
      if (!kn_dim_known(w) && k < g->nsymbols && c->symbols[k] == KN_DIM_UNKNOWN) c->symbols[k] = h;
    }
  }
  return KN_OK;
}

static const kn_where *where_here(inliner *c, const kn_where *w) {
  if (!w) return c->site;
  return kn_where_intern(c->x->b, w->chunk, w->line, where_here(c, w->at));
}

/* ---- nodes ---- */

static kn_status copy_region(inliner *c, const kn_region *from, kn_region *to);

static kn_value *here(const inliner *c, const kn_value *v) { return c->map[v->id]; }

static void set_outputs(inliner *c, const kn_node *from, const kn_node *to) {
  for (uint32_t i = 0; i < from->nout; i++) {
    c->map[from->out[i]->id] = to->out[i];
    kn_value_name(c->x->b, to->out[i], from->out[i]->name);
  }
}

static kn_status copy_regions(inliner *c, const kn_node *from, kn_node *to) {
  kn_builder *b = c->x->b;
  kn_region *at = b->at;
  for (int i = 0; i < from->nregions; i++) {
    kn_region *r = kn_region_new(b, to);
    if (!r) return b->status;
    to->regions[i] = r;
    to->nregions = (uint8_t)(i + 1);
    b->at = r;
    kn_status st = copy_region(c, from->regions[i], r);
    b->at = at;
    KN_TRY(st);
  }
  return KN_OK;
}

static kn_status read_slot(inliner *c, const kn_node *n) {
  kn_builder *b = c->x->b;
  if (n->op == KN_NODE_load_state || n->op == KN_NODE_store_state)
    return kn_fail(b->ctx, KN_CAPTURE,
                   "%s: the function writes '%s', which exists outside of it; give the new value back as a "
                   "result instead",
                   c->x->name, n->slot->name);
  kn_value *v = c->x->slot(c->x->ud, n->slot);
  if (!v) return b->status;
  c->map[n->out[0]->id] = v;
  return KN_OK;
}

static kn_status copy_node(inliner *c, const kn_node *n) {
  kn_builder *b = c->x->b;
  if (n->op == KN_NODE_update)
    return kn_fail(
        b->ctx, KN_CAPTURE,
        "%s: the function writes to a tensor that is given to it; give the new values back as a result",
        c->x->name);
  if (n->slot) return read_slot(c, n);
  kn_value **in = kn_build_alloc(b, (n->nin + 1) * sizeof *in);
  kn_vtype *types = kn_build_alloc(b, (n->nout + 1) * sizeof *types);
  if (!in || !types) return b->status;
  for (uint32_t i = 0; i < n->nin; i++) in[i] = here(c, n->in[i]);
  for (uint32_t i = 0; i < n->nout; i++) types[i] = type_here(c, &n->out[i]->type);
  b->where = where_here(c, n->where);
  kn_node *made = kn_add_node(b, n->op, n->attrs, in, n->nin, types, n->nout);
  if (!made) return b->status;
  made->ntensor = n->ntensor;
  made->scalar = n->scalar;
  made->no_grad = n->no_grad || made->no_grad;
  if (n->again) made->again = n->again;
  if (n->text && !(made->text = kn_build_text(b, n->text))) return b->status;
  set_outputs(c, n, made);
  return copy_regions(c, n, made);
}

static kn_status copy_region(inliner *c, const kn_region *from, kn_region *to) {
  kn_builder *b = c->x->b;
  for (uint32_t i = 0; i < from->nparams; i++) {
    kn_vtype type = type_here(c, &from->params[i]->type);
    kn_value *v = kn_add_param(b, to, from->params[i]->name, &type);
    if (!v) return b->status;
    c->map[from->params[i]->id] = v;
  }
  KN_EACH_NODE (n, from) KN_TRY(copy_node(c, n));
  for (uint32_t i = 0; i < from->nyields; i++) {
    kn_value *v = here(c, from->yields[i]);
    if (!kn_build_push(b, &to->yields, &to->nyields, &v, sizeof v)) return b->status;
  }
  return b->status;
}

/* What is needed of an input here is needed where that is an input, too. */
static void inherit_needs(const inliner *c) {
  const kn_graph *g = c->x->graph;
  kn_builder *b = c->x->b;
  for (uint32_t i = 0; i < g->nneeds; i++) {
    kn_need need = g->needs[i];
    if (need.input) need.input = here(c, need.input);
    if (!need.input || (!need.input->def && need.input->region == b->graph->body)) kn_add_need(b, need);
  }
}

kn_status kn_inline(kn_inlining *x) {
  kn_builder *b = x->b;
  const kn_graph *g = x->graph;
  inliner c = {.x = x, .site = b->where};
  const kn_where *where = b->where;
  if (b->status != KN_OK) return b->status;
  c.map = kn_build_alloc(b, (g->nvalues + 1) * sizeof *c.map);
  c.symbols = kn_build_alloc(b, (g->nsymbols + 1) * sizeof *c.symbols);
  if (!c.map || !c.symbols) return b->status;
  KN_TRY(bind(&c));
  for (uint32_t i = 0; i < g->body->nparams; i++) c.map[g->body->params[i]->id] = x->in[i];
  inherit_needs(&c);
  kn_status st = KN_OK;
  for (const kn_node *n = g->body->first; n && st == KN_OK; n = n->next) st = copy_node(&c, n);
  b->where = where;
  KN_TRY(st);
  for (uint32_t i = 0; i < g->body->nyields; i++) x->out[i] = here(&c, g->body->yields[i]);
  return b->status;
}
