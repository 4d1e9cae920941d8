/* The engine as a whole, seen from Lua: backends, devices, the random stream, threads, memory, time. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/lua/state.h"
#include "backends/registry.h"
#include "core/device.h"
#include "core/parallel.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* kiln.backends(): a list of {name, available, version, reason}, preferred first. */
static int backends(lua_State *L) {
  kn_context *ctx = kl_context(L);
  int n = kn_registry_count();
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    kn_backend_report r;
    kn_registry_report(ctx, i, &r);
    lua_createtable(L, 0, 4);
    lua_pushstring(L, r.name);
    lua_setfield(L, -2, "name");
    lua_pushboolean(L, r.available);
    lua_setfield(L, -2, "available");
    if (r.version[0]) {
      lua_pushstring(L, r.version);
      lua_setfield(L, -2, "version");
    }
    if (!r.available) {
      lua_pushstring(L, r.reason);
      lua_setfield(L, -2, "reason");
    }
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* kiln.devices(): the names of those that some backend computes on; looks for them. */
static int devices(lua_State *L) {
  kn_context *ctx = kl_context(L);
  int n = 0;
  lua_newtable(L);
  for (int d = 0; d < KN_DEVICE_COUNT; d++) {
    const kn_memory *m;
    if (!ctx->providers[d][0] || kn_device_memory(ctx, (kn_device_id)d, &m) != KN_OK) continue;
    lua_pushstring(L, kn_device_name((kn_device_id)d));
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* ---- the random stream ---- */

static int manual_seed(lua_State *L) {
  int whole;
  lua_Integer seed = lua_tointegerx(L, 1, &whole);
  if (!whole) return kl_error(L, KN_ARG, "manual_seed: an integer is needed, got %s", kl_kind(L, 1));
  kn_random_seed(&kl_context(L)->random, (uint64_t)seed);
  return 0;
}

/* kiln.get_rng_state() gives what kiln.set_rng_state takes: the seed and how far the stream has gone. */
static int get_rng_state(lua_State *L) {
  kn_random *r = &kl_context(L)->random;
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, (lua_Integer)r->seed);
  lua_setfield(L, -2, "seed");
  lua_pushinteger(L, (lua_Integer)r->offset);
  lua_setfield(L, -2, "offset");
  return 1;
}

static int set_rng_state(lua_State *L) {
  kn_random r;
  lua_Integer *to[] = {(lua_Integer *)(void *)&r.seed, (lua_Integer *)(void *)&r.offset};
  static const char *const names[] = {"seed", "offset"};
  if (!lua_istable(L, 1))
    return kl_error(L, KN_ARG, "set_rng_state: a table is needed, got %s", kl_kind(L, 1));
  for (int i = 0; i < 2; i++) {
    int whole;
    lua_getfield(L, 1, names[i]);
    *to[i] = lua_tointegerx(L, -1, &whole);
    if (!whole)
      return kl_error(L, KN_ARG, "set_rng_state: %s must be an integer, got %s", names[i], kl_kind(L, -1));
    lua_pop(L, 1);
  }
  kl_context(L)->random = r;
  return 0;
}

/* kiln.fork_mark(what, part): where a forked part begins, ends and is waited for, and of which number. Only
 * capture listens (lua/capture/race.h). */
static int fork_mark(lua_State *L) {
  lua_pushinteger(L, 0);
  return 1;
}

/* Eager kernels give the same bits in every run whatever the number of threads, and graphs run them unless a
 * pass or a measured choice is allowed to change rounding. This forbids both. */
static int use_deterministic_algorithms(lua_State *L) {
  if (lua_type(L, 1) != LUA_TBOOLEAN)
    return kl_error(L, KN_ARG, "use_deterministic_algorithms: true or false is needed, got %s",
                    kl_kind(L, 1));
  kl_state_of(L)->ctx->deterministic = lua_toboolean(L, 1);
  return 0;
}

static int are_deterministic_algorithms_enabled(lua_State *L) {
  lua_pushboolean(L, kl_state_of(L)->ctx->deterministic);
  return 1;
}

static const char *const precisions[] = {
    [KN_FLOAT32_HIGHEST] = "highest", [KN_FLOAT32_HIGH] = "high", [KN_FLOAT32_MEDIUM] = "medium", NULL};

static int set_float32_matmul_precision(lua_State *L) {
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
  int i = 0;
  while (precisions[i] && strcmp(precisions[i], name)) i++;
  if (!precisions[i])
    return kl_error(L, KN_ARG,
                    "set_float32_matmul_precision: \"highest\", \"high\" or \"medium\" is needed, got %s",
                    *name ? name : kl_kind(L, 1));
  kl_state_of(L)->ctx->float32_precision = (uint8_t)i;
  return 0;
}

static int get_float32_matmul_precision(lua_State *L) {
  lua_pushstring(L, precisions[kn_context_precision(kl_state_of(L)->ctx)]);
  return 1;
}

/* ---- threads, memory, time ---- */

static int set_num_threads(lua_State *L) {
  int whole;
  lua_Integer n = lua_tointegerx(L, 1, &whole);
  if (!whole || n < 1 || n > 4096)
    return kl_error(L, KN_ARG, "set_num_threads: a number from 1 to 4096 is needed");
  kl_context(L)->threads = (int)n;
  return 0;
}

static int get_num_threads(lua_State *L) {
  lua_pushinteger(L, kl_context(L)->threads);
  return 1;
}

static void set_count(lua_State *L, const char *name, uint64_t n) {
  lua_pushinteger(L, n > LUA_MAXINTEGER ? LUA_MAXINTEGER : (lua_Integer)n);
  lua_setfield(L, -2, name);
}

/* kiln.memory_stats(): what is in use outside Lua's own memory. limit is nil when there is none; cached is
 * freed memory that waits for the next tensor, and is in nobody's use. */
static int memory_stats(lua_State *L) {
  kl_state *s = kl_state_of(L);
  kl_bury(s);
  kn_heap_stats h = kn_heap_read_stats(s->ctx->heap);
  lua_createtable(L, 0, 7);
  set_count(L, "allocated", h.bytes);
  set_count(L, "peak", h.peak);
  set_count(L, "cached", h.cached);
  set_count(L, "blocks", h.blocks);
  set_count(L, "allocations", h.calls);
  set_count(L, "tensors", kl_count_tensors(s));
  if (h.limit) set_count(L, "limit", h.limit);
  return 1;
}

static int reset_peak_memory_stats(lua_State *L) {
  kn_heap_reset_peak(kl_context(L)->heap);
  return 0;
}

/* kiln.empty_cache(): freed memory goes back to the system, where it would have waited for the next tensor.
 */
static int empty_cache(lua_State *L) {
  kl_state *s = kl_state_of(L);
  kl_bury(s);
  kn_heap_empty_cache(s->ctx->heap);
  return 0;
}

/* kiln.set_memory_limit(bytes or nil): gives the one before. */
static int set_memory_limit(lua_State *L) {
  kn_heap *heap = kl_context(L)->heap;
  size_t before = kn_heap_read_stats(heap).limit;
  int whole = 1;
  lua_Integer n = lua_isnil(L, 1) ? 0 : lua_tointegerx(L, 1, &whole);
  if (lua_isnone(L, 1) || lua_type(L, 1) == LUA_TSTRING || !whole || n < 0 || (n == 0 && !lua_isnil(L, 1)))
    return kl_error(L, KN_ARG,
                    "set_memory_limit: a number of bytes of at least 1, or nil for no limit, is "
                    "needed, got %s",
                    lua_type(L, 1) == LUA_TNUMBER ? lua_tostring(L, 1) : kl_kind(L, 1));
  kn_heap_set_limit(heap, (size_t)n);
  if (!before) return 0;
  lua_pushinteger(L, (lua_Integer)before);
  return 1;
}

/* Seconds that only move forward, for timing. */
static int monotonic(lua_State *L) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  lua_pushnumber(L, (double)t.tv_sec + 1e-9 * (double)t.tv_nsec);
  return 1;
}

/* Is a standard stream ("stdout", "stderr", "stdin") a terminal? For progress bars. */
static int is_terminal(lua_State *L) {
  static const char *const names[] = {"stdin", "stdout", "stderr", NULL};
  lua_pushboolean(L, isatty(luaL_checkoption(L, 1, "stdout", names)));
  return 1;
}

/* Ops dispatched so far, for tests and measurements. */
static int op_count(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)kl_context(L)->op_count);
  return 1;
}

/* kiln.fail(format, …): raises with the user's line; how the library files report misuse. */
static int fail(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_getglobal(L, "string");
  lua_getfield(L, -1, "format");
  lua_insert(L, 1);
  lua_pop(L, 1);
  lua_call(L, lua_gettop(L) - 1, 1);
  return kl_error(L, KN_ARG, "%s", lua_tostring(L, -1));
}

void kl_open_system(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"backends", backends},
      {"devices", devices},
      {"manual_seed", manual_seed},
      {"get_rng_state", get_rng_state},
      {"set_rng_state", set_rng_state},
      {"fork_mark", fork_mark},
      {"use_deterministic_algorithms", use_deterministic_algorithms},
      {"are_deterministic_algorithms_enabled", are_deterministic_algorithms_enabled},
      {"set_float32_matmul_precision", set_float32_matmul_precision},
      {"get_float32_matmul_precision", get_float32_matmul_precision},
      {"set_num_threads", set_num_threads},
      {"get_num_threads", get_num_threads},
      {"memory_stats", memory_stats},
      {"empty_cache", empty_cache},
      {"reset_peak_memory_stats", reset_peak_memory_stats},
      {"set_memory_limit", set_memory_limit},
      {"clock", monotonic},
      {"is_terminal", is_terminal},
      {"op_count", op_count},
      {"fail", fail},
      {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  lua_pushliteral(L, KN_VERSION_TEXT);
  lua_setfield(L, -2, "version");
}
