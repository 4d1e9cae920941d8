/* Graphs that are written while the program runs, by trace or by hand: what kiln.cond and kiln.while_loop
 * need to put a region into one. */
#ifndef KL_EMIT_H
#define KL_EMIT_H
#include "bindings/lua/state.h"

typedef struct kl_emitter {
  kn_builder *b;
  kn_value *(*value)(void *ud, kn_tensor *t); /* of a tensor; NULL on failure (b->status) */
  kn_status (*define)(void *ud, kn_tensor *t,
                      kn_value *v); /* a real tensor holds v; NULL: tensors are symbols */
  void (*opaque)(void *ud);         /* what was run is not recorded op by op: no backward through it */
  void *ud;
} kl_emitter;

/* The graph that is being written here: a trace that is on, or the builder that one of the values at [first,
 * last] is a symbol of. False: neither. Raises when a symbol cannot be used any more. */
bool kl_find_emitter(lua_State *L, int first, int last, kl_emitter *out);
bool kl_trace_emitter(lua_State *L, kl_emitter *out);                                    /* tracer.c */
bool kl_builder_emitter(lua_State *L, int first, int last, kl_emitter *out);             /* builder.c */
void kl_push_graph_value(lua_State *L, kn_context *ctx, kn_value *v);                    /* a symbol */
void kl_read_spec(lua_State *L, int idx, const char *name, const char *what, kc_arg *a); /* script.c */
bool kl_describe_symbol(lua_State *L,
                        const kn_value *v); /* pushes "symbol x: float32[N,3]"; false: none here */
/* Arithmetic on numbers of a graph that is built by hand: metamethods. */
void kl_set_symbol_arithmetic(lua_State *L);

#endif
