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
  bool on_host;           /* tensors stay on the host, whatever the slots' types say */
  kn_versions versions;
  kn_entry *entries;
  uint32_t n, cap;
  kn_notes *notes;
  kn_tensor **opened; /* of each tensor of the file, by device */
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
  if (v > l->versions.dialect->format)
    return kn_fail(ctx, KN_VERSION, "the file has format version %u, this kiln (%s) reads up to version %u",
                   v, KN_VERSION_TEXT, l->versions.dialect->format);
  return KN_OK;
}

static kn_status check_op(loader *l, const char *name, size_t n, unsigned v) {
  kn_context *ctx = l->ctx;
  const kn_dialect *d = l->versions.dialect;
  const int shown = n < 60 ? (int)n : 60;
  kn_opcode op;
  if (!kn_version_parse(d, name, n, &op))
    return kn_fail(ctx, KN_VERSION, "the file needs op %.*s (version %u), which this kiln (%s) does not have",
                   shown, name, v, KN_VERSION_TEXT);
  if (v > kn_version_newest(d, op))
    return kn_fail(ctx, KN_VERSION, "the file needs version %u of op %.*s, this kiln (%s) has version %u", v,
                   shown, name, KN_VERSION_TEXT, kn_version_newest(d, op));
  if (!v || l->versions.of[op])
    return kn_fail(ctx, KN_FORMAT, KN_KEY_OPS ": %.*s %u %s", shown, name, v,
                   v ? "is there twice" : "is no version");
  l->versions.of[op] = v;
  return KN_OK;
}

static kn_status check_ops(loader *l) {
  kn_context *ctx = l->ctx;
  const kn_st_meta *m = kn_safetensors_meta(&l->file, KN_KEY_OPS);
  if (!m) return kn_fail(ctx, KN_FORMAT, "its metadata has no " KN_KEY_OPS);
  for (const char *at = m->value.s, *end = at + m->value.n; at < end;) {
    size_t n = strcspn(at, " ");
    const char *number = at + n + 1;
    unsigned v;
    if (number >= end || !whole(&number, end, &v)) return kn_fail(ctx, KN_FORMAT, KN_KEY_OPS " is malformed");
    KN_TRY(check_op(l, at, n, v));
    at = number;
    if (at == end) break;
    if (end - at < 3 || memcmp(at, ", ", 2)) return kn_fail(ctx, KN_FORMAT, KN_KEY_OPS " is malformed");
    at += 2;
  }
  return KN_OK;
}

/* ---- slots ---- */

/* Tensors that several slots share are opened once for each device. */
static kn_status shared_tensor(loader *l, const kn_st_tensor *t, kn_device_id d, kn_tensor **out) {
  kn_tensor **all = l->opened + (size_t)(t - l->file.tensors) * KN_DEVICE_COUNT;
  if (!all[KN_CPU]) KN_TRY(kn_tensor_in_file(l->ctx, l->map, &l->file, t, &all[KN_CPU]));
  if (!all[d]) KN_TRY(kn_move_to(l->ctx, all[KN_CPU], d, &all[d]));
  *out = kn_tensor_retain(all[d]);
  return KN_OK;
}

static kn_status fill_slot(loader *l, kn_slot *s, const kn_span *name) {
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
  return shared_tensor(l, t, l->on_host ? KN_CPU : (kn_device_id)s->type.tensor.device, &s->tensor);
}

static bool string_or_null(kn_json *j, kn_span *name, bool *given) {
  *given = j->status == KN_OK && !(j->end - j->p >= 4 && !memcmp(j->p, "null", 4));
  if (*given) return kn_json_string(j, name, NULL);
  if (j->status == KN_OK) j->p += 4;
  return j->status == KN_OK;
}

static kn_json json_of(loader *l, kn_span text) {
  return (kn_json){
      .ctx = l->ctx, .arena = &l->file.arena, .text = text.s, .p = text.s, .end = text.s + text.n};
}

static kn_status fill_slots(loader *l, kn_graph *g, kn_span text) {
  kn_json j = json_of(l, text);
  kn_json_expect(&j, '[');
  for (uint32_t i = 0; i < g->nslots && j.status == KN_OK; i++) {
    if (i) kn_json_expect(&j, ',');
    kn_span name;
    bool given;
    if (!string_or_null(&j, &name, &given)) break;
    KN_TRY(fill_slot(l, g->slots[i], given ? &name : NULL));
  }
  if (kn_json_expect(&j, ']') && kn_json_end(&j)) return KN_OK;
  kn_error_prefix(l->ctx, "slots of graph %s", g->name);
  return j.status;
}

/* ---- notes ---- */

kn_status kn_notes_new(kn_context *ctx, kn_notes **out) {
  kn_notes *n = kn_calloc(ctx->heap, 1, sizeof *n);
  if (!n) return kn_fail_nomem(ctx, sizeof *n);
  atomic_init(&n->refs, 1);
  kn_arena_init(&n->arena, kn_heap_retain(ctx->heap));
  *out = n;
  return KN_OK;
}

kn_notes *kn_notes_retain(kn_notes *notes) {
  atomic_fetch_add_explicit(&notes->refs, 1, memory_order_relaxed);
  return notes;
}

void kn_notes_release(kn_notes *notes) {
  if (!notes || atomic_fetch_sub_explicit(&notes->refs, 1, memory_order_acq_rel) != 1) return;
  kn_heap *heap = notes->arena.heap;
  kn_arena_free(&notes->arena);
  kn_free(heap, notes, sizeof *notes);
  kn_heap_release(heap);
}

const char *kn_notes_find(const kn_notes *notes, const char *name) {
  for (uint32_t i = 0; notes && i < notes->n; i++)
    if (!strcmp(notes->list[i].name, name)) return notes->list[i].text;
  return NULL;
}

/* Control characters are fine in texts. */
static bool is_utf8(const char *s) {
  for (const char *end = s + strlen(s); s < end;) {
    size_t k = kn_utf8_length(s, end);
    if (!k) return false;
    s += k;
  }
  return true;
}

/* Both live as long as the notes. */
static kn_status push_note(kn_context *ctx, kn_notes *notes, const char *name, const char *text) {
  kn_note *list = name && text ? kn_arena_grow(&notes->arena, notes->list, notes->n, sizeof *list) : NULL;
  if (!list) return kn_fail_nomem(ctx, sizeof *list);
  notes->list = list;
  notes->list[notes->n++] = (kn_note){name, text};
  return KN_OK;
}

kn_status kn_notes_add(kn_context *ctx, kn_notes *notes, const char *name, const char *text) {
  if (!kn_entry_name(name))
    return kn_fail(ctx, KN_ARG, "names of notes are 1 to %d bytes of text", KN_ENTRY_NAME_MAX);
  if (!is_utf8(text)) return kn_fail(ctx, KN_ARG, "note %s is not valid UTF-8", name);
  if (kn_notes_find(notes, name)) return kn_fail(ctx, KN_ARG, "there is a note %s already", name);
  return push_note(ctx, notes, kn_arena_strdup(&notes->arena, name), kn_arena_strdup(&notes->arena, text));
}

static bool begins(const kn_st_meta *m, const char *key) { return !strncmp(m->key.s, key, strlen(key)); }

/* No two have the same name: they are keys. */
static kn_status read_notes(loader *l) {
  for (uint32_t i = 0; i < l->file.nmeta; i++) {
    const kn_st_meta *m = &l->file.meta[i];
    if (!begins(m, KN_KEY_NOTE)) continue;
    if (!l->notes) KN_TRY(kn_notes_new(l->ctx, &l->notes));
    kn_arena *a = &l->notes->arena;
    KN_TRY(push_note(l->ctx, l->notes, kn_arena_strdup(a, m->key.s + strlen(KN_KEY_NOTE)),
                     kn_arena_strdup(a, m->value.s)));
  }
  return KN_OK;
}

/* ---- test vectors ---- */

/* A tensor of the file as what the graph takes or gives for `v`. */
static kn_status read_value(loader *l, const kn_value *v, kn_span name, kn_rvalue *out) {
  kn_context *ctx = l->ctx;
  const kn_st_tensor *t = kn_safetensors_tensor(&l->file, name);
  if (!t) return kn_fail(ctx, KN_FORMAT, "there is no tensor %.100s", name.s);
  kn_vtype type = {.tensor = t->type};
  bool fits;
  if (v->type.kind == KN_V_TENSOR) {
    type.tensor.device = v->type.tensor.device;
    fits = kn_vtype_may_be(&type, &v->type);
  } else
    fits = kn_scalar_stored_as(v->type.kind, &t->type);
  if (!fits) {
    char a[KN_TYPE_TEXT], b[KN_TYPE_TEXT];
    return kn_fail(ctx, KN_FORMAT, "tensor %.100s is %s, and the graph has %s there", name.s,
                   kn_type_text(&t->type, a, sizeof a),
                   kn_vtype_text(v->region->graph, &v->type, b, sizeof b));
  }
  kn_tensor *x;
  KN_TRY(shared_tensor(l, t, KN_CPU, &x));
  if (v->type.kind == KN_V_TENSOR) {
    out->tensor = x;
    return KN_OK;
  }
  out->scalar = kn_scalar_read(x);
  kn_tensor_release(x);
  return KN_OK;
}

static bool key_is(kn_json *j, const char *key) {
  kn_span s;
  if (!kn_json_string(j, &s, NULL)) return false;
  if (strlen(key) != s.n || memcmp(key, s.s, s.n)) return kn_json_fail(j, "\"%s\" is missing", key);
  return kn_json_expect(j, ':');
}

static bool read_values(loader *l, kn_json *j, kn_value *const *of, uint32_t n, bool may_lack,
                        kn_rvalue *out) {
  if (!kn_json_expect(j, '[')) return false;
  for (uint32_t i = 0; i < n; i++) {
    kn_span name;
    bool given;
    if ((i && !kn_json_expect(j, ',')) || !string_or_null(j, &name, &given)) return false;
    if (!given && !(may_lack && of[i]->type.kind == KN_V_TENSOR))
      return kn_json_fail(j, "null stands for a value");
    if (given && (j->status = read_value(l, of[i], name, &out[i])) != KN_OK) return false;
  }
  return kn_json_expect(j, ']');
}

static bool read_runs(loader *l, kn_json *j, const kn_region *body, kn_vectors *v) {
  kn_span tolerance;
  if (!kn_json_expect(j, '{') || !key_is(j, "tolerance") || !kn_json_string(j, &tolerance, NULL))
    return false;
  if (tolerance.n && (!kn_double_parse(tolerance.s, tolerance.n, &v->tolerance) || !(v->tolerance >= 0)))
    return kn_json_fail(j, "this is no tolerance");
  if (!kn_json_expect(j, ',') || !key_is(j, "runs") || !kn_json_expect(j, '[')) return false;
  do {
    const uint32_t i = v->n;
    if ((j->status = kn_vectors_add(l->ctx, v)) != KN_OK) return false;
    if (!kn_json_expect(j, '{') || !key_is(j, "in") ||
        !read_values(l, j, body->params, v->nin, false, kn_vectors_in(v, i)) || !kn_json_expect(j, ',') ||
        !key_is(j, "out") || !read_values(l, j, body->yields, v->nout, true, kn_vectors_out(v, i)) ||
        !kn_json_expect(j, '}'))
      return false;
  } while (kn_json_accept(j, ','));
  return kn_json_expect(j, ']') && kn_json_expect(j, '}') && kn_json_end(j);
}

static kn_status read_vectors(loader *l, kn_entry *e, kn_span text) {
  KN_TRY(kn_vectors_new(l->ctx, e->graph, &e->vectors));
  kn_json j = json_of(l, text);
  if (read_runs(l, &j, e->graph->body, e->vectors)) return KN_OK;
  kn_error_prefix(l->ctx, "test vectors");
  return j.status;
}

/* ---- entries ---- */

/* "KEY.NAME" in the metadata; NULL: none. */
static const kn_st_meta *meta_of(const loader *l, const char *prefix, const char *name) {
  char key[64 + KN_ENTRY_NAME_MAX];
  snprintf(key, sizeof key, "%s%s", prefix, name);
  return kn_safetensors_meta(&l->file, key);
}

static kn_status copy_text(kn_context *ctx, const char *s, const char **out) {
  char *copy = kn_alloc(ctx->heap, strlen(s) + 1);
  if (!copy) return kn_fail_nomem(ctx, strlen(s) + 1);
  *out = strcpy(copy, s);
  return KN_OK;
}

static kn_status fill_entry(loader *l, kn_entry *e, const kn_st_meta *m) {
  kn_context *ctx = l->ctx;
  const kn_st_meta *slots = meta_of(l, KN_KEY_SLOTS, e->name), *origin = meta_of(l, KN_KEY_ORIGIN, e->name),
                   *vectors = meta_of(l, KN_KEY_VECTORS, e->name);
  if (!slots) return kn_fail(ctx, KN_FORMAT, "its metadata has no " KN_KEY_SLOTS "%s", e->name);
  if (l->notes) e->notes = kn_notes_retain(l->notes);
  if (origin && !kn_entry_name(origin->value.s))
    return kn_fail(ctx, KN_FORMAT, "its origin is no text of up to %d bytes", KN_ENTRY_NAME_MAX);
  if (origin) KN_TRY(copy_text(ctx, origin->value.s, &e->origin));
  KN_TRY(kn_graph_parse_as(ctx, m->value.s, m->value.n, &l->versions, &e->graph));
  if (l->on) KN_TRY(kn_graph_move(ctx, e->graph, *l->on));
  KN_TRY(fill_slots(l, e->graph, slots->value));
  return vectors ? read_vectors(l, e, vectors->value) : KN_OK;
}

static kn_status read_entry(loader *l, const kn_st_meta *m) {
  const char *name = m->key.s + strlen(KN_KEY_GRAPH);
  if (!kn_entry_name(name)) return kn_fail(l->ctx, KN_FORMAT, "a graph has no valid name");
  kn_entry *e = &l->entries[l->n];
  KN_TRY(copy_text(l->ctx, name, &e->name));
  l->n++;
  kn_status st = fill_entry(l, e, m);
  if (st != KN_OK) kn_error_prefix(l->ctx, "graph %s", name);
  return st;
}

static kn_status read_entries(loader *l) {
  kn_context *ctx = l->ctx;
  for (uint32_t i = 0; i < l->file.nmeta; i++) l->cap += begins(&l->file.meta[i], KN_KEY_GRAPH);
  if (!l->cap) return kn_fail(ctx, KN_FORMAT, "the file holds no graph");
  size_t ntensors = (l->file.ntensors + (size_t)1) * KN_DEVICE_COUNT;
  l->opened = kn_calloc(ctx->heap, ntensors, sizeof *l->opened);
  l->entries = kn_calloc(ctx->heap, l->cap, sizeof *l->entries);
  kn_status st = l->opened && l->entries ? KN_OK : kn_fail_nomem(ctx, l->cap * sizeof *l->entries);
  if (st == KN_OK) st = read_notes(l);
  for (uint32_t i = 0; st == KN_OK && i < l->file.nmeta; i++)
    if (begins(&l->file.meta[i], KN_KEY_GRAPH)) st = read_entry(l, &l->file.meta[i]);
  for (size_t i = 0; l->opened && i < ntensors; i++) kn_tensor_release(l->opened[i]);
  kn_free(ctx->heap, l->opened, ntensors * sizeof *l->opened);
  kn_notes_release(l->notes);
  return st;
}

static void free_text(kn_heap *h, const char *s) {
  if (s) kn_free(h, (void *)(uintptr_t)s, strlen(s) + 1);
}

static void free_entries(kn_heap *h, kn_entry *entries, uint32_t n, uint32_t cap) {
  for (uint32_t i = 0; i < n; i++) {
    kn_graph_release(entries[i].graph);
    kn_vectors_release(entries[i].vectors);
    kn_notes_release(entries[i].notes);
    free_text(h, entries[i].name);
    free_text(h, entries[i].origin);
  }
  kn_free(h, entries, cap * sizeof *entries);
}

void kn_file_free_entries(kn_heap *h, kn_entry *entries, uint32_t n) {
  if (entries) free_entries(h, entries, n, n);
}

/* ---- the whole ---- */

/* Of `l` what is known; the mapping is released. */
static kn_status load(loader *l, kn_mapping *map, kn_entry **entries, uint32_t *n) {
  kn_context *ctx = l->ctx;
  l->map = map;
  kn_status st = kn_safetensors_read(ctx, map->bytes, map->size, "kiln graph", &l->file);
  if (st == KN_OK) st = check_version(l);
  if (st == KN_OK) st = check_ops(l);
  if (st == KN_OK) st = kn_safetensors_check_sum(ctx, &l->file, map->bytes, map->size);
  if (st == KN_OK) st = kn_safetensors_check(ctx, &l->file);
  if (st == KN_OK) st = read_entries(l);
  kn_safetensors_free(&l->file);
  kn_mapping_release(map);
  if (st != KN_OK) {
    free_entries(ctx->heap, l->entries, l->n, l->cap);
    return st;
  }
  *entries = l->entries;
  *n = l->n;
  return KN_OK;
}

static kn_status load_path(loader *l, const char *path, kn_entry **entries, uint32_t *n) {
  kn_mapping *map;
  kn_status st = kn_mapping_open(l->ctx, path, &map);
  if (st == KN_OK) st = load(l, map, entries, n);
  if (st != KN_OK && st != KN_IO) kn_error_prefix(l->ctx, "%s", path);
  return st;
}

kn_status kn_file_load(kn_context *ctx, const char *path, const kn_device_id *on, kn_entry **entries,
                       uint32_t *n) {
  loader l = {.ctx = ctx, .on = on, .versions.dialect = &kn_dialect_now};
  return load_path(&l, path, entries, n);
}

kn_status kn_file_load_as(kn_context *ctx, const char *path, const kn_dialect *d, kn_entry **entries,
                          uint32_t *n) {
  loader l = {.ctx = ctx, .versions.dialect = d};
  return load_path(&l, path, entries, n);
}

kn_status kn_file_load_host(kn_context *ctx, const char *path, kn_entry **entries, uint32_t *n) {
  loader l = {.ctx = ctx, .on_host = true, .versions.dialect = &kn_dialect_now};
  return load_path(&l, path, entries, n);
}

kn_status kn_file_load_memory(kn_context *ctx, const void *data, size_t size, kn_release_fn release, void *ud,
                              kn_entry **entries, uint32_t *n) {
  loader l = {.ctx = ctx, .versions.dialect = &kn_dialect_now};
  kn_mapping *map;
  KN_TRY(kn_mapping_new(ctx, data, size, release, ud, &map));
  return load(&l, map, entries, n);
}

kn_status kn_file_upgrade(kn_context *ctx, const char *from, const char *to) {
  kn_entry *entries;
  uint32_t n;
  KN_TRY(kn_file_load_host(ctx, from, &entries, &n));
  kn_status st = kn_file_save(ctx, to, entries, n);
  kn_file_free_entries(ctx->heap, entries, n);
  return st;
}

/* ---- what it says of itself ---- */

/* What a stranger wrote stays in its line. */
static void put_line(kn_writer *w, const char *what, const char *text) {
  kn_put_line(w, what);
  kn_puts(w, " ");
  kn_put_line(w, text);
  kn_puts(w, "\n");
}

static void put_meta(kn_writer *w, const loader *l, const char *what, const char *key) {
  const kn_st_meta *m = kn_safetensors_meta(&l->file, key);
  if (m) put_line(w, what, m->value.s);
}

static void put_metas(kn_writer *w, const loader *l, const char *what, const char *key) {
  char name[64 + KN_ENTRY_NAME_MAX];
  for (uint32_t i = 0; i < l->file.nmeta; i++) {
    const kn_st_meta *m = &l->file.meta[i];
    if (!begins(m, key)) continue;
    snprintf(name, sizeof name, "%s %.200s:", what, m->key.s + strlen(key));
    put_line(w, name, m->value.s);
  }
}

static kn_status describe(loader *l, kn_writer *w) {
  KN_TRY(kn_safetensors_read(l->ctx, l->map->bytes, l->map->size, "kiln graph", &l->file));
  kn_status st = check_version(l);
  if (st != KN_OK && st != KN_VERSION) return st;
  KN_TRY(kn_safetensors_check_sum(l->ctx, &l->file, l->map->bytes, l->map->size));
  put_meta(w, l, "format", KN_KEY_VERSION);
  put_meta(w, l, "producer", KN_KEY_PRODUCER);
  put_meta(w, l, "checksum", KN_KEY_CHECKSUM);
  kn_putf(w, "bytes %zu, %zu of them in %" PRIu32 " tensors\n", l->map->size, (size_t)l->file.data_size,
          l->file.ntensors);
  put_meta(w, l, "ops", KN_KEY_OPS);
  put_metas(w, l, "origin of", KN_KEY_ORIGIN);
  put_metas(w, l, "note", KN_KEY_NOTE);
  return KN_OK;
}

kn_status kn_file_describe(kn_context *ctx, const char *path, char **text, size_t *len) {
  loader l = {.ctx = ctx, .versions.dialect = &kn_dialect_now};
  kn_writer w = {.heap = ctx->heap};
  KN_TRY(kn_mapping_open(ctx, path, &l.map));
  kn_status st = describe(&l, &w);
  kn_safetensors_free(&l.file);
  kn_mapping_release(l.map);
  if (st == KN_OK) return kn_writer_take(ctx, &w, text, len);
  kn_writer_free(&w);
  kn_error_prefix(ctx, "%s", path);
  return st;
}
