/* Graphs of elementwise nodes, reductions and softmaxes, drawn at random with all kinds of operands, as text;
 * and two sessions that must give the same bits for them: one that has a node at a time, one that may join
 * them. */
#ifndef SPEC_CHAIN_TEXT_H
#define SPEC_CHAIN_TEXT_H
#include "spec/exec.h"

enum { INPUTS = 8, RESULTS = 10 };

typedef struct maker {
  char text[30000], *at;
  uint64_t seed, drawn;
  bool floats, rich;    /* softmaxes and means; reductions that are not exact */
  int full, truth;      /* values %f1 … of all sizes, %b1 … of booleans */
  int column, list;     /* %c1 … of the size 1 in the last dim, %d1 … without it */
  kn_device_id device;  /* of all tensors */
  int side, all, plane; /* %k1 … of the last dim, %t1 … of no dim, %e1 … of the size 1 in the last two */
} maker;

static int draw(maker *m, int n) { return (int)(kn_random_word(m->seed, 3, m->drawn++) % (uint64_t)n); }
#define PUT(...) m->at += sprintf(m->at, __VA_ARGS__)

/* Late values more often, so that many have one reader. */
static int value(maker *m) {
  int back = draw(m, 3) && m->full > 3 ? 3 : m->full;
  return m->full - draw(m, back);
}

static void operand(maker *m) {
  static const char *const repeated[] = {"row", "mid", "one", "last", "turned"};
  int which = draw(m, 14);
  if (which < 4 || (which == 4 && !draw(m, 6)))
    PUT("%%%s", repeated[which]);
  else if (which == 4 && m->plane)
    PUT("%%e%d", m->plane);
  else if (which < 6 && m->column)
    PUT("%%c%d", m->column - draw(m, m->column));
  else
    PUT("%%f%d", value(m));
}

/* What a reduction reads: now and then what does not lie as rows. */
static void source(maker *m) {
  if (draw(m, 8))
    PUT("%%f%d", value(m));
  else
    PUT("%%%s", draw(m, 2) ? "turned" : "x");
}

static const char *reduction(maker *m) {
  static const char *const names[] = {"amax", "amin", "sum", "prod", "mean"};
  return names[draw(m, m->floats ? 5 : 4)];
}

static void rich_node(maker *m) {
  static const char *const two[] = {"add", "sub", "mul", "maximum"};
  switch (draw(m, 13)) {
  case 12:
    PUT("  %%e%d = %s ", ++m->plane, reduction(m));
    source(m);
    PUT(" {dim = {2, 3}, keepdim = true}");
    break;
  case 0:
  case 1:
  case 2:
    PUT("  %%c%d = %s ", ++m->column, reduction(m));
    source(m);
    PUT(" {dim = {-1}, keepdim = true}");
    break;
  case 3:
    PUT("  %%c%d = sum_to ", ++m->column);
    source(m);
    PUT(", %%last");
    break;
  case 4:
    PUT("  %%d%d = %s ", ++m->list, reduction(m));
    source(m);
    PUT(" {dim = {3}}");
    break;
  case 5:
    if (m->list)
      PUT("  %%d%d = %s %%d%d, %%d%d", m->list + 1, two[draw(m, 4)], m->list, 1 + draw(m, m->list));
    else
      PUT("  %%d%d = add %%list, %%one", m->list + 1);
    m->list++;
    break;
  case 6:
    PUT("  %%k%d = sum_to ", ++m->side);
    source(m);
    PUT(", %%row");
    break;
  case 7:
    PUT("  %%k%d = %s ", ++m->side, reduction(m));
    source(m);
    PUT(" {dim = {1, 2}}");
    break;
  case 8:
    PUT("  %%t%d = %s ", ++m->all, reduction(m));
    source(m);
    break;
  case 9:
  case 10:
    if (m->floats)
      PUT("  %%f%d = %s %%f%d {dim = -1}", m->full + 1, draw(m, 3) ? "softmax" : "log_softmax", value(m));
    else
      PUT("  %%f%d = abs %%f%d", m->full + 1, value(m));
    m->full++;
    break;
  default:
    if (m->column)
      PUT("  %%c%d = %s %%c%d, %s", m->column + 1, two[draw(m, 4)], 1 + draw(m, m->column),
          draw(m, 2) ? "%one" : "%last");
    else
      PUT("  %%c%d = neg %%last", m->column + 1);
    m->column++;
  }
}

static void node(maker *m) {
  static const char *const two[] = {"add", "sub", "mul", "maximum", "minimum"};
  static const char *const one[] = {"neg", "relu", "abs", "floor", "sign"};
  int kind = draw(m, 14), x = value(m);
  if (m->rich && !draw(m, 3)) {
    rich_node(m);
  } else if (kind == 0 || !m->truth) {
    PUT("  %%b%d = %s %%f%d, ", ++m->truth, draw(m, 2) ? "lt" : "ge", x);
    operand(m);
  } else if (kind == 1)
    PUT("  %%c%d = amax %%f%d {dim = {-1}, keepdim = true}", ++m->column, x);
  else if (kind == 2) { /* it is in no walk */
    PUT("  %%f%d = sum_to %%f%d, %%x", m->full + 1, x);
    m->full++;
  } else if (kind == 3) {
    PUT("  %%f%d = where %%b%d, %%f%d, ", m->full + 1, 1 + draw(m, m->truth), x);
    operand(m);
    m->full++;
  } else if (kind < 7) {
    PUT("  %%f%d = %s %%f%d", m->full + 1, one[draw(m, 5)], x);
    m->full++;
  } else {
    PUT("  %%f%d = %s %%f%d, ", m->full + 1, two[draw(m, 5)], x);
    operand(m);
    m->full++;
  }
  PUT("\n");
}

static void result(maker *m, char kind, int n) {
  if (n)
    PUT(", %%%c%d", kind, n);
  else
    PUT(", %%one");
}

/* The device stays the maker's. */
static void begin_text(maker *m, uint64_t seed, kn_dtype d, bool rich) {
  static const char *const inputs[] = {"x: #[A,B,C]", "y: #[A,B,C]", "t: #[C,B,A]",    "row: #[C]",
                                       "mid: #[B,1]", "one: #[]",    "last: #[A,B,1]", "list: #[A,B]"};
  *m = (maker){.seed = seed, .floats = kn_dtype_is_float(d), .rich = rich, .device = m->device};
  m->at = m->text;
  for (int i = 0; i < INPUTS; i++) {
    const int n = (int)strcspn(inputs[i], "#");
    PUT("%s%%%.*s%s%s%s", i ? ", " : "graph g(", n, inputs[i], kn_dtypes[d].name, inputs[i] + n + 1,
        m->device == KN_CPU ? "" : "@cuda");
  }
  PUT(") {\n");
  PUT("  %%turned = transpose %%t {dim0 = 1, dim1 = 3}\n  %%f1 = add %%x, %%y\n");
  m->full = 1;
}

static const char *random_text(maker *m, uint64_t seed, kn_dtype d, bool rich, int nodes) {
  begin_text(m, seed, d, rich);
  for (int i = 0; i < nodes; i++) node(m);
  PUT("  return %%f%d, %%f%d, %%f%d, %%b1", m->full, value(m), 1 + draw(m, m->full));
  result(m, 'c', m->column), result(m, 'd', m->list), result(m, 'k', m->side), result(m, 't', m->all);
  result(m, 'k', m->side > 1), result(m, 'e', m->plane);
  PUT("\n}\n");
  return m->text;
}

/* ---- node by node, and together ---- */

static void fill(kn_tensor *t, uint64_t seed) {
  for (int64_t k = 0; k < kn_tensor_numel(t); k++)
    set_element(t, k, (double)(kn_random_word(seed, 7, (uint64_t)k) % 64) / 16 - 2);
}

/* Takes t over. */
static kn_tensor *moved(kn_context *c, kn_tensor *t, kn_device_id d) {
  kn_tensor *out = t;
  if (t->type.device == d) return t;
  OK(c, kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = d}, &t, 1, &out));
  kn_tensor_release(t);
  return out;
}

static void watch(void *ud, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars) {
  (void)ud, (void)n, (void)vals, (void)scalars;
}

/* One by one by `alone`, together by `together`; lists of n targets. Where `alone` are the same, it is seen
 * to that they have a node at a time. */
static void run_both_by(kn_context *c, const maker *m, const kn_target *const *alone,
                        const kn_target *const *together, int n, bool observed, kn_dtype dtype, int64_t a,
                        int64_t b, int64_t d) {
  const kn_ints dims[INPUTS] = {DIMS(a, b, d), DIMS(a, b, d), DIMS(d, b, a), DIMS(d),
                                DIMS(b, 1),    SCALAR,        DIMS(a, b, 1), DIMS(a, b)};
  kn_graph *g = parse(c, m->text);
  kn_session *s[2];
  OK(c, kn_session_new(c, g, alone, n, &s[0]));
  OK(c, kn_session_new(c, g, together, n, &s[1]));
  if (observed) kn_session_observe(s[0], watch, NULL); /* a node a part */
  kn_rvalue in[INPUTS] = {{0}}, out[2][RESULTS];
  for (int i = 0; i < INPUTS; i++) {
    kn_type t = type_of(dtype, dims[i]);
    kn_tensor *x;
    OK(c, kn_tensor_new(c, &t, &x));
    fill(x, (uint64_t)i);
    in[i].tensor = moved(c, x, m->device);
  }
  for (int i = 0; i < 2; i++) OK(kn_session_context(s[i]), kn_session_run(s[i], in, INPUTS, out[i], RESULTS));
  for (int i = 0; i < RESULTS; i++) {
    kn_tensor *want = moved(c, out[0][i].tensor, KN_CPU), *got = moved(c, out[1][i].tensor, KN_CPU);
    ck_assert(kn_type_equal(&want->type, &got->type));
    for (int64_t k = 0; k < kn_tensor_numel(want); k++) {
      double x = element(want, k), y = element(got, k);
      ck_assert_msg(x == y || (isnan(x) && isnan(y)), "result %d, element %d is %.17g instead of %.17g:\n%s",
                    i + 1, (int)k + 1, y, x, m->text);
    }
    kn_tensor_release(want), kn_tensor_release(got);
  }
  for (int i = 0; i < INPUTS; i++) kn_tensor_release(in[i].tensor);
  kn_session_free(s[0]), kn_session_free(s[1]);
  kn_graph_release(g);
}

static const kn_dtype drawn_dtypes[] = {KN_F64, KN_F16, KN_I32};

/* Float32 mostly. */
static kn_dtype dtype_for(uint64_t seed) { return seed % 3 ? KN_F32 : drawn_dtypes[seed / 3 % 3]; }

#endif
