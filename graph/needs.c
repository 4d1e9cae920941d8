/* What a graph needs of its inputs beside their types: kept, verified, and checked before a run. What capture
 * assumed of arguments is either here, where every run sees it, or a guard that only the live side checks. */
#include "core/grad/tape.h"
#include "graph/exec.h"
#include "graph/internal.h"
#include "graph/writer.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const kn_need_info kn_need_kinds[KN_NEED_COUNT] = {
#define NEED(name, text, of, doc) {text, KN_NEED_OF_##of, doc},
#include "graph/needs.def"
#undef NEED
};

static const char *text_of(kn_builder *b, const kn_need *need) {
  char buf[32 * KN_MAX_RANK];
  const char *word = kn_need_kinds[need->kind].text;
  if (need->kind != KN_NEED_strides) return word;
  int n = snprintf(buf, sizeof buf, "%s {", word);
  for (int d = 0; d < need->input->type.tensor.rank; d++)
    n += snprintf(buf + n, sizeof buf - (size_t)n, "%s%" PRId64, d ? ", " : "", need->strides[d]);
  snprintf(buf + n, sizeof buf - (size_t)n, "}");
  return kn_build_text(b, buf);
}

bool kn_add_need(kn_builder *b, kn_need need) {
  kn_graph *g = b->graph;
  if (kn_find_need(g, need.input, need.kind)) return b->status == KN_OK;
  if (!(need.text = text_of(b, &need))) return false;
  return b->status == KN_OK && kn_build_push(b, &g->needs, &g->nneeds, &need, sizeof need);
}

const kn_need *kn_find_need(const kn_graph *g, const kn_value *input, kn_need_kind kind) {
  for (uint32_t i = 0; i < g->nneeds; i++)
    if (g->needs[i].input == input && g->needs[i].kind == kind) return &g->needs[i];
  return NULL;
}

const char *kn_need_wrong(const kn_graph *g, const kn_need *need) {
  if ((unsigned)need->kind >= KN_NEED_COUNT) return "it is of no known kind";
  kn_need_of of = kn_need_kinds[need->kind].of;
  const kn_value *v = need->input;
  if (of == KN_NEED_OF_RUN) return v ? "it is no input's" : NULL;
  if (!v || v->def || v->region != g->body) return "it is of no input";
  bool tensor = v->type.kind == KN_V_TENSOR, number = v->type.kind == KN_V_INT || v->type.kind == KN_V_FLOAT;
  if (of == KN_NEED_OF_TENSOR ? !tensor : !number) return "the input is of another kind";
  for (int d = 0; need->kind == KN_NEED_strides && d < v->type.tensor.rank; d++)
    if (need->strides[d] < 0) return "a stride is negative";
  return NULL;
}

static kn_status check(kn_context *ctx, const kn_need *need, const kn_tensor *t) {
  const kn_value *v = need->input;
  char name[128];
  bool same = true;
  if (v->name)
    snprintf(name, sizeof name, "input %.100s", v->name);
  else
    snprintf(name, sizeof name, "input %u", v->index + 1);
  switch (need->kind) {
  case KN_NEED_contiguous:
    if (kn_tensor_contiguous(t)) return KN_OK;
    return kn_fail(ctx, KN_ARG,
                   "%s is not contiguous, and the graph was made for one that is; give a contiguous tensor",
                   name);
  case KN_NEED_strides:
    for (int d = 0; d < t->type.rank; d++) same &= t->strides[d] == need->strides[d];
    if (same) return KN_OK;
    return kn_fail(ctx, KN_ARG, "%s does not have the %s that the graph was made for", name, need->text);
  case KN_NEED_no_grad:
    if (!kn_requires_grad(t)) return KN_OK;
    return kn_fail(ctx, KN_ARG,
                   "%s requires grad, and the graph was made for one that does not; give it detached", name);
  default: return KN_OK;
  }
}

kn_status kn_check_needs(kn_context *ctx, const kn_graph *g, const kn_rvalue *in) {
  for (uint32_t i = 0; i < g->nneeds; i++) {
    const kn_need *need = &g->needs[i];
    const kn_tensor *t = need->input ? in[need->input->index].tensor : NULL;
    if (t) KN_TRY(check(ctx, need, t));
  }
  return KN_OK;
}

const char *kn_mode_needed(const kn_graph *g, bool grad) {
  if (!grad && kn_find_need(g, NULL, KN_NEED_gradients)) return "the graph was made with gradients on";
  if (grad && kn_find_need(g, NULL, KN_NEED_no_gradients)) return "the graph was made with gradients off";
  return NULL;
}
