/* Products by cuBLASLt. Its matrices lie in columns: it is asked for the transposed result, D = op(A) op(B)
 * with our b as A and our a as B, so that all rows of ours are columns of its and nothing is copied. What it
 * makes of a problem (descriptors, the algorithm that its heuristics like best) is kept by problem. */
#include "backends/cuda/blas.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/product.h"
#include "backends/registry.h"
#include "backends/tune.h"
#include "core/heap.h"
#include <pthread.h>
#include <string.h>

/* Room for sums in parts; more gives nothing. */
#define WORKSPACE ((size_t)32 << 20)
enum { BUCKETS = 256, MOST_KEPT = 4096, MOST_FOUND = CU_BLAS_WAYS, ALIGNED = 256 };

/* All that decides about descriptors and algorithm. Zeroed before it is filled: compared as bytes. */
typedef struct problem {
  int32_t dtype, epilogue, compute, turned_a, turned_b, adds, deterministic, batches;
  int32_t planned; /* its algorithm may be one that was measured */
  int32_t align_a, align_b, align_c, align_bias;
  int64_t m, n, k, a_pitch, b_pitch, a_step, b_step, c_step, aux_row;
} problem;

typedef struct kept {
  struct kept *next;
  problem p;
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t a, b, c;
  int found, chosen; /* found == 0: `why` */
  cublasLtMatmulHeuristicResult_t results[MOST_FOUND];
  const char *why;
} kept;

typedef struct cu_blas cu_blas;
struct cu_blas {
  pthread_mutex_t lock;
  cublasLtHandle_t handle;
  cublasLtMatmulPreference_t preference;
  kept *buckets[BUCKETS];
  int count;
  cu_blas_choice last;
  char absent[256]; /* why there is no library; "": there is */
};

/* ---- what products mean ---- */

static int64_t batch_step(const cu_view *v, int matrix, int rank, int d) {
  int at = d - (rank - (v->type->rank - matrix));
  return at < 0 || v->type->dims[at] == 1 ? 0 : v->strides[at];
}

void cu_product_of(cu_product *p, cu_view a, cu_view b, const kn_type *out) {
  int ar = a.type->rank, br = b.type->rank, am = ar > 1 ? 2 : 1, bm = br > 1 ? 2 : 1;
  *p = (cu_product){.dtype = (kn_dtype)out->dtype};
  p->m = am == 2 ? a.type->dims[ar - 2] : 1;
  p->k = a.type->dims[ar - 1];
  p->n = bm == 2 ? b.type->dims[br - 1] : 1;
  p->a.row = am == 2 ? a.strides[ar - 2] : 0;
  p->a.column = a.strides[ar - 1];
  p->b.row = b.strides[br - bm];
  p->b.column = bm == 2 ? b.strides[br - 1] : 1;
  p->rank = out->rank - (am == 2) - (bm == 2);
  for (int d = 0; d < p->rank; d++) {
    p->dims[d] = out->dims[d];
    p->a.step[d] = batch_step(&a, am, p->rank, d);
    p->b.step[d] = batch_step(&b, bm, p->rank, d);
  }
}

static void drop_dim(cu_product *p, int d) {
  for (p->rank--; d < p->rank; d++) {
    p->dims[d] = p->dims[d + 1];
    p->a.step[d] = p->a.step[d + 1];
    p->b.step[d] = p->b.step[d + 1];
  }
}

/* As few batch dims as the way they lie allows. */
static void fold_batches(cu_product *p) {
  for (int d = p->rank - 1; d >= 0; d--)
    if (p->dims[d] == 1) drop_dim(p, d);
  for (int d = p->rank - 2; d >= 0; d--) {
    int64_t inner = p->dims[d + 1];
    if (p->a.step[d] != p->a.step[d + 1] * inner || p->b.step[d] != p->b.step[d + 1] * inner) continue;
    p->a.step[d] = p->a.step[d + 1];
    p->b.step[d] = p->b.step[d + 1];
    p->dims[d] *= inner;
    drop_dim(p, d + 1);
  }
  /* Rows of several matrices that meet the same one are rows of one matrix. */
  while (p->rank && !p->b.step[p->rank - 1]) {
    int d = p->rank - 1;
    if (p->m != 1 && p->a.step[d] != p->m * p->a.row) break;
    if (p->m == 1) p->a.row = p->a.step[d];
    p->m *= p->dims[d];
    p->rank--;
  }
}

/* ---- what cuBLASLt takes ---- */

typedef struct spelling {
  cudaDataType_t data, scale;
  bool taken;
} spelling;
static const spelling spellings[KN_DTYPE_COUNT] = {
    [KN_F32] = {CUDA_R_32F, CUDA_R_32F, true},
    [KN_F64] = {CUDA_R_64F, CUDA_R_64F, true},
    [KN_F16] = {CUDA_R_16F, CUDA_R_32F, true},
    [KN_BF16] = {CUDA_R_16BF, CUDA_R_32F, true},
};

static bool refuse(char *why, size_t size, const char *reason) {
  snprintf(why, size, "%s", reason);
  return false;
}

/* Rows of `columns` elements, one after the other or turned: the step between them. */
static bool pitch_of(const cu_factor *f, int64_t rows, int64_t columns, bool *turned, int64_t *pitch) {
  bool flat = f->column == 1 || columns == 1, tall = f->row == 1 || rows == 1;
  if (flat && (rows == 1 || f->row >= columns)) {
    *turned = false;
    *pitch = rows == 1 ? columns : f->row;
    return true;
  }
  *turned = true;
  *pitch = columns == 1 ? rows : f->column;
  return tall && (columns == 1 || f->column >= rows);
}

/* Parts of cuBLASLt's epilogues. */
enum { AUX = 128, BGRAD = 16, GELU_LIKE = CUBLASLT_EPILOGUE_GELU | (CUBLASLT_EPILOGUE_DGELU & ~AUX) };

static bool epilogue_fits(const cu_product *p, char *why, size_t size) {
  unsigned e = p->epilogue;
  if (p->dtype == KN_F64) return refuse(why, size, "float64 has no epilogues");
  if (p->rank) return refuse(why, size, "epilogues are of single products");
  if (e & (CUBLASLT_EPILOGUE_BIAS | BGRAD | CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB) && !p->bias)
    return refuse(why, size, "its epilogue needs a bias");
  if (e & AUX) {
    int64_t unit = e & GELU_LIKE ? 8 : 128;
    if (!p->aux) return refuse(why, size, "its epilogue needs what was kept");
    if (p->aux_row < p->n || p->aux_row % unit)
      return refuse(why, size, "rows of what is kept are too short or uneven");
  }
  return true;
}

bool cu_blas_supports(const cu_product *given, char *why, size_t size) {
  cu_product p = *given;
  bool turned;
  int64_t pitch;
  if (!spellings[p.dtype].taken) return refuse(why, size, "cuBLASLt has no products of that dtype");
  fold_batches(&p);
  if (p.epilogue && !epilogue_fits(&p, why, size)) return false;
  if (!p.m || !p.n || !p.k) return refuse(why, size, "nothing is summed");
  if (p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX) return refuse(why, size, "too large");
  if (!pitch_of(&p.a, p.m, p.k, &turned, &pitch) || !pitch_of(&p.b, p.k, p.n, &turned, &pitch))
    return refuse(why, size, "elements of a factor lie apart both ways");
  return true;
}

/* ---- the state ---- */

static kn_status blas_fail(kn_context *ctx, const cu_device *d, cublasStatus_t r, const char *what) {
  const char *name = d->api.cublasLtGetStatusName(r);
  return kn_fail(ctx, r == CUBLAS_STATUS_ALLOC_FAILED ? KN_NOMEM : KN_INTERNAL, "cuBLASLt: %s: %s (%d)", what,
                 name ? name : "an error without a name", (int)r);
}
#define BLAS_TRY(ctx, d, call, what)                                                                         \
  do {                                                                                                       \
    const cublasStatus_t blas_result_ = (call);                                                              \
    if (blas_result_ != CUBLAS_STATUS_SUCCESS) return blas_fail(ctx, d, blas_result_, what);                 \
  } while (0)

static kn_status open_handle(kn_context *ctx, cu_device *d, cu_blas *s) {
  const size_t most = WORKSPACE;
  /* Partial sums stay in the type that is computed in. */
  const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  const cu_api *f = &d->api;
  BLAS_TRY(ctx, d, f->cublasLtCreate(&s->handle), "it cannot be opened");
  BLAS_TRY(ctx, d, f->cublasLtMatmulPreferenceCreate(&s->preference), "no preferences");
  BLAS_TRY(ctx, d,
           f->cublasLtMatmulPreferenceSetAttribute(s->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &most, sizeof most),
           "the workspace");
  BLAS_TRY(ctx, d,
           f->cublasLtMatmulPreferenceSetAttribute(s->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                   &schemes, sizeof schemes),
           "the reduction schemes");
  return KN_OK;
}

static void free_kept(cu_device *d, kept *k) {
  const cu_api *f = &d->api;
  if (k->op) f->cublasLtMatmulDescDestroy(k->op);
  cublasLtMatrixLayout_t layouts[] = {k->a, k->b, k->c};
  for (int i = 0; i < 3; i++)
    if (layouts[i]) f->cublasLtMatrixLayoutDestroy(layouts[i]);
  kn_free(d->heap, k, sizeof *k);
}

static void forget_all(cu_device *d, cu_blas *s) {
  for (int i = 0; i < BUCKETS; i++)
    while (s->buckets[i]) {
      kept *k = s->buckets[i];
      s->buckets[i] = k->next;
      free_kept(d, k);
    }
  s->count = 0;
}

void cu_blas_close(cu_device *d) {
  cu_blas *s = d->blas;
  if (!s) return;
  forget_all(d, s);
  if (s->preference) d->api.cublasLtMatmulPreferenceDestroy(s->preference);
  if (s->handle) d->api.cublasLtDestroy(s->handle);
  pthread_mutex_destroy(&s->lock);
  kn_free(d->heap, s, sizeof *s);
  d->blas = NULL;
}

/* The device's lock is held. */
static kn_status open_locked(kn_context *ctx, cu_device *d) {
  if (d->blas) return KN_OK;
  cu_blas *s = kn_calloc(d->heap, 1, sizeof *s);
  if (!s) return kn_fail_nomem(ctx, sizeof *s);
  pthread_mutex_init(&s->lock, NULL);
  d->blas = s;
  if (!cu_api_open(&d->api, CU_BLAS, s->absent, sizeof s->absent)) return KN_OK;
  s->absent[0] = 0;
  kn_status st = open_handle(ctx, d, s);
  if (st != KN_OK) cu_blas_close(d);
  return st;
}

static kn_status blas_of(kn_context *ctx, cu_device *d, cu_blas **out) {
  pthread_mutex_lock(&d->lock);
  kn_status st = open_locked(ctx, d);
  *out = d->blas;
  pthread_mutex_unlock(&d->lock);
  return st;
}

cu_blas_choice cu_blas_last(const cu_device *d) { return d->blas ? d->blas->last : (cu_blas_choice){0}; }

/* ---- a problem ---- */

static uint32_t hash(const problem *p) {
  const unsigned char *at = (const unsigned char *)p;
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < sizeof *p; i++) h = (h ^ at[i]) * 16777619u;
  return h;
}

static cublasComputeType_t compute_of(const kn_context *ctx, kn_dtype dtype) {
  if (dtype == KN_F64) return CUBLAS_COMPUTE_64F;
  if (dtype == KN_F32 && kn_context_precision(ctx) != KN_FLOAT32_HIGHEST) return CUBLAS_COMPUTE_32F_FAST_TF32;
  return CUBLAS_COMPUTE_32F;
}

/* p has one batch dim at most. False when its factors cannot be told to cuBLASLt. */
static bool describe(const kn_context *ctx, const cu_product *p, int64_t c_step, problem *out) {
  bool turned_a, turned_b;
  memset(out, 0, sizeof *out);
  if (!pitch_of(&p->a, p->m, p->k, &turned_a, &out->a_pitch) ||
      !pitch_of(&p->b, p->k, p->n, &turned_b, &out->b_pitch))
    return false;
  out->dtype = (int32_t)p->dtype;
  out->epilogue = (int32_t)p->epilogue;
  out->compute = (int32_t)compute_of(ctx, p->dtype);
  out->turned_a = turned_a, out->turned_b = turned_b;
  out->adds = p->add != 0;
  out->deterministic = kn_context_deterministic(ctx);
  out->planned = p->planned && kn_context_tuning(ctx) != KN_TUNING_FIXED;
  out->batches = p->rank ? (int32_t)p->dims[0] : 1;
  out->align_a = cu_alignment(p->a.at, ALIGNED), out->align_b = cu_alignment(p->b.at, ALIGNED);
  out->align_c = cu_alignment(p->c | p->add | p->aux, ALIGNED),
  out->align_bias = cu_alignment(p->bias, ALIGNED);
  out->m = p->m, out->n = p->n, out->k = p->k;
  if (p->rank) out->a_step = p->a.step[0], out->b_step = p->b.step[0], out->c_step = c_step;
  out->aux_row = p->aux ? p->aux_row : 0;
  return true;
}

/* A matrix of ours, in rows of `pitch`, is one in columns. */
static kn_status make_layout(kn_context *ctx, cu_device *d, const problem *p, int64_t across, int64_t rows,
                             int64_t pitch, int64_t step, cublasLtMatrixLayout_t *out) {
  const cu_api *f = &d->api;
  BLAS_TRY(
      ctx, d,
      f->cublasLtMatrixLayoutCreate(out, spellings[p->dtype].data, (uint64_t)across, (uint64_t)rows, pitch),
      "a layout");
  if (p->batches == 1) return KN_OK;
  BLAS_TRY(ctx, d,
           f->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &p->batches,
                                               sizeof p->batches),
           "a batch");
  BLAS_TRY(ctx, d,
           f->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                                               sizeof step),
           "a batch's step");
  return KN_OK;
}

#define SET(attribute, value)                                                                                \
  BLAS_TRY(ctx, d, d->api.cublasLtMatmulDescSetAttribute(k->op, attribute, &value, sizeof value), #attribute)

static kn_status make_descriptors(kn_context *ctx, cu_device *d, kept *k) {
  const problem *p = &k->p;
  const spelling *s = &spellings[p->dtype];
  BLAS_TRY(ctx, d, d->api.cublasLtMatmulDescCreate(&k->op, (cublasComputeType_t)p->compute, s->scale),
           "a product");
  const cublasOperation_t n = CUBLAS_OP_N, t = CUBLAS_OP_T;
  SET(CUBLASLT_MATMUL_DESC_TRANSA, *(p->turned_b ? &t : &n));
  SET(CUBLASLT_MATMUL_DESC_TRANSB, *(p->turned_a ? &t : &n));
  if (p->epilogue) {
    const cublasLtEpilogue_t e = (cublasLtEpilogue_t)p->epilogue;
    const cudaDataType_t data = s->data;
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, e);
    SET(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data);
    if (p->aux_row) SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p->aux_row);
  }
  int64_t b_across = p->turned_b ? p->k : p->n, a_across = p->turned_a ? p->m : p->k;
  KN_TRY(make_layout(ctx, d, p, b_across, p->k + p->n - b_across, p->b_pitch, p->b_step, &k->a));
  KN_TRY(make_layout(ctx, d, p, a_across, p->m + p->k - a_across, p->a_pitch, p->a_step, &k->b));
  return make_layout(ctx, d, p, p->n, p->m, p->n, p->c_step, &k->c);
}

/* Pointers of the epilogue: they belong to the descriptor, so the lock is held until the call is made. */
static kn_status point(kn_context *ctx, cu_device *d, kept *k, const cu_product *p) {
  if (!p->epilogue) return KN_OK;
  if (p->bias) SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p->bias);
  if (p->aux) SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p->aux);
  return KN_OK;
}

static kn_status ask(kn_context *ctx, cu_device *d, cu_blas *s, kept *k) {
  static const cublasLtMatmulPreferenceAttributes_t attributes[] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  const int32_t by[] = {k->p.align_b, k->p.align_a, k->p.align_c, k->p.align_c};
  for (int i = 0; i < 4; i++) {
    const uint32_t bytes = (uint32_t)by[i];
    BLAS_TRY(ctx, d,
             d->api.cublasLtMatmulPreferenceSetAttribute(s->preference, attributes[i], &bytes, sizeof bytes),
             "alignments");
  }
  cublasStatus_t r = d->api.cublasLtMatmulAlgoGetHeuristic(s->handle, k->op, k->a, k->b, k->c, k->c,
                                                           s->preference, MOST_FOUND, k->results, &k->found);
  if (r == CUBLAS_STATUS_NOT_SUPPORTED || r == CUBLAS_STATUS_INVALID_VALUE)
    k->found = 0, r = CUBLAS_STATUS_SUCCESS;
  BLAS_TRY(ctx, d, r, "its heuristics");
  while (k->chosen < k->found && k->results[k->chosen].state != CUBLAS_STATUS_SUCCESS) k->chosen++;
  if (k->chosen == k->found) k->found = 0;
  return KN_OK;
}

/* ---- what was measured ---- */

const char *const cu_blas_way_names[CU_BLAS_WAYS] = {"algorithm-1", "algorithm-2", "algorithm-3",
                                                     "algorithm-4", "algorithm-5", "algorithm-6",
                                                     "algorithm-7", "algorithm-8"};

/* Alignments beyond a vector's decide nothing. */
static int32_t vectors(int32_t alignment) { return alignment < 16 ? alignment : 16; }

static void write_key(const cu_device *d, const problem *p, char *key, size_t size) {
  snprintf(
      key, size,
      "cublasLt %zu sm_%d %.48s: %s e%d c%d %d%d+%d b%d a%d,%d,%d,%d %lldx%lldx%lld %lld,%lld %lld,%lld,%lld",
      d->api.cublasLtGetVersion(), d->capability, d->name, kn_dtype_name((kn_dtype)p->dtype), p->epilogue,
      p->compute, p->turned_a, p->turned_b, p->adds, p->batches, vectors(p->align_a), vectors(p->align_b),
      vectors(p->align_c), vectors(p->align_bias), (long long)p->m, (long long)p->n, (long long)p->k,
      (long long)p->a_pitch, (long long)p->b_pitch, (long long)p->a_step, (long long)p->b_step,
      (long long)p->c_step);
}

static bool has_way(const kept *k, int way) {
  return way >= 0 && way < k->found && k->results[way].state == CUBLAS_STATUS_SUCCESS;
}

static void take_known(kn_context *ctx, const cu_device *d, kept *k) {
  char key[KN_TUNE_KEY], name[KN_TUNE_NAME];
  kn_tuner *t = k->p.planned ? kn_registry_tuner(ctx) : NULL;
  if (!t) return;
  write_key(d, &k->p, key, sizeof key);
  if (!kn_tuner_find(ctx, t, key, name)) return;
  for (int i = 0; i < CU_BLAS_WAYS; i++)
    if (!strcmp(name, cu_blas_way_names[i]) && has_way(k, i)) k->chosen = i;
}

static kn_status add_kept(kn_context *ctx, cu_device *d, cu_blas *s, const problem *q, const cu_product *p,
                          kept **out) {
  if (s->count == MOST_KEPT) forget_all(d, s);
  kept *k = kn_calloc(d->heap, 1, sizeof *k);
  if (!k) return kn_fail_nomem(ctx, sizeof *k);
  k->p = *q;
  kn_status st = make_descriptors(ctx, d, k);
  if (st == KN_OK) st = point(ctx, d, k, p); /* heuristics see how they are aligned */
  if (st == KN_OK) st = ask(ctx, d, s, k);
  if (st != KN_OK) {
    free_kept(d, k);
    return st;
  }
  take_known(ctx, d, k);
  kept **bucket = &s->buckets[hash(q) % BUCKETS];
  k->next = *bucket;
  *bucket = k;
  s->count++;
  *out = k;
  return KN_OK;
}

static kept *find_kept(cu_blas *s, const problem *q) {
  kept *k = s->buckets[hash(q) % BUCKETS];
  while (k && memcmp(&k->p, q, sizeof *q)) k = k->next;
  return k;
}

/* ---- running ---- */

/* The lock is held. */
static kn_status launch(kn_context *ctx, cu_device *d, cu_blas *s, kept *k, const cu_product *p) {
  const cublasLtMatmulHeuristicResult_t *r = &k->results[k->chosen];
  const union {
    float f;
    double d;
  } one[] = {{.f = 1}, {.d = 1}}, zero[] = {{.f = 0}, {.d = 0}};
  const int wide = p->dtype == KN_F64;
  const void *alpha = &one[wide], *beta = p->add ? &one[wide] : &zero[wide];
  s->last = (cu_blas_choice){(cublasComputeType_t)k->p.compute, k->found, k->chosen, r->workspaceSize};
  CUdeviceptr workspace = 0;
  if (r->workspaceSize) KN_TRY(cu_workspace(ctx, d, r->workspaceSize, &workspace));
  kn_status st = point(ctx, d, k, p);
  if (st == KN_OK) {
    void *c = (void *)(uintptr_t)p->c, *add = p->add ? (void *)(uintptr_t)p->add : c;
    cublasStatus_t q = d->api.cublasLtMatmul(s->handle, k->op, alpha, (void *)(uintptr_t)p->b.at, k->a,
                                             (void *)(uintptr_t)p->a.at, k->b, beta, add, k->c, c, k->c,
                                             &r->algo, (void *)(uintptr_t)workspace, r->workspaceSize,
                                             (cudaStream_t)cu_stream(ctx, d));
    if (q != CUBLAS_STATUS_SUCCESS) st = blas_fail(ctx, d, q, "a product");
  }
  if (workspace) cu_free(d, workspace, r->workspaceSize);
  return st;
}

/* DECLINED when cuBLASLt is not there or has no algorithm for it. */
static kn_status by_blas(kn_context *ctx, cu_device *d, const cu_product *p, const problem *q, char *why,
                         size_t size) {
  cu_blas *s;
  KN_TRY(blas_of(ctx, d, &s));
  snprintf(why, size, "%s", s->absent[0] ? s->absent : "it has no algorithm for this");
  if (s->absent[0]) return KN_DECLINED;
  pthread_mutex_lock(&s->lock);
  kept *k = find_kept(s, q);
  kn_status st = k ? KN_OK : add_kept(ctx, d, s, q, p, &k);
  if (st == KN_OK) st = k->found ? launch(ctx, d, s, k, p) : KN_DECLINED;
  pthread_mutex_unlock(&s->lock);
  return st;
}

static kn_status by_tiles(kn_context *ctx, cu_device *d, const cu_product *p, int64_t c_step) {
  const cu_tiles t = {p->dtype,
                      p->a.at,
                      p->b.at,
                      p->c,
                      p->m,
                      p->n,
                      p->k,
                      p->rank ? p->dims[0] : 1,
                      p->a.row,
                      p->a.column,
                      p->rank ? p->a.step[0] : 0,
                      p->b.row,
                      p->b.column,
                      p->rank ? p->b.step[0] : 0,
                      c_step};
  return cu_tiles_run(ctx, d, &t);
}

/* One batch dim at most. */
static kn_status run_one(kn_context *ctx, cu_device *d, const cu_product *p, int64_t c_step) {
  problem q;
  char why[256] = "too many batches";
  kn_status st = KN_DECLINED;
  if (cu_blas_supports(p, why, sizeof why) && (!p->rank || p->dims[0] <= INT32_MAX) &&
      describe(ctx, p, c_step, &q))
    st = by_blas(ctx, d, p, &q, why, sizeof why);
  if (st != KN_DECLINED) return st;
  if (kn_debugging(ctx, KN_DEBUG_DISPATCH))
    kn_log(ctx, "dispatch: cuBLASLt does not take a product: %s", why);
  return p->epilogue || p->add ? KN_DECLINED : by_tiles(ctx, d, p, c_step);
}

/* Of the batch dims that are left the largest is the library's; those around it are walked here. */
static kn_status run_batches(kn_context *ctx, cu_device *d, const cu_product *p) {
  int inner = 0;
  int64_t steps[KN_MAX_RANK], step = p->m * p->n, outer = 1, size = (int64_t)kn_dtype_size(p->dtype);
  for (int i = p->rank - 1; i >= 0; i--) {
    steps[i] = step;
    step *= p->dims[i];
    if (p->dims[i] >= p->dims[inner]) inner = i;
  }
  cu_product one = *p;
  one.rank = 1;
  one.dims[0] = p->dims[inner], one.a.step[0] = p->a.step[inner], one.b.step[0] = p->b.step[inner];
  for (int i = 0; i < p->rank; i++) outer *= i == inner ? 1 : p->dims[i];
  for (int64_t at = 0; at < outer; at++) {
    int64_t rest = at, a = 0, b = 0, c = 0;
    for (int i = p->rank - 1; i >= 0; i--) {
      if (i == inner) continue;
      int64_t x = rest % p->dims[i];
      rest /= p->dims[i];
      a += x * p->a.step[i], b += x * p->b.step[i], c += x * steps[i];
    }
    one.a.at = p->a.at + (CUdeviceptr)(a * size);
    one.b.at = p->b.at + (CUdeviceptr)(b * size);
    one.c = p->c + (CUdeviceptr)(c * size);
    if (p->add) one.add = p->add + (CUdeviceptr)(c * size);
    KN_TRY(run_one(ctx, d, &one, steps[inner]));
  }
  return KN_OK;
}

kn_status cu_product_run(kn_context *ctx, cu_device *d, const cu_product *given) {
  cu_product p = *given;
  int64_t count = p.m * p.n;
  for (int i = 0; i < p.rank; i++) count *= p.dims[i];
  if (!count) return KN_OK;
  if (!p.k) {
    if (p.epilogue || p.add) return KN_DECLINED;
    CU_TRY(ctx, d, d->api.cuMemsetD8Async(p.c, 0, (size_t)count * kn_dtype_size(p.dtype), cu_stream(ctx, d)),
           "zeros");
    return KN_OK;
  }
  fold_batches(&p);
  return p.rank ? run_batches(ctx, d, &p) : run_one(ctx, d, &p, 0);
}

bool cu_blas_choose(kn_context *ctx, cu_device *d, const cu_product *given, int which) {
  cu_product p = *given;
  problem q;
  fold_batches(&p);
  if (!d->blas || p.rank > 1 || !describe(ctx, &p, p.m * p.n, &q)) return false;
  pthread_mutex_lock(&d->blas->lock);
  kept *k = find_kept(d->blas, &q);
  bool there = k && has_way(k, which);
  if (there) k->chosen = which;
  pthread_mutex_unlock(&d->blas->lock);
  return there;
}

int cu_blas_ways(kn_context *ctx, cu_device *d, const cu_product *given, char *key, size_t size) {
  cu_product p = *given;
  problem q;
  char why[96];
  cu_blas *s;
  int n = 0;
  fold_batches(&p);
  if (p.rank > 1 || !cu_blas_supports(&p, why, sizeof why) || !describe(ctx, &p, p.m * p.n, &q)) return 0;
  if (blas_of(ctx, d, &s) != KN_OK || s->absent[0]) return 0;
  pthread_mutex_lock(&s->lock);
  kept *k = find_kept(s, &q);
  if (k || add_kept(ctx, d, s, &q, &p, &k) == KN_OK) n = k->found;
  pthread_mutex_unlock(&s->lock);
  write_key(d, &q, key, size);
  return n;
}

/* However their operands are aligned. */
void cu_blas_settle(kn_context *ctx, cu_device *d, const cu_product *given, int way) {
  cu_product p = *given;
  problem q;
  char key[KN_TUNE_KEY], other[KN_TUNE_KEY];
  fold_batches(&p);
  if (!d->blas || p.rank > 1 || !describe(ctx, &p, p.m * p.n, &q)) return;
  write_key(d, &q, key, sizeof key);
  pthread_mutex_lock(&d->blas->lock);
  for (int i = 0; i < BUCKETS; i++)
    for (kept *k = d->blas->buckets[i]; k; k = k->next) {
      if (!k->p.planned || k->p.m != q.m || k->p.n != q.n || k->p.k != q.k) continue;
      write_key(d, &k->p, other, sizeof other);
      if (!strcmp(key, other) && has_way(k, way)) k->chosen = way;
    }
  pthread_mutex_unlock(&d->blas->lock);
}

kn_status cu_blas_describe(kn_context *ctx, cu_device *d, const cu_product *given) {
  cu_product p = *given;
  kept *k = kn_calloc(d->heap, 1, sizeof *k);
  if (!k) return kn_fail_nomem(ctx, sizeof *k);
  fold_batches(&p);
  kn_status st = p.rank < 2 && describe(ctx, &p, p.m * p.n, &k->p) ? KN_OK : KN_DECLINED;
  if (st == KN_OK) st = make_descriptors(ctx, d, k);
  if (st == KN_OK) st = point(ctx, d, k, &p);
  free_kept(d, k);
  return st;
}

/* ---- the op ---- */

CU_ENTRY(matmul) {
  cu_device *d;
  cu_product p;
  (void)attrs, (void)n;
  KN_TRY(cu_device_of(ctx, &d));
  cu_product_of(&p, cu_view_of(in[0]), cu_view_of(in[1]), &out[0]->type);
  p.a.at = cu_address(in[0]), p.b.at = cu_address(in[1]), p.c = cu_address(out[0]);
  return cu_product_run(ctx, d, &p);
}
