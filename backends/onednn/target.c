/* Graphs: a part is cut into groups, which run as a sequence of primitives; nodes that oneDNN has nothing for
 * keep what an eager op would make, from run to run. */
#include "backends/onednn/call.h"
#include "backends/onednn/choice.h"
#include "backends/onednn/onednn.h"
#include "backends/onednn/sequence.h"
#include "core/device.h"
#include "core/parallel.h"
#include <stdio.h>
#include <string.h>

enum { MOST_CUTS = 64, MOST_REFUSALS = 3 };

struct kn_program {
  kn_heap *heap;
  kn_part part;    /* nodes, types, reads and roots live as long as the plan */
  dn_cut cut;      /* the part in groups */
  uint8_t *fold;   /* by node: how much may be folded into it */
  dn_sequence *q;  /* of the operands as they lay in the last run; NULL: oneDNN has nothing for that */
  dn_call *calls;  /* by node: of those that are computed as eager ops */
  int refusals;    /* how often oneDNN had nothing for the operands' layouts, one run after the other */
  void *workspace; /* as large as any call needs */
  size_t bytes;
};

static void views_of(const kn_node *n, const kn_type *types, int64_t strides[][KN_MAX_RANK], dn_view *views) {
  for (uint32_t i = 0; i < n->ntensor; i++) {
    const kn_type *t = &types[n->in[i]->id];
    kn_strides_contiguous(t, strides[i]);
    views[i] = (dn_view){t, strides[i]};
  }
}

/* Filters that never change are packed, so layouts are free; where oneDNN has nothing after all, such a node
 * is computed as eager would. */
static bool is_packed_conv(const kn_node *n, const kn_type *types, char *why, size_t size) {
  const kn_type *x = &types[n->in[0]->id], *y = &types[n->out[0]->id];
  return dn_cut_leads(n) && kn_node_static(n, types, why, size) && x->rank == 4 && x->dtype == KN_F32 &&
         types[n->in[1]->id].dtype == KN_F32 && kn_type_numel(x) > 0 && kn_type_numel(y) > 0;
}

static bool computes(void *self, kn_context *of, const kn_node *n, const kn_type *types, char *why,
                     size_t size) {
  (void)of;
  if (!kn_opcode_is_op(n->op) || !dn_offers((kn_op)n->op)) {
    snprintf(why, size, "not an op of this backend");
    return false;
  }
  if (!kn_node_static(n, types, why, size)) return false;
  dn_state *s = self;
  /* Called from any thread, so with a context of its own for a failure's sentence. */
  kn_context ctx = {.heap = dn_state_heap(s), .threads = dn_state_threads(s)};
  int64_t strides[DN_MAX_IN][KN_MAX_RANK];
  dn_view views[DN_MAX_IN];
  dn_problem p;
  unsigned copy;
  dn_primitive *q;
  views_of(n, types, strides, views);
  if (!dn_describe((kn_op)n->op, n->attrs, views, (int)n->ntensor, &types[n->out[0]->id], ctx.threads, &p,
                   &copy, why, size))
    return false;
  kn_status st = dn_state_primitive(s, &ctx, &p, &q, why, size);
  if (st == KN_OK)
    dn_primitive_release(q);
  else if (st != KN_DECLINED)
    snprintf(why, size, "%s", kn_error(&ctx));
  return st == KN_OK;
}

/* What was measured for a product; operands lie as they most likely will. */
static dn_choice choose(dn_state *s, kn_context *ctx, const kn_node *n, const kn_type *types,
                        const dn_view *views) {
  dn_view in[2] = {views[0], views[1]};
  const kn_type *out = &types[n->out[0]->id];
  int64_t own[KN_MAX_RANK];
  dn_problem p;
  unsigned copy;
  char why[96];
  bool constant = kn_constant_of(n->in[1], own);
  if (constant) in[1].strides = own;
  if (!dn_describe(KN_OP_matmul, n->attrs, in, 2, out, kn_parallel_library_threads(ctx), &p, &copy, why,
                   sizeof why) ||
      copy)
    return (dn_choice){0};
  return dn_choose_product(s, ctx, &(dn_product){n, in, out, &p, constant && p.arg[1].rank == 2});
}

/* The same beside other backends, which get what is slow here. */
static bool supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                     size_t size) {
  if (n->op == KN_OP_conv2d && is_packed_conv(n, types, why, size)) return true;
  bool offered = kn_opcode_is_op(n->op) && dn_offers((kn_op)n->op);
  if (!offered || !kn_node_static(n, types, why, size)) return computes(self, ctx, n, types, why, size);
  int64_t strides[DN_MAX_IN][KN_MAX_RANK];
  dn_view views[DN_MAX_IN];
  views_of(n, types, strides, views);
  for (uint32_t i = 0; i < n->ntensor; i++) kn_guess_strides(n->in[i], types, strides[i]);
  dn_choice c = {0};
  if (n->op == KN_OP_matmul) c = choose(self, ctx, n, types, views);
  if (c.measured ? !c.elsewhere : !dn_is_slow((kn_op)n->op, n->attrs, views))
    return computes(self, ctx, n, types, why, size);
  snprintf(why, size, c.measured ? "measured: others do it faster" : "others do it better");
  return false;
}

static bool joins(void *self, const kn_part *so_far, const kn_node *n) {
  (void)self;
  return dn_cut_joins(so_far, n);
}

/* ---- compiling ---- */

static kn_status grow(kn_context *ctx, kn_program *p, size_t bytes) {
  if (bytes <= p->bytes) return KN_OK;
  void *more = kn_alloc_aligned(p->heap, bytes);
  if (!more) return kn_fail_nomem(ctx, bytes);
  kn_free_aligned(p->heap, p->workspace, p->bytes);
  p->workspace = more;
  p->bytes = bytes;
  return KN_OK;
}

/* KN_DECLINED is left to the run, which computes such a node as eager would. */
static kn_status prepare(dn_state *s, kn_context *ctx, kn_program *p, uint32_t k, const dn_view *views,
                         const kn_type *out, char *why, size_t size) {
  const kn_node *n = p->part.nodes[k];
  dn_call_drop(&p->calls[k]);
  KN_TRY(
      dn_call_prepare(s, ctx, (kn_op)n->op, n->attrs, views, (int)n->ntensor, out, &p->calls[k], why, size));
  return grow(ctx, p, dn_call_workspace(&p->calls[k]));
}

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self;
  if (!p) return;
  kn_heap *heap = p->heap;
  for (uint32_t i = 0; p->calls && i < p->part.n; i++) dn_call_drop(&p->calls[i]);
  dn_sequence_free(p->q);
  dn_cut_free(ctx, &p->part, &p->cut);
  kn_free_aligned(heap, p->workspace, p->bytes);
  kn_free(heap, p->calls, p->part.n * sizeof *p->calls);
  kn_free(heap, p->fold, p->part.n);
  kn_free(heap, p, sizeof *p);
}

/* Cuts the part and makes what it runs; with less folded in where oneDNN has nothing for it. */
static kn_status cut_and_build(void *self, kn_context *ctx, kn_program *p) {
  kn_status st = KN_UNSUPPORTED;
  for (int i = 0; i < MOST_CUTS && st == KN_UNSUPPORTED; i++) {
    dn_cut_free(ctx, &p->part, &p->cut);
    KN_TRY(dn_cut_new(ctx, &p->part, p->fold, &p->cut));
    st = dn_build(ctx, self, &p->part, &p->cut, NULL, p->fold, &p->q);
  }
  return st;
}

static kn_status prepare_apart(void *self, kn_context *ctx, kn_program *p) {
  for (uint32_t i = 0; i < p->cut.n; i++) {
    const dn_group *g = &p->cut.groups[i];
    if (g->kind != DN_GROUP_APART || !dn_offers((kn_op)g->main->op)) continue;
    const kn_node *n = g->main;
    int64_t strides[DN_MAX_IN][KN_MAX_RANK];
    dn_view views[DN_MAX_IN];
    char why[96];
    views_of(n, p->part.types, strides, views);
    for (uint32_t k = 0; k < n->ntensor; k++) kn_guess_strides(n->in[k], p->part.types, strides[k]);
    kn_status st = prepare(self, ctx, p, g->first, views, &p->part.types[n->out[0]->id], why, sizeof why);
    if (st != KN_OK && st != KN_DECLINED) return kn_node_failed(ctx, n, st);
  }
  return KN_OK;
}

/* What the plan is to know: groups whose nodes are apart, and values that need no memory of its own. */
static void tell(const kn_program *p, const kn_part *part) {
  for (uint32_t i = 0; i < p->cut.n; i++) {
    const dn_group *g = &p->cut.groups[i];
    uint32_t length = g->last - g->first + 1;
    if (length > part->together[g->first]) part->together[g->first] = length > 1 ? length : 0;
  }
  for (uint32_t k = 0; k < part->n; k++) {
    uint32_t v = part->nodes[k]->out[0]->id;
    if (p->cut.hidden[v]) part->room[v] = KN_ROOM_NONE;
  }
}

static kn_status compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  kn_program *p = kn_calloc(ctx->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  p->heap = ctx->heap;
  p->part = *part;
  p->calls = kn_calloc(p->heap, part->n, sizeof *p->calls);
  p->fold = kn_alloc(p->heap, part->n);
  kn_status st = p->calls && p->fold ? KN_OK : kn_fail_nomem(ctx, part->n * sizeof *p->calls);
  if (st == KN_OK) {
    memset(p->fold, DN_FOLD_ALL, part->n);
    st = cut_and_build(self, ctx, p);
  }
  if (st == KN_OK) st = prepare_apart(self, ctx, p);
  if (st == KN_OK) {
    tell(p, part);
    *out = p;
  } else
    free_program(self, ctx, p);
  return st;
}

/* ---- running ---- */

/* A node as eager ops would compute it. */
static kn_status run_node(dn_state *s, kn_context *ctx, kn_program *p, uint32_t k, kn_tensor **vals) {
  const kn_node *n = p->part.nodes[k];
  dn_call *c = &p->calls[k];
  kn_tensor *in[KN_MAX_INPUTS], *out = vals[n->out[0]->id];
  char why[96] = "", impl[160];
  const char *by = "ref";
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = vals[n->in[i]->id];
  kn_status st = KN_DECLINED;
  if (!dn_offers((kn_op)n->op)) {
    snprintf(why, sizeof why, "not an op of this backend");
  } else if (dn_better_elsewhere(ctx, (kn_op)n->op, n->attrs, in)) {
    snprintf(why, sizeof why, "others do it better");
  } else {
    st = KN_OK;
    if (!dn_call_fits(c, in)) {
      dn_view views[DN_MAX_IN];
      for (uint32_t i = 0; i < n->ntensor; i++) views[i] = (dn_view){&in[i]->type, in[i]->strides};
      st = prepare(s, ctx, p, k, views, &out->type, why, sizeof why);
    }
    if (st == KN_OK) st = dn_call_run(ctx, c, in, out, p->workspace, why, sizeof why);
  }
  bool declined = st == KN_DECLINED;
  if (declined) st = kn_device_run(ctx, (kn_op)n->op, n->attrs, in, (int)n->ntensor, &out, &by);
  if (st != KN_OK || !kn_debugging(ctx, KN_DEBUG_EXEC)) return st;
  if (declined) snprintf(impl, sizeof impl, "%s (%s)", by, why);
  kn_log_node(ctx, declined ? by : "onednn", n, declined ? impl : dn_call_impl(c), vals);
  return st;
}

/* Everything node by node: for operands that oneDNN's functions would take for others, and layouts that it
 * does not know. What has no memory of the plan's gets some for this run. */
static kn_status run_apart(dn_state *s, kn_context *ctx, kn_program *p, kn_tensor **vals) {
  uint32_t n = p->part.n;
  kn_tensor **planned = kn_claim(ctx, n * sizeof(kn_tensor *));
  if (!planned) return kn_fail_nomem(ctx, n * sizeof(kn_tensor *));
  kn_status st = KN_OK;
  for (uint32_t k = 0; k < n; k++) {
    uint32_t v = p->part.nodes[k]->out[0]->id;
    planned[k] = NULL;
    if (st != KN_OK || !p->cut.hidden[v]) continue;
    kn_tensor *t;
    if ((st = kn_tensor_new(ctx, &p->part.types[v], &t)) != KN_OK) continue;
    planned[k] = vals[v];
    vals[v] = t;
  }
  for (uint32_t k = 0; k < n && st == KN_OK; k++) {
    st = run_node(s, ctx, p, k, vals);
    if (st != KN_OK) kn_node_failed(ctx, p->part.nodes[k], st);
  }
  for (uint32_t k = 0; k < n; k++) {
    uint32_t v = p->part.nodes[k]->out[0]->id;
    if (!planned[k]) continue;
    kn_tensor_release(vals[v]);
    vals[v] = planned[k];
  }
  kn_free(kn_claim_heap(ctx), planned, n * sizeof(kn_tensor *));
  return st;
}

static void log_group(kn_context *ctx, const dn_group *g, const dn_step *t, kn_tensor *const *vals) {
  char op[96];
  size_t at = 0;
  bool named = g->kind != DN_GROUP_FUNCTION;
  if (named) at = (size_t)snprintf(op, sizeof op, "%s", kn_op_name((kn_op)g->main->op));
  if (g->bias && g->first != g->last) at += (size_t)snprintf(op + at, sizeof op - at, "+bias");
  for (uint32_t i = 0; i < g->nposts && at < sizeof op; i++)
    at += (size_t)snprintf(op + at, sizeof op - at, "%s%s", at ? "+" : "", g->posts[i].name);
  if (ctx->profile)
    kn_log_group(ctx, "onednn", g->nodes, g->nnodes, t->impl, vals);
  else
    kn_log_nodes(ctx, "onednn", op, g->out->def, t->impl, vals);
}

static kn_status run_group(void *self, kn_context *ctx, kn_program *p, const dn_step *t, kn_tensor **vals) {
  const dn_group *g = &p->cut.groups[t->group];
  if (t->apart) {
    kn_status st = run_node(self, ctx, p, g->first, vals);
    return st == KN_OK ? st : kn_node_failed(ctx, g->main, st);
  }
  dnnl_status_t s = dn_sequence_step(p->q, t);
  if (s) {
    kn_status st =
        kn_fail(ctx, s == dnnl_out_of_memory ? KN_NOMEM : KN_INTERNAL, "%s: oneDNN could not run it: %s",
                kn_op_name((kn_op)g->main->op), dn_status_text(s));
    return kn_node_failed(ctx, g->main, st);
  }
  if (t->main && t->more)
    kn_log_piece(ctx, g->nodes[0]);
  else if (t->main && kn_debugging(ctx, KN_DEBUG_EXEC))
    log_group(ctx, g, t, vals);
  return KN_OK;
}

/* For operands that lie in another way than before. */
static kn_status build_again(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals) {
  dn_sequence *q = NULL;
  if (p->refusals >= MOST_REFUSALS) return KN_OK;
  kn_status st = dn_build(ctx, self, &p->part, &p->cut, vals, p->fold, &q);
  if (st != KN_OK && st != KN_UNSUPPORTED) return st;
  dn_sequence_free(p->q);
  p->q = q;
  p->refusals = q ? 0 : p->refusals + 1;
  return KN_OK;
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  (void)scalars;
  if (!p->q || !dn_sequence_fits(p->q, vals)) KN_TRY(build_again(self, ctx, p, vals));
  if (!p->q || !dn_sequence_fits(p->q, vals)) return run_apart(self, ctx, p, vals);
  if (p->cut.drops_nan && !dn_sequence_ordinary(p->q, vals)) return run_apart(self, ctx, p, vals);
  if (dn_sequence_bind(p->q, vals)) return kn_fail(ctx, KN_INTERNAL, "oneDNN does not take an address");
  for (uint32_t i = 0; i < p->q->nsteps; i++) KN_TRY(run_group(self, ctx, p, &p->q->steps[i], vals));
  return KN_OK;
}

static void memory(void *self, const kn_program *p, kn_part_memory *m) {
  (void)self;
  m->workspace += p->bytes;
  if (p->q) {
    m->workspace += p->q->bytes;
    m->packed += dn_sequence_packed(p->q);
  }
}

bool dn_target(kn_context *ctx, void *state, kn_target *out) {
  bool others = dn_offered_elsewhere(ctx, KN_OP_matmul) && dn_offered_elsewhere(ctx, KN_OP_conv2d);
  *out = (kn_target){.name = "onednn",
                     .supports = others ? supports : computes,
                     .joins = joins,
                     .compile = compile,
                     .run = run,
                     .free = free_program,
                     .memory = memory,
                     .self = state};
  return true;
}
