/* Autocast: while ctx->autocast is a half, ops get their floats in the dtype that suits them, by a flag of
 * their row. LOW (products, convolutions): as that half. FULL (what needs range, what adds much up): halves
 * as float32. ALIKE: as the widest of them. Others as they are: most ops promote by themselves. Nothing
 * touches float64. The casts are ordinary ops, so tapes and graphs hold them, and gradients come back in the
 * dtypes of what was given. Inside an op that has such a flag it is off, so of composites the outermost row
 * decides. */
#ifndef KN_AUTOCAST_H
#define KN_AUTOCAST_H
#include "core/op.h"

/* The half of that name; false when it is none. */
bool kn_autocast_parse(const char *name, uint8_t *half);
#define KN_AUTOCAST_WANTED "autocast: \"float16\", \"bfloat16\" or false (off) is needed" /* else */
/* Whether kn_apply is to go by kn_autocast_apply. */
static inline bool kn_autocasts(const kn_context *ctx, const kn_op_info *row) {
  return ctx->autocast != KN_BOOL && row->flags & (KN_FLAG_LOW | KN_FLAG_FULL | KN_FLAG_ALIKE);
}
/* What an input of dtype d becomes for LOW and FULL rows; d with autocast off. */
kn_dtype kn_autocast_dtype(const kn_context *ctx, const kn_op_info *row, kn_dtype d);
kn_status kn_autocast_apply(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                            kn_tensor **out);

#endif
