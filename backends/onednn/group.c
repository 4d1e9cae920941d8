/* Cutting a part: each convolution and product takes along what follows it as far as nobody else reads what
 * is between. */
#include "backends/onednn/group.h"
#include "core/infer.h"
#include <oneapi/dnnl/dnnl_types.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_AHEAD = 48, LOOK_BACK = 12 };

bool dn_cut_leads(const kn_node *n) {
  int64_t strides[KN_MAX_RANK];
  if (n->op == KN_OP_matmul) return true;
  return n->op == KN_OP_conv2d && kn_constant_of(n->in[1], strides);
}

static bool is_pool(const kn_node *n) { return n->op == KN_OP_max_pool2d || n->op == KN_OP_avg_pool2d; }

static bool is_float(const kn_type *t) { return t->dtype == KN_F32 && kn_type_numel(t) > 0; }

/* The mean of each image of each channel. */
static bool is_image_mean(const kn_node *n, const kn_type *types) {
  if (n->op != KN_OP_mean || n->nin > n->ntensor) return false;
  const kn_attrs_reduce *a = n->attrs;
  const kn_type *x = &types[n->in[0]->id];
  if (x->rank != 4 || !is_float(x) || a->dim.n != 2) return false;
  int64_t d0 = a->dim.v[0] < 0 ? a->dim.v[0] + 4 : a->dim.v[0],
          d1 = a->dim.v[1] < 0 ? a->dim.v[1] + 4 : a->dim.v[1];
  return d0 + d1 == 5 && (d0 == 2 || d1 == 2);
}

/* Does `t` hold an element for each channel of `out`: [C, 1, 1] for images, [C] for rows? */
static bool per_channel(const kn_type *t, const kn_type *out, bool image) {
  int dim = image ? t->rank - 3 : t->rank - 1, own = image ? 1 : out->rank - 1;
  if (t->dtype != KN_F32 || dim < 0 || t->rank > out->rank || t->dims[dim] != out->dims[own]) return false;
  for (int i = 0; i < t->rank; i++)
    if (i != dim && t->dims[i] != 1) return false;
  return true;
}

/* ---- what follows a value ---- */

typedef struct cutter {
  const kn_part *part;
  const uint8_t *fold;
  bool *taken; /* by node */
  dn_cut *c;
} cutter;

static uint32_t fold_of(const cutter *k, uint32_t i) { return k->fold[i] & ~(uint32_t)DN_FOLD_WHOLE; }

static uint32_t gather(const cutter *k, uint32_t from, const kn_node **next) {
  uint32_t n = 0;
  for (uint32_t i = from; i < k->part->n && n < LOOK_AHEAD; i++)
    if (!k->taken[i]) next[n++] = k->part->nodes[i];
  return n;
}

static uint32_t index_of(const kn_part *part, uint32_t from, const kn_node *n) {
  while (part->nodes[from] != n) from++;
  return from;
}

/* A sum or product of v with a tensor, an operand for each channel or all of them. */
static bool find_operand(const kn_part *part, const kn_node *const *next, uint32_t n, const dn_group *g,
                         dn_found *f) {
  bool image = g->kind == DN_GROUP_CONV;
  for (uint32_t i = 0; i < n; i++) {
    const kn_node *c = next[i];
    if (!kn_opcode_is_op(c->op) || c->ntensor != 2 || (c->op != KN_OP_add && c->op != KN_OP_mul)) continue;
    bool second = c->in[1] == g->out;
    if (!second && c->in[0] != g->out) continue;
    const kn_value *other = c->in[second ? 0 : 1];
    const kn_type *to = &part->types[c->out[0]->id], *t = &part->types[other->id];
    if (other == g->out || !kn_type_equal(to, &part->types[g->out->id])) return false;
    *f = (dn_found){.post = {.value = other}, .nodes = {c}, .n = 1, .reads = 1};
    f->post.alg = c->op == KN_OP_add ? dnnl_binary_add : dnnl_binary_mul;
    f->post.name = c->op == KN_OP_add ? "add" : "mul";
    f->post.kind = DN_POST_CHANNEL;
    if (per_channel(t, to, image)) return true;
    f->post.kind = DN_POST_SUM;
    return c->op == KN_OP_add && kn_type_equal(t, to);
  }
  return false;
}

static void take(cutter *k, dn_group *g, const dn_found *f) {
  for (uint32_t i = 0; i < f->n; i++) {
    if (f->nodes[i] != g->main) g->nodes[g->nnodes++] = f->nodes[i];
    uint32_t at = index_of(k->part, g->first, f->nodes[i]);
    k->taken[at] = k->c->hidden[f->nodes[i]->out[0]->id] = true;
    if (at > g->last) g->last = at;
  }
  g->out = f->nodes[f->n - 1]->out[0];
}

/* Functions that give a number for nan ask for operands without nan, which is looked at once for constants;
 * to look at weights that change would cost as much as a thin product. */
static bool takes(const kn_node *main, const dn_post *f) {
  int64_t strides[KN_MAX_RANK];
  return f->alg == dnnl_eltwise_linear || main->op != KN_OP_matmul || kn_constant_of(main->in[1], strides);
}

static bool may_apply(const dn_group *g, const dn_post *f) {
  for (uint32_t i = 0; i < g->nposts; i++) /* oneDNN 2.6 gives both the numbers of one of them */
    if (g->posts[i].kind == DN_POST_FUNCTION && g->posts[i].alg == f->alg) return false;
  return takes(g->main, f);
}

/* Folds one thing more into g. */
static bool extend(cutter *k, dn_group *g) {
  const kn_node *next[LOOK_AHEAD];
  uint32_t n = gather(k, g->first + 1, next);
  dn_found f;
  if (dn_find_function(k->part, next, n, g->out->id, false, &f) && may_apply(g, &f.post)) {
    g->posts[g->nposts++] = f.post;
    take(k, g, &f);
    return true;
  }
  if (g->kind == DN_GROUP_SUM || k->part->reads[g->out->id] != 1 || !find_operand(k->part, next, n, g, &f))
    return false;
  if (f.post.kind == DN_POST_SUM && g->nposts) return false; /* oneDNN's fast code wants it first */
  if (f.post.kind == DN_POST_CHANNEL && f.post.alg == dnnl_binary_add && !g->nposts && !g->bias)
    g->bias = f.post.value;
  else
    g->posts[g->nposts++] = f.post;
  take(k, g, &f);
  return true;
}

/* ---- groups ---- */

static bool starts_function(cutter *k, uint32_t i, dn_group *g) {
  const kn_node *next[LOOK_AHEAD], *n = k->part->nodes[i];
  uint32_t count = gather(k, i, next);
  dn_found f;
  for (uint32_t a = 0; a < n->ntensor; a++) {
    if (!dn_find_function(k->part, next, count, n->in[a]->id, true, &f)) continue;
    bool starts = false;
    for (uint32_t j = 0; j < f.n; j++) starts |= f.nodes[j] == n;
    if (!starts || !is_float(&k->part->types[n->in[a]->id])) continue;
    g->in = n->in[a];
    g->posts[g->nposts++] = f.post;
    take(k, g, &f);
    return true;
  }
  return false;
}

static dn_group_kind kind_of(cutter *k, uint32_t i, dn_group *g) {
  const kn_node *n = k->part->nodes[i];
  const kn_type *types = k->part->types;
  if (!fold_of(k, i)) return DN_GROUP_APART;
  if (n->op == KN_OP_conv2d) return dn_cut_leads(n) ? DN_GROUP_CONV : DN_GROUP_APART;
  if (n->op == KN_OP_matmul) return DN_GROUP_MATMUL;
  if (is_pool(n)) return DN_GROUP_POOL;
  if (is_image_mean(n, types)) return DN_GROUP_MEAN;
  if (kn_ops[n->op].op_class != KN_CLASS_ELEMENTWISE) return DN_GROUP_APART;
  if (starts_function(k, i, g)) return DN_GROUP_FUNCTION;
  bool sum = n->op == KN_OP_add && is_float(&types[n->out[0]->id]) &&
             kn_type_equal(&types[n->in[0]->id], &types[n->out[0]->id]) &&
             kn_type_equal(&types[n->in[1]->id], &types[n->out[0]->id]);
  return sum ? DN_GROUP_SUM : DN_GROUP_APART;
}

static void cut_at(cutter *k, uint32_t i) {
  const kn_node *n = k->part->nodes[i];
  dn_group *g = &k->c->groups[k->c->n++];
  *g = (dn_group){.main = n, .first = i, .last = i, .out = n->out[0], .nodes = {n}, .nnodes = 1};
  k->taken[i] = true;
  g->kind = kind_of(k, i, g);
  k->c->hidden[n->out[0]->id] = g->kind != DN_GROUP_APART;
  if (g->kind != DN_GROUP_CONV && g->kind != DN_GROUP_MATMUL && g->kind != DN_GROUP_SUM) return;
  if (n->op == KN_OP_conv2d && n->ntensor > 2) g->bias = n->in[2];
  uint32_t fold = fold_of(k, i), most = fold > 2 ? fold - 2 : 0;
  while (fold > 1 && g->nposts < most && extend(k, g)) continue;
}

static int by_last(const void *a, const void *b) {
  uint32_t x = ((const dn_group *)a)->last, y = ((const dn_group *)b)->last;
  return x < y ? -1 : x > y;
}

/* ---- what is ours alone ---- */

uint32_t dn_free_operands(const dn_group *g, uint32_t v[DN_MAX_POSTS + 2]) {
  uint32_t n = 0;
  if (g->kind == DN_GROUP_APART) return 0;
  v[n++] = g->kind == DN_GROUP_FUNCTION ? g->in->id : g->main->in[0]->id;
  if (g->kind == DN_GROUP_SUM) v[n++] = g->main->in[1]->id;
  for (uint32_t i = 0; i < g->nposts; i++)
    if (g->posts[i].kind == DN_POST_SUM) v[n++] = g->posts[i].value->id;
  return n;
}

static kn_status find_inner(kn_context *ctx, cutter *k) {
  uint32_t all = k->part->graph->nvalues + 1;
  uint32_t *reads = kn_calloc(ctx->heap, all, sizeof *reads);
  if (!reads) return kn_fail_nomem(ctx, all * sizeof *reads);
  for (uint32_t i = 0; i < k->c->n; i++) {
    uint32_t v[DN_MAX_POSTS + 2], n = dn_free_operands(&k->c->groups[i], v);
    for (uint32_t j = 0; j < n; j++) reads[v[j]]++;
  }
  for (uint32_t i = 0; i < k->c->n; i++) {
    const dn_group *g = &k->c->groups[i];
    if (g->kind != DN_GROUP_APART)
      k->c->inner[g->out->id] = reads[g->out->id] && reads[g->out->id] == k->part->reads[g->out->id];
    k->c->hidden[g->out->id] = k->c->inner[g->out->id];
    k->c->drops_nan |= g->kind == DN_GROUP_POOL;
    for (uint32_t j = 0; j < g->nposts; j++)
      k->c->drops_nan |= g->posts[j].kind == DN_POST_FUNCTION && g->posts[j].alg != dnnl_eltwise_linear;
  }
  kn_free(ctx->heap, reads, all * sizeof *reads);
  return KN_OK;
}

kn_status dn_cut_new(kn_context *ctx, const kn_part *part, const uint8_t *fold, dn_cut *out) {
  dn_cut c = {.groups = kn_calloc(ctx->heap, part->n, sizeof *c.groups),
              .inner = kn_calloc(ctx->heap, part->graph->nvalues + 1, sizeof *c.inner),
              .hidden = kn_calloc(ctx->heap, part->graph->nvalues + 1, sizeof *c.hidden),
              .room = part->n};
  bool *taken = kn_calloc(ctx->heap, part->n, sizeof *taken);
  kn_status st = KN_OK;
  if (!c.groups || !c.inner || !c.hidden || !taken) st = kn_fail_nomem(ctx, part->n * sizeof *c.groups);
  cutter k = {part, fold, taken, &c};
  for (uint32_t i = 0; i < part->n && st == KN_OK; i++)
    if (!taken[i]) cut_at(&k, i);
  if (st == KN_OK) {
    qsort(c.groups, c.n, sizeof *c.groups, by_last);
    st = find_inner(ctx, &k);
  }
  kn_free(ctx->heap, taken, part->n * sizeof *taken);
  if (st == KN_OK)
    *out = c;
  else
    dn_cut_free(ctx, part, &c);
  return st;
}

void dn_cut_free(kn_context *ctx, const kn_part *part, dn_cut *c) {
  kn_free(ctx->heap, c->groups, c->room * sizeof *c->groups);
  kn_free(ctx->heap, c->inner, (part->graph->nvalues + 1) * sizeof *c->inner);
  kn_free(ctx->heap, c->hidden, (part->graph->nvalues + 1) * sizeof *c->hidden);
  *c = (dn_cut){0};
}

/* ---- joining ---- */

static const kn_node *maker_of(const kn_part *part, uint32_t v) {
  for (uint32_t i = part->n; i-- > 0;)
    for (uint32_t j = 0; j < part->nodes[i]->nout; j++)
      if (part->nodes[i]->out[j]->id == v) return part->nodes[i];
  return NULL;
}

/* Is v made in the part in a layout that may be ours? Elementwise nodes are in a part only because they
 * joined. */
static bool is_ours(const kn_part *part, uint32_t v) {
  const kn_node *m = maker_of(part, v);
  while (m && is_pool(m)) m = maker_of(part, m->in[0]->id);
  return m && (dn_cut_leads(m) || kn_ops[m->op].op_class == KN_CLASS_ELEMENTWISE || m->op == KN_OP_mean);
}

/* What v is the end of: back over elementwise nodes that have joined it. */
static const kn_node *leader_of(const kn_part *part, uint32_t v) {
  const kn_node *m = maker_of(part, v), *from;
  for (int i = 0; i < LOOK_BACK && m && kn_ops[m->op].op_class == KN_CLASS_ELEMENTWISE; i++, m = from) {
    from = NULL;
    for (uint32_t k = 0; k < m->ntensor && !from; k++) from = maker_of(part, m->in[k]->id);
  }
  return m;
}

/* Is n one of the nodes of a function of something made in the part? */
static bool is_in_function(const kn_part *part, const kn_node *n) {
  const kn_node *next[LOOK_BACK + DN_PATTERN_NODES];
  uint32_t back = part->n < LOOK_BACK ? part->n : LOOK_BACK, count = 0;
  for (uint32_t i = part->n - back; i < part->n; i++) next[count++] = part->nodes[i];
  next[count++] = n;
  for (const kn_node *c = n->next; c && count < LOOK_BACK + DN_PATTERN_NODES; c = c->next)
    if (kn_opcode_is_op(c->op)) next[count++] = c;
  for (uint32_t i = back; i-- > 0;) {
    const kn_node *t = next[i];
    uint32_t v = t->out[0]->id;
    dn_found f;
    bool image = part->types[v].rank == 4;
    if (!is_float(&part->types[v]) || !is_ours(part, v)) continue;
    if (!dn_find_function(part, next + i + 1, count - i - 1, v, image, &f)) continue;
    const kn_node *leader = leader_of(part, v);
    for (uint32_t j = 0; j < f.n; j++)
      if (f.nodes[j] == n && (!leader || takes(leader, &f.post))) return true;
  }
  return false;
}

bool dn_cut_joins(const kn_part *so_far, const kn_node *n) {
  char why[96];
  if (!kn_opcode_is_op(n->op) || n->nout != 1 || !kn_node_static(n, so_far->types, why, sizeof why))
    return false;
  const kn_type *to = &so_far->types[n->out[0]->id];
  if (is_image_mean(n, so_far->types)) return is_ours(so_far, n->in[0]->id);
  if (kn_ops[n->op].op_class != KN_CLASS_ELEMENTWISE) return false;
  if (is_in_function(so_far, n)) return true;
  if (!is_float(to) || n->ntensor != 2 || (n->op != KN_OP_add && n->op != KN_OP_mul)) return false;
  for (int i = 0; i < 2; i++) {
    uint32_t v = n->in[i]->id, other = n->in[1 - i]->id;
    const kn_type *t = &so_far->types[other];
    if (v == other || !is_ours(so_far, v) || !kn_type_equal(&so_far->types[v], to)) continue;
    if (so_far->reads[v] == 1 && per_channel(t, to, to->rank == 4)) return true;
    if (n->op == KN_OP_add && kn_type_equal(t, to) && (to->rank == 4 || so_far->reads[v] == 1)) return true;
  }
  return false;
}
