/* The live side of a captured graph: are the guards still true, where are the slots' tensors now. Most guards
 * are in the quick list too (guards.c); here is what is too special for it, which guard failed, and why. Flat
 * lists, raw access, no allocation while checking. */
#include "core/grad/tape.h"
#include "graph/mutant.h"
#include "graph/text.h"
#include "lua/capture/live_inside.h"
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- making ---- */

typedef struct maker {
  kc_cap *c;
  kc_live *l;
  int anchors, ids; /* stack indices: the table to keep, object id → place in it */
  int n;
} maker;

static void *need(maker *m, size_t size) {
  void *p = kn_arena_alloc(&m->l->arena, size ? size : 1);
  if (!p) {
    kn_fail_nomem(m->c->ctx, size);
    lua_pushnil(m->c->L);
    lua_error(m->c->L);
  }
  return p;
}

static const char *copy_text(maker *m, const char *s) {
  size_t n = strlen(s) + 1;
  char *p = need(m, n);
  memcpy(p, s, n);
  return p;
}

static int anchor(maker *m, uint32_t object) {
  lua_State *L = m->c->L;
  if (lua_rawgeti(L, m->ids, object) == LUA_TNUMBER) {
    int at = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return at;
  }
  lua_pop(L, 1);
  kc_push_object(m->c, object);
  lua_rawseti(L, m->anchors, ++m->n);
  lua_pushinteger(L, m->n);
  lua_rawseti(L, m->ids, object);
  return m->n;
}

static kc_expected expect(maker *m, kc_val v) {
  kc_cap *c = m->c;
  kc_expected e = {.type = LUA_TNIL};
  uint32_t object = v.id;
  switch (v.k) {
  case KC_V_BOOL: return (kc_expected){.type = LUA_TBOOLEAN, .as.i = v.i};
  case KC_V_INT: return (kc_expected){.type = LUA_TNUMBER, .integer = true, .as.i = v.i};
  case KC_V_FLOAT: return (kc_expected){.type = LUA_TNUMBER, .as.f = v.f};
  case KC_V_TABLE: object = c->tab[v.id].object; break;
  case KC_V_CLOSURE: object = c->clos[v.id].object; break;
  case KC_V_STRING:
  case KC_V_CFUNCTION:
  case KC_V_OBJECT: break;
  default: return e;
  }
  const kc_obj *o = &c->obj[object];
  e = (kc_expected){.type = o->type, .s = o->s, .n = o->n, .anchor = anchor(m, object)};
  e.as.ptr = o->ptr;
  return e;
}

static bool slot_in_graph(const kn_graph *g, const kn_slot *s) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (g->slots[i] == s) return true;
  return false;
}

static const kn_value *stored_value(const kn_graph *g, const kn_slot *s) {
  for (const kn_node *n = g->body->last; n; n = n->prev)
    if (n->op == KN_NODE_store_state && n->slot == s) return n->in[0];
  return NULL;
}

static void make_check(maker *m, const kc_look *l, const kn_graph *g, kc_check *k, uint32_t order) {
  kc_cap *c = m->c;
  char buf[256];
  *k = (kc_check){.kind = l->kind,
                  .container = anchor(m, l->container),
                  .slot = l->slot,
                  .order = order,
                  .guard = l->guard,
                  .name = copy_text(m, l->name ? l->name : "?"),
                  .born = l->born,
                  .blind = l->blind,
                  .clears = l->clears,
                  .sometimes = l->sometimes,
                  .identity = l->identity,
                  .written = l->written};
  k->key = expect(m, l->key);
  k->where = copy_text(m, kn_where_text(l->where, buf, sizeof buf));
  if (l->slot) {
    k->in_graph = slot_in_graph(g, l->slot);
    if (k->in_graph && l->written) k->stored = stored_value(g, l->slot);
    k->number = l->slot->type.kind != KN_V_TENSOR;
    if (l->seen.k != KC_V_HANDLE) k->laid = l->laid;
    k->requires = l->slot->tensor && kn_requires_grad(l->slot->tensor);
    k->text = l->born ? "nil" : "";
    k->want = (kc_expected){.type = LUA_TNIL};
    if (l->seen.k == KC_V_HANDLE) {
      const kc_handle_info *info = &c->han[l->seen.id];
      k->handle = m->l->handles = true;
      k->object = l->seen.id;
      k->overwritten = l->overwritten && !l->again;
      k->quiet = !info->with_grad;
      k->was = l->was;
      k->strided = info->strided;
      memcpy(k->strides, info->strides, sizeof k->strides);
    }
    return;
  }
  k->want = expect(m, l->seen);
  k->text = copy_text(m, kc_value_text(c, l->seen, buf, sizeof buf));
  k->nkeys = l->nkeys;
  k->keys = need(m, l->nkeys * sizeof *k->keys);
  for (uint32_t i = 0; i < l->nkeys; i++) k->keys[i] = expect(m, l->keys[i]);
}

static int by_container(const void *a, const void *b) {
  const kc_check *x = a, *y = b;
  if (x->container != y->container) return x->container < y->container ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

/* Tensors seen at two places share a slot, or are one object that is written to, as long as they are one:
 * `same` says which check was the first. */
static void pair_shared(kc_live *l) {
  for (uint32_t i = 0; i < l->nchecks; i++)
    for (uint32_t j = 0; l->checks[i].slot && !l->checks[i].same && j < i; j++)
      if (l->checks[j].slot == l->checks[i].slot ||
          (l->checks[i].object && l->checks[j].object == l->checks[i].object)) {
        l->checks[i].same = (int)j + 1;
        break;
      }
}

/* ---- the quick list ---- */

static int keep_anchor(maker *m, int *places, int at) {
  if (places[at]) return places[at];
  lua_rawgeti(m->c->L, m->anchors, at);
  return places[at] = kc_guards_keep(m->c->L, &m->l->quick);
}

static int keep_nothing(maker *m) {
  lua_pushnil(m->c->L);
  return kc_guards_keep(m->c->L, &m->l->quick);
}

static bool is_special(const kc_live *l, const kc_check *k) {
  bool tensor = k->slot && !k->number && !k->same && !k->written && !k->laid &&
                !l->handles; /* must all be told apart */
  if (k->kind == KC_LOOK_GRAD || k->identity || k->blind || (l->grads && k->slot)) return true;
  return k->kind == KC_LOOK_KEYS || (k->slot && !tensor) ||
         (k->kind == KC_LOOK_FIELD && !k->key.anchor && !(k->key.type == LUA_TNUMBER && k->key.integer));
}

static kc_guard quick_guard(maker *m, int *places, const kc_check *k) {
  static const kc_guard_how how[] = {[KC_LOOK_UPVALUE] = KC_GUARD_UPVALUE,
                                     [KC_LOOK_META] = KC_GUARD_META,
                                     [KC_LOOK_LENGTH] = KC_GUARD_LENGTH};
  kc_guard g = {
      .how = (uint8_t)how[k->kind], .container = keep_anchor(m, places, k->container), .i = k->key.as.i};
  if (k->kind == KC_LOOK_FIELD) {
    g.how = k->key.anchor ? KC_GUARD_FIELD : KC_GUARD_INDEX;
    if (k->key.anchor) g.key_place = keep_anchor(m, places, k->key.anchor);
  }
  if (k->slot) {
    g.tensor = &k->slot->type.tensor;
    g.last = keep_nothing(m);
    return g;
  }
  g.type = (int8_t)k->want.type;
  g.integer = k->want.integer;
  g.want.i = k->want.as.i;
  if (g.type == LUA_TNUMBER && !g.integer) g.want.f = k->want.as.f;
  if (k->want.anchor) g.want.ptr = g.type == LUA_TSTRING ? (const void *)k->want.s : k->want.as.ptr;
  if (g.type == LUA_TSTRING) g.last = keep_anchor(m, places, k->want.anchor);
  return g;
}

static void make_quick(maker *m) {
  kc_live *l = m->l;
  uint32_t tensors = 0;
  for (uint32_t i = 0; i < l->nchecks; i++) tensors += l->checks[i].slot != NULL;
  int *places = need(m, ((size_t)m->n + 1) * sizeof *places);
  kc_guards_open(m->c, &l->quick, &l->arena, l->nchecks, (uint32_t)m->n + tensors);
  l->special = need(m, l->nchecks * sizeof *l->special);
  l->slots = need(m, l->nchecks * sizeof *l->slots);
  l->all_quick = true;
  for (uint32_t i = 0; i < l->nchecks; i++) {
    kc_check *k = &l->checks[i];
    bool shared = k->same && l->checks[k->same - 1].slot == k->slot;
    if (k->slot && k->in_graph && !shared && !k->born && !k->blind) l->slots[l->nslots++] = i;
    l->stores |= k->clears || (k->slot && k->in_graph && (k->written || k->overwritten));
    if (is_special(l, k)) {
      l->all_quick &= !k->slot;
      l->special[l->nspecial++] = i;
      continue;
    }
    l->quick.list[l->quick.n++] = quick_guard(m, places, k);
    k->quick = l->quick.n;
  }
}

/* ---- arguments ---- */

static void copy_leaf(maker *m, kc_leaf *to, const kc_leaf *from) {
  kc_live *l = m->l;
  *to = *from;
  to->name = copy_text(m, from->name);
  if (from->kind == KC_LEAF_CONST) {
    kc_expected e = expect(m, from->value);
    l->consts = kn_arena_grow(&l->arena, l->consts, l->nconsts, sizeof *l->consts);
    if (!l->consts) need(m, SIZE_MAX / 2);
    to->value = kc_int(l->nconsts);
    l->consts[l->nconsts++] = e;
  }
  if (from->number) {
    l->ntensors++;
    l->handles |= from->handle;
  }
  if (from->kind != KC_LEAF_TABLE) return;
  if (!from->same_as) l->ntables++;
  to->keys = need(m, from->n * sizeof *to->keys);
  to->items = need(m, from->n * sizeof *to->items);
  for (uint32_t i = 0; i < from->n; i++) {
    to->keys[i] = from->keys[i];
    if (from->keys[i].k == KC_V_STRING) to->keys[i].id = (uint32_t)anchor(m, from->keys[i].id);
    copy_leaf(m, &to->items[i], &from->items[i]);
  }
}

static int by_address(const void *a, const void *b) {
  const void *x = *(const void *const *)a, *y = *(const void *const *)b;
  return (uintptr_t)x < (uintptr_t)y ? -1 : (uintptr_t)x > (uintptr_t)y;
}

kn_status kc_live_make(kc_cap *c, const kc_leaf *args, int nargs, kn_graph *g, kc_live **out) {
  lua_State *L = c->L;
  kc_live *l = *out; /* owned by the caller from the start, so that an error loses nothing */
  maker m = {.c = c, .l = l};
  luaL_checkstack(L, 12, "capture");
  lua_newtable(L);
  m.anchors = lua_gettop(L);
  lua_newtable(L);
  m.ids = lua_gettop(L);
  l->checks = need(&m, c->nlooks * sizeof *l->checks);
  l->outside = need(&m, c->nlooks * sizeof *l->outside);
  for (const kc_look *k = c->looks; k; k = k->next) {
    if (k->dropped) continue;
    make_check(&m, k, g, &l->checks[l->nchecks], l->nchecks);
    l->nchecks++;
    if (k->seen.k == KC_V_TABLE) l->outside[l->noutside++] = c->obj[c->tab[k->seen.id].object].ptr;
  }
  qsort(l->checks, l->nchecks, sizeof *l->checks, by_container);
  qsort(l->outside, l->noutside, sizeof *l->outside, by_address);
  pair_shared(l);
  l->args = need(&m, (size_t)nargs * sizeof *l->args);
  for (int i = 0; i < nargs; i++) copy_leaf(&m, &l->args[i], &args[i]);
  l->nargs = nargs;
  l->births = need(&m, c->nbirths * sizeof *l->births);
  for (uint32_t i = 0; i < c->nbirths; i++)
    if (c->births[i].how != KC_BORN_OUTSIDE) l->births[l->nbirths++] = c->births[i];
  l->grads = c->asks_grad;
  l->grad_mode = c->grad_mode;
  l->autocast = c->ctx->autocast;
  l->tables = need(&m, (l->ntables + 1) * sizeof *l->tables);
  make_quick(&m);
  l->tensors = need(&m, ((size_t)l->ntensors + l->nchecks + 1) * sizeof *l->tensors);
  for (l->nseen = 8; l->nseen < 2 * (l->ntensors + l->nchecks);) l->nseen *= 2;
  l->seen = need(&m, l->handles ? l->nseen * sizeof *l->seen : 1);
  l->unrolled = need(&m, (c->nunrolled + 1) * sizeof *l->unrolled);
  for (; l->nunrolled < c->nunrolled; l->nunrolled++) {
    const kc_unrolled *u = &c->unrolled[l->nunrolled];
    char where[512] = "";
    if (u->where) kn_where_brief(u->where, where, sizeof where);
    l->unrolled[l->nunrolled].where = copy_text(&m, where);
    l->unrolled[l->nunrolled].trips = u->trips;
  }
  lua_pop(L, 1);
  l->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return KN_OK;
}

/* ---- checking ---- */

static bool is(lua_State *L, int idx, const kc_expected *e) {
  if (KN_MUTANT(boolean_guard_unchecked) && e->type == LUA_TBOOLEAN) return true;
  if (KN_MUTANT(number_guard_unchecked) && e->type == LUA_TNUMBER) return true;
  if (KN_MUTANT(function_guard_unchecked) && e->type == LUA_TFUNCTION) return true;
  if (lua_type(L, idx) != e->type) return false;
  switch (e->type) {
  case LUA_TNIL: return true;
  case LUA_TBOOLEAN: return lua_toboolean(L, idx) == (int)e->as.i;
  case LUA_TNUMBER: {
    if (lua_isinteger(L, idx) != (int)e->integer) return false;
    if (e->integer) return lua_tointeger(L, idx) == e->as.i;
    double f = lua_tonumber(L, idx);
    return memcmp(&f, &e->as.f, sizeof f) == 0;
  }
  case LUA_TSTRING: {
    size_t n;
    const char *s = lua_tolstring(L, idx, &n);
    return s == e->s || (n == e->n && !memcmp(s, e->s, n));
  }
  default: return lua_topointer(L, idx) == e->as.ptr;
  }
}

void kc_push_key(lua_State *L, int anchors, const kc_expected *e) {
  switch (e->type) {
  case LUA_TBOOLEAN: lua_pushboolean(L, (int)e->as.i); break;
  case LUA_TNUMBER:
    if (e->integer)
      lua_pushinteger(L, e->as.i);
    else
      lua_pushnumber(L, e->as.f);
    break;
  default: lua_rawgeti(L, anchors, e->anchor); break;
  }
}

void kc_look_again(lua_State *L, int anchors, const kc_check *k) {
  switch (k->kind) {
  case KC_LOOK_FIELD:
    if (k->key.type == LUA_TNUMBER && k->key.integer) {
      lua_rawgeti(L, -1, k->key.as.i);
      break;
    }
    kc_push_key(L, anchors, &k->key);
    lua_rawget(L, -2);
    break;
  case KC_LOOK_UPVALUE:
    if (!lua_getupvalue(L, -1, (int)k->key.as.i)) lua_pushnil(L);
    break;
  case KC_LOOK_META:
    if (!lua_getmetatable(L, -1)) lua_pushnil(L);
    break;
  case KC_LOOK_GRAD: lua_pushnil(L); break; /* looked at by grad_fits */
  case KC_LOOK_LENGTH:
  case KC_LOOK_KEYS: lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1)); break;
  }
}

void kc_live_free_numbers(kc_cap *c, const kc_live *before) {
  lua_State *L = c->L;
  lua_rawgeti(L, LUA_REGISTRYINDEX, before->ref);
  int anchors = lua_gettop(L);
  for (uint32_t i = 0; i < before->nchecks; i++) {
    const kc_check *k = &before->checks[i];
    bool text = k->kind == KC_LOOK_FIELD && k->key.type == LUA_TSTRING;
    bool whole = k->key.type == LUA_TNUMBER && k->key.integer;
    bool was_free = k->slot && k->number && k->slot->kind == KN_SLOT_PARAM;
    if (!was_free && (k->slot || k->want.type != LUA_TNUMBER)) continue;
    if (k->kind != KC_LOOK_UPVALUE && !text && !(k->kind == KC_LOOK_FIELD && whole)) continue;
    lua_rawgeti(L, anchors, k->container);
    kc_look_again(L, anchors, k);
    bool changed = lua_type(L, -1) == LUA_TNUMBER && (was_free || !is(L, -1, &k->want));
    lua_pop(L, 1);
    if (changed)
      kc_note_role(c, (kc_dynamic){.role = KC_ROLE_FREE,
                                   .kind = k->kind,
                                   .container = kc_intern(c, -1),
                                   .key = text ? kc_string(c, k->key.s, k->key.n) : kc_int(k->key.as.i)});
    lua_settop(L, anchors);
  }
  lua_pop(L, 1);
}

static bool same_keys(lua_State *L, kc_live *l, kc_check *k) { /* the container is on top */
  uint32_t i = 0;
  bool same = true;
  if (k->noted && k->noted->count && kc_guard_keys_same(lua_topointer(L, -1), k->noted)) return true;
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (i < k->nkeys && is(L, -2, &k->keys[i])) {
      i++;
      continue;
    }
    same = false;
    lua_pop(L, 2);
    break;
  }
  if (!same || i != k->nkeys) return false;
  if (l->quick.peeks && !k->noted) k->noted = kn_arena_alloc(&l->arena, sizeof *k->noted);
  if (k->noted && !kc_guard_keys_note(lua_topointer(L, -1), k->noted)) k->noted->count = 0;
  return true;
}

static bool same_layout(const kn_tensor *t, bool strided, const int64_t *strides) {
  if (!strided) return kn_tensor_contiguous(t);
  for (int d = 0; d < t->type.rank; d++)
    if (t->strides[d] != strides[d]) return false;
  return true;
}

static bool lies_so(kc_laid laid, const kn_tensor *t) {
  return laid == KC_LAID_ANYHOW || kn_tensor_contiguous(t) == (laid == KC_LAID_IN_ORDER);
}

static bool slot_fits(lua_State *L, const kc_host *host, kc_live *l, int anchors, const kc_check *k) {
  if (k->number) {
    kn_scalar s;
    kn_vkind want = k->slot->type.kind;
    if (!host->test_scalar(L, -1, &s)) return false;
    return s.kind == KN_SCALAR_BOOL    ? want == KN_V_BOOL
           : s.kind == KN_SCALAR_INT   ? want == KN_V_INT || want == KN_V_NUMBER
           : s.kind == KN_SCALAR_FLOAT ? want == KN_V_FLOAT || want == KN_V_NUMBER
                                       : false;
  }
  const kn_tensor *t = host->test_tensor(L, -1);
  if (!t || !t->storage || !kn_type_equal(&t->type, &k->slot->type.tensor)) return false;
  if (l->grads && k->kind != KC_LOOK_GRAD && kn_requires_grad(t) != k->requires) return false;
  if (k->identity && t != k->slot->tensor) return false;
  if (k->handle && !same_layout(t, k->strided, k->strides)) return false;
  if (!lies_so(k->laid, t)) return false;
  l->tensors[l->ntensors + (uint32_t)(k - l->checks)] = k->same ? NULL : t;
  if (!k->same) return true;
  const kc_check *first = &l->checks[k->same - 1];
  lua_rawgeti(L, anchors, first->container);
  kc_look_again(L, anchors, first);
  bool same = host->test_tensor(L, -1) == t;
  lua_pop(L, 2);
  return same;
}

/* The gradient of the tensor on top of the stack. */
static bool grad_fits(lua_State *L, const kc_host *host, const kc_check *k) {
  const kn_tensor *t = host->test_tensor(L, -1);
  const kn_tensor *g = t ? kn_grad_of(t) : NULL;
  if (k->blind) return true;
  return k->slot && !k->born ? g && kn_type_equal(&g->type, &k->slot->type.tensor) : !g;
}

static void describe(lua_State *L, int idx, char *buf, size_t size) {
  switch (lua_type(L, idx)) {
  case LUA_TNIL: snprintf(buf, size, "nil"); break;
  case LUA_TBOOLEAN: snprintf(buf, size, "%s", lua_toboolean(L, idx) ? "true" : "false"); break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx))
      snprintf(buf, size, "%lld", (long long)lua_tointeger(L, idx));
    else
      snprintf(buf, size, "%.14g", lua_tonumber(L, idx));
    break;
  case LUA_TSTRING: snprintf(buf, size, "\"%.60s\"", lua_tostring(L, idx)); break;
  default: snprintf(buf, size, "another %s", luaL_typename(L, idx)); break;
  }
}

static void explain(lua_State *L, const kc_host *host, const kc_check *k, char *why, size_t size) {
  char now[128], was[KN_TYPE_TEXT];
  if (!why) return;
  const kn_tensor *t = host->test_tensor(L, -1);
  if (t)
    kn_type_text(&t->type, now, sizeof now);
  else
    describe(L, -1, now, sizeof now);
  const char *before = k->text;
  if (k->born)
    before = "nil";
  else if (k->slot && !k->number)
    before = kn_type_text(&k->slot->type.tensor, was, sizeof was);
  else if (k->slot)
    before = "a number of another kind";
  if (k->kind == KC_LOOK_GRAD)
    snprintf(why, size, "'%s' %s at %s, %s now", k->name, k->slot && !k->born ? "was there" : "was nil",
             k->where, k->slot && !k->born ? "is not" : "is not nil");
  else if (t && k->slot && !k->number && !strcmp(before, now) && kn_requires_grad(t) != k->requires)
    snprintf(why, size, "'%s' %s grad at %s, %s now", k->name, k->requires ? "required" : "did not require",
             k->where, k->requires ? "does not" : "does");
  else if (k->identity && t && t != k->slot->tensor)
    snprintf(why, size, "'%s', whose identity counts, was another tensor at %s", k->name, k->where);
  else if (k->kind == KC_LOOK_KEYS)
    snprintf(why, size, "the keys of '%s' have changed since %s", k->name, k->where);
  else if (k->slot && k->same && t && !strcmp(before, now))
    snprintf(why, size, "'%s' was the same tensor as another one at %s, is not now", k->name, k->where);
  else
    snprintf(why, size, "%s '%s' was %s at %s, is %s", k->guard, k->name, before, k->where, now);
}

/* All places, or only the special ones. */
static bool check_places(lua_State *L, const kc_host *host, kc_live *l, int anchors, bool special, char *why,
                         size_t size) {
  int on = 0; /* container now on the stack */
  for (uint32_t i = 0; i < (special ? l->nspecial : l->nchecks); i++) {
    uint32_t which = special ? l->special[i] : i;
    kc_check *k = &l->checks[which];
    l->tensors[l->ntensors + which] = NULL;
    if (k->container != on) {
      if (on) lua_pop(L, 1);
      lua_rawgeti(L, anchors, on = k->container);
    }
    bool fine;
    if (k->kind == KC_LOOK_KEYS) {
      fine = same_keys(L, l, k);
      lua_pushnil(L);
    } else if (k->kind == KC_LOOK_GRAD) {
      fine = grad_fits(L, host, k);
      lua_pushnil(L);
    } else {
      kc_look_again(L, anchors, k);
      fine = k->slot && !k->born ? slot_fits(L, host, l, anchors, k) : is(L, -1, &k->want);
    }
    if (!fine) {
      explain(L, host, k, why, size);
      return false;
    }
    lua_pop(L, 1);
  }
  return true;
}

static bool differs(char *why, size_t size, const char *name, const char *was, const char *now) {
  if (why) snprintf(why, size, "argument '%s' was %s, is %s", name, was, now);
  return false;
}

/* Where something is overwritten it matters which arguments are one tensor, and how they lie. */
static bool handle_fits(kc_live *l, const kc_leaf *a, const kn_tensor *t, char *why, size_t size) {
  uint32_t same = 0;
  l->tensors[a->number - 1] = t;
  if (!l->handles) return true;
  for (uint32_t i = 0; i + 1 < a->number && !same; i++)
    if (l->tensors[i] == t) same = i + 1;
  if (same != a->same)
    return differs(why, size, a->name,
                   a->same ? "the same tensor as another argument" : "a tensor of its own",
                   a->same ? "another one" : "the same tensor as another argument");
  if (!a->handle || a->same || same_layout(t, a->strided, a->strides)) return true;
  return differs(why, size, a->name, a->strided ? "laid out with other strides" : "contiguous", "not");
}

/* Where it is, or goes, in the table of what was seen. */
static kc_seen *seen_at(const kc_live *l, const kn_storage *of) {
  uint64_t at = ((uint64_t)(uintptr_t)of * UINT64_C(0x9E3779B97F4A7C15)) >> 32;
  while (l->seen[at & (l->nseen - 1)].of && l->seen[at & (l->nseen - 1)].of != of) at++;
  return &l->seen[at & (l->nseen - 1)];
}

/* Tensors that are overwritten share memory with no other one that the graph sees. */
static bool apart(const kc_live *l, char *why, size_t size) {
  if (!l->handles) return true;
  memset(l->seen, 0, l->nseen * sizeof *l->seen);
  for (uint32_t i = 0; i < l->ntensors + l->nchecks; i++) {
    if (!l->tensors[i]) continue;
    const kc_check *k = i < l->ntensors ? NULL : &l->checks[i - l->ntensors];
    kc_seen *s = seen_at(l, l->tensors[i]->storage);
    const bool again = s->of != NULL;
    s->of = l->tensors[i]->storage;
    if (!s->handle && k && k->handle) s->handle = k;
    if (!again || !s->handle) continue;
    if (why)
      snprintf(why, size, "'%s', which is overwritten, shares memory with another tensor", s->handle->name);
    return false;
  }
  return true;
}

static bool tensor_fits(lua_State *L, const kc_host *host, kc_live *l, const kc_leaf *a, int idx, char *why,
                        size_t size) {
  const kn_tensor *t = host->test_tensor(L, idx);
  char now[KN_TYPE_TEXT], was[KN_TYPE_TEXT];
  if (!t) {
    describe(L, idx, now, sizeof now);
    return differs(why, size, a->name, "a tensor", now);
  }
  bool fine =
      t->type.dtype == a->type.dtype && t->type.rank == a->type.rank && t->type.device == a->type.device;
  for (int i = 0; fine && i < a->type.rank; i++)
    fine = kn_dim_known(a->type.dims[i]) ? t->type.dims[i] == a->type.dims[i] : t->type.dims[i] != 1;
  if (fine && l->grads && kn_requires_grad(t))
    return differs(why, size, a->name, "without grad", "a tensor that requires it");
  if (fine && !a->handle && !lies_so(a->laid, t))
    return differs(why, size, a->name, a->laid == KC_LAID_IN_ORDER ? "contiguous" : "not contiguous",
                   a->laid == KC_LAID_IN_ORDER ? "not" : "contiguous");
  if (fine) return handle_fits(l, a, t, why, size);
  kn_type any = a->type; /* the graph's names of sizes are not known here */
  for (int i = 0; i < any.rank; i++)
    if (!kn_dim_known(any.dims[i])) any.dims[i] = KN_DIM_UNKNOWN;
  return differs(why, size, a->name, kn_type_text(&any, was, sizeof was),
                 kn_type_text(&t->type, now, sizeof now));
}

typedef struct arg_check {
  lua_State *L;
  const kc_host *host;
  kc_live *l;
  int anchors;
  uint32_t tables;
  char *why;
  size_t size;
} arg_check;

static bool arg_fits(arg_check *x, const kc_leaf *a, int idx);

static bool table_fits(arg_check *x, const kc_leaf *a, int idx) {
  lua_State *L = x->L;
  if (lua_type(L, idx) != LUA_TTABLE || lua_getmetatable(L, idx))
    return differs(x->why, x->size, a->name, "a plain table", "not");
  const void *ptr = lua_topointer(L, idx);
  kc_live *l = x->l;
  if (l->noutside && bsearch(&ptr, l->outside, l->noutside, sizeof *l->outside, by_address))
    return differs(x->why, x->size, a->name, "a table of its own",
                   "a table that the function also reaches outside");
  uint32_t first = 0;
  for (uint32_t i = 0; i < x->tables && !first; i++)
    if (l->tables[i] == ptr) first = i + 1;
  if (first != a->same_as)
    return differs(x->why, x->size, a->name, "shared with another argument in another way", "not");
  if (first) return true;
  l->tables[x->tables++] = ptr;
  if (!lua_checkstack(L, 6)) return false;
  idx = lua_absindex(L, idx);
  uint32_t n = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) n++;
  if (n != a->n) return differs(x->why, x->size, a->name, "a table with other keys", "not");
  for (uint32_t i = 0; i < a->n; i++) {
    if (a->keys[i].k == KC_V_INT)
      lua_pushinteger(L, a->keys[i].i);
    else
      lua_rawgeti(L, x->anchors, a->keys[i].id);
    lua_rawget(L, idx);
    bool fine = arg_fits(x, &a->items[i], -1);
    lua_pop(L, 1);
    if (!fine) return false;
  }
  return true;
}

static bool arg_fits(arg_check *x, const kc_leaf *a, int idx) {
  lua_State *L = x->L;
  char now[128], was[128];
  if (a->spec) {
    const kn_tensor *t = a->number ? x->host->test_tensor(L, idx) : NULL;
    if (t) x->l->tensors[a->number - 1] = t;
    return true;
  }
  switch (a->kind) {
  case KC_LEAF_TENSOR: return tensor_fits(L, x->host, x->l, a, idx, x->why, x->size);
  case KC_LEAF_NUMBER:
    if (lua_type(L, idx) == LUA_TNUMBER && lua_isinteger(L, idx) == (int)a->integer) return true;
    describe(L, idx, now, sizeof now);
    return differs(x->why, x->size, a->name, a->integer ? "an integer" : "a float", now);
  case KC_LEAF_FREE: return true;
  case KC_LEAF_TABLE: return table_fits(x, a, idx);
  case KC_LEAF_CONST: break;
  }
  const kc_expected *e = &x->l->consts[a->value.i];
  if (is(L, idx, e)) return true;
  describe(L, idx, now, sizeof now);
  kc_push_key(L, x->anchors, e);
  describe(L, -1, was, sizeof was);
  lua_pop(L, 1);
  return differs(x->why, x->size, a->name, was, now);
}

static bool check_args(arg_check *x, int first, int nargs) {
  static const kc_expected nothing = {.type = LUA_TNIL};
  kc_live *l = x->l;
  for (int i = 0; i < l->nargs; i++) {
    if (i < nargs) {
      if (!arg_fits(x, &l->args[i], first + i)) return false;
    } else if (l->args[i].spec || l->args[i].kind != KC_LEAF_CONST ||
               l->consts[l->args[i].value.i].type != LUA_TNIL)
      return differs(x->why, x->size, l->args[i].name, "given", "missing");
  }
  for (int i = l->nargs; i < nargs; i++)
    if (!is(x->L, first + i, &nothing)) return differs(x->why, x->size, "after the last", "nothing", "given");
  return true;
}

static const char *autocast_said(uint8_t half) {
  return half == KN_BOOL ? "off" : kn_dtype_name((kn_dtype)half);
}

bool kc_live_check(lua_State *L, const kc_host *host, kc_live *l, int first, int nargs, char *why,
                   size_t size) {
  int top = lua_gettop(L);
  if (!lua_checkstack(L, 12)) return false;
  first = lua_absindex(L, first);
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->ref);
  if (l->grads && host->context(L)->grad_enabled != l->grad_mode) {
    if (why)
      snprintf(why, size, "gradients were %s, are %s", l->grad_mode ? "on" : "off",
               l->grad_mode ? "off" : "on");
    lua_settop(L, top);
    return false;
  }
  if (host->context(L)->autocast != l->autocast) {
    if (why)
      snprintf(why, size, "autocast was %s, is %s", autocast_said(l->autocast),
               autocast_said(host->context(L)->autocast));
    lua_settop(L, top);
    return false;
  }
  arg_check x = {L, host, l, top + 1, 0, why, size};
  for (uint32_t i = 0; i < l->ntensors; i++) l->tensors[i] = NULL;
  bool fine = check_args(&x, first, nargs) &&
              check_places(L, host, l, top + 1, kc_guards_hold(&l->quick, host), why, size) &&
              apart(l, why, size);
  lua_settop(L, top);
  return fine;
}

/* ---- reports ---- */

bool kc_live_unrolled(const kc_live *l, uint32_t i, const char **where, int64_t *trips) {
  if (i >= l->nunrolled) return false;
  *where = l->unrolled[i].where;
  *trips = l->unrolled[i].trips;
  return true;
}

static const char *object_among(const kc_live *l, const kc_leaf *a) {
  const char *found = NULL;
  for (uint32_t i = 0; a->kind == KC_LEAF_TABLE && i < a->n && !found; i++)
    found = object_among(l, &a->items[i]);
  if (a->kind != KC_LEAF_CONST || a->spec) return found;
  const kc_expected *e = &l->consts[a->value.i];
  return e->anchor && e->type != LUA_TSTRING ? a->name : NULL;
}

const char *kc_live_object(const kc_live *l) {
  const char *found = NULL;
  for (int i = 0; i < l->nargs && !found; i++) found = object_among(l, &l->args[i]);
  return found;
}

const char *kc_live_unsteady(const kc_live *l) {
  for (uint32_t i = 0; i < l->nchecks; i++) {
    const kc_check *k = &l->checks[i];
    if (!k->blind && (k->born ? k->written && !k->clears : k->clears || k->sometimes)) return k->name;
  }
  return NULL;
}

/* ---- life ---- */

kc_live *kc_live_new(kn_context *ctx) {
  kc_live *l = kn_calloc(ctx->heap, 1, sizeof *l);
  if (!l) return NULL;
  l->heap = kn_heap_retain(ctx->heap);
  l->ref = LUA_NOREF;
  kn_arena_init(&l->arena, l->heap);
  return l;
}

void kc_live_free(lua_State *L, kc_live *l) {
  if (!l) return;
  luaL_unref(L, LUA_REGISTRYINDEX, l->ref);
  kc_guards_free(L, &l->quick);
  kn_heap *heap = l->heap;
  kn_arena_free(&l->arena);
  kn_free(heap, l, sizeof *l);
  kn_heap_release(heap);
}
