/* fused_attention and its gradient on the device: by plans of cuDNN. What lies otherwise than these take it
 * is copied; masks always have all rows, each at a multiple of 16 bytes. */
#include "backends/cuda/attention.h"
#include "backends/cuda/copy.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/work.h"
#include "core/infer.h"

enum { Q, K, V, O, GRAD, MASK, OPERANDS };
enum { BATCH, HEADS, ROWS, COLUMNS, RANK, ALIGNED = 16 };

/* ---- the problem ---- */

/* Where rows of a symbolic tensor most often lie: between those of other heads, [batch, rows, heads, depth].
 */
static void guess(const kn_type *t, int64_t to[RANK]) {
  const int64_t *n = t->dims;
  to[BATCH] = n[ROWS] * n[HEADS] * n[COLUMNS], to[HEADS] = n[COLUMNS], to[ROWS] = n[HEADS] * n[COLUMNS],
  to[COLUMNS] = 1;
}

static void lie(const kn_tensor *t, int64_t to[RANK]) {
  const int64_t *n = t->type.dims;
  int64_t dense[RANK];
  bool well = true;
  cu_attention_dense(dense, n[HEADS], n[ROWS], n[COLUMNS]);
  guess(&t->type, to);
  if (!t->storage) return;
  for (int d = 0; d < RANK; d++) {
    to[d] = n[d] == 1 ? dense[d] : t->strides[d];
    well &= d == COLUMNS ? to[d] == 1 : to[d] % (ALIGNED / 2) == 0;
  }
  if (!well) memcpy(to, dense, sizeof dense);
}

static void lie_masking(const kn_tensor *t, const cu_attention *a, int64_t to[RANK]) {
  const int64_t *n = t->type.dims, size = (int64_t)kn_dtype_size(kn_tensor_dtype(t)), step = ALIGNED / size;
  const int64_t row = (a->keys + step - 1) / step * step;
  bool well = t->storage && n[ROWS] == a->queries && n[COLUMNS] == a->keys && t->strides[COLUMNS] == 1;
  cu_attention_dense(to, n[HEADS], a->queries, row);
  for (int d = BATCH; well && d < COLUMNS; d++) well = n[d] == 1 || t->strides[d] % step == 0;
  for (int d = BATCH; well && d < COLUMNS; d++)
    if (n[d] > 1) to[d] = t->strides[d];
  for (int d = BATCH; d < ROWS; d++)
    if (n[d] == 1) to[d] = 0;
}

/* The inputs of either op; NULL: none. */
static void sort_inputs(kn_tensor *const *in, int n, bool backward, kn_tensor *to[OPERANDS]) {
  memset(to, 0, OPERANDS * sizeof *to);
  memcpy(to, in, 3 * sizeof *to);
  if (backward) to[O] = in[3], to[GRAD] = in[5];
  if (n > (backward ? 6 : 3)) to[MASK] = in[n - 1];
}

static cu_attention describe(const kn_attrs_fused_attention *given, kn_tensor *const x[OPERANDS]) {
  const int64_t *q = x[Q]->type.dims, *k = x[K]->type.dims;
  cu_attention a;
  memset(&a, 0, sizeof a);
  a.dtype = (int32_t)x[Q]->type.dtype, a.causal = given->is_causal, a.mask = x[MASK] != NULL;
  a.backward = x[GRAD] != NULL, a.keeps = !a.backward, a.wide = a.mask && x[MASK]->type.dtype == KN_F32;
  a.batch = q[BATCH], a.heads = q[HEADS], a.kv_heads = k[HEADS], a.queries = q[ROWS], a.keys = k[ROWS];
  a.depth = q[COLUMNS], a.value_depth = x[V]->type.dims[COLUMNS];
  lie(x[Q], a.q), lie(x[K], a.k), lie(x[V], a.v);
  cu_attention_dense(a.o, a.heads, a.queries, a.value_depth);
  if (a.mask) lie_masking(x[MASK], &a, a.mask_strides);
  if (!a.backward) return a;
  lie(x[GRAD], a.grad);
  cu_attention_dense(a.dq, a.heads, a.queries, a.depth);
  cu_attention_dense(a.dk, a.kv_heads, a.keys, a.depth);
  cu_attention_dense(a.dv, a.kv_heads, a.keys, a.value_depth);
  return a;
}

/* DECLINED, having said why, where there is no plan. */
static kn_status find_plan(kn_context *ctx, const cu_attention *a, cu_device **d, const cu_plan **out) {
  char text[96];
  const char *why = text;
  cu_dnn *dnn = NULL;
  KN_TRY(cu_device_of(ctx, d));
  kn_status st = cu_attention_supports(a, text, sizeof text) ? KN_OK : KN_DECLINED;
  if (st == KN_OK && a->backward && kn_context_deterministic(ctx)) { /* whatever its engines' notes say */
    why = "parts of dq are added in any order, and algorithms are to be deterministic";
    st = KN_DECLINED;
  }
  if (st == KN_OK) st = cu_dnn_of(ctx, *d, &dnn, &why);
  if (st == KN_OK) st = cu_attention_plan(ctx, dnn, a, out, &why);
  if (st == KN_DECLINED)
    cu_attention_refused(ctx, a->backward ? "the gradient of attention" : "attention", why);
  return st;
}

bool cu_attention_prefers(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n) {
  kn_tensor *x[OPERANDS];
  const cu_plan *p;
  cu_device *d;
  if (op != KN_OP_fused_attention && op != KN_OP_fused_attention_grad) return false;
  for (int i = 0; i < n; i++)
    if (!kn_type_known(&in[i]->type)) return false;
  sort_inputs(in, n, op == KN_OP_fused_attention_grad, x);
  const cu_attention a = describe(attrs, x);
  return find_plan(ctx, &a, &d, &p) == KN_OK;
}

/* ---- a run ---- */

static kk_view view_of(const kn_tensor *t) {
  const int64_t size = (int64_t)kn_dtype_size(kn_tensor_dtype(t));
  kk_view v = {.data = (char *)(uintptr_t)cu_address(t), .dtype = kn_tensor_dtype(t), .rank = RANK};
  for (int d = 0; d < RANK; d++) v.dims[d] = t->type.dims[d], v.strides[d] = t->strides[d] * size;
  return v;
}

/* Its address, as the plan has it: [batch or 1, heads or 1, rows, columns] at these strides. */
static kn_status place(kn_context *ctx, cu_device *d, const kn_tensor *t, const int64_t dims[RANK],
                       const int64_t strides[RANK], CUdeviceptr *at, kn_tensor **copy) {
  const int64_t size = (int64_t)kn_dtype_size(kn_tensor_dtype(t));
  kn_type type = {.dtype = t->type.dtype, .device = KN_CUDA, .rank = 1, .dims = {1}};
  bool same = cu_address(t) % ALIGNED == 0;
  for (int i = 0; i < RANK; i++) {
    same &= dims[i] == t->type.dims[i] && (dims[i] == 1 || strides[i] == t->strides[i]);
    type.dims[0] += (dims[i] - 1) * strides[i];
  }
  *at = cu_address(t);
  if (same) return KN_OK;
  KN_TRY(cu_work_tensor(ctx, d, &type, copy));
  kk_view from = view_of(t), to = {.data = (char *)(uintptr_t)cu_address(*copy), .rank = RANK};
  to.dtype = from.dtype;
  for (int i = 0; i < RANK; i++) to.dims[i] = dims[i], to.strides[i] = strides[i] * size;
  *at = cu_address(*copy);
  return cu_copy(ctx, d, &to, &from);
}

static kn_status place_all(kn_context *ctx, cu_device *d, const cu_attention *a, kn_tensor *const x[OPERANDS],
                           cu_attention_data *at, kn_tensor **copies) {
  CUdeviceptr *to[OPERANDS] = {&at->q, &at->k, &at->v, &at->o, &at->grad, &at->mask};
  const int64_t *strides[OPERANDS] = {a->q, a->k, a->v, a->o, a->grad, a->mask_strides};
  for (int i = 0; i < OPERANDS; i++) {
    if (!x[i]) continue;
    const int64_t *n = x[i]->type.dims, rows[RANK] = {n[BATCH], n[HEADS], a->queries, a->keys};
    KN_TRY(place(ctx, d, x[i], i == MASK ? rows : n, strides[i], to[i], &copies[i]));
  }
  return KN_OK;
}

/* Where results and statistics lie is told in `at`. */
static kn_status attend(kn_context *ctx, const kn_attrs_fused_attention *given, kn_tensor *const x[OPERANDS],
                        cu_attention_data *at) {
  const cu_attention a = describe(given, x);
  const size_t room = a.backward ? cu_attention_room(&a) : 0;
  kn_tensor *copies[OPERANDS] = {NULL};
  const cu_plan *p;
  cu_device *d;
  KN_TRY(find_plan(ctx, &a, &d, &p));
  at->scale = (float)kn_attention_scale(given->scale, a.depth);
  kn_status st = place_all(ctx, d, &a, x, at, copies);
  if (st == KN_OK && room) st = cu_workspace(ctx, d, room, &at->room);
  if (st == KN_OK) st = cu_attention_run(ctx, d, p, &a, at);
  if (at->room) cu_free(d, at->room, room);
  for (int i = 0; i < OPERANDS; i++) kn_tensor_release(copies[i]);
  return st;
}

CU_ENTRY(fused_attention) {
  kn_tensor *x[OPERANDS];
  cu_attention_data at = {.o = cu_address(out[0]), .statistics = cu_address(out[1])};
  sort_inputs(in, n, false, x);
  return attend(ctx, attrs, x, &at);
}

CU_ENTRY(fused_attention_grad) { /* q, k, v, out, statistics, g[, mask] */
  kn_tensor *x[OPERANDS], *statistics;
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  KN_TRY(cu_contiguous(ctx, d, in[4], &statistics));
  cu_attention_data at = {.statistics = cu_address(statistics),
                          .dq = cu_address(out[0]),
                          .dk = cu_address(out[1]),
                          .dv = cu_address(out[2])};
  sort_inputs(in, n, true, x);
  kn_status st = attend(ctx, attrs, x, &at);
  kn_tensor_release(statistics);
  return st;
}
