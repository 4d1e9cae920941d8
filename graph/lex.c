/* Words, strings, numbers and places of the text form. Never reads past the end of the text. */
#include "graph/parse.h"
#include "graph/writer.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool kn_parse_fail(kn_parser *p, const char *at, const char *fmt, ...) {
  if (p->status != KN_OK) return false;
  char why[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  while (at < p->end && (*at == ' ' || *at == '\t')) at++; /* the thing itself, not the blanks before it */
  unsigned line = 1, column = 1;
  for (const char *c = p->text; c < at; c++) {
    column++;
    if (*c == '\n') line++, column = 1;
  }
  p->status = kn_fail(p->ctx, KN_FORMAT, "%u:%u: %s", line, column, why);
  return false;
}

bool kn_parse_nomem(kn_parser *p) {
  if (p->status == KN_OK) p->status = kn_fail_nomem(p->ctx, 0);
  return false;
}

bool kn_parse_built(kn_parser *p, const char *at) {
  if (p->status != KN_OK) return false;
  kn_status st = p->b.status;
  if (st == KN_OK) return true;
  if (st == KN_NOMEM || st == KN_LIMIT) {
    p->status = st;
    return false;
  }
  char why[KN_ERROR_SIZE];
  memcpy(why, p->ctx->error, sizeof why);
  return kn_parse_fail(p, at, "%s", why);
}

/* ---- blanks ---- */

static void skip_blanks(kn_parser *p) {
  while (p->p < p->end && (*p->p == ' ' || *p->p == '\t' || *p->p == '\r')) p->p++;
}

void kn_skip(kn_parser *p) {
  for (;;) {
    skip_blanks(p);
    if (p->p == p->end || (*p->p != '\n' && *p->p != ';')) return;
    if (*p->p == ';')
      while (p->p < p->end && *p->p != '\n') p->p++;
    else
      p->p++;
  }
}

char kn_peek(kn_parser *p) {
  skip_blanks(p);
  return p->p < p->end && *p->p != '\n' && *p->p != ';' ? *p->p : 0;
}

bool kn_accept(kn_parser *p, char c) {
  if (kn_peek(p) != c) return false;
  p->p++;
  return true;
}

bool kn_accept_over(kn_parser *p, char c) {
  kn_skip(p);
  return kn_accept(p, c);
}

bool kn_expect(kn_parser *p, char c) {
  if (p->status != KN_OK) return false;
  return kn_accept_over(p, c) || kn_parse_fail(p, p->p, "'%c' is missing here", c);
}

/* ---- words, strings ---- */

kn_span kn_read_word(kn_parser *p) {
  skip_blanks(p);
  const char *s = p->p;
  if (p->p < p->end && kn_is_letter(*p->p))
    while (p->p < p->end && (kn_is_letter(*p->p) || kn_is_digit(*p->p) || *p->p == '.')) p->p++;
  return (kn_span){s, (size_t)(p->p - s)};
}

bool kn_span_is(kn_span s, const char *word) { return strlen(word) == s.n && !memcmp(s.s, word, s.n); }

/* The end of the quoted string that starts at p->p, or NULL. */
static const char *string_end(const kn_parser *p) {
  for (const char *c = p->p + 1; c < p->end && *c != '\n'; c++) {
    if (*c == '"') return c + 1;
    if (*c == '\\' && c + 1 < p->end) c++;
  }
  return NULL;
}

static int escape(const char **c, const char *end) {
  static const char letters[] = "\"\\ntr", bytes[] = "\"\\\n\t\r";
  const char *found = *c < end && **c ? strchr(letters, **c) : NULL;
  if (found) {
    ++*c;
    return (unsigned char)bytes[found - letters];
  }
  int v = 0;
  for (int i = 0; i < 3; i++, ++*c) {
    if (*c >= end || !kn_is_digit(**c)) return -1;
    v = v * 10 + (**c - '0');
  }
  return v < 256 ? v : -1;
}

bool kn_read_string(kn_parser *p, bool zeros, const char **s, size_t *n) {
  if (p->status != KN_OK) return false;
  const char *start = p->p;
  if (kn_peek(p) != '"') return kn_parse_fail(p, p->p, "a quoted string is missing here");
  const char *end = string_end(p);
  if (!end) return kn_parse_fail(p, p->p, "this string does not end on its line");
  char *out = kn_build_alloc(&p->b, (size_t)(end - p->p));
  if (!out) return kn_parse_built(p, start);
  size_t len = 0;
  for (const char *c = p->p + 1; c < end - 1;) {
    int byte = (unsigned char)*c;
    const char *at = c++;
    if (byte == '\\') byte = escape(&c, end - 1);
    if (byte < 0 || (byte == 0 && !zeros)) return kn_parse_fail(p, at, "this escape is not valid here");
    out[len++] = (char)byte;
  }
  p->p = end;
  *s = out;
  *n = len;
  return true;
}

bool kn_read_name(kn_parser *p, const char **name) {
  if (p->status != KN_OK) return false;
  size_t n;
  if (kn_peek(p) == '"') return kn_read_string(p, false, name, &n);
  const char *at = p->p;
  kn_span w = kn_read_word(p);
  if (!kn_plain_word(w.s, w.n)) return kn_parse_fail(p, at, "a name is missing here");
  char *s = kn_build_alloc(&p->b, w.n + 1);
  if (s) memcpy(s, w.s, w.n);
  *name = s;
  return kn_parse_built(p, at);
}

/* ---- values ---- */

static bool all_digits(const char *s, const char *end) {
  if (s == end) return false;
  while (s < end && kn_is_digit(*s)) s++;
  return s == end;
}

bool kn_read_value(kn_parser *p, kn_written *out) {
  if (p->status != KN_OK) return false;
  *out = (kn_written){.at = p->p};
  if (!kn_accept(p, '%')) return kn_parse_fail(p, p->p, "a value (%%name) is missing here");
  const char *start = p->p, *name_end;
  size_t n = 0;
  bool quoted = p->p < p->end && *p->p == '"';
  if (quoted && !kn_read_string(p, false, &out->name, &n)) return false;
  name_end = p->p;
  while (p->p < p->end && (kn_is_letter(*p->p) || kn_is_digit(*p->p) || *p->p == '.')) p->p++;
  out->key = (kn_span){start, (size_t)(p->p - start)};
  if (!out->key.n) return kn_parse_fail(p, out->at, "a value needs a name or number after %%");
  const char *dot = p->p;
  while (dot > name_end && kn_is_digit(dot[-1])) dot--;
  bool numbered = dot > name_end && dot < p->p && dot[-1] == '.';
  if (quoted)
    return (name_end == p->p || (numbered && dot - 1 == name_end)) ||
           kn_parse_fail(p, start, "this is no name of a value");
  if (all_digits(start, p->p)) return true; /* unnamed */
  size_t len = (size_t)((numbered ? dot - 1 : p->p) - start);
  char *name = kn_build_alloc(&p->b, len + 1);
  if (!name) return kn_parse_built(p, out->at);
  memcpy(name, start, len);
  out->name = name;
  return kn_plain_value_name(name) || kn_parse_fail(p, start, "this is no name of a value");
}

/* ---- numbers ---- */

static kn_span number(kn_parser *p) {
  skip_blanks(p);
  const char *s = p->p;
  while (p->p < p->end &&
         (kn_is_letter(*p->p) || kn_is_digit(*p->p) || *p->p == '.' || *p->p == '-' || *p->p == '+'))
    p->p++;
  return (kn_span){s, (size_t)(p->p - s)};
}

static bool as_int(kn_span w, int64_t *out) {
  bool minus = w.n && *w.s == '-';
  uint64_t v = 0, most = (uint64_t)INT64_MAX + minus;
  if (w.n == minus) return false;
  for (size_t i = minus; i < w.n; i++) {
    unsigned d = (unsigned)(w.s[i] - '0');
    if (!kn_is_digit(w.s[i]) || v > (most - d) / 10) return false;
    v = v * 10 + d;
  }
  *out = (int64_t)(minus ? 0 - v : v);
  return true;
}

bool kn_read_int(kn_parser *p, int64_t *out) {
  if (p->status != KN_OK) return false;
  kn_span w = number(p);
  return as_int(w, out) || kn_parse_fail(p, w.s, "an integer is missing here");
}

bool kn_read_scalar(kn_parser *p, kn_scalar *out) {
  if (p->status != KN_OK) return false;
  kn_span w = number(p);
  if (kn_span_is(w, "true") || kn_span_is(w, "false")) {
    *out = (kn_scalar){KN_SCALAR_BOOL, {.b = w.n == 4}};
    return true;
  }
  *out = (kn_scalar){KN_SCALAR_INT, {.i = 0}};
  if (as_int(w, &out->as.i)) return true;
  out->kind = KN_SCALAR_FLOAT;
  bool whole = all_digits(w.s + (w.n && *w.s == '-'), w.s + w.n);
  return (!whole && kn_double_parse(w.s, w.n, &out->as.f)) ||
         kn_parse_fail(p, w.s,
                       whole ? "this integer is too large" : "a number, true or false is missing here");
}

/* ---- places ---- */

/* "chunk:12" or "chunk:?" */
static bool place(kn_parser *p, kn_span s, const kn_where *at, const kn_where **out) {
  size_t colon = s.n;
  while (colon > 0 && s.s[colon - 1] != ':') colon--;
  kn_span digits = {s.s + colon, s.n - colon};
  int64_t line = 0;
  if (!colon || colon > 1000 ||
      (!kn_span_is(digits, "?") && (!as_int(digits, &line) || line < 1 || line > INT32_MAX)))
    return false;
  char chunk[1000];
  memcpy(chunk, s.s, colon - 1);
  chunk[colon - 1] = 0;
  if (strlen(chunk) != colon - 1) return false;
  *out = kn_where_intern(&p->b, chunk, (int)line, at);
  return *out != NULL;
}

/* Inner places stand first; a comment that is no place is only a comment. */
static const kn_where *places(kn_parser *p, kn_span s) {
  const kn_where *w = NULL;
  for (int i = 0; i < KN_WHERE_DEPTH; i++) {
    size_t from = s.n;
    while (from >= 4 && memcmp(s.s + from - 4, " <- ", 4)) from--;
    if (from < 4) from = 0;
    if (!place(p, (kn_span){s.s + from, s.n - from}, w, &w)) return NULL;
    if (!from) return w;
    s.n = from - 4;
  }
  return NULL;
}

bool kn_read_line_end(kn_parser *p, const kn_where **where) {
  *where = NULL;
  if (p->status != KN_OK) return false;
  if (kn_peek(p)) return kn_parse_fail(p, p->p, "the line should end here");
  if (p->p < p->end && *p->p == ';') {
    const char *s = p->p + 1;
    while (p->p < p->end && *p->p != '\n') p->p++;
    if (s < p->p && *s == ' ') s++;
    const char *e = p->p;
    while (e > s && (e[-1] == ' ' || e[-1] == '\r' || e[-1] == '\t')) e--;
    *where = places(p, (kn_span){s, (size_t)(e - s)});
  }
  return kn_parse_built(p, p->p);
}
