/* Typed attribute structs and what generic code needs to know of them: the field table drives the printer,
 * the parser, Lua's argument reader and equality. Made from core/attrs.def. */
#ifndef KN_ATTRS_H
#define KN_ATTRS_H
#include "core/type.h"
#include <math.h>

struct kn_context;

#define KN_NONE INT64_MIN           /* "not given" for an integer field */
#define KN_TO_END INT64_MAX         /* a slice's open stop */
#define KN_REQUIRED (INT64_MIN / 2) /* marks a field without default; exact as a double */

/* While recording, an integer may be a graph value: the field then holds a placeholder, and the scalar
 * itself is an extra input of the node. Placeholders are far below any real size. */
#define KN_DYN_BASE (INT64_MIN + 1)
#define KN_DYN(k) (KN_DYN_BASE + (int64_t)(k))
static inline bool kn_is_dyn(int64_t v) { return v >= KN_DYN_BASE && v < KN_DYN_BASE + (1 << 24); }
static inline uint32_t kn_dyn_index(int64_t v) { return (uint32_t)(v - KN_DYN_BASE); }

/* A number as an attribute: the double nearest to it, and for an integer that is no double how much is
 * missing. So {x} is the number x for every double, and every int64 is exact. */
typedef struct kn_number {
  double near;
  int64_t rest; /* 0 unless near + rest is an integer of int64 */
} kn_number;
kn_number kn_number_of(int64_t i);
/* The integer, truncated and brought into range as `cast` does. */
int64_t kn_number_int(kn_number x);
/* Whether it is an integer of int64, and which. */
bool kn_number_whole(kn_number x, int64_t *out);
/* kn_dtype_holds, exactly. */
bool kn_number_fits(kn_number x, kn_dtype d);
/* A FREE number that is known only when the graph runs: `rest`, small otherwise, is the placeholder. */
static inline kn_number kn_number_waiting(int64_t placeholder) { return (kn_number){NAN, placeholder}; }
static inline bool kn_number_waits(kn_number x) { return kn_is_dyn(x.rest); }
enum { KN_NUMBER_SAID = 32 };
char *kn_number_said(kn_number x, char buf[KN_NUMBER_SAID]); /* for messages */

/* A short text, as an attribute. */
enum { KN_TEXT_ROOM = 64 };
typedef struct kn_text {
  char s[KN_TEXT_ROOM]; /* terminated, zeros behind it */
} kn_text;
bool kn_text_set(kn_text *t, const char *s, size_t n); /* false: too long, or it has a zero byte */
/* Plain numbers, as an attribute. */
typedef struct kn_numbers {
  int32_t n;
  double v[KN_MAX_RANK];
} kn_numbers;

/* Names that an ENUM field chooses from: X(choices, name). The field holds KN_CHOICE_<choices>_<name>. */
/* clang-format off */
#define KN_CHOICES_reduction(X) X(reduction, none) X(reduction, mean) X(reduction, sum)
#define KN_CHOICES_kl_reduction(X) X(kl_reduction, none) X(kl_reduction, mean) X(kl_reduction, sum) X(kl_reduction, batchmean)
#define KN_CHOICES_approximate(X) X(approximate, none) X(approximate, tanh)
#define KN_CHOICES_pad_mode(X) X(pad_mode, constant) X(pad_mode, reflect) X(pad_mode, replicate) X(pad_mode, circular)
#define KN_CHOICES_interpolate_mode(X) X(interpolate_mode, nearest) X(interpolate_mode, linear) X(interpolate_mode, bilinear) \
  X(interpolate_mode, bicubic) X(interpolate_mode, trilinear) X(interpolate_mode, area) X(interpolate_mode, nearest_exact)
#define KN_CHOICES_grid_mode(X) X(grid_mode, bilinear) X(grid_mode, nearest) X(grid_mode, bicubic)
#define KN_CHOICES_grid_padding(X) X(grid_padding, zeros) X(grid_padding, border) X(grid_padding, reflection)
#define KN_CHOICES_qr_mode(X) X(qr_mode, reduced) X(qr_mode, complete) X(qr_mode, r)
#define KN_CHOICES_triangle(X) X(triangle, L) X(triangle, U)
/* orders of matrix norms; numbers are spelt out, in Lua they are numbers */
#define KN_CHOICES_matrix_ord(X) X(matrix_ord, fro) X(matrix_ord, nuc) X(matrix_ord, inf) X(matrix_ord, minus_inf) \
  X(matrix_ord, one) X(matrix_ord, minus_one) X(matrix_ord, two) X(matrix_ord, minus_two)
#define KN_CHOICES_nonlinearity(X) X(nonlinearity, tanh) X(nonlinearity, relu)
#define KN_CHOICES_interpolation(X) X(interpolation, linear) X(interpolation, lower) X(interpolation, higher) X(interpolation, midpoint) X(interpolation, nearest)
#define KN_CHOICES_device(X) X(device, cpu) X(device, cuda) /* in the order of kn_device_id */
#define KN_CHOICES_rounding(X) X(rounding, none) X(rounding, floor) X(rounding, trunc)
#define KN_CHOICES_fold(X) X(fold, prod) X(fold, amax) X(fold, amin)
#define KN_CHOICES_scatter_reduction(X) X(scatter_reduction, sum) X(scatter_reduction, prod) X(scatter_reduction, mean) \
  X(scatter_reduction, amax) X(scatter_reduction, amin)
#define KN_CHOICES(X) /* all of them */ \
  X(device) X(rounding) X(fold) X(scatter_reduction) \
  X(nonlinearity) X(interpolation) X(grid_mode) X(grid_padding) X(qr_mode) X(triangle) X(matrix_ord) X(reduction) X(kl_reduction) X(approximate) X(pad_mode) X(interpolate_mode)

#define KN_CHOICE_ITEM(choices, name) KN_CHOICE_##choices##_##name,
#define KN_CHOICE_ENUM(choices) enum { KN_CHOICES_##choices(KN_CHOICE_ITEM) KN_CHOICE_##choices##_count };
KN_CHOICES(KN_CHOICE_ENUM)
/* clang-format on */

/* The structs: kn_attrs_reduce { kn_ints dim; bool keepdim; } and so on. */
#define ATTRS(n)                                                                                             \
  typedef struct kn_attrs_##n {                                                                              \
    char present_; /* keeps `none` a valid struct */
#define INT(f, d) int64_t f;
#define INDEX(f, d) int64_t f;
#define AXIS(f, d) int64_t f;
#define FLOAT(f, d) double f;
#define NUMBER(f, d)                                                                                         \
  union {                                                                                                    \
    double f;                                                                                                \
    kn_number f##_number;                                                                                    \
  };
#define FREE(f, d) NUMBER(f, d)
#define BOOL(f, d) bool f;
#define AXES(f) kn_ints f;
#define INTS(f, d) kn_ints f;
#define SIZES(f) kn_ints f;
#define DTYPE(f, d) kn_dtype f;
#define ENUM(f, c, d) int32_t f;
#define TEXT(f) kn_text f;
#define NUMBERS(f) kn_numbers f;
#define END(n)                                                                                               \
  }                                                                                                          \
  kn_attrs_##n;
#include "core/attrs.def"
#include "core/attrs_undef.h"

typedef enum kn_attrs_kind {
#define ATTRS(n) KN_ATTRS_##n,
#include "core/attrs_skip.h"
#include "core/attrs.def"
#include "core/attrs_undef.h"
  KN_ATTRS_COUNT
} kn_attrs_kind;

typedef union kn_attrs_any { /* room for any of them */
#define ATTRS(n) kn_attrs_##n n;
#include "core/attrs_skip.h"
#include "core/attrs.def"
#include "core/attrs_undef.h"
} kn_attrs_any;

/* clang-format off */
typedef enum kn_field_kind {
  KN_FIELD_INT, KN_FIELD_INDEX, KN_FIELD_AXIS, KN_FIELD_FLOAT, KN_FIELD_NUMBER, KN_FIELD_BOOL,
  KN_FIELD_AXES, KN_FIELD_INTS, KN_FIELD_SIZES, KN_FIELD_DTYPE, KN_FIELD_ENUM,
  KN_FIELD_TEXT, KN_FIELD_NUMBERS
} kn_field_kind;
/* clang-format on */

typedef struct kn_field {
  const char *name; /* NULL ends a table */
  kn_field_kind kind;
  size_t offset;            /* in the struct */
  bool required;            /* has no default */
  bool free;                /* NUMBER: declared FREE */
  double number;            /* default of FLOAT and NUMBER */
  int64_t integer;          /* default of the others; of each place for INTS; AXES and SIZES start empty */
  const char *const *names; /* of ENUM: what value 0, 1, … is called, ended by NULL */
} kn_field;

typedef struct kn_attrs_info {
  const char *name;
  size_t size;
  const kn_field *fields; /* in order of Lua's positional arguments, ended by a NULL name */
} kn_attrs_info;

/* The value that an ENUM field has for a name of `length` bytes, where '-' is as good as '_'; -1 when there
 * is none. */
int kn_field_choice(const kn_field *f, const char *name, size_t length);
/* "'none', 'mean' or 'sum'" into buf (cut off if it must be), for messages. */
char *kn_field_choices(const kn_field *f, char *buf, size_t size);
kn_attrs_info kn_attrs_describe(kn_attrs_kind kind);
void kn_attrs_default(kn_attrs_kind kind, void *attrs); /* all defaults; required fields zero or empty */
bool kn_attrs_equal(kn_attrs_kind kind, const void *a, const void *b);
/* Whether a struct of that kind has integers that may be placeholders at all. */
bool kn_attrs_may_wait(kn_attrs_kind kind);
/* Calls fn for every integer that may be a placeholder: fields INT, INDEX, INTS and SIZES, the rest of FREE.
 */
void kn_attrs_each_int(kn_attrs_kind kind, void *attrs, void (*fn)(void *ud, int64_t *v), void *ud);
/* Whether placeholder k stands for any number, not for an integer. */
bool kn_attrs_any_number(kn_attrs_kind kind, const void *attrs, uint32_t k);
static inline void *kn_field_at(void *attrs, const kn_field *f) { return (char *)attrs + f->offset; }
static inline const void *kn_field_get(const void *attrs, const kn_field *f) {
  return (const char *)attrs + f->offset;
}

#endif
