/* einsum: inputs are multiplied from left to right, each pair as one product of batches of matrices. Letters
 * that both have and that are needed later are the batch, those not needed later are summed by the product.
 * The dims of an ellipsis have digits for letters, the last of them '9', so that they meet from the right. */
#include "core/einsum.h"
#include "core/composite.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { LETTERS = 128 };

typedef struct term { /* a tensor and the letter of each dim */
  kn_tensor *t;
  char label[KN_MAX_RANK + 1];
} term;

typedef struct equation {
  const char *text;
  term in[KN_MAX_INPUTS];
  int n;
  char out[KN_MAX_RANK + 1];
} equation;

static void wrong(kn_scope *s, const equation *e, const char *why) {
  kx_fail(s, kn_fail(s->ctx, KN_ARG, "einsum: %s in '%s'", why, e->text));
}

static bool has(const term *x, char c) { return strchr(x->label, c) != NULL; }

/* ---- reading ---- */

/* Letters up to a comma, an arrow or the end, blanks left out. *dots: where an ellipsis stands among them, or
 * -1. */
static const char *read_labels(kn_scope *s, const equation *e, const char *p, char label[KN_MAX_RANK + 1],
                               int *dots) {
  int n = 0;
  *dots = -1;
  for (; *p && *p != ',' && *p != '-'; p++) {
    if (*p == ' ') continue;
    if (!strncmp(p, "...", 3) && *dots < 0) {
      *dots = n;
      p += 2;
      continue;
    }
    if (!isalpha((unsigned char)*p)) {
      wrong(s, e, "only letters, one '...' for each tensor, ',' and '->' are expected");
      return NULL;
    }
    if (n == KN_MAX_RANK) {
      wrong(s, e, "there are too many letters");
      return NULL;
    }
    label[n++] = *p;
  }
  label[n] = 0;
  return p;
}

/* `count` digits, up to '9', into a label at `dots`. */
static void put_digits(char label[KN_MAX_RANK + 1], int dots, int count) {
  memmove(label + dots + count, label + dots, strlen(label + dots) + 1);
  for (int i = 0; i < count; i++) label[dots + i] = (char)('9' - count + 1 + i);
}

/* The digits of all inputs. */
static int most_digits(const equation *e) {
  int most = 0;
  for (int i = 0; i < e->n; i++) {
    int count = 0;
    for (const char *c = e->in[i].label; *c; c++) count += isdigit((unsigned char)*c) != 0;
    most = count > most ? count : most;
  }
  return most;
}

/* Letters that stand once, in alphabetical order; all digits before them. */
static void implied(kn_scope *s, equation *e) {
  int count[LETTERS] = {0}, n = 0;
  for (int i = 0; i < e->n; i++)
    for (const char *c = e->in[i].label; *c; c++) count[(unsigned char)*c]++;
  for (int c = 0; c < LETTERS; c++) {
    if (isdigit(c) ? count[c] == 0 : count[c] != 1) continue;
    if (n == KN_MAX_RANK) {
      wrong(s, e, "the result would have too many dims");
      return;
    }
    e->out[n++] = (char)c;
  }
}

static void check_out(kn_scope *s, const equation *e) {
  for (const char *c = e->out; *c; c++) {
    bool found = false;
    for (int i = 0; i < e->n; i++) found |= has(&e->in[i], *c);
    if (!found) wrong(s, e, "a letter of the result is in no input");
    if (strchr(c + 1, *c)) wrong(s, e, "a letter of the result stands twice");
  }
}

static void read_equation(kn_scope *s, equation *e, kn_tensor *const *in, int n) {
  const char *p = e->text;
  for (e->n = 0; p && e->n < n; e->n++) {
    if (e->n && *p++ != ',') {
      wrong(s, e, "there are fewer terms than tensors");
      return;
    }
    e->in[e->n].t = in[e->n];
    char *label = e->in[e->n].label;
    int dots;
    p = read_labels(s, e, p, label, &dots);
    int more = p ? in[e->n]->type.rank - (int)strlen(label) : 0;
    if (dots >= 0 && more > 0) put_digits(label, dots, more);
    if (p && strlen(e->in[e->n].label) != in[e->n]->type.rank) {
      char text[KN_TYPE_TEXT];
      kx_fail(s, kn_fail(s->ctx, KN_SHAPE, "einsum: '%s' does not name the dims of input %d in '%s' (got %s)",
                         e->in[e->n].label, e->n + 1, e->text,
                         kn_type_text(&in[e->n]->type, text, sizeof text)));
      return;
    }
  }
  if (!p) return;
  if (*p == 0) {
    implied(s, e);
  } else if (p[0] == '-' && p[1] == '>') {
    int dots, digits = most_digits(e);
    p = read_labels(s, e, p + 2, e->out, &dots);
    if (p && dots >= 0 && strlen(e->out) + (size_t)digits > KN_MAX_RANK)
      wrong(s, e, "the result would have too many dims");
    else if (p && dots >= 0)
      put_digits(e->out, dots, digits);
    if (p && *p) wrong(s, e, "something follows the result");
  } else {
    wrong(s, e, "there are more terms than tensors");
  }
  if (s->status == KN_OK) check_out(s, e);
}

/* ---- one term ---- */

static void drop_letter(char *label, int at) { memmove(label + at, label + at + 1, strlen(label + at)); }

/* A letter that stands twice means the diagonal of its dims. */
static void take_diagonals(kn_scope *s, term *x) {
  for (int i = 0; x->label[i]; i++) {
    const char *again = strchr(x->label + i + 1, x->label[i]);
    if (!again) continue;
    char letter = x->label[i];
    int j = (int)(again - x->label);
    kn_attrs_diagonal_of at = {.dim1 = i, .dim2 = j};
    x->t = kx_with(s, KN_OP_diagonal, &at, x->t);
    drop_letter(x->label, j);
    drop_letter(x->label, i);
    size_t n = strlen(x->label);
    x->label[n] = letter;
    x->label[n + 1] = 0;
    i = -1;
  }
}

/* A dim of an ellipsis that has size 1 here and another size elsewhere is dropped: broadcasting. */
static void drop_ones(kn_scope *s, equation *e, term *x) {
  for (int i = 0; x->t && x->label[i]; i++) {
    bool wider = false;
    if (!isdigit((unsigned char)x->label[i]) || x->t->type.dims[i] != 1) continue;
    for (int k = 0; k < e->n; k++) {
      const char *there = strchr(e->in[k].label, x->label[i]);
      wider |= there && e->in[k].t && e->in[k].t->type.dims[there - e->in[k].label] != 1;
    }
    if (!wider) continue;
    x->t = kx_select(s, x->t, i, 0);
    drop_letter(x->label, i--);
  }
}

/* Sums the dims whose letters are not in `keep`. */
static void sum_others(kn_scope *s, term *x, const char *keep) {
  kn_ints over = {0};
  int kept = 0;
  for (int i = 0; x->label[i]; i++) {
    if (strchr(keep, x->label[i]))
      x->label[kept++] = x->label[i];
    else
      over.v[over.n++] = i;
  }
  x->label[kept] = 0;
  if (over.n) x->t = kx_reduce(s, KN_OP_sum, x->t, over, false);
}

static void arrange(kn_scope *s, term *x, const char *order) {
  kn_attrs_axes at = {0};
  bool same = true;
  for (const char *c = order; *c; c++) {
    at.dims.v[at.dims.n] = strchr(x->label, *c) - x->label;
    same &= at.dims.v[at.dims.n] == at.dims.n;
    at.dims.n++;
  }
  if (!same) x->t = kx_with(s, KN_OP_permute, &at, x->t);
  memcpy(x->label, order, strlen(order) + 1);
}

/* ---- a pair ---- */

/* Dims [from, to) as one: their product, a placeholder, or -1 when it cannot be told. */
static void put_group(kn_scope *s, kn_tensor *t, int from, int to, kn_ints *sizes) {
  int64_t size = 1;
  if (!t) return;
  if (to - from == 1) {
    kx_put_sizes(s, t, from, to, sizes);
    return;
  }
  for (int d = from; d < to; d++)
    if (!kn_dim_known(t->type.dims[d]) || __builtin_mul_overflow(size, t->type.dims[d], &size)) {
      size = -1;
      break;
    }
  kx_put_size(s, size, sizes);
}

/* x, whose dims are in three groups of a, b and the rest, as three dims. */
static kn_tensor *in_three(kn_scope *s, const term *x, size_t a, size_t b) {
  kn_ints sizes = {0};
  int first = (int)a, second = (int)(a + b), all = (int)strlen(x->label);
  put_group(s, x->t, 0, first, &sizes);
  put_group(s, x->t, first, second, &sizes);
  put_group(s, x->t, second, all, &sizes);
  return x->t && s->status == KN_OK ? kx_reshape(s, x->t, &sizes) : NULL;
}

static void add_letter(char *to, char c) {
  size_t n = strlen(to);
  to[n] = c;
  to[n + 1] = 0;
}

/* `later`: the letters that the result and the terms to come have. */
static void multiply(kn_scope *s, term *x, term *y, const char *later) {
  char batch[KN_MAX_RANK + 1] = "", summed[KN_MAX_RANK + 1] = "", left[KN_MAX_RANK + 1] = "",
                           right[KN_MAX_RANK + 1] = "", keep[2 * KN_MAX_RANK + LETTERS + 1],
                           order[3 * KN_MAX_RANK + 1];
  snprintf(keep, sizeof keep, "%s%s", later, y->label);
  sum_others(s, x, keep);
  snprintf(keep, sizeof keep, "%s%s", later, x->label);
  sum_others(s, y, keep);
  for (const char *c = x->label; *c; c++)
    add_letter(!has(y, *c) ? left : strchr(later, *c) ? batch : summed, *c);
  for (const char *c = y->label; *c; c++)
    if (!has(x, *c)) add_letter(right, *c);
  if (strlen(batch) + strlen(left) + strlen(right) > KN_MAX_RANK) {
    kx_fail(s, kn_fail(s->ctx, KN_SHAPE, "einsum: a product would have more than %d dims", KN_MAX_RANK));
    return;
  }
  snprintf(order, sizeof order, "%s%s%s", batch, left, summed);
  arrange(s, x, order);
  snprintf(order, sizeof order, "%s%s%s", batch, summed, right);
  arrange(s, y, order);
  kn_tensor *a = in_three(s, x, strlen(batch), strlen(left)),
            *b = in_three(s, y, strlen(batch), strlen(summed));
  kn_tensor *product = kx_matmul(s, a, b);
  kn_ints sizes = {0};
  kx_put_sizes(s, x->t, 0, (int)(strlen(batch) + strlen(left)), &sizes);
  if (y->t) kx_put_sizes(s, y->t, (int)(strlen(batch) + strlen(summed)), (int)strlen(y->label), &sizes);
  x->t = product && s->status == KN_OK ? kx_reshape(s, product, &sizes) : NULL;
  snprintf(order, sizeof order, "%s%s%s", batch, left, right);
  memcpy(x->label, order, strlen(order) + 1);
}

kn_status kn_einsum(kn_context *ctx, const char *text, kn_tensor *const *in, int n, kn_tensor **out) {
  equation e = {.text = text};
  kn_scope s;
  if (n < 1 || n > KN_MAX_INPUTS)
    return kn_fail(ctx, KN_ARG, "einsum: between 1 and %d tensors are needed, got %d", KN_MAX_INPUTS, n);
  kn_scope_open(&s, ctx);
  read_equation(&s, &e, in, n);
  for (int i = 0; i < e.n && s.status == KN_OK; i++) drop_ones(&s, &e, &e.in[i]);
  const kn_within within = {"einsum", ctx->within};
  ctx->within = &within;
  for (int i = 0; i < e.n && s.status == KN_OK; i++) take_diagonals(&s, &e.in[i]);
  for (int i = 1; i < e.n && s.status == KN_OK; i++) {
    char later[LETTERS] = "";
    for (const char *c = e.out; *c; c++) add_letter(later, *c);
    for (int k = i + 1; k < e.n; k++)
      for (const char *c = e.in[k].label; *c; c++)
        if (!strchr(later, *c)) add_letter(later, *c);
    multiply(&s, &e.in[0], &e.in[i], later);
  }
  if (s.status == KN_OK) sum_others(&s, &e.in[0], e.out);
  if (s.status == KN_OK) arrange(&s, &e.in[0], e.out);
  ctx->within = within.up;
  kn_status st = kn_scope_close(&s, e.in[0].t, out);
  if (st != KN_OK && strncmp(kn_error(ctx), "einsum", 6)) kn_error_prefix(ctx, "einsum");
  return st;
}
