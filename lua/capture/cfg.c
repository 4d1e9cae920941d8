/* Blocks, dominators, loops, liveness of a prototype. See cfg.h. */
#include "graph/mutant.h"
#include "lua/capture/cfg.h"
#include <string.h>

typedef struct work {
  kn_arena *a;
  kc_proto *p;
  kc_flow *f;
  int *order, norder; /* blocks in postorder */
  int words;          /* per set of blocks */
} work;

static bool bits_new(work *w, kc_bits *s) {
  return (s->w = kn_arena_alloc(w->a, (size_t)w->words * sizeof(uint64_t))) != NULL;
}
static void bit_add(kc_bits s, int b) { s.w[b >> 6] |= UINT64_C(1) << (b & 63); }

static bool bits_merge(const work *w, kc_bits to, kc_bits from) {
  uint64_t fresh = 0;
  for (int i = 0; i < w->words; i++) {
    fresh |= from.w[i] & ~to.w[i];
    to.w[i] |= from.w[i];
  }
  return fresh != 0;
}

/* ---- blocks ---- */

static bool ends_block(kc_opcode o) {
  switch (o) {
  case KC_JMP:
  case KC_LFALSESKIP:
  case KC_FORPREP:
  case KC_FORLOOP:
  case KC_TFORLOOP:
  case KC_TFORPREP:
  case KC_RETURN:
  case KC_RETURN0:
  case KC_RETURN1: return true;
  default: return kc_is_test(o);
  }
}

static void mark_leaders(const kc_proto *p, uint8_t *leader) {
  leader[0] = 1;
  for (int pc = 0; pc < p->ncode; pc++) {
    kc_opcode o = kc_op(p->code[pc]);
    if (o == KC_TFORCALL) leader[pc] = 1;
    if (!ends_block(o)) continue;
    int next[2];
    for (int n = kc_successors(p, pc, next); n-- > 0;) leader[next[n]] = 1;
    int after = pc + (kc_is_test(o) ? 2 : 1); /* a test's JMP belongs to it */
    if (after < p->ncode) leader[after] = 1;
  }
}

static bool make_blocks(work *w) {
  kc_proto *p = w->p;
  kc_flow *f = w->f;
  uint8_t *leader = kn_arena_alloc(w->a, (size_t)p->ncode + 1);
  f->block_of = kn_arena_alloc(w->a, ((size_t)p->ncode + 1) * sizeof(int));
  if (!leader || !f->block_of) return false;
  mark_leaders(p, leader);
  for (int pc = 0; pc < p->ncode; pc++) {
    f->nblocks += leader[pc];
    f->block_of[pc] = f->nblocks - 1;
  }
  f->block = kn_arena_alloc(w->a, ((size_t)f->nblocks + 1) * sizeof *f->block);
  if (!f->block) return false;
  w->words = f->nblocks / 64 + 1;
  for (int pc = p->ncode; pc-- > 0;) f->block[f->block_of[pc]].start = pc;
  for (int pc = 0; pc < p->ncode; pc++) f->block[f->block_of[pc]].end = pc;
  for (int i = 0; i < f->nblocks; i++) {
    kc_block *b = &f->block[i];
    int last = b->end, next[2];
    if (last > b->start && kc_is_test(kc_op(p->code[last - 1]))) last--;
    /* what the last executed instruction may lead to; an EXTRAARG at the end is skipped by its owner */
    if (last > b->start && kc_op(p->code[last]) == KC_EXTRAARG) last--;
    int n = kc_successors(p, last, next);
    for (int k = 0; k < n; k++) b->next[b->nnext++] = f->block_of[next[k]];
    if (b->nnext == 2 && b->next[0] == b->next[1]) b->nnext = 1;
    b->dom = b->order = -1;
    if (!bits_new(w, &b->reach)) return false;
    bit_add(b->reach, i);
  }
  return true;
}

/* ---- order and dominators (Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001) ---- */

static bool make_order(work *w) {
  kc_flow *f = w->f;
  size_t n = (size_t)f->nblocks;
  int *stack = kn_arena_alloc(w->a, (n + 1) * sizeof(int));
  uint8_t *state = kn_arena_alloc(w->a, n + 1); /* edges followed so far, plus one */
  w->order = kn_arena_alloc(w->a, (n + 1) * sizeof(int));
  if (!stack || !state || !w->order) return false;
  int top = 0;
  stack[top++] = 0;
  state[0] = 1;
  while (top > 0) {
    int b = stack[top - 1];
    if (state[b] <= f->block[b].nnext) {
      int next = f->block[b].next[state[b]++ - 1];
      if (!state[next]) state[next] = 1, stack[top++] = next;
    } else {
      w->order[w->norder++] = b;
      top--;
    }
  }
  for (int i = 0; i < w->norder; i++) f->block[w->order[i]].order = w->norder - 1 - i;
  for (int i = 0; i < w->norder; i++) {
    const kc_block *b = &f->block[w->order[i]];
    for (int k = 0; k < b->nnext; k++) f->block[b->next[k]].joins++;
  }
  return true;
}

static int common_dominator(const kc_flow *f, int a, int b) {
  while (a != b) {
    while (f->block[a].order > f->block[b].order) a = f->block[a].dom;
    while (f->block[b].order > f->block[a].order) b = f->block[b].dom;
  }
  return a;
}

static void make_dominators(work *w) {
  kc_flow *f = w->f;
  f->block[0].dom = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = w->norder - 1; i >= 0; i--) { /* each edge u → v pulls v's dominator up */
      int u = w->order[i];
      for (int k = 0; k < f->block[u].nnext; k++) {
        int v = f->block[u].next[k];
        if (v == 0) continue;
        int dom = f->block[v].dom < 0 ? u : common_dominator(f, f->block[v].dom, u);
        if (dom != f->block[v].dom) f->block[v].dom = dom, changed = true;
      }
    }
  }
}

static bool dominates(const kc_flow *f, int a, int b) {
  while (b != a && b != 0) b = f->block[b].dom;
  return a == b;
}

/* ---- natural loops, merged by header ---- */

static kc_loop *loop_of_header(work *w, int h) {
  kc_flow *f = w->f;
  for (int i = 0; i < f->nloops; i++)
    if (f->loop[i].header == h) return &f->loop[i];
  kc_loop *l = &f->loop[f->nloops];
  l->header = h;
  if (!bits_new(w, &l->in)) return NULL;
  bit_add(l->in, h);
  if (kc_op(w->p->code[f->block[h].start]) == KC_TFORCALL) l->kind = KC_LOOP_GENERIC;
  f->nloops++;
  return l;
}

/* Adds everything that reaches block `from` without passing the header. */
static void fill_loop(work *w, kc_loop *l, int from) {
  kc_flow *f = w->f;
  bit_add(l->in, from);
  for (bool changed = true; changed;) {
    changed = false;
    for (int i = 0; i < w->norder; i++) {
      int b = w->order[i];
      if (kc_bit(l->in, b)) continue;
      for (int k = 0; k < f->block[b].nnext; k++)
        if (f->block[b].next[k] != l->header && kc_bit(l->in, f->block[b].next[k])) {
          bit_add(l->in, b);
          changed = true;
          break;
        }
    }
  }
}

static bool make_loops(work *w) {
  kc_flow *f = w->f;
  f->loop = kn_arena_alloc(w->a, ((size_t)f->nblocks + 1) * sizeof *f->loop);
  if (!f->loop) return false;
  for (int i = 0; i < w->norder; i++) {
    int b = w->order[i];
    for (int k = 0; k < f->block[b].nnext; k++) {
      int h = f->block[b].next[k];
      if (!dominates(f, h, b)) continue;
      kc_loop *l = loop_of_header(w, h);
      if (!l) return false;
      int last = f->block[b].end;
      if (kc_op(w->p->code[last]) == KC_FORLOOP) l->kind = KC_LOOP_NUMERIC, l->forloop = last;
      fill_loop(w, l, b);
    }
  }
  for (int i = 0; i < f->nloops; i++)
    for (int b = 0; b < f->nblocks; b++)
      if (kc_bit(f->loop[i].in, b) && f->block[b].end > f->loop[i].last) f->loop[i].last = f->block[b].end;
  return true;
}

const kc_loop *kc_loop_at(const kc_flow *f, int b) {
  for (int i = 0; i < f->nloops; i++)
    if (f->loop[i].header == b) return &f->loop[i];
  return NULL;
}

/* ---- forward reach ---- */

static void forward(const kc_flow *f, int from, int to, int depth, void (*fn)(void *, int), void *ud) {
  const kc_loop *l = kc_loop_at(f, to);
  if (!l || !kc_bit(l->in, from)) {
    fn(ud, to);
    return;
  }
  if (depth > 20) return;
  for (int b = 0; b < f->nblocks; b++)
    if (kc_bit(l->in, b))
      for (int k = 0; k < f->block[b].nnext; k++)
        if (!kc_bit(l->in, f->block[b].next[k])) forward(f, b, f->block[b].next[k], depth + 1, fn, ud);
}

void kc_forward(const kc_flow *f, int from, int to, void (*fn)(void *ud, int block), void *ud) {
  forward(f, from, to, 0, fn, ud);
}

typedef struct spread_ud {
  work *w;
  int b;
  bool changed;
} spread_ud;

static void spread(void *ud, int to) {
  spread_ud *s = ud;
  if (bits_merge(s->w, s->w->f->block[s->b].reach, s->w->f->block[to].reach)) s->changed = true;
}

static void make_reach(work *w) {
  spread_ud s = {.w = w};
  do {
    s.changed = false;
    for (int i = 0; i < w->norder; i++) {
      s.b = w->order[i];
      for (int k = 0; k < w->f->block[s.b].nnext; k++)
        kc_forward(w->f, s.b, w->f->block[s.b].next[k], spread, &s);
    }
  } while (s.changed);
}

/* ---- liveness ---- */

static void add(kc_regs *s, int r) { s->bits[r >> 6] |= UINT64_C(1) << (r & 63); }
static void add_range(kc_regs *s, int from, int to) {
  for (int r = from; r < to; r++) add(s, r);
}

/* What the table of operands does not say: ranges, pairs, and what calls clobber. */
static void special_uses(const kc_proto *p, int pc, kc_regs *use, kc_regs *def) {
  kc_code i = p->code[pc];
  int a = kc_a(i), b = kc_b(i), c = kc_c(i), top = p->maxstack;
  switch (kc_op(i)) {
  case KC_LOADNIL: add_range(def, a, a + b + 1); break;
  case KC_SELF: add(def, a + 1); break;
  case KC_CONCAT: add_range(use, a, a + b); break;
  case KC_MMBIN:
  case KC_MMBINI:
  case KC_MMBINK: add(def, kc_a(p->code[pc - 1])); break;
  case KC_CALL: /* a call clobbers everything from A up, and open results define up to the top */
  case KC_TAILCALL:
    add_range(use, a, b ? a + b : top);
    add_range(def, a, top);
    break;
  case KC_RETURN: add_range(use, a, b ? a + b - 1 : top); break;
  case KC_FORLOOP: add_range(use, a, a + 3); break;
  case KC_FORPREP: add_range(use, a, a + 3), add(def, a + 3); break;
  case KC_TFORPREP: add_range(use, a, a + 4); break;
  case KC_TFORCALL: add_range(use, a, a + 3), add_range(def, a + 4, top); break;
  case KC_TFORLOOP: add(use, a + 4), add(def, a + 2); break;
  case KC_SETLIST: add_range(use, a, b ? a + b + 1 : top); break;
  case KC_VARARG: add(use, KC_VARARGS), add_range(def, a, c ? a + c - 1 : top); break;
  case KC_CLOSURE: {
    const kc_proto *q = p->p[kc_bx(i)];
    for (int u = 0; u < q->nup; u++)
      if (q->up[u].in_stack && !KN_MUTANT(liveness_hole)) add(use, q->up[u].index);
    break;
  }
  default: break;
  }
}

static void uses(const kc_proto *p, int pc, kc_regs *use, kc_regs *def) {
  kc_code i = p->code[pc];
  const char *w = kc_opcode_operands(kc_op(i));
  int v[3] = {kc_a(i), kc_b(i), kc_c(i)};
  memset(use, 0, sizeof *use);
  memset(def, 0, sizeof *def);
  for (int k = 0; k < 3; k++) {
    if (w[k] == 'r' || (w[k] == 'x' && !kc_k(i))) add(use, v[k]);
    if (w[k] == 'w') add(def, v[k]);
  }
  if (kc_op(i) == KC_CLOSE) memset(use, 0, sizeof *use);
  special_uses(p, pc, use, def);
}

static kc_regs live_after(const kc_flow *f, const kc_proto *p, int pc) {
  int next[2], n = kc_successors(p, pc, next);
  kc_regs out = {{0}};
  for (int k = 0; k < n; k++) {
    kc_regs in = f->live[next[k]];
    if (kc_op(p->code[pc]) == KC_TESTSET && k == 0) /* sets A only where it jumps */
      in.bits[kc_a(p->code[pc]) >> 6] &= ~(UINT64_C(1) << (kc_a(p->code[pc]) & 63));
    for (int x = 0; x < 4; x++) out.bits[x] |= in.bits[x];
  }
  return out;
}

static bool make_live(work *w) {
  const kc_proto *p = w->p;
  w->f->live = kn_arena_alloc(w->a, ((size_t)p->ncode + 1) * sizeof(kc_regs));
  if (!w->f->live) return false;
  for (bool changed = true; changed;) {
    changed = false;
    for (int pc = p->ncode - 1; pc >= 0; pc--) {
      if (kc_op(p->code[pc]) == KC_EXTRAARG) continue;
      kc_regs use, def, out = live_after(w->f, p, pc);
      uses(p, pc, &use, &def);
      if (kc_op(p->code[pc]) == KC_TESTSET) memset(&def, 0, sizeof def);
      for (int x = 0; x < 4; x++) {
        uint64_t v = use.bits[x] | (out.bits[x] & ~def.bits[x]);
        if (v != w->f->live[pc].bits[x]) w->f->live[pc].bits[x] = v, changed = true;
      }
    }
  }
  return true;
}

kc_regs kc_live_beside(const kc_proto *p, int pc) {
  kc_regs use, def, out = live_after(p->flow, p, pc);
  uses(p, pc, &use, &def);
  for (int x = 0; x < 4; x++) out.bits[x] &= ~def.bits[x];
  return out;
}

kc_flow *kc_flow_of(kn_arena *a, kc_proto *p) {
  if (p->flow) return p->flow;
  work w = {.a = a, .p = p, .f = kn_arena_alloc(a, sizeof(kc_flow))};
  if (!w.f || !make_blocks(&w) || !make_order(&w)) return NULL;
  make_dominators(&w);
  if (!make_loops(&w)) return NULL;
  make_reach(&w);
  if (!make_live(&w)) return NULL;
  return p->flow = w.f;
}
