/* The steps of a product: rows, columns and batches as problem.c sees them; constant matrices are packed. */
#include "backends/onednn/build.h"
#include "backends/onednn/choice.h"
#include "core/parallel.h"
#include <string.h>

typedef struct product {
  dn_problem p;
  dn_md a, b, b_any, c, bias;
  dnnl_primitive_attr_t attr;
  dnnl_primitive_desc_t pd;
  const kn_slot *slot; /* of the second operand where that is a constant matrix to be packed */
  bool measured;
} product;

static dnnl_status_t layout(dn_builder *b, dn_md *md, const dn_layout *l) {
  dnnl_dims_t d, s;
  for (int i = 0; i < DNNL_MAX_NDIMS; i++)
    d[i] = i < l->rank ? l->dims[i] : 0, s[i] = i < l->rank ? l->strides[i] : 0;
  return dn_md_strides(b->lib, md, (int)l->rank, d, s);
}

static dnnl_status_t describe(dn_builder *b, const dn_group *g, product *m) {
  const kn_node *n = g->main;
  const kn_type *types = b->part->types;
  int64_t strides[2][KN_MAX_RANK];
  dn_view views[2];
  unsigned copy;
  char why[96];
  for (int i = 0; i < 2; i++) {
    dn_strides_of(b, n->in[i], strides[i]);
    views[i] = (dn_view){&types[n->in[i]->id], strides[i]};
  }
  int64_t own[KN_MAX_RANK], seen[KN_MAX_RANK];
  memcpy(seen, strides[1], sizeof seen);
  m->slot = kn_constant_of(n->in[1], own);
  if (m->slot) views[1].strides = memcpy(strides[1], own, sizeof own);
  if (!dn_describe(KN_OP_matmul, n->attrs, views, 2, &types[n->out[0]->id],
                   kn_parallel_library_threads(b->ctx), &m->p, &copy, why, sizeof why) ||
      copy)
    return dnnl_unimplemented;
  const dn_layout *w = &m->p.arg[1], *c = &m->p.arg[DN_OUT];
  if (w->rank != 2) m->slot = NULL;
  dn_choice way = dn_choose_product(b->state, b->ctx,
                                    &(dn_product){n, views, &types[n->out[0]->id], &m->p, m->slot != NULL});
  m->measured = way.measured && !way.elsewhere;
  b->threads = m->measured ? way.threads : (int)m->p.threads;
  dn_threads_set(b->lib, b->threads);
  bool as_given = m->measured && !way.packed;
  if (as_given && m->slot && !memcmp(seen, own, (size_t)types[n->in[1]->id].rank * sizeof *own))
    m->slot = NULL;
  dnnl_status_t s = layout(b, &m->a, &m->p.arg[0]);
  if (!s) s = layout(b, &m->b, w);
  if (!s) s = layout(b, &m->c, c);
  dnnl_dims_t dims = {0}, ones = {0};
  for (int i = 0; i < w->rank; i++) dims[i] = w->dims[i];
  if (!s) s = dn_md_any(b->lib, &m->b_any, (int)w->rank, dims);
  for (int i = 0; i < c->rank; i++)
    ones[i] = i == c->rank - 1 ? c->dims[i] : 1, dims[i] = i == c->rank - 1 ? 1 : c->dims[c->rank - 1];
  if (!s && g->bias) s = dn_md_strides(b->lib, &m->bias, (int)c->rank, ones, dims);
  return s ? s : dn_posts_attr(b, g, (int)c->rank, (int)c->rank - 1, &m->attr);
}

/* An operand as it is given, or as the part has made it. */
static uint32_t operand(dn_builder *b, const kn_value *v, dn_md_ref md) {
  uint32_t at = dn_buffer_of(b, v);
  if (at != DN_NO_BUFFER && !b->q->buffers[at].given) at = dn_buffer_plain(b, v);
  return dn_buffer_as(b, at, md);
}

static dnnl_status_t arrange(dn_builder *b, const dn_group *g, product *m) {
  int arg[DN_STEP_ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
  uint32_t buffer[DN_STEP_ARGS], n = 3;
  const dn_layout *c = &m->p.arg[DN_OUT];
  int last = (int)c->rank - 1;
  const kn_value *w = g->main->in[1], *sum = dn_summed(g);
  buffer[0] = operand(b, g->main->in[0], dn_ref(&m->a));
  if (m->slot) {
    dn_md_ref to = b->lib->primitive_desc_query_md(m->pd, dnnl_query_exec_arg_md, DNNL_ARG_WEIGHTS);
    buffer[1] = dn_buffer_packed(b, w, m->slot, dn_ref(&m->b), to);
  } else
    buffer[1] = operand(b, w, dn_ref(&m->b));
  if (g->bias) {
    arg[n] = DNNL_ARG_BIAS;
    buffer[n++] = dn_buffer_vector(b, g->bias, last + 1, last, c->dims[last]);
  }
  if (sum && dn_buffer_as(b, dn_buffer_plain(b, sum), dn_ref(&m->c)) == DN_NO_BUFFER)
    return dnnl_unimplemented;
  buffer[2] = dn_buffer_result(b, g, dn_ref(&m->c), true, sum);
  dnnl_status_t s = dn_posts_args(b, g, last + 1, last, &n, arg, buffer);
  if (s) return s;
  b->measured = m->measured;
  s = dn_add_step(b, m->pd, n, arg, buffer);
  b->measured = false;
  m->pd = NULL;
  return s ? s : dn_finish_result(b, g, buffer[2]);
}

dnnl_status_t dn_build_matmul(dn_builder *b, const dn_group *g) {
  product m = {0};
  dnnl_status_t s = describe(b, g, &m);
  if (!s)
    s = dn_matmul_create(b->lib, &m.pd, b->engine, dn_ref(&m.a), dn_ref(m.slot ? &m.b_any : &m.b),
                         g->bias ? dn_ref(&m.bias) : NULL, dn_ref(&m.c), m.attr);
  if (s) m.pd = NULL;
  if (!s && dn_is_poor(b, m.pd, false)) s = dnnl_unimplemented;
  if (!s) s = arrange(b, g, &m);
  if (m.pd) b->lib->primitive_desc_destroy(m.pd);
  if (m.attr) b->lib->primitive_attr_destroy(m.attr);
  dn_md *own[] = {&m.a, &m.b, &m.b_any, &m.c, &m.bias};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) dn_md_free(b->lib, own[i]);
  return s;
}
