/* What reductions are made of, between their driver and the loops of each instruction set. */
#ifndef KN_CPU_FOLD_H
#define KN_CPU_FOLD_H
#include "backends/cpu/run.h"

typedef enum cp_fold_kind { CP_SUM, CP_PROD, CP_MAX, CP_MIN, CP_FOLD_KINDS } cp_fold_kind;

/* acc[j], double or int64, takes x[r][j] for each row r; rows are `apart` bytes from each other. */
typedef void (*cp_fold_fn)(void *acc, const char *x, int64_t apart, int64_t rows, int64_t n);
/* acc[r] takes all n > 0 elements of row r; rows follow each other. Of floats as quick for long rows. */
typedef void (*cp_short_fn)(void *acc, const char *x, int64_t rows, int64_t n);
/* best[j] and the row it came from (-1: none yet) take x[r][j]; `row` is the first one's number. */
typedef void (*cp_places_fn)(void *best, int64_t *places, const char *x, int64_t apart, int64_t row,
                             int64_t rows, int64_t n);

typedef struct cp_fold {
  cp_fold_fn rows;
  cp_short_fn each;
} cp_fold;

/* Sums of rows of floats go on in double after so many elements. */
enum { CP_LONGEST = 2048 };
/* A row so short is folded as one, by `each`, however few rows there are. */
bool cp_folds_whole(int64_t n);

/* Dtypes that are left out are cast to the wide one first. */
typedef struct cp_folds {
  cp_fold of[CP_FOLD_KINDS][KN_DTYPE_COUNT];
  cp_places_fn places[2][KN_DTYPE_COUNT]; /* of the largest, of the smallest */
} cp_folds;

/* What an op makes of them. */
typedef struct cp_reduction {
  cp_fold_kind kind;
  bool mean;  /* divided by their number */
  bool truth; /* of elements as bool */
} cp_reduction;

/* How all elements of a dtype are folded, and what the result is made into. */
typedef struct cp_fold_of {
  cp_fold_fn rows, accs; /* of elements, of accumulators */
  cp_short_fn each;
  cp_run finish; /* accumulators to results */
  cp_fold_kind kind;
  bool floats; /* accumulators are double, else int64 */
  bool mean;
  int64_t count; /* elements folded into one */
} cp_fold_of;
const cp_reduction *cp_reduction_of(int op); /* NULL: it is none */
/* Are n elements that lie in their order one row for `each`, when all are folded? */
bool cp_reduces_at_once(kn_dtype d, int64_t n);
/* False where elements have to be cast on their way in. */
bool cp_fold_find(const cp_isa *isa, const cp_folds *folds, const cp_reduction *r, kn_dtype own, kn_dtype to,
                  int64_t count, cp_fold_of *out);
void cp_fold_start(const cp_fold_of *f, void *acc, int64_t n);
void cp_fold_finish(const cp_fold_of *f, void *acc, int64_t n, char *to);

/* How rows of n elements, one after the other, are cut into pieces for the folds of their columns. A piece
 * has n x lined accumulators, which take `lined` rows as one, eight of these at a time, and are joined at its
 * end.
 */
typedef struct cp_cut {
  int64_t lined, rows, pieces; /* rows of a piece */
} cp_cut;
enum { CP_PIECE = 32768 }; /* elements of a piece of one row, if it has twice as many; and about of columns */
cp_cut cp_cut_columns(int64_t rows, int64_t n);
/* Rows that are `apart` bytes from each other; where several are taken as one, they follow each other. */
void cp_fold_columns(const cp_fold_of *f, const cp_cut *cut, void *acc, const char *x, int64_t apart,
                     int64_t rows, int64_t n);
void cp_fold_narrow(const cp_fold_of *f, char *acc, int64_t n, int64_t left); /* n accumulators into `left` */

kn_status cp_reduce(kn_context *ctx, const cp_isa *isa, const cp_folds *folds, const cp_reduction *r,
                    const kn_tensor *x, const bool over[KN_MAX_RANK], kn_tensor *out);
/* which 0: the largest, 1: the smallest; dim < 0: of all elements. */
kn_status cp_place(kn_context *ctx, const cp_isa *isa, const cp_folds *folds, int which, const kn_tensor *x,
                   int dim, kn_tensor *out);

#endif
