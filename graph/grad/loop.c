/* The gradient of a loop. The last trip is the one whose results come out, so its nodes are walked back
 * first, as if they stood after the loop; then, where there were more trips, a loop goes through those from
 * the last but one to the first. What its nodes read of a trip is an element of a list that the forward loop
 * carries, or is computed again (again.c); gradients of carried values and of values from outside the loop
 * are carried by the loop back. */
#include "graph/grad/inside.h"

/* ---- what a gradient can get to ---- */

typedef struct reach {
  kg_walk *w;
  kn_node *loop;
  kg_map seen;
  kn_value **todo;
  uint32_t ntodo;
  kn_value **outer; /* from outside the loop, in the order met */
  uint32_t nouter;
  bool *param; /* of the loop */
} reach;

static void push(reach *q, kn_value ***list, uint32_t *n, kn_value *v) {
  kn_value **more = kn_arena_grow(&q->w->arena, *list, *n, sizeof *more);
  if (!more) {
    kn_build_fail(q->w->b, kn_fail_nomem(q->w->ctx, sizeof *more));
    return;
  }
  *list = more;
  more[(*n)++] = v;
}

static void meet(reach *q, kn_value *v) {
  v = kg_meant(q->w, v);
  if (!kg_needs(q->w, v) || kg_get(&q->seen, v->id) || !kg_put(q->w, &q->seen, v->id, v)) return;
  if (kn_value_inside(v, q->loop->regions[0]))
    push(q, &q->todo, &q->ntodo, v);
  else
    push(q, &q->outer, &q->nouter, v);
}

static void go_on(reach *q, kn_value *v) {
  kn_node *d = v->def;
  if (!d) { /* a carried value */
    kn_region *r = v->region;
    if (r->owner == q->loop)
      q->param[v->index] = true;
    else
      meet(q, r->owner->in[v->index]);
    meet(q, r->yields[1 + v->index]);
  } else if (d->op == KN_NODE_if) {
    for (int k = 0; k < 2; k++) meet(q, d->regions[k]->yields[v->index]);
  } else if (d->op == KN_NODE_loop) {
    meet(q, d->regions[0]->yields[1 + d->nin + v->index]);
  } else if (d->op != KN_NODE_detach && d->op != KN_NODE_host_call) {
    for (uint32_t i = d->op == KN_NODE_with_history; i < d->nin; i++) meet(q, d->in[i]);
  }
}

/* ---- the loop back ---- */

typedef struct back {
  kg_walk *w;
  kn_node *n;     /* forward */
  uint32_t nin;   /* its carried values, without those added for gradients */
  kn_gradient *g; /* of the carried values at the start of the trip that came last so far */
  reach q;
  kn_value *trips; /* how many, seen from where it stands */
  kg_again *again; /* NULL: what is read of a trip was kept */
} back;

/* A value of the forward trip, in a trip back. */
static kn_value *of_trip(const back *k, kn_value *v) { return k->again ? k->again->map[v->id] : v; }

/* How many trips the loop made: a result of it. */
static kn_value *count_trips(kg_walk *w, kn_node *n) {
  kn_region *at = w->b->at;
  w->b->at = n->region;
  kn_value *zero = kg_integer(w, 0);
  if (zero) kn_node_move_before(zero->def, n);
  kn_value *k = kg_carry(w, n, zero);
  w->b->at = n->regions[0];
  kn_value *one = kg_integer(w, 1), *next = kn_add_scalar(w->b, KN_NODE_lua_add, (kn_value *[]){k, one}, 2);
  w->b->at = at;
  kg_carry_next(w, n, next);
  return kn_loop_output(w->b, n, NULL, "trips", next);
}

static void last_trip(back *k, const kn_gradient *gout, kn_value *const *exits, uint32_t nout) {
  kg_walk *w = k->w;
  kn_region *r = k->n->regions[0];
  kg_frame f = {.kind = KG_LAST,
                .owner = k->n,
                .fwd = r,
                .em = w->b->at,
                .inlined = true,
                .known = r->yields[0],
                .truth = false};
  kn_value **ys = kg_alloc(w, (nout + 1) * sizeof *ys);
  uint32_t ny = 0;
  kg_enter(w, &f);
  for (uint32_t i = 0; ys && i < nout; i++) {
    if (!gout[i].v) continue;
    meet(&k->q, ys[ny++] = exits[i]);
    kg_add(w, exits[i], gout[i]);
  }
  if (ys) kg_walk_back(w, ys, ny);
  for (uint32_t i = 0; i < k->nin; i++) k->g[i] = kg_own(&f, r->params[i]);
  kg_leave(w);
}

typedef struct carried { /* of the loop back: a gradient */
  kn_value *of;          /* a parameter of the forward loop, or a value from outside */
  int64_t param;         /* which, -1: from outside */
  kn_gradient first;     /* before the loop back */
  bool maybe;
  kn_vtype type;
} carried;

/* Of lists the empty one stands for none. */
static bool may_lack(const kn_value *of, kn_gradient g) {
  return !kn_is_list(of->type.kind) && (!g.v || g.maybe);
}

/* Enters a trip back: where the loop stands, its body is f->em. */
static void enter_trip(back *k, kg_frame *f, kn_node *loop) {
  kg_walk *w = k->w;
  if (k->again) *f = (kg_frame){.kind = KG_TRIPS, .owner = loop, .fwd = loop->regions[0], .at = f->at};
  f->em = loop->regions[0];
  f->truth = true;
  kg_enter(w, f);
  kn_value *one = kg_integer(w, 1);
  if (one) f->anchor = one->def;
  if (k->again) kg_again_trip(k->again, f->at);
  if (kg_ok(w)) f->known = of_trip(k, k->n->regions[0]->yields[0]);
}

/* One attempt: false when a gradient turned out to be undefined on some path that was taken for sure, or less
 * is known of its sizes. */
static bool trips_back(back *k, carried *c, uint32_t n, kn_node **out, kn_value **exits) {
  kg_walk *w = k->w;
  kn_builder *b = w->b;
  kn_region *r = k->n->regions[0], *at = b->at;
  kn_node *mark = at->last;
  kn_value *from = kn_add_scalar(b, KN_NODE_lua_sub, (kn_value *[]){k->trips, kg_integer(w, 1)}, 2);
  uint32_t more_carried = k->again ? k->again->nlists : 0;
  kn_value **init = kg_alloc(w, (n + 1) * sizeof *init),
           **next = kg_alloc(w, (n + more_carried + 1) * sizeof *next),
           **params = kg_alloc(w, (n + 1) * sizeof *params);
  for (uint32_t i = 0; init && i < n; i++)
    init[i] = c[i].first.v ? c[i].first.v : kn_add_undef(b, &c[i].of->type);
  kn_node *loop = kn_add_loop(b);
  if (!kg_ok(w)) return true;
  kg_frame f = {.kind = KG_TRIPS, .owner = k->n, .fwd = r};
  f.at = kn_loop_param(b, loop, NULL, "trip", from);
  for (uint32_t i = 0; i < n; i++) params[i] = kn_loop_param(b, loop, &c[i].type, NULL, init[i]);
  if (k->again) kg_again_params(k->again, loop);
  enter_trip(k, &f, loop);
  if (!kg_ok(w)) return kg_leave(w), true;
  for (uint32_t i = 0; i < n; i++)
    if (c[i].param < 0) kg_set(w, c[i].of, (kn_gradient){params[i], c[i].maybe});
  kn_value **ys = kg_alloc(w, (n + 1) * sizeof *ys);
  uint32_t ny = 0;
  for (uint32_t i = 0; ys && i < n; i++) {
    if (c[i].param < 0) continue;
    ys[ny] = of_trip(k, r->yields[1 + c[i].param]);
    kg_add(w, ys[ny++], (kn_gradient){params[i], c[i].maybe});
  }
  if (ys) kg_walk_back(w, ys, ny);
  bool fine = true;
  for (uint32_t i = 0; kg_ok(w) && i < n; i++) {
    kn_gradient g = kg_own(&f, c[i].param < 0 ? c[i].of : of_trip(k, c[i].of));
    if (may_lack(c[i].of, g) && !c[i].maybe) c[i].maybe = true, fine = false;
    if (g.v && !kn_vtype_fits(&g.v->type, &c[i].type)) {
      fine = false;
      if (!kn_vtype_join(&g.v->type, &c[i].type, &c[i].type))
        kn_build_fail(b, kn_fail(w->ctx, KN_INTERNAL, "a gradient has another type than its value"));
    }
    next[i + 1] = g.v ? g.v : kn_add_undef(b, &c[i].of->type);
  }
  for (uint32_t i = 0; i < more_carried; i++) next[n + 1 + i] = k->again->after[i];
  kn_value *one = kg_integer(w, 1);
  next[0] = kn_add_scalar(b, KN_NODE_lua_sub, (kn_value *[]){f.at, one}, 2);
  kn_value *more = kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){one, f.at}, 2);
  kg_leave(w);
  b->at = at;
  if (kg_ok(w) && !fine) {
    kn_region_truncate(at, mark);
    return false;
  }
  kn_loop_finish(b, loop, more, next);
  for (uint32_t i = 0; i < n; i++) exits[i] = kn_loop_output(b, loop, NULL, NULL, next[i + 1]);
  *out = loop;
  return true;
}

static uint32_t list_carried(back *k, carried **out) {
  kg_walk *w = k->w;
  carried *c = kg_alloc(w, (k->nin + k->q.nouter + 1) * sizeof *c);
  uint32_t n = 0;
  for (uint32_t i = 0; c && i < k->nin; i++) {
    if (!k->q.param[i]) continue;
    kn_value *p = k->n->regions[0]->params[i];
    c[n++] = (carried){p, i, k->g[i], may_lack(p, k->g[i]), p->type};
  }
  for (uint32_t i = 0; c && i < k->q.nouter; i++) {
    kn_gradient g = kg_find(w, k->q.outer[i]);
    c[n++] = (carried){k->q.outer[i], -1, g, may_lack(k->q.outer[i], g), k->q.outer[i]->type};
  }
  *out = c;
  return n;
}

static void other_trips(back *k) {
  kg_walk *w = k->w;
  kn_builder *b = w->b;
  carried *c = NULL;
  uint32_t n = list_carried(k, &c);
  kn_value **exits = kg_alloc(w, (n + 1) * sizeof *exits);
  kg_branch br;
  if (!c || !exits ||
      !kg_open(w, &br, kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){kg_integer(w, 1), k->trips}, 2)))
    return;
  kn_node *loop = NULL;
  b->at = br.n->regions[0];
  if (k->again) kg_again_open(k->again, k->trips);
  while (kg_ok(w) && !trips_back(k, c, n, &loop, exits)) continue;
  if (k->again) kg_again_close(k->again);
  kn_value **none = kg_alloc(w, (n + 1) * sizeof *none);
  b->at = br.n->regions[1];
  for (uint32_t i = 0; none && i < n; i++)
    none[i] = c[i].first.v ? c[i].first.v : kn_add_undef(b, &c[i].of->type);
  b->at = w->f->em;
  for (uint32_t i = 0; kg_ok(w) && i < n; i++) {
    kn_gradient g = {kn_if_output(b, br.n, NULL, NULL, exits[i], none[i]), c[i].maybe};
    if (c[i].param < 0)
      kg_set(w, c[i].of, g);
    else
      k->g[c[i].param] = g;
  }
}

void kg_loop_rule(kg_walk *w, kn_node *n) {
  kn_region *r = n->regions[0];
  uint32_t nout = n->nout;
  back k = {.w = w, .n = n, .nin = n->nin, .q = {.w = w, .loop = n}};
  kn_gradient *gout = kg_alloc(w, (nout + 1) * sizeof *gout);
  kn_value **exits = kg_alloc(w, (nout + 1) * sizeof *exits);
  k.g = kg_alloc(w, (n->nin + 1) * sizeof *k.g);
  k.q.param = kg_alloc(w, n->nin + 1);
  if (!kg_ok(w)) return;
  for (uint32_t i = 0; i < nout; i++) {
    gout[i] = kg_find(w, n->out[i]);
    exits[i] = r->yields[1 + n->nin + i];
  }
  last_trip(&k, gout, exits, nout);
  while (k.q.ntodo && kg_ok(w)) go_on(&k.q, k.q.todo[--k.q.ntodo]);
  bool again = false;
  for (uint32_t i = 0; i < k.nin; i++) again |= k.q.param[i];
  if (!again || !kg_ok(w)) return;
  kg_again anew;
  if (w->memory && kg_again_begin(w, &anew, n, k.nin, k.q.param, &k.trips)) k.again = &anew;
  if (!w->memory) k.trips = kg_see(w, count_trips(w, n));
  if (!kg_ok(w)) return;
  if (k.trips) other_trips(&k);
  for (uint32_t i = 0; i < k.nin && kg_ok(w); i++) kg_add(w, n->in[i], k.g[i]);
}
