/* Lists that grow in loops of the graph. A table becomes one only after a capture of the loop and of what
 * follows has failed because a length or a key depended on data, and unrolling it, too: others keep their
 * elements apart, which can do more. A list can be appended to, read, counted, gone through with ipairs,
 * stacked and concatenated. */
#include "lua/capture/growing.h"
#include "lua/capture/handle.h"
#include "lua/capture/merge.h"
#include "lua/capture/protect.h"
#include "lua/capture/race.h"
#include <lauxlib.h>
#include <string.h>

kn_value *kc_list_of(const kc_state *s, uint32_t table) {
  const kc_table *t = kc_table_get(s, table);
  int64_t at = t ? kc_table_find(t, KC_LIST_KEY) : -1;
  return at < 0 ? NULL : t->val[at].v;
}

kc_res kc_list_refused(kc_cap *c, const char *what) {
  return kc_fail(
      c,
      "%s a list whose length depends on tensor data; it can be appended to, read, counted with #, "
      "gone through with ipairs, and made one tensor with kiln.stack or kiln.cat",
      what);
}

/* ---- which tables ---- */

void kc_grows_as(kc_cap *c, uint32_t table, const kn_vtype *element) {
  kc_table_info *info = &c->tab[table];
  kn_vtype join = *element;
  if (info->growth &&
      (!kn_vtype_join(&info->element, element, &join) || kn_vtype_equal(&join, &info->element)))
    return;
  info->element = join;
  info->growth++;
}

void kc_may_grow(kc_cap *c, kc_state *s, uint32_t table) {
  const kc_table *t = kc_table_get(s, table);
  kn_vtype all, type;
  bool any = false;
  if (!t || c->tab[table].object || c->tab[table].argument) return;
  for (uint32_t i = 0; i < t->n; i++) {
    kc_val v = kc_resolve(c, s, t->val[i]);
    if (t->key[i].k != KC_V_INT || t->key[i].i < 1 || v.k == KC_V_NIL) continue;
    if (v.k == KC_V_UNION) {
      if (v.u->n != 2 || !kc_alt_find(v.u, KC_CLASS_NIL)) return;
      v = v.u->alt[v.u->alt[0].code == KC_CLASS_NIL].v;
    }
    if (!kc_type_of(v, &type) || (any && !kn_vtype_join(&all, &type, &type))) return;
    all = type;
    any = true;
  }
  if (!any) return;
  kc_grows_as(c, table, &all);
  c->short_of++;
}

uint32_t kc_growth(const kc_cap *c, const kc_state *s) {
  uint32_t sum = 0;
  for (uint32_t id = 1; id < c->ntab; id++)
    if (c->tab[id].growth && kc_table_get(s, id)) sum += c->tab[id].growth;
  return sum;
}

/* ---- making one ---- */

/* An element of this list: of one kind with the others. */
static kc_res check_element(kc_cap *c, uint32_t table, const kn_vtype *element, kc_val v) {
  kn_vtype type, join;
  if (v.k == KC_V_HANDLE)
    return kc_fail(
        c, "a tensor that is written to is put into a list whose length depends on tensor data; put a "
           "clone of it there");
  if (!kc_type_of(v, &type))
    return kc_fail(c,
                   "a %s is put into a list whose length depends on tensor data; its elements are numbers, "
                   "booleans or tensors",
                   kc_kind_name(v));
  if (kn_vtype_join(element, &type, &join)) {
    if (join.kind == element->kind) return KC_GO;
    kc_grows_as(c, table, &join);
  }
  return kc_fail(
      c, "the elements of a list whose length depends on tensor data are of one kind, dtype, rank and "
         "device; this one has others");
}

static void put(kc_cap *c, kc_state *s, uint32_t table, kn_value *list) {
  if (list) kc_table_put(c, kc_table_write(c, s, table), KC_LIST_KEY, kc_sym(list));
}

kc_res kc_make_list(kc_cap *c, kc_state *s, uint32_t table, const kn_vtype *element) {
  kn_value *list = kc_list_of(s, table);
  int64_t n;
  kc_val v;
  if (list && kn_element_of(list->type).kind != element->kind)
    return kc_fail(c, "a list holds integers here and floats there");
  if (list) return KC_GO;
  KC_TRY(kc_border(c, s, table, &n));
  c->b.where = kc_where(c);
  list = kn_add_list(&c->b, element);
  for (int64_t i = 1; i <= n; i++) {
    KC_TRY(kc_raw_get(c, s, table, kc_int(i), &v));
    KC_TRY(check_element(c, table, element, v));
    list = kn_add_append(&c->b, list, kc_value(c, v));
  }
  if (!list) return kc_fail(c, "list");
  const kc_table *old = kc_table_get(s, table);
  kc_table *t = kc_new(c, sizeof *t);
  *t = (kc_table){.owner = s->owner, .meta = old->meta};
  for (uint32_t i = 0; i < old->n; i++) {
    bool element_key = old->key[i].k == KC_V_INT && old->key[i].i >= 1;
    if (!element_key) kc_table_put(c, t, old->key[i], old->val[i]);
  }
  kc_table_put(c, t, KC_LIST_KEY, kc_sym(list));
  kc_map_set(c, &s->tabs, s->owner, table, t);
  return KC_GO;
}

kc_res kc_make_lists(kc_cap *c, kc_state *s) {
  for (uint32_t id = 1; id < c->ntab; id++)
    if (c->tab[id].growth && kc_table_get(s, id)) {
      kn_vtype element = c->tab[id].element;
      KC_TRY(kc_make_list(c, s, id, &element));
    }
  return KC_GO;
}

/* ---- what can be done with one ---- */

/* Any of its elements. */
static void touch(kc_cap *c, kc_state *s, uint32_t table, bool write) {
  kc_touch(c, s, (kc_place){KC_PLACE_FIELD, table, KC_POISONED}, write);
}

/* For texts of asserts: stripped functions have none. */
static void position(kc_cap *c, char *pos, size_t size) {
  kc_position(c, pos, size);
  if (!kc_line_known(c)) *pos = 0;
}

kc_val kc_list_length(kc_cap *c, kc_state *s, uint32_t table) {
  touch(c, s, table, false);
  c->b.where = kc_where(c);
  kn_value *n = kn_add_list_length(&c->b, kc_list_of(s, table));
  return kc_sym(n ? n : kc_dummy(c));
}

static bool is_length(kc_val k, const kn_value *list) {
  return k.k == KC_V_SYM && k.v->def && k.v->def->op == KN_NODE_list_length && k.v->def->in[0] == list;
}

static bool is_one(const kn_value *v) {
  return v->def && v->def->op == KN_NODE_const && v->def->scalar.kind == KN_SCALAR_INT &&
         v->def->scalar.as.i == 1;
}

/* #list + 1 */
static bool is_behind(kc_val k, const kn_value *list) {
  if (k.k != KC_V_SYM || !k.v->def || k.v->def->op != KN_NODE_lua_add) return false;
  kn_value *const *in = k.v->def->in;
  return (is_length(kc_sym(in[0]), list) && is_one(in[1])) ||
         (is_length(kc_sym(in[1]), list) && is_one(in[0]));
}

/* nil where there is none, which only the graph knows. */
kc_res kc_list_read(kc_cap *c, kc_state *s, uint32_t table, kc_val k, kc_val *out) {
  kn_value *list = kc_list_of(s, table);
  kn_vtype type = kn_element_of(list->type);
  touch(c, s, table, false);
  *out = KC_NILV;
  if (k.k == KC_V_INT && k.i < 1) return KC_GO;
  if (k.k == KC_V_SYM && k.v->type.kind != KN_V_INT)
    return kc_fail(c, "a list whose length depends on tensor data is indexed by a float");
  if (is_length(k, list) && list->def && list->def->op == KN_NODE_list_append) {
    *out = kc_sym(list->def->in[1]);
    return KC_GO;
  }
  kc_val inside = kc_sym(kc_emit(c, KN_NODE_lua_le, 2, kc_int(1), k, KC_NILV));
  if (!is_length(k, list)) {
    kc_val below = kc_sym(kc_emit(c, KN_NODE_lua_le, 2, k, kc_list_length(c, s, table), KC_NILV));
    inside = k.k == KC_V_INT ? below : kc_sym(kc_emit(c, KN_NODE_select, 3, inside, below, kc_bool(false)));
  }
  kn_region *at = c->b.at;
  c->b.where = kc_where(c);
  kn_node *n = kn_add_if(&c->b, inside.v);
  if (!n) return kc_fail(c, "element");
  c->b.at = n->regions[0];
  kn_value *yes = kn_add_list_get(&c->b, list, kc_value(c, k));
  c->b.at = at;
  kn_value *v = yes ? kn_if_output(&c->b, n, &type, NULL, yes, kc_undef(c, &type)) : NULL;
  if (!v) return kc_fail(c, "element");
  int64_t code = kc_class_of(c, kc_sym(v));
  kn_value *tag = kc_emit(c, KN_NODE_select, 3, inside, kc_int(code), kc_int(KC_CLASS_NIL));
  *kc_note_of(c, tag, true) = (kc_note){.choice = inside.v, .a = code, .b = KC_CLASS_NIL};
  kc_union u = {.tag = kc_sym(tag), .n = 2, .alt = {{KC_CLASS_NIL, KC_NILV}, {code, kc_sym(v)}}};
  *out = kc_make_union(c, &u);
  return KC_GO;
}

kc_res kc_list_append(kc_cap *c, kc_state *s, uint32_t table, kc_val v) {
  kn_value *list = kc_list_of(s, table);
  kn_vtype element = kn_element_of(list->type);
  touch(c, s, table, true);
  v = kc_resolve(c, s, v);
  KC_TRY(check_element(c, table, &element, v));
  c->b.where = kc_where(c);
  list = kn_add_append(&c->b, list, kc_value(c, v));
  if (!list) return kc_fail(c, "append");
  put(c, s, table, list);
  return KC_GO;
}

/* Behind its end. Elsewhere a graph cannot follow the program: that is an error when it runs. */
kc_res kc_list_set(kc_cap *c, kc_state *s, uint32_t table, kc_val k, kc_val v) {
  kn_value *list = kc_list_of(s, table);
  char pos[200];
  if (!is_behind(k, list)) {
    kc_val length = kc_list_length(c, s, table);
    kc_val behind = kc_sym(kc_emit(c, KN_NODE_lua_add, 2, length, kc_int(1), KC_NILV));
    kn_value *fits = kc_emit(c, KN_NODE_lua_eq, 2, k, behind, KC_NILV);
    KC_TRY(kc_may_raise(c));
    position(c, pos, sizeof pos);
    kn_add_raise(&c->b, KN_NODE_assert, fits,
                 kc_format(c,
                           "%s%sa list whose length depends on tensor data is set elsewhere than behind its "
                           "end, which a graph cannot do",
                           pos, *pos ? ": " : ""));
  }
  return kc_list_append(c, s, table, v);
}

/* ---- one tensor of it ---- */

static bool is_function(kc_cap *c, kc_val f, const char *name) {
  lua_State *L = c->L;
  luaL_checkstack(L, 6, "capture");
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  bool is = false;
  if (lua_getfield(L, -1, "kiln") == LUA_TTABLE) {
    lua_getfield(L, -1, name);
    kc_push_object(c, f.id);
    is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  lua_pop(L, 2);
  return is;
}

static kc_res method(kc_cap *c, kc_state **s, const char *name, kc_val *t, int64_t a, int64_t b) {
  kc_val f;
  KC_TRY(kc_index(c, s, *t, kc_string(c, name, strlen(name)), &f));
  return kc_call1(c, s, f, (kc_val[]){*t, kc_int(a), kc_int(b)}, 3, t);
}

/* Concatenated they are stacked first, so their sizes agree: another size is an error when it runs. */
kc_res kc_list_call(kc_cap *c, kc_state **s, kc_val f, const kc_val *a, int n, kc_values *out, bool *done) {
  *done = false;
  if (n < 1 || a[0].k != KC_V_TABLE || !kc_list_of(*s, a[0].id)) return KC_GO;
  kn_value *list = kc_list_of(*s, a[0].id);
  bool cat = is_function(c, f, "cat");
  char pos[200];
  int rank = list->type.tensor.rank;
  int64_t dim = 1, most = cat ? rank : rank + 1;
  if (!cat && !is_function(c, f, "stack")) return kc_list_refused(c, "a function of the engine is given");
  if (list->type.kind != KN_V_LIST || rank == KN_MAX_RANK || most < 1)
    return kc_list_refused(c, cat ? "kiln.cat is given" : "kiln.stack is given");
  if (n > 1 && a[1].k == KC_V_INT)
    dim = a[1].i < 0 ? most + 1 + a[1].i : a[1].i;
  else if (n > 1 && a[1].k != KC_V_NIL)
    return kc_fail(c, "the dimension is a %s; it must be known while capturing", kc_kind_name(a[1]));
  if (dim < 1 || dim > most)
    return kc_fail(c, "the dimension %lld is not one of the %lld there are", (long long)dim, (long long)most);
  KC_TRY(kc_may_raise(c));
  position(c, pos, sizeof pos);
  kc_val any = kc_sym(kc_emit(c, KN_NODE_lua_lt, 2, kc_int(0), kc_list_length(c, *s, a[0].id), KC_NILV));
  kn_add_raise(
      &c->b, KN_NODE_assert, any.v,
      kc_format(c, "%s%s%s: the table of tensors is empty", pos, *pos ? ": " : "", cat ? "cat" : "stack"));
  c->b.where = kc_where(c);
  kn_value *made = kn_add_list_stack(&c->b, list);
  if (!made) return kc_fail(c, "stack");
  kc_val t = kc_sym(made);
  if (dim > 1) KC_TRY(method(c, s, "movedim", &t, 1, dim));
  if (cat) KC_TRY(method(c, s, "flatten", &t, dim, dim + 1));
  out->v = kc_vals(c, 1);
  out->v[0] = t;
  out->n = 1;
  *done = true;
  return KC_GO;
}
