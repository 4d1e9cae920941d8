/* What the files of libcuda.so.1 share: run.c (kernels), memory.c, stream.c (streams, events, modules,
 * launches), graph.c. One lock for all; what is given to a stream is done when somebody waits for it, in the
 * order in which it was given. */
#ifndef SPEC_SIM_INSIDE_H
#define SPEC_SIM_INSIDE_H
#include "sim.h"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#define API __attribute__((visibility("default")))

/* ---- run.c ---- */

struct CUmod_st {
  void *library;
  struct CUfunc_st *functions;
  char path[300];
};
struct CUfunc_st {
  struct CUfunc_st *next;
  struct CUmod_st *module;
  void (*call)(void **);
  const size_t *bytes; /* of its arguments, ended by 0 */
  int waits, shared;   /* its threads wait for each other; most dynamic shared memory that was asked for */
  char name[128];
};
typedef struct sim_kernel { /* a launch, with its arguments */
  CUfunction f;
  unsigned grid[3], threads, shared;
  char *arguments; /* one behind the other, each at a multiple of 16 */
} sim_kernel;

CUresult sim_load(CUmodule *out, const void *image);
void sim_unload(CUmodule m);
CUfunction sim_function(CUmodule m, const char *name);
CUresult sim_kernel_make(sim_kernel *k, CUfunction f, const unsigned grid[3], const unsigned block[3],
                         unsigned shared, void **arguments);
void sim_kernel_run(const sim_kernel *k);

/* ---- memory.c ---- */

void sim_enter(void); /* the device's memory can be read and written from here on, … */
void sim_leave(void); /* … and no longer, as the host has no business there */
/* Is it all in device memory that is there? */
bool sim_is_device(CUdeviceptr p, size_t bytes);
bool sim_is_pinned(const void *p);

/* ---- graph.c ---- */

typedef enum sim_what {
  SIM_KERNEL,
  SIM_COPY,
  SIM_SET,
  SIM_WORK,
  SIM_EMPTY,
  SIM_CHILD,
  SIM_CONDITION,
  SIM_GRAPH
} sim_what;

typedef struct sim_condition sim_condition;
struct CUgraphNode_st {
  struct CUgraphNode_st *next; /* of its graph, in the order in which they were made */
  CUgraph graph;
  CUgraphNode copy; /* while a graph is copied */
  sim_what what;
  CUgraphNode *needs;
  size_t nneeds;
  sim_kernel kernel;
  struct {
    void *to;
    const void *from;
    size_t bytes;
    bool host; /* one side is the host's, pageable */
  } copying;
  struct {
    CUdeviceptr to;
    unsigned value, width;
    size_t n;
  } set;
  struct {
    void (*run)(void *);
    void *arg;
    size_t bytes;
  } work;
  sim_condition *condition;
  CUgraphConditionalNodeType type;
  CUgraph *bodies; /* of CONDITION; of CHILD one */
  unsigned nbodies;
  unsigned number; /* for traces */
  bool done;
};
struct CUgraph_st {
  CUgraphNode first, *last;
  unsigned number, nodes;
  CUgraphNode owner;         /* of a body; NULL */
  sim_condition *conditions; /* that were made for it */
  int instances;
  bool destroyed;
};
struct sim_condition {
  sim_condition *next;
  CUgraphConditionalHandle handle;
  CUgraph graph;
  CUgraphNode node;
  unsigned value, initial, flags;
};
struct CUgraphExec_st {
  CUgraph graph, source;
};

CUgraphNode sim_node(CUgraph g, sim_what what, const CUgraphNode *needs, size_t n);
void sim_graph_run(CUgraph g);
bool sim_order_is_last(void);   /* SIM_ORDER=last */
void sim_graph_free(CUgraph g); /* which nobody has an instance of */
void sim_node_run(CUgraphNode n);

/* ---- stream.c ---- */

struct CUstream_st {
  CUgraph capture; /* NULL: it is not captured */
  bool to_given;   /* by BeginCaptureToGraph */
  bool broken;     /* something that must not be done while it is captured */
  CUgraphNode *tails;
  size_t ntails;
  unsigned number;
  unsigned long long id;
};
struct CUevent_st {
  unsigned long long after; /* done when so many pieces of work are */
  double at;
  bool recorded;
};

extern pthread_mutex_t sim_lock;
extern sim_counts sim_counted;
/* A piece of work in the order of the stream: a node of nobody's graph, which this takes; or one of the graph
 * that the stream is captured into. */
CUgraphNode sim_piece(CUstream s, sim_what what);
void sim_submit(CUstream s, CUgraphNode n);
void sim_drain(void);
bool sim_fails(const char *name); /* as SIM_FAIL=name:n says of the n-th call */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool sim_traces(void);
const char *sim_address(CUdeviceptr p); /* as m3+256: the same in every run */
_Noreturn void sim_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define LOCKED(call) (pthread_mutex_lock(&sim_lock), sim_unlock(call))
static inline CUresult sim_unlock(CUresult r) { return pthread_mutex_unlock(&sim_lock), r; }

#endif
