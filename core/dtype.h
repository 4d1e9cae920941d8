/* Element types: one row each. A new dtype is a row here and a case in the kernels' type macro. */
#ifndef KN_DTYPE_H
#define KN_DTYPE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kn_category { KN_CAT_BOOL, KN_CAT_INT, KN_CAT_FLOAT } kn_category;

/* X(enum, name, C type, category, safetensors name, npy descr). In order of promotion. */
#define KN_DTYPES(X)                                                                                         \
  X(BOOL, "bool", uint8_t, KN_CAT_BOOL, "BOOL", "|b1")                                                       \
  X(I64, "int64", int64_t, KN_CAT_INT, "I64", "<i8")                                                         \
  X(F32, "float32", float, KN_CAT_FLOAT, "F32", "<f4")                                                       \
  X(F64, "float64", double, KN_CAT_FLOAT, "F64", "<f8")

/* clang-format off */
typedef enum kn_dtype {
#define X(e, name, ctype, cat, st, npy) KN_##e,
  KN_DTYPES(X)
#undef X
  KN_DTYPE_COUNT
} kn_dtype;
/* clang-format on */

typedef struct kn_dtype_info {
  const char *name; /* as users write it */
  size_t size;      /* bytes per element */
  kn_category category;
  const char *safetensors; /* spelling in a safetensors header */
  const char *npy;         /* spelling in an .npy header, little endian */
} kn_dtype_info;

extern const kn_dtype_info kn_dtypes[KN_DTYPE_COUNT];

static inline size_t kn_dtype_size(kn_dtype d) { return kn_dtypes[d].size; }
static inline const char *kn_dtype_name(kn_dtype d) { return kn_dtypes[d].name; }
static inline bool kn_dtype_is_float(kn_dtype d) { return kn_dtypes[d].category == KN_CAT_FLOAT; }

/* False when the name is unknown; *out untouched then. */
bool kn_dtype_parse(const char *name, kn_dtype *out);
/* Truncates toward zero; values out of range give the nearest int64, nan gives 0. What `cast` does. */
static inline int64_t kn_f64_to_i64(double x) {
  if (x >= 0x1p63) return INT64_MAX;
  if (x < -0x1p63) return INT64_MIN;
  return x == x ? (int64_t)x : 0;
}
/* PyTorch's promotion of two tensor dtypes (both dimensioned). */
kn_dtype kn_dtype_promote(kn_dtype a, kn_dtype b);

#endif
