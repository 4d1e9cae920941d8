/* The steps of pooling, of means over images, and of functions and sums that stand alone. They take images in
 * the layout that these have. */
#include "backends/onednn/build.h"
#include "core/infer.h"
#include <string.h>

static dnnl_status_t user_scratch(dn_builder *b, dnnl_primitive_attr_t *attr) {
  dnnl_status_t s = b->lib->primitive_attr_create(attr);
  return s ? s : b->lib->primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
}

typedef struct window {
  dnnl_dims_t stride, kernel, dilation, padding, dims;
  dnnl_alg_kind_t alg;
} window;

static void describe(dn_builder *b, const dn_group *g, window *w) {
  const kn_node *n = g->main;
  const kn_type images = dn_type_of(b, n->in[0]), result = dn_type_of(b, g->out), *x = &images, *y = &result;
  memset(w, 0, sizeof *w);
  w->alg = n->op == KN_OP_max_pool2d ? dnnl_pooling_max : dnnl_pooling_avg_include_padding;
  for (int i = 0; i < 4; i++) w->dims[i] = i < 2 || g->kind == DN_GROUP_POOL ? (i < 2 ? x : y)->dims[i] : 1;
  const kn_attrs_pool2d *m = n->attrs;
  const kn_attrs_avg_pool2d *v = n->attrs;
  bool max = n->op == KN_OP_max_pool2d;
  for (int i = 0; i < 2; i++) {
    w->stride[i] = w->kernel[i] = x->dims[2 + i];
    if (g->kind == DN_GROUP_MEAN) continue;
    w->kernel[i] = kn_ints_at(max ? &m->kernel_size : &v->kernel_size, i);
    w->stride[i] = kn_ints_at(max ? &m->stride : &v->stride, i);
    if (!w->stride[i]) w->stride[i] = w->kernel[i];
    w->padding[i] = kn_ints_at(max ? &m->padding : &v->padding, i);
  }
  dn_use_threads(b, (double)kn_type_numel(y) * (double)(w->kernel[0] * w->kernel[1]) * 32);
}

dnnl_status_t dn_build_pool(dn_builder *b, const dn_group *g) {
  window w;
  uint32_t from = dn_buffer_of(b, g->main->in[0]);
  if (from == DN_NO_BUFFER || b->part->types[g->main->in[0]->id].rank != 4) return dnnl_unimplemented;
  describe(b, g, &w);
  dn_md any = {0};
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t pd = NULL;
  dnnl_status_t s = dn_md_any(b->lib, &any, 4, w.dims);
  if (!s) s = user_scratch(b, &attr);
  if (!s)
    s = dn_pooling_forward_create(b->lib, &pd, b->engine, dnnl_forward_inference, w.alg, dn_md_of(b, from),
                                  dn_ref(&any), w.stride, w.kernel, w.dilation, w.padding, w.padding, attr);
  dn_md_free(b->lib, &any);
  if (attr) b->lib->primitive_attr_destroy(attr);
  if (s) return s;
  if (dn_is_poor(b, pd, false)) {
    b->lib->primitive_desc_destroy(pd);
    return dnnl_unimplemented;
  }
  dn_md_ref to = b->lib->primitive_desc_query_md(pd, dnnl_query_exec_arg_md, DNNL_ARG_DST);
  size_t dense = (size_t)(w.dims[0] * w.dims[1]) * sizeof(float);
  bool plain = (w.dims[2] == 1 && w.dims[3] == 1 && b->lib->memory_desc_get_size(to) == dense) ||
               (b->q->buffers[from].plain && g->kind == DN_GROUP_POOL);
  if (g->kind == DN_GROUP_MEAN && !plain) {
    b->lib->primitive_desc_destroy(pd);
    return dnnl_unimplemented;
  }
  uint32_t result = dn_buffer_result(b, g, to, plain, NULL);
  s = dn_add_step(b, pd, 2, (int[]){DNNL_ARG_SRC, DNNL_ARG_DST}, (uint32_t[]){from, result});
  return s ? s : dn_finish_result(b, g, result);
}

/* ---- functions and sums ---- */

static dnnl_status_t build_function(dn_builder *b, const dn_group *g, dnnl_primitive_attr_t attr) {
  uint32_t from = dn_buffer_of(b, g->in);
  if (from == DN_NO_BUFFER) return dnnl_unimplemented;
  const dn_post *f = &g->posts[0];
  dnnl_primitive_desc_t pd;
  dnnl_status_t s = dn_eltwise_create(b->lib, &pd, b->engine, dnnl_forward_inference, (dnnl_alg_kind_t)f->alg,
                                      dn_md_of(b, from), dn_md_of(b, from), f->alpha, f->beta, attr);
  if (s) return s;
  uint32_t result = dn_buffer_result(b, g, dn_md_of(b, from), b->q->buffers[from].plain, NULL);
  s = dn_add_step(b, pd, 2, (int[]){DNNL_ARG_SRC, DNNL_ARG_DST}, (uint32_t[]){from, result});
  return s ? s : dn_finish_result(b, g, result);
}

static dnnl_status_t build_sum(dn_builder *b, const dn_group *g, dnnl_primitive_attr_t attr) {
  const kn_value *x = g->main->in[0], *y = g->main->in[1];
  uint32_t from = dn_buffer_of(b, x), other = dn_buffer_of(b, y);
  if (from == DN_NO_BUFFER || other == DN_NO_BUFFER) return dnnl_unimplemented;
  if (b->q->buffers[from].plain && !b->q->buffers[other].plain) {
    const kn_value *t = x;
    x = y, y = t;
    from = other;
  }
  other = dn_buffer_reordered(b, y, dn_md_of(b, from));
  if (other == DN_NO_BUFFER) return dnnl_unimplemented;
  dn_md_ref md = dn_md_of(b, from);
  dnnl_primitive_desc_t pd;
  dnnl_status_t s = dn_binary_create(b->lib, &pd, b->engine, dnnl_binary_add, md, md, md, attr);
  if (s) return s;
  uint32_t result = dn_buffer_result(b, g, md, b->q->buffers[from].plain, NULL);
  s = dn_add_step(b, pd, 3, (int[]){DNNL_ARG_SRC_0, DNNL_ARG_SRC_1, DNNL_ARG_DST},
                  (uint32_t[]){from, other, result});
  return s ? s : dn_finish_result(b, g, result);
}

dnnl_status_t dn_build_simple(dn_builder *b, const dn_group *g) {
  dnnl_primitive_attr_t attr = NULL;
  kn_type result = dn_type_of(b, g->out);
  dn_use_threads(b, (double)kn_type_numel(&result) * 32);
  dnnl_status_t s = g->kind == DN_GROUP_SUM ? dn_posts_attr(b, g, 4, 1, &attr) : user_scratch(b, &attr);
  if (!s) s = g->kind == DN_GROUP_SUM ? build_sum(b, g, attr) : build_function(b, g, attr);
  if (attr) b->lib->primitive_attr_destroy(attr);
  return s;
}
