/* How files are written: whole or not at all, over files that are in use, through links, with the permissions
 * that were there; what is no regular file stays what it is. */
#define _GNU_SOURCE /* symlink, mkdtemp, syscall */
#include "spec/exec.h"
#include "spec/kiln_file.h"
#include "graph/mapping.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

typedef struct place {
  kn_context *c;
  char dir[64];
} place;

static void start(place *p) {
  p->c = suite_context();
  strcpy(p->dir, "/tmp/kiln-spec-XXXXXX"); /* the X are mkdtemp's */
  ck_assert_ptr_nonnull(mkdtemp(p->dir));
}

static const char *in(const place *p, const char *name) {
  static char paths[4][400];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", p->dir, name);
  return path;
}

static int files_in(const place *p) {
  DIR *d = opendir(p->dir);
  int n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n - 2;
}

static void stop(place *p) {
  DIR *d = opendir(p->dir);
  for (struct dirent *e; (e = readdir(d));)
    if (e->d_name[0] != '.') ck_assert_int_eq(unlink(in(p, e->d_name)), 0);
  closedir(d);
  ck_assert_int_eq(rmdir(p->dir), 0);
  suite_done(p->c);
}

/* x plus a weight of this value. */
static void save(place *p, const char *path, float value) {
  kn_graph *g =
      graph_of(p->c, "graph g(%x: float32[1024]) {\n  slot param \"w\": float32[1024]\n  %w = param \"w\"\n"
                     "  %y = add %x, %w\n  return %y\n}\n");
  kn_type t = {.dtype = KN_F32, .rank = 1, .dims = {1024}};
  OK(p->c, kn_tensor_new(p->c, &t, &g->slots[0]->tensor));
  for (int i = 0; i < 1024; i++) ((float *)kn_tensor_data(g->slots[0]->tensor))[i] = value;
  OK(p->c, kn_file_save(p->c, path, &(kn_entry){.name = "g", .graph = g}, 1));
  kn_graph_release(g);
}

static float value_in(place *p, const char *path) {
  kn_entry *e;
  uint32_t n;
  OK(p->c, kn_file_load(p->c, path, NULL, &e, &n));
  float v = *(float *)kn_tensor_data(e->graph->slots[0]->tensor);
  kn_file_free_entries(p->c->heap, e, n);
  return v;
}

static mode_t mode_of(const char *path) {
  struct stat info;
  ck_assert_int_eq(stat(path, &info), 0);
  return info.st_mode & 07777;
}

/* Saved over while it runs: who has it goes on with what it had, who opens it next gets the new one. */
START_TEST(over_a_file_in_use) {
  place p;
  kn_entry *e;
  uint32_t n;
  kn_target target;
  kn_session *s;
  start(&p);
  const char *path = in(&p, "model.kiln");
  save(&p, path, 1);
  OK(p.c, kn_file_load(p.c, path, NULL, &e, &n));
  ck_assert(kn_ref_backend.target(p.c, NULL, &target));
  OK(p.c, kn_session_new(p.c, e->graph, (const kn_target *[]){&target}, 1, &s));
  for (int round = 0; round < 3; round++) {
    kn_rvalue x = {0}, y;
    OK(p.c, kn_tensor_new(p.c, &(kn_type){.dtype = KN_F32, .rank = 1, .dims = {1024}}, &x.tensor));
    memset(kn_tensor_data(x.tensor), 0, 4096);
    if (round) save(&p, path, (float)(10 * round));
    OK(kn_session_context(s), kn_session_run(s, &x, 1, &y, 1));
    for (int i = 0; i < 1024; i++) ck_assert(((float *)kn_tensor_data(y.tensor))[i] == 1);
    kn_tensor_release(x.tensor);
    kn_tensor_release(y.tensor);
    ck_assert(value_in(&p, path) == (round ? (float)(10 * round) : 1));
  }
  OK(p.c, kn_file_save(p.c, path, e, n)); /* the mapped one over its successor: its pages are its own */
  ck_assert(value_in(&p, path) == 1);
  kn_session_free(s);
  kn_file_free_entries(p.c->heap, e, n);
  ck_assert_int_eq(files_in(&p), 1);
  stop(&p);
}
END_TEST

/* The C library's, which tells what a file's permissions are before they are set. */
static mode_t before_chmod;
int fchmod(int fd, mode_t mode) {
  struct stat info;
  before_chmod |= fstat(fd, &info) ? 07777 : info.st_mode & 07777;
  return (int)syscall(SYS_fchmod, fd, mode);
}

START_TEST(what_is_private_is_so_from_the_first) {
  place p;
  start(&p);
  const mode_t mask = umask(022);
  save(&p, in(&p, "private"), 1);
  ck_assert_int_eq(chmod(in(&p, "private"), 0600), 0);
  before_chmod = 0;
  save(&p, in(&p, "private"), 2); /* nobody else can open it while it is written */
  ck_assert_int_eq(before_chmod, 0600);
  ck_assert_int_eq(mode_of(in(&p, "private")), 0600);
  umask(mask);
  stop(&p);
}
END_TEST

START_TEST(permissions_and_links) {
  place p;
  struct stat info;
  start(&p);
  const mode_t mask = umask(022);
  save(&p, in(&p, "new"), 1);
  ck_assert_int_eq(mode_of(in(&p, "new")), 0644);
  umask(077);
  save(&p, in(&p, "private"), 1);
  ck_assert_int_eq(mode_of(in(&p, "private")), 0600);
  ck_assert_int_eq(chmod(in(&p, "new"), 0640), 0);
  save(&p, in(&p, "new"), 2); /* what it was, whatever the umask */
  ck_assert_int_eq(mode_of(in(&p, "new")), 0640);
  umask(mask);
  ck_assert_int_eq(symlink("new", in(&p, "link")), 0);
  ck_assert_int_eq(symlink("link", in(&p, "further")), 0);
  ck_assert_int_eq(symlink("nothing", in(&p, "dangling")), 0);
  save(&p, in(&p, "further"), 3);
  ck_assert(!lstat(in(&p, "further"), &info) && S_ISLNK(info.st_mode));
  ck_assert(!lstat(in(&p, "link"), &info) && S_ISLNK(info.st_mode));
  ck_assert(value_in(&p, in(&p, "new")) == 3 && value_in(&p, in(&p, "further")) == 3);
  save(&p, in(&p, "dangling"), 4); /* it showed nothing: it is the file now */
  ck_assert(!lstat(in(&p, "dangling"), &info) && S_ISREG(info.st_mode));
  ck_assert_int_eq(link(in(&p, "new"), in(&p, "other")), 0);
  save(&p, in(&p, "new"), 5);
  ck_assert(value_in(&p, in(&p, "new")) == 5 && value_in(&p, in(&p, "other")) == 3);
  stop(&p);
}
END_TEST

START_TEST(what_is_no_file) {
  place p;
  struct stat info;
  start(&p);
  const kn_piece piece = {"abc", 3};
  ck_assert_int_eq(mkfifo(in(&p, "pipe"), 0600), 0);
  FAILS(p.c, KN_IO, "not a regular file", kn_write_file(p.c, in(&p, "pipe"), &piece, 1));
  ck_assert(!lstat(in(&p, "pipe"), &info) && S_ISFIFO(info.st_mode));
  FAILS(p.c, KN_IO, "not a regular file", kn_write_file(p.c, p.dir, &piece, 1));
  FAILS(p.c, KN_IO, "not a regular file", kn_write_file(p.c, "/dev/null", &piece, 1));
  ck_assert(!lstat("/dev/null", &info) && S_ISCHR(info.st_mode));
  FAILS(p.c, KN_IO, "No such file", kn_write_file(p.c, in(&p, "nowhere/x"), &piece, 1));
  FAILS(p.c, KN_IO, "Not a directory", kn_write_file(p.c, in(&p, "pipe/x"), &piece, 1));
  ck_assert_int_eq(symlink("loop", in(&p, "loop")), 0);
  OK(p.c, kn_write_file(p.c, in(&p, "loop"), &piece, 1)); /* as one that shows nothing */
  char name[300];
  memset(name, 'n', sizeof name);
  memcpy(name, p.dir, strlen(p.dir));
  name[strlen(p.dir)] = '/';
  name[strlen(p.dir) + 250] = 0; /* fits, but not with what is written first */
  FAILS(p.c, KN_IO, "too long", kn_write_file(p.c, name, &piece, 1));
  ck_assert_int_eq(files_in(&p), 2);
  stop(&p);
}
END_TEST

/* Half-written files of writers that died neither disturb nor are taken for ours. */
START_TEST(leftovers) {
  place p;
  char stale[160];
  start(&p);
  const char *path = in(&p, "model.kiln");
  for (int k = 0; k < 3; k++) {
    snprintf(stale, sizeof stale, "%s.%ld.%d.tmp", path, (long)getpid(), k);
    int fd = open(stale, O_CREAT | O_WRONLY, 0600);
    ck_assert(fd >= 0 && write(fd, "stale", 5) == 5);
    close(fd);
  }
  save(&p, path, 1);
  ck_assert(value_in(&p, path) == 1);
  ck_assert_int_eq(files_in(&p), 4);
  stop(&p);
}
END_TEST

SUITE("file_writing", over_a_file_in_use, permissions_and_links, what_is_private_is_so_from_the_first,
      what_is_no_file, leftovers)
