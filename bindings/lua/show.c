/* tostring(t): nested braces as kiln.tensor reads them, columns aligned, the inside left out when long; then
 * the type. Only reads real tensors; makes text in Lua's buffers. */
#include "bindings/lua/state.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LONG = 1000, EDGE = 3 }; /* beyond LONG elements, EDGE items at both ends of each dimension */

typedef enum form { WHOLE, ROUND, FIXED, SCIENTIFIC } form; /* 1  1.0  1.2500  1.2500e-07 */

typedef struct show {
  const kn_tensor *t;
  luaL_Buffer *b;
  bool elide;
  form form;
  int width;
  double least, most; /* of the finite nonzero magnitudes shown */
  bool fraction;      /* some finite value shown is not whole */
} show;

static const void *place(const kn_tensor *t, int64_t at) {
  return (const char *)t->storage->data + at * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
}

static double element(const kn_tensor *t, int64_t at) {
  return kn_element_float(kn_tensor_dtype(t), place(t, at));
}

static int element_text(const show *s, int64_t at, char *buf, size_t size) {
  kn_dtype d = kn_tensor_dtype(s->t);
  if (d == KN_BOOL) return snprintf(buf, size, "%s", element(s->t, at) != 0 ? "true" : "false");
  if (!kn_dtype_is_float(d))
    return snprintf(buf, size, "%lld", (long long)kn_element_int(d, place(s->t, at)));
  double v = element(s->t, at);
  if (isnan(v)) return snprintf(buf, size, "nan");
  if (isinf(v)) return snprintf(buf, size, "%sinf", v < 0 ? "-" : "");
  if (s->form == SCIENTIFIC) return snprintf(buf, size, "%.4e", v);
  return snprintf(buf, size, s->form == FIXED ? "%.4f" : "%.1f", v);
}

/* Calls fn for each element shown. */
static void each(show *s, int dim, int64_t at, void (*fn)(show *, int64_t)) {
  if (dim == s->t->type.rank) {
    fn(s, at);
    return;
  }
  int64_t n = s->t->type.dims[dim];
  for (int64_t i = 0; i < n; i++) {
    if (s->elide && n > 2 * EDGE && i == EDGE) i = n - EDGE;
    each(s, dim + 1, at + i * s->t->strides[dim], fn);
  }
}

static void note_size(show *s, int64_t at) {
  double v = fabs(element(s->t, at));
  if (!isfinite(v)) return;
  if (v != floor(v)) s->fraction = true;
  if (v == 0) return;
  if (v < s->least) s->least = v;
  if (v > s->most) s->most = v;
}

static void note_width(show *s, int64_t at) {
  char buf[64];
  int n = element_text(s, at, buf, sizeof buf);
  if (n > s->width) s->width = n;
}

static void choose_form(show *s) {
  s->least = HUGE_VAL;
  each(s, 0, s->t->offset, note_size);
  s->form = s->fraction ? FIXED : ROUND;
  bool far =
      s->most >= 1e8 || (s->fraction && (s->most >= 1e6 || s->least < 1e-4 || s->most / s->least > 1e6));
  if (s->most > 0 && far) s->form = SCIENTIFIC;
  each(s, 0, s->t->offset, note_width);
}

static void add_element(show *s, int64_t at) {
  char buf[64];
  int n = element_text(s, at, buf, sizeof buf);
  for (int i = n; i < s->width; i++) luaL_addchar(s->b, ' ');
  luaL_addstring(s->b, buf);
}

static void add_nested(show *s, int dim, int64_t at) {
  int rank = s->t->type.rank;
  if (dim == rank) {
    add_element(s, at);
    return;
  }
  int64_t n = s->t->type.dims[dim];
  bool row = dim == rank - 1;
  luaL_addchar(s->b, '{');
  for (int64_t i = 0; i < n; i++) {
    if (i > 0) {
      luaL_addstring(s->b, row ? ", " : ",");
      for (int k = dim; !row && k < rank - 1; k++) luaL_addchar(s->b, '\n');
      for (int k = 0; !row && k <= dim; k++) luaL_addchar(s->b, ' ');
    }
    if (s->elide && n > 2 * EDGE && i == EDGE) {
      i = n - EDGE - 1;
      luaL_addstring(s->b, "...");
      continue;
    }
    add_nested(s, dim + 1, at + i * s->t->strides[dim]);
  }
  luaL_addchar(s->b, '}');
}

static void add_type(lua_State *L, luaL_Buffer *b, const kn_tensor *t) {
  char text[KN_TYPE_TEXT];
  luaL_addstring(b, kn_type_text(&t->type, text, sizeof text));
  if (t->type.device != KN_CPU) {
    luaL_addstring(b, " ");
    luaL_addstring(b, kn_device_name((kn_device_id)t->type.device));
  }
  const char *op = kn_grad_op(t);
  if (op) {
    lua_pushfstring(L, " from %s", op);
    luaL_addvalue(b);
  } else if (kn_requires_grad(t)) {
    luaL_addstring(b, " requires_grad");
  }
}

static int tensor_tostring(lua_State *L) {
  if (kl_is_released(L, 1)) { /* for whoever looks what it is */
    lua_pushliteral(L, "a tensor that was released");
    return 1;
  }
  kn_tensor *t = kl_check_tensor(L, 1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (t->storage) {
    show s = {.t = t, .b = &b, .elide = kn_tensor_numel(t) > LONG};
    if (kn_tensor_numel(t) > 0) choose_form(&s);
    add_nested(&s, 0, t->offset);
    luaL_addchar(&b, '\n');
  } else {
    luaL_addstring(&b, "a tensor known only when the graph runs: ");
  }
  add_type(L, &b, t);
  luaL_pushresult(&b);
  return 1;
}

void kl_open_show(lua_State *L) {
  kl_push_tensor_metatable(L);
  lua_pushcfunction(L, tensor_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
}
