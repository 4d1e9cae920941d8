/* Reading archives, and single files that are packed: see archives.h. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/io/archives.h"
#include "bindings/io/libarchive.h"
#include <errno.h>
#include <string.h>

struct kn_archive {
  kn_libarchive lib;
  struct archive *a;
  kn_heap *heap; /* retained */
  kn_archive_limits limits;
  uint64_t seen, bytes; /* entries and bytes read so far */
  char *path;
  size_t path_room;
};

static kn_status said(kn_context *ctx, const kn_libarchive *lib, struct archive *a) {
  const char *text = lib->error_string(a);
  if (lib->error_number(a) == ENOMEM) return kn_fail_nomem(ctx, 0);
  return kn_fail(ctx, lib->error_number(a) == ENOENT || lib->error_number(a) == EACCES ? KN_IO : KN_FORMAT,
                 "%s", text ? text : "it cannot be read, for no reason given");
}

/* Filters of libraries only: some libarchives would start a program for one that they were built without. */
static bool add_filters(const kn_libarchive *lib, struct archive *a) {
  return lib->read_support_filter_gzip(a) == ARCHIVE_OK && lib->read_support_filter_bzip2(a) == ARCHIVE_OK &&
         lib->read_support_filter_xz(a) == ARCHIVE_OK && lib->read_support_filter_zstd(a) == ARCHIVE_OK;
}

static kn_status reader(kn_context *ctx, kn_libarchive *lib, struct archive **out) {
  struct archive *a = lib->read_new();
  if (!a) return kn_fail_nomem(ctx, 0);
  if (!add_filters(lib, a)) {
    lib->read_free(a);
    return kn_fail(ctx, KN_UNSUPPORTED, "this libarchive was built without gzip, bzip2, xz or zstd");
  }
  *out = a;
  return KN_OK;
}

static kn_status start(kn_context *ctx, kn_archive *r, const char *path) {
  KN_TRY(kn_libarchive_open(ctx, &r->lib));
  KN_TRY(reader(ctx, &r->lib, &r->a));
  if (r->lib.read_support_format_tar(r->a) != ARCHIVE_OK ||
      r->lib.read_support_format_zip(r->a) != ARCHIVE_OK ||
      r->lib.read_open_filename(r->a, path, 1 << 16) != ARCHIVE_OK)
    return said(ctx, &r->lib, r->a);
  return KN_OK;
}

static uint64_t or_default(uint64_t given, uint64_t otherwise) { return given ? given : otherwise; }

kn_status kn_archive_open(kn_context *ctx, const char *path, const kn_archive_limits *limits,
                          kn_archive **out) {
  kn_archive *r = kn_calloc(ctx->heap, 1, sizeof *r);
  if (!r) return kn_fail_nomem(ctx, sizeof *r);
  r->heap = kn_heap_retain(ctx->heap);
  r->limits = (kn_archive_limits){or_default(limits->entry, UINT64_C(1) << 30),
                                  or_default(limits->total, UINT64_C(64) << 30),
                                  or_default(limits->entries, UINT64_C(1) << 24)};
  r->path_room = strlen(path) + 1;
  r->path = kn_alloc(r->heap, r->path_room);
  kn_status st = r->path ? start(ctx, r, path) : kn_fail_nomem(ctx, r->path_room);
  if (r->path) strcpy(r->path, path);
  if (st == KN_OK) {
    *out = r;
    return KN_OK;
  }
  if (st != KN_NOMEM) kn_error_prefix(ctx, "%s", path);
  kn_archive_close(r);
  return st;
}

void kn_archive_close(kn_archive *r) {
  if (!r) return;
  if (r->a) r->lib.read_free(r->a);
  kn_libarchive_close(&r->lib);
  kn_heap *heap = r->heap;
  kn_free(heap, r->path, r->path_room);
  kn_free(heap, r, sizeof *r);
  kn_heap_release(heap);
}

/* All of the entry that was just found. `room` bytes are allowed. */
static kn_status read_entry(kn_context *ctx, const kn_libarchive *lib, struct archive *a, uint64_t room,
                            const char *of, kn_bytes *b) {
  b->n = 0;
  for (;;) {
    if (!kn_bytes_reserve(b, 1 << 16)) return kn_fail_nomem(ctx, b->room * 2);
    la_ssize_t got = lib->read_data(a, b->p + b->n, b->room - b->n);
    if (got < 0) return said(ctx, lib, a);
    if (got == 0) return KN_OK;
    b->n += (size_t)got;
    if (b->n > room)
      return kn_fail(ctx, KN_LIMIT, "%s has more bytes than the limit leaves, which is %llu", of,
                     (unsigned long long)room);
  }
}

static kn_status next_file(kn_context *ctx, kn_archive *r, struct archive_entry **out) {
  for (;;) {
    struct archive_entry *e = NULL;
    int rc = r->lib.read_next_header(r->a, &e);
    *out = NULL;
    if (rc == ARCHIVE_EOF) return KN_OK;
    if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) return said(ctx, &r->lib, r->a);
    if (++r->seen > r->limits.entries)
      return kn_fail(ctx, KN_LIMIT, "there are more entries than the limit of %llu",
                     (unsigned long long)r->limits.entries);
    if (r->lib.entry_filetype(e) != AE_IFREG || r->lib.entry_hardlink(e)) continue;
    *out = e;
    return KN_OK;
  }
}

static kn_status next_entry(kn_context *ctx, kn_archive *r, const char **name, kn_bytes *out) {
  struct archive_entry *e;
  KN_TRY(next_file(ctx, r, &e));
  *name = NULL;
  if (!e) return KN_OK;
  const char *found = r->lib.entry_pathname_utf8(e); /* NULL where the bytes are no text in UTF-8 */
  if (!found) found = r->lib.entry_pathname(e);
  if (!found) return kn_fail(ctx, KN_FORMAT, "entry %llu has no name", (unsigned long long)r->seen);
  if (r->lib.entry_is_data_encrypted(e))
    return kn_fail(ctx, KN_UNSUPPORTED, "entry %.200s is encrypted", found);
  uint64_t left = r->limits.total - r->bytes, room = r->limits.entry < left ? r->limits.entry : left;
  char of[240] = "entry ";
  strncat(of, found, 200);
  KN_TRY(read_entry(ctx, &r->lib, r->a, room, of, out));
  if (r->lib.entry_size_is_set(e) && (uint64_t)r->lib.entry_size(e) != out->n)
    return kn_fail(ctx, KN_FORMAT, "%s should have %lld bytes, it has %zu", of,
                   (long long)r->lib.entry_size(e), out->n);
  r->bytes += out->n;
  *name = found;
  return KN_OK;
}

kn_status kn_archive_next(kn_context *ctx, kn_archive *r, bool *found, const char **name, kn_bytes *out) {
  const char *n;
  locale_t before = kn_libarchive_enter(&r->lib);
  kn_status st = next_entry(ctx, r, &n, out);
  kn_libarchive_leave(&r->lib, before);
  if (st != KN_OK) {
    if (st != KN_NOMEM) kn_error_prefix(ctx, "%s", r->path);
    return st;
  }
  *found = n != NULL;
  *name = n;
  return KN_OK;
}

/* ---- one packed file ---- */

bool kn_is_packed(const void *p, size_t n) {
  static const struct {
    const char *magic;
    size_t n;
  } known[] = {{"BZh", 3},
               {"\xfd"
                "7zXZ\0",
                6},
               {"\x28\xb5\x2f\xfd", 4}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (n >= known[i].n && !memcmp(p, known[i].magic, known[i].n)) return true;
  return false;
}

static kn_status unpack(kn_context *ctx, kn_libarchive *lib, struct archive *a, const void *p, size_t n,
                        uint64_t limit, kn_bytes *out) {
  struct archive_entry *e;
  if (lib->read_support_format_raw(a) != ARCHIVE_OK || lib->read_open_memory(a, p, n) != ARCHIVE_OK ||
      lib->read_next_header(a, &e) != ARCHIVE_OK)
    return said(ctx, lib, a);
  kn_bytes b = {.heap = ctx->heap};
  kn_status st = read_entry(ctx, lib, a, limit ? limit : UINT64_MAX, "unpacked it", &b);
  if (st == KN_OK)
    *out = b;
  else
    kn_bytes_free(&b);
  return st;
}

kn_status kn_unpack(kn_context *ctx, const void *p, size_t n, uint64_t limit, kn_bytes *out) {
  kn_libarchive lib;
  struct archive *a;
  KN_TRY(kn_libarchive_open(ctx, &lib));
  kn_status st = reader(ctx, &lib, &a);
  if (st == KN_OK) {
    st = unpack(ctx, &lib, a, p, n, limit, out);
    lib.read_free(a);
  }
  kn_libarchive_close(&lib);
  return st;
}
