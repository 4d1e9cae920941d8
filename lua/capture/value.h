/* What capture knows of a Lua value, and the record of one capture. Private to this room.
 *
 * A value is concrete (nil, boolean, number, string, C function, other object), a graph value, a table or Lua
 * function of the shadow heap, a union (one of several, told apart by an integer tag), a text (a string made
 * of graph values, which may only be printed and raised), or POISON: a place
 * whose contents differ between paths in a way nothing may depend on; using it is refused with the place's
 * name. */
#ifndef KC_VALUE_H
#define KC_VALUE_H
#include "graph/lie.h"
#include "graph/record.h"
#include "lua/capture/capture.h"
#include "lua/capture/cfg.h"

typedef enum kc_kind {
  KC_V_NONE,
  KC_V_POISON,
  KC_V_NIL,
  KC_V_BOOL,
  KC_V_INT,
  KC_V_FLOAT,
  KC_V_STRING,
  KC_V_CFUNCTION,
  KC_V_OBJECT, /* id: in cap->obj */
  KC_V_TABLE,
  KC_V_CLOSURE, /* id: in cap->tab, cap->clos */
  KC_V_HANDLE,  /* id: in cap->han: a tensor that is written to somewhere (handle.h) */
  KC_V_SYM,     /* v */
  KC_V_UNION,   /* u */
  KC_V_TEXT     /* t: a string that depends on data */
} kc_kind;

typedef struct kc_union kc_union;
typedef struct kc_text kc_text;
typedef struct kc_val {
  kc_kind k;
  union {
    int64_t i; /* BOOL, INT */
    double f;
    uint32_t id;
    kn_value *v;
    const kc_union *u;
    const kc_text *t;
  };
} kc_val;

struct kc_text {
  uint32_t format; /* string object: see graph/format.h */
  uint32_t n;
  kc_val *v; /* SYM */
};

/* The tag says which alternative holds: an alternative's code is its class (kc_class_of). */
enum { KC_MAX_ALTS = 20 };
typedef struct kc_alt {
  int64_t code;
  kc_val v;
} kc_alt;
struct kc_union {
  kc_val tag; /* INT or SYM of kind integer */
  int n;
  kc_alt alt[KC_MAX_ALTS];
};
/* Type classes. Each tensor dtype and rank is one; so is each distinct constant or object. */
enum { KC_CLASS_NIL = 1, KC_CLASS_BOOL, KC_CLASS_NUMBER, KC_CLASS_TENSOR = 16, KC_CLASS_OTHER = 1 << 16 };

#define KC_NILV ((kc_val){.k = KC_V_NIL})
/* There is no value: in lists of results that are longer on another path. An object that no other is. */
#define KC_ABSENT ((kc_val){.k = KC_V_OBJECT})
#define KC_POISONED ((kc_val){.k = KC_V_POISON})
static inline kc_val kc_int(int64_t i) { return (kc_val){.k = KC_V_INT, .i = i}; }
static inline kc_val kc_bool(bool b) { return (kc_val){.k = KC_V_BOOL, .i = b}; }
static inline kc_val kc_float(double f) { return (kc_val){.k = KC_V_FLOAT, .f = f}; }
static inline kc_val kc_sym(kn_value *v) { return (kc_val){.k = KC_V_SYM, .v = v}; }
static inline kc_val kc_ref(kc_kind k, uint32_t id) { return (kc_val){.k = k, .id = id}; }
static inline bool kc_is_plain_tensor(kc_val a) { return a.k == KC_V_SYM && a.v->type.kind == KN_V_TENSOR; }
static inline bool kc_is_tensor(kc_val a) { return a.k == KC_V_HANDLE || kc_is_plain_tensor(a); }
static inline bool kc_is_symbool(kc_val a) { return a.k == KC_V_SYM && a.v->type.kind == KN_V_BOOL; }
static inline bool kc_is_number(kc_val a) {
  return a.k == KC_V_INT || a.k == KC_V_FLOAT ||
         (a.k == KC_V_SYM && a.v->type.kind != KN_V_BOOL && a.v->type.kind != KN_V_TENSOR);
}
static inline bool kc_is_concrete_number(kc_val a) { return a.k == KC_V_INT || a.k == KC_V_FLOAT; }
bool kc_same(kc_val a, kc_val b); /* the same value, floats by bits */

/* What a step of the interpreter comes to. */
typedef enum kc_res {
  KC_GO,      /* fine */
  KC_DEAD,    /* no path goes on: an error node was emitted, or every path ended elsewhere */
  KC_AGAIN,   /* unwind to the loop cap->again, which starts over in another mode */
  KC_RESTART, /* start the whole capture over: an outside place or an argument changed its role */
  KC_FAIL     /* refused; the sentence is in the context */
} kc_res;
#define KC_TRY(call)                                                                                         \
  do {                                                                                                       \
    kc_res kc_try_ = (call);                                                                                 \
    if (kc_try_ != KC_GO) return kc_try_;                                                                    \
  } while (0)

/* A Lua object met during capture, interned: equal ids, equal objects. Lives through restarts. */
typedef struct kc_obj {
  int type; /* LUA_T… */
  bool cfunction, engine;
  const char *s; /* strings: n bytes */
  size_t n;
  const void *ptr;
  const char *path; /* how it was reached: "net.fc1"; NULL for strings and the like */
  uint32_t attempt; /* `val` belongs to this attempt */
  kc_val val;       /* TABLE or CLOSURE */
} kc_obj;

/* One look at the outside. Each becomes a guard, or the source of a slot. */
typedef enum kc_look_kind {
  KC_LOOK_FIELD,
  KC_LOOK_UPVALUE,
  KC_LOOK_META,
  KC_LOOK_LENGTH,
  KC_LOOK_GRAD, /* the gradient of a tensor: the container */
  KC_LOOK_KEYS
} kc_look_kind;
typedef struct kc_look kc_look;
/* Of an argument or outside tensor that `view` or `contiguous` is asked of: what is guarded. */
typedef enum kc_laid { KC_LAID_ANYHOW, KC_LAID_IN_ORDER, KC_LAID_OTHERWISE } kc_laid;
struct kc_look {
  kc_look_kind kind;
  uint32_t container; /* object */
  kc_val key;         /* FIELD: concrete; UPVALUE: INT */
  kc_val seen;     /* as imported: concrete, TABLE or CLOSURE of an object; SYM or HANDLE when it is a slot */
  uint32_t object; /* object behind TABLE and CLOSURE */
  kn_slot *slot;   /* tensors, and numbers that the function writes */
  kc_val *keys;    /* KEYS: in the order of next */
  uint32_t nkeys;
  bool inplace, overwritten; /* the tensor there is a handle; the graph gives it other contents */
  bool born;                 /* nil outside, and set to something: the slot is only stored to */
  bool dropped;              /* KEYS: asked for only by an attempt at a loop that was given up */
  bool sometimes;            /* of a GRAD: stored on some path, nil on the others */
  bool blind, clears,
      identity; /* of a GRAD that is not read; set to nil at the end; the tensor must be this one */
  kn_slot *was; /* the place gets another tensor, too: this slot has the contents for the one there is */
  kc_laid laid;
  bool written, again; /* state slot that is stored; the slot's tensor was seen before at another place */
  const char *guard, *name; /* "global", "n" */
  const kn_where *where;
  kc_look *next, *next_hash;
};

/* An outside place that is no constant: found by a failed attempt, kept through restarts. */
typedef enum kc_role {
  KC_ROLE_STATE, /* the function writes it */
  KC_ROLE_FREE,  /* a number that had changed between calls: read afresh at every call */
  KC_ROLE_FIXED  /* was free, but the graph needs to know it: a guard after all */
} kc_role;
typedef struct kc_dynamic {
  kc_role role;
  kc_look_kind kind; /* FIELD, UPVALUE */
  uint32_t container;
  kc_val key;
  bool any_number; /* STATE: integer on one path, float on another */
} kc_dynamic;

typedef struct kc_table_info {
  uint32_t object; /* outside table, or 0 */
  kc_look *meta, *keys, *length;
  bool argument;    /* part of an argument: fields are inputs or burnt in, fixed from the start */
  uint32_t growth;  /* not 0: loops begin with it as a list (growing.h); how often more was found of … */
  kn_vtype element; /* … what is in it */
} kc_table_info;
typedef struct kc_cell_info {
  uint32_t object; /* outside closure it was reached through, or 0 */
  int index;       /* its upvalue there */
  const void *id;  /* lua_upvalueid */
  kc_look *look;
  struct kc_grad_place *grad; /* it holds the gradient of a tensor (grads.h) */
} kc_cell_info;
typedef struct kc_closure_info {
  uint32_t object;
  kc_proto *p; /* NULL until first called, for outside ones */
  uint32_t *cell;
} kc_closure_info;

/* What is remembered of a graph value beside its type. */
typedef struct kc_note {
  kn_value *choice; /* the value is `a` when this boolean holds, else `b` */
  int64_t a, b;
  kn_value *tag; /* the value says whether this tag equals code */
  int64_t code;
} kc_note;

typedef struct kc_input { /* where a free scalar or a symbolic size comes from, so that it can be burnt in */
  kn_value *value;
  uint32_t leaf;
  int dim;                /* -1: the scalar itself */
  const kn_tensor *given; /* of a tensor: what was given; NULL: described */
} kc_input;

/* A tensor with an identity: what is fixed about it. Its contents are in the state. */
typedef struct kc_handle_info {
  uint32_t parent;         /* of a view: the handle that it shows; 0: none */
  const kn_node *view;     /* how; NULL: all of it */
  kn_value *initial;       /* of one from outside: its contents at first; NULL: made inside */
  struct kc_hold *first;   /* the same as a hold */
  kn_slot *slot;           /* of one reached outside */
  uint32_t leaf;           /* of an argument; 0: none */
  bool with_grad;          /* it is written to with gradients on */
  const kn_where *written; /* where it was written to first (engine.c) */
  bool strided;            /* from outside, and its elements do not lie in order: */
  int64_t strides[KN_MAX_RANK];
} kc_handle_info;

/* Where a tensor that is written to was born. Found by failed attempts, kept through restarts: the tensors
 * born there are handles in the next. */
typedef struct kc_birth {
  enum { KC_BORN_HERE, KC_BORN_ARGUMENT, KC_BORN_OUTSIDE } how;
  uint64_t place; /* hash of the call stack; leaf; address */
} kc_birth;

/* Two tensors that became one value where paths meet. */
typedef struct kc_meeting {
  const kn_value *a, *b;
} kc_meeting;

/* A parameter of a loop that has no value in the first trip, and where what it gets then is born. */
typedef struct kc_carried {
  const kn_value *param;
  kc_birth born;
} kc_carried;

/* The values made by one call of an engine function: [first, last). */
typedef struct kc_made {
  uint32_t first, last;
  uint64_t place;
} kc_made;

typedef struct kc_state kc_state;
typedef struct kc_stop kc_stop;
typedef struct kc_loop_try kc_loop_try;
typedef struct kc_model kc_model;
typedef struct kc_protect kc_protect;

typedef struct kc_part {
  uint32_t by;      /* the part that forked it; 0: the function itself */
  const char *late; /* what may raise in it when it has written to older objects: where; NULL: nothing */
} kc_part;

typedef struct kc_unrolled {
  int id; /* of the kc_loop_try */
  const kn_where *where;
  int64_t trips;
} kc_unrolled;

typedef struct kc_cap kc_cap;
struct kc_cap {
  lua_State *L;
  kn_context *ctx;
  const kc_host *host;
  kn_arena keep, arena; /* for the whole capture; for this attempt */
  kn_builder b;
  kn_record record;
  bool doomed;           /* something must be a handle, or state: the attempt goes on only to find others */
  bool early;            /* captured before it is called: inputs were described */
  bool recording, fatal; /* record needs freeing; the failure is final (memory, budgets) */
  kn_node *anchor;       /* prologue ends here: slots, constants, undefs */
  kc_state *S;           /* where the interpreter is now, for messages */
  const kn_where *base_where;
  int objects, ids; /* stack indices of the interning tables */
  kc_obj *obj;
  uint32_t nobj, attempt;
  uint32_t tensor_meta; /* object: the metatable of tensors; 0: not needed so far */
  kc_dynamic *dynamic;
  uint32_t ndynamic;
  const struct kc_live *before; /* of an earlier capture whose guards failed; NULL */
  uint32_t *burnt;              /* leaf * 16 + dim + 1 of inputs that became constants */
  uint32_t nburnt;
  struct kc_laid_leaf {
    uint32_t leaf;
    bool in_order;
  } * laid; /* arguments of which it is guarded how they lie. Kept through restarts */
  uint32_t nlaid;
  struct kc_lain { /* of values, by number, as the last walk found them (lie.c) */
    uint32_t walk;
    kn_lie lie;
    kn_type type; /* with names for all sizes that are not known */
    bool typed, there;
  } * lain;
  uint32_t nlain, lie_walk;
  struct kc_assumed { /* `view` gave `made` of it (NULL: `contiguous` gave itself) before a loop was closed */
    kn_value *of;
    const kn_value *made;
  } * assumed;
  uint32_t nassumed;
  struct kc_overwritten { /* what a tensor held when it was written to */
    const kn_value *v;
    uint32_t first;         /* values before this one were there */
    const kn_region *where; /* NULL: it is one of several that may have been written to */
    int writer;
  } * overwritten;
  uint32_t noverwritten;
  const char *stale; /* what eager says of the first one that a gradient being made reads; … */
  bool stale_surely; /* … on every path that leads here */
  kc_meeting *pairs; /* what `contiguous` copied, though it may not have had to, and the copy */
  uint32_t npairs;
  uint64_t lie_place;             /* of the call that is being made … */
  kn_value *lie_asked, *lie_lost; /* by the call that is being made: it was copied; it cannot be followed */
  kc_input *input;
  uint32_t ninput;
  kc_birth *births;
  uint32_t nbirths;
  kc_made *made;
  uint32_t nmade;
  kc_meeting *met;
  uint32_t nmet;
  kc_carried *carried;
  uint32_t ncarried;
  kc_handle_info *han;
  uint32_t nhan;
  kc_table_info *tab;
  kc_cell_info *cell;
  kc_closure_info *clos;
  uint32_t ntab, ncell, nclos;
  kc_look *looks, *last_look, **hash;
  uint32_t nlooks, nhash;
  struct kc_proto_cache {
    const uint8_t *bytes;
    size_t n;
    kc_proto *p;
  } * protos; /* parsed once for the whole capture */
  uint32_t nprotos;
  kc_note **note;
  uint32_t nnote;
  kc_val *classes;
  uint32_t nclasses;
  struct kc_pooled {
    kc_val key;
    kn_value *v;
    kn_vtype type;
  } * pool;
  uint32_t npool;
  kc_stop *stop;
  int nstop, stop_cap, last_stop;
  kc_loop_try *again;
  kc_protect *protect; /* the innermost protected call */
  int last_iteration;
  kc_unrolled *unrolled; /* loops that ran trip by trip, for reports */
  uint32_t nunrolled;
  uint32_t owner;    /* last given to a state */
  uint32_t short_of; /* how often a table failed that could have been a list */
  uint64_t steps;
  int nest, calls;
  const char *stack;     /* of C, where the capture began */
  bool crowded;          /* somewhere there are many alternatives (alike.h) */
  uint32_t checkpoints;  /* calls of kiln.checkpoint so far */
  bool part_begins;      /* the next protected call is that of kiln.fork */
  struct kc_part *parts; /* that kiln.fork runs, by number from 1 */
  uint32_t nparts;
  struct kc_grad_place **grads;
  uint32_t ngrads;
  kc_val *inner; /* tensors made to require grad inside */
  uint32_t ninner;
  bool asks_grad, grad_mode; /* the function depends on what requires grad; gradients are on outside */
  const char *arg_requires;  /* an argument that requires grad */
  kc_outer *outer;           /* symbols of another graph met outside; NULL: they are refused */
  kn_value *outer_in[64];    /* the inputs for them */
  kc_model *models;
  int nmodels;
};

/* ---- memory: raises Lua's out-of-memory error, caught by kc_capture, where the arenas are freed ---- */
void *kc_new(kc_cap *c, size_t size);
void *kc_dup(kc_cap *c, const void *p, size_t size);
/* Room for one more in an arena array of n. */
void *kc_more(kc_cap *c, kn_arena *a, void *p, uint32_t n, size_t size);
const char *kc_keep(kc_cap *c, const char *s);
const char *kc_format(kc_cap *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- refusing ---- */
/* "file:line: sentence (inlined at file:line)". Always KC_FAIL. */
kc_res kc_fail(kc_cap *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An error that Lua itself would raise here: on some path only, it becomes a raise node and the path ends. */
kc_res kc_raise(kc_cap *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same of a C function, which says where it was called, if that has lines. */
kc_res kc_complain(kc_cap *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same of the engine, which otherwise says where the innermost function that has lines was. */
kc_res kc_engine_complain(kc_cap *c, const char *text);
/* A string or text as it is, after the position `where` (NULL: none). */
kc_res kc_raise_value(kc_cap *c, kc_val message, const kn_where *where);
/* The text as it is, after the position `where` (NULL: none). */
kc_res kc_raise_text(kc_cap *c, const char *text, const kn_where *where);
bool kc_line_known(const kc_cap *c);             /* of the present instruction: not in stripped functions */
const kn_where *kc_where(kc_cap *c);             /* of the present instruction */
const kn_where *kc_lua_where(const kn_where *w); /* w, or NULL where Lua would name no line */
void kc_position(kc_cap *c, char *buf, size_t size); /* "file:line" of it */

/* ---- values ---- */
const char *kc_kind_name(kc_val a); /* "tensor", "number", "nil" … */
const char *kc_type_name(kc_val a); /* as Lua's own messages say it */
/* The id of the object at idx (not nil); interned. */
uint32_t kc_intern(kc_cap *c, int idx);
void kc_push_object(kc_cap *c, uint32_t id);
kc_val kc_string(kc_cap *c, const char *s, size_t n);
bool kc_is_str(const kc_cap *c, kc_val a, const char *s);
/* Concrete values only (also CLOSURE and TABLE that are outside objects). */
void kc_push(kc_cap *c, kc_val a);
bool kc_scalar_kind(kc_val a, kn_vkind *out); /* of numbers, booleans and graph scalars, tensors too */
int64_t kc_class_of(kc_cap *c, kc_val a);
kc_val kc_make_union(kc_cap *c, const kc_union *u);
void kc_alts(kc_cap *c, kc_val a, kc_union *u); /* a as a union, of one alternative when it is none */
const kc_val *kc_alt_find(const kc_union *u, int64_t code);
bool kc_may_be_absent(kc_val a);
kc_val kc_absent_to_nil(kc_cap *c, kc_val a);
/* The tag with these codes in place of those, all at once. */
kc_val kc_recode(kc_cap *c, kc_val tag, int n, const int64_t *from, const int64_t *to);
int64_t kc_fresh_code(kc_cap *c); /* of no class */
kc_res kc_alt_add(kc_cap *c, kc_union *u, int64_t code, kc_val v);

/* ---- emitting: the builder's status sticks and is looked at after every instruction; never NULL ---- */
kn_value *kc_dummy(kc_cap *c);
kn_value *kc_value(kc_cap *c, kc_val a); /* concrete scalars become pooled constants */
kn_value *kc_undef(kc_cap *c, const kn_vtype *type);
kn_value *kc_emit(kc_cap *c, kn_opcode op, int n, kc_val a, kc_val b, kc_val d); /* lua.*, for_*, select */
kc_val kc_not(kc_cap *c, kn_value *cond);
kc_val kc_equals_code(kc_cap *c, kc_val tag, int64_t code); /* BOOL or SYM */
kc_note *kc_note_of(kc_cap *c, const kn_value *v, bool make);
/* Moves the node to the prologue. */
void kc_hoist(kc_cap *c, kn_node *n);

#endif
