/* The little JSON that a safetensors header needs. */
#include "graph/json.h"
#include "graph/internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool kn_json_fail(kn_json *j, const char *fmt, ...) {
  if (j->status != KN_OK) return false;
  char why[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  j->status = kn_fail(j->ctx, KN_FORMAT, "header, byte %zu: %s", (size_t)(j->p - j->text) + 1, why);
  return false;
}

static void blanks(kn_json *j) {
  while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
}

bool kn_json_accept(kn_json *j, char c) {
  if (j->status != KN_OK) return false;
  blanks(j);
  if (j->p == j->end || *j->p != c) return false;
  j->p++;
  return true;
}

bool kn_json_expect(kn_json *j, char c) {
  return kn_json_accept(j, c) || kn_json_fail(j, "'%c' is missing", c);
}

bool kn_json_end(kn_json *j) {
  if (j->status != KN_OK) return false;
  blanks(j);
  return j->p == j->end || kn_json_fail(j, "something follows after the end");
}

bool kn_json_whole(kn_json *j, uint64_t *out) {
  if (j->status != KN_OK) return false;
  blanks(j);
  const char *s = j->p;
  uint64_t v = 0;
  while (j->p < j->end && *j->p >= '0' && *j->p <= '9') {
    unsigned d = (unsigned)(*j->p - '0');
    if (v > (UINT64_MAX - d) / 10) return kn_json_fail(j, "a number is too large");
    v = v * 10 + d;
    j->p++;
  }
  if (j->p == s || (*s == '0' && j->p > s + 1)) return kn_json_fail(j, "a whole number is missing");
  if (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'))
    return kn_json_fail(j, "a number is not whole");
  *out = v;
  return true;
}

/* ---- strings ---- */

static bool hex4(kn_json *j, uint32_t *out) {
  uint32_t v = 0;
  for (int i = 0; i < 4; i++, j->p++) {
    char c = j->p < j->end ? *j->p : 0;
    unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                 : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                 : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                        : 16;
    if (d == 16) return kn_json_fail(j, "four hexadecimal digits are missing");
    v = v * 16 + d;
  }
  *out = v;
  return true;
}

/* What follows \u, into at most four bytes. */
static bool unicode(kn_json *j, char **out) {
  uint32_t c = 0, low = 0;
  if (!hex4(j, &c)) return false;
  if (c >= 0xD800 && c < 0xDC00) {
    if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
      return kn_json_fail(j, "half of a surrogate pair");
    j->p += 2;
    if (!hex4(j, &low)) return false;
    if (low < 0xDC00 || low > 0xDFFF) return kn_json_fail(j, "half of a surrogate pair");
    c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
  } else if (c >= 0xDC00 && c < 0xE000)
    return kn_json_fail(j, "half of a surrogate pair");
  if (c == 0) return kn_json_fail(j, "a string holds a zero byte");
  char *o = *out;
  if (c < 0x80)
    *o++ = (char)c;
  else {
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char first[] = {0, 0xC0, 0xE0, 0xF0};
    *o++ = (char)(first[more] | c >> 6 * more);
    while (more--) *o++ = (char)(0x80 | (c >> 6 * more & 0x3F));
  }
  *out = o;
  return true;
}

static bool decode(kn_json *j, const char *end, char *out, size_t *n) {
  static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
  char *o = out;
  while (j->p < end) {
    size_t k = kn_utf8_length(j->p, end);
    if (!k) return kn_json_fail(j, "a string is not valid UTF-8");
    if (*j->p != '\\') {
      if ((unsigned char)*j->p < ' ') return kn_json_fail(j, "a control character stands in a string");
      memcpy(o, j->p, k);
      o += k;
      j->p += k;
      continue;
    }
    j->p++;
    char c = *j->p++; /* string_end has seen that something follows */
    const char *found = c ? strchr(letters, c) : NULL;
    if (found)
      *o++ = bytes[found - letters];
    else if (c != 'u')
      return kn_json_fail(j, "an escape is not known");
    else if (!unicode(j, &o))
      return false;
  }
  *n = (size_t)(o - out);
  return true;
}

bool kn_json_string(kn_json *j, kn_span *out, kn_span *raw) {
  if (!kn_json_expect(j, '"')) return false;
  const char *start = j->p, *end = start;
  while (end < j->end && *end != '"') end += *end == '\\' ? 2 : 1;
  if (end >= j->end) return kn_json_fail(j, "a string does not end");
  char *s = kn_arena_alloc(j->arena, (size_t)(end - start) + 1);
  if (!s) {
    j->status = kn_fail_nomem(j->ctx, (size_t)(end - start) + 1);
    return false;
  }
  size_t n = 0;
  if (!decode(j, end, s, &n)) return false;
  if (j->p != end) return kn_json_fail(j, "a string does not end");
  j->p = end + 1;
  if (strlen(s) != n) return kn_json_fail(j, "a string holds a zero byte");
  *out = (kn_span){s, n};
  if (raw) *raw = (kn_span){start, (size_t)(end - start)};
  return true;
}

void kn_put_json(kn_writer *s, const char *text, size_t n) {
  kn_put(s, "\"", 1);
  const char *end = text + n, *from = text;
  for (const char *c = text; c < end; c++) {
    unsigned char b = (unsigned char)*c;
    if (b >= ' ' && b != '"' && b != '\\') continue;
    kn_put(s, from, (size_t)(c - from));
    from = c + 1;
    if (b == '\n')
      kn_puts(s, "\\n");
    else if (b == '"' || b == '\\')
      kn_putf(s, "\\%c", b);
    else
      kn_putf(s, "\\u%04x", b);
  }
  kn_put(s, from, (size_t)(end - from));
  kn_put(s, "\"", 1);
}
