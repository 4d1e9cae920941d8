/* What the op table expands to. Questions about an op are asked of its row. */
#ifndef KN_OP_H
#define KN_OP_H
#include "core/attrs.h"
#include "core/tensor.h"

typedef enum kn_op {
#define OP(name, ...) KN_OP_##name,
#define COMPOSITE(name, ...) KN_OP_##name,
#include "core/ops.def"
#undef OP
#undef COMPOSITE
  KN_OP_COUNT
} kn_op;

/* clang-format off */
typedef enum kn_class {
  KN_CLASS_ELEMENTWISE, KN_CLASS_REDUCE, KN_CLASS_SOFTMAX, KN_CLASS_MATMUL, KN_CLASS_CONV, KN_CLASS_POOL,
  KN_CLASS_RECURRENT, KN_CLASS_ATTENTION, KN_CLASS_LINALG, KN_CLASS_VIEW, KN_CLASS_MOVE, KN_CLASS_INDEX,
  KN_CLASS_CREATE, KN_CLASS_RANDOM, KN_CLASS_HOST, KN_CLASS_COMPOSITE
} kn_class;

enum {
  KN_FLAG_SCALARS = 1, KN_FLAG_RANDOM = 2, KN_FLAG_DYNAMIC = 4, KN_FLAG_RAISES = 8, KN_FLAG_WRITES = 16,
  KN_FLAG_WIDE = 32, KN_FLAG_EARLY = 64, KN_FLAG_HOLES = 128, KN_FLAG_LINALG = 256,
  KN_FLAG_ONCE = 512, KN_FLAG_OVER = 1024, KN_FLAG_DEVICE = 2048,
  KN_FLAG_LOW = 4096, KN_FLAG_FULL = 8192, KN_FLAG_ALIKE = 16384
};
/* clang-format on */
enum { KN_VARIADIC = 255, KN_MAX_INPUTS = 64, KN_MAX_OUTPUTS = 4 };

/* A kernel computes an op on real tensors. For class VIEW, out[i] comes without storage and the kernel makes
 * it a view (kn_tensor_set_view); for DYNAMIC rows it comes without storage and with unknown sizes, and the
 * kernel gives both (kn_tensor_allocate) once it has counted; otherwise out[i] is contiguous and to be
 * filled. WRITES kernels get out[0] as an alias of in[0]. Optional providers may answer KN_DECLINED before
 * touching anything. */
typedef kn_status (*kn_kernel_fn)(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                                  kn_tensor *const *out);

/* A composite calls other ops; out[] receives owned tensors. */
typedef kn_status (*kn_composite_fn)(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                                     kn_tensor **out);

/* A shape and dtype rule. Sizes may be symbolic; unknown sizes pass checks, which are made again when a plan
 * knows them. On success out[0 … outs) are set; devices are the caller's, but for rows with the flag DEVICE.
 * Errors name op and types. */
typedef struct kn_infer {
  kn_context *ctx;
  kn_op op;
  const void *attrs;
  const kn_type *in;
  int n;
  kn_type *out;
} kn_infer;
typedef kn_status (*kn_infer_fn)(const kn_infer *q);

struct kn_vjp; /* core/grad/vjp.h */
typedef void (*kn_vjp_fn)(struct kn_vjp *v);
void kn_vjp_not_differentiable(struct kn_vjp *v); /* the rule of NOT rows: fails */
enum { KN_SAVE_INPUTS = 1, KN_SAVE_OUTPUTS = 2 }; /* whose values a rule reads; sizes are always there */

typedef struct kn_op_info {
  const char *name;
  uint8_t min_in, max_in, outs; /* max_in may be KN_VARIADIC */
  kn_class op_class;
  kn_attrs_kind attrs;
  kn_infer_fn infer;         /* NULL for composites */
  kn_kernel_fn kernel;       /* the reference kernel; NULL for composites */
  kn_vjp_fn vjp;             /* NULL: no gradient flows */
  unsigned saves;            /* KN_SAVE_* */
  kn_composite_fn composite; /* NULL for primitives */
  unsigned flags;
  const char *metamethod; /* "" when none */
  const char *doc;
} kn_op_info;

extern const kn_op_info kn_ops[KN_OP_COUNT];

static inline const char *kn_op_name(kn_op op) { return kn_ops[op].name; }
static inline bool kn_op_is_host(kn_op op) { return kn_ops[op].op_class == KN_CLASS_HOST; }
static inline bool kn_op_is_effect(kn_op op) { return kn_ops[op].flags & (KN_FLAG_RANDOM | KN_FLAG_WRITES); }
bool kn_op_parse(const char *name, kn_op *out);

/* Other names of rows, ended by a NULL name. */
typedef struct kn_op_alias {
  const char *name;
  kn_op op;
} kn_op_alias;
extern const kn_op_alias kn_op_aliases[];
kn_op kn_op_form(kn_op op); /* the row of its FORM; KN_OP_COUNT: it has none */

/* Prototypes of everything a row may promise. */
#define OP(name, min, max, outs, cls, attrs, infer, vjp, flags, meta, doc)                                   \
  kn_status kn_infer_##infer(const kn_infer *q);                                                             \
  kn_status kn_kernel_##name(kn_context *, const void *, kn_tensor *const *, int, kn_tensor *const *);       \
  void kn_vjp_##name(struct kn_vjp *v);
#define COMPOSITE(name, ...)                                                                                 \
  kn_status kn_composite_##name(kn_context *, const void *, kn_tensor *const *, int, kn_tensor **);
#include "core/ops.def"
#undef OP
#undef COMPOSITE

#endif
