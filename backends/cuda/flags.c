/* Counting and numbering of flagged elements: see flags.h. Each block counts its tile, one block adds the
 * counts up, then each block numbers its tile from what stands before it. */
#include "backends/cuda/flags.h"

enum { EACH_THREAD = 8, TILE = CU_THREADS * EACH_THREAD };

/* before(x, all): of the 256 threads' numbers x, the sum of those of the threads before; *all: of all. */
/* clang-format off */
const char cu_flags_source[] = CU_SOURCE(
    DEVICE i64 before(i64 *room, i64 x, i64 *all) {
      room[THREAD] = x;
      SYNC();
      for (u32 step = 1; step < 256; step *= 2) {
        i64 add = THREAD >= step ? room[THREAD - step] : 0;
        SYNC();
        room[THREAD] += add;
        SYNC();
      }
      i64 sum = room[THREAD] - x;
      *all = room[255];
      SYNC();
      return sum;
    }
    DEVICE i64 flags_from(const F *q, i64 first) {
      i64 n = 0;
      for (i64 i = first; i < first + 8 && i < q->f.count; i++) n += is_flagged(q, i);
      return n;
    }
    KERNEL(256, count_tiles)(F q) {
      SHARED(i64, room, 256);
      i64 all;
      for (i64 b = BLOCK; b < q.f.tiles; b += BLOCKS) {
        before(room, flags_from(&q, b * 2048 + THREAD * 8), &all);
        if (THREAD == 0) q.f.sums[b] = all;
      }
    }
    KERNEL(256, add_tiles)(F q) {
      SHARED(i64, room, 256);
      i64 each = (q.f.tiles + 255) / 256, first = THREAD * each, end = first + each, sum = 0, all;
      if (end > q.f.tiles) end = q.f.tiles;
      for (i64 i = first; i < end; i++) sum += q.f.sums[i];
      sum = before(room, sum, &all);
      for (i64 i = first; i < end; i++) {
        i64 own = q.f.sums[i];
        q.f.sums[i] = sum;
        sum += own;
      }
      if (THREAD == 0) q.f.sums[q.f.tiles] = all;
    }
    KERNEL(256, take_all)(F q) {
      SHARED(i64, room, 256);
      i64 all;
      for (i64 b = BLOCK; b < q.f.tiles; b += BLOCKS) {
        i64 first = b * 2048 + THREAD * 8, k = before(room, flags_from(&q, first), &all) + q.f.sums[b];
        for (i64 i = first; i < first + 8 && i < q.f.count; i++) {
          u32 flagged = is_flagged(&q, i);
          take(&q, i, k, flagged);
          k += flagged;
        }
      }
    });
/* clang-format on */

static kn_status each_tile(kn_context *ctx, cu_device *d, const cu_program *p, const char *kernel,
                           const flags *f, void *argument) {
  const unsigned blocks[2] = {cu_grid(d, f->tiles * CU_THREADS, CU_THREADS, 1), 1};
  return cu_start_blocks(ctx, d, p, kernel, blocks, CU_THREADS, argument);
}

kn_status cu_flags_count(kn_context *ctx, cu_device *d, const cu_program *p, flags *f, void *argument,
                         int64_t *found, CUdeviceptr *room, size_t *bytes) {
  const unsigned one[2] = {1, 1};
  f->tiles = (f->count + TILE - 1) / TILE;
  *bytes = (size_t)(f->tiles + 1) * sizeof(i64);
  KN_TRY(cu_workspace(ctx, d, *bytes, room));
  f->sums = (i64 *)(uintptr_t)*room;
  kn_status st = each_tile(ctx, d, p, "count_tiles", f, argument);
  if (st == KN_OK) st = cu_start_blocks(ctx, d, p, "add_tiles", one, CU_THREADS, argument);
  if (st == KN_OK) st = cu_read(ctx, d, found, *room + (size_t)f->tiles * sizeof(i64), sizeof *found);
  if (st != KN_OK) cu_free(d, *room, *bytes);
  return st;
}

kn_status cu_flags_take(kn_context *ctx, cu_device *d, const cu_program *p, const flags *f, void *argument) {
  return each_tile(ctx, d, p, "take_all", f, argument);
}
