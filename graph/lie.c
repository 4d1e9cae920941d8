/* How elements lie where sizes are not known: see lie.h. What cannot be told is said not to be so. */
#include "graph/lie.h"

const kn_lie kn_lie_in_order = {.joined = 0xFFFF, .unit = true},
             kn_lie_unknown = {.joined = 0, .unit = false};

/* The dims that are not of size 1, and whether each is joined with the next of them. */
typedef struct line {
  int n;
  int64_t size[KN_MAX_RANK];
  bool joined[KN_MAX_RANK];
} line;

static bool bit(const kn_lie *x, int d) { return x->joined >> d & 1; }

static void put(kn_lie *x, int d, bool joined) {
  uint16_t mask = (uint16_t)(1u << d);
  x->joined = (uint16_t)(joined ? x->joined | mask : x->joined & ~mask);
}

static line line_of(const kn_lie *x, const kn_type *type) {
  line l = {0};
  bool joined = true;
  for (int d = 0; d < type->rank; d++) {
    if (type->dims[d] != 1) {
      if (l.n) l.joined[l.n - 1] = joined;
      l.size[l.n++] = type->dims[d];
      joined = true;
    }
    joined &= bit(x, d);
  }
  return l;
}

static kn_lie of_line(const line *l, bool unit, const kn_type *type) {
  kn_lie out = {.joined = kn_lie_in_order.joined, .unit = unit};
  for (int d = 0, i = 0; d < type->rank; d++)
    if (type->dims[d] != 1) put(&out, d, i + 1 < l->n ? l->joined[i] : true), i++;
  return out;
}

static bool empty(const kn_type *type) {
  for (int d = 0; d < type->rank; d++)
    if (type->dims[d] == 0) return true;
  return false;
}

bool kn_lie_contiguous(const kn_lie *x, const kn_type *type) {
  line l = line_of(x, type);
  bool all = l.n == 0 || x->unit;
  for (int i = 0; i + 1 < l.n; i++) all &= l.joined[i];
  return all || empty(type);
}

kn_lie kn_lie_meet(const kn_lie *x, const kn_lie *y) {
  return (kn_lie){.joined = x->joined & y->joined, .unit = x->unit && y->unit};
}

kn_lie kn_lie_of_strides(const kn_tensor *t) {
  kn_lie out = kn_lie_in_order;
  int last = -1; /* the dim not of size 1 behind d */
  for (int d = t->type.rank - 1; d >= 0; d--) {
    if (t->type.dims[d] == 1) continue;
    if (last < 0)
      out.unit = t->strides[d] == 1;
    else
      put(&out, d, t->strides[d] == t->strides[last] * t->type.dims[last]);
    last = d;
  }
  return out;
}

static bool same_size(int64_t a, int64_t b) { return a == b && a != KN_DIM_UNKNOWN; }

/* Dims that stay as they are, at both ends, may lie as they do; those between must be all in one piece. */
bool kn_lie_shows(const kn_lie *x, const kn_type *from, const kn_type *to, kn_lie *out) {
  line a = line_of(x, from), b = line_of(&kn_lie_in_order, to);
  int front = 0, back = 0;
  *out = kn_lie_in_order;
  if (kn_lie_contiguous(x, from)) return true;
  while (front < a.n && front < b.n && same_size(a.size[front], b.size[front])) front++;
  while (back < a.n - front && back < b.n - front &&
         same_size(a.size[a.n - 1 - back], b.size[b.n - 1 - back]))
    back++;
  for (int i = front; i + 1 < a.n - back; i++)
    if (!a.joined[i]) return *out = kn_lie_unknown, false;
  for (int i = 0; i < front; i++) b.joined[i] = a.joined[i];
  for (int i = 1; i <= back && i < a.n && i < b.n; i++) {
    bool joined = a.joined[a.n - 1 - i];
    b.joined[b.n - 1 - i] = joined && (b.n - 1 - i >= front || b.joined[b.n - 1 - i]);
  }
  *out = of_line(&b, x->unit, to);
  return true;
}

/* ---- views ---- */

static int axis(int64_t d, int rank) { return (int)(d < 0 ? d + rank : d); }

static int last_of(const kn_type *type) { /* the last dim that is not of size 1 */
  int d = type->rank - 1;
  while (d >= 0 && type->dims[d] == 1) d--;
  return d;
}

/* Dim i of the `rank` of them is dim at[i] of what it shows; of those left out one position is shown. */
static kn_lie rearranged(const kn_lie *x, const kn_type *from, const int *at, int rank) {
  kn_lie out = kn_lie_in_order;
  int last = last_of(from), now = rank - 1;
  for (int i = 0; i + 1 < rank; i++) {
    bool joined = at[i] < at[i + 1];
    for (int d = at[i]; d < at[i + 1]; d++) joined &= bit(x, d) && (d == at[i] || from->dims[d] == 1);
    put(&out, i, joined);
  }
  while (now >= 0 && from->dims[at[now]] == 1) now--;
  out.unit = x->unit && (now >= 0 ? at[now] == last : last < 0);
  return out;
}

static kn_lie swapped(const kn_attrs_swap *a, const kn_lie *x, const kn_type *from) {
  int at[KN_MAX_RANK], d0 = axis(a->dim0, from->rank), d1 = axis(a->dim1, from->rank);
  for (int i = 0; i < from->rank; i++) at[i] = i == d0 ? d1 : i == d1 ? d0 : i;
  return rearranged(x, from, at, from->rank);
}

static kn_lie permuted(const kn_attrs_axes *a, const kn_lie *x, const kn_type *from) {
  int at[KN_MAX_RANK];
  for (int i = 0; i < from->rank; i++) at[i] = axis(a->dims.v[i], from->rank);
  return rearranged(x, from, at, from->rank);
}

static kn_lie selected(const kn_attrs_select *a, const kn_lie *x, const kn_type *from) {
  int at[KN_MAX_RANK], n = 0, dim = axis(a->dim, from->rank);
  for (int i = 0; i < from->rank; i++)
    if (i != dim) at[n++] = i;
  return rearranged(x, from, at, n);
}

static kn_lie sliced(const kn_attrs_slice *a, const kn_lie *x, const kn_type *from, const kn_type *to) {
  int dim = axis(a->dim, from->rank);
  kn_lie out = *x;
  if (a->step == 1 && same_size(from->dims[dim], to->dims[dim])) return out;
  if (dim) put(&out, dim - 1, false);
  if (a->step != 1) put(&out, dim, false);
  if (dim == last_of(from)) out.unit &= a->step == 1 && dim == last_of(to);
  return out;
}

static kn_lie expanded(const kn_lie *x, const kn_type *from, const kn_type *to) {
  int lead = to->rank - from->rank;
  kn_lie out = kn_lie_in_order;
  out.unit = x->unit;
  for (int d = 0; d < from->rank; d++) put(&out, d + lead, bit(x, d));
  for (int d = 0; d < to->rank; d++) {
    if (same_size(d < lead ? 1 : from->dims[d - lead], to->dims[d])) continue;
    put(&out, d, false);
    if (d) put(&out, d - 1, false);
    out.unit = false;
  }
  return out;
}

kn_lie kn_lie_of_view(kn_op op, const void *attrs, const kn_lie *x, const kn_type *from, const kn_type *to) {
  kn_lie out;
  switch (op) {
  case KN_OP_reshape:
  case KN_OP_reshape_as: return kn_lie_shows(x, from, to, &out), out;
  case KN_OP_squeeze:
  case KN_OP_unsqueeze: {
    line a = line_of(x, from), b = line_of(x, to);
    return a.n == b.n ? of_line(&a, x->unit, to) : kn_lie_unknown;
  }
  case KN_OP_transpose: return swapped(attrs, x, from);
  case KN_OP_permute: return permuted(attrs, x, from);
  case KN_OP_select: return selected(attrs, x, from);
  case KN_OP_slice: return sliced(attrs, x, from, to);
  case KN_OP_expand:
  case KN_OP_expand_as: return expanded(x, from, to);
  default: return kn_lie_unknown;
  }
}
