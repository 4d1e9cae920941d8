/* Convolutions by loops of our own, for what cuDNN has no engine for: a thread an element of the result, in
 * the order of channels, rows and columns; for the gradient of a weight a block an element, which adds in
 * double. Slow, of any strides, sizes and dtypes. */
#include "backends/cuda/conv.h"
#include "backends/cuda/product.h"

enum { THREADS = 256 };

/* What the kernels are told, each an i64. */
/* clang-format off */
#define SIZES(X)                                                                                             \
  X(images) X(channels) X(h) X(w) X(filters) X(per_group) X(group_filters) X(kh) X(kw) X(oh) X(ow)           \
  X(pad_y) X(pad_x) X(step_y) X(step_x) X(far_y) X(far_x)                                                    \
  X(xn) X(xc) X(xh) X(xw) X(wo) X(wc) X(wh) X(ww) X(yn) X(yc) X(yh) X(yw)
/* clang-format on */
#define FIELD(name) int64_t name;
typedef struct sizes {
  SIZES(FIELD)
} sizes;
#define PARAMETER(name) ", i64 " #name
#define ADDRESS(name) args[n++] = &z.name;

static void write_forward(cu_text *t, const cu_summand *e) {
  cu_put(t,
         "KERNEL(%d, conv_forward)(const %s *x, const %s *w_, const %s *bias, %s *y" SIZES(
             PARAMETER) ") {\n"
                        "  i64 count = images * filters * oh * ow;\n"
                        "  for (i64 i = (i64)BLOCK * THREADS + THREAD; i < count; i += (i64)BLOCKS * "
                        "THREADS) {\n"
                        "    i64 ox = i %% ow, oy = i / ow %% oh, o = i / (ow * oh) %% filters, n = i / (ow "
                        "* oh * filters);\n"
                        "    const %s *px = x + n * xn + o / group_filters * per_group * xc;\n"
                        "    const %s *pw = w_ + o * wo;\n"
                        "    %s s = 0;\n"
                        "    if (bias) s = %s(bias[o]);\n"
                        "    for (i64 c = 0; c < per_group; c++)\n"
                        "      for (i64 a = 0; a < kh; a++) {\n"
                        "        i64 iy = oy * step_y + a * far_y - pad_y;\n"
                        "        if (iy < 0 || iy >= h) continue;\n"
                        "        for (i64 b = 0; b < kw; b++) {\n"
                        "          i64 ix = ox * step_x + b * far_x - pad_x;\n"
                        "          if (ix >= 0 && ix < w)\n"
                        "            s += %s(px[c * xc + iy * xh + ix * xw]) * %s(pw[c * wc + a * wh + b * "
                        "ww]);\n"
                        "        }\n"
                        "      }\n"
                        "    y[i] = %s(s);\n"
                        "  }\n"
                        "}\n",
         THREADS, e->stored, e->stored, e->stored, e->stored, e->stored, e->stored, e->sum, e->load, e->load,
         e->load, e->store);
}

static void write_grad_input(cu_text *t, const cu_summand *e) {
  cu_put(t,
         "KERNEL(%d, conv_grad_input)(const %s *g, const %s *w_, %s *x" SIZES(
             PARAMETER) ") {\n"
                        "  i64 count = images * channels * h * w;\n"
                        "  for (i64 i = (i64)BLOCK * THREADS + THREAD; i < count; i += (i64)BLOCKS * "
                        "THREADS) {\n"
                        "    i64 ix = i %% w, iy = i / w %% h, c = i / (w * h) %% channels, n = i / (w * h * "
                        "channels);\n"
                        "    i64 first = c / per_group * group_filters;\n"
                        "    %s s = 0;\n"
                        "    for (i64 o = first; o < first + group_filters; o++)\n"
                        "      for (i64 a = 0; a < kh; a++) {\n"
                        "        i64 oy = iy + pad_y - a * far_y;\n"
                        "        if (oy < 0 || oy %% step_y || oy / step_y >= oh) continue;\n"
                        "        for (i64 b = 0; b < kw; b++) {\n"
                        "          i64 ox = ix + pad_x - b * far_x;\n"
                        "          if (ox < 0 || ox %% step_x || ox / step_x >= ow) continue;\n"
                        "          s += %s(g[n * yn + o * yc + oy / step_y * yh + ox / step_x * yw]) *\n"
                        "               %s(w_[o * wo + c %% per_group * wc + a * wh + b * ww]);\n"
                        "        }\n"
                        "      }\n"
                        "    x[i] = %s(s);\n"
                        "  }\n"
                        "}\n",
         THREADS, e->stored, e->stored, e->stored, e->sum, e->load, e->load, e->store);
}

static void write_grad_weight(cu_text *t, const cu_summand *e) {
  cu_put(
      t,
      "KERNEL(%d, conv_grad_weight)(const %s *g, const %s *x, %s *to" SIZES(
          PARAMETER) ") {\n"
                     "  SHARED(double, sums, %d);\n"
                     "  i64 count = filters * per_group * kh * kw, plane = oh * ow;\n"
                     "  for (i64 i = BLOCK; i < count; i += BLOCKS) {\n"
                     "    i64 tap = i / (kw * kh), o = tap / per_group;\n"
                     "    i64 top = i / kw %% kh * far_y - pad_y, left = i %% kw * far_x - pad_x;\n"
                     "    const %s *pg = g + o * yc;\n"
                     "    const %s *px = x + (o / group_filters * per_group + tap %% per_group) * xc;\n"
                     "    double s = 0;\n"
                     "    for (i64 n = 0; n < images; n++, pg += yn, px += xn)\n"
                     "      for (i64 p = THREAD; p < plane; p += THREADS) {\n"
                     "        i64 oy = p / ow, ox = p - oy * ow, iy = oy * step_y + top, ix = ox * step_x + "
                     "left;\n"
                     "        if (iy >= 0 && iy < h && ix >= 0 && ix < w)\n"
                     "          s += (double)%s(pg[oy * yh + ox * yw]) * (double)%s(px[iy * xh + ix * xw]);\n"
                     "      }\n"
                     "    sums[THREAD] = s;\n"
                     "    SYNC();\n"
                     "    for (int half = %d; half > 0; half /= 2) {\n"
                     "      if ((int)THREAD < half) sums[THREAD] += sums[THREAD + half];\n"
                     "      SYNC();\n"
                     "    }\n"
                     "    if (THREAD == 0) to[i] = %s((%s)sums[0]);\n"
                     "    SYNC();\n"
                     "  }\n"
                     "}\n",
      THREADS, e->stored, e->stored, e->stored, THREADS, e->stored, e->stored, e->load, e->load, THREADS / 2,
      e->store, e->sum);
}

static void write_bias(cu_text *t, const cu_summand *e) {
  cu_put(t,
         "KERNEL(%d, conv_bias)(const %s *bias, %s *y, i64 count, i64 filters, i64 plane) {\n"
         "  for (i64 i = (i64)BLOCK * THREADS + THREAD; i < count; i += (i64)BLOCKS * THREADS)\n"
         "    y[i] = %s(%s(y[i]) + %s(bias[i / plane %% filters]));\n"
         "}\n",
         THREADS, e->stored, e->stored, e->store, e->load, e->load);
}

void cu_convolve_write(void *ud, cu_text *t) {
  const cu_summand *e = cu_summand_of(*(const kn_dtype *)ud);
  write_forward(t, e);
  write_grad_input(t, e);
  write_grad_weight(t, e);
  write_bias(t, e);
}

static kn_status kernel_of(kn_context *ctx, cu_device *d, kn_dtype dtype, const char *name, CUfunction *out) {
  char key[48];
  snprintf(key, sizeof key, "convolve %s", kn_dtype_name(dtype));
  return cu_kernel(ctx, d, key, name, cu_convolve_write, &dtype, out);
}

static int64_t elements_of(const cu_conv_tensor *t) {
  return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
}

kn_status cu_convolve(kn_context *ctx, cu_device *d, const cu_conv *c, const cu_conv_data *given) {
  static const char *const names[] = {"conv_forward", "conv_grad_input", "conv_grad_weight"};
  CUfunction f;
  KN_TRY(kernel_of(ctx, d, (kn_dtype)c->dtype, names[c->kind], &f));
  cu_conv_data at = *given;
  sizes z = {c->x.dims[0],
             c->x.dims[1],
             c->x.dims[2],
             c->x.dims[3],
             c->w.dims[0],
             c->w.dims[1],
             c->w.dims[0] / c->groups,
             c->w.dims[2],
             c->w.dims[3],
             c->y.dims[2],
             c->y.dims[3],
             c->padding[0],
             c->padding[1],
             c->stride[0],
             c->stride[1],
             c->dilation[0],
             c->dilation[1],
             c->x.strides[0],
             c->x.strides[1],
             c->x.strides[2],
             c->x.strides[3],
             c->w.strides[0],
             c->w.strides[1],
             c->w.strides[2],
             c->w.strides[3],
             c->y.strides[0],
             c->y.strides[1],
             c->y.strides[2],
             c->y.strides[3]};
  void *args[4 + sizeof z / sizeof(int64_t)];
  int n = 0;
  int64_t threads = THREADS;
  switch ((cu_conv_kind)c->kind) {
  case CU_CONV_FORWARD:
    args[n++] = &at.x, args[n++] = &at.w, args[n++] = &at.bias, args[n++] = &at.y;
    threads = elements_of(&c->y);
    break;
  case CU_CONV_GRAD_INPUT:
    args[n++] = &at.y, args[n++] = &at.w, args[n++] = &at.x;
    threads = elements_of(&c->x);
    break;
  default: args[n++] = &at.y, args[n++] = &at.x, args[n++] = &at.w; threads = elements_of(&c->w) * THREADS;
  }
  SIZES(ADDRESS)
  const unsigned grid[3] = {cu_grid(d, threads, THREADS, 1), 1, 1};
  return cu_launch(ctx, d, f, grid, THREADS, 0, args);
}

kn_status cu_conv_bias(kn_context *ctx, cu_device *d, const cu_conv *c, const cu_conv_data *given) {
  CUfunction f;
  KN_TRY(kernel_of(ctx, d, (kn_dtype)c->dtype, "conv_bias", &f));
  cu_conv_data at = *given;
  int64_t count = elements_of(&c->y), filters = c->y.dims[1], plane = c->y.dims[2] * c->y.dims[3];
  void *args[] = {&at.bias, &at.y, &count, &filters, &plane};
  const unsigned grid[3] = {cu_grid(d, count, THREADS, 1), 1, 1};
  return cu_launch(ctx, d, f, grid, THREADS, 0, args);
}
