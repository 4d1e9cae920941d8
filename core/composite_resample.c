/* Composites: an input in another size (interpolate), or at any places (grid_sample). Both pick elements and
 * add them up with weights: interpolate dim by dim at places known beforehand, grid_sample at places that are
 * data. */
#include "core/composite.h"
#include "core/infer.h"

/* Keys' cubic convolution with a = -3/4: the weight at distance d. */
static double cubic(double d) {
  const double a = -0.75;
  d = fabs(d);
  return d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/* ---- interpolate ---- */

typedef enum way { NEAREST, LINEAR, CUBIC } way;
typedef struct sampling { /* `to` samples of `from` elements, `step` apart, the first at `start`; tap k of
                             each */
  int64_t from, to;
  double step, start;
  way way;
  int tap;
} sampling;

static double place_of(const sampling *p, int64_t i) {
  double at = p->start + (double)i * p->step;
  return at < 0 && p->way != CUBIC ? 0 : at;
}
static double low_of(const sampling *p, int64_t i) {
  double at = floor(place_of(p, i)), last = (double)p->from - 1;
  return at > last && p->way != CUBIC ? last : at;
}
static double tap_place(const void *ud, int64_t i) { /* 1-based */
  const sampling *p = ud;
  double at = low_of(p, i) + p->tap - (p->way == CUBIC), last = (double)p->from - 1;
  return (at < 0 ? 0 : at > last ? last : at) + 1;
}
static double tap_weight(const void *ud, int64_t i) {
  const sampling *p = ud;
  double part = place_of(p, i) - low_of(p, i);
  if (p->way == CUBIC) return cubic(part - (p->tap - 1));
  return p->tap ? part : 1 - part;
}

static kn_tensor *resample(kn_scope *s, kn_tensor *x, int dim, sampling p) {
  static const int taps[] = {[NEAREST] = 1, [LINEAR] = 2, [CUBIC] = 4};
  kn_tensor *sum = NULL;
  kn_ints shape = {.n = x->type.rank - dim, .v = {p.to}};
  for (int d = 1; d < shape.n; d++) shape.v[d] = 1;
  for (p.tap = 0; p.tap < taps[p.way]; p.tap++) {
    kn_tensor *part = kx_pick(s, x, dim, kx_constant(s, x, KN_I64, p.to, tap_place, &p));
    if (p.way == NEAREST) return part;
    kn_tensor *w = kx_constant(s, x, kn_tensor_dtype(x), p.to, tap_weight, &p);
    part = kx_mul(s, part, w ? kx_reshape(s, w, &shape) : NULL);
    sum = sum ? kx_add(s, sum, part) : part;
  }
  return sum;
}

/* ---- the same while the size is not known: places and weights are worked out by the graph, in float64 ----
 */

typedef struct open_sampling {
  kn_tensor *from, *last; /* 0-d: the size, the last place from 0 */
  kn_tensor *index;       /* 0, 1 … of the result */
  kn_tensor *step;        /* 0-d */
  double half;            /* the first place is half * step - half, or half * step where `centred` is false */
  bool centred;
  way way;
} open_sampling;

/* As many as 0-d `count` says; none, or less, is refused when the graph runs. */
static kn_tensor *counted(kn_scope *s, kn_tensor *count, const kn_tensor *x) {
  kn_attrs_range range = {.start = 0, .step = 1, .dtype = KN_F64, .device = x->type.device};
  kn_scalar size;
  if (!count) return NULL;
  kn_tensor *some = kx_where(s, kx_ge(s, count, kx_number(s, 1, count)), count, kx_number(s, -1, count));
  some = kx_cast(s, some, KN_I64);
  kn_status st = some ? kn_item(s->ctx, some, &size) : s->status;
  if (st == KN_OK && size.kind == KN_SCALAR_SYMBOL) {
    int64_t place;
    st = kn_recorder_of(s->ctx)->dynamic(kn_recorder_of(s->ctx), s->ctx, &size, &place);
    if (st == KN_OK) range.end_number = kn_number_waiting(place);
  } else if (st == KN_OK)
    range.end_number = kn_number_of(size.as.i);
  return st == KN_OK ? kx_apply(s, KN_OP_arange, &range, NULL, 0) : kx_fail(s, st);
}

/* to: the size of the result, 0 when it is from * scale_factor. */
static open_sampling open_sampling_of(kn_scope *s, kn_tensor *x, int dim, const kn_attrs_interpolate *a,
                                      int64_t to) {
  open_sampling p = {.from = kx_size(s, x, dim, KN_F64)};
  kn_attrs_range range = {
      .start = 0, .end = (double)to, .step = 1, .dtype = KN_F64, .device = x->type.device};
  if (!p.from) return p;
  p.last = kx_plus(s, p.from, -1);
  kn_tensor *size = to ? kx_number(s, (double)to, p.from) : kx_floor(s, kx_scale(s, p.from, a->scale_factor));
  p.index = to ? kx_apply(s, KN_OP_arange, &range, NULL, 0) : counted(s, size, x);
  p.step = to ? kx_div(s, p.from, size) : kx_number(s, 1 / a->scale_factor, p.from);
  if (a->mode == KN_CHOICE_interpolate_mode_nearest) return p;
  p.half = 0.5;
  if (a->mode == KN_CHOICE_interpolate_mode_nearest_exact) return p;
  p.way = a->mode == KN_CHOICE_interpolate_mode_bicubic ? CUBIC : LINEAR;
  p.centred = true;
  if (!a->align_corners || !size) return p;
  kn_tensor *gaps = kx_plus(s, size, -1), *zero = kx_number(s, 0, p.from);
  p.step = kx_where(s, kx_gt(s, gaps, zero), kx_div(s, p.last, gaps), zero);
  p.half = 0;
  return p;
}

/* `cubic` of a tensor. */
static kn_tensor *cubic_of(kn_scope *s, kn_tensor *d) {
  const double a = -0.75;
  d = kx_abs(s, d);
  if (!d) return NULL;
  kn_tensor *near = kx_mul(s, kx_mul(s, kx_plus(s, kx_scale(s, d, a + 2), -(a + 3)), d), d);
  kn_tensor *far = kx_plus(s, kx_mul(s, kx_plus(s, kx_scale(s, d, a), -5 * a), d), 8 * a);
  far = kx_plus(s, kx_mul(s, far, d), -4 * a);
  kn_tensor *one = kx_number(s, 1, d), *two = kx_number(s, 2, d), *zero = kx_number(s, 0, d);
  far = kx_where(s, kx_lt(s, d, two), far, zero);
  return kx_where(s, kx_le(s, d, one), kx_plus(s, near, 1), far);
}

static kn_tensor *resample_open(kn_scope *s, kn_tensor *x, int dim, const kn_attrs_interpolate *a,
                                int64_t to) {
  static const int taps[] = {[NEAREST] = 1, [LINEAR] = 2, [CUBIC] = 4};
  open_sampling p = open_sampling_of(s, x, dim, a, to);
  kn_ints shape = {.n = x->type.rank - dim, .v = {-1}};
  for (int d = 1; d < shape.n; d++) shape.v[d] = 1;
  if (!p.index || !p.step) return NULL;
  kn_tensor *start = kx_plus(s, kx_scale(s, p.step, p.half), p.centred ? -p.half : 0);
  kn_tensor *at = kx_add(s, kx_mul(s, p.index, p.step), start), *sum = NULL;
  if (p.way != CUBIC) at = kx_clamp(s, at, 0, INFINITY);
  kn_tensor *low = kx_floor(s, at);
  if (p.way != CUBIC) low = kx_minimum(s, low, p.last);
  kn_tensor *rest = kx_sub(s, at, low);
  for (int tap = 0; tap < taps[p.way] && rest; tap++) {
    kn_tensor *place =
        kx_minimum(s, kx_clamp(s, kx_plus(s, low, tap - (p.way == CUBIC)), 0, INFINITY), p.last);
    kn_tensor *part = kx_pick(s, x, dim, kx_cast(s, kx_plus(s, place, 1), KN_I64));
    if (p.way == NEAREST) return part;
    kn_tensor *w = p.way == CUBIC ? cubic_of(s, kx_plus(s, rest, -(tap - 1)))
                   : tap          ? rest
                                  : kx_plus(s, kx_neg(s, rest), 1);
    part = kx_mul(s, part, w ? kx_reshape(s, kx_cast(s, w, kn_tensor_dtype(x)), &shape) : NULL);
    sum = sum ? kx_add(s, sum, part) : part;
  }
  return sum;
}

/* In a scope of its own: there may be three. */
static kn_tensor *resample_alone(kn_scope *outer, kn_tensor *x, int dim, const kn_attrs_interpolate *a,
                                 int64_t to) {
  kn_scope s;
  kn_tensor *made;
  kn_scope_open(&s, outer->ctx);
  kn_tensor *r = resample_open(&s, x, dim, a, to);
  kn_status st = kn_scope_close(&s, r, &made);
  return st == KN_OK ? kx_own(outer, made) : kx_fail(outer, st);
}

/* Each element so many times: no size is needed. */
static kn_tensor *repeated(kn_scope *s, kn_tensor *x, double times) {
  for (int d = 2, rank = x->type.rank; d < rank && x; d++) {
    kn_attrs_repeat each = {.repeats = (int64_t)times, .dim = d};
    x = kx_with(s, KN_OP_repeat_interleave, &each, x);
  }
  return x;
}

static kn_tensor *area(kn_scope *s, kn_tensor *x, const kn_ints *sizes) {
  static const kn_op ops[] = {KN_OP_adaptive_avg_pool1d, KN_OP_adaptive_avg_pool2d,
                              KN_OP_adaptive_avg_pool3d};
  kn_attrs_output_size a = {.output_size = *sizes};
  return kx_with(s, ops[sizes->n - 1], &a, x);
}

/* How mode and dims go together; 0 when they do not. */
static bool mode_fits(int32_t mode, int dims) {
  switch (mode) {
  case KN_CHOICE_interpolate_mode_linear: return dims == 1;
  case KN_CHOICE_interpolate_mode_bilinear:
  case KN_CHOICE_interpolate_mode_bicubic: return dims == 2;
  case KN_CHOICE_interpolate_mode_trilinear: return dims == 3;
  default: return true;
  }
}

static sampling sampling_of(const kn_attrs_interpolate *a, bool sized, int64_t from, int64_t to) {
  sampling p = {.from = from, .to = to, .step = sized ? (double)from / (double)to : 1 / a->scale_factor};
  switch (a->mode) {
  case KN_CHOICE_interpolate_mode_nearest: return p;
  case KN_CHOICE_interpolate_mode_nearest_exact: p.start = 0.5 * p.step; return p;
  default: break;
  }
  p.way = a->mode == KN_CHOICE_interpolate_mode_bicubic ? CUBIC : LINEAR;
  if (a->align_corners)
    p.step = to > 1 ? (double)(from - 1) / (double)(to - 1) : 0;
  else
    p.start = 0.5 * p.step - 0.5;
  return p;
}

static kn_tensor *interpolate(kn_scope *s, kn_tensor *x, const kn_attrs_interpolate *a) {
  int dims = x->type.rank - 2;
  bool sized = !(a->size.n == 1 && a->size.v[0] == 0);
  if (dims < 1 || dims > 3)
    return kx_refuse(s, KN_SHAPE, "an input [N,C,L], [N,C,H,W] or [N,C,D,H,W] is needed", x, NULL);
  if (!mode_fits(a->mode, dims))
    return kx_refuse(
        s, KN_ARG,
        "'linear' is for [N,C,L], 'bilinear' and 'bicubic' for [N,C,H,W], 'trilinear' for [N,C,D,H,W]", x,
        NULL);
  if (a->mode == KN_CHOICE_interpolate_mode_nearest && !sized && a->scale_factor >= 1 &&
      a->scale_factor <= 64 && floor(a->scale_factor) == a->scale_factor)
    return repeated(s, x, a->scale_factor);
  if (a->mode == KN_CHOICE_interpolate_mode_area && !kx_sizes_known(s, x, 2, x->type.rank)) return NULL;
  if (sized == (a->scale_factor > 0))
    return kx_refuse(s, KN_ARG, "either size or scale_factor is needed", x, NULL);
  if (sized && a->size.n != 1 && a->size.n != dims)
    return kx_refuse(s, KN_ARG, "size takes one number, or one for each dim", x, NULL);
  kn_ints to = {.n = dims};
  for (int i = 0; i < dims; i++) {
    bool open = !kn_dim_known(x->type.dims[2 + i]);
    if (open && !sized) continue; /* 0: as many as the graph finds */
    double exact =
        sized ? (double)kn_ints_at(&a->size, i) : floor((double)x->type.dims[2 + i] * a->scale_factor);
    if ((!open && x->type.dims[2 + i] < 1) || !(exact >= 1) || exact > INT32_MAX)
      return kx_refuse(s, KN_ARG, "the result would have no elements, or too many, or its size is not known",
                       x, NULL);
    to.v[i] = (int64_t)exact;
  }
  if (a->mode == KN_CHOICE_interpolate_mode_area) return area(s, x, &to);
  for (int i = 0; i < dims && x; i++)
    x = kn_dim_known(x->type.dims[2 + i])
            ? resample(s, x, 2 + i, sampling_of(a, sized, x->type.dims[2 + i], to.v[i]))
            : resample_alone(s, x, 2 + i, a, to.v[i]);
  return x;
}
EXPRESSION(interpolate, interpolate(s, in[0], attrs))

/* ---- grid_sample ---- */

enum { TAPS = 4 };

/* One axis of the places: for each tap, the element and its weight, 0 where it lies outside. */
typedef struct axis {
  kn_tensor *size;   /* 0-d, floating */
  kn_tensor *last;   /* size - 1 */
  kn_tensor *length; /* 0-d, int64 */
  kn_tensor *at[TAPS], *weight[TAPS];
} axis;

static kn_tensor *limited(kn_scope *s, kn_tensor *c,
                          kn_tensor *top) { /* no gradient on the limits and beyond */
  kn_tensor *zero = kx_number(s, 0, c);
  return kx_where(s, kx_le(s, c, zero), zero, kx_where(s, kx_ge(s, c, top), top, c));
}

/* c thrown back at `low` and at `low + span`, as often as needed. */
static kn_tensor *reflected(kn_scope *s, kn_tensor *c, double low, kn_tensor *span) {
  if (!span) return NULL;
  kn_tensor *zero = kx_number(s, 0, span), *one = kx_number(s, 1, span);
  span = kx_where(s, kx_eq(s, span, zero), one, span);
  kn_tensor *far = kx_abs(s, kx_plus(s, c, -low));
  kn_tensor *times = kx_floor(s, kx_div(s, far, span)), *rest = kx_with2(s, KN_OP_fmod, NULL, far, span);
  kn_tensor *odd = kx_with2(s, KN_OP_remainder, NULL, times, times ? kx_number(s, 2, times) : NULL);
  return kx_plus(s, kx_where(s, kx_eq(s, odd, kx_number(s, 0, odd)), rest, kx_sub(s, span, rest)), low);
}

/* Places outside brought back in, as the padding says. */
static kn_tensor *padded(kn_scope *s, kn_tensor *c, const axis *x, const kn_attrs_grid_sample *a) {
  if (a->padding_mode == KN_CHOICE_grid_padding_zeros) return c;
  if (a->padding_mode == KN_CHOICE_grid_padding_reflection)
    c = a->align_corners ? reflected(s, c, 0, x->last) : reflected(s, c, -0.5, x->size);
  return limited(s, c, x->last);
}

/* Tap k at the whole coordinate `c` with weight w: its place, and the weight or 0. */
static void put_tap(kn_scope *s, axis *x, int k, kn_tensor *c, kn_tensor *w) {
  if (!c) return;
  kn_tensor *zero = kx_number(s, 0, c);
  kn_tensor *inside = kx_bitwise_and(s, kx_ge(s, c, zero), kx_le(s, c, x->last));
  kn_tensor *at = kx_where(s, inside, c, zero);
  x->at[k] = kx_cast(s, at, KN_I64);
  x->weight[k] = w ? kx_where(s, inside, w, kx_number(s, 0, w)) : kx_cast(s, inside, kn_tensor_dtype(c));
}

/* The weight of the cubic tap at distance `base` + sign * t, near (at most 1) or far. */
static kn_tensor *cubic_weight(kn_scope *s, kn_tensor *t, int tap) {
  const double a = -0.75;
  kn_tensor *d = tap == 0 ? kx_plus(s, t, 1) : tap == 1 ? t : kx_plus(s, kx_neg(s, t), tap - 1);
  if (tap == 1 || tap == 2) /* ((a + 2) d - (a + 3)) d d + 1 */
    return kx_plus(s, kx_mul(s, kx_plus(s, kx_scale(s, d, a + 2), -(a + 3)), kx_mul(s, d, d)), 1);
  kn_tensor *inner = kx_plus(s, kx_mul(s, kx_plus(s, kx_scale(s, d, a), -5 * a), d), 8 * a);
  return kx_plus(s, kx_mul(s, inner, d), -4 * a);
}

/* The axis that number `k` of the grid speaks of, which counts from the last dim. */
static axis axis_of(kn_scope *s, kn_tensor *x, kn_tensor *grid, int k, const kn_attrs_grid_sample *a) {
  axis r = {0};
  int dim = x->type.rank - 1 - k;
  kn_tensor *g = kx_select(s, grid, -1, k);
  r.size = kx_size(s, x, dim, kn_tensor_dtype(grid)), r.length = kx_size(s, x, dim, KN_I64);
  if (!r.size || !g) return r;
  r.last = kx_plus(s, r.size, -1);
  kn_tensor *c = a->align_corners ? kx_mul(s, kx_scale(s, kx_plus(s, g, 1), 0.5), r.last)
                                  : kx_scale(s, kx_plus(s, kx_mul(s, kx_plus(s, g, 1), r.size), -1), 0.5);
  if (a->mode != KN_CHOICE_grid_mode_bicubic) c = padded(s, c, &r, a);
  if (a->mode == KN_CHOICE_grid_mode_nearest) {
    put_tap(s, &r, 0, kx_with(s, KN_OP_round, NULL, c), NULL);
    return r;
  }
  kn_tensor *low = kx_floor(s, c), *part = kx_sub(s, c, low);
  if (!part) return r;
  if (a->mode == KN_CHOICE_grid_mode_bilinear) {
    put_tap(s, &r, 0, low, kx_plus(s, kx_neg(s, part), 1));
    put_tap(s, &r, 1, kx_plus(s, low, 1), part);
  } else {
    for (int t = 0; t < TAPS; t++)
      put_tap(s, &r, t, padded(s, kx_plus(s, low, t - 1), &r, a), cubic_weight(s, part, t));
  }
  return r;
}

/* The same in a scope of its own: there may be three. */
static axis axis_alone(kn_scope *outer, kn_tensor *x, kn_tensor *grid, int k, const kn_attrs_grid_sample *a) {
  kn_scope s;
  axis r = {0};
  if (outer->status != KN_OK) return r;
  kn_scope_open(&s, outer->ctx);
  axis own = axis_of(&s, x, grid, k, a);
  if (s.status == KN_OK) {
    r.length = kx_own(outer, kn_tensor_retain(own.length));
    for (int t = 0; t < TAPS && own.at[t]; t++) {
      r.at[t] = kx_own(outer, kn_tensor_retain(own.at[t]));
      r.weight[t] = kx_own(outer, kn_tensor_retain(own.weight[t]));
    }
  }
  kn_status st = kn_scope_close(&s, NULL, NULL);
  if (st != KN_OK) kx_fail(outer, st);
  return r;
}

/* The elements of x [N,C,all] at [N,P…] places, times their weights: one choice of a tap for each axis. */
static kn_tensor *one_tap(kn_scope *s, kn_tensor *flat, const axis *axes, int dims, const int *tap) {
  const kn_attrs_axis last = {.dim = -1};
  const kn_attrs_flatten line = {.start_dim = 1, .end_dim = -1};
  kn_tensor *at = NULL, *w = NULL;
  for (int k = dims - 1; k >= 0; k--) {
    at = at ? kx_add(s, kx_mul(s, at, axes[k].length), axes[k].at[tap[k]]) : axes[k].at[tap[k]];
    w = w ? kx_mul(s, w, axes[k].weight[tap[k]]) : axes[k].weight[tap[k]];
  }
  at = kx_axis(s, KN_OP_unsqueeze, kx_with(s, KN_OP_flatten, &line, kx_plus(s, at, 1)), 1);
  kn_ints each = {1, {-1}};
  kx_put_sizes(s, flat, 1, 2, &each);
  kx_put_size(s, -1, &each);
  if (s->status != KN_OK) return NULL;
  kn_tensor *found = kx_with2(s, KN_OP_gather, &last, flat, kx_expand(s, at, &each));
  return kx_mul(s, found, kx_axis(s, KN_OP_unsqueeze, kx_with(s, KN_OP_flatten, &line, w), 1));
}

/* The same in a scope of its own: there are up to sixteen. */
static kn_tensor *one_tap_alone(kn_scope *outer, kn_tensor *flat, const axis *axes, int dims,
                                const int *tap) {
  kn_scope s;
  kn_tensor *part;
  if (outer->status != KN_OK) return NULL;
  kn_scope_open(&s, outer->ctx);
  kn_tensor *found = one_tap(&s, flat, axes, dims, tap);
  kn_status st = kn_scope_close(&s, found, &part);
  return st == KN_OK ? kx_own(outer, part) : kx_fail(outer, st);
}

static bool grid_fits(kn_scope *s, kn_tensor *x, kn_tensor *grid, const kn_attrs_grid_sample *a) {
  int dims = x->type.rank - 2;
  if ((dims != 2 && dims != 3) || grid->type.rank != x->type.rank ||
      (kn_dim_known(grid->type.dims[dims + 1]) && grid->type.dims[dims + 1] != dims) ||
      (kn_dim_known(x->type.dims[0]) && kn_dim_known(grid->type.dims[0]) &&
       x->type.dims[0] != grid->type.dims[0]))
    return kx_refuse(
               s, KN_SHAPE,
               "an image [N,C,H,W] and a grid [N,OH,OW,2], or [N,C,D,H,W] and [N,OD,OH,OW,3], are needed", x,
               grid),
           false;
  if (!kn_dtype_is_float(kn_tensor_dtype(x)) || kn_tensor_dtype(x) != kn_tensor_dtype(grid))
    return kx_refuse(s, KN_DTYPE, "the input and the grid must have one floating dtype", x, grid), false;
  for (int d = 2; d < x->type.rank; d++)
    if (x->type.dims[d] == 0)
      return kx_refuse(s, KN_SHAPE, "the input has no elements to sample", x, grid), false;
  if (a->mode == KN_CHOICE_grid_mode_bicubic && dims == 3)
    return kx_refuse(s, KN_ARG, "'bicubic' is for images only", x, grid), false;
  return true;
}

static kn_tensor *grid_sample(kn_scope *s, kn_tensor *x, kn_tensor *grid, const kn_attrs_grid_sample *a) {
  static const int taps[] = {[KN_CHOICE_grid_mode_bilinear] = 2,
                             [KN_CHOICE_grid_mode_nearest] = 1,
                             [KN_CHOICE_grid_mode_bicubic] = TAPS};
  const kn_attrs_flatten block = {.start_dim = 2, .end_dim = -1};
  axis axes[3] = {{0}};
  if (!grid_fits(s, x, grid, a)) return NULL;
  int dims = x->type.rank - 2, combinations = 1, n = taps[a->mode];
  kn_tensor *flat = kx_with(s, KN_OP_flatten, &block, x), *sum = NULL;
  for (int k = 0; k < dims; k++) axes[k] = axis_alone(s, x, grid, k, a), combinations *= n;
  for (int c = 0; c < combinations && s->status == KN_OK; c++) {
    int tap[3] = {c % n, c / n % n, c / n / n};
    kn_tensor *part = one_tap_alone(s, flat, axes, dims, tap);
    sum = sum ? kx_add(s, sum, part) : part;
  }
  kn_ints shape = {0};
  kx_put_sizes(s, x, 0, 2, &shape);
  kx_put_sizes(s, grid, 1, 1 + dims, &shape);
  return s->status == KN_OK ? kx_reshape(s, sum, &shape) : NULL;
}
EXPRESSION(grid_sample, grid_sample(s, in[0], in[1], attrs))

/* ---- affine_grid ---- */

typedef struct corners { /* element i of the list of places: width first, then height (and depth), then 1 */
  int dims;
  int64_t size[3]; /* of the last dim first */
  bool aligned;
} corners;

static double corner(const void *ud, int64_t i) {
  const corners *p = ud;
  int64_t k = i % (p->dims + 1), at = i / (p->dims + 1);
  if (k == p->dims) return 1;
  for (int64_t j = 0; j < k; j++) at /= p->size[j];
  double n = (double)p->size[k], x = (double)(at % p->size[k]);
  if (p->aligned) return n > 1 ? -1 + 2 * x / (n - 1) : 0;
  return (2 * x + 1) / n - 1;
}

static kn_tensor *affine_grid(kn_scope *s, kn_tensor *theta, const kn_attrs_affine_grid *a) {
  corners p = {.dims = a->size.n - 2, .aligned = a->align_corners};
  int64_t places = 1;
  if ((p.dims != 2 && p.dims != 3) || theta->type.rank != 3 || theta->type.dims[1] != p.dims ||
      theta->type.dims[2] != p.dims + 1)
    return kx_refuse(s, KN_SHAPE,
                     "theta [N,2,3] and a size of four, or theta [N,3,4] and a size of five, are needed",
                     theta, NULL);
  if (!kn_dtype_is_float(kn_tensor_dtype(theta)))
    return kx_refuse(s, KN_DTYPE, "a floating theta is needed", theta, NULL);
  for (int k = 0; k < p.dims; k++) {
    p.size[k] = a->size.v[a->size.n - 1 - k];
    if (p.size[k] < 1 || p.size[k] > INT32_MAX || __builtin_mul_overflow(places, p.size[k], &places) ||
        places > INT32_MAX)
      return kx_refuse(s, KN_ARG, "sizes must be known, and at least 1", theta, NULL);
  }
  kn_ints rows = {2, {places, p.dims + 1}}, shape = {0};
  kn_tensor *list = kx_constant(s, theta, kn_tensor_dtype(theta), places * (p.dims + 1), corner, &p);
  kn_tensor *grid = list ? kx_matmul(s, kx_reshape(s, list, &rows), kx_transpose(s, theta, 1, 2)) : NULL;
  kx_put_sizes(s, theta, 0, 1, &shape);
  for (int k = p.dims - 1; k >= 0; k--) kx_put_size(s, p.size[k], &shape);
  kx_put_size(s, p.dims, &shape);
  return s->status == KN_OK ? kx_reshape(s, grid, &shape) : NULL;
}
EXPRESSION(affine_grid, affine_grid(s, in[0], attrs))
