/* Replays spec/golden/ops.txt: values and gradients that PyTorch gave (spec/golden/ops.py says how the file
 * is written). A case that fails is named by its line. */
#include "core/context.h"
#include "core/grad/tape.h"
#include "spec/tensors.h"

enum { LINE = 1 << 16, MAX_IN = 24 };

typedef struct replay {
  kn_context *ctx;
  FILE *file;
  char *text; /* the line, LINE bytes */
  int line, cases;
  kn_op op;
  kn_attrs_any attrs;
  kn_tensor *in[MAX_IN], *out[KN_MAX_OUTPUTS];
  int n, seen; /* inputs; results compared */
  bool ran;
} replay;

static void fault(const replay *r, const char *why) {
  ck_abort_msg("ops.txt:%d: %s: %s", r->line, kn_op_name(r->op), why);
}

#define AT(r, cond, ...)                                                                                     \
  do {                                                                                                       \
    if (!(cond)) {                                                                                           \
      char why_[1100];                                                                                       \
      snprintf(why_, sizeof why_, __VA_ARGS__);                                                              \
      fault(r, why_);                                                                                        \
    }                                                                                                        \
  } while (0)

/* ---- reading ---- */

static void read_list(const char *s, kn_ints *out) {
  *out = (kn_ints){0};
  for (char *end = (char *)(uintptr_t)s; *end && *end != '}';) out->v[out->n++] = strtoll(end + 1, &end, 10);
}

static void read_attr(replay *r, char *word) {
  char *value = strchr(word, '=');
  AT(r, value, "no '=' in %s", word);
  *value++ = 0;
  const kn_field *f = kn_attrs_describe(kn_ops[r->op].attrs).fields;
  while (f->name && strcmp(f->name, word)) f++;
  AT(r, f->name, "no attribute %s", word);
  void *at = kn_field_at(&r->attrs, f);
  switch (f->kind) {
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS: *(int64_t *)at = strtoll(value, NULL, 10); break;
  case KN_FIELD_NUMBER: *(kn_number *)at = (kn_number){strtod(value, NULL), 0}; break;
  case KN_FIELD_FLOAT: *(double *)at = strtod(value, NULL); break;
  case KN_FIELD_BOOL: *(bool *)at = value[0] == '1'; break;
  case KN_FIELD_ENUM:
    *(int32_t *)at = kn_field_choice(f, value, strlen(value));
    AT(r, *(int32_t *)at >= 0, "no choice %s", value);
    break;
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: read_list(value, at); break;
  case KN_FIELD_TEXT:
  case KN_FIELD_NUMBERS: AT(r, false, "no op of the host has answers"); break;
  case KN_FIELD_DTYPE: AT(r, kn_dtype_parse(value, at), "no dtype %s", value); break;
  }
}

/* "f 2,3 values": a tensor; *s ends behind it. */
static kn_tensor *read_tensor(replay *r, char *s) {
  kn_dtype dtype = *s == 'l' ? KN_I64 : *s == 'b' ? KN_BOOL : KN_F64;
  bool wants = *s == 'f';
  kn_ints dims = {0};
  kn_tensor *t;
  s += 2;
  if (*s == '-')
    s++;
  else
    for (;; s++) {
      dims.v[dims.n++] = strtoll(s, &s, 10);
      if (*s != ',') break;
    }
  kn_type type = type_of(dtype, dims);
  OK(r->ctx, kn_tensor_new(r->ctx, &type, &t));
  for (int64_t k = 0; k < kn_tensor_numel(t); k++) set_element(t, k, strtod(s, &s));
  if (wants) OK(r->ctx, kn_set_requires_grad(r->ctx, t, true));
  return t;
}

/* ---- running ---- */

static void run(replay *r) {
  const void *attrs = kn_ops[r->op].attrs == KN_ATTRS_none ? NULL : &r->attrs;
  kn_status st = kn_apply(r->ctx, r->op, attrs, r->in, r->n, r->out);
  AT(r, st == KN_OK, "%s", kn_error(r->ctx));
  r->ran = true;
}

/* Some of PyTorch's gradients have constants in single precision. */
static void compare(replay *r, const kn_tensor *got, const kn_tensor *want, const char *what) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  AT(r, kn_type_equal(&got->type, &want->type), "%s is %s instead of %s", what,
     kn_type_text(&got->type, a, sizeof a), kn_type_text(&want->type, b, sizeof b));
  for (int64_t k = 0; k < kn_tensor_numel(got); k++)
    AT(r, near(element(got, k), element(want, k), *what == 'g' ? 3e-8 : 1e-9),
       "%s: element %d is %.13g instead of %.13g", what, (int)k + 1, element(got, k), element(want, k));
}

/* sum(w * first result), for input `i` */
static kn_tensor *gradient(replay *r, int i) {
  kn_tensor *w, *g = NULL, *y = r->out[0];
  kn_status st = KN_OK;
  OK(r->ctx, kn_tensor_new(r->ctx, &y->type, &w));
  for (int64_t k = 0; k < kn_tensor_numel(w); k++) set_element(w, k, (double)(7 * k % 11 - 5) / 4 + 0.1);
  if (kn_requires_grad(y)) st = kn_gradients(r->ctx, &y, 1, &w, &r->in[i], 1, false, &g);
  kn_tensor_release(w);
  AT(r, st == KN_OK, "%s", kn_error(r->ctx));
  if (!g) {
    OK(r->ctx, kn_tensor_new(r->ctx, &r->in[i]->type, &g));
    for (int64_t k = 0; k < kn_tensor_numel(g); k++) set_element(g, k, 0);
  }
  return g;
}

static void finish(replay *r) {
  if (r->n && !r->ran) run(r);
  AT(r, r->seen == (r->ran ? kn_ops[r->op].outs : 0), "%d results were compared", r->seen);
  for (int i = 0; i < r->n; i++) kn_tensor_release(r->in[i]);
  for (int i = 0; r->ran && i < kn_ops[r->op].outs; i++) kn_tensor_release(r->out[i]);
  r->n = r->seen = 0;
  r->ran = false;
}

static void start(replay *r) {
  char *word = strtok(r->text + 5, " ");
  finish(r);
  AT(r, word && kn_op_parse(word, &r->op), "there is no op %s", word ? word : "");
  kn_attrs_default(kn_ops[r->op].attrs, &r->attrs);
  while ((word = strtok(NULL, " "))) read_attr(r, word);
  r->cases++;
}

static void do_line(replay *r) {
  char *s = r->text;
  kn_tensor *want, *got;
  s[strcspn(s, "\n")] = 0;
  switch (*s) {
  case 'c': start(r); break;
  case 'i':
    AT(r, r->n < MAX_IN && !r->ran, "too many inputs");
    r->in[r->n++] = read_tensor(r, s + 2);
    break;
  case 'o':
    if (!r->ran) run(r);
    want = read_tensor(r, s + 2);
    compare(r, r->out[r->seen++], want, "the result");
    kn_tensor_release(want);
    break;
  case 'g': {
    char *values, text[32];
    int i = (int)strtol(s + 2, &values, 10) - 1;
    const kn_type *type = &r->in[i]->type;
    OK(r->ctx, kn_tensor_new(r->ctx, type, &want));
    for (int64_t k = 0; k < kn_tensor_numel(want); k++) set_element(want, k, strtod(values, &values));
    got = gradient(r, i);
    snprintf(text, sizeof text, "gradient %d", i + 1);
    compare(r, got, want, text);
    kn_tensor_release(got);
    kn_tensor_release(want);
    break;
  }
  default: AT(r, false, "this line is not understood");
  }
}

START_TEST(golden_ops) {
  const char *root = getenv("KILN_SOURCE");
  char path[4096];
  snprintf(path, sizeof path, "%s/spec/golden/ops.txt", root ? root : ".");
  replay r = {.ctx = suite_context(), .file = fopen(path, "r"), .text = malloc(LINE)};
  ck_assert_msg(r.file != NULL, "%s cannot be read", path);
  ck_assert_ptr_nonnull(r.text);
  while (fgets(r.text, LINE, r.file)) {
    r.line++;
    do_line(&r);
  }
  finish(&r);
  ck_assert_int_gt(r.cases, 300);
  fclose(r.file);
  free(r.text);
  suite_done(r.ctx);
}
END_TEST

SUITE("golden", golden_ops)
