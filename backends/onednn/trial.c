/* Making and freeing what is tried. */
#include "backends/onednn/trial.h"
#include "core/tensor.h"
#include <string.h>

/* What repeats does so at odd places. */
static void fill(kn_tensor *t) {
  enum { PERIOD = 4099 };
  float *x = kn_tensor_data(t);
  int64_t n = kn_type_numel(&t->type);
  uint32_t state = 12345;
  for (int64_t i = 0; i < n && i < PERIOD; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = (float)(state >> 8 | 1u) / (float)(1 << 23) - 1;
  }
  for (int64_t done = PERIOD; done < n; done *= 2)
    memcpy(x + done, x, (size_t)(done < n - done ? done : n - done) * sizeof *x);
}

kn_status dn_trial_floats(kn_context *ctx, int64_t n, kn_tensor **out) {
  kn_type type = {.dtype = KN_F32, .rank = 1, .dims = {n}};
  KN_TRY(kn_tensor_new(ctx, &type, out));
  fill(*out);
  return KN_OK;
}

size_t dn_trial_bytes(const dn_library *l, dnnl_primitive_desc_t pd, int arg) {
  dn_md_ref md = l->primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arg);
  return md ? l->memory_desc_get_size(md) : 0;
}

dnnl_status_t dn_trial_bind(dn_state *s, dn_trial *t, dnnl_primitive_desc_t pd, int arg, void *data) {
  const dn_library *l = dn_state_library(s);
  if (!dn_trial_bytes(l, pd, arg)) return dnnl_success;
  dn_md_ref md = l->primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arg);
  dnnl_status_t st = l->memory_create(&t->memory[t->nargs], md, dn_state_engine(s), data);
  if (st) return st;
  t->args[t->nargs] = (dnnl_exec_arg_t){arg, t->memory[t->nargs]};
  t->nargs++;
  return st;
}

void dn_trial_free(const dn_library *l, dn_trial *t) {
  if (t->primitive) l->primitive_destroy(t->primitive);
  for (int i = 0; i < DN_STEP_ARGS; i++)
    if (t->memory[i]) l->memory_destroy(t->memory[i]);
}
