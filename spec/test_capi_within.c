/* What a function of the host may do with the session that calls it: what a run needs stays until it ends. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "spec/capi.h"

static const char within_text[] = "graph within(%x: float32[N], %n: integer) {\n"
                                  "  slot state \"last\": float32[2]\n"
                                  "  host_call %n \"at\"\n"
                                  "  %y = tanh %x\n"
                                  "  return %y, %n\n"
                                  "}\n";

typedef struct host {
  kiln_context *ctx;
  kiln_session *s;
  int gone; /* memory of inputs that was given back */
  int calls;
  bool profiled; /* there is a run before */
} host;

static void let_go(void *ud, void *data, size_t bytes) {
  (void)bytes;
  memset(data, 0x7f, bytes);
  ++*(int *)ud;
}

static kiln_status at(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  host *h = ud;
  const kiln_value n = {.kind = KILN_INTEGER, .i = 9};
  kiln_value v;
  kiln_tensor *t;
  size_t bytes;
  const char *text;
  (void)nargs, (void)results, (void)nresults;
  if (args[0].i == 7) kiln_session_cancel(h->s);
  h->calls++;
  GOOD(kiln_tensor_new(h->ctx, KILN_FLOAT32, 1, (int64_t[]){1}, NULL, &t), kiln_error(h->ctx));
  BAD(KILN_STATE, "the session is running", kiln_session_set_tensor(h->s, "x", t), kiln_session_error(h->s));
  kiln_tensor_release(t);
  ck_assert_int_eq(h->gone, 0); /* the run goes on with what it was given */
  ck_assert_int_eq(kiln_session_set(h->s, 1, &n), KILN_STATE);
  ck_assert_int_eq(kiln_session_set_slot(h->s, 0, &n), KILN_STATE);
  ck_assert_int_eq(kiln_session_get_slot(h->s, 0, &v), KILN_STATE);
  if (!h->profiled) ck_assert_int_eq(kiln_session_get(h->s, 0, &v), KILN_STATE);
  ck_assert_int_eq(kiln_session_run(h->s), KILN_STATE);
  ck_assert_int_eq(kiln_session_memory(h->s, &bytes), KILN_STATE);
  ck_assert_int_eq(kiln_session_profile(h->s, NULL, &text), KILN_STATE);
  ck_assert_int_eq(kiln_session_test(h->s), KILN_ARG);
  return KILN_OK;
}

START_TEST(a_running_session_keeps_what_it_needs) {
  char path[PATH_ROOM], error[200] = "";
  float numbers[] = {0, 0};
  host h = {.gone = 0};
  kiln_graph *g;
  kiln_tensor *x, *y;
  const char *text;
  write_texts(path, (const char *[]){within_text}, 1);
  GOOD(kiln_context_new(NULL, &h.ctx, error, sizeof error), error);
  GOOD(kiln_graph_load(h.ctx, path, NULL, &g), kiln_error(h.ctx));
  GOOD(kiln_session_new(h.ctx, g, &h.s), kiln_error(h.ctx));
  GOOD(kiln_session_bind(h.s, "at", at, &h), kiln_session_error(h.s));
  GOOD(kiln_tensor_wrap(h.ctx, KILN_FLOAT32, 1, (int64_t[]){2}, numbers, let_go, &h.gone, &x),
       kiln_error(h.ctx));
  GOOD(kiln_session_set_tensor(h.s, "x", x), kiln_session_error(h.s));
  GOOD(kiln_session_set_integer(h.s, "n", 5), kiln_session_error(h.s));
  kiln_tensor_release(x);
  for (int i = 0; i < 2; i++) {
    int64_t n = 0;
    GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
    GOOD(kiln_session_get_integer(h.s, "n", &n), kiln_session_error(h.s));
    ck_assert_int_eq(n, 5);
    GOOD(kiln_session_get_tensor(h.s, "y", &y), kiln_session_error(h.s));
    ck_assert_int_eq(kiln_tensor_numel(y), 2);
    ck_assert(((float *)kiln_tensor_data(y))[0] == 0 && ((float *)kiln_tensor_data(y))[1] == 0);
    kiln_tensor_release(y);
  }
  ck_assert_int_eq(h.calls, 2);
  h.profiled = true;
  GOOD(kiln_session_profile(h.s, &(kiln_profile_options){.size = sizeof(kiln_profile_options), .runs = 1},
                            &text),
       kiln_session_error(h.s));
  ck_assert_int_gt(h.calls, 2);
  GOOD(kiln_session_get_tensor(h.s, "y", &y), kiln_session_error(h.s)); /* of the last run still */
  kiln_tensor_release(y);
  h.profiled = false;
  GOOD(kiln_session_set_integer(h.s, "n", 7), kiln_session_error(h.s)); /* is not spent on the one within */
  BAD(KILN_CANCELLED, "", kiln_session_run(h.s), kiln_session_error(h.s));
  GOOD(kiln_session_set_integer(h.s, "n", 6), kiln_session_error(h.s));
  GOOD(kiln_session_run(h.s), kiln_session_error(h.s));
  kiln_session_free(h.s);
  ck_assert_int_eq(h.gone, 1);
  kiln_graph_release(g);
  kiln_context_free(h.ctx);
  unlink(path);
}
END_TEST

SUITE("capi_within", a_running_session_keeps_what_it_needs)
