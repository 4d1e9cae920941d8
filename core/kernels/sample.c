/* Samplers that try until they succeed, and draws by weights. Each element has a stream of its own: the
 * blocks 1, 2, … behind the one counter that it takes of the context's stream (core/random.h), so how often
 * one tries changes nothing for others, and the stream moves on by the number of elements alone. poisson
 * below a rate of 10 by products of uniforms (Knuth), else PTRS (Hoermann, Insurance: Mathematics and
 * Economics 12, 1993) binomial        below a mean of 10 by geometric gaps (Devroye, 1986, X.4), else BTRS
 * (Hoermann, J. Statist. Comput. Simul. 46, 1993) standard_gamma  Marsaglia and Tsang, ACM TOMS 26, 2000
 *   multinomial     words 2j and 2j + 1 for draw j: by search in sums of weights; without replacement for
 *                   weight j: the smallest exponential variates divided by weights (Efraimidis and Spirakis,
 * 2006)
 */
#include "core/kernels/kernel.h"
#include <float.h>
#include <math.h>

typedef struct stream {
  uint64_t seed, counter;
  uint32_t block, w[4];
  bool half; /* the second half of w is still there */
} stream;

static double uniform(stream *s) { /* in [0, 1) */
  if (!s->half) kn_philox_block(s->seed, s->counter, ++s->block, s->w);
  s->half = !s->half;
  return s->half ? kn_uniform_f64(s->w[0], s->w[1]) : kn_uniform_f64(s->w[2], s->w[3]);
}

static double positive_uniform(stream *s) { return 1 - uniform(s); } /* in (0, 1] */

static double normal(stream *s) {
  double u = positive_uniform(s), v = uniform(s);
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* ---- one variate ---- */

static double poisson(stream *s, double rate) {
  if (!(rate < 10)) {
    if (isinf(rate)) return rate;
    double log_rate = log(rate), b = 0.931 + 2.53 * sqrt(rate), a = -0.059 + 0.02483 * b;
    double inv = log(1.1239 + 1.1328 / (b - 3.4)), top = 0.9277 - 3.6224 / (b - 2);
    for (;;) {
      double u = uniform(s) - 0.5, v = positive_uniform(s), us = 0.5 - fabs(u);
      double k = floor((2 * a / us + b) * u + rate + 0.43);
      if (us >= 0.07 && v <= top) return k;
      if (k < 0 || (us < 0.013 && v > us)) continue;
      if (log(v) + inv - log(a / (us * us) + b) <= k * log_rate - rate - lgamma(k + 1)) return k;
    }
  }
  double least = exp(-rate), product = positive_uniform(s), k = 0;
  for (; product > least; k++) product *= positive_uniform(s);
  return k;
}

/* p <= 0.5 */
static double binomial_half(stream *s, double n, double p) {
  if (n * p < 10) {
    double k = 0, log_q = log1p(-p);
    for (double at = 0;; k++) {
      at += floor(log(positive_uniform(s)) / log_q) + 1;
      if (at > n) return k;
    }
  }
  double spq = sqrt(n * p * (1 - p)), b = 1.15 + 2.53 * spq, a = -0.0873 + 0.0248 * b + 0.01 * p;
  double c = n * p + 0.5, top = 0.92 - 4.2 / b, alpha = (2.83 + 5.1 / b) * spq, m = floor((n + 1) * p);
  double h = lgamma(m + 1) + lgamma(n - m + 1), odds = log(p / (1 - p));
  for (;;) {
    double u = uniform(s) - 0.5, v = positive_uniform(s), us = 0.5 - fabs(u);
    double k = floor((2 * a / us + b) * u + c);
    if (us >= 0.07 && v <= top) return k;
    if (k < 0 || k > n) continue;
    if (log(v * alpha / (a / (us * us) + b)) <= h - lgamma(k + 1) - lgamma(n - k + 1) + (k - m) * odds)
      return k;
  }
}

static double binomial(stream *s, double n, double p) {
  n = floor(n);
  if (n == 0 || p == 0) return 0;
  return p > 0.5 ? p == 1 ? n : n - binomial_half(s, n, 1 - p) : binomial_half(s, n, p);
}

static double gamma_variate(stream *s, double alpha) {
  double scale = 1;
  if (alpha < 1) {
    scale = pow(positive_uniform(s), 1 / alpha);
    alpha += 1;
  }
  double d = alpha - 1. / 3, c = 1 / sqrt(9 * d);
  for (;;) {
    double x = normal(s), v = 1 + c * x, u;
    if (v <= 0) continue;
    v *= v * v;
    u = positive_uniform(s);
    if (u < 1 - 0.0331 * (x * x) * (x * x) || log(u) < 0.5 * x * x + d * (1 - v + log(v)))
      return scale * d * v;
  }
}

/* ---- tensors of them ---- */

typedef double (*variate_fn)(stream *s, double a, double b);
typedef struct draw {
  uint64_t seed, first;
  const double *a, *b;
  double *to;
  variate_fn one;
} draw;

static void draw_range(void *ud, int64_t begin, int64_t end) {
  const draw *d = ud;
  for (int64_t i = begin; i < end; i++) {
    stream s = {.seed = d->seed, .counter = d->first + (uint64_t)i};
    d->to[i] = d->one(&s, d->a[i], d->b ? d->b[i] : 0);
  }
}

/* x as float64 in the shape of `like`; owned. */
static kn_status spread(kn_context *ctx, const kn_tensor *x, const kn_tensor *like, kn_tensor **out) {
  kn_type type = like->type;
  type.dtype = KN_F64;
  KN_TRY(kn_tensor_new(ctx, &type, out));
  kk_view to = kk_view_of(*out), from = kk_view_of(x);
  kk_copy(ctx, &to, &from);
  return KN_OK;
}

/* The parameters are checked before the stream moves. */
static kn_status check_range(kn_context *ctx, const kn_tensor *x, double high, bool open,
                             const char *sentence) {
  const double *v = kn_tensor_data(x);
  for (int64_t i = 0; i < kn_tensor_numel(x); i++)
    if (!(open ? v[i] > 0 : v[i] >= 0) || !(v[i] <= high))
      return kn_fail(ctx, KN_ARG, "%s, element %lld is %g", sentence, (long long)i + 1, v[i]);
  return KN_OK;
}

static kn_status draw_all(kn_context *ctx, variate_fn one, kn_tensor *const *own, int n, kn_tensor *out) {
  int64_t count = kn_tensor_numel(out);
  draw d = {.seed = ctx->random.seed,
            .first = kn_random_take(&ctx->random, 4 * (uint64_t)count),
            .a = kn_tensor_data(own[0]),
            .b = n > 1 ? kn_tensor_data(own[1]) : NULL,
            .to = kn_tensor_data(own[0]),
            .one = one};
  kn_parallel_for(ctx, count, KK_GRAIN / 64, draw_range, &d);
  kk_view to = kk_view_of(out), from = kk_view_of(own[0]);
  kk_copy(ctx, &to, &from);
  return KN_OK;
}

static double one_poisson(stream *s, double a, double b) {
  (void)b;
  return poisson(s, a);
}

KERNEL(poisson) {
  kn_tensor *own[1] = {NULL};
  (void)attrs, (void)n;
  KN_TRY(spread(ctx, in[0], out[0], &own[0]));
  kn_status st = check_range(ctx, own[0], DBL_MAX, false, "poisson: rates must be numbers of at least 0");
  if (st == KN_OK) st = draw_all(ctx, one_poisson, own, 1, out[0]);
  kk_release_all(own, 1);
  return st;
}

KERNEL(binomial) {
  kn_tensor *own[2] = {NULL};
  (void)attrs, (void)n;
  kn_status st = spread(ctx, in[0], out[0], &own[0]);
  if (st == KN_OK) st = spread(ctx, in[1], out[0], &own[1]);
  if (st == KN_OK)
    st = check_range(ctx, own[0], 0x1p53, false, "binomial: counts must lie between 0 and 2^53");
  if (st == KN_OK) st = check_range(ctx, own[1], 1, false, "binomial: probabilities must lie in [0, 1]");
  if (st == KN_OK) st = draw_all(ctx, binomial, own, 2, out[0]);
  kk_release_all(own, 2);
  return st;
}

static double one_gamma(stream *s, double a, double least) { return fmax(gamma_variate(s, a), least); }

/* Never 0, whose logarithm has no use: at least the smallest normal number of the dtype. */
KERNEL(standard_gamma) {
  kn_tensor *own[2] = {NULL};
  (void)attrs, (void)n;
  kn_status st = spread(ctx, in[0], out[0], &own[0]);
  if (st == KN_OK) st = spread(ctx, in[0], out[0], &own[1]);
  if (st == KN_OK) st = check_range(ctx, own[0], DBL_MAX, true, "standard_gamma: shapes must be positive");
  if (st == KN_OK) {
    double *least = kn_tensor_data(own[1]);
    for (int64_t i = 0; i < kn_tensor_numel(own[1]); i++)
      least[i] = kn_tensor_dtype(out[0]) == KN_F64   ? DBL_MIN
                 : kn_tensor_dtype(out[0]) == KN_F16 ? 0x1p-14
                                                     : (double)FLT_MIN;
    st = draw_all(ctx, one_gamma, own, 2, out[0]);
  }
  kk_release_all(own, 2);
  return st;
}

/* ---- multinomial ---- */

typedef struct weights {
  uint64_t seed, first;
  double *w; /* [rows, n]; becomes sums, or keys */
  int64_t n, samples, *to;
  bool replacement;
} weights;

static double word_uniform(const weights *q, uint64_t i) {
  return kn_uniform_f64(kn_random_word(q->seed, q->first, 2 * i),
                        kn_random_word(q->seed, q->first, 2 * i + 1));
}

static void with_replacement(const weights *q, int64_t row) {
  double *w = q->w + row * q->n, sum = 0;
  for (int64_t i = 0; i < q->n; i++) w[i] = sum += w[i];
  for (int64_t j = 0; j < q->samples; j++) {
    int64_t at = row * q->samples + j, low = 0, high = q->n - 1;
    double x = word_uniform(q, (uint64_t)at) * sum;
    while (low < high) { /* the first sum above x */
      int64_t mid = (low + high) / 2;
      if (w[mid] > x)
        high = mid;
      else
        low = mid + 1;
    }
    while (low > 0 && w[low] == w[low - 1]) low--; /* rounding may lead to a weight of 0 at the end */
    q->to[at] = low + 1;
  }
}

/* The keys that have been chosen are the smallest; a place in their order is kept by exchanging. */
static void without_replacement(const weights *q, int64_t row) {
  double *key = q->w + row * q->n;
  int64_t *to = q->to + row * q->samples;
  for (int64_t i = 0; i < q->n; i++) {
    double u = 1 - word_uniform(q, (uint64_t)(row * q->n + i));
    key[i] = key[i] > 0 ? -log(u) / key[i] : INFINITY;
  }
  for (int64_t j = 0, have = 0; j < q->n; j++) { /* insertion among the smallest so far */
    int64_t low = 0, high = have;
    while (low < high) {
      int64_t mid = (low + high) / 2;
      if (key[to[mid] - 1] <= key[j])
        low = mid + 1;
      else
        high = mid;
    }
    if (low == q->samples) continue;
    if (have < q->samples) have++;
    memmove(to + low + 1, to + low, (size_t)(have - low - 1) * sizeof *to);
    to[low] = j + 1;
  }
}

static void weights_range(void *ud, int64_t begin, int64_t end) {
  const weights *q = ud;
  for (int64_t row = begin; row < end; row++) {
    if (q->replacement)
      with_replacement(q, row);
    else
      without_replacement(q, row);
  }
}

static kn_status check_weights(kn_context *ctx, const weights *q, int64_t rows) {
  for (int64_t row = 0; row < rows; row++) {
    int64_t there = 0;
    double sum = 0;
    for (int64_t i = 0; i < q->n; i++) {
      double w = q->w[row * q->n + i];
      if (!(w >= 0) || isinf(w))
        return kn_fail(ctx, KN_ARG,
                       "multinomial: weights must be finite and at least 0, element %lld of row %lld is %g",
                       (long long)i + 1, (long long)row + 1, w);
      there += w > 0;
      sum += w;
    }
    if (isinf(sum))
      return kn_fail(ctx, KN_ARG, "multinomial: the weights of row %lld are too large", (long long)row + 1);
    if (there == 0 || (!q->replacement && there < q->samples))
      return kn_fail(ctx, KN_ARG, "multinomial: row %lld has %lld weights above 0, %lld are to be drawn%s",
                     (long long)row + 1, (long long)there, (long long)q->samples,
                     q->replacement ? "" : " without replacement");
  }
  return KN_OK;
}

KERNEL(multinomial) {
  const kn_attrs_multinomial *a = attrs;
  kn_tensor *own;
  (void)n;
  KN_TRY(spread(ctx, in[0], in[0], &own));
  weights q = {.seed = ctx->random.seed,
               .w = kn_tensor_data(own),
               .n = in[0]->type.dims[in[0]->type.rank - 1],
               .samples = a->num_samples,
               .to = kn_tensor_data(out[0]),
               .replacement = a->replacement};
  int64_t rows = in[0]->type.rank > 1 ? in[0]->type.dims[0] : 1;
  kn_status st = check_weights(ctx, &q, rows);
  if (st == KN_OK) {
    q.first = kn_random_take(&ctx->random, 2 * (uint64_t)(rows * (q.replacement ? q.samples : q.n)));
    kn_parallel_for(ctx, rows, KK_GRAIN / 4 / (q.n + q.samples + 1) + 1, weights_range, &q);
  }
  kn_tensor_release(own);
  return st;
}
