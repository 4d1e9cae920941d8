/* The recorder's numbers: items, sizes, positions, and what must hold of them when the graph runs. Checks are
 * asserts that say what eager code says. See record_numbers.h. */
#include "graph/record_numbers.h"
#include "core/device.h"
#include "graph/internal.h"
#include "graph/text.h"
#include <stdio.h>
#include <string.h>

/* The places of a composite's parts say which it was. */
const kn_where *kn_place_within(kn_builder *b, const kn_within *w, const kn_where *at) {
  char chunk[64];
  if (!w) return at;
  snprintf(chunk, sizeof chunk, "kiln/%.50s()", w->name);
  return kn_where_intern(b, chunk, 0, kn_place_within(b, w->up, at));
}

static kn_status give_symbol(kn_record *r, kn_value *v, kn_scalar *out) {
  if (!v) return r->b->status;
  *out = (kn_scalar){KN_SCALAR_SYMBOL, {.value = v}};
  return KN_OK;
}

kn_status kn_record_item(kn_recorder *base, kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  kn_record *r = (kn_record *)base;
  kn_value *v = kn_record_value(r, t);
  const kn_where *at = r->b->where;
  r->b->where = kn_place_within(r->b, ctx->within, at);
  kn_value *item = v ? kn_add_item(r->b, v) : NULL;
  r->b->where = at;
  return give_symbol(r, item, out);
}

kn_status kn_record_size(kn_recorder *base, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out) {
  (void)ctx;
  kn_record *r = (kn_record *)base;
  if (dim >= 0 && dim < t->type.rank && kn_dim_known(t->type.dims[dim])) {
    *out = (kn_scalar){KN_SCALAR_INT, {.i = t->type.dims[dim]}};
    return KN_OK;
  }
  if (t->value && r->see) return give_symbol(r, r->see(r->see_ud, t->value, dim), out);
  kn_value *v = kn_record_value(r, t);
  return give_symbol(r, v ? kn_add_size(r->b, v, dim) : NULL, out);
}

kn_status kn_record_to_tensor(kn_recorder *base, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                              kn_tensor **out) {
  kn_record *r = (kn_record *)base;
  const kn_where *at = r->b->where;
  r->b->where = kn_place_within(r->b, ctx->within, at);
  kn_value *v = kn_add_to_tensor(r->b, kn_add_const(r->b, *s), dtype);
  r->b->where = at;
  return v ? kn_record_tensor(r, v, out) : r->b->status;
}

kn_status kn_record_dynamic(kn_recorder *base, kn_context *ctx, const kn_scalar *s, int64_t *placeholder) {
  kn_record *r = (kn_record *)base;
  if (s->kind == KN_SCALAR_INT) {
    *placeholder = s->as.i;
    return KN_OK;
  }
  kn_value *v = s->kind == KN_SCALAR_SYMBOL ? s->as.value : NULL;
  if (!v || !kn_is_scalar(v->type.kind) || v->type.kind == KN_V_BOOL)
    return kn_fail(ctx, KN_ARG, "an integer is needed here, and this is no number");
  size_t have = r->ndyn; /* capacity: the next power of two, from 16 */
  if (have >= 16 ? !(have & (have - 1)) : have == 0) {
    size_t cap = have ? have * 2 : 16;
    kn_scalar *dyn = kn_realloc(ctx->heap, r->dyn, have * sizeof *dyn, cap * sizeof *dyn);
    if (!dyn) return kn_fail_nomem(ctx, cap * sizeof *dyn);
    r->dyn = dyn;
  }
  r->dyn[r->ndyn] = *s;
  *placeholder = KN_DYN(r->ndyn++);
  return KN_OK;
}

/* "f.lua:3: layer_norm: ": what stands before a text that stands alone. */
static void before_text(const kn_builder *b, const kn_within *in, char *buf, size_t size) {
  const kn_where *w = kn_where_user(b->where);
  size_t at = 0;
  buf[0] = 0;
  if (w && w->line > 0) at = (size_t)snprintf(buf, size, "%.150s:%d: ", w->chunk, w->line);
  const kn_within *outer[8];
  int n = 0;
  for (; in && n < 8; in = in->up) outer[n++] = in;
  while (n-- > 0 && at < size) at += (size_t)snprintf(buf + at, size - at, "%.40s: ", outer[n]->name);
}

/* Appends `by` to a text with values: % is doubled. */
static void put_plain(char *text, size_t size, const char *by) {
  size_t n = strlen(text);
  for (; *by && n + 3 < size; by++) {
    if (*by == '%') text[n++] = '%';
    text[n++] = *by;
  }
  text[n] = 0;
}

/* Appends a tensor's type; sizes that are not known are values of the text. */
static kn_status put_type(kn_recorder *base, kn_context *ctx, kn_tensor *t, char *text, size_t size,
                          kn_value **in, uint32_t *n) {
  put_plain(text, size, kn_dtype_name(kn_tensor_dtype(t)));
  put_plain(text, size, "[");
  for (int d = 0; d < t->type.rank; d++) {
    kn_scalar s;
    char number[24] = "%d";
    KN_TRY(kn_record_size(base, ctx, t, d, &s));
    if (s.kind == KN_SCALAR_SYMBOL)
      in[(*n)++] = s.as.value;
    else
      snprintf(number, sizeof number, "%lld", (long long)s.as.i);
    if (d) put_plain(text, size, ",");
    if (strlen(text) + sizeof number < size) strcat(text, number);
  }
  put_plain(text, size, "]");
  if (t->type.device != KN_CPU) {
    put_plain(text, size, "@");
    put_plain(text, size, kn_device_name((kn_device_id)t->type.device));
  }
  return KN_OK;
}

kn_status kn_record_expect(kn_recorder *base, kn_context *ctx, kn_tensor *t, int dim, int64_t wanted,
                           const char *sentence, kn_tensor *shown, kn_tensor *beside) {
  kn_record *r = (kn_record *)base;
  kn_builder *b = r->b;
  kn_scalar size = {KN_SCALAR_INT, {.i = wanted}};
  kn_value *in[1 + 2 * KN_MAX_RANK], *must;
  uint32_t n = 1;
  char text[900] = "", before[480];
  if (kn_is_dyn(wanted) && kn_dyn_index(wanted) >= r->ndyn)
    return kn_fail(ctx, KN_INTERNAL, "a size placeholder is unknown here");
  before_text(b, ctx->within, before, sizeof before);
  put_plain(text, sizeof text - 400, before);
  put_plain(text, sizeof text - 400, sentence);
  put_plain(text, sizeof text, " (got ");
  KN_TRY(put_type(base, ctx, shown, text, sizeof text, in, &n));
  if (beside) put_plain(text, sizeof text, ", ");
  if (beside) KN_TRY(put_type(base, ctx, beside, text, sizeof text, in, &n));
  put_plain(text, sizeof text, ")");
  must = kn_is_dyn(wanted) ? r->dyn[kn_dyn_index(wanted)].as.value : kn_add_const(b, size);
  KN_TRY(kn_record_size(base, ctx, t, dim, &size));
  kn_value *is = size.kind == KN_SCALAR_SYMBOL ? size.as.value : kn_add_const(b, size);
  in[0] = kn_add_scalar(b, KN_NODE_lua_eq, (kn_value *[]){is, must}, 2);
  kn_add_text(b, KN_NODE_assert, text, in, n);
  return b->status;
}

/* Positive positions are the common case, but which case it is is known only when the graph runs. */
kn_status kn_record_position(kn_recorder *base, kn_context *ctx, const char *what, const kn_scalar *s,
                             bool last, kn_scalar *out) {
  kn_record *r = (kn_record *)base;
  kn_builder *b = r->b;
  kn_value *v = s->kind == KN_SCALAR_SYMBOL ? s->as.value : NULL;
  if (!v || v->type.kind != KN_V_INT)
    return kn_fail(ctx, KN_ARG, "an integer is needed here, and this number is not known to be one");
  kn_value *zero = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = 0}});
  kn_value *one = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = 1}});
  kn_value *is_zero = kn_add_scalar(b, KN_NODE_lua_eq, (kn_value *[]){v, zero}, 2);
  kn_value *fine = kn_add_scalar(b, KN_NODE_lua_not, &is_zero, 1);
  char text[640], before[480];
  before_text(b, ctx->within, before, sizeof before);
  snprintf(text, sizeof text, "%.470s%.80s is 0, but counting starts at 1 (-1 is the last)", before, what);
  kn_add_raise(b, KN_NODE_assert, fine, text);
  kn_value *from_start = kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){zero, v}, 2);
  if (!last) {
    kn_value *less = kn_add_scalar(b, KN_NODE_lua_sub, (kn_value *[]){v, one}, 2);
    return give_symbol(r, kn_add_select(b, from_start, less, v), out);
  }
  kn_value *end = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = KN_TO_END}});
  kn_value *minus = kn_add_const(b, (kn_scalar){KN_SCALAR_INT, {.i = -1}});
  kn_value *is_last = kn_add_scalar(b, KN_NODE_lua_eq, (kn_value *[]){v, minus}, 2);
  kn_value *more = kn_add_scalar(b, KN_NODE_lua_add, (kn_value *[]){v, one}, 2);
  kn_value *back = kn_add_select(b, is_last, end, more);
  return give_symbol(r, kn_add_select(b, from_start, v, back), out);
}

/* As select refuses it, but whether somebody reads the result or not. */
kn_status kn_record_within(kn_recorder *base, kn_context *ctx, const kn_scalar *position, kn_tensor *part,
                           int dim, const char *name) {
  kn_record *r = (kn_record *)base;
  kn_builder *b = r->b;
  char text[900], before[480];
  kn_value *in[3 + KN_MAX_RANK];
  uint32_t n = 3;
  kn_scalar size;
  KN_TRY(kn_record_size(base, ctx, part, dim, &size));
  kn_value *far = kn_add_scalar(b, KN_NODE_lua_abs, &(kn_value *){kn_add_const(b, *position)}, 1);
  in[1] = kn_add_const(b, *position);
  in[2] = kn_add_const(b, size);
  in[0] = kn_add_scalar(b, KN_NODE_lua_le, (kn_value *[]){far, in[2]}, 2);
  before_text(b, ctx->within, before, sizeof before);
  text[0] = 0;
  put_plain(text, sizeof text - 200, before);
  put_plain(text, sizeof text - 200, name);
  size_t at = strlen(text);
  snprintf(text + at, sizeof text - at, ": index %%d is out of range for dim %d of size %%d (got ", dim + 1);
  KN_TRY(put_type(base, ctx, part, text, sizeof text, in, &n));
  put_plain(text, sizeof text, ")");
  kn_add_text(b, KN_NODE_assert, text, in, n);
  return b->status;
}
