/* Graphs of the C API: loading, and the flat view of arguments, results and slots. */
#include "bindings/c/handle.h"
#include "graph/map.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- names of leaves ---- */

typedef struct walk {
  kn_arena *arena;
  kiln_leaf *list; /* NULL: only count */
  uint32_t n;
  bool failed; /* out of memory */
} walk;

/* "base.key", or the key alone. */
static char *join(kn_arena *a, const char *base, const kn_tree *key) {
  char number[24];
  const char *text = key->text;
  size_t n = key->n;
  if (key->kind == KN_TREE_INT) {
    n = (size_t)snprintf(number, sizeof number, "%" PRId64, key->i);
    text = number;
  }
  size_t at = base ? strlen(base) + 1 : 0;
  char *s = kn_arena_alloc(a, at + n + 1);
  if (!s) return NULL;
  if (base) {
    memcpy(s, base, at - 1);
    s[at - 1] = '.';
  }
  if (n) memcpy(s + at, text, n);
  return s;
}

static void walk_tree(walk *w, const char *base, const kn_tree *key, const kn_tree *t) {
  const char *name = NULL;
  if (w->failed || t->kind == KN_TREE_AGAIN) return; /* its leaves have their names already */
  if (w->list || kn_tree_has_items(t->kind)) {
    name = w->list ? join(w->arena, base, key) : "";
    if (!name) {
      w->failed = true;
      return;
    }
  }
  if (kn_tree_has_items(t->kind)) {
    for (uint32_t i = 0; i < t->n; i++) walk_tree(w, w->list ? name : NULL, &t->keys[i], &t->items[i]);
    return;
  }
  if (w->list) {
    bool value = t->kind == KN_TREE_VALUE;
    w->list[w->n] = (kiln_leaf){.name = name, .tree = t, .value = value ? t->value : NULL};
    w->list[w->n].index = value ? (uint32_t)t->i : 0;
    w->list[w->n].label = value ? t->value->name : NULL;
  }
  w->n++;
}

static void walk_all(walk *w, const kn_tree *trees, uint32_t n) {
  w->n = 0;
  for (uint32_t i = 0; i < n; i++) walk_tree(w, NULL, &(kn_tree){.kind = KN_TREE_INT, .i = i + 1}, &trees[i]);
}

/* Lists the leaves of some trees; false when out of memory. */
static bool list_leaves(kn_arena *a, const kn_tree *trees, uint32_t n, kiln_leaf **list, uint32_t *count) {
  walk w = {.arena = a};
  walk_all(&w, trees, n);
  w.list = kn_arena_alloc(a, (w.n + 1u) * sizeof *w.list);
  if (!w.list) return false;
  walk_all(&w, trees, n);
  *list = w.list;
  *count = w.n;
  return !w.failed;
}

/* Values' own names where no other has the same. */
static bool own_names(kiln_graph *g) {
  kn_map first = {0};
  bool fine = true;
  for (uint32_t i = 0; i < g->nin && fine; i++) {
    const kn_value *v = g->graph->body->params[i];
    g->in[i] = (kiln_leaf){.name = v->name, .value = v, .index = i};
    if (!v->name) continue;
    const kn_span name = {v->name, strlen(v->name)};
    kiln_leaf *other = kn_map_find(&first, name);
    if (other)
      other->name = g->in[i].name = NULL;
    else
      fine = kn_map_add(g->heap, &first, name, &g->in[i]);
  }
  kn_map_free(g->heap, &first);
  return fine;
}

/* Inputs are the parameters in their order, called by their own names where these tell them apart, else by
 * the first place where they are among the arguments. */
static bool list_inputs(kiln_graph *g) {
  kiln_leaf *leaves;
  uint32_t n;
  if (!list_leaves(&g->arena, g->graph->args, g->graph->nargs, &leaves, &n)) return false;
  g->nin = g->graph->body->nparams;
  g->in = kn_arena_alloc(&g->arena, (g->nin + 1u) * sizeof *g->in);
  if (!g->in || !own_names(g)) return false;
  for (uint32_t k = 0; k < n; k++) {
    kiln_leaf *in = leaves[k].value ? &g->in[leaves[k].value->index] : NULL;
    if (in && !in->name) in->name = leaves[k].name;
  }
  for (uint32_t i = 0; i < g->nin; i++) {
    char number[24];
    snprintf(number, sizeof number, "%" PRIu32, i + 1);
    if (!g->in[i].name && !(g->in[i].name = kn_arena_strdup(&g->arena, number))) return false;
  }
  return true;
}

/* A graph made without result trees yields its outputs one by one. */
static bool list_outputs(kiln_graph *g) {
  const kn_region *body = g->graph->body;
  if (g->graph->nresults || !body->nyields)
    return list_leaves(&g->arena, g->graph->results, g->graph->nresults, &g->out, &g->nout);
  g->nout = body->nyields;
  g->out = kn_arena_alloc(&g->arena, g->nout * sizeof *g->out);
  for (uint32_t i = 0; g->out && i < g->nout; i++) {
    const char *name = join(&g->arena, NULL, &(kn_tree){.kind = KN_TREE_INT, .i = i + 1});
    if (!name) return false;
    g->out[i] =
        (kiln_leaf){.name = name, .label = body->yields[i]->name, .value = body->yields[i], .index = i};
  }
  return g->out != NULL;
}

kn_status kiln_graph_wrap(kn_context *ctx, kn_graph *g, kiln_graph **out) {
  kiln_graph *w = kn_calloc(ctx->heap, 1, sizeof *w);
  if (!w) return kn_fail_nomem(ctx, sizeof *w);
  atomic_init(&w->refs, 1);
  w->heap = kn_heap_retain(ctx->heap);
  w->graph = kn_graph_retain(g);
  kn_arena_init(&w->arena, w->heap);
  if (!list_inputs(w) || !list_outputs(w)) {
    kiln_graph_release(w);
    return kn_fail_nomem(ctx, 0);
  }
  *out = w;
  return KN_OK;
}

kiln_graph *kiln_graph_retain(kiln_graph *g) {
  atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
  return g;
}

void kiln_graph_release(kiln_graph *g) {
  if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
  kn_arena_free(&g->arena);
  kn_vectors_release(g->vectors);
  kn_notes_release(g->notes);
  kn_graph_release(g->graph);
  kn_heap *heap = g->heap;
  kn_free(heap, g, sizeof *g);
  kn_heap_release(heap);
}

/* ---- loading ---- */

static void list_names(const kn_entry *entries, uint32_t n, char *buf, size_t size) {
  size_t at = 0;
  buf[0] = 0;
  for (uint32_t i = 0; i < n && at < size; i++) {
    int w = snprintf(buf + at, size - at, "%s\"%s\"", i ? ", " : "", entries[i].name);
    at = w < 0 ? size : at + (size_t)w;
  }
}

kn_status kiln_graph_of_entry(kn_context *ctx, const kn_entry *e, kiln_graph **out) {
  KN_TRY(kiln_graph_wrap(ctx, e->graph, out));
  if (e->vectors) (*out)->vectors = kn_vectors_retain(e->vectors);
  if (e->notes) (*out)->notes = kn_notes_retain(e->notes);
  return KN_OK;
}

static kn_status choose(kn_context *ctx, const char *entry, const kn_entry *entries, uint32_t n,
                        kiln_graph **out) {
  char names[512];
  if (!entry && n == 1) return kiln_graph_of_entry(ctx, &entries[0], out);
  for (uint32_t i = 0; entry && i < n; i++)
    if (!strcmp(entries[i].name, entry)) return kiln_graph_of_entry(ctx, &entries[i], out);
  list_names(entries, n, names, sizeof names);
  if (!n) return kn_fail(ctx, KN_ARG, "the file holds no graph");
  if (entry) return kn_fail(ctx, KN_ARG, "the file holds no graph \"%s\", but %s", entry, names);
  return kn_fail(ctx, KN_ARG, "the file holds %" PRIu32 " graphs, and none was named: %s", n, names);
}

kiln_status kiln_graph_load(kiln_context *handle, const char *path, const char *entry, kiln_graph **out) {
  return kiln_graph_load_on(handle, path, entry, NULL, out);
}

kiln_status kiln_graph_load_on(kiln_context *handle, const char *path, const char *entry, const char *device,
                               kiln_graph **out) {
  kn_context *ctx = core_context(handle);
  kn_entry *entries;
  kn_device_id on;
  uint32_t n;
  if (device && !kn_device_parse(device, &on))
    return outside(kn_fail(ctx, KN_ARG, "there is no device '%s'", device));
  kn_status st = kn_file_load(ctx, path, device ? &on : NULL, &entries, &n);
  if (st != KN_OK) return outside(st);
  st = choose(ctx, entry, entries, n, out);
  if (st != KN_OK) kn_error_prefix(ctx, "%s", path);
  kn_file_free_entries(ctx->heap, entries, n);
  return outside(st);
}

kiln_status kiln_graph_load_memory(kiln_context *handle, const void *data, size_t bytes, const char *entry,
                                   kiln_release_fn release, void *ud, kiln_graph **out) {
  kn_context *ctx = core_context(handle);
  kn_entry *entries;
  uint32_t n;
  kn_status st = kn_file_load_memory(ctx, data, bytes, release, ud, &entries, &n);
  if (st != KN_OK) return outside(st);
  st = choose(ctx, entry, entries, n, out);
  kn_file_free_entries(ctx->heap, entries, n);
  return outside(st);
}

/* ---- asking ---- */

const char *kiln_graph_name(const kiln_graph *g) { return g->graph->name ? g->graph->name : ""; }
int kiln_graph_input_count(const kiln_graph *g) { return (int)g->nin; }
int kiln_graph_output_count(const kiln_graph *g) { return (int)g->nout; }
int kiln_graph_slot_count(const kiln_graph *g) { return (int)g->graph->nslots; }

static void describe_type(const kn_graph *g, const kn_vtype *t, kiln_info *out) {
  static const kiln_kind kinds[] = {[KN_V_TENSOR] = KILN_TENSOR,
                                    [KN_V_INT] = KILN_INTEGER,
                                    [KN_V_FLOAT] = KILN_FLOAT,
                                    [KN_V_NUMBER] = KILN_NUMBER,
                                    [KN_V_BOOL] = KILN_BOOLEAN};
  out->kind = kinds[t->kind];
  if (t->kind != KN_V_TENSOR) return;
  out->dtype = kiln_outside_dtype((kn_dtype)t->tensor.dtype);
  out->device = kn_device_name((kn_device_id)t->tensor.device);
  out->rank = t->tensor.rank;
  for (int d = 0; d < t->tensor.rank; d++) {
    int64_t size = t->tensor.dims[d];
    uint64_t k = kn_dim_symbol_of(size);
    out->sizes[d] = kn_dim_known(size) ? size : -1;
    if (size < KN_DIM_UNKNOWN && k < g->nsymbols) out->symbols[d] = g->symbols[k];
  }
}

static void describe_constant(const kn_tree *t, kiln_info *out) {
  static const kiln_kind kinds[] = {[KN_TREE_BOOL] = KILN_BOOLEAN,
                                    [KN_TREE_INT] = KILN_INTEGER,
                                    [KN_TREE_FLOAT] = KILN_FLOAT,
                                    [KN_TREE_STRING] = KILN_STRING};
  out->kind = t->kind == KN_TREE_NIL || t->kind == KN_TREE_NONE ? KILN_NIL : kinds[t->kind];
  out->constant = 1;
}

static const char *layout(const kn_graph *g, const kn_value *v) {
  const kn_need *need = kn_find_need(g, v, KN_NEED_contiguous);
  if (!need) need = kn_find_need(g, v, KN_NEED_strides);
  return need ? need->text : NULL;
}

static kiln_status describe(const kiln_graph *g, const kiln_leaf *list, uint32_t n, int index,
                            kiln_info *out) {
  if (index < 0 || (uint32_t)index >= n) return KILN_INDEX;
  const kiln_leaf *l = &list[index];
  kiln_info info = {.name = l->name, .label = l->label};
  if (l->value) {
    describe_type(g->graph, &l->value->type, &info);
    info.layout = layout(g->graph, l->value);
  } else
    describe_constant(l->tree, &info);
  kiln_give(out, out->size, &info, sizeof info);
  return KILN_OK;
}

kiln_status kiln_graph_input(const kiln_graph *g, int index, kiln_info *out) {
  return describe(g, g->in, g->nin, index, out);
}

kiln_status kiln_graph_output(const kiln_graph *g, int index, kiln_info *out) {
  return describe(g, g->out, g->nout, index, out);
}

kiln_status kiln_graph_slot(const kiln_graph *g, int index, kiln_info *out) {
  if (index < 0 || (uint32_t)index >= g->graph->nslots) return KILN_INDEX;
  const kn_slot *s = g->graph->slots[index];
  kiln_info info = {.name = s->name, .constant = s->kind != KN_SLOT_STATE};
  describe_type(g->graph, &s->type, &info);
  kiln_give(out, out->size, &info, sizeof info);
  return KILN_OK;
}

static const char *last_part(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot ? dot + 1 : name;
}

int kiln_graph_find_input(const kiln_graph *g, const char *name) {
  for (uint32_t i = 0; i < g->nin; i++)
    if (!strcmp(g->in[i].name, name)) return (int)i;
  return -1;
}

/* The only output whose `part` of its naming is this; -1 when there is none or several. */
static int only_output(const kiln_graph *g, const char *name, bool label) {
  int found = -1;
  for (uint32_t i = 0; i < g->nout; i++) {
    const char *have = label ? g->out[i].label : last_part(g->out[i].name);
    if (!have || strcmp(have, name)) continue;
    if (found >= 0) return -1;
    found = (int)i;
  }
  return found;
}

int kiln_graph_find_output(const kiln_graph *g, const char *name) {
  for (uint32_t i = 0; i < g->nout; i++)
    if (!strcmp(g->out[i].name, name)) return (int)i;
  int i = only_output(g, name, true);
  return i >= 0 ? i : only_output(g, name, false);
}

int kiln_graph_find_slot(const kiln_graph *g, const char *name) {
  for (uint32_t i = 0; i < g->graph->nslots; i++)
    if (!strcmp(g->graph->slots[i]->name, name)) return (int)i;
  return -1;
}
