/* Running a piece of a plan as one launch: what the host does around it, tensors and numbers in and out,
 * faults. */
#include "graph/run.h"
#include "graph/scalar.h"
#include "graph/text.h"
#include "graph/whole.h"
#include <string.h>

/* ---- what it is made of ---- */

static bool lies_as_made(const kn_whole_input *in, const kn_tensor *t) {
  bool same = kn_tensor_data(t) == in->data;
  for (int d = 0; same && d < t->type.rank; d++) same = t->strides[d] == in->strides[d];
  return same;
}

/* Has no path of this run defined what comes from outside? Who reads it is not reached then, but no launch
 * can be told so. */
static bool misses(const run *r, const kn_whole *w) {
  for (uint32_t i = 0; w->made && i < w->ninputs; i++)
    if (!r->p->vals[w->inputs[i].value]) return true;
  return false;
}

/* Is it still good for this run? What has moved is copied from now on. */
static bool is_good(const run *r, kn_whole *w) {
  bool good = w->made && w->base == r->p->base[w->target->device];
  for (uint32_t i = 0; w->made && i < w->ninputs; i++) {
    const kn_whole_input *in = &w->inputs[i];
    if (in->home || lies_as_made(in, r->p->vals[in->value])) continue;
    w->moves[in->value] = true;
    good = false;
  }
  return good;
}

static kn_status refuse(run *r, kn_whole *w) {
  const char *why = kn_error(r->ctx);
  char where[256];
  w->refused = kn_alloc(r->ctx->heap, strlen(why) + 1);
  if (!w->refused) {
    const size_t bytes = strlen(why) + 1;
    kn_whole_unmake(r->ctx, w); /* there is no launch */
    return kn_fail_nomem(r->ctx, bytes);
  }
  strcpy(w->refused, why);
  if (kn_debugging(r->ctx, KN_DEBUG_EXEC) || kn_debugging(r->ctx, KN_DEBUG_DISPATCH))
    kn_log(r->ctx, "whole: a piece runs step by step: %s %s", why,
           kn_where_brief(w->steps[0].node->where, where, 256));
  kn_whole_unmake(r->ctx, w);
  return KN_OK;
}

/* The graph's node of one of a plan's parts. */
static const kn_node *source_of(const kn_plan *p, const kn_node *n) {
  for (uint32_t i = 0; i < p->nparts; i++)
    for (uint32_t k = 0; k < p->parts[i].n; k++)
      if (p->parts[i].nodes[k] == n) return p->parts[i].sources[k];
  return NULL;
}

/* The next run has a plan that is cut there. Without memory it is as it was. */
static void cut_at(run *r, const kn_node *culprit) {
  kn_refused *x = &r->s->refused;
  const size_t bytes = x->n * sizeof *x->nodes;
  const kn_node *source = culprit ? source_of(r->p, culprit) : NULL;
  const kn_node **more = source ? kn_realloc(r->ctx->heap, x->nodes, bytes, bytes + sizeof *x->nodes) : NULL;
  if (!more) return;
  x->nodes = more;
  x->nodes[x->n++] = source;
  r->p->stale = true;
}

static kn_status make(run *r, kn_whole *w) {
  const kn_node *culprit = NULL;
  kn_status st = kn_whole_lower(r->ctx, r->p, w);
  w->base = r->p->base[w->target->device];
  if (st == KN_OK) st = w->target->launcher->make(w->target->self, r->ctx, r->p, w, &w->launch, &culprit);
  if (st == KN_UNSUPPORTED || st == KN_DECLINED) {
    cut_at(r, culprit);
    return refuse(r, w);
  }
  if (st != KN_OK) kn_whole_unmake(r->ctx, w);
  return st;
}

/* ---- in and out ---- */

static bool same_number(const kn_scalar *a, const kn_scalar *b) {
  return a->kind == b->kind &&
         !memcmp(&a->as, &b->as, a->kind == KN_SCALAR_BOOL ? sizeof a->as.b : sizeof a->as);
}

/* From another device come numbers only; what else is handed on there nobody reads. */
static kn_status bring(run *r, kn_tensor *home, kn_tensor *t) {
  const kn_memory *m;
  if (home->type.device == t->type.device) return kn_run_copy_into(r, home, t);
  if (t->type.rank) return KN_OK;
  KN_TRY(kn_device_memory(r->ctx, (kn_device_id)home->type.device, &m));
  return m->copy(m->self, r->ctx, kn_tensor_data(home), kn_tensor_data(t), kn_dtype_size(kn_tensor_dtype(t)),
                 KN_TO_DEVICE);
}

static kn_status give_inputs(run *r, kn_whole *w) {
  if (w->random) { /* the device has moved its own on */
    memcpy(&w->cells[w->random], &r->ctx->random, sizeof r->ctx->random);
    w->fresh = true;
  }
  for (uint32_t i = 0; i < w->nuploads; i++) {
    kn_scalar *cell = &w->cells[w->uploads[i].cell];
    const kn_scalar *now = &r->p->scalars[w->uploads[i].value];
    if (same_number(cell, now)) continue;
    *cell = *now;
    w->fresh = true;
  }
  for (uint32_t i = 0; i < w->ninputs; i++)
    if (w->inputs[i].home) KN_TRY(bring(r, w->inputs[i].home, r->p->vals[w->inputs[i].value]));
  return KN_OK;
}

static void exchange(kn_tensor **a, kn_tensor **b) {
  kn_tensor *t = *a;
  *a = *b;
  *b = t;
}

/* The text of a node shows what there was when it was at fault. */
static kn_status raise(run *r, kn_whole *w, const kn_node *n) {
  kn_plan *p = r->p;
  for (uint32_t i = 0; i < w->nkept; i++) {
    kn_whole_kept *k = &w->kept[i];
    if (k->node != n) continue;
    if (k->tensor)
      exchange(&p->vals[k->value], &k->tensor);
    else
      p->scalars[k->value] = w->cells[k->cell];
  }
  kn_status st = kn_run_raise(r, n);
  for (uint32_t i = w->nkept; i-- > 0;)
    if (w->kept[i].node == n && w->kept[i].tensor) exchange(&p->vals[w->kept[i].value], &w->kept[i].tensor);
  return st;
}

/* A place that there is not, as the op's rule says it. */
static kn_status misplaced(run *r, const kn_node *n, const kn_scalar *at) {
  kn_attrs_any room;
  const void *attrs;
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  r->p->scalars[n->in[n->ntensor]->id] = *at;
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = r->p->types[n->in[i]->id];
  KN_TRY(kn_node_attrs_now(r->ctx, n, r->p->scalars, &room, &attrs));
  return kn_infer_types(r->ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, out);
}

static const kn_node *a_loop(const kn_whole *w) {
  for (uint32_t b = 0; b < w->nblocks; b++)
    for (uint32_t i = 0; i < w->blocks[b].n; i++)
      if (w->blocks[b].steps[i].kind == KN_WHOLE_LOOP) return w->blocks[b].steps[i].node;
  return NULL;
}

/* The sentence that the node would have failed with. `trips`: those of one loop were limited. */
static kn_status tell_fault(run *r, kn_whole *w, bool trips) {
  if (w->cells[KN_CELL_FAULT].as.i < 0) { /* a loop that might have gone on */
    w->fresh = true;
    w->cells[KN_CELL_FAULT].as.i = 0;
    return trips ? kn_run_too_many_trips(r, a_loop(w)) : kn_run_stop(r, KN_LIMIT, a_loop(w));
  }
  const kn_whole_number *x = &w->numbers[w->cells[KN_CELL_FAULT].as.i - 1];
  const kn_scalar *in = &w->cells[KN_CELL_OPERAND];
  kn_scalar none;
  w->fresh = true; /* with no fault */
  w->cells[KN_CELL_FAULT].as.i = 0;
  kn_status st = KN_OK;
  switch (x->kind) {
  case KN_NUMBER_CHECK:
  case KN_NUMBER_FAIL: return x->fail ? kn_run_fail(r, x->fail) : raise(r, w, x->node);
  case KN_NUMBER_POSITION: st = misplaced(r, x->node, in); break;
  case KN_NUMBER_ELEMENT: st = kn_run_no_element(r, in[0].as.i, in[1].as.i); break;
  case KN_NUMBER_WRITE: st = kn_scalar_check(r->ctx, in, kn_tensor_dtype(x->tensor)); break;
  default: st = kn_scalar_eval(r->ctx, x->op, in, x->nin, &none); break;
  }
  if (st == KN_OK) st = kn_fail(r->ctx, KN_INTERNAL, "the device found a fault that there is none of");
  return kn_node_failed(r->ctx, x->node, st);
}

static void take_outputs(run *r, kn_whole *w) {
  kn_plan *p = r->p;
  for (uint32_t i = 0; i < w->nexports; i++) p->scalars[w->exports[i]] = w->cells[KN_CELL_EXPORTS + i];
  for (uint32_t i = 0; i < w->nlents; i++) {
    const kn_whole_lent *l = &w->lents[i];
    kn_run_let_go(p, l->to);
    p->vals[l->to] = l->view ? l->view : p->vals[l->from];
  }
}

/* What the host, or the clock, says while it waits for a loop. */
static kn_status ask(void *ud) {
  kn_session *s = ud;
  if (kn_run_is_late(s)) return KN_LIMIT;
  return s->poll ? s->poll(s->poll_ud, s->told) : KN_OK;
}

/* Who may want a loop to end stays with it. A trip is a step, as everywhere. *trips: those of its only loop
 * may be fewer than the steps that are left. */
static bool watches(const run *r, const kn_whole *w, kn_watch *watch, bool *trips) {
  const kn_session *s = r->s;
  *watch = (kn_watch){.ask = s->poll || s->due > 0 ? ask : NULL, .ud = r->s};
  if (s->limit) watch->budget = s->limit > s->steps ? s->limit - s->steps : 1;
  *trips = s->trip_limit && (!s->limit || s->trip_limit < watch->budget);
  if (*trips) watch->budget = s->trip_limit;
  return w->loops && ((s->poll && !s->unwatched) || s->due > 0 || watch->budget);
}

/* A launch counts the trips of all its loops together. */
static bool counts_wrongly(const run *r, const kn_whole *w) { return r->s->trip_limit && w->loops > 1; }

static kn_status launch(run *r, kn_whole *w) {
  kn_watch watch;
  bool trips;
  const bool watched = watches(r, w, &watch, &trips);
  const bool wait = w->faults || w->nexports || w->draws || (watched && watch.budget);
  KN_TRY(give_inputs(r, w));
  kn_status st = w->target->launcher->run(w->target->self, r->ctx, w->launch, w, w->fresh, wait,
                                          watched ? &watch : NULL);
  w->fresh = st != KN_OK || watch.said != KN_OK;
  r->s->steps += watch.trips;
  if (w->fresh) { /* of its parts, say: what its numbers found follows from that */
    w->cells[KN_CELL_FAULT].as.i = 0;
    return watch.said != KN_OK ? kn_run_stop(r, watch.said, a_loop(w)) : st;
  }
  if (kn_debugging(r->ctx, KN_DEBUG_EXEC))
    kn_log(r->ctx, "exec %-8s one launch of %u steps, %u graph%s so far%s", w->target->name, w->n, w->makes,
           w->makes == 1 ? "" : "s", wait ? ", waits" : "");
  if (w->draws) memcpy(&r->ctx->random, &w->cells[w->random], sizeof r->ctx->random);
  if (wait && w->cells[KN_CELL_FAULT].as.i) return tell_fault(r, w, trips);
  take_outputs(r, w);
  return KN_OK;
}

static kn_status run_at(run *r, const kn_whole *w, kn_whole_time time) {
  for (uint32_t i = 0; i < w->n; i++)
    if (w->time[i] == time) KN_TRY(kn_run_step(r, &w->steps[i]));
  return KN_OK;
}

static kn_status run_steps(run *r, const kn_whole *w) {
  for (uint32_t i = 0; i < w->n; i++) KN_TRY(kn_run_step(r, &w->steps[i]));
  return KN_OK;
}

kn_status kn_run_whole(run *r, kn_whole *w) {
  if (w->refused) return run_steps(r, w);
  KN_TRY(kn_run_tick(r, w->steps[0].node));
  KN_TRY(run_at(r, w, KN_WHOLE_BEFORE));
  if (misses(r, w)) return run_steps(r, w);
  if (!is_good(r, w)) KN_TRY(make(r, w));
  if (w->refused || counts_wrongly(r, w)) return run_steps(r, w);
  KN_TRY(launch(r, w));
  return run_at(r, w, KN_WHOLE_AFTER);
}

static size_t bytes_of(const kn_tensor *t) {
  size_t n;
  return t && kn_type_bytes(&t->type, &n) ? n : 0;
}

size_t kn_whole_bytes(const kn_whole *w) {
  size_t sum = 0;
  for (uint32_t i = 0; i < w->ninputs; i++) sum += bytes_of(w->inputs[i].home);
  for (uint32_t i = 0; i < w->nlists; i++) sum += bytes_of(w->lists[i].all) + bytes_of(w->lists[i].one);
  for (uint32_t i = 0; i < w->nkept; i++) sum += bytes_of(w->kept[i].tensor);
  return sum;
}
