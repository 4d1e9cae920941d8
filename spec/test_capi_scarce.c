/* kiln.h and kiln_lua.h while memory runs out: every function that they declare is called with each of its
 * allocations refused, that one alone and with all after it. What fails does so with NOMEM and has done
 * nothing: the same context and session go on, with the state that they had. What the headers declare is read
 * from their .abi files, so that a new function without a line here is seen.
 *
 * KILN_SWEEP=slice: every 11th allocation, for valgrind. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "bindings/c/dlpack.h"
#include "bindings/c/handle.h"
#include "bindings/lua/kiln_lua.h"
#include "spec/capi.h"
#include "spec/tensors.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <math.h>

/* A branch, a loop with a list, a draw, output, a call of the host, an argument that is overwritten, and
 * state: a number and a tensor. */
static const char text[] = "graph all(%x: float32[2,4], {k = %k: float, flag = %flag: boolean}, %n: integer, "
                           "%mine: float32[3]) {\n"
                           "  slot param \"w\": float32[4,3]\n"
                           "  slot state \"count\": integer\n"
                           "  slot state \"mean\": float32[3]\n"
                           "  %one = const 1\n"
                           "  %t = load_state \"count\"\n"
                           "  %next: integer = lua.add %t, %one\n"
                           "  store_state \"count\", %next\n"
                           "  %w = param \"w\"\n"
                           "  %y: float32[2,3] = matmul %x, %w\n"
                           "  %s: float32[] = to_tensor %k\n"
                           "  %z: float32[2,3] = if %flag {\n"
                           "    %a: float32[2,3] = mul %y, %s\n"
                           "    yield %a\n"
                           "  } else {\n"
                           "    yield %y\n"
                           "  }\n"
                           "  %last: float32[2,3] = loop (%c: float32[2,3] = %z, %i: integer = %one) {\n"
                           "    %d: float32[2,3] = tanh %c\n"
                           "    %i2: integer = lua.add %i, %one\n"
                           "    %more: boolean = lua.lt %i, %n\n"
                           "    continue_if %more next(%d, %i2) exit(%d)\n"
                           "  }\n"
                           "  %m: float32[3] = mean %z {dim = {1}}\n"
                           "  store_state \"mean\", %m\n"
                           "  %h: float32[3] = host_call %m \"double\"\n"
                           "  update %mine, %h\n"
                           "  print %next \"run %d\"\n"
                           "  %noise: float32[2] = rand {sizes = {2}, dtype = \"float32\"}\n"
                           "  return %last, {count = %next, flag = %flag, k = %k}, %noise, %h\n"
                           "}\n";

/* Whose file has a note and a test vector. */
static const char small_text[] = "graph small(%x: float32[2]) {\n"
                                 "  %y: float32[2] = tanh %x\n"
                                 "  return %y\n}\n";

/* Of an op of the host's. */
static const char op_text[] = "graph with_op(%x: float32[2]) {\n"
                              "  %y: float32[2] = host_op %x {name = \"twice\", values = {2.0}}\n"
                              "  return %y\n}\n";

/* ---- what was called ---- */

enum { MOST_NAMES = 400 };
static const char *names[MOST_NAMES];
static int nnames;

static void called(const char *name) {
  for (int i = 0; i < nnames; i++)
    if (!strcmp(names[i], name)) return;
  ck_assert_int_lt(nnames, MOST_NAMES);
  names[nnames++] = name;
}
#define DO(f, ...) (called(#f), f(__VA_ARGS__))

/* ---- a host ---- */

enum { DRAWS = 64 };
typedef struct world {
  account memory;
  char path[PATH_ROOM], checkpoint[PATH_ROOM], small[PATH_ROOM], upgraded[PATH_ROOM], with_op[PATH_ROOM],
      script[PATH_ROOM];
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
  kiln_tensor *x, *mine;
  int64_t count;         /* runs that have succeeded */
  float draws[DRAWS][2]; /* what each of them draws: the same in every world */
  int printed;
} world;

static kiln_status doubled(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  (void)ud;
  if (nargs != 1 || nresults != 1 || args[0].kind != KILN_TENSOR) return KILN_ARG;
  results[0].kind = KILN_TENSOR;
  results[0].tensor = kiln_tensor_retain(args[0].tensor);
  return KILN_OK;
}

static void hear(void *ud, kiln_output kind, const char *said, size_t length) {
  (void)said, (void)length;
  if (kind == KILN_OUTPUT_PRINT) ((world *)ud)->printed++;
}

static kiln_context_options options(world *w) {
  return (kiln_context_options){.size = sizeof(kiln_context_options),
                                .alloc = count,
                                .alloc_ud = &w->memory,
                                .threads = 1,
                                .output = hear,
                                .output_ud = w};
}

static const float numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static kiln_status set_all(kiln_session *s, kiln_tensor *x, kiln_tensor *mine) {
  kiln_status st = DO(kiln_session_set_tensor, s, "x", x);
  if (!st) st = DO(kiln_session_set_tensor, s, "mine", mine);
  if (!st) st = DO(kiln_session_set_float, s, "k", 2);
  if (!st) st = DO(kiln_session_set_boolean, s, "flag", 1);
  if (!st) st = DO(kiln_session_set_integer, s, "n", 3);
  if (!st) st = DO(kiln_session_bind, s, "double", doubled, NULL);
  return st;
}

static void write_small(kn_context *c, char path[PATH_ROOM]) {
  kn_entry e = {.name = "small", .graph = parsed(c, small_text)};
  new_file(path);
  OK(c, kn_notes_new(c, &e.notes));
  OK(c, kn_notes_add(c, e.notes, "licence", "MIT"));
  OK(c, kn_vectors_new(c, e.graph, &e.vectors));
  OK(c, kn_vectors_add(c, e.vectors));
  for (int i = 0; i < 2; i++) { /* tanh 0 is 0 */
    kn_rvalue *v = i ? kn_vectors_out(e.vectors, 0) : kn_vectors_in(e.vectors, 0);
    v->tensor = make(c, KN_F32, DIMS(2), LIST(0, 0));
  }
  OK(c, kn_file_save(c, path, &e, 1));
  kn_graph_release(e.graph);
  kn_vectors_release(e.vectors);
  kn_notes_release(e.notes);
}

static kiln_status times(kiln_op_call *c) {
  for (int i = 0; i < 2; i++)
    ((float *)c->outputs[0].data)[i] = (float)c->attributes[0] * ((const float *)c->inputs[0].data)[i];
  return KILN_OK;
}

static const kiln_op_attribute factor = {"factor", 1};
static const kiln_op op = {.size = sizeof op,
                           .name = "twice",
                           .inputs = 1,
                           .outputs = 1,
                           .kernel = times,
                           .attribute_count = 1,
                           .attributes = &factor};

static void write_with_op(char path[PATH_ROOM]) {
  kiln_context *ctx;
  GOOD(kiln_context_new(NULL, &ctx, NULL, 0), "");
  GOOD(kiln_context_register_op(ctx, &op), kiln_error(ctx));
  kn_graph *g = parsed(core_context(ctx), op_text);
  write_graphs(core_context(ctx), path, &g, 1);
  kiln_context_free(ctx);
}

static void open_world(world *w) {
  char error[256] = "";
  memset(w, 0, sizeof *w);
  w->memory.left = -1;
  kn_context *c = suite_context();
  kn_graph *g = parsed(c, text);
  fill_slots(c, g);
  float *weights = g->slots[0]->tensor->storage->data;
  for (int i = 0; i < 12; i++) weights[i] = (float)(i % 5) / 10;
  write_graphs(c, w->path, &g, 1);
  write_small(c, w->small);
  write_with_op(w->with_op);
  suite_done(c);
  new_file(w->checkpoint);
  new_file(w->upgraded);
  new_file(w->script); /* a chunk without a word */
  kiln_context_options o = options(w);
  GOOD(kiln_context_new(&o, &w->ctx, error, sizeof error), error);
  GOOD(kiln_graph_load(w->ctx, w->path, NULL, &w->g), kiln_error(w->ctx));
  GOOD(kiln_session_new(w->ctx, w->g, &w->s), kiln_error(w->ctx));
  GOOD(kiln_tensor_new(w->ctx, KILN_FLOAT32, 2, (int64_t[]){2, 4}, numbers, &w->x), kiln_error(w->ctx));
  GOOD(kiln_tensor_new(w->ctx, KILN_FLOAT32, 1, (int64_t[]){3}, NULL, &w->mine), kiln_error(w->ctx));
  GOOD(set_all(w->s, w->x, w->mine), kiln_session_error(w->s));
}

static void close_world(world *w) {
  kiln_session_free(w->s);
  kiln_tensor_release(w->x);
  kiln_tensor_release(w->mine);
  kiln_graph_release(w->g);
  kiln_context_free(w->ctx);
  unlink(w->path);
  unlink(w->checkpoint);
  unlink(w->small);
  unlink(w->upgraded);
  unlink(w->with_op);
  unlink(w->script);
  ck_assert_int_eq(w->memory.live, 0);
}

static void drawn(kiln_session *s, float out[2]) {
  kiln_tensor *t;
  GOOD(kiln_session_get_tensor(s, "noise", &t), kiln_session_error(s));
  memcpy(out, kiln_tensor_data(t), 2 * sizeof *out);
  kiln_tensor_release(t);
}

/* Is the session as its runs that succeeded have left it? Then one more does. */
static void goes_on(world *w, const char *after) {
  kiln_value v;
  float draw[2];
  GOOD(kiln_session_get_slot(w->s, kiln_graph_find_slot(w->g, "count"), &v), kiln_session_error(w->s));
  ck_assert_msg(v.i == w->count, "%s: %lld runs are counted, not %lld", after, (long long)v.i,
                (long long)w->count);
  if (w->count == DRAWS) return;
  GOOD(kiln_session_run(w->s), kiln_session_error(w->s));
  drawn(w->s, draw);
  ck_assert_msg(!memcmp(draw, w->draws[w->count], sizeof draw), "%s: other random numbers", after);
  w->count++;
}

/* ---- acts: all or nothing ---- */

static kiln_status contexts(world *w) {
  kiln_context *ctx = NULL, *child = NULL;
  char error[64];
  kiln_context_options o = options(w);
  kiln_backend b = {.size = sizeof b};
  kiln_memory m = {.size = sizeof m};
  kiln_status st = DO(kiln_context_new, &o, &ctx, error, sizeof error);
  if (!st) st = DO(kiln_context_child, ctx, &child);
  for (int i = 0; !st && i < DO(kiln_backend_count); i++) st = DO(kiln_backend_report, ctx, i, &b);
  if (!st) {
    DO(kiln_context_memory, child, &m);
    ck_assert(m.bytes > 0 && m.blocks > 1 && !DO(kiln_error, child)[0]);
  } else if (ctx)
    ck_assert(kiln_error(ctx)[0]);
  DO(kiln_context_free, child);
  DO(kiln_context_free, ctx);
  return st;
}

static void serial(void *ud, int tasks, void (*task)(void *arg, int index), void *arg) {
  (void)ud;
  for (int i = 0; i < tasks; i++) task(arg, i);
}

static kiln_status contexts_with_all(world *w) {
  kiln_context *ctx = NULL;
  kiln_pool pool = {sizeof pool, NULL, 2, serial};
  kiln_context_options o = options(w);
  o.pool = &pool;
  o.cache = "/nowhere";
  o.libraries = "/nowhere";
  kiln_status st = kiln_context_new(&o, &ctx, NULL, 0);
  kiln_context_free(ctx);
  return st;
}

static void released(void *ud, void *data, size_t bytes) {
  (void)data, (void)bytes;
  ++*(int *)ud;
}

static kiln_status tensors(world *w) {
  float mine[8], got[8];
  int gone = 0;
  kiln_tensor *t = NULL, *wrapped = NULL, *there = NULL;
  kiln_status st = DO(kiln_tensor_new, w->ctx, KILN_FLOAT32, 2, (int64_t[]){2, 4}, numbers, &t);
  if (!st)
    st = DO(kiln_tensor_wrap, w->ctx, KILN_FLOAT32, 1, (int64_t[]){8}, mine, released, &gone, &wrapped);
  if (st) ck_assert_int_eq(gone, t != NULL); /* given back at once */
  if (!st) st = DO(kiln_tensor_to, w->ctx, t, "cpu", &there);
  if (!st) st = DO(kiln_tensor_read, w->ctx, there, got, sizeof got);
  if (!st) {
    ck_assert(!memcmp(got, numbers, sizeof got) && DO(kiln_tensor_dtype, t) == KILN_FLOAT32);
    ck_assert(DO(kiln_tensor_rank, t) == 2 && DO(kiln_tensor_numel, t) == 8 &&
              DO(kiln_tensor_size, t, 1) == 4);
    ck_assert(DO(kiln_tensor_stride, t, 0) == 4 && DO(kiln_tensor_is_contiguous, t) == 1);
    ck_assert(!strcmp(DO(kiln_tensor_device, t), "cpu") && DO(kiln_tensor_data, wrapped) == mine);
    DO(kiln_tensor_release, DO(kiln_tensor_retain, t));
  }
  kiln_tensor_release(there);
  kiln_tensor_release(t);
  kiln_tensor_release(wrapped);
  return st;
}

static kiln_status shared_tensors(world *w) {
  struct DLManagedTensor *m = NULL;
  struct DLManagedTensorVersioned *v = NULL;
  kiln_tensor *back = NULL, *again = NULL;
  kiln_status st = DO(kiln_tensor_to_dlpack, w->ctx, w->x, &m);
  if (!st) st = DO(kiln_tensor_to_dlpack_versioned, w->ctx, w->x, &v);
  if (!st && !(st = DO(kiln_tensor_from_dlpack, w->ctx, m, &back))) m = NULL; /* taken over */
  if (!st && !(st = DO(kiln_tensor_from_dlpack_versioned, w->ctx, v, &again))) v = NULL;
  if (!st) ck_assert(kiln_tensor_data(back) == kiln_tensor_data(w->x));
  kiln_tensor_release(back);
  kiln_tensor_release(again);
  if (m) ((kiln_dl_managed *)m)->deleter((kiln_dl_managed *)m);
  if (v) ((kiln_dl_versioned *)v)->deleter((kiln_dl_versioned *)v);
  return st;
}

static kiln_status graphs(world *w) {
  kiln_graph *g = NULL, *on = NULL, *memory = NULL;
  kiln_info info = {.size = sizeof info};
  char data[8192];
  FILE *f = fopen(w->path, "rb");
  const size_t n = fread(data, 1, sizeof data, f);
  fclose(f);
  ck_assert(n > 0 && n < sizeof data);
  kiln_status st = DO(kiln_graph_load, w->ctx, w->path, "all", &g);
  if (!st) st = DO(kiln_graph_load_on, w->ctx, w->path, NULL, "cpu", &on);
  if (!st) st = DO(kiln_graph_load_memory, w->ctx, data, n, NULL, NULL, NULL, &memory);
  if (!st) {
    ck_assert_str_eq(DO(kiln_graph_name, g), "all");
    ck_assert(DO(kiln_graph_input_count, g) == 5 && DO(kiln_graph_output_count, g) == 6);
    ck_assert(DO(kiln_graph_slot_count, g) == 3 && DO(kiln_graph_host_count, g) == 1);
    ck_assert_str_eq(DO(kiln_graph_host_name, g, 0), "double");
    ck_assert(!DO(kiln_graph_input, g, 0, &info) && !DO(kiln_graph_output, g, 0, &info));
    ck_assert(!DO(kiln_graph_slot, g, 0, &info) && DO(kiln_graph_find_slot, g, "w") >= 0);
    ck_assert(DO(kiln_graph_find_input, g, "x") == 0 && DO(kiln_graph_find_output, g, "noise") == 4);
    DO(kiln_graph_release, DO(kiln_graph_retain, g));
  }
  kiln_graph_release(g);
  kiln_graph_release(on);
  kiln_graph_release(memory);
  return st;
}

static kiln_status ops(world *w) {
  kiln_context *ctx = NULL;
  kiln_graph *g = NULL;
  kiln_session *s = NULL;
  kiln_tensor *x = NULL, *y = NULL;
  kiln_context_options o = options(w);
  kiln_status st = kiln_context_new(&o, &ctx, NULL, 0);
  if (!st) st = DO(kiln_context_register_op, ctx, &op);
  if (!st) st = kiln_graph_load(ctx, w->with_op, NULL, &g);
  if (!st) st = kiln_session_new(ctx, g, &s);
  if (!st) st = kiln_tensor_new(ctx, KILN_FLOAT32, 1, (int64_t[]){2}, numbers, &x);
  if (!st) st = kiln_session_set_tensor(s, "x", x);
  if (!st) st = kiln_session_run(s);
  if (!st) {
    ck_assert(!kiln_session_get_tensor(s, "1", &y) && ((float *)kiln_tensor_data(y))[1] == 2 * numbers[1]);
    kiln_tensor_release(y);
  }
  kiln_session_free(s);
  kiln_tensor_release(x);
  kiln_graph_release(g);
  kiln_context_free(ctx);
  return st;
}

static void told(void *ud, const char *line) {
  (void)line;
  ++*(int *)ud;
}

static kiln_status files(world *w) {
  int lines = 0;
  kiln_graph *g = NULL;
  kiln_session *s = NULL;
  kiln_status st = DO(kiln_file_info, w->ctx, w->small, NULL, told, &lines);
  if (!st) st = DO(kiln_file_upgrade, w->ctx, w->small, w->upgraded);
  if (!st) st = kiln_graph_load(w->ctx, w->upgraded, NULL, &g);
  if (!st) st = DO(kiln_graph_test, w->ctx, g);
  if (!st) st = kiln_session_new(w->ctx, g, &s);
  if (!st) st = DO(kiln_session_test, s);
  if (!st) {
    ck_assert(lines > 5 && DO(kiln_graph_vector_count, g) == 1);
    ck_assert_str_eq(DO(kiln_graph_note, g, "licence"), "MIT");
  }
  kiln_session_free(s);
  kiln_graph_release(g);
  return st;
}

/* A session of its own, through the first plan, and all that is set and asked. */
static kiln_status sessions(world *w) {
  kiln_session *s = NULL;
  kiln_value v = {0};
  size_t bytes = 0;
  kiln_status st = DO(kiln_session_new, w->ctx, w->g, &s);
  if (!st) st = set_all(s, w->x, w->mine);
  if (!st) st = DO(kiln_session_set, s, 0, &(kiln_value){.kind = KILN_TENSOR, .tensor = w->x});
  if (!st) st = DO(kiln_session_set_deadline, s, 1000);
  if (!st) {
    DO(kiln_session_set_step_limit, s, 100000);
    DO(kiln_session_set_trip_limit, s, 100000);
    DO(kiln_session_seed, s, 0);
  }
  if (!st) st = DO(kiln_session_memory, s, &bytes);
  if (!st) st = DO(kiln_session_run, s);
  if (!st) st = DO(kiln_session_get_slot, s, 2, &v);
  if (!st) st = DO(kiln_session_set_slot, s, 2, &v);
  if (!st) ck_assert_uint_gt(bytes, 0);
  if (st && s) ck_assert(DO(kiln_session_error, s)[0]);
  DO(kiln_value_clear, &v);
  DO(kiln_session_free, s);
  return st;
}

/* The arena is the host's: nothing that is refused there. */
static kiln_status arenas(world *w) {
  kiln_session *s = NULL;
  size_t bytes = 0;
  char *arena = NULL;
  kiln_status st = kiln_session_new(w->ctx, w->g, &s);
  if (!st) st = set_all(s, w->x, w->mine);
  if (!st) st = DO(kiln_session_arena_bytes, s, &bytes);
  if (!st) arena = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!st) st = DO(kiln_session_set_arena, s, arena, bytes);
  for (int i = 0; !st && i < 2; i++) st = kiln_session_run(s);
  kiln_session_free(s);
  free(arena);
  return st;
}

/* The run of the world's session: the state counts those that have succeeded. */
static kiln_status runs(world *w) {
  kiln_value v;
  kiln_tensor *t = NULL;
  int64_t n = 0;
  double k = 0;
  int flag = 0;
  float before[3], after[3];
  memcpy(before, kiln_tensor_data(w->mine), sizeof before);
  kiln_status st = kiln_session_run(w->s);
  memcpy(after, kiln_tensor_data(w->mine), sizeof after);
  if (st) { /* the argument is as it was, and nothing is there to be had */
    ck_assert(!memcmp(before, after, sizeof before));
    ck_assert(kiln_session_get(w->s, 0, &v) == KILN_STATE);
    return st;
  }
  w->count++;
  ck_assert(!DO(kiln_session_get, w->s, 0, &v) && v.kind == KILN_TENSOR);
  kiln_value_clear(&v);
  ck_assert(!DO(kiln_session_get_tensor, w->s, "noise", &t));
  kiln_tensor_release(t);
  ck_assert(!DO(kiln_session_get_integer, w->s, "count", &n) && n == w->count);
  ck_assert(!DO(kiln_session_get_float, w->s, "k", &k) && k == 2);
  ck_assert(!DO(kiln_session_get_boolean, w->s, "flag", &flag) && flag == 1);
  return KILN_OK;
}

static kiln_status planned_anew(world *w) {
  DO(kiln_session_set_check, w->s, 1); /* other plans than before */
  kiln_status st = runs(w);
  kiln_session_set_check(w->s, 0);
  return st;
}

static kiln_status profiles(world *w) {
  const char *said = NULL;
  kiln_profile_options o = {.size = sizeof o, .runs = 1, .nodes = 1};
  kiln_status st = DO(kiln_session_profile, w->s, &o, &said);
  if (!st) ck_assert(strstr(said, "profile of all") != NULL);
  return st;
}

static kiln_status writes_checkpoints(world *w) { return DO(kiln_session_checkpoint, w->s, w->checkpoint); }

/* Of what there is now: nothing changes but for the sharing of memory. */
static kiln_status restores(world *w) { return DO(kiln_session_restore, w->s, w->checkpoint); }

static kiln_status cancels(world *w) {
  DO(kiln_session_cancel, w->s);
  ck_assert(kiln_session_run(w->s) == KILN_CANCELLED);
  return KILN_OK;
}

static kiln_status constants(world *w) {
  (void)w;
  ck_assert(DO(kiln_version) == KILN_VERSION_NUMBER && DO(kiln_version_text)[0]);
  ck_assert(DO(kiln_status_text, KILN_NOMEM)[0] && DO(kiln_dtype_name, KILN_BOOL) &&
            DO(kiln_dtype_size, KILN_INT64) == 8);
  return KILN_OK;
}

/* ---- the host's own Lua ---- */

typedef struct opened {
  kiln_context *ctx;
  int stage;
} opened;

static int open_in_lua(lua_State *L) {
  opened *o = lua_touserdata(L, 1);
  DO(kiln_lua_setcontext, L, o->ctx);
  o->stage = 1;
  luaL_requiref(L, "_G", luaopen_base, 1);
  luaL_requiref(L, "package", luaopen_package, 1);
  luaL_requiref(L, "string", luaopen_string, 1);
  luaL_requiref(L, "table", luaopen_table, 1);
  luaL_requiref(L, "math", luaopen_math, 1);
  called("luaopen_kiln");
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  o->stage = 2;
  return 0;
}

/* Lua's memory and kiln's are the same here. Errors of Lua are texts of its own, so all are taken for NOMEM.
 */
static kiln_status interpreters(world *w) {
  opened o = {.ctx = w->ctx};
  lua_State *L = lua_newstate(count, &w->memory);
  if (!L) return KILN_NOMEM;
  lua_pushcfunction(L, open_in_lua); /* no more than the stack has */
  lua_pushlightuserdata(L, &o);
  const int st = lua_pcall(L, 1, 0, 0);
  const char *why = st == LUA_OK ? "" : lua_tostring(L, -1);
  if (st != LUA_OK && st != LUA_ERRMEM && !(why && strstr(why, "memory")))
    ck_abort_msg("stage %d: %s", o.stage, why ? why : "no text");
  lua_close(L);
  return st == LUA_OK ? KILN_OK : KILN_NOMEM;
}

static kiln_status calls_in(world *w, lua_State *L) {
  kiln_value v = {.kind = KILN_NIL};
  kiln_graph *g = NULL, *same = NULL;
  kiln_tensor *t = NULL;
  DO(kiln_lua_limit_instructions, L, 1000000);
  kiln_status st = DO(kiln_lua_run, L, "function f(x) return x * 2 end", 30, "test", 0);
  if (!st) st = DO(kiln_lua_run_file, L, w->script, 0);
  lua_settop(L, 0);
  if (!st) st = DO(kiln_lua_push_tensor, L, w->x);
  if (!st) st = DO(kiln_lua_to_tensor, L, -1, &t);
  if (!st) st = DO(kiln_lua_call, L, "f", &(kiln_value){.kind = KILN_TENSOR, .tensor = t}, 1, &v, 1);
  if (!st) st = kiln_lua_run(L, "return f", 8, "test", 1);
  if (!st) st = DO(kiln_lua_script, L, -1, "kiln.spec('float32', {2, 4})", 0, &g);
  if (!st) st = DO(kiln_lua_push_graph, L, g);
  if (!st) st = DO(kiln_lua_to_graph, L, -1, &same);
  if (!st) st = kiln_lua_run(L, "return print", 12, "test", 1);
  if (!st) st = DO(kiln_lua_pcall, L, 0, 0);
  if (st) ck_assert(DO(kiln_lua_error, L)[0]);
  ck_assert(DO(kiln_lua_context, L) == w->ctx);
  kiln_value_clear(&v);
  kiln_tensor_release(t);
  kiln_graph_release(g);
  kiln_graph_release(same);
  return st;
}

static kiln_status states(world *w) {
  const kiln_lua_options o = {.size = sizeof o, .context = w->ctx};
  lua_State *L = NULL;
  kiln_status st = DO(kiln_lua_new, &o, &L, NULL, 0);
  if (!st) st = calls_in(w, L);
  DO(kiln_lua_free, L);
  return st;
}

/* ---- the sweep ---- */

static const struct {
  const char *name;
  kiln_status (*act)(world *w);
  long step; /* of allocations that are refused: 1, or more where there are thousands */
} acts[] = {{"constants", constants, 1},
            {"contexts", contexts, 1},
            {"contexts with a pool, a cache and libraries", contexts_with_all, 1},
            {"tensors", tensors, 1},
            {"tensors of others", shared_tensors, 1},
            {"graphs", graphs, 1},
            {"files", files, 1},
            {"ops", ops, 1},
            {"sessions", sessions, 1},
            {"runs in an arena", arenas, 1},
            {"runs", runs, 1},
            {"plans made anew", planned_anew, 1},
            {"profiles", profiles, 1},
            {"checkpoints written", writes_checkpoints, 1},
            {"checkpoints restored", restores, 1},
            {"cancelled runs", cancels, 1},
            {"interpreters", interpreters, 83},
            {"states", states, 61}};
enum { ACTS = sizeof acts / sizeof *acts };

static long step_of(int i) {
  const char *how = getenv("KILN_SWEEP");
  const bool slice = how && !strcmp(how, "slice"), whole = how && !strcmp(how, "whole");
  return slice ? 11 * acts[i].step : whole ? 1 : acts[i].step;
}

static void sweep(int i, bool once, const float (*draws)[2]) {
  world w;
  open_world(&w);
  memcpy(w.draws, draws, sizeof w.draws);
  GOOD(kiln_session_checkpoint(w.s, w.checkpoint), kiln_session_error(w.s));
  bool refused = true;
  for (long n = 0; refused; n += step_of(i)) {
    const long live = w.memory.live;
    const int64_t before = w.count;
    w.memory = (account){.live = live, .left = n, .once = once};
    const kiln_status st = acts[i].act(&w);
    w.memory.left = -1;
    refused = w.memory.refusals > 0;
    if (st != KILN_OK && st != KILN_NOMEM)
      ck_abort_msg("%s: allocation %ld failing gave %s", acts[i].name, n, kiln_status_text(st));
    ck_assert_msg(refused || st == KILN_OK, "%s: out of memory without cause", acts[i].name);
    ck_assert_msg(st == KILN_OK || w.count == before, "%s: a run that failed counts", acts[i].name);
    ck_assert_msg(once || !refused || st == KILN_NOMEM,
                  "%s: there is no memory, and it succeeds at allocation %ld", acts[i].name, n);
    if (!strcmp(acts[i].name, "checkpoints restored")) continue; /* it takes back what was at the beginning */
    if (n % 16 == 0 || !refused) goes_on(&w, acts[i].name);
    ck_assert_msg(n < 100000, "%s: it never succeeds", acts[i].name);
  }
  GOOD(kiln_session_run(w.s), kiln_session_error(w.s));
  close_world(&w);
}

/* What runs draw one after the other, when nothing fails. */
static void find_draws(float draws[DRAWS][2]) {
  world w;
  open_world(&w);
  for (int i = 0; i < DRAWS; i++) {
    GOOD(kiln_session_run(w.s), kiln_session_error(w.s));
    drawn(w.s, draws[i]);
  }
  ck_assert_int_eq(w.printed, DRAWS);
  close_world(&w);
}

START_TEST(nothing_is_lost_or_half_done) {
  float draws[DRAWS][2];
  find_draws(draws);
  for (int i = 0; i < ACTS; i++)
    for (int once = 0; once < 2; once++) sweep(i, once, draws);
}
END_TEST

/* ---- is it everything? ---- */

/* The function that a line of an .abi file promises, in its place; NULL: it promises something else. */
static char *promised(char *line) {
  char *end = strchr(line, '('), *at = end;
  while (at && at > line &&
         (at[-1] == '_' || (at[-1] >= 'a' && at[-1] <= 'z') || (at[-1] >= '0' && at[-1] <= '9')))
    at--;
  if (!at || at == end || !strncmp(line, "typedef", 7)) return NULL;
  *end = 0;
  return !strncmp(at, "kiln_", 5) || !strncmp(at, "luaopen_", 8) ? at : NULL;
}

START_TEST(every_function_was_called) {
  static const char *const lists[] = {"bindings/c/kiln.abi", "bindings/lua/kiln_lua.abi"};
  const char *top = getenv("KILN_SOURCE");
  char path[4096], line[4096], missing[4096] = "";
  int found = 0;
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", top ? top : ".", lists[i]);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s is not there", path);
    while (fgets(line, sizeof line, f)) {
      const char *name = promised(strchr(line, ' ') ? strchr(line, ' ') + 1 : line);
      if (!name) continue;
      bool was = false;
      for (int k = 0; k < nnames; k++) was |= !strcmp(names[k], name);
      found++;
      if (!was && strlen(missing) + strlen(name) + 2 < sizeof missing) strcat(strcat(missing, " "), name);
    }
    fclose(f);
  }
  ck_assert_int_gt(found, 60);
  ck_assert_msg(!missing[0], "functions without an act above that calls them:%s", missing);
}
END_TEST

SUITE("capi_scarce", nothing_is_lost_or_half_done, every_function_was_called)
