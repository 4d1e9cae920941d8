/* Constant tensors of a graph, by value: see known.h. */
#include "graph/known.h"
#include "core/dispatch.h"
#include "graph/exec.h"
#include "graph/internal.h"
#include <string.h>

enum { SMALL = 64 << 10 }; /* bytes that may be added without asking what goes */

kn_status kn_known_begin(kn_context *ctx, const kn_graph *g, kn_known *k) {
  *k = (kn_known){ctx, NULL, g->nvalues + 1, ctx->grad_enabled, ctx->recorder, ctx->autocast};
  k->at = kn_calloc(ctx->heap, k->n, sizeof *k->at);
  if (!k->at) return kn_fail_nomem(ctx, k->n * sizeof *k->at);
  ctx->grad_enabled = false;
  ctx->recorder = NULL;
  ctx->autocast = KN_BOOL; /* nodes have their casts */
  return KN_OK;
}

void kn_known_end(kn_known *k) {
  if (!k->at) return;
  for (uint32_t i = 0; i < k->n; i++) kn_tensor_release(k->at[i]);
  kn_free(k->ctx->heap, k->at, k->n * sizeof *k->at);
  k->at = NULL;
  k->ctx->grad_enabled = k->grad;
  k->ctx->recorder = k->recorder;
  k->ctx->autocast = k->autocast;
}

size_t kn_tensor_bytes(const kn_tensor *t) {
  size_t all = (size_t)kn_tensor_numel(t) * kn_dtype_size(kn_tensor_dtype(t));
  return t->storage && t->storage->bytes < all ? t->storage->bytes : all; /* expanded: what there is */
}

static size_t type_bytes(const kn_type *t) {
  return (size_t)kn_type_numel(t) * kn_dtype_size((kn_dtype)t->dtype);
}

kn_status kn_known_move(kn_context *ctx, kn_device_id d, kn_tensor *owned, kn_tensor **out) {
  const kn_attrs_device to = {.device = (int32_t)d};
  if (owned->type.device == d) return *out = owned, KN_OK;
  kn_status st = kn_apply(ctx, KN_OP_to_device, &to, &owned, 1, out);
  kn_tensor_release(owned);
  return st;
}

static kn_status know_number(kn_known *k, const kn_node *n, kn_tensor **out) {
  const kn_type *type = &n->out[0]->type.tensor;
  const kn_node *of = n->in[0]->def;
  kn_type here = *type;
  kn_tensor *t;
  if (!of || of->op != KN_NODE_const) return KN_OK;
  here.device = KN_CPU;
  KN_TRY(kn_scalar_check(k->ctx, &of->scalar, (kn_dtype)type->dtype));
  KN_TRY(kn_tensor_new(k->ctx, &here, &t));
  kn_scalar_write(&of->scalar, t);
  return kn_known_move(k->ctx, (kn_device_id)type->device, t, out);
}

/* May its result be kept in the place of its inputs? */
static bool is_worth(const kn_known *k, const kn_node *n) {
  const kn_type *type = &n->out[0]->type.tensor;
  size_t read = 0;
  if (!kn_type_known(type)) return false;
  for (uint32_t i = 0; i < n->ntensor; i++) read += kn_tensor_bytes(kn_known_at(k, n->in[i]));
  return type_bytes(type) <= SMALL || type_bytes(type) <= read;
}

static kn_status know_op(kn_known *k, const kn_node *n, bool compute, kn_tensor **out) {
  enum { NEVER = KN_FLAG_RANDOM | KN_FLAG_WRITES | KN_FLAG_DYNAMIC };
  const kn_op_info *row = &kn_ops[n->op];
  kn_tensor *in[KN_MAX_INPUTS], *made;
  kn_scalar dyn[KN_MAX_DYN];
  kn_attrs_any attrs;
  bool view = row->op_class == KN_CLASS_VIEW;
  if (row->op_class == KN_CLASS_RANDOM || row->flags & NEVER || row->outs != 1 || (!view && !compute) ||
      n->ntensor > KN_MAX_INPUTS || n->nin - n->ntensor > KN_MAX_DYN)
    return KN_OK;
  if (!n->ntensor && row->op_class != KN_CLASS_CREATE) return KN_OK;
  for (uint32_t i = 0; i < n->ntensor; i++)
    if (!(in[i] = kn_known_at(k, n->in[i]))) return KN_OK;
  for (uint32_t i = n->ntensor; i < n->nin; i++) {
    if (!n->in[i]->def || n->in[i]->def->op != KN_NODE_const) return KN_OK;
    dyn[i - n->ntensor] = n->in[i]->def->scalar;
  }
  if (!view && !is_worth(k, n)) return KN_OK;
  KN_TRY(kn_node_attrs(k->ctx, n, dyn, &attrs));
  KN_TRY(kn_apply(k->ctx, (kn_op)n->op, &attrs, in, (int)n->ntensor, &made));
  *out = made;
  return KN_OK;
}

kn_status kn_known_node(kn_known *k, const kn_node *n, bool compute) {
  kn_tensor *made = NULL;
  kn_status st = KN_OK;
  if (n->nout != 1 || n->out[0]->type.kind != KN_V_TENSOR || n->out[0]->id >= k->n) return KN_OK;
  if (n->op == KN_NODE_tensor)
    made = n->slot->kind == KN_SLOT_CONST && n->slot->tensor ? kn_tensor_retain(n->slot->tensor) : NULL;
  else if (n->op == KN_NODE_to_tensor)
    st = know_number(k, n, &made);
  else if (kn_opcode_is_op(n->op))
    st = know_op(k, n, compute, &made);
  if (st == KN_NOMEM) return st; /* what else fails is left to who runs the graph, and fails there */
  k->at[n->out[0]->id] = made;
  return KN_OK;
}

kn_status kn_known_region(kn_known *k, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    KN_TRY(kn_known_node(k, n, false));
    for (int i = 0; i < n->nregions; i++) KN_TRY(kn_known_region(k, n->regions[i]));
  }
  return KN_OK;
}

bool kn_known_shares(const kn_known *k, const kn_node *n) {
  const kn_tensor *to = kn_known_at(k, n->out[0]), *from = n->ntensor ? kn_known_at(k, n->in[0]) : NULL;
  return to && from && to->storage == from->storage;
}

/* ---- slots ---- */

static bool same_bytes(const kn_tensor *a, const kn_tensor *b) {
  if (!a || !a->storage || a->type.device != KN_CPU || !kn_type_equal(&a->type, &b->type) ||
      !kn_tensor_contiguous(a))
    return false;
  return !memcmp(kn_tensor_data(a), kn_tensor_data(b), type_bytes(&a->type));
}

kn_slot *kn_known_slot(kn_builder *b, const char *name, kn_tensor *owned) {
  const kn_graph *g = b->graph;
  kn_tensor *own = NULL;
  kn_slot *found = NULL;
  kn_status st = owned ? KN_OK : KN_NOMEM;
  bool whole =
      owned && kn_tensor_contiguous(owned) && owned->storage->bytes <= kn_tensor_bytes(owned) + SMALL;
  if (owned && whole)
    own = kn_tensor_retain(owned);
  else if (owned) /* a part of something larger, or repeated: its own elements in order */
    st = kn_apply(b->ctx, KN_OP_clone, NULL, &owned, 1, &own);
  kn_tensor_release(owned);
  if (st != KN_OK) return kn_build_fail(b, st);
  for (uint32_t i = 0; i < g->nslots && !found; i++)
    if (g->slots[i]->kind == KN_SLOT_CONST && same_bytes(g->slots[i]->tensor, own)) found = g->slots[i];
  kn_vtype type = {KN_V_TENSOR, own->type};
  if (!found) found = kn_add_slot(b, KN_SLOT_CONST, name, &type, own);
  kn_tensor_release(own);
  return found;
}
