/* kiln.h: runs inside memory of the caller's. What they take, where results lie, who may hold them, what is
 * too small. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "spec/capi.h"
#include <stdlib.h>

/* Views, products, a result that is an input, one given twice, and any number of rows. */
static const char plain[] = "graph plain(%x: float32[N,8]) {\n"
                            "  slot param \"w\": float32[8,8]\n"
                            "  %w = param \"w\"\n"
                            "  %t: float32[8,8] = transpose %w {dim0 = 1, dim1 = 2}\n"
                            "  %a: float32[N,8] = matmul %x, %t\n"
                            "  %b: float32[N,8] = tanh %a\n"
                            "  %c: float32[N,8] = matmul %b, %w\n"
                            "  %s: float32[] = sum %c\n"
                            "  return %c, {twice = %c, sum = %s, x = %x}\n"
                            "}\n";

/* State, a call of the host, an argument that is overwritten, a branch, a loop, a draw. */
static const char busy[] = "graph busy(%x: float32[3], %n: integer, %mine: float32[3]) {\n"
                           "  slot state \"count\": integer\n"
                           "  slot state \"mean\": float32[3]\n"
                           "  %one = const 1\n"
                           "  %t = load_state \"count\"\n"
                           "  %next: integer = lua.add %t, %one\n"
                           "  store_state \"count\", %next\n"
                           "  %old: float32[3] = load_state \"mean\"\n"
                           "  %m: float32[3] = add %x, %old\n"
                           "  store_state \"mean\", %m\n"
                           "  %odd: boolean = lua.lt %one, %n\n"
                           "  %z: float32[3] = if %odd {\n"
                           "    %a: float32[3] = tanh %m\n"
                           "    yield %a\n"
                           "  } else {\n"
                           "    yield %m\n"
                           "  }\n"
                           "  %last: float32[3] = loop (%c: float32[3] = %z, %i: integer = %one) {\n"
                           "    %d: float32[3] = sigmoid %c\n"
                           "    %i2: integer = lua.add %i, %one\n"
                           "    %more: boolean = lua.lt %i, %n\n"
                           "    continue_if %more next(%d, %i2) exit(%d)\n"
                           "  }\n"
                           "  %h: float32[3] = host_call %last \"same\"\n"
                           "  update %mine, %h\n"
                           "  %noise: float32[2] = rand {sizes = {2}, dtype = \"float32\"}\n"
                           "  return %last, {count = %next, noise = %noise, h = %h}\n"
                           "}\n";

/* Tensors that grow from trip to trip: only the run knows. */
static const char grows[] = "graph grows(%x: float32[2], %n: integer) {\n"
                            "  slot state \"count\": integer\n"
                            "  %one = const 1\n"
                            "  %t = load_state \"count\"\n"
                            "  %next: integer = lua.add %t, %one\n"
                            "  store_state \"count\", %next\n"
                            "  %last: float32[?] = loop (%c: float32[?] = %x, %i: integer = %one) {\n"
                            "    %d: float32[?] = cat %c, %x {dim = 1}\n"
                            "    %i2: integer = lua.add %i, %one\n"
                            "    %more: boolean = lua.lt %i, %n\n"
                            "    continue_if %more next(%d, %i2) exit(%d)\n"
                            "  }\n"
                            "  return %last, {count = %next}\n"
                            "}\n";

static const char *const texts[] = {plain, busy, grows};
static const char *const names[] = {"plain", "busy", "grows"};
enum { PLAIN, BUSY, GROWS };

typedef struct world {
  account memory;
  char path[PATH_ROOM];
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s, *other; /* the other has no arena */
  kiln_tensor *x, *mine;
  char *arena;
  size_t bytes;
  kiln_tensor *held; /* what the host's function keeps */
  bool keeps;
} world;

static kiln_status same(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  world *w = ud;
  if (nargs != 1 || nresults != 1) return KILN_ARG;
  if (w->keeps) w->held = kiln_tensor_retain(args[0].tensor);
  results[0] = args[0];
  kiln_tensor_retain(results[0].tensor);
  return KILN_OK;
}

enum { GUARD = 4096 };

/* An arena of so many bytes, rubbish in it, and what must not be touched behind. */
static void lend(world *w, size_t bytes) {
  char *old = w->arena;
  w->bytes = bytes;
  w->arena = aligned_alloc(64, (bytes + 63) / 64 * 64 + GUARD);
  memset(w->arena, 0xA5, bytes + GUARD);
  GOOD(kiln_session_set_arena(w->s, w->arena, bytes), kiln_session_error(w->s));
  free(old);
}

static void check_guard(const world *w) {
  for (size_t i = 0; i < GUARD; i++) ck_assert((unsigned char)w->arena[w->bytes + i] == 0xA5);
}

static bool inside(const world *w, const void *p) {
  return (const char *)p >= w->arena && (const char *)p < w->arena + w->bytes;
}

static void set_rows(world *w, int64_t rows) {
  int64_t sizes[] = {rows, 8};
  float numbers[64 * 8];
  for (int64_t i = 0; i < rows * 8; i++) numbers[i] = (float)(i % 7) / 8;
  kiln_tensor_release(w->x);
  GOOD(kiln_tensor_new(w->ctx, KILN_FLOAT32, 2, sizes, numbers, &w->x), kiln_error(w->ctx));
  GOOD(kiln_session_set_tensor(w->s, "x", w->x), kiln_session_error(w->s));
  GOOD(kiln_session_set_tensor(w->other, "x", w->x), kiln_session_error(w->other));
}

static void open_world(world *w, int which, const char *backend) {
  memset(w, 0, sizeof *w);
  w->memory.left = -1;
  write_texts(w->path, texts, 3);
  kiln_context_options o = {
      .size = sizeof o, .alloc = count, .alloc_ud = &w->memory, .backend = backend, .threads = 1};
  GOOD(kiln_context_new(&o, &w->ctx, NULL, 0), "");
  GOOD(kiln_graph_load(w->ctx, w->path, names[which], &w->g), kiln_error(w->ctx));
  GOOD(kiln_session_new(w->ctx, w->g, &w->s), kiln_error(w->ctx));
  GOOD(kiln_session_new(w->ctx, w->g, &w->other), kiln_error(w->ctx));
  if (which == PLAIN) {
    set_rows(w, 4);
    return;
  }
  const int64_t size = which == BUSY ? 3 : 2;
  GOOD(kiln_tensor_new(w->ctx, KILN_FLOAT32, 1, &size, (float[]){1, 2, 3}, &w->x), "");
  GOOD(kiln_tensor_new(w->ctx, KILN_FLOAT32, 1, &size, NULL, &w->mine), "");
  for (int i = 0; i < 2; i++) {
    kiln_session *s = i ? w->other : w->s;
    GOOD(kiln_session_set_tensor(s, "x", w->x), kiln_session_error(s));
    GOOD(kiln_session_set_integer(s, "n", 5), kiln_session_error(s));
    if (which != BUSY) continue;
    GOOD(kiln_session_set_tensor(s, "mine", w->mine), kiln_session_error(s));
    GOOD(kiln_session_bind(s, "same", same, w), kiln_session_error(s));
  }
}

static void close_world(world *w) {
  if (w->arena) check_guard(w);
  kiln_session_free(w->s);
  kiln_session_free(w->other);
  kiln_tensor_release(w->x);
  kiln_tensor_release(w->mine);
  kiln_graph_release(w->g);
  kiln_context_free(w->ctx);
  unlink(w->path);
  free(w->arena);
  ck_assert_int_eq(w->memory.live, 0);
}

static size_t need(world *w) {
  size_t bytes = 0;
  GOOD(kiln_session_arena_bytes(w->s, &bytes), kiln_session_error(w->s));
  return bytes;
}

/* Outputs of both sessions are equal, to the bit; those of the first lie in the arena. */
static void compare(world *w) {
  for (int i = 0; i < kiln_graph_output_count(w->g); i++) {
    kiln_value a, b;
    GOOD(kiln_session_get(w->s, i, &a), kiln_session_error(w->s));
    GOOD(kiln_session_get(w->other, i, &b), kiln_session_error(w->other));
    ck_assert(a.kind == b.kind && a.i == b.i);
    if (a.kind == KILN_TENSOR) {
      const size_t bytes = (size_t)kiln_tensor_numel(a.tensor) * sizeof(float);
      ck_assert_int_eq(kiln_tensor_numel(a.tensor), kiln_tensor_numel(b.tensor));
      ck_assert(!memcmp(kiln_tensor_data(a.tensor), kiln_tensor_data(b.tensor), bytes));
      ck_assert(inside(w, kiln_tensor_data(a.tensor)) && !inside(w, kiln_tensor_data(b.tensor)));
    }
    kiln_value_clear(&a);
    kiln_value_clear(&b);
  }
}

static void run_both(world *w) {
  GOOD(kiln_session_run(w->s), kiln_session_error(w->s));
  GOOD(kiln_session_run(w->other), kiln_session_error(w->other));
  compare(w);
}

/* After what is kept is there, the allocator may refuse everything. */
START_TEST(runs_take_nothing_else) {
  static const char *const backends[] = {"ref", "cpu", NULL};
  for (size_t b = 0; b < sizeof backends / sizeof *backends; b++)
    for (int which = PLAIN; which <= BUSY; which++) {
      world w;
      open_world(&w, which, backends[b]);
      lend(&w, need(&w));
      for (int i = 0; i < (which == BUSY ? 3 : 1); i++) run_both(&w);
      const long live = w.memory.live;
      for (int i = 0; i < 50; i++) {
        w.memory = (account){.live = w.memory.live, .left = 0};
        GOOD(kiln_session_run(w.s), kiln_session_error(w.s));
        ck_assert_int_eq(w.memory.refusals, 0);
        w.memory.left = -1;
        GOOD(kiln_session_run(w.other), kiln_session_error(w.other));
        compare(&w);
      }
      ck_assert_int_eq(w.memory.live, live);
      close_world(&w);
    }
}
END_TEST

START_TEST(its_size_is_checked_first) {
  for (int which = PLAIN; which <= BUSY; which++) {
    world w;
    kiln_value v;
    char told[40];
    open_world(&w, which, NULL);
    const size_t bytes = need(&w);
    snprintf(told, sizeof told, "needs %zu", bytes);
    for (size_t less = 0; less < bytes; less = 2 * less + 1) {
      lend(&w, less ? bytes - less : 0);
      BAD(KILN_NOMEM, told, kiln_session_run(w.s), kiln_session_error(w.s));
      check_guard(&w);
      ck_assert_int_eq(kiln_session_get(w.s, 0, &v), KILN_STATE);
      ck_assert_uint_eq(need(&w), bytes);
    }
    lend(&w, bytes);
    for (int i = 0; i < 3; i++) run_both(&w); /* those that were refused left no trace */
    if (which == PLAIN) {
      size_t other;
      set_rows(&w, 64);
      BAD(KILN_NOMEM, "needs", kiln_session_run(w.s), kiln_session_error(w.s));
      other = need(&w);
      ck_assert_uint_gt(other, bytes);
      lend(&w, other);
      run_both(&w);
      set_rows(&w, 4);
      run_both(&w);
    }
    BAD(KILN_ARG, "aligned to 64", kiln_session_set_arena(w.s, w.arena + 8, bytes), kiln_session_error(w.s));
    run_both(&w);
    close_world(&w);
  }
}
END_TEST

START_TEST(what_is_held_is_not_overwritten) {
  world w;
  kiln_tensor *y, *sum;
  float before[32], after[32];
  open_world(&w, PLAIN, NULL);
  lend(&w, need(&w));
  run_both(&w);
  GOOD(kiln_session_get_tensor(w.s, "sum", &sum), "");
  BAD(KILN_STATE, "still held", kiln_session_run(w.s), kiln_session_error(w.s));
  kiln_tensor_release(sum);
  run_both(&w);
  GOOD(kiln_session_get_tensor(w.s, "1", &y), "");
  GOOD(kiln_tensor_read(w.ctx, y, before, sizeof before), "");
  GOOD(kiln_session_set_tensor(w.s, "x", y), "");
  kiln_tensor_release(y);
  BAD(KILN_STATE, "still held", kiln_session_run(w.s), kiln_session_error(w.s));
  GOOD(kiln_session_set_tensor(w.s, "x", w.x), "");
  run_both(&w);
  /* it outlives the arena's time, and the session */
  GOOD(kiln_session_get_tensor(w.s, "1", &y), "");
  GOOD(kiln_session_set_arena(w.s, NULL, 0), "");
  kiln_value v;
  ck_assert_int_eq(kiln_session_get(w.s, 0, &v), KILN_STATE);
  GOOD(kiln_session_run(w.s), kiln_session_error(w.s));
  GOOD(kiln_session_get(w.s, 0, &v), "");
  ck_assert(!inside(&w, kiln_tensor_data(v.tensor)));
  kiln_value_clear(&v);
  kiln_session_free(w.s);
  w.s = NULL;
  GOOD(kiln_tensor_read(w.ctx, y, after, sizeof after), "");
  ck_assert(!memcmp(before, after, sizeof before));
  kiln_tensor_release(y);
  close_world(&w);
}
END_TEST

START_TEST(functions_of_the_host_may_keep) {
  world w;
  open_world(&w, BUSY, NULL);
  lend(&w, need(&w));
  run_both(&w);
  w.keeps = true;
  GOOD(kiln_session_run(w.s), kiln_session_error(w.s));
  w.keeps = false;
  ck_assert(w.held && inside(&w, kiln_tensor_data(w.held)));
  BAD(KILN_STATE, "functions of the host", kiln_session_run(w.s), kiln_session_error(w.s));
  kiln_tensor_release(w.held);
  GOOD(kiln_session_run(w.other), kiln_session_error(w.other));
  run_both(&w);
  close_world(&w);
}
END_TEST

/* Where the need is not known in advance a run may end in the middle: nothing has happened then. */
START_TEST(what_only_the_run_knows) {
  world w;
  kiln_value v;
  open_world(&w, GROWS, NULL);
  const size_t least = need(&w);
  lend(&w, least + 65536);
  for (int i = 0; i < 3; i++) run_both(&w);
  GOOD(kiln_session_set_integer(w.s, "n", 100000), "");
  ck_assert_int_eq(kiln_session_run(w.s), KILN_NOMEM);
  check_guard(&w);
  ck_assert_int_eq(kiln_session_get(w.s, 0, &v), KILN_STATE);
  GOOD(kiln_session_get_slot(w.s, 0, &v), "");
  ck_assert_int_eq(v.i, 3);
  GOOD(kiln_session_set_integer(w.s, "n", 5), "");
  run_both(&w);
  close_world(&w);
}
END_TEST

/* Profiles and check beside it. */
START_TEST(other_forms_of_plans) {
  world w;
  const char *said;
  open_world(&w, BUSY, NULL);
  lend(&w, need(&w));
  run_both(&w);
  GOOD(kiln_session_profile(w.s, NULL, &said), kiln_session_error(w.s));
  compare(&w);
  kiln_session_set_check(w.s, 1);
  lend(&w, need(&w));
  run_both(&w);
  kiln_session_set_check(w.s, 0);
  lend(&w, need(&w));
  run_both(&w);
  size_t bytes;
  GOOD(kiln_session_memory(w.s, &bytes), kiln_session_error(w.s));
  compare(&w);
  run_both(&w);
  close_world(&w);
}
END_TEST

SUITE("capi_arena", runs_take_nothing_else, its_size_is_checked_first, what_is_held_is_not_overwritten,
      functions_of_the_host_may_keep, what_only_the_run_knows, other_forms_of_plans)
