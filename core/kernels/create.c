/* Kernels that make tensors from numbers. Values are worked out in double, whole ones for int64 in int64, and
 * cast as `cast` does. */
#include "core/kernels/kernel.h"

/* A run of values by position: kind of the op, filled into any dtype. */
typedef struct values {
  double start, step, end;
  int64_t count, columns;
  char *to;
  kn_dtype dtype;
  double (*at)(const struct values *v, int64_t i);
} values;

static double constant_at(const values *v, int64_t i) {
  (void)i;
  return v->start;
}
static double range_at(const values *v, int64_t i) { return v->start + (double)i * v->step; }
/* From both ends towards the middle, so that both are exact. */
static double linspace_at(const values *v, int64_t i) {
  return i < v->count / 2 || v->count == 1 ? v->start + (double)i * v->step
                                           : v->end - (double)(v->count - 1 - i) * v->step;
}
static double eye_at(const values *v, int64_t i) { return i / v->columns == i % v->columns; }

/* Worked out in double, block by block, and cast. */
static void fill_range(void *ud, int64_t begin, int64_t end) {
  const values *v = ud;
  double block[KK_BLOCK];
  int64_t size = (int64_t)kn_dtype_size(v->dtype);
  kk_inner_fn cast = kk_cast_run(KN_F64, v->dtype);
  for (int64_t i = begin; i < end; i += KK_BLOCK) {
    int64_t n = end - i < KK_BLOCK ? end - i : KK_BLOCK;
    for (int64_t k = 0; k < n; k++) block[k] = v->at(v, i + k);
    cast((char *[]){v->to + i * size, (char *)block}, (int64_t[]){size, sizeof(double)}, n, NULL);
  }
}

static kn_status fill(kn_context *ctx, values v, kn_tensor *out) {
  v.to = kn_tensor_data(out);
  v.dtype = kn_tensor_dtype(out);
  v.count = kn_tensor_numel(out);
  kn_parallel_for(ctx, v.count, KK_GRAIN, fill_range, &v);
  return KN_OK;
}

/* start, start + step, … in int64, exactly; what would pass its end is not reached. */
typedef struct steps {
  int64_t start, step, *to;
} steps;

static void fill_steps(void *ud, int64_t begin, int64_t end) {
  const steps *v = ud;
  for (int64_t i = begin; i < end; i++) v->to[i] = kk_wrap_add(v->start, kk_wrap_mul(i, v->step));
}

static kn_status fill_whole(kn_context *ctx, int64_t start, int64_t step, kn_tensor *out) {
  steps v = {start, step, kn_tensor_data(out)};
  kn_parallel_for(ctx, kn_tensor_numel(out), KK_GRAIN, fill_steps, &v);
  return KN_OK;
}

static kn_status fill_with(kn_context *ctx, kn_number value, kn_tensor *out) {
  if (value.near == 0 && !signbit(value.near)) return kk_zero(ctx, out), KN_OK;
  if (kn_tensor_dtype(out) == KN_I64) return fill_whole(ctx, kn_number_int(value), 0, out);
  return fill(ctx, (values){.at = constant_at, .start = value.near}, out);
}

KERNEL(full) {
  (void)in, (void)n;
  return fill_with(ctx, ((const kn_attrs_fill *)attrs)->value_number, out[0]);
}

KERNEL(full_like) {
  (void)in, (void)n;
  return fill_with(ctx, ((const kn_attrs_value *)attrs)->value_number, out[0]);
}

KERNEL(arange) {
  const kn_attrs_range *a = attrs;
  int64_t start, step;
  (void)in, (void)n;
  if (a->dtype == KN_I64 && kn_number_whole(a->start_number, &start) &&
      kn_number_whole(a->step_number, &step))
    return fill_whole(ctx, start, step, out[0]);
  values v = {.at = range_at, .start = a->start, .step = a->step};
  return fill(ctx, v, out[0]);
}

KERNEL(linspace) {
  const kn_attrs_linspace *a = attrs;
  (void)in, (void)n;
  double gaps = (double)(kn_tensor_numel(out[0]) - 1);
  values v = {
      .at = linspace_at, .start = a->start, .end = a->end, .step = gaps > 0 ? (a->end - a->start) / gaps : 0};
  return fill(ctx, v, out[0]);
}

KERNEL(eye) {
  (void)attrs, (void)in, (void)n;
  return fill(ctx, (values){.at = eye_at, .columns = out[0]->type.dims[1]}, out[0]);
}
