/* Running the strands of a section: on several threads where the last run says that this pays. A strand has a
 * context of its own, and nobody sees what it does before the section has ended; so where one fails, all of
 * it is run again in the order of the program, which then says or catches what is wrong. See run.h. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "core/parallel.h"
#include "graph/run.h"
#include <time.h>

enum { REST = 15, AGAIN = 256 };

struct kn_gang {
  run *r;
  kn_section *x;
  uint64_t before;   /* steps of the run so far */
  atomic_uint next;  /* in the section's order */
  atomic_bool stop;  /* one has failed */
  atomic_flag asks;  /* one asks the host … */
  kn_status stopped; /* … who has said so */
};
typedef struct kn_gang gang;

/* As of a run in order, but for the count: of this strand alone. All of them are counted together when the
 * section has ended. */
kn_status kn_gang_tick(run *r) {
  gang *g = r->gang;
  kn_session *s = r->s;
  if (atomic_load_explicit(&g->stop, memory_order_relaxed)) return KN_CANCELLED;
  if (s->limit && g->before + r->steps >= s->limit) return KN_LIMIT;
  if ((s->poll || s->due > 0) && !atomic_flag_test_and_set_explicit(&g->asks, memory_order_acquire)) {
    if (g->stopped == KN_OK) g->stopped = kn_run_ask_host(s);
    kn_status st = g->stopped;
    atomic_flag_clear_explicit(&g->asks, memory_order_release);
    if (st != KN_OK) return st;
  }
  r->steps++;
  return KN_OK;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void run_strand(gang *g, kn_strand *x) {
  run inside = {.s = g->r->s, .p = g->r->p, .ctx = x->ctx, .gang = g, .quiet = g->r->quiet};
  x->ctx->random = x->random;
  double start = now();
  x->status = kn_run_block(&inside, x->block);
  x->ns = now() - start;
  x->steps = inside.steps;
  if (x->status != KN_OK) atomic_store(&g->stop, true);
}

/* Whoever is free takes the next. */
static void work(void *ud, int64_t begin, int64_t end) {
  gang *g = ud;
  (void)begin, (void)end;
  for (;;) {
    unsigned i = atomic_fetch_add(&g->next, 1);
    if (i >= g->x->n) return;
    run_strand(g, &g->x->strands[g->x->order[i]]);
  }
}

static bool goes_first(const kn_strand *a, const kn_strand *b) {
  return a->group == b->group && a->ns > b->ns;
}

static void sort(kn_section *x) {
  for (uint32_t i = 1; i < x->n; i++) {
    uint32_t o = x->order[i], k = i;
    for (; k && goes_first(&x->strands[o], &x->strands[x->order[k - 1]]); k--) x->order[k] = x->order[k - 1];
    x->order[k] = o;
  }
}

/* Whatever was faster lately; now and then the other, since that may change with what else the machine does.
 * The first run makes things that the later ones find. */
static bool pays(const kn_context *ctx, const kn_section *x, int64_t threads) {
  if (threads < 2 || !kn_heap_is_own(ctx->heap) || ctx->runs) return false;
  if (ctx->beside == KN_BESIDE_ALWAYS) return true;
  if (x->runs < 3) return x->runs != 1;
  bool beside = x->took[1] < x->took[0];
  return x->runs % AGAIN ? beside : !beside;
}

static void note(kn_section *x, bool beside, double ns) {
  double *took = &x->took[beside];
  if (x->runs) *took = *took > 0 ? (3 * *took + ns) / 4 : ns;
  x->runs = x->runs == UINT32_MAX ? AGAIN + 1 : x->runs + 1;
}

static kn_status run_in_order(run *r, const kn_section *x) {
  for (uint32_t i = 0; i < x->n; i++) KN_TRY(kn_run_block(r, x->strands[i].block));
  return KN_OK;
}

/* Each strand forks its streams from where those of the strands before it have left the stream outside. */
static kn_random give_streams(kn_section *x, kn_random from) {
  for (uint32_t i = 0; i < x->n; i++) {
    x->strands[i].random = from;
    x->strands[i].status = KN_OK;
    for (uint32_t k = 0; k < x->strands[i].streams; k++) kn_random_split(&from);
  }
  return from;
}

static const kn_node *first_node(const kn_plan *p, const kn_section *x) {
  for (uint32_t i = 0; i < x->n; i++)
    if (p->blocks[x->strands[i].block].n) return p->blocks[x->strands[i].block].steps[0].node;
  return NULL;
}

static kn_status end(gang *g, kn_random random) {
  run *r = g->r;
  kn_session *s = r->s;
  kn_section *x = g->x;
  if (g->stopped != KN_OK) return kn_run_stop(r, g->stopped, first_node(r->p, x));
  if (atomic_load(&g->stop)) { /* errors that the graph catches may come again */
    x->rest = REST;
    return run_in_order(r, x);
  }
  for (uint32_t i = 0; i < x->n; i++) s->steps += x->strands[i].steps;
  if (s->limit && s->steps > s->limit) return kn_run_stop(r, KN_LIMIT, first_node(r->p, x));
  r->ctx->random = random;
  return KN_OK;
}

/* What tells of each node, or asks after it, is told in order. */
kn_status kn_run_section(run *r, kn_section *x) {
  kn_session *s = r->s;
  x->rest -= x->rest > 0;
  if (s->profile || s->observe || r->ctx->debug || x->rest || r->ctx->beside == KN_BESIDE_NEVER)
    return run_in_order(r, x);
  gang g = {.r = r, .x = x, .before = s->steps, .asks = ATOMIC_FLAG_INIT};
  kn_random random = give_streams(x, r->ctx->random);
  int64_t threads = r->ctx->threads < (int)x->n ? r->ctx->threads : (int)x->n;
  sort(x);
  const bool beside = pays(r->ctx, x, threads);
  const double start = now();
  if (beside) {
    r->p->beside = true;
    kn_parallel_for(r->ctx, threads, 1, work, &g);
    r->p->beside = false;
    s->beside++;
  } else
    work(&g, 0, 1);
  if (!atomic_load(&g.stop)) note(x, beside, now() - start);
  return end(&g, random);
}
