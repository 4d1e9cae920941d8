/* Views derived again and written through: see view.h. */
#include "graph/view.h"
#include "core/device.h"
#include "core/kernels/kernel.h"
#include "graph/text.h"
#include <string.h>

static kn_value *only(const kn_node *n) { return n ? n->out[0] : NULL; }

static kn_value *add(kn_builder *b, kn_op op, const void *attrs, kn_value *x, kn_value *y) {
  if (!x) return NULL;
  return only(kn_add_op(b, op, attrs, (kn_value *[]){x, y}, y ? 2 : 1, NULL, 0));
}

/* The op with the view's attributes and the integers in them, on x (and y). */
static kn_value *alike(kn_builder *b, kn_op op, const kn_node *view, kn_value *const *in, kn_value *x,
                       kn_value *y) {
  return only(kn_add_op(b, op, view->attrs, (kn_value *[]){x, y}, y ? 2 : 1, in + view->ntensor,
                        view->nin - view->ntensor));
}

/* The place `at`, as a part of what the view is a part of. */
static const kn_where *part_of(kn_builder *b, const kn_where *view, const kn_where *at) {
  if (!view || !kn_where_composite(view)) return at;
  return kn_where_intern(b, view->chunk, view->line, part_of(b, view->at, at));
}

static kn_value *again(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base) {
  kn_value *tensors[KN_MAX_INPUTS];
  if (b->status != KN_OK || !base) return NULL;
  if (!in) in = view->in;
  for (uint32_t i = 0; i < view->ntensor && i < KN_MAX_INPUTS; i++) tensors[i] = in[i];
  tensors[0] = base;
  bool before = b->no_grad;
  b->no_grad = view->no_grad;
  kn_value *v = only(kn_add_op(b, (kn_op)view->op, view->attrs, tensors, view->ntensor, in + view->ntensor,
                               view->nin - view->ntensor));
  b->no_grad = before;
  if (v) kn_value_name(b, v, view->out[0]->name);
  return v;
}

kn_value *kn_view_again(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base) {
  const kn_where *at = b->where;
  b->where = part_of(b, view->where, at);
  kn_value *v = again(b, view, in, base);
  b->where = at;
  return v;
}

/* ---- putting ---- */

/* Any view: the places that it shows are those that a view of all places shows. */
static kn_value *put_by_places(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base,
                               kn_value *v) {
  static const kn_attrs_sizes line = {.sizes = {1, {-1}}};
  static const kn_attrs_axis first = {.dim = 0};
  const kn_attrs_value one = {.value = 1};
  const kn_attrs_cast integer = {.dtype = KN_I64};
  kn_value *ones = add(b, KN_OP_cast, &integer, add(b, KN_OP_full_like, &one, base, NULL), NULL);
  kn_value *places = add(b, KN_OP_cumsum, &first, add(b, KN_OP_reshape, &line, ones, NULL), NULL);
  kn_value *shown = kn_view_again(b, view, in, add(b, KN_OP_reshape_as, NULL, places, base));
  kn_value *at = add(b, KN_OP_reshape, &line, shown, NULL);
  kn_value *flat = add(b, KN_OP_reshape, &line, base, NULL), *src = add(b, KN_OP_reshape, &line, v, NULL);
  if (!at || !flat || !src) return NULL;
  kn_value *all = only(kn_add_op(b, KN_OP_scatter, &first, (kn_value *[]){flat, at, src}, 3, NULL, 0));
  return add(b, KN_OP_reshape_as, NULL, all, base);
}

static kn_value *permuted_back(kn_builder *b, const kn_node *view, kn_value *v) {
  const kn_attrs_axes *at = view->attrs;
  kn_attrs_axes back = {.dims.n = at->dims.n};
  for (int i = 0; i < at->dims.n; i++) {
    int64_t d = at->dims.v[i];
    back.dims.v[d < 0 ? d + at->dims.n : d] = i;
  }
  return add(b, KN_OP_permute, &back, v, NULL);
}

static kn_value *put(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base, kn_value *v) {
  if (b->status != KN_OK || !base || !v) return NULL;
  if (!in) in = view->in;
  switch ((kn_op)view->op) {
  case KN_OP_reshape:
  case KN_OP_reshape_as:
  case KN_OP_squeeze:
  case KN_OP_unsqueeze:
  case KN_OP_expand: /* of nothing that is repeated: kn_view_writable */
  case KN_OP_expand_as: return add(b, KN_OP_reshape_as, NULL, v, base);
  case KN_OP_transpose: return alike(b, KN_OP_transpose, view, in, v, NULL);
  case KN_OP_permute: return permuted_back(b, view, v);
  case KN_OP_select: return alike(b, KN_OP_select_put, view, in, base, v);
  case KN_OP_slice: return alike(b, KN_OP_slice_put, view, in, base, v);
  default: return put_by_places(b, view, in, base, v);
  }
}

kn_value *kn_view_put(kn_builder *b, const kn_node *view, kn_value *const *in, kn_value *base, kn_value *v) {
  const kn_where *at = b->where;
  b->where = part_of(b, view->where, at);
  kn_value *whole = put(b, view, in, base, v);
  b->where = at;
  return whole;
}

/* ---- where elements lie ---- */

static void note_placeholder(void *ud, int64_t *v) { *(bool *)ud |= kn_is_dyn(*v); }

bool kn_view_strides(kn_context *ctx, kn_op op, const void *attrs, const kn_tensor *x, const kn_type *type,
                     int64_t strides[KN_MAX_RANK], bool *sure) {
  kn_attrs_any copy = {0};
  bool open = false;
  *sure = true;
  if (op == KN_OP_reshape || op == KN_OP_reshape_as) return kn_reshape_strides(x, type, strides);
  if (attrs) memcpy(&copy, attrs, kn_attrs_describe(kn_ops[op].attrs).size);
  if (op == KN_OP_select) copy.select.index = 0; /* moves where it starts, nothing else */
  kn_attrs_each_int(kn_ops[op].attrs, &copy, note_placeholder, &open);
  *sure = !open;
  if (open) return false;
  /* the kernel itself works them out, of tensors that have nothing but a shape */
  kn_storage nothing = {.refs = 1000};
  kn_tensor from = {.refs = 1000, .storage = &nothing, .type = x->type}, to = from, *out = &to, *in = &from;
  memcpy(from.strides, x->strides, sizeof from.strides);
  to.type = *type;
  if (kn_ref_provider.kernel[op](ctx, &copy, &in, 1, &out) != KN_OK) {
    *sure = false;
    return false;
  }
  memcpy(strides, to.strides, sizeof to.strides);
  return true;
}

/* ---- may it be written to ---- */

static kn_status not_known(kn_context *ctx, const char *name) {
  return kn_fail(ctx, KN_CAPTURE,
                 "%s: whether elements of the view that is written to share memory depends on sizes that are "
                 "not known here; clone it first",
                 name);
}

kn_status kn_view_writable(kn_context *ctx, const char *name, const kn_node *view, const kn_type *base,
                           const kn_type *type) {
  if (view->op == KN_OP_expand || view->op == KN_OP_expand_as) {
    int lead = type->rank - base->rank;
    for (int d = 0; d < type->rank; d++) {
      int64_t from = d < lead ? 1 : base->dims[d - lead], to = type->dims[d];
      if (from == to && to != KN_DIM_UNKNOWN) continue;
      if (from == 1 && kn_dim_known(to) && to > 1)
        return kn_fail(ctx, KN_ARG,
                       "%s: cannot write to an expanded tensor (dim %d repeats one element); clone it first",
                       name, d + 1);
      if (from == 1 && !kn_dim_known(to)) return not_known(ctx, name);
    }
  }
  if (view->op == KN_OP_unfold) {
    const kn_attrs_unfold *a = view->attrs;
    if (kn_is_dyn(a->size) || kn_is_dyn(a->step)) return not_known(ctx, name);
    if (a->size <= a->step) return KN_OK;
    int64_t windows = type->dims[a->dim < 0 ? a->dim + base->rank : a->dim];
    if (!kn_dim_known(windows)) return not_known(ctx, name);
    if (windows > 1)
      return kn_fail(ctx, KN_ARG,
                     "%s: cannot write to a tensor some of whose elements are the same memory (overlapping "
                     "windows); clone it first",
                     name);
  }
  return KN_OK;
}
