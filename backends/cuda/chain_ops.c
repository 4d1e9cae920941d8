/* Ops of the table as steps of a chain: for eager ops, and for nodes of graphs that share a kernel. */
#include "backends/cuda/chain.h"

int cu_chain_elementwise(cu_chain *c, kn_op op, const void *attrs, const int *in, const kn_type *types, int n,
                         kn_dtype result) {
  return cu_chain_step(c, op, attrs, in, n, cu_formula_as(op, types, n, result), result);
}

/* As the reference has it: the largest element is taken off first, the sum is in double. */
int cu_chain_softmax(cu_chain *c, bool log, int value) {
  const kn_dtype own = cu_chain_dtype(c, value), wide = kn_dtypes[own].wide;
  const double one = 1;
  int y;
#define STEP(op, as, dtype, ...)                                                                             \
  cu_chain_step(c, KN_OP_##op, NULL, (int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int), as,   \
                dtype)
  if (own != wide) value = STEP(cast, wide, wide, value);
  int top = STEP(amax, wide, wide, value), from = STEP(sub, wide, wide, value, top),
      e = STEP(exp, wide, wide, from), sum = STEP(sum, wide, KN_F64, e);
  if (log) {
    int taken = STEP(log, KN_F64, KN_F64, sum);
    if (wide != KN_F64) taken = STEP(cast, wide, wide, taken);
    y = STEP(sub, wide, wide, from, taken);
  } else {
    int scale = STEP(div, KN_F64, KN_F64, cu_chain_number(c, KN_F64, &one), sum);
    if (wide != KN_F64) scale = STEP(cast, wide, wide, scale);
    y = STEP(mul, wide, wide, e, scale);
  }
  return own != wide ? STEP(cast, own, own, y) : y;
#undef STEP
}
