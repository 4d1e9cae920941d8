/* Test vectors: see vectors.h. */
#include "graph/vectors.h"
#include "core/device.h"
#include "graph/safetensors.h"
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- life ---- */

static size_t each(const kn_vectors *v) { return v->nin + (size_t)v->nout; }

kn_status kn_vectors_new(kn_context *ctx, const kn_graph *g, kn_vectors **out) {
  kn_vectors *v = kn_calloc(ctx->heap, 1, sizeof *v);
  if (!v) return kn_fail_nomem(ctx, sizeof *v);
  *v = (kn_vectors){.heap = kn_heap_retain(ctx->heap), .tolerance = -1};
  v->nin = g->body->nparams;
  v->nout = g->body->nyields;
  atomic_init(&v->refs, 1);
  *out = v;
  return KN_OK;
}

kn_status kn_vectors_add(kn_context *ctx, kn_vectors *v) {
  if (v->n == KN_VECTORS_MAX)
    return kn_fail(ctx, KN_LIMIT, "a graph has at most %d test vectors", KN_VECTORS_MAX);
  if (v->n == v->room) {
    const uint32_t room = v->room ? 2 * v->room : 1;
    kn_rvalue *values = kn_calloc(v->heap, room * each(v) + 1, sizeof *values);
    if (!values) return kn_fail_nomem(ctx, room * each(v) * sizeof *values);
    if (v->n) memcpy(values, v->values, v->n * each(v) * sizeof *values);
    if (v->values) kn_free(v->heap, v->values, (v->room * each(v) + 1) * sizeof *values);
    v->values = values;
    v->room = room;
  }
  v->n++;
  return KN_OK;
}

kn_vectors *kn_vectors_retain(kn_vectors *v) {
  atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
  return v;
}

void kn_vectors_release(kn_vectors *v) {
  if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1) return;
  for (size_t i = 0; i < v->n * each(v); i++) kn_tensor_release(v->values[i].tensor);
  kn_heap *heap = v->heap;
  if (v->values) kn_free(heap, v->values, (v->room * each(v) + 1) * sizeof *v->values);
  kn_free(heap, v, sizeof *v);
  kn_heap_release(heap);
}

kn_rvalue *kn_vectors_in(const kn_vectors *v, uint32_t i) { return v->values + i * each(v); }

kn_rvalue *kn_vectors_out(const kn_vectors *v, uint32_t i) { return kn_vectors_in(v, i) + v->nin; }

/* ---- inputs ---- */

/* A copy that lies as the graph needs it. */
static kn_status strided(kn_context *ctx, const kn_tensor *t, const int64_t *strides, kn_tensor **out) {
  const int64_t count = kn_tensor_numel(t);
  int64_t extent = 1, at[KN_MAX_RANK] = {0};
  for (int d = 0; d < t->type.rank; d++) {
    int64_t more;
    if (strides[d] < 0 ||
        __builtin_mul_overflow(t->type.dims[d] - (t->type.dims[d] > 0), strides[d], &more) ||
        __builtin_add_overflow(extent, more, &extent) || extent / 256 > count)
      return kn_fail(ctx, KN_UNSUPPORTED, "an input that lies as the graph needs it would be too large");
  }
  kn_tensor *room;
  KN_TRY(kn_tensor_new(ctx, &(kn_type){.dtype = t->type.dtype, .rank = 1, .dims = {extent}}, &room));
  kn_status st = kn_tensor_alias(ctx, room, out);
  if (st == KN_OK) {
    const size_t size = kn_dtype_size(kn_tensor_dtype(t));
    (*out)->type = t->type;
    memcpy((*out)->strides, strides, sizeof(*out)->strides);
    memset(kn_tensor_data(room), 0, (size_t)extent * size);
    for (int64_t i = 0; i < count; i++) {
      int64_t offset = 0;
      for (int d = 0; d < t->type.rank; d++) offset += at[d] * strides[d];
      memcpy((char *)kn_tensor_data(room) + (size_t)offset * size,
             (const char *)kn_tensor_data(t) + (size_t)i * size, size);
      for (int d = t->type.rank - 1; d >= 0 && ++at[d] == t->type.dims[d]; d--) at[d] = 0;
    }
  }
  kn_tensor_release(room);
  return st;
}

/* Runs may overwrite what they are given. */
static kn_status copied(kn_context *ctx, const kn_tensor *t, kn_tensor **out) {
  KN_TRY(kn_tensor_new(ctx, &t->type, out));
  size_t bytes = 0;
  (void)!kn_type_bytes(&t->type, &bytes);
  if (bytes) memcpy(kn_tensor_data(*out), kn_tensor_data(t), bytes);
  return KN_OK;
}

static kn_status make_input(kn_context *ctx, const kn_graph *g, uint32_t i, const kn_rvalue *stored,
                            kn_rvalue *out) {
  const kn_value *p = g->body->params[i];
  *out = *stored;
  if (p->type.kind != KN_V_TENSOR) return KN_OK;
  const kn_need *need = kn_find_need(g, p, KN_NEED_strides);
  kn_tensor *here, *there;
  out->tensor = NULL;
  KN_TRY(need && need->input->type.tensor.rank == stored->tensor->type.rank
             ? strided(ctx, stored->tensor, need->strides, &here)
             : copied(ctx, stored->tensor, &here));
  kn_status st = kn_move_to(ctx, here, (kn_device_id)p->type.tensor.device, &there);
  kn_tensor_release(here);
  if (st == KN_OK) out->tensor = there;
  return st;
}

/* ---- outputs ---- */

/* The path to the leaf of the output in a tree, appended; false when it is not in it. */
static bool path_to(const kn_tree *key, const kn_tree *t, uint32_t output, char *buf, size_t size) {
  const size_t n = strlen(buf);
  if (key->kind == KN_TREE_INT)
    snprintf(buf + n, size - n, "%s%" PRId64, n ? "." : "", key->i);
  else
    snprintf(buf + n, size - n, "%s%.*s", n ? "." : "", (int)key->n, key->text);
  if (t->kind == KN_TREE_VALUE && t->i == (int64_t)output) return true;
  for (uint32_t i = 0; kn_tree_has_items(t->kind) && i < t->n; i++)
    if (path_to(&t->keys[i], &t->items[i], output, buf, size)) return true;
  buf[n] = 0;
  return false;
}

char *kn_output_text(const kn_graph *g, uint32_t output, char *buf, size_t size) {
  const char *label = g->body->yields[output]->name;
  bool found = false;
  buf[0] = 0;
  for (uint32_t i = 0; i < g->nresults && !found; i++)
    found = path_to(&(kn_tree){.kind = KN_TREE_INT, .i = i + 1}, &g->results[i], output, buf, size);
  if (!found) snprintf(buf, size, "%" PRIu32, output + 1);
  const size_t n = strlen(buf);
  if (label) snprintf(buf + n, size - n, " (%s)", label);
  return buf;
}

static double untold(kn_dtype d) {
  return d == KN_F64 ? 1e-9 : d == KN_F32 ? 1e-4 : d == KN_F16 ? 0.01 : d == KN_BF16 ? 0.05 : 0;
}

static double element(const kn_tensor *t, int64_t i) {
  const kn_dtype d = kn_tensor_dtype(t);
  return kn_element_float(d, (const char *)kn_tensor_data(t) + (size_t)i * kn_dtype_size(d));
}

static double largest_of(const kn_tensor *t) {
  double most = 0;
  for (int64_t i = 0, n = kn_tensor_numel(t); i < n; i++) {
    const double x = fabs(element(t, i));
    if (isfinite(x) && x > most) most = x;
  }
  return most;
}

static double slack_of(double tolerance, double most) { return tolerance * (most > 1e-3 ? most : 1e-3); }
static bool close_to(double a, double b, double slack) {
  return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= slack;
}

typedef struct comparison {
  kn_context *ctx;
  const kn_graph *g;
  double tolerance;      /* negative: by dtype */
  uint32_t call, output; /* from 0 */
} comparison;

static kn_status differs(const comparison *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static kn_status differs(const comparison *c, const char *fmt, ...) {
  char why[300], name[160];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return kn_fail(c->ctx, KN_STATE, "test vector %" PRIu32 ": output %s %s", c->call + 1,
                 kn_output_text(c->g, c->output, name, sizeof name), why);
}

/* Both on the host and contiguous. */
static kn_status compare_tensors(const comparison *c, const kn_tensor *got, const kn_tensor *want) {
  char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
  if (!kn_type_equal(&got->type, &want->type))
    return differs(c, "is %s, the file has %s", kn_type_text(&got->type, a, sizeof a),
                   kn_type_text(&want->type, b, sizeof b));
  const kn_dtype d = kn_tensor_dtype(want);
  const int64_t n = kn_tensor_numel(want);
  const size_t size = kn_dtype_size(d);
  const bool whole = !kn_dtype_is_float(d);
  const double slack = whole ? 0 : slack_of(c->tolerance < 0 ? untold(d) : c->tolerance, largest_of(want));
  for (int64_t i = 0; i < n; i++) {
    const char *x = (const char *)kn_tensor_data(got) + (size_t)i * size,
               *y = (const char *)kn_tensor_data(want) + (size_t)i * size;
    if (whole ? !memcmp(x, y, size) : close_to(kn_element_float(d, x), kn_element_float(d, y), slack))
      continue;
    char at[160] = "", told[80] = "";
    int64_t place[KN_MAX_RANK], rest = i;
    for (int k = want->type.rank - 1; k >= 0; k--)
      place[k] = rest % want->type.dims[k] + 1, rest /= want->type.dims[k];
    for (int k = 0; k < want->type.rank; k++)
      snprintf(at + strlen(at), sizeof at - strlen(at), "%s%" PRId64, k ? "," : "", place[k]);
    if (whole)
      return differs(c, "differs: element [%s] is %" PRId64 ", the file has %" PRId64, at,
                     kn_element_int(d, x), kn_element_int(d, y));
    snprintf(told, sizeof told, "; they may be %.3g apart", slack);
    return differs(c, "differs: element [%s] is %.9g, the file has %.9g%s", at, kn_element_float(d, x),
                   kn_element_float(d, y), told);
  }
  return KN_OK;
}

static const char *scalar_text(const kn_scalar *s, char *buf, size_t size) {
  if (s->kind == KN_SCALAR_INT)
    snprintf(buf, size, "%" PRId64, s->as.i);
  else if (s->kind == KN_SCALAR_FLOAT)
    kn_double_text(s->as.f, buf);
  else
    snprintf(buf, size, "%s", s->as.b ? "true" : "false");
  return buf;
}

static kn_status compare_scalars(const comparison *c, const kn_scalar *got, const kn_scalar *want) {
  char a[KN_NUMBER_TEXT], b[KN_NUMBER_TEXT];
  bool same = got->kind == want->kind;
  if (same && want->kind == KN_SCALAR_FLOAT) {
    const double most = isfinite(want->as.f) ? fabs(want->as.f) : 0;
    same = close_to(got->as.f, want->as.f, slack_of(c->tolerance < 0 ? untold(KN_F32) : c->tolerance, most));
  } else if (same)
    same = want->kind == KN_SCALAR_INT ? got->as.i == want->as.i : got->as.b == want->as.b;
  return same ? KN_OK
              : differs(c, "is %s, the file has %s", scalar_text(got, a, sizeof a),
                        scalar_text(want, b, sizeof b));
}

static kn_status compare(const comparison *c, const kn_rvalue *got, const kn_rvalue *want) {
  if (c->g->body->yields[c->output]->type.kind != KN_V_TENSOR)
    return compare_scalars(c, &got->scalar, &want->scalar);
  if (!got->tensor || !want->tensor)
    return got->tensor == want->tensor
               ? KN_OK
               : differs(c, got->tensor ? "is there, the file has none" : "is not there, the file has one");
  return compare_tensors(c, got->tensor, want->tensor);
}

/* On the host, contiguous, in its place. */
static kn_status bring(kn_context *ctx, kn_rvalue *v) {
  kn_tensor *host, *dense;
  if (!v->tensor) return KN_OK;
  KN_TRY(kn_to_host(ctx, v->tensor, &host));
  kn_status st = kn_safetensors_dense(ctx, host, &dense);
  kn_tensor_release(host);
  KN_TRY(st);
  kn_tensor_release(v->tensor);
  v->tensor = dense;
  return KN_OK;
}

/* ---- running ---- */

typedef struct teller { /* of a story */
  kn_session *s;
  kn_context *ctx;
  const kn_graph *g;
  kn_rvalue *before;   /* of slots */
  kn_rvalue *in, *out; /* of a call */
  uint32_t nslots, nin, nout;
} teller;

static void let_go(kn_rvalue *list, uint32_t n) {
  for (uint32_t i = 0; list && i < n; i++) {
    kn_tensor_release(list[i].tensor);
    list[i].tensor = NULL;
  }
}

/* What runs write is set to `from`: NULL: the graph's own values. */
static kn_status set_slots(teller *t, const kn_rvalue *from) {
  for (uint32_t i = 0; i < t->nslots; i++) {
    const kn_slot *slot = t->g->slots[i];
    const kn_rvalue own = {.tensor = slot->tensor, .scalar = slot->scalar};
    if (slot->kind == KN_SLOT_STATE) KN_TRY(kn_session_set_slot(t->s, i, from ? &from[i] : &own));
  }
  return KN_OK;
}

static kn_status one_call(teller *t, kn_vectors *v, uint32_t i, bool record) {
  for (uint32_t k = 0; k < t->nin; k++)
    KN_TRY(make_input(t->ctx, t->g, k, kn_vectors_in(v, i) + k, &t->in[k]));
  kn_status st = kn_session_run(t->s, t->in, t->nin, t->out, t->nout);
  if (st != KN_OK) {
    memset(t->out, 0, t->nout * sizeof *t->out);
    kn_error_prefix(t->ctx, "test vector %" PRIu32, i + 1);
    return st;
  }
  for (uint32_t k = 0; k < t->nout; k++) {
    kn_rvalue *kept = kn_vectors_out(v, i) + k;
    KN_TRY(bring(t->ctx, &t->out[k]));
    if (!record) {
      KN_TRY(compare(&(comparison){t->ctx, t->g, v->tolerance, i, k}, &t->out[k], kept));
      continue;
    }
    kn_tensor_release(kept->tensor);
    *kept = t->out[k];
    t->out[k].tensor = NULL;
  }
  return KN_OK;
}

static kn_status tell(teller *t, kn_vectors *v, bool record) {
  for (uint32_t i = 0; i < t->nslots; i++)
    if (t->g->slots[i]->kind == KN_SLOT_STATE) KN_TRY(kn_session_get_slot(t->s, i, &t->before[i]));
  kn_random *random = &t->ctx->random, was = *random;
  kn_random_seed(random, 0);
  kn_status st = set_slots(t, NULL);
  for (uint32_t i = 0; st == KN_OK && i < v->n; i++) {
    st = one_call(t, v, i, record);
    let_go(t->in, t->nin);
    let_go(t->out, t->nout);
  }
  *random = was;
  char why[KN_ERROR_SIZE];
  memcpy(why, t->ctx->error, sizeof why);
  kn_status back = set_slots(t, t->before);
  if (st != KN_OK) memcpy(t->ctx->error, why, sizeof why);
  return st != KN_OK ? st : back;
}

static kn_status tell_all(kn_session *s, kn_vectors *v, bool record) {
  const kn_graph *g = kn_session_graph(s);
  teller t = {
      .s = s, .ctx = kn_session_context(s), .g = g, .nslots = g->nslots, .nin = v->nin, .nout = v->nout};
  kn_heap *heap = t.ctx->heap;
  KN_TRY(kn_session_at_rest(s));
  if (v->nin != g->body->nparams || v->nout != g->body->nyields)
    return kn_fail(t.ctx, KN_ARG, "these are test vectors of another graph");
  t.before = kn_calloc(heap, t.nslots + (size_t)1, sizeof *t.before);
  t.in = kn_calloc(heap, t.nin + (size_t)1, sizeof *t.in);
  t.out = kn_calloc(heap, t.nout + (size_t)1, sizeof *t.out);
  kn_status st = t.before && t.in && t.out ? tell(&t, v, record) : kn_fail_nomem(t.ctx, 0);
  let_go(t.before, t.nslots);
  let_go(t.in, t.nin);
  kn_free(heap, t.before, (t.nslots + (size_t)1) * sizeof *t.before);
  kn_free(heap, t.in, (t.nin + (size_t)1) * sizeof *t.in);
  kn_free(heap, t.out, (t.nout + (size_t)1) * sizeof *t.out);
  return st;
}

kn_status kn_vectors_record(kn_session *s, kn_vectors *v) { return tell_all(s, v, true); }
kn_status kn_vectors_test(kn_session *s, const kn_vectors *v) {
  return tell_all(s, (kn_vectors *)(uintptr_t)v, false);
}
