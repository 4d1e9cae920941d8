/* Text of programs, and their launch: see program.h. */
#include "backends/cuda/program.h"
#include "backends/cuda/wait.h"
#include <stdio.h>

/* What an element is in a source; `get` and `put` are applied to the wide type. */
static const struct {
  const char *type, *wide, *get, *put, *put_f64, *put_i64;
} elements[KN_DTYPE_COUNT] = {
    [KN_BOOL] = {"u8", "u8", "((x) != 0)", "((x) != 0)", "((x) != 0)", "((x) != 0)"},
    [KN_U8] = {"u8", "i64", "((i64)(x))", "((u8)(x))", "((u8)whole_f64(x, 0, 255))", "((u8)(x))"},
    [KN_I8] = {"i8", "i64", "((i64)(x))", "((i8)(x))", "((i8)whole_f64(x, -128, 127))", "((i8)(x))"},
    [KN_I16] = {"i16", "i64", "((i64)(x))", "((i16)(x))", "((i16)whole_f64(x, -32768, 32767))", "((i16)(x))"},
    [KN_I32] = {"i32", "i64", "((i64)(x))", "((i32)(x))", "((i32)whole_f64(x, -2147483648.0, 2147483647.0))",
                "((i32)(x))"},
    [KN_I64] = {"i64", "i64", "(x)", "(x)", "(long_f64(x))", "(x)"},
    [KN_F16] = {"u16", "float", "(f32_of_f16(x))", "(f16_of_f32(x))", "(f16_of_f64(x))",
                "(f16_of_f64((double)(x)))"},
    [KN_BF16] = {"u16", "float", "(f32_of_bf16(x))", "(bf16_of_f32(x))", "(bf16_of_f64(x))",
                 "(bf16_of_f64((double)(x)))"},
    [KN_F32] = {"float", "float", "(x)", "(x)", "((float)(x))", "((float)(x))"},
    [KN_F64] = {"double", "double", "(x)", "(x)", "(x)", "((double)(x))"},
};

/* Loops, the one of threads being of CU_THREADS; sums and products that are rounded one by one. */
static const char loops[] =
    "#define EACH(i, n) for (i64 i = (i64)BLOCK * 256 + THREAD; i < (n); i += (i64)BLOCKS * 256)\n"
    "#define EACH_DIM(k, c, i, rank, dims) \\\n"
    "  pos c = 0, c##_rest = (pos)(i), c##_next; \\\n"
    "  for (i32 k = (rank) - 1; k >= 0 && (c##_next = c##_rest / (pos)(dims)[k], c = c##_rest - c##_next * "
    "(pos)(dims)[k], c##_rest = c##_next, 1); k--)\n"
    "#ifdef __CUDACC__\n"
    "#define ADD(a, b) __dadd_rn(a, b)\n#define MUL(a, b) __dmul_rn(a, b)\n"
    "#else\n"
    "#define ADD(a, b) ((a) + (b))\n#define MUL(a, b) ((a) * (b))\n"
    "#endif\n";

/* Floats into integers as `cast` has it. */
/* clang-format off */
static const char casts[] = CU_SOURCE(
    DEVICE double whole_f64(double x, double low, double high) {
      return x != x ? 0.0 : x < low ? low : x > high ? high : x;
    }
    DEVICE i64 long_f64(double x) {
      return x != x ? 0 : x >= 0x1p63 ? 0x7fffffffffffffff : x < -0x1p63 ? -0x7fffffffffffffff - 1 : (i64)x;
    });
/* clang-format on */

static void write_program(void *ud, cu_text *t) {
  const cu_program *p = ud;
  static const char *const sizes[9] = {[1] = "u8", [2] = "u16", [4] = "u32", [8] = "u64"};
  cu_put(t, "%stypedef %s pos;\n", loops, p->wide ? "u64" : "u32");
  if (p->elements == CU_OF_BYTES) cu_put(t, "typedef %s E;\n", sizes[p->bytes]);
  if (p->elements == CU_OF_DTYPE) {
    cu_put(t, "%s", casts);
    cu_put(t, "typedef %s E;\ntypedef %s T;\n", elements[p->dtype].type, elements[p->dtype].wide);
    cu_put(t, "#define GET(x) %s\n#define PUT(x) %s\n", elements[p->dtype].get, elements[p->dtype].put);
    cu_put(t, "#define PUT_F64(x) %s\n#define PUT_I64(x) %s\n", elements[p->dtype].put_f64,
           elements[p->dtype].put_i64);
  }
  if (p->index) cu_put(t, "typedef %s I;\n", elements[p->index].type);
  for (int i = 0; i < CU_PIECES && p->text[i]; i++) cu_put(t, "%s", p->text[i]);
}

/* Integers wrap; bool adds as or and multiplies as and. */
const char *cu_arithmetic(kn_dtype dtype) {
  if (dtype == KN_BOOL) return "#define PLUS(a, b) ((T)((a) | (b)))\n#define TIMES(a, b) ((T)((a) & (b)))\n";
  if (kn_dtype_is_float(dtype)) return "#define PLUS(a, b) ((a) + (b))\n#define TIMES(a, b) ((a) * (b))\n";
  return "#define PLUS(a, b) ((T)((u64)(a) + (u64)(b)))\n#define TIMES(a, b) ((T)((u64)(a) * (u64)(b)))\n";
}

kn_status cu_start_blocks(kn_context *ctx, cu_device *d, const cu_program *p, const char *kernel,
                          const unsigned blocks[2], unsigned threads, void *argument) {
  char key[96], of[16] = "";
  CUfunction f;
  if (p->elements == CU_OF_BYTES) snprintf(of, sizeof of, "%zu", p->bytes);
  snprintf(key, sizeof key, "%s/%s/%s/%s", p->name, p->elements == CU_OF_DTYPE ? kn_dtype_name(p->dtype) : of,
           p->index ? kn_dtype_name(p->index) : "", p->wide ? "64" : "32");
  KN_TRY(cu_kernel(ctx, d, key, kernel, write_program, (void *)(uintptr_t)p, &f));
  return cu_launch(ctx, d, f, (unsigned[3]){blocks[0], blocks[1], 1}, threads, 0, (void *[]){argument});
}

kn_status cu_start(kn_context *ctx, cu_device *d, const cu_program *p, const char *kernel, int64_t count,
                   void *argument) {
  if (count == 0) return KN_OK;
  return cu_start_blocks(ctx, d, p, kernel, (unsigned[2]){cu_grid(d, count, CU_THREADS, 1), 1}, CU_THREADS,
                         argument);
}

int cu_join_dims(int rank, i64 *dims, i64 *a, i64 *b) {
  int kept = 0;
  for (int k = 0; k < rank; k++) {
    if (dims[k] == 1) continue;
    int last = kept - 1;
    if (kept && a[last] == a[k] * dims[k] && b[last] == b[k] * dims[k]) {
      dims[last] *= dims[k], a[last] = a[k], b[last] = b[k];
      continue;
    }
    dims[kept] = dims[k], a[kept] = a[k], b[kept] = b[k];
    kept++;
  }
  return kept;
}

kn_status cu_read(kn_context *ctx, cu_device *d, void *to, CUdeviceptr from, size_t bytes) {
  CU_TRY(ctx, d, d->api.cuMemcpyDtoHAsync(to, from, bytes, cu_stream(ctx, d)), "cuMemcpyDtoHAsync");
  return cu_wait(ctx, d);
}
