/* needs: nothing.
 * does:  computes before a loop what is the same in each of its trips. A body runs once at least, so nothing
 * is computed that would not be; what may raise goes only where the first trip reaches it before any effect
 * and anything else that may raise. keeps: effects, what raises first; handles that somebody sees, one from
 * each trip; what is written to; how gradients add up, which hoist_all (for frozen graphs) leaves to
 * rounding; what only some trips compute, in the branches of an if. */
#include "graph/attempt.h"
#include "graph/internal.h"
#include "graph/passes/care.h"
#include "graph/pipeline.h"

typedef struct hoister {
  kn_care care;
  bool *over; /* by value id: an op may lay its result over it, which it could not if it were needed again */
  uint32_t changes;
} hoister;

static void note_over(hoister *h, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_OVER) h->over[n->in[0]->id] = true;
    for (int k = 0; k < n->nregions; k++) note_over(h, n->regions[k]);
  }
}

/* Depends on its inputs alone, and costs something or is read by what does. */
static bool is_plain(const kn_node *n) {
  if (kn_care_pure_op(n)) return true;
  bool number = n->op >= KN_NODE_lua_add && n->op <= KN_NODE_for_count;
  return number || n->op == KN_NODE_const || n->op == KN_NODE_tensor || n->op == KN_NODE_param ||
         n->op == KN_NODE_size || n->op == KN_NODE_item || n->op == KN_NODE_to_tensor ||
         n->op == KN_NODE_select || n->op == KN_NODE_list_length;
}

static bool same_each_trip(const hoister *h, const kn_node *n, const kn_region *body) {
  if (!is_plain(n)) return false;
  for (uint32_t i = 0; i < n->nin; i++)
    if (n->in[i]->region == body || kn_care_written(&h->care, n->in[i])) return false;
  bool one = n->op == KN_NODE_param || n->op == KN_NODE_tensor; /* the same handle at each trip */
  for (uint32_t i = 0; i < n->nout; i++) {
    const kn_value *v = n->out[i];
    if (kn_is_scalar(v->type.kind)) continue;
    if (kn_is_list(v->type.kind) || h->over[v->id] || !kn_care_may_change(&h->care, v)) return false;
    if (!one && (kn_care_seen(&h->care, v) || kn_care_written(&h->care, v))) return false;
  }
  return true;
}

static bool is_guarded(const kn_node *n) {
  return kn_opcode_describe(n->op).effect == KN_EFFECT || kn_node_may_raise(n);
}

static void hoist_region(hoister *h, kn_region *r) {
  KN_EACH_NODE (n, r)
    for (int k = 0; k < n->nregions; k++) hoist_region(h, n->regions[k]);
  if (!r->owner || r->owner->op != KN_NODE_loop) return;
  bool first = true; /* nothing before could raise or be seen */
  for (kn_node *n = r->first, *next; n; n = next) {
    next = n->next;
    bool guarded = is_guarded(n);
    if (same_each_trip(h, n, r) && (first || !guarded)) {
      kn_node_move_before(n, r->owner);
      h->changes++;
      continue; /* it raises where it did: before all that is left */
    }
    first &= !guarded && !n->nregions;
  }
}

static kn_status hoist(kn_builder *b, bool freely, uint32_t *changes) {
  if (!kn_region_has(b->graph->body, KN_NODE_loop)) return KN_OK;
  hoister h = {0};
  uint32_t ids = b->graph->nvalues + 1;
  KN_TRY(kn_care_begin(&h.care, b, freely));
  h.over = kn_calloc(b->ctx->heap, ids, sizeof *h.over);
  if (h.over) {
    note_over(&h, b->graph->body);
    hoist_region(&h, b->graph->body);
    *changes = h.changes;
  }
  kn_status st = h.over ? KN_OK : kn_fail_nomem(b->ctx, ids);
  kn_free(b->ctx->heap, h.over, ids * sizeof *h.over);
  kn_care_end(&h.care);
  return st;
}

static kn_status run(kn_builder *b, uint32_t *changes) { return hoist(b, false, changes); }
static kn_status run_all(kn_builder *b, uint32_t *changes) { return hoist(b, true, changes); }
const kn_pass kn_pass_hoist = {"hoist", run}, kn_pass_hoist_all = {"hoist_all", run_all};
