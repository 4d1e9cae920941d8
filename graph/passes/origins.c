/* needs: nothing.
 * does:  makes the question which tensor stands at an end of the graph (a result, what is stored or updated)
 * a number, where branches and loops may hand on a tensor from outside or one of another end: 0 for one that
 * was made for this end alone, -1 for none, k for the k-th tensor that there is one of, more for one that was
 * made in a branch or trip, another number each time. A choice at the end takes that very tensor, so that
 * what leads there need only be its elements, and may be carried as copies (kn_node.told). keeps: all results
 * and which tensors they are; ends of which it cannot say that, as they are. */
#include "graph/internal.h"
#include "graph/may_be.h"
#include "graph/pipeline.h"

enum { MADE = 0, NONE = -1, MOST = 16 }; /* tensors that one end chooses from */

typedef struct origins {
  kn_builder *b;
  kn_may_be m;
  uint32_t room;         /* values that there were */
  uint8_t *ends;         /* by id, as all that follows: how many it may be at */
  bool *asked;           /* its number is */
  bool *spoilt;          /* made in a branch or loop, and at an end that has no number */
  kn_value **number;     /* which tensor it is */
  kn_value **stand;      /* of one that there is one of: the tensor, for the whole body */
  kn_value **told;       /* of an end: what is there instead */
  uint32_t *site, *mark; /* of one made in a branch or loop: from 1; the end that is looked at */
  kn_end *list;          /* all ends */
  uint32_t nlist, nsites, changes;
  int64_t tensors;
  kn_value *made, *none;
  kn_value *trip; /* nsites times as many as there were up to here */
  kn_node *first; /* of the body */
  bool again;
} origins;

/* ---- what may be told ---- */

typedef enum leaf {
  LEAF_MADE, /* of no other end */
  LEAF_NONE,
  LEAF_TOLD, /* one tensor for the whole run */
  LEAF_SITE, /* made in a branch or loop, where it may come to several ends: another one in each trip */
  LEAF_UNKNOWN
} leaf;

/* A tensor of its own each time. */
static bool is_made(const kn_node *d) {
  if (kn_opcode_is_op(d->op)) return true;
  return d->op == KN_NODE_to_tensor || d->op == KN_NODE_list_stack || d->op == KN_NODE_detach ||
         d->op == KN_NODE_with_history;
}

static leaf leaf_of(const origins *o, const kn_value *v) {
  const kn_node *d = v->def;
  const bool inside = v->region->owner != NULL;
  if (d && d->op == KN_NODE_undef) return LEAF_NONE;
  if (d && is_made(d) && o->ends[v->id] == 1) return LEAF_MADE;
  if (!inside || d->op == KN_NODE_param || d->op == KN_NODE_tensor) return LEAF_TOLD;
  return is_made(d) ? LEAF_SITE : LEAF_UNKNOWN;
}

/* The next of the tensors that a value may be, each once; those that hand it on are passed over. */
static const kn_value *next_leaf(origins *o, bool ask) {
  while (o->m.n) {
    const kn_value *v = o->m.todo[--o->m.n];
    o->asked[v->id] |= ask;
    if (!kn_may_be_step(&o->m, v)) return v;
  }
  return NULL;
}

static void begin(origins *o, const kn_value *v) {
  kn_may_be_begin(&o->m);
  kn_may_be_add(&o->m, v);
}

/* What may be at an end that has no number can have none at another. */
static void spoil(origins *o, const kn_value *end) {
  begin(o, end);
  for (const kn_value *v; (v = next_leaf(o, false));) {
    if (leaf_of(o, v) != LEAF_SITE || o->spoilt[v->id]) continue;
    o->spoilt[v->id] = o->again = true;
  }
}

/* Can the end have a number? */
static void find_end(origins *o, kn_value *end) {
  uint32_t told = 0;
  bool known = true;
  begin(o, end);
  for (const kn_value *v; (v = next_leaf(o, false));) {
    const leaf is = leaf_of(o, v);
    known &= v != end && is != LEAF_UNKNOWN && !o->spoilt[v->id];
    told += is != LEAF_MADE;
  }
  o->told[end->id] = known && told && told <= MOST ? end : NULL;
  if (told && !o->told[end->id]) spoil(o, end);
}

/* ---- numbers ---- */

/* Constants, and slots that are read in the depth: before all else. */
static kn_value *at_first(origins *o, kn_value *v) {
  if (v) kn_node_move_before(v->def, o->first);
  return v;
}

static kn_value *constant(origins *o, int64_t i) {
  o->b->at = o->b->graph->body;
  return at_first(o, kn_add_const(o->b, (kn_scalar){KN_SCALAR_INT, {.i = i}}));
}

static kn_value *itself(const kn_value *v) {
  return v->def ? v->def->out[v->index] : v->region->params[v->index];
}

static bool number_leaf(origins *o, const kn_value *v) {
  kn_value **number = &o->number[v->id];
  if (*number) return true;
  switch (leaf_of(o, v)) {
  case LEAF_MADE:
    if (!o->made) o->made = constant(o, MADE);
    *number = o->made;
    break;
  case LEAF_NONE:
    if (!o->none) o->none = constant(o, NONE);
    *number = o->none;
    break;
  case LEAF_SITE:
    if (!o->site[v->id]) o->site[v->id] = ++o->nsites;
    return true;
  default:
    *number = constant(o, ++o->tensors);
    o->stand[v->id] =
        v->region->owner ? at_first(o, kn_add_slot_node(o->b, v->def->op, v->def->slot)) : itself(v);
  }
  return *number != NULL;
}

static bool ask(origins *o, const kn_value *end) {
  if (!o->told[end->id]) return true;
  o->changes++;
  begin(o, end);
  for (const kn_value *v; (v = next_leaf(o, true));)
    if (!number_leaf(o, v)) return false;
  return true;
}

/* ---- beside the tensors ---- */

static bool is_asked(const origins *o, const kn_value *v) { return v->id < o->room && o->asked[v->id]; }

/* One more carried value; the next one is set when the body is done. */
static bool carry(origins *o, kn_node *loop, const char *name, kn_value *init, kn_value **out) {
  kn_region *r = loop->regions[0];
  const uint32_t at = 1 + r->nparams;
  kn_value *v = kn_loop_param(o->b, loop, NULL, name, init);
  if (!v || !kn_build_push(o->b, &r->yields, &r->nyields, &v, sizeof v)) return false;
  for (uint32_t i = r->nyields - 1; i > at; i--) r->yields[i] = r->yields[i - 1];
  r->yields[at] = *out = v;
  return true;
}

static bool walk(origins *o, kn_region *r);

static uint32_t site_of(const origins *o, const kn_node *n) {
  for (uint32_t i = 0; o->nsites && i < n->nout; i++)
    if (n->out[i]->id < o->room && o->site[n->out[i]->id]) return o->site[n->out[i]->id];
  return 0;
}

static bool has_site(const origins *o, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (site_of(o, n)) return true;
    for (int i = 0; i < n->nregions; i++)
      if (has_site(o, n->regions[i])) return true;
  }
  return false;
}

static kn_value *add(origins *o, kn_value *a, kn_value *c, kn_node *before) {
  kn_value *v = kn_add_scalar(o->b, KN_NODE_lua_add, (kn_value *[]){a, c}, 2);
  if (v && before) kn_node_move_before(v->def, before);
  return v;
}

/* Trips are counted through all loops, those inside of them included. */
static bool begin_trip(origins *o, kn_node *loop, kn_value **param) {
  kn_region *r = loop->regions[0];
  kn_node *first = r->first;
  if (!has_site(o, r)) return true;
  if (!carry(o, loop, "trip", o->trip, param)) return false;
  kn_value *one = constant(o, o->nsites);
  o->b->at = r;
  return one && (o->trip = add(o, *param, one, first)) != NULL;
}

static bool end_trip(origins *o, kn_node *loop, kn_value *param) {
  if (!param) return true;
  loop->regions[0]->yields[1 + param->index] = o->trip;
  return (o->trip = kn_loop_output(o->b, loop, NULL, "trip", o->trip)) != NULL;
}

static bool walk_site(origins *o, kn_node *n) {
  for (uint32_t i = 0; i < n->nout; i++) {
    const kn_value *v = n->out[i];
    if (!o->site[v->id]) continue;
    kn_value *which = constant(o, o->tensors + o->site[v->id]);
    o->b->at = n->region;
    if (!which || !(o->number[v->id] = add(o, o->trip, which, n->next))) return false;
  }
  return true;
}

static bool walk_loop(origins *o, kn_node *n) {
  kn_region *r = n->regions[0];
  const uint32_t nparams = r->nparams;
  kn_value *trip = NULL;
  for (uint32_t i = 0; i < nparams; i++) {
    kn_value *v = r->params[i], *init = n->in[i];
    if (!is_asked(o, v)) continue;
    if (r->yields[1 + i] == v)
      o->number[v->id] = o->number[init->id];
    else if (!carry(o, n, "origin", o->number[init->id], &o->number[v->id]))
      return false;
  }
  if (!begin_trip(o, n, &trip) || !walk(o, r)) return false;
  for (uint32_t i = 0; i < nparams; i++) {
    const kn_value *v = r->params[i], *next = r->yields[1 + i];
    if (is_asked(o, v) && next != v) r->yields[1 + o->number[v->id]->index] = o->number[next->id];
  }
  for (uint32_t i = 0, nout = n->nout; i < nout; i++) {
    if (!is_asked(o, n->out[i])) continue;
    kn_value *exit = o->number[r->yields[1 + r->nparams + i]->id], **number = &o->number[n->out[i]->id];
    *number = kn_value_inside(exit, r) ? kn_loop_output(o->b, n, NULL, "origin", exit) : exit;
    if (!*number) return false;
  }
  return end_trip(o, n, trip);
}

static bool walk_if(origins *o, kn_node *n) {
  kn_value *trip = o->trip, *then;
  if (!walk(o, n->regions[0])) return false;
  then = o->trip, o->trip = trip;
  if (!walk(o, n->regions[1])) return false;
  for (uint32_t i = 0, nout = n->nout; i < nout; i++) {
    if (!is_asked(o, n->out[i])) continue;
    kn_value *a = o->number[n->regions[0]->yields[i]->id], *c = o->number[n->regions[1]->yields[i]->id];
    kn_value **number = &o->number[n->out[i]->id];
    *number = a == c ? a : kn_if_output(o->b, n, NULL, "origin", a, c);
    if (!*number) return false;
  }
  if (then != o->trip) o->trip = kn_if_output(o->b, n, NULL, "trip", then, o->trip);
  return o->b->status == KN_OK;
}

static bool walk_choice(origins *o, kn_node *n) {
  o->b->at = n->region;
  kn_value *v = kn_add_select(o->b, n->in[0], o->number[n->in[1]->id], o->number[n->in[2]->id]);
  if (v && n->next != v->def) kn_node_move_before(v->def, n->next);
  return (o->number[n->out[0]->id] = v) != NULL;
}

static bool walk(origins *o, kn_region *r) {
  KN_EACH_NODE (n, r) {
    o->b->where = n->where;
    bool fine = true;
    if (n->op == KN_NODE_loop)
      fine = walk_loop(o, n);
    else if (n->op == KN_NODE_if)
      fine = walk_if(o, n);
    else if (n->op == KN_NODE_select && is_asked(o, n->out[0]))
      fine = walk_choice(o, n);
    else if (site_of(o, n))
      fine = walk_site(o, n);
    if (!fine) return false;
  }
  return true;
}

/* ---- ends ---- */

static kn_value *compare(origins *o, kn_opcode op, kn_value *x, kn_value *y) {
  return kn_add_scalar(o->b, op, (kn_value *[]){x, y}, 2);
}

static kn_value *choose(origins *o, kn_value *is, kn_value *there, kn_value *other) {
  kn_value *v = kn_add_select(o->b, is, there, other);
  if (v) v->def->told = true;
  return v;
}

/* Does the other end share a site with the marked one? */
static bool shares_site(origins *o, const kn_value *other, uint32_t mark) {
  bool found = false;
  begin(o, other);
  for (const kn_value *v; (v = next_leaf(o, false));) found |= o->mark[v->id] == mark;
  return found;
}

/* The tensor of an earlier end, where it is the same that was made in a branch or trip. */
static kn_value *choose_end(origins *o, const kn_value *end, const kn_value *other, kn_value *made) {
  kn_value *number = o->number[end->id], *last = constant(o, o->tensors);
  o->b->at = o->b->graph->body;
  kn_value *same = compare(o, KN_NODE_lua_eq, number, o->number[other->id]);
  kn_value *site = compare(o, KN_NODE_lua_lt, last, number);
  return choose(o, kn_add_select(o->b, same, site, same), o->told[other->id], made);
}

/* The choice for the i-th end, at the end of the body. */
static kn_value *choice(origins *o, uint32_t i) {
  kn_value *end = o->list[i].value, *made = end, *none = NULL;
  bool site = false;
  begin(o, end);
  for (const kn_value *v; made && (v = next_leaf(o, false));) {
    const leaf is = leaf_of(o, v);
    if (is == LEAF_SITE) o->mark[v->id] = i + 1, site = true;
    if (is == LEAF_TOLD && o->number[v->id] == o->number[end->id]) return o->stand[v->id];
    if (is != LEAF_TOLD && (is != LEAF_NONE || none)) continue;
    if (is == LEAF_NONE) none = kn_add_undef(o->b, &end->type);
    kn_value *equal = compare(o, KN_NODE_lua_eq, o->number[end->id], o->number[v->id]);
    made = choose(o, equal, is == LEAF_NONE ? none : o->stand[v->id], made);
  }
  for (uint32_t k = 0; site && made && k < i; k++)
    if (o->told[o->list[k].value->id] && shares_site(o, o->list[k].value, i + 1))
      made = choose_end(o, end, o->list[k].value, made);
  return made;
}

/* Where the end is first needed. */
static bool tell(origins *o, uint32_t i) {
  kn_region *body = o->b->graph->body;
  const kn_end *end = &o->list[i];
  kn_node *last = body->last, *before = body->first;
  if (!o->told[end->value->id]) return true;
  o->b->at = body;
  o->b->where = end->node ? end->node->where : end->value->def->where;
  kn_value *made = o->told[end->value->id] = choice(o, i);
  while (before && before != end->node) before = before->next;
  while (made && before && last->next) kn_node_move_before(last->next, before);
  return made != NULL;
}

static kn_value *instead(const origins *o, kn_value *v) { return o->told[v->id] ? o->told[v->id] : v; }

static void tell_results(const origins *o, kn_tree *t, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (t[i].kind == KN_TREE_VALUE) t[i].value = instead(o, t[i].value);
    if (kn_tree_has_items(t[i].kind)) tell_results(o, t[i].items, t[i].n);
  }
}

static bool rewrite(origins *o) {
  kn_region *body = o->b->graph->body;
  o->first = body->first;
  do {
    o->again = false;
    for (uint32_t i = 0; i < o->nlist; i++) find_end(o, o->list[i].value);
  } while (o->again);
  for (uint32_t i = 0; i < o->nlist; i++)
    if (!ask(o, o->list[i].value)) return false;
  if (!o->changes) return true;
  if (o->nsites && !(o->trip = constant(o, 0))) return false;
  if (!walk(o, body)) return false;
  for (uint32_t i = 0; i < o->nlist; i++)
    if (!tell(o, i)) return false;
  KN_EACH_NODE (n, body) {
    if (n->op != KN_NODE_store_state && n->op != KN_NODE_update) continue;
    n->in[n->nin - 1] = instead(o, n->in[n->nin - 1]);
  }
  for (uint32_t i = 0; i < body->nyields; i++) body->yields[i] = instead(o, body->yields[i]);
  tell_results(o, o->b->graph->results, o->b->graph->nresults);
  return true;
}

static bool writes(const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_WRITES) return true;
    for (int i = 0; i < n->nregions; i++)
      if (writes(n->regions[i])) return true;
  }
  return false;
}

static kn_status run(kn_builder *b, uint32_t *changes) {
  kn_graph *g = b->graph;
  origins o = {.b = b, .room = g->nvalues + 1};
  if (writes(g->body)) return KN_OK;
#define ARRAY(field) (o.field = kn_build_alloc(b, o.room * sizeof *o.field))
  if (!ARRAY(m.todo) || !ARRAY(m.seen) || !ARRAY(ends) || !ARRAY(asked) || !ARRAY(number) || !ARRAY(stand) ||
      !ARRAY(told) || !ARRAY(spoilt) || !ARRAY(site) || !ARRAY(mark) || !ARRAY(list))
    return b->status;
#undef ARRAY
  o.nlist = kn_list_ends(g->body, o.list);
  kn_count_ends(&o.m, o.list, o.nlist, o.ends);
  if (!rewrite(&o)) return b->status;
  *changes = o.changes;
  return KN_OK;
}

const kn_pass kn_pass_origins = {"origins", run};
