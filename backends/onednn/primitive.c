/* Making and running primitives. One run is a few steps: reorders of arguments into the layouts oneDNN chose,
 * the primitive itself, a reorder of the result. What passes between steps, and oneDNN's scratchpads, are
 * pieces of one workspace. */
#include "backends/onednn/primitive.h"
#include <stdio.h>
#include <string.h>

enum {
  MAX_STEPS = DN_MAX_ARGS + 1,
  PACKED = DN_MAX_ARGS, /* buffers: the arguments, then the packed form of each, then a scratchpad per step */
  SCRATCH = 2 * DN_MAX_ARGS,
  MAX_BUFFERS = SCRATCH + MAX_STEPS,
  MAX_STEP_ARGS = DN_MAX_ARGS + 1,
  ALIGN = 64
};

typedef struct buffer {
  dn_md_ref md;  /* borrowed from a primitive descriptor or from `own`; NULL: not there */
  size_t offset; /* in the workspace; not for arguments */
} buffer;

typedef struct step {
  dnnl_primitive_desc_t pd;
  dnnl_primitive_t primitive;
  int nargs;
  int arg[MAX_STEP_ARGS], buffer[MAX_STEP_ARGS];
} step;

struct dn_primitive {
  atomic_int refs;
  kn_heap *heap;         /* retained */
  const dn_library *lib; /* borrowed from the state, which outlives all */
  dnnl_engine_t engine;
  int threads;
  const char *name; /* of the op */
  int nsteps, main;
  step steps[MAX_STEPS];
  dn_md own[DN_MAX_ARGS]; /* layouts of the arguments */
  buffer buffers[MAX_BUFFERS];
  size_t workspace;
  const char *impl;
  _Atomic(dn_runner *) idle; /* a runner nobody uses, to be used again; while here it holds no reference */
};

static const int op_args[KN_OP_COUNT][DN_MAX_ARGS] = {
#define X(op, a, b, c, out) [KN_OP_##op] = {a, b, c, out},
    DN_OPS(X)
#undef X
};

static kn_status fail(kn_context *ctx, const char *op, const char *what, dnnl_status_t s) {
  return kn_fail(ctx, s == dnnl_out_of_memory ? KN_NOMEM : KN_INTERNAL, "%s: oneDNN could not %s: %s", op,
                 what, dn_status_text(s));
}

/* ---- descriptors ---- */

typedef struct maker {
  const dn_library *lib;
  dnnl_engine_t engine;
  const dn_problem *p;
  dnnl_primitive_attr_t attr;
  dnnl_dims_t stride, kernel, dilation, padding; /* the problem's, in arrays of the size oneDNN declares */
  dn_md_ref md[DN_MAX_ARGS];                     /* NULL: not there */
} maker;

static void widen(dnnl_dims_t to, const int64_t *from, int n) {
  for (int i = 0; i < DNNL_MAX_NDIMS; i++) to[i] = i < n ? from[i] : 0;
}

/* Its own reference code is slower than ours, also where another primitive calls it: "jit_…:conv+ref:any". */
static bool is_reference(const char *impl) {
  return !strncmp(impl, "ref", 3) || strstr(impl, ":ref") || strstr(impl, "+ref");
}

static const char *impl_of(const dn_library *l, dnnl_primitive_desc_t pd) {
  const char *impl = NULL;
  return l->primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &impl) || !impl ? "?" : impl;
}

/* oneDNN 3.7 has convolutions that bring images into another order, for which it then has its reference code
 * only, before one that takes them as they are. Before the hint goes: it is looked at again. */
static void skip_reference(const maker *m, dnnl_primitive_desc_t pd) {
  while (is_reference(impl_of(m->lib, pd)) && !dn_next_impl(m->lib, pd)) {
  }
}

static dnnl_status_t conv_forward(const maker *m, dnnl_prop_kind_t prop, dn_md_ref x, dn_md_ref w,
                                  dn_md_ref b, dn_md_ref y, dnnl_primitive_desc_t *pd) {
  dnnl_status_t s =
      dn_convolution_forward_create(m->lib, pd, m->engine, prop, dnnl_convolution_direct, x, w, b, y,
                                    m->stride, m->dilation, m->padding, m->padding, m->attr);
  if (!s) skip_reference(m, *pd);
  return s;
}

static dnnl_status_t pool_forward(const maker *m, dnnl_prop_kind_t prop, dnnl_alg_kind_t alg, dn_md_ref x,
                                  dn_md_ref y, dnnl_primitive_desc_t *pd) {
  return dn_pooling_forward_create(m->lib, pd, m->engine, prop, alg, x, y, m->stride, m->kernel, m->dilation,
                                   m->padding, m->padding, m->attr);
}

/* Gradients are described next to the forward primitive they belong to. */
static dnnl_status_t conv_backward(const maker *m, dnnl_primitive_desc_t *pd) {
  bool data = m->p->op == KN_OP_conv2d_grad_input;
  dn_md_ref y = m->md[0], x = data ? m->md[DN_OUT] : m->md[1], w = data ? m->md[1] : m->md[DN_OUT];
  dnnl_primitive_desc_t hint;
  dnnl_status_t s = conv_forward(m, dnnl_forward_training, x, w, NULL, y, &hint);
  if (s) return s;
  if (data)
    s = dn_convolution_backward_data_create(m->lib, pd, m->engine, dnnl_convolution_direct, x, w, y,
                                            m->stride, m->dilation, m->padding, m->padding, hint, m->attr);
  else
    s = dn_convolution_backward_weights_create(m->lib, pd, m->engine, dnnl_convolution_direct, x, w, NULL, y,
                                               m->stride, m->dilation, m->padding, m->padding, hint, m->attr);
  if (!s) skip_reference(m, *pd);
  m->lib->primitive_desc_destroy(hint);
  return s;
}

static dnnl_status_t pool_backward(const maker *m, dnnl_primitive_desc_t *pd) {
  dnnl_alg_kind_t alg = dnnl_pooling_avg_include_padding;
  dnnl_primitive_desc_t hint;
  dnnl_status_t s = pool_forward(m, dnnl_forward_training, alg, m->md[DN_OUT], m->md[0], &hint);
  if (s) return s;
  s = dn_pooling_backward_create(m->lib, pd, m->engine, alg, m->md[DN_OUT], m->md[0], m->stride, m->kernel,
                                 m->dilation, m->padding, m->padding, hint, m->attr);
  m->lib->primitive_desc_destroy(hint);
  return s;
}

static dnnl_status_t describe_main(const maker *m, dnnl_primitive_desc_t *pd) {
  const dnnl_prop_kind_t forward = dnnl_forward_inference;
  switch (m->p->op) {
  case KN_OP_matmul:
    return dn_matmul_create(m->lib, pd, m->engine, m->md[0], m->md[1], NULL, m->md[DN_OUT], m->attr);
  case KN_OP_conv2d: return conv_forward(m, forward, m->md[0], m->md[1], m->md[2], m->md[DN_OUT], pd);
  case KN_OP_conv2d_grad_input:
  case KN_OP_conv2d_grad_weight: return conv_backward(m, pd);
  case KN_OP_max_pool2d: return pool_forward(m, forward, dnnl_pooling_max, m->md[0], m->md[DN_OUT], pd);
  case KN_OP_avg_pool2d:
    return pool_forward(m, forward, dnnl_pooling_avg_include_padding, m->md[0], m->md[DN_OUT], pd);
  case KN_OP_avg_pool2d_grad: return pool_backward(m, pd);
  default: return dnnl_unimplemented;
  }
}

/* The main primitive's descriptor. Images and filters are left to oneDNN (`any`) when the problem says
 * blocked. */
static dnnl_status_t make_main(dn_primitive *q, maker *m, dnnl_primitive_desc_t *pd) {
  dn_md any[DN_MAX_ARGS] = {0};
  dnnl_status_t s = dnnl_success;
  for (int i = 0; i < DN_MAX_ARGS && !s; i++) {
    const dn_layout *l = &m->p->arg[i];
    if (!l->rank) continue;
    dnnl_dims_t dims, strides;
    widen(dims, l->dims, (int)l->rank);
    widen(strides, l->strides, (int)l->rank);
    s = dn_md_strides(m->lib, &q->own[i], (int)l->rank, dims, strides);
    if (s) break;
    q->buffers[i].md = m->md[i] = dn_ref(&q->own[i]);
    if (!m->p->blocked || l->rank < 4) continue;
    s = dn_md_any(m->lib, &any[i], (int)l->rank, dims);
    if (!s) m->md[i] = dn_ref(&any[i]);
  }
  if (!s) s = describe_main(m, pd);
  for (int i = 0; i < DN_MAX_ARGS; i++) dn_md_free(m->lib, &any[i]);
  return s;
}

/* ---- steps ---- */

/* Takes pd. */
static dnnl_status_t add_step(dn_primitive *q, dnnl_primitive_desc_t pd, int nargs, const int *arg,
                              const int *buf) {
  int at = q->nsteps++;
  step *t = &q->steps[at];
  t->pd = pd;
  for (int i = 0; i < nargs; i++) t->arg[i] = arg[i], t->buffer[i] = buf[i];
  t->nargs = nargs;
  dn_md_ref scratch = q->lib->primitive_desc_query_md(pd, dnnl_query_exec_arg_md, DNNL_ARG_SCRATCHPAD);
  if (scratch && q->lib->memory_desc_get_size(scratch) > 0) {
    q->buffers[SCRATCH + at].md = scratch;
    t->arg[t->nargs] = DNNL_ARG_SCRATCHPAD;
    t->buffer[t->nargs++] = SCRATCH + at;
  }
  return q->lib->primitive_create(&t->primitive, pd);
}

static dnnl_status_t add_reorder(dn_primitive *q, const maker *m, int from, int to) {
  dnnl_primitive_desc_t pd;
  dnnl_status_t s = q->lib->reorder_primitive_desc_create(&pd, q->buffers[from].md, m->engine,
                                                          q->buffers[to].md, m->engine, m->attr);
  if (s) return s;
  return add_step(q, pd, 2, (int[]){DNNL_ARG_FROM, DNNL_ARG_TO}, (int[]){from, to});
}

/* Reorders in, the main step, a reorder out; arguments that oneDNN takes as they are need none. */
static dnnl_status_t make_steps(dn_primitive *q, const maker *m, dnnl_primitive_desc_t pd) {
  const dn_library *lib = q->lib;
  const int *ids = op_args[m->p->op];
  int arg[DN_MAX_ARGS], buf[DN_MAX_ARGS], n = 0;
  dnnl_status_t s = dnnl_success;
  for (int i = 0; i < DN_MAX_ARGS; i++) {
    if (!m->p->arg[i].rank) continue;
    dn_md_ref md = lib->primitive_desc_query_md(pd, dnnl_query_exec_arg_md, ids[i]);
    arg[n] = ids[i];
    buf[n] = i;
    if (md && !lib->memory_desc_equal(md, q->buffers[i].md)) {
      q->buffers[PACKED + i].md = md;
      buf[n] = PACKED + i;
      if (i != DN_OUT && !s) s = add_reorder(q, m, i, PACKED + i);
    }
    n++;
  }
  if (s) {
    lib->primitive_desc_destroy(pd);
    return s;
  }
  q->main = q->nsteps;
  s = add_step(q, pd, n, arg, buf);
  if (!s && q->buffers[PACKED + DN_OUT].md) s = add_reorder(q, m, PACKED + DN_OUT, DN_OUT);
  return s;
}

/* Packed arguments live side by side; scratchpads of different steps share one place after them. */
static void lay_out(dn_primitive *q) {
  size_t at = 0, most = 0;
  for (int i = PACKED; i < MAX_BUFFERS; i++) {
    buffer *b = &q->buffers[i];
    if (!b->md) continue;
    size_t bytes = (q->lib->memory_desc_get_size(b->md) + ALIGN - 1) / ALIGN * ALIGN;
    b->offset = at;
    if (i < SCRATCH)
      at += bytes;
    else if (bytes > most)
      most = bytes;
  }
  q->workspace = at + most;
}

static kn_status make(kn_context *ctx, dn_primitive *q, maker *m, char *why, size_t size) {
  dnnl_primitive_desc_t pd = NULL;
  dnnl_status_t s = make_main(q, m, &pd);
  if (s == dnnl_out_of_memory) return fail(ctx, q->name, "describe it", s);
  if (s) {
    snprintf(why, size, "oneDNN has no implementation for these shapes");
    return KN_DECLINED;
  }
  q->impl = impl_of(q->lib, pd);
  if (is_reference(q->impl)) {
    snprintf(why, size, "oneDNN has only its reference code for these shapes");
    q->lib->primitive_desc_destroy(pd);
    return KN_DECLINED;
  }
  if ((s = make_steps(q, m, pd))) return fail(ctx, q->name, "prepare it", s);
  lay_out(q);
  return KN_OK;
}

kn_status dn_primitive_new(kn_context *ctx, const dn_library *l, dnnl_engine_t engine, const dn_problem *p,
                           dn_primitive **out, char *why, size_t size) {
  dn_primitive *q = kn_calloc(ctx->heap, 1, sizeof *q);
  if (!q) return kn_fail_nomem(ctx, sizeof *q);
  atomic_init(&q->refs, 1);
  q->heap = kn_heap_retain(ctx->heap);
  q->lib = l;
  q->engine = engine;
  q->threads = (int)p->threads;
  q->name = kn_op_name((kn_op)p->op);
  maker m = {.lib = l, .engine = engine, .p = p};
  widen(m.stride, p->stride, 2);
  widen(m.kernel, p->kernel, 2);
  widen(m.dilation, p->dilation, 2);
  widen(m.padding, p->padding, 2);
  dnnl_status_t s = l->primitive_attr_create(&m.attr);
  if (!s) s = l->primitive_attr_set_scratchpad_mode(m.attr, dnnl_scratchpad_mode_user);
  kn_status st;
  if (s)
    st = fail(ctx, q->name, "make attributes", s);
  else {
    int before = dn_threads_set(l, q->threads);
    st = make(ctx, q, &m, why, size);
    dn_threads_restore(l, before);
  }
  if (m.attr) l->primitive_attr_destroy(m.attr);
  if (st == KN_OK)
    *out = q;
  else
    dn_primitive_release(q);
  return st;
}

dn_primitive *dn_primitive_retain(dn_primitive *q) {
  atomic_fetch_add_explicit(&q->refs, 1, memory_order_relaxed);
  return q;
}

static void free_runner(dn_runner *r);

void dn_primitive_release(dn_primitive *q) {
  if (!q || atomic_fetch_sub_explicit(&q->refs, 1, memory_order_acq_rel) != 1) return;
  free_runner(atomic_load(&q->idle));
  for (int i = 0; i < q->nsteps; i++) {
    if (q->steps[i].primitive) q->lib->primitive_destroy(q->steps[i].primitive);
    q->lib->primitive_desc_destroy(q->steps[i].pd);
  }
  for (int i = 0; i < DN_MAX_ARGS; i++)
    if (q->buffers[i].md) dn_md_free(q->lib, &q->own[i]);
  kn_heap *heap = q->heap;
  kn_free(heap, q, sizeof *q);
  kn_heap_release(heap);
}

const char *dn_primitive_impl(const dn_primitive *q) { return q->impl; }
size_t dn_primitive_workspace(const dn_primitive *q) { return q->workspace; }

/* ---- running ---- */

struct dn_runner {
  dn_primitive *primitive; /* retained, unless idle */
  dnnl_stream_t stream;
  dnnl_memory_t memory[MAX_BUFFERS];
  void *data[MAX_BUFFERS]; /* that each memory points to now */
};

static void free_runner(dn_runner *r) {
  if (!r) return;
  const dn_library *lib = r->primitive->lib;
  for (int i = 0; i < MAX_BUFFERS; i++)
    if (r->memory[i]) lib->memory_destroy(r->memory[i]);
  if (r->stream) lib->stream_destroy(r->stream);
  kn_free(r->primitive->heap, r, sizeof *r);
}

kn_status dn_runner_take(kn_context *ctx, dn_primitive *q, dn_runner **out) {
  dn_runner *r = atomic_exchange(&q->idle, NULL);
  if (!r) {
    r = kn_calloc(q->heap, 1, sizeof *r);
    if (!r) return kn_fail_nomem(ctx, sizeof *r);
    r->primitive = q;
    dnnl_status_t s = q->lib->stream_create(&r->stream, q->engine, dnnl_stream_default_flags);
    for (int i = 0; i < MAX_BUFFERS && !s; i++)
      if (q->buffers[i].md)
        s = q->lib->memory_create(&r->memory[i], q->buffers[i].md, q->engine, DNNL_MEMORY_NONE);
    if (s) {
      free_runner(r);
      return fail(ctx, q->name, "prepare a run", s);
    }
  }
  dn_primitive_retain(q);
  *out = r;
  return KN_OK;
}

void dn_runner_give(dn_runner *r) {
  if (!r) return;
  dn_primitive *q = r->primitive;
  free_runner(atomic_exchange(&q->idle, r));
  dn_primitive_release(q);
}

dn_primitive *dn_runner_primitive(const dn_runner *r) { return r->primitive; }

static dnnl_status_t point(dn_runner *r, int i, void *data) {
  if (!r->memory[i] || r->data[i] == data) return dnnl_success;
  r->data[i] = data;
  return r->primitive->lib->memory_set_data_handle(r->memory[i], data);
}

kn_status dn_runner_run(kn_context *ctx, dn_runner *r, void *const data[DN_MAX_ARGS], void *workspace) {
  const dn_primitive *q = r->primitive;
  dnnl_status_t s = dnnl_success;
  int before = dn_threads_set(q->lib, q->threads);
  for (int i = 0; i < MAX_BUFFERS && !s; i++)
    s = point(r, i, i < PACKED ? data[i] : (char *)workspace + q->buffers[i].offset);
  for (int k = 0; k < q->nsteps && !s; k++) {
    const step *t = &q->steps[k];
    dnnl_exec_arg_t args[MAX_STEP_ARGS];
    for (int i = 0; i < t->nargs; i++)
      args[i] = (dnnl_exec_arg_t){.arg = t->arg[i], .memory = r->memory[t->buffer[i]]};
    s = q->lib->primitive_execute(t->primitive, r->stream, t->nargs, args);
  }
  dn_threads_restore(q->lib, before);
  return s ? fail(ctx, q->name, "run it", s) : KN_OK;
}
