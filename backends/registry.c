/* The list of backends: the only place that names them. A backend is probed, and its library opened, when a
 * context first needs it, so that starting costs nothing. The state hangs off the context that opened the
 * registry and serves its children too, which may run in other threads: hence the lock. */
#include "backends/registry.h"
#include "backends/cpu/cpu.h"
#include "backends/cuda/cuda.h"
#include "backends/onednn/onednn.h"
#include "backends/ref/ref.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* In order of preference; the reference ends the list. */
static const kn_backend *const rows[] = {&kn_cuda_backend, &kn_onednn_backend, &kn_cpu_backend,
                                         &kn_ref_backend};
enum { ROWS = sizeof rows / sizeof *rows };

typedef enum row_phase { ROW_UNPROBED, ROW_WORKS, ROW_ABSENT } row_phase;

typedef struct row_state {
  _Atomic row_phase phase;
  bool allowed; /* by the choice given when the registry was opened */
  void *state;
  char version[KN_BACKEND_VERSION], reason[KN_BACKEND_REASON];
  kn_target target;
} row_state;

typedef struct registry {
  pthread_mutex_t lock; /* held while probing and while making the list of targets */
  row_state rows[ROWS];
  struct targets {
    const kn_target *of[ROWS];
    int n;                 /* 0: not made yet */
  } targets[2];            /* of the CPU; with those of devices that were asked for */
  char *dir;               /* of caches */
  char *libraries;         /* folders */
  kn_tuner *_Atomic tuner; /* NULL: not asked for yet */
} registry;

static registry *find_registry(const kn_context *ctx) {
  for (; ctx; ctx = ctx->parent)
    if (ctx->backend_state[0]) return ctx->backend_state[0];
  return NULL;
}

static int find_row(const char *name) {
  for (int i = 0; i < ROWS; i++)
    if (!strcmp(rows[i]->name, name)) return i;
  return -1;
}

/* The lock is held. False: it was probed before. */
/* Want of memory is nothing that the machine is like. */
static bool lacks_memory(registry *r, int i) {
  pthread_mutex_lock(&r->lock);
  bool lacks = atomic_load(&r->rows[i].phase) == ROW_UNPROBED && !strcmp(r->rows[i].reason, KN_WHY_MEMORY);
  pthread_mutex_unlock(&r->lock);
  return lacks;
}

static bool probe_locked(kn_context *ctx, registry *r, int i) {
  row_state *x = &r->rows[i];
  if (atomic_load(&x->phase) != ROW_UNPROBED) return false;
  bool works = rows[i]->probe(ctx, &x->state, x->version, x->reason, sizeof x->reason);
  if (works)
    x->reason[0] = 0;
  else if (!x->reason[0])
    snprintf(x->reason, sizeof x->reason, "it does not say why");
  atomic_store(&x->phase, works ? ROW_WORKS : strcmp(x->reason, KN_WHY_MEMORY) ? ROW_ABSENT : ROW_UNPROBED);
  return true;
}

/* Only what is on the CPU is looked for unasked: a driver of another device takes long to start. */
static bool unasked(const registry *r, int i) {
  return r->rows[i].allowed && (rows[i]->device == KN_CPU || atomic_load(&r->rows[i].phase) != ROW_UNPROBED);
}

static bool works(kn_context *ctx, registry *r, int i) {
  row_state *x = &r->rows[i];
  if (atomic_load(&x->phase) == ROW_UNPROBED) {
    pthread_mutex_lock(&r->lock);
    bool probed = probe_locked(ctx, r, i);
    pthread_mutex_unlock(&r->lock); /* who is told may ask */
    bool works = atomic_load(&x->phase) == ROW_WORKS;
    if (probed && kn_debugging(ctx, KN_DEBUG_DISPATCH))
      kn_log(ctx, "dispatch: backend %s %s%s", rows[i]->name,
             works ? x->version : "is not there: ", x->reason);
  }
  return atomic_load(&x->phase) == ROW_WORKS;
}

/* ---- opening ---- */

static kn_status unknown_choice(kn_context *ctx, const char *choice) {
  char known[128] = "";
  for (int i = 0; i < ROWS; i++) {
    size_t at = strlen(known);
    snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", rows[i]->name);
  }
  return kn_fail(ctx, KN_ARG, "there is no backend \"%s\"; known are %s", choice, known);
}

/* Eager kernels go in front of those that are there, so the list is walked from its end. */
static kn_status add_providers(kn_context *ctx, const registry *r) {
  for (int i = ROWS - 1; i >= 0; i--) {
    if (r->rows[i].allowed && rows[i]->rest) KN_TRY(kn_device_add(ctx, rows[i]->device, rows[i]->rest()));
    if (r->rows[i].allowed && rows[i]->provider && rows[i]->provider() != &kn_ref_provider)
      KN_TRY(kn_device_add(ctx, rows[i]->device, rows[i]->provider()));
  }
  return KN_OK;
}

/* Replaces *to, a text of the registry's, or NULL. */
static kn_status keep_text(kn_context *ctx, char **to, const char *text) {
  char *kept = text ? kn_alloc(ctx->heap, strlen(text) + 1) : NULL;
  if (text && !kept) return kn_fail_nomem(ctx, strlen(text) + 1);
  if (kept) memcpy(kept, text, strlen(text) + 1);
  if (*to) kn_free(ctx->heap, *to, strlen(*to) + 1);
  *to = kept;
  return KN_OK;
}

/* The first row of a device beside the CPU that works, or UNSUPPORTED with the reason. */
static kn_status find_device(kn_context *ctx, registry *r, kn_device_id d, int *out) {
  const char *why = "no backend computes on it";
  for (int i = 0; r && i < ROWS; i++) {
    if (rows[i]->device != d) continue;
    if (!r->rows[i].allowed)
      why = "another backend was asked for";
    else if (!works(ctx, r, i)) {
      if (lacks_memory(r, i)) return kn_fail_nomem(ctx, 0);
      why = r->rows[i].reason;
    } else if (rows[i]->memory && rows[i]->door) {
      *out = i;
      return KN_OK;
    }
  }
  return kn_fail(ctx, KN_UNSUPPORTED, "device %s cannot be used here: %s", kn_device_name(d), why);
}

/* kn_context's open_device. */
static kn_status open_device(kn_context *ctx, kn_device_id d, const kn_memory **out) {
  registry *r = find_registry(ctx);
  int i;
  KN_TRY(find_device(ctx, r, d, &i));
  *out = rows[i]->memory(ctx, r->rows[i].state);
  return KN_OK;
}

kn_status kn_registry_door(kn_context *ctx, kn_device_id d, const kn_device_door **door, void **state) {
  registry *r = find_registry(ctx);
  int i;
  KN_TRY(find_device(ctx, r, d, &i));
  *door = rows[i]->door;
  *state = r->rows[i].state;
  return KN_OK;
}

kn_status kn_registry_open(kn_context *ctx, const char *choice) {
  return kn_registry_open_with(ctx, choice, NULL);
}

kn_status kn_registry_open_with(kn_context *ctx, const char *choice, const char *libraries) {
  if (choice && !*choice) choice = NULL;
  int chosen = choice ? find_row(choice) : -1;
  if (choice && chosen < 0) return unknown_choice(ctx, choice);
  if (find_registry(ctx)) return kn_fail(ctx, KN_STATE, "the backends of this context are open already");
  registry *r = kn_calloc(ctx->heap, 1, sizeof *r);
  if (!r) return kn_fail_nomem(ctx, sizeof *r);
  pthread_mutex_init(&r->lock, NULL);
  for (int i = 0; i < ROWS; i++)
    r->rows[i].allowed = !choice || i == chosen || i == ROWS - 1 || rows[i]->device != rows[chosen]->device;
  ctx->backend_state[0] = r;
  ctx->open_device = open_device;
  kn_status st = keep_text(ctx, &r->libraries, libraries && *libraries ? libraries : NULL);
  if (st == KN_OK && choice && !works(ctx, r, chosen))
    st = lacks_memory(r, chosen) ? kn_fail_nomem(ctx, 0)
                                 : kn_fail(ctx, KN_UNSUPPORTED, "backend %s cannot be used here: %s", choice,
                                           r->rows[chosen].reason);
  if (st == KN_OK) st = add_providers(ctx, r);
  if (st != KN_OK) kn_registry_close(ctx);
  return st;
}

void kn_registry_close(kn_context *ctx) {
  registry *r = ctx->backend_state[0];
  if (!r) return;
  ctx->backend_state[0] = NULL;
  ctx->open_device = NULL;
  memset(ctx->memory, 0, sizeof ctx->memory);
  for (int i = 0; i < ROWS; i++)
    if (atomic_load(&r->rows[i].phase) == ROW_WORKS && rows[i]->close) rows[i]->close(ctx, r->rows[i].state);
  for (int i = 0; i < ROWS; i++) { /* or the next one to be opened would have them beside its own */
    if (rows[i]->rest) kn_device_remove(ctx, rows[i]->device, rows[i]->rest());
    if (rows[i]->provider && rows[i]->provider() != &kn_ref_provider)
      kn_device_remove(ctx, rows[i]->device, rows[i]->provider());
  }
  kn_tuner_free(atomic_load(&r->tuner));
  (void)keep_text(ctx, &r->dir, NULL);
  (void)keep_text(ctx, &r->libraries, NULL);
  pthread_mutex_destroy(&r->lock);
  kn_free(ctx->heap, r, sizeof *r);
}

/* ---- asking ---- */

int kn_registry_count(void) { return ROWS; }

const kn_provider *kn_registry_provider(int i) {
  return rows[i]->provider && rows[i]->device == KN_CPU ? rows[i]->provider() : NULL;
}

void kn_registry_report(kn_context *ctx, int i, kn_backend_report *out) {
  registry *r = find_registry(ctx);
  *out = (kn_backend_report){.name = i >= 0 && i < ROWS ? rows[i]->name : "?"};
  if (i < 0 || i >= ROWS) {
    snprintf(out->reason, sizeof out->reason, "there is no such row");
  } else if (!r) {
    snprintf(out->reason, sizeof out->reason, "the backends of this context are not open");
  } else if ((out->available = works(ctx, r, i))) {
    memcpy(out->version, r->rows[i].version, sizeof out->version);
  } else {
    pthread_mutex_lock(&r->lock);
    memcpy(out->reason, r->rows[i].reason, sizeof out->reason);
    pthread_mutex_unlock(&r->lock);
  }
}

void *kn_backend_state(kn_context *ctx, const kn_backend *b) {
  registry *r = find_registry(ctx);
  for (int i = 0; r && i < ROWS; i++)
    if (rows[i] == b) return works(ctx, r, i) ? r->rows[i].state : NULL;
  return NULL;
}

kn_status kn_registry_targets(kn_context *ctx, const kn_target *const **targets, int *n) {
  registry *r = find_registry(ctx);
  if (!r) return kn_fail(ctx, KN_STATE, "the backends of this context are not open");
  bool others = false;
  for (int i = 0; i < ROWS; i++)
    if (unasked(r, i) && rows[i]->target) {
      others |= works(ctx, r, i) && rows[i]->device != KN_CPU;
      if (lacks_memory(r, i)) return kn_fail_nomem(ctx, 0); /* the list is made once */
    }
  struct targets *t = &r->targets[others];
  pthread_mutex_lock(&r->lock);
  if (!t->n)
    for (int i = 0; i < ROWS; i++) {
      row_state *x = &r->rows[i];
      if (!x->allowed || !rows[i]->target || (rows[i]->device != KN_CPU && !others)) continue;
      if (atomic_load(&x->phase) == ROW_WORKS && rows[i]->target(ctx, x->state, &x->target))
        t->of[t->n++] = &x->target;
    }
  pthread_mutex_unlock(&r->lock);
  *targets = t->of;
  *n = t->n;
  return KN_OK;
}

/* ---- what was measured ---- */

kn_status kn_registry_remember(kn_context *ctx, const char *dir) {
  registry *r = find_registry(ctx);
  if (!r || atomic_load(&r->tuner))
    return kn_fail(ctx, KN_STATE, "it is too late to name a folder for caches");
  return keep_text(ctx, &r->dir, dir);
}

const char *kn_registry_cache(const kn_context *ctx) {
  const registry *r = find_registry(ctx);
  return r ? r->dir : NULL;
}

const char *kn_registry_libraries(const kn_context *ctx) {
  const registry *r = find_registry(ctx);
  return r ? r->libraries : NULL;
}

/* Numbers of one are none of another: the processor, and who computes. "" where the processor is not known.
 */
static void name_machine(const registry *r, char *text, size_t size) {
  char processor[256];
  kn_tune_processor(processor, sizeof processor);
  int at = snprintf(text, size, "kiln %s; %s", KN_VERSION_TEXT, processor);
  for (int i = 0; i < ROWS && at < (int)size; i++) {
    if (atomic_load(&r->rows[i].phase) != ROW_WORKS || !rows[i]->provider || rows[i]->device != KN_CPU)
      continue;
    at += snprintf(text + at, size - (size_t)at, "; %s %s", rows[i]->provider()->name, r->rows[i].version);
  }
  if (!processor[0]) text[0] = 0;
}

kn_tuner *kn_registry_tuner(kn_context *ctx) {
  registry *r = find_registry(ctx);
  kn_tuner *t = r ? atomic_load(&r->tuner) : NULL;
  if (t || !r) return t;
  for (int i = 0; i < ROWS; i++)
    if (unasked(r, i)) (void)works(ctx, r, i);
  char machine[512];
  pthread_mutex_lock(&r->lock);
  t = atomic_load(&r->tuner);
  if (!t) {
    name_machine(r, machine, sizeof machine);
    /* On the heap of who asked first: children share it. */
    atomic_store(&r->tuner, t = kn_tuner_new(ctx->heap, r->dir, machine));
  }
  pthread_mutex_unlock(&r->lock);
  return t;
}
