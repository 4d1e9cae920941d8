/* Text that grows, and numbers as text. A failed growth sticks; what follows does nothing. */
#ifndef KN_WRITER_H
#define KN_WRITER_H
#include "core/context.h"
#include <stdbool.h>

typedef struct kn_writer {
  kn_heap *heap; /* borrowed */
  char *p;
  size_t n, cap;
  bool failed;
} kn_writer;

void kn_writer_free(kn_writer *s);
void kn_put(kn_writer *s, const char *text, size_t n);
void kn_puts(kn_writer *s, const char *text);
void kn_putf(kn_writer *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* In quotes, with \" \\ \n \t \r and \ddd (decimal) for what is not printable UTF-8. */
void kn_put_quoted(kn_writer *s, const char *text, size_t n);
/* As one line, without its end: control characters as \\ddd. */
void kn_put_line(kn_writer *s, const char *text);
/* Hands the text over, with a final zero byte not counted in *len; NOMEM if something failed. */
kn_status kn_writer_take(kn_context *ctx, kn_writer *s, char **text, size_t *len);

/* The shortest decimal that reads back as the same double (or float), always with a point or an exponent;
 * inf, -inf, nan, -nan. Independent of the locale, as is reading. */
enum { KN_NUMBER_TEXT = 40 };
char *kn_double_text(double v, char buf[KN_NUMBER_TEXT]);
char *kn_float_text(float v, char buf[KN_NUMBER_TEXT]);
/* The whole of [s, s + n) as a decimal number, inf or nan; false when it is none. */
bool kn_double_parse(const char *s, size_t n, double *out);

#endif
