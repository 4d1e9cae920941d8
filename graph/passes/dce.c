/* needs: nothing.
 * does:  removes nodes, results of if and loop, carried values of loops (cyclic ones too) and slots that no
 * effect and no result depends on. What may raise because of data is kept, and an index; because of sizes
 * only in attempts, which see it: else that error in a value nobody reads is dropped, and so is a loop
 * without effects whose results nobody reads, even one that would not end. keeps: effects and their order,
 * inputs of the graph, types. */
#include "graph/attempt.h"
#include "graph/mutant.h"
#include "graph/internal.h"
#include "graph/pipeline.h"
#include <string.h>

typedef struct sweep {
  kn_builder *b;
  bool *live;      /* by value id */
  bool *used;      /* by slot */
  kn_value **todo; /* live values whose causes are not marked yet */
  uint32_t ntodo;
  uint32_t changes;
} sweep;

/* ---- marking ---- */

static void mark(sweep *s, kn_value *v) {
  if (s->live[v->id]) return;
  s->live[v->id] = true;
  s->todo[s->ntodo++] = v;
}

/* What makes a node run at all: its operands, or the condition of an if, the flag of a loop; the same for the
 * nodes whose regions it is in. */
static void mark_node(sweep *s, const kn_node *n) {
  for (; n; n = n->region->owner) {
    if (n->op == KN_NODE_loop) {
      mark(s, n->regions[0]->yields[0]);
    } else
      for (uint32_t i = 0; i < n->nin; i++) mark(s, n->in[i]);
    if (n->slot) s->used[n->slot->index] = true;
  }
}

/* What a live value depends on. */
static void mark_causes(sweep *s, const kn_value *v) {
  const kn_node *n = v->def ? v->def : v->region->owner;
  if (!n) return; /* an input of the graph */
  mark_node(s, n);
  const kn_region *r = n->regions[0];
  if (!v->def) { /* a carried value */
    mark(s, n->in[v->index]);
    mark(s, r->yields[1 + v->index]);
  } else if (n->op == KN_NODE_loop)
    mark(s, r->yields[1 + n->nin + v->index]);
  else if (n->op == KN_NODE_if)
    for (int k = 0; k < 2; k++) mark(s, n->regions[k]->yields[v->index]);
}

/* A view for what is put there next, which raises the same. */
static bool is_put_next(const kn_node *n) {
  const kn_node *put = n->next;
  if (n->op != KN_OP_select || !put || put->op != KN_OP_select_put || put->in[0] != n->in[0]) return false;
  if (n->nin - n->ntensor != put->nin - put->ntensor) return false;
  for (uint32_t i = 0; i < n->nin - n->ntensor; i++)
    if (n->in[n->ntensor + i] != put->in[put->ntensor + i]) return false;
  return kn_attrs_equal(kn_ops[n->op].attrs, n->attrs, put->attrs);
}

/* Kept for what it does. An error that is caught is seen, so what may raise it is kept, too. */
static bool is_effect(const kn_node *n, bool caught) {
  return (kn_opcode_describe(n->op).effect == KN_EFFECT && !KN_MUTANT(effects_are_dropped)) ||
         (kn_data_may_raise(n) && !is_put_next(n)) || (caught && !n->nregions && kn_node_may_raise(n));
}

static void mark_effects(sweep *s, const kn_region *r, bool caught) {
  KN_EACH_NODE (n, r) {
    if (is_effect(n, caught)) mark_node(s, n);
    for (int k = 0; k < n->nregions; k++) mark_effects(s, n->regions[k], caught || (!k && kn_is_attempt(n)));
  }
}

/* ---- removing ---- */

static bool has_live_output(const sweep *s, const kn_node *n) {
  for (uint32_t i = 0; i < n->nout; i++)
    if (s->live[n->out[i]->id]) return true;
  return false;
}

/* Takes entry i out of a list. */
static void drop_entry(kn_value **list, uint32_t *n, uint32_t i) {
  memmove(&list[i], &list[i + 1], (*n - i - 1) * sizeof *list);
  --*n;
}

static void narrow_outputs(sweep *s, kn_node *n) {
  for (uint32_t i = n->nout; i-- > 0;) {
    if (s->live[n->out[i]->id]) continue;
    uint32_t before = n->op == KN_NODE_loop ? 1 + n->nin : 0;
    for (int k = 0; k < n->nregions; k++)
      drop_entry(n->regions[k]->yields, &n->regions[k]->nyields, before + i);
    drop_entry(n->out, &n->nout, i);
    s->changes++;
  }
  for (uint32_t i = 0; i < n->nout; i++) n->out[i]->index = i;
}

static void narrow_params(sweep *s, kn_node *n) {
  kn_region *r = n->regions[0];
  for (uint32_t i = n->nin; i-- > 0;) {
    if (s->live[r->params[i]->id]) continue;
    drop_entry(r->yields, &r->nyields, 1 + i);
    drop_entry(r->params, &r->nparams, i);
    drop_entry(n->in, &n->nin, i);
    s->changes++;
  }
  n->ntensor = n->nin;
  for (uint32_t i = 0; i < r->nparams; i++) r->params[i]->index = i;
}

/* True when the region keeps an effect. */
static bool clean(sweep *s, kn_region *r, bool caught) {
  bool effects = false;
  for (kn_node *n = r->first, *next; n; n = next) {
    next = n->next;
    bool keep = is_effect(n, caught);
    for (int k = 0; k < n->nregions; k++) keep |= clean(s, n->regions[k], caught || (!k && kn_is_attempt(n)));
    effects |= keep;
    if (!keep && !has_live_output(s, n)) {
      kn_node_remove(n);
      s->changes++;
      continue;
    }
    if (n->op == KN_NODE_if || n->op == KN_NODE_loop) narrow_outputs(s, n);
    if (n->op == KN_NODE_loop) narrow_params(s, n);
  }
  return effects;
}

static void drop_slots(sweep *s) {
  kn_graph *g = s->b->graph;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_slot *slot = g->slots[i];
    if (s->used[i]) {
      slot->index = kept;
      g->slots[kept++] = slot;
      continue;
    }
    kn_tensor_release(slot->tensor);
    slot->tensor = NULL;
    s->changes++;
  }
  g->nslots = kept;
}

/* ---- the pass ---- */

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  size_t n = (size_t)g->nvalues + 1;
  sweep s = {.b = b};
  s.live = kn_calloc(b->ctx->heap, n, sizeof *s.live);
  s.todo = kn_calloc(b->ctx->heap, n, sizeof *s.todo);
  s.used = kn_calloc(b->ctx->heap, (size_t)g->nslots + 1, sizeof *s.used);
  size_t slots = ((size_t)g->nslots + 1) * sizeof *s.used;
  kn_status st = KN_OK;
  if (!s.live || !s.todo || !s.used)
    st = kn_fail_nomem(b->ctx, n * sizeof *s.todo);
  else {
    mark_effects(&s, g->body, false);
    for (uint32_t i = 0; i < g->body->nyields; i++) mark(&s, g->body->yields[i]);
    while (s.ntodo) mark_causes(&s, s.todo[--s.ntodo]);
    clean(&s, g->body, false);
    drop_slots(&s);
    *changes = s.changes;
  }
  kn_free(b->ctx->heap, s.live, n * sizeof *s.live);
  kn_free(b->ctx->heap, s.todo, n * sizeof *s.todo);
  kn_free(b->ctx->heap, s.used, slots);
  return st;
}

const kn_pass kn_pass_dce = {"dce", run};
