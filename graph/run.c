/* Running a plan: flat arrays of steps, recursion only into the regions of `if` and `loop`. Values made or
 * bound here are counted (kn_plan.owned) and let go of at their last use, or when the run ends, however it
 * ends. */
#include "graph/attempt.h"
#include "graph/mutant.h"
#include "graph/format.h"
#include "graph/host.h"
#include "graph/scalar.h"
#include "graph/session.h"
#include <inttypes.h>
#include <stdio.h>

typedef struct run {
  kn_session *s;
  kn_plan *p;
  kn_context *ctx;
} run;

static kn_status run_block(run *r, uint32_t block);

/* ---- holding values ---- */

static void own_list(kn_plan *p, uint32_t v, kn_list *l) {
  kn_list_release(p->lists[v]);
  p->lists[v] = l;
}

static kn_list *shared(kn_list *l) { return l ? kn_list_retain(l) : NULL; }

static void let_go(kn_plan *p, uint32_t v) {
  own_list(p, v, NULL);
  if (p->owned[v]) {
    kn_tensor_release(p->vals[v]);
    p->vals[v] = NULL;
    p->owned[v] = false;
  } else if (p->place[v] == KN_PLACE_SHELL) {
    kn_storage_release(p->header[v]->storage);
    p->header[v]->storage = NULL;
  }
}

static void own(kn_plan *p, uint32_t v, kn_tensor *t) {
  let_go(p, v);
  p->vals[v] = t;
  p->owned[v] = t != NULL;
}

/* Another value for the same tensor; NULL where no path defined it. */
static void bind(kn_plan *p, uint32_t v, kn_tensor *t) { own(p, v, t ? kn_tensor_retain(t) : NULL); }

static void bind_value(kn_plan *p, const kn_value *to, const kn_value *from) {
  if (to->type.kind == KN_V_TENSOR)
    bind(p, to->id, p->vals[from->id]);
  else if (kn_is_list(to->type.kind))
    own_list(p, to->id, shared(p->lists[from->id]));
  else if (!p->known[to->id])
    p->scalars[to->id] = p->scalars[from->id];
}

static void clean_up(kn_plan *p) {
  for (uint32_t v = 1; v <= p->graph->nvalues; v++) {
    let_go(p, v);
    if (p->place[v] == KN_PLACE_LOOSE || p->place[v] == KN_PLACE_FRESH) p->vals[v] = NULL;
  }
}

static bool in_arena(const kn_plan *p, const kn_tensor *t) {
  const char *at = t->storage->data;
  return at >= p->base && at < p->base + p->bytes;
}

/* The elements of t in the contiguous tensor `to`, which may be t's own bytes. */
static kn_status copy_into(run *r, kn_tensor *to, kn_tensor *t) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&to->type, &t->type))
    return kn_fail(r->ctx, KN_INTERNAL, "a value planned as %s turned out as %s",
                   kn_type_text(&to->type, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  if (kn_tensor_data(to) == kn_tensor_data(t) && kn_tensor_contiguous(t)) return KN_OK;
  return kn_ops[KN_OP_clone].kernel(r->ctx, NULL, &t, 1, &to);
}

static kn_status clone(run *r, kn_tensor *t, kn_tensor **out) {
  kn_tensor *made;
  KN_TRY(kn_tensor_new(r->ctx, &t->type, &made));
  kn_status st = copy_into(r, made, t);
  if (st == KN_OK)
    *out = made;
  else
    kn_tensor_release(made);
  return st;
}

/* ---- what stands outside the steps ---- */

/* Before each part and each trip. */
static kn_status tick(kn_session *s) {
  if (s->limit && s->steps >= s->limit)
    return kn_fail(s->ctx, KN_LIMIT, "the limit of %" PRIu64 " steps was reached", s->limit);
  kn_status st = s->poll ? s->poll(s->poll_ud, s->steps) : KN_OK;
  if (st != KN_OK) return kn_fail(s->ctx, st, "stopped by the host (%s)", kn_status_text(st));
  s->steps++;
  return KN_OK;
}

static kn_status no_value(run *r, const kn_node *n) {
  return kn_node_failed(r->ctx, n,
                        kn_fail(r->ctx, KN_INTERNAL, "%s: an input has no value on the path that led here",
                                kn_opcode_describe(n->op).text));
}

static void watch(run *r, const kn_node *n) {
  if (r->s->observe) r->s->observe(r->s->observe_ud, n, r->p->vals, r->p->scalars);
}

/* ---- parts ---- */

static kn_status prepare(run *r, const kn_part_plan *part) {
  kn_plan *p = r->p;
  for (uint32_t i = 0; i < part->nwary; i++)
    for (uint32_t k = 0; k < part->wary[i]->ntensor; k++) {
      uint32_t v = part->wary[i]->in[k]->id;
      if (p->maybe[v] && !p->vals[v]) return no_value(r, part->wary[i]);
    }
  for (uint32_t i = 0; i < part->nprepare; i++) {
    const kn_value *out = part->prepare[i];
    uint32_t v = out->id;
    let_go(p, v);
    if (p->place[v] == KN_PLACE_SHELL) {
      p->header[v]->offset = 0;
      p->vals[v] = p->header[v];
      continue;
    }
    const kn_op_info *row = &kn_ops[out->def->op];
    bool tied = row->op_class == KN_CLASS_VIEW || row->flags & (KN_FLAG_WRITES | KN_FLAG_DYNAMIC);
    kn_tensor *t = NULL;
    if (p->place[v] == KN_PLACE_FRESH || (kn_type_known(&p->types[v]) && !tied)) {
      kn_status st = kn_tensor_new(r->ctx, &p->types[v], &t);
      if (st != KN_OK) return kn_node_failed(r->ctx, out->def, st);
    }
    own(p, v, t);
  }
  return KN_OK;
}

static kn_status run_part(run *r, const kn_part_plan *part) {
  kn_plan *p = r->p;
  KN_TRY(tick(r->s));
  KN_TRY(prepare(r, part));
  kn_status st = part->target->run(part->target->self, r->ctx, part->program, p->vals, p->scalars);
  for (uint32_t i = 0; i < part->nprepare; i++) {
    uint32_t v = part->prepare[i]->id;
    if (p->place[v] == KN_PLACE_LOOSE && p->vals[v]) p->owned[v] = true;
  }
  KN_TRY(st);
  if (r->s->check)
    for (uint32_t i = 0; i < part->n; i++)
      KN_TRY(kn_check_node(r->ctx, part->target->name, part->nodes[i], p->vals, p->scalars));
  for (uint32_t i = 0; r->s->observe && i < part->n; i++) watch(r, part->sources[i]);
  return KN_OK;
}

/* ---- slots ---- */

static bool unshared(const kn_tensor *t) {
  return t && atomic_load(&t->refs) == 1 && atomic_load(&t->storage->refs) == 1;
}

/* A copy of t becomes the slot's staged tensor: over the one staged before or the spare one when nobody can
 * see them, so that a graph which stores at each run does not allocate at each run. */
static kn_status stage_tensor(run *r, const kn_slot *slot, kn_tensor *t) {
  kn_slot_state *x = &r->s->slots[slot->index];
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&t->type, &slot->type.tensor))
    return kn_fail(r->ctx, KN_SHAPE, "store_state: slot \"%s\" is %s and cannot take %s", slot->name,
                   kn_type_text(&slot->type.tensor, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  if (x->is_staged && unshared(x->staged.tensor)) return copy_into(r, x->staged.tensor, t);
  kn_tensor *to = unshared(x->spare) ? kn_tensor_retain(x->spare) : NULL;
  if (!to) KN_TRY(kn_tensor_new(r->ctx, &slot->type.tensor, &to));
  kn_status st = copy_into(r, to, t);
  if (st != KN_OK) {
    kn_tensor_release(to);
    return st;
  }
  kn_tensor_release(x->spare);
  x->spare = NULL;
  kn_tensor_release(x->staged.tensor);
  x->staged.tensor = to;
  x->is_staged = true;
  return KN_OK;
}

static kn_status load(run *r, const kn_node *n) {
  kn_slot_state *x = &r->s->slots[n->slot->index];
  uint32_t v = n->out[0]->id;
  if (n->slot->type.kind != KN_V_TENSOR) {
    r->p->scalars[v] = x->is_staged ? x->staged.scalar : x->value.scalar;
    return KN_OK;
  }
  if (!x->value.tensor) return kn_fail(r->ctx, KN_STATE, "slot \"%s\" has no data", n->slot->name);
  if (r->p->slot_copied[n->slot->index] && !x->is_staged) KN_TRY(stage_tensor(r, n->slot, x->value.tensor));
  bind(r->p, v, x->is_staged ? x->staged.tensor : x->value.tensor);
  return KN_OK;
}

static kn_status store(run *r, const kn_node *n) {
  kn_slot_state *x = &r->s->slots[n->slot->index];
  uint32_t v = n->in[0]->id;
  if (n->slot->type.kind == KN_V_TENSOR) {
    if (r->s->tracks && !r->p->slot_copied[n->slot->index]) {
      kn_tensor_release(x->from);
      x->from = kn_tensor_retain(r->p->vals[v]);
    }
    return stage_tensor(r, n->slot, r->p->vals[v]);
  }
  x->staged.scalar = r->p->scalars[v];
  x->is_staged = true;
  return KN_OK;
}

/* The new contents of an input wait until the run has succeeded. */
static kn_status update(run *r, const kn_node *n) {
  kn_session *s = r->s;
  kn_tensor *t = r->p->vals[n->in[1]->id];
  uint32_t i = n->in[0]->index;
  kn_update_state *u = s->updates;
  while (u->input != i) u++;
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&t->type, &s->in_types[i]))
    return kn_fail(r->ctx, KN_SHAPE, "the input to be overwritten is %s and cannot take %s",
                   kn_type_text(&s->in_types[i], a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  if (u->staged && !kn_type_equal(&u->staged->type, &t->type)) {
    kn_tensor_release(u->staged);
    u->staged = NULL;
  }
  if (!u->staged) KN_TRY(kn_tensor_new(r->ctx, &t->type, &u->staged));
  KN_TRY(copy_into(r, u->staged, t));
  u->is_staged = true;
  if (s->tracks) {
    kn_tensor_release(u->from);
    u->from = kn_tensor_retain(t);
  }
  return KN_OK;
}

/* ---- nodes that are no ops ---- */

static kn_status to_tensor(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  uint32_t v = n->out[0]->id;
  KN_TRY(kn_scalar_check(r->ctx, &p->scalars[n->in[0]->id], (kn_dtype)p->types[v].dtype));
  if (p->place[v] != KN_PLACE_ARENA) {
    kn_tensor *t;
    KN_TRY(kn_tensor_new(r->ctx, &p->types[v], &t));
    own(p, v, t);
  }
  kn_scalar_write(&p->scalars[n->in[0]->id], p->vals[v]);
  return KN_OK;
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

static kn_status raise(run *r, const kn_node *n) {
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
  case KN_NODE_load_state: return load(r, n);
  case KN_NODE_store_state: return store(r, n);
  case KN_NODE_update: return update(r, n);
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
  case KN_NODE_select: bind_value(p, n->out[0], n->in[p->scalars[n->in[0]->id].as.b ? 1 : 2]); return KN_OK;
  case KN_NODE_same:
    p->scalars[n->out[0]->id] =
        (kn_scalar){KN_SCALAR_BOOL, {.b = t == p->vals[n->in[1]->id] && !KN_MUTANT(same_tensor_never)}};
    return KN_OK;
  case KN_NODE_host_call: return host_call(r, n);
  case KN_NODE_with_history:
  case KN_NODE_detach: bind(p, n->out[0]->id, t); return KN_OK;
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

static kn_status kept(run *r, kn_tensor *t, kn_tensor **out);

/* The host may keep what it is given: it gets tensors of their own, not the arena's. */
static kn_status host_call(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  kn_rvalue in[KN_HOST_VALUES] = {{0}}, out[KN_HOST_VALUES] = {{0}};
  kn_status st = KN_OK;
  uint32_t have = 0;
  for (; have < n->nin && st == KN_OK; have += st == KN_OK) {
    uint32_t v = n->in[have]->id;
    in[have] = (kn_rvalue){.scalar = p->scalars[v]};
    if (n->in[have]->type.kind == KN_V_TENSOR) st = kept(r, p->vals[v], &in[have].tensor);
  }
  if (st == KN_OK) st = kn_host_run(r->s, n, in, out);
  for (uint32_t i = 0; i < have; i++) kn_tensor_release(in[i].tensor);
  for (uint32_t i = 0; i < n->nout && st == KN_OK; i++) {
    if (n->out[i]->type.kind == KN_V_TENSOR)
      own(p, n->out[i]->id, out[i].tensor);
    else
      p->scalars[n->out[i]->id] = out[i].scalar;
  }
  return st;
}

/* ---- lists ---- */

/* A tensor for good: as it is when nobody else has it, else a copy. */
static kn_status kept(run *r, kn_tensor *t, kn_tensor **out) {
  bool ours = !in_arena(r->p, t) && atomic_load(&t->refs) == 1 && atomic_load(&t->storage->refs) == 1;
  if (!ours) return clone(r, t, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

static kn_status append(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  const kn_value *v = n->in[1];
  kn_element e = {.scalar = p->scalars[v->id]};
  kn_list *made;
  if (v->type.kind == KN_V_TENSOR && p->vals[v->id]) KN_TRY(kept(r, p->vals[v->id], &e.tensor));
  if (kn_is_list(v->type.kind)) e.list = shared(p->lists[v->id]);
  KN_TRY(kn_list_append(r->ctx, p->lists[n->in[0]->id], n->out[0]->type.kind, e, &made));
  own_list(p, n->out[0]->id, made);
  return KN_OK;
}

static kn_status element(run *r, const kn_node *n) {
  kn_plan *p = r->p;
  const kn_list *l = p->lists[n->in[0]->id];
  const kn_value *out = n->out[0];
  int64_t at = p->scalars[n->in[1]->id].as.i;
  if (at < 1 || at > kn_list_length(l))
    return kn_fail(r->ctx, KN_INDEX, "element %" PRId64 " of a list of %" PRIu32 " does not exist", at,
                   kn_list_length(l));
  const kn_element *e = kn_list_at(l, (uint32_t)(at - 1));
  if (out->type.kind == KN_V_TENSOR)
    bind(p, out->id, e->tensor);
  else if (kn_is_list(out->type.kind))
    own_list(p, out->id, shared(e->list));
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
  own_list(p, n->out[0]->id, made);
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
    KN_TRY(kept(r, p->vals[n->in[3]->id], &v));
    kn_status st =
        kn_list_with(r->ctx, l, kind, p->scalars[n->in[1]->id].as.i, p->scalars[n->in[2]->id].as.i, v, &made);
    kn_tensor_release(v);
    KN_TRY(st);
  }
  own_list(p, n->out[0]->id, made);
  return KN_OK;
}

static kn_status stack(run *r, const kn_node *n) {
  kn_tensor *made;
  KN_TRY(kn_list_stack(r->ctx, r->p->lists[n->in[0]->id], &made));
  own(r->p, n->out[0]->id, made);
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

static kn_status run_node(run *r, const kn_node *n) {
  if (n->op == KN_NODE_assert && r->p->scalars[n->in[0]->id].as.b) return KN_OK;
  for (uint32_t i = 0; !takes_undefined(n) && i < n->nin; i++)
    if (n->in[i]->type.kind == KN_V_TENSOR && !r->p->vals[n->in[i]->id]) return no_value(r, n);
  if (n->op == KN_NODE_raise || n->op == KN_NODE_assert) return raise(r, n);
  kn_status st = eval_node(r, n);
  if (st != KN_OK && n->op == KN_NODE_host_call && r->ctx->error_placed) return st; /* the host's own words */
  if (st != KN_OK) return kn_node_failed(r->ctx, n, st);
  if (kn_debugging(r->ctx, KN_DEBUG_EXEC)) log_number(r, n);
  watch(r, n);
  return KN_OK;
}

/* ---- if and loop ---- */

/* Lists that a region has yielded, from the first one on: nobody reads them there any more, and what is
 * theirs alone can be appended to. */
static void forget_lists(kn_plan *p, const kn_region *r, uint32_t first) {
  for (uint32_t i = first; i < r->nyields; i++)
    if (kn_is_list(r->yields[i]->type.kind) && r->yields[i]->def && r->yields[i]->region == r)
      own_list(p, r->yields[i]->id, NULL);
}

static void bind_outputs(run *r, const kn_node *n, int side) {
  for (uint32_t i = 0; i < n->nout; i++) bind_value(r->p, n->out[i], n->regions[side]->yields[i]);
  forget_lists(r->p, n->regions[side], 0);
  if (kn_debugging(r->ctx, KN_DEBUG_EXEC))
    kn_log_node(r->ctx, "graph", n, side ? "else" : "then", r->p->vals);
  watch(r, n);
}

/* The first branch, and the second where that raises. */
static kn_status run_attempt(run *r, const kn_step *s) {
  kn_scalar *none_raised = &r->p->scalars[s->node->in[0]->id];
  kn_status st = run_block(r, s->a);
  if (st != KN_OK && !kn_can_be_caught(st)) return st;
  if (st != KN_OK) {
    KN_TRY(kn_catch(r->ctx, &r->s->caught));
    none_raised->as.b = false;
    KN_TRY(run_block(r, s->b));
  }
  bind_outputs(r, s->node, st == KN_OK ? 0 : 1);
  return KN_OK;
}

static kn_status run_if(run *r, const kn_step *s) {
  if (kn_is_attempt(s->node)) return run_attempt(r, s);
  bool yes = r->p->scalars[s->node->in[0]->id].as.b;
  KN_TRY(run_block(r, yes ? s->a : s->b));
  bind_outputs(r, s->node, yes ? 0 : 1);
  return KN_OK;
}

static kn_status enter_loop(run *r, const kn_loop_plan *l) {
  kn_plan *p = r->p;
  const kn_region *body = l->node->regions[0];
  for (uint32_t i = 0; i < body->nparams; i++) {
    const kn_value *v = body->params[i], *init = l->node->in[i];
    kn_tensor *t = p->vals[init->id];
    if (l->carry[i].how != KN_CARRY_COPY && l->carry[i].how != KN_CARRY_STAGED) {
      bind_value(p, v, init);
      continue;
    }
    p->vals[v->id] = t ? p->header[v->id] : NULL;
    if (t) KN_TRY(copy_into(r, p->header[v->id], t));
  }
  return KN_OK;
}

/* Next values that must be safe before any parameter changes. */
static kn_status gather_next(run *r, kn_carry *c, const kn_value *next) {
  kn_tensor *t = r->p->vals[next->id];
  c->next = NULL;
  c->list = kn_is_list(next->type.kind) ? shared(r->p->lists[next->id]) : NULL;
  if (c->how == KN_CARRY_NUMBER) c->number = r->p->scalars[next->id];
  if (!t || next->type.kind != KN_V_TENSOR) return KN_OK;
  switch (c->how) {
  case KN_CARRY_KEEP:
  case KN_CARRY_NUMBER: break;
  case KN_CARRY_COPY: c->next = t; break; /* borrowed */
  case KN_CARRY_STAGED:
    KN_TRY(copy_into(r, c->stage, t));
    c->next = c->stage;
    break;
  case KN_CARRY_HANDLE: c->next = kn_tensor_retain(t); break;
  case KN_CARRY_OWN: return in_arena(r->p, t) ? clone(r, t, &c->next) : kn_tensor_alias(r->ctx, t, &c->next);
  }
  return KN_OK;
}

static kn_status back_edge(run *r, const kn_loop_plan *l) {
  kn_plan *p = r->p;
  const kn_region *body = l->node->regions[0];
  kn_status st = KN_OK;
  uint32_t n = 0;
  while (n < body->nparams && st == KN_OK) st = gather_next(r, &l->carry[n], body->yields[1 + n]), n++;
  for (uint32_t i = 0; i < n; i++) {
    kn_carry *c = &l->carry[i];
    uint32_t v = body->params[i]->id;
    bool copied = c->how == KN_CARRY_COPY || c->how == KN_CARRY_STAGED;
    if (c->list || kn_is_list(body->params[i]->type.kind)) {
      if (st == KN_OK)
        own_list(p, v, c->list);
      else
        kn_list_release(c->list);
      c->list = NULL;
    } else if (st != KN_OK) {
      if (!copied) kn_tensor_release(c->next); /* KEEP and NUMBER have none */
    } else if (c->how == KN_CARRY_NUMBER)
      p->scalars[v] = c->number;
    else if (c->how == KN_CARRY_OWN || c->how == KN_CARRY_HANDLE)
      own(p, v, c->next);
    else if (copied) {
      p->vals[v] = c->next ? p->header[v] : NULL;
      if (c->next) st = copy_into(r, p->header[v], c->next);
    }
    c->next = NULL;
  }
  forget_lists(p, body, 1);
  return st;
}

static kn_status run_loop(run *r, const kn_loop_plan *l) {
  const kn_node *n = l->node;
  const kn_region *body = n->regions[0];
  KN_TRY(enter_loop(r, l));
  uint64_t trips = 0;
  for (;;) {
    KN_TRY(tick(r->s));
    KN_TRY(run_block(r, l->block));
    trips++;
    if (!r->p->scalars[body->yields[0]->id].as.b) break;
    KN_TRY(back_edge(r, l));
  }
  for (uint32_t i = 0; i < n->nout; i++) bind_value(r->p, n->out[i], body->yields[1 + body->nparams + i]);
  forget_lists(r->p, body, 1);
  for (uint32_t i = 0; i < body->nparams; i++) own_list(r->p, body->params[i]->id, NULL);
  if (kn_debugging(r->ctx, KN_DEBUG_EXEC)) {
    char impl[40];
    snprintf(impl, sizeof impl, "%" PRIu64 " trip%s", trips, trips == 1 ? "" : "s");
    kn_log_node(r->ctx, "graph", n, impl, r->p->vals);
  }
  r->s->trips = trips;
  watch(r, n);
  return KN_OK;
}

/* ---- steps ---- */

static kn_status run_step(run *r, const kn_step *s) {
  kn_plan *p = r->p;
  switch (s->kind) {
  case KN_STEP_PART: return run_part(r, &p->parts[s->a]);
  case KN_STEP_NODE: return run_node(r, s->node);
  case KN_STEP_IF: return run_if(r, s);
  case KN_STEP_LOOP: return run_loop(r, &p->loops[s->a]);
  case KN_STEP_BIND: bind_outputs(r, s->node, (int)s->a); return KN_OK;
  case KN_STEP_FAIL: break;
  }
  const kn_planned_failure *f = p->fails[s->a];
  return kn_node_failed(r->ctx, f->node, kn_fail(r->ctx, f->status, "%s", f->text));
}

static kn_status run_block(run *r, uint32_t block) {
  const kn_block *b = &r->p->blocks[block];
  for (uint32_t i = 0; i < b->n; i++) {
    const kn_step *s = &b->steps[i];
    KN_TRY(run_step(r, s));
    for (uint32_t k = 0; k < s->ndrop; k++) let_go(r->p, r->p->drops[s->drop + k]);
  }
  return KN_OK;
}

/* ---- a run ---- */

static kn_status bind_inputs(run *r, const kn_rvalue *in) {
  kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  for (uint32_t i = 0; i < body->nparams; i++) {
    uint32_t v = body->params[i]->id;
    p->vals[v] = in[i].tensor;
    if (in[i].tensor) continue;
    if (!kn_is_scalar(body->params[i]->type.kind)) {
      if (kn_is_list(body->params[i]->type.kind)) own_list(p, v, shared(in[i].list));
      continue;
    }
    p->scalars[v] = in[i].scalar;
    if (body->params[i]->type.kind == KN_V_FLOAT && in[i].scalar.kind == KN_SCALAR_INT)
      p->scalars[v] = (kn_scalar){KN_SCALAR_FLOAT, {.f = (double)in[i].scalar.as.i}};
  }
  for (uint32_t i = 0; i < p->nbound; i++) {
    const kn_slot_state *x = &r->s->slots[p->bound[i].slot->index];
    if (p->bound[i].slot->type.kind != KN_V_TENSOR)
      p->scalars[p->bound[i].value] = x->value.scalar;
    else if (x->value.tensor)
      p->vals[p->bound[i].value] = x->value.tensor;
    else
      return kn_fail(r->ctx, KN_STATE, "slot \"%s\" has no data", p->bound[i].slot->name);
  }
  return KN_OK;
}

/* May the tensor of a result be handed over as it is: made by a node of this run, and by nobody else's bytes?
 */
static bool ours_to_give(const kn_plan *p, const kn_value *v) {
  if (p->place[v->id] == KN_PLACE_FRESH) return true;
  if (!p->owned[v->id] || atomic_load(&p->vals[v->id]->refs) != 1 || !v->def || !kn_opcode_is_op(v->def->op))
    return false;
  const kn_op_info *row = &kn_ops[v->def->op];
  return row->op_class != KN_CLASS_VIEW && !(row->flags & KN_FLAG_WRITES);
}

/* Is result i a leaf below a choice? */
static bool is_optional(const kn_tree *t, uint32_t n, uint32_t i, bool below) {
  for (uint32_t k = 0; k < n; k++) {
    if (t[k].kind == KN_TREE_VALUE && t[k].i == i) return below;
    bool inside = below || t[k].kind == KN_TREE_CHOICE;
    if (kn_tree_has_items(t[k].kind) && is_optional(t[k].items, t[k].n, i, inside)) return true;
  }
  return false;
}

/* Branches and loops hand tensors on as they are; ops never do. */
static kn_origin origin_of(const run *r, const kn_rvalue *in, uint32_t i, const kn_tensor *t) {
  const kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  if (!r->s->hands_on) return (kn_origin){KN_FROM_NONE, 0};
  for (uint32_t k = 0; k < body->nparams; k++)
    if (in[k].tensor == t) return (kn_origin){KN_FROM_INPUT, k};
  for (uint32_t k = 0; k < p->graph->nslots; k++)
    if (r->s->slots[k].value.tensor == t) return (kn_origin){KN_FROM_SLOT, k};
  for (uint32_t k = 0; k < i; k++)
    if (p->vals[body->yields[k]->id] == t) return (kn_origin){KN_FROM_OUTPUT, k};
  return (kn_origin){KN_FROM_NONE, 0};
}

static kn_status give_result(run *r, const kn_rvalue *in, uint32_t i) {
  kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  const kn_value *v = body->yields[i];
  kn_rvalue *out = &r->s->out[i];
  r->s->origins[i] = (kn_origin){KN_FROM_NONE, 0};
  *out = (kn_rvalue){.list = shared(p->lists[v->id])};
  if (v->type.kind != KN_V_TENSOR) {
    out->scalar = p->scalars[v->id];
    return KN_OK;
  }
  kn_tensor *t = p->vals[v->id];
  if (!t && p->graph->partial) return KN_OK;
  if (!t) {
    out->scalar = (kn_scalar){KN_SCALAR_INT, {.i = 0}};
    if (is_optional(p->graph->results, p->graph->nresults, i, false)) return KN_OK;
    return kn_fail(r->ctx, KN_INTERNAL, "result %u of graph %s has no value", i + 1, p->graph->name);
  }
  for (uint32_t k = 0; k < i; k++) { /* a value returned twice is one tensor */
    if (body->yields[k] != v) continue;
    r->s->origins[i] = r->s->origins[k];
    return out->tensor = kn_tensor_retain(r->s->out[k].tensor), KN_OK;
  }
  kn_origin from = r->s->origins[i] = origin_of(r, in, i, t);
  if (from.from == KN_FROM_OUTPUT) return out->tensor = kn_tensor_retain(r->s->out[from.index].tensor), KN_OK;
  if (!ours_to_give(p, v)) return clone(r, t, &out->tensor);
  out->tensor = kn_tensor_retain(t);
  return KN_OK;
}

static kn_status give_results(run *r, const kn_rvalue *in) {
  uint32_t n = r->p->graph->body->nyields, made = 0;
  kn_status st = KN_OK;
  while (made < n && st == KN_OK) st = give_result(r, in, made++);
  for (uint32_t i = 0; st != KN_OK && i < made; i++) {
    kn_tensor_release(r->s->out[i].tensor);
    kn_list_release(r->s->out[i].list);
  }
  return st;
}

/* ---- what was stored ---- */

static kn_origin stored_origin(const run *r, const kn_rvalue *in, const kn_tensor *t) {
  const kn_plan *p = r->p;
  const kn_region *body = p->graph->body;
  for (uint32_t k = 0; k < r->s->nupdates; k++)
    if (r->s->updates[k].from == t) return (kn_origin){KN_FROM_INPUT, r->s->updates[k].input};
  for (uint32_t k = 0; k < body->nparams; k++)
    if (in[k].tensor == t) return (kn_origin){KN_FROM_INPUT, k};
  for (uint32_t k = 0; k < p->graph->nslots; k++)
    if (r->s->slots[k].value.tensor == t) return (kn_origin){KN_FROM_SLOT, k};
  for (uint32_t k = 0; k < body->nyields; k++)
    if (p->vals[body->yields[k]->id] == t) return (kn_origin){KN_FROM_OUTPUT, k};
  return (kn_origin){KN_FROM_NONE, 0};
}

/* While all that was stored is still held, and results are not handed over yet. */
static void find_stored(run *r, const kn_rvalue *in) {
  for (uint32_t i = 0; r->s->tracks && i < r->p->graph->nslots; i++) {
    kn_slot_state *x = &r->s->slots[i];
    x->group = 0;
    if (!x->from) continue;
    uint32_t k = 0;
    while (r->s->slots[k].from != x->from) k++;
    x->group = k + 1;
    x->origin = k < i ? r->s->slots[k].origin : stored_origin(r, in, x->from);
  }
}

static void let_stored_go(kn_session *s) {
  for (uint32_t i = 0; s->tracks && i < s->graph->nslots; i++) {
    kn_tensor_release(s->slots[i].from);
    s->slots[i].from = NULL;
  }
  for (uint32_t i = 0; s->tracks && i < s->nupdates; i++) {
    kn_tensor_release(s->updates[i].from);
    s->updates[i].from = NULL;
  }
}

kn_status kn_run_plan(kn_session *s, kn_plan *p, const kn_rvalue *in) {
  run r = {.s = s, .p = p, .ctx = s->ctx};
  kn_caught_clear(s->ctx->heap, &s->caught);
  kn_status st = bind_inputs(&r, in);
  if (st == KN_OK) st = run_block(&r, 0);
  if (st == KN_OK) find_stored(&r, in);
  let_stored_go(s);
  if (st == KN_OK) st = give_results(&r, in);
  clean_up(p);
  return st;
}
