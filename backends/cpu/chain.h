/* Several elementwise nodes of a graph as one walk over their elements: a block of each is computed while it
 * is in the first cache, and what only the others read never goes to memory. The loops are those of the eager
 * kernels, so the bits are theirs. */
#ifndef KN_CPU_CHAIN_H
#define KN_CPU_CHAIN_H
#include "backends/cpu/run.h"
#include "graph/target.h"

typedef struct cp_chain cp_chain;

/* The chain that begins with node `first` of the part; *out is NULL where it would be a single node. */
kn_status cp_chain_new(kn_context *ctx, const cp_loops *loops, const kn_part *part, uint32_t first,
                       cp_chain **out);
void cp_chain_free(kn_context *ctx, cp_chain *c); /* NULL is fine */
uint32_t cp_chain_length(const cp_chain *c);      /* nodes */
/* KN_DECLINED, with nothing done, where operands lie so that the nodes must run one after the other. */
kn_status cp_chain_run(kn_context *ctx, cp_chain *c, kn_tensor *const *vals);

#endif
