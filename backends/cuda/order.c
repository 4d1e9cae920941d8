/* Orders by keys: see order.h. */
#include "backends/cuda/order.h"

/* A block has CU_TILE places, for one tile or for several short ones. Beyond the end of a row stand the
 * largest keys, from no place. Pairs are compared with their places, so that equal keys keep their order. */
/* clang-format off */
const char cu_order_source[] = CU_SOURCE(
    KERNEL(256, tiles)(Q q) {
      SHARED(K, key, 1024);
      SHARED(u32, from, 1024);
      u32 tile = (u32)q.o.tile, tiles = ((u32)q.o.length + tile - 1) / tile, group = 1024 / tile;
      u32 rows = (u32)q.o.rows;
      for (u32 b = BLOCK; b * group < rows * tiles; b += BLOCKS) {
        for (u32 s = THREAD; s < 1024; s += 256) {
          u32 v = b * group + s / tile, row = v / tiles, i = v % tiles * tile + s % tile;
          u32 is_there = row < rows && i < (u32)q.o.length;
          key[s] = is_there ? key_at(&q, row, i) : (K)~(K)0;
          from[s] = is_there ? (u32)i : 0xffffffffu;
        }
        SYNC();
        for (u32 k = 2; k <= tile; k *= 2)
          for (u32 j = k / 2; j > 0; j /= 2) {
            for (u32 p = THREAD; p < 512; p += 256) {
              u32 a = p / j * 2 * j + p % j, c = a + j;
              K x = key[a], y = key[c];
              u32 falls = x > y || (x == y && from[a] > from[c]), up = (a % tile & k) == 0;
              if (falls == up) {
                u32 t = from[a];
                key[a] = y;
                key[c] = x;
                from[a] = from[c];
                from[c] = t;
              }
            }
            SYNC();
          }
        for (u32 s = THREAD; s < 1024; s += 256) {
          u32 v = b * group + s / tile, row = v / tiles, i = v % tiles * tile + s % tile;
          if (row < rows && i < (u32)q.o.length) {
            ((K *)q.o.keys)[(i64)row * q.o.length + i] = key[s];
            q.o.places[(i64)row * q.o.length + i] = from[s];
          }
        }
        SYNC();
      }
    }
    KERNEL(256, merge)(Q q) {
      EACH(at, q.o.rows * q.o.length) {
        i64 row = at / q.o.length, i = at % q.o.length, base = i / (2 * q.o.run) * 2 * q.o.run;
        i64 mid = base + q.o.run, end = mid + q.o.run;
        const K *keys = (const K *)q.o.keys + row * q.o.length;
        K key = keys[i];
        if (mid > q.o.length) mid = q.o.length;
        if (end > q.o.length) end = q.o.length;
        u32 left = i < mid;
        i64 low = left ? mid : base, high = left ? end : mid, first = low;
        while (low < high) {
          i64 half = low + (high - low) / 2;
          if (left ? keys[half] < key : keys[half] <= key)
            low = half + 1;
          else
            high = half;
        }
        i64 to = row * q.o.length + base + (left ? i - base : i - mid) + (low - first);
        ((K *)q.o.keys_to)[to] = key;
        q.o.places_to[to] = q.o.places[at];
      }
    });
/* clang-format on */

static size_t rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }

kn_status cu_order(kn_context *ctx, cu_device *d, const cu_program *p, size_t key_bytes, ordering *o,
                   void *argument, CUdeviceptr *room, size_t *bytes) {
  if (o->length >= INT32_MAX || o->rows * ((o->length + CU_TILE) / CU_TILE) >= INT32_MAX) return KN_DECLINED;
  size_t count = (size_t)(o->rows * o->length), keys = rounded(count * key_bytes),
         places = rounded(count * 4);
  *bytes = 2 * (keys + places);
  KN_TRY(cu_workspace(ctx, d, *bytes, room));
  char *at = (char *)(uintptr_t)*room;
  o->keys = at, o->keys_to = at + keys;
  o->places = (u32 *)(void *)(at + 2 * keys), o->places_to = (u32 *)(void *)(at + 2 * keys + places);
  for (o->tile = 2; o->tile < CU_TILE && o->tile < o->length;) o->tile *= 2;
  int64_t tiles = (o->length + o->tile - 1) / o->tile * o->rows, group = CU_TILE / o->tile;
  const unsigned blocks[2] = {cu_grid(d, (tiles + group - 1) / group * CU_THREADS, CU_THREADS, 1), 1};
  kn_status st = cu_start_blocks(ctx, d, p, "tiles", blocks, CU_THREADS, argument);
  for (o->run = o->tile; st == KN_OK && o->run < o->length; o->run *= 2) {
    st = cu_start(ctx, d, p, "merge", (int64_t)count, argument);
    void *k = o->keys;
    u32 *f = o->places;
    o->keys = o->keys_to, o->keys_to = k;
    o->places = o->places_to, o->places_to = f;
  }
  if (st != KN_OK) cu_free(d, *room, *bytes);
  return st;
}
