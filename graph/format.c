/* Texts of nodes with values in them: see format.h. What Lua's string.format, tostring and io.write do, in C.
 */
#include "graph/format.h"
#include "core/device.h"
#include "core/show.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char integers[] = "dixXo", floats[] = "aAeEfgG", plain[] = "%z";

static bool one_of(const char *set, char c) { return c && strchr(set, c); }

/* ---- directives ---- */

typedef struct directive {
  char spec[16]; /* "%5.2": without the conversion */
  char what;     /* the conversion */
} directive;

static size_t few_digits(const char *p) {
  size_t n = strspn(p, "0123456789");
  return n <= 2 ? n : 16;
}

/* One of Lua's: flags, at most two digits of width and of precision. *at is behind the percent sign. */
static bool read_directive(const char **at, directive *d) {
  const char *p = *at;
  size_t n = strspn(p, "-+ #0");
  n += few_digits(p + (n <= 5 ? n : 0));
  if (n <= 7 && p[n] == '.') n += 1 + few_digits(p + n + 1);
  if (n > 10 || !p[n]) return false;
  memcpy(d->spec + 1, p, n);
  d->spec[0] = '%';
  d->spec[n + 1] = 0;
  d->what = p[n];
  *at = p + n + 1;
  return one_of(plain, d->what) || one_of("wm", d->what) ? n == 0 : true;
}

static const char *check_value(const directive *d, const kn_vtype *t) {
  bool number = t->kind == KN_V_INT || t->kind == KN_V_FLOAT || t->kind == KN_V_NUMBER;
  if (d->what == 's') return kn_is_list(t->kind) ? "a list has no text" : NULL;
  if (d->what == 'm') return t->kind == KN_V_INT ? NULL : "%m of its text needs an integer";
  if (d->what == 'w' || one_of(integers, d->what) || one_of(floats, d->what))
    return number ? NULL : "a directive of its text needs a number";
  return "its text has a directive that there is not";
}

const char *kn_format_check(const char *text, kn_value *const *in, uint32_t n) {
  uint32_t used = 0;
  for (const char *p = text; *p;) {
    if (*p++ != '%') continue;
    directive d;
    if (!read_directive(&p, &d)) return "its text has a malformed directive";
    if (one_of(plain, d.what)) continue;
    if (used == n) return "its text has more directives than there are values";
    const char *why = check_value(&d, &in[used++]->type);
    if (why) return why;
  }
  return used == n ? NULL : "its text has fewer directives than there are values";
}

const char *kn_format_check_tree(const kn_tree *t) {
  kn_value *in[32];
  enum { MOST = sizeof in / sizeof *in };
  if (!t->n || t->n > MOST) return "a text takes from 1 to 32 values";
  for (uint32_t i = 0; i < t->n; i++) {
    if (t->items[i].kind != KN_TREE_VALUE || !t->items[i].value) return "a text takes values only";
    in[i] = t->items[i].value;
  }
  return kn_format_check(t->text, in, t->n);
}

/* ---- which nodes ---- */

uint32_t kn_format_first(const kn_node *n) { return n->op == KN_NODE_assert ? 1 : 0; }

bool kn_format_used(const kn_node *n) {
  return n->nin > kn_format_first(n) || (n->op != KN_NODE_assert && n->op != KN_NODE_raise);
}

/* ---- values ---- */

char *kn_scalar_text(const kn_scalar *s, char buf[KN_SCALAR_TEXT]) {
  if (s->kind == KN_SCALAR_BOOL)
    snprintf(buf, KN_SCALAR_TEXT, "%s", s->as.b ? "true" : "false");
  else if (s->kind == KN_SCALAR_INT)
    snprintf(buf, KN_SCALAR_TEXT, "%" PRId64, s->as.i);
  else {
    int n = snprintf(buf, KN_SCALAR_TEXT - 2, "%.14g", s->as.f);
    if (!buf[strspn(buf, "-0123456789")]) memcpy(buf + n, ".0", 3); /* looks like an integer */
  }
  return buf;
}

static void put_piece(void *ud, const char *text, size_t n) { kn_put(ud, text, n); }

static kn_status put_tensor(kn_context *ctx, kn_tensor *t, kn_writer *out) {
  kn_tensor *host;
  KN_TRY(kn_to_host(ctx, t, &host));
  kn_show_tensor(host, (kn_device_id)t->type.device, &ctx->print, put_piece, out);
  kn_tensor_release(host);
  return KN_OK;
}

/* %s: flags, width and precision apply to the text, as in Lua. */
static kn_status put_value(kn_context *ctx, const directive *d, kn_tensor *t, const kn_scalar *s,
                           kn_writer *out) {
  char buf[KN_SCALAR_TEXT], fmt[20];
  kn_writer all = {.heap = ctx->heap};
  if (!d->spec[1]) {
    if (t)
      return put_tensor(ctx, t, out);
    else
      kn_puts(out, kn_scalar_text(s, buf));
    return KN_OK;
  }
  if (t)
    KN_TRY(put_tensor(ctx, t, &all));
  else
    kn_puts(&all, kn_scalar_text(s, buf));
  kn_put(&all, "", 1);
  snprintf(fmt, sizeof fmt, "%ss", d->spec);
  size_t room = all.n + 100; /* a width has two digits */
  char *text = all.failed ? NULL : kn_alloc(ctx->heap, room);
  if (text) {
    int n = snprintf(text, room, fmt, all.p);
    kn_put(out, text, n > 0 ? (size_t)n : 0);
    kn_free(ctx->heap, text, room);
  }
  kn_writer_free(&all);
  return text ? KN_OK : kn_fail_nomem(ctx, room);
}

static kn_status put_number(kn_context *ctx, const directive *d, const kn_scalar *s, uint32_t which,
                            kn_writer *out) {
  char fmt[24], buf[512]; /* the longest is %99.99f of the largest float: 308 + 1 + 99 digits */
  int64_t i = s->as.i;
  double f = s->kind == KN_SCALAR_INT ? (double)s->as.i : s->as.f;
  if (one_of(integers, d->what)) {
    if (s->kind == KN_SCALAR_FLOAT) {
      if (!(f >= -0x1p63 && f < 0x1p63) || f != (double)(int64_t)f)
        return kn_fail(ctx, KN_RAISED, "bad argument #%u to 'format' (number has no integer representation)",
                       which);
      i = (int64_t)f;
    }
    snprintf(fmt, sizeof fmt, "%sll%c", d->spec, d->what);
    snprintf(buf, sizeof buf, fmt, (long long)i);
  } else {
    snprintf(fmt, sizeof fmt, "%s%c", d->spec, d->what);
    snprintf(buf, sizeof buf, fmt, f);
  }
  kn_puts(out, buf);
  return KN_OK;
}

static kn_status put_written(const kn_scalar *s, kn_writer *out) {
  char buf[KN_SCALAR_TEXT];
  if (s->kind == KN_SCALAR_INT)
    snprintf(buf, sizeof buf, "%" PRId64, s->as.i);
  else
    snprintf(buf, sizeof buf, "%.14g", s->as.f);
  kn_puts(out, buf);
  return KN_OK;
}

/* Numbers that no run gave stand for nothing. */
static void put_caught(const kn_caught *caught, const kn_scalar *s, kn_writer *out) {
  if (s->kind == KN_SCALAR_INT && s->as.i >= 1 && (uint64_t)s->as.i <= caught->n)
    kn_puts(out, caught->text[s->as.i - 1]);
}

kn_status kn_format_text(kn_context *ctx, const char *text, kn_format_fn value, const void *ud,
                         const kn_caught *caught, kn_writer *out) {
  uint32_t at = 0;
  for (const char *p = text; *p;) {
    size_t span = strcspn(p, "%");
    kn_put(out, p, span);
    p += span;
    if (!*p++) break;
    directive d;
    if (!read_directive(&p, &d)) break; /* it was checked */
    if (one_of(plain, d.what)) {
      kn_put(out, d.what == '%' ? "%" : "", 1);
      continue;
    }
    kn_format_value v = value(ud, at++);
    if (d.what == 's')
      KN_TRY(put_value(ctx, &d, v.tensor, &v.scalar, out));
    else if (d.what == 'w')
      KN_TRY(put_written(&v.scalar, out));
    else if (d.what == 'm')
      put_caught(caught, &v.scalar, out);
    else
      KN_TRY(put_number(ctx, &d, &v.scalar, at + 1, out));
  }
  return out->failed ? kn_fail_nomem(ctx, out->n) : KN_OK;
}

typedef struct node_values {
  const kn_node *n;
  kn_tensor *const *vals;
  const kn_scalar *scalars;
} node_values;

static kn_format_value node_value(const void *ud, uint32_t i) {
  const node_values *x = ud;
  const kn_value *v = x->n->in[kn_format_first(x->n) + i];
  return (kn_format_value){v->type.kind == KN_V_TENSOR ? x->vals[v->id] : NULL, x->scalars[v->id]};
}

kn_status kn_format_node(kn_context *ctx, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars,
                         const kn_caught *caught, kn_writer *out) {
  node_values x = {n, vals, scalars};
  return kn_format_text(ctx, n->text, node_value, &x, caught, out);
}
