/* Changes of graphs as text, by the op table: tokens become others of their kind, lines move, new lines call
 * ops with values that are there, lines get a region around them. Most results still parse, so that rules,
 * plans and runs are reached. */
#include "spec/fuzzers/fuzz.h"
#include "graph/text.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct piece { /* of the text */
  size_t at, n;
} piece;

static unsigned below(fuzz_change *c, size_t n) { return random_below(&c->r, (unsigned)n); }
#define ONE_OF(c, list) ((list)[below(c, sizeof(list) / sizeof *(list))])

/* ---- what is there ---- */

static bool in_word(int ch) { return isalnum(ch) || ch == '_' || ch == '.'; }

typedef enum token { VALUE, WORD, NUMBER } token;

/* A token of a kind at or after a random place, else after the start; n is 0 where there is none. */
static piece find(fuzz_change *c, token kind, const uint8_t *p, size_t size) {
  size_t start = size ? below(c, size) : 0;
  for (int pass = 0; pass < 2; pass++, start = 0)
    for (size_t at = start; at < size; at++) {
      if (at && (in_word(p[at - 1]) || p[at - 1] == '%')) continue;
      size_t end = at + (kind == VALUE);
      const bool here = kind == VALUE ? p[at] == '%' : kind == WORD ? isalpha(p[at]) : isdigit(p[at]);
      while (here && end < size && in_word(p[end])) end++;
      if (here && end > at + (kind == VALUE)) return (piece){at, end - at};
    }
  return (piece){0, 0};
}

static piece token_of(fuzz_change *c, token kind) { return find(c, kind, c->data, c->size); }

/* The line that a place is in, its end included. */
static piece line_at(const uint8_t *p, size_t size, size_t at) {
  size_t from = at, to = at;
  while (from && p[from - 1] != '\n') from--;
  while (to < size && p[to++] != '\n') {
  }
  return (piece){from, to - from};
}

static piece line_of(fuzz_change *c) { return line_at(c->data, c->size, c->size ? below(c, c->size) : 0); }

/* ---- new text ---- */

typedef struct words {
  char text[640];
  size_t n;
} words;

__attribute__((format(printf, 2, 3))) static void say(words *w, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(w->text + w->n, sizeof w->text - w->n, fmt, ap);
  va_end(ap);
  w->n += (size_t)n < sizeof w->text - w->n ? (size_t)n : sizeof w->text - 1 - w->n;
}

static void say_piece(words *w, const fuzz_change *c, piece p) {
  say(w, "%.*s", (int)(p.n < 400 ? p.n : 400), (const char *)c->data + p.at);
}

static void say_value(words *w, fuzz_change *c) {
  const piece p = token_of(c, VALUE);
  if (p.n)
    say_piece(w, c, p);
  else
    say(w, "%%x");
}

static void say_number(words *w, fuzz_change *c) {
  static const char *const few[] = {"0", "1", "2", "3", "4", "-1", "5", "8"}, *const odd[] = {
                                                                                  "-2",
                                                                                  "-3",
                                                                                  "7",
                                                                                  "16",
                                                                                  "17",
                                                                                  "64",
                                                                                  "100",
                                                                                  "1000",
                                                                                  "65536",
                                                                                  "1000000",
                                                                                  "2147483648",
                                                                                  "4294967297",
                                                                                  "9223372036854775807",
                                                                                  "-9223372036854775808",
                                                                                  "0.5",
                                                                                  "-1.5",
                                                                                  "1e300",
                                                                                  "inf",
                                                                                  "-inf",
                                                                                  "nan",
                                                                                  "1e-320",
                                                                                  "-0.0"};
  say(w, "%s", below(c, 4) ? ONE_OF(c, few) : ONE_OF(c, odd));
}

/* A place in a list of sizes or positions. */
static void say_place(words *w, fuzz_change *c) {
  if (below(c, 5) == 0)
    say_value(w, c);
  else
    say_number(w, c);
}

static void say_dtype(words *w, fuzz_change *c) {
  say(w, "%s", kn_dtype_name((kn_dtype)below(c, KN_DTYPE_COUNT)));
}

static void say_type(words *w, fuzz_change *c) {
  static const char *const kinds[] = {"integer", "float", "number", "boolean"}, *const sizes[] = {
                                                                                    "?", "N", "M", "1",
                                                                                    "2", "3", "4", "0"};
  if (below(c, 3) == 0) {
    say(w, "%s", ONE_OF(c, kinds));
    return;
  }
  const unsigned rank = below(c, 4), list = below(c, 8) == 0;
  if (list) say(w, "list[");
  if (below(c, 2))
    say(w, "float32[");
  else
    say_dtype(w, c), say(w, "[");
  for (unsigned i = 0; i < rank; i++) say(w, "%s%s", i ? "," : "", ONE_OF(c, sizes));
  say(w, list ? "]]" : "]");
}

static void say_field(words *w, fuzz_change *c, const kn_field *f) {
  unsigned n = below(c, 4), names = 0;
  switch (f->kind) {
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS:
  case KN_FIELD_FLOAT:
  case KN_FIELD_NUMBER: say_place(w, c); break;
  case KN_FIELD_BOOL: say(w, below(c, 2) ? "true" : "false"); break;
  case KN_FIELD_DTYPE: say(w, "\""), say_dtype(w, c), say(w, "\""); break;
  case KN_FIELD_ENUM:
    while (f->names[names]) names++;
    say(w, "\"%s\"", f->names[below(c, names)]);
    break;
  case KN_FIELD_TEXT: say(w, "\"op\""); break;
  case KN_FIELD_INTS:
    if (below(c, 2)) {
      say_place(w, c);
      break;
    } /* fallthrough */
  case KN_FIELD_AXES:
  case KN_FIELD_SIZES:
  case KN_FIELD_NUMBERS:
    say(w, "{");
    for (unsigned i = 0; i < n; i++) say(w, i ? ", " : ""), say_place(w, c);
    say(w, "}");
    break;
  }
}

static const char *some_name(fuzz_change *c) {
  static const char *const names[] = {"%f1", "%f2", "%f3", "%f4", "%f5", "%f6", "%f7", "%f8", "%f9"};
  return ONE_OF(c, names);
}

/* One that graphs may have. */
static kn_opcode some_opcode(fuzz_change *c) {
  for (;;) {
    const kn_opcode op = (kn_opcode)below(c, KN_OPCODE_COUNT);
    if (!kn_opcode_is_op(op) || !(kn_ops[op].composite || kn_ops[op].flags & KN_FLAG_WRITES)) return op;
  }
}

/* A line that calls an op, or makes a node, of values that are there. */
static void say_call(words *w, fuzz_change *c) {
  const kn_opcode op = some_opcode(c);
  const kn_opcode_info about = kn_opcode_describe(op);
  const bool is_op = kn_opcode_is_op(op);
  const unsigned outs = about.nout == KN_VARIADIC ? below(c, 2) : is_op ? kn_ops[op].outs : about.nout;
  unsigned ins = about.nin == KN_VARIADIC ? below(c, 4) : about.nin;
  if (is_op && kn_ops[op].max_in > ins && below(c, 2)) ins++;
  for (unsigned i = 0; i < outs; i++) {
    say(w, "%s%%f%u", i ? ", " : "  ", below(c, 1000));
    if (below(c, 4) == 0) say(w, ": "), say_type(w, c);
  }
  say(w, "%s%s", outs ? " = " : "  ", about.text);
  for (unsigned i = 0; i < ins; i++) say(w, i ? ", " : " "), say_value(w, c);
  if (op == KN_NODE_const) say(w, " "), say_number(w, c);
  if (is_op) {
    const kn_field *f = kn_attrs_describe(kn_ops[op].attrs).fields;
    bool any = false;
    for (; f && f->name; f++)
      if (f->required || below(c, 3) == 0) {
        say(w, any ? ", %s = " : " {%s = ", f->name);
        say_field(w, c, f);
        any = true;
      }
    if (any) say(w, "}");
  } else if (op == KN_NODE_size)
    say(w, " {dim = %u}", 1 + below(c, 3));
  say(w, "\n");
}

/* ---- changes ---- */

static void put(fuzz_change *c, piece p, const words *w) { (void)fuzz_splice(c, p.at, p.n, w->text, w->n); }

/* A word becomes another of its kind: dtypes, kinds, ops (of as many inputs), true and false. */
static void change_word(fuzz_change *c) {
  static const char *const kinds[] = {"integer", "float", "number",  "boolean", "true",
                                      "false",   "param", "state",   "const",   "if",
                                      "loop",    "nil",   "no_grad", "yield",   "none"};
  const piece p = token_of(c, WORD);
  char name[64];
  kn_dtype d;
  kn_opcode op;
  words w = {.n = 0};
  if (!p.n || p.n >= sizeof name) return;
  memcpy(name, c->data + p.at, p.n);
  name[p.n] = 0;
  if (kn_dtype_parse(name, &d))
    say_dtype(&w, c);
  else if (kn_opcode_parse(name, p.n, &op)) {
    const uint8_t nin = kn_opcode_describe(op).nin;
    for (int tries = 0; tries < 20; tries++) {
      op = some_opcode(c);
      if (kn_opcode_describe(op).nin == nin) break;
    }
    say(&w, "%s", kn_opcode_describe(op).text);
  } else
    say(&w, "%s", ONE_OF(c, kinds));
  put(c, p, &w);
}

static void change_value(fuzz_change *c) {
  words w = {.n = 0};
  say_value(&w, c);
  const piece p = token_of(c, VALUE);
  if (p.n) put(c, p, &w);
}

static void change_number(fuzz_change *c) {
  static const char *const sizes[] = {"?", "N", "M"};
  words w = {.n = 0};
  const unsigned how = below(c, 8);
  if (how == 0)
    say(&w, "%s", ONE_OF(c, sizes));
  else if (how == 1)
    say_value(&w, c);
  else
    say_number(&w, c);
  const piece p = token_of(c, NUMBER);
  if (p.n) put(c, p, &w);
}

static void change_type(fuzz_change *c) {
  words w = {.n = 0};
  size_t at = c->size ? below(c, c->size) : 0, end;
  while (at < c->size && c->data[at] != ':') at++;
  if (at >= c->size) return;
  for (end = ++at + 1; end < c->size && !strchr(" =)\n", c->data[end]); end++) {
  }
  if (end > c->size) return;
  say(&w, " ");
  say_type(&w, c);
  put(c, (piece){at, end - at}, &w);
}

static void insert_call(fuzz_change *c) {
  words w = {.n = 0};
  say_call(&w, c);
  put(c, (piece){line_of(c).at, 0}, &w);
}

/* "%a = op %b" becomes "%a = if %c { %f = op %b yield %f } else { … }", or a loop. */
static void nest(fuzz_change *c) {
  words w = {.n = 0};
  const piece l = line_of(c);
  const char *from = (const char *)c->data + l.at, *name = some_name(c);
  size_t equals = 0;
  while (equals + 3 < l.n && memcmp(from + equals, " = ", 3)) equals++;
  if (equals + 3 >= l.n || from[l.n - 1] != '\n' || from[l.n - 2] == '{') return;
  const piece left = {l.at, equals}, right = {l.at + equals + 3, l.n - equals - 3};
  size_t head = 0; /* the name without a type, for the inner line */
  while (head < equals && from[head] != ':') head++;
  if (below(c, 3)) {
    say_piece(&w, c, left), say(&w, " = if "), say_value(&w, c), say(&w, " {\n  %s = ", name);
    say_piece(&w, c, right), say(&w, "  yield %s\n  } else {\n  yield ", name), say_value(&w, c),
        say(&w, "\n  }\n");
  } else {
    say_piece(&w, c, left), say(&w, " = loop ("), say(&w, "%s: ", some_name(c)), say_type(&w, c),
        say(&w, " = ");
    say_value(&w, c), say(&w, ") {\n  %s = ", name), say_piece(&w, c, right), say(&w, "  continue_if ");
    say_value(&w, c), say(&w, " next("), say_value(&w, c), say(&w, ") exit(%s)\n  }\n", name);
  }
  put(c, l, &w);
}

/* A line goes, moves, comes twice, or comes from another graph. */
static void change_line(fuzz_change *c) {
  uint8_t copy[400];
  const bool others = c->other_size && below(c, 2);
  const piece l = others ? line_at(c->other, c->other_size, below(c, c->other_size)) : line_of(c);
  if (l.n > sizeof copy) return;
  memcpy(copy, (others ? c->other : c->data) + l.at, l.n);
  const unsigned how = others ? 1 : below(c, 4);
  if (how != 1) (void)fuzz_splice(c, l.at, l.n, NULL, 0);
  if (how != 0) (void)fuzz_splice(c, line_of(c).at, 0, copy, l.n);
}

bool fuzz_is_graph(const void *text, size_t size) {
  static kn_context *ctx; /* not the targets', which must not see what is made here */
  kn_graph *g;
  if (!ctx) ctx = kn_context_new(NULL, NULL);
  if (kn_graph_parse(ctx, text, size, &g) != KN_OK) return false;
  kn_graph_release(g);
  return true;
}

/* Most changes of a graph that leave none are taken back, a few times. */
void fuzz_change_text(fuzz_change *c) {
  static void (*const ways[])(fuzz_change *) = {change_word, change_value, change_number, change_number,
                                                change_type, insert_call,  insert_call,   insert_call,
                                                nest,        change_line};
  if (!c->size || below(c, 24) == 0) {
    fuzz_change_bytes(c);
    return;
  }
  const size_t size = c->size;
  uint8_t *before = malloc(size);
  memcpy(before, c->data, size);
  const unsigned tries = below(c, 6) && fuzz_is_graph(before, size) ? 8 : 1;
  for (unsigned i = 0; i < tries; i++) {
    if (i) (void)fuzz_take(c, before, size);
    for (unsigned times = 1 + below(c, 3); times; times--) ONE_OF(c, ways)(c);
    if (tries > 1 && fuzz_is_graph(c->data, c->size)) break;
  }
  free(before);
}
