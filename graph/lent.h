/* Runs in memory that the caller lends. Internal to the executor; what callers see is in exec.h. */
#ifndef KN_LENT_H
#define KN_LENT_H
#include "graph/session.h"

static inline bool kn_is_lent(const kn_session *s) { return s->lent.memory && !s->lent.aside; }
/* Bytes that a run of the plan takes of it. */
size_t kn_lent_need(const kn_plan *p);
/* Before each run there: the plan's arena has its place, and s->lent.heap is empty. NOMEM when it is too
 * small, STATE while something of the last run is held. */
kn_status kn_lent_begin(kn_session *s, kn_plan *p);

#endif
