/* Elementwise ops: chains of one step. */
#include "backends/cuda/chain.h"
#include "backends/cuda/entries.h"
#include "core/device.h"
#include <string.h>

static void take_shape(cu_chain *c, const kn_type *type) {
  c->rank = type->rank;
  memcpy(c->dims, type->dims, sizeof c->dims);
}

static kn_status elementwise(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                             kn_tensor *out) {
  cu_device *d;
  cu_chain c = {.rank = 0};
  int value[3];
  kn_type types[3];
  KN_TRY(cu_device_of(ctx, &d));
  take_shape(&c, &out->type);
  for (int i = 0; i < n; i++) {
    value[i] = cu_chain_input(&c, in[i]);
    types[i] = in[i]->type;
  }
  cu_chain_output(&c, cu_chain_elementwise(&c, op, attrs, value, types, n, kn_tensor_dtype(out)), out);
  return cu_chain_run(ctx, d, &c);
}

/* ---- what data may be at fault for ---- */

/* The first element, on the host: waits. */
static kn_status read_first(kn_context *ctx, const kn_tensor *t, void *to) {
  const kn_memory *m;
  if (t->type.device == KN_CPU) {
    memcpy(to, kn_tensor_data(t), kn_dtype_size(kn_tensor_dtype(t)));
    return KN_OK;
  }
  KN_TRY(kn_device_memory(ctx, (kn_device_id)t->type.device, &m));
  return m->copy(m->self, ctx, to, kn_tensor_data(t), kn_dtype_size(kn_tensor_dtype(t)), KN_TO_HOST);
}

/* Whether an element of t is 0: waits. */
static kn_status has_zero(kn_context *ctx, cu_device *d, const kn_tensor *t, bool *found) {
  cu_chain c = {.rank = 0};
  kn_type type = {.dtype = KN_BOOL, .device = KN_CUDA};
  kn_tensor *flag;
  const int64_t zero = 0;
  uint8_t read = 0;
  KN_TRY(kn_tensor_new(ctx, &type, &flag));
  take_shape(&c, &t->type);
  if (!c.rank) c.dims[c.rank++] = 1; /* what is folded is a row */
  c.over = c.rank;
  int is =
      cu_chain_step(&c, KN_OP_eq, NULL, (int[]){cu_chain_input(&c, t), cu_chain_number(&c, KN_I64, &zero)}, 2,
                    KN_I64, KN_BOOL);
  cu_operand result = {.dtype = KN_BOOL, .at = cu_address(flag)};
  cu_chain_result(&c, cu_chain_step(&c, KN_OP_any, NULL, &is, 1, KN_BOOL, KN_BOOL), &result);
  kn_status st = cu_chain_run(ctx, d, &c);
  if (st == KN_OK) st = read_first(ctx, flag, &read);
  kn_tensor_release(flag);
  *found = read != 0;
  return st;
}

static kn_status check_divisor(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_dtype dtype) {
  cu_device *d;
  bool found = false;
  if (kn_dtypes[dtype].category != KN_CAT_INT) return KN_OK;
  if (in[1]->type.device == KN_CPU) {
    found = kn_element_int(kn_tensor_dtype(in[1]), kn_tensor_data(in[1])) == 0;
  } else {
    KN_TRY(cu_device_of(ctx, &d));
    if (d->capturing) return KN_OK; /* a graph gives 0, or what C's casts make of it */
    KN_TRY(has_zero(ctx, d, in[1], &found));
  }
  return found ? kn_fail(ctx, KN_ARG, "%s: integer division by zero", kn_op_name(op)) : KN_OK;
}

static kn_status check_power(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_dtype dtype) {
  cu_device *d;
  uint64_t power = 0;
  kn_dtype of = kn_tensor_dtype(in[1]);
  if (kn_dtypes[dtype].category != KN_CAT_INT || in[1]->type.rank != 0) return KN_OK;
  KN_TRY(cu_device_of(ctx, &d));
  if (d->capturing && in[1]->type.device != KN_CPU) return KN_OK;
  KN_TRY(read_first(ctx, in[1], &power));
  if (kn_element_int(of, &power) >= 0) return KN_OK;
  return kn_fail(ctx, KN_ARG,
                 "%s: integers to negative integer powers are not allowed (got %s to the power %lld); make "
                 "the base or the power a float first",
                 kn_op_name(op), kn_dtype_name(kn_tensor_dtype(in[0])),
                 (long long)kn_element_int(of, &power));
}

/* ---- the ops ---- */

#define ELEMENTWISE(name)                                                                                    \
  CU_ENTRY(name) { return elementwise(ctx, KN_OP_##name, attrs, in, n, out[0]); }
#define CHECKED(name, check, ...)                                                                            \
  CU_ENTRY(name) {                                                                                           \
    KN_TRY(check(ctx, KN_OP_##name, in, kn_tensor_dtype(out[0])));                                           \
    return elementwise(ctx, KN_OP_##name, attrs, in, n, out[0]);                                             \
  }
#define MOVE(name) /* copy.c's */
#include "core/kernels/elementwise.def"
