/* kiln.cuda: the devices there are, the one that is used and its memory, under PyTorch's names. Devices are
 * numbered from 0 there. Asking whether there is one looks for it; nothing else does unasked. */
#include "bindings/lua/state.h"
#include "backends/registry.h"

typedef struct door {
  const kn_device_door *of;
  void *state;
} door;

static kn_status find(kn_context *ctx, door *out) {
  return kn_registry_door(ctx, KN_CUDA, &out->of, &out->state);
}

static door need(lua_State *L) {
  door d;
  kl_check(L, find(kl_context(L), &d));
  return d;
}

static int is_available(lua_State *L) {
  door d;
  lua_pushboolean(L, find(kl_context(L), &d) == KN_OK);
  return 1;
}

static int device_count(lua_State *L) {
  door d;
  lua_pushinteger(L, find(kl_context(L), &d) == KN_OK ? d.of->count(d.state) : 0);
  return 1;
}

static int current_device(lua_State *L) {
  door d = need(L);
  lua_pushinteger(L, d.of->current(d.state));
  return 1;
}

static int number_at(lua_State *L, const char *name, int otherwise) {
  int whole = 1;
  lua_Integer n = lua_isnoneornil(L, 1) ? otherwise : lua_tointegerx(L, 1, &whole);
  if (!whole || n < 0 || n > 1 << 16)
    return kl_error(L, KN_ARG, "%s: a device's number is needed, from 0, got %s", name, kl_kind(L, 1));
  return (int)n;
}

static int set_device(lua_State *L) {
  door d = need(L);
  kl_check(L, d.of->choose(d.state, kl_context(L), number_at(L, "set_device", -1)));
  return 0;
}

static kn_device_facts facts_at(lua_State *L, const char *name) {
  door d = need(L);
  kn_device_facts f;
  kl_check(L, d.of->facts(d.state, kl_context(L), number_at(L, name, d.of->current(d.state)), &f));
  return f;
}

static int get_device_name(lua_State *L) {
  lua_pushstring(L, facts_at(L, "get_device_name").name);
  return 1;
}

static int get_device_capability(lua_State *L) {
  kn_device_facts f = facts_at(L, "get_device_capability");
  lua_pushinteger(L, f.major);
  lua_pushinteger(L, f.minor);
  return 2;
}

static void set_size(lua_State *L, const char *name, uint64_t n) {
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

static int get_device_properties(lua_State *L) {
  kn_device_facts f = facts_at(L, "get_device_properties");
  lua_createtable(L, 0, 5);
  lua_pushstring(L, f.name);
  lua_setfield(L, -2, "name");
  set_size(L, "major", (uint64_t)f.major);
  set_size(L, "minor", (uint64_t)f.minor);
  set_size(L, "total_memory", f.memory);
  set_size(L, "multi_processor_count", (uint64_t)f.processors);
  return 1;
}

/* ---- memory ---- */

/* Zeros where there is no device; tensors that Lua has dropped are released first. */
static kn_device_usage usage_of(lua_State *L) {
  door d;
  kl_bury(kl_state_of(L));
  return find(kl_context(L), &d) == KN_OK ? d.of->usage(d.state) : (kn_device_usage){0};
}

#define USAGE(name, field)                                                                                   \
  static int name(lua_State *L) {                                                                            \
    lua_pushinteger(L, (lua_Integer)usage_of(L).field);                                                      \
    return 1;                                                                                                \
  }
USAGE(memory_allocated, allocated)
USAGE(memory_reserved, reserved)
USAGE(max_memory_allocated, peak_allocated)
USAGE(max_memory_reserved, peak_reserved)

static int memory_stats(lua_State *L) {
  kn_device_usage u = usage_of(L);
  lua_createtable(L, 0, 8);
  set_size(L, "allocated", u.allocated);
  set_size(L, "reserved", u.reserved);
  set_size(L, "peak_allocated", u.peak_allocated);
  set_size(L, "peak_reserved", u.peak_reserved);
  set_size(L, "blocks", u.blocks);
  set_size(L, "segments", u.segments);
  set_size(L, "allocations", u.calls);
  set_size(L, "retries", u.retries);
  return 1;
}

static int launch_stats(lua_State *L) {
  door d;
  kn_device_launches n = {0};
  if (find(kl_context(L), &d) == KN_OK) n = d.of->launches(d.state);
  lua_createtable(L, 0, 5);
  set_size(L, "captured", n.captured);
  set_size(L, "launches", n.launches);
  set_size(L, "waits", n.waits);
  set_size(L, "syncs", n.syncs);
  lua_pushnumber(L, n.seconds);
  lua_setfield(L, -2, "seconds");
  return 1;
}

static int mem_get_info(lua_State *L) {
  door d = need(L);
  size_t left, all;
  kl_check(L, d.of->room(d.state, kl_context(L), &left, &all));
  lua_pushinteger(L, (lua_Integer)left);
  lua_pushinteger(L, (lua_Integer)all);
  return 2;
}

static int reset_peak_memory_stats(lua_State *L) {
  door d;
  if (find(kl_context(L), &d) == KN_OK) d.of->reset_peak(d.state);
  return 0;
}

static int empty_cache(lua_State *L) {
  door d;
  kl_bury(kl_state_of(L));
  if (find(kl_context(L), &d) == KN_OK) d.of->empty_cache(d.state);
  return 0;
}

static int synchronize(lua_State *L) {
  kn_context *ctx = kl_context(L);
  const kn_memory *m;
  kl_check(L, kn_device_memory(ctx, KN_CUDA, &m));
  kl_check(L, m->synchronize(m->self, ctx));
  return 0;
}

void kl_open_cuda(lua_State *L) {
  static const luaL_Reg functions[] = {{"is_available", is_available},
                                       {"device_count", device_count},
                                       {"current_device", current_device},
                                       {"set_device", set_device},
                                       {"get_device_name", get_device_name},
                                       {"get_device_capability", get_device_capability},
                                       {"get_device_properties", get_device_properties},
                                       {"memory_allocated", memory_allocated},
                                       {"memory_reserved", memory_reserved},
                                       {"max_memory_allocated", max_memory_allocated},
                                       {"max_memory_reserved", max_memory_reserved},
                                       {"memory_stats", memory_stats},
                                       {"launch_stats", launch_stats},
                                       {"mem_get_info", mem_get_info},
                                       {"reset_peak_memory_stats", reset_peak_memory_stats},
                                       {"empty_cache", empty_cache},
                                       {"synchronize", synchronize},
                                       {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_getfield(L, -2, "manual_seed"); /* there is one stream of random numbers */
  lua_setfield(L, -2, "manual_seed");
  lua_setfield(L, -2, "cuda");
}
