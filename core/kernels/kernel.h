/* What the reference kernels share: strided views of tensors, the loop over elements that broadcasts, copies
 * and casts. Private to core. A kernel is plain C on real tensors; its op's rule has checked everything that
 * types can tell. */
#ifndef KN_KERNEL_H
#define KN_KERNEL_H
#include "core/element.h"
#include "core/kernels/formula_int.h"
#include "core/op.h"
#include "core/parallel.h"
#include <string.h>

/* The signature of every kernel. */
#define KERNEL(name)                                                                                         \
  kn_status kn_kernel_##name(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,                \
                             kn_tensor *const *out)

/* A kernel that has only the dtypes of KK_TYPES (integers are int64): what comes in others, index values
 * included, is cast as a whole before, and its results after. */
#define WIDE_KERNEL(name)                                                                                    \
  static kn_status name##_wide(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out);                                                       \
  KERNEL(name) { return kk_run_wide(ctx, KN_OP_##name, name##_wide, attrs, in, n, out); }                    \
  static kn_status name##_wide(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,              \
                               kn_tensor *const *out)
kn_status kk_run_wide(kn_context *ctx, kn_op op, kn_kernel_fn kernel, const void *attrs, kn_tensor *const *in,
                      int n, kn_tensor *const *out);
static inline kn_dtype kk_wide(kn_dtype d) { return kn_dtypes[d].wide; }

/* Where elements lie, without ownership: kernels cut views from tensors freely. */
typedef struct kk_view {
  char *data;
  kn_dtype dtype;
  int rank;
  int64_t dims[KN_MAX_RANK];
  int64_t strides[KN_MAX_RANK]; /* bytes */
} kk_view;

kk_view kk_view_of(const kn_tensor *t);
/* One position of a dim (which is dropped); a range of a dim. */
void kk_select(kk_view *v, int dim, int64_t at);
void kk_slice(kk_view *v, int dim, int64_t start, int64_t length, int64_t step);
int64_t kk_count(const kk_view *v);
static inline int kk_axis(int64_t dim, int rank) { return (int)(dim < 0 ? dim + (rank ? rank : 1) : dim); }

/* The element loop. Operand 0 is written; the others are broadcast to its shape. `inner` handles a run of n
 * elements: operand k's are at p[k], p[k] + step[k], … (bytes). Runs of one call may be on several threads.
 */
enum { KK_OPERANDS = 4, KK_GRAIN = 32768, KK_BLOCK = 512 };
typedef void (*kk_inner_fn)(char *const *p, const int64_t *step, int64_t n, const void *arg);
void kk_loop(const kn_context *ctx, const kk_view *operands, int count, kk_inner_fn inner, const void *arg);

/* The same, and operand k is what its elements are as dtype as[k], seen by `inner` in kk_wide(as[k]): cast to
 * and fro in blocks of KK_BLOCK where its own dtype is another. Integers are not narrowed on the way in. */
void kk_loop_as(const kn_context *ctx, const kk_view *operands, const kn_dtype *as, int count,
                kk_inner_fn inner, const void *arg);

/* The quick way for few elements, without views: every input is of `dtype`, which is computed in as it is,
 * and either lies as `out` does (which is contiguous) or is one element. False, and nothing done, when not
 * so. */
bool kk_run_flat(kn_tensor *out, kn_tensor *const *in, int n, kn_dtype dtype, kk_inner_fn inner,
                 const void *arg);

/* A run of n elements of one dtype as another, like an `inner` with two operands. */
kk_inner_fn kk_cast_run(kn_dtype from, kn_dtype to);

/* dst = src broadcast and cast. They must not overlap, unless they are the very same elements. */
void kk_copy(const kn_context *ctx, const kk_view *dst, const kk_view *src);
void kk_zero(const kn_context *ctx, kn_tensor *t); /* a contiguous tensor */

/* Ops that only move elements from views to views, said once for the reference and for devices whose memory
 * the host cannot read: who moves is given. `put` is kk_copy; `fill` makes all elements of a contiguous
 * tensor one number. The input of `strided` is contiguous. */
typedef struct kk_mover {
  kn_context *ctx;
  void *self;
  kn_status (*put)(const struct kk_mover *m, const kk_view *to, const kk_view *from);
  kn_status (*fill)(const struct kk_mover *m, kn_tensor *t, kn_number value);
} kk_mover;
/* clang-format off */
#define KK_MOVES(X)                                                                                          \
  X(cat) X(stack) X(select_grad) X(slice_grad) X(select_put) X(slice_put) X(flip) X(diagonal_grad)           \
  X(constant_pad) X(strided) X(strided_put)
/* clang-format on */
#define KK_MOVE(name)                                                                                        \
  kn_status kk_move_##name(const kk_mover *m, const void *attrs, kn_tensor *const *in, int n,                \
                           kn_tensor *const *out)
#define KK_DECLARE(name) KK_MOVE(name);
KK_MOVES(KK_DECLARE)
#undef KK_DECLARE
/* The reference's. */
kk_mover kk_mover_of(kn_context *ctx);

/* t as dtype; t contiguous. The answer is owned: t itself retained when it fits already. */
kn_status kk_cast(kn_context *ctx, kn_tensor *t, kn_dtype dtype, kn_tensor **out);
kn_status kk_contiguous(kn_context *ctx, kn_tensor *t, kn_tensor **out);
/* As kk_contiguous for n tensors; on failure none is owed. */
kn_status kk_contiguous_all(kn_context *ctx, kn_tensor *const *in, int n, kn_tensor **out);
void kk_release_all(kn_tensor **t, int n);

/* Elements in one piece, for who reads them by their address: as they are, or copies in memory to work in
 * (kn_scratch_take). A bit of `copy` for each that is to be copied. */
enum { KK_MOST_DENSE = 8 };
typedef struct kk_dense {
  void *data[KK_MOST_DENSE];
  void *room;
  size_t bytes;
} kk_dense;
kn_status kk_dense_take(kn_context *ctx, const kk_view *from, int n, unsigned copy, kk_dense *d);
kn_status kk_dense_all(kn_context *ctx, kn_tensor *const *in, int n, kk_dense *d); /* copies what it must */
void kk_dense_give(kn_context *ctx, kk_dense *d);

/* Strides (in elements) that show x in the shape of `type` without copying; false when there are none. */
bool kn_reshape_strides(const kn_tensor *x, const kn_type *type, int64_t strides[KN_MAX_RANK]);

/* CASE(T, dtype enum) for the floating dtypes that kernels compute in, and for all that they compute in. */
#define KK_FLOATS(CASE) CASE(float, F32) CASE(double, F64)
#define KK_TYPES(CASE) CASE(uint8_t, BOOL) CASE(int64_t, I64) KK_FLOATS(CASE)

#endif
