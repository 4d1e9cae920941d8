/* Functions marked kiln.ignore: a call stays a call of the host, by name, with the results' types as they
 * were given. An ignored function is a table {name =, results = {"float32[N,3]", "integer" …}} that is
 * called. */
#include "graph/host.h"
#include "lua/capture/protect.h"

static kc_res field(kc_cap *c, kc_state *s, kc_val t, const char *name, size_t n, kc_val *out) {
  return kc_raw_get(c, s, t.id, kc_string(c, name, n), out);
}

static kc_res read_types(kc_cap *c, kc_state *s, kc_val self, kn_vtype *types, uint32_t *n) {
  kc_val list, text;
  KC_TRY(field(c, s, self, "results", 7, &list));
  if (list.k != KC_V_TABLE) return kc_fail(c, "an ignored function has lost its list of results");
  for (*n = 0;; ++*n) {
    KC_TRY(kc_raw_get(c, s, list.id, kc_int(*n + 1), &text));
    if (text.k == KC_V_NIL) return KC_GO;
    if (*n == KN_HOST_VALUES || text.k != KC_V_STRING || !kn_host_type(&c->b, c->obj[text.id].s, &types[*n]))
      return kc_fail(c, "an ignored function's results are not types");
  }
}

static kc_res call_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  int n = *(int *)ud;
  kn_vtype types[KN_HOST_VALUES];
  kn_value *in[KN_HOST_VALUES];
  uint32_t nout = 0;
  kc_val name;
  if (n < 1 || a[0].k != KC_V_TABLE) return kc_fail(c, "an ignored function is called without itself");
  KC_TRY(field(c, *s, a[0], "name", 4, &name));
  if (name.k != KC_V_STRING) return kc_fail(c, "an ignored function has lost its name");
  const char *text = c->obj[name.id].s;
  KC_TRY(read_types(c, *s, a[0], types, &nout));
  if (n - 1 > KN_HOST_VALUES)
    return kc_fail(c, "'%s' is called with more than %d values", text, KN_HOST_VALUES);
  for (int i = 1; i < n; i++) {
    kn_vkind kind;
    if (!kc_scalar_kind(a[i], &kind))
      return kc_fail(
          c, "the ignored function '%s' is called with a %s; it can be given tensors, numbers and booleans",
          text, kc_kind_name(a[i]));
    in[i - 1] = kc_value(c, a[i]);
  }
  KC_TRY(kc_may_raise(c));
  c->b.where = kc_where(c);
  kn_node *made = kn_add_host_call(&c->b, text, in, (uint32_t)(n - 1), types, nout);
  if (!made) return kc_fail(c, "%s", text);
  out->n = (int)nout;
  out->v = kc_vals(c, (int)nout);
  for (uint32_t i = 0; i < nout; i++) out->v[i] = kc_sym(made->out[i]);
  return KC_GO;
}

kc_res kc_m_call_host(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  return kc_distribute(c, s, a, n, call_step, &n, out);
}
