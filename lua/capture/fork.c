/* Forks, joins, and going on after them. See interp.h. */
#include "lua/capture/interp.h"
#include "graph/attempt.h"
#include "graph/mutant.h"

/* ---- stops ---- */

int kc_new_stop(kc_cap *c, int depth, int pc, int order, bool back, int iteration) {
  if (c->nstop == c->stop_cap) {
    int cap = c->stop_cap ? c->stop_cap * 2 : 64;
    kc_stop *stop = kc_new(c, (size_t)cap * sizeof *stop);
    for (int i = 0; i < c->nstop; i++) stop[i] = c->stop[i];
    c->stop = stop;
    c->stop_cap = cap;
  }
  c->stop[c->nstop] = (kc_stop){++c->last_stop, depth, pc, order, back, iteration};
  return c->stop[c->nstop++].kind;
}

int kc_stop_at(const kc_cap *c, int depth, int pc, bool back, int iteration) {
  for (int i = c->nstop - 1; i >= 0; i--) {
    const kc_stop *s = &c->stop[i];
    bool any = KN_MUTANT(stop_of_any_depth);
    if (s->depth < depth && !any) return 0; /* stops of callers: deeper ones come after them */
    if ((s->depth == depth || any) && s->pc == pc && s->back == back && s->iteration == iteration)
      return s->kind;
  }
  return 0;
}

const kc_stop *kc_stop_of(const kc_cap *c, int kind) {
  for (int i = c->nstop - 1; i >= 0; i--)
    if (c->stop[i].kind == kind) return &c->stop[i];
  return NULL;
}

int kc_find_outcome(const kc_outs *o, int kind) {
  for (int i = 0; i < o->n; i++)
    if (o->o[i].kind == kind) return i;
  return -1;
}

int kc_iteration_of(const kc_frame *f, int block) {
  for (const kc_active *a = f->active; a; a = a->up)
    if (kc_bit(a->loop->loop->in, block)) return a->iteration;
  return 0;
}

/* ---- an if ---- */

kc_res kc_begin_if(kc_cap *c, kc_if *f, kc_state *s, kn_value *cond) {
  *f = (kc_if){.cond = cond, .parent = c->b.at, .base = s};
  c->b.where = kc_where(c);
  f->n = kn_add_if(&c->b, cond);
  return f->n ? KC_GO : kc_fail(c, "if");
}

/* The selector of the merged outcomes: of side 1 when the condition holds, else of side 2. */
static kc_val merge_selectors(kc_cap *c, kc_if *f, const kc_outs *a, const kc_outs *b) {
  kn_vtype type = {.kind = KN_V_INT};
  bool inside_a = a->n && a->sel.k == KC_V_SYM && a->sel.v->region == f->n->regions[0];
  bool inside_b = b->n && b->sel.k == KC_V_SYM && b->sel.v->region == f->n->regions[1];
  if (!a->n) return inside_b ? kc_sym(kc_if_out(c, f, kc_undef(c, &type), b->sel.v, &type, NULL)) : b->sel;
  if (!b->n) return inside_a ? kc_sym(kc_if_out(c, f, a->sel.v, kc_undef(c, &type), &type, NULL)) : a->sel;
  kn_value *out = kc_if_out(c, f, kc_value(c, a->sel), kc_value(c, b->sel), &type, NULL);
  if (a->sel.k == KC_V_INT && b->sel.k == KC_V_INT) {
    kc_note *n = kc_note_of(c, out, true);
    *n = (kc_note){.choice = f->cond, .a = a->sel.i, .b = b->sel.i};
    if (KN_MUTANT(selector_reversed)) *n = (kc_note){.choice = f->cond, .a = b->sel.i, .b = a->sel.i};
  }
  return kc_sym(out);
}

static int pc_of(const kc_cap *c, int kind) {
  const kc_stop *s = kc_stop_of(c, kind);
  return s ? s->pc : -1;
}

/* One side never ends (it raises): what the other one does comes after the branch, which has no results. */
static kc_res one_side(kc_cap *c, kc_if *f, int side, const kc_outs *live, kc_outs *out) {
  kn_region *r = f->n->regions[side];
  for (uint32_t i = 0; i < c->noverwritten; i++)
    if (c->overwritten[i].where == r) c->overwritten[i].where = f->parent;
  kn_region_append(f->parent, r);
  *out = *live;
  return KC_GO;
}

kc_res kc_end_if(kc_cap *c, kc_if *f, const kc_outs *a, const kc_outs *b, kc_outs *out) {
  kc_outs *o = kc_new(c, sizeof *o);
  c->b.at = f->parent;
  if (!a->n != !b->n && !f->n->nout && !kn_is_attempt(f->n)) return one_side(c, f, !a->n, a->n ? a : b, out);
  for (int i = 0; i < a->n; i++) {
    int kind = a->o[i].kind, j = kc_find_outcome(b, kind);
    kc_outcome *to = &o->o[o->n++];
    to->kind = kind;
    KC_TRY(kc_merge(c, j >= 0 ? KC_MERGE_PAIR : KC_MERGE_FIRST, a->o[i].s, j >= 0 ? b->o[j].s : NULL, f, NULL,
                    pc_of(c, kind), NULL, &to->s));
  }
  for (int j = 0; j < b->n; j++) {
    if (kc_find_outcome(a, b->o[j].kind) >= 0) continue;
    if (o->n == KC_MAX_OUTCOMES) return kc_fail(c, "this branch can be left to too many places");
    kc_outcome *to = &o->o[o->n++];
    to->kind = b->o[j].kind;
    KC_TRY(kc_merge(c, KC_MERGE_SECOND, b->o[j].s, NULL, f, NULL, pc_of(c, to->kind), NULL, &to->s));
  }
  o->sel = o->n == 1 ? kc_int(o->o[0].kind) : o->n ? merge_selectors(c, f, a, b) : kc_int(0);
  c->b.at = f->parent;
  if (!f->n->regions[0]->first && !f->n->regions[1]->first && !f->n->nout) kn_node_remove(f->n);
  *out = *o;
  return out->n ? KC_GO : KC_DEAD;
}

/* ---- going on after a join ---- */

/* Runs on from the outcome `kind`; the others stay as they are. */
static kc_res advance(kc_cap *c, kc_outs *o, int kind) {
  int i = kc_find_outcome(o, kind);
  kc_state *s = o->o[i].s;
  int pc = pc_of(c, kind);
  if (o->n == 1) {
    kc_res r = kc_run(c, s, pc, KC_RUN_PAST_STOP, o);
    if (r == KC_DEAD) o->n = 0;
    return r == KC_DEAD ? KC_GO : r;
  }
  c->S = s;
  kc_val is = kc_equals_code(c, o->sel, kind);
  if (is.k != KC_V_SYM) return kc_fail(c, "internal: a selector is known too early");
  kc_outs *rest = kc_dup(c, o, sizeof *o), *done = kc_new(c, sizeof *done);
  for (int j = i; j + 1 < rest->n; j++) rest->o[j] = rest->o[j + 1];
  if (--rest->n == 1) rest->sel = kc_int(rest->o[0].kind);
  kc_if f;
  KC_TRY(kc_begin_if(c, &f, s, is.v));
  /* both sides start from here, so that what each changes is seen */
  kc_state *go = kc_snapshot(c, s);
  kc_add_fact(c, go, is.v, true);
  c->b.at = f.n->regions[0];
  kc_res r = kc_run(c, go, pc, KC_RUN_PAST_STOP, done);
  if (r == KC_DEAD)
    done->n = 0;
  else if (r != KC_GO)
    return r;
  r = kc_end_if(c, &f, done, rest, o);
  if (r == KC_DEAD) o->n = 0;
  return r == KC_DEAD ? KC_GO : r;
}

/* The local stop to go on with next, 0 for none. */
static int next_stop(const kc_cap *c, const kc_outs *a, const kc_outs *b, int base) {
  int best = 0, order = 0;
  for (int i = base; i < c->nstop; i++) {
    const kc_stop *s = &c->stop[i];
    if (kc_find_outcome(a, s->kind) < 0 && (!b || kc_find_outcome(b, s->kind) < 0)) continue;
    if (!best || s->order < order) best = s->kind, order = s->order;
  }
  return best;
}

kc_res kc_schedule(kc_cap *c, kc_outs *o, int base, kc_state **s, int *pc, bool *on) {
  *on = false;
  for (;;) {
    int kind = next_stop(c, o, NULL, base);
    if (!kind) break;
    if (o->n == 1) {
      *s = o->o[0].s;
      *pc = pc_of(c, kind);
      *on = true;
      break;
    }
    KC_TRY(advance(c, o, kind));
  }
  c->nstop = base;
  if (*on) c->S = *s;
  return o->n ? KC_GO : KC_DEAD;
}

/* ---- a fork ---- */

typedef struct reach_ud {
  const kc_flow *f;
  uint64_t *w;
} reach_ud;

static void add_reach(void *ud, int block) {
  reach_ud *r = ud;
  for (int i = 0; i <= r->f->nblocks / 64; i++) r->w[i] |= r->f->block[block].reach.w[i];
}

static uint64_t *reach_from(kc_cap *c, const kc_flow *f, int from, int to) {
  reach_ud r = {f, kc_new(c, (size_t)(f->nblocks / 64 + 1) * sizeof(uint64_t))};
  kc_forward(f, from, to, add_reach, &r);
  return r.w;
}

/* Loops are entered by their header only: a block inside a loop that the fork is not in is no place to join.
 */
static bool inside_other_loop(const kc_flow *f, int block, int fork) {
  for (int i = 0; i < f->nloops; i++)
    if (kc_bit(f->loop[i].in, block) && !kc_bit(f->loop[i].in, fork) && f->loop[i].header != block)
      return true;
  return false;
}

static void add_stops(kc_cap *c, const kc_state *s, int to1, int to2) {
  const kc_frame *fr = s->top;
  const kc_flow *f = fr->flow;
  int here = f->block_of[fr->pc];
  uint64_t *r1 = reach_from(c, f, here, to1), *r2 = reach_from(c, f, here, to2);
  for (int q = f->nblocks - 1; q >= 0; q--) {
    if (!(r1[q >> 6] >> (q & 63) & 1) || !(r2[q >> 6] >> (q & 63) & 1)) continue;
    int start = f->block[q].start, iteration = kc_iteration_of(fr, q);
    if (f->block[q].joins < 2 && q != to1 && q != to2) continue;
    if (inside_other_loop(f, q, here) || kc_stop_at(c, s->depth, start, false, iteration)) continue;
    kc_new_stop(c, s->depth, start, 4 * start, false, iteration);
  }
  for (const kc_active *a = fr->active; a; a = a->up) {
    const kc_loop *l = a->loop->loop;
    int start = f->block[l->header].start;
    if (kc_bit(l->in, here) && !kc_stop_at(c, s->depth, start, true, a->loop->id))
      kc_new_stop(c, s->depth, start, 4 * l->last + 2, true, a->loop->id);
  }
}

static kc_res run_side(kc_cap *c, kc_if *f, int side, kc_state *s, int pc, kc_outs *out) {
  c->b.at = f->n->regions[side];
  c->S = s;
  kc_res r = kc_run(c, s, pc, 0, out);
  if (r == KC_DEAD) out->n = 0;
  return r == KC_DEAD ? KC_GO : r;
}

/* Joins that only one side reaches are gone on with inside that side. */
static kc_res finish_sides(kc_cap *c, kc_if *f, kc_outs *a, kc_outs *b, int base) {
  for (;;) {
    int kind = next_stop(c, a, b, base);
    if (!kind) return KC_GO;
    bool in_a = kc_find_outcome(a, kind) >= 0, in_b = kc_find_outcome(b, kind) >= 0;
    if (in_a && in_b) return KC_GO;
    c->b.at = f->n->regions[in_a ? 0 : 1];
    KC_TRY(advance(c, in_a ? a : b, kind));
  }
}

kc_res kc_fork(kc_cap *c, kc_state **sp, int *pc, kn_value *cond, int if_true, int if_false,
               const kc_assign *set, kc_outs *out, bool *on) {
  kc_state *s = *sp;
  const kc_flow *flow = s->top->flow;
  KC_TRY(kc_loop_exit_fork(c, s, flow->block_of[if_true], flow->block_of[if_false]));
  ptrdiff_t deep = c->stack - (const char *)__builtin_frame_address(0); /* more where frames are larger */
  if (++c->nest > KC_MAX_NEST || deep > KC_MAX_STACK || -deep > KC_MAX_STACK)
    return kc_fail(c, "branches on tensor data are nested too deeply while unrolling");
  int base = c->nstop;
  add_stops(c, s, flow->block_of[if_true], flow->block_of[if_false]);
  kc_if *f = kc_new(c, sizeof *f);
  kc_outs *a = kc_new(c, 2 * sizeof *a), *b = a + 1;
  KC_TRY(kc_begin_if(c, f, s, cond));
  kc_state *s1 = kc_snapshot(c, s), *s2 = kc_snapshot(c, s);
  kc_add_fact(c, s1, cond, true);
  kc_add_fact(c, s2, cond, KN_MUTANT(fact_of_the_other_side));
  if (set) {
    c->S = set->side ? s1 : s2;
    kc_set_reg(c, c->S, set->reg, kc_resolve(c, c->S, set->v));
  }
  KC_TRY(run_side(c, f, 0, s1, if_true, a));
  KC_TRY(run_side(c, f, 1, s2, if_false, b));
  KC_TRY(finish_sides(c, f, a, b, base));
  c->b.at = f->parent;
  c->S = s;
  kc_outs *o = kc_new(c, sizeof *o);
  kc_res r = kc_end_if(c, f, a, b, o);
  c->nest--;
  if (r == KC_GO) r = kc_schedule(c, o, base, sp, pc, on);
  c->nstop = base;
  if (r == KC_GO && !*on) *out = *o;
  return r;
}
