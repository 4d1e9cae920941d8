/* Composites: other shapes and orders of the same elements, and padding. Sizes may be unknown while
 * recording: they are asked for by kx_put_sizes, or left to a -1. */
#include "core/composite.h"

static kn_status need_known(kn_scope *s, int64_t v, const char *what) {
  if (!kn_is_dyn(v)) return KN_OK;
  kx_fail(s, kn_fail(s->ctx, KN_ARG, "%s must be known while recording", what));
  return s->status;
}

/* Dims `dim` and the one after it made one. */
static kn_tensor *joined(kn_scope *s, kn_tensor *x, int dim) {
  if (!x) return NULL;
  int64_t a = x->type.dims[dim], b = x->type.dims[dim + 1], size = -1;
  if (kn_dim_known(a) && kn_dim_known(b) && __builtin_mul_overflow(a, b, &size)) size = -1;
  kn_ints sizes = {0};
  kx_put_sizes(s, x, 0, dim, &sizes);
  kx_put_size(s, size, &sizes);
  kx_put_sizes(s, x, dim + 2, x->type.rank, &sizes);
  return s->status == KN_OK ? kx_reshape(s, x, &sizes) : NULL;
}

/* Dim `dim`, of size 1, repeated. */
static kn_tensor *spread(kn_scope *s, kn_tensor *x, int dim, int64_t times) {
  if (!x) return NULL;
  kn_ints sizes = {.n = x->type.rank};
  for (int d = 0; d < sizes.n; d++) sizes.v[d] = d == dim ? times : -1;
  return kx_expand(s, x, &sizes);
}

/* ---- repeating ---- */

static kn_tensor *tile(kn_scope *s, kn_tensor *x, const kn_attrs_tile *a) {
  kn_ints r = a->repeats;
  for (int lead = r.n - x->type.rank; x && lead > 0; lead--) {
    x = kx_axis(s, KN_OP_unsqueeze, x, 0);
    if (!x) return NULL;
  }
  int skip = x->type.rank - r.n;
  for (int i = 0; i < r.n && x; i++) {
    if (!kn_is_dyn(r.v[i]) && r.v[i] < 0)
      return kx_fail(s, kn_fail(s->ctx, KN_ARG, "a repeat of %lld is negative", (long long)r.v[i]));
    if (r.v[i] != 1)
      x = joined(s, spread(s, kx_axis(s, KN_OP_unsqueeze, x, skip + i), skip + i, r.v[i]), skip + i);
  }
  return x;
}
EXPRESSION(tile, tile(s, in[0], attrs))

static kn_tensor *repeat_interleave(kn_scope *s, kn_tensor *x, const kn_attrs_repeat *a) {
  const kn_ints flat = {1, {-1}};
  if (!kn_is_dyn(a->repeats) && a->repeats < 0)
    return kx_fail(s, kn_fail(s->ctx, KN_ARG, "a repeat of %lld is negative", (long long)a->repeats));
  if (a->dim == KN_NONE || x->type.rank == 0) x = kx_reshape(s, x, &flat);
  if (!x) return NULL;
  int dim = a->dim == KN_NONE ? 0 : kx_dim(s, a->dim, x->type.rank);
  return joined(s, spread(s, kx_axis(s, KN_OP_unsqueeze, x, dim + 1), dim + 1, a->repeats), dim);
}
EXPRESSION(repeat_interleave, repeat_interleave(s, in[0], attrs))

/* ---- order ---- */

static kn_tensor *movedim(kn_scope *s, kn_tensor *x, const kn_attrs_movedim *a) {
  int rank = x->type.rank, from[KN_MAX_RANK];
  bool moved[KN_MAX_RANK] = {false};
  kn_attrs_axes order = {.dims.n = rank};
  if (a->source.n != a->destination.n || a->source.n > rank)
    return kx_refuse(s, KN_ARG, "as many destinations as sources are needed, at most one for each dim", x,
                     NULL);
  for (int d = 0; d < rank; d++) from[d] = -1;
  for (int i = 0; i < a->source.n; i++) {
    int src = kx_dim(s, a->source.v[i], rank), dst = kx_dim(s, a->destination.v[i], rank);
    if (s->status == KN_OK && (moved[src] || from[dst] >= 0))
      return kx_refuse(s, KN_ARG, "a dim is named twice", x, NULL);
    moved[src] = true;
    from[dst] = src;
  }
  for (int d = 0, next = 0; d < rank; d++) {
    while (from[d] < 0 && moved[next]) next++;
    order.dims.v[d] = from[d] < 0 ? next++ : from[d];
  }
  return kx_with(s, KN_OP_permute, &order, x);
}
EXPRESSION(movedim, movedim(s, in[0], attrs))

static kn_tensor *pair(kn_scope *s, kn_tensor *a, kn_tensor *b, int dim) {
  kn_attrs_axis_first at = {.dim = dim};
  return kx_with2(s, KN_OP_cat, &at, a, b);
}

static kn_tensor *roll_dim(kn_scope *s, kn_tensor *x, int dim, int64_t shift) {
  int64_t size = x->type.dims[dim];
  if (need_known(s, shift, "a shift") != KN_OK) return NULL;
  if (kn_dim_known(size)) {
    if (size == 0 || shift % size == 0) return x;
    shift = (shift % size + size) % size;
  }
  if (shift == 0) return x;
  return pair(s, kx_slice(s, x, dim, -shift, KN_TO_END, 1), kx_slice(s, x, dim, 0, -shift, 1), dim);
}

/* Without dims, as a line. */
static kn_tensor *roll(kn_scope *s, kn_tensor *x, const kn_attrs_roll *a) {
  const kn_ints flat = {1, {-1}};
  if (a->dims.n == 0) {
    if (a->shifts.n != 1) return kx_refuse(s, KN_ARG, "one shift is needed when no dims are named", x, NULL);
    kn_tensor *line = kx_reshape(s, x, &flat);
    return line ? kx_reshape_as(s, roll_dim(s, line, 0, a->shifts.v[0]), x) : NULL;
  }
  if (a->shifts.n != a->dims.n) return kx_refuse(s, KN_ARG, "a shift for each dim is needed", x, NULL);
  for (int i = 0; i < a->dims.n && x; i++) {
    int dim = kx_dim(s, a->dims.v[i], x->type.rank);
    x = s->status == KN_OK && x->type.rank ? roll_dim(s, x, dim, a->shifts.v[i]) : x;
  }
  return x;
}
EXPRESSION(roll, kx_with(s, KN_OP_clone, NULL, roll(s, in[0], attrs)))

/* ---- padding ---- */

static kn_tensor *flipped(kn_scope *s, kn_tensor *x, int dim) {
  kn_attrs_axes at = {.dims = {1, {dim}}};
  return kx_with(s, KN_OP_flip, &at, x);
}

/* What stands before (side 0) or after x when it is mirrored about its edge, its edge is repeated, or it goes
 * round. */
static kn_tensor *edge(kn_scope *s, kn_tensor *x, int dim, int side, int64_t by, int32_t mode) {
  if (mode == KN_CHOICE_pad_mode_replicate)
    return spread(s, side ? kx_slice(s, x, dim, -1, KN_TO_END, 1) : kx_slice(s, x, dim, 0, 1, 1), dim, by);
  if (mode == KN_CHOICE_pad_mode_circular)
    return side ? kx_slice(s, x, dim, 0, by, 1) : kx_slice(s, x, dim, -by, KN_TO_END, 1);
  return flipped(s, side ? kx_slice(s, x, dim, -by - 1, -1, 1) : kx_slice(s, x, dim, 1, by + 1, 1), dim);
}

/* Padding below 0 takes away. */
static kn_tensor *cut(kn_scope *s, kn_tensor *x, int dim, int64_t before, int64_t after) {
  bool front = before < 0 && !kn_is_dyn(before), back = after < 0 && !kn_is_dyn(after);
  if (!front && !back) return x;
  if (front && before < -INT32_MAX) before = -INT32_MAX;
  if (back && after < -INT32_MAX) after = -INT32_MAX;
  int64_t size = x->type.dims[dim], first = front ? -before : 0;
  if (kn_dim_known(size) && first + (back ? -after : 0) >= size)
    return kx_refuse(s, KN_SHAPE, "padding below 0 takes all there is", x, NULL);
  return kx_slice(s, x, dim, first, back ? after : KN_TO_END, 1);
}

static kn_tensor *pad(kn_scope *s, kn_tensor *x, const kn_attrs_pad *a) {
  kn_attrs_constant_pad constant = {.pad = a->pad, .value_number = a->value_number};
  if (a->mode == KN_CHOICE_pad_mode_constant) return kx_with(s, KN_OP_constant_pad, &constant, x);
  if (a->pad.n % 2 || a->pad.n / 2 > x->type.rank)
    return kx_refuse(s, KN_ARG, "two numbers for each padded dim are needed, the last dim first", x, NULL);
  for (int i = 0; i < a->pad.n && x; i += 2) {
    int dim = x->type.rank - 1 - i / 2;
    bool round =
        a->mode == KN_CHOICE_pad_mode_circular; /* goes round what is left; others see what is taken */
    if (round) x = cut(s, x, dim, a->pad.v[i], a->pad.v[i + 1]);
    if (!x) return NULL;
    int64_t size = x->type.dims[dim];
    kn_tensor *before = NULL, *after = NULL;
    for (int side = 0; side < 2; side++) {
      int64_t by = a->pad.v[i + side];
      if (need_known(s, by, "padding") != KN_OK) return NULL;
      bool fits =
          by > 0 && (!kn_dim_known(size) || by < size || (a->mode == KN_CHOICE_pad_mode_replicate && size) ||
                     (a->mode == KN_CHOICE_pad_mode_circular && by == size));
      if (!fits && by > 0) return kx_refuse(s, KN_SHAPE, "this mode pads with less than there is", x, NULL);
      if (by > 0) *(side ? &after : &before) = edge(s, x, dim, side, by, a->mode);
    }
    if (before) x = pair(s, before, x, dim);
    if (after) x = pair(s, x, after, dim);
    if (!round && x) x = cut(s, x, dim, a->pad.v[i], a->pad.v[i + 1]);
  }
  return x;
}
EXPRESSION(pad, pad(s, in[0], attrs))

/* ---- diagonals ---- */

/* Of a matrix its diagonal; of a list the matrix with it on the diagonal. */
static kn_tensor *diag(kn_scope *s, kn_tensor *x, const kn_attrs_diagonal *a) {
  kn_attrs_diagonal_of at = {.offset = a->diagonal, .dim1 = 0, .dim2 = 1};
  if (x->type.rank == 2) return kx_with(s, KN_OP_clone, NULL, kx_with(s, KN_OP_diagonal, &at, x));
  if (x->type.rank != 1) return kx_refuse(s, KN_SHAPE, "one dim or two are needed", x, NULL);
  if (need_known(s, a->diagonal, "diagonal") != KN_OK) return NULL;
  kn_ints sizes = {0};
  kx_put_sizes(s, x, 0, 1, &sizes);
  kx_put_size(s, -1, &sizes);
  at.offset = 0;
  kn_tensor *like = s->status == KN_OK ? kx_expand(s, x, &sizes) : NULL;
  kn_tensor *square = kx_with2(s, KN_OP_diagonal_grad, &at, x, like);
  int64_t right = a->diagonal > 0 ? a->diagonal : 0, down = a->diagonal < 0 ? -a->diagonal : 0;
  kn_attrs_constant_pad by = {.pad = {4, {right, down, down, right}}};
  return a->diagonal ? kx_with(s, KN_OP_constant_pad, &by, square) : square;
}
EXPRESSION(diag, diag(s, in[0], attrs))

/* ---- blocks of pixels ---- */

/* [*, C r r, H, W] to [*, C, H r, W r] */
static kn_tensor *pixel_shuffle(kn_scope *s, kn_tensor *x, const kn_attrs_factor *a) {
  int rank = x->type.rank, lead = rank - 3;
  int64_t r = a->factor, channels = rank >= 3 ? x->type.dims[lead] : 0;
  if (rank < 3 || rank + 2 > KN_MAX_RANK)
    return kx_refuse(s, KN_SHAPE, "between 3 and 6 dims are needed", x, NULL);
  if (need_known(s, r, "the factor") != KN_OK) return NULL;
  if (r < 1 || (kn_dim_known(channels) && channels % (r * r)))
    return kx_refuse(s, KN_SHAPE, "the channels must divide by the square of the factor", x, NULL);
  kn_ints sizes = {0};
  kx_put_sizes(s, x, 0, lead, &sizes);
  kx_put_size(s, kn_dim_known(channels) ? channels / (r * r) : -1, &sizes);
  kx_put_size(s, r, &sizes);
  kx_put_size(s, r, &sizes);
  kx_put_sizes(s, x, lead + 1, rank, &sizes);
  kn_attrs_axes order = {.dims.n = rank + 2};
  for (int d = 0; d <= lead; d++) order.dims.v[d] = d;
  static const int then[] = {3, 1, 4, 2}; /* H, r, W, r */
  for (int i = 0; i < 4; i++) order.dims.v[lead + 1 + i] = lead + then[i];
  kn_tensor *apart = s->status == KN_OK ? kx_reshape(s, x, &sizes) : NULL;
  return joined(s, joined(s, kx_with(s, KN_OP_permute, &order, apart), lead + 1), lead + 2);
}
EXPRESSION(pixel_shuffle, pixel_shuffle(s, in[0], attrs))

/* [*, C, H r, W r] to [*, C r r, H, W] */
static kn_tensor *pixel_unshuffle(kn_scope *s, kn_tensor *x, const kn_attrs_factor *a) {
  int rank = x->type.rank, lead = rank - 3;
  int64_t r = a->factor;
  if (rank < 3 || rank + 2 > KN_MAX_RANK)
    return kx_refuse(s, KN_SHAPE, "between 3 and 6 dims are needed", x, NULL);
  if (need_known(s, r, "the factor") != KN_OK) return NULL;
  kn_ints sizes = {0};
  for (int side = 0; side < 2; side++) { /* [*, C, H, r, W r], then [*, C, H, r, W, r] */
    int at = lead + 1 + 2 * side;
    int64_t size = x->type.dims[at];
    if (r < 1 || (kn_dim_known(size) && size % r))
      return kx_refuse(s, KN_SHAPE, "height and width must divide by the factor", x, NULL);
    sizes.n = 0;
    kx_put_sizes(s, x, 0, at, &sizes);
    kx_put_size(s, kn_dim_known(size) ? size / r : -1, &sizes);
    kx_put_size(s, r, &sizes);
    kx_put_sizes(s, x, at + 1, x->type.rank, &sizes);
    x = s->status == KN_OK ? kx_reshape(s, x, &sizes) : NULL;
    if (!x) return NULL;
  }
  kn_attrs_axes order = {.dims.n = rank + 2};
  for (int d = 0; d <= lead; d++) order.dims.v[d] = d;
  static const int then[] = {2, 4, 1, 3};
  for (int i = 0; i < 4; i++) order.dims.v[lead + 1 + i] = lead + then[i];
  return joined(s, joined(s, kx_with(s, KN_OP_permute, &order, x), lead), lead);
}
EXPRESSION(pixel_unshuffle, pixel_unshuffle(s, in[0], attrs))
