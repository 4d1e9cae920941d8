/* The steps of a convolution: oneDNN chooses layouts, filters are packed. */
#include "backends/onednn/choice.h"
#include "backends/onednn/slices.h"
#include "backends/tune.h"
#include "core/infer.h"
#include "core/parallel.h"
#include <stdio.h>
#include <string.h>

typedef struct conv {
  dn_builder *b;
  const dn_group *g;
  uint32_t from; /* the image, as it lies */
  int64_t groups;
  dnnl_dims_t stride, dilation, padding, image_dims, filter_dims, result_dims;
  dn_md image, filter, filter_from, bias, result; /* ours */
  double flops;
  bool measured; /* its implementation is the fastest of those that were tried */
  dnnl_primitive_attr_t attr;
  dnnl_primitive_desc_t pd;
} conv;

static void widen(dnnl_dims_t to, const int64_t *from, int n) {
  for (int i = 0; i < DNNL_MAX_NDIMS; i++) to[i] = i < n ? from[i] : 0;
}

/* The filter's sizes and strides, by groups where there are any. */
static int filter_dims(const conv *c, const kn_type *w, const int64_t *from, dnnl_dims_t dims,
                       dnnl_dims_t strides) {
  int at = 0;
  memset(dims, 0, sizeof(dnnl_dims_t));
  memset(strides, 0, sizeof(dnnl_dims_t));
  if (c->groups > 1) dims[at] = c->groups, strides[at++] = from[0] * (w->dims[0] / c->groups);
  dims[at] = w->dims[0] / c->groups, strides[at++] = from[0];
  for (int i = 1; i < 4; i++) dims[at] = w->dims[i], strides[at++] = from[i];
  return at;
}

static dnnl_status_t describe(dn_builder *b, const dn_group *g, conv *c, const int64_t *filter_strides) {
  const kn_type images = dn_type_of(b, g->main->in[0]), result = dn_type_of(b, g->out);
  const kn_type *x = &images, *w = &b->part->types[g->main->in[1]->id], *y = &result;
  const kn_attrs_conv2d *a = g->main->attrs;
  if (x->rank != 4 || x->dtype != KN_F32 || w->dtype != KN_F32) return dnnl_unimplemented;
  if (kn_type_numel(x) < 1 || kn_type_numel(w) < 1 || kn_type_numel(y) < 1) return dnnl_unimplemented;
  c->groups = a->groups;
  c->flops = 2 * (double)kn_type_numel(y) * (double)(w->dims[1] * w->dims[2] * w->dims[3]);
  for (int i = 0; i < 2; i++) {
    c->stride[i] = kn_ints_at(&a->stride, i);
    c->padding[i] = kn_ints_at(&a->padding, i);
    c->dilation[i] = kn_ints_at(&a->dilation, i) - 1;
  }
  dn_use_threads(b, c->flops / 2);
  dnnl_dims_t dims, strides, one = {1};
  widen(c->image_dims, x->dims, 4);
  widen(c->result_dims, y->dims, 4);
  widen(c->filter_dims, w->dims, 4);
  dnnl_status_t s = dn_md_any(b->lib, &c->image, 4, c->image_dims);
  if (!s) s = dn_md_any(b->lib, &c->result, 4, c->result_dims);
  int rank = filter_dims(c, w, filter_strides, dims, strides);
  if (!s) s = dn_md_strides(b->lib, &c->filter_from, rank, dims, strides);
  if (!s) s = dn_md_any(b->lib, &c->filter, rank, dims);
  memset(dims, 0, sizeof dims);
  dims[0] = w->dims[0];
  if (!s && g->bias) s = dn_md_strides(b->lib, &c->bias, 1, dims, one);
  return s ? s : dn_posts_attr(b, g, 4, 1, &c->attr);
}

/* Not oneDNN's reference code, nor products on rearranged images. */
static dnnl_status_t make(void *ud, const dn_conv_way *way, dnnl_primitive_desc_t *pd) {
  conv *c = ud;
  const dn_library *l = c->b->lib;
  dn_md_ref image = way->free ? dn_ref(&c->image) : dn_md_of(c->b, c->from);
  dnnl_status_t s = dn_convolution_forward_nth(l, way->nth, pd, c->b->engine, dnnl_forward_inference,
                                               dnnl_convolution_direct, image, dn_ref(&c->filter),
                                               c->g->bias ? dn_ref(&c->bias) : NULL, dn_ref(&c->result),
                                               c->stride, c->dilation, c->padding, c->padding, c->attr);
  if (s || !dn_is_poor(c->b, *pd, true)) return s;
  l->primitive_desc_destroy(*pd);
  return dnnl_unimplemented;
}

static dn_md_ref wants(dn_builder *b, const conv *c, int arg) {
  return b->lib->primitive_desc_query_md(c->pd, dnnl_query_exec_arg_md, arg);
}

static void write_key(const conv *c, const char *lies, char key[KN_TUNE_KEY]) {
  const int64_t *x = c->image_dims, *w = c->filter_dims;
  int at = snprintf(key, KN_TUNE_KEY, "conv2d t%d %s %lldx%lldx%lldx%lld %lldx%lldx%lldx%lld",
                    kn_parallel_library_threads(c->b->ctx), lies, (long long)x[0], (long long)x[1],
                    (long long)x[2], (long long)x[3], (long long)w[0], (long long)w[1], (long long)w[2],
                    (long long)w[3]);
  const kn_attrs_conv2d *a = c->g->main->attrs;
  const kn_ints *pairs[] = {&a->stride, &a->padding, &a->dilation};
  for (int i = 0; i < 3 && at < KN_TUNE_KEY; i++)
    at += snprintf(key + at, KN_TUNE_KEY - (size_t)at, " %c%lld,%lld", "spd"[i],
                   (long long)kn_ints_at(pairs[i], 0), (long long)kn_ints_at(pairs[i], 1));
  if (at < KN_TUNE_KEY)
    at += snprintf(key + at, KN_TUNE_KEY - (size_t)at, " g%lld%s", (long long)c->groups,
                   c->g->bias ? " bias" : "");
  static const char *const kinds[] = {
      [DN_POST_FUNCTION] = "", [DN_POST_CHANNEL] = "channel ", [DN_POST_SUM] = "image "};
  for (uint32_t i = 0; i < c->g->nposts && at < KN_TUNE_KEY; i++)
    at += snprintf(key + at, KN_TUNE_KEY - (size_t)at, " %s%s", kinds[c->g->posts[i].kind],
                   c->g->posts[i].name);
}

/* What was measured, in place of the fixed rule's way. */
static void measure(conv *c, dn_conv_way way) {
  dn_builder *b = c->b;
  char key[KN_TUNE_KEY];
  const char *lies = dn_layout_name(b, dn_md_of(b, c->from), c->image_dims);
  if (!lies) return;
  write_key(c, lies, key);
  dn_conv question = {
      .key = key, .flops = c->flops, .image = dn_md_of(b, c->from), .ud = c, .describe = make};
  for (uint32_t i = 0; i < c->g->nposts; i++) question.reads[i] = c->g->posts[i].kind == DN_POST_CHANNEL;
  dnnl_primitive_desc_t pd;
  if (!dn_choose_conv(b->state, b->ctx, &question, &way)) return;
  int threads = b->threads;
  dn_threads_set(b->lib, b->threads = way.threads);
  if (make(c, &way, &pd)) {
    dn_threads_set(b->lib, b->threads = threads);
    return;
  }
  b->lib->primitive_desc_destroy(c->pd);
  c->pd = pd;
  c->measured = true;
}

/* An image as a primitive before has left it is taken as it is where there is fast code for that, and so is
 * one of a single channel, for which what oneDNN likes best takes twice as long; any other from outside is
 * brought into the layout that it likes best. */
static dnnl_status_t choose(conv *c) {
  const dn_buffer *at = &c->b->q->buffers[c->from];
  dn_conv_way way = {.free = at->given && !(at->plain && c->image_dims[1] == 1), .threads = c->b->threads};
  dnnl_status_t s = make(c, &way, &c->pd);
  if (s && !way.free) way.free = true, s = make(c, &way, &c->pd);
  if (s)
    c->pd = NULL;
  else
    measure(c, way);
  return s;
}

static bool is_as_plain(const conv *c, size_t bytes) {
  const int64_t *d = c->result_dims;
  return d[2] == 1 && d[3] == 1 && bytes == (size_t)(d[0] * d[1]) * sizeof(float);
}

static dnnl_status_t arrange(dn_builder *b, const dn_group *g, conv *c, const kn_slot *slot) {
  int arg[DN_STEP_ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
  uint32_t buffer[DN_STEP_ARGS], n = 3;
  buffer[0] = dn_buffer_reordered(b, g->main->in[0], wants(b, c, DNNL_ARG_SRC));
  buffer[1] =
      dn_buffer_packed(b, g->main->in[1], slot, dn_ref(&c->filter_from), wants(b, c, DNNL_ARG_WEIGHTS));
  if (g->bias) buffer[n++] = dn_buffer_vector(b, g->bias, 1, 0, c->result_dims[1]);
  dn_md_ref to = wants(b, c, DNNL_ARG_DST);
  buffer[2] = dn_buffer_result(b, g, to, is_as_plain(c, b->lib->memory_desc_get_size(to)), dn_summed(g));
  dnnl_status_t s = dn_posts_args(b, g, 4, 1, &n, arg, buffer);
  if (s) return s;
  b->measured = c->measured;
  s = dn_add_step(b, c->pd, n, arg, buffer);
  b->measured = false;
  c->pd = NULL;
  return s ? s : dn_finish_result(b, g, buffer[2]);
}

dnnl_status_t dn_build_conv(dn_builder *b, const dn_group *g) {
  conv c = {.b = b, .g = g};
  int64_t strides[KN_MAX_RANK];
  const kn_slot *slot = kn_constant_of(g->main->in[1], strides);
  c.from = slot ? dn_buffer_of(b, g->main->in[0]) : DN_NO_BUFFER;
  dnnl_status_t s = c.from == DN_NO_BUFFER ? dnnl_unimplemented : describe(b, g, &c, strides);
  if (!s) s = choose(&c);
  if (!s) s = arrange(b, g, &c, slot);
  if (c.pd) b->lib->primitive_desc_destroy(c.pd);
  if (c.attr) b->lib->primitive_attr_destroy(c.attr);
  dn_md *own[] = {&c.image, &c.filter, &c.filter_from, &c.bias, &c.result};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) dn_md_free(b->lib, own[i]);
  return s;
}
