/* Sessions of the C API: inputs kept until set again, outputs of the last run kept until the next. */
#include "backends/registry.h"
#include "bindings/c/session.h"
#include "graph/checkpoint.h"
#include <string.h>

static kn_context *context_of(const kiln_session *s) { return kn_session_context(s->core); }

/* ---- life ---- */

/* Takes one request to cancel, if there is one. The executor says the rest. */
static kn_status poll_cancel(void *ud, uint64_t steps) {
  kiln_session *s = ud;
  (void)steps;
  int n = atomic_load_explicit(&s->cancels, memory_order_relaxed);
  while (n > 0)
    if (atomic_compare_exchange_weak(&s->cancels, &n, n - 1)) return KN_CANCELLED;
  return KN_OK;
}

kiln_status kiln_session_new(kiln_context *handle, kiln_graph *g, kiln_session **out) {
  kn_context *ctx = core_context(handle);
  const kn_target *const *targets;
  int n;
  kn_status st = kn_registry_targets(ctx, &targets, &n);
  if (st != KN_OK) return outside(st);
  kiln_session *s = kn_calloc(ctx->heap, 1, sizeof *s);
  if (!s) return outside(kn_fail_nomem(ctx, sizeof *s));
  s->heap = kn_heap_retain(ctx->heap);
  s->graph = kiln_graph_retain(g);
  s->in = kn_calloc(s->heap, g->nin + 1u, sizeof *s->in);
  s->given = kn_calloc(s->heap, g->nin + 1u, sizeof *s->given);
  s->out = kn_calloc(s->heap, g->graph->body->nyields + 1u, sizeof *s->out);
  if (!s->in || !s->given || !s->out) st = kn_fail_nomem(ctx, 0);
  if (st == KN_OK) st = kn_session_new(ctx, g->graph, targets, n, &s->core);
  if (st != KN_OK) {
    kiln_session_free(s);
    return outside(st);
  }
  kn_session_set_poll(s->core, poll_cancel, s);
  *out = s;
  return KILN_OK;
}

static void drop_outputs(kiln_session *s) {
  for (uint32_t i = 0; s->ran && i < s->graph->graph->body->nyields; i++) kn_tensor_release(s->out[i].tensor);
  s->ran = false;
}

void kiln_session_free(kiln_session *s) {
  if (!s) return;
  drop_outputs(s);
  for (uint32_t i = 0; s->in && i < s->graph->nin; i++) kn_tensor_release(s->in[i].tensor);
  kiln_free_bound(s);
  kn_session_free(s->core);
  kn_heap *heap = s->heap;
  kn_free(heap, s->profile, s->profile_bytes);
  kn_free(heap, s->in, (s->graph->nin + 1u) * sizeof *s->in);
  kn_free(heap, s->given, (s->graph->nin + 1u) * sizeof *s->given);
  kn_free(heap, s->out, (s->graph->graph->body->nyields + 1u) * sizeof *s->out);
  kiln_graph_release(s->graph);
  kn_free(heap, s, sizeof *s);
  kn_heap_release(heap);
}

const char *kiln_session_error(const kiln_session *s) { return kn_error(context_of(s)); }

/* ---- values ---- */

/* tensor retained */
kn_status kiln_read_value(kn_context *ctx, const kiln_value *v, kn_rvalue *out) {
  kn_rvalue r = {0};
  switch (v->kind) {
  case KILN_TENSOR:
    if (!v->tensor) return kn_fail(ctx, KN_ARG, "a value of kind tensor holds none");
    r.tensor = kn_tensor_retain(core_tensor(v->tensor));
    break;
  case KILN_INTEGER: r.scalar = (kn_scalar){.kind = KN_SCALAR_INT, .as.i = v->i}; break;
  case KILN_FLOAT: r.scalar = (kn_scalar){.kind = KN_SCALAR_FLOAT, .as.f = v->f}; break;
  case KILN_BOOLEAN: r.scalar = (kn_scalar){.kind = KN_SCALAR_BOOL, .as.b = v->b != 0}; break;
  default:
    return kn_fail(ctx, KN_ARG, "a tensor, integer, float or boolean is needed (got kind %d)", (int)v->kind);
  }
  *out = r;
  return KN_OK;
}

/* takes the tensor */
void kiln_write_value(const kn_rvalue *r, kiln_value *out) {
  memset(out, 0, sizeof *out);
  if (r->tensor) {
    out->kind = KILN_TENSOR;
    out->tensor = (kiln_tensor *)r->tensor;
  } else if (r->scalar.kind == KN_SCALAR_INT) {
    out->kind = KILN_INTEGER;
    out->i = r->scalar.as.i;
  } else if (r->scalar.kind == KN_SCALAR_FLOAT) {
    out->kind = KILN_FLOAT;
    out->f = r->scalar.as.f;
  } else {
    out->kind = KILN_BOOLEAN;
    out->b = r->scalar.as.b;
  }
}

static void write_constant(const kn_tree *t, kiln_value *out) {
  memset(out, 0, sizeof *out);
  switch (t->kind) {
  case KN_TREE_BOOL: out->kind = KILN_BOOLEAN, out->b = t->i != 0; break;
  case KN_TREE_INT: out->kind = KILN_INTEGER, out->i = t->i; break;
  case KN_TREE_FLOAT: out->kind = KILN_FLOAT, out->f = t->f; break;
  case KN_TREE_STRING: out->kind = KILN_STRING, out->text = t->text, out->length = t->n; break;
  default: break;
  }
}

/* ---- inputs ---- */

kiln_status kiln_session_set(kiln_session *s, int index, const kiln_value *v) {
  kn_context *ctx = context_of(s);
  if (index < 0 || (uint32_t)index >= s->graph->nin)
    return outside(
        kn_fail(ctx, KN_INDEX, "there is no input number %d: the graph has %d", index, (int)s->graph->nin));
  kn_rvalue r;
  kn_status st = kn_session_at_rest(s->core); /* a run borrows what is set */
  if (st == KN_OK) st = kiln_read_value(ctx, v, &r);
  if (st != KN_OK) {
    kn_error_prefix(ctx, "input %s", s->graph->in[index].name);
    return outside(st);
  }
  kn_tensor_release(s->in[index].tensor);
  s->in[index] = r;
  s->given[index] = true;
  return KILN_OK;
}

static void list_names(const kiln_leaf *list, uint32_t n, char *buf, size_t size) {
  size_t at = 0;
  buf[0] = 0;
  for (uint32_t i = 0; i < n && at + 1 < size; i++) {
    const char *parts[] = {i ? ", " : "", list[i].name, list[i].label ? " (" : "", list[i].label, ")"};
    for (int k = 0; k < (list[i].label ? 5 : 2); k++)
      for (const char *p = parts[k]; *p && at + 1 < size; p++) buf[at++] = *p;
    buf[at] = 0;
  }
}

static kiln_status set_named(kiln_session *s, const char *name, const kiln_value *v) {
  int i = kiln_graph_find_input(s->graph, name);
  if (i >= 0) return kiln_session_set(s, i, v);
  char names[512];
  list_names(s->graph->in, s->graph->nin, names, sizeof names);
  return outside(
      kn_fail(context_of(s), KN_ARG, "there is no input \"%s\", but %s", name, names[0] ? names : "none"));
}

kiln_status kiln_session_set_tensor(kiln_session *s, const char *name, kiln_tensor *t) {
  return set_named(s, name, &(kiln_value){.kind = KILN_TENSOR, .tensor = t});
}

kiln_status kiln_session_set_integer(kiln_session *s, const char *name, int64_t i) {
  return set_named(s, name, &(kiln_value){.kind = KILN_INTEGER, .i = i});
}

kiln_status kiln_session_set_float(kiln_session *s, const char *name, double f) {
  return set_named(s, name, &(kiln_value){.kind = KILN_FLOAT, .f = f});
}

kiln_status kiln_session_set_boolean(kiln_session *s, const char *name, int b) {
  return set_named(s, name, &(kiln_value){.kind = KILN_BOOLEAN, .b = b});
}

/* ---- running ---- */

kn_status kiln_all_given(kiln_session *s) {
  for (uint32_t i = 0; i < s->graph->nin; i++)
    if (!s->given[i]) return kn_fail(context_of(s), KN_STATE, "input %s was not set", s->graph->in[i].name);
  return KN_OK;
}

kiln_status kiln_session_run(kiln_session *s) {
  kn_status st = kn_session_at_rest(s->core); /* a cancel is for the run under way */
  if (st != KN_OK) return outside(st);
  drop_outputs(s);
  if (poll_cancel(s, 0) != KN_OK)
    return outside(kn_fail(context_of(s), KN_CANCELLED, "the run was cancelled before it began"));
  st = kiln_all_given(s);
  if (st == KN_OK) st = kn_session_run(s->core, s->in, s->graph->nin, s->out, s->graph->graph->body->nyields);
  s->ran = st == KN_OK;
  return outside(st);
}

kiln_status kiln_session_memory(kiln_session *s, size_t *bytes) {
  kn_status st = kiln_all_given(s);
  kn_run_memory memory;
  if (st == KN_OK) st = kn_session_prepare(s->core, s->in, s->graph->nin, &memory);
  if (st == KN_OK) *bytes = memory.arena + memory.workspace + memory.packed;
  return outside(st);
}

kiln_status kiln_session_set_arena(kiln_session *s, void *memory, size_t bytes) {
  kn_status st = kn_session_lend(s->core, memory, bytes);
  if (st == KN_OK) drop_outputs(s);
  return outside(st);
}

kiln_status kiln_session_arena_bytes(kiln_session *s, size_t *bytes) {
  kn_status st = kiln_all_given(s);
  if (st == KN_OK) st = kn_session_lent_bytes(s->core, s->in, s->graph->nin, bytes);
  return outside(st);
}

void kiln_session_seed(kiln_session *s, uint64_t seed) { kn_random_seed(&context_of(s)->random, seed); }
void kiln_session_set_step_limit(kiln_session *s, uint64_t steps) {
  kn_session_set_step_limit(s->core, steps);
}
void kiln_session_set_trip_limit(kiln_session *s, uint64_t trips) {
  kn_session_set_trip_limit(s->core, trips);
}

kiln_status kiln_session_set_deadline(kiln_session *s, double seconds) {
  if (!(seconds >= 0))
    return outside(kn_fail(context_of(s), KN_ARG, "a deadline is 0 or more seconds (got %g)", seconds));
  kn_session_set_deadline(s->core, seconds);
  return KILN_OK;
}

void kiln_session_set_check(kiln_session *s, int on) { kn_session_set_check(s->core, on != 0); }
void kiln_session_cancel(kiln_session *s) { atomic_fetch_add_explicit(&s->cancels, 1, memory_order_relaxed); }

/* ---- outputs ---- */

kiln_status kiln_session_get(kiln_session *s, int index, kiln_value *out) {
  kn_context *ctx = context_of(s);
  if (index < 0 || (uint32_t)index >= s->graph->nout)
    return outside(
        kn_fail(ctx, KN_INDEX, "there is no output number %d: the graph has %d", index, (int)s->graph->nout));
  const kiln_leaf *l = &s->graph->out[index];
  if (!l->value) {
    write_constant(l->tree, out);
    return KILN_OK;
  }
  if (!s->ran) return outside(kn_fail(ctx, KN_STATE, "there is no output %s: no run has succeeded", l->name));
  if (s->out[l->index].tensor) kn_tensor_retain(s->out[l->index].tensor);
  kiln_write_value(&s->out[l->index], out);
  if (l->value->type.kind == KN_V_TENSOR && !out->tensor) out->kind = KILN_NIL; /* not the one chosen */
  return KILN_OK;
}

static const char *kind_text(kiln_kind k) {
  static const char *const texts[] = {
      [KILN_NIL] = "nil",        [KILN_TENSOR] = "a tensor", [KILN_INTEGER] = "an integer",
      [KILN_FLOAT] = "a float",  [KILN_NUMBER] = "a number", [KILN_BOOLEAN] = "a boolean",
      [KILN_STRING] = "a string"};
  return texts[k];
}

/* The named output when it is of this kind; FLOAT takes integers too. */
static kiln_status get_named(kiln_session *s, const char *name, kiln_kind want, kiln_value *out) {
  int i = kiln_graph_find_output(s->graph, name);
  if (i < 0) {
    char names[512];
    list_names(s->graph->out, s->graph->nout, names, sizeof names);
    return outside(
        kn_fail(context_of(s), KN_ARG, "there is no output \"%s\", but %s", name, names[0] ? names : "none"));
  }
  kiln_value v;
  kiln_status st = kiln_session_get(s, i, &v);
  if (st != KILN_OK) return st;
  if (want == KILN_FLOAT && v.kind == KILN_INTEGER) {
    v.kind = KILN_FLOAT;
    v.f = (double)v.i;
  }
  if (v.kind != want) {
    kn_fail(context_of(s), KN_ARG, "output %s is %s, not %s", name, kind_text(v.kind), kind_text(want));
    kiln_value_clear(&v);
    return KILN_ARG;
  }
  *out = v;
  return KILN_OK;
}

#define GET(kind_, NAME, type, field)                                                                        \
  kiln_status kiln_session_get_##kind_(kiln_session *s, const char *name, type *out) {                       \
    kiln_value v;                                                                                            \
    kiln_status st = get_named(s, name, NAME, &v);                                                           \
    if (st == KILN_OK) *out = v.field;                                                                       \
    return st;                                                                                               \
  }
GET(tensor, KILN_TENSOR, kiln_tensor *, tensor)
GET(integer, KILN_INTEGER, int64_t, i)
GET(float, KILN_FLOAT, double, f)
GET(boolean, KILN_BOOLEAN, int, b)

/* ---- slots ---- */

static kn_status check_slot(kiln_session *s, int index) {
  if (index >= 0 && (uint32_t)index < s->graph->graph->nslots) return KN_OK;
  return kn_fail(context_of(s), KN_INDEX, "there is no slot number %d: the graph has %d", index,
                 (int)s->graph->graph->nslots);
}

kiln_status kiln_session_get_slot(kiln_session *s, int index, kiln_value *out) {
  kn_rvalue r = {0};
  kn_status st = check_slot(s, index);
  if (st == KN_OK) st = kn_session_get_slot(s->core, (uint32_t)index, &r);
  if (st == KN_OK) kiln_write_value(&r, out);
  return outside(st);
}

kiln_status kiln_session_set_slot(kiln_session *s, int index, const kiln_value *v) {
  kn_rvalue r;
  kn_status st = check_slot(s, index);
  if (st == KN_OK) st = kiln_read_value(context_of(s), v, &r);
  if (st != KN_OK) return outside(st);
  st = kn_session_set_slot(s->core, (uint32_t)index, &r);
  kn_tensor_release(r.tensor);
  return outside(st);
}

kiln_status kiln_session_checkpoint(kiln_session *s, const char *path) {
  return outside(kn_session_checkpoint(s->core, path));
}

kiln_status kiln_session_restore(kiln_session *s, const char *path) {
  return outside(kn_session_restore(s->core, path));
}
