/* Files of every version of the format, as they were written (spec/golden/files): read, run on each backend,
 * compared with what was recorded; brought up to date, and the same again. */
#include "bindings/c/handle.h"
#include "spec/exec.h"
#include "spec/kiln_file.h"
#include <dirent.h>

static const char *folder(void) {
  static char path[512];
  const char *root = getenv("KILN_SOURCE");
  snprintf(path, sizeof path, "%s/spec/golden/files", root ? root : ".");
  return path;
}

/* Calls `each` with each file's path; how many there are. */
static int every_file(void (*each)(const char *path, const char *name)) {
  DIR *dir = opendir(folder());
  int n = 0;
  ck_assert_msg(dir != NULL, "%s cannot be read", folder());
  for (struct dirent *e; (e = readdir(dir));) {
    char path[800];
    const char *dot = strrchr(e->d_name, '.');
    if (!dot || strcmp(dot, ".kiln")) continue;
    snprintf(path, sizeof path, "%s/%s", folder(), e->d_name);
    each(path, e->d_name);
    n++;
  }
  closedir(dir);
  return n;
}

static int tested;

static void test_entries(const char *path, const char *backend) {
  kiln_context_options o = {.size = sizeof o, .backend = backend, .tune = KILN_TUNE_NEVER};
  kiln_context *ctx;
  kn_entry *entries;
  uint32_t n;
  char error[300];
  ck_assert_msg(kiln_context_new(&o, &ctx, error, sizeof error) == KILN_OK, "%s", error);
  OK(core_context(ctx), kn_file_load(core_context(ctx), path, NULL, &entries, &n));
  for (uint32_t i = 0; i < n; i++) {
    kiln_graph *g;
    OK(core_context(ctx), kiln_graph_of_entry(core_context(ctx), &entries[i], &g));
    if (kiln_graph_vector_count(g)) {
      kiln_status st = kiln_graph_test(ctx, g);
      ck_assert_msg(st == KILN_OK, "%s, %s: %s", path, backend ? backend : "best", kiln_error(ctx));
      tested++;
    }
    kiln_graph_release(g);
  }
  kn_file_free_entries(core_context(ctx)->heap, entries, n);
  kiln_context_free(ctx);
}

static void test_file(const char *path, const char *name) {
  (void)name;
  test_entries(path, NULL);
  test_entries(path, "cpu");
  test_entries(path, "ref");
}

START_TEST(give_what_was_recorded) {
  tested = 0;
  ck_assert_int_ge(every_file(test_file), 5);
  ck_assert_int_ge(tested, 15);
}
END_TEST

static void same_tensors(const kn_entry *a, const kn_entry *b) {
  ck_assert_str_eq(a->name, b->name);
  ck_assert_uint_eq(a->graph->nslots, b->graph->nslots);
  for (uint32_t i = 0; i < a->graph->nslots; i++) {
    const kn_tensor *x = a->graph->slots[i]->tensor, *y = b->graph->slots[i]->tensor;
    size_t bytes;
    ck_assert(!x == !y);
    if (!x) continue;
    ck_assert(kn_type_equal(&x->type, &y->type) && kn_type_bytes(&x->type, &bytes));
    ck_assert_int_eq(memcmp(kn_tensor_data(x), kn_tensor_data(y), bytes), 0);
  }
}

static void upgrade_file(const char *path, const char *name) {
  kn_context *c = suite_context();
  kn_entry *a, *b;
  uint32_t n, m;
  size_t before, after;
  OK(c, kn_file_upgrade(c, path, temp_path()));
  OK(c, kn_file_load(c, path, NULL, &a, &n));
  OK(c, kn_file_load(c, temp_path(), NULL, &b, &m));
  ck_assert_msg(n == m, "%s", name);
  for (uint32_t i = 0; i < n; i++) same_tensors(&a[i], &b[i]);
  kn_file_free_entries(c->heap, a, n);
  kn_file_free_entries(c->heap, b, m);
  test_entries(temp_path(), "ref");
  char *once = slurp(temp_path(), &before), *twice;
  OK(c, kn_file_upgrade(c, temp_path(), temp_path())); /* of now already: the same bytes */
  twice = slurp(temp_path(), &after);
  ck_assert_msg(before == after && !memcmp(once, twice, before), "%s", name);
  free(once);
  free(twice);
  unlink(temp_path());
  suite_done(c);
}

START_TEST(are_brought_up_to_date) { ck_assert_int_ge(every_file(upgrade_file), 5); }
END_TEST

/* It has no vectors of its own: what the kiln that wrote it gave is here. */
START_TEST(the_first_one) {
  static const float want[] = {0.0224265996f, 0.0243491251f, 0.0454969034f, 0.0474194288f,
                               0.0213400088f, 0.0230932906f, 0.0423793979f, 0.0441326797f,
                               0.0916374996f, 0.0935600325f, 0.114707805f,  0.116630323f,
                               0.0844581798f, 0.0862114578f, 0.105497576f,  0.107250847f};
  char path[800];
  kiln_context *ctx;
  kiln_graph *g;
  kiln_session *s;
  kiln_tensor *x, *y;
  int64_t steps;
  float numbers[2 * 12 * 12];
  snprintf(path, sizeof path, "%s/1-first.kiln", folder());
  for (int i = 0; i < 2 * 12 * 12; i++) numbers[i] = (float)i / 100;
  ck_assert_int_eq(kiln_context_new(NULL, &ctx, NULL, 0), KILN_OK);
  ck_assert_msg(kiln_graph_load(ctx, path, NULL, &g) == KILN_OK, "%s", kiln_error(ctx));
  ck_assert_int_eq(kiln_session_new(ctx, g, &s), KILN_OK);
  ck_assert_int_eq(kiln_tensor_new(ctx, KILN_FLOAT32, 4, (int64_t[]){2, 1, 12, 12}, numbers, &x), KILN_OK);
  ck_assert_int_eq(kiln_session_set_tensor(s, "x", x), KILN_OK);
  ck_assert_msg(kiln_session_run(s) == KILN_OK, "%s", kiln_session_error(s));
  ck_assert_int_eq(kiln_session_get_tensor(s, "1", &y), KILN_OK);
  ck_assert_int_eq(kiln_session_get_integer(s, "2", &steps), KILN_OK);
  ck_assert_int_eq(steps, 8);
  ck_assert_int_eq(kiln_tensor_numel(y), 16);
  for (int i = 0; i < 16; i++) {
    float got = ((const float *)kiln_tensor_data(y))[i];
    ck_assert_msg(fabsf(got - want[i]) < 1e-6f, "element %d: %.9g instead of %.9g", i, got, want[i]);
  }
  kiln_tensor_release(x);
  kiln_tensor_release(y);
  kiln_session_free(s);
  kiln_graph_release(g);
  kiln_context_free(ctx);
}
END_TEST

SUITE("golden_files", give_what_was_recorded, are_brought_up_to_date, the_first_one)
