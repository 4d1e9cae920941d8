/* Profiles: what each node of a graph takes when a session runs it. A session that is profiled runs its real
 * plan and reads the clock around each step; targets tell of each node by kn_log_node, as for
 * KILN_DEBUG=exec. Collected by profile.c, put together by lines and as text by profile_report.c, as a trace
 * by profile_trace.c. Nothing here is asked about in a run that is not profiled, but one branch a step. */
#ifndef KN_PROFILE_H
#define KN_PROFILE_H
#include "core/arena.h"
#include "graph/cost.h"
#include "graph/exec.h"
#include "graph/writer.h"

typedef struct kn_profile kn_profile;

typedef struct kn_profile_options {
  uint32_t runs; /* that are timed; 0: 10 */
  bool nodes;    /* every node alone: nothing is fused, as for observers */
} kn_profile_options;
enum { KN_PROFILE_RUNS = 10, KN_PROFILE_MOST_RUNS = 1000000 };

/* A node, or several that one call of a backend computed together. Seconds. */
typedef struct kn_profile_row {
  const kn_node **nodes; /* the graph's; n of them */
  uint32_t n;
  uint32_t depth;      /* regions around it */
  uint64_t calls;      /* how often it ran */
  uint64_t trips;      /* of a loop */
  double total;        /* of all runs, regions included */
  double own;          /* of all runs, regions excluded */
  double median;       /* of `own` in a run; the mean, where most runs did not get there */
  kn_cost cost;        /* of all calls of all runs; values that never leave the group count no bytes */
  const char *backend; /* NULL: it never ran, or the executor itself does it */
  const char *impl;
  bool fixed;     /* `each` is known */
  kn_cost each;   /* of a call */
  kn_cost *alone; /* by node: of a call, were it alone; zero where only a run knows */
} kn_profile_row;

/* What was computed for a line of the program. */
typedef struct kn_profile_line {
  const kn_where *where; /* NULL: nodes without a place */
  uint32_t nodes;
  uint64_t calls; /* of the node that ran most often */
  double own, median;
  kn_cost cost;
} kn_profile_line;

/* Something that took time, for the trace; in the order in which they began. */
typedef enum kn_profile_event_kind {
  KN_PROFILE_RUN,
  KN_PROFILE_PART, /* consecutive nodes of one backend; index: the first one's row */
  KN_PROFILE_ROW,  /* index: the row */
  KN_PROFILE_TRIP  /* index: the loop's row */
} kn_profile_event_kind;
typedef struct kn_profile_event {
  double start, length;
  uint32_t index;
  uint8_t kind;
} kn_profile_event;
enum { KN_PROFILE_EVENTS = 100000 }; /* most that are kept */

/* A step that is being timed: on the stack of who runs it. */
typedef struct kn_profile_frame {
  struct kn_profile_frame *up;
  uint32_t row; /* the step's first */
  uint32_t event, trip;
  bool part;
  double start, inside;
} kn_profile_frame;

struct kn_profile {
  kn_heap *heap;   /* retained */
  kn_graph *graph; /* retained */
  kn_context *ctx; /* of the session, while it runs; borrowed */
  kn_arena arena;  /* holds all arrays below */
  kn_profile_options options;
  kn_peaks peaks;
  kn_profile_row *rows; /* in the order of the program */
  uint32_t nrows;
  kn_profile_line *lines; /* the slowest first */
  uint32_t nlines;
  uint32_t done;         /* runs */
  double *plain, *timed; /* seconds of each run: by itself, and with clocks read */
  double *now;           /* by row: its own time in the run under way */
  double *samples;       /* by row, then run */
  double plain_median, timed_median;
  double whole; /* what shares are of: the median of a timed run, or of its rows where that is more */
  kn_profile_event *events;
  uint32_t nevents, lost; /* lost: began when there was no more room */
  double began;           /* the clock's, of the trace */
  /* while a run is under way */
  uint32_t **step_row; /* by block and step: its first row */
  uint32_t *row_of;    /* by id of an op node's first output: 1 + its row */
  uint32_t *leader;    /* by the same: that of the first node that it was computed with; 0: none */
  kn_profile_frame *top;
  uint32_t run, last; /* events: of the run, of the last row that began */
  double mark;        /* what comes next began here */
};

/* The clock, when devices have done what they were asked for. */
double kn_profile_settled(kn_context *ctx);
/* Runs the session on these inputs: once to warm up, then o->runs times by itself and as often with each step
 * timed. What the runs store, draw and update is forgotten; what they print is printed. On failure (of a run,
 * too) there is no profile. */
kn_status kn_session_profile(kn_session *s, const kn_rvalue *in, uint32_t nin, const kn_profile_options *o,
                             kn_profile **out);
void kn_profile_free(kn_profile *p);

/* What was reached in a median time, per second and of the peaks. */
typedef struct kn_rates {
  double share, flops, bytes, flops_of_peak, bytes_of_peak;
} kn_rates;
kn_rates kn_profile_rates(const kn_profile *p, double took, const kn_cost *cost);
/* Tables for people: lines, then nodes, each with the slowest first. */
void kn_profile_text(const kn_profile *p, kn_writer *w);
/* The ops of a row: "conv2d + add + relu"; with `size` bytes of room. */
char *kn_profile_name(const kn_profile_row *r, char *buf, size_t size);
/* JSON as chrome://tracing and Perfetto read it, to a file. */
kn_status kn_profile_trace(kn_context *ctx, const kn_profile *p, const char *path);

/* Measures what the machine reaches, unless ctx knows it for as many threads: some 50 ms. */
kn_status kn_peaks_measure(kn_context *ctx);

/* ---- for the executor ---- */

struct kn_plan;
double kn_profile_clock(void); /* seconds */
void kn_profile_begin(kn_profile *p, uint32_t block, uint32_t step, kn_profile_frame *f);
void kn_profile_end(kn_profile *p, kn_profile_frame *f);
void kn_profile_trip(kn_profile *p); /* the loop around begins one more */
/* A node of the part under way has run (kn_log_node). */
void kn_profile_node(kn_profile *p, const char *backend, const kn_node *n, const char *impl,
                     kn_tensor *const *vals);
/* A piece of it has; it is counted when it is told of as a whole. */
void kn_profile_piece(kn_profile *p, const kn_node *n);
/* These are about to be told of, and were computed as one. */
void kn_profile_group(kn_profile *p, const kn_node *const *nodes, uint32_t n);
/* Rows for the plan's steps, again after a run has told which nodes go together; a run that is to be timed,
 * begun and ended; at the end medians and lines. */
kn_status kn_profile_open(kn_context *ctx, kn_profile *p, const struct kn_plan *plan);
void kn_profile_start(kn_profile *p);
void kn_profile_stop(kn_profile *p);
kn_status kn_profile_close(kn_context *ctx, kn_profile *p);

#endif
