/* The choke point: see core/dispatch.h. Checks arity and devices, infers the result, then records or runs,
 * then tapes. What an op means is in its rule (infer*.c) and its kernel, not here. */
#include "core/dispatch.h"
#include "core/autocast.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include "core/infer.h"
#include "core/overlap.h"
#include <stdio.h>
#include <string.h>

/* ---- checks ---- */

static kn_status check_arity(kn_context *ctx, const kn_op_info *row, const void *attrs, int n) {
  int max = row->max_in == KN_VARIADIC ? KN_MAX_INPUTS : row->max_in;
  if (!row->kernel && !row->composite)
    return kn_fail(ctx, KN_UNSUPPORTED, "%s: this build of kiln is without it (-Druntime_only, -Dops)",
                   row->name);
  if (!attrs && row->attrs != KN_ATTRS_none)
    return kn_fail(ctx, KN_ARG, "%s: attributes are missing", row->name);
  if (n >= row->min_in && n <= max) return KN_OK;
  if (row->min_in == max)
    return kn_fail(ctx, KN_ARG, "%s: takes %d tensor%s, got %d", row->name, max, max == 1 ? "" : "s", n);
  return kn_fail(ctx, KN_ARG, "%s: takes %d to %d tensors, got %d", row->name, row->min_in, max, n);
}

static kn_status check_given(kn_context *ctx, const kn_op_info *row, kn_tensor *const *in, int n) {
  for (int i = 0; i < n; i++)
    if (!in[i] && !(row->flags & KN_FLAG_HOLES && i >= row->min_in))
      return kn_fail(ctx, KN_ARG, "%s: tensor %d is missing", row->name, i + 1);
  return KN_OK;
}

static bool is_host_number(const kn_type *t) { return t->device == KN_CPU && t->rank == 0; }

/* Where inputs of several devices meet: plain numbers of the host may stand beside tensors of another device.
 */
static kn_status meet(kn_context *ctx, const kn_op_info *row, const kn_type *in, int n, uint8_t *device) {
  const bool numbers = row->flags & KN_FLAG_SCALARS;
  int at = 0;
  while (numbers && at < n - 1 && is_host_number(&in[at])) at++;
  for (int i = 0; i < n; i++)
    if (in[i].device != in[at].device && !(numbers && is_host_number(&in[i])))
      return kn_fail(
          ctx, KN_ARG, "%s: tensors are on different devices, %s and %s; t:to(\"%s\") moves one", row->name,
          kn_device_name((kn_device_id)in[i < at ? i : at].device),
          kn_device_name((kn_device_id)in[i < at ? at : i].device),
          kn_device_name(in[at].device == KN_CPU ? (kn_device_id)in[i].device : (kn_device_id)in[at].device));
  *device = in[at].device;
  return KN_OK;
}

/* The device of the inputs, which is the results'. */
static inline kn_status find_device(kn_context *ctx, const kn_op_info *row, const kn_type *in, int n,
                                    uint8_t *device) {
  *device = n ? in[0].device : KN_CPU;
  for (int i = 1; i < n; i++)
    if (in[i].device != in[0].device) return meet(ctx, row, in, n, device);
  return KN_OK;
}

/* Two elements at one address would make the result depend on the order of writing. `name` is the op as the
 * user wrote it. */
static kn_status check_write(kn_context *ctx, const char *name, kn_tensor *t) {
  kn_recorder *r = kn_recorder_of(ctx);
  if (!t->storage) return r && r->writable ? r->writable(r, ctx, name, t) : KN_OK;
  if (kn_tensor_contiguous(t)) return KN_OK;
  bool shared = false;
  for (int i = 0; i < t->type.rank; i++)
    if (t->type.dims[i] > 1 && t->strides[i] == 0)
      return kn_fail(ctx, KN_ARG,
                     "%s: cannot write to an expanded tensor (dim %d repeats one element); clone it first",
                     name, i + 1);
  KN_TRY(kn_overlaps_itself(ctx, t->type.rank, t->type.dims, t->strides, &shared));
  if (!shared) return KN_OK;
  return kn_fail(ctx, KN_ARG,
                 "%s: cannot write to a tensor some of whose elements are the same memory (overlapping "
                 "windows); clone it first",
                 name);
}

static void note_placeholder(void *ud, int64_t *v) { *(bool *)ud |= kn_is_dyn(*v); }

static bool has_placeholder(const kn_op_info *row, const void *attrs) {
  bool found = false;
  if (kn_attrs_may_wait(row->attrs)) /* the callback only reads */
    kn_attrs_each_int(row->attrs, (void *)(uintptr_t)attrs, note_placeholder, &found);
  return found;
}

/* The type rule, once the arity is known to be right. On failure *out is undefined. */
static kn_status infer(kn_context *ctx, kn_op op, const void *attrs, const kn_type *in, int n, kn_type *out) {
  const kn_op_info *row = &kn_ops[op];
  uint8_t device;
  KN_TRY(find_device(ctx, row, in, n, &device));
  memset(out, 0, row->outs * sizeof *out);
  KN_TRY(row->infer(&(kn_infer){.ctx = ctx, .op = op, .attrs = attrs, .in = in, .n = n, .out = out}));
  for (int i = 0; i < row->outs; i++) {
    if (!(row->flags & KN_FLAG_DEVICE)) out[i].device = device;
    if (kn_type_numel(&out[i]) == -2) {
      char text[KN_TYPE_TEXT];
      return kn_fail(ctx, KN_SHAPE, "%s: the result %s is too large", row->name,
                     kn_type_text(&out[i], text, sizeof text));
    }
  }
  return KN_OK;
}

kn_status kn_infer_types(kn_context *ctx, kn_op op, const void *attrs, const kn_type *in, int n,
                         kn_type *out) {
  const kn_op_info *row = &kn_ops[op];
  kn_type made[KN_MAX_OUTPUTS];
  KN_TRY(check_arity(ctx, row, attrs, n));
  if (!row->infer)
    return kn_fail(ctx, KN_UNSUPPORTED, "%s: a composite has no type rule of its own", row->name);
  KN_TRY(infer(ctx, op, attrs, in, n, made));
  memcpy(out, made, row->outs * sizeof *out);
  return KN_OK;
}

/* ---- the three ways to apply ---- */

static void release_all(kn_tensor **t, int n) {
  for (int i = 0; i < n; i++) kn_tensor_release(t[i]);
}

static void note_write(kn_tensor *t, int writer) {
  atomic_fetch_add(&t->storage->version, 1u);
  atomic_store_explicit(&t->storage->writer, writer, memory_order_relaxed);
}

kn_status kn_run_now(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                     const kn_type *types, kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  bool bare = row->op_class == KN_CLASS_VIEW || (row->flags & KN_FLAG_DYNAMIC); /* the kernel gives storage */
  for (int i = 0; i < row->outs; i++) {
    kn_status st = KN_OK;
    if (row->flags & KN_FLAG_WRITES)
      out[i] = kn_tensor_retain(in[0]);
    else
      st = bare ? kn_tensor_symbolic(ctx, &types[i], NULL, &out[i]) : kn_tensor_new(ctx, &types[i], &out[i]);
    if (st != KN_OK) {
      kn_error_prefix(ctx, "%s", row->name);
      release_all(out, i);
      return st;
    }
  }
  kn_status st = kn_device_run(ctx, op, attrs, in, n, out, NULL);
  if (st != KN_OK)
    release_all(out, row->outs);
  else if (row->flags & KN_FLAG_WRITES)
    note_write(in[0], op);
  else if (row->op_class == KN_CLASS_VIEW && out[0]->storage == in[0]->storage && !in[0]->storage->inference)
    kn_tensor_set_base(out[0], in[0], ctx->grad_enabled);
  return st;
}

static kn_status cast_to(kn_context *ctx, kn_tensor *t, kn_dtype dtype, kn_tensor **out) {
  kn_attrs_cast to = {.dtype = dtype};
  return kn_apply(ctx, KN_OP_cast, &to, &t, 1, out);
}

static bool is_half(const kn_tensor *t) {
  kn_dtype d = kn_tensor_dtype(t);
  return kn_dtype_is_float(d) && kn_dtypes[d].wide != d;
}

kn_dtype kn_promote_floats(kn_tensor *const *in, int n) {
  kn_type all = {.dtype = KN_BOOL};
  for (int i = 0; i < n; i++) {
    if (!in[i] || !kn_dtype_is_float(kn_tensor_dtype(in[i]))) continue;
    all.dtype = (uint8_t)(all.dtype == KN_BOOL ? in[i]->type.dtype : kn_promote_types(&all, &in[i]->type));
    if (in[i]->type.rank > all.rank) all.rank = in[i]->type.rank;
  }
  return (kn_dtype)all.dtype;
}

/* Halves go in as float32; results come back as what the inputs promote to, if that is a half. */
static kn_status run_wide(kn_context *ctx, const kn_op_info *row, kn_composite_fn fn, const void *attrs,
                          kn_tensor *const *in, int n, kn_tensor **out) {
  kn_tensor *as[KN_MAX_INPUTS] = {NULL}, *made[KN_MAX_OUTPUTS] = {NULL};
  kn_dtype result = kn_promote_floats(in, n), wide = kn_dtypes[result].wide;
  int given = 0, left = 0;
  kn_status st = KN_OK;
  for (; st == KN_OK && given < n; given += st == KN_OK) {
    if (!in[given])
      as[given] = NULL;
    else if (is_half(in[given]))
      st = cast_to(ctx, in[given], kn_dtypes[kn_tensor_dtype(in[given])].wide, &as[given]);
    else
      as[given] = kn_tensor_retain(in[given]);
  }
  if (st == KN_OK) st = fn(ctx, attrs, as, n, made);
  release_all(as, given);
  KN_TRY(st);
  for (; st == KN_OK && left < row->outs; left += st == KN_OK) {
    if (result != wide && kn_tensor_dtype(made[left]) == wide)
      st = cast_to(ctx, made[left], result, &out[left]);
    else
      out[left] = kn_tensor_retain(made[left]);
  }
  release_all(made, row->outs);
  if (st != KN_OK) release_all(out, left);
  return st;
}

/* Whether b is a but for the names of dtypes, a's being the wide one. */
static bool same_but_dtypes(const char *a, const char *b) {
  const char *wide = kn_dtypes[KN_F32].name;
  while (*a && *b) {
    size_t skip = 0;
    for (int d = 0; d < KN_DTYPE_COUNT; d++)
      if (kn_dtypes[d].wide == KN_F32 && !strncmp(b, kn_dtypes[d].name, strlen(kn_dtypes[d].name)))
        skip = strlen(kn_dtypes[d].name);
    if (skip && !strncmp(a, wide, strlen(wide)))
      a += strlen(wide), b += skip;
    else if (*a++ != *b++)
      return false;
  }
  return *a == *b;
}

/* What the parts refused they saw as float32. They are asked again with the tensors as given: if they then
 * say the same of the user's dtypes, that is the sentence. */
static void name_as_given(kn_context *ctx, const kn_op_info *row, kn_composite_fn fn, const void *attrs,
                          kn_tensor *const *in, int n) {
  kn_tensor *made[KN_MAX_OUTPUTS] = {NULL};
  char said[KN_ERROR_SIZE];
  kn_status status = ctx->error_status;
  bool placed = ctx->error_placed;
  if (status == KN_NOMEM || row->flags & KN_FLAG_RANDOM || ctx->recorder) return;
  memcpy(said, ctx->error, sizeof said);
  kn_status again = fn(ctx, attrs, in, n, made);
  if (again == KN_OK) release_all(made, row->outs);
  if (again == status && same_but_dtypes(said, ctx->error)) return;
  memcpy(ctx->error, said, sizeof said);
  ctx->error_status = status;
  ctx->error_placed = placed;
}

kn_status kn_apply_wide(kn_context *ctx, kn_op op, kn_composite_fn fn, const void *attrs,
                        kn_tensor *const *in, int n, kn_tensor **out) {
  const uint8_t autocast = ctx->autocast;
  bool wide = false;
  for (int i = 0; i < n; i++) wide |= in[i] && is_half(in[i]);
  if (!wide) return fn(ctx, attrs, in, n, out);
  ctx->autocast = KN_BOOL; /* its parts are float32 on purpose */
  kn_status st = run_wide(ctx, &kn_ops[op], fn, attrs, in, n, out);
  ctx->autocast = autocast;
  if (st != KN_OK) name_as_given(ctx, &kn_ops[op], fn, attrs, in, n);
  return st;
}

/* A composite as a whole by a provider's kernel, where nobody asks for its parts: nothing is recorded or
 * taped. KN_DECLINED where there is none. */
static kn_status run_whole(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                           kn_tensor **out) {
  if (n == 0 || ctx->recorder || !kn_device_offers(ctx, (kn_device_id)in[0]->type.device, op))
    return KN_DECLINED;
  for (int i = 0; i < n; i++)
    if (!in[i] || kn_tensor_is_symbolic(in[i]) || (ctx->grad_enabled && kn_requires_grad(in[i])) ||
        in[i]->type.device != in[0]->type.device)
      return KN_DECLINED;
  kn_tensor *made;
  KN_TRY(kn_tensor_symbolic(ctx, &in[0]->type, NULL, &made));
  kn_status st = kn_device_run(ctx, op, attrs, in, n, &made, NULL);
  if (st == KN_OK)
    *out = made;
  else
    kn_tensor_release(made);
  ctx->op_count += st == KN_OK;
  return st;
}

static kn_status apply_composite(kn_context *ctx, const kn_op_info *row, const void *attrs,
                                 kn_tensor *const *in, int n, kn_tensor **out) {
  const kn_op op = (kn_op)(row - kn_ops);
  kn_tensor *made[KN_MAX_OUTPUTS];
  kn_status whole = run_whole(ctx, op, attrs, in, n, out);
  if (whole == KN_NOMEM) kn_error_prefix(ctx, "%s", row->name);
  if (whole != KN_DECLINED) return whole;
  const kn_within within = {row->name, ctx->within};
  ctx->within = &within;
  kn_status st = row->flags & KN_FLAG_WIDE ? kn_apply_wide(ctx, op, row->composite, attrs, in, n, made)
                                           : row->composite(ctx, attrs, in, n, made);
  ctx->within = within.up;
  if (st != KN_OK) {
    kn_error_prefix(ctx, "%s", row->name);
    return st;
  }
  for (int i = 0; i < row->outs; i++) out[i] = made[i];
  return KN_OK;
}

/* copy_ from another device: what comes over is then copied. */
static kn_status copy_across(kn_context *ctx, kn_op op, kn_tensor *const *in, kn_tensor **out) {
  const kn_attrs_device to = {.device = in[0]->type.device};
  kn_tensor *from;
  KN_TRY(kn_apply(ctx, KN_OP_to_device, &to, &in[1], 1, &from));
  kn_status st = kn_apply(ctx, op, NULL, (kn_tensor *[]){in[0], from}, 2, out);
  kn_tensor_release(from);
  return st;
}

kn_status kn_apply(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                   kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  KN_TRY(check_arity(ctx, row, attrs, n));
  KN_TRY(check_given(ctx, row, in, n));
  if (kn_autocasts(ctx, row)) return kn_autocast_apply(ctx, op, attrs, in, n, out);
  if (row->composite) return apply_composite(ctx, row, attrs, in, n, out);
  if (row->flags & KN_FLAG_WRITES && in[0]->type.device != in[1]->type.device)
    return copy_across(ctx, op, in, out);

  kn_type in_types[KN_MAX_INPUTS], types[KN_MAX_OUTPUTS];
  bool symbolic = has_placeholder(row, attrs), wants_grad = false;
  for (int i = 0; i < n; i++) {
    in_types[i] = in[i]->type;
    symbolic |= kn_tensor_is_symbolic(in[i]);
    wants_grad |= (in[i]->grad || in[i]->base) && kn_requires_grad(in[i]);
  }
  KN_TRY(infer(ctx, op, attrs, in_types, n, types));
  kn_tape_write write = {NULL, NULL};
  if (row->flags & KN_FLAG_WRITES) {
    KN_TRY(check_write(ctx, row->name, in[0]));
    KN_TRY(kn_tape_check_write(ctx, op, in, n));
    KN_TRY(kn_tape_prepare_write(ctx, in, &write));
  }

  kn_tensor *made[KN_MAX_OUTPUTS];
  kn_recorder *rec = symbolic ? kn_recorder_of(ctx) : ctx->recorder;
  kn_status st;
  if (rec && (symbolic || rec->all))
    st = rec->apply(rec, ctx, op, attrs, in, n, types, made);
  else if (symbolic)
    st = kn_fail(ctx, KN_STATE, "%s: a symbolic tensor has no data, and no graph is being recorded",
                 row->name);
  else
    st = kn_run_now(ctx, op, attrs, in, n, types, made);
  if (st != KN_OK) {
    kn_tape_drop_write(&write);
    return st;
  }
  ctx->op_count++;

  if (row->flags & KN_FLAG_WRITES) {
    kn_tape_commit_write(&write, in[0]);
  } else if (ctx->grad_enabled && wants_grad && row->vjp) {
    st = kn_tape_record(ctx, op, attrs, in, n, made);
    if (st != KN_OK) {
      release_all(made, row->outs);
      return st;
    }
  }
  for (int i = 0; i < row->outs; i++) out[i] = made[i];
  return KN_OK;
}

/* ---- in place: compute, then overwrite ---- */

static kn_status check_inplace(kn_context *ctx, const char *name, const kn_type *r, const kn_type *t) {
  char rt[KN_TYPE_TEXT], tt[KN_TYPE_TEXT];
  bool fits = r->rank == t->rank;
  for (int i = 0; fits && i < r->rank; i++)
    fits = !kn_dim_known(r->dims[i]) || !kn_dim_known(t->dims[i]) || r->dims[i] == t->dims[i];
  if (!fits)
    return kn_fail(ctx, KN_SHAPE, "%s: the result %s does not have the shape of the tensor to overwrite, %s",
                   name, kn_type_text(r, rt, sizeof rt), kn_type_text(t, tt, sizeof tt));
  if (r->device != t->device)
    return kn_fail(ctx, KN_ARG, "%s: the result is on %s, and the tensor to overwrite on %s", name,
                   kn_device_name((kn_device_id)r->device), kn_device_name((kn_device_id)t->device));
  if (kn_dtypes[r->dtype].category > kn_dtypes[t->dtype].category)
    return kn_fail(ctx, KN_DTYPE, "%s: the result is %s, which cannot be kept in a %s tensor", name,
                   kn_dtype_name((kn_dtype)r->dtype), kn_dtype_name((kn_dtype)t->dtype));
  return KN_OK;
}

/* Whether the gradient may have to read what is about to be overwritten: it is then kept, as a clone. */
static bool reads_itself(const kn_context *ctx, const kn_op_info *row, kn_tensor *const *in, int n) {
  bool wants_grad = false;
  if (!ctx->grad_enabled || (ctx->recorder && !ctx->recorder->runs)) return false;
  for (int i = 0; i < n; i++) wants_grad |= in[i] && kn_requires_grad(in[i]);
  return wants_grad && (row->composite || (row->vjp && row->saves & KN_SAVE_INPUTS));
}

kn_status kn_apply_inplace(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                           kn_tensor **out) {
  const kn_op_info *row = &kn_ops[op];
  char name[64];
  snprintf(name, sizeof name, "%s_", row->name);
  KN_TRY(check_arity(ctx, row, attrs, n));
  KN_TRY(check_given(ctx, row, in, n));
  if (n == 0 || row->outs != 1 || row->op_class == KN_CLASS_VIEW || (row->flags & KN_FLAG_WRITES))
    return kn_fail(ctx, KN_UNSUPPORTED, "%s: there is no in-place form of this op", row->name);
  KN_TRY(check_write(ctx, name, in[0]));
  KN_TRY(kn_tape_check_write(ctx, op, in, n));
  if (row->infer && n <= KN_MAX_INPUTS) { /* find out before computing */
    kn_type in_types[KN_MAX_INPUTS], types[KN_MAX_OUTPUTS];
    for (int i = 0; i < n; i++) in_types[i] = in[i]->type;
    KN_TRY(kn_infer_types(ctx, op, attrs, in_types, n, types));
    KN_TRY(check_inplace(ctx, name, &types[0], &in[0]->type));
  }
  kn_tensor *result, *from[KN_MAX_INPUTS], *old = NULL;
  memcpy(from, in, (size_t)n * sizeof *from);
  if (reads_itself(ctx, row, in, n)) {
    KN_TRY(kn_apply(ctx, KN_OP_clone, NULL, in, 1, &old));
    for (int i = 0; i < n; i++)
      if (in[i] == in[0]) from[i] = old;
  }
  kn_status st = kn_apply(ctx, op, attrs, from, n, &result);
  kn_tensor_release(old);
  KN_TRY(st);
  st = check_inplace(ctx, name, &result->type, &in[0]->type);
  kn_recorder *rec = kn_recorder_of(ctx);
  if (rec) rec->handing = true, rec->writer = (int)op | KN_WRITER_INPLACE;
  if (st == KN_OK) st = kn_apply(ctx, KN_OP_copy_, NULL, (kn_tensor *[]){in[0], result}, 2, out);
  if (rec) rec->handing = false;
  kn_tensor_release(result);
  if (st == KN_OK && in[0]->storage)
    atomic_store_explicit(&in[0]->storage->writer, (int)op | KN_WRITER_INPLACE, memory_order_relaxed);
  return st;
}

/* ---- elements that change hands ---- */

/* Is t, as it lies, all of a storage whose memory may be another's? That of a device may, within the device.
 */
static bool fills_storage(const kn_tensor *t) {
  const kn_storage *s = t->storage;
  return s && (!s->release || s->device != KN_CPU) && !s->close && !t->offset && kn_tensor_contiguous(t) &&
         s->bytes == (size_t)kn_tensor_numel(t) * kn_dtype_size(kn_tensor_dtype(t));
}

kn_status kn_take_elements(kn_context *ctx, kn_tensor *t, kn_tensor *from) {
  kn_tensor *in[2] = {t, from}, *same;
  const bool may = !ctx->grad_enabled && !ctx->recorder && kn_type_equal(&t->type, &from->type) &&
                   fills_storage(t) && fills_storage(from) && t->storage != from->storage &&
                   t->storage->heap == from->storage->heap && t->storage->release == from->storage->release &&
                   t->storage->release_ud == from->storage->release_ud &&
                   atomic_load(&from->storage->refs) == 1;
  if (!may) {
    KN_TRY(kn_apply(ctx, KN_OP_copy_, NULL, in, 2, &same));
    kn_tensor_release(same);
    return KN_OK;
  }
  KN_TRY(kn_tape_check_write(ctx, KN_OP_copy_, in, 2));
  void *data = t->storage->data;
  t->storage->data = from->storage->data;
  from->storage->data = data;
  note_write(t, KN_OP_copy_);
  note_write(from, KN_OP_copy_);
  return KN_OK;
}

/* ---- numbers in and out ---- */

static bool concerns(const kn_context *ctx, const kn_tensor *t) {
  return kn_tensor_is_symbolic(t) ? kn_recorder_of(ctx) != NULL : ctx->recorder && ctx->recorder->all;
}

kn_status kn_item(kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  int64_t count = kn_tensor_numel(t);
  if (count != 1 && count != KN_DIM_UNKNOWN) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_SHAPE, "item: a tensor of one element is needed (got %s)",
                   kn_type_text(&t->type, text, sizeof text));
  }
  if (concerns(ctx, t)) return kn_recorder_of(ctx)->item(kn_recorder_of(ctx), ctx, t, out);
  if (kn_tensor_is_symbolic(t))
    return kn_fail(ctx, KN_STATE, "item: a symbolic tensor has no data, and no graph is being recorded");
  return kn_scalar_of(ctx, t, out);
}

kn_status kn_size(kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out) {
  if (dim < 0 || dim >= t->type.rank) {
    char text[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_ARG, "size: dim %d does not exist (got %s)", dim + 1,
                   kn_type_text(&t->type, text, sizeof text));
  }
  if (kn_dim_known(t->type.dims[dim])) {
    *out = (kn_scalar){KN_SCALAR_INT, {.i = t->type.dims[dim]}};
    return KN_OK;
  }
  kn_recorder *rec = kn_recorder_of(ctx);
  if (!rec)
    return kn_fail(ctx, KN_STATE, "size: a symbolic tensor has no sizes yet, and no graph is being recorded");
  return rec->size(rec, ctx, t, dim, out);
}

/* ---- handles ---- */

kn_status kn_check_writable(kn_context *ctx, const char *what, kn_tensor *t) {
  KN_TRY(check_write(ctx, what, t));
  return kn_tape_check_write(ctx, KN_OP_copy_, (kn_tensor *[]){t, t}, 2);
}

kn_status kn_is_contiguous(kn_context *ctx, kn_tensor *t, bool *out) {
  kn_recorder *r = kn_recorder_of(ctx);
  if (kn_tensor_is_symbolic(t) && r && r->contiguous) return r->contiguous(r, ctx, t, out);
  *out = t->storage && kn_tensor_contiguous(t);
  return KN_OK;
}

kn_status kn_detach(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  kn_recorder *r = kn_recorder_of(ctx);
  if (kn_tensor_is_symbolic(t) && r && r->alias) return r->alias(r, ctx, t, out);
  return kn_tensor_alias(ctx, t, out);
}

kn_status kn_scalar_of(kn_context *ctx, kn_tensor *t, kn_scalar *out) {
  if (t->type.device == KN_CPU) {
    *out = kn_scalar_read(t);
    return KN_OK;
  }
  kn_tensor first = *t, *host; /* looked at meanwhile, never kept */
  first.type.rank = 0;
  KN_TRY(kn_to_host(ctx, &first, &host));
  *out = kn_scalar_read(host);
  kn_tensor_release(host);
  return KN_OK;
}

kn_scalar kn_scalar_read(const kn_tensor *t) {
  kn_dtype d = kn_tensor_dtype(t);
  const void *at = kn_tensor_data(t);
  switch (kn_dtypes[d].category) {
  case KN_CAT_BOOL: return (kn_scalar){KN_SCALAR_BOOL, {.b = kn_element_int(d, at)}};
  case KN_CAT_INT: return (kn_scalar){KN_SCALAR_INT, {.i = kn_element_int(d, at)}};
  case KN_CAT_FLOAT: break;
  }
  return (kn_scalar){KN_SCALAR_FLOAT, {.f = kn_element_float(d, at)}};
}

void kn_scalar_write(const kn_scalar *s, kn_tensor *t) {
  if (s->kind == KN_SCALAR_FLOAT)
    kn_element_put_float(kn_tensor_dtype(t), kn_tensor_data(t), s->as.f);
  else
    kn_element_put_int(kn_tensor_dtype(t), kn_tensor_data(t), s->kind == KN_SCALAR_BOOL ? s->as.b : s->as.i);
}

kn_status kn_scalar_check(kn_context *ctx, const kn_scalar *s, kn_dtype dtype) {
  const kn_dtype_info *row = &kn_dtypes[dtype];
  if (row->category != KN_CAT_INT || s->kind == KN_SCALAR_BOOL || s->kind == KN_SCALAR_SYMBOL) return KN_OK;
  char text[32];
  if (s->kind == KN_SCALAR_INT) {
    if (s->as.i >= row->lowest && s->as.i <= row->highest) return KN_OK;
    snprintf(text, sizeof text, "%lld", (long long)s->as.i);
  } else {
    if (kn_dtype_holds(dtype, s->as.f)) return KN_OK;
    snprintf(text, sizeof text, "%g", s->as.f);
  }
  return kn_fail(ctx, KN_ARG, "%s does not fit in %s (%lld to %lld)", text, row->name, (long long)row->lowest,
                 (long long)row->highest);
}

kn_status kn_scalar_tensor(kn_context *ctx, const kn_scalar *s, kn_dtype dtype, kn_tensor **out) {
  if (s->kind == KN_SCALAR_SYMBOL) {
    kn_recorder *rec = kn_recorder_of(ctx);
    if (!rec) return kn_fail(ctx, KN_STATE, "a symbolic number was used while no graph is being recorded");
    return rec->to_tensor(rec, ctx, s, dtype, out);
  }
  KN_TRY(kn_scalar_check(ctx, s, dtype));
  kn_type type = {.dtype = (uint8_t)dtype, .device = KN_CPU};
  kn_tensor *t;
  KN_TRY(kn_tensor_new(ctx, &type, &t));
  kn_scalar_write(s, t);
  kn_status st = KN_OK;
  if (ctx->recorder && ctx->recorder->number) st = ctx->recorder->number(ctx->recorder, ctx, s, t);
  if (st == KN_OK)
    *out = t;
  else
    kn_tensor_release(t);
  return st;
}

kn_status kn_scalar_tensor_for(kn_context *ctx, const char *name, const kn_scalar *s, kn_dtype dtype,
                               kn_tensor **out) {
  const kn_within within = {name, ctx->within};
  ctx->within = &within;
  kn_status st = kn_scalar_tensor(ctx, s, dtype, out);
  ctx->within = within.up;
  if (st != KN_OK) kn_error_prefix(ctx, "%s", name);
  return st;
}

kn_dtype kn_scalar_dtype(kn_scalar_kind kind, kn_dtype beside) {
  kn_category c = kind == KN_SCALAR_BOOL ? KN_CAT_BOOL : kind == KN_SCALAR_INT ? KN_CAT_INT : KN_CAT_FLOAT;
  if (kn_dtypes[beside].category >= c) return beside;
  return c == KN_CAT_INT ? KN_I64 : KN_F32;
}
