/* Helpers of the shape and dtype rules (core/infer*.c). */
#ifndef KN_INFER_H
#define KN_INFER_H
#include "core/op.h"

/* Fails with "op: sentence" and, after it, the types of the inputs: " (got float32[2,3], int64[4])". */
kn_status kn_infer_fail(const kn_infer *q, kn_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Negative counts from the end; checks 0 <= dim < rank. `rank` 0 is treated as 1 (a scalar's only dim). */
kn_status kn_infer_axis(const kn_infer *q, int64_t dim, int rank, int *out);
/* A dim or position as its user wrote it, counted from 1. */
static inline long long kn_as_written(int64_t i) { return i < 0 || i == INT64_MAX ? i : i + 1; }
/* Broadcast of two sizes; a literal 1 broadcasts, unknown meets unknown as unknown unless they are the same.
 */
bool kn_dim_broadcast(int64_t a, int64_t b, int64_t *out);
/* False only when both are known and differ. */
static inline bool kn_dim_may_equal(int64_t a, int64_t b) {
  return !kn_dim_known(a) || !kn_dim_known(b) || a == b;
}
/* (d + add) / div + more, unknown when d is. Floor division, div > 0. */
int64_t kn_dim_window(int64_t d, int64_t add, int64_t div, int64_t more);
int64_t kn_ints_at(const kn_ints *v, int i); /* one value stands for all places */
/* PyTorch's result type: a 0-d tensor widens only a lower category. */
kn_dtype kn_promote_types(const kn_type *a, const kn_type *b);
/* Broadcast shape of n inputs from `first` on into out[0] (rank and dims only). */
kn_status kn_infer_broadcast(const kn_infer *q, int first);
/* Inputs 0 and 1 by their first na and nb dims: a type of the first one's dtype. */
kn_status kn_infer_batch(const kn_infer *q, int na, int nb, kn_type *out);
/* Fails unless `from` can be expanded to `to`: each size right-aligned is 1 or the same. */
kn_status kn_infer_expands(const kn_infer *q, const kn_type *from, const kn_type *to);
/* Inputs [first, last] have one dtype: "index_add: x and src have different dtypes". */
kn_status kn_infer_same_dtype(const kn_infer *q, int a, int b);
kn_status kn_infer_floating(const kn_infer *q, int a); /* input a is floating */
kn_status kn_infer_index(const kn_infer *q, int a);    /* input a is int64 or int32 */
/* An integer dtype d reaches as far as x: "300 does not fit in uint8 (0 to 255)". */
kn_status kn_infer_holds(const kn_infer *q, kn_dtype d, kn_number x);
/* solve: whether b is a vector for each matrix of a, rather than a matrix. */
bool kn_solve_is_vector(const kn_type *a, const kn_type *b);
/* What scores of attention are scaled by: 1 / sqrt of the width where `scale` is negative. */
double kn_attention_scale(double scale, int64_t width);
/* slice: the range [*start, *start + *length) that attributes mean on a size; *length is unknown when it must
 * be. *start is only set when the length is known. */
kn_status kn_slice_range(const kn_infer *q, int64_t size, const kn_attrs_slice *a, int64_t *start,
                         int64_t *length);

#endif
