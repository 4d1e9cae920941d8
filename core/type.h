/* A tensor's type: dtype, device, rank and sizes. Sizes may be symbolic while a graph is being built.
 * Everything that infers shapes works on these, for eager tensors and graph values alike. */
#ifndef KN_TYPE_H
#define KN_TYPE_H
#include "core/dtype.h"

enum { KN_MAX_RANK = 8 };

typedef enum kn_device_id { KN_CPU, KN_CUDA, KN_DEVICE_COUNT } kn_device_id;

/* A size is >= 0 when known; KN_DIM_UNKNOWN when it is not; below that, a named symbol:
 * KN_DIM_SYMBOL(k). Equal symbols are equal sizes; two unknowns may differ. */
#define KN_DIM_UNKNOWN INT64_C(-1)
#define KN_DIM_SYMBOL(k) (INT64_C(-2) - (int64_t)(k))
/* The k of a KN_DIM_SYMBOL(k); more than there can be for any other size. */
static inline uint64_t kn_dim_symbol_of(int64_t d) { return (uint64_t)INT64_C(-2) - (uint64_t)d; }
static inline bool kn_dim_known(int64_t d) { return d >= 0; }

typedef struct kn_type {
  uint8_t dtype;  /* kn_dtype */
  uint8_t device; /* kn_device_id */
  uint8_t rank;
  int64_t dims[KN_MAX_RANK];
} kn_type;

bool kn_type_known(const kn_type *t);                   /* every size known */
bool kn_type_equal(const kn_type *a, const kn_type *b); /* unknown sizes equal unknown sizes */
/* Element count; KN_DIM_UNKNOWN when a size is not known; -2 when the sizes other than 0
 * multiply to more than memory could ever hold (see kn_type_bytes). */
int64_t kn_type_numel(const kn_type *t);
/* False when a size is unknown or the byte count does not fit. */
bool kn_type_bytes(const kn_type *t, size_t *bytes);

/* "float32[2,?,N]"-like text, "…@cuda" on another device than the CPU, into buf (always terminated), returns
 * buf. Symbols print as s0, s1, … */
char *kn_type_text(const kn_type *t, char *buf, size_t size);
enum { KN_TYPE_TEXT = 128 };

/* Up to KN_MAX_RANK integers, used as sizes, dims, strides in attributes. */
typedef struct kn_ints {
  int32_t n;
  int64_t v[KN_MAX_RANK];
} kn_ints;

#endif
