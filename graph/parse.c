/* The parser of the text form: graph head, guards, slots, types, tables of arguments and results. Input is
 * untrusted: depth, counts and sizes are bounded, and what comes out has passed the verifier. */
#include "core/device.h"
#include "graph/parse.h"
#include "graph/format.h"
#include "graph/text.h"
#include <string.h>

/* ---- types ---- */

static bool parse_dim(kn_parser *p, int64_t *out) {
  kn_skip(p);
  const char *at = p->p;
  if (kn_accept(p, '?')) {
    *out = KN_DIM_UNKNOWN;
    return true;
  }
  if (kn_is_digit(kn_peek(p))) return kn_read_int(p, out);
  const char *name;
  if (!kn_read_name(p, &name)) return false;
  *out = kn_symbol_intern(&p->b, name);
  if (p->b.graph->nsymbols > KN_SYMBOLS_MAX)
    return kn_parse_fail(p, at, "more than %d named sizes", KN_SYMBOLS_MAX);
  return kn_parse_built(p, at);
}

static bool parse_device(kn_parser *p, uint8_t *out) {
  const char *at = p->p;
  kn_span w = kn_read_word(p);
  char name[16] = "";
  kn_device_id d;
  if (w.n < sizeof name) memcpy(name, w.s, w.n);
  if (!kn_device_parse(name, &d)) return kn_parse_fail(p, at, "this is no device");
  *out = (uint8_t)d;
  return true;
}

static bool parse_list_type(kn_parser *p, const char *at, kn_vtype *out) {
  kn_vtype element;
  if (++p->list_depth > KN_V_DEEPEST / KN_V_LIST - 2)
    return kn_parse_fail(p, at, "lists are nested too deeply");
  if (!kn_expect(p, '[') || !kn_parse_type(p, &element) || !kn_expect(p, ']')) return false;
  p->list_depth--;
  *out = kn_list_of(element);
  return true;
}

bool kn_parse_type(kn_parser *p, kn_vtype *out) {
  if (p->status != KN_OK) return false;
  static const struct {
    const char *text;
    kn_vkind kind;
  } scalars[] = {
      {"integer", KN_V_INT}, {"float", KN_V_FLOAT}, {"number", KN_V_NUMBER}, {"boolean", KN_V_BOOL}};
  kn_skip(p);
  const char *at = p->p;
  kn_span w = kn_read_word(p);
  for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
    if (kn_span_is(w, scalars[i].text)) {
      *out = (kn_vtype){.kind = scalars[i].kind};
      return true;
    }
  if (kn_span_is(w, "list")) return parse_list_type(p, at, out);
  char name[16] = "";
  kn_dtype dtype;
  if (w.n < sizeof name) memcpy(name, w.s, w.n);
  if (!kn_dtype_parse(name, &dtype))
    return kn_parse_fail(
        p, at, "a type is missing here: integer, float, number, boolean, list, or a dtype with sizes");
  kn_vtype t = {.kind = KN_V_TENSOR, .tensor = {.dtype = (uint8_t)dtype}};
  if (!kn_expect(p, '[')) return false;
  if (!kn_accept_over(p, ']')) {
    do {
      if (t.tensor.rank == KN_MAX_RANK)
        return kn_parse_fail(p, p->p, "a tensor has at most %d dimensions", KN_MAX_RANK);
      if (!parse_dim(p, &t.tensor.dims[t.tensor.rank++])) return false;
    } while (kn_accept_over(p, ','));
    if (!kn_expect(p, ']')) return false;
  }
  if (p->p < p->end && *p->p == '@') {
    p->p++;
    if (!parse_device(p, &t.tensor.device)) return false;
  }
  *out = t;
  return true;
}

/* ---- values ---- */

bool kn_parse_define(kn_parser *p, const kn_written *w, kn_value *v) {
  if (!v) return kn_parse_built(p, w->at);
  if (kn_map_find(&p->values, w->key))
    return kn_parse_fail(p, w->at, "%%%.*s is defined twice", (int)(w->key.n < 100 ? w->key.n : 100),
                         w->key.s);
  if (p->nvalues++ == KN_VALUES_MAX) return kn_parse_fail(p, w->at, "more than %d values", KN_VALUES_MAX);
  kn_value_name(&p->b, v, w->name);
  if (!kn_map_add(p->ctx->heap, &p->values, w->key, v)) return kn_parse_nomem(p);
  return kn_parse_built(p, w->at);
}

kn_value *kn_parse_use(kn_parser *p) {
  kn_written w;
  if (!kn_read_value(p, &w)) return NULL;
  kn_value *v = kn_map_find(&p->values, w.key);
  if (!v)
    kn_parse_fail(p, w.at, "%%%.*s is not defined before this line", (int)(w.key.n < 100 ? w.key.n : 100),
                  w.key.s);
  return v;
}

/* ---- guards, slots ---- */

static bool parse_guard(kn_parser *p) {
  const char *kind, *name, *value, *at = p->p;
  size_t n;
  const kn_where *where;
  if (!kn_read_name(p, &kind) || !kn_read_string(p, false, &name, &n) || !kn_expect(p, '=') ||
      !kn_read_string(p, false, &value, &n) || !kn_read_line_end(p, &where))
    return false;
  kn_add_guard(&p->b, kind, name, value, where);
  return kn_parse_built(p, at);
}

static bool parse_strides(kn_parser *p, kn_need *need) {
  int rank = need->input ? need->input->type.tensor.rank : 0;
  if (!kn_expect(p, '{')) return false;
  for (int d = 0; d < rank; d++)
    if ((d && !kn_expect(p, ',')) || !kn_read_int(p, &need->strides[d])) return false;
  return kn_expect(p, '}');
}

/* need %x contiguous; need gradients */
static bool parse_need(kn_parser *p) {
  const kn_where *where;
  kn_need need = {0};
  if (kn_peek(p) == '%' && !(need.input = kn_parse_use(p))) return false;
  kn_peek(p);
  const char *at = p->p;
  kn_span w = kn_read_word(p);
  while (need.kind < KN_NEED_COUNT && !kn_span_is(w, kn_need_kinds[need.kind].text)) need.kind++;
  if (need.kind == KN_NEED_COUNT) return kn_parse_fail(p, at, "there is no need of this name");
  const char *why = kn_need_wrong(p->b.graph, &need);
  if (why) return kn_parse_fail(p, at, "this cannot be needed: %s", why);
  if (need.kind == KN_NEED_strides && !parse_strides(p, &need)) return false;
  if (!kn_read_line_end(p, &where)) return false;
  kn_add_need(&p->b, need);
  return kn_parse_built(p, at);
}

static bool put_element(kn_parser *p, kn_dtype d, char *at) {
  const char *start = p->p;
  kn_scalar s;
  kn_skip(p);
  if (!kn_read_scalar(p, &s)) return false;
  bool whole = s.kind == KN_SCALAR_INT, real = s.kind == KN_SCALAR_FLOAT;
  switch (kn_dtypes[d].category) {
  case KN_CAT_BOOL:
    if (s.kind != KN_SCALAR_BOOL) return kn_parse_fail(p, start, "true or false is missing here");
    kn_element_put_int(d, at, s.as.b);
    break;
  case KN_CAT_INT:
    if (!whole) return kn_parse_fail(p, start, "an integer is missing here");
    if (s.as.i < kn_dtypes[d].lowest || s.as.i > kn_dtypes[d].highest)
      return kn_parse_fail(p, start, "this does not fit in %s", kn_dtype_name(d));
    kn_element_put_int(d, at, s.as.i);
    break;
  case KN_CAT_FLOAT:
    if (!whole && !real) return kn_parse_fail(p, start, "a number is missing here");
    kn_element_put_float(d, at, whole ? (double)s.as.i : s.as.f);
    break;
  }
  return true;
}

static bool parse_elements(kn_parser *p, kn_slot *s) {
  const kn_type *t = &s->type.tensor;
  int64_t n = kn_type_numel(t);
  if (t->device != KN_CPU) return kn_parse_fail(p, p->p, "only constants on the CPU are written out");
  if (s->kind != KN_SLOT_CONST || n > KN_INLINE_ELEMENTS || n < 0)
    return kn_parse_fail(p, p->p, "only constants of up to %d elements are written out", KN_INLINE_ELEMENTS);
  kn_status st = kn_tensor_new(p->ctx, t, &s->tensor); /* owned by the graph from here on */
  if (st != KN_OK) {
    p->status = st;
    return false;
  }
  if (t->rank && !kn_expect(p, '{')) return false;
  for (int64_t i = 0; i < n; i++) {
    if (i && !kn_expect(p, ',')) return false;
    char *at = (char *)kn_tensor_data(s->tensor) + (size_t)i * kn_dtype_size((kn_dtype)t->dtype);
    if (!put_element(p, (kn_dtype)t->dtype, at)) return false;
  }
  return !t->rank || kn_expect(p, '}');
}

static bool parse_slot_value(kn_parser *p, kn_slot *s) {
  if (s->type.kind == KN_V_TENSOR) return parse_elements(p, s);
  static const kn_vkind kinds[] = {KN_V_INT, KN_V_FLOAT, KN_V_BOOL};
  const char *at = p->p;
  kn_scalar v;
  if (!kn_read_scalar(p, &v)) return false;
  if (!kn_vtype_fits(&(kn_vtype){.kind = kinds[v.kind]}, &s->type))
    return kn_parse_fail(p, at, "this is not a value of the slot's type");
  s->scalar = v;
  return true;
}

static bool parse_slot(kn_parser *p) {
  const char *at = p->p, *name;
  size_t n;
  kn_vtype type;
  kn_span w = kn_read_word(p);
  int kind = 0;
  while (kind < 3 && !kn_span_is(w, kn_slot_words[kind])) kind++;
  if (kind == 3) return kn_parse_fail(p, at, "a slot is param, state or const");
  kn_peek(p);
  const char *from = p->p;
  if (!kn_read_string(p, false, &name, &n) || !kn_expect(p, ':') || !kn_parse_type(p, &type)) return false;
  if (kn_is_list(type.kind)) return kn_parse_fail(p, from, "a slot is no list");
  if (type.kind == KN_V_TENSOR && !kn_type_known(&type.tensor))
    return kn_parse_fail(p, from, "the sizes of a slot are numbers");
  name = kn_build_text(&p->b, name);
  if (!name) return kn_parse_built(p, at);
  kn_span key = {name, strlen(name)};
  if (kn_map_find(&p->slots, key)) return kn_parse_fail(p, from, "there is a slot of this name already");
  kn_slot *s = kn_build_slot(&p->b, (kn_slot_kind)kind, name, &type);
  if (!s) return kn_parse_built(p, at);
  if (!kn_map_add(p->ctx->heap, &p->slots, key, s)) return kn_parse_nomem(p);
  if (kn_accept(p, '=') && !parse_slot_value(p, s)) return false;
  return kn_read_line_end(p, &s->where);
}

/* ---- tables of arguments and results ---- */

static bool parse_tree(kn_parser *p, kn_tree *out, bool args, int depth);

static bool parse_leaf(kn_parser *p, kn_tree *out, bool args) {
  kn_written w;
  if (!kn_read_value(p, &w)) return false;
  kn_value *v = kn_map_find(&p->values, w.key);
  if (args && kn_accept_over(p, ':')) {
    kn_vtype type;
    if (!kn_parse_type(p, &type)) return false;
    v = kn_add_input(&p->b, w.name, &type);
    if (!kn_parse_define(p, &w, v)) return false;
  }
  if (!v)
    return kn_parse_fail(
        p, w.at, args ? "an argument needs its type when it is first named" : "this value is not defined");
  *out = (kn_tree){.kind = KN_TREE_VALUE, .value = v};
  return true;
}

static bool parse_string(kn_parser *p, kn_tree *out) {
  const char *at = p->p;
  size_t n;
  if (!kn_read_string(p, true, &out->text, &n)) return false;
  if (n > UINT32_MAX) return kn_parse_fail(p, at, "this string is too long");
  out->kind = KN_TREE_STRING;
  out->n = (uint32_t)n;
  return true;
}

static bool parse_constant(kn_parser *p, kn_tree *out) {
  const char *at = p->p;
  kn_span w = kn_read_word(p);
  if (kn_span_is(w, "nil") || kn_span_is(w, "none")) {
    *out = (kn_tree){.kind = kn_span_is(w, "nil") ? KN_TREE_NIL : KN_TREE_NONE};
    return true;
  }
  p->p = at;
  kn_scalar s;
  if (!kn_read_scalar(p, &s)) return false;
  if (s.kind == KN_SCALAR_BOOL)
    *out = (kn_tree){.kind = KN_TREE_BOOL, .i = s.as.b};
  else if (s.kind == KN_SCALAR_INT)
    *out = (kn_tree){.kind = KN_TREE_INT, .i = s.as.i};
  else
    *out = (kn_tree){.kind = KN_TREE_FLOAT, .f = s.as.f};
  return true;
}

/* `name =`, `[3] =` or `["odd name"] =`; else the next position, and nothing is consumed. */
static bool parse_key(kn_parser *p, kn_tree *key, int64_t *next) {
  const char *at = p->p;
  if (kn_accept(p, '[')) {
    kn_skip(p);
    if (kn_peek(p) == '"' ? !parse_string(p, key) : !parse_constant(p, key)) return false;
    if (key->kind != KN_TREE_INT && key->kind != KN_TREE_STRING)
      return kn_parse_fail(p, at, "a key is an integer or a string");
    return kn_expect(p, ']') && kn_expect(p, '=');
  }
  kn_span w = kn_read_word(p);
  if (kn_plain_word(w.s, w.n) && kn_accept_over(p, '=')) {
    char *s = kn_build_alloc(&p->b, w.n + 1);
    if (!s) return kn_parse_built(p, at);
    memcpy(s, w.s, w.n);
    *key = (kn_tree){.kind = KN_TREE_STRING, .text = s, .n = (uint32_t)w.n};
    return true;
  }
  p->p = at;
  *key = (kn_tree){.kind = KN_TREE_INT, .i = (*next)++};
  return true;
}

static bool parse_table(kn_parser *p, kn_tree *out, bool args, int depth) {
  *out = (kn_tree){.kind = KN_TREE_TABLE};
  if (kn_accept(p, '&')) {
    int64_t mark;
    const char *at = p->p;
    if (!kn_read_int(p, &mark)) return false;
    if (mark < 1 || mark > UINT32_MAX) return kn_parse_fail(p, at, "this is no number of a table");
    out->same_as = (uint32_t)mark;
    if (!args && kn_peek(p) != '{') {
      out->kind = KN_TREE_AGAIN;
      return true;
    }
  }
  if (!kn_expect(p, '{')) return false;
  int64_t next = 1;
  uint32_t nkeys = 0;
  if (kn_accept_over(p, '}')) return true;
  do {
    kn_tree key = {0}, item = {0};
    kn_skip(p);
    if (!parse_key(p, &key, &next) || !parse_tree(p, &item, args, depth + 1)) return false;
    if (!kn_build_push(&p->b, &out->keys, &nkeys, &key, sizeof key) ||
        !kn_build_push(&p->b, &out->items, &out->n, &item, sizeof item))
      return kn_parse_built(p, p->p);
  } while (kn_accept_over(p, ','));
  return kn_expect(p, '}');
}

static bool parse_items(kn_parser *p, kn_tree *out, int depth) {
  uint32_t nkeys = 0;
  do {
    kn_tree key = {.kind = KN_TREE_INT, .i = out->n + (out->kind == KN_TREE_TEXT)}, item = {0};
    if (!key.i) key = (kn_tree){.kind = KN_TREE_STRING, .text = "which", .n = 5};
    kn_skip(p);
    if (!parse_tree(p, &item, false, depth + 1)) return false;
    if (!kn_build_push(&p->b, &out->keys, &nkeys, &key, sizeof key) ||
        !kn_build_push(&p->b, &out->items, &out->n, &item, sizeof item))
      return kn_parse_built(p, p->p);
  } while (kn_accept_over(p, ','));
  return kn_expect(p, '}');
}

/* one_of{%which, …}, text{"format", %value, …}: consumes nothing when it is neither. */
static bool parse_choice(kn_parser *p, kn_tree *out, int depth, bool *is) {
  const char *at = p->p, *why;
  kn_span w = kn_read_word(p);
  *is = kn_span_is(w, "one_of") || kn_span_is(w, "text");
  if (!*is) {
    p->p = at;
    return true;
  }
  *out = (kn_tree){.kind = kn_span_is(w, "text") ? KN_TREE_TEXT : KN_TREE_CHOICE};
  if (!kn_expect(p, '{')) return false;
  if (out->kind == KN_TREE_CHOICE) {
    if (!parse_items(p, out, depth)) return false;
    return (out->n >= 3 && out->items[0].kind == KN_TREE_VALUE &&
            out->items[0].value->type.kind == KN_V_INT) ||
           kn_parse_fail(p, at, "one_of takes an integer that says which, and two or more others");
  }
  size_t n;
  kn_skip(p);
  if (!kn_read_string(p, false, &out->text, &n) || !kn_expect(p, ',') || !parse_items(p, out, depth))
    return false;
  return !(why = kn_format_check_tree(out)) || kn_parse_fail(p, at, "text: %s", why);
}

static bool parse_tree(kn_parser *p, kn_tree *out, bool args, int depth) {
  bool choice = false;
  if (p->status != KN_OK) return false;
  kn_skip(p);
  if (depth > KN_TREE_DEPTH)
    return kn_parse_fail(p, p->p, "tables are nested more than %d deep", KN_TREE_DEPTH);
  if (p->ntrees++ == KN_TREES_MAX)
    return kn_parse_fail(p, p->p, "more than %d parts in arguments and results", KN_TREES_MAX);
  if (!args && !parse_choice(p, out, depth, &choice)) return false;
  if (choice) return true;
  switch (kn_peek(p)) {
  case '%': return parse_leaf(p, out, args);
  case '&':
  case '{': return parse_table(p, out, args, depth);
  case '"': return parse_string(p, out);
  default: return parse_constant(p, out);
  }
}

static bool parse_args(kn_parser *p) {
  const char *at = p->p;
  kn_tree *trees = NULL;
  uint32_t n = 0;
  if (!kn_expect(p, '(')) return false;
  if (!kn_accept_over(p, ')')) {
    do {
      kn_tree t = {0};
      if (!parse_tree(p, &t, true, 0)) return false;
      if (!kn_build_push(&p->b, &trees, &n, &t, sizeof t)) return kn_parse_built(p, at);
    } while (kn_accept_over(p, ','));
    if (!kn_expect(p, ')')) return false;
  }
  kn_set_args(&p->b, trees, n);
  return kn_parse_built(p, at);
}

static bool parse_return(kn_parser *p) {
  const char *at = p->p;
  if (!kn_span_is(kn_read_word(p), "return"))
    return kn_parse_fail(p, at, "the graph should end with return and }");
  kn_tree *trees = NULL;
  uint32_t n = 0;
  if (kn_peek(p) && kn_peek(p) != '}') do {
      kn_tree t = {0};
      if (!parse_tree(p, &t, false, 0)) return false;
      if (!kn_build_push(&p->b, &trees, &n, &t, sizeof t)) return kn_parse_built(p, at);
    } while (kn_accept(p, ','));
  kn_set_results(&p->b, NULL, 0, trees, n);
  return kn_parse_built(p, at);
}

/* ---- the whole ---- */

static bool parse_body(kn_parser *p) {
  if (!parse_args(p) || !kn_expect(p, '{')) return false;
  for (;;) { /* guards and slots come first */
    kn_skip(p);
    const char *at = p->p;
    kn_span w = kn_read_word(p);
    bool fine = true;
    if (kn_span_is(w, "guard"))
      fine = parse_guard(p);
    else if (kn_span_is(w, "need"))
      fine = parse_need(p);
    else if (kn_span_is(w, "slot"))
      fine = parse_slot(p);
    else {
      p->p = at;
      break;
    }
    if (!fine) return false;
  }
  if (!kn_parse_nodes(p) || !parse_return(p) || !kn_expect(p, '}')) return false;
  kn_skip(p);
  return p->p == p->end || kn_parse_fail(p, p->p, "the text goes on after the end of the graph");
}

static kn_status parse_graph(kn_parser *p, kn_graph **out) {
  kn_skip(p);
  const char *at = p->p, *name = NULL;
  if (!kn_span_is(kn_read_word(p), "graph")) kn_parse_fail(p, at, "a graph starts with: graph NAME(");
  kn_status st = p->status == KN_OK ? kn_graph_new(p->ctx, NULL, out) : p->status;
  if (st != KN_OK) return st;
  kn_builder_init(&p->b, p->ctx, *out);
  if (kn_read_name(p, &name)) {
    (*out)->name = kn_build_text(&p->b, name);
    if (parse_body(p) && (st = kn_build_finish(&p->b, true)) != KN_OK && p->b.fault && p->b.fault->text_at)
      kn_parse_built(p, p->text + p->b.fault->text_at);
    else if (p->status == KN_OK)
      p->status = st;
  }
  kn_parse_built(p, p->p);
  return p->status;
}

kn_status kn_graph_parse(kn_context *ctx, const char *text, size_t len, kn_graph **out) {
  return kn_graph_parse_as(ctx, text, len, NULL, out);
}

kn_status kn_graph_parse_as(kn_context *ctx, const char *text, size_t len, const kn_versions *versions,
                            kn_graph **out) {
  if (len > KN_TEXT_MAX)
    return kn_fail(ctx, KN_LIMIT, "a graph's text has at most %d bytes, this has %zu", KN_TEXT_MAX, len);
  kn_parser p = {.ctx = ctx, .text = text, .p = text, .end = text + len, .versions = versions};
  kn_graph *g = NULL;
  kn_status st = parse_graph(&p, &g);
  kn_map_free(ctx->heap, &p.values);
  kn_map_free(ctx->heap, &p.slots);
  if (st != KN_OK)
    kn_graph_release(g);
  else
    *out = g;
  return st;
}
