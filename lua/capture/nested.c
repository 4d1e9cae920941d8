/* Calls of Graph objects: which kind it is, and arguments as the descriptions of kiln.script's `inputs` have
 * them. See nested.h. */
#include "lua/capture/nested.h"
#include "lua/capture/handle.h"
#include <lauxlib.h>
#include <string.h>

enum { MAX_DEEP = 60 };

typedef struct giving {
  kc_cap *c;
  kc_state *s;
  const char *name; /* of the Graph */
  int n;            /* sizes that have a name, and what they are */
  struct {
    const char *name;
    int64_t size;
    kc_val of;
  } size[64];
} giving;

static kc_res refuse(giving *g, const char *what, const char *wanted, kc_val got) {
  kc_cap *c = g->c;
  char text[KN_TYPE_TEXT];
  if (got.k == KC_V_HANDLE) got = kc_sym(kc_tensor_value(c, g->s, got));
  return kc_fail(
      c, "calls the Graph '%s', whose inputs are described: %s must be %s, got %s", g->name, what, wanted,
      got.k == KC_V_SYM ? kn_vtype_text(c->b.graph, &got.v->type, text, sizeof text) : kc_kind_name(got));
}

kc_res kc_give_scalar(kc_cap *c, kc_val a, kn_vkind kind, kc_val *out) {
  kn_vkind is;
  *out = (kc_val){.k = KC_V_NONE};
  if (!kc_scalar_kind(a, &is) || !kn_is_scalar(is) || (is == KN_V_BOOL) != (kind == KN_V_BOOL)) return KC_GO;
  if (is == kind || kind == KN_V_NUMBER) return *out = a, KC_GO;
  if (kind == KN_V_FLOAT) {
    *out = a.k == KC_V_INT ? kc_float((double)a.i)
                           : kc_sym(kc_emit(c, KN_NODE_lua_tofloat, 1, a, KC_NILV, KC_NILV));
    return KC_GO;
  }
  if (a.k == KC_V_SYM) return kc_burn(c, a); /* whether it is whole must be known */
  a = kc_normal_key(a);
  if (a.k == KC_V_INT) *out = a;
  return KC_GO;
}

/* The size is this number, or what it was where its name stood before; known by burning it in, if need be. */
static kc_res give_size(giving *g, const kc_arg *d, int dim, int64_t size, kc_val of, bool *fits) {
  kc_cap *c = g->c;
  int64_t want = d->type.tensor.dims[dim];
  kc_val both[2] = {of, of};
  if (d->sizes[dim]) {
    int i = 0;
    while (i < g->n && strcmp(g->size[i].name, d->sizes[dim])) i++;
    if (i == g->n) {
      if (i == (int)(sizeof g->size / sizeof *g->size)) return kc_fail(c, "too many named sizes");
      g->size[g->n].name = d->sizes[dim];
      g->size[g->n].size = size;
      g->size[g->n++].of = of;
      return KC_GO;
    }
    want = g->size[i].size;
    both[1] = g->size[i].of;
  }
  if (size == want && size != KN_DIM_UNKNOWN) return KC_GO;
  if (!kn_dim_known(size) || !kn_dim_known(want)) KC_TRY(kc_burn_sizes(c, g->s, both, 2));
  *fits = false;
  return KC_GO;
}

static kc_res give(giving *g, const kc_arg *d, const char *what, kc_val a, int depth, kc_val *out);

static kc_res give_table(giving *g, const kc_arg *d, const char *what, kc_val a, int depth, kc_val *out) {
  kc_cap *c = g->c;
  if (a.k != KC_V_TABLE || depth > MAX_DEEP) return refuse(g, what, "a table", a);
  uint32_t id = kc_table_new(c, g->s);
  for (uint32_t i = 0; i < d->n; i++) {
    const char *name = d->name[i];
    kc_val key = name ? kc_string(c, name, strlen(name)) : kc_int(d->key[i]), v;
    KC_TRY(kc_raw_get(c, g->s, a.id, key, &v));
    KC_TRY(give(g, &d->fields[i], kc_field_path(c, what, key), v, depth + 1, &v));
    kc_table_put(c, kc_table_write(c, g->s, id), key, v);
  }
  *out = kc_ref(KC_V_TABLE, id);
  return KC_GO;
}

/* The value of one argument. */
static kc_res give(giving *g, const kc_arg *d, const char *what, kc_val a, int depth, kc_val *out) {
  kc_cap *c = g->c;
  char text[KN_TYPE_TEXT];
  bool fits = true;
  a = kc_resolve(c, g->s, a);
  if (a.k == KC_V_UNION || a.k == KC_V_POISON)
    return kc_fail(c, "calls the Graph '%s' with a %s", g->name, kc_kind_name(a));
  if (d->kind == KC_ARG_TABLE) return give_table(g, d, what, a, depth, out);
  kn_vtype type = d->type;
  if (type.kind != KN_V_TENSOR) {
    KC_TRY(kc_give_scalar(c, a, type.kind, out));
    return out->k == KC_V_NONE ? refuse(g, what, kn_vtype_text(NULL, &type, text, sizeof text), a) : KC_GO;
  }
  for (int i = 0; i < type.tensor.rank; i++)
    if (d->sizes[i]) type.tensor.dims[i] = KN_DIM_UNKNOWN;
  kn_vtype_text(NULL, &type, text, sizeof text);
  if (!kc_is_tensor(a)) return refuse(g, what, text, a);
  const kn_type *is = &kc_tensor_value(c, g->s, a)->type.tensor;
  fits = is->dtype == type.tensor.dtype && is->rank == type.tensor.rank && is->device == type.tensor.device;
  for (int i = 0; fits && i < is->rank; i++) KC_TRY(give_size(g, d, i, is->dims[i], a, &fits));
  *out = a;
  return fits ? KC_GO : refuse(g, what, text, a);
}

typedef struct call_ud {
  kc_val f;
  const char *name;
  const kc_called *called;
  int n, want;
} call_ud;

static kc_res call_described(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const call_ud *x = ud;
  const kc_called *d = x->called;
  giving *g = kc_new(c, sizeof *g);
  *g = (giving){.c = c, .s = *s, .name = x->name};
  int given = x->n;
  while (given > d->ninputs && kc_resolve(c, *s, a[given - 1]).k == KC_V_NIL) given--; /* nil is nothing */
  if (given != d->ninputs)
    return kc_fail(c, "calls the Graph '%s', which takes %d argument%s, with %d", x->name, d->ninputs,
                   d->ninputs == 1 ? "" : "s", given);
  kc_val *v = kc_vals(c, given + 1);
  for (int i = 0; i < given; i++)
    KC_TRY(give(g, &d->inputs[i], kc_format(c, "argument %d", i + 1), a[i], 0, &v[i]));
  return kc_call(c, s, x->f, v, given, x->want, out);
}

kc_res kc_call_graph(kc_cap *c, kc_state **s, kc_val f, const kc_val *args, int n, int want, kc_values *out,
                     bool *done) {
  lua_State *L = c->L;
  kc_called called = {0};
  int top = lua_gettop(L);
  *done = false;
  if (f.k != KC_V_OBJECT || c->obj[f.id].type != LUA_TUSERDATA || !c->host->called) return KC_GO;
  luaL_checkstack(L, 20, "capture");
  kc_push_object(c, f.id);
  *done = c->host->called(L, top + 1, &called); /* pushes the function, and what holds the descriptions */
  if (!*done) {
    lua_settop(L, top);
    return KC_GO;
  }
  const char *name = c->obj[f.id].path ? c->obj[f.id].path : "?";
  if (called.graph) {
    lua_settop(L, top);
    return kc_call_nodes(c, s, f, called.graph, args, n, out);
  }
  call_ud x = {kc_import(c, top + 2, name), name, &called, n, want};
  if (!called.inputs) {
    lua_settop(L, top);
    return kc_call(c, s, x.f, args, n, want, out);
  }
  kc_val *a = kc_vals(c, n + 1);
  for (int i = 0; i < n; i++) a[i] = kc_resolve(c, *s, args[i]);
  kc_res r = kc_distribute(c, s, a, n, call_described, &x, out);
  lua_settop(L, top);
  return r;
}
