/* Files as bytes: mapped for reading, written atomically. The one file of this room that talks to the system.
 */
#define _XOPEN_SOURCE 700 /* realpath */
#include "graph/mapping.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static kn_status io_fail(kn_context *ctx, const char *verb, const char *path, int error) {
  char why[128] = "unknown error";
  (void)!strerror_r(error, why, sizeof why);
  return kn_fail(ctx, KN_IO, "cannot %s %s: %s", verb, path, why);
}

/* ---- reading ---- */

static void unmap(void *ud, void *data, size_t bytes) {
  (void)ud;
  munmap(data, bytes);
}

static void free_copy(void *ud, void *data, size_t bytes) { kn_free_aligned(ud, data, bytes); }

/* Takes `bytes` over, also when it fails. */
static kn_status wrap(kn_context *ctx, void *bytes, size_t size, kn_release_fn release, void *ud,
                      kn_mapping **out) {
  kn_mapping *m = kn_calloc(ctx->heap, 1, sizeof *m);
  if (!m) {
    release(ud, bytes, size);
    return kn_fail_nomem(ctx, sizeof *m);
  }
  *m = (kn_mapping){
      .heap = kn_heap_retain(ctx->heap), .bytes = bytes, .size = size, .release = release, .ud = ud};
  atomic_init(&m->refs, 1);
  *out = m;
  return KN_OK;
}

kn_status kn_mapping_open(kn_context *ctx, const char *path, kn_mapping **out) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused, not waited for */
  if (fd < 0) return io_fail(ctx, "open", path, errno);
  struct stat info;
  kn_status st = KN_OK;
  void *bytes = NULL;
  if (fstat(fd, &info))
    st = io_fail(ctx, "read", path, errno);
  else if (!S_ISREG(info.st_mode))
    st = kn_fail(ctx, KN_IO, "cannot read %s: it is not a regular file", path);
  else if (info.st_size == 0) { /* cannot be mapped */
    close(fd);
    return kn_mapping_new(ctx, NULL, 0, NULL, NULL, out);
  } else if ((bytes = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0)) ==
             MAP_FAILED)
    st = io_fail(ctx, "map", path, errno);
  close(fd);
  return st == KN_OK ? wrap(ctx, bytes, (size_t)info.st_size, unmap, NULL, out) : st;
}

kn_status kn_mapping_new(kn_context *ctx, const void *bytes, size_t size, kn_release_fn release, void *ud,
                         kn_mapping **out) {
  if (release) return wrap(ctx, (void *)(uintptr_t)bytes, size, release, ud, out);
  void *copy = kn_alloc_aligned(ctx->heap, size);
  if (!copy) return kn_fail_nomem(ctx, size);
  if (size) memcpy(copy, bytes, size);
  return wrap(ctx, copy, size, free_copy, ctx->heap, out);
}

kn_mapping *kn_mapping_retain(kn_mapping *m) {
  atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
  return m;
}

void kn_mapping_release(kn_mapping *m) {
  if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1) return;
  m->release(m->ud, m->bytes, m->size);
  kn_heap *heap = m->heap;
  kn_free(heap, m, sizeof *m);
  kn_heap_release(heap);
}

void kn_mapping_tensor_gone(void *ud, void *data, size_t bytes) {
  (void)data, (void)bytes;
  kn_mapping_release(ud);
}

/* ---- writing ---- */

static int open_beside(const char *path, mode_t mode, char *temp, size_t size) {
  for (unsigned k = 0; k < 1000; k++) {
    snprintf(temp, size, "%s.%ld.%u.tmp", path, (long)getpid(), k);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
  return -1;
}

static bool write_all(int fd, const kn_piece *piece) {
  const char *p = piece->p;
  for (size_t n = piece->n; n;) {
    ssize_t w = write(fd, p, n < (1u << 30) ? n : 1u << 30);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) return false;
    p += w;
    n -= (size_t)w;
  }
  return true;
}

/* So that the new name survives a crash as well; not every file system can, which is no failure. */
static void sync_folder(const char *path) {
  char folder[4096] = ".";
  const char *slash = strrchr(path, '/');
  if (slash && (size_t)(slash - path) < sizeof folder) {
    memcpy(folder, path, (size_t)(slash - path) + 1);
    folder[slash - path + 1] = 0;
  }
  int fd = open(folder, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  (void)!fsync(fd);
  close(fd);
}

/* What a name stands for: a link stays, and what it shows is replaced. */
static const char *behind_links(const char *path, char room[PATH_MAX]) {
  struct stat info;
  const bool link = !lstat(path, &info) && S_ISLNK(info.st_mode);
  return link && realpath(path, room) ? room : path;
}

kn_status kn_write_file(kn_context *ctx, const char *name, const kn_piece *pieces, size_t n) {
  char room[PATH_MAX];
  const char *path = behind_links(name, room);
  struct stat old;
  const bool replaces = !stat(path, &old);
  if (replaces && !S_ISREG(old.st_mode)) /* a device would be gone */
    return kn_fail(ctx, KN_IO, "cannot write %s: there is something that is not a regular file", name);
  size_t size = strlen(path) + 64;
  char *temp = kn_alloc(ctx->heap, size);
  if (!temp) return kn_fail_nomem(ctx, size);
  const mode_t mode = replaces ? old.st_mode & 0777 : 0644; /* never wider, not even while it is empty */
  int fd = open_beside(path, mode, temp, size), error = fd < 0 ? errno : 0;
  if (fd >= 0 && replaces && fchmod(fd, mode)) error = errno;
  for (size_t i = 0; fd >= 0 && !error && i < n; i++)
    if (!write_all(fd, &pieces[i])) error = errno;
  if (fd >= 0 && !error && fsync(fd)) error = errno;
  if (fd >= 0 && close(fd) && !error) error = errno;
  if (fd >= 0 && !error && rename(temp, path)) error = errno;
  if (fd >= 0 && error) unlink(temp);
  if (!error) sync_folder(path);
  kn_free(ctx->heap, temp, size);
  return error ? io_fail(ctx, "write", name, error) : KN_OK;
}
