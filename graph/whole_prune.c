/* Numbers of a piece that nobody reads, as those of assertions that always hold: the device need not compute
 * them. */
#include "graph/whole.h"

typedef struct pruning {
  kn_whole *w;
  bool *read;     /* by cell */
  uint32_t *left; /* by number: where it goes */
  bool more;      /* a cell was found that is read */
} pruning;

static void reads(pruning *q, uint32_t cell) {
  q->more |= !q->read[cell];
  q->read[cell] = true;
}

static bool stays(const pruning *q, const kn_whole_number *x) {
  return x->faults || x->kind == KN_NUMBER_WRITE || x->kind == KN_NUMBER_KEEP || q->read[x->out];
}

static void find_read(pruning *q) {
  const kn_whole *w = q->w;
  for (uint32_t i = 0; i < w->nexports; i++) reads(q, KN_CELL_EXPORTS + i);
  for (uint32_t b = 0; b < w->nblocks; b++)
    for (uint32_t i = 0; i < w->blocks[b].n; i++)
      if (w->blocks[b].steps[i].kind != KN_WHOLE_NUMBERS) reads(q, w->blocks[b].steps[i].cell);
  do {
    q->more = false;
    for (uint32_t i = w->nnumbers; i-- > 0;)
      for (uint32_t k = 0; stays(q, &w->numbers[i]) && k < w->numbers[i].nin; k++)
        reads(q, w->numbers[i].in[k]);
  } while (q->more);
}

static void move_numbers(pruning *q) {
  kn_whole *w = q->w;
  uint32_t n = 0;
  for (uint32_t i = 0; i < w->nnumbers; i++) {
    q->left[i] = n;
    if (stays(q, &w->numbers[i])) w->numbers[n++] = w->numbers[i];
  }
  q->left[w->nnumbers] = n;
  for (uint32_t i = 0; i < n; i++)
    if (w->numbers[i].kind == KN_NUMBER_KEEP) w->numbers[i].size = q->left[w->numbers[i].size];
  w->nnumbers = n;
}

static void move_steps(const pruning *q, kn_whole_block *b) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < b->n; i++) {
    kn_whole_step s = b->steps[i];
    if (s.kind == KN_WHOLE_NUMBERS) {
      const uint32_t first = q->left[s.a];
      s.b = q->left[s.a + s.b] - first;
      s.a = first;
      if (!s.b) continue;
    }
    b->steps[n++] = s;
  }
  b->n = n;
}

kn_status kn_whole_prune(kn_context *ctx, kn_whole *w) {
  pruning q = {.w = w,
               .read = kn_calloc(ctx->heap, w->ncells + 1u, sizeof *q.read),
               .left = kn_calloc(ctx->heap, w->nnumbers + 1u, sizeof *q.left)};
  const bool room = q.read && q.left;
  const size_t bytes = (w->nnumbers + 1u) * sizeof *q.left;
  if (room) {
    find_read(&q);
    move_numbers(&q);
    for (uint32_t b = 0; b < w->nblocks; b++) move_steps(&q, &w->blocks[b]);
  }
  kn_free(ctx->heap, q.read, w->ncells + 1u);
  kn_free(ctx->heap, q.left, bytes);
  return room ? KN_OK : kn_fail_nomem(ctx, bytes);
}
