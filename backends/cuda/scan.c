/* cumsum, cumprod. Where elements of a row lie one after the other a block goes along it, 1024 elements at a
 * time; few long rows are cut in parts: what each comes to is made first, then what stands before each. Where
 * rows lie side by side a thread has one. Floats run in double. */
#include "backends/cuda/scan.h"
#include "backends/cuda/copy.h"
#include "backends/cuda/entries.h"
#include <stdio.h>

typedef struct scan_arguments {
  CUdeviceptr x, y;
  int64_t rows, n, inner; /* inner: from an element to the next of its row */
  int64_t parts, chunk;   /* of a row; elements of a part */
  CUdeviceptr totals;     /* [row][part] */
} scan_arguments;

enum { TILE = 1024 };

static bool floating(const cu_scan *s) { return kn_dtype_is_float(s->from); }

void cu_scan_write(void *ud, cu_text *t) {
  const cu_scan *s = ud;
  const char *kept = floating(s) ? "double" : "i64", *name = floating(s) ? "f64" : "i64",
             *sign = s->product ? "*" : "+";
  cu_put(t,
         "%stypedef struct scan_arguments {\n"
         "  const %s *x;\n  %s *y;\n  i64 rows, n, inner, parts, chunk;\n  %s *totals;\n"
         "} scan_arguments;\n"
         "typedef %s T;\n",
         cu_cast_text, cu_elements[s->from].type, cu_elements[s->to].type, kept, kept);
  if (floating(s))
    cu_put(t, "DEVICE T join(T a, T b) { return a %s b; }\n", sign);
  else
    cu_put(t, "DEVICE T join(T a, T b) { return (T)((u64)a %s (u64)b); }\n", sign);
  cu_put(t, "DEVICE T get(const %s *p) { return (T)(", cu_elements[s->from].type);
  cu_put_get(t, s->from, "*p");
  cu_put(t, "); }\nDEVICE void put(%s *p, T x) { *p = ", cu_elements[s->to].type);
  cu_put_cast(t, floating(s) ? KN_F64 : KN_I64, s->to, "x");
  cu_put(t, "; }\n");
  /* A thread has four elements; what stands before them comes from its warp, then from the warps before. */
  cu_put(t,
         "KERNEL(256, scan_along)(scan_arguments a) {\n"
         "  SHARED(T, warps, 8);\n"
         "  const int lane = (int)(THREAD %% 32), warp = (int)(THREAD / 32);\n"
         "  for (i64 b = BLOCK; b < a.rows * a.parts; b += BLOCKS) {\n"
         "    const i64 r = b / a.parts, begin = b %% a.parts * a.chunk;\n"
         "    const i64 end = begin + a.chunk < a.n ? begin + a.chunk : a.n;\n"
         "    T before = a.parts > 1 ? a.totals[b] : %d;\n"
         "    for (i64 first = begin; first < end; first += 1024) {\n"
         "      const i64 at = r * a.n + first + (i64)THREAD * 4, left = end - first - (i64)THREAD * 4;\n"
         "      T v[4], all = %d;\n"
         "#pragma unroll\n"
         "      for (int k = 0; k < 4; k++) {\n"
         "        if (k < left) all = join(all, get(a.x + at + k));\n"
         "        v[k] = all;\n"
         "      }\n"
         "      T up = all;\n"
         "      for (int o = 1; o < 32; o *= 2) {\n"
         "        const T b = warp_up_%s(up, o);\n"
         "        if (lane >= o) up = join(b, up);\n"
         "      }\n"
         "      SYNC();\n"
         "      if (lane == 31) warps[warp] = up;\n"
         "      SYNC();\n"
         "      T mine = warp_up_%s(up, 1), total = before;\n"
         "      if (lane == 0) mine = %d;\n"
         "      for (int k = 0; k < 8; k++) {\n"
         "        if (k == warp) mine = join(total, mine);\n"
         "        total = join(total, warps[k]);\n"
         "      }\n"
         "#pragma unroll\n"
         "      for (int k = 0; k < 4; k++)\n"
         "        if (k < left) put(a.y + at + k, join(mine, v[k]));\n"
         "      before = total;\n"
         "    }\n"
         "  }\n"
         "}\n",
         s->product, s->product, name, name, s->product);
  /* What parts come to; then, by one warp a row, what stands before each. */
  cu_put(t,
         "KERNEL(256, scan_totals)(scan_arguments a) {\n"
         "  SHARED(T, warps, 8);\n"
         "  for (i64 b = BLOCK; b < a.rows * a.parts; b += BLOCKS) {\n"
         "    const i64 r = b / a.parts, begin = b %% a.parts * a.chunk;\n"
         "    const i64 end = begin + a.chunk < a.n ? begin + a.chunk : a.n;\n"
         "    T all = %d;\n"
         "#pragma unroll 4\n"
         "    for (i64 k = begin + THREAD; k < end; k += 256) all = join(all, get(a.x + r * a.n + k));\n"
         "    for (int o = 16; o; o /= 2) all = join(all, warp_xor_%s(all, o));\n"
         "    SYNC();\n"
         "    if (THREAD %% 32 == 0) warps[THREAD / 32] = all;\n"
         "    SYNC();\n"
         "    for (int k = 1; k < 8; k++) all = join(k == 1 ? warps[0] : all, warps[k]);\n"
         "    if (THREAD == 0) a.totals[b] = all;\n"
         "  }\n"
         "}\n"
         "KERNEL(32, scan_before)(scan_arguments a) {\n"
         "  const int lane = (int)THREAD;\n"
         "  for (i64 r = BLOCK; r < a.rows; r += BLOCKS) {\n"
         "    T before = %d;\n"
         "    for (i64 first = 0; first < a.parts; first += 32) {\n"
         "      T *at = a.totals + r * a.parts + first + lane, up = first + lane < a.parts ? *at : %d;\n"
         "      for (int o = 1; o < 32; o *= 2) {\n"
         "        const T b = warp_up_%s(up, o);\n"
         "        if (lane >= o) up = join(b, up);\n"
         "      }\n"
         "      const T mine = warp_up_%s(up, 1);\n"
         "      if (first + lane < a.parts) *at = lane ? join(before, mine) : before;\n"
         "      before = join(before, warp_from_%s(up, 31));\n"
         "    }\n"
         "  }\n"
         "}\n",
         s->product, name, s->product, s->product, name, name, name);
  cu_put(t,
         "KERNEL(256, scan_across)(scan_arguments a) {\n"
         "  for (i64 r = (i64)BLOCK * 256 + THREAD; r < a.rows; r += (i64)BLOCKS * 256) {\n"
         "    const i64 first = r / a.inner * a.n * a.inner + r %% a.inner;\n"
         "    T all = %d;\n"
         "#pragma unroll 4\n"
         "    for (i64 k = 0; k < a.n; k++) {\n"
         "      all = join(all, get(a.x + first + k * a.inner));\n"
         "      put(a.y + first + k * a.inner, all);\n"
         "    }\n"
         "  }\n"
         "}\n",
         s->product);
}

static kn_status start(kn_context *ctx, cu_device *d, cu_scan *s, const char *kernel, scan_arguments *a,
                       int64_t threads, unsigned block) {
  char key[64];
  CUfunction f;
  snprintf(key, sizeof key, "scan %s %s %d", cu_elements[s->from].name, cu_elements[s->to].name, s->product);
  KN_TRY(cu_kernel(ctx, d, key, kernel, cu_scan_write, s, &f));
  const unsigned grid[3] = {cu_grid(d, threads, block, 1), 1, 1};
  void *arguments[] = {a};
  return cu_launch(ctx, d, f, grid, block, 0, arguments);
}

/* So many parts that the device is full, each of some tiles. */
static void cut(const cu_device *d, scan_arguments *a) {
  int64_t full = 2 * (int64_t)d->processors * d->threads_per_processor / 256, parts = full / a->rows;
  if (parts > a->n / (4 * TILE)) parts = a->n / (4 * TILE);
  a->parts = 1, a->chunk = a->n;
  if (parts < 2) return;
  a->chunk = ((a->n + parts - 1) / parts + TILE - 1) / TILE * TILE;
  a->parts = (a->n + a->chunk - 1) / a->chunk;
}

static kn_status along(kn_context *ctx, cu_device *d, int64_t dim, kn_tensor *x, bool product,
                       kn_tensor *out) {
  cu_scan s = {.from = kn_tensor_dtype(x), .to = kn_tensor_dtype(out), .product = product};
  scan_arguments a = {.x = cu_address(x), .y = cu_address(out), .n = 1, .inner = 1};
  int64_t count = kn_tensor_numel(out), axis = dim < 0 ? dim + (x->type.rank ? x->type.rank : 1) : dim;
  if (count == 0) return KN_OK;
  if (x->type.rank) a.n = x->type.dims[axis];
  for (int64_t k = axis + 1; k < x->type.rank; k++) a.inner *= x->type.dims[k];
  a.rows = count / a.n;
  if (a.inner > 1) return start(ctx, d, &s, "scan_across", &a, a.rows, 256);
  cut(d, &a);
  int64_t threads = a.rows * a.parts * 256;
  if (a.parts == 1) return start(ctx, d, &s, "scan_along", &a, threads, 256);
  size_t bytes = (size_t)(a.rows * a.parts) * 8;
  KN_TRY(cu_workspace(ctx, d, bytes, &a.totals));
  kn_status st = start(ctx, d, &s, "scan_totals", &a, threads, 256);
  if (st == KN_OK) st = start(ctx, d, &s, "scan_before", &a, a.rows * 32, 32);
  if (st == KN_OK) st = start(ctx, d, &s, "scan_along", &a, threads, 256);
  cu_free(d, a.totals, bytes);
  return st;
}

static kn_status scanned(kn_context *ctx, const kn_attrs_axis *attrs, kn_tensor *x, bool product,
                         kn_tensor *out) {
  cu_device *d;
  kn_tensor *lined;
  KN_TRY(cu_device_of(ctx, &d));
  KN_TRY(cu_contiguous(ctx, d, x, &lined));
  kn_status st = along(ctx, d, attrs->dim, lined, product, out);
  kn_tensor_release(lined);
  return st;
}

CU_ENTRY(cumsum) {
  (void)n;
  return scanned(ctx, attrs, in[0], false, out[0]);
}

CU_ENTRY(cumprod) {
  (void)n;
  return scanned(ctx, attrs, in[0], true, out[0]);
}
