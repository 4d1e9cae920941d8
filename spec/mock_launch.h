/* A target that runs pieces of plans as one, without a device: the reference's kernels, and a launcher that
 * keeps the piece's program and walks it at each launch, with cells of its own, as a device would. It writes
 * down the programs that it is given. */
#ifndef SPEC_MOCK_LAUNCH_H
#define SPEC_MOCK_LAUNCH_H
#include "backends/ref/ref.h"
#include "graph/scalar.h"
#include "graph/whole.h"
#include "graph/writer.h"
#include "spec/tensors.h"

typedef struct mock {
  kn_target target;
  uint64_t seed, drawn; /* not 0: it refuses some nodes, so that pieces are cut at random */
  int made, launches, waits, trips, branches;
  char text[8000]; /* the last program */
} mock;

struct kn_launch {
  const kn_plan *plan;
  kn_scalar *cells;
  uint32_t ncells;
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
  case KN_NUMBER_READ: c[x->out] = kn_scalar_read(x->tensor); break;
  case KN_NUMBER_WRITE:
    fine = kn_scalar_check(ctx, &in[0], kn_tensor_dtype(x->tensor)) == KN_OK;
    if (fine) kn_scalar_write(&in[0], x->tensor);
    break;
  case KN_NUMBER_CHECK: fine = in[0].as.b; break;
  case KN_NUMBER_FAIL: fine = false; break;
  }
  if (!fine) mock_fault(c, w, i);
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
      for (uint32_t k = s->a; k < s->a + s->b; k++) mock_number(ctx, w, c, k);
      break;
    case KN_WHOLE_COPY: {
      kn_tensor *from = s->from, *to = s->to;
      ck_assert(kn_tensor_contiguous(to) && kn_type_equal(&to->type, &from->type));
      KN_TRY(kn_ops[KN_OP_clone].kernel(ctx, NULL, &from, 1, &to));
      break;
    }
    case KN_WHOLE_IF:
      ck_assert(c[KN_CELL_FAULT].as.i || c[s->cell].kind == KN_SCALAR_BOOL);
      m->branches++;
      KN_TRY(mock_block(m, ctx, l, w, c[s->cell].as.b ? s->a : s->b));
      break;
    case KN_WHOLE_LOOP:
      do {
        m->trips++;
        KN_TRY(mock_block(m, ctx, l, w, s->a));
      } while (c[s->cell].as.b && !c[KN_CELL_FAULT].as.i);
      break;
    }
  }
  return KN_OK;
}

static inline kn_status mock_make(void *self, kn_context *ctx, const kn_plan *p, const kn_whole *w,
                                  kn_launch **out) {
  mock *m = self;
  kn_writer o = {.heap = ctx->heap};
  kn_whole_print(p, w, &o);
  snprintf(m->text, sizeof m->text, "%.*s", (int)o.n, o.p ? o.p : "");
  kn_writer_free(&o);
  *out = calloc(1, sizeof **out);
  **out = (kn_launch){p, calloc(w->ncells, sizeof(kn_scalar)), w->ncells};
  m->made++;
  return KN_OK;
}

static inline kn_status mock_run(void *self, kn_context *ctx, kn_launch *l, kn_whole *w, bool fresh,
                                 bool wait) {
  mock *m = self;
  const uint32_t seen = KN_CELL_EXPORTS + w->nexports;
  if (fresh) memcpy(l->cells, w->cells, w->ncells * sizeof *l->cells);
  m->launches++;
  KN_TRY(mock_block(m, ctx, l, w, 0));
  m->waits += wait;
  if (wait) memcpy(w->cells, l->cells, seen * sizeof *l->cells);
  return KN_OK;
}

static inline void mock_free(void *self, kn_context *ctx, kn_launch *l) {
  (void)self, (void)ctx;
  free(l->cells);
  free(l);
}

/* In place: the target points to it. `seed` 0: it refuses nothing. */
static inline void mock_init(mock *m, kn_context *c, uint64_t seed) {
  static const kn_launcher launcher = {mock_supports, mock_make, mock_run, mock_free};
  *m = (mock){.seed = seed};
  ck_assert(kn_ref_backend.target(c, NULL, &m->target));
  m->target.name = "mock";
  m->target.launcher = &launcher;
  m->target.self = m;
}

#endif
