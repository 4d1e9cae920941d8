/* Graphs: the nodes of a part, one after the other, by the same kernels as eager ops, so a graph gives the
 * same bits; elementwise ones that follow each other as chains of the same loops. */
#include "backends/cpu/attention.h"
#include "backends/cpu/chain.h"
#include "backends/cpu/cpu.h"
#include "backends/cpu/rms.h"
#include <stdio.h>
#include <string.h>

struct kn_program {
  const kn_node *const *nodes; /* of the part */
  cp_chain **chains;           /* by node: the chain that begins there */
  cp_rms **norms;              /* by node: the rms_norm whose parts begin there */
  cp_attention **attentions;   /* likewise */
  cp_product **products;       /* by node: of a matmul that has run */
  bool *own;                   /* by node: a matmul that is ours whatever eager code would do */
  uint32_t n;
};

static bool supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                     size_t size) {
  (void)ctx;
  const kn_provider *p = ((const cp_set *)self)->provider;
  if (!kn_opcode_is_op(n->op) || !p->kernel[n->op]) {
    snprintf(why, size, "not an op of this backend");
    return false;
  }
  if (kn_ops[n->op].flags & KN_FLAG_WRITES) {
    snprintf(why, size, "it overwrites a tensor");
    return false;
  }
  return kn_node_static(n, types, why, size);
}

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  for (uint32_t i = 0; p->chains && i < p->n; i++) cp_chain_free(ctx, p->chains[i]);
  for (uint32_t i = 0; p->norms && i < p->n; i++) cp_rms_free(ctx, p->norms[i]);
  for (uint32_t i = 0; p->attentions && i < p->n; i++) cp_attention_free(ctx, p->attentions[i]);
  for (uint32_t i = 0; p->products && i < p->n; i++) cp_product_free(ctx, p->products[i]);
  kn_free(ctx->heap, p->chains, p->n * sizeof *p->chains);
  kn_free(ctx->heap, p->norms, p->n * sizeof *p->norms);
  kn_free(ctx->heap, p->attentions, p->n * sizeof *p->attentions);
  kn_free(ctx->heap, p->products, p->n * sizeof *p->products);
  kn_free(ctx->heap, p->own, p->n);
  kn_free(ctx->heap, p, sizeof *p);
}

/* Nodes that run together from node i on. */
static uint32_t length_at(const kn_program *p, uint32_t i) {
  if (p->attentions[i]) return cp_attention_length(p->attentions[i]);
  return p->norms[i] ? cp_rms_length(p->norms[i]) : p->chains[i] ? cp_chain_length(p->chains[i]) : 1;
}

/* A product whose sizes others have seen and left to us, for whatever reason: a rule, or what was measured.
 * Where neither may count, eager code is asked again at each run. */
static bool is_own(const kn_context *ctx, const kn_node *n, const kn_type *types) {
  char why[64];
  return n->op == KN_OP_matmul && kn_context_tuning(ctx) != KN_TUNING_FIXED &&
         kn_node_static(n, types, why, sizeof why);
}

/* A group that is no chain. */
static bool begins(const kn_program *p, uint32_t i) { return p->norms[i] || p->attentions[i]; }

static kn_status compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  const cp_set *set = self;
  kn_program *p = kn_calloc(ctx->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  p->nodes = part->nodes;
  p->n = part->n;
  p->chains = kn_calloc(ctx->heap, p->n, sizeof *p->chains);
  p->norms = kn_calloc(ctx->heap, p->n, sizeof *p->norms);
  p->attentions = kn_calloc(ctx->heap, p->n, sizeof *p->attentions);
  p->products = kn_calloc(ctx->heap, p->n, sizeof *p->products);
  p->own = kn_calloc(ctx->heap, p->n, 1);
  const bool room = p->chains && p->norms && p->attentions && p->products && p->own;
  kn_status st = room ? KN_OK : kn_fail_nomem(ctx, p->n * sizeof *p->chains);
  for (uint32_t i = 0; i < p->n && st == KN_OK; i += length_at(p, i)) {
    st = cp_attention_new(ctx, set, part, i, &p->attentions[i]);
    if (st == KN_OK && !p->attentions[i]) st = cp_rms_new(ctx, set, part, i, &p->norms[i]);
  }
  kn_part before = *part; /* chains end where something else begins */
  before.n = 0;
  for (uint32_t i = 0; i < p->n && st == KN_OK; i += length_at(p, i)) {
    while (before.n < p->n && (before.n <= i || !begins(p, before.n))) before.n++;
    if (!begins(p, i)) st = cp_chain_new(ctx, set, &before, i, &p->chains[i]);
  }
  for (uint32_t i = 0; i < p->n && st == KN_OK; i++) p->own[i] = is_own(ctx, part->nodes[i], part->types);
  if (st == KN_OK)
    *out = p;
  else
    free_program(self, ctx, p);
  return st;
}

/* By whom eager code would have it computed, which depends on sizes and strides; if by us, that is kept. */
static kn_status run_matmul(const cp_set *set, kn_context *ctx, kn_program *p, uint32_t i, kn_tensor **vals) {
  const kn_node *n = p->nodes[i];
  kn_tensor *in[2] = {vals[n->in[0]->id], vals[n->in[1]->id]}, *out = vals[n->out[0]->id];
  const char *by = "ref";
  if (p->products[i] && cp_product_fits(p->products[i], in) && !kn_debugging(ctx, KN_DEBUG_DISPATCH)) {
    kn_status st = cp_product_run(ctx, p->products[i], in, out);
    if (st == KN_OK && kn_debugging(ctx, KN_DEBUG_EXEC))
      kn_log_node(ctx, "cpu", n, set->provider->name, vals);
    return st;
  }
  kn_status st = p->own[i] ? set->provider->kernel[n->op](ctx, n->attrs, in, 2, &out) : KN_DECLINED;
  if (st == KN_OK) by = set->provider->name;
  if (st == KN_DECLINED) st = kn_device_run(ctx, KN_OP_matmul, n->attrs, in, 2, &out, &by);
  if (st != KN_OK) return st;
  if (kn_debugging(ctx, KN_DEBUG_EXEC)) kn_log_node(ctx, "cpu", n, by, vals);
  cp_product_free(ctx, p->products[i]);
  p->products[i] = NULL;
  if (strcmp(by, set->provider->name)) return KN_OK;
  st = cp_product_new(ctx, set->kits, in, out, &p->products[i]);
  return st == KN_DECLINED ? KN_OK : st;
}

/* What eager code has no kernel for: a copy that joined nodes of which it then was none. */
static kn_status run_copy(kn_context *ctx, const kn_node *n, kn_tensor **vals) {
  const char *impl;
  if (!vals[n->out[0]->id]) KN_TRY(kn_node_outputs(ctx, n, n->attrs, vals));
  kn_status st = kn_node_view(ctx, n, n->attrs, vals, &impl);
  if (st == KN_OK && kn_debugging(ctx, KN_DEBUG_EXEC)) kn_log_node(ctx, "ref", n, impl, vals);
  return st;
}

static kn_status run_node(const cp_set *set, kn_context *ctx, const kn_node *n, kn_tensor **vals) {
  const kn_provider *cpu = set->provider;
  kn_tensor *in[KN_MAX_INPUTS], *out[KN_MAX_OUTPUTS];
  if (kn_ops[n->op].op_class == KN_CLASS_VIEW) return run_copy(ctx, n, vals);
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = vals[n->in[i]->id];
  for (uint32_t i = 0; i < n->nout; i++) out[i] = vals[n->out[i]->id];
  kn_status st = cpu->kernel[n->op](ctx, n->attrs, in, (int)n->ntensor, out);
  bool declined = st == KN_DECLINED;
  if (declined) st = kn_ops[n->op].kernel(ctx, n->attrs, in, (int)n->ntensor, out);
  if (st == KN_OK && kn_debugging(ctx, KN_DEBUG_EXEC))
    kn_log_node(ctx, declined ? "ref" : "cpu", n, declined ? "ref (cpu declined)" : cpu->name, vals);
  return st;
}

static kn_status run_attention(const cp_set *set, kn_context *ctx, kn_program *p, uint32_t first,
                               kn_tensor **vals) {
  const uint32_t *others, n = cp_attention_others(p->attentions[first], &others);
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t at = first + others[i];
    KN_TRY(p->nodes[at]->op == KN_OP_matmul ? run_matmul(set, ctx, p, at, vals)
                                            : run_node(set, ctx, p->nodes[at], vals));
  }
  return cp_attention_run(ctx, p->attentions[first], vals);
}

/* Several nodes as one; DECLINED where they have to run one by one. */
static kn_status run_together(const cp_set *set, kn_context *ctx, kn_program *p, uint32_t first,
                              kn_tensor **vals) {
  kn_status st = p->attentions[first] ? run_attention(set, ctx, p, first, vals)
                 : p->norms[first]    ? cp_rms_run(ctx, p->norms[first], vals)
                 : p->chains[first]   ? cp_chain_run(ctx, p->chains[first], vals)
                                      : KN_DECLINED;
  if (st == KN_OK && kn_debugging(ctx, KN_DEBUG_EXEC))
    kn_log_group(ctx, "cpu", p->nodes + first, length_at(p, first), set->provider->name, vals);
  return st;
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  const cp_set *set = self;
  (void)scalars;
  for (uint32_t i = 0; i < p->n; i++) {
    kn_status st = run_together(set, ctx, p, i, vals);
    if (st == KN_OK) i += length_at(p, i) - 1;
    if (st == KN_OK) continue;
    bool product = p->nodes[i]->op == KN_OP_matmul;
    if (st == KN_DECLINED)
      st = product ? run_matmul(set, ctx, p, i, vals) : run_node(set, ctx, p->nodes[i], vals);
    if (st != KN_OK) return kn_node_failed(ctx, p->nodes[i], st);
  }
  return KN_OK;
}

static bool wants(void *self, const kn_part *so_far, const kn_node *n) {
  return cp_attention_wants(self, so_far, n);
}

static bool joins(void *self, const kn_part *so_far, const kn_node *n) {
  return cp_attention_joins(self, so_far, n);
}

kn_target cp_target_of(const cp_set *set) {
  return (kn_target){.name = "cpu",
                     .supports = supports,
                     .wants = wants,
                     .joins = joins,
                     .compile = compile,
                     .run = run,
                     .free = free_program,
                     .self = (void *)(uintptr_t)set};
}

bool cp_target(kn_context *ctx, void *state, kn_target *out) {
  (void)ctx, (void)state;
  *out = cp_target_of(cp_best_set());
  return true;
}
