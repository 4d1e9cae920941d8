/* Lua 5.4's arithmetic and comparison on numbers, in C without Lua: what the lua.* nodes mean. */
#ifndef KN_SCALAR_H
#define KN_SCALAR_H
#include "graph/graph.h"

/* Evaluates a PURE or RAISES scalar node kind (lua.*, for_skip, for_count, select on scalars). RAISED with
 * Lua's own sentence ("attempt to divide by zero") when Lua would raise. */
kn_status kn_scalar_eval(kn_context *ctx, kn_opcode op, const kn_scalar *in, uint32_t n, kn_scalar *out);
/* Result kind for input kinds; false when Lua would refuse them. NUMBER in gives NUMBER out where it matters.
 */
bool kn_scalar_result(kn_opcode op, const kn_vkind *in, uint32_t n, kn_vkind *out);

/* The same of what programs count and compare most; false, with nothing done, for all else. */
static inline bool kn_scalar_quick(kn_opcode op, const kn_scalar *a, const kn_scalar *b, kn_scalar *out) {
  enum { EXACT = 1 << 24 }; /* floats hold all integers up to it, and many more */
  if (a->kind == KN_SCALAR_INT && b->kind == KN_SCALAR_INT) {
    const uint64_t x = (uint64_t)a->as.i, y = (uint64_t)b->as.i;
    switch ((int)op) {
    case KN_NODE_lua_add: *out = (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)(x + y)}}; return true;
    case KN_NODE_lua_sub: *out = (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)(x - y)}}; return true;
    case KN_NODE_lua_lt: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = a->as.i < b->as.i}}; return true;
    case KN_NODE_lua_le: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = a->as.i <= b->as.i}}; return true;
    case KN_NODE_lua_eq: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = x == y}}; return true;
    default: return false;
    }
  }
  double v[2];
  const kn_scalar *in[2] = {a, b};
  for (int i = 0; i < 2; i++) {
    if (in[i]->kind != KN_SCALAR_FLOAT && in[i]->kind != KN_SCALAR_INT) return false;
    if (in[i]->kind == KN_SCALAR_INT && (in[i]->as.i > EXACT || in[i]->as.i < -EXACT)) return false;
    v[i] = in[i]->kind == KN_SCALAR_FLOAT ? in[i]->as.f : (double)in[i]->as.i;
  }
  switch ((int)op) {
  case KN_NODE_lua_add: *out = (kn_scalar){KN_SCALAR_FLOAT, {.f = v[0] + v[1]}}; return true;
  case KN_NODE_lua_sub: *out = (kn_scalar){KN_SCALAR_FLOAT, {.f = v[0] - v[1]}}; return true;
  case KN_NODE_lua_mul: *out = (kn_scalar){KN_SCALAR_FLOAT, {.f = v[0] * v[1]}}; return true;
  case KN_NODE_lua_lt: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = v[0] < v[1]}}; return true;
  case KN_NODE_lua_le: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = v[0] <= v[1]}}; return true;
  case KN_NODE_lua_eq: *out = (kn_scalar){KN_SCALAR_BOOL, {.b = v[0] == v[1]}}; return true;
  default: return false;
  }
}

#endif
