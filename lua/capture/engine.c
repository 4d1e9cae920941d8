/* Engine functions are called for real with the recorder on: arguments become Lua values (symbolic tensors
 * and numbers as userdata, tables as copies), what they do to tensors becomes nodes, results come back. */
#include "lua/capture/engine.h"
#include "lua/capture/text.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

typedef struct crossing {
  kc_cap *c;
  kc_state *s;
  const char *name; /* of the function */
  int memo;         /* stack index: shadow id → copy, copy → shadow id */
} crossing;

/* ---- over ---- */

enum { MAX_TABLE_DEPTH = 60 };

static kc_res push_value(crossing *x, kc_val a, int depth);

static kc_res push_table(crossing *x, uint32_t id, int depth) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  if (depth > MAX_TABLE_DEPTH) return kc_fail(c, "a table given to '%s' is nested too deeply", x->name);
  luaL_checkstack(L, 12, "capture");
  if (lua_rawgeti(L, x->memo, id) == LUA_TTABLE) return KC_GO;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawseti(L, x->memo, id);
  lua_pushvalue(L, -1);
  lua_pushinteger(L, id);
  lua_rawset(L, x->memo);
  kc_val k = KC_NILV, v;
  for (;;) {
    KC_TRY(kc_next(c, x->s, id, k, &k, &v));
    if (k.k == KC_V_NIL) return KC_GO;
    KC_TRY(push_value(x, k, depth + 1));
    KC_TRY(push_value(x, v, depth + 1));
    lua_rawset(L, -3);
  }
}

static kc_res push_symbol(crossing *x, kn_value *v) {
  kc_cap *c = x->c;
  if (v->type.kind == KN_V_TENSOR) {
    kn_tensor *t;
    if (kn_record_tensor(&c->record, v, &t) != KN_OK)
      return kc_fail(c, "%s", kc_format(c, "%s", kn_error(c->ctx)));
    c->host->push_tensor(c->L, t);
    return KC_GO;
  }
  c->host->push_scalar(c->L, &(kn_scalar){KN_SCALAR_SYMBOL, {.value = v}});
  return KC_GO;
}

static kc_res push_value(crossing *x, kc_val a, int depth) {
  kc_cap *c = x->c;
  a = kc_resolve(c, x->s, a);
  luaL_checkstack(c->L, 12, "capture");
  switch (a.k) {
  case KC_V_SYM: return push_symbol(x, a.v);
  case KC_V_TEXT: return kc_settle_text(c, a);
  case KC_V_TABLE: return push_table(x, a.id, depth);
  case KC_V_CLOSURE: return kc_fail(c, "a Lua function is given to '%s'", x->name);
  case KC_V_UNION:
  case KC_V_POISON:
  case KC_V_NONE: return kc_fail(c, "'%s' is called with a %s", x->name, kc_kind_name(a));
  default: kc_push(c, a); return KC_GO;
  }
}

/* ---- back ---- */

static kc_res take_value(crossing *x, int idx, const char *path, int depth, kc_val *out);

static kc_res take_table(crossing *x, int idx, int depth, kc_val *out) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  if (depth > MAX_TABLE_DEPTH) return kc_fail(c, "a table from '%s' is nested too deeply", x->name);
  luaL_checkstack(L, 12, "capture");
  idx = lua_absindex(L, idx);
  lua_pushvalue(L, idx);
  if (lua_rawget(L, x->memo) == LUA_TNUMBER) {
    *out = kc_ref(KC_V_TABLE, (uint32_t)lua_tointeger(L, -1));
    lua_pop(L, 1);
    return KC_GO;
  }
  lua_pop(L, 1);
  uint32_t id = kc_table_new(c, x->s);
  lua_pushvalue(L, idx);
  lua_pushinteger(L, id);
  lua_rawset(L, x->memo);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    kc_val k, v;
    KC_TRY(take_value(x, -2, NULL, depth + 1, &k));
    KC_TRY(take_value(x, -1, NULL, depth + 1, &v));
    kc_table_put(c, kc_table_write(c, x->s, id), k, v);
  }
  *out = kc_ref(KC_V_TABLE, id);
  return KC_GO;
}

/* A real tensor is the function's own making, or something from outside that no guard would watch. */
static kc_res take_tensor(crossing *x, kn_tensor *t, kc_val *out) {
  kc_cap *c = x->c;
  if (t->value) {
    *out = kc_sym(t->value);
    return KC_GO;
  }
  if (atomic_load(&t->refs) != 1 || !t->storage || atomic_load(&t->storage->refs) != 1)
    return kc_fail(
        c,
        "'%s' gives a tensor from outside, which would not be looked at again; keep it in a variable or "
        "field",
        x->name);
  kn_slot *slot;
  kn_value *v;
  bool again;
  KC_TRY(kc_import_tensor(c, t, kc_format(c, "const.%u", c->b.graph->nslots + 1), KN_SLOT_CONST, &slot, &v,
                          &again));
  *out = kc_sym(v);
  return KC_GO;
}

static kc_res take_value(crossing *x, int idx, const char *path, int depth, kc_val *out) {
  kc_cap *c = x->c;
  lua_State *L = c->L;
  kn_scalar s;
  kn_tensor *t = c->host->test_tensor(L, idx);
  if (t) return take_tensor(x, t, out);
  if (lua_type(L, idx) == LUA_TTABLE) return take_table(x, idx, depth, out);
  if (lua_type(L, idx) == LUA_TUSERDATA && c->host->test_scalar(L, idx, &s) && s.kind == KN_SCALAR_SYMBOL)
    *out = kc_sym(s.as.value);
  else
    *out = kc_import(c, idx, path);
  return KC_GO;
}

/* ---- the call ---- */

/* The engine's own sentence where the message ends in it: what is before is a position of no use here. */
static const char *message_of(kc_cap *c) {
  const char *m = lua_tostring(c->L, -1), *own = kn_error(c->ctx);
  if (!m) return "error";
  size_t n = strlen(m), k = strlen(own);
  return kc_format(c, "%s", k && k <= n && !strcmp(m + n - k, own) ? own : m);
}

static kc_res engine_failed(kc_cap *c, const kc_val *args, int n) {
  for (int i = 0; i < n; i++) KC_TRY(kc_burn(c, args[i])); /* perhaps it needed to know a number */
  const char *m = message_of(c);
  for (int i = 0; i < n; i++)
    if (args[i].k == KC_V_SYM && args[i].v->type.kind != KN_V_TENSOR)
      return kc_fail(c, "%s (argument %d is a %s)", m, i + 1, kc_kind_name(args[i]));
  for (int i = 0; i < n; i++)
    if (args[i].k == KC_V_TABLE) return kc_fail(c, "%s", m); /* numbers may hide in it */
  kn_status st = c->ctx->error_status;
  bool wrong =
      st == KN_ARG || st == KN_SHAPE || st == KN_DTYPE || st == KN_INDEX; /* eager would raise, too */
  return wrong ? kc_complain(c, "%s", m) : kc_fail(c, "%s", m);
}

static kc_res refuse_field(kc_cap *c, const kc_val *args, int n) {
  static const char *const fields[] = {"grad", "requires_grad", "is_leaf", "grad_fn"};
  for (size_t i = 0; n == 2 && i < sizeof fields / sizeof *fields; i++)
    if (kc_is_tensor(args[0]) && kc_is_str(c, args[1], fields[i]))
      return kc_fail(
          c,
          "reads '%s' of a tensor: gradients inside a captured function cannot be captured yet; results "
          "of a captured function are detached",
          fields[i]);
  return KC_GO;
}

static kc_res take_results(crossing *x, int first, const kc_val *args, int n, kc_values *out) {
  kc_cap *c = x->c;
  out->n = lua_gettop(c->L) - first + 1;
  out->v = kc_vals(c, out->n);
  const char *path = NULL;
  if (n == 2 && kc_is_tensor(args[0]) && args[1].k == KC_V_STRING)
    path = kc_format(c, "tensor.%s", c->obj[args[1].id].s);
  for (int i = 0; i < out->n; i++) KC_TRY(take_value(x, first + i, path, 0, &out->v[i]));
  return KC_GO;
}

static kc_res engine_step(kc_cap *c, kc_state **sp, kc_val *args, void *ud, kc_values *out) {
  const kc_val f = ((kc_val *)ud)[0];
  int n = (int)((kc_val *)ud)[1].i;
  lua_State *L = c->L;
  crossing x = {.c = c, .s = *sp, .name = c->obj[f.id].path ? c->obj[f.id].path : "?"};
  int top = lua_gettop(L);
  KC_TRY(refuse_field(c, args, n));
  luaL_checkstack(L, n + 16, "capture");
  lua_newtable(L);
  x.memo = lua_gettop(L);
  kc_push_object(c, f.id);
  for (int i = 0; i < n; i++) {
    kc_res r = push_value(&x, args[i], 0);
    if (r != KC_GO) return lua_settop(L, top), r;
  }
  c->b.where = kc_where(c);
  c->ctx->error[0] = 0;
  c->ctx->error_status = KN_OK;
  c->ctx->recorder = &c->record.base;
  int rc = lua_pcall(L, n, LUA_MULTRET, 0);
  c->ctx->recorder = NULL;
  if (rc == LUA_ERRMEM) lua_error(L);
  kc_res r = rc == LUA_OK ? take_results(&x, x.memo + 1, args, n, out) : engine_failed(c, args, n);
  lua_settop(L, top);
  if (r == KC_GO && c->b.status != KN_OK) r = kc_fail(c, "%s", x.name);
  return r;
}

kc_res kc_call_engine(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, kc_values *out) {
  kc_val ud[2] = {f, kc_int(n)};
  return kc_distribute(c, s, args, n, engine_step, ud, out);
}

/* ---- real tensors met as inputs of ops: plain numbers, and data made on the way ----
 * Called from inside an op: nothing here may raise. */

static kc_val scalar_key(kn_scalar s) {
  return s.kind == KN_SCALAR_BOOL  ? kc_bool(s.as.b)
         : s.kind == KN_SCALAR_INT ? kc_int(s.as.i)
                                   : kc_float(s.as.f);
}

static kn_value *number_value(kc_cap *c, kn_tensor *t) {
  kn_scalar s = kn_scalar_read(t);
  for (uint32_t i = 0; i < c->npool; i++) {
    const struct kc_pooled *p = &c->pool[i];
    if (p->type.kind == KN_V_TENSOR && p->key.k != KC_V_NONE && p->type.tensor.dtype == t->type.dtype &&
        kc_same(p->key, scalar_key(s)))
      return p->v;
  }
  kn_value *k = kn_add_const(&c->b, s), *v = kn_add_to_tensor(&c->b, k, kn_tensor_dtype(t));
  if (!v) return NULL;
  kc_hoist(c, k->def);
  kc_hoist(c, v->def);
  struct kc_pooled *pool = kn_arena_grow(&c->arena, c->pool, c->npool, sizeof *pool);
  if (!pool) return v;
  c->pool = pool;
  c->pool[c->npool++] = (struct kc_pooled){scalar_key(s), v, v->type};
  return v;
}

kn_value *kc_outside_tensor(void *ud, kn_tensor *t) {
  kc_cap *c = ud;
  kn_region *at = c->b.at;
  const kn_where *where = c->b.where;
  c->b.at = c->b.graph->body;
  c->b.where = NULL;
  kn_value *v = NULL;
  if (t->type.rank == 0 && t->type.device == KN_CPU && t->storage)
    v = number_value(c, t);
  else {
    char name[32];
    snprintf(name, sizeof name, "const.%u", c->b.graph->nslots + 1);
    kn_slot *slot =
        kn_add_slot(&c->b, KN_SLOT_CONST, name, &(kn_vtype){.kind = KN_V_TENSOR, .tensor = t->type}, t);
    v = kn_add_slot_node(&c->b, KN_NODE_tensor, slot);
    if (v) kc_hoist(c, v->def);
  }
  c->b.at = at;
  c->b.where = where;
  return v;
}
