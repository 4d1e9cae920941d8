/* Functions of a front end on the tape: hooks on gradients, results that keep theirs, custom functions. They
 * are called by the walk (backward.c). */
#include "core/grad/node.h"
#include <string.h>

/* ---- hooks ---- */

void kn_hook_release(kn_hook *h) {
  if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1) return;
  kn_hook_remove(h);
  kn_heap *heap = h->heap;
  kn_free(heap, h, sizeof *h);
  kn_heap_release(heap);
}

void kn_hook_remove(kn_hook *h) {
  void (*release)(void *) = h->release;
  h->fn = NULL;
  h->release = NULL;
  if (release) release(h->ud);
}

void kn_hooks_free(kn_hook *list) {
  while (list) {
    kn_hook *next = list->next;
    list->next = NULL;
    kn_hook_release(list);
    list = next;
  }
}

/* At the end, so that they run in the order they came. Removed ones leave the list, unless a walk may stand
 * on one of them. */
static void append(kn_hook **list, kn_hook *h, bool tidy) {
  while (*list) {
    if ((*list)->fn || !tidy) {
      list = &(*list)->next;
      continue;
    }
    kn_hook *gone = *list;
    *list = gone->next;
    gone->next = NULL;
    kn_hook_release(gone);
  }
  *list = h;
}

void kn_tape_forget(kn_tensor *t) {
  for (kn_hook *h = t->grad->hooks; h; h = h->next)
    if (h->after == t) kn_hook_remove(h);
}

static kn_status can_hook(kn_context *ctx, kn_tensor *t, bool after) {
  if (!kn_requires_grad(t))
    return kn_fail(ctx, KN_STATE, "a hook needs a tensor that requires grad, and this one does not");
  if (after && !kn_is_leaf(t))
    return kn_fail(ctx, KN_STATE,
                   "gradients are accumulated into leaves only, and this tensor is a result of %s; use "
                   "register_hook",
                   kn_grad_op(t));
  return kn_tape_freshen(ctx, t);
}

static kn_status hook_list(kn_context *ctx, kn_tensor *t, kn_hook ***list) {
  if (!t->grad->node) {
    *list = &t->grad->hooks;
    return KN_OK;
  }
  KN_TRY(kn_node_extra(ctx, t->grad->node));
  *list = &t->grad->node->extra->hooks;
  return KN_OK;
}

kn_status kn_tape_hook(kn_context *ctx, kn_tensor *t, bool after, kn_hook_fn fn, void *ud,
                       void (*release)(void *ud), kn_hook **handle) {
  kn_hook **list = NULL, *h = NULL;
  kn_status st = can_hook(ctx, t, after);
  if (st == KN_OK) st = hook_list(ctx, t, &list);
  if (st == KN_OK && !(h = kn_claim(ctx, sizeof *h))) st = kn_fail_nomem(ctx, sizeof *h);
  if (st != KN_OK) {
    if (release) release(ud);
    return st;
  }
  *h = (kn_hook){.heap = kn_heap_retain(ctx->heap),
                 .output = t->grad->output,
                 .after = after ? t : NULL,
                 .fn = fn,
                 .ud = ud,
                 .release = release};
  atomic_init(&h->refs, 2); /* the list's and the handle's */
  append(list, h, ctx->walks == 0);
  *handle = h;
  return KN_OK;
}

kn_status kn_tape_retain_grad(kn_context *ctx, kn_tensor *t) {
  if (!kn_requires_grad(t))
    return kn_fail(ctx, KN_STATE, "retain_grad: the tensor does not require grad, so it gets no gradient");
  KN_TRY(kn_tape_freshen(ctx, t));
  return kn_link_retain(ctx, t->grad);
}

kn_status kn_link_retain(kn_context *ctx, kn_grad *g) {
  if (!g->node || g->retains) return KN_OK;
  KN_TRY(kn_node_extra(ctx, g->node));
  kn_grad **keeper = &g->node->extra->keeper[g->output];
  if (*keeper) (*keeper)->retains = false; /* of another handle on the same result */
  *keeper = g;
  g->retains = true;
  return KN_OK;
}

/* ---- custom functions ---- */

static bool joins(const kn_custom *f, int k) {
  return !f->flat[k] && kn_dtype_is_float(kn_tensor_dtype(f->out[k]));
}

static bool matters(kn_context *ctx, const kn_custom *f) {
  bool wanted = false, joined = false;
  for (int i = 0; i < f->n; i++) wanted |= kn_requires_grad(f->in[i]);
  for (int k = 0; k < f->outs; k++) joined |= joins(f, k);
  return ctx->grad_enabled && wanted && joined;
}

static kn_status link_results(kn_context *ctx, const kn_custom *f, kn_node *node) {
  enum { FEW = 16 };
  size_t bytes = (size_t)f->outs * sizeof(kn_grad *);
  kn_grad *few[FEW] = {NULL},
          **link = f->outs <= FEW ? few : kn_calloc(ctx->heap, (size_t)f->outs, sizeof *link);
  bool ok = true;
  if (!link) return kn_fail_nomem(ctx, bytes);
  for (int k = 0; k < f->outs && ok; k++)
    if (joins(f, k)) ok = (link[k] = kn_grad_new(ctx->heap, node, k)) != NULL;
  for (int k = 0; k < f->outs; k++) {
    if (!link[k]) continue;
    if (ok) {
      kn_grad_free(f->out[k]->grad);
      f->out[k]->grad = link[k];
    } else {
      kn_grad_free(link[k]);
    }
  }
  if (link != few) kn_free(ctx->heap, link, bytes);
  return ok ? KN_OK : kn_fail_nomem(ctx, sizeof(kn_grad));
}

kn_status kn_tape_join(kn_context *ctx, kn_tensor *t, const kn_tensor *of) {
  const kn_grad *g = of->grad;
  if (!g) return KN_OK;
  t->grad = g->node ? kn_grad_new(ctx->heap, g->node, g->output) : kn_grad_share(of->grad);
  return t->grad ? KN_OK : kn_fail_nomem(ctx, sizeof *g);
}

kn_status kn_tape_custom(kn_context *ctx, const kn_custom *f) {
  kn_status st = KN_OK;
  kn_node *node = NULL;
  if (f->n > KN_CUSTOM_MAX || f->outs > KN_CUSTOM_MAX || f->extras > KN_CUSTOM_MAX)
    st = kn_fail(ctx, KN_LIMIT, "%s: at most %d tensors may go in, come out and be saved", f->name,
                 KN_CUSTOM_MAX);
  for (int i = 0; i < f->n && st == KN_OK; i++) st = kn_tape_freshen(ctx, f->in[i]);
  if (st == KN_OK && matters(ctx, f))
    st = kn_node_custom(ctx, f->name, f->in, f->n, f->out, f->outs, f->keep, f->extra, f->extras, &node);
  if (st == KN_OK && node) {
    node->extra->custom = f->fn;
    node->extra->holes = f->holes;
    node->extra->ud = f->ud;
    node->extra->release = f->release;
    st = link_results(ctx, f, node);
    kn_node_release(node);
  } else if (f->release) {
    f->release(f->ud);
  }
  return st;
}
