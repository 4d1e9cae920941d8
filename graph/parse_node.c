/* The parser of the text form: nodes, their attributes and regions. */
#include "graph/host.h"
#include "graph/parse.h"
#include "graph/format.h"
#include <string.h>

typedef struct result { /* left of `=` */
  kn_written w;
  kn_vtype type;
  bool typed;
} result;

typedef struct line { /* a node being read */
  const char *at;
  kn_opcode op;
  bool no_grad;
  result *outs;
  uint32_t nout;
  kn_value **in;
  uint32_t nin;
  kn_node *node;
} line;

static const char *opcode_text(const line *l) { return kn_opcode_describe(l->op).text; }

/* ---- operands and attributes ---- */

static bool read_operands(kn_parser *p, line *l) {
  if (kn_peek(p) != '%') return true;
  do {
    kn_value *v = kn_parse_use(p);
    if (!v) return false;
    if (!kn_build_push(&p->b, &l->in, &l->nin, &v, sizeof v)) return kn_parse_built(p, l->at);
  } while (kn_accept(p, ','));
  return true;
}

typedef struct dynamic { /* values written in attributes */
  kn_value *v[KN_MAX_DYN];
  uint32_t n;
} dynamic;

/* A value that gives an integer, or any number, when the graph runs. */
static bool read_value(kn_parser *p, bool any, dynamic *d, int64_t *out) {
  const char *at = p->p;
  kn_value *v = kn_parse_use(p);
  if (!v) return false;
  bool fits = v->type.kind == KN_V_INT || (any && kn_is_scalar(v->type.kind) && v->type.kind != KN_V_BOOL);
  if (d->n == KN_MAX_DYN || !fits)
    return kn_parse_fail(p, at, any ? "a number is missing here" : "an integer is missing here");
  d->v[d->n] = v;
  *out = KN_DYN(d->n++);
  return true;
}

/* An integer as its field has it, or a value that gives it when the graph runs. */
static bool read_position(kn_parser *p, const kn_field *f, dynamic *d, int64_t *out) {
  kn_skip(p);
  const char *at = p->p;
  bool axis = f->kind == KN_FIELD_AXIS || f->kind == KN_FIELD_AXES;
  if (kn_peek(p) == '%' && !axis) return read_value(p, false, d, out);
  if (!kn_read_int(p, out)) return false;
  if (kn_is_dyn(*out)) return kn_parse_fail(p, at, "this integer is out of range");
  if (!axis && f->kind != KN_FIELD_INDEX) return true;
  if (*out == 0) return kn_parse_fail(p, at, "%s counts from 1", f->name);
  *out -= *out > 0;
  return true;
}

static bool read_list(kn_parser *p, const kn_field *f, dynamic *d, kn_ints *out) {
  *out = (kn_ints){0};
  if (!kn_accept_over(p, '{')) {
    out->n = 1;
    return read_position(p, f, d, &out->v[0]);
  }
  if (kn_accept_over(p, '}')) return true;
  do {
    if (out->n == KN_MAX_RANK)
      return kn_parse_fail(p, p->p, "%s has at most %d places", f->name, KN_MAX_RANK);
    if (!read_position(p, f, d, &out->v[out->n++])) return false;
  } while (kn_accept_over(p, ','));
  return kn_expect(p, '}');
}

static bool read_dtype(kn_parser *p, kn_dtype *out) {
  const char *at = p->p, *name;
  size_t n;
  if (!kn_read_string(p, false, &name, &n)) return false;
  return kn_dtype_parse(name, out) || kn_parse_fail(p, at, "this is no dtype");
}

static bool read_choice(kn_parser *p, const kn_field *f, int32_t *out) {
  const char *at = p->p, *name;
  char known[128];
  size_t n;
  if (!kn_read_string(p, false, &name, &n)) return false;
  int choice = kn_field_choice(f, name, n);
  if (choice < 0)
    return kn_parse_fail(p, at, "%s must be %s", f->name, kn_field_choices(f, known, sizeof known));
  *out = choice;
  return true;
}

static bool read_text(kn_parser *p, const kn_field *f, kn_text *out) {
  const char *at = p->p, *text;
  size_t n;
  if (!kn_read_string(p, false, &text, &n)) return false;
  return kn_text_set(out, text, n) ||
         kn_parse_fail(p, at, "%s has more than %d bytes", f->name, KN_TEXT_ROOM - 1);
}

static bool read_number(kn_parser *p, double *out) {
  kn_skip(p);
  const char *at = p->p;
  kn_scalar s;
  if (!kn_read_scalar(p, &s)) return false;
  *out = s.kind == KN_SCALAR_INT ? (double)s.as.i : s.as.f;
  return s.kind != KN_SCALAR_BOOL || kn_parse_fail(p, at, "a number is missing here");
}

static bool read_numbers(kn_parser *p, const kn_field *f, kn_numbers *out) {
  *out = (kn_numbers){0};
  if (!kn_expect(p, '{')) return false;
  if (kn_accept_over(p, '}')) return true;
  do {
    if (out->n == KN_MAX_RANK)
      return kn_parse_fail(p, p->p, "%s has at most %d places", f->name, KN_MAX_RANK);
    if (!read_number(p, &out->v[out->n++])) return false;
  } while (kn_accept_over(p, ','));
  return kn_expect(p, '}');
}

static bool read_field(kn_parser *p, const kn_field *f, dynamic *d, void *at) {
  kn_scalar s;
  kn_skip(p);
  const char *start = p->p;
  switch (f->kind) {
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS: return read_position(p, f, d, at);
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: return read_list(p, f, d, at);
  case KN_FIELD_DTYPE: return read_dtype(p, at);
  case KN_FIELD_ENUM: return read_choice(p, f, at);
  case KN_FIELD_TEXT: return read_text(p, f, at);
  case KN_FIELD_NUMBERS: return read_numbers(p, f, at);
  case KN_FIELD_FLOAT: return read_number(p, at);
  case KN_FIELD_NUMBER:
    if (f->free && kn_peek(p) == '%') {
      int64_t place;
      if (!read_value(p, true, d, &place)) return false;
      *(kn_number *)at = kn_number_waiting(place);
      return true;
    }
    if (!kn_read_scalar(p, &s)) return false;
    *(kn_number *)at = s.kind == KN_SCALAR_INT ? kn_number_of(s.as.i) : (kn_number){s.as.f, 0};
    return s.kind != KN_SCALAR_BOOL || kn_parse_fail(p, start, "a number is missing here");
  case KN_FIELD_BOOL:
    if (!kn_read_scalar(p, &s)) return false;
    *(bool *)at = s.kind == KN_SCALAR_BOOL && s.as.b;
    return s.kind == KN_SCALAR_BOOL || kn_parse_fail(p, start, "true or false is missing here");
  }
  return false;
}

static bool read_attrs(kn_parser *p, const line *l, kn_attrs_any *attrs, dynamic *d) {
  kn_attrs_kind kind = kn_ops[l->op].attrs;
  const kn_field *fields = kn_attrs_describe(kind).fields;
  uint64_t seen = 0;
  memset(attrs, 0, sizeof *attrs);
  kn_attrs_default(kind, attrs);
  bool unsaid = p->versions && kn_version_unsaid(p->versions, l->op, attrs);
  if (kn_accept(p, '{') && !kn_accept_over(p, '}')) {
    do {
      kn_skip(p);
      const char *at = p->p;
      kn_span w = kn_read_word(p);
      const kn_field *f = fields;
      while (f->name && !kn_span_is(w, f->name)) f++;
      if (!f->name) return kn_parse_fail(p, at, "%s has no attribute of this name", opcode_text(l));
      uint64_t bit = UINT64_C(1) << (f - fields);
      if (seen & bit) return kn_parse_fail(p, at, "%s is given twice", f->name);
      seen |= bit;
      if (!kn_expect(p, '=') || !read_field(p, f, d, kn_field_at(attrs, f))) return false;
    } while (kn_accept_over(p, ','));
    if (!kn_expect(p, '}')) return false;
  }
  for (const kn_field *f = fields; f->name; f++)
    if (f->required && !(seen >> (f - fields) & 1) && !unsaid)
      return kn_parse_fail(p, l->at, "%s: attribute %s is missing", opcode_text(l), f->name);
  return true;
}

/* ---- the kinds without regions ---- */

/* What a file of an older version meant, by ops of now; false where it means what it says. */
static bool upgraded(kn_parser *p, line *l, const kn_attrs_any *attrs, const dynamic *d) {
  const kn_op_version *row = p->versions ? kn_version_upgrade(p->versions, l->op) : NULL;
  if (!row) return false;
  const kn_old_node old = {l->op, attrs, l->in, l->nin, d ? d->v : NULL, d ? d->n : 0};
  p->b.no_grad = l->no_grad;
  l->node = row->upgrade(&p->b, &old);
  p->b.no_grad = false;
  return true;
}

static bool node_op(kn_parser *p, line *l) {
  kn_attrs_any attrs;
  dynamic d = {.n = 0};
  if (!read_operands(p, l) || !read_attrs(p, l, &attrs, &d)) return false;
  if (upgraded(p, l, &attrs, &d)) return true;
  bool none = kn_ops[l->op].attrs == KN_ATTRS_none;
  l->node = kn_add_op(&p->b, (kn_op)l->op, none ? NULL : &attrs, l->in, l->nin, d.v, d.n);
  if (l->node) l->node->no_grad = l->no_grad;
  return true;
}

static bool node_const(kn_parser *p, line *l) {
  kn_scalar s;
  if (!kn_read_scalar(p, &s)) return false;
  kn_value *v = kn_add_const(&p->b, s);
  l->node = v ? v->def : NULL;
  return true;
}

static bool node_slot(kn_parser *p, line *l) {
  const char *at = p->p, *name;
  size_t n;
  if (!kn_read_string(p, false, &name, &n)) return false;
  kn_slot *s = kn_map_find(&p->slots, (kn_span){name, n});
  if (!s) return kn_parse_fail(p, at, "there is no slot of this name");
  if (l->op == KN_NODE_store_state) {
    kn_value *v = kn_expect(p, ',') ? kn_parse_use(p) : NULL;
    l->node = v ? kn_add_store(&p->b, s, v) : NULL;
  } else {
    kn_value *v = kn_add_slot_node(&p->b, l->op, s);
    l->node = v ? v->def : NULL;
  }
  return true;
}

static bool node_message(kn_parser *p, line *l) {
  const char *text;
  size_t n;
  if (!read_operands(p, l) || !kn_read_string(p, false, &text, &n)) return false;
  bool assert = l->op == KN_NODE_assert;
  if (assert && (!l->nin || l->in[0]->type.kind != KN_V_BOOL))
    return kn_parse_fail(p, l->at, "assert: a boolean is needed");
  const char *why = l->nin > assert || (!assert && l->op != KN_NODE_raise)
                        ? kn_format_check(text, l->in + assert, l->nin - assert)
                        : NULL;
  if (why) return kn_parse_fail(p, l->at, "%s: %s", opcode_text(l), why);
  l->node = kn_add_text(&p->b, l->op, text, l->in, l->nin);
  return true;
}

static bool node_host(kn_parser *p, line *l) {
  const char *text;
  size_t n;
  kn_vtype types[KN_HOST_VALUES];
  if (!read_operands(p, l) || !kn_read_string(p, false, &text, &n)) return false;
  if (l->nout > KN_HOST_VALUES) return kn_parse_fail(p, l->at, "host_call: too many results");
  for (uint32_t i = 0; i < l->nout; i++) {
    if (!l->outs[i].typed) return kn_parse_fail(p, l->at, "host_call: the type of each result is needed");
    types[i] = l->outs[i].type;
  }
  l->node = kn_add_host_call(&p->b, text, l->in, l->nin, types, l->nout);
  return true;
}

static bool node_size(kn_parser *p, line *l) {
  int64_t dim;
  const char *at = p->p;
  if (!read_operands(p, l) || !kn_expect(p, '{')) return false;
  if (!kn_span_is(kn_read_word(p), "dim")) return kn_parse_fail(p, at, "size needs {dim = …}");
  if (!kn_expect(p, '=') || !kn_read_int(p, &dim) || !kn_expect(p, '}')) return false;
  if (l->nin != 1 || dim < 1 || dim > KN_MAX_RANK)
    return kn_parse_fail(p, at, "size takes a tensor and a dimension");
  dim--; /* a node even where the size is known: the text may say so */
  l->node = kn_add_node(&p->b, l->op, &dim, l->in, 1, &(kn_vtype){.kind = KN_V_INT}, 1);
  return true;
}

/* Kinds whose type is what the line says. */
static bool node_declared(kn_parser *p, line *l) {
  if (!read_operands(p, l)) return false;
  bool tensor = l->nout == 1 && l->outs[0].typed && l->outs[0].type.kind == KN_V_TENSOR;
  bool list = l->nout == 1 && l->outs[0].typed && kn_is_list(l->outs[0].type.kind);
  if (l->nout != 1 || !l->outs[0].typed || (l->op == KN_NODE_to_tensor && (!tensor || l->nin != 1)) ||
      (l->op == KN_NODE_list_new && !list))
    return kn_parse_fail(p, l->at, "%s needs one result with its type", opcode_text(l));
  const kn_vtype *t = &l->outs[0].type;
  if (l->op != KN_NODE_to_tensor && l->nin)
    return kn_parse_fail(p, l->at, "%s takes nothing", opcode_text(l));
  kn_vtype element = list ? kn_element_of(*t) : *t;
  kn_value *v = l->op == KN_NODE_undef      ? kn_add_undef(&p->b, t)
                : l->op == KN_NODE_list_new ? kn_add_list(&p->b, &element)
                                            : kn_add_to_tensor(&p->b, l->in[0], (kn_dtype)t->tensor.dtype);
  l->node = v ? v->def : NULL;
  return true;
}

static bool node_values(kn_parser *p, line *l) {
  if (!read_operands(p, l)) return false;
  if (upgraded(p, l, NULL, NULL)) return true;
  kn_value *v = NULL;
  if (l->op == KN_NODE_attempt || l->op == KN_NODE_caught) {
    kn_vtype type = {.kind = l->op == KN_NODE_attempt ? KN_V_BOOL : KN_V_INT};
    if (l->nin) return kn_parse_fail(p, l->at, "%s takes nothing", opcode_text(l));
    l->node = kn_add_node(&p->b, l->op, NULL, NULL, 0, &type, 1);
    return true;
  }
  if (l->nin != kn_opcode_describe(l->op).nin)
    return kn_parse_fail(p, l->at, "%s takes %d values", opcode_text(l), kn_opcode_describe(l->op).nin);
  switch ((int)l->op) {
  case KN_NODE_item: v = kn_add_item(&p->b, l->in[0]); break;
  case KN_NODE_select: v = kn_add_select(&p->b, l->in[0], l->in[1], l->in[2]); break;
  case KN_NODE_same:
    l->node = kn_add_node(&p->b, l->op, NULL, l->in, 2, &(kn_vtype){.kind = KN_V_BOOL}, 1);
    return true;
  case KN_NODE_update: l->node = kn_add_update(&p->b, l->in[0], l->in[1]); return true;
  case KN_NODE_list_append: v = kn_add_append(&p->b, l->in[0], l->in[1]); break;
  case KN_NODE_list_get: v = kn_add_list_get(&p->b, l->in[0], l->in[1]); break;
  case KN_NODE_list_sum: v = kn_add_list_sum(&p->b, l->in[0], l->in[1]); break;
  case KN_NODE_list_with: v = kn_add_list_with(&p->b, l->in); break;
  case KN_NODE_list_length:
  case KN_NODE_list_bytes:
  case KN_NODE_list_first:
  case KN_NODE_list_thin: v = kn_add_of_list(&p->b, l->op, l->in[0], l->nin > 1 ? l->in[1] : NULL); break;
  case KN_NODE_list_stack: v = kn_add_list_stack(&p->b, l->in[0]); break;
  case KN_NODE_defined: v = kn_add_defined(&p->b, l->in[0]); break;
  case KN_NODE_with_history: v = kn_add_with_history(&p->b, l->in[0], l->in[1]); break;
  case KN_NODE_detach: v = kn_add_detach(&p->b, l->in[0]); break;
  default: v = kn_add_scalar(&p->b, l->op, l->in, l->nin);
  }
  l->node = v ? v->def : NULL;
  return true;
}

/* ---- regions ---- */

static bool enter(kn_parser *p, kn_region *r) {
  p->b.at = r;
  if (++p->depth > KN_REGION_DEPTH)
    return kn_parse_fail(p, p->p, "regions are nested more than %d deep", KN_REGION_DEPTH);
  return true;
}

static bool word_is(kn_parser *p, const char *word) {
  kn_skip(p);
  const char *at = p->p;
  if (kn_span_is(kn_read_word(p), word)) return true;
  p->p = at;
  return false;
}

/* Values up to the end of the line, or of the brackets that stand around them. */
static bool read_values(kn_parser *p, char close, kn_value ***list, uint32_t *n) {
  *list = NULL;
  *n = 0;
  if (close && kn_accept_over(p, close)) return true;
  do {
    kn_skip(p);
    kn_value *v = kn_parse_use(p);
    if (!v) return false;
    if (!kn_build_push(&p->b, list, n, &v, sizeof v)) return kn_parse_built(p, p->p);
  } while (kn_accept(p, ','));
  return !close || kn_expect(p, close);
}

/* An output whose type is what the line says, or the join when it says nothing. */
static bool check_declared(kn_parser *p, const result *r, const kn_value *v) {
  if (!v) return kn_parse_built(p, r->w.at);
  if (!r->typed || kn_vtype_equal(&r->type, &v->type)) return true;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  return kn_parse_fail(p, r->w.at, "this result is declared %s but is %s",
                       kn_vtype_text(p->b.graph, &r->type, a, sizeof a),
                       kn_vtype_text(p->b.graph, &v->type, b, sizeof b));
}

static bool node_if(kn_parser *p, line *l) {
  kn_region *outer = p->b.at;
  kn_value *cond = kn_parse_use(p), **yields[2];
  uint32_t n[2] = {0, 0};
  if (!cond) return false;
  if (cond->type.kind != KN_V_BOOL) return kn_parse_fail(p, l->at, "if takes a boolean");
  kn_node *node = l->node = kn_add_if(&p->b, cond);
  if (!node) return kn_parse_built(p, l->at);
  for (int k = 0; k < 2; k++) {
    const kn_where *where;
    if (k && !word_is(p, "else")) return kn_parse_fail(p, p->p, "else is missing here");
    if (!kn_expect(p, '{') || !kn_read_line_end(p, &where)) return false;
    if (!k) node->where = where;
    if (!enter(p, node->regions[k]) || !kn_parse_nodes(p)) return false;
    yields[k] = NULL;
    if (word_is(p, "yield") && !read_values(p, 0, &yields[k], &n[k])) return false;
    if (!kn_expect(p, '}')) return false;
    p->b.at = outer;
    p->depth--;
    if (n[k] != l->nout)
      return kn_parse_fail(p, l->at, "this if has %u results, but a region yields %u values", l->nout, n[k]);
  }
  for (uint32_t i = 0; i < l->nout; i++) {
    const result *r = &l->outs[i];
    kn_value *v = kn_if_output(&p->b, node, r->typed ? &r->type : NULL, NULL, yields[0][i], yields[1][i]);
    if (!check_declared(p, r, v)) return false;
  }
  return true;
}

static bool read_loop_params(kn_parser *p, kn_node *node) {
  if (!kn_expect(p, '(')) return false;
  if (kn_accept_over(p, ')')) return true;
  do {
    result r = {0};
    kn_skip(p);
    if (!kn_read_value(p, &r.w)) return false;
    if (kn_accept_over(p, ':')) {
      r.typed = true;
      if (!kn_parse_type(p, &r.type)) return false;
    }
    if (!kn_expect(p, '=')) return false;
    kn_skip(p);
    kn_value *init = kn_parse_use(p);
    if (!init) return false;
    kn_value *v = kn_loop_param(&p->b, node, r.typed ? &r.type : NULL, NULL, init);
    if (!check_declared(p, &r, v) || !kn_parse_define(p, &r.w, v)) return false;
  } while (kn_accept_over(p, ','));
  return kn_expect(p, ')');
}

static bool node_loop(kn_parser *p, line *l) {
  kn_region *outer = p->b.at;
  kn_node *node = l->node = kn_add_loop(&p->b);
  if (!node) return kn_parse_built(p, l->at);
  if (!read_loop_params(p, node) || !kn_expect(p, '{') || !kn_read_line_end(p, &node->where)) return false;
  if (!enter(p, node->regions[0]) || !kn_parse_nodes(p)) return false;
  const char *at = p->p;
  kn_value *flag, **next, **exits;
  uint32_t nnext, nexits;
  if (!word_is(p, "continue_if"))
    return kn_parse_fail(p, at, "a loop ends with continue_if %%flag next(…) exit(…)");
  if (!(flag = kn_parse_use(p))) return false;
  if (!word_is(p, "next") || !kn_expect(p, '(') || !read_values(p, ')', &next, &nnext) ||
      !word_is(p, "exit") || !kn_expect(p, '(') || !read_values(p, ')', &exits, &nexits) ||
      !kn_expect(p, '}'))
    return kn_parse_fail(p, at, "a loop ends with continue_if %%flag next(…) exit(…)");
  p->b.at = outer;
  p->depth--;
  if (nnext != node->nin || nexits != l->nout)
    return kn_parse_fail(p, at, "this loop has %u values and %u results", node->nin, l->nout);
  kn_loop_finish(&p->b, node, flag, next);
  for (uint32_t i = 0; i < l->nout; i++) {
    const result *r = &l->outs[i];
    kn_value *v = kn_loop_output(&p->b, node, r->typed ? &r->type : NULL, NULL, exits[i]);
    if (!check_declared(p, r, v)) return false;
  }
  return true;
}

/* ---- a line ---- */

static bool read_outs(kn_parser *p, line *l) {
  if (kn_peek(p) != '%') return true;
  do {
    result r = {0};
    kn_skip(p);
    if (l->nout > KN_VALUES_MAX) return kn_parse_fail(p, l->at, "more than %d values", KN_VALUES_MAX);
    if (!kn_read_value(p, &r.w)) return false;
    if (kn_accept(p, ':')) {
      r.typed = true;
      if (!kn_parse_type(p, &r.type)) return false;
    }
    if (!kn_build_push(&p->b, &l->outs, &l->nout, &r, sizeof r)) return kn_parse_built(p, l->at);
  } while (kn_accept(p, ','));
  return kn_expect(p, '=');
}

static bool read_node(kn_parser *p, line *l) {
  switch ((int)l->op) {
  case KN_NODE_const: return node_const(p, l);
  case KN_NODE_undef:
  case KN_NODE_list_new:
  case KN_NODE_to_tensor: return node_declared(p, l);
  case KN_NODE_tensor:
  case KN_NODE_param:
  case KN_NODE_load_state:
  case KN_NODE_store_state: return node_slot(p, l);
  case KN_NODE_assert:
  case KN_NODE_raise:
  case KN_NODE_print:
  case KN_NODE_write:
  case KN_NODE_write_error:
  case KN_NODE_warn: return node_message(p, l);
  case KN_NODE_host_call: return node_host(p, l);
  case KN_NODE_size: return node_size(p, l);
  case KN_NODE_if: return node_if(p, l);
  case KN_NODE_loop: return node_loop(p, l);
  default: return kn_opcode_is_op(l->op) ? node_op(p, l) : node_values(p, l);
  }
}

/* The names and declared types of what the node gives. */
static bool define_outs(kn_parser *p, const line *l) {
  if (l->node->nout != l->nout)
    return kn_parse_fail(p, l->at, "%s gives %u results, the line names %u", opcode_text(l), l->node->nout,
                         l->nout);
  for (uint32_t i = 0; i < l->nout; i++) {
    const result *r = &l->outs[i];
    kn_value *v = l->node->out[i];
    if (r->typed && !kn_vtype_fits(&v->type, &r->type)) return check_declared(p, r, v);
    if (r->typed) v->type = r->type;
    if (!kn_parse_define(p, &r->w, v)) return false;
  }
  return true;
}

static bool read_line(kn_parser *p) {
  line l = {.at = p->p};
  if (!read_outs(p, &l)) return false;
  kn_skip(p);
  const char *at = p->p;
  kn_span w = kn_read_word(p);
  if (kn_span_is(w, "no_grad")) {
    l.no_grad = true;
    kn_skip(p);
    w = kn_read_word(p);
  }
  if (p->versions ? !kn_version_parse(p->versions->dialect, w.s, w.n, &l.op)
                  : !kn_opcode_parse(w.s, w.n, &l.op))
    return kn_parse_fail(p, at, "there is no op or node '%.*s'", (int)(w.n < 100 ? w.n : 100), w.s);
  if (p->versions && !p->versions->of[l.op])
    return kn_parse_fail(p, at, "the file does not say which version of %s it was written with",
                         opcode_text(&l));
  if (l.no_grad && !kn_opcode_is_op(l.op))
    return kn_parse_fail(p, at, "no_grad stands before tensor ops only");
  if (!read_node(p, &l)) return kn_parse_built(p, l.at);
  const kn_where *where;
  if (!kn_parse_built(p, l.at) || !kn_read_line_end(p, &where)) return false;
  if (!l.node) return kn_parse_fail(p, l.at, "this node cannot be made");
  if (!l.node->nregions) l.node->where = where;
  return define_outs(p, &l);
}

bool kn_parse_nodes(kn_parser *p) {
  for (;;) {
    kn_skip(p);
    if (p->p == p->end) return kn_parse_fail(p, p->p, "the text ends before the graph does");
    if (*p->p == '}') return true;
    const char *at = p->p;
    p->b.text_at = (uint32_t)(at - p->text);
    kn_span w = kn_read_word(p);
    p->p = at;
    if (kn_span_is(w, "yield") || kn_span_is(w, "continue_if") || kn_span_is(w, "return")) return true;
    if (!read_line(p)) return false;
  }
}
