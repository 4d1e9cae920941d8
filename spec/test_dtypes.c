/* The dtypes: halves bit by bit against a slow reference, promotion and casts against what PyTorch answered
 * (spec/golden), what is out of range, small integers that wrap around, halves that are computed wide,
 * numbers beside tensors, text and files. That every op takes them is test_ops.c's matter. */
#include "core/grad/tape.h"
#include "core/half.h"
#include "core/infer.h"
#include "graph/file.h"
#include "graph/text.h"
#include "spec/tensors.h"
#include <unistd.h>

/* A check in long loops: ck_assert takes note of each. */
#define HOLDS(condition, ...)                                                                                \
  do {                                                                                                       \
    if (!(condition)) ck_abort_msg(__VA_ARGS__);                                                             \
  } while (0)

/* ---- halves ---- */

typedef struct half_form {
  const char *name;
  int digits, bias; /* of the significand, the leading one counted; of the exponent */
  float (*widen)(uint16_t);
  uint16_t (*narrow)(float), (*narrow_double)(double);
} half_form;

static const half_form forms[] = {
    {"float16", 11, 15, kn_f16_to_f32, kn_f32_to_f16, kn_f64_to_f16},
    {"bfloat16", 8, 127, kn_bf16_to_f32, kn_f32_to_bf16, kn_f64_to_bf16},
};

/* Its bits as what they stand for, read as the standard says. */
static double slow_value(const half_form *f, uint16_t h) {
  int bits = f->digits - 1, exponent = (h & 0x7fff) >> bits, most = 0x7fff >> bits;
  int mantissa = h & ((1 << bits) - 1);
  double sign = h & 0x8000 ? -1 : 1;
  if (exponent == most) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * ldexp(mantissa, 1 - f->bias - bits);
  return sign * ldexp(mantissa + (1 << bits), exponent - f->bias - bits);
}

/* All patterns: widening gives the value, and narrowing that the pattern; nan keeps its sign and is quiet. */
START_TEST(every_half) {
  for (int k = 0; k < 2; k++)
    for (uint32_t i = 0; i < 65536; i++) {
      const half_form *f = &forms[k];
      uint16_t h = (uint16_t)i, quiet = (uint16_t)(h | 1u << (f->digits - 2));
      double want = slow_value(f, h);
      float got = f->widen(h);
      if (isnan(want)) {
        HOLDS(isnan(got) && !signbit(got) == !(h & 0x8000), "%s %04x: %g", f->name, h, (double)got);
        HOLDS(f->narrow(got) == quiet && f->narrow_double((double)got) == quiet, "%s %04x", f->name, h);
        continue;
      }
      HOLDS((double)got == want && !signbit(got) == !(h & 0x8000), "%s %04x: %g", f->name, h, (double)got);
      HOLDS(f->narrow(got) == h && f->narrow_double(want) == h, "%s %04x", f->name, h);
    }
}

static void narrows(const half_form *f, double x, uint16_t want) {
  HOLDS(f->narrow_double(x) == want, "%s: %.17g gives %04x instead of %04x", f->name, x, f->narrow_double(x),
        want);
  if ((double)(float)x == x)
    HOLDS(f->narrow((float)x) == want, "%s: %.17gf gives %04x instead of %04x", f->name, x,
          f->narrow((float)x), want);
}

/* Between each two neighbours: halfway goes to the even one, a little less or more to the nearer. */
START_TEST(every_gap_between_halves) {
  for (int k = 0; k < 2; k++) {
    const half_form *f = &forms[k];
    uint16_t infinite = (uint16_t)(0x7fff >> (f->digits - 1) << (f->digits - 1));
    for (uint16_t h = 0; h < infinite; h++) {
      uint16_t next = (uint16_t)(h + 1), even = h & 1 ? next : h;
      double low = slow_value(f, h);
      double high = next < infinite ? slow_value(f, next) : ldexp(1, f->bias + 1), middle = (low + high) / 2;
      const double under[] = {nextafter(middle, 0), (double)nextafterf((float)middle, 0),
                              (3 * low + high) / 4};
      const double over[] = {nextafter(middle, INFINITY), (double)nextafterf((float)middle, INFINITY),
                             (low + 3 * high) / 4};
      for (int sign = 0; sign < 2; sign++) {
        double s = sign ? -1 : 1;
        uint16_t bit = sign ? 0x8000 : 0;
        narrows(f, s * middle, even | bit);
        for (int i = 0; i < 3; i++) {
          narrows(f, s * under[i], h | bit);
          narrows(f, s * over[i], next | bit);
        }
      }
    }
    narrows(f, 1e300, infinite);
    narrows(f, -INFINITY, infinite | 0x8000);
    narrows(f, 1e-320, 0);
    narrows(f, -1e-320, 0x8000);
  }
}

/* ---- what PyTorch answered ---- */

static FILE *golden(const char *name) {
  char path[512], line[256];
  const char *root = getenv("KILN_SOURCE");
  snprintf(path, sizeof path, "%s/spec/golden/%s", root ? root : ".", name);
  FILE *f = fopen(path, "r");
  ck_assert_msg(f != NULL, "%s cannot be read", path);
  ck_assert(fgets(line, sizeof line, f) && line[0] == '#');
  return f;
}

static kn_dtype dtype_named(const char *name) {
  kn_dtype d = KN_BOOL;
  ck_assert_msg(kn_dtype_parse(name, &d), "%s is no dtype", name);
  return d;
}

static kn_dtype promoted(const char *how, kn_dtype a, const char *b) {
  kn_type x = type_of(a, DIMS(2)), y = type_of(KN_BOOL, !strcmp(how, "tensor") ? DIMS(2) : SCALAR);
  if (strcmp(how, "number") != 0) {
    y.dtype = (uint8_t)dtype_named(b);
    ck_assert_int_eq(kn_promote_types(&x, &y), kn_promote_types(&y, &x));
  } else {
    kn_scalar_kind kind = b[0] == 'b' ? KN_SCALAR_BOOL : b[0] == 'i' ? KN_SCALAR_INT : KN_SCALAR_FLOAT;
    y.dtype = (uint8_t)kn_scalar_dtype(kind, a);
    ck_assert_int_eq(kn_promote_types(&x, &y), y.dtype);
  }
  return kn_promote_types(&x, &y);
}

START_TEST(promotion) {
  char how[16], a[16], b[16], result[16];
  int lines = 0;
  FILE *f = golden("promotion.txt");
  for (; fscanf(f, "%15s %15s %15s %15s", how, a, b, result) == 4; lines++)
    ck_assert_msg(promoted(how, dtype_named(a), b) == dtype_named(result), "%s %s, %s: not %s", how, a, b,
                  result);
  fclose(f);
  ck_assert_int_eq(lines, KN_DTYPE_COUNT * (2 * KN_DTYPE_COUNT + 3));
}

/* One dtype's lines of casts.txt. */
enum { EDGES = 256 };
typedef struct edges {
  int n;
  uint64_t bits[EDGES];
  char want[EDGES][KN_DTYPE_COUNT][17];
} edges;

static void put_bits(kn_tensor *t, int64_t k, uint64_t bits) {
  memcpy(element_at(t, k), &bits, kn_dtype_size(kn_tensor_dtype(t))); /* little-endian, as all of ours */
}

static uint64_t bits_of(const kn_tensor *t, int64_t k) {
  uint64_t bits = 0;
  memcpy(&bits, element_at(t, k), kn_dtype_size(kn_tensor_dtype(t)));
  return bits;
}

static kn_tensor *cast(kn_context *c, kn_tensor *x, kn_dtype to) {
  kn_tensor *y;
  OK(c, kn_apply(c, KN_OP_cast, &(kn_attrs_cast){.dtype = to}, &x, 1, &y));
  ck_assert_int_eq(kn_tensor_dtype(y), to);
  return y;
}

/* The edges over and over, so that blocks and what is left of them are used; whole, and every third. */
static void check_casts(kn_context *c, kn_dtype from, const edges *e) {
  kn_type type = type_of(from, DIMS(3 * EDGES));
  kn_tensor *x, *thirds;
  OK(c, kn_tensor_new(c, &type, &x));
  for (int k = 0; k < 3 * EDGES; k++) put_bits(x, k, e->bits[k % e->n]);
  kn_attrs_slice part = {.dim = 0, .start = 1, .stop = KN_TO_END, .step = 3};
  OK(c, kn_apply(c, KN_OP_slice, &part, &x, 1, &thirds));
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    kn_dtype to = (kn_dtype)i;
    kn_tensor *y[2] = {cast(c, x, to), cast(c, thirds, to)};
    for (int strided = 0; strided < 2; strided++)
      for (int64_t k = 0; k < kn_tensor_numel(y[strided]); k++) {
        int line = (int)(strided ? 1 + 3 * k : k) % e->n;
        const char *want = e->want[line][i];
        if (want[0] == '-') continue;
        bool good = !strcmp(want, "nan") ? isnan(element(y[strided], k))
                                         : bits_of(y[strided], k) == strtoull(want, NULL, 16);
        HOLDS(good, "%s %llx as %s is %llx instead of %s", kn_dtype_name(from),
              (unsigned long long)e->bits[line], kn_dtype_name(to),
              (unsigned long long)bits_of(y[strided], k), want);
      }
    kn_tensor_release(y[0]), kn_tensor_release(y[1]);
  }
  kn_tensor_release(x), kn_tensor_release(thirds);
}

START_TEST(casts) {
  kn_context *c = suite_context();
  edges *all = calloc(KN_DTYPE_COUNT, sizeof *all);
  char name[16];
  FILE *f = golden("casts.txt");
  while (fscanf(f, "%15s", name) == 1) {
    edges *e = &all[dtype_named(name)];
    unsigned long long bits;
    ck_assert(e->n < EDGES && fscanf(f, "%llx", &bits) == 1);
    e->bits[e->n] = bits;
    for (int i = 0; i < KN_DTYPE_COUNT; i++) /* the columns are in the order of the table */
      ck_assert_int_eq(fscanf(f, "%16s", e->want[e->n][i]), 1);
    e->n++;
  }
  fclose(f);
  for (int d = 0; d < KN_DTYPE_COUNT; d++) {
    ck_assert_int_ge(all[d].n, d == KN_BOOL ? 2 : 10);
    check_casts(c, (kn_dtype)d, &all[d]);
  }
  free(all);
  suite_done(c);
}

/* ---- out of range: where PyTorch's answer depends on the machine ---- */

START_TEST(out_of_range) {
  kn_context *c = suite_context();
  static const double given[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 300.7, -300.7, 255.99, -0.99, -1};
  static const struct {
    kn_dtype to;
    double want[10];
  } cases[] = {
      {KN_BOOL, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
      {KN_U8, {0, 255, 0, 255, 0, 255, 0, 255, 0, 0}},
      {KN_I8, {0, 127, -128, 127, -128, 127, -128, 127, 0, -1}},
      {KN_I16, {0, 32767, -32768, 32767, -32768, 300, -300, 255, 0, -1}},
      {KN_I32, {0, INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 300, -300, 255, 0, -1}},
      {KN_I64, {0, 0x1p63, -0x1p63, 0x1p63, -0x1p63, 300, -300, 255, 0, -1}},
  };
  static const kn_dtype floats[] = {KN_F64, KN_F32, KN_BF16, KN_F16};
  for (int i = 0; i < 6; i++)
    for (int k = 0; k < 4; k++) {
      kn_tensor *x = make(c, floats[k], DIMS(10), given), *y = cast(c, x, cases[i].to);
      for (int e = 0; e < 10; e++) /* a half may round 255.99 up, and 300.7 a little */
        if (k < 2 || (e != 5 && e != 6 && e != 7))
          ck_assert_msg(element(y, e) == cases[i].want[e], "%s %g as %s is %g", kn_dtype_name(floats[k]),
                        given[e], kn_dtype_name(cases[i].to), element(y, e));
      kn_tensor_release(x), kn_tensor_release(y);
    }
  suite_done(c);
}

/* ---- computing ---- */

static kn_tensor *run(kn_context *c, kn_op op, const void *attrs, kn_tensor *a, kn_tensor *b) {
  kn_tensor *in[] = {a, b}, *out = NULL;
  OK(c, kn_apply(c, op, attrs, in, b ? 2 : 1, &out));
  kn_tensor_release(a);
  kn_tensor_release(b);
  return out;
}
#define GIVES(value, dtype, dims, ...)                                                                       \
  do {                                                                                                       \
    kn_tensor *gives_ = (value);                                                                             \
    expect_near(gives_, dtype, dims, LIST(__VA_ARGS__), 0);                                                  \
    kn_tensor_release(gives_);                                                                               \
  } while (0)
#define OF(dtype, ...) make(c, KN_##dtype, DIMS(3), LIST(__VA_ARGS__))
#define RUN(op, a, b) run(c, KN_OP_##op, NULL, a, b)

START_TEST(small_integers_wrap_around) {
  kn_context *c = suite_context();
  GIVES(RUN(add, OF(I8, 127, -128, 1), OF(I8, 1, -1, 1)), KN_I8, DIMS(3), -128, 127, 2);
  GIVES(RUN(sub, OF(U8, 0, 5, 255), OF(U8, 1, 6, 255)), KN_U8, DIMS(3), 255, 255, 0);
  GIVES(RUN(mul, OF(I16, 300, -300, 7), OF(I16, 300, 300, 7)), KN_I16, DIMS(3), 90000 - 65536, 65536 - 90000,
        49);
  GIVES(RUN(mul, OF(I32, 65536, 3, 46341), OF(I32, 65536, 4, 46341)), KN_I32, DIMS(3), 0, 12,
        46341.0 * 46341 - 0x1p32);
  GIVES(RUN(neg, OF(I8, -128, 127, 0), NULL), KN_I8, DIMS(3), -128, -127, 0);
  GIVES(RUN(neg, OF(U8, 1, 255, 0), NULL), KN_U8, DIMS(3), 255, 1, 0);
  GIVES(RUN(abs, OF(I8, -128, -5, 5), NULL), KN_I8, DIMS(3), -128, 5, 5);
  GIVES(RUN(floor_divide, OF(I8, -128, -7, 7), OF(I8, -1, 2, -2)), KN_I8, DIMS(3), -128, -4, -4);
  GIVES(RUN(remainder, OF(I8, -128, -7, 7), OF(I8, -1, 3, -3)), KN_I8, DIMS(3), 0, 2, -2);
  GIVES(RUN(pow, OF(U8, 2, 2, 3), OF(U8, 7, 8, 5)), KN_U8, DIMS(3), 128, 0, 243);
  GIVES(RUN(bitwise_not, OF(U8, 0, 1, 255), NULL), KN_U8, DIMS(3), 255, 254, 0);
  GIVES(RUN(add, OF(U8, 200, 255, 0), OF(I8, 100, -1, -128)), KN_I16, DIMS(3), 300, 254, -128);
  GIVES(RUN(maximum, OF(U8, 200, 255, 0), OF(I8, 100, -1, -128)), KN_I16, DIMS(3), 200, 255, 0);
  GIVES(RUN(matmul, OF(I8, 100, 100, 100), OF(I8, 1, 2, 3)), KN_I8, SCALAR, 600 - 512);
  GIVES(run(c, KN_OP_sum, &(kn_attrs_reduce){0}, OF(I8, 100, 100, 100), NULL), KN_I64, SCALAR, 300);
  GIVES(run(c, KN_OP_amax, &(kn_attrs_reduce){0}, OF(U8, 100, 200, 100), NULL), KN_U8, SCALAR, 200);
  kn_tensor *in[] = {OF(I8, 1, 2, 3), OF(I8, 1, 0, 1)}, *y;
  FAILS(c, KN_ARG, "floor_divide: integer division by zero",
        kn_apply(c, KN_OP_floor_divide, NULL, in, 2, &y));
  kn_tensor_release(in[0]), kn_tensor_release(in[1]);
  suite_done(c);
}

/* A comparison of integers is one of their values, whatever their dtypes are. */
START_TEST(integers_are_compared_as_they_are) {
  kn_context *c = suite_context();
  GIVES(RUN(lt, OF(U8, 1, 44, 255), number(c, KN_I64, 300)), KN_BOOL, DIMS(3), 1, 1, 1);
  GIVES(RUN(eq, OF(U8, 255, 0, 1), number(c, KN_I64, -1)), KN_BOOL, DIMS(3), 0, 0, 0);
  GIVES(RUN(ge, OF(I8, -128, 0, 127), number(c, KN_I64, 128)), KN_BOOL, DIMS(3), 0, 0, 0);
  GIVES(RUN(gt, OF(U8, 200, 0, 1), OF(I8, -56, -1, 1)), KN_BOOL, DIMS(3), 1, 1, 0);
  GIVES(RUN(maximum, OF(U8, 255, 0, 1), number(c, KN_I64, -1)), KN_U8, DIMS(3), 255, 0, 1);
  suite_done(c);
}

static kn_tensor *ones(kn_context *c, kn_dtype d, int64_t n, double value) {
  kn_attrs_fill a = {.sizes = DIMS(n), .value = value, .dtype = d};
  kn_tensor *t;
  OK(c, kn_apply(c, KN_OP_full, &a, NULL, 0, &t));
  return t;
}

/* Sums of halves are kept wider: among halves, 2048 + 1 is 2048 (256 + 1 is 256). */
START_TEST(halves_are_summed_wide) {
  kn_context *c = suite_context();
  kn_attrs_reduce all = {0};
  kn_attrs_correction unbiased = {.correction = 1};
  GIVES(run(c, KN_OP_sum, &all, ones(c, KN_F16, 4096, 1), NULL), KN_F16, SCALAR, 4096);
  GIVES(run(c, KN_OP_sum, &all, ones(c, KN_BF16, 4096, 1), NULL), KN_BF16, SCALAR, 4096);
  GIVES(run(c, KN_OP_mean, &all, ones(c, KN_F16, 40000, 100), NULL), KN_F16, SCALAR,
        100); /* the sum is inf */
  GIVES(run(c, KN_OP_sum, &all, ones(c, KN_F16, 40000, 100), NULL), KN_F16, SCALAR, INFINITY);
  GIVES(RUN(matmul, ones(c, KN_F16, 3000, 1), ones(c, KN_F16, 3000, 1)), KN_F16, SCALAR, 3000);
  GIVES(RUN(matmul, ones(c, KN_BF16, 512, 1), ones(c, KN_BF16, 512, 1)), KN_BF16, SCALAR, 512);
  GIVES(run(c, KN_OP_norm, &(kn_attrs_norm){.p = 2}, OF(F16, 300, 400, 0), NULL), KN_F16, SCALAR,
        500); /* 300² is inf */
  GIVES(run(c, KN_OP_var, &unbiased, OF(F16, -200, 0, 200), NULL), KN_F16, SCALAR, 40000);
  GIVES(run(c, KN_OP_std, &unbiased, OF(F16, -600, 0, 600), NULL), KN_F16, SCALAR, 600);
  GIVES(run(c, KN_OP_softmax, &(kn_attrs_axis){.dim = 0}, OF(BF16, 5, 5, -INFINITY), NULL), KN_BF16, DIMS(3),
        0.5, 0.5, 0);
  /* One rounding at the end: 1 + 2^-11 + 2^-12 would lose 2^-11 on its way as float16. */
  GIVES(RUN(add, OF(F16, 1, 1, 1), OF(F32, 0x1p-11, 0x1.8p-11, 0)), KN_F32, DIMS(3), 1 + 0x1p-11,
        1 + 0x1.8p-11, 1);
  GIVES(RUN(add, OF(F16, 1, 2, 3), OF(BF16, 1, 2, 3)), KN_F32, DIMS(3), 2, 4, 6);
  GIVES(RUN(div, OF(U8, 1, 2, 3), OF(U8, 2, 2, 2)), KN_F32, DIMS(3), 0.5, 1, 1.5);
  GIVES(RUN(sub, OF(I64, 2049, 4, 5), OF(F16, 2048, 4, 5)), KN_F16, DIMS(3), 0, 0, 0); /* 2049 as float16 */
  suite_done(c);
}

/* Longer than a block and than one thread's share: operands of other dtypes with steps, and repeated. */
START_TEST(long_loops) {
  kn_context *c = suite_context();
  enum { LONG = 70001 };
  kn_attrs_range up = {.start = 0, .end = 2 * LONG, .step = 1, .dtype = KN_I32};
  kn_attrs_slice odd = {.dim = 0, .start = 1, .stop = KN_TO_END, .step = 2};
  kn_tensor *all, *x, *bytes;
  OK(c, kn_apply(c, KN_OP_arange, &up, NULL, 0, &all));
  OK(c, kn_apply(c, KN_OP_slice, &odd, &all, 1, &x));
  bytes = cast(c, x, KN_U8);
  kn_tensor *half = number(c, KN_F16, 0.5), *y, *z, *w, *same;
  OK(c, kn_apply(c, KN_OP_mul, NULL, (kn_tensor *[]){bytes, half}, 2, &y)); /* uint8 beside 0-d float16 */
  OK(c, kn_apply(c, KN_OP_add, NULL, (kn_tensor *[]){x, bytes}, 2, &z));
  kn_tensor *cond = run(c, KN_OP_gt, NULL, kn_tensor_retain(y), kn_tensor_retain(half));
  OK(c, kn_apply(c, KN_OP_where, NULL, (kn_tensor *[]){cond, half, bytes}, 3, &w));
  for (int64_t k = 0; k < LONG; k++) {
    int64_t v = 2 * k + 1, b = v % 256;
    HOLDS(element(bytes, k) == (double)b, "%lld: %g", (long long)k, element(bytes, k));
    HOLDS(element(y, k) == 0.5 * (double)b, "%lld: %g", (long long)k, element(y, k));
    HOLDS(element(z, k) == (double)(v + b), "%lld: %g", (long long)k, element(z, k));
    HOLDS(element(w, k) == (b > 1 ? 0.5 : (double)b), "%lld: %g", (long long)k, element(w, k));
  }
  ck_assert(kn_tensor_dtype(y) == KN_F16 && kn_tensor_dtype(z) == KN_I32 && kn_tensor_dtype(w) == KN_F16);
  kn_attrs_reduce over = {.dim = DIMS(0)};
  GIVES(run(c, KN_OP_sum, &over, kn_tensor_retain(x), NULL), KN_I64, SCALAR, (double)LONG * LONG);
  OK(c, kn_apply(c, KN_OP_copy_, NULL, (kn_tensor *[]){x, y}, 2, &same)); /* float16 into every other int32 */
  for (int64_t k = 0; k < 2 * LONG; k++)
    HOLDS(element(all, k) == (k % 2 ? trunc(0.5 * (double)(k % 256)) : (double)k), "%lld: %g", (long long)k,
          element(all, k));
  GIVES(run(c, KN_OP_amax, &over, bytes, NULL), KN_U8, SCALAR, 255);
  GIVES(run(c, KN_OP_amin, &over, x, NULL), KN_I32, SCALAR, 0);
  kn_tensor *drop[] = {all, y, z, w, same, half, cond};
  for (int i = 0; i < 7; i++) kn_tensor_release(drop[i]);
  suite_done(c);
}

START_TEST(indices_of_int32) {
  kn_context *c = suite_context();
  kn_attrs_axis first = {.dim = 0};
  GIVES(run(c, KN_OP_index_select, &first, OF(F16, 1.5, 2.5, 3.5), OF(I32, 3, 1, 1)), KN_F16, DIMS(3), 3.5,
        1.5, 1.5);
  GIVES(run(c, KN_OP_gather, &first, OF(U8, 10, 20, 30), OF(I32, 2, 2, 3)), KN_U8, DIMS(3), 20, 20, 30);
  kn_tensor *in[] = {OF(BF16, 1, 2, 3), OF(I32, 1, 1, 3), OF(BF16, 256, 1, 1)}, *y;
  OK(c, kn_apply(c, KN_OP_index_add, &first, in, 3, &y));
  GIVES(y, KN_BF16, DIMS(3), 258, 2, 4);
  OK(c, kn_apply(c, KN_OP_scatter_add, &first, in, 3, &y));
  GIVES(y, KN_BF16, DIMS(3), 258, 2, 4);
  kn_tensor_release(in[1]);
  in[1] = OF(I16, 1, 1, 1);
  FAILS(c, KN_DTYPE, "gather: the index (input 2) must be int64 or int32, not int16",
        kn_apply(c, KN_OP_gather, &first, in, 2, &y));
  for (int i = 0; i < 3; i++) kn_tensor_release(in[i]);
  suite_done(c);
}

/* ---- making ---- */

START_TEST(numbers_must_fit) {
  kn_context *c = suite_context();
  kn_tensor *t, *x = OF(U8, 1, 2, 3);
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    kn_dtype d = (kn_dtype)i;
    kn_scalar s;
    OK(c, kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_INT, {.i = 1}}, d, &t));
    OK(c, kn_item(c, t, &s));
    ck_assert_int_eq(s.kind, d == KN_BOOL           ? KN_SCALAR_BOOL
                             : kn_dtype_is_float(d) ? KN_SCALAR_FLOAT
                                                    : KN_SCALAR_INT);
    ck_assert(s.kind == KN_SCALAR_BOOL ? s.as.b : s.kind == KN_SCALAR_INT ? s.as.i == 1 : s.as.f == 1);
    kn_tensor_release(t);
    GIVES(ones(c, d, 3, 1), d, DIMS(3), 1, 1, 1);
  }
  FAILS(c, KN_ARG, "300 does not fit in uint8 (0 to 255)",
        kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_INT, {.i = 300}}, KN_U8, &t));
  FAILS(c, KN_ARG, "-129 does not fit in int8 (-128 to 127)",
        kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_FLOAT, {.f = -129}}, KN_I8, &t));
  FAILS(c, KN_ARG, "inf does not fit in int64",
        kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_FLOAT, {.f = INFINITY}}, KN_I64, &t));
  FAILS(c, KN_ARG, "nan does not fit in int16",
        kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_FLOAT, {.f = NAN}}, KN_I16, &t));
  OK(c, kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_FLOAT, {.f = 127.9}}, KN_I8, &t));
  GIVES(t, KN_I8, SCALAR, 127);
  FAILS(c, KN_ARG, "full: -1 does not fit in uint8 (0 to 255)",
        kn_apply(c, KN_OP_full, &(kn_attrs_fill){.value = -1, .dtype = KN_U8}, NULL, 0, &t));
  FAILS(c, KN_ARG, "full_like: 256 does not fit in uint8",
        kn_apply(c, KN_OP_full_like, &(kn_attrs_value){.value = 256}, &x, 1, &t));
  FAILS(c, KN_ARG, "arange: 299 does not fit in uint8",
        kn_apply(c, KN_OP_arange, &(kn_attrs_range){.start = 0, .end = 300, .step = 1, .dtype = KN_U8}, NULL,
                 0, &t));
  OK(c, kn_apply(c, KN_OP_arange, &(kn_attrs_range){.start = 250, .end = 256, .step = 2, .dtype = KN_U8},
                 NULL, 0, &t));
  GIVES(t, KN_U8, DIMS(3), 250, 252, 254);
  OK(c, kn_apply(c, KN_OP_arange, &(kn_attrs_range){.start = 0, .end = 1.5, .step = 0.5, .dtype = KN_F16},
                 NULL, 0, &t));
  GIVES(t, KN_F16, DIMS(3), 0, 0.5, 1);
  FAILS(c, KN_ARG, "linspace: 300 does not fit in int8",
        kn_apply(c, KN_OP_linspace, &(kn_attrs_linspace){.start = 0, .end = 300, .steps = 3, .dtype = KN_I8},
                 NULL, 0, &t));
  FAILS(c, KN_ARG, "randint: 299 does not fit in int8",
        kn_apply(c, KN_OP_randint,
                 &(kn_attrs_randint){.low = 0, .high = 300, .sizes = DIMS(3), .dtype = KN_I8}, NULL, 0, &t));
  FAILS(c, KN_ARG, "clamp: no uint8 lies in [300, 400]",
        kn_apply(c, KN_OP_clamp, &(kn_attrs_clamp){.min = 300, .max = 400}, &x, 1, &t));
  OK(c, kn_apply(c, KN_OP_clamp, &(kn_attrs_clamp){.min = -5, .max = 2}, &x, 1, &t));
  GIVES(t, KN_U8, DIMS(3), 1, 2, 2);
  kn_tensor_release(x);
  suite_done(c);
}

/* Uniform halves stay below 1 and have all their digits; draws of them are those of float32. */
START_TEST(random_halves) {
  kn_context *c = suite_context();
  for (int i = 0; i < 2; i++) {
    kn_dtype d = i ? KN_BF16 : KN_F16;
    double step = i ? 0x1p-8 : 0x1p-11, least = 1, most = 0, square = 0;
    enum { N = 20000 };
    kn_attrs_create a = {.sizes = DIMS(N), .dtype = d}, wide = {.sizes = DIMS(N), .dtype = KN_F32};
    kn_tensor *x, *y;
    kn_random_seed(&c->random, 3);
    OK(c, kn_apply(c, KN_OP_rand, &a, NULL, 0, &x));
    kn_random_seed(&c->random, 3);
    OK(c, kn_apply(c, KN_OP_rand, &wide, NULL, 0, &y));
    for (int k = 0; k < N; k++) {
      double v = element(x, k);
      HOLDS(floor(element(y, k) / step) * step == v, "%g from %g", v, element(y, k));
      least = fmin(least, v), most = fmax(most, v);
    }
    ck_assert(least == 0 && most == 1 - step);
    kn_tensor_release(x), kn_tensor_release(y);
    OK(c, kn_apply(c, KN_OP_randn, &a, NULL, 0, &x));
    for (int k = 0; k < N; k++) square += element(x, k) * element(x, k);
    ck_assert(fabs(square / N - 1) < 0.05);
    kn_tensor_release(x);
    x = ones(c, d, N, 0.25), y = run(c, KN_OP_bernoulli, NULL, x, NULL), square = 0;
    for (int k = 0; k < N; k++) square += element(y, k);
    ck_assert(fabs(square / N - 0.25) < 0.02);
    kn_tensor_release(y);
  }
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    kn_attrs_randint a = {
        .low = i == KN_BOOL ? 0 : 3, .high = i == KN_BOOL ? 2 : 7, .sizes = DIMS(500), .dtype = (kn_dtype)i};
    kn_tensor *x;
    int seen = 0;
    OK(c, kn_apply(c, KN_OP_randint, &a, NULL, 0, &x));
    for (int k = 0; k < 500; k++) seen |= 1 << (int)element(x, k);
    ck_assert_int_eq(seen, i == KN_BOOL ? 3 : 0x78);
    kn_tensor_release(x);
  }
  suite_done(c);
}

/* ---- gradients flow in halves ---- */

START_TEST(gradients_in_halves) {
  kn_context *c = suite_context();
  kn_tensor *x = OF(F16, 1, -2, 3), *y, *total;
  OK(c, kn_set_requires_grad(c, x, true));
  OK(c, kn_apply(c, KN_OP_mul, NULL, (kn_tensor *[]){x, x}, 2, &y));
  OK(c, kn_apply(c, KN_OP_sum, &(kn_attrs_reduce){0}, &y, 1, &total));
  OK(c, kn_backward(c, total, NULL, false));
  expect(kn_grad_of(x), KN_F16, DIMS(3), LIST(2, -4, 6));
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(total);
  x = OF(I8, 1, 2, 3);
  FAILS(c, KN_DTYPE, "only floating tensors can require grad, and this one is int8",
        kn_set_requires_grad(c, x, true));
  kn_tensor_release(x);
  suite_done(c);
}

/* ---- graphs: a constant of each dtype, as text and as a file ---- */

static const double kept[] = {0, 1, -1, 0.1, 127, 255, -128, 65504, 1e-7, -3e38, INFINITY, NAN};
enum { KEPT = sizeof kept / sizeof *kept };

static kn_graph *constants(kn_context *c, int64_t times) {
  kn_graph *g;
  kn_builder b;
  kn_value *outs[KN_DTYPE_COUNT];
  OK(c, kn_graph_new(c, "g", &g));
  kn_builder_init(&b, c, g);
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    kn_type type = type_of((kn_dtype)i, DIMS(times * KEPT));
    kn_tensor *t;
    OK(c, kn_tensor_new(c, &type, &t));
    for (int64_t k = 0; k < times * KEPT; k++) set_element(t, k, kept[k % KEPT]);
    kn_slot *s = kn_add_slot(&b, KN_SLOT_CONST, kn_dtypes[i].name, &(kn_vtype){KN_V_TENSOR, type}, t);
    kn_tensor_release(t);
    outs[i] =
        kn_add_op(&b, KN_OP_clone, NULL, (kn_value *[]){kn_add_slot_node(&b, KN_NODE_tensor, s)}, 1, NULL, 0)
            ->out[0];
  }
  kn_set_results(&b, outs, KN_DTYPE_COUNT, NULL, 0);
  OK(c, kn_graph_finish(&b));
  return g;
}

static void same_constants(const kn_graph *a, const kn_graph *b) {
  ck_assert_int_eq(a->nslots, KN_DTYPE_COUNT);
  ck_assert_int_eq(b->nslots, KN_DTYPE_COUNT);
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    const kn_tensor *x = a->slots[i]->tensor, *y = b->slots[i]->tensor;
    ck_assert(x && y && kn_type_equal(&x->type, &y->type) && kn_tensor_dtype(x) == (kn_dtype)i);
    for (int64_t k = 0; k < kn_tensor_numel(x); k++)
      HOLDS(bits_of(x, k) == bits_of(y, k) || (isnan(element(x, k)) && isnan(element(y, k))),
            "%s: %.17g became %.17g", kn_dtypes[i].name, element(x, k), element(y, k));
  }
}

START_TEST(graph_text) {
  kn_context *c = suite_context();
  kn_graph *g = constants(c, 1), *back;
  char *text;
  size_t n;
  OK(c, kn_graph_print(c, g, KN_TEXT_FULL, &text, &n));
  OK(c, kn_graph_parse(c, text, n, &back));
  same_constants(g, back);
  kn_free(c->heap, text, n + 1);
  kn_graph_release(g), kn_graph_release(back);
  static const char odd[] = "graph g() {\n  slot const \"k\": uint8[2] = {1, 256}\n  return\n}\n";
  FAILS(c, KN_FORMAT, "2:", kn_graph_parse(c, odd, sizeof odd - 1, &back));
  ck_assert_msg(strstr(kn_error(c), "this does not fit in uint8") != NULL, "%s", kn_error(c));
  suite_done(c);
}

START_TEST(graph_files) {
  kn_context *c = suite_context();
  kn_graph *g = constants(c, 100);
  kn_entry *e;
  uint32_t n;
  char path[64];
  snprintf(path, sizeof path, "/tmp/kiln-dtypes-%ld.kiln", (long)getpid());
  OK(c, kn_file_save(c, path, &(kn_entry){.name = "g", .graph = g}, 1));
  OK(c, kn_file_load(c, path, NULL, &e, &n));
  unlink(path);
  same_constants(g, e[0].graph);
  kn_graph_release(g);
  kn_file_free_entries(c->heap, e, n);
  suite_done(c);
}

SUITE("dtypes", every_half, every_gap_between_halves, promotion, casts, out_of_range,
      small_integers_wrap_around, integers_are_compared_as_they_are, halves_are_summed_wide, long_loops,
      indices_of_int32, numbers_must_fit, random_halves, gradients_in_halves, graph_text, graph_files)
