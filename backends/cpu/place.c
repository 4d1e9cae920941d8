/* The driver of argmax and argmin. Along the innermost dim: blocks are searched for their best by the loops
 * of amax and amin, and only a block that holds the best so far is looked through. Along another: columns
 * side by side keep the best and the row it came from. The first of equals wins, and nan over all. Compiled
 * once. */
#include "backends/cpu/fold.h"
#include <math.h>
#include <string.h>

enum { LANES = 64, BLOCK = 2048 };

typedef struct search {
  cp_fold_fn best, accs;
  cp_places_fn places;
  cp_run cast; /* NULL: none */
  kn_dtype as;
  bool smallest;
  const char *x;
  int64_t *to;
  int64_t size, width; /* of an element, once cast */
  int64_t n, inner,
      outer; /* length of the dim; elements between neighbours along it; what is outside of it */
} search;

static bool floats(const search *s) { return kn_dtype_is_float(s->as); }

static double as_float(const search *s, const char *p) {
  return s->as == KN_F32 ? (double)*(const float *)p : *(const double *)p;
}

/* Whether accumulator a is to replace b. */
static bool better(const search *s, const char *a, const char *b) {
  if (floats(s)) {
    double x = *(const double *)a, y = *(const double *)b;
    return (s->smallest ? x < y : x > y) || (x != x && y == y);
  }
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return s->smallest ? x < y : x > y;
}

static bool is_it(const search *s, const char *x, const char *best) {
  if (!floats(s)) return *(const int64_t *)x == *(const int64_t *)best;
  double v = as_float(s, x), b = *(const double *)best;
  return v == b || (v != v && b != b);
}

static const char *bring(const search *s, const char *x, int64_t m, char *room) {
  if (!s->cast) return x;
  s->cast((char *[]){room, (char *)(uintptr_t)x}, m, NULL);
  return room;
}

static void start(const search *s, char *acc, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (floats(s))
      ((double *)acc)[i] = s->smallest ? INFINITY : -INFINITY;
    else
      ((int64_t *)acc)[i] = s->smallest ? INT64_MAX : INT64_MIN;
}

/* The best of m elements, into acc[0]. */
static void best_of(const search *s, const char *x, int64_t m, char *acc) {
  int64_t side = m < LANES ? m : LANES, rows = m / side, rest = m % side;
  start(s, acc, side);
  s->best(acc, x, side * s->width, rows, side);
  if (rest) s->best(acc, x + rows * side * s->width, 0, 1, rest);
  for (int64_t half; side > 1; side -= half) {
    half = side / 2;
    s->accs(acc, acc + (side - half) * 8, 0, 1, half);
  }
}

/* A row whose elements follow each other. */
static int64_t search_row(const search *s, const char *x) {
  _Alignas(CP_LINE) char acc[LANES * 8], best[8] = {0}, room[BLOCK * 8];
  int64_t block = 0;
  for (int64_t at = 0; at < s->n; at += BLOCK) {
    int64_t m = s->n - at < BLOCK ? s->n - at : BLOCK;
    best_of(s, bring(s, x + at * s->size, m, room), m, acc);
    if (at && !better(s, acc, best)) continue;
    memcpy(best, acc, 8);
    block = at;
  }
  int64_t m = s->n - block < BLOCK ? s->n - block : BLOCK, i = 0;
  const char *v = bring(s, x + block * s->size, m, room);
  while (i < m - 1 && !is_it(s, v + i * s->width, best)) i++;
  return block + i + 1;
}

static void row_range(void *ud, int64_t begin, int64_t end) {
  const search *s = ud;
  for (int64_t r = begin; r < end; r++) s->to[r] = search_row(s, s->x + r * s->n * s->size);
}

/* Units are blocks of columns. */
static void column_range(void *ud, int64_t begin, int64_t end) {
  const search *s = ud;
  _Alignas(CP_LINE) char best[LANES * 8], room[LANES * 8];
  int64_t places[LANES], blocks = (s->inner + LANES - 1) / LANES;
  for (int64_t u = begin; u < end; u++) {
    int64_t first = u % blocks * LANES, outer = u / blocks, n = s->inner - first;
    if (n > LANES) n = LANES;
    const char *x = s->x + (outer * s->n * s->inner + first) * s->size;
    start(s, best, n);
    for (int64_t i = 0; i < n; i++) places[i] = -1;
    if (!s->cast)
      s->places(best, places, x, s->inner * s->size, 0, s->n, n);
    else
      for (int64_t r = 0; r < s->n; r++)
        s->places(best, places, bring(s, x + r * s->inner * s->size, n, room), 0, r, 1, n);
    for (int64_t i = 0; i < n; i++) s->to[outer * s->inner + first + i] = places[i] + 1;
  }
}

kn_status cp_place(kn_context *ctx, const cp_isa *isa, const cp_folds *folds, int which, const kn_tensor *x,
                   int dim, kn_tensor *out) {
  kn_dtype own = kn_tensor_dtype(x), as = own == KN_BOOL ? KN_I64 : kn_dtypes[own].wide;
  cp_fold_kind kind = which ? CP_MIN : CP_MAX;
  if (kn_tensor_numel(x) == 0 || !kn_tensor_contiguous(x)) return KN_DECLINED;
  search s = {.best = folds->of[kind][as].rows,
              .accs = folds->of[kind][kn_dtype_is_float(as) ? KN_F64 : KN_I64].rows,
              .places = folds->places[which][as],
              .cast = own == as ? NULL : isa->cast[own][as],
              .as = as,
              .smallest = which,
              .x = kn_tensor_data(x),
              .to = kn_tensor_data(out),
              .size = (int64_t)kn_dtype_size(own),
              .width = (int64_t)kn_dtype_size(as),
              .n = dim < 0 ? kn_tensor_numel(x) : x->type.dims[dim],
              .inner = 1,
              .outer = 1};
  for (int d = 0; dim >= 0 && d < x->type.rank; d++)
    if (d < dim)
      s.outer *= x->type.dims[d];
    else if (d > dim)
      s.inner *= x->type.dims[d];
  if (s.inner == 1)
    kn_parallel_for(ctx, s.outer, CP_CHEAP / s.n + 1, row_range, &s);
  else
    kn_parallel_for(ctx, s.outer * ((s.inner + LANES - 1) / LANES), CP_CHEAP / (s.n * LANES) + 1,
                    column_range, &s);
  return KN_OK;
}
