/* What a context keeps of oneDNN: the opened library, an engine, and a bounded cache of primitives, so that
 * eager calls do not make them again. Shared by all children of a context, from any thread. */
#ifndef KN_ONEDNN_STATE_H
#define KN_ONEDNN_STATE_H
#include "backends/onednn/packed.h"
#include "backends/onednn/primitive.h"

typedef struct dn_state dn_state;

enum { DN_CACHE_SIZE = 256 }; /* primitives kept; the one not used for longest gives way */

/* NULL with the reason. */
dn_state *dn_state_open(kn_context *ctx, char version[DN_VERSION_TEXT], char *why, size_t size);
void dn_state_close(dn_state *s);

/* The primitive for a problem, retained. KN_DECLINED with the reason in `why`; refusals are remembered too.
 */
kn_status dn_state_primitive(dn_state *s, kn_context *ctx, const dn_problem *p, dn_primitive **out, char *why,
                             size_t size);

typedef struct dn_cache_stats {
  uint64_t hits, misses;
  int entries;
} dn_cache_stats;
dn_cache_stats dn_state_stats(dn_state *s);

const dn_library *dn_state_library(const dn_state *s);
dnnl_engine_t dn_state_engine(const dn_state *s);
dn_shelf *dn_state_shelf(dn_state *s); /* constants in layouts of oneDNN's */
kn_heap *dn_state_heap(const dn_state *s);
int dn_state_threads(const dn_state *s); /* of the context it was opened for */

#endif
