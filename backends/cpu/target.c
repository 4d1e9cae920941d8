/* Graphs: the nodes of a part, one after the other, by the same kernels as eager ops, so a graph gives the
 * same bits; elementwise ones that follow each other as chains of the same loops. */
#include "backends/cpu/attention.h"
#include "backends/cpu/chain.h"
#include "backends/cpu/cpu.h"
#include "backends/cpu/rms.h"
#include "backends/cpu/total.h"
#include <stdio.h>
#include <string.h>

typedef enum item_kind {
  ITEM_ATTENTION,
  ITEM_NORM,
  ITEM_CHAIN,
  ITEM_PRODUCT,
  ITEM_TOTAL,
  ITEM_NODE
} item_kind;

typedef struct item { /* what runs as one: n nodes from `first` on */
  item_kind kind;
  uint32_t first, n;
  union {
    cp_attention *attention;
    cp_rms *norm;
    cp_chain *chain;
    cp_total *total;
  } of;
} item;

struct kn_program {
  const kn_node *const *nodes; /* of the part */
  uint32_t n, nitems, ngroups;
  item *items, *groups;  /* all; the attentions and norms among them, whose they are */
  cp_product **products; /* by node: of a matmul that has run */
  bool *own;             /* by node: a matmul that is ours whatever eager code would do */
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

static bool is_group(const item *x) { return x->kind == ITEM_ATTENTION || x->kind == ITEM_NORM; }

static void free_item(kn_context *ctx, item *x) {
  switch (x->kind) {
  case ITEM_ATTENTION: cp_attention_free(ctx, x->of.attention); break;
  case ITEM_NORM: cp_rms_free(ctx, x->of.norm); break;
  case ITEM_CHAIN: cp_chain_free(ctx, x->of.chain); break;
  case ITEM_TOTAL: cp_total_free(ctx, x->of.total); break;
  case ITEM_PRODUCT:
  case ITEM_NODE: break;
  }
}

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  for (uint32_t i = 0; i < p->ngroups; i++) free_item(ctx, &p->groups[i]);
  for (uint32_t i = 0; i < p->nitems; i++)
    if (!is_group(&p->items[i])) free_item(ctx, &p->items[i]);
  for (uint32_t i = 0; p->products && i < p->n; i++) cp_product_free(ctx, p->products[i]);
  kn_free(ctx->heap, p->items, p->n * sizeof *p->items);
  kn_free(ctx->heap, p->groups, p->n * sizeof *p->groups);
  kn_free(ctx->heap, p->products, p->n * sizeof *p->products);
  kn_free(ctx->heap, p->own, p->n);
  kn_free(ctx->heap, p, sizeof *p);
}

/* A product whose sizes others have seen and left to us, for whatever reason: a rule, or what was measured.
 * Where neither may count, eager code is asked again at each run. */
static bool is_own(const kn_context *ctx, const kn_node *n, const kn_type *types) {
  char why[64];
  return n->op == KN_OP_matmul && kn_context_tuning(ctx) != KN_TUNING_FIXED &&
         kn_node_static(n, types, why, sizeof why);
}

/* Attention and norms are found first: chains end where one begins. */
static kn_status find_group(kn_context *ctx, const cp_set *set, const kn_part *part, uint32_t i, item *x) {
  *x = (item){.kind = ITEM_ATTENTION, .first = i, .n = 1};
  KN_TRY(cp_attention_new(ctx, set, part, i, &x->of.attention));
  if (x->of.attention) return x->n = cp_attention_length(x->of.attention), KN_OK;
  x->kind = ITEM_NORM;
  KN_TRY(cp_rms_new(ctx, set, part, i, &x->of.norm));
  if (x->of.norm) return x->n = cp_rms_length(x->of.norm), KN_OK;
  x->kind = ITEM_NODE;
  return KN_OK;
}

static kn_status find_chain(kn_context *ctx, const cp_set *set, const kn_part *before, uint32_t i, item *x) {
  const kn_node *n = before->nodes[i];
  *x = (item){.kind = ITEM_CHAIN, .first = i, .n = 1};
  KN_TRY(cp_chain_new(ctx, set, before, i, &x->of.chain));
  if (x->of.chain) return x->n = cp_chain_length(x->of.chain), KN_OK;
  x->kind = n->op == KN_OP_matmul ? ITEM_PRODUCT : ITEM_TOTAL;
  if (x->kind == ITEM_TOTAL) KN_TRY(cp_total_new(ctx, set, n, before->types, &x->of.total));
  if (x->kind == ITEM_TOTAL && !x->of.total) x->kind = ITEM_NODE;
  return KN_OK;
}

static kn_status find_items(kn_context *ctx, const cp_set *set, const kn_part *part, kn_program *p) {
  for (uint32_t i = 0; i < part->n;
       i += p->groups[p->ngroups].n, p->ngroups += is_group(&p->groups[p->ngroups]))
    KN_TRY(find_group(ctx, set, part, i, &p->groups[p->ngroups]));
  kn_part before = *part;
  for (uint32_t i = 0, g = 0; i < part->n; i += p->items[p->nitems++].n) {
    item *x = &p->items[p->nitems];
    before.n = g < p->ngroups ? p->groups[g].first : part->n;
    if (i == before.n)
      *x = p->groups[g++];
    else
      KN_TRY(find_chain(ctx, set, &before, i, x));
  }
  return KN_OK;
}

static kn_status compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  const cp_set *set = self;
  kn_program *p = kn_calloc(ctx->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  p->nodes = part->nodes;
  p->n = part->n;
  p->items = kn_calloc(ctx->heap, p->n, sizeof *p->items);
  p->groups = kn_calloc(ctx->heap, p->n, sizeof *p->groups);
  p->products = kn_calloc(ctx->heap, p->n, sizeof *p->products);
  p->own = kn_calloc(ctx->heap, p->n, 1);
  const bool room = p->items && p->groups && p->products && p->own;
  kn_status st = room ? find_items(ctx, set, part, p) : kn_fail_nomem(ctx, p->n * sizeof *p->items);
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

static kn_status run_singly(const cp_set *set, kn_context *ctx, kn_program *p, uint32_t i, kn_tensor **vals) {
  return p->nodes[i]->op == KN_OP_matmul ? run_matmul(set, ctx, p, i, vals)
                                         : run_node(set, ctx, p->nodes[i], vals);
}

static kn_status run_attention(const cp_set *set, kn_context *ctx, kn_program *p, const item *x,
                               kn_tensor **vals) {
  const uint32_t *others, n = cp_attention_others(x->of.attention, &others);
  for (uint32_t i = 0; i < n; i++) KN_TRY(run_singly(set, ctx, p, x->first + others[i], vals));
  return cp_attention_run(ctx, x->of.attention, vals);
}

/* DECLINED where its nodes have to run one by one. */
static kn_status run_item(const cp_set *set, kn_context *ctx, kn_program *p, const item *x,
                          kn_tensor **vals) {
  kn_status st = KN_DECLINED;
  switch (x->kind) {
  case ITEM_PRODUCT: return run_matmul(set, ctx, p, x->first, vals);
  case ITEM_NODE: return run_node(set, ctx, p->nodes[x->first], vals);
  case ITEM_ATTENTION: st = run_attention(set, ctx, p, x, vals); break;
  case ITEM_NORM: st = cp_rms_run(ctx, x->of.norm, vals); break;
  case ITEM_CHAIN: st = cp_chain_run(ctx, x->of.chain, vals); break;
  case ITEM_TOTAL: st = cp_total_run(x->of.total, vals); break;
  }
  if (st == KN_OK && kn_debugging(ctx, KN_DEBUG_EXEC))
    kn_log_group(ctx, "cpu", p->nodes + x->first, x->n, set->provider->name, vals);
  return st;
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  const cp_set *set = self;
  (void)scalars;
  for (const item *x = p->items; x < p->items + p->nitems; x++) {
    kn_status st = run_item(set, ctx, p, x, vals);
    uint32_t i = x->first; /* whom an error names */
    if (st == KN_DECLINED)
      while ((st = run_singly(set, ctx, p, i, vals)) == KN_OK && ++i < x->first + x->n) continue;
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

static void memory(void *self, const kn_program *p, kn_part_memory *m) {
  (void)self;
  for (uint32_t i = 0; i < p->nitems; i++)
    if (p->items[i].kind == ITEM_CHAIN) m->packed += cp_chain_packed(p->items[i].of.chain);
}

kn_target cp_target_of(const cp_set *set) {
  return (kn_target){.name = "cpu",
                     .supports = supports,
                     .wants = wants,
                     .joins = joins,
                     .compile = compile,
                     .run = run,
                     .free = free_program,
                     .memory = memory,
                     .self = (void *)(uintptr_t)set};
}

bool cp_target(kn_context *ctx, void *state, kn_target *out) {
  (void)ctx, (void)state;
  *out = cp_target_of(cp_best_set());
  return true;
}
