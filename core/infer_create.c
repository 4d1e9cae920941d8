/* Type rules of tensors made from nothing, random ones included. All dtypes can be made, but a number that is
 * asked for must fit: integers do not wrap around here. */
#include "core/infer.h"

/* For the rules of rows with the flag DEVICE. */
static kn_status placed(const kn_infer *q, int32_t device) {
  if (device < 0 || device >= KN_DEVICE_COUNT)
    return kn_infer_fail(q, KN_ARG, "unknown device %d", (int)device);
  q->out[0].device = (uint8_t)device;
  return KN_OK;
}

static kn_status check_dtype(const kn_infer *q, kn_dtype d) {
  return (unsigned)d < KN_DTYPE_COUNT ? KN_OK : kn_infer_fail(q, KN_ARG, "unknown dtype %d", (int)d);
}

/* A size that may be a placeholder: *out is unknown then. */
static kn_status one_size(const kn_infer *q, int64_t v, int64_t *out) {
  if (!kn_is_dyn(v) && v < 0) return kn_infer_fail(q, KN_ARG, "size %lld is negative", (long long)v);
  *out = kn_is_dyn(v) ? KN_DIM_UNKNOWN : v;
  return KN_OK;
}

static kn_status sized(const kn_infer *q, const kn_ints *sizes, kn_dtype dtype, int32_t device) {
  KN_TRY(check_dtype(q, dtype));
  q->out[0] = (kn_type){.dtype = (uint8_t)dtype, .rank = (uint8_t)sizes->n};
  for (int i = 0; i < sizes->n; i++) KN_TRY(one_size(q, sizes->v[i], &q->out[0].dims[i]));
  return placed(q, device);
}

kn_status kn_infer_fill(const kn_infer *q) {
  const kn_attrs_fill *a = q->attrs;
  KN_TRY(sized(q, &a->sizes, a->dtype, a->device));
  return kn_infer_holds(q, a->dtype, a->value_number);
}

/* Floats. */
kn_status kn_infer_random(const kn_infer *q) {
  const kn_attrs_create *a = q->attrs;
  KN_TRY(check_dtype(q, a->dtype));
  if (!kn_dtype_is_float(a->dtype))
    return kn_infer_fail(q, KN_DTYPE, "a floating dtype is needed, not %s", kn_dtype_name(a->dtype));
  return sized(q, &a->sizes, a->dtype, a->device);
}

kn_status kn_infer_randint(const kn_infer *q) {
  const kn_attrs_randint *a = q->attrs;
  if (!kn_is_dyn(a->low) && !kn_is_dyn(a->high) && a->low >= a->high)
    return kn_infer_fail(q, KN_ARG, "there is no whole number in [%lld, %lld)", (long long)a->low,
                         (long long)a->high);
  KN_TRY(sized(q, &a->sizes, a->dtype, a->device));
  if (!kn_is_dyn(a->low)) KN_TRY(kn_infer_holds(q, a->dtype, kn_number_of(a->low)));
  return kn_is_dyn(a->high) ? KN_OK : kn_infer_holds(q, a->dtype, kn_number_of(a->high - 1));
}

kn_status kn_infer_randperm(const kn_infer *q) {
  const kn_attrs_randperm *a = q->attrs;
  q->out[0] = (kn_type){.dtype = KN_I64, .rank = 1};
  KN_TRY(one_size(q, a->n, &q->out[0].dims[0]));
  return placed(q, a->device);
}

/* bernoulli: floats. */
kn_status kn_infer_random_like(const kn_infer *q) {
  KN_TRY(kn_infer_floating(q, 0));
  q->out[0] = q->in[0];
  return KN_OK;
}

/* A range of whole numbers into int64, which is counted without rounding; -1: the step leads away. */
static int64_t whole_count(int64_t start, int64_t end, int64_t step) {
  if (start == end) return 0;
  if ((end > start) != (step > 0)) return -1;
  uint64_t way = step > 0 ? (uint64_t)end - (uint64_t)start : (uint64_t)start - (uint64_t)end;
  uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
  uint64_t count = (way - 1) / stride + 1;
  return count > INT64_MAX ? INT64_MAX : (int64_t)count;
}

static kn_status whole_range(const kn_infer *q, int64_t start, int64_t end, int64_t step, int32_t device) {
  int64_t count = whole_count(start, end, step);
  if (count < 0)
    return kn_infer_fail(q, KN_ARG, "a step of %lld does not lead from %lld to %lld", (long long)step,
                         (long long)start, (long long)end);
  if (count >= INT64_C(1) << 62) return kn_infer_fail(q, KN_SHAPE, "too many elements");
  q->out[0] = (kn_type){.dtype = KN_I64, .rank = 1, .dims = {count}};
  return placed(q, device);
}

/* Numbers. */
kn_status kn_infer_arange(const kn_infer *q) {
  const kn_attrs_range *a = q->attrs;
  int64_t first, end, step;
  KN_TRY(check_dtype(q, a->dtype));
  if (a->dtype == KN_BOOL) return kn_infer_fail(q, KN_DTYPE, "not defined for bool");
  if (kn_number_waits(a->start_number) || kn_number_waits(a->end_number) || kn_number_waits(a->step_number)) {
    q->out[0] = (kn_type){.dtype = (uint8_t)a->dtype, .rank = 1, .dims = {KN_DIM_UNKNOWN}};
    return placed(q, a->device);
  }
  if (a->dtype == KN_I64 && a->step != 0 && kn_number_whole(a->start_number, &first) &&
      kn_number_whole(a->end_number, &end) && kn_number_whole(a->step_number, &step))
    return whole_range(q, first, end, step, a->device);
  if (!isfinite(a->start) || !isfinite(a->end) || !isfinite(a->step))
    return kn_infer_fail(q, KN_ARG, "start, end and step must be finite");
  if (a->step == 0) return kn_infer_fail(q, KN_ARG, "the step must not be 0");
  double count = ceil((a->end - a->start) / a->step);
  if (count < 0)
    return kn_infer_fail(q, KN_ARG, "a step of %g does not lead from %g to %g", a->step, a->start, a->end);
  if (count >= 0x1p62) return kn_infer_fail(q, KN_SHAPE, "too many elements");
  if (count > 0) {
    KN_TRY(kn_infer_holds(q, a->dtype, a->start_number));
    KN_TRY(kn_infer_holds(q, a->dtype, (kn_number){a->start + (count - 1) * a->step, 0}));
  }
  q->out[0] = (kn_type){.dtype = (uint8_t)a->dtype, .rank = 1, .dims = {(int64_t)count}};
  return placed(q, a->device);
}

/* Numbers. */
kn_status kn_infer_linspace(const kn_infer *q) {
  const kn_attrs_linspace *a = q->attrs;
  KN_TRY(check_dtype(q, a->dtype));
  if (a->dtype == KN_BOOL) return kn_infer_fail(q, KN_DTYPE, "not defined for bool");
  KN_TRY(kn_infer_holds(q, a->dtype, (kn_number){a->start, 0}));
  KN_TRY(kn_infer_holds(q, a->dtype, (kn_number){a->end, 0}));
  q->out[0] = (kn_type){.dtype = (uint8_t)a->dtype, .rank = 1};
  KN_TRY(one_size(q, a->steps, &q->out[0].dims[0]));
  return placed(q, a->device);
}

kn_status kn_infer_eye(const kn_infer *q) {
  const kn_attrs_eye *a = q->attrs;
  KN_TRY(check_dtype(q, a->dtype));
  q->out[0] = (kn_type){.dtype = (uint8_t)a->dtype, .rank = 2};
  KN_TRY(one_size(q, a->n, &q->out[0].dims[0]));
  KN_TRY(one_size(q, a->m == KN_NONE ? a->n : a->m, &q->out[0].dims[1]));
  return placed(q, a->device);
}

kn_status kn_infer_to_device(const kn_infer *q) {
  q->out[0] = q->in[0];
  return placed(q, ((const kn_attrs_device *)q->attrs)->device);
}

/* full_like */
kn_status kn_infer_like_first(const kn_infer *q) {
  const kn_attrs_value *a = q->attrs;
  KN_TRY(kn_infer_holds(q, (kn_dtype)q->in[0].dtype, a->value_number));
  q->out[0] = q->in[0];
  return KN_OK;
}

/* binomial: two of one floating dtype. */
kn_status kn_infer_random_pair(const kn_infer *q) {
  KN_TRY(kn_infer_floating(q, 0));
  KN_TRY(kn_infer_same_dtype(q, 0, 1));
  KN_TRY(kn_infer_broadcast(q, 0));
  q->out->dtype = q->in[0].dtype;
  return KN_OK;
}

/* The state of a random stream: seed and offset. */
kn_status kn_infer_random_state(const kn_infer *q) {
  kn_type state = {.dtype = KN_I64, .rank = 1, .dims = {2}};
  if (q->n && (q->in[0].dtype != KN_I64 || q->in[0].rank != 1 ||
               (kn_dim_known(q->in[0].dims[0]) && q->in[0].dims[0] != 2)))
    return kn_infer_fail(q, KN_ARG, "the state of a random stream is int64 [2], as fork_random gives it");
  q->out[0] = state;
  return KN_OK;
}

/* Floats. */
kn_status kn_infer_multinomial(const kn_infer *q) {
  const kn_attrs_multinomial *a = q->attrs;
  const kn_type *x = &q->in[0];
  KN_TRY(kn_infer_floating(q, 0));
  if (x->rank != 1 && x->rank != 2)
    return kn_infer_fail(q, KN_SHAPE, "one or two dims of weights are needed");
  int64_t n = x->dims[x->rank - 1], samples = a->num_samples;
  if (n == 0) return kn_infer_fail(q, KN_SHAPE, "there are no weights");
  if (!kn_is_dyn(samples) && samples < 1)
    return kn_infer_fail(q, KN_ARG, "num_samples must be at least 1, not %lld", (long long)samples);
  if (!kn_is_dyn(samples) && kn_dim_known(n) && !a->replacement && samples > n)
    return kn_infer_fail(q, KN_ARG, "%lld cannot be drawn of %lld without replacement", (long long)samples,
                         (long long)n);
  q->out[0] = *x;
  q->out->dtype = KN_I64;
  return one_size(q, samples, &q->out->dims[x->rank - 1]);
}
