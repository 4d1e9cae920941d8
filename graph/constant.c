/* What a plan computes once: tensors that follow from sizes and constants alone, as the number of elements
 * that a mean divides by where capture did not know it. Small ones are kept; a large one of a single whole
 * number is never written out, but its sum may be small again. Nodes of such values leave no step. */
#include "core/dispatch.h"
#include "graph/plan.h"
#include "graph/scalar.h"
#include <math.h>

enum { KEPT = 65536 };          /* elements; what is larger is made by each run */
enum { EXACT = 1 << 24 };       /* whole numbers up to here add up the same in any order */
enum { SMALL_CHANGE = 4096 };   /* bytes that are not counted */
enum { MOST_BYTES = 32 << 20 }; /* of a plan; what runs make lies in each other's place */
enum { READ = 1, WRITTEN_OUT = 2 };

typedef struct folder {
  kn_context *ctx;
  kn_plan *p;
  kn_tensor **at; /* by value: the constant, owned; those of a single value may be repeated views */
  size_t bytes;   /* of them */
} folder;

static bool is_small(const kn_type *t) {
  int64_t count = 1;
  for (int i = 0; i < t->rank; i++) {
    if (!kn_dim_known(t->dims[i]) || (t->dims[i] && count > KEPT / t->dims[i])) return false;
    count *= t->dims[i];
  }
  return true;
}

/* Is it one tensor for good: nobody writes to it, compares it or may take it along? */
static bool may_fold(const kn_plan *p, const kn_node *n) {
  if (n->nout != 1 || n->out[0]->type.kind != KN_V_TENSOR) return false;
  uint32_t v = n->out[0]->id;
  return !p->undefined[v] && !p->maybe[v] && !p->handle[v] && !p->listed[v] && !p->failure[v] &&
         kn_type_known(&p->types[v]) && p->types[v].device == KN_CPU;
}

/* Small, or such that its sum does not tell that it was never written out. */
static bool may_fill(const kn_type *type, double value) {
  bool whole = !signbit(value) && value <= EXACT && value == floor(value);
  return is_small(type) || (whole && value * (double)kn_type_numel(type) <= EXACT);
}

/* A tensor of a single value; a large one in one element. */
static kn_status repeat(folder *f, const kn_node *n, const void *attrs, kn_tensor **out) {
  const kn_type *type = &f->p->types[n->out[0]->id];
  const int64_t strides[KN_MAX_RANK] = {0};
  kn_type single = {.dtype = type->dtype, .device = type->device};
  kn_tensor *like, *one, *all;
  KN_TRY(kn_tensor_symbolic(f->ctx, type, NULL, &all));
  kn_status st = kn_tensor_new(f->ctx, &single, &like);
  if (st == KN_OK) {
    st = kn_apply(f->ctx, (kn_op)n->op, attrs, &like, 1, &one);
    kn_tensor_release(like);
  }
  if (st == KN_OK) {
    kn_tensor_set_view(all, one, 0, strides);
    kn_tensor_release(one);
    if (!is_small(type)) return *out = all, KN_OK;
    st = kn_apply(f->ctx, KN_OP_clone, NULL, &all, 1, out);
  }
  kn_tensor_release(all);
  return st;
}

/* The result of an op, NULL where it is none of ours. */
static kn_status fold_op(folder *f, const kn_node *n, kn_tensor **out) {
  enum { NEVER = KN_FLAG_RANDOM | KN_FLAG_WRITES | KN_FLAG_DYNAMIC | KN_FLAG_RAISES };
  kn_plan *p = f->p;
  const kn_op_info *row = &kn_ops[n->op];
  bool filled = n->op == KN_OP_full_like, folded = true;
  if (row->op_class == KN_CLASS_RANDOM || row->flags & NEVER ||
      (!filled && !is_small(&p->types[n->out[0]->id])))
    return KN_OK;
  if (!n->ntensor && row->op_class != KN_CLASS_CREATE) return KN_OK;
  kn_tensor *in[KN_MAX_INPUTS];
  for (uint32_t i = 0; i < n->ntensor; i++) {
    in[i] = f->at[n->in[i]->id];
    bool large = in[i] && !is_small(&p->types[n->in[i]->id]);
    if (p->maybe[n->in[i]->id] || (!filled && (!in[i] || (large && n->op != KN_OP_sum)))) return KN_OK;
  }
  for (uint32_t i = n->ntensor; i < n->nin; i++) folded &= p->known[n->in[i]->id];
  if (!folded) return KN_OK;
  kn_attrs_any room;
  const void *attrs;
  KN_TRY(kn_node_attrs_now(f->ctx, n, p->scalars, &room, &attrs));
  if (filled)
    return may_fill(&p->types[n->out[0]->id], ((const kn_attrs_value *)attrs)->value)
               ? repeat(f, n, attrs, out)
               : KN_OK;
  return kn_apply(f->ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, out);
}

static kn_status fold_number(folder *f, const kn_node *n, kn_tensor **out) {
  const kn_plan *p = f->p;
  const kn_scalar *s = &p->scalars[n->in[0]->id];
  const kn_type *type = &p->types[n->out[0]->id];
  if (!p->known[n->in[0]->id]) return KN_OK;
  KN_TRY(kn_scalar_check(f->ctx, s, (kn_dtype)type->dtype));
  KN_TRY(kn_tensor_new(f->ctx, type, out));
  kn_scalar_write(s, *out);
  return KN_OK;
}

/* What it takes: large ones are of one element. */
static size_t bytes_of(const kn_type *t) {
  size_t bytes = is_small(t) ? (size_t)kn_type_numel(t) * kn_dtype_size((kn_dtype)t->dtype) : 0;
  return bytes > SMALL_CHANGE ? bytes : 0;
}

/* What fails is left to the run, which fails in its turn. */
static kn_status fold_region(folder *f, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) KN_TRY(fold_region(f, n->regions[i]));
    bool op = kn_opcode_is_op(n->op);
    if ((!op && n->op != KN_NODE_to_tensor) || !may_fold(f->p, n)) continue;
    kn_tensor *made = NULL;
    size_t bytes = bytes_of(&f->p->types[n->out[0]->id]);
    if (bytes > MOST_BYTES - f->bytes) continue;
    kn_status st = op ? fold_op(f, n, &made) : fold_number(f, n, &made);
    if (st == KN_NOMEM) return st;
    f->at[n->out[0]->id] = st == KN_OK ? made : NULL;
    if (f->at[n->out[0]->id]) f->bytes += bytes;
  }
  return KN_OK;
}

/* Views stay nodes that need no step: how they lie tells how products add up. */
static bool is_kept(const folder *f, const kn_node *n) {
  bool view = kn_opcode_is_op(n->op) && kn_ops[n->op].op_class == KN_CLASS_VIEW;
  return n->nout == 1 && f->at[n->out[0]->id] && is_small(&f->p->types[n->out[0]->id]) && !view;
}

/* A large one is left out when only what is kept reads it. */
static void note_uses(const folder *f, const kn_region *r, uint8_t *use) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) note_uses(f, n->regions[i], use);
    bool kept = is_kept(f, n);
    if (kept) use[n->out[0]->id] |= WRITTEN_OUT;
    for (uint32_t i = 0; i < n->nin && !kept; i++) use[n->in[i]->id] |= READ;
  }
  for (uint32_t i = 0; i < r->nyields; i++) use[r->yields[i]->id] |= READ;
}

/* A kept one lies in order, as what a run computes does, and has a second owner, so that nobody takes it. */
static kn_status keep(kn_context *ctx, kn_plan *p, uint32_t v, kn_tensor *t) {
  kn_tensor *own;
  KN_TRY(kn_apply(ctx, KN_OP_clone, NULL, &t, 1, &own));
  p->header[v] = kn_tensor_retain(own);
  p->place[v] = KN_PLACE_CONST;
  return KN_OK;
}

kn_status kn_plan_constants(kn_context *ctx, kn_plan *p) {
  if (p->single) return KN_OK; /* observers want to see every node */
  uint32_t all = p->graph->nvalues + 1;
  folder f = {ctx, p, kn_calloc(ctx->heap, all, sizeof *f.at), 0};
  uint8_t *use = kn_calloc(ctx->heap, all, sizeof *use);
  bool grad = ctx->grad_enabled;
  kn_status st = f.at && use ? KN_OK : kn_fail_nomem(ctx, all * sizeof *f.at);
  ctx->grad_enabled = false;
  if (st == KN_OK) st = fold_region(&f, p->graph->body);
  if (st == KN_OK) note_uses(&f, p->graph->body, use);
  for (uint32_t v = 1; v < all && st == KN_OK; v++) {
    if (!f.at[v]) continue;
    if (use[v] & WRITTEN_OUT)
      st = keep(ctx, p, v, f.at[v]);
    else if (!(use[v] & READ))
      p->place[v] = KN_PLACE_CONST; /* and nobody asks for it */
  }
  ctx->grad_enabled = grad;
  for (uint32_t v = 1; f.at && v < all; v++) kn_tensor_release(f.at[v]);
  kn_free(ctx->heap, f.at, all * sizeof *f.at);
  kn_free(ctx->heap, use, all * sizeof *use);
  return st;
}
