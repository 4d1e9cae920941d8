/* Which passes run, in which order. */
#include "graph/pipeline.h"
#include "graph/folding.h"
#include "graph/text.h"
#include "graph/verify.h"
#include <stdio.h>
#include <string.h>

/* Each ends with NULL. Results stay the same to the bit. */
static const kn_pass *const capture[] = {
    &kn_pass_history,  /* what is left of it keeps dce from nothing */
    &kn_pass_fold,     /* decides branches, so that dce finds more to remove */
    &kn_pass_unroll,   /* what is left of loops whose ends fold has found */
    &kn_pass_simplify, /* what is left of expressions */
    &kn_pass_hoist,    /* before cse, which finds what two loops then compute */
    &kn_pass_cse,      /* what indexing checks again and again, rules of gradients compute again */
    &kn_pass_dce,      NULL,
};
/* Run once, when the ones above change nothing any more. */
static const kn_pass *const last[] = {
    &kn_pass_recompute, /* what gradients read need not be kept */
    &kn_pass_dce,
    NULL,
};
/* Run after the first, until neither changes anything. */
static const kn_pass *const freeze[] = {
    &kn_pass_constants, &kn_pass_simplify_all, &kn_pass_hoist_all, &kn_pass_cse_all, NULL,
};
/* Run after both. Rounding changes. */
static const kn_folding *const inference[] = {
    &kn_folding_affine,
    &kn_folding_simplify,
    NULL,
};
enum { ROUNDS = 8 }; /* until nothing changes; each round feeds the next, few are ever needed */

static void dump(kn_builder *b, const char *name, uint32_t changes) {
  char *text;
  size_t len;
  kn_log(b->ctx, "pass %s: %u change%s in graph %s", name, changes, changes == 1 ? "" : "s", b->graph->name);
  if (!changes || kn_graph_print(b->ctx, b->graph, KN_TEXT_FULL, &text, &len) != KN_OK) return;
  for (const char *line = text; *line;) {
    size_t n = strcspn(line, "\n");
    char shown[200];
    snprintf(shown, sizeof shown, "%s", line);
    if (n < sizeof shown) shown[n] = 0;
    kn_log(b->ctx, "  %s", shown);
    line += n + (line[n] == '\n');
  }
  kn_free(b->ctx->heap, text, len + 1);
}

kn_status kn_pass_run(kn_builder *b, const kn_pass *pass, uint32_t *changes) {
  if (b->status != KN_OK) return b->status;
  *changes = 0;
  kn_status st = pass->run(b, changes);
  if (st == KN_OK && kn_debugging(b->ctx, KN_DEBUG_PASSES)) dump(b, pass->name, *changes);
#ifndef NDEBUG
  if (st == KN_OK && *changes) st = kn_graph_verify(b->ctx, b->graph, false);
#endif
  if (st != KN_OK) {
    kn_error_prefix(b->ctx, "pass %s", pass->name);
    if (b->status == KN_OK) b->status = st;
  }
  return st;
}

const kn_folding *kn_pipeline_folding(uint32_t i) {
  return i < sizeof inference / sizeof *inference ? inference[i] : NULL;
}

/* All passes of a level and those below, in order; how many there are. */
static uint32_t list_passes(kn_pipeline which, const kn_pass **list) {
  uint32_t n = 0;
  for (const kn_pass *const *p = capture; *p; p++) list[n++] = *p;
  for (const kn_pass *const *p = freeze; *p && which >= KN_PIPELINE_FREEZE; p++) list[n++] = *p;
  for (const kn_folding *const *f = inference; *f && which >= KN_PIPELINE_INFERENCE; f++)
    list[n++] = &(*f)->pass;
  return n;
}

kn_status kn_pipeline_run(kn_builder *b, kn_pipeline which) {
  const kn_pass *list[sizeof capture / sizeof *capture + sizeof freeze / sizeof *freeze +
                      sizeof inference / sizeof *inference];
  uint32_t n = list_passes(which, list), quiet = 0; /* passes in a row that changed nothing */
  for (uint32_t i = 0; i < ROUNDS * n && quiet < n; i++) {
    uint32_t changes;
    KN_TRY(kn_pass_run(b, list[i % n], &changes));
    quiet = changes ? 0 : quiet + 1;
  }
  for (const kn_pass *const *p = last; *p && which == KN_PIPELINE_CAPTURE; p++) {
    uint32_t changes;
    KN_TRY(kn_pass_run(b, *p, &changes));
  }
  return KN_OK;
}
