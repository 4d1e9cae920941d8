/* Composites: pooling of one and three dims and the places of maxima, unpooling, norms of windows, adaptive
 * pooling. They come down to max_pool2d, avg_pool2d and gather. Windows of three dims are taken in two steps,
 * over height and width and then over depth: the largest of the largest is the largest, and so for sums. */
#include "core/composite.h"
#include "core/infer.h"

/* ---- options of any number of dims ---- */

/* An option for `dims` dims, as one for dims [first, first + 2) of three; places before the first get
 * `other`. */
static kn_ints option(const kn_ints *v, int dims, int first, int64_t other) {
  kn_ints two = {2, {other, other}};
  for (int i = 0; i < 2; i++)
    if (first + i >= 3 - dims && first + i < 3) two.v[i] = kn_ints_at(v, first + i - (3 - dims));
  return two;
}

static bool options_fit(kn_scope *s, kn_tensor *x, int dims, const kn_ints *const *options, int n) {
  static const char *const shapes[] = {"", "an input [N,C,L] or [C,L] is needed",
                                       "an image [N,C,H,W] or [C,H,W] is needed",
                                       "a volume [N,C,D,H,W] or [C,D,H,W] is needed"};
  if (x->type.rank != dims + 2 && x->type.rank != dims + 1)
    return kx_refuse(s, KN_SHAPE, shapes[dims], x, NULL), false;
  for (int i = 0; i < n; i++)
    if (options[i]->n != 1 && options[i]->n != dims)
      return kx_refuse(s, KN_ARG, "an option takes one number, or one for each dim", x, NULL), false;
  return true;
}

static bool max_options_fit(kn_scope *s, kn_tensor *x, int dims, const kn_attrs_pool2d *a) {
  const kn_ints *options[] = {&a->kernel_size, &a->stride, &a->padding, &a->dilation};
  return options_fit(s, x, dims, options, 4);
}

static bool avg_options_fit(kn_scope *s, kn_tensor *x, int dims, const kn_attrs_avg_pool2d *a) {
  const kn_ints *options[] = {&a->kernel_size, &a->stride, &a->padding};
  return options_fit(s, x, dims, options, 3);
}

/* The options over height and width (pass 0), or over depth alone, which then stands for the height. */
static kn_ints pass_option(const kn_ints *v, int dims, int pass, int64_t other) {
  kn_ints two = option(v, dims, pass ? 0 : 1, other);
  if (pass) two.v[1] = other;
  return two;
}

static kn_attrs_pool2d max_pass(const kn_attrs_pool2d *a, int dims, int pass) {
  kn_ints stride = pass_option(&a->stride, dims, pass, 1),
          kernel = pass_option(&a->kernel_size, dims, pass, 1);
  return (kn_attrs_pool2d){.kernel_size = kernel,
                           .stride = stride,
                           .padding = pass_option(&a->padding, dims, pass, 0),
                           .dilation = pass_option(&a->dilation, dims, pass, 1),
                           .ceil_mode = a->ceil_mode};
}

static kn_attrs_avg_pool2d avg_pass(const kn_attrs_avg_pool2d *a, int dims, int pass) {
  return (kn_attrs_avg_pool2d){.kernel_size = pass_option(&a->kernel_size, dims, pass, 1),
                               .stride = pass_option(&a->stride, dims, pass, 1),
                               .padding = pass_option(&a->padding, dims, pass, 0),
                               .ceil_mode = a->ceil_mode,
                               .count_include_pad = a->count_include_pad,
                               .divisor_override = a->divisor_override ? 1 : 0};
}

/* ---- volumes as images ---- */

static kn_tensor *raised(kn_scope *s, kn_tensor *x) { return kx_axis(s, KN_OP_unsqueeze, x, -2); }
static kn_tensor *lowered(kn_scope *s, kn_tensor *x) { return kx_select(s, x, -2, 0); }

static kn_tensor *joined(kn_scope *s, kn_tensor *x, int64_t from, int64_t to) {
  kn_attrs_flatten a = {.start_dim = from, .end_dim = to};
  return kx_with(s, KN_OP_flatten, &a, x);
}

/* y with its dim -1 or, for `before`, dim -2 as the last dims (those before it) of `like`: [..., A B] to
 * [..., A, B]. */
static kn_tensor *parted(kn_scope *s, kn_tensor *y, kn_tensor *like, int first, int count, int at) {
  kn_ints sizes = {0};
  if (!y || !like) return NULL;
  kx_put_sizes(s, y, 0, at, &sizes);
  kx_put_sizes(s, like, first, first + count, &sizes);
  kx_put_sizes(s, y, at + 1, y->type.rank, &sizes);
  return s->status == KN_OK ? kx_reshape(s, y, &sizes) : NULL;
}

/* [..., C,D,H,W] as [..., C D,H,W] through `op`, and back. */
static kn_tensor *over_planes(kn_scope *s, kn_op op, const void *attrs, kn_tensor *x) {
  kn_tensor *y = kx_with(s, op, attrs, joined(s, x, -4, -3));
  return parted(s, y, x, x->type.rank - 4, 2, x->type.rank - 4);
}

/* [..., C,D,H,W] as [..., C,D,H W] through `op`, and back. */
static kn_tensor *over_depth(kn_scope *s, kn_op op, const void *attrs, kn_tensor *x) {
  if (!x) return NULL;
  kn_tensor *y = kx_with(s, op, attrs, joined(s, x, -2, -1));
  return parted(s, y, x, x->type.rank - 2, 2, x->type.rank - 2);
}

/* ---- the largest ---- */

static kn_tensor *max_pool(kn_scope *s, kn_tensor *x, int dims, const kn_attrs_pool2d *a) {
  if (!max_options_fit(s, x, dims, a)) return NULL;
  kn_attrs_pool2d plane = max_pass(a, dims, 0), depth = max_pass(a, dims, 1);
  if (dims == 1) return lowered(s, kx_with(s, KN_OP_max_pool2d, &plane, raised(s, x)));
  return over_depth(s, KN_OP_max_pool2d, &depth, over_planes(s, KN_OP_max_pool2d, &plane, x));
}
EXPRESSION(max_pool1d, max_pool(s, in[0], 1, attrs))
EXPRESSION(max_pool3d, max_pool(s, in[0], 3, attrs))

/* The elements of x, its last dims made one, at places of any shape. */
static kn_tensor *taken(kn_scope *s, kn_tensor *x, kn_tensor *places, int dims) {
  const kn_attrs_axis last = {.dim = -1};
  if (!x || !places) return NULL;
  kn_tensor *line = dims == 1 ? places : joined(s, places, -dims, -1);
  return kx_reshape_as(s, kx_with2(s, KN_OP_gather, &last, dims == 1 ? x : joined(s, x, -dims, -1), line),
                       places);
}

/* Places in a block: those of the planes where the depth's maxima are, and as many whole planes before. */
static kn_tensor *places3d(kn_scope *s, kn_tensor *x, const kn_attrs_pool2d *a) {
  kn_attrs_pool2d plane = max_pass(a, 3, 0), depth = max_pass(a, 3, 1);
  kn_tensor *in_plane = over_planes(s, KN_OP_max_pool2d_indices, &plane, x);
  kn_tensor *largest = over_planes(s, KN_OP_max_pool2d, &plane, x);
  if (!largest) return NULL;
  kn_tensor *at = over_depth(s, KN_OP_max_pool2d_indices, &depth, largest); /* of [D, OH OW], 1-based */
  int rank = x->type.rank;
  kn_tensor *width = kx_mul(s, kx_size(s, largest, rank - 2, KN_I64), kx_size(s, largest, rank - 1, KN_I64));
  kn_tensor *whole = kx_mul(s, kx_size(s, x, rank - 2, KN_I64), kx_size(s, x, rank - 1, KN_I64));
  kn_tensor *before = at ? kx_floor_divide(s, kx_plus(s, at, -1), width) : NULL;
  return kx_add(s, taken(s, in_plane, at, 3), kx_mul(s, before, whole));
}

static kn_status with_places(kn_context *ctx, kn_tensor *x, int dims, const kn_attrs_pool2d *a,
                             kn_tensor **out) {
  kn_scope scope, *s = &scope;
  kn_tensor *both[2] = {NULL};
  kn_scope_open(s, ctx);
  if (max_options_fit(s, x, dims, a)) {
    kn_attrs_pool2d plane = max_pass(a, dims, 0);
    if (dims == 1)
      both[1] = lowered(s, kx_with(s, KN_OP_max_pool2d_indices, &plane, raised(s, x)));
    else
      both[1] = dims == 2 ? kx_with(s, KN_OP_max_pool2d_indices, &plane, x) : places3d(s, x, a);
    both[0] = taken(s, x, both[1], dims);
  }
  return kn_scope_close_all(s, both, 2, out);
}

#define WITH_PLACES(dims)                                                                                    \
  COMPOSITE(max_pool##dims##d_with_indices) {                                                                \
    (void)n;                                                                                                 \
    return with_places(ctx, in[0], dims, attrs, out);                                                        \
  }
WITH_PLACES(1)
WITH_PLACES(2)
WITH_PLACES(3)

/* ---- and back ---- */

static kn_tensor *unpool(kn_scope *s, kn_tensor *x, kn_tensor *places, int dims,
                         const kn_attrs_max_unpool *a) {
  kn_ints wanted = a->output_size; /* of the pooled dims, or of all */
  if (wanted.n == x->type.rank && wanted.n > dims)
    for (wanted.n = 0; wanted.n < dims; wanted.n++)
      wanted.v[wanted.n] = a->output_size.v[x->type.rank - dims + wanted.n];
  const kn_ints *options[] = {&a->kernel_size, &a->stride, &a->padding, &wanted};
  const kn_attrs_axis last = {.dim = -1};
  if (!options_fit(s, x, dims, options, 4)) return NULL;
  int lead = x->type.rank - dims;
  kn_ints block = {0}, line = {0};
  int64_t count = 1;
  if (!(places = kx_index(s, places))) return NULL;
  if (places->type.rank != x->type.rank || kn_tensor_dtype(places) != KN_I64)
    return kx_refuse(s, KN_SHAPE, "indices of the shape of the input are needed", x, places);
  kx_put_sizes(s, x, 0, lead, &block);
  line = block;
  for (int i = 0; i < dims; i++) {
    int64_t kernel = kn_ints_at(&a->kernel_size, i), stride = kn_ints_at(&a->stride, i);
    int64_t size = x->type.dims[lead + i], most = kn_ints_at(&wanted, i);
    if (most == 0) {
      if (!kn_dim_known(size))
        return kx_refuse(s, KN_SHAPE, "output_size is needed: the sizes are not known", x, NULL);
      most = (size - 1) * (stride ? stride : kernel) - 2 * kn_ints_at(&a->padding, i) + kernel;
    }
    if (most < 1 || most > INT32_MAX)
      return kx_refuse(s, KN_ARG, "the result would have no elements, or too many", x, NULL);
    kx_put_size(s, most, &block);
    count *= most;
  }
  kx_put_size(s, count, &line);
  if (s->status != KN_OK) return NULL;
  kn_tensor *zeros = kx_expand(s, kx_single(s, 0, x), &line);
  kn_tensor *in[] = {zeros, dims == 1 ? places : joined(s, places, -dims, -1),
                     dims == 1 ? x : joined(s, x, -dims, -1)};
  return kx_reshape(s, kx_apply(s, KN_OP_scatter, &last, in, 3), &block);
}
EXPRESSION(max_unpool1d, unpool(s, in[0], in[1], 1, attrs))
EXPRESSION(max_unpool2d, unpool(s, in[0], in[1], 2, attrs))
EXPRESSION(max_unpool3d, unpool(s, in[0], in[1], 3, attrs))

/* ---- the mean, norms ---- */

static kn_tensor *avg_pool(kn_scope *s, kn_tensor *x, int dims, const kn_attrs_avg_pool2d *a) {
  if (!avg_options_fit(s, x, dims, a)) return NULL;
  kn_attrs_avg_pool2d plane = avg_pass(a, dims, 0), depth = avg_pass(a, dims, 1);
  if (dims == 1) plane.divisor_override = a->divisor_override;
  if (dims == 1) return lowered(s, kx_with(s, KN_OP_avg_pool2d, &plane, raised(s, x)));
  if (a->divisor_override < 0)
    return kx_refuse(s, KN_ARG, "divisor_override must be positive, or 0 for none", x, NULL);
  kn_tensor *y = over_depth(s, KN_OP_avg_pool2d, &depth, over_planes(s, KN_OP_avg_pool2d, &plane, x));
  return a->divisor_override ? kx_scale(s, y, 1 / (double)a->divisor_override) : y;
}
EXPRESSION(avg_pool1d, avg_pool(s, in[0], 1, attrs))
EXPRESSION(avg_pool3d, avg_pool(s, in[0], 3, attrs))

/* The sum of powers of each window, to the power 1 / p. Where it is 0 so is the gradient. */
static kn_tensor *lp_pool(kn_scope *s, kn_tensor *x, int dims, const kn_attrs_lp_pool *a) {
  kn_attrs_avg_pool2d how = {.kernel_size = a->kernel_size,
                             .stride = a->stride,
                             .padding = {1, {0}},
                             .ceil_mode = a->ceil_mode,
                             .count_include_pad = true};
  if (!(a->norm_type > 0) || !isfinite(a->norm_type))
    return kx_refuse(s, KN_ARG, "norm_type must be positive", x, NULL);
  if (!avg_options_fit(s, x, dims, &how)) return NULL;
  double count = 1;
  for (int i = 0; i < dims; i++) count *= (double)kn_ints_at(&a->kernel_size, i);
  kn_tensor *powers = kx_pow(s, x, kx_number(s, a->norm_type, x));
  kn_tensor *mean = dims == 2 ? kx_with(s, KN_OP_avg_pool2d, &how, powers)
                    : powers  ? avg_pool(s, powers, dims, &how)
                              : NULL;
  kn_tensor *sum = kx_scale(s, mean, count), *zero = kx_number(s, 0, sum);
  kn_tensor *none = kx_eq(s, sum, zero);
  kn_tensor *root = kx_pow(s, kx_where(s, none, kx_number(s, 1, x), sum), kx_number(s, 1 / a->norm_type, x));
  return kx_where(s, none, zero, root);
}
EXPRESSION(lp_pool1d, lp_pool(s, in[0], 1, attrs))
EXPRESSION(lp_pool2d, lp_pool(s, in[0], 2, attrs))
EXPRESSION(lp_pool3d, lp_pool(s, in[0], 3, attrs))

/* ---- adaptive pooling ---- */

typedef struct parts { /* `size` elements in `count` parts, which may overlap by one and differ by one in
                          length */
  int64_t size, count, longest;
} parts;

static int64_t part_start(const parts *p, int64_t i) { return i * p->size / p->count; }
static int64_t part_end(const parts *p, int64_t i) { return ((i + 1) * p->size + p->count - 1) / p->count; }

/* Positions of part after part, each as long as the longest: what is missing repeats the last. */
static double part_position(const void *ud, int64_t i) {
  const parts *p = ud;
  int64_t part = i / p->longest, at = part_start(p, part) + i % p->longest, end = part_end(p, part);
  return (double)(at < end ? at : end - 1) + 1;
}

static double part_weight(const void *ud, int64_t i) {
  const parts *p = ud;
  int64_t part = i / p->longest, length = part_end(p, part) - part_start(p, part);
  return i % p->longest < length ? 1 / (double)length : 0;
}

/* Dim `dim` in parts, each folded to one element. */
static kn_tensor *fold_parts(kn_scope *s, kn_tensor *x, int dim, int64_t count, bool largest) {
  if (!x) return NULL;
  parts p = {.size = x->type.dims[dim], .count = count};
  for (int64_t i = 0; i < count; i++)
    if (part_end(&p, i) - part_start(&p, i) > p.longest) p.longest = part_end(&p, i) - part_start(&p, i);
  kn_ints sizes = {0}, shape = {0};
  x = kx_pick(s, x, dim, kx_constant(s, x, KN_I64, count * p.longest, part_position, &p));
  kx_put_sizes(s, x, 0, dim, &sizes);
  kx_put_size(s, count, &sizes);
  kx_put_size(s, p.longest, &sizes);
  if (x) kx_put_sizes(s, x, dim + 1, x->type.rank, &sizes);
  if (s->status != KN_OK) return NULL;
  x = kx_reshape(s, x, &sizes);
  const kn_ints over = {1, {dim + 1}};
  if (largest) return kx_reduce(s, KN_OP_amax, x, over, false);
  kx_put_size(s, count, &shape);
  kx_put_size(s, p.longest, &shape);
  for (int d = dim + 2; x && d < x->type.rank; d++) kx_put_size(s, 1, &shape);
  kn_tensor *w = x ? kx_constant(s, x, kn_tensor_dtype(x), count * p.longest, part_weight, &p) : NULL;
  return kx_reduce(s, KN_OP_sum, kx_mul(s, x, w ? kx_reshape(s, w, &shape) : NULL), over, false);
}

/* Asked before sizes are: what may be given does not depend on whether they divide. */
static bool is_float(kn_scope *s, kn_tensor *x) {
  if (kn_dtype_is_float(kn_tensor_dtype(x))) return true;
  return kx_refuse(s, KN_DTYPE, "a floating dtype is needed", x, NULL), false;
}

/* Over the last `dims` dims. Where all parts have one size they are windows. */
static kn_tensor *adaptive(kn_scope *s, kn_tensor *x, int dims, const kn_attrs_output_size *a, bool largest) {
  const kn_ints *options[] = {&a->output_size};
  if (!is_float(s, x) || !options_fit(s, x, dims, options, 1)) return NULL;
  int lead = x->type.rank - dims;
  bool one = true, known = true;
  kn_ints over = {.n = dims};
  for (int i = 0; i < dims; i++) {
    one &= kn_ints_at(&a->output_size, i) == 1;
    known &= kn_dim_known(x->type.dims[lead + i]);
    over.v[i] = i - dims;
  }
  if (one && !known) return kx_reduce(s, largest ? KN_OP_amax : KN_OP_mean, x, over, true);
  for (int i = dims; i-- > 0 && x;) {
    int64_t count = kn_ints_at(&a->output_size, i), size = x->type.dims[lead + i];
    if (count == -1 || (count == size && count > 0)) continue;
    if (!kx_sizes_known(s, x, lead + i, lead + i + 1)) return NULL;
    if (count < 1 || count > INT32_MAX || size < 1)
      return kx_refuse(s, KN_ARG,
                       "output_size must be known and at least 1 (-1 keeps a size), and the input not empty",
                       x, NULL);
    x = fold_parts(s, x, lead + i, count, largest);
  }
  return x;
}

/* Height and width at once where that is possible: one op, which for a single part is plain mean. */
static kn_tensor *adaptive2d(kn_scope *s, kn_tensor *x, const kn_attrs_output_size *a, bool largest) {
  kn_ints kernel = {2, {1, 1}};
  bool even = (x->type.rank == 3 || x->type.rank == 4) && a->output_size.n >= 1 && a->output_size.n <= 2;
  bool one = true;
  for (int i = 0; i < 2 && even; i++) {
    int64_t count = kn_ints_at(&a->output_size, i), size = x->type.dims[x->type.rank - 2 + i];
    one &= count == 1;
    even = size > 0 && (count == -1 || (count > 0 && size % count == 0));
    if (even && count > 0) kernel.v[i] = size / count;
  }
  if (!even || !kn_dtype_is_float(kn_tensor_dtype(x))) return adaptive(s, x, 2, a, largest);
  if (one && !largest) return kx_reduce(s, KN_OP_mean, x, (kn_ints){2, {-2, -1}}, true);
  kn_attrs_pool2d most = {
      .kernel_size = kernel, .stride = {1, {0}}, .padding = {1, {0}}, .dilation = {1, {1}}};
  kn_attrs_avg_pool2d mean = {
      .kernel_size = kernel, .stride = {1, {0}}, .padding = {1, {0}}, .count_include_pad = true};
  return largest ? kx_with(s, KN_OP_max_pool2d, &most, x) : kx_with(s, KN_OP_avg_pool2d, &mean, x);
}
EXPRESSION(adaptive_avg_pool1d, adaptive(s, in[0], 1, attrs, false))
EXPRESSION(adaptive_avg_pool2d, adaptive2d(s, in[0], attrs, false))
EXPRESSION(adaptive_avg_pool3d, adaptive(s, in[0], 3, attrs, false))
EXPRESSION(adaptive_max_pool1d, adaptive(s, in[0], 1, attrs, true))
EXPRESSION(adaptive_max_pool2d, adaptive2d(s, in[0], attrs, true))
EXPRESSION(adaptive_max_pool3d, adaptive(s, in[0], 3, attrs, true))
