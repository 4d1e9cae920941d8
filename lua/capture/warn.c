/* Warnings at capture: a tensor compared with a number (Lua says false and asks nobody), a boolean tensor as
 * a condition (always true). The graph does what eager code does; the line is named once in the life of a Lua
 * state, on the context's output. Silent in the library's own files, and where a function may only want to
 * know whether it was given a tensor. */
#include "lua/capture/warn.h"
#include <stdio.h>
#include <string.h>

/* True the first time in this Lua state. */
static bool first_time(lua_State *L, const char *text) {
  static const char key;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
  }
  lua_pushstring(L, text);
  bool first = lua_rawget(L, -2) == LUA_TNIL;
  lua_pop(L, 1);
  if (first) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, text);
  }
  lua_pop(L, 1);
  return first;
}

static void warn(kc_cap *c, const char *sentence) {
  const kn_where *w = kc_where(c);
  if (!w || w->line <= 0 || !strncmp(w->chunk, "kiln/", 5)) return; /* a file of the library */
  const char *text = kc_format(c, "%s:%d: %s", w->chunk, w->line, sentence);
  if (first_time(c->L, text)) kn_log(c->ctx, "capture: %s", text);
}

static bool is_scalar(kc_val a) { return kc_is_number(a) || a.k == KC_V_BOOL || kc_is_symbool(a); }

void kc_warn_equal(kc_cap *c, kc_val a, kc_val b) {
  bool mixed = (kc_is_tensor(a) && is_scalar(b)) || (kc_is_tensor(b) && is_scalar(a));
  if (mixed)
    warn(c, "a tensor is never equal to a number or a boolean in Lua, so == is always false here; "
            "write x:item() == n, or x:eq(n) for each element");
}

void kc_warn_truth(kc_cap *c, kc_val a) {
  if (!kc_is_plain_tensor(a) || a.v->type.tensor.dtype != KN_BOOL) return;
  bool made_here = a.v->def && kn_opcode_is_op(a.v->def->op) && a.v->id > c->S->top->values_before;
  if (made_here) /* one that was given may be there or not, which is what is asked */
    warn(c, "a tensor is always true as a condition, whatever its elements are; write x:item(), or "
            "x:any():item() or x:all():item() of several");
}
