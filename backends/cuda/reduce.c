/* Reductions and softmax: chains with folds. The dims that are folded are seen as the last ones. */
#include "backends/cuda/chain.h"
#include "backends/cuda/copy.h"
#include "backends/cuda/entries.h"
#include <string.h>

/* How dims of x stand in a chain: those kept, in order, then those of rows. */
typedef struct order {
  int from[KN_MAX_RANK], kept;
} order;

static order order_of(const kn_tensor *x, const bool over[KN_MAX_RANK]) {
  order o = {.kept = 0};
  int at = 0;
  for (int d = 0; d < x->type.rank; d++)
    if (!over[d]) o.from[at++] = d;
  o.kept = at;
  for (int d = 0; d < x->type.rank; d++)
    if (over[d]) o.from[at++] = d;
  return o;
}

static cu_operand turned(const kn_tensor *t, const order *o) {
  cu_operand x = {.dtype = kn_tensor_dtype(t), .at = cu_address(t)};
  for (int d = 0; d < t->type.rank; d++) x.strides[d] = t->strides[o->from[d]];
  return x;
}

static void begin(cu_chain *c, const kn_tensor *x, const order *o, int *value) {
  cu_operand from = turned(x, o);
  c->rank = x->type.rank, c->over = c->rank - o->kept;
  for (int d = 0; d < c->rank; d++) c->dims[d] = x->type.dims[o->from[d]];
  if (c->over == 0) c->dims[c->rank++] = 1, c->over = 1; /* rows of one element */
  *value = cu_chain_operand(c, &from);
}

/* ---- reductions ---- */

static kn_status reduce(kn_context *ctx, kn_op op, const kn_tensor *x, const bool over[KN_MAX_RANK],
                        const kn_tensor *out) {
  cu_device *d;
  cu_chain c = {.rank = 0};
  order o = order_of(x, over);
  cu_operand result = {.dtype = kn_tensor_dtype(out), .at = cu_address(out)};
  int value;
  int64_t step = 1;
  KN_TRY(cu_device_of(ctx, &d));
  if (x->type.rank == KN_MAX_RANK && o.kept == KN_MAX_RANK) return KN_DECLINED;
  begin(&c, x, &o, &value);
  for (int k = o.kept - 1; k >= 0; step *= c.dims[k--]) result.strides[k] = step;
  cu_chain_result(&c, cu_chain_step(&c, op, NULL, &value, 1, kn_tensor_dtype(x), result.dtype), &result);
  return cu_chain_run(ctx, d, &c);
}

static int axis_of(int64_t dim, const kn_tensor *x) {
  return (int)(dim < 0 ? dim + (x->type.rank ? x->type.rank : 1) : dim);
}

static kn_status reduce_dims(kn_context *ctx, kn_op op, const kn_ints *dim, const kn_tensor *x,
                             const kn_tensor *out) {
  bool over[KN_MAX_RANK];
  for (int d = 0; d < KN_MAX_RANK; d++) over[d] = dim->n == 0;
  for (int i = 0; i < dim->n; i++) over[axis_of(dim->v[i], x)] = true;
  return reduce(ctx, op, x, over, out);
}

#define REDUCE(name)                                                                                         \
  CU_ENTRY(name) {                                                                                           \
    (void)n;                                                                                                 \
    return reduce_dims(ctx, KN_OP_##name, &((const kn_attrs_reduce *)attrs)->dim, in[0], out[0]);            \
  }
REDUCE(sum)
REDUCE(mean)
REDUCE(prod)
REDUCE(amax)
REDUCE(amin)
REDUCE(all)
REDUCE(any)

#define PLACE(name)                                                                                          \
  CU_ENTRY(name) {                                                                                           \
    const int64_t dim = ((const kn_attrs_argreduce *)attrs)->dim;                                            \
    (void)n;                                                                                                 \
    return reduce_dims(ctx, KN_OP_##name, &(kn_ints){.n = dim != KN_NONE, .v = {dim}}, in[0], out[0]);       \
  }
PLACE(argmax)
PLACE(argmin)

CU_ENTRY(sum_to) {
  if (kn_type_equal(&in[0]->type, &out[0]->type)) /* nothing is added, not even 0 to -0 */
    return cu_clone(ctx, attrs, in, n, out);
  const kn_type *x = &in[0]->type, *b = &in[1]->type;
  bool over[KN_MAX_RANK] = {false};
  int lead = x->rank - b->rank;
  for (int d = 0; d < x->rank; d++) over[d] = d < lead || (b->dims[d - lead] == 1 && x->dims[d] != 1);
  return reduce(ctx, KN_OP_sum, in[0], over, out[0]);
}

/* ---- softmax ---- */

static kn_status softmax(kn_context *ctx, bool log, const kn_attrs_axis *a, const kn_tensor *x,
                         const kn_tensor *out) {
  cu_device *d;
  cu_chain c = {.rank = 0};
  bool over[KN_MAX_RANK] = {false};
  int value;
  KN_TRY(cu_device_of(ctx, &d));
  if (x->type.rank) over[axis_of(a->dim, x)] = true;
  order o = order_of(x, over);
  begin(&c, x, &o, &value);
  cu_operand result = turned(out, &o);
  cu_chain_result(&c, cu_chain_softmax(&c, log, value), &result);
  return cu_chain_run(ctx, d, &c);
}

CU_ENTRY(softmax) {
  (void)n;
  return softmax(ctx, false, attrs, in[0], out[0]);
}

CU_ENTRY(log_softmax) {
  (void)n;
  return softmax(ctx, true, attrs, in[0], out[0]);
}
