/* Text that grows, and numbers as text. */
#include "graph/writer.h"
#include "graph/internal.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kn_writer_free(kn_writer *s) {
  kn_free(s->heap, s->p, s->cap);
  s->p = NULL;
  s->n = s->cap = 0;
}

/* Room for n more bytes and a zero. */
static bool room(kn_writer *s, size_t n) {
  if (s->failed) return false;
  if (n < s->cap - s->n && s->cap) return true;
  size_t cap = s->cap ? s->cap : 256;
  while (cap - s->n <= n && cap < SIZE_MAX / 4) cap *= 2;
  char *p = cap - s->n > n ? kn_realloc(s->heap, s->p, s->cap, cap) : NULL;
  if (!p) {
    s->failed = true;
    return false;
  }
  s->p = p;
  s->cap = cap;
  return true;
}

void kn_put(kn_writer *s, const char *text, size_t n) {
  if (!n || !room(s, n)) return;
  memcpy(s->p + s->n, text, n);
  s->n += n;
}

void kn_puts(kn_writer *s, const char *text) { kn_put(s, text, strlen(text)); }

void kn_putf(kn_writer *s, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n > 0) kn_put(s, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void kn_put_quoted(kn_writer *s, const char *text, size_t n) {
  const char *end = text + n;
  kn_put(s, "\"", 1);
  while (text < end) {
    size_t k = kn_utf8_length(text, end);
    unsigned char c = (unsigned char)*text;
    if (k > 1 || (k == 1 && c >= ' ' && c != '"' && c != '\\' && c != 127)) {
      kn_put(s, text, k);
      text += k;
      continue;
    }
    const char *short_form = c == '"'    ? "\\\""
                             : c == '\\' ? "\\\\"
                             : c == '\n' ? "\\n"
                             : c == '\t' ? "\\t"
                             : c == '\r' ? "\\r"
                                         : NULL;
    if (short_form)
      kn_puts(s, short_form);
    else
      kn_putf(s, "\\%03u", c);
    text++;
  }
  kn_put(s, "\"", 1);
}

void kn_put_line(kn_writer *s, const char *text) {
  for (; *text; text++)
    if ((unsigned char)*text >= ' ' && *text != 127)
      kn_put(s, text, 1);
    else
      kn_putf(s, "\\%03u", (unsigned char)*text);
}

kn_status kn_writer_take(kn_context *ctx, kn_writer *s, char **text, size_t *len) {
  char *p = room(s, 0) ? kn_realloc(s->heap, s->p, s->cap, s->n + 1) : NULL;
  if (!p) {
    kn_writer_free(s);
    return kn_fail_nomem(ctx, s->n + 1);
  }
  p[s->n] = 0;
  *text = p;
  *len = s->n;
  *s = (kn_writer){.heap = s->heap};
  return KN_OK;
}

/* ---- numbers ---- */

/* printf and strtod follow the host's locale: its decimal point, as one string. */
static size_t decimal_point(char point[8]) {
  char text[16];
  int n = snprintf(text, sizeof text, "%.1f", 0.5);
  size_t len = n > 2 && n < 9 ? (size_t)n - 2 : 1;
  memcpy(point, n > 2 && n < 9 ? text + 1 : ".", len);
  return len;
}

/* Puts '.' for the locale's point, and ".0" after what would read as an integer. */
static char *tidy(char *buf) {
  char point[8];
  size_t len = decimal_point(point), digits = strspn(buf, "-0123456789");
  if (!buf[digits]) return strcat(buf, ".0");
  if (!strncmp(buf + digits, point, len)) {
    buf[digits] = '.';
    memmove(buf + digits + 1, buf + digits + len, strlen(buf + digits + len) + 1);
  }
  return buf;
}

static char *special(double v, char *buf) {
  strcpy(buf, isnan(v) ? (signbit(v) ? "-nan" : "nan") : v > 0 ? "inf" : "-inf");
  return buf;
}

char *kn_double_text(double v, char buf[KN_NUMBER_TEXT]) {
  if (!isfinite(v)) return special(v, buf);
  for (int digits = fabs(v) < 0x1p-1022 ? 1 : 15; digits <= 17; digits++) {
    snprintf(buf, KN_NUMBER_TEXT, "%.*g", digits, v);
    if (strtod(buf, NULL) == v) break;
  }
  return tidy(buf);
}

char *kn_float_text(float v, char buf[KN_NUMBER_TEXT]) {
  if (!isfinite(v)) return special((double)v, buf);
  for (int digits = fabsf(v) < 0x1p-126f ? 1 : 6; digits <= 17; digits += digits == 9 ? 8 : 1) {
    snprintf(buf, KN_NUMBER_TEXT, "%.*g", digits, (double)v);
    if ((float)strtod(buf, NULL) == v) break; /* as the parser reads it: a double first */
  }
  return tidy(buf);
}

static bool word(const char *s, size_t n, const char *w) { return strlen(w) == n && !memcmp(s, w, n); }

bool kn_double_parse(const char *s, size_t n, double *out) {
  if (word(s, n, "inf")) return *out = (double)INFINITY, true;
  if (word(s, n, "-inf")) return *out = -(double)INFINITY, true;
  if (word(s, n, "nan")) return *out = copysign((double)NAN, 1), true;
  if (word(s, n, "-nan")) return *out = copysign((double)NAN, -1), true;
  char buf[400], point[8], *end;
  size_t len = decimal_point(point), at = 0;
  if (n == 0 || n > 380) return false;
  bool digit = false, dot = false;
  for (size_t i = 0; i < n; i++) {
    char c = s[i];
    if (c >= '0' && c <= '9')
      digit = true;
    else if (c == '.') {
      if (dot) return false;
      dot = true;
    } else if (c != 'e' && c != 'E' && c != '+' && c != '-')
      return false;
    if (c == '.') {
      memcpy(buf + at, point, len);
      at += len;
    } else
      buf[at++] = c;
  }
  buf[at] = 0;
  if (!digit) return false;
  *out = strtod(buf, &end);
  return end == buf + at;
}
