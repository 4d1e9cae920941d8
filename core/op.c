/* The op table, as an array. */
#include "core/op.h"
#include "core/chosen.h"
#include <string.h>

#define V KN_VARIADIC
#ifdef KN_RUNTIME_ONLY /* graphs hold their gradients, and the parts of composites */
#define GRADIENT(rule) NULL
#define PARTS(name) NULL
#else
#define GRADIENT(rule) rule
#define PARTS(name) kn_composite_##name
#endif
#define D_I(name) GRADIENT(kn_vjp_##name), KN_SAVE_INPUTS
#define D_O(name) GRADIENT(kn_vjp_##name), KN_SAVE_OUTPUTS
#define D_IO(name) GRADIENT(kn_vjp_##name), KN_SAVE_INPUTS | KN_SAVE_OUTPUTS
#define D_S(name) GRADIENT(kn_vjp_##name), 0
#define ND(name) NULL, 0
#define NOT(name) GRADIENT(kn_vjp_not_differentiable), 0
#define SCALARS KN_FLAG_SCALARS
#define RANDOM KN_FLAG_RANDOM
#define DYNAMIC KN_FLAG_DYNAMIC
#define RAISES KN_FLAG_RAISES
#define WRITES KN_FLAG_WRITES
#define WIDE KN_FLAG_WIDE
#define EARLY KN_FLAG_EARLY
#define HOLES KN_FLAG_HOLES
#define LINALG KN_FLAG_LINALG
#define ONCE KN_FLAG_ONCE
#define OVER KN_FLAG_OVER
#define DEVICE KN_FLAG_DEVICE
#define LOW KN_FLAG_LOW
#define FULL KN_FLAG_FULL
#define ALIKE KN_FLAG_ALIKE

const kn_op_info kn_ops[KN_OP_COUNT] = {
/* clang-format off */
#define OP(name, min, max, outs, cls, attrs, infer, vjp, flags, meta, doc)                                   \
  [KN_OP_##name] = {#name, min, max, outs, KN_CLASS_##cls, KN_ATTRS_##attrs,                                 \
                    KN_IF_WITH(name, kn_infer_##infer), KN_IF_WITH(name, kn_kernel_##name), vjp(name), NULL, \
                    flags, meta, doc},
#define COMPOSITE(name, min, max, outs, attrs, flags, meta, doc)                                             \
  [KN_OP_##name] = {#name, min, max, outs, KN_CLASS_COMPOSITE, KN_ATTRS_##attrs, NULL, NULL, NULL, 0,        \
                    PARTS(name), flags, meta, doc},
#include "core/ops.def"
#undef OP
#undef COMPOSITE
    /* clang-format on */
};

const kn_op_alias kn_op_aliases[] = {
#define OP(name, ...)
#define COMPOSITE(name, ...)
#define ALIAS(name, op) {#name, KN_OP_##op},
#include "core/ops.def"
#undef OP
#undef COMPOSITE
    {NULL, (kn_op)0}};

kn_op kn_op_form(kn_op op) {
#define OP(name, ...)
#define COMPOSITE(name, ...)
#define FORM(name, row)                                                                                      \
  if (op == KN_OP_##name) return KN_OP_##row;
#include "core/ops.def"
#undef OP
#undef COMPOSITE
  return KN_OP_COUNT;
}

bool kn_op_parse(const char *name, kn_op *out) {
  for (int i = 0; i < KN_OP_COUNT; i++)
    if (!strcmp(kn_ops[i].name, name)) {
      *out = (kn_op)i;
      return true;
    }
  return false;
}
