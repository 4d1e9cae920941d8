/* Versions of ops and of the format: files are written with the lowest that say all of them; newer ones are
 * refused by name, older ones mean what they meant. A kiln of the future, whose dialect has changed, is
 * played by a table here. */
#include "spec/kiln_file.h"

/* ---- a kiln of the future ---- */

static bool always(const kn_node *n) { return n != NULL; }
static bool on_main(const kn_node *n) { return ((const kn_attrs_diagonal *)n->attrs)->diagonal == 0; }

/* neg was what abs is. */
static kn_node *make_abs(kn_builder *b, const kn_old_node *n) {
  return kn_add_op(b, KN_OP_abs, NULL, n->in, n->nin, NULL, 0);
}

/* exp was that of twice its input, which takes two nodes now. */
static kn_node *make_double_exp(kn_builder *b, const kn_old_node *n) {
  kn_node *twice = kn_add_op(b, KN_OP_add, NULL, (kn_value *[]){n->in[0], n->in[0]}, 2, NULL, 0);
  return twice ? kn_add_op(b, KN_OP_exp, NULL, twice->out, 1, NULL, 0) : NULL;
}

static kn_node *make_sub(kn_builder *b, const kn_old_node *n) {
  kn_value *v = kn_add_scalar(b, KN_NODE_lua_sub, n->in, n->nin);
  return v ? v->def : NULL;
}

/* Nothing below 0 was let through unless it was said. */
static void not_below_zero(kn_attrs_any *a) { a->clamp.min_number = kn_number_of(0); }
/* The oldest change has the last word. */
static void above(kn_attrs_any *a) { a->diagonal.diagonal = 1; }
static void below(kn_attrs_any *a) { a->diagonal.diagonal = -1; }

static unsigned state_needs_two(const kn_graph *g) {
  unsigned most = 1;
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g->slots[i]->kind == KN_SLOT_STATE) most = 2;
  return most;
}

static const kn_op_version changes[] = {
    {.op = KN_OP_neg, .version = 2, .what = "another meaning", .used = always, .upgrade = make_abs},
    {.op = KN_OP_exp, .version = 2, .what = "another meaning", .used = always, .upgrade = make_double_exp},
    {.op = KN_OP_relu, .version = 2, .what = "another name", .used = always, .was = "ramp"},
    {.op = KN_OP_clamp,
     .version = 2,
     .what = "no limit unless said",
     .used = always,
     .unsaid = not_below_zero},
    {.op = KN_OP_tril, .version = 2, .what = "another default", .used = on_main, .unsaid = below},
    {.op = KN_OP_tril, .version = 3, .what = "another default", .used = on_main, .unsaid = above},
    {.op = KN_NODE_lua_add, .version = 2, .what = "another meaning", .used = always, .upgrade = make_sub},
};
static const kn_dialect future = {
    .format = 3, .needed = state_needs_two, .rows = changes, .nrows = sizeof changes / sizeof *changes};

static void save_as(kn_context *c, const kn_dialect *d, const char *text) {
  kn_graph *g = graph_of(c, text);
  OK(c, kn_file_save_as(c, temp_path(), d, &(kn_entry){.name = "g", .graph = g}, 1));
  kn_graph_release(g);
}

/* The graph's text, as this dialect reads the file. */
static void reads_as(kn_context *c, const kn_dialect *d, const char *want) {
  kn_entry *e;
  uint32_t n;
  char *text;
  size_t len;
  OK(c, kn_file_load_as(c, temp_path(), d, &e, &n));
  OK(c, kn_graph_print(c, e->graph, KN_TEXT_FULL, &text, &len));
  ck_assert_str_eq(text, want);
  kn_free(c->heap, text, len + 1);
  kn_file_free_entries(c->heap, e, n);
}

static void file_says(const char *part) {
  size_t n;
  char *p = slurp(temp_path(), &n);
  p[n - 1] = 0;
  ck_assert_msg(strstr(p + 8, part) != NULL, "no %s in %s", part, p + 8);
  free(p);
}

/* ---- cases ---- */

START_TEST(older_files_mean_what_they_meant) {
  kn_context *c = suite_context();
  save_as(c, &kn_dialect_now,
          "graph g(%x: float32[2,3], %k: integer) {\n"
          "  %a = no_grad neg %x\n"
          "  %b = exp %a\n"
          "  %c = clamp %b {max = 1.0}\n"
          "  %d = clamp %b {min = -1.0}\n"
          "  %f = tril %x\n"
          "  %m = lua.add %k, %k\n"
          "  return %c, %d, %f, %m\n}\n");
  reads_as(c, &future,
           "graph g(%x: float32[2,3], %k: integer) {\n"
           "  %a: float32[2,3] = no_grad abs %x\n"
           "  %4: float32[2,3] = add %a, %a\n"
           "  %b: float32[2,3] = exp %4\n"
           "  %c: float32[2,3] = clamp %b {min = 0.0, max = 1.0}\n"
           "  %d: float32[2,3] = clamp %b {min = -1.0}\n"
           "  %f: float32[2,3] = tril %x {diagonal = -1}\n"
           "  %m: integer = lua.sub %k, %k\n"
           "  return %c, %d, %f, %m\n}\n");
  unlink(temp_path());
  suite_done(c);
}
END_TEST

/* The same text in the words of the future is not changed. */
START_TEST(present_files_mean_what_they_say) {
  static const char text[] = "graph g(%x: float32[2,3]) {\n"
                             "  %a: float32[2,3] = neg %x\n"
                             "  %c: float32[2,3] = tril %a\n"
                             "  return %c\n}\n";
  kn_context *c = suite_context();
  save_as(c, &future, text);
  file_says("\"kiln.ops\":\"neg 2, tril 3\"");
  reads_as(c, &future, text);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

START_TEST(names_that_ops_had) {
  kn_context *c = suite_context();
  size_t n;
  save_as(c, &kn_dialect_now, "graph g(%x: float32[2]) {\n  %y = relu %x\n  return %y\n}\n");
  char *p = slurp(temp_path(), &n);
  ck_assert_uint_eq(replace_all(p, n, "relu", "ramp"), 2);
  spit(p, n);
  kn_entry *e;
  uint32_t count;
  FAILS(c, KN_VERSION, "needs op ramp (version 1), which this kiln",
        kn_file_load(c, temp_path(), NULL, &e, &count));
  reads_as(c, &future, "graph g(%x: float32[2]) {\n  %y: float32[2] = relu %x\n  return %y\n}\n");
  free(p);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

/* Files that use nothing new are the same to the byte, and read by who knows nothing of it. */
START_TEST(the_lowest_version_that_says_it) {
  static const char old[] = "graph g(%x: float32[2,3]) {\n  %a: float32[2,3] = triu %x\n  return %a\n}\n";
  kn_context *c = suite_context();
  size_t n, m;
  save_as(c, &kn_dialect_now, old);
  char *p = slurp(temp_path(), &n);
  save_as(c, &future, old);
  char *q = slurp(temp_path(), &m);
  ck_assert(n == m && !memcmp(p, q, n));
  reads_as(c, &kn_dialect_now, old);
  free(p);
  free(q);
  kn_entry *e;
  uint32_t count;
  save_as(c, &future, "graph g(%x: float32[2,3]) {\n  %a = tril %x\n  return %a\n}\n");
  FAILS(c, KN_VERSION, "needs version 3 of op tril, this kiln (" KN_VERSION_TEXT ") has version 1",
        kn_file_load(c, temp_path(), NULL, &e, &count));
  save_as(c, &future,
          "graph g() {\n  slot state \"n\": integer = 3\n  %a = load_state \"n\"\n  return %a\n}\n");
  FAILS(c, KN_VERSION, "the file has format version 2, this kiln (" KN_VERSION_TEXT ") reads up to version 1",
        kn_file_load(c, temp_path(), NULL, &e, &count));
  OK(c, kn_file_load_as(c, temp_path(), &future, &e, &count));
  kn_file_free_entries(c->heap, e, count);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

/* What has changed so far: rows of versions.c, each used and not used. */
START_TEST(versions_of_now) {
  static const struct {
    const char *line, *ops;
  } cases[] = {
      {"%y = max_pool2d %x {kernel_size = {2}}", "max_pool2d 1"},
      {"%y = max_pool2d %x {kernel_size = {2}, dilation = {1}}", "max_pool2d 1"},
      {"%y = max_pool2d %x {kernel_size = {2}, dilation = {2}}", "max_pool2d 2"},
      {"%y = max_pool2d %x {kernel_size = {2}, ceil_mode = true}", "max_pool2d 2"},
      {"%y = avg_pool2d %x {kernel_size = {2}, padding = {1}}", "avg_pool2d 1"},
      {"%y = avg_pool2d %x {kernel_size = {2}, padding = {1}, count_include_pad = false}", "avg_pool2d 2"},
      {"%y = avg_pool2d %x {kernel_size = {2}, divisor_override = 3}", "avg_pool2d 2"},
      {"%y = arange {end = 5}", "arange 1"},
      {"%y = arange {end = %k}", "arange 2"},
  };
  kn_context *c = suite_context();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[300], ops[60];
    snprintf(text, sizeof text, "graph g(%%x: float32[1,1,6,6], %%k: integer) {\n  %s\n  return %%y\n}\n",
             cases[i].line);
    save_as(c, &kn_dialect_now, text);
    snprintf(ops, sizeof ops, "\"kiln.ops\":\"%s\"", cases[i].ops);
    file_says(ops);
  }
  for (uint32_t i = 0; i < kn_dialect_now.nrows; i++) {
    const kn_op_version *row = &kn_dialect_now.rows[i];
    ck_assert(row->version > 1 && row->what && row->used);
    for (uint32_t k = 0; k < i; k++)
      ck_assert(kn_dialect_now.rows[k].op != row->op || kn_dialect_now.rows[k].version < row->version);
  }
  unlink(temp_path());
  suite_done(c);
}
END_TEST

START_TEST(ops_that_a_file_must_list) {
  static const struct {
    const char *from, *to;
    kn_status st;
    const char *want;
  } cases[] = {
      {"neg 1", "exp 1", KN_FORMAT, "the file does not say which version of neg it was written with"},
      {"neg 1", "neg 0", KN_FORMAT, "neg 0 is no version"},
      {"add 1, neg 1", "neg 1, neg 1", KN_FORMAT, "neg 1 is there twice"},
  };
  kn_context *c = suite_context();
  save_as(c, &kn_dialect_now,
          "graph g(%x: float32[2]) {\n  %a = add %x, %x\n  %y = neg %a\n  return %y\n}\n");
  size_t n;
  char *good = slurp(temp_path(), &n);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *p = malloc(n);
    memcpy(p, good, n);
    ck_assert_uint_eq(replace_all(p, n, cases[i].from, cases[i].to), 1);
    FAILS(c, cases[i].st, cases[i].want, try_load(c, p, n));
    free(p);
  }
  free(good);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

SUITE("versions", older_files_mean_what_they_meant, present_files_mean_what_they_say, names_that_ops_had,
      the_lowest_version_that_says_it, versions_of_now, ops_that_a_file_must_list)
