/* Devices' names, their memory and their lists of kernel providers, and the walk down such a list. */
#include "core/device.h"
#include "core/chosen.h"
#include <stdio.h>
#include <string.h>

/* Their names are the choices of attributes. */
#define NAME(choices, name) #name,
static const char *const names[KN_DEVICE_COUNT] = {KN_CHOICES_device(NAME)};
_Static_assert((int)KN_CHOICE_device_cpu == (int)KN_CPU && (int)KN_CHOICE_device_cuda == (int)KN_CUDA &&
                   (int)KN_CHOICE_device_count == (int)KN_DEVICE_COUNT,
               "attributes hold a kn_device_id");

const kn_provider kn_ref_provider = {
    .name = "ref",
    .kernel =
        {
#define OP(name, ...) [KN_OP_##name] = KN_IF_WITH(name, kn_kernel_##name),
#define COMPOSITE(name, ...)
#include "core/ops.def"
#undef OP
#undef COMPOSITE
        },
};

const char *kn_device_name(kn_device_id d) { return (unsigned)d < KN_DEVICE_COUNT ? names[d] : "?"; }

bool kn_device_parse(const char *name, kn_device_id *out) {
  size_t n = strcspn(name, ":");
  if (name[n] && strcmp(name + n, ":0")) return false; /* there is one of each so far */
  for (int i = 0; i < KN_DEVICE_COUNT; i++)
    if (n == strlen(names[i]) && !strncmp(names[i], name, n)) {
      *out = (kn_device_id)i;
      return true;
    }
  return false;
}

kn_status kn_device_memory(kn_context *ctx, kn_device_id d, const kn_memory **out) {
  kn_context *root = ctx;
  if (d != KN_CPU && !ctx->memory[d]) {
    while (root->parent) root = root->parent;
    if (!root->open_device)
      return kn_fail(ctx, KN_UNSUPPORTED,
                     "device %s cannot be used: the backends of this context are not open",
                     kn_device_name(d));
    KN_TRY(root->open_device(ctx, d, &ctx->memory[d])); /* each context remembers it: it has one thread */
  }
  *out = ctx->memory[d];
  return KN_OK;
}

kn_status kn_move_to(kn_context *ctx, kn_tensor *t, kn_device_id d, kn_tensor **out) {
  if (t->type.device == d) {
    *out = kn_tensor_retain(t);
    return KN_OK;
  }
  const kn_attrs_device to = {.device = (int32_t)d};
  kn_type type = t->type;
  type.device = (uint8_t)d;
  kn_tensor *made;
  KN_TRY(kn_tensor_new(ctx, &type, &made));
  kn_status st = kn_kernel_to_device(ctx, &to, &t, 1, &made);
  if (st == KN_OK)
    *out = made;
  else
    kn_tensor_release(made);
  return st;
}

kn_status kn_to_host(kn_context *ctx, kn_tensor *t, kn_tensor **out) {
  return kn_move_to(ctx, t, KN_CPU, out);
}

kn_status kn_device_add(kn_context *ctx, kn_device_id d, const kn_provider *p) {
  const kn_provider **list = ctx->providers[d];
  if (list[KN_MAX_PROVIDERS - 1])
    return kn_fail(ctx, KN_STATE, "device %s has %d kernel providers already, no room for %s",
                   kn_device_name(d), KN_MAX_PROVIDERS, p->name);
  memmove(list + 1, list, (KN_MAX_PROVIDERS - 1) * sizeof *list);
  list[0] = p;
  return KN_OK;
}

void kn_device_remove(kn_context *ctx, kn_device_id d, const kn_provider *p) {
  const kn_provider **list = ctx->providers[d];
  int kept = 0;
  for (int i = 0; i < KN_MAX_PROVIDERS; i++)
    if (list[i] && list[i] != p) list[kept++] = list[i];
  while (kept < KN_MAX_PROVIDERS) list[kept++] = NULL;
}

/* " (x declined) (y declined)": the providers of the bits. */
static void list_declined(const kn_provider *const *list, unsigned bits, char *text, size_t size) {
  size_t at = 0;
  text[0] = 0;
  for (int i = 0; i < KN_MAX_PROVIDERS; i++) {
    if (!(bits >> i & 1u)) continue;
    int w = snprintf(text + at, size - at, " (%s declined)", list[i]->name);
    if (w > 0 && (size_t)w < size - at) at += (size_t)w;
  }
}

/* "dispatch: matmul(float32[2,3], float32[3,4]) ran on onednn (x declined)" */
static void log_run(kn_context *ctx, kn_op op, kn_tensor *const *in, int n, const char *impl,
                    const char *declined) {
  char text[512], type[KN_TYPE_TEXT];
  size_t at = 0;
  text[0] = 0;
  for (int i = 0; i < n && at < sizeof text - 1; i++) {
    int w = snprintf(text + at, sizeof text - at, "%s%s", i ? ", " : "",
                     kn_type_text(&in[i]->type, type, sizeof type));
    at = w < 0 || (size_t)w >= sizeof text - at ? sizeof text - 1 : at + (size_t)w;
  }
  kn_log(ctx, "dispatch: %s(%s) ran on %s%s", kn_op_name(op), text, impl, declined);
}

bool kn_device_offers(const kn_context *ctx, kn_device_id d, kn_op op) {
  const kn_provider *const *list = ctx->providers[d];
  for (int i = 0; i < KN_MAX_PROVIDERS && list[i]; i++)
    if (list[i]->kernel[op]) return true;
  return false;
}

bool kn_device_prefers(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n) {
  const kn_provider *const *list = ctx->providers[in[0]->type.device];
  for (int i = 0; i < KN_MAX_PROVIDERS && list[i]; i++)
    if (list[i]->prefers && list[i]->prefers(ctx, op, attrs, in, n)) return true;
  return false;
}

kn_status kn_device_run(kn_context *ctx, kn_op op, const void *attrs, kn_tensor *const *in, int n,
                        kn_tensor *const *out, const char **impl) {
  /* Ops on plain numbers of the host beside tensors of a device are the device's; moving is nobody's. */
  const bool moves = n && kn_ops[op].flags & KN_FLAG_DEVICE;
  const kn_device_id d = moves ? KN_CPU : (kn_device_id)out[0]->type.device;
  const kn_provider *const *list = ctx->providers[d];
  char text[128];
  unsigned declined = 0; /* bit per provider */
  for (int i = 0; i < KN_MAX_PROVIDERS && list[i]; i++) {
    kn_kernel_fn kernel = list[i]->kernel[op];
    if (!kernel) continue;
    kn_status st = kernel(ctx, attrs, in, n, out);
    if (st == KN_DECLINED) {
      declined |= 1u << i;
      continue;
    }
    if (st == KN_OK && impl) *impl = list[i]->name;
    if (st == KN_OK && kn_debugging(ctx, KN_DEBUG_DISPATCH)) {
      list_declined(list, declined, text, sizeof text);
      log_run(ctx, op, in, n, list[i]->name, text);
    }
    return st;
  }
  if (kn_ops[op].composite) return KN_DECLINED;
  list_declined(list, declined, text, sizeof text);
  return kn_fail(ctx, KN_UNSUPPORTED, "%s: no kernel for device %s%s", kn_op_name(op), kn_device_name(d),
                 text);
}
