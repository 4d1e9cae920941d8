/* What is remembered of measurements: a table of keys in memory, and the file that it begins with and that
 * grows with it. */
#define _POSIX_C_SOURCE 200809L /* open, link, rename */
#include "backends/tune_inside.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  SLOTS = 2 * KN_TUNE_MOST,
  PATH = 1024,
  MACHINE = 640,
  MOST_LINE = KN_TUNE_KEY + KN_TUNE_NAME + KN_TUNE_TIMES + 32,
  MOST_FILE = 4 << 20,
  SAID = PATH + 256
};
enum { AT_ONCE = O_CLOEXEC | O_NONBLOCK | O_NOCTTY };
static const char title[] = "kiln: what was measured, format 1";

typedef struct entry {
  char *text; /* the line without its sum and its end; NULL: none */
  size_t bytes;
  uint32_t key; /* length */
  uint32_t age; /* the higher the newer */
} entry;

struct kn_tuner {
  kn_heap *heap;
  pthread_mutex_t busy; /* held while measuring */
  pthread_mutex_t lock; /* guards all below but what never changes: path, dir, machine */
  char machine[MACHINE], dir[PATH], path[PATH];
  bool read;    /* the file was read, or there is none */
  bool foreign; /* there is a file, but it cannot be added to: it is replaced by what is known */
  bool broken;  /* it cannot be written: not tried again */
  uint32_t ages, lines;
  int n;
  entry *slots; /* SLOTS of them, by key; NULL before the first */
};

static uint64_t hash(const char *text, size_t n) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
  return h ^ h >> 32;
}

kn_tuner *kn_tuner_new(kn_heap *heap, const char *dir, const char *machine) {
  kn_tuner *t = kn_calloc(heap, 1, sizeof *t);
  if (!t) return NULL;
  t->heap = heap;
  if (pthread_mutex_init(&t->lock, NULL)) {
    kn_free(heap, t, sizeof *t);
    return NULL;
  }
  if (pthread_mutex_init(&t->busy, NULL)) {
    pthread_mutex_destroy(&t->lock);
    kn_free(heap, t, sizeof *t);
    return NULL;
  }
  snprintf(t->machine, sizeof t->machine, "%s", machine ? machine : "");
  for (char *c = t->machine; *c; c++)
    if ((unsigned char)*c < ' ') *c = ' ';
  unsigned long long which = hash(t->machine, strlen(t->machine));
  if (dir && *dir && *t->machine && strlen(dir) < sizeof t->dir - 64) {
    memcpy(t->dir, dir, strlen(dir) + 1);
    if (snprintf(t->path, sizeof t->path, "%s/tune-%016llx", dir, which) >= (int)sizeof t->path)
      t->path[0] = 0;
  }
  t->read = !t->path[0];
  t->broken = t->read;
  return t;
}

static void clear(kn_tuner *t) {
  for (int i = 0; t->slots && i < SLOTS; i++) kn_free(t->heap, t->slots[i].text, t->slots[i].bytes);
  kn_free(t->heap, t->slots, SLOTS * sizeof *t->slots);
  t->slots = NULL;
  t->n = 0;
}

void kn_tuner_free(kn_tuner *t) {
  if (!t) return;
  clear(t);
  pthread_mutex_destroy(&t->lock);
  pthread_mutex_destroy(&t->busy);
  kn_free(t->heap, t, sizeof *t);
}

const char *kn_tuner_path(const kn_tuner *t) { return t->path; }

bool kn_tuner_begin(kn_tuner *t) { return pthread_mutex_trylock(&t->busy) == 0; }
void kn_tuner_end(kn_tuner *t) { pthread_mutex_unlock(&t->busy); }

/* ---- the table; the lock is held ---- */

static entry *place_of(kn_tuner *t, const char *key, size_t n) {
  size_t i = hash(key, n) % SLOTS;
  while (t->slots[i].text && (t->slots[i].key != n || memcmp(t->slots[i].text, key, n))) i = (i + 1) % SLOTS;
  return &t->slots[i];
}

/* Only those younger than `age` stay. */
static bool keep_newer(kn_tuner *t, uint32_t age) {
  entry *old = t->slots, *fresh = kn_calloc(t->heap, SLOTS, sizeof *fresh);
  if (!fresh) return false;
  t->slots = fresh;
  t->n = 0;
  for (int i = 0; i < SLOTS; i++) {
    if (!old[i].text) continue;
    if (old[i].age <= age) {
      kn_free(t->heap, old[i].text, old[i].bytes);
      continue;
    }
    *place_of(t, old[i].text, old[i].key) = old[i];
    t->n++;
  }
  kn_free(t->heap, old, SLOTS * sizeof *old);
  return true;
}

/* The age that half of them are younger than, roughly: keys that were noted twice leave gaps. */
static uint32_t middle_age(const kn_tuner *t) {
  uint32_t low = 0, high = t->ages;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    int younger = 0;
    for (int i = 0; i < SLOTS; i++) younger += t->slots[i].text && t->slots[i].age > middle;
    if (younger > KN_TUNE_MOST / 2)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* "key = way | times", as it stands in the file. False: no such line, or no memory. */
static bool put(kn_tuner *t, const char *line, size_t n) {
  const char *is = NULL;
  for (size_t i = 0; i + 3 < n && !is; i++)
    if (!memcmp(line + i, " = ", 3)) is = line + i;
  if (!is || is == line || is - line >= KN_TUNE_KEY) return false;
  size_t way = strcspn(is + 3, " ");
  if (!way || way >= KN_TUNE_NAME) return false;
  if (!t->slots && !(t->slots = kn_calloc(t->heap, SLOTS, sizeof *t->slots))) return false;
  if (t->n >= KN_TUNE_MOST && !keep_newer(t, middle_age(t))) return false;
  char *text = kn_alloc(t->heap, n + 1);
  if (!text) return false;
  memcpy(text, line, n);
  text[n] = 0;
  entry *e = place_of(t, line, (size_t)(is - line));
  t->n += e->text == NULL;
  kn_free(t->heap, e->text, e->bytes);
  *e = (entry){text, n + 1, (uint32_t)(is - line), ++t->ages};
  return true;
}

/* ---- reading; the lock is held, so that what is to be logged is left in `said` ---- */

static uint32_t sum_of(const char *line, size_t n) { return (uint32_t)hash(line, n); }

/* A line of the file, without its end. */
static bool take_line(kn_tuner *t, char *line) {
  size_t n = strlen(line);
  unsigned sum;
  int at = 0;
  if (n < 10 || n >= MOST_LINE || sscanf(line, "%8x %n", &sum, &at) != 1 || at != 9) return false;
  return sum == sum_of(line + 9, n - 9) && put(t, line + 9, n - 9);
}

static void take_file(kn_tuner *t, char *text, char said[SAID]) {
  unsigned bad = 0;
  bool whole = true;
  char *line = text, *end;
  for (int i = 0; *line; i++, line = end + whole) {
    end = line + strcspn(line, "\n");
    whole = *end == '\n';
    *end = 0;
    const char *wanted = i == 0 ? title : i == 1 ? t->machine : NULL;
    if (wanted && strcmp(line, wanted)) {
      snprintf(said, SAID, "kiln: %s is of another machine or another version and is left out", t->path);
      t->foreign = true;
      return;
    }
    t->lines++;
    if (i > 1 && !take_line(t, line)) bad++;
  }
  t->foreign = t->lines < 2 || !whole; /* or the next line would be taken for the rest of the last one */
  if (bad) snprintf(said, SAID, "kiln: %u damaged lines of %s are left out", bad, t->path);
}

static void read_file(kn_tuner *t, char said[SAID]) {
  t->read = true;
  int fd = open(t->path, O_RDONLY | AT_ONCE); /* whatever has that name: a pipe would wait for a writer */
  if (fd < 0) return;
  FILE *f = fdopen(fd, "rb");
  if (!f) close(fd);
  if (!f) return;
  struct stat about;
  size_t size = !fstat(fileno(f), &about) && S_ISREG(about.st_mode) && about.st_size <= MOST_FILE
                    ? (size_t)about.st_size
                    : 0;
  char *text = kn_alloc(t->heap, size + 1);
  if (text) {
    size_t n = fread(text, 1, size, f);
    text[n] = 0;
    for (size_t i = 0; i < n; i++)
      if (!text[i]) text[i] = '?';
    take_file(t, text, said);
  }
  kn_free(t->heap, text, size + 1);
  fclose(f);
}

/* Who is told may ask the tuner, as by running a graph: the lock is not held then. */
static void unlock_and_tell(kn_context *ctx, kn_tuner *t, const char *said) {
  pthread_mutex_unlock(&t->lock);
  if (*said) kn_log(ctx, "%s", said);
}

/* When the file has been read. */
static void lock(kn_context *ctx, kn_tuner *t) {
  char said[SAID] = "";
  pthread_mutex_lock(&t->lock);
  if (t->read) return;
  read_file(t, said);
  unlock_and_tell(ctx, t, said);
  pthread_mutex_lock(&t->lock);
}

bool kn_tuner_find(kn_context *ctx, kn_tuner *t, const char *key, char way[KN_TUNE_NAME]) {
  lock(ctx, t);
  const entry *e = t->slots ? place_of(t, key, strlen(key)) : NULL;
  bool found = e && e->text;
  if (found)
    snprintf(way, KN_TUNE_NAME, "%.*s", (int)strcspn(e->text + e->key + 3, " "), e->text + e->key + 3);
  pthread_mutex_unlock(&t->lock);
  return found;
}

int kn_tuner_count(kn_tuner *t) {
  pthread_mutex_lock(&t->lock);
  int n = t->n;
  pthread_mutex_unlock(&t->lock);
  return n;
}

/* ---- writing; the lock is held ---- */

static bool make_folders(const kn_tuner *t) {
  char path[PATH];
  memcpy(path, t->dir, sizeof path);
  for (char *c = path + 1; *c; c++) {
    if (*c != '/') continue;
    *c = 0;
    (void)mkdir(path, 0700);
    *c = '/';
  }
  struct stat about;
  return !mkdir(path, 0700) || (!stat(path, &about) && S_ISDIR(about.st_mode));
}

static bool write_all(int fd, const char *text, size_t n) {
  while (n) {
    ssize_t wrote = write(fd, text, n);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    text += wrote;
    n -= (size_t)wrote;
  }
  return true;
}

static int line_of(const char *text, char line[MOST_LINE]) {
  int n = snprintf(line, MOST_LINE, "%08x %s\n", (unsigned)sum_of(text, strlen(text)), text);
  return n < MOST_LINE ? n : 0;
}

/* All that is known under a name of its own, then given the file's: instead of whatever there is, or only
 * where there is none. */
static bool write_whole(kn_tuner *t, bool replace) {
  char name[PATH + 32], head[MACHINE + sizeof title + 8], line[MOST_LINE];
  snprintf(name, sizeof name, "%s.XXXXXX", t->path); /* the X are mkstemp's */
  int fd = mkstemp(name);
  if (fd < 0) return false;
  int n = snprintf(head, sizeof head, "%s\n%s\n", title, t->machine);
  bool fine = write_all(fd, head, (size_t)n);
  for (int i = 0; replace && t->slots && i < SLOTS && fine; i++)
    if (t->slots[i].text && (n = line_of(t->slots[i].text, line)) > 0) fine = write_all(fd, line, (size_t)n);
  fine &= close(fd) == 0;
  if (fine && replace) fine = rename(name, t->path) == 0;
  if (fine && !replace && link(name, t->path) && errno != EEXIST)
    fine = rename(name, t->path) == 0; /* a file system without links */
  unlink(name);
  return fine;
}

static bool append(kn_tuner *t, const char *text) {
  char line[MOST_LINE];
  int n = line_of(text, line);
  int fd = open(t->path, O_WRONLY | O_APPEND | AT_ONCE);
  if (fd < 0 && errno == ENOENT) {
    if (!make_folders(t) || !write_whole(t, false)) return false;
    fd = open(t->path, O_WRONLY | O_APPEND | AT_ONCE);
  }
  if (fd < 0 || n <= 0) return false;
  bool fine = write(fd, line, (size_t)n) == n; /* at once, or another process could write between */
  return (close(fd) == 0) & fine;
}

static void save(kn_tuner *t, const char *text, char said[SAID]) {
  if (t->broken) return;
  bool whole = t->foreign || t->lines > 2 * KN_TUNE_MOST;
  t->broken = whole ? !write_whole(t, true) : !append(t, text);
  t->foreign = false;
  t->lines = whole ? (uint32_t)t->n : t->lines + 1;
  if (t->broken)
    snprintf(said, SAID, "kiln: what was measured cannot be written to %s: %s", t->path, strerror(errno));
}

void kn_tuner_note(kn_context *ctx, kn_tuner *t, const char *key, const char *way, const char *times) {
  char text[MOST_LINE], said[SAID] = "";
  int n = snprintf(text, sizeof text, "%s = %s | %s", key, way, times);
  if (n <= 0 || n >= MOST_LINE - 16 || strlen(key) >= KN_TUNE_KEY || strlen(way) >= KN_TUNE_NAME) return;
  lock(ctx, t);
  if (put(t, text, (size_t)n)) save(t, text, said);
  unlock_and_tell(ctx, t, said);
}

/* ---- the machine ---- */

void kn_tune_processor(char *text, size_t size) {
  /* As Linux tells on x86 and ARM; of long lists only a sum. */
  static const char *const said[] = {
      "vendor_id",       "cpu family",       "model name",  "model",    "stepping",     "cache size", "flags",
      "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"};
  enum { LONG = 48 };
  char line[4096];
  size_t at = 0;
  text[0] = 0;
  FILE *f = fopen("/proc/cpuinfo", "re");
  while (f && fgets(line, sizeof line, f) && line[0] != '\n') {
    char *is = strchr(line, ':');
    if (!is) continue;
    size_t n = (size_t)(is - line);
    while (n && (line[n - 1] == '\t' || line[n - 1] == ' ')) n--;
    is += strspn(is, ": \t");
    is[strcspn(is, "\n")] = 0;
    for (size_t i = 0; i < sizeof said / sizeof *said && at < size; i++) {
      if (strlen(said[i]) != n || memcmp(line, said[i], n)) continue;
      if (strlen(is) < LONG)
        at += (size_t)snprintf(text + at, size - at, "%s%s", at ? " " : "", is);
      else
        at += (size_t)snprintf(text + at, size - at, "%s%08x", at ? " " : "", sum_of(is, strlen(is)));
    }
  }
  if (f) fclose(f);
}
