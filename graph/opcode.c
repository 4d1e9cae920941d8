/* Opcodes as a table: the rows of core/ops.def, then those of graph/nodes.def. No two have the same text. */
#include "graph/graph.h"
#include <string.h>

#define V KN_VARIADIC
static const kn_opcode_info kinds[] = {
#define NODE(name, text, in, outs, effect, doc) {text, in, outs, KN_##effect, doc},
#include "graph/nodes.def"
#undef NODE
};
#undef V

kn_opcode_info kn_opcode_describe(kn_opcode op) {
  if (op >= KN_OPCODE_COUNT) return (kn_opcode_info){"?", 0, 0, KN_EFFECT, "unknown"};
  if (op >= KN_OP_COUNT) return kinds[op - KN_OP_COUNT];
  const kn_op_info *row = &kn_ops[op];
  kn_effect effect = kn_op_is_effect((kn_op)op)    ? KN_EFFECT
                     : row->flags & KN_FLAG_RAISES ? KN_RAISES
                                                   : KN_PURE;
  uint8_t nin = row->max_in == row->min_in ? row->min_in : KN_VARIADIC;
  return (kn_opcode_info){row->name, nin, row->outs, effect, row->doc};
}

bool kn_opcode_parse(const char *text, size_t len, kn_opcode *out) {
  for (unsigned i = 0; i < KN_OPCODE_COUNT; i++) {
    const char *name = i < KN_OP_COUNT ? kn_ops[i].name : kinds[i - KN_OP_COUNT].text;
    if (strlen(name) == len && !memcmp(name, text, len)) {
      *out = (kn_opcode)i;
      return true;
    }
  }
  return false;
}

/* ---- attributes of a node when it runs ---- */

static kn_status put(kn_context *ctx, const kn_node *n, const kn_field *f, const kn_scalar *dyn, int64_t *v) {
  if (!kn_is_dyn(*v)) return KN_OK;
  uint32_t k = kn_dyn_index(*v);
  if (k >= n->nin - n->ntensor || dyn[k].kind != KN_SCALAR_INT)
    return kn_fail(ctx, KN_INTERNAL, "%s: %s has no integer", kn_opcode_describe(n->op).text, f->name);
  *v = dyn[k].as.i;
  if (f->kind != KN_FIELD_INDEX) return KN_OK;
  if (*v == 0)
    return kn_fail(ctx, KN_INDEX, "%s: %s 0 is out of range, positions count from 1",
                   kn_opcode_describe(n->op).text, f->name);
  *v -= *v > 0;
  return KN_OK;
}

kn_status kn_node_attrs(kn_context *ctx, const kn_node *n, const kn_scalar *dyn, kn_attrs_any *out) {
  if (!n->attrs || !kn_opcode_is_op(n->op)) return KN_OK;
  kn_attrs_info info = kn_attrs_describe(kn_ops[n->op].attrs);
  memcpy(out, n->attrs, info.size);
  if (n->nin == n->ntensor) return KN_OK;
  for (const kn_field *f = info.fields; f->name; f++) {
    void *at = kn_field_at(out, f);
    if (f->kind == KN_FIELD_INT || f->kind == KN_FIELD_INDEX) KN_TRY(put(ctx, n, f, dyn, at));
    if (f->kind == KN_FIELD_INTS || f->kind == KN_FIELD_SIZES)
      for (int i = 0; i < ((kn_ints *)at)->n; i++) KN_TRY(put(ctx, n, f, dyn, &((kn_ints *)at)->v[i]));
  }
  return KN_OK;
}
