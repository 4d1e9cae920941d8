/* What the suites of kiln.h share: graphs written into files, an allocator that counts and fails when told,
 * and checks of a status with its sentence. */
#ifndef SPEC_CAPI_H
#define SPEC_CAPI_H
#include "bindings/c/kiln.h"
#include "graph/file.h"
#include "graph/text.h"
#include "spec/suite.h"
#include <unistd.h>

enum { PATH_ROOM = 32 };

/* An empty file of its own; the caller unlinks it. */
static inline void new_file(char path[PATH_ROOM]) {
  strcpy(path, "/tmp/kiln-capi-XXXXXX"); /* the X are mkstemp's */
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
}

static inline kn_graph *parsed(kn_context *c, const char *text) {
  kn_graph *g;
  OK(c, kn_graph_parse(c, text, strlen(text), &g));
  return g;
}

/* Zeros for slots without a tensor. */
static inline void fill_slots(kn_context *c, kn_graph *g) {
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_slot *x = g->slots[i];
    if (x->type.kind != KN_V_TENSOR || x->tensor) continue;
    OK(c, kn_tensor_new(c, &x->type.tensor, &x->tensor));
    memset(x->tensor->storage->data, 0, x->tensor->storage->bytes);
  }
}

/* Releases the graphs; the caller unlinks the file. Their entries are named as they are. */
static inline void write_graphs(kn_context *c, char path[PATH_ROOM], kn_graph **g, uint32_t n) {
  kn_entry entries[8] = {{.name = NULL}};
  ck_assert_uint_le(n, 8);
  for (uint32_t i = 0; i < n; i++) fill_slots(c, g[i]);
  for (uint32_t i = 0; i < n; i++) entries[i] = (kn_entry){.name = g[i]->name, .graph = g[i]};
  new_file(path);
  OK(c, kn_file_save(c, path, entries, n));
  for (uint32_t i = 0; i < n; i++) kn_graph_release(g[i]);
}

static inline void write_texts(char path[PATH_ROOM], const char *const *texts, uint32_t n) {
  kn_context *c = suite_context();
  kn_graph *g[8];
  for (uint32_t i = 0; i < n && i < 8; i++) g[i] = parsed(c, texts[i]);
  write_graphs(c, path, g, n);
  suite_done(c);
}

typedef struct account { /* an allocator that counts, and fails when told; for one thread */
  long live, left;       /* left: allocations until failure; < 0: never */
  bool once;             /* fail only that one */
  long refusals;         /* so far */
} account;

static inline void *count(void *ud, void *ptr, size_t old, size_t size) {
  account *a = ud;
  (void)old;
  if (!size) {
    if (ptr) a->live--;
    free(ptr);
    return NULL;
  }
  if (a->left == 0) {
    a->refusals++;
    if (a->once) a->left = -1;
    return NULL;
  }
  if (a->left > 0) a->left--;
  void *p = realloc(ptr, size);
  if (p && !ptr) a->live++;
  return p;
}

/* The call must succeed; else `error`, the sentence, is shown. */
#define GOOD(call, error)                                                                                    \
  do {                                                                                                       \
    kiln_status st_ = (call);                                                                                \
    if (st_ != KILN_OK) ck_abort_msg("%s: %s: %s", #call, kiln_status_text(st_), error);                     \
  } while (0)
/* It must fail so, with `part` in the sentence. */
#define BAD(status, part, call, error)                                                                       \
  do {                                                                                                       \
    kiln_status st_ = (call);                                                                                \
    if (st_ != (status))                                                                                     \
      ck_abort_msg("%s: %s, not %s: %s", #call, kiln_status_text(st_), kiln_status_text(status), error);     \
    if (!strstr(error, part)) ck_abort_msg("%s: no \"%s\" in \"%s\"", #call, part, error);                   \
  } while (0)

#endif
