/* Graphs of strangers: whatever the verifier lets through runs without harm. Every op with attributes,
 * numbers known only when it runs, and elements that are out of all bounds; sizes that nobody has memory for;
 * loops without end. Under the sanitizers of ./dev asan, what reads or writes where it must not is seen.
 * */
#include "backends/registry.h"
#include "graph/internal.h"
#include "graph/syntax.h"
#include "spec/exec.h"
#include "spec/gen.h"
#include <time.h>

enum { LIMIT = 64 << 20 }; /* bytes that a context may have */

/* ---- a machine with little memory, which sees what is asked of it ---- */

typedef struct watched {
  size_t largest; /* request so far */
} watched;

static void *watching_alloc(void *ud, void *p, size_t osize, size_t nsize) {
  watched *w = ud;
  (void)osize;
  if (!nsize) {
    free(p);
    return NULL;
  }
  if (nsize > w->largest) w->largest = nsize;
  return realloc(p, nsize);
}

typedef struct machine {
  watched memory;
  kn_heap *heap;
  kn_context *c;
  const kn_target *const *targets;
  int ntargets;
} machine;

static void start(machine *m, const char *backend) {
  *m = (machine){.heap = NULL};
  m->heap = kn_heap_new(watching_alloc, &m->memory, LIMIT);
  m->c = kn_context_new(m->heap, NULL);
  m->c->threads = 1;
  OK(m->c, kn_registry_open(m->c, backend));
  OK(m->c, kn_registry_targets(m->c, &m->targets, &m->ntargets));
}

static void stop(machine *m) {
  ck_assert_msg(m->memory.largest <= LIMIT, "%zu bytes were asked for at once", m->memory.largest);
  kn_registry_close(m->c);
  kn_context_free(m->c);
  ck_assert_uint_eq(kn_heap_read_stats(m->heap).blocks, 0);
  kn_heap_release(m->heap);
}

/* ---- one op in a graph ---- */

static const int64_t wild[] = {INT64_MIN,
                               INT64_MIN / 2,
                               -((int64_t)1 << 62),
                               -((int64_t)1 << 33),
                               -2147483649,
                               -100,
                               -3,
                               -1,
                               0,
                               1,
                               2,
                               5,
                               7,
                               100,
                               2147483647,
                               2147483648,
                               (int64_t)1 << 32,
                               4294967297,
                               (int64_t)1 << 40,
                               (int64_t)1 << 62,
                               INT64_MAX - 1,
                               INT64_MAX};
static const double odd[] = {NAN, INFINITY, -INFINITY, 1e308, -1e308, 1e18, -1, 0, 0.5, 3};

static const char *saying; /* what is tried, for messages */
static uint64_t accepted, ran, tried;

static void check_status(const machine *m, kn_status st, const char *error) {
  (void)m;
  ck_assert_msg(st != KN_INTERNAL && st != KN_IO, "%s: %s: %s", saying, kn_status_text(st), error);
}

/* The op's node with these inputs and attributes, of which one may be known only when it runs, as sizes may.
 */
static void try_op(machine *m, const gen_case *c, kn_tensor *const *in, const kn_attrs_any *attrs,
                   const int64_t *dyn, bool known) {
  kn_graph *g;
  kn_builder b;
  kn_session *s;
  kn_rvalue given[GEN_MAX_IN + 1], out[KN_MAX_OUTPUTS];
  kn_value *x[GEN_MAX_IN], *k = NULL;
  tried++;
  OK(m->c, kn_graph_new(m->c, "g", &g));
  kn_builder_init(&b, m->c, g);
  for (int i = 0; i < c->n; i++) {
    kn_vtype type = {.kind = KN_V_TENSOR, .tensor = in[i]->type};
    for (int d = 0; d < type.tensor.rank && !known; d++) type.tensor.dims[d] = KN_DIM_UNKNOWN;
    x[i] = kn_add_input(&b, "x", &type);
    given[i] = T(in[i]);
  }
  if (dyn) {
    k = kn_add_input(&b, "k", &(kn_vtype){.kind = KN_V_INT});
    given[c->n] = INT(*dyn);
  }
  const bool none = kn_ops[c->op].attrs == KN_ATTRS_none;
  kn_node *n = kn_add_op(&b, c->op, none ? NULL : attrs, x, (uint32_t)c->n, &k, dyn ? 1 : 0);
  kn_status st = b.status;
  if (n) {
    kn_set_results(&b, n->out, n->nout, NULL, 0);
    st = kn_build_finish(&b, true);
  }
  check_status(m, st, kn_error(m->c));
  if (st == KN_OK) {
    accepted++;
    OK(m->c, kn_session_new(m->c, g, m->targets, m->ntargets, &s));
    kn_session_set_step_limit(s, 1000);
    st = kn_session_run(s, given, (uint32_t)c->n + (dyn != NULL), out, n->nout);
    check_status(m, st, kn_error(kn_session_context(s)));
    ran += st == KN_OK;
    for (uint32_t i = 0; st == KN_OK && i < n->nout; i++) kn_tensor_release(out[i].tensor);
    kn_session_free(s);
  }
  kn_graph_release(g);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct sweep {
  machine *m;
  const gen_case *c;
  kn_tensor *const *in;
  kn_attrs_any attrs;
  char text[200];
} sweep;

static void try_now(sweep *s, const kn_field *f, int place, const char *how, double value,
                    const int64_t *dyn) {
  snprintf(s->text, sizeof s->text, "%s: %s[%d] %s %.17g", kn_op_name(s->c->op), f->name, place, how, value);
  saying = s->text;
  const double before = seconds();
  try_op(s->m, s->c, s->in, &s->attrs, dyn, true);
  try_op(s->m, s->c, s->in, &s->attrs, dyn, false);
  ck_assert_msg(seconds() - before < 20, "%s: took %.1f s", saying, seconds() - before);
}

static void sweep_int(sweep *s, const kn_field *f, int64_t *at, int place) {
  const int64_t was = *at;
  const bool axis = f->kind == KN_FIELD_AXIS || f->kind == KN_FIELD_AXES;
  for (size_t i = 0; i < COUNT(wild); i++) {
    *at = wild[i];
    if (!kn_is_dyn(wild[i]))
      try_now(s, f, place, "is", (double)wild[i], NULL); /* as the parser refuses them */
    if (axis || f->kind == KN_FIELD_NUMBER) continue;
    *at = KN_DYN(0);
    try_now(s, f, place, "becomes", (double)wild[i], &wild[i]);
  }
  *at = was;
}

static void sweep_ints(sweep *s, const kn_field *f, kn_ints *at) {
  const kn_ints was = *at;
  for (int i = 0; i < was.n || i == 0; i++) {
    if (at->n == 0) at->n = 1;
    sweep_int(s, f, &at->v[i], i);
    *at = was;
  }
  for (int n = 0; n <= KN_MAX_RANK; n++)
    for (int64_t v = -1; v < 4; v++) {
      *at = (kn_ints){.n = n};
      for (int i = 0; i < n; i++) at->v[i] = v == 3 ? i : v;
      try_now(s, f, n, "all are", (double)v, NULL);
    }
  *at = was;
}

static void sweep_field(sweep *s, const kn_field *f) {
  void *at = kn_field_at(&s->attrs, f);
  const kn_attrs_any was = s->attrs;
  switch (f->kind) {
  case KN_FIELD_TEXT:
  case KN_FIELD_NUMBERS: break; /* of ops of the host: test_capi_op.c */
  case KN_FIELD_INT:
  case KN_FIELD_INDEX:
  case KN_FIELD_AXIS: sweep_int(s, f, at, 0); break;
  case KN_FIELD_AXES:
  case KN_FIELD_INTS:
  case KN_FIELD_SIZES: sweep_ints(s, f, at); break;
  case KN_FIELD_FLOAT:
    for (size_t i = 0; i < COUNT(odd); i++) *(double *)at = odd[i], try_now(s, f, 0, "is", odd[i], NULL);
    break;
  case KN_FIELD_NUMBER:
    for (size_t i = 0; i < COUNT(odd); i++)
      *(kn_number *)at = (kn_number){odd[i], 0}, try_now(s, f, 0, "is", odd[i], NULL);
    for (size_t i = 0; i < COUNT(wild); i++)
      *(kn_number *)at = kn_number_of(wild[i]), try_now(s, f, 0, "is", (double)wild[i], NULL);
    for (size_t i = 0; f->free && i < COUNT(wild); i++)
      *(kn_number *)at = kn_number_waiting(KN_DYN(0)), try_now(s, f, 0, "becomes", (double)wild[i], &wild[i]);
    break;
  case KN_FIELD_BOOL:
    *(bool *)at = !*(bool *)at;
    try_now(s, f, 0, "is", *(bool *)at, NULL);
    break;
  case KN_FIELD_DTYPE:
    for (int d = 0; d < KN_DTYPE_COUNT; d++) *(kn_dtype *)at = (kn_dtype)d, try_now(s, f, 0, "is", d, NULL);
    break;
  case KN_FIELD_ENUM:
    for (int k = 0; f->names[k]; k++)
      if (strcmp(f->names[k], "cuda")) *(int32_t *)at = k, try_now(s, f, 0, "is", k, NULL);
    break;
  }
  s->attrs = was;
}

static void sweep_attributes(const char *backend, kn_dtype floats) {
  machine m;
  start(&m, backend);
  accepted = ran = tried = 0;
  for (size_t i = 0; i < COUNT(gen_cases); i++) {
    const gen_case *c = &gen_cases[i];
    if (kn_ops[c->op].composite || kn_ops[c->op].attrs == KN_ATTRS_none) continue;
    kn_tensor *in[GEN_MAX_IN];
    for (int k = 0; k < c->n; k++) OK(m.c, gen_make(m.c, c, k, floats, &in[k]));
    sweep s = {.m = &m, .c = c, .in = in, .attrs = c->attrs};
    for (const kn_field *f = kn_attrs_describe(kn_ops[c->op].attrs).fields; f->name; f++) sweep_field(&s, f);
    for (int k = 0; k < c->n; k++) kn_tensor_release(in[k]);
  }
  printf("%s: %llu attributes tried, %llu let through, %llu ran\n", backend ? backend : "best",
         (unsigned long long)tried, (unsigned long long)accepted, (unsigned long long)ran);
  ck_assert(ran > 1000 && ran < accepted && accepted < tried);
  stop(&m);
}

/* ---- elements and sizes ---- */

static void try_case(machine *m, const gen_case *c, kn_tensor *const *in, const char *fmt, int k, double v) {
  char text[200];
  snprintf(text, sizeof text, "%s: ", kn_op_name(c->op));
  snprintf(text + strlen(text), sizeof text - strlen(text), fmt, k + 1, v);
  saying = text;
  try_op(m, c, in, &c->attrs, NULL, true);
  try_op(m, c, in, &c->attrs, NULL, false);
}

/* One element, the last one, or all of input k. */
static void sweep_elements(machine *m, const gen_case *c, kn_tensor **in, int k) {
  kn_tensor *t = in[k];
  const kn_dtype d = kn_tensor_dtype(t);
  const int64_t n = kn_tensor_numel(t);
  const size_t count = d == KN_BOOL ? 0 : kn_dtype_is_float(d) ? COUNT(odd) : COUNT(wild);
  char *data = kn_tensor_data(t), *was = malloc(t->storage->bytes + 1);
  memcpy(was, data, t->storage->bytes);
  for (size_t i = 0; i < count && n; i++)
    for (int which = 0; which < 3; which++) {
      for (int64_t e = which == 1 ? n - 1 : 0; e < (which ? n : 1); e++)
        if (kn_dtype_is_float(d))
          kn_element_put_float(d, data + e * (int64_t)kn_dtype_size(d), odd[i]);
        else
          kn_element_put_int(d, data + e * (int64_t)kn_dtype_size(d), wild[i]);
      try_case(m, c, in, "elements of input %d are %.17g", k,
               kn_dtype_is_float(d) ? odd[i] : (double)wild[i]);
      memcpy(data, was, t->storage->bytes);
    }
  free(was);
}

/* Input k of other sizes than the others go with. */
static void sweep_sizes(machine *m, const gen_case *c, kn_tensor **in, int k, kn_dtype floats) {
  for (int d = 0; d <= c->in[k].rank; d++)
    for (int64_t size = 0; size < 6; size++) {
      gen_case other = *c;
      if (d < c->in[k].rank)
        other.in[k].dims[d] = size;
      else if (size < 2 && other.in[k].rank < KN_MAX_RANK) /* a dim more, or one less */
        other.in[k].dims[other.in[k].rank] = 2, other.in[k].rank += size ? 1 : other.in[k].rank ? -1 : 0;
      kn_tensor *was = in[k];
      OK(m->c, gen_make(m->c, &other, k, floats, &in[k]));
      try_case(m, c, in, "input %d has another size %g", k, (double)size);
      kn_tensor_release(in[k]);
      in[k] = was;
    }
}

static void sweep_inputs(const char *backend, kn_dtype floats) {
  machine m;
  start(&m, backend);
  accepted = ran = tried = 0;
  for (size_t i = 0; i < COUNT(gen_cases); i++) {
    const gen_case *c = &gen_cases[i];
    if (kn_ops[c->op].composite) continue;
    kn_tensor *in[GEN_MAX_IN];
    for (int k = 0; k < c->n; k++) OK(m.c, gen_make(m.c, c, k, floats, &in[k]));
    for (int k = 0; k < c->n; k++) {
      sweep_elements(&m, c, in, k);
      sweep_sizes(&m, c, in, k, floats);
    }
    for (int k = 0; k < c->n; k++) kn_tensor_release(in[k]);
  }
  printf("%s: %llu inputs tried, %llu let through, %llu ran\n", backend ? backend : "best",
         (unsigned long long)tried, (unsigned long long)accepted, (unsigned long long)ran);
  ck_assert(ran > 1000 && ran < accepted && accepted < tried);
  stop(&m);
}

START_TEST(attributes_best) {
  sweep_attributes(NULL, KN_F32);
  sweep_attributes(NULL, KN_BF16);
}
END_TEST
START_TEST(attributes_cpu) {
  sweep_attributes("cpu", KN_F32);
  sweep_attributes("cpu", KN_F64);
}
END_TEST
START_TEST(attributes_ref) {
  sweep_attributes("ref", KN_F32);
  sweep_attributes("ref", KN_F16);
}
END_TEST

/* ---- what is no op: %k is any integer, %f any float ---- */

static const char *const bodies[] = {
    "  %l: list[float32[2]] = list\n  %m = append %l, %x\n  %y = element %m, %k\n  return %y\n",
    "  %l: list[float32[2]] = list\n  %m = append %l, %x\n  %n = first %m, %k\n  %y = list_stack %n\n  "
    "return %y\n",
    "  %l: list[float32[2]] = list\n  %m = with_added %l, %k, %one, %x\n  %n = length %m\n  return %n\n",
    "  %l: list[float32[2]] = list\n  %m = with_added %l, %one, %k, %x\n  %n = length %m\n  return %n\n",
    "  %l: list[integer] = list\n  %m = append %l, %k\n  %n = every_second %m\n  %o = every_second %n\n"
    "  %y = element %o, %one\n  return %y\n",
    "  %l: list[float32[2]] = list\n  %m = append %l, %x\n  %n = sum_of_lists %m, %l\n  %o = sum_of_lists "
    "%n, %m\n"
    "  %y = element %o, %one\n  %b = bytes %o\n  return %y, %b\n",
    "  %y = checkpoint_after %k, %one\n  %z = checkpoint_after %one, %k\n  %w = checkpoint_after %k, %k\n  "
    "return %y, %z, %w\n",
    "  %y = for_count %k, %one, %one\n  %s = for_skip %k, %one, %one\n  return %y, %s\n",
    "  %y = for_count %one, %k, %k\n  %s = for_skip %one, %k, %k\n  return %y, %s\n",
    "  %y = lua.idiv %k, %k\n  %z = lua.mod %one, %k\n  %s = lua.shl %one, %k\n  %t = lua.shr %k, %k\n  %u = "
    "lua.unm %k\n"
    "  return %y, %z, %s, %t, %u\n",
    "  %y = lua.idiv %k, %f\n  %z = lua.mod %k, %f\n  %p = lua.pow %k, %f\n  %q = lua.floor %f\n  return %y, "
    "%z, %p, %q\n",
    "  %y = lua.shl %one, %f\n  return %y\n",
    "  %t: int8[] = to_tensor %k\n  %u: uint8[] = to_tensor %f\n  %v: float16[] = to_tensor %k\n  %b: bool[] "
    "= to_tensor %f\n"
    "  %i = item %t\n  return %i, %u, %v, %b\n",
    "  %t: int64[] = to_tensor %k\n  %i = reshape %t {sizes = {1}}\n  %y = index_select %x, %i {dim = 1}\n  "
    "return %y\n",
    "  %y = reshape %x {sizes = {%k}}\n  %i = item %y\n  return %i\n",
    "  %i = item %x\n  return %i\n",
    "  print %k, %f, %x \"%d %x %o %c %5.3f %s\\n\"\n  return\n",
    "  print %k, %k, %k, %k, %k, %k \"%99d %-99d %099d %.99d % d %+d\\n\"\n  return\n",
    "  print %f, %f, %f, %f, %f, %f \"%99.99f %.99g %.99e %a %99.99s %w\\n\"\n  return\n",
    "  raise %k \"%s\"\n  return\n",
    "  %c = lua.lt %k, %one\n  assert %c, %f \"%.3f\"\n  return\n",
    "  %c = attempt\n  %y: integer = if %c {\n    %a = lua.idiv %k, %k\n    yield %a\n  } else {\n    %b = "
    "caught\n"
    "    yield %b\n  }\n  return %y, text{\"%m and %d\", %y, %k}\n",
    "  %b = caught\n  return text{\"%m\", %b}\n",
    "  return text{\"%m\", %k}\n",
    "  return one_of{%k, %x, %one, nil}\n",
    "  %n: integer = loop (%i: integer = %k, %l: integer = %one) {\n    %j = lua.sub %i, %one\n    %m = "
    "lua.add %l, %one\n"
    "    %c = lua.lt %one, %j\n    continue_if %c next(%j, %m) exit(%m)\n  }\n  %y = full {sizes = {%n, "
    "1000}, value = 1.0}\n"
    "  return %y\n",
    "  %s = slice %x {dim = 1, start = %k, stop = %k}\n  %t = slice %x {dim = 1, step = %k}\n  return %s, "
    "%t\n",
    "  %s = strided %x {sizes = {%k}, strides = {1}}\n  return %s\n",
    "  %s = strided %x {sizes = {2}, strides = {%k}}\n  %t = neg %s\n  return %t\n",
    "  %s = strided %x {sizes = {1}, strides = {1}, offset = %k}\n  return %s\n",
    "  need %x strides {9223372036854775807}\n  return %x\n",
    "  update %x, %x\n  return %x\n",
};

static void check_texts(machine *m, const kn_graph *g, kn_session *s, const kn_rvalue *out) {
  for (uint32_t i = 0; i < g->nresults; i++)
    if (g->results[i].kind == KN_TREE_TEXT) {
      const char *t;
      size_t n;
      check_status(m, kn_session_text(s, &g->results[i], out, &t, &n), kn_error(kn_session_context(s)));
    }
}

START_TEST(what_is_no_op) {
  machine m;
  start(&m, NULL);
  int refused = 0;
  accepted = ran = tried = 0;
  for (size_t i = 0; i < COUNT(bodies); i++) {
    char text[1000];
    kn_graph *g;
    kn_session *s;
    snprintf(text, sizeof text,
             "graph g(%%x: float32[2], %%k: integer, %%f: float) {\n%s  %%one = const 1\n%s}\n",
             strncmp(bodies[i], "  need", 6) ? "" : "  need %x strides {9223372036854775807}\n",
             strncmp(bodies[i], "  need", 6) ? bodies[i] : strchr(bodies[i], '\n') + 1);
    saying = bodies[i];
    kn_status st = kn_graph_parse(m.c, text, strlen(text), &g);
    if (st != KN_OK) {
      ck_assert_msg(st == KN_FORMAT, "%s: %s", bodies[i], kn_error(m.c));
      refused++;
      continue;
    }
    for (size_t v = 0; v < COUNT(wild); v++) {
      kn_tensor *x = make(m.c, KN_F32, DIMS(2), LIST(1, odd[v % COUNT(odd)]));
      kn_rvalue in[3] = {T(x), INT(wild[v]), NUM(odd[v % COUNT(odd)])}, out[8];
      OK(m.c, kn_session_new(m.c, g, m.targets, m.ntargets, &s));
      kn_session_set_step_limit(s, 20000);
      st = kn_session_run(s, in, 3, out, g->body->nyields);
      check_status(&m, st, kn_error(kn_session_context(s)));
      tried++;
      ran += st == KN_OK;
      if (st == KN_OK) check_texts(&m, g, s, out);
      for (uint32_t k = 0; st == KN_OK && k < g->body->nyields; k++) kn_tensor_release(out[k].tensor);
      kn_session_free(s);
      kn_tensor_release(x);
    }
    kn_graph_release(g);
  }
  ck_assert_msg(refused <= 4, "%d of the graphs are no graphs", refused);
  ck_assert(ran > 200 && ran < tried);
  stop(&m);
}
END_TEST

START_TEST(inputs_best) {
  sweep_inputs(NULL, KN_F32);
  sweep_inputs(NULL, KN_BF16);
}
END_TEST
START_TEST(inputs_cpu) {
  sweep_inputs("cpu", KN_F32);
  sweep_inputs("cpu", KN_F64);
}
END_TEST
START_TEST(inputs_ref) {
  sweep_inputs("ref", KN_F32);
  sweep_inputs("ref", KN_F16);
}
END_TEST

SUITE("hostile", what_is_no_op, attributes_ref, attributes_cpu, attributes_best, inputs_ref, inputs_cpu,
      inputs_best)
