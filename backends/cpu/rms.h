/* The parts of rms_norm, found again among the nodes of a graph by what they compute, as one walk over rows.
 * It rounds as they do one after the other. */
#ifndef KN_CPU_RMS_H
#define KN_CPU_RMS_H
#include "backends/cpu/cpu.h"
#include "graph/target.h"

typedef struct cp_rms cp_rms;

/* Those that begin with node `first` of the part; *out is NULL where they are something else. */
kn_status cp_rms_new(kn_context *ctx, const cp_set *set, const kn_part *part, uint32_t first, cp_rms **out);
void cp_rms_free(kn_context *ctx, cp_rms *r); /* NULL is fine */
uint32_t cp_rms_length(const cp_rms *r);      /* nodes */
/* KN_DECLINED, with nothing done, where operands lie so that the nodes must run one after the other. */
kn_status cp_rms_run(kn_context *ctx, const cp_rms *r, kn_tensor *const *vals);

#endif
