/* Calls of Graph objects that have no Lua function: traced, loaded, parsed and built ones. Their nodes are
 * copied to where capture is; slots become places that are read as any outside, results what they are of the
 * arguments. What the nodes would do outside (state, writes to arguments, own gradients) is refused. */
#include "lua/capture/nested.h"
#include "lua/capture/handle.h"
#include "lua/capture/protect.h"
#include "lua/capture/race.h"
#include "graph/attempt.h"
#include "graph/inline.h"
#include <string.h>

enum { MAX_DEEP = 60 };

typedef struct copying {
  kc_cap *c;
  kc_state *s;
  uint32_t object;
  const char *name; /* of the Graph, as it was reached */
  const kn_graph *g;
  kn_value **in, **out;
  kc_val *given; /* by input; NONE: not met */
  kn_value **slot;
  kc_val *found; /* by slot: what is there; NONE: data */
  uint32_t *table;
  uint32_t ntable; /* arguments' tables by number, results' after them */
  uint64_t place;
  kc_val *result; /* by output */
} copying;

static kc_res bad(copying *x, const char *path, const char *wanted, kc_val got) {
  return kc_fail(x->c, "calls the Graph '%s' (graph %s): %s: %s is needed, got a %s", x->name, x->g->name,
                 path, wanted, kc_kind_name(got));
}

/* The value of a tensor; a handle is read. */
static kn_value *read_tensor(copying *x, kc_val a) {
  kc_cap *c = x->c;
  for (uint32_t id = a.k == KC_V_HANDLE ? a.id : 0; id; id = c->han[id].parent)
    if (!c->han[id].parent) kc_touch(c, x->s, (kc_place){KC_PLACE_TENSOR, id, KC_NILV}, false);
  return kc_tensor_value(c, x->s, a);
}

/* ---- arguments ---- */

/* Sizes that the graph has as numbers, or by one name, must be known to be so. */
static kc_res check_sizes(copying *x) {
  kc_cap *c = x->c;
  const kn_region *body = x->g->body;
  int64_t *named = kc_new(c, (x->g->nsymbols + 1) * sizeof *named);
  kc_val *of = kc_vals(c, (int)x->g->nsymbols + 1);
  for (uint32_t k = 0; k < x->g->nsymbols; k++) named[k] = KN_DIM_UNKNOWN, of[k] = KC_NILV;
  for (uint32_t i = 0; i < body->nparams; i++) {
    const kn_vtype *t = &body->params[i]->type;
    if (t->kind != KN_V_TENSOR || x->in[i]->type.kind != KN_V_TENSOR) continue;
    if (x->in[i]->type.tensor.rank != t->tensor.rank) continue; /* kn_inline says so */
    for (int d = 0; d < t->tensor.rank; d++) {
      int64_t want = t->tensor.dims[d], is = x->in[i]->type.tensor.dims[d];
      uint64_t k = kn_dim_symbol_of(want);
      kc_val both[2] = {x->given[i], x->given[i]};
      if (want == KN_DIM_UNKNOWN) continue;
      if (!kn_dim_known(want)) {
        if (of[k].k == KC_V_NIL) {
          named[k] = is, of[k] = x->given[i];
          continue;
        }
        want = named[k], both[1] = of[k];
      }
      if (is == want && is != KN_DIM_UNKNOWN) continue;
      if (!kn_dim_known(is) || !kn_dim_known(want)) KC_TRY(kc_burn_sizes(c, x->s, both, 2));
      char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
      return kc_fail(c, "calls the Graph '%s' (graph %s): input %u must be %s, got %s%s", x->name, x->g->name,
                     i + 1, kn_vtype_text(x->g, t, a, sizeof a),
                     kn_vtype_text(c->b.graph, &x->in[i]->type, b, sizeof b),
                     kn_dim_known(is) && kn_dim_known(want)
                         ? ""
                         : ", of which not all sizes are known; call it outside and pass the result");
    }
  }
  return KC_GO;
}

static kc_res give_value(copying *x, const kn_tree *t, const char *path, kc_val a) {
  kc_cap *c = x->c;
  kc_val *given = &x->given[t->i];
  kn_vkind kind = t->value->type.kind;
  if (given->k != KC_V_NONE)
    return kc_same(*given, a) ? KC_GO
                              : kc_fail(c,
                                        "calls the Graph '%s' (graph %s): %s must be the same as an argument "
                                        "before it",
                                        x->name, x->g->name, path);
  *given = a;
  if (kind == KN_V_TENSOR) {
    if (!kc_is_tensor(a)) return bad(x, path, "a tensor", a);
    x->in[t->i] = read_tensor(x, a);
    return KC_GO;
  }
  kc_val v;
  kn_vkind is = KN_V_TENSOR;
  kc_scalar_kind(a, &is);
  if (kn_find_need(x->g, t->value, KN_NEED_exact) && is != kind && kind != KN_V_NUMBER)
    v = (kc_val){.k = KC_V_NONE};
  else
    KC_TRY(kc_give_scalar(c, a, kind, &v));
  if (v.k == KC_V_NONE)
    return bad(x, path, kind == KN_V_BOOL ? "a boolean" : kind == KN_V_INT ? "an integer" : "a number", a);
  x->in[t->i] = kc_value(c, v);
  return KC_GO;
}

static kc_val constant(kc_cap *c, const kn_tree *t) {
  switch (t->kind) {
  case KN_TREE_BOOL: return kc_bool(t->i != 0);
  case KN_TREE_INT: return kc_int(t->i);
  case KN_TREE_FLOAT: return kc_float(t->f);
  case KN_TREE_STRING: return kc_string(c, t->text, t->n);
  default: return KC_NILV;
  }
}

static kc_res give_constant(copying *x, const kn_tree *t, const char *path, kc_val a) {
  kc_cap *c = x->c;
  char want[128];
  kc_val k = constant(c, t);
  if (a.k == KC_V_SYM) KC_TRY(kc_burn(c, a));
  bool nan = k.k == KC_V_FLOAT && a.k == KC_V_FLOAT && k.f != k.f && a.f != a.f;
  bool zero = k.k == KC_V_FLOAT && a.k == KC_V_FLOAT && k.f == a.f; /* Lua compares -0.0 and 0.0 equal */
  if (nan || zero || kc_same(k, a)) return KC_GO;
  return kc_fail(c, "calls the Graph '%s' (graph %s): %s: the graph was made for %s here, got a %s", x->name,
                 x->g->name, path, kc_value_text(c, k, want, sizeof want), kc_kind_name(a));
}

/* Tables are one where they were one when the graph was made, and only there. */
static kc_res same_tables(copying *x, uint32_t number, const char *path, uint32_t id) {
  bool fits = x->table[number] == 0 || x->table[number] == id;
  for (uint32_t i = 1; i < x->ntable; i++) fits &= i == number || x->table[i] != id;
  if (number) x->table[number] = id;
  return fits || !number
             ? KC_GO
             : kc_fail(x->c,
                       "calls the Graph '%s' (graph %s): %s is a table where it was another, or another "
                       "where it was one, when the graph was made",
                       x->name, x->g->name, path);
}

static kc_res give(copying *x, const kn_tree *t, const char *path, kc_val a, int depth);

static kc_res give_table(copying *x, const kn_tree *t, const char *path, kc_val a, int depth) {
  kc_cap *c = x->c;
  kc_val meta, k = KC_NILV, v;
  if (a.k != KC_V_TABLE || depth > MAX_DEEP) return bad(x, path, "a table", a);
  KC_TRY(kc_metatable(c, x->s, a, &meta));
  if (meta.k != KC_V_NIL) return bad(x, path, "a table without a metatable", a);
  KC_TRY(same_tables(x, t->same_as, path, a.id));
  for (;;) {
    KC_TRY(kc_next(c, x->s, a.id, k, &k, &v));
    if (k.k == KC_V_NIL) break;
    uint32_t i = 0;
    while (i < t->n && !kc_same(constant(c, &t->keys[i]), k)) i++;
    if (i == t->n)
      return kc_fail(c, "calls the Graph '%s' (graph %s): the graph has no use for field %s", x->name,
                     x->g->name, kc_field_path(c, path, k));
  }
  for (uint32_t i = 0; i < t->n; i++) {
    k = constant(c, &t->keys[i]);
    KC_TRY(kc_raw_get(c, x->s, a.id, k, &v));
    KC_TRY(give(x, &t->items[i], kc_field_path(c, path, k), kc_resolve(c, x->s, v), depth + 1));
  }
  return KC_GO;
}

static kc_res give(copying *x, const kn_tree *t, const char *path, kc_val a, int depth) {
  if (a.k == KC_V_UNION || a.k == KC_V_POISON || a.k == KC_V_TEXT)
    return kc_fail(x->c, "calls the Graph '%s' (graph %s): %s is a %s", x->name, x->g->name, path,
                   kc_kind_name(a));
  if (t->kind == KN_TREE_VALUE) return give_value(x, t, path, a);
  return t->kind == KN_TREE_TABLE ? give_table(x, t, path, a, depth) : give_constant(x, t, path, a);
}

static kc_res give_all(copying *x, const kc_val *a, int n) {
  kc_cap *c = x->c;
  const kn_graph *g = x->g;
  while (n > (int)g->nargs && a[n - 1].k == KC_V_NIL) n--; /* nil is nothing */
  if (n > (int)g->nargs)
    return kc_fail(c, "calls the Graph '%s' (graph %s), which takes %u argument%s, with %d", x->name, g->name,
                   g->nargs, g->nargs == 1 ? "" : "s", n);
  for (uint32_t i = 0; i < g->nargs; i++) {
    const kn_tree *t = &g->args[i];
    const char *name = t->kind == KN_TREE_VALUE ? t->value->name : NULL;
    KC_TRY(give(x, t, kc_format(c, name ? "argument %u (%s)" : "argument %u", i + 1, name ? name : ""),
                (int)i < n ? a[i] : KC_NILV, 0));
  }
  for (uint32_t i = 0; i < g->body->nparams; i++)
    if (!x->in[i])
      return kc_fail(c, "calls the Graph '%s' (graph %s): input %u is no argument", x->name, g->name, i + 1);
  return check_sizes(x);
}

/* ---- what cannot be part of another graph ---- */

static kc_res check_effects(copying *x) {
  const kn_graph *g = x->g;
  for (uint32_t i = 0; i < g->nneeds; i++) {
    kn_need_kind k = g->needs[i].kind;
    if (k == KN_NEED_no_grad || k == KN_NEED_gradients || k == KN_NEED_no_gradients)
      return kc_fail(
          x->c,
          "calls the Graph '%s' (graph %s), which has gradients of its own; call it outside and pass "
          "the result, or call the function it was made of",
          x->name, g->name);
  }
  KN_EACH_NODE (n, g->body) {
    if (n->op == KN_NODE_load_state || n->op == KN_NODE_store_state)
      return kc_fail(
          x->c,
          "calls the Graph '%s' (graph %s), which keeps state of its own, '%s'; call it outside and "
          "pass the result, or call the function it was made of",
          x->name, g->name, n->slot->name);
    if (n->op == KN_NODE_update)
      return kc_fail(
          x->c,
          "calls the Graph '%s' (graph %s), which overwrites a tensor that is given to it; call it "
          "outside, or call the function it was made of",
          x->name, g->name);
  }
  return KC_GO;
}

/* How the elements of an argument lie matters to the graph: an input is looked at when it runs, what was
 * computed lies in order. */
static kc_res check_layout(copying *x) {
  const kn_graph *g = x->g;
  for (uint32_t i = 0; i < g->nneeds; i++) {
    if (!g->needs[i].input || g->needs[i].kind == KN_NEED_exact) continue;
    const kn_value *v = x->in[g->needs[i].input->index];
    if (!v->def && v->region == x->c->b.graph->body) continue;
    bool made = v->def && kn_opcode_is_op(v->def->op) && kn_ops[v->def->op].op_class != KN_CLASS_VIEW;
    if (g->needs[i].kind == KN_NEED_contiguous && made) continue;
    return kc_fail(x->c,
                   "calls the Graph '%s' (graph %s), which needs its input %u %s; give it a clone, or call "
                   "the function it was made of",
                   x->name, g->name, g->needs[i].input->index + 1, g->needs[i].text);
  }
  return KC_GO;
}

/* ---- slots ---- */

static kc_res find_slot(copying *x, const kn_slot *slot, kc_val *out) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  int top = lua_gettop(L);
  kc_push_object(c, x->object);
  c->host->push_slot(L, top + 1, slot);
  kc_val holder = kc_import(c, top + 2, x->name), key = kc_import(c, top + 3, NULL);
  lua_settop(L, top);
  if (holder.k == KC_V_TABLE) return kc_raw_get(c, x->s, holder.id, key, out);
  if (holder.k != KC_V_CLOSURE || key.k != KC_V_INT) return kc_fail(c, "internal: a slot has no place");
  KC_TRY(kc_load_closure(c, holder.id));
  if (key.i < 1 || key.i > c->clos[holder.id].p->nup) return kc_fail(c, "internal: a slot has no place");
  return kc_cell_get(c, x->s, c->clos[holder.id].cell[key.i - 1], out);
}

static kc_res read_slot(copying *x, const kn_slot *slot) {
  kc_cap *c = x->c;
  bool again;
  kc_val v;
  kn_slot *made;
  if (slot->kind == KN_SLOT_CONST) {
    if (!slot->tensor)
      return kc_fail(c, "calls the Graph '%s' (graph %s): slot \"%s\" has no data", x->name, x->g->name,
                     slot->name);
    return kc_import_tensor(c, slot->tensor, kc_format(c, "%s.%s", x->name, slot->name), KN_SLOT_CONST, &made,
                            &x->slot[slot->index], &again);
  }
  KC_TRY(find_slot(x, slot, &v));
  if (v.k == KC_V_UNION || v.k == KC_V_POISON || v.k == KC_V_NIL ||
      kc_is_tensor(v) != (slot->type.kind == KN_V_TENSOR))
    return kc_fail(c, "calls the Graph '%s' (graph %s): '%s', which it reads, is a %s", x->name, x->g->name,
                   slot->name, kc_kind_name(v));
  if (slot->type.kind != KN_V_TENSOR) KC_TRY(kc_give_scalar(c, v, slot->type.kind, &v));
  kn_value *is = kc_is_tensor(v) ? read_tensor(x, v) : v.k == KC_V_NONE ? NULL : kc_value(c, v);
  if (!is || !kn_vtype_fits(&is->type, &slot->type)) {
    char a[KN_TYPE_TEXT];
    return kc_fail(c, "calls the Graph '%s' (graph %s): '%s', which it reads, must be %s", x->name,
                   x->g->name, slot->name, kn_vtype_text(x->g, &slot->type, a, sizeof a));
  }
  x->found[slot->index] = v;
  x->slot[slot->index] = is;
  return KC_GO;
}

static kc_res read_slots(copying *x, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    if (n->slot && !x->slot[n->slot->index]) KC_TRY(read_slot(x, n->slot));
    for (int i = 0; i < n->nregions; i++) KC_TRY(read_slots(x, n->regions[i]));
  }
  return KC_GO;
}

static kn_value *slot_value(void *ud, const kn_slot *slot) {
  const copying *x = ud;
  return x->slot[slot->index];
}

/* ---- results ---- */

/* May it be, on some path, a tensor that was there before, and is not the op's that is seen here? */
static bool handed_on(const kn_value *v) {
  if (v->type.kind != KN_V_TENSOR || !v->def || !v->def->nregions) return false;
  if (v->def->op == KN_NODE_loop) return true;
  for (int i = 0; i < v->def->nregions; i++) {
    const kn_region *r = v->def->regions[i];
    const kn_value *y = v->index < r->nyields ? r->yields[v->index] : NULL;
    if (!y || !y->def || y->def->region != r || y->def->slot || handed_on(y)) return true;
  }
  return false;
}

static kc_res result_value(copying *x, const kn_tree *t, kc_val *out) {
  kc_cap *c = x->c;
  const kn_value *v = x->g->body->yields[t->i];
  kc_val *known = &x->result[t->i];
  for (int64_t i = 0; i < t->i; i++)
    if (x->g->body->yields[i] == v && x->result[i].k != KC_V_NONE) *known = x->result[i];
  if (known->k == KC_V_NONE) {
    kc_birth birth = {KC_BORN_HERE, x->place};
    bool tensor = v->type.kind == KN_V_TENSOR, born = tensor && kc_is_born(c, birth);
    if (!v->def && tensor)
      *known = x->given[v->index];
    else if (tensor && v->def && v->def->slot && x->found[v->def->slot->index].k != KC_V_NONE)
      *known = x->found[v->def->slot->index];
    else {
      for (uint32_t i = 0; i < x->g->body->nparams && !born; i++) born = x->given[i].k == KC_V_HANDLE;
      if (born && handed_on(v))
        return kc_fail(
            c,
            "the Graph '%s' (graph %s) may give back one of the tensors given to it, depending on the branch "
            "it takes, and one of them is written to here; clone the result, or call the function it was "
            "made of",
            x->name, x->g->name);
      *known = kc_is_born(c, birth) && tensor ? kc_ref(KC_V_HANDLE, kc_handle_new(c, x->s, x->out[t->i]))
                                              : kc_sym(x->out[t->i]);
    }
  }
  *out = *known;
  return KC_GO;
}

static kc_res result(copying *x, const kn_tree *t, int depth, kc_val *out) {
  kc_cap *c = x->c;
  if (depth > MAX_DEEP) return kc_fail(c, "the Graph '%s' gives a table that is nested too deeply", x->name);
  if (t->kind == KN_TREE_VALUE) return result_value(x, t, out);
  if (t->kind == KN_TREE_AGAIN) return *out = kc_ref(KC_V_TABLE, x->table[t->same_as]), KC_GO;
  if (t->kind == KN_TREE_CHOICE || t->kind == KN_TREE_TEXT)
    return kc_fail(c,
                   "calls the Graph '%s' (graph %s), which gives %s; call it outside and pass the result, "
                   "or call the function it was made of",
                   x->name, x->g->name,
                   t->kind == KN_TREE_TEXT ? "a string made of numbers"
                                           : "values of one kind or another, depending on data");
  if (t->kind != KN_TREE_TABLE) return *out = constant(c, t), KC_GO;
  if (t->same_as && x->table[t->same_as]) return *out = kc_ref(KC_V_TABLE, x->table[t->same_as]), KC_GO;
  uint32_t id = kc_table_new(c, x->s);
  x->table[t->same_as] = id;
  *out = kc_ref(KC_V_TABLE, id);
  for (uint32_t i = 0; i < t->n; i++) {
    kc_val v;
    KC_TRY(result(x, &t->items[i], depth + 1, &v));
    kc_table_put(c, kc_table_write(c, x->s, id), constant(c, &t->keys[i]), v);
  }
  return KC_GO;
}

/* ---- the call ---- */

static uint32_t most_tables(const kn_tree *t, uint32_t n) {
  uint32_t most = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t inside = t[i].kind == KN_TREE_TABLE ? most_tables(t[i].items, t[i].n) : 0;
    if (t[i].same_as > most) most = t[i].same_as;
    if (inside > most) most = inside;
  }
  return most;
}

static void no_tables(copying *x, const kn_tree *t, uint32_t n) {
  x->ntable = most_tables(t, n) + 1;
  x->table = kc_new(x->c, x->ntable * sizeof *x->table);
  memset(x->table, 0, x->ntable * sizeof *x->table);
}

static kc_val *none(kc_cap *c, uint32_t n) {
  kc_val *v = kc_vals(c, (int)n + 1);
  for (uint32_t i = 0; i < n; i++) v[i].k = KC_V_NONE;
  return v;
}

static kc_res call_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const copying *call = ud;
  copying x = *call;
  const kn_graph *g = x.g;
  const kn_region *body = g->body;
  uint32_t first = c->b.graph->nvalues + 1;
  int n = (int)call->ntable;
  x.s = *s;
  x.place = kc_here(*s);
  x.in = kc_new(c, (body->nparams + 1) * sizeof *x.in);
  memset(x.in, 0, (body->nparams + 1) * sizeof *x.in);
  x.out = kc_new(c, (body->nyields + 1) * sizeof *x.out);
  x.slot = kc_new(c, (g->nslots + 1) * sizeof *x.slot);
  memset(x.slot, 0, (g->nslots + 1) * sizeof *x.slot);
  x.given = none(c, body->nparams);
  x.found = none(c, g->nslots);
  x.result = none(c, body->nyields);
  no_tables(&x, g->args, g->nargs);
  KC_TRY(give_all(&x, a, n));
  KC_TRY(check_layout(&x));
  KC_TRY(read_slots(&x, body));
  c->b.where = kc_where(c);
  kn_inlining job = {.b = &c->b,
                     .graph = g,
                     .in = x.in,
                     .out = x.out,
                     .slot = slot_value,
                     .ud = &x,
                     .name = kc_format(c, "graph %s", g->name)};
  if (kn_inline(&job) != KN_OK) return kc_fail(c, "%s", kc_format(c, "%s", kn_error(c->ctx)));
  kc_note_made(c, first, x.place);
  if (c->protect && kn_region_may_raise(body)) KC_TRY(kc_may_raise(c));
  no_tables(&x, g->results, g->nresults);
  out->n = (int)g->nresults;
  out->v = kc_vals(c, out->n);
  for (int i = 0; i < out->n; i++) KC_TRY(result(&x, &g->results[i], 0, &out->v[i]));
  return KC_GO;
}

kc_res kc_call_nodes(kc_cap *c, kc_state **s, kc_val f, const kn_graph *g, const kc_val *args, int n,
                     kc_values *out) {
  const char *path = c->obj[f.id].path;
  copying x = {.c = c, .s = *s, .object = f.id, .name = path ? path : "?", .g = g, .ntable = (uint32_t)n};
  KC_TRY(check_effects(&x));
  kc_val *a = kc_vals(c, n + 1);
  for (int i = 0; i < n; i++) a[i] = kc_resolve(c, *s, args[i]);
  return kc_distribute(c, s, a, n, call_step, &x, out);
}
