/* Kernels that draw from the context's stream. Value i of a draw depends on the seed, on the draw's place in
 * the program and on i alone (core/random.h), so the work may be split anyhow. The words that value i uses:
 *   rand, bernoulli   word i; float64: words 2i and 2i + 1. A half keeps as many of its upper bits as it has
 *                     digits, so that it stays below 1
 *   randn             values 2j and 2j + 1 are one Box-Muller pair (Box and Muller, 1958), computed in double
 *                     from words 2j, 2j + 1; float64: from words 4j … 4j + 3
 *   randint           words 2i and 2i + 1 as 64 bits x; low + the high half of x * (high - low)
 *   randperm          words 2i and 2i + 1 choose what changes places with element i, from the end down
 * The stream moves on only when the draw succeeds. */
#include "core/kernels/kernel.h"
#include <math.h>

typedef struct draw {
  uint64_t seed, first; /* first counter */
  char *to;
  kn_dtype dtype;
  int64_t count, low;
  uint64_t span;
} draw;

/* Words in order, computing each counter's four once. */
typedef struct words {
  const draw *d;
  uint64_t have; /* counter of w, plus 1 */
  uint32_t w[4];
} words;

static uint32_t word(words *s, uint64_t i) {
  if (s->have != i / 4 + 1) {
    kn_philox(s->d->seed, s->d->first + i / 4, s->w);
    s->have = i / 4 + 1;
  }
  return s->w[i % 4];
}

static uint64_t long_word(words *s, uint64_t i) {
  uint64_t high = word(s, 2 * i);
  return high << 32 | word(s, 2 * i + 1);
}

static double uniform(words *s, uint64_t i, kn_dtype dtype) {
  if (dtype != KN_F64) return (double)kn_uniform_f32(word(s, i));
  uint64_t x = long_word(s, i);
  return kn_uniform_f64((uint32_t)(x >> 32), (uint32_t)x);
}

static void put(const draw *d, int64_t i, double x) {
  if (d->dtype == KN_F32)
    ((float *)d->to)[i] = (float)x;
  else
    kn_element_put_float(d->dtype, d->to + i * (int64_t)kn_dtype_size(d->dtype), x);
}

static draw draw_for(kn_context *ctx, kn_tensor *out, int64_t count, uint64_t words_each) {
  return (draw){
      .seed = ctx->random.seed,
      .first = kn_random_take(&ctx->random, (uint64_t)count * words_each),
      .to = kn_tensor_data(out),
      .dtype = kn_tensor_dtype(out),
      .count = kn_tensor_numel(out),
  };
}

static uint64_t words_of(const kn_tensor *out) { return kn_tensor_dtype(out) == KN_F64 ? 2 : 1; }

/* ---- rand, bernoulli ---- */

static void rand_range(void *ud, int64_t begin, int64_t end) {
  words s = {.d = ud};
  kn_dtype dtype = s.d->dtype;
  double steps = dtype == KN_F16 ? 0x1p11 : dtype == KN_BF16 ? 0x1p8 : 0;
  for (int64_t i = begin; i < end; i++) {
    double x = uniform(&s, (uint64_t)i, dtype);
    put(s.d, i, steps > 0 ? floor(x * steps) / steps : x);
  }
}

KERNEL(rand) {
  (void)attrs, (void)in, (void)n;
  draw d = draw_for(ctx, out[0], kn_tensor_numel(out[0]), words_of(out[0]));
  kn_parallel_for(ctx, d.count, KK_GRAIN / 4, rand_range, &d);
  return KN_OK;
}

/* The probabilities lie in the result already. */
static void bernoulli_range(void *ud, int64_t begin, int64_t end) {
  words s = {.d = ud};
  for (int64_t i = begin; i < end; i++) {
    double p = kn_element_float(s.d->dtype, s.d->to + i * (int64_t)kn_dtype_size(s.d->dtype));
    put(s.d, i, uniform(&s, (uint64_t)i, s.d->dtype) < p);
  }
}

KERNEL(bernoulli) {
  (void)attrs, (void)n;
  kk_view to = kk_view_of(out[0]), from = kk_view_of(in[0]);
  kk_copy(ctx, &to, &from);
  draw d = draw_for(ctx, out[0], kn_tensor_numel(out[0]), words_of(out[0]));
  kn_parallel_for(ctx, d.count, KK_GRAIN / 4, bernoulli_range, &d);
  return KN_OK;
}

/* ---- randn ---- */

static void randn_range(void *ud, int64_t begin, int64_t end) {
  words s = {.d = ud};
  for (int64_t j = begin; j < end; j++) {
    double u, v; /* u in (0, 1], so that its logarithm exists; v in [0, 1) */
    if (s.d->dtype != KN_F64) {
      u = ((double)word(&s, 2 * (uint64_t)j) + 1) * 0x1p-32;
      v = (double)word(&s, 2 * (uint64_t)j + 1) * 0x1p-32;
    } else {
      u = ((double)(long_word(&s, 2 * (uint64_t)j) >> 11) + 1) * 0x1p-53;
      v = (double)(long_word(&s, 2 * (uint64_t)j + 1) >> 11) * 0x1p-53;
    }
    double radius = sqrt(-2 * log(u)), angle = 6.283185307179586 * v;
    put(s.d, 2 * j, radius * cos(angle));
    if (2 * j + 1 < s.d->count) put(s.d, 2 * j + 1, radius * sin(angle));
  }
}

KERNEL(randn) {
  (void)attrs, (void)in, (void)n;
  int64_t pairs = (kn_tensor_numel(out[0]) + 1) / 2;
  draw d = draw_for(ctx, out[0], pairs, 2 * words_of(out[0]));
  kn_parallel_for(ctx, pairs, KK_GRAIN / 16, randn_range, &d);
  return KN_OK;
}

/* ---- randint, randperm ---- */

static uint64_t scaled(uint64_t x, uint64_t span) { return (uint64_t)(((unsigned __int128)x * span) >> 64); }

static void randint_range(void *ud, int64_t begin, int64_t end) {
  words s = {.d = ud};
  for (int64_t i = begin; i < end; i++) {
    int64_t x = kk_wrap_add(s.d->low, (int64_t)scaled(long_word(&s, (uint64_t)i), s.d->span));
    kn_element_put_int(s.d->dtype, s.d->to + i * (int64_t)kn_dtype_size(s.d->dtype), x);
  }
}

KERNEL(randint) {
  const kn_attrs_randint *a = attrs;
  (void)in, (void)n;
  draw d = draw_for(ctx, out[0], kn_tensor_numel(out[0]), 2);
  d.low = a->low;
  d.span = (uint64_t)a->high - (uint64_t)a->low;
  kn_parallel_for(ctx, d.count, KK_GRAIN / 4, randint_range, &d);
  return KN_OK;
}

/* Fisher and Yates, in Durstenfeld's order (1964). */
KERNEL(randperm) {
  (void)attrs, (void)in, (void)n;
  draw d = draw_for(ctx, out[0], kn_tensor_numel(out[0]), 2);
  words s = {.d = &d};
  int64_t *v = (int64_t *)d.to;
  for (int64_t i = 0; i < d.count; i++) v[i] = i + 1;
  for (int64_t i = d.count - 1; i > 0; i--) {
    int64_t j = (int64_t)scaled(long_word(&s, (uint64_t)i), (uint64_t)i + 1), x = v[i];
    v[i] = v[j];
    v[j] = x;
  }
  return KN_OK;
}

/* ---- streams ---- */

static void put_state(kn_tensor *out, const kn_random *r) {
  int64_t *to = kn_tensor_data(out);
  to[0] = (int64_t)r->seed;
  to[1] = (int64_t)r->offset;
}

/* The seed of the new stream is the draw that the present one makes here. */
KERNEL(fork_random) {
  (void)attrs, (void)in, (void)n;
  uint64_t seed = kn_random_split(&ctx->random);
  put_state(out[0], &ctx->random);
  kn_random_seed(&ctx->random, seed);
  return KN_OK;
}

KERNEL(join_random) {
  (void)attrs, (void)n;
  kn_random left = ctx->random;
  kk_view to = kk_view_of(out[0]), from = kk_view_of(in[0]);
  kk_copy(ctx, &to, &from);
  const int64_t *state = kn_tensor_data(out[0]);
  ctx->random = (kn_random){.seed = (uint64_t)state[0], .offset = (uint64_t)state[1]};
  put_state(out[0], &left);
  return KN_OK;
}
