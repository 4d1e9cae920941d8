/* What every C suite shares: main, the closing line, a context, checks of a status.
 *
 *   #include "spec/suite.h"
 *   START_TEST(adds) { kn_context *c = suite_context(); ... OK(c, kn_add(...)); ... suite_done(c); } END_TEST
 *   SUITE("tensor", adds, ...)
 *
 * Tests run in this process, so that sanitizers, valgrind and debuggers see them; CK_FORK=yes gives each its
 * own, so that a crash is one failed test. */
#ifndef SPEC_SUITE_H
#define SPEC_SUITE_H
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/context.h"

/* The call must succeed; else the sentence is shown. */
#define OK(ctx, call)                                                                                        \
  do {                                                                                                       \
    kn_status suite_s_ = (call);                                                                             \
    ck_assert_msg(suite_s_ == KN_OK, "%s: %s: %s", #call, kn_status_text(suite_s_), kn_error(ctx));          \
  } while (0)

/* The call must fail with `status` and a sentence that contains `part`. */
#define FAILS(ctx, status, part, call)                                                                       \
  do {                                                                                                       \
    kn_status suite_s_ = (call);                                                                             \
    ck_assert_msg(suite_s_ == (status), "%s: \"%s\" instead of \"%s\": %s", #call, kn_status_text(suite_s_), \
                  kn_status_text(status), kn_error(ctx));                                                    \
    ck_assert_msg(strstr(kn_error(ctx), (part)) != NULL, "%s: no \"%s\" in \"%s\"", #call, (part),           \
                  kn_error(ctx));                                                                            \
  } while (0)

static int suite_skipped; /* tests that could not be done here; each said so */

/* Says so; for `if (not here && suite_skips("why")) return;`. */
static inline bool suite_skips(const char *why) {
  printf("skipped: %s\n", why);
  suite_skipped++;
  return true;
}

/* A fresh context on a heap of its own. */
static inline kn_context *suite_context(void) {
  kn_context *c = kn_context_new(NULL, NULL);
  ck_assert_ptr_nonnull(c);
  return c;
}

/* Frees it; every block taken from its heap must have been given back. */
static inline void suite_done(kn_context *c) {
  kn_heap *h = kn_heap_retain(c->heap);
  kn_context_free(c);
  uint64_t blocks = kn_heap_read_stats(h).blocks;
  kn_heap_release(h);
  ck_assert_msg(blocks == 0, "%llu blocks were not freed", (unsigned long long)blocks);
}

typedef struct suite_lines { /* what was logged or printed */
  char text[1 << 16];
  size_t n;
} suite_lines;

static inline void suite_add_line(void *ud, kn_out kind, const char *text, size_t len) {
  suite_lines *l = ud;
  (void)kind;
  if (l->n + len + 2 > sizeof l->text) return;
  memcpy(l->text + l->n, text, len);
  l->n += len;
  l->text[l->n++] = '\n';
  l->text[l->n] = 0;
}

static inline void suite_keep_lines(kn_context *c, suite_lines *l) {
  l->n = 0;
  l->text[0] = 0;
  c->output = suite_add_line;
  c->output_ud = l;
}

static inline int suite_run(const char *name, const TTest *const *tests, size_t n) {
  Suite *suite = suite_create(name);
  TCase *tcase = tcase_create(name);
  tcase_set_timeout(tcase, 120);
  for (size_t i = 0; i < n; i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_set_fork_status(runner, getenv("CK_FORK") ? CK_FORK_GETENV : CK_NOFORK);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner), ran = srunner_ntests_run(runner);
  srunner_free(runner);
  printf("%d passed, %d failed", ran - failed - suite_skipped, failed);
  if (suite_skipped) printf(", %d skipped", suite_skipped);
  printf("\n");
  return failed || ran == 0;
}

#define SUITE(name, ...)                                                                                     \
  int main(void) {                                                                                           \
    const TTest *const suite_tests_[] = {__VA_ARGS__};                                                       \
    return suite_run(name, suite_tests_, sizeof suite_tests_ / sizeof suite_tests_[0]);                      \
  }

#endif
