/* The registry of backends: opened, closed and opened again on one context. What backends compute is
 * test_backends' business. */
#include "backends/registry.h"
#include "core/device.h"
#include "spec/suite.h"

static int providers(const kn_context *c) {
  int n = 0;
  while (n < KN_MAX_PROVIDERS && c->providers[KN_CPU][n]) n++;
  return n;
}

START_TEST(closed_and_opened_again) {
  kn_context *c = suite_context();
  ck_assert_int_eq(providers(c), 1);
  OK(c, kn_registry_open(c, NULL));
  int all = providers(c);
  ck_assert_int_ge(all, 2);
  for (int i = 0; i < 2 * KN_MAX_PROVIDERS; i++) { /* the list is not filled up */
    kn_registry_close(c);
    ck_assert_int_eq(providers(c), 1);
    ck_assert_ptr_eq(c->providers[KN_CPU][0], &kn_ref_provider);
    OK(c, kn_registry_open(c, i % 2 ? NULL : "ref"));
    ck_assert_int_eq(providers(c), i % 2 ? all : 1);
  }
  kn_registry_close(c);
  kn_registry_close(c);
  suite_done(c);
}
END_TEST

SUITE("registry", closed_and_opened_again)
