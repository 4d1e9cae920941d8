/* kiln.op: the ops that the host has registered, as functions: kiln.op.NAME(x, y, {key = 2}). A field is made
 * when it is first asked for, and all of them before a capture, which then finds plain fields. */
#include "bindings/lua/args.h"
#include "core/host_op.h"
#include <string.h>

static const char ops_key; /* registry: kiln.op */

/* ---- a call ---- */

typedef struct call {
  kl_state *s;
  const kn_host_op *op;
  kn_attrs_host_op attrs;
  kn_tensor *in[KN_HOST_INPUTS], *owned[KN_HOST_INPUTS]; /* made of numbers */
  int nowned;
} call;

static kn_status read_input(call *c, lua_State *L, int i, bool there) {
  kn_context *ctx = c->s->ctx;
  const char *name = c->op->name.s;
  kn_scalar x;
  kn_scalar_kind kind;
  if (there && (c->in[i] = kl_test_tensor(L, i + 1))) return KN_OK;
  if (!there || !kl_test_scalar(L, i + 1, &x))
    return kn_fail(ctx, KN_ARG, "%s: input %d must be a tensor or a number, got %s", name, i + 1,
                   there ? kl_kind(L, i + 1) : "nil");
  if (!kl_scalar_kind(&x, &kind))
    return kn_fail(
        ctx, KN_ARG,
        "%s: input %d may be an integer or a float when the graph runs; say which with math.tointeger "
        "or `+ 0.0`",
        name, i + 1);
  KN_TRY(kn_scalar_tensor_for(ctx, name, &x, kn_scalar_dtype(kind, KN_BOOL), &c->in[i]));
  c->owned[c->nowned++] = c->in[i];
  return KN_OK;
}

static kn_status unknown_key(const call *c, const char *key) {
  char known[256] = "";
  for (int i = 0; i < c->op->nvalues; i++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", c->op->keys[i].s);
  }
  return kn_fail(c->s->ctx, KN_ARG, "%s: there is no option '%s'%s%s", c->op->name.s, key,
                 known[0] ? "; there are " : ", nor any other", known);
}

/* Key at -2, value at -1. */
static kn_status read_value(call *c, lua_State *L) {
  const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : kl_kind(L, -2);
  for (int i = 0; i < c->op->nvalues; i++)
    if (!strcmp(c->op->keys[i].s, key))
      return kl_read_number(L, c->s->ctx, -1, c->op->name.s, key, &c->attrs.values.v[i]);
  return unknown_key(c, key);
}

static kn_status read_values(call *c, lua_State *L, int idx) {
  if (lua_type(L, idx) != LUA_TTABLE)
    return kl_args_wrong(c->s->ctx, c->op->name.s, "what follows its inputs", "a table of options", L, idx);
  kn_status st = KN_OK;
  for (lua_pushnil(L); lua_next(L, idx);) {
    if (st == KN_OK) st = read_value(c, L);
    lua_pop(L, 1);
  }
  return st;
}

/* Nothing here raises. */
static kn_status read_and_apply(call *c, lua_State *L, int top, kn_tensor **out) {
  const kn_host_op *op = c->op;
  kn_status st = KN_OK;
  c->attrs.name = op->name;
  c->attrs.values.n = op->nvalues;
  memcpy(c->attrs.values.v, op->standard, sizeof op->standard);
  if (top > op->inputs + 1)
    st = kn_fail(c->s->ctx, KN_ARG, "%s: takes %d tensor%s and a table of options, got %d arguments",
                 op->name.s, op->inputs, op->inputs == 1 ? "" : "s", top);
  for (int i = 0; i < op->inputs && st == KN_OK; i++) st = read_input(c, L, i, i < top);
  if (st == KN_OK && top > op->inputs && !lua_isnil(L, top)) st = read_values(c, L, top);
  if (st == KN_OK) st = kn_apply(c->s->ctx, kn_host_op_row(op->outputs), &c->attrs, c->in, op->inputs, out);
  for (int i = 0; i < c->nowned; i++) kn_tensor_release(c->owned[i]);
  return st;
}

/* Upvalue: the name. */
static int call_op(lua_State *L) {
  call c = {.s = kl_state_of(L)};
  kn_tensor *out[KN_MAX_OUTPUTS], **slot[KN_MAX_OUTPUTS];
  const char *name = lua_tostring(L, lua_upvalueindex(1));
  const int top = lua_gettop(L);
  c.op = kn_host_op_find(c.s->ctx, name);
  if (!c.op) return kl_error(L, KN_UNSUPPORTED, "the host has no op '%s' here", name);
  luaL_checkstack(L, KN_MAX_OUTPUTS + 4, name);
  for (int i = 0; i < c.op->outputs; i++) slot[i] = kl_reserve_tensor(L);
  kl_check(L, read_and_apply(&c, L, top, out));
  for (int i = 0; i < c.op->outputs; i++) kl_put_tensor(slot[i], out[i]);
  kl_tell_of(L, c.s);
  return c.op->outputs;
}

/* ---- the table ---- */

/* Pushes the function and makes it a field of the table at idx. */
static void add_op(lua_State *L, int idx, const char *name) {
  lua_pushstring(L, name);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, call_op, 1);
  kl_mark_engine(L, -1);
  lua_pushvalue(L, -1);
  lua_insert(L, -3);
  lua_rawset(L, idx);
}

/* __index(kiln.op, name) */
static int find_op(lua_State *L) {
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (!kn_host_op_find(kl_state_of(L)->ctx, name)) return 0;
  add_op(L, 1, name);
  return 1;
}

void kl_load_host_ops(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &ops_key);
  const int ops = lua_gettop(L);
  for (const kn_host_op *op = kn_host_op_first(kl_state_of(L)->ctx); op; op = op->next) {
    if (lua_getfield(L, ops, op->name.s) == LUA_TNIL) add_op(L, ops, op->name.s);
    lua_settop(L, ops);
  }
  lua_pop(L, 1);
}

void kl_open_host_ops(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, find_op);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &ops_key);
  lua_setfield(L, -2, "op");
}
