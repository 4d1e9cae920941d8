/* Chains of elementwise nodes: which nodes are one, where their operands are, and the walk. Memory was
 * planned for nodes that run one after the other, so before each run it is looked whether a result lies over
 * what an earlier node still reads, in other than the same places. Compiled once. */
#include "backends/cpu/chain.h"
#include <string.h>

enum { MOST_NODES = 32, MOST_MEMORY = 28, MOST_SLOTS = 12, NOBODY = -1 };

/* An operand of a node: a tensor in memory, or a block that only the chain sees. */
typedef struct spot {
  bool inner;
  uint8_t at;
} spot;

typedef struct link {
  cp_run run;
  const void *arg;
  int n; /* inputs */
  spot to, from[3];
} link;

typedef struct memory {
  uint32_t value;
  kn_dtype dtype;
  int writer, last; /* nodes: who writes it (NOBODY), who reads it last */
} memory;

typedef struct operand {
  char *data;
  int64_t size, strides[KN_MAX_RANK + 1]; /* bytes */
} operand;

typedef struct walk {
  const cp_chain *c;
  int rank;
  int64_t dims[KN_MAX_RANK + 1];
  operand operands[MOST_MEMORY];
} walk;

struct cp_chain {
  uint32_t n, nmemory;
  kn_type shape;
  int64_t total, grain;
  link links[MOST_NODES];
  memory memory[MOST_MEMORY];
  walk walk; /* of the last run, good as long as all operands are where they were */
  bool bound;
  int64_t strides[MOST_MEMORY][KN_MAX_RANK];
};

/* ---- which nodes ---- */

static bool same_dims(const kn_type *a, const kn_type *b) {
  bool same = a->rank == b->rank;
  for (int d = 0; same && d < a->rank; d++) same = a->dims[d] == b->dims[d];
  return same;
}

/* The loop of a node whose operands need no cast; NULL where there is none. */
static cp_run loop_of(const cp_loops *loops, const kn_node *n, const kn_type *types) {
  if (!kn_opcode_is_op(n->op) || !loops[n->op].runs || n->nout != 1 || n->ntensor < 1 || n->ntensor > 3)
    return NULL;
  const uint32_t first = n->ntensor == 3; /* behind a condition */
  const kn_dtype dtype = (kn_dtype)types[n->in[first]->id].dtype, to = (kn_dtype)types[n->out[0]->id].dtype;
  if (first && types[n->in[0]->id].dtype != KN_BOOL) return NULL;
  for (uint32_t i = first; i < n->ntensor; i++)
    if (types[n->in[i]->id].dtype != dtype) return NULL;
  if (to != dtype && (first || to != KN_BOOL)) return NULL;
  if (kn_ops[n->op].flags & KN_FLAG_RAISES && kn_dtypes[dtype].category != KN_CAT_FLOAT) return NULL;
  return loops[n->op].runs[dtype];
}

static uint32_t known_before(const uint32_t *seen, uint32_t n, uint32_t v) {
  uint32_t i = 0;
  while (i < n && seen[i] != v) i++;
  return i;
}

/* How many nodes from `first` on go together: the same sizes, and not too many tensors even if all of them
 * were in memory. */
static uint32_t extent(const cp_loops *loops, const kn_part *part, uint32_t first) {
  uint32_t seen[MOST_MEMORY + 4], nseen = 0, n = 0;
  const kn_type *shape = &part->types[part->nodes[first]->out[0]->id];
  for (; n < MOST_NODES && first + n < part->n; n++) {
    const kn_node *c = part->nodes[first + n];
    uint32_t now = nseen;
    if (!loop_of(loops, c, part->types) || !same_dims(&part->types[c->out[0]->id], shape)) break;
    for (uint32_t i = 0; i < c->ntensor; i++)
      if (known_before(seen, now, c->in[i]->id) == now) seen[now++] = c->in[i]->id;
    seen[now++] = c->out[0]->id;
    if (now > MOST_MEMORY) break;
    nseen = now;
  }
  return n;
}

/* ---- where operands are ---- */

typedef struct layout {
  cp_chain *c;
  const kn_part *part;
  const kn_node *const *nodes; /* of the chain */
  uint32_t made[MOST_NODES];   /* value of each node */
  int freed[MOST_SLOTS];       /* node behind whose time the slot is free */
} layout;

static int reads_within(const layout *l, uint32_t v, int *last) {
  int reads = 0;
  *last = NOBODY;
  for (uint32_t k = 0; k < l->c->n; k++)
    for (uint32_t i = 0; i < l->nodes[k]->ntensor; i++)
      if (l->nodes[k]->in[i]->id == v) reads++, *last = (int)k;
  return reads;
}

static spot in_memory(layout *l, uint32_t v, int writer) {
  cp_chain *c = l->c;
  uint32_t at = 0;
  while (at < c->nmemory && c->memory[at].value != v) at++;
  if (at == c->nmemory) {
    memory *m = &c->memory[c->nmemory++];
    *m = (memory){.value = v, .dtype = (kn_dtype)l->part->types[v].dtype, .writer = writer};
    reads_within(l, v, &m->last);
  }
  return (spot){false, (uint8_t)at};
}

/* A block of its own where nobody outside reads it and there is one. */
static spot place_result(layout *l, int k) {
  uint32_t v = l->nodes[k]->out[0]->id;
  int last, reads = reads_within(l, v, &last);
  if ((uint32_t)reads != l->part->reads[v]) return in_memory(l, v, k);
  for (int s = 0; s < MOST_SLOTS; s++) {
    if (l->freed[s] >= k) continue;
    l->freed[s] = last > k ? last : k;
    return (spot){true, (uint8_t)s};
  }
  return in_memory(l, v, k);
}

static void lay_out(layout *l) {
  cp_chain *c = l->c;
  for (int s = 0; s < MOST_SLOTS; s++) l->freed[s] = NOBODY;
  for (uint32_t k = 0; k < c->n; k++) {
    const kn_node *n = l->nodes[k];
    link *to = &c->links[k];
    to->arg = n->attrs;
    to->n = (int)n->ntensor;
    for (uint32_t i = 0; i < n->ntensor; i++) {
      uint32_t by = known_before(l->made, k, n->in[i]->id);
      to->from[i] = by < k ? c->links[by].to : in_memory(l, n->in[i]->id, NOBODY);
    }
    to->to = place_result(l, (int)k);
    l->made[k] = n->out[0]->id;
  }
}

kn_status cp_chain_new(kn_context *ctx, const cp_loops *loops, const kn_part *part, uint32_t first,
                       cp_chain **out) {
  uint32_t n = extent(loops, part, first);
  *out = NULL;
  if (n < 2) return KN_OK;
  cp_chain *c = kn_calloc(ctx->heap, 1, sizeof *c);
  if (!c) return kn_fail_nomem(ctx, sizeof *c);
  layout l = {.c = c, .part = part, .nodes = part->nodes + first};
  int64_t work = 0;
  c->n = n;
  c->shape = part->types[part->nodes[first]->out[0]->id];
  c->total = kn_type_numel(&c->shape);
  for (uint32_t k = 0; k < n; k++) {
    c->links[k].run = loop_of(loops, l.nodes[k], part->types);
    work += CP_CHEAP / loops[l.nodes[k]->op].grain;
  }
  c->grain = CP_CHEAP / work + 1;
  lay_out(&l);
  *out = c;
  return KN_OK;
}

void cp_chain_free(kn_context *ctx, cp_chain *c) { kn_free(ctx->heap, c, sizeof *c); }

uint32_t cp_chain_length(const cp_chain *c) { return c->n; }

/* ---- the walk ---- */

typedef struct blocks {
  _Alignas(CP_LINE) char slots[MOST_SLOTS][CP_BLOCK * 8];
  _Alignas(CP_LINE) char repeated[MOST_MEMORY][CP_BLOCK * 8]; /* one element of operand k, over and over */
  const char *of[MOST_MEMORY];
  int64_t filled[MOST_MEMORY];
} blocks;

#define REPEAT(T)                                                                                            \
  for (int64_t i = 0; i < n; i++) ((T *)to)[i] = *(const T *)from
static void repeat(char *to, const char *from, int64_t n, int64_t size) {
  switch (size) {
  case 1: memset(to, *(const unsigned char *)from, (size_t)n); break;
  case 2: REPEAT(uint16_t); break;
  case 4: REPEAT(uint32_t); break;
  default: REPEAT(uint64_t);
  }
}

static void row(const walk *w, char *const *p, int64_t n, blocks *b) {
  const cp_chain *c = w->c;
  for (int64_t at = 0; at < n; at += CP_BLOCK) {
    const int64_t m = n - at < CP_BLOCK ? n - at : CP_BLOCK;
    char *now[MOST_MEMORY], *q[CP_OPERANDS];
    for (uint32_t k = 0; k < c->nmemory; k++) {
      const operand *o = &w->operands[k];
      if (o->strides[w->rank - 1]) {
        now[k] = p[k] + at * o->size;
        continue;
      }
      now[k] = b->repeated[k];
      if (b->of[k] == p[k] && b->filled[k] >= m) continue;
      repeat(now[k], p[k], m, o->size);
      b->of[k] = p[k];
      b->filled[k] = m;
    }
    for (uint32_t k = 0; k < c->n; k++) {
      const link *l = &c->links[k];
      q[0] = l->to.inner ? b->slots[l->to.at] : now[l->to.at];
      for (int i = 0; i < l->n; i++)
        q[i + 1] = l->from[i].inner ? b->slots[l->from[i].at] : now[l->from[i].at];
      l->run(q, m, l->arg);
    }
  }
}

static void range(void *ud, int64_t begin, int64_t end) {
  const walk *w = ud;
  const int last = w->rank - 1;
  int64_t at[KN_MAX_RANK + 1];
  char *p[MOST_MEMORY];
  blocks b;
  for (uint32_t k = 0; k < w->c->nmemory; k++) b.of[k] = NULL;
  for (int64_t d = last, rest = begin; d >= 0; d--) {
    at[d] = rest % w->dims[d];
    rest /= w->dims[d];
  }
  while (begin < end) {
    for (uint32_t k = 0; k < w->c->nmemory; k++) {
      p[k] = w->operands[k].data;
      for (int d = 0; d <= last; d++) p[k] += at[d] * w->operands[k].strides[d];
    }
    int64_t n = w->dims[last] - at[last];
    if (n > end - begin) n = end - begin;
    row(w, p, n, &b);
    begin += n;
    at[last] = 0; /* a row that stops early is the range's last */
    for (int d = last - 1; d >= 0 && ++at[d] == w->dims[d]; d--) at[d] = 0;
  }
}

/* Few elements that lie one after the other: no range has to be found. */
static void run_tiny(const walk *w) {
  char *p[MOST_MEMORY];
  blocks b;
  for (uint32_t k = 0; k < w->c->nmemory; k++) p[k] = w->operands[k].data, b.of[k] = NULL;
  row(w, p, w->c->total, &b);
}

/* ---- a run ---- */

static bool continues(const walk *w, const int64_t (*strides)[KN_MAX_RANK], int a, int b, int64_t size_b) {
  for (uint32_t k = 0; k < w->c->nmemory; k++)
    if (strides[k][a] != strides[k][b] * size_b) return false;
  return true;
}

/* Dims of size 1 go, neighbours that lie one after the other in all operands are joined. `strides` in bytes.
 */
static void join_dims(walk *w, int64_t (*strides)[KN_MAX_RANK]) {
  const kn_type *shape = &w->c->shape;
  int from = 0; /* the dim of the shape that the last one joined stands for */
  w->rank = 0;
  for (int d = 0; d < shape->rank; d++) {
    if (shape->dims[d] == 1) continue;
    if (w->rank && continues(w, strides, from, d, shape->dims[d]))
      w->dims[w->rank - 1] *= shape->dims[d];
    else
      w->dims[w->rank++] = shape->dims[d];
    for (uint32_t k = 0; k < w->c->nmemory; k++) w->operands[k].strides[w->rank - 1] = strides[k][d];
    from = d;
  }
  if (w->rank) return;
  w->rank = 1, w->dims[0] = 1;
  for (uint32_t k = 0; k < w->c->nmemory; k++) w->operands[k].strides[0] = w->operands[k].size;
}

/* Sets the operands; false where one does not lie along the last dim. */
static bool bind(walk *w, kn_tensor *const *vals) {
  const cp_chain *c = w->c;
  int64_t strides[MOST_MEMORY][KN_MAX_RANK];
  for (uint32_t k = 0; k < c->nmemory; k++) {
    const kn_tensor *t = vals[c->memory[k].value];
    operand *o = &w->operands[k];
    const int lead = c->shape.rank - t->type.rank; /* dims it does not have: it is repeated there */
    o->data = kn_tensor_data(t);
    o->size = (int64_t)kn_dtype_size(c->memory[k].dtype);
    for (int d = 0; d < c->shape.rank; d++) {
      const bool repeats = d < lead || (t->type.dims[d - lead] == 1 && c->shape.dims[d] != 1);
      strides[k][d] = repeats ? 0 : t->strides[d - lead] * o->size;
    }
  }
  join_dims(w, strides);
  for (uint32_t k = 0; k < c->nmemory; k++) {
    const int64_t step = w->operands[k].strides[w->rank - 1];
    if (step != 0 && step != w->operands[k].size) return false;
  }
  return true;
}

/* Bytes of an operand, from its data on; strides are never negative. */
static int64_t reach(const walk *w, uint32_t k) {
  int64_t bytes = w->operands[k].size;
  for (int d = 0; d < w->rank; d++) bytes += (w->dims[d] - 1) * w->operands[k].strides[d];
  return bytes;
}

static bool lies_alike(const walk *w, uint32_t a, uint32_t b) {
  const operand *x = &w->operands[a], *y = &w->operands[b];
  bool alike = x->data == y->data && x->size == y->size;
  for (int d = 0; alike && d < w->rank; d++) alike = x->strides[d] == y->strides[d];
  return alike;
}

/* Is nothing overwritten that an earlier node has yet to read elsewhere, or has written? */
static bool may_run(const walk *w) {
  const cp_chain *c = w->c;
  for (uint32_t a = 0; a < c->nmemory; a++) {
    const int writer = c->memory[a].writer;
    const char *from = w->operands[a].data, *to = from + reach(w, a);
    for (uint32_t b = 0; writer != NOBODY && b < c->nmemory; b++) {
      const char *other = w->operands[b].data;
      if (a == b || other >= to || other + reach(w, b) <= from) continue;
      if (c->memory[b].writer > writer) continue; /* looked at from there */
      if (!lies_alike(w, a, b) || c->memory[b].last >= writer) return false;
    }
  }
  return true;
}

/* Do all operands lie as in the last run? */
static bool lies_as_before(const cp_chain *c, kn_tensor *const *vals) {
  bool same = c->bound;
  for (uint32_t k = 0; same && k < c->nmemory; k++) {
    const kn_tensor *t = vals[c->memory[k].value];
    for (int d = 0; d < t->type.rank; d++) same &= c->strides[k][d] == t->strides[d];
  }
  return same;
}

static bool bind_again(cp_chain *c, kn_tensor *const *vals) {
  walk *w = &c->walk;
  bool moved = false;
  if (!lies_as_before(c, vals)) {
    w->c = c;
    c->bound = bind(w, vals) && may_run(w);
    for (uint32_t k = 0; k < c->nmemory; k++)
      memcpy(c->strides[k], vals[c->memory[k].value]->strides, sizeof c->strides[k]);
    return c->bound;
  }
  for (uint32_t k = 0; k < c->nmemory; k++) {
    char *data = kn_tensor_data(vals[c->memory[k].value]);
    moved |= w->operands[k].data != data;
    w->operands[k].data = data;
  }
  if (moved) c->bound = may_run(w);
  return c->bound;
}

kn_status cp_chain_run(kn_context *ctx, cp_chain *c, kn_tensor *const *vals) {
  if (c->total == 0) return KN_OK;
  if (!bind_again(c, vals)) return KN_DECLINED;
  if (c->total <= CP_BLOCK && c->walk.rank == 1)
    run_tiny(&c->walk);
  else
    kn_parallel_for(ctx, c->total, c->grain, range, &c->walk);
  return KN_OK;
}
