/* Writing in place while gradients are recorded, and the histories of views. A view and its base share their
 * elements, so a write through either is a write to the base: the base's history goes on by a node that puts
 * the new values where the view lies (strided_put), and a view that finds its base's history replaced takes
 * its own from it (strided). What a view lies on is told by its strides alone, in the order of the base's
 * elements; where the base itself does not lie in order, it is spread into a line first. */
#include "core/grad/node.h"
#include <stdio.h>
#include <string.h>

/* ---- what is refused ---- */

static const char *spelled(kn_op op, char name[64]) {
  snprintf(name, 64, "%s%s", kn_op_name(op), kn_ops[op].flags & KN_FLAG_WRITES ? "" : "_");
  return name;
}

static bool concerned(const kn_context *ctx, kn_tensor *const *in, int n) {
  if (!ctx->grad_enabled || !kn_dtype_is_float(kn_tensor_dtype(in[0]))) return false;
  if (in[0]->base && kn_requires_grad(in[0]->base)) return true;
  for (int i = 0; i < n; i++)
    if (in[i] && kn_requires_grad(in[i])) return true;
  return false;
}

kn_status kn_tape_check_write(kn_context *ctx, kn_op op, kn_tensor *const *in, int n) {
  kn_tensor *t = in[0], *base = t->base;
  char name[64];
  if (t->storage && t->storage->inference && !ctx->inference)
    return kn_fail(ctx, KN_STATE,
                   "%s: a tensor made in inference mode can be changed in place only there; clone it first",
                   spelled(op, name));
  if (!concerned(ctx, in, n)) return KN_OK;
  spelled(op, name);
  if (!t->storage)
    return kn_fail(ctx, KN_UNSUPPORTED,
                   "%s: changing a tensor in place is not supported yet while a graph is being recorded and "
                   "gradients flow; use the form that gives a new tensor, as in `x = x + y` for `x:add_(y)`",
                   name);
  if (base && kn_is_leaf(base) && kn_requires_grad(base))
    return kn_fail(ctx, KN_STATE,
                   "%s: a view of a leaf that requires grad is being changed in place; do it under "
                   "kiln.no_grad, or on a clone of the leaf",
                   name);
  if (kn_requires_grad(t) && kn_is_leaf(t))
    return kn_fail(
        ctx, KN_STATE,
        "%s: a leaf that requires grad is being changed in place; do it under kiln.no_grad, or use "
        "the form that gives a new tensor",
        name);
  if (base && t->made_untracked)
    return kn_fail(ctx, KN_STATE,
                   "%s: a view that was made under no_grad or inference_mode is being changed in place while "
                   "gradients are recorded; make the view where it is changed",
                   name);
  return KN_OK;
}

kn_status kn_tape_fail_changed(kn_context *ctx, const kn_tensor *t, const char *what, int i) {
  int writer = atomic_load_explicit(&t->storage->writer, memory_order_relaxed);
  return kn_tape_fail_written(ctx, writer, what, i);
}

kn_status kn_tape_fail_written(kn_context *ctx, int writer, const char *what, int i) {
  kn_op op = (kn_op)(writer & (KN_WRITER_INPLACE - 1));
  bool inplace = writer & KN_WRITER_INPLACE;
  if (inplace)
    return kn_fail(
        ctx, KN_STATE,
        "%s %d was changed in place by %s_ after it was saved for backward; use %s, which gives a new "
        "tensor, or change a clone of it",
        what, i, kn_op_name(op), kn_op_name(op));
  return kn_fail(ctx, KN_STATE,
                 "%s %d was changed in place by %s after it was saved for backward; change a clone of it",
                 what, i, op == KN_OP_copy_ ? "an assignment (copy_, fill_ or zero_)" : kn_op_name(op));
}

/* ---- nodes between tensors that are not there ----
 * The ops used here read no values, so a tensor that only has the type will do: an alias of a real one. */

/* `like` as another type, with a history of its own; owned. */
static kn_status shell(kn_context *ctx, kn_tensor *like, const kn_type *type, kn_tensor **out) {
  KN_TRY(kn_tensor_alias(ctx, like, out));
  (*out)->type = *type;
  kn_strides_contiguous(type, (*out)->strides);
  return KN_OK;
}

/* A node of `op` from in[] to something like `out`; *link gets its link, owned. */
static kn_status link_node(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                           kn_tensor *out, kn_grad **link) {
  kn_node *node;
  KN_TRY(kn_node_new(ctx, op, attrs, in, n, &out, &node));
  *link = kn_grad_new(ctx->heap, node, 0);
  kn_node_release(node);
  return *link ? KN_OK : kn_fail_nomem(ctx, sizeof(kn_grad));
}

/* The same with a shell for its result. */
static kn_status shell_node(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                            const kn_type *type, kn_tensor **out) {
  kn_tensor *t;
  KN_TRY(shell(ctx, in[0], type, &t));
  kn_status st = link_node(ctx, op, attrs, in, n, t, &t->grad);
  if (st == KN_OK)
    *out = t;
  else
    kn_tensor_release(t);
  return st;
}

/* Where t lies, counted from element `first` of the storage. */
static kn_attrs_strided places(const kn_tensor *t, int64_t first) {
  kn_attrs_strided a = {.sizes.n = t->type.rank, .strides.n = t->type.rank, .offset = t->offset - first};
  memcpy(a.sizes.v, t->type.dims, sizeof a.sizes.v);
  memcpy(a.strides.v, t->strides, sizeof a.strides.v);
  return a;
}

/* A base that does not lie in order (a detached view, say) as a line of all elements between its first and
 * its last, with zeros in the gaps. */
static kn_type line_of(const kn_tensor *base) {
  kn_type line = {.dtype = base->type.dtype, .device = base->type.device, .rank = 1, .dims = {1}};
  for (int d = 0; d < base->type.rank; d++) line.dims[0] += (base->type.dims[d] - 1) * base->strides[d];
  if (kn_tensor_numel(base) == 0) line.dims[0] = 0;
  return line;
}

static kn_status spread(kn_context *ctx, kn_tensor *base, kn_tensor **line) {
  kn_type type = line_of(base);
  kn_attrs_strided own = places(base, base->offset);
  kn_tensor *like;
  KN_TRY(shell(ctx, base, &type, &like));
  kn_status st = shell_node(ctx, KN_OP_strided_grad, &own, (kn_tensor *[]){base, like}, 2, &type, line);
  kn_tensor_release(like);
  return st;
}

/* ---- histories of views ---- */

static kn_status view_link(kn_context *ctx, kn_tensor *base, kn_tensor *t, kn_grad **link) {
  kn_attrs_strided at = places(t, base->offset);
  if (kn_tensor_contiguous(base)) return link_node(ctx, KN_OP_strided, &at, &base, 1, t, link);
  kn_tensor *line;
  KN_TRY(spread(ctx, base, &line));
  kn_status st = link_node(ctx, KN_OP_strided, &at, &line, 1, t, link);
  kn_tensor_release(line);
  return st;
}

kn_status kn_tape_freshen(kn_context *ctx, kn_tensor *t) {
  kn_tensor *base = t->base;
  kn_grad *link = NULL;
  if (!kn_tape_is_stale(t)) return KN_OK;
  if (kn_requires_grad(base)) {
    if (t->made_untracked)
      return kn_fail(
          ctx, KN_STATE,
          "it is a view that was made under no_grad or inference_mode, and what it is a view of was "
          "then changed in place while gradients were recorded; make the view where it is used");
    KN_TRY(view_link(ctx, base, t, &link));
    kn_status st = t->grad && t->grad->retains ? kn_link_retain(ctx, link) : KN_OK;
    if (st != KN_OK) {
      kn_grad_free(link);
      return st;
    }
  }
  kn_grad_free(t->grad);
  t->grad = link;
  t->history = base->history;
  return KN_OK;
}

/* ---- writes ---- */

/* What was there before does not matter: nothing but the new values is in the history. */
static kn_status whole_link(kn_context *ctx, kn_tensor *const *in, kn_grad **link) {
  kn_tensor *old;
  KN_TRY(kn_tensor_alias(ctx, in[0], &old));
  kn_status st = link_node(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){old, in[1]}, 2, in[0], link);
  kn_tensor_release(old);
  return st;
}

static kn_status part_link(kn_context *ctx, kn_tensor *base, kn_tensor *const *in, kn_grad **link) {
  kn_attrs_strided at = places(in[0], base->offset), own = places(base, base->offset);
  if (kn_tensor_contiguous(base))
    return link_node(ctx, KN_OP_strided_put, &at, (kn_tensor *[]){base, in[1]}, 2, base, link);
  kn_tensor *line, *put;
  kn_type type = line_of(base);
  KN_TRY(spread(ctx, base, &line));
  kn_status st = shell_node(ctx, KN_OP_strided_put, &at, (kn_tensor *[]){line, in[1]}, 2, &type, &put);
  kn_tensor_release(line);
  KN_TRY(st);
  st = link_node(ctx, KN_OP_strided, &own, &put, 1, base, link);
  kn_tensor_release(put);
  return st;
}

kn_status kn_tape_prepare_write(kn_context *ctx, kn_tensor *const *in, kn_tape_write *w) {
  kn_tensor *base = in[0]->base;
  *w = (kn_tape_write){NULL, NULL};
  if (!concerned(ctx, in, 2) || !in[0]->storage) return KN_OK;
  KN_TRY(kn_tape_freshen(ctx, in[1]));
  kn_grad *link;
  KN_TRY(base ? part_link(ctx, base, in, &link) : whole_link(ctx, in, &link));
  kn_tensor *owner = base ? base : in[0];
  if (owner->grad && owner->grad->retains) { /* a tensor keeps the gradient of what it is at the end */
    kn_status st = kn_link_retain(ctx, link);
    if (st != KN_OK) {
      kn_grad_free(link);
      return st;
    }
  }
  *w = (kn_tape_write){owner, link};
  return KN_OK;
}

void kn_tape_commit_write(kn_tape_write *w, kn_tensor *t) {
  if (!w->owner) return;
  kn_grad *old = w->owner->grad;
  w->owner->grad = w->link;
  w->owner->history++;
  kn_grad_free(old);
  if (t == w->owner) return;
  if (t->grad && t->grad->retains) return; /* t looks for its history when it is next needed */
  kn_grad_free(t->grad);
  t->grad = NULL;
}

void kn_tape_drop_write(kn_tape_write *w) {
  kn_grad_free(w->link);
  w->link = NULL;
}
