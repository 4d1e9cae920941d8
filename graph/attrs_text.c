/* Attributes of an op node as text, those that differ from their default. Shared by the text form (print.c)
 * and the listing (code.c), which write values differently. */
#include "graph/attrs_text.h"
#include <inttypes.h>
#include <string.h>

typedef struct attrs_writer {
  kn_writer *s;
  kn_put_value_fn put;
  void *ud;
} attrs_writer;

/* A position or size, or the input that stands for it. */
static void put_int(attrs_writer *p, const kn_node *n, kn_field_kind kind, int64_t v) {
  if (kn_is_dyn(v) && kn_dyn_index(v) < n->nin - n->ntensor)
    p->put(p->ud, n->in[n->ntensor + kn_dyn_index(v)]);
  else if ((kind == KN_FIELD_INDEX || kind == KN_FIELD_AXIS || kind == KN_FIELD_AXES) && v >= 0)
    kn_putf(p->s, "%" PRIu64, (uint64_t)v + 1);
  else
    kn_putf(p->s, "%" PRId64, v);
}

static bool is_default(const kn_field *f, const void *at, const void *standard) {
  if (f->required) return false;
  switch (f->kind) {
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS: return *(const int64_t *)at == f->integer;
  case KN_FIELD_FLOAT: return !memcmp(at, standard, sizeof(double));
  case KN_FIELD_NUMBER: return !memcmp(at, standard, sizeof(kn_number));
  case KN_FIELD_BOOL: return *(const bool *)at == *(const bool *)standard;
  case KN_FIELD_ENUM: return *(const int32_t *)at == f->integer;
  case KN_FIELD_DTYPE: return *(const kn_dtype *)at == *(const kn_dtype *)standard;
  case KN_FIELD_AXES:
  case KN_FIELD_SIZES: return ((const kn_ints *)at)->n == 0;
  case KN_FIELD_TEXT: return false;
  case KN_FIELD_NUMBERS: return ((const kn_numbers *)at)->n == 0;
  case KN_FIELD_INTS: return ((const kn_ints *)at)->n == 1 && ((const kn_ints *)at)->v[0] == f->integer;
  }
  return false;
}

/* An integer that is no double is written as the integer that it is. */
static void put_number(attrs_writer *p, const kn_node *n, const kn_number *x) {
  char buf[KN_NUMBER_TEXT];
  if (kn_number_waits(*x))
    put_int(p, n, KN_FIELD_INT, x->rest);
  else if (x->rest)
    kn_putf(p->s, "%" PRId64, kn_number_int(*x));
  else
    kn_puts(p->s, kn_double_text(x->near, buf));
}

static void put_numbers(attrs_writer *p, const kn_numbers *x) {
  char buf[KN_NUMBER_TEXT];
  for (int i = 0; i < x->n; i++) kn_putf(p->s, "%s%s", i ? ", " : "{", kn_double_text(x->v[i], buf));
  kn_puts(p->s, "}");
}

static void put_field(attrs_writer *p, const kn_node *n, const kn_field *f, const void *at) {
  char buf[KN_NUMBER_TEXT];
  const kn_ints *v = at;
  switch (f->kind) {
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS: put_int(p, n, f->kind, *(const int64_t *)at); break;
  case KN_FIELD_FLOAT: kn_puts(p->s, kn_double_text(*(const double *)at, buf)); break;
  case KN_FIELD_NUMBER: put_number(p, n, at); break;
  case KN_FIELD_BOOL: kn_puts(p->s, *(const bool *)at ? "true" : "false"); break;
  case KN_FIELD_ENUM: kn_putf(p->s, "\"%s\"", f->names[*(const int32_t *)at]); break;
  case KN_FIELD_DTYPE: kn_putf(p->s, "\"%s\"", kn_dtype_name(*(const kn_dtype *)at)); break;
  case KN_FIELD_TEXT: kn_put_quoted(p->s, ((const kn_text *)at)->s, strlen(((const kn_text *)at)->s)); break;
  case KN_FIELD_NUMBERS: put_numbers(p, at); break;
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: {
    bool bare = f->kind == KN_FIELD_INTS && v->n == 1;
    if (!bare) kn_puts(p->s, "{");
    for (int i = 0; i < v->n; i++) {
      if (i) kn_puts(p->s, ", ");
      put_int(p, n, f->kind, v->v[i]);
    }
    if (!bare) kn_puts(p->s, "}");
  }
  }
}

bool kn_put_attrs(kn_writer *s, const kn_node *n, const char *open, kn_put_value_fn put, void *ud) {
  if (!kn_opcode_is_op(n->op) || !n->attrs) return false;
  attrs_writer p = {s, put, ud};
  kn_attrs_kind kind = kn_ops[n->op].attrs;
  kn_attrs_any standard = {0};
  kn_attrs_default(kind, &standard);
  bool any = false;
  for (const kn_field *f = kn_attrs_describe(kind).fields; f->name; f++) {
    const void *at = kn_field_get(n->attrs, f);
    if (is_default(f, at, kn_field_get(&standard, f))) continue;
    kn_putf(s, "%s%s = ", any ? ", " : open, f->name);
    put_field(&p, n, f, at);
    any = true;
  }
  if (any) kn_puts(s, "}");
  return any;
}
