/* Text for devices: what is done to the cells of a piece, by one thread (numbers.c). Before it stand the
 * structs numbers_step and numbers_all, the enums of the host, and scalar_rules.h. */

DEVICE kn_scalar numbers_get(u64 at, u32 dtype) {
  kn_scalar s;
  s.kind = dtype == KN_BOOL ? KN_SCALAR_BOOL : dtype >= KN_F16 ? KN_SCALAR_FLOAT : KN_SCALAR_INT;
  s.as.i = 0;
  switch (dtype) {
  case KN_BOOL: s.as.b = *(const u8 *)at != 0; break;
  case KN_U8: s.as.i = *(const u8 *)at; break;
  case KN_I8: s.as.i = *(const i8 *)at; break;
  case KN_I16: s.as.i = *(const i16 *)at; break;
  case KN_I32: s.as.i = *(const i32 *)at; break;
  case KN_I64: s.as.i = *(const i64 *)at; break;
  case KN_F16: s.as.f = (double)f32_of_f16(*(const u16 *)at); break;
  case KN_BF16: s.as.f = (double)f32_of_bf16(*(const u16 *)at); break;
  case KN_F32: s.as.f = (double)*(const float *)at; break;
  default: s.as.f = *(const double *)at; break;
  }
  return s;
}

/* Of floats that are integers the nearest; the range was checked. */
DEVICE i64 numbers_whole(const kn_scalar *s) {
  if (s->kind == KN_SCALAR_BOOL) return s->as.b;
  return s->kind == KN_SCALAR_INT ? s->as.i : s->as.f == s->as.f ? (i64)s->as.f : 0;
}

DEVICE void numbers_put(u64 at, u32 dtype, const kn_scalar *s) {
  const int whole = s->kind != KN_SCALAR_FLOAT;
  const i64 i = dtype >= KN_U8 && dtype <= KN_I64 ? numbers_whole(s)
                : s->kind == KN_SCALAR_BOOL       ? s->as.b
                                                  : s->as.i;
  const double f = whole ? (double)i : s->as.f;
  switch (dtype) {
  case KN_BOOL: *(u8 *)at = whole ? i != 0 : f != 0; break;
  case KN_U8: *(u8 *)at = (u8)i; break;
  case KN_I8: *(i8 *)at = (i8)i; break;
  case KN_I16: *(i16 *)at = (i16)i; break;
  case KN_I32: *(i32 *)at = (i32)i; break;
  case KN_I64: *(i64 *)at = i; break;
  case KN_F16: *(u16 *)at = f16_of_f64(f); break;
  case KN_BF16: *(u16 *)at = bf16_of_f64(f); break;
  case KN_F32: *(float *)at = whole ? (float)i : (float)f; break;
  default: *(double *)at = f; break;
  }
}

/* Does an integer dtype reach as far as the number? */
DEVICE int numbers_fits(const numbers_step *x, const kn_scalar *s) {
  if (x->dtype < KN_U8 || x->dtype > KN_I64 || s->kind == KN_SCALAR_BOOL) return 1;
  if (s->kind == KN_SCALAR_INT) return s->as.i >= x->low && s->as.i <= x->high;
  const double f = trunc(s->as.f);
  return s->as.f < 0x1p63 && f >= (double)x->low && f <= (double)x->high;
}

/* One step; whether it is at fault. */
DEVICE int numbers_do(kn_scalar *c, const numbers_step *x, const kn_scalar *in) {
  kn_scalar out;
  switch (x->kind) {
  case KN_NUMBER_EVAL:
    if (kn_rule_eval((int)x->op, in, (int)x->n, &out) != KN_RULE_FINE) return 1;
    c[x->out] = out;
    return 0;
  case KN_NUMBER_MOVE: c[x->out] = in[0]; return 0;
  case KN_NUMBER_WHEN:
    if (in[1].as.b) c[x->out] = in[0];
    return 0;
  case KN_NUMBER_READ: c[x->out] = numbers_get(x->tensor, x->dtype); return 0;
  case KN_NUMBER_WRITE:
    if (!numbers_fits(x, &in[0])) return 1;
    numbers_put(x->tensor, x->dtype, &in[0]);
    return 0;
  case KN_NUMBER_CHECK: return !in[0].as.b;
  case KN_NUMBER_POSITION: {
    const int there = in[0].kind == KN_SCALAR_INT && in[0].as.i >= -x->high && in[0].as.i < x->high;
    kn_rule_int(!there ? 0 : in[0].as.i < 0 ? in[0].as.i + x->high : in[0].as.i, &c[x->out]);
    return !there;
  }
  case KN_NUMBER_ELEMENT: {
    const int there = in[0].as.i >= 1 && in[0].as.i <= in[1].as.i;
    kn_rule_int(there ? in[0].as.i - 1 : 0, &c[x->out]);
    return !there;
  }
  case KN_NUMBER_KEEP:
    if (c[KN_CELL_FAULT].as.i == x->high + 1) c[x->out] = in[0];
    return 0;
  default: return 1;
  }
}

/* Another trip? Not after a fault, nor where all that were allowed are done, nor when the host wants an end.
 */
DEVICE int numbers_again(kn_scalar *c, const numbers_all *q, int stop) {
  volatile u64 *guard = (volatile u64 *)q->guard;
  const u64 budget = guard ? guard[CU_GUARD_BUDGET] : 0;
  if (budget) guard[CU_GUARD_TRIPS]++;
  if (!c[q->cell].as.b || c[KN_CELL_FAULT].as.i || (guard && guard[CU_GUARD_NOTED])) return 0;
  if (budget && guard[CU_GUARD_TRIPS] >= budget)
    c[KN_CELL_FAULT].as.i = KN_FAULT_LIMIT;
  else if (stop)
    c[KN_CELL_FAULT].as.i = KN_FAULT_STOPPED;
  return !c[KN_CELL_FAULT].as.i;
}

KERNEL(1, numbers)(numbers_all q) {
  kn_scalar *c = (kn_scalar *)q.cells;
  /* The host's memory is far: asked for first. */
  const u64 told = q.set == NUMBERS_SET_AGAIN && q.stop ? *(volatile const u64 *)q.stop : 0;
  for (u32 i = 0; i < q.n; i++) {
    const numbers_step x = q.step[i];
    kn_scalar in[3];
    for (u32 k = 0; k < 3; k++) in[k] = c[x.in[k]];
    if (!numbers_do(c, &x, in) || c[KN_CELL_FAULT].as.i) continue;
    c[KN_CELL_FAULT].as.i = (i64)(q.first + i) + 1;
    for (u32 k = 0; k < 3; k++) c[KN_CELL_OPERAND + k] = in[k];
  }
  if (q.drawn) ((u64 *)&c[q.random])[1] += q.drawn;
  if (q.set == NUMBERS_SET_IF) cudaGraphSetConditional(q.handle, c[q.cell].as.b);
  if (q.set == NUMBERS_SET_AGAIN)
    cudaGraphSetConditional(q.handle, (u32)numbers_again(c, &q, told && (told == q.id || told == ~(u64)0)));
  if (q.set == NUMBERS_SET_ENTER) cudaGraphSetConditional(q.handle, 1);
}
