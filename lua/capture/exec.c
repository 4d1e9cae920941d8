/* The instructions of Lua 5.4, one by one, on values of capture. What they mean is in ops.c and call.c; what
 * a branch on an unknown condition does is in fork.c. See interp.h. */
#include "graph/mutant.h"
#include "lua/capture/alike.h"
#include "lua/capture/interp.h"
#include "lua/capture/race.h"
#include "lua/capture/warn.h"
#include <lauxlib.h>
#include <math.h>
#include <string.h>

/* What the main loop does after an instruction. */
typedef enum after { NEXT, JUMPED, STOPPED } after;

typedef struct machine {
  kc_cap *c;
  kc_state *s;
  int pc;
  kc_outs *out;
} machine;

static void touch(machine *m, int r, bool write) {
  uint32_t cell = m->s->events ? m->s->top->cell[r] : 0;
  if (cell) kc_touch(m->c, m->s, (kc_place){KC_PLACE_VARIABLE, cell, KC_NILV}, write);
}

static kc_val get(machine *m, int r) {
  touch(m, r, false);
  return kc_get_reg(m->c, m->s, r);
}
static void set(machine *m, int r, kc_val v) {
  touch(m, r, true);
  kc_set_reg(m->c, m->s, r, v);
}

static kc_val constant(machine *m, int k) {
  const kc_const *x = &m->s->top->p->k[k];
  switch (x->kind) {
  case KC_CONST_BOOL: return kc_bool(x->i);
  case KC_CONST_INT: return kc_int(x->i);
  case KC_CONST_FLOAT: return kc_float(x->f);
  case KC_CONST_STRING: return kc_string(m->c, x->s, x->n);
  case KC_CONST_NIL: break;
  }
  return KC_NILV;
}

static kc_val rk(machine *m, kc_code i) { return kc_k(i) ? constant(m, kc_c(i)) : get(m, kc_c(i)); }

static uint32_t upvalue_cell(machine *m, int up) { return m->c->clos[m->s->top->clos].cell[up]; }

/* ---- branches ---- */

static kc_res fork(machine *m, kn_value *cond, int if_true, int if_false, const kc_assign *assign,
                   after *what) {
  bool on = false;
  KC_TRY(kc_fork(m->c, &m->s, &m->pc, cond, if_true, if_false, assign, m->out, &on));
  *what = on ? JUMPED : STOPPED;
  return KC_GO;
}

/* To the first place when the condition (BOOL or SYM) holds, else to the second. */
static kc_res branch(machine *m, kc_val cond, int if_true, int if_false, after *what) {
  if (cond.k == KC_V_SYM) return fork(m, cond.v, if_true, if_false, NULL, what);
  m->pc = cond.i ? if_true : if_false;
  *what = JUMPED;
  return KC_GO;
}

/* After a comparison: the JMP that follows is taken when the result equals k. */
static kc_res test(machine *m, kc_val cond, after *what) {
  cond = kc_resolve(m->c, m->s, cond);
  int jump = kc_jump(m->s->top->p, m->pc + 1), skip = m->pc + 2;
  bool k = kc_k(m->s->top->p->code[m->pc]);
  return branch(m, cond, k ? jump : skip, k ? skip : jump, what);
}

static kc_res equal(machine *m, kc_val x, kc_val y, kc_val *out) {
  kc_warn_equal(m->c, x, y);
  return kc_equal(m->c, &m->s, x, y, out);
}

static kc_res truth(machine *m, kc_val x, kc_val *out) {
  kc_warn_truth(m->c, x);
  return kc_truth(m->c, m->s, x, out);
}

static kc_res compare(machine *m, kc_code i, after *what) {
  kc_cap *c = m->c;
  kc_val x = get(m, kc_a(i)), r = KC_NILV;
  kc_val imm = kc_c(i) ? kc_float(kc_sb(i)) : kc_int(kc_sb(i));
  switch (kc_op(i)) {
  case KC_EQ: KC_TRY(equal(m, x, get(m, kc_b(i)), &r)); break;
  case KC_EQK: KC_TRY(equal(m, x, constant(m, kc_b(i)), &r)); break;
  case KC_EQI: KC_TRY(equal(m, x, kc_int(kc_sb(i)), &r)); break;
  case KC_LT: KC_TRY(kc_less(c, &m->s, false, x, get(m, kc_b(i)), &r)); break;
  case KC_LE: KC_TRY(kc_less(c, &m->s, true, x, get(m, kc_b(i)), &r)); break;
  case KC_LTI: KC_TRY(kc_less(c, &m->s, false, x, imm, &r)); break;
  case KC_LEI: KC_TRY(kc_less(c, &m->s, true, x, imm, &r)); break;
  case KC_GTI: KC_TRY(kc_less(c, &m->s, false, imm, x, &r)); break;
  default: KC_TRY(kc_less(c, &m->s, true, imm, x, &r)); break;
  }
  return test(m, r, what);
}

static kc_res test_set(machine *m, kc_code i, after *what) {
  kc_val x = get(m, kc_b(i)), t;
  int jump = kc_jump(m->s->top->p, m->pc + 1), skip = m->pc + 2;
  bool k = kc_k(i);
  KC_TRY(truth(m, x, &t));
  if (t.k == KC_V_BOOL) {
    if ((t.i != 0) == k) set(m, kc_a(i), x);
    m->pc = (t.i != 0) == k ? jump : skip;
    *what = JUMPED;
    return KC_GO;
  }
  kc_assign assign = {kc_a(i), x, k};
  return fork(m, t.v, k ? jump : skip, k ? skip : jump, &assign, what);
}

/* ---- for ---- */

static bool kind_is(kc_val a, kn_vkind want) {
  kn_vkind kind;
  return kc_scalar_kind(a, &kind) && kind == want;
}

static kc_val to_float(machine *m, kc_val a) {
  if (a.k == KC_V_INT) return kc_float((double)a.i);
  if (a.k == KC_V_FLOAT || kind_is(a, KN_V_FLOAT)) return a;
  return kc_sym(kc_emit(m->c, KN_NODE_lua_tofloat, 1, a, KC_NILV, KC_NILV));
}

static kc_res for_value(machine *m, kc_val a, const char *what) {
  if (kc_is_number(a)) return KC_GO;
  if (a.k == KC_V_UNION || a.k == KC_V_POISON)
    return kc_fail(m->c, "the %s of this 'for' is a %s", what, kc_kind_name(a));
  return kc_raise(m->c, "bad 'for' %s (number expected, got %s)", what, kc_type_name(a));
}

/* Whether no trip runs, and the trips after the first: concrete when all three are. */
static kc_res integer_for(machine *m, int a, kc_val init, kc_val limit, kc_val step, int skip, after *what) {
  kc_cap *c = m->c;
  kc_val none, count;
  if (init.k != KC_V_SYM && limit.k != KC_V_SYM && step.k != KC_V_SYM) {
    kn_scalar in[3], x, y;
    kc_val v[3] = {init, limit, step};
    for (int k = 0; k < 3; k++)
      in[k] = v[k].k == KC_V_INT ? (kn_scalar){KN_SCALAR_INT, {.i = v[k].i}}
                                 : (kn_scalar){KN_SCALAR_FLOAT, {.f = v[k].f}};
    if (kn_scalar_eval(c->ctx, KN_NODE_for_skip, in, 3, &x) != KN_OK)
      return kc_raise(c, "%s", kc_format(c, "%s", kn_error(c->ctx)));
    none = kc_bool(x.as.b);
    count = kc_int(0);
    if (!x.as.b) {
      if (kn_scalar_eval(c->ctx, KN_NODE_for_count, in, 3, &y) != KN_OK)
        return kc_raise(c, "%s", kc_format(c, "%s", kn_error(c->ctx)));
      count = kc_int(KN_MUTANT(for_runs_once_less) && y.as.i > 0 ? y.as.i - 1 : y.as.i);
    }
  } else {
    none = kc_sym(kc_emit(c, KN_NODE_for_skip, 3, init, limit, step));
    count = kc_sym(kc_emit(c, KN_NODE_for_count, 3, init, limit, step));
  }
  set(m, a + 1, count);
  set(m, a + 3, init);
  return branch(m, none, skip, m->pc + 1, what);
}

static kc_res for_prep(machine *m, kc_code i, after *what) {
  kc_cap *c = m->c;
  int a = kc_a(i), skip = m->pc + 2 + kc_bx(i);
  kc_val init = get(m, a), limit = get(m, a + 1), step = get(m, a + 2), none;
  KC_TRY(for_value(m, limit, "limit"));
  KC_TRY(for_value(m, step, "step"));
  KC_TRY(for_value(m, init, "initial value"));
  if (kind_is(init, KN_V_NUMBER) || kind_is(step, KN_V_NUMBER))
    return kc_fail(
        c, "the initial value or step of this 'for' is an integer on some path and a float on another; use "
           "math.floor or + 0.0");
  if (kind_is(init, KN_V_INT) && kind_is(step, KN_V_INT))
    return integer_for(m, a, init, limit, step, skip, what);
  if (step.k == KC_V_SYM) {
    KC_TRY(kc_burn(c, step));
    return kc_fail(c, "the step of a floating 'for' is a %s; it must be known", kc_kind_name(step));
  }
  init = to_float(m, init);
  limit = to_float(m, limit);
  step = to_float(m, step);
  if (step.f == 0) return kc_raise(c, "'for' step is zero");
  set(m, a, init);
  set(m, a + 1, limit);
  set(m, a + 2, step);
  set(m, a + 3, init);
  if (step.f > 0)
    KC_TRY(kc_less(c, &m->s, false, limit, init, &none));
  else
    KC_TRY(kc_less(c, &m->s, false, init, limit, &none));
  return branch(m, none, skip, m->pc + 1, what);
}

static kc_res float_for_loop(machine *m, int a, kc_val index, kc_val limit, kc_val step, int back,
                             after *what) {
  kc_cap *c = m->c;
  kc_val next, more;
  bool done;
  KC_TRY(kc_number_arith(c, LUA_OPADD, index, step, &next, &done));
  if (step.f > 0)
    KC_TRY(kc_less(c, &m->s, true, next, limit, &more));
  else
    KC_TRY(kc_less(c, &m->s, true, limit, next, &more));
  more = kc_resolve(c, m->s, more);
  if (more.k == KC_V_BOOL && !more.i) return KC_GO;
  set(m, a, next); /* A to A+3 are dead after the loop */
  set(m, a + 3, next);
  return branch(m, more, back, m->pc + 1, what);
}

static kc_res for_loop(machine *m, kc_code i, after *what) {
  kc_cap *c = m->c;
  int a = kc_a(i), back = m->pc + 1 - kc_bx(i);
  kc_val index = get(m, a), count = get(m, a + 1), step = get(m, a + 2), end, next, left;
  bool done;
  if (index.k == KC_V_POISON || count.k == KC_V_POISON)
    return kc_fail(c, "a 'for' loop's counter is a %s", kc_kind_name(index));
  if (!kind_is(step, KN_V_INT)) return float_for_loop(m, a, index, count, step, back, what);
  KC_TRY(kc_equal(c, &m->s, count, kc_int(0), &end));
  if (end.k == KC_V_BOOL && end.i) return KC_GO;
  KC_TRY(kc_number_arith(c, LUA_OPSUB, count, kc_int(1), &left, &done));
  KC_TRY(kc_number_arith(c, LUA_OPADD, index, step, &next, &done));
  set(m, a + 1, left);
  set(m, a, next);
  set(m, a + 3, next);
  return branch(m, end, m->pc + 1, back, what);
}

static kc_res generic_for_call(machine *m, kc_code i) {
  int a = kc_a(i), n = kc_c(i);
  kc_values made = {0};
  KC_TRY(kc_call(m->c, &m->s, get(m, a), (kc_val[]){get(m, a + 1), get(m, a + 2)}, 2, n, &made));
  for (int k = 0; k < n; k++) set(m, a + 4 + k, made.v[k]);
  return KC_GO;
}

static kc_res generic_for_loop(machine *m, kc_code i, after *what) {
  int a = kc_a(i), back = m->pc + 1 - kc_bx(i);
  kc_val x = get(m, a + 4), nil;
  KC_TRY(kc_is_nil(m->c, m->s, x, &nil));
  if (nil.k == KC_V_BOOL && nil.i) return KC_GO;
  set(m, a + 2, x); /* dead after the loop */
  return branch(m, nil, m->pc + 1, back, what);
}

/* ---- calls, returns, closures ---- */

static kc_val *registers(machine *m, int first, int n) {
  kc_val *v = kc_vals(m->c, n);
  for (int k = 0; k < n; k++) v[k] = get(m, first + k);
  return v;
}

/* Results of unknown number may need more registers than the function has: the rest is kept beside them. */
static kc_res open_results(machine *m, int a, const kc_values *made) {
  kc_frame *f = kc_top(m->c, m->s);
  int fixed = f->p->maxstack - a < made->n ? f->p->maxstack - a : made->n;
  for (int k = 0; k < fixed; k++) {
    f->cell[a + k] = 0;
    set(m, a + k, made->v[k]);
    f = m->s->top;
  }
  f = kc_top(m->c, m->s);
  f->top = a + made->n;
  f->open =
      made->n > fixed ? kc_dup(m->c, made->v + fixed, (size_t)(made->n - fixed) * sizeof *made->v) : NULL;
  return KC_GO;
}

/* Values from register `first` up to the open top. */
static kc_val *open_values(machine *m, int first, int *n) {
  const kc_frame *f = m->s->top;
  *n = f->top - first;
  if (*n < 0) *n = 0;
  kc_val *v = kc_vals(m->c, *n);
  for (int k = 0; k < *n; k++)
    v[k] = first + k < f->p->maxstack ? get(m, first + k)
                                      : kc_resolve(m->c, m->s, f->open[first + k - f->p->maxstack]);
  return v;
}

static kc_res leave(machine *m, kc_val *v, int n, after *what) {
  kc_cap *c = m->c;
  int want = m->s->top->want < 0 ? n : m->s->top->want;
  kc_val *ret = kc_vals(c, want);
  for (int k = 0; k < want; k++) {
    ret[k] = k < n ? kc_resolve(c, m->s, v[k]) : KC_NILV;
    if (m->s->top->want >= 0) ret[k] = kc_absent_to_nil(c, ret[k]);
  }
  m->s->ret = ret;
  m->s->nret = want;
  kc_top(c, m->s)->active = NULL;
  int kind = kc_stop_at(c, m->s->depth, -1, false, 0);
  if (!kind) return kc_fail(c, "internal: a return has nowhere to go");
  *m->out = (kc_outs){.n = 1, .sel = kc_int(kind), .o = {{kind, m->s}}};
  *what = STOPPED;
  return KC_GO;
}

static kc_res know_count(kc_cap *c, const kc_val *v, int n) {
  for (int i = 0; i < n; i++)
    if (kc_may_be_absent(v[i]))
      return kc_fail(c,
                     "the number of values depends on tensor data: a call gives %d or more on one path and "
                     "fewer on another; return nil where there is none",
                     i + 1);
  return KC_GO;
}

static kc_res call(machine *m, kc_code i, after *what) {
  kc_cap *c = m->c;
  int a = kc_a(i), n = kc_b(i) - 1, want = kc_c(i) - 1;
  bool tail = kc_op(i) == KC_TAILCALL;
  kc_val *args = kc_b(i) ? registers(m, a + 1, n) : open_values(m, a + 1, &n);
  kc_values made = {0};
  KC_TRY(know_count(c, args, n));
  if (tail) want = m->s->top->want;
  KC_TRY(kc_call(c, &m->s, get(m, a), args, n, want, &made));
  if (tail) return leave(m, made.v, made.n, what);
  if (want < 0) return open_results(m, a, &made);
  for (int k = 0; k < want; k++) {
    kc_top(c, m->s)->cell[a + k] = 0;
    set(m, a + k, made.v[k]);
  }
  return KC_GO;
}

static kc_res give_back(machine *m, kc_code i, after *what) {
  int a = kc_a(i), n = kc_op(i) == KC_RETURN0 ? 0 : kc_op(i) == KC_RETURN1 ? 1 : kc_b(i) - 1;
  kc_val *v = n >= 0 ? registers(m, a, n) : open_values(m, a, &n);
  return leave(m, v, n, what);
}

static void varargs(machine *m, kc_code i) {
  int a = kc_a(i), n = kc_c(i) - 1;
  const kc_frame *f = m->s->top;
  if (n < 0) {
    kc_values all = {f->va, f->nva > 1 && KN_MUTANT(vararg_lost) ? f->nva - 1 : f->nva};
    open_results(m, a, &all);
    return;
  }
  for (int k = 0; k < n; k++) set(m, a + k, k < m->s->top->nva ? m->s->top->va[k] : KC_NILV);
}

static void make_closure(machine *m, kc_code i) {
  kc_cap *c = m->c;
  kc_proto *p = m->s->top->p->p[kc_bx(i)];
  uint32_t id = kc_new_closure_id(c, p, 0);
  for (int k = 0; k < p->nup; k++) {
    int r = p->up[k].index;
    if (!p->up[k].in_stack) {
      c->clos[id].cell[k] = upvalue_cell(m, r);
      continue;
    }
    kc_frame *f = kc_top(c, m->s);
    if (!f->cell[r]) {
      uint32_t cell = kc_new_cell_id(c);
      kc_map_set(c, &m->s->cells, m->s->owner, cell, kc_dup(c, &f->r[r], sizeof f->r[r]));
      f->cell[r] = cell;
    }
    c->clos[id].cell[k] = f->cell[r];
  }
  set(m, kc_a(i), kc_ref(KC_V_CLOSURE, id));
}

static void close_from(machine *m, int a) {
  if (KN_MUTANT(close_ignored)) return;
  kc_frame *f = kc_top(m->c, m->s);
  for (int r = a; r < f->p->maxstack; r++) {
    if (!f->cell[r]) continue;
    f->r[r] = kc_get_reg(m->c, m->s, r);
    f->cell[r] = 0;
  }
}

/* ---- tables and the rest ---- */

static kc_res set_list(machine *m, kc_code i) {
  kc_cap *c = m->c;
  int a = kc_a(i), n = kc_b(i);
  int64_t last = kc_c(i);
  if (kc_k(i)) last += (int64_t)kc_ax(m->s->top->p->code[m->pc + 1]) * 256;
  kc_val t = get(m, a);
  kc_val *v = n ? registers(m, a + 1, n) : open_values(m, a + 1, &n);
  KC_TRY(know_count(c, v, n));
  if (t.k != KC_V_TABLE) return kc_fail(c, "internal: a list is built in no table");
  for (int k = 0; k < n; k++) KC_TRY(kc_raw_set(c, m->s, t.id, kc_int(last + k + 1), v[k]));
  return KC_GO;
}

static kc_res meta_binary(machine *m, kc_code i) {
  kc_opcode o = kc_op(i);
  kc_val x = get(m, kc_a(i)), r;
  kc_val y = o == KC_MMBIN ? get(m, kc_b(i)) : o == KC_MMBINI ? kc_int(kc_sb(i)) : constant(m, kc_b(i));
  bool flip = o != KC_MMBIN && kc_k(i);
  int to = kc_a(m->s->top->p->code[m->pc - 1]);
  KC_TRY(kc_arith(m->c, &m->s, kc_c(i) - 6, flip ? y : x, flip ? x : y, &r));
  set(m, to, r);
  return KC_GO;
}

/* The fast path on numbers skips the metamethod instruction that follows. */
static kc_res number_op(machine *m, kc_code i, int op, kc_val x, kc_val y) {
  kc_val r;
  bool done;
  KC_TRY(kc_number_arith(m->c, op, x, y, &r, &done));
  if (!done) return KC_GO;
  set(m, kc_a(i), r);
  m->pc++;
  return KC_GO;
}

static kc_res negate(machine *m, kc_code i) {
  int op = kc_op(i) == KC_UNM ? LUA_OPUNM : LUA_OPBNOT;
  kc_val x = get(m, kc_b(i)), r;
  KC_TRY(kc_arith(m->c, &m->s, op, x, x, &r));
  set(m, kc_a(i), r);
  return KC_GO;
}

static kc_res self_op(machine *m, kc_code i) {
  kc_val x = get(m, kc_b(i)), r;
  KC_TRY(kc_index(m->c, &m->s, x, rk(m, i), &r));
  set(m, kc_a(i) + 1, x);
  set(m, kc_a(i), r);
  return KC_GO;
}

static kc_res index_to(machine *m, int a, kc_val o, kc_val k) {
  kc_val r;
  KC_TRY(kc_index(m->c, &m->s, o, k, &r));
  set(m, a, r);
  return KC_GO;
}

static kc_res logical_not(machine *m, kc_code i) {
  kc_val t;
  KC_TRY(truth(m, get(m, kc_b(i)), &t));
  set(m, kc_a(i), t.k == KC_V_BOOL ? kc_bool(!t.i) : kc_not(m->c, t.v));
  return KC_GO;
}

static kc_res to_be_closed(machine *m, kc_val x) {
  if (x.k == KC_V_NIL || (x.k == KC_V_BOOL && !x.i)) return KC_GO;
  return kc_fail(m->c, "to-be-closed variables cannot be captured");
}

/* ---- the table of instructions ---- */

static kc_res load(machine *m, kc_code i) {
  int a = kc_a(i);
  kc_val v;
  switch (kc_op(i)) {
  case KC_MOVE: set(m, a, get(m, kc_b(i))); break;
  case KC_LOADI: set(m, a, kc_int(kc_sbx(i))); break;
  case KC_LOADF: set(m, a, kc_float(kc_sbx(i))); break;
  case KC_LOADK: set(m, a, constant(m, kc_bx(i))); break;
  case KC_LOADKX: set(m, a, constant(m, kc_ax(m->s->top->p->code[m->pc + 1]))), m->pc++; break;
  case KC_LOADFALSE: set(m, a, kc_bool(false)); break;
  case KC_LFALSESKIP: set(m, a, kc_bool(false)), m->pc++; break;
  case KC_LOADTRUE: set(m, a, kc_bool(true)); break;
  case KC_LOADNIL:
    for (int k = 0; k <= kc_b(i); k++) set(m, a + k, KC_NILV);
    break;
  case KC_GETUPVAL:
    KC_TRY(kc_cell_get(m->c, m->s, upvalue_cell(m, kc_b(i)), &v));
    set(m, a, v);
    break;
  case KC_SETUPVAL:
    if (KN_MUTANT(setupval_dropped)) return KC_GO;
    return kc_cell_set(m->c, m->s, upvalue_cell(m, kc_b(i)), get(m, a));
  default: break;
  }
  return KC_GO;
}

static kc_res table_op(machine *m, kc_code i) {
  kc_cap *c = m->c;
  int a = kc_a(i), b = kc_b(i);
  kc_val o;
  switch (kc_op(i)) {
  case KC_GETTABUP:
    KC_TRY(kc_cell_get(c, m->s, upvalue_cell(m, b), &o));
    return index_to(m, a, o, constant(m, kc_c(i)));
  case KC_GETTABLE: return index_to(m, a, get(m, b), get(m, kc_c(i)));
  case KC_GETI: return index_to(m, a, get(m, b), kc_int(kc_c(i)));
  case KC_GETFIELD: return index_to(m, a, get(m, b), constant(m, kc_c(i)));
  case KC_SETTABUP:
    KC_TRY(kc_cell_get(c, m->s, upvalue_cell(m, a), &o));
    return kc_set_index(c, &m->s, o, constant(m, b), rk(m, i));
  case KC_SETTABLE: return kc_set_index(c, &m->s, get(m, a), get(m, b), rk(m, i));
  case KC_SETI: return kc_set_index(c, &m->s, get(m, a), kc_int(b), rk(m, i));
  case KC_SETFIELD: return kc_set_index(c, &m->s, get(m, a), constant(m, b), rk(m, i));
  case KC_NEWTABLE:
    set(m, a, kc_ref(KC_V_TABLE, kc_table_new(c, m->s)));
    m->pc++;
    return KC_GO;
  case KC_SETLIST:
    KC_TRY(set_list(m, i));
    m->pc += kc_k(i);
    return KC_GO;
  default: return self_op(m, i);
  }
}

static kc_res arith_op(machine *m, kc_code i) {
  kc_opcode o = kc_op(i);
  kc_val x = get(m, kc_b(i));
  switch (o) {
  case KC_ADDI: return number_op(m, i, LUA_OPADD, x, kc_int(kc_sc(i)));
  case KC_SHRI: return number_op(m, i, LUA_OPSHR, x, kc_int(kc_sc(i)));
  case KC_SHLI: return number_op(m, i, LUA_OPSHL, kc_int(kc_sc(i)), x);
  default: break;
  }
  if (o >= KC_ADDK && o <= KC_BXORK)
    return number_op(m, i, LUA_OPADD + (int)(o - KC_ADDK), x, constant(m, kc_c(i)));
  return number_op(m, i, LUA_OPADD + (int)(o - KC_ADD), x, get(m, kc_c(i)));
}

static kc_res other_op(machine *m, kc_code i, after *what) {
  kc_cap *c = m->c;
  int a = kc_a(i);
  kc_val r;
  switch (kc_op(i)) {
  case KC_MMBIN:
  case KC_MMBINI:
  case KC_MMBINK: return meta_binary(m, i);
  case KC_UNM:
  case KC_BNOT: return negate(m, i);
  case KC_NOT: return logical_not(m, i);
  case KC_LEN:
    KC_TRY(kc_length(c, &m->s, get(m, kc_b(i)), &r));
    set(m, a, r);
    return KC_GO;
  case KC_CONCAT:
    KC_TRY(kc_concat(c, &m->s, registers(m, a, kc_b(i)), kc_b(i), &r));
    set(m, a, r);
    return KC_GO;
  case KC_CLOSE: close_from(m, a); return KC_GO;
  case KC_TBC: return to_be_closed(m, get(m, a));
  case KC_JMP: m->pc = kc_jump(m->s->top->p, m->pc), *what = JUMPED; return KC_GO;
  case KC_TEST: KC_TRY(truth(m, get(m, a), &r)); return test(m, r, what);
  case KC_TESTSET: return test_set(m, i, what);
  case KC_CALL:
  case KC_TAILCALL: return call(m, i, what);
  case KC_RETURN:
  case KC_RETURN0:
  case KC_RETURN1: return give_back(m, i, what);
  case KC_FORPREP: return for_prep(m, i, what);
  case KC_FORLOOP: return for_loop(m, i, what);
  case KC_TFORPREP:
    KC_TRY(to_be_closed(m, get(m, a + 3)));
    m->pc += 1 + kc_bx(i), *what = JUMPED;
    return KC_GO;
  case KC_TFORCALL: return generic_for_call(m, i);
  case KC_TFORLOOP: return generic_for_loop(m, i, what);
  case KC_CLOSURE: make_closure(m, i); return KC_GO;
  case KC_VARARG: varargs(m, i); return KC_GO;
  case KC_VARARGPREP: return KC_GO;
  default: return compare(m, i, what);
  }
}

static kc_res step(machine *m, kc_code i, after *what) {
  kc_opcode o = kc_op(i);
  if (o <= KC_SETUPVAL) return load(m, i);
  if (o <= KC_SELF) return table_op(m, i);
  if (o <= KC_SHR) return arith_op(m, i);
  if (o == KC_SETLIST) return table_op(m, i);
  return other_op(m, i, what);
}

/* ---- the main loop ---- */

/* At the start of a block: a stop, a loop's header. */
static kc_res arrive(machine *m, int flags, after *what) {
  kc_cap *c = m->c;
  const kc_flow *flow = m->s->top->flow;
  int block = flow->block_of[m->pc];
  KC_TRY(kc_merge_alike(c, m->s, m->pc));
  kc_leave_loops(c, m->s, block);
  const kc_loop *l = kc_loop_at(flow, block);
  const kc_active *a = m->s->top->active;
  bool back = l && a && a->loop->loop == l;
  int kind = flags & KC_RUN_PAST_STOP ? 0
                                      : kc_stop_at(c, m->s->depth, m->pc, back,
                                                   back ? a->loop->id
                                                   : a  ? a->iteration
                                                        : 0);
  if (kind) {
    *m->out = (kc_outs){.n = 1, .sel = kc_int(kind), .o = {{kind, m->s}}};
    *what = STOPPED;
    return KC_GO;
  }
  if (!l || (flags & KC_RUN_PAST_LOOP)) return KC_GO;
  bool on = false, entering = !back;
  KC_TRY(kc_enter_loop(c, &m->s, &m->pc, l, m->out, &on));
  *what = on ? entering || m->pc != flow->block[block].start ? JUMPED : NEXT : STOPPED;
  return KC_GO;
}

static kc_res too_long(kc_cap *c) {
  const kc_active *a = c->S->top->active;
  if (a)
    return kc_fail(
        c, "capturing takes more than %d instructions: the loop at line %d is unrolled without end%s%s",
        KC_STEP_BUDGET, a->loop->line, a->loop->why ? "; it cannot be a loop of the graph: " : "",
        a->loop->why ? a->loop->why : "");
  return kc_fail(c, "capturing takes more than %d instructions", KC_STEP_BUDGET);
}

kc_res kc_run(kc_cap *c, kc_state *s, int pc, int flags, kc_outs *out) {
  machine m = {c, s, pc, out};
  for (;;) {
    c->S = m.s;
    kc_top(c, m.s)->pc = m.pc;
    const kc_frame *f = m.s->top;
    after what = NEXT;
    if (f->flow->block[f->flow->block_of[m.pc]].start == m.pc) {
      KC_TRY(arrive(&m, flags, &what));
      flags = 0;
      if (what == STOPPED) return KC_GO;
      if (what == JUMPED) continue;
      c->S = m.s;
    }
    flags = 0;
    if (++c->steps > KC_STEP_BUDGET) {
      c->fatal = true;
      return too_long(c);
    }
    kc_res r = step(&m, m.s->top->p->code[m.pc], &what);
    c->S = r == KC_GO ? m.s : c->S;
    if (c->b.status != KN_OK && r != KC_FAIL && r != KC_RESTART) return kc_fail(c, "graph");
    if (r != KC_GO) return r;
    if (what == STOPPED) return KC_GO;
    if (what == NEXT) m.pc++;
  }
}
