/* Writing zip archives, by libarchive: see archives.h. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/io/archives.h"
#include "bindings/io/libarchive.h"
#include <errno.h>
#include <stdio.h>

struct kn_zip {
  kn_libarchive lib;
  struct archive *a;
  kn_heap *heap; /* retained */
  kn_new_file to;
};

static la_ssize_t put(struct archive *a, void *ud, const void *p, size_t n) {
  kn_zip *z = ud;
  (void)a;
  return fwrite(p, 1, n, z->to.file) == n ? (la_ssize_t)n : -1;
}

static kn_status said(kn_context *ctx, kn_zip *z) {
  const char *text = z->lib.error_string(z->a);
  if (z->lib.error_number(z->a) == ENOMEM) return kn_fail_nomem(ctx, 0);
  return kn_fail(ctx, KN_IO, "%s: %s", z->to.path, text ? text : "could not be written");
}

static kn_status start(kn_context *ctx, kn_zip *z) {
  z->a = z->lib.write_new();
  if (!z->a) return kn_fail_nomem(ctx, 0);
  if (z->lib.write_set_format_zip(z->a) != ARCHIVE_OK ||
      z->lib.write_zip_set_compression_store(z->a) != ARCHIVE_OK ||
      z->lib.write_set_bytes_per_block(z->a, 0) != ARCHIVE_OK ||
      z->lib.write_open(z->a, z, NULL, put, NULL) != ARCHIVE_OK)
    return said(ctx, z);
  return KN_OK;
}

static void dispose(kn_zip *z) {
  kn_heap *heap = z->heap;
  if (z->a) z->lib.write_free(z->a);
  kn_libarchive_close(&z->lib);
  kn_free(heap, z, sizeof *z);
  kn_heap_release(heap);
}

kn_status kn_zip_open(kn_context *ctx, const char *path, kn_zip **out) {
  kn_zip *z = kn_calloc(ctx->heap, 1, sizeof *z);
  if (!z) return kn_fail_nomem(ctx, sizeof *z);
  z->heap = kn_heap_retain(ctx->heap);
  kn_status st = kn_libarchive_open(ctx, &z->lib);
  if (st == KN_OK) st = kn_new_file_open(ctx, path, &z->to);
  if (st != KN_OK) {
    dispose(z);
    return st;
  }
  st = start(ctx, z);
  if (st == KN_OK)
    *out = z;
  else
    (void)!kn_zip_close(ctx, z, false);
  return st;
}

kn_status kn_zip_begin(kn_context *ctx, kn_zip *z, const char *name, uint64_t bytes) {
  struct archive_entry *e = z->lib.entry_new();
  if (!e) return kn_fail_nomem(ctx, 0);
  z->lib.entry_set_pathname_utf8(e, name);
  z->lib.entry_set_filetype(e, AE_IFREG);
  z->lib.entry_set_perm(e, 0644);
  z->lib.entry_set_size(e, (la_int64_t)bytes);
  z->lib.entry_set_mtime(e, 315532800, 0); /* 1980: the same tensors give the same file */
  locale_t before = kn_libarchive_enter(&z->lib);
  int rc = z->lib.write_header(z->a, e);
  kn_libarchive_leave(&z->lib, before);
  z->lib.entry_free(e);
  return rc == ARCHIVE_OK || rc == ARCHIVE_WARN ? KN_OK : said(ctx, z);
}

kn_status kn_zip_add(kn_context *ctx, kn_zip *z, const void *p, size_t n) {
  for (const char *at = p; n;) {
    la_ssize_t put_now = z->lib.write_data(z->a, at, n < (1u << 30) ? n : 1u << 30);
    if (put_now <= 0) return said(ctx, z);
    at += put_now;
    n -= (size_t)put_now;
  }
  return KN_OK;
}

kn_status kn_zip_close(kn_context *ctx, kn_zip *z, bool good) {
  kn_status st = KN_OK;
  if (good && z->lib.write_close(z->a) != ARCHIVE_OK) st = said(ctx, z);
  if (z->a) z->lib.write_free(z->a); /* which may still call put */
  z->a = NULL;
  kn_status closed = kn_new_file_close(ctx, &z->to, good && st == KN_OK);
  dispose(z);
  return st == KN_OK ? closed : st;
}
