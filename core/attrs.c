/* Field tables of the attribute structs, defaults and equality. */
#include "core/attrs.h"
#include <stdio.h>
#include <string.h>

#define NAME(choices, name) #name,
#define NAMES(choices) static const char *const names_of_##choices[] = {KN_CHOICES_##choices(NAME) NULL};
KN_CHOICES(NAMES)

/* One function per struct, so that T can name it inside the rows. */
/* clang-format off */
#define ROW(f, k, num, val, req) {ENTRIES(f, k, num, val, req)},
#define ENTRIES(f, k, num, val, req) \
  .name = #f, .kind = KN_FIELD_##k, .offset = offsetof(T, f), .required = req, .number = num, .integer = val
#define ATTRS(n)                                                                                             \
  static const kn_field *fields_of_##n(void) {                                                               \
    typedef kn_attrs_##n T;                                                                                  \
    static const kn_field rows[] = {
#define INT(f, d) ROW(f, INT, 0, d, (d) == KN_REQUIRED)
#define INDEX(f, d) ROW(f, INDEX, 0, d, (d) == KN_REQUIRED)
#define AXIS(f, d) ROW(f, AXIS, 0, d, (d) == KN_REQUIRED)
#define NUMBER(f, d) ROW(f, NUMBER, (double)(d), 0, (double)(d) == (double)KN_REQUIRED)
#define FREE(f, d) \
      {ENTRIES(f, NUMBER, (double)(d), 0, (double)(d) == (double)KN_REQUIRED), .free = true},
#define FLOAT(f, d) ROW(f, FLOAT, (double)(d), 0, (double)(d) == (double)KN_REQUIRED)
#define BOOL(f, d) ROW(f, BOOL, 0, d, (d) == KN_REQUIRED)
#define AXES(f) ROW(f, AXES, 0, 0, false)
#define INTS(f, d) ROW(f, INTS, 0, d, (d) == KN_REQUIRED)
#define SIZES(f) ROW(f, SIZES, 0, 0, true)
#define DTYPE(f, d) ROW(f, DTYPE, 0, (int64_t)(d), (int64_t)(d) == KN_REQUIRED)
#define ENUM(f, c, d)                                                                                        \
      {.name = #f, .kind = KN_FIELD_ENUM, .offset = offsetof(T, f), .integer = KN_CHOICE_##c##_##d,          \
       .names = names_of_##c},
#define TEXT(f) ROW(f, TEXT, 0, 0, true)
#define NUMBERS(f) ROW(f, NUMBERS, 0, 0, false)
#define END(n)                                                                                               \
      {.name = NULL, .offset = sizeof(T)},                                                                   \
    };                                                                                                       \
    return rows;                                                                                             \
  }
#include "core/attrs.def"
#include "core/attrs_undef.h"
/* clang-format on */

kn_attrs_info kn_attrs_describe(kn_attrs_kind kind) {
  switch (kind) {
#define ATTRS(n)                                                                                             \
  case KN_ATTRS_##n:                                                                                         \
    return (kn_attrs_info){#n, sizeof(kn_attrs_##n), fields_of_##n()};
#include "core/attrs_skip.h"
#include "core/attrs.def"
#include "core/attrs_undef.h"
  case KN_ATTRS_COUNT: break;
  }
  return (kn_attrs_info){"?", 0, fields_of_none()};
}

/* ---- numbers ---- */

/* The sum of both, which lies in int64 when rest is not 0; 2^63 does not, but wraps around to where a rest
 * below 0 brings it back. */
static int64_t joined(kn_number x) {
  uint64_t near = x.near >= 0x1p63 ? UINT64_C(1) << 63 : (uint64_t)(int64_t)x.near;
  return (int64_t)(near + (uint64_t)x.rest);
}

kn_number kn_number_of(int64_t i) {
  kn_number x = {(double)i, 0};
  x.rest = (int64_t)((uint64_t)i - (uint64_t)joined(x));
  return x;
}

int64_t kn_number_int(kn_number x) { return x.rest ? joined(x) : kn_f64_to_i64(x.near); }

bool kn_number_whole(kn_number x, int64_t *out) {
  if (!(x.near >= -0x1p63 && (x.near < 0x1p63 || (x.near == 0x1p63 && x.rest < 0)))) return false;
  if (trunc(x.near) != x.near) return false;
  *out = joined(x);
  return true;
}

bool kn_number_fits(kn_number x, kn_dtype d) {
  int64_t i;
  if (!x.rest || !kn_number_whole(x, &i)) return kn_dtype_holds(d, x.near);
  return kn_dtypes[d].category != KN_CAT_INT || (i >= kn_dtypes[d].lowest && i <= kn_dtypes[d].highest);
}

char *kn_number_said(kn_number x, char buf[KN_NUMBER_SAID]) {
  if (x.rest)
    snprintf(buf, KN_NUMBER_SAID, "%lld", (long long)joined(x));
  else
    snprintf(buf, KN_NUMBER_SAID, "%g", x.near);
  return buf;
}

bool kn_text_set(kn_text *t, const char *s, size_t n) {
  if (n >= KN_TEXT_ROOM || memchr(s, 0, n)) return false;
  memset(t, 0, sizeof *t);
  memcpy(t->s, s, n);
  return true;
}

/* ---- what an ENUM chooses from ---- */

static bool is_named(const char *own, const char *name, size_t length) {
  if (strlen(own) != length) return false;
  for (size_t i = 0; i < length; i++)
    if (own[i] != name[i] && !(own[i] == '_' && name[i] == '-')) return false;
  return true;
}

int kn_field_choice(const kn_field *f, const char *name, size_t length) {
  for (int i = 0; f->names[i]; i++)
    if (is_named(f->names[i], name, length)) return i;
  return -1;
}

char *kn_field_choices(const kn_field *f, char *buf, size_t size) {
  buf[0] = 0;
  for (int i = 0; f->names[i]; i++) {
    size_t at = strlen(buf);
    const char *before = !i ? "" : f->names[i + 1] ? ", " : " or ";
    snprintf(buf + at, size - at, "%s'%s'", before, f->names[i]);
  }
  return buf;
}

void kn_attrs_default(kn_attrs_kind kind, void *attrs) {
  kn_attrs_info info = kn_attrs_describe(kind);
  memset(attrs, 0, info.size);
  for (const kn_field *f = info.fields; f->name; f++) {
    void *at = kn_field_at(attrs, f);
    if (f->required) continue;
    switch (f->kind) {
    case KN_FIELD_INT:
    case KN_FIELD_INDEX:
    case KN_FIELD_AXIS: *(int64_t *)at = f->integer; break;
    case KN_FIELD_FLOAT: *(double *)at = f->number; break;
    case KN_FIELD_NUMBER: *(kn_number *)at = (kn_number){f->number, 0}; break;
    case KN_FIELD_BOOL: *(bool *)at = f->integer != 0; break;
    case KN_FIELD_ENUM: *(int32_t *)at = (int32_t)f->integer; break;
    case KN_FIELD_DTYPE: *(kn_dtype *)at = (kn_dtype)f->integer; break;
    case KN_FIELD_INTS: *(kn_ints *)at = (kn_ints){1, {f->integer}}; break;
    case KN_FIELD_AXES:
    case KN_FIELD_SIZES:
    case KN_FIELD_TEXT:
    case KN_FIELD_NUMBERS: break;
    }
  }
}

static bool ints_equal(const kn_ints *a, const kn_ints *b) {
  if (a->n != b->n) return false;
  for (int i = 0; i < a->n; i++)
    if (a->v[i] != b->v[i]) return false;
  return true;
}

static bool number_equal(const kn_number *a, const kn_number *b) {
  return !memcmp(&a->near, &b->near, sizeof a->near) && a->rest == b->rest;
}

/* By their bits, as floats are. */
static bool numbers_equal(const kn_numbers *a, const kn_numbers *b) {
  return a->n == b->n && !memcmp(a->v, b->v, (size_t)a->n * sizeof *a->v);
}

static bool field_equal(const kn_field *f, const void *a, const void *b) {
  switch (f->kind) {
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS: return *(const int64_t *)a == *(const int64_t *)b;
  case KN_FIELD_FLOAT: return !memcmp(a, b, sizeof(double)); /* bits: nan equals nan, 0 differs from -0 */
  case KN_FIELD_NUMBER: return number_equal(a, b);
  case KN_FIELD_BOOL: return *(const bool *)a == *(const bool *)b;
  case KN_FIELD_ENUM: return *(const int32_t *)a == *(const int32_t *)b;
  case KN_FIELD_DTYPE: return *(const kn_dtype *)a == *(const kn_dtype *)b;
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: return ints_equal(a, b);
  case KN_FIELD_TEXT: return !strcmp(((const kn_text *)a)->s, ((const kn_text *)b)->s);
  case KN_FIELD_NUMBERS: return numbers_equal(a, b);
  }
  return false;
}

bool kn_attrs_equal(kn_attrs_kind kind, const void *a, const void *b) {
  for (const kn_field *f = kn_attrs_describe(kind).fields; f->name; f++)
    if (!field_equal(f, kn_field_get(a, f), kn_field_get(b, f))) return false;
  return true;
}

bool kn_attrs_may_wait(kn_attrs_kind kind) {
  static const bool may[KN_ATTRS_COUNT] = {
/* clang-format off */
#define ATTRS(n) [KN_ATTRS_##n] = false
#define INT(f, d) || true
#define INDEX(f, d) || true
#define INTS(f, d) || true
#define SIZES(f) || true
#define FREE(f, d) || true
#define AXIS(f, d)
#define FLOAT(f, d)
#define NUMBER(f, d)
#define BOOL(f, d)
#define AXES(f)
#define DTYPE(f, d)
#define ENUM(f, c, d)
#define TEXT(f)
#define NUMBERS(f)
#define END(n) ,
#include "core/attrs.def"
#include "core/attrs_undef.h"
      /* clang-format on */
  };
  return may[kind];
}

void kn_attrs_each_int(kn_attrs_kind kind, void *attrs, void (*fn)(void *ud, int64_t *v), void *ud) {
  for (const kn_field *f = kn_attrs_describe(kind).fields; f->name; f++) {
    void *at = kn_field_at(attrs, f);
    if (f->kind == KN_FIELD_INT || f->kind == KN_FIELD_INDEX) fn(ud, at);
    if (f->kind == KN_FIELD_INTS || f->kind == KN_FIELD_SIZES)
      for (int i = 0; i < ((kn_ints *)at)->n; i++) fn(ud, &((kn_ints *)at)->v[i]);
    if (f->free) fn(ud, &((kn_number *)at)->rest);
  }
}

bool kn_attrs_any_number(kn_attrs_kind kind, const void *attrs, uint32_t k) {
  for (const kn_field *f = kn_attrs_describe(kind).fields; f->name; f++)
    if (f->free && ((const kn_number *)kn_field_get(attrs, f))->rest == KN_DYN(k)) return true;
  return false;
}
