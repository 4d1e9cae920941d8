/* Changes of safetensors and .kiln files: the container is taken apart, one part is changed, and it is put
 * together again with lengths, offsets and checksum that fit, so that what is behind those checks is reached.
 */
#define _GNU_SOURCE
#include "spec/fuzzers/fuzz.h"
#include "graph/checksum.h"
#include "graph/file_keys.h"
#include "graph/safetensors.h"
#include "graph/internal.h"
#include "graph/text.h"
#include "graph/versions.h"
#include <inttypes.h>
#include <stdio.h>

enum { MOST_PARTS = 64, MOST_TEXT = 8192, ROOM = 8192 };

static unsigned below(fuzz_change *c, size_t n) { return random_below(&c->r, (unsigned)n); }

/* ---- putting together ---- */

/* What is no UTF-8 becomes a question mark. */
static void put_text(kn_writer *w, const char *s, size_t n) {
  char *copy = malloc(n + 1);
  for (size_t i = 0; i < n;) {
    const size_t k = kn_utf8_length(s + i, s + n);
    if (k && s[i]) {
      memcpy(copy + i, s + i, k);
      i += k;
    } else
      copy[i++] = '?';
  }
  kn_put_json(w, copy, n);
  free(copy);
}

static void sign(uint8_t *p, size_t n) {
  static const char key[] = "\"" KN_KEY_CHECKSUM "\":\"";
  static kn_crc crc;
  char digits[17];
  uint8_t *at = memmem(p, n, key, sizeof key - 1);
  if (!at || (size_t)(p + n - at) < sizeof key - 1 + 16) return;
  at += sizeof key - 1;
  memset(at, '0', 16);
  kn_crc_start(&crc);
  kn_crc_feed(&crc, p, n);
  snprintf(digits, sizeof digits, "%016" PRIx64, kn_crc_value(&crc));
  memcpy(at, digits, 16);
}

typedef struct parts {
  struct {
    kn_span key, value;
  } meta[MOST_PARTS];
  struct {
    kn_span name, dtype;
    int32_t rank;
    int64_t dims[KN_MAX_RANK];
    uint64_t begin, end;
  } tensors[MOST_PARTS];
  uint32_t nmeta, ntensors;
  const uint8_t *data;
  size_t bytes;
} parts;

static void put_together(fuzz_change *c, kn_heap *heap, const parts *f) {
  kn_writer w = {.heap = heap};
  bool first = true;
  kn_puts(&w, "{");
  if (f->nmeta) {
    kn_puts(&w, "\"__metadata__\":{");
    for (uint32_t i = 0; i < f->nmeta; i++) {
      if (i) kn_puts(&w, ",");
      put_text(&w, f->meta[i].key.s, f->meta[i].key.n);
      kn_puts(&w, ":");
      put_text(&w, f->meta[i].value.s, f->meta[i].value.n);
    }
    kn_puts(&w, "}");
    first = false;
  }
  for (uint32_t i = 0; i < f->ntensors; i++, first = false) {
    if (!first) kn_puts(&w, ",");
    put_text(&w, f->tensors[i].name.s, f->tensors[i].name.n);
    kn_puts(&w, ":{\"dtype\":");
    put_text(&w, f->tensors[i].dtype.s, f->tensors[i].dtype.n);
    kn_puts(&w, ",\"shape\":[");
    for (int d = 0; d < f->tensors[i].rank; d++)
      kn_putf(&w, "%s%" PRId64, d ? "," : "", f->tensors[i].dims[d]);
    kn_putf(&w, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", f->tensors[i].begin, f->tensors[i].end);
  }
  kn_puts(&w, "}");
  while ((w.n + 8) % 8 && !w.failed) kn_puts(&w, " ");
  const size_t size = 8 + w.n + f->bytes;
  uint8_t *whole = w.failed || size > c->most ? NULL : malloc(size);
  if (whole) {
    for (int i = 0; i < 8; i++) whole[i] = (uint8_t)(w.n >> 8 * i);
    memcpy(whole + 8, w.p, w.n);
    if (f->bytes) memcpy(whole + 8 + w.n, f->data, f->bytes);
    sign(whole, size);
    (void)fuzz_take(c, whole, size);
    free(whole);
  }
  kn_writer_free(&w);
}

/* ---- a graph in a file ---- */

static bool starts(kn_span s, const char *with) {
  return s.n >= strlen(with) && !memcmp(s.s, with, strlen(with));
}

static void note_ops(const kn_region *r, unsigned *needed) {
  KN_EACH_NODE (n, r) {
    const unsigned v = kn_version_needed(&kn_dialect_now, n);
    if (v > needed[n->op]) needed[n->op] = v;
    for (int i = 0; i < n->nregions; i++) note_ops(n->regions[i], needed);
  }
}

/* The record of versions names all ops of the graph. */
static void fit_ops(parts *f, const kn_graph *g, char *room, size_t most) {
  unsigned needed[KN_OPCODE_COUNT] = {0};
  size_t n = 0;
  note_ops(g->body, needed);
  for (unsigned i = 0; i < KN_OPCODE_COUNT; i++)
    if (needed[i] && most - n > 80)
      n += (size_t)sprintf(room + n, "%s%s %u", n ? ", " : "", kn_opcode_describe((kn_opcode)i).text,
                           needed[i]);
  for (uint32_t i = 0; i < f->nmeta; i++)
    if (starts(f->meta[i].key, KN_KEY_OPS)) f->meta[i].value = (kn_span){room, n};
}

/* The tensors and the record of slots become those that the text asks for; what is left is as it was where it
 * asks for too much. `room` holds the new data and names. */
static void fit_slots(kn_context *ctx, parts *f, kn_span text, const char *entry, char *room, size_t most) {
  kn_graph *g;
  if (kn_graph_parse(ctx, text.s, text.n, &g) != KN_OK) return;
  fit_ops(f, g, room + 4096, ROOM - 4096);
  parts new = *f;
  char *names = room, *record = room + 1024, *data = room + ROOM;
  size_t at = 0, n = 1, total = 0;
  bool fits = g->nslots <= MOST_PARTS;
  *record = '[';
  new.ntensors = 0;
  for (uint32_t i = 0; fits && i < g->nslots; i++) {
    const kn_slot *s = g->slots[i];
    size_t bytes;
    if (i) record[n++] = ',';
    if (s->type.kind != KN_V_TENSOR || s->tensor) {
      n += (size_t)sprintf(record + n, "null");
      continue;
    }
    fits = kn_type_bytes(&s->type.tensor, &bytes) && bytes <= most - ROOM - total;
    if (!fits) break;
    const size_t length = (size_t)sprintf(names + at, "t%u", i);
    const char *dtype = kn_dtypes[s->type.tensor.dtype].safetensors;
    n += (size_t)sprintf(record + n, "\"t%u\"", i);
    new.tensors[new.ntensors].name = (kn_span){names + at, length};
    new.tensors[new.ntensors].dtype = (kn_span){dtype, strlen(dtype)};
    new.tensors[new.ntensors].rank = s->type.tensor.rank;
    memcpy(new.tensors[new.ntensors].dims, s->type.tensor.dims, sizeof s->type.tensor.dims);
    new.tensors[new.ntensors].begin = total;
    for (size_t k = 0; k < bytes; k++)
      data[total + k] = s->type.tensor.dtype == KN_BOOL ? (char)(k & 1)
                        : f->bytes                      ? (char)f->data[k % f->bytes]
                                                        : 0;
    new.tensors[new.ntensors++].end = total += bytes;
    at += length + 1;
  }
  kn_graph_release(g);
  record[n++] = ']';
  if (!fits) return;
  *f = new;
  f->data = (const uint8_t *)data;
  f->bytes = total;
  for (uint32_t i = 0; i < f->nmeta; i++)
    if (starts(f->meta[i].key, KN_KEY_SLOTS) && f->meta[i].key.n == strlen(KN_KEY_SLOTS) + strlen(entry) &&
        !memcmp(f->meta[i].key.s + strlen(KN_KEY_SLOTS), entry, strlen(entry)))
      f->meta[i].value = (kn_span){record, n};
}

/* ---- one part changed ---- */

static kn_span change_span(fuzz_change *c, kn_span s, char *room, size_t most,
                           void (*change)(fuzz_change *)) {
  if (s.n > most) return s;
  memcpy(room, s.s, s.n);
  fuzz_change part = {.data = (uint8_t *)room, .size = s.n, .most = most, .r = c->r};
  change(&part);
  c->r = part.r;
  return (kn_span){room, part.size};
}

/* A graph that the other input has, to take lines of. */
static void change_graph(fuzz_change *c, kn_context *ctx, parts *f, uint32_t i, char *text, char *room,
                         size_t most) {
  char entry[KN_ENTRY_NAME_MAX + 1];
  const size_t n = f->meta[i].key.n - strlen(KN_KEY_GRAPH);
  f->meta[i].value = change_span(c, f->meta[i].value, text, MOST_TEXT, fuzz_change_text);
  if (n > KN_ENTRY_NAME_MAX) return;
  memcpy(entry, f->meta[i].key.s + strlen(KN_KEY_GRAPH), n);
  entry[n] = 0;
  if (below(c, 8)) fit_slots(ctx, f, f->meta[i].value, entry, room, most);
}

static void change_tensor(fuzz_change *c, parts *f) {
  static const char *const dtypes[] = {"F32", "F64", "BOOL",    "I64", "U8", "BF16",
                                       "F16", "I8",  "F8_E4M3", "U32", ""};
  static const int64_t numbers[] = {0, 1, 2, 3, 4, 8, 16, 64, -1, 4294967296, INT64_MAX};
  if (!f->ntensors) return;
  const uint32_t i = below(c, f->ntensors), k = below(c, f->ntensors);
  const char *dtype = dtypes[below(c, sizeof dtypes / sizeof *dtypes)];
  const int64_t number = numbers[below(c, sizeof numbers / sizeof *numbers)];
  switch (below(c, 7)) {
  case 0: f->tensors[i].dtype = (kn_span){dtype, strlen(dtype)}; break;
  case 1: f->tensors[i].dims[below(c, KN_MAX_RANK)] = number; break;
  case 2: f->tensors[i].rank = (int32_t)below(c, KN_MAX_RANK + 1); break;
  case 3: f->tensors[i].begin = (uint64_t)number; break;
  case 4: f->tensors[i].end = below(c, 2) ? f->tensors[i].begin : (uint64_t)number; break;
  case 5: f->tensors[i].name = f->tensors[k].name; break;
  default: f->tensors[i] = f->tensors[--f->ntensors];
  }
}

static void change_meta(fuzz_change *c, parts *f, char *room) {
  if (!f->nmeta) return;
  const uint32_t i = below(c, f->nmeta), k = below(c, f->nmeta);
  switch (below(c, 5)) {
  case 0: f->meta[i].value = change_span(c, f->meta[i].value, room, MOST_TEXT, fuzz_change_bytes); break;
  case 1: f->meta[i].key = change_span(c, f->meta[i].key, room, MOST_TEXT, fuzz_change_bytes); break;
  case 2: f->meta[i].value = f->meta[k].value; break;
  case 3: f->meta[i] = f->meta[--f->nmeta]; break;
  default:
    if (f->nmeta < MOST_PARTS) f->meta[f->nmeta++] = f->meta[i];
  }
}

/* Bytes, with a length and a checksum that fit again. */
static void change_whole(fuzz_change *c) {
  fuzz_change_bytes(c);
  if (c->size < 8 || below(c, 4) == 0) return;
  uint64_t n = 0;
  for (int i = 0; i < 8; i++) n |= (uint64_t)c->data[i] << 8 * i;
  if (n > c->size - 8)
    for (int i = 0; i < 8; i++) c->data[i] = (uint8_t)((c->size - 8) >> 8 * i);
  sign(c->data, c->size);
}

void fuzz_change_file(fuzz_change *c) {
  static kn_context *ctx; /* not the targets', which must not see what is made here */
  if (!ctx) ctx = kn_context_new(NULL, NULL);
  kn_st_file read;
  parts f = {0};
  kn_status st = kn_safetensors_read(ctx, c->data, c->size, "", &read);
  if (st != KN_OK || read.nmeta > MOST_PARTS || read.ntensors > MOST_PARTS || below(c, 8) == 0) {
    kn_safetensors_free(&read);
    change_whole(c);
    return;
  }
  const size_t most = ROOM + c->most;
  char *text = malloc(MOST_TEXT), *room = malloc(most);
  uint32_t graph = UINT32_MAX;
  for (f.nmeta = 0; f.nmeta < read.nmeta; f.nmeta++) {
    f.meta[f.nmeta].key = read.meta[f.nmeta].key, f.meta[f.nmeta].value = read.meta[f.nmeta].value;
    if (starts(f.meta[f.nmeta].key, KN_KEY_GRAPH) && (graph == UINT32_MAX || below(c, 2))) graph = f.nmeta;
  }
  for (f.ntensors = 0; f.ntensors < read.ntensors; f.ntensors++) {
    const kn_st_tensor *t = &read.tensors[f.ntensors];
    f.tensors[f.ntensors].name = t->name, f.tensors[f.ntensors].dtype = t->dtype;
    f.tensors[f.ntensors].rank = t->rank, f.tensors[f.ntensors].begin = t->begin,
    f.tensors[f.ntensors].end = t->end;
    memcpy(f.tensors[f.ntensors].dims, t->type.dims, sizeof t->type.dims);
  }
  f.data = c->data + read.data_at, f.bytes = read.data_size;
  if (graph != UINT32_MAX && below(c, 8))
    change_graph(c, ctx, &f, graph, text, room, most);
  else if (below(c, 2))
    change_tensor(c, &f);
  else
    change_meta(c, &f, text);
  put_together(c, ctx->heap, &f);
  kn_safetensors_free(&read);
  free(text);
  free(room);
}
