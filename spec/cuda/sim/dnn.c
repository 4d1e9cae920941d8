/* libcudnn.so.9 of the software device: the backend interface, whose descriptors keep what was set; graphs
 * are computed by dnn_run.c, in the order of the stream. Two engines: one rounds float32 to TF32 and says so,
 * one does not. A plan's text holds its whole graph, so that it can be read back. */
#include "spec/cuda/sim/dnn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { WORKSPACE = 1024, MOST_OPS_TO_REFUSE = 1 };

struct cudnnContext {
  cudaStream_t stream;
};

/* For tests: what was run last, and what no engine shall be found for: 1 graphs of several ops, 2 all. */
EXPORT int64_t sim_dnn_calls, sim_dnn_engine, sim_dnn_plans, sim_dnn_reads;
EXPORT int sim_dnn_refuses;

static char last_error[256];
static cudnnCallback_t callback;
static void *callback_data;
static unsigned callback_mask;

static cudnnStatus_t fail(cudnnStatus_t r, const char *why) {
  char lines[300] = {0}; /* ends in two zeros, as the library's messages do */
  snprintf(last_error, sizeof last_error, "%s", why);
  snprintf(lines, sizeof lines - 1, "Warning: %s", why);
  if (callback && callback_mask & CUDNN_SEV_WARNING_EN)
    callback(CUDNN_SEV_WARNING, callback_data, NULL, lines);
  return r;
}

/* ---- descriptors ---- */

static size_t size_of(int type) {
  switch (type) {
  case CUDNN_TYPE_BOOLEAN:
  case CUDNN_TYPE_CHAR: return 1;
  case CUDNN_TYPE_INT64:
  case CUDNN_TYPE_DOUBLE:
  case CUDNN_TYPE_VOID_PTR:
  case CUDNN_TYPE_HANDLE:
  case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
  default: return 4;
  }
}

const sim_attribute *sim_attribute_of(const sim_desc *d, int name) {
  const sim_attribute *a = d ? d->set : NULL;
  while (a && a->name != name) a = a->next;
  return a;
}

sim_desc *sim_desc_of(const sim_desc *d, int name, int64_t i) {
  const sim_attribute *a = sim_attribute_of(d, name);
  return a && i < a->count ? ((sim_desc **)a->data)[i] : NULL;
}

int64_t sim_int_of(const sim_desc *d, int name, int64_t otherwise) {
  const sim_attribute *a = sim_attribute_of(d, name);
  if (!a || !a->count) return otherwise;
  size_t size = size_of(a->type);
  return size == 1   ? *(const unsigned char *)a->data
         : size == 4 ? *(const int32_t *)a->data
                     : *(const int64_t *)a->data;
}

static void release(sim_desc *d);

static void release_all(sim_attribute *a) {
  while (a) {
    sim_attribute *next = a->next;
    for (int64_t i = 0; a->type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < a->count; i++)
      release(((sim_desc **)a->data)[i]);
    free(a->data);
    free(a);
    a = next;
  }
}

static void release(sim_desc *d) {
  if (!d || --d->refs) return;
  release_all(d->set);
  free(d);
}

static bool put(sim_desc *d, int name, int type, int64_t count, const void *from) {
  size_t bytes = (size_t)count * size_of(type);
  sim_attribute *a = calloc(1, sizeof *a), **at = &d->set;
  void *data = malloc(bytes + 1);
  if (!a || !data) return free(a), free(data), false;
  memcpy(data, from, bytes);
  for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++) ((sim_desc **)data)[i]->refs++;
  *a = (sim_attribute){name, type, count, data, NULL};
  while (*at && (*at)->name != name) at = &(*at)->next;
  if (*at) { /* set again */
    sim_attribute *old = *at;
    a->next = old->next;
    old->next = NULL;
    release_all(old);
  }
  *at = a;
  return true;
}

static sim_desc *new_desc(cudnnBackendDescriptorType_t type) {
  sim_desc *d = calloc(1, sizeof *d);
  if (d) d->type = type, d->refs = 1;
  return d;
}

/* ---- engines ---- */

const sim_desc *sim_graph_of(const sim_desc *plan) {
  const sim_desc *c = sim_desc_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
  return sim_desc_of(sim_desc_of(c, CUDNN_ATTR_ENGINECFG_ENGINE, 0), CUDNN_ATTR_ENGINE_OPERATION_GRAPH, 0);
}

int64_t sim_engine_of(const sim_desc *plan) {
  const sim_desc *c = sim_desc_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
  return sim_int_of(sim_desc_of(c, CUDNN_ATTR_ENGINECFG_ENGINE, 0), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 0);
}

static bool refused(const sim_desc *graph) {
  const sim_attribute *ops = sim_attribute_of(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
  return sim_dnn_refuses & 2 || (sim_dnn_refuses & 1 && ops && ops->count > MOST_OPS_TO_REFUSE);
}

static bool fill_configuration(sim_desc *to, sim_desc *graph, int64_t number) {
  sim_desc *engine = new_desc(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  const cudnnBackendNumericalNote_t note = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  bool done = engine &&
              put(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph) &&
              put(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &number) &&
              put(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                  number == SIM_ENGINE_TENSOR_CORE, &note) &&
              put(to, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
  release(engine);
  return to->final = done;
}

static cudnnStatus_t give_results(const sim_desc *h, int64_t most, int64_t *count, sim_desc **to) {
  sim_desc *graph = sim_desc_of(h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 0);
  *count = refused(graph) ? 0 : 2;
  if (!*count)
    return fail(CUDNN_STATUS_SUCCESS,
                "CUDNN_STATUS_NOT_SUPPORTED; Reason: the software device was told to refuse it");
  for (int64_t i = 0; i < most && i < *count; i++)
    if (!fill_configuration(to[i], graph, i ? SIM_ENGINE_PLAIN : SIM_ENGINE_TENSOR_CORE))
      return CUDNN_STATUS_ALLOC_FAILED;
  return CUDNN_STATUS_SUCCESS;
}

/* ---- plans as text ---- */

typedef struct text {
  char *s;
  size_t n, room;
} text;

static void add_bytes(text *t, const void *from, size_t n) {
  if (t->n + n > t->room) {
    t->room = 2 * (t->n + n);
    t->s = realloc(t->s, t->room);
  }
  memcpy(t->s + t->n, from, n);
  t->n += n;
}

static void add_int(text *t, int64_t v) {
  char digits[24];
  int n = snprintf(digits, sizeof digits, "%lld ", (long long)v);
  add_bytes(t, digits, (size_t)n);
}

static void write_desc(text *t, const sim_desc *d) {
  int64_t n = 0;
  for (const sim_attribute *a = d->set; a; a = a->next) n++;
  add_int(t, d->type);
  add_int(t, n);
  for (const sim_attribute *a = d->set; a; a = a->next) {
    add_int(t, a->name);
    add_int(t, a->type);
    add_int(t, a->count);
    for (int64_t i = 0; i < a->count; i++)
      if (a->type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        write_desc(t, ((sim_desc **)a->data)[i]);
      else
        for (size_t k = 0; k < size_of(a->type); k++)
          add_int(t, ((const unsigned char *)a->data)[(size_t)i * size_of(a->type) + k]);
  }
}

typedef struct cursor {
  const char *at, *end;
  bool bad;
} cursor;

static int64_t read_int(cursor *c) {
  int64_t v = 0;
  bool minus = c->at < c->end && *c->at == '-';
  if (minus) c->at++;
  if (c->at >= c->end || *c->at < '0' || *c->at > '9') c->bad = true;
  while (!c->bad && c->at < c->end && *c->at != ' ') v = v * 10 + (*c->at++ - '0');
  c->at++;
  return minus ? -v : v;
}

static sim_desc *read_desc(cursor *c) {
  sim_desc *d = new_desc((cudnnBackendDescriptorType_t)read_int(c));
  int64_t n = read_int(c);
  while (d && !c->bad && n-- > 0) {
    int name = (int)read_int(c), type = (int)read_int(c);
    int64_t count = read_int(c);
    size_t size = size_of(type);
    if (c->bad || count < 0 || count > c->end - c->at) break;
    unsigned char *data = calloc((size_t)count + 1, size);
    for (int64_t i = 0; data && i < count && !c->bad; i++)
      if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        ((sim_desc **)(void *)data)[i] = read_desc(c);
      else
        for (size_t k = 0; k < size; k++) data[(size_t)i * size + k] = (unsigned char)read_int(c);
    if (data && !c->bad) put(d, name, type, count, data);
    for (int64_t i = 0; data && type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++)
      release(((sim_desc **)(void *)data)[i]);
    free(data);
  }
  if (d) d->final = true;
  return d;
}

/* A plan's text: what was read becomes its engine configuration. */
static bool read_plan(sim_desc *plan, const char *json, int64_t n) {
  cursor c = {json, json + n, false};
  sim_desc *read = read_desc(&c);
  sim_desc *configuration = sim_desc_of(read, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
  bool done =
      !c.bad && configuration &&
      put(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configuration);
  release(read);
  sim_dnn_reads += done;
  return done;
}

static cudnnStatus_t give_text(const sim_desc *plan, int64_t most, int64_t *count, char *to) {
  text t = {0};
  sim_desc bare = {.type = plan->type};
  sim_attribute only = *sim_attribute_of(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  only.next = NULL;
  bare.set = &only;
  write_desc(&t, &bare);
  *count = (int64_t)t.n;
  if (to && most) memcpy(to, t.s, (size_t)(most < *count ? most : *count));
  free(t.s);
  return CUDNN_STATUS_SUCCESS;
}

/* ---- the library's functions ---- */

EXPORT size_t cudnnGetVersion(void) { return 91900; }
EXPORT const char *cudnnGetErrorString(cudnnStatus_t r) {
  return r == CUDNN_STATUS_SUCCESS         ? "CUDNN_STATUS_SUCCESS"
         : r == CUDNN_STATUS_BAD_PARAM     ? "CUDNN_STATUS_BAD_PARAM"
         : r == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
                                           : "CUDNN_STATUS_INTERNAL_ERROR";
}
EXPORT void cudnnGetLastErrorString(char *to, size_t size) {
  snprintf(to, size, "%s", last_error);
  last_error[0] = 0;
}
EXPORT cudnnStatus_t cudnnSetCallback(unsigned mask, void *data, cudnnCallback_t fn) {
  callback_mask = mask, callback_data = data, callback = fn;
  return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t *out) {
  *out = calloc(1, sizeof **out);
  return *out ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_ALLOC_FAILED;
}
EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t h) { return free(h), CUDNN_STATUS_SUCCESS; }
EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t stream) {
  h->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                  cudnnBackendDescriptor_t *out) {
  *out = new_desc(type);
  return *out ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_ALLOC_FAILED;
}
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
  return release(d), CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t opaque,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count,
                                              const void *from) {
  sim_desc *d = opaque;
  if (!d || d->final || count < 0 || (count && !from)) return fail(CUDNN_STATUS_BAD_PARAM, "an attribute");
  for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++) {
    const sim_desc *other = ((sim_desc *const *)from)[i];
    if (!other || !other->final) return fail(CUDNN_STATUS_BAD_PARAM, "a descriptor that is not final");
  }
  if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION)
    return read_plan(d, from, count) ? CUDNN_STATUS_SUCCESS
                                     : fail(CUDNN_STATUS_BAD_PARAM, "the text of a plan");
  return put(d, (int)name, (int)type, count, from) ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_ALLOC_FAILED;
}

EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t opaque) {
  sim_desc *d = opaque;
  const sim_attribute *dims = sim_attribute_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS);
  if (d->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR &&
      (!dims || !sim_attribute_of(d, CUDNN_ATTR_TENSOR_STRIDES)))
    return fail(CUDNN_STATUS_BAD_PARAM, "a tensor without sizes");
  for (int64_t i = 0; d->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR && i < dims->count; i++)
    if (((const int64_t *)dims->data)[i] <= 0) return fail(CUDNN_STATUS_BAD_PARAM, "a tensor that is empty");
  if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
    const int64_t bytes = WORKSPACE;
    if (!sim_graph_of(d)) return fail(CUDNN_STATUS_BAD_PARAM, "a plan without an engine");
    put(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes);
    sim_dnn_plans++;
  }
  d->final = true;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const opaque,
                                              cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t most, int64_t *count,
                                              void *to) {
  const sim_desc *d = opaque;
  if (!d->final) return fail(CUDNN_STATUS_BAD_PARAM, "a descriptor that is not final");
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) return give_results(d, most, count, to);
  if (name == CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION) return give_text(d, most, count, to);
  const sim_attribute *a = sim_attribute_of(d, (int)name);
  if (!a || a->type != (int)type) return fail(CUDNN_STATUS_NOT_SUPPORTED, "an attribute that was not set");
  *count = a->count;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) { /* given ones become copies */
    for (int64_t i = 0; i < most && i < a->count; i++) {
      sim_desc *into = ((sim_desc **)to)[i], *from = ((sim_desc **)a->data)[i];
      for (const sim_attribute *x = from->set; x; x = x->next) put(into, x->name, x->type, x->count, x->data);
      into->final = true;
    }
    return CUDNN_STATUS_SUCCESS;
  }
  memcpy(to, a->data, (size_t)(most < a->count ? most : a->count) * size_of(a->type));
  return CUDNN_STATUS_SUCCESS;
}

/* The numbers among its tensors, as they are now. */
static void read_numbers(sim_dnn_run *r) {
  const sim_attribute *ops = sim_attribute_of(sim_graph_of(r->plan), CUDNN_ATTR_OPERATIONGRAPH_OPS);
  for (int64_t i = 0; i < ops->count; i++)
    for (const sim_attribute *a = ((sim_desc **)ops->data)[i]->set; a; a = a->next) {
      const sim_desc *t = a->type == CUDNN_TYPE_BACKEND_DESCRIPTOR ? *(sim_desc **)a->data : NULL;
      if (!t || t->type != CUDNN_BACKEND_TENSOR_DESCRIPTOR ||
          !sim_int_of(t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, 0))
        continue;
      for (int64_t k = 0; k < r->n; k++)
        if (r->uids[k] == sim_int_of(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0))
          r->numbers[k] = sim_int_of(t, CUDNN_ATTR_TENSOR_DATA_TYPE, 0) == CUDNN_DATA_DOUBLE
                              ? *(const double *)r->data[k]
                              : (double)*(const float *)r->data[k];
    }
}

EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan,
                                         cudnnBackendDescriptor_t pack) {
  const sim_attribute *uids = sim_attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS),
                      *data = sim_attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS),
                      *space = sim_attribute_of(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  sim_dnn_run r = {.plan = plan};
  if (!h || !r.plan || !r.plan->final || !uids || !data || uids->count != data->count ||
      uids->count > SIM_DNN_MOST)
    return fail(CUDNN_STATUS_BAD_PARAM, "addresses");
  if (!space || !*(void **)space->data) return fail(CUDNN_STATUS_BAD_PARAM, "no workspace");
  r.n = uids->count;
  memcpy(r.uids, uids->data, (size_t)r.n * sizeof *r.uids);
  memcpy(r.data, data->data, (size_t)r.n * sizeof *r.data);
  read_numbers(&r);
  sim_dnn_calls++;
  sim_dnn_engine = sim_engine_of(plan);
  sim_takes(sim_dnn_engine == SIM_ENGINE_TENSOR_CORE ? 12e-6 : 8e-6);
  return sim_enqueue((CUstream)h->stream, sim_dnn_interpret, &r, sizeof r) ? CUDNN_STATUS_SUCCESS
                                                                           : CUDNN_STATUS_EXECUTION_FAILED;
}
