/* Arrays as text, for people: nested brackets, long dimensions cut in the middle. */
#ifndef KILN_BIN_SHOW_H
#define KILN_BIN_SHOW_H
#include "bindings/c/kiln.h"
#include "core/dtype.h"
#include <inttypes.h>
#include <stdio.h>

enum {
  SHOW_ALL = 100,
  SHOW_EDGE = 3
}; /* elements shown in full; else this many at either end of a dimension */

typedef struct show_array {
  kiln_dtype dtype;
  int rank;
  const int64_t *sizes;
  const char *data; /* row-major */
} show_array;

static inline void show_element(const show_array *a, int64_t i) {
  kn_dtype d = KN_BOOL;
  kn_dtype_parse(kiln_dtype_name(a->dtype), &d);
  const char *at = a->data + (size_t)i * kn_dtype_size(d);
  switch (kn_dtypes[d].category) {
  case KN_CAT_BOOL: fputs(kn_element_int(d, at) ? "true" : "false", stdout); break;
  case KN_CAT_INT: printf("%" PRId64, kn_element_int(d, at)); break;
  case KN_CAT_FLOAT: printf(d == KN_F64 ? "%.10g" : "%.6g", kn_element_float(d, at)); break;
  }
}

static inline void show_dim(const show_array *a, int dim, int64_t first, int64_t count, bool cut) {
  if (dim == a->rank) {
    show_element(a, first);
    return;
  }
  int64_t n = a->sizes[dim], step = n ? count / n : 0;
  putchar('[');
  for (int64_t i = 0; i < n; i++) {
    if (i && dim + 1 == a->rank)
      fputs(", ", stdout);
    else if (i)
      printf(",\n%*s", dim + 3, "");
    if (cut && n > 2 * SHOW_EDGE + 1 && i == SHOW_EDGE) {
      fputs("…", stdout);
      i = n - SHOW_EDGE - 1;
    } else {
      show_dim(a, dim + 1, first + i * step, step, cut);
    }
  }
  putchar(']');
}

/* "  float32[2,3]\n  [[1, 2, 3],\n   [4, 5, 6]]\n"; a single number stands on the line of its type. */
static inline void show(const show_array *a) {
  int64_t count = 1;
  printf("%s[", kiln_dtype_name(a->dtype));
  for (int d = 0; d < a->rank; d++) {
    printf("%s%" PRId64, d ? "," : "", a->sizes[d]);
    count *= a->sizes[d];
  }
  fputs(a->rank ? "]\n  " : "] ", stdout);
  show_dim(a, 0, 0, count, count > SHOW_ALL);
  putchar('\n');
}

#endif
