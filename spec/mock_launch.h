/* A target that runs pieces of plans as one, on the CPU or on spec/fake_device.h: plain kernels, and a
 * launcher that keeps the piece's program and walks it at each launch, with cells of its own, as a device
 * would. It writes down the programs that it is given. */
#ifndef SPEC_MOCK_LAUNCH_H
#define SPEC_MOCK_LAUNCH_H
#include "core/device.h"
#include "core/kernels/kernel.h"
#include "graph/range.h"
#include "graph/scalar.h"
#include "graph/whole.h"
#include "graph/writer.h"
#include "spec/tensors.h"

typedef struct mock {
  kn_target target;
  uint64_t seed, drawn; /* not 0: it refuses some nodes, so that pieces are cut at random */
  bool unable;          /* no piece can be made */
  int hates;            /* 1 + an op of which none can be made, though it says that it supports it; 0: none */
  int made, launches, waits, trips, branches;
  char text[8000]; /* the last program */
} mock;

struct kn_program {
  uint32_t n;
  const kn_node *const *nodes;
  bool *open;
};

static inline kn_status mock_compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  char why[64];
  (void)self, (void)ctx;
  *out = calloc(1, sizeof **out);
  **out = (kn_program){part->n, part->nodes, calloc(part->n, 1)};
  for (uint32_t i = 0; i < part->n; i++)
    (*out)->open[i] = !kn_node_static(part->nodes[i], part->types, why, sizeof why);
  return KN_OK;
}

static inline kn_status mock_run_part(void *self, kn_context *ctx, kn_program *p, kn_tensor **vals,
                                      const kn_scalar *scalars) {
  const bool eager = ((mock *)self)->target.device != KN_CPU;
  const char *impl;
  for (uint32_t i = 0; i < p->n; i++) {
    kn_status st = kn_node_run(ctx, p->nodes[i], p->open[i], eager || p->open[i], vals, scalars, &impl);
    if (st != KN_OK) return kn_node_failed(ctx, p->nodes[i], st);
  }
  return KN_OK;
}

static inline void mock_free_part(void *self, kn_context *ctx, kn_program *p) {
  (void)self, (void)ctx;
  free(p->open);
  free(p);
}

static inline bool mock_takes(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                              size_t size) {
  (void)self, (void)ctx, (void)n, (void)types, (void)why, (void)size;
  return true;
}

static inline void mock_put(kn_context *ctx, const kn_scalar *s, kn_tensor *t) {
  kn_tensor *here;
  OK(ctx, kn_scalar_tensor(ctx, s, kn_tensor_dtype(t), &here));
  OK(ctx, kn_kernel_to_device(ctx, &(kn_attrs_device){.device = t->type.device}, &here, 1, &t));
  kn_tensor_release(here);
}

struct kn_launch {
  const kn_plan *plan;
  kn_scalar *cells;
  uint32_t ncells;
  kn_watch *watch; /* of the launch under way; NULL */
};

static inline bool mock_supports(void *self, const kn_node *n, char *why, size_t size) {
  mock *m = self;
  (void)n;
  if (!m->seed || kn_random_word(m->seed, 9, m->drawn++) % 8) return true;
  return snprintf(why, size, "not to its taste"), false;
}

static inline void mock_fault(kn_scalar *c, const kn_whole *w, uint32_t i) {
  if (c[KN_CELL_FAULT].as.i) return;
  c[KN_CELL_FAULT] = (kn_scalar){KN_SCALAR_INT, {.i = 1 + (int64_t)i}};
  for (uint32_t k = 0; k < w->numbers[i].nin; k++) c[KN_CELL_OPERAND + k] = c[w->numbers[i].in[k]];
}

static inline void mock_number(kn_context *ctx, const kn_whole *w, kn_scalar *c, uint32_t i) {
  const kn_whole_number *x = &w->numbers[i];
  kn_scalar in[3];
  bool fine = true;
  for (uint32_t k = 0; k < x->nin; k++) in[k] = c[x->in[k]];
  switch (x->kind) {
  case KN_NUMBER_EVAL: fine = kn_scalar_eval(ctx, x->op, in, x->nin, &c[x->out]) == KN_OK; break;
  case KN_NUMBER_MOVE: c[x->out] = in[0]; break;
  case KN_NUMBER_WHEN:
    if (in[1].as.b) c[x->out] = in[0];
    break;
  case KN_NUMBER_READ: OK(ctx, kn_scalar_of(ctx, x->tensor, &c[x->out])); break;
  case KN_NUMBER_WRITE:
    fine = kn_scalar_check(ctx, &in[0], kn_tensor_dtype(x->tensor)) == KN_OK;
    if (fine) mock_put(ctx, &in[0], x->tensor);
    break;
  case KN_NUMBER_CHECK: fine = in[0].as.b; break;
  case KN_NUMBER_FAIL: fine = false; break;
  case KN_NUMBER_POSITION:
    fine = in[0].kind == KN_SCALAR_INT && in[0].as.i >= -x->size && in[0].as.i < x->size;
    c[x->out] = (kn_scalar){KN_SCALAR_INT, {.i = !fine ? 0 : in[0].as.i + (in[0].as.i < 0 ? x->size : 0)}};
    break;
  case KN_NUMBER_ELEMENT:
    fine = in[0].as.i >= 1 && in[0].as.i <= in[1].as.i;
    c[x->out] = (kn_scalar){KN_SCALAR_INT, {.i = fine ? in[0].as.i - 1 : 0}};
    break;
  case KN_NUMBER_KEEP:
    if (c[KN_CELL_FAULT].as.i == 1 + x->size) c[x->out] = in[0];
    break;
  }
  if (!fine) mock_fault(c, w, i);
}

static inline bool mock_again(const kn_launch *l, bool more) {
  kn_watch *watch = l->watch;
  int64_t *fault = &l->cells[KN_CELL_FAULT].as.i;
  if (watch && watch->budget) watch->trips++;
  if (!more || *fault) return false;
  if (watch && watch->budget && watch->trips >= watch->budget)
    *fault = KN_FAULT_LIMIT;
  else if (watch && watch->ask && (watch->said = watch->ask(watch->ud)) != KN_OK)
    *fault = KN_FAULT_STOPPED;
  return !*fault;
}

/* Is it what the plan says that it may be? */
static inline void mock_in_range(const kn_plan *p, const kn_whole_number *x, const kn_scalar *c) {
  if (x->kind != KN_NUMBER_EVAL || !x->node->nout || c[KN_CELL_FAULT].as.i) return;
  const kn_range r = kn_range_of(p, x->node->out[0]);
  const kn_scalar *s = &c[x->out];
  if (s->kind == KN_SCALAR_FLOAT) return;
  const int64_t i = s->kind == KN_SCALAR_BOOL ? s->as.b : s->as.i;
  ck_assert_msg(i >= r.low && i <= r.high, "%s is %lld, not from %lld to %lld",
                kn_opcode_describe(x->op).text, (long long)i, (long long)r.low, (long long)r.high);
}

/* A place that a cell says. */
static inline kn_status mock_place(kn_context *ctx, const kn_whole_step *s, int64_t at) {
  const kn_attrs_select attrs = {.dim = s->a, .index = at};
  kn_tensor *view, *both[2] = {s->to, s->from};
  ck_assert(at >= 0 && at < (s->kind == KN_WHOLE_PUT ? s->to : s->from)->type.dims[s->a]);
  if (s->kind == KN_WHOLE_PUT) return kn_device_run(ctx, KN_OP_select_put, &attrs, both, 2, &s->to, NULL);
  kn_type type = s->to->type;
  KN_TRY(kn_tensor_symbolic(ctx, &type, NULL, &view));
  kn_status st = kn_device_run(ctx, KN_OP_select, &attrs, &both[1], 1, &view, NULL);
  if (st == KN_OK) st = kn_node_copy(ctx, view, s->to);
  kn_tensor_release(view);
  return st;
}

static inline kn_status mock_block(mock *m, kn_context *ctx, kn_launch *l, const kn_whole *w,
                                   uint32_t block) {
  kn_scalar *c = l->cells;
  for (uint32_t i = 0; i < w->blocks[block].n; i++) {
    const kn_whole_step *s = &w->blocks[block].steps[i];
    const kn_part_plan *part = &l->plan->parts[s->a];
    switch (s->kind) {
    case KN_WHOLE_PART:
      KN_TRY(part->target->run(part->target->self, ctx, part->program, w->vals, NULL));
      break;
    case KN_WHOLE_NUMBERS:
      for (uint32_t k = s->a; k < s->a + s->b; k++) {
        mock_number(ctx, w, c, k);
        mock_in_range(l->plan, &w->numbers[k], c);
      }
      break;
    case KN_WHOLE_COPY:
      ck_assert(kn_tensor_contiguous(s->to) && kn_type_equal(&s->to->type, &s->from->type));
      KN_TRY(kn_node_copy(ctx, s->from, s->to));
      break;
    case KN_WHOLE_ZERO:
      KN_TRY(kn_device_run(ctx, KN_OP_full_like, &(kn_attrs_value){0}, &s->to, 1, &s->to, NULL));
      break;
    case KN_WHOLE_PICK:
    case KN_WHOLE_PUT: KN_TRY(mock_place(ctx, s, c[s->cell].as.i)); break;
    case KN_WHOLE_IF:
      ck_assert(c[KN_CELL_FAULT].as.i || c[s->cell].kind == KN_SCALAR_BOOL);
      m->branches++;
      KN_TRY(mock_block(m, ctx, l, w, c[s->cell].as.b ? s->a : s->b));
      break;
    case KN_WHOLE_LOOP:
      do {
        m->trips++;
        KN_TRY(mock_block(m, ctx, l, w, s->a));
      } while (mock_again(l, c[s->cell].as.b));
      break;
    }
  }
  return KN_OK;
}

static inline bool mock_has_part(const kn_whole *w, uint32_t part) {
  for (uint32_t b = 0; b < w->nblocks; b++)
    for (uint32_t i = 0; i < w->blocks[b].n; i++)
      if (w->blocks[b].steps[i].kind == KN_WHOLE_PART && w->blocks[b].steps[i].a == part) return true;
  return false;
}

static inline kn_status mock_make(void *self, kn_context *ctx, const kn_plan *p, const kn_whole *w,
                                  kn_launch **out, const kn_node **culprit) {
  mock *m = self;
  kn_writer o = {.heap = ctx->heap};
  for (uint32_t i = 0; m->hates && i < p->nparts; i++)
    for (uint32_t k = 0; mock_has_part(w, i) && k < p->parts[i].n; k++)
      if (p->parts[i].nodes[k]->op + 1 == m->hates) *culprit = p->parts[i].nodes[k];
  if (*culprit) return kn_fail(ctx, KN_UNSUPPORTED, "one of them cannot be a part of it");
  if (m->unable) return kn_fail(ctx, KN_UNSUPPORTED, "there is no room for it");
  kn_whole_print(p, w, &o);
  snprintf(m->text, sizeof m->text, "%.*s", (int)o.n, o.p ? o.p : "");
  kn_writer_free(&o);
  *out = calloc(1, sizeof **out);
  **out = (kn_launch){p, calloc(w->ncells, sizeof(kn_scalar)), w->ncells, NULL};
  m->made++;
  return KN_OK;
}

static inline kn_status mock_run(void *self, kn_context *ctx, kn_launch *l, kn_whole *w, bool fresh,
                                 bool wait, kn_watch *watch) {
  mock *m = self;
  l->watch = watch;
  if (fresh) memcpy(l->cells, w->cells, w->ncells * sizeof *l->cells);
  m->launches++;
  KN_TRY(mock_block(m, ctx, l, w, 0));
  m->waits += wait;
  if (w->random) memcpy(&l->cells[w->random], &ctx->random, sizeof ctx->random);
  if (wait) memcpy(w->cells, l->cells, w->ncells * sizeof *l->cells);
  return KN_OK;
}

static inline void mock_free(void *self, kn_context *ctx, kn_launch *l) {
  (void)self, (void)ctx;
  free(l->cells);
  free(l);
}

/* In place: the target points to it. `seed` 0: it refuses nothing. */
static inline void mock_init(mock *m, kn_device_id device, uint64_t seed) {
  static const kn_launcher launcher = {mock_supports, mock_make, mock_run, mock_free};
  *m = (mock){.seed = seed};
  m->target = (kn_target){.name = "mock",
                          .device = device,
                          .launcher = &launcher,
                          .supports = mock_takes,
                          .compile = mock_compile,
                          .run = mock_run_part,
                          .free = mock_free_part,
                          .self = m};
}

#endif
