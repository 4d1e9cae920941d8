/* KILN_CHECK: every op node is computed again by its reference kernel on the very same inputs, and compared.
 * What runs as one runs as one here, too: of a value that never goes to memory as it is, the reference's own
 * is taken for the nodes that read it. Random draws and ops that overwrite their input cannot be repeated and
 * are passed over, and so is what reads a hidden value of theirs. What lies on a device is copied to the host
 * for this. */
#include "core/device.h"
#include "graph/session.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Two ways to sum the same numbers differ by rounding that grows with the numbers: tolerances are relative to
 * the largest element of the reference, and of products in the same group that never went to memory, of whose
 * rounding little elements may be what is left. */
static double tolerance(kn_dtype d) {
  return d == KN_F16 ? 2e-3 : d == KN_BF16 ? 1.6e-2 : d == KN_F32 ? 2e-5 : d == KN_F64 ? 1e-12 : 0;
}

static double element(const kn_tensor *t, int64_t i) {
  kn_dtype d = kn_tensor_dtype(t);
  return kn_element_float(d, (const char *)kn_tensor_data(t) + i * (int64_t)kn_dtype_size(d));
}

static bool exactly_equal(const kn_tensor *a, const kn_tensor *b) {
  return !memcmp(kn_tensor_data(a), kn_tensor_data(b),
                 (size_t)kn_tensor_numel(a) * kn_dtype_size(kn_tensor_dtype(a)));
}

/* "[1,3,2]", 1-based */
static void place_text(const kn_type *t, int64_t i, char *buf, size_t size) {
  int64_t at[KN_MAX_RANK];
  for (int d = t->rank - 1; d >= 0; d--) at[d] = i % t->dims[d] + 1, i /= t->dims[d];
  size_t n = (size_t)snprintf(buf, size, "[");
  for (int d = 0; d < t->rank && n < size; d++)
    n += (size_t)snprintf(buf + n, size - n, "%s%" PRId64, d ? "," : "", at[d]);
  if (n < size) snprintf(buf + n, size - n, "]");
}

/* Of a contiguous tensor, or `least`. */
static double largest(const kn_tensor *t, double least) {
  const int64_t count = kn_tensor_numel(t);
  for (int64_t i = 0; i < count; i++) {
    double x = fabs(element(t, i));
    if (isfinite(x) && x > least) least = x;
  }
  return least;
}

/* Both contiguous, of one type. */
static kn_status compare(kn_context *ctx, const char *name, uint32_t steps, double most, const kn_tensor *got,
                         const kn_tensor *want) {
  int64_t count = kn_tensor_numel(want);
  if (exactly_equal(got, want)) return KN_OK;
  double slack = tolerance(kn_tensor_dtype(want)) * steps; /* each rounds */
  most = largest(want, most);
  for (int64_t i = 0; i < count; i++) {
    double a = element(got, i), b = element(want, i);
    if (a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= slack * most) continue;
    char at[128];
    place_text(&want->type, i, at, sizeof at);
    return kn_fail(ctx, KN_INTERNAL, "%s differs from the reference: element %s is %.9g instead of %.9g",
                   name, at, a, b);
  }
  return KN_OK;
}

static kn_status contiguous(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_tensor *c;
  KN_TRY(kn_tensor_new(ctx, &t->type, &c));
  kn_status st = kn_ops[KN_OP_clone].kernel(ctx, NULL, &t, 1, &c);
  if (st == KN_OK)
    *out = c;
  else
    kn_tensor_release(c);
  return st;
}

static kn_status compare_any(kn_context *ctx, const char *name, uint32_t steps, double most, kn_tensor *got,
                             kn_tensor *want) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&got->type, &want->type))
    return kn_fail(ctx, KN_INTERNAL, "%s is %s, by the reference %s", name,
                   kn_type_text(&got->type, a, sizeof a), kn_type_text(&want->type, b, sizeof b));
  kn_tensor *x = NULL, *y = NULL;
  kn_status st = contiguous(ctx, got, &x);
  if (st == KN_OK) st = contiguous(ctx, want, &y);
  if (st == KN_OK) st = compare(ctx, name, steps, most, x, y);
  kn_tensor_release(x);
  kn_tensor_release(y);
  return st;
}

typedef struct checked { /* a part */
  kn_context *ctx;
  const kn_plan *p;
  const kn_part_plan *part;
  kn_tensor **own;  /* by value id: the reference's, of hidden values */
  kn_tensor **here; /* likewise: the values, or copies where they lie on a device */
  bool *hidden;
  double most; /* the largest element of the group's hidden products */
} checked;

/* On the host. A hidden value that nobody knows is NULL. */
static kn_tensor *value_of(const checked *c, uint32_t v) { return c->hidden[v] ? c->own[v] : c->here[v]; }

/* So that value_of gives it. */
static kn_status bring(checked *c, uint32_t v) {
  kn_tensor *t = c->p->vals[v];
  return c->hidden[v] || c->here[v] || !t ? KN_OK : kn_to_host(c->ctx, t, &c->here[v]);
}

/* Those that only nodes of their group read need not be there either: reads are counted as the plan does. */
static void hide(checked *c, uint32_t first, uint32_t count) {
  const kn_node *const *nodes = c->part->nodes + first;
  for (uint32_t i = 0; i < count; i++)
    for (uint32_t o = 0; o < nodes[i]->nout; o++) {
      uint32_t v = nodes[i]->out[o]->id, inside = 0;
      for (uint32_t k = i + 1; k < count; k++) {
        bool one = kn_ops[nodes[k]->op].op_class == KN_CLASS_VIEW || nodes[k]->op == KN_OP_sum_to;
        for (uint32_t m = 0; m < (one ? 1 : nodes[k]->ntensor); m++) inside += nodes[k]->in[m]->id == v;
      }
      c->hidden[v] = c->p->hidden[v] || (inside && inside == c->p->reads[v]);
    }
}

/* A view of a hidden value shows what the reference has for that. */
static kn_status show(checked *c, uint32_t v) {
  const uint32_t root = c->p->root[v];
  if (c->hidden[v] || root == v || !c->hidden[root]) return bring(c, v);
  c->hidden[v] = true;
  if (!c->own[root]) return KN_OK;
  const kn_tensor *view = c->p->vals[v];
  kn_type type = view->type;
  type.device = KN_CPU;
  KN_TRY(kn_tensor_symbolic(c->ctx, &type, NULL, &c->own[v]));
  kn_tensor_set_view(c->own[v], c->own[root], view->offset, view->strides);
  return KN_OK;
}

/* By the reference; `out` owned. */
static kn_status compute(const checked *c, const kn_node *n, kn_tensor **out) {
  const kn_op_info *row = &kn_ops[n->op];
  kn_attrs_any room;
  const void *attrs;
  kn_tensor *in[KN_MAX_INPUTS];
  kn_type types[KN_MAX_INPUTS], made[KN_MAX_OUTPUTS];
  KN_TRY(kn_node_attrs_now(c->ctx, n, c->p->scalars, &room, &attrs));
  for (uint32_t i = 0; i < n->ntensor; i++) types[i] = (in[i] = value_of(c, n->in[i]->id))->type;
  KN_TRY(kn_infer_types(c->ctx, (kn_op)n->op, attrs, types, (int)n->ntensor, made));
  bool bare = row->op_class == KN_CLASS_VIEW || row->flags & KN_FLAG_DYNAMIC;
  for (uint32_t i = 0; i < n->nout; i++) made[i].device = KN_CPU;
  for (uint32_t i = 0; i < n->nout; i++)
    KN_TRY(bare ? kn_tensor_symbolic(c->ctx, &made[i], NULL, &out[i])
                : kn_tensor_new(c->ctx, &made[i], &out[i]));
  return row->kernel(c->ctx, attrs, in, (int)n->ntensor, out);
}

/* "relu by onednn (with conv2d and add)" */
static void name_of(const checked *c, uint32_t i, uint32_t first, uint32_t count, char *buf, size_t size) {
  size_t at = (size_t)snprintf(buf, size, "%s by %s", kn_op_name((kn_op)c->part->nodes[i]->op),
                               c->part->target->name);
  const uint32_t last = first + count - (i == first + count - 1 ? 2 : 1); /* of the others */
  for (uint32_t k = first, named = 0; count > 1 && k <= last && at < size; k++) {
    if (k == i) continue;
    const char *before = !named++ ? " (with " : k < last ? ", " : " and ";
    at += (size_t)snprintf(buf + at, size - at, "%s%s", before, kn_op_name((kn_op)c->part->nodes[k]->op));
  }
  if (count > 1 && at < size) snprintf(buf + at, size - at, ")");
}

static kn_status check(checked *c, uint32_t i, uint32_t first, uint32_t count) {
  const kn_node *n = c->part->nodes[i];
  kn_tensor *out[KN_MAX_OUTPUTS] = {NULL};
  char name[200];
  for (uint32_t k = 0; k < n->ntensor; k++) {
    KN_TRY(show(c, n->in[k]->id));
    if (!value_of(c, n->in[k]->id)) return KN_OK;
  }
  kn_status st = compute(c, n, out);
  name_of(c, i, first, count, name, sizeof name);
  for (uint32_t k = 0; k < n->nout; k++) {
    uint32_t v = n->out[k]->id;
    if (c->hidden[v] && st == KN_OK) {
      const int class = kn_ops[n->op].op_class;
      kn_tensor_release(c->own[v]);
      c->own[v] = out[k];
      if (class == KN_CLASS_MATMUL || class == KN_CLASS_CONV) c->most = largest(out[k], c->most);
      continue;
    }
    if (st == KN_OK) st = bring(c, v);
    if (st == KN_OK) st = compare_any(c->ctx, name, count, c->most, value_of(c, v), out[k]);
    kn_tensor_release(out[k]);
  }
  return st == KN_OK ? KN_OK : kn_node_failed(c->ctx, n, st);
}

static kn_status check_all(checked *c) {
  for (uint32_t i = 0, first = 0, count = 0; i < c->part->n; i++) {
    if (i >= first + count) {
      first = i;
      count = c->part->together[i] ? c->part->together[i] : 1;
      if (count > c->part->n - i) count = c->part->n - i;
      c->most = 0;
      hide(c, first, count);
    }
    if (!kn_op_is_effect((kn_op)c->part->nodes[i]->op)) KN_TRY(check(c, i, first, count));
  }
  return KN_OK;
}

kn_status kn_check_part(kn_context *ctx, const kn_plan *p, const kn_part_plan *part) {
  size_t ids = (size_t)p->graph->nvalues + 1;
  checked c = {.ctx = ctx,
               .p = p,
               .part = part,
               .own = kn_calloc(ctx->heap, ids, sizeof *c.own),
               .here = kn_calloc(ctx->heap, ids, sizeof *c.here),
               .hidden = kn_calloc(ctx->heap, ids, sizeof *c.hidden)};
  kn_status st = c.own && c.here && c.hidden ? check_all(&c) : kn_fail_nomem(ctx, ids * sizeof *c.own);
  for (size_t v = 0; c.own && v < ids; v++) kn_tensor_release(c.own[v]);
  for (size_t v = 0; c.here && v < ids; v++) kn_tensor_release(c.here[v]);
  kn_free(ctx->heap, c.own, ids * sizeof *c.own);
  kn_free(ctx->heap, c.here, ids * sizeof *c.here);
  kn_free(ctx->heap, c.hidden, ids * sizeof *c.hidden);
  return st;
}
