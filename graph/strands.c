/* Strands: nodes of a region that depend on nothing in one another, nor are seen by anybody while they run,
 * and that are worth a thread each. From a node that takes a while on, each node belongs to the strand that
 * it reads from; the first that reads from two ends the section. What is cheap and reads from none is
 * computed before. Where nodes use all threads by themselves nothing is gained, and so nothing is found. */
#include "graph/attempt.h"
#include "graph/cost.h"
#include "graph/emit.h"
#include "graph/text.h"
#include <stdio.h>

enum {
  MOST_STRANDS = 64,
  MOST_FORKS = 8,      /* of random streams, in one another */
  MOST_LOOKS = 100000, /* at nodes, a region: beyond, the rest of it is not searched */
  VISITS = 500000,     /* with those of nodes inside, a plan, and … */
  MORE_VISITS = 10,    /* … for each value: beyond, nothing is searched */
  TRIPS = 64,          /* what a loop is taken to make */
  STARTS_NS = 5000,    /* a node that takes less starts no strand */
  SPLITS_NS = 20000,   /* a node that takes more is shared by the threads itself */
  WAKE_NS = 5000,
  LEAST_GAIN_NS = 10000
};

/* ---- what nodes take ---- */

typedef struct span { /* on one thread, on all of them */
  double one, all;
} span;

/* Rough figures of one core: operations and bytes a nanosecond. */
static double rate_of(const kn_op_info *row) {
  switch (row->op_class) {
  case KN_CLASS_MATMUL:
  case KN_CLASS_CONV:
  case KN_CLASS_ATTENTION: return 50;
  case KN_CLASS_RECURRENT: return 20;
  case KN_CLASS_LINALG: return 1;
  default: return 4;
  }
}

/* Few samples: the threads meet at each step, and where that is too often one does it all. */
static double recurrent_share(const kn_type *in, double ns, double even) {
  enum { FEW = 4 };
  double steps = (double)in->dims[0], samples = in->rank > 1 ? (double)in->dims[1] : 1;
  if (samples > FEW) return even;
  return steps > 0 && ns / steps < 2 * STARTS_NS ? 1 : 0.65;
}

static span op_span(const emitter *e, const kn_node *n) {
  const kn_type *types = e->p->types;
  const kn_op_info *row = &kn_ops[n->op];
  kn_cost c;
  if (row->op_class == KN_CLASS_VIEW) return (span){0, 0};
  kn_cost_by_types(n, types, &c);
  double ns = c.flops / rate_of(row), moved = c.bytes / 20, even = 1.0 / e->ctx->threads;
  ns = 300 + (ns > moved ? ns : moved);
  double share = ns > SPLITS_NS && row->op_class != KN_CLASS_LINALG ? even : 1;
  if (row->op_class == KN_CLASS_RECURRENT) share = recurrent_share(&types[n->in[0]->id], ns, even);
  return (span){ns, ns * share};
}

static span region_span(emitter *e, const kn_region *r, int depth);

static span node_span(emitter *e, const kn_node *n, int depth) {
  e->visits++;
  if (kn_opcode_is_op(n->op)) return op_span(e, n);
  span s = {50, 50};
  if (!n->nregions) return s;
  for (int i = 0; i < n->nregions; i++) {
    span x = region_span(e, n->regions[i], depth + 1);
    if (x.one > s.one) s = x;
  }
  double trips = n->op == KN_NODE_loop && depth < 3 ? TRIPS : 1;
  return (span){s.one * trips, s.all * trips};
}

static span region_span(emitter *e, const kn_region *r, int depth) {
  span sum = {0, 0};
  KN_EACH_NODE (n, r) {
    span s = node_span(e, n, depth);
    sum.one += s.one, sum.all += s.all;
  }
  return sum;
}

/* Too little to start a strand; what is elementwise runs as one with what reads it, and large ones are shared
 * by the threads. */
static bool takes_little(const emitter *e, const kn_node *n, span s) {
  if (e->ctx->beside == KN_BESIDE_ALWAYS) return s.one <= 0;
  return s.one < STARTS_NS || (kn_opcode_is_op(n->op) && kn_ops[n->op].op_class == KN_CLASS_ELEMENTWISE);
}

/* ---- what a node does ---- */

typedef struct traits {
  bool alone;  /* must stay where it is */
  bool raises; /* may */
  bool draws;  /* of the stream of random numbers */
  bool over;   /* may write its result over its input */
  bool loops;
} traits;

enum { RAISES = 1, LOOPS = 2 }; /* what some node of a strand does */

static bool op_raises(const emitter *e, const kn_node *n) {
  bool known = true;
  for (uint32_t i = 0; i < n->nin; i++)
    known &= i < n->ntensor ? kn_type_known(&e->p->types[n->in[i]->id]) : e->p->known[n->in[i]->id];
  return known ? kn_data_may_raise(n) : kn_node_may_raise(n);
}

static void look(emitter *e, const kn_node *n, bool inside, traits *t) {
  const kn_plan *p = e->p;
  e->visits++;
  for (uint32_t i = 0; i < n->nin; i++) {
    t->alone |= p->undefined[n->in[i]->id] && !inside;
    t->raises |= p->maybe[n->in[i]->id];
  }
  if (kn_opcode_is_op(n->op)) {
    unsigned flags = kn_ops[n->op].flags;
    t->alone |= (flags & KN_FLAG_WRITES) || (p->failure[n->out[0]->id] && !inside);
    t->draws |= (flags & KN_FLAG_RANDOM) != 0;
    t->over |= (flags & KN_FLAG_OVER) != 0;
    t->raises |= op_raises(e, n);
    return;
  }
  switch ((int)n->op) {
  case KN_NODE_assert: t->raises = true; break;
  case KN_NODE_raise: t->raises = true, t->alone |= !inside; break;
  case KN_NODE_caught: t->alone |= !inside; break;
  case KN_NODE_same: t->alone = true; break;
  case KN_NODE_load_state: t->alone |= p->slot_copied[n->slot->index]; break;
  case KN_NODE_loop: t->loops = true; break;
  default:
    t->alone |= kn_opcode_describe(n->op).effect == KN_EFFECT;
    if (!n->nregions) t->raises |= kn_node_may_raise(n);
  }
  for (int i = 0; i < n->nregions && !t->alone; i++)
    KN_EACH_NODE (m, n->regions[i]) look(e, m, true, t);
}

/* ---- the strand of a node ---- */

typedef struct search {
  emitter *e;
  kn_found f;
  const kn_node *fork[MOST_FORKS]; /* the random streams that are open were forked here, in one another */
  uint32_t depth;                  /* how many */
  uint32_t stream;                 /* the strand that draws from it */
  uint32_t last;  /* of what may raise or forks a stream, the order of strands is that of the program */
  uint32_t count; /* of nodes */
  double all;     /* what they take without strands */
} search;

enum { SEVERAL = UINT32_MAX };

static uint32_t strand_of(const search *s, const kn_value *v) {
  const kn_label *l = &s->e->labels[v->id];
  return l->stamp == s->e->stamp ? l->strand : 0;
}

static bool is_inside(const kn_value *v, const kn_node *n) {
  const kn_region *r = v->region;
  while (r->owner && r->owner != n) r = r->owner->region;
  return r->owner == n;
}

/* Lists are not shared: one from elsewhere is as two strands. */
static void add_read(const search *s, const kn_value *v, uint32_t *strand) {
  uint32_t from = strand_of(s, v);
  bool new_list = v->def && v->def->op == KN_NODE_list_new;
  if (kn_is_list(v->type.kind) && !new_list && !from) from = SEVERAL;
  if (from) *strand = *strand && *strand != from ? SEVERAL : from;
}

typedef void (*on_read)(const search *s, const kn_value *v, uint32_t *strand);

/* What n and the nodes in it read that is not made in it. */
static void each_read(const search *s, const kn_node *top, const kn_node *n, on_read fn, uint32_t *strand) {
  for (uint32_t i = 0; i < n->nin; i++)
    if (!is_inside(n->in[i], top)) fn(s, n->in[i], strand);
  for (int k = 0; k < n->nregions; k++) {
    const kn_region *r = n->regions[k];
    KN_EACH_NODE (m, r) each_read(s, top, m, fn, strand);
    for (uint32_t i = 0; i < r->nyields; i++)
      if (!is_inside(r->yields[i], top)) fn(s, r->yields[i], strand);
  }
}

/* No step comes of it. */
static bool is_free(const emitter *e, const kn_node *n) {
  const kn_plan *p = e->p;
  const kn_value *out = n->nout == 1 ? n->out[0] : NULL;
  switch ((int)n->op) {
  case KN_NODE_const:
  case KN_NODE_tensor:
  case KN_NODE_param:
  case KN_NODE_undef:
  case KN_NODE_list_new: return true;
  default: return out && !n->nregions && (p->place[out->id] == KN_PLACE_CONST || p->known[out->id]);
  }
}

/* The streams of random numbers: what draws between a fork and its join belongs to their strand. False: it
 * draws from the stream outside, or goes on from somewhere else than where the open one was forked. */
static bool follow_stream(search *s, const kn_node *n, uint32_t *strand) {
  bool forks = n->op == KN_OP_fork_random, joins = n->op == KN_OP_join_random;
  if (!s->depth && !forks) return false;
  if (s->depth && !*strand) *strand = s->stream;
  if (s->depth && *strand != s->stream) return false;
  if (joins && n->in[0]->def != s->fork[s->depth - 1]) return false;
  if (forks && s->depth == MOST_FORKS) return false;
  if (forks && !s->depth) s->stream = 0;
  if (forks) s->fork[s->depth++] = n; /* what joins is counted when it has been put */
  return true;
}

static bool put(search *s, const kn_node *n, uint32_t strand, span took) {
  emitter *e = s->e;
  kn_found *f = &s->f;
  if (strand > f->n) {
    if (strand > MOST_STRANDS) return false;
    f->ns[strand] = 0, f->streams[strand] = 0, f->marks[strand] = 0;
    f->n = strand;
  }
  f->strand[s->count++] = strand;
  for (uint32_t i = 0; i < n->nout; i++)
    e->labels[n->out[i]->id] = (kn_label){.stamp = e->stamp, .strand = strand};
  if (strand) f->ns[strand] += took.one, s->all += took.all;
  return true;
}

/* False: the section ends before n. */
static bool take(search *s, const kn_node *n) {
  emitter *e = s->e;
  span took = {0, 0};
  uint32_t strand = 0;
  if (is_free(e, n)) return put(s, n, 0, took);
  traits t = {0};
  look(e, n, false, &t);
  if (t.alone) return false;
  each_read(s, n, n, add_read, &strand); /* the strand that it reads from */
  if (strand == SEVERAL) return false;
  took = node_span(e, n, 0);
  if (t.draws && !follow_stream(s, n, &strand)) return false;
  bool forks = n->op == KN_OP_fork_random && s->depth == 1;
  bool cheap = takes_little(e, n, took) && !t.raises && !t.over && !t.draws && !t.loops;
  if (!strand && !cheap) strand = s->depth && s->stream ? s->stream : s->f.n + 1;
  if (t.raises || forks) {
    if (strand < s->last) return false;
    s->last = strand;
  }
  if (!put(s, n, strand, took)) return false;
  if (forks) s->stream = strand, s->f.streams[strand]++;
  if (n->op == KN_OP_join_random) s->depth--;
  if (strand) s->f.marks[strand] |= (uint8_t)((t.raises ? RAISES : 0) | (t.loops ? LOOPS : 0));
  return true;
}

static bool pays(const search *s) {
  double sum = 0, most = 0;
  int threads = s->e->ctx->threads;
  for (uint32_t i = 1; i <= s->f.n; i++) {
    sum += s->f.ns[i];
    if (s->f.ns[i] > most) most = s->f.ns[i];
  }
  double beside = WAKE_NS + (sum / threads > most ? sum / threads : most);
  if (s->e->ctx->beside == KN_BESIDE_ALWAYS) return s->f.n > 1;
  return s->f.n > 1 && s->all - beside > LEAST_GAIN_NS && beside < 0.85 * s->all;
}

static void note_reader(const search *s, const kn_value *v, uint32_t *strand) {
  kn_label *l = &s->e->labels[v->id];
  if (l->stamp == s->e->stamp) l->reader = !l->reader || l->reader == *strand ? *strand : SEVERAL;
}

/* What is computed before, and in the section read by one strand alone, goes there, and what nobody reads
 * there stands behind the section: it runs as one with what reads it. */
static void hand_over(search *s) {
  const kn_node *n = s->f.end ? s->f.end->prev : s->f.first->region->last;
  bool tail = true;
  for (uint32_t i = s->count; i-- > 0; n = n->prev) {
    uint32_t *strand = &s->f.strand[i], by = SEVERAL;
    const kn_label *l = n->nout == 1 ? &s->e->labels[n->out[0]->id] : NULL;
    if (is_free(s->e, n)) continue;
    if (!*strand && l && kn_opcode_is_op(n->op) && l->reader != SEVERAL) *strand = l->reader;
    tail &= !*strand;
    if (tail) {
      s->f.end = n;
      continue;
    }
    if (*strand) by = *strand;
    each_read(s, n, n, note_reader, &by);
  }
}

/* The section that starts at `from`, and ends before `end` at the latest; s->f.first: NULL for none. */
static void gather(search *s, emitter *e, const kn_node *from, const kn_node *end) {
  kn_found room = {.strand = s->f.strand, .ns = s->f.ns, .streams = s->f.streams, .marks = s->f.marks};
  *s = (search){.e = e, .f = room};
  e->stamp++;
  const kn_node *n = from;
  while (n != end && take(s, n)) n = n->next;
  if (s->depth) { /* what draws from a stream may not be cut in two */
    if (s->fork[0] != from) gather(s, e, from, s->fork[0]);
    return;
  }
  if (!pays(s)) return;
  s->f.first = from;
  s->f.end = n;
  hand_over(s);
}

kn_status kn_find_section(emitter *e, const kn_node *from, kn_found **found) {
  *found = NULL;
  if (e->p->form != KN_PLAN_USUAL || e->strand || e->ctx->threads < 2 || e->ctx->beside == KN_BESIDE_NEVER)
    return KN_OK;
  const uint64_t most = VISITS + MORE_VISITS * (uint64_t)e->p->graph->nvalues;
  uint32_t looks = 0;
  double ns[MOST_STRANDS + 1];
  uint32_t streams[MOST_STRANDS + 1];
  uint8_t marks[MOST_STRANDS + 1];
  for (const kn_node *n = from; n && looks < MOST_LOOKS && e->visits < most; n = n->next) {
    search s = {.f = {.strand = e->strands, .ns = ns, .streams = streams, .marks = marks}};
    traits t = {0};
    looks++;
    if (is_free(e, n)) continue;
    look(e, n, false, &t);
    bool starts = n->op == KN_OP_fork_random || !takes_little(e, n, node_span(e, n, 0));
    if (t.alone || !starts) continue;
    gather(&s, e, n, NULL);
    looks += s.count;
    if (!s.f.first) continue;
    kn_arena *a = &e->p->arena;
    s.f.strand = kn_arena_dup(a, e->strands, s.count * sizeof *e->strands);
    s.f.ns = kn_arena_dup(a, ns, sizeof ns);
    s.f.streams = kn_arena_dup(a, streams, sizeof streams);
    s.f.marks = kn_arena_dup(a, marks, sizeof marks);
    *found = kn_arena_dup(a, &s.f, sizeof s.f);
    return s.f.strand && s.f.ns && s.f.streams && s.f.marks && *found ? KN_OK
                                                                      : kn_fail_nomem(e->ctx, sizeof ns);
  }
  return KN_OK;
}

/* ---- steps ---- */

static kn_status emit_strand(emitter *e, const kn_found *f, uint32_t k, uint32_t section, bool *dead) {
  kn_plan *p = e->p;
  kn_block b = {.parent = e->block, .section = section + 1};
  if (!kn_plan_push(p, &p->blocks, &p->nblocks, &b, sizeof b)) return kn_fail_nomem(e->ctx, sizeof b);
  uint32_t outer = e->block, block = p->nblocks - 1, i = 0;
  e->block = block;
  e->strand = block + 1;
  kn_status st = KN_OK;
  for (const kn_node *n = f->first; st == KN_OK && n != f->end && !*dead; n = n->next)
    if (f->strand[i++] == k) st = kn_emit_node(e, n, dead);
  if (st == KN_OK) st = kn_part_flush(e);
  e->block = outer;
  e->strand = 0;
  KN_TRY(st);
  kn_strand made = {.block = block, .streams = f->streams[k], .ns = f->ns[k]};
  made.ctx = kn_context_child(e->ctx);
  if (!made.ctx) return kn_fail_nomem(e->ctx, sizeof *made.ctx);
  made.ctx->keeps_scratch = true;
  made.ctx->tuning_left = 0; /* nothing is measured beside others */
  kn_section *x = &p->sections[section];
  if (kn_plan_push(p, &x->strands, &x->n, &made, sizeof made)) return KN_OK;
  kn_context_free(made.ctx);
  return kn_fail_nomem(e->ctx, sizeof made);
}

/* In the program no loop is entered that stands behind an error; it may be one that takes for ever. */
static void group_strands(kn_section *x, const kn_found *f) {
  uint32_t group = 0;
  bool raises = false;
  for (uint32_t i = 0; i < x->n; i++) {
    if (raises && f->marks[i + 1] & LOOPS) group++, raises = false;
    raises |= (f->marks[i + 1] & RAISES) != 0;
    x->strands[i].group = group;
  }
}

static void log_section(emitter *e, const kn_found *f) {
  char text[256];
  size_t at = 0;
  for (uint32_t k = 1; k <= f->n && at < sizeof text; k++)
    at += (size_t)snprintf(text + at, sizeof text - at, "%s%.0f", k > 1 ? ", " : "", f->ns[k] / 1000);
  char where[256];
  kn_log(e->ctx, "dispatch: %u strands side by side, of about %s us %s", f->n, text,
         kn_where_brief(f->first->where, where, sizeof where));
}

/* Parts of strands are compiled for one thread. */
kn_status kn_emit_section(emitter *e, const kn_found *f, bool *dead) {
  kn_plan *p = e->p;
  uint32_t i = 0, section = p->nsections;
  e->early = true;
  for (const kn_node *n = f->first; n != f->end && !*dead; n = n->next)
    if (!f->strand[i++]) KN_TRY(kn_emit_node(e, n, dead));
  e->early = false;
  if (*dead) return KN_OK;
  KN_TRY(kn_part_flush(e));
  kn_section made = {.start = e->pos};
  if (!kn_plan_push(p, &p->sections, &p->nsections, &made, sizeof made))
    return kn_fail_nomem(e->ctx, sizeof made);
  if (kn_debugging(e->ctx, KN_DEBUG_DISPATCH)) log_section(e, f);
  int threads = e->ctx->threads;
  e->ctx->threads = 1;
  kn_status st = KN_OK;
  for (uint32_t k = 1; k <= f->n && st == KN_OK && !*dead; k++) st = emit_strand(e, f, k, section, dead);
  e->ctx->threads = threads;
  KN_TRY(st);
  kn_section *x = &p->sections[section];
  group_strands(x, f);
  x->end = ++e->pos;
  x->order = kn_arena_alloc(&p->arena, x->n * sizeof *x->order);
  if (!x->order) return kn_fail_nomem(e->ctx, x->n * sizeof *x->order);
  for (i = 0; i < x->n; i++) x->order[i] = i;
  return kn_push_step(e, (kn_step){.kind = KN_STEP_STRANDS, .node = f->first, .a = section});
}
