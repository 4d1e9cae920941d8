/* A target that makes the most of what the plan promises for nodes that run together: it overwrites all their
 * results before it reads any operand, fills the room it asked for, keeps what never goes to memory in
 * tensors of its own, and lays results over operands, of which it then takes copies first. Its groups are
 * drawn at random; computed is by the reference kernels. */
#ifndef SPEC_GREEDY_H
#define SPEC_GREEDY_H
#include "graph/target.h"
#include "spec/tensors.h"

typedef struct greedy {
  kn_target target;
  uint64_t seed, drawn;
  int joined, grouped, hidden, roomy, over; /* nodes, groups of several, values */
} greedy;

struct kn_program {
  const kn_node *const *nodes;
  uint32_t n, most; /* most: ids of values stay below */
  uint32_t *together;
  size_t *room;
  bool *copies; /* by node: the group that begins there takes copies of its operands */
  const uint32_t *root;
};

static bool greedy_draw(greedy *g, int n) {
  return kn_random_word(g->seed, 5, g->drawn++) % (uint64_t)n == 0;
}

static bool greedy_takes(const kn_node *n, const kn_type *types, char *why, size_t size) {
  const kn_op_info *row = &kn_ops[n->op];
  if (row->op_class == KN_CLASS_VIEW || row->flags & (KN_FLAG_WRITES | KN_FLAG_DYNAMIC))
    return snprintf(why, size, "not to its taste"), false;
  return kn_node_static(n, types, why, size);
}

static bool greedy_supports(void *self, kn_context *ctx, const kn_node *n, const kn_type *types, char *why,
                            size_t size) {
  (void)ctx;
  return !greedy_draw(self, 3) && greedy_takes(n, types, why, size);
}

static bool greedy_joins(void *self, const kn_part *so_far, const kn_node *n) {
  greedy *g = self;
  char why[128];
  if (greedy_draw(g, 3) || !greedy_takes(n, so_far->types, why, sizeof why)) return false;
  g->joined++;
  return true;
}

/* Is v read by the nodes from i on, and by nobody else? */
static bool greedy_private(const kn_part *part, uint32_t v, uint32_t i, uint32_t count) {
  uint32_t reads = 0;
  for (uint32_t k = i; k < i + count; k++)
    for (uint32_t j = 0; j < part->nodes[k]->ntensor; j++) reads += part->nodes[k]->in[j]->id == v;
  return reads == part->reads[v];
}

static bool greedy_over(const kn_part *part, uint32_t i) {
  bool over = false;
  for (uint32_t j = 0; j < part->nodes[i]->nout; j++)
    over |= part->root[part->nodes[i]->out[j]->id] != part->nodes[i]->out[j]->id;
  return over;
}

static void greedy_rooms(greedy *g, const kn_part *part, uint32_t i, uint32_t count) {
  for (uint32_t k = i; k < i + count; k++)
    for (uint32_t j = 0; j < part->nodes[k]->nout && !greedy_over(part, k); j++) {
      uint32_t v = part->nodes[k]->out[j]->id;
      size_t bytes = (size_t)kn_type_numel(&part->types[v]) * kn_dtype_size((kn_dtype)part->types[v].dtype);
      if (count > 1 && greedy_private(part, v, i, count) && greedy_draw(g, 2))
        part->room[v] = KN_ROOM_NONE, g->hidden++;
      else if (greedy_private(part, v, 0, part->n) && greedy_draw(g, 2))
        part->room[v] = bytes + 192, g->roomy++;
    }
}

static bool greedy_made_in(const kn_node *const *nodes, uint32_t count, uint32_t v) {
  for (uint32_t k = 0; k < count; k++)
    for (uint32_t j = 0; j < nodes[k]->nout; j++)
      if (nodes[k]->out[j]->id == v) return true;
  return false;
}

/* Results over operands from outside the group, each over another. */
static bool greedy_overs(greedy *g, const kn_part *part, uint32_t i, uint32_t count) {
  bool any = false;
  if (greedy_draw(g, 2) || greedy_over(part, i)) return false;
  for (uint32_t k = i; k < i + count; k++) {
    const kn_node *n = part->nodes[k];
    for (uint32_t j = 0; j < n->ntensor && n->nout == 1 && !greedy_over(part, k); j++) {
      uint32_t u = n->in[j]->id, v = n->out[0]->id;
      if (greedy_made_in(part->nodes + i, count, part->root[u]) || part->room[v]) continue;
      part->over[v] = u; /* the plan looks whether it can */
      g->over++;
      any = true;
    }
  }
  return any;
}

static void greedy_free(void *self, kn_context *ctx, kn_program *q) {
  (void)self;
  kn_free(ctx->heap, q->together, q->n * sizeof *q->together);
  kn_free(ctx->heap, q->room, q->most * sizeof *q->room);
  kn_free(ctx->heap, q->copies, q->n);
  kn_free(ctx->heap, q, sizeof *q);
}

static kn_status greedy_compile(void *self, kn_context *ctx, const kn_part *part, kn_program **out) {
  greedy *g = self;
  kn_program *q = kn_calloc(ctx->heap, 1, sizeof *q);
  ck_assert_ptr_nonnull(q);
  *q = (kn_program){.nodes = part->nodes, .n = part->n, .most = part->graph->nvalues + 1};
  q->together = kn_calloc(ctx->heap, q->n, sizeof *q->together);
  q->room = kn_calloc(ctx->heap, q->most, sizeof *q->room);
  q->copies = kn_calloc(ctx->heap, q->n, 1);
  q->root = part->root;
  ck_assert(q->together && q->room && q->copies);
  for (uint32_t i = 0, k; i < q->n; i += k) {
    for (k = 1;
         k < 64 && i + k < q->n && !greedy_over(part, i) && !greedy_over(part, i + k) && !greedy_draw(g, 4);)
      k++;
    part->together[i] = q->together[i] = k;
    g->grouped += k > 1;
    greedy_rooms(g, part, i, k);
    q->copies[i] = greedy_overs(g, part, i, k);
  }
  memcpy(q->room, part->room, q->most * sizeof *q->room);
  *out = q;
  return KN_OK;
}

static void greedy_spoil(const kn_program *q, const kn_node *n, uint32_t j, kn_tensor **vals) {
  uint32_t v = n->out[j]->id;
  const kn_tensor *t = vals[v];
  size_t bytes = (size_t)kn_tensor_numel(t) * kn_dtype_size(kn_tensor_dtype(t));
  memset(kn_tensor_data(t), 0xff, q->room[v] && q->room[v] != KN_ROOM_NONE ? q->room[v] : bytes);
}

static kn_status greedy_node(kn_context *ctx, const kn_node *n, kn_tensor **vals) {
  kn_tensor *in[KN_MAX_INPUTS], *out[KN_MAX_OUTPUTS];
  for (uint32_t j = 0; j < n->ntensor; j++) in[j] = vals[n->in[j]->id];
  for (uint32_t j = 0; j < n->nout; j++) out[j] = vals[n->out[j]->id];
  kn_status st = kn_ops[n->op].kernel(ctx, n->attrs, in, (int)n->ntensor, out);
  return st == KN_OK ? KN_OK : kn_node_failed(ctx, n, st);
}

/* Operands from outside as copies, or, with what was there before in `kept`, as they were again. */
static void greedy_copies(kn_context *ctx, kn_program *q, uint32_t i, uint32_t count, kn_tensor **vals,
                          kn_tensor *kept[64][KN_MAX_INPUTS], bool back) {
  for (uint32_t k = count; k-- > 0;)
    for (uint32_t j = q->nodes[i + k]->ntensor; j-- > 0;) {
      uint32_t u = q->nodes[i + k]->in[j]->id;
      if (back && kept[k][j]) kn_tensor_release(vals[u]), vals[u] = kept[k][j];
      if (back || greedy_made_in(q->nodes + i, count, q->root[u])) continue;
      bool first = true; /* of its uses: the last to be put back */
      for (uint32_t a = 0; a <= k && first; a++)
        for (uint32_t b = 0; b < (a < k ? q->nodes[i + a]->ntensor : j); b++)
          first &= q->nodes[i + a]->in[b]->id != u;
      if (!first) continue;
      kept[k][j] = vals[u];
      OK(ctx, kn_tensor_new(ctx, &kept[k][j]->type, &vals[u]));
      OK(ctx, kn_ops[KN_OP_clone].kernel(ctx, NULL, &kept[k][j], 1, &vals[u]));
    }
}

static kn_status greedy_group(kn_context *ctx, kn_program *q, uint32_t i, uint32_t count, kn_tensor **vals) {
  kn_tensor *kept[64][KN_MAX_OUTPUTS] = {{NULL}}, *operands[64][KN_MAX_INPUTS] = {{NULL}};
  kn_status st = KN_OK;
  if (q->copies[i]) greedy_copies(ctx, q, i, count, vals, operands, false);
  for (uint32_t k = 0; k < count; k++)
    for (uint32_t j = 0; j < q->nodes[i + k]->nout && (count > 1 || q->copies[i]); j++) {
      uint32_t v = q->nodes[i + k]->out[j]->id;
      if (q->room[v] == KN_ROOM_NONE) {
        kept[k][j] = vals[v];
        OK(ctx, kn_tensor_new(ctx, &kept[k][j]->type, &vals[v]));
      }
      greedy_spoil(q, q->nodes[i + k], j, vals);
    }
  for (uint32_t k = 0; k < count && st == KN_OK; k++) st = greedy_node(ctx, q->nodes[i + k], vals);
  for (uint32_t k = 0; k < count; k++)
    for (uint32_t j = 0; j < q->nodes[i + k]->nout; j++) {
      if (!kept[k][j]) continue;
      kn_tensor_release(vals[q->nodes[i + k]->out[j]->id]);
      vals[q->nodes[i + k]->out[j]->id] = kept[k][j];
    }
  if (q->copies[i]) greedy_copies(ctx, q, i, count, vals, operands, true);
  return st;
}

static kn_status greedy_run(void *self, kn_context *ctx, kn_program *q, kn_tensor **vals,
                            const kn_scalar *scalars) {
  (void)self, (void)scalars;
  for (uint32_t i = 0; i < q->n; i += q->together[i]) KN_TRY(greedy_group(ctx, q, i, q->together[i], vals));
  return KN_OK;
}

/* In place: the target points at it. */
static inline void greedy_init(greedy *g, uint64_t seed) {
  *g = (greedy){.seed = seed};
  g->target = (kn_target){.name = "greedy",
                          .supports = greedy_supports,
                          .joins = greedy_joins,
                          .compile = greedy_compile,
                          .run = greedy_run,
                          .free = greedy_free,
                          .self = g};
}

#endif
