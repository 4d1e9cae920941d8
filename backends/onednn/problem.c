/* From an op of the table to a oneDNN problem: shapes by the op's rules (already checked by inference),
 * layouts from the tensors, and the fixed rules of what is worth giving to oneDNN. */
#include "backends/onednn/problem.h"
#include "core/infer.h"
#include <stdio.h>
#include <string.h>

/* Below this many multiply-adds one thread is faster than waking another: measured on two cores, see README.
 */
enum { ONE_THREAD_WORK = 1 << 20 };
/* Pooling does little per element. */
enum { ONE_THREAD_ELEMENTS = 1 << 15 };

bool dn_offers(kn_op op) {
  static const bool offered[KN_OP_COUNT] = {
#define X(name, a, b, c, out) [KN_OP_##name] = true,
      DN_OPS(X)
#undef X
  };
  return op < KN_OP_COUNT && offered[op];
}

static bool no(char *why, size_t size, const char *text) {
  snprintf(why, size, "%s", text);
  return false;
}

static int64_t numel(const kn_type *t) { return kn_type_numel(t); }

/* Dense, last dimension fastest, with the stride a dimension of size 1 would have. */
static void dense(dn_layout *l, int rank, const int64_t *dims) {
  l->rank = rank;
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; i--) {
    l->dims[i] = dims[i];
    l->strides[i] = step;
    step *= dims[i];
  }
}

static bool contiguous(const dn_view *v) {
  int64_t step = 1;
  for (int i = v->type->rank - 1; i >= 0; i--) {
    if (v->type->dims[i] != 1 && v->strides[i] != step) return false;
    step *= v->type->dims[i];
  }
  return true;
}

/* ---- matmul ---- */

typedef struct matrix { /* the last two dimensions of an operand */
  int64_t rows, cols, row_stride, col_stride;
} matrix;

/* One of the two strides must be 1 and the other skip at least a whole line. A stride along a size of 1 is
 * free. */
static bool matrix_plain(matrix *m) {
  if (m->rows == 1 && m->cols == 1)
    m->row_stride = m->col_stride = 1;
  else if (m->cols == 1)
    m->col_stride = 1;
  else if (m->rows == 1)
    m->row_stride = m->cols;
  if (m->row_stride < 1 || m->col_stride < 1) return false;
  if (m->col_stride == 1) return m->row_stride >= m->cols;
  return m->row_stride == 1 && m->col_stride >= m->rows;
}

/* PyTorch's rank rules: a 1-d first operand is a row, a 1-d second one a column. */
static matrix matrix_of(const kn_type *t, const int64_t *strides, bool first) {
  int r = t->rank;
  if (r == 1 && first) return (matrix){1, t->dims[0], t->dims[0], strides[0]};
  if (r == 1) return (matrix){t->dims[0], 1, strides[0], 1};
  return (matrix){t->dims[r - 2], t->dims[r - 1], strides[r - 2], strides[r - 1]};
}

typedef struct batch_dim { /* of the result; a stride of 0 where an operand is broadcast */
  int64_t size, a, b, out;
} batch_dim;

/* The stride of an operand along batch dimension i of `count`; 0 when it is broadcast there. */
static int64_t batch_stride(const kn_type *t, const int64_t *strides, int i, int count) {
  int own = t->rank > 2 ? t->rank - 2 : 0, at = i - (count - own);
  return at < 0 || t->dims[at] == 1 ? 0 : strides[at];
}

/* Batch dimensions without those of size 1, neighbours joined where all three operands walk evenly over both.
 */
static int batches(const kn_type *at, const int64_t *as, const kn_type *bt, const int64_t *bs, batch_dim *d) {
  int ar = at->rank > 2 ? at->rank - 2 : 0, br = bt->rank > 2 ? bt->rank - 2 : 0, count = ar > br ? ar : br,
      n = 0;
  for (int i = 0; i < count; i++) {
    int ia = i - (count - ar), ib = i - (count - br);
    int64_t size = ia >= 0 ? at->dims[ia] : 1;
    if (size == 1 && ib >= 0) size = bt->dims[ib];
    if (size == 1) continue;
    batch_dim now = {size, batch_stride(at, as, i, count), batch_stride(bt, bs, i, count), 0};
    if (n && d[n - 1].a == now.a * size && d[n - 1].b == now.b * size) {
      now.size *= d[n - 1].size;
      n--;
    }
    d[n++] = now;
  }
  return n;
}

static void operand(dn_layout *l, const matrix *m, const batch_dim *d, int n, size_t stride_at) {
  l->rank = n + 2;
  for (int i = 0; i < n; i++) {
    int64_t s;
    memcpy(&s, (const char *)&d[i] + stride_at, sizeof s);
    l->dims[i] = s ? d[i].size : 1;
    l->strides[i] = s ? s : m->rows * m->cols;
  }
  l->dims[n] = m->rows, l->dims[n + 1] = m->cols;
  l->strides[n] = m->row_stride, l->strides[n + 1] = m->col_stride;
}

static void describe_matmul(const dn_view *in, dn_problem *p, unsigned *copy, double *work) {
  int64_t own[2][KN_MAX_RANK];
  const int64_t *s[2] = {in[0].strides, in[1].strides};
  matrix m[2];
  for (int i = 0; i < 2; i++) {
    m[i] = matrix_of(in[i].type, s[i], i == 0);
    if (matrix_plain(&m[i])) continue;
    *copy |= 1u << i;
    kn_strides_contiguous(in[i].type, own[i]);
    s[i] = own[i];
    m[i] = matrix_of(in[i].type, s[i], i == 0);
    matrix_plain(&m[i]);
  }
  batch_dim d[KN_MAX_RANK];
  int n = batches(in[0].type, s[0], in[1].type, s[1], d);
  for (int i = 0; i < n;
       i++) /* both expanded: oneDNN has no result larger than both, so one is written out */
    if (!d[i].a && !d[i].b) {
      *copy |= 1;
      kn_strides_contiguous(in[0].type, own[0]);
      m[0] = matrix_of(in[0].type, own[0], true);
      matrix_plain(&m[0]);
      n = batches(in[0].type, own[0], in[1].type, s[1], d);
      break;
    }
  matrix out = {m[0].rows, m[1].cols, m[1].cols, 1};
  int64_t step = out.rows * out.cols;
  for (int i = n - 1; i >= 0; i--) d[i].out = step, step *= d[i].size;
  /* One matrix for all batches of an evenly walked first operand: a single larger product. */
  if (n == 1 && !d[0].b && m[0].col_stride == 1 &&
      (m[0].rows == 1 ? d[0].a >= m[0].cols : d[0].a == m[0].rows * m[0].row_stride)) {
    if (m[0].rows == 1) m[0].row_stride = d[0].a;
    m[0].rows = out.rows = m[0].rows * d[0].size;
    n = 0;
  }
  operand(&p->arg[0], &m[0], d, n, offsetof(batch_dim, a));
  operand(&p->arg[1], &m[1], d, n, offsetof(batch_dim, b));
  operand(&p->arg[DN_OUT], &out, d, n, offsetof(batch_dim, out));
  *work = (double)step * (double)m[0].cols;
}

/* ---- conv2d and its gradients ---- */

static void image(dn_layout *l, const kn_type *t) { dense(l, 4, t->dims); }

bool dn_thinned(kn_op op, const void *attrs, const kn_type *weight, int64_t step[2]) {
  if (op != KN_OP_conv2d) return false;
  const kn_attrs_conv2d *a = attrs;
  bool any = a->groups == 1;
  for (int i = 0; i < 2; i++) {
    step[i] = kn_ints_at(&a->stride, i);
    any = any && weight->dims[2 + i] == 1 && kn_ints_at(&a->padding, i) == 0;
  }
  return any && (step[0] > 1 || step[1] > 1);
}

static void filter(dn_layout *l, const kn_type *t, int64_t groups) {
  const int64_t *d = t->dims;
  if (groups == 1)
    dense(l, 4, d);
  else
    dense(l, 5, (int64_t[]){groups, d[0] / groups, d[1], d[2], d[3]});
}

static void describe_conv(kn_op op, const kn_attrs_conv2d *a, const dn_view *in, int n, const kn_type *out,
                          dn_problem *p, double *work) {
  const kn_type *x = in[0].type, *w = in[1].type, *y = out;
  int64_t step[2];
  bool thin = dn_thinned(op, a, w, step);
  if (op == KN_OP_conv2d) {
    image(&p->arg[0], x);
    if (thin) dense(&p->arg[0], 4, (int64_t[]){x->dims[0], x->dims[1], y->dims[2], y->dims[3]});
    filter(&p->arg[1], w, a->groups);
    if (n > 2) dense(&p->arg[2], 1, in[2].type->dims);
    image(&p->arg[DN_OUT], y);
  } else if (op == KN_OP_conv2d_grad_input) {
    y = in[0].type, x = out;
    image(&p->arg[0], y);
    filter(&p->arg[1], w, a->groups);
    image(&p->arg[DN_OUT], x);
  } else {
    y = in[0].type, x = in[1].type, w = out;
    image(&p->arg[0], y);
    image(&p->arg[1], x);
    filter(&p->arg[DN_OUT], w, a->groups);
  }
  for (int i = 0; i < 2; i++) {
    p->stride[i] = thin ? 1 : kn_ints_at(&a->stride, i);
    p->padding[i] = kn_ints_at(&a->padding, i);
    p->dilation[i] = kn_ints_at(&a->dilation, i) - 1;
    p->kernel[i] = w->dims[2 + i];
  }
  /* Filters are put into oneDNN's layout on every call, which must pay: by the places that they are used at.
   */
  p->blocked =
      a->groups > 1 || (p->kernel[0] * p->kernel[1] > 1 &&
                        (op != KN_OP_conv2d || y->dims[0] * y->dims[2] * y->dims[3] >= DN_LEAST_PLACES));
  *work = (double)numel(y) * (double)w->dims[1] * (double)(p->kernel[0] * p->kernel[1]);
}

/* ---- pooling ---- */

/* Options that are left to the reference, and images without a batch. */
static bool plain_pool(kn_op op, const void *attrs, const kn_type *x) {
  if (x->rank != 4) return false;
  if (kn_ops[op].attrs == KN_ATTRS_pool2d) {
    const kn_attrs_pool2d *a = attrs;
    return !a->ceil_mode && kn_ints_at(&a->dilation, 0) == 1 && kn_ints_at(&a->dilation, 1) == 1;
  }
  const kn_attrs_avg_pool2d *a = attrs;
  return !a->ceil_mode && a->count_include_pad && a->divisor_override == 0;
}

static void describe_pool(kn_op op, const void *attrs, const dn_view *in, const kn_type *out, dn_problem *p,
                          double *elements) {
  const kn_attrs_pool2d *m = attrs;
  const kn_attrs_avg_pool2d *v = attrs;
  bool max = kn_ops[op].attrs == KN_ATTRS_pool2d;
  bool grad = op == KN_OP_avg_pool2d_grad;
  image(&p->arg[0], in[0].type);
  image(&p->arg[DN_OUT], out);
  for (int i = 0; i < 2; i++) {
    p->kernel[i] = kn_ints_at(max ? &m->kernel_size : &v->kernel_size, i);
    p->stride[i] = kn_ints_at(max ? &m->stride : &v->stride, i);
    if (!p->stride[i]) p->stride[i] = p->kernel[i];
    p->padding[i] = kn_ints_at(max ? &m->padding : &v->padding, i);
  }
  *elements = (double)numel(grad ? in[0].type : out) * (double)(p->kernel[0] * p->kernel[1]);
}

bool dn_describe(kn_op op, const void *attrs, const dn_view *in, int n, const kn_type *out, int threads,
                 dn_problem *p, unsigned *copy, char *why, size_t size) {
  memset(p, 0, sizeof *p);
  *copy = 0;
  for (int i = 0; i <= n; i++) {
    const kn_type *t = i < n ? in[i].type : out;
    if (t->dtype != KN_F32) {
      snprintf(why, size, "%s is not supported", kn_dtype_name((kn_dtype)t->dtype));
      return false;
    }
    int64_t count = numel(t);
    if (count < 0) return no(why, size, "sizes are only known when it runs");
    if (count == 0) return no(why, size, "a tensor without elements");
    if (t->rank == 0 && i < n) return no(why, size, "a tensor without dimensions");
  }
  if (kn_ops[op].op_class == KN_CLASS_POOL && !plain_pool(op, attrs, in[n - 1].type))
    return no(why, size, "ceil_mode, dilation, divisors or no batch");
  p->op = op;
  double work = 0, limit = ONE_THREAD_WORK;
  switch (kn_ops[op].op_class) {
  case KN_CLASS_MATMUL: describe_matmul(in, p, copy, &work); break;
  case KN_CLASS_CONV: describe_conv(op, attrs, in, n, out, p, &work); break;
  case KN_CLASS_POOL: describe_pool(op, attrs, in, out, p, &work), limit = ONE_THREAD_ELEMENTS; break;
  default: return no(why, size, "not an op of this backend");
  }
  if (kn_ops[op].op_class != KN_CLASS_MATMUL)
    for (int i = 0; i < n; i++)
      if (p->arg[i].rank && !contiguous(&in[i])) *copy |= 1u << i;
  int64_t step[2];
  if (n > 1 && dn_thinned(op, attrs, in[1].type, step)) *copy |= 1;
  p->threads = work < limit ? 1 : threads;
  return true;
}
