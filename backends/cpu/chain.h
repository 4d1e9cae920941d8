/* Chains: nodes of a graph that follow each other, run as one walk over rows, a tile of them at a time, while
 * what goes from node to node stays in the first cache. In a chain are elementwise ops and casts, reductions
 * and softmaxes of rows, whose results nodes after them may read, and reductions of columns or of everything,
 * whose results none of them reads. Bits are those of the nodes run one by one. */
#ifndef KN_CPU_CHAIN_H
#define KN_CPU_CHAIN_H
#include "backends/cpu/cpu.h"
#include "graph/target.h"

typedef struct cp_chain cp_chain;

/* The longest chain that begins at node `first` of the part; NULL where no two go together. Tells the plan
 * which nodes run together and which values need no memory. */
kn_status cp_chain_new(kn_context *ctx, const cp_set *set, const kn_part *part, uint32_t first,
                       cp_chain **out);
void cp_chain_free(kn_context *ctx, cp_chain *c); /* NULL is fine */
uint32_t cp_chain_length(const cp_chain *c);
size_t cp_chain_packed(const cp_chain *c); /* bytes of constants in a layout of its own */
kn_status cp_chain_run(kn_context *ctx, cp_chain *c, kn_tensor *const *vals);

#endif
