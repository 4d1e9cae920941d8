/* rms_norm in graphs: x * rsqrt(mean(x * x) + eps) [* w], node by node as core/composite_norm.c writes it
 * down. Which nodes these are is decided when a part is compiled, whether their tensors lie for it at each
 * run. */
#include "backends/cpu/rms.h"

struct cp_rms {
  uint32_t x, eps, w, out; /* values; w 0: none */
  uint32_t length;
  int64_t n, rows;
  cp_norm norm;
  void (*run)(const cp_norm *, int64_t, int64_t);
};

/* ---- which nodes ---- */

/* Node i of the part is `op`, and of its inputs the one that is not `other` is given back; NULL: it is not
 * so. */
static const kn_value *beside(const kn_part *part, uint32_t i, kn_op op, const kn_value *other) {
  const kn_node *n = i < part->n ? part->nodes[i] : NULL;
  if (!n || n->op != (int)op || n->ntensor != 2) return NULL;
  return n->in[0] == other ? n->in[1] : n->in[1] == other ? n->in[0] : NULL;
}

/* Only the next node reads it. */
static bool is_inner(const kn_part *part, const kn_node *n, uint32_t reads) {
  return part->reads[n->out[0]->id] == reads;
}

/* The mean over the last dims, how many elements they hold; 0: over others. */
static int64_t last_dims(const kn_node *mean, const kn_type *x) {
  const kn_attrs_reduce *a = mean->attrs;
  bool over[KN_MAX_RANK] = {false};
  int64_t n = 1;
  if (!a->keepdim || a->dim.n < 1 || a->dim.n > x->rank) return 0;
  for (int i = 0; i < a->dim.n; i++) over[a->dim.v[i] < 0 ? a->dim.v[i] + x->rank : a->dim.v[i]] = true;
  for (int d = x->rank - a->dim.n; d < x->rank; d++) {
    if (!over[d]) return 0;
    n *= x->dims[d];
  }
  return n;
}

static bool ends_with(const kn_type *x, const kn_type *w, int64_t n) {
  for (int d = 0; d < w->rank && w->rank <= x->rank; d++)
    if (w->dims[d] != x->dims[x->rank - w->rank + d]) return false;
  return w->rank <= x->rank && kn_type_numel(w) == n;
}

static bool find(const cp_set *set, const kn_part *part, uint32_t first, cp_rms *r) {
  const kn_node *const *n = part->nodes + first;
  const kn_type *types = part->types;
  if (first + 5 > part->n || n[0]->op != KN_OP_mul || n[0]->in[0] != n[0]->in[1]) return false;
  const kn_value *x = n[0]->in[0], *eps, *w;
  const kn_type *type = &types[x->id];
  if (n[1]->op != KN_OP_mean || n[1]->in[0] != n[0]->out[0]) return false;
  eps = beside(part, first + 2, KN_OP_add, n[1]->out[0]);
  if (!eps || n[3]->op != KN_OP_rsqrt || n[3]->in[0] != n[2]->out[0]) return false;
  if (beside(part, first + 4, KN_OP_mul, n[3]->out[0]) != x) return false;
  for (int i = 0; i < 4; i++)
    if (!is_inner(part, n[i], 1)) return false;
  int64_t length = last_dims(n[1], type);
  if (!set->norms->rms[type->dtype] || !length || !cp_folds_whole(length)) return false;
  if (types[eps->id].dtype != type->dtype || types[eps->id].rank != 0) return false;
  w = is_inner(part, n[4], 1) ? beside(part, first + 5, KN_OP_mul, n[4]->out[0]) : NULL;
  if (w && (types[w->id].dtype != type->dtype || !ends_with(type, &types[w->id], length))) w = NULL;
  *r = (cp_rms){.x = x->id,
                .eps = eps->id,
                .w = w ? w->id : 0,
                .out = n[w ? 5 : 4]->out[0]->id,
                .length = w ? 6 : 5,
                .n = length,
                .rows = kn_type_numel(type) / length,
                .run = set->norms->rms[type->dtype]};
  r->norm.sum = set->folds->of[CP_SUM][type->dtype].each;
  r->norm.n = length;
  return true;
}

kn_status cp_rms_new(kn_context *ctx, const cp_set *set, const kn_part *part, uint32_t first, cp_rms **out) {
  cp_rms found;
  *out = NULL;
  if (!find(set, part, first, &found)) return KN_OK;
  cp_rms *r = kn_alloc(ctx->heap, sizeof *r);
  if (!r) return kn_fail_nomem(ctx, sizeof *r);
  *r = found;
  part->together[first] = r->length;
  *out = r;
  return KN_OK;
}

void cp_rms_free(kn_context *ctx, cp_rms *r) { kn_free(ctx->heap, r, sizeof *r); }

uint32_t cp_rms_length(const cp_rms *r) { return r->length; }

/* ---- a run ---- */

typedef struct job {
  const cp_rms *r;
  cp_norm norm;
} job;

static void range(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  j->r->run(&j->norm, begin, end);
}

kn_status cp_rms_run(kn_context *ctx, const cp_rms *r, kn_tensor *const *vals) {
  const kn_tensor *x = vals[r->x], *out = vals[r->out], *w = r->w ? vals[r->w] : NULL, *eps = vals[r->eps];
  if (!kn_tensor_contiguous(x) || (w && !kn_tensor_contiguous(w))) return KN_DECLINED;
  job j = {.r = r, .norm = r->norm};
  j.norm.x = kn_tensor_data(x);
  j.norm.w = w ? kn_tensor_data(w) : NULL;
  j.norm.to = kn_tensor_data(out);
  j.norm.eps = kn_element_float(kn_tensor_dtype(eps), kn_tensor_data(eps));
  kn_parallel_for(ctx, r->rows, CP_CHEAP / r->n + 1, range, &j);
  return KN_OK;
}
