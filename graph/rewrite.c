/* Applying rules to a graph: see rewrite.h. How rules are read and compared with nodes is in rule.c. */
#include "graph/attempt.h"
#include "graph/internal.h"
#include "graph/rule.h"
#include <stdio.h>
#include <string.h>

enum { TRIES = 8 }; /* rules applied to one node, one after another */

typedef struct rewriter {
  kn_builder *b;
  kn_care care;
  kn_rules rules;
  kn_value **instead; /* by value id */
  bool *laid;         /* by value id: something may depend on how it lies */
  uint32_t ids, changes;
} rewriter;

/* ---- how tensors lie ---- */

static bool is_elementwise(const kn_node *n) {
  return kn_opcode_is_op(n->op) && kn_ops[n->op].op_class == KN_CLASS_ELEMENTWISE;
}

bool kn_rewrite_in_order(const kn_value *v) {
  for (int depth = 0; depth < 8 && v->def; depth++, v = v->def->in[0]) {
    const kn_node *d = v->def;
    if (d->op == KN_NODE_to_tensor) return true;
    if (d->op == KN_NODE_tensor) return d->slot->tensor && kn_tensor_contiguous(d->slot->tensor);
    if (!kn_opcode_is_op(d->op) || kn_ops[d->op].flags & KN_FLAG_WRITES) return false;
    if (kn_ops[d->op].op_class != KN_CLASS_VIEW) return true;
    if (d->op != KN_OP_reshape && d->op != KN_OP_reshape_as && d->op != KN_OP_unsqueeze) return false;
  }
  return false;
}

static void note_lies(rewriter *r, const kn_region *at) {
  KN_EACH_NODE (n, at) {
    bool any = is_elementwise(n) || n->op == KN_NODE_size || n->op == KN_NODE_defined;
    for (uint32_t i = 0; i < n->nin && !any; i++) r->laid[n->in[i]->id] = true;
    for (int k = 0; k < n->nregions; k++) note_lies(r, n->regions[k]);
  }
  for (uint32_t i = 0; i < at->nyields; i++) r->laid[at->yields[i]->id] = true;
}

/* ---- may it be applied ---- */

/* Sizes that are the same whatever a run brings. */
static bool same_sizes(const kn_type *x, const kn_type *y) {
  for (int i = 0; i < x->rank; i++)
    if (x->dims[i] != y->dims[i] || x->dims[i] == KN_DIM_UNKNOWN) return false;
  return true;
}

/* The same values broadcast with each other on both sides, and constants that are one number. */
static bool all_pointwise(const kn_match *m, const kn_compiled *c) {
  for (uint32_t i = 0; i < m->nnodes; i++)
    if (!is_elementwise(m->nodes[i])) return false;
  for (int a = 0; a <= KN_LETTER('c'); a++)
    if (m->value[a] && m->value[a]->type.tensor.rank) return false;
  return c->pointwise && !m->wide;
}

static bool surely_same(const kn_match *m, const kn_compiled *c, const kn_vtype *to) {
  const kn_vtype *from = &m->node->out[0]->type;
  if (!kn_vtype_fits(to, from)) return false;
  if (from->kind != KN_V_TENSOR) return kn_vtype_equal(to, from);
  return m->same_sizes || all_pointwise(m, c) || same_sizes(&to->tensor, &from->tensor);
}

/* What goes could not raise, and nothing of it is written to. */
static bool nothing_lost(const rewriter *r, const kn_match *m) {
  for (uint32_t i = 0; i < m->nnodes; i++) {
    const kn_node *n = m->nodes[i];
    if (i && kn_node_may_raise(n)) return false;
    for (uint32_t k = 0; k < n->nin; k++)
      if (kn_care_written(&r->care, n->in[k])) return false;
    if (kn_care_written(&r->care, n->out[0])) return false;
  }
  return true;
}

/* Gradients: none comes, or it may change and the same nodes let it pass. */
static bool gradients_stay(const rewriter *r, const kn_match *m) {
  const kn_value *v = m->node->out[0];
  if (!kn_care_may_change(&r->care, v)) return false;
  for (uint32_t i = 0; r->care.freely && i < m->nnodes; i++)
    if (m->nodes[i]->no_grad != m->node->no_grad) return false;
  return true;
}

/* ---- applying ---- */

static bool put_value(rewriter *r, const kn_match *m, const kn_compiled *c, kn_value *x) {
  kn_value *v = m->node->out[0];
  bool open = kn_opcode_is_op(m->node->op) && m->node->nin > m->node->ntensor; /* by a number: a position */
  bool raises = (open || (!all_pointwise(m, c) && is_elementwise(m->node))) && kn_node_may_raise(m->node);
  if (raises || !surely_same(m, c, &x->type) || !kn_care_may_be(&r->care, v, x)) return false;
  if (v->type.kind == KN_V_TENSOR) {
    if (kn_care_seen(&r->care, v)) return false;
    bool laid = v->id >= r->ids || r->laid[v->id];
    if (laid && !m->same_lie && !kn_rewrite_in_order(x)) return false;
    if (x->id < r->ids) r->laid[x->id] |= laid;
  }
  if (!x->name && x->def) x->name = v->name;
  kn_care_note(&r->care, v, x);
  r->instead[v->id] = x;
  kn_node_remove((kn_node *)m->node);
  return true;
}

static kn_value *build(kn_builder *b, kn_match *m, const kn_compiled *c, uint32_t at);

static kn_value *make_number(kn_builder *b, const kn_match *m, double number) {
  kn_dtype dtype = (kn_dtype)m->node->out[0]->type.tensor.dtype;
  kn_scalar s = {KN_SCALAR_FLOAT, {.f = number}};
  if (!kn_dtype_is_float(dtype)) s = (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)number}};
  kn_value *k = kn_add_const(b, s), *t = k ? kn_add_to_tensor(b, k, dtype) : NULL;
  if (!t) return NULL;
  kn_node_move_before(k->def, (kn_node *)m->node);
  kn_node_move_before(t->def, (kn_node *)m->node);
  return t;
}

static kn_node *build_node(kn_builder *b, kn_match *m, const kn_compiled *c, const kn_term *t) {
  kn_value *in[KN_TERM_ARGS];
  for (uint32_t i = 0; i < t->n; i++)
    if (!(in[i] = build(b, m, c, t->args[i]))) return NULL;
  const kn_node *of = t->attrs && t->attrs != 'Z' ? m->attrs[KN_LETTER(t->attrs)] : NULL;
  const void *attrs = of ? of->attrs : t->attrs ? &m->made : NULL;
  return kn_add_op(b, (kn_op)t->op, attrs, in, t->n, of ? of->in + of->ntensor : NULL,
                   of ? of->nin - of->ntensor : 0);
}

static kn_value *build(kn_builder *b, kn_match *m, const kn_compiled *c, uint32_t at) {
  const kn_term *t = &c->terms[at];
  if (t->kind == KN_TERM_VALUE || t->kind == KN_TERM_CONSTANT) return m->value[KN_LETTER(t->letter)];
  if (t->kind != KN_TERM_OP) return make_number(b, m, kn_term_number(m, t));
  kn_node *n = build_node(b, m, c, t);
  if (n) kn_node_move_before(n, (kn_node *)m->node);
  return n ? n->out[0] : NULL;
}

/* The replacement's node, at the end of the region; what it reads stands before the node. */
static kn_node *build_like(kn_builder *b, kn_match *m, const kn_compiled *c) {
  kn_builder was = *b;
  b->at = m->node->region, b->where = m->node->where;
  b->no_grad = m->node->no_grad, b->again = m->node->again;
  const kn_term *t = &c->terms[c->to];
  kn_value *x = t->kind == KN_TERM_OP ? NULL : m->value[KN_LETTER(t->letter)];
  kn_node *made = x ? kn_add_op(b, KN_OP_clone, NULL, &x, 1, NULL, 0) : build_node(b, m, c, t);
  b->at = was.at, b->where = was.where, b->no_grad = was.no_grad, b->again = was.again;
  return made;
}

/* What was tried counts as made no more: a graph of many nodes has room for few others. */
static void forget(const rewriter *r, kn_node *made, const kn_node *last, const kn_node *n, uint32_t before) {
  if (made) kn_node_remove(made);
  while (n->prev != last) kn_node_remove(n->prev);
  if (r->b->status == KN_OK) r->b->graph->nnodes = before;
}

/* The same, where it may take the node's place. */
static kn_node *try_op(rewriter *r, kn_match *m, const kn_compiled *c) {
  kn_node *n = (kn_node *)m->node, *last = n->prev;
  uint32_t before = r->b->graph->nnodes;
  const kn_term *t = &c->terms[c->to];
  if (t->kind == KN_TERM_OP ? t->op != n->op && kn_node_may_raise(n)
                            : m->value[KN_LETTER(t->letter)]->type.kind != KN_V_TENSOR)
    return NULL;
  if (!kn_rule_exact_numbers(m, c)) return NULL;
  kn_node *made = build_like(r->b, m, c);
  if (made && surely_same(m, c, &made->out[0]->type)) return made;
  forget(r, made, last, n, before);
  return NULL;
}

/* The node becomes another, and its result stays the value that it is. */
static bool put_op(rewriter *r, kn_match *m, const kn_compiled *c) {
  kn_node *made = try_op(r, m, c), *n = (kn_node *)m->node;
  if (!made) return false;
  kn_node_remove(made);
  r->b->graph->nnodes--;
  n->op = made->op;
  n->attrs = made->attrs;
  n->in = made->in;
  n->nin = made->nin;
  n->ntensor = made->ntensor;
  for (uint32_t i = 0; i < n->nin; i++)
    if (n->in[i]->id < r->ids && !is_elementwise(n)) r->laid[n->in[i]->id] = true;
  return true;
}

static bool may_apply(const rewriter *r, kn_match *m, const kn_compiled *c) {
  return kn_rule_matches(m, c) && gradients_stay(r, m) && nothing_lost(r, m) &&
         (!c->rule->where || c->rule->where(m));
}

static bool apply(rewriter *r, kn_node *n, const kn_compiled *c) {
  kn_match m = {.node = n};
  if (!may_apply(r, &m, c)) return false;
  const kn_term *to = &c->terms[c->to];
  bool done = to->kind == KN_TERM_OP ? put_op(r, &m, c) : put_value(r, &m, c, m.value[KN_LETTER(to->letter)]);
  r->changes += done;
  return done;
}

/* ---- the walk ---- */

static void put_instead(const rewriter *r, kn_value **list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    while (list[i]->id < r->ids && r->instead[list[i]->id]) list[i] = r->instead[list[i]->id];
}

static void put_in_tree(const rewriter *r, kn_tree *t) {
  if (t->kind == KN_TREE_VALUE) put_instead(r, &t->value, 1);
  if (kn_tree_has_items(t->kind))
    for (uint32_t i = 0; i < t->n; i++) put_in_tree(r, &t->items[i]);
}

static bool apply_any(rewriter *r, kn_node *n) {
  for (const kn_compiled *c = r->rules.first[n->op]; c; c = c->next)
    if (apply(r, n, c)) return true;
  return false;
}

static void walk(rewriter *r, kn_region *at) {
  for (kn_node *n = at->first, *next; n && r->b->status == KN_OK; n = next) {
    next = n->next;
    put_instead(r, n->in, n->nin);
    for (int k = 0; k < n->nregions; k++) walk(r, n->regions[k]);
    for (int i = 0; i < TRIES && n->region && n->nout == 1; i++)
      if (!apply_any(r, n)) break;
  }
  put_instead(r, at->yields, at->nyields);
}

/* ---- life ---- */

static kn_status begin(rewriter *r, kn_builder *b, const kn_rule *rules, bool freely) {
  *r = (rewriter){.b = b, .ids = b->graph->nvalues + 1};
  KN_TRY(kn_care_begin(&r->care, b, freely));
  kn_status st = kn_rules_read(&r->rules, b, rules);
  r->instead = kn_calloc(b->ctx->heap, r->ids, sizeof(kn_value *));
  r->laid = kn_calloc(b->ctx->heap, r->ids, sizeof *r->laid);
  return st != KN_OK || (r->instead && r->laid) ? st : kn_fail_nomem(b->ctx, r->ids * sizeof(kn_value *));
}

static void end(rewriter *r) {
  kn_free(r->b->ctx->heap, r->instead, r->ids * sizeof(kn_value *));
  kn_free(r->b->ctx->heap, r->laid, r->ids * sizeof *r->laid);
  kn_rules_free(&r->rules);
  if (r->care.parent) kn_care_end(&r->care);
}

kn_status kn_rewrite(kn_builder *b, const kn_rule *rules, bool freely, uint32_t *changes) {
  kn_graph *g = b->graph;
  rewriter r;
  kn_status st = begin(&r, b, rules, freely);
  if (st == KN_OK) {
    note_lies(&r, g->body);
    walk(&r, g->body);
    for (uint32_t i = 0; i < g->nresults; i++) put_in_tree(&r, &g->results[i]);
    *changes = r.changes;
    st = b->status;
  }
  end(&r);
  return st;
}

/* ---- as folds ---- */

typedef struct plan {
  kn_compiled rule;
  kn_match match;
} plan;

static bool note_fold(rewriter *r, kn_match *m, const kn_compiled *c, kn_fold **list, uint32_t *n) {
  plan *p = kn_build_alloc(r->b, sizeof *p);
  size_t size = strlen(c->rule->from) + strlen(c->rule->to) + 5;
  char *what = kn_build_alloc(r->b, size);
  if (!p || !what) return false;
  *p = (plan){*c, *m};
  snprintf(what, size, "%s -> %s", c->rule->from, c->rule->to);
  kn_node *node = (kn_node *)m->node;
  kn_fold f = {.node = node, .what = what, .from = node->out, .n = 1, .last = node, .plan = p};
  return kn_build_push(r->b, list, n, &f, sizeof f);
}

static bool find_region(rewriter *r, kn_region *at, kn_fold **list, uint32_t *n) {
  KN_EACH_NODE (node, at) {
    for (int k = 0; k < node->nregions; k++)
      if (!find_region(r, node->regions[k], list, n)) return false;
    const kn_compiled *c = node->nout == 1 ? r->rules.first[node->op] : NULL;
    for (bool found = false; c && !found; c = c->next) {
      kn_match m = {.node = node};
      uint32_t before = r->b->graph->nnodes;
      kn_node *last = node->prev, *made = may_apply(r, &m, c) ? try_op(r, &m, c) : NULL;
      found = made != NULL;
      if (!found) continue;
      forget(r, made, last, node, before);
      if (!note_fold(r, &m, c, list, n)) return false;
    }
  }
  return true;
}

kn_status kn_rewrite_find(kn_builder *b, const kn_rule *rules, kn_fold **list, uint32_t *n) {
  rewriter r;
  kn_status st = begin(&r, b, rules, true);
  if (st == KN_OK && !find_region(&r, b->graph->body, list, n)) st = b->status;
  end(&r);
  return st;
}

bool kn_rewrite_make(kn_builder *b, const kn_fold *f, kn_value **to) {
  plan *p = f->plan;
  kn_node *n = build_like(b, &p->match, &p->rule);
  if (!n) return false;
  *to = kn_fold_place(n, f->last)->out[0];
  (*to)->name = f->node->out[0]->name;
  return true;
}
