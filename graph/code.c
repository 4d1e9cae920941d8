/* A graph as a listing for people: structured, in Lua's words, with the program's locals as names and its
 * places as comments. Values used once on the line that made them are written where they are used; constants
 * always are. It is not read back (that is the text form, print.c), and it is no program: it leaves out sizes
 * and dtypes that the ops' attributes do not say. */
#include "graph/format.h"
#include "graph/attrs_text.h"
#include "graph/map.h"
#include "graph/syntax.h"
#include "graph/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DEEPEST = 4, COMMENT = 56 }; /* calls within calls on one line; column of comments */

typedef struct lister {
  kn_writer s;
  const kn_graph *g;
  kn_arena arena;
  kn_map taken;       /* names, and how many had them */
  const char **name;  /* by value id; NULL: written where it is used */
  uint32_t *uses;     /* by value id */
  const kn_node **by; /* by value id: the node that uses it; NULL for yields */
  uint8_t *deep;      /* by value id: calls within its expression */
  size_t line;        /* where the present line starts */
  bool failed;
} lister;

/* ---- how kinds and operators read: $n is the n-th input ---- */

typedef struct reading {
  const char *of, *as;
} reading;

static const reading operators[] = {
    {"__add", "$1 + $2"},   {"__sub", "$1 - $2"},    {"__mul", "$1 * $2"},     {"__div", "$1 / $2"},
    {"__idiv", "$1 // $2"}, {"__mod", "$1 % $2"},    {"__pow", "$1 ^ $2"},     {"__unm", "-$1"},
    {"lt", "$1 < $2"},      {"le", "$1 <= $2"},      {"gt", "$1 > $2"},        {"ge", "$1 >= $2"},
    {"eq", "$1 == $2"},     {"ne", "$1 ~= $2"},      {"__band", "$1 & $2"},    {"__bor", "$1 | $2"},
    {"__bxor", "$1 ~ $2"},  {"__bnot", "~$1"},       {"__shl", "$1 << $2"},    {"__shr", "$1 >> $2"},
    {"lua.add", "$1 + $2"}, {"lua.sub", "$1 - $2"},  {"lua.mul", "$1 * $2"},   {"lua.mod", "$1 % $2"},
    {"lua.pow", "$1 ^ $2"}, {"lua.div", "$1 / $2"},  {"lua.idiv", "$1 // $2"}, {"lua.band", "$1 & $2"},
    {"lua.bor", "$1 | $2"}, {"lua.bxor", "$1 ~ $2"}, {"lua.shl", "$1 << $2"},  {"lua.shr", "$1 >> $2"},
    {"lua.unm", "-$1"},     {"lua.bnot", "~$1"},     {"lua.eq", "$1 == $2"},   {"lua.lt", "$1 < $2"},
    {"lua.le", "$1 <= $2"}, {"lua.not", "not $1"},   {"length", "#$1"},
};
static const reading calls[] = {
    {"lua.floor", "math.floor($1)"},
    {"lua.ceil", "math.ceil($1)"},
    {"lua.abs", "math.abs($1)"},
    {"lua.sqrt", "math.sqrt($1)"},
    {"lua.exp", "math.exp($1)"},
    {"lua.log", "math.log($1)"},
    {"lua.sin", "math.sin($1)"},
    {"lua.cos", "math.cos($1)"},
    {"lua.tofloat", "float($1)"},
    {"element", "$1[$2]"},
    {"list", "{}"},
    {"same", "rawequal($1, $2)"},
    {"raise", "error"},
};

static const char *look_up(const reading *r, size_t n, const char *of) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(r[i].of, of)) return r[i].as;
  return NULL;
}

static const char *operator_of(const kn_node *n) {
  bool meta = kn_opcode_is_op(n->op) && *kn_ops[n->op].metamethod;
  const char *of = meta ? kn_ops[n->op].metamethod : kn_opcode_describe(n->op).text;
  return look_up(operators, sizeof operators / sizeof *operators, of);
}

/* A constant, an outside value that is only read, or nothing at all: written wherever it is used. */
static bool is_plain(const kn_node *n) {
  switch ((int)n->op) {
  case KN_NODE_const:
  case KN_NODE_undef:
  case KN_NODE_param:
  case KN_NODE_tensor: return true;
  case KN_NODE_to_tensor: return n->in[0]->def && n->in[0]->def->op == KN_NODE_const;
  default: return false;
  }
}

/* ---- names ---- */

static bool is_keyword(const char *s) {
  static const char words[] =
      " and break do else elseif end false for function goto if in local nil not or repeat "
      "return then true until while ";
  char padded[16];
  return strlen(s) < 12 && snprintf(padded, sizeof padded, " %s ", s) > 0 && strstr(words, padded);
}

static void take_name(lister *l, const kn_value *v) {
  char base[64], full[96];
  uint32_t *count;
  snprintf(base, sizeof base, "%.60s", v->name ? v->name : "");
  for (char *c = base; *c; c++)
    if (!kn_is_letter(*c) && !(kn_is_digit(*c) && c > base)) *c = '_';
  if (!*base || is_keyword(base)) snprintf(base, sizeof base, "t%" PRIu32, v->id);
  snprintf(full, sizeof full, "%s", base);
  const char *key = kn_arena_strdup(&l->arena, base);
  if (!key) return (void)(l->failed = true);
  count = kn_map_find(&l->taken, (kn_span){key, strlen(key)});
  while (count && (++*count, snprintf(full, sizeof full, "%s_%" PRIu32, base, *count),
                   kn_map_find(&l->taken, (kn_span){full, strlen(full)}))) {
  }
  const char *name = kn_arena_strdup(&l->arena, full);
  uint32_t *one = kn_arena_alloc(&l->arena, sizeof *one);
  if (!name || !one) return (void)(l->failed = true);
  *one = 1;
  l->failed |= !kn_map_add(l->s.heap, &l->taken, (kn_span){name, strlen(name)}, one);
  l->name[v->id] = name;
}

static void count_region(lister *l, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin; i++) {
      l->uses[n->in[i]->id]++;
      l->by[n->in[i]->id] = n;
    }
    for (int i = 0; i < n->nregions; i++) count_region(l, n->regions[i]);
  }
  for (uint32_t i = 0; i < r->nyields; i++) {
    l->uses[r->yields[i]->id]++;
    l->by[r->yields[i]->id] = NULL;
  }
}

/* May the node's value be written where it is used? */
static bool goes_inline(lister *l, const kn_node *n) {
  if (n->nout != 1 || n->nregions) return false;
  if (is_plain(n)) return true;
  const kn_value *v = n->out[0];
  const kn_node *by = l->by[v->id];
  kn_effect e = kn_opcode_describe(n->op).effect;
  uint8_t deep = 0;
  for (uint32_t i = 0; i < n->nin; i++)
    if (!l->name[n->in[i]->id] && l->deep[n->in[i]->id] > deep) deep = l->deep[n->in[i]->id];
  l->deep[v->id] = (uint8_t)(deep + 1);
  return l->uses[v->id] == 1 && by && by->region == n->region && by->op != KN_NODE_loop && !v->name &&
         (by->where == n->where || !n->where) && deep < DEEPEST && (e == KN_PURE || e == KN_RAISES);
}

static void name_region(lister *l, const kn_region *r) {
  for (uint32_t i = 0; i < r->nparams; i++) take_name(l, r->params[i]);
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) name_region(l, n->regions[i]);
    for (uint32_t i = 0; i < n->nout; i++)
      if (!goes_inline(l, n)) take_name(l, n->out[i]);
  }
}

/* ---- expressions ---- */

static void put_node_expression(lister *l, const kn_node *n);

static void put_operand(lister *l, const kn_value *v) {
  if (l->name[v->id]) return kn_puts(&l->s, l->name[v->id]);
  bool nested = operator_of(v->def) && !is_plain(v->def);
  if (nested) kn_puts(&l->s, "(");
  put_node_expression(l, v->def);
  if (nested) kn_puts(&l->s, ")");
}

static void put_value(lister *l, const kn_value *v) {
  if (l->name[v->id])
    kn_puts(&l->s, l->name[v->id]);
  else
    put_node_expression(l, v->def);
}

static void put_any(void *ud, const kn_value *v) { put_value(ud, v); }

static void put_scalar(lister *l, const kn_scalar *s) {
  char buf[KN_NUMBER_TEXT];
  if (s->kind == KN_SCALAR_BOOL)
    kn_puts(&l->s, s->as.b ? "true" : "false");
  else if (s->kind == KN_SCALAR_INT)
    kn_putf(&l->s, "%" PRId64, s->as.i);
  else
    kn_puts(&l->s, kn_double_text(s->as.f, buf));
}

static void put_pattern(lister *l, const kn_node *n, const char *as, bool operands) {
  for (; *as; as++) {
    uint32_t i = as[0] == '$' ? (uint32_t)(as[1] - '1') : n->nin;
    if (i >= n->nin) {
      kn_put(&l->s, as, 1);
      continue;
    }
    if (operands)
      put_operand(l, n->in[i]);
    else
      put_value(l, n->in[i]);
    as++;
  }
}

/* "net.stem[1].weight", "count": what Lua would read as a place. */
static bool is_path(const char *s) {
  size_t i = 0;
  while (kn_is_letter(s[i]) || (i && (kn_is_digit(s[i]) || (s[i] && strchr(".[]", s[i]))))) i++;
  return i && !s[i];
}

static void put_slot_name(lister *l, const kn_slot *s) {
  if (is_path(s->name))
    kn_puts(&l->s, s->name);
  else {
    kn_puts(&l->s, "slot ");
    kn_put_quoted(&l->s, s->name, strlen(s->name));
  }
}

/* "x:sum{dim = {2}}" where the first input is a value of some name, else "cat(a, b, {dim = 1})". */
static void put_call(lister *l, const kn_node *n, const char *name, uint32_t nin) {
  bool method = kn_opcode_is_op(n->op) && nin && kn_ops[n->op].max_in != KN_VARIADIC &&
                (l->name[n->in[0]->id] || !operator_of(n->in[0]->def));
  method &= !(n->in && nin && !l->name[n->in[0]->id] && is_plain(n->in[0]->def) && !n->in[0]->def->slot);
  if (method) {
    put_value(l, n->in[0]);
    kn_puts(&l->s, ":");
  }
  kn_puts(&l->s, name);
  kn_puts(&l->s, "(");
  for (uint32_t i = method; i < nin; i++) {
    if (i > method) kn_puts(&l->s, ", ");
    put_value(l, n->in[i]);
  }
  if (n->text) {
    kn_puts(&l->s, nin ? ", " : "");
    kn_put_quoted(&l->s, n->text, strlen(n->text));
  }
  bool bare = nin == method && !n->text;
  if (n->op == KN_NODE_to_tensor) kn_putf(&l->s, ", \"%s\"", kn_dtype_name(*(const kn_dtype *)n->attrs));
  kn_put_attrs(&l->s, n, bare ? "{" : ", {", put_any, l);
  kn_puts(&l->s, ")");
}

/* print("n is %d\n", n): the text first, as string.format has it. */
static void put_message(lister *l, const kn_node *n, const char *name) {
  uint32_t first = kn_format_first(n);
  kn_puts(&l->s, name);
  kn_puts(&l->s, "(");
  for (uint32_t i = 0; i < first; i++) {
    put_value(l, n->in[i]);
    kn_puts(&l->s, ", ");
  }
  kn_put_quoted(&l->s, n->text, strlen(n->text));
  for (uint32_t i = first; i < n->nin; i++) {
    kn_puts(&l->s, ", ");
    put_value(l, n->in[i]);
  }
  kn_puts(&l->s, ")");
}

static void put_node_expression(lister *l, const kn_node *n) {
  kn_opcode_info info = kn_opcode_describe(n->op);
  const char *as = operator_of(n), *call = look_up(calls, sizeof calls / sizeof *calls, info.text);
  switch ((int)n->op) {
  case KN_NODE_const: put_scalar(l, &n->scalar); return;
  case KN_NODE_undef: kn_puts(&l->s, "nil"); return;
  case KN_NODE_param:
  case KN_NODE_tensor:
  case KN_NODE_load_state: put_slot_name(l, n->slot); return;
  case KN_NODE_size:
    put_operand(l, n->in[0]);
    kn_putf(&l->s, ":size(%" PRId64 ")", *(const int64_t *)n->attrs + 1);
    return;
  case KN_NODE_item:
    put_operand(l, n->in[0]);
    kn_puts(&l->s, ":item()");
    return;
  case KN_NODE_to_tensor:
    if (is_plain(n)) return put_value(l, n->in[0]);
    break;
  }
  if (n->text) return put_message(l, n, call && !strchr(call, '(') ? call : info.text);
  if (n->no_grad) kn_puts(&l->s, "no_grad "); /* not Lua, and no name either */
  if (as && n->nin == (strstr(as, "$2") ? 2u : 1u))
    put_pattern(l, n, as, true);
  else if (call && strchr(call, '('))
    put_pattern(l, n, call, false);
  else if (call && n->op != KN_NODE_raise)
    put_pattern(l, n, call, true);
  else
    put_call(l, n, call ? call : info.text, kn_opcode_is_op(n->op) ? n->ntensor : n->nin);
}

/* ---- statements ---- */

static void begin_line(lister *l, int depth) {
  l->line = l->s.n;
  for (int i = 0; i < depth; i++) kn_puts(&l->s, "  ");
}

static void end_line(lister *l, const kn_node *n, bool typed) {
  char where[512] = "", type[KN_TYPE_TEXT] = "";
  if (n->where) kn_where_brief(n->where, where, sizeof where);
  if (typed && n->nout == 1) kn_vtype_text(l->g, &n->out[0]->type, type, sizeof type);
  if (*where || *type) {
    do kn_puts(&l->s, " ");
    while (l->s.n - l->line < COMMENT && !l->s.failed);
    kn_putf(&l->s, " -- %s%s%s", where, *where && *type ? "  " : "", type);
  }
  kn_puts(&l->s, "\n");
}

/* to[i] = from[i], without those that say nothing. */
static bool put_assignment(lister *l, int depth, const char *before, kn_value *const *to,
                           kn_value *const *from, uint32_t n, bool unused_too) {
  uint32_t said = 0;
  for (int side = 0; side < 2; side++)
    for (uint32_t i = 0, put = 0; i < n; i++) {
      bool undefined = from[i]->def && from[i]->def->op == KN_NODE_undef;
      if (undefined || from[i] == to[i] || (!unused_too && !l->uses[to[i]->id])) continue;
      if (!side && !said++) begin_line(l, depth), kn_puts(&l->s, before);
      kn_puts(&l->s, put++ ? ", " : side ? " = " : "");
      put_value(l, side ? from[i] : to[i]);
    }
  return said > 0;
}

static void assign(lister *l, int depth, const char *before, kn_value *const *to, kn_value *const *from,
                   uint32_t n, const kn_node *at) {
  if (!put_assignment(l, depth, before, to, from, n, at != NULL)) return;
  if (at)
    end_line(l, at, false);
  else
    kn_puts(&l->s, "\n");
}

static void declare_outputs(lister *l, const kn_node *n, int depth) {
  bool any = false;
  for (uint32_t i = 0; i < n->nout; i++) {
    if (!l->uses[n->out[i]->id]) continue;
    if (!any) begin_line(l, depth);
    kn_puts(&l->s, any ? ", " : "local ");
    kn_puts(&l->s, l->name[n->out[i]->id]);
    any = true;
  }
  if (any) kn_puts(&l->s, "\n");
}

static void put_region(lister *l, const kn_region *r, int depth);

static bool says_something(const lister *l, const kn_node *n, int side) {
  const kn_region *r = n->regions[side];
  KN_EACH_NODE (m, r)
    if (!m->nout || m->nregions || l->name[m->out[0]->id]) return true;
  for (uint32_t i = 0; i < n->nout; i++)
    if (l->uses[n->out[i]->id] && !(r->yields[i]->def && r->yields[i]->def->op == KN_NODE_undef)) return true;
  return false;
}

static void put_side(lister *l, const kn_node *n, int side, int depth) {
  put_region(l, n->regions[side], depth);
  assign(l, depth, "", n->out, n->regions[side]->yields, n->nout, NULL);
}

static void put_if(lister *l, const kn_node *n, int depth) {
  bool yes = says_something(l, n, 0), no = says_something(l, n, 1);
  declare_outputs(l, n, depth);
  begin_line(l, depth);
  kn_puts(&l->s, yes || !no ? "if " : "if not ");
  if (yes || !no)
    put_value(l, n->in[0]);
  else
    put_operand(l, n->in[0]);
  kn_puts(&l->s, " then");
  end_line(l, n, false);
  if (yes || !no) put_side(l, n, 0, depth + 1);
  if (yes && no) {
    begin_line(l, depth);
    kn_puts(&l->s, "else\n");
  }
  if (no) put_side(l, n, 1, depth + 1);
  begin_line(l, depth);
  kn_puts(&l->s, "end\n");
}

static void put_loop(lister *l, const kn_node *n, int depth) {
  const kn_region *r = n->regions[0];
  assign(l, depth, "local ", r->params, n->in, r->nparams, n);
  declare_outputs(l, n, depth);
  begin_line(l, depth);
  kn_puts(&l->s, "while true do");
  end_line(l, n, false);
  put_region(l, r, depth + 1);
  begin_line(l, depth + 1);
  kn_puts(&l->s, "if not ");
  put_operand(l, r->yields[0]);
  kn_puts(&l->s, " then\n");
  assign(l, depth + 2, "", n->out, r->yields + 1 + r->nparams, n->nout, NULL);
  begin_line(l, depth + 2);
  kn_puts(&l->s, "break\n");
  begin_line(l, depth + 1);
  kn_puts(&l->s, "end\n");
  assign(l, depth + 1, "", r->params, r->yields + 1, r->nparams, NULL);
  begin_line(l, depth);
  kn_puts(&l->s, "end\n");
}

static void put_statement(lister *l, const kn_node *n, int depth) {
  if (n->op == KN_NODE_if) return put_if(l, n, depth);
  if (n->op == KN_NODE_loop) return put_loop(l, n, depth);
  if (n->nout && !l->name[n->out[0]->id]) return; /* written where it is used */
  begin_line(l, depth);
  for (uint32_t i = 0; i < n->nout; i++) kn_putf(&l->s, "%s%s", i ? ", " : "local ", l->name[n->out[i]->id]);
  if (n->nout) kn_puts(&l->s, " = ");
  if (n->op == KN_NODE_store_state) {
    put_slot_name(l, n->slot);
    kn_puts(&l->s, " = ");
    put_value(l, n->in[0]);
  } else
    put_node_expression(l, n);
  end_line(l, n, true);
}

static void put_region(lister *l, const kn_region *r, int depth) {
  KN_EACH_NODE (n, r) put_statement(l, n, depth);
}

/* ---- the whole ---- */

static void put_tree(lister *l, const kn_tree *t);

static void put_table(lister *l, const kn_tree *t) {
  int64_t next = 1;
  kn_puts(&l->s, "{");
  for (uint32_t i = 0; i < t->n; i++) {
    const kn_tree *k = &t->keys[i];
    if (i) kn_puts(&l->s, ", ");
    if (k->kind == KN_TREE_INT && k->i == next)
      next++;
    else if (k->kind == KN_TREE_STRING && kn_plain_word(k->text, k->n)) {
      kn_put(&l->s, k->text, k->n);
      kn_puts(&l->s, " = ");
    } else {
      kn_puts(&l->s, "[");
      put_tree(l, k);
      kn_puts(&l->s, "] = ");
    }
    put_tree(l, &t->items[i]);
  }
  kn_puts(&l->s, "}");
}

/* The field that the first one numbers. */
static void put_choice(lister *l, const kn_tree *t) {
  kn_puts(&l->s, "({");
  for (uint32_t i = 1; i < t->n; i++) {
    if (i > 1) kn_puts(&l->s, ", ");
    put_tree(l, &t->items[i]);
  }
  kn_puts(&l->s, "})[");
  put_tree(l, &t->items[0]);
  kn_puts(&l->s, "]");
}

static void put_tree(lister *l, const kn_tree *t) {
  char buf[KN_NUMBER_TEXT];
  switch (t->kind) {
  case KN_TREE_VALUE: put_value(l, t->value); break;
  case KN_TREE_NIL: kn_puts(&l->s, "nil"); break;
  case KN_TREE_BOOL: kn_puts(&l->s, t->i ? "true" : "false"); break;
  case KN_TREE_INT: kn_putf(&l->s, "%" PRId64, t->i); break;
  case KN_TREE_FLOAT: kn_puts(&l->s, kn_double_text(t->f, buf)); break;
  case KN_TREE_STRING: kn_put_quoted(&l->s, t->text, t->n); break;
  case KN_TREE_NONE: kn_puts(&l->s, "none"); break;
  case KN_TREE_AGAIN: kn_puts(&l->s, "--[[the table around it]]"); break;
  case KN_TREE_TABLE: put_table(l, t); break;
  case KN_TREE_CHOICE: put_choice(l, t); break;
  case KN_TREE_TEXT:
    kn_puts(&l->s, "string.format(");
    kn_put_quoted(&l->s, t->text, strlen(t->text));
    for (uint32_t i = 0; i < t->n; i++) {
      kn_puts(&l->s, ", ");
      put_tree(l, &t->items[i]);
    }
    kn_puts(&l->s, ")");
    break;
  }
}

static void put_trees(lister *l, const kn_tree *t, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (i) kn_puts(&l->s, ", ");
    put_tree(l, &t[i]);
  }
}

static void put_graph(lister *l) {
  const kn_graph *g = l->g;
  char type[KN_TYPE_TEXT];
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    const kn_value *v = g->body->params[i];
    kn_putf(&l->s, "-- %s: %s\n", l->name[v->id], kn_vtype_text(g, &v->type, type, sizeof type));
  }
  if (g->nguards)
    kn_putf(&l->s, "-- %" PRIu32 " guard%s: g:guards()\n", g->nguards, g->nguards == 1 ? "" : "s");
  kn_putf(&l->s, "function %s(", g->name);
  put_trees(l, g->args, g->nargs);
  kn_puts(&l->s, ")\n");
  put_region(l, g->body, 1);
  begin_line(l, 1);
  kn_puts(&l->s, g->nresults ? "return " : "return");
  put_trees(l, g->results, g->nresults);
  kn_puts(&l->s, "\nend\n");
}

kn_status kn_graph_code(kn_context *ctx, const kn_graph *g, char **text, size_t *len) {
  lister l = {.s = {.heap = ctx->heap}, .g = g};
  size_t n = (size_t)g->nvalues + 1;
  kn_arena_init(&l.arena, ctx->heap);
  l.name = kn_arena_alloc(&l.arena, n * sizeof *l.name);
  l.uses = kn_arena_alloc(&l.arena, n * sizeof *l.uses);
  l.by = kn_arena_alloc(&l.arena, n * sizeof *l.by);
  l.deep = kn_arena_alloc(&l.arena, n);
  kn_status st = KN_OK;
  if (!l.name || !l.uses || !l.by || !l.deep)
    st = kn_fail_nomem(ctx, n * sizeof *l.name);
  else {
    count_region(&l, g->body);
    name_region(&l, g->body);
    if (l.failed)
      st = kn_fail_nomem(ctx, n);
    else {
      put_graph(&l);
      st = kn_writer_take(ctx, &l.s, text, len);
    }
  }
  kn_map_free(ctx->heap, &l.taken);
  kn_arena_free(&l.arena);
  return st;
}
