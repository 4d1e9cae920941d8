/* The flat list of guards, made to be quick: it is gone through at every call of a captured function. What it
 * compares lies on the stack of a Lua thread that never runs, so a look is two or three calls of Lua's
 * interface, without a table of objects between. It only says yes or no; which guard failed and why is found
 * by live.c, which also checks what is too special for this list. */
#include "graph/mutant.h"
#include "lua/capture/guards.h"
#include <lauxlib.h>
#include <string.h>

enum { PILE = 24 };     /* values left on the stack before they are popped */
enum { MOST = 400000 }; /* of guards, of objects: a Lua stack has room for a million values */

void kc_guards_open(kc_cap *c, kc_guards *g, kn_arena *a, uint32_t room, uint32_t objects) {
  lua_State *L = c->L;
  g->list = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *g->list);
  g->spot = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *g->spot);
  kc_guard_fast *f = &g->fast;
  f->metas = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *f->metas);
  f->slots = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *f->slots);
  f->nodes = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *f->nodes);
  f->absent = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *f->absent);
  f->tensors = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *f->tensors);
  f->rest = kn_arena_alloc(a, ((size_t)room + 1) * sizeof *f->rest);
  if (!g->list || !g->spot || !f->metas || !f->slots || !f->nodes || !f->absent || !f->tensors || !f->rest)
    luaL_error(L, "not enough memory");
  g->T = lua_newthread(L);
  g->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  if (objects > MOST || room > MOST) luaL_error(L, "the function depends on too many values outside");
  if (!lua_checkstack(g->T, (int)(room + objects) + PILE + 8)) luaL_error(L, "not enough memory");
  g->peeks = kc_peek_works(L);
}

int kc_guards_keep(lua_State *L, kc_guards *g) {
  lua_xmove(L, g->T, 1);
  return lua_gettop(g->T);
}

/* Pushes what is there now; its type. */
static inline int look(lua_State *T, const kc_guard *k) {
  switch ((kc_guard_how)k->how) {
  case KC_GUARD_FIELD: lua_pushvalue(T, k->key_place); return lua_rawget(T, k->container);
  case KC_GUARD_INDEX: return lua_rawgeti(T, k->container, k->i);
  case KC_GUARD_UPVALUE:
    if (!lua_getupvalue(T, k->container, (int)k->i)) break;
    return lua_type(T, -1);
  case KC_GUARD_META:
    if (!lua_getmetatable(T, k->container)) break;
    return LUA_TTABLE;
  case KC_GUARD_LENGTH: lua_pushinteger(T, (lua_Integer)lua_rawlen(T, k->container)); return LUA_TNUMBER;
  }
  lua_pushnil(T);
  return LUA_TNIL;
}

/* The tensor on top. The object is kept: an address that is met again is the same object. */
static kn_tensor *tensor_on_top(lua_State *T, const kc_host *host, const kc_guard *k, kc_guard_spot *p) {
  const void *at = lua_touserdata(T, -1);
  if (at && at == (const void *)p->box) return *p->box;
  kn_tensor *t = host->test_tensor(T, -1);
  p->peek = KC_PEEK_NOT;
  if (t) {
    lua_copy(T, -1, k->last);
    p->box = lua_touserdata(T, -1);
  }
  return t;
}

static inline bool is_wanted(lua_State *T, const kc_guard *k) {
  switch (k->type) {
  case LUA_TNIL: return true;
  case LUA_TBOOLEAN: return lua_toboolean(T, -1) == (int)k->want.i || KN_MUTANT(boolean_guard_unchecked);
  case LUA_TNUMBER: {
    if (lua_isinteger(T, -1) != (int)k->integer) return false;
    if (KN_MUTANT(number_guard_unchecked)) return true;
    if (k->integer) return lua_tointeger(T, -1) == k->want.i;
    double f = lua_tonumber(T, -1);
    return !memcmp(&f, &k->want.f, sizeof f);
  }
  case LUA_TSTRING: return lua_tostring(T, -1) == k->want.ptr || lua_rawequal(T, -1, k->last);
  default:
    return lua_topointer(T, -1) == k->want.ptr ||
           (KN_MUTANT(function_guard_unchecked) && k->type == LUA_TFUNCTION);
  }
}

/* ---- without a call ---- */

static void note_value(kc_guard_spot *p, kc_guard_peek peek, uint64_t bits, uint8_t tag) {
  p->peek = (uint8_t)peek;
  p->bits = bits;
  p->tag = tag;
}

static void note_field(lua_State *T, const kc_guard *k, kc_guard_spot *p) {
  const kc_peek_string *string = lua_topointer(T, k->key_place);
  if (lua_type(T, k->key_place) != LUA_TSTRING || string->tt != LUA_TSTRING) return;
  bool there;
  const kc_peek_node *n =
      kc_peek_find(p->table, (uint64_t)(uintptr_t)string, KC_PEEK_STRING, string->hash, &there);
  p->base = p->table->nodes;
  if (!n) return;
  p->at = (uint32_t)(n - p->table->nodes);
  p->key = n->key_tag ? n->key : 0; /* a free node has none */
  p->key_tag = n->key_tag;
  if (there && !kc_peek_is_nil(n->tag))
    note_value(p, KC_PEEK_NODE, n->bits, n->tag);
  else if (!there && k->type == LUA_TNIL && !k->tensor)
    note_value(p, KC_PEEK_ABSENT, (uint64_t)(int64_t)n->next, 0);
}

/* What was just found, on top, is what is wanted: remembers where it lies. Only objects that are kept alive.
 */
static void note(const kc_guards *g, const kc_guard *k, kc_guard_spot *p) {
  lua_State *T = g->T;
  p->peek = KC_PEEK_NOT;
  if (!g->peeks || lua_type(T, k->container) != LUA_TTABLE) return;
  if (k->type == LUA_TSTRING && !k->tensor && lua_topointer(T, -1) != lua_topointer(T, k->last)) return;
  p->table = lua_topointer(T, k->container);
  p->tag_only = !k->tensor && (k->type == LUA_TNIL || k->type == LUA_TBOOLEAN);
  if (k->how == KC_GUARD_META) {
    p->base = lua_topointer(T, -1); /* NULL for nil */
    p->peek = KC_PEEK_META;
  } else if (k->how == KC_GUARD_INDEX && kc_peek_in_array(p->table, k->i)) {
    p->at = (uint32_t)(k->i - 1);
    note_value(p, KC_PEEK_ARRAY, p->table->array[p->at].bits, p->table->array[p->at].tag);
  } else if (k->how == KC_GUARD_FIELD)
    note_field(T, k, p);
}

/* So many are there, from the first on, and none behind; UINT32_MAX where there are holes. */
static uint32_t full_part(const kc_peek_table *t, uint32_t size) {
  uint32_t full = 0;
  while (full < size && !kc_peek_is_nil(t->array[full].tag)) full++;
  for (uint32_t i = full; i < size; i++)
    if (!kc_peek_is_nil(t->array[i].tag)) return UINT32_MAX;
  return full;
}

bool kc_guard_keys_note(const kc_peek_table *t, kc_guard_keys *k) {
  uint32_t size = kc_peek_array_size(t);
  *k = (kc_guard_keys){t->array, t->nodes, full_part(t, size), size, kc_peek_count(t), {0}, {0}};
  if (k->full == UINT32_MAX || k->count > KC_PEEK_NODES) return false;
  for (uint32_t i = 0; i < k->count; i++) {
    if (kc_peek_is_nil(t->nodes[i].tag)) continue;
    k->key[i] = t->nodes[i].key;
    k->key_tag[i] = t->nodes[i].key_tag;
  }
  return true;
}

bool kc_guard_keys_same(const kc_peek_table *t, const kc_guard_keys *k) {
  if (t->array != k->array || t->nodes != k->nodes || kc_peek_count(t) != k->count) return false;
  if (kc_peek_array_size(t) != k->size || full_part(t, k->size) != k->full) return false;
  for (uint32_t i = 0; i < k->count; i++) {
    const kc_peek_node *n = &t->nodes[i];
    bool there = !kc_peek_is_nil(n->tag);
    if (there ? n->key != k->key[i] || n->key_tag != k->key_tag[i] : k->key_tag[i] != 0) return false;
  }
  return true;
}

/* ---- all of them ---- */

static inline bool same_type(const kn_type *a, const kn_type *b) {
  if (a->dtype != b->dtype || a->device != b->device || a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

/* By Lua's interface; what is found stays on the stack. */
static bool holds(const kc_guards *g, const kc_host *host, const kc_guard *k, kc_guard_spot *p) {
  lua_State *T = g->T;
  int type = look(T, k);
  bool hold =
      k->tensor ? type == LUA_TUSERDATA && tensor_on_top(T, host, k, p) : type == k->type && is_wanted(T, k);
  if (hold) note(g, k, p);
  return hold;
}

static kc_guard_node node_of(const kc_guard_spot *p) {
  return (kc_guard_node){
      p->table, p->base, p->key, p->bits, p->at, p->tag, p->key_tag, p->table->log2_nodes, p->tag_only};
}

/* All have just been found to hold. */
static void make_fast(kc_guards *g) {
  kc_guard_fast *f = &g->fast;
  f->nmetas = f->nslots = f->nnodes = f->nabsent = f->ntensors = f->nrest = 0;
  for (uint32_t i = 0; i < g->n; i++) {
    kc_guard_spot *p = &g->spot[i];
    const kc_peek_table *t = p->table;
    if (g->list[i].tensor) {
      const kn_tensor *given = p->tensor ? f->tensors[p->tensor - 1].given : NULL;
      f->tensors[f->ntensors++] = (kc_guard_tensor){p->box, given, i};
      p->tensor = f->ntensors; /* the same one each time */
    }
    switch ((kc_guard_peek)p->peek) {
    case KC_PEEK_META: f->metas[f->nmetas++] = (kc_guard_meta){t, p->base}; break;
    case KC_PEEK_ARRAY:
      f->slots[f->nslots++] = (kc_guard_slot){t, p->bits, p->at, p->tag, p->tag_only};
      break;
    case KC_PEEK_NODE: f->nodes[f->nnodes++] = node_of(p); break;
    case KC_PEEK_ABSENT: f->absent[f->nabsent++] = node_of(p); break;
    case KC_PEEK_NOT: f->rest[f->nrest++] = i; break;
    }
  }
  f->made = true;
}

/* Certainly as they were; false says nothing. A table's memory is read only while it is the table's. */
static bool all_unchanged(const kc_guard_fast *f) {
  uint64_t other = 0;
  for (const kc_guard_meta *m = f->metas, *end = m + f->nmetas; m < end; m++)
    other |= (uint64_t)(m->table->meta != m->meta);
  if (other) return false;
  for (const kc_guard_slot *s = f->slots, *end = s + f->nslots; s < end; s++) {
    if (s->at >= s->table->limit) return false;
    const kc_peek_value *v = &s->table->array[s->at];
    other |= ((v->bits ^ s->bits) & ((uint64_t)s->tag_only - 1)) | (uint64_t)(v->tag ^ s->tag);
  }
  for (const kc_guard_node *k = f->nodes, *end = k + f->nnodes; k < end; k++) {
    if (k->table->nodes != k->nodes || k->table->log2_nodes != k->log2_nodes) return false;
    const kc_peek_node *n = &k->nodes[k->at];
    other |= (n->key ^ k->key) | ((n->bits ^ k->bits) & ((uint64_t)k->tag_only - 1)) |
             (uint64_t)(n->tag ^ k->tag) | (uint64_t)(n->key_tag ^ k->key_tag);
  }
  for (const kc_guard_node *k = f->absent, *end = k + f->nabsent; k < end; k++) {
    if (k->table->nodes != k->nodes || k->table->log2_nodes != k->log2_nodes) return false;
    const kc_peek_node *n = &k->nodes[k->at];
    uint64_t mask = (uint64_t)(k->key_tag == 0) - 1; /* a free node's key is nothing yet */
    other |= ((n->key ^ k->key) & mask) | (uint64_t)(n->key_tag ^ k->key_tag) |
             (uint64_t)(n->next != (int32_t)k->bits);
  }
  return !other;
}

/* A tensor is of the type that is wanted: surely when it is the one that the session has. */
static bool other_tensor(kc_guards *g, const kc_guard_tensor *k) {
  kn_tensor *t = *k->box;
  g->moved = true;
  return t && t->storage && same_type(&t->type, g->list[k->guard].tensor);
}

/* By Lua's interface: all, or those on the list. */
static bool all_hold(kc_guards *g, const kc_host *host, const uint32_t *which, uint32_t n) {
  lua_State *T = g->T;
  int base = lua_gettop(T), pile = 0;
  bool hold = true;
  for (uint32_t i = 0; i < n && hold; i++) {
    uint32_t at = which ? which[i] : i;
    kc_guard_spot *p = &g->spot[at];
    hold = holds(g, host, &g->list[at], p);
    if (p->tensor) g->fast.tensors[p->tensor - 1].box = p->box;
    if (++pile == PILE) lua_settop(T, base), pile = 0;
  }
  lua_settop(T, base);
  return hold;
}

bool kc_guards_hold(kc_guards *g, const kc_host *host) {
  kc_guard_fast *f = &g->fast;
  g->moved = false;
  bool same = f->made && all_unchanged(f);
  if (!(same ? all_hold(g, host, f->rest, f->nrest) : all_hold(g, host, NULL, g->n))) return false;
  if (!same) make_fast(g);
  for (const kc_guard_tensor *k = f->tensors, *end = k + f->ntensors; k < end; k++) {
    const kn_tensor *t = *k->box;
    if (t && t == k->given) continue; /* of a tensor that has elements, type and storage stay */
    if (!other_tensor(g, k)) return false;
  }
  return true;
}

bool kc_guards_is_given(const kc_guards *g, uint32_t i) {
  const kc_guard_tensor *k = &g->fast.tensors[g->spot[i].tensor - 1];
  return k->given && k->given == *k->box;
}

kn_tensor *kc_guards_give(kc_guards *g, uint32_t i) {
  kc_guard_tensor *k = &g->fast.tensors[g->spot[i].tensor - 1];
  k->given = *k->box;
  return *k->box;
}

void kc_guards_forget(kc_guards *g) {
  for (uint32_t i = 0; i < g->fast.ntensors; i++) g->fast.tensors[i].given = NULL;
}

kn_tensor *kc_guards_tensor(kc_guards *g, const kc_host *host, uint32_t i) {
  kc_guard *k = &g->list[i];
  kn_tensor *t = look(g->T, k) == LUA_TUSERDATA ? tensor_on_top(g->T, host, k, &g->spot[i]) : NULL;
  lua_pop(g->T, 1);
  return t;
}

void kc_guards_free(lua_State *L, kc_guards *g) {
  if (g->T) luaL_unref(L, LUA_REGISTRYINDEX, g->ref);
  g->T = NULL;
}
