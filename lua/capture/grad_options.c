/* Options of kiln.grad and backward in captured code; see grad_options.h. */
#include "lua/capture/grad_options.h"
#include "lua/capture/heap.h"
#include <string.h>

kc_res kc_grad_list(kc_cap *c, kc_state *s, kc_val a, const char *call, const char *what, bool holes,
                    kc_val **list, uint32_t *n) {
  a = kc_resolve(c, s, a);
  *n = 0;
  if (kc_is_tensor(a)) {
    *list = kc_vals(c, 1);
    (*list)[(*n)++] = a;
    return KC_GO;
  }
  if (a.k != KC_V_TABLE)
    return kc_complain(c, "%s: %s must be a tensor or a table of them, got %s", call, what, kc_kind_name(a));
  int64_t count;
  KC_TRY(kc_border(c, s, a.id, &count));
  *list = kc_vals(c, (int)count + 1);
  for (int64_t i = 1; i <= count; i++) {
    kc_val *v = &(*list)[*n];
    KC_TRY(kc_raw_get(c, s, a.id, kc_int(i), v));
    *v = kc_resolve(c, s, *v);
    if (!kc_is_tensor(*v) && !(holes && v->k == KC_V_BOOL))
      return kc_complain(c, "%s: entry %lld of %s must be a tensor, got %s", call, (long long)i, what,
                         kc_kind_name(*v));
    ++*n;
  }
  return KC_GO;
}

static const struct {
  const char *name;
  int of; /* the calls that have it */
} names[] = {
    {"create_graph", KC_OF_GRAD | KC_OF_BACKWARD},
    {"allow_unused", KC_OF_GRAD},
    {"grad_outputs", KC_OF_GRAD},
    {"inputs", KC_OF_BACKWARD},
    {"memory", KC_OF_GRAD | KC_OF_BACKWARD},
    {"retain_graph", KC_OF_GRAD | KC_OF_BACKWARD},
};
enum { CREATE_GRAPH, ALLOW_UNUSED, GRAD_OUTPUTS, INPUTS, MEMORY, RETAIN_GRAPH, NAMES };

static const char *call_name(kc_grad_call of) { return of == KC_OF_GRAD ? "grad" : "backward"; }

static kc_res check_keys(kc_cap *c, kc_state *s, uint32_t table, kc_grad_call of) {
  for (kc_val key = KC_NILV, v;;) {
    KC_TRY(kc_next(c, s, table, key, &key, &v));
    if (key.k == KC_V_NIL) return KC_GO;
    bool known = false;
    for (int i = 0; i < NAMES; i++) known |= names[i].of & (int)of && kc_is_str(c, key, names[i].name);
    if (known) continue;
    if (key.k == KC_V_STRING) {
      kc_push(c, key);
      const char *text = kc_keep(c, lua_tostring(c->L, -1));
      lua_pop(c->L, 1);
      return kc_complain(c, "%s: there is no option '%s'", call_name(of), text);
    }
    return kc_complain(c, "%s: there is no option '?'", call_name(of));
  }
}

/* Lua's truth, which must be known. */
static kc_res read_flag(kc_cap *c, kc_val v, int i, kc_grad_call of, bool *out) {
  if (v.k == KC_V_UNION || v.k == KC_V_SYM || v.k == KC_V_POISON)
    return kc_fail(c, "the option '%s' of %s must be known", names[i].name, call_name(of));
  *out = v.k != KC_V_NIL && !(v.k == KC_V_BOOL && !v.i);
  return KC_GO;
}

static kc_res read_memory(kc_cap *c, kc_val v, kc_grad_call of, size_t *out) {
  if (v.k == KC_V_NIL) return KC_GO;
  if (v.k == KC_V_SYM)
    return kc_fail(c, "the option 'memory' of %s must be known; give it as a constant", call_name(of));
  if (v.k != KC_V_INT || v.i < 1)
    return kc_complain(c, "%s: option 'memory' must be a whole number of bytes above 0, got %s",
                       call_name(of),
                       v.k == KC_V_INT ? kc_format(c, "%lld", (long long)v.i) : kc_kind_name(v));
  *out = (size_t)v.i;
  return KC_GO;
}

kc_res kc_grad_options_read(kc_cap *c, kc_state *s, kc_val a, kc_grad_call of, kc_grad_options *o) {
  bool ignored;
  *o = (kc_grad_options){.outputs = KC_NILV, .inputs = KC_NILV};
  a = kc_resolve(c, s, a);
  if (a.k == KC_V_NIL) return KC_GO;
  if (a.k != KC_V_TABLE)
    return kc_complain(c, "%s: options must be a table, got %s", call_name(of), kc_kind_name(a));
  KC_TRY(check_keys(c, s, a.id, of));
  for (int i = 0; i < NAMES; i++) {
    kc_val v;
    KC_TRY(kc_raw_get(c, s, a.id, kc_string(c, names[i].name, strlen(names[i].name)), &v));
    v = kc_resolve(c, s, v);
    if (i == GRAD_OUTPUTS) o->outputs = v;
    if (i == INPUTS) o->inputs = v;
    if (i == MEMORY) KC_TRY(read_memory(c, v, of, &o->memory));
    bool *flag = i == CREATE_GRAPH ? &o->again : i == ALLOW_UNUSED ? &o->unused : &ignored;
    if (i == CREATE_GRAPH || i == ALLOW_UNUSED || i == RETAIN_GRAPH) KC_TRY(read_flag(c, v, i, of, flag));
  }
  if (o->memory && o->again)
    return kc_complain(c, "%s: memory and create_graph do not go together", call_name(of));
  return KC_GO;
}
