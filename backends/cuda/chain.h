/* A chain: elementwise ops and reductions of rows, each reading what came before it, as one kernel. An eager
 * op is a chain of one step; a graph's parts are chains of many. What a chain computes, how its operands lie
 * and which vectors they allow make its source (and the source's key); sizes and strides are arguments, so
 * that the kernel serves other sizes too.
 *
 * The elements of a chain are those of `dims`. Where it has folds (steps that are reductions), a row is what
 * the last `over` dims span: a fold makes one value of each row, which later steps read for all its elements.
 * So softmax and layer norm are chains. Between steps values are rounded to their dtype, as eager ops round
 * them.
 *
 *   cu_chain c = {.rank = 2, .dims = {n, m}};
 *   int x = cu_chain_input(&c, tensor), y = cu_chain_number(&c, KN_F32, &half);
 *   int z = cu_chain_step(&c, KN_OP_mul, NULL, (int[]){x, y}, 2, KN_F32);
 *   cu_chain_output(&c, z, result);
 *   KN_TRY(cu_chain_run(ctx, d, &c));
 */
#ifndef KN_CUDA_CHAIN_H
#define KN_CUDA_CHAIN_H
#include "backends/cuda/formula.h"

enum { CU_CHAIN_INPUTS = 24, CU_CHAIN_STEPS = 64, CU_CHAIN_OUTPUTS = 8 };
enum { CU_STEP = CU_CHAIN_INPUTS }; /* value i: input i; value CU_STEP + i: what step i made */

/* Memory that is read or written: strides in elements along the chain's dims, 0 where repeated; of an output
 * that has one element a row, 0 along the last `over` dims. */
typedef struct cu_operand {
  kn_dtype dtype;
  bool number; /* an input of one element that the host knows: `bits`, as in memory */
  CUdeviceptr at;
  uint64_t bits;
  int64_t strides[KN_MAX_RANK];
} cu_operand;

typedef struct cu_step {
  kn_op op; /* of elementwise.def, or a fold: cu_chain_folds */
  uint8_t n;
  int8_t in[3];
  kn_dtype dtype, as; /* of the result; what it computes in (cu_formula_as) */
} cu_step;

typedef struct cu_chain {
  bool full; /* more was asked for than there is room for */
  int rank, over, inputs, steps, outputs;
  int64_t dims[KN_MAX_RANK];
  cu_operand input[CU_CHAIN_INPUTS], output[CU_CHAIN_OUTPUTS];
  cu_step step[CU_CHAIN_STEPS];
  int8_t value[CU_CHAIN_OUTPUTS]; /* what each output gets */
} cu_chain;

/* Ops that can be folds: sum mean prod amax amin all any argmax argmin. */
bool cu_chain_folds(kn_op op);
/* Whether a step may be this op, computed in (wide) `as`. */
bool cu_chain_takes(kn_op op, kn_dtype as);

/* Building. These give values; when the chain is full, 0, and cu_chain_run refuses. */
int cu_chain_input(cu_chain *c,
                   const kn_tensor *t); /* broadcast to dims; a number if t is a CPU tensor of one element */
int cu_chain_number(cu_chain *c, kn_dtype dtype, const void *element);
int cu_chain_operand(cu_chain *c, const cu_operand *x);
/* attrs: of clamp and polygamma. `as` is cu_formula_as's, of a fold the dtype of what is folded. */
int cu_chain_step(cu_chain *c, kn_op op, const void *attrs, const int *in, int n, kn_dtype as,
                  kn_dtype dtype);
/* Ops of the table (chain_ops.c): an elementwise one on inputs of these types, with a result of this dtype;
 * softmax or log_softmax of each row. */
int cu_chain_elementwise(cu_chain *c, kn_op op, const void *attrs, const int *in, const kn_type *types, int n,
                         kn_dtype result);
int cu_chain_softmax(cu_chain *c, bool log, int value);
void cu_chain_output(cu_chain *c, int value, const kn_tensor *t);
void cu_chain_result(cu_chain *c, int value, const cu_operand *x);
kn_dtype cu_chain_dtype(const cu_chain *c, int value);

/* Launches it on the device's stream; asynchronous, nothing to wait for. No elements: nothing (but a fold of
 * no elements gives what it begins with). UNSUPPORTED with a reason where it is too much for one kernel. */
kn_status cu_chain_run(kn_context *ctx, cu_device *d, const cu_chain *c);

/* What integers may not do, before a chain with such an op of that result: to be divided by zero, or raised
 * to a negative power. Of divisors of the device eager ops wait for the answer; in a graph it is a fault. */
kn_status cu_check_integers(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_dtype result);

#endif
