/* Stable orders by keys: rows of keys, smallest first, and where each came from. Tiles are sorted in shared
 * memory, then merged two by two; a key's place in a merge is found by search, so nothing depends on timing.
 */
#ifndef KN_CUDA_ORDER_H
#define KN_CUDA_ORDER_H
#include "backends/cuda/program.h"

enum { CU_TILE = 1024 };

CU_ARGUMENT(ordering, {
  i64 rows;
  i64 length;
  i64 tile;
  i64 run;
  void *keys;
  void *keys_to;
  u32 *places;
  u32 *places_to;
});

/* After ordering_text, K (u32 or u64) and
 *   DEVICE K key_at(const Q *q, i64 row, i64 i)    where Q begins with `ordering o`
 * both of the program's: kernels `tiles` and `merge`, which take a Q. */
extern const char cu_order_source[];

/* Sorts; `argument` is the program's Q, whose ordering has rows and length. Then o.keys [rows, length] are in
 * order and o.places [rows, length] say where they came from, from 0, both in *room: to be given back by
 * cu_free(d, *room, *bytes) once what reads them is launched. KN_DECLINED for rows that are too long. */
kn_status cu_order(kn_context *ctx, cu_device *d, const cu_program *p, size_t key_bytes, ordering *o,
                   void *argument, CUdeviceptr *room, size_t *bytes);

#endif
