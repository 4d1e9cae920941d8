/* bindings/io below Lua: jobs done by threads, every allocation that fails, and damaged files of every
 * format, each in memory of exactly its size, so that a read past the end is seen. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "bindings/io/npz.h"
#include "bindings/io/prefetch.h"
#include "bindings/io/wav.h"
#include "spec/suite.h"
#include <unistd.h>

static kn_tensor *picture(kn_context *c, int64_t channels, int64_t height, int64_t width) {
  kn_type type = {.dtype = KN_U8, .rank = 3, .dims = {channels, height, width}};
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (size_t i = 0; i < t->storage->bytes; i++) ((uint8_t *)kn_tensor_data(t))[i] = (uint8_t)(i * 7);
  return t;
}

/* ---- threads ---- */

START_TEST(jobs_in_order) {
  kn_context *c = suite_context();
  enum { JOBS = 60, SIDES = 7 };
  kn_bytes files[SIDES];
  for (int i = 0; i < SIDES; i++) {
    kn_tensor *t = picture(c, 3, 1 + i * 9, 20);
    files[i] = (kn_bytes){.heap = c->heap};
    OK(c, i % 2 ? kn_jpeg_encode(c, t, 80, &files[i]) : kn_png_encode(c, t, 6, &files[i]));
    kn_tensor_release(t);
  }
  for (int workers = 0; workers <= 4; workers++) {
    kn_prefetcher *p;
    OK(c, kn_prefetcher_new(c, &(kn_prefetch_options){.workers = workers, .depth = 8}, &p));
    int pushed = 0;
    for (int popped = 0; popped < JOBS; popped++) {
      for (bool taken = true; taken && pushed < JOBS; pushed += taken) {
        const kn_bytes *f = &files[pushed % SIDES];
        kn_job job = {.bytes = f->p, .n = f->n, .image = pushed % 5 != 3, .mode = KN_IMAGE_RGB};
        if (pushed % 5 == 4) job = (kn_job){.path = "/nowhere/x", .image = true};
        OK(c, kn_prefetcher_push(c, p, &job, &taken));
      }
      kn_tensor *t = NULL;
      if (popped % 5 == 4) {
        FAILS(c, KN_IO, "/nowhere/x: No such file", kn_prefetcher_pop(c, p, &t));
        ck_assert_ptr_null(t);
        continue;
      }
      OK(c, kn_prefetcher_pop(c, p, &t));
      if (popped % 5 == 3)
        ck_assert_int_eq(t->type.dims[0], (int64_t)files[popped % SIDES].n);
      else
        ck_assert_int_eq(t->type.dims[1], 1 + popped % SIDES * 9);
      kn_tensor_release(t);
    }
    ck_assert_int_eq(kn_prefetcher_pending(p), 0);
    FAILS(c, KN_STATE, "nothing is pending", kn_prefetcher_pop(c, p, NULL));
    kn_prefetcher_free(p);
  }
  for (int i = 0; i < SIDES; i++) kn_bytes_free(&files[i]);
  suite_done(c);
}
END_TEST

/* Freed at any moment: before the threads have begun, while they work, when all is done. */
START_TEST(ends_with_work_left) {
  kn_context *c = suite_context();
  kn_tensor *t = picture(c, 3, 40, 40);
  kn_bytes file = {.heap = c->heap};
  OK(c, kn_png_encode(c, t, 1, &file));
  kn_tensor_release(t);
  for (int round = 0; round < 24; round++) {
    kn_prefetcher *p;
    bool taken;
    OK(c, kn_prefetcher_new(c, &(kn_prefetch_options){.workers = 3, .depth = 16}, &p));
    for (int i = 0; i < round % 17; i++)
      OK(c, kn_prefetcher_push(c, p, &(kn_job){.bytes = file.p, .n = file.n, .image = true}, &taken));
    for (int i = 0; i < round % 3 && kn_prefetcher_pending(p); i++) {
      OK(c, kn_prefetcher_pop(c, p, &t));
      kn_tensor_release(t);
    }
    kn_prefetcher_free(p);
  }
  kn_bytes_free(&file);
  suite_done(c);
}
END_TEST

/* ---- memory that is refused ---- */

typedef struct ration {
  long left; /* requests until a refusal */
  bool refused;
} ration;

static void *rationed(void *ud, void *p, size_t osize, size_t nsize) {
  ration *r = ud;
  (void)osize;
  if (!nsize) {
    free(p);
    return NULL;
  }
  if (r->left-- == 0) {
    r->refused = true;
    return NULL;
  }
  return realloc(p, nsize);
}

typedef kn_status (*step)(kn_context *c, const kn_bytes *file);

static kn_status decode(kn_context *c, const kn_bytes *file) {
  kn_tensor *t;
  KN_TRY(kn_image_decode(c, file->p, file->n, KN_IMAGE_RGB, 0, &t));
  kn_tensor_release(t);
  return KN_OK;
}

static kn_status sound(kn_context *c, const kn_bytes *file) {
  kn_tensor *t;
  uint32_t rate;
  KN_TRY(kn_wav_decode(c, file->p, file->n, &t, &rate));
  kn_bytes out = {.heap = c->heap};
  kn_status st = kn_wav_encode(c, t, rate, KN_WAV_I16, &out);
  kn_bytes_free(&out);
  kn_tensor_release(t);
  return st;
}

static kn_status encode(kn_context *c, const kn_bytes *file) {
  kn_type type = {.dtype = KN_U8, .rank = 3, .dims = {3, 40, 50}};
  kn_tensor *t;
  (void)file;
  KN_TRY(kn_tensor_new(c, &type, &t));
  memset(kn_tensor_data(t), 5, t->storage->bytes);
  kn_bytes out = {.heap = c->heap};
  kn_status st = kn_png_encode(c, t, 0, &out);
  if (st == KN_OK) st = kn_jpeg_encode(c, t, 100, &out);
  if (st == KN_OK) st = kn_ppm_encode(c, t, &out);
  kn_bytes_free(&out);
  kn_tensor_release(t);
  return st;
}

static kn_status prefetch(kn_context *c, const kn_bytes *file) {
  kn_prefetcher *p;
  bool taken;
  kn_tensor *t;
  KN_TRY(kn_prefetcher_new(c, &(kn_prefetch_options){.workers = 0, .depth = 2}, &p));
  kn_status st = kn_prefetcher_push(c, p, &(kn_job){.bytes = file->p, .n = file->n, .image = true}, &taken);
  if (st == KN_OK) st = kn_prefetcher_pop(c, p, &t);
  if (st == KN_OK) kn_tensor_release(t);
  kn_prefetcher_free(p);
  return st;
}

/* Fails with NOMEM as long as a request is refused, and gives everything back. */
static void every_allocation(step work, const kn_bytes *file) {
  for (long n = 0;; n++) {
    ration r = {.left = 1 << 30};
    kn_heap *heap = kn_heap_new(rationed, &r, 0);
    kn_context *c = kn_context_new(heap, NULL);
    kn_heap_release(heap);
    r.left = n;
    kn_status st = work(c, file);
    bool refused = r.refused;
    r.left = 1 << 30;
    ck_assert_msg(st == (refused ? KN_NOMEM : KN_OK), "request %ld: %s", n, kn_error(c));
    suite_done(c);
    if (!refused) return;
    ck_assert_int_lt(n, 1000);
  }
}

static kn_bytes sample(kn_context *c, int kind) {
  kn_bytes b = {.heap = c->heap};
  kn_tensor *t = picture(c, 3, 12, 17);
  OK(c, kind == 0   ? kn_png_encode(c, t, 6, &b)
        : kind == 1 ? kn_jpeg_encode(c, t, 80, &b)
                    : kn_ppm_encode(c, t, &b));
  kn_tensor_release(t);
  return b;
}

static kn_bytes wave(kn_context *c) {
  kn_bytes b = {.heap = c->heap};
  kn_type type = {.dtype = KN_F32, .rank = 2, .dims = {2, 9}};
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  for (int i = 0; i < 18; i++) ((float *)kn_tensor_data(t))[i] = (float)(i - 9) / 10;
  OK(c, kn_wav_encode(c, t, 8000, KN_WAV_I24, &b));
  kn_tensor_release(t);
  return b;
}

START_TEST(memory_runs_out) {
  kn_context *c = suite_context();
  for (int kind = 0; kind < 3; kind++) {
    kn_bytes b = sample(c, kind);
    every_allocation(decode, &b);
    every_allocation(prefetch, &b);
    kn_bytes_free(&b);
  }
  kn_bytes b = wave(c);
  every_allocation(sound, &b);
  every_allocation(encode, NULL);
  kn_bytes_free(&b);
  suite_done(c);
}
END_TEST

/* ---- damage ---- */

/* What reads a format: true when it was taken. */
typedef bool (*taker)(kn_context *c, const char *p, size_t n);

static bool take_picture(kn_context *c, const char *p, size_t n) {
  kn_tensor *t;
  kn_status st = kn_image_decode(c, p, n, KN_IMAGE_UNCHANGED, 1 << 16, &t);
  ck_assert_msg(st == KN_OK || st == KN_FORMAT || st == KN_LIMIT || st == KN_UNSUPPORTED, "%s", kn_error(c));
  if (st == KN_OK) kn_tensor_release(t);
  return st == KN_OK;
}

static bool take_wave(kn_context *c, const char *p, size_t n) {
  kn_tensor *t;
  uint32_t rate;
  kn_status st = kn_wav_decode(c, p, n, &t, &rate);
  ck_assert_msg(st == KN_OK || st == KN_FORMAT || st == KN_UNSUPPORTED, "%s", kn_error(c));
  if (st == KN_OK) kn_tensor_release(t);
  return st == KN_OK;
}

static const char *path_of(char path[32]) {
  strcpy(path, "/tmp/kiln-io-XXXXXX"); /* the X are mkstemp's */
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
  return path;
}

static void write_all(const char *path, const char *p, size_t n) {
  FILE *f = fopen(path, "wb");
  ck_assert(fwrite(p, 1, n, f) == n);
  fclose(f);
}

static bool take_npz(kn_context *c, const char *p, size_t n) {
  char path[32];
  write_all(path_of(path), p, n);
  kn_archive *a;
  kn_bytes buffer = {.heap = c->heap};
  kn_status st = kn_archive_open(c, path, &(kn_archive_limits){.entry = 1 << 20, .total = 1 << 20}, &a);
  bool opened = st == KN_OK;
  for (bool found = true; st == KN_OK && found;) {
    kn_tensor *t;
    const char *name;
    size_t length;
    st = kn_npz_next(c, a, &buffer, &found, &name, &length, &t);
    if (st == KN_OK && found) kn_tensor_release(t);
  }
  if (opened) kn_archive_close(a);
  kn_bytes_free(&buffer);
  unlink(path);
  ck_assert_msg(st == KN_OK || (st != KN_NOMEM && kn_error(c)[0]), "%s", kn_error(c));
  return st == KN_OK;
}

static kn_bytes npz(kn_context *c) {
  char path[32];
  kn_zip *z;
  OK(c, kn_zip_open(c, path_of(path), &z));
  kn_tensor *t = picture(c, 1, 3, 4);
  OK(c, kn_npz_add(c, z, "a", t));
  OK(c, kn_npz_add(c, z, "b/c", t));
  kn_tensor_release(t);
  OK(c, kn_zip_close(c, z, true));
  kn_bytes b;
  OK(c, kn_read_file(c, path, 0, &b));
  unlink(path);
  return b;
}

/* A change at a place, a cut, or a piece said twice; from a number, so that a failure can be had again. */
static size_t damaged(const kn_bytes *seed, uint32_t r, char *out) {
  size_t n = seed->n, at = (r >> 12) % n;
  memcpy(out, seed->p, n);
  switch (r % 4) {
  case 0: out[at] = (char)(r >> 4); return n;
  case 1: out[at] ^= (char)(1 << (r >> 4) % 8); return n;
  case 2: return at;
  default: {
    size_t more = n - at < 16 ? n - at : 16;
    memcpy(out + n, seed->p + at, more);
    return n + more;
  }
  }
}

static void attack(kn_context *c, taker take, const kn_bytes *seed, int rounds) {
  char *buffer = malloc(seed->n + 16);
  int taken = 0;
  uint32_t r = 1;
  ck_assert(take(c, seed->p, seed->n));
  for (int i = 0; i < rounds; i++) {
    r = r * 1664525u + 1013904223u;
    size_t n = damaged(seed, r >> 3, buffer);
    char *exact = malloc(n ? n : 1);
    memcpy(exact, buffer, n);
    taken += take(c, exact, n);
    free(exact);
  }
  free(buffer);
  ck_assert_int_lt(taken, rounds);
}

START_TEST(damaged_files) {
  kn_context *c = suite_context();
  for (int kind = 0; kind < 3; kind++) {
    kn_bytes b = sample(c, kind);
    attack(c, take_picture, &b, 600);
    kn_bytes_free(&b);
  }
  kn_bytes b = wave(c);
  attack(c, take_wave, &b, 600);
  kn_bytes_free(&b);
  b = npz(c);
  attack(c, take_npz, &b, 200);
  kn_bytes_free(&b);
  suite_done(c);
}
END_TEST

SUITE("io", jobs_in_order, ends_with_work_left, memory_runs_out, damaged_files)
