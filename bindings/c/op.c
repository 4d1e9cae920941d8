/* Ops of the host as the C API describes them, made ops of core: types and tensors are translated for each
 * call of the host's functions. */
#include "bindings/c/handle.h"
#include "core/host_op.h"
#include <string.h>

/* What core keeps for us: as much of the description as calls need. */
typedef struct functions {
  kiln_op_fn shape, kernel, vjp; /* shape, vjp may be NULL */
  void *ud;
} functions;

enum { MOST_TENSORS = KN_HOST_INPUTS + 2 * KN_MAX_OUTPUTS };
_Static_assert((int)KILN_OP_INPUTS == (int)KN_HOST_INPUTS && (int)KILN_OP_OUTPUTS == (int)KN_MAX_OUTPUTS &&
                   (int)KILN_OP_ATTRIBUTES == (int)KN_MAX_RANK && MOST_TENSORS <= (int)KN_MAX_INPUTS,
               "counts differ");

/* ---- calls ---- */

static void describe(const kn_type *t, void *data, kiln_op_tensor *out) {
  *out = (kiln_op_tensor){.dtype = kiln_outside_dtype((kn_dtype)t->dtype), .rank = t->rank, .data = data};
  memcpy(out->sizes, t->dims, t->rank * sizeof *t->dims);
}

/* Calls it; on failure the sentence is the host's, with the op in front. */
static kn_status call(kiln_op_fn fn, const kn_host_op *op, kn_context *ctx, const double *values,
                      const kiln_op_tensor *in, int n, kiln_op_tensor *out, int outs) {
  char error[KN_ERROR_SIZE / 2] = "";
  kiln_op_call c = {.size = sizeof c,
                    .ud = ((const functions *)op->ud)->ud,
                    .name = op->name.s,
                    .inputs = in,
                    .ninputs = n,
                    .outputs = out,
                    .noutputs = outs,
                    .attributes = values,
                    .error = error,
                    .error_size = sizeof error};
  const kiln_status st = fn(&c);
  if (st == KILN_OK) return KN_OK;
  error[sizeof error - 1] = 0;
  return kn_fail(ctx, (kn_status)st, "%s: %s", op->name.s, *error ? error : kiln_status_text(st));
}

static kn_status shape(const kn_host_op *op, kn_context *ctx, const double *values, const kn_type *in,
                       kn_type *out) {
  const functions *f = op->ud;
  kiln_op_tensor from[KN_HOST_INPUTS], to[KN_MAX_OUTPUTS];
  for (int i = 0; i < op->inputs; i++) describe(&in[i], NULL, &from[i]);
  for (int i = 0; i < op->outputs; i++) to[i] = from[0];
  if (f->shape) {
    kn_status st = call(f->shape, op, ctx, values, from, op->inputs, to, op->outputs);
    if (st == KN_SHAPE || st == KN_DTYPE || st == KN_ARG || st == KN_NOMEM) return st;
    if (st != KN_OK) return kn_fail(ctx, KN_ARG, "%s", kn_error(ctx));
  }
  for (int i = 0; i < op->outputs; i++) {
    kn_dtype dtype;
    if (to[i].rank < 0 || to[i].rank > KN_MAX_RANK)
      return kn_fail(ctx, KN_SHAPE, "%s: its shape rule gave %d as rank of result %d", op->name.s, to[i].rank,
                     i + 1);
    KN_TRY(kiln_core_dtype(ctx, to[i].dtype, &dtype));
    out[i].dtype = (uint8_t)dtype;
    out[i].rank = (uint8_t)to[i].rank;
    memcpy(out[i].dims, to[i].sizes, (size_t)to[i].rank * sizeof *out[i].dims);
  }
  return KN_OK;
}

static kn_status run(const kn_host_op *op, kn_context *ctx, const kn_attrs_host_op *attrs,
                     kn_tensor *const *in, int n, kn_tensor *const *out, int outs) {
  const functions *f = op->ud;
  kiln_op_tensor from[MOST_TENSORS], to[KN_MAX_OUTPUTS];
  for (int i = 0; i < n; i++) describe(&in[i]->type, kn_tensor_data(in[i]), &from[i]);
  for (int i = 0; i < outs; i++) describe(&out[i]->type, kn_tensor_data(out[i]), &to[i]);
  kn_status st = call(attrs->gradient ? f->vjp : f->kernel, op, ctx, attrs->values.v, from, n, to, outs);
  if (st == KN_OK || st == KN_NOMEM) return st;
  char said[KN_ERROR_SIZE];
  memcpy(said, kn_error(ctx), sizeof said);
  return kn_fail(ctx, KN_RAISED, "%s", said);
}

/* ---- registering ---- */

/* A name in Lua and in texts. */
static bool is_name(const char *s) {
  if (!s || !*s || (*s >= '0' && *s <= '9')) return false;
  for (; *s; s++)
    if (!(*s == '_' || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9')))
      return false;
  return true;
}

static kn_status read_name(kn_context *ctx, const char *what, const char *name, kn_text *out) {
  if (is_name(name) && kn_text_set(out, name, strlen(name))) return KN_OK;
  return kn_fail(ctx, KN_ARG, "%s is letters, digits and underscores, %d at most, no digit first", what,
                 KN_TEXT_ROOM - 1);
}

static kn_status read_attributes(kn_context *ctx, const kiln_op *o, kn_host_op *op) {
  if (o->attribute_count < 0 || o->attribute_count > KILN_OP_ATTRIBUTES)
    return kn_fail(ctx, KN_ARG, "op '%s': it may have 0 to %d attributes, not %d", op->name.s,
                   KILN_OP_ATTRIBUTES, o->attribute_count);
  op->nvalues = o->attribute_count;
  for (int i = 0; i < op->nvalues; i++) {
    KN_TRY(read_name(ctx, "the name of an attribute", o->attributes[i].name, &op->keys[i]));
    op->standard[i] = o->attributes[i].value;
    for (int k = 0; k < i; k++)
      if (!strcmp(op->keys[k].s, op->keys[i].s))
        return kn_fail(ctx, KN_ARG, "op '%s': attribute %s is there twice", op->name.s, op->keys[i].s);
  }
  return KN_OK;
}

static kn_status read_op(kn_context *ctx, const kiln_op *o, kn_host_op *op) {
  KN_TRY(read_name(ctx, "the name of an op", o->name, &op->name));
  if (o->inputs < 1 || o->inputs > KILN_OP_INPUTS)
    return kn_fail(ctx, KN_ARG, "op '%s': it may have 1 to %d inputs, not %d", op->name.s, KILN_OP_INPUTS,
                   o->inputs);
  if (o->outputs < 1 || o->outputs > KILN_OP_OUTPUTS)
    return kn_fail(ctx, KN_ARG, "op '%s': it may have 1 to %d outputs, not %d", op->name.s, KILN_OP_OUTPUTS,
                   o->outputs);
  if (!o->kernel) return kn_fail(ctx, KN_ARG, "op '%s' has no kernel", op->name.s);
  op->inputs = o->inputs;
  op->outputs = o->outputs;
  op->differentiable = o->vjp != NULL;
  op->shape = shape;
  op->run = run;
  return read_attributes(ctx, o, op);
}

kiln_status kiln_context_register_op(kiln_context *handle, const kiln_op *op) {
  kn_context *ctx = core_context(handle);
  kiln_op o = {.size = sizeof o};
  kn_host_op made = {.inputs = 0};
  if (op->size < offsetof(kiln_op, vjp)) return outside(kn_fail(ctx, KN_ARG, "the op does not say its size"));
  memcpy(&o, op, op->size < sizeof o ? op->size : sizeof o);
  const functions f = {o.shape, o.kernel, o.vjp, o.ud};
  kn_status st = read_op(ctx, &o, &made);
  if (st == KN_OK) st = kn_host_op_register(ctx, &made, &f, sizeof f);
  return outside(st);
}
