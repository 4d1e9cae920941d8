/* Trips of a loop computed again in place of being kept, so that the walk back stays below a number of bytes
 * however many trips there are. The forward loop keeps what it carries at checkpoints: at every trip, then at
 * every second, every fourth … whenever they get too many. The loop back takes the last checkpoint, runs the
 * loop's body from there to the trip that is its turn (new checkpoints are kept on the way, where binomial
 * checkpointing puts them), and then computes that trip again, whose nodes are walked back where they stand.
 * Draws come out the same, as the state of the random stream is kept as well. */
#include "graph/attempt.h"
#include "graph/copy.h"
#include "graph/grad/inside.h"
#include <string.h>

/* ---- what has to be computed again ---- */

typedef struct slice { /* nodes of the loop's body, whole with their regions, and what they read */
  kg_again *a;
  kn_region *r;
  kg_map taken; /* by first result */
  kn_value **todo;
  uint32_t ntodo;
} slice;

static void push(kg_walk *w, void *array, uint32_t *n, kn_value *v) {
  kn_value ***list = array, **more = kn_arena_grow(&w->arena, *list, *n, sizeof *more);
  if (!more) {
    kn_build_fail(w->b, kn_fail_nomem(w->ctx, sizeof *more));
    return;
  }
  *list = more;
  more[(*n)++] = v;
}

static bool draws(const kn_node *n) {
  if (kn_opcode_is_op(n->op)) return kn_ops[n->op].flags & KN_FLAG_RANDOM;
  for (int k = 0; k < n->nregions; k++)
    KN_EACH_NODE (m, n->regions[k])
      if (draws(m)) return true;
  return false;
}

/* NULL for what may run twice. */
static const char *why_once(const kn_node *n) {
  if (kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_WRITES) return "overwrites a tensor";
  if (n->op == KN_NODE_host_call) return "calls a function of the host";
  if (n->op == KN_NODE_load_state) return "reads what may have been written since";
  return NULL;
}

static void meet(slice *s, kn_value *v) {
  kg_walk *w = s->a->w;
  if (v->region == s->r) {
    if (!v->def && v->index >= s->a->nin) return;
    push(w, &s->todo, &s->ntodo, v);
  } else if (!kn_value_inside(v, s->r)) {
    for (uint32_t i = 0; i < s->a->nouter; i++)
      if (s->a->outer[i] == v) return;
    push(w, &s->a->outer, &s->a->nouter, v);
  }
}

static void meet_node(slice *s, const kn_node *n) {
  kg_walk *w = s->a->w;
  const char *why = why_once(n);
  if (why)
    kn_build_fail(w->b, kn_fail(w->ctx, KN_UNSUPPORTED,
                                "backward with a limit of memory runs the loop again, but %s in it %s",
                                kn_opcode_describe(n->op).text, why));
  for (uint32_t i = 0; i < n->nin; i++) meet(s, n->in[i]);
  for (int k = 0; k < n->nregions; k++) {
    const kn_region *r = n->regions[k];
    KN_EACH_NODE (m, r) meet_node(s, m);
    for (uint32_t i = 0; i < r->nyields; i++) meet(s, r->yields[i]);
  }
}

static bool is_kept(const kg_again *a, uint32_t param) {
  for (uint32_t i = 0; i < a->nparam; i++)
    if (a->param[i] == param) return true;
  return false;
}

static void keep_param(kg_again *a, uint32_t param) {
  if (is_kept(a, param)) return;
  uint32_t *more = kn_arena_grow(&a->w->arena, a->param, a->nparam, sizeof *more);
  if (!more) {
    kn_build_fail(a->w->b, kn_fail_nomem(a->w->ctx, sizeof *more));
    return;
  }
  a->param = more;
  more[a->nparam++] = param;
}

static void drain(slice *s) {
  while (s->ntodo && kg_ok(s->a->w)) {
    kn_value *v = s->todo[--s->ntodo];
    if (!v->def) {
      keep_param(s->a, v->index);
      continue;
    }
    uint64_t key = v->def->out[0]->id;
    if (kg_get(&s->taken, key) || !kg_put(s->a->w, &s->taken, key, v->def)) continue;
    meet_node(s, v->def);
  }
}

/* The nodes taken, in the order of the program; n is their count. */
static kn_node **gather(slice *s, uint32_t *n) {
  kn_node **list = kg_alloc(s->a->w, (s->taken.n + 1) * sizeof *list);
  *n = 0;
  if (!list) return NULL;
  KN_EACH_NODE (m, s->r)
    if (m->nout && kg_get(&s->taken, m->out[0]->id)) list[(*n)++] = m;
  return list;
}

static void take_draws(slice *s) {
  KN_EACH_NODE (m, s->r)
    if (m->nout && draws(m)) meet(s, m->out[0]);
  drain(s);
}

static bool takes_draws(const slice *s) {
  KN_EACH_NODE (m, s->r)
    if (m->nout && draws(m) && kg_get(&s->taken, m->out[0]->id)) return true;
  return false;
}

/* With all that makes the next values of the carried values that are kept. */
static void close_slice(slice *next) {
  kg_again *a = next->a;
  for (uint32_t i = 0; i < a->nparam && kg_ok(a->w); i++) { /* more of them may come */
    meet(next, next->r->yields[1 + a->param[i]]);
    drain(next);
  }
}

/* What a trip back reads, and what it takes to go on to the next trip. Where either draws, both make all
 * draws of the trip. */
static void find_slices(kg_again *a, const bool *param) {
  kn_region *r = a->loop->regions[0];
  slice trip = {.a = a, .r = r}, next = {.a = a, .r = r};
  for (uint32_t i = 0; i < a->nin; i++)
    if (param[i]) meet(&trip, r->yields[1 + i]);
  drain(&trip);
  close_slice(&next);
  a->random = takes_draws(&trip) || takes_draws(&next);
  if (a->random) {
    take_draws(&trip);
    take_draws(&next);
    close_slice(&next);
  }
  a->trip = gather(&trip, &a->ntrip);
  a->next = gather(&next, &a->nnext);
}

/* ---- small nodes ---- */

static kn_value *scalar(kg_again *a, kn_opcode op, kn_value *x, kn_value *y) {
  return kn_add_scalar(a->w->b, op, (kn_value *[]){x, y}, 2);
}

static kn_value *both(kg_again *a, kn_value *x, kn_value *y) {
  kn_value *no = kn_add_const(a->w->b, (kn_scalar){KN_SCALAR_BOOL, {.b = false}});
  return kn_add_select(a->w->b, x, y, no);
}

/* The state of the random stream becomes x; gives what it was. */
static kn_value *swap_stream(kg_again *a, kn_value *x) {
  kn_node *n = x ? kn_add_op(a->w->b, KN_OP_join_random, NULL, &x, 1, NULL, 0) : NULL;
  return n ? n->out[0] : NULL;
}

static kn_value *read_stream(kg_again *a) {
  kn_attrs_fill zeros = {.sizes = {1, {2}}, .value = 0, .dtype = KN_I64};
  kn_node *n = kn_add_op(a->w->b, KN_OP_full, &zeros, NULL, 0, NULL, 0);
  kn_value *state = n ? swap_stream(a, n->out[0]) : NULL;
  swap_stream(a, state);
  return state;
}

static kn_value *of_list(kg_again *a, kn_opcode op, kn_value *list, kn_value *count) {
  return list ? kn_add_of_list(a->w->b, op, list, count) : NULL;
}

/* All that checkpoints take, and how much one of them does. */
static kn_value *bytes_of(kg_again *a, kn_value *const *lists, kn_value **each) {
  kn_value *sum = NULL;
  for (uint32_t i = 0; i < a->nlists; i++) {
    kn_value *bytes = of_list(a, KN_NODE_list_bytes, lists[i], NULL);
    sum = sum ? scalar(a, KN_NODE_lua_add, sum, bytes) : bytes;
  }
  *each = scalar(a, KN_NODE_lua_idiv, sum, of_list(a, KN_NODE_list_length, lists[0], NULL));
  return sum;
}

/* Forward's lists are there until the walk back is over, so they and those of the walk back get half each. */
static kn_value *memory(kg_again *a) { return kg_integer(a->w, (int64_t)(a->w->memory / 2)); }

/* ---- forward: checkpoints ---- */

enum { SPARE = 2 }; /* checkpoints more than are kept: one that is added, one that is not let go of yet */

/* The lists, every second checkpoint of them where they are too large; *stride follows. */
static void thin(kg_again *a, kn_value **lists, kn_value **stride) {
  kg_walk *w = a->w;
  kn_builder *b = w->b;
  kn_region *at = b->at;
  kn_value *each, *sum = bytes_of(a, lists, &each);
  kn_value *most = scalar(a, KN_NODE_lua_add, sum, scalar(a, KN_NODE_lua_mul, each, kg_integer(w, SPARE)));
  kn_node *n = kn_add_if(b, scalar(a, KN_NODE_lua_lt, memory(a), most));
  if (!n) return;
  b->at = n->regions[0];
  kn_value *several =
      scalar(a, KN_NODE_lua_lt, kg_integer(w, 1), of_list(a, KN_NODE_list_length, lists[0], NULL));
  kn_add_text(b, KN_NODE_assert,
              "backward: %d bytes, half of the memory given, must hold %d bytes of this loop",
              (kn_value *[]){several, memory(a), most}, 3);
  kn_value **fewer = kg_alloc(w, a->nlists * sizeof *fewer);
  for (uint32_t i = 0; fewer && i < a->nlists; i++) fewer[i] = of_list(a, KN_NODE_list_thin, lists[i], NULL);
  kn_value *twice = scalar(a, KN_NODE_lua_add, *stride, *stride);
  b->at = at;
  for (uint32_t i = 0; fewer && i < a->nlists; i++)
    lists[i] = kn_if_output(b, n, NULL, NULL, fewer[i], lists[i]);
  *stride = kn_if_output(b, n, NULL, NULL, twice, *stride);
}

/* What a checkpoint holds: the trip's number, what is carried into it, the stream's state. */
static void add_checkpoint(kg_again *a, kn_value **lists, kn_value *trip, kn_value *const *carried,
                           kn_value *stream) {
  kn_builder *b = a->w->b;
  for (uint32_t i = 0; i < a->nlists && kg_ok(a->w); i++) {
    kn_value *v = !i ? trip : i <= a->nparam ? carried[i - 1] : stream;
    lists[i] = v ? kn_add_append(b, lists[i], v) : NULL;
  }
}

/* Yields for `n` carried values that were added last. */
static void yield_next(kg_again *a, kn_value *const *next, uint32_t n) {
  kn_region *r = a->loop->regions[0];
  uint32_t old = r->nyields, at = 1 + r->nparams - n;
  for (uint32_t i = 0; i < n; i++)
    if (!next[i] || !kn_build_push(a->w->b, &r->yields, &r->nyields, &next[i], sizeof *next)) return;
  memmove(&r->yields[at + n], &r->yields[at], (old - at) * sizeof *r->yields);
  memcpy(&r->yields[at], next, n * sizeof *next);
}

static kn_vtype type_of(const kg_again *a, uint32_t list) {
  if (!list) return (kn_vtype){.kind = KN_V_INT};
  if (list <= a->nparam) return a->loop->regions[0]->params[a->param[list - 1]]->type;
  return (kn_vtype){.kind = KN_V_TENSOR, .tensor = {.dtype = KN_I64, .rank = 1, .dims = {2}}};
}

/* Before the loop: where counting begins, and empty lists; as carried values. */
static void carry_checkpoints(kg_again *a, kn_value **so_far, kn_value **count, kn_value **stride) {
  kg_walk *w = a->w;
  kn_region *at = w->b->at;
  kn_node *loop = a->loop;
  w->b->at = loop->region;
  kn_node *last = loop->region->last;
  kn_value *zero = kg_integer(w, 0), *one = kg_integer(w, 1);
  kn_value **none = kg_alloc(w, a->nlists * sizeof *none);
  for (uint32_t i = 0; none && i < a->nlists; i++) {
    kn_vtype type = type_of(a, i);
    none[i] = kn_add_list(w->b, &type);
  }
  while (kg_ok(w) && last->next) kn_node_move_before(last->next, loop);
  *count = kg_carry(w, loop, zero);
  *stride = kg_carry(w, loop, one);
  for (uint32_t i = 0; none && i < a->nlists; i++) so_far[i] = kg_carry(w, loop, none[i]);
  w->b->at = at;
}

/* The state at the start of a trip: the first nodes of the body. */
static kn_value *stream_at_start(kg_again *a) {
  kn_region *r = a->loop->regions[0];
  kn_node *first = r->first, *last = r->last;
  kn_value *state = read_stream(a);
  while (kg_ok(a->w) && first && last->next) kn_node_move_before(last->next, first);
  return state;
}

/* Once every `stride` trips; gives the lists' and the stride's next values in so_far and *stride. */
static void keep_some(kg_again *a, kn_value **so_far, kn_value *count, kn_value *trip, kn_value **stride) {
  kg_walk *w = a->w;
  kn_builder *b = w->b;
  kn_region *r = a->loop->regions[0];
  kn_value *stream = a->random ? stream_at_start(a) : NULL;
  kn_value **carried = kg_alloc(w, (a->nparam + 1) * sizeof *carried),
           **lists = kg_alloc(w, a->nlists * sizeof *lists), *wide = *stride;
  kn_value *off = scalar(a, KN_NODE_lua_mod, count, *stride);
  kn_node *n = kn_add_if(b, scalar(a, KN_NODE_lua_eq, off, kg_integer(w, 0)));
  if (!carried || !lists || !n) return;
  for (uint32_t i = 0; i < a->nparam; i++) carried[i] = r->params[a->param[i]];
  memcpy(lists, so_far, a->nlists * sizeof *lists);
  b->at = n->regions[0];
  add_checkpoint(a, lists, trip, carried, stream);
  thin(a, lists, &wide);
  b->at = r;
  for (uint32_t i = 0; i < a->nlists; i++) so_far[i] = kn_if_output(b, n, NULL, NULL, lists[i], so_far[i]);
  *stride = kn_if_output(b, n, NULL, NULL, wide, *stride);
}

bool kg_again_begin(kg_walk *w, kg_again *a, kn_node *loop, uint32_t nin, const bool *param,
                    kn_value **trips) {
  kn_builder *b = w->b;
  kn_region *at = b->at;
  *a = (kg_again){.w = w, .loop = loop, .nin = nin};
  find_slices(a, param);
  a->nlists = 1 + a->nparam + a->random;
  uint32_t n = a->nlists + 2;
  kn_value **so_far = kg_alloc(w, n * sizeof *so_far), **next = kg_alloc(w, n * sizeof *next), *count,
           *stride;
  a->lists = kg_alloc(w, a->nlists * sizeof *a->lists);
  a->first = kg_alloc(w, a->nlists * sizeof *a->first);
  a->after = kg_alloc(w, a->nlists * sizeof *a->after);
  if (!kg_ok(w)) return false;
  carry_checkpoints(a, so_far, &count, &stride);
  b->at = loop->regions[0];
  kn_value *trip = kg_ok(w) ? scalar(a, KN_NODE_lua_add, count, kg_integer(w, 1)) : NULL;
  if (trip) keep_some(a, so_far, count, trip, &stride);
  b->at = at;
  if (!kg_ok(w)) return false;
  next[0] = trip;
  next[1] = stride;
  memcpy(&next[2], so_far, a->nlists * sizeof *next);
  yield_next(a, next, n);
  *trips = kg_see(w, kn_loop_output(b, loop, NULL, "trips", trip));
  for (uint32_t i = 0; i < a->nlists; i++)
    a->lists[i] = kg_see(w, kn_loop_output(b, loop, NULL, i ? NULL : "checkpoints", so_far[i]));
  return kg_ok(w);
}

/* ---- the walk back ---- */

/* The last trip is walked back elsewhere: a checkpoint of it is let go of. */
static void drop_last_trip(kg_again *a, kn_value *trips) {
  kg_walk *w = a->w;
  kn_builder *b = w->b;
  kn_region *at = b->at;
  kn_value *n = of_list(a, KN_NODE_list_length, a->lists[0], NULL);
  kn_value *last = n ? kn_add_list_get(b, a->lists[0], n) : NULL;
  kn_node *there = last ? kn_add_if(b, scalar(a, KN_NODE_lua_eq, last, trips)) : NULL;
  if (!there) return;
  b->at = there->regions[0];
  kn_value *rest = scalar(a, KN_NODE_lua_sub, n, kg_integer(w, 1));
  for (uint32_t i = 0; i < a->nlists && kg_ok(w); i++)
    a->first[i] = of_list(a, KN_NODE_list_first, a->lists[i], rest);
  b->at = at;
  for (uint32_t i = 0; i < a->nlists && kg_ok(w); i++)
    a->first[i] = kn_if_output(b, there, NULL, NULL, a->first[i], a->lists[i]);
}

void kg_again_open(kg_again *a, kn_value *trips) {
  kg_walk *w = a->w;
  drop_last_trip(a, trips);
  a->outer_seen = kg_alloc(w, (a->nouter + 1) * sizeof *a->outer_seen);
  for (uint32_t i = 0; a->outer_seen && i < a->nouter && kg_ok(w); i++) {
    kn_value *v = a->outer[i], *seen = a->outer_seen[i] = kg_see(w, v);
    if (seen && seen != v) kg_put(w, &w->seen_of, seen->id, v);
  }
  if (a->random) a->stream = read_stream(a);
}

void kg_again_close(kg_again *a) {
  if (a->random) swap_stream(a, a->stream);
}

void kg_again_params(kg_again *a, kn_node *back) {
  for (uint32_t i = 0; i < a->nlists && kg_ok(a->w); i++)
    a->after[i] = kn_loop_param(a->w->b, back, NULL, i ? NULL : "checkpoints", a->first[i]);
}

/* Texts that are printed were printed, and what is asserted outside of attempts holds. */
static void strip(kn_region *r, bool caught) {
  for (kn_node *n = r->first, *next; n; n = next) {
    next = n->next;
    bool done = kn_opcode_says(n->op) || n->op == KN_NODE_store_state || (n->op == KN_NODE_assert && !caught);
    for (int k = 0; k < n->nregions; k++) strip(n->regions[k], caught || (!k && kn_is_attempt(n)));
    if (done) kn_node_remove(n);
  }
}

/* Copies of the nodes, where the builder stands; by id in *map, with what is carried in `carried`. */
static void compute(kg_again *a, kn_node *const *nodes, uint32_t n, kn_value *const *carried,
                    kn_value ***map) {
  kg_walk *w = a->w;
  kn_copy c = {.b = w->b, .from = w->b->graph, .room = w->b->graph->nvalues + 1};
  const kn_where *where = w->b->where;
  *map = c.map = kg_alloc(w, c.room * sizeof *c.map);
  if (!c.map) return;
  for (uint32_t i = 0; i < a->nouter; i++) c.map[a->outer[i]->id] = a->outer_seen[i];
  for (uint32_t i = 0; i < a->nparam; i++) c.map[a->loop->regions[0]->params[a->param[i]]->id] = carried[i];
  for (uint32_t i = 0; i < n && kg_ok(w); i++) {
    if (!kn_copy_node(&c, nodes[i])) break;
    kn_node *made = w->b->at->last;
    for (int k = 0; k < made->nregions; k++) strip(made->regions[k], !k && kn_is_attempt(made));
  }
  w->b->where = where;
}

/* How many trips to go from one to another before the next checkpoint. */
static kn_value *go(kg_again *a, kn_value *const *lists, kn_value *from, kn_value *to) {
  kn_value *each, *sum = bytes_of(a, lists, &each), *left = scalar(a, KN_NODE_lua_sub, memory(a), sum);
  kn_value *room =
      scalar(a, KN_NODE_lua_sub, scalar(a, KN_NODE_lua_idiv, left, each), kg_integer(a->w, SPARE));
  kn_value *trips = scalar(a, KN_NODE_lua_sub, to, from);
  return scalar(a, KN_NODE_lua_add, from, scalar(a, KN_NODE_checkpoint_after, trips, room));
}

/* The last checkpoint, where it is of the trip whose turn it is: that is used up. */
static void use_last(kg_again *a, kn_value *n, kn_value **carried, kn_value **lists) {
  kg_walk *w = a->w;
  for (uint32_t i = 0; i < a->nparam && kg_ok(w); i++) carried[i] = kn_add_list_get(w->b, a->after[1 + i], n);
  if (a->random && kg_ok(w)) swap_stream(a, kn_add_list_get(w->b, a->after[a->nlists - 1], n));
  kn_value *rest = scalar(a, KN_NODE_lua_sub, n, kg_integer(w, 1));
  for (uint32_t i = 0; i < a->nlists && kg_ok(w); i++)
    lists[i] = of_list(a, KN_NODE_list_first, a->after[i], rest);
}

/* One trip on the way: what it carries on, and a checkpoint behind it when its time has come. */
static void go_on(kg_again *a, kn_node *loop, kn_value *to, kn_value **carried, kn_value **lists) {
  kg_walk *w = a->w;
  kn_builder *b = w->b;
  kn_region *r = a->loop->regions[0], *body = loop->regions[0], *at = b->at;
  uint32_t n = a->nparam + a->nlists + 2;
  kn_value **next = kg_alloc(w, (n + 1) * sizeof *next), **more = kg_alloc(w, a->nlists * sizeof *more),
           **map;
  kn_value *from = body->params[0], *goal = body->params[1];
  b->at = body;
  compute(a, a->next, a->nnext, carried, &map);
  if (!next || !more || !kg_ok(w)) return;
  for (uint32_t i = 0; i < a->nparam; i++) carried[i] = map[r->yields[1 + a->param[i]]->id];
  kn_value *here = scalar(a, KN_NODE_lua_add, from, kg_integer(w, 1)),
           *on = scalar(a, KN_NODE_lua_lt, here, to);
  kn_node *keep = kn_add_if(b, both(a, scalar(a, KN_NODE_lua_eq, here, goal), on));
  if (!keep) return;
  b->at = keep->regions[0];
  memcpy(more, lists, a->nlists * sizeof *more);
  add_checkpoint(a, more, here, carried, a->random ? read_stream(a) : NULL);
  kn_value *further = kg_ok(w) ? go(a, more, here, to) : NULL;
  b->at = body;
  for (uint32_t i = 0; i < a->nlists && kg_ok(w); i++)
    lists[i] = kn_if_output(b, keep, NULL, NULL, more[i], lists[i]);
  next[0] = here;
  next[1] = further ? kn_if_output(b, keep, NULL, NULL, further, goal) : NULL;
  memcpy(&next[2], carried, a->nparam * sizeof *next);
  memcpy(&next[2 + a->nparam], lists, a->nlists * sizeof *next);
  b->at = at;
  if (kg_ok(w)) kn_loop_finish(b, loop, on, next);
}

/* From the last checkpoint to the trip whose turn it is. */
static void go_from_last(kg_again *a, kn_value *n, kn_value *from, kn_value *to, kn_value **carried,
                         kn_value **lists) {
  kg_walk *w = a->w;
  kn_builder *b = w->b;
  for (uint32_t i = 0; i < a->nparam && kg_ok(w); i++) carried[i] = kn_add_list_get(b, a->after[1 + i], n);
  if (a->random && kg_ok(w)) swap_stream(a, kn_add_list_get(b, a->after[a->nlists - 1], n));
  kn_value *goal = kg_ok(w) ? go(a, a->after, from, to) : NULL;
  kn_node *loop = kn_add_loop(b);
  if (!loop || !goal) return;
  kn_loop_param(b, loop, NULL, NULL, from);
  kn_loop_param(b, loop, NULL, NULL, goal);
  for (uint32_t i = 0; i < a->nparam; i++) {
    kn_vtype type = type_of(a, 1 + i);
    carried[i] = kn_loop_param(b, loop, &type, NULL, carried[i]);
  }
  for (uint32_t i = 0; i < a->nlists; i++) lists[i] = kn_loop_param(b, loop, NULL, NULL, a->after[i]);
  if (kg_ok(w)) go_on(a, loop, to, carried, lists);
  for (uint32_t i = 0; i < a->nparam && kg_ok(w); i++)
    carried[i] = kn_loop_output(b, loop, NULL, NULL, carried[i]);
  for (uint32_t i = 0; i < a->nlists && kg_ok(w); i++)
    lists[i] = kn_loop_output(b, loop, NULL, NULL, lists[i]);
}

/* Copies depend on an x where what they are copies of does. */
static void mark_copies(kg_again *a, uint32_t n0) {
  kg_walk *w = a->w;
  for (uint32_t id = 1; id < n0 && kg_ok(w); id++) {
    kn_value *v = a->map[id], of = {.id = id};
    if (v && v->id >= n0 && kg_needs(w, &of)) kg_put(w, &w->copied, v->id, v);
  }
}

void kg_again_trip(kg_again *a, kn_value *at) {
  kg_walk *w = a->w;
  kn_builder *b = w->b;
  kn_region *r = b->at;
  kn_value **carried[2], **lists[2];
  for (int k = 0; k < 2; k++) {
    carried[k] = kg_alloc(w, (a->nparam + 1) * sizeof **carried);
    lists[k] = kg_alloc(w, a->nlists * sizeof **lists);
  }
  if (!kg_ok(w)) return;
  uint32_t n0 = b->graph->nvalues + 1;
  kn_value *n = of_list(a, KN_NODE_list_length, a->after[0], NULL);
  kn_value *last = n ? kn_add_list_get(b, a->after[0], n) : NULL;
  kn_node *there = last ? kn_add_if(b, scalar(a, KN_NODE_lua_eq, last, at)) : NULL;
  if (!there) return;
  b->at = there->regions[0];
  use_last(a, n, carried[0], lists[0]);
  b->at = there->regions[1];
  go_from_last(a, n, last, at, carried[1], lists[1]);
  b->at = r;
  for (uint32_t i = 0; i < a->nparam && kg_ok(w); i++) {
    kn_vtype type = type_of(a, 1 + i);
    carried[0][i] = kn_if_output(b, there, &type, NULL, carried[0][i], carried[1][i]);
  }
  for (uint32_t i = 0; i < a->nlists && kg_ok(w); i++)
    a->after[i] = kn_if_output(b, there, NULL, NULL, lists[0][i], lists[1][i]);
  if (!kg_ok(w)) return;
  compute(a, a->trip, a->ntrip, carried[0], &a->map);
  if (kg_ok(w)) mark_copies(a, n0);
}
