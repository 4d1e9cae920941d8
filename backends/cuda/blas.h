/* Products of matrices: by cuBLASLt, with what follows them; those that it does not take (whole numbers,
 * factors whose elements lie apart both ways) by a tiled kernel of our own. Everything is launched on the
 * device's stream and waits for nothing. */
#ifndef KN_CUDA_BLAS_H
#define KN_CUDA_BLAS_H
#include "backends/cuda/device.h"
#include "backends/cuda/view.h"

typedef struct cu_factor {
  CUdeviceptr at;
  int64_t row, column;       /* elements from row to row, from column to column */
  int64_t step[KN_MAX_RANK]; /* from matrix to matrix along each batch dim; 0: the same one */
} cu_factor;

/* c[dims…, m, n] = a[dims…, m, k] b[dims…, k, n], then the epilogue. What cuBLASLt calls A is our b, and its
 * rows of D are our columns n, since it thinks in columns: BIAS adds a row of n to each row; BGRADA gives b's
 * sums over k (n of them), BGRADB a's (m); DRELU_BGRAD and DGELU_BGRAD give the result's sums over m (n).
 * With an epilogue there are no batch dims. */
typedef struct cu_product {
  kn_dtype dtype; /* of all: factors, result, bias */
  int64_t m, n, k;
  int rank;
  int64_t dims[KN_MAX_RANK];
  cu_factor a, b;
  CUdeviceptr c;               /* contiguous */
  cublasLtEpilogue_t epilogue; /* 0: none */
  CUdeviceptr bias;            /* BIAS: read; …BGRAD…: written */
  CUdeviceptr aux; /* …AUX…, DRELU…: bits, in rows of aux_row bits; DGELU…: numbers, likewise */
  int64_t aux_row; /* at least n; of bits a multiple of 128, of numbers one of 8 */
  CUdeviceptr add; /* [dims…, m, n], contiguous: c = a b + add; may be c itself; 0: nothing */
  bool planned;    /* of a graph: by the algorithm that was found to be the fastest, where one was */
} cu_product;

/* The product that matmul means for tensors of known sizes; its addresses are to be set. */
void cu_product_of(cu_product *p, cu_view a, cu_view b, const kn_type *out);

/* Would cuBLASLt be given it, as far as can be told before it is asked? False with the reason. */
bool cu_blas_supports(const cu_product *p, char *why, size_t size);
/* Computes it. A product with an epilogue that cuBLASLt does not take is KN_DECLINED; any other is computed.
 */
kn_status cu_product_run(kn_context *ctx, cu_device *d, const cu_product *p);

/* How it has been found to be computed: for tests and the profile. */
typedef struct cu_blas_choice {
  cublasComputeType_t compute;
  int found;        /* algorithms that the heuristics gave */
  int chosen;       /* which of them is taken */
  size_t workspace; /* bytes */
} cu_blas_choice;
/* Of the last product that went to cuBLASLt. */
cu_blas_choice cu_blas_last(const cu_device *d);
/* Takes another one of the algorithms found for products like p: who measures says which. False: there is no
 * such one, or no such product was run yet. */
bool cu_blas_choose(kn_context *ctx, cu_device *d, const cu_product *p, int which);

/* ---- what is measured (blas_tune.c); for planned products of one batch dim at most ---- */

/* Asks for the fastest of the algorithms that the heuristics give for a product of a graph: what is known, or
 * by trials on memory of its own, as backends/tune.h has it. Addresses are not looked at, but should be as
 * aligned as they will be. Never while something is captured. */
void cu_blas_tune(kn_context *ctx, cu_device *d, const cu_product *p);
/* A text of all that decides about it; how many algorithms there are (0: none). */
int cu_blas_ways(kn_context *ctx, cu_device *d, const cu_product *p, char *key, size_t size);
/* From now on products like it are computed in this way. */
void cu_blas_settle(kn_context *ctx, cu_device *d, const cu_product *p, int way);
enum { CU_BLAS_WAYS = 8 };
extern const char *const cu_blas_way_names[CU_BLAS_WAYS];

/* Makes what describes a product to cuBLASLt, and drops it: for tests with a library that has no device. */
kn_status cu_blas_describe(kn_context *ctx, cu_device *d, const cu_product *p);

void cu_blas_close(cu_device *d); /* with the device; NULL state is fine */

#endif
