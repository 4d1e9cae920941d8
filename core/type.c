/* Sizes, counts and the text of tensor types. */
#include "core/type.h"
#include "core/device.h"
#include <inttypes.h>
#include <stdio.h>

bool kn_type_known(const kn_type *t) {
  for (int i = 0; i < t->rank; i++)
    if (!kn_dim_known(t->dims[i])) return false;
  return true;
}

bool kn_type_equal(const kn_type *a, const kn_type *b) {
  if (a->dtype != b->dtype || a->device != b->device || a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i]) return false;
  return true;
}

/* Sizes of 0 do not excuse the others: strides and counts over some of the dims must not overflow either, in
 * bytes of the widest dtype. */
int64_t kn_type_numel(const kn_type *t) {
  int64_t n = 1;
  bool zero = false;
  for (int i = 0; i < t->rank; i++)
    if (!kn_dim_known(t->dims[i])) return KN_DIM_UNKNOWN;
  for (int i = 0; i < t->rank; i++) {
    if (t->dims[i] == 0)
      zero = true;
    else if (__builtin_mul_overflow(n, t->dims[i], &n))
      return -2;
  }
  if (n > INT64_MAX / (int64_t)sizeof(int64_t)) return -2;
  return zero ? 0 : n;
}

bool kn_type_bytes(const kn_type *t, size_t *bytes) {
  int64_t n = kn_type_numel(t);
  return n >= 0 && !__builtin_mul_overflow((size_t)n, kn_dtype_size((kn_dtype)t->dtype), bytes) &&
         *bytes <= (size_t)INT64_MAX;
}

char *kn_type_text(const kn_type *t, char *buf, size_t size) {
  size_t at = 0;
#define PUT(...)                                                                                             \
  do {                                                                                                       \
    int w_ = snprintf(buf + at, size - at, __VA_ARGS__);                                                     \
    at = w_ < 0 || (size_t)w_ >= size - at ? size - 1 : at + (size_t)w_;                                     \
  } while (0)
  PUT("%s[", kn_dtype_name((kn_dtype)t->dtype));
  for (int i = 0; i < t->rank; i++) {
    if (i) PUT(",");
    if (kn_dim_known(t->dims[i]))
      PUT("%" PRId64, t->dims[i]);
    else if (t->dims[i] == KN_DIM_UNKNOWN)
      PUT("?");
    else
      PUT("s%" PRId64, KN_DIM_SYMBOL(0) - t->dims[i]);
  }
  PUT("]");
  if (t->device != KN_CPU) PUT("@%s", kn_device_name((kn_device_id)t->device));
#undef PUT
  return buf;
}
