/* Graphs: every node of a part keeps its primitive from run to run, and all share one workspace. */
#include "backends/onednn/call.h"
#include "backends/onednn/onednn.h"
#include "core/device.h"
#include <stdio.h>
#include <string.h>

struct kn_program {
  kn_heap *heap;
  const kn_node *const *nodes; /* of the part */
  dn_call *calls;              /* one a node */
  uint32_t n;
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

/* The strides a value will most likely have: those that a few transpositions leave, else dense ones. A wrong
 * guess only costs time at the first run. */
static void guess_strides(const kn_value *v, const kn_type *types, int64_t strides[KN_MAX_RANK]) {
  enum { LOOK_BACK = 8 };
  int rank = types[v->id].rank, from[KN_MAX_RANK]; /* our dim i is dim from[i] of v */
  int64_t dense[KN_MAX_RANK];
  for (int i = 0; i < KN_MAX_RANK; i++) from[i] = i;
  for (int k = 0; k < LOOK_BACK && v->def && v->def->op == KN_OP_transpose; k++, v = v->def->in[0]) {
    const kn_attrs_swap *a = v->def->attrs;
    int d0 = (int)(a->dim0 < 0 ? a->dim0 + rank : a->dim0),
        d1 = (int)(a->dim1 < 0 ? a->dim1 + rank : a->dim1);
    for (int i = 0; i < rank; i++) from[i] = from[i] == d0 ? d1 : from[i] == d1 ? d0 : from[i];
  }
  kn_strides_contiguous(&types[v->id], dense);
  for (int i = 0; i < KN_MAX_RANK; i++) strides[i] = dense[from[i]];
}

static bool computes(void *self, const kn_node *n, const kn_type *types, char *why, size_t size) {
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

/* The same beside other backends, which get what is slow here. */
static bool supports(void *self, const kn_node *n, const kn_type *types, char *why, size_t size) {
  bool offered = kn_opcode_is_op(n->op) && dn_offers((kn_op)n->op);
  if (!offered || !kn_node_static(n, types, why, size)) return computes(self, n, types, why, size);
  int64_t strides[DN_MAX_IN][KN_MAX_RANK];
  dn_view views[DN_MAX_IN];
  views_of(n, types, strides, views);
  for (uint32_t i = 0; i < n->ntensor; i++) guess_strides(n->in[i], types, strides[i]);
  if (!dn_is_slow((kn_op)n->op, n->attrs, views)) return computes(self, n, types, why, size);
  snprintf(why, size, "others do it better");
  return false;
}

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
  const kn_node *n = p->nodes[k];
  dn_call_drop(&p->calls[k]);
  KN_TRY(
      dn_call_prepare(s, ctx, (kn_op)n->op, n->attrs, views, (int)n->ntensor, out, &p->calls[k], why, size));
  return grow(ctx, p, dn_call_workspace(&p->calls[k]));
}

static void free_program(void *self, kn_context *ctx, kn_program *p) {
  (void)self, (void)ctx;
  if (!p) return;
  kn_heap *heap = p->heap;
  for (uint32_t i = 0; p->calls && i < p->n; i++) dn_call_drop(&p->calls[i]);
  kn_free_aligned(heap, p->workspace, p->bytes);
  kn_free(heap, p->calls, p->n * sizeof *p->calls);
  kn_free(heap, p, sizeof *p);
}

static kn_status compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  kn_program *p = kn_calloc(ctx->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  p->heap = ctx->heap;
  p->nodes = part->nodes;
  p->n = part->n;
  p->calls = kn_calloc(p->heap, p->n, sizeof *p->calls);
  kn_status st = p->calls ? KN_OK : kn_fail_nomem(ctx, p->n * sizeof *p->calls);
  for (uint32_t k = 0; k < p->n && st == KN_OK; k++) {
    const kn_node *n = p->nodes[k];
    int64_t strides[DN_MAX_IN][KN_MAX_RANK];
    dn_view views[DN_MAX_IN];
    char why[96];
    views_of(n, part->types, strides, views);
    for (uint32_t i = 0; i < n->ntensor; i++) guess_strides(n->in[i], part->types, strides[i]);
    st = prepare(self, ctx, p, k, views, &part->types[n->out[0]->id], why, sizeof why);
    if (st == KN_DECLINED) st = KN_OK;
    if (st != KN_OK) kn_node_failed(ctx, n, st);
  }
  if (st == KN_OK)
    *out = p;
  else
    free_program(self, ctx, p);
  return st;
}

static kn_status run_node(dn_state *s, kn_context *ctx, kn_program *p, uint32_t k, kn_tensor **vals) {
  const kn_node *n = p->nodes[k];
  dn_call *c = &p->calls[k];
  kn_tensor *in[DN_MAX_IN], *out = vals[n->out[0]->id];
  char why[96] = "", impl[160];
  const char *by = "ref";
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = vals[n->in[i]->id];
  kn_status st = dn_better_elsewhere(ctx, (kn_op)n->op, n->attrs, in) ? KN_DECLINED : KN_OK;
  if (st == KN_DECLINED) {
    snprintf(why, sizeof why, "others do it better");
  } else if (!dn_call_fits(c, in)) {
    dn_view views[DN_MAX_IN];
    for (uint32_t i = 0; i < n->ntensor; i++) views[i] = (dn_view){&in[i]->type, in[i]->strides};
    st = prepare(s, ctx, p, k, views, &out->type, why, sizeof why);
  }
  if (st == KN_OK) st = dn_call_run(ctx, c, in, out, p->workspace, why, sizeof why);
  bool declined = st == KN_DECLINED;
  if (declined) st = kn_device_run(ctx, (kn_op)n->op, n->attrs, in, (int)n->ntensor, &out, &by);
  if (st != KN_OK || !kn_debugging(ctx, KN_DEBUG_EXEC)) return st;
  if (declined) snprintf(impl, sizeof impl, "%s (%s)", by, why);
  kn_log_node(ctx, declined ? by : "onednn", n, declined ? impl : dn_call_impl(c), vals);
  return st;
}

static kn_status run(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals, const kn_scalar *scalars) {
  (void)scalars;
  for (uint32_t k = 0; k < p->n; k++) {
    kn_status st = run_node(self, ctx, p, k, vals);
    if (st != KN_OK) return kn_node_failed(ctx, p->nodes[k], st);
  }
  return KN_OK;
}

bool dn_target(kn_context *ctx, void *state, kn_target *out) {
  bool others = dn_offered_elsewhere(ctx, KN_OP_matmul) && dn_offered_elsewhere(ctx, KN_OP_conv2d);
  *out = (kn_target){.name = "onednn",
                     .supports = others ? supports : computes,
                     .compile = compile,
                     .run = run,
                     .free = free_program,
                     .self = state};
  return true;
}
