/* Lua's operations on values of capture: indexing, arithmetic, comparison, with metamethods, as Lua 5.4 does
 * them. Tensors answer through their real metatable, whose functions are the engine's. See interp.h. */
#include "graph/mutant.h"
#include "lua/capture/growing.h"
#include "lua/capture/keys.h"
#include "lua/capture/lie.h"
#include "lua/capture/protect.h"
#include "lua/capture/reads.h"
#include "lua/capture/text.h"
#include <lauxlib.h>
#include <string.h>

enum { MAX_CHAIN = 100 };

kc_val *kc_vals(kc_cap *c, int n) { return kc_new(c, (size_t)(n > 0 ? n : 1) * sizeof(kc_val)); }

/* ---- unions: do it for each alternative ---- */

kc_res kc_either(kc_cap *c, kc_state **sp, kn_value *cond, kc_side_fn fn, void *ud, kc_values *out) {
  kc_state *s = *sp;
  if (++c->nest > KC_MAX_NEST) return kc_fail(c, "cases that depend on data are nested too deeply");
  kc_if *f = kc_new(c, sizeof *f);
  kc_outs *side = kc_new(c, 3 * sizeof *side), *both = side + 2;
  int base = c->nstop, kind = kc_new_stop(c, -1, s->top->pc, 1 << 27, false, 0);
  KC_TRY(kc_begin_if(c, f, s, cond));
  for (int k = 0; k < 2; k++) {
    kc_state *go = kc_snapshot(c, s);
    kc_add_fact(c, go, cond, k == 0);
    c->S = go;
    c->b.at = f->n->regions[k];
    kc_values made = {0};
    kc_res r = fn(c, &go, k == 0, ud, &made);
    if (r != KC_GO && r != KC_DEAD) return r;
    if (r == KC_DEAD) continue;
    go->ret = made.v;
    go->nret = made.n;
    side[k] = (kc_outs){.n = 1, .sel = kc_int(kind), .o = {{kind, go}}};
  }
  c->b.at = f->parent;
  c->S = s;
  kc_res r = kc_end_if(c, f, &side[0], &side[1], both);
  c->nstop = base;
  c->nest--;
  KC_TRY(r);
  *sp = c->S = both->o[0].s;
  *out = (kc_values){(*sp)->ret, (*sp)->nret};
  (*sp)->ret = NULL;
  (*sp)->nret = 0;
  return KC_GO;
}

typedef struct distributing { /* operand i is the first alternative, or one of the others */
  kc_val *o, first, others;
  int n, i;
  kc_step_fn fn;
  void *ud;
} distributing;

static kc_res distribute_side(kc_cap *c, kc_state **s, bool yes, void *ud, kc_values *out) {
  const distributing *x = ud;
  kc_val *mine = kc_dup(c, x->o, (size_t)x->n * sizeof *mine);
  mine[x->i] = yes ? x->first : x->others;
  return kc_distribute(c, s, mine, x->n, x->fn, x->ud, out);
}

kc_res kc_distribute(kc_cap *c, kc_state **sp, const kc_val *o, int n, kc_step_fn fn, void *ud,
                     kc_values *out) {
  kc_val *ops = kc_dup(c, o, (size_t)n * sizeof *ops);
  int i = 0;
  for (; i < n; i++)
    if ((ops[i] = kc_resolve(c, *sp, ops[i])).k == KC_V_UNION) break;
  for (int k = i + 1; k < n; k++) ops[k] = kc_resolve(c, *sp, ops[k]);
  if (i == n) return fn(c, sp, ops, ud, out);
  const kc_union *u = ops[i].u;
  kc_union rest = *u;
  rest.n--;
  memmove(rest.alt, rest.alt + 1, (size_t)rest.n * sizeof *rest.alt);
  kc_val others = rest.n == 1 ? rest.alt[0].v : kc_make_union(c, &rest);
  distributing x = {ops, u->alt[0].v, others, n, i, fn, ud};
  kc_val is = kc_resolve(c, *sp, kc_equals_code(c, u->tag, u->alt[0].code));
  return is.k == KC_V_BOOL ? distribute_side(c, sp, is.i, &x, out)
                           : kc_either(c, sp, is.v, distribute_side, &x, out);
}

kc_res kc_one(kc_cap *c, kc_val v, kc_values *out) {
  out->v = kc_vals(c, 1);
  out->v[0] = v;
  out->n = 1;
  return KC_GO;
}

static kc_res distribute1(kc_cap *c, kc_state **s, const kc_val *o, int n, kc_step_fn fn, void *ud,
                          kc_val *out) {
  kc_values made = {0};
  KC_TRY(kc_distribute(c, s, o, n, fn, ud, &made));
  *out = made.n ? kc_resolve(c, *s, made.v[0]) : KC_NILV;
  return KC_GO;
}

static kc_res poisoned(kc_cap *c, kc_val a, const char *what) {
  return kc_fail(c, "%s a %s", what, kc_kind_name(a));
}

/* ---- truth ---- */

/* cond ? x : y on booleans, each BOOL or SYM. */
static kc_val choose_bool(kc_cap *c, kn_value *cond, kc_val x, kc_val y) {
  if (kc_same(x, y)) return x;
  if (x.k == KC_V_BOOL && y.k == KC_V_BOOL) return x.i ? kc_sym(cond) : kc_not(c, cond);
  return kc_sym(kc_emit(c, KN_NODE_select, 3, kc_sym(cond), x, y));
}

kc_res kc_truth(kc_cap *c, kc_state *s, kc_val a, kc_val *out) {
  a = kc_resolve(c, s, a);
  *out = kc_bool(true);
  switch (a.k) {
  case KC_V_NIL: *out = kc_bool(false); break;
  case KC_V_BOOL: *out = a; break;
  case KC_V_SYM:
    if (a.v->type.kind == KN_V_BOOL) *out = a;
    break;
  case KC_V_NONE:
  case KC_V_POISON: return poisoned(c, a, "a condition reads");
  case KC_V_UNION:
    for (int i = 0; i < a.u->n; i++) {
      const kc_alt *x = &a.u->alt[i];
      if (x->code != KC_CLASS_NIL && x->code != KC_CLASS_BOOL) continue;
      kc_val is = kc_resolve(c, s, kc_equals_code(c, a.u->tag, x->code)), then = kc_bool(false);
      if (x->code == KC_CLASS_BOOL) then = kc_resolve(c, s, x->v);
      *out = is.k == KC_V_BOOL ? (is.i ? then : *out) : choose_bool(c, is.v, then, *out);
    }
    break;
  default: break;
  }
  return KC_GO;
}

kc_res kc_is_nil(kc_cap *c, kc_state *s, kc_val a, kc_val *out) {
  a = kc_resolve(c, s, a);
  if (a.k == KC_V_POISON) return poisoned(c, a, "this compares");
  *out = kc_bool(a.k == KC_V_NIL);
  if (a.k == KC_V_UNION && kc_alt_find(a.u, KC_CLASS_NIL))
    *out = kc_resolve(c, s, kc_equals_code(c, a.u->tag, KC_CLASS_NIL));
  return KC_GO;
}

/* ---- indexing ---- */

typedef struct index_ud {
  kc_val o, k, v;
  int depth;
} index_ud;

static kc_res index_any(kc_cap *c, kc_state **s, kc_val o, kc_val k, int depth, kc_val *out);

static kc_res index_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  const index_ud *x = ud;
  kc_val v;
  KC_TRY(index_any(c, s, o[0], o[1], x->depth, &v));
  return kc_one(c, v, out);
}

static kc_res no_index(kc_cap *c, kc_val o, int depth) {
  if (o.k == KC_V_POISON || o.k == KC_V_NONE) return poisoned(c, o, "indexes");
  return kc_raise(c, "attempt to index a %s value%s", kc_type_name(o),
                  depth ? "" : kc_operand_name(c, KC_OPERAND_INDEXED, 0));
}

/* A table key must be known. */
static kc_res known_key(kc_cap *c, kc_val *k) {
  if (k->k == KC_V_SYM && k->v->type.kind != KN_V_TENSOR)
    return kc_fail(c, "a table is indexed by a %s; compare it with each case", kc_kind_name(*k));
  KC_TRY(kc_tensor_key(c, k));
  KC_TRY(kc_settle_text(c, *k));
  return k->k == KC_V_POISON || k->k == KC_V_NONE ? poisoned(c, *k, "a table is indexed by") : KC_GO;
}

/* It is known now whether the field is there. */
static kc_res index_again(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  const index_ud *x = ud;
  kc_val v;
  (void)o;
  KC_TRY(index_any(c, s, x->o, x->k, x->depth, &v));
  return kc_one(c, v, out);
}

static kc_res index_table(kc_cap *c, kc_state **s, kc_val o, kc_val k, int depth, kc_val *out, bool *done) {
  bool by_data = k.k == KC_V_SYM && kc_is_number(k);
  if (by_data)
    KC_TRY(kc_index_by_data(c, s, o.id, k, out));
  else {
    KC_TRY(known_key(c, &k));
    KC_TRY(kc_raw_get(c, *s, o.id, k, out));
  }
  *out = kc_resolve(c, *s, *out);
  *done = out->k != KC_V_NIL;
  if (!*done || out->k != KC_V_UNION || !kc_alt_find(out->u, KC_CLASS_NIL)) return KC_GO;
  kc_val h;
  KC_TRY(kc_metafield(c, *s, o, "__index", &h));
  if (h.k == KC_V_NIL) return KC_GO;
  if (by_data)
    return kc_fail(c, "a table whose metatable has __index is indexed by a %s, which may be none of its keys",
                   kc_kind_name(k));
  index_ud x = {.o = o, .k = k, .depth = depth};
  kc_val field = *out;
  return distribute1(c, s, &field, 1, index_again, &x, out);
}

/* A field that is not there: of kiln's modules and of tensors the mistake is told, where it is about to be
 * called. */
static kc_res tell_missing(kc_cap *c, kc_state *s, kc_val o, kc_val k, bool *known) {
  const kc_obj *key = &c->obj[k.id];
  lua_State *L = c->L;
  char why[200] = "";
  int top = lua_gettop(L);
  luaL_checkstack(L, 4, "capture");
  kc_push_object(c, k.id);
  if (o.k == KC_V_TABLE && c->tab[o.id].object) kc_push_object(c, c->tab[o.id].object);
  if (o.k != KC_V_TABLE || lua_gettop(L) == top + 2)
    *known = c->host->missing(L, o.k == KC_V_TABLE ? top + 2 : 0, top + 1, why, sizeof why);
  lua_settop(L, top);
  int line = kc_line(s->top->p, s->top->pc);
  bool called = *why && line > 0 && kc_only_called(s->top->p, line, key->s, key->n);
  return called ? kc_raise(c, "%s", why) : KC_GO;
}

static kc_res index_by_c(kc_cap *c, kc_state **s, kc_val o, kc_val h, kc_val k, kc_val *out) {
  bool known = false;
  *out = KC_NILV;
  if (o.k == KC_V_TABLE) KC_TRY(tell_missing(c, *s, o, k, &known));
  if (!known) KC_TRY(kc_call1(c, s, h, (kc_val[]){o, k}, 2, out));
  return kc_is_tensor(o) && out->k == KC_V_NIL ? tell_missing(c, *s, o, k, &known) : KC_GO;
}

static kc_res index_any(kc_cap *c, kc_state **s, kc_val o, kc_val k, int depth, kc_val *out) {
  o = kc_resolve(c, *s, o);
  k = kc_normal_key(kc_resolve(c, *s, k));
  if (depth > MAX_CHAIN) return kc_raise(c, "'__index' chain too long; possibly a loop");
  if (o.k == KC_V_UNION || k.k == KC_V_UNION) {
    index_ud x = {.depth = depth};
    return distribute1(c, s, (kc_val[]){o, k}, 2, index_step, &x, out);
  }
  bool done = false;
  if (o.k == KC_V_TABLE) KC_TRY(index_table(c, s, o, k, depth, out, &done));
  if (done) return KC_GO;
  kc_val h;
  KC_TRY(kc_metafield(c, *s, o, "__index", &h));
  if (h.k == KC_V_NIL) {
    *out = KC_NILV;
    return o.k == KC_V_TABLE ? KC_GO : no_index(c, o, depth);
  }
  if (KN_MUTANT(index_function_ignored) && h.k == KC_V_CLOSURE) return *out = KC_NILV, KC_GO;
  if (h.k == KC_V_CFUNCTION && k.k == KC_V_STRING) return index_by_c(c, s, o, h, k, out);
  if (h.k == KC_V_CLOSURE || h.k == KC_V_CFUNCTION) return kc_call1(c, s, h, (kc_val[]){o, k}, 2, out);
  return index_any(c, s, h, k, depth + 1, out);
}

kc_res kc_index(kc_cap *c, kc_state **s, kc_val o, kc_val k, kc_val *out) {
  return index_any(c, s, o, k, 0, out);
}

static kc_res set_any(kc_cap *c, kc_state **s, kc_val o, kc_val k, kc_val v, int depth);

static kc_res set_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  const index_ud *x = ud;
  out->n = 0;
  return set_any(c, s, o[0], o[1], x->v, x->depth);
}

static kc_res set_again(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  const index_ud *x = ud;
  (void)o;
  out->n = 0;
  return set_any(c, s, x->o, x->k, x->v, x->depth);
}

static kc_res set_any(kc_cap *c, kc_state **s, kc_val o, kc_val k, kc_val v, int depth) {
  o = kc_resolve(c, *s, o);
  k = kc_normal_key(kc_resolve(c, *s, k));
  if (depth > MAX_CHAIN) return kc_raise(c, "'__newindex' chain too long; possibly a loop");
  if (o.k == KC_V_UNION || k.k == KC_V_UNION) {
    index_ud x = {.v = v, .depth = depth};
    kc_values none;
    return kc_distribute(c, s, (kc_val[]){o, k}, 2, set_step, &x, &none);
  }
  kc_val old = KC_NILV, given = k, h;
  if (o.k == KC_V_TABLE && k.k == KC_V_SYM && kc_is_number(k)) {
    KC_TRY(kc_metafield(c, *s, o, "__newindex", &h));
    if (h.k != KC_V_NIL) return kc_fail(c, "a table with __newindex is set at a %s", kc_kind_name(k));
    return kc_set_by_data(c, s, o.id, k, v);
  }
  if (o.k == KC_V_TABLE) {
    KC_TRY(known_key(c, &k));
    KC_TRY(kc_raw_get(c, *s, o.id, k, &old));
    old = kc_resolve(c, *s, old);
    bool maybe = old.k == KC_V_UNION && kc_alt_find(old.u, KC_CLASS_NIL);
    if (old.k != KC_V_NIL && !maybe) return kc_raw_set(c, *s, o.id, k, v);
    KC_TRY(kc_metafield(c, *s, o, "__newindex", &h));
    if (KN_MUTANT(newindex_ignored)) h = KC_NILV;
    if (h.k != KC_V_NIL && maybe) {
      index_ud x = {.o = o, .k = k, .v = v, .depth = depth};
      kc_values none;
      return kc_distribute(c, s, &old, 1, set_again, &x, &none);
    }
    if (h.k == KC_V_NIL) {
      if (k.k == KC_V_NIL) return kc_raise(c, "table index is nil");
      if (k.k == KC_V_FLOAT && k.f != k.f) return kc_raise(c, "table index is NaN");
      return kc_raw_set(c, *s, o.id, k, v);
    }
  } else {
    KC_TRY(kc_metafield(c, *s, o, "__newindex", &h));
    if (h.k == KC_V_NIL) return no_index(c, o, depth);
  }
  if (h.k == KC_V_CLOSURE || h.k == KC_V_CFUNCTION) {
    kc_values none = {0};
    return kc_call(c, s, h, (kc_val[]){o, given, v}, 3, 0, &none);
  }
  return set_any(c, s, h, given, v, depth + 1);
}

kc_res kc_set_index(kc_cap *c, kc_state **s, kc_val o, kc_val k, kc_val v) {
  return set_any(c, s, o, k, v, 0);
}

/* ---- arithmetic ---- */

static const char *const events[] = {"__add",  "__sub", "__mul",  "__mod", "__pow", "__div", "__idiv",
                                     "__band", "__bor", "__bxor", "__shl", "__shr", "__unm", "__bnot"};
static bool unary(int op) { return op == LUA_OPUNM || op == LUA_OPBNOT; }

static int protected_arith(lua_State *L) {
  int op = (int)lua_tointeger(L, 1);
  lua_remove(L, 1);
  lua_arith(L, op);
  return 1;
}

/* The position that Lua would put before the message is that of our caller, not of the captured code. */
static const char *bare(const char *m) { return m ? m : "error"; }

static kc_res concrete_arith(kc_cap *c, int op, kc_val a, kc_val b, kc_val *out) {
  lua_State *L = c->L;
  luaL_checkstack(L, 8, "capture");
  lua_pushcfunction(L, protected_arith);
  lua_pushinteger(L, op);
  kc_push(c, a);
  if (!unary(op)) kc_push(c, b);
  int rc = lua_pcall(L, unary(op) ? 2 : 3, 1, 0);
  kc_res r = KC_GO;
  if (rc == LUA_ERRMEM) lua_error(L);
  if (rc != LUA_OK)
    r = kc_raise(c, "%s", bare(lua_tostring(L, -1)));
  else
    *out = kc_import(c, -1, NULL);
  lua_pop(L, 1);
  return r;
}

kc_res kc_number_arith(kc_cap *c, int op, kc_val a, kc_val b, kc_val *out, bool *done) {
  bool un = unary(op);
  if (KN_MUTANT(idiv_is_div) && op == LUA_OPIDIV) op = LUA_OPDIV;
  *done = true;
  if (kc_is_concrete_number(a) && (un || kc_is_concrete_number(b))) return concrete_arith(c, op, a, b, out);
  if (kc_is_number(a) && (un || kc_is_number(b))) {
    if (kn_opcode_describe((kn_opcode)(KN_NODE_lua_add + op)).effect == KN_RAISES) KC_TRY(kc_may_raise(c));
    *out = kc_sym(kc_emit(c, (kn_opcode)(KN_NODE_lua_add + op), un ? 1 : 2, a, b, KC_NILV));
    return KC_GO;
  }
  *done = false;
  return KC_GO;
}

static kc_res arith_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  kc_val v;
  KC_TRY(kc_arith(c, s, *(int *)ud, o[0], o[1], &v));
  return kc_one(c, v, out);
}

/* The metamethod of the first operand that has one. */
static kc_res binary_event(kc_cap *c, kc_state *s, kc_val a, kc_val b, const char *event, kc_val *h) {
  *h = KC_NILV;
  KC_TRY(kc_metafield(c, s, a, event, h));
  return h->k == KC_V_NIL ? kc_metafield(c, s, b, event, h) : KC_GO;
}

kc_res kc_arith(kc_cap *c, kc_state **s, int op, kc_val a, kc_val b, kc_val *out) {
  bool done;
  a = kc_resolve(c, *s, a);
  b = kc_resolve(c, *s, b);
  KC_TRY(kc_number_arith(c, op, a, b, out, &done));
  if (done) return KC_GO;
  if (a.k == KC_V_UNION || b.k == KC_V_UNION)
    return distribute1(c, s, (kc_val[]){a, b}, 2, arith_step, &op, out);
  bool plain_a = a.k == KC_V_STRING || kc_is_concrete_number(a),
       plain_b = b.k == KC_V_STRING || kc_is_concrete_number(b);
  if (plain_a && plain_b) return concrete_arith(c, op, a, b, out);
  if ((a.k == KC_V_STRING && kc_is_number(b)) || (b.k == KC_V_STRING && kc_is_number(a)))
    return kc_fail(c, "arithmetic on a string and a number that depends on tensor data; use tonumber first");
  if ((a.k == KC_V_TEXT && kc_is_text(b)) || (b.k == KC_V_TEXT && kc_is_text(a)))
    return kc_settle_text(c, a.k == KC_V_TEXT ? a : b);
  kc_val h;
  KC_TRY(binary_event(c, *s, a, b, events[op], &h));
  if (h.k != KC_V_NIL) return kc_call1(c, s, h, (kc_val[]){a, unary(op) ? a : b}, 2, out);
  kc_val bad = kc_is_number(a) && !unary(op) ? b : a;
  if (bad.k == KC_V_POISON || bad.k == KC_V_NONE) return poisoned(c, bad, "arithmetic on");
  bool bits = op >= LUA_OPBAND && op != LUA_OPUNM;
  bool second = kc_is_number(a) && !unary(op);
  return kc_raise(c, "attempt to perform %s on a %s value%s", bits ? "bitwise operation" : "arithmetic",
                  kc_type_name(bad), kc_operand_name(c, second ? KC_OPERAND_SECOND : KC_OPERAND_FIRST, 0));
}

/* ---- comparison ---- */

static int protected_compare(lua_State *L) {
  lua_pushboolean(L, lua_compare(L, 2, 3, (int)lua_tointeger(L, 1)));
  return 1;
}

static kc_res concrete_compare(kc_cap *c, int op, kc_val a, kc_val b, kc_val *out) {
  lua_State *L = c->L;
  luaL_checkstack(L, 8, "capture");
  lua_pushcfunction(L, protected_compare);
  lua_pushinteger(L, op);
  kc_push(c, a);
  kc_push(c, b);
  if (lua_pcall(L, 3, 1, 0) != LUA_OK) {
    kc_res r = kc_raise(c, "%s", bare(lua_tostring(L, -1)));
    lua_pop(L, 1);
    return r;
  }
  *out = kc_bool(lua_toboolean(L, -1));
  lua_pop(L, 1);
  return KC_GO;
}

static kc_res settle_texts(kc_cap *c, kc_val a, kc_val b) {
  if (a.k == KC_V_TEXT && (b.k == KC_V_STRING || b.k == KC_V_TEXT)) return kc_settle_text(c, a);
  return b.k == KC_V_TEXT && a.k == KC_V_STRING ? kc_settle_text(c, b) : KC_GO;
}

static kc_res less_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  kc_val v;
  KC_TRY(kc_less(c, s, *(bool *)ud, o[0], o[1], &v));
  return kc_one(c, v, out);
}

kc_res kc_less(kc_cap *c, kc_state **s, bool or_equal, kc_val a, kc_val b, kc_val *out) {
  a = kc_resolve(c, *s, a);
  b = kc_resolve(c, *s, b);
  if (a.k == KC_V_UNION || b.k == KC_V_UNION)
    return distribute1(c, s, (kc_val[]){a, b}, 2, less_step, &or_equal, out);
  if ((kc_is_concrete_number(a) && kc_is_concrete_number(b)) || (a.k == KC_V_STRING && b.k == KC_V_STRING))
    return concrete_compare(c, or_equal ? LUA_OPLE : LUA_OPLT, a, b, out);
  if (kc_is_number(a) && kc_is_number(b)) {
    *out = kc_sym(
        kc_emit(c, or_equal && !KN_MUTANT(le_is_lt) ? KN_NODE_lua_le : KN_NODE_lua_lt, 2, a, b, KC_NILV));
    return KC_GO;
  }
  kc_val h, v;
  KC_TRY(settle_texts(c, a, b));
  KC_TRY(binary_event(c, *s, a, b, or_equal ? "__le" : "__lt", &h));
  if (h.k == KC_V_NIL) {
    if (a.k == KC_V_POISON || b.k == KC_V_POISON) return poisoned(c, a.k == KC_V_POISON ? a : b, "compares");
    const char *x = kc_type_name(a), *y = kc_type_name(b);
    return strcmp(x, y) ? kc_raise(c, "attempt to compare %s with %s", x, y)
                        : kc_raise(c, "attempt to compare two %s values", x);
  }
  KC_TRY(kc_call1(c, s, h, (kc_val[]){a, b}, 2, &v));
  return kc_truth(c, *s, v, out);
}

static kc_res equal_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  kc_val v;
  (void)ud;
  KC_TRY(kc_equal(c, s, o[0], o[1], &v));
  return kc_one(c, v, out);
}

/* Made by an op of this graph: no other value is the same tensor. */
static bool fresh_tensor(const kn_value *v) { return v->def && kn_opcode_is_op(v->def->op); }
static bool from_outside(const kn_value *v) {
  return v->def ? v->def->op == KN_NODE_param || v->def->op == KN_NODE_tensor : !v->region->owner;
}

static kc_res equal_tensors(kc_cap *c, kc_val a, kc_val b, kc_val *out) {
  if (a.k == KC_V_HANDLE || b.k == KC_V_HANDLE) { /* a plain one is none of them */
    *out = kc_bool(kc_same(a, b));
    return KC_GO;
  }
  bool known = (fresh_tensor(a.v) && (fresh_tensor(b.v) || from_outside(b.v))) ||
               (fresh_tensor(b.v) && from_outside(a.v));
  KC_TRY(kc_lie_pair(c, a.v, b.v));
  if (a.v == b.v || known) {
    *out = kc_bool(a.v == b.v);
    return KC_GO;
  }
  c->b.where = kc_where(c);
  kn_node *n =
      kn_add_node(&c->b, KN_NODE_same, NULL, (kn_value *[]){a.v, b.v}, 2, &(kn_vtype){.kind = KN_V_BOOL}, 1);
  *out = n ? kc_sym(n->out[0]) : kc_bool(false);
  return KC_GO;
}

static kc_val equal_booleans(kc_cap *c, kc_val a, kc_val b) {
  if (a.k == KC_V_BOOL && b.k == KC_V_BOOL) return kc_bool(a.i == b.i);
  if (a.k == KC_V_BOOL) return a.i ? b : kc_not(c, b.v);
  if (b.k == KC_V_BOOL) return b.i ? a : kc_not(c, a.v);
  return kc_sym(kc_emit(c, KN_NODE_lua_eq, 2, a, b, KC_NILV));
}

kc_res kc_equal(kc_cap *c, kc_state **s, kc_val a, kc_val b, kc_val *out) {
  a = kc_resolve(c, *s, a);
  b = kc_resolve(c, *s, b);
  if (a.k == KC_V_POISON || b.k == KC_V_POISON) return poisoned(c, a.k == KC_V_POISON ? a : b, "compares");
  if (a.k == KC_V_NIL) return kc_is_nil(c, *s, b, out);
  if (b.k == KC_V_NIL) return kc_is_nil(c, *s, a, out);
  if (a.k == KC_V_UNION || b.k == KC_V_UNION)
    return distribute1(c, s, (kc_val[]){a, b}, 2, equal_step, NULL, out);
  if (kc_is_number(a) && kc_is_number(b)) {
    if (kc_is_concrete_number(a) && kc_is_concrete_number(b)) return concrete_compare(c, LUA_OPEQ, a, b, out);
    kn_vkind one_kind, other_kind;
    if (KN_MUTANT(eq_of_kinds) && kc_scalar_kind(a, &one_kind) && kc_scalar_kind(b, &other_kind) &&
        one_kind != other_kind)
      return *out = kc_bool(false), KC_GO;
    *out = kc_sym(kc_emit(c, KN_NODE_lua_eq, 2, a, b, KC_NILV));
    return KC_GO;
  }
  if (kc_is_tensor(a) && kc_is_tensor(b)) return equal_tensors(c, a, b, out);
  KC_TRY(settle_texts(c, a, b));
  kn_vkind ka, kb;
  bool sa = kc_scalar_kind(a, &ka), sb = kc_scalar_kind(b, &kb);
  if (sa && sb && ka == KN_V_BOOL && kb == KN_V_BOOL) {
    *out = equal_booleans(c, a, b);
    return KC_GO;
  }
  *out = kc_bool(kc_same(a, b));
  if (out->i || sa || sb) return KC_GO; /* different Lua types: false, and no metamethod is asked */
  if (!(a.k == KC_V_TABLE && b.k == KC_V_TABLE) && !(a.k == KC_V_OBJECT && b.k == KC_V_OBJECT)) return KC_GO;
  kc_val h, v;
  KC_TRY(binary_event(c, *s, a, b, "__eq", &h));
  if (h.k == KC_V_NIL) return KC_GO;
  KC_TRY(kc_call1(c, s, h, (kc_val[]){a, b}, 2, &v));
  return kc_truth(c, *s, v, out);
}

/* ---- length, concatenation ---- */

static kc_res length_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  kc_val v;
  (void)ud;
  KC_TRY(kc_length(c, s, o[0], &v));
  return kc_one(c, v, out);
}

kc_res kc_length(kc_cap *c, kc_state **s, kc_val a, kc_val *out) {
  a = kc_resolve(c, *s, a);
  if (a.k == KC_V_STRING) {
    *out = kc_int((int64_t)c->obj[a.id].n);
    return KC_GO;
  }
  if (a.k == KC_V_UNION) return distribute1(c, s, &a, 1, length_step, NULL, out);
  KC_TRY(kc_settle_text(c, a));
  kc_val h;
  KC_TRY(kc_metafield(c, *s, a, "__len", &h));
  if (h.k != KC_V_NIL) return kc_call1(c, s, h, (kc_val[]){a, a}, 2, out);
  if (a.k == KC_V_TABLE && kc_list_of(*s, a.id)) {
    *out = kc_list_length(c, *s, a.id);
    return KC_GO;
  }
  if (a.k == KC_V_TABLE) {
    int64_t n;
    KC_TRY(kc_border(c, *s, a.id, &n));
    *out = kc_int(n);
    return KC_GO;
  }
  if (a.k == KC_V_POISON) return poisoned(c, a, "the length of");
  return kc_raise(c, "attempt to get length of a %s value%s", kc_type_name(a),
                  kc_operand_name(c, KC_OPERAND_FIRST, 0));
}

static int protected_concat(lua_State *L) {
  lua_concat(L, lua_gettop(L));
  return 1;
}

/* a is the nth operand of the concatenation. */
static kc_res concat_two(kc_cap *c, kc_state **s, kc_val a, kc_val b, int nth, kc_val *out);

static kc_res concat_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  kc_val v;
  KC_TRY(concat_two(c, s, o[0], o[1], *(int *)ud, &v));
  return kc_one(c, v, out);
}

static kc_res concat_two(kc_cap *c, kc_state **s, kc_val a, kc_val b, int nth, kc_val *out) {
  lua_State *L = c->L;
  bool plain_a = a.k == KC_V_STRING || kc_is_concrete_number(a),
       plain_b = b.k == KC_V_STRING || kc_is_concrete_number(b);
  if (plain_a && plain_b) {
    luaL_checkstack(L, 8, "capture");
    lua_pushcfunction(L, protected_concat);
    kc_push(c, a);
    kc_push(c, b);
    if (lua_pcall(L, 2, 1, 0) != LUA_OK) lua_error(L);
    *out = kc_import(c, -1, NULL);
    lua_pop(L, 1);
    return KC_GO;
  }
  if (a.k == KC_V_UNION || b.k == KC_V_UNION)
    return distribute1(c, s, (kc_val[]){a, b}, 2, concat_step, &nth, out);
  if (kc_is_text(a) && kc_is_text(b)) {
    *out = kc_join_texts(c, a, b);
    return KC_GO;
  }
  kc_val bad = kc_is_text(a) ? b : a, h;
  if (bad.k == KC_V_POISON || bad.k == KC_V_NONE) return poisoned(c, bad, "concatenates");
  KC_TRY(binary_event(c, *s, a, b, "__concat", &h));
  if (h.k != KC_V_NIL) return kc_call1(c, s, h, (kc_val[]){a, b}, 2, out);
  return kc_raise(c, "attempt to concatenate a %s value%s", kc_type_name(bad),
                  kc_operand_name(c, KC_OPERAND_PART, kc_is_text(a) ? nth + 1 : nth));
}

kc_res kc_concat(kc_cap *c, kc_state **s, kc_val *v, int n, kc_val *out) {
  *out = v[n - 1];
  for (int i = n - 2; i >= 0; i--) /* right associative */
    KC_TRY(concat_two(c, s, kc_resolve(c, *s, v[i]), kc_resolve(c, *s, *out), i, out));
  return KC_GO;
}
