/* Constants in the layouts that primitives want: made once, shared by the plans of all sessions of a context,
 * gone with the last that uses them. They hold the tensor they were made from. */
#ifndef KN_ONEDNN_PACKED_H
#define KN_ONEDNN_PACKED_H
#include "backends/onednn/library.h"
#include "core/tensor.h"
#include <pthread.h>

typedef struct dn_packed {
  struct dn_packed *next;
  uint32_t refs; /* under the shelf's lock */
  kn_tensor *source;
  unsigned version; /* of its storage */
  dn_md from, to;
  void *data;
  size_t bytes;
  bool finite; /* no nan, no infinity */
} dn_packed;

typedef struct dn_shelf { /* all that there are */
  pthread_mutex_t lock;
  const dn_library *lib;
  kn_heap *heap;
  dn_packed *first;
  size_t bytes;
} dn_shelf;

bool dn_shelf_open(dn_shelf *s, const dn_library *lib, kn_heap *heap);
void dn_shelf_close(dn_shelf *s);
/* The elements of `source`, which lie as `from` says, laid out as `to` says. */
kn_status dn_packed_get(dn_shelf *s, kn_context *ctx, dnnl_engine_t engine, kn_tensor *source, dn_md_ref from,
                        dn_md_ref to, dn_packed **out);
void dn_packed_release(dn_shelf *s, dn_packed *p);
size_t dn_shelf_bytes(dn_shelf *s);

/* No nan and no infinity among n numbers? */
bool dn_finite(const float *x, int64_t n);
bool dn_tensor_finite(const kn_tensor *t); /* true of other dtypes than float32 */

#endif
