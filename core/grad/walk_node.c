/* What a walk does at a node: its hooks, its rule or custom function, the search for nan. Results go to the
 * places below. */
#include "core/grad/walk.h"
#include "core/grad/vjp.h"
#include "core/device.h"
#include "core/expr.h"
#include <string.h>

/* ---- rules ---- */

/* Zeroed, so that a rule that reads what it should not is at least the same every time. */
static kn_status make_blank(kn_walk *w, uint8_t device) {
  const kn_attrs_fill zero = {.dtype = KN_F64, .device = device};
  const kn_type one = {.dtype = KN_F64, .device = device};
  kn_tensor *t;
  if (w->blank[device]) return KN_OK;
  KN_TRY(kn_tensor_new(w->ctx, &one, &t));
  kn_status st = KN_OK;
  if (device == KN_CPU)
    memset(t->storage->data, 0, t->storage->bytes);
  else
    st = kn_device_run(w->ctx, KN_OP_full, &zero, NULL, 0, &t, NULL);
  if (st == KN_OK) w->blank[device] = kn_storage_retain(t->storage);
  kn_tensor_release(t);
  return st;
}

enum { FEW_SAVED = KN_MAX_INPUTS + KN_MAX_OUTPUTS }; /* what a row has at most */

/* What the rule of a custom function reads must be what it was; kept[i] is NULL for the rest. */
static kn_status check_kept(kn_walk *w, kn_node *node, kn_tensor *const *t, const uint32_t *version,
                            kn_tensor **kept) {
  for (int i = 0, all = node->n + node->outs + node->extras; i < all; i++) {
    const kn_saved *s = &node->saved[i];
    kept[i] = s->storage || s->lost ? t[i] : NULL;
    if (!kept[i] || atomic_load(&t[i]->storage->version) == version[i]) continue;
    bool result = i >= node->n && i < node->n + node->outs;
    kn_tape_fail_changed(w->ctx, t[i],
                         result        ? "result"
                         : i < node->n ? "input"
                                       : "saved tensor",
                         1 + (i < node->n ? i
                              : result    ? i - node->n
                                          : i - node->n - node->outs));
    return KN_STATE;
  }
  return KN_OK;
}

/* Zeros where no gradient came. */
static kn_status complete(kn_walk *w, kn_node *node, kn_tensor *const *t, kn_tensor **sum) {
  kn_attrs_value zero = {.value = 0};
  for (int k = 0; k < node->outs; k++)
    if (!sum[k]) KN_TRY(kn_apply(w->ctx, KN_OP_full_like, &zero, &t[node->n + k], 1, &sum[k]));
  return KN_OK;
}

static kn_status run_custom(kn_walk *w, kn_node *node, kn_tensor *const *t, const uint32_t *version,
                            kn_tensor **sum, const bool *need, kn_tensor **gin, kn_tensor **kept) {
  kn_extra *e = node->extra;
  kn_status st = check_kept(w, node, t, version, kept);
  if (st == KN_OK && !e->holes) st = complete(w, node, t, sum);
  if (st == KN_OK) st = e->custom(w->ctx, e->ud, &(kn_custom_call){sum, kept, t, need, gin});
  for (int i = 0; i < node->n && st == KN_OK; i++)
    if (gin[i] && !need[i]) {
      kn_tensor_release(gin[i]);
      gin[i] = NULL;
    } else if (gin[i]) {
      st = kn_vjp_fit(w->ctx, &t[i]->type, i, &gin[i]);
    }
  if (st == KN_OK) return KN_OK;
  for (int i = 0; i < node->n; i++) {
    kn_tensor_release(gin[i]);
    gin[i] = NULL;
  }
  kn_error_prefix(w->ctx, "backward of %s", e->name);
  return st;
}

static kn_status run_row(kn_walk *w, kn_node *node, kn_tensor *const *t, const uint32_t *version,
                         kn_tensor *const *gout, const bool *need, kn_tensor **gin) {
  kn_vjp v = {.op = node->op,
              .attrs = node->attrs,
              .n = node->n,
              .in = t,
              .out = t + node->n,
              .version = version,
              .gout = gout,
              .need = need};
  return kn_vjp_run(w->ctx, &v, gin);
}

typedef struct unpacked { /* what a node saved; `many` where a custom one has more than a row ever has */
  kn_tensor *few[2 * FEW_SAVED], **t, **kept;
  uint32_t few_versions[FEW_SAVED], *version;
  bool few_needs[KN_MAX_INPUTS], *need;
  char *many;
  size_t bytes;
} unpacked;

static kn_status open_unpacked(kn_walk *w, const kn_node *node, unpacked *u) {
  size_t n = (size_t)(node->n + node->outs + node->extras);
  u->many = NULL;
  u->bytes = 0;
  u->t = u->few;
  u->kept = u->few + FEW_SAVED;
  u->version = u->few_versions;
  u->need = u->few_needs;
  if (n <= FEW_SAVED && node->n <= KN_MAX_INPUTS) return KN_OK;
  u->bytes = n * (2 * sizeof *u->t + sizeof *u->version + sizeof *u->need);
  if (!(u->many = kn_claim(w->ctx, u->bytes))) return kn_fail_nomem(w->ctx, u->bytes);
  memset(u->many, 0, u->bytes);
  u->t = (kn_tensor **)(void *)u->many;
  u->kept = u->t + n;
  u->version = (uint32_t *)(void *)(u->kept + n);
  u->need = (bool *)(u->version + n);
  return KN_OK;
}

static kn_status run_rule(kn_walk *w, kn_node *node, kn_tensor **sum, kn_tensor **gin) {
  unpacked u;
  KN_TRY(open_unpacked(w, node, &u));
  kn_tensor **t = u.t;
  uint32_t *version = u.version;
  bool *need = u.need;
  int all = node->n + node->outs + node->extras, made = 0;
  kn_status st = KN_OK;
  for (; st == KN_OK && made < all; made += st == KN_OK) {
    const uint8_t device = node->saved[made].device;
    st = make_blank(w, device);
    if (st == KN_OK)
      st = kn_node_unpack(w->ctx, node, made, w->create_graph, w->blank[device], &w->filled, &t[made],
                          &version[made]);
  }
  for (int i = 0; i < node->n; i++) need[i] = kn_walk_wants(w, node->edge[i]);
  if (st == KN_OK)
    st = node->op == KN_OP_COUNT ? run_custom(w, node, t, version, sum, need, gin, u.kept)
                                 : run_row(w, node, t, version, sum, need, gin);
  for (int i = 0; i < made; i++) kn_tensor_release(t[i]);
  kn_free(w->ctx->heap, u.many, u.bytes);
  return st;
}

/* ---- hooks ---- */

static kn_status check_replacement(kn_walk *w, const kn_tensor *g, const kn_tensor *by) {
  if (kn_type_equal(&g->type, &by->type)) return KN_OK;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  return kn_fail(w->ctx, KN_SHAPE, "a hook gave %s in place of a gradient %s",
                 kn_type_text(&by->type, a, sizeof a), kn_type_text(&g->type, b, sizeof b));
}

kn_status kn_walk_hooks(kn_walk *w, kn_hook *list, int output, kn_tensor **g) {
  for (kn_hook *h = list; h && *g; h = h->next) {
    if (!h->fn || h->after || h->output != output) continue;
    kn_tensor *by = NULL;
    atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed); /* it may remove itself */
    kn_status st = h->fn(w->ctx, h->ud, *g, &by);
    if (st == KN_OK && by) st = check_replacement(w, *g, by);
    if (st == KN_OK && by) {
      kn_tensor_release(*g);
      *g = by;
    } else {
      kn_tensor_release(by);
    }
    kn_hook_release(h);
    KN_TRY(st);
  }
  return KN_OK;
}

/* ---- anomalies: nan found where it comes up, with the place that made the op ---- */

static kn_status has_nan(kn_walk *w, kn_tensor *g, bool *found) {
  kn_scope s;
  kn_scalar yes = {.kind = KN_SCALAR_BOOL};
  bool mode = w->ctx->grad_enabled;
  if (kn_tensor_is_symbolic(g)) return KN_OK;
  w->ctx->grad_enabled = false;
  kn_scope_open(&s, w->ctx);
  kn_attrs_reduce all = {.keepdim = false};
  kn_tensor *any = kx_apply(&s, KN_OP_any, &all, (kn_tensor *[]){kx_isnan(&s, g)}, 1);
  if (any) kx_fail(&s, kn_item(w->ctx, any, &yes));
  kn_status st = kn_scope_close(&s, NULL, NULL);
  w->ctx->grad_enabled = mode;
  *found = yes.as.b;
  return st;
}

static kn_status find_nan(kn_walk *w, const kn_node *node, kn_tensor *const *gin) {
  for (int i = 0; i < node->n; i++) {
    bool found = false;
    if (gin[i]) KN_TRY(has_nan(w, gin[i], &found));
    if (found)
      return kn_fail(w->ctx, KN_STATE, "backward of %s gave nan for input %d", kn_node_name(node), i + 1);
  }
  return KN_OK;
}

static kn_status add_place(kn_walk *w, const kn_node *node, kn_status st) {
  const char *at = node->extra ? node->extra->place : "";
  if (st != KN_OK && *at)
    kn_error_prefix(w->ctx, "in the gradient of what was computed at %s", at);
  else if (st != KN_OK && w->ctx->anomaly)
    kn_error_prefix(w->ctx, "in the gradient of what was computed outside of detect_anomaly");
  return st;
}

static kn_status run_node(kn_walk *w, kn_node *node, kn_tensor **sum, kn_tensor **gin) {
  kn_status st = run_rule(w, node, sum, gin);
  if (st == KN_OK && w->ctx->anomaly && (st = find_nan(w, node, gin)) != KN_OK)
    for (int i = 0; i < node->n; i++) kn_tensor_release(gin[i]);
  return add_place(w, node, st);
}

static kn_status pass(kn_walk *w, kn_place *p, kn_tensor **gin) {
  kn_node *node = p->node;
  kn_tensor **sum = kn_walk_sums(p);
  bool any = false;
  for (int k = 0; k < node->outs; k++) any |= sum[k] != NULL;
  if (!any || !(p->useful || p->target)) return KN_OK;
  for (int k = 0; k < node->outs && node->extra; k++)
    KN_TRY(add_place(w, node, kn_walk_hooks(w, node->extra->hooks, k, &sum[k])));
  if (!p->useful) return KN_OK;
  KN_TRY(run_node(w, node, sum, gin));
  for (int k = 0; k < node->outs && !p->target; k++) {
    if (node->extra && node->extra->keeper[k]) continue;
    kn_tensor_release(sum[k]);
    sum[k] = NULL;
  }
  kn_status st = KN_OK;
  for (int i = 0; i < node->n; i++) {
    if (!gin[i]) continue;
    if (st == KN_OK)
      st = kn_walk_add(w, node->edge[i], gin[i]);
    else
      kn_tensor_release(gin[i]);
  }
  return st;
}

kn_status kn_walk_pass(kn_walk *w, kn_place *p) {
  kn_tensor *few[KN_MAX_INPUTS] = {NULL};
  size_t n = (size_t)p->node->n;
  if (n <= KN_MAX_INPUTS) return pass(w, p, few);
  kn_tensor **many = kn_calloc(w->ctx->heap, n, sizeof *many);
  if (!many) return kn_fail_nomem(w->ctx, n * sizeof *many);
  kn_status st = pass(w, p, many);
  kn_free(w->ctx->heap, many, n * sizeof *many);
  return st;
}
