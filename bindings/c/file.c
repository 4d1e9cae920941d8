/* Files of the C API: what they hold, bringing them up to date, their notes and test vectors. */
#include "bindings/c/session.h"
#include "graph/text.h"
#include "graph/writer.h"
#include <inttypes.h>
#include <string.h>

/* ---- what a file holds ---- */

typedef struct teller {
  kn_context *ctx;
  kn_writer line, shown;
  void (*fn)(void *ud, const char *text);
  void *ud;
} teller;

/* Hands on what was put into `line`. */
static void tell(teller *t) {
  kn_put(&t->line, "", 1); /* its end */
  t->shown.n = 0;
  if (!t->line.failed) kn_put_line(&t->shown, t->line.p);
  kn_put(&t->shown, "", 1);
  if (!t->shown.failed && !t->line.failed) t->fn(t->ud, t->shown.p);
  t->line.n = 0;
}

static void put_type(kn_writer *w, const kiln_info *v) {
  static const char *const kinds[] = {
      [KILN_NIL] = "nil",      [KILN_TENSOR] = "",       [KILN_INTEGER] = "integer",
      [KILN_FLOAT] = "float",  [KILN_NUMBER] = "number", [KILN_BOOLEAN] = "boolean",
      [KILN_STRING] = "string"};
  kn_puts(w, kinds[v->kind]);
  if (v->kind != KILN_TENSOR) return;
  kn_putf(w, "%s[", kiln_dtype_name(v->dtype));
  for (int d = 0; d < v->rank; d++) {
    if (d) kn_puts(w, ",");
    if (v->sizes[d] >= 0)
      kn_putf(w, "%" PRId64, v->sizes[d]);
    else
      kn_puts(w, v->symbols[d] ? v->symbols[d] : "?");
  }
  kn_puts(w, "]");
  if (strcmp(v->device, "cpu")) kn_putf(w, "@%s", v->device);
}

static void tell_values(teller *t, const char *what, const kiln_graph *g, int n,
                        kiln_status (*get)(const kiln_graph *g, int index, kiln_info *out)) {
  kiln_info v = {.size = sizeof v};
  for (int i = 0; i < n; i++) {
    get(g, i, &v);
    kn_putf(&t->line, "%s %s", what, v.name);
    if (v.label) kn_putf(&t->line, " (%s)", v.label);
    kn_puts(&t->line, ": ");
    put_type(&t->line, &v);
    if (v.layout) kn_putf(&t->line, ", %s", v.layout);
    if (*what == 'o' && v.constant) kn_puts(&t->line, ", constant");
    if (*what == 's' && !v.constant) kn_puts(&t->line, ", written by runs");
    tell(t);
  }
}

static void put_where(kn_writer *w, const kn_where *where) {
  char text[160];
  kn_where_text(where, text, sizeof text);
  if (*text) kn_putf(w, "  ; %s", text);
}

static void put_types(kn_writer *w, const kn_graph *g, kn_value *const *list, uint32_t n) {
  char type[KN_TYPE_TEXT];
  for (uint32_t i = 0; i < n; i++)
    kn_putf(w, "%s%s", i ? ", " : "", kn_vtype_text(g, &list[i]->type, type, sizeof type));
}

static void tell_hosts(teller *t, const kn_graph *g) {
  const kn_node *n;
  for (uint32_t i = 0; (n = kn_host_call(g, i)); i++) {
    kn_putf(&t->line, "host %s(", n->text);
    put_types(&t->line, g, n->in, n->nin);
    kn_puts(&t->line, ") -> (");
    put_types(&t->line, g, n->out, n->nout);
    kn_puts(&t->line, ")");
    put_where(&t->line, n->where);
    tell(t);
  }
}

static void tell_graph(teller *t, const char *entry, const kiln_graph *g) {
  const kn_graph *core = g->graph;
  kn_putf(&t->line, "graph %s", entry);
  tell(t);
  tell_values(t, "input", g, kiln_graph_input_count(g), kiln_graph_input);
  tell_values(t, "output", g, kiln_graph_output_count(g), kiln_graph_output);
  tell_values(t, "slot", g, kiln_graph_slot_count(g), kiln_graph_slot);
  tell_hosts(t, core);
  for (uint32_t i = 0; i < core->nguards; i++) {
    const kn_guard *guard = &core->guards[i];
    kn_putf(&t->line, "guard %s %s = %s", guard->kind, guard->name, guard->value);
    put_where(&t->line, guard->where);
    tell(t);
  }
  if (g->vectors) {
    kn_putf(&t->line, "test vectors %" PRIu32, g->vectors->n);
    if (g->vectors->tolerance >= 0) kn_putf(&t->line, ", tolerance %.3g", g->vectors->tolerance);
    tell(t);
  }
}

static kn_status tell_graphs(teller *t, const char *entry, const kn_entry *entries, uint32_t n) {
  bool any = false;
  for (uint32_t i = 0; i < n; i++) {
    kiln_graph *g;
    if (entry && strcmp(entry, entries[i].name)) continue;
    KN_TRY(kiln_graph_of_entry(t->ctx, &entries[i], &g));
    tell_graph(t, entries[i].name, g);
    kiln_graph_release(g);
    any = true;
  }
  return any ? KN_OK : kn_fail(t->ctx, KN_ARG, "the file holds no graph \"%s\"", entry);
}

static kn_status tell_file(teller *t, const char *path) {
  char *text;
  size_t n;
  KN_TRY(kn_file_describe(t->ctx, path, &text, &n));
  for (const char *at = text; *at; at += strcspn(at, "\n") + 1) {
    kn_put(&t->line, at, strcspn(at, "\n"));
    tell(t);
  }
  kn_free(t->ctx->heap, text, n + 1);
  return KN_OK;
}

kiln_status kiln_file_info(kiln_context *handle, const char *path, const char *entry,
                           void (*line)(void *ud, const char *text), void *ud) {
  kn_context *ctx = core_context(handle);
  teller t = {.ctx = ctx, .line.heap = ctx->heap, .shown.heap = ctx->heap, .fn = line, .ud = ud};
  kn_entry *entries;
  uint32_t n;
  kn_status st = tell_file(&t, path);
  if (st == KN_OK && (st = kn_file_load_host(ctx, path, &entries, &n)) == KN_OK) {
    st = tell_graphs(&t, entry, entries, n);
    kn_file_free_entries(ctx->heap, entries, n);
  }
  if (st == KN_OK && (t.line.failed || t.shown.failed)) st = kn_fail_nomem(ctx, 0);
  kn_writer_free(&t.line);
  kn_writer_free(&t.shown);
  return outside(st);
}

kiln_status kiln_file_upgrade(kiln_context *ctx, const char *path, const char *to) {
  return outside(kn_file_upgrade(core_context(ctx), path, to));
}

const char *kiln_graph_note(const kiln_graph *g, const char *name) { return kn_notes_find(g->notes, name); }

/* ---- test vectors ---- */

int kiln_graph_vector_count(const kiln_graph *g) { return g->vectors ? (int)g->vectors->n : 0; }

kiln_status kiln_session_test(kiln_session *s) {
  const kiln_graph *g = s->graph;
  if (!kiln_graph_vector_count(g))
    return outside(kn_fail(kn_session_context(s->core), KN_ARG, "graph %s has no test vectors in its file",
                           kiln_graph_name(g)));
  kn_session_lend_aside(s->core, true);
  kn_status st = kn_vectors_test(s->core, g->vectors);
  kn_session_lend_aside(s->core, false);
  return outside(st);
}

kiln_status kiln_graph_test(kiln_context *handle, kiln_graph *g) {
  kn_context *ctx = core_context(handle);
  kiln_session *s;
  kiln_status st = kiln_session_new(handle, g, &s);
  if (st != KILN_OK) return st;
  st = kiln_session_test(s);
  if (st != KILN_OK) kn_fail(ctx, (kn_status)st, "%s", kiln_session_error(s));
  kiln_session_free(s);
  return st;
}
