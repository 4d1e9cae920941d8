/* What nodes that are no ops do when a plan runs: numbers, texts, errors, calls of the host, lists. See
 * run.h.
 */
#include "graph/attempt.h"
#include "graph/mutant.h"
#include "graph/format.h"
#include "graph/host.h"
#include "graph/scalar.h"
#include "graph/internal.h"
#include "graph/run.h"
#include <inttypes.h>
#include <stdio.h>

/* ---- nodes that are no ops ---- */

static kn_status to_tensor(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  uint32_t v = n->out[0]->id;
  KN_TRY(kn_scalar_check(r->ctx, &p->scalars[n->in[0]->id], (kn_dtype)p->types[v].dtype));
  if (p->place[v] != KN_PLACE_ARENA) {
    kn_tensor *t;
    KN_TRY(kn_tensor_new(r->ctx, &p->types[v], &t));
    kn_run_own(p, v, t);
  }
  return kn_run_put_number(r, &p->scalars[n->in[0]->id], p->vals[v]);
}

static kn_status scalar(run *r, const kn_node *n) {
  kn_scalar in[3];
  if (n->nin > 3) return kn_fail(r->ctx, KN_INTERNAL, "%s: too many inputs", kn_opcode_describe(n->op).text);
  for (uint32_t i = 0; i < n->nin; i++) in[i] = r->p->scalars[n->in[i]->id];
  return kn_scalar_eval(r->ctx, n->op, in, n->nin, &r->p->scalars[n->out[0]->id]);
}

/* A text with its values, to the program's output. */
static kn_status say(run *r, const kn_node *n) {
  static const kn_out kinds[] = {KN_OUT_PRINT, KN_OUT_WRITE, KN_OUT_ERROR, KN_OUT_WARN};
  kn_writer w = {.heap = r->ctx->heap};
  kn_status st = kn_format_node(r->ctx, n, r->p->vals, r->p->scalars, &r->s->caught, &w);
  if (st == KN_OK) kn_print(r->ctx, kinds[n->op - KN_NODE_print], w.p ? w.p : "", w.n);
  kn_writer_free(&w);
  return st;
}

kn_status kn_run_raise(run *r, const kn_node *n) {
  kn_writer w = {.heap = r->ctx->heap};
  kn_status st = KN_OK;
  if (kn_format_used(n))
    st = kn_format_node(r->ctx, n, r->p->vals, r->p->scalars, &r->s->caught, &w);
  else
    kn_puts(&w, n->text);
  if (st == KN_OK) st = kn_fail(r->ctx, KN_RAISED, "%.*s", (int)w.n, w.p ? w.p : "");
  kn_writer_free(&w);
  if (n->op == KN_NODE_raise) return kn_node_failed(r->ctx, n, st);
  r->ctx->error_placed = true; /* assert's text stands alone, as in Lua */
  return st;
}

static kn_status choose(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  const kn_value *out = n->out[0], *in = n->in[p->scalars[n->in[0]->id].as.b ? 1 : 2];
  if (p->place[out->id] == KN_PLACE_ARENA)
    return p->vals[in->id] ? kn_run_copy_into(r, p->header[out->id], p->vals[in->id]) : KN_OK;
  kn_run_bind_value(p, out, in);
  return KN_OK;
}

static kn_status append(run *r, const kn_node *n);
static kn_status element(run *r, const kn_node *n);
static kn_status part_of_list(run *r, const kn_node *n);
static kn_status add_lists(run *r, const kn_node *n);
static kn_status host_call(run *r, const kn_node *n);
static kn_status stack(run *r, const kn_node *n);

static kn_status eval_node(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  kn_tensor *t = n->nin && n->in[0]->type.kind == KN_V_TENSOR ? p->vals[n->in[0]->id] : NULL;
  switch ((int)n->op) {
  case KN_NODE_load_state: return kn_run_load(r, n);
  case KN_NODE_store_state: return kn_run_store(r, n);
  case KN_NODE_update: return kn_run_update(r, n);
  case KN_NODE_size:
    p->scalars[n->out[0]->id] = (kn_scalar){KN_SCALAR_INT, {.i = t->type.dims[*(const int64_t *)n->attrs]}};
    return KN_OK;
  case KN_NODE_item: return kn_item(r->ctx, t, &p->scalars[n->out[0]->id]);
  case KN_NODE_to_tensor: return to_tensor(r, n);
  case KN_NODE_attempt: p->scalars[n->out[0]->id] = (kn_scalar){KN_SCALAR_BOOL, {.b = true}}; return KN_OK;
  case KN_NODE_caught:
    p->scalars[n->out[0]->id] = (kn_scalar){KN_SCALAR_INT, {.i = r->s->caught.last}};
    return KN_OK;
  case KN_NODE_print:
  case KN_NODE_write:
  case KN_NODE_write_error:
  case KN_NODE_warn: return say(r, n);
  case KN_NODE_select: return choose(r, n);
  case KN_NODE_same:
    p->scalars[n->out[0]->id] =
        (kn_scalar){KN_SCALAR_BOOL, {.b = t == p->vals[n->in[1]->id] && !KN_MUTANT(same_tensor_never)}};
    return KN_OK;
  case KN_NODE_host_call: return host_call(r, n);
  case KN_NODE_with_history:
  case KN_NODE_detach: kn_run_bind(p, n->out[0]->id, t); return KN_OK;
  case KN_NODE_defined:
    p->scalars[n->out[0]->id] = (kn_scalar){KN_SCALAR_BOOL, {.b = t != NULL}};
    return KN_OK;
  case KN_NODE_list_append: return append(r, n);
  case KN_NODE_list_get: return element(r, n);
  case KN_NODE_list_stack: return stack(r, n);
  case KN_NODE_list_first:
  case KN_NODE_list_thin: return part_of_list(r, n);
  case KN_NODE_list_sum:
  case KN_NODE_list_with: return add_lists(r, n);
  case KN_NODE_list_bytes:
    p->scalars[n->out[0]->id] =
        (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)kn_list_bytes(p->lists[n->in[0]->id])}};
    return KN_OK;
  case KN_NODE_list_length:
    p->scalars[n->out[0]->id] = (kn_scalar){KN_SCALAR_INT, {.i = kn_list_length(p->lists[n->in[0]->id])}};
    return KN_OK;
  default: return scalar(r, n);
  }
}

/* ---- host slots ---- */

static kn_status kept(run *r, uint32_t v, kn_tensor **out);

/* The host may keep what it is given: it gets tensors of their own, not the arena's. */
static kn_status host_call(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  kn_rvalue in[KN_HOST_VALUES] = {{0}}, out[KN_HOST_VALUES] = {{0}};
  kn_status st = KN_OK;
  uint32_t have = 0;
  for (; have < n->nin && st == KN_OK; have += st == KN_OK) {
    uint32_t v = n->in[have]->id;
    in[have] = (kn_rvalue){.scalar = p->scalars[v]};
    if (n->in[have]->type.kind == KN_V_TENSOR) st = kept(r, v, &in[have].tensor);
  }
  if (st == KN_OK) st = kn_host_run(r->s, n, in, out);
  for (uint32_t i = 0; i < have; i++) kn_tensor_release(in[i].tensor);
  for (uint32_t i = 0; i < n->nout && st == KN_OK; i++) {
    if (n->out[i]->type.kind == KN_V_TENSOR)
      kn_run_own(p, n->out[i]->id, out[i].tensor);
    else
      p->scalars[n->out[i]->id] = out[i].scalar;
  }
  return st;
}

/* ---- lists ---- */

/* A tensor for good: as it is when this run made it and nobody else has it, else a copy. The plan's own
 * headers are for the next run, inputs and slots are somebody's, whatever lends them. */
static kn_status kept(run *r, uint32_t v, kn_tensor **out) {
  kn_tensor *t = r->p->vals[v];
  bool ours = r->p->owned[v] && !kn_run_in_arena(r->p, t) && atomic_load(&t->refs) == 1 &&
              atomic_load(&t->storage->refs) == 1;
  if (!ours) return kn_run_clone(r, t, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

static kn_status append(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  const kn_value *v = n->in[1];
  kn_element e = {.scalar = p->scalars[v->id]};
  kn_list *made;
  if (v->type.kind == KN_V_TENSOR && p->vals[v->id]) KN_TRY(kept(r, v->id, &e.tensor));
  if (kn_is_list(v->type.kind)) e.list = kn_run_shared_list(p->lists[v->id]);
  KN_TRY(kn_list_append(r->ctx, p->lists[n->in[0]->id], n->out[0]->type.kind, e, &made));
  kn_run_own_list(p, n->out[0]->id, made);
  return KN_OK;
}

kn_status kn_run_no_element(run *r, int64_t at, int64_t length) {
  return kn_fail(r->ctx, KN_INDEX, "element %" PRId64 " of a list of %" PRId64 " does not exist", at, length);
}

static kn_status element(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  const kn_list *l = p->lists[n->in[0]->id];
  const kn_value *out = n->out[0];
  int64_t at = p->scalars[n->in[1]->id].as.i;
  if (at < 1 || at > kn_list_length(l)) return kn_run_no_element(r, at, kn_list_length(l));
  const kn_element *e = kn_list_at(l, (uint32_t)(at - 1));
  if (out->type.kind == KN_V_TENSOR && kn_plan_is_fixed(p, out->id))
    return kn_run_copy_into(r, p->header[out->id], e->tensor);
  if (out->type.kind == KN_V_TENSOR)
    kn_run_bind(p, out->id, e->tensor);
  else if (kn_is_list(out->type.kind))
    kn_run_own_list(p, out->id, kn_run_shared_list(e->list));
  else
    p->scalars[out->id] = e->scalar;
  return KN_OK;
}

static kn_status part_of_list(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  kn_list *l = p->lists[n->in[0]->id], *made;
  bool first = n->op == KN_NODE_list_first;
  int64_t all = kn_list_length(l), count = first ? p->scalars[n->in[1]->id].as.i : all;
  if (count < 0 || count > all)
    return kn_fail(r->ctx, KN_INDEX, "the first %" PRId64 " of a list of %" PRId64 " do not exist", count,
                   all);
  KN_TRY(kn_list_part(r->ctx, l, (uint32_t)count, first ? 1 : 2, &made));
  kn_run_own_list(p, n->out[0]->id, made);
  return KN_OK;
}

static kn_status add_lists(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  kn_list *l = p->lists[n->in[0]->id], *made;
  kn_vkind kind = n->out[0]->type.kind;
  if (n->op == KN_NODE_list_sum)
    KN_TRY(kn_list_sum(r->ctx, l, p->lists[n->in[1]->id], kind, &made));
  else {
    kn_tensor *v;
    KN_TRY(kept(r, n->in[3]->id, &v));
    kn_status st =
        kn_list_with(r->ctx, l, kind, p->scalars[n->in[1]->id].as.i, p->scalars[n->in[2]->id].as.i, v, &made);
    kn_tensor_release(v);
    KN_TRY(st);
  }
  kn_run_own_list(p, n->out[0]->id, made);
  return KN_OK;
}

static kn_status stack(run *r, const kn_node *n) {
  kn_tensor *made;
  KN_TRY(kn_list_stack(r->ctx, r->p->lists[n->in[0]->id], &made));
  kn_run_own(r->p, n->out[0]->id, made);
  return KN_OK;
}

static void log_number(run *r, const kn_node *n) {
  char impl[40] = "";
  const kn_scalar *s = n->nout ? &r->p->scalars[n->out[0]->id] : NULL;
  if (s && kn_is_scalar(n->out[0]->type.kind)) {
    if (s->kind == KN_SCALAR_BOOL)
      snprintf(impl, sizeof impl, "= %s", s->as.b ? "true" : "false");
    else if (s->kind == KN_SCALAR_INT)
      snprintf(impl, sizeof impl, "= %" PRId64, s->as.i);
    else
      snprintf(impl, sizeof impl, "= %.14g", s->as.f);
  }
  kn_log_node(r->ctx, "graph", n, impl, r->p->vals);
}

/* Kinds that pass an undefined tensor on, or ask about it. */
static bool takes_undefined(const kn_node *n) {
  return n->op == KN_NODE_select || n->op == KN_NODE_defined || n->op == KN_NODE_detach ||
         n->op == KN_NODE_with_history || n->op == KN_NODE_list_append;
}

kn_status kn_run_node(run *r, const kn_node *n) {
  if (n->op == KN_NODE_item && r->quiet) { /* as loops ask at each trip */
    const kn_tensor *t = r->p->vals[n->in[0]->id];
    if (t && kn_plan_is_fixed(r->p, n->in[0]->id) && !t->type.rank && t->type.device == KN_CPU)
      return r->p->scalars[n->out[0]->id] = kn_scalar_read(t), KN_OK;
  }
  if (n->op == KN_NODE_assert && r->p->scalars[n->in[0]->id].as.b) return KN_OK;
  for (uint32_t i = 0; !takes_undefined(n) && i < n->nin; i++)
    if (n->in[i]->type.kind == KN_V_TENSOR && !r->p->vals[n->in[i]->id]) return kn_run_no_value(r, n);
  if (n->op == KN_NODE_raise || n->op == KN_NODE_assert) return kn_run_raise(r, n);
  kn_status st = eval_node(r, n);
  if (st != KN_OK && n->op == KN_NODE_host_call && r->ctx->error_placed) return st; /* the host's own words */
  if (st != KN_OK) return kn_node_failed(r->ctx, n, st);
  if (kn_run_logs(r)) log_number(r, n);
  kn_run_watch(r, n);
  return KN_OK;
}
