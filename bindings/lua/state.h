/* What every file of the binding needs beyond kl.h: the per-state record and ways to fail. Private to this
 * room. */
#ifndef KL_STATE_H
#define KL_STATE_H
#include "bindings/lua/kl.h"

/* What a tensor userdata holds (boxes.c). Its size is one that hardly anything else in Lua has. */
typedef struct kl_box {
  kn_tensor *tensor; /* first: a box is also found as kn_tensor ** */
  uint32_t slot;     /* its place among the boxes */
} kl_box;
enum { KL_BOX_BYTES = 13 };
_Static_assert(offsetof(kl_box, slot) + sizeof(uint32_t) < KL_BOX_BYTES, "a box has room in its userdata");

/* All boxes of a state. It wraps the state's allocator, so it lives until the state's last block is freed. */
typedef struct kl_boxes {
  lua_Alloc fn; /* the allocator that was there, which does the work */
  void *ud;
  size_t bytes;     /* of a block that holds a box */
  ptrdiff_t offset; /* of the box in it */
  uint32_t room, nempty, ndead;
  uint64_t emptied; /* how often a tensor was taken out of its box, which lives on */
  kl_box **box;     /* by slot; NULL: empty */
  kn_tensor **dead; /* of boxes that Lua has freed; to be released */
  uint32_t *empty;  /* slots */
  kn_heap *heap;
  struct kl_state *state; /* NULL before it is open and when it closes */
  const void *end, *probed;
  int deny; /* userdata that are still to be refused: calls.c */
} kl_boxes;

/* Calls of the host (kiln_lua.h), and their limits. */
typedef struct kl_calls {
  uint64_t limit, used; /* Lua's instructions and steps of graphs; limit 0: none */
  bool failed;          /* ever */
  bool spent, told;     /* the limit was reached in this call; the report says so */
  int depth;            /* calls within calls */
  kn_status status;     /* of what was raised last */
  char *report;         /* of the last failure; NULL: the context's sentence is all there is */
  size_t room;
} kl_calls;

typedef struct kl_state {
  kn_context *ctx; /* NULL once the Lua state is closing */
  bool owned;      /* ctx is ours to free */
  size_t seen;     /* heap bytes when the collector was last told */
  size_t live;     /* heap bytes after its last round, as far as known */
  size_t full;     /* heap bytes after the last complete collection */
  kl_boxes *boxes;
  lua_State *main; /* the main coroutine */
  lua_Hook hook;   /* of it, when Lua last called what may run graphs */
  kn_reclaimer reclaimer;
  void *reserve; /* for finalizers that run because memory is short: one that finds none is lost */
  kl_calls calls;
  struct kl_anchor *anchor; /* hooks.c: how C code on the tape finds back to this state */
  bool reclaiming; /* finalizers run in the middle of an op that found no memory: they must not use kiln */
} kl_state;

kl_state *kl_state_of(lua_State *L); /* raises when kiln is not open */
/* Who wants a program to stop sets a hook, as `kiln` does at Ctrl-C: graphs that run end where it is another
 * than the one noted as Lua called (kl_poll_hook), and the hook raises as soon as Lua goes on. */
void kl_note_hook(lua_State *L);
kn_status kl_interrupt(void *state, bool begins); /* kn_context's, by the same rule */
static inline bool kl_usable(const kl_state *s) {
  return s->ctx && !s->reclaiming;
} /* else kl_state_of raises */
kl_state *kl_find_state(lua_State *L); /* the record whatever it can be used for; NULL when there is none */

/* Finds or makes the record; `ctx` NULL makes a context from the environment. Raises on failure. */
kl_state *kl_state_open(lua_State *L, kn_context *ctx);

/* A context of the state's own prints where Lua's functions would. */
void kl_own_context(kl_state *s);
void kl_collect(kl_state *s); /* a complete collection, because memory is short */
/* calls.c: the state closes; a step of a graph is taken: LIMIT when it was one too many. */
void kl_close_calls(kl_state *s);
kn_status kl_count_step(kl_state *s);

/* Set the sentence and raise it; own nothing when calling. */
int kl_error(lua_State *L, kn_status st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The string at idx, or an error: "load: a path is needed, got nil". n may be NULL. */
const char *kl_check_text(lua_State *L, int idx, const char *name, const char *wanted, size_t *n);
/* Pushes "file:line: " of the user's line: the innermost Lua frame that is not in kiln's own library files.
 */
void kl_push_where(lua_State *L);
/* Pushes a sentence that begins with the place of a graph's node. Where that is in kiln's own library files,
 * as when the whole of what was captured is, the user's line is put in its stead, or, to `keep` it, in front.
 */
void kl_push_placed(lua_State *L, const char *text, bool keep);
bool kl_is_released(lua_State *L, int idx); /* a tensor after t:release() */
/* "a string", "a tensor", "nil" …: how messages name the value at idx. A static string. */
const char *kl_kind(lua_State *L, int idx);

/* An empty userdata to be filled after the call that may raise: the way to push what C owns. */
kn_tensor **kl_reserve_tensor(lua_State *L);
void kl_put_tensor(kn_tensor **slot, kn_tensor *owned); /* takes it */
void kl_tell_collector(lua_State *L);                   /* of the memory tensors take; finalizers may run */
void kl_tell_of(lua_State *L, kl_state *s);             /* the same */
void kl_make_room(
    lua_State *L); /* under a memory limit: garbage goes, before work that cannot have it collected */
void kl_fill_tensor(lua_State *L, kn_tensor **slot, kn_tensor *owned); /* both */
/* A tensor with data, for the program to look at its elements: itself, or a copy on the host that is pushed.
 */
kn_tensor *kl_on_host(lua_State *L, kn_tensor *t);

/* ---- boxes.c ---- */

void kl_open_boxes(lua_State *L, kl_state *s); /* raises */
kl_state *
kl_state_of_boxes(lua_State *L);  /* the record, where the state's allocator is still ours; else NULL */
void kl_close_boxes(kl_state *s); /* releases all tensors */
kl_box *kl_new_box(lua_State *L, kl_state *s); /* pushes an empty one, without its metatable. Raises */
void kl_empty_box(kl_boxes *b, kl_box *box);   /* releases what is in it */
void kl_bury(kl_state *s);                     /* releases the tensors whose boxes have died */
uint64_t kl_count_tensors(const kl_state *s);  /* filled boxes */

/* The box at idx, or NULL. No metatable is asked: only what Lua made for a box is known by its slot. */
static inline kl_box *kl_box_at(const kl_state *s, lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TUSERDATA || lua_rawlen(L, idx) != KL_BOX_BYTES) return NULL;
  kl_box *box = lua_touserdata(L, idx);
  return box->slot < s->boxes->room && s->boxes->box[box->slot] == box ? box : NULL;
}

/* What kind of number a scalar is, symbols included; false when only known at run time. */
bool kl_scalar_kind(const kn_scalar *s, kn_scalar_kind *out);
/* Pushes the table of tensors' methods; their metatable. */
void kl_push_methods(lua_State *L);
void kl_push_tensor_metatable(lua_State *L);
/* For __index where nothing was found: raises when the string at `key` is near one of the keys of the table
 * at `names` and the caller is about to call it ("OF has no KIND 'KEY'; did you mean …?"). */
void kl_check_misspelt(lua_State *L, int key, int names, const char *of, const char *kind);
/* What to say of the string at `key`, which the table at `table` (0: tensors) has not: "" where no name is
 * near. False when the table's __index is none of kiln's modules. */
bool kl_missing(lua_State *L, int table, int key, char *why, size_t size);
/* The module whose __index the function at idx is; NULL: of none. */
const char *kl_module_of(lua_State *L, int idx);
/* Registers `list` as methods (and in the module table on top as well when `module`); marked for capture if
 * `engine`. */
void kl_set_methods(lua_State *L, const luaL_Reg *list, bool module, bool engine);

/* The value at idx converted to a tensor of `dtype` (KN_DTYPE_COUNT: by Lua's types), owned. */
kn_status kl_read_tensor(lua_State *L, kn_context *ctx, int idx, kn_dtype dtype, kn_tensor **out);

/* ---- hooks.c: Lua functions that are called from within the tape ---- */

/* Before an entry that may call back: they run on L. Gives what to hand to kl_leave_tape after it. */
lua_State *kl_enter_tape(lua_State *L);
/* Raises what st says; an error that was raised in a callback and is no text is raised as it was. */
void kl_leave_tape(lua_State *L, lua_State *before, kn_status st);
/* The state closes, ctx was its context: nothing calls back any more. */
void kl_close_anchor(kl_state *s, kn_context *ctx);
/* Writes "file:line" of the user's line into text, "" when there is none; raises nothing. */
void kl_write_where(lua_State *L, char *text, size_t size);

/* More parts of the module; see kl.h for the contract. */
void kl_open_hooks(lua_State *L);     /* hooks.c: hooks, custom functions, checkpoint, anomalies */
void kl_open_create(lua_State *L);    /* create.c: kiln.tensor and makers whose arguments are special */
void kl_open_help(lua_State *L);      /* help.c */
void kl_open_parts(lua_State *L);     /* parts.c: split, einsum … */
void kl_open_grids(lua_State *L);     /* grids.c: meshgrid, broadcast_tensors, tensordot */
void kl_open_linalg(lua_State *L);    /* linalg.c: kiln.linalg.norm */
void kl_open_recurrent(lua_State *L); /* recurrent.c: lstm, gru … */
void kl_open_convert(lua_State *L);   /* convert.c: to, float, totable, equal … */
void kl_open_show(lua_State *L);      /* show.c: tostring */
void kl_open_tracer(lua_State *L);    /* tracer.c: what kiln.trace is made of */
void kl_open_emit(lua_State *L);      /* emit.c: what kiln.cond and kiln.while_loop are made of */
void kl_open_host(lua_State *L);      /* host.c: what kiln.ignore is made of */
void kl_open_host_ops(lua_State *L);  /* host_ops.c: kiln.op */
void kl_open_builder(lua_State *L);   /* builder.c: kiln.builder */
void kl_open_npy(lua_State *L);       /* npy.c: .npy files */
void kl_open_buffers(lua_State *L);   /* buffers.c: strings of bytes as tensors */
void kl_open_weights(lua_State *L);   /* weights.c: safetensors files */
void kl_open_readers(lua_State *L);   /* readers.c: kiln.io, kiln.prefetcher, .npz files */
void kl_open_directory(lua_State *L); /* directory.c: names in a folder */
void kl_open_files(lua_State *L);     /* files.c: the library written in Lua */

/* Load every part of the library that is otherwise loaded when first used, so that module fields are plain.
 */
void kl_load_files(lua_State *L);
/* The same of kiln.op. */
void kl_load_host_ops(lua_State *L);

#endif
