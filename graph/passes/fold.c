/* needs: nothing.
 * does:  computes numbers from constants; takes the branch of an if with a constant condition, and the one
 * trip of a loop that never repeats; replaces results that are the same on both paths, carried values that
 * never change, and constants that are there already. keeps: effects and their order; what would raise is
 * left to raise when it runs; types get narrower at most. */
#include "graph/attempt.h"
#include "graph/internal.h"
#include "graph/pipeline.h"
#include "graph/scalar.h"
#include <string.h>

typedef struct folder {
  kn_builder *b;
  kn_value **instead; /* by value id: what to use in its place */
  uint32_t nids;
  kn_value **consts; /* constants visible here, outer ones first */
  uint32_t nconsts;
  uint32_t changes;
} folder;

enum { LOOK_BACK = 256 }; /* most constants compared; programs have few */

/* ---- replacing ---- */

static kn_value *present(const folder *f, kn_value *v) {
  while (f->instead[v->id]) v = f->instead[v->id];
  return v;
}

static void replace(folder *f, kn_value *v, kn_value *with) {
  with = present(f, with);
  if (with == v) return;
  if (!with->name && with->def) with->name = v->name;
  f->instead[v->id] = with;
  f->changes++;
}

static void rewrite(const folder *f, kn_value **list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) list[i] = present(f, list[i]);
}

static void rewrite_tree(const folder *f, kn_tree *t) {
  if (t->kind == KN_TREE_VALUE) t->value = present(f, t->value);
  if (kn_tree_has_items(t->kind))
    for (uint32_t i = 0; i < t->n; i++) rewrite_tree(f, &t->items[i]);
}

/* ---- constants ---- */

static bool is_const(const kn_value *v) { return v->def && v->def->op == KN_NODE_const; }

static bool same_const(const kn_scalar *a, const kn_scalar *b) {
  if (a->kind != b->kind) return false;
  return a->kind == KN_SCALAR_BOOL ? a->as.b == b->as.b : !memcmp(&a->as, &b->as, sizeof a->as);
}

/* Constants that the program names apart stay apart, for the reader. */
static bool same_name(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

/* The node becomes a constant, in place. */
static void make_const(folder *f, kn_node *n, kn_scalar s) {
  static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_BOOL};
  n->op = KN_NODE_const;
  n->nin = n->ntensor = 0;
  n->attrs = NULL;
  n->scalar = s;
  n->out[0]->type.kind = kinds[s.kind];
  f->changes++;
}

static void note_const(folder *f, kn_node *n) {
  for (uint32_t i = f->nconsts, seen = 0; i-- > 0 && seen < LOOK_BACK; seen++)
    if (same_const(&f->consts[i]->def->scalar, &n->scalar) &&
        same_name(f->consts[i]->name, n->out[0]->name)) {
      replace(f, n->out[0], f->consts[i]);
      return;
    }
  f->consts[f->nconsts++] = n->out[0];
}

/* ---- one node ---- */

static void fold_scalar(folder *f, kn_node *n) {
  kn_scalar in[3], out;
  kn_vkind kinds[3], kind;
  for (uint32_t i = 0; i < n->nin && i < 3; i++) kinds[i] = n->in[i]->type.kind;
  if (!n->nin || n->nin > 3 || n->nout != 1 || !kn_scalar_result(n->op, kinds, n->nin, &kind)) return;
  for (uint32_t i = 0; i < n->nin; i++) {
    if (!is_const(n->in[i])) return;
    in[i] = n->in[i]->def->scalar;
  }
  if (kn_scalar_eval(f->b->ctx, n->op, in, n->nin, &out) == KN_OK) make_const(f, n, out);
}

static void fold_select(folder *f, kn_node *n) {
  if (is_const(n->in[0]))
    replace(f, n->out[0], n->in[n->in[0]->def->scalar.as.b ? 1 : 2]);
  else if (n->in[1] == n->in[2])
    replace(f, n->out[0], n->in[1]);
}

static void fold_plain(folder *f, kn_node *n) {
  switch ((int)n->op) {
  case KN_NODE_const: break;
  case KN_NODE_select: fold_select(f, n); break;
  case KN_NODE_size: {
    int64_t d = n->in[0]->type.tensor.dims[*(const int64_t *)n->attrs];
    if (kn_dim_known(d)) make_const(f, n, (kn_scalar){KN_SCALAR_INT, {.i = d}});
    break;
  }
  case KN_NODE_lua_tofloat:
    if (n->in[0]->type.kind == KN_V_FLOAT)
      replace(f, n->out[0], n->in[0]);
    else
      fold_scalar(f, n);
    break;
  case KN_NODE_lua_floor:
  case KN_NODE_lua_ceil:
    if (n->in[0]->type.kind == KN_V_INT)
      replace(f, n->out[0], n->in[0]);
    else
      fold_scalar(f, n);
    break;
  case KN_NODE_defined: {
    const kn_node *d = n->in[0]->def;
    bool made = d && (kn_opcode_is_op(d->op) || d->op == KN_NODE_to_tensor || d->op == KN_NODE_param ||
                      d->op == KN_NODE_tensor);
    if (made || (d && d->op == KN_NODE_undef)) make_const(f, n, (kn_scalar){KN_SCALAR_BOOL, {.b = made}});
    break;
  }
  case KN_NODE_assert:
    if (!is_const(n->in[0]) || !n->in[0]->def->scalar.as.b) break;
    kn_node_remove(n);
    f->changes++;
    break;
  default:
    if (!kn_opcode_is_op(n->op)) fold_scalar(f, n);
  }
  if (n->op == KN_NODE_const) note_const(f, n);
}

/* ---- regions ---- */

static void fold_region(folder *f, kn_region *r);

/* Puts a region's nodes where `n`, its owner, stands and removes n. Returns the first node to look at next.
 */
static kn_node *inline_region(kn_node *n, kn_region *r) {
  kn_node *first = r->first ? r->first : n->next;
  while (r->first) kn_node_move_before(r->first, n);
  kn_node_remove(n);
  return first;
}

static kn_node *fold_if(folder *f, kn_node *n) {
  if (kn_is_attempt(n) && !kn_region_may_raise(n->regions[0]))
    make_const(f, n->in[0]->def, (kn_scalar){KN_SCALAR_BOOL, {.b = true}});
  if (is_const(n->in[0])) {
    kn_region *taken = n->regions[n->in[0]->def->scalar.as.b ? 0 : 1];
    for (uint32_t i = 0; i < n->nout; i++) replace(f, n->out[i], taken->yields[i]);
    f->changes++;
    return inline_region(n, taken);
  }
  for (int k = 0; k < 2; k++) {
    fold_region(f, n->regions[k]);
    rewrite(f, n->regions[k]->yields, n->regions[k]->nyields);
  }
  for (uint32_t i = 0; i < n->nout; i++) /* such a value is from outside both regions */
    if (n->regions[0]->yields[i] == n->regions[1]->yields[i]) replace(f, n->out[i], n->regions[0]->yields[i]);
  return n->next;
}

static kn_node *fold_loop(folder *f, kn_node *n) {
  kn_region *r = n->regions[0];
  const kn_value *flag = present(f, r->yields[0]);
  bool once = is_const(flag) && !flag->def->scalar.as.b;
  for (uint32_t i = 0; i < n->nin; i++)
    if (once || r->yields[1 + i] == r->params[i]) replace(f, r->params[i], n->in[i]);
  if (once) {
    for (uint32_t i = 0; i < n->nout; i++) replace(f, n->out[i], r->yields[1 + n->nin + i]);
    f->changes++;
    return inline_region(n, r);
  }
  fold_region(f, r);
  rewrite(f, r->yields, r->nyields);
  return n->next;
}

static void fold_region(folder *f, kn_region *r) {
  uint32_t visible = f->nconsts;
  for (kn_node *n = r->first, *next; n; n = next) {
    rewrite(f, n->in, n->nin);
    next = n->next;
    if (n->op == KN_NODE_if)
      next = fold_if(f, n);
    else if (n->op == KN_NODE_loop)
      next = fold_loop(f, n);
    else
      fold_plain(f, n);
  }
  f->nconsts = visible;
}

/* ---- the pass ---- */

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  folder f = {.b = b, .nids = g->nvalues + 1};
  f.instead = kn_calloc(b->ctx->heap, f.nids, sizeof *f.instead);
  f.consts = kn_calloc(b->ctx->heap, f.nids, sizeof *f.consts);
  kn_status st = KN_OK;
  if (!f.instead || !f.consts)
    st = kn_fail_nomem(b->ctx, f.nids * sizeof *f.instead);
  else {
    fold_region(&f, g->body);
    rewrite(&f, g->body->yields, g->body->nyields);
    for (uint32_t i = 0; i < g->nresults; i++) rewrite_tree(&f, &g->results[i]);
    *changes = f.changes;
  }
  kn_free(b->ctx->heap, f.instead, f.nids * sizeof *f.instead);
  kn_free(b->ctx->heap, f.consts, f.nids * sizeof *f.consts);
  return st;
}

const kn_pass kn_pass_fold = {"fold", run};
