/* t[key] and t[key] = value. A key becomes basic ops (select, slice: views) and at most one list of
 * positions, which picks (index_select) or replaces (index_copy). String keys are methods and fields. */
#include "bindings/lua/args.h"
#include "core/grad/tape.h"
#include <string.h>

/* What a key has come to: a view of the tensor and, if `list`, positions along `dim` of it, or a mask. */
typedef struct place {
  kn_tensor *whole; /* borrowed: what is indexed */
  kn_tensor *view;  /* owned */
  kn_tensor *list;  /* owned int64 positions of rank 1, or NULL */
  kn_tensor *shape; /* borrowed index tensor whose shape the result takes at dim; NULL: rank 1 */
  kn_tensor *mask;  /* borrowed bool mask over the leading dims; NULL: none */
  int dim;
} place;

static void place_free(place *p) {
  kn_tensor_release(p->view);
  kn_tensor_release(p->list);
}

/* *t becomes op(*t); the old one is released. */
static kn_status step(kn_context *ctx, kn_op op, const void *attrs, kn_tensor **t) {
  kn_tensor *next;
  KN_TRY(kn_apply(ctx, op, attrs, t, 1, &next));
  kn_tensor_release(*t);
  *t = next;
  return KN_OK;
}

/* ---- reading keys ---- */

static kn_status read_range(lua_State *L, kn_context *ctx, int idx, int64_t dim, kn_attrs_slice *out) {
  size_t n = lua_rawlen(L, idx);
  if (n < 2 || n > 3)
    return kn_fail(ctx, KN_ARG, "index: a range is {first, last} or {first, last, step}, got %zu entr%s", n,
                   n == 1 ? "y" : "ies");
  int64_t v[3] = {0, 0, 1};
  static const char *const what[] = {"first", "last", "step"};
  static const kl_rule rules[] = {KL_POSITION, KL_LAST, KL_PLAIN};
  for (int i = 0; i < (int)n; i++) {
    lua_rawgeti(L, idx, i + 1);
    kn_status st = kl_read_int(L, ctx, -1, "index", what[i], rules[i], true, &v[i]);
    lua_pop(L, 1);
    if (st != KN_OK) return st;
  }
  *out = (kn_attrs_slice){.dim = dim, .start = v[0], .stop = v[1], .step = v[2]};
  return KN_OK;
}

/* The positions where a mask of rank 1 is true. */
static kn_status mask_positions(kn_context *ctx, kn_tensor *mask, kn_tensor **out) {
  kn_tensor *where;
  kn_attrs_optional_axis last = {.dim = 1};
  KN_TRY(kn_apply(ctx, KN_OP_nonzero, NULL, &mask, 1, &where));
  kn_status st = kn_apply(ctx, KN_OP_squeeze, &last, &where, 1, out);
  kn_tensor_release(where);
  return st;
}

static kn_status take_list(kn_context *ctx, place *p, kn_tensor *index) {
  if (p->list || p->mask)
    return kn_fail(ctx, KN_UNSUPPORTED, "index: one index tensor at a time; use gather, or index in steps");
  if (kn_tensor_dtype(index) == KN_BOOL) {
    if (index->type.rank != 1)
      return kn_fail(ctx, KN_SHAPE, "index: a mask within a table of keys must have 1 dimension, not %d",
                     index->type.rank);
    int64_t wanted = p->view->type.dims[p->dim], got = index->type.dims[0];
    if (kn_dim_known(wanted) && kn_dim_known(got) && wanted != got)
      return kn_fail(ctx, KN_SHAPE, "index: a mask of %lld does not fit dimension %d, of size %lld",
                     (long long)got, p->dim + 1, (long long)wanted);
    return mask_positions(ctx, index, &p->list);
  }
  if (kn_tensor_dtype(index) != KN_I64 && kn_tensor_dtype(index) != KN_I32)
    return kn_fail(ctx, KN_DTYPE, "index: an index tensor must be int64, int32 or bool, not %s",
                   kn_dtype_name(kn_tensor_dtype(index)));
  p->shape = index;
  if (index->type.rank == 1) {
    p->list = kn_tensor_retain(index);
    return KN_OK;
  }
  kn_attrs_sizes flat = {.sizes = {1, {-1}}};
  return kn_apply(ctx, KN_OP_reshape, &flat, &index, 1, &p->list);
}

/* One key for dimension *dim of the view; moves *dim past it. */
static kn_status take_key(lua_State *L, kn_context *ctx, int idx, place *p, int *dim) {
  kn_tensor *index = kl_test_tensor(L, idx);
  char text[KN_TYPE_TEXT];
  if (*dim >= p->view->type.rank)
    return kn_fail(ctx, KN_INDEX, "index: there are more keys than dimensions of %s",
                   kn_type_text(&p->whole->type, text, sizeof text));
  if (index) {
    p->dim = (*dim)++;
    return take_list(ctx, p, index);
  }
  if (lua_type(L, idx) == LUA_TTABLE) {
    int64_t d = (*dim)++;
    kn_attrs_slice range;
    if (lua_rawlen(L, idx) == 0) return KN_OK; /* {}: all */
    KN_TRY(read_range(L, ctx, idx, d, &range));
    return step(ctx, KN_OP_slice, &range, &p->view);
  }
  kn_attrs_select at = {.dim = *dim};
  KN_TRY(kl_read_int(L, ctx, idx, "index", "position", KL_POSITION, true, &at.index));
  return step(ctx, KN_OP_select, &at, &p->view);
}

static kn_status read_keys(lua_State *L, kn_context *ctx, int idx, place *p) {
  int dim = 0;
  if (lua_type(L, idx) != LUA_TTABLE) {
    kn_tensor *mask = kl_test_tensor(L, idx);
    if (!mask || kn_tensor_dtype(mask) != KN_BOOL || mask->type.rank == 1)
      return take_key(L, ctx, idx, p, &dim);
    p->mask = mask;
    return KN_OK;
  }
  size_t n = lua_rawlen(L, idx);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i + 1);
    kn_status st = take_key(L, ctx, lua_gettop(L), p, &dim);
    lua_pop(L, 1); /* tensors stay in the key */
    if (st != KN_OK) return st;
  }
  return KN_OK;
}

static kn_status find_place(lua_State *L, kn_context *ctx, kn_tensor *t, int idx, place *p) {
  *p = (place){.whole = t, .view = kn_tensor_retain(t)};
  kn_status st = read_keys(L, ctx, idx, p);
  /* A key that changes nothing still gives a view, not the tensor itself. */
  if (st == KN_OK && p->view == t && !p->list && !p->mask && t->type.rank > 0) {
    kn_attrs_slice all = {.dim = 0, .start = 0, .stop = KN_TO_END, .step = 1};
    st = step(ctx, KN_OP_slice, &all, &p->view);
  }
  if (st != KN_OK) place_free(p);
  return st;
}

/* ---- reading elements ---- */

/* Rows where a mask over the leading dims is true: those dims made one, then picked. */
static kn_status pick_masked(kn_context *ctx, const place *p, kn_tensor **out) {
  kn_tensor *t = p->view, *mask = p->mask;
  if (mask->type.rank >= t->type.rank)
    return kn_apply(ctx, KN_OP_masked_select, NULL, (kn_tensor *[]){t, mask}, 2, out);
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  for (int i = 0; i < mask->type.rank; i++)
    if (kn_dim_known(t->type.dims[i]) && kn_dim_known(mask->type.dims[i]) &&
        t->type.dims[i] != mask->type.dims[i])
      return kn_fail(ctx, KN_SHAPE, "index: the mask %s does not fit the first dimensions of %s",
                     kn_type_text(&mask->type, a, sizeof a), kn_type_text(&t->type, b, sizeof b));
  kn_attrs_flatten lead = {.start_dim = 0, .end_dim = mask->type.rank - 1};
  kn_attrs_sizes line = {.sizes = {1, {-1}}};
  kn_attrs_axis first = {.dim = 0};
  kn_tensor *rows = NULL, *flat = NULL, *at = NULL;
  kn_status st = kn_apply(ctx, KN_OP_flatten, &lead, &t, 1, &rows);
  if (st == KN_OK) st = kn_apply(ctx, KN_OP_reshape, &line, &mask, 1, &flat);
  if (st == KN_OK) st = mask_positions(ctx, flat, &at);
  if (st == KN_OK) st = kn_apply(ctx, KN_OP_index_select, &first, (kn_tensor *[]){rows, at}, 2, out);
  kn_tensor_release(rows);
  kn_tensor_release(flat);
  kn_tensor_release(at);
  return st;
}

static kn_status pick_listed(kn_context *ctx, const place *p, kn_tensor **out) {
  kn_attrs_axis along = {.dim = p->dim};
  KN_TRY(kn_apply(ctx, KN_OP_index_select, &along, (kn_tensor *[]){p->view, p->list}, 2, out));
  if (!p->shape || p->shape->type.rank == 1) return KN_OK;
  /* an index of another rank: its shape stands where the dimension was */
  int extra = p->shape->type.rank, rank = p->view->type.rank;
  kn_attrs_sizes to = {.sizes = {.n = rank - 1 + extra}};
  kn_status st = KN_OK;
  if (to.sizes.n > KN_MAX_RANK)
    st = kn_fail(ctx, KN_SHAPE, "index: the result would have %d dimensions", to.sizes.n);
  for (int i = 0; st == KN_OK && i < to.sizes.n; i++) {
    bool inside = i >= p->dim && i < p->dim + extra;
    kn_tensor *from = inside ? p->shape : p->view;
    int d = inside ? i - p->dim : i < p->dim ? i : i - extra + 1;
    kn_scalar size;
    st = kn_size(ctx, from, d, &size);
    if (st == KN_OK && size.kind == KN_SCALAR_SYMBOL)
      st = ctx->recorder->dynamic(ctx->recorder, ctx, &size, &to.sizes.v[i]);
    else if (st == KN_OK)
      to.sizes.v[i] = size.as.i;
  }
  if (st == KN_OK) return step(ctx, KN_OP_reshape, &to, out);
  kn_tensor_release(*out);
  return st;
}

static kn_status get_elements(lua_State *L, kn_context *ctx, kn_tensor *t, int idx, kn_tensor **out) {
  place p;
  KN_TRY(find_place(L, ctx, t, idx, &p));
  kn_status st = KN_OK;
  if (p.mask)
    st = pick_masked(ctx, &p, out);
  else if (p.list)
    st = pick_listed(ctx, &p, out);
  else
    *out = kn_tensor_retain(p.view);
  place_free(&p);
  return st;
}

/* Upvalues: methods, fields. */
static int tensor_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TNIL) return 1;
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
  }
  kn_context *ctx = kl_context(L);
  kn_tensor *t = kl_check_tensor(L, 1), *out;
  kn_tensor **slot = kl_reserve_tensor(L);
  kl_check(L, get_elements(L, ctx, t, 2, &out));
  kl_fill_tensor(L, slot, out);
  return 1;
}

/* ---- writing elements ---- */

/* The right-hand side: a tensor, a number, or a table of numbers. */
static kn_status read_value(lua_State *L, kn_context *ctx, kn_tensor *beside, int idx, kn_tensor **out) {
  kn_tensor *t = kl_test_tensor(L, idx);
  kn_scalar s;
  if (t)
    *out = kn_tensor_retain(t);
  else if (kl_test_scalar(L, idx, &s))
    return kn_scalar_tensor(ctx, &s, kn_tensor_dtype(beside), out);
  else if (lua_type(L, idx) == LUA_TTABLE)
    return kl_read_tensor(L, ctx, idx, kn_tensor_dtype(beside), out);
  else
    return kn_fail(ctx, KN_ARG, "index: the new value must be a tensor, a number or a table, got %s",
                   kl_kind(L, idx));
  return KN_OK;
}

static kn_status overwrite(kn_context *ctx, kn_tensor *view, kn_tensor *value) {
  kn_tensor *same;
  KN_TRY(kn_apply(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){view, value}, 2, &same));
  kn_tensor_release(same);
  return KN_OK;
}

/* A value for each place: as the view with `dim` as long as the list. */
static kn_status spread_value(kn_context *ctx, const place *p, kn_tensor *value, kn_tensor **out) {
  kn_tensor *picked, *cast;
  kn_attrs_axis along = {.dim = p->dim};
  kn_attrs_cast to = {.dtype = kn_tensor_dtype(p->view)};
  KN_TRY(kn_apply(ctx, KN_OP_index_select, &along, (kn_tensor *[]){p->view, p->list}, 2, &picked));
  kn_status st = kn_apply(ctx, KN_OP_cast, &to, &value, 1, &cast);
  if (st == KN_OK) {
    st = kn_apply(ctx, KN_OP_expand_as, NULL, (kn_tensor *[]){cast, picked}, 2, out);
    kn_tensor_release(cast);
  }
  kn_tensor_release(picked);
  return st;
}

static kn_status set_listed(kn_context *ctx, const place *p, kn_tensor *value) {
  kn_tensor *src, *all;
  kn_attrs_axis along = {.dim = p->dim};
  if (p->shape && p->shape->type.rank != 1)
    return kn_fail(ctx, KN_UNSUPPORTED, "index: assigning needs an index tensor of 1 dimension, not %d",
                   p->shape->type.rank);
  KN_TRY(spread_value(ctx, p, value, &src));
  kn_status st = kn_apply(ctx, KN_OP_index_copy, &along, (kn_tensor *[]){p->view, p->list, src}, 3, &all);
  kn_tensor_release(src);
  KN_TRY(st);
  st = overwrite(ctx, p->view, all);
  kn_tensor_release(all);
  return st;
}

/* One value everywhere: where. As many values as the mask has places: put there in order. */
static kn_status set_masked(kn_context *ctx, place *p, kn_tensor *value) {
  kn_tensor *mask = p->mask, *all = NULL, *cast = NULL;
  kn_attrs_cast to = {.dtype = kn_tensor_dtype(p->view)};
  KN_TRY(kn_apply(ctx, KN_OP_cast, &to, &value, 1, &cast));
  kn_status st = KN_OK;
  while (st == KN_OK &&
         mask->type.rank < p->view->type.rank) { /* a mask of leading dims: for all that follow */
    kn_attrs_axis last = {.dim = -1};
    kn_tensor *wider;
    st = kn_apply(ctx, KN_OP_unsqueeze, &last, &mask, 1, &wider);
    if (st != KN_OK) break;
    if (mask != p->mask) kn_tensor_release(mask);
    mask = wider;
  }
  if (st == KN_OK && value->type.rank == 0) {
    st = kn_apply(ctx, KN_OP_where, NULL, (kn_tensor *[]){mask, cast, p->view}, 3, &all);
  } else if (st == KN_OK) {
    kn_tensor *full = NULL, *line = NULL, *flat = NULL, *put = NULL;
    kn_attrs_sizes one = {.sizes = {1, {-1}}};
    place q = {.dim = 0};
    st = kn_apply(ctx, KN_OP_expand_as, NULL, (kn_tensor *[]){mask, p->view}, 2, &full);
    if (st == KN_OK) st = kn_apply(ctx, KN_OP_reshape, &one, &full, 1, &line);
    if (st == KN_OK) st = mask_positions(ctx, line, &q.list);
    if (st == KN_OK) st = kn_apply(ctx, KN_OP_reshape, &one, &p->view, 1, &flat);
    if (st == KN_OK) st = step(ctx, KN_OP_reshape, &one, &cast);
    if (st == KN_OK) {
      kn_attrs_axis first = {.dim = 0};
      st = kn_apply(ctx, KN_OP_index_copy, &first, (kn_tensor *[]){flat, q.list, cast}, 3, &put);
    }
    if (st == KN_OK) st = kn_apply(ctx, KN_OP_reshape_as, NULL, (kn_tensor *[]){put, p->view}, 2, &all);
    kn_tensor_release(full);
    kn_tensor_release(line);
    kn_tensor_release(flat);
    kn_tensor_release(put);
    kn_tensor_release(q.list);
  }
  if (mask != p->mask) kn_tensor_release(mask);
  kn_tensor_release(cast);
  KN_TRY(st);
  st = overwrite(ctx, p->view, all);
  kn_tensor_release(all);
  return st;
}

static kn_status set_elements(lua_State *L, kn_context *ctx, kn_tensor *t, int key, int value) {
  place p;
  kn_tensor *v;
  KN_TRY(read_value(L, ctx, t, value, &v));
  kn_status st = find_place(L, ctx, t, key, &p);
  if (st == KN_OK) {
    if (p.mask)
      st = set_masked(ctx, &p, v);
    else if (p.list)
      st = set_listed(ctx, &p, v);
    else
      st = overwrite(ctx, p.view, v);
    place_free(&p);
  }
  kn_tensor_release(v);
  return st;
}

static int set_field(lua_State *L, kn_tensor *t) {
  kn_context *ctx = kl_context(L);
  const char *name = lua_tostring(L, 2);
  if (!strcmp(name, "requires_grad")) {
    if (lua_type(L, 3) != LUA_TBOOLEAN)
      return kl_error(L, KN_ARG, "requires_grad must be true or false, got %s", kl_kind(L, 3));
    kl_check(L, kn_set_requires_grad(ctx, t, lua_toboolean(L, 3)));
    return 0;
  }
  if (!strcmp(name, "grad")) {
    kn_tensor *g = kl_test_tensor(L, 3);
    if (!g && !lua_isnil(L, 3))
      return kl_error(L, KN_ARG, "grad must be a tensor or nil, got %s", kl_kind(L, 3));
    kl_check(L, kn_set_grad(ctx, t, g));
    return 0;
  }
  return kl_error(L, KN_ARG, "a tensor has no field '%s' that can be set", name);
}

static int tensor_newindex(lua_State *L) {
  kn_tensor *t = kl_check_tensor(L, 1);
  if (lua_type(L, 2) == LUA_TSTRING) return set_field(L, t);
  kl_check(L, set_elements(L, kl_context(L), t, 2, 3));
  return 0;
}

void kl_open_index(lua_State *L) {
  kl_push_tensor_metatable(L);
  kl_push_methods(L);
  lua_getfield(L, -2, "fields");
  lua_pushcclosure(L, tensor_index, 2);
  kl_mark_engine(L, -1);
  lua_setfield(L, -2, "__index");
  static const luaL_Reg set[] = {{"__newindex", tensor_newindex}, {NULL, NULL}};
  kl_set_engine_functions(L, set);
  lua_pop(L, 1);
}
