/* Graphs that somebody else wrote, with devices in them: texts, damaged ones and files, where there is a
 * device (the software one) and where there is none. Errors are answers, crashes are not. */
#define _GNU_SOURCE
#include "spec/suite.h"
#ifdef KN_HAS_CUDA
#include "graph/file.h"
#include "spec/cuda/software.h"
#include "spec/exec.h"
#include "spec/mutate.h"
#include "graph/verify.h"
#include "spec/random_graph.h"
#include <unistd.h>

/* 256 MB on the device, 64 on the host. */
static kn_context *open_context(const char *folder, const kn_target *const **targets, int *n) {
  setenv("SIM_MEMORY", "268435456", 1);
  kn_context *c = suite_context();
  OK(c, kn_registry_open_with(c, NULL, folder));
  const kn_memory *m;
  (void)kn_device_memory(c, KN_CUDA, &m); /* opens it */
  OK(c, kn_registry_targets(c, targets, n));
  kn_heap_set_limit(c->heap, kn_heap_read_stats(c->heap).bytes + (64 << 20));
  c->threads = 1;
  return c;
}

static void close_context(kn_context *c) {
  kn_registry_close(c);
  suite_done(c);
}

/* ---- texts ---- */

START_TEST(texts_that_are_refused) {
  static const struct {
    const char *text, *said;
  } cases[] = {
      {"graph g(%x: float32[2]@cuda:7) {\n  return %x\n}\n", "')' is missing"},
      {"graph g(%x: float32[2]@cuda:-1) {\n  return %x\n}\n", "')' is missing"},
      {"graph g(%x: float32[2]@tpu) {\n  return %x\n}\n", "this is no device"},
      {"graph g(%x: float32[2]@) {\n  return %x\n}\n", "this is no device"},
      {"graph g(%x: float32[2]@cudacudacudacudacudacudacuda) {\n  return %x\n}\n", "this is no device"},
      {"graph g(%x: float32[2]@cuda@cuda) {\n  return %x\n}\n", ""},
      {"graph g(%x: integer@cuda) {\n  return %x\n}\n", ""},
      {"graph g(%x: float32[2]) {\n  %y: float32[2]@cuda = to_device %x {device = \"cuda:7\"}\n  return "
       "%y\n}\n",
       "device"},
      {"graph g(%x: float32[2]) {\n  %y: float32[2]@cuda = to_device %x {device = 1}\n  return %y\n}\n", ""},
      {"graph g(%x: float32[2]) {\n  %y: float32[2]@cuda = to_device %x {device = \"\"}\n  return %y\n}\n",
       ""},
      {"graph g(%x: float32[2]) {\n  %y: float32[2]@cuda = neg %x\n  return %y\n}\n", ""},
      {"graph g(%x: float32[2]) {\n  %y: float32[2] = to_device %x {device = \"cuda\"}\n  return %y\n}\n",
       ""},
      {"graph g(%x: float32[2]@cuda, %y: float32[2]) {\n  %z: float32[2]@cuda = add %x, %y\n  return %z\n}\n",
       "on different devices"},
      {"graph g(%b: boolean, %x: float32[2]@cuda, %y: float32[2]) {\n  %z: float32[2] = if %b {\n    yield "
       "%x\n"
       "  } else {\n    yield %y\n  }\n  return %z\n}\n",
       ""},
      {"graph g(%n: integer, %x: float32[2]@cuda, %y: float32[2]) {\n"
       "  %z: float32[2]@cuda = loop (%a: float32[2]@cuda = %x, %i: integer = %n) {\n"
       "    %f = lua.lt %i, %n\n    continue_if %f next(%y, %i) exit(%a)\n  }\n  return %z\n}\n",
       ""},
      {"graph g(%x: float32[9223372036854775807]@cuda) {\n  return %x\n}\n", ""},
      {"graph g(%x: float32[4294967296,4294967296]@cuda) {\n  return %x\n}\n", ""},
      {"graph g() {\n  slot const \"k\": float32[1]@cuda = {1.0}\n}\n", "only constants on the CPU"},
  };
  kn_context *c = suite_context();
  for (size_t i = 0; i < COUNT(cases); i++) {
    kn_graph *g = NULL;
    kn_status st = kn_graph_parse(c, cases[i].text, strlen(cases[i].text), &g);
    ck_assert_msg(st == KN_FORMAT || st == KN_LIMIT, "%s is read: %s", cases[i].text, kn_status_text(st));
    ck_assert_msg(strstr(kn_error(c), cases[i].said) != NULL, "%s: %s", cases[i].text, kn_error(c));
  }
  suite_done(c);
}
END_TEST

/* Made, run, or refused by whoever finds it out first. */
static kn_status read_and_run(kn_context *c, const char *text, const kn_target *const *targets, int n) {
  kn_graph *g = NULL;
  KN_TRY(kn_graph_parse(c, text, strlen(text), &g));
  kn_status st = run_damaged(c, g, 1, 300, targets, n);
  kn_graph_release(g);
  return st;
}

/* These are graphs, but nobody can run them. */
START_TEST(more_than_there_is) {
  static const char *const texts[] = {
      "graph g() {\n  %y: float32[1000000000]@cuda = full {sizes = {1000000000}, value = 1.0, device = "
      "\"cuda\"}\n"
      "  %z: float32[1000000000]@cuda = neg %y\n  return %z\n}\n",
      "graph g(%x: float32[1]@cuda) {\n  %y: float32[2000000000]@cuda = expand %x {sizes = {2000000000}}\n"
      "  %z: float32[2000000000]@cuda = neg %y\n  return %z\n}\n",
      "graph g() {\n  %y: float32[40000,40000]@cuda = eye {n = 40000, m = 40000, device = \"cuda\"}\n"
      "  %z = matmul %y, %y\n  return %z\n}\n",
      "graph g(%x: float32[100000]@cuda) {\n  %y = unsqueeze %x {dim = 1}\n  %w = unsqueeze %x {dim = 2}\n"
      "  %z = mul %y, %w\n  return %z\n}\n",
  };
  const kn_target *const *targets;
  int n;
  kn_context *c = open_context(software_folder(), &targets, &n);
  for (int again = 0; again < 2; again++) /* and what failed left nothing behind */
    for (size_t i = 0; i < COUNT(texts); i++) {
      kn_status st = read_and_run(c, texts[i], targets, n);
      ck_assert_msg(st == KN_NOMEM || st == KN_LIMIT, "%s: %s: %s", texts[i], kn_status_text(st),
                    kn_error(c));
    }
  close_context(c);
}
END_TEST

START_TEST(where_there_is_no_device) {
  static const char *const texts[] = {
      "graph g(%x: float32[2]@cuda) {\n  return %x\n}\n",
      "graph g(%x: float32[2]) {\n  %y: float32[2]@cuda = to_device %x {device = \"cuda\"}\n"
      "  %z: float32[2] = to_device %y\n  return %z\n}\n",
      "graph g() {\n  %y: float32[2]@cuda = rand {sizes = {2}, device = \"cuda\"}\n  return %y\n}\n",
      "graph g(%b: boolean) {\n  if %b {\n    %y: float32[2]@cuda = rand {sizes = {2}, device = \"cuda\"}\n"
      "    %s = sum %y\n    %t = item %s\n    assert %b \"no\"\n  } else {\n  }\n"
      "  return %b\n}\n",
      "graph g() {\n  slot state \"s\": float32[2]@cuda\n  %s = load_state \"s\"\n  return %s\n}\n",
  };
  const kn_target *const *targets;
  int n;
  kn_context *c = open_context("/nowhere", &targets, &n);
  const kn_memory *m;
  const bool skips = kn_device_memory(c, KN_CUDA, &m) == KN_OK && suite_skips("there is a device");
  for (size_t i = 0; i < COUNT(texts) && !skips; i++)
    FAILS(c, KN_UNSUPPORTED, "cuda", read_and_run(c, texts[i], targets, n));
  close_context(c);
}
END_TEST

/* ---- damaged ones ---- */

static void run_mutants(const char *folder, int seeds, int each, unsigned wanted) {
  const kn_target *const *targets;
  unsigned parsed = 0, ran = 0;
  random_state r = {11};
  int ntargets;
  kn_context *c = open_context(folder, &targets, &ntargets);
  for (int seed = 1; seed <= seeds; seed++) {
    kn_graph *g = random_graph_of(c, (uint64_t)seed, 6 + seed % 20, seed % 2, KN_CUDA), *back;
    char *text;
    size_t n;
    OK(c, kn_graph_print(c, g, KN_TEXT_FULL, &text, &n));
    for (int k = 0; k < each; k++) {
      char *m = k % 3 ? mutate_numbers(text, &r) : strdup(text);
      if (k % 2) mutate_names(m, &r);
      if (k % 4 < 2) {
        char *moved = mutate_devices(m, &r);
        free(m);
        m = moved;
      }
      if (kn_graph_parse(c, m, strlen(m), &back) == KN_OK) {
        parsed++;
        ran += run_damaged(c, back, (uint64_t)(seed + k), 300, targets, ntargets) == KN_OK;
        kn_graph_release(back);
      }
      free(m);
    }
    kn_free(c->heap, text, n + 1);
    kn_graph_release(g);
  }
  ck_assert_msg(parsed > (unsigned)(seeds * each / 4) && ran >= wanted, "%u parsed, %u ran", parsed, ran);
  close_context(c);
}

static int seeds(int usual) {
  const char *more = getenv("KILN_RANDOM_GRAPHS"); /* by hand */
  return more ? atoi(more) : usual;
}

START_TEST(damaged_where_there_is_a_device) { run_mutants(software_folder(), seeds(30), 30, 150); }
END_TEST
START_TEST(damaged_where_there_is_none) { run_mutants("/nowhere", seeds(30), 30, 0); }
END_TEST

/* ---- files ---- */

/* Each byte of what the file says of devices, with each bit of it. */
START_TEST(files) {
  static const char text[] = "graph g(%x: float32[N,2]) {\n"
                             "  %y: float32[N,2]@cuda = to_device %x {device = \"cuda\"}\n"
                             "  %o: float32[2]@cuda = full {sizes = {2}, value = 1.0, device = \"cuda\"}\n"
                             "  %s: float32[N,2]@cuda = add %y, %o\n"
                             "  %z: float32[N,2] = to_device %s\n"
                             "  return %z\n"
                             "}\n";
  char path[64];
  const kn_target *const *targets;
  kn_entry *e;
  uint32_t count;
  int n, ran = 0;
  kn_context *c = open_context(software_folder(), &targets, &n);
  kn_graph *g = parse(c, text);
  snprintf(path, sizeof path, "/tmp/kiln-hostile-%ld.kiln", (long)getpid());
  OK(c, kn_file_save(c, path, &(kn_entry){.name = "g", .graph = g}, 1));
  kn_graph_release(g);
  OK(c, kn_file_load(c, path, NULL, &e, &count));
  OK(c, run_damaged(c, e[0].graph, 1, 300, targets, n));
  OK(c, kn_graph_verify(c, e[0].graph, true));
  kn_file_free_entries(c->heap, e, count);
  unlink(path);
  for (size_t k = 9; k < sizeof text - 1; k++)
    for (int bit = 0; bit < 7; bit++) {
      char damaged[sizeof text];
      memcpy(damaged, text, sizeof text);
      damaged[k] = (char)(damaged[k] ^ 1 << bit);
      ran += read_and_run(c, damaged, targets, n) == KN_OK;
    }
  ck_assert_int_gt(ran, 5); /* names are anybody's */
  close_context(c);
}
END_TEST

/* Where there is none first: afterwards the loader knows one. */
SUITE("cuda_hostile", texts_that_are_refused, where_there_is_no_device, damaged_where_there_is_none,
      more_than_there_is, damaged_where_there_is_a_device, files)
#else
START_TEST(no_headers) { (void)suite_skips("this build was made without CUDA's headers"); }
END_TEST

SUITE("cuda_hostile", no_headers)
#endif
