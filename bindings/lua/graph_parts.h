/* What the files of Graph objects share: graph.c (life, calls), graph_args.c (Lua values to inputs and back),
 * graph_look.c (methods that show), graph_nodes.c (nodes, and what a run did at each), graph_verify.c,
 * graph_profile.c, graph_files.c (load, parse), graph_save.c, graph_optimize.c (freeze). */
#ifndef KL_GRAPH_PARTS_H
#define KL_GRAPH_PARTS_H
#include "bindings/lua/state.h"
#include "graph/text.h"

/* The variant shown, saved and planned: the newest. Raises when nothing has been captured yet. */
kl_variant *kl_newest_variant(lua_State *L, int idx);
/* Its session, made when first asked for; notes the hook. Raises. */
kn_session *kl_variant_session(lua_State *L, kl_variant *v);
/* Of sessions; `ud` is a kl_state. See kl_note_hook. */
kn_status kl_poll_hook(void *ud, uint64_t steps);
/* The variant for the arguments at [first, top]. Raises. */
kl_variant *kl_choose_variant(lua_State *L, kl_graph *g, int self, int first);
/* A call; one that leaves what the graph stores unwritten, or keeps nothing at all (kn_session_warm) and
 * gives no results: 1 where that ran, else 0. */
typedef enum kl_run { KL_RUN_CALL, KL_RUN_LOOK, KL_RUN_WARM } kl_run;
int kl_run_graph(lua_State *L, kl_graph *g, kl_variant *v, int first, kl_run how);
/* Raises what a session failed with: as it stands when the program raised it, else after the caller's place.
 */
int kl_session_fail(lua_State *L, kn_session *s, kn_status st);
/* Present values of the slots into the session. Raises. */
void kl_load_live(lua_State *L, kl_variant *v);

/* graph_grad.c. The session that kl_run_taped would run, with its slots loaded; NULL where it would not. */
kn_session *kl_taped_session(lua_State *L, kl_graph *g, kl_variant *v, kn_session *s, const kn_rvalue *in);
/* Runs the variant on the tape when gradients are on and something requires grad: false when
 * not, else *st says how it went (the sentence in the context) and out, owned, has the results. s: the
 * variant's session, with its slots loaded. Raises when no gradient can be derived. */
bool kl_run_taped(lua_State *L, kl_graph *g, kl_variant *v, kn_session *s, const kn_rvalue *in,
                  kn_rvalue *out, kn_status *st);
void kl_free_derived(kn_heap *heap, kl_derived *d);

void kl_push_constant(lua_State *L, const kn_tree *t); /* of a leaf that is one; nil for others */
/* graph_args.c. Of the `given` arguments from `first` on. The inputs' Lua values are put on the stack, one
 * each; their index is returned, `in` borrows. */
int kl_flatten(lua_State *L, const kl_variant *v, int first, int given, kn_rvalue *in);
/* Pushes the results; the outputs' tensors are userdata at [outs, …), inputs at [ins, …). Returns their
 * number. */
int kl_unflatten(lua_State *L, const kl_variant *v, int ins, int outs, const kn_rvalue *out);

/* graph_save.c. Raises, in `name`'s name, when the variant only holds together with the Lua objects of now.
 */
void kl_check_storable(lua_State *L, const kl_variant *v, const char *name);
/* The variant's graph with what its slots hold now, owned; their tensors are the live ones. Raises, in
 * `name`'s name. */
kn_graph *kl_graph_now(lua_State *L, kl_variant *v, const char *name);

/* host.c: the session calls the functions that kiln.ignore has named in this state. */
void kl_offer_hosts(lua_State *L, kn_session *s);
/* places.c. A list of {slot = light userdata, container =, key =, replace =}: the Lua places of slots. Before
 * a run slots are read there; after it what was stored goes into the tensors found, or takes their place. */
void kl_load_places(lua_State *L, kl_variant *v);
void kl_store_places(lua_State *L, kl_variant *v);
/* Pushes the container and the key of the slot's place: see kc_host. Raises. */
void kl_push_slot(lua_State *L, int idx, const kn_slot *slot);

/* emit.c: its nodes become the trace's */
int kl_run_in_trace(lua_State *L, kl_graph *g, kl_variant *v, int first);

void kl_push_graph_text(lua_State *L, const kn_graph *g, kn_text_form form);
void kl_push_value_type(lua_State *L, const kn_graph *g, const kn_vtype *t); /* "float32[N,10]" */

/* Set a field of the table on top, unless there is nothing to say. */
void kl_set_where(lua_State *L, const kn_where *w); /* "where" */
void kl_set_text(lua_State *L, const char *key, const char *value);
void kl_set_number(lua_State *L, const char *key, double value);
void kl_set_count(lua_State *L, const char *key, uint64_t value);
void kl_set_captures(lua_State *L, int self); /* script.c: "cache_limit", "reasons" of a scripted Graph */

/* Functions of each file, for the table of methods on top of the stack. */
void kl_set_look_methods(lua_State *L);
void kl_set_nodes_methods(lua_State *L);
void kl_set_grad_methods(lua_State *L);    /* graph_grad.c */
void kl_set_profile_methods(lua_State *L); /* graph_profile.c */
void kl_set_verify_methods(lua_State *L);
void kl_set_optimize_methods(lua_State *L); /* graph_optimize.c */
void kl_set_owed_methods(lua_State *L);     /* the last one: misspelt names, too */
void kl_set_file_methods(lua_State *L);     /* graph_save.c */
void kl_set_file_functions(lua_State *L);   /* kiln.load, kiln.save, kiln.parse */

#endif
