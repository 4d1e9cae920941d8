/* What the files that run a plan share: run.c (steps, `if`, `loop`, whole runs), run_values.c (values that
 * are held, slots), run_strands.c (sections), run_nodes.c (nodes that are no ops). Private to these. */
#ifndef KN_GRAPH_RUN_H
#define KN_GRAPH_RUN_H
#include "graph/session.h"

typedef struct run {
  kn_session *s;
  kn_plan *p;
  kn_context *ctx;
  struct kn_gang *gang; /* the strands of a section that run now, of which this is one; NULL */
  uint64_t steps;       /* of this strand */
  bool quiet;           /* nobody looks on: no observer, no topic of KILN_DEBUG */
} run;

/* Profiles know the executor's own nodes by their steps. */
static inline bool kn_run_logs(const run *r) { return kn_debugging(r->ctx, KN_DEBUG_EXEC) && !r->s->profile; }

/* run_values.c */
void kn_run_own_list(kn_plan *p, uint32_t v, kn_list *l);
kn_list *kn_run_shared_list(kn_list *l);
void kn_run_drop(kn_plan *p, uint32_t v);
static inline void kn_run_let_go(kn_plan *p, uint32_t v) {
  if (p->owned[v] || p->lists[v] || p->place[v] == KN_PLACE_SHELL) kn_run_drop(p, v);
}
void kn_run_own(kn_plan *p, uint32_t v, kn_tensor *t);
void kn_run_bind(kn_plan *p, uint32_t v, kn_tensor *t);
void kn_run_bind_value(kn_plan *p, const kn_value *to, const kn_value *from);
kn_tensor *kn_run_take(kn_plan *p, uint32_t yield);
void kn_run_bind_yields(kn_plan *p, const kn_step *s, int side);
kn_status kn_run_copy_yields(run *r, const kn_step *s, int side); /* those that have places of their own */
void kn_run_clean_up(kn_plan *p);
void kn_run_keep_nothing(kn_plan *p);
bool kn_run_in_arena(const kn_plan *p, const kn_tensor *t);
kn_status kn_run_copy_into(run *r, kn_tensor *to, kn_tensor *t);
kn_status kn_run_put_number(run *r, const kn_scalar *s, kn_tensor *t);
kn_status kn_run_clone(run *r, kn_tensor *t, kn_tensor **out);
/* The sentence of a run that is ended before `next`, which may be NULL: by the host; or LIMIT, of time or
 * else of steps. */
kn_status kn_run_stop(run *r, kn_status st, const kn_node *next);
kn_status kn_run_ask_host(kn_session *s); /* whether to go on; it may be too late to */
bool kn_run_is_late(kn_session *s);
kn_status kn_run_no_value(run *r, const kn_node *n);
static inline void kn_run_watch(run *r, const kn_node *n) {
  if (r->s->observe) r->s->observe(r->s->observe_ud, n, r->p->vals, r->p->scalars);
}
kn_status kn_run_part(run *r, const kn_part_plan *part);
kn_status kn_run_early(run *r);
kn_status kn_run_load(run *r, const kn_node *n);
kn_status kn_run_store(run *r, const kn_node *n);
kn_status kn_run_update(run *r, const kn_node *n);
kn_status kn_run_give_stores(run *r); /* what values are computed straight into */

/* run_strands.c */
kn_status kn_run_section(run *r, kn_section *x);
kn_status kn_gang_tick(run *r);

/* Before each part and each trip: limits, and what the host says. */
static inline kn_status kn_run_tick(run *r, const kn_node *next) {
  kn_session *s = r->s;
  if (r->gang) return kn_gang_tick(r);
  if (s->limit && s->steps >= s->limit) return kn_run_stop(r, KN_LIMIT, next);
  kn_status st = kn_run_ask_host(s);
  if (st != KN_OK) return kn_run_stop(r, st, next);
  s->steps++;
  return KN_OK;
}

/* run.c */
kn_status kn_run_block(run *r, uint32_t block);
kn_status kn_run_step(run *r, const kn_step *s);
kn_status kn_run_fail(run *r, const kn_planned_failure *f);
kn_status kn_run_too_many_trips(run *r, const kn_node *loop);

/* run_whole.c */
kn_status kn_run_whole(run *r, struct kn_whole *w);

/* run_nodes.c */
kn_status kn_run_node(run *r, const kn_node *n);
kn_status kn_run_raise(run *r, const kn_node *n);
kn_status kn_run_no_element(run *r, int64_t at, int64_t length);

#endif
