/* The source of a chain with folds: passes over a row, each of which folds what has become known, and one
 * more for results of each element. The threads that have a row join what each has folded in one fixed order.
 */
#include "backends/cuda/chain_layout.h"
#include <stdio.h>

/* ---- folds ---- */

/* By the dtype (a wide one) that is folded: what it is kept in, what it begins with, and how two are joined:
 * an expression of a and b. */
typedef struct keep {
  kn_dtype type; /* KN_BOOL: a u32 */
  const char *start, *join;
} keep;
#define WHOLE_SUM                                                                                            \
  { KN_I64, "0", "(i64)((u64)a + (u64)b)" }
#define WHOLE_PROD                                                                                           \
  { KN_I64, "1", "(i64)((u64)a * (u64)b)" }
#define MORE "b > a ? b : a"
#define LESS "b < a ? b : a"
#define MORE_FLOAT "b > a || b != b ? b : a" /* nan wins, and stays */
#define LESS_FLOAT "b < a || b != b ? b : a"
#define LEAST_I64 "-0x7fffffffffffffff - 1"
#define SUMS                                                                                                 \
  {                                                                                                          \
    [KN_BOOL] = WHOLE_SUM, [KN_I64] = WHOLE_SUM, [KN_F32] = {KN_F64, "0", "a + b"}, [KN_F64] = {             \
      KN_F64,                                                                                                \
      "0",                                                                                                   \
      "a + b"                                                                                                \
    }                                                                                                        \
  }
#define PRODS                                                                                                \
  {                                                                                                          \
    [KN_BOOL] = WHOLE_PROD, [KN_I64] = WHOLE_PROD, [KN_F32] = {KN_F64, "1", "a * b"}, [KN_F64] = {           \
      KN_F64,                                                                                                \
      "1",                                                                                                   \
      "a * b"                                                                                                \
    }                                                                                                        \
  }
#define TRUTHS(start, join)                                                                                  \
  {                                                                                                          \
    [KN_BOOL] = {KN_BOOL, start, join}, [KN_I64] = {KN_BOOL, start, join},                                   \
    [KN_F32] = {KN_BOOL, start, join}, [KN_F64] = {                                                          \
      KN_BOOL,                                                                                               \
      start,                                                                                                 \
      join                                                                                                   \
    }                                                                                                        \
  }
#define MOSTS                                                                                                \
  {                                                                                                          \
    [KN_BOOL] = {KN_BOOL, "0", MORE}, [KN_I64] = {KN_I64, LEAST_I64, MORE},                                  \
    [KN_F32] = {KN_F32, "-INF_F32", MORE_FLOAT}, [KN_F64] = {                                                \
      KN_F64,                                                                                                \
      "-INF_F64",                                                                                            \
      MORE_FLOAT                                                                                             \
    }                                                                                                        \
  }
#define LEASTS                                                                                               \
  {                                                                                                          \
    [KN_BOOL] = {KN_BOOL, "1", LESS}, [KN_I64] = {KN_I64, "0x7fffffffffffffff", LESS},                       \
    [KN_F32] = {KN_F32, "INF_F32", LESS_FLOAT}, [KN_F64] = {                                                 \
      KN_F64,                                                                                                \
      "INF_F64",                                                                                             \
      LESS_FLOAT                                                                                             \
    }                                                                                                        \
  }

static const struct fold {
  kn_op op;
  keep keep[KN_DTYPE_COUNT];
  bool mean, truth, place;
  char than; /* of places: '>' or '<' */
} folds[] = {
    {.op = KN_OP_sum, .keep = SUMS},
    {.op = KN_OP_mean, .keep = SUMS, .mean = true},
    {.op = KN_OP_prod, .keep = PRODS},
    {.op = KN_OP_amax, .keep = MOSTS},
    {.op = KN_OP_amin, .keep = LEASTS},
    {.op = KN_OP_all, .keep = TRUTHS("1", "a & b"), .truth = true},
    {.op = KN_OP_any, .keep = TRUTHS("0", "a | b"), .truth = true},
    {.op = KN_OP_argmax, .keep = MOSTS, .place = true, .than = '>'},
    {.op = KN_OP_argmin, .keep = LEASTS, .place = true, .than = '<'},
};

static const struct fold *fold_of(kn_op op) {
  for (size_t i = 0; i < sizeof folds / sizeof *folds; i++)
    if (folds[i].op == op) return &folds[i];
  return NULL;
}

bool cu_chain_folds(kn_op op) { return fold_of(op) != NULL; }

static const keep *keep_of(const cu_step *s) { return &fold_of(s->op)->keep[kn_dtypes[s->as].wide]; }
static const char *type_of(const cu_step *s) {
  return keep_of(s)->type == KN_BOOL ? "u32" : cu_elements[keep_of(s)->type].value;
}
static const char *warp_name(const cu_step *s) {
  return keep_of(s)->type == KN_BOOL ? "u32" : cu_elements[keep_of(s)->type].name;
}

void cu_chain_write_folds(cu_text *t, const cu_layout *p) {
  for (int i = 0; i < p->c->steps; i++) {
    const cu_step *s = &p->c->step[i];
    const struct fold *f = fold_of(s->op);
    if (!f) continue;
    const char *type = type_of(s);
    if (!f->place)
      cu_put(t, "DEVICE %s join%d(%s a, %s b) { return %s; }\n", type, i, type, type, keep_of(s)->join);
    else /* whether b at bp, from 1, stands before a at ap; 0: nothing was seen */
      cu_put(t,
             "DEVICE int before%d(%s b, i64 bp, %s a, i64 ap) {\n"
             "  const int more = b %c a || (b != b && a == a), less = a %c b || (a != a && b == b);\n"
             "  return bp != 0 && (ap == 0 || more || (!less && bp < ap));\n"
             "}\n",
             i, type, type, f->than, f->than);
  }
}

int cu_fold_values(const cu_layout *p) {
  int n = 0;
  for (int i = 0; i < p->c->steps; i++) {
    const struct fold *f = fold_of(p->c->step[i].op);
    n += f ? 1 + f->place : 0;
  }
  return n;
}

/* ---- joining what threads have folded ---- */

static void put_join(cu_text *t, const struct fold *f, int i, const char *value, const char *place) {
  if (f->place)
    cu_put(t, "if (before%d(%s, %s, f%d, at%d)) f%d = %s, at%d = %s;\n", i, value, place, i, i, i, value, i,
           place);
  else
    cu_put(t, "f%d = join%d(f%d, %s);\n", i, i, i, value);
}

static void put_warp(cu_text *t, const cu_step *s, const struct fold *f, int i) {
  cu_put(t, "for (int o = 16; o; o >>= 1) {\nconst %s b = warp_xor_%s(f%d, o);\n", type_of(s), warp_name(s),
         i);
  if (f->place) cu_put(t, "const i64 bp = warp_xor_i64(at%d, o);\n", i);
  put_join(t, f, i, "b", "bp");
  cu_put(t, "}\n");
}

/* Through shared memory: of `n` places, those at `mine` and every `apart` further on. */
static void put_shared(cu_text *t, const struct fold *f, int i, const char *mine, int n, int apart) {
  char value[64], place[64];
  cu_put(t, "f%d = room%d[%s];\n", i, i, mine);
  if (f->place) cu_put(t, "at%d = place%d[%s];\n", i, i, mine);
  cu_put(t, "for (int k = 1; k < %d; k++) {\n", n);
  snprintf(value, sizeof value, "room%d[%s + k * %d]", i, mine, apart);
  snprintf(place, sizeof place, "place%d[%s + k * %d]", i, mine, apart);
  put_join(t, f, i, value, place);
  cu_put(t, "}\n");
}

static void put_joined(cu_text *t, const cu_layout *p, cu_way way, int i) {
  const cu_step *s = &p->c->step[i];
  const struct fold *f = fold_of(s->op);
  if (way != CU_COLUMN) put_warp(t, s, f, i);
  if (way == CU_WARP) return;
  const char *at = way == CU_BLOCK ? "THREAD / 32" : "THREAD";
  cu_put(t, "SYNC();\n%s{\nroom%d[%s] = f%d;\n", way == CU_BLOCK ? "if (THREAD % 32 == 0) " : "", i, at, i);
  if (f->place) cu_put(t, "place%d[%s] = at%d;\n", i, at, i);
  cu_put(t, "}\nSYNC();\n");
  if (way == CU_BLOCK)
    put_shared(t, f, i, "0", p->threads / 32, 1);
  else
    put_shared(t, f, i, "lane", p->threads / 32, 32);
}

/* The row's value, from f3 (and at3). */
static void put_finished(cu_text *t, const cu_layout *p, int i) {
  const cu_step *s = &p->c->step[i];
  const struct fold *f = fold_of(s->op);
  kn_dtype d = s->dtype, wide = kn_dtypes[d].wide;
  const char *value = cu_elements[d].value, *type = cu_elements[d].type;
  char made[64];
  snprintf(made, sizeof made, f->place ? "at%d" : f->mean ? "(f%d / (double)a.cols)" : "f%d", i);
  cu_put(t, "const %s t%d = (%s)%s;\n", value, i, value, made);
  if (wide == d) return;
  cu_put(t, "const %s e%d = ", type, i); /* rounded once: from what was folded */
  cu_put_cast(t, keep_of(s)->type == KN_BOOL ? KN_I64 : keep_of(s)->type, d, made);
  cu_put(t, ";\nconst %s r%d = ", value, i);
  snprintf(made, sizeof made, "e%d", i);
  cu_put_get(t, d, made);
  cu_put(t, ";\n");
}

/* ---- rows ---- */

static bool in_pass(const cu_layout *p, int i, int pass) {
  return fold_of(p->c->step[i].op) && p->level[i] == pass;
}

bool cu_pass_wants(const cu_layout *p, int pass, cu_wanted *w) {
  bool any = false;
  *w = (cu_wanted){0, 0};
  for (int i = 0; i < p->c->steps; i++)
    if (in_pass(p, i, pass)) cu_want(p, p->c->step[i].in[0], w), any = true;
  for (int k = 0; pass > p->levels && k < p->c->outputs; k++)
    if (p->lie[CU_CHAIN_INPUTS + k] != CU_STILL) cu_want(p, p->c->value[k], w), any = true;
  return any;
}

/* Steps of the row that become known with `level` passes. */
static void put_row_steps(cu_text *t, const cu_layout *p, int level) {
  for (int i = 0; i < p->c->steps; i++)
    if (p->per_row[i] && p->level[i] == level && !fold_of(p->c->step[i].op)) cu_put_step(t, p, i);
}

/* Where an operand's row begins: base3. */
static void put_bases(cu_text *t, const cu_layout *p) {
  int kept = p->rank - p->over;
  cu_put(t, "pos rest = r;\n(void)rest;\n");
  cu_put_indices(t, 0, kept, "rest", 1);
  for (int o = 0; o < CU_OPERANDS; o++) {
    if (!cu_operand_is(p, o) || p->lie[o] == CU_NUMBER || p->lie[o] == CU_ONE) continue;
    cu_put(t, "const pos base%d = 0", o);
    cu_put_place(t, p, o, 0, kept);
    cu_put(t, ";\n");
  }
  for (int k = 0; k < p->c->inputs; k++)
    if (p->lie[k] == CU_STILL) cu_put_input(t, p, k, "a.p%d[base%d]", k, k);
  put_row_steps(t, p, 0);
}

/* Indices of element j along the row's dims. */
static void put_row_indices(cu_text *t, const cu_layout *p) {
  cu_put(t, "pos from = j / %d;\n(void)from;\n", p->vector);
  cu_put_indices(t, p->rank - p->over, p->rank, "from", p->vector);
}

static void put_row_place(cu_text *t, const cu_layout *p, int o) {
  cu_put(t, "const pos at_%d = base%d", o, o);
  cu_put_place(t, p, o, p->rank - p->over, p->rank);
  cu_put(t, ";\n");
}

/* Reads what one pass needs of element j on, into in3. */
static void put_reads(cu_text *t, const cu_layout *p, uint32_t inputs, const char *index) {
  char name[32], place[16];
  for (int k = 0; k < p->c->inputs; k++) {
    if (!(inputs >> k & 1)) continue;
    snprintf(name, sizeof name, "in%d%s", k, index);
    snprintf(place, sizeof place, "at_%d", k);
    put_row_place(t, p, k);
    if (p->lie[k] == CU_NEAR)
      cu_put_vector(t, p, k, name, place);
    else
      for (int e = 0; e < p->vector; e++)
        cu_put(t, "%s.e[%d] = a.p%d[at_%d + %d * (pos)a.s%d_%d];\n", name, e, k, k, e, k, p->rank - 1);
  }
}

static void declare(cu_text *t, const cu_layout *p, uint32_t inputs, const char *array) {
  for (int k = 0; k < p->c->inputs; k++)
    if (inputs >> k & 1) cu_put(t, "vec_%s in%d%s;\n", cu_elements[p->c->input[k].dtype].name, k, array);
}

/* Begins a loop over the vectors of a row that are this thread's, and reads what is not kept. */
static void open_loop(cu_text *t, const cu_layout *p, const cu_wanted *w) {
  uint32_t reads = p->held ? w->inputs & ~p->keeps : w->inputs;
  if (p->held)
    cu_put(t,
           "#pragma unroll\nfor (int h = 0; h < %d; h++) {\n"
           "const pos j = ((pos)h * team + me) * %d;\nif (j < (pos)a.cols) {\n",
           p->held, p->vector);
  else
    cu_put(t, "#pragma unroll 4\nfor (pos j = begin + me * %d; j < end; j += team * %d) {\n{\n", p->vector,
           p->vector);
  put_row_indices(t, p);
  declare(t, p, reads, "");
  put_reads(t, p, reads, "");
}

static void open_elements(cu_text *t, const cu_layout *p, const cu_wanted *w) {
  cu_put(t, "#pragma unroll\nfor (int e = 0; e < %d; e++) {\n", p->vector);
  for (int k = 0; k < p->c->inputs; k++)
    if (w->inputs >> k & 1)
      cu_put_input(t, p, k, p->held && p->keeps >> k & 1 ? "in%d[h].e[e]" : "in%d.e[e]", k);
  cu_put_steps(t, p, w);
}

/* float32 and halves are added up four at a time in float, those sums in double: in the same fours whatever
 * else the chain reads and writes. */
enum { FOUR = 4 };
static bool by_fours(const cu_layout *p, const cu_step *s) {
  return p->vector % FOUR == 0 && (s->op == KN_OP_sum || s->op == KN_OP_mean) &&
         kn_dtypes[s->as].wide == KN_F32;
}

static void put_pass(cu_text *t, const cu_layout *p, int pass) {
  cu_wanted w;
  cu_pass_wants(p, pass, &w);
  for (int i = 0; i < p->c->steps; i++) {
    const cu_step *s = &p->c->step[i];
    if (!in_pass(p, i, pass)) continue;
    cu_put(t, "%s f%d = %s;\n", type_of(s), i, keep_of(s)->start);
    if (fold_of(s->op)->place) cu_put(t, "i64 at%d = 0;\n", i);
  }
  open_loop(t, p, &w);
  for (int i = 0; i < p->c->steps; i++)
    if (in_pass(p, i, pass) && by_fours(p, &p->c->step[i])) cu_put(t, "float four%d = 0;\n", i);
  open_elements(t, p, &w);
  for (int i = 0; i < p->c->steps; i++) {
    const cu_step *s = &p->c->step[i];
    const struct fold *f = fold_of(s->op);
    if (!in_pass(p, i, pass)) continue;
    if (f->place) {
      cu_put(t, "const %s b%d = (%s)", type_of(s), i, type_of(s));
      cu_put_value(t, p, s->in[0], s->as);
      cu_put(t, ";\nconst i64 bp%d = (i64)(j + e) + 1;\n", i);
      char value[16], place[16];
      snprintf(value, sizeof value, "b%d", i), snprintf(place, sizeof place, "bp%d", i);
      put_join(t, f, i, value, place);
      continue;
    }
    if (by_fours(p, s))
      cu_put(t, "four%d += ", i);
    else
      cu_put(t, "f%d = join%d(f%d, (%s)(", i, i, i, type_of(s));
    cu_put_value(t, p, s->in[0], s->as);
    cu_put(t, by_fours(p, s) ? ";\n" : f->truth ? " != 0));\n" : "));\n");
    if (by_fours(p, s))
      cu_put(t, "if (e %% %d == %d) f%d = join%d(f%d, (double)four%d), four%d = 0;\n", FOUR, FOUR - 1, i, i,
             i, i, i);
  }
  cu_put(t, "}\n}\n}\n");
  for (int i = 0; i < p->c->steps; i++)
    if (in_pass(p, i, pass)) put_joined(t, p, p->way, i);
}

static void put_known(cu_text *t, const cu_layout *p, int pass) {
  for (int i = 0; i < p->c->steps; i++)
    if (in_pass(p, i, pass)) put_finished(t, p, i);
  put_row_steps(t, p, pass);
}

/* Results of each element, in a last pass. */
static void put_element_results(cu_text *t, const cu_layout *p, const char *on) {
  cu_wanted w;
  char name[16], place[16];
  if (!cu_pass_wants(p, p->levels + 1, &w)) return;
  open_loop(t, p, &w);
  for (int k = 0; k < p->c->outputs; k++)
    if (p->lie[CU_CHAIN_INPUTS + k] != CU_STILL)
      cu_put(t, "vec_%s out%d;\n", cu_elements[p->c->output[k].dtype].name, k);
  open_elements(t, p, &w);
  for (int k = 0; k < p->c->outputs; k++) {
    if (p->lie[CU_CHAIN_INPUTS + k] == CU_STILL) continue;
    cu_put(t, "out%d.e[e] = ", k);
    cu_put_result(t, p, k);
    cu_put(t, ";\n");
  }
  cu_put(t, "}\n%s{\n", on);
  for (int k = 0; k < p->c->outputs; k++) {
    int o = CU_CHAIN_INPUTS + k;
    if (p->lie[o] == CU_STILL) continue;
    put_row_place(t, p, o);
    snprintf(name, sizeof name, "out%d", k), snprintf(place, sizeof place, "at_%d", o);
    if (p->lie[o] == CU_NEAR)
      cu_put_vector(t, p, o, name, place);
    else
      for (int e = 0; e < p->vector; e++)
        cu_put(t, "a.p%d[at_%d + %d * (pos)a.s%d_%d] = out%d.e[%d];\n", o, o, e, o, p->rank - 1, k, e);
  }
  cu_put(t, "}\n}\n}\n");
}

static void put_row_results(cu_text *t, const cu_layout *p, const char *on) {
  for (int k = 0; k < p->c->outputs; k++) {
    int o = CU_CHAIN_INPUTS + k;
    if (p->lie[o] != CU_STILL) continue;
    cu_put(t, "%sa.p%d[base%d] = ", on, o, o);
    cu_put_result(t, p, k);
    cu_put(t, ";\n");
  }
}

/* Begins the loop over rows: r, and which of `team` threads this is. */
static void open_rows(cu_text *t, cu_way way, int threads) {
  if (way == CU_WARP)
    cu_put(t,
           "const pos me = THREAD %% 32, team = 32;\n"
           "for (pos r = (pos)BLOCK * %d + THREAD / 32; r < (pos)a.rows; r += (pos)BLOCKS * %d) {\n",
           threads / 32, threads / 32);
  else if (way == CU_BLOCK)
    cu_put(t,
           "const pos me = THREAD, team = %d;\n"
           "for (pos r = BLOCK; r < (pos)a.rows; r += BLOCKS) {\n",
           threads);
  else /* lanes past the last row go along with it, and write nothing */
    cu_put(t,
           "const pos lane = THREAD %% 32, me = THREAD / 32, team = %d;\n"
           "for (pos first = (pos)BLOCK * 32; first < (pos)a.rows; first += (pos)BLOCKS * 32) {\n"
           "const int on = first + lane < (pos)a.rows;\n"
           "const pos r = on ? first + lane : (pos)a.rows - 1;\n",
           threads / 32);
  cu_put(t, "(void)team;\n");
}

static void declare_rooms(cu_text *t, const cu_layout *p) {
  int n = p->way == CU_COLUMN ? p->threads : 32;
  for (int i = 0; i < p->c->steps && p->way != CU_WARP; i++) {
    const cu_step *s = &p->c->step[i];
    if (!fold_of(s->op)) continue;
    cu_put(t, "SHARED(%s, room%d, %d);\n", type_of(s), i, n);
    if (fold_of(s->op)->place) cu_put(t, "SHARED(i64, place%d, %d);\n", i, n);
  }
}

/* What was folded of a part, to memory: values of 8 bytes, [value][row][part]. */
static void put_parts(cu_text *t, const cu_layout *p, const char *on) {
  int at = 0;
  cu_put(t, "%s{\nconst i64 my = (i64)r * a.parts + BLOCK_Y, all = a.rows * a.parts;\n(void)all;\n", on);
  for (int i = 0; i < p->c->steps; i++) {
    const cu_step *s = &p->c->step[i];
    if (!fold_of(s->op)) continue;
    cu_put(t, "*(%s *)(a.room + %d * all + my) = f%d;\n", type_of(s), at++, i);
    if (fold_of(s->op)->place) cu_put(t, "*(i64 *)(a.room + %d * all + my) = at%d;\n", at++, i);
  }
  cu_put(t, "}\n");
}

/* The second kernel: joins parts, a warp for each row. */
static void write_finish(cu_text *t, const cu_layout *p) {
  int at = 0;
  cu_put(t, "KERNEL(256, finish)(chain_arguments a) {\n");
  cu_put_constants(t, p);
  open_rows(t, CU_WARP, 256);
  put_bases(t, p);
  cu_put(t, "const i64 all = a.rows * a.parts;\n(void)all;\n");
  for (int i = 0; i < p->c->steps; i++) {
    const cu_step *s = &p->c->step[i];
    const struct fold *f = fold_of(s->op);
    char value[96], place[96];
    if (!f) continue;
    snprintf(value, sizeof value, "*(const %s *)(a.room + %d * all + (i64)r * a.parts + k)", type_of(s),
             at++);
    if (f->place)
      snprintf(place, sizeof place, "*(const i64 *)(a.room + %d * all + (i64)r * a.parts + k)", at++);
    cu_put(t, "%s f%d = %s;\n", type_of(s), i, keep_of(s)->start);
    if (f->place) cu_put(t, "i64 at%d = 0;\n", i);
    cu_put(t, "for (i64 k = me; k < a.parts; k += 32) {\nconst %s b = %s;\n", type_of(s), value);
    if (f->place) cu_put(t, "const i64 bp = %s;\n", place);
    put_join(t, f, i, "b", "bp");
    cu_put(t, "}\n");
    put_joined(t, p, CU_WARP, i);
  }
  put_known(t, p, 1);
  put_row_results(t, p, "if (me == 0) ");
  cu_put(t, "}\n}\n");
}

void cu_chain_write_rows(cu_text *t, const cu_layout *p) {
  const char *on = p->way == CU_COLUMN ? "if (on && me == 0) " : "if (me == 0) ";
  cu_put(t, "KERNEL(%d, chain)(chain_arguments a) {\n", p->threads);
  declare_rooms(t, p);
  cu_put_constants(t, p);
  if (p->split)
    cu_put(t, "const pos begin = (pos)BLOCK_Y * (pos)a.chunk;\n"
              "const pos end = begin + (pos)a.chunk < (pos)a.cols ? begin + (pos)a.chunk : (pos)a.cols;\n");
  else
    cu_put(t, "const pos begin = 0, end = (pos)a.cols;\n");
  cu_put(t, "(void)begin, (void)end;\n");
  open_rows(t, p->way, p->threads);
  put_bases(t, p);
  if (p->held) {
    char array[16];
    snprintf(array, sizeof array, "[%d]", p->held);
    declare(t, p, p->keeps, array);
    cu_put(t, "#pragma unroll\nfor (int h = 0; h < %d; h++) {\n", p->held);
    cu_put(t, "const pos j = ((pos)h * team + me) * %d;\nif (j < (pos)a.cols) {\n", p->vector);
    put_row_indices(t, p);
    put_reads(t, p, p->keeps, "[h]");
    cu_put(t, "}\n}\n");
  }
  for (int pass = 1; pass <= p->levels; pass++) {
    put_pass(t, p, pass);
    if (!p->split) put_known(t, p, pass);
  }
  if (p->split) {
    put_parts(t, p, on);
  } else {
    put_element_results(t, p, p->way == CU_COLUMN ? "if (on) " : "");
    put_row_results(t, p, on);
  }
  cu_put(t, "}\n}\n");
  if (p->split) write_finish(t, p);
}
