/* Compiled programs on disk: a file each, named by a hash of all that it was made from and holding all of
 * that, so that one of another source, compiler, device or kiln is never taken. Files are written beside and
 * renamed, so several processes may share the folder; what is damaged is not there.
 *
 *   kiln cuda 1\n  IDENTITY\n  KEY\n  bytes of source and image, CRC-64 of both\n  source  image */
#define _POSIX_C_SOURCE 200809L
#include "backends/cuda/kernel_inside.h"
#include "graph/checksum.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD = 2048, PATH = 1280 };
static const uint64_t CAPACITY = UINT64_C(256) << 20;

void cu_disk_open(cu_disk *k, kn_heap *heap, const char *cache) {
  *k = (cu_disk){.heap = heap, .capacity = CAPACITY};
  int n = cache ? snprintf(k->dir, sizeof k->dir, "%s/cuda", cache) : 0;
  if (n < 0 || (size_t)n >= sizeof k->dir) k->dir[0] = 0;
}

static uint64_t checksum(const char *source, size_t n, const void *image, size_t bytes) {
  kn_crc c;
  kn_crc_start(&c);
  kn_crc_feed(&c, source, n);
  kn_crc_feed(&c, image, bytes);
  return kn_crc_value(&c);
}

/* Everything but the numbers. */
static bool head_of(const char *identity, const char *key, char head[HEAD]) {
  int n = snprintf(head, HEAD, "kiln cuda 1\n%s\n%s\n", identity, key);
  return n > 0 && n < HEAD;
}

static void path_of(const cu_disk *k, const char *head, const char *source, char path[PATH]) {
  uint64_t h = cu_hash(head, strlen(head)) ^ 31 * cu_hash(source, strlen(source));
  snprintf(path, PATH, "%s/%016llx.kernels", k->dir, (unsigned long long)h);
}

/* ---- reading ---- */

static char *read_file(kn_heap *heap, const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  struct stat s;
  char *text = NULL;
  if (!f) return NULL;
  if (!fstat(fileno(f), &s) && s.st_size > 0 && (text = kn_alloc(heap, (size_t)s.st_size + 1))) {
    *n = (size_t)s.st_size;
    if (fread(text, 1, *n, f) == *n)
      text[*n] = 0;
    else {
      kn_free(heap, text, *n + 1);
      text = NULL;
    }
  }
  fclose(f);
  return text;
}

/* Where the image begins in the text of a file; NULL: not this program, or damaged. */
static const char *image_in(const char *text, size_t n, const char *head, const char *source, size_t *bytes) {
  size_t at = strlen(head), length = strlen(source);
  unsigned long long of_source, of_image, sum;
  int used = 0;
  if (n < at || memcmp(text, head, at)) return NULL;
  if (sscanf(text + at, "%llu %llu %llx%n", &of_source, &of_image, &sum, &used) != 3 ||
      text[at + (size_t)used] != '\n')
    return NULL;
  at += (size_t)used + 1;
  if (of_source != length || of_image == 0 || n - at < length || n - at - length != of_image) return NULL;
  if (memcmp(text + at, source, length)) return NULL;
  *bytes = (size_t)of_image;
  return checksum(source, length, text + at + length, *bytes) == sum ? text + at + length : NULL;
}

bool cu_disk_read(cu_disk *k, const char *identity, const char *key, const char *source, cu_image *out) {
  char head[HEAD], path[PATH];
  size_t n = 0;
  if (!k->dir[0] || !head_of(identity, key, head)) return false;
  path_of(k, head, source, path);
  char *text = read_file(k->heap, path, &n);
  if (!text) return false;
  const char *image = image_in(text, n, head, source, &out->bytes);
  out->data = image ? kn_alloc(k->heap, out->bytes) : NULL;
  if (out->data) memcpy(out->data, image, out->bytes);
  kn_free(k->heap, text, n + 1);
  return out->data != NULL;
}

/* ---- writing ---- */

static bool ours(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot && (!strcmp(dot, ".kernels") || !strncmp(dot, ".new", 4));
}

/* Counts the bytes of all files, and finds the one that was written first. */
static uint64_t look(const cu_disk *k, char oldest[PATH]) {
  char path[PATH];
  struct stat s;
  uint64_t bytes = 0;
  time_t when = 0;
  oldest[0] = 0;
  DIR *dir = opendir(k->dir);
  for (struct dirent *e; dir && (e = readdir(dir));) {
    int n = snprintf(path, sizeof path, "%s/%.200s", k->dir, e->d_name);
    if (!ours(e->d_name) || n >= (int)sizeof path || stat(path, &s)) continue;
    bytes += (uint64_t)s.st_size;
    if (oldest[0] && s.st_mtime >= when) continue;
    when = s.st_mtime;
    memcpy(oldest, path, sizeof path);
  }
  if (dir) closedir(dir);
  return bytes;
}

static void make_room(cu_disk *k, size_t more) {
  char oldest[PATH];
  if (k->looked && k->bytes + more <= k->capacity) {
    k->bytes += more;
    return;
  }
  k->bytes = look(k, oldest);
  k->looked = true;
  if (k->bytes + more > k->capacity) /* a quarter of the room, so that this is seldom done */
    while (oldest[0] && k->bytes + more > k->capacity / 4 * 3 && !unlink(oldest)) k->bytes = look(k, oldest);
  k->bytes += more;
}

/* The folder and the one that it is in. */
static void make_folders(const cu_disk *k) {
  char above[sizeof k->dir];
  snprintf(above, sizeof above, "%s", k->dir);
  *strrchr(above, '/') = 0;
  (void)mkdir(above, 0777);
  (void)mkdir(k->dir, 0777);
}

void cu_disk_write(cu_disk *k, const char *identity, const char *key, const char *source, const cu_image *i) {
  char head[HEAD], path[PATH], beside[PATH + 8];
  size_t length = strlen(source);
  if (!k->dir[0] || !head_of(identity, key, head)) return;
  make_folders(k);
  make_room(k, strlen(head) + length + i->bytes + 64);
  path_of(k, head, source, path);
  snprintf(beside, sizeof beside, "%.*s.newXXXXXX", (int)strlen(path) - 8, path);
  int file = mkstemp(beside);
  FILE *f = file >= 0 ? fdopen(file, "wb") : NULL;
  if (!f) {
    if (file >= 0) close(file), unlink(beside);
    return;
  }
  bool written =
      fprintf(f, "%s%llu %llu %llx\n", head, (unsigned long long)length, (unsigned long long)i->bytes,
              (unsigned long long)checksum(source, length, i->data, i->bytes)) > 0 &&
      fwrite(source, 1, length, f) == length && fwrite(i->data, 1, i->bytes, f) == i->bytes;
  if (fclose(f) || !written || rename(beside, path)) unlink(beside);
}
