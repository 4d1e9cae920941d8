/* Loops: run trip by trip while everything that decides is known; as one loop node when an exit depends on
 * tensor data (the loop starts over in that mode); unrolled with a low limit when that cannot be. See
 * interp.h. */
#include "lua/capture/alike.h"
#include "lua/capture/growing.h"
#include "graph/mutant.h"
#include <stdio.h>

enum {
  MANY_TRIPS = 48,   /* an unrolled loop that emits nodes is tried as a loop node after so many */
  LONG_FOR = 16,     /* a `for` with more trips and an exit on data is made a loop node at once */
  FORCED_TRIPS = 12, /* unrolled although its exit depends on data */
  MAX_PEEL = 2,
  MAX_GENERALISE = 30
};

void kc_leave_loops(kc_cap *c, kc_state *s, int block) {
  const kc_active *a = s->top->active;
  while (a && !kc_bit(a->loop->loop->in, block)) a = a->up;
  if (a != s->top->active) kc_top(c, s)->active = a;
}

kc_res kc_want_loop(kc_cap *c, kc_loop_try *l) {
  l->mode = KC_LOOP;
  c->again = l;
  return KC_AGAIN;
}

/* Trips that an integer `for` still has to run after this one; -1: not known. */
static int64_t trips_left(kc_cap *c, kc_state *s, const kc_loop *l) {
  kc_val n = kc_get_reg(c, s, kc_a(s->top->p->code[l->forloop]) + 1);
  return n.k == KC_V_INT ? n.i : -1;
}

/* Neither as a loop node nor unrolled, and there are tables that could be lists. */
static bool may_have_lists(const kc_cap *c, const kc_loop_try *t) {
  return !c->fatal && !c->doomed && !t->lists && kc_growth(c, t->snap);
}

static void with_lists(kc_loop_try *t) {
  t->lists = true;
  t->mode = KC_LOOP;
  t->peel = 0;
}

/* The end of a trip of a generic `for` over a list whose length depends on data. */
static bool over_list(kc_cap *c, kc_state *s) {
  const kc_frame *f = s->top;
  if (kc_op(f->p->code[f->pc]) != KC_TFORLOOP) return false;
  kc_val t = kc_get_reg(c, s, kc_a(f->p->code[f->pc]) + 1);
  return t.k == KC_V_TABLE && kc_list_of(s, t.id);
}

kc_res kc_loop_exit_fork(kc_cap *c, kc_state *s, int if_true, int if_false) {
  const kc_frame *f = s->top;
  int here = f->flow->block_of[f->pc];
  bool at_end = kc_op(f->p->code[f->pc]) == KC_FORLOOP;
  for (const kc_active *a = f->active; a; a = a->up) {
    kc_loop_try *t = a->loop;
    const kc_loop *l = t->loop;
    if (!kc_bit(l->in, here) || kc_bit(l->in, if_true) == kc_bit(l->in, if_false)) continue;
    bool open = l->kind == KC_LOOP_WHILE || at_end || over_list(c, s); /* nothing known ends it */
    if (t->mode == KC_UNROLL && open) return kc_want_loop(c, t);
    if (t->mode == KC_UNROLL && l->kind == KC_LOOP_NUMERIC && a->arrivals <= 1 &&
        trips_left(c, s, l) > LONG_FOR)
      return kc_want_loop(c, t);
    bool stuck = t->mode == KC_FORCE && open && a->arrivals > FORCED_TRIPS;
    if (stuck && may_have_lists(c, t)) {
      with_lists(t);
      return kc_want_loop(c, t);
    }
    if (stuck)
      return kc_fail(
          c, "the loop at line %d ends when tensor data says so, but cannot become a loop of the graph: %s",
          t->line, t->why ? t->why : "?");
  }
  return KC_GO;
}

/* Where the program says `for` or `while`: a `for` is entered by its body, so its last instruction tells. */
static const kn_where *place_of(kc_cap *c, const kc_frame *f, const kc_loop *l) {
  const kn_where *w = kc_where(c);
  int line = l->kind == KC_LOOP_WHILE ? 0 : kc_line(f->p, l->kind == KC_LOOP_NUMERIC ? l->forloop : l->last);
  return w && line > 0 && line != w->line ? kn_where_intern(&c->b, w->chunk, line, w->at) : w;
}

/* ---- a loop node ---- */

static int active_id(const kc_frame *f, const kc_loop *l) {
  for (const kc_active *a = f->active; a; a = a->up)
    if (a->loop->loop == l) return a->loop->id;
  return 0;
}

/* Stops at every place the loop can be left to; enclosing loops' headers count as their back edges. */
static void add_exit_stops(kc_cap *c, const kc_state *s, const kc_loop *l) {
  const kc_frame *fr = s->top;
  const kc_flow *f = fr->flow;
  for (int i = 0; i < f->nblocks; i++) {
    if (!kc_bit(l->in, i)) continue;
    for (int k = 0; k < f->block[i].nnext; k++) {
      int q = f->block[i].next[k], start = f->block[q].start;
      if (kc_bit(l->in, q)) continue;
      const kc_loop *outer = kc_loop_at(f, q);
      bool back = outer && kc_bit(outer->in, i);
      int iteration = back ? active_id(fr, outer) : kc_iteration_of(fr, q);
      if (!kc_stop_at(c, s->depth, start, back, iteration))
        kc_new_stop(c, s->depth, start, back ? 4 * outer->last + 2 : 4 * start, back, iteration);
    }
  }
}

/* Runs the body from entry states that get more general until the back edge fits. */
static kc_res generalise(kc_cap *c, kc_state *entry, kc_loop_try *t, kc_loop_node *l, int back, kc_outs *o) {
  kc_state *g = kc_snapshot(c, entry);
  int nstop = c->nstop;
  uint32_t nunrolled = c->nunrolled;
  for (int round = 0;; round++) {
    if (round > MAX_GENERALISE)
      return kc_fail(c, "the values carried by the loop at line %d do not settle", t->line);
    kn_region_truncate(l->body, NULL);
    c->b.at = l->body;
    c->nstop = nstop;
    c->nunrolled = nunrolled;
    kc_state *s = kc_snapshot(c, g);
    c->S = s;
    kc_top(c, s)->pc = t->pc;
    kc_res r = kc_run(c, s, t->pc, KC_RUN_PAST_STOP | KC_RUN_PAST_LOOP, o);
    if (r != KC_GO && r != KC_DEAD) return r;
    int i = r == KC_DEAD ? -1 : kc_find_outcome(o, back);
    if (i < 0) return kc_fail(c, "it never runs a second time");
    for (uint32_t k = 0; k < l->nnext; k++)
      l->next[k] = kc_sym(l->body->params[k]); /* what is not touched stays */
    bool changed = false;
    kc_state *next;
    c->b.at = l->body;
    KC_TRY(kc_merge_alike(c, o->o[i].s, t->pc));
    KC_TRY(kc_merge(c, KC_MERGE_GENERAL, g, o->o[i].s, NULL, l, t->pc, &changed, &next));
    if (l->conflict && !l->peeled) { /* let the first trip run before */
      t->peel++;
      return kc_want_loop(c, t);
    }
    if (!changed || (KN_MUTANT(loop_settles_early) && round)) return KC_GO;
    kc_top(c, next)->active = g->top->active;
    g = next;
  }
}

static kc_res finish_loop(kc_cap *c, kc_state *s, kc_loop_node *l, int back, kc_outs *o, kc_outs *out) {
  c->b.at = l->body;
  kn_value **next = kc_new(c, (l->nnext + 1) * sizeof *next);
  for (uint32_t i = 0; i < l->nnext; i++)
    next[i] = l->next[i].k == KC_V_NONE ? kc_undef(c, &l->body->params[i]->type) : kc_value(c, l->next[i]);
  kc_val more = kc_equals_code(c, o->sel, back);
  if (!kn_loop_finish(&c->b, l->n, kc_value(c, more), next)) return kc_fail(c, "loop");
  c->b.at = l->parent;
  *out = (kc_outs){0};
  for (int i = 0; i < o->n; i++) {
    if (o->o[i].kind == back) continue;
    kc_outcome *x = &out->o[out->n++];
    x->kind = o->o[i].kind;
    const kc_stop *stop = kc_stop_of(c, x->kind);
    KC_TRY(kc_merge(c, KC_MERGE_EXIT, o->o[i].s, NULL, NULL, l, stop ? stop->pc : -1, NULL, &x->s));
    x->s->facts = s->facts;
    x->s->tags = s->tags;
    if (x->s->depth == s->depth) kc_top(c, x->s)->active = s->top->active;
  }
  if (!out->n) { /* no value of what it carries lets it end */
    c->fatal = true;
    return kc_fail(c, "this loop never ends");
  }
  out->sel = out->n == 1                                           ? kc_int(out->o[0].kind)
             : o->sel.k == KC_V_SYM && o->sel.v->region == l->body ? kc_sym(kc_loop_out(c, l, o->sel.v))
                                                                   : o->sel;
  return KC_GO;
}

static kc_res build_loop(kc_cap *c, kc_state **sp, int *pc, kc_loop_try *t, kc_outs *out, bool *on) {
  kc_state *s = *sp;
  int base = c->nstop;
  kc_loop_node *l = kc_new(c, sizeof *l);
  l->parent = c->b.at;
  l->entry = s;
  l->peeled = t->peel >= MAX_PEEL || t->why;
  if (t->lists) KC_TRY(kc_make_lists(c, s));
  c->b.where = t->where;
  if (!(l->n = kn_add_loop(&c->b))) return kc_fail(c, "loop");
  l->body = l->n->regions[0];
  int back = kc_new_stop(c, s->depth, t->pc, 1 << 29, true, t->id);
  add_exit_stops(c, s, t->loop);
  kc_outs *o = kc_new(c, sizeof *o);
  KC_TRY(generalise(c, s, t, l, back, o));
  KC_TRY(finish_loop(c, s, l, back, o, out));
  return kc_schedule(c, out, base, sp, pc, on);
}

/* As a loop node; when that is refused, the loop starts over, unrolled. */
static kc_res capture_loop(kc_cap *c, kc_state **sp, int *pc, kc_loop_try *t, kc_outs *out, bool *on) {
  int base = c->nstop;
  kc_outs *made = kc_new(c, sizeof *made);
  uint32_t growth = kc_growth(c, t->snap);
  *on = false;
  kc_res r = build_loop(c, sp, pc, t, made, on);
  c->nstop = base;
  if (r == KC_GO && !*on) *out = *made;
  if (r != KC_FAIL || c->fatal || c->doomed) return r;
  if (!t->lists || kc_growth(c, t->snap) == growth) { /* else once more, with what was learnt of its lists */
    t->mode = KC_FORCE;
    t->why = kc_format(c, "%s", kn_error(c->ctx));
  }
  c->b.status = KN_OK;
  c->again = t;
  return KC_AGAIN;
}

/* ---- what is reported ---- */

/* A trip more of a loop that is unrolled. Where the head decides whether to go on, its last arrival is no
 * trip. */
static void report_trip(kc_cap *c, const kc_flow *f, const kc_loop_try *t, int arrivals) {
  const kc_block *head = &f->block[t->loop->header];
  bool asks = false, latch = false;
  for (int i = 0; i < head->nnext; i++) {
    asks |= !kc_bit(t->loop->in, head->next[i]);
    latch |= head->next[i] == t->loop->header;
  }
  uint32_t i = c->nunrolled;
  while (i && c->unrolled[i - 1].id != t->id) i--;
  if (!i) {
    c->unrolled = kc_more(c, &c->arena, c->unrolled, c->nunrolled, sizeof *c->unrolled);
    c->unrolled[i = c->nunrolled++] = (kc_unrolled){.id = t->id, .where = t->where};
    i++;
  }
  int64_t trips = arrivals - (asks && !latch);
  if (trips > c->unrolled[i - 1].trips) c->unrolled[i - 1].trips = trips;
}

/* ---- arriving at a header ---- */

static const kc_active *activate(kc_cap *c, kc_state *s, kc_loop_try *t) {
  kc_active *a = kc_new(c, sizeof *a);
  *a = (kc_active){t, 1, ++c->last_iteration, s->top->active};
  kc_top(c, s)->active = a;
  return a;
}

static kc_res start_over(kc_cap *c, kc_state **sp, int *pc, kc_loop_try *t, kc_outs *out, bool *on) {
  kc_state *s = *sp = c->S = kc_snapshot(c, t->snap);
  activate(c, s, t);
  *on = false;
  if (t->mode == KC_LOOP && t->peel == 0) return capture_loop(c, sp, pc, t, out, on);
  return kc_run(c, s, t->pc, KC_RUN_PAST_STOP | KC_RUN_PAST_LOOP, out);
}

static kc_res first_arrival(kc_cap *c, kc_state **sp, int *pc, const kc_loop *l, kc_outs *out, bool *on) {
  kc_state *s = *sp;
  kc_loop_try *t = kc_new(c, sizeof *t);
  *t = (kc_loop_try){.loop = l,
                     .id = ++c->last_iteration,
                     .pc = s->top->flow->block[l->header].start,
                     .snap = kc_snapshot(c, s),
                     .region = c->b.at,
                     .mark = c->b.at->last,
                     .nstop = c->nstop,
                     .protect = c->protect,
                     .nest = c->nest,
                     .calls = c->calls,
                     .nodes = c->b.graph->nnodes,
                     .nunrolled = c->nunrolled,
                     .where = place_of(c, s->top, l)};
  t->line = t->where ? t->where->line : 0;
  const kc_look *look = c->last_look;
  if (++c->nest > KC_MAX_NEST) return kc_fail(c, "loops are nested too deeply while unrolling");
  for (;;) {
    uint32_t short_of = c->short_of;
    kc_res r = start_over(c, sp, pc, t, out, on);
    bool lists = r == KC_FAIL && c->short_of > short_of && may_have_lists(c, t);
    if (lists) {
      with_lists(t);
      c->b.status = KN_OK;
    } else if (r != KC_AGAIN || c->again != t) {
      c->nest = t->nest;
      return r;
    }
    kn_region_truncate(t->region, t->mark);
    kc_drop_keys(c, look);
    c->b.at = t->region;
    c->nstop = t->nstop;
    c->protect = t->protect;
    c->nest = t->nest + 1;
    c->calls = t->calls;
    c->nunrolled = t->nunrolled;
  }
}

kc_res kc_enter_loop(kc_cap *c, kc_state **sp, int *pc, const kc_loop *l, kc_outs *out, bool *on) {
  kc_state *s = *sp;
  const kc_active *a = s->top->active;
  if (!a || a->loop->loop != l) return first_arrival(c, sp, pc, l, out, on);
  kc_loop_try *t = a->loop;
  kc_active *now = kc_new(c, sizeof *now);
  *now = (kc_active){t, a->arrivals + 1, ++c->last_iteration, a->up};
  kc_top(c, s)->active = now;
  *on = true;
  if (t->mode == KC_LOOP && a->arrivals >= t->peel) return capture_loop(c, sp, pc, t, out, on);
  if (a->arrivals > MANY_TRIPS && t->mode == KC_UNROLL && l->kind != KC_LOOP_GENERIC &&
      c->b.graph->nnodes > t->nodes)
    return kc_want_loop(c, t);
  if (t->mode != KC_LOOP) report_trip(c, s->top->flow, t, now->arrivals);
  *pc = t->pc;
  return KC_GO;
}
