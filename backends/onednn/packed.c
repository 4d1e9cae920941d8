/* Packing constants, and the list of those that are packed. */
#include "backends/onednn/packed.h"
#include <string.h>

bool dn_shelf_open(dn_shelf *s, const dn_library *lib, kn_heap *heap) {
  *s = (dn_shelf){.lib = lib, .heap = heap};
  return pthread_mutex_init(&s->lock, NULL) == 0;
}

void dn_shelf_close(dn_shelf *s) { pthread_mutex_destroy(&s->lock); }

/* LANES numbers at a time: a count that compilers see makes vectors of it. */
bool dn_finite(const float *x, int64_t n) {
  enum { LANES = 16, RUN = 256 * LANES };
  const uint32_t all = 0x7f800000u;
  for (int64_t i = 0; i < n; i += RUN) {
    int64_t end = n - i < RUN ? n : i + RUN, k = i;
    uint32_t odd[LANES] = {0}, any = 0;
    for (; k + LANES <= end; k += LANES)
      for (int j = 0; j < LANES; j++) {
        uint32_t bits;
        memcpy(&bits, &x[k + j], sizeof bits);
        odd[j] |= (bits & all) == all ? ~0u : 0;
      }
    for (; k < end; k++) {
      uint32_t bits;
      memcpy(&bits, &x[k], sizeof bits);
      any |= (bits & all) == all;
    }
    for (int j = 0; j < LANES; j++) any |= odd[j];
    if (any) return false;
  }
  return true;
}

bool dn_tensor_finite(const kn_tensor *t) {
  int64_t reach = 1; /* what lies between is looked at, too */
  for (int d = 0; d < t->type.rank; d++) reach += (t->type.dims[d] - 1) * t->strides[d];
  return t->type.dtype != KN_F32 || kn_type_numel(&t->type) < 1 || dn_finite(kn_tensor_data(t), reach);
}

static void discard(dn_shelf *s, dn_packed *p) {
  dn_md_free(s->lib, &p->from);
  dn_md_free(s->lib, &p->to);
  kn_free_aligned(s->heap, p->data, p->bytes);
  kn_tensor_release(p->source);
  kn_free(s->heap, p, sizeof *p);
}

static dnnl_status_t convert(const dn_library *l, dnnl_engine_t engine, dn_packed *p) {
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_t reorder = NULL;
  dnnl_stream_t stream = NULL;
  dnnl_memory_t from = NULL, to = NULL;
  dnnl_status_t s =
      l->reorder_primitive_desc_create(&pd, dn_ref(&p->from), engine, dn_ref(&p->to), engine, NULL);
  if (!s) s = l->primitive_create(&reorder, pd);
  if (!s) s = l->stream_create(&stream, engine, dnnl_stream_default_flags);
  if (!s) s = l->memory_create(&from, dn_ref(&p->from), engine, kn_tensor_data(p->source));
  if (!s) s = l->memory_create(&to, dn_ref(&p->to), engine, p->data);
  dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  if (!s) s = l->primitive_execute(reorder, stream, 2, args);
  if (from) l->memory_destroy(from);
  if (to) l->memory_destroy(to);
  if (stream) l->stream_destroy(stream);
  if (reorder) l->primitive_destroy(reorder);
  if (pd) l->primitive_desc_destroy(pd);
  return s;
}

static kn_status pack(dn_shelf *s, kn_context *ctx, dnnl_engine_t engine, kn_tensor *source, dn_md_ref from,
                      dn_md_ref to, dn_packed **out) {
  dn_packed *p = kn_calloc(s->heap, 1, sizeof *p);
  if (!p) return kn_fail_nomem(ctx, sizeof *p);
  p->refs = 1;
  p->source = kn_tensor_retain(source);
  p->version = atomic_load(&source->storage->version);
  size_t bytes = s->lib->memory_desc_get_size(to);
  p->data = kn_alloc_aligned(s->heap, bytes);
  dnnl_status_t st = p->data ? dnnl_success : dnnl_out_of_memory;
  if (p->data) p->bytes = bytes;
  if (!st) st = dn_md_copy(s->lib, &p->from, from);
  if (!st) st = dn_md_copy(s->lib, &p->to, to);
  if (!st) st = convert(s->lib, engine, p);
  if (st) {
    discard(s, p);
    return st == dnnl_out_of_memory
               ? kn_fail_nomem(ctx, bytes)
               : kn_fail(ctx, KN_INTERNAL, "oneDNN could not lay out a constant: %s", dn_status_text(st));
  }
  p->finite = dn_finite(p->data, (int64_t)(bytes / sizeof(float)));
  *out = p;
  return KN_OK;
}

kn_status dn_packed_get(dn_shelf *s, kn_context *ctx, dnnl_engine_t engine, kn_tensor *source, dn_md_ref from,
                        dn_md_ref to, dn_packed **out) {
  unsigned version = atomic_load(&source->storage->version);
  kn_status st = KN_OK;
  pthread_mutex_lock(&s->lock);
  dn_packed *p = s->first;
  for (; p; p = p->next)
    if (p->source == source && p->version == version && s->lib->memory_desc_equal(dn_ref(&p->from), from) &&
        s->lib->memory_desc_equal(dn_ref(&p->to), to))
      break;
  if (p)
    p->refs++;
  else if ((st = pack(s, ctx, engine, source, from, to, &p)) == KN_OK) {
    p->next = s->first;
    s->first = p;
    s->bytes += p->bytes;
  }
  pthread_mutex_unlock(&s->lock);
  if (st == KN_OK) *out = p;
  return st;
}

void dn_packed_release(dn_shelf *s, dn_packed *p) {
  if (!p) return;
  pthread_mutex_lock(&s->lock);
  bool last = --p->refs == 0;
  if (last) {
    dn_packed **at = &s->first;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    s->bytes -= p->bytes;
  }
  pthread_mutex_unlock(&s->lock);
  if (last) discard(s, p);
}

size_t dn_shelf_bytes(dn_shelf *s) {
  pthread_mutex_lock(&s->lock);
  size_t bytes = s->bytes;
  pthread_mutex_unlock(&s->lock);
  return bytes;
}
