/* Files as bytes, read whole; and files that appear only when they are whole. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/io/bytes.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool kn_bytes_reserve(kn_bytes *b, size_t more) {
  if (more <= b->room - b->n) return true;
  if (more > SIZE_MAX / 2 - b->n) return false;
  size_t room = b->room ? b->room : 4096;
  while (room - b->n < more) room *= 2;
  char *p = kn_realloc(b->heap, b->p, b->room, room);
  if (!p) return false;
  b->p = p;
  b->room = room;
  return true;
}

bool kn_bytes_add(kn_bytes *b, const void *p, size_t n) {
  if (!kn_bytes_reserve(b, n)) return false;
  if (n) memcpy(b->p + b->n, p, n);
  b->n += n;
  return true;
}

static kn_status io_fail(kn_context *ctx, const char *path, int error) {
  char why[128] = "unknown error";
  (void)!strerror_r(error, why, sizeof why);
  return kn_fail(ctx, KN_IO, "%s: %s", path, why);
}

/* ---- reading ---- */

static kn_status read_fd(kn_context *ctx, const char *path, int fd, uint64_t limit, kn_bytes *b) {
  struct stat info;
  if (fstat(fd, &info)) return io_fail(ctx, path, errno);
  if (!S_ISREG(info.st_mode)) return kn_fail(ctx, KN_IO, "%s: it is not a regular file", path);
  if (limit && (uint64_t)info.st_size > limit)
    return kn_fail(ctx, KN_LIMIT, "%s: it has %lld bytes, more than the limit of %llu", path,
                   (long long)info.st_size, (unsigned long long)limit);
  size_t size = (size_t)info.st_size + 1; /* one more, to see the end */
  for (;;) {
    if (!kn_bytes_reserve(b, b->n < size ? size - b->n : 4096)) return kn_fail_nomem(ctx, size);
    size_t room = b->room - b->n;
    ssize_t got = read(fd, b->p + b->n, room < (1u << 30) ? room : 1u << 30);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_fail(ctx, path, errno);
    if (got == 0) return KN_OK;
    b->n += (size_t)got;
    if (limit && b->n > limit) return kn_fail(ctx, KN_LIMIT, "%s: it grows while it is read", path);
  }
}

kn_status kn_read_file(kn_context *ctx, const char *path, uint64_t limit, kn_bytes *out) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused, not waited for */
  if (fd < 0) return io_fail(ctx, path, errno);
  kn_bytes b = {.heap = ctx->heap};
  kn_status st = read_fd(ctx, path, fd, limit, &b);
  close(fd);
  if (st == KN_OK)
    *out = b;
  else
    kn_bytes_free(&b);
  return st;
}

/* ---- writing ---- */

static void drop(kn_new_file *f) {
  kn_free(f->heap, f->path, f->room);
  kn_free(f->heap, f->temp, f->room);
  f->file = NULL;
}

static FILE *open_beside(kn_new_file *f) {
  for (unsigned k = 0; k < 1000; k++) {
    snprintf(f->temp, f->room, "%s.%ld.%u.tmp", f->path, (long)getpid(), k);
    int fd = open(f->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd >= 0) return fdopen(fd, "wb");
    if (errno != EEXIST) return NULL;
  }
  return NULL;
}

kn_status kn_new_file_open(kn_context *ctx, const char *path, kn_new_file *out) {
  size_t room = strlen(path) + 64;
  kn_new_file f = {.room = room, .heap = ctx->heap};
  f.path = kn_alloc(ctx->heap, room);
  f.temp = kn_alloc(ctx->heap, room);
  kn_status st = f.path && f.temp ? KN_OK : kn_fail_nomem(ctx, room);
  if (st == KN_OK) {
    strcpy(f.path, path);
    f.file = open_beside(&f);
    if (!f.file) st = io_fail(ctx, path, errno);
  }
  if (st == KN_OK)
    *out = f;
  else
    drop(&f);
  return st;
}

kn_status kn_new_file_close(kn_context *ctx, kn_new_file *f, bool good) {
  FILE *file = f->file;
  int error = 0;
  if (good && (ferror(file) || fflush(file))) error = errno ? errno : EIO;
  if (fclose(file) && good && !error) error = errno;
  if (good && !error && rename(f->temp, f->path)) error = errno;
  if (!good || error) unlink(f->temp);
  kn_status st = error ? io_fail(ctx, f->path, error) : KN_OK;
  drop(f);
  return st;
}
