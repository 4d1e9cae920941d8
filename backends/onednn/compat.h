/* One face for oneDNN 2.6 and 3.x: the rest of this folder is written with the names, arguments and meanings
 * of the 3.x C API, without their `dnnl_` prefix, as members of the table in library.h. What 2.6 spells
 * otherwise is translated here and nowhere else: descriptors of memory are plain structs there, and a
 * primitive descriptor is made from an operation descriptor. */
#ifndef KN_ONEDNN_COMPAT_H
#define KN_ONEDNN_COMPAT_H
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_version.h>

#if DNNL_VERSION_MAJOR != 2 && DNNL_VERSION_MAJOR != 3
#error "this backend knows oneDNN 2.6 and 3.x"
#endif
#if DNNL_VERSION_MAJOR == 2 && DNNL_VERSION_MINOR < 6
#error "oneDNN 2.6 or later is needed"
#endif

/* Functions that both have, with the same meaning. */
#define DN_COMMON_FUNCTIONS(F)                                                                               \
  F(version)                                                                                                 \
  F(engine_create)                                                                                           \
  F(engine_destroy)                                                                                          \
  F(stream_create)                                                                                           \
  F(stream_destroy)                                                                                          \
  F(memory_create)                                                                                           \
  F(memory_destroy)                                                                                          \
  F(memory_set_data_handle)                                                                                  \
  F(memory_desc_get_size)                                                                                    \
  F(memory_desc_equal)                                                                                       \
  F(primitive_attr_create)                                                                                   \
  F(primitive_attr_destroy)                                                                                  \
  F(primitive_attr_set_scratchpad_mode)                                                                      \
  F(primitive_attr_set_post_ops)                                                                             \
  F(post_ops_create)                                                                                         \
  F(post_ops_destroy)                                                                                        \
  F(post_ops_append_eltwise)                                                                                 \
  F(post_ops_append_sum)                                                                                     \
  F(post_ops_append_binary)                                                                                  \
  F(primitive_desc_query)                                                                                    \
  F(primitive_desc_query_md)                                                                                 \
  F(primitive_desc_destroy)                                                                                  \
  F(primitive_create)                                                                                        \
  F(primitive_execute)                                                                                       \
  F(primitive_destroy)                                                                                       \
  F(reorder_primitive_desc_create)

#if DNNL_VERSION_MAJOR == 3

#define DN_OWN_FUNCTIONS(F)                                                                                  \
  F(memory_desc_create_with_strides)                                                                         \
  F(memory_desc_create_with_tag)                                                                             \
  F(memory_desc_create_submemory)                                                                            \
  F(memory_desc_destroy)                                                                                     \
  F(memory_desc_clone)                                                                                       \
  F(primitive_desc_next_impl)                                                                                \
  F(matmul_primitive_desc_create)                                                                            \
  F(inner_product_forward_primitive_desc_create)                                                             \
  F(eltwise_forward_primitive_desc_create)                                                                   \
  F(binary_primitive_desc_create)                                                                            \
  F(convolution_forward_primitive_desc_create)                                                               \
  F(convolution_backward_data_primitive_desc_create)                                                         \
  F(convolution_backward_weights_primitive_desc_create)                                                      \
  F(pooling_forward_primitive_desc_create)                                                                   \
  F(pooling_backward_primitive_desc_create)

#else

#define DN_OWN_FUNCTIONS(F)                                                                                  \
  F(memory_desc_init_by_strides)                                                                             \
  F(memory_desc_init_by_tag)                                                                                 \
  F(memory_desc_init_submemory)                                                                              \
  F(primitive_desc_create)                                                                                   \
  F(matmul_desc_init)                                                                                        \
  F(inner_product_forward_desc_init)                                                                         \
  F(eltwise_forward_desc_init)                                                                               \
  F(binary_desc_init)                                                                                        \
  F(dilated_convolution_forward_desc_init)                                                                   \
  F(dilated_convolution_backward_data_desc_init)                                                             \
  F(dilated_convolution_backward_weights_desc_init)                                                          \
  F(pooling_v2_forward_desc_init)                                                                            \
  F(pooling_v2_backward_desc_init)

#endif

/* The library's functions, found when it is opened. */
typedef struct dn_library {
  void *handle;
#define F(name) __typeof__(&dnnl_##name) name;
  DN_COMMON_FUNCTIONS(F)
  DN_OWN_FUNCTIONS(F)
#undef F
  /* Of the OpenMP runtime the library uses; NULL when it uses none. */
  int (*omp_get_max_threads)(void);
  void (*omp_set_num_threads)(int);
} dn_library;

/* A memory descriptor that is ours: made by dn_md_strides, dn_md_tag, dn_md_any, dn_md_part or dn_md_copy,
 * freed by dn_md_free (a zero one too). */
typedef struct dn_md {
  dnnl_memory_desc_t desc;
} dn_md;

#if DNNL_VERSION_MAJOR == 3

typedef const_dnnl_memory_desc_t dn_md_ref; /* borrowed; NULL: none */
static inline dn_md_ref dn_ref(const dn_md *m) { return m->desc; }

static inline dnnl_status_t dn_md_strides(const dn_library *l, dn_md *m, int rank, const dnnl_dims_t dims,
                                          const dnnl_dims_t strides) {
  return l->memory_desc_create_with_strides(&m->desc, rank, dims, dnnl_f32, strides);
}
static inline dnnl_status_t dn_md_tag(const dn_library *l, dn_md *m, int rank, const dnnl_dims_t dims,
                                      dnnl_format_tag_t tag) {
  return l->memory_desc_create_with_tag(&m->desc, rank, dims, dnnl_f32, tag);
}
static inline dnnl_status_t dn_md_part(const dn_library *l, dn_md *m, dn_md_ref of, const dnnl_dims_t dims,
                                       const dnnl_dims_t from) {
  return l->memory_desc_create_submemory(&m->desc, of, dims, from);
}
static inline dnnl_status_t dn_md_copy(const dn_library *l, dn_md *m, dn_md_ref from) {
  return l->memory_desc_clone(&m->desc, from);
}
static inline void dn_md_free(const dn_library *l, dn_md *m) {
  if (m->desc) l->memory_desc_destroy(m->desc);
  m->desc = NULL;
}

#define dn_post_function(l, po, alg, alpha, beta) (l)->post_ops_append_eltwise(po, alg, alpha, beta)
#define dn_post_sum(l, po) (l)->post_ops_append_sum(po, 1, 0, dnnl_data_type_undef)
/* The implementation behind the one chosen; 2.6 has the better ones first, and is not asked. */
#define dn_next_impl(l, pd) (l)->primitive_desc_next_impl(pd)
#define dn_inner_product_create(l, ...) (l)->inner_product_forward_primitive_desc_create(__VA_ARGS__)
#define dn_eltwise_create(l, ...) (l)->eltwise_forward_primitive_desc_create(__VA_ARGS__)
#define dn_binary_create(l, ...) (l)->binary_primitive_desc_create(__VA_ARGS__)

#define dn_matmul_create(l, ...) (l)->matmul_primitive_desc_create(__VA_ARGS__)
#define dn_convolution_forward_create(l, ...) (l)->convolution_forward_primitive_desc_create(__VA_ARGS__)
#define dn_convolution_backward_data_create(l, ...)                                                          \
  (l)->convolution_backward_data_primitive_desc_create(__VA_ARGS__)
#define dn_convolution_backward_weights_create(l, ...)                                                       \
  (l)->convolution_backward_weights_primitive_desc_create(__VA_ARGS__)
#define dn_pooling_forward_create(l, ...) (l)->pooling_forward_primitive_desc_create(__VA_ARGS__)
#define dn_pooling_backward_create(l, ...) (l)->pooling_backward_primitive_desc_create(__VA_ARGS__)

#else

typedef const dnnl_memory_desc_t *dn_md_ref;
static inline dn_md_ref dn_ref(const dn_md *m) { return &m->desc; }

static inline dnnl_status_t dn_md_strides(const dn_library *l, dn_md *m, int rank, const dnnl_dims_t dims,
                                          const dnnl_dims_t strides) {
  return l->memory_desc_init_by_strides(&m->desc, rank, dims, dnnl_f32, strides);
}
static inline dnnl_status_t dn_md_tag(const dn_library *l, dn_md *m, int rank, const dnnl_dims_t dims,
                                      dnnl_format_tag_t tag) {
  return l->memory_desc_init_by_tag(&m->desc, rank, dims, dnnl_f32, tag);
}
static inline dnnl_status_t dn_md_part(const dn_library *l, dn_md *m, dn_md_ref of, const dnnl_dims_t dims,
                                       const dnnl_dims_t from) {
  return l->memory_desc_init_submemory(&m->desc, of, dims, from);
}
static inline dnnl_status_t dn_md_copy(const dn_library *l, dn_md *m, dn_md_ref from) {
  (void)l;
  m->desc = *from;
  return dnnl_success;
}
static inline void dn_md_free(const dn_library *l, dn_md *m) { (void)l, (void)m; }

/* 2.6 knows hardswish with 3.x's usual factors only, and without naming them. */
#define dn_post_function(l, po, alg, alpha, beta)                                                            \
  (l)->post_ops_append_eltwise(po, 1, alg, (alg) == dnnl_eltwise_hardswish ? 0 : (alpha),                    \
                               (alg) == dnnl_eltwise_hardswish ? 0 : (beta))
#define dn_post_sum(l, po) (l)->post_ops_append_sum(po, 1)
#define dn_next_impl(l, pd) dnnl_unimplemented

/* Each takes what the 3.x function of that name takes. */
static inline dnnl_status_t dn_inner_product_create(const dn_library *l, dnnl_primitive_desc_t *pd,
                                                    dnnl_engine_t engine, dnnl_prop_kind_t prop,
                                                    dn_md_ref src, dn_md_ref weights, dn_md_ref bias,
                                                    dn_md_ref dst, const_dnnl_primitive_attr_t attr) {
  dnnl_inner_product_desc_t d;
  dnnl_status_t s = l->inner_product_forward_desc_init(&d, prop, src, weights, bias, dst);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, NULL);
}

static inline dnnl_status_t dn_eltwise_create(const dn_library *l, dnnl_primitive_desc_t *pd,
                                              dnnl_engine_t engine, dnnl_prop_kind_t prop,
                                              dnnl_alg_kind_t alg, dn_md_ref src, dn_md_ref dst, float alpha,
                                              float beta, const_dnnl_primitive_attr_t attr) {
  dnnl_eltwise_desc_t d;
  (void)dst;
  if (alg == dnnl_eltwise_hardswish) alpha = beta = 0;
  dnnl_status_t s = l->eltwise_forward_desc_init(&d, prop, alg, src, alpha, beta);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, NULL);
}

static inline dnnl_status_t dn_binary_create(const dn_library *l, dnnl_primitive_desc_t *pd,
                                             dnnl_engine_t engine, dnnl_alg_kind_t alg, dn_md_ref a,
                                             dn_md_ref b, dn_md_ref dst, const_dnnl_primitive_attr_t attr) {
  dnnl_binary_desc_t d;
  dnnl_status_t s = l->binary_desc_init(&d, alg, a, b, dst);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, NULL);
}

static inline dnnl_status_t dn_matmul_create(const dn_library *l, dnnl_primitive_desc_t *pd,
                                             dnnl_engine_t engine, dn_md_ref src, dn_md_ref weights,
                                             dn_md_ref bias, dn_md_ref dst,
                                             const_dnnl_primitive_attr_t attr) {
  dnnl_matmul_desc_t d;
  dnnl_status_t s = l->matmul_desc_init(&d, src, weights, bias, dst);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, NULL);
}

static inline dnnl_status_t
dn_convolution_forward_create(const dn_library *l, dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                              dnnl_prop_kind_t prop, dnnl_alg_kind_t alg, dn_md_ref src, dn_md_ref weights,
                              dn_md_ref bias, dn_md_ref dst, const dnnl_dims_t strides,
                              const dnnl_dims_t dilates, const dnnl_dims_t padding_l,
                              const dnnl_dims_t padding_r, const_dnnl_primitive_attr_t attr) {
  dnnl_convolution_desc_t d;
  dnnl_status_t s = l->dilated_convolution_forward_desc_init(&d, prop, alg, src, weights, bias, dst, strides,
                                                             dilates, padding_l, padding_r);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, NULL);
}

static inline dnnl_status_t
dn_convolution_backward_data_create(const dn_library *l, dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                    dnnl_alg_kind_t alg, dn_md_ref diff_src, dn_md_ref weights,
                                    dn_md_ref diff_dst, const dnnl_dims_t strides, const dnnl_dims_t dilates,
                                    const dnnl_dims_t padding_l, const dnnl_dims_t padding_r,
                                    const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr) {
  dnnl_convolution_desc_t d;
  dnnl_status_t s = l->dilated_convolution_backward_data_desc_init(&d, alg, diff_src, weights, diff_dst,
                                                                   strides, dilates, padding_l, padding_r);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, hint);
}

static inline dnnl_status_t dn_convolution_backward_weights_create(
    const dn_library *l, dnnl_primitive_desc_t *pd, dnnl_engine_t engine, dnnl_alg_kind_t alg, dn_md_ref src,
    dn_md_ref diff_weights, dn_md_ref diff_bias, dn_md_ref diff_dst, const dnnl_dims_t strides,
    const dnnl_dims_t dilates, const dnnl_dims_t padding_l, const dnnl_dims_t padding_r,
    const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr) {
  dnnl_convolution_desc_t d;
  dnnl_status_t s = l->dilated_convolution_backward_weights_desc_init(
      &d, alg, src, diff_weights, diff_bias, diff_dst, strides, dilates, padding_l, padding_r);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, hint);
}

static inline dnnl_status_t dn_pooling_forward_create(const dn_library *l, dnnl_primitive_desc_t *pd,
                                                      dnnl_engine_t engine, dnnl_prop_kind_t prop,
                                                      dnnl_alg_kind_t alg, dn_md_ref src, dn_md_ref dst,
                                                      const dnnl_dims_t strides, const dnnl_dims_t kernel,
                                                      const dnnl_dims_t dilation, const dnnl_dims_t padding_l,
                                                      const dnnl_dims_t padding_r,
                                                      const_dnnl_primitive_attr_t attr) {
  dnnl_pooling_v2_desc_t d;
  dnnl_status_t s = l->pooling_v2_forward_desc_init(&d, prop, alg, src, dst, strides, kernel, dilation,
                                                    padding_l, padding_r);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, NULL);
}

static inline dnnl_status_t
dn_pooling_backward_create(const dn_library *l, dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                           dnnl_alg_kind_t alg, dn_md_ref diff_src, dn_md_ref diff_dst,
                           const dnnl_dims_t strides, const dnnl_dims_t kernel, const dnnl_dims_t dilation,
                           const dnnl_dims_t padding_l, const dnnl_dims_t padding_r,
                           const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr) {
  dnnl_pooling_v2_desc_t d;
  dnnl_status_t s = l->pooling_v2_backward_desc_init(&d, alg, diff_src, diff_dst, strides, kernel, dilation,
                                                     padding_l, padding_r);
  return s ? s : l->primitive_desc_create(pd, &d, attr, engine, hint);
}

#endif

static inline dnnl_status_t dn_md_any(const dn_library *l, dn_md *m, int rank, const dnnl_dims_t dims) {
  return dn_md_tag(l, m, rank, dims, dnnl_format_tag_any);
}
#endif
