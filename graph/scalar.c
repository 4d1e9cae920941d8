/* Lua's numbers without Lua: what kinds they have, and their errors. What they mean is in scalar_rules.h. */
#include "graph/scalar_rules.h"

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

/* ---- evaluation ---- */

static const char *const sentences[] = {[KN_RULE_MOD_ZERO] = "attempt to perform 'n%0'",
                                        [KN_RULE_DIVIDE_ZERO] = "attempt to divide by zero",
                                        [KN_RULE_NO_INTEGER] = "number has no integer representation",
                                        [KN_RULE_STEP_ZERO] = "'for' step is zero"};

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
  kn_scalar r;
  const int why = kn_rule_eval((int)op, in, (int)n, &r);
  if (why != KN_RULE_FINE) return kn_fail(ctx, KN_RAISED, "%s", sentences[why]);
  *out = r;
  return KN_OK;
}
