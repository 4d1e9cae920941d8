/* What the bytecode of a line does with a field that it reads: see reads.h. */
#include "lua/capture/reads.h"
#include <string.h>

/* The key that an instruction reads a field by; NULL: it reads none. */
static const kc_const *key_of(const kc_proto *p, kc_code i) {
  kc_opcode o = kc_op(i);
  bool reads = o == KC_GETFIELD || o == KC_GETTABUP || (o == KC_SELF && kc_k(i));
  return reads ? &p->k[kc_c(i)] : NULL;
}

/* What may stand between a function and its call: its arguments, where nothing is decided. */
static bool is_straight(kc_opcode o) {
  return o < KC_JMP || o == KC_CALL || o == KC_VARARG || o == KC_CLOSURE || o == KC_SETLIST ||
         o == KC_EXTRAARG;
}

/* Is what the instruction at pc reads surely called? */
static bool is_called(const kc_proto *p, int pc) {
  int reg = kc_a(p->code[pc]);
  if (kc_op(p->code[pc]) == KC_SELF) return true;
  for (int k = pc + 1; k < p->ncode; k++) {
    kc_code i = p->code[k];
    kc_opcode o = kc_op(i);
    if ((o == KC_CALL || o == KC_TAILCALL) && kc_a(i) <= reg) return kc_a(i) == reg;
    if (!is_straight(o) || (kc_opcode_operands(o)[0] == 'w' && kc_a(i) <= reg)) return false;
  }
  return false;
}

bool kc_only_called(const kc_proto *p, int line, const char *name, size_t n) {
  bool any = false;
  for (int pc = 0; pc < p->ncode; pc++) {
    const kc_const *key = kc_line(p, pc) == line ? key_of(p, p->code[pc]) : NULL;
    if (!key || key->kind != KC_CONST_STRING || key->n != n || memcmp(key->s, name, n)) continue;
    if (!is_called(p, pc)) return false;
    any = true;
  }
  return any;
}
