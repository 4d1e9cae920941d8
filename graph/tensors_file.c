/* Reading and writing plain safetensors files: see tensors_file.h. */
#include "graph/tensors_file.h"
#include "core/dispatch.h"
#include "graph/file_keys.h"
#include "graph/internal.h"
#include <string.h>

/* ---- reading ---- */

static bool bools_fine(const char *p, size_t n) {
  unsigned char all = 0;
  for (size_t i = 0; i < n; i++) all |= (unsigned char)p[i];
  return all <= 1;
}

kn_status kn_tensor_in_file(kn_context *ctx, kn_mapping *map, const kn_st_file *f, const kn_st_tensor *t,
                            kn_tensor **out) {
  char *data = map->bytes + f->data_at + t->begin;
  size_t bytes = (size_t)(t->end - t->begin);
  if (t->type.dtype == KN_BOOL && !bools_fine(data, bytes))
    return kn_fail(ctx, KN_FORMAT, "tensor %.100s: a bool is neither 0 nor 1", t->name.s);
  if ((uintptr_t)data % kn_dtype_size((kn_dtype)t->type.dtype) == 0)
    return kn_tensor_wrap(ctx, &t->type, data, kn_mapping_tensor_gone, kn_mapping_retain(map), out);
  kn_tensor *copy;
  KN_TRY(kn_tensor_new(ctx, &t->type, &copy));
  memcpy(kn_tensor_data(copy), data, bytes);
  *out = copy;
  return KN_OK;
}

kn_status kn_tensors_open(kn_context *ctx, const char *path, kn_tensors_file *out) {
  kn_tensors_file f = {.map = NULL};
  KN_TRY(kn_mapping_open(ctx, path, &f.map));
  kn_status st = kn_safetensors_read(ctx, f.map->bytes, f.map->size, "safetensors", &f.header);
  if (st == KN_OK) st = kn_safetensors_check(ctx, &f.header);
  if (st == KN_OK) {
    *out = f;
    return KN_OK;
  }
  kn_tensors_close(&f);
  kn_error_prefix(ctx, "%s", path);
  return st;
}

kn_status kn_tensors_get(kn_context *ctx, const kn_tensors_file *f, const kn_st_tensor *t, kn_tensor **out) {
  return kn_tensor_in_file(ctx, f->map, &f->header, t, out);
}

void kn_tensors_close(kn_tensors_file *f) {
  if (!f->map) return;
  kn_safetensors_free(&f->header);
  kn_mapping_release(f->map);
  f->map = NULL;
}

/* ---- numbers ---- */

bool kn_scalar_stored_as(kn_vkind k, const kn_type *t) {
  const bool i = t->dtype == KN_I64, f = t->dtype == KN_F64;
  return !t->rank && (k == KN_V_INT     ? i
                      : k == KN_V_FLOAT ? f
                      : k == KN_V_BOOL  ? t->dtype == KN_BOOL
                                        : k == KN_V_NUMBER && (i || f));
}

kn_status kn_scalar_store(kn_context *ctx, const kn_scalar *x, kn_tensor **out) {
  static const kn_dtype dtypes[] = {
      [KN_SCALAR_INT] = KN_I64, [KN_SCALAR_FLOAT] = KN_F64, [KN_SCALAR_BOOL] = KN_BOOL};
  KN_TRY(kn_tensor_new(ctx, &(kn_type){.dtype = (uint8_t)dtypes[x->kind]}, out));
  kn_scalar_write(x, *out);
  return KN_OK;
}

/* ---- writing ---- */

static bool utf8(kn_span s) {
  for (const char *c = s.s, *end = c + s.n; c < end;) {
    size_t k = kn_utf8_length(c, end);
    if (!k || !*c) return false;
    c += k;
  }
  return true;
}

static kn_status check_tensor(kn_context *ctx, const kn_named_tensor *v) {
  static const char reserved[] = "__metadata__";
  if (!utf8(v->name))
    return kn_fail(ctx, KN_ARG, "the name of a tensor is not valid UTF-8, or has a zero byte");
  if (v->name.n == sizeof reserved - 1 && !memcmp(v->name.s, reserved, v->name.n))
    return kn_fail(ctx, KN_ARG, "no tensor may be called %s", reserved);
  if (!v->tensor->storage)
    return kn_fail(ctx, KN_STATE, "tensor %.100s: its elements are known only when the graph runs",
                   v->name.s);
  return KN_OK;
}

static bool key_before(const void *x, const void *y) {
  const kn_span a = ((const kn_st_meta *)x)->key, b = ((const kn_st_meta *)y)->key;
  int order = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
  return order ? order < 0 : a.n < b.n;
}

static bool is_text(kn_span s, const char *text) { return s.n == strlen(text) && !memcmp(s.s, text, s.n); }

/* In the order of keys. `list` has room for n. *sum_at is where the checksum is to stand, or 0. */
static kn_status put_meta(kn_context *ctx, kn_writer *w, const kn_st_meta *meta, uint32_t n, void **list,
                          size_t *sum_at) {
  for (uint32_t i = 0; i < n; i++) list[i] = (void *)(uintptr_t)&meta[i];
  kn_sort(list, n, key_before);
  if (n) kn_puts(w, "\"__metadata__\":{");
  for (uint32_t i = 0; i < n; i++) {
    const kn_st_meta *m = list[i];
    if (!utf8(m->key) || !utf8(m->value))
      return kn_fail(ctx, KN_ARG, "metadata must be valid UTF-8 without zero bytes, '%.100s' is not",
                     m->key.s);
    if (i) kn_puts(w, ",");
    kn_put_json(w, m->key.s, m->key.n);
    kn_puts(w, ":");
    if (is_text(m->key, KN_KEY_CHECKSUM) && is_text(m->value, KN_NO_SUM)) *sum_at = w->n + 1;
    kn_put_json(w, m->value.s, m->value.n);
  }
  if (n) kn_puts(w, "}");
  return KN_OK;
}

static bool before(const void *x, const void *y) {
  const kn_named_tensor *a = x, *b = y;
  return kn_safetensors_before(&a->tensor->type, a->name, &b->tensor->type, b->name);
}

/* The header into w, and the pieces of the file's data, contiguous copies of tensors where needed. */
static kn_status collect(kn_context *ctx, const kn_named_tensor *const *list, uint32_t n, kn_writer *w,
                         bool more, kn_piece *pieces, kn_tensor **dense) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < n; i++) {
    KN_TRY(check_tensor(ctx, list[i]));
    if (more || i) kn_puts(w, ",");
    kn_safetensors_put(w, list[i]->name, &list[i]->tensor->type, &at);
    KN_TRY(kn_safetensors_dense(ctx, list[i]->tensor, &dense[i]));
    pieces[i].p = kn_tensor_data(dense[i]);
    (void)!kn_type_bytes(&dense[i]->type, &pieces[i].n);
  }
  return KN_OK;
}

static kn_status write(kn_context *ctx, const char *path, kn_writer *w, size_t sum_at, kn_piece *pieces,
                       uint32_t n) {
  unsigned char length[8];
  KN_TRY(kn_safetensors_close_header(ctx, w, length));
  pieces[0] = (kn_piece){length, 8};
  pieces[1] = (kn_piece){w->p, w->n};
  if (sum_at) KN_TRY(kn_safetensors_sum(ctx, pieces, n + (size_t)2, w->p + sum_at));
  return kn_write_file(ctx, path, pieces, n + (size_t)2);
}

kn_status kn_tensors_save(kn_context *ctx, const char *path, const kn_named_tensor *tensors, uint32_t n,
                          const kn_st_meta *meta, uint32_t nmeta) {
  kn_arena arena;
  kn_writer w = {.heap = ctx->heap};
  kn_arena_init(&arena, ctx->heap);
  void **list = kn_arena_alloc(&arena, (n + (size_t)1) * sizeof *list);
  void **texts = kn_arena_alloc(&arena, (nmeta + (size_t)1) * sizeof *texts);
  kn_piece *pieces = kn_arena_alloc(&arena, (n + (size_t)2) * sizeof *pieces);
  kn_tensor **dense = kn_arena_alloc(&arena, (n + (size_t)1) * sizeof *dense);
  kn_status st = list && texts && pieces && dense ? KN_OK : kn_fail_nomem(ctx, n * sizeof *pieces);
  for (uint32_t i = 0; st == KN_OK && i < n; i++) list[i] = (void *)(uintptr_t)&tensors[i];
  if (st == KN_OK) kn_sort(list, n, before);
  size_t sum_at = 0;
  kn_puts(&w, "{");
  if (st == KN_OK) st = put_meta(ctx, &w, meta, nmeta, texts, &sum_at);
  if (st == KN_OK)
    st = collect(ctx, (const kn_named_tensor *const *)list, n, &w, nmeta > 0, pieces + 2, dense);
  kn_puts(&w, "}");
  if (st == KN_OK) st = write(ctx, path, &w, sum_at, pieces, n);
  for (uint32_t i = 0; dense && i < n; i++) kn_tensor_release(dense[i]);
  kn_writer_free(&w);
  kn_arena_free(&arena);
  return st;
}
