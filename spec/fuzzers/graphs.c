/* Targets that read graphs: files, texts, texts that passes change. What is accepted is run. */
#include "spec/fuzzers/fuzz.h"
#include "bindings/c/kiln.h"
#include "bindings/c/session.h"
#include "graph/file.h"
#include "graph/pipeline.h"
#include "graph/text.h"
#include "graph/verify.h"

/* ---- files, by kiln.h as a host opens them ---- */

enum { MOST_STEPS = 100 };

/* What a host function gives: its arguments, and numbers. What a graph expects is checked by who called it.
 */
static kiln_status host(void *ud, const kiln_value *args, int nargs, kiln_value *results, int nresults) {
  const uint64_t seed = *(const uint64_t *)ud;
  for (int i = 0; i < nresults; i++) {
    if (i < nargs && seed & 1)
      results[i] = args[i];
    else
      results[i] = (kiln_value){.kind = (kiln_kind)(seed >> 8 & 7), .i = (int64_t)(seed % 5), .f = 0.5};
    if (results[i].kind == KILN_TENSOR && results[i].tensor) kiln_tensor_retain(results[i].tensor);
  }
  return seed % 64 ? KILN_OK : KILN_ARG;
}

static void look(const kiln_graph *g) {
  kiln_info info = {.size = sizeof info};
  for (int i = 0; kiln_graph_input(g, i, &info) == KILN_OK; i++)
    FUZZ_HOLDS(kiln_graph_find_input(g, info.name) >= 0);
  for (int i = 0; kiln_graph_output(g, i, &info) == KILN_OK; i++)
    if (info.label) (void)kiln_graph_find_output(g, info.label);
  for (int i = 0; kiln_graph_slot(g, i, &info) == KILN_OK; i++)
    FUZZ_HOLDS(kiln_graph_find_slot(g, info.name) == i);
}

static bool give_inputs(kn_context *ctx, kiln_session *s, const kn_graph *g, uint64_t seed) {
  for (uint32_t i = 0; i < g->body->nparams; i++) {
    kn_rvalue v;
    kiln_value x;
    if (!fuzz_ok(ctx, (v = (kn_rvalue){0}, damaged_value(ctx, &g->body->params[i]->type, seed + i, &v))))
      return false;
    memset(&x, 0, sizeof x);
    x.kind = v.tensor                           ? KILN_TENSOR
             : v.scalar.kind == KN_SCALAR_INT   ? KILN_INTEGER
             : v.scalar.kind == KN_SCALAR_FLOAT ? KILN_FLOAT
                                                : KILN_BOOLEAN;
    x.tensor = (kiln_tensor *)v.tensor;
    x.i = v.scalar.as.i;
    if (x.kind == KILN_FLOAT) x.f = v.scalar.as.f;
    if (x.kind == KILN_BOOLEAN) x.b = v.scalar.as.b;
    FUZZ_HOLDS(kiln_session_set(s, (int)i, &x) == KILN_OK);
    kn_tensor_release(v.tensor);
  }
  return true;
}

static void run_session(kn_context *ctx, kiln_graph *g, kiln_session *s, uint64_t *seed) {
  kiln_session_set_step_limit(s, MOST_STEPS);
  for (int i = 0; i < kiln_graph_host_count(g); i++)
    FUZZ_HOLDS(kiln_session_bind(s, kiln_graph_host_name(g, i), host, seed) != KILN_ARG);
  kiln_session_set_trip_limit(s, MOST_STEPS / 2);
  (void)fuzz_ok(kn_session_context(s->core), (kn_status)kiln_session_test(s));
  if (!give_inputs(ctx, s, g->graph, *seed)) return;
  for (int run = 0; run < 2; run++) {
    kiln_status st = kiln_session_run(s);
    (void)fuzz_ok(kn_session_context(s->core), (kn_status)st);
    kiln_value v;
    for (int i = 0; st == KILN_OK && i < kiln_graph_output_count(g); i++)
      if (kiln_session_get(s, i, &v) == KILN_OK) kiln_value_clear(&v);
    for (int i = 0; i < kiln_graph_slot_count(g); i++)
      if (kiln_session_get_slot(s, i, &v) == KILN_OK) kiln_value_clear(&v);
    if (st != KILN_OK && run) break;
  }
}

/* What kiln-run shows of a file. */
static void describe(kn_context *ctx, const uint8_t *data, size_t size) {
  char *text;
  size_t n;
  if (fuzz_ok(ctx, kn_file_describe(ctx, fuzz_path(data, size), &text, &n))) kn_free(ctx->heap, text, n + 1);
}

void fuzz_kiln(const uint8_t *data, size_t size) {
  uint64_t seed = fuzz_seed(data, size);
  kn_context *first = fuzz_context(FUZZ_REF);
  kiln_graph *g;
  if (seed % 8 == 0) describe(first, data, size);
  if (!fuzz_ok(first,
               (kn_status)kiln_graph_load_memory((kiln_context *)first, data, size, NULL, NULL, NULL, &g)))
    return;
  look(g);
  for (int b = 0; b < FUZZ_BACKENDS; b++) { /* any context can use it */
    kn_context *ctx = fuzz_context((fuzz_backend)b);
    kiln_session *s;
    if (!fuzz_ok(ctx, (kn_status)kiln_session_new((kiln_context *)ctx, g, &s))) continue;
    run_session(ctx, g, s, &seed);
    kiln_session_free(s);
  }
  kiln_graph_release(g);
}

/* ---- what a session had written of itself ---- */

void fuzz_checkpoint(const uint8_t *data, size_t size) {
  static const char text[] =
      "graph g(%x: float32[2]) {\n  slot state \"w\": float32[2]\n  slot state \"n\": integer = 3\n"
      "  slot param \"p\": float64[1]\n  %w = load_state \"w\"\n  %n = load_state \"n\"\n"
      "  %p = param \"p\"\n  %y = add %w, %x\n  store_state \"w\", %y\n  store_state \"n\", %n\n"
      "  return %y, %p, %n\n}\n";
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_graph *g;
  kiln_graph *handle;
  kiln_session *s;
  if (!fuzz_ok(ctx, kn_graph_parse(ctx, text, sizeof text - 1, &g))) return;
  if (fuzz_ok(ctx, kiln_graph_wrap(ctx, g, &handle))) {
    if (fuzz_ok(ctx, (kn_status)kiln_session_new((kiln_context *)ctx, handle, &s))) {
      (void)fuzz_ok(kn_session_context(s->core), (kn_status)kiln_session_restore(s, fuzz_path(data, size)));
      kiln_session_free(s);
    }
    kiln_graph_release(handle);
  }
  kn_graph_release(g);
}

/* ---- texts ---- */

/* Printed, parsed and printed again it is the same text. */
static void print_again(kn_context *ctx, const kn_graph *g) {
  char *a, *b;
  size_t n, m;
  kn_graph *back;
  if (!fuzz_ok(ctx, kn_graph_print(ctx, g, KN_TEXT_FULL, &a, &n))) return;
  kn_status st = kn_graph_parse(ctx, a, n, &back);
  FUZZ_HOLDS(st != KN_FORMAT);
  if (fuzz_ok(ctx, st)) {
    if (fuzz_ok(ctx, kn_graph_print(ctx, back, KN_TEXT_FULL, &b, &m))) {
      FUZZ_HOLDS(n == m && !memcmp(a, b, n));
      kn_free(ctx->heap, b, m + 1);
    }
    kn_graph_release(back);
  }
  kn_free(ctx->heap, a, n + 1);
}

/* NULL where it is none. */
static kn_graph *parse(kn_context *ctx, const uint8_t *data, size_t size) {
  kn_graph *g;
  kn_status st = kn_graph_parse(ctx, (const char *)data, size, &g);
  FUZZ_HOLDS(st == KN_OK || st == KN_FORMAT || st == KN_LIMIT || st == KN_NOMEM);
  return fuzz_ok(ctx, st) ? g : NULL;
}

void fuzz_ir(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_graph *g = parse(ctx, data, size);
  char *text;
  size_t n;
  if (!g) return;
  (void)fuzz_ok(ctx, kn_graph_verify(ctx, g, true));
  print_again(ctx, g);
  if (fuzz_ok(ctx, kn_graph_print(ctx, g, KN_TEXT_BRIEF, &text, &n))) kn_free(ctx->heap, text, n + 1);
  if (fuzz_ok(ctx, kn_graph_code(ctx, g, &text, &n))) kn_free(ctx->heap, text, n + 1);
  fuzz_run(g, fuzz_seed(data, size));
  kn_graph_release(g);
}

/* ---- passes ---- */

void fuzz_passes(const uint8_t *data, size_t size) {
  kn_context *ctx = fuzz_context(FUZZ_REF);
  kn_graph *g = parse(ctx, data, size);
  kn_builder b;
  if (!g) return;
  uint64_t seed = fuzz_seed(data, size);
  g->finished = false; /* nobody else has it */
  kn_builder_init(&b, ctx, g);
  kn_status st = kn_pipeline_run(&b, seed & 1 ? KN_PIPELINE_CAPTURE : KN_PIPELINE_FREEZE);
  if (st == KN_OK) st = kn_graph_finish(&b);
  if (fuzz_ok(ctx, st)) {
    FUZZ_HOLDS(kn_graph_verify(ctx, g, false) != KN_FORMAT);
    fuzz_run(g, seed);
  }
  kn_graph_release(g);
}
