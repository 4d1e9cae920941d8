/* kiln_lua.h: libkiln-lua for C hosts: kiln in a Lua state, the host's own or one that is made here; Lua
 * functions called with tensors; tensors and graphs to and fro; graphs captured from C.
 *
 *     lua_State *L;
 *     kiln_graph *graph;
 *     kiln_value x = {KILN_TENSOR}, y;
 *     kiln_lua_new(NULL, &L, NULL, 0);
 *     if (kiln_lua_run_file(L, "game.lua", 0)) puts(kiln_lua_error(L));
 *     x.tensor = ...;
 *     kiln_lua_call(L, "think", &x, 1, &y, 1);
 *     kiln_value_clear(&y);
 *     kiln_lua_free(L);
 *
 * SCRIPTS ARE TRUSTED CODE, GRAPH FILES ARE UNTRUSTED DATA. Limits below end a script that runs away; they do
 * not confine one that means harm: Lua's libraries reach files and programs, `load` takes bytecode, which
 * nothing checks, and captured state can be changed at will. Run only scripts that you would run as your own.
 * A .kiln file may come from anybody: nothing in it is executed, and all of it is checked before use.
 *
 * RULES, for every function below unless it says otherwise
 *   Errors      Nothing raises a Lua error or jumps out, whatever fails, memory included: each call runs
 *               protected. On failure the status says what it was (RAISED: the script's own error),
 *               kiln_lua_error(L) tells it with a traceback, kiln_error of the state's context without, and
 *               the stack is as before, without what was to be consumed. STATE when kiln is not open in L,
 *               or closing.
 *   Stack       Indices are Lua's. Room for what is pushed is made.
 *   Ownership   Arguments are borrowed for the call. Tensors and graphs that are fetched are the caller's, to
 *               be released as in kiln.h; they stay valid after the state is closed, and any thread may hold
 *               them.
 *   Tensors     go over without a copy, both ways: two handles of the same elements. A write on one side is
 *               seen on the other. Gradients stay behind: a tensor fetched is detached. Memory of the host
 *               (kiln_tensor_wrap) is given back when the last handle is gone, in Lua when the collector has
 *               found out, at the latest when the state is closed.
 *   Threads     A Lua state, with all its coroutines, is used by one thread at a time. States of different
 *               contexts have nothing in common; states of one context are used by one thread at a time, too.
 *               For a thread each, give each a child (kiln_context_child), which share memory and backends.
 */
#ifndef KILN_LUA_H
#define KILN_LUA_H

#include "kiln.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

#ifndef KILN_LUA_API
#define KILN_LUA_API KILN_API
#endif

/* ---- in the host's own state ---- */

/* A lua_CFunction: `luaL_requiref(L, "kiln", luaopen_kiln, 1)`. Uses the context set before, or makes one of
 * its own, closed with the state, that reads KILN_DEBUG, KILN_BACKEND and KILN_NUM_THREADS. Raises Lua
 * errors. Wraps the state's allocator, to learn of tensors that Lua frees: a host that sets another one later
 * must have it call the one it found (lua_getallocf), until the state is closed; so long it must not be
 * unloaded, for which the shared library sees itself. The collector's mode is the
 * host's: the generational one (lua_gc(L, LUA_GCGEN, 0, 0)) gives the memory of dropped tensors back soonest.
 */
KILN_LUA_API int luaopen_kiln(struct lua_State *L);

/* Make kiln in this state work with the host's context, which must outlive the state. Call before
 * luaopen_kiln. Returns 1, or 0 when the state has a context already. May raise Lua's out-of-memory error. */
KILN_LUA_API int kiln_lua_setcontext(struct lua_State *L, struct kiln_context *ctx);

/* ---- a state made here ---- */

/* Zero all of it, set `size`, then what is wanted: zero means the default. Strings are not kept. */
typedef struct kiln_lua_options {
  size_t size;           /* sizeof(kiln_lua_options) */
  kiln_context *context; /* must outlive the state; what Lua takes is taken from it, and `print` and `warn` go
                          * to its output. NULL: one of its own, closed with the state, that reads no
                          * environment and prints to the standard output, as Lua does; it drops warnings */
  size_t memory_limit;   /* bytes in use at most, of Lua and of tensors together; 0: none. Only without
                          * `context`, which has a limit of its own. Memory that is wrapped is not counted */
  uint64_t instruction_limit; /* see kiln_lua_limit_instructions */
  const char *libraries; /* which of Lua's there are beside the basic functions, package, coroutine, table,
                          * string, math and utf8: "io,os,debug", or some of these; "": none. NULL: all */
} kiln_lua_options;

/* A Lua state with Lua's libraries and the global `kiln`; the collector is in its generational mode. options
 * NULL: defaults. On failure there is no state to ask, so the sentence goes to error (terminated, at most
 * error_size bytes; may be NULL with 0). NOMEM, ARG. */
KILN_LUA_API kiln_status kiln_lua_new(const kiln_lua_options *options, struct lua_State **out, char *error,
                                      size_t error_size);
/* Closes it, with what it holds; finalizers run. NULL is accepted. */
KILN_LUA_API void kiln_lua_free(struct lua_State *L);

/* ---- of any state in which kiln is open ---- */

/* The context that kiln uses there: for sessions, for kiln_error and kiln_context_memory. NULL when there is
 * none. */
KILN_LUA_API kiln_context *kiln_lua_context(struct lua_State *L);
/* The last failure of a function below, with its traceback, in several lines; "" before any. Valid until the
 * next call of one with L. */
KILN_LUA_API const char *kiln_lua_error(struct lua_State *L);
/* From now on each call below (not those that scripts make within it) ends with LIMIT when it has taken more
 * than so many of Lua's instructions and steps of graphs, give or take 128; 0: no limit. The state stays
 * usable. Takes the state's hook (lua_sethook). Not counted: what C functions do, finalizers, coroutines made
 * while there was no limit. A script cannot go on by catching the error. */
KILN_LUA_API void kiln_lua_limit_instructions(struct lua_State *L, uint64_t instructions);

/* Runs a chunk of Lua text (never bytecode), of `length` bytes; `name` is what messages call it. nresults
 * results are left on the stack, all for -1. FORMAT when it is no Lua. */
KILN_LUA_API kiln_status kiln_lua_run(struct lua_State *L, const char *text, size_t length, const char *name,
                                      int nresults);
/* The same from a file. IO when it cannot be read. */
KILN_LUA_API kiln_status kiln_lua_run_file(struct lua_State *L, const char *path, int nresults);
/* lua_pcall, with limits and traceback: calls the function that lies below its nargs arguments, consumes
 * both, and leaves nresults results, all for -1. */
KILN_LUA_API kiln_status kiln_lua_pcall(struct lua_State *L, int nargs, int nresults);
/* Calls a function by name: a global "update", a field of one or of a loaded module "game.units.update". Just
 * nresults values are written, NIL where it gives fewer, and are the caller's, to be cleared; text of strings
 * is valid until the next call of this with L. ARG when there is no such function, or when a result is
 * neither nil, a boolean, a number, a string nor a tensor: then none is written. */
KILN_LUA_API kiln_status kiln_lua_call(struct lua_State *L, const char *name, const kiln_value *args,
                                       int nargs, kiln_value *results, int nresults);

/* Pushes a tensor. */
KILN_LUA_API kiln_status kiln_lua_push_tensor(struct lua_State *L, kiln_tensor *t);
/* The tensor at an index. ARG when there is none, STATE inside a capture, where it has no elements yet. */
KILN_LUA_API kiln_status kiln_lua_to_tensor(struct lua_State *L, int index, kiln_tensor **out);
/* Pushes a Graph that runs g. Any number of states may run one graph at the same time; each has its own slots
 * and random numbers. */
KILN_LUA_API kiln_status kiln_lua_push_graph(struct lua_State *L, kiln_graph *g);
/* The Graph at an index as it is now: its newest capture, with copies of what its slots hold; training it
 * further in Lua does not change what was fetched. ARG when there is none, STATE when it has not been
 * captured yet, UNSUPPORTED when it only holds together with Lua objects (as for g:save). */
KILN_LUA_API kiln_status kiln_lua_to_graph(struct lua_State *L, int index, kiln_graph **out);

/* Captures the function or module at index `function`, as kiln.script does, and fetches the graph as
 * kiln_lua_to_graph does. Its arguments are described by `specs`, the Lua text of a list:
 *     kiln.spec("float32", {"N", 10}), "integer"
 * or, where that is NULL, by the table of such at index `table`. CAPTURE when it cannot be captured; the
 * sentence says where, why and what to write instead. */
KILN_LUA_API kiln_status kiln_lua_script(struct lua_State *L, int function, const char *specs, int table,
                                         kiln_graph **out);

#ifdef __cplusplus
}
#endif
#endif
