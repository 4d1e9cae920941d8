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
    if (n->op == KN_NODE_list_append) p->listed[n->in[1]->id] = true;
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
  if (p->handle[v->id] || p->undefined[v->id] || !kn_type_known(&p->types[v->id])) return KN_OK;
  if (!op && n->op != KN_NODE_to_tensor) return KN_OK;
  if (op && kn_ops[n->op].op_class == KN_CLASS_VIEW) {
    KN_TRY(place_view(ctx, p, n, v, &copies));
    if (!copies) return KN_OK;
  }
  size_t bytes;
  if (p->listed[v->id]) return KN_OK;
  if (once && p->result[v->id]) {
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

kn_status kn_plan_pass_on(kn_context *ctx, kn_plan *p, const kn_node *n, bool *passed) {
  *passed = false;
  if (n->op != KN_OP_sum_to) return KN_OK;
  uint32_t x = n->in[0]->id, v = n->out[0]->id;
  *passed = !p->single && kn_plan_is_fixed(p, x) && !p->maybe[x] && !p->maybe[n->in[1]->id] &&
            !p->handle[v] && !p->listed[v] && !p->result[v] && kn_type_known(&p->types[v]) &&
            kn_type_equal(&p->types[x], &p->types[v]);
  if (!*passed) return KN_OK;
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
