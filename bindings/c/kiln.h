/* kiln.h: run graphs saved by kiln, from C or C++, without Lua.
 *
 * A context owns all state; a graph is loaded once and never changes; a session is one thread running it:
 *
 *     kiln_context *ctx;
 *     kiln_graph *graph;
 *     kiln_session *run;
 *     kiln_tensor *x;
 *     kiln_value y;
 *     int64_t sizes[] = {1, 10};
 *     float numbers[10] = {0};
 *     kiln_context_new(NULL, &ctx, NULL, 0);
 *     kiln_graph_load(ctx, "model.kiln", NULL, &graph);
 *     kiln_session_new(ctx, graph, &run);
 *     kiln_tensor_new(ctx, KILN_FLOAT32, 2, sizes, numbers, &x);
 *     kiln_session_set_tensor(run, "x", x);
 *     kiln_session_run(run);
 *     kiln_session_get(run, 0, &y);
 *
 * RULES, for every function below unless it says otherwise
 *   Status      What can fail returns a kiln_status. On failure nothing is owed and nothing that was to be
 *               written is touched; one sentence that names what is at fault is kept: kiln_error(ctx), or
 *               kiln_session_error for functions of a session.
 *   Ownership   Arguments are borrowed for the call. Objects given out are the caller's, to be given back by
 *               the function named _free or _release. Strings given out are borrowed: each function says for
 *               how long.
 *   Counts      Tensors and graphs are counted (retain, release), atomically: any thread may hold and release
 *               them, and use them with any context. They stay valid after the context that made them is
 *               freed.
 *   Threads     A context, and a session, is used by one thread at a time. Different sessions of one graph
 *               run at the same time in different threads. What is safe from any thread says so.
 *   NULL        Pointers must not be NULL unless said. _free and _release accept NULL.
 *   Indices     Arguments that count something (inputs, outputs, dimensions) start at 0 in C. Index values
 *               held in tensors (class labels, argmax) start at 1, here as in Lua and in files.
 *   Sizes       are in elements; bytes say bytes. Tensors are row-major unless they have other strides.
 *   Manners     Nothing here prints, exits, reads environment variables, or keeps state outside a context. */
#ifndef KILN_H
#define KILN_H

#include <stddef.h>
#include <stdint.h>

#ifndef KILN_API
#if defined(__GNUC__)
#define KILN_API __attribute__((visibility("default")))
#else
#define KILN_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---- */

#define KILN_VERSION_MAJOR 0
#define KILN_VERSION_MINOR 1
#define KILN_VERSION_PATCH 0
#define KILN_VERSION_NUMBER (KILN_VERSION_MAJOR * 10000 + KILN_VERSION_MINOR * 100 + KILN_VERSION_PATCH)

/* The library's own KILN_VERSION_NUMBER. The same major number means the same ABI: functions are only added,
 * structs with a `size` field only grow, numbers of enums stay. Safe from any thread. */
KILN_API int kiln_version(void);
/* "0.1.0". Never freed. Safe from any thread. */
KILN_API const char *kiln_version_text(void);

/* ---- status ---- */

typedef enum kiln_status {
  KILN_OK = 0,
  KILN_NOMEM = 1,       /* the allocator refused, or the memory limit was reached */
  KILN_ARG = 2,         /* an argument is not possible */
  KILN_SHAPE = 3,       /* sizes do not fit */
  KILN_DTYPE = 4,       /* dtypes do not fit */
  KILN_INDEX = 5,       /* an index is out of range */
  KILN_STATE = 6,       /* not possible at this moment */
  KILN_UNSUPPORTED = 7, /* not possible in this build or on this machine */
  KILN_IO = 8,          /* a file could not be read or written */
  KILN_FORMAT = 9,      /* a file is damaged; of a run: its graph reads what it has not made */
  KILN_VERSION = 10,    /* a file is of a version this library does not know */
  KILN_CAPTURE = 11,    /* only from Lua: a function cannot be captured */
  KILN_RAISED = 12,     /* the program itself raised an error */
  KILN_LIMIT = 13,      /* a limit was reached: steps, trips, seconds, nodes, nesting */
  KILN_CANCELLED = 14,  /* kiln_session_cancel */
  KILN_INTERNAL = 15    /* a defect of kiln */
} kiln_status;

/* "shape mismatch"; "unknown status" for other numbers. Never freed. Safe from any thread. */
KILN_API const char *kiln_status_text(kiln_status status);

/* ---- context ---- */

typedef struct kiln_context kiln_context;

/* Lua's allocator: new_size 0 frees `ptr` (and returns NULL); ptr NULL allocates; else resizes; NULL when it
 * cannot. Alignment as malloc. old_size is the size asked for before. Must be safe from any thread that uses
 * the context's sessions, tensors or graphs, and live as long as the last of these. */
typedef void *(*kiln_alloc_fn)(void *ud, void *ptr, size_t old_size, size_t new_size);

typedef enum kiln_output {
  KILN_OUTPUT_PRINT = 0, /* what the program prints, as it is: line ends are its own */
  KILN_OUTPUT_LOG = 1,   /* one line, without its end: debugging output and warnings of kiln's own */
  KILN_OUTPUT_WARN = 2,  /* what the program gives to Lua's warn, without a line end; Lua shows warnings only
                            between the control messages "@on" and "@off" */
  KILN_OUTPUT_ERROR = 3  /* what the program writes to the error stream, as it is */
} kiln_output;
/* text is not terminated. Called by the thread that runs. */
typedef void (*kiln_output_fn)(void *ud, kiln_output kind, const char *text, size_t length);

/* Where several implementations compute the same, which one is taken may be measured: the results of
 * different ones differ in their last bits. */
typedef enum kiln_tune {
  KILN_TUNE_PREPARED = 0, /* with a `cache`: by what is known; kiln_session_memory measures what is not */
  KILN_TUNE_NEVER = 1,    /* by a fixed rule, as without a `cache` */
  KILN_TUNE_ALWAYS = 2    /* the first run measures, too: up to 0.2 s for the sizes of its inputs */
} kiln_tune;

/* Threads of the host's. `run` calls task(arg, i) once for each i from 0 to tasks - 1, in any order, on
 * threads of its own or on the calling one, and returns when all of them have ended; what they wrote is then
 * seen by the caller. tasks is 2 to `threads`. It must not fail, and whatever it cannot give to another
 * thread it runs itself: results are the same to the bit. A task never runs another loop: while one is under
 * way, others of the context and of its children, be they nested or of other threads, run in the thread that
 * began them; so no thread of the pool waits for the pool. */
typedef struct kiln_pool {
  size_t size; /* sizeof(kiln_pool) */
  void *ud;
  int threads; /* 1 to 4096, the calling one included */
  void (*run)(void *ud, int tasks, void (*task)(void *arg, int index), void *arg);
} kiln_pool;

/* Zero all of it, set `size`, then what is wanted: zero means the default. Strings are not kept. */
typedef struct kiln_context_options {
  size_t size;         /* sizeof(kiln_context_options) */
  kiln_alloc_fn alloc; /* default: realloc and free */
  void *alloc_ud;
  size_t memory_limit;   /* bytes in use at most; 0: none. What libraries of backends take is not counted */
  const char *backend;   /* the one to use, beside the reference; NULL or "": all that work, best first */
  const char *debug;     /* "exec,mem": topics logged; NULL or "": none. Unknown topics are ignored */
  int threads;           /* most threads of one run; 0: as many as the machine offers */
  uint64_t seed;         /* where the random numbers of its sessions start */
  kiln_output_fn output; /* default: output is dropped */
  void *output_ud;
  const char
      *cache;     /* folder of what was measured on this machine, and of compiled kernels; NULL or "": none */
  kiln_tune tune; /* default: KILN_TUNE_PREPARED */
  const char *libraries; /* folders, joined by ':', in which CUDA's libraries are looked for first; an empty
                          * one is where the loader looks. NULL or "": where they usually are */
  const kiln_pool *pool; /* where parallel loops run; copied, its `ud` must live as long as the context. NULL:
                          * threads of kiln's own. With one, `threads` above 0 may ask for fewer, and
                          * oneDNN, whose threads are its own, computes on the calling thread alone */
} kiln_context_options;

/* options NULL: defaults. On failure there is no context to ask, so the sentence goes to error (terminated,
 * at most error_size bytes; may be NULL with 0). Libraries of backends are opened when first needed, not
 * here, unless `backend` names one. */
KILN_API kiln_status kiln_context_new(const kiln_context_options *options, kiln_context **out, char *error,
                                      size_t error_size);
/* A context for another thread: shares allocator, limit, backends and output with `ctx`, keeps its own
 * errors. Give it back before `ctx`. */
KILN_API kiln_status kiln_context_child(kiln_context *ctx, kiln_context **out);
/* After all its sessions and children. */
KILN_API void kiln_context_free(kiln_context *ctx);
/* The sentence of the last failure with `ctx`; "" before any. Valid until the next call with it. */
KILN_API const char *kiln_error(const kiln_context *ctx);

typedef struct kiln_memory {
  size_t size;     /* sizeof(kiln_memory), set by the caller */
  size_t bytes;    /* in use now */
  size_t peak;     /* most in use at any time */
  uint64_t blocks; /* allocations in use now */
} kiln_memory;
/* What the context's allocator has given out, to sessions, tensors and graphs too. Safe from any thread. */
KILN_API void kiln_context_memory(const kiln_context *ctx, kiln_memory *out);

typedef struct kiln_backend {
  size_t size;      /* sizeof(kiln_backend), set by the caller */
  const char *name; /* never freed */
  int available;    /* 1 or 0 */
  char version[64]; /* of its library; "" when there is none */
  char reason[256]; /* why it is not available; "" when it is */
} kiln_backend;
/* Backends built in, in order of preference; the last is the reference. Safe from any thread. */
KILN_API int kiln_backend_count(void);
/* Opens its library to find out. Fails for a number out of range. */
KILN_API kiln_status kiln_backend_report(kiln_context *ctx, int index, kiln_backend *out);

/* ---- dtypes ---- */

typedef enum kiln_dtype {
  KILN_FLOAT32 = 1,
  KILN_FLOAT64 = 2,
  KILN_FLOAT16 = 3,
  KILN_BFLOAT16 = 4,
  KILN_INT8 = 5,
  KILN_UINT8 = 6,
  KILN_INT16 = 7,
  KILN_INT32 = 8,
  KILN_INT64 = 9,
  KILN_BOOL = 10 /* one byte, 0 or 1 */
} kiln_dtype;

/* "float32". NULL for one that this version does not compute with yet. Never freed. Any thread. */
KILN_API const char *kiln_dtype_name(kiln_dtype dtype);
/* Bytes of an element; 0 where kiln_dtype_name gives NULL. Any thread. */
KILN_API size_t kiln_dtype_size(kiln_dtype dtype);

/* ---- tensors ---- */

typedef struct kiln_tensor kiln_tensor;

enum { KILN_MAX_RANK = 8 };

/* Called once, when the last user of the memory is gone; from whatever thread that is. */
typedef void (*kiln_release_fn)(void *ud, void *data, size_t bytes);

/* A tensor of its own memory, filled from `data` (row-major, of the host's byte order), or zeroed when data
 * is NULL. rank 0 makes a single number; sizes may then be NULL. SHAPE for sizes below 0 or a product too
 * large. */
KILN_API kiln_status kiln_tensor_new(kiln_context *ctx, kiln_dtype dtype, int rank, const int64_t *sizes,
                                     const void *data, kiln_tensor **out);
/* A tensor over the caller's memory, not copied: `data` must be aligned for its dtype, hold all elements, and
 * stay until `release` (may be NULL) is called; when this fails that is at once. */
KILN_API kiln_status kiln_tensor_wrap(kiln_context *ctx, kiln_dtype dtype, int rank, const int64_t *sizes,
                                      void *data, kiln_release_fn release, void *ud, kiln_tensor **out);
KILN_API kiln_tensor *kiln_tensor_retain(kiln_tensor *t);
KILN_API void kiln_tensor_release(kiln_tensor *t);

/* Looking at a tensor is safe from any thread. */
KILN_API kiln_dtype kiln_tensor_dtype(const kiln_tensor *t);
KILN_API int kiln_tensor_rank(const kiln_tensor *t);
KILN_API int64_t kiln_tensor_numel(const kiln_tensor *t);
/* Elements along a dimension, and elements between neighbours along it; 0 for a dimension it has not. */
KILN_API int64_t kiln_tensor_size(const kiln_tensor *t, int dim);
KILN_API int64_t kiln_tensor_stride(const kiln_tensor *t, int dim);
/* 1 when it lies row-major without gaps, else 0. */
KILN_API int kiln_tensor_is_contiguous(const kiln_tensor *t);
/* Where its elements are: "cpu", "cuda". */
KILN_API const char *kiln_tensor_device(const kiln_tensor *t);
/* The same elements on a device: t itself, retained, where they are there. ARG for a name that is none,
 * UNSUPPORTED with the reason where the device cannot be used. */
KILN_API kiln_status kiln_tensor_to(kiln_context *ctx, const kiln_tensor *t, const char *device,
                                    kiln_tensor **out);
/* The first element, NULL where it is on another device than the CPU. Others lie at its strides. The
 * tensor's, and valid as long as it; a tensor that a graph gave or was given may share memory with others:
 * write only to your own. */
KILN_API void *kiln_tensor_data(const kiln_tensor *t);
/* Copies all elements to `out`, row-major, from wherever they are. ARG unless `bytes` is just their size. */
KILN_API kiln_status kiln_tensor_read(kiln_context *ctx, const kiln_tensor *t, void *out, size_t bytes);

/* ---- tensors of others: DLPack ---- */

/* The structs of dlpack.h, which is the caller's to include where it looks into them; the second is DLPack
 * 1's. Tensors go over without a copy, with their strides. Of devices, "cpu" (and pinned memory of the host,
 * on the way in) and "cuda" go over. */
struct DLManagedTensor;
struct DLManagedTensorVersioned;

/* A view of t for others, who call its `deleter` once, from whatever thread; it holds t until then. What
 * computes the elements is complete. They must not be written to where t is not the caller's own (see
 * kiln_tensor_data). */
KILN_API kiln_status kiln_tensor_to_dlpack(kiln_context *ctx, kiln_tensor *t, struct DLManagedTensor **out);
KILN_API kiln_status kiln_tensor_to_dlpack_versioned(kiln_context *ctx, kiln_tensor *t,
                                                     struct DLManagedTensorVersioned **out);
/* A tensor over the elements of others. On success m is taken over: its deleter is called when the last user
 * is gone, from whatever thread that is; on failure it stays the caller's. What computes the elements must be
 * complete; on cuda, results should have been read before the last user is gone, as the deleter does not wait
 * for what still reads them. Elements that are read only (DLPack 1 says so) are copied, and m is done with at
 * once. DTYPE for dtypes that kiln has not and for more than one lane, SHAPE for more than 8 dimensions,
 * sizes or strides below 0, and what no memory holds, ARG for memory that is not aligned for its dtype,
 * UNSUPPORTED for other devices and other major versions. */
KILN_API kiln_status kiln_tensor_from_dlpack(kiln_context *ctx, struct DLManagedTensor *m, kiln_tensor **out);
KILN_API kiln_status kiln_tensor_from_dlpack_versioned(kiln_context *ctx, struct DLManagedTensorVersioned *m,
                                                       kiln_tensor **out);

/* ---- ops of the host ---- */

/* An op that a host adds to a context: in Lua it is kiln.op.NAME, in graphs and files an op as any, so that
 * it is captured, differentiated and saved with the rest. It must be a function of its inputs and attributes
 * alone: runs compute it as often as they need it, or once for equal inputs, from any of their threads,
 * several at once. */
enum { KILN_OP_INPUTS = 32, KILN_OP_OUTPUTS = 4, KILN_OP_ATTRIBUTES = 8 };

/* A tensor as the functions of an op see it. */
typedef struct kiln_op_tensor {
  kiln_dtype dtype;
  int rank;
  int64_t
      sizes[KILN_MAX_RANK]; /* below 0, in shape rules: not known yet; equal numbers but -1 are equal sizes */
  void *data;               /* row-major without gaps, aligned for the dtype; NULL in shape rules */
} kiln_op_tensor;

typedef struct kiln_op_call {
  size_t size; /* sizeof(kiln_op_call), set by the library */
  void *ud;    /* the op's */
  const char *name;
  int ninputs, noutputs;
  const kiln_op_tensor *inputs; /* only read what `data` shows */
  kiln_op_tensor *outputs;
  const double *attributes; /* all of them, in the op's order */
  char *error;              /* room for a sentence, which begins the error in place of the status' text */
  size_t error_size;
} kiln_op_call;

/* Valid for the call. A status other than OK ends the op with `error`; nothing of it is kept. */
typedef kiln_status (*kiln_op_fn)(kiln_op_call *call);

typedef struct kiln_op_attribute {
  const char *name;
  double value; /* where none is given */
} kiln_op_attribute;

typedef struct kiln_op {
  size_t size;      /* sizeof(kiln_op), set by the caller */
  const char *name; /* letters, digits, underscores, 63 at most: "mel_scale" */
  int inputs;  /* how many tensors it takes, 1 to KILN_OP_INPUTS; in Lua plain numbers may stand for some */
  int outputs; /* and gives, 1 to KILN_OP_OUTPUTS */
  /* The shape rule: from the dtypes and sizes of the inputs to those of the outputs, which come as those of
   * the first input. Sizes below 0 are given on as they are where the output has that size, -1 where the rule
   * does not know; where all inputs are known the outputs must be. Called whenever a graph is captured,
   * loaded and planned. Fails with SHAPE, DTYPE or ARG. NULL: outputs are like the first input. */
  kiln_op_fn shape;
  /* Fills every element of the outputs, which share no memory with inputs. May meet tensors without elements.
   * A failure is an error of the program, RAISED, which a graph or Lua may catch; NOMEM stays NOMEM. */
  kiln_op_fn kernel;
  /* The gradient: its inputs are the op's inputs, its outputs and the gradients of these, zeros where none
   * comes; it fills the gradient of each floating input (4 at most), in order, of that input's dtype and
   * sizes. It is not differentiated again. NULL: a gradient through the op is an error. */
  kiln_op_fn vjp;
  void *ud;
  int attribute_count;                 /* 0 to KILN_OP_ATTRIBUTES */
  const kiln_op_attribute *attributes; /* numbers that a call may give by name: constants in graphs */
} kiln_op;

/* Adds it to ctx, its children and the sessions of both; names are copied, `ud` must outlive them all. ARG
 * for what is not possible and a name that is there. Graphs name their ops: to load one the context needs
 * those that it uses, or loading fails with FORMAT and the name. A host that changes what an op means gives
 * it another name. Not while another thread uses ctx or a child of it. */
KILN_API kiln_status kiln_context_register_op(kiln_context *ctx, const kiln_op *op);

/* ---- values ---- */

typedef enum kiln_kind {
  KILN_NIL = 0,
  KILN_TENSOR = 1,
  KILN_INTEGER = 2,
  KILN_FLOAT = 3,
  KILN_NUMBER = 4, /* only said of inputs and outputs: an integer or a float, known when it runs */
  KILN_BOOLEAN = 5,
  KILN_STRING = 6 /* only as a constant among outputs */
} kiln_kind;

/* A value in or out: what it is, and in the field for that. */
typedef struct kiln_value {
  kiln_kind kind;
  int b;               /* BOOLEAN: 0 or 1 */
  int64_t i;           /* INTEGER */
  double f;            /* FLOAT */
  kiln_tensor *tensor; /* TENSOR: as an argument borrowed, as a result the caller's to release */
  const char *text;    /* STRING: terminated, may hold zeros; the graph's, valid as long as it */
  size_t length;       /* STRING: bytes of text */
} kiln_value;

/* Releases what a result holds and makes it NIL. */
KILN_API void kiln_value_clear(kiln_value *v);

/* ---- graphs ---- */

typedef struct kiln_graph kiln_graph;

/* Loads one graph of a .kiln file. Nothing in a file is executed; all of it is checked before use. Weights
 * are mapped: do not change the file while the graph, or a tensor of it, is in use. entry NULL: the file's
 * only graph; ARG when there are several (the sentence names them) or none of that name. */
KILN_API kiln_status kiln_graph_load(kiln_context *ctx, const char *path, const char *entry,
                                     kiln_graph **out);
/* The same with all of it on a device, "cpu" or "cuda", whatever it was saved on; NULL: as it was saved.
 * Inputs are to be there then (kiln_tensor_to). UNSUPPORTED with the reason where the device cannot be used.
 */
KILN_API kiln_status kiln_graph_load_on(kiln_context *ctx, const char *path, const char *entry,
                                        const char *device, kiln_graph **out);
/* The first from memory. release NULL: the bytes are copied. Else they are used in place, must be aligned to
 * 8 bytes and stay until release is called; when this fails that is at once. */
KILN_API kiln_status kiln_graph_load_memory(kiln_context *ctx, const void *data, size_t bytes,
                                            const char *entry, kiln_release_fn release, void *ud,
                                            kiln_graph **out);
KILN_API kiln_graph *kiln_graph_retain(kiln_graph *g);
KILN_API void kiln_graph_release(kiln_graph *g);
/* The graph's, valid as long as it. */
KILN_API const char *kiln_graph_name(const kiln_graph *g);

/* One input, output or slot of a graph. Strings are the graph's, valid as long as it. */
typedef struct kiln_info {
  size_t size;       /* sizeof(kiln_info), set by the caller */
  const char *name;  /* of inputs: "x"; of outputs their place: "1", "2.label"; of slots: "net.fc1.weight" */
  const char *label; /* outputs: the name of the Lua local it was, "class"; NULL where there is none */
  kiln_kind kind;
  int constant;     /* 1 for outputs that are the same in every run, and slots that no run writes; else 0 */
  kiln_dtype dtype; /* of a TENSOR, as all below */
  int rank;
  int64_t sizes[KILN_MAX_RANK];       /* -1: free */
  const char *symbols[KILN_MAX_RANK]; /* name of a free size: equal names are equal sizes; NULL: none */
  const char *layout; /* inputs: how elements must lie: "contiguous", "strides {1, 3}"; NULL: in any way */
  const char *device; /* of a TENSOR: "cpu", "cuda" */
} kiln_info;

/* Inputs are the arguments, outputs the results, nested tables laid out flat; slots are what lives between
 * runs: weights, buffers, counters. All are numbered from 0 and safe from any thread. INDEX for a number out
 * of range. */
KILN_API int kiln_graph_input_count(const kiln_graph *g);
KILN_API int kiln_graph_output_count(const kiln_graph *g);
KILN_API int kiln_graph_slot_count(const kiln_graph *g);
KILN_API kiln_status kiln_graph_input(const kiln_graph *g, int index, kiln_info *out);
KILN_API kiln_status kiln_graph_output(const kiln_graph *g, int index, kiln_info *out);
KILN_API kiln_status kiln_graph_slot(const kiln_graph *g, int index, kiln_info *out);
/* The number of the one named so; -1 when there is none. Outputs are also found by their label, and, where
 * that leaves no doubt, by the last part of their name. */
KILN_API int kiln_graph_find_input(const kiln_graph *g, const char *name);
KILN_API int kiln_graph_find_output(const kiln_graph *g, const char *name);
KILN_API int kiln_graph_find_slot(const kiln_graph *g, const char *name);

/* Functions of the host that the graph calls (made with kiln.ignore): how many there are, and their names,
 * numbered from 0; NULL for a number out of range. The graph's, valid as long as it. Safe from any thread. */
KILN_API int kiln_graph_host_count(const kiln_graph *g);
KILN_API const char *kiln_graph_host_name(const kiln_graph *g, int index);

/* ---- files ---- */

/* What a file holds, for people: versions, producer, checksum, bytes, ops, origins, notes, and of each graph
 * (or of `entry` alone) inputs, outputs, slots, functions of the host, guards and test vectors. `line` is
 * called for each line, terminated, without its end, valid during the call. Of files of newer versions it is
 * told what their first lines say before this fails with VERSION. Nothing is run, and no device is needed. */
KILN_API kiln_status kiln_file_info(kiln_context *ctx, const char *path, const char *entry,
                                    void (*line)(void *ud, const char *text), void *ud);
/* Reads a file of any version known and writes it as this version does, weights equal bit for bit; what is in
 * its metadata beside what kiln knows is left out. `to` is replaced when all is written, and may be `path`.
 */
KILN_API kiln_status kiln_file_upgrade(kiln_context *ctx, const char *path, const char *to);
/* A note that was saved with the graph's file; NULL: there is none of that name. The graph's, valid as long
 * as it. Safe from any thread. */
KILN_API const char *kiln_graph_note(const kiln_graph *g, const char *name);

/* Files may hold test vectors: calls of the graph and what it gave for them. How many; safe from any thread.
 */
KILN_API int kiln_graph_vector_count(const kiln_graph *g);
/* Runs them, one after the other, from the slots' values in the file and random numbers of seed 0, and
 * compares. STATE with a sentence that names vector, output, element and both values when an element differs
 * by more than a tolerance times the largest element of its output, or times 0.001 where that is larger: the
 * tolerance that was saved with them, else 1e-9 for float64, 1e-4 for float32 and numbers, 0.01 for float16
 * and 0.05 for bfloat16; integers and booleans are equal. ARG when there are no vectors. Other statuses as
 * runs have them. */
KILN_API kiln_status kiln_graph_test(kiln_context *ctx, kiln_graph *g);

/* ---- sessions ---- */

typedef struct kiln_session kiln_session;

/* Runs `g` with slots, random numbers, memory and an error of its own. Retains `g`; `ctx` must outlive it. */
KILN_API kiln_status kiln_session_new(kiln_context *ctx, kiln_graph *g, kiln_session **out);
KILN_API void kiln_session_free(kiln_session *s);
/* The sentence of the session's last failure; "" before any. Valid until the next call with `s`. */
KILN_API const char *kiln_session_error(const kiln_session *s);

/* An input of the next runs; kept until it is set again. A tensor is retained, not copied: what it holds when
 * a run starts is what the run sees. Kinds are checked when it runs. STATE from within a run. */
KILN_API kiln_status kiln_session_set(kiln_session *s, int index, const kiln_value *v);
/* The same by name, each for one kind. */
KILN_API kiln_status kiln_session_set_tensor(kiln_session *s, const char *name, kiln_tensor *t);
KILN_API kiln_status kiln_session_set_integer(kiln_session *s, const char *name, int64_t i);
KILN_API kiln_status kiln_session_set_float(kiln_session *s, const char *name, double f);
KILN_API kiln_status kiln_session_set_boolean(kiln_session *s, const char *name, int b);

/* A function of the host, called by runs in the order of the program. Tensors among `args` are borrowed
 * (retain to keep). It fills `results`, which come zeroed, with values of the kinds and types that the graph
 * declares; tensors in them become the session's, also when it fails. A status other than OK ends the run
 * with RAISED. */
typedef kiln_status (*kiln_host_fn)(void *ud, const kiln_value *args, int nargs, kiln_value *results,
                                    int nresults);
/* Binds a host slot of the graph for the next runs; ARG when the graph calls no such function. A run that
 * reaches a slot nobody has bound ends with STATE and a sentence that names it. */
KILN_API kiln_status kiln_session_bind(kiln_session *s, const char *name, kiln_host_fn fn, void *ud);

/* Runs with the inputs set. After a failure slots are as they were before it and there are no outputs. A
 * graph whose function writes to an argument (`update` in its text) overwrites the tensor that was set, when
 * all has succeeded; that tensor must be contiguous and share memory with no other input. */
KILN_API kiln_status kiln_session_run(kiln_session *s);
/* kiln_graph_test in this session, with its limits, backends and functions of the host. Slots, inputs,
 * outputs and random numbers are afterwards as before. */
KILN_API kiln_status kiln_session_test(kiln_session *s);
/* An output of the last run, the caller's; STATE before any. Constants can be had at any time. */
KILN_API kiln_status kiln_session_get(kiln_session *s, int index, kiln_value *out);
/* The same by name, each for one kind (float takes integers too); ARG when the output is of another. */
KILN_API kiln_status kiln_session_get_tensor(kiln_session *s, const char *name, kiln_tensor **out);
KILN_API kiln_status kiln_session_get_integer(kiln_session *s, const char *name, int64_t *out);
KILN_API kiln_status kiln_session_get_float(kiln_session *s, const char *name, double *out);
KILN_API kiln_status kiln_session_get_boolean(kiln_session *s, const char *name, int *out);

/* The present value of a slot, and a new one for the next runs (a tensor is retained, not copied; its dtype
 * and sizes must be the slot's). Sessions start with the file's values. */
KILN_API kiln_status kiln_session_get_slot(kiln_session *s, int index, kiln_value *out);
KILN_API kiln_status kiln_session_set_slot(kiln_session *s, int index, const kiln_value *v);

/* Writes what runs change to a file that takes the place of `path` when it is whole: every slot that is not
 * constant (parameters, buffers, the optimiser's state, counters) and the state of the random numbers. It is
 * a plain safetensors file: a tensor a slot under the slot's name, numbers as tensors of rank 0. STATE from
 * within a run. */
KILN_API kiln_status kiln_session_checkpoint(kiln_session *s, const char *path);
/* Takes all of it back: runs then give what they would have given, to the bit. The file is checked whole
 * before anything changes. IO where it cannot be read, FORMAT where it is damaged or no checkpoint, VERSION
 * where a newer kiln wrote it, ARG where it does not fit the graph: names, dtypes and sizes are those of the
 * slots, none missing and none left; the sentence names each that is at fault. */
KILN_API kiln_status kiln_session_restore(kiln_session *s, const char *path);

/* Plans for the inputs set, without running; gives the bytes that all intermediate tensors of a run take
 * together, in whatever layout, with scratchpads and the constants that were packed for it. A run with inputs
 * of these sizes then allocates only its results, a block for each tensor among them. */
KILN_API kiln_status kiln_session_memory(kiln_session *s, size_t *bytes);
/* Runs inside memory of the caller's, aligned to 64 bytes. From the next run on intermediate tensors,
 * results, and tensors that functions of the host are given lie in it, and runs take nothing from the
 * context's allocator. What stays between runs is taken from there once, and kept: the plan for inputs of new
 * sizes, with scratchpads and packed constants (kiln_session_arena_bytes makes it), what kernels work in (by
 * the first run), a tensor or two for each slot that runs write and each input that they overwrite (by the
 * first two); and texts that the program makes are, for as long as it makes them. Of graphs on a GPU only
 * what the host has of tensors lies there.
 *
 * Results are the arena's, and good until the next run, which does not begin (STATE) while somebody still
 * holds one, be it as an input: kiln_tensor_read copies their elements. Nobody else may write to the memory;
 * it must stay until the session has another, or none, or is freed, and all tensors in it are released.
 * kiln_session_test and _profile run outside of it. `memory` NULL: no arena. Either way the outputs of the
 * last run are gone. ARG when it is not aligned, STATE within a run. */
KILN_API kiln_status kiln_session_set_arena(kiln_session *s, void *memory, size_t bytes);
/* The bytes that an arena must have for the inputs set, as kiln_session_memory without running: a run there
 * with less is NOMEM before it begins. With as much it goes through, but where only the run knows how large
 * tensors are, or how many of them a loop or a list holds at a time: then it may end with NOMEM, and slots
 * are as before. */
KILN_API kiln_status kiln_session_arena_bytes(kiln_session *s, size_t *bytes);
/* What each node of the graph takes on the inputs set, as text: tables of lines of the program and of nodes,
 * the slowest first, with times, work done and shares of what the machine reaches. What the runs store, draw
 * and overwrite is forgotten; functions of the host are called, and output is made. */
typedef struct kiln_profile_options {
  size_t size;       /* sizeof(kiln_profile_options) */
  int runs;          /* that are timed; 0: 10 */
  int nodes;         /* not 0: each node alone; else those computed together are one */
  const char *trace; /* also write each step, as JSON that chrome://tracing and Perfetto read; NULL: do not */
} kiln_profile_options;
/* options NULL: defaults. *text is the session's, until its next profile. */
KILN_API kiln_status kiln_session_profile(kiln_session *s, const kiln_profile_options *options,
                                          const char **text);
/* Starts the session's random numbers anew. */
KILN_API void kiln_session_seed(kiln_session *s, uint64_t seed);
/* on not 0: each node is also computed by the reference, and a difference beyond rounding ends the run,
 * INTERNAL, with a sentence that names it. Slow. */
KILN_API void kiln_session_set_check(kiln_session *s, int on);
/* Limits of the next runs. One that passes a limit ends with LIMIT and a sentence that names the line which
 * would have come next; slots, random numbers and inputs are then as they were before it. 0: no limit.
 *
 * Steps of a run: parts of its graph (what a backend computes as one) and trips of its loops. A part counts
 * for one more with every 16 million operations and bytes that it takes: tensors that repeat their elements
 * need little memory, and may be endless. */
KILN_API void kiln_session_set_step_limit(kiln_session *s, uint64_t steps);
/* Trips of any one loop, from where it is entered to where it is left. */
KILN_API void kiln_session_set_trip_limit(kiln_session *s, uint64_t trips);
/* Seconds from the call of kiln_session_run, by a clock that never goes back. It is read before each step,
 * not within one: a run goes on until the part under way has ended, be it a product, a convolution, a
 * recurrent layer, or a function of the host, and making the plan for sizes that are new is one such part. On
 * a GPU, where a launch may hold loops, it is read while they run, and they end at their next trip. Below 0
 * and NaN: ARG, and nothing has changed; infinity: no limit. */
KILN_API kiln_status kiln_session_set_deadline(kiln_session *s, double seconds);
/* Ends the run in progress at its next step with CANCELLED, or, when none is in progress, the next one as it
 * starts. Each call ends one run. Safe from any thread, and from a signal handler. */
KILN_API void kiln_session_cancel(kiln_session *s);

#ifdef __cplusplus
}
#endif
#endif
