/* A tensor as text: nested braces as kiln.tensor reads them, one notation for all elements, columns aligned,
 * rows cut at the line's width, the inside left out when long; then the type. See show.h. */
#include "core/show.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TEXT = 352 }; /* the largest float64 has 309 digits before the point */

typedef enum form { ROUND, FIXED, SCIENTIFIC } form; /* 1.0  1.2500  1.2500e-07; whole numbers: 1 */

typedef struct show {
  const kn_tensor *t;
  const kn_print_options *how;
  kn_text_fn fn;
  void *ud;
  int64_t edge; /* items shown at both ends of a long dimension; 0: all are shown */
  form form;
  int width;
  double least, most; /* of the finite nonzero magnitudes shown */
  bool fraction;      /* some finite value shown is not whole */
} show;

const kn_print_options kn_print_usual = {4, 3, 0, -1, 1000, 80};

/* ---- elements ---- */

static const void *place(const kn_tensor *t, int64_t at) {
  return (const char *)t->storage->data + at * (int64_t)kn_dtype_size(kn_tensor_dtype(t));
}

static double element(const kn_tensor *t, int64_t at) {
  return kn_element_float(kn_tensor_dtype(t), place(t, at));
}

static int element_text(const show *s, int64_t at, char buf[TEXT]) {
  kn_dtype d = kn_tensor_dtype(s->t);
  if (d == KN_BOOL) return snprintf(buf, TEXT, "%s", kn_element_int(d, place(s->t, at)) ? "true" : "false");
  if (!kn_dtype_is_float(d))
    return snprintf(buf, TEXT, "%lld", (long long)kn_element_int(d, place(s->t, at)));
  double v = element(s->t, at);
  if (isnan(v)) return snprintf(buf, TEXT, "nan");
  if (isinf(v)) return snprintf(buf, TEXT, "%sinf", v < 0 ? "-" : "");
  if (s->form == SCIENTIFIC) return snprintf(buf, TEXT, "%.*e", s->how->precision, v);
  return snprintf(buf, TEXT, "%.*f", s->form == FIXED ? s->how->precision : 1, v);
}

/* ---- what is shown, and how ---- */

static bool is_cut(const show *s, int64_t n) { return s->edge > 0 && n > 2 * s->edge; }

static int64_t shown_items(const show *s) {
  int64_t count = 1;
  for (int i = 0; i < s->t->type.rank && count < INT32_MAX; i++) {
    int64_t n = s->t->type.dims[i];
    count *= is_cut(s, n) ? 2 * s->edge : n < INT32_MAX ? n : INT32_MAX;
  }
  return count;
}

/* Many short dimensions are much as well: then less of each is shown. */
static void choose_edge(show *s) {
  if (kn_tensor_numel(s->t) <= s->how->threshold) return;
  s->edge = s->how->edgeitems;
  while (s->edge > 1 && shown_items(s) > 4 * (s->how->threshold > 250 ? s->how->threshold : 250)) s->edge--;
}

/* Calls fn for each element shown. */
static void each(show *s, int dim, int64_t at, void (*fn)(show *, int64_t)) {
  if (dim == s->t->type.rank) {
    fn(s, at);
    return;
  }
  int64_t n = s->t->type.dims[dim];
  for (int64_t i = 0; i < n; i++) {
    if (i == s->edge && is_cut(s, n)) i = n - s->edge;
    each(s, dim + 1, at + i * s->t->strides[dim], fn);
  }
}

static void note_size(show *s, int64_t at) {
  double v = fabs(element(s->t, at));
  if (!isfinite(v)) return;
  if (v != floor(v)) s->fraction = true;
  if (v == 0) return;
  if (v < s->least) s->least = v;
  if (v > s->most) s->most = v;
}

static void note_width(show *s, int64_t at) {
  char buf[TEXT];
  int n = element_text(s, at, buf);
  if (n > s->width) s->width = n;
}

/* Scientific when another notation would be long, or would lose the small values. */
static void choose_form(show *s) {
  s->least = HUGE_VAL;
  each(s, 0, s->t->offset, note_size);
  s->form = s->fraction ? FIXED : ROUND;
  bool far =
      s->most >= 1e8 || (s->fraction && (s->most >= 1e6 || s->least < 1e-4 || s->most / s->least > 1e6));
  if (s->how->sci_mode < 0 ? s->most > 0 && far : s->how->sci_mode) s->form = SCIENTIFIC;
  each(s, 0, s->t->offset, note_width);
}

/* ---- the text ---- */

static void put(show *s, const char *text) { s->fn(s->ud, text, strlen(text)); }

static void add_spaces(show *s, int64_t n) {
  while (n-- > 0) put(s, " ");
}

static void add_element(show *s, int64_t at) {
  char buf[TEXT];
  int n = element_text(s, at, buf);
  add_spaces(s, s->width - n);
  s->fn(s->ud, buf, (size_t)n);
}

/* Elements of the last dimension, as many a line as fit behind the braces. */
static void add_row(show *s, int dim, int64_t at) {
  int64_t n = s->t->type.dims[dim], step = s->t->strides[dim];
  int64_t line = (s->how->linewidth - dim - 1) / (s->width + 2), on_line = 0;
  put(s, "{");
  for (int64_t i = 0; i < n; i++) {
    if (i > 0 && on_line >= line) {
      put(s, ",\n");
      add_spaces(s, dim + 1);
      on_line = 0;
    } else if (i > 0)
      put(s, ", ");
    on_line++;
    if (i == s->edge && is_cut(s, n)) {
      put(s, "...");
      i = n - s->edge - 1;
    } else
      add_element(s, at + i * step);
  }
  put(s, "}");
}

static void add_nested(show *s, int dim, int64_t at) {
  int rank = s->t->type.rank;
  if (dim == rank) {
    add_element(s, at);
    return;
  }
  if (dim == rank - 1) {
    add_row(s, dim, at);
    return;
  }
  int64_t n = s->t->type.dims[dim];
  put(s, "{");
  for (int64_t i = 0; i < n; i++) {
    if (i > 0) {
      put(s, ",");
      for (int k = dim; k < rank - 1; k++) put(s, "\n");
      add_spaces(s, dim + 1);
    }
    if (i == s->edge && is_cut(s, n)) {
      put(s, "...");
      i = n - s->edge - 1;
    } else
      add_nested(s, dim + 1, at + i * s->t->strides[dim]);
  }
  put(s, "}");
}

static void add_elements(show *s) {
  if (kn_tensor_numel(s->t) == 0) {
    put(s, "{}");
  } else {
    choose_edge(s);
    choose_form(s);
    add_nested(s, 0, s->t->offset);
  }
  put(s, "\n");
}

void kn_show_tensor(const kn_tensor *t, kn_device_id of, const kn_print_options *how, kn_text_fn fn,
                    void *ud) {
  char text[KN_TYPE_TEXT];
  kn_print_options o = *how;
  if (!o.linewidth) o.linewidth = o.columns;
  show s = {.t = t, .how = &o, .fn = fn, .ud = ud};
  add_elements(&s);
  kn_type type = t->type;
  type.device = (uint8_t)of;
  put(&s, kn_type_text(&type, text, sizeof text));
}
