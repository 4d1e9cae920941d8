/* The host route: what no kernel of the device computes is computed by the CPU's kernels on copies in the
 * host's memory, and what they give is copied back. Slow, and right for every op; the last of the device's
 * providers. Not while the device captures a graph, which cannot hold what the host does. */
#include "backends/cuda/host.h"
#include "backends/cuda/device.h"

static bool on_device(const kn_tensor *t) { return t->type.device != KN_CPU; }

/* Elements from the first to the last, what lies between them included. */
static size_t span_bytes(const kn_tensor *t) {
  int64_t last = 0;
  if (kn_tensor_numel(t) == 0) return 0;
  for (int d = 0; d < t->type.rank; d++) last += (t->type.dims[d] - 1) * t->strides[d];
  return (size_t)(last + 1) * kn_dtype_size(kn_tensor_dtype(t));
}

/* A tensor of the host's that lies as t does; its elements are copied if `fill`. */
static kn_status mirror(kn_context *ctx, const kn_memory *m, const kn_tensor *t, bool fill, kn_tensor **out) {
  size_t size = kn_dtype_size(kn_tensor_dtype(t)), bytes = span_bytes(t);
  kn_type all = {.dtype = t->type.dtype, .rank = 1, .dims = {(int64_t)(bytes / size)}}, type = t->type;
  kn_tensor *flat, *made;
  type.device = KN_CPU;
  KN_TRY(kn_tensor_new(ctx, &all, &flat));
  kn_status st =
      fill ? m->copy(m->self, ctx, kn_tensor_data(flat), kn_tensor_data(t), bytes, KN_TO_HOST) : KN_OK;
  if (st == KN_OK) st = kn_tensor_symbolic(ctx, &type, NULL, &made);
  if (st == KN_OK) {
    kn_tensor_set_view(made, flat, 0, t->strides);
    *out = made;
  }
  kn_tensor_release(flat);
  return st;
}

/* Inputs: copies of those on the device, others as they are. */
static kn_status fetch(kn_context *ctx, const kn_memory *m, kn_tensor *t, kn_tensor **out) {
  if (on_device(t)) return mirror(ctx, m, t, true, out);
  *out = kn_tensor_retain(t);
  return KN_OK;
}

/* Where the CPU's kernel writes result t: bare if t is; what lies between its elements stays what it is. */
static kn_status stand_in(kn_context *ctx, const kn_memory *m, const kn_tensor *t, kn_tensor **out) {
  kn_type type = t->type;
  type.device = KN_CPU;
  if (!t->storage) return kn_tensor_symbolic(ctx, &type, NULL, out);
  return mirror(ctx, m, t, !kn_tensor_contiguous(t), out);
}

static kn_status give_back(kn_context *ctx, const kn_memory *m, const kn_tensor *from, kn_tensor *t) {
  if (!t->storage) {
    kn_type type = from->type;
    type.device = t->type.device;
    KN_TRY(kn_tensor_allocate(ctx, t, &type));
  }
  return m->copy(m->self, ctx, kn_tensor_data(t), kn_tensor_data(from), span_bytes(from), KN_TO_DEVICE);
}

static void release_all(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

static kn_status on_host(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                         kn_tensor *const *out) {
  const kn_op_info *row = &kn_ops[op];
  const kn_memory *m;
  cu_device *d;
  kn_tensor *as[KN_MAX_INPUTS], *to[KN_MAX_OUTPUTS];
  int ins = 0, outs = 0;
  KN_TRY(cu_device_of(ctx, &d));
  if (cu_captures(ctx, d)) return KN_DECLINED;
  KN_TRY(kn_device_memory(ctx, KN_CUDA, &m));
  kn_status st = KN_OK;
  for (; st == KN_OK && ins < n; ins += st == KN_OK) st = fetch(ctx, m, in[ins], &as[ins]);
  for (; st == KN_OK && outs < row->outs; outs += st == KN_OK) {
    if (row->flags & KN_FLAG_WRITES)
      to[outs] = kn_tensor_retain(as[0]);
    else
      st = stand_in(ctx, m, out[outs], &to[outs]);
  }
  if (st == KN_OK) st = kn_device_run(ctx, op, attrs, as, n, to, NULL);
  for (int i = 0; st == KN_OK && i < outs; i++) st = give_back(ctx, m, to[i], out[i]);
  release_all(to, outs);
  release_all(as, ins);
  return st;
}

/* A kernel is not told its op, so there is one function each. */
#define OP(name, ...)                                                                                        \
  static kn_status name##_on_host(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,           \
                                  kn_tensor *const *out) {                                                   \
    return on_host(ctx, KN_OP_##name, attrs, in, n, out);                                                    \
  }
#define COMPOSITE(name, ...)
#include "core/ops.def"
#undef OP

const kn_provider cu_host_provider = {
    .name = "host",
    .kernel =
        {
#define OP(name, ...) [KN_OP_##name] = name##_on_host,
#include "core/ops.def"
#undef OP
#undef COMPOSITE
        },
};
