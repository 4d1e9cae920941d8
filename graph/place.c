/* Where tensors of a plan live: see kn_place. Also which tensors must stay the handles that the program made,
 * because something writes into them or compares them: those are never copied behind the program's back. */
#include "core/kernels/kernel.h"
#include "graph/plan.h"

/* ---- values that may be the same tensor ---- */

typedef struct classes { /* union-find over value ids, then slots */
  uint32_t *parent;
} classes;

static uint32_t find(classes *c, uint32_t v) {
  while (c->parent[v] != v) v = c->parent[v] = c->parent[c->parent[v]];
  return v;
}

static void unite(classes *c, const kn_value *a, const kn_value *b) {
  if (a->type.kind == KN_V_TENSOR) c->parent[find(c, a->id)] = find(c, b->id);
}

static bool writes(const kn_node *n) {
  return kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_WRITES;
}

static void gather_region(classes *c, const kn_graph *g, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (kn_opcode_is_op(n->op)) {
      if (writes(n) || kn_ops[n->op].op_class == KN_CLASS_VIEW) unite(c, n->out[0], n->in[0]);
      continue;
    }
    const kn_region *a = n->regions[0], *b = n->regions[1];
    if (n->nregions) gather_region(c, g, a);
    if (n->nregions > 1) gather_region(c, g, b);
    for (uint32_t i = 0; n->op == KN_NODE_if && i < n->nout; i++) {
      unite(c, n->out[i], a->yields[i]);
      unite(c, n->out[i], b->yields[i]);
    }
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < a->nparams; i++) {
      unite(c, a->params[i], n->in[i]);
      unite(c, a->params[i], a->yields[1 + i]);
    }
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nout; i++)
      unite(c, n->out[i], a->yields[1 + a->nparams + i]);
    if (kn_node_passes(n)) unite(c, n->out[0], n->in[0]);
    if (n->op == KN_NODE_select) unite(c, n->out[0], n->in[1]), unite(c, n->out[0], n->in[2]);
    if (n->op == KN_NODE_load_state || n->op == KN_NODE_param || n->op == KN_NODE_tensor)
      if (n->out[0]->type.kind == KN_V_TENSOR)
        c->parent[find(c, n->out[0]->id)] = find(c, g->nvalues + 1 + n->slot->index);
  }
}

/* Marks the classes of what is written to (2) or compared (1). */
static void mark_region(classes *c, const kn_region *r, uint8_t *mark) {
  KN_EACH_NODE (n, r) {
    if (writes(n)) mark[find(c, n->in[0]->id)] |= 2;
    if (n->op == KN_NODE_same)
      for (int i = 0; i < 2; i++) mark[find(c, n->in[i]->id)] |= 1;
    for (int i = 0; i < n->nregions; i++) mark_region(c, n->regions[i], mark);
  }
}

static bool has_handles(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (writes(n) || n->op == KN_NODE_same) return true;
    for (int i = 0; i < n->nregions; i++)
      if (has_handles(n->regions[i])) return true;
  }
  return false;
}

static void mark_listed(kn_plan *p, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_list_append && !kn_plan_is_flat(p, n->in[0])) p->listed[n->in[1]->id] = true;
    for (int i = 0; i < n->nregions; i++) mark_listed(p, n->regions[i]);
  }
}

kn_status kn_plan_handles(kn_context *ctx, kn_plan *p) {
  const kn_graph *g = p->graph;
  mark_listed(p, g->body);
  if (!has_handles(g->body)) return KN_OK;
  uint32_t n = g->nvalues + 1 + g->nslots;
  classes c = {kn_arena_alloc(&p->arena, n * sizeof *c.parent)};
  uint8_t *mark = kn_arena_alloc(&p->arena, n);
  if (!c.parent || !mark) return kn_fail_nomem(ctx, n);
  for (uint32_t i = 0; i < n; i++) c.parent[i] = i;
  gather_region(&c, g, g->body);
  mark_region(&c, g->body, mark);
  for (uint32_t v = 1; v <= g->nvalues; v++) p->handle[v] = mark[find(&c, v)] != 0;
  for (uint32_t s = 0; s < g->nslots; s++) {
    bool written = mark[find(&c, g->nvalues + 1 + s)] & 2;
    if (written && g->slots[s]->kind != KN_SLOT_STATE)
      return kn_fail(ctx, KN_UNSUPPORTED, "graph %s: it would write into \"%s\", which it may only read",
                     g->name, g->slots[s]->name);
    p->slot_copied[s] = written;
  }
  return KN_OK;
}

/* ---- headers ---- */

kn_status kn_plan_buffer(kn_context *ctx, kn_plan *p, const kn_type *type, uint32_t value, uint32_t first,
                         uint32_t block, kn_tensor **header) {
  kn_buffer b = {.value = value, .first = first, .last = first, .block = block};
  KN_TRY(kn_tensor_wrap(ctx, type, p, NULL, NULL, &b.header)); /* the address comes with the arena */
  b.bytes = b.header->storage->bytes;
  if (!kn_plan_push(p, &p->buffers, &p->nbuffers, &b, sizeof b)) {
    kn_tensor_release(b.header);
    return kn_fail_nomem(ctx, sizeof b);
  }
  *header = b.header;
  return KN_OK;
}

/* Views that copy where the strides leave no other way. */
static bool may_copy(kn_op op) { return op == KN_OP_reshape || op == KN_OP_reshape_as; }

static kn_status place_view(kn_context *ctx, kn_plan *p, const kn_node *n, const kn_value *v, bool *copies) {
  char why[64];
  bool fixed = kn_plan_is_fixed(p, n->in[0]->id) && kn_node_static(n, p->types, why, sizeof why);
  int64_t strides[KN_MAX_RANK];
  *copies = fixed && may_copy((kn_op)n->op) &&
            !kn_reshape_strides(p->header[n->in[0]->id], &p->types[v->id], strides);
  if (*copies) return KN_OK;
  kn_tensor *t;
  KN_TRY(kn_tensor_symbolic(ctx, &p->types[v->id], NULL, &t));
  p->header[v->id] = t;
  p->place[v->id] = fixed ? KN_PLACE_VIEW : KN_PLACE_SHELL;
  if (!fixed) return KN_OK;
  kn_tensor *in[KN_MAX_INPUTS]; /* views look at sizes and strides only: other inputs lend their type */
  kn_tensor lent[2] = {{0}};
  for (uint32_t i = 0; i < n->ntensor; i++) {
    in[i] = p->header[n->in[i]->id];
    if (in[i]) continue;
    lent[i % 2].type = p->types[n->in[i]->id];
    kn_strides_contiguous(&lent[i % 2].type, lent[i % 2].strides);
    in[i] = &lent[i % 2];
  }
  return kn_ops[n->op].kernel(ctx, n->attrs, in, (int)n->ntensor, &p->header[v->id]);
}

kn_status kn_plan_place(kn_context *ctx, kn_plan *p, const kn_node *n, const kn_value *v, uint32_t pos,
                        uint32_t block, bool once) {
  if (kn_is_list(v->type.kind)) p->place[v->id] = KN_PLACE_LOOSE;
  if (v->type.kind != KN_V_TENSOR) return KN_OK;
  bool op = kn_opcode_is_op(n->op), copies = false;
  p->place[v->id] = KN_PLACE_LOOSE;
  if (p->handle[v->id] || n->told || p->undefined[v->id] || !kn_type_known(&p->types[v->id])) return KN_OK;
  const bool element = n->op == KN_NODE_list_get && kn_plan_is_flat(p, n->in[0]);
  if (!op && n->op != KN_NODE_to_tensor && !element &&
      !(p->whole && n->op == KN_NODE_select && !kn_plan_may_miss(p, v->id)))
    return KN_OK;
  const bool copied =
      p->whole && p->types[v->id].device == p->whole->device && kn_node_is_placed(n, p->types);
  if (op && kn_ops[n->op].op_class == KN_CLASS_VIEW && !copied) { /* of a place that only the device knows */
    KN_TRY(place_view(ctx, p, n, v, &copies));
    if (!copies) return KN_OK;
  }
  size_t bytes;
  if (p->listed[v->id]) return KN_OK;
  if (once && p->result[v->id] && !p->whole) {
    p->place[v->id] = KN_PLACE_FRESH;
    return KN_OK;
  }
  if (!kn_type_bytes(&p->types[v->id], &bytes)) return KN_OK; /* too large: told when it is reached */
  KN_TRY(kn_plan_buffer(ctx, p, &p->types[v->id], v->id, pos, block, &p->header[v->id]));
  const uint32_t last = p->nbuffers - 1;
  p->buffers[last].store = p->store[v->id];
  if (p->store[v->id] && !kn_plan_push(p, &p->staged, &p->nstaged, &last, sizeof last))
    return kn_fail_nomem(ctx, sizeof last);
  p->place[v->id] = KN_PLACE_ARENA;
  return KN_OK;
}

bool kn_plan_may_pass_on(const kn_plan *p, const kn_node *n) {
  if (n->op != KN_OP_sum_to || p->single) return false;
  uint32_t x = n->in[0]->id, v = n->out[0]->id;
  return !p->maybe[x] && !p->maybe[n->in[1]->id] && !p->handle[v] && !p->listed[v] && !p->result[v] &&
         kn_type_known(&p->types[v]) && kn_type_equal(&p->types[x], &p->types[v]);
}

kn_status kn_plan_pass_on(kn_context *ctx, kn_plan *p, const kn_node *n, bool *passed) {
  *passed = kn_plan_may_pass_on(p, n) && kn_plan_is_fixed(p, n->in[0]->id);
  if (!*passed) return KN_OK;
  uint32_t x = n->in[0]->id, v = n->out[0]->id;
  const kn_tensor *from = p->header[x];
  kn_tensor *t;
  KN_TRY(kn_tensor_symbolic(ctx, &p->types[v], NULL, &t));
  kn_tensor_set_view(t, from, from->offset, from->strides);
  p->header[v] = t;
  p->place[v] = KN_PLACE_VIEW;
  p->same[v] = n->in[0];
  p->reads[x] += p->reads[v];
  p->reads[x]--;
  return KN_OK;
}

/* ---- values that are bound ---- */

/* Is its tensor there for the whole run, whoever is bound to it? */
static bool stays(const kn_plan *p, const kn_value *v) {
  bool none = v->def && v->def->op == KN_NODE_undef;
  return p->ready[v->id] || kn_plan_is_fixed(p, v->id) || p->place[v->id] == KN_PLACE_LENT || none;
}

static void lend(kn_plan *p, const kn_value *v, const kn_value *a, const kn_value *b) {
  bool loose = v->type.kind == KN_V_TENSOR && p->place[v->id] == KN_PLACE_LOOSE;
  if (loose && stays(p, a) && stays(p, b)) p->place[v->id] = KN_PLACE_LENT;
}

/* What a region made is nobody's but its yield's when that is bound, unless [from, to) yield it twice. */
static void yield_once(kn_plan *p, const kn_region *r, uint32_t from, uint32_t to, uint32_t *count) {
  for (uint32_t i = from; i < to; i++) count[r->yields[i]->id]++;
  for (uint32_t i = from; i < to; i++) p->passed[r->yields[i]->id] &= count[r->yields[i]->id] == 1;
  for (uint32_t i = from; i < to; i++) count[r->yields[i]->id] = 0;
}

static void pass(kn_plan *p, const kn_region *r, uint32_t *count) {
  const uint32_t next =
      r->owner->op == KN_NODE_loop ? 1 + r->nparams : 0; /* of a trip that is not the last */
  for (uint32_t i = 0; i < r->nyields; i++) p->passed[r->yields[i]->id] = r->yields[i]->region == r;
  yield_once(p, r, 0, next, count);
  yield_once(p, r, next, r->nyields, count);
}

static void bind_in(kn_plan *p, const kn_region *r, uint32_t *count) {
  KN_EACH_NODE (n, r) {
    const kn_region *a = n->regions[0], *b = n->regions[1];
    for (int i = 0; i < n->nregions; i++) pass(p, n->regions[i], count);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < a->nparams; i++)
      if (a->yields[1 + i] == a->params[i]) lend(p, a->params[i], n->in[i], n->in[i]);
    for (int i = 0; i < n->nregions; i++) bind_in(p, n->regions[i], count);
    for (uint32_t i = 0; n->op == KN_NODE_if && i < n->nout; i++)
      lend(p, n->out[i], a->yields[i], b->yields[i]);
    for (uint32_t i = 0; n->op == KN_NODE_loop && i < n->nout; i++)
      lend(p, n->out[i], a->yields[1 + a->nparams + i], a->yields[1 + a->nparams + i]);
    if (n->op == KN_NODE_select) lend(p, n->out[0], n->in[1], n->in[2]);
  }
}

static kn_status push_bind(kn_context *ctx, kn_plan *p, const kn_value *to, const kn_value *from) {
  if (kn_is_scalar(to->type.kind) && p->known[to->id]) return KN_OK;
  const kn_bind b = {to->id, from->id,
                     kn_is_scalar(to->type.kind)         ? KN_BIND_NUMBER
                     : kn_is_list(to->type.kind)         ? KN_BIND_LIST
                     : p->place[to->id] == KN_PLACE_LENT ? KN_BIND_LENT
                     : kn_plan_is_fixed(p, to->id)       ? KN_BIND_COPY
                                                         : KN_BIND_OWN};
  return kn_plan_push(p, &p->binds, &p->nbinds, &b, sizeof b) ? KN_OK : kn_fail_nomem(ctx, sizeof b);
}

/* What a step binds when a region of its node has run. */
static kn_status list_binds(kn_context *ctx, kn_plan *p, kn_step *s) {
  const bool loop = s->kind == KN_STEP_LOOP;
  if (!loop && s->kind != KN_STEP_IF && s->kind != KN_STEP_BIND) return KN_OK;
  for (int side = 0; side < s->node->nregions; side++) {
    const kn_region *r = s->node->regions[side];
    s->bind[side] = p->nbinds;
    for (uint32_t i = 0; i < s->node->nout; i++)
      KN_TRY(push_bind(ctx, p, s->node->out[i], r->yields[loop ? 1 + r->nparams + i : i]));
    s->nbind[side] = p->nbinds - s->bind[side];
  }
  return KN_OK;
}

kn_status kn_plan_bindings(kn_context *ctx, kn_plan *p) {
  uint32_t *count = kn_arena_alloc(&p->arena, (p->graph->nvalues + 1u) * sizeof *count);
  if (!count) return kn_fail_nomem(ctx, p->graph->nvalues * sizeof *count);
  bind_in(p, p->graph->body, count);
  for (uint32_t b = 0; b < p->nblocks; b++)
    for (uint32_t i = 0; i < p->blocks[b].n; i++) KN_TRY(list_binds(ctx, p, &p->blocks[b].steps[i]));
  return KN_OK;
}
