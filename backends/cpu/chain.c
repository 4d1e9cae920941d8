/* Which nodes of a part make a chain, and where their operands are: nodes become steps of walk.h, which
 * walk.c runs. Compiled once. */
#include "backends/cpu/walk.h"
#include <string.h>

/* What a node is to the chain: as the step that it becomes, and FULL or not what its result is. */
typedef struct role {
  cp_step_kind kind;
  cp_run run;
  cp_softmax_rows softmax;
  cp_fold_of fold;
} role;

typedef struct group {
  const cp_set *set;
  const kn_part *part;
  const kn_node *const *nodes; /* from the chain's first on */
  uint32_t n;
  kn_type shape;
  int inner; /* dims of a row; 0: rows need not stay whole */
  role roles[CP_MOST_NODES];
} group;

enum { NOBODY = -1 };

static bool same_dims(const kn_type *a, const kn_type *b) {
  bool same = a->rank == b->rank;
  for (int d = 0; same && d < a->rank; d++) same = a->dims[d] == b->dims[d];
  return same;
}

static uint32_t operands_of(const kn_node *n) { return n->op == KN_OP_sum_to ? 1 : n->ntensor; }

/* The node of the chain that made v; NOBODY. */
static int maker(const group *g, uint32_t v) {
  for (uint32_t k = 0; k < g->n; k++)
    if (g->nodes[k]->out[0]->id == v) return (int)k;
  return NOBODY;
}

static bool is_full(const role *r) {
  return r->kind == CP_STEP_EACH || r->kind == CP_STEP_SOFTMAX || r->kind == CP_STEP_PRODUCT;
}
static bool has_head(const group *g) { return g->n && g->roles[0].kind == CP_STEP_PRODUCT; }
static bool is_numbers(const role *r) { return r->kind == CP_STEP_ROWS || r->kind == CP_STEP_FOLD; }

/* ---- sizes ---- */

static int64_t size_of(const kn_type *t, int from, int to) {
  int64_t n = 1;
  for (int d = from; d < to; d++) n *= t->dims[d];
  return n;
}

/* One number for each row whose dims are the last `inner`: these are 1, or are left out. */
static bool numbers_kept(const kn_type *t, const kn_type *shape, int inner) {
  const int lead = shape->rank - inner;
  bool fits = t->rank == shape->rank;
  for (int d = 0; fits && d < t->rank; d++) fits = t->dims[d] == (d < lead ? shape->dims[d] : 1);
  return fits;
}
static bool numbers_left_out(const kn_type *t, const kn_type *shape, int inner) {
  const int lead = shape->rank - inner;
  bool fits = t->rank == lead;
  for (int d = 0; fits && d < lead; d++) fits = t->dims[d] == shape->dims[d];
  return fits;
}

/* May rows be the last `inner` dims? */
static bool may_be_rows(const group *g, int inner) {
  const int64_t n = size_of(&g->shape, g->shape.rank - inner, g->shape.rank);
  return g->inner ? inner == g->inner
                  : n >= 2 && n <= CP_LONGEST_ROW && size_of(&g->shape, 0, g->shape.rank) > 0;
}

/* How many dims a row has that t holds one number for; 0: it does not. */
static int inner_of(const group *g, const kn_type *t) {
  if (g->inner)
    return numbers_kept(t, &g->shape, g->inner) || numbers_left_out(t, &g->shape, g->inner) ? g->inner : 0;
  int inner = 0;
  while (inner < t->rank && t->dims[t->rank - 1 - inner] == 1) inner++;
  while (inner && g->shape.rank == t->rank && g->shape.dims[t->rank - inner] == 1) inner--;
  return inner && numbers_kept(t, &g->shape, inner) && may_be_rows(g, inner) ? inner : 0;
}

/* ---- may a node be the next? ---- */

/* A value that is none of the chain's nodes' and does not lie in the bytes of one. */
static bool is_outside(const group *g, uint32_t v) {
  return maker(g, v) == NOBODY && maker(g, g->part->root[v]) == NOBODY;
}

/* The loop of a node whose operands need no cast; NULL where there is none. */
static cp_run loop_of(const cp_set *set, const kn_node *n, const kn_type *types) {
  if (n->nout != 1 || n->ntensor < 1 || n->ntensor > 3) return NULL;
  const uint32_t first = n->ntensor == 3; /* behind a condition */
  const kn_dtype dtype = (kn_dtype)types[n->in[first]->id].dtype, to = (kn_dtype)types[n->out[0]->id].dtype;
  if (n->op == KN_OP_cast || n->op == KN_OP_clone) return set->isa->cast[dtype][to];
  if (!set->loops[n->op].runs) return NULL;
  if (first && types[n->in[0]->id].dtype != KN_BOOL) return NULL;
  for (uint32_t i = first; i < n->ntensor; i++)
    if (types[n->in[i]->id].dtype != dtype) return NULL;
  if (to != dtype && (first || to != KN_BOOL)) return NULL;
  if (kn_ops[n->op].flags & KN_FLAG_RAISES && kn_dtypes[dtype].category != KN_CAT_FLOAT) return NULL;
  return set->loops[n->op].runs[dtype];
}

static bool admit_loop(group *g, const kn_node *n, role *r) {
  const kn_type *types = g->part->types, *t = &types[n->out[0]->id];
  r->run = loop_of(g->set, n, types);
  if (!r->run) return false;
  if (!g->n) g->shape = *t;
  const bool full = same_dims(t, &g->shape);
  const int inner = full ? g->inner : inner_of(g, t);
  if (!full && !inner) return false;
  r->kind = full ? CP_STEP_EACH : CP_STEP_ROWS;
  for (uint32_t i = 0; i < n->ntensor; i++) {
    const uint32_t v = n->in[i]->id;
    const int by = maker(g, v);
    if (by == NOBODY && !is_outside(g, v)) return false;
    if (by == NOBODY) continue;
    if (!is_full(&g->roles[by]) && !is_numbers(&g->roles[by])) return false;
    if (is_full(&g->roles[by]) && !full) return false;
    if (is_numbers(&g->roles[by]) &&
        !(full ? numbers_kept(&types[v], &g->shape, g->inner) || g->inner == g->shape.rank
               : same_dims(&types[v], t)))
      return false;
  }
  g->inner = inner;
  return true;
}

/* A reduction or softmax: what it reads is of all elements. */
static bool reads_full(group *g, const kn_node *n) {
  const uint32_t v = n->in[0]->id;
  const int by = maker(g, v);
  if (!g->n) g->shape = g->part->types[v];
  if (!same_dims(&g->part->types[v], &g->shape)) return false;
  return by == NOBODY ? is_outside(g, v) : is_full(&g->roles[by]);
}

static bool admit_softmax(group *g, const kn_node *n, role *r) {
  const kn_type *t = &g->part->types[n->in[0]->id];
  const int64_t dim = ((const kn_attrs_axis *)n->attrs)->dim;
  if (!reads_full(g, n) || !t->rank || (dim != -1 && dim != t->rank - 1) || !may_be_rows(g, 1)) return false;
  *r = (role){.kind = CP_STEP_SOFTMAX, .softmax = g->set->softmaxes->rows[t->dtype]};
  g->inner = r->softmax ? 1 : g->inner;
  return r->softmax;
}

/* A product so small that eager code has it computed here however its operands lie, all of it in one tile. */
static bool admit_product(group *g, const kn_node *n, role *r) {
  const kn_type *types = g->part->types, *a = &types[n->in[0]->id], *b = &types[n->in[1]->id],
                *t = &types[n->out[0]->id];
  if (g->n || a->rank != 2 || b->rank != 2 || (t->dtype != KN_F32 && t->dtype != KN_F64)) return false;
  if (a->dtype != t->dtype || b->dtype != t->dtype || !g->set->kits[t->dtype]) return false;
  const int64_t all = kn_type_numel(t), k = a->dims[1];
  if (all <= 0 || all > CP_TILE || k <= 0 || k > CP_HEAD_SUM || all * k > CP_HEAD_WORK) return false;
  g->shape = *t;
  r->kind = CP_STEP_PRODUCT;
  return true;
}

/* The dims that it goes over; how many. */
static int dims_of(const kn_node *n, const kn_type *types, bool *over) {
  const kn_type *x = &types[n->in[0]->id];
  int count = 0;
  if (n->op == KN_OP_sum_to) {
    const kn_type *b = &types[n->in[1]->id];
    const int lead = x->rank - b->rank;
    for (int d = 0; d < x->rank; d++) over[d] = d < lead || (b->dims[d - lead] == 1 && x->dims[d] != 1);
  } else {
    const kn_attrs_reduce *a = n->attrs;
    for (int d = 0; d < x->rank; d++) over[d] = a->dim.n == 0;
    for (int i = 0; i < a->dim.n; i++) over[a->dim.v[i] < 0 ? a->dim.v[i] + x->rank : a->dim.v[i]] = true;
  }
  for (int d = 0; d < x->rank; d++) count += over[d];
  return count;
}

static bool admit_rows(group *g, const kn_type *to, int inner, role *r) {
  const int was = g->inner;
  if (!inner || !may_be_rows(g, inner)) return false;
  g->inner = inner;
  r->kind = CP_STEP_FOLD;
  if (inner_of(g, to) == inner) return true;
  g->inner = was;
  return false;
}

/* All rows into one: eight at a time, which have to fit. */
static bool admit_columns(group *g, int inner, role *r) {
  const int lead = g->shape.rank - inner;
  const int64_t rows = size_of(&g->shape, 0, lead), n = size_of(&g->shape, lead, g->shape.rank);
  if (!inner || !may_be_rows(g, inner) || rows < 2) return false;
  if (8 * cp_cut_columns(rows, n).lined * n > CP_AT_ONCE) return false;
  r->kind = CP_STEP_COLUMNS;
  g->inner = inner;
  return true;
}

static bool admit_reduction(group *g, const kn_node *n, const cp_reduction *how, role *r) {
  const kn_type *types = g->part->types, *x = &types[n->in[0]->id], *to = &types[n->out[0]->id];
  bool over[KN_MAX_RANK] = {false};
  const int64_t left = kn_type_numel(to), all = kn_type_numel(x);
  if (!reads_full(g, n) || !left || all / left < 2) return false;
  if (!cp_fold_find(g->set->isa, g->set->folds, how, (kn_dtype)x->dtype, (kn_dtype)to->dtype, all / left,
                    &r->fold))
    return false;
  const int count = dims_of(n, types, over);
  int last = 0, first = 0; /* dims that it goes over: the last so many, the first so many */
  while (last < x->rank && over[x->rank - 1 - last]) last++;
  while (first < x->rank && over[first]) first++;
  if (last == count && admit_rows(g, to, last, r)) return true;
  if (count == x->rank) {
    r->kind = CP_STEP_TOTAL;
    return how->kind != CP_PROD && !has_head(g);
  }
  return first == count && !has_head(g) && admit_columns(g, x->rank - first, r);
}

static bool admit(group *g, const kn_node *n) {
  role *r = &g->roles[g->n];
  *r = (role){0};
  if (!kn_opcode_is_op(n->op) || n->nout != 1) return false;
  /* What rounding of a product turns over is seen from the product's own elements, in memory. */
  if (has_head(g) && !kn_dtype_is_float((kn_dtype)g->part->types[n->out[0]->id].dtype)) return false;
  const cp_reduction *how = cp_reduction_of((int)n->op);
  if (how) return admit_reduction(g, n, how, r);
  if (n->op == KN_OP_matmul) return admit_product(g, n, r);
  if (n->op == KN_OP_softmax || n->op == KN_OP_log_softmax) return admit_softmax(g, n, r);
  return admit_loop(g, n, r);
}

/* ---- where operands are ---- */

typedef struct layout {
  const group *g;
  cp_chain *c;
  cp_spot made[CP_MOST_NODES]; /* by node: its result */
  int spread[CP_MOST_NODES];   /* by node: the block that repeats its numbers; NOBODY */
  int freed[CP_MOST_BLOCKS];   /* node behind whose time it is free */
  int let_go[CP_MOST_NUMBERS]; /* the same of numbers */
  bool full;                   /* there was no place */
} layout;

/* How often nodes of the chain read v, and the last of them; `wide`: of those that want all elements. */
static uint32_t reads_within(const group *g, uint32_t v, bool wide, int *last) {
  uint32_t reads = 0;
  *last = NOBODY;
  for (uint32_t k = 0; k < g->n; k++)
    for (uint32_t i = 0; i < operands_of(g->nodes[k]); i++)
      if (g->nodes[k]->in[i]->id == v && (!wide || is_full(&g->roles[k]))) reads++, *last = (int)k;
  return reads;
}

static int take_slot(int *freed, uint32_t most, uint32_t *used, int k, int last) {
  for (uint32_t s = 0; s < most; s++) {
    if (freed[s] >= k) continue;
    freed[s] = last > k ? last : k;
    if (*used <= s) *used = s + 1;
    return (int)s;
  }
  return NOBODY;
}

static cp_spot in_memory(layout *l, cp_memory m) {
  cp_chain *c = l->c;
  uint32_t at = 0;
  while (at < c->nmemory && (c->memory[at].value != m.value || c->memory[at].numbers != m.numbers ||
                             c->memory[at].rank != m.rank || c->memory[at].factor != m.factor))
    at++;
  if (at == CP_MOST_MEMORY) {
    l->full = true;
    return CP_IN_MEMORY;
  }
  if (at == c->nmemory) {
    m.dtype = (kn_dtype)l->g->part->types[m.value].dtype;
    c->memory[c->nmemory++] = m;
  }
  return (cp_spot)(CP_IN_MEMORY + at);
}

static cp_step *new_step(layout *l, cp_step_kind kind) {
  cp_chain *c = l->c;
  if (c->nsteps == CP_MOST_STEPS) {
    l->full = true;
    return &c->steps[0];
  }
  c->steps[c->nsteps] = (cp_step){.kind = (uint8_t)kind};
  return &c->steps[c->nsteps++];
}

static int64_t bytes_of(const layout *l, uint32_t v) {
  return (int64_t)kn_dtype_size((kn_dtype)l->g->part->types[v].dtype);
}

/* The block that repeats the numbers of node `by`, for node k. */
static cp_spot spread(layout *l, int by, uint32_t k) {
  const uint32_t v = l->g->nodes[by]->out[0]->id;
  if (l->spread[by] == NOBODY) {
    int last;
    reads_within(l->g, v, true, &last);
    l->spread[by] = take_slot(l->freed, CP_MOST_BLOCKS, &l->c->nblocks, (int)k, last);
    if (l->spread[by] == NOBODY) {
      l->full = true;
      return CP_IN_MEMORY;
    }
    cp_step *s = new_step(l, CP_STEP_SPREAD);
    s->to = (cp_spot)(CP_IN_BLOCK + l->spread[by]);
    s->from[0] = l->made[by];
    s->n = 1;
    s->size = bytes_of(l, v);
  }
  return (cp_spot)(CP_IN_BLOCK + l->spread[by]);
}

static cp_spot place_input(layout *l, uint32_t k, uint32_t i) {
  const group *g = l->g;
  const kn_node *n = g->nodes[k];
  const uint32_t v = n->in[i]->id;
  const int by = maker(g, v);
  const bool numbers = g->roles[k].kind == CP_STEP_ROWS;
  if (by == NOBODY)
    return in_memory(l, (cp_memory){.value = v,
                                    .numbers = numbers,
                                    .factor = g->roles[k].kind == CP_STEP_PRODUCT,
                                    .rank = numbers ? g->part->types[n->out[0]->id].rank : g->shape.rank});
  return is_numbers(&g->roles[by]) && !numbers ? spread(l, by, k) : l->made[by];
}

/* In the tile where nobody outside reads it and there is a place. */
static cp_spot place_result(layout *l, int k) {
  const group *g = l->g;
  const uint32_t v = g->nodes[k]->out[0]->id;
  const bool numbers = is_numbers(&g->roles[k]);
  int last;
  if (reads_within(g, v, false, &last) == g->part->reads[v]) {
    const int s = numbers ? take_slot(l->let_go, CP_MOST_NUMBERS, &l->c->nnumbers, k, last)
                          : take_slot(l->freed, CP_MOST_BLOCKS, &l->c->nblocks, k, last);
    if (s != NOBODY) return (cp_spot)((numbers ? CP_IN_NUMBERS : CP_IN_BLOCK) + s);
  }
  return in_memory(l, (cp_memory){.value = v,
                                  .numbers = numbers,
                                  .written = true,
                                  .rank = numbers ? g->part->types[v].rank : g->shape.rank});
}

static void add_fold(layout *l, uint32_t k, cp_step *s) {
  cp_chain *c = l->c;
  const group *g = l->g;
  const uint32_t v = g->nodes[k]->in[0]->id;
  if (c->nfolds == CP_MOST_FOLDS) {
    l->full = true;
    return;
  }
  s->fold = (uint8_t)c->nfolds;
  s->size = bytes_of(l, v);
  c->folds[c->nfolds++] =
      (cp_folding){.node = g->nodes[k], .of = g->roles[k].fold, .outside = maker(g, v) == NOBODY};
  c->columns |= s->kind == CP_STEP_COLUMNS;
  c->totals |= s->kind == CP_STEP_TOTAL;
}

static void lay_node(layout *l, uint32_t k) {
  const group *g = l->g;
  const kn_node *n = g->nodes[k];
  const role *r = &g->roles[k];
  const bool fold = r->kind >= CP_STEP_FOLD;
  cp_step s = {.kind = (uint8_t)r->kind, .n = (uint8_t)operands_of(n), .arg = n->attrs};
  s.run = r->run;
  s.softmax = r->softmax;
  s.log = n->op == KN_OP_log_softmax;
  for (uint32_t i = 0; i < s.n; i++) s.from[i] = place_input(l, k, i);
  if (fold) add_fold(l, k, &s);
  if (r->kind <= CP_STEP_FOLD) s.to = l->made[k] = place_result(l, (int)k);
  if (!l->full) *new_step(l, r->kind) = s;
  l->c->whole |= !(r->kind <= CP_STEP_PRODUCT) && r->kind < CP_STEP_COLUMNS;
  if (is_full(r)) {
    const int64_t width = bytes_of(l, n->out[0]->id);
    if (l->c->width < width) l->c->width = width;
  }
}

/* False where it does not fit. */
static bool lay_out(const group *g, cp_chain *c) {
  layout l = {.g = g, .c = c};
  for (int s = 0; s < CP_MOST_BLOCKS; s++) l.freed[s] = NOBODY;
  for (int s = 0; s < CP_MOST_NUMBERS; s++) l.let_go[s] = NOBODY;
  for (uint32_t k = 0; k < g->n; k++) l.spread[k] = NOBODY;
  memset(c, 0, sizeof *c);
  c->set = g->set;
  c->n = g->n;
  c->shape = g->shape;
  c->inner = g->inner;
  for (uint32_t k = 0; k < g->n && !l.full; k++) lay_node(&l, k);
  for (uint32_t k = 0; k < c->nmemory; k++) {
    const int64_t width = (int64_t)kn_dtype_size(c->memory[k].dtype);
    if (c->width < width) c->width = width;
  }
  if (c->columns && c->totals) c->whole = true; /* these take elements in their order */
  if (!c->whole && !c->columns) c->inner = 0;
  return !l.full && cp_chain_fits(c);
}

/* ---- a chain ---- */

/* How much a node of the chain costs an element, in ops that wait for memory. */
static int64_t cost_of(const group *g, uint32_t k) {
  const int64_t grain = g->set->loops[g->nodes[k]->op].grain;
  return g->roles[k].kind == CP_STEP_SOFTMAX ? 2 * CP_CHEAP / CP_DEAR : grain ? CP_CHEAP / grain : 1;
}

/* Sums so short have the same bits however the operands lie. */
static kn_status turn_constant(kn_context *ctx, const group *g, cp_chain *c) {
  int64_t strides[KN_MAX_RANK];
  const kn_value *b = g->nodes[0]->in[1];
  const kn_slot *slot = kn_constant_of(b, strides);
  const kn_type *t = &g->part->types[b->id];
  if (!slot || strides[1] == 1 || t->dims[0] >= CP_LONG_SUM) return KN_OK;
  const size_t size = kn_dtype_size((kn_dtype)t->dtype);
  c->turned_bytes = (size_t)(t->dims[0] * t->dims[1]) * size;
  c->turned = kn_alloc(ctx->heap, c->turned_bytes);
  if (!c->turned) return kn_fail_nomem(ctx, c->turned_bytes);
  const char *from = kn_tensor_data(slot->tensor);
  c->origin = (cp_origin){from, {strides[0], strides[1]}, atomic_load(&slot->tensor->storage->version)};
  for (int64_t i = 0; i < t->dims[0]; i++)
    for (int64_t j = 0; j < t->dims[1]; j++)
      memcpy(c->turned + (size_t)(i * t->dims[1] + j) * size,
             from + (i * strides[0] + j * strides[1]) * (int64_t)size, size);
  return KN_OK;
}

static kn_status make(kn_context *ctx, const group *g, const cp_chain *laid, cp_chain **out) {
  cp_chain *c = kn_alloc(ctx->heap, sizeof *c);
  if (!c) return kn_fail_nomem(ctx, sizeof *c);
  int64_t work = 0;
  *c = *laid;
  for (uint32_t k = 0; k < g->n; k++) work += cost_of(g, k);
  c->grain = CP_CHEAP / work + 1;
  if (has_head(g)) c->head.kit = g->set->kits[g->shape.dtype];
  kn_status st = cp_chain_reserve(ctx, c);
  if (st == KN_OK && has_head(g)) st = turn_constant(ctx, g, c);
  if (st != KN_OK) {
    cp_chain_free(ctx, c);
    return st;
  }
  *out = c;
  return KN_OK;
}

static void tell_plan(const group *g, const cp_chain *c, uint32_t first) {
  const kn_part *part = g->part;
  part->together[first] = g->n;
  for (uint32_t k = 0; k < g->n; k++) {
    const uint32_t v = g->nodes[k]->out[0]->id;
    bool memory = g->roles[k].kind > CP_STEP_FOLD;
    for (uint32_t m = 0; m < c->nmemory; m++) memory |= c->memory[m].value == v;
    if (!memory) part->room[v] = KN_ROOM_NONE;
  }
}

kn_status cp_chain_new(kn_context *ctx, const cp_set *set, const kn_part *part, uint32_t first,
                       cp_chain **out) {
  group g = {.set = set, .part = part, .nodes = part->nodes + first};
  cp_chain c;
  *out = NULL;
  while (g.n < CP_MOST_NODES && first + g.n < part->n && admit(&g, g.nodes[g.n])) g.n++;
  while (g.n >= 2 && !lay_out(&g, &c)) g.n--;
  if (g.n < 2) return KN_OK;
  KN_TRY(make(ctx, &g, &c, out));
  tell_plan(&g, &c, first);
  return KN_OK;
}

uint32_t cp_chain_length(const cp_chain *c) { return c->n; }

size_t cp_chain_packed(const cp_chain *c) { return c->turned_bytes; }
