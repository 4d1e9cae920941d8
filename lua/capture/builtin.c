/* Models of Lua's own C functions, found by function value. Each does what the reference manual says, on
 * values of capture; what it cannot do it refuses. */
#include "core/autocast.h"
#include "graph/mutant.h"
#include "lua/capture/grads.h"
#include "lua/capture/growing.h"
#include "lua/capture/handle.h"
#include "lua/capture/keys.h"
#include "lua/capture/models.h"
#include "lua/capture/protect.h"
#include "lua/capture/race.h"
#include "lua/capture/text.h"
#include "lua/capture/warn.h"
#include <lauxlib.h>
#include <string.h>

kc_res kc_give(kc_cap *c, kc_values *out, int n, kc_val x, kc_val y, kc_val z) {
  out->v = kc_vals(c, 3);
  out->v[0] = x;
  out->v[1] = y;
  out->v[2] = z;
  out->n = n;
  return KC_GO;
}
kc_res kc_give1(kc_cap *c, kc_values *out, kc_val x) { return kc_give(c, out, 1, x, KC_NILV, KC_NILV); }

kc_res kc_give_all(kc_cap *c, kc_state *s, kc_values *out, const kc_val *a, int n) {
  out->v = kc_vals(c, n);
  for (int i = 0; i < n; i++) out->v[i] = kc_resolve(c, s, a[i]);
  out->n = n;
  return KC_GO;
}

static kc_val text(kc_cap *c, const char *s) { return kc_string(c, s, strlen(s)); }

/* As messages say it. */
const char *kc_name_of(kc_cap *c, kc_val f) {
  const char *called = kc_called_name(c), *path = c->obj[f.id].path;
  return called ? called : path ? path : "?";
}

/* An integer that must be known; a free number is burnt in. */
kc_res kc_known_int(kc_cap *c, kc_val f, kc_val a, int which, int64_t *out) {
  if (a.k == KC_V_SYM) KC_TRY(kc_burn(c, a));
  KC_TRY(kc_settle_text(c, a));
  a = kc_normal_key(a);
  if (a.k == KC_V_INT) return *out = a.i, KC_GO;
  if (a.k == KC_V_SYM || a.k == KC_V_UNION || a.k == KC_V_POISON)
    return kc_fail(c, "argument %d of '%s' is a %s; it must be known while capturing", which,
                   kc_name_of(c, f), kc_kind_name(a));
  return kc_complain(c, "bad argument #%d to '%s' (number expected, got %s)", which, kc_name_of(c, f),
                     kc_type_name(a));
}

kc_res kc_need_table(kc_cap *c, kc_val f, kc_val t) {
  if (t.k == KC_V_TABLE) return KC_GO;
  if (t.k == KC_V_UNION || t.k == KC_V_POISON)
    return kc_fail(c, "'%s' is called with a %s", kc_name_of(c, f), kc_kind_name(t));
  return kc_complain(c, "bad argument #1 to '%s' (table expected, got %s)", kc_name_of(c, f),
                     kc_type_name(t));
}

/* ---- going through tables ---- */

static kc_val model_named(kc_cap *c, const char *name) {
  for (int i = 0; i < c->nmodels; i++)
    if (!strcmp(c->models[i].name, name)) return kc_ref(KC_V_CFUNCTION, c->models[i].object);
  return KC_NILV;
}

MODEL(ipairs) {
  (void)s;
  if (n == 0) return kc_complain(c, "bad argument #1 to '%s' (value expected)", kc_name_of(c, f));
  return kc_give(c, out, 3, model_named(c, "ipairs iterator"), ARG(0), kc_int(0));
}

/* Over a tensor: its rows, as many as there are. */
static kc_res ended(kc_cap *c, kc_state **s, kc_val t, int64_t i, bool *out) {
  kc_val length;
  t = kc_resolve(c, *s, t);
  *out = false;
  if (!kc_is_tensor(t) || kc_tensor_value(c, *s, t)->type.tensor.rank == 0) return KC_GO;
  KC_TRY(kc_length(c, s, t, &length));
  if (length.k == KC_V_SYM) KC_TRY(kc_burn(c, length));
  if (length.k != KC_V_INT)
    return kc_fail(c, "ipairs() over a tensor whose number of rows only the graph will know; count with "
                      "for i = 1, t:size(1)");
  *out = i == length.i;
  return KC_GO;
}

MODEL(ipairs_step) {
  int64_t i = 0;
  bool end = false;
  kc_val v, nil, next;
  if (ARG(0).k == KC_V_TABLE && kc_list_of(*s, a[0].id) && kc_is_number(ARG(1)))
    KC_TRY(kc_arith(c, s, LUA_OPADD, a[1], kc_int(1), &next));
  else {
    KC_TRY(kc_known_int(c, f, ARG(1), 2, &i));
    KC_TRY(ended(c, s, ARG(0), i, &end));
    if (end) return kc_give1(c, out, KC_NILV);
    next = kc_int(i + 1);
  }
  KC_TRY(kc_index(c, s, ARG(0), next, &v));
  KC_TRY(kc_is_nil(c, *s, v, &nil));
  if (nil.k == KC_V_BOOL) return nil.i ? kc_give1(c, out, KC_NILV) : kc_give(c, out, 2, next, v, KC_NILV);
  kn_value *tag = kc_emit(c, KN_NODE_select, 3, nil, kc_int(KC_CLASS_NIL), kc_int(KC_CLASS_NUMBER));
  *kc_note_of(c, tag, true) = (kc_note){.choice = nil.v, .a = KC_CLASS_NIL, .b = KC_CLASS_NUMBER};
  kc_union u = {.tag = kc_sym(tag), .n = 2, .alt = {{KC_CLASS_NIL, KC_NILV}, {KC_CLASS_NUMBER, next}}};
  return kc_give(c, out, 2, kc_make_union(c, &u), v, KC_NILV);
}

MODEL(pairs) {
  kc_val h;
  KC_TRY(kc_metafield(c, *s, ARG(0), "__pairs", &h));
  if (h.k != KC_V_NIL) return kc_fail(c, "pairs() on a table with __pairs cannot be captured");
  if (n == 0)
    return kc_complain(c, "bad argument #1 to '%s' (table expected, got no value)", kc_name_of(c, f));
  return kc_give(c, out, 3, model_named(c, "next"), ARG(0),
                 KC_NILV); /* what is no table, next complains of */
}

MODEL(next) {
  kc_val k, v;
  KC_TRY(kc_need_table(c, f, ARG(0)));
  if (ARG(1).k == KC_V_SYM || ARG(1).k == KC_V_UNION || ARG(1).k == KC_V_POISON)
    return kc_fail(c, "next() with a %s as key", kc_kind_name(ARG(1)));
  KC_TRY(kc_next(c, *s, ARG(0).id, kc_normal_key(ARG(1)), &k, &v));
  KC_TRY(kc_hand_key(c, k));
  return k.k == KC_V_NIL ? kc_give1(c, out, KC_NILV) : kc_give(c, out, 2, k, v, KC_NILV);
}

/* ---- basics ---- */

MODEL(select) {
  if (kc_is_str(c, ARG(0), "#")) return kc_give1(c, out, kc_int(n - 1));
  int64_t i;
  KC_TRY(kc_known_int(c, f, ARG(0), 1, &i));
  if (i < 0)
    i = n + i;
  else if (i > n)
    i = n;
  if (i < 1) return kc_complain(c, "bad argument #1 to 'select' (index out of range)");
  return kc_give_all(c, *s, out, a + i, n - (int)i);
}

static const char *type_name(kc_val a) {
  kn_vkind kind;
  if (kc_is_tensor(a)) return "userdata";
  if (a.k == KC_V_TEXT) return "string";
  if (kc_scalar_kind(a, &kind)) return kind == KN_V_BOOL ? "boolean" : "number";
  return kc_kind_name(a);
}

static kc_res type_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  (void)s, (void)ud;
  if (a[0].k == KC_V_POISON) return kc_fail(c, "type() of a %s", kc_kind_name(a[0]));
  if (a[0].k == KC_V_OBJECT) return kc_give1(c, out, text(c, lua_typename(c->L, c->obj[a[0].id].type)));
  return kc_give1(c, out, text(c, type_name(a[0])));
}

static kc_res is_tensor_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  if (a[0].k == KC_V_OBJECT) return kc_call_engine(c, s, *(kc_val *)ud, a, 1, out);
  return kc_give1(c, out, kc_bool(kc_is_tensor(a[0])));
}

MODEL(is_tensor) {
  kc_val x = ARG(0);
  if (x.k == KC_V_POISON) return kc_fail(c, "kiln.is_tensor of a %s", kc_kind_name(x));
  return kc_distribute(c, s, &x, 1, is_tensor_step, &f, out);
}

MODEL(type) {
  (void)f;
  if (n == 0) return kc_complain(c, "bad argument #1 to 'type' (value expected)");
  return kc_distribute(c, s, a, 1, type_step, NULL, out);
}

MODEL(assert) {
  kc_val t;
  (void)f;
  if (n == 0) return kc_complain(c, "bad argument #1 to 'assert' (value expected)");
  kc_warn_truth(c, a[0]);
  KC_TRY(kc_truth(c, *s, a[0], &t));
  kc_val message = n > 1 ? a[1] : text(c, "assertion failed!");
  bool fails = t.k == KC_V_BOOL && !t.i;
  if (message.k != KC_V_STRING && message.k != KC_V_TEXT && !(t.k == KC_V_BOOL && t.i))
    return kc_fail(c, "the message of this assert is a %s; only strings can be captured",
                   kc_kind_name(message));
  if (fails) return kc_raise_value(c, message, kc_lua_where(kc_where(c)));
  if (t.k == KC_V_SYM && !KN_MUTANT(assert_forgotten)) {
    KC_TRY(kc_may_raise(c));
    c->b.where = kc_where(c);
    char pos[200]; /* raise nodes get theirs from `where`, assert nodes do not */
    kc_position(c, pos, sizeof pos);
    if (!kc_line_known(c)) *pos = 0;
    kc_add_message(c, KN_NODE_assert, t.v, *pos ? kc_format(c, "%s: ", pos) : "", message);
    kc_add_fact(c, *s, t.v, true);
  }
  return kc_give_all(c, *s, out, a, n);
}

static kc_res m_error(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out);

typedef struct error_ud {
  kc_val f;
  int n;
} error_ud;

static kc_res error_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const error_ud *x = ud;
  return m_error(c, s, x->f, a, x->n, out);
}

MODEL(error) {
  int64_t level = 1;
  out->n = 0;
  if (ARG(0).k == KC_V_UNION) {
    error_ud x = {f, n};
    return kc_distribute(c, s, a, n, error_step, &x, out);
  }
  if (n > 1) KC_TRY(kc_known_int(c, f, ARG(1), 2, &level));
  if (ARG(0).k != KC_V_STRING && ARG(0).k != KC_V_TEXT) {
    bool certain = false;
    if (c->protect) KC_TRY(kc_protected_raise(c, ARG(0), &certain));
    return kc_fail(c, "raises a %s; only strings can be captured", kc_kind_name(ARG(0)));
  }
  if (level < 0 || level > 2)
    return kc_fail(c, "error() with level %lld cannot be captured", (long long)level);
  if (kc_protects_directly(c) || (level == 2 && kc_protects_this(c))) level = 0; /* pcall has no line */
  const kn_where *where = level == 1 ? kc_where(c) : level == 2 ? (*s)->top->at : NULL;
  return kc_raise_value(c, ARG(0), kc_lua_where(where));
}

static kc_res fail_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  (void)s, (void)ud;
  out->n = 0;
  if (a[0].k == KC_V_STRING) return kc_engine_complain(c, c->obj[a[0].id].s);
  return kc_raise_value(c, a[0], kc_protects_directly(c) ? NULL : kc_where(c));
}

/* kiln.fail: the message is made like a format, the line is the user's. */
MODEL(fail) {
  (void)f;
  KC_TRY(kc_m_format(c, s, model_named(c, "format"), a, n, out));
  return kc_distribute(c, s, out->v, 1, fail_step, NULL, out);
}

MODEL(setmetatable) {
  KC_TRY(kc_need_table(c, f, ARG(0)));
  kc_val t = ARG(0), m = ARG(1), old, guard;
  if (c->tab[t.id].object || c->tab[t.id].argument)
    return kc_fail(c, "setmetatable() on a table that exists outside the captured function");
  if (m.k != KC_V_TABLE && m.k != KC_V_NIL)
    return kc_complain(c, "bad argument #2 to 'setmetatable' (nil or table expected)");
  KC_TRY(kc_metatable(c, *s, t, &old));
  KC_TRY(kc_metafield(c, *s, t, "__metatable", &guard));
  if (guard.k != KC_V_NIL) return kc_complain(c, "cannot change a protected metatable");
  static const char *const odd[] = {"__gc", "__mode", "__close"};
  for (size_t i = 0; m.k == KC_V_TABLE && i < sizeof odd / sizeof *odd; i++) {
    kc_val h;
    KC_TRY(kc_raw_get(c, *s, m.id, text(c, odd[i]), &h));
    if (h.k != KC_V_NIL) return kc_fail(c, "a metatable with %s cannot be captured", odd[i]);
  }
  kc_table_write(c, *s, t.id)->meta = m;
  return kc_give1(c, out, t);
}

MODEL(getmetatable) {
  kc_val m, guard = KC_NILV;
  (void)f;
  KC_TRY(kc_metatable(c, *s, ARG(0), &m));
  if (m.k == KC_V_TABLE) KC_TRY(kc_raw_get(c, *s, m.id, text(c, "__metatable"), &guard));
  return kc_give1(c, out, guard.k == KC_V_NIL ? m : guard);
}

static kc_res plain_key(kc_cap *c, kc_val *k) {
  if (k->k == KC_V_SYM) KC_TRY(kc_burn(c, *k));
  KC_TRY(kc_tensor_key(c, k));
  KC_TRY(kc_settle_text(c, *k));
  if (k->k == KC_V_SYM || k->k == KC_V_UNION || k->k == KC_V_POISON)
    return kc_fail(c, "a table key is a %s", kc_kind_name(*k));
  *k = kc_normal_key(*k);
  return KC_GO;
}

MODEL(rawget) {
  kc_val v, key = ARG(1);
  KC_TRY(kc_need_table(c, f, ARG(0)));
  KC_TRY(plain_key(c, &key));
  KC_TRY(kc_raw_get(c, *s, ARG(0).id, key, &v));
  return kc_give1(c, out, v);
}

MODEL(rawset) {
  KC_TRY(kc_need_table(c, f, ARG(0)));
  kc_val key = ARG(1);
  KC_TRY(plain_key(c, &key));
  if (key.k == KC_V_NIL) return kc_raise(c, "table index is nil");
  KC_TRY(kc_raw_set(c, *s, ARG(0).id, key, ARG(2)));
  return kc_give1(c, out, ARG(0));
}

MODEL(rawequal) {
  (void)f;
  kc_val x = ARG(0), y = ARG(1), v;
  if ((x.k == KC_V_TABLE && y.k == KC_V_TABLE) || (x.k == KC_V_OBJECT && y.k == KC_V_OBJECT))
    return kc_give1(c, out, kc_bool(kc_same(x, y)));
  if (x.k == KC_V_UNION || y.k == KC_V_UNION)
    return kc_fail(c, "rawequal() of a %s", kc_kind_name(x.k == KC_V_UNION ? x : y));
  KC_TRY(kc_equal(c, s, x, y, &v));
  return kc_give1(c, out, v);
}

MODEL(rawlen) {
  if (ARG(0).k == KC_V_STRING) return kc_give1(c, out, kc_int((int64_t)c->obj[ARG(0).id].n));
  int64_t len;
  KC_TRY(kc_need_table(c, f, ARG(0)));
  if (kc_list_of(*s, a[0].id)) return kc_give1(c, out, kc_list_length(c, *s, a[0].id));
  KC_TRY(kc_border(c, *s, ARG(0).id, &len));
  return kc_give1(c, out, kc_int(len));
}

typedef struct plain_ud {
  kc_val f;
  int n;
} plain_ud;

static kc_res plain_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const plain_ud *x = ud;
  (void)s;
  return kc_call_concrete(c, x->f, a, x->n, out);
}

/* For real, on each of the strings or numbers that an argument may be. */
MODEL(plain) {
  plain_ud x = {f, n};
  return kc_distribute(c, s, a, n, plain_step, &x, out);
}

MODEL(require) {
  (void)f;
  KC_TRY(kc_settle_text(c, ARG(0)));
  if (ARG(0).k != KC_V_STRING) return kc_fail(c, "require() of a %s", kc_kind_name(ARG(0)));
  lua_getfield(c->L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  kc_val loaded = kc_import(c, -1, "package.loaded"), v;
  lua_pop(c->L, 1);
  KC_TRY(kc_raw_get(c, *s, loaded.id, ARG(0), &v));
  if (v.k == KC_V_NIL || (v.k == KC_V_BOOL && !v.i))
    return kc_fail(c, "require '%s': the module is not loaded yet; require it outside", c->obj[ARG(0).id].s);
  return kc_give1(c, out, v);
}

/* kiln.graph_source(graph): a module looks for others in Graphs, too, when its parts are walked. */
MODEL(graph_source) {
  kc_val source = KC_NILV;
  (void)s;
  if (ARG(0).k == KC_V_OBJECT) {
    kc_push_object(c, f.id);
    kc_push(c, a[0]);
    lua_call(c->L, 1, 1);
    source = kc_import(c, -1, NULL);
    lua_pop(c->L, 1);
  }
  return kc_give1(c, out, source);
}

/* As the engine's own messages say it. */
static const char *kind_said(kc_val a) {
  kn_vkind kind;
  if (kc_is_tensor(a)) return "a tensor";
  if (kc_is_number(a)) return kc_scalar_kind(a, &kind) && kind == KN_V_INT ? "an integer" : "a number";
  if (a.k == KC_V_BOOL || kc_is_symbool(a)) return "a boolean";
  return a.k == KC_V_NIL      ? "nil"
         : a.k == KC_V_STRING ? "a string"
         : a.k == KC_V_TABLE  ? "a table"
                              : "a userdata";
}

/* The first argument is a function, or called like one: else the complaint, which ends in what was got. */
static kc_res need_function(kc_cap *c, kc_state *s, const char *said, kc_val *a, int n) {
  kc_val given = n ? a[0] : KC_NILV, h = KC_NILV;
  if (given.k == KC_V_TABLE || given.k == KC_V_OBJECT) KC_TRY(kc_metafield(c, s, given, "__call", &h));
  if (h.k != KC_V_NIL || given.k == KC_V_CLOSURE || given.k == KC_V_CFUNCTION || given.k > KC_V_SYM)
    return KC_GO;
  return kc_complain(c, "%s, got %s", said, kind_said(given));
}

/* What ops get meanwhile is cast by nodes. */
MODEL(autocast) {
  const uint8_t before = c->ctx->autocast;
  uint8_t half = KN_BOOL;
  (void)f;
  KC_TRY(kc_settle_text(c, ARG(0)));
  const bool text = ARG(0).k == KC_V_STRING, off = ARG(0).k == KC_V_BOOL && !ARG(0).i;
  if (!off && !(text && kn_autocast_parse(c->obj[ARG(0).id].s, &half)))
    return kc_complain(c, KN_AUTOCAST_WANTED ", got %s", text ? c->obj[ARG(0).id].s : kind_said(ARG(0)));
  KC_TRY(need_function(c, *s, "autocast: a function to call is needed", a + 1, n - 1));
  c->ctx->autocast = half;
  kc_res r = kc_call(c, s, a[1], a + 2, n - 2, -1, out);
  c->ctx->autocast = before;
  return r;
}

/* Nodes made meanwhile are marked; however the call ends, what follows is as before. */
static kc_res with_grad(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, bool on, kc_values *out) {
  (void)f;
  KC_TRY(need_function(
      c, *s, on ? "enable_grad: a function to call is needed" : "no_grad: a function to call is needed", a,
      n));
  bool before = c->b.no_grad;
  c->b.no_grad = !on;
  kc_res r = kc_call(c, s, a[0], a + 1, n - 1, -1, out);
  c->b.no_grad = before;
  return r;
}

static bool has_effect(const kn_node *n) {
  for (; n; n = n->next) {
    if (!kn_opcode_is_op(n->op) && kn_opcode_describe(n->op).effect == KN_EFFECT && n->op != KN_NODE_raise &&
        n->op != KN_NODE_assert)
      return true;
    for (int i = 0; i < n->nregions; i++)
      if (has_effect(n->regions[i]->first)) return true;
  }
  return false;
}

/* Gradients compute again what the function computed: its nodes are marked (graph/grad). Eager code would run
 * all of it once more, so that it may do nothing else. */
MODEL(checkpoint) {
  (void)f;
  KC_TRY(need_function(c, *s, "checkpoint: a function is needed", a, n));
  if (a[0].k == KC_V_CFUNCTION && !c->obj[a[0].id].engine) /* what it raises has no position then */
    return kc_fail(c, "'%s' is given to kiln.checkpoint; give it a Lua function that calls that",
                   c->obj[a[0].id].path ? c->obj[a[0].id].path : "a C function");
  if (c->b.no_grad) return kc_call(c, s, a[0], a + 1, n - 1, -1, out);
  uint32_t around = c->b.again;
  kc_state *before = kc_snapshot(c, *s);
  kn_node *mark = c->b.at->last;
  c->b.again = around ? around : ++c->checkpoints;
  kc_res r = kc_call(c, s, a[0], a + 1, n - 1, -1, out);
  c->b.again = around;
  if (r != KC_GO || (!kc_has_written(c, before) && !has_effect(mark ? mark->next : c->b.at->first))) return r;
  KC_TRY(kc_ask_grad(c));
  return c->b.no_grad
             ? KC_GO
             : kc_fail(c, "the function given to kiln.checkpoint writes to something outside of it, or "
                          "prints, which it would do "
                          "once more when gradients are taken; return the values, and write them after it");
}
MODEL(no_grad) { return with_grad(c, s, f, a, n, false, out); }
MODEL(is_grad_enabled) {
  (void)s, (void)f, (void)a, (void)n;
  KC_TRY(kc_ask_grad(c));
  return kc_give1(c, out, kc_bool(!c->b.no_grad));
}
MODEL(grad) {
  (void)f;
  return kc_gradients(c, s, a, n, out);
}
MODEL(backward) {
  (void)f;
  return kc_backward(c, s, a, n, out);
}
MODEL(requires_grad_) {
  (void)f;
  return kc_require_grad(c, s, a, n, out);
}
MODEL(enable_grad) { return with_grad(c, s, f, a, n, true, out); }

/* ---- math.* ---- */

static kc_res number_arg(kc_cap *c, kc_val f, kc_val a, int which) {
  if (kc_is_number(a)) return KC_GO;
  if (a.k == KC_V_UNION || a.k == KC_V_POISON)
    return kc_fail(c, "'%s' is called with a %s", kc_name_of(c, f), kc_kind_name(a));
  return kc_complain(c, "bad argument #%d to '%s' (number expected, got %s)", which, kc_name_of(c, f),
                     kc_type_name(a));
}

typedef struct math_ud {
  kc_val f;
  kn_opcode op;
} math_ud;

static kc_res math_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const math_ud *x = ud;
  (void)s;
  if (a[0].k != KC_V_SYM) return kc_call_concrete(c, x->f, a, 1, out);
  KC_TRY(number_arg(c, x->f, a[0], 1));
  return kc_give1(c, out, kc_sym(kc_emit(c, x->op, 1, a[0], KC_NILV, KC_NILV)));
}

#define MATH(name)                                                                                           \
  MODEL(name) {                                                                                              \
    if (n == 0)                                                                                              \
      return kc_complain(c, "bad argument #1 to '%s' (number expected, got no value)", kc_name_of(c, f));    \
    math_ud x = {f, KN_NODE_lua_##name};                                                                     \
    return kc_distribute(c, s, a, 1, math_step, &x, out);                                                    \
  }
MATH(floor)
MATH(ceil)
MATH(abs)
MATH(sqrt)
MATH(exp)
MATH(sin)
MATH(cos)

MODEL(log) {
  math_ud x = {f, KN_NODE_lua_log};
  if (n == 1) return kc_distribute(c, s, a, 1, math_step, &x, out);
  for (int i = 0; i < n; i++)
    if (a[i].k == KC_V_SYM)
      return kc_fail(c, "math.log of a %s with a base; divide by the logarithm of the base",
                     kc_kind_name(a[i]));
  return kc_call_concrete(c, f, a, n, out);
}

static kc_res extreme(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, bool larger, kc_values *out) {
  bool free = false;
  for (int i = 0; i < n; i++) free |= a[i].k == KC_V_SYM;
  if (!free) return kc_call_concrete(c, f, a, n, out);
  for (int i = 0; i < n; i++) KC_TRY(number_arg(c, f, a[i], i + 1));
  kc_val best = a[0], less;
  for (int i = 1; i < n; i++) {
    KC_TRY(kc_less(c, s, false, larger ? best : a[i], larger ? a[i] : best, &less));
    if (less.k == KC_V_BOOL)
      best = less.i ? a[i] : best;
    else if (!kc_same(a[i], best))
      best = kc_sym(kc_emit(c, KN_NODE_select, 3, less, a[i], best));
  }
  return kc_give1(c, out, best);
}
MODEL(max) { return extreme(c, s, f, a, n, true, out); }
MODEL(min) { return extreme(c, s, f, a, n, false, out); }

MODEL(tointeger) {
  if (ARG(0).k == KC_V_SYM && ARG(0).v->type.kind == KN_V_INT) return kc_give1(c, out, a[0]);
  if (ARG(0).k == KC_V_SYM) {
    KC_TRY(kc_burn(c, a[0]));
    return kc_fail(c, "math.tointeger of a number that depends on tensor data may be nil; use math.floor");
  }
  (void)s;
  return kc_call_concrete(c, f, a, n, out);
}

MODEL(math_type) {
  (void)s;
  kn_vkind kind;
  if (ARG(0).k == KC_V_SYM && kc_scalar_kind(a[0], &kind) && kind != KN_V_TENSOR) {
    if (kind == KN_V_INT || kind == KN_V_FLOAT)
      return kc_give1(c, out, text(c, kind == KN_V_INT ? "integer" : "float"));
    if (kind == KN_V_BOOL) return kc_give1(c, out, KC_NILV);
    return kc_fail(c, "math.type of a number that is an integer on some path and a float on another");
  }
  if (n && kc_is_tensor(a[0])) return kc_give1(c, out, KC_NILV);
  return kc_call_concrete(c, f, a, n, out);
}

/* ---- finding them ---- */

static const struct {
  const char *lib, *name;
  kc_model_fn fn;
} models[] = {
    {NULL, "ipairs", m_ipairs},
    {NULL, "pairs", m_pairs},
    {NULL, "next", m_next},
    {NULL, "select", m_select},
    {NULL, "type", m_type},
    {NULL, "assert", m_assert},
    {NULL, "error", m_error},
    {NULL, "setmetatable", m_setmetatable},
    {NULL, "getmetatable", m_getmetatable},
    {NULL, "rawget", m_rawget},
    {NULL, "rawset", m_rawset},
    {NULL, "rawequal", m_rawequal},
    {NULL, "rawlen", m_rawlen},
    {NULL, "tostring", kc_m_tostring},
    {NULL, "print", kc_m_print},
    {NULL, "warn", kc_m_warn},
    {NULL, "pcall", kc_m_pcall},
    {NULL, "xpcall", kc_m_xpcall},
    {"io", "write", kc_m_write},
    {NULL, "tonumber", m_plain},
    {NULL, "require", m_require},
    {"table", "insert", kc_m_insert},
    {"table", "sort", kc_m_sort},
    {"table", "remove", kc_m_remove},
    {"table", "unpack", kc_m_unpack},
    {"table", "move", kc_m_move},
    {"table", "pack", kc_m_pack},
    {"table", "concat", kc_m_concat},
    {"math", "floor", m_floor},
    {"math", "ceil", m_ceil},
    {"math", "abs", m_abs},
    {"math", "sqrt", m_sqrt},
    {"math", "exp", m_exp},
    {"math", "sin", m_sin},
    {"math", "cos", m_cos},
    {"math", "log", m_log},
    {"math", "max", m_max},
    {"math", "min", m_min},
    {"math", "tointeger", m_tointeger},
    {"math", "type", m_math_type},
    {"math", "fmod", m_plain},
    {"math", "ult", m_plain},
    {"math", "modf", m_plain},
    {"math", "tan", m_plain},
    {"string", "format", kc_m_format},
    {"string", "rep", m_plain},
    {"string", "sub", m_plain},
    {"string", "byte", m_plain},
    {"string", "char", m_plain},
    {"string", "len", m_plain},
    {"string", "upper", m_plain},
    {"string", "lower", m_plain},
    {"string", "reverse", m_plain},
    {"string", "find", m_plain},
    {"string", "match", m_plain},
    {"string", "gsub", m_plain},
    {"kiln", "is_tensor", m_is_tensor},
    {"kiln", "fail", m_fail},
    {"kiln", "graph_source", m_graph_source},
    {"kiln", "call_host", kc_m_call_host},
    {"kiln", "fork_mark", kc_m_fork_mark},
    {"kiln", "checkpoint", m_checkpoint},
    {"kiln", "autocast", m_autocast},
    {"kiln", "no_grad", m_no_grad},
    {"kiln", "enable_grad", m_enable_grad},
    {"kiln", "is_grad_enabled", m_is_grad_enabled},
    {"kiln", "grad", m_grad},
};

static void add_model(kc_cap *c, const char *name, const char *path, kc_model_fn fn) {
  if (lua_iscfunction(c->L, -1)) {
    c->models = kc_more(c, &c->keep, c->models, (uint32_t)c->nmodels, sizeof *c->models);
    uint32_t id = kc_intern(c, -1);
    if (!c->obj[id].path) c->obj[id].path = path;
    c->models[c->nmodels++] = (kc_model){id, name, fn};
  }
  lua_pop(c->L, 1);
}

void kc_find_models(kc_cap *c) {
  lua_State *L = c->L;
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    if (lua_getfield(L, -1, models[i].lib ? models[i].lib : "_G") != LUA_TTABLE) {
      lua_pop(L, 1);
      continue;
    }
    lua_pushstring(L, models[i].name);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    add_model(c, models[i].name, models[i].name, models[i].fn);
  }
  lua_pop(L, 1);
  if (luaL_getmetatable(L, LUA_FILEHANDLE) == LUA_TTABLE && lua_getfield(L, -1, "__index") == LUA_TTABLE) {
    lua_getfield(L, -1, "write");
    add_model(c, "file:write", "file:write", kc_m_file_write);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  static const struct {
    const char *name;
    kc_model_fn fn;
  } methods[] = {{"backward", m_backward}, {"requires_grad_", m_requires_grad_}};
  c->host->push_methods(L);
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    lua_getfield(L, -1, methods[i].name);
    add_model(c, methods[i].name, kc_format(c, "tensor.%s", methods[i].name), methods[i].fn);
  }
  lua_pop(L, 1);
  for (int i = 0; i < c->nmodels; i++) { /* the function that ipairs gives */
    if (c->models[i].fn != m_ipairs) continue;
    kc_push_object(c, c->models[i].object);
    lua_newtable(L);
    lua_call(L, 1, 1);
    add_model(c, "ipairs iterator", "ipairs iterator", m_ipairs_step);
    break;
  }
}

const kc_model *kc_model_of(const kc_cap *c, uint32_t object) {
  for (int i = 0; i < c->nmodels; i++)
    if (c->models[i].object == object) return &c->models[i];
  return NULL;
}

bool kc_has_model(lua_State *L, int idx) {
  bool found = false;
  idx = lua_absindex(L, idx);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof models / sizeof *models && !found; i++) {
    if (lua_getfield(L, -1, models[i].lib ? models[i].lib : "_G") == LUA_TTABLE) {
      lua_getfield(L, -1, models[i].name);
      found = lua_rawequal(L, -1, idx);
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return found;
}
