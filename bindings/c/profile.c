/* Profiles of sessions of the C API, as text. */
#include "bindings/c/session.h"
#include "graph/profile.h"
#include <string.h>

static kn_status describe(kiln_session *s, kn_context *ctx, const kn_profile *p) {
  kn_writer w = {.heap = s->heap};
  char *text;
  size_t length;
  kn_profile_text(p, &w);
  KN_TRY(kn_writer_take(ctx, &w, &text, &length));
  kn_free(s->heap, s->profile, s->profile_bytes);
  s->profile = text;
  s->profile_bytes = length + 1;
  return KN_OK;
}

kiln_status kiln_session_profile(kiln_session *s, const kiln_profile_options *options, const char **text) {
  kn_context *ctx = kn_session_context(s->core);
  kiln_profile_options o = {.size = sizeof o};
  if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
  if (options && options->size < sizeof options->size)
    return outside(kn_fail(ctx, KN_ARG, "the options do not say their size"));
  if (o.runs < 0) return outside(kn_fail(ctx, KN_ARG, "profile: a number of runs is needed, got %d", o.runs));
  kn_profile *p;
  kn_status st = kiln_all_given(s);
  kn_session_lend_aside(s->core, true);
  if (st == KN_OK)
    st = kn_session_profile(s->core, s->in, s->graph->nin,
                            &(kn_profile_options){(uint32_t)o.runs, o.nodes != 0}, &p);
  kn_session_lend_aside(s->core, false);
  if (st != KN_OK) return outside(st);
  st = describe(s, ctx, p);
  if (st == KN_OK && o.trace) st = kn_profile_trace(ctx, p, o.trace);
  kn_profile_free(p);
  if (st == KN_OK) *text = s->profile;
  return outside(st);
}
