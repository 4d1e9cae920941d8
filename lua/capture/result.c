/* The end of a capture: results as trees, state that is stored, contents for outside tensors that the
 * function overwrites. See result.h. */
#include "graph/mutant.h"
#include "lua/capture/ends.h"
#include "lua/capture/grads.h"
#include "lua/capture/growing.h"
#include "lua/capture/result.h"
#include "lua/capture/text.h"
#include <string.h>

/* ---- results ---- */

/* A table whose fields are being gone through. */
typedef struct opened {
  uint32_t table;
  const struct opened *up;
} opened;

typedef struct gathering {
  kc_cap *c;
  kc_state *s;
  kc_ends ends;
  uint32_t *committed, ncommits; /* handles */
  const kc_given *given;
  uint32_t ngiven;
  kn_value **flat;
  uint32_t n;
  uint32_t *shared; /* table ids met so far, by number */
  uint32_t nshared, ntrees;
  const opened *open;
} gathering;

static kc_res result(gathering *g, kc_val a, int which, kn_tree *tree, int depth);

static kc_res result_tensor(gathering *g, kc_val a, kn_tree *tree) {
  kc_cap *c = g->c;
  kn_value *v = kc_end_of(&g->ends, a);
  if (!v) return kc_fail(c, "internal: a result was not met before");
  g->flat = kc_more(c, &c->arena, g->flat, g->n, sizeof *g->flat);
  g->flat[g->n++] = v;
  *tree = (kn_tree){.kind = KN_TREE_VALUE, .value = v};
  return KC_GO;
}

static kc_res result_table(gathering *g, uint32_t id, int which, kn_tree *tree, int depth) {
  kc_cap *c = g->c;
  if (depth > KC_MAX_DEEP) return kc_fail(c, "result %d is a table that is nested too deeply", which);
  if (c->tab[id].object || c->tab[id].argument)
    return kc_fail(
        c, "result %d is a table that exists outside the function; return its contents in a new table",
        which);
  const kc_table *t = kc_table_get(g->s, id);
  if (t->meta.k != KC_V_NIL)
    return kc_fail(c, "result %d is a table with a metatable; return a plain table", which);
  if (kc_list_of(g->s, id))
    return kc_fail(
        c, "result %d is a list whose length depends on tensor data; return kiln.stack(list) instead", which);
  uint32_t number = 0;
  while (number < g->nshared && g->shared[number] != id) number++;
  if (number == g->nshared) {
    g->shared = kc_more(c, &c->arena, g->shared, g->nshared, sizeof *g->shared);
    g->shared[g->nshared++] = id;
  }
  for (const opened *o = g->open; o; o = o->up)
    if (o->table == id) return *tree = (kn_tree){.kind = KN_TREE_AGAIN, .same_as = number + 1}, KC_GO;
  opened here = {id, g->open};
  g->open = &here;
  *tree = (kn_tree){.kind = KN_TREE_TABLE, .same_as = number + 1};
  tree->keys = kc_new(c, (t->n + 1) * sizeof *tree->keys);
  tree->items = kc_new(c, (t->n + 1) * sizeof *tree->items);
  for (uint32_t i = 0; i < t->n; i++) {
    kc_val v = kc_resolve(c, g->s, t->val[i]);
    if (v.k == KC_V_NIL) continue;
    if (t->key[i].k != KC_V_INT && t->key[i].k != KC_V_STRING)
      return kc_fail(c, "result %d is a table with a %s as key; keys of results are strings and integers",
                     which, kc_kind_name(t->key[i]));
    KC_TRY(result(g, t->key[i], which, &tree->keys[tree->n], depth + 1));
    KC_TRY(result(g, v, which, &tree->items[tree->n], depth + 1));
    tree->n++;
  }
  g->open = here.up;
  return KC_GO;
}

/* Of one kind or another: a number from 1 on says which alternative it is. */
static kc_res result_choice(gathering *g, const kc_union *u, int which, kn_tree *tree, int depth) {
  kc_cap *c = g->c;
  kc_val place = kc_int(u->n);
  for (int i = u->n - 1; i-- > 0;) {
    kc_val is = kc_equals_code(c, u->tag, u->alt[i].code);
    if (is.k == KC_V_BOOL)
      place = is.i ? kc_int(i + 1) : place;
    else
      place = kc_sym(kc_emit(c, KN_NODE_select, 3, is, kc_int(i + 1), place));
  }
  uint32_t n = (uint32_t)u->n + 1;
  *tree = (kn_tree){.kind = KN_TREE_CHOICE, .n = n};
  tree->keys = kc_new(c, n * sizeof *tree->keys);
  tree->items = kc_new(c, n * sizeof *tree->items);
  tree->keys[0] = (kn_tree){.kind = KN_TREE_STRING, .text = "which", .n = 5};
  KC_TRY(result(g, kc_sym(kc_value(c, place)), which, &tree->items[0], depth + 1));
  for (int i = 0; i < u->n; i++) {
    tree->keys[i + 1] = (kn_tree){.kind = KN_TREE_INT, .i = i + 1};
    KC_TRY(result(g, u->alt[i].v, which, &tree->items[i + 1], depth + 1));
  }
  return KC_GO;
}

/* A string made of values when the graph ran. */
static kc_res result_text(gathering *g, const kc_text *t, int which, kn_tree *tree, int depth) {
  kc_cap *c = g->c;
  if (t->n > 32) return kc_fail(c, "result %d is a string made of more than 32 values", which);
  *tree = (kn_tree){.kind = KN_TREE_TEXT, .text = c->obj[t->format].s, .n = t->n};
  tree->keys = kc_new(c, t->n * sizeof *tree->keys);
  tree->items = kc_new(c, t->n * sizeof *tree->items);
  for (uint32_t i = 0; i < t->n; i++) {
    tree->keys[i] = (kn_tree){.kind = KN_TREE_INT, .i = i + 1};
    KC_TRY(result(g, t->v[i], which, &tree->items[i], depth + 1));
  }
  return KC_GO;
}

static kc_res result(gathering *g, kc_val a, int which, kn_tree *tree, int depth) {
  kc_cap *c = g->c;
  a = kc_resolve(c, g->s, a);
  if (g->ntrees++ == KC_MAX_PARTS)
    return kc_fail(c, "result %d has more than %d parts, counted along every way to them", which,
                   KC_MAX_PARTS);
  switch (a.k) {
  case KC_V_NIL: *tree = (kn_tree){.kind = KN_TREE_NIL}; return KC_GO;
  case KC_V_BOOL: *tree = (kn_tree){.kind = KN_TREE_BOOL, .i = a.i}; return KC_GO;
  case KC_V_INT: *tree = (kn_tree){.kind = KN_TREE_INT, .i = a.i}; return KC_GO;
  case KC_V_FLOAT: *tree = (kn_tree){.kind = KN_TREE_FLOAT, .f = a.f}; return KC_GO;
  case KC_V_STRING:
    *tree = (kn_tree){.kind = KN_TREE_STRING, .text = c->obj[a.id].s, .n = (uint32_t)c->obj[a.id].n};
    return KC_GO;
  case KC_V_HANDLE: return result_tensor(g, a, tree);
  case KC_V_SYM:
    if (kc_is_tensor(a)) return result_tensor(g, a, tree);
    g->flat = kc_more(c, &c->arena, g->flat, g->n, sizeof *g->flat);
    g->flat[g->n++] = a.v;
    *tree = (kn_tree){.kind = KN_TREE_VALUE, .value = a.v};
    return KC_GO;
  case KC_V_TABLE: return result_table(g, a.id, which, tree, depth);
  case KC_V_TEXT: return result_text(g, a.t, which, tree, depth);
  case KC_V_UNION: return result_choice(g, a.u, which, tree, depth);
  case KC_V_OBJECT:
    if (kc_same(a, KC_ABSENT)) return *tree = (kn_tree){.kind = KN_TREE_NONE}, KC_GO;
    /* fall through */
  default:
    return kc_fail(
        c,
        "result %d is a %s, which cannot be a result of a graph; return the values it needs, and make it "
        "outside",
        which, kc_kind_name(a));
  }
}

/* ---- state ---- */

static const kc_val *final_value(kc_cap *c, kc_state *s, const kc_look *l) {
  if (l->kind == KC_LOOK_UPVALUE) {
    for (uint32_t i = 1; i < c->ncell; i++)
      if (c->cell[i].look == l) return kc_map_get(&s->cells, i);
    return NULL;
  }
  const kc_obj *o = &c->obj[l->container];
  const kc_table *t = o->attempt == c->attempt ? kc_table_get(s, o->val.id) : NULL;
  int64_t at = t ? kc_table_find(t, l->key) : -1;
  return at < 0 ? NULL : &t->val[at];
}

/* What is a place outside at the end? NULL: what it was. */
static const kc_val *stored(kc_cap *c, kc_state *s, const kc_look *l) {
  if (l->kind == KC_LOOK_GRAD || (!l->born && (!l->slot || l->slot->kind != KN_SLOT_STATE))) return NULL;
  const kc_val *v = final_value(c, s, l);
  return v && !kc_same(*v, l->seen) ? v : NULL;
}

static kc_res store(gathering *g, const kc_look *l, kc_val v) {
  kc_cap *c = g->c;
  kn_vkind kind, want = l->slot->type.kind;
  kn_value *end = kc_is_tensor(v)     ? kc_end_of(&g->ends, v)
                  : v.k == KC_V_UNION ? kc_chosen_end(&g->ends, v.u)
                                      : NULL;
  if (end) v = kc_sym(end);
  if (!kc_scalar_kind(v, &kind))
    return kc_fail(c, "'%s', which exists outside and holds a %s, becomes a %s: state keeps its kind",
                   l->name, kc_kind_name(l->seen), kc_kind_name(v));
  bool number = want != KN_V_TENSOR && want != KN_V_BOOL && kind != KN_V_TENSOR && kind != KN_V_BOOL;
  if (kind != want && number && want != KN_V_NUMBER) { /* an integer before and a float after */
    for (uint32_t i = 0; i < c->ndynamic; i++)
      if (c->dynamic[i].kind == l->kind && c->dynamic[i].container == l->container &&
          kc_same(c->dynamic[i].key, l->key))
        c->dynamic[i].any_number = true;
    return KC_RESTART;
  }
  if (kind != want && !number)
    return kc_fail(c, "'%s', which exists outside and holds a %s, becomes a %s: state keeps its kind",
                   l->name, kc_kind_name(l->seen), kc_kind_name(v));
  c->b.where = l->where;
  return kn_add_store(&c->b, l->slot, kc_value(c, v)) ? KC_GO : kc_fail(c, "state");
}

/* A place that is nil outside, and is set to something. */
static kc_res store_born(gathering *g, kc_look *l) {
  kc_cap *c = g->c;
  kc_state *s = g->s;
  const kc_val *at = final_value(c, s, l);
  kc_val v = at ? kc_resolve(c, s, *at) : KC_NILV;
  l->written = false;
  if (v.k == KC_V_NIL) return KC_GO;
  if (kc_is_tensor(v)) v = kc_sym(kc_end_of(&g->ends, v));
  kn_vtype type = {.kind = KN_V_TENSOR};
  if (!kc_scalar_kind(v, &type.kind))
    return kc_fail(c, "'%s', which exists outside and is nil, becomes a %s; give it a value before the call",
                   l->name, kc_kind_name(v));
  if (type.kind == KN_V_TENSOR) type = v.v->type;
  if (type.kind == KN_V_TENSOR && !kn_type_known(&type.tensor)) {
    KC_TRY(kc_burn_sizes(c, g->s, &v, 1));
    return kc_fail(
        c,
        "'%s', which exists outside and is nil, becomes a tensor whose sizes are only known when the "
        "graph runs; put a tensor there before",
        l->name);
  }
  c->b.where = l->where;
  l->slot = kn_add_slot(&c->b, KN_SLOT_STATE, l->name, &type, NULL);
  l->written = true;
  return l->slot && kn_add_store(&c->b, l->slot, kc_value(c, v)) ? KC_GO : kc_fail(c, "state");
}

static kc_res stores(gathering *g) {
  kc_cap *c = g->c;
  kc_state *s = g->s;
  for (kc_look *l = c->looks; l; l = l->next) {
    if (l->kind == KC_LOOK_GRAD) continue;
    if (l->born) KC_TRY(store_born(g, l));
    if (l->born || !l->slot || l->slot->kind != KN_SLOT_STATE) continue;
    const kc_val *v = stored(c, s, l);
    l->written = v;
    if (l->written && l->overwritten) {
      const char *name = kc_format(c, "%s, as it was", l->name);
      l->was = kn_add_slot(&c->b, KN_SLOT_STATE, name, &l->slot->type, l->slot->tensor);
    }
    if (l->kind == KC_LOOK_UPVALUE ? KN_MUTANT(upvalue_not_stored) : KN_MUTANT(field_not_stored)) continue;
    if (l->written) KC_TRY(store(g, l, kc_resolve(c, s, *v)));
  }
  return KC_GO;
}

/* ---- what is overwritten outside ---- */

static kc_look *look_of(kc_cap *c, const kn_slot *slot) {
  for (kc_look *l = c->looks; l; l = l->next)
    if (l->slot == slot && l->inplace && !l->again) return l;
  return NULL;
}

/* Another argument or slot that shows elements of t: writes would have to be seen there. `own`: its slot. */
static const char *sharing(const gathering *g, const kn_tensor *t, const kn_slot *own) {
  const kn_graph *graph = g->c->b.graph;
  for (uint32_t i = 0; i < g->ngiven; i++) {
    const kn_tensor *o = g->given[i].t;
    if (o && (own || o != t) && o->storage == t->storage) return g->given[i].tree.value->name;
  }
  for (uint32_t i = 0; i < graph->nslots; i++) {
    const kn_tensor *o = graph->slots[i]->tensor;
    if (o && o != t && graph->slots[i] != own && o->storage == t->storage) return graph->slots[i]->name;
  }
  return NULL;
}

static const kn_tensor *given_tensor(const gathering *g, const kc_handle_info *info) {
  for (uint32_t i = 0; i < g->ngiven; i++)
    if (g->given[i].leaf == info->leaf) return g->given[i].t;
  return NULL;
}

static kc_res commit(gathering *g, uint32_t id) {
  kc_cap *c = g->c;
  const kc_handle_info *info = &c->han[id];
  const kn_tensor *t = info->slot ? info->slot->tensor : given_tensor(g, info);
  const char *name = info->slot ? info->slot->name : info->initial->name,
             *other = t ? sharing(g, t, info->slot) : NULL;
  kn_value *v = kc_contents(c, g->s, id);
  if (!v || v == info->initial) return KC_GO;
  if (other)
    return kc_fail(c, "overwrites '%s', which shares memory with '%s'; give or keep a clone of one",
                   name ? name : "?", other);
  KC_TRY(kc_end_with(&g->ends, id, &v));
  g->committed = kc_more(c, &c->arena, g->committed, g->ncommits, sizeof *g->committed);
  g->committed[g->ncommits++] = id;
  kc_look *l = info->slot ? look_of(c, info->slot) : NULL;
  if (info->slot && !l) return kc_fail(c, "internal: a tensor outside has lost its place");
  if (l) l->overwritten = true;
  return KC_GO;
}

/* New contents get their values first, so that results know them; the nodes stand at the end of the body. */
static kc_res commits(gathering *g) {
  for (uint32_t id = 1; id < g->c->nhan; id++)
    if (g->c->han[id].initial) KC_TRY(commit(g, id));
  return KC_GO;
}

static kc_res add_commits(kc_cap *c, const gathering *g) {
  for (uint32_t i = 0; i < g->ncommits; i++) {
    const kc_handle_info *info = &c->han[g->committed[i]];
    kn_value *v = kc_end_of(&g->ends, kc_ref(KC_V_HANDLE, g->committed[i]));
    const kc_look *l = info->slot ? look_of(c, info->slot) : NULL;
    c->b.where = info->written;
    if (!(l ? kn_add_store(&c->b, l->was ? l->was : l->slot, v) : kn_add_update(&c->b, info->initial, v)))
      return kc_fail(c, "update");
  }
  return KC_GO;
}

/* All tensors that are handed out, before any is. */
static kc_res tensors(gathering *g, const kc_values *v) {
  for (int i = 0; i < v->n; i++) kc_meet_ends(&g->ends, v->v[i]);
  for (const kc_look *l = g->c->looks; l; l = l->next) {
    const kc_val *now = stored(g->c, g->s, l);
    if (now) kc_meet_ends(&g->ends, *now);
  }
  return kc_make_ends(&g->ends);
}

static kc_res results(gathering *g, const kc_values *v) {
  kc_cap *c = g->c;
  kn_tree *trees = kc_new(c, (size_t)(v->n + 1) * sizeof *trees);
  for (int i = 0; i < v->n; i++) KC_TRY(result(g, v->v[i], i + 1, &trees[i], 0));
  if (!kn_set_results(&c->b, g->flat, g->n, trees, (uint32_t)v->n)) return kc_fail(c, "results");
  return KC_GO;
}

kc_res kc_outcome_of(kc_cap *c, kc_state *s, const kc_values *v, const kc_given *given, uint32_t ngiven) {
  gathering g = {.c = c, .s = s, .ends = {.c = c, .s = s}, .given = given, .ngiven = ngiven};
  KC_TRY(commits(&g));
  KC_TRY(tensors(&g, v));
  KC_TRY(results(&g, v));
  KC_TRY(stores(&g));
  KC_TRY(kc_grad_stores(c, s));
  return add_commits(c, &g);
}
