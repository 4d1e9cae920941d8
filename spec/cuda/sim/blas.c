/* libcublasLt.so.13 of the software device: the functions that kiln calls, as naive loops on the software
 * device's memory, in the order of the stream. It checks what the real library would: sizes against layouts,
 * alignments against addresses, epilogues against what they need. */
#include "core/half.h"
#include "spec/cuda/sim/sim.h"
#include <cublasLt.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct desc { /* behind cublasLtMatmulDesc_t */
  cublasComputeType_t compute;
  cudaDataType_t scale, bias_type;
  cublasOperation_t turned[2];
  cublasLtEpilogue_t epilogue;
  void *bias, *aux;
  int64_t aux_pitch;
} desc;

typedef struct layout { /* behind cublasLtMatrixLayout_t */
  cudaDataType_t type;
  int64_t rows, columns, pitch, step;
  int32_t batches;
} layout;

typedef struct preference { /* behind cublasLtMatmulPreference_t */
  uint64_t workspace;
  uint32_t schemes, by[4]; /* alignments of A, B, C, D */
} preference;

/* One product, with all that it needs: descriptors may be gone when it runs. */
typedef struct job {
  desc op;
  layout a, b, c, d;
  double alpha, beta;
  char *pa, *pb, *pc, *pd;
} job;

typedef struct sim_blas_record { /* of the last call of cublasLtMatmul, for tests */
  int64_t calls, algo;
  int compute, turned_a, turned_b, epilogue, batches;
} sim_blas_record;

struct cublasLtContext {
  int opened;
};

EXPORT sim_blas_record sim_blas_last;

/* ---- elements ---- */

static size_t size_of(cudaDataType_t t) { return t == CUDA_R_64F ? 8 : t == CUDA_R_32F ? 4 : 2; }

static double load(const char *base, cudaDataType_t t, int64_t at) {
  switch ((int)t) {
  case CUDA_R_64F: return ((const double *)base)[at];
  case CUDA_R_32F: return (double)((const float *)base)[at];
  case CUDA_R_16F: return (double)kn_f16_to_f32(((const uint16_t *)base)[at]);
  default: return (double)kn_bf16_to_f32(((const uint16_t *)base)[at]);
  }
}

static void store(char *base, cudaDataType_t t, int64_t at, double x) {
  switch ((int)t) {
  case CUDA_R_64F: ((double *)base)[at] = x; break;
  case CUDA_R_32F: ((float *)base)[at] = (float)x; break;
  case CUDA_R_16F: ((uint16_t *)base)[at] = kn_f32_to_f16((float)x); break;
  default: ((uint16_t *)base)[at] = kn_f32_to_bf16((float)x);
  }
}

/* What tensor units make of a float32: ten bits behind the point, rounded to nearest. */
static float as_tf32(float x) {
  uint32_t u = kn_f32_bits(x);
  return (u & 0x7f800000u) == 0x7f800000u ? x : kn_f32_from_bits((u + 0xfffu + (u >> 13 & 1)) & ~0x1fffu);
}

/* ---- the product ---- */

static double gelu(double x) { return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }
static double gelu_slope(double x) {
  double t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

static int64_t place(const layout *l, bool turned, int64_t i, int64_t j) {
  return turned ? j + i * l->pitch : i + j * l->pitch;
}

static double sum(const job *w, int64_t batch, int64_t i, int64_t j) {
  bool ta = w->op.turned[0] == CUBLAS_OP_T, tb = w->op.turned[1] == CUBLAS_OP_T;
  int64_t k = ta ? w->a.rows : w->a.columns;
  float s = 0;
  double wide = 0;
  for (int64_t p = 0; p < k; p++) {
    double x = load(w->pa, w->a.type, batch * w->a.step + place(&w->a, ta, i, p));
    double y = load(w->pb, w->b.type, batch * w->b.step + place(&w->b, tb, p, j));
    if (w->op.compute == CUBLAS_COMPUTE_64F)
      wide += x * y;
    else if (w->op.compute == CUBLAS_COMPUTE_32F_FAST_TF32)
      s += as_tf32((float)x) * as_tf32((float)y);
    else
      s += (float)x * (float)y;
  }
  return w->op.compute == CUBLAS_COMPUTE_64F ? wide : (double)s;
}

enum { AUX = 128, BGRAD = 16, DRELU = 8, DGELU = 64 }; /* parts of epilogues */

/* After the sum of place (i, j): bias, function, what is kept for the gradient. */
static double finish(const job *w, int64_t i, int64_t j, double x) {
  unsigned e = w->op.epilogue;
  unsigned char *bits = (unsigned char *)w->op.aux + (j * w->op.aux_pitch + i) / 8,
                bit = (unsigned char)(1 << i % 8);
  int64_t at = j * w->op.aux_pitch + i;
  if (e & CUBLASLT_EPILOGUE_BIAS) x += load(w->op.bias, w->op.bias_type, i);
  if (e & CUBLASLT_EPILOGUE_RELU) {
    if (e & AUX) *bits = (unsigned char)(x > 0 ? *bits | bit : *bits & ~bit);
    x = x > 0 ? x : 0;
  }
  if (e & CUBLASLT_EPILOGUE_GELU) {
    if (e & AUX) store(w->op.aux, w->d.type, at, x);
    x = gelu(x);
  }
  if (e & DRELU) x = *bits & bit ? x : 0;
  if (e & DGELU) x *= gelu_slope(load(w->op.aux, w->d.type, at));
  return x;
}

/* Sums of a factor over k, or of the result over its columns. */
static void bias_gradient(const job *w) {
  unsigned e = w->op.epilogue;
  bool ta = w->op.turned[0] == CUBLAS_OP_T, tb = w->op.turned[1] == CUBLAS_OP_T;
  int64_t k = ta ? w->a.rows : w->a.columns;
  for (int64_t i = 0; e & (BGRAD | CUBLASLT_EPILOGUE_BGRADA) && i < w->d.rows; i++) {
    double s = 0;
    for (int64_t j = 0; e & BGRAD && j < w->d.columns; j++)
      s += load(w->pd, w->d.type, place(&w->d, false, i, j));
    for (int64_t p = 0; !(e & BGRAD) && p < k; p++) s += load(w->pa, w->a.type, place(&w->a, ta, i, p));
    store(w->op.bias, w->op.bias_type, i, s);
  }
  for (int64_t j = 0; e & CUBLASLT_EPILOGUE_BGRADB && j < w->d.columns; j++) {
    double s = 0;
    for (int64_t p = 0; p < k; p++) s += load(w->pb, w->b.type, place(&w->b, tb, p, j));
    store(w->op.bias, w->op.bias_type, j, s);
  }
}

static void run(void *arg) {
  const job *w = arg;
  for (int64_t batch = 0; batch < w->d.batches; batch++)
    for (int64_t j = 0; j < w->d.columns; j++)
      for (int64_t i = 0; i < w->d.rows; i++) {
        double x = w->alpha * sum(w, batch, i, j);
        if (w->beta != 0)
          x += w->beta * load(w->pc, w->c.type, batch * w->c.step + place(&w->c, false, i, j));
        if (w->op.epilogue != CUBLASLT_EPILOGUE_DEFAULT) x = finish(w, i, j, x);
        store(w->pd, w->d.type, batch * w->d.step + place(&w->d, false, i, j), x);
      }
  bias_gradient(w);
}

/* ---- checks ---- */

static bool layout_fits(const layout *l, int64_t rows, int64_t columns) {
  return l->rows == rows && l->columns == columns && l->pitch >= rows && l->batches > 0;
}

static bool fits(const desc *op, const layout *a, const layout *b, const layout *c, const layout *d) {
  bool ta = op->turned[0] == CUBLAS_OP_T, tb = op->turned[1] == CUBLAS_OP_T;
  int64_t k = ta ? a->rows : a->columns, m = d->rows, n = d->columns;
  bool wide = d->type == CUDA_R_64F;
  if (wide != (op->compute == CUBLAS_COMPUTE_64F) || wide != (op->scale == CUDA_R_64F)) return false;
  if (op->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && d->type != CUDA_R_32F) return false;
  if (a->type != d->type || b->type != d->type || c->type != d->type) return false;
  if (a->batches != d->batches || b->batches != d->batches || c->batches != d->batches) return false;
  unsigned e = op->epilogue;
  if (e != CUBLASLT_EPILOGUE_DEFAULT && (wide || d->batches > 1)) return false;
  if (e & (CUBLASLT_EPILOGUE_BIAS | BGRAD | CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB) && !op->bias)
    return false;
  if (e & AUX) {
    int64_t unit = e & (DGELU | CUBLASLT_EPILOGUE_GELU) ? 8 : 128;
    if (!op->aux || op->aux_pitch < m || op->aux_pitch % unit) return false;
  }
  return layout_fits(a, ta ? k : m, ta ? m : k) && layout_fits(b, tb ? n : k, tb ? k : n) &&
         layout_fits(c, m, n) && layout_fits(d, m, n);
}

/* ---- the library's functions ---- */

EXPORT size_t cublasLtGetVersion(void) { return 130000; }

EXPORT const char *cublasLtGetStatusName(cublasStatus_t s) {
  return s == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
         : s == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
         : s == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                            : "CUBLAS_STATUS_INTERNAL_ERROR";
}

static cublasStatus_t made(void **out, size_t bytes) {
  *out = calloc(1, bytes);
  return *out ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

static cublasStatus_t put(void *field, size_t bytes, const void *from, size_t given) {
  if (given != bytes) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(field, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
#define PUT(field) put(&(field), sizeof(field), from, bytes)

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) { return made((void **)out, sizeof **out); }
EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return free(h), CUBLAS_STATUS_SUCCESS; }

EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  desc *d;
  cublasStatus_t st = made((void **)&d, sizeof *d);
  if (st != CUBLAS_STATUS_SUCCESS) return st;
  *d = (desc){.compute = compute, .scale = scale, .epilogue = CUBLASLT_EPILOGUE_DEFAULT, .bias_type = scale};
  *out = (cublasLtMatmulDesc_t)d;
  return st;
}
EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  return free(d), CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                                     cublasLtMatmulDescAttributes_t a, const void *from,
                                                     size_t bytes) {
  desc *d = (desc *)opaque;
  switch ((int)a) {
  case CUBLASLT_MATMUL_DESC_TRANSA: return PUT(d->turned[0]);
  case CUBLASLT_MATMUL_DESC_TRANSB: return PUT(d->turned[1]);
  case CUBLASLT_MATMUL_DESC_EPILOGUE: return PUT(d->epilogue);
  case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return PUT(d->bias_type);
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return PUT(d->bias);
  case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return PUT(d->aux);
  case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return PUT(d->aux_pitch);
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                                 uint64_t rows, uint64_t columns, int64_t pitch) {
  layout *l;
  cublasStatus_t st = made((void **)&l, sizeof *l);
  if (st != CUBLAS_STATUS_SUCCESS) return st;
  *l = (layout){
      .type = type, .rows = (int64_t)rows, .columns = (int64_t)columns, .pitch = pitch, .batches = 1};
  *out = (cublasLtMatrixLayout_t)l;
  return st;
}
EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  return free(l), CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t opaque,
                                                       cublasLtMatrixLayoutAttribute_t a, const void *from,
                                                       size_t bytes) {
  layout *l = (layout *)opaque;
  switch ((int)a) {
  case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return PUT(l->batches);
  case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return PUT(l->step);
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
  preference *p;
  cublasStatus_t st = made((void **)&p, sizeof *p);
  if (st != CUBLAS_STATUS_SUCCESS) return st;
  *p = (preference){.schemes = CUBLASLT_REDUCTION_SCHEME_MASK, .by = {256, 256, 256, 256}};
  *out = (cublasLtMatmulPreference_t)p;
  return st;
}
EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  return free(p), CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                           cublasLtMatmulPreferenceAttributes_t a,
                                                           const void *from, size_t bytes) {
  preference *p = (preference *)opaque;
  switch ((int)a) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return PUT(p->workspace);
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return PUT(p->schemes);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return PUT(p->by[0]);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return PUT(p->by[1]);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return PUT(p->by[2]);
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return PUT(p->by[3]);
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

/* An algorithm is a number, the alignments that it counts on, and the workspace it needs. */
typedef struct algorithm {
  uint32_t number, by[4], workspace;
} algorithm;

EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t op,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t opaque, int most,
                                                     cublasLtMatmulHeuristicResult_t results[], int *found) {
  const preference *p = (const preference *)opaque;
  *found = 0;
  if (!h || !fits((desc *)op, (layout *)a, (layout *)b, (layout *)c, (layout *)d))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (uint32_t i = 0; i < 3 && (int)i < most; i++) {
    algorithm g = {i, {p->by[0], p->by[1], p->by[2], p->by[3]}, i * 4096};
    if (g.workspace > p->workspace) continue;
    cublasLtMatmulHeuristicResult_t *r = &results[(*found)++];
    memset(r, 0, sizeof *r);
    memcpy(&r->algo, &g, sizeof g);
    r->workspaceSize = g.workspace;
    r->state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t op, const void *alpha,
                                     const void *pa, cublasLtMatrixLayout_t a, const void *pb,
                                     cublasLtMatrixLayout_t b, const void *beta, const void *pc,
                                     cublasLtMatrixLayout_t c, void *pd, cublasLtMatrixLayout_t d,
                                     const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes,
                                     cudaStream_t stream) {
  job w = {*(desc *)op,
           *(layout *)a,
           *(layout *)b,
           *(layout *)c,
           *(layout *)d,
           0,
           0,
           (char *)(uintptr_t)pa,
           (char *)(uintptr_t)pb,
           (char *)(uintptr_t)pc,
           pd};
  algorithm g;
  if (!h || !algo || !fits(&w.op, &w.a, &w.b, &w.c, &w.d)) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(&g, algo, sizeof g);
  const void *at[] = {pa, pb, pc, pd};
  for (int i = 0; i < 4; i++)
    if ((uintptr_t)at[i] % g.by[i]) return CUBLAS_STATUS_INVALID_VALUE;
  if (bytes < g.workspace || (g.workspace && !workspace)) return CUBLAS_STATUS_INVALID_VALUE;
  bool wide = w.op.scale == CUDA_R_64F;
  w.alpha = wide ? *(const double *)alpha : (double)*(const float *)alpha;
  w.beta = wide ? *(const double *)beta : (double)*(const float *)beta;
  sim_blas_last = (sim_blas_record){
      sim_blas_last.calls + 1,       g.number,           (int)w.op.compute, w.op.turned[0] == CUBLAS_OP_T,
      w.op.turned[1] == CUBLAS_OP_T, (int)w.op.epilogue, w.d.batches};
  static const double takes[] = {12e-6, 8e-6,
                                 10e-6}; /* by algorithm: the heuristics' first is not the fastest */
  sim_takes(takes[g.number]);
  return sim_enqueue((CUstream)stream, run, &w, sizeof w) ? CUBLAS_STATUS_SUCCESS
                                                          : CUBLAS_STATUS_EXECUTION_FAILED;
}
