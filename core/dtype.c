/* The dtype table and promotion. */
#include "core/dtype.h"
#include <string.h>

const kn_dtype_info kn_dtypes[KN_DTYPE_COUNT] = {
#define X(e, name, ctype, cat, st, npy) [KN_##e] = {name, sizeof(ctype), cat, st, npy},
    KN_DTYPES(X)
#undef X
};

bool kn_dtype_parse(const char *name, kn_dtype *out) {
  for (int i = 0; i < KN_DTYPE_COUNT; i++)
    if (!strcmp(kn_dtypes[i].name, name)) {
      *out = (kn_dtype)i;
      return true;
    }
  return false;
}

/* The table is ordered bool < integers < floats and by width within a category. */
kn_dtype kn_dtype_promote(kn_dtype a, kn_dtype b) { return a > b ? a : b; }
