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
  kc_guard_fast *f = &g->fast;
  size_t most = (size_t)room + 1;
  f->room = 2 * room;
  g->list = kn_arena_alloc(a, most * sizeof *g->list);
  f->ups = kn_arena_alloc(a, most * sizeof *f->ups);
  f->heads = kn_arena_alloc(a, most * sizeof *f->heads);
  f->parts = kn_arena_alloc(a, most * sizeof *f->parts);
  f->slots = kn_arena_alloc(a, most * sizeof *f->slots);
  f->nodes = kn_arena_alloc(a, most * sizeof *f->nodes);
  f->kinds = kn_arena_alloc(a, most * sizeof *f->kinds);
  f->ways = kn_arena_alloc(a, 2 * most * sizeof *f->ways);
  f->unused = kn_arena_alloc(a, 2 * most * sizeof *f->unused);
  f->tensors = kn_arena_alloc(a, most * sizeof *f->tensors);
  f->rest = kn_arena_alloc(a, most * sizeof *f->rest);
  if (!g->list || !f->ups || !f->heads || !f->parts || !f->slots || !f->nodes || !f->kinds || !f->ways ||
      !f->unused || !f->tensors || !f->rest)
    luaL_error(L, "not enough memory");
  g->T = lua_newthread(L);
  g->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  if (objects > MOST || room > MOST) luaL_error(L, "the function depends on too many values outside");
  if (!lua_checkstack(g->T, (int)(room + objects) + PILE + 8)) luaL_error(L, "not enough memory");
  g->peeks = kc_peek_works(L);
  g->emptied = c->host->emptied(L);
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
static kn_tensor *tensor_on_top(kc_guards *g, const kc_host *host, kc_guard *k) {
  lua_State *T = g->T;
  const void *at = lua_touserdata(T, -1);
  if (at && at == (const void *)k->box) return *k->box;
  kn_tensor *t = host->test_tensor(T, -1);
  if (!t) return NULL;
  lua_copy(T, -1, k->last);
  k->box = lua_touserdata(T, -1);
  if (k->fast) g->fast.tensors[k->fast - 1].box = k->box;
  g->fast.given = false;
  if (k->seen) g->fast.made = false; /* knows the object before by its address, which may be used again */
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

static void see_table(kc_guard_fast *f, const kc_peek_table *t) {
  if (f->nheads && f->heads[f->nheads - 1].table == t) return; /* guards come table by table */
  f->heads[f->nheads++] = (kc_guard_head){t, t->meta, t->nodes, t->log2_nodes};
  f->first_way = f->nways, f->first_unused = f->nunused;
}

static void see_part(kc_guard_fast *f, const kc_peek_table *t, uint32_t need) {
  if (!f->nparts || f->parts[f->nparts - 1].table != t)
    f->parts[f->nparts++] = (kc_guard_part){t, t->array, need};
  kc_guard_part *last = &f->parts[f->nparts - 1];
  if (need > last->need) last->need = need;
}

/* One node of a way; keys that are not there share much of theirs. */
static bool see_step(kc_guard_fast *f, const kc_peek_node *n) {
  bool used = n->key_tag != 0;
  if (used) {
    for (uint32_t i = f->first_way; i < f->nways; i++)
      if (f->ways[i].at == n) return true;
    if (f->nways == f->room) return false;
    f->ways[f->nways++] = (kc_guard_key){n, n->key, n->word};
    return true;
  }
  for (uint32_t i = f->first_unused; i < f->nunused; i++)
    if (f->unused[i].at == n) return true;
  if (f->nunused == f->room) return false;
  f->unused[f->nunused++] = (kc_guard_unused){n, n->word};
  return true;
}

/* The key is not there as long as every node on the way that a look takes is as it is. A node that was never
 * used has a tag that says so and no key: what lies there was never written. */
static bool see_way(kc_guard_fast *f, const kc_peek_node *n) {
  for (; see_step(f, n); n += n->next)
    if (!n->next) return true;
  return false;
}

static bool see_field(kc_guard_fast *f, lua_State *T, const kc_guard *k, const kc_peek_table *t,
                      bool tag_only, uint64_t string) {
  const kc_peek_string *key = lua_topointer(T, k->key_place);
  if (lua_type(T, k->key_place) != LUA_TSTRING || key->tt != LUA_TSTRING) return false;
  bool there;
  const kc_peek_node *n = kc_peek_find(t, (uint64_t)(uintptr_t)key, KC_PEEK_STRING, key->hash, &there);
  if (!n) return false;
  see_table(f, t);
  if (!there) return see_way(f, n);
  if (string && n->bits != string) return false;
  if (!tag_only)
    f->nodes[f->nnodes++] = (kc_guard_node){n, n->key, n->bits, n->word};
  else
    f->kinds[f->nkinds++] = (kc_guard_key){n, n->key, n->word};
  return true;
}

/* Only of objects, by whose address it shows that it has been found. */
static bool see_upvalue(kc_guard_fast *f, lua_State *T, const kc_guard *k) {
  if (k->tensor || (k->type != LUA_TTABLE && k->type != LUA_TFUNCTION)) return false;
  const kc_peek_upvalue *up = kc_peek_upvalue_of(T, k->container, (int)k->i, k->want.ptr);
  if (!up) return false;
  const kc_peek_closure *of = lua_topointer(T, k->container);
  f->ups[f->nups++] = (kc_guard_up){&of->up[k->i - 1], up, up->at, up->at->bits, up->at->tag};
  return true;
}

/* A guard that has just been found to hold: what has to stay as it is in memory. False where that cannot be
 * said; only objects that are kept alive are known by their addresses. */
static bool see(kc_guards *g, const kc_guard *k) {
  lua_State *T = g->T;
  kc_guard_fast *f = &g->fast;
  if (g->peeks && k->how == KC_GUARD_UPVALUE) return see_upvalue(f, T, k);
  if (!g->peeks || lua_type(T, k->container) != LUA_TTABLE) return false;
  const kc_peek_table *t = lua_topointer(T, k->container);
  bool tag_only = !k->tensor && (k->type == LUA_TNIL || k->type == LUA_TBOOLEAN);
  uint64_t string = !k->tensor && k->type == LUA_TSTRING ? (uint64_t)(uintptr_t)lua_topointer(T, k->last) : 0;
  if (k->how == KC_GUARD_FIELD) return see_field(f, T, k, t, tag_only, string);
  if (k->how == KC_GUARD_INDEX) {
    if (!kc_peek_in_array(t, k->i)) return false;
    const kc_peek_value *v = &t->array[k->i - 1];
    if (string && v->bits != string) return false;
    see_part(f, t, (uint32_t)k->i);
    f->slots[f->nslots++] = (kc_guard_slot){v, v->bits, (uint64_t)tag_only - 1, v->tag};
    return true;
  }
  if (k->how == KC_GUARD_META) see_table(f, t);
  return k->how == KC_GUARD_META;
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
    if (t->nodes[i].key_tag == KC_PEEK_LONG_STRING) return false; /* an equal one is another object */
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
static bool holds(kc_guards *g, const kc_host *host, kc_guard *k) {
  lua_State *T = g->T;
  int type = look(T, k);
  if (k->tensor) return type == LUA_TUSERDATA && tensor_on_top(g, host, k);
  return type == k->type && is_wanted(T, k);
}

/* All have just been found to hold. */
static void make_fast(kc_guards *g) {
  kc_guard_fast *f = &g->fast;
  f->nups = f->nheads = f->nparts = f->nslots = f->nnodes = f->nkinds = 0;
  f->nways = f->nunused = f->ntensors = f->nrest = 0;
  for (uint32_t i = 0; i < g->n; i++) {
    kc_guard *k = &g->list[i];
    if (k->tensor) {
      const kn_tensor *given = k->fast ? f->tensors[k->fast - 1].given : NULL;
      f->tensors[f->ntensors++] = (kc_guard_tensor){k->box, given, i};
      k->fast = f->ntensors; /* the same one each time */
    }
    k->seen = see(g, k);
    if (!k->seen) f->rest[f->nrest++] = i;
  }
  f->made = true;
}

/* Certainly as they were; false says nothing. What tables point to is read only when all of them are found to
 * point to it still, with as much room: it is theirs then, whatever has been freed and used again between. */
static bool all_unchanged(const kc_guard_fast *f) {
  const uint64_t tags = kc_peek_word(0xff, 0xff, 0), way = kc_peek_word(0, 0xff, -1);
  uint64_t other = 0;
  for (const kc_guard_up *u = f->ups, *end = u + f->nups; u < end; u++) {
    if (*u->of != u->up || u->up->at != u->at) return false;
    other |= (u->at->bits ^ u->bits) | (uint64_t)(u->at->tag ^ u->tag);
  }
  for (const kc_guard_head *h = f->heads, *end = h + f->nheads; h < end; h++)
    other |= ((uintptr_t)h->table->nodes ^ (uintptr_t)h->nodes) |
             ((uintptr_t)h->table->meta ^ (uintptr_t)h->meta) | (h->table->log2_nodes ^ h->log2_nodes);
  for (const kc_guard_part *p = f->parts, *end = p + f->nparts; p < end; p++)
    other |= (uint64_t)(p->table->array != p->array) | (uint64_t)(p->table->limit < p->need);
  if (other) return false;
  for (const kc_guard_slot *s = f->slots, *end = s + f->nslots; s < end; s++)
    other |= ((s->at->bits ^ s->bits) & s->mask) | (uint64_t)(s->at->tag ^ s->tag);
  for (const kc_guard_node *k = f->nodes, *end = k + f->nnodes; k < end; k++)
    other |= (k->at->key ^ k->key) | (k->at->bits ^ k->bits) | ((k->at->word ^ k->word) & tags);
  for (const kc_guard_key *k = f->kinds, *end = k + f->nkinds; k < end; k++)
    other |= (k->at->key ^ k->key) | ((k->at->word ^ k->word) & tags);
  for (const kc_guard_key *k = f->ways, *end = k + f->nways; k < end; k++)
    other |= (k->at->key ^ k->key) | ((k->at->word ^ k->word) & way);
  for (const kc_guard_unused *k = f->unused, *end = k + f->nunused; k < end; k++)
    other |= (k->at->word ^ k->word) & way;
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
    hold = holds(g, host, &g->list[which ? which[i] : i]);
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
  if (f->given && f->emptied == *g->emptied) return true;
  for (const kc_guard_tensor *k = f->tensors, *end = k + f->ntensors; k < end; k++) {
    const kn_tensor *t = *k->box;
    if (t && t == k->given) continue; /* of a tensor that has elements, type and storage stay */
    if (!other_tensor(g, k)) return false;
  }
  f->given = !g->moved;
  f->emptied = *g->emptied;
  return true;
}

bool kc_guards_is_given(const kc_guards *g, uint32_t i) {
  const kc_guard_tensor *k = &g->fast.tensors[g->list[i].fast - 1];
  return k->given && k->given == *k->box;
}

kn_tensor *kc_guards_give(kc_guards *g, uint32_t i) {
  kc_guard_tensor *k = &g->fast.tensors[g->list[i].fast - 1];
  k->given = *k->box;
  return *k->box;
}

void kc_guards_forget(kc_guards *g) {
  g->fast.given = false;
  for (uint32_t i = 0; i < g->fast.ntensors; i++) g->fast.tensors[i].given = NULL;
}

kn_tensor *kc_guards_tensor(kc_guards *g, const kc_host *host, uint32_t i) {
  kc_guard *k = &g->list[i];
  kn_tensor *t = look(g->T, k) == LUA_TUSERDATA ? tensor_on_top(g, host, k) : NULL;
  lua_pop(g->T, 1);
  return t;
}

void kc_guards_free(lua_State *L, kc_guards *g) {
  if (g->T) luaL_unref(L, LUA_REGISTRYINDEX, g->ref);
  g->T = NULL;
}
