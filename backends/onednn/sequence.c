/* Running sequences, and what they are made of. */
#include "backends/onednn/sequence.h"
#include <string.h>

void dn_sequence_free(dn_sequence *q) {
  if (!q) return;
  const dn_library *l = dn_state_library(q->state);
  for (uint32_t i = 0; i < q->nsteps; i++) {
    if (q->steps[i].primitive && q->steps[i].like == i) l->primitive_destroy(q->steps[i].primitive);
    if (q->steps[i].pd) l->primitive_desc_destroy(q->steps[i].pd);
  }
  for (uint32_t i = 0; i < q->nbuffers; i++) {
    if (q->buffers[i].memory) l->memory_destroy(q->buffers[i].memory);
    dn_md_free(l, &q->buffers[i].md);
    dn_packed_release(dn_state_shelf(q->state), q->buffers[i].packed);
  }
  if (q->stream) l->stream_destroy(q->stream);
  kn_heap *heap = q->heap;
  kn_free_aligned(heap, q->work, q->bytes);
  kn_free(heap, q->buffers, q->buffer_room * sizeof *q->buffers);
  kn_free(heap, q->steps, q->step_room * sizeof *q->steps);
  kn_free(heap, q->looks, q->look_room * sizeof *q->looks);
  kn_free(heap, q, sizeof *q);
}

size_t dn_sequence_packed(const dn_sequence *q) {
  size_t sum = 0;
  for (uint32_t i = 0; i < q->nbuffers; i++) {
    bool again = !q->buffers[i].packed;
    for (uint32_t k = 0; k < i && !again; k++) again = q->buffers[k].packed == q->buffers[i].packed;
    if (!again) sum += q->buffers[i].packed->bytes;
  }
  return sum;
}

bool dn_sequence_fits(const dn_sequence *q, kn_tensor *const *vals) {
  for (uint32_t i = 0; i < q->nbuffers; i++) {
    const dn_buffer *b = &q->buffers[i];
    if (b->packed) {
      const kn_tensor *t = b->value ? vals[b->value->id] : NULL;
      if (t && (kn_tensor_data(t) != kn_tensor_data(b->packed->source) ||
                atomic_load_explicit(&t->storage->version, memory_order_relaxed) != b->packed->version))
        return false;
    }
    if (!b->given) continue;
    const kn_tensor *t = vals[b->value->id];
    if (memcmp(b->strides, t->strides, t->type.rank * sizeof *t->strides)) return false;
  }
  return true;
}

bool dn_sequence_ordinary(const dn_sequence *q, kn_tensor *const *vals) {
  if (q->odd_constant) return false;
  for (uint32_t i = 0; i < q->nlooks; i++) {
    const dn_look *x = &q->looks[i];
    const kn_tensor *t = vals[x->value->id];
    bool done = x->numbers == kn_tensor_data(t) &&
                x->version == atomic_load_explicit(&t->storage->version, memory_order_relaxed);
    if (!done && !dn_tensor_finite(t)) return false;
  }
  return true;
}

dnnl_status_t dn_sequence_bind(dn_sequence *q, kn_tensor *const *vals) {
  const dn_library *l = dn_state_library(q->state);
  dnnl_status_t s = dnnl_success;
  for (uint32_t i = 0; i < q->nbuffers && !s; i++) {
    dn_buffer *b = &q->buffers[i];
    if (b->at != DN_AT_VALUE) continue;
    void *data = (char *)kn_tensor_data(vals[b->value->id]) + b->skip;
    if (b->data == data) continue;
    b->data = data;
    s = l->memory_set_data_handle(b->memory, data);
  }
  return s;
}

dnnl_status_t dn_sequence_step(dn_sequence *q, const dn_step *t) {
  const dn_library *l = dn_state_library(q->state);
  int before = dn_threads_set(l, t->threads);
  dnnl_status_t s = l->primitive_execute(t->primitive, q->stream, (int)t->nargs, t->args);
  dn_threads_restore(l, before);
  return s;
}
