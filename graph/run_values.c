/* The values of a run: who owns a tensor or list, what stands outside the plan's steps, slots that are read
 * and staged. See run.h. */
#include "graph/attempt.h"
#include "graph/mutant.h"
#include "graph/format.h"
#include "graph/host.h"
#include "graph/scalar.h"
#include "graph/internal.h"
#include "graph/profile.h"
#include "graph/cost.h"
#include "graph/run.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- holding values ---- */

void kn_run_own_list(kn_plan *p, uint32_t v, kn_list *l) {
  kn_list_release(p->lists[v]);
  p->lists[v] = l;
}

kn_list *kn_run_shared_list(kn_list *l) { return l ? kn_list_retain(l) : NULL; }

bool kn_is_forgotten(const kn_tensor *t) {
  const kn_storage *s = t->storage;
  return t->whole && s && s->inside && !s->release && !s->inference && !t->grad && !t->base && !t->offset &&
         atomic_load(&t->refs) == 1 && atomic_load(&s->refs) == 1 && kn_tensor_contiguous(t);
}

/* The spares are everybody's. */
static void take_spares(kn_plan *p) {
  while (p->beside && atomic_flag_test_and_set_explicit(&p->loose_taken, memory_order_acquire)) continue;
}

static void leave_spares(kn_plan *p) {
  if (p->beside) atomic_flag_clear_explicit(&p->loose_taken, memory_order_release);
}

/* Gives it up; keeps it for the next of its type where the plan makes such. */
static void put_away(kn_plan *p, kn_tensor *t) {
  for (uint32_t i = 0; t && i < p->nloose; i++) {
    kn_loose *l = &p->loose[i];
    if (!kn_type_equal(&l->type, &t->type)) continue;
    if (!kn_is_forgotten(t)) break;
    take_spares(p);
    bool kept = l->n < KN_LOOSE_SPARES;
    if (kept) l->spare[l->n++] = t;
    leave_spares(p);
    if (kept) return;
    break;
  }
  kn_tensor_release(t);
}

static kn_status take_out(run *r, const kn_type *type, kn_tensor **out) {
  for (uint32_t i = 0; i < r->p->nloose; i++) {
    kn_loose *l = &r->p->loose[i];
    if (!kn_type_equal(&l->type, type)) continue;
    take_spares(r->p);
    kn_tensor *t = l->n ? l->spare[--l->n] : NULL;
    leave_spares(r->p);
    if (t) return *out = t, KN_OK;
  }
  return kn_tensor_new(r->ctx, type, out);
}

void kn_run_drop(kn_plan *p, uint32_t v) {
  if (p->lists[v]) kn_run_own_list(p, v, NULL);
  if (p->owned[v]) {
    put_away(p, p->vals[v]);
    p->vals[v] = NULL;
    p->owned[v] = false;
  } else if (p->place[v] == KN_PLACE_SHELL) {
    kn_storage_release(p->header[v]->storage);
    p->header[v]->storage = NULL;
  }
}

void kn_run_own(kn_plan *p, uint32_t v, kn_tensor *t) {
  kn_run_let_go(p, v);
  p->vals[v] = t;
  p->owned[v] = t != NULL;
}

/* Another value for the same tensor; NULL where no path defined it. */
void kn_run_bind(kn_plan *p, uint32_t v, kn_tensor *t) { kn_run_own(p, v, t ? kn_tensor_retain(t) : NULL); }

/* Takes the reference of a yield that passes it on, else one more. */
kn_tensor *kn_run_take(kn_plan *p, uint32_t yield) {
  kn_tensor *t = p->vals[yield];
  if (!p->owned[yield] || !p->passed[yield]) return t ? kn_tensor_retain(t) : NULL;
  p->owned[yield] = false;
  return t;
}

void kn_run_bind_yields(kn_plan *p, const kn_step *s, int side) {
  for (const kn_bind *b = p->binds + s->bind[side], *end = b + s->nbind[side]; b < end; b++) switch (b->how) {
    case KN_BIND_NUMBER: p->scalars[b->to] = p->scalars[b->from]; break;
    case KN_BIND_LENT: p->vals[b->to] = p->vals[b->from]; break;
    case KN_BIND_OWN: kn_run_own(p, b->to, kn_run_take(p, b->from)); break;
    case KN_BIND_COPY: break; /* kn_run_copy_yields */
    case KN_BIND_LIST: kn_run_own_list(p, b->to, kn_run_shared_list(p->lists[b->from])); break;
    }
}

kn_status kn_run_copy_yields(run *r, const kn_step *s, int side) {
  kn_plan *p = r->p;
  for (const kn_bind *b = p->binds + s->bind[side], *end = b + s->nbind[side]; b < end; b++)
    if (b->how == KN_BIND_COPY && p->vals[b->from])
      KN_TRY(kn_run_copy_into(r, p->header[b->to], p->vals[b->from]));
  return KN_OK;
}

void kn_run_bind_value(kn_plan *p, const kn_value *to, const kn_value *from) {
  if (p->place[to->id] == KN_PLACE_LENT)
    p->vals[to->id] = p->vals[from->id];
  else if (to->type.kind == KN_V_TENSOR)
    kn_run_bind(p, to->id, p->vals[from->id]);
  else if (kn_is_list(to->type.kind))
    kn_run_own_list(p, to->id, kn_run_shared_list(p->lists[from->id]));
  else if (!p->known[to->id])
    p->scalars[to->id] = p->scalars[from->id];
}

void kn_run_clean_up(kn_plan *p) {
  for (uint32_t i = 0; i < p->nheld; i++) {
    uint32_t v = p->held[i];
    kn_run_let_go(p, v);
    if (p->place[v] != KN_PLACE_SHELL) p->vals[v] = NULL;
  }
}

/* What plans keep from run to run, of what a run has made. */
void kn_run_keep_nothing(kn_plan *p) {
  kn_plan_drop_spares(p);
  for (uint32_t i = 0; i < p->nearly; i++) {
    kn_tensor *view = p->header[p->early[i].node->out[0]->id];
    if (p->early[i].storage) continue; /* a slot's */
    kn_storage_release(view->storage);
    view->storage = NULL;
  }
}

bool kn_run_in_arena(const kn_plan *p, const kn_tensor *t) {
  const char *at = t->storage->data, *base = p->base[t->storage->device];
  return at >= base && at < base + p->bytes[t->storage->device];
}

/* The elements of t in the contiguous tensor `to`, which may be t's own bytes. */
kn_status kn_run_copy_into(run *r, kn_tensor *to, kn_tensor *t) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&to->type, &t->type))
    return kn_fail(r->ctx, KN_INTERNAL, "a value planned as %s turned out as %s",
                   kn_type_text(&to->type, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  if (kn_tensor_data(to) == kn_tensor_data(t) && kn_tensor_contiguous(t)) return KN_OK;
  return kn_node_copy(r->ctx, t, to);
}

/* A 0-d tensor, which may be on a device. */
kn_status kn_run_put_number(run *r, const kn_scalar *s, kn_tensor *t) {
  const kn_memory *m;
  uint64_t bytes = 0;
  if (t->type.device == KN_CPU) return kn_scalar_write(s, t), KN_OK;
  kn_storage here = {.data = &bytes, .bytes = sizeof bytes};
  kn_tensor host = {.storage = &here, .type = {.dtype = t->type.dtype}};
  kn_scalar_write(s, &host);
  KN_TRY(kn_device_memory(r->ctx, (kn_device_id)t->type.device, &m));
  return m->copy(m->self, r->ctx, kn_tensor_data(t), &bytes, kn_dtype_size(kn_tensor_dtype(t)), KN_TO_DEVICE);
}

kn_status kn_run_clone(run *r, kn_tensor *t, kn_tensor **out) {
  kn_tensor *made;
  KN_TRY(kn_tensor_new(r->ctx, &t->type, &made));
  kn_status st = kn_run_copy_into(r, made, t);
  if (st == KN_OK)
    *out = made;
  else
    kn_tensor_release(made);
  return st;
}

/* ---- what stands outside the steps ---- */

bool kn_run_is_late(kn_session *s) {
  if (s->due <= 0 || kn_profile_clock() < s->due) return false;
  atomic_store_explicit(&s->late, true, memory_order_relaxed);
  return true;
}

kn_status kn_run_ask_host(kn_session *s) {
  if (kn_run_is_late(s)) return KN_LIMIT;
  if (!s->poll) return KN_OK;
  if (s->told < s->steps) s->told = s->steps;
  return s->poll(s->poll_ud, s->told++);
}

kn_status kn_run_stop(run *r, kn_status st, const kn_node *next) {
  const kn_session *s = r->s;
  if (st != KN_LIMIT) return kn_fail(s->ctx, st, "stopped by the host (%s)", kn_status_text(st));
  if (atomic_load_explicit(&s->late, memory_order_relaxed))
    kn_fail(r->ctx, st, "the deadline of %g seconds has passed", s->seconds);
  else
    kn_fail(r->ctx, st, "the limit of %" PRIu64 " steps was reached", s->limit);
  return next ? kn_node_failed(r->ctx, next, st) : st;
}

kn_status kn_run_no_value(run *r, const kn_node *n) {
  return kn_node_failed(r->ctx, n,
                        kn_fail(r->ctx, KN_FORMAT, "%s: an input has no value on the path that led here",
                                kn_opcode_describe(n->op).text));
}

/* ---- parts ---- */

static kn_status prepare(run *r, const kn_part_plan *part) {
  kn_plan *p = r->p;
  for (uint32_t i = 0; i < part->nwary; i++)
    if (!p->vals[part->wary[i].value]) return kn_run_no_value(r, part->wary[i].node);
  for (uint32_t i = 0; i < part->nprepare; i++) {
    const kn_value *out = part->prepare[i].value;
    const kn_prepare_how how = part->prepare[i].how;
    uint32_t v = out->id;
    kn_tensor *t = NULL;
    kn_run_let_go(p, v);
    if (how == KN_PREPARE_SHELL) {
      p->header[v]->offset = 0;
      p->vals[v] = p->header[v];
      continue;
    }
    kn_status st = how == KN_PREPARE_TAKE   ? take_out(r, &p->types[v], &t)
                   : how == KN_PREPARE_MAKE ? kn_tensor_new(r->ctx, &p->types[v], &t)
                                            : KN_OK;
    if (st != KN_OK) return kn_node_failed(r->ctx, out->def, st);
    p->vals[v] = t;
    p->owned[v] = t != NULL;
  }
  return KN_OK;
}

typedef struct sizes { /* of a part's values that have them in this run alone */
  const kn_value **values;
  kn_type *types;
  uint32_t n;
} sizes;

static const kn_type *type_now(const run *r, const sizes *z, const kn_value *v) {
  for (uint32_t i = z->n; !r->p->vals[v->id] && i-- > 0;)
    if (z->values[i] == v) return &z->types[i];
  return r->p->vals[v->id] ? &r->p->vals[v->id]->type : &r->p->types[v->id];
}

/* What the node is about to cost. One whose rule fails costs nothing: it fails when it runs. */
static kn_cost cost_ahead(run *r, sizes *z, const kn_node *n) {
  const kn_plan *p = r->p;
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  kn_attrs_any room;
  const void *attrs;
  bool open = false;
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = *type_now(r, z, n->in[i]);
  for (uint32_t i = 0; i < n->nout; i++) {
    out[i] = p->types[n->out[i]->id];
    open |= !kn_type_known(&out[i]);
  }
  if (open && (kn_node_attrs_now(r->ctx, n, p->scalars, &room, &attrs) != KN_OK ||
               kn_infer_types(r->ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, out) != KN_OK))
    return (kn_cost){0, 0};
  for (uint32_t i = 0; open && i < n->nout; i++) {
    z->values[z->n] = n->out[i];
    z->types[z->n++] = out[i];
  }
  return kn_node_cost(n, in, out);
}

/* A view may repeat an element as often as it likes, so a part can last for ever without a loop: where steps
 * are limited, much work counts for many. */
static kn_status count_work(run *r, const kn_part_plan *part) {
  enum { STEP = 1 << 24 }; /* operations and bytes */
  kn_session *s = r->s;
  uint64_t *steps = r->gang ? &r->steps : &s->steps;
  uint32_t n = 0;
  double work = 0;
  sizes z = {0};
  for (uint32_t i = 0; i < part->n; i++) {
    const kn_node *x = part->nodes[i];
    for (uint32_t k = 0; k < x->nout; k++) n += kn_type_known(&r->p->types[x->out[k]->id]) ? 0 : x->nout;
  }
  const size_t bytes = n * (sizeof *z.types + sizeof *z.values);
  if (n && !(z.types = kn_alloc(r->ctx->heap, bytes))) return kn_fail_nomem(r->ctx, bytes);
  if (n) z.values = (const kn_value **)(z.types + n);
  for (uint32_t i = 0; i < part->n; i++) {
    const kn_cost c = cost_ahead(r, &z, part->nodes[i]);
    work += c.flops + c.bytes;
  }
  if (n) kn_free(r->ctx->heap, z.types, bytes);
  work = floor(work / STEP);
  if (work > (double)s->limit - (double)*steps)
    return r->gang ? KN_LIMIT : kn_run_stop(r, KN_LIMIT, part->sources[0]);
  *steps += (uint64_t)work;
  return KN_OK;
}

kn_status kn_run_part(run *r, const kn_part_plan *part) {
  kn_plan *p = r->p;
  KN_TRY(kn_run_tick(r, part->sources[0]));
  if (r->s->limit) KN_TRY(count_work(r, part));
  KN_TRY(prepare(r, part));
  kn_status st = part->target->run(part->target->self, r->ctx, part->program, p->vals, p->scalars);
  for (uint32_t i = 0; i < part->nprepare; i++) {
    uint32_t v = part->prepare[i].value->id;
    if (part->prepare[i].how == KN_PREPARE_NONE && p->vals[v]) p->owned[v] = true;
  }
  KN_TRY(st);
  if (r->s->check) KN_TRY(kn_check_part(r->ctx, p, part));
  for (uint32_t i = 0; r->s->observe && i < part->n; i++) kn_run_watch(r, part->sources[i]);
  return KN_OK;
}

static bool lies_as_before(const kn_early *e, const kn_tensor *in) {
  bool same = e->storage && e->storage == in->storage && e->offset == in->offset;
  for (int d = 0; same && d < in->type.rank; d++) same = e->strides[d] == in->strides[d];
  return same;
}

/* Views of inputs and of slots that a run only reads; no step of the program. A reshape that had to copy is
 * no view. */
kn_status kn_run_early(run *r) {
  kn_plan *p = r->p;
  const char *impl;
  for (uint32_t i = 0; i < p->nearly; i++) {
    kn_early *e = &p->early[i];
    const kn_tensor *in = p->vals[e->node->in[0]->id];
    uint32_t v = e->node->out[0]->id;
    kn_tensor *view = p->header[v];
    if (lies_as_before(e, in)) continue;
    kn_storage_release(view->storage);
    view->storage = NULL;
    view->offset = 0;
    e->storage = NULL;
    p->vals[v] = view;
    kn_status st = kn_node_view(r->ctx, e->node, e->node->attrs, p->vals, &impl);
    if (st != KN_OK) return kn_node_failed(r->ctx, e->node, st);
    if (kn_debugging(r->ctx, KN_DEBUG_EXEC)) kn_log_node(r->ctx, "graph", e->node, impl, p->vals);
    if (!e->stays || view->storage != in->storage) continue;
    e->storage = in->storage;
    e->offset = in->offset;
    memcpy(e->strides, in->strides, sizeof e->strides);
  }
  return KN_OK;
}

/* ---- slots ---- */

static bool unshared(const kn_tensor *t) {
  return t && atomic_load(&t->refs) == 1 && atomic_load(&t->storage->refs) == 1;
}

/* What stays when the run is over is the context's own, wherever runs live. */
static kn_status new_lasting(run *r, const kn_type *type, kn_tensor **out) {
  kn_heap *runs = r->ctx->runs;
  r->ctx->runs = NULL;
  kn_status st = kn_tensor_new(r->ctx, type, out);
  r->ctx->runs = runs;
  return st;
}

/* A tensor to store into: the spare one when nobody can see it, so that a graph which stores at each run does
 * not allocate at each run. */
static kn_status give_spare(run *r, const kn_slot *slot) {
  kn_slot_state *x = &r->s->slots[slot->index];
  if (x->spare && kn_is_forgotten(x->spare)) return KN_OK;
  kn_tensor *made;
  KN_TRY(new_lasting(r, &slot->type.tensor, &made));
  kn_tensor_release(x->spare);
  x->spare = made;
  return KN_OK;
}

/* The elements of t become the slot's staged tensor's: they may be there already. */
static kn_status stage_tensor(run *r, const kn_slot *slot, kn_tensor *t) {
  kn_slot_state *x = &r->s->slots[slot->index];
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&t->type, &slot->type.tensor))
    return kn_fail(r->ctx, KN_SHAPE, KN_STORE_SENTENCE, slot->name,
                   kn_type_text(&slot->type.tensor, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  if (x->is_staged && unshared(x->staged.tensor)) return kn_run_copy_into(r, x->staged.tensor, t);
  KN_TRY(give_spare(r, slot));
  KN_TRY(kn_run_copy_into(r, x->spare, t));
  kn_tensor_release(x->staged.tensor);
  x->staged.tensor = x->spare;
  x->spare = NULL;
  x->is_staged = true;
  return KN_OK;
}

kn_status kn_run_load(run *r, const kn_node *n) {
  kn_slot_state *x = &r->s->slots[n->slot->index];
  uint32_t v = n->out[0]->id;
  if (n->slot->type.kind != KN_V_TENSOR) {
    r->p->scalars[v] = x->is_staged ? x->staged.scalar : x->value.scalar;
    return KN_OK;
  }
  if (!x->value.tensor) return kn_fail(r->ctx, KN_STATE, "slot \"%s\" has no data", n->slot->name);
  if (r->p->slot_copied[n->slot->index] && !x->is_staged) KN_TRY(stage_tensor(r, n->slot, x->value.tensor));
  kn_run_bind(r->p, v, x->is_staged ? x->staged.tensor : x->value.tensor);
  return KN_OK;
}

kn_status kn_run_store(run *r, const kn_node *n) {
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

static kn_update_state *update_of(const kn_session *s, const kn_node *n) {
  kn_update_state *u = s->updates;
  while (u->input != n->in[0]->index) u++;
  return u;
}

/* A tensor of this type for the input's new contents. */
static kn_status give_update(run *r, kn_update_state *u, const kn_type *type) {
  if (u->staged && kn_type_equal(&u->staged->type, type)) return KN_OK;
  kn_tensor *made;
  KN_TRY(new_lasting(r, type, &made));
  kn_tensor_release(u->staged);
  u->staged = made;
  return KN_OK;
}

/* The new contents of an input wait until the run has succeeded. */
kn_status kn_run_update(run *r, const kn_node *n) {
  kn_session *s = r->s;
  kn_tensor *t = r->p->vals[n->in[1]->id];
  kn_update_state *u = update_of(s, n);
  const kn_type *want = &s->in_types[u->input];
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&t->type, want))
    return kn_fail(r->ctx, KN_SHAPE, "the input to be overwritten is %s and cannot take %s",
                   kn_type_text(want, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  KN_TRY(give_update(r, u, &t->type));
  KN_TRY(kn_run_copy_into(r, u->staged, t));
  u->is_staged = true;
  if (s->tracks) {
    kn_tensor_release(u->from);
    u->from = kn_tensor_retain(t);
  }
  return KN_OK;
}

kn_status kn_run_give_stores(run *r) {
  for (uint32_t i = 0; i < r->p->nstaged; i++) {
    const kn_buffer *b = &r->p->buffers[r->p->staged[i]];
    const bool slot = b->store->op == KN_NODE_store_state;
    kn_update_state *u = slot ? NULL : update_of(r->s, b->store);
    KN_TRY(slot ? give_spare(r, b->store->slot) : give_update(r, u, &b->header->type));
    b->header->storage->data = kn_tensor_data(slot ? r->s->slots[b->store->slot->index].spare : u->staged);
  }
  return KN_OK;
}
