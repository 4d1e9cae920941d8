/* Graphs that others made, run on small inputs with small budgets: errors are answers, crashes are not. For
 * suites and fuzzers, so without Check. */
#ifndef SPEC_SMALL_RUN_H
#define SPEC_SMALL_RUN_H
#include "core/dispatch.h"
#include "graph/exec.h"
#include <stdlib.h>
#include <string.h>

typedef struct random_state {
  uint64_t s;
} random_state;

static inline unsigned random_below(random_state *r, unsigned n) {
  r->s = r->s * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)((r->s >> 33) % n);
}

/* The upper half of a seed says what inputs hold and how large free sizes are; 0: zeros, and one to three. */
static inline void fill_damaged(kn_tensor *t, unsigned how) {
  static const double numbers[] = {0, 1, -1, 0.5, 2, 3, -2.5, 1e9, 1e-9, 7};
  random_state r = {how};
  kn_dtype d = kn_tensor_dtype(t);
  char *at = kn_tensor_data(t);
  for (int64_t i = 0; how && i < kn_tensor_numel(t); i++, at += kn_dtype_size(d)) {
    double x = numbers[random_below(&r, how % 4 ? 4 : sizeof numbers / sizeof *numbers)];
    if (d == KN_BOOL)
      *at = x > 0;
    else if (kn_dtype_is_float(d))
      kn_element_put_float(d, at, x);
    else
      kn_element_put_float(d, at, kn_dtype_holds(d, x) ? x : 1);
  }
}

static inline kn_status damaged_value(kn_context *c, const kn_vtype *t, uint64_t seed, kn_rvalue *out) {
  const unsigned how = (unsigned)(seed >> 32);
  kn_type real = t->tensor;
  kn_tensor *host;
  size_t bytes;
  out->scalar = t->kind == KN_V_BOOL    ? (kn_scalar){KN_SCALAR_BOOL, {.b = seed & 1}}
                : t->kind == KN_V_FLOAT ? (kn_scalar){KN_SCALAR_FLOAT, {.f = 0.5}}
                                        : (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)(seed % 5)}};
  if (t->kind != KN_V_TENSOR) return KN_OK;
  for (int d = 0; d < real.rank; d++)
    if (real.dims[d] < 0) real.dims[d] = how ? (int64_t)(how % 5) : 1 + (int64_t)(seed % 3);
  real.device = KN_CPU;
  KN_TRY(kn_tensor_new(c, &real, &host));
  if (kn_type_bytes(&real, &bytes)) memset(kn_tensor_data(host), 0, bytes);
  fill_damaged(host, how);
  kn_status st = t->tensor.device == KN_CPU
                     ? (out->tensor = kn_tensor_retain(host), KN_OK)
                     : kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = t->tensor.device}, &host, 1,
                                &out->tensor);
  kn_tensor_release(host);
  return st;
}

static inline kn_status run_damaged(kn_context *c, kn_graph *g, uint64_t seed, uint64_t steps,
                                    const kn_target *const *targets, int n) {
  kn_session *s;
  KN_TRY(kn_session_new(c, g, targets, n, &s));
  kn_session_set_step_limit(s, steps);
  uint32_t nin = g->body->nparams, nout = g->body->nyields;
  kn_rvalue *in = calloc(nin + 1, sizeof *in), *out = calloc(nout + 1, sizeof *out);
  kn_status st = KN_OK;
  for (uint32_t i = 0; i < g->nslots && st == KN_OK; i++) {
    kn_rvalue x = {0};
    if (g->slots[i]->tensor || g->slots[i]->type.kind != KN_V_TENSOR) continue;
    st = damaged_value(c, &g->slots[i]->type, seed, &x);
    if (st == KN_OK) (void)kn_session_set_slot(s, i, &x);
    kn_tensor_release(x.tensor);
  }
  for (uint32_t i = 0; i < nin && st == KN_OK; i++)
    st = damaged_value(c, &g->body->params[i]->type, seed, &in[i]);
  if (st == KN_OK && (st = kn_session_run(s, in, nin, out, nout)) != KN_OK)
    st = kn_fail(c, st, "%s", kn_error(kn_session_context(s)));
  for (uint32_t i = 0; i < nout && st == KN_OK; i++) kn_tensor_release(out[i].tensor);
  for (uint32_t i = 0; i < nin; i++) kn_tensor_release(in[i].tensor);
  free(in);
  free(out);
  kn_session_free(s);
  return st;
}

#endif
