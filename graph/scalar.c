/* Lua's numbers without Lua: the rules of the reference manual, section 3.4, on int64 and double. */
#include "graph/scalar.h"
#include <math.h>

/* ---- result kinds ---- */

static bool number(kn_vkind k) { return k == KN_V_INT || k == KN_V_FLOAT || k == KN_V_NUMBER; }

static kn_vkind arith(kn_vkind a, kn_vkind b) {
  if (a == KN_V_FLOAT || b == KN_V_FLOAT) return KN_V_FLOAT;
  return a == KN_V_INT && b == KN_V_INT ? KN_V_INT : KN_V_NUMBER;
}

bool kn_scalar_result(kn_opcode op, const kn_vkind *in, uint32_t n, kn_vkind *out) {
  bool one = n == 1 && number(in[0]), two = n == 2 && number(in[0]) && number(in[1]);
  switch ((int)op) {
  case KN_NODE_lua_add:
  case KN_NODE_lua_sub:
  case KN_NODE_lua_mul:
  case KN_NODE_lua_mod:
  case KN_NODE_lua_idiv: return two ? (*out = arith(in[0], in[1]), true) : false;
  case KN_NODE_lua_pow:
  case KN_NODE_lua_div: return two ? (*out = KN_V_FLOAT, true) : false;
  case KN_NODE_lua_band:
  case KN_NODE_lua_bor:
  case KN_NODE_lua_bxor:
  case KN_NODE_lua_shl:
  case KN_NODE_lua_shr: return two ? (*out = KN_V_INT, true) : false;
  case KN_NODE_lua_eq:
    if (n == 2 && in[0] == KN_V_BOOL && in[1] == KN_V_BOOL) two = true;
    return two ? (*out = KN_V_BOOL, true) : false;
  case KN_NODE_lua_lt:
  case KN_NODE_lua_le: return two ? (*out = KN_V_BOOL, true) : false;
  case KN_NODE_lua_unm:
  case KN_NODE_lua_abs: return one ? (*out = in[0], true) : false;
  case KN_NODE_lua_bnot: return one ? (*out = KN_V_INT, true) : false;
  case KN_NODE_lua_not: return n == 1 && in[0] == KN_V_BOOL ? (*out = KN_V_BOOL, true) : false;
  case KN_NODE_lua_floor:
  case KN_NODE_lua_ceil: return one ? (*out = in[0] == KN_V_INT ? KN_V_INT : KN_V_NUMBER, true) : false;
  case KN_NODE_lua_sqrt:
  case KN_NODE_lua_exp:
  case KN_NODE_lua_log:
  case KN_NODE_lua_sin:
  case KN_NODE_lua_cos:
  case KN_NODE_lua_tofloat: return one ? (*out = KN_V_FLOAT, true) : false;
  case KN_NODE_for_skip:
  case KN_NODE_for_count:
    if (n != 3 || in[0] != KN_V_INT || !number(in[1]) || in[2] != KN_V_INT) return false;
    *out = op == KN_NODE_for_skip ? KN_V_BOOL : KN_V_INT;
    return true;
  case KN_NODE_checkpoint_after:
    return n == 2 && in[0] == KN_V_INT && in[1] == KN_V_INT ? (*out = KN_V_INT, true) : false;
  case KN_NODE_select: {
    kn_vtype a = {.kind = n == 3 ? in[1] : KN_V_TENSOR}, b = {.kind = n == 3 ? in[2] : KN_V_TENSOR}, t;
    if (n != 3 || in[0] != KN_V_BOOL || a.kind == KN_V_TENSOR || !kn_vtype_join(&a, &b, &t)) return false;
    *out = t.kind;
    return true;
  }
  default: return false;
  }
}

/* ---- integers ---- */

static int64_t wrap(uint64_t u) { return (int64_t)u; }

static kn_status int_mod(kn_context *ctx, int64_t a, int64_t b, int64_t *out) {
  if (b == 0) return kn_fail(ctx, KN_RAISED, "attempt to perform 'n%%0'");
  int64_t r = b == -1 ? 0 : a % b;
  *out = r != 0 && (r ^ b) < 0 ? r + b : r;
  return KN_OK;
}

static kn_status int_idiv(kn_context *ctx, int64_t a, int64_t b, int64_t *out) {
  if (b == 0) return kn_fail(ctx, KN_RAISED, "attempt to divide by zero");
  if (b == -1)
    *out = wrap(0 - (uint64_t)a);
  else
    *out = a / b - (a % b != 0 && (a ^ b) < 0);
  return KN_OK;
}

static int64_t shift_left(int64_t a, int64_t by) {
  if (by <= -64 || by >= 64) return 0;
  return wrap(by >= 0 ? (uint64_t)a << by : (uint64_t)a >> -by);
}

/* ---- floats ---- */

static double float_mod(double a, double b) {
  double m = fmod(a, b);
  if (m > 0 ? b < 0 : m < 0 && b > 0) m += b;
  return m;
}

/* The integer that f is, if it is one that fits. */
static bool exact_int(double f, int64_t *out) {
  if (!(f >= -0x1p63 && f < 0x1p63) || floor(f) != f) return false;
  *out = (int64_t)f;
  return true;
}

static kn_status to_int(kn_context *ctx, const kn_scalar *s, int64_t *out) {
  if (s->kind == KN_SCALAR_INT)
    *out = s->as.i;
  else if (!exact_int(s->as.f, out))
    return kn_fail(ctx, KN_RAISED, "number has no integer representation");
  return KN_OK;
}

static double to_float(const kn_scalar *s) { return s->kind == KN_SCALAR_INT ? (double)s->as.i : s->as.f; }

/* ---- comparison, exact across kinds ---- */

/* -1, 0, 1, or 2 when unordered (nan). */
static int compare(const kn_scalar *a, const kn_scalar *b) {
  if (a->kind == KN_SCALAR_INT && b->kind == KN_SCALAR_INT) return (a->as.i > b->as.i) - (a->as.i < b->as.i);
  if (a->kind != KN_SCALAR_INT && b->kind != KN_SCALAR_INT) {
    if (isnan(a->as.f) || isnan(b->as.f)) return 2;
    return (a->as.f > b->as.f) - (a->as.f < b->as.f);
  }
  if (a->kind != KN_SCALAR_INT) {
    int c = compare(b, a);
    return c == 2 ? 2 : -c;
  }
  double f = b->as.f;
  if (isnan(f)) return 2;
  if (f >= 0x1p63) return -1;
  if (f < -0x1p63) return 1;
  int64_t whole = (int64_t)floor(f);
  if (a->as.i != whole) return a->as.i < whole ? -1 : 1;
  return f > floor(f) ? -1 : 0;
}

/* ---- numeric for over integers: the manual's section 3.3.5, with a limit that may be a float ---- */

static kn_status for_limit(kn_context *ctx, const kn_scalar *in, int64_t *limit, bool *skip) {
  int64_t start = in[0].as.i, step = in[2].as.i;
  if (step == 0) return kn_fail(ctx, KN_RAISED, "'for' step is zero");
  if (in[1].kind == KN_SCALAR_INT)
    *limit = in[1].as.i;
  else {
    double f = step < 0 ? ceil(in[1].as.f) : floor(in[1].as.f);
    if (f >= -0x1p63 && f < 0x1p63)
      *limit = (int64_t)f;
    else if (f > 0) { /* beyond all integers; the rest, nan included, counts as below all */
      *limit = INT64_MAX;
      if (step < 0) return *skip = true, KN_OK;
    } else {
      *limit = INT64_MIN;
      if (step > 0) return *skip = true, KN_OK;
    }
  }
  *skip = step > 0 ? start > *limit : start < *limit;
  return KN_OK;
}

static int64_t for_trips(int64_t start, int64_t limit, int64_t step) {
  if (step > 0) return wrap(((uint64_t)limit - (uint64_t)start) / (uint64_t)step);
  return wrap(((uint64_t)start - (uint64_t)limit) / (0 - (uint64_t)step));
}

/* ---- evaluation ---- */

static kn_status give_int(kn_scalar *out, int64_t i) {
  *out = (kn_scalar){KN_SCALAR_INT, {.i = i}};
  return KN_OK;
}
static kn_status give_float(kn_scalar *out, double f) {
  *out = (kn_scalar){KN_SCALAR_FLOAT, {.f = f}};
  return KN_OK;
}
static kn_status give_bool(kn_scalar *out, bool b) {
  *out = (kn_scalar){KN_SCALAR_BOOL, {.b = b}};
  return KN_OK;
}

static kn_status binary_int(kn_context *ctx, kn_opcode op, int64_t a, int64_t b, kn_scalar *out) {
  int64_t r = 0;
  switch ((int)op) {
  case KN_NODE_lua_add: r = wrap((uint64_t)a + (uint64_t)b); break;
  case KN_NODE_lua_sub: r = wrap((uint64_t)a - (uint64_t)b); break;
  case KN_NODE_lua_mul: r = wrap((uint64_t)a * (uint64_t)b); break;
  case KN_NODE_lua_mod: KN_TRY(int_mod(ctx, a, b, &r)); break;
  default: KN_TRY(int_idiv(ctx, a, b, &r)); break;
  }
  return give_int(out, r);
}

static kn_status binary_float(kn_opcode op, double a, double b, kn_scalar *out) {
  switch ((int)op) {
  case KN_NODE_lua_add: return give_float(out, a + b);
  case KN_NODE_lua_sub: return give_float(out, a - b);
  case KN_NODE_lua_mul: return give_float(out, a * b);
  case KN_NODE_lua_mod: return give_float(out, float_mod(a, b));
  case KN_NODE_lua_pow: return give_float(out, b == 2 ? a * a : pow(a, b));
  case KN_NODE_lua_div: return give_float(out, a / b);
  default: return give_float(out, floor(a / b));
  }
}

static kn_status bitwise(kn_context *ctx, kn_opcode op, const kn_scalar *in, kn_scalar *out) {
  int64_t a = 0, b = 0;
  KN_TRY(to_int(ctx, &in[0], &a));
  KN_TRY(to_int(ctx, &in[op == KN_NODE_lua_bnot ? 0 : 1], &b));
  switch ((int)op) {
  case KN_NODE_lua_band: return give_int(out, a & b);
  case KN_NODE_lua_bor: return give_int(out, a | b);
  case KN_NODE_lua_bxor: return give_int(out, a ^ b);
  case KN_NODE_lua_shl: return give_int(out, shift_left(a, b));
  case KN_NODE_lua_shr: return give_int(out, shift_left(a, wrap(0 - (uint64_t)b)));
  default: return give_int(out, ~a);
  }
}

/* math.floor and math.ceil: an integer where it fits. */
static kn_status whole(double f, kn_scalar *out) {
  int64_t i;
  return exact_int(f, &i) ? give_int(out, i) : give_float(out, f);
}

static kn_status unary(kn_opcode op, const kn_scalar *x, kn_scalar *out) {
  bool i = x->kind == KN_SCALAR_INT;
  double f = to_float(x);
  uint64_t u = i ? (uint64_t)x->as.i : 0;
  switch ((int)op) {
  case KN_NODE_lua_unm: return i ? give_int(out, wrap(0 - u)) : give_float(out, -f);
  case KN_NODE_lua_abs:
    return i ? give_int(out, x->as.i < 0 ? wrap(0 - u) : x->as.i) : give_float(out, fabs(f));
  case KN_NODE_lua_floor: return i ? give_int(out, x->as.i) : whole(floor(f), out);
  case KN_NODE_lua_ceil: return i ? give_int(out, x->as.i) : whole(ceil(f), out);
  case KN_NODE_lua_sqrt: return give_float(out, sqrt(f));
  case KN_NODE_lua_exp: return give_float(out, exp(f));
  case KN_NODE_lua_log: return give_float(out, log(f));
  case KN_NODE_lua_sin: return give_float(out, sin(f));
  case KN_NODE_lua_cos: return give_float(out, cos(f));
  default: return give_float(out, f);
  }
}

static kn_status for_node(kn_context *ctx, kn_opcode op, const kn_scalar *in, kn_scalar *out) {
  int64_t limit = 0;
  bool skip = false;
  KN_TRY(for_limit(ctx, in, &limit, &skip));
  return op == KN_NODE_for_skip ? give_bool(out, skip)
                                : give_int(out, for_trips(in[0].as.i, limit, in[2].as.i));
}

/* Binomial checkpointing (Griewank, Walther 2000): with `room` checkpoints beside the one where it stands, a
 * chain whose trips run at most r times more is at most C(room + r, r) long. The left part, which is walked
 * back last, gets the length that is possible with one time less. */
static int64_t checkpoint_after(int64_t trips, int64_t room) {
  if (room < 1 || trips < 2) return trips;
  int64_t less = 1, length = 1; /* C(room + r - 1, r - 1) and C(room + r, r) */
  for (int64_t r = 1; length < trips; r++) {
    if (room > trips || length > INT64_MAX / (room + r)) return less;
    less = length;
    length = length * (room + r) / r;
  }
  return less < trips ? less : trips - 1;
}

static kn_vkind kind_of(const kn_scalar *s) {
  return s->kind == KN_SCALAR_INT     ? KN_V_INT
         : s->kind == KN_SCALAR_FLOAT ? KN_V_FLOAT
         : s->kind == KN_SCALAR_BOOL  ? KN_V_BOOL
                                      : KN_V_TENSOR;
}

kn_status kn_scalar_eval(kn_context *ctx, kn_opcode op, const kn_scalar *in, uint32_t n, kn_scalar *out) {
  kn_vkind kinds[3] = {KN_V_TENSOR, KN_V_TENSOR, KN_V_TENSOR}, result;
  for (uint32_t i = 0; i < n && i < 3; i++) kinds[i] = kind_of(&in[i]);
  if (n > 3 || !kn_scalar_result(op, kinds, n, &result))
    return kn_fail(ctx, KN_INTERNAL, "%s: cannot be computed from these values", kn_opcode_describe(op).text);
  bool ints = n == 2 && in[0].kind == KN_SCALAR_INT && in[1].kind == KN_SCALAR_INT;
  switch ((int)op) {
  case KN_NODE_lua_add:
  case KN_NODE_lua_sub:
  case KN_NODE_lua_mul:
  case KN_NODE_lua_mod:
  case KN_NODE_lua_idiv:
    if (ints) return binary_int(ctx, op, in[0].as.i, in[1].as.i, out);
    return binary_float(op, to_float(&in[0]), to_float(&in[1]), out);
  case KN_NODE_lua_pow:
  case KN_NODE_lua_div: return binary_float(op, to_float(&in[0]), to_float(&in[1]), out);
  case KN_NODE_lua_eq:
    if (in[0].kind == KN_SCALAR_BOOL) return give_bool(out, in[0].as.b == in[1].as.b);
    return give_bool(out, compare(&in[0], &in[1]) == 0);
  case KN_NODE_lua_lt: return give_bool(out, compare(&in[0], &in[1]) == -1);
  case KN_NODE_lua_le: return give_bool(out, compare(&in[0], &in[1]) <= 0);
  case KN_NODE_lua_not: return give_bool(out, !in[0].as.b);
  case KN_NODE_for_skip:
  case KN_NODE_for_count: return for_node(ctx, op, in, out);
  case KN_NODE_checkpoint_after: return give_int(out, checkpoint_after(in[0].as.i, in[1].as.i));
  case KN_NODE_select: *out = in[in[0].as.b ? 1 : 2]; return KN_OK;
  default: return n == 2 || op == KN_NODE_lua_bnot ? bitwise(ctx, op, in, out) : unary(op, &in[0], out);
  }
}
