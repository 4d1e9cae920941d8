/* What Lua's own messages call a value: "local 'x'", "field 'y'". Found as Lua finds it, from the instruction
 * that put the value into its register. For messages of errors only. See interp.h. */
#include "lua/capture/interp.h"
#include <stdio.h>
#include <string.h>

typedef struct found {
  const char *kind, *name; /* kind NULL: it has no name */
} found;

static const char *text_constant(const kc_proto *p, int k) {
  return p->k[k].kind == KC_CONST_STRING ? p->k[k].s : "?";
}

static const char *upvalue_name(const kc_proto *p, int up) { return p->up[up].name ? p->up[up].name : "?"; }

static bool writes(kc_code i, int reg) {
  int a = kc_a(i);
  switch (kc_op(i)) {
  case KC_LOADNIL: return a <= reg && reg <= a + kc_b(i);
  case KC_TFORCALL: return reg >= a + 2;
  case KC_CALL:
  case KC_TAILCALL: return reg >= a;
  default: return *kc_opcode_operands(kc_op(i)) == 'w' && a == reg;
  }
}

/* The instruction before `end` that put the value into the register; -1 when a jump makes that unknown. */
static int setter(const kc_proto *p, int end, int reg) {
  int at = -1, target = 0; /* what is before a jump's target may have been jumped over */
  kc_opcode last = kc_op(p->code[end]);
  if (last == KC_MMBIN || last == KC_MMBINI || last == KC_MMBINK) end--; /* the one before did not happen */
  for (int pc = 0; pc < end; pc++) {
    if (kc_op(p->code[pc]) == KC_JMP) {
      int to = kc_jump(p, pc);
      if (to <= end && to > target) target = to;
    }
    if (writes(p->code[pc], reg)) at = pc < target ? -1 : pc;
  }
  return at;
}

static found name_of(const kc_proto *p, int pc, int reg);

static found field_of(const kc_proto *p, int pc, bool upvalue, const char *name) {
  int b = kc_b(p->code[pc]);
  const char *table = upvalue ? upvalue_name(p, b) : name_of(p, pc, b).name;
  return (found){table && !strcmp(table, "_ENV") ? "global" : "field", name};
}

static found name_of(const kc_proto *p, int pc, int reg) {
  const char *local = kc_local_name(p, reg, pc);
  if (local) return (found){"local", local};
  int at = setter(p, pc, reg);
  if (at < 0) return (found){0};
  kc_code i = p->code[at];
  found key;
  switch (kc_op(i)) {
  case KC_MOVE: return kc_b(i) < kc_a(i) ? name_of(p, at, kc_b(i)) : (found){0};
  case KC_GETTABUP: return field_of(p, at, true, text_constant(p, kc_c(i)));
  case KC_GETTABLE:
    key = name_of(p, at, kc_c(i));
    return field_of(p, at, false, key.kind && !strcmp(key.kind, "constant") ? key.name : "?");
  case KC_GETI: return (found){"field", "integer index"};
  case KC_GETFIELD: return field_of(p, at, false, text_constant(p, kc_c(i)));
  case KC_GETUPVAL: return (found){"upvalue", upvalue_name(p, kc_b(i))};
  case KC_LOADK:
    return p->k[kc_bx(i)].kind == KC_CONST_STRING ? (found){"constant", p->k[kc_bx(i)].s} : (found){0};
  case KC_SELF:
    if (kc_k(i)) return (found){"method", text_constant(p, kc_c(i))};
    key = name_of(p, at, kc_c(i));
    return (found){"method", key.kind && !strcmp(key.kind, "constant") ? key.name : "?"};
  default: return (found){0};
  }
}

/* The register (or upvalue) in which the present instruction has the operand; -1 for none. */
static int operand_register(kc_code i, kc_operand which, bool *upvalue) {
  kc_opcode o = kc_op(i);
  *upvalue = false;
  switch (which) {
  case KC_OPERAND_INDEXED:
    *upvalue = o == KC_GETTABUP || o == KC_SETTABUP;
    if (o == KC_SETTABUP || (o >= KC_SETTABLE && o <= KC_SETFIELD)) return kc_a(i);
    return (o >= KC_GETTABUP && o <= KC_GETFIELD) || o == KC_SELF ? kc_b(i) : -1;
  case KC_OPERAND_CALLED: return o == KC_CALL || o == KC_TAILCALL ? kc_a(i) : -1;
  case KC_OPERAND_FIRST:
    if (o == KC_MMBIN || o == KC_MMBINI || o == KC_MMBINK) return kc_a(i);
    return o == KC_UNM || o == KC_BNOT || o == KC_LEN ? kc_b(i) : -1;
  case KC_OPERAND_SECOND: /* beside a constant, the one operand that is a register */
    return o == KC_MMBIN ? kc_b(i) : o == KC_MMBINI || o == KC_MMBINK ? kc_a(i) : -1;
  case KC_OPERAND_PART: break;
  }
  return -1;
}

/* What the present instruction calls on its own account. */
static found metamethod(kc_code i) {
  static const char *const events[] = {"add",  "sub", "mul",  "mod", "pow", "div", "idiv",
                                       "band", "bor", "bxor", "shl", "shr", "unm", "bnot"};
  kc_opcode o = kc_op(i);
  int event = kc_c(i) - 6;
  const char *name = NULL;
  if (o == KC_MMBIN || o == KC_MMBINI || o == KC_MMBINK)
    name = event >= 0 && event < 14 ? events[event] : NULL;
  else if ((o >= KC_GETTABUP && o <= KC_GETFIELD) || o == KC_SELF)
    name = "index";
  else if (o >= KC_SETTABUP && o <= KC_SETFIELD)
    name = "newindex";
  else if (o == KC_UNM || o == KC_BNOT)
    name = o == KC_UNM ? "unm" : "bnot";
  else if (o == KC_LEN || o == KC_CONCAT || o == KC_EQ)
    name = o == KC_LEN ? "len" : o == KC_CONCAT ? "concat" : "eq";
  else if (o == KC_LT || o == KC_LTI || o == KC_GTI)
    name = "lt";
  else if (o == KC_LE || o == KC_LEI || o == KC_GEI)
    name = "le";
  return (found){name ? "metamethod" : NULL, name};
}

const char *kc_operand_name(kc_cap *c, kc_operand which, int nth) {
  const kc_frame *f = c->S ? c->S->top : NULL;
  bool upvalue = false;
  if (!f) return "";
  kc_code i = f->p->code[f->pc];
  int reg = which == KC_OPERAND_PART && kc_op(i) == KC_CONCAT ? kc_a(i) + nth
                                                              : operand_register(i, which, &upvalue);
  found is = {0};
  if (reg >= 0)
    is = upvalue ? (found){"upvalue", upvalue_name(f->p, reg)} : name_of(f->p, f->pc, reg);
  else if (which == KC_OPERAND_CALLED)
    is = kc_op(i) == KC_TFORCALL ? (found){"for iterator", "for iterator"} : metamethod(i);
  return is.kind ? kc_format(c, " (%s '%s')", is.kind, is.name) : "";
}

const char *kc_called_name(kc_cap *c) {
  const kc_frame *f = c->S ? c->S->top : NULL;
  if (!f || !kc_in_c_function(c)) return NULL;
  kc_code i = f->p->code[f->pc];
  return kc_op(i) == KC_TFORCALL ? "for iterator" : name_of(f->p, f->pc, kc_a(i)).name;
}

bool kc_in_c_function(const kc_cap *c) {
  if (!c->S || !c->S->top) return false;
  kc_opcode o = kc_op(c->S->top->p->code[c->S->top->pc]);
  return o == KC_CALL || o == KC_TAILCALL || o == KC_TFORCALL;
}
