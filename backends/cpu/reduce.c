/* The driver of reductions. Dims are put in the order of memory, whatever is kept or folded; then there are
 * two ways. The innermost dim is kept: columns of accumulators side by side take row after row. It is folded:
 * a row is seen as such columns, which are folded into one at the end. A large fold is cut into pieces whose
 * size depends on shapes alone, so results do not depend on the number of threads. Compiled once. */
#include "backends/cpu/fold.h"
#include <math.h>
#include <string.h>

enum { LANES = 256, ROWS = 8, PIECE = CP_PIECE, MOST_UNITS = 64, SHORT = 32 };

typedef struct axis {
  int64_t dim, x, to; /* size; strides in bytes of the input and of the result (0: folded) */
} axis;

typedef struct job {
  cp_fold_fn rows, accs; /* of elements, of accumulators */
  cp_short_fn each;
  cp_run cast, finish; /* of elements on their way in, of accumulators to results; NULL: none */
  bool floats, mean;
  double start_f;
  int64_t start_i;
  int64_t count; /* elements folded into one */
  const char *x;
  char *to;
  int64_t size, width, to_size; /* bytes of an element, once cast, of a result */
  axis inner;
  axis kept[KN_MAX_RANK], over[KN_MAX_RANK]; /* the others, from the outermost in */
  int nkept, nover;
  bool columns; /* the innermost dim is kept */
  int64_t side, blocks,
      units; /* columns of one unit of work; such blocks in the innermost dim; units in all */
  int64_t pieces, each_piece; /* of a unit; rows (columns) or elements of the innermost dim in each */
  int64_t lined; /* rows that are seen as one, when the columns are few and rows follow each other */
  char *partial; /* units x pieces x side accumulators; NULL: one piece */
} job;

typedef struct lanes {
  _Alignas(CP_LINE) char at[LANES * 8];
} lanes;

static void start(const job *j, void *acc, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (j->floats)
      ((double *)acc)[i] = j->start_f;
    else
      ((int64_t *)acc)[i] = j->start_i;
}

/* ---- a block of elements, gathered and cast where it must be ---- */

#define GATHER(T)                                                                                            \
  for (int64_t i = 0; i < n; i++) ((T *)to)[i] = *(const T *)(x + i * step)
static void gather(char *to, const char *x, int64_t step, int64_t n, int64_t size) {
  switch (size) {
  case 1: GATHER(uint8_t); break;
  case 2: GATHER(uint16_t); break;
  case 4: GATHER(uint32_t); break;
  default: GATHER(uint64_t);
  }
}

static const char *bring(const job *j, const char *x, int64_t step, int64_t n, char *to, char *between) {
  if (step != j->size) {
    gather(j->cast ? between : to, x, step, n, j->size);
    x = j->cast ? between : to;
  }
  if (!j->cast) return x;
  j->cast((char *[]){to, (char *)(uintptr_t)x}, n, NULL);
  return to;
}

/* Rows of n <= LANES elements, `apart` bytes from each other, into as many accumulators. */
static void take_rows(const job *j, void *acc, const char *x, int64_t step, int64_t apart, int64_t rows,
                      int64_t n) {
  if (step == j->size && !j->cast) {
    j->rows(acc, x, apart, rows, n);
    return;
  }
  _Alignas(CP_LINE) char block[ROWS * LANES * 8], between[LANES * 8];
  for (int64_t r = 0; r < rows; r += ROWS) {
    int64_t m = rows - r < ROWS ? rows - r : ROWS;
    for (int64_t k = 0; k < m; k++) {
      char *place = block + k * n * j->width;
      const char *at = bring(j, x + (r + k) * apart, step, n, place, between);
      if (at != place) memcpy(place, at, (size_t)(n * j->width));
    }
    j->rows(acc, block, n * j->width, m, n);
  }
}

/* A run of n elements into `side` accumulators, which take turns. */
static void take_run(const job *j, void *acc, int64_t side, const char *x, int64_t step, int64_t n) {
  int64_t rows = n / side, rest = n % side;
  if (rows) take_rows(j, acc, x, step, side * step, rows, side);
  if (rest) take_rows(j, acc, x + rows * side * step, step, 0, 1, rest);
}

/* Accumulators [0, n) into the first `left`; n is a multiple of it. */
static void narrow_by(cp_fold_fn accs, char *acc, int64_t n, int64_t left) {
  while (n > left) {
    int64_t half = n / left / 2 * left;
    accs(acc, acc + (n - half) * 8, 0, 1, half);
    n -= half;
  }
}
static void narrow(const job *j, char *acc, int64_t n, int64_t left) { narrow_by(j->accs, acc, n, left); }

/* ---- a piece of a unit ---- */

static void walk_over(const job *j, int naxes, void (*body)(const job *, const char *, void *), const char *x,
                      void *ud) {
  int64_t at[KN_MAX_RANK] = {0}, total = 1;
  for (int d = 0; d < naxes; d++) total *= j->over[d].dim;
  for (int64_t i = 0; i < total; i++) {
    body(j, x, ud);
    for (int d = naxes - 1; d >= 0; d--) {
      x += j->over[d].x;
      if (++at[d] < j->over[d].dim) break;
      x -= j->over[d].x * j->over[d].dim;
      at[d] = 0;
    }
  }
}

typedef struct part {
  char *acc;
  int64_t side, first, n; /* rows or elements of this piece */
  int64_t wide;           /* accumulators in use */
} part;

static void column_part(const job *j, const char *x, void *ud) {
  part *p = ud;
  if (!j->nover) {
    take_rows(j, p->acc, x, j->inner.x, 0, 1, p->side);
    return;
  }
  const axis *o = &j->over[j->nover - 1];
  x += p->first * o->x;
  int64_t lined = p->n / j->lined;
  if (j->lined > 1) {
    j->rows(p->acc, x, o->x * j->lined, lined, p->side * j->lined);
    take_rows(j, p->acc, x + lined * j->lined * o->x, j->inner.x, o->x, p->n - lined * j->lined, p->side);
  } else {
    take_rows(j, p->acc, x, j->inner.x, o->x, p->n, p->side);
  }
}

/* A row of floats that lie one after the other has a loop that joins its lanes itself. */
static bool in_rows(const job *j) { return j->floats && !j->columns && !j->cast && j->inner.x == j->size; }

static void run_part(const job *j, const char *x, void *ud) {
  part *p = ud;
  if (p->wide == 1 && in_rows(j)) {
    j->each(p->acc, x + p->first * j->size, 1, p->n);
    return;
  }
  take_run(j, p->acc, p->wide, x + p->first * j->inner.x, j->inner.x, p->n);
}

/* Where unit u begins. */
static void find_unit(const job *j, int64_t u, const char **x, char **to) {
  int64_t block = u % j->blocks, rest = u / j->blocks;
  *x = j->x + (j->columns ? block * j->side * j->inner.x : 0);
  *to = j->to + (j->columns ? block * j->side * j->inner.to : 0);
  for (int d = j->nkept - 1; d >= 0; d--) {
    int64_t at = rest % j->kept[d].dim;
    rest /= j->kept[d].dim;
    *x += at * j->kept[d].x;
    *to += at * j->kept[d].to;
  }
}

static int64_t side_of(const job *j, int64_t u) {
  int64_t left = j->columns ? j->inner.dim - u % j->blocks * j->side : 1;
  return left < j->side ? left : j->side;
}

/* Leaves side_of accumulators in acc. */
static void fold_piece(const job *j, int64_t u, int64_t piece, const char *x, char *acc) {
  const axis *cut = j->columns ? (j->nover ? &j->over[j->nover - 1] : NULL) : &j->inner;
  part p = {.acc = acc, .side = side_of(j, u), .first = piece * j->each_piece};
  p.n = cut ? cut->dim - p.first : 1;
  if (p.n > j->each_piece) p.n = j->each_piece;
  if (j->columns) {
    p.wide = p.side * j->lined;
    start(j, acc, p.wide);
    walk_over(j, j->nover ? j->nover - 1 : 0, column_part, x, &p);
    narrow(j, acc, p.wide, p.side);
  } else {
    p.wide = in_rows(j) ? 1 : p.n >= 8 * LANES ? LANES : p.n < 32 ? p.n : 32;
    start(j, acc, p.wide);
    walk_over(j, j->nover, run_part, x, &p);
    narrow(j, acc, p.wide, 1);
  }
}

static void finish(const job *j, char *acc, char *to, int64_t n) {
  _Alignas(CP_LINE) char out[LANES * 8];
  for (int64_t i = 0; j->mean && i < n; i++) ((double *)acc)[i] /= (double)j->count;
  bool near = n == 1 || j->inner.to == j->to_size;
  j->finish((char *[]){near ? to : out, acc}, n, NULL);
  for (int64_t i = 0; !near && i < n; i++)
    memcpy(to + i * j->inner.to, out + i * j->to_size, (size_t)j->to_size);
}

static void piece_range(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  lanes acc;
  const char *x;
  char *to;
  for (int64_t i = begin; i < end; i++) {
    int64_t u = i / j->pieces, piece = i % j->pieces, n = side_of(j, u);
    find_unit(j, u, &x, &to);
    fold_piece(j, u, piece, x, acc.at);
    if (j->pieces == 1)
      finish(j, acc.at, to, n);
    else
      memcpy(j->partial + i * j->side * 8, acc.at, (size_t)n * 8);
  }
}

static void join_pieces(const job *j) {
  const char *x;
  char *to;
  for (int64_t u = 0; u < j->units; u++) {
    char *acc = j->partial + u * j->pieces * j->side * 8;
    int64_t n = side_of(j, u);
    find_unit(j, u, &x, &to);
    j->accs(acc, acc + j->side * 8, j->side * 8, j->pieces - 1, n);
    finish(j, acc, to, n);
  }
}

/* Rows of few elements, or of floats, one after the other: many results at a time. */
static void short_range(void *ud, int64_t begin, int64_t end) {
  const job *j = ud;
  lanes acc;
  for (int64_t u = begin; u < end; u += LANES) {
    int64_t m = end - u < LANES ? end - u : LANES;
    start(j, acc.at, m);
    j->each(acc.at, j->x + u * j->inner.dim * j->size, m, j->inner.dim);
    for (int64_t i = 0; j->mean && i < m; i++) ((double *)acc.at)[i] /= (double)j->count;
    j->finish((char *[]){j->to + u * j->to_size, acc.at}, m, NULL);
  }
}

/* ---- setting up ---- */

static int64_t size_of(int64_t x) { return x < 0 ? -x : x; }

/* Is everything folded, and does it lie in its order? */
static bool is_line(const kn_tensor *x, const bool *over) {
  for (int d = 0; d < x->type.rank; d++)
    if (!over[d]) return false;
  return kn_tensor_contiguous(x);
}

/* Dims of the input in the order of its memory, neighbours joined where both sides allow it. */
static int sort_axes(const kn_tensor *x, const bool *over, const kn_tensor *out, axis *a) {
  int n = 0, joined = 0;
  int64_t size = (int64_t)kn_dtype_size(kn_tensor_dtype(x)),
          to_size = (int64_t)kn_dtype_size(kn_tensor_dtype(out));
  if (is_line(x, over)) { /* what the rest would find, of most losses and conditions */
    a[0] = (axis){kn_tensor_numel(x), size, 0};
    return 1;
  }
  for (int64_t d = x->type.rank - 1, to = to_size; d >= 0; d--) {
    int64_t dim = x->type.dims[d];
    if (dim > 1) a[n++] = (axis){dim, x->strides[d] * size, over[d] ? 0 : to};
    if (!over[d]) to *= dim;
  }
  for (int i = 0; i < n / 2; i++) { /* outermost first */
    axis t = a[i];
    a[i] = a[n - 1 - i], a[n - 1 - i] = t;
  }
  for (int i = 1; i < n; i++)
    for (int k = i; k > 0 && size_of(a[k - 1].x) < size_of(a[k].x); k--) {
      axis t = a[k];
      a[k] = a[k - 1], a[k - 1] = t;
    }
  for (int i = 0; i < n; i++) {
    axis *last = &a[joined - 1];
    if (joined && last->x == a[i].x * a[i].dim && last->to == a[i].to * a[i].dim && !last->to == !a[i].to)
      *last = (axis){last->dim * a[i].dim, a[i].x, a[i].to};
    else
      a[joined++] = a[i];
  }
  if (!joined) a[joined++] = (axis){1, size, 0};
  return joined;
}

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool cp_folds_whole(int64_t n) { return n < 2 * PIECE; }

/* Units and pieces: from shapes alone. */
static void cut(job *j) {
  int64_t kept = 1, over = 1;
  for (int d = 0; d < j->nkept; d++) kept *= j->kept[d].dim;
  for (int d = 0; d < j->nover; d++) over *= j->over[d].dim;
  j->side = !j->columns ? 1 : j->inner.dim < LANES ? j->inner.dim : LANES;
  j->blocks = j->columns ? divide_up(j->inner.dim, j->side) : 1;
  j->units = kept * j->blocks;
  const axis *last = j->columns ? (j->nover ? &j->over[j->nover - 1] : NULL) : &j->inner;
  int64_t rows = last ? last->dim : 1, row = j->columns ? j->side : 1;
  j->each_piece = rows;
  j->pieces = 1;
  if (j->units < MOST_UNITS && !cp_folds_whole(rows * row)) {
    j->each_piece = divide_up(PIECE, row);
    j->pieces = divide_up(rows, j->each_piece);
  }
  j->lined = 1;
  bool follow =
      j->columns && j->nover && !j->cast && j->inner.x == j->size && last->x == j->inner.dim * j->size;
  if (follow && j->inner.dim <= LANES / 2) j->lined = LANES / j->inner.dim;
}

static kn_status run(kn_context *ctx, job *j) {
  int64_t work = j->units * j->pieces, each = j->count * j->units * j->side / (work ? work : 1) + 1;
  int64_t grain = CP_CHEAP / each + 1;
  bool brief = !j->columns && !j->nover && (j->inner.dim < SHORT || (j->floats && j->pieces == 1)) &&
               j->inner.x == j->size && !j->cast && j->nkept <= 1;
  if (brief && (!j->nkept || (j->kept[0].x == j->inner.dim * j->size && j->kept[0].to == j->to_size))) {
    kn_parallel_for(ctx, j->units, grain, short_range, j);
    return KN_OK;
  }
  if (j->pieces > 1) {
    j->partial = kn_scratch_take(ctx, (size_t)(work * j->side) * 8);
    if (!j->partial) return kn_fail_nomem(ctx, (size_t)(work * j->side) * 8);
  }
  kn_parallel_for(ctx, work, grain, piece_range, j);
  if (j->pieces > 1) {
    join_pieces(j);
    kn_scratch_give(ctx, j->partial, (size_t)(work * j->side) * 8);
  }
  return KN_OK;
}

static const double start_floats[CP_FOLD_KINDS] = {0, 1, -INFINITY, INFINITY};
static const int64_t start_wholes[CP_FOLD_KINDS] = {0, 1, INT64_MIN, INT64_MAX};

static void set_start(job *j, cp_fold_kind kind, kn_dtype as) {
  j->floats = kn_dtype_is_float(as);
  j->start_f = start_floats[kind];
  j->start_i = start_wholes[kind];
}

kn_status cp_reduce(kn_context *ctx, const cp_isa *isa, const cp_folds *folds, const cp_reduction *r,
                    const kn_tensor *x, const bool over[KN_MAX_RANK], kn_tensor *out) {
  kn_dtype own = kn_tensor_dtype(x), as = r->truth ? KN_BOOL : own, to = kn_tensor_dtype(out);
  const cp_fold *table = folds->of[r->kind];
  axis a[KN_MAX_RANK];
  if (!table[as].rows) as = kn_dtypes[as].wide == KN_BOOL ? KN_I64 : kn_dtypes[as].wide;
  kn_dtype acc = kn_dtype_is_float(as) ? KN_F64 : KN_I64;
  if (kn_tensor_numel(x) == 0) return KN_DECLINED;
  job j = {.rows = table[as].rows,
           .accs = table[acc].rows,
           .each = table[as].each,
           .cast = own == as ? NULL : isa->cast[own][as],
           .finish = isa->cast[acc][to],
           .mean = r->mean,
           .x = kn_tensor_data(x),
           .to = kn_tensor_data(out),
           .size = (int64_t)kn_dtype_size(own),
           .width = (int64_t)kn_dtype_size(as),
           .to_size = (int64_t)kn_dtype_size(to),
           .count = kn_tensor_numel(x) / kn_tensor_numel(out)};
  set_start(&j, r->kind, as);
  int n = sort_axes(x, over, out, a);
  j.inner = a[n - 1];
  j.columns = j.inner.to != 0;
  for (int d = 0; d < n - 1; d++)
    if (a[d].to)
      j.kept[j.nkept++] = a[d];
    else
      j.over[j.nover++] = a[d];
  cut(&j);
  return run(ctx, &j);
}

/* ---- for those who fold as they go (walk.c, total.c) ---- */

const cp_reduction *cp_reduction_of(int op) {
#define X(op, ...) static const cp_reduction op = __VA_ARGS__;
  CP_REDUCTIONS(X)
#undef X
  switch (op) {
#define X(op, ...)                                                                                           \
  case KN_OP_##op: return &op;
    CP_REDUCTIONS(X)
#undef X
  case KN_OP_sum_to: return &sum;
  default: return NULL;
  }
}

bool cp_reduces_at_once(kn_dtype d, int64_t n) {
  return n > 0 && (kn_dtype_is_float(d) ? cp_folds_whole(n) : n < SHORT);
}

bool cp_fold_find(const cp_isa *isa, const cp_folds *folds, const cp_reduction *r, kn_dtype own, kn_dtype to,
                  int64_t count, cp_fold_of *out) {
  const cp_fold *table = folds->of[r->kind];
  const kn_dtype acc = kn_dtype_is_float(own) ? KN_F64 : KN_I64;
  if (!table[own].rows || (r->truth && own != KN_BOOL)) return false;
  *out = (cp_fold_of){.rows = table[own].rows,
                      .accs = table[acc].rows,
                      .each = table[own].each,
                      .finish = isa->cast[acc][to],
                      .kind = r->kind,
                      .floats = acc == KN_F64,
                      .mean = r->mean,
                      .count = count};
  return true;
}

void cp_fold_start(const cp_fold_of *f, void *acc, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (f->floats)
      ((double *)acc)[i] = start_floats[f->kind];
    else
      ((int64_t *)acc)[i] = start_wholes[f->kind];
}

void cp_fold_finish(const cp_fold_of *f, void *acc, int64_t n, char *to) {
  for (int64_t i = 0; f->mean && i < n; i++) ((double *)acc)[i] /= (double)f->count;
  f->finish((char *[]){to, acc}, n, NULL);
}

cp_cut cp_cut_columns(int64_t rows, int64_t n) {
  job j = {.size = 1, .columns = true, .nover = 1, .inner = {n, 1, 1}, .over = {{rows, n, 0}}};
  cut(&j);
  return (cp_cut){j.lined, j.each_piece, j.pieces};
}

void cp_fold_columns(const cp_fold_of *f, const cp_cut *cut, void *acc, const char *x, int64_t apart,
                     int64_t rows, int64_t n) {
  const int64_t lined = rows / cut->lined, rest = rows % cut->lined;
  f->rows(acc, x, apart * cut->lined, lined, n * cut->lined);
  if (rest) f->rows(acc, x + lined * cut->lined * apart, apart, rest, n);
}

void cp_fold_narrow(const cp_fold_of *f, char *acc, int64_t n, int64_t left) {
  narrow_by(f->accs, acc, n, left);
}
