/* The choke point. Every op of every front end and of autograd goes through kn_apply: infer the type; if a
 * recorder is on and concerned, record; else run the device's kernel and, if needed, tape it. */
#ifndef KN_DISPATCH_H
#define KN_DISPATCH_H
#include "core/op.h"

/* A number on its way in or out of the engine: concrete, or a graph value while recording. */
typedef enum kn_scalar_kind {
  KN_SCALAR_INT,
  KN_SCALAR_FLOAT,
  KN_SCALAR_BOOL,
  KN_SCALAR_SYMBOL
} kn_scalar_kind;
typedef struct kn_scalar {
  kn_scalar_kind kind;
  union {
    int64_t i;
    double f;
    bool b;
    void *value; /* graph value (SYMBOL) */
  } as;
} kn_scalar;

/* Records ops instead of running them: capture, trace, builder and graph autodiff are such recorders.
 * Called only for ops that concern it: some input is symbolic, or everything when `all` is set (then ops
 * without inputs too). Composites never reach it. Symbolic outputs are owned by the caller. */
struct kn_recorder {
  bool all;
  kn_status (*apply)(kn_recorder *r, kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in,
                     int n, const kn_type *types, kn_tensor **out);
  kn_status (*item)(kn_recorder *r, kn_context *ctx, kn_tensor *t, kn_scalar *out);
  kn_status (*size)(kn_recorder *r, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out);
  kn_status (*to_tensor)(kn_recorder *r, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                         kn_tensor **out);
  /* The size of t's dim, not known yet, must be `wanted` (a number or a placeholder): else the graph raises
   * "SENTENCE (got TYPES)", those of a and b, which may be NULL. May be NULL where all sizes are known. */
  kn_status (*expect)(kn_recorder *r, kn_context *ctx, kn_tensor *t, int dim, int64_t wanted,
                      const char *sentence, kn_tensor *a, kn_tensor *b);
  /* Remembers a symbolic integer and gives the placeholder that stands for it in attributes. */
  kn_status (*dynamic)(kn_recorder *r, kn_context *ctx, const kn_scalar *s, int64_t *placeholder);
  /* A symbolic 1-based integer of the front end as attributes hold it. Position: i - 1 for i > 0, i for i <
   * 0; `last`, an inclusive end made an exclusive stop: i for i > 0, KN_TO_END for -1, i + 1 below. 0 raises
   * when run, and `what` ("index: position") begins the sentence. May be NULL. */
  kn_status (*position)(kn_recorder *r, kn_context *ctx, const char *what, const kn_scalar *s, bool last,
                        kn_scalar *out);
  /* A symbolic position, from 1, for dim `dim` of `part`: one out of range raises when run, as indexing does;
   * `name` ("index") begins the sentence. May be NULL. */
  kn_status (*within)(kn_recorder *r, kn_context *ctx, const kn_scalar *position, kn_tensor *part, int dim,
                      const char *name);
  /* Symbolic tensors as handles; each may be NULL. May `name` write to t? ARG when elements share memory. */
  kn_status (*writable)(kn_recorder *r, kn_context *ctx, const char *name, kn_tensor *t);
  /* `view` has made `out` of the symbolic x: it must show the elements, not copy them. */
  void (*viewed)(kn_recorder *r, const kn_tensor *x, const kn_tensor *out);
  /* Do t's elements lie in order, so that t:contiguous() is t? */
  kn_status (*contiguous)(kn_recorder *r, kn_context *ctx, kn_tensor *t, bool *out);
  /* Do the last two dims of the symbolic t lie turned in memory, as those of a transposed matrix do, as far
   * as that is known? May be NULL. */
  bool (*turned)(kn_recorder *r, const kn_tensor *t);
  /* Another handle on the same elements. */
  kn_status (*alias)(kn_recorder *r, kn_context *ctx, kn_tensor *t, kn_tensor **out);
  /* A concrete number has become a 0-d tensor. May be NULL. */
  kn_status (*number)(kn_recorder *r, kn_context *ctx, const kn_scalar *s, kn_tensor *t);
  /* The program is about to look at the data of a tensor (print it, make it a table). May be NULL. */
  kn_status (*read)(kn_recorder *r, kn_context *ctx, kn_tensor *t);
  /* `t` is another handle on the memory of a tensor, through which no gradient flows. May be NULL. */
  kn_status (*detached)(kn_recorder *r, kn_context *ctx, kn_tensor *t);
  /* The gradient rule of a recorded op reads the saved value t, its i-th `what` ("input", "result"). */
  void (*saved)(kn_recorder *r, const kn_tensor *t, const char *what, int i);
  bool handing; /* what the next copy_ copies was computed for it, … */
  int writer;   /* … by this: as storage->writer */
  bool runs;    /* ops run, too, and tensors stay real: trace */
};

/* Who records an op on symbolic values: the recorder that is on, or the graphs that are being built by hand.
 */
static inline kn_recorder *kn_recorder_of(const kn_context *ctx) {
  return ctx->recorder ? ctx->recorder : ctx->symbols;
}
static inline kn_status kn_note_detached(kn_context *ctx, kn_tensor *t) {
  kn_recorder *r = ctx->recorder;
  return r && r->detached ? r->detached(r, ctx, t) : KN_OK;
}
/* Before the data of a tensor becomes the program's. */
static inline kn_status kn_read_data(kn_context *ctx, kn_tensor *t) {
  kn_recorder *r = ctx->recorder;
  return r && r->read ? r->read(r, ctx, t) : KN_OK;
}

/* The kernel, for a recorder that lets ops run (trace): `types` as apply got them. Owned outputs. */
kn_status kn_run_now(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                     const kn_type *types, kn_tensor **out);

/* attrs may be NULL for ops whose attrs are `none`. out[0 … outs) receive owned tensors; untouched on
 * failure. */
kn_status kn_apply(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                   kn_tensor **out);
/* For the composite `op`, what WIDE does: `fn` with halves as float32, what comes out rounded. */
kn_status kn_apply_wide(kn_context *ctx, kn_op op, kn_composite_fn fn, const void *attrs,
                        kn_tensor *const *in, int n, kn_tensor **out);
/* The in-place form `op_`: the result replaces in[0]'s values (class ELEMENTWISE, same shape and dtype as
 * in[0] after casting back). *out is in[0] retained. Nothing is written on failure. */
kn_status kn_apply_inplace(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                           kn_tensor **out);
/* t:copy_(from), where nobody asks for from's elements afterwards: where both have all of their memory to
 * themselves and no gradient is concerned the two change places, and nothing is copied. */
kn_status kn_take_elements(kn_context *ctx, kn_tensor *t, kn_tensor *from);
/* Types only; nothing runs. out has room for KN_MAX_OUTPUTS. */
kn_status kn_infer_types(kn_context *ctx, kn_op op, const void *attrs, const kn_type *in, int n,
                         kn_type *out);

/* The single element as a number, kind by dtype. SHAPE when there is not exactly one. */
kn_status kn_item(kn_context *ctx, kn_tensor *t, kn_scalar *out);
/* May t be overwritten, now and in this grad mode? The sentence names `what`. */
kn_status kn_check_writable(kn_context *ctx, const char *what, kn_tensor *t);
/* Do the elements lie in order? A recorder is asked about a symbolic tensor; false when nobody knows. */
kn_status kn_is_contiguous(kn_context *ctx, kn_tensor *t, bool *out);
/* The same elements under another handle, without a history: what is written to one is seen in the other. */
kn_status kn_detach(kn_context *ctx, kn_tensor *t, kn_tensor **out);
/* Size of a 0-based dimension (already normalised); symbolic only when not known. */
kn_status kn_size(kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out);
/* A 0-d tensor of the given dtype, which must be able to hold the number (kn_scalar_check). */
kn_status kn_scalar_tensor(kn_context *ctx, const kn_scalar *s, kn_dtype dtype, kn_tensor **out);
/* The same for an input of what is called `name`: errors begin with that, also when the graph runs. */
kn_status kn_scalar_tensor_for(kn_context *ctx, const char *name, const kn_scalar *s, kn_dtype dtype,
                               kn_tensor **out);
/* ARG when an integer dtype does not reach as far as the number: "300 does not fit in uint8 (0 to 255)". */
kn_status kn_scalar_check(kn_context *ctx, const kn_scalar *s, kn_dtype dtype);
/* The first element of a real tensor, which is fetched from its device. */
kn_status kn_scalar_of(kn_context *ctx, kn_tensor *t, kn_scalar *out);
/* The first element of a real tensor of the host, as a number and from one (cast as `cast` does). */
kn_scalar kn_scalar_read(const kn_tensor *t);
void kn_scalar_write(const kn_scalar *s, kn_tensor *t);
/* What the floating ones among n tensors (NULL: none) promote to; bool when there is none. */
kn_dtype kn_promote_floats(kn_tensor *const *in, int n);
/* dtype a plain number takes beside a tensor: never widens within its category (PyTorch's rule). */
kn_dtype kn_scalar_dtype(kn_scalar_kind kind, kn_dtype beside);

#endif
