/* The plan's third step: regions become flat arrays of steps. Numbers the plan knows and branches that sizes
 * rule out leave no step; consecutive op nodes of one target become a part and are compiled. Gives every node
 * a time (pos) and so every value its lifetime, which memory.c turns into offsets. */
#include "graph/emit.h"
#include "graph/whole.h"
#include "graph/text.h"
#include <stdio.h>
#include <string.h>

static kn_status emit_nodes(emitter *e, const kn_region *r, bool *dead);

/* ---- lifetimes ---- */

static void define(emitter *e, const kn_value *v) {
  kn_plan *p = e->p;
  p->first[v->id] = p->last[v->id] = e->pos;
  p->level[v->id] = e->nloops;
  p->home[v->id] = e->block;
  p->has_lists |= kn_is_list(v->type.kind);
}

/* A use inside loops that do not hold the definition lasts until the outermost of them ends. */
static void use(emitter *e, const kn_value *v) {
  kn_plan *p = e->p;
  if (kn_is_scalar(v->type.kind)) return;
  p->has_lists |= kn_is_list(v->type.kind);
  if (p->last[v->id] < e->pos) p->last[v->id] = e->pos;
  if (p->level[v->id] < e->nloops) p->crosses[v->id] = 1 + e->loops[p->level[v->id]];
}

static kn_status alias(emitter *e, const kn_value *dst, const kn_value *src) {
  kn_alias a = {dst->id, src->id};
  if (dst->type.kind != KN_V_TENSOR || kn_plan_push(e->p, &e->p->aliases, &e->p->naliases, &a, sizeof a))
    return KN_OK;
  return kn_fail_nomem(e->ctx, sizeof a);
}

/* ---- steps ---- */

kn_status kn_push_step(emitter *e, kn_step s) {
  kn_block *b = &e->p->blocks[e->block];
  s.pos = e->pos;
  return kn_plan_push(e->p, &b->steps, &b->n, &s, sizeof s) ? KN_OK : kn_fail_nomem(e->ctx, sizeof s);
}

static kn_status push_failure(emitter *e, const kn_node *n, kn_planned_failure *f) {
  KN_TRY(kn_part_flush(e));
  kn_plan *p = e->p;
  if (!f) {
    char text[256];
    snprintf(text, sizeof text, "%s: an input has no value on the path that led here",
             kn_opcode_describe(n->op).text);
    f = kn_arena_alloc(&p->arena, sizeof *f);
    if (f) *f = (kn_planned_failure){n, KN_FORMAT, kn_arena_strdup(&p->arena, text)};
    if (!f || !f->text) return kn_fail_nomem(e->ctx, sizeof *f);
  }
  if (!kn_plan_push(p, &p->fails, &p->nfails, &f, sizeof f)) return kn_fail_nomem(e->ctx, sizeof f);
  e->pos++;
  return kn_push_step(e, (kn_step){.kind = KN_STEP_FAIL, .node = n, .a = p->nfails - 1});
}

/* ---- op nodes ---- */

/* Views and sums to other sizes read the elements of their first input only, sizes are none; nor does a view
 * that nobody reads, which is why it goes from the last node to the first. */
static void count_reads(kn_plan *p, const kn_region *r) {
  for (uint32_t i = 0; i < r->nyields; i++) p->reads[r->yields[i]->id]++;
  for (const kn_node *n = r->last; n; n = n->prev) {
    bool first = kn_opcode_is_op(n->op) && (kn_ops[n->op].op_class == KN_CLASS_VIEW || n->op == KN_OP_sum_to);
    bool view = kn_opcode_is_op(n->op) && kn_ops[n->op].op_class == KN_CLASS_VIEW && n->nout == 1 &&
                n->op != KN_OP_reshape && n->op != KN_OP_reshape_as; /* which may copy */
    bool none = n->op == KN_NODE_size || (n->nout && p->place[n->out[0]->id] == KN_PLACE_CONST) ||
                (view && !p->reads[n->out[0]->id]);
    for (int i = n->nregions; i-- > 0;) count_reads(p, n->regions[i]);
    for (uint32_t i = 0; i < n->nin && !none; i++)
      if (!first || !i) p->reads[n->in[i]->id]++;
  }
}

/* Views that no step has to make: those over the arena, whose headers are there with the plan, and those of
 * inputs and slots, which are made when a run starts. */
static kn_status emit_view(emitter *e, const kn_node *n, const kn_node *c, bool *done) {
  kn_plan *p = e->p;
  char why[64];
  uint32_t in = n->in[0]->id, v = n->out[0]->id;
  bool reshapes = n->op == KN_OP_reshape || n->op == KN_OP_reshape_as, maybe = false;
  *done = false;
  for (uint32_t i = 0; i < n->ntensor; i++) maybe |= p->maybe[n->in[i]->id];
  if (!kn_node_static(c, p->types, why, sizeof why) || maybe || p->handle[v] || p->result[v] || p->listed[v])
    return KN_OK;
  bool early = p->ready[in] && n->ntensor == 1;
  if (!early && !kn_plan_is_fixed(p, in)) return KN_OK;
  if (!early && reshapes && !kn_tensor_contiguous(p->header[in])) return KN_OK; /* copies */
  KN_TRY(kn_plan_place(e->ctx, p, c, n->out[0], e->pos, e->block, false));
  use(e, n->in[0]);
  define(e, n->out[0]);
  p->root[v] = p->root[in];
  *done = true;
  if (!early) return alias(e, n->out[0], n->in[0]);
  p->first[v] = p->last[v] = p->level[v] = p->home[v] = 0;
  p->ready[v] = true;
  kn_early made = {.node = c, .stays = p->root[v] > p->graph->body->nparams}; /* inputs have the first ids */
  return kn_plan_push(p, &p->early, &p->nearly, &made, sizeof made) ? KN_OK
                                                                    : kn_fail_nomem(e->ctx, sizeof made);
}

/* What is checked when a part has run is still what it was: what overwrites a tensor is a part of its own. So
 * is what no launch takes, among nodes that one does, and what takes a place that only the device knows,
 * which is no part of a launch, but a step. copy: the plan's of n. */
static bool stands_apart(const emitter *e, const kn_node *n, const kn_node *copy) {
  const kn_plan *p = e->p;
  const kn_node *last = e->nodes[e->n - 1];
  if (p->whole && (kn_node_is_placed(copy, p->types) || kn_node_is_placed(last, p->types))) return true;
  if (p->whole && e->target == p->whole)
    return kn_whole_takes(p, copy, n) != kn_whole_takes(p, last, e->sources[e->n - 1]);
  return p->form == KN_PLAN_APART && (kn_ops[n->op].flags | kn_ops[last->op].flags) & KN_FLAG_WRITES;
}

/* Not in a branch or loop. */
static bool runs_once(const emitter *e) {
  return !e->block || (e->p->blocks[e->block].section && !e->p->blocks[e->block].parent);
}

/* The order of the program is not that of strands: what others may read is not for one of them. */
static bool may_overwrite(const emitter *e, const kn_node *n) {
  if (!(kn_ops[n->op].flags & KN_FLAG_OVER)) return false;
  if (!e->strand) return !e->early;
  uint32_t b = e->p->home[n->in[0]->id];
  while (b != KN_NOWHERE && b != e->strand - 1) b = e->p->blocks[b].parent;
  return b != KN_NOWHERE;
}

static kn_status emit_op(emitter *e, const kn_node *n, bool *dead) {
  kn_plan *p = e->p;
  bool undefined = false;
  for (uint32_t i = 0; i < n->ntensor; i++) undefined |= p->undefined[n->in[i]->id];
  if (undefined || p->failure[n->out[0]->id]) {
    *dead = true;
    return push_failure(e, n, undefined ? NULL : p->failure[n->out[0]->id]);
  }
  if (p->place[n->out[0]->id] == KN_PLACE_CONST) {
    define(e, n->out[0]);
    return KN_OK;
  }
  kn_node *c;
  KN_TRY(kn_part_copy(e, n, &c));
  if (kn_ops[n->op].op_class == KN_CLASS_VIEW && !p->single) {
    bool done;
    KN_TRY(emit_view(e, n, c, &done));
    if (done) return KN_OK;
  }
  bool passed;
  KN_TRY(kn_plan_pass_on(e->ctx, p, c, &passed));
  if (passed) {
    use(e, n->in[0]);
    define(e, n->out[0]);
    p->root[n->out[0]->id] = p->root[n->in[0]->id];
    return alias(e, n->out[0], n->in[0]);
  }
  const kn_target *t = kn_part_target(e, c);
  if (e->n && (t != e->target || p->single || stands_apart(e, n, c))) KN_TRY(kn_part_flush(e));
  e->pos++;
  if (!e->n) e->buffers = p->nbuffers;
  e->target = t;
  for (uint32_t i = 0; i < n->ntensor; i++) use(e, n->in[i]);
  bool tied = kn_ops[n->op].op_class == KN_CLASS_VIEW || kn_ops[n->op].flags & KN_FLAG_WRITES;
  for (uint32_t i = 0; i < n->nout; i++) {
    bool over = false, once = runs_once(e);
    define(e, n->out[i]);
    if ((!once || !p->result[n->out[i]->id]) && may_overwrite(e, n))
      KN_TRY(kn_plan_over(e->ctx, p, n, &over));
    if (!over) KN_TRY(kn_plan_place(e->ctx, p, c, n->out[i], e->pos, e->block, once));
    tied |= over;
    if (over) p->root[n->out[i]->id] = p->root[n->in[0]->id];
    if (tied && p->place[n->out[i]->id] != KN_PLACE_ARENA) KN_TRY(alias(e, n->out[i], n->in[0]));
  }
  if (!kn_plan_push(p, &e->nodes, &e->n, &c, sizeof c) ||
      !kn_plan_push(p, &e->sources, &e->nsources, &n, sizeof n))
    return kn_fail_nomem(e->ctx, sizeof c);
  return KN_OK;
}

/* ---- if ---- */

static kn_status emit_branch(emitter *e, const kn_node *n, int side, uint32_t *block, bool *dead) {
  kn_plan *p = e->p;
  kn_block b = {.parent = e->block, .owner = n, .side = side};
  if (!kn_plan_push(p, &p->blocks, &p->nblocks, &b, sizeof b)) return kn_fail_nomem(e->ctx, sizeof b);
  uint32_t outer = e->block;
  const kn_region *r = n->regions[side];
  e->block = *block = p->nblocks - 1;
  KN_TRY(emit_nodes(e, r, dead));
  KN_TRY(kn_part_flush(e));
  e->block = outer;
  e->pos++;
  for (uint32_t i = 0; !*dead && i < r->nyields; i++) use(e, r->yields[i]);
  return KN_OK;
}

/* Where tensors stay where they are, the outputs are copies of what the branches yield, or what they yield is
 * computed in their place. The bytes are theirs from before the branches on. */
static kn_status place_outputs(emitter *e, const kn_node *n) {
  kn_plan *p = e->p;
  for (uint32_t i = 0; p->whole && i < n->nout; i++) {
    const kn_value *v = n->out[i];
    size_t bytes;
    bool open = v->type.kind != KN_V_TENSOR || p->handle[v->id] || p->listed[v->id] || p->undefined[v->id] ||
                kn_plan_may_miss(p, v->id) || !kn_type_known(&p->types[v->id]) ||
                !kn_type_bytes(&p->types[v->id], &bytes);
    if (open) continue;
    KN_TRY(kn_plan_buffer(e->ctx, p, &p->types[v->id], v->id, e->pos, e->block, &p->header[v->id]));
    p->place[v->id] = KN_PLACE_ARENA;
  }
  return KN_OK;
}

static kn_buffer *buffer_of(const kn_plan *p, const kn_value *v, uint32_t from) {
  for (uint32_t i = p->nbuffers; i > from; i--)
    if (p->buffers[i - 1].value == v->id) return &p->buffers[i - 1];
  return NULL;
}

/* `from`: the first buffer of the outputs, which those of the branches follow. */
static void join_yields(emitter *e, const kn_node *n, int side, uint32_t block, uint32_t from) {
  kn_plan *p = e->p;
  const kn_region *r = n->regions[side];
  for (uint32_t i = 0; i < n->nout; i++) {
    const kn_value *v = r->yields[i];
    bool again = p->place[v->id] != KN_PLACE_ARENA || !v->def || !kn_opcode_is_op(v->def->op);
    for (uint32_t k = 0; k < n->nout && !again; k++) again = k != i && r->yields[k] == v;
    if (again || p->place[n->out[i]->id] != KN_PLACE_ARENA) continue;
    kn_buffer *b = buffer_of(p, v, from), *to = buffer_of(p, n->out[i], from);
    if (b && to && b->block == block) b->into = (uint32_t)(to - p->buffers) + 1;
  }
}

/* The outputs are bound to what the living branches yield. */
static kn_status define_outputs(emitter *e, const kn_node *n, const bool gone[2]) {
  for (uint32_t i = 0; i < n->nout; i++) {
    if (kn_is_scalar(n->out[i]->type.kind)) continue;
    define(e, n->out[i]);
    if (e->p->place[n->out[i]->id] == KN_PLACE_ARENA) continue;
    e->p->place[n->out[i]->id] = KN_PLACE_LOOSE;
    for (int side = 0; side < 2; side++)
      if (!gone[side]) KN_TRY(alias(e, n->out[i], n->regions[side]->yields[i]));
  }
  return KN_OK;
}

static kn_status emit_if(emitter *e, const kn_node *n, bool *dead) {
  kn_plan *p = e->p;
  uint32_t c = n->in[0]->id;
  bool gone[2] = {true, true};
  kn_step step = {.kind = KN_STEP_IF, .node = n};
  if (p->known[c]) {
    int side = p->scalars[c].as.b ? 0 : 1;
    KN_TRY(emit_nodes(e, n->regions[side], &gone[side]));
    KN_TRY(kn_part_flush(e));
    step = (kn_step){.kind = KN_STEP_BIND, .node = n, .a = (uint32_t)side};
    e->pos++;
    for (uint32_t i = 0; !gone[side] && i < n->nout; i++) use(e, n->regions[side]->yields[i]);
  } else {
    KN_TRY(kn_part_flush(e));
    e->pos++;
    const uint32_t from = p->nbuffers;
    KN_TRY(place_outputs(e, n));
    KN_TRY(emit_branch(e, n, 0, &step.a, &gone[0]));
    KN_TRY(emit_branch(e, n, 1, &step.b, &gone[1]));
    if (!gone[0]) join_yields(e, n, 0, step.a, from);
    if (!gone[1]) join_yields(e, n, 1, step.b, from);
    e->pos++;
  }
  *dead = gone[0] && gone[1];
  KN_TRY(define_outputs(e, n, gone));
  return kn_push_step(e, step);
}

/* ---- loop ---- */

static kn_status carry_param(emitter *e, const kn_node *n, uint32_t i, kn_carry *c) {
  kn_plan *p = e->p;
  const kn_region *r = n->regions[0];
  const kn_value *v = r->params[i];
  if (kn_is_scalar(v->type.kind)) {
    c->how = p->known[v->id] ? KN_CARRY_KEEP : KN_CARRY_NUMBER;
    return KN_OK;
  }
  define(e, v);
  p->place[v->id] = KN_PLACE_LOOSE;
  size_t bytes;
  if (r->yields[1 + i] == v)
    c->how = KN_CARRY_KEEP;
  else if (kn_is_list(v->type.kind) || p->handle[v->id])
    c->how = KN_CARRY_HANDLE;
  else if (p->undefined[v->id] || !kn_type_bytes(&p->types[v->id], &bytes))
    c->how = KN_CARRY_OWN;
  else {
    c->how = KN_CARRY_COPY;
    p->place[v->id] = KN_PLACE_ARENA;
    return kn_plan_buffer(e->ctx, p, &p->types[v->id], v->id, e->pos, e->block, &p->header[v->id]);
  }
  return alias(e, v, n->in[i]);
}

typedef struct reach { /* values still to look at, each once */
  const kn_value **todo;
  bool *apart; /* by entry: reached through a view or as another value, so not the parameter as it stands */
  uint8_t *seen;
  uint32_t n;
} reach;

static void reach_add(reach *q, const kn_value *v, bool apart) {
  if (v->type.kind != KN_V_TENSOR || q->seen[v->id] > apart) return;
  q->seen[v->id] = (uint8_t)(1 + apart);
  q->todo[q->n] = v;
  q->apart[q->n++] = apart;
}

/* May the next value of parameter i lie in the bytes of one of this loop's parameters, other than as
 * parameter i itself? Then writing one parameter could change what another is to receive. */
static bool overlaps_params(const kn_plan *p, const kn_node *loop, uint32_t i, reach *q) {
  const kn_region *body = loop->regions[0];
  memset(q->seen, 0, p->graph->nvalues + 1);
  q->n = 0;
  reach_add(q, body->yields[1 + i], false);
  while (q->n) {
    const kn_value *v = q->todo[--q->n];
    bool apart = q->apart[q->n];
    const kn_node *d = v->def;
    if (!d) {
      if (v->region == body) {
        if (p->place[v->id] == KN_PLACE_ARENA && (apart || v != body->params[i])) return true;
      } else if (v->region->owner && v->region->owner->op == KN_NODE_loop &&
                 p->place[v->id] == KN_PLACE_LOOSE) {
        reach_add(q, v->region->owner->in[v->index], apart);
        reach_add(q, v->region->yields[1 + v->index], apart);
      }
    } else if (kn_opcode_is_op(d->op)) {
      bool over = kn_plan_is_over(p, v);
      bool view = kn_ops[d->op].op_class == KN_CLASS_VIEW ? p->place[v->id] != KN_PLACE_ARENA
                                                          : p->place[v->id] == KN_PLACE_VIEW && !over;
      if (over) reach_add(q, d->in[0], apart);
      if (view || kn_ops[d->op].flags & KN_FLAG_WRITES) reach_add(q, d->in[0], true);
    } else if (d->op == KN_NODE_if) {
      for (int side = 0; side < 2; side++) reach_add(q, d->regions[side]->yields[v->index], apart);
    } else if (d->op == KN_NODE_loop) {
      const kn_region *r = d->regions[0];
      reach_add(q, r->yields[1 + r->nparams + v->index], apart);
    } else if (d->op == KN_NODE_select) {
      reach_add(q, d->in[1], apart);
      reach_add(q, d->in[2], apart);
    }
  }
  return false;
}

static kn_status stage_overlaps(emitter *e, const kn_node *n, kn_carry *carry) {
  kn_plan *p = e->p;
  uint32_t room = 2 * p->graph->nvalues + 2; /* a value is added at most twice */
  reach q = {.todo = kn_alloc(e->ctx->heap, room * sizeof *q.todo),
             .apart = kn_alloc(e->ctx->heap, room),
             .seen = kn_alloc(e->ctx->heap, p->graph->nvalues + 1)};
  kn_status st = q.todo && q.apart && q.seen ? KN_OK : kn_fail_nomem(e->ctx, room * sizeof *q.todo);
  for (uint32_t i = 0; st == KN_OK && i < n->nin; i++) {
    if (carry[i].how != KN_CARRY_COPY || !overlaps_params(p, n, i, &q)) continue;
    carry[i].how = KN_CARRY_STAGED;
    st = kn_plan_buffer(e->ctx, p, &p->types[n->regions[0]->params[i]->id], 0, e->pos, e->block,
                        &carry[i].stage);
  }
  kn_free(e->ctx->heap, q.todo, room * sizeof *q.todo);
  kn_free(e->ctx->heap, q.apart, room);
  kn_free(e->ctx->heap, q.seen, p->graph->nvalues + 1);
  return st;
}

static kn_status emit_loop(emitter *e, const kn_node *n, bool *dead) {
  kn_plan *p = e->p;
  const kn_region *r = n->regions[0];
  KN_TRY(kn_part_flush(e));
  e->pos++;
  for (uint32_t i = 0; i < n->nin; i++) use(e, n->in[i]);
  kn_loop_plan loop = {
      .node = n, .carry = kn_arena_alloc(&p->arena, (n->nin + 1) * sizeof(kn_carry)), .start = e->pos};
  if (!loop.carry || !kn_plan_push(p, &p->loops, &p->nloops, &loop, sizeof loop))
    return kn_fail_nomem(e->ctx, (n->nin + 1) * sizeof(kn_carry));
  uint32_t index = p->nloops - 1;
  e->loops[e->nloops++] = index; /* no deeper than sizes.c allowed */
  for (uint32_t i = 0; i < r->nparams; i++) KN_TRY(carry_param(e, n, i, &loop.carry[i]));
  uint32_t block;
  KN_TRY(emit_branch(e, n, 0, &block, dead)); /* its last pos is the back edge, where the yields are used */
  for (uint32_t i = 0; i < r->nparams; i++) use(e, r->params[i]);
  if (!*dead) KN_TRY(stage_overlaps(e, n, loop.carry));
  p->loops[index].block = block;
  p->loops[index].end = e->pos;
  e->nloops--;
  e->pos++;
  for (uint32_t i = 0; i < n->nout; i++) {
    if (kn_is_scalar(n->out[i]->type.kind)) continue;
    define(e, n->out[i]);
    p->place[n->out[i]->id] = KN_PLACE_LOOSE;
    if (!*dead) KN_TRY(alias(e, n->out[i], r->yields[1 + r->nparams + i]));
  }
  return kn_push_step(e, (kn_step){.kind = KN_STEP_LOOP, .node = n, .a = index});
}

/* ---- the rest ---- */

/* Numbers made of numbers wait for no tensor: they are computed before the part that is being gathered, so
 * that it stays whole. */
static bool is_number_only(const kn_plan *p, const kn_node *n) {
  bool numbers = n->nin > 0 && n->nout == 1 && kn_opcode_describe(n->op).effect == KN_PURE && !p->single;
  for (uint32_t i = 0; i < n->nin; i++) numbers &= kn_is_scalar(n->in[i]->type.kind);
  const kn_value *out = n->nout ? n->out[0] : NULL;
  if (!numbers || kn_is_scalar(out->type.kind)) return numbers;
  return n->op == KN_NODE_to_tensor && kn_dtypes[p->types[out->id].dtype].category == KN_CAT_FLOAT &&
         !p->handle[out->id] && !p->listed[out->id] && !p->result[out->id];
}

static kn_status push_node(emitter *e, const kn_node *n) {
  bool number = is_number_only(e->p, n) && kn_is_scalar(n->out[0]->type.kind);
  return kn_push_step(e, (kn_step){.kind = number ? KN_STEP_NUMBER : KN_STEP_NODE, .node = n});
}

static kn_status emit_number(emitter *e, const kn_node *n) {
  uint32_t pos = e->pos;
  e->pos -= e->n; /* the time of what stands before the part */
  define(e, n->out[0]);
  kn_status st = kn_plan_place(e->ctx, e->p, n, n->out[0], e->pos, e->block, false);
  if (st == KN_OK) st = push_node(e, n);
  e->pos = pos;
  return st;
}

static kn_status emit_other(emitter *e, const kn_node *n, bool *dead) {
  kn_plan *p = e->p;
  kn_value *out = n->nout ? n->out[0] : NULL;
  if (out && out->type.kind != KN_V_TENSOR && p->known[out->id] && n->op != KN_NODE_list_get) return KN_OK;
  for (uint32_t i = 0; i < n->nout; i++) define(e, n->out[i]);
  if (n->op == KN_NODE_param || n->op == KN_NODE_tensor) {
    kn_bound b = {out->id, n->slot};
    p->place[out->id] = out->type.kind == KN_V_TENSOR ? KN_PLACE_LOOSE : KN_PLACE_NONE;
    p->ready[out->id] = !p->slot_copied[n->slot->index];
    return kn_plan_push(p, &p->bound, &p->nbound, &b, sizeof b) ? KN_OK : kn_fail_nomem(e->ctx, sizeof b);
  }
  if (out && p->place[out->id] == KN_PLACE_CONST) return KN_OK;
  if (n->op == KN_NODE_undef || n->op == KN_NODE_list_new) { /* no list is the empty one */
    p->place[out->id] = KN_PLACE_LOOSE;
    return KN_OK;
  }
  if (e->n && is_number_only(p, n)) return emit_number(e, n);
  KN_TRY(kn_part_flush(e));
  e->pos++;
  bool first = n->op == KN_NODE_with_history; /* nothing is read of the other */
  for (uint32_t i = 0; i < (first ? 1 : n->nin); i++) use(e, n->in[i]);
  for (uint32_t i = 0; i < n->nout; i++) {
    define(e, n->out[i]);
    KN_TRY(kn_plan_place(e->ctx, p, n, n->out[i], e->pos, e->block, runs_once(e)));
  }
  if (n->op == KN_NODE_select && p->place[out->id] != KN_PLACE_ARENA)
    for (int i = 1; i < 3; i++) KN_TRY(alias(e, out, n->in[i]));
  if (kn_node_passes(n)) KN_TRY(alias(e, out, n->in[0]));
  *dead = n->op == KN_NODE_raise;
  const bool stores = n->op == KN_NODE_store_state || n->op == KN_NODE_update;
  if (p->whole && stores && !kn_plan_push(p, &e->kept, &e->nkept, &n->in[n->nin - 1], sizeof *e->kept))
    return kn_fail_nomem(e->ctx, sizeof *e->kept);
  return push_node(e, n);
}

kn_status kn_emit_node(emitter *e, const kn_node *n, bool *dead) {
  if (kn_opcode_is_op(n->op)) return emit_op(e, n, dead);
  if (n->op == KN_NODE_if) return emit_if(e, n, dead);
  if (n->op == KN_NODE_loop) return emit_loop(e, n, dead);
  return emit_other(e, n, dead);
}

static kn_status emit_nodes(emitter *e, const kn_region *r, bool *dead) {
  kn_found *section;
  *dead = false;
  KN_TRY(kn_find_section(e, r->first, &section));
  for (const kn_node *n = r->first; n && !*dead;) {
    if (!section || n != section->first) {
      KN_TRY(kn_emit_node(e, n, dead));
      n = n->next;
      continue;
    }
    KN_TRY(kn_emit_section(e, section, dead));
    n = section->end;
    if (!*dead) KN_TRY(kn_find_section(e, n, &section));
  }
  return KN_OK;
}

kn_status kn_plan_emit(kn_context *ctx, kn_plan *p, const kn_target *const *targets, int ntargets) {
  const kn_region *body = p->graph->body;
  kn_block b = {.parent = KN_NOWHERE};
  if (!kn_plan_push(p, &p->blocks, &p->nblocks, &b, sizeof b)) return kn_fail_nomem(ctx, sizeof b);
  emitter e = {.ctx = ctx, .p = p, .targets = targets, .ntargets = ntargets};
  e.room = kn_arena_alloc(&p->arena, (p->graph->nvalues + 1u) * sizeof *e.room);
  e.over = kn_arena_alloc(&p->arena, (p->graph->nvalues + 1u) * sizeof *e.over);
  e.labels = kn_arena_alloc(&p->arena, (p->graph->nvalues + 1u) * sizeof *e.labels);
  e.strands = kn_arena_alloc(&p->arena, (p->graph->nnodes + 1u) * sizeof *e.strands);
  if (!e.room || !e.over || !e.labels || !e.strands)
    return kn_fail_nomem(ctx, (p->graph->nvalues + 1u) * sizeof *e.room);
  count_reads(p, body);
  for (uint32_t i = 0; i < body->nparams; i++) {
    if (!kn_is_scalar(body->params[i]->type.kind)) p->place[body->params[i]->id] = KN_PLACE_LOOSE;
    p->ready[body->params[i]->id] = body->params[i]->type.kind == KN_V_TENSOR;
    define(&e, body->params[i]);
  }
  bool dead;
  KN_TRY(emit_nodes(&e, body, &dead));
  KN_TRY(kn_part_flush(&e));
  e.pos++;
  for (uint32_t i = 0; !dead && i < body->nyields; i++) use(&e, body->yields[i]);
  for (uint32_t i = 0; i < e.nkept; i++)
    if (!p->home[e.kept[i]->id]) use(&e, e.kept[i]);
  return KN_OK;
}
