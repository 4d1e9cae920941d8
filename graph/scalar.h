/* Lua 5.4's arithmetic and comparison on numbers, in C without Lua: what the lua.* nodes mean. */
#ifndef KN_SCALAR_H
#define KN_SCALAR_H
#include "graph/graph.h"

/* Evaluates a PURE or RAISES scalar node kind (lua.*, for_skip, for_count, select on scalars). RAISED with
 * Lua's own sentence ("attempt to divide by zero") when Lua would raise. */
kn_status kn_scalar_eval(kn_context *ctx, kn_opcode op, const kn_scalar *in, uint32_t n, kn_scalar *out);
/* Result kind for input kinds; false when Lua would refuse them. NUMBER in gives NUMBER out where it matters.
 */
bool kn_scalar_result(kn_opcode op, const kn_vkind *in, uint32_t n, kn_vkind *out);

#endif
