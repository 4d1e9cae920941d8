/* Elements and elementwise values as device source: what core/element.h and core/kernels/elementwise.def say,
 * as text. Values are computed in four types, those of kn_dtypes[].wide: u8, i64, float, double. */
#ifndef KN_CUDA_FORMULA_H
#define KN_CUDA_FORMULA_H
#include "backends/cuda/kernel.h"
#include "core/op.h"

/* core/kernels/formula_int.h and its like, made while building. */
extern const char cu_text_formula_int[], cu_text_formula_float[], cu_text_special[];

typedef struct cu_element {
  const char *name;  /* in names: "f16" */
  const char *type;  /* of an element in memory: "u16" */
  const char *value; /* of it as a value: "float" */
} cu_element;
extern const cu_element cu_elements[KN_DTYPE_COUNT];

/* What casts need; once in a source that has any. */
extern const char cu_cast_text[];
/* Expressions of `x`. An element of memory as a value, exactly. */
void cu_put_get(cu_text *t, kn_dtype d, const char *x);
/* A value of dtype `from` as an element of `to`: what `cast` means. */
void cu_put_cast(cu_text *t, kn_dtype from, kn_dtype to, const char *x);
/* A value of dtype `from` as an op that computes in `as` sees it, in the value type of `as`: rounded to a
 * half, but no integer narrowed. */
void cu_put_as(cu_text *t, kn_dtype from, kn_dtype as, const char *x);

/* How an elementwise op sees its inputs. */
typedef enum cu_formula_kind {
  CU_FORMULA_NONE,    /* no elementwise op */
  CU_FORMULA_PLAIN,   /* all as the result's dtype */
  CU_FORMULA_COMPARE, /* as the dtype that they promote to; the result is bool */
  CU_FORMULA_TEST,    /* as its own dtype; the result is bool */
  CU_FORMULA_ORDER,   /* y: a number of the attributes, as int64 */
  CU_FORMULA_LIMIT,   /* y, z: numbers of the attributes, in the value type of the result */
  CU_FORMULA_CHOOSE,  /* x as bool */
  CU_FORMULA_MOVE     /* a cast */
} cu_formula_kind;
cu_formula_kind cu_formula_kind_of(kn_op op);
/* Its arguments, those of attributes included; whether it computes in this type (a `wide` one). */
int cu_formula_arity(kn_op op);
bool cu_formula_has(kn_op op, kn_dtype wide);
/* Which of the texts above it needs: bits. */
enum { CU_NEEDS_INT = 1, CU_NEEDS_FLOAT = 2, CU_NEEDS_SPECIAL = 4 };
unsigned cu_formula_needs(kn_op op, kn_dtype wide);
void cu_put_needs(cu_text *t, unsigned needs);
/* The function op_NAME_TYPE(x[, y[, z]]). */
void cu_put_formula(cu_text *t, kn_op op, kn_dtype wide);
/* The dtype that an op on such inputs with such a result computes in, before it is made wide. */
kn_dtype cu_formula_as(kn_op op, const kn_type *in, int n, kn_dtype result);

#endif
