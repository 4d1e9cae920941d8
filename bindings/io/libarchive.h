/* libarchive's shared library, opened at run time, and its functions that are used here. Private. */
#ifndef KN_LIBARCHIVE_H
#define KN_LIBARCHIVE_H
#include "core/context.h"
#include <archive.h>
#include <archive_entry.h>
#include <locale.h>

/* X(name without archive_) */
/* clang-format off */
#define KN_ARCHIVE_FUNCTIONS(X) \
  X(read_new) X(read_free) X(read_support_filter_gzip) X(read_support_filter_bzip2) \
  X(read_support_filter_xz) X(read_support_filter_zstd) X(read_support_format_tar) \
  X(read_support_format_zip) X(read_support_format_raw) X(read_open_filename) X(read_open_memory) \
  X(read_next_header) X(read_data) X(error_string) X(entry_pathname) X(entry_pathname_utf8) \
  X(entry_filetype) X(entry_size) X(entry_size_is_set) X(entry_hardlink) X(entry_is_data_encrypted) \
  X(entry_new) X(entry_free) X(entry_set_pathname_utf8) X(entry_set_size) X(entry_set_filetype) \
  X(entry_set_perm) X(entry_set_mtime) X(write_new) X(write_free) X(write_close) X(write_set_format_zip) \
  X(write_zip_set_compression_store) X(write_open) X(write_header) X(write_data) \
  X(write_set_bytes_in_last_block) X(write_set_bytes_per_block)
/* clang-format on */

typedef struct kn_libarchive {
  void *handle;
  locale_t utf8; /* 0 where there is none */
#define X(name) __typeof__(archive_##name) *name;
  KN_ARCHIVE_FUNCTIONS(X)
#undef X
  __typeof__(archive_errno) *error_number; /* errno is a macro */
} kn_libarchive;

kn_status kn_libarchive_open(kn_context *ctx, kn_libarchive *out);
void kn_libarchive_close(kn_libarchive *l);
/* Names go through the locale of the thread, and the usual one of a program knows ASCII only: around calls
 * that read or write headers. Gives what to hand to the second. */
locale_t kn_libarchive_enter(const kn_libarchive *l);
void kn_libarchive_leave(const kn_libarchive *l, locale_t before);

#endif
