/* The .npy format itself: header and element order. No files, no memory, no context. */
#include "bindings/io/npy.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char magic[] = "\x93NUMPY";
enum { MAGIC = 6, MOST_HEADER = 1 << 16 }; /* NumPy itself stops at 10,000 bytes of header */

typedef struct reader {
  const char *at, *end; /* the dict literal */
  char *why;
  size_t why_size;
} reader;

static bool refuse(reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(reader *r, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(r->why, r->why_size, fmt, ap);
  va_end(ap);
  return false;
}

/* ---- the dict literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } ---- */

static void skip_space(reader *r) {
  while (r->at < r->end && isspace((unsigned char)*r->at)) r->at++;
}

static bool take(reader *r, char c) {
  skip_space(r);
  if (r->at == r->end || *r->at != c) return false;
  r->at++;
  return true;
}

static bool take_word(reader *r, const char *word) {
  size_t n = strlen(word);
  skip_space(r);
  if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n)) return false;
  r->at += n;
  return true;
}

/* A quoted string without escapes. */
static bool take_string(reader *r, char *buf, size_t size) {
  skip_space(r);
  if (r->at == r->end || (*r->at != '\'' && *r->at != '"'))
    return refuse(r, "a quoted name is missing in the header");
  char quote = *r->at++;
  size_t n = 0;
  for (; r->at < r->end && *r->at != quote; r->at++) {
    if (*r->at == '\\' || !isprint((unsigned char)*r->at) || n + 1 >= size)
      return refuse(r, "a name in the header is too long or has odd characters");
    buf[n++] = *r->at;
  }
  buf[n] = 0;
  if (r->at == r->end) return refuse(r, "a name in the header has no end");
  r->at++;
  return true;
}

static bool little_endian(void) {
  const uint16_t one = 1;
  unsigned char first;
  memcpy(&first, &one, 1);
  return first == 1;
}

/* "<f4": byte order, then the type as the dtype table spells it, which is little-endian. */
static bool read_descr(reader *r, kn_npy *h) {
  char descr[16];
  skip_space(r);
  if (r->at < r->end && *r->at == '[') return refuse(r, "records (structured dtypes) are not supported");
  if (!take_string(r, descr, sizeof descr)) return false;
  if (!strcmp(descr, "|O") || !strcmp(descr, "O"))
    return refuse(r, "arrays of Python objects are not supported");
  for (int d = 0; d < KN_DTYPE_COUNT; d++) {
    const char *spelt = kn_dtypes[d].npy;
    if (!descr[0] || !spelt || strcmp(descr + 1, spelt + 1) || !strchr("<>=|", descr[0])) continue;
    bool single = kn_dtypes[d].size == 1;
    if (descr[0] == '|' && !single) continue;
    h->type.dtype = (uint8_t)d;
    h->swapped = !single && (descr[0] == '>') == little_endian() && descr[0] != '=';
    return true;
  }
  return refuse(
      r, "dtype '%s' is not supported: bool, integers up to 64 bits and floats of 16 to 64 bits are", descr);
}

static bool read_bool(reader *r, bool *out) {
  if (take_word(r, "True")) return *out = true;
  *out = false;
  return take_word(r, "False") || refuse(r, "fortran_order is neither True nor False");
}

static bool read_size(reader *r, int64_t *out) {
  int64_t n = 0;
  skip_space(r);
  const char *first = r->at;
  for (; r->at < r->end && isdigit((unsigned char)*r->at); r->at++) {
    int digit = *r->at - '0';
    if (n > (INT64_MAX - digit) / 10) return refuse(r, "a size in the header is too large");
    n = n * 10 + digit;
  }
  if (r->at == first) return refuse(r, "the shape in the header is not a tuple of sizes");
  if (r->at < r->end && *r->at == 'L') r->at++; /* Python 2 wrote its long integers so */
  *out = n;
  return true;
}

static bool read_shape(reader *r, kn_npy *h) {
  bool comma = true;
  h->type.rank = 0;
  if (!take(r, '(')) return refuse(r, "the shape in the header is not a tuple");
  while (!take(r, ')')) {
    int64_t n = 0;
    if (!comma) return refuse(r, "the shape in the header is not a tuple of sizes");
    if (!read_size(r, &n)) return false;
    if (h->type.rank == KN_MAX_RANK)
      return refuse(r, "more than %d dimensions are not supported", KN_MAX_RANK);
    h->type.dims[h->type.rank++] = n;
    comma = take(r, ',');
  }
  if (h->type.rank == 1 && !comma) return refuse(r, "the shape in the header is not a tuple");
  return true;
}

static bool read_dict(reader *r, kn_npy *h) {
  enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
  unsigned seen = 0, now;
  bool comma = true;
  if (!take(r, '{')) return refuse(r, "the header is not a dictionary");
  while (!take(r, '}')) {
    char key[32];
    if (!comma) return refuse(r, "a comma is missing in the header");
    if (!take_string(r, key, sizeof key)) return false;
    if (!take(r, ':')) return refuse(r, "a colon is missing in the header");
    now = !strcmp(key, "descr")           ? DESCR
          : !strcmp(key, "fortran_order") ? ORDER
          : !strcmp(key, "shape")         ? SHAPE
                                          : 0;
    if (!now) return refuse(r, "the header has an unknown key '%s'", key);
    if (seen & now) return refuse(r, "the header has the key '%s' twice", key);
    seen |= now;
    if (now == DESCR ? !read_descr(r, h) : now == ORDER ? !read_bool(r, &h->fortran) : !read_shape(r, h))
      return false;
    comma = take(r, ',');
  }
  if (seen != (DESCR | ORDER | SHAPE)) return refuse(r, "the header lacks descr, fortran_order or shape");
  skip_space(r);
  return r->at == r->end || refuse(r, "the header goes on after its dictionary");
}

/* ---- the file ---- */

bool kn_npy_parse(const void *file, size_t size, kn_npy *out, char *why, size_t why_size) {
  const unsigned char *b = file;
  reader r = {.why = why, .why_size = why_size};
  kn_npy h = {.type = {.device = KN_CPU}};
  if (size < MAGIC + 4 || memcmp(b, magic, MAGIC)) return refuse(&r, "this is no .npy file");
  if (b[6] < 1 || b[6] > 3)
    return refuse(&r, "format version %d.%d is not known: 1.0 to 3.0 are", b[6], b[7]);
  size_t at = b[6] == 1 ? 10 : 12, length;
  if (size < at) return refuse(&r, "the file ends within its header");
  length = b[6] == 1 ? b[8] | (size_t)b[9] << 8
                     : b[8] | (size_t)b[9] << 8 | (size_t)b[10] << 16 | (size_t)b[11] << 24;
  if (length > MOST_HEADER) return refuse(&r, "a header of %zu bytes is too long", length);
  if (length > size - at) return refuse(&r, "the file ends within its header");
  r.at = (const char *)b + at;
  r.end = r.at + length;
  if (!read_dict(&r, &h)) return false;
  h.offset = at + length;
  if (!kn_type_bytes(&h.type, &h.bytes)) return refuse(&r, "the array is too large");
  if (h.bytes != size - h.offset)
    return refuse(&r, "the header promises %zu bytes of elements, the file has %zu", h.bytes,
                  size - h.offset);
  *out = h;
  return true;
}

static void copy_element(char *to, const char *from, size_t n, bool swapped) {
  if (!swapped)
    memcpy(to, from, n);
  else
    for (size_t i = 0; i < n; i++) to[i] = from[n - 1 - i];
}

void kn_npy_elements(const kn_npy *h, const void *file, void *out) {
  const char *from = (const char *)file + h->offset;
  size_t n = kn_dtype_size((kn_dtype)h->type.dtype), count = h->bytes / n;
  int64_t at[KN_MAX_RANK] = {0}, step[KN_MAX_RANK], stride = 1;
  bool plain = !h->fortran && !h->swapped;
  if (!h->bytes) return; /* the other sizes may be anything then */
  if (plain) memcpy(out, from, h->bytes);
  for (int d = 0; d < h->type.rank; d++) {
    step[d] = stride;
    stride *= h->type.dims[d];
  }
  for (size_t i = 0; !plain && i < count; i++) {
    int64_t source = (int64_t)i;
    if (h->fortran) {
      source = 0;
      for (int d = 0; d < h->type.rank; d++) source += at[d] * step[d];
      for (int d = h->type.rank - 1; d >= 0 && ++at[d] == h->type.dims[d]; d--) at[d] = 0;
    }
    copy_element((char *)out + i * n, from + (size_t)source * n, n, h->swapped);
  }
  if (h->type.dtype == KN_BOOL) /* a bool that is neither 0 nor 1 would surprise every kernel */
    for (size_t i = 0; i < count; i++) ((uint8_t *)out)[i] = ((uint8_t *)out)[i] != 0;
}

size_t kn_npy_header(const kn_type *type, char buf[KN_NPY_HEADER]) {
  char descr[8], shape[256] = "(";
  size_t at = 1;
  if (!kn_dtypes[type->dtype].npy) return 0;
  snprintf(descr, sizeof descr, "%s", kn_dtypes[type->dtype].npy);
  if (descr[0] == '<' && !little_endian()) descr[0] = '>';
  for (int d = 0; d < type->rank; d++)
    at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRId64, d ? ", " : "", type->dims[d]);
  snprintf(shape + at, sizeof shape - at, type->rank == 1 ? ",)" : ")");
  memcpy(buf, magic, MAGIC);
  buf[6] = 1, buf[7] = 0;
  size_t n = 10 + (size_t)snprintf(buf + 10, KN_NPY_HEADER - 10 - 64,
                                   "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
  while ((n + 1) % 64) buf[n++] = ' ';
  buf[n++] = '\n';
  buf[8] = (char)((n - 10) & 255), buf[9] = (char)((n - 10) >> 8);
  return n;
}
