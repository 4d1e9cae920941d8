/* Lua functions on the tape: hooks, custom functions, checkpoints, anomalies. Core knows a C function, its
 * data and how to release it; the data here holds the Lua function in a table of the registry. So the
 * function lives as long as what it hangs on, and a function that itself holds a tensor made from what it
 * hangs on keeps both until it is removed: Lua's collector does not see the way through the tape. */
#include "bindings/lua/state.h"
#include "core/grad/checkpoint.h"
#include "core/grad/tape.h"
#include <string.h>

static const char error_key, functions_key, handle_key; /* registry keys */

/* How data on the tape finds the Lua state, which may be closed before it is released. */
typedef struct kl_anchor {
  int refs;
  kn_heap *heap;      /* retained */
  lua_State *main;    /* NULL once the state closes */
  lua_State *running; /* the coroutine that entered the tape last; NULL: none */
} kl_anchor;

static kl_anchor *anchor_of(lua_State *L) {
  kl_state *s = kl_state_of(L);
  if (s->anchor) return s->anchor;
  kl_anchor *a = kn_calloc(s->ctx->heap, 1, sizeof *a);
  if (!a) kl_error(L, KN_NOMEM, "out of memory");
  a->refs = 1;
  a->heap = kn_heap_retain(s->ctx->heap);
  a->main = s->main;
  return s->anchor = a;
}

static void anchor_release(kl_anchor *a) {
  if (--a->refs) return;
  kn_heap *heap = a->heap;
  kn_free(heap, a, sizeof *a);
  kn_heap_release(heap);
}

lua_State *kl_enter_tape(lua_State *L) {
  kl_anchor *a = anchor_of(L);
  lua_State *before = a->running;
  kl_note_hook(L);
  a->running = L;
  lua_pushboolean(L, 0);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
  return before;
}

void kl_leave_tape(lua_State *L, lua_State *before, kn_status st) {
  anchor_of(L)->running = before;
  if (st == KN_OK) return;
  if (st == KN_RAISED) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &error_key);
    lua_pushboolean(L, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
    bool told_more = lua_type(L, -1) == LUA_TSTRING && !kl_context(L)->error_placed;
    if (!lua_isboolean(L, -1) && !told_more) lua_error(L);
  }
  kl_fail(L);
}

/* ---- a Lua value held by data on the tape ---- */

enum { MOST_TENSORS = 64 }; /* that go into a custom function, come out and are saved */

typedef struct held {
  kl_anchor *anchor; /* one reference */
  int ref;           /* in the table of functions */
  int saved;         /* custom functions: how many tensors were saved, and where each is among what is kept */
  uint8_t place[MOST_TENSORS];
} held;

static void release_held(void *ud) {
  held *h = ud;
  kl_anchor *a = h->anchor;
  lua_State *L = a->main;
  if (L && lua_checkstack(L, 4)) { /* an entry that is there: nothing here needs memory */
    lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
    luaL_unref(L, -1, h->ref);
    lua_pop(L, 1);
  }
  kn_free(a->heap, h, sizeof *h);
  anchor_release(a);
}

/* Takes the value on top of the stack. */
static held *hold(lua_State *L) {
  kl_anchor *a = anchor_of(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
  lua_insert(L, -2);
  int ref = luaL_ref(L, -2);
  held *h = kn_calloc(a->heap, 1, sizeof *h);
  if (!h) {
    luaL_unref(L, -1, ref);
    kl_error(L, KN_NOMEM, "out of memory");
  }
  lua_pop(L, 1);
  h->anchor = a;
  h->ref = ref;
  a->refs++;
  return h;
}

static void push_held(lua_State *L, const held *h) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key);
  lua_rawgeti(L, -1, h->ref);
  lua_remove(L, -2);
}

/* Runs body(data) protected. What it raises becomes the status, and is put aside: it is raised as it was,
 * unless something was put before its text. */
static kn_status call_lua(kn_context *ctx, held *h, lua_CFunction body, void *data) {
  lua_State *L = h->anchor->running ? h->anchor->running : h->anchor->main;
  if (!L) return kn_fail(ctx, KN_STATE, "the Lua state that the function belongs to is closed");
  if (!lua_checkstack(L, 8)) return kn_fail(ctx, KN_NOMEM, "out of memory: no room on the Lua stack");
  lua_pushcfunction(L, body);
  lua_pushlightuserdata(L, data);
  if (lua_pcall(L, 1, 0, 0) == LUA_OK) return KN_OK;
  if (lua_type(L, -1) == LUA_TSTRING)
    kn_fail(ctx, KN_RAISED, "%s", lua_tostring(L, -1));
  else
    kn_fail(ctx, KN_RAISED, "an error that is %s", kl_kind(L, -1));
  ctx->error_placed = true;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
  return KN_RAISED;
}

static int check_function(lua_State *L, int idx, const char *name) {
  if (lua_type(L, idx) == LUA_TFUNCTION) return 0;
  if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL)
    return kl_error(L, KN_ARG, "%s: a function is needed, got %s", name, kl_kind(L, idx));
  lua_pop(L, 1);
  return 0;
}

static void refuse_recording(lua_State *L, const char *name) {
  if (kl_context(L)->recorder)
    kl_error(L, KN_CAPTURE, "%s: this cannot be captured yet; call the captured function from outside of it",
             name);
}

/* ---- hooks ---- */

typedef struct hook_call {
  held *h;
  kn_tensor *t, **out;
} hook_call;

static int hook_body(lua_State *L) {
  hook_call *c = lua_touserdata(L, 1);
  push_held(L, c->h);
  kl_push_tensor(L, kn_tensor_retain(c->t));
  lua_call(L, 1, 1);
  if (lua_isnil(L, -1)) return 0;
  kn_tensor *by = kl_test_tensor(L, -1);
  if (!by) return kl_error(L, KN_ARG, "a hook must return a tensor or nil, not %s", kl_kind(L, -1));
  *c->out = kn_tensor_retain(by);
  return 0;
}

static kn_status run_hook(kn_context *ctx, void *ud, kn_tensor *t, kn_tensor **out) {
  hook_call c = {ud, t, out};
  return call_lua(ctx, ud, hook_body, &c);
}

/* What it returns after accumulation does not matter. */
static int after_body(lua_State *L) {
  hook_call *c = lua_touserdata(L, 1);
  push_held(L, c->h);
  kl_push_tensor(L, kn_tensor_retain(c->t));
  lua_call(L, 1, 0);
  return 0;
}

static kn_status run_after(kn_context *ctx, void *ud, kn_tensor *t, kn_tensor **out) {
  hook_call c = {ud, t, out};
  return call_lua(ctx, ud, after_body, &c);
}

static int add_hook(lua_State *L, const char *name, bool after) {
  kn_tensor *t = kl_check_tensor(L, 1);
  check_function(L, 2, name);
  refuse_recording(L, name);
  lua_settop(L, 2);
  kn_hook **slot = lua_newuserdatauv(L, sizeof *slot, 0);
  *slot = NULL;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &handle_key);
  lua_setmetatable(L, -2);
  lua_insert(L, 2);
  held *h = hold(L);
  kn_context *ctx = kl_context(L);
  kn_status st = kn_tape_hook(ctx, t, after, after ? run_after : run_hook, h, release_held, slot);
  if (st != KN_OK) kn_error_prefix(ctx, "%s", name);
  kl_check(L, st);
  return 1;
}

/* t:register_hook(f): f(gradient) may return another in its place. Gives a handle with remove(). */
static int register_hook(lua_State *L) { return add_hook(L, "register_hook", false); }
/* t:register_post_accumulate_grad_hook(f): f(t), when t.grad is in place. */
static int register_post(lua_State *L) { return add_hook(L, "register_post_accumulate_grad_hook", true); }

static int handle_remove(lua_State *L) {
  kn_hook **slot = luaL_testudata(L, 1, "kiln.hook");
  if (!slot) return kl_error(L, KN_ARG, "remove: a hook's handle is needed, got %s", kl_kind(L, 1));
  if (*slot) kn_hook_remove(*slot);
  return 0;
}

static int handle_gc(lua_State *L) {
  kn_hook **slot = lua_touserdata(L, 1);
  kn_hook_release(*slot);
  *slot = NULL;
  return 0;
}

static int retain_grad(lua_State *L) {
  kl_check(L, kn_tape_retain_grad(kl_context(L), kl_check_tensor(L, 1)));
  lua_settop(L, 1);
  return 1;
}

/* ---- custom functions: lua/kiln/custom_function.lua is in front of this ---- */

typedef struct custom_call {
  held *h;
  const kn_custom_call *call;
  int n, outs;
} custom_call;

/* run(gradients of the results, saved tensors, which inputs need one) gives a table of gradients. */
static int custom_body(lua_State *L) {
  custom_call *c = lua_touserdata(L, 1);
  push_held(L, c->h); /* {run, n, outs} */
  lua_rawgeti(L, -1, 2);
  lua_rawgeti(L, -2, 3);
  int n = (int)lua_tointeger(L, -2), outs = (int)lua_tointeger(L, -1);
  lua_pop(L, 2);
  lua_rawgeti(L, -1, 1);
  lua_createtable(L, outs, 0);
  for (int k = 0; k < outs; k++) {
    kl_push_tensor(L, kn_tensor_retain(c->call->gout[k]));
    lua_rawseti(L, -2, k + 1);
  }
  lua_createtable(L, c->h->saved, 0);
  for (int k = 0; k < c->h->saved; k++) {
    kl_push_tensor(L, kn_tensor_retain(c->call->kept[c->h->place[k]]));
    lua_rawseti(L, -2, k + 1);
  }
  lua_createtable(L, n, 0);
  for (int k = 0; k < n; k++) {
    lua_pushboolean(L, c->call->need[k]);
    lua_rawseti(L, -2, k + 1);
  }
  lua_call(L, 3, 1);
  for (int i = 0; i < n; i++) { /* checked before any is taken */
    if (lua_rawgeti(L, -1, i + 1) != LUA_TNIL && lua_toboolean(L, -1) && !kl_test_tensor(L, -1))
      return kl_error(L, KN_ARG, "gradient %d must be a tensor or nil, got %s", i + 1, kl_kind(L, -1));
    lua_pop(L, 1);
  }
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, -1, i + 1);
    kn_tensor *g = kl_test_tensor(L, -1);
    c->call->gin[i] = g ? kn_tensor_retain(g) : NULL;
    lua_pop(L, 1);
  }
  return 0;
}

static kn_status run_custom(kn_context *ctx, void *ud, const kn_custom_call *call) {
  custom_call c = {.h = ud, .call = call};
  return call_lua(ctx, ud, custom_body, &c);
}

static int read_list(lua_State *L, int idx, const char *name, kn_tensor **list) {
  lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
  if (n > MOST_TENSORS)
    return kl_error(L, KN_LIMIT, "%s: at most %d tensors may go in, come out and be saved", name,
                    MOST_TENSORS);
  for (lua_Integer i = 0; i < n; i++) {
    lua_rawgeti(L, idx, i + 1);
    list[i] = kl_check_tensor(L, -1);
    lua_pop(L, 1); /* the table keeps it */
  }
  return (int)n;
}

static int position(kn_tensor *const *list, int n, const kn_tensor *t) {
  for (int i = 0; i < n; i++)
    if (list[i] == t) return i;
  return -1;
}

/* Where each saved tensor is: an input, a result, or besides. */
static void place_saved(const kn_custom *f, kn_tensor *const *saved, int n, held *h, bool *keep,
                        kn_tensor **extra, int *extras) {
  h->saved = n;
  for (int i = 0; i < n; i++) {
    int at = position(f->in, f->n, saved[i]), result = at < 0 ? position(f->out, f->outs, saved[i]) : -1;
    if (at < 0 && result >= 0) at = f->n + result;
    if (at >= 0) {
      keep[at] = true;
    } else {
      at = f->n + f->outs + *extras;
      extra[(*extras)++] = saved[i];
    }
    h->place[i] = (uint8_t)at;
  }
}

/* tape_node(name, run, inputs, results, saved, flat): gives the results a history. Those that are inputs,
 * views or have one already are replaced in the table by tensors of their own on the same elements. */
static int tape_node(lua_State *L) {
  kn_tensor *in[MOST_TENSORS], *out[MOST_TENSORS], *saved[MOST_TENSORS], *extra[MOST_TENSORS];
  bool keep[2 * MOST_TENSORS] = {false}, flat[MOST_TENSORS] = {false};
  const char *name = luaL_checkstring(L, 1);
  refuse_recording(L, name);
  for (int i = 3; i <= 6; i++) luaL_checktype(L, i, LUA_TTABLE);
  kn_context *ctx = kl_context(L);
  kn_custom f = {.name = name, .in = in, .out = out, .extra = extra, .keep = keep, .flat = flat};
  f.fn = run_custom;
  f.release = release_held;
  f.n = read_list(L, 3, name, in);
  f.outs = read_list(L, 4, name, out);
  int n = read_list(L, 5, name, saved);
  for (int k = 0; k < f.outs; k++) {
    lua_rawgeti(L, 6, k + 1);
    flat[k] = lua_toboolean(L, -1);
    lua_pop(L, 1);
  }
  lua_createtable(L, 3, 0);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 1);
  lua_pushinteger(L, f.n);
  lua_rawseti(L, -2, 2);
  lua_pushinteger(L, f.outs);
  lua_rawseti(L, -2, 3);
  held *h = hold(L);
  place_saved(&f, saved, n, h, keep, extra, &f.extras);
  f.ud = h;
  kn_status st = KN_OK;
  for (int k = 0; k < f.outs && st == KN_OK; k++) {
    if (flat[k] || !(out[k]->grad || out[k]->base || position(in, f.n, out[k]) >= 0)) continue;
    kn_tensor *own;
    st = kn_tensor_alias(ctx, out[k], &own);
    if (st != KN_OK) break;
    out[k] = own;
    kl_push_tensor(L, own); /* when Lua has no memory here, the held function stays until the state closes */
    lua_rawseti(L, 4, k + 1);
  }
  if (st == KN_OK)
    st = kn_tape_custom(ctx, &f);
  else
    release_held(h);
  kl_check(L, st);
  lua_settop(L, 4);
  return 1;
}

/* ---- checkpoints ---- */

static int again_body(lua_State *L) {
  push_held(L, lua_touserdata(L, 1)); /* {n =, f, arguments …} */
  int list = lua_gettop(L);
  lua_getfield(L, list, "n");
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, n + 1, "checkpoint");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, list, i);
  lua_call(L, n - 1, 0);
  return 0;
}

static kn_status run_again(kn_context *ctx, void *ud) { return call_lua(ctx, ud, again_body, ud); }

/* kiln.checkpoint(f, …): f(…), whose values for backward are computed again when it needs them. */
static int checkpoint(lua_State *L) {
  kn_context *ctx = kl_context(L);
  check_function(L, 1, "checkpoint");
  refuse_recording(L, "checkpoint");
  int n = lua_gettop(L);
  if (!ctx->grad_enabled) {
    lua_call(L, n - 1, LUA_MULTRET);
    return lua_gettop(L);
  }
  lua_createtable(L, n, 1);
  for (int i = 1; i <= n; i++) {
    lua_pushvalue(L, i);
    lua_rawseti(L, -2, i);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
  kn_checkpoint *point, *before = ctx->checkpoint;
  kl_check(L, kn_checkpoint_new(ctx, run_again, hold(L), release_held, &point));
  ctx->checkpoint = point;
  int st = lua_pcall(L, n - 1, LUA_MULTRET, 0);
  ctx->checkpoint = before;
  kn_checkpoint_release(point);
  if (st != LUA_OK) return lua_error(L);
  return lua_gettop(L);
}

/* ---- anomalies ---- */

static void write_where(void *ud, char *text, size_t size) {
  kl_anchor *a = ud;
  lua_State *L = a->running ? a->running : a->main;
  text[0] = 0;
  if (L) kl_write_where(L, text, size);
}

void kl_close_anchor(kl_state *s, kn_context *ctx) {
  if (!s->anchor) return;
  if (ctx && ctx->where == write_where) {
    ctx->where = NULL;
    ctx->anomaly = false;
  }
  s->anchor->main = s->anchor->running = NULL;
  anchor_release(s->anchor);
  s->anchor = NULL;
}

/* kiln.detect_anomaly(f, …) calls f; kiln.detect_anomaly(on) sets the mode and gives what it was. */
static int detect_anomaly(lua_State *L) {
  kn_context *ctx = kl_context(L);
  bool before = ctx->anomaly;
  ctx->where = write_where;
  ctx->where_ud = anchor_of(L); /* lives as long as the state, and so does this context's use by it */
  if (lua_type(L, 1) == LUA_TBOOLEAN) {
    ctx->anomaly = lua_toboolean(L, 1);
    lua_pushboolean(L, before);
    return 1;
  }
  check_function(L, 1, "detect_anomaly");
  lua_State *entered = kl_enter_tape(L);
  ctx->anomaly = true;
  int st = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  ctx->anomaly = before;
  anchor_of(L)->running = entered;
  if (st != LUA_OK) return lua_error(L);
  return lua_gettop(L);
}

void kl_open_hooks(lua_State *L) {
  static const luaL_Reg methods[] = {{"register_hook", register_hook},
                                     {"register_post_accumulate_grad_hook", register_post},
                                     {"retain_grad", retain_grad},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {
      {"checkpoint", checkpoint}, {"detect_anomaly", detect_anomaly}, {"tape_node", tape_node}, {NULL, NULL}};
  lua_pushboolean(L, 0);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
  lua_newtable(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &functions_key);
  luaL_newmetatable(L, "kiln.hook");
  lua_pushcfunction(L, handle_gc);
  lua_setfield(L, -2, "__gc");
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, handle_remove);
  lua_setfield(L, -2, "remove");
  lua_setfield(L, -2, "__index");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &handle_key);
  kl_set_methods(L, methods, false, false);
  luaL_setfuncs(L, functions, 0);
}
