/* Test vectors: recorded, kept in the file, run again and compared; what a file may claim of them. */
#include "spec/exec.h"
#include "spec/kiln_file.h"
#include "spec/scarce.h"

static const char story_text[] = "graph g(%x: float32[N,3], %k: number) {\n"
                                 "  slot state \"total\": float32[] = 0.0\n"
                                 "  slot state \"calls\": integer = 0\n"
                                 "  %total = load_state \"total\"\n"
                                 "  %calls = load_state \"calls\"\n"
                                 "  %one = const 1\n"
                                 "  %s = sum %x\n"
                                 "  %now = add %total, %s\n"
                                 "  %after = lua.add %calls, %one\n"
                                 "  %two = lua.mul %k, %after\n"
                                 "  %r = rand {sizes = {3}}\n"
                                 "  %big = gt %x, %r\n"
                                 "  store_state \"total\", %now\n"
                                 "  store_state \"calls\", %after\n"
                                 "  return %now, {calls = %after, two = %two, big = %big}\n"
                                 "}\n";

/* A const slot is needed where a state is written out: the text's numbers are its. */
static kn_graph *story(kn_context *c) {
  char text[sizeof story_text];
  strcpy(text, story_text);
  char *at = strstr(text, " = 0.0");
  memmove(at, at + 6, strlen(at + 6) + 1);
  kn_graph *g = graph_of(c, text);
  g->slots[0]->tensor = make(c, KN_F32, SCALAR, LIST(10));
  return g;
}

typedef struct machine {
  kn_context *c;
  kn_target target;
  kn_session *s;
} machine;

static void start(machine *m, kn_context *c, kn_graph *g) {
  m->c = c;
  ck_assert(kn_ref_backend.target(c, NULL, &m->target));
  OK(c, kn_session_new(c, g, (const kn_target *[]){&m->target}, 1, &m->s));
}

static kn_tensor *row(kn_context *c, double a, double b, double d) {
  return make(c, KN_F32, DIMS(1, 3), LIST(a, b, d));
}

/* Two calls of the story. */
static kn_vectors *two(kn_context *c, const kn_graph *g) {
  kn_vectors *v;
  OK(c, kn_vectors_new(c, g, &v));
  OK(c, kn_vectors_add(c, v));
  OK(c, kn_vectors_add(c, v));
  kn_vectors_in(v, 0)[0] = T(row(c, 1, 2, 3));
  kn_vectors_in(v, 0)[1] = INT(7);
  kn_vectors_in(v, 1)[0] = T(row(c, -1, 0.25f, 0));
  kn_vectors_in(v, 1)[1] = NUM(0.5);
  return v;
}

static float number_of(const kn_rvalue *v) { return *(const float *)kn_tensor_data(v->tensor); }

START_TEST(recorded_saved_tested) {
  kn_context *c = suite_context();
  kn_graph *g = story(c);
  kn_vectors *v = two(c, g);
  machine m;
  start(&m, c, g);
  OK(kn_session_context(m.s), kn_vectors_record(m.s, v));
  ck_assert(number_of(kn_vectors_out(v, 0)) == 16 && number_of(kn_vectors_out(v, 1)) == 15.25f);
  ck_assert_int_eq(kn_vectors_out(v, 1)[1].scalar.as.i, 2);
  ck_assert(kn_vectors_out(v, 0)[2].scalar.kind == KN_SCALAR_INT && kn_vectors_out(v, 0)[2].scalar.as.i == 7);
  ck_assert(kn_vectors_out(v, 1)[2].scalar.kind == KN_SCALAR_FLOAT &&
            kn_vectors_out(v, 1)[2].scalar.as.f == 1);
  OK(c, kn_file_save(c, temp_path(), &(kn_entry){.name = "g", .graph = g, .vectors = v}, 1));
  kn_session_free(m.s);
  kn_vectors_release(v);
  kn_graph_release(g);

  kn_entry *e;
  uint32_t n;
  OK(c, kn_file_load(c, temp_path(), NULL, &e, &n));
  ck_assert(e->vectors && e->vectors->n == 2 && e->vectors->tolerance < 0);
  start(&m, c, e->graph);
  OK(kn_session_context(m.s), kn_vectors_test(m.s, e->vectors));
  /* in the middle of another story, which goes on as it would have */
  kn_rvalue in[2] = {T(row(c, 5, 5, 5)), INT(1)}, out[4], slot;
  OK(kn_session_context(m.s), kn_session_run(m.s, in, 2, out, 4));
  kn_tensor_release(out[0].tensor), kn_tensor_release(out[3].tensor);
  const kn_random random = *kn_session_random(m.s);
  OK(kn_session_context(m.s), kn_vectors_test(m.s, e->vectors));
  OK(kn_session_context(m.s), kn_session_get_slot(m.s, 0, &slot));
  ck_assert(number_of(&slot) == 25);
  kn_tensor_release(slot.tensor);
  OK(kn_session_context(m.s), kn_session_get_slot(m.s, 1, &slot));
  ck_assert_int_eq(slot.scalar.as.i, 1);
  ck_assert_int_eq(memcmp(&random, kn_session_random(m.s), sizeof random), 0);
  kn_tensor_release(in[0].tensor);
  kn_session_free(m.s);
  kn_file_free_entries(c->heap, e, n);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

/* What differs, and by how much it may. */
START_TEST(differences) {
  static const struct {
    uint32_t call, output;
    double by, tolerance;
    const char *want; /* NULL: none */
  } cases[] = {
      {0, 0, 1e-4, -1, NULL},
      {0, 0, 1e-2, -1, "test vector 1: output 1 (now) differs: element [] is 16, the file has 16.01"},
      {0, 0, 1e-2, 1e-3, NULL},
      {0, 0, 1e-4, 0, "they may be 0 apart"},
      {1, 1, 1, 0.9, "test vector 2: output 2.calls (after) is 2, the file has 3"},
      {1, 2, 1e-2, -1, "test vector 2: output 2.two (two) is 1.0, the file has 1.01"},
      {1, 2, 1e-2, 0.1, NULL},
      {1, 3, 1, 1, "test vector 2: output 2.big (big) differs: element [1,1] is 0, the file has 1"},
  };
  kn_context *c = suite_context();
  for (size_t i = 0; i < COUNT(cases); i++) {
    kn_graph *g = story(c);
    kn_vectors *v = two(c, g);
    machine m;
    start(&m, c, g);
    kn_context *own = kn_session_context(m.s);
    OK(own, kn_vectors_record(m.s, v));
    kn_rvalue *x = &kn_vectors_out(v, cases[i].call)[cases[i].output];
    v->tolerance = cases[i].tolerance;
    if (!x->tensor && x->scalar.kind == KN_SCALAR_INT)
      x->scalar.as.i += (int64_t)cases[i].by;
    else if (!x->tensor)
      x->scalar.as.f += cases[i].by;
    else if (x->tensor->type.dtype == KN_BOOL)
      *(uint8_t *)kn_tensor_data(x->tensor) ^= 1;
    else
      *(float *)kn_tensor_data(x->tensor) += (float)cases[i].by;
    if (cases[i].want)
      FAILS(own, KN_STATE, cases[i].want, kn_vectors_test(m.s, v));
    else
      OK(own, kn_vectors_test(m.s, v));
    kn_session_free(m.s);
    kn_vectors_release(v);
    kn_graph_release(g);
  }
  suite_done(c);
}
END_TEST

/* nan is nan, infinities are themselves; near zero the largest element counts. */
START_TEST(special_values) {
  static const struct {
    float got, want;
    bool same;
  } cases[] = {
      {NAN, NAN, true},     {NAN, 0, false},  {INFINITY, INFINITY, true}, {INFINITY, -INFINITY, false},
      {INFINITY, 3, false}, {1e-8f, 0, true}, {1e-5f, 0, false},          {0, -0.0f, true}};
  kn_context *c = suite_context();
  kn_graph *g = graph_of(c, "graph g(%x: float32[3]) {\n  return %x\n}\n");
  for (size_t i = 0; i < COUNT(cases); i++) {
    kn_vectors *v;
    machine m;
    OK(c, kn_vectors_new(c, g, &v));
    OK(c, kn_vectors_add(c, v));
    kn_vectors_in(v, 0)[0] = T(make(c, KN_F32, DIMS(3), LIST(0, cases[i].got, 1e-3)));
    kn_vectors_out(v, 0)[0] = T(make(c, KN_F32, DIMS(3), LIST(0, cases[i].want, 1e-3)));
    start(&m, c, g);
    kn_status st = kn_vectors_test(m.s, v);
    ck_assert_msg(st == (cases[i].same ? KN_OK : KN_STATE), "case %zu: %s", i,
                  kn_error(kn_session_context(m.s)));
    kn_session_free(m.s);
    kn_vectors_release(v);
  }
  kn_graph_release(g);
  suite_done(c);
}
END_TEST

/* The graph overwrites its input and needs it to lie as it did; a result that is not defined on this path. */
START_TEST(inputs_as_needed) {
  kn_context *c = suite_context();
  kn_graph *g = graph_of(c, "graph g(%x: float32[2,3], %c: boolean) {\n"
                            "  need %x strides {1, 4}\n"
                            "  %y = add %x, %x\n"
                            "  %i: integer, %t: float32[2,3] = if %c {\n"
                            "    %one = const 1\n"
                            "    yield %one, %y\n"
                            "  } else {\n"
                            "    %zero = const 2\n"
                            "    %u: float32[2,3] = undef\n"
                            "    yield %zero, %u\n"
                            "  }\n"
                            "  update %x, %y\n"
                            "  return one_of{%i, %t, nil}, %y\n}\n");
  kn_vectors *v;
  machine m;
  OK(c, kn_vectors_new(c, g, &v));
  for (uint32_t i = 0; i < 2; i++) {
    OK(c, kn_vectors_add(c, v));
    kn_vectors_in(v, i)[0] = T(make(c, KN_F32, DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6)));
    kn_vectors_in(v, i)[1] = BOOL(i == 0);
  }
  start(&m, c, g);
  OK(kn_session_context(m.s), kn_vectors_record(m.s, v));
  ck_assert(kn_vectors_out(v, 0)[1].tensor && !kn_vectors_out(v, 1)[1].tensor);
  ck_assert_int_eq(memcmp(kn_tensor_data(kn_vectors_out(v, 1)[2].tensor), (float[]){2, 4, 6, 8, 10, 12}, 24),
                   0);
  ck_assert(number_of(&kn_vectors_in(v, 0)[0]) == 1); /* was not overwritten itself */
  OK(c, kn_file_save(c, temp_path(), &(kn_entry){.name = "g", .graph = g, .vectors = v}, 1));
  kn_session_free(m.s);
  kn_vectors_release(v);
  kn_graph_release(g);
  kn_entry *e;
  uint32_t n;
  OK(c, kn_file_load(c, temp_path(), NULL, &e, &n));
  start(&m, c, e->graph);
  OK(kn_session_context(m.s), kn_vectors_test(m.s, e->vectors));
  OK(kn_session_context(m.s), kn_vectors_test(m.s, e->vectors));
  kn_session_free(m.s);
  kn_file_free_entries(c->heap, e, n);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

/* ---- what a file may claim ---- */

/* A file with the story and its vectors. */
static char *story_bytes(size_t *n) {
  kn_context *c = suite_context();
  kn_graph *g = story(c);
  kn_vectors *v = two(c, g);
  kn_notes *notes;
  machine m;
  start(&m, c, g);
  OK(kn_session_context(m.s), kn_vectors_record(m.s, v));
  OK(c, kn_notes_new(c, &notes));
  OK(c, kn_notes_add(c, notes, "licence", "MIT"));
  v->tolerance = 0.125;
  OK(c, kn_file_save(
            c, temp_path(),
            &(kn_entry){.name = "g", .graph = g, .vectors = v, .origin = "story.c:3", .notes = notes}, 1));
  kn_session_free(m.s);
  kn_vectors_release(v);
  kn_notes_release(notes);
  kn_graph_release(g);
  suite_done(c);
  char *p = slurp(temp_path(), n);
  unlink(temp_path());
  return p;
}

START_TEST(lies_about_vectors) {
  static const struct {
    const char *from, *to, *want;
  } cases[] = {
      {"\\\"tolerance\\\":\\\"0.125\\\"", "\\\"tolerance\\\":\\\"-0.12\\\"", "this is no tolerance"},
      {"\\\"tolerance\\\":\\\"0.125\\\"", "\\\"tolerance\\\":\\\"  nan\\\"", "this is no tolerance"},
      {"\\\"tolerance\\\":\\\"0.125\\\"", "\\\"tolerance\\\":\\\"much!\\\"", "this is no tolerance"},
      {"\\\"runs\\\":[", "\\\"runt\\\":[", "\\\"runs\\\" is missing"},
      {"[\\\"vectors.g.1.in.1\\\",", "[\\\"vectors.g.1.xx.1\\\",", "there is no tensor vectors.g.1.xx.1"},
      {"[\\\"vectors.g.1.in.1\\\",", "[\\\"vectors.g.1.in.2\\\",",
       "is int64[], and the graph has float32[N,3] there"},
      {"\\\"vectors.g.1.in.2\\\"]", "\\\"vectors.g.1.in.1\\\"]",
       "is float32[1,3], and the graph has number there"},
      {"[\\\"vectors.g.1.in.1\\\",", "[null,", "null stands for a value"},
      {"\\\"vectors.g.1.out.2\\\",", "null,", "null stands for a value"},
      {",\\\"vectors.g.1.in.2\\\"]", "]", "',' is missing"},
      {"]}]}\"", "]}] \"", "'}' is missing"},
      {"]}]}\"", "]} }\"", "']' is missing"},
      {"\"story.c:3\"", "\"story\\n:3\"", "its origin is no text"},
  };
  kn_context *c = suite_context();
  for (size_t i = 0; i < COUNT(cases); i++) {
    size_t n;
    char *p = story_bytes(&n), want[100], to[64];
    size_t k = 0;
    snprintf(to, sizeof to, "%-*s", (int)strlen(cases[i].from), cases[i].to);
    for (const char *s = cases[i].want; *s; s++)
      if (*s != '\\') want[k++] = *s;
    want[k] = 0;
    ck_assert_msg(replace_all(p, n, cases[i].from, to) > 0, "case %zu", i);
    kn_status st = try_load(c, p, n);
    ck_assert_msg(st == KN_FORMAT && strstr(kn_error(c), want), "case %zu: %s", i,
                  st == KN_OK ? "fine" : kn_error(c));
    free(p);
  }
  suite_done(c);
}
END_TEST

/* With a right checksum each byte of the metadata may be anything. */
START_TEST(flipped_and_signed_again) {
  kn_context *c = suite_context();
  size_t n;
  char *p = story_bytes(&n), *m = malloc(n);
  const char *from = strstr(p + 8, "kiln.note"), *vectors = strstr(p + 8, "kiln.vectors");
  ck_assert(from && vectors);
  for (size_t k = (size_t)(from - p); k < n; k++)
    for (int bit = 0; bit < 8; bit += 2) {
      memcpy(m, p, n);
      m[k] = (char)(m[k] ^ 1 << bit);
      sign(m, n);
      kn_status st = try_load(c, m, n);
      ck_assert_msg(st == KN_OK || st == KN_FORMAT || st == KN_VERSION || st == KN_LIMIT,
                    "byte %zu, bit %d: %s: %s", k, bit, kn_status_text(st), kn_error(c));
    }
  free(p);
  free(m);
  suite_done(c);
}
END_TEST

START_TEST(out_of_memory) {
  size_t n;
  char *p = story_bytes(&n);
  kn_status st = KN_NOMEM;
  for (long k = 0; st != KN_OK; k++) {
    ck_assert(k < 5000);
    scarce left = {.left = -1};
    kn_heap *h = kn_heap_new(scarce_alloc, &left, 0);
    kn_context *c = kn_context_new(h, NULL);
    kn_entry *e = NULL;
    uint32_t count = 0;
    machine m = {0};
    left.left = k;
    st = kn_file_load_memory(c, p, n, NULL, NULL, &e, &count);
    if (st == KN_OK) st = kn_file_save(c, temp_path(), e, count);
    if (st == KN_OK && kn_ref_backend.target(c, NULL, &m.target))
      st = kn_session_new(c, e->graph, (const kn_target *[]){&m.target}, 1, &m.s);
    if (st == KN_OK && (st = kn_vectors_test(m.s, e->vectors)) != KN_OK)
      ck_assert_msg(strstr(kn_error(kn_session_context(m.s)), "memory"), "%s",
                    kn_error(kn_session_context(m.s)));
    ck_assert(st == KN_OK || st == KN_NOMEM);
    left.left = -1;
    kn_session_free(m.s);
    if (e) kn_file_free_entries(c->heap, e, count);
    kn_context_free(c);
    ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
    kn_heap_release(h);
  }
  size_t size;
  char *q = slurp(temp_path(), &size);
  ck_assert(size == n && !memcmp(p, q, n));
  unlink(temp_path());
  free(p);
  free(q);
}
END_TEST

SUITE("vectors", recorded_saved_tested, differences, special_values, inputs_as_needed, lies_about_vectors,
      flipped_and_signed_again, out_of_memory)
