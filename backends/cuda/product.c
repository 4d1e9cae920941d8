/* A tiled product of any dtype and any strides: 32 by 32 results a block, of which each thread has four.
 * Halves are summed in float32, small integers in 32 bits, whose lower bits are the result; sums go in order
 * of k. */
#include "backends/cuda/product.h"
#include "backends/cuda/kernel.h"

enum { TILE = 32, THREADS = 256 };

static const cu_summand summands[KN_DTYPE_COUNT] = {
    [KN_F32] = {"float", "float", "", ""},
    [KN_F64] = {"double", "double", "", ""},
    [KN_F16] = {"u16", "float", "f32_of_f16", "f16_of_f32"},
    [KN_BF16] = {"u16", "float", "f32_of_bf16", "bf16_of_f32"},
    [KN_I64] = {"u64", "u64", "", ""},
    [KN_I32] = {"u32", "u32", "", ""},
    [KN_I16] = {"u16", "u32", "", "(u16)"},
    [KN_I8] = {"u8", "u32", "", "(u8)"},
    [KN_U8] = {"u8", "u32", "", "(u8)"},
};

const cu_summand *cu_summand_of(kn_dtype d) { return &summands[d]; }

void cu_tiles_write(void *ud, cu_text *t) {
  const cu_summand *e = &summands[*(const kn_dtype *)ud];
  cu_put(t,
         "KERNEL(%d, product)(const %s *a, const %s *b, %s *c, i64 m, i64 n, i64 k, i64 batches, i64 a_row,\n"
         "    i64 a_column, i64 a_step, i64 b_row, i64 b_column, i64 b_step, i64 c_step) {\n"
         "  SHARED(%s, as, %d);\n"
         "  SHARED(%s, bs, %d);\n",
         THREADS, e->stored, e->stored, e->stored, e->sum, TILE * (TILE + 1), e->sum, TILE * (TILE + 1));
  cu_put(t,
         "  i64 across = (n + %d) / %d, down = (m + %d) / %d, tiles = across * down * batches;\n"
         "  int x = (int)(THREAD %% %d), y = (int)(THREAD / %d);\n"
         "  int flat_a = a_column == 1, flat_b = b_column == 1;\n"
         "  int ar = flat_a ? y : x, ak = flat_a ? x : y, bk = flat_b ? y : x, bc = flat_b ? x : y;\n"
         "  i64 next_a = 8 * (flat_a ? a_row : a_column), next_b = 8 * (flat_b ? b_row : b_column);\n"
         "  for (i64 tile = BLOCK; tile < tiles; tile += BLOCKS) {\n"
         "    i64 batch = tile / (across * down), row = tile / across %% down * %d, column = tile %% across "
         "* %d;\n"
         "    int rows = m - row < %d ? (int)(m - row) : %d, columns = n - column < %d ? (int)(n - column) : "
         "%d;\n"
         "    const %s *pa = a + batch * a_step + (row + ar) * a_row + ak * a_column;\n"
         "    const %s *pb = b + batch * b_step + bk * b_row + (column + bc) * b_column;\n"
         "    %s s[4];\n"
         "    for (int i = 0; i < 4; i++) s[i] = 0;\n",
         TILE - 1, TILE, TILE - 1, TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE, e->stored, e->stored,
         e->sum);
  /* Both tiles are read along the dim that lies side by side in memory. */
  cu_put(t,
         "    for (i64 k0 = 0; k0 < k; k0 += %d) {\n"
         "      int last = k - k0 < %d ? (int)(k - k0) : %d;\n"
         "      for (int i = 0; i < 4; i++) {\n"
         "        int r = flat_a ? ar + 8 * i : ar, q = flat_a ? ak : ak + 8 * i;\n"
         "        as[r * %d + q] = 0;\n"
         "        if (r < rows && q < last) as[r * %d + q] = %s(pa[i * next_a]);\n"
         "        r = flat_b ? bk + 8 * i : bk, q = flat_b ? bc : bc + 8 * i;\n"
         "        bs[r * %d + q] = 0;\n"
         "        if (r < last && q < columns) bs[r * %d + q] = %s(pb[i * next_b]);\n"
         "      }\n"
         "      SYNC();\n"
         "      for (int q = 0; q < last; q++) {\n"
         "        %s w = bs[q * %d + x];\n"
         "        for (int i = 0; i < 4; i++) s[i] += as[(y + 8 * i) * %d + q] * w;\n"
         "      }\n"
         "      SYNC();\n"
         "      pa += %d * a_column;\n"
         "      pb += %d * b_row;\n"
         "    }\n",
         TILE, TILE, TILE, TILE + 1, TILE + 1, e->load, TILE + 1, TILE + 1, e->load, e->sum, TILE + 1,
         TILE + 1, TILE, TILE);
  cu_put(t,
         "    %s *to = c + batch * c_step + row * n + column;\n"
         "    for (int i = 0; i < 4; i++)\n"
         "      if (y + 8 * i < rows && x < columns) to[(y + 8 * i) * n + x] = %s(s[i]);\n"
         "  }\n"
         "}\n",
         e->stored, e->store);
}

kn_status cu_tiles_run(kn_context *ctx, cu_device *d, const cu_tiles *t) {
  char key[64];
  kn_dtype dtype = t->dtype;
  if (!summands[dtype].stored)
    return kn_fail(ctx, KN_UNSUPPORTED, "no products of %s on cuda", kn_dtype_name(dtype));
  snprintf(key, sizeof key, "product %s", kn_dtype_name(dtype));
  CUfunction f;
  KN_TRY(cu_kernel(ctx, d, key, "product", cu_tiles_write, &dtype, &f));
  int64_t tiles = (t->m + TILE - 1) / TILE * ((t->n + TILE - 1) / TILE) * t->batches;
  cu_tiles v = *t;
  void *args[] = {&v.a,     &v.b,        &v.c,      &v.m,     &v.n,        &v.k,      &v.batches,
                  &v.a_row, &v.a_column, &v.a_step, &v.b_row, &v.b_column, &v.b_step, &v.c_step};
  const unsigned grid[3] = {cu_grid(d, tiles * THREADS, THREADS, 1), 1, 1};
  return cu_launch(ctx, d, f, grid, THREADS, 0, args);
}
