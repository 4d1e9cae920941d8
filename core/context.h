/* The context owns all state: heap, error sentence, RNG, grad mode, devices' kernels, output callbacks.
 * There are no globals. One thread uses a context at a time; a session makes its own child context
 * (kn_context_child) that shares the heap and the devices but keeps its own error, RNG and modes. */
#ifndef KN_CONTEXT_H
#define KN_CONTEXT_H
#include "core/debug.h"
#include "core/heap.h"
#include "core/random.h"
#include "core/status.h"
#include "core/type.h"

typedef struct kn_context kn_context;
typedef struct kn_recorder kn_recorder; /* core/dispatch.h */
typedef struct kn_provider kn_provider; /* core/device.h */
typedef struct kn_memory kn_memory;     /* core/device.h */

/* Receives text for the user: KN_OUT_PRINT is what a program prints (no newline added), KN_OUT_LOG is
 * KILN_DEBUG output and warnings of kiln's own, a line each without the newline. KN_OUT_WARN is what a
 * program gives to Lua's warn ("@on" and "@off" included), without a newline; KN_OUT_ERROR what it writes to
 * the error stream, KN_OUT_WRITE what it writes with io.write. Default: nothing is printed. */
typedef enum kn_out { KN_OUT_PRINT, KN_OUT_LOG, KN_OUT_WARN, KN_OUT_ERROR, KN_OUT_WRITE } kn_out;
typedef void (*kn_output_fn)(void *ud, kn_out kind, const char *text, size_t len);

/* How tensors look as text (core/show.h); kiln.set_printoptions, as ints. */
typedef struct kn_print_options {
  int precision; /* digits after the point */
  int edgeitems; /* shown at both ends of long dimensions */
  int linewidth; /* 0: `columns` */
  int sci_mode;  /* 1, 0, or -1: as the values ask for */
  int threshold; /* elements above which the middle is left out */
  int columns;   /* as wide as the terminal at the prompt, else 80 */
} kn_print_options;

/* Somebody who may give memory back when none is left: a front end with a collector. Called by the thread
 * that uses the context, in the middle of any op: it may release what nobody can reach, and nothing else. */
typedef struct kn_reclaimer {
  void (*fn)(void *ud);
  void *ud;
  struct kn_reclaimer *next;
} kn_reclaimer;

/* The composites whose parts are being applied, innermost first; on the stack of who applies them. One that
 * is named KN_UNNAMED stands for its parts: their own names are left out. */
#define KN_UNNAMED "="
typedef struct kn_within {
  const char *name;
  const struct kn_within *up;
} kn_within;

/* When the strands of a graph, which depend on nothing in one another, run side by side. */
typedef enum kn_beside {
  KN_BESIDE_PAYS,
  KN_BESIDE_ALWAYS, /* however little they do: for tests */
  KN_BESIDE_NEVER
} kn_beside;

/* What this machine reaches at its best, as measured (graph/peaks.c). */
typedef struct kn_peaks {
  double flops, bytes; /* a second */
  int threads;         /* that many took part; 0: not measured */
} kn_peaks;

/* May plans choose between implementations by what was measured (backends/tune.h)? */
typedef enum kn_tuning {
  KN_TUNING_FIXED,  /* no: by a fixed rule */
  KN_TUNING_KNOWN,  /* by what is known; what is not, when a plan is prepared */
  KN_TUNING_MEASURE /* every plan measures what is not known */
} kn_tuning;

/* How exact products and convolutions of float32 are where a device could be faster with less: their factors
 * as they are; or, where it has such units, rounded to TF32's ten bits. What the CPU computes is always
 * exact. */
typedef enum kn_float32_precision {
  KN_FLOAT32_HIGHEST,
  KN_FLOAT32_HIGH,
  KN_FLOAT32_MEDIUM /* the same as high */
} kn_float32_precision;

enum { KN_ERROR_SIZE = 1024, KN_MAX_PROVIDERS = 8, KN_MOST_SCRATCH = 3 };

struct kn_context {
  kn_heap *heap;
  kn_context *parent;        /* borrowed; NULL for a root context */
  char error[KN_ERROR_SIZE]; /* sentence of the last failure, "" before any */
  kn_status error_status;    /* its status */
  bool error_placed;         /* it starts with a place in the program ("f.lua:3: ") */
  kn_random random;          /* the one stream of random numbers */
  kn_reclaimer *reclaimers;  /* of a root context; borrowed */
  bool reclaims;             /* a child context whose thread may call the root's reclaimers */
  bool reclaiming;           /* they are being called */
  /* Of a root context: asked every now and then while its thread, or one that reclaims, waits for a device
   * that may not come to an end by itself; a status but OK ends that, and the wait fails with it. First when
   * it `begins`. NULL: nobody. */
  kn_status (*interrupt)(void *ud, bool begins);
  void *interrupt_ud;
  bool grad_enabled; /* tape ops on tensors that require grad */
  bool inference;    /* inference mode: what is made never takes part in gradients */
  uint8_t autocast;  /* kn_dtype, a half, of products (core/autocast.h); KN_BOOL: off */
  int walks;         /* backward passes that are running, one within the other */
  bool anomaly;      /* nodes remember the place that made them, and nan in a gradient is an error */
  /* While a function runs whose values for backward are to be computed again; borrowed. */
  struct kn_checkpoint *checkpoint;
  /* Writes the place in the user's program ("f.lua:3", or ""), for anomaly; may be NULL. */
  void (*where)(void *ud, char *text, size_t size);
  void *where_ud;
  kn_recorder *recorder; /* not NULL while ops are being recorded into a graph; borrowed */
  kn_recorder *symbols;  /* records ops on symbolic tensors when none is on: graphs built by hand; borrowed */
  const kn_within *within;  /* NULL: none; for recorders, whose nodes fail in the composite's name, too */
  unsigned debug;           /* bit per kn_debug */
  int threads;              /* most threads a parallel loop may use; >= 1 */
  int64_t cache;            /* bytes that a core has close by: large work may be cut for that */
  uint8_t beside;           /* kn_beside: strands of graphs */
  struct kn_pool *pool;     /* core/parallel.c's, shared with children; NULL in builds that need none */
  struct kn_hosted *hosted; /* likewise; NULL: no pool of the host's */
  kn_heap *runs;            /* what a run makes lies there (kn_claim); NULL: in `heap`; borrowed */
  bool keeps_scratch;       /* a session's: what kernels work in stays for the next ones */
  struct kn_scratch {
    void *p;
    size_t bytes;
    bool taken;
  } scratch[KN_MOST_SCRATCH];
  struct kn_profile *profile; /* of a session: told of each node that has run (graph/profile.h); borrowed */
  kn_peaks peaks;
  kn_tuning tuning;
  bool deterministic;        /* plans of this context and of its children do as if tuning were fixed */
  uint8_t float32_precision; /* kn_float32_precision, of a root context */
  double tuning_left;        /* seconds that the plan which is being made may still measure */
  bool tuning_missed;        /* it would have gone by a measurement that there is none of */
  kn_output_fn output;
  void *output_ud;
  kn_print_options print;
  /* Eager kernels by device, tried in order; the last one supports everything (core/device.h). */
  const kn_provider *providers[KN_DEVICE_COUNT][KN_MAX_PROVIDERS];
  const kn_memory *memory[KN_DEVICE_COUNT]; /* NULL: the host's, or not asked for yet (kn_device_memory) */
  /* Of a root context, which children ask, from their threads: finds who computes on a device. UNSUPPORTED,
   * with the reason, when nobody does. */
  kn_status (*open_device)(kn_context *ctx, kn_device_id d, const kn_memory **out);
  void *backend_state[KN_MAX_PROVIDERS]; /* [0]: backends/registry.c's, which owns it */
  struct kn_host_op *host_ops; /* of a root context: what the host has registered (core/host_op.h) */
  uint64_t op_count;           /* ops dispatched, for statistics and tests */
};

/* heap == NULL makes a fresh default heap. debug is KILN_DEBUG's value or NULL. NULL if out of memory. */
kn_context *kn_context_new(kn_heap *heap, const char *debug);
/* Shares heap, providers, debug, threads and output of `parent`, which must outlive it. Does not reclaim, as
 * it may be used by another thread. */
kn_context *kn_context_child(kn_context *parent);
void kn_context_free(kn_context *ctx); /* NULL is fine */
/* What holds for plans that are made now. */
kn_tuning kn_context_tuning(const kn_context *ctx);
bool kn_context_deterministic(const kn_context *ctx); /* it, or one that it is a child of */
/* What its root was told. */
kn_float32_precision kn_context_precision(const kn_context *ctx);

/* Where tensors, tapes, and whatever else a run makes and gives back, come from and go to. */
static inline kn_heap *kn_claim_heap(const kn_context *ctx) { return ctx->runs ? ctx->runs : ctx->heap; }
/* kn_alloc and kn_alloc_aligned from there; when that fails the reclaimers are called and it is tried once
 * more, so that garbage is never why they fail. */
void *kn_claim(kn_context *ctx, size_t size);
void *kn_claim_aligned(kn_context *ctx, size_t size);
/* The second one of the context's own heap: for what stays with a plan, whenever it is made. */
void *kn_claim_kept(kn_context *ctx, size_t size);
/* Calls them; false: there was nobody to ask. For memory that is no heap's. */
bool kn_reclaim(kn_context *ctx);
/* Memory for a kernel to work in, 64-byte aligned, given back before it ends; NULL when there is none.
 * Sessions keep it from call to call. Not inside parallel loops. */
void *kn_scratch_take(kn_context *ctx, size_t bytes);
void kn_scratch_give(kn_context *ctx, void *p, size_t bytes);
void kn_context_add_reclaimer(kn_context *ctx, kn_reclaimer *r);
void kn_context_remove_reclaimer(kn_context *ctx, kn_reclaimer *r);

/* Set the sentence and return `s`. Formats once, where the fault is known. */
kn_status kn_fail(kn_context *ctx, kn_status s, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Put "prefix: " before the present sentence. */
void kn_error_prefix(kn_context *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Takes "NAME: " off its beginning, if it begins so. */
void kn_error_unname(kn_context *ctx, const char *name);
kn_status kn_fail_nomem(kn_context *ctx, size_t bytes); /* bytes wanted, 0 if not known */
static inline const char *kn_error(const kn_context *ctx) { return ctx->error; }

static inline bool kn_debugging(const kn_context *ctx, kn_debug topic) { return ctx->debug >> topic & 1u; }
void kn_log(kn_context *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void kn_print(kn_context *ctx, kn_out kind, const char *text, size_t len);

#endif
