/* needs: a graph that is being built, with the values of its slots.
 * does:  parameters, and state that nothing writes, become constants; guards that told of them go.
 * keeps: state that is written, slots the caller names, what is assumed of arguments. No pass of the table,
 * as only its caller knows what to keep. */
#include "graph/passes/freeze.h"
#include "graph/internal.h"
#include <string.h>

typedef struct freezer {
  kn_builder *b;
  bool *keep;
  bool writes; /* some op overwrites its input: it may be state */
} freezer;

static void note_writes(freezer *f, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_store_state) f->keep[n->slot->index] = true;
    f->writes |= kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_WRITES;
    for (int i = 0; i < n->nregions; i++) note_writes(f, n->regions[i]);
  }
}

static void read_constants(freezer *f, const kn_region *r, kn_slot *const *as) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) read_constants(f, n->regions[i], as);
    if (!n->slot || f->keep[n->slot->index] || n->op == KN_NODE_tensor) continue;
    const kn_slot *s = n->slot;
    bool tensor = s->type.kind == KN_V_TENSOR;
    n->op = tensor ? KN_NODE_tensor : KN_NODE_const;
    n->scalar = s->scalar;
    n->slot = tensor ? as[s->index] : NULL;
  }
}

static bool same_tensor(const kn_tensor *a, const kn_tensor *b) {
  return a == b || (a->storage == b->storage && a->offset == b->offset && kn_type_equal(&a->type, &b->type) &&
                    !memcmp(a->strides, b->strides, a->type.rank * sizeof *a->strides));
}

kn_status kn_freeze_slots(kn_builder *b, bool *keep, uint32_t *frozen) {
  kn_graph *g = b->graph;
  freezer f = {b, keep, false};
  kn_slot **as = kn_build_alloc(b, (g->nslots + 1u) * sizeof *as);
  *frozen = 0;
  if (!as) return b->status;
  note_writes(&f, g->body);
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_slot *s = g->slots[i];
    keep[i] |= f.writes && s->kind == KN_SLOT_STATE;
    as[i] = s;
    if (keep[i] || s->kind == KN_SLOT_CONST) continue;
    ++*frozen;
    if (s->type.kind != KN_V_TENSOR) continue;
    if (!s->tensor)
      return b->status =
                 kn_fail(b->ctx, KN_STATE, "slot %s has no data, so it cannot become a constant", s->name);
    s->kind = KN_SLOT_CONST;
    for (uint32_t k = 0; k < i && as[i] == s; k++)
      if (g->slots[k]->kind == KN_SLOT_CONST && g->slots[k]->tensor &&
          same_tensor(g->slots[k]->tensor, s->tensor))
        as[i] = as[k];
  }
  read_constants(&f, g->body, as);
  return b->status;
}

/* The kinds that capture and traces give to what is assumed of arguments. */
static bool is_of_argument(const kn_guard *guard) {
  static const char *const kinds[] = {"argument", "dtype", "layout", "size"};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(guard->kind, kinds[i])) return true;
  return false;
}

static bool is_of_slot(const kn_graph *g, const kn_guard *guard) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g->slots[i]->kind != KN_SLOT_CONST && !strcmp(g->slots[i]->name, guard->name)) return true;
  return false;
}

void kn_freeze_guards(kn_graph *g, uint32_t *dropped) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < g->nguards; i++) {
    kn_guard guard = g->guards[i];
    if (!is_of_argument(&guard) && !is_of_slot(g, &guard)) continue;
    memmove(&g->guards[kept + 1], &g->guards[kept], (i - kept) * sizeof guard);
    g->guards[kept++] = guard;
  }
  *dropped = g->nguards - kept;
  g->nguards = kept;
}
