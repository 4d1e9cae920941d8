/* What the files of the Lua binding (and, through kc_host, capture) share. Prefix kl_.
 * Rule of the room: C code below never raises; functions here raise only after C resources are released. */
#ifndef KL_H
#define KL_H
#include "core/dispatch.h"
#include "graph/exec.h"
#include "lua/capture/capture.h"
#include <lauxlib.h>
#include <lua.h>

/* The context of this state (made by luaopen_kiln, or the host's). Raises when kiln is not open. */
kn_context *kl_context(lua_State *L);
/* Raise the context's sentence with the Lua position of the caller ("file:line: "). Does not return. */
int kl_fail(lua_State *L);
/* kl_fail unless st is OK. */
void kl_check(lua_State *L, kn_status st);

/* Tensors are full userdata holding one reference; their bytes are reported to the collector. */
void kl_push_tensor(lua_State *L, kn_tensor *owned); /* takes the reference, also when it raises */
kn_tensor *kl_test_tensor(lua_State *L, int idx);    /* borrowed; NULL when it is none */
kn_tensor *kl_check_tensor(lua_State *L, int idx);
/* Numbers and booleans; SYMBOL scalars are userdata that only capture's functions understand. */
void kl_push_scalar(lua_State *L, const kn_scalar *s);
bool kl_test_scalar(lua_State *L, int idx, kn_scalar *out);
/* A table { {…}, … }, number, boolean or tensor to a tensor; owned. Raises on ragged or mixed input. */
kn_tensor *kl_to_tensor(lua_State *L, int idx);

/* Engine functions may be called by capture with symbolic arguments: all they do to tensors goes through
 * kn_apply, they keep nothing, change no argument table and have no other effect. Registers every function of
 * `list` into the table on top and marks it. */
void kl_set_engine_functions(lua_State *L, const luaL_Reg *list);
void kl_mark_engine(lua_State *L, int idx);
bool kl_is_engine(lua_State *L, int idx);

/* How wide a line of printed tensors may be where the user has not said. */
void kl_set_columns(lua_State *L, int columns);

/* Graph objects (bindings/lua/graph.c). One userdata holds the variants captured so far, newest first. */
typedef struct kl_variant kl_variant;
typedef struct kl_graph kl_graph;
typedef struct kl_derived kl_derived; /* gradient graphs: graph_grad.c */
struct kl_variant {
  kl_variant *next;
  kn_graph *graph;     /* retained */
  kn_session *session; /* made at the first run */
  kl_derived *derived; /* NULL until it is called with what requires grad */
  kc_live *live;       /* guards and slot sources; NULL for graphs without Lua behind them */
  bool loaded;         /* the slots were read when the guards were checked, for the run that follows */
  int places;          /* registry reference: where a traced graph's slots are found (places.c); 0: none */
};
struct kl_graph {
  kn_heap *heap;
  kl_variant *variants;
  /* Picks (or captures) the variant for the arguments at [first, top]; raises when it cannot. NULL: the
   * first. */
  kl_variant *(*choose)(lua_State *L, kl_graph *g, int self, int first);
  size_t memory; /* for the gradients of calls, as kn_gradient_request has it */
};
/* This binding as capture sees it (script.c); what kc_live_load and kc_live_store want. */
const kc_host *kl_host(void);
kl_graph *kl_push_graph(lua_State *L); /* an empty one; its user value 1 is free for the front end; 2 is
                                         places.c's, 3 a report, 4 the origin of one that was loaded */
kl_graph *kl_check_graph(lua_State *L, int idx);
kl_graph *kl_test_graph(lua_State *L, int idx);
kl_variant *kl_add_variant(lua_State *L, kl_graph *g, kn_graph *owned, kc_live *live); /* takes both */
/* Runs a variant on the arguments at [first, top]; pushes the results; returns their number. */
int kl_run_variant(lua_State *L, kl_graph *g, kl_variant *v, int first);

/* Module parts: each pushes nothing and adds its functions to the module table on top of the stack. */
void kl_open_tensor(lua_State *L); /* tensor.c: the tensor metatable, creation, look, autograd methods */
void kl_open_ops(lua_State *L); /* ops.c: every row of the op table as function, method, operator, op_ form */
void kl_open_index(lua_State *L);    /* index.c: t[…] and t[…] = v */
void kl_open_autograd(lua_State *L); /* autograd.c */
void kl_open_graph(lua_State *L);    /* graph.c: Graph objects, kiln.load, kiln.parse, kiln.save */
void kl_open_script(lua_State *L);   /* script.c: kiln.script, kiln.spec, guards */
void kl_open_system(lua_State *L);
void kl_open_cuda(lua_State *L); /* system.c: backends, devices, seeds, threads, memory, clock */

#ifndef KILN_LUA_API
#define KILN_LUA_API __attribute__((visibility("default")))
#endif
KILN_LUA_API int luaopen_kiln(lua_State *L);

#endif
