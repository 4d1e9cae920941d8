/* tar and zip archives, plain or compressed (gzip, bzip2, xz, zstd), entry by entry. Names in an archive are
 * text for the caller: nothing is ever written to a path of that name. libarchive reads them; it is opened
 * when an archive is first used, for linking it would cost every start of a program. */
#ifndef KN_ARCHIVES_H
#define KN_ARCHIVES_H
#include "bindings/io/bytes.h"

typedef struct kn_archive kn_archive;

typedef struct kn_archive_limits { /* 0: the default */
  uint64_t entry;                  /* bytes of one entry; 1 GiB */
  uint64_t total;                  /* bytes of all entries read; 64 GiB */
  uint64_t entries;                /* how many entries; 2^24 */
} kn_archive_limits;

kn_status kn_archive_open(kn_context *ctx, const char *path, const kn_archive_limits *limits,
                          kn_archive **out);
/* The next entry that is a regular file; *found false at the end. The name and the bytes (in out, which is
 * the caller's and reused) are valid until the next call. */
kn_status kn_archive_next(kn_context *ctx, kn_archive *a, bool *found, const char **name, kn_bytes *out);
void kn_archive_close(kn_archive *a); /* NULL is fine */

/* bzip2, xz and zstd, by their first bytes; gzip is bytes.h's. */
bool kn_is_packed(const void *p, size_t n);
kn_status kn_unpack(kn_context *ctx, const void *p, size_t n, uint64_t limit, kn_bytes *out);

/* A zip archive of stored entries, which takes the place of `path` when it is closed well. */
typedef struct kn_zip kn_zip;
kn_status kn_zip_open(kn_context *ctx, const char *path, kn_zip **out);
kn_status kn_zip_begin(kn_context *ctx, kn_zip *z, const char *name, uint64_t bytes);
kn_status kn_zip_add(kn_context *ctx, kn_zip *z, const void *p, size_t n);
kn_status kn_zip_close(kn_context *ctx, kn_zip *z, bool good); /* frees z in any case */

#endif
