/* What Lua's numbers mean: the rules of the reference manual, section 3.4, on 64-bit integers and doubles.
 * Written in the part that C and the languages of devices share, as it is compiled for both: scalar.c
 * includes it, and backends give its text to their compilers, with the names that it uses before it. */
#ifndef KN_SCALAR_RULES_H
#define KN_SCALAR_RULES_H
#ifndef RULE
#include "graph/scalar.h"
#include <math.h>
#define RULE static inline
#endif

/* Why there is no result. */
enum { KN_RULE_FINE, KN_RULE_MOD_ZERO, KN_RULE_DIVIDE_ZERO, KN_RULE_NO_INTEGER, KN_RULE_STEP_ZERO };

RULE int kn_rule_int(long long i, kn_scalar *out) {
  out->kind = KN_SCALAR_INT;
  out->as.i = i;
  return KN_RULE_FINE;
}
RULE int kn_rule_float(double f, kn_scalar *out) {
  out->kind = KN_SCALAR_FLOAT;
  out->as.f = f;
  return KN_RULE_FINE;
}
RULE int kn_rule_bool(int b, kn_scalar *out) {
  out->kind = KN_SCALAR_BOOL;
  out->as.i = 0; /* all of it */
  out->as.b = b != 0;
  return KN_RULE_FINE;
}

RULE long long kn_rule_wrap(unsigned long long u) { return (long long)u; }

/* ---- integers ---- */

RULE int kn_rule_int_mod(long long a, long long b, kn_scalar *out) {
  if (b == 0) return KN_RULE_MOD_ZERO;
  long long r = b == -1 ? 0 : a % b;
  return kn_rule_int(r != 0 && (r ^ b) < 0 ? r + b : r, out);
}

RULE int kn_rule_int_divide(long long a, long long b, kn_scalar *out) {
  if (b == 0) return KN_RULE_DIVIDE_ZERO;
  if (b == -1) return kn_rule_int(kn_rule_wrap(0 - (unsigned long long)a), out);
  return kn_rule_int(a / b - (a % b != 0 && (a ^ b) < 0), out);
}

RULE long long kn_rule_shift(long long a, long long by) {
  if (by <= -64 || by >= 64) return 0;
  return kn_rule_wrap(by >= 0 ? (unsigned long long)a << by : (unsigned long long)a >> -by);
}

/* ---- floats ---- */

RULE double kn_rule_float_mod(double a, double b) {
  double m = fmod(a, b);
  if (m > 0 ? b < 0 : m < 0 && b > 0) m += b;
  return m;
}

/* The integer that f is, if it is one that fits. */
RULE int kn_rule_exact(double f, long long *out) {
  if (!(f >= -0x1p63 && f < 0x1p63) || floor(f) != f) return 0;
  *out = (long long)f;
  return 1;
}

RULE double kn_rule_to_float(const kn_scalar *s) {
  return s->kind == KN_SCALAR_INT ? (double)s->as.i : s->as.f;
}

/* ---- comparison, exact across kinds: -1, 0, 1, or 2 when unordered (nan) ---- */

RULE int kn_rule_compare_mixed(long long i, double f) {
  if (f != f) return 2;
  if (f >= 0x1p63) return -1;
  if (f < -0x1p63) return 1;
  long long whole = (long long)floor(f);
  if (i != whole) return i < whole ? -1 : 1;
  return f > floor(f) ? -1 : 0;
}

RULE int kn_rule_compare(const kn_scalar *a, const kn_scalar *b) {
  if (a->kind == KN_SCALAR_INT && b->kind == KN_SCALAR_INT) return (a->as.i > b->as.i) - (a->as.i < b->as.i);
  if (a->kind == KN_SCALAR_INT) return kn_rule_compare_mixed(a->as.i, b->as.f);
  if (b->kind == KN_SCALAR_INT) {
    int c = kn_rule_compare_mixed(b->as.i, a->as.f);
    return c == 2 ? 2 : -c;
  }
  if (a->as.f != a->as.f || b->as.f != b->as.f) return 2;
  return (a->as.f > b->as.f) - (a->as.f < b->as.f);
}

/* ---- numeric for over integers: the manual's section 3.3.5, with a limit that may be a float ---- */

RULE int kn_rule_for(int counts, const kn_scalar *in, kn_scalar *out) {
  const long long most = 0x7fffffffffffffffLL;
  long long start = in[0].as.i, step = in[2].as.i, limit = 0;
  int skip = 0, beyond = 0;
  if (step == 0) return KN_RULE_STEP_ZERO;
  if (in[1].kind == KN_SCALAR_INT)
    limit = in[1].as.i;
  else {
    double f = step < 0 ? ceil(in[1].as.f) : floor(in[1].as.f);
    if (f >= -0x1p63 && f < 0x1p63)
      limit = (long long)f;
    else if (f > 0) { /* beyond all integers; the rest, nan included, counts as below all */
      limit = most;
      beyond = step < 0;
    } else {
      limit = -most - 1;
      beyond = step > 0;
    }
  }
  skip = beyond || (step > 0 ? start > limit : start < limit);
  if (!counts) return kn_rule_bool(skip, out);
  if (step > 0)
    return kn_rule_int(
        kn_rule_wrap(((unsigned long long)limit - (unsigned long long)start) / (unsigned long long)step),
        out);
  return kn_rule_int(
      kn_rule_wrap(((unsigned long long)start - (unsigned long long)limit) / (0 - (unsigned long long)step)),
      out);
}

/* ---- evaluation ---- */

RULE int kn_rule_binary_int(int op, long long a, long long b, kn_scalar *out) {
  switch (op) {
  case KN_NODE_lua_add: return kn_rule_int(kn_rule_wrap((unsigned long long)a + (unsigned long long)b), out);
  case KN_NODE_lua_sub: return kn_rule_int(kn_rule_wrap((unsigned long long)a - (unsigned long long)b), out);
  case KN_NODE_lua_mul: return kn_rule_int(kn_rule_wrap((unsigned long long)a * (unsigned long long)b), out);
  case KN_NODE_lua_mod: return kn_rule_int_mod(a, b, out);
  default: return kn_rule_int_divide(a, b, out);
  }
}

RULE int kn_rule_binary_float(int op, double a, double b, kn_scalar *out) {
  switch (op) {
  case KN_NODE_lua_add: return kn_rule_float(a + b, out);
  case KN_NODE_lua_sub: return kn_rule_float(a - b, out);
  case KN_NODE_lua_mul: return kn_rule_float(a * b, out);
  case KN_NODE_lua_mod: return kn_rule_float(kn_rule_float_mod(a, b), out);
  case KN_NODE_lua_pow: return kn_rule_float(b == 2 ? a * a : pow(a, b), out);
  case KN_NODE_lua_div: return kn_rule_float(a / b, out);
  default: return kn_rule_float(floor(a / b), out);
  }
}

RULE int kn_rule_bits(int op, const kn_scalar *in, kn_scalar *out) {
  long long v[2] = {0, 0};
  for (int i = 0; i < (op == KN_NODE_lua_bnot ? 1 : 2); i++) {
    v[i] = in[i].as.i;
    if (in[i].kind != KN_SCALAR_INT && !kn_rule_exact(in[i].as.f, &v[i])) return KN_RULE_NO_INTEGER;
  }
  switch (op) {
  case KN_NODE_lua_band: return kn_rule_int(v[0] & v[1], out);
  case KN_NODE_lua_bor: return kn_rule_int(v[0] | v[1], out);
  case KN_NODE_lua_bxor: return kn_rule_int(v[0] ^ v[1], out);
  case KN_NODE_lua_shl: return kn_rule_int(kn_rule_shift(v[0], v[1]), out);
  case KN_NODE_lua_shr:
    return kn_rule_int(kn_rule_shift(v[0], kn_rule_wrap(0 - (unsigned long long)v[1])), out);
  default: return kn_rule_int(~v[0], out);
  }
}

/* math.floor and math.ceil: an integer where it fits. */
RULE int kn_rule_whole(double f, kn_scalar *out) {
  long long i;
  return kn_rule_exact(f, &i) ? kn_rule_int(i, out) : kn_rule_float(f, out);
}

RULE int kn_rule_unary(int op, const kn_scalar *x, kn_scalar *out) {
  int whole = x->kind == KN_SCALAR_INT;
  long long i = whole ? x->as.i : 0;
  double f = kn_rule_to_float(x);
  switch (op) {
  case KN_NODE_lua_unm:
    return whole ? kn_rule_int(kn_rule_wrap(0 - (unsigned long long)i), out) : kn_rule_float(-f, out);
  case KN_NODE_lua_abs:
    return whole ? kn_rule_int(i < 0 ? kn_rule_wrap(0 - (unsigned long long)i) : i, out)
                 : kn_rule_float(fabs(f), out);
  case KN_NODE_lua_floor: return whole ? kn_rule_int(i, out) : kn_rule_whole(floor(f), out);
  case KN_NODE_lua_ceil: return whole ? kn_rule_int(i, out) : kn_rule_whole(ceil(f), out);
  case KN_NODE_lua_sqrt: return kn_rule_float(sqrt(f), out);
  case KN_NODE_lua_exp: return kn_rule_float(exp(f), out);
  case KN_NODE_lua_log: return kn_rule_float(log(f), out);
  case KN_NODE_lua_sin: return kn_rule_float(sin(f), out);
  case KN_NODE_lua_cos: return kn_rule_float(cos(f), out);
  default: return kn_rule_float(f, out);
  }
}

/* Binomial checkpointing (Griewank, Walther 2000): with `room` checkpoints beside the one where it stands, a
 * chain whose trips run at most r times more is at most C(room + r, r) long. The left part, which is walked
 * back last, gets the length that is possible with one time less. */
RULE long long kn_rule_checkpoint(long long trips, long long room) {
  if (room < 1 || trips < 2) return trips;
  if (room == 1) return trips - 1; /* what the sum below comes to, in as many steps */
  long long less = 1, length = 1;  /* C(room + r - 1, r - 1) and C(room + r, r) */
  for (long long r = 1; length < trips; r++) {
    if (room >= trips || length > 0x7fffffffffffffffLL / (room + r)) return less;
    less = length;
    length = length * (room + r) / r;
  }
  return less < trips ? less : trips - 1;
}

/* `in` is not `out`. */
RULE int kn_rule_eval(int op, const kn_scalar *in, int n, kn_scalar *out) {
  const kn_scalar *a = in, *b = n > 1 ? in + 1 : in;
  switch (op) {
  case KN_NODE_lua_add:
  case KN_NODE_lua_sub:
  case KN_NODE_lua_mul:
  case KN_NODE_lua_mod:
  case KN_NODE_lua_idiv:
    if (a->kind == KN_SCALAR_INT && b->kind == KN_SCALAR_INT)
      return kn_rule_binary_int(op, a->as.i, b->as.i, out);
    return kn_rule_binary_float(op, kn_rule_to_float(a), kn_rule_to_float(b), out);
  case KN_NODE_lua_pow:
  case KN_NODE_lua_div: return kn_rule_binary_float(op, kn_rule_to_float(a), kn_rule_to_float(b), out);
  case KN_NODE_lua_eq:
    if (a->kind == KN_SCALAR_BOOL) return kn_rule_bool(a->as.b == b->as.b, out);
    return kn_rule_bool(kn_rule_compare(a, b) == 0, out);
  case KN_NODE_lua_lt: return kn_rule_bool(kn_rule_compare(a, b) == -1, out);
  case KN_NODE_lua_le: return kn_rule_bool(kn_rule_compare(a, b) <= 0, out);
  case KN_NODE_lua_not: return kn_rule_bool(!a->as.b, out);
  case KN_NODE_for_skip:
  case KN_NODE_for_count: return kn_rule_for(op == KN_NODE_for_count, in, out);
  case KN_NODE_checkpoint_after: return kn_rule_int(kn_rule_checkpoint(a->as.i, b->as.i), out);
  case KN_NODE_select: *out = in[a->as.b ? 1 : 2]; return KN_RULE_FINE;
  default: return n == 2 || op == KN_NODE_lua_bnot ? kn_rule_bits(op, in, out) : kn_rule_unary(op, a, out);
  }
}

#endif
