/* Lua states in several threads: over child contexts of one, with one graph and one tensor between them, and
 * over contexts that have nothing in common. For ./dev tsan, too. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include "spec/suite.h"
#include "bindings/lua/kiln_lua.h"
#include <lua.h>
#include <pthread.h>

enum { THREADS = 4, ROUNDS = 40 };

static const char program[] =
    "local w = kiln.full({ 3 }, 2.0)\n"
    "local f = kiln.script(function(x) if x:sum() > 3 then x = x * 2 end return (x * w):sum() end)\n"
    "function step(x, g, i)\n"
    "  local y = kiln.rand(50, 50):matmul(kiln.ones(50, 2)) -- garbage of all kinds\n"
    "  local p = kiln.ones(3):requires_grad_()\n"
    "  f(p * x):backward()\n"
    "  assert(p.grad ~= nil and y:dim() == 2)\n"
    "  if i % 10 == 0 then collectgarbage() end\n"
    "  return graph(x):item() + f(x):item(), x * i\n"
    "end\n";

typedef struct job {
  kiln_context *ctx; /* NULL: a state with its own */
  kiln_graph *graph;
  kiln_tensor *x;
  double sum;
  kiln_tensor *last; /* released by the thread that waits */
  const char *failed;
} job;

static const char *work(job *j, lua_State *L) {
  if (kiln_lua_run(L, program, sizeof program - 1, "program", 0)) return kiln_lua_error(L);
  if (kiln_lua_push_graph(L, j->graph)) return kiln_lua_error(L);
  lua_setglobal(L, "graph");
  for (int i = 1; i <= ROUNDS; i++) {
    const kiln_value args[3] = {
        {.kind = KILN_TENSOR, .tensor = j->x}, {.kind = KILN_NIL}, {.kind = KILN_INTEGER, .i = i}};
    kiln_value out[2];
    if (kiln_lua_call(L, "step", args, 3, out, 2)) return kiln_lua_error(L);
    j->sum += out[0].f;
    kiln_tensor_release(j->last);
    j->last = out[1].tensor;
  }
  kiln_graph *mine; /* captures at the same time */
  lua_getglobal(L, "step");
  if (kiln_lua_script(L, -1, "kiln.spec('float32', {3}), 'integer', 'integer'", 0, &mine) == KILN_OK)
    kiln_graph_release(mine);
  return NULL;
}

static void *start(void *arg) {
  static const char *const none = "no state";
  job *j = arg;
  lua_State *L;
  const kiln_lua_options o = {.size = sizeof o, .context = j->ctx};
  j->failed = none;
  if (kiln_lua_new(&o, &L, NULL, 0)) return NULL;
  j->failed = work(j, L);
  if (j->failed) j->failed = strdup(j->failed);
  kiln_lua_free(L);
  return NULL;
}

static void run_all(bool shared) {
  kiln_context *root;
  kiln_context_options o = {.size = sizeof o, .threads = 2, .seed = 5};
  ck_assert_int_eq(kiln_context_new(&o, &root, NULL, 0), KILN_OK);
  lua_State *L;
  ck_assert_int_eq(
      kiln_lua_new(&(kiln_lua_options){.size = sizeof(kiln_lua_options), .context = root}, &L, NULL, 0),
      KILN_OK);
  kiln_graph *g;
  static const char text[] = "local w = kiln.arange(3.0) function f(x) return (x * w + 1):sum() end";
  ck_assert_int_eq(kiln_lua_run(L, text, sizeof text - 1, "f", 0), KILN_OK);
  lua_getglobal(L, "f");
  ck_assert_int_eq(kiln_lua_script(L, -1, "kiln.spec('float32', {'N'})", 0, &g), KILN_OK);
  kiln_lua_free(L);

  kiln_tensor *x;
  const float numbers[3] = {1, 2, 3};
  ck_assert_int_eq(kiln_tensor_new(root, KILN_FLOAT32, 1, (const int64_t[]){3}, numbers, &x), KILN_OK);
  job jobs[THREADS] = {{0}};
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    jobs[i] = (job){.graph = g, .x = x};
    if (shared) ck_assert_int_eq(kiln_context_child(root, &jobs[i].ctx), KILN_OK);
    ck_assert_int_eq(pthread_create(&threads[i], NULL, start, &jobs[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    ck_assert_msg(!jobs[i].failed, "%s", jobs[i].failed);
    ck_assert_double_eq(jobs[i].sum, ROUNDS * (11.0 + 24.0));
    ck_assert_float_eq(((float *)kiln_tensor_data(jobs[i].last))[2], 3 * ROUNDS);
    kiln_tensor_release(jobs[i].last); /* of another thread's state, which is closed */
    kiln_context_free(jobs[i].ctx);
  }
  kiln_tensor_release(x);
  kiln_graph_release(g);
  kiln_context_free(root);
}

START_TEST(child_contexts) { run_all(true); }
END_TEST

START_TEST(contexts_of_their_own) { run_all(false); }
END_TEST

SUITE("embed threads", child_contexts, contexts_of_their_own)
