/* The printer of the text form; graph/README.md has its grammar. parse.c reads what this file writes, and
 * what it writes for the graph read back is the same to the byte. */
#include "graph/attrs_text.h"
#include "graph/internal.h"
#include "graph/map.h"
#include "graph/syntax.h"
#include "graph/text.h"
#include "core/device.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct printer {
  kn_writer s;
  const kn_graph *g;     /* NULL when printing a single node */
  unsigned char *shared; /* by value id: another value has the same name; NULL: not known */
  uint32_t nvalues;
  size_t line; /* where the present line starts */
  kn_text_form form;
} printer;

/* ---- places ---- */

static bool in_library(const kn_where *w) { return !strncmp(w->chunk, "kiln/", 5); }

bool kn_where_composite(const kn_where *w) {
  size_t n = strlen(w->chunk);
  return in_library(w) && n > 7 && !strcmp(w->chunk + n - 2, "()");
}

const kn_where *kn_where_user(const kn_where *w) {
  const kn_where *user = w;
  while (user && in_library(user)) user = user->at;
  return user ? user : w;
}

/* Where a listing goes on after w. */
static const kn_where *next_place(const kn_where *w, bool brief) {
  w = w->at;
  while (brief && w && in_library(w)) w = w->at;
  return w;
}

static void put_where(kn_writer *s, const kn_where *w, bool brief) {
  for (w = brief ? kn_where_user(w) : w; w; w = next_place(w, brief)) {
    for (const char *c = w->chunk; *c; c++) { /* one line, and "<-" only between places */
      bool odd = (unsigned char)*c < ' ' || *c == 127 || (c[0] == '<' && c[1] == '-');
      kn_put(s, odd ? "?" : c, 1);
    }
    if (w->line > 0)
      kn_putf(s, ":%d", w->line);
    else
      kn_puts(s, ":?");
    if (next_place(w, brief)) kn_puts(s, " <- ");
  }
}

static void indent(printer *p, int depth) {
  p->line = p->s.n;
  for (int i = 0; i < depth; i++) kn_puts(&p->s, "  ");
}

enum { COMMENT_COLUMN = 64 };

static void end_line(printer *p, const kn_where *w) {
  if (w) {
    size_t used = p->s.n - p->line;
    do kn_puts(&p->s, " ");
    while (++used < COMMENT_COLUMN);
    kn_puts(&p->s, " ; ");
    put_where(&p->s, w, p->form != KN_TEXT_FULL);
  }
  kn_puts(&p->s, "\n");
}

/* ---- names, types ---- */

static void put_value(printer *p, const kn_value *v) {
  kn_puts(&p->s, "%");
  if (!v->name) {
    kn_putf(&p->s, "%u", v->id);
    return;
  }
  if (kn_plain_value_name(v->name))
    kn_puts(&p->s, v->name);
  else
    kn_put_quoted(&p->s, v->name, strlen(v->name));
  if (p->shared && v->id <= p->nvalues && p->shared[v->id]) kn_putf(&p->s, ".%u", v->id);
}

static void put_word(printer *p, const char *w) {
  if (kn_plain_word(w, strlen(w)))
    kn_puts(&p->s, w);
  else
    kn_put_quoted(&p->s, w, strlen(w));
}

static void put_type(printer *p, const kn_vtype *t) {
  char buf[KN_TYPE_TEXT];
  if (kn_is_list(t->kind)) {
    kn_vtype inner = kn_element_of(*t);
    kn_puts(&p->s, "list[");
    put_type(p, &inner);
    kn_puts(&p->s, "]");
    return;
  }
  if (t->kind != KN_V_TENSOR) {
    kn_puts(&p->s, kn_vtype_text(NULL, t, buf, sizeof buf));
    return;
  }
  kn_putf(&p->s, "%s[", kn_dtype_name((kn_dtype)t->tensor.dtype));
  for (int i = 0; i < t->tensor.rank; i++) {
    int64_t d = t->tensor.dims[i];
    uint64_t k = kn_dim_symbol_of(d);
    if (i) kn_puts(&p->s, ",");
    if (kn_dim_known(d))
      kn_putf(&p->s, "%" PRId64, d);
    else if (d != KN_DIM_UNKNOWN && p->g && k < p->g->nsymbols)
      put_word(p, p->g->symbols[k]);
    else
      kn_puts(&p->s, "?");
  }
  kn_puts(&p->s, "]");
  if (t->tensor.device != KN_CPU) kn_putf(&p->s, "@%s", kn_device_name((kn_device_id)t->tensor.device));
}

static void put_typed(printer *p, const kn_value *v) {
  put_value(p, v);
  kn_puts(&p->s, ": ");
  put_type(p, &v->type);
}

/* ---- constants ---- */

static void put_scalar(printer *p, const kn_scalar *s) {
  char buf[KN_NUMBER_TEXT];
  if (s->kind == KN_SCALAR_BOOL)
    kn_puts(&p->s, s->as.b ? "true" : "false");
  else if (s->kind == KN_SCALAR_INT)
    kn_putf(&p->s, "%" PRId64, s->as.i);
  else
    kn_puts(&p->s, kn_double_text(s->as.f, buf));
}

static void put_element(printer *p, const kn_tensor *t, const char *at) {
  char buf[KN_NUMBER_TEXT];
  kn_dtype d = kn_tensor_dtype(t);
  switch (kn_dtypes[d].category) {
  case KN_CAT_BOOL: kn_puts(&p->s, kn_element_int(d, at) ? "true" : "false"); break;
  case KN_CAT_INT: kn_putf(&p->s, "%" PRId64, kn_element_int(d, at)); break;
  case KN_CAT_FLOAT: {
    double x = kn_element_float(d, at); /* what float32 reads back exactly, halves do too */
    kn_puts(&p->s, d == KN_F64 ? kn_double_text(x, buf) : kn_float_text((float)x, buf));
    break;
  }
  }
}

static void put_elements(printer *p, const kn_tensor *t) {
  int64_t n = kn_tensor_numel(t), at[KN_MAX_RANK] = {0};
  for (int64_t i = 0; i < n; i++) {
    int64_t offset = 0;
    for (int d = 0; d < t->type.rank; d++) offset += at[d] * t->strides[d];
    if (i) kn_puts(&p->s, ", ");
    put_element(p, t, (const char *)kn_tensor_data(t) + offset * (int64_t)kn_dtype_size(kn_tensor_dtype(t)));
    for (int d = t->type.rank - 1; d >= 0 && ++at[d] == t->type.dims[d]; d--) at[d] = 0;
  }
}

bool kn_slot_inline(const kn_slot *s) {
  return s->kind == KN_SLOT_CONST && s->tensor && s->tensor->storage && s->type.tensor.device == KN_CPU &&
         s->tensor->type.device == KN_CPU && kn_tensor_numel(s->tensor) <= KN_INLINE_ELEMENTS;
}

static void put_slot(printer *p, const kn_slot *s) {
  indent(p, 1);
  kn_putf(&p->s, "slot %s ", kn_slot_words[s->kind]);
  kn_put_quoted(&p->s, s->name, strlen(s->name));
  kn_puts(&p->s, ": ");
  put_type(p, &s->type);
  if (s->type.kind != KN_V_TENSOR) {
    kn_puts(&p->s, " = ");
    put_scalar(p, &s->scalar);
  } else if (kn_slot_inline(s)) {
    kn_puts(&p->s, s->type.tensor.rank ? " = {" : " = ");
    put_elements(p, s->tensor);
    if (s->type.tensor.rank) kn_puts(&p->s, "}");
  }
  end_line(p, s->where);
}

/* ---- nodes ---- */

static void put_named(void *ud, const kn_value *v) { put_value(ud, v); }

static void put_outs(printer *p, const kn_node *n) {
  bool typed = !(n->op == KN_NODE_const || n->op == KN_NODE_tensor || n->op == KN_NODE_param ||
                 n->op == KN_NODE_load_state);
  for (uint32_t i = 0; i < n->nout; i++) {
    if (i) kn_puts(&p->s, ", ");
    if (typed)
      put_typed(p, n->out[i]);
    else
      put_value(p, n->out[i]);
  }
  if (n->nout) kn_puts(&p->s, " = ");
}

static void put_list(printer *p, kn_value *const *v, uint32_t n, const char *before) {
  for (uint32_t i = 0; i < n; i++) {
    kn_puts(&p->s, i ? ", " : before);
    put_value(p, v[i]);
  }
}

/* All of a node up to its regions. */
static void put_head(printer *p, const kn_node *n) {
  put_outs(p, n);
  if (n->no_grad) kn_puts(&p->s, "no_grad ");
  kn_puts(&p->s, kn_opcode_describe(n->op).text);
  if (n->op == KN_NODE_loop) {
    const kn_region *r = n->regions[0];
    kn_puts(&p->s, " (");
    for (uint32_t i = 0; i < n->nin && i < r->nparams; i++) {
      if (i) kn_puts(&p->s, ", ");
      put_typed(p, r->params[i]);
      kn_puts(&p->s, " = ");
      put_value(p, n->in[i]);
    }
    kn_puts(&p->s, ")");
    return;
  }
  if (n->op == KN_NODE_const) {
    kn_puts(&p->s, " ");
    put_scalar(p, &n->scalar);
  }
  if (n->slot) {
    kn_puts(&p->s, " ");
    kn_put_quoted(&p->s, n->slot->name, strlen(n->slot->name));
  }
  put_list(p, n->in, n->ntensor, n->slot ? ", " : " ");
  if (n->text) {
    kn_puts(&p->s, " ");
    kn_put_quoted(&p->s, n->text, strlen(n->text));
  }
  if (n->op == KN_NODE_size) kn_putf(&p->s, " {dim = %" PRId64 "}", *(const int64_t *)n->attrs + 1);
  kn_put_attrs(&p->s, n, " {", put_named, p);
}

static void put_region(printer *p, const kn_region *r, int depth);

static void put_loop_end(printer *p, const kn_region *r, int depth) {
  if (r->nyields < 1 + r->nparams) return; /* not finished yet: a dump while building */
  indent(p, depth);
  kn_puts(&p->s, "continue_if ");
  put_value(p, r->yields[0]);
  kn_puts(&p->s, " next(");
  put_list(p, r->yields + 1, r->nparams, "");
  kn_puts(&p->s, ") exit(");
  put_list(p, r->yields + 1 + r->nparams, r->nyields - 1 - r->nparams, "");
  kn_puts(&p->s, ")\n");
}

static void put_node(printer *p, const kn_node *n, int depth) {
  indent(p, depth);
  put_head(p, n);
  if (!n->nregions) {
    end_line(p, n->where);
    return;
  }
  kn_puts(&p->s, " {");
  end_line(p, n->where);
  for (int i = 0; i < n->nregions; i++) {
    const kn_region *r = n->regions[i];
    if (i) {
      indent(p, depth);
      kn_puts(&p->s, "} else {\n");
    }
    put_region(p, r, depth + 1);
    if (n->op == KN_NODE_loop)
      put_loop_end(p, r, depth + 1);
    else if (r->nyields) {
      indent(p, depth + 1);
      kn_puts(&p->s, "yield");
      put_list(p, r->yields, r->nyields, " ");
      kn_puts(&p->s, "\n");
    }
  }
  indent(p, depth);
  kn_puts(&p->s, "}\n");
}

static void put_region(printer *p, const kn_region *r, int depth) {
  KN_EACH_NODE (n, r) put_node(p, n, depth);
}

/* ---- arguments and results ---- */

static void put_tree(printer *p, const kn_tree *t, uint32_t *typed);

static void put_key(printer *p, const kn_tree *k) {
  if (k->kind == KN_TREE_STRING && kn_plain_word(k->text, k->n))
    kn_put(&p->s, k->text, k->n);
  else {
    kn_puts(&p->s, "[");
    put_tree(p, k, NULL);
    kn_puts(&p->s, "]");
  }
  kn_puts(&p->s, " = ");
}

/* `typed`: leaves met for the first time (inputs below *typed have been met) are followed by their type. */
static void put_tree(printer *p, const kn_tree *t, uint32_t *typed) {
  char buf[KN_NUMBER_TEXT];
  switch (t->kind) {
  case KN_TREE_VALUE:
    if (typed && t->i == *typed) {
      put_typed(p, t->value);
      ++*typed;
    } else
      put_value(p, t->value);
    break;
  case KN_TREE_NIL: kn_puts(&p->s, "nil"); break;
  case KN_TREE_NONE: kn_puts(&p->s, "none"); break;
  case KN_TREE_AGAIN: kn_putf(&p->s, "&%u", t->same_as); break;
  case KN_TREE_BOOL: kn_puts(&p->s, t->i ? "true" : "false"); break;
  case KN_TREE_INT: kn_putf(&p->s, "%" PRId64, t->i); break;
  case KN_TREE_FLOAT: kn_puts(&p->s, kn_double_text(t->f, buf)); break;
  case KN_TREE_STRING: kn_put_quoted(&p->s, t->text, t->n); break;
  case KN_TREE_CHOICE:
  case KN_TREE_TEXT:
    kn_puts(&p->s, t->kind == KN_TREE_TEXT ? "text{" : "one_of{");
    if (t->kind == KN_TREE_TEXT) kn_put_quoted(&p->s, t->text, strlen(t->text));
    for (uint32_t i = 0; i < t->n; i++) {
      if (i || t->kind == KN_TREE_TEXT) kn_puts(&p->s, ", ");
      put_tree(p, &t->items[i], typed);
    }
    kn_puts(&p->s, "}");
    break;
  case KN_TREE_TABLE:
    if (t->same_as) kn_putf(&p->s, "&%u", t->same_as);
    kn_puts(&p->s, "{");
    int64_t next = 1; /* keys 1, 2 … in order are not written */
    for (uint32_t i = 0; i < t->n; i++) {
      if (i) kn_puts(&p->s, ", ");
      if (t->keys[i].kind == KN_TREE_INT && t->keys[i].i == next)
        next++;
      else
        put_key(p, &t->keys[i]);
      put_tree(p, &t->items[i], typed);
    }
    kn_puts(&p->s, "}");
  }
}

static void put_trees(printer *p, const kn_tree *t, uint32_t n, uint32_t *typed) {
  for (uint32_t i = 0; i < n; i++) {
    if (i) kn_puts(&p->s, ", ");
    put_tree(p, &t[i], typed);
  }
}

/* ---- the whole ---- */

static void put_guard(printer *p, const kn_guard *g) {
  indent(p, 1);
  kn_puts(&p->s, "guard ");
  put_word(p, g->kind ? g->kind : "");
  kn_puts(&p->s, " ");
  kn_put_quoted(&p->s, g->name ? g->name : "", g->name ? strlen(g->name) : 0);
  kn_puts(&p->s, " = ");
  kn_put_quoted(&p->s, g->value ? g->value : "", g->value ? strlen(g->value) : 0);
  end_line(p, g->where);
}

static void put_need(printer *p, const kn_need *need) {
  indent(p, 1);
  kn_puts(&p->s, "need ");
  if (need->input) put_value(p, need->input), kn_puts(&p->s, " ");
  kn_puts(&p->s, need->text);
  kn_puts(&p->s, "\n");
}

static void put_graph(printer *p) {
  const kn_graph *g = p->g;
  uint32_t typed = 0;
  kn_puts(&p->s, "graph ");
  put_word(p, g->name);
  kn_puts(&p->s, "(");
  if (g->args)
    put_trees(p, g->args, g->nargs, &typed);
  else
    for (uint32_t i = 0; i < g->body->nparams; i++) { /* not finished yet */
      if (i) kn_puts(&p->s, ", ");
      put_typed(p, g->body->params[i]);
    }
  kn_puts(&p->s, ") {\n");
  if (p->form == KN_TEXT_FULL)
    for (uint32_t i = 0; i < g->nguards; i++) put_guard(p, &g->guards[i]);
  else if (g->nguards)
    kn_putf(&p->s, "  ; %u guard%s: g:guards()\n", g->nguards, g->nguards == 1 ? "" : "s");
  for (uint32_t i = 0; i < g->nneeds; i++) put_need(p, &g->needs[i]);
  for (uint32_t i = 0; i < g->nslots; i++) put_slot(p, g->slots[i]);
  put_region(p, g->body, 1);
  kn_puts(&p->s, "  return");
  if (g->nresults) kn_puts(&p->s, " ");
  put_trees(p, g->results, g->nresults, NULL);
  if (!g->results) put_list(p, g->body->yields, g->body->nyields, " ");
  kn_puts(&p->s, "\n}\n");
}

/* ---- which names are shared ---- */

typedef struct names { /* open addressing by name, at most half full */
  const kn_value **table;
  size_t cap;
  printer *p;
} names;

static void note_name(names *m, const kn_value *v) {
  if (!v->name || v->id > m->p->nvalues) return;
  size_t i = kn_hash(v->name, strlen(v->name)) & (m->cap - 1);
  while (m->table[i] && strcmp(m->table[i]->name, v->name)) i = (i + 1) & (m->cap - 1);
  if (m->table[i])
    m->p->shared[m->table[i]->id] = m->p->shared[v->id] = 1;
  else
    m->table[i] = v;
}

static void note_region(names *m, const kn_region *r) {
  for (uint32_t i = 0; i < r->nparams; i++) note_name(m, r->params[i]);
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++) note_name(m, n->out[i]);
    for (int i = 0; i < n->nregions; i++) note_region(m, n->regions[i]);
  }
}

kn_status kn_graph_print(kn_context *ctx, const kn_graph *g, kn_text_form form, char **text, size_t *len) {
  printer p = {.s = {.heap = ctx->heap}, .g = g, .nvalues = g->nvalues, .form = form};
  names m = {.cap = 16, .p = &p};
  while (m.cap < 2 * ((size_t)g->nvalues + 1)) m.cap *= 2;
  m.table = kn_calloc(ctx->heap, m.cap, sizeof *m.table);
  p.shared = kn_calloc(ctx->heap, (size_t)g->nvalues + 1, 1);
  kn_status st = KN_OK;
  if (!m.table || !p.shared)
    st = kn_fail_nomem(ctx, m.cap * sizeof *m.table);
  else {
    note_region(&m, g->body);
    put_graph(&p);
    st = kn_writer_take(ctx, &p.s, text, len);
  }
  if (m.table) kn_free(ctx->heap, m.table, m.cap * sizeof *m.table);
  kn_free(ctx->heap, p.shared, (size_t)g->nvalues + 1);
  return st;
}

/* ---- for logs ---- */

/* Logs must not fail: what does not fit, or finds no memory, is cut. */
static char *cut(kn_writer *s, char *buf, size_t size) {
  size_t n = s->n < size ? s->n : size - 1;
  if (size && n) memcpy(buf, s->p, n);
  if (size) buf[n] = 0;
  kn_writer_free(s);
  return buf;
}

char *kn_node_text(const kn_node *n, char *buf, size_t size) {
  const kn_graph *g = n->region ? n->region->graph : NULL;
  if (!g) {
    snprintf(buf, size, "%s", kn_opcode_describe(n->op).text);
    return buf;
  }
  printer p = {.s = {.heap = g->heap}, .g = g};
  put_head(&p, n);
  return cut(&p.s, buf, size);
}

static char *where_text(const kn_where *w, bool brief, char *buf, size_t size) {
  size_t at = 0;
  if (size) buf[0] = 0;
  for (w = brief ? kn_where_user(w) : w; w && at < size; w = next_place(w, brief)) {
    const char *more = next_place(w, brief) ? " <- " : "";
    int n = w->line > 0 ? snprintf(buf + at, size - at, "%s:%d%s", w->chunk, w->line, more)
                        : snprintf(buf + at, size - at, "%s:?%s", w->chunk, more);
    if (n < 0) break;
    at += (size_t)n;
  }
  return buf;
}

char *kn_where_text(const kn_where *w, char *buf, size_t size) { return where_text(w, false, buf, size); }

char *kn_where_brief(const kn_where *w, char *buf, size_t size) { return where_text(w, true, buf, size); }
