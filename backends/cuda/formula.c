/* Elements and elementwise values as device source: see formula.h. */
#include "backends/cuda/formula.h"
#include "core/infer.h"
#include <string.h>

/* ---- elements ---- */

const cu_element cu_elements[KN_DTYPE_COUNT] = {
    [KN_BOOL] = {"bool", "u8", "u8"},     [KN_U8] = {"u8", "u8", "i64"},
    [KN_I8] = {"i8", "i8", "i64"},        [KN_I16] = {"i16", "i16", "i64"},
    [KN_I32] = {"i32", "i32", "i64"},     [KN_I64] = {"i64", "i64", "i64"},
    [KN_F16] = {"f16", "u16", "float"},   [KN_BF16] = {"bf16", "u16", "float"},
    [KN_F32] = {"f32", "float", "float"}, [KN_F64] = {"f64", "double", "double"},
};

const char cu_cast_text[] = /* floats out of range give the nearest integer, nan gives 0 */
    "DEVICE i64 i64_of_f64(double x) {\n"
    "  if (x >= 0x1p63) return 0x7fffffffffffffff;\n"
    "  if (x < -0x1p63) return -0x7fffffffffffffff - 1;\n"
    "  return x == x ? (i64)x : 0;\n"
    "}\n"
    "DEVICE double whole_f64(double x, double low, double high) {\n"
    "  x = x == x ? x : 0;\n"
    "  return x < low ? low : x > high ? high : x;\n"
    "}\n";

static kn_dtype wide(kn_dtype d) { return kn_dtypes[d].wide; }
static bool whole(kn_dtype d) { return !kn_dtype_is_float(d); }

void cu_put_get(cu_text *t, kn_dtype d, const char *x) {
  if (d == KN_F16 || d == KN_BF16)
    cu_put(t, "f32_of_%s(%s)", cu_elements[d].name, x);
  else if (d == KN_BOOL)
    cu_put(t, "(u8)(%s != 0)", x);
  else
    cu_put(t, "(%s)%s", cu_elements[d].value, x);
}

void cu_put_cast(cu_text *t, kn_dtype from, kn_dtype to, const char *x) {
  kn_dtype by = wide(from);
  const char *type = cu_elements[to].type;
  if (to == KN_BOOL)
    cu_put(t, "(u8)(%s != 0)", x);
  else if (to == KN_F16 || to == KN_BF16)
    cu_put(t, by == KN_F32 ? "%s_of_f32(%s)" : "%s_of_f64((double)%s)", cu_elements[to].name, x);
  else if (kn_dtype_is_float(to) || whole(from))
    cu_put(t, "(%s)%s", type, x);
  else if (to == KN_I64)
    cu_put(t, "i64_of_f64((double)%s)", x);
  else
    cu_put(t, "(%s)whole_f64((double)%s, %lld.0, %lld.0)", type, x, (long long)kn_dtypes[to].lowest,
           (long long)kn_dtypes[to].highest);
}

void cu_put_as(cu_text *t, kn_dtype from, kn_dtype as, const char *x) {
  bool narrows = from != as && as != wide(as) && !(whole(from) && whole(as));
  if (!narrows && cu_elements[from].value == cu_elements[as].value) {
    cu_put(t, "%s", x);
  } else if (narrows) { /* into a half and out of it, or a float into a narrow integer */
    cu_text inner = {.heap = t->heap};
    cu_put(&inner, "(");
    cu_put_cast(&inner, from, as, x);
    cu_put(&inner, ")");
    if (inner.failed)
      t->failed = true;
    else
      cu_put_get(t, as, inner.s);
    cu_text_free(&inner);
  } else {
    cu_put_cast(t, from, wide(as), x);
  }
}

/* ---- values ---- */

typedef struct formula {
  cu_formula_kind kind;
  int arity;
  const char *value[KN_DTYPE_COUNT]; /* by the type computed in; NULL: not in that */
} formula;

#define FLOATS(single, wide) [KN_F32] = single, [KN_F64] = wide
#define NUMBERS(integer, single, wide) [KN_I64] = integer, FLOATS(single, wide)
#define ALL(boolean, integer, floating) [KN_BOOL] = boolean, NUMBERS(integer, floating, floating)
#define ROW(name, kind, arity, ...) [KN_OP_##name] = {CU_FORMULA_##kind, arity, {__VA_ARGS__}},
#define UNARY_FLOAT(name, value) ROW(name, PLAIN, 1, FLOATS(#value, #value))
#define UNARY_NUMBER(name, integer, floating) ROW(name, PLAIN, 1, NUMBERS(#integer, #floating, #floating))
#define UNARY_ALL(name, boolean, integer, floating) ROW(name, PLAIN, 1, ALL(#boolean, #integer, #floating))
#define UNARY_BITS(name, boolean, integer) ROW(name, PLAIN, 1, [KN_BOOL] = #boolean, [KN_I64] = #integer)
#define BINARY_FLOAT(name, value) ROW(name, PLAIN, 2, FLOATS(#value, #value))
#define BINARY_NUMBER(name, integer, floating) ROW(name, PLAIN, 2, NUMBERS(#integer, #floating, #floating))
#define BINARY_ALL(name, boolean, integer, floating) ROW(name, PLAIN, 2, ALL(#boolean, #integer, #floating))
#define BINARY_BITS(name, value) ROW(name, PLAIN, 2, [KN_BOOL] = #value, [KN_I64] = #value)
#define BINARY_INT(name, value) ROW(name, PLAIN, 2, [KN_I64] = #value)
#define CHECKED(name, check, integer, single, wide) ROW(name, PLAIN, 2, NUMBERS(#integer, #single, #wide))
#define COMPARE(name, value) ROW(name, COMPARE, 2, ALL(#value, #value, #value))
#define TEST(name, value) ROW(name, TEST, 1, ALL("0", "0", #value))
#define ORDER(name, value) ROW(name, ORDER, 2, FLOATS(#value, #value))
#define LIMIT(name, integer, single, wide) ROW(name, LIMIT, 3, NUMBERS(#integer, #single, #wide))
#define CHOOSE(name, value) ROW(name, CHOOSE, 3, ALL(#value, #value, #value))
#define MOVE(name) ROW(name, MOVE, 1, ALL("x", "x", "x"))
static const formula formulas[KN_OP_COUNT] = {
#include "core/kernels/elementwise.def"
};

cu_formula_kind cu_formula_kind_of(kn_op op) { return formulas[op].kind; }
int cu_formula_arity(kn_op op) { return formulas[op].arity; }
bool cu_formula_has(kn_op op, kn_dtype d) { return formulas[op].value[d] != NULL; }

unsigned cu_formula_needs(kn_op op, kn_dtype d) {
  const char *value = formulas[op].value[d];
  unsigned needs = 0;
  if (strstr(value, "kk_")) needs |= d == KN_I64 ? CU_NEEDS_INT : CU_NEEDS_INT | CU_NEEDS_FLOAT;
  if (strstr(value, "ks_")) needs |= CU_NEEDS_SPECIAL;
  return needs;
}

/* What the texts take from the headers of C. */
static const char formula_text[] = "#ifdef __CUDACC__\n"
                                   "#define FORMULA static __device__\n"
                                   "#define FORMULA_TABLE static __device__ const\n"
                                   "#define INFINITY INF_F32\n"
                                   "#define NAN NAN_F32\n"
                                   "typedef i64 int64_t;\n"
                                   "typedef u64 uint64_t;\n"
                                   "#else\n"
                                   "#include <stdint.h>\n"
                                   "#define FORMULA static\n"
                                   "#define FORMULA_TABLE static const\n"
                                   "#endif\n";

void cu_put_needs(cu_text *t, unsigned needs) {
  if (!needs) return;
  cu_put(t, "%s", formula_text);
  if (needs & CU_NEEDS_INT) cu_put(t, "%s", cu_text_formula_int);
  if (needs & CU_NEEDS_FLOAT) cu_put(t, "%s", cu_text_formula_float);
  if (needs & CU_NEEDS_SPECIAL) cu_put(t, "%s", cu_text_special);
}

/* The type of argument k of a formula that computes in d. */
static const char *argument(const formula *f, kn_dtype d, int k) {
  if (f->kind == CU_FORMULA_ORDER && k == 1) return "i64";
  return f->kind == CU_FORMULA_CHOOSE && k == 0 ? "u8" : cu_elements[d].value;
}

void cu_put_formula(cu_text *t, kn_op op, kn_dtype d) {
  const formula *f = &formulas[op];
  bool boolean = f->kind == CU_FORMULA_COMPARE || f->kind == CU_FORMULA_TEST;
  const char *result = boolean ? "u8" : cu_elements[d].value;
  cu_put(t, "DEVICE %s op_%s_%s(%s x", result, kn_op_name(op), cu_elements[d].name, argument(f, d, 0));
  for (int k = 1; k < f->arity; k++)
    cu_put(t, ", %s %s", argument(f, d, k), f->kind == CU_FORMULA_ORDER ? "n" : k == 1 ? "y" : "z");
  cu_put(t, ") { return (%s)(%s); }\n", result, f->value[d]);
}

kn_dtype cu_formula_as(kn_op op, const kn_type *in, int n, kn_dtype result) {
  switch (formulas[op].kind) {
  case CU_FORMULA_COMPARE: return n == 2 ? kn_promote_types(&in[0], &in[1]) : (kn_dtype)in[0].dtype;
  case CU_FORMULA_TEST: return (kn_dtype)in[0].dtype;
  default: return result;
  }
}
