/* Sources of kernels as text, the prelude before the real compiler, and the folder that keeps what was
 * compiled. None of this needs a device. */
#define _DEFAULT_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "backends/cuda/kernel_inside.h"
#include "backends/cuda/prelude.h"
#include "spec/cuda/nvrtc.h"
#include "spec/cuda/software.h"
#include <dirent.h>
#include <locale.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- text ---- */

static void reads_back(kn_heap *heap, double x) {
  cu_text t = {.heap = heap};
  cu_put_f64(&t, x);
  ck_assert_msg(strtod(t.s, NULL) == x, "%a became %s", x, t.s);
  ck_assert(signbit(strtod(t.s, NULL)) == signbit(x));
  cu_text_free(&t);
  cu_put_f32(&t, (float)x);
  size_t n = strlen(t.s);
  if (isfinite((float)x)) {
    ck_assert_int_eq(t.s[n - 1], 'f');
    t.s[n - 1] = 0;
    ck_assert_msg(strtof(t.s, NULL) == (float)x, "%a became %s", x, t.s);
  }
  ck_assert(!strchr(t.s, ',') && !strchr(t.s, '.'));
  cu_text_free(&t);
}

START_TEST(floats_as_text) {
  kn_context *c = suite_context();
  const double some[] = {
      0, -0.0, 1, -1, 0.1, 1.5, 3e38, 1e-45, 5e-324, 1.7976931348623157e308, -123456789.125};
  setlocale(LC_ALL, "de_DE.UTF-8");
  for (size_t i = 0; i < sizeof some / sizeof *some; i++) reads_back(c->heap, some[i]);
  cu_text t = {.heap = c->heap};
  cu_put_f32(&t, NAN), cu_put(&t, " ");
  cu_put_f32(&t, -INFINITY), cu_put(&t, " ");
  cu_put_f64(&t, INFINITY), cu_put(&t, " ");
  cu_put_f64(&t, NAN);
  ck_assert_str_eq(t.s, "NAN_F32 (-INF_F32) (INF_F64) NAN_F64");
  for (int i = 0; i < 1000; i++) cu_put(&t, "%d,", i);
  ck_assert_int_eq(strlen(t.s), t.n);
  cu_text_free(&t);
  setlocale(LC_ALL, "C");
  suite_done(c);
}
END_TEST

/* ---- the prelude ---- */

static const char uses_all[] =
    "KERNEL(256, all)(float *f, double *d, u16 *h, u32 *w, i32 *i, u64 *u, i64 *j, v16 *v) {\n"
    "  SHARED(float, s, 256);\n  SHARED_BYTES(u32, bytes);\n"
    "  u64 at = (u64)BLOCK * THREADS + THREAD + BLOCK_Y * BLOCKS + BLOCK_Z * BLOCKS_Y + BLOCKS_Z;\n"
    "  s[THREAD] = f32_of_f16(h[at]) + f32_of_bf16(h[at + 1]);\n  bytes[THREAD] = (u32)at;\n  SYNC();\n  "
    "FENCE();\n"
    "  f[at] = warp_xor_f32(s[255 - THREAD], 16) + warp_up_f32(f[at], 1) + warp_down_f32(f[at], 2) + "
    "warp_from_f32(f[at], 3);\n"
    "  d[at] = warp_xor_f64(d[at], 16) + INF_F64 + NAN_F64 + f64_bits(bits_f64(d[at]) ^ 1);\n"
    "  h[at] = f16_of_f32(f[at]) ^ f16_of_f64(d[at]) ^ bf16_of_f32(f[at] + INF_F32) ^ bf16_of_f64(d[at]);\n"
    "  w[at] = bits_f32(f32_bits(w[at]) + NAN_F32) ^ mulhi_u32(w[at], 77) ^ warp_vote(w[at] > 3) ^ "
    "bytes[0];\n"
    "  atomic_add_f32(f, 1.0f); atomic_add_f64(d, 1.0); atomic_add_i32(i, 1); atomic_add_u32(w, 1);\n"
    "  atomic_add_u64(u, 1); atomic_add_i64(j, 1); atomic_max_i32(i, 5); atomic_min_u64(u, mulhi_u64(u[3], "
    "7));\n"
    "  atomic_cas_u32(w, 1, 2); atomic_cas_u64(u, 1, 2); atomic_or_u32(w, 8); atomic_exchange_u32(w, 9);\n"
    "  v[at] = v[at + 1];\n  if (at == 0) cudaGraphSetConditional(u[0], 1);\n}\n";

START_TEST(prelude_compiles) {
  cu_api api;
  if (!nvrtc_open(&api) && suite_skips("there is no NVRTC")) return;
  char *source = malloc(sizeof cu_prelude + sizeof uses_all);
  strcat(strcpy(source, cu_prelude), uses_all);
  nvrtc_check(&api, "the prelude", source);
  for (int arch = 75; arch <= 120; arch += 45) {
    bool compiled;
    free(nvrtc_log(&api, source, arch, &compiled));
    ck_assert_msg(compiled, "sm_%d", arch);
  }
  free(source);
  /* The check of spills can fail. */
  ck_assert(
      nvrtc_any("k\n    8 bytes stack frame, 0 bytes spill stores, 16 bytes spill loads\n", "bytes spill"));
  ck_assert(
      !nvrtc_any("k\n    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n", "bytes spill"));
  cu_api_close(&api);
}
END_TEST

/* ---- the disk ---- */

typedef struct folder {
  char path[64], file[512];
  kn_context *c;
  cu_disk disk;
} folder;

static int files_in(folder *f) { /* the last one's path is kept */
  char path[128];
  int n = 0;
  snprintf(path, sizeof path, "%s/cuda", f->path);
  DIR *d = opendir(path);
  for (struct dirent *e; d && (e = readdir(d));)
    if (e->d_name[0] != '.') n++, snprintf(f->file, sizeof f->file, "%s/%s", path, e->d_name);
  if (d) closedir(d);
  return n;
}

static void open_folder(folder *f) {
  *f = (folder){.c = suite_context(), .path = "/tmp/kiln-kernels-XXXXXX"};
  ck_assert_ptr_nonnull(mkdtemp(f->path));
  strcat(f->path, "/k");
  cu_disk_open(&f->disk, f->c->heap, f->path);
}

static void close_folder(folder *f) {
  char command[128];
  *strrchr(f->path, '/') = 0;
  snprintf(command, sizeof command, "rm -rf %s", f->path);
  ck_assert_int_eq(system(command), 0);
  suite_done(f->c);
}

static bool reads(folder *f, const char *identity, const char *key, const char *source, const char *image) {
  cu_image i = {0};
  if (!cu_disk_read(&f->disk, identity, key, source, &i)) return false;
  bool same = i.bytes == strlen(image) && !memcmp(i.data, image, i.bytes);
  kn_free(f->c->heap, i.data, i.bytes);
  ck_assert_msg(same, "another image");
  return true;
}

static void writes(folder *f, const char *identity, const char *key, const char *source, const char *image) {
  cu_image i = {(char *)(size_t)image, strlen(image)};
  cu_disk_write(&f->disk, identity, key, source, &i);
}

START_TEST(kept_under_all_that_it_is_made_of) {
  folder f;
  open_folder(&f);
  ck_assert(!reads(&f, "sm_90", "add", "text", "image"));
  writes(&f, "sm_90", "add", "text", "image");
  ck_assert(reads(&f, "sm_90", "add", "text", "image"));
  ck_assert(!reads(&f, "sm_91", "add", "text", "image"));
  ck_assert(!reads(&f, "sm_90", "adc", "text", "image"));
  ck_assert(!reads(&f, "sm_90", "add", "texu", "image"));
  writes(&f, "sm_90", "add", "text", "again");
  ck_assert(reads(&f, "sm_90", "add", "text", "again"));
  writes(&f, "sm_90", "add", "other", "third");
  ck_assert_int_eq(files_in(&f), 2);
  ck_assert(reads(&f, "sm_90", "add", "text", "again") && reads(&f, "sm_90", "add", "other", "third"));
  cu_disk_open(&f.disk, f.c->heap, NULL); /* no folder: nothing is kept */
  writes(&f, "a", "b", "c", "d");
  ck_assert(!reads(&f, "a", "b", "c", "d"));
  cu_disk_open(&f.disk, f.c->heap, "/proc/none"); /* one that cannot be made */
  writes(&f, "a", "b", "c", "d");
  ck_assert(!reads(&f, "a", "b", "c", "d"));
  close_folder(&f);
}
END_TEST

START_TEST(damage_is_seen) {
  folder f;
  struct stat s;
  open_folder(&f);
  writes(&f, "sm_90", "add", "text of it", "image of it");
  ck_assert_int_eq(files_in(&f), 1);
  ck_assert_int_eq(stat(f.file, &s), 0);
  for (long i = 0; i < s.st_size; i++) { /* each byte in turn */
    FILE *file = fopen(f.file, "r+b");
    fseek(file, i, SEEK_SET);
    int was = getc(file);
    fseek(file, i, SEEK_SET);
    putc(was ^ 4, file);
    fclose(file);
    ck_assert_msg(!reads(&f, "sm_90", "add", "text of it", "image of it"), "byte %ld", i);
    file = fopen(f.file, "r+b");
    fseek(file, i, SEEK_SET);
    putc(was, file);
    fclose(file);
  }
  ck_assert(reads(&f, "sm_90", "add", "text of it", "image of it"));
  for (long n = s.st_size; n-- > 0;) {
    ck_assert_int_eq(truncate(f.file, n), 0);
    ck_assert_msg(!reads(&f, "sm_90", "add", "text of it", "image of it"), "%ld bytes", n);
  }
  writes(&f, "sm_90", "add", "text of it", "image of it");
  ck_assert(reads(&f, "sm_90", "add", "text of it", "image of it"));
  close_folder(&f);
}
END_TEST

START_TEST(room_is_bounded) {
  folder f;
  char big[1000], key[32];
  open_folder(&f);
  memset(big, 'x', sizeof big - 1);
  big[sizeof big - 1] = 0;
  f.disk.capacity = 20000;
  for (int i = 0; i < 100; i++) {
    snprintf(key, sizeof key, "kernel %d", i);
    writes(&f, "sm_90", key, "text", big);
    ck_assert(reads(&f, "sm_90", key, "text", big));
  }
  int n = files_in(&f);
  ck_assert_msg(n >= 10 && n <= 18, "%d files", n);
  close_folder(&f);
}
END_TEST

/* ---- programs, on the software device ---- */

typedef struct writer {
  const char *text;
  int written;
} writer;

static void write_text(void *ud, cu_text *t) {
  writer *w = ud;
  w->written++;
  cu_put(t, "%s", w->text);
}

static void run_add(kn_context *c, cu_device *d, CUfunction f, int wanted) {
  CUdeviceptr p;
  int x = 0, n = 3;
  OK(c, cu_alloc(c, d, sizeof x, &p));
  OK(c, d->tensors.copy(d->tensors.self, c, (void *)(uintptr_t)p, &x, sizeof x, KN_TO_DEVICE));
  OK(c, cu_launch(c, d, f, (const unsigned[]){2, 1, 1}, 32, 0, (void *[]){&p, &n}));
  OK(c, cu_launch(c, d, f, (const unsigned[]){0, 1, 1}, 32, 0, (void *[]){&p, &n})); /* nothing */
  OK(c, d->tensors.copy(d->tensors.self, c, &x, (void *)(uintptr_t)p, sizeof x, KN_TO_HOST));
  ck_assert_int_eq(x, wanted);
  cu_free(d, p, sizeof x);
}

static const char adds[] = "KERNEL(32, add)(i32 *p, i32 n) { atomic_add_i32(p, n); }\n"
                           "KERNEL(32, sub)(i32 *p, i32 n) { atomic_add_i32(p, -n); }\n";

START_TEST(made_once_and_found_again) {
  folder f;
  open_folder(&f);
  for (int round = 0; round < 2; round++) {
    kn_context *c = software_context(), *child;
    cu_device *d;
    CUfunction add, again, sub;
    writer w = {adds, 0};
    OK(c, kn_registry_remember(c, f.path));
    OK(c, cu_device_of(c, &d));
    OK(c, cu_kernel(c, d, "adds", "add", write_text, &w, &add));
    ck_assert_ptr_nonnull(child = kn_context_child(c));
    OK(child, cu_device_of(child, &d));
    OK(child, cu_kernel(child, d, "adds", "add", write_text, &w, &again));
    OK(child, cu_kernel(child, d, "adds", "sub", write_text, &w, &sub));
    ck_assert(add == again && add != sub);
    ck_assert_int_eq(w.written, 1);
    run_add(c, d, add, 64 * 3);
    run_add(child, d, sub, -64 * 3);
    cu_kernels_stats s = cu_kernels_read_stats(d);
    ck_assert_int_eq((int)s.compiled, round == 0);
    ck_assert_int_eq((int)s.read, round == 1);
    kn_context_free(child);
    kn_registry_close(c);
    suite_done(c);
  }
  ck_assert_int_eq(files_in(&f), 1);
  close_folder(&f);
}
END_TEST

START_TEST(sources_that_are_wrong) {
  kn_context *c = software_context();
  cu_device *d;
  CUfunction f;
  OK(c, cu_device_of(c, &d));
  FAILS(c, KN_INTERNAL, "the kernels \"bad\" cannot be compiled: ",
        cu_kernel(c, d, "bad", "add", write_text, &(writer){"KERNEL(32, add)(i32 *p) { p[0] = q; }", 0}, &f));
  FAILS(c, KN_INTERNAL, "finding the kernel mul in \"adds\"",
        cu_kernel(c, d, "adds", "mul", write_text, &(writer){adds, 0}, &f));
  OK(c, cu_kernel(c, d, "adds", "add", write_text, &(writer){adds, 0}, &f));
  kn_registry_close(c);
  suite_done(c);
}
END_TEST

START_TEST(grids) {
  cu_device d = {.processors = 10, .threads_per_processor = 2048};
  ck_assert_int_eq(cu_grid(&d, 0, 256, 4), 0);
  ck_assert_int_eq(cu_grid(&d, 1, 256, 4), 1);
  ck_assert_int_eq(cu_grid(&d, 1024, 256, 4), 1);
  ck_assert_int_eq(cu_grid(&d, 1025, 256, 4), 2);
  ck_assert_int_eq(cu_grid(&d, INT64_C(1) << 40, 256, 4), 10 * 8 * 4);
}
END_TEST

/* The real compiler first: nvrtc.h says why. */
SUITE("cuda_kernels", prelude_compiles, made_once_and_found_again, sources_that_are_wrong, grids,
      floats_as_text, kept_under_all_that_it_is_made_of, damage_is_seen, room_is_bounded)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_kernels", no_headers)
#endif
