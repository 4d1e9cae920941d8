/* Strings that depend on data: what tostring, string.format and .. make of graph values. Such a text is kept
 * as a format and its values until print, io.write, warn or error use it; everything else refuses it, or
 * burns in the arguments it is made of. Here too: those functions. See value.h (kc_text), graph/format.h. */
#include "lua/capture/text.h"
#include "lua/capture/handle.h"
#include "graph/format.h"
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* ---- texts ---- */

typedef struct builder { /* a text being put together: luaL_Buffer-like, in the arena */
  char *p;
  size_t n, cap;
  kc_val *v;
  uint32_t nv;
} builder;

static void put(kc_cap *c, builder *b, const char *s, size_t n) {
  if (n > b->cap - b->n) {
    size_t cap = b->cap ? b->cap : 64;
    while (cap - b->n < n) cap *= 2;
    char *p = kc_new(c, cap);
    if (b->n) memcpy(p, b->p, b->n);
    b->p = p;
    b->cap = cap;
  }
  if (n) memcpy(b->p + b->n, s, n);
  b->n += n;
}

static void put_value(kc_cap *c, builder *b, const char *directive, kc_val v) {
  put(c, b, directive, strlen(directive));
  b->v = kc_more(c, &c->arena, b->v, b->nv, sizeof *b->v);
  b->v[b->nv++] = v;
}

/* Text as it is: what would be a directive is escaped. */
static void put_plain(kc_cap *c, builder *b, const char *s, size_t n) {
  for (size_t i = 0; i < n; i++) {
    bool escape = s[i] == '%' || !s[i];
    put(c, b, escape ? s[i] ? "%%" : "%z" : s + i, escape ? 2 : 1);
  }
}

static void put_text(kc_cap *c, builder *b, kc_val a) { /* STRING or TEXT */
  if (a.k == KC_V_STRING) {
    put_plain(c, b, c->obj[a.id].s, c->obj[a.id].n);
    return;
  }
  const kc_obj *format = &c->obj[a.t->format];
  put(c, b, format->s, format->n);
  for (uint32_t i = 0; i < a.t->n; i++) put_value(c, b, "", a.t->v[i]);
}

static kc_val unescaped(kc_cap *c, const builder *b) {
  char *s = kc_new(c, b->n + 1);
  size_t n = 0;
  for (size_t i = 0; i < b->n; i++) {
    bool escape = b->p[i] == '%';
    i += escape;
    s[n++] = escape && b->p[i] == 'z' ? 0 : b->p[i];
  }
  return kc_string(c, s, n);
}

static kc_val finish(kc_cap *c, const builder *b) {
  if (!b->nv) return unescaped(c, b);
  kc_text *t = kc_new(c, sizeof *t);
  *t = (kc_text){kc_string(c, b->p, b->n).id, b->nv, b->v};
  return (kc_val){.k = KC_V_TEXT, .t = t};
}

kc_val kc_text_with(kc_cap *c, const kc_text *t, kc_val *v) {
  kc_text *to = kc_dup(c, t, sizeof *t);
  to->v = v;
  return (kc_val){.k = KC_V_TEXT, .t = to};
}

kc_val kc_caught_text(kc_cap *c, kn_value *number) {
  builder b = {0};
  put_value(c, &b, "%m", kc_sym(number));
  return finish(c, &b);
}

bool kc_is_text(kc_val a) { return a.k == KC_V_STRING || a.k == KC_V_TEXT || kc_is_number(a); }

/* What .. takes: strings, texts, numbers. */
static void put_operand(kc_cap *c, builder *b, kc_val a) {
  char buf[KN_SCALAR_TEXT];
  kn_scalar s = {KN_SCALAR_INT, {.i = a.i}};
  if (a.k == KC_V_SYM)
    put_value(c, b, "%s", a);
  else if (kc_is_concrete_number(a)) {
    if (a.k == KC_V_FLOAT) s = (kn_scalar){KN_SCALAR_FLOAT, {.f = a.f}};
    kn_scalar_text(&s, buf);
    put(c, b, buf, strlen(buf));
  } else
    put_text(c, b, a);
}

kc_val kc_join_texts(kc_cap *c, kc_val x, kc_val y) {
  builder b = {0};
  put_operand(c, &b, x);
  put_operand(c, &b, y);
  return finish(c, &b);
}

kc_res kc_settle_text(kc_cap *c, kc_val a) {
  if (a.k != KC_V_TEXT) return KC_GO;
  for (uint32_t i = 0; i < a.t->n; i++) KC_TRY(kc_burn(c, a.t->v[i]));
  return kc_fail(
      c, "a string depends on tensor data, and may only be printed, raised or returned; return the number "
         "and look at the text outside");
}

/* ---- tostring ---- */

static kc_res outside_text(kc_cap *c, kc_val a, kc_val *out) {
  uint32_t object = a.k == KC_V_TABLE     ? c->tab[a.id].object
                    : a.k == KC_V_CLOSURE ? c->clos[a.id].object
                                          : a.id;
  if (!object)
    return kc_fail(c, "the text of a %s that is made inside would be its address", kc_kind_name(a));
  kc_push_object(c, object);
  luaL_tolstring(c->L, -1, NULL); /* has no __tostring */
  *out = kc_import(c, -1, NULL);
  lua_pop(c->L, 2);
  return KC_GO;
}

kc_res kc_tostring(kc_cap *c, kc_state **s, kc_val a, kc_val *out) {
  kn_vkind kind;
  a = kc_resolve(c, *s, a);
  builder b = {0};
  if (a.k == KC_V_STRING || a.k == KC_V_TEXT)
    *out = a;
  else if (a.k == KC_V_SYM || kc_is_tensor(a)) {
    put_value(c, &b, "%s", kc_is_tensor(a) ? kc_sym(kc_tensor_value(c, *s, a)) : a);
    *out = finish(c, &b);
  } else if (a.k == KC_V_BOOL || a.k == KC_V_NIL) {
    const char *text = a.k == KC_V_NIL ? "nil" : a.i ? "true" : "false";
    *out = kc_string(c, text, strlen(text));
  } else if (kc_scalar_kind(a, &kind)) {
    put_operand(c, &b, a);
    *out = finish(c, &b);
  } else if (a.k == KC_V_UNION || a.k == KC_V_POISON || a.k == KC_V_NONE)
    return kc_fail(c, "makes a string of a %s", kc_kind_name(a));
  else {
    kc_val h;
    KC_TRY(kc_metafield(c, *s, a, "__tostring", &h));
    if (h.k == KC_V_NIL) return outside_text(c, a, out);
    KC_TRY(kc_call1(c, s, h, &a, 1, out));
    if (out->k != KC_V_STRING && out->k != KC_V_TEXT) return kc_raise(c, "'__tostring' must return a string");
  }
  return KC_GO;
}

static kc_res give_text(kc_cap *c, kc_val a, kc_values *out) {
  out->v = kc_vals(c, 1);
  out->v[0] = a;
  out->n = 1;
  return KC_GO;
}

static kc_res tostring_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  kc_val v;
  (void)ud;
  KC_TRY(kc_tostring(c, s, a[0], &v));
  return give_text(c, v, out);
}

kc_res kc_m_tostring(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  if (!n) return kc_complain(c, "bad argument #1 to 'tostring' (value expected)");
  return kc_distribute(c, s, a, 1, tostring_step, NULL, out);
}

/* ---- string.format ---- */

typedef struct format_ud {
  kc_val f;
  int n;
} format_ud;

/* One directive on a known value, argument number `which`, by the real function: those before it are %.0s, so
 * that errors count right. */
static kc_res format_known(kc_cap *c, kc_val f, const char *directive, kc_val v, int which, bool given,
                           kc_val *out) {
  builder b = {0};
  kc_val *args = kc_vals(c, which);
  kc_values made = {0};
  for (int i = 1; i < which - 1; i++) {
    put(c, &b, "%.0s", 4);
    args[i] = kc_string(c, "", 0);
  }
  put(c, &b, directive, strlen(directive));
  args[0] = kc_string(c, b.p, b.n);
  args[which - 1] = v;
  KC_TRY(kc_call_concrete(c, f, args, which - !given, &made));
  *out = made.v[0];
  return KC_GO;
}

/* %d of a float: an error where it is made, not where it is printed. */
static void check_integer(kc_cap *c, kc_val v, int which) {
  if (v.v->type.kind == KN_V_INT) return;
  kc_val whole = kc_sym(kc_emit(c, KN_NODE_lua_floor, 1, v, KC_NILV, KC_NILV));
  kc_val same = kc_sym(kc_emit(c, KN_NODE_lua_eq, 2, whole, v, KC_NILV));
  kc_val least = kc_sym(kc_emit(c, KN_NODE_lua_le, 2, kc_float(-0x1p63), v, KC_NILV));
  kc_val most = kc_sym(kc_emit(c, KN_NODE_lua_lt, 2, v, kc_float(0x1p63), KC_NILV));
  kc_val fits = kc_sym(kc_emit(c, KN_NODE_select, 3, least, most, kc_bool(false)));
  fits = kc_sym(kc_emit(c, KN_NODE_select, 3, fits, same, kc_bool(false)));
  char pos[200];
  kc_position(c, pos, sizeof pos);
  kn_add_raise(
      &c->b, KN_NODE_assert, fits.v,
      kc_format(c, "%s: bad argument #%d to 'format' (number has no integer representation)", pos, which));
}

static kc_res format_one(kc_cap *c, kc_state **s, const format_ud *x, const char *directive, kc_val v,
                         int which, builder *b) {
  char what = directive[strlen(directive) - 1];
  bool given = which <= x->n;
  kc_val made;
  if (given && what == 's') KC_TRY(kc_tostring(c, s, v, &v));
  if (v.k == KC_V_TEXT) {
    bool single = v.t->n == 1 && c->obj[v.t->format].n == 2;
    if (what != 's' || (directive[1] != 's' && !single)) return kc_settle_text(c, v);
    if (directive[1] == 's')
      put_text(c, b, v);
    else
      put_value(c, b, directive, v.t->v[0]);
    return KC_GO;
  }
  if (v.k == KC_V_SYM) {
    if (!kc_is_number(v))
      return kc_complain(c, "bad argument #%d to 'format' (number expected, got %s)", which, kc_type_name(v));
    if (!strchr("dixXoaAeEfgG", what)) {
      KC_TRY(kc_burn(c, v));
      return kc_fail(c, "'format' with '%%%c' of a %s", what, kc_kind_name(v));
    }
    KC_TRY(
        format_known(c, x->f, directive, kc_int(1), which, true, &made)); /* is the directive a good one? */
    if (strchr("dixXo", what)) check_integer(c, v, which);
    put_value(c, b, directive, v);
    return KC_GO;
  }
  KC_TRY(format_known(c, x->f, directive, v, which, given, &made));
  put_text(c, b, made);
  return KC_GO;
}

static kc_res format_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const format_ud *x = ud;
  builder b = {0};
  int which = 0;
  KC_TRY(kc_settle_text(c, a[0]));
  if (a[0].k != KC_V_STRING) return kc_call_concrete(c, x->f, a, x->n, out);
  const char *p = c->obj[a[0].id].s, *end = p + c->obj[a[0].id].n;
  while (p < end) {
    const char *at = memchr(p, '%', (size_t)(end - p));
    put_plain(c, &b, p, (size_t)((at ? at : end) - p));
    if (!at) break;
    if (at + 1 < end && at[1] == '%') {
      put(c, &b, "%%", 2);
      p = at + 2;
      continue;
    }
    char directive[32];
    size_t n = 1 + strspn(at + 1, "-+ #0123456789.");
    if (n > sizeof directive - 2) n = sizeof directive - 2;
    if (at + n < end) n++;
    memcpy(directive, at, n);
    directive[n] = 0;
    p = at + n;
    which++;
    KC_TRY(format_one(c, s, x, directive, which < x->n ? a[which] : KC_NILV, which + 1, &b));
  }
  return give_text(c, finish(c, &b), out);
}

kc_res kc_m_format(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  bool plain = true;
  for (int i = 0; i < n; i++)
    plain &=
        a[i].k == KC_V_NIL || a[i].k == KC_V_BOOL || a[i].k == KC_V_STRING || kc_is_concrete_number(a[i]);
  if (plain) return kc_call_concrete(c, f, a, n, out);
  format_ud x = {f, n};
  return kc_distribute(c, s, a, n, format_step, &x, out);
}

/* ---- printing ---- */

static void say(kc_cap *c, kn_opcode op, const builder *b) {
  char *text = kc_new(c, b->n + 1);
  if (b->n) memcpy(text, b->p, b->n);
  text[b->n] = 0;
  kn_value **in = kc_new(c, (b->nv + 1) * sizeof *in);
  for (uint32_t i = 0; i < b->nv; i++) in[i] = b->v[i].v;
  c->b.where = kc_where(c);
  kn_add_text(&c->b, op, text, in, b->nv); /* a failure sticks in the builder */
}

static kc_res print_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  int n = *(int *)ud;
  builder b = {0};
  for (int i = 0; i < n; i++) {
    kc_val v;
    if (i) put(c, &b, "\t", 1);
    KC_TRY(kc_tostring(c, s, a[i], &v));
    put_text(c, &b, v);
  }
  put(c, &b, "\n", 1);
  say(c, KN_NODE_print, &b);
  out->n = 0;
  return KC_GO;
}

kc_res kc_m_print(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  return kc_distribute(c, s, a, n, print_step, &n, out);
}

typedef struct write_ud {
  kn_opcode op;
  int n;
} write_ud;

static kc_res write_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  const write_ud *x = ud;
  builder b = {0};
  char buf[KN_SCALAR_TEXT];
  (void)s;
  out->n = 0;
  for (int i = 0; i < x->n; i++) {
    if (a[i].k == KC_V_SYM && kc_is_number(a[i]))
      put_value(c, &b, "%w", a[i]);
    else if (a[i].k == KC_V_FLOAT) {
      snprintf(buf, sizeof buf, "%.14g", a[i].f);
      put(c, &b, buf, strlen(buf));
    } else if (kc_is_text(a[i]))
      put_operand(c, &b, a[i]);
    else {
      if (b.n) say(c, x->op, &b); /* what comes before it is written */
      if (a[i].k == KC_V_POISON) return kc_fail(c, "writes a %s", kc_kind_name(a[i]));
      return kc_complain(c, "bad argument #%d to 'write' (string expected, got %s)", i + 1,
                         kc_type_name(a[i]));
    }
  }
  if (b.n) say(c, x->op, &b);
  return KC_GO;
}

/* The C stream behind a file object. */
static FILE *stream_of(kc_cap *c, int idx) {
  const luaL_Stream *s = luaL_testudata(c->L, idx, LUA_FILEHANDLE);
  return s && s->closef ? s->f : NULL;
}

static kc_res write_to(kc_cap *c, kc_state **s, kn_opcode op, kc_val file, kc_val *a, int n, kc_values *out) {
  write_ud x = {op, n};
  KC_TRY(kc_distribute(c, s, a, n, write_step, &x, out));
  return give_text(c, file, out);
}

kc_res kc_m_write(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  lua_getfield(c->L, LUA_REGISTRYINDEX, "_IO_output");
  bool usual = stream_of(c, -1) == stdout;
  kc_val file = usual ? kc_import(c, -1, "io.output()") : KC_NILV;
  lua_pop(c->L, 1);
  if (!usual) return kc_fail(c, "io.write while io.output() is another file; write to it outside");
  return write_to(c, s, KN_NODE_write, file, a, n, out);
}

kc_res kc_m_file_write(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  FILE *to = NULL;
  (void)f;
  if (n && a[0].k == KC_V_OBJECT) {
    kc_push_object(c, a[0].id);
    to = stream_of(c, -1);
    lua_pop(c->L, 1);
  }
  if (to != stdout && to != stderr)
    return kc_fail(c, "writes to a file, which cannot be captured; io.stdout and io.stderr can");
  kn_opcode op = to == stdout ? KN_NODE_print : KN_NODE_write_error;
  return write_to(c, s, op, a[0], a + 1, n - 1, out);
}

static kc_res warn_step(kc_cap *c, kc_state **s, kc_val *a, void *ud, kc_values *out) {
  int n = *(int *)ud;
  builder b = {0};
  (void)s;
  out->n = 0;
  for (int i = 0; i < n; i++) {
    if (a[i].k == KC_V_POISON) return kc_fail(c, "warns of a %s", kc_kind_name(a[i]));
    if (!kc_is_text(a[i]))
      return kc_complain(c, "bad argument #%d to 'warn' (string expected, got %s)", i + 1,
                         kc_type_name(a[i]));
    put_operand(c, &b, a[i]);
  }
  if (n > 1 && b.n && b.p[0] == '@')
    return kc_fail(c, "a warning of several pieces begins with '@'; begin it with another character");
  say(c, KN_NODE_warn, &b);
  return KC_GO;
}

kc_res kc_m_warn(kc_cap *c, kc_state **s, kc_val f, kc_val *a, int n, kc_values *out) {
  (void)f;
  if (!n) return kc_complain(c, "bad argument #1 to 'warn' (string expected, got no value)");
  return kc_distribute(c, s, a, n, warn_step, &n, out);
}

/* ---- raising ---- */

kn_node *kc_add_message(kc_cap *c, kn_opcode op, kn_value *cond, const char *before, kc_val message) {
  builder b = {0};
  if (cond) b.v = kc_more(c, &c->arena, b.v, b.nv, sizeof *b.v), b.v[b.nv++] = kc_sym(cond);
  bool with = message.k == KC_V_TEXT;
  if (with) {
    put_plain(c, &b, before, strlen(before));
    put_text(c, &b, message);
  } else {
    put(c, &b, before, strlen(before));
    put(c, &b, c->obj[message.id].s, c->obj[message.id].n);
  }
  kn_value **in = kc_new(c, (b.nv + 1) * sizeof *in);
  for (uint32_t i = 0; i < b.nv; i++) in[i] = b.v[i].v;
  char *text = kc_new(c, b.n + 1);
  if (b.n) memcpy(text, b.p, b.n);
  text[b.n] = 0;
  return kn_add_text(&c->b, op, text, in, b.nv);
}
