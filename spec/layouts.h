/* How tensors may lie, for the sweeps over kernels of backends: filled with uneven and special values,
 * permuted, scattered, sliced, broadcast, empty, 0-d. */
#ifndef SPEC_LAYOUTS_H
#define SPEC_LAYOUTS_H
#include "spec/gen.h"
#include "spec/tensors.h"

/* A copy with the dims in reverse order in memory, and gaps. */
static inline kn_tensor *scattered(kn_context *c, kn_tensor *t) {
  kn_type block = type_of(kn_tensor_dtype(t), DIMS(3 + 2 * kn_tensor_numel(t)));
  kn_tensor *far;
  OK(c, kn_tensor_new(c, &block, &far));
  memset(far->storage->data, 1, far->storage->bytes);
  far->type = t->type;
  far->offset = 3;
  for (int64_t d = 0, step = 2; d < t->type.rank; step *= t->type.dims[d++]) far->strides[d] = step;
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    memcpy(element_at(far, k), element_at(t, k), kn_dtype_size(kn_tensor_dtype(t)));
  return far;
}

static inline double draw(uint64_t *seed) {
  *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (double)(*seed >> 11) * 0x1p-53;
}

/* Floats in (-4, 4), every 17th a special one; integers all over the dtype, small ones among them. */
static inline void fill(kn_tensor *t, uint64_t seed) {
  static const double special[] = {0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 0.5, 1e-30, 3e4, -7e4};
  kn_dtype d = kn_tensor_dtype(t);
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) {
    double u = draw(&seed);
    void *at = element_at(t, k);
    if (kn_dtype_is_float(d))
      kn_element_put_float(d, at, k % 17 == 3 ? special[(k / 17 + (int64_t)(seed % 3)) % 11] : 8 * u - 4);
    else
      kn_element_put_int(d, at, k % 3 ? (int64_t)(u * 20) - 5 : (int64_t)(seed ^ seed << 17));
  }
}

static inline kn_tensor *filled(kn_context *c, kn_dtype d, kn_ints dims, uint64_t seed) {
  kn_type type = type_of(d, dims);
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  fill(t, seed);
  return t;
}

/* Two dims exchanged; every other element of the last dim (it must be even). */
static inline void exchange(kn_tensor *t, int a, int b) {
  int64_t dim = t->type.dims[a], stride = t->strides[a];
  t->type.dims[a] = t->type.dims[b], t->strides[a] = t->strides[b];
  t->type.dims[b] = dim, t->strides[b] = stride;
}
static inline void thin(kn_tensor *t) {
  int last = t->type.rank - 1;
  t->type.dims[last] /= 2;
  t->strides[last] *= 2;
  t->offset++;
}

typedef struct layout {
  const char *name;
  kn_ints dims[3];
  int exchanged; /* a bit for each input: its first and last dim are exchanged */
  int thinned;   /* its last dim was twice as long */
} layout;

enum { LAYOUTS = 12 };
static const layout layouts[LAYOUTS] = {
    {"long", {{1, {1003}}, {1, {1003}}, {1, {1003}}}, 0, 0},
    {"threads", {{1, {70001}}, {1, {70001}}, {1, {70001}}}, 0, 0},
    {"rows", {{2, {33, 517}}, {1, {517}}, {2, {33, 517}}}, 0, 0},
    {"columns", {{2, {33, 517}}, {2, {33, 1}}, {1, {1}}}, 0, 0},
    {"narrow rows", {{2, {300, 5}}, {1, {5}}, {2, {300, 1}}}, 0, 0},
    {"0-d first", {{0, {0}}, {1, {777}}, {0, {0}}}, 0, 0},
    {"0-d second", {{1, {777}}, {0, {0}}, {0, {0}}}, 0, 0},
    {"outer", {{2, {65, 1}}, {2, {1, 67}}, {2, {65, 67}}}, 0, 0},
    {"permuted", {{3, {41, 7, 37}}, {3, {37, 7, 41}}, {3, {41, 7, 37}}}, 5, 0},
    {"all permuted", {{3, {41, 7, 37}}, {3, {41, 7, 37}}, {3, {41, 7, 37}}}, 7, 0},
    {"sliced", {{2, {9, 1200}}, {2, {9, 600}}, {2, {9, 1200}}}, 0, 5},
    {"empty", {{2, {3, 0}}, {1, {0}}, {2, {3, 0}}}, 0, 0},
};

/* Inputs of an elementwise op that lie like this, attributes, and what to call it. */
static inline int layout_make(kn_context *c, kn_op op, const layout *l, const kn_dtype *d, kn_tensor **in,
                              kn_attrs_any *attrs, char *what, size_t size) {
  const int n = kn_ops[op].min_in;
  kn_attrs_default(kn_ops[op].attrs, attrs);
  if (op == KN_OP_clamp) attrs->clamp = (kn_attrs_clamp){.min = 1, .max = 3};
  snprintf(what, size, "%s, %s and %s", l->name, kn_dtype_name(d[0]), kn_dtype_name(d[1]));
  for (int i = 0; i < n; i++) {
    in[i] = filled(c, n == 3 && i == 0 ? KN_BOOL : d[n == 3 ? i - 1 : i], l->dims[i],
                   (uint64_t)(i + 1) * 977 + (uint64_t)op);
    if (l->exchanged >> i & 1) exchange(in[i], 0, in[i]->type.rank - 1);
    if (l->thinned >> i & 1) thin(in[i]);
  }
  return n;
}

#endif
