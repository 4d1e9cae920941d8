/* Files of strangers, through the C API: loops without end stop at a limit, sizes beyond all memory are
 * refused before any is asked for, deep nesting is refused; and after each of these all is as before. */
#include "bindings/c/handle.h"
#include "graph/writer.h"
#include "spec/exec.h"
#include "spec/kiln_file.h"
#include <stdarg.h>

enum { LIMIT = 512 << 20 };

typedef struct host {
  size_t largest; /* request so far */
  kiln_context *ctx;
} host;

static void *watching_alloc(void *ud, void *p, size_t osize, size_t nsize) {
  host *h = ud;
  (void)osize;
  if (!nsize) {
    free(p);
    return NULL;
  }
  if (nsize > h->largest) h->largest = nsize;
  return realloc(p, nsize);
}

static void start(host *h) {
  *h = (host){0};
  kiln_context_options o = {.size = sizeof o,
                            .alloc = watching_alloc,
                            .alloc_ud = h,
                            .memory_limit = LIMIT,
                            .backend = "cpu",
                            .threads = 1};
  ck_assert_int_eq(kiln_context_new(&o, &h->ctx, NULL, 0), KILN_OK);
}

static void stop(host *h) {
  kiln_context_free(h->ctx);
  ck_assert_msg(h->largest <= LIMIT, "%zu bytes were asked for at once", h->largest);
}

/* A file whose graph is this text, which need not be one: that of a small graph, replaced. */
static char *file_of(const char *text, size_t *n) {
  static const char small[] = "graph g() {\\n  return\\n}\\n";
  static const char ops[] = "\"kiln.ops\":\"\"";
  kn_context *c = suite_context();
  kn_graph *g = graph_of(c, "graph g() {\n  return\n}\n");
  OK(c, kn_file_save(c, temp_path(), &(kn_entry){.name = "g", .graph = g}, 1));
  kn_graph_release(g);
  size_t size;
  char *p = slurp(temp_path(), &size), *at;
  unlink(temp_path());
  kn_writer w = {.heap = c->heap}, all = {.heap = c->heap};
  /* every op may be used */
  at = strstr(p + 8, ops);
  ck_assert_ptr_nonnull(at);
  kn_put(&w, p + 8, (size_t)(at - p) - 8);
  kn_puts(&w, "\"kiln.ops\":\"");
  for (unsigned i = 0; i < KN_OPCODE_COUNT; i++)
    kn_putf(&w, "%s%s 1", i ? ", " : "", kn_opcode_describe((kn_opcode)i).text);
  kn_puts(&w, "\"");
  const char *rest = at + strlen(ops), *body = strstr(rest, small);
  ck_assert_ptr_nonnull(body);
  kn_put(&w, rest, (size_t)(body - rest));
  for (const char *s = text; *s; s++) {
    if (*s == '\n')
      kn_puts(&w, "\\n");
    else if (*s == '"' || *s == '\\')
      kn_putf(&w, "\\%c", *s);
    else
      kn_put(&w, s, 1);
  }
  static const char none[] = "\"[]\"";
  body += sizeof small - 1;
  const char *slots = strstr(body, none);
  ck_assert_ptr_nonnull(slots);
  kn_put(&w, body, (size_t)(slots - body));
  kn_puts(&w, "\"[");
  int nslots = 0;
  for (const char *s = text; (s = strstr(s, "\n  slot ")); s++) kn_puts(&w, nslots++ ? ",null" : "null");
  kn_puts(&w, "]\"");
  body = slots + sizeof none - 1;
  kn_put(&w, body, size - (size_t)(body - p));
  while ((w.n + 8) % 64) kn_puts(&w, " ");
  ck_assert(!w.failed);
  for (int i = 0; i < 8; i++) kn_put(&all, &(char){(char)(w.n >> 8 * i)}, 1);
  kn_put(&all, w.p, w.n);
  char *out = malloc(all.n);
  memcpy(out, all.p, all.n);
  *n = all.n;
  kn_writer_free(&w);
  kn_writer_free(&all);
  suite_done(c);
  free(p);
  sign(out, *n);
  return out;
}

static kiln_status load_text(host *h, const char *text, kiln_graph **g) {
  size_t n;
  char *p = file_of(text, &n);
  kiln_status st = kiln_graph_load_memory(h->ctx, p, n, NULL, NULL, NULL, g);
  free(p);
  return st;
}

static uint64_t blocks(const host *h) {
  kiln_memory m = {.size = sizeof m};
  kiln_context_memory(h->ctx, &m);
  return m.blocks;
}

/* ---- loops ---- */

/* Each counts its calls in a slot before it goes on for ever, or for longer than anybody waits. %n says
 * whether. */
#define ENDLESS(loop)                                                                                        \
  "graph g(%n: integer) {\n"                                                                                 \
  "  slot state \"calls\": integer = 7\n"                                                                    \
  "  %calls = load_state \"calls\"\n"                                                                        \
  "  %one = const 1\n"                                                                                       \
  "  %zero = const 0\n"                                                                                      \
  "  %more = lua.add %calls, %one\n"                                                                         \
  "  store_state \"calls\", %more\n" loop "  return %more\n}\n"

static const char *const endless[] = {
    ENDLESS("  loop () {\n"
            "    %c = lua.lt %zero, %n\n"
            "    continue_if %c next() exit()\n"
            "  }\n"),
    ENDLESS("  loop () {\n"
            "    loop () {\n"
            "      %c = lua.lt %zero, %n\n"
            "      continue_if %c next() exit()\n"
            "    }\n"
            "    %d = lua.lt %zero, %n\n"
            "    continue_if %d next() exit()\n"
            "  }\n"),
    ENDLESS("  %most = const 9223372036854775807\n"
            "  %trips = lua.mul %most, %n\n"
            "  %i: integer = loop (%k: integer = %trips) {\n"
            "    %less = lua.sub %k, %one\n"
            "    %c = lua.lt %zero, %less\n"
            "    continue_if %c next(%less) exit(%less)\n"
            "  }\n"),
    ENDLESS("  %t: float32[] = to_tensor %one\n"
            "  %y: float32[] = loop (%s: float32[] = %t) {\n"
            "    %u = add %s, %t\n"
            "    %c = lua.lt %zero, %n\n"
            "    continue_if %c next(%u) exit(%u)\n"
            "  }\n"),
    ENDLESS("  %list: list[integer] = list\n"
            "  %all: list[integer] = loop (%l: list[integer] = %list) {\n"
            "    %m = append %l, %n\n"
            "    %c = lua.lt %zero, %n\n"
            "    continue_if %c next(%m) exit(%m)\n"
            "  }\n"),
};

static int64_t calls_of(kiln_session *s) {
  kiln_value v;
  ck_assert_int_eq(kiln_session_get_slot(s, 0, &v), KILN_OK);
  return v.i;
}

START_TEST(endless_loops) {
  host h;
  start(&h);
  for (size_t i = 0; i < COUNT(endless); i++) {
    kiln_graph *g;
    kiln_session *s;
    int64_t more;
    ck_assert_msg(load_text(&h, endless[i], &g) == KILN_OK, "case %zu: %s", i, kiln_error(h.ctx));
    ck_assert_int_eq(kiln_session_new(h.ctx, g, &s), KILN_OK);
    for (int again = 0; again < 2; again++) {
      kiln_session_set_step_limit(s, 5000);
      ck_assert_int_eq(kiln_session_set_integer(s, "n", 1), KILN_OK);
      ck_assert_msg(kiln_session_run(s) == KILN_LIMIT, "case %zu: %s", i, kiln_session_error(s));
      ck_assert_int_eq(calls_of(s), 7 + again);
      ck_assert_int_eq(kiln_session_get_integer(s, "1", &more),
                       KILN_STATE); /* no outputs of a run that failed */
      kiln_session_cancel(s);
      kiln_session_set_step_limit(s, 0);
      ck_assert_int_eq(kiln_session_run(s), KILN_CANCELLED);
      ck_assert_int_eq(calls_of(s), 7 + again);
      ck_assert_int_eq(kiln_session_set_integer(s, "n", 0), KILN_OK);
      ck_assert_msg(kiln_session_run(s) == KILN_OK, "case %zu: %s", i, kiln_session_error(s));
      ck_assert_int_eq(kiln_session_get_integer(s, "1", &more), KILN_OK);
      ck_assert_int_eq(more, 8 + again);
    }
    kiln_session_free(s);
    kiln_graph_release(g);
  }
  stop(&h);
}
END_TEST

/* ---- sizes ---- */

static const struct {
  const char *text;
  kiln_status load, run; /* run: where it can be loaded */
} huge[] = {
    {"graph g() {\n  slot param \"w\": float32[4611686018427387904,4]\n  %w = param \"w\"\n  return %w\n}\n",
     KILN_FORMAT, 0},
    {"graph g() {\n  slot param \"w\": float32[100000000000]\n  %w = param \"w\"\n  return %w\n}\n",
     KILN_FORMAT, 0},
    {"graph g() {\n  slot const \"w\": float32[100000000000] = {1.0}\n  return\n}\n", KILN_FORMAT, 0},
    {"graph g() {\n  slot const \"w\": float32[0,4611686018427387904,8] = {}\n  return\n}\n", KILN_FORMAT, 0},
    {"graph g(%x: float32[9223372036854775807,9223372036854775807]) {\n  return %x\n}\n", KILN_FORMAT, 0},
    {"graph g() {\n  %z = full {sizes = {100000000000}, value = 0.0}\n  return %z\n}\n", KILN_OK, KILN_NOMEM},
    {"graph g() {\n  %z = full {sizes = {4294967296, 4294967296}, value = 0.0}\n  return %z\n}\n",
     KILN_FORMAT, 0},
    {"graph g(%n: integer) {\n  %z = full {sizes = {%n, %n, %n}, value = 0.0}\n  return %z\n}\n", KILN_OK,
     KILN_SHAPE},
    {"graph g(%n: integer) {\n  %z = full {sizes = {%n}, value = 1.0}\n  return %z\n}\n", KILN_OK,
     KILN_NOMEM},
    {"graph g(%n: integer) {\n  %z = arange {end = %n}\n  return %z\n}\n", KILN_OK, KILN_NOMEM},
    {"graph g(%n: integer) {\n  %z = eye {n = %n}\n  return %z\n}\n", KILN_OK, KILN_SHAPE},
    {"graph g(%n: integer) {\n  %z = randperm {n = %n}\n  return %z\n}\n", KILN_OK, KILN_NOMEM},
    {"graph g(%n: integer) {\n  %a: float32[] = to_tensor %n\n  %z = expand %a {sizes = {%n, %n}}\n"
     "  %s = add %z, %z\n  return %s\n}\n",
     KILN_OK, KILN_SHAPE},
    {"graph g(%n: integer) {\n  %a: int64[] = to_tensor %n\n  %i = reshape %a {sizes = {1}}\n"
     "  %z = bincount %i\n  return %z\n}\n",
     KILN_OK, KILN_INDEX},
    {"graph g(%n: integer) {\n  %a: float32[] = to_tensor %n\n  %i = reshape %a {sizes = {1, 1}}\n"
     "  %z = constant_pad %i {pad = {%n, %n}}\n  return %z\n}\n",
     KILN_OK, 0},
    {"graph g(%n: integer) {\n  %z = full {sizes = {0, %n}, value = 0.0}\n  %s = sum %z {dim = {1}}\n  "
     "return %s\n}\n",
     KILN_OK, KILN_NOMEM},
};

START_TEST(huge_sizes) {
  host h;
  start(&h);
  const uint64_t before = blocks(&h);
  for (size_t i = 0; i < COUNT(huge); i++) {
    kiln_graph *g;
    kiln_session *s;
    kiln_status st = load_text(&h, huge[i].text, &g);
    ck_assert_msg(st == huge[i].load, "case %zu: %s: %s", i, kiln_status_text(st), kiln_error(h.ctx));
    if (st == KILN_OK) {
      ck_assert_int_eq(kiln_session_new(h.ctx, g, &s), KILN_OK);
      if (kiln_graph_input_count(g))
        ck_assert_int_eq(kiln_session_set_integer(s, "n", 400000000000), KILN_OK);
      st = kiln_session_run(s);
      ck_assert_msg(huge[i].run ? st == huge[i].run : st != KILN_OK, "case %zu: %s: %s", i,
                    kiln_status_text(st), kiln_session_error(s));
      kiln_session_free(s);
      kiln_graph_release(g);
    }
    ck_assert_msg(blocks(&h) == before || huge[i].load == KILN_OK, "case %zu", i);
    ck_assert_msg(h.largest <= 1 << 20, "case %zu: %zu bytes were asked for", i, h.largest);
  }
  stop(&h);
}
END_TEST

/* ---- depth and counts ---- */

typedef struct text {
  char *p;
  size_t n, room;
} text;

static void put(text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(text *t, const char *fmt, ...) {
  va_list ap;
  if (t->room - t->n < 400) t->p = realloc(t->p, t->room = t->room * 2 + 1000);
  va_start(ap, fmt);
  t->n += (size_t)vsnprintf(t->p + t->n, t->room - t->n, fmt, ap);
  va_end(ap);
}

static void regions(text *t, int depth) {
  put(t, "graph g(%%c: boolean) {\n");
  for (int i = 0; i < depth; i++) put(t, "if %%c {\n");
  for (int i = 0; i < depth; i++) put(t, "} else {\n}\n");
  put(t, "return\n}\n");
}

static void loops(text *t, int depth) {
  put(t, "graph g(%%c: boolean) {\n");
  for (int i = 0; i < depth; i++) put(t, "loop () {\n");
  for (int i = 0; i < depth; i++) put(t, "continue_if %%c next() exit()\n}\n");
  put(t, "return\n}\n");
}

static void results(text *t, int depth) {
  put(t, "graph g() {\nreturn ");
  for (int i = 0; i < depth; i++) put(t, "{");
  for (int i = 0; i < depth; i++) put(t, "}");
  put(t, "\n}\n");
}

static void choices(text *t, int depth) {
  put(t, "graph g(%%i: integer) {\nreturn ");
  for (int i = 0; i < depth; i++) put(t, "one_of{%%i, nil, ");
  put(t, "nil");
  for (int i = 0; i < depth; i++) put(t, "}");
  put(t, "\n}\n");
}

static void arguments(text *t, int depth) {
  put(t, "graph g(");
  for (int i = 0; i < depth; i++) put(t, "{a = ");
  put(t, "nil");
  for (int i = 0; i < depth; i++) put(t, "}");
  put(t, ") {\nreturn\n}\n");
}

static void list_types(text *t, int depth) {
  put(t, "graph g() {\n%%l: ");
  for (int i = 0; i < depth; i++) put(t, "list[");
  put(t, "integer");
  for (int i = 0; i < depth; i++) put(t, "]");
  put(t, " = list\nreturn\n}\n");
}

static void nodes(text *t, int count) {
  put(t, "graph g() {\n");
  for (int i = 0; i < count; i++) put(t, "%%%d = const 1\n", i + 1);
  put(t, "return\n}\n");
}

static void symbols(text *t, int count) {
  put(t, "graph g(");
  for (int i = 0; i < count; i++) put(t, "%s%%x%d: float32[N%d]", i ? ", " : "", i, i);
  put(t, ") {\nreturn\n}\n");
}

static void leaves(text *t, int count) {
  put(t, "graph g() {\nreturn {");
  for (int i = 0; i < count; i++) put(t, "1,");
  put(t, "1}\n}\n");
}

/* A chain of what each needs the one before, which recursion over values would drown in. */
static void chain(text *t, int count) {
  put(t, "graph g(%%0: integer) {\n");
  for (int i = 0; i < count; i++) put(t, "%%%d = lua.add %%%d, %%%d\n", i + 1, i, i);
  put(t, "return %%%d\n}\n", count);
}

/* The same of tensors, of views of views, of lists. */
static void tensors(text *t, int count) {
  put(t, "graph g(%%0: float32[2]) {\n");
  for (int i = 0; i < count; i++) put(t, "%%%d = %s %%%d\n", i + 1, i % 3 ? "neg" : "exp", i);
  put(t, "return %%%d\n}\n", count);
}

static void views(text *t, int count) {
  put(t, "graph g(%%0: float32[2]) {\n");
  for (int i = 0; i < count; i++)
    put(t, "%%%d = reshape %%%d {sizes = {%s}}\n", i + 1, i, i % 2 ? "2" : "1, 2");
  put(t, "return %%%d\n}\n", count);
}

static void lists(text *t, int count) {
  put(t, "graph g(%%x: integer) {\n%%0: list[integer] = list\n");
  for (int i = 0; i < count; i++) put(t, "%%%d = append %%%d, %%x\n", i + 1, i);
  put(t, "%%n = length %%%d\nreturn %%n\n}\n", count);
}

static const struct {
  void (*make)(text *t, int n);
  int fine, many;
  kiln_status st; /* of many */
} nested[] = {
    {regions, 200, 201, KILN_FORMAT},     {regions, 100, 30000, KILN_FORMAT},
    {loops, 200, 201, KILN_FORMAT},       {loops, 100, 30000, KILN_FORMAT},
    {results, 100, 102, KILN_FORMAT},     {results, 50, 30000, KILN_FORMAT},
    {choices, 99, 102, KILN_FORMAT},      {choices, 50, 30000, KILN_FORMAT},
    {arguments, 99, 102, KILN_FORMAT},    {arguments, 50, 30000, KILN_FORMAT},
    {list_types, 10, 20, KILN_FORMAT},    {list_types, 10, 30000, KILN_FORMAT},
    {nodes, 1000, 200001, KILN_LIMIT},    {symbols, 256, 257, KILN_FORMAT},
    {leaves, 1000, 100001, KILN_FORMAT},  {chain, 20000, 200001, KILN_LIMIT},
    {tensors, 20000, 200001, KILN_LIMIT}, {views, 2000, 200001, KILN_LIMIT},
    {lists, 20000, 200001, KILN_LIMIT},
};

START_TEST(deep_and_many) {
  host h;
  start(&h);
  const uint64_t before = blocks(&h);
  for (size_t i = 0; i < COUNT(nested); i++)
    for (int many = 0; many < 2; many++) {
      text t = {NULL};
      kiln_graph *g = NULL;
      nested[i].make(&t, many ? nested[i].many : nested[i].fine);
      kiln_status st = load_text(&h, t.p, &g);
      free(t.p);
      ck_assert_msg(many ? st == nested[i].st || st == KILN_LIMIT : st == KILN_OK, "case %zu, %d: %s: %s", i,
                    many ? nested[i].many : nested[i].fine, kiln_status_text(st), kiln_error(h.ctx));
      kiln_graph_release(st == KILN_OK ? g : NULL);
      ck_assert_uint_eq(blocks(&h), before);
    }
  stop(&h);
}
END_TEST

/* What may be as deep as it may be also runs. */
START_TEST(as_deep_as_may_be) {
  void (*const makes[])(text * t, int n) = {regions, loops, chain, lists, tensors, views};
  host h;
  start(&h);
  for (size_t i = 0; i < COUNT(makes); i++) {
    text t = {NULL};
    kiln_graph *g;
    kiln_session *s;
    makes[i](&t, i < 2 ? 200 : i == 5 ? 2000 : 20000);
    ck_assert_int_eq(load_text(&h, t.p, &g), KILN_OK);
    free(t.p);
    ck_assert_int_eq(kiln_session_new(h.ctx, g, &s), KILN_OK);
    for (int c = 0; c < (i == 0 ? 2 : 1); c++) {
      kiln_value v = {.kind = i < 2 ? KILN_BOOLEAN : i < 4 ? KILN_INTEGER : KILN_TENSOR, .b = c, .i = 1};
      if (i >= 4)
        ck_assert_int_eq(kiln_tensor_new(h.ctx, KILN_FLOAT32, 1, (int64_t[]){2}, NULL, &v.tensor), KILN_OK);
      ck_assert_int_eq(kiln_session_set(s, 0, &v), KILN_OK);
      kiln_value_clear(&v);
      ck_assert_msg(kiln_session_run(s) == KILN_OK, "case %zu: %s", i, kiln_session_error(s));
    }
    kiln_session_free(s);
    kiln_graph_release(g);
  }
  stop(&h);
}
END_TEST

SUITE("hostile_files", endless_loops, huge_sizes, deep_and_many, as_deep_as_may_be)
