/* Sums of products named by letters, "ij,jk->ik": see einsum.c. */
#ifndef KN_EINSUM_H
#define KN_EINSUM_H
#include "core/dispatch.h"

/* One letter for each dim of each input, inputs parted by commas; after "->" the letters of the result
 * (without it those that stand once, in alphabetical order). What the result lacks is summed. *out is owned.
 */
kn_status kn_einsum(kn_context *ctx, const char *equation, kn_tensor *const *in, int n, kn_tensor **out);

#endif
