/* Keys of t[key] as places: see place.h. Integers, ranges, {} and "..." become basic ops, which give views.
 * Index tensors and masks pick: they are broadcast together, and where their dims are neighbours their common
 * shape stands in their place, else in front, as in PyTorch and NumPy. */
#include "bindings/lua/place.h"
#include "bindings/lua/args.h"
#include "core/composite.h"
#include "core/element.h"
#include "core/expr.h"
#include <stdio.h>
#include <string.h>

void *kl_newaxis(void) {
  static const char newaxis;
  return (void *)(uintptr_t)&newaxis;
}

void kl_place_free(kl_place *p) {
  kn_tensor_release(p->view);
  for (int d = 0; d < KN_MAX_RANK; d++) kn_tensor_release(p->list[d]);
}

static const char *const names[] = {"index",        "index: key 2",  "index: key 3",      "index: key 4",
                                    "index: key 5", "index: key 6",  "index: key 7",      "index: key 8",
                                    "index: key 9", "index: key 10", "index: a later key"};
enum { NAMES = sizeof names / sizeof *names };

const char *kl_place_name(int key) { return names[key < 1 ? 0 : key > NAMES ? NAMES - 1 : key - 1]; }

/* *t becomes op(*t); the old one is released. Of keys after the first, errors say which. */
static kn_status step(kn_context *ctx, int key, kn_op op, const void *attrs, kn_tensor **t) {
  kn_tensor *next;
  const kn_within index = {kl_place_name(key), ctx->within}, part = {KN_UNNAMED, &index};
  ctx->within = &part;
  kn_status st = kn_apply(ctx, op, attrs, t, 1, &next);
  ctx->within = index.up;
  if (st != KN_OK) {
    kn_error_unname(ctx, kn_op_name(op));
    kn_error_prefix(ctx, "%s", index.name);
    return st;
  }
  kn_tensor_release(*t);
  *t = next;
  return KN_OK;
}

/* ---- index tensors ---- */

typedef struct positions {
  int64_t size;
  int64_t *to;
  int64_t bad; /* out of range; 0: none */
} positions;

/* The elements of t in order, counted from 1, negative ones from the end. */
static void read_positions(const kn_tensor *t, int dim, int64_t at, positions *p) {
  if (dim < t->type.rank) {
    for (int64_t i = 0; i < t->type.dims[dim]; i++) read_positions(t, dim + 1, at + i * t->strides[dim], p);
    return;
  }
  kn_dtype d = kn_tensor_dtype(t);
  int64_t v = kn_element_int(d, (const char *)t->storage->data + at * (int64_t)kn_dtype_size(d));
  if ((v == 0 || v < -p->size || v > p->size) && !p->bad) p->bad = v ? v : INT64_MIN;
  *p->to++ = v < 0 ? v + p->size + 1 : v;
}

/* As index_select says it, when the graph runs. */
static kn_status out_of_range(kn_context *ctx, int64_t at, int dim, int64_t size, int key) {
  return kn_fail(ctx, KN_INDEX, "%s: index %lld is out of range for dim %d of size %lld (indices start at 1)",
                 kl_place_name(key), (long long)at, dim + 1, (long long)size);
}

/* A copy of real positions, checked and counted from 1. */
static kn_status real_positions(kn_context *ctx, const kn_tensor *index, int dim, int64_t size, int key,
                                kn_tensor **out) {
  kn_type type = index->type;
  type.dtype = KN_I64;
  kn_tensor *t;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  positions p = {.size = size, .to = kn_tensor_data(t)};
  read_positions(index, 0, index->offset, &p);
  if (!p.bad) {
    *out = t;
    return KN_OK;
  }
  kn_tensor_release(t);
  return out_of_range(ctx, p.bad == INT64_MIN ? 0 : p.bad, dim, size, key);
}

/* What picks from a tensor of a device may be given on the host. */
static kn_status beside(kn_context *ctx, const kl_place *p, kn_tensor *t, kn_tensor **out) {
  const kn_attrs_device to = {.device = p->view->type.device};
  if (t->type.device == KN_CPU && to.device != KN_CPU) return kn_apply(ctx, KN_OP_to_device, &to, &t, 1, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

static kn_status take_positions(kn_context *ctx, kl_place *p, kn_tensor *index, int dim, int key) {
  int64_t size = p->view->type.dims[dim];
  if (kn_tensor_dtype(index) != KN_I64 && kn_tensor_dtype(index) != KN_I32)
    return kn_fail(ctx, KN_DTYPE, "index: an index tensor must be int64, int32 or bool, not %s",
                   kn_dtype_name(kn_tensor_dtype(index)));
  if (index->storage && p->view->storage && !ctx->recorder && index->type.device == KN_CPU) {
    kn_tensor *checked = NULL;
    KN_TRY(real_positions(ctx, index, dim, size, key, &checked));
    kn_status st = beside(ctx, p, checked, &p->list[dim]);
    kn_tensor_release(checked);
    KN_TRY(st);
  } else {
    KN_TRY(beside(ctx, p, index, &p->list[dim]));
    p->key[dim] = key;
  }
  p->lists++;
  return KN_OK;
}

kn_status kl_place_fits(kn_context *ctx, kn_tensor *whole, kn_tensor *view, kn_tensor *mask, int dim,
                        int key) {
  kn_scope s;
  char sentence[80];
  snprintf(sentence, sizeof sentence, "index: the mask does not fit the dims from %d on", key + 1);
  kn_scope_open(&s, ctx);
  for (int i = 0; i < mask->type.rank && s.status == KN_OK; i++) {
    int64_t size = view->type.dims[dim + i];
    kn_ints wanted = {0};
    if (size == mask->type.dims[i] && size != KN_DIM_UNKNOWN) continue;
    kx_put_sizes(&s, view, dim + i, dim + i + 1, &wanted);
    if (s.status == KN_OK) kx_expect(&s, mask, i, wanted.v[0], sentence, whole, mask);
  }
  return kn_scope_close(&s, NULL, NULL);
}

/* Where a mask is true: a list of positions for each of its dims. */
static kn_status take_mask(kn_context *ctx, kl_place *p, kn_tensor *mask, int dim, int key) {
  int k = mask->type.rank;
  if (k == 0) return kn_fail(ctx, KN_SHAPE, "index: a mask without dimensions picks nothing; use where");
  KN_TRY(kl_place_fits(ctx, p->whole, p->view, mask, dim, key));
  kn_tensor *where, *near;
  KN_TRY(beside(ctx, p, mask, &near));
  kn_status st = kn_apply(ctx, KN_OP_nonzero, NULL, &near, 1, &where);
  kn_tensor_release(near);
  KN_TRY(st);
  for (int i = 0; i < k && st == KN_OK; i++) {
    kn_attrs_select column = {.dim = 1, .index = i};
    st = kn_apply(ctx, KN_OP_select, &column, &where, 1, &p->list[dim + i]);
    p->lists += st == KN_OK;
  }
  kn_tensor_release(where);
  return st;
}

/* ---- keys ---- */

typedef struct reader {
  lua_State *L;
  kn_context *ctx;
  kl_place *p;
  int dim; /* of the view, the next */
  int key; /* of the whole, the next */
  int nth; /* the key that is being read, from 1 */
} reader;

static kn_status too_many(const reader *r) {
  char text[KN_TYPE_TEXT];
  return kn_fail(r->ctx, KN_INDEX, "index: there are more keys than dimensions of %s",
                 kn_type_text(&r->p->whole->type, text, sizeof text));
}

static kn_status read_range(const reader *r, int idx, kn_attrs_slice *out) {
  size_t n = lua_rawlen(r->L, idx);
  if (n < 2 || n > 3)
    return kn_fail(r->ctx, KN_ARG, "index: a range is {first, last} or {first, last, step}, got %zu entr%s",
                   n, n == 1 ? "y" : "ies");
  int64_t v[3] = {0, 0, 1};
  static const char *const what[] = {"first", "last", "step"};
  static const kl_rule rules[] = {KL_POSITION, KL_LAST, KL_PLAIN};
  for (int i = 0; i < (int)n; i++) {
    lua_rawgeti(r->L, idx, i + 1);
    kn_status st = kl_read_int(r->L, r->ctx, -1, "index", what[i], rules[i], true, &v[i]);
    lua_pop(r->L, 1);
    if (st != KN_OK) return st;
  }
  *out = (kn_attrs_slice){.dim = r->dim, .start = v[0], .stop = v[1], .step = v[2]};
  return KN_OK;
}

static bool is_ellipsis(lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TSTRING && !strcmp(lua_tostring(L, idx), "...");
}

static bool is_newaxis(lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TLIGHTUSERDATA && lua_touserdata(L, idx) == kl_newaxis();
}

/* How many dims of the whole a key is for. */
static int dims_of(lua_State *L, int idx) {
  kn_tensor *t = kl_test_tensor(L, idx);
  if (is_newaxis(L, idx)) return 0;
  return t && kn_tensor_dtype(t) == KN_BOOL ? t->type.rank : 1;
}

static kn_status take_select(reader *r, int64_t index) {
  kn_attrs_select at = {.dim = r->dim, .index = index};
  r->key++;
  return step(r->ctx, r->nth, KN_OP_select, &at, &r->p->view);
}

static kn_status take_tensor(reader *r, kn_tensor *index) {
  if (kn_tensor_dtype(index) == KN_BOOL) {
    int k = index->type.rank;
    if (r->dim + k > r->p->view->type.rank) return too_many(r);
    KN_TRY(take_mask(r->ctx, r->p, index, r->dim, r->key));
    r->dim += k;
    r->key += k;
    return KN_OK;
  }
  if (index->type.rank == 0 && index->storage && !r->ctx->recorder) { /* a position, as a number is */
    kn_scalar at;
    KN_TRY(kn_scalar_of(r->ctx, index, &at));
    int64_t size = r->p->view->type.dims[r->dim];
    if (at.kind == KN_SCALAR_INT && (at.as.i == 0 || at.as.i < -size || at.as.i > size))
      return out_of_range(r->ctx, at.as.i, r->dim, size, r->nth);
    if (at.kind == KN_SCALAR_INT) return take_select(r, at.as.i > 0 ? at.as.i - 1 : at.as.i);
  }
  KN_TRY(take_positions(r->ctx, r->p, index, r->dim, r->nth));
  r->dim++;
  r->key++;
  return KN_OK;
}

static kn_status take_key(reader *r, int idx) {
  kl_place *p = r->p;
  kn_tensor *index = kl_test_tensor(r->L, idx);
  if (is_newaxis(r->L, idx)) {
    kn_attrs_axis at = {.dim = r->dim++};
    return step(r->ctx, r->nth, KN_OP_unsqueeze, &at, &p->view);
  }
  if (r->dim >= p->view->type.rank) return too_many(r);
  if (index) return take_tensor(r, index);
  if (lua_type(r->L, idx) == LUA_TTABLE) {
    kn_attrs_slice range;
    if (lua_rawlen(r->L, idx) > 0) { /* {}: all */
      KN_TRY(read_range(r, idx, &range));
      KN_TRY(step(r->ctx, r->nth, KN_OP_slice, &range, &p->view));
    }
    r->dim++;
    r->key++;
    return KN_OK;
  }
  int64_t at;
  kn_scalar symbol;
  kn_recorder *rec = kn_recorder_of(r->ctx);
  KN_TRY(kl_read_int(r->L, r->ctx, idx, "index", "position", KL_POSITION, true, &at));
  if (rec && rec->within && kl_test_scalar(r->L, idx, &symbol) && symbol.kind == KN_SCALAR_SYMBOL)
    KN_TRY(rec->within(rec, r->ctx, &symbol, p->view, r->dim, kl_place_name(r->nth)));
  return take_select(r, at);
}

/* "..." stands for as many {} as are missing. */
static kn_status skip_rest(reader *r, int idx, size_t n) {
  int used = 0, more = 0;
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(r->L, idx, (lua_Integer)i);
    more += is_ellipsis(r->L, -1);
    used += is_ellipsis(r->L, -1) ? 0 : dims_of(r->L, lua_gettop(r->L));
    lua_pop(r->L, 1);
  }
  int rest = r->p->whole->type.rank - used;
  if (more > 1) return kn_fail(r->ctx, KN_ARG, "index: \"...\" may stand once in a key");
  if (rest < 0) return too_many(r);
  r->dim += rest;
  r->key += rest;
  return KN_OK;
}

static kn_status read_keys(reader *r, int idx) {
  lua_State *L = r->L;
  kn_tensor *t = kl_test_tensor(L, idx);
  if (t && kn_tensor_dtype(t) == KN_BOOL && t->type.rank > 1 && t->type.rank <= r->p->view->type.rank) {
    r->p->mask = t;
    return KN_OK;
  }
  if (lua_type(L, idx) != LUA_TTABLE) return take_key(r, idx);
  size_t n = lua_rawlen(L, idx);
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i);
    r->nth = (int)i;
    kn_status st = is_ellipsis(L, -1) ? skip_rest(r, idx, n) : take_key(r, lua_gettop(L));
    lua_pop(L, 1); /* tensors stay in the key */
    if (st != KN_OK) return st;
  }
  return KN_OK;
}

kn_status kl_place_read(lua_State *L, kn_context *ctx, kn_tensor *t, int idx, kl_place *p) {
  *p = (kl_place){.whole = t, .view = kn_tensor_retain(t)};
  reader r = {L, ctx, p, 0, 0, 1};
  kn_status st = read_keys(&r, idx);
  /* A key that changes nothing still gives a view, not the tensor itself. */
  if (st == KN_OK && p->view == t && !p->lists && !p->mask && t->type.rank > 0) {
    kn_attrs_slice all = {.dim = 0, .start = 0, .stop = KN_TO_END, .step = 1};
    st = step(ctx, 1, KN_OP_slice, &all, &p->view);
  }
  if (st != KN_OK) kl_place_free(p);
  return st;
}
