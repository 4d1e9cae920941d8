/* Reading the container: header, then the layout of the data. */
#include "graph/safetensors.h"
#include "graph/checksum.h"
#include "graph/file_keys.h"
#include <string.h>

static const uint64_t UNREAD = UINT64_MAX;

/* ---- header ---- */

static bool nomem(kn_json *j) {
  if (j->status == KN_OK) j->status = kn_fail_nomem(j->ctx, 0);
  return false;
}

static bool read_shape(kn_json *j, kn_st_tensor *t) {
  if (!kn_json_expect(j, '[')) return false;
  t->rank = 0;
  if (kn_json_accept(j, ']')) return true;
  do {
    uint64_t d;
    if (!kn_json_whole(j, &d)) return false;
    if (d > INT64_MAX) return kn_json_fail(j, "tensor %.100s: a size is too large", t->name.s);
    if (t->rank < KN_MAX_RANK) t->type.dims[t->rank] = (int64_t)d;
    t->rank++;
  } while (kn_json_accept(j, ','));
  if (t->rank > KN_MAX_RANK)
    return kn_json_fail(j, "tensor %.100s has %d dimensions, more than %d", t->name.s, (int)t->rank,
                        KN_MAX_RANK);
  return kn_json_expect(j, ']');
}

static bool read_offsets(kn_json *j, kn_st_tensor *t) {
  return kn_json_expect(j, '[') && kn_json_whole(j, &t->begin) && kn_json_expect(j, ',') &&
         kn_json_whole(j, &t->end) && kn_json_expect(j, ']');
}

static bool is(kn_span s, const char *text) { return strlen(text) == s.n && !memcmp(s.s, text, s.n); }

static bool read_tensor(kn_json *j, kn_st_file *f, kn_span name) {
  kn_st_tensor t = {.name = name, .rank = -1, .begin = UNREAD, .end = UNREAD};
  if (kn_map_find(&f->by_name, name)) return kn_json_fail(j, "tensor %.100s is there twice", name.s);
  if (!kn_json_expect(j, '{')) return false;
  do {
    kn_span key;
    if (!kn_json_string(j, &key, NULL) || !kn_json_expect(j, ':')) return false;
    bool fine = true;
    if (is(key, "dtype") && !t.dtype.s)
      fine = kn_json_string(j, &t.dtype, NULL);
    else if (is(key, "shape") && t.rank < 0)
      fine = read_shape(j, &t);
    else if (is(key, "data_offsets") && t.end == UNREAD)
      fine = read_offsets(j, &t);
    else
      return kn_json_fail(j, "tensor %.100s: field %.100s is not known or there twice", name.s, key.s);
    if (!fine) return false;
  } while (kn_json_accept(j, ','));
  if (!kn_json_expect(j, '}')) return false;
  if (!t.dtype.s || t.rank < 0 || t.end == UNREAD)
    return kn_json_fail(j, "tensor %.100s: dtype, shape or data_offsets is missing", name.s);
  kn_st_tensor *list = kn_arena_grow(&f->arena, f->tensors, f->ntensors, sizeof *list);
  if (!list) return nomem(j);
  f->tensors = list;
  f->tensors[f->ntensors++] = t;
  return kn_map_add(j->ctx->heap, &f->by_name, name, (void *)(uintptr_t)f->ntensors) || nomem(j);
}

static bool read_meta(kn_json *j, kn_st_file *f) {
  if (!kn_json_expect(j, '{')) return false;
  if (kn_json_accept(j, '}')) return true;
  do {
    kn_st_meta m;
    if (!kn_json_string(j, &m.key, NULL)) return false;
    if (kn_map_find(&f->by_key, m.key)) return kn_json_fail(j, "metadata %.100s is there twice", m.key.s);
    if (!kn_json_expect(j, ':') || !kn_json_string(j, &m.value, &m.raw)) return false;
    kn_st_meta *list = kn_arena_grow(&f->arena, f->meta, f->nmeta, sizeof *list);
    if (!list) return nomem(j);
    f->meta = list;
    f->meta[f->nmeta++] = m;
    if (!kn_map_add(j->ctx->heap, &f->by_key, m.key, (void *)(uintptr_t)f->nmeta)) return nomem(j);
  } while (kn_json_accept(j, ','));
  return kn_json_expect(j, '}');
}

static bool read_header(kn_json *j, kn_st_file *f) {
  bool meta = false;
  if (!kn_json_expect(j, '{')) return false;
  if (kn_json_accept(j, '}')) return kn_json_end(j);
  do {
    kn_span name;
    if (!kn_json_string(j, &name, NULL) || !kn_json_expect(j, ':')) return false;
    if (!is(name, "__metadata__")) {
      if (!read_tensor(j, f, name)) return false;
      continue;
    }
    if (meta) return kn_json_fail(j, "__metadata__ is there twice");
    meta = true;
    if (!read_meta(j, f)) return false;
  } while (kn_json_accept(j, ','));
  return kn_json_expect(j, '}') && kn_json_end(j);
}

kn_status kn_safetensors_read(kn_context *ctx, const void *bytes, size_t size, const char *kind,
                              kn_st_file *out) {
  *out = (kn_st_file){0};
  kn_arena_init(&out->arena, ctx->heap);
  const unsigned char *b = bytes;
  uint64_t n = 0;
  if (size < 8)
    return kn_fail(ctx, KN_FORMAT, "not a %s file: %zu bytes are too few for a header", kind, size);
  for (int i = 0; i < 8; i++) n |= (uint64_t)b[i] << 8 * i;
  if (n > size - 8)
    return kn_fail(ctx, KN_FORMAT, "the header claims %llu bytes, the file has %zu after its length",
                   (unsigned long long)n, size - 8);
  if (n > KN_HEADER_MAX)
    return kn_fail(ctx, KN_FORMAT, "the header claims %llu bytes, at most %d are read", (unsigned long long)n,
                   KN_HEADER_MAX);
  const char *text = (const char *)b + 8;
  if (!n || *text != '{')
    return kn_fail(ctx, KN_FORMAT, "not a %s file: the header does not start with {", kind);
  kn_json j = {.ctx = ctx, .arena = &out->arena, .text = text, .p = text, .end = text + n};
  out->data_at = 8 + (size_t)n;
  out->data_size = size - out->data_at;
  return read_header(&j, out) ? KN_OK : j.status;
}

void kn_safetensors_free(kn_st_file *f) {
  kn_map_free(f->arena.heap, &f->by_name);
  kn_map_free(f->arena.heap, &f->by_key);
  kn_arena_free(&f->arena);
}

kn_st_tensor *kn_safetensors_tensor(const kn_st_file *f, kn_span name) {
  uintptr_t i = (uintptr_t)kn_map_find(&f->by_name, name);
  return i ? &f->tensors[i - 1] : NULL;
}

const kn_st_meta *kn_safetensors_meta(const kn_st_file *f, const char *key) {
  uintptr_t i = (uintptr_t)kn_map_find(&f->by_key, (kn_span){key, strlen(key)});
  return i ? &f->meta[i - 1] : NULL;
}

/* ---- layout ---- */

static kn_status check_tensor(kn_context *ctx, const kn_st_file *f, kn_st_tensor *t) {
  int d = 0;
  while (d < KN_DTYPE_COUNT && !is(t->dtype, kn_dtypes[d].safetensors)) d++;
  if (d == KN_DTYPE_COUNT)
    return kn_fail(ctx, KN_FORMAT, "tensor %.100s: dtype %.20s is not supported", t->name.s, t->dtype.s);
  t->type.dtype = (uint8_t)d;
  t->type.rank = (uint8_t)t->rank;
  size_t bytes;
  if (!kn_type_bytes(&t->type, &bytes))
    return kn_fail(ctx, KN_FORMAT, "tensor %.100s: its sizes are too large", t->name.s);
  if (t->begin > t->end || t->end > f->data_size || t->end - t->begin != bytes)
    return kn_fail(ctx, KN_FORMAT, "tensor %.100s: %zu bytes are claimed to be at %llu to %llu of %llu",
                   t->name.s, bytes, (unsigned long long)t->begin, (unsigned long long)t->end,
                   (unsigned long long)f->data_size);
  return KN_OK;
}

static bool before(const void *x, const void *y) {
  const kn_st_tensor *a = x, *b = y;
  return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
}

kn_status kn_safetensors_check(kn_context *ctx, kn_st_file *f) {
  void **list = kn_arena_alloc(&f->arena, (f->ntensors + (size_t)1) * sizeof *list);
  if (!list) return kn_fail_nomem(ctx, f->ntensors * sizeof *list);
  for (uint32_t i = 0; i < f->ntensors; i++) {
    KN_TRY(check_tensor(ctx, f, &f->tensors[i]));
    list[i] = &f->tensors[i];
  }
  kn_sort(list, f->ntensors, before);
  uint64_t at = 0;
  for (uint32_t i = 0; i < f->ntensors; i++) {
    const kn_st_tensor *t = list[i];
    if (t->begin != at)
      return kn_fail(
          ctx, KN_FORMAT,
          "tensor %.100s starts at byte %llu instead of %llu: the data has a hole or tensors overlap",
          t->name.s, (unsigned long long)t->begin, (unsigned long long)at);
    at = t->end;
  }
  if (at != f->data_size)
    return kn_fail(ctx, KN_FORMAT, "%llu bytes follow after the last tensor",
                   (unsigned long long)(f->data_size - at));
  return KN_OK;
}

/* ---- checksum ---- */

kn_status kn_safetensors_check_sum(kn_context *ctx, const kn_st_file *f, const char *bytes, size_t size) {
  const kn_st_meta *m = kn_safetensors_meta(f, KN_KEY_CHECKSUM);
  if (!m || m->raw.n != 16) return kn_fail(ctx, KN_FORMAT, "its metadata has no " KN_KEY_CHECKSUM);
  const char *after = m->raw.s + 16;
  const kn_piece pieces[] = {
      {bytes, (size_t)(m->raw.s - bytes)}, {KN_NO_SUM, 16}, {after, size - (size_t)(after - bytes)}};
  char digits[17] = "";
  KN_TRY(kn_safetensors_sum(ctx, pieces, 3, digits));
  if (memcmp(digits, m->raw.s, 16))
    return kn_fail(ctx, KN_FORMAT, "the file is damaged: its checksum is %s, it should be %.16s", digits,
                   m->value.s);
  return KN_OK;
}
