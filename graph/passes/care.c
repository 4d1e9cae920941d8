/* What passes take care of: see care.h. */
#include "graph/passes/care.h"
#include "graph/internal.h"

/* Made after the look at the graph. */
static bool is_new(const kn_care *c, const kn_value *v) { return v->id >= c->ids; }

/* ---- handles ---- */

static uint32_t root(const kn_care *c, uint32_t v) {
  while (c->parent[v] != v) v = c->parent[v] = c->parent[c->parent[v]];
  return v;
}

static void unite_ids(kn_care *c, uint32_t a, uint32_t b) {
  a = root(c, a), b = root(c, b);
  c->parent[a] = b;
  c->mark[b] |= c->mark[a];
}

static void unite(kn_care *c, const kn_value *a, const kn_value *b) {
  if (!kn_is_scalar(a->type.kind)) unite_ids(c, a->id, b->id);
}

static void mark(kn_care *c, const kn_value *v, uint8_t what) {
  if (!kn_is_scalar(v->type.kind)) c->mark[root(c, v->id)] |= what;
}

static bool writes(const kn_node *n) {
  return kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_WRITES;
}

/* Which of its inputs a node shows to somebody or keeps as they are. */
static void mark_node(kn_care *c, const kn_node *n) {
  switch ((int)n->op) {
  case KN_NODE_same: mark(c, n->in[0], KN_CARE_SEEN), mark(c, n->in[1], KN_CARE_SEEN); break;
  case KN_NODE_store_state: mark(c, n->in[0], KN_CARE_SEEN); break;
  case KN_NODE_update:
  case KN_NODE_list_append: mark(c, n->in[1], KN_CARE_SEEN); break;
  case KN_NODE_list_with: mark(c, n->in[3], KN_CARE_SEEN); break;
  case KN_NODE_list_get: mark(c, n->out[0], KN_CARE_SEEN); break;
  case KN_NODE_host_call:
    for (uint32_t i = 0; i < n->nin; i++) mark(c, n->in[i], KN_CARE_SEEN | KN_CARE_WRITTEN);
    for (uint32_t i = 0; i < n->nout; i++) mark(c, n->out[i], KN_CARE_SEEN | KN_CARE_WRITTEN);
    break;
  default:
    if (writes(n)) mark(c, n->in[0], KN_CARE_SEEN | KN_CARE_WRITTEN);
  }
}

/* `memory`: views are one with what they show. */
static void gather(kn_care *c, const kn_region *r, bool memory) {
  KN_EACH_NODE (n, r) {
    const kn_region *a = n->regions[0], *b = n->regions[1];
    for (int k = 0; k < n->nregions; k++) gather(c, n->regions[k], memory);
    for (uint32_t i = 0; n->op == KN_NODE_if && i < n->nout; i++)
      unite(c, n->out[i], a->yields[i]), unite(c, n->out[i], b->yields[i]);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < a->nparams; i++)
      unite(c, a->params[i], n->in[i]), unite(c, a->params[i], a->yields[1 + i]);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nout; i++)
      unite(c, n->out[i], a->yields[1 + a->nparams + i]);
    if (n->op == KN_NODE_detach || n->op == KN_NODE_with_history) unite(c, n->out[0], n->in[0]);
    if (n->op == KN_NODE_select) unite(c, n->out[0], n->in[1]), unite(c, n->out[0], n->in[2]);
    bool view = kn_opcode_is_op(n->op) && (kn_ops[n->op].op_class == KN_CLASS_VIEW || writes(n));
    if (memory && view) unite(c, n->out[0], n->in[0]);
    if (n->slot && n->nout && n->out[0]->type.kind == KN_V_TENSOR) {
      unite_ids(c, n->out[0]->id, c->ids + n->slot->index);
      mark(c, n->out[0], KN_CARE_SEEN);
    }
    mark_node(c, n);
  }
}

static bool has_writes(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (writes(n) || n->op == KN_NODE_host_call) return true;
    for (int k = 0; k < n->nregions; k++)
      if (has_writes(n->regions[k])) return true;
  }
  return false;
}

/* ---- gradients ---- */

typedef struct flow { /* both ways at once: `on` is leads or wants */
  bool *on;
  bool changed;
} flow;

static void set(flow *f, const kn_value *v, bool on) {
  if (!on || f->on[v->id] || kn_is_scalar(v->type.kind)) return;
  if (!kn_dtype_is_float((kn_dtype)v->type.tensor.dtype)) return;
  f->on[v->id] = f->changed = true;
}

/* Does a gradient go through it to its tensors (detach: to none, with_history: to the second)? */
static bool goes_on(const kn_node *n) {
  if (kn_opcode_is_op(n->op)) return !n->no_grad && kn_ops[n->op].vjp;
  return n->op != KN_NODE_detach && n->op != KN_NODE_host_call && !n->slot;
}

static bool from_input(const kn_node *n, uint32_t i) {
  if (kn_opcode_is_op(n->op)) return i < n->ntensor;
  return n->op != KN_NODE_with_history || i == 1;
}

/* What depends on what may require grad. */
static void forward(flow *f, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    const kn_region *a = n->regions[0], *b = n->regions[1];
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nin; i++)
      set(f, a->params[i], f->on[n->in[i]->id] || f->on[a->yields[1 + i]->id]);
    for (int k = 0; k < n->nregions; k++) forward(f, n->regions[k]);
    if (n->op == KN_NODE_loop) {
      for (uint32_t i = 0; i < n->nout; i++) set(f, n->out[i], f->on[a->yields[1 + n->nin + i]->id]);
    } else if (n->op == KN_NODE_if) {
      for (uint32_t i = 0; i < n->nout; i++)
        set(f, n->out[i], f->on[a->yields[i]->id] || f->on[b->yields[i]->id]);
    } else if (goes_on(n)) {
      bool any = false;
      for (uint32_t i = 0; i < n->nin; i++) any |= from_input(n, i) && f->on[n->in[i]->id];
      for (uint32_t i = 0; i < n->nout; i++) set(f, n->out[i], any);
    }
  }
}

/* What leads to a result. */
static void back(flow *f, const kn_region *r) {
  for (const kn_node *n = r->last; n; n = n->prev) {
    const kn_region *a = n->regions[0], *b = n->regions[1];
    for (uint32_t i = 0; n->op == KN_NODE_if && i < n->nout; i++)
      set(f, a->yields[i], f->on[n->out[i]->id]), set(f, b->yields[i], f->on[n->out[i]->id]);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nout; i++)
      set(f, a->yields[1 + n->nin + i], f->on[n->out[i]->id]);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nin; i++)
      set(f, a->yields[1 + i], f->on[a->params[i]->id]);
    for (int k = 0; k < n->nregions; k++) back(f, n->regions[k]);
    if (n->op == KN_NODE_loop) {
      for (uint32_t i = 0; i < n->nin; i++) set(f, n->in[i], f->on[a->params[i]->id]);
    } else if (goes_on(n)) {
      bool any = false;
      for (uint32_t i = 0; i < n->nout; i++) any |= f->on[n->out[i]->id];
      for (uint32_t i = 0; i < n->nin; i++) set(f, n->in[i], any && from_input(n, i));
    }
  }
}

/* What is stored anywhere gives no gradient: such a call is refused one. */
static void note_slots(flow *f, const kn_region *r, bool *stored) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_store_state) stored[n->slot->index] = true;
    for (int k = 0; k < n->nregions; k++) note_slots(f, n->regions[k], stored);
  }
}

static void from_slots(flow *f, const kn_region *r, const bool *stored) {
  KN_EACH_NODE (n, r) {
    if (n->slot && n->nout && n->slot->kind != KN_SLOT_CONST) set(f, n->out[0], !stored[n->slot->index]);
    for (int k = 0; k < n->nregions; k++) from_slots(f, n->regions[k], stored);
  }
}

static void find_flows(kn_care *c, bool *stored) {
  const kn_graph *g = c->b->graph;
  for (uint32_t i = 0; i < g->nneeds; i++)
    if (g->needs[i].kind == KN_NEED_no_gradients) return;
  flow f = {.on = c->leads};
  note_slots(&f, g->body, stored);
  from_slots(&f, g->body, stored);
  for (uint32_t i = 0; i < g->body->nparams; i++)
    set(&f, g->body->params[i], !kn_find_need(g, g->body->params[i], KN_NEED_no_grad));
  do {
    f.changed = false;
    forward(&f, g->body);
  } while (f.changed);
  f.on = c->wants;
  for (uint32_t i = 0; i < g->body->nyields; i++)
    set(&f, g->body->yields[i], c->leads[g->body->yields[i]->id]);
  do {
    f.changed = false;
    back(&f, g->body);
  } while (f.changed);
}

/* ---- life ---- */

kn_status kn_care_begin(kn_care *c, kn_builder *b, bool freely) {
  kn_graph *g = b->graph;
  kn_heap *h = b->ctx->heap;
  *c = (kn_care){.b = b, .ids = g->nvalues + 1, .n = g->nvalues + 1 + g->nslots, .freely = freely};
  c->parent = kn_calloc(h, c->n, sizeof *c->parent);
  c->mark = kn_calloc(h, c->n, sizeof *c->mark);
  c->leads = kn_calloc(h, c->n, sizeof *c->leads);
  c->wants = kn_calloc(h, c->n, sizeof *c->wants);
  bool *stored = kn_calloc(h, g->nslots + 1u, sizeof *stored);
  bool fine = c->parent && c->mark && c->leads && c->wants && stored;
  for (uint32_t i = 0; fine && i < c->n; i++) c->parent[i] = i;
  if (fine) {
    for (uint32_t i = 0; i < g->body->nparams; i++) mark(c, g->body->params[i], KN_CARE_SEEN);
    for (uint32_t i = 0; i < g->body->nyields; i++) mark(c, g->body->yields[i], KN_CARE_SEEN);
    gather(c, g->body, has_writes(g->body));
    find_flows(c, stored);
  }
  kn_free(h, stored, (g->nslots + 1u) * sizeof *stored);
  if (fine) return KN_OK;
  kn_care_end(c);
  return kn_fail_nomem(b->ctx, c->n * sizeof *c->parent);
}

void kn_care_end(kn_care *c) {
  kn_heap *h = c->b->ctx->heap;
  kn_free(h, c->parent, c->n * sizeof *c->parent);
  kn_free(h, c->mark, c->n * sizeof *c->mark);
  kn_free(h, c->leads, c->n * sizeof *c->leads);
  kn_free(h, c->wants, c->n * sizeof *c->wants);
  c->parent = NULL, c->mark = NULL, c->leads = c->wants = NULL;
}

/* ---- questions ---- */

bool kn_care_seen(const kn_care *c, const kn_value *v) {
  return !is_new(c, v) && c->mark[root(c, v->id)] & KN_CARE_SEEN;
}

bool kn_care_written(const kn_care *c, const kn_value *v) {
  return !is_new(c, v) && c->mark[root(c, v->id)] & KN_CARE_WRITTEN;
}

bool kn_care_may_change(const kn_care *c, const kn_value *v) {
  return c->freely || is_new(c, v) || !c->wants[v->id] || !c->leads[v->id];
}

bool kn_care_may_be(const kn_care *c, const kn_value *v, const kn_value *with) {
  if (is_new(c, v) || !c->wants[v->id]) return true;
  if (is_new(c, with)) return false;
  return c->freely ? c->leads[v->id] == c->leads[with->id] : !c->leads[v->id] && !c->leads[with->id];
}

void kn_care_note(kn_care *c, const kn_value *v, const kn_value *with) {
  if (is_new(c, v) || is_new(c, with)) return;
  unite(c, v, with);
  c->wants[with->id] |= c->wants[v->id];
}

bool kn_care_pure_op(const kn_node *n) {
  return kn_opcode_is_op(n->op) && !kn_op_is_effect((kn_op)n->op) &&
         kn_ops[n->op].op_class != KN_CLASS_RANDOM;
}
