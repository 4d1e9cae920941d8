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

typedef struct filling {
  const kn_scalar *dyn;
  uint32_t n;
  bool bad;
} filling;

static void fill(void *ud, int64_t *v) {
  filling *f = ud;
  if (!kn_is_dyn(*v)) return;
  uint32_t k = kn_dyn_index(*v);
  if (k < f->n && f->dyn[k].kind == KN_SCALAR_INT && !kn_is_dyn(f->dyn[k].as.i))
    *v = f->dyn[k].as.i;
  else
    f->bad = true;
}

/* What waits for any number. */
static void fill_numbers(const filling *f, kn_attrs_kind kind, kn_attrs_any *out) {
  for (const kn_field *field = kn_attrs_describe(kind).fields; field->name; field++) {
    kn_number *x = kn_field_at(out, field);
    if (!field->free || !kn_number_waits(*x) || kn_dyn_index(x->rest) >= f->n) continue;
    const kn_scalar *s = &f->dyn[kn_dyn_index(x->rest)];
    if (s->kind == KN_SCALAR_INT) *x = kn_number_of(s->as.i);
    if (s->kind == KN_SCALAR_FLOAT) *x = (kn_number){s->as.f, 0};
  }
}

kn_status kn_node_attrs(kn_context *ctx, const kn_node *n, const kn_scalar *dyn, kn_attrs_any *out) {
  if (!n->attrs || !kn_opcode_is_op(n->op)) return KN_OK;
  kn_attrs_kind kind = kn_ops[n->op].attrs;
  memcpy(out, n->attrs, kn_attrs_describe(kind).size);
  filling f = {dyn, n->nin - n->ntensor, false};
  if (f.n) fill_numbers(&f, kind, out);
  if (f.n) kn_attrs_each_int(kind, out, fill, &f);
  return f.bad ? kn_fail(ctx, KN_INDEX, "%s: a size is out of range", kn_opcode_describe(n->op).text) : KN_OK;
}
