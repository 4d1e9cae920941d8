/* Reading a .kiln file. Order of the checks: header, is it ours, versions, checksum, layout of the data, then
 * the graphs (which the verifier sees) and their slots. Nothing is believed before it is checked. */
#include "graph/file.h"
#include "graph/file_keys.h"
#include "graph/internal.h"
#include "graph/json.h"
#include "graph/mapping.h"
#include "graph/safetensors.h"
#include "graph/syntax.h"
#include "graph/tensors_file.h"
#include "graph/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct loader {
  kn_context *ctx;
  kn_mapping *map;
  kn_st_file file;
  const kn_device_id *on; /* NULL: as it was saved */
  kn_entry *entries;
  uint32_t n, cap;
} loader;

bool kn_entry_name(const char *name) {
  size_t n = name ? strlen(name) : 0;
  if (!n || n > KN_ENTRY_NAME_MAX) return false;
  for (const char *c = name, *end = name + n; c < end;) {
    size_t k = kn_utf8_length(c, end);
    if (!k || (unsigned char)*c < ' ') return false;
    c += k;
  }
  return true;
}

/* ---- versions ---- */

/* A whole number; false when it is none. */
static bool whole(const char **at, const char *end, unsigned *out) {
  const char *s = *at;
  unsigned v = 0;
  while (*at < end && **at >= '0' && **at <= '9' && *at - s < 9) v = v * 10 + (unsigned)(*(*at)++ - '0');
  *out = v;
  return *at > s;
}

static kn_status check_version(const loader *l) {
  kn_context *ctx = l->ctx;
  const kn_st_meta *m = kn_safetensors_meta(&l->file, KN_KEY_VERSION);
  if (!m) return kn_fail(ctx, KN_FORMAT, "not a kiln graph file: its metadata has no " KN_KEY_VERSION);
  const char *at = m->value.s, *end = at + m->value.n;
  unsigned v;
  if (!whole(&at, end, &v) || at != end || !v)
    return kn_fail(ctx, KN_FORMAT, KN_KEY_VERSION " is no version: \"%.40s\"", m->value.s);
  if (v > KN_FILE_VERSION)
    return kn_fail(ctx, KN_VERSION, "the file has format version %u, this kiln (%s) reads up to version %d",
                   v, KN_VERSION_TEXT, KN_FILE_VERSION);
  return KN_OK;
}

static kn_status check_ops(const loader *l) {
  kn_context *ctx = l->ctx;
  const kn_st_meta *m = kn_safetensors_meta(&l->file, KN_KEY_OPS);
  if (!m) return kn_fail(ctx, KN_FORMAT, "its metadata has no " KN_KEY_OPS);
  for (const char *at = m->value.s, *end = at + m->value.n; at < end;) {
    size_t n = strcspn(at, " ");
    const char *number = at + n + 1;
    unsigned v;
    kn_opcode op;
    if (number >= end || !whole(&number, end, &v)) return kn_fail(ctx, KN_FORMAT, KN_KEY_OPS " is malformed");
    int shown = n < 60 ? (int)n : 60;
    if (!kn_opcode_parse(at, n, &op))
      return kn_fail(ctx, KN_VERSION,
                     "the file needs op %.*s (version %u), which this kiln (%s) does not have", shown, at, v,
                     KN_VERSION_TEXT);
    if (v > kn_opcode_version(op))
      return kn_fail(ctx, KN_VERSION, "the file needs version %u of op %.*s, this kiln (%s) has version %u",
                     v, shown, at, KN_VERSION_TEXT, kn_opcode_version(op));
    at = number;
    if (at == end) break;
    if (end - at < 3 || memcmp(at, ", ", 2)) return kn_fail(ctx, KN_FORMAT, KN_KEY_OPS " is malformed");
    at += 2;
  }
  return KN_OK;
}

/* ---- slots ---- */

/* Tensors that several slots share are opened once for each device. */
static kn_status shared_tensor(loader *l, const kn_st_tensor *t, kn_device_id d, kn_tensor **opened,
                               kn_tensor **out) {
  kn_tensor **all = opened + (size_t)(t - l->file.tensors) * KN_DEVICE_COUNT;
  if (!all[KN_CPU]) KN_TRY(kn_tensor_in_file(l->ctx, l->map, &l->file, t, &all[KN_CPU]));
  if (!all[d]) KN_TRY(kn_move_to(l->ctx, all[KN_CPU], d, &all[d]));
  *out = kn_tensor_retain(all[d]);
  return KN_OK;
}

static kn_status fill_slot(loader *l, kn_slot *s, const kn_span *name, kn_tensor **opened) {
  bool needed = s->type.kind == KN_V_TENSOR && !s->tensor;
  if (!name) return needed ? kn_fail(l->ctx, KN_FORMAT, "slot %.100s has no data", s->name) : KN_OK;
  const kn_st_tensor *t = kn_safetensors_tensor(&l->file, *name);
  if (!needed || !t)
    return kn_fail(l->ctx, KN_FORMAT, "slot %.100s: there is no tensor %.100s for it", s->name, name->s);
  kn_type saved = s->type.tensor;
  saved.device = KN_CPU;
  if (!kn_type_equal(&t->type, &saved)) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    return kn_fail(l->ctx, KN_FORMAT, "slot %.100s is %s, its tensor %.100s is %s", s->name,
                   kn_type_text(&saved, a, sizeof a), name->s, kn_type_text(&t->type, b, sizeof b));
  }
  return shared_tensor(l, t, (kn_device_id)s->type.tensor.device, opened, &s->tensor);
}

static kn_status fill_slots(loader *l, kn_graph *g, kn_span text, kn_tensor **opened) {
  kn_json j = {.ctx = l->ctx, .arena = &l->file.arena, .text = text.s, .p = text.s, .end = text.s + text.n};
  kn_json_expect(&j, '[');
  for (uint32_t i = 0; i < g->nslots && j.status == KN_OK; i++) {
    if (i) kn_json_expect(&j, ',');
    kn_span name;
    bool given = !(j.end - j.p >= 4 && !memcmp(j.p, "null", 4));
    if (!given)
      j.p += 4;
    else if (!kn_json_string(&j, &name, NULL))
      break;
    if (j.status == KN_OK) KN_TRY(fill_slot(l, g->slots[i], given ? &name : NULL, opened));
  }
  if (kn_json_expect(&j, ']') && kn_json_end(&j)) return KN_OK;
  kn_error_prefix(l->ctx, "slots of graph %s", g->name);
  return j.status;
}

/* ---- entries ---- */

static kn_status read_entry(loader *l, const kn_st_meta *m, kn_tensor **opened) {
  kn_context *ctx = l->ctx;
  const char *name = m->key.s + strlen(KN_KEY_GRAPH);
  char key[sizeof KN_KEY_SLOTS + KN_ENTRY_NAME_MAX];
  if (!kn_entry_name(name)) return kn_fail(ctx, KN_FORMAT, "a graph has no valid name");
  snprintf(key, sizeof key, KN_KEY_SLOTS "%s", name);
  const kn_st_meta *slots = kn_safetensors_meta(&l->file, key);
  if (!slots) return kn_fail(ctx, KN_FORMAT, "graph %s: its metadata has no %s", name, key);
  char *copy = kn_alloc(ctx->heap, strlen(name) + 1);
  if (!copy) return kn_fail_nomem(ctx, strlen(name) + 1);
  strcpy(copy, name);
  kn_graph *g;
  kn_status st = kn_graph_parse(ctx, m->value.s, m->value.n, &g);
  if (st != KN_OK) {
    kn_error_prefix(ctx, "graph %s", name);
    kn_free(ctx->heap, copy, strlen(copy) + 1);
    return st;
  }
  l->entries[l->n++] = (kn_entry){copy, g};
  if (l->on) KN_TRY(kn_graph_move(ctx, g, *l->on));
  return fill_slots(l, g, slots->value, opened);
}

static bool is_graph_key(const kn_st_meta *m) {
  return !strncmp(m->key.s, KN_KEY_GRAPH, strlen(KN_KEY_GRAPH));
}

static kn_status read_entries(loader *l) {
  kn_context *ctx = l->ctx;
  for (uint32_t i = 0; i < l->file.nmeta; i++) l->cap += is_graph_key(&l->file.meta[i]);
  if (!l->cap) return kn_fail(ctx, KN_FORMAT, "the file holds no graph");
  size_t ntensors = (l->file.ntensors + (size_t)1) * KN_DEVICE_COUNT;
  kn_tensor **opened = kn_calloc(ctx->heap, ntensors, sizeof *opened);
  l->entries = kn_calloc(ctx->heap, l->cap, sizeof *l->entries);
  kn_status st = opened && l->entries ? KN_OK : kn_fail_nomem(ctx, l->cap * sizeof *l->entries);
  for (uint32_t i = 0; st == KN_OK && i < l->file.nmeta; i++)
    if (is_graph_key(&l->file.meta[i])) st = read_entry(l, &l->file.meta[i], opened);
  for (size_t i = 0; opened && i < ntensors; i++) kn_tensor_release(opened[i]);
  kn_free(ctx->heap, opened, ntensors * sizeof *opened);
  return st;
}

static void free_entries(kn_heap *h, kn_entry *entries, uint32_t n, uint32_t cap) {
  for (uint32_t i = 0; i < n; i++) {
    kn_graph_release(entries[i].graph);
    kn_free(h, (void *)(uintptr_t)entries[i].name, strlen(entries[i].name) + 1);
  }
  kn_free(h, entries, cap * sizeof *entries);
}

void kn_file_free_entries(kn_heap *h, kn_entry *entries, uint32_t n) {
  if (entries) free_entries(h, entries, n, n);
}

/* ---- the whole ---- */

/* Releases the loader's hold on the mapping. */
static kn_status load(kn_context *ctx, kn_mapping *map, const kn_device_id *on, kn_entry **entries,
                      uint32_t *n) {
  loader l = {.ctx = ctx, .map = map, .on = on};
  kn_status st = kn_safetensors_read(ctx, map->bytes, map->size, "kiln graph", &l.file);
  if (st == KN_OK) st = check_version(&l);
  if (st == KN_OK) st = check_ops(&l);
  if (st == KN_OK) st = kn_safetensors_check_sum(ctx, &l.file, l.map->bytes, l.map->size);
  if (st == KN_OK) st = kn_safetensors_check(ctx, &l.file);
  if (st == KN_OK) st = read_entries(&l);
  kn_safetensors_free(&l.file);
  kn_mapping_release(map);
  if (st != KN_OK) {
    free_entries(ctx->heap, l.entries, l.n, l.cap);
    return st;
  }
  *entries = l.entries;
  *n = l.n;
  return KN_OK;
}

kn_status kn_file_load(kn_context *ctx, const char *path, const kn_device_id *on, kn_entry **entries,
                       uint32_t *n) {
  kn_mapping *map;
  kn_status st = kn_mapping_open(ctx, path, &map);
  if (st == KN_OK) st = load(ctx, map, on, entries, n);
  if (st != KN_OK && st != KN_IO) kn_error_prefix(ctx, "%s", path);
  return st;
}

kn_status kn_file_load_memory(kn_context *ctx, const void *data, size_t size, kn_release_fn release, void *ud,
                              kn_entry **entries, uint32_t *n) {
  kn_mapping *map;
  KN_TRY(kn_mapping_new(ctx, data, size, release, ud, &map));
  return load(ctx, map, NULL, entries, n);
}
