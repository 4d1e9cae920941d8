/* Element types: one row each. A new dtype is a row here and a line in core/element.h; kernels need nothing,
 * for they compute it in the dtype of its last column. */
#ifndef KN_DTYPE_H
#define KN_DTYPE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kn_category { KN_CAT_BOOL, KN_CAT_INT, KN_CAT_FLOAT } kn_category;

/* X(enum, name, C type, category, safetensors name, npy descr or NULL, dtype that kernels compute it in). In
 * order of promotion; of two that are equally wide neither holds the other, and the row after them holds
 * both. */
#define KN_DTYPES(X)                                                                                         \
  X(BOOL, "bool", uint8_t, KN_CAT_BOOL, "BOOL", "|b1", BOOL)                                                 \
  X(U8, "uint8", uint8_t, KN_CAT_INT, "U8", "|u1", I64)                                                      \
  X(I8, "int8", int8_t, KN_CAT_INT, "I8", "|i1", I64)                                                        \
  X(I16, "int16", int16_t, KN_CAT_INT, "I16", "<i2", I64)                                                    \
  X(I32, "int32", int32_t, KN_CAT_INT, "I32", "<i4", I64)                                                    \
  X(I64, "int64", int64_t, KN_CAT_INT, "I64", "<i8", I64)                                                    \
  X(F16, "float16", uint16_t, KN_CAT_FLOAT, "F16", "<f2", F32)                                               \
  X(BF16, "bfloat16", uint16_t, KN_CAT_FLOAT, "BF16", NULL, F32)                                             \
  X(F32, "float32", float, KN_CAT_FLOAT, "F32", "<f4", F32)                                                  \
  X(F64, "float64", double, KN_CAT_FLOAT, "F64", "<f8", F64)

/* clang-format off */
typedef enum kn_dtype {
#define X(e, ...) KN_##e,
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
  const char *npy;         /* spelling in an .npy header, little endian; NULL: it has none */
  kn_dtype wide;           /* what kernels compute it in: it holds every value, and may be the dtype itself */
  int64_t lowest, highest; /* of integers and bool; 0 of floats */
} kn_dtype_info;

extern const kn_dtype_info kn_dtypes[KN_DTYPE_COUNT];

static inline size_t kn_dtype_size(kn_dtype d) { return kn_dtypes[d].size; }
static inline const char *kn_dtype_name(kn_dtype d) { return kn_dtypes[d].name; }
static inline bool kn_dtype_is_float(kn_dtype d) { return kn_dtypes[d].category == KN_CAT_FLOAT; }

/* False when the name is unknown; *out untouched then. */
bool kn_dtype_parse(const char *name, kn_dtype *out);
/* PyTorch's promotion of two tensor dtypes (both dimensioned). */
kn_dtype kn_dtype_promote(kn_dtype a, kn_dtype b);

/* Whether x, truncated, is a value of an integer dtype; floats and bool take any. */
bool kn_dtype_holds(kn_dtype d, double x);

/* One element as a number, and a number as an element, cast as `cast` does (core/element.h). */
int64_t kn_element_int(kn_dtype d, const void *at);
double kn_element_float(kn_dtype d, const void *at);
void kn_element_put_int(kn_dtype d, void *at, int64_t x);
void kn_element_put_float(kn_dtype d, void *at, double x);
/* Truncates toward zero; values out of range give the nearest int64, nan gives 0. What `cast` does. */
static inline int64_t kn_f64_to_i64(double x) {
  if (x >= 0x1p63) return INT64_MAX;
  if (x < -0x1p63) return INT64_MIN;
  return x == x ? (int64_t)x : 0;
}

#endif
