/* Writing and reading checkpoints: see checkpoint.h. The state of the random numbers is text, as JSON has no
 * whole numbers of 64 bits. */
#include "graph/checkpoint.h"
#include "core/device.h"
#include "graph/file_keys.h"
#include "graph/session.h"
#include "graph/tensors_file.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static kn_random *random_of(kn_session *s) { return s->random ? s->random : &s->ctx->random; }

static bool is_kept(const kn_slot *slot) { return slot->kind == KN_SLOT_STATE; }

/* ---- writing ---- */

static kn_status saved_tensor(kn_session *s, uint32_t i, kn_tensor **out) {
  kn_rvalue v;
  KN_TRY(kn_session_get_slot(s, i, &v));
  if (!v.tensor) return kn_scalar_store(s->ctx, &v.scalar, out);
  kn_status st = kn_safetensors_dense(s->ctx, v.tensor, out);
  kn_tensor_release(v.tensor);
  return st;
}

static kn_span span(const char *text) { return (kn_span){text, strlen(text)}; }

static kn_status save(kn_session *s, const char *path, const kn_named_tensor *list, uint32_t n) {
  char version[16], random[48];
  const kn_random *r = random_of(s);
  snprintf(version, sizeof version, "%d", KN_CHECKPOINT_VERSION);
  snprintf(random, sizeof random, "%" PRIu64 " %" PRIu64, r->seed, r->offset);
  const kn_st_meta meta[] = {{span(KN_KEY_CHECKPOINT), span(version), {0}},
                             {span(KN_KEY_PRODUCER), span("kiln " KN_VERSION_TEXT), {0}},
                             {span(KN_KEY_RANDOM), span(random), {0}},
                             {span(KN_KEY_CHECKSUM), span(KN_NO_SUM), {0}}};
  return kn_tensors_save(s->ctx, path, list, n, meta, sizeof meta / sizeof *meta);
}

kn_status kn_session_checkpoint(kn_session *s, const char *path) {
  const kn_graph *g = s->graph;
  KN_TRY(kn_session_at_rest(s));
  kn_named_tensor *list = kn_calloc(s->ctx->heap, g->nslots + 1u, sizeof *list);
  if (!list) return kn_fail_nomem(s->ctx, g->nslots * sizeof *list);
  uint32_t n = 0;
  kn_status st = KN_OK;
  for (uint32_t i = 0; i < g->nslots && st == KN_OK; i++) {
    if (!is_kept(g->slots[i])) continue;
    list[n].name = span(g->slots[i]->name);
    st = saved_tensor(s, i, &list[n].tensor);
    n += st == KN_OK;
  }
  if (st == KN_OK) st = save(s, path, list, n);
  for (uint32_t i = 0; i < n; i++) kn_tensor_release(list[i].tensor);
  kn_free(s->ctx->heap, list, (g->nslots + 1u) * sizeof *list);
  return st;
}

/* ---- what the file says ---- */

static bool whole(const char **at, uint64_t *out) {
  const char *from = *at;
  uint64_t v = 0;
  for (; **at >= '0' && **at <= '9'; (*at)++) {
    const uint64_t digit = (uint64_t)(**at - '0');
    if (v > (UINT64_MAX - digit) / 10) return false;
    v = v * 10 + digit;
  }
  *out = v;
  return *at > from;
}

static kn_status read_meta(kn_context *ctx, const kn_tensors_file *f, kn_random *random) {
  const kn_st_meta *v = kn_safetensors_meta(&f->header, KN_KEY_CHECKPOINT);
  const kn_st_meta *r = kn_safetensors_meta(&f->header, KN_KEY_RANDOM);
  uint64_t version = 0;
  if (!v) return kn_fail(ctx, KN_FORMAT, "not a checkpoint: its metadata has no " KN_KEY_CHECKPOINT);
  const char *at = v->value.s;
  if (!whole(&at, &version) || *at || !version)
    return kn_fail(ctx, KN_FORMAT, KN_KEY_CHECKPOINT " is no version: \"%.40s\"", v->value.s);
  if (version > KN_CHECKPOINT_VERSION)
    return kn_fail(ctx, KN_VERSION,
                   "the checkpoint has version %" PRIu64 ", this kiln (%s) reads up to version %d", version,
                   KN_VERSION_TEXT, KN_CHECKPOINT_VERSION);
  KN_TRY(kn_safetensors_check_sum(ctx, &f->header, f->map->bytes, f->map->size));
  at = r ? r->value.s : "";
  if (!whole(&at, &random->seed) || *at++ != ' ' || !whole(&at, &random->offset) || *at)
    return kn_fail(ctx, KN_FORMAT, KN_KEY_RANDOM " is no state of random numbers: \"%.60s\"",
                   r ? r->value.s : "");
  return KN_OK;
}

/* ---- does it fit? ---- */

/* The sentence under way: what does not fit, one after the other. */
typedef struct misfits {
  char text[700];
  size_t n;
  uint32_t count, shown;
} misfits;

static void misfit(misfits *m, const char *name, const char *what, const char *got, const char *want) {
  char one[400];
  int n = snprintf(one, sizeof one, "%s\"%.100s\" %s%s%s%s", m->count++ ? ", " : "", name, what, got,
                   *want ? " instead of " : "", want);
  if (n < 0 || (size_t)n >= sizeof one || m->n + (size_t)n >= sizeof m->text) return;
  memcpy(m->text + m->n, one, (size_t)n + 1);
  m->n += (size_t)n;
  m->shown++;
}

/* The type in the file of a slot of this type. */
static bool type_fits(const kn_vtype *t, const kn_type *got) {
  if (t->kind == KN_V_TENSOR) {
    kn_type want = t->tensor;
    want.device = got->device;
    return kn_type_equal(&want, got);
  }
  return kn_scalar_stored_as(t->kind, got);
}

static bool has_slot(const kn_graph *g, kn_span name) {
  for (uint32_t i = 0; i < g->nslots; i++)
    if (is_kept(g->slots[i]) && strlen(g->slots[i]->name) == name.n &&
        !memcmp(g->slots[i]->name, name.s, name.n))
      return true;
  return false;
}

static kn_status check_fit(kn_session *s, const kn_tensors_file *f) {
  misfits m = {.n = 0};
  uint32_t kept = 0, found = 0;
  for (uint32_t i = 0; i < s->graph->nslots; i++) {
    const kn_slot *slot = s->graph->slots[i];
    if (!is_kept(slot)) continue;
    char want[KN_TYPE_TEXT], got[KN_TYPE_TEXT];
    const kn_st_tensor *t = kn_safetensors_tensor(&f->header, span(slot->name));
    kept++;
    found += t != NULL;
    if (!t)
      misfit(&m, slot->name, "is missing", "", "");
    else if (!type_fits(&slot->type, &t->type))
      misfit(&m, slot->name, "is ", kn_type_text(&t->type, got, sizeof got),
             kn_vtype_text(s->graph, &slot->type, want, sizeof want));
  }
  for (uint32_t i = 0; f->header.ntensors > found && i < f->header.ntensors; i++)
    if (!has_slot(s->graph, f->header.tensors[i].name))
      misfit(&m, f->header.tensors[i].name.s, "is no slot of the graph", "", "");
  if (!m.count) return KN_OK;
  char more[48] = "";
  if (m.count > m.shown) snprintf(more, sizeof more, "; and %" PRIu32 " more", m.count - m.shown);
  return kn_fail(s->ctx, KN_ARG, "the checkpoint does not fit graph %.60s: %s%s", s->graph->name, m.text,
                 more);
}

/* ---- reading ---- */

/* A copy of its own where the slot is: the file may be overwritten at any time. */
static kn_status slot_value(kn_context *ctx, const kn_tensors_file *f, const kn_slot *slot, kn_rvalue *out) {
  kn_tensor *at, *own;
  KN_TRY(kn_tensors_get(ctx, f, kn_safetensors_tensor(&f->header, span(slot->name)), &at));
  kn_status st = KN_OK;
  if (slot->type.kind == KN_V_TENSOR) {
    st = slot->type.tensor.device == KN_CPU
             ? kn_tensor_new(ctx, &at->type, &own)
             : kn_move_to(ctx, at, (kn_device_id)slot->type.tensor.device, &own);
    size_t bytes;
    if (st == KN_OK && own->type.device == KN_CPU && kn_type_bytes(&at->type, &bytes) && bytes)
      memcpy(kn_tensor_data(own), kn_tensor_data(at), bytes);
    if (st == KN_OK) out->tensor = own;
  } else
    out->scalar = kn_scalar_read(at);
  kn_tensor_release(at);
  return st;
}

static kn_status read_all(kn_session *s, const kn_tensors_file *f, kn_rvalue *values) {
  for (uint32_t i = 0; i < s->graph->nslots; i++)
    if (is_kept(s->graph->slots[i])) KN_TRY(slot_value(s->ctx, f, s->graph->slots[i], &values[i]));
  return KN_OK;
}

/* Types fit, and giving a slot a value takes no memory: nothing fails from here on. */
static kn_status put_all(kn_session *s, const kn_rvalue *values, const kn_random *random) {
  for (uint32_t i = 0; i < s->graph->nslots; i++)
    if (is_kept(s->graph->slots[i])) KN_TRY(kn_session_set_slot(s, i, &values[i]));
  *random_of(s) = *random;
  return KN_OK;
}

kn_status kn_session_restore(kn_session *s, const char *path) {
  const uint32_t n = s->graph->nslots;
  kn_context *ctx = s->ctx;
  kn_tensors_file f;
  kn_random random;
  KN_TRY(kn_session_at_rest(s));
  kn_rvalue *values = kn_calloc(ctx->heap, n + 1u, sizeof *values);
  if (!values) return kn_fail_nomem(ctx, n * sizeof *values);
  kn_status st = kn_tensors_open(ctx, path, &f);
  if (st == KN_OK) {
    st = read_meta(ctx, &f, &random);
    if (st == KN_OK) st = check_fit(s, &f);
    if (st == KN_OK) st = read_all(s, &f, values);
    if (st != KN_OK) kn_error_prefix(ctx, "%s", path);
    kn_tensors_close(&f);
  }
  if (st == KN_OK) st = put_all(s, values, &random);
  for (uint32_t i = 0; i < n; i++) kn_tensor_release(values[i].tensor);
  kn_free(ctx->heap, values, (n + 1u) * sizeof *values);
  return st;
}
