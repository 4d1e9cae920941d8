/* Writing a .kiln file: what is in it is told in graph/README.md; reading is in file.c. */
#include "core/device.h"
#include "graph/file.h"
#include "graph/file_keys.h"
#include "graph/json.h"
#include "graph/mapping.h"
#include "graph/safetensors.h"
#include "graph/syntax.h"
#include "graph/tensors_file.h"
#include "graph/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct saved { /* a tensor of the file */
  kn_tensor *t;        /* contiguous; retained */
  const char *name;
} saved;

/* What makes two tensors one in the file. */
typedef struct identity {
  const kn_storage *storage;
  int64_t offset, rank, dtype, dims[KN_MAX_RANK], strides[KN_MAX_RANK];
} identity;

typedef struct saver {
  kn_context *ctx;
  const kn_dialect *dialect;
  kn_arena arena;
  kn_writer header;
  kn_map by_identity, by_name;
  void **list; /* saved *, in the order of the file once sorted */
  uint32_t n;
  size_t checksum_at; /* in the header */
  unsigned char length[8];
} saver;

/* ---- collecting tensors ---- */

static const char *free_name(saver *s, const char *name) {
  size_t size = strlen(name) + 16;
  char *with = kn_arena_alloc(&s->arena, size);
  if (!with) return NULL;
  memcpy(with, name, strlen(name));
  for (unsigned k = 2;
       kn_map_find(&s->by_name, (kn_span){with, strlen(with)}) || !strcmp(with, "__metadata__"); k++)
    snprintf(with, size, "%s.%u", name, k);
  return with;
}

static kn_status add_tensor(saver *s, const char *name, kn_tensor *t, const char **given) {
  kn_context *ctx = s->ctx;
  identity *id = kn_arena_alloc(&s->arena, sizeof *id);
  if (!id) return kn_fail_nomem(ctx, sizeof *id);
  *id = (identity){.storage = t->storage, .offset = t->offset, .rank = t->type.rank, .dtype = t->type.dtype};
  memcpy(id->dims, t->type.dims, t->type.rank * sizeof *id->dims);
  memcpy(id->strides, t->strides, t->type.rank * sizeof *id->strides);
  kn_span key = {(const char *)id, sizeof *id};
  saved *v = kn_map_find(&s->by_identity, key);
  if (v) {
    *given = v->name;
    return KN_OK;
  }
  void **list = kn_arena_grow(&s->arena, s->list, s->n, sizeof *list);
  v = kn_arena_alloc(&s->arena, sizeof *v);
  const char *unused = free_name(s, name);
  if (!list || !v || !unused) return kn_fail_nomem(ctx, sizeof *v);
  v->name = unused;
  s->list = list;
  kn_tensor *here;
  KN_TRY(kn_to_host(ctx, t, &here));
  kn_status st = kn_safetensors_dense(ctx, here, &v->t);
  kn_tensor_release(here);
  KN_TRY(st);
  s->list[s->n++] = v;
  if (!kn_map_add(ctx->heap, &s->by_identity, key, v) ||
      !kn_map_add(ctx->heap, &s->by_name, (kn_span){v->name, strlen(v->name)}, v))
    return kn_fail_nomem(ctx, 0);
  *given = v->name;
  return KN_OK;
}

/* A JSON array: for each slot the tensor that holds its data, null where the text holds it. */
static kn_status put_slots(saver *s, const kn_entry *e, kn_writer *w) {
  const kn_graph *g = e->graph;
  kn_puts(w, "[");
  for (uint32_t i = 0; i < g->nslots; i++) {
    const kn_slot *slot = g->slots[i];
    const char *name = NULL;
    if (i) kn_puts(w, ",");
    if (slot->type.kind == KN_V_TENSOR && !kn_slot_inline(slot)) {
      if (!slot->tensor || !slot->tensor->storage)
        return kn_fail(s->ctx, KN_STATE, "slot %s has no data to save", slot->name);
      KN_TRY(add_tensor(s, slot->name, slot->tensor, &name));
      kn_put_json(w, name, strlen(name));
    } else
      kn_puts(w, "null");
  }
  kn_puts(w, "]");
  return KN_OK;
}

/* ---- test vectors ---- */

static kn_status put_value(saver *s, const kn_value *of, const kn_rvalue *v, const char *name, kn_writer *w) {
  const char *given;
  if (of->type.kind != KN_V_TENSOR) {
    kn_tensor *t;
    KN_TRY(kn_scalar_store(s->ctx, &v->scalar, &t));
    kn_status st = add_tensor(s, name, t, &given);
    kn_tensor_release(t);
    KN_TRY(st);
  } else if (v->tensor)
    KN_TRY(add_tensor(s, name, v->tensor, &given));
  else {
    kn_puts(w, "null");
    return KN_OK;
  }
  kn_put_json(w, given, strlen(given));
  return KN_OK;
}

static kn_status put_values(saver *s, const char *entry, const char *kind, uint32_t call, kn_value *const *of,
                            const kn_rvalue *list, uint32_t n, kn_writer *w) {
  char name[KN_ENTRY_NAME_MAX + 64];
  kn_putf(w, "\"%s\":[", kind);
  for (uint32_t i = 0; i < n; i++) {
    if (i) kn_puts(w, ",");
    snprintf(name, sizeof name, "vectors.%s.%" PRIu32 ".%s.%" PRIu32, entry, call + 1, kind, i + 1);
    KN_TRY(put_value(s, of[i], &list[i], name, w));
  }
  kn_puts(w, "]");
  return KN_OK;
}

static kn_status put_vectors(saver *s, const kn_entry *e, kn_writer *w) {
  const kn_vectors *v = e->vectors;
  const kn_region *body = e->graph->body;
  char number[KN_NUMBER_TEXT];
  kn_putf(w, "{\"tolerance\":\"%s\",\"runs\":[",
          v->tolerance < 0 ? "" : kn_double_text(v->tolerance, number));
  for (uint32_t i = 0; i < v->n; i++) {
    kn_puts(w, i ? ",{" : "{");
    KN_TRY(put_values(s, e->name, "in", i, body->params, kn_vectors_in(v, i), v->nin, w));
    kn_puts(w, ",");
    KN_TRY(put_values(s, e->name, "out", i, body->yields, kn_vectors_out(v, i), v->nout, w));
    kn_puts(w, "}");
  }
  kn_puts(w, "]}");
  return KN_OK;
}

/* ---- header ---- */

static void note_ops(const kn_dialect *d, const kn_region *r, unsigned *needed) {
  KN_EACH_NODE (n, r) {
    const unsigned v = kn_version_needed(d, n);
    if (v > needed[n->op]) needed[n->op] = v;
    for (int i = 0; i < n->nregions; i++) note_ops(d, n->regions[i], needed);
  }
}

static void put_ops(saver *s, const kn_entry *entries, uint32_t n) {
  unsigned needed[KN_OPCODE_COUNT] = {0};
  bool any = false;
  for (uint32_t i = 0; i < n; i++) note_ops(s->dialect, entries[i].graph->body, needed);
  kn_puts(&s->header, ",\"" KN_KEY_OPS "\":\"");
  for (unsigned i = 0; i < KN_OPCODE_COUNT; i++)
    if (needed[i]) {
      kn_putf(&s->header, "%s%s %u", any ? ", " : "", kn_opcode_describe((kn_opcode)i).text, needed[i]);
      any = true;
    }
  kn_puts(&s->header, "\"");
}

static unsigned format_needed(const saver *s, const kn_entry *entries, uint32_t n) {
  unsigned most = 1;
  for (uint32_t i = 0; i < n && s->dialect->needed; i++) {
    const unsigned v = s->dialect->needed(entries[i].graph);
    if (v > most) most = v;
  }
  return most;
}

static void put_key(saver *s, const char *prefix, const char *name) {
  kn_writer key = {.heap = s->ctx->heap};
  kn_puts(&key, prefix);
  kn_puts(&key, name);
  kn_puts(&s->header, ",\n");
  if (key.failed)
    s->header.failed = true;
  else
    kn_put_json(&s->header, key.p, key.n);
  kn_puts(&s->header, ":");
  kn_writer_free(&key);
}

/* A key whose value `put` makes. */
static kn_status put_made(saver *s, const char *prefix, const kn_entry *e,
                          kn_status (*put)(saver *s, const kn_entry *e, kn_writer *w)) {
  kn_writer w = {.heap = s->ctx->heap};
  kn_status st = put(s, e, &w);
  if (st == KN_OK) {
    put_key(s, prefix, e->name);
    if (w.failed)
      s->header.failed = true;
    else
      kn_put_json(&s->header, w.p, w.n);
  }
  kn_writer_free(&w);
  return st;
}

static kn_status put_entry(saver *s, const kn_entry *e) {
  char *text;
  size_t len;
  KN_TRY(kn_graph_print(s->ctx, e->graph, KN_TEXT_FULL, &text, &len));
  put_key(s, KN_KEY_GRAPH, e->name);
  kn_put_json(&s->header, text, len);
  kn_free(s->ctx->heap, text, len + 1);
  if (e->origin) {
    put_key(s, KN_KEY_ORIGIN, e->name);
    kn_put_json(&s->header, e->origin, strlen(e->origin));
  }
  KN_TRY(put_made(s, KN_KEY_SLOTS, e, put_slots));
  return e->vectors && e->vectors->n ? put_made(s, KN_KEY_VECTORS, e, put_vectors) : KN_OK;
}

static void put_notes(saver *s, const kn_notes *notes) {
  for (uint32_t i = 0; notes && i < notes->n; i++) {
    put_key(s, KN_KEY_NOTE, notes->list[i].name);
    kn_put_json(&s->header, notes->list[i].text, strlen(notes->list[i].text));
  }
}

static kn_span name_of(const saved *v) { return (kn_span){v->name, strlen(v->name)}; }

static bool first(const void *x, const void *y) {
  const saved *a = x, *b = y;
  return kn_safetensors_before(&a->t->type, name_of(a), &b->t->type, name_of(b));
}

static void put_tensors(saver *s) {
  uint64_t at = 0;
  kn_sort(s->list, s->n, first);
  for (uint32_t i = 0; i < s->n; i++) {
    const saved *v = s->list[i];
    kn_puts(&s->header, ",\n");
    kn_safetensors_put(&s->header, name_of(v), &v->t->type, &at);
  }
}

static kn_status put_header(saver *s, const kn_entry *entries, uint32_t n) {
  kn_putf(&s->header, "{\"__metadata__\":{\"" KN_KEY_VERSION "\":\"%u\",\"" KN_KEY_PRODUCER "\":\"kiln %s\"",
          format_needed(s, entries, n), KN_VERSION_TEXT);
  put_ops(s, entries, n);
  kn_puts(&s->header, ",\"" KN_KEY_CHECKSUM "\":\"");
  s->checksum_at = s->header.n;
  kn_puts(&s->header, KN_NO_SUM "\"");
  put_notes(s, entries[0].notes);
  for (uint32_t i = 0; i < n; i++) KN_TRY(put_entry(s, &entries[i]));
  kn_puts(&s->header, "}");
  put_tensors(s);
  kn_puts(&s->header, "}");
  return kn_safetensors_close_header(s->ctx, &s->header, s->length);
}

/* ---- writing ---- */

static kn_status write_pieces(saver *s, const char *path) {
  kn_context *ctx = s->ctx;
  size_t n = s->n + (size_t)2;
  kn_piece *pieces = kn_arena_alloc(&s->arena, n * sizeof *pieces);
  if (!pieces) return kn_fail_nomem(ctx, n * sizeof *pieces);
  pieces[0] = (kn_piece){s->length, 8};
  pieces[1] = (kn_piece){s->header.p, s->header.n};
  for (uint32_t i = 0; i < s->n; i++) {
    saved *v = s->list[i];
    pieces[2 + i].p = kn_tensor_data(v->t);
    (void)!kn_type_bytes(&v->t->type, &pieces[2 + i].n);
  }
  KN_TRY(kn_safetensors_sum(ctx, pieces, n, s->header.p + s->checksum_at));
  return kn_write_file(ctx, path, pieces, n);
}

static kn_status check_entries(kn_context *ctx, const kn_entry *entries, uint32_t n) {
  if (!n) return kn_fail(ctx, KN_ARG, "a file needs at least one graph");
  for (uint32_t i = 0; i < n; i++) {
    const char *name = entries[i].name;
    if (!kn_entry_name(name))
      return kn_fail(ctx, KN_ARG, "entry %u: names are 1 to %d bytes of text", i + 1, KN_ENTRY_NAME_MAX);
    if (entries[i].origin && !kn_entry_name(entries[i].origin))
      return kn_fail(ctx, KN_ARG, "the origin of %s is no text of up to %d bytes", name, KN_ENTRY_NAME_MAX);
    if (!entries[i].graph->finished) return kn_fail(ctx, KN_STATE, "graph %s is still being built", name);
    for (uint32_t k = 0; k < i; k++)
      if (!strcmp(name, entries[k].name)) return kn_fail(ctx, KN_ARG, "two entries have the name %s", name);
  }
  return KN_OK;
}

kn_status kn_file_save(kn_context *ctx, const char *path, const kn_entry *entries, uint32_t n) {
  return kn_file_save_as(ctx, path, &kn_dialect_now, entries, n);
}

kn_status kn_file_save_as(kn_context *ctx, const char *path, const kn_dialect *d, const kn_entry *entries,
                          uint32_t n) {
  KN_TRY(check_entries(ctx, entries, n));
  saver s = {.ctx = ctx, .dialect = d, .header = {.heap = ctx->heap}};
  kn_arena_init(&s.arena, ctx->heap);
  kn_status st = put_header(&s, entries, n);
  if (st == KN_OK) st = write_pieces(&s, path);
  for (uint32_t i = 0; i < s.n; i++) kn_tensor_release(((saved *)s.list[i])->t);
  kn_writer_free(&s.header);
  kn_map_free(ctx->heap, &s.by_identity);
  kn_map_free(ctx->heap, &s.by_name);
  kn_arena_free(&s.arena);
  return st;
}
