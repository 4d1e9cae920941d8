/* Overlap of strided layouts: see core/overlap.h. */
#include "core/overlap.h"
#include <string.h>

typedef struct axis {
  int64_t size, stride;
} axis;

/* The dims of more than one element, smallest stride first. -1: there is no element. */
static int sorted(int rank, const int64_t *dims, const int64_t *strides, axis *out) {
  int n = 0;
  for (int d = 0; d < rank; d++) {
    if (dims[d] == 0) return -1;
    if (dims[d] == 1) continue;
    int at = n++;
    for (; at > 0 && out[at - 1].stride > strides[d]; at--) out[at] = out[at - 1];
    out[at] = (axis){dims[d], strides[d]};
  }
  return n;
}

/* Drops the outer dims whose step goes beyond all that lies inside them: they never bring two together. */
static int drop_nested(const axis *a, int n) {
  while (n > 0) {
    int64_t extent = 0;
    for (int i = 0; i < n - 1; i++) extent += (a[i].size - 1) * a[i].stride;
    if (a[n - 1].stride <= extent || a[n - 1].stride == 0) break;
    n--;
  }
  return n;
}

static int64_t common_divisor(const axis *a, int n) {
  int64_t g = 0;
  for (int i = 0; i < n; i++)
    for (int64_t b = a[i].stride; b;) {
      int64_t r = g % b;
      g = b, b = r;
    }
  return g;
}

/* Marks every address; true when one is marked already. */
static bool meets(uint8_t *marks, const axis *a, int n, int64_t unit) {
  int64_t at[KN_MAX_RANK] = {0}, place = 0;
  for (;;) {
    uint8_t bit = (uint8_t)(1u << (place & 7));
    if (marks[place >> 3] & bit) return true;
    marks[place >> 3] |= bit;
    int d = 0;
    for (; d < n && ++at[d] == a[d].size; d++) {
      place -= (a[d].size - 1) * (a[d].stride / unit);
      at[d] = 0;
    }
    if (d == n) return false;
    place += a[d].stride / unit;
  }
}

kn_status kn_overlaps_itself(kn_context *ctx, int rank, const int64_t *dims, const int64_t *strides,
                             bool *out) {
  axis a[KN_MAX_RANK + 1];
  int n = sorted(rank, dims, strides, a);
  *out = false;
  if (n <= 0 || (n = drop_nested(a, n)) == 0) return KN_OK;
  int64_t unit = common_divisor(a, n), span = 1, count = 1;
  *out = a[0].stride == 0;
  if (*out) return KN_OK;
  for (int i = 0; i < n; i++) {
    span += (a[i].size - 1) * (a[i].stride / unit);
    count *= a[i].size;
  }
  *out = count > span; /* more elements than places */
  if (*out) return KN_OK;
  size_t bytes = (size_t)(span / 8 + 1);
  uint8_t *marks = kn_claim(ctx, bytes);
  if (!marks) return kn_fail_nomem(ctx, bytes);
  memset(marks, 0, bytes);
  *out = meets(marks, a, n, unit);
  kn_free(kn_claim_heap(ctx), marks, bytes);
  return KN_OK;
}

/* First and last byte, relative to the storage. False when there is no element. */
static bool range(const kn_tensor *t, int64_t *first, int64_t *last) {
  int64_t size = (int64_t)kn_dtype_size(kn_tensor_dtype(t)), end = t->offset;
  for (int d = 0; d < t->type.rank; d++) {
    if (t->type.dims[d] == 0) return false;
    end += (t->type.dims[d] - 1) * t->strides[d];
  }
  *first = t->offset * size;
  *last = (end + 1) * size - 1;
  return true;
}

kn_overlap kn_tensor_overlap(const kn_tensor *a, const kn_tensor *b) {
  int64_t a0, a1, b0, b1;
  if (!a->storage || a->storage != b->storage) return KN_OVERLAP_NONE;
  if (!range(a, &a0, &a1) || !range(b, &b0, &b1) || a1 < b0 || b1 < a0) return KN_OVERLAP_NONE;
  bool same = kn_type_equal(&a->type, &b->type) && a->offset == b->offset;
  for (int d = 0; same && d < a->type.rank; d++)
    same = a->type.dims[d] == 1 || a->strides[d] == b->strides[d];
  return same ? KN_OVERLAP_SAME : KN_OVERLAP_MIXED;
}
