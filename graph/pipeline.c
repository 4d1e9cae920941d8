/* Which passes run, in which order. */
#include "graph/pipeline.h"
#include "graph/text.h"
#include "graph/verify.h"
#include <stdio.h>
#include <string.h>

/* Each ends with NULL. Results stay the same to the bit. */
static const kn_pass *const capture[] = {
    &kn_pass_history,  /* what is left of it keeps dce from nothing */
    &kn_pass_fold,     /* decides branches, so that dce finds more to remove */
    &kn_pass_simplify, /* what is left of expressions */
    &kn_pass_cse,      /* what indexing checks again and again, rules of gradients compute again */
    &kn_pass_dce,      NULL,
};
/* Run after the one above, until neither changes anything. Rounding may change. */
static const kn_pass *const inference[] = {
    &kn_pass_simplify_close,
    &kn_pass_cse_all,
    NULL,
};
static const kn_pass *const *const orders[KN_PIPELINE_COUNT] = {capture, inference};
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
  if (st == KN_OK) st = kn_graph_verify(b->ctx, b->graph, false);
#endif
  if (st != KN_OK) {
    kn_error_prefix(b->ctx, "pass %s", pass->name);
    if (b->status == KN_OK) b->status = st;
  }
  return st;
}

kn_status kn_pipeline_run(kn_builder *b, kn_pipeline which) {
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t all = 0;
    for (int level = 0; level <= (int)which; level++)
      for (const kn_pass *const *pass = orders[level]; *pass; pass++) {
        uint32_t changes;
        KN_TRY(kn_pass_run(b, *pass, &changes));
        all += changes;
      }
    if (!all) break;
  }
  return KN_OK;
}
