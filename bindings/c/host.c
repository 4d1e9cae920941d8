/* Host slots from C: functions bound by name to a session, called by its runs. */
#include "bindings/c/session.h"
#include <string.h>

int kiln_graph_host_count(const kiln_graph *g) {
  int n = 0;
  while (kn_graph_host(g->graph, (uint32_t)n)) n++;
  return n;
}

const char *kiln_graph_host_name(const kiln_graph *g, int index) {
  return index < 0 ? NULL : kn_graph_host(g->graph, (uint32_t)index);
}

static kiln_bound *find(kiln_session *s, const char *name) {
  kiln_bound *b = s->bound;
  while (b && strcmp(b->name, name)) b = b->next;
  return b;
}

static kn_status give(kiln_session *s, kn_context *ctx, const char *name, kiln_value *from, int n,
                      kn_rvalue *out) {
  (void)s;
  kn_status st = KN_OK;
  for (int i = 0; i < n; i++) {
    if (st == KN_OK && (st = kiln_read_value(ctx, &from[i], &out[i])) != KN_OK)
      kn_error_prefix(ctx, "host function '%s': result %d", name, i + 1);
    kiln_value_clear(&from[i]);
  }
  for (int i = 0; i < n && st != KN_OK; i++) {
    kn_tensor_release(out[i].tensor);
    out[i] = (kn_rvalue){0};
  }
  return st;
}

static kn_status call(void *ud, kn_context *ctx, const char *name, const kn_rvalue *in, uint32_t nin,
                      kn_rvalue *out, uint32_t nout) {
  kiln_session *s = ud;
  kiln_bound *b = find(s, name);
  kiln_value args[KN_HOST_VALUES], results[KN_HOST_VALUES];
  if (!b) return kn_fail(ctx, KN_STATE, "host function '%s' is not bound: see kiln_session_bind", name);
  for (uint32_t i = 0; i < nin; i++) kiln_write_value(&in[i], &args[i]);
  memset(results, 0, sizeof results);
  kiln_status st = b->fn(b->ud, args, (int)nin, results, (int)nout);
  if (st == KILN_OK) return give(s, ctx, name, results, (int)nout, out);
  for (uint32_t i = 0; i < nout; i++) kiln_value_clear(&results[i]);
  return kn_fail(ctx, KN_RAISED, "host function '%s' failed (%s)", name, kiln_status_text(st));
}

kiln_status kiln_session_bind(kiln_session *s, const char *name, kiln_host_fn fn, void *ud) {
  kn_context *ctx = kn_session_context(s->core);
  uint32_t i = 0;
  const char *slot;
  while ((slot = kn_graph_host(s->graph->graph, i)) && strcmp(slot, name)) i++;
  if (!slot)
    return outside(
        kn_fail(ctx, KN_ARG, "the graph %s calls no host function '%s'", s->graph->graph->name, name));
  kiln_bound *b = find(s, name);
  if (!b) {
    if (!(b = kn_calloc(s->heap, 1, sizeof *b))) return outside(kn_fail_nomem(ctx, sizeof *b));
    b->name = slot;
    b->next = s->bound;
    s->bound = b;
  }
  b->fn = fn;
  b->ud = ud;
  kn_session_set_host(s->core, call, s);
  return KILN_OK;
}

void kiln_free_bound(kiln_session *s) {
  while (s->bound) {
    kiln_bound *next = s->bound->next;
    kn_free(s->heap, s->bound, sizeof *s->bound);
    s->bound = next;
  }
}
