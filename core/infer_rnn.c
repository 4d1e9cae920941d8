/* Type rules of the recurrent layers: floats of one dtype. A shape is written as a word of one letter a dim:
 * T steps, N samples, H units, and a digit for as many times H. */
#include "core/infer.h"
#include <string.h>

typedef struct sizes {
  int64_t t, n, h;
} sizes;

/* "[T,N,4H]" for "TN4" */
static const char *written(const char *shape, char *buf) {
  size_t at = 0;
  for (const char *c = shape; *c; c++) {
    buf[at++] = c == shape ? '[' : ',';
    buf[at++] = *c;
    if (*c < 'A') buf[at++] = 'H';
  }
  buf[at++] = ']', buf[at] = 0;
  return buf;
}

/* One name has one size; what is known counts more than a symbol, and that more than nothing. */
static bool unify(int64_t *size, int64_t d) {
  if (kn_dim_known(*size)) return !kn_dim_known(d) || d == *size;
  if (kn_dim_known(d) || *size == KN_DIM_UNKNOWN) *size = d;
  return true;
}

static bool dim_fits(sizes *s, char name, int64_t d) {
  int64_t times = name - '0';
  switch (name) {
  case 'T': return unify(&s->t, d);
  case 'N': return unify(&s->n, d);
  case 'H': return unify(&s->h, d);
  default: return !kn_dim_known(d) || (d % times == 0 && unify(&s->h, d / times));
  }
}

/* Inputs [0, n) have these shapes and one floating dtype. */
static kn_status inputs_fit(const kn_infer *q, const char *const *shapes, sizes *s) {
  char text[32];
  *s = (sizes){KN_DIM_UNKNOWN, KN_DIM_UNKNOWN, KN_DIM_UNKNOWN};
  KN_TRY(kn_infer_floating(q, 0));
  for (int i = 0; i < q->n; i++) {
    const kn_type *t = &q->in[i];
    if (i) KN_TRY(kn_infer_same_dtype(q, 0, i));
    bool fits = t->rank == strlen(shapes[i]);
    for (int d = 0; fits && d < t->rank; d++) fits = dim_fits(s, shapes[i][d], t->dims[d]);
    if (!fits)
      return kn_infer_fail(q, KN_SHAPE, "input %d must have the shape %s and fit the others", i + 1,
                           written(shapes[i], text));
  }
  return KN_OK;
}

static void give(const kn_infer *q, int i, const char *shape, const sizes *s) {
  kn_type *t = &q->out[i];
  *t = (kn_type){.dtype = q->in[0].dtype};
  for (const char *c = shape; *c; c++) {
    int64_t *d = &t->dims[t->rank++], times = *c - '0';
    *d = *c == 'T'            ? s->t
         : *c == 'N'          ? s->n
         : *c == 'H'          ? s->h
         : kn_dim_known(s->h) ? s->h * times
                              : KN_DIM_UNKNOWN;
  }
}

#define RULE(name, outs, ...)                                                                                \
  kn_status kn_infer_##name(const kn_infer *q) {                                                             \
    static const char *const in[] = {__VA_ARGS__};                                                           \
    static const char *const out[] = outs;                                                                   \
    sizes s;                                                                                                 \
    KN_TRY(inputs_fit(q, in, &s));                                                                           \
    for (int i = 0; i < (int)(sizeof out / sizeof out[0]); i++) give(q, i, out[i], &s);                      \
    return KN_OK;                                                                                            \
  }
#define OUTS(...)                                                                                            \
  { __VA_ARGS__ }
RULE(lstm_layer, OUTS("TNH", "TNH", "TN4"), "TN4", "4H", "NH", "NH")
RULE(lstm_layer_grad, OUTS("TN4", "NH", "NH"), "TN4", "TNH", "4H", "NH", "TNH", "TNH", "TN4")
RULE(gru_layer, OUTS("TNH", "TN4"), "TN3", "3H", "NH", "3")
RULE(gru_layer_grad, OUTS("TN3", "TN3", "NH"), "TN4", "TNH", "3H", "NH", "TNH", "TN4")
RULE(rnn_layer, OUTS("TNH"), "TNH", "HH", "NH")
RULE(rnn_layer_grad, OUTS("TNH", "NH"), "TNH", "HH", "TNH")
