/* Lua 5.4 bytecode as read from lua_dump: opcodes, prototypes, line tables, local names. The only files that
 * know the dump format and instruction layout are bytecode.c and the probe in probe.c; nothing here runs
 * code. */
#ifndef KC_BYTECODE_H
#define KC_BYTECODE_H
#include "core/arena.h"
#include "core/context.h"
#include <lua.h>

typedef enum kc_opcode {
#define OPCODE(name, mode, operands) KC_##name,
#include "lua/capture/opcodes.def"
#undef OPCODE
  KC_NOPCODES
} kc_opcode;

typedef uint32_t kc_code;
static inline kc_opcode kc_op(kc_code i) { return (kc_opcode)(i & 0x7f); }
static inline int kc_a(kc_code i) { return (int)(i >> 7 & 0xff); }
static inline bool kc_k(kc_code i) { return i >> 15 & 1; }
static inline int kc_b(kc_code i) { return (int)(i >> 16 & 0xff); }
static inline int kc_c(kc_code i) { return (int)(i >> 24 & 0xff); }
static inline int kc_sb(kc_code i) { return kc_b(i) - 127; }
static inline int kc_sc(kc_code i) { return kc_c(i) - 127; }
static inline int kc_bx(kc_code i) { return (int)(i >> 15); }
static inline int kc_sbx(kc_code i) { return kc_bx(i) - 65535; }
static inline int kc_ax(kc_code i) { return (int)(i >> 7); }
static inline int kc_sj(kc_code i) { return kc_ax(i) - 16777215; }
static inline bool kc_is_test(kc_opcode o) { return o >= KC_EQ && o <= KC_TESTSET; } /* followed by a JMP */
static inline bool kc_is_arith(kc_opcode o) { return o >= KC_ADDI && o <= KC_SHR; }  /* followed by a MMBIN */

typedef enum kc_const_kind {
  KC_CONST_NIL,
  KC_CONST_BOOL,
  KC_CONST_INT,
  KC_CONST_FLOAT,
  KC_CONST_STRING
} kc_const_kind;
typedef struct kc_const {
  kc_const_kind kind;
  int64_t i; /* BOOL, INT */
  double f;
  const char *s; /* STRING: n bytes and a zero */
  size_t n;
} kc_const;

typedef struct kc_upvalue {
  bool in_stack; /* a register of the enclosing function, else one of its upvalues */
  uint8_t index, kind;
  const char *name; /* NULL when stripped */
} kc_upvalue;

typedef struct kc_local {
  const char *name;
  int start, end; /* live in [start, end) */
} kc_local;

typedef struct kc_flow kc_flow; /* cfg.h */
typedef struct kc_proto kc_proto;
struct kc_proto {
  const char *source; /* as in the dump: "@file", "=name", text; "=?" when stripped */
  int line_defined, nparams, maxstack;
  bool vararg;
  kc_code *code;
  kc_const *k;
  kc_upvalue *up;
  kc_proto **p;
  int8_t *line_info;
  int *abs_pc, *abs_line;
  kc_local *local;
  int ncode, nk, nup, np, nline_info, nabs, nlocal;
  kc_flow *flow; /* made at first use by kc_flow_of */
};

/* Parses the bytes of lua_dump into the arena. FORMAT with a sentence when they are not well formed Lua 5.4
 * code for this machine; never reads past n, never trusts a count, and every operand is checked: what comes
 * out can be interpreted without further checks on registers, constants, upvalues and jumps. */
kn_status kc_parse(kn_context *ctx, kn_arena *a, const uint8_t *bytes, size_t n, kc_proto **out);
/* Dumps the Lua function at idx into a block of *size bytes of ctx's heap (free with kn_free, n = *size). */
kn_status kc_dump(lua_State *L, kn_context *ctx, int idx, uint8_t **bytes, size_t *n, size_t *size);

int kc_line(const kc_proto *p, int pc); /* 0 when stripped */
/* Name of the local that lives in a register at pc; NULL when unknown or compiler-made ("(for state)"). */
const char *kc_local_name(const kc_proto *p, int reg, int pc);
/* "file.lua" for "@file.lua", as Lua prints it; buf is used for source text. */
const char *kc_chunk_name(const char *source, char *buf, size_t size);
const char *kc_opcode_name(kc_opcode o);
const char *kc_opcode_operands(kc_opcode o);
char kc_opcode_mode(kc_opcode o);
/* Where execution may go on after pc: 0, 1 or 2 places. For tests: [0] the jump, [1] the fall-through. */
int kc_successors(const kc_proto *p, int pc, int next[2]);
/* Target of the jump at pc. */
static inline int kc_jump(const kc_proto *p, int pc) { return pc + 1 + kc_sj(p->code[pc]); }

#endif
