/* The source of a chain: arguments, functions, values, and kernels without folds. */
#include "backends/cuda/chain_layout.h"
#include <stdarg.h>
#include <stdio.h>

static const cu_element *element(const cu_layout *p, int o) {
  return &cu_elements[cu_operand_of(p, o)->dtype];
}
static const char *value_type(kn_dtype d) { return cu_elements[d].value; }
static int size_of(const cu_layout *p, int o) { return (int)kn_dtype_size(cu_operand_of(p, o)->dtype); }
static bool placed(cu_lie lie) { return lie != CU_NUMBER && lie != CU_ONE && lie != CU_SAME; }

/* ---- arguments ---- */

int cu_chain_arguments(const cu_layout *p, CUdeviceptr room, uint64_t *slot, cu_text *t) {
  int n = 0;
#define SLOT(value, ...)                                                                                     \
  do {                                                                                                       \
    if (t) cu_put(t, "  " __VA_ARGS__);                                                                      \
    slot[n++] = (uint64_t)(value);                                                                           \
  } while (0)
  if (t) cu_put(t, "typedef struct chain_arguments {\n");
  for (int o = 0; o < CU_OPERANDS; o++) {
    if (!cu_operand_is(p, o)) continue;
    const cu_operand *x = cu_operand_of(p, o);
    if (p->lie[o] == CU_NUMBER)
      SLOT(x->bits, "%s p%d[%d];\n", element(p, o)->type, o, 8 / size_of(p, o));
    else
      SLOT(x->at, "%s%s *p%d;\n", o < CU_CHAIN_INPUTS ? "const " : "", element(p, o)->type, o);
    for (int d = 0; placed(p->lie[o]) && d < p->rank; d++) SLOT(p->strides[o][d], "i64 s%d_%d;\n", o, d);
  }
  for (int d = 0; d < p->rank; d++) SLOT(p->dims[d], "i64 d%d;\n", d);
  SLOT(p->rows, "i64 rows;\n");
  SLOT(p->cols, "i64 cols;\n");
  SLOT(p->parts, "i64 parts;\n");
  SLOT(p->chunk, "i64 chunk;\n");
  SLOT(room, "u64 *room;\n");
  if (t) cu_put(t, "} chain_arguments;\n");
  return n;
#undef SLOT
}

/* ---- values ---- */

bool cu_value_per_row(const cu_layout *p, int value) {
  if (value >= CU_STEP) return p->per_row[value - CU_STEP];
  return p->lie[value] == CU_NUMBER || p->lie[value] == CU_ONE || (p->over && p->lie[value] == CU_STILL);
}

void cu_want(const cu_layout *p, int value, cu_wanted *w) {
  if (p->over && cu_value_per_row(p, value)) return;
  if (value < CU_STEP) {
    w->inputs |= UINT32_C(1) << value;
    return;
  }
  w->steps |= UINT64_C(1) << (value - CU_STEP);
  for (int i = value - CU_STEP; i >= 0; i--) /* steps read what stands before them */
    if (w->steps >> i & 1)
      for (int k = 0; k < p->c->step[i].n; k++) {
        int from = p->c->step[i].in[k];
        if (p->over && cu_value_per_row(p, from)) continue;
        if (from < CU_STEP)
          w->inputs |= UINT32_C(1) << from;
        else
          w->steps |= UINT64_C(1) << (from - CU_STEP);
      }
}

static bool narrow(kn_dtype d) { return kn_dtypes[d].wide != d; }

/* Its variable, rounded to its dtype. */
static const char *name_of(const cu_layout *p, int value, char name[16]) {
  int i = value - CU_STEP;
  if (i < 0)
    snprintf(name, 16, "x%d", value);
  else
    snprintf(name, 16, "%c%d", narrow(p->c->step[i].dtype) ? 'r' : 't', i);
  return name;
}

void cu_put_value(cu_text *t, const cu_layout *p, int value, kn_dtype as) {
  char name[16];
  cu_put_as(t, cu_chain_dtype(p->c, value), as, name_of(p, value, name));
}

void cu_put_input(cu_text *t, const cu_layout *p, int input, const char *format, ...) {
  char place[128];
  va_list list;
  kn_dtype d = p->c->input[input].dtype;
  va_start(list, format);
  vsnprintf(place, sizeof place, format, list);
  va_end(list);
  cu_put(t, "const %s x%d = ", value_type(d), input);
  cu_put_get(t, d, place);
  cu_put(t, ";\n");
}

void cu_put_constants(cu_text *t, const cu_layout *p) {
  for (int k = 0; k < p->c->inputs; k++)
    if (p->lie[k] == CU_NUMBER || p->lie[k] == CU_ONE) cu_put_input(t, p, k, "a.p%d[0]", k);
}

/* "t5": as it was computed; "r5": rounded to its dtype, where that is narrower. */
static void put_rounded(cu_text *t, const cu_layout *p, int i, kn_dtype from, const char *x) {
  kn_dtype d = p->c->step[i].dtype;
  cu_put(t, "const %s e%d = ", cu_elements[d].type, i);
  cu_put_cast(t, from, d, x);
  cu_put(t, ";\nconst %s r%d = ", value_type(d), i);
  char made[16];
  snprintf(made, sizeof made, "e%d", i);
  cu_put_get(t, d, made);
  cu_put(t, ";\n");
}

void cu_put_step(cu_text *t, const cu_layout *p, int i) {
  const cu_step *s = &p->c->step[i];
  cu_formula_kind kind = cu_formula_kind_of(s->op);
  kn_dtype wide = kn_dtypes[s->as].wide;
  char name[16];
  if (kind == CU_FORMULA_MOVE) {
    kn_dtype from = cu_chain_dtype(p->c, s->in[0]);
    name_of(p, s->in[0], name);
    if (narrow(s->dtype)) {
      put_rounded(t, p, i, from, name);
      return;
    }
    cu_put(t, "const %s t%d = ", value_type(s->dtype), i);
    if (from == s->dtype)
      cu_put(t, "%s", name);
    else
      cu_put_cast(t, from, s->dtype, name);
    cu_put(t, ";\n");
    return;
  }
  kn_dtype made = kind == CU_FORMULA_COMPARE || kind == CU_FORMULA_TEST ? KN_BOOL : wide;
  cu_put(t, "const %s t%d = op_%s_%s(", value_type(made), i, kn_op_name(s->op), cu_elements[wide].name);
  for (int k = 0; k < s->n; k++) {
    bool own = kind == CU_FORMULA_LIMIT && k > 0; /* bounds are not rounded */
    kn_dtype as = kind == CU_FORMULA_CHOOSE && k == 0 ? KN_BOOL : own ? wide : s->as;
    if (kind == CU_FORMULA_ORDER && k == 1) as = KN_I64;
    if (k) cu_put(t, ", ");
    cu_put_value(t, p, s->in[k], as);
  }
  cu_put(t, ");\n");
  if (narrow(s->dtype)) {
    snprintf(name, sizeof name, "t%d", i);
    put_rounded(t, p, i, made, name);
  }
}

void cu_put_steps(cu_text *t, const cu_layout *p, const cu_wanted *w) {
  for (int i = 0; i < p->c->steps; i++)
    if (w->steps >> i & 1) cu_put_step(t, p, i);
}

void cu_put_result(cu_text *t, const cu_layout *p, int k) {
  int value = p->c->value[k];
  kn_dtype d = cu_chain_dtype(p->c, value), to = p->c->output[k].dtype;
  char name[16];
  name_of(p, value, name);
  if (name[0] == 'r' && d == to)
    cu_put(t, "e%s", name + 1);
  else
    cu_put_cast(t, d, to, name);
}

/* ---- places ---- */

void cu_put_indices(cu_text *t, int first, int end, const char *count, int units) {
  for (int d = end - 1; d >= first; d--) {
    int each = d == end - 1 ? units : 1;
    char size[48], times[16] = "";
    snprintf(size, sizeof size, each > 1 ? "((pos)a.d%d / %d)" : "(pos)a.d%d", d, each);
    if (each > 1) snprintf(times, sizeof times, " * %d", each);
    if (d > first)
      cu_put(t, "const pos c%d = %s %% %s%s;\n%s /= %s;\n", d, count, size, times, count, size);
    else
      cu_put(t, "const pos c%d = %s%s;\n", d, count, times);
  }
}

void cu_put_place(cu_text *t, const cu_layout *p, int o, int first, int end) {
  for (int d = first; d < end; d++) {
    if (d == p->rank - 1 && p->lie[o] == CU_NEAR)
      cu_put(t, " + c%d", d);
    else
      cu_put(t, " + c%d * (pos)a.s%d_%d", d, o, d);
  }
}

static int words(int bytes) { return bytes > 16 ? bytes / 16 : 1; }

static const char *word(int bytes) {
  return bytes >= 16 ? "v16" : bytes == 8 ? "u64" : bytes == 4 ? "u32" : bytes == 2 ? "u16" : "u8";
}

void cu_put_vector(cu_text *t, const cu_layout *p, int o, const char *name, const char *place) {
  int bytes = size_of(p, o) * p->vector;
  for (int w = 0; w < words(bytes); w++)
    if (o < CU_CHAIN_INPUTS)
      cu_put(t, "%s.w[%d] = ((const %s *)(a.p%d + %s))[%d];\n", name, w, word(bytes), o, place, w);
    else
      cu_put(t, "((%s *)(a.p%d + %s))[%d] = %s.w[%d];\n", word(bytes), o, place, w, name, w);
}

/* ---- kernels without folds ---- */

/* One vector of elements, or one element: reads, steps, writes. Places of operands are in at0 …, or `i`. */
static void put_body(cu_text *t, const cu_layout *p, int vector) {
  char place[CU_OPERANDS][32], name[16];
  cu_wanted all = {0, 0};
  for (int k = 0; k < p->c->outputs; k++) cu_want(p, p->c->value[k], &all);
  for (int o = 0; o < CU_OPERANDS; o++)
    snprintf(place[o], sizeof place[o],
             placed(p->lie[o]) ? "at%d"
             : vector > 1      ? "i * %d"
                               : "i",
             placed(p->lie[o]) ? o : vector);
  for (int o = 0; o < CU_OPERANDS; o++)
    if (cu_operand_is(p, o) && placed(p->lie[o])) {
      cu_put(t, "const pos at%d = 0", o);
      cu_put_place(t, p, o, 0, p->lie[o] == CU_STILL ? p->rank - 1 : p->rank);
      cu_put(t, ";\n");
    }
  for (int k = 0; k < p->c->inputs; k++) {
    if (p->lie[k] == CU_STILL || (vector == 1 && p->lie[k] != CU_NUMBER && p->lie[k] != CU_ONE))
      cu_put_input(t, p, k, "a.p%d[%s]", k, place[k]);
    else if (p->lie[k] == CU_SAME || p->lie[k] == CU_NEAR) {
      snprintf(name, sizeof name, "in%d", k);
      cu_put(t, "vec_%s %s;\n", element(p, k)->name, name);
      cu_put_vector(t, p, k, name, place[k]);
    }
  }
  if (vector > 1) {
    for (int k = 0; k < p->c->outputs; k++)
      cu_put(t, "vec_%s out%d;\n", element(p, CU_CHAIN_INPUTS + k)->name, k);
    cu_put(t, "#pragma unroll\nfor (int e = 0; e < %d; e++) {\n", vector);
    for (int k = 0; k < p->c->inputs; k++) {
      if (p->lie[k] == CU_SAME || p->lie[k] == CU_NEAR) cu_put_input(t, p, k, "in%d.e[e]", k);
      if (p->lie[k] == CU_FAR)
        cu_put_input(t, p, k, "a.p%d[%s + (pos)e * (pos)a.s%d_%d]", k, place[k], k, p->rank - 1);
    }
  }
  cu_put_steps(t, p, &all);
  for (int k = 0; k < p->c->outputs; k++) {
    if (vector > 1)
      cu_put(t, "out%d.e[e] = ", k);
    else
      cu_put(t, "a.p%d[%s] = ", CU_CHAIN_INPUTS + k, place[CU_CHAIN_INPUTS + k]);
    cu_put_result(t, p, k);
    cu_put(t, ";\n");
  }
  if (vector == 1) return;
  cu_put(t, "}\n");
  for (int k = 0; k < p->c->outputs; k++) {
    int o = CU_CHAIN_INPUTS + k;
    snprintf(name, sizeof name, "out%d", k);
    if (p->lie[o] != CU_FAR) {
      cu_put_vector(t, p, o, name, place[o]);
      continue;
    }
    cu_put(t, "for (int e = 0; e < %d; e++) a.p%d[at%d + (pos)e * (pos)a.s%d_%d] = out%d.e[e];\n", vector, o,
           o, o, p->rank - 1, k);
  }
}

static void write_elements(cu_text *t, const cu_layout *p) {
  cu_put(t, "KERNEL(%d, chain)(chain_arguments a) {\n", p->threads);
  cu_put_constants(t, p);
  cu_put(t, "for (pos i = (pos)BLOCK * %d + THREAD; i < (pos)(a.cols / %d); i += (pos)BLOCKS * %d) {\n",
         p->threads, p->vector, p->threads);
  if (p->way == CU_LINES) {
    cu_put(t, "pos rest = i;\n");
    cu_put_indices(t, 0, p->rank, "rest", p->vector);
  }
  put_body(t, p, p->vector);
  cu_put(t, "}\n");
  if (p->way == CU_FLAT && p->vector > 1) { /* what is left of the last vector */
    cu_put(t,
           "for (pos i = (pos)(a.cols / %d) * %d + (pos)BLOCK * %d + THREAD; i < (pos)a.cols; i += "
           "(pos)BLOCKS * %d) {\n",
           p->vector, p->vector, p->threads, p->threads);
    put_body(t, p, 1);
    cu_put(t, "}\n");
  }
  cu_put(t, "}\n");
}

/* Tiles of 32 by 32 along the last dim and `turned`: first what lies along `turned` is read that way, then
 * all the rest along the last. */
static void write_tiles(cu_text *t, const cu_layout *p) {
  int last = p->rank - 1, side = p->turned;
  cu_put(t, "KERNEL(%d, chain)(chain_arguments a) {\n", p->threads);
  for (int k = 0; k < p->c->inputs; k++)
    if (p->lie[k] == CU_TURNED) cu_put(t, "SHARED(%s, tile%d, 32 * 33);\n", element(p, k)->type, k);
  cu_put_constants(t, p);
  cu_put(t,
         "const pos lane = THREAD %% 32, line = THREAD / 32;\n"
         "const pos across = ((pos)a.d%d + 31) / 32, down = ((pos)a.d%d + 31) / 32;\n"
         "for (pos b = BLOCK; b < (pos)a.rows; b += BLOCKS) {\n"
         "pos rest = b;\n"
         "const pos x0 = rest %% across * 32;\nrest /= across;\n"
         "const pos y0 = rest %% down * 32;\nrest /= down;\n",
         last, side);
  for (int d = last - 1; d >= 0; d--)
    if (d != side) cu_put(t, "const pos c%d = rest %% (pos)a.d%d;\nrest /= (pos)a.d%d;\n", d, d, d);
  for (int o = 0; o < CU_OPERANDS; o++) {
    if (!cu_operand_is(p, o) || !placed(p->lie[o])) continue;
    cu_put(t, "const pos base%d = 0", o);
    for (int d = 0; d < last; d++)
      if (d != side) cu_put(t, " + c%d * (pos)a.s%d_%d", d, o, d);
    cu_put(t, ";\n");
  }
  cu_put(t, "SYNC();\nfor (int k = 0; k < 32; k += %d) {\n", p->threads / 32);
  cu_put(t, "const pos x = x0 + line + k, y = y0 + lane;\nif (x < (pos)a.d%d && y < (pos)a.d%d) {\n", last,
         side);
  for (int k = 0; k < p->c->inputs; k++)
    if (p->lie[k] == CU_TURNED)
      cu_put(t, "tile%d[(line + k) * 33 + lane] = a.p%d[base%d + y + x * (pos)a.s%d_%d];\n", k, k, k, k,
             last);
  cu_put(t, "}\n}\nSYNC();\n#pragma unroll\nfor (int k = 0; k < 32; k += %d) {\n", p->threads / 32);
  cu_put(t, "const pos c%d = x0 + lane, c%d = y0 + line + k;\nif (c%d < (pos)a.d%d && c%d < (pos)a.d%d) {\n",
         last, side, last, last, side, side);
  for (int k = 0; k < p->c->inputs; k++) {
    if (p->lie[k] == CU_TURNED)
      cu_put_input(t, p, k, "tile%d[lane * 33 + line + k]", k);
    else if (placed(p->lie[k]))
      cu_put_input(t, p, k, "a.p%d[base%d + c%d * (pos)a.s%d_%d + c%d * (pos)a.s%d_%d]", k, k, side, k, side,
                   last, k, last);
  }
  cu_wanted all = {0, 0};
  for (int k = 0; k < p->c->outputs; k++) cu_want(p, p->c->value[k], &all);
  cu_put_steps(t, p, &all);
  for (int o = CU_CHAIN_INPUTS; cu_operand_is(p, o); o++) {
    cu_put(t, "a.p%d[base%d + c%d * (pos)a.s%d_%d + c%d * (pos)a.s%d_%d] = ", o, o, side, o, side, last, o,
           last);
    cu_put_result(t, p, o - CU_CHAIN_INPUTS);
    cu_put(t, ";\n");
  }
  cu_put(t, "}\n}\n}\n}\n");
}

/* ---- the whole ---- */

static void write_functions(cu_text *t, const cu_layout *p) {
  const cu_chain *c = p->c;
  unsigned needs = 0;
  bool vectors[KN_DTYPE_COUNT] = {false};
  cu_put(t, "typedef %s pos;\n%s", p->wide ? "i64" : "u32", cu_cast_text);
  for (int i = 0; i < c->steps; i++)
    if (cu_formula_kind_of(c->step[i].op))
      needs |= cu_formula_needs(c->step[i].op, kn_dtypes[c->step[i].as].wide);
  cu_put_needs(t, needs);
  for (int i = 0; i < c->steps; i++) {
    const cu_step *s = &c->step[i];
    cu_formula_kind kind = cu_formula_kind_of(s->op);
    bool done = !kind || kind == CU_FORMULA_MOVE;
    for (int k = 0; k < i; k++)
      done |= c->step[k].op == s->op && kn_dtypes[c->step[k].as].wide == kn_dtypes[s->as].wide;
    if (!done) cu_put_formula(t, s->op, kn_dtypes[s->as].wide);
  }
  for (int o = 0; (p->vector > 1 || p->over) && o < CU_OPERANDS; o++) {
    if (!cu_operand_is(p, o) || vectors[cu_operand_of(p, o)->dtype]) continue;
    int bytes = size_of(p, o) * p->vector;
    vectors[cu_operand_of(p, o)->dtype] = true;
    cu_put(t, "typedef union vec_%s { %s w[%d]; %s e[%d]; } vec_%s;\n", element(p, o)->name, word(bytes),
           words(bytes), element(p, o)->type, p->vector, element(p, o)->name);
  }
}

void cu_chain_write(void *plan, cu_text *t) {
  const cu_layout *p = plan;
  uint64_t slot[CU_CHAIN_SLOTS];
  write_functions(t, p);
  cu_chain_write_folds(t, p);
  cu_chain_arguments(p, 0, slot, t);
  if (p->way == CU_TILES)
    write_tiles(t, p);
  else if (p->way == CU_FLAT || p->way == CU_LINES)
    write_elements(t, p);
  else
    cu_chain_write_rows(t, p);
}
