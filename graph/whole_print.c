/* The program of a piece as text: what golden cases compare. Cells are $n, tensors by the values they belong
 * to. */
#include "graph/whole.h"
#include "graph/writer.h"
#include <inttypes.h>

static void indent(kn_writer *o, int depth) { kn_putf(o, "%*s", 2 * depth, ""); }

static void put_value(const kn_value *v, kn_writer *o) {
  if (v->name)
    kn_putf(o, "%%%s", v->name);
  else
    kn_putf(o, "%%%" PRIu32, v->id);
}

static const kn_value *value_of(const kn_region *r, uint32_t id) {
  for (uint32_t i = 0; i < r->nparams; i++)
    if (r->params[i]->id == id) return r->params[i];
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++)
      if (n->out[i]->id == id) return n->out[i];
    for (int k = 0; k < n->nregions; k++) {
      const kn_value *v = value_of(n->regions[k], id);
      if (v) return v;
    }
  }
  return NULL;
}

static void put_tensor(const kn_plan *p, const kn_whole *w, const kn_tensor *t, kn_writer *o) {
  for (uint32_t v = 1; v <= p->graph->nvalues; v++)
    if (w->vals[v] == t) {
      put_value(value_of(p->graph->body, v), o);
      return;
    }
  for (uint32_t i = 0; i < w->nlists; i++)
    if (t == w->lists[i].all || t == w->lists[i].one) {
      kn_putf(o, t == w->lists[i].all ? "(list %" PRIu32 ")" : "(of list %" PRIu32 ")", i + 1);
      return;
    }
  kn_puts(o, "(stage)");
}

static void put_number(const kn_plan *p, const kn_whole *w, const kn_whole_number *x, kn_writer *o) {
  static const char *const kinds[] = {"",      "",     "when",  "item",    "put",
                                      "check", "fail", "place", "element", "keep"};
  if (x->out) kn_putf(o, "$%" PRIu32 " = ", x->out);
  kn_puts(o, x->kind == KN_NUMBER_EVAL ? kn_opcode_describe(x->op).text : kinds[x->kind]);
  if (x->kind == KN_NUMBER_WHEN) {
    kn_putf(o, " $%" PRIu32 ": $%" PRIu32, x->in[1], x->in[0]);
    return;
  }
  for (uint32_t i = 0; i < x->nin; i++)
    kn_putf(o, "%s$%" PRIu32, x->kind == KN_NUMBER_MOVE ? "" : i ? ", " : " ", x->in[i]);
  if (x->kind == KN_NUMBER_POSITION) kn_putf(o, " of %" PRId64, x->size);
  if (!x->tensor) return;
  kn_puts(o, x->kind == KN_NUMBER_WRITE ? " in " : " ");
  put_tensor(p, w, x->tensor, o);
}

static void put_part(const kn_part_plan *part, kn_writer *o) {
  for (uint32_t i = 0; i < part->n; i++) {
    kn_puts(o, i ? "; " : "");
    if (part->nodes[i]->nout) put_value(part->nodes[i]->out[0], o);
    kn_putf(o, " = %s", kn_op_name((kn_op)part->nodes[i]->op));
  }
  kn_puts(o, "\n");
}

/* The place of dim a, from 1 here. */
static void put_place(const kn_plan *p, const kn_whole *w, const kn_tensor *t, const kn_whole_step *s,
                      kn_writer *o) {
  put_tensor(p, w, t, o);
  kn_putf(o, "[dim %" PRIu32 ": $%" PRIu32 "]", s->a + 1, s->cell);
}

static void put_block(const kn_plan *p, const kn_whole *w, uint32_t block, int depth, kn_writer *o) {
  for (uint32_t i = 0; i < w->blocks[block].n; i++) {
    const kn_whole_step *s = &w->blocks[block].steps[i];
    if (s->kind == KN_WHOLE_NUMBERS) {
      for (uint32_t k = s->a; k < s->a + s->b; k++) {
        indent(o, depth);
        kn_puts(o, k == s->a ? "numbers: " : "         ");
        put_number(p, w, &w->numbers[k], o);
        kn_puts(o, "\n");
      }
      continue;
    }
    indent(o, depth);
    switch (s->kind) {
    case KN_WHOLE_PART: put_part(&p->parts[s->a], o); break;
    case KN_WHOLE_COPY:
      put_tensor(p, w, s->to, o);
      kn_puts(o, " = copy ");
      put_tensor(p, w, s->from, o);
      kn_puts(o, "\n");
      break;
    case KN_WHOLE_ZERO:
      put_tensor(p, w, s->to, o);
      kn_puts(o, " = zeros\n");
      break;
    case KN_WHOLE_PICK:
      put_tensor(p, w, s->to, o);
      kn_puts(o, " = ");
      put_place(p, w, s->from, s, o);
      kn_puts(o, "\n");
      break;
    case KN_WHOLE_PUT:
      put_place(p, w, s->to, s, o);
      kn_puts(o, " = ");
      put_tensor(p, w, s->from, o);
      kn_puts(o, "\n");
      break;
    case KN_WHOLE_IF:
      kn_putf(o, "if $%" PRIu32 "\n", s->cell);
      put_block(p, w, s->a, depth + 1, o);
      if (!w->blocks[s->b].n) break;
      indent(o, depth);
      kn_puts(o, "else\n");
      put_block(p, w, s->b, depth + 1, o);
      break;
    default:
      kn_puts(o, "loop\n");
      put_block(p, w, s->a, depth + 1, o);
      indent(o, depth);
      kn_putf(o, "again if $%" PRIu32 "\n", s->cell);
    }
  }
}

void kn_whole_print(const kn_plan *p, const kn_whole *w, kn_writer *o) {
  for (uint32_t i = 0; i < w->ninputs; i++) {
    kn_puts(o, w->inputs[i].home ? "copied in: " : "read where it lies: ");
    put_value(value_of(p->graph->body, w->inputs[i].value), o);
    kn_puts(o, "\n");
  }
  for (uint32_t i = 0; i < w->nuploads; i++) {
    kn_putf(o, "number in: $%" PRIu32 " = ", w->uploads[i].cell);
    put_value(value_of(p->graph->body, w->uploads[i].value), o);
    kn_puts(o, "\n");
  }
  for (uint32_t i = 0; i < w->nconstants; i++)
    kn_putf(o, "constant: $%" PRIu32 " = %" PRId64 "\n", w->constants[i].cell, w->constants[i].value);
  put_block(p, w, 0, 0, o);
  for (uint32_t i = 0; i < w->nexports; i++) {
    kn_putf(o, "number out: $%" PRIu32 " = ", (uint32_t)KN_CELL_EXPORTS + i);
    put_value(value_of(p->graph->body, w->exports[i]), o);
    kn_puts(o, "\n");
  }
}
