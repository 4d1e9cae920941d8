/* What stands between the drivers, compiled once, and the loops, compiled once for each instruction set. */
#ifndef KN_CPU_RUN_H
#define KN_CPU_RUN_H
#include "core/device.h"
#include "core/parallel.h"

/* A loop over n elements that lie one after the other: p[0] is written, the others are read, and none
 * overlaps with it. `arg` is the op's attributes. */
typedef void (*cp_run)(char *const *p, int64_t n, const void *arg);

enum { CP_OPERANDS = 4, CP_BLOCK = 512, CP_LINE = 64 };

/* Elements that one thread should at least have: of ops that wait for memory, and of those that compute. */
enum { CP_CHEAP = 32768, CP_DEAR = 8192 };

/* Everything of one instruction set. */
typedef struct cp_isa {
  const char *name;                            /* "avx2" */
  cp_run cast[KN_DTYPE_COUNT][KN_DTYPE_COUNT]; /* [from][to] */
} cp_isa;

/* The elementwise ops: X(op, grain). Each has a row of loops, CP(op_runs)[dtype], in runs_*.c. */
/* clang-format off */
#define CP_ELEMENTWISE(X) \
  X(add, CP_CHEAP) X(sub, CP_CHEAP) X(mul, CP_CHEAP) X(div, CP_CHEAP) X(maximum, CP_CHEAP) X(minimum, CP_CHEAP) \
  X(neg, CP_CHEAP) X(abs, CP_CHEAP) X(sign, CP_CHEAP) X(floor, CP_CHEAP) X(ceil, CP_CHEAP) X(trunc, CP_CHEAP) \
  X(round, CP_CHEAP) X(sqrt, CP_CHEAP) X(rsqrt, CP_CHEAP) X(relu, CP_CHEAP) X(clamp, CP_CHEAP) X(where, CP_CHEAP) \
  X(eq, CP_CHEAP) X(ne, CP_CHEAP) X(lt, CP_CHEAP) X(le, CP_CHEAP) X(gt, CP_CHEAP) X(ge, CP_CHEAP) \
  X(isnan, CP_CHEAP) X(bitwise_and, CP_CHEAP) X(bitwise_or, CP_CHEAP) X(bitwise_xor, CP_CHEAP) \
  X(bitwise_not, CP_CHEAP) X(bitwise_left_shift, CP_CHEAP) X(bitwise_right_shift, CP_CHEAP) \
  X(exp, CP_DEAR) X(expm1, CP_DEAR) X(log, CP_DEAR) X(log1p, CP_DEAR) X(log2, CP_DEAR) X(log10, CP_DEAR) \
  X(sin, CP_DEAR) X(cos, CP_DEAR) X(tan, CP_DEAR) X(asin, CP_DEAR) X(acos, CP_DEAR) X(atan, CP_DEAR) \
  X(sinh, CP_DEAR) X(cosh, CP_DEAR) X(tanh, CP_DEAR) X(sigmoid, CP_DEAR) X(erf, CP_DEAR) X(pow, CP_DEAR)
/* clang-format on */

/* Composites of one input, floats, that keep its shape and dtype: the same. */
/* clang-format off */
#define CP_FUSED(X) \
  X(gelu, CP_DEAR) X(silu, CP_DEAR) X(mish, CP_DEAR) X(logsigmoid, CP_DEAR) X(softsign, CP_CHEAP) \
  X(tanhshrink, CP_DEAR) X(hardswish, CP_CHEAP) X(leaky_relu, CP_CHEAP) X(elu, CP_DEAR) X(softplus, CP_DEAR)
/* clang-format on */

/* The reductions: X(op, how), how being what fold.h makes of it. */
/* clang-format off */
#define CP_REDUCTIONS(X) \
  X(sum, {.kind = CP_SUM}) X(mean, {.kind = CP_SUM, .mean = true}) X(prod, {.kind = CP_PROD}) X(amax, {.kind = CP_MAX}) X(amin, {.kind = CP_MIN}) \
  X(any, {.kind = CP_MAX, .truth = true}) X(all, {.kind = CP_MIN, .truth = true})
#define CP_PLACES(X) X(argmax, 0) X(argmin, 1)
#define CP_SOFTMAXES(X) X(softmax, false) X(log_softmax, true)
/* clang-format on */

/* By op: its row of loops, and what one thread should at least have. Of those above that are primitive. */
typedef struct cp_loops {
  const cp_run *runs; /* by dtype; NULL: none */
  int64_t grain;
} cp_loops;

/* An elementwise op by its row of loops. KN_DECLINED where the row has none for these dtypes. */
kn_status cp_elementwise(kn_context *ctx, const cp_isa *isa, const cp_run *runs, int64_t grain,
                         const void *attrs, kn_tensor *const *in, int n, kn_tensor *out);

/* As cp_elementwise, and gives the result its type and storage first. */
kn_status cp_fused(kn_context *ctx, const cp_isa *isa, kn_op op, const cp_run *runs, int64_t grain,
                   const void *attrs, kn_tensor *x, kn_tensor *out);
/* x, broadcast and cast, into all of out, whatever its strides; they must not overlap. */
kn_status cp_copy(kn_context *ctx, const cp_isa *isa, const kn_tensor *x, const kn_tensor *out);

#endif
