/* The .kiln file: round trips, the container's rules, damage at every byte, hostile claims, versions, memory.
 */
#include "spec/kiln_file.h"
#include "graph/safetensors.h"
#include "graph/text.h"
#include <sys/stat.h>
#include <unistd.h>

/* ---- an example with every kind of slot ---- */

static kn_tensor *filled(kn_context *c, kn_dtype d, int rank, int64_t a, int64_t b) {
  kn_type t = {.dtype = (uint8_t)d, .rank = (uint8_t)rank, .dims = {a, b}};
  kn_tensor *x;
  OK(c, kn_tensor_new(c, &t, &x));
  for (int64_t i = 0; i < kn_tensor_numel(x); i++) {
    void *at = (char *)kn_tensor_data(x) + (size_t)i * kn_dtype_size(d);
    if (d == KN_BOOL)
      *(uint8_t *)at = i % 2;
    else if (d == KN_I64)
      *(int64_t *)at = i * 1000 - 5;
    else if (d == KN_F32)
      *(float *)at = 0.1f * (float)i - 1;
    else
      *(double *)at = 0.1 * (double)i;
  }
  return x;
}

static kn_value *slot_value(kn_builder *b, kn_slot_kind kind, const char *name, kn_tensor *t) {
  kn_slot *s = kn_add_slot(b, kind, name, &(kn_vtype){KN_V_TENSOR, t->type}, t);
  kn_tensor_release(t);
  return kn_add_slot_node(b,
                          kind == KN_SLOT_CONST   ? KN_NODE_tensor
                          : kind == KN_SLOT_PARAM ? KN_NODE_param
                                                  : KN_NODE_load_state,
                          s);
}

static kn_graph *example(kn_context *c, const char *name, kn_tensor *shared) {
  kn_graph *g;
  kn_builder b;
  OK(c, kn_graph_new(c, name, &g));
  kn_builder_init(&b, c, g);
  b.where = kn_where_intern(&b, "net.lua", 4, NULL);
  kn_vtype t = {KN_V_TENSOR, {.dtype = KN_F32, .rank = 2, .dims = {kn_symbol_intern(&b, "N"), 3}}};
  kn_value *x = kn_add_input(&b, "x", &t);
  kn_value *w = slot_value(&b, KN_SLOT_PARAM, "net.w", kn_tensor_retain(shared));
  kn_value *small = slot_value(&b, KN_SLOT_CONST, "small", filled(c, KN_F32, 1, 3, 0));
  kn_value *big = slot_value(&b, KN_SLOT_CONST, "big \"\\\n\xc3\xa9", filled(c, KN_F64, 2, 11, 7));
  kn_value *mask = slot_value(&b, KN_SLOT_PARAM, "mask", filled(c, KN_BOOL, 1, 3, 0));
  kn_value *mean = slot_value(&b, KN_SLOT_STATE, "mean", filled(c, KN_I64, 1, 2, 0));
  kn_value *none = slot_value(&b, KN_SLOT_PARAM, "none", filled(c, KN_F32, 2, 0, 4));
  kn_slot *count = kn_add_slot(&b, KN_SLOT_STATE, "count", &(kn_vtype){.kind = KN_V_INT}, NULL);
  count->scalar.as.i = 41;
  kn_value *k = kn_add_slot_node(&b, KN_NODE_load_state, count),
           *one = kn_add_const(&b, (kn_scalar){KN_SCALAR_INT, {.i = 1}});
  kn_add_store(&b, count, kn_add_scalar(&b, KN_NODE_lua_add, (kn_value *[]){k, one}, 2));
  kn_value *y = kn_add_op(&b, KN_OP_matmul, NULL, (kn_value *[]){x, w}, 2, NULL, 0)->out[0];
  kn_value *z = kn_add_op(&b, KN_OP_where, NULL, (kn_value *[]){mask, y, small}, 3, NULL, 0)->out[0];
  kn_add_guard(&b, "global", "n", "3", b.where);
  kn_value *outs[] = {z, big, mean, none};
  kn_set_results(&b, outs, 4, NULL, 0);
  OK(c, kn_graph_finish(&b));
  return g;
}

/* The bytes of a file with the example in it. */
static char *example_bytes(size_t *n) {
  kn_context *c = suite_context();
  kn_tensor *w = filled(c, KN_F32, 2, 3, 3);
  kn_graph *g = example(c, "predict", w);
  OK(c, kn_file_save(c, temp_path(), &(kn_entry){.name = "predict", .graph = g}, 1));
  kn_graph_release(g);
  kn_tensor_release(w);
  suite_done(c);
  char *p = slurp(temp_path(), n);
  unlink(temp_path());
  return p;
}

/* The example with one piece of its bytes replaced by another of the same length, signed again. */
static char *altered(size_t *n, const char *from, const char *to) {
  char *p = example_bytes(n), *at = NULL;
  size_t len = strlen(from);
  ck_assert_uint_eq(len, strlen(to));
  for (size_t i = 0; i + len <= *n && !at; i++)
    if (!memcmp(p + i, from, len)) at = p + i;
  ck_assert_msg(at != NULL, "the file has no %s", from);
  memcpy(at, to, len);
  sign(p, *n);
  return p;
}

static bool same_tensor(const kn_tensor *a, const kn_tensor *b) {
  size_t n;
  return kn_type_equal(&a->type, &b->type) && kn_type_bytes(&a->type, &n) &&
         !memcmp(kn_tensor_data(a), kn_tensor_data(b), n);
}

static void same_graph(kn_context *c, const kn_graph *a, const kn_graph *b) {
  char *x, *y;
  size_t n, m;
  OK(c, kn_graph_print(c, a, KN_TEXT_FULL, &x, &n));
  OK(c, kn_graph_print(c, b, KN_TEXT_FULL, &y, &m));
  ck_assert_str_eq(x, y);
  kn_free(c->heap, x, n + 1);
  kn_free(c->heap, y, m + 1);
  for (uint32_t i = 0; i < a->nslots; i++)
    if (a->slots[i]->tensor)
      ck_assert(same_tensor(a->slots[i]->tensor, b->slots[i]->tensor));
    else
      ck_assert_int_eq(a->slots[i]->scalar.as.i, b->slots[i]->scalar.as.i);
}

/* ---- good files ---- */

START_TEST(checksum_is_the_known_one) {
  kn_crc *c = malloc(sizeof *c);
  kn_crc_start(c);
  kn_crc_feed(c, "123456789", 9);
  ck_assert(kn_crc_value(c) == 0x995DC9BBDF1939FAu);
  char text[100];
  memset(text, 'x', sizeof text);
  kn_crc_start(c);
  kn_crc_feed(c, text, sizeof text);
  uint64_t whole = kn_crc_value(c);
  for (size_t cut = 0; cut <= sizeof text; cut++) {
    kn_crc_start(c);
    kn_crc_feed(c, text, cut);
    kn_crc_feed(c, text + cut, sizeof text - cut);
    ck_assert(kn_crc_value(c) == whole);
  }
  free(c);
}
END_TEST

START_TEST(round_trip) {
  kn_context *c = suite_context();
  kn_tensor *w = filled(c, KN_F32, 2, 3, 3), *kept;
  kn_graph *g = example(c, "predict", w), *h = example(c, "step", w);
  OK(c, kn_file_save(c, temp_path(),
                     (kn_entry[]){{.name = "predict", .graph = g}, {.name = "a second one", .graph = h}}, 2));
  struct stat info;
  mode_t mask = umask(022);
  umask(mask);
  ck_assert(!stat(temp_path(), &info) && (info.st_mode & 0777) == (0644 & ~mask));
  kn_entry *e;
  uint32_t n;
  OK(c, kn_file_load(c, temp_path(), NULL, &e, &n));
  ck_assert_uint_eq(n, 2);
  ck_assert_str_eq(e[0].name, "predict");
  ck_assert_str_eq(e[1].name, "a second one");
  same_graph(c, g, e[0].graph);
  same_graph(c, h, e[1].graph);
  ck_assert_ptr_eq(e[0].graph->slots[0]->tensor, e[1].graph->slots[0]->tensor); /* shared then, shared now */
  ck_assert_ptr_ne(e[0].graph->slots[3]->tensor, e[1].graph->slots[3]->tensor);
  for (uint32_t i = 0; i < e[0].graph->nslots; i++) {
    const kn_tensor *t = e[0].graph->slots[i]->tensor;
    if (t) ck_assert_uint_eq((uintptr_t)kn_tensor_data(t) % kn_dtype_size(kn_tensor_dtype(t)), 0);
  }
  ck_assert_str_eq(e[0].graph->guards[0].name, "n");
  kept = kn_tensor_retain(e[0].graph->slots[0]->tensor);
  kn_file_free_entries(c->heap, e, n);
  ck_assert(same_tensor(kept, w));         /* the mapping lives on */
  ((float *)kn_tensor_data(kept))[0] = 77; /* ours alone: not the file */
  OK(c, kn_file_load(c, temp_path(), NULL, &e, &n));
  same_graph(c, g, e[0].graph);
  kn_file_free_entries(c->heap, e, n);
  kn_tensor_release(kept);
  kn_tensor_release(w);
  kn_graph_release(g);
  kn_graph_release(h);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

/* Two graphs with slots of the same name for different tensors; views of one storage. */
START_TEST(names_and_views) {
  kn_context *c = suite_context();
  kn_tensor *a = filled(c, KN_F32, 2, 3, 3), *b, *turned;
  OK(c, kn_tensor_alias(c, a, &turned));
  turned->strides[0] = 1;
  turned->strides[1] = 3;
  b = filled(c, KN_F32, 2, 3, 3);
  ((float *)kn_tensor_data(b))[8] = -3;
  kn_graph *g = example(c, "g", a), *h = example(c, "h", b), *t = example(c, "t", turned);
  OK(c,
     kn_file_save(
         c, temp_path(),
         (kn_entry[]){{.name = "g", .graph = g}, {.name = "h", .graph = h}, {.name = "t", .graph = t}}, 3));
  kn_entry *e;
  uint32_t n;
  OK(c, kn_file_load(c, temp_path(), NULL, &e, &n));
  ck_assert(same_tensor(e[0].graph->slots[0]->tensor, a) && same_tensor(e[1].graph->slots[0]->tensor, b));
  const float *back = kn_tensor_data(e[2].graph->slots[0]->tensor), *data = kn_tensor_data(a);
  for (int i = 0; i < 9; i++) ck_assert(back[i] == data[i % 3 * 3 + i / 3]);
  kn_file_free_entries(c->heap, e, n);
  kn_graph_release(g);
  kn_graph_release(h);
  kn_graph_release(t);
  kn_tensor_release(a);
  kn_tensor_release(b);
  kn_tensor_release(turned);
  unlink(temp_path());
  suite_done(c);
}
END_TEST

static void count_release(void *ud, void *data, size_t bytes) {
  (void)data, (void)bytes;
  ++*(int *)ud;
}

START_TEST(from_memory) {
  kn_context *c = suite_context();
  size_t size;
  char *p = example_bytes(&size), *odd = malloc(size + 1);
  kn_entry *e, *f;
  uint32_t n;
  int released = 0, released_odd = 0;
  OK(c, kn_file_load_memory(c, p, size, count_release, &released, &e, &n));
  const char *data = kn_tensor_data(e[0].graph->slots[0]->tensor);
  ck_assert(data >= p && data < p + size); /* borrowed, not copied */
  memcpy(odd + 1, p, size);
  OK(c, kn_file_load_memory(c, odd + 1, size, count_release, &released_odd, &f,
                            &n)); /* no float is aligned there */
  same_graph(c, e[0].graph, f[0].graph);
  ck_assert_int_eq(released, 0);
  kn_tensor *t = kn_tensor_retain(e[0].graph->slots[0]->tensor);
  kn_file_free_entries(c->heap, e, 1);
  ck_assert_int_eq(released, 0);
  kn_tensor_release(t);
  ck_assert_int_eq(released, 1);
  kn_file_free_entries(c->heap, f, 1);
  ck_assert_int_eq(released_odd, 1);
  FAILS(c, KN_FORMAT, "", kn_file_load_memory(c, p, size - 1, count_release, &released, &e, &n));
  ck_assert_int_eq(released, 2);
  free(p);
  free(odd);
  suite_done(c);
}
END_TEST

/* ---- what cannot be saved, opened ---- */

START_TEST(refusals) {
  kn_context *c = suite_context();
  kn_tensor *w = filled(c, KN_F32, 2, 3, 3);
  kn_graph *g = example(c, "g", w), *bare;
  kn_entry ok = {.name = "g", .graph = g};
  FAILS(c, KN_ARG, "at least one", kn_file_save(c, temp_path(), &ok, 0));
  FAILS(c, KN_ARG, "name", kn_file_save(c, temp_path(), &(kn_entry){.name = "", .graph = g}, 1));
  FAILS(c, KN_ARG, "name", kn_file_save(c, temp_path(), &(kn_entry){.name = "\xff", .graph = g}, 1));
  FAILS(c, KN_ARG, "two entries have the name g", kn_file_save(c, temp_path(), (kn_entry[]){ok, ok}, 2));
  FAILS(c, KN_IO, "/nowhere/at/all.kiln: No such file", kn_file_save(c, "/nowhere/at/all.kiln", &ok, 1));
  OK(c, kn_file_save(c, temp_path(), &ok, 1));
  const char *text = "graph g() {\n slot param \"lost\": float32[100]\n %x = param \"lost\"\n return %x\n}\n";
  OK(c, kn_graph_parse(c, text, strlen(text), &bare));
  FAILS(c, KN_STATE, "slot lost has no data",
        kn_file_save(c, temp_path(), &(kn_entry){.name = "g", .graph = bare}, 1));
  kn_graph_release(bare);
  OK(c, kn_graph_new(c, "g", &bare));
  FAILS(c, KN_STATE, "still being built",
        kn_file_save(c, temp_path(), &(kn_entry){.name = "g", .graph = bare}, 1));
  kn_graph_release(bare);
  kn_entry *e;
  uint32_t n;
  OK(c, kn_file_load(c, temp_path(), NULL, &e, &n)); /* failed saves have not touched it */
  kn_file_free_entries(c->heap, e, n);
  unlink(temp_path());
  FAILS(c, KN_IO, "cannot open", kn_file_load(c, temp_path(), NULL, &e, &n));
  FAILS(c, KN_IO, "not a regular file", kn_file_load(c, "/tmp", NULL, &e, &n));
  ck_assert_int_eq(mkfifo(temp_path(), 0600), 0); /* and nobody will ever write to it */
  FAILS(c, KN_IO, "not a regular file", kn_file_load(c, temp_path(), NULL, &e, &n));
  unlink(temp_path());
  FILE *f = fopen(temp_path(), "wb");
  fclose(f);
  FAILS(c, KN_FORMAT, "not a kiln graph file", kn_file_load(c, temp_path(), NULL, &e, &n));
  unlink(temp_path());
  kn_graph_release(g);
  kn_tensor_release(w);
  suite_done(c);
}
END_TEST

/* ---- damage ---- */

START_TEST(cut_at_every_length) {
  kn_context *c = suite_context();
  size_t n;
  char *p = example_bytes(&n);
  OK(c, try_load(c, p, n));
  for (size_t k = 0; k < n; k++) {
    kn_status st = try_load(c, p, k);
    ck_assert_msg(st == KN_FORMAT && *kn_error(c), "cut at %zu: %s", k, kn_status_text(st));
  }
  char *more = malloc(n + 1);
  memcpy(more, p, n);
  more[n] = 0;
  FAILS(c, KN_FORMAT, "damaged", try_load(c, more, n + 1));
  sign(more, n + 1);
  FAILS(c, KN_FORMAT, "1 bytes follow after the last tensor", try_load(c, more, n + 1));
  free(more);
  free(p);
  suite_done(c);
}
END_TEST

START_TEST(every_flipped_bit_is_seen) {
  kn_context *c = suite_context();
  size_t n;
  char *p = example_bytes(&n);
  unsigned version = 0;
  for (size_t k = 0; k < n; k++)
    for (int bit = 0; bit < 8; bit++) {
      p[k] = (char)(p[k] ^ 1 << bit);
      kn_status st = try_load(c, p, n);
      ck_assert_msg((st == KN_FORMAT || st == KN_VERSION) && *kn_error(c), "byte %zu, bit %d: %s: %s", k, bit,
                    kn_status_text(st), kn_error(c));
      version += st == KN_VERSION;
      p[k] = (char)(p[k] ^ 1 << bit);
    }
  ck_assert_uint_gt(version, 3); /* the version digit, and op names */
  OK(c, try_load(c, p, n));
  free(p);
  suite_done(c);
}
END_TEST

/* The same behind a right checksum: here the parser, the verifier and the layout must hold alone. */
START_TEST(flipped_and_signed_again) {
  kn_context *c = suite_context();
  size_t n;
  char *p = example_bytes(&n), *m = malloc(n);
  for (size_t k = 8; k < n && k < 3000; k++)
    for (int bit = 0; bit < 8; bit += 3) {
      memcpy(m, p, n);
      m[k] = (char)(m[k] ^ 1 << bit);
      bool signable = false;
      for (size_t i = 0; i + 40 < n && !signable; i++) signable = !memcmp(m + i, "\"kiln.checksum\":\"", 17);
      if (!signable) continue;
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

START_TEST(versions) {
  kn_context *c = suite_context();
  size_t n;
  static const struct {
    const char *from, *to;
    kn_status st;
    const char *want;
  } cases[] = {
      {"\"kiln.version\":\"1\"", "\"kiln.version\":\"2\"", KN_VERSION,
       "format version 2, this kiln (" KN_VERSION_TEXT ") reads up to version 1"},
      {"\"kiln.version\":\"1\"", "\"kiln.version\":\"0\"", KN_FORMAT, "no version"},
      {"\"kiln.version\":\"1\"", "\"kiln.version\":\"x\"", KN_FORMAT, "no version"},
      {"\"kiln.version\":\"1\"", "\"kiln.versiom\":\"1\"", KN_FORMAT, "not a kiln graph file"},
      {"matmul 1", "matmul 2", KN_VERSION,
       "needs version 2 of op matmul, this kiln (" KN_VERSION_TEXT ") has version 1"},
      {"matmul 1", "matmol 1", KN_VERSION, "needs op matmol (version 1), which this kiln"},
      {"matmul 1", "matmul x", KN_FORMAT, "kiln.ops is malformed"},
      {"matmul 1, ", "matmul 1; ", KN_FORMAT, "kiln.ops is malformed"},
      {"\"kiln.ops\"", "\"kiln.opa\"", KN_FORMAT, "no kiln.ops"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *p = altered(&n, cases[i].from, cases[i].to);
    FAILS(c, cases[i].st, cases[i].want, try_load(c, p, n));
    char *at = strstr(p + 8, "kiln.checksum\":\"") + 16; /* versions are told before damage is */
    at[3] = at[3] == '0' ? '1' : '0';
    FAILS(c, cases[i].st, cases[i].want, try_load(c, p, n));
    free(p);
  }
  suite_done(c);
}
END_TEST

START_TEST(lies_behind_a_right_checksum) {
  kn_context *c = suite_context();
  size_t n;
  static const struct {
    const char *from, *to, *want;
  } cases[] = {
      {"\"kiln.graph.predict\"", "\"kiln.graph.predicT\"", "has no kiln.slots.predicT"},
      {"\"kiln.graph.predict\"", "\"kiln.grapH.predict\"", "holds no graph"},
      {"[\\\"net.w\\\"", "[\\\"net.x\\\"", "slot net.w: there is no tensor net.x"},
      {"null", "nulL", "slots of graph predict"},
      {"[\\\"net.w\\\",null", "[\\\"mask\\\" ,null",
       "slot net.w is float32[3,3], its tensor mask is bool[3]"},
      {"float32[3,3]", "float32[3,4]", "this result is declared float32[N,3] but is float32[N,4]"},
      {"matmul %x, %", "matmul %y, %", "graph predict: "},
      {"\"shape\":[3,3]", "\"shape\":[9,1]", "slot net.w is float32[3,3], its tensor net.w is float32[9,1]"},
      {"\"shape\":[3,3]", "\"shape\":[3,4]", "48 bytes are claimed"},
      {"\"dtype\":\"F64\"", "\"dtype\":\"C64\"", "dtype C64 is not supported"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *p = altered(&n, cases[i].from, cases[i].to);
    FAILS(c, KN_FORMAT, cases[i].want, try_load(c, p, n));
    free(p);
  }
  char *p = example_bytes(&n); /* the last tensor is the mask */
  p[n - 1] = 2;
  sign(p, n);
  FAILS(c, KN_FORMAT, "tensor mask: a bool is neither 0 nor 1", try_load(c, p, n));
  free(p);
  suite_done(c);
}
END_TEST

/* ---- the container alone ---- */

#define T(body) "{\"a\":" body "}"
#define I8B "\"data_offsets\":[0,8]"
static const struct {
  const char *header;
  size_t data;      /* bytes behind it */
  const char *want; /* NULL: good */
} containers[] = {
    {"{}", 0, NULL},
    {"{}  ", 0, NULL},
    {"{}\r\t\n ", 0, NULL},
    {"{\"__metadata__\":{}}", 0, NULL},
    {"{\"__metadata__\":{\"a\":\"\\u00e9\\ud83d\\ude00\\/\\n\"}}", 0, NULL},
    {T("{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}"), 8, NULL},
    {T("{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[0,0]}"), 0, NULL},
    {T("{\"data_offsets\":[0,8],\"shape\":[2,1],\"dtype\":\"F32\"}"), 8, NULL},
    {"{\"b\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[3,5]},\"a\":{\"dtype\":\"BOOL\",\"shape\":["
     "3],\"data_offsets\":[0,3]}}",
     5, NULL},
    {"", 0, "does not start with {"},
    {" {}", 0, "does not start with {"},
    {"[]", 0, "does not start with {"},
    {"{", 0, "header, byte 2"},
    {"{}}", 0, "something follows"},
    {"{} x", 0, "something follows"},
    {"{\"a\"}", 0, "':' is missing"},
    {"{a:1}", 0, "'\"' is missing"},
    {"{\"a\":1}", 0, "'{' is missing"},
    {"{\"\xff\":1}", 0, "not valid UTF-8"},
    {"{\"\xc3\":1}", 0, "not valid UTF-8"},
    {"{\"\xed\xa0\x80\":1}", 0, "not valid UTF-8"},
    {"{\"\xc0\x80\":1}", 0, "not valid UTF-8"},
    {"{\"a\nb\":1}", 0, "control character"},
    {"{\"\\u0000\":1}", 0, "zero byte"},
    {"{\"\\ud800\":1}", 0, "surrogate"},
    {"{\"\\ud800\\u0041\":1}", 0, "surrogate"},
    {"{\"\\udc00\":1}", 0, "surrogate"},
    {"{\"\\u12g4\":1}", 0, "hexadecimal"},
    {"{\"\\u12", 0, "does not end"},
    {"{\"\\x\":1}", 0, "escape"},
    {"{\"a\\", 0, "does not end"},
    {"{\"a", 0, "does not end"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "'\"' is missing"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "metadata a is there twice"},
    {"{\"__metadata__\":{\"a\":\"1\",\"\\u0061\":\"2\"}}", 0, "metadata a is there twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ is there twice"},
    {"{\"__metadata__\":{},}", 0, "'\"' is missing"},
    {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{\"dtype\":\"BOOL\",\"shape\":["
     "0],\"data_offsets\":[0,0]}}",
     0, "tensor a is there twice"},
    {T("{}"), 0, "'\"' is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[2]}"), 8, "data_offsets is missing"},
    {T("{\"dtype\":\"F32\"," I8B "}"), 8, "is missing"},
    {T("{\"shape\":[2]," I8B "}"), 8, "is missing"},
    {T("{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2]," I8B "}"), 8, "not known or there twice"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2]," I8B "}"), 8, "not known or there twice"},
    {T("{\"dtype\":\"F32\",\"shape\":[2]," I8B "," I8B "}"), 8, "not known or there twice"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"more\":1," I8B "}"), 8, "not known or there twice"},
    {T("{\"dtype\":\"F32\",\"shape\":[2.0]," I8B "}"), 8, "not whole"},
    {T("{\"dtype\":\"F32\",\"shape\":[2e0]," I8B "}"), 8, "not whole"},
    {T("{\"dtype\":\"F32\",\"shape\":[-2]," I8B "}"), 8, "whole number is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[02]," I8B "}"), 8, "whole number is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[\"2\"]," I8B "}"), 8, "whole number is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[2,]," I8B "}"), 8, "whole number is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[18446744073709551616]," I8B "}"), 8, "too large"},
    {T("{\"dtype\":\"F32\",\"shape\":[18446744073709551614]," I8B "}"), 8, "too large"},
    {T("{\"dtype\":\"F32\",\"shape\":[9223372036854775807,9223372036854775807]," I8B "}"), 8, "too large"},
    {T("{\"dtype\":\"F32\",\"shape\":[4611686018427387905]," I8B "}"), 8, "too large"},
    {T("{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2]," I8B "}"), 8, "9 dimensions"},
    {T("{\"dtype\":\"F99\",\"shape\":[2]," I8B "}"), 8, "dtype F99 is not supported"},
    {T("{\"dtype\":\"f32\",\"shape\":[2]," I8B "}"), 8, "dtype f32 is not supported"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}"), 8, "',' is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}"), 8, "']' is missing"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}"), 8, "claimed to be at"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}"), 12, "a hole"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551600,18446744073709551608]}"), 8,
     "claimed to be at"},
    {T("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551615,7]}"), 8, "claimed to be at"},
    {T("{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}"), 8, "claimed to be at"},
    {T("{\"dtype\":\"F32\",\"shape\":[2]," I8B "}"), 6, "claimed to be at"},
    {T("{\"dtype\":\"F32\",\"shape\":[2]," I8B "}"), 9, "1 bytes follow"},
    {"{}", 1, "1 bytes follow"},
    {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"BOOL\",\"shape\":["
     "2],\"data_offsets\":[1,3]}}",
     3, "overlap"},
    {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"BOOL\",\"shape\":["
     "2],\"data_offsets\":[0,2]}}",
     2, "overlap"},
    {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"BOOL\",\"shape\":["
     "2],\"data_offsets\":[3,5]}}",
     5, "hole"},
};

static kn_status read_container(kn_context *c, const void *p, size_t n) {
  kn_st_file f;
  kn_status st = kn_safetensors_read(c, p, n, "kiln graph", &f);
  if (st == KN_OK) st = kn_safetensors_check(c, &f);
  kn_safetensors_free(&f);
  return st;
}

START_TEST(container_rules) {
  kn_context *c = suite_context();
  for (size_t i = 0; i < sizeof containers / sizeof *containers; i++) {
    size_t n = strlen(containers[i].header), size = 8 + n + containers[i].data;
    char *p = calloc(size, 1);
    p[0] = (char)n;
    p[1] = (char)(n >> 8);
    memcpy(p + 8, containers[i].header, n);
    kn_status st = read_container(c, p, size);
    if (!containers[i].want) {
      ck_assert_msg(st == KN_OK, "%s: %s", containers[i].header, kn_error(c));
      FAILS(c, KN_FORMAT, "not a kiln graph file", try_load(c, p, size));
    } else
      ck_assert_msg(st == KN_FORMAT && strstr(kn_error(c), containers[i].want), "%s: %s",
                    containers[i].header, st == KN_OK ? "fine" : kn_error(c));
    free(p);
  }
  FAILS(c, KN_FORMAT, "0 bytes are too few", read_container(c, "", 0));
  FAILS(c, KN_FORMAT, "7 bytes are too few", read_container(c, "1234567", 7));
  FAILS(c, KN_FORMAT, "does not start with {", read_container(c, "\0\0\0\0\0\0\0\0", 8));
  FAILS(c, KN_FORMAT, "the header claims 2 bytes", read_container(c, "\2\0\0\0\0\0\0\0{", 9));
  FAILS(c, KN_FORMAT, "the header claims 18446744073709551615 bytes",
        read_container(c, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  size_t big = (size_t)(16 << 20) + 1;
  char *p = calloc(big + 8, 1);
  memset(p + 8, ' ', big);
  for (int i = 0; i < 8; i++) p[i] = (char)(big >> 8 * i);
  p[8] = '{';
  p[9] = '}';
  FAILS(c, KN_FORMAT, "at most 16777216 are read", read_container(c, p, big + 8));
  free(p);
  suite_done(c);
}
END_TEST

START_TEST(many_tensors_in_any_order) {
  kn_context *c = suite_context();
  enum { COUNT = 3000 };
  char *header = malloc(COUNT * 90);
  size_t at = 0;
  for (int i = 0; i < COUNT; i++) {
    int k = (int)((i * 1237L) % COUNT); /* every place once, scattered */
    at +=
        (size_t)sprintf(header + at, "%c\"t%d\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[%d,%d]}",
                        i ? ',' : '{', k, 2 * k, 2 * k + 2);
  }
  header[at++] = '}';
  char *p = calloc(8 + at + 2 * COUNT, 1);
  for (int i = 0; i < 8; i++) p[i] = (char)(at >> 8 * i);
  memcpy(p + 8, header, at);
  OK(c, read_container(c, p, 8 + at + 2 * COUNT));
  free(p);
  free(header);
  suite_done(c);
}
END_TEST

/* ---- out of memory at every allocation ---- */

static void *alloc_failing(void *ud, void *p, size_t osize, size_t nsize) {
  uint64_t *left = ud;
  if (!nsize) {
    free(p);
    return NULL;
  }
  if ((!p || nsize > osize) && *left != UINT64_MAX && (*left == 0 || (*left)-- == 0)) return NULL;
  return realloc(p, nsize);
}

START_TEST(failing_allocator) {
  size_t n;
  char *p = example_bytes(&n);
  kn_status st = KN_NOMEM;
  uint64_t k = 0;
  for (; st != KN_OK; k++) {
    ck_assert(k < 10000);
    uint64_t left = UINT64_MAX;
    kn_heap *h = kn_heap_new(alloc_failing, &left, 0);
    kn_context *c = kn_context_new(h, NULL);
    left = k;
    kn_entry *e;
    uint32_t count;
    int released = 0;
    st = k % 2 ? kn_file_load_memory(c, p, n, count_release, &released, &e, &count)
               : kn_file_load_memory(c, p, n, NULL, NULL, &e, &count);
    if (st == KN_OK) {
      st = kn_file_save(c, temp_path(), e, count);
      left = UINT64_MAX;
      kn_file_free_entries(c->heap, e, count);
    }
    ck_assert_msg(st == KN_OK || (st == KN_NOMEM && strstr(kn_error(c), "memory")), "allocation %u: %s",
                  (unsigned)k, kn_error(c));
    ck_assert_int_eq(released, k % 2);
    ck_assert(st == KN_OK || access(temp_path(), F_OK));
    left = UINT64_MAX;
    kn_context_free(c);
    ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
    kn_heap_release(h);
  }
  ck_assert_uint_gt(k, 30);
  size_t m;
  char *q = slurp(temp_path(), &m);
  ck_assert(n == m && !memcmp(p, q, n)); /* loaded and saved: the same bytes */
  unlink(temp_path());
  free(p);
  free(q);
}
END_TEST

SUITE("file", checksum_is_the_known_one, round_trip, names_and_views, from_memory, refusals,
      cut_at_every_length, every_flipped_bit_is_seen, flipped_and_signed_again, versions,
      lies_behind_a_right_checksum, container_rules, many_tensors_in_any_order, failing_allocator)
