/* needs: nothing.
 * does:  computes now what follows from constant tensors alone, where the result is small or takes no more
 * memory than what it is made of, and reads numbers that constants hold. keeps: views of constants; effects;
 * what fails, to fail when it runs. Elements may be rounded as another backend would. */
#include "core/dispatch.h"
#include "graph/internal.h"
#include "graph/known.h"
#include "graph/pipeline.h"

/* The node becomes a read of a constant slot, in place. */
static kn_status make_tensor(kn_builder *b, kn_known *k, kn_node *n, uint32_t *changes) {
  kn_value *v = n->out[0];
  const char *name = v->name ? v->name : kn_op_name((kn_op)n->op);
  kn_slot *slot = kn_known_slot(b, name, kn_tensor_retain(kn_known_at(k, v)));
  if (!slot) return b->status;
  if (!slot->where) slot->where = n->where;
  n->op = KN_NODE_tensor;
  n->nin = n->ntensor = 0;
  n->attrs = NULL;
  n->no_grad = false;
  n->slot = slot;
  v->type = slot->type;
  kn_tensor_release(k->at[v->id]); /* from here on it is the slot's */
  k->at[v->id] = kn_tensor_retain(slot->tensor);
  ++*changes;
  return KN_OK;
}

static kn_status make_number(kn_known *k, kn_node *n, uint32_t *changes) {
  static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_BOOL};
  kn_tensor *t = kn_known_at(k, n->in[0]);
  kn_scalar s;
  if (!t || kn_tensor_numel(t) != 1 || kn_item(k->ctx, t, &s) != KN_OK || s.kind == KN_SCALAR_SYMBOL)
    return KN_OK;
  n->op = KN_NODE_const;
  n->nin = n->ntensor = 0;
  n->scalar = s;
  n->out[0]->type.kind = kinds[s.kind];
  ++*changes;
  return KN_OK;
}

/* Numbers as tensors and plain fills stay what they are; what is computed of them may go. */
static bool is_computed(const kn_known *k, const kn_node *n) {
  if (!kn_opcode_is_op(n->op) || n->nout != 1 || !kn_known_at(k, n->out[0])) return false;
  return kn_ops[n->op].op_class != KN_CLASS_CREATE && !kn_known_shares(k, n);
}

static kn_status fold_region(kn_builder *b, kn_known *k, const kn_region *r, uint32_t *changes) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) KN_TRY(fold_region(b, k, n->regions[i], changes));
    KN_TRY(kn_known_node(k, n, true));
    if (n->op == KN_NODE_item)
      KN_TRY(make_number(k, n, changes));
    else if (is_computed(k, n))
      KN_TRY(make_tensor(b, k, n, changes));
  }
  return KN_OK;
}

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_known k;
  KN_TRY(kn_known_begin(b->ctx, b->graph, &k));
  kn_status st = fold_region(b, &k, b->graph->body, changes);
  kn_known_end(&k);
  return st;
}

const kn_pass kn_pass_constants = {"constants", run};
