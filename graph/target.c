/* What targets share: attributes and outputs of a node as they are in this run, log lines, error positions.
 */
#include "core/device.h"
#include "graph/mutant.h"
#include "graph/profile.h"
#include "graph/target.h"
#include "graph/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void note_placeholder(void *ud, int64_t *v) { *(bool *)ud |= kn_is_dyn(*v); }

bool kn_node_static(const kn_node *n, const kn_type *types, char *why, size_t size) {
  bool open = false;
  kn_attrs_any attrs;
  kn_attrs_info info = kn_attrs_describe(kn_ops[n->op].attrs);
  if (n->attrs && n->nin > n->ntensor) {
    memcpy(&attrs, n->attrs, info.size);
    kn_attrs_each_int(kn_ops[n->op].attrs, &attrs, note_placeholder, &open);
  }
  if (open) {
    snprintf(why, size, "an attribute is only known when it runs");
    return false;
  }
  for (uint32_t i = 0; i < n->ntensor + n->nout; i++) {
    const kn_value *v = i < n->ntensor ? n->in[i] : n->out[i - n->ntensor];
    if (kn_type_known(&types[v->id])) continue;
    snprintf(why, size, "sizes are only known when it runs");
    return false;
  }
  return true;
}

bool kn_node_is_placed(const kn_node *n, const kn_type *types) {
  if (n->nin == n->ntensor || kn_ops[n->op].attrs != KN_ATTRS_select) return false;
  bool known = !kn_is_dyn(((const kn_attrs_select *)n->attrs)->dim);
  for (uint32_t i = 0; i < n->ntensor; i++) known &= kn_type_known(&types[n->in[i]->id]);
  return known && kn_type_known(&types[n->out[0]->id]);
}

kn_status kn_node_attrs_now(kn_context *ctx, const kn_node *n, const kn_scalar *scalars, kn_attrs_any *room,
                            const void **attrs) {
  uint32_t ndyn = n->nin - n->ntensor;
  kn_scalar dyn[KN_MAX_DYN];
  *attrs = n->attrs;
  if (!ndyn) return KN_OK;
  if (ndyn > KN_MAX_DYN) return kn_fail(ctx, KN_INTERNAL, "%s: too many sizes", kn_op_name((kn_op)n->op));
  for (uint32_t i = 0; i < ndyn; i++) dyn[i] = scalars[n->in[n->ntensor + i]->id];
  KN_TRY(kn_node_attrs(ctx, n, dyn, room));
  *attrs = room;
  return KN_OK;
}

/* What the rule says of this run's sizes must be what the plan laid out. */
static kn_status check_planned(kn_context *ctx, const kn_node *n, const kn_type *types,
                               kn_tensor *const *vals) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  for (uint32_t i = 0; i < n->nout; i++) {
    const kn_tensor *t = vals[n->out[i]->id];
    if (t && !kn_type_equal(&t->type, &types[i]))
      return kn_fail(ctx, KN_INTERNAL, "%s: planned as %s, turned out as %s", kn_op_name((kn_op)n->op),
                     kn_type_text(&t->type, a, sizeof a), kn_type_text(&types[i], b, sizeof b));
  }
  return KN_OK;
}

kn_status kn_check_declared(kn_context *ctx, const kn_node *n, const kn_type *in, const kn_type *out) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_op_is_host((kn_op)n->op)) return KN_OK;
  bool sized =
      true; /* inputs are as the graph says: then results are, too, and else of their rank and dtype */
  for (uint32_t i = 0; i < n->ntensor; i++)
    sized &= kn_vtype_may_be(&(kn_vtype){KN_V_TENSOR, in[i]}, &n->in[i]->type);
  for (uint32_t i = 0; i < n->nout; i++) {
    const kn_vtype got = {KN_V_TENSOR, out[i]}, *want = &n->out[i]->type;
    if (sized ? kn_vtype_may_be(&got, want)
              : out[i].dtype == want->tensor.dtype && out[i].rank == want->tensor.rank)
      continue;
    return kn_fail(ctx, KN_SHAPE, "op '%s' gives %s here, and %s where the graph was made",
                   ((const kn_attrs_host_op *)n->attrs)->name.s, kn_type_text(&out[i], a, sizeof a),
                   kn_vtype_text(n->region->graph, want, b, sizeof b));
  }
  return KN_OK;
}

kn_status kn_node_outputs(kn_context *ctx, const kn_node *n, const void *attrs, kn_tensor **vals) {
  const kn_op_info *row = &kn_ops[n->op];
  kn_type in[KN_MAX_INPUTS], types[KN_MAX_OUTPUTS];
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = vals[n->in[i]->id]->type;
  KN_TRY(kn_infer_types(ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, types));
  KN_TRY(kn_check_declared(ctx, n, in, types));
  KN_TRY(check_planned(ctx, n, types, vals));
  kn_tensor *made[KN_MAX_OUTPUTS] = {NULL};
  kn_status st = KN_OK;
  for (uint32_t i = 0; i < n->nout && st == KN_OK; i++) {
    if (vals[n->out[i]->id]) continue;
    bool bare = row->op_class == KN_CLASS_VIEW || row->flags & KN_FLAG_DYNAMIC;
    if (row->flags & KN_FLAG_WRITES)
      made[i] = kn_tensor_retain(vals[n->in[0]->id]);
    else if (bare)
      st = kn_tensor_symbolic(ctx, &types[i], NULL, &made[i]);
    else
      st = kn_tensor_new(ctx, &types[i], &made[i]);
  }
  for (uint32_t i = 0; i < n->nout; i++) {
    if (!made[i]) continue;
    if (st == KN_OK)
      vals[n->out[i]->id] = made[i];
    else
      kn_tensor_release(made[i]);
  }
  return st;
}

/* "%h float32[1,8,8,8]", "%n integer" */
static void output_text(const kn_node *n, kn_tensor *const *vals, char *buf, size_t size) {
  char type[KN_TYPE_TEXT];
  buf[0] = 0;
  if (!n->nout) return;
  const kn_value *v = n->out[0];
  const kn_tensor *t = v->type.kind == KN_V_TENSOR && vals ? vals[v->id] : NULL;
  if (t)
    kn_type_text(&t->type, type, sizeof type);
  else
    kn_vtype_text(n->region->graph, &v->type, type, sizeof type);
  if (v->name)
    snprintf(buf, size, "%%%s %s", v->name, type);
  else
    snprintf(buf, size, "%%%" PRIu32 " %s", v->id, type);
}

kn_status kn_node_copy(kn_context *ctx, kn_tensor *from, kn_tensor *to) {
  if (to->type.device == KN_CPU) return kn_ops[KN_OP_clone].kernel(ctx, NULL, &from, 1, &to);
  return kn_device_run(ctx, KN_OP_clone, NULL, &from, 1, &to, NULL);
}

/* Over its input's storage a view is there already, over its own it is a copy in the order of the elements.
 */
kn_status kn_node_view(kn_context *ctx, const kn_node *n, const void *attrs, kn_tensor **vals,
                       const char **impl) {
  kn_tensor *in[KN_MAX_INPUTS], *out = vals[n->out[0]->id];
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = vals[n->in[i]->id];
  *impl = "view";
  if (!out->storage && out->type.device != KN_CPU)
    return kn_device_run(ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, &out, NULL);
  if (!out->storage) return kn_ops[n->op].kernel(ctx, attrs, in, (int)n->ntensor, &out);
  if (out->storage == in[0]->storage) return KN_OK;
  *impl = "copy";
  kn_tensor shaped = {.type = in[0]->type, .offset = out->offset, .storage = out->storage, .heap = out->heap};
  kn_strides_contiguous(&shaped.type, shaped.strides);
  return kn_node_copy(ctx, in[0], &shaped);
}

void kn_guess_strides(const kn_value *v, const kn_type *types, int64_t strides[KN_MAX_RANK]) {
  enum { LOOK_BACK = 8 };
  int rank = types[v->id].rank, from[KN_MAX_RANK]; /* our dim i is dim from[i] of v */
  int64_t dense[KN_MAX_RANK];
  for (int i = 0; i < KN_MAX_RANK; i++) from[i] = i;
  for (int k = 0; k < LOOK_BACK && v->def && v->def->op == KN_OP_transpose; k++, v = v->def->in[0]) {
    const kn_attrs_swap *a = v->def->attrs;
    int d0 = (int)(a->dim0 < 0 ? a->dim0 + rank : a->dim0),
        d1 = (int)(a->dim1 < 0 ? a->dim1 + rank : a->dim1);
    for (int i = 0; i < rank; i++) from[i] = from[i] == d0 ? d1 : from[i] == d1 ? d0 : from[i];
  }
  kn_strides_contiguous(&types[v->id], dense);
  for (int i = 0; i < KN_MAX_RANK; i++) strides[i] = dense[from[i]];
}

static bool missing(const kn_node *n, kn_tensor *const *vals) {
  for (uint32_t i = 0; i < n->nout; i++)
    if (!vals[n->out[i]->id]) return true;
  return false;
}

/* A view whose elements have a place of their own. */
static kn_status copy_view(kn_context *ctx, const kn_node *n, const void *attrs, kn_tensor *const *in,
                           kn_tensor *out, bool eager, const char **impl) {
  kn_tensor *view;
  KN_TRY(kn_tensor_symbolic(ctx, &out->type, NULL, &view));
  kn_status st = eager ? kn_device_run(ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, &view, NULL)
                       : kn_ops[n->op].kernel(ctx, attrs, in, (int)n->ntensor, &view);
  if (st == KN_OK) st = kn_node_copy(ctx, view, out);
  kn_tensor_release(view);
  *impl = "copy";
  return st;
}

kn_status kn_node_run(kn_context *ctx, const kn_node *n, bool open, bool eager, kn_tensor **vals,
                      const kn_scalar *scalars, const char **impl) {
  const kn_op_info *row = &kn_ops[n->op];
  kn_attrs_any room;
  const void *attrs;
  kn_tensor *in[KN_MAX_INPUTS], *out[KN_MAX_OUTPUTS];
  KN_TRY(kn_node_attrs_now(ctx, n, scalars, &room, &attrs));
  if (open || missing(n, vals)) KN_TRY(kn_node_outputs(ctx, n, attrs, vals));
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = vals[n->in[i]->id];
  for (uint32_t i = 0; i < n->nout; i++) out[i] = vals[n->out[i]->id];
  *impl = "ref:plain";
  if (row->op_class == KN_CLASS_VIEW && !open) return kn_node_view(ctx, n, attrs, vals, impl);
  if (row->op_class == KN_CLASS_VIEW && out[0]->storage)
    return copy_view(ctx, n, attrs, in, out[0], eager, impl);
  if (row->op_class == KN_CLASS_VIEW) *impl = "ref:view";
  if (eager)
    KN_TRY(kn_device_run(ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, out, impl));
  else
    KN_TRY(row->kernel(ctx, attrs, in, (int)n->ntensor, out));
  if (row->flags & KN_FLAG_WRITES) atomic_fetch_add(&in[0]->storage->version, 1u);
  return KN_OK;
}

void kn_log_node(kn_context *ctx, const char *backend, const kn_node *n, const char *impl,
                 kn_tensor *const *vals) {
  kn_log_nodes(ctx, backend, kn_opcode_describe(n->op).text, n, impl, vals);
}

void kn_log_nodes(kn_context *ctx, const char *backend, const char *op, const kn_node *n, const char *impl,
                  kn_tensor *const *vals) {
  char out[KN_TYPE_TEXT + 64], where[256];
  if (ctx->profile) {
    kn_profile_node(ctx->profile, backend, n, impl, vals);
    return;
  }
  output_text(n, vals, out, sizeof out);
  kn_where_brief(n->where, where, sizeof where);
  if (where[0])
    kn_log(ctx, "exec %-8s %-14s %-24s %-32s %s", backend, op, impl, out, where);
  else
    kn_log(ctx, "exec %-8s %-14s %-24s %s", backend, op, impl, out);
}

void kn_log_group(kn_context *ctx, const char *backend, const kn_node *const *nodes, uint32_t n,
                  const char *impl, kn_tensor *const *vals) {
  if (ctx->profile) kn_profile_group(ctx->profile, nodes, n);
  for (uint32_t i = 0; i < n; i++) kn_log_node(ctx, backend, nodes[i], impl, vals);
}

void kn_log_piece(kn_context *ctx, const kn_node *n) {
  if (ctx->profile) kn_profile_piece(ctx->profile, n);
}

/* A stripped function's errors have no place, as in Lua, which begins those of its own operators with "?:-1".
 * Those of the engine get the place of whoever called, from the binding; a raise without any place is
 * complete. */
kn_status kn_node_failed(kn_context *ctx, const kn_node *n, kn_status st) {
  for (const kn_where *c = n->where; c && kn_where_composite(c); c = c->at) {
    size_t length = strlen(c->chunk) - 7;
    if (length == strlen(KN_UNNAMED) && !strncmp(c->chunk + 5, KN_UNNAMED, length))
      kn_error_unname(ctx, kn_opcode_describe(n->op).text);
    else
      kn_error_prefix(ctx, "%.*s", (int)length, c->chunk + 5);
  }
  const kn_where *w = kn_where_user(n->where);
  if (!w) ctx->error_placed = st == KN_RAISED;
  if (!w) return st;
  bool stripped = w->line <= 0 && !strcmp(w->chunk, "?");
  bool engine = kn_opcode_is_op(n->op) || n->op == KN_NODE_item || n->op == KN_NODE_raise;
  if (w->line > 0)
    kn_error_prefix(ctx, "%s:%d", w->chunk, w->line + KN_MUTANT(line_off_by_one));
  else if (!stripped)
    kn_error_prefix(ctx, "%s:?", w->chunk);
  else if (!engine)
    kn_error_prefix(ctx, "?:-1");
  ctx->error_placed = !stripped || !engine; /* when not, the binding says who called */
  return st;
}

const kn_slot *kn_constant_of(const kn_value *v, int64_t strides[KN_MAX_RANK]) {
  enum { MOST_TURNS = 4 };
  const kn_node *turns[MOST_TURNS], *d = v->def;
  int n = 0;
  while (d && d->op == KN_OP_transpose && d->nin == d->ntensor && n < MOST_TURNS) {
    turns[n++] = d;
    d = d->in[0]->def;
  }
  if (!d || d->op != KN_NODE_tensor || d->slot->kind != KN_SLOT_CONST) return NULL;
  const kn_tensor *t = d->slot->tensor;
  if (!t || !t->storage) return NULL;
  memcpy(strides, t->strides, sizeof t->strides);
  while (n-- > 0) {
    const kn_attrs_swap *a = turns[n]->attrs;
    int rank = t->type.rank;
    int64_t d0 = a->dim0 < 0 ? a->dim0 + rank : a->dim0, d1 = a->dim1 < 0 ? a->dim1 + rank : a->dim1;
    int64_t was = strides[d0];
    strides[d0] = strides[d1];
    strides[d1] = was;
  }
  return d->slot;
}
