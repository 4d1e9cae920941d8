/* libkiln-lua for C hosts: opens kiln in the host's own lua_State. A public header, beside kiln.h. */
#ifndef KILN_LUA_H
#define KILN_LUA_H

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;
struct kiln_context;

#ifndef KILN_LUA_API
#if defined(__GNUC__)
#define KILN_LUA_API __attribute__((visibility("default")))
#else
#define KILN_LUA_API
#endif
#endif

/* A lua_CFunction: `luaL_requiref(L, "kiln", luaopen_kiln, 1)`. Uses the context set before, or makes one of
 * its own, closed with the state, that reads KILN_DEBUG, KILN_BACKEND and KILN_NUM_THREADS. Raises Lua
 * errors. Wraps the state's allocator, to learn of tensors that Lua frees: a host that sets another one later
 * must have it call the one it found (lua_getallocf), until the state is closed. The collector's mode is the
 * host's: the generational one (lua_gc(L, LUA_GCGEN, 0, 0)) gives the memory of dropped tensors back soonest.
 */
KILN_LUA_API int luaopen_kiln(struct lua_State *L);

/* Make kiln in this state work with the host's context, which must outlive the state. Call before
 * luaopen_kiln. Returns 1, or 0 when the state has a context already. May raise Lua's out-of-memory error. */
KILN_LUA_API int kiln_lua_setcontext(struct lua_State *L, struct kiln_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
