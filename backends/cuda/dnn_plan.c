/* From a graph to a plan: the library's heuristics name engines, the best one that is allowed and that can be
 * made is taken. Making one may compile kernels for a second, so plans are kept: in memory by the bytes of
 * the problem, on disk by the text of the graph and all that says for which machine it was made; what the
 * library does not take from there is made again. */
#include "backends/cuda/dnn_inside.h"
#include "core/heap.h"
#include <string.h>

enum { MOST_CONFIGURATIONS = 64, MOST_NOTES = CUDNN_NUMERICAL_NOTE_TYPE_COUNT };
#define MOST_WORKSPACE ((int64_t)1 << 30)

/* ---- which engines are allowed ---- */

typedef struct notes {
  bool has[MOST_NOTES];
  int64_t engine;
} notes;

static notes read_notes(const cu_dnn *s, cu_desc configuration) {
  const cu_api *f = s->api;
  notes out = {.engine = -1};
  cudnnBackendNumericalNote_t list[MOST_NOTES];
  int64_t n = 0;
  cu_desc engine;
  if (f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine)) return out;
  if (!f->cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   1, &n, &engine)) {
    f->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &out.engine);
    if (!f->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                     MOST_NOTES, &n, list))
      for (int64_t i = 0; i < n && i < MOST_NOTES; i++)
        if ((unsigned)list[i] < MOST_NOTES) out.has[list[i]] = true;
  }
  f->cudnnBackendDestroyDescriptor(engine);
  return out;
}

/* What an engine does to numbers that it may not do; NULL: it is allowed. */
static const char *forbidden(const cu_plan *p, const notes *n) {
  if (p->exact && n->has[CUDNN_NUMERICAL_NOTE_TENSOR_CORE]) return "it rounds factors to TF32";
  if (n->has[CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS]) return "it rounds its inputs";
  if (n->has[CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION]) return "it rounds partial sums";
  if (p->deterministic && n->has[CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC]) return "it is not deterministic";
  return NULL;
}

/* ---- making one ---- */

static bool make_plan(const cu_dnn *s, cu_desc configuration, cu_plan *p) {
  const cu_api *f = s->api;
  cu_desc plan = NULL;
  int64_t n = 0;
  cudnnStatus_t r = f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
  if (r) return false;
  r = f->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configuration);
  if (!r)
    r = f->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    1, &s->device);
  if (!r) r = f->cudnnBackendFinalize(plan);
  if (!r)
    r = f->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n,
                                    &p->facts.workspace);
  if (!r && p->facts.workspace <= MOST_WORKSPACE) {
    p->plan = plan;
    return true;
  }
  if (r)
    cu_dnn_error(s, r, "a plan", p->why, sizeof p->why);
  else
    snprintf(p->why, sizeof p->why, "its workspace would have %lld bytes", (long long)p->facts.workspace);
  f->cudnnBackendDestroyDescriptor(plan);
  return false;
}

/* The first of them that is allowed and can be made. */
static bool try_all(const cu_dnn *s, const cu_desc *configurations, int64_t n, cu_plan *p) {
  for (int64_t i = 0; i < n; i++) {
    notes k = read_notes(s, configurations[i]);
    const char *not_allowed = forbidden(p, &k);
    if (not_allowed) {
      if (!p->why[0]) snprintf(p->why, sizeof p->why, "engine %lld: %s", (long long)k.engine, not_allowed);
    } else if (p->left) {
      p->left--;
    } else if (make_plan(s, configurations[i], p)) {
      p->facts.engine = k.engine;
      p->facts.tensor_cores = k.has[CUDNN_NUMERICAL_NOTE_TENSOR_CORE];
      p->facts.deterministic = !k.has[CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC];
      return true;
    }
  }
  return false;
}

static bool ask(cu_graph *g, cu_desc graph, cudnnBackendHeurMode_t mode, cu_plan *p) {
  const cu_dnn *s = g->s;
  const cu_api *f = g->api;
  cu_desc heuristics = NULL, list[MOST_CONFIGURATIONS];
  int64_t most = 0, n = 0, made = 0;
  bool done = false;
  if (f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics)) return false;
  cudnnStatus_t r = f->cudnnBackendSetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
  if (!r)
    r = f->cudnnBackendSetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (!r)
    r = f->cudnnBackendSetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &s->device);
  if (!r) r = f->cudnnBackendFinalize(heuristics);
  if (!r)
    r = f->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    0, &most, NULL);
  if (most > MOST_CONFIGURATIONS) most = MOST_CONFIGURATIONS;
  while (!r && made < most) {
    r = f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &list[made]);
    if (!r) made++;
  }
  if (!r && made)
    r = f->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    made, &n, list);
  if (r && !p->why[0]) cu_dnn_error(s, r, "its heuristics", p->why, sizeof p->why);
  if (!r) {
    p->facts.configurations += (int)n;
    done = try_all(s, list, n, p);
  }
  while (made) f->cudnnBackendDestroyDescriptor(list[--made]);
  f->cudnnBackendDestroyDescriptor(heuristics);
  return done;
}

static void find_engine(cu_graph *g, cu_plan *p) {
  static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  const cu_api *f = g->api;
  cu_desc graph = NULL;
  cudnnStatus_t r = f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &graph);
  if (!r)
    r = f->cudnnBackendSetAttribute(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    g->nops, g->ops);
  if (!r) r = f->cudnnBackendFinalize(graph);
  if (r) {
    cu_dnn_error(g->s, r, "the graph", p->why, sizeof p->why);
  } else {
    for (size_t i = 0; i < sizeof modes / sizeof *modes && !p->plan; i++) ask(g, graph, modes[i], p);
    if (!p->plan && !p->why[0])
      snprintf(p->why, sizeof p->why, "cuDNN has no engine for it%s%.200s", g->s->reasons[0] ? ": " : "",
               g->s->reasons);
  }
  if (graph) f->cudnnBackendDestroyDescriptor(graph);
}

/* ---- written down ---- */

/* The text is the caller's: kn_free(heap, *json, *bytes + 1). */
static bool plan_text(const cu_dnn *s, const cu_plan *p, char **json, size_t *bytes) {
  const cu_api *f = s->api;
  int64_t n = 0, written = 0;
  if (f->cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0,
                                  &n, NULL))
    return false;
  char *text = kn_alloc(s->heap, (size_t)n + 1);
  if (!text) return false;
  if (f->cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, n,
                                  &written, text) ||
      written != n) {
    kn_free(s->heap, text, (size_t)n + 1);
    return false;
  }
  text[n] = 0;
  *bytes = (size_t)n;
  *json = text;
  return true;
}

kn_status cu_plan_write(kn_context *ctx, cu_dnn *s, const cu_plan *p, char **json, size_t *bytes) {
  return plan_text(s, p, json, bytes) ? KN_OK
                                      : cu_dnn_fail(ctx, s, CUDNN_STATUS_NOT_SUPPORTED, "a plan as text");
}

static cu_desc read_plan(cu_dnn *s, const char *json, size_t bytes) {
  const cu_api *f = s->api;
  cu_desc plan = NULL;
  if (f->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan)) return NULL;
  cudnnStatus_t r = f->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &s->device);
  if (!r)
    r = f->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                    (int64_t)bytes, json);
  if (!r) r = f->cudnnBackendFinalize(plan);
  if (!r) return plan;
  f->cudnnBackendDestroyDescriptor(plan);
  return NULL;
}

bool cu_plan_reads(cu_dnn *s, const char *json, size_t bytes) {
  cu_desc plan = read_plan(s, json, bytes);
  if (plan) s->api->cudnnBackendDestroyDescriptor(plan);
  return plan != NULL;
}

/* ---- on disk ---- */

/* What is asked of the engine, beside the graph. */
static void disk_key(const cu_plan *p, char *key, size_t size) {
  int n = snprintf(key, size, "plan of cuDNN%s%s", p->exact ? ", exact" : "",
                   p->deterministic ? ", deterministic" : "");
  if (p->nth) snprintf(key + n, size - (size_t)n, ", engine %d", p->nth + 1);
}

static bool read_from_disk(cu_graph *g, cu_plan *p) {
  cu_dnn *s = g->s;
  cu_image json;
  char key[64];
  int64_t n = 0;
  disk_key(p, key, sizeof key);
  if (!cu_disk_read(&s->disk, s->identity, key, g->text.s, &json)) return false;
  p->plan = read_plan(s, json.data, json.bytes);
  kn_free(s->heap, json.data, json.bytes);
  if (p->plan && !s->api->cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                   CUDNN_TYPE_INT64, 1, &n, &p->facts.workspace))
    return true;
  if (p->plan) s->api->cudnnBackendDestroyDescriptor(p->plan);
  p->plan = NULL;
  return false;
}

static void write_to_disk(cu_graph *g, const cu_plan *p) {
  cu_dnn *s = g->s;
  cu_image json;
  char key[64], *text;
  if (!s->disk.dir[0] || !plan_text(s, p, &text, &json.bytes)) return;
  json.data = text;
  disk_key(p, key, sizeof key);
  cu_disk_write(&s->disk, s->identity, key, g->text.s, &json);
  kn_free(s->heap, text, json.bytes + 1);
}

/* ---- kept ---- */

static uint32_t hash(const void *problem, size_t size) {
  const unsigned char *at = problem;
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < size; i++) h = (h ^ at[i]) * 16777619u;
  return h % CU_DNN_BUCKETS;
}

static cu_plan *find(cu_dnn *s, const cu_plan *like) {
  cu_plan *p = s->plans[hash(like->problem, like->size)];
  while (p &&
         !(p->make == like->make && p->size == like->size && p->exact == like->exact && p->nth == like->nth &&
           p->deterministic == like->deterministic && !memcmp(p->problem, like->problem, like->size)))
    p = p->next;
  return p;
}

static void free_plan(cu_dnn *s, cu_plan *p) {
  if (p->plan) s->api->cudnnBackendDestroyDescriptor(p->plan);
  kn_free(s->heap, p->problem, p->size);
  kn_free(s->heap, p, sizeof *p);
}

void cu_dnn_drop_plans(cu_dnn *s) {
  for (int i = 0; i < CU_DNN_BUCKETS; i++)
    while (s->plans[i]) {
      cu_plan *p = s->plans[i];
      s->plans[i] = p->next;
      free_plan(s, p);
    }
}

static void build(cu_dnn *s, cu_plan *p) {
  cu_graph g;
  s->listening = true;
  s->reasons[0] = 0;
  cu_graph_open(&g, s);
  p->make(&g, p->problem);
  if (g.failed || g.text.failed)
    snprintf(p->why, sizeof p->why, "%s", g.failed ? g.why : "no memory");
  else if (!read_from_disk(&g, p)) {
    find_engine(&g, p);
    if (p->plan) write_to_disk(&g, p);
  }
  p->nreal = g.nreal;
  memcpy(p->real, g.real, sizeof p->real);
  cu_graph_close(&g);
  s->listening = false;
  if (p->plan)
    p->why[0] = 0;
  else
    p->facts.why = p->why;
}

/* The lock is held. */
static kn_status add(kn_context *ctx, cu_dnn *s, const cu_plan *like, cu_plan **out) {
  cu_plan *p = kn_calloc(s->heap, 1, sizeof *p);
  void *problem = kn_alloc(s->heap, like->size);
  if (!p || !problem) {
    kn_free(s->heap, p, sizeof *p);
    kn_free(s->heap, problem, like->size);
    return kn_fail_nomem(ctx, sizeof *p + like->size);
  }
  *p = *like;
  p->problem = memcpy(problem, like->problem, like->size);
  build(s, p);
  cu_plan **bucket = &s->plans[hash(p->problem, p->size)];
  p->next = *bucket;
  *bucket = p;
  *out = p;
  return KN_OK;
}

kn_status cu_dnn_plan(kn_context *ctx, cu_dnn *s, cu_make_fn make, const void *problem, size_t size,
                      bool exact, int nth, const cu_plan **out, const char **why) {
  cu_plan like = {.make = make,
                  .problem = (void *)(uintptr_t)problem,
                  .size = size,
                  .exact = exact && kn_context_precision(ctx) == KN_FLOAT32_HIGHEST,
                  .deterministic = kn_context_deterministic(ctx),
                  .nth = nth,
                  .left = nth,
                  .facts = {.engine = -1}};
  pthread_mutex_lock(&s->lock);
  cu_plan *p = find(s, &like);
  kn_status st = p ? KN_OK : add(ctx, s, &like, &p);
  pthread_mutex_unlock(&s->lock);
  if (st != KN_OK) return st;
  *why = p->facts.why;
  *out = p;
  return p->plan ? KN_OK : KN_DECLINED;
}

cu_plan_facts cu_plan_read(const cu_plan *p) { return p->facts; }

/* ---- run ---- */

/* The lock is held: the handle has one stream at a time. */
static cudnnStatus_t execute(cu_dnn *s, CUstream stream, const cu_plan *p, cu_desc pack, void *const *data,
                             void *workspace) {
  const cu_api *f = s->api;
  cudnnStatus_t r = f->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                                p->nreal, p->real);
  if (!r)
    r = f->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
                                    p->nreal, data);
  if (!r)
    r = f->cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                                    &workspace);
  if (!r) r = f->cudnnBackendFinalize(pack);
  if (!r) r = f->cudnnSetStream(s->handle, (cudaStream_t)stream);
  return r ? r : f->cudnnBackendExecute(s->handle, p->plan, pack);
}

kn_status cu_plan_run(kn_context *ctx, cu_device *d, const cu_plan *p, void *const *data, int n) {
  cu_dnn *s = d->dnn;
  CUdeviceptr workspace = 0;
  cu_desc pack;
  if (n != p->nreal) return kn_fail(ctx, KN_INTERNAL, "a plan of %d tensors was given %d", p->nreal, n);
  DNN_TRY(ctx, s, s->api->cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack),
          "addresses");
  kn_status st = KN_OK;
  if (p->facts.workspace) st = cu_workspace(ctx, d, (size_t)p->facts.workspace, &workspace);
  if (st == KN_OK) {
    pthread_mutex_lock(&s->lock);
    cudnnStatus_t r = execute(s, cu_stream(ctx, d), p, pack, data, (void *)(uintptr_t)workspace);
    if (r) st = cu_dnn_fail(ctx, s, r, "a plan that runs");
    pthread_mutex_unlock(&s->lock);
  }
  if (workspace) cu_free(d, workspace, (size_t)p->facts.workspace);
  s->api->cudnnBackendDestroyDescriptor(pack);
  return st;
}
