/* The CUDA backend's libraries: where they are looked for, and what is said when they are not there or of no
 * use. None of this needs a device. */
#define _GNU_SOURCE
#include "backends/registry.h"
#include "core/dispatch.h"
#include "core/tensor.h"
#include "spec/suite.h"
#include <dlfcn.h>
#include <unistd.h>

static kn_backend_report report_with(const char *libraries) {
  kn_context *c = suite_context();
  kn_backend_report r = {0};
  OK(c, kn_registry_open_with(c, NULL, libraries));
  for (int i = 0; (!r.name || strcmp(r.name, "cuda")) && i < kn_registry_count(); i++)
    kn_registry_report(c, i, &r);
  ck_assert_str_eq(r.name, "cuda");
  kn_registry_close(c);
  suite_done(c);
  return r;
}

static void refused_with(const char *libraries, const char *reason) {
  kn_backend_report r = report_with(libraries);
  ck_assert_msg(!r.available && strstr(r.reason, reason), "no \"%s\" in \"%s\"", reason, r.reason);
  ck_assert_ptr_null(strstr(r.reason, "(null)"));
  ck_assert_str_eq(r.version, "");
}

#ifdef KN_HAS_CUDA
/* The first: what is opened once is found by its name for good. */
START_TEST(no_driver) {
  void *real = dlopen("libcuda.so.1", RTLD_LAZY);
  if (real && suite_skips("this machine has a driver")) return;
  refused_with(NULL, "the driver is not there: libcuda.so.1");
  refused_with("/nowhere", "the driver is not there: libcuda.so.1");
  refused_with("::", "the driver is not there: libcuda.so.1");
  kn_context *c = suite_context();
  FAILS(c, KN_UNSUPPORTED, "backend cuda cannot be used here: the driver is not there",
        kn_registry_open(c, "cuda"));
  kn_registry_close(c);
  suite_done(c);
}
END_TEST

/* A folder that holds the file under the name of the driver. */
static void with_driver(const char *file, const char *reason) {
  char folder[] = "/tmp/kiln-load-XXXXXX", link[64], long_list[2200];
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(link, sizeof link, "%s/libcuda.so.1", folder);
  ck_assert_int_eq(symlink(file, link), 0);
  refused_with(folder, reason);
  snprintf(long_list, sizeof long_list, "%0*d:%s*/", 600, 0, folder);
  refused_with(long_list, reason);
  unlink(link);
  rmdir(folder);
}

START_TEST(stub_of_the_toolkit) {
  const char *stub = "/usr/local/cuda/lib64/stubs/libcuda.so";
  if (access(stub, R_OK) && suite_skips("there is no stub of a toolkit")) return;
  with_driver(stub, "is the toolkit's stand-in for a driver, which has no device");
}
END_TEST

/* The stub with one of its names made another. */
START_TEST(function_is_missing) {
  const char *stub = "/usr/local/cuda/lib64/stubs/libcuda.so", *name = "cuGraphConditionalHandleCreate";
  char path[] = "/tmp/kiln-old-driver-XXXXXX";
  FILE *in = fopen(stub, "rb");
  if (!in && suite_skips("there is no stub of a toolkit")) return;
  char *bytes = malloc(1 << 22), *at = bytes;
  size_t n = fread(bytes, 1, 1 << 22, in), length = strlen(name) + 1;
  fclose(in);
  while ((size_t)(at - bytes) < n - length && memcmp(at, name, length)) at++;
  ck_assert(!memcmp(at, name, length));
  *at = 'x';
  FILE *out = fdopen(mkstemp(path), "wb");
  ck_assert_int_eq(fwrite(bytes, 1, n, out), n);
  fclose(out);
  free(bytes);
  with_driver(path, "libcuda.so.1 lacks cuGraphConditionalHandleCreate");
  unlink(path);
}
END_TEST

/* Programs on the CPU never look for a driver. */
START_TEST(nothing_is_opened_unasked) {
  kn_context *c = suite_context();
  kn_type type = {.dtype = KN_F32, .rank = 2, .dims = {8, 8}};
  const kn_target *const *targets;
  kn_tensor *x, *y, *in[2];
  int n;
  char folder[] = "/tmp/kiln-load-XXXXXX", link[64], line[512];
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(link, sizeof link, "%s/libcuda.so.1", folder);
  ck_assert_int_eq(symlink("/usr/local/cuda/lib64/stubs/libcuda.so", link), 0);
  OK(c, kn_registry_open_with(c, NULL, folder));
  OK(c, kn_registry_targets(c, &targets, &n));
  (void)kn_registry_tuner(c);
  OK(c, kn_tensor_new(c, &type, &x));
  memset(kn_tensor_data(x), 0, 8 * 8 * sizeof(float));
  in[0] = in[1] = x;
  OK(c, kn_apply(c, KN_OP_matmul, NULL, in, 2, &y));
  kn_tensor_release(x), kn_tensor_release(y);
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps)) ck_assert_msg(!strstr(line, folder), "%s", line);
  if (maps) fclose(maps);
  kn_registry_close(c);
  suite_done(c);
  unlink(link);
  rmdir(folder);
}
END_TEST

/* Any library will do that has none of the functions. */
START_TEST(old_driver) {
  Dl_info here;
  ck_assert_int_ne(dladdr((void *)(size_t)&printf, &here), 0);
  with_driver(here.dli_fname, "the driver is too old: ");
  with_driver(here.dli_fname, " lacks cuInit");
}
END_TEST

SUITE("cuda_load", no_driver, nothing_is_opened_unasked, stub_of_the_toolkit, old_driver, function_is_missing)

#else

START_TEST(no_headers) { refused_with(NULL, "without the headers of CUDA 13"); }
END_TEST

SUITE("cuda_load", no_headers)
#endif
