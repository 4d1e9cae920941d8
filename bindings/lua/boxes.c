/* The userdata that tensors are, and how their death is noticed without a finalizer: a finalizer would cost
 * each tensor a protected call and a second life, more than a small op takes. The state's allocator is
 * wrapped instead; when Lua frees the block of a box, the tensor in it waits in a list until no code of Lua's
 * is running any more, and is released there. What a box holds and what it is called is in tensor.c. */
#include "bindings/lua/state.h"
#include <string.h>

static const char sentry_key; /* registry: the metatable of the sentry */

enum { FIRST_ROOM = 64 };

/* ---- the allocator ---- */

/* A block of the right size is a box only if its slot knows it: other blocks hold anything. */
static void died(kl_boxes *b, kl_box *box) {
  uint32_t slot = box->slot;
  if (slot >= b->room || b->box[slot] != box) return;
  b->box[slot] = NULL;
  b->empty[b->nempty++] = slot;
  if (box->tensor) b->dead[b->ndead++] = box->tensor;
}

/* Lua finds no memory, has collected its garbage and asks again: its memory and that of tensors may have one
 * limit. Only what is released without a call of anybody's function goes: this is in the middle of Lua. */
static bool let_go(kl_boxes *b) {
  uint32_t n = b->ndead, kept = 0;
  for (uint32_t i = 0; i < n; i++) {
    kn_tensor *t = b->dead[i];
    if (t->grad || t->base || !t->storage || t->storage->release)
      b->dead[kept++] = t;
    else
      kn_tensor_release(t);
  }
  b->ndead = kept;
  return kept < n;
}

static void *watch(void *ud, void *p, size_t osize, size_t nsize) {
  kl_boxes *b = ud;
  if (nsize > 0) {
    if (b->deny && !p && osize == LUA_TUSERDATA) return b->deny--, NULL;
    void *q = b->fn(b->ud, p, osize, nsize);
    return q || !let_go(b) ? q : b->fn(b->ud, p, osize, nsize);
  }
  if (osize == b->bytes && p) died(b, (kl_box *)(void *)((char *)p + b->offset));
  bool end = p == b->end;
  b->fn(b->ud, p, osize, 0);
  if (end) kn_free(b->heap, b, sizeof *b);
  return NULL;
}

/* Much quicker than the registry. */
kl_state *kl_state_of_boxes(lua_State *L) {
  void *ud;
  return lua_getallocf(L, &ud) == watch ? ((kl_boxes *)ud)->state : NULL;
}

/* Finds out where in its block a box lies. */
static void *probe(void *ud, void *p, size_t osize, size_t nsize) {
  kl_boxes *b = ud;
  void *q = b->fn(b->ud, p, osize, nsize);
  if (!p && osize == LUA_TUSERDATA && nsize) b->probed = q, b->bytes = nsize;
  return q;
}

static int make_probe(lua_State *L) {
  memset(lua_newuserdatauv(L, KL_BOX_BYTES, 0), 0xff, KL_BOX_BYTES); /* a box of no slot */
  return 1;
}

/* ---- releasing ---- */

void kl_bury(kl_state *s) {
  kl_boxes *b = s->boxes;
  while (b->ndead)
    kn_tensor_release(b->dead[--b->ndead]); /* which may run a host's function: it may add to them */
}

/* One userdata with a finalizer dies in every round of the collector, so that tensors do not wait for the
 * next op. It comes to life again by getting its metatable again. */
static int sentry_gc(lua_State *L) {
  kl_state *s = lua_touserdata(L, lua_upvalueindex(1));
  if (!s->ctx) return 0;
  kl_bury(s);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &sentry_key);
  lua_setmetatable(L, 1);
  return 0;
}

/* ---- slots ---- */

enum { SLOT_BYTES = sizeof(kl_box *) + sizeof(kn_tensor *) + sizeof(uint32_t) };

/* The three arrays are one block. */
static bool enlarge(kl_boxes *b) {
  uint32_t old = b->room, room = old ? 2 * old : FIRST_ROOM;
  kl_box **box = kn_alloc(b->heap, room * (size_t)SLOT_BYTES);
  if (!box) return false;
  kn_tensor **dead = (kn_tensor **)(void *)(box + room);
  uint32_t *empty = (uint32_t *)(void *)(dead + room);
  memset(box, 0, room * sizeof *box);
  if (old) memcpy(box, b->box, old * sizeof *box);
  if (b->ndead) memcpy(dead, b->dead, b->ndead * sizeof *dead);
  kn_free(b->heap, b->box, old * (size_t)SLOT_BYTES);
  b->box = box, b->dead = dead, b->empty = empty; /* there was no empty slot */
  for (uint32_t i = room; i > old; i--) b->empty[b->nempty++] = i - 1;
  b->room = room;
  return true;
}

kl_box *kl_new_box(lua_State *L, kl_state *s) {
  kl_boxes *b = s->boxes;
  kl_box *box = lua_newuserdatauv(L, KL_BOX_BYTES, 0);
  box->tensor = NULL;
  box->slot = UINT32_MAX;
  if (!b->nempty && !enlarge(b)) {
    kn_fail_nomem(s->ctx, 0);
    kl_fail(L);
  }
  box->slot = b->empty[--b->nempty];
  b->box[box->slot] = box;
  return box;
}

void kl_empty_box(kl_boxes *b, kl_box *box) {
  kn_tensor *t = box->tensor;
  box->tensor = NULL;
  b->emptied++;
  kn_tensor_release(t);
}

uint64_t kl_count_tensors(const kl_state *s) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < s->boxes->room; i++) n += s->boxes->box[i] && s->boxes->box[i]->tensor;
  return n;
}

/* ---- life ---- */

void kl_open_boxes(lua_State *L, kl_state *s) {
  kl_boxes *b = kn_calloc(s->ctx->heap, 1, sizeof *b);
  if (!b) luaL_error(L, "kiln: out of memory");
  b->heap = s->ctx->heap;
  b->end = lua_getextraspace(s->main); /* the block of the main coroutine, which Lua frees last of all */
  b->fn = lua_getallocf(L, &b->ud);
  lua_pushcfunction(L, make_probe);
  lua_setallocf(L, probe, b);
  int st = lua_pcall(L, 0, 1, 0);
  lua_setallocf(L, b->fn, b->ud);
  if (st != LUA_OK) {
    kn_free(b->heap, b, sizeof *b);
    lua_error(L);
  }
  b->offset = (char *)lua_touserdata(L, -1) - (char *)b->probed;
  lua_pop(L, 1);
  s->boxes = b;
  b->state = s;
  lua_setallocf(L, watch, b);
  lua_createtable(L, 0, 1);
  lua_pushlightuserdata(L, s);
  lua_pushcclosure(L, sentry_gc, 1);
  lua_setfield(L, -2, "__gc");
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sentry_key);
  lua_newuserdatauv(L, 1, 0);
  lua_insert(L, -2);
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
}

void kl_close_boxes(kl_state *s) {
  kl_boxes *b = s->boxes;
  if (!b) return;
  b->state = NULL;
  for (uint32_t i = 0; i < b->room; i++)
    if (b->box[i]) kl_empty_box(b, b->box[i]);
  kl_bury(s);
  kn_free(b->heap, b->box, b->room * (size_t)SLOT_BYTES);
  b->box = NULL;
  b->room = b->nempty = b->ndead = 0;
}
