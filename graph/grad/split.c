/* Forward and backward as graphs of their own: the graph is copied, its gradient emitted behind it, and the
 * nodes of that are moved to a graph whose inputs are the values they read. */
#include "graph/grad/split.h"
#include "graph/copy.h"
#include "graph/grad/grad.h"
#include "graph/internal.h"
#include "graph/pipeline.h"
#include <string.h>

typedef struct splitter {
  kn_context *ctx;
  const kn_graph *g;
  const bool *wants;
  size_t memory;
  kn_grad_pair *p;
  kn_builder f, b;
  kn_value **xs, **ys;
  kn_gradient *gx;
  kn_node *mark; /* the last node of forward */
  bool *inside;  /* by id: defined by a node of the gradient */
} splitter;

static bool of_slot(const kn_node *n) {
  return n->op == KN_NODE_param || n->op == KN_NODE_tensor || n->op == KN_NODE_load_state;
}

/* One node for a slot that is only read, wherever the graph reads it. */
static void hoist_slots(kn_copy *c, const kn_region *r, const bool *wants, kn_value **of) {
  KN_EACH_NODE (n, r) {
    if (of_slot(n) && n->op != KN_NODE_load_state && wants[n->slot->index]) {
      kn_value **v = &of[n->slot->index];
      if (!*v) *v = kn_add_slot_node(c->b, n->op, c->b->graph->slots[n->slot->index]);
      c->map[n->out[0]->id] = *v;
    }
    for (int k = 0; k < n->nregions; k++) hoist_slots(c, n->regions[k], wants, of);
  }
}

/* The first value of a slot that the graph writes. */
static kn_value *loaded(const kn_region *body, const kn_slot *s) {
  KN_EACH_NODE (n, body) {
    if (n->slot != s) continue;
    return n->op == KN_NODE_load_state ? n->out[0] : NULL;
  }
  return NULL;
}

static bool copy_forward(splitter *s) {
  const kn_graph *g = s->g;
  kn_copy c = {0};
  uint32_t inputs = g->body->nparams, nx = 0;
  kn_value **of = kn_calloc(s->ctx->heap, g->nslots + 1u, sizeof *of);
  bool fine = of && kn_copy_begin(&c, &s->f, g) && kn_copy_inputs(&c);
  if (fine) hoist_slots(&c, g->body, s->wants + inputs, of);
  fine = fine && (!g->body->first || kn_copy_nodes(&c, g->body->first));
  for (uint32_t i = 0; fine && i < inputs + g->nslots; i++) {
    if (!s->wants[i]) continue;
    s->xs[nx++] = i < inputs       ? s->f.graph->body->params[i]
                  : of[i - inputs] ? of[i - inputs]
                                   : loaded(s->f.graph->body, s->f.graph->slots[i - inputs]);
  }
  for (uint32_t i = 0; fine && i < g->body->nyields; i++) s->ys[i] = c.map[g->body->yields[i]->id];
  if (c.map) kn_copy_end(&c);
  kn_free(s->ctx->heap, of, (g->nslots + 1u) * sizeof *of);
  s->p->nx = nx;
  return fine;
}

/* ---- the gradient, behind the graph ---- */

static bool is_float(const kn_value *v) {
  return v->type.kind == KN_V_TENSOR && kn_dtype_is_float((kn_dtype)v->type.tensor.dtype);
}

/* Results worth a gradient: floats that depend on an x, each once, none that is an input as it stands. */
static bool choose_results(splitter *s) {
  kn_grad_pair *p = s->p;
  uint32_t n = s->g->body->nyields, nx = 0;
  kn_value **xs = kn_build_alloc(&s->f, (p->nx + 1u) * sizeof *xs);
  bool *depends = kn_build_alloc(&s->f, n + 1u);
  for (uint32_t i = 0; xs && i < p->nx; i++)
    if (s->xs[i]) xs[nx++] = s->xs[i];
  if (!xs || !depends || !kn_values_depend(&s->f, s->ys, n, xs, nx, depends)) return false;
  for (uint32_t i = 0; i < s->g->body->nyields; i++) {
    bool again = false;
    for (uint32_t k = 0; k < i; k++) again |= s->ys[k] == s->ys[i];
    if (!again && depends[i] && is_float(s->ys[i]) && s->ys[i]->def) p->ys[p->ny++] = i;
  }
  return true;
}

static bool emit(splitter *s) {
  kn_grad_pair *p = s->p;
  kn_record r;
  kn_number_pool pool = {.b = &s->f};
  size_t room = p->ny + 1u;
  kn_value **ys = kn_build_alloc(&s->f, room * sizeof *ys),
           **xs = kn_build_alloc(&s->f, (p->nx + 1u) * sizeof *xs);
  kn_gradient *gs = kn_build_alloc(&s->f, room * sizeof *gs),
              *gx = kn_build_alloc(&s->f, (p->nx + 1u) * sizeof *gx);
  uint32_t nx = 0;
  if (!ys || !gs || !xs || !gx) return false;
  s->mark = s->f.graph->body->last;
  for (uint32_t i = 0; i < p->ny; i++) {
    ys[i] = s->ys[p->ys[i]];
    gs[i] = (kn_gradient){kn_add_input(&s->f, ys[i]->name, &ys[i]->type), p->ny > 1};
  }
  for (uint32_t i = 0; i < p->nx; i++)
    if (s->xs[i]) xs[nx++] = s->xs[i];
  kn_record_init(&r, &s->f);
  r.outside = kn_pooled_number;
  r.ud = &pool;
  kn_gradient_request q = {&r, ys, gs, p->ny, xs, nx, s->memory};
  bool fine = kn_emit_gradients(&q, gx);
  kn_record_free(&r);
  for (uint32_t i = 0, k = 0; i < p->nx; i++) s->gx[i] = s->xs[i] ? gx[k++] : (kn_gradient){NULL, false};
  return fine;
}

/* ---- backward ---- */

typedef void (*value_fn)(splitter *s, kn_copy *c, kn_value *v);

static void define_all(splitter *s, const kn_region *r, const kn_node *first) {
  for (uint32_t i = 0; i < r->nparams && r->owner; i++) s->inside[r->params[i]->id] = true;
  for (const kn_node *n = first; n; n = n->next) {
    for (uint32_t i = 0; i < n->nout; i++) s->inside[n->out[i]->id] = true;
    for (int k = 0; k < n->nregions; k++) define_all(s, n->regions[k], n->regions[k]->first);
  }
}

static void save(splitter *s, kn_copy *c, kn_value *v, kn_saved_from from, uint32_t index) {
  kn_grad_pair *p = s->p;
  kn_saved_value *saved =
      kn_realloc(s->ctx->heap, p->saved, p->nsaved * sizeof *saved, (p->nsaved + 1u) * sizeof *saved);
  if (!saved) {
    kn_build_fail(&s->b, kn_fail_nomem(s->ctx, sizeof *saved));
    return;
  }
  p->saved = saved;
  p->saved[p->nsaved++] = (kn_saved_value){from, index};
  c->map[v->id] = kn_add_input(&s->b, v->name, &v->type);
}

/* Its tensor holds something else after the call. */
static bool is_updated(const kn_region *body, const kn_value *input) {
  KN_EACH_NODE (n, body)
    if (n->op == KN_NODE_update && n->in[0] == input) return true;
  return false;
}

/* A forward value that backward reads: cheap ones are made again, others saved. */
static void bring(splitter *s, kn_copy *c, kn_value *v) {
  const kn_node *d = v->def;
  kn_region *body = s->f.graph->body;
  if (s->inside[v->id] || c->map[v->id] || s->b.status != KN_OK) return;
  if (!d && v->region == body && v->index >= s->g->body->nparams)
    return; /* a gradient of a result: comes last */
  if (d && (d->op == KN_NODE_const || d->op == KN_NODE_undef || d->op == KN_NODE_list_new)) {
    c->map[v->id] = d->op == KN_NODE_const ? kn_add_const(&s->b, d->scalar) : kn_add_undef(&s->b, &v->type);
    return;
  }
  if (d && d->op == KN_NODE_to_tensor && d->in[0]->def && d->in[0]->def->op == KN_NODE_const) {
    c->map[v->id] =
        kn_add_to_tensor(&s->b, kn_add_const(&s->b, d->in[0]->def->scalar), *(const kn_dtype *)d->attrs);
    return;
  }
  if (!d && v->region == body && !is_updated(body, v))
    save(s, c, v, KN_SAVED_INPUT, v->index);
  else if (d && of_slot(d) && d->op != KN_NODE_load_state) /* a state is another one afterwards */
    save(s, c, v, KN_SAVED_SLOT, d->slot->index);
  else {
    uint32_t at = 0;
    while (at < body->nyields && body->yields[at] != v) at++;
    if (at == body->nyields) kn_build_push(&s->f, &body->yields, &body->nyields, &v, sizeof v);
    save(s, c, v, KN_SAVED_RESULT, at);
  }
}

static void bring_all(splitter *s, kn_copy *c, const kn_region *r, const kn_node *first) {
  for (const kn_node *n = first; n; n = n->next) {
    for (uint32_t i = 0; i < n->nin; i++) bring(s, c, n->in[i]);
    for (int k = 0; k < n->nregions; k++) bring_all(s, c, n->regions[k], n->regions[k]->first);
  }
  for (uint32_t i = 0; r->owner && i < r->nyields; i++) bring(s, c, r->yields[i]);
}

static bool make_backward(splitter *s) {
  kn_graph *f = s->f.graph;
  kn_grad_pair *p = s->p;
  const kn_node *first = s->mark ? s->mark->next : f->body->first;
  kn_copy c = {0};
  s->inside = kn_calloc(s->ctx->heap, f->nvalues + 1u, 1);
  bool fine = s->inside && kn_copy_begin(&c, &s->b, f);
  uint32_t inputs = s->g->body->nparams;
  kn_value **out = fine ? kn_build_alloc(&s->b, (p->nx + 1u) * sizeof *out) : NULL;
  if (fine && out) {
    define_all(s, f->body, first);
    bring_all(s, &c, f->body, first);
    for (uint32_t i = 0; i < p->nx; i++)
      if (s->gx[i].v) bring(s, &c, s->gx[i].v);
    for (uint32_t i = inputs; i < f->body->nparams; i++)
      c.map[f->body->params[i]->id] = kn_add_input(&s->b, "grad", &f->body->params[i]->type);
    fine = !first || kn_copy_nodes(&c, first);
    for (uint32_t i = 0; fine && i < p->nx; i++)
      out[i] = s->gx[i].v ? c.map[s->gx[i].v->id] : kn_add_undef(&s->b, &(kn_vtype){.kind = KN_V_TENSOR});
    kn_set_results(&s->b, out, p->nx, NULL, 0);
  }
  kn_free(s->ctx->heap, s->inside, f->nvalues + 1u);
  if (c.map) kn_copy_end(&c);
  return s->b.status == KN_OK && s->f.status == KN_OK;
}

/* ---- the whole ---- */

/* Nobody differentiates it (second gradients are kn_grad_joint's), which passes may know. */
static void no_gradients(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    n->no_grad = kn_opcode_is_op(n->op);
    for (int k = 0; k < n->nregions; k++) no_gradients(n->regions[k]);
  }
}

static kn_status finish(splitter *s) {
  kn_graph *f = s->f.graph;
  kn_region_truncate(f->body, s->mark);
  f->body->nparams = s->g->body->nparams;
  kn_value **yields = f->body->yields;
  uint32_t n = f->body->nyields;
  f->body->yields = NULL;
  f->body->nyields = 0;
  f->partial = s->b.graph->partial = true;
  kn_set_results(&s->f, yields, n, NULL, 0);
  KN_TRY(kn_graph_finish(&s->f));
  no_gradients(s->b.graph->body);
  KN_TRY(kn_pipeline_run(&s->b, KN_PIPELINE_CAPTURE));
  return kn_graph_finish(&s->b);
}

static bool begin(splitter *s) {
  const kn_graph *g = s->g;
  kn_grad_pair *p = s->p;
  if (kn_graph_new(s->ctx, g->name, &p->forward) != KN_OK ||
      kn_graph_new(s->ctx, g->name, &p->backward) != KN_OK)
    return false;
  kn_builder_init(&s->f, s->ctx, p->forward);
  kn_builder_init(&s->b, s->ctx, p->backward);
  s->f.budget = s->b.budget = 8 * KN_NODE_BUDGET;
  uint32_t most = g->body->nparams + g->nslots + 1u;
  s->xs = kn_build_alloc(&s->f, most * sizeof *s->xs);
  s->gx = kn_build_alloc(&s->f, most * sizeof *s->gx);
  s->ys = kn_build_alloc(&s->f, (g->body->nyields + 1u) * sizeof *s->ys);
  p->ys = kn_calloc(s->ctx->heap, g->body->nyields + 1u, sizeof *p->ys);
  if (!p->ys) kn_fail_nomem(s->ctx, 0);
  return p->ys && s->f.status == KN_OK;
}

kn_status kn_grad_split(kn_context *ctx, const kn_graph *g, const bool *wants, size_t memory,
                        kn_grad_pair *out) {
  kn_grad_pair p = {.heap = ctx->heap, .results = g->body->nyields};
  splitter s = {.ctx = ctx, .g = g, .wants = wants, .memory = memory, .p = &p};
  ctx->error_status = KN_OK;
  bool fine = begin(&s) && copy_forward(&s);
  fine = fine && choose_results(&s);
  if (fine) {
    kn_region *body = s.f.graph->body;
    for (uint32_t i = 0; i < g->body->nyields; i++)
      kn_build_push(&s.f, &body->yields, &body->nyields, &s.ys[i], sizeof *s.ys);
    fine = emit(&s) && make_backward(&s);
  }
  kn_status st = fine                         ? finish(&s)
                 : s.f.status != KN_OK        ? s.f.status
                 : s.b.status != KN_OK        ? s.b.status
                 : ctx->error_status != KN_OK ? ctx->error_status
                                              : KN_NOMEM;
  if (st != KN_OK) {
    kn_grad_pair_free(&p);
    return st;
  }
  *out = p;
  return KN_OK;
}

/* ---- both in one ---- */

static const char *effects_in(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_store_state || n->op == KN_NODE_load_state) return "keeps state";
    if (n->op == KN_NODE_update) return "overwrites what is given to it";
    if (n->op == KN_NODE_host_call) return "calls the host";
    for (int k = 0; k < n->nregions; k++) {
      const char *what = effects_in(n->regions[k]);
      if (what) return what;
    }
  }
  return NULL;
}

const char *kn_grad_effects(const kn_graph *g) { return effects_in(g->body); }

static void drop_texts(kn_region *r) {
  for (kn_node *n = r->first, *next; n; n = next) {
    next = n->next;
    for (int k = 0; k < n->nregions; k++) drop_texts(n->regions[k]);
    if (kn_opcode_says(n->op)) kn_node_remove(n);
  }
}

static kn_status finish_joint(splitter *s) {
  kn_grad_pair *p = s->p;
  kn_value **out = kn_build_alloc(&s->f, (p->nx + 1u) * sizeof *out);
  if (!out) return s->f.status;
  drop_texts(s->f.graph->body);
  for (uint32_t i = 0; i < p->nx; i++)
    out[i] = s->gx[i].v ? s->gx[i].v : kn_add_undef(&s->f, &(kn_vtype){.kind = KN_V_TENSOR});
  s->f.graph->partial = true;
  kn_set_results(&s->f, out, p->nx, NULL, 0);
  KN_TRY(kn_pipeline_run(&s->f, KN_PIPELINE_CAPTURE));
  return kn_graph_finish(&s->f);
}

kn_status kn_grad_joint(kn_context *ctx, const kn_graph *g, const bool *wants, size_t memory,
                        kn_graph **out) {
  kn_grad_pair p = {.heap = ctx->heap, .results = g->body->nyields};
  splitter s = {.ctx = ctx, .g = g, .wants = wants, .memory = memory, .p = &p};
  ctx->error_status = KN_OK;
  bool fine = begin(&s) && copy_forward(&s) && choose_results(&s) && emit(&s);
  kn_status st = fine                         ? finish_joint(&s)
                 : s.f.status != KN_OK        ? s.f.status
                 : ctx->error_status != KN_OK ? ctx->error_status
                                              : KN_NOMEM;
  if (st == KN_OK) *out = kn_graph_retain(p.forward);
  kn_grad_pair_free(&p);
  return st;
}

void kn_grad_pair_free(kn_grad_pair *p) {
  kn_free(p->heap, p->ys, (p->results + 1u) * sizeof *p->ys);
  kn_free(p->heap, p->saved, p->nsaved * sizeof *p->saved);
  kn_graph_release(p->forward);
  kn_graph_release(p->backward);
}
