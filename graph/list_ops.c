/* What is computed of lists of tensors: stacked, and added element by element, as gradients of lists are. */
#include "core/device.h"
#include "core/infer.h"
#include "graph/list.h"
#include "graph/target.h"

/* a + b, or the one that there is. */
static kn_status sum(kn_context *ctx, kn_tensor *a, kn_tensor *b, kn_tensor **out) {
  if (!a || !b) {
    kn_tensor *one = a ? a : b;
    *out = one ? kn_tensor_retain(one) : NULL;
    return KN_OK;
  }
  bool grad = ctx->grad_enabled;
  ctx->grad_enabled = false;
  kn_status st = kn_apply(ctx, KN_OP_add, NULL, (kn_tensor *[]){a, b}, 2, out);
  ctx->grad_enabled = grad;
  return st;
}

static kn_status add_to(kn_context *ctx, kn_list *l, uint32_t i, kn_tensor *v) {
  kn_element e = {0};
  KN_TRY(sum(ctx, kn_list_at(l, i)->tensor, v, &e.tensor));
  kn_list_put(l, i, e);
  return KN_OK;
}

kn_status kn_list_sum(kn_context *ctx, kn_list *a, kn_list *b, kn_vkind kind, kn_list **out) {
  uint32_t n = kn_list_length(a), m = kn_list_length(b);
  if (!n || !m) {
    kn_list *one = n ? a : b;
    *out = one ? kn_list_retain(one) : NULL;
    return KN_OK;
  }
  if (n != m) return kn_fail(ctx, KN_SHAPE, "lists of %u and %u tensors cannot be added", n, m);
  kn_list *made;
  KN_TRY(kn_list_copy(ctx, a, kind, n, &made));
  kn_status st = KN_OK;
  for (uint32_t i = 0; st == KN_OK && i < n; i++) st = add_to(ctx, made, i, kn_list_at(b, i)->tensor);
  if (st == KN_OK)
    *out = made;
  else
    kn_list_release(made);
  return st;
}

kn_status kn_list_with(kn_context *ctx, kn_list *l, kn_vkind kind, int64_t n, int64_t i, kn_tensor *v,
                       kn_list **out) {
  uint32_t have = kn_list_length(l);
  if (i < 1 || i > n || n > UINT32_MAX || (have && have != n))
    return kn_fail(ctx, KN_INDEX, "element %lld of a list of %lld cannot be added to", (long long)i,
                   (long long)(have ? have : n));
  kn_list *made;
  KN_TRY(kn_list_copy(ctx, l, kind, (uint32_t)n, &made));
  kn_status st = add_to(ctx, made, (uint32_t)i - 1, v);
  if (st == KN_OK)
    *out = made;
  else
    kn_list_release(made);
  return st;
}

/* Row after row, by a header that moves. */
static kn_status fill_rows(kn_context *ctx, const kn_list *l, kn_tensor *made) {
  for (uint32_t i = 0; i < kn_list_length(l); i++) {
    kn_tensor *x = kn_list_at(l, i)->tensor, *row;
    KN_TRY(kn_tensor_symbolic(ctx, &x->type, NULL, &row));
    kn_strides_contiguous(&row->type, row->strides);
    row->storage = kn_storage_retain(made->storage);
    row->offset = (int64_t)i * kn_type_numel(&x->type);
    kn_status st = kn_node_copy(ctx, x, row);
    kn_tensor_release(row);
    KN_TRY(st);
  }
  return KN_OK;
}

kn_status kn_list_stack(kn_context *ctx, const kn_list *l, kn_tensor **out) {
  uint32_t count = kn_list_length(l);
  if (!count) return kn_fail(ctx, KN_SHAPE, "list_stack: the list is empty");
  const kn_tensor *first = kn_list_at(l, 0)->tensor;
  for (uint32_t i = 0; i < count; i++) {
    const kn_tensor *x = kn_list_at(l, i)->tensor;
    if (!x || !first || !kn_type_equal(&x->type, &first->type))
      return kn_fail(ctx, KN_SHAPE, "list_stack: tensor %u is not of the first one's sizes", i + 1);
  }
  kn_type t = kn_stacked(&(kn_vtype){.kind = KN_V_LIST, .tensor = first->type}).tensor;
  t.dims[0] = count;
  kn_tensor *made;
  KN_TRY(kn_tensor_new(ctx, &t, &made));
  kn_status st = fill_rows(ctx, l, made);
  if (st == KN_OK)
    *out = made;
  else
    kn_tensor_release(made);
  return st;
}
