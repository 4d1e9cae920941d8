/* A reduction of everything into one number in a graph: what losses and conditions are made of. Set up once,
 * by one thread; cp_reduce's bits. */
#ifndef KN_CPU_TOTAL_H
#define KN_CPU_TOTAL_H
#include "backends/cpu/cpu.h"
#include "graph/target.h"

typedef struct cp_total cp_total;

/* NULL where the node is none, or so large that it is cut into pieces. */
kn_status cp_total_new(kn_context *ctx, const cp_set *set, const kn_node *n, const kn_type *types,
                       cp_total **out);
void cp_total_free(kn_context *ctx, cp_total *t); /* NULL is fine */
/* DECLINED where its operand does not lie in its order. */
kn_status cp_total_run(const cp_total *t, kn_tensor *const *vals);

#endif
