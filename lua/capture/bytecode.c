/* Reads dumps of Lua 5.4 functions. Every count and operand is checked against what is really there. */
#include "lua/capture/bytecode.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* ---- the opcode table ---- */

static const struct {
  const char *name, *operands;
  char mode;
} opcodes[KC_NOPCODES] = {
#define OPCODE(name, mode, operands) {#name, operands, #mode[0]},
#include "lua/capture/opcodes.def"
#undef OPCODE
};
const char *kc_opcode_name(kc_opcode o) { return o < KC_NOPCODES ? opcodes[o].name : "?"; }
const char *kc_opcode_operands(kc_opcode o) { return o < KC_NOPCODES ? opcodes[o].operands : "---"; }
char kc_opcode_mode(kc_opcode o) { return o < KC_NOPCODES ? opcodes[o].mode : '?'; }

/* ---- dumping ---- */

typedef struct dump_buffer {
  kn_heap *heap;
  uint8_t *bytes;
  size_t n, size;
} dump_buffer;

static int write_dump(lua_State *L, const void *p, size_t n, void *ud) {
  (void)L;
  dump_buffer *d = ud;
  if (n > SIZE_MAX / 4 - d->n) return 1;
  if (d->n + n > d->size) {
    size_t size = (d->n + n) * 2 < 1024 ? 1024 : (d->n + n) * 2;
    uint8_t *bytes = kn_realloc(d->heap, d->bytes, d->size, size);
    if (!bytes) return 1;
    d->bytes = bytes;
    d->size = size;
  }
  if (n) memcpy(d->bytes + d->n, p, n);
  d->n += n;
  return 0;
}

kn_status kc_dump(lua_State *L, kn_context *ctx, int idx, uint8_t **bytes, size_t *n, size_t *size) {
  dump_buffer d = {.heap = ctx->heap};
  lua_pushvalue(L, idx);
  int rc = lua_dump(L, write_dump, &d, 0);
  lua_pop(L, 1);
  if (rc != 0) {
    kn_free(d.heap, d.bytes, d.size);
    return kn_fail(ctx, KN_NOMEM, "a function's bytecode could not be dumped: out of memory");
  }
  *bytes = d.bytes;
  *n = d.n;
  *size = d.size;
  return KN_OK;
}

/* ---- reading: the first fault sticks, and everything after it reads as zero ---- */

typedef struct reader {
  kn_arena *arena;
  const uint8_t *at, *end;
  const char *fault; /* NULL: none yet */
  bool nomem;
  int depth, protos;
} reader;

enum { MAX_DEPTH = 200, MAX_PROTOS = 100000 };

static void fault(reader *r, const char *what) {
  if (!r->fault) r->fault = what;
  r->at = r->end;
}

static const uint8_t *take(reader *r, size_t n) {
  if (r->fault) return NULL;
  if (n > (size_t)(r->end - r->at)) {
    fault(r, "it ends too early");
    return NULL;
  }
  const uint8_t *p = r->at;
  r->at += n;
  return p;
}

static int read_byte(reader *r) {
  const uint8_t *p = take(r, 1);
  return p ? *p : 0;
}

static size_t read_size(reader *r) {
  size_t x = 0;
  for (;;) {
    const uint8_t *p = take(r, 1);
    if (!p) return 0;
    if (x > SIZE_MAX >> 8) {
      fault(r, "a number is too large");
      return 0;
    }
    x = x << 7 | (size_t)(*p & 0x7f);
    if (*p & 0x80) return x;
  }
}

static int read_int(reader *r) {
  size_t x = read_size(r);
  if (x > INT_MAX) fault(r, "a number is too large");
  return r->fault ? 0 : (int)x;
}

/* A count of things that each take at least `bytes` in the dump. */
static int read_count(reader *r, size_t bytes) {
  int n = read_int(r);
  if ((size_t)n > (size_t)(r->end - r->at) / bytes) fault(r, "a count is larger than the dump");
  return r->fault ? 0 : n;
}

static void *make(reader *r, size_t count, size_t size) {
  void *p = count > SIZE_MAX / 2 / size ? NULL : kn_arena_alloc(r->arena, (count + 1) * size);
  if (!p) {
    r->nomem = true;
    fault(r, "out of memory");
  }
  return p;
}

/* NULL: no string there (or a fault). */
static const char *read_string(reader *r, size_t *len) {
  size_t n = read_size(r);
  if (len) *len = 0;
  if (n == 0) return NULL;
  const uint8_t *p = take(r, n - 1);
  if (!p) return NULL;
  char *s = make(r, n, 1);
  if (!s) return NULL;
  memcpy(s, p, n - 1);
  if (len) *len = n - 1;
  return s;
}

static void read_raw(reader *r, void *to, size_t n) {
  const uint8_t *p = take(r, n);
  if (p) memcpy(to, p, n);
}

static void read_constant(reader *r, kc_const *k) {
  switch (read_byte(r)) {
  case 0x00: k->kind = KC_CONST_NIL; break;
  case 0x01: *k = (kc_const){.kind = KC_CONST_BOOL, .i = 0}; break;
  case 0x11: *k = (kc_const){.kind = KC_CONST_BOOL, .i = 1}; break;
  case 0x03: k->kind = KC_CONST_INT, read_raw(r, &k->i, sizeof k->i); break;
  case 0x13: k->kind = KC_CONST_FLOAT, read_raw(r, &k->f, sizeof k->f); break;
  case 0x04:
  case 0x14:
    k->kind = KC_CONST_STRING;
    k->s = read_string(r, &k->n);
    if (!k->s && !r->fault) fault(r, "a string constant is missing");
    break;
  default: fault(r, "a constant has an unknown type");
  }
}

static void read_debug(reader *r, kc_proto *p) {
  p->nline_info = read_count(r, 1);
  if ((p->line_info = make(r, (size_t)p->nline_info, 1)) != NULL)
    read_raw(r, p->line_info, (size_t)p->nline_info);
  if (p->nline_info != 0 && p->nline_info != p->ncode)
    fault(r, "its line table has another length than its code");
  p->nabs = read_count(r, 2);
  p->abs_pc = make(r, (size_t)p->nabs, sizeof(int));
  p->abs_line = make(r, (size_t)p->nabs, sizeof(int));
  for (int i = 0; i < p->nabs && !r->fault; i++) {
    p->abs_pc[i] = read_int(r);
    p->abs_line[i] = read_int(r);
    if (p->abs_pc[i] >= p->ncode) fault(r, "its line table points past its code");
  }
  p->nlocal = read_count(r, 3);
  p->local = make(r, (size_t)p->nlocal, sizeof *p->local);
  for (int i = 0; i < p->nlocal && !r->fault; i++) {
    p->local[i].name = read_string(r, NULL);
    p->local[i].start = read_int(r);
    p->local[i].end = read_int(r);
  }
  int names = read_count(r, 1);
  for (int i = 0; i < names && !r->fault; i++) {
    const char *name = read_string(r, NULL);
    if (i < p->nup) p->up[i].name = name;
  }
}

static kc_proto *read_proto(reader *r, const char *parent_source) {
  kc_proto *p = make(r, 1, sizeof *p);
  if (!p) return NULL;
  if (++r->depth > MAX_DEPTH || ++r->protos > MAX_PROTOS) fault(r, "functions are nested too deeply");
  const char *source = read_string(r, NULL);
  p->source = source ? source : parent_source;
  p->line_defined = read_int(r);
  read_int(r); /* last line */
  p->nparams = read_byte(r);
  p->vararg = read_byte(r) != 0;
  p->maxstack = read_byte(r);
  p->ncode = read_count(r, sizeof(kc_code));
  p->code = make(r, (size_t)p->ncode, sizeof(kc_code));
  if (p->code) read_raw(r, p->code, (size_t)p->ncode * sizeof(kc_code));
  p->nk = read_count(r, 1);
  p->k = make(r, (size_t)p->nk, sizeof *p->k);
  for (int i = 0; i < p->nk && !r->fault; i++) read_constant(r, &p->k[i]);
  p->nup = read_count(r, 3);
  p->up = make(r, (size_t)p->nup, sizeof *p->up);
  if (p->nup > 255) fault(r, "a function has more than 255 upvalues");
  for (int i = 0; i < p->nup && !r->fault; i++) {
    p->up[i].in_stack = read_byte(r) != 0;
    p->up[i].index = (uint8_t)read_byte(r);
    p->up[i].kind = (uint8_t)read_byte(r);
  }
  p->np = read_count(r, 10);
  p->p = make(r, (size_t)p->np, sizeof(kc_proto *));
  for (int i = 0; i < p->np && !r->fault; i++) p->p[i] = read_proto(r, p->source);
  if (!r->fault) read_debug(r, p);
  r->depth--;
  return r->fault ? NULL : p;
}

/* ---- checking operands ---- */

int kc_successors(const kc_proto *p, int pc, int next[2]) {
  kc_code i = p->code[pc];
  switch (kc_op(i)) {
  case KC_JMP: next[0] = kc_jump(p, pc); return 1;
  case KC_LFALSESKIP:
  case KC_LOADKX:
  case KC_NEWTABLE: next[0] = pc + 2; return 1;
  case KC_SETLIST: next[0] = pc + 1 + kc_k(i); return 1;
  case KC_FORPREP: next[0] = pc + 2 + kc_bx(i), next[1] = pc + 1; return 2;
  case KC_FORLOOP:
  case KC_TFORLOOP: next[0] = pc + 1 - kc_bx(i), next[1] = pc + 1; return 2;
  case KC_TFORPREP: next[0] = pc + 1 + kc_bx(i); return 1;
  case KC_RETURN:
  case KC_RETURN0:
  case KC_RETURN1: return 0;
  default: break;
  }
  if (kc_is_test(kc_op(i))) {
    next[0] = kc_jump(p, pc + 1), next[1] = pc + 2;
    return 2;
  }
  next[0] = pc + 1;
  return 1;
}

static bool operand_ok(const kc_proto *p, char what, int v, bool k) {
  switch (what) {
  case 'w':
  case 'r': return v < p->maxstack;
  case 'u': return v < p->nup;
  case 'k':
  case 'K': return v < p->nk;
  case 'P': return v < p->np;
  case 'x': return k ? v < p->nk : v < p->maxstack;
  default: return true;
  }
}

static bool is_string(const kc_proto *p, int k) { return p->k[k].kind == KC_CONST_STRING; }

/* Registers from `first`, `count` of them. */
static bool range_ok(const kc_proto *p, int first, int count) { return first + count <= p->maxstack; }

static bool ranges_ok(const kc_proto *p, int pc) {
  kc_code i = p->code[pc];
  int a = kc_a(i), b = kc_b(i), c = kc_c(i);
  kc_code after = pc + 1 < p->ncode ? p->code[pc + 1] : 0;
  bool extra = pc + 1 < p->ncode && kc_op(after) == KC_EXTRAARG;
  switch (kc_op(i)) {
  case KC_LOADKX: return extra && kc_ax(after) < p->nk;
  case KC_NEWTABLE: return extra;
  case KC_LOADNIL: return range_ok(p, a, b + 1);
  case KC_SELF: return range_ok(p, a, 2) && (!kc_k(i) || is_string(p, c));
  case KC_GETTABUP:
  case KC_GETFIELD: return is_string(p, c);
  case KC_SETTABUP:
  case KC_SETFIELD: return is_string(p, b);
  case KC_CONCAT: return b >= 2 && range_ok(p, a, b);
  case KC_CALL: return range_ok(p, a, b ? b : 1) && range_ok(p, a, c ? c - 1 : 1);
  case KC_TAILCALL: return range_ok(p, a, b ? b : 1);
  case KC_RETURN: return range_ok(p, a, b ? b - 1 : 0);
  case KC_FORLOOP:
  case KC_FORPREP:
  case KC_TFORPREP: return range_ok(p, a, 4);
  case KC_TFORLOOP: return range_ok(p, a, 5);
  case KC_TFORCALL: return c >= 1 && range_ok(p, a, 4 + c);
  case KC_SETLIST: return range_ok(p, a, b + 1) && (!kc_k(i) || extra);
  case KC_VARARG: return range_ok(p, a, c ? c - 1 : 0);
  case KC_MMBIN:
  case KC_MMBINI:
  case KC_MMBINK: return c >= 6 && c <= 19 && pc > 0 && kc_is_arith(kc_op(p->code[pc - 1]));
  default: return true;
  }
}

static bool follows_ok(const kc_proto *p, int pc) {
  kc_opcode o = kc_op(p->code[pc]), next = pc + 1 < p->ncode ? kc_op(p->code[pc + 1]) : KC_NOPCODES;
  if (kc_is_test(o)) return next == KC_JMP;
  if (kc_is_arith(o)) return next == KC_MMBIN || next == KC_MMBINI || next == KC_MMBINK;
  if (o == KC_TFORCALL) return next == KC_TFORLOOP && kc_a(p->code[pc + 1]) == kc_a(p->code[pc]);
  if (o == KC_TFORPREP) {
    int to[2];
    kc_successors(p, pc, to);
    return to[0] < p->ncode && kc_op(p->code[to[0]]) == KC_TFORCALL;
  }
  return true;
}

static const char *check_instruction(const kc_proto *p, int pc) {
  kc_code i = p->code[pc];
  kc_opcode o = kc_op(i);
  if (o >= KC_NOPCODES) return "an instruction has an unknown opcode";
  const char *w = opcodes[o].operands;
  bool bx = opcodes[o].mode == 'B';
  bool ok = opcodes[o].mode == 'J' || opcodes[o].mode == 'X' ||
            (operand_ok(p, w[0], kc_a(i), false) && operand_ok(p, w[1], bx ? kc_bx(i) : kc_b(i), kc_k(i)) &&
             (bx || operand_ok(p, w[2], kc_c(i), kc_k(i))));
  if (!ok || !ranges_ok(p, pc)) return "an instruction's operand is out of range";
  if (!follows_ok(p, pc)) return "instructions do not pair up";
  if (o == KC_EXTRAARG) return NULL; /* never executed: whoever precedes it skips it */
  int next[2];
  for (int n = kc_successors(p, pc, next); n-- > 0;)
    if (next[n] < 0 || next[n] >= p->ncode || kc_op(p->code[next[n]]) == KC_EXTRAARG)
      return "a jump leaves the function";
  return NULL;
}

static const char *check_proto(const kc_proto *p) {
  if (p->ncode == 0 || p->maxstack < 2 || p->nparams > p->maxstack)
    return "a function has no code or no stack";
  for (int pc = 0; pc < p->ncode; pc++) {
    const char *bad = check_instruction(p, pc);
    if (bad) return bad;
  }
  for (int q = 0; q < p->np; q++) {
    const kc_proto *in = p->p[q];
    for (int u = 0; u < in->nup; u++)
      if (in->up[u].index >= (in->up[u].in_stack ? p->maxstack : p->nup)) return "an upvalue does not exist";
    const char *bad = check_proto(in);
    if (bad) return bad;
  }
  return NULL;
}

/* ---- the whole dump ---- */

enum { HEADER_SIZE = 31 };

/* The header a dump has on this machine, built from the host's types. */
static void host_header(uint8_t h[HEADER_SIZE]) {
  static const uint8_t fixed[] = "\x1bLua\x54\x00\x19\x93\r\n\x1a\n";
  memcpy(h, fixed, 12);
  h[12] = (uint8_t)sizeof(kc_code);
  h[13] = (uint8_t)sizeof(lua_Integer);
  h[14] = (uint8_t)sizeof(lua_Number);
  int64_t i = 0x5678;
  double f = 370.5;
  memcpy(h + 15, &i, 8);
  memcpy(h + 23, &f, 8);
}

kn_status kc_parse(kn_context *ctx, kn_arena *a, const uint8_t *bytes, size_t n, kc_proto **out) {
  uint8_t header[HEADER_SIZE];
  _Static_assert(sizeof(lua_Integer) == 8 && sizeof(lua_Number) == 8, "capture needs 64-bit Lua numbers");
  host_header(header);
  if (n < HEADER_SIZE + 1 || memcmp(bytes, header, HEADER_SIZE) != 0)
    return kn_fail(ctx, KN_FORMAT,
                   "bytecode: not that of Lua 5.4 with 64-bit integers and doubles on this machine");
  reader r = {.arena = a, .at = bytes + HEADER_SIZE + 1, .end = bytes + n};
  kc_proto *p = read_proto(&r, "=?");
  if (!r.fault && r.at != r.end) r.fault = "bytes are left over";
  if (r.nomem) return kn_fail_nomem(ctx, 0);
  if (!r.fault) r.fault = check_proto(p);
  if (r.fault) return kn_fail(ctx, KN_FORMAT, "bytecode is not well formed: %s", r.fault);
  *out = p;
  return KN_OK;
}

/* ---- debug information ---- */

int kc_line(const kc_proto *p, int pc) {
  if (p->nline_info == 0 || pc < 0 || pc >= p->ncode) return 0;
  int at = -1, line = p->line_defined;
  for (int i = 0; i < p->nabs && p->abs_pc[i] <= pc; i++) at = p->abs_pc[i], line = p->abs_line[i];
  while (at < pc) {
    int8_t step = p->line_info[++at];
    line = (int)((unsigned)line + (unsigned)(int)step); /* wraps on nonsense instead of overflowing */
  }
  return line;
}

const char *kc_local_name(const kc_proto *p, int reg, int pc) {
  for (int i = 0; i < p->nlocal && p->local[i].start <= pc; i++)
    if (pc < p->local[i].end && reg-- == 0) {
      const char *name = p->local[i].name;
      return name && *name != '(' ? name : NULL;
    }
  return NULL;
}

const char *kc_chunk_name(const char *source, char *buf, size_t size) {
  if (*source == '@' || *source == '=') return source + 1;
  size_t n = strcspn(source, "\n");
  bool cut = source[n] != 0 || n > 40;
  if (n > 40) n = 40;
  snprintf(buf, size, "[string \"%.*s%s\"]", (int)n, source, cut ? "..." : "");
  return buf;
}
