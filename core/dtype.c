/* The dtype table, promotion, and single elements of any dtype. */
#include "core/dtype.h"
#include "core/element.h"
#include <math.h>
#include <string.h>

#define WHOLE(cat) ((cat) != KN_CAT_FLOAT)
const kn_dtype_info kn_dtypes[KN_DTYPE_COUNT] = {
#define X(e, name, ctype, cat, st, npy, wide)                                                                \
  [KN_##e] = {name,                                                                                          \
              sizeof(ctype),                                                                                 \
              cat,                                                                                           \
              st,                                                                                            \
              npy,                                                                                           \
              KN_##wide,                                                                                     \
              WHOLE(cat) ? KN_LOWEST(ctype) : 0,                                                             \
              (cat) == KN_CAT_BOOL ? 1                                                                       \
              : WHOLE(cat)         ? KN_HIGHEST(ctype)                                                       \
                                   : 0},
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

kn_dtype kn_dtype_promote(kn_dtype a, kn_dtype b) {
  kn_dtype later = a > b ? a : b;
  bool same_kind = kn_dtypes[a].category == kn_dtypes[b].category;
  return a != b && same_kind && kn_dtypes[a].size == kn_dtypes[b].size ? later + 1 : later;
}

/* The upper bound of int64 is no double: 2^63 is next to it. */
bool kn_dtype_holds(kn_dtype d, double x) {
  const kn_dtype_info *row = &kn_dtypes[d];
  if (row->category != KN_CAT_INT) return true;
  return x < 0x1p63 && trunc(x) >= (double)row->lowest && trunc(x) <= (double)row->highest;
}

/* ---- single elements ---- */

/* What ELEMENT says is done for the dtype d. */
#define ELEMENT_CASE(T, E)                                                                                   \
  case KN_##E:                                                                                               \
    ELEMENT(T, E);                                                                                           \
    break;
#define EACH_ELEMENT(d)                                                                                      \
  switch (d) {                                                                                               \
    KN_ELEMENTS(ELEMENT_CASE)                                                                                \
  case KN_DTYPE_COUNT: break;                                                                                \
  }

int64_t kn_element_int(kn_dtype d, const void *at) {
#define ELEMENT(T, E) return KN_PUT(I64, kn_get_##E(*(const T *)at))
  EACH_ELEMENT(d)
#undef ELEMENT
  return 0;
}

double kn_element_float(kn_dtype d, const void *at) {
#define ELEMENT(T, E) return KN_PUT(F64, kn_get_##E(*(const T *)at))
  EACH_ELEMENT(d)
#undef ELEMENT
  return 0;
}

void kn_element_put_int(kn_dtype d, void *at, int64_t x) {
#define ELEMENT(T, E) *(T *)at = KN_PUT(E, x)
  EACH_ELEMENT(d)
#undef ELEMENT
}

void kn_element_put_float(kn_dtype d, void *at, double x) {
#define ELEMENT(T, E) *(T *)at = KN_PUT(E, x)
  EACH_ELEMENT(d)
#undef ELEMENT
}
