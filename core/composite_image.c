/* Composites: convolutions of one dim and of the other direction, columns of windows. They come down to
 * conv2d, its gradients and index_select. */
#include "core/composite.h"
#include "core/infer.h"

static kn_tensor *zeros_shaped(kn_scope *s, const kn_ints *sizes, kn_tensor *like) {
  return s->status == KN_OK ? kx_expand(s, kx_single(s, 0, like), sizes) : NULL;
}

/* ---- one dimension as a second one of size 1 ---- */

static kn_tensor *raised(kn_scope *s, kn_tensor *x) { return kx_axis(s, KN_OP_unsqueeze, x, -2); }
static kn_tensor *lowered(kn_scope *s, kn_tensor *x) { return kx_select(s, x, -2, 0); }
static kn_ints row(int64_t first, const kn_ints *v) { return (kn_ints){2, {first, v->v[0]}}; }

static bool one_each(kn_scope *s, kn_tensor *x, const kn_ints *a, const kn_ints *b, const kn_ints *c) {
  if (x->type.rank == 3 && a->n == 1 && b->n == 1 && c->n == 1) return true;
  kx_refuse(s, KN_SHAPE, "an input [N,C,L] and one number for each option are needed", x, NULL);
  return false;
}

static kn_tensor *conv1d(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_conv2d *a) {
  if (!one_each(s, in[0], &a->stride, &a->padding, &a->dilation)) return NULL;
  if (in[1]->type.rank != 3) return kx_refuse(s, KN_SHAPE, "the weight must have three dims", in[0], in[1]);
  kn_attrs_conv2d two = {.stride = row(1, &a->stride),
                         .padding = row(0, &a->padding),
                         .dilation = row(1, &a->dilation),
                         .groups = a->groups};
  kn_tensor *as[3] = {raised(s, in[0]), raised(s, in[1]), n > 2 ? in[2] : NULL};
  return lowered(s, kx_apply(s, KN_OP_conv2d, &two, as, n));
}

EXPRESSION(conv1d, conv1d(s, in, n, attrs))

/* ---- transposed ---- */

/* The gradient of a convolution for its input: (size - 1) stride - 2 padding + the kernel's span +
 * output_padding. */
static kn_tensor *transposed(kn_scope *s, kn_tensor *x, kn_tensor *w, kn_tensor *b,
                             const kn_attrs_conv_transpose *a) {
  if (!x || !w) return NULL;
  if (x->type.rank != 4 || w->type.rank != 4)
    return kx_refuse(s, KN_SHAPE, "an image [N,C,H,W] and a weight [C,O/groups,KH,KW] are needed", x, w);
  if (!kx_sizes_known(s, w, 1, w->type.rank)) return NULL;
  if (kn_is_dyn(a->groups) || a->groups < 1) return kx_refuse(s, KN_ARG, "groups must be at least 1", x, w);
  const kn_ints *options[] = {&a->stride, &a->padding, &a->output_padding, &a->dilation};
  for (int i = 0; i < 4; i++)
    if (options[i]->n < 1 || options[i]->n > 2)
      return kx_refuse(s, KN_ARG, "an option takes one number or two", x, w);
  kn_attrs_conv2d at = {
      .stride = a->stride, .padding = a->padding, .dilation = a->dilation, .groups = a->groups};
  kn_ints sizes = {0};
  kn_tensor *plane =
      NULL; /* while sizes are not known: a plane that gets the right ones by repeating and cutting */
  bool open = !kn_dim_known(x->type.dims[2]) || !kn_dim_known(x->type.dims[3]);
  for (int i = 0; i < a->output_padding.n; i++) open |= kn_is_dyn(a->output_padding.v[i]);
  if (open) plane = kx_slice(s, x, 1, 0, 1, 1);
  kx_put_sizes(s, x, 0, 1, &sizes);
  kx_put_size(s, w->type.dims[1] * a->groups, &sizes);
  for (int i = 0; i < 2; i++) {
    int64_t v[4], more;
    for (int k = 0; k < 4; k++) {
      v[k] = options[k]->v[options[k]->n == 1 ? 0 : i];
      if (k == 2 && kn_is_dyn(v[k])) continue; /* of a size that is asked for */
      if (v[k] < 0 || v[k] > INT32_MAX) return kx_refuse(s, KN_ARG, "an option is out of range", x, w);
    }
    bool waits = kn_is_dyn(v[2]);
    more = v[3] * (w->type.dims[2 + i] - 1) + (waits ? 0 : v[2]) + 1 - 2 * v[1] - v[0];
    kn_attrs_repeat times = {.repeats = v[0], .dim = 2 + i};
    kn_attrs_constant_pad by = {.pad = {.n = 4}}, last = by; /* after the dim */
    by.pad.v[3 - 2 * i] = more;
    last.pad.v[3 - 2 * i] = v[2];
    if (plane)
      plane = kx_with(s, KN_OP_constant_pad, &by, kx_with(s, KN_OP_repeat_interleave, &times, plane));
    if (waits) plane = kx_with(s, KN_OP_constant_pad, &last, plane);
    int64_t size = plane ? -1 : x->type.dims[2 + i] * v[0] + more;
    if ((!plane && size < 1) || (!waits && v[2] >= v[0] && v[2] >= v[3]))
      return kx_refuse(
          s, KN_ARG, "the options leave no result, or output_padding is not below stride or dilation", x, w);
    kx_put_size(s, size, &sizes);
  }
  sizes.v[0] = plane ? -1 : sizes.v[0];
  kn_tensor *like = plane ? kx_expand(s, plane, &sizes) : zeros_shaped(s, &sizes, x);
  kn_tensor *y = kx_apply(s, KN_OP_conv2d_grad_input, &at, (kn_tensor *[]){x, w, like}, 3);
  if (!b || !y) return y;
  if (b->type.rank != 1) return kx_refuse(s, KN_SHAPE, "the bias must have one dim", x, b);
  kn_ints beside = {3, {-1, 1, 1}};
  return kx_add(s, y, kx_reshape(s, b, &beside));
}
EXPRESSION(conv_transpose2d, transposed(s, in[0], in[1], n > 2 ? in[2] : NULL, attrs))

static kn_tensor *transposed1d(kn_scope *s, kn_tensor *const *in, int n, const kn_attrs_conv_transpose *a) {
  if (!one_each(s, in[0], &a->stride, &a->padding, &a->dilation)) return NULL;
  if (in[1]->type.rank != 3 || a->output_padding.n != 1)
    return kx_refuse(s, KN_SHAPE, "the weight must have three dims", in[0], in[1]);
  kn_attrs_conv_transpose two = {.stride = row(1, &a->stride),
                                 .padding = row(0, &a->padding),
                                 .output_padding = row(0, &a->output_padding),
                                 .dilation = row(1, &a->dilation),
                                 .groups = a->groups};
  return lowered(s, transposed(s, raised(s, in[0]), raised(s, in[1]), n > 2 ? in[2] : NULL, &two));
}
EXPRESSION(conv_transpose1d, transposed1d(s, in, n, attrs))

/* ---- im2col, col2im: unfold and fold of torch.nn.functional ---- */

static bool two_each(kn_scope *s, kn_tensor *x, const kn_attrs_im2col *a, int64_t v[4][2]) {
  const kn_ints *options[] = {&a->kernel_size, &a->dilation, &a->padding, &a->stride};
  for (int k = 0; k < 4; k++)
    for (int i = 0; i < 2; i++) {
      v[k][i] = options[k]->n == 1 || options[k]->n == 2 ? kn_ints_at(options[k], i) : -1;
      if (v[k][i] < (k != 2) || v[k][i] > INT32_MAX) {
        kx_refuse(s, KN_ARG, "an option is out of range or not one number or two", x, NULL);
        return false;
      }
    }
  return true;
}

/* For each place of the kernel a strided slice, all stacked behind the channels. */
static kn_tensor *im2col(kn_scope *s, kn_tensor *x, const kn_attrs_im2col *a) {
  int64_t v[4][2];
  if (x->type.rank != 4) return kx_refuse(s, KN_SHAPE, "an image [N,C,H,W] is needed", x, NULL);
  if (!two_each(s, x, a, v)) return NULL;
  int64_t kh = v[0][0], kw = v[0][1];
  if (kh * kw > KN_MAX_INPUTS)
    return kx_fail(s, kn_fail(s->ctx, KN_LIMIT, "a kernel has at most %d places here", KN_MAX_INPUTS));
  kn_attrs_constant_pad around = {.pad = {4, {v[2][1], v[2][1], v[2][0], v[2][0]}}};
  if (v[2][0] || v[2][1]) x = kx_with(s, KN_OP_constant_pad, &around, x);
  kn_tensor *part[KN_MAX_INPUTS];
  int n = 0;
  for (int64_t i = 0; i < kh; i++)
    for (int64_t j = 0; j < kw; j++) {
      int64_t down = (kh - 1 - i) * v[1][0], right = (kw - 1 - j) * v[1][1];
      kn_tensor *rows = kx_slice(s, x, 2, i * v[1][0], down ? -down : KN_TO_END, v[3][0]);
      part[n++] = kx_slice(s, rows, 3, j * v[1][1], right ? -right : KN_TO_END, v[3][1]);
    }
  kn_attrs_axis_first behind = {.dim = 2};
  kn_tensor *all = kx_apply(s, KN_OP_stack, &behind, part, n); /* [N, C, k, OH, OW] */
  kn_attrs_flatten channels = {.start_dim = 1, .end_dim = 2}, places = {.start_dim = 2, .end_dim = 3};
  return kx_with(s, KN_OP_flatten, &places, kx_with(s, KN_OP_flatten, &channels, all));
}
EXPRESSION(im2col, im2col(s, in[0], attrs))

/* Each column put back where it came from and added: the gradient of a convolution that only moves elements.
 */
static kn_tensor *col2im(kn_scope *s, kn_tensor *x, const kn_attrs_col2im *a) {
  kn_attrs_im2col same = {
      .kernel_size = a->kernel_size, .dilation = a->dilation, .padding = a->padding, .stride = a->stride};
  int64_t v[4][2], places[2];
  if (x->type.rank != 3) return kx_refuse(s, KN_SHAPE, "columns [N,C k,L] are needed", x, NULL);
  if (!two_each(s, x, &same, v)) return NULL;
  int64_t k = v[0][0] * v[0][1], rows = x->type.dims[1];
  if (a->output_size.n < 1 || a->output_size.n > 2)
    return kx_refuse(s, KN_ARG, "output_size takes one number or two", x, NULL);
  if (!kn_dim_known(rows) || rows % k)
    return kx_refuse(s, KN_SHAPE, "dim 2 must divide by the kernel's places", x, NULL);
  for (int i = 0; i < 2; i++) {
    int64_t room = kn_ints_at(&a->output_size, i) + 2 * v[2][i] - v[1][i] * (v[0][i] - 1) - 1;
    if (room < 0) return kx_refuse(s, KN_SHAPE, "the kernel does not fit output_size", x, NULL);
    places[i] = room / v[3][i] + 1;
  }
  if (kn_dim_known(x->type.dims[2]) && x->type.dims[2] != places[0] * places[1])
    return kx_refuse(s, KN_SHAPE, "the number of columns does not fit output_size", x, NULL);
  kn_ints shape = {0}, like = {0}, filters = {4, {rows, 1, v[0][0], v[0][1]}},
          square = {4, {1, k, v[0][0], v[0][1]}};
  kx_put_sizes(s, x, 0, 2, &shape);
  kx_put_sizes(s, x, 0, 1, &like);
  kx_put_size(s, rows / k, &like);
  for (int i = 0; i < 2; i++) {
    kx_put_size(s, places[i], &shape);
    kx_put_size(s, kn_ints_at(&a->output_size, i), &like);
  }
  kn_attrs_eye one = {.n = k, .m = k, .dtype = kn_tensor_dtype(x), .device = x->type.device};
  kn_tensor *eye = kx_apply(s, KN_OP_eye, &one, NULL, 0);
  kn_ints each = {4, {rows / k, k, v[0][0], v[0][1]}};
  if (!eye) return NULL;
  eye = kx_reshape(s, kx_expand(s, kx_reshape(s, eye, &square), &each), &filters);
  kn_attrs_conv2d at = {
      .stride = a->stride, .padding = a->padding, .dilation = a->dilation, .groups = rows / k};
  kn_tensor *grid = s->status == KN_OK ? kx_reshape(s, x, &shape) : NULL;
  return kx_apply(s, KN_OP_conv2d_grad_input, &at, (kn_tensor *[]){grid, eye, zeros_shaped(s, &like, x)}, 3);
}
EXPRESSION(col2im, col2im(s, in[0], attrs))
