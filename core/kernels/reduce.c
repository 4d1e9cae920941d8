/* Kernels of reductions. One walk serves all: for each element of the result, the elements of x that belong
 * to it are folded, run by run, into an accumulator; float32 is summed in double. A result element is
 * computed by one thread in one order, so results do not depend on the number of threads. Tables hold the
 * dtypes that kernels compute in; runs of other dtypes are cast in blocks, results at the end. */
#include "core/kernels/kernel.h"
#include <math.h>

typedef struct acc {
  double f;     /* sums; the best of floats */
  int64_t i;    /* sums; the best of integers */
  int64_t at;   /* argmax, argmin: how many were seen */
  int64_t best; /* argmax, argmin: 1-based position, 0 before any */
} acc;

typedef void (*fold_fn)(acc *a, const char *x, int64_t step, int64_t n);
typedef void (*finish_fn)(const acc *a, int64_t count, char *to);

typedef struct reduction {
  acc start;
  fold_fn fold;
  finish_fn finish;
} reduction;

/* ---- the walk ---- */

typedef struct walk {
  kk_view kept, over; /* x without the reduced dims, and only those */
  int64_t count;      /* elements folded into one */
  char *to;
  size_t size; /* of a result element */
  const reduction *r;
  /* Of x and of the result, where they are in other dtypes than kernels compute in; else NULL. */
  kk_inner_fn cast_in, cast_out;
  int64_t in_size; /* of an element of x once cast */
} walk;

static void add_dim(kk_view *v, int64_t dim, int64_t stride) {
  int last = v->rank - 1;
  if (dim == 1) return;
  if (v->rank && v->strides[last] == stride * dim) { /* continues the one before */
    v->dims[last] *= dim;
    v->strides[last] = stride;
    return;
  }
  v->dims[v->rank] = dim;
  v->strides[v->rank++] = stride;
}

static void fold_run(const walk *w, acc *a, const char *x, int64_t step, int64_t n) {
  _Alignas(64) char block[KK_BLOCK * 8];
  if (!w->cast_in) {
    w->r->fold(a, x, step, n);
    return;
  }
  for (int64_t i = 0; i < n; i += KK_BLOCK) {
    int64_t m = n - i < KK_BLOCK ? n - i : KK_BLOCK;
    char *from = (char *)(uintptr_t)x + i * step; /* only read */
    w->cast_in((char *[]){block, from}, (int64_t[]){w->in_size, step}, m, NULL);
    w->r->fold(a, block, w->in_size, m);
  }
}

static void finish(const walk *w, const acc *a, char *to) {
  _Alignas(8) char wide[8];
  w->r->finish(a, w->count, w->cast_out ? wide : to);
  if (w->cast_out) w->cast_out((char *[]){to, wide}, (int64_t[]){0, 0}, 1, NULL);
}

static void walk_range(void *ud, int64_t begin, int64_t end) {
  const walk *w = ud;
  const kk_view *over = &w->over;
  int last = over->rank - 1;
  int64_t run = last < 0 ? 1 : over->dims[last], step = last < 0 ? 0 : over->strides[last];
  for (int64_t o = begin; o < end; o++) {
    const char *x = w->kept.data;
    for (int64_t d = w->kept.rank - 1, rest = o; d >= 0; d--) {
      x += rest % w->kept.dims[d] * w->kept.strides[d];
      rest /= w->kept.dims[d];
    }
    acc a = w->r->start;
    int64_t at[KN_MAX_RANK] = {0};
    for (int64_t done = 0; done < w->count; done += run) {
      const char *p = x;
      for (int d = 0; d < last; d++) p += at[d] * over->strides[d];
      fold_run(w, &a, p, step, run);
      for (int d = last - 1; d >= 0 && ++at[d] == over->dims[d]; d--) at[d] = 0;
    }
    finish(w, &a, w->to + (size_t)o * w->size);
  }
}

static kn_status reduce(kn_context *ctx, const kn_tensor *x, const bool over[KN_MAX_RANK],
                        const reduction table[KN_DTYPE_COUNT], kn_tensor *out) {
  kk_view v = kk_view_of(x);
  kn_dtype from = v.dtype, wide = kk_wide(from), to = kn_tensor_dtype(out);
  walk w = {.kept = {.data = v.data},
            .to = kn_tensor_data(out),
            .size = kn_dtype_size(to),
            .r = &table[wide],
            .cast_in = wide == from ? NULL : kk_cast_run(from, wide),
            .cast_out = kk_wide(to) == to ? NULL : kk_cast_run(kk_wide(to), to),
            .in_size = (int64_t)kn_dtype_size(wide)};
  w.count = 1;
  for (int d = 0; d < v.rank; d++) {
    if (over[d]) w.count *= v.dims[d];
    add_dim(over[d] ? &w.over : &w.kept, v.dims[d], v.strides[d]);
  }
  int64_t results = kn_tensor_numel(out);
  kn_parallel_for(ctx, results, KK_GRAIN / (w.count > 0 ? w.count : 1) + 1, walk_range, &w);
  return KN_OK;
}

static kn_status reduce_dims(kn_context *ctx, const kn_tensor *x, const kn_ints *dim, const reduction *table,
                             kn_tensor *out) {
  bool over[KN_MAX_RANK];
  for (int d = 0; d < KN_MAX_RANK; d++) over[d] = dim->n == 0;
  for (int i = 0; i < dim->n; i++) over[kk_axis(dim->v[i], x->type.rank)] = true;
  return reduce(ctx, x, over, table, out);
}

/* ---- sums ---- */

/* Four sums side by side keep the adder busy and lose less to rounding. */
#define SUM_FLOAT(T, E)                                                                                      \
  static void sum_##E(acc *a, const char *x, int64_t step, int64_t n) {                                      \
    double s[4] = {0, 0, 0, 0};                                                                              \
    int64_t i = 0;                                                                                           \
    for (; i + 4 <= n; i += 4)                                                                               \
      for (int k = 0; k < 4; k++) s[k] += (double)*(const T *)(x + (i + k) * step);                          \
    for (; i < n; i++) s[0] += (double)*(const T *)(x + i * step);                                           \
    a->f += (s[0] + s[1]) + (s[2] + s[3]);                                                                   \
  }                                                                                                          \
  static void sum_to_##E(const acc *a, int64_t count, char *to) {                                            \
    (void)count;                                                                                             \
    *(T *)to = (T)a->f;                                                                                      \
  }                                                                                                          \
  static void mean_to_##E(const acc *a, int64_t count, char *to) { *(T *)to = (T)(a->f / (double)count); }
KK_FLOATS(SUM_FLOAT)

#define SUM_WHOLE(T, E)                                                                                      \
  static void sum_##E(acc *a, const char *x, int64_t step, int64_t n) {                                      \
    for (int64_t i = 0; i < n; i++) a->i = kk_wrap_add(a->i, *(const T *)(x + i * step));                    \
  }
SUM_WHOLE(uint8_t, BOOL)
SUM_WHOLE(int64_t, I64)
static void sum_to_I64(const acc *a, int64_t count, char *to) {
  (void)count;
  *(int64_t *)to = a->i;
}

static const reduction sums[KN_DTYPE_COUNT] = {
    [KN_BOOL] = {.fold = sum_BOOL, .finish = sum_to_I64},
    [KN_I64] = {.fold = sum_I64, .finish = sum_to_I64},
    [KN_F32] = {.fold = sum_F32, .finish = sum_to_F32},
    [KN_F64] = {.fold = sum_F64, .finish = sum_to_F64},
};
static const reduction means[KN_DTYPE_COUNT] = {
    [KN_F32] = {.fold = sum_F32, .finish = mean_to_F32},
    [KN_F64] = {.fold = sum_F64, .finish = mean_to_F64},
};

KERNEL(sum) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, sums, out[0]);
}

/* ---- products ---- */

#define PROD_FLOAT(T, E)                                                                                     \
  static void prod_##E(acc *a, const char *x, int64_t step, int64_t n) {                                     \
    for (int64_t i = 0; i < n; i++) a->f *= (double)*(const T *)(x + i * step);                              \
  }
KK_FLOATS(PROD_FLOAT)
#define PROD_WHOLE(T, E)                                                                                     \
  static void prod_##E(acc *a, const char *x, int64_t step, int64_t n) {                                     \
    for (int64_t i = 0; i < n; i++) a->i = kk_wrap_mul(a->i, *(const T *)(x + i * step));                    \
  }
PROD_WHOLE(uint8_t, BOOL)
PROD_WHOLE(int64_t, I64)

static const reduction prods[KN_DTYPE_COUNT] = {
    [KN_BOOL] = {.start = {.i = 1}, .fold = prod_BOOL, .finish = sum_to_I64},
    [KN_I64] = {.start = {.i = 1}, .fold = prod_I64, .finish = sum_to_I64},
    [KN_F32] = {.start = {.f = 1}, .fold = prod_F32, .finish = sum_to_F32},
    [KN_F64] = {.start = {.f = 1}, .fold = prod_F64, .finish = sum_to_F64},
};

KERNEL(prod) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, prods, out[0]);
}

KERNEL(mean) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, means, out[0]);
}

KERNEL(sum_to) {
  (void)n;
  if (kn_type_equal(&in[0]->type, &out[0]->type)) /* nothing is added, not even 0 to -0 */
    return kn_kernel_clone(ctx, attrs, in, n, out);
  const kn_type *x = &in[0]->type, *b = &in[1]->type;
  bool over[KN_MAX_RANK] = {false};
  int lead = x->rank - b->rank;
  for (int d = 0; d < x->rank; d++) over[d] = d < lead || (b->dims[d - lead] == 1 && x->dims[d] != 1);
  return reduce(ctx, in[0], over, sums, out[0]);
}

/* ---- largest and smallest ---- */

/* BETTER(x, y): x replaces y. nan replaces all but nan, and nothing replaces it. */
#define MORE_FLOAT(x, y) ((x) > (y) || ((x) != (x) && (y) == (y)))
#define LESS_FLOAT(x, y) ((x) < (y) || ((x) != (x) && (y) == (y)))
#define MORE_WHOLE(x, y) ((x) > (y))
#define LESS_WHOLE(x, y) ((x) < (y))

#define BEST(name, T, E, field, F, BETTER)                                                                   \
  static void name##_##E(acc *a, const char *p, int64_t step, int64_t n) {                                   \
    F best = a->field;                                                                                       \
    int64_t where = a->best;                                                                                 \
    for (int64_t i = 0; i < n; i++) {                                                                        \
      const F x = (F) * (const T *)(p + i * step);                                                           \
      if (where == 0 || BETTER(x, best)) {                                                                   \
        best = x;                                                                                            \
        where = a->at + i + 1;                                                                               \
      }                                                                                                      \
    }                                                                                                        \
    a->field = best;                                                                                         \
    a->best = where;                                                                                         \
    a->at += n;                                                                                              \
  }
#define BESTS(name, WHOLE, FLOAT)                                                                            \
  BEST(name, uint8_t, BOOL, i, int64_t, WHOLE)                                                               \
  BEST(name, int64_t, I64, i, int64_t, WHOLE)                                                                \
  BEST(name, float, F32, f, double, FLOAT)                                                                   \
  BEST(name, double, F64, f, double, FLOAT)
BESTS(most, MORE_WHOLE, MORE_FLOAT)
BESTS(least, LESS_WHOLE, LESS_FLOAT)

#define BEST_TO(T, E, field)                                                                                 \
  static void best_to_##E(const acc *a, int64_t count, char *to) {                                           \
    (void)count;                                                                                             \
    *(T *)to = (T)a->field;                                                                                  \
  }
BEST_TO(uint8_t, BOOL, i)
BEST_TO(int64_t, I64, i)
BEST_TO(float, F32, f)
BEST_TO(double, F64, f)
static void position_to(const acc *a, int64_t count, char *to) {
  (void)count;
  *(int64_t *)to = a->best;
}

#define MOST_VALUE(T, E) [KN_##E] = {.fold = most_##E, .finish = best_to_##E},
#define LEAST_VALUE(T, E) [KN_##E] = {.fold = least_##E, .finish = best_to_##E},
#define MOST_POSITION(T, E) [KN_##E] = {.fold = most_##E, .finish = position_to},
#define LEAST_POSITION(T, E) [KN_##E] = {.fold = least_##E, .finish = position_to},
static const reduction amaxs[KN_DTYPE_COUNT] = {KK_TYPES(MOST_VALUE)};
static const reduction amins[KN_DTYPE_COUNT] = {KK_TYPES(LEAST_VALUE)};
static const reduction argmaxs[KN_DTYPE_COUNT] = {KK_TYPES(MOST_POSITION)};
static const reduction argmins[KN_DTYPE_COUNT] = {KK_TYPES(LEAST_POSITION)};

KERNEL(amax) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, amaxs, out[0]);
}

KERNEL(amin) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, amins, out[0]);
}

static kn_status arg_reduce(kn_context *ctx, const kn_attrs_argreduce *a, kn_tensor *x,
                            const reduction *table, kn_tensor *out) {
  kn_ints dim = {.n = a->dim != KN_NONE, .v = {a->dim}};
  return reduce_dims(ctx, x, &dim, table, out);
}

KERNEL(argmax) {
  (void)n;
  return arg_reduce(ctx, attrs, in[0], argmaxs, out[0]);
}

KERNEL(argmin) {
  (void)n;
  return arg_reduce(ctx, attrs, in[0], argmins, out[0]);
}

/* ---- all, any ---- */

#define TRUTHS(T, E)                                                                                         \
  static void all_##E(acc *a, const char *x, int64_t step, int64_t n) {                                      \
    for (int64_t i = 0; i < n; i++) a->i &= *(const T *)(x + i * step) != 0;                                 \
  }                                                                                                          \
  static void any_##E(acc *a, const char *x, int64_t step, int64_t n) {                                      \
    for (int64_t i = 0; i < n; i++) a->i |= *(const T *)(x + i * step) != 0;                                 \
  }
KK_TYPES(TRUTHS)
#define ALL_ROW(T, E) [KN_##E] = {.start = {.i = 1}, .fold = all_##E, .finish = best_to_BOOL},
#define ANY_ROW(T, E) [KN_##E] = {.fold = any_##E, .finish = best_to_BOOL},
static const reduction alls[KN_DTYPE_COUNT] = {KK_TYPES(ALL_ROW)};
static const reduction anys[KN_DTYPE_COUNT] = {KK_TYPES(ANY_ROW)};

KERNEL(all) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, alls, out[0]);
}

KERNEL(any) {
  (void)n;
  return reduce_dims(ctx, in[0], &((const kn_attrs_reduce *)attrs)->dim, anys, out[0]);
}
