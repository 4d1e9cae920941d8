/* Profiles: what is noted while a session runs. A row for each step of the plan, several for a part whose
 * nodes run one after the other. The clock is read where a step begins and ends and where a target tells of a
 * node; the time in between is that node's. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "graph/profile.h"
#include "core/device.h"
#include "graph/plan.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NO_EVENT = UINT32_MAX };

double kn_profile_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double kn_profile_settled(kn_context *ctx) {
  for (int d = 0; ctx && d < KN_DEVICE_COUNT; d++) /* what fails is told by who looks at results */
    if (ctx->memory[d]) (void)ctx->memory[d]->synchronize(ctx->memory[d]->self, ctx);
  return kn_profile_clock();
}

/* ---- rows ---- */

typedef struct opening {
  kn_context *ctx;
  kn_profile *p;
  const kn_plan *plan;
  uint32_t *uses; /* by value id: how often the whole graph names it */
} opening;

static void count_uses(const kn_region *r, uint32_t *uses) {
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nin; i++) uses[n->in[i]->id]++;
    for (int i = 0; i < n->nregions; i++) count_uses(n->regions[i], uses);
  }
  for (uint32_t i = 0; i < r->nyields; i++) uses[r->yields[i]->id]++;
}

static double bytes_of(const kn_type *t) {
  size_t n;
  return kn_type_bytes(t, &n) ? (double)n : 0;
}

static bool is_among(const kn_node *const *nodes, uint32_t n, const kn_node *x) {
  for (uint32_t i = 0; i < n; i++)
    if (nodes[i] == x) return true;
  return false;
}

/* What goes in and out of several nodes: of values that come from elsewhere each once, and of results those
 * that somebody else reads. */
static double group_bytes(const opening *o, const kn_profile_row *r) {
  double sum = 0;
  for (uint32_t i = 0; i < r->n; i++) {
    const kn_node *n = r->nodes[i];
    for (uint32_t k = 0; k < n->ntensor; k++) {
      bool again = n->in[k]->def && is_among(r->nodes, r->n, n->in[k]->def);
      for (uint32_t j = 0; j < i && !again; j++)
        for (uint32_t m = 0; m < r->nodes[j]->ntensor; m++) again |= r->nodes[j]->in[m] == n->in[k];
      for (uint32_t m = 0; m < k; m++) again |= n->in[m] == n->in[k];
      if (!again) sum += bytes_of(&o->plan->types[n->in[k]->id]);
    }
    for (uint32_t k = 0; k < n->nout; k++) {
      uint32_t inside = 0;
      for (uint32_t j = i + 1; j < r->n; j++)
        for (uint32_t m = 0; m < r->nodes[j]->nin; m++) inside += r->nodes[j]->in[m] == n->out[k];
      if (inside < o->uses[n->out[k]->id]) sum += bytes_of(&o->plan->types[n->out[k]->id]);
    }
  }
  return sum;
}

static void find_cost(const opening *o, kn_profile_row *r) {
  r->fixed = true;
  for (uint32_t i = 0; i < r->n; i++) {
    kn_cost c;
    if (!kn_opcode_is_op(r->nodes[i]->op)) continue;
    if (!kn_cost_by_types(r->nodes[i], o->plan->types, &c)) {
      r->fixed = false;
      return;
    }
    r->alone[i] = c;
    r->each.flops += c.flops;
    r->each.bytes += c.bytes;
  }
  if (r->n > 1) r->each.bytes = group_bytes(o, r);
}

static kn_status add_row(opening *o, const kn_node *const *nodes, uint32_t n, uint32_t depth) {
  kn_profile *p = o->p;
  kn_profile_row r = {.nodes = kn_arena_dup(&p->arena, nodes, n * sizeof *nodes), .n = n, .depth = depth};
  r.alone = kn_arena_alloc(&p->arena, n * sizeof *r.alone);
  if (!r.nodes || !r.alone) return kn_fail_nomem(o->ctx, n * sizeof *r.alone);
  find_cost(o, &r);
  kn_profile_row *grown = kn_arena_grow(&p->arena, p->rows, p->nrows, sizeof r);
  if (!grown) return kn_fail_nomem(o->ctx, (p->nrows + 1u) * sizeof r);
  p->rows = grown;
  p->rows[p->nrows++] = r;
  return KN_OK;
}

/* How many nodes go together from the i-th on: as the target has planned, or done. */
static uint32_t group_at(const opening *o, const kn_part_plan *part, uint32_t i) {
  const uint32_t *leader = o->p->leader;
  uint32_t first = part->sources[i]->out[0]->id, n = part->together[i];
  if (n > part->n - i) n = part->n - i;
  if (!n) n = 1;
  while (i + n < part->n && leader[first] == first && leader[part->sources[i + n]->out[0]->id] == first) n++;
  return n;
}

static kn_status add_part(opening *o, const kn_part_plan *part, uint32_t depth) {
  for (uint32_t i = 0, n; i < part->n; i += n) {
    n = group_at(o, part, i);
    for (uint32_t k = i; k < i + n; k++) o->p->row_of[part->sources[k]->out[0]->id] = o->p->nrows + 1;
    KN_TRY(add_row(o, part->sources + i, n, depth));
  }
  return KN_OK;
}

static kn_status add_block(opening *o, uint32_t index, uint32_t depth) {
  const kn_block *b = &o->plan->blocks[index];
  uint32_t *first = kn_arena_alloc(&o->p->arena, (b->n + 1u) * sizeof *first);
  if (!first) return kn_fail_nomem(o->ctx, (b->n + 1u) * sizeof *first);
  o->p->step_row[index] = first;
  for (uint32_t i = 0; i < b->n; i++) {
    const kn_step *s = &b->steps[i];
    first[i] = o->p->nrows;
    if (s->kind == KN_STEP_PART) {
      KN_TRY(add_part(o, &o->plan->parts[s->a], depth));
      continue;
    }
    if (s->kind == KN_STEP_STRANDS) {
      const kn_section *x = &o->plan->sections[s->a];
      for (uint32_t k = 0; k < x->n; k++) KN_TRY(add_block(o, x->strands[k].block, depth));
      continue;
    }
    KN_TRY(add_row(o, &s->node, 1, depth));
    if (s->kind == KN_STEP_LOOP) KN_TRY(add_block(o, o->plan->loops[s->a].block, depth + 1));
    if (s->kind == KN_STEP_IF) {
      KN_TRY(add_block(o, s->a, depth + 1));
      KN_TRY(add_block(o, s->b, depth + 1));
    }
  }
  first[b->n] = o->p->nrows;
  return KN_OK;
}

static bool make_arrays(kn_profile *p, const kn_plan *plan) {
  uint32_t values = p->graph->nvalues + 1u, runs = p->options.runs;
  if (p->leader) return true;
  p->leader = kn_arena_alloc(&p->arena, values * sizeof *p->leader);
  p->row_of = kn_arena_alloc(&p->arena, values * sizeof *p->row_of);
  p->step_row = kn_arena_alloc(&p->arena, plan->nblocks * sizeof *p->step_row);
  p->plain = kn_arena_alloc(&p->arena, runs * sizeof *p->plain);
  p->timed = kn_arena_alloc(&p->arena, runs * sizeof *p->timed);
  p->events = kn_arena_alloc(&p->arena, KN_PROFILE_EVENTS * sizeof *p->events);
  return p->leader && p->row_of && p->step_row && p->plain && p->timed && p->events;
}

kn_status kn_profile_open(kn_context *ctx, kn_profile *p, const kn_plan *plan) {
  opening o = {.ctx = ctx, .p = p, .plan = plan};
  uint32_t values = p->graph->nvalues + 1u, runs = p->options.runs;
  o.uses = kn_calloc(ctx->heap, values, sizeof *o.uses);
  kn_status st = o.uses && make_arrays(p, plan) ? KN_OK : kn_fail_nomem(ctx, values * sizeof *o.uses);
  p->rows = NULL;
  p->nrows = p->done = p->nevents = p->lost = 0;
  if (st == KN_OK) {
    count_uses(p->graph->body, o.uses);
    st = add_block(&o, 0, 0);
  }
  kn_free(ctx->heap, o.uses, values * sizeof *o.uses);
  KN_TRY(st);
  p->now = kn_arena_alloc(&p->arena, (p->nrows + 1u) * sizeof *p->now);
  p->samples = kn_arena_alloc(&p->arena, ((size_t)p->nrows * runs + 1u) * sizeof *p->samples);
  return p->now && p->samples ? KN_OK : kn_fail_nomem(ctx, (size_t)p->nrows * runs * sizeof *p->samples);
}

void kn_profile_free(kn_profile *p) {
  if (!p) return;
  kn_heap *heap = p->heap;
  kn_arena_free(&p->arena);
  kn_graph_release(p->graph);
  kn_free(heap, p, sizeof *p);
  kn_heap_release(heap);
}

/* ---- while it runs ---- */

/* Room for an event is taken when it begins, so that those around it come first. */
static uint32_t event_begin(kn_profile *p, kn_profile_event_kind kind, uint32_t index, double start) {
  if (p->nevents == KN_PROFILE_EVENTS) {
    p->lost++;
    return NO_EVENT;
  }
  p->events[p->nevents] =
      (kn_profile_event){.start = start - p->began, .index = index, .kind = (uint8_t)kind};
  return p->nevents++;
}

static void event_end(kn_profile *p, uint32_t e, double end) {
  if (e != NO_EVENT) p->events[e].length = end - p->began - p->events[e].start;
}

void kn_profile_begin(kn_profile *p, uint32_t block, uint32_t step, kn_profile_frame *f) {
  const uint32_t *at = &p->step_row[block][step];
  f->up = p->top;
  f->row = at[0];
  f->inside = 0;
  f->event = f->trip = NO_EVENT;
  p->top = f;
  const kn_profile_row *r = &p->rows[f->row];
  f->part = kn_opcode_is_op(r->nodes[0]->op);
  p->mark = f->start = kn_profile_settled(p->ctx);
  f->event = event_begin(p, f->part ? KN_PROFILE_PART : KN_PROFILE_ROW, f->row, f->start);
}

void kn_profile_trip(kn_profile *p) {
  kn_profile_frame *f = p->top;
  double now = kn_profile_settled(p->ctx);
  p->rows[f->row].trips++;
  event_end(p, f->trip, now);
  f->trip = event_begin(p, KN_PROFILE_TRIP, f->row, now);
}

static void add_cost(kn_profile_row *r, const kn_node *n, kn_tensor *const *vals) {
  if (r->fixed) {
    if (n != r->nodes[0] && n->out[0] != r->nodes[0]->out[0]) return; /* the first tells of all */
    r->cost.flops += r->each.flops;
    r->cost.bytes += r->each.bytes;
    return;
  }
  kn_cost c;
  if (!kn_cost_by_tensors(n, vals, &c)) return;
  r->cost.flops += c.flops;
  r->cost.bytes += c.bytes;
}

/* The name of who computed it; what differs from call to call is told as it was first. */
static void note_impl(kn_profile *p, kn_profile_row *r, const char *backend, const char *impl) {
  if (r->backend) return;
  r->backend = kn_arena_strdup(&p->arena, backend);
  r->impl = kn_arena_strdup(&p->arena, impl);
}

void kn_profile_group(kn_profile *p, const kn_node *const *nodes, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) p->leader[nodes[i]->out[0]->id] = nodes[0]->out[0]->id;
}

void kn_profile_piece(kn_profile *p, const kn_node *n) {
  double now = kn_profile_settled(p->ctx);
  if (!p->top || !p->row_of[n->out[0]->id]) return;
  uint32_t at = p->row_of[n->out[0]->id] - 1;
  p->now[at] += now - p->mark;
  p->top->inside += now - p->mark;
  event_end(p, event_begin(p, KN_PROFILE_ROW, at, p->mark), now);
  p->mark = kn_profile_settled(p->ctx);
}

void kn_profile_node(kn_profile *p, const char *backend, const kn_node *n, const char *impl,
                     kn_tensor *const *vals) {
  double now = kn_profile_settled(p->ctx);
  if (!p->top || !kn_opcode_is_op(n->op) || !n->nout || !p->row_of[n->out[0]->id]) return;
  uint32_t at = p->row_of[n->out[0]->id] - 1;
  kn_profile_row *r = &p->rows[at];
  bool first = n->out[0] == r->nodes[0]->out[0];
  p->now[at] += now - p->mark;
  p->top->inside += now - p->mark;
  if (first) r->calls++;
  if (first) p->last = event_begin(p, KN_PROFILE_ROW, at, p->mark);
  event_end(p, p->last, now);
  add_cost(r, n, vals);
  note_impl(p, r, backend, impl);
  p->mark = kn_profile_settled(p->ctx); /* what was done here is nobody's */
}

void kn_profile_end(kn_profile *p, kn_profile_frame *f) {
  double end = kn_profile_settled(p->ctx), length = end - f->start;
  kn_profile_row *r = &p->rows[f->row];
  event_end(p, f->trip, end);
  event_end(p, f->event, end);
  p->top = f->up;
  if (f->up) f->up->inside += length;
  if (f->part) return; /* its nodes have told */
  r->calls++;
  r->total += length;
  p->now[f->row] += length - f->inside;
}

void kn_profile_start(kn_profile *p) {
  memset(p->now, 0, p->nrows * sizeof *p->now);
  p->top = NULL;
  double now = kn_profile_settled(p->ctx);
  if (!p->done) p->began = now;
  p->run = event_begin(p, KN_PROFILE_RUN, p->done, now);
  p->timed[p->done] = now;
}

void kn_profile_stop(kn_profile *p) {
  double now = kn_profile_settled(p->ctx);
  event_end(p, p->run, now);
  p->timed[p->done] = now - p->timed[p->done];
  for (uint32_t i = 0; i < p->nrows; i++) {
    p->samples[(size_t)i * p->options.runs + p->done] = p->now[i];
    p->rows[i].own += p->now[i];
  }
  p->done++;
}
