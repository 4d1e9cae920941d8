/* Calls: Lua functions are inlined, C functions are the engine's, modelled, or refused by name. See interp.h.
 */
#include "lua/capture/nested.h"
#include "lua/capture/protect.h"
#include "lua/capture/text.h"
#include <lauxlib.h>
#include <string.h>

/* Recursion that does not end while its numbers are free: those that the program gave are burnt in. */
static kc_res too_deep(kc_cap *c, kc_state *s) {
  for (const kc_frame *f = s->top; f; f = f->up)
    for (int i = 0; i < f->p->nparams; i++) KC_TRY(kc_burn(c, kc_resolve(c, s, f->r[i])));
  return kc_fail(
      c,
      "calls are nested more than %d deep: recursion that depends on tensor data cannot be captured; "
      "write it as a loop",
      KC_MAX_DEPTH);
}

static kc_res call_closure(kc_cap *c, kc_state **sp, kc_val f, const kc_val *args, int n, int want,
                           kc_values *out) {
  KC_TRY(kc_load_closure(c, f.id));
  kc_proto *p = c->clos[f.id].p;
  kc_state *s = *sp;
  if (s->depth >= KC_MAX_DEPTH) return too_deep(c, s);
  kc_frame *fr = kc_frame_new(c, s, p, f.id);
  fr->want = want;
  for (int i = 0; i < p->nparams && i < n; i++) {
    fr->r[i] = args[i];
    if (args[i].k == KC_V_SYM && !args[i].v->name) kn_value_name(&c->b, args[i].v, kc_local_name(p, i, 0));
  }
  if (p->vararg && n > p->nparams) {
    fr->nva = n - p->nparams;
    fr->va = kc_dup(c, args + p->nparams, (size_t)fr->nva * sizeof *args);
  }
  int base = c->nstop, kind = kc_new_stop(c, s->depth, -1, 1 << 28, false, 0);
  kc_outs *o = kc_new(c, sizeof *o);
  if (++c->nest > KC_MAX_NEST) return kc_fail(c, "calls are nested too deeply");
  kc_res r = kc_run(c, s, 0, 0, o);
  c->nstop = base;
  if (r != KC_GO) return r;
  c->nest--;
  if (o->n != 1 || o->o[0].kind != kind) return kc_fail(c, "internal: a call was left by %d ways", o->n);
  s = *sp = c->S = o->o[0].s;
  *out = (kc_values){s->ret, s->nret};
  s->ret = NULL;
  s->nret = 0;
  s->top = s->top->up;
  s->depth--;
  return KC_GO;
}

typedef struct call_ud {
  const kc_val *args;
  int n, want;
} call_ud;

static kc_res call_step(kc_cap *c, kc_state **s, kc_val *o, void *ud, kc_values *out) {
  const call_ud *x = ud;
  return kc_call(c, s, o[0], x->args, x->n, x->want, out);
}

static kc_res call_table(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, int want,
                         kc_values *out) {
  kc_val h;
  bool done;
  KC_TRY(kc_call_graph(c, s, f, args, n, want, out, &done));
  if (done) return KC_GO;
  KC_TRY(kc_metafield(c, *s, f, "__call", &h));
  if (h.k == KC_V_POISON || f.k == KC_V_POISON) return kc_fail(c, "calls a %s", kc_kind_name(f));
  if (h.k == KC_V_NIL) {
    if (f.k == KC_V_OBJECT)
      return kc_fail(c, "calls '%s', an object that capture does not know",
                     c->obj[f.id].path ? c->obj[f.id].path : "?");
    return kc_raise(c, "attempt to call a %s value%s", kc_type_name(f),
                    kc_operand_name(c, KC_OPERAND_CALLED, 0));
  }
  kc_val *all = kc_vals(c, n + 1);
  all[0] = f;
  if (n) memcpy(all + 1, args, (size_t)n * sizeof *all);
  return kc_call(c, s, h, all, n + 1, want, out);
}

static const struct {
  const char *name, *hint;
} hints[] = {
    {"math.random", "it would be drawn once, while capturing; use kiln.rand or kiln.randint"},
    {"math.randomseed", "use kiln.manual_seed outside"},
    {"coroutine.wrap", "coroutines cannot be captured; write a loop"},
    {"coroutine.create", "coroutines cannot be captured; write a loop"},
    {"coroutine.yield", "coroutines cannot be captured; write a loop"},
    {"os.time", "pass the time as an argument"},
    {"os.clock", "measure outside"},
    {"load", "compile outside"},
    {"collectgarbage", "collect outside"},
    {"debug.getinfo", "look outside"},
};

const char *kc_call_hint(const char *path) {
  if (path && !strncmp(path, "_ENV.", 5)) path += 5; /* globals under another name */
  for (size_t i = 0; path && i < sizeof hints / sizeof *hints; i++)
    if (!strcmp(path, hints[i].name)) return hints[i].hint;
  return "call it outside and pass the result";
}

static kc_res unknown_function(kc_cap *c, kc_val f) {
  static const char of[] = "metatable of ";
  const char *path = c->obj[f.id].path, *hint = kc_call_hint(path),
             *method = path ? strstr(path, ".__index.") : NULL;
  if (method && !strncmp(path, of, sizeof of - 1))
    return kc_fail(c, "calls the method '%s' of '%.*s', which cannot be captured; %s", method + 9,
                   (int)(method - path) - (int)(sizeof of - 1), path + sizeof of - 1, hint);
  return kc_fail(c, "calls the C function '%s', which cannot be captured; %s", path ? path : "?", hint);
}

static kc_res call_c(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, kc_values *out) {
  kc_val *a = kc_vals(c, n + 1);
  for (int i = 0; i < n; i++) a[i] = kc_resolve(c, *s, args[i]);
  const kc_model *m = kc_model_of(c, f.id);
  if (m) return m->fn(c, s, f, a, n, out);
  if (c->obj[f.id].engine) return kc_call_engine(c, s, f, a, n, out);
  return unknown_function(c, f);
}

kc_res kc_call(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, int want, kc_values *out) {
  f = kc_resolve(c, *s, f);
  *out = (kc_values){0};
  switch (f.k) {
  case KC_V_CLOSURE: KC_TRY(call_closure(c, s, f, args, n, want, out)); break;
  case KC_V_CFUNCTION: KC_TRY(call_c(c, s, f, args, n, out)); break;
  case KC_V_UNION: {
    call_ud x = {args, n, want};
    KC_TRY(kc_distribute(c, s, &f, 1, call_step, &x, out));
    break;
  }
  default: KC_TRY(call_table(c, s, f, args, n, want, out)); break;
  }
  if (want >= 0) {
    kc_val *v = kc_vals(c, want);
    for (int i = 0; i < want; i++) v[i] = i < out->n ? kc_absent_to_nil(c, out->v[i]) : KC_NILV;
    *out = (kc_values){v, want};
  }
  return KC_GO;
}

kc_res kc_call1(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, kc_val *out) {
  kc_values made = {0};
  KC_TRY(kc_call(c, s, f, args, n, 1, &made));
  *out = kc_resolve(c, *s, made.v[0]);
  return KC_GO;
}

/* ---- for real, on concrete values ---- */

/* Called from C, a function is named by its library ("math.floor"); the program called it otherwise. */
static const char *as_called(kc_cap *c, const char *message) {
  const char *name = kc_called_name(c), *at = strstr(message, " to '"),
             *end = at ? strchr(at + 5, '\'') : NULL;
  if (kc_protects_directly(c)) return message;
  if (!name || !end || strncmp(message, "bad argument #", 14)) return message;
  return kc_format(c, "%.*s to '%s%s", (int)(at - message), message, name, end);
}

kc_res kc_call_concrete(kc_cap *c, kc_val f, const kc_val *args, int n, kc_values *out) {
  lua_State *L = c->L;
  const char *name = c->obj[f.id].path ? c->obj[f.id].path : "?";
  for (int i = 0; i < n; i++) {
    if (args[i].k == KC_V_SYM) KC_TRY(kc_burn(c, args[i]));
    KC_TRY(kc_settle_text(c, args[i]));
    if (args[i].k != KC_V_NIL && args[i].k != KC_V_BOOL && args[i].k != KC_V_STRING &&
        !kc_is_concrete_number(args[i]))
      return kc_fail(c, "calls '%s' with a %s; it can be called with plain values only", name,
                     kc_kind_name(args[i]));
  }
  luaL_checkstack(L, n + 8, "capture");
  int top = lua_gettop(L);
  kc_push_object(c, f.id);
  for (int i = 0; i < n; i++) kc_push(c, args[i]);
  int rc = lua_pcall(L, n, LUA_MULTRET, 0);
  if (rc == LUA_ERRMEM) lua_error(L);
  kc_res r = KC_GO;
  if (rc != LUA_OK) {
    const char *m = lua_tostring(L, -1);
    r = m && !strncmp(m, "attempt to ", 11) ? kc_raise(c, "%s", m)
                                            : kc_complain(c, "%s", m ? as_called(c, m) : "error");
  } else {
    out->n = lua_gettop(L) - top;
    out->v = kc_vals(c, out->n);
    for (int i = 0; i < out->n; i++) out->v[i] = kc_import(c, top + 1 + i, NULL);
  }
  lua_settop(L, top);
  return r;
}
