/* tostring(t): nested braces as kiln.tensor reads them, one notation for all elements, columns aligned, rows
 * cut at the line's width, the inside left out when long; then the type. Reads only the elements it shows, of
 * real tensors; makes text in Lua's buffers. kiln.set_printoptions. */
#include "bindings/lua/state.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PRECISION = 30, TEXT = 352 }; /* the largest float64 has 309 digits before the point */

typedef enum form { ROUND, FIXED, SCIENTIFIC } form; /* 1.0  1.2500  1.2500e-07; whole numbers: 1 */

typedef struct show {
  const kn_tensor *t;
  const kl_print_options *how;
  luaL_Buffer *b;
  int64_t edge; /* items shown at both ends of a long dimension; 0: all are shown */
  form form;
  int width;
  double least, most; /* of the finite nonzero magnitudes shown */
  bool fraction;      /* some finite value shown is not whole */
} show;

/* ---- elements ---- */

static const void *place(const kn_tensor *t, int64_t at) {
  return (const char *)t->storage->data + at * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
}

static double element(const kn_tensor *t, int64_t at) {
  return kn_element_float(kn_tensor_dtype(t), place(t, at));
}

static int element_text(const show *s, int64_t at, char buf[TEXT]) {
  kn_dtype d = kn_tensor_dtype(s->t);
  if (d == KN_BOOL) return snprintf(buf, TEXT, "%s", kn_element_int(d, place(s->t, at)) ? "true" : "false");
  if (!kn_dtype_is_float(d))
    return snprintf(buf, TEXT, "%lld", (long long)kn_element_int(d, place(s->t, at)));
  double v = element(s->t, at);
  if (isnan(v)) return snprintf(buf, TEXT, "nan");
  if (isinf(v)) return snprintf(buf, TEXT, "%sinf", v < 0 ? "-" : "");
  if (s->form == SCIENTIFIC) return snprintf(buf, TEXT, "%.*e", s->how->precision, v);
  return snprintf(buf, TEXT, "%.*f", s->form == FIXED ? s->how->precision : 1, v);
}

/* ---- what is shown, and how ---- */

static bool is_cut(const show *s, int64_t n) { return s->edge > 0 && n > 2 * s->edge; }

static int64_t shown_items(const show *s) {
  int64_t count = 1;
  for (int i = 0; i < s->t->type.rank && count < INT32_MAX; i++) {
    int64_t n = s->t->type.dims[i];
    count *= is_cut(s, n) ? 2 * s->edge : n < INT32_MAX ? n : INT32_MAX;
  }
  return count;
}

/* Many short dimensions are much as well: then less of each is shown. */
static void choose_edge(show *s) {
  if (kn_tensor_numel(s->t) <= s->how->threshold) return;
  s->edge = s->how->edgeitems;
  while (s->edge > 1 && shown_items(s) > 4 * (s->how->threshold > 250 ? s->how->threshold : 250)) s->edge--;
}

/* Calls fn for each element shown. */
static void each(show *s, int dim, int64_t at, void (*fn)(show *, int64_t)) {
  if (dim == s->t->type.rank) {
    fn(s, at);
    return;
  }
  int64_t n = s->t->type.dims[dim];
  for (int64_t i = 0; i < n; i++) {
    if (i == s->edge && is_cut(s, n)) i = n - s->edge;
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
  char buf[TEXT];
  int n = element_text(s, at, buf);
  if (n > s->width) s->width = n;
}

/* Scientific when another notation would be long, or would lose the small values. */
static void choose_form(show *s) {
  s->least = HUGE_VAL;
  each(s, 0, s->t->offset, note_size);
  s->form = s->fraction ? FIXED : ROUND;
  bool far =
      s->most >= 1e8 || (s->fraction && (s->most >= 1e6 || s->least < 1e-4 || s->most / s->least > 1e6));
  if (s->how->sci_mode < 0 ? s->most > 0 && far : s->how->sci_mode) s->form = SCIENTIFIC;
  each(s, 0, s->t->offset, note_width);
}

/* ---- the text ---- */

static void add_spaces(luaL_Buffer *b, int64_t n) {
  while (n-- > 0) luaL_addchar(b, ' ');
}

static void add_element(show *s, int64_t at) {
  char buf[TEXT];
  int n = element_text(s, at, buf);
  add_spaces(s->b, s->width - n);
  luaL_addlstring(s->b, buf, (size_t)n);
}

/* Elements of the last dimension, as many a line as fit behind the braces. */
static void add_row(show *s, int dim, int64_t at) {
  int64_t n = s->t->type.dims[dim], step = s->t->strides[dim];
  int64_t line = (s->how->linewidth - dim - 1) / (s->width + 2), on_line = 0;
  luaL_addchar(s->b, '{');
  for (int64_t i = 0; i < n; i++) {
    if (i > 0 && on_line >= line) {
      luaL_addstring(s->b, ",\n");
      add_spaces(s->b, dim + 1);
      on_line = 0;
    } else if (i > 0)
      luaL_addstring(s->b, ", ");
    on_line++;
    if (i == s->edge && is_cut(s, n)) {
      luaL_addstring(s->b, "...");
      i = n - s->edge - 1;
    } else
      add_element(s, at + i * step);
  }
  luaL_addchar(s->b, '}');
}

static void add_nested(show *s, int dim, int64_t at) {
  int rank = s->t->type.rank;
  if (dim == rank) {
    add_element(s, at);
    return;
  }
  if (dim == rank - 1) {
    add_row(s, dim, at);
    return;
  }
  int64_t n = s->t->type.dims[dim];
  luaL_addchar(s->b, '{');
  for (int64_t i = 0; i < n; i++) {
    if (i > 0) {
      luaL_addchar(s->b, ',');
      for (int k = dim; k < rank - 1; k++) luaL_addchar(s->b, '\n');
      add_spaces(s->b, dim + 1);
    }
    if (i == s->edge && is_cut(s, n)) {
      luaL_addstring(s->b, "...");
      i = n - s->edge - 1;
    } else
      add_nested(s, dim + 1, at + i * s->t->strides[dim]);
  }
  luaL_addchar(s->b, '}');
}

static void add_elements(lua_State *L, luaL_Buffer *b, const kn_tensor *t) {
  kl_print_options how = kl_state_of(L)->print;
  if (!how.linewidth) how.linewidth = kl_state_of(L)->columns;
  show s = {.t = t, .how = &how, .b = b};
  if (kn_tensor_numel(t) == 0) {
    luaL_addstring(b, "{}");
  } else {
    choose_edge(&s);
    choose_form(&s);
    add_nested(&s, 0, t->offset);
  }
  luaL_addchar(b, '\n');
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
    kl_check(L, kn_read_data(kl_context(L), t));
    add_elements(L, &b, t);
  } else {
    luaL_addstring(&b, "a tensor known only when the graph runs: ");
  }
  add_type(L, &b, t);
  luaL_pushresult(&b);
  return 1;
}

/* ---- options ---- */

static const kl_print_options usual = {4, 3, 0, -1, 1000};

void kl_print_defaults(kl_state *s) {
  s->print = usual;
  s->columns = 80;
}

/* The options that are numbers. */
typedef struct option {
  const char *name;
  size_t at;
  lua_Integer least, most;
} option;

#define AT(field) offsetof(kl_print_options, field)
static const option options[] = {{"precision", AT(precision), 0, MAX_PRECISION},
                                 {"edgeitems", AT(edgeitems), 1, 1000000},
                                 {"linewidth", AT(linewidth), 1, 1000000},
                                 {"threshold", AT(threshold), 0, INT32_MAX}};
enum { OPTIONS = sizeof options / sizeof *options };

static int *field_of(kl_print_options *p, const option *o) { return (int *)(void *)((char *)p + o->at); }

static void set_option(lua_State *L, kl_print_options *p) { /* name at -2, value at -1 */
  const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
  for (int i = 0; i < OPTIONS; i++) {
    const option *o = &options[i];
    if (strcmp(name, o->name)) continue;
    int whole = 0;
    lua_Integer v = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (o->at == AT(threshold) && lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) == HUGE_VAL)
      v = INT32_MAX, whole = 1;
    if (!whole || v < o->least || v > o->most)
      kl_error(L, KN_ARG, "set_printoptions: %s must be an integer from %lld to %lld, got %s", name,
               (long long)o->least, (long long)o->most, whole ? lua_tostring(L, -1) : kl_kind(L, -1));
    *field_of(p, o) = (int)v;
    return;
  }
  if (!strcmp(name, "sci_mode")) {
    bool automatic = lua_type(L, -1) == LUA_TSTRING && !strcmp(lua_tostring(L, -1), "auto");
    if (!automatic && lua_type(L, -1) != LUA_TBOOLEAN)
      kl_error(L, KN_ARG, "set_printoptions: sci_mode must be true, false or \"auto\", got %s",
               kl_kind(L, -1));
    p->sci_mode = automatic ? -1 : lua_toboolean(L, -1);
    return;
  }
  if (!strcmp(name, "profile")) return; /* read before the others */
  kl_error(L, KN_ARG,
           "set_printoptions: there is no option '%s'; there are precision, threshold, edgeitems, linewidth, "
           "sci_mode, profile",
           name);
}

/* As torch: "default", "short" (two digits, less of long tensors), "full" (all elements). */
static void set_profile(lua_State *L, kl_print_options *p) { /* value at -1 */
  const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
  int width = p->linewidth;
  kl_print_options made = usual;
  if (!strcmp(name, "short")) {
    made.precision = 2;
    made.edgeitems = 2;
  } else if (!strcmp(name, "full"))
    made.threshold = INT32_MAX;
  else if (strcmp(name, "default"))
    kl_error(L, KN_ARG, "set_printoptions: profile must be \"default\", \"short\" or \"full\", got %s",
             *name ? name : kl_kind(L, -1));
  *p = made;
  if (strcmp(name, "default")) p->linewidth = width;
}

static int set_printoptions(lua_State *L) {
  kl_state *s = kl_state_of(L);
  kl_print_options made = s->print;
  if (lua_type(L, 1) != LUA_TTABLE)
    return kl_error(L, KN_ARG, "set_printoptions: a table of options is needed, got %s", kl_kind(L, 1));
  lua_settop(L, 1);
  if (lua_getfield(L, 1, "profile") != LUA_TNIL) set_profile(L, &made);
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) set_option(L, &made);
  s->print = made;
  return 0;
}

/* What is set, as set_printoptions takes it; linewidth only when it was given. */
static int get_printoptions(lua_State *L) {
  kl_print_options p = kl_state_of(L)->print;
  lua_createtable(L, 0, OPTIONS + 1);
  for (int i = 0; i < OPTIONS; i++) {
    if (options[i].at == AT(linewidth) && !p.linewidth) continue;
    lua_pushinteger(L, *field_of(&p, &options[i]));
    lua_setfield(L, -2, options[i].name);
  }
  if (p.sci_mode < 0)
    lua_pushliteral(L, "auto");
  else
    lua_pushboolean(L, p.sci_mode);
  lua_setfield(L, -2, "sci_mode");
  return 1;
}

void kl_set_columns(lua_State *L, int columns) { kl_state_of(L)->columns = columns; }

void kl_open_show(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"set_printoptions", set_printoptions}, {"get_printoptions", get_printoptions}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
  kl_push_tensor_metatable(L);
  lua_pushcfunction(L, tensor_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
}
