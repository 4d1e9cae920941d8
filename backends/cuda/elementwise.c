/* Elementwise ops: chains of one step. */
#include "backends/cuda/chain.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/fault.h"
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

/* ---- what integers may not do ---- */

CU_ARGUMENT(judging, {
  const void *at;
  cu_site site;
});

/* A flag that some element is 0; a power below 0, which is told. */
/* clang-format off */
static const char judge_source[] = CU_SOURCE(
    KERNEL(256, zero)(judging q) {
      if (BLOCK == 0 && THREAD == 0 && *(const I *)q.at) note_fault(q.site, 0, 0);
    }
    KERNEL(256, negative)(judging q) {
      i64 power = (i64)*(const I *)q.at;
      if (BLOCK == 0 && THREAD == 0 && power < 0) note_fault(q.site, 0, power);
    });
/* clang-format on */

static kn_status judge(kn_context *ctx, cu_device *d, kn_op op, cu_fault_kind kind, kn_dtype told,
                       kn_dtype index, CUdeviceptr at) {
  judging q = {.at = (const void *)(uintptr_t)at};
  const cu_program p = {"judge", {cu_site_text, cu_fault_source, judging_text, judge_source}, .index = index};
  KN_TRY(cu_site_of(ctx, d, op, kind, (int)told, 0, &q.site));
  return cu_fault_check(ctx, d, &q.site,
                        cu_start(ctx, d, &p, kind == CU_FAULT_ZERO ? "zero" : "negative", 1, &q));
}

/* Whether an element of t is 0. */
static kn_status flag_zero(kn_context *ctx, cu_device *d, const kn_tensor *t, CUdeviceptr flag) {
  cu_chain c = {.rank = 0};
  const int64_t zero = 0;
  take_shape(&c, &t->type);
  if (!c.rank) c.dims[c.rank++] = 1; /* what is folded is a row */
  c.over = c.rank;
  int is =
      cu_chain_step(&c, KN_OP_eq, NULL, (int[]){cu_chain_input(&c, t), cu_chain_number(&c, KN_I64, &zero)}, 2,
                    KN_I64, KN_BOOL);
  cu_operand result = {.dtype = KN_BOOL, .at = flag};
  cu_chain_result(&c, cu_chain_step(&c, KN_OP_any, NULL, &is, 1, KN_BOOL, KN_BOOL), &result);
  return cu_chain_run(ctx, d, &c);
}

static kn_status check_divisor(kn_context *ctx, cu_device *d, kn_op op, kn_tensor *const *in) {
  CUdeviceptr flag;
  if (in[1]->type.device == KN_CPU) {
    if (kn_element_int(kn_tensor_dtype(in[1]), kn_tensor_data(in[1]))) return KN_OK;
    return kn_fail(ctx, KN_ARG, "%s: integer division by zero", kn_op_name(op));
  }
  KN_TRY(cu_workspace(ctx, d, 1, &flag));
  kn_status st = flag_zero(ctx, d, in[1], flag);
  if (st == KN_OK) st = judge(ctx, d, op, CU_FAULT_ZERO, KN_BOOL, KN_U8, flag);
  cu_free(d, flag, 1);
  return st;
}

static kn_status check_power(kn_context *ctx, cu_device *d, kn_op op, kn_tensor *const *in) {
  const kn_dtype base = kn_tensor_dtype(in[0]), of = kn_tensor_dtype(in[1]);
  if (in[1]->type.rank != 0 || of == KN_BOOL) return KN_OK;
  if (in[1]->type.device != KN_CPU) return judge(ctx, d, op, CU_FAULT_POWER, base, of, cu_address(in[1]));
  const int64_t power = kn_element_int(of, kn_tensor_data(in[1]));
  return power < 0 ? cu_fault_power(ctx, op, base, power) : KN_OK;
}

kn_status cu_check_integers(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_dtype result) {
  cu_device *d;
  if (!(kn_ops[op].flags & KN_FLAG_RAISES) || kn_dtypes[result].category != KN_CAT_INT) return KN_OK;
  KN_TRY(cu_device_of(ctx, &d));
  return op == KN_OP_pow ? check_power(ctx, d, op, in) : check_divisor(ctx, d, op, in);
}

/* ---- the ops ---- */

#define ELEMENTWISE(name)                                                                                    \
  CU_ENTRY(name) { return elementwise(ctx, KN_OP_##name, attrs, in, n, out[0]); }
#define CHECKED(name, check, ...)                                                                            \
  CU_ENTRY(name) {                                                                                           \
    KN_TRY(cu_check_integers(ctx, KN_OP_##name, in, kn_tensor_dtype(out[0])));                               \
    return elementwise(ctx, KN_OP_##name, attrs, in, n, out[0]);                                             \
  }
#define MOVE(name) /* copy.c's */
#include "core/kernels/elementwise.def"
