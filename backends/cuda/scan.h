/* Sums and products of the elements so far, as source (scan.c): for tests. */
#ifndef KN_CUDA_SCAN_H
#define KN_CUDA_SCAN_H
#include "backends/cuda/formula.h"

typedef struct cu_scan {
  kn_dtype from, to;
  bool product;
} cu_scan;
void cu_scan_write(void *scan, cu_text *t);

#endif
