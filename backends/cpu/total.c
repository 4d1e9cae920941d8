/* See total.h. Compiled once. */
#include "backends/cpu/total.h"

struct cp_total {
  cp_fold_of of;
  uint32_t x, out; /* values */
  int64_t n;
};

kn_status cp_total_new(kn_context *ctx, const cp_set *set, const kn_node *n, const kn_type *types,
                       cp_total **out) {
  const cp_reduction *how = cp_reduction_of((int)n->op);
  const kn_type *x = &types[n->in[0]->id], *to = &types[n->out[0]->id];
  cp_total t = {.x = n->in[0]->id, .out = n->out[0]->id};
  *out = NULL;
  if (!how || kn_type_numel(to) != 1 || !cp_reduces_at_once((kn_dtype)x->dtype, kn_type_numel(x)) ||
      !cp_fold_find(set->isa, set->folds, how, (kn_dtype)x->dtype, (kn_dtype)to->dtype, kn_type_numel(x),
                    &t.of))
    return KN_OK;
  t.n = kn_type_numel(x);
  *out = kn_alloc(ctx->heap, sizeof t);
  if (!*out) return kn_fail_nomem(ctx, sizeof t);
  **out = t;
  return KN_OK;
}

void cp_total_free(kn_context *ctx, cp_total *t) { kn_free(ctx->heap, t, sizeof *t); }

kn_status cp_total_run(const cp_total *t, kn_tensor *const *vals) {
  int64_t acc[1];
  if (!kn_tensor_contiguous(vals[t->x])) return KN_DECLINED;
  cp_fold_start(&t->of, acc, 1);
  t->of.each(acc, kn_tensor_data(vals[t->x]), 1, t->n);
  cp_fold_finish(&t->of, acc, 1, kn_tensor_data(vals[t->out]));
  return KN_OK;
}
