/* Text that grows, for sources. */
#include "backends/cuda/kernel.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool make_room(cu_text *t, size_t more) {
  size_t need = t->n + more + 1, room = t->room ? t->room : 1024;
  if (t->failed || need <= t->room) return !t->failed;
  while (room < need) room *= 2;
  char *s = kn_realloc(t->heap, t->s, t->room, room);
  t->failed = !s;
  if (s) t->s = s, t->room = room;
  return s != NULL;
}

void cu_put(cu_text *t, const char *format, ...) {
  va_list list;
  va_start(list, format);
  int n = vsnprintf(NULL, 0, format, list);
  va_end(list);
  if (n < 0 || !make_room(t, (size_t)n)) {
    t->failed = true;
    return;
  }
  va_start(list, format);
  vsnprintf(t->s + t->n, t->room - t->n, format, list);
  va_end(list);
  t->n += (size_t)n;
}

/* As a whole number times a power of two: no decimals to round, and no locale's point. */
static void put_float(cu_text *t, double x, int digits, const char *of, const char *suffix) {
  int e = 0;
  const char *sign = signbit(x) ? "-" : "";
  if (isnan(x))
    cu_put(t, "NAN_%s", of);
  else if (isinf(x))
    cu_put(t, "(%sINF_%s)", sign, of);
  else if (x == 0)
    cu_put(t, "%s0x0p0%s", sign, suffix);
  else {
    long long whole = (long long)ldexp(frexp(fabs(x), &e), digits);
    for (e -= digits; !(whole & 1); e++) whole >>= 1;
    cu_put(t, "%s0x%llxp%d%s", sign, (unsigned long long)whole, e, suffix);
  }
}

void cu_put_f32(cu_text *t, float x) { put_float(t, (double)x, 24, "F32", "f"); }
void cu_put_f64(cu_text *t, double x) { put_float(t, x, 53, "F64", ""); }

void cu_text_free(cu_text *t) {
  kn_free(t->heap, t->s, t->room);
  *t = (cu_text){.heap = t->heap};
}
