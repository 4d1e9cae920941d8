/* Composites: convolution of volumes. The depths that a place of the kernel sees are laid beside each other
 * as channels, which makes it one conv2d; its transpose goes the same way back. */
#include "core/composite.h"
#include "core/infer.h"

/* may_wait: the option whose depth may be known only when a graph runs. */
static bool three_each(kn_scope *s, kn_tensor *x, kn_tensor *w, const kn_ints *const *options, int n,
                       const kn_ints *may_wait) {
  if (x->type.rank != 5 || w->type.rank != 5)
    return kx_refuse(s, KN_SHAPE, "a volume [N,C,D,H,W] and a weight of five dims are needed", x, w), false;
  for (int i = 0; i < n; i++) {
    if (options[i]->n != 1 && options[i]->n != 3)
      return kx_refuse(s, KN_ARG, "an option takes one number or three", x, w), false;
    int64_t depth = kn_ints_at(options[i], 0);
    if (options[i] == may_wait && kn_is_dyn(depth)) continue;
    if (kn_is_dyn(depth) || depth < 0 || depth > INT32_MAX)
      return kx_refuse(s, KN_ARG, "an option is out of range or not known", x, w), false;
  }
  int64_t depth = w->type.dims[2];
  if (!kn_dim_known(depth) || depth < 1 || depth > KN_MAX_INPUTS)
    return kx_refuse(s, KN_SHAPE, "the depth of the kernel must be known, and at least 1 and at most 64", x,
                     w),
           false;
  return true;
}

static kn_ints plane_of(const kn_ints *v) { return (kn_ints){2, {kn_ints_at(v, 1), kn_ints_at(v, 2)}}; }

static kn_tensor *joined(kn_scope *s, kn_tensor *x, int64_t from) {
  kn_attrs_flatten two = {.start_dim = from, .end_dim = from + 1};
  return kx_with(s, KN_OP_flatten, &two, x);
}

static kn_tensor *permuted(kn_scope *s, kn_tensor *x, const kn_attrs_axes *order) {
  return kx_with(s, KN_OP_permute, order, x);
}

/* y [N D, …] as [N,D,…], with the sizes of `like`. */
static kn_tensor *split_first(kn_scope *s, kn_tensor *y, kn_tensor *like) {
  kn_ints sizes = {0};
  if (!y || !like) return NULL;
  kx_put_sizes(s, like, 0, 2, &sizes);
  kx_put_sizes(s, y, 1, y->type.rank, &sizes);
  return s->status == KN_OK ? kx_reshape(s, y, &sizes) : NULL;
}

static kn_tensor *biased(kn_scope *s, kn_tensor *y, kn_tensor *b) {
  const kn_ints beside = {4, {-1, 1, 1, 1}};
  if (!b || !y) return y;
  if (b->type.rank != 1) return kx_refuse(s, KN_SHAPE, "the bias must have one dim", y, b);
  return kx_add(s, y, kx_reshape(s, b, &beside));
}

/* x [N,C,D,H,W] to [N,OD,C,KD,H,W]: at each place the depths that the kernel sees. */
static kn_tensor *depths(kn_scope *s, kn_tensor *x, int64_t count, const kn_attrs_conv2d *a) {
  const kn_attrs_axis_first behind = {.dim = 3};
  const kn_attrs_axes order = {.dims = {6, {0, 2, 1, 3, 4, 5}}};
  int64_t pad = kn_ints_at(&a->padding, 0), stride = kn_ints_at(&a->stride, 0),
          apart = kn_ints_at(&a->dilation, 0);
  kn_attrs_constant_pad around = {.pad = {6, {0, 0, 0, 0, pad, pad}}};
  kn_tensor *part[KN_MAX_INPUTS];
  if (pad) x = kx_with(s, KN_OP_constant_pad, &around, x);
  for (int64_t k = 0; k < count; k++) {
    int64_t rest = (count - 1 - k) * apart;
    part[k] = kx_slice(s, x, 2, k * apart, rest ? -rest : KN_TO_END, stride); /* [N,C,OD,H,W] */
  }
  return permuted(s, kx_apply(s, KN_OP_stack, &behind, part, (int)count), &order);
}

static kn_tensor *conv3d(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_conv2d *a) {
  const kn_ints *options[] = {&a->stride, &a->padding, &a->dilation};
  const kn_attrs_axes back = {.dims = {5, {0, 2, 1, 3, 4}}};
  kn_tensor *x = in[0], *w = in[1];
  if (!three_each(s, x, w, options, 3, NULL)) return NULL;
  int64_t depth = x->type.dims[2], pad = kn_ints_at(&a->padding, 0);
  int64_t span = kn_ints_at(&a->dilation, 0) * (w->type.dims[2] - 1) + 1;
  if (kn_ints_at(&a->stride, 0) < 1 || kn_ints_at(&a->dilation, 0) < 1)
    return kx_refuse(s, KN_ARG, "stride and dilation must be at least 1", x, w);
  if (kn_dim_known(depth) && depth + 2 * pad < span)
    return kx_refuse(s, KN_SHAPE, "the kernel is deeper than the padded volume", x, w);
  kn_attrs_conv2d two = {.stride = plane_of(&a->stride),
                         .padding = plane_of(&a->padding),
                         .dilation = plane_of(&a->dilation),
                         .groups = a->groups};
  kn_tensor *places = depths(s, x, w->type.dims[2], a);
  if (!places) return NULL;
  kn_tensor *as[3] = {joined(s, joined(s, places, 2), 0), joined(s, w, 1), n > 2 ? in[2] : NULL};
  return permuted(s, split_first(s, kx_apply(s, KN_OP_conv2d, &two, as, n), places), &back);
}
EXPRESSION(conv3d, conv3d(s, in, n, attrs))

/* Zeros [N,all,O,OH,OW] where `all` depths are reached from those of y [N,D,O KD,OH,OW]: (D - 1) stride + 1
 * and `behind` more, by repeating and cutting where D is not known. */
static kn_tensor *reached(kn_scope *s, kn_tensor *y, int64_t outputs, int64_t stride, int64_t behind) {
  int64_t depth = y->type.dims[1];
  kn_ints shape = {0}, all = {5, {-1, -1, outputs, -1, -1}};
  if (!kn_dim_known(depth)) {
    kn_attrs_repeat times = {.repeats = stride, .dim = 1};
    kn_attrs_constant_pad by = {.pad = {.n = 8}};
    by.pad.v[7] = 1 - stride + behind;
    kn_tensor *one = kx_with(s, KN_OP_repeat_interleave, &times, kx_slice(s, y, 2, 0, 1, 1));
    return kx_expand(s, kx_with(s, KN_OP_constant_pad, &by, one), &all);
  }
  kx_put_sizes(s, y, 0, 1, &shape);
  kx_put_size(s, (depth - 1) * stride + 1 + behind, &shape);
  kx_put_size(s, outputs, &shape);
  kx_put_sizes(s, y, 3, 5, &shape);
  return s->status == KN_OK ? kx_expand(s, kx_single(s, 0, y), &shape) : NULL;
}

/* Each plane goes through conv_transpose2d to the planes of all depths of the kernel, which are then added up
 * where they belong: the range of depths that one place of the kernel reaches is a slice. What output_padding
 * adds is zeros behind the last. */
static kn_tensor *transposed3d(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_conv_transpose *a) {
  const kn_ints *options[] = {&a->stride, &a->padding, &a->output_padding, &a->dilation};
  const kn_attrs_axes planes = {.dims = {5, {0, 2, 1, 3, 4}}};
  kn_tensor *x = in[0], *w = in[1], *sum = NULL;
  if (!three_each(s, x, w, options, 4, &a->output_padding) || !kx_sizes_known(s, w, 1, 3)) return NULL;
  int64_t stride = kn_ints_at(&a->stride, 0), pad = kn_ints_at(&a->padding, 0),
          apart = kn_ints_at(&a->dilation, 0);
  int64_t more = kn_ints_at(&a->output_padding, 0), count = w->type.dims[2], depth = x->type.dims[2];
  int64_t behind = apart * (count - 1), outputs = w->type.dims[1] * a->groups;
  bool waits = kn_is_dyn(more), open = waits || !kn_dim_known(depth);
  int64_t size = open ? 1 : (depth - 1) * stride + 1 + behind + more - 2 * pad;
  if (depth == 0 || size < 1 || stride < 1 || apart < 1 || (!waits && more >= stride && more >= apart))
    return kx_refuse(s, KN_ARG,
                     "the options leave no result, or output_padding is not below stride or dilation", x, w);
  kn_attrs_conv_transpose two = {.stride = plane_of(&a->stride),
                                 .padding = plane_of(&a->padding),
                                 .output_padding = plane_of(&a->output_padding),
                                 .dilation = plane_of(&a->dilation),
                                 .groups = a->groups};
  kn_tensor *turned = permuted(s, x, &planes); /* [N,D,C,H,W] */
  kn_tensor *y = kx_with2(s, KN_OP_conv_transpose2d, &two, joined(s, turned, 0), joined(s, w, 1));
  y = split_first(s, y, turned); /* [N,D,O KD,OH,OW] */
  kn_tensor *like = y ? reached(s, y, outputs, stride, behind) : NULL;
  if (!like) return NULL;
  kn_ints parts = {0};
  kx_put_sizes(s, y, 0, 2, &parts);
  kx_put_size(s, outputs, &parts);
  kx_put_size(s, count, &parts);
  kx_put_sizes(s, y, 3, 5, &parts);
  if (s->status != KN_OK) return NULL;
  y = kx_reshape(s, y, &parts); /* [N,D,O,KD,OH,OW] */
  for (int64_t k = 0; k < count; k++) {
    int64_t rest = behind - k * apart;
    kn_attrs_slice range = {.dim = 1, .start = k * apart, .stop = rest ? -rest : KN_TO_END, .step = stride};
    kn_tensor *part = kx_with2(s, KN_OP_slice_grad, &range, kx_select(s, y, 3, k), like);
    sum = sum ? kx_add(s, sum, part) : part;
  }
  kn_attrs_constant_pad last = {.pad = {.n = 8}};
  last.pad.v[7] = more;
  if (more) sum = kx_with(s, KN_OP_constant_pad, &last, sum);
  return biased(s, permuted(s, kx_slice(s, sum, 1, pad, pad ? -pad : KN_TO_END, 1), &planes),
                n > 2 ? in[2] : NULL);
}
EXPRESSION(conv_transpose3d, transposed3d(s, in, n, attrs))
