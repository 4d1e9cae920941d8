/* kiln.h as a host uses it: life cycle, names and kinds, errors, limits, cancelling, threads, and memory that
 * runs out at every allocation. Only the models are made with internals. */
#define _POSIX_C_SOURCE 200809L /* mkstemp, nanosleep */
#include "spec/capi.h"
#include <math.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

/* ---- models ---- */

/* predict: a branch, nested results with constants, a counter. spin: a loop that ends when told. */
static const char predict_text[] =
    "graph predict(%x: float32[N,4], {k = %k: float, flag = %flag: boolean}) {\n"
    "  slot param \"w\": float32[4,3]\n"
    "  slot state \"count\": integer\n"
    "  %n = load_state \"count\"\n"
    "  %one = const 1\n"
    "  %next: integer = lua.add %n, %one\n"
    "  store_state \"count\", %next\n"
    "  %w = param \"w\"\n"
    "  %y: float32[N,3] = matmul %x, %w\n"
    "  %s: float32[] = to_tensor %k\n"
    "  %z: float32[N,3], %num: number = if %flag {\n"
    "    %a: float32[N,3] = mul %y, %s\n"
    "    yield %a, %k\n"
    "  } else {\n"
    "    yield %y, %one\n"
    "  }\n"
    "  %noise: float32[2] = rand {sizes = {2}, dtype = \"float32\"}\n"
    "  return %z, {label = \"deep\", {%num, 7, nil}, ok = %flag, count = %next}, %noise, 2.5\n"
    "}\n";
static const char spin_text[] = "graph spin(%trips: integer) {\n"
                                "  %zero = const 0\n"
                                "  %last: integer = loop (%i: integer = %zero) {\n"
                                "    %one = const 1\n"
                                "    %i2: integer = lua.add %i, %one\n"
                                "    %more: boolean = lua.lt %i2, %trips\n"
                                "    continue_if %more next(%i2) exit(%i2)\n"
                                "  }\n"
                                "  return %last\n"
                                "}\n";

static const float w[12] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};

/* Writes a file with both; the caller unlinks it. */
static void write_models(char path[PATH_ROOM]) {
  kn_context *c = suite_context();
  kn_graph *g[] = {parsed(c, predict_text), parsed(c, spin_text)};
  kn_type type = {.dtype = KN_F32, .rank = 2, .dims = {4, 3}};
  OK(c, kn_tensor_new(c, &type, &g[0]->slots[0]->tensor));
  memcpy(kn_tensor_data(g[0]->slots[0]->tensor), w, sizeof w);
  write_graphs(c, path, g, 2);
  suite_done(c);
}

/* ---- a host ---- */

typedef struct host {
  account memory;
  char path[32];
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
} host;

static void open_host(host *h, const char *entry) {
  char error[256] = "";
  memset(h, 0, sizeof *h);
  h->memory.left = -1;
  write_models(h->path);
  kiln_context_options o = {.size = sizeof o, .alloc = count, .alloc_ud = &h->memory};
  GOOD(kiln_context_new(&o, &h->ctx, error, sizeof error), error);
  GOOD(kiln_graph_load(h->ctx, h->path, entry, &h->g), kiln_error(h->ctx));
  GOOD(kiln_session_new(h->ctx, h->g, &h->s), kiln_error(h->ctx));
}

static void close_host(host *h) {
  kiln_session_free(h->s);
  kiln_graph_release(h->g);
  kiln_context_free(h->ctx);
  unlink(h->path);
  ck_assert_int_eq(h->memory.live, 0);
}

static kiln_tensor *floats(host *h, int64_t rows, int64_t columns, const float *data) {
  kiln_tensor *t = NULL;
  GOOD(kiln_tensor_new(h->ctx, KILN_FLOAT32, 2, (int64_t[]){rows, columns}, data, &t), kiln_error(h->ctx));
  return t;
}

static void set_all(host *h, double k, int flag) {
  kiln_tensor *x = floats(h, 2, 4, (float[]){1, 2, 3, 4, 5, 6, 7, 8});
  GOOD(kiln_session_set_tensor(h->s, "x", x), kiln_session_error(h->s));
  GOOD(kiln_session_set_float(h->s, "k", k), kiln_session_error(h->s));
  GOOD(kiln_session_set_boolean(h->s, "flag", flag), kiln_session_error(h->s));
  kiln_tensor_release(x); /* the session holds it */
}

/* ---- the life cycle ---- */

START_TEST(from_file_to_numbers) {
  host h;
  open_host(&h, "predict");
  for (int flag = 0; flag < 2; flag++) {
    set_all(&h, 10, flag);
    size_t bytes = 0;
    GOOD(kiln_session_memory(h.s, &bytes), kiln_session_error(h.s));
    ck_assert_uint_gt(bytes, 0);
    GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
    kiln_tensor *z;
    const float want[6] = {5, 6, 7, 13, 14, 15};
    float got[6], by = flag ? 10 : 1;
    GOOD(kiln_session_get_tensor(h.s, "z", &z), kiln_session_error(h.s));
    ck_assert(kiln_tensor_rank(z) == 2 && kiln_tensor_size(z, 0) == 2 && kiln_tensor_size(z, 1) == 3);
    ck_assert(kiln_tensor_dtype(z) == KILN_FLOAT32 && kiln_tensor_numel(z) == 6 &&
              kiln_tensor_size(z, 2) == 0);
    GOOD(kiln_tensor_read(h.ctx, z, got, sizeof got), kiln_error(h.ctx));
    for (int i = 0; i < 6; i++) ck_assert(got[i] == by * want[i]);
    BAD(KILN_ARG, "takes 24 bytes", kiln_tensor_read(h.ctx, z, got, 23), kiln_error(h.ctx));
    kiln_tensor_release(z);
    double num = 0;
    int ok = -1;
    int64_t n = 0;
    GOOD(kiln_session_get_float(h.s, "2.1.1", &num), kiln_session_error(h.s));
    GOOD(kiln_session_get_boolean(h.s, "2.ok", &ok), kiln_session_error(h.s));
    GOOD(kiln_session_get_integer(h.s, "count", &n), kiln_session_error(h.s));
    ck_assert(num == (flag ? 10.0 : 1.0) && ok == flag && n == flag + 1);
    BAD(KILN_ARG, "output ok is a boolean, not a tensor", kiln_session_get_tensor(h.s, "ok", &z),
        kiln_session_error(h.s));
    BAD(KILN_ARG, "no output \"q\"", kiln_session_get_tensor(h.s, "q", &z), kiln_session_error(h.s));
  }
  close_host(&h);
}
END_TEST

START_TEST(inputs_outputs_and_slots_tell_about_themselves) {
  host h;
  open_host(&h, "predict");
  kiln_info v = {.size = sizeof v};
  ck_assert_str_eq(kiln_graph_name(h.g), "predict");
  ck_assert_int_eq(kiln_graph_input_count(h.g), 3);
  ck_assert_int_eq(kiln_graph_input(h.g, 0, &v), KILN_OK);
  ck_assert_str_eq(v.name, "x");
  ck_assert(v.kind == KILN_TENSOR && v.dtype == KILN_FLOAT32 && v.rank == 2 && v.sizes[0] == -1 &&
            v.sizes[1] == 4);
  ck_assert_str_eq(v.symbols[0], "N");
  ck_assert_ptr_null(v.symbols[1]);
  ck_assert(kiln_graph_input(h.g, 1, &v) == KILN_OK && v.kind == KILN_FLOAT && !strcmp(v.name, "k"));
  ck_assert(kiln_graph_input(h.g, 3, &v) == KILN_INDEX && kiln_graph_input(h.g, -1, &v) == KILN_INDEX);

  static const struct {
    const char *name, *label;
    kiln_kind kind;
    int constant;
  } out[] = {{"1", "z", KILN_TENSOR, 0},
             {"2.label", NULL, KILN_STRING, 1},
             {"2.1.1", "num", KILN_NUMBER, 0},
             {"2.1.2", NULL, KILN_INTEGER, 1},
             {"2.1.3", NULL, KILN_NIL, 1},
             {"2.ok", "flag", KILN_BOOLEAN, 0},
             {"2.count", "next", KILN_INTEGER, 0},
             {"3", "noise", KILN_TENSOR, 0},
             {"4", NULL, KILN_FLOAT, 1}};
  ck_assert_int_eq(kiln_graph_output_count(h.g), 9);
  for (int i = 0; i < 9; i++) {
    ck_assert_int_eq(kiln_graph_output(h.g, i, &v), KILN_OK);
    ck_assert_str_eq(v.name, out[i].name);
    ck_assert_pstr_eq(v.label, out[i].label);
    ck_assert(v.kind == out[i].kind && v.constant == out[i].constant);
    ck_assert_int_eq(kiln_graph_find_output(h.g, v.name), i);
    if (v.label) ck_assert_int_eq(kiln_graph_find_output(h.g, v.label), i);
  }
  ck_assert_int_eq(kiln_graph_find_output(h.g, "label"), 1); /* the last part alone */
  ck_assert_int_eq(kiln_graph_find_output(h.g, "nothing"), -1);
  ck_assert(kiln_graph_output(h.g, 9, &v) == KILN_INDEX);

  kiln_value c;
  GOOD(kiln_session_get(h.s, 1, &c), ""); /* constants are there before any run */
  ck_assert(c.kind == KILN_STRING && c.length == 4 && !strcmp(c.text, "deep"));
  GOOD(kiln_session_get(h.s, 3, &c), "");
  ck_assert(c.kind == KILN_INTEGER && c.i == 7);
  GOOD(kiln_session_get(h.s, 4, &c), "");
  ck_assert(c.kind == KILN_NIL);
  GOOD(kiln_session_get(h.s, 8, &c), "");
  ck_assert(c.kind == KILN_FLOAT && c.f == 2.5);

  ck_assert_int_eq(kiln_graph_slot_count(h.g), 2);
  int wi = kiln_graph_find_slot(h.g, "w"), ci = kiln_graph_find_slot(h.g, "count");
  ck_assert(kiln_graph_slot(h.g, wi, &v) == KILN_OK && v.constant && v.kind == KILN_TENSOR &&
            v.sizes[1] == 3);
  ck_assert(kiln_graph_slot(h.g, ci, &v) == KILN_OK && !v.constant && v.kind == KILN_INTEGER);
  ck_assert(kiln_graph_find_slot(h.g, "v") == -1 && kiln_graph_find_input(h.g, "y") == -1);

  kiln_info small = {.size = offsetof(kiln_info, label)}; /* a host compiled with an older, shorter struct */
  small.label = "untouched";
  ck_assert(kiln_graph_input(h.g, 0, &small) == KILN_OK);
  ck_assert_str_eq(small.name, "x");
  ck_assert_str_eq(small.label, "untouched");
  close_host(&h);
}
END_TEST

START_TEST(slots_are_read_and_set) {
  host h;
  open_host(&h, "predict");
  int wi = kiln_graph_find_slot(h.g, "w"), ci = kiln_graph_find_slot(h.g, "count");
  kiln_value v;
  GOOD(kiln_session_set_slot(h.s, ci, &(kiln_value){.kind = KILN_INTEGER, .i = 40}), kiln_session_error(h.s));
  kiln_tensor *twice = floats(&h, 4, 3, (float[]){2, 0, 0, 0, 2, 0, 0, 0, 2, 2, 2, 2});
  GOOD(kiln_session_set_slot(h.s, wi, &(kiln_value){.kind = KILN_TENSOR, .tensor = twice}),
       kiln_session_error(h.s));
  kiln_tensor_release(twice);
  set_all(&h, 1, 0);
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_get(h.s, 0, &v), kiln_session_error(h.s));
  ck_assert(((float *)kiln_tensor_data(v.tensor))[0] == 10);
  kiln_value_clear(&v);
  ck_assert_int_eq(v.kind, KILN_NIL);
  GOOD(kiln_session_get_slot(h.s, ci, &v), kiln_session_error(h.s));
  ck_assert(v.kind == KILN_INTEGER && v.i == 41);
  GOOD(kiln_session_get_slot(h.s, wi, &v), kiln_session_error(h.s));
  ck_assert(v.kind == KILN_TENSOR && kiln_tensor_is_contiguous(v.tensor) &&
            kiln_tensor_stride(v.tensor, 0) == 3);
  kiln_value_clear(&v);
  BAD(KILN_INDEX, "no slot number 2", kiln_session_get_slot(h.s, 2, &v), kiln_session_error(h.s));
  BAD(KILN_ARG, "slot \"w\"", kiln_session_set_slot(h.s, wi, &(kiln_value){.kind = KILN_INTEGER}),
      kiln_session_error(h.s));

  kiln_session *fresh; /* another session starts from the file */
  GOOD(kiln_session_new(h.ctx, h.g, &fresh), kiln_error(h.ctx));
  GOOD(kiln_session_get_slot(fresh, ci, &v), kiln_session_error(fresh));
  ck_assert_int_eq(v.i, 0);
  kiln_session_free(fresh);
  close_host(&h);
}
END_TEST

static void noise(host *h, float out[2]) {
  kiln_tensor *t;
  GOOD(kiln_session_run(h->s), kiln_session_error(h->s));
  GOOD(kiln_session_get_tensor(h->s, "noise", &t), kiln_session_error(h->s));
  GOOD(kiln_tensor_read(h->ctx, t, out, 8), kiln_error(h->ctx));
  kiln_tensor_release(t);
}

START_TEST(seeds) {
  host h;
  float a[2], b[2];
  open_host(&h, "predict");
  set_all(&h, 1, 0);
  kiln_session_seed(h.s, 5);
  noise(&h, a);
  noise(&h, b);
  ck_assert(memcmp(a, b, sizeof a) != 0);
  kiln_session_seed(h.s, 5);
  noise(&h, b);
  ck_assert(memcmp(a, b, sizeof a) == 0);
  close_host(&h);
}
END_TEST

/* ---- tensors ---- */

static void note(void *ud, void *data, size_t bytes) {
  (void)data;
  *(size_t *)ud += bytes;
}

START_TEST(tensors) {
  host h;
  open_host(&h, "predict");
  size_t released = 0;
  float mine[6] = {1, 2, 3, 4, 5, 6};
  kiln_tensor *t = NULL, *none = NULL;
  GOOD(kiln_tensor_wrap(h.ctx, KILN_FLOAT32, 2, (int64_t[]){2, 3}, mine, note, &released, &t),
       kiln_error(h.ctx));
  ck_assert_ptr_eq(kiln_tensor_data(t), mine);
  kiln_tensor_retain(t);
  kiln_tensor_release(t);
  ck_assert_uint_eq(released, 0);
  kiln_tensor_release(t);
  ck_assert_uint_eq(released, sizeof mine);
  BAD(KILN_SHAPE, "below 0",
      kiln_tensor_wrap(h.ctx, KILN_FLOAT32, 1, (int64_t[]){-1}, mine, note, &released, &none),
      kiln_error(h.ctx));
  BAD(KILN_ARG, "not aligned",
      kiln_tensor_wrap(h.ctx, KILN_FLOAT32, 1, (int64_t[]){1}, (char *)mine + 1, NULL, NULL, &none),
      kiln_error(h.ctx));
  BAD(KILN_SHAPE, "0 to 8 dimensions", kiln_tensor_new(h.ctx, KILN_FLOAT32, 9, (int64_t[9]){1}, NULL, &none),
      kiln_error(h.ctx));
  BAD(KILN_SHAPE, "too large",
      kiln_tensor_new(h.ctx, KILN_FLOAT64, 2, (int64_t[]){INT64_MAX, 3}, NULL, &none), kiln_error(h.ctx));
  BAD(KILN_ARG, "sizes are needed", kiln_tensor_new(h.ctx, KILN_BOOL, 1, NULL, NULL, &none),
      kiln_error(h.ctx));
  BAD(KILN_DTYPE, "number 99", kiln_tensor_new(h.ctx, (kiln_dtype)99, 0, NULL, NULL, &none),
      kiln_error(h.ctx));
  ck_assert_ptr_null(none);
  GOOD(kiln_tensor_new(h.ctx, KILN_INT64, 0, NULL, NULL, &t), kiln_error(h.ctx));
  ck_assert(kiln_tensor_rank(t) == 0 && kiln_tensor_numel(t) == 1 && *(int64_t *)kiln_tensor_data(t) == 0);
  kiln_tensor_release(t);
  GOOD(kiln_tensor_new(h.ctx, KILN_BOOL, 1, (int64_t[]){0}, NULL, &t), kiln_error(h.ctx));
  GOOD(kiln_tensor_read(h.ctx, t, NULL, 0), kiln_error(h.ctx));
  kiln_tensor_release(t);
  kiln_tensor_release(NULL);
  ck_assert_str_eq(kiln_dtype_name(KILN_FLOAT32), "float32");
  static const size_t bytes[] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1};
  for (int d = KILN_FLOAT32; d <= KILN_BOOL; d++) {
    ck_assert(kiln_dtype_name((kiln_dtype)d) && kiln_dtype_size((kiln_dtype)d) == bytes[d - 1]);
    GOOD(kiln_tensor_new(h.ctx, (kiln_dtype)d, 1, (int64_t[]){3}, NULL, &t), kiln_error(h.ctx));
    ck_assert_int_eq(kiln_tensor_dtype(t), d);
    kiln_tensor_release(t);
  }
  ck_assert(!kiln_dtype_name((kiln_dtype)77) && !kiln_dtype_size((kiln_dtype)77));
  close_host(&h);
}
END_TEST

START_TEST(tensors_outlive_their_context) {
  account memory = {.left = -1};
  kiln_context_options o = {.size = sizeof o, .alloc = count, .alloc_ud = &memory};
  kiln_context *ctx;
  kiln_tensor *t;
  GOOD(kiln_context_new(&o, &ctx, NULL, 0), "");
  GOOD(kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){3}, (float[]){1, 2, 3}, &t), kiln_error(ctx));
  kiln_context_free(ctx);
  ck_assert(((float *)kiln_tensor_data(t))[2] == 3);
  kiln_tensor_release(t);
  ck_assert_int_eq(memory.live, 0);
}
END_TEST

/* ---- errors ---- */

START_TEST(what_is_wrong_is_said) {
  host h;
  open_host(&h, "predict");
  kiln_graph *g = NULL;
  kiln_context *c = NULL;
  char error[256];
  BAD(KILN_ARG, "no graph \"nothing\", but \"predict\", \"spin\"",
      kiln_graph_load(h.ctx, h.path, "nothing", &g), kiln_error(h.ctx));
  BAD(KILN_ARG, "2 graphs, and none was named", kiln_graph_load(h.ctx, h.path, NULL, &g), kiln_error(h.ctx));
  BAD(KILN_IO, "/nowhere.kiln", kiln_graph_load(h.ctx, "/nowhere.kiln", NULL, &g), kiln_error(h.ctx));
  BAD(KILN_FORMAT, "", kiln_graph_load_memory(h.ctx, "rubbish", 7, NULL, NULL, NULL, &g), kiln_error(h.ctx));
  ck_assert_ptr_null(g);
  kiln_context_options o = {.size = sizeof o, .backend = "abacus"};
  BAD(KILN_ARG, "abacus", kiln_context_new(&o, &c, error, sizeof error), error);
  o = (kiln_context_options){.size = sizeof o, .threads = -1};
  BAD(KILN_ARG, "threads", kiln_context_new(&o, &c, error, sizeof error), error);
  o = (kiln_context_options){0};
  BAD(KILN_ARG, "size", kiln_context_new(&o, &c, error, sizeof error), error);
  ck_assert_ptr_null(c);

  kiln_value v = {0};
  kiln_tensor *x = floats(&h, 2, 5, NULL), *d = NULL;
  BAD(KILN_STATE, "input x was not set", kiln_session_run(h.s), kiln_session_error(h.s));
  BAD(KILN_STATE, "no output 1", kiln_session_get(h.s, 0, &v), kiln_session_error(h.s));
  BAD(KILN_INDEX, "no output number 9", kiln_session_get(h.s, 9, &v), kiln_session_error(h.s));
  BAD(KILN_INDEX, "no input number -1", kiln_session_set(h.s, -1, &v), kiln_session_error(h.s));
  BAD(KILN_ARG, "input x: a tensor, integer, float or boolean is needed", kiln_session_set(h.s, 0, &v),
      kiln_session_error(h.s));
  BAD(KILN_ARG, "no input \"y\", but x, k, flag", kiln_session_set_float(h.s, "y", 1),
      kiln_session_error(h.s));
  set_all(&h, 1, 1);
  GOOD(kiln_session_set_tensor(h.s, "x", x), kiln_session_error(h.s));
  BAD(KILN_SHAPE, "input x: float32[N,4] is needed (got float32[2,5])", kiln_session_run(h.s),
      kiln_session_error(h.s));
  GOOD(kiln_tensor_new(h.ctx, KILN_FLOAT64, 2, (int64_t[]){2, 4}, NULL, &d), kiln_error(h.ctx));
  GOOD(kiln_session_set_tensor(h.s, "x", d), kiln_session_error(h.s));
  BAD(KILN_DTYPE, "got float64[2,4]", kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_set_integer(h.s, "x", 3), kiln_session_error(h.s));
  BAD(KILN_ARG, "got an integer", kiln_session_run(h.s), kiln_session_error(h.s));
  set_all(&h, 1, 1);
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s)); /* and after all that it still works */
  kiln_tensor_release(x);
  kiln_tensor_release(d);
  close_host(&h);
}
END_TEST

START_TEST(a_file_in_memory) {
  host h;
  open_host(&h, "predict");
  FILE *f = fopen(h.path, "rb");
  char *data = malloc(1 << 16), *copy;
  size_t n = fread(data, 1, 1 << 16, f), released = 0;
  fclose(f);
  kiln_graph *g = NULL;
  copy = malloc(n);
  memcpy(copy, data, n);
  GOOD(kiln_graph_load_memory(h.ctx, copy, n, "spin", NULL, NULL, &g), kiln_error(h.ctx));
  free(copy); /* it was copied */
  ck_assert_str_eq(kiln_graph_name(g), "spin");
  kiln_graph_release(g);
  GOOD(kiln_graph_load_memory(h.ctx, data, n, "predict", note, &released, &g), kiln_error(h.ctx));
  ck_assert_uint_eq(released, 0);
  kiln_graph_release(kiln_graph_retain(g));
  kiln_graph_release(g);
  ck_assert_uint_eq(released, n);
  BAD(KILN_ARG, "no graph \"x\"", kiln_graph_load_memory(h.ctx, data, n, "x", note, &released, &g),
      kiln_error(h.ctx));
  ck_assert_uint_eq(released, 2 * n);
  free(data);
  close_host(&h);
}
END_TEST

/* ---- limits ---- */

START_TEST(steps_are_limited) {
  host h;
  int64_t n = 0;
  open_host(&h, "spin");
  GOOD(kiln_session_set_integer(h.s, "trips", 1000), kiln_session_error(h.s));
  kiln_session_set_step_limit(h.s, 100);
  BAD(KILN_LIMIT, "", kiln_session_run(h.s), kiln_session_error(h.s));
  kiln_session_set_step_limit(h.s, 0);
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_get_integer(h.s, "1", &n), kiln_session_error(h.s));
  ck_assert_int_eq(n, 1000);
  close_host(&h);
}
END_TEST

START_TEST(a_profile_is_a_text) {
  host h;
  const char *text = NULL, *again = NULL;
  int64_t n = 0;
  open_host(&h, "predict");
  BAD(KILN_STATE, "was not set", kiln_session_profile(h.s, NULL, &text), kiln_session_error(h.s));
  set_all(&h, 2, 1);
  kiln_profile_options o = {.size = sizeof o, .runs = -1};
  BAD(KILN_ARG, "-1", kiln_session_profile(h.s, &o, &text), kiln_session_error(h.s));
  o.size = 1;
  BAD(KILN_ARG, "their size", kiln_session_profile(h.s, &o, &text), kiln_session_error(h.s));
  ck_assert_ptr_null(text);
  GOOD(kiln_session_profile(h.s, NULL, &text), kiln_session_error(h.s));
  ck_assert(strstr(text, "profile of predict: 10 runs") && strstr(text, "matmul %y"));
  o = (kiln_profile_options){.size = sizeof o, .runs = 1, .nodes = 1};
  GOOD(kiln_session_profile(h.s, &o, &again), kiln_session_error(h.s));
  ck_assert(strstr(again, "profile of predict: 1 run, median") != NULL);
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_get_integer(h.s, "count", &n), kiln_session_error(h.s));
  ck_assert_int_eq(n, 1); /* the first run that counts */
  close_host(&h);
}
END_TEST

static void *cancel_soon(void *ud) {
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  kiln_session_cancel(ud);
  return NULL;
}

START_TEST(a_run_is_cancelled) {
  host h;
  pthread_t t;
  int64_t n = 0;
  open_host(&h, "spin");
  GOOD(kiln_session_set_integer(h.s, "trips", INT64_MAX), kiln_session_error(h.s));
  ck_assert_int_eq(pthread_create(&t, NULL, cancel_soon, h.s), 0);
  BAD(KILN_CANCELLED, "stopped by the host (cancelled)", kiln_session_run(h.s), kiln_session_error(h.s));
  pthread_join(t, NULL);
  BAD(KILN_STATE, "no output", kiln_session_get_integer(h.s, "1", &n), kiln_session_error(h.s));
  kiln_session_cancel(h.s); /* between runs: the next one */
  GOOD(kiln_session_set_integer(h.s, "trips", 3), kiln_session_error(h.s));
  BAD(KILN_CANCELLED, "before it began", kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  close_host(&h);
}
END_TEST

START_TEST(memory_is_limited) {
  char path[32], error[256] = "";
  write_models(path);
  kiln_context_options o = {.size = sizeof o, .memory_limit = 1 << 20};
  kiln_context *ctx;
  kiln_tensor *t;
  GOOD(kiln_context_new(&o, &ctx, error, sizeof error), error);
  BAD(KILN_NOMEM, "out of memory", kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){1 << 19}, NULL, &t),
      kiln_error(ctx));
  GOOD(kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){1 << 15}, NULL, &t), kiln_error(ctx));
  kiln_memory m = {.size = sizeof m};
  kiln_context_memory(ctx, &m);
  ck_assert(m.bytes >= 1 << 17 && m.bytes <= 1 << 20 && m.peak >= m.bytes && m.blocks > 0);
  kiln_tensor_release(t);
  kiln_context_free(ctx);
  o.memory_limit = 100;
  BAD(KILN_NOMEM, "out of memory", kiln_context_new(&o, &ctx, error, sizeof error), error);
  unlink(path);
}
END_TEST

/* ---- memory that runs out ---- */

/* Everything a host does, stopping at the first failure; all is given back. */
static kiln_status everything(account *memory, const char *path) {
  kiln_context *ctx = NULL, *child = NULL;
  kiln_graph *g = NULL;
  kiln_session *s = NULL;
  kiln_tensor *x = NULL, *y = NULL, *wrapped = NULL;
  kiln_value v = {0}, slot = {0};
  size_t bytes, released = 0;
  char error[64];
  float mine[8] = {1, 2, 3, 4, 5, 6, 7, 8}, got[6];
  kiln_backend b = {.size = sizeof b};
  kiln_context_options o = {.size = sizeof o, .alloc = count, .alloc_ud = memory, .output = NULL};
  kiln_status st = kiln_context_new(&o, &ctx, error, sizeof error);
  if (!st) st = kiln_context_child(ctx, &child);
  if (!st) st = kiln_backend_report(ctx, kiln_backend_count() - 1, &b);
  if (!st) st = kiln_graph_load(ctx, path, "predict", &g);
  if (!st) st = kiln_session_new(child, g, &s);
  if (!st) st = kiln_tensor_new(ctx, KILN_FLOAT32, 2, (int64_t[]){2, 4}, mine, &x);
  if (!st) st = kiln_tensor_wrap(ctx, KILN_FLOAT32, 2, (int64_t[]){2, 4}, mine, note, &released, &wrapped);
  if (!st) st = kiln_session_set_tensor(s, "x", x);
  if (!st) st = kiln_session_set_tensor(s, "x", wrapped);
  if (!st) st = kiln_session_set_float(s, "k", 2);
  if (!st) st = kiln_session_set_boolean(s, "flag", 1);
  if (!st) st = kiln_session_memory(s, &bytes);
  for (int i = 0; i < 2; i++)
    if (!st) st = kiln_session_run(s);
  if (!st) st = kiln_session_get(s, 0, &v);
  if (!st) st = kiln_session_get_tensor(s, "noise", &y);
  if (!st) st = kiln_tensor_read(ctx, v.tensor, got, sizeof got);
  if (!st) st = kiln_session_get_slot(s, 0, &slot);
  if (!st) st = kiln_session_set_slot(s, 0, &slot);
  if (!st) ck_assert(got[0] == 10 && got[5] == 30);
  kiln_value_clear(&v);
  kiln_value_clear(&slot);
  kiln_tensor_release(x);
  kiln_tensor_release(y);
  kiln_tensor_release(wrapped);
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(child);
  kiln_context_free(ctx);
  return st;
}

START_TEST(memory_that_runs_out_anywhere) {
  char path[32];
  write_models(path);
  for (int once = 0; once < 2; once++) {
    kiln_status st = KILN_NOMEM;
    long n = 0;
    for (; st != KILN_OK; n++) {
      account memory = {.left = n, .once = once};
      st = everything(&memory, path);
      if (memory.live) ck_abort_msg("%ld blocks were lost when allocation %ld failed", memory.live, n);
      if (st != KILN_OK && st != KILN_NOMEM)
        ck_abort_msg("allocation %ld failing gave %s", n, kiln_status_text(st));
      if (n > 5000) ck_abort_msg("it never succeeds");
      if (once && st == KILN_OK && n < 50) st = KILN_NOMEM; /* one refusal may have been made up for */
    }
    ck_assert_int_gt(n, 30);
  }
  unlink(path);
}
END_TEST

/* ---- threads ---- */

typedef struct job {
  kiln_context *parent, *ctx;
  kiln_graph *g;
  int number, wrong;
} job;

static void *run_job(void *ud) {
  job *j = ud;
  kiln_session *s;
  float mine[4] = {(float)j->number, 0, 0, 1};
  kiln_tensor *x, *z;
  if (kiln_session_new(j->ctx, j->g, &s)) return NULL;
  if (kiln_tensor_new(j->ctx, KILN_FLOAT32, 2, (int64_t[]){1, 4}, mine, &x)) return NULL;
  for (int i = 1; i <= 200; i++) {
    int64_t n = 0;
    kiln_session_set_tensor(s, "x", x);
    kiln_session_set_float(s, "k", i);
    kiln_session_set_boolean(s, "flag", 1);
    if (kiln_session_run(s) || kiln_session_get_tensor(s, "z", &z) ||
        kiln_session_get_integer(s, "count", &n)) {
      j->wrong++;
      continue;
    }
    j->wrong += ((float *)kiln_tensor_data(z))[0] != (float)(i * (j->number + 1)) || n != i;
    kiln_tensor_release(z);
  }
  kiln_tensor_release(x);
  kiln_session_free(s);
  return NULL;
}

START_TEST(sessions_in_threads) {
  host h;
  open_host(&h, "predict");
  job jobs[3];
  pthread_t t[3];
  for (int i = 0; i < 3; i++) {
    jobs[i] = (job){h.ctx, NULL, h.g, i, 0};
    GOOD(kiln_context_child(h.ctx, &jobs[i].ctx), kiln_error(h.ctx));
  }
  /* the counting allocator is not made for threads, so these run on a context of their own */
  for (int i = 0; i < 3; i++) kiln_context_free(jobs[i].ctx);
  kiln_context *own;
  kiln_graph *g;
  GOOD(kiln_context_new(NULL, &own, NULL, 0), "");
  GOOD(kiln_graph_load(own, h.path, "predict", &g), kiln_error(own));
  for (int i = 0; i < 3; i++) {
    jobs[i].g = g;
    GOOD(kiln_context_child(own, &jobs[i].ctx), kiln_error(own));
    ck_assert_int_eq(pthread_create(&t[i], NULL, run_job, &jobs[i]), 0);
  }
  for (int i = 0; i < 3; i++) {
    pthread_join(t[i], NULL);
    ck_assert_int_eq(jobs[i].wrong, 0);
    kiln_context_free(jobs[i].ctx);
  }
  kiln_graph_release(g);
  kiln_context_free(own);
  close_host(&h);
}
END_TEST

/* ---- the rest ---- */

static void collect(void *ud, kiln_output kind, const char *text, size_t length) {
  char *all = ud;
  size_t at = strlen(all);
  if (kind == KILN_OUTPUT_LOG && at + length + 2 < 4096) {
    memcpy(all + at, text, length);
    strcpy(all + at + length, "\n");
  }
}

START_TEST(versions_backends_and_logs) {
  ck_assert_int_eq(kiln_version(), KILN_VERSION_NUMBER);
  ck_assert_str_eq(kiln_version_text(), "0.1.0");
  ck_assert_str_eq(kiln_status_text(KILN_SHAPE), "shape mismatch");
  ck_assert_str_eq(kiln_status_text((kiln_status)1234), "unknown status");
  char path[32], log[4096] = "";
  write_models(path);
  kiln_context_options o = {
      .size = sizeof o, .backend = "ref", .debug = "exec", .threads = 1, .output = collect, .output_ud = log};
  kiln_context *ctx;
  GOOD(kiln_context_new(&o, &ctx, NULL, 0), "");
  kiln_backend b = {.size = sizeof b};
  int refs = 0;
  for (int i = 0; i < kiln_backend_count(); i++) {
    GOOD(kiln_backend_report(ctx, i, &b), kiln_error(ctx));
    refs += !strcmp(b.name, "ref") && b.available;
    ck_assert(b.available ? b.reason[0] == 0 : b.reason[0] != 0);
  }
  ck_assert_int_eq(refs, 1);
  BAD(KILN_INDEX, "no backend number", kiln_backend_report(ctx, kiln_backend_count(), &b), kiln_error(ctx));
  kiln_graph *g;
  kiln_session *s;
  kiln_tensor *x;
  GOOD(kiln_graph_load(ctx, path, "predict", &g), kiln_error(ctx));
  GOOD(kiln_session_new(ctx, g, &s), kiln_error(ctx));
  GOOD(kiln_tensor_new(ctx, KILN_FLOAT32, 2, (int64_t[]){1, 4}, NULL, &x), kiln_error(ctx));
  kiln_session_set_tensor(s, "x", x);
  kiln_session_set_float(s, "k", 1);
  kiln_session_set_boolean(s, "flag", 0);
  kiln_session_set_check(s, 1);
  GOOD(kiln_session_run(s), kiln_session_error(s));
  ck_assert_msg(strstr(log, "exec ref") && strstr(log, "matmul"), "the log is: %s", log);
  kiln_tensor_release(x);
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(ctx);
  unlink(path);
}
END_TEST

/* ---- host slots ---- */

static kiln_status doubled(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  int *calls = ud;
  if (nargs != 2 || nresults != 2 || args[0].kind != KILN_TENSOR || args[1].kind != KILN_INTEGER)
    return KILN_ARG;
  if (args[1].i < 0) return KILN_IO;
  results[0].kind = KILN_TENSOR;
  results[0].tensor = kiln_tensor_retain(args[0].tensor);
  results[1].kind = args[1].i == 99 ? KILN_FLOAT : KILN_INTEGER;
  results[1].i = 2 * args[1].i;
  ++*calls;
  return KILN_OK;
}

START_TEST(host_slots_are_bound) {
  static const char text[] = "graph h(%x: float32[N], %n: integer) {\n"
                             "  %y: float32[N], %m: integer = host_call %x, %n \"double\"\n"
                             "  host_call %m \"log it\"\n"
                             "  return %y, %m\n"
                             "}\n";
  char path[PATH_ROOM], error[200];
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
  kiln_tensor *x;
  int calls = 0;
  write_texts(path, (const char *[]){text}, 1);
  ck_assert_int_eq(kiln_context_new(NULL, &ctx, error, sizeof error), KILN_OK);
  GOOD(kiln_graph_load(ctx, path, NULL, &g), kiln_error(ctx));
  ck_assert_int_eq(kiln_graph_host_count(g), 2);
  ck_assert_str_eq(kiln_graph_host_name(g, 0), "double");
  ck_assert_ptr_null(kiln_graph_host_name(g, 2));
  GOOD(kiln_session_new(ctx, g, &s), kiln_error(ctx));
  GOOD(kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){3}, NULL, &x), kiln_error(ctx));
  kiln_session_set_tensor(s, "x", x);
  kiln_session_set_integer(s, "n", 5);
  BAD(KILN_STATE, "host function 'double' is not bound", kiln_session_run(s), kiln_session_error(s));
  BAD(KILN_ARG, "calls no host function 'other'", kiln_session_bind(s, "other", doubled, &calls),
      kiln_session_error(s));
  GOOD(kiln_session_bind(s, "double", doubled, &calls), kiln_session_error(s));
  BAD(KILN_STATE, "host function 'log it' is not bound", kiln_session_run(s), kiln_session_error(s));
  GOOD(kiln_session_bind(s, "log it", doubled, &calls), kiln_session_error(s));
  BAD(KILN_RAISED, "host function 'log it' failed", kiln_session_run(s), kiln_session_error(s));
  kiln_session_set_integer(s, "n", 99);
  BAD(KILN_ARG, "host function 'double': result 2 must be integer (got a float)", kiln_session_run(s),
      kiln_session_error(s));
  kiln_session_set_integer(s, "n", -1);
  BAD(KILN_RAISED, "host function 'double' failed", kiln_session_run(s), kiln_session_error(s));
  ck_assert_int_eq(calls, 3);
  kiln_tensor_release(x);
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(ctx);
  unlink(path);
}
END_TEST

SUITE("capi", host_slots_are_bound, from_file_to_numbers, inputs_outputs_and_slots_tell_about_themselves,
      slots_are_read_and_set, seeds, tensors, tensors_outlive_their_context, what_is_wrong_is_said,
      a_file_in_memory, steps_are_limited, a_profile_is_a_text, a_run_is_cancelled, memory_is_limited,
      memory_that_runs_out_anywhere, sessions_in_threads, versions_backends_and_logs)
