/* Errors that a graph catches: see attempt.h. */
#include "graph/attempt.h"
#include <string.h>

/* ---- what may raise ---- */

/* Two sizes that broadcast whatever a run brings. */
static bool surely_broadcast(const kn_type *a, const kn_type *b) {
  for (int i = 1; i <= a->rank && i <= b->rank; i++) {
    int64_t x = a->dims[a->rank - i], y = b->dims[b->rank - i];
    if (x == 1 || y == 1) continue;
    if (x != y || x == KN_DIM_UNKNOWN) return false;
  }
  return true;
}

static bool op_may_raise(const kn_node *n) {
  const kn_op_info *row = &kn_ops[n->op];
  if (kn_data_may_raise(n)) return true;
  bool known = n->nin == n->ntensor;
  for (uint32_t i = 0; i < n->ntensor; i++) known &= kn_type_known(&n->in[i]->type.tensor);
  if (known) return false; /* the rules have seen all there is to see */
  switch (row->op_class) {
  case KN_CLASS_ELEMENTWISE:
    for (uint32_t i = 0; i < n->ntensor; i++)
      for (uint32_t k = 0; k < i; k++)
        if (!surely_broadcast(&n->in[i]->type.tensor, &n->in[k]->type.tensor)) return true;
    return n->nin != n->ntensor;
  case KN_CLASS_REDUCE: return n->op == KN_OP_sum_to || n->nin != n->ntensor;
  case KN_CLASS_SOFTMAX: return n->nin != n->ntensor;
  case KN_CLASS_VIEW: return n->op != KN_OP_transpose && n->op != KN_OP_permute && n->op != KN_OP_unsqueeze;
  default: return true;
  }
}

/* A number that is known not to be an integer 0. */
static bool no_zero(const kn_value *v) {
  if (v->type.kind == KN_V_FLOAT) return true;
  const kn_node *by = v->def;
  return by && by->op == KN_NODE_const && (by->scalar.kind != KN_SCALAR_INT || by->scalar.as.i);
}

static bool scalar_may_raise(const kn_node *n) {
  switch ((int)n->op) {
  case KN_NODE_lua_mod:
  case KN_NODE_lua_idiv: return n->in[0]->type.kind != KN_V_FLOAT && !no_zero(n->in[1]);
  case KN_NODE_for_skip: return !no_zero(n->in[2]);
  case KN_NODE_for_count: return false; /* asked after for_skip */
  case KN_NODE_checkpoint_after: return false;
  default: /* bits of what has no integer value */
    for (uint32_t i = 0; i < n->nin; i++)
      if (n->in[i]->type.kind != KN_V_INT) return true;
    return false;
  }
}

/* One position of a dim whose size is not known: it may have none such. */
static bool may_miss(const kn_node *n) {
  if (kn_ops[n->op].attrs != KN_ATTRS_select) return false;
  const kn_type *t = &n->in[n->op == KN_OP_select_grad]->type.tensor;
  int64_t dim = ((const kn_attrs_select *)n->attrs)->dim;
  return !kn_dim_known(t->dims[dim < 0 ? dim + t->rank : dim]);
}

bool kn_data_may_raise(const kn_node *n) {
  if (kn_opcode_is_op(n->op)) {
    const kn_op_info *row = &kn_ops[n->op];
    if (!(row->flags & KN_FLAG_RAISES)) return false;
    if (row->op_class == KN_CLASS_ELEMENTWISE) return !kn_dtype_is_float(n->out[0]->type.tensor.dtype);
    if (row->op_class != KN_CLASS_VIEW && row->attrs != KN_ATTRS_select) return true;
    return n->nin > n->ntensor || may_miss(n);
  }
  if (n->op == KN_NODE_item) /* the truth of what may be many elements: whoever asked must be told */
    return !(kn_type_known(&n->in[0]->type.tensor) && kn_type_numel(&n->in[0]->type.tensor) == 1);
  return (n->op == KN_NODE_for_skip || (n->op >= KN_NODE_lua_add && n->op <= KN_NODE_lua_bnot)) &&
         kn_opcode_describe(n->op).effect == KN_RAISES && scalar_may_raise(n);
}

bool kn_node_may_raise(const kn_node *n) {
  if (kn_opcode_is_op(n->op)) return op_may_raise(n);
  for (int k = 0; k < n->nregions; k++)
    if (kn_region_may_raise(n->regions[k])) return !kn_is_attempt(n) || k == 1;
  switch ((int)n->op) {
  case KN_NODE_raise:
  case KN_NODE_host_call:
  case KN_NODE_assert: return true;
  case KN_NODE_item: {
    int64_t count = kn_type_numel(&n->in[0]->type.tensor);
    return count != 1;
  }
  default: return kn_opcode_describe(n->op).effect == KN_RAISES;
  }
}

bool kn_region_may_raise(const kn_region *r) {
  KN_EACH_NODE (n, r)
    if (kn_node_may_raise(n)) return true;
  return false;
}

/* ---- what was caught ---- */

bool kn_can_be_caught(kn_status st) {
  return st != KN_OK && st != KN_LIMIT && st != KN_CANCELLED && st != KN_FORMAT && st != KN_INTERNAL;
}

kn_status kn_catch(kn_context *ctx, kn_caught *c) {
  const char *text = kn_error(ctx);
  uint32_t at = 0;
  while (at < c->n && strcmp(c->text[at], text)) at++;
  if (at == c->n) {
    size_t size = strlen(text) + 1;
    char *copy = kn_alloc(ctx->heap, size);
    char **list =
        copy ? kn_realloc(ctx->heap, c->text, c->n * sizeof *list, (c->n + 1) * sizeof *list) : NULL;
    if (!list) {
      kn_free(ctx->heap, copy, size);
      return kn_fail_nomem(ctx, size);
    }
    memcpy(copy, text, size);
    c->text = list;
    c->text[c->n++] = copy;
  }
  c->last = at + 1;
  ctx->error[0] = 0;
  ctx->error_status = KN_OK;
  ctx->error_placed = false;
  return KN_OK;
}

void kn_caught_clear(kn_heap *heap, kn_caught *c) {
  for (uint32_t i = 0; i < c->n; i++) kn_free(heap, c->text[i], strlen(c->text[i]) + 1);
  kn_free(heap, c->text, c->n * sizeof *c->text);
  *c = (kn_caught){0};
}
