/* The tape: what autograd knows of tensors, and the backward walk. Gradients are computed by vjp rules that
 * only call ops, so the same walk serves eager tensors, recorded (symbolic) ones and higher orders. */
#ifndef KN_TAPE_H
#define KN_TAPE_H
#include "core/op.h"

typedef struct kn_grad kn_grad;

/* Frees the link of a tensor and, with the last reference, its tape nodes (iteratively: chains may be long).
 */
void kn_grad_free(kn_grad *g);

/* Whether gradients flow to it. Asked of every input of every op, so its common case is inline. */
bool kn_requires_grad(const kn_tensor *t);
/* Leaves only (no history): STATE otherwise. Floating dtypes only: DTYPE otherwise. */
kn_status kn_set_requires_grad(kn_context *ctx, kn_tensor *t, bool on);
bool kn_is_leaf(const kn_tensor *t);
/* The accumulated gradient, or NULL. Borrowed. */
kn_tensor *kn_grad_of(const kn_tensor *t);
/* Replace (g retained) or clear (g NULL) it. */
kn_status kn_set_grad(kn_context *ctx, kn_tensor *t, kn_tensor *g);
/* Name of the op that made it, NULL for leaves. */
const char *kn_grad_op(const kn_tensor *t);

/* Called by kn_apply after a kernel ran or was recorded: links out[] to a new node if any input requires
 * grad. */
kn_status kn_tape_record(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                         kn_tensor *const *out);

/* ---- writing in place (inplace.c) ---- */

/* May the op write into in[0] (a WRITES row, or the in-place form of another)? STATE for what was made in
 * inference mode, outside of it. The rest matters only while grad mode is on and in[0], what it is a view of
 * or a value that flows into it requires grad: STATE for a leaf that requires grad, a view of one, and a view
 * made under no_grad; UNSUPPORTED while a graph is being recorded. */
kn_status kn_tape_check_write(kn_context *ctx, kn_op op, kn_tensor *const *in, int n);

/* The history that a write of in[1] over in[0] gives: to in[0], or where it is a view to its base, whose
 * other views then look for theirs again. Made before the write, so that nothing can fail after it; then
 * committed or dropped. owner is NULL when no gradient is concerned. */
typedef struct kn_tape_write {
  kn_tensor *owner; /* borrowed from the inputs */
  kn_grad *link;
} kn_tape_write;
kn_status kn_tape_prepare_write(kn_context *ctx, kn_tensor *const *in, kn_tape_write *w);
void kn_tape_commit_write(kn_tape_write *w, kn_tensor *t); /* t: what was written to */
void kn_tape_drop_write(kn_tape_write *w);

/* A view whose base was written to since gets its history anew; called before a history is read. STATE for a
 * view made under no_grad: whether it was to follow is not known. */
kn_status kn_tape_freshen(kn_context *ctx, kn_tensor *t);
static inline bool kn_tape_is_stale(const kn_tensor *t) { return t->base && t->history != t->base->history; }

/* storage->writer: the op, and that it was the in-place form. */
enum { KN_WRITER_INPLACE = 1 << 16 };
/* STATE: "input 2 was changed in place by add_ after it was saved for backward; …". */
kn_status kn_tape_fail_changed(kn_context *ctx, const kn_tensor *t, const char *what, int i);
/* The same of what `writer` wrote to. */
kn_status kn_tape_fail_written(kn_context *ctx, int writer, const char *what, int i);

/* ---- hooks and custom functions (hook.c) ----
 * Functions of a front end on the tape: a C function and its data, which is released with the last that needs
 * it. They run in the middle of a walk, may call ops and walk themselves; when they fail, so does the walk,
 * and nothing of it is kept. */

typedef struct kn_hook kn_hook;
/* Gets the gradient of a tensor, complete; *out may be set to an owned one of the same type to take its
 * place. After accumulation: gets the leaf, whose gradient is in place; *out is not looked at. */
typedef kn_status (*kn_hook_fn)(kn_context *ctx, void *ud, kn_tensor *t, kn_tensor **out);
/* On the gradient of t as it is now: what is written to t later has a history of its own. STATE when t does
 * not require grad, and, with `after`, when it is no leaf. release(ud) is called once, also when this fails.
 */
kn_status kn_tape_hook(kn_context *ctx, kn_tensor *t, bool after, kn_hook_fn fn, void *ud,
                       void (*release)(void *ud), kn_hook **handle);
void kn_hook_remove(kn_hook *h);  /* not called any more; its data is released */
void kn_hook_release(kn_hook *h); /* the handle only */
/* t, which has a link, goes: hooks that would be called with it are removed, though others share its link. */
void kn_tape_forget(kn_tensor *t);

/* t, no leaf, gets its gradient in its grad field too. STATE when it does not require grad. */
kn_status kn_tape_retain_grad(kn_context *ctx, kn_tensor *t);

/* The backward of a custom function: gin[i], owned, for the inputs with need[i], NULL for zero. gout are
 * never NULL unless it asked for holes. kept: inputs, results and extras, NULL where not kept. in: the inputs
 * as the tape knows them, values only where kept; with their histories when gradients are to have one. */
typedef struct kn_custom_call {
  kn_tensor *const *gout, *const *kept, *const *in;
  const bool *need;
  kn_tensor **gin;
} kn_custom_call;
typedef kn_status (*kn_custom_fn)(kn_context *ctx, void *ud, const kn_custom_call *call);
enum { KN_CUSTOM_MAX = 1 << 16 }; /* inputs, and results, and extras */

typedef struct kn_custom {
  const char *name; /* for messages */
  kn_tensor *const *in, *const *out, *const *extra;
  int n, outs, extras;
  const bool *keep; /* per input, then per result: backward reads its value */
  const bool *flat; /* per result: no gradient flows to it */
  bool holes;       /* a gradient that did not come is NULL in gout, not zeros */
  kn_custom_fn fn;
  void *ud;
  void (*release)(void *ud);
} kn_custom;
/* Gives out[] their history: they were computed from in[] by means the tape did not see, and have none yet.
 * release(ud) is called once, also when this fails or nothing requires grad. */
kn_status kn_tape_custom(kn_context *ctx, const kn_custom *f);
/* t, which has no history, gets that of `of`, if it has one. */
kn_status kn_tape_join(kn_context *ctx, kn_tensor *t, const kn_tensor *of);

/* ---- the walk ---- */

/* Accumulate d y / d leaf into each leaf's grad. g NULL: y must have one element, 1 is used. create_graph
 * keeps the gradients differentiable. Values changed in place since they were saved are an error that names
 * the op. */
kn_status kn_backward(kn_context *ctx, kn_tensor *y, kn_tensor *g, bool create_graph);
/* The same for several, and only into xs (leaves or not) unless xs is NULL. gs may be NULL or hold NULLs. */
kn_status kn_backward_into(kn_context *ctx, kn_tensor *const *ys, int ny, kn_tensor *const *gs,
                           kn_tensor *const *xs, int nx, bool create_graph);
/* Gradients of sum(ys · gs) for each x, owned in out[]; NULL where x does not take part. gs may be NULL or
 * hold NULLs (ones, for one-element ys). Leaves' grad fields are not touched. */
kn_status kn_gradients(kn_context *ctx, kn_tensor *const *ys, int ny, kn_tensor *const *gs,
                       kn_tensor *const *xs, int nx, bool create_graph, kn_tensor **out);

#endif
