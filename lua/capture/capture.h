/* Capture: a Lua function's bytecode, interpreted symbolically into a graph. Reads bytecode through lua_dump
 * and Lua's public API; knows nothing of the binding beyond kc_host. Prefix kc_. Design: see README.md here.
 */
#ifndef KC_CAPTURE_H
#define KC_CAPTURE_H
#include "graph/graph.h"
#include "graph/exec.h"
#include <lua.h>

/* A Graph object that captured code calls. */
typedef struct kc_called {
  const kn_graph *graph;       /* has no Lua function; borrowed. NULL: it has one … */
  const struct kc_arg *inputs; /* … whose arguments are described so; NULL: they are not */
  int ninputs;
} kc_called;

/* What the binding offers to capture. One constant struct per binding. */
typedef struct kc_host {
  kn_context *(*context)(lua_State *L);
  void (*push_methods)(lua_State *L); /* the table of tensors' methods */
  void (*push_tensor)(lua_State *L, kn_tensor *owned);
  kn_tensor *(*test_tensor)(lua_State *L, int idx);
  /* Counts how often an object that lives was parted from its tensor; as long as it stays, each has its own.
   */
  const uint64_t *(*emptied)(lua_State *L);
  void (*push_scalar)(lua_State *L, const kn_scalar *s); /* SYMBOL scalars too */
  bool (*test_scalar)(lua_State *L, int idx, kn_scalar *out);
  /* The C function at idx may be called under recording with symbolic arguments (kl_set_engine_functions). */
  bool (*is_engine)(lua_State *L, int idx);
  /* The table at `table` (0: tensors) has no field of the string at `key`: what to say when it is about to be
   * called ("": nothing). False when the table's __index is another's function. */
  bool (*missing)(lua_State *L, int table, int key, char *why, size_t size);
  /* Is the value at idx a Graph? Then its function, or nil, and what keeps the descriptions are pushed. */
  bool (*called)(lua_State *L, int idx, kc_called *out);
  /* Pushes a table or function and the key in it, or number of its upvalue, where the slot of the Graph at
   * idx is found. May raise. */
  void (*push_slot)(lua_State *L, int idx, const kn_slot *slot);
} kc_host;

/* How one argument is to be captured. */
typedef enum kc_arg_kind {
  KC_ARG_BY_VALUE, /* from the value on the stack: tensors, tables of tensors, numbers free; the rest burnt in
                    */
  KC_ARG_SPEC,     /* type and name given: kiln.spec(...), "float", "integer", "boolean" */
  KC_ARG_TABLE     /* a plain table of such */
} kc_arg_kind;
typedef struct kc_arg {
  kc_arg_kind kind;
  uint32_t n;        /* TABLE: fields, called by name, or where that is NULL by `key` */
  const char **name; /* borrowed during capture */
  const int64_t *key;
  struct kc_arg *fields; /* SPEC or TABLE */
  kn_vtype type;         /* SPEC */
  const char
      *sizes[KN_MAX_RANK]; /* SPEC: names of symbolic sizes, NULL where type.tensor.dims holds a number */
} kc_arg;

/* The live side of a captured graph: what each guard looks at, where each slot's tensor is found now. Anchors
 * Lua objects in the registry of L; freed by kc_live_free (any time before lua_close). */
typedef struct kc_live kc_live;

/* Captures the function (or callable object) at `func` for arguments at [first, first + nargs). `before`, of
 * an earlier capture whose guards failed, may be NULL: numbers outside that have changed since are slots that
 * are read at every call, where the graph can do without knowing them. On success *out is a finished graph
 * and *live its live side, both owned. On failure the context holds "file:line: reason …". The Lua stack is
 * as before; no Lua object reachable by the program has been changed. Never raises. */
kn_status kc_capture(lua_State *L, const kc_host *host, int func, int first, int nargs, const kc_arg *args,
                     const kc_live *before, kn_graph **out, kc_live **live);
/* The same for a function that becomes a region of another graph: symbols of that graph, which it reaches as
 * upvalues, are further inputs after those of the arguments. Values are of the other graph. */
typedef struct kc_outer {
  uint32_t n;
  void *value[64];
} kc_outer;
kn_status kc_capture_part(lua_State *L, const kc_host *host, int func, int first, int nargs,
                          const kc_arg *args, kc_outer *outer, kn_graph **out);
/* Do the guards hold for these arguments? When not, `why` (may be NULL) gets "global 'n' was 3 at f.lua:7, is
 * 4". Does not raise, allocates nothing in the common case. */
bool kc_live_check(lua_State *L, const kc_host *host, kc_live *live, int first, int nargs, char *why,
                   size_t size);
/* Read every outside tensor (and state number) afresh into the session before a run … */
kn_status kc_live_load(lua_State *L, const kc_host *host, kc_live *live, kn_session *s);
/* The same, right after kc_live_check said yes: what it found is not looked for again. */
kn_status kc_live_load_checked(lua_State *L, const kc_host *host, kc_live *live, kn_session *s);
/* … and write back what the graph stored, after a run that succeeded. A tensor that is an input, an outside
 * tensor or a result is stored as that very one: inputs are at stack index ins, outputs at outs. */
kn_status kc_live_store(lua_State *L, const kc_host *host, kc_live *live, kn_session *s, int ins, int outs);
/* Pushes the tensor that is now where the slot was found (before kc_live_store: that the run began with);
 * false (nothing pushed) when that is no place of its own. */
bool kc_live_push_slot(lua_State *L, kc_live *live, const kn_slot *slot);
/* The same for a slot that what is there gets its new contents by. */
bool kc_live_push_overwritten(lua_State *L, kc_live *live, const kn_slot *slot);
/* The i-th loop (from 0) that capture ran trip by trip: its place ("" when unknown) and trips. False past the
 * last. */
bool kc_live_unrolled(const kc_live *live, uint32_t i, const char **where, int64_t *trips);
/* An argument that the graph knows by its identity, which no file can hold; NULL: there is none. */
const char *kc_live_object(const kc_live *live);
/* A place outside that is nil when the graph begins and not when it ends, or the other way round: the guards
 * do not hold for a second run. NULL: there is none. */
const char *kc_live_unsteady(const kc_live *live);
void kc_live_free(lua_State *L, kc_live *live);

/* Pushes a list of {kind = "refuse", "burn" or "state", line =, what =, text = "file:line: what"}: what
 * capture would refuse, or make part of the graph, as far as the bytecode of the function and of those it
 * calls tells. */
kn_status kc_lint(lua_State *L, const kc_host *host, int func);

/* Can this Lua's bytecode be read? Checked once per state by a probe chunk; the reason otherwise. */
kn_status kc_check_lua(lua_State *L, kn_context *ctx);
/* The same by another chunk, whatever was found before; the answer is what kc_check_lua gives from then on.
 */
kn_status kc_check_lua_by(lua_State *L, kn_context *ctx, const char *text, size_t len);

#endif
