/* Draws: the same numbers as core/kernels/random.c, which says which words of the stream value i uses. A
 * thread makes the values of one counter. What the others draw (randperm, multinomial, poisson …) takes the
 * host route. */
#include "backends/cuda/program.h"
#include "backends/cuda/entries.h"
#include "core/random.h"

CU_ARGUMENT(draw_all, {
  u64 seed;
  u64 first;
  const u64 *cell;
  void *to;
  const void *from;
  i64 count;
  i64 low;
  u64 span;
});

/* Between EACH_COUNTER and its end: w, the words of counter c. */
/* clang-format off */
static const char draw_source[] = CU_SOURCE(
    DEVICE void philox(u64 seed, u64 counter, u32 * w) {
      u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
      u32 c0 = (u32)counter, c1 = (u32)(counter >> 32), c2 = 0, c3 = 0;
      for (u32 round = 0; round < 10; round++) {
        u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        u32 n0 = (u32)(p1 >> 32) ^ c1 ^ k0, n2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c1 = (u32)p1;
        c3 = (u32)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
      }
      w[0] = c0;
      w[1] = c1;
      w[2] = c2;
      w[3] = c3;
    }
    DEVICE void words_at(const draw_all *q, i64 c, u32 *w) {
      u64 seed = q->cell ? q->cell[0] : q->seed, first = q->cell ? q->cell[1] + q->first : q->first;
      philox(seed, first + (u64)c, w);
    }
    DEVICE u64 long_word(const u32 *w, u32 k) { return (u64)w[2 * k] << 32 | w[2 * k + 1]; });
/* clang-format on */

/* EACH_OF(n): value i = n c + k of counter c, and k the value's number there. */
#define EACH_OF                                                                                              \
  "#define EACH_OF(each) EACH(c, (q.count + each - 1) / each) for (u32 w[4], k = (words_at(&q, c, w), 0); "  \
  "k < each && c * each + k < q.count; k++)\n"

/* A half keeps as many of the upper bits as it has digits. */
/* clang-format off */
static const char uniform_source[] = EACH_OF CU_SOURCE(
    KERNEL(256, rand32)(draw_all q) {
      E *to = (E *)q.to;
      EACH_OF(4) {
        float x = (float)(w[k] >> 8) * 0x1p-24f;
        to[c * 4 + k] = PUT(DIGITS(x));
      }
    }
    KERNEL(256, bernoulli32)(draw_all q) {
      E *to = (E *)q.to;
      const E *from = (const E *)q.from;
      EACH_OF(4) {
        float p = GET(from[c * 4 + k]);
        to[c * 4 + k] = PUT((float)((float)(w[k] >> 8) * 0x1p-24f < p));
      }
    }
    KERNEL(256, randn32)(draw_all q) {
      E *to = (E *)q.to;
      EACH_OF(4) {
        double u = ((double)w[k & 2] + 1) * 0x1p-32, v = (double)w[k | 1] * 0x1p-32;
        double radius = sqrt(-2 * log(u)), angle = 6.283185307179586 * v;
        double x = radius * (k & 1 ? sin(angle) : cos(angle));
        to[c * 4 + k] = PUT_F64(x);
      }
    });
/* clang-format on */

/* clang-format off */
static const char uniform64_source[] = EACH_OF CU_SOURCE(
    KERNEL(256, rand64)(draw_all q) {
      double *to = (double *)q.to;
      EACH_OF(2) to[c * 2 + k] = (double)(long_word(w, k) >> 11) * 0x1p-53;
    }
    KERNEL(256, bernoulli64)(draw_all q) {
      double *to = (double *)q.to;
      const double *from = (const double *)q.from;
      EACH_OF(2) to[c * 2 + k] = (double)((double)(long_word(w, k) >> 11) * 0x1p-53 < from[c * 2 + k]);
    }
    KERNEL(256, randn64)(draw_all q) {
      double *to = (double *)q.to;
      EACH_OF(2) {
        double u = ((double)(long_word(w, 0) >> 11) + 1) * 0x1p-53;
        double v = (double)(long_word(w, 1) >> 11) * 0x1p-53;
        double radius = sqrt(-2 * log(u)), angle = 6.283185307179586 * v;
        to[c * 2 + k] = radius * (k & 1 ? sin(angle) : cos(angle));
      }
    });
/* clang-format on */

/* clang-format off */
static const char randint_source[] = EACH_OF CU_SOURCE(KERNEL(256, randint)(draw_all q) {
  E *to = (E *)q.to;
  EACH_OF(2) {
    i64 x = (i64)((u64)q.low + mulhi_u64(long_word(w, k), q.span));
    to[c * 2 + k] = PUT_I64(x);
  }
});
/* clang-format on */

/* How a half cuts digits off. */
static const char *digits_of(kn_dtype dtype) {
  if (dtype == KN_F16) return "#define DIGITS(x) (floorf((x)*0x1p11f) * 0x1p-11f)\n";
  if (dtype == KN_BF16) return "#define DIGITS(x) (floorf((x)*0x1p8f) * 0x1p-8f)\n";
  return "#define DIGITS(x) (x)\n";
}

/* Takes the words from the context's stream: while a graph is captured they are counted from where the device
 * keeps its stream. */
static void take(kn_context *ctx, cu_device *d, uint64_t words, draw_all *q) {
  q->seed = ctx->random.seed;
  q->first = kn_random_take(&ctx->random, words);
  const cu_capture *c = cu_capture_of(ctx, d);
  if (!c || !c->random) return;
  q->cell = (const u64 *)(uintptr_t)c->random;
  q->first -= c->random_base;
}

static kn_status draw(kn_context *ctx, const char *kernel, const char *source, uint64_t words, draw_all q,
                      kn_tensor *out) {
  const cu_program p = {source == randint_source ? "randint" : "draw",
                        {draw_all_text, draw_source, digits_of(kn_tensor_dtype(out)), source},
                        .elements = CU_OF_DTYPE,
                        .dtype = kn_tensor_dtype(out)};
  cu_device *d;
  KN_TRY(cu_device_of(ctx, &d));
  kn_random before = ctx->random;
  q.to = kn_tensor_data(out);
  q.count = kn_tensor_numel(out);
  take(ctx, d, words, &q);
  kn_status st = cu_start(ctx, d, &p, kernel, q.count, &q);
  if (st != KN_OK) ctx->random = before; /* the stream moves on only when the draw succeeds */
  return st;
}

static kn_status draw_floats(kn_context *ctx, const char *narrow, const char *wide, bool pairs, draw_all q,
                             kn_tensor *out) {
  bool is_wide = kn_tensor_dtype(out) == KN_F64;
  uint64_t count = (uint64_t)kn_tensor_numel(out);
  return draw(ctx, is_wide ? wide : narrow, is_wide ? uniform64_source : uniform_source,
              (pairs ? (count + 1) / 2 * 2 : count) * (is_wide ? 2 : 1), q, out);
}

CU_ENTRY(rand) {
  (void)attrs, (void)in, (void)n;
  return draw_floats(ctx, "rand32", "rand64", false, (draw_all){0}, out[0]);
}

CU_ENTRY(randn) {
  (void)attrs, (void)in, (void)n;
  return draw_floats(ctx, "randn32", "randn64", true, (draw_all){0}, out[0]);
}

CU_ENTRY(bernoulli) {
  (void)attrs, (void)n;
  if (!kn_tensor_contiguous(in[0]) || kn_tensor_dtype(in[0]) != kn_tensor_dtype(out[0])) return KN_DECLINED;
  return draw_floats(ctx, "bernoulli32", "bernoulli64", false, (draw_all){.from = kn_tensor_data(in[0])},
                     out[0]);
}

CU_ENTRY(randint) {
  const kn_attrs_randint *a = attrs;
  draw_all q = {.low = a->low, .span = (uint64_t)a->high - (uint64_t)a->low};
  (void)in, (void)n;
  return draw(ctx, "randint", randint_source, 2 * (uint64_t)kn_tensor_numel(out[0]), q, out[0]);
}
