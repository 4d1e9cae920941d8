/* The text form: cases in spec/text/, errors with line and column, random graphs, mutated texts, passes. */
#include "spec/suite.h"
#include "spec/gen.h"
#include "spec/mutate.h"
#include "spec/text_graph.h"
#include "backends/ref/ref.h"
#include "graph/exec.h"
#include "graph/folding.h"
#include "graph/pipeline.h"
#include "graph/text.h"
#include "graph/verify.h"
#include <dirent.h>
#include <math.h>

static char *print_graph(kn_context *c, const kn_graph *g, size_t *len) {
  char *text;
  OK(c, kn_graph_print(c, g, KN_TEXT_FULL, &text, len));
  ck_assert_uint_eq(strlen(text), *len);
  return text;
}

/* A listing can be made of any graph, and names its results. */
static void list_code(kn_context *c, const kn_graph *g) {
  char *text;
  size_t n;
  OK(c, kn_graph_code(c, g, &text, &n));
  ck_assert_uint_eq(strlen(text), n);
  ck_assert(strstr(text, "\nfunction ") || !strncmp(text, "function ", 9));
  ck_assert(n > 4 && !strcmp(text + n - 4, "end\n"));
  kn_free(c->heap, text, n + 1);
}

/* Printed, parsed, printed: the same bytes. Returns the text's length. */
static size_t round_trip(kn_context *c, const kn_graph *g) {
  size_t n, m;
  char *a = print_graph(c, g, &n), *b;
  kn_graph *back;
  kn_status st = kn_graph_parse(c, a, n, &back);
  ck_assert_msg(st == KN_OK, "%s\n%s", kn_error(c), a);
  b = print_graph(c, back, &m);
  ck_assert_str_eq(a, b);
  list_code(c, back);
  kn_graph_release(back);
  kn_free(c->heap, a, n + 1);
  kn_free(c->heap, b, m + 1);
  return n;
}

/* ---- files of spec/text: comment lines, of which `; passes: a b` names passes to run; a graph; and, after a
 * line of dashes, the text it must become (without one: its own) ---- */

static char *read_file(const char *path, size_t *len) {
  FILE *f = fopen(path, "rb");
  ck_assert_msg(f != NULL, "%s cannot be read", path);
  fseek(f, 0, SEEK_END);
  *len = (size_t)ftell(f);
  rewind(f);
  char *text = malloc(*len + 1);
  ck_assert_uint_eq(fread(text, 1, *len, f), *len);
  text[*len] = 0;
  fclose(f);
  return text;
}

static const char *after_comments(const char *text) {
  while (*text == ';') text += strcspn(text, "\n") + 1;
  return text;
}

static void run_passes(kn_context *c, kn_graph *g, const char *names) {
  static const kn_pass *const all[] = {
      &kn_folding_affine.pass, &kn_pass_constants,    &kn_pass_cse,
      &kn_pass_cse_all,        &kn_pass_dce,          &kn_pass_fold,
      &kn_pass_hoist,          &kn_pass_hoist_all,    &kn_pass_origins,
      &kn_pass_recompute,      &kn_pass_unroll,       &kn_pass_history,
      &kn_pass_simplify,       &kn_pass_simplify_all, &kn_folding_simplify.pass};
  kn_builder b;
  g->finished = false;
  kn_builder_init(&b, c, g);
  for (const char *end = names + strcspn(names, "\n"); names < end;) {
    size_t n = strcspn(names, " \n");
    const kn_pass *pass = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
      if (n == strlen(all[i]->name) && !strncmp(all[i]->name, names, n)) pass = all[i];
    ck_assert_msg(!n || pass, "there is no pass %.*s", (int)n, names);
    uint32_t changes;
    if (pass) OK(c, kn_pass_run(&b, pass, &changes));
    names += n + 1;
  }
  OK(c, kn_graph_finish(&b));
}

static void note_opcodes(const kn_region *r, bool *met) {
  KN_EACH_NODE (n, r) {
    met[n->op] = true;
    for (int i = 0; i < n->nregions; i++) note_opcodes(n->regions[i], met);
  }
}

static void run_case(const char *path, const char *name, bool *met) {
  kn_context *c = suite_context();
  size_t len, n;
  char *file = read_file(path, &len);
  const char *mark = "; passes:";
  ck_assert_msg(!strncmp(file, mark, strlen(mark)), "%s does not start with %s", name, mark);
  const char *text = after_comments(file), *dashes = strstr(text, "\n----");
  size_t in_len = dashes ? (size_t)(dashes + 1 - text) : strlen(text);
  const char *want = dashes ? dashes + 1 + strcspn(dashes + 1, "\n") + 1 : text;
  kn_graph *g;
  kn_status st = kn_graph_parse(c, text, in_len, &g);
  ck_assert_msg(st == KN_OK, "%s: %s", name, kn_error(c));
  run_passes(c, g, file + strlen(mark) + strspn(file + strlen(mark), " "));
  char *got = print_graph(c, g, &n);
  if (strcmp(got, want)) { /* too long for Check's messages */
    fprintf(stderr, "%s: instead of\n%s----\n%s", name, want, got);
    ck_abort_msg("%s became something else", name);
  }
  round_trip(c, g);
  note_opcodes(g->body, met);
  kn_free(c->heap, got, n + 1);
  kn_graph_release(g);
  free(file);
  suite_done(c);
}

START_TEST(cases) {
  const char *root = getenv("KILN_SOURCE");
  char folder[512], path[1024];
  snprintf(folder, sizeof folder, "%s/spec/text", root ? root : ".");
  DIR *d = opendir(folder);
  ck_assert_msg(d != NULL, "%s cannot be read", folder);
  int n = 0;
  bool met[KN_OPCODE_COUNT] = {0};
  for (struct dirent *e; (e = readdir(d));) {
    const char *dot = strrchr(e->d_name, '.');
    if (!dot || strcmp(dot, ".kir")) continue;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    run_case(path, e->d_name, met);
    n++;
  }
  closedir(d);
  ck_assert_int_ge(n, 12);
  for (unsigned i = KN_OP_COUNT; i < KN_OPCODE_COUNT; i++)
    ck_assert_msg(met[i], "no text in spec/text has the node %s", kn_opcode_describe((kn_opcode)i).text);
}
END_TEST

/* ---- every op ---- */

/* False where the op does not take the inputs. */
static bool op_reads_back(kn_context *c, const gen_case *given) {
  kn_graph *g;
  kn_builder b;
  kn_value *in[GEN_MAX_IN];
  OK(c, kn_graph_new(c, "op", &g));
  kn_builder_init(&b, c, g);
  for (int i = 0; i < given->n; i++) {
    kn_tensor *t;
    OK(c, gen_make(c, given, i, KN_F32, &t));
    in[i] = kn_add_input(&b, NULL, &(kn_vtype){.kind = KN_V_TENSOR, .tensor = t->type});
    kn_tensor_release(t);
  }
  kn_node *n = kn_add_op(&b, given->op, &given->attrs, in, (uint32_t)given->n, NULL, 0);
  if (!n) return kn_graph_release(g), false;
  kn_tree trees[KN_MAX_OUTPUTS];
  for (uint32_t i = 0; i < n->nout; i++) trees[i] = (kn_tree){.kind = KN_TREE_VALUE, .value = n->out[i]};
  ck_assert(kn_set_results(&b, n->out, n->nout, trees, n->nout));
  OK(c, kn_graph_finish(&b));
  round_trip(c, g);
  kn_graph_release(g);
  return true;
}

START_TEST(every_op_reads_back) {
  unsigned n = 0;
  bool met[KN_OP_COUNT] = {0};
  gen_case made;
  kn_context *c = suite_context();
  for (int i = 0; i < GEN_CASES; i++)
    if (!kn_ops[gen_cases[i].op].composite && !(kn_ops[gen_cases[i].op].flags & KN_FLAG_WRITES))
      ck_assert_msg(met[gen_cases[i].op] = op_reads_back(c, &gen_cases[i]), "%s", kn_error(c));
  for (int op = 0; op < KN_OP_COUNT; op++) {
    if (!met[op] && gen_default((kn_op)op, &made)) met[op] = op_reads_back(c, &made);
    n += met[op];
  }
  ck_assert_msg(n > 100, "%u ops", n);
  suite_done(c);
}
END_TEST

/* ---- bad texts ---- */

#define G "graph g(%x: float32[2,3], %n: integer, %c: boolean) {\n"
static const struct {
  const char *text, *want;
} bad[] = {
    {"", "1:1: a graph starts with"},
    {"grap", "1:1: a graph starts with"},
    {"graph", "1:6: a name is missing"},
    {"graph g", "1:8: '(' is missing"},
    {"graph g(%x) {\n return\n}\n", "1:9: an argument needs its type"},
    {"graph g(%x: float32[2], %x: float) {\n return\n}\n", "1:25: %x is defined twice"},
    {"graph g(%x: float17[2]) {\n return\n}\n", "1:13: a type is missing"},
    {"graph g(%x: float32[1,2,3,4,5,6,7,8,9]) {\n return\n}\n", "1:37: a tensor has at most 8"},
    {"graph g(%x: float32[99999999999999999999]) {\n return\n}\n", "1:21: an integer is missing"},
    {"graph g(%x: float32[9999999999,9999999999]) {\n return %x\n}\n", "too large"},
    {"graph g(%x: float32[2]@moon) {\n return\n}\n", "1:24: this is no device"},
    {G " return %y\n}\n", "2:9: this value is not defined"},
    {G " return %x\n}\nx", "4:1: the text goes on"},
    {G " return %x", "2:11: '}' is missing"},
    {G "", "2:1: the text ends before"},
    {G " %y = nosuch %x\n return\n}\n", "2:7: there is no op or node 'nosuch'"},
    {G " %y = relu %z\n return\n}\n", "2:12: %z is not defined before"},
    {G " relu %x\n return\n}\n", "2:2: relu gives 1 results, the line names 0"},
    {G " %y, %z = relu %x\n return\n}\n", "2:2: relu gives 1 results, the line names 2"},
    {G " %y: float32[2] = relu %x\n return\n}\n",
     "2:2: this result is declared float32[2] but is float32[2,3]"},
    {G " %y = relu %n\n return\n}\n", "2:2: relu: a tensor is needed (got integer)"},
    {G " %y = matmul %x, %x\n return\n}\n", "2:2: matmul"},
    {G " %y = relu %x {dim = 1}\n return\n}\n", "2:16: relu has no attribute of this name"},
    {G " %y = sum %x {dim = {0}}\n return\n}\n", "2:22: dim counts from 1"},
    {G " %y = sum %x {dim = {1}, dim = {2}}\n return\n}\n", "2:26: dim is given twice"},
    {G " %y = sum %x {keepdim = 1}\n return\n}\n", "2:25: true or false"},
    {G " %y = sum %x {dim = {1,2,1,2,1,2,1,2,1}}\n return\n}\n", "at most 8 places"},
    {G " %y = sum %x {dim = {%n}}\n return\n}\n", "2:22: an integer is missing"},
    {G " %y = softmax %x\n return\n}\n", "2:2: softmax: attribute dim is missing"},
    {G " %y = softmax %x {dim = 7}\n return\n}\n", "2:2: softmax"},
    {G " %y = reshape %x {sizes = {%c}}\n return\n}\n", "2:28: an integer is missing"},
    {G " %y = reshape %x {sizes = {-9223372036854775807}}\n return\n}\n",
     "2:28: this integer is out of range"},
    {G " %y = cast %x {dtype = \"float17\"}\n return\n}\n", "2:24: this is no dtype"},
    {G " %y = linear %x, %x\n return\n}\n", "linear"},
    {G " %y = copy_ %x, %x\n return\n}\n", "not allowed"},
    {G " %y = const\n return\n}\n", "2:12: a number, true or false"},
    {G " %y = const 99999999999999999999\n return\n}\n", "2:13: this integer is too large"},
    {G " %y = const 1.5.5\n return\n}\n", "2:13: a number"},
    {G " %y = const 1 2\n return\n}\n", "2:15: the line should end"},
    {G " %y = undef\n return\n}\n", "2:2: undef needs one result with its type"},
    {G " %y: float = undef %x\n return\n}\n", "2:2: undef takes nothing"},
    {G " %y = size %x {dim = 3}\n return\n}\n", "no such dimension"},
    {G " %y = size %x\n return\n}\n", "'{' is missing"},
    {G " %y = item %x\n return\n}\n", "2:2: item: a tensor of one element"},
    {G " %y = lua.add %x, %n\n return\n}\n", "2:2: lua.add: cannot take"},
    {G " %y = lua.add %n\n return\n}\n", "2:2: lua.add takes 2 values"},
    {G " %y = choose %n, %n, %n\n return\n}\n", "boolean"},
    {G " assert %n \"m\"\n return\n}\n", "2:2: assert: a boolean is needed"},
    {G " assert \"m\"\n return\n}\n", "2:2: assert: a boolean is needed"},
    {G " raise \"m\n return\n}\n", "2:8: this string does not end"},
    {G " raise \"\\x\"\n return\n}\n", "2:9: this escape"},
    {G " raise \"\\999\"\n return\n}\n", "2:9: this escape"},
    {G " raise \"\\000\"\n return\n}\n", "2:9: this escape"},
    {G " raise \"m", "2:8: this string does not end"},
    {G " %y = param \"w\"\n return\n}\n", "2:13: there is no slot"},
    {G " slot what \"w\": float\n return\n}\n", "2:7: a slot is param, state or const"},
    {G " slot param \"w\": float32[N]\n return\n}\n", "2:13: the sizes of a slot"},
    {G " slot param \"w\": float\n slot param \"w\": float\n return\n}\n",
     "3:13: there is a slot of this name"},
    {G " slot param \"w\": float = true\n return\n}\n", "2:26: this is not a value"},
    {G " slot param \"w\": float32[1] = {1}\n return\n}\n", "only constants"},
    {G " slot const \"w\": float32[65] = {1}\n return\n}\n", "only constants"},
    {G " slot const \"w\": float32[2] = {1}\n return\n}\n", "',' is missing"},
    {G " slot const \"w\": float32[1] = {1, 2}\n return\n}\n", "'}' is missing"},
    {G " slot const \"w\": bool[1] = {1}\n return\n}\n", "true or false"},
    {G " slot const \"w\": int64[1] = {1.0}\n return\n}\n", "an integer is missing"},
    {G " slot param \"w\": float\n %y = tensor \"w\"\n return\n}\n", "slot w is of kind param"},
    {G " slot param \"w\": float\n store_state \"w\", %n\n return\n}\n",
     "'w' is float and would become integer"},
    {G " guard a = 1\n return\n}\n", "2:10: a quoted string"},
    {G " if %n {\n } else {\n }\n return\n}\n", "2:2: if takes a boolean"},
    {G " if %c {\n }\n return\n}\n", "4:2: else is missing"},
    {G " %y = if %c {\n yield %x\n } else {\n }\n return\n}\n",
     "2:2: this if has 1 results, but a region yields 0"},
    {G " %y = if %c {\n yield %x\n } else {\n yield %n\n }\n return\n}\n",
     "2:2: a value is float32[2,3] on one path and integer on the other"},
    {"graph g(%x: float32[2,3], %y: float32[2,3]@cuda, %f: boolean) {\n %h = if %f {\n yield %x\n } else {\n "
     "yield %y\n }\n return %h\n}\n",
     "2:2: a value is float32[2,3] on one path and float32[2,3]@cuda on the other"},
    {G " %y: float = if %c {\n yield %n\n } else {\n yield %n\n }\n return\n}\n",
     "2:2: this result is declared float but is number"},
    {G " if %c {\n %z = relu %x\n } else {\n }\n return %z\n}\n", "not defined"},
    {G " if %c {\n %z = relu %x\n } else {\n %y = relu %z\n }\n return\n}\n", "not defined where it is used"},
    {G " loop (%t = %x) {\n }\n return\n}\n", "3:2: a loop ends with continue_if"},
    {G " loop (%t = %x) {\n continue_if %c next() exit()\n }\n return\n}\n",
     "this loop has 1 values and 0 results"},
    {G " loop (%t = %x) {\n continue_if %n next(%x) exit()\n }\n return\n}\n", "continue flag"},
    {G " loop (%t = %x) {\n continue_if %c next(%n) exit()\n }\n return\n}\n",
     "float32[2,3] before the loop and integer after"},
    {G " yield %x\n return\n}\n", "2:2: the graph should end with return"},
    {G " return {%x, [1.5] = %x}\n}\n", "2:14: a key is an integer or a string"},
    {G " return &0{}\n}\n", "2:10: this is no number of a table"},
    {G " return %7x\n}\n", "2:10: this is no name"},
    {G " return %\n}\n", "2:9: a value needs a name"},
    {G " return %.a\n}\n", "2:10: this is no name"},
};

START_TEST(errors_say_where) {
  kn_context *c = suite_context();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t n = strlen(bad[i].text);
    char *exact = malloc(n ? n : 1); /* no zero at the end: nothing may be read past it */
    memcpy(exact, bad[i].text, n);
    kn_graph *g;
    kn_status st = kn_graph_parse(c, exact, n, &g);
    ck_assert_msg(st == KN_FORMAT, "%s: %s", bad[i].text, kn_status_text(st));
    ck_assert_msg(strstr(kn_error(c), bad[i].want) != NULL, "no \"%s\" in \"%s\" for\n%s", bad[i].want,
                  kn_error(c), bad[i].text);
    free(exact);
  }
  suite_done(c);
}
END_TEST

START_TEST(short_forms_are_read) {
  kn_context *c = suite_context();
  const char *text = "graph g(\n %x: float32[2,3], ; the input\n %c: boolean,) {\n return %x }";
  kn_graph *g;
  FAILS(c, KN_FORMAT, "3:14", kn_graph_parse(c, text, strlen(text), &g));
  text = "graph g(\n %x: float32[2,3], ; the input\n %c: boolean\n) {\r\n\n %y = conv2d %z.1, %z.1 \n return "
         "%x }";
  FAILS(c, KN_FORMAT, "%z.1 is not defined", kn_graph_parse(c, text, strlen(text), &g));
  text = "graph g(\n %x: float32[2,3], ; the input\n %c: boolean\n) { ; not a place\r\n\n %y = sum %x {\n  "
         "dim = { -1 }\n }\n %z = if %c {\n"
         "yield %y } else { ; c.lua:4\n yield %y }\n return %x, { a = %z }, }";
  FAILS(c, KN_FORMAT, "12:", kn_graph_parse(c, text, strlen(text), &g));
  text = "graph g(\n %x: float32[2,3], ; the input\n %c: boolean\n) { ; not a place\r\n\n %y = sum %x {\n  "
         "dim = { -1 }\n }\n %z = if %c {\n"
         "yield %y } else { ; c.lua:4\n yield %y }\n return %x, { a = %z } }";
  OK(c, kn_graph_parse(c, text, strlen(text), &g));
  size_t n;
  char *out = print_graph(c, g, &n);
  ck_assert_str_eq(out, "graph g(%x: float32[2,3], %c: boolean) {\n  %y: float32[2] = sum %x {dim = {-1}}\n  "
                        "%z: float32[2] = if %c {\n"
                        "    yield %y\n  } else {\n    yield %y\n  }\n  return %x, {a = %z}\n}\n");
  kn_free(c->heap, out, n + 1);
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

static kn_status parse_repeated(kn_context *c, const char *head, const char *part, int times,
                                const char *tail) {
  size_t h = strlen(head), n = strlen(part), t = strlen(tail), len = h + n * (size_t)times + t;
  char *text = malloc(len);
  memcpy(text, head, h);
  for (int i = 0; i < times; i++) memcpy(text + h + n * (size_t)i, part, n);
  memcpy(text + len - t, tail, t);
  kn_graph *g = NULL;
  kn_status st = kn_graph_parse(c, text, len, &g);
  if (st == KN_OK) kn_graph_release(g);
  free(text);
  return st;
}

START_TEST(limits) {
  kn_context *c = suite_context();
  FAILS(c, KN_FORMAT, "nested more than 200 deep", parse_repeated(c, G, "if %c {\n", 100000, ""));
  FAILS(c, KN_FORMAT, "nested more than 100 deep", parse_repeated(c, G " return ", "{", 100000, ""));
  FAILS(c, KN_LIMIT, "more than 200000 nodes", parse_repeated(c, G, "raise \"\"\n", 300000, " return\n}\n"));
  FAILS(c, KN_FORMAT, "more than 100000 parts", parse_repeated(c, G " return {", "1,", 200000, "1}\n}\n"));
  FAILS(c, KN_FORMAT, "more than 524288 values",
        parse_repeated(c, G, "%a,", 600000, "%b = relu %x\n return\n}\n"));
  OK(c, parse_repeated(c, G " ; ", "a.lua:1 <- ", 100000, "\n return\n}\n"));
  OK(c, parse_repeated(c, G "assert %c \"\" ; ", "a.lua:1 <- ", 199, "a.lua:1\n return\n}\n"));
  OK(c, parse_repeated(c, G "assert %c \"\" ; ", "a.lua:1 <- ", 100000, "a.lua:1\n return\n}\n"));
  FAILS(c, KN_LIMIT, "at most", kn_graph_parse(c, "", (size_t)65 << 20, &(kn_graph *){NULL}));
  suite_done(c);
}
END_TEST

/* ---- random graphs ---- */

START_TEST(random_graphs_round_trip) {
  for (unsigned seed = 1; seed <= 300; seed++) {
    kn_context *c = suite_context();
    kn_graph *g = random_graph(c, seed);
    round_trip(c, g);
    kn_builder b;
    g->finished = false;
    kn_builder_init(&b, c, g);
    OK(c, kn_pipeline_run(&b, KN_PIPELINE_CAPTURE));
    OK(c, kn_graph_finish(&b));
    OK(c, kn_graph_verify(c, g, true));
    round_trip(c, g);
    uint32_t again;
    g->finished = false;
    kn_builder_init(&b, c, g);
    OK(c, kn_pass_run(&b, &kn_pass_dce, &again));
    ck_assert_msg(again == 0, "seed %u: dce is not done after the pipeline", seed);
    kn_graph_release(g);
    suite_done(c);
  }
}
END_TEST

START_TEST(mutated_texts_are_survived) {
  static const char *const pieces[] = {"%",
                                       "{",
                                       "}",
                                       "(",
                                       ")",
                                       ",",
                                       "\n",
                                       "=",
                                       ":",
                                       "\"",
                                       "\\",
                                       "if %x {",
                                       "yield",
                                       "loop",
                                       "next(",
                                       "-",
                                       "1",
                                       "0",
                                       "$",
                                       "[",
                                       "]",
                                       "?",
                                       "nan",
                                       "const ",
                                       "slot ",
                                       "9223372036854775807",
                                       "-9223372036854775808",
                                       "&1{",
                                       "@cuda",
                                       "@cuda:7",
                                       "@",
                                       "; a:1 <- b:2",
                                       "sum ",
                                       "dim = ",
                                       "\xff",
                                       "\xc3\xa9"};
  unsigned good = 0;
  random_state r = {99};
  for (unsigned seed = 1; seed <= 40; seed++) {
    kn_context *c = suite_context();
    kn_graph *g = random_graph(c, seed), *back;
    size_t n;
    char *text = print_graph(c, g, &n);
    for (int k = 0; k < 100; k++) {
      char *m = malloc(n + 64);
      memcpy(m, text, n);
      size_t len = n;
      for (unsigned times = 1 + random_below(&r, 2); times && len > 16; times--) {
        size_t at = random_below(&r, (unsigned)len - 12), cut = 1 + random_below(&r, 8);
        const char *piece = pieces[random_below(&r, sizeof pieces / sizeof *pieces)];
        size_t p = strlen(piece);
        switch (random_below(&r, 5)) {
        case 0: m[at] = (char)random_below(&r, 256); break;
        case 1: memmove(m + at, m + at + cut, len - at - cut), len -= cut; break;
        case 2: memmove(m + at + p, m + at, len - at), memcpy(m + at, piece, p), len += p; break;
        case 3: memcpy(m + at, text + random_below(&r, (unsigned)n - 8), cut); break;
        case 4: len = at; break;
        }
      }
      char *exact = malloc(len);
      memcpy(exact, m, len);
      kn_status st = kn_graph_parse(c, exact, len, &back);
      free(exact);
      free(m);
      if (st == KN_OK) {
        good++;
        OK(c, kn_graph_verify(c, back, true));
        round_trip(c, back);
        kn_graph_release(back);
      } else
        ck_assert_msg((st == KN_FORMAT || st == KN_LIMIT) && *kn_error(c), "status %s: %s",
                      kn_status_text(st), kn_error(c));
    }
    kn_free(c->heap, text, n + 1);
    kn_graph_release(g);
    suite_done(c);
  }
  ck_assert_msg(good > 100 && good < 3000,
                "%u of 4000 texts were good: the mutations are too weak or too strong", good);
}
END_TEST

/* ---- what the verifier lets through can be run: errors are answers, crashes are not ---- */

static kn_status run_once(kn_context *c, kn_graph *g, uint64_t seed) {
  kn_target ref;
  ck_assert(kn_ref_backend.target(c, NULL, &ref));
  return run_damaged(c, g, seed, 300, (const kn_target *[]){&ref}, 1);
}

START_TEST(mutated_graphs_run_or_refuse) {
  const char *more = getenv("KILN_RANDOM_GRAPHS"); /* by hand */
  unsigned parsed = 0, ran = 0, seeds = more ? (unsigned)atoi(more) : 60;
  random_state r = {7};
  for (unsigned seed = 1; seed <= seeds; seed++) {
    kn_context *c = suite_context();
    kn_heap_set_limit(c->heap, 64 << 20);
    c->threads = 1;
    kn_graph *g = random_graph(c, seed), *back;
    size_t n;
    char *text = print_graph(c, g, &n);
    for (int k = 0; k < 60; k++) {
      char *m = mutate_numbers(text, &r);
      if (k % 2) mutate_names(m, &r);
      kn_status st = kn_graph_parse(c, m, strlen(m), &back);
      free(m);
      if (st != KN_OK) continue;
      parsed++;
      ran += run_once(c, back, seed + (unsigned)k) == KN_OK;
      kn_graph_release(back);
    }
    kn_free(c->heap, text, n + 1);
    kn_graph_release(g);
    suite_done(c);
  }
  if (more) printf("%u parsed, %u ran\n", parsed, ran);
  ck_assert_msg(parsed > 1000 && ran > 200, "%u parsed, %u ran", parsed, ran);
}
END_TEST

/* ---- out of memory at every allocation ---- */

typedef struct failing {
  uint64_t left;
} failing;

static void *alloc_failing(void *ud, void *p, size_t osize, size_t nsize) {
  failing *f = ud;
  if (!nsize) {
    free(p);
    return NULL;
  }
  if ((!p || nsize > osize) && f->left-- == 0) {
    f->left = 0;
    return NULL;
  }
  return realloc(p, nsize);
}

static kn_status parse_and_print(kn_context *c, const char *text, size_t n) {
  kn_graph *g;
  KN_TRY(kn_graph_parse(c, text, n, &g));
  kn_builder b;
  g->finished = false;
  kn_builder_init(&b, c, g);
  kn_status st = kn_pipeline_run(&b, KN_PIPELINE_CAPTURE);
  if (st == KN_OK) st = kn_graph_finish(&b);
  char *out;
  size_t len;
  if (st == KN_OK && (st = kn_graph_print(c, g, KN_TEXT_FULL, &out, &len)) == KN_OK)
    kn_free(c->heap, out, len + 1);
  if (st == KN_OK && (st = kn_graph_code(c, g, &out, &len)) == KN_OK) kn_free(c->heap, out, len + 1);
  kn_graph_release(g);
  return st;
}

START_TEST(failing_allocator) {
  kn_context *c = suite_context();
  kn_graph *g = random_graph(c, 7);
  size_t n;
  char *text = print_graph(c, g, &n);
  kn_status st = KN_NOMEM;
  uint64_t k = 0;
  for (; st != KN_OK; k++) {
    ck_assert(k < 10000);
    failing f = {UINT64_MAX};
    kn_heap *h = kn_heap_new(alloc_failing, &f, 0);
    kn_context *d = kn_context_new(h, NULL);
    f.left = k;
    st = parse_and_print(d, text, n);
    ck_assert_msg(st == KN_OK || (st == KN_NOMEM && strstr(kn_error(d), "memory")), "allocation %u: %s",
                  (unsigned)k, kn_error(d));
    f.left = UINT64_MAX;
    kn_context_free(d);
    ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
    kn_heap_release(h);
  }
  ck_assert_uint_gt(k, 15);
  kn_free(c->heap, text, n + 1);
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

/* ---- texts for logs ---- */

START_TEST(logs) {
  kn_context *c = suite_context();
  const char *text = G " %h: float32[2,3] = relu %x ; a.lua:1 <- b.lua:?\n return %h\n}\n";
  kn_graph *g;
  OK(c, kn_graph_parse(c, text, strlen(text), &g));
  char buf[100], tiny[8];
  ck_assert_str_eq(kn_node_text(g->body->first, buf, sizeof buf), "%h: float32[2,3] = relu %x");
  ck_assert_str_eq(kn_node_text(g->body->first, tiny, sizeof tiny), "%h: flo");
  ck_assert_str_eq(kn_where_text(g->body->first->where, buf, sizeof buf), "a.lua:1 <- b.lua:?");
  ck_assert_str_eq(kn_where_text(g->body->first->where, tiny, sizeof tiny), "a.lua:1");
  ck_assert_str_eq(kn_where_text(NULL, buf, sizeof buf), "");
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

SUITE("text", cases, every_op_reads_back, errors_say_where, short_forms_are_read, limits,
      random_graphs_round_trip, mutated_texts_are_survived, mutated_graphs_run_or_refuse, failing_allocator,
      logs)
