/* The C API's view of files: what they hold, notes, test vectors, bringing them up to date; with allocations
 * failing. */
#include "bindings/c/handle.h"
#include "spec/exec.h"
#include "spec/kiln_file.h"
#include "spec/scarce.h"

static const char text[] = "graph g(%x: float32[2], %n: integer) {\n"
                           "  slot state \"count\": integer = 1\n"
                           "  %c = load_state \"count\"\n"
                           "  %one = const 1\n"
                           "  %m = lua.add %c, %one\n"
                           "  store_state \"count\", %m\n"
                           "  %i: integer = loop (%k: integer = %n) {\n"
                           "    %less = lua.sub %k, %one\n"
                           "    %zero = const 0\n"
                           "    %more = lua.lt %zero, %less\n"
                           "    continue_if %more next(%less) exit(%less)\n"
                           "  }\n"
                           "  %s = sum %x\n"
                           "  return %s, {rest = %i, count = %m}\n}\n";
static const char host_text[] = "graph h(%x: float32[2]) {\n"
                                "  %y: float32[2] = host_call %x \"twice\"\n"
                                "  return %y\n}\n";

/* A file of both graphs with vectors that hold: of g also a loop of 1000 trips. */
static void write_file(const char *path) {
  kn_context *c = suite_context();
  kn_entry e[2] = {{.name = "g", .graph = graph_of(c, text)}, {.name = "h", .graph = graph_of(c, host_text)}};
  OK(c, kn_notes_new(c, &e[0].notes));
  OK(c, kn_notes_add(c, e[0].notes, "licence", "MIT"));
  for (int i = 0; i < 2; i++) {
    OK(c, kn_vectors_new(c, e[i].graph, &e[i].vectors));
    OK(c, kn_vectors_add(c, e[i].vectors));
    kn_vectors_in(e[i].vectors, 0)[0] = T(make(c, KN_F32, DIMS(2), LIST(1, 2)));
  }
  kn_vectors_in(e[0].vectors, 0)[1] = INT(1000);
  kn_rvalue *out = kn_vectors_out(e[0].vectors, 0);
  out[0] = T(make(c, KN_F32, SCALAR, LIST(3)));
  out[1] = INT(0);
  out[2] = INT(2);
  kn_vectors_out(e[1].vectors, 0)[0] = T(make(c, KN_F32, DIMS(2), LIST(2, 4)));
  OK(c, kn_file_save(c, path, e, 2));
  for (int i = 0; i < 2; i++) {
    kn_graph_release(e[i].graph);
    kn_vectors_release(e[i].vectors);
  }
  kn_notes_release(e[0].notes);
  suite_done(c);
}

static kiln_status twice(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  kiln_context *ctx = ud;
  const float *x = kiln_tensor_data(args[0].tensor);
  if (nargs != 1 || nresults != 1) return KILN_ARG;
  results[0].kind = KILN_TENSOR;
  return kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){2}, (float[]){2 * x[0], 2 * x[1]},
                         &results[0].tensor);
}

#define GOOD(ctx, call)                                                                                      \
  do {                                                                                                       \
    kiln_status s_ = (call);                                                                                 \
    ck_assert_msg(s_ == KILN_OK, "%s: %s", #call, kiln_error(ctx));                                          \
  } while (0)

static void gather(void *ud, const char *line) {
  char *all = ud;
  snprintf(all + strlen(all), 4000 - strlen(all), "%s\n", line);
}

START_TEST(vectors_of_graphs) {
  kiln_context *ctx;
  kiln_graph *g, *h;
  kiln_session *s;
  write_file(temp_path());
  GOOD(ctx, kiln_context_new(NULL, &ctx, NULL, 0));
  GOOD(ctx, kiln_graph_load(ctx, temp_path(), "g", &g));
  GOOD(ctx, kiln_graph_load(ctx, temp_path(), "h", &h));
  ck_assert(kiln_graph_vector_count(g) == 1 && kiln_graph_vector_count(h) == 1);
  ck_assert_str_eq(kiln_graph_note(g, "licence"), "MIT");
  ck_assert_str_eq(kiln_graph_note(h, "licence"), "MIT");
  ck_assert_ptr_null(kiln_graph_note(g, "author"));
  GOOD(ctx, kiln_graph_test(ctx, g));
  ck_assert_int_eq(kiln_graph_test(ctx, h), KILN_STATE);
  ck_assert(strstr(kiln_error(ctx), "host function 'twice' is not bound"));

  /* A session with limits and functions: it is afterwards what it was. */
  kiln_value v;
  GOOD(ctx, kiln_session_new(ctx, g, &s));
  GOOD(ctx, kiln_session_set_integer(s, "n", 3));
  kiln_session_set_step_limit(s, 50);
  ck_assert_int_eq(kiln_session_test(s), KILN_LIMIT);
  ck_assert(strstr(kiln_session_error(s), "test vector 1"));
  kiln_session_set_step_limit(s, 0);
  kiln_session_cancel(s);
  ck_assert_int_eq(kiln_session_test(s), KILN_CANCELLED);
  GOOD(ctx, kiln_session_test(s));
  GOOD(ctx, kiln_session_get_slot(s, 0, &v));
  ck_assert(v.kind == KILN_INTEGER && v.i == 1);
  kiln_session_free(s);
  GOOD(ctx, kiln_session_new(ctx, h, &s));
  GOOD(ctx, kiln_session_bind(s, "twice", twice, ctx));
  GOOD(ctx, kiln_session_test(s));
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_graph_release(h);
  kiln_context_free(ctx);
  unlink(temp_path());
}
END_TEST

START_TEST(files_without) {
  kiln_context *ctx;
  kiln_graph *g;
  kn_context *c = suite_context();
  kn_entry e = {.name = "h", .graph = graph_of(c, host_text)};
  OK(c, kn_file_save(c, temp_path(), &e, 1));
  kn_graph_release(e.graph);
  suite_done(c);
  GOOD(ctx, kiln_context_new(NULL, &ctx, NULL, 0));
  GOOD(ctx, kiln_graph_load(ctx, temp_path(), NULL, &g));
  ck_assert(kiln_graph_vector_count(g) == 0 && !kiln_graph_note(g, "licence"));
  ck_assert_int_eq(kiln_graph_test(ctx, g), KILN_ARG);
  ck_assert(strstr(kiln_error(ctx), "has no test vectors in its file"));
  char all[4000] = "";
  unlink(temp_path());
  ck_assert_int_eq(kiln_file_info(ctx, temp_path(), NULL, gather, all), KILN_IO);
  ck_assert_int_eq(kiln_file_upgrade(ctx, temp_path(), temp_path()), KILN_IO);
  ck_assert_str_eq(all, "");
  kiln_graph_release(g);
  kiln_context_free(ctx);
}
END_TEST

/* Of a newer file, too, is told what it says before it is refused; to itself a file is written as to another.
 */
START_TEST(info_and_upgrade) {
  kiln_context *ctx;
  char all[4000] = "", other[80];
  size_t n, m;
  write_file(temp_path());
  GOOD(ctx, kiln_context_new(NULL, &ctx, NULL, 0));
  GOOD(ctx, kiln_file_info(ctx, temp_path(), "h", gather, all));
  ck_assert_msg(strstr(all, "note licence: MIT\ngraph h\n") && strstr(all, "test vectors 1\n"), "%s", all);
  ck_assert_int_eq(kiln_file_info(ctx, temp_path(), "f", gather, all), KILN_ARG);
  snprintf(other, sizeof other, "%s.2", temp_path());
  char *p = slurp(temp_path(), &n), *q;
  GOOD(ctx, kiln_file_upgrade(ctx, temp_path(), other));
  q = slurp(other, &m);
  ck_assert(n == m && !memcmp(p, q, n));
  free(q);
  GOOD(ctx, kiln_file_upgrade(ctx, other, other));
  q = slurp(other, &m);
  ck_assert(n == m && !memcmp(p, q, n));
  unlink(other);
  replace_all(p, n, "\"kiln.version\":\"1\"", "\"kiln.version\":\"9\"");
  spit(p, n);
  *all = 0;
  ck_assert_int_eq(kiln_file_info(ctx, temp_path(), NULL, gather, all), KILN_VERSION);
  ck_assert_msg(!strncmp(all, "format 9\nproducer kiln ", 23) && !strstr(all, "graph "), "%s", all);
  ck_assert_int_eq(kiln_file_upgrade(ctx, temp_path(), other), KILN_VERSION);
  ck_assert(access(other, F_OK));
  p[n / 2] ^= 1; /* damaged: nothing is told */
  spit(p, n);
  *all = 0;
  ck_assert_int_eq(kiln_file_info(ctx, temp_path(), NULL, gather, all), KILN_FORMAT);
  ck_assert_str_eq(all, "");
  free(p);
  free(q);
  kiln_context_free(ctx);
  unlink(temp_path());
}
END_TEST

/* What lies on a device is described and brought up to date where there is none. */
START_TEST(of_a_device) {
  static const char there[] = "graph g(%x: float32[2]@cuda) {\n"
                              "  slot const \"w\": float32[2]@cuda\n"
                              "  %w: float32[2]@cuda = tensor \"w\"\n"
                              "  %y: float32[2]@cuda = add %x, %w\n"
                              "  return %y\n}\n";
  kiln_context *ctx;
  char all[4000] = "";
  size_t n, m;
  kn_context *c = suite_context();
  kn_entry e = {.name = "g", .graph = graph_of(c, there)};
  e.graph->slots[0]->tensor = make(c, KN_F32, DIMS(2), LIST(1, 2));
  OK(c, kn_file_save(c, temp_path(), &e, 1));
  kn_graph_release(e.graph);
  suite_done(c);
  char *p = slurp(temp_path(), &n), *q;
  ck_assert_int_eq(kiln_context_new(NULL, &ctx, NULL, 0), KILN_OK);
  GOOD(ctx, kiln_file_info(ctx, temp_path(), NULL, gather, all));
  ck_assert_msg(strstr(all, "input x: float32[2]@cuda\n") && strstr(all, "slot w: float32[2]@cuda\n"), "%s",
                all);
  GOOD(ctx, kiln_file_upgrade(ctx, temp_path(), temp_path()));
  q = slurp(temp_path(), &m);
  ck_assert(n == m && !memcmp(p, q, n));
  free(p);
  free(q);
  kiln_context_free(ctx);
  unlink(temp_path());
}
END_TEST

START_TEST(out_of_memory) {
  write_file(temp_path());
  char other[80];
  snprintf(other, sizeof other, "%s.2", temp_path());
  for (int once = 0; once < 2; once++) {
    bool refused = true;
    for (long k = 0; refused; k++) {
      ck_assert_int_lt(k, 5000);
      scarce left = {.left = -1};
      char all[4000] = "";
      kiln_context *ctx;
      kiln_context_options o = {.size = sizeof o, .alloc = scarce_alloc, .alloc_ud = &left, .backend = "ref"};
      kiln_graph *g = NULL;
      kiln_memory memory = {.size = sizeof memory};
      ck_assert_int_eq(kiln_context_new(&o, &ctx, NULL, 0), KILN_OK);
      scarce_begin(&left, k, once);
      kiln_status st[4];
      st[0] = kiln_file_info(ctx, temp_path(), NULL, gather, all);
      st[1] = kiln_file_upgrade(ctx, temp_path(), other);
      st[2] = kiln_graph_load(ctx, temp_path(), "g", &g);
      st[3] = st[2] == KILN_OK ? kiln_graph_test(ctx, g) : KILN_OK;
      refused = scarce_end(&left);
      for (int i = 0; i < 4; i++)
        ck_assert_msg(st[i] == KILN_OK || (refused && st[i] == KILN_NOMEM), "allocation %ld, call %d: %s", k,
                      i, kiln_error(ctx));
      if (g) GOOD(ctx, kiln_graph_test(ctx, g));
      kiln_graph_release(g);
      GOOD(ctx, kiln_file_upgrade(ctx, temp_path(), other)); /* the context is as good as new */
      kiln_context_memory(ctx, &memory);
      kiln_context_free(ctx);
      unlink(other);
    }
  }
  unlink(temp_path());
}
END_TEST

SUITE("capi_files", vectors_of_graphs, files_without, info_and_upgrade, of_a_device, out_of_memory)
