/* Which steps of a plan run as one: the longest runs of them of which nothing needs the host. Numbers that
 * follow from what the host knows are left to it, before the launch; what is stored it stores afterwards. */
#include "graph/whole.h"
#include "graph/attempt.h"
#include "graph/format.h"
#include "graph/text.h"
#include <stdio.h>
#include <string.h>

enum { WORTH = 2 }; /* nodes of ops, branches and loops that a launch of their own pays for */

typedef struct cutter {
  kn_context *ctx;
  kn_plan *p;
  uint8_t *device; /* by value: a number that the piece which is gathered computes */
  bool top;        /* the steps are those that run once */
  bool lists;      /* those that can be tensors are */
  bool caught;     /* errors are caught around it, and the host goes on from what was drawn before them */
  bool *wanted;    /* by value: a number that the host reads */
  char why[200];   /* of the last step that did not fit */
  const kn_node *where;
} cutter;

static bool refuse(cutter *c, const kn_node *n, const char *why) {
  snprintf(c->why, sizeof c->why, "%s", why);
  c->where = n;
  return false;
}

/* ---- what fits ---- */

static bool is_place(const kn_plan *p, uint32_t v) {
  return kn_plan_is_fixed(p, v) || p->place[v] == KN_PLACE_SHELL;
}

/* Has it a place on the device? What lies elsewhere nobody brings back. */
static bool is_made_there(const cutter *c, uint32_t v) {
  return is_place(c->p, v) && c->p->types[v].device == c->p->whole->device;
}

static bool is_refused(const kn_plan *p, const kn_node *source) {
  for (uint32_t i = 0; i < p->refused->n; i++)
    if (p->refused->nodes[i] == source) return true;
  return false;
}

static bool takes(const kn_plan *p, const kn_node *n, const kn_node *source, char *why, size_t size) {
  if (!kn_node_static(n, p->types, why, size) && !kn_node_is_placed(n, p->types)) return false;
  if (is_refused(p, source)) return snprintf(why, size, "it could not be made a part of a launch"), false;
  if (kn_ops[n->op].flags & KN_FLAG_WRITES) return snprintf(why, size, "it overwrites a tensor"), false;
  return p->whole->launcher->supports(p->whole->self, n, why, size);
}

bool kn_whole_takes(const kn_plan *p, const kn_node *n, const kn_node *source) {
  char why[128];
  return takes(p, n, source, why, sizeof why);
}

static bool node_fits(cutter *c, const kn_target *t, const kn_node *n, const kn_node *source) {
  const kn_plan *p = c->p;
  char why[128];
  if (!takes(p, n, source, why, sizeof why)) return refuse(c, n, why);
  if (c->caught && kn_ops[n->op].flags & KN_FLAG_RANDOM)
    return refuse(c, n, "how many random numbers are drawn before an error that is caught is not known");
  for (uint32_t i = 0; i < n->ntensor; i++) {
    const kn_type *in = &p->types[n->in[i]->id];
    if (kn_plan_may_miss(p, n->in[i]->id)) return refuse(c, n, "an input may have no value");
    if (in->device != t->device && in->rank && p->place[n->in[i]->id] != KN_PLACE_CONST)
      return refuse(c, n, "an input is a tensor of another device");
  }
  for (uint32_t i = 0; i < n->nout; i++)
    if (!is_place(p, n->out[i]->id)) return refuse(c, n, "its result has to be a new tensor at each run");
  return true;
}

static bool part_fits(cutter *c, const kn_part_plan *part) {
  if (part->target != c->p->whole) {
    char why[96];
    snprintf(why, sizeof why, "%s computes it", part->target->name);
    return refuse(c, part->sources[0], why);
  }
  for (uint32_t i = 0; i < part->n; i++)
    if (!node_fits(c, part->target, part->nodes[i], part->sources[i])) return false;
  return true;
}

static bool is_number_node(const kn_node *n) {
  return n->op >= KN_NODE_lua_add && n->op <= KN_NODE_for_count;
}

#define USE_ROWS "; rows of a tensor that was made before (t[i] = x) need none"

static bool is_tensor(const cutter *c, uint32_t list) { return c->lists && c->p->flat && c->p->flat[list]; }

/* What its text shows is kept where it is at fault. */
static bool text_fits(cutter *c, const kn_node *n) {
  for (uint32_t i = kn_format_first(n); i < n->nin; i++) {
    const kn_value *v = n->in[i];
    if (kn_is_list(v->type.kind)) return refuse(c, n, "its text shows a list");
    if (v->type.kind != KN_V_TENSOR) continue;
    if (kn_plan_may_miss(c->p, v->id)) return refuse(c, n, "its text shows what may have no value");
    if (!kn_type_known(&c->p->types[v->id]) || c->p->types[v->id].device != c->p->whole->device)
      return refuse(c, n,
                    "its text shows a tensor whose sizes are only known when it runs, or of another device");
  }
  return true;
}

/* Nodes that are no ops. */
static bool other_fits(cutter *c, const kn_node *n) {
  const kn_plan *p = c->p;
  if (is_number_node(n) || n->op == KN_NODE_checkpoint_after) return true;
  const bool tensor = n->nin && n->in[0]->type.kind == KN_V_TENSOR;
  if (tensor && kn_plan_may_miss(p, n->in[0]->id) && n->op != KN_NODE_defined)
    return refuse(c, n, "an input may have no value");
  switch ((int)n->op) {
  case KN_NODE_item:
    if (!kn_type_known(&p->types[n->in[0]->id]) || kn_type_numel(&p->types[n->in[0]->id]) != 1)
      return refuse(c, n, "it reads a tensor that may have several elements");
    return p->types[n->in[0]->id].device == p->whole->device ||
           refuse(c, n, "it reads a tensor of another device");
  case KN_NODE_to_tensor:
    return is_made_there(c, n->out[0]->id) ||
           refuse(c, n, "its result is handed on as it is, or of another device");
  case KN_NODE_select:
    return n->out[0]->type.kind != KN_V_TENSOR || is_made_there(c, n->out[0]->id) ||
           refuse(c, n, "which of two tensors it is may be asked");
  case KN_NODE_detach:
  case KN_NODE_with_history: return true;
  case KN_NODE_assert:
  case KN_NODE_raise: return text_fits(c, n);
  case KN_NODE_store_state: return refuse(c, n, "state is stored in a branch or loop");
  case KN_NODE_load_state: return refuse(c, n, "state is read in a branch or loop, or when it was stored");
  case KN_NODE_list_get:
    if (n->out[0]->type.kind == KN_V_TENSOR && !is_place(p, n->out[0]->id))
      return refuse(c, n, "its result is handed on as it is");
    return is_tensor(c, n->in[0]->id) || refuse(c, n, "it is a list" USE_ROWS);
  case KN_NODE_list_append:
  case KN_NODE_list_length: return is_tensor(c, n->in[0]->id) || refuse(c, n, "it is a list" USE_ROWS);
  case KN_NODE_host_call: return refuse(c, n, "it calls a function of the host");
  default: break;
  }
  if (kn_opcode_says(n->op)) return refuse(c, n, "it prints");
  return refuse(c, n,
                kn_is_list(n->nout ? n->out[0]->type.kind : KN_V_TENSOR) ||
                        (n->nin && kn_is_list(n->in[0]->type.kind))
                    ? "it is a list" USE_ROWS
                    : "the host does it");
}

static bool step_fits(cutter *c, const kn_step *s);

static bool block_fits(cutter *c, uint32_t block) {
  const kn_block *b = &c->p->blocks[block];
  bool fits = true;
  for (uint32_t i = 0; i < b->n && fits; i++) fits = step_fits(c, &b->steps[i]);
  return fits;
}

static bool binds_fit(cutter *c, const kn_step *s, int side) {
  const kn_plan *p = c->p;
  for (const kn_bind *b = p->binds + s->bind[side], *end = b + s->nbind[side]; b < end; b++) {
    if (b->how == KN_BIND_LIST && !is_tensor(c, b->to)) return refuse(c, s->node, "it gives a list" USE_ROWS);
    if (b->how != KN_BIND_NUMBER && kn_plan_may_miss(p, b->to))
      return refuse(c, s->node, "a result may have no value");
    if (b->how == KN_BIND_COPY && !is_made_there(c, b->to))
      return refuse(c, s->node, "a result is of another device");
    if (s->kind == KN_STEP_IF && !p->undefined[b->to] && (b->how == KN_BIND_OWN || b->how == KN_BIND_LENT))
      return refuse(c, s->node,
                    kn_type_known(&p->types[b->to]) ? "which tensor it gives may be asked"
                                                    : "sizes are only known when it runs");
  }
  return true;
}

static bool carry_fits(cutter *c, const kn_loop_plan *l, uint32_t i) {
  const kn_plan *p = c->p;
  const kn_value *v = l->node->regions[0]->params[i];
  if (kn_is_list(v->type.kind))
    return is_tensor(c, v->id) || refuse(c, l->node, "it carries a list" USE_ROWS);
  if (v->type.kind == KN_V_TENSOR && kn_plan_may_miss(p, v->id))
    return refuse(c, l->node, "what it carries may have no value");
  const bool copied = l->carry[i].how == KN_CARRY_COPY || l->carry[i].how == KN_CARRY_STAGED;
  if (copied && !is_made_there(c, v->id)) return refuse(c, l->node, "what it carries is of another device");
  switch (l->carry[i].how) {
  case KN_CARRY_OWN: return refuse(c, l->node, "sizes change from trip to trip");
  case KN_CARRY_HANDLE: return refuse(c, l->node, "which tensor it carries may be asked");
  default: return true;
  }
}

static bool loop_fits(cutter *c, const kn_step *s) {
  const kn_loop_plan *l = &c->p->loops[s->a];
  for (uint32_t i = 0; i < l->node->regions[0]->nparams; i++)
    if (!carry_fits(c, l, i)) return false;
  return binds_fit(c, s, 0) && block_fits(c, l->block);
}

static bool step_fits(cutter *c, const kn_step *s) {
  switch (s->kind) {
  case KN_STEP_PART: return part_fits(c, &c->p->parts[s->a]);
  case KN_STEP_NODE:
  case KN_STEP_NUMBER: return other_fits(c, s->node);
  case KN_STEP_IF:
    if (kn_is_attempt(s->node)) return refuse(c, s->node, "it catches errors");
    return binds_fit(c, s, 0) && binds_fit(c, s, 1) && block_fits(c, s->a) && block_fits(c, s->b);
  case KN_STEP_LOOP: return loop_fits(c, s);
  case KN_STEP_BIND: return binds_fit(c, s, (int)s->a);
  case KN_STEP_FAIL: return true;
  case KN_STEP_STRANDS:
  case KN_STEP_WHOLE: break;
  }
  return refuse(c, s->node, "the host does it");
}

/* ---- what the host does around the launch ---- */

static bool is_host_number(const cutter *c, const kn_value *v) {
  return kn_is_scalar(v->type.kind) && (c->p->known[v->id] || !c->device[v->id]);
}

static bool has_host_numbers(const cutter *c, const kn_node *n) {
  for (uint32_t i = 0; i < n->nin; i++)
    if (!is_host_number(c, n->in[i])) return false;
  return true;
}

static bool stores_to(const kn_region *r, const kn_slot *slot) {
  KN_EACH_NODE (n, r) {
    if (n->op == KN_NODE_store_state && n->slot == slot) return true;
    for (int k = 0; k < n->nregions; k++)
      if (stores_to(n->regions[k], slot)) return true;
  }
  return false;
}

/* The piece [first, s) has not stored to it yet. */
static bool is_unstored(const kn_step *first, const kn_step *s, const kn_slot *slot) {
  for (; first < s; first++) {
    const kn_node *n = first->kind == KN_STEP_PART ? NULL : first->node;
    if (!n) continue;
    if (n->op == KN_NODE_store_state && n->slot == slot) return false;
    for (int k = 0; k < n->nregions; k++)
      if (stores_to(n->regions[k], slot)) return false;
  }
  return true;
}

/* Does the branch nothing but store what stands before it? */
static bool only_stores(const cutter *c, uint32_t block) {
  const kn_block *b = &c->p->blocks[block];
  for (uint32_t i = 0; i < b->n; i++) {
    const kn_node *n = b->steps[i].node;
    if (b->steps[i].kind != KN_STEP_NODE || n->op != KN_NODE_store_state || c->p->slot_copied[n->slot->index])
      return false;
    if (n->in[0]->type.kind == KN_V_TENSOR && c->p->home[n->in[0]->id])
      return false; /* it may lie elsewhere by then */
  }
  return true;
}

static kn_whole_time time_of(const cutter *c, const kn_step *first, const kn_step *s) {
  const kn_node *n = s->node;
  const bool node = s->kind == KN_STEP_NODE || s->kind == KN_STEP_NUMBER;
  const bool chooses = s->kind == KN_STEP_IF && !n->nout && !kn_is_attempt(n) && c->top;
  if (chooses && c->p->blocks[s->a].n + c->p->blocks[s->b].n && only_stores(c, s->a) && only_stores(c, s->b))
    return KN_WHOLE_AFTER;
  if (!node) return KN_WHOLE_WITHIN;
  if (n->op == KN_NODE_load_state && is_unstored(first, s, n->slot)) return KN_WHOLE_BEFORE;
  if (n->told) return KN_WHOLE_AFTER;
  const bool stores = n->op == KN_NODE_store_state || n->op == KN_NODE_update;
  if (stores && c->top && !(n->slot && c->p->slot_copied[n->slot->index])) return KN_WHOLE_AFTER;
  const bool number = n->nout == 1 && kn_is_scalar(n->out[0]->type.kind);
  if (number && is_number_node(n) && !kn_data_may_raise(n) && has_host_numbers(c, n)) return KN_WHOLE_BEFORE;
  return KN_WHOLE_WITHIN;
}

/* ---- numbers ---- */

/* All numbers that a region's nodes give. */
static void mark_numbers(const kn_region *r, uint8_t *mark) {
  for (uint32_t i = 0; i < r->nparams; i++) mark[r->params[i]->id] = 1;
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++) mark[n->out[i]->id] = 1;
    for (int k = 0; k < n->nregions; k++) mark_numbers(n->regions[k], mark);
  }
}

/* Numbers that a step gives, those inside of it included. A branch that the sizes chose stands before it. */
static void mark_step(const kn_step *s, uint8_t *mark) {
  const kn_node *n = s->node;
  if (s->kind == KN_STEP_PART) return;
  for (uint32_t i = 0; i < n->nout; i++) mark[n->out[i]->id] = 1;
  if (s->kind != KN_STEP_IF && s->kind != KN_STEP_LOOP) return;
  for (int k = 0; k < n->nregions; k++) mark_numbers(n->regions[k], mark);
}

static void want(cutter *c, kn_value *const *v, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) c->wanted[v[i]->id] = true;
}

static void want_part(cutter *c, const kn_part_plan *part) {
  for (uint32_t i = 0; i < part->n; i++) want(c, part->nodes[i]->in, part->nodes[i]->nin);
}

static void want_in(cutter *c, uint32_t block);

/* The numbers that the host reads when it runs the step. */
static void want_step(cutter *c, const kn_step *s) {
  const kn_plan *p = c->p;
  if (s->kind == KN_STEP_PART) {
    want_part(c, &p->parts[s->a]);
    return;
  }
  const kn_node *n = s->node;
  want(c, n->in, n->nin);
  for (int k = 0; k < n->nregions; k++) want(c, n->regions[k]->yields, n->regions[k]->nyields);
  if (s->kind == KN_STEP_IF) want_in(c, s->a), want_in(c, s->b);
  if (s->kind == KN_STEP_LOOP) want_in(c, p->loops[s->a].block);
}

static void want_inside(cutter *c, const kn_region *r) {
  want(c, r->yields, r->nyields);
  KN_EACH_NODE (n, r) {
    want(c, n->in, n->nin);
    for (int k = 0; k < n->nregions; k++) want_inside(c, n->regions[k]);
  }
}

/* A piece gets from the host what another one has computed. */
static void want_whole(cutter *c, const kn_whole *w) {
  uint8_t *own = c->device; /* free by now */
  memset(own, 0, c->p->graph->nvalues + 1u);
  for (uint32_t i = 0; i < w->n; i++)
    if (w->time[i] == KN_WHOLE_WITHIN) mark_step(&w->steps[i], own);
  bool *before = c->wanted, *all = kn_calloc(c->ctx->heap, c->p->graph->nvalues + 1u, 1);
  if (!all) { /* then all is wanted */
    memset(before, 1, c->p->graph->nvalues + 1u);
    return;
  }
  c->wanted = all;
  for (uint32_t i = 0; i < w->n; i++) {
    const kn_step *s = &w->steps[i];
    if (w->time[i] != KN_WHOLE_WITHIN) continue;
    if (s->kind == KN_STEP_PART) {
      want_part(c, &c->p->parts[s->a]);
      continue;
    }
    want(c, s->node->in, s->node->nin);
    for (int k = 0; k < s->node->nregions; k++) want_inside(c, s->node->regions[k]);
  }
  for (uint32_t v = 1; v <= c->p->graph->nvalues; v++) before[v] |= all[v] && !own[v];
  kn_free(c->ctx->heap, all, c->p->graph->nvalues + 1u);
  c->wanted = before;
  for (uint32_t i = 0; i < w->n; i++)
    if (w->time[i] != KN_WHOLE_WITHIN) want_step(c, &w->steps[i]);
}

static void want_in(cutter *c, uint32_t block) {
  const kn_block *b = &c->p->blocks[block];
  for (uint32_t i = 0; i < b->n; i++) {
    const kn_step *s = &b->steps[i];
    if (s->kind == KN_STEP_WHOLE)
      want_whole(c, c->p->wholes[s->a]);
    else
      want_step(c, s);
  }
}

static bool push_export(kn_plan *p, kn_whole *w, uint32_t v) {
  return kn_plan_push(p, &w->exports, &w->nexports, &v, sizeof v);
}

/* What the host wants of what the pieces compute. */
static kn_status find_exports(cutter *c) {
  kn_plan *p = c->p;
  want(c, p->graph->body->yields, p->graph->body->nyields);
  want_in(c, 0);
  for (uint32_t i = 0; i < p->nwholes; i++) {
    kn_whole *w = p->wholes[i];
    /* Only what steps give at the top is seen outside. */
    for (uint32_t k = 0; k < w->n; k++) {
      const kn_node *n = w->steps[k].node;
      if (w->time[k] != KN_WHOLE_WITHIN || w->steps[k].kind == KN_STEP_PART) continue;
      for (uint32_t o = 0; o < n->nout; o++) {
        const kn_value *v = n->out[o];
        const bool exported = kn_is_scalar(v->type.kind) && !p->known[v->id] && c->wanted[v->id];
        if (exported && !push_export(p, w, v->id)) return kn_fail_nomem(c->ctx, sizeof v->id);
      }
    }
  }
  return KN_OK;
}

/* ---- cutting ---- */

static uint32_t worth_of(const kn_plan *p, const kn_step *s) {
  switch (s->kind) {
  case KN_STEP_PART: return p->parts[s->a].n;
  case KN_STEP_IF:
  case KN_STEP_LOOP: return WORTH;
  default: return 0;
  }
}

static kn_status make_piece(cutter *c, const kn_step *steps, const uint8_t *time, uint32_t n, kn_step *out) {
  kn_plan *p = c->p;
  kn_whole *w = kn_arena_alloc(&p->arena, sizeof *w);
  if (!w) return kn_fail_nomem(c->ctx, sizeof *w);
  *w = (kn_whole){.index = p->nwholes,
                  .target = p->whole,
                  .n = n,
                  .steps = kn_arena_dup(&p->arena, steps, n * sizeof *steps),
                  .time = kn_arena_dup(&p->arena, time, n),
                  .moves = kn_arena_alloc(&p->arena, p->graph->nvalues + 1u)};
  kn_arena_init(&w->arena, c->ctx->heap);
  if (!w->steps || !w->time || !w->moves || !kn_plan_push(p, &p->wholes, &p->nwholes, &w, sizeof(w)))
    return kn_fail_nomem(c->ctx, n * sizeof *steps);
  *out = (kn_step){.kind = KN_STEP_WHOLE,
                   .node = steps[0].node,
                   .a = w->index,
                   .pos = steps[n - 1].pos,
                   .drop = steps[0].drop};
  for (uint32_t i = 0; i < n; i++) out->ndrop += steps[i].ndrop;
  return KN_OK;
}

static kn_status cut_block(cutter *c, uint32_t block);

static void say_why(cutter *c) {
  char where[256];
  if (!kn_debugging(c->ctx, KN_DEBUG_EXEC) && !kn_debugging(c->ctx, KN_DEBUG_DISPATCH)) return;
  kn_where_brief(c->where ? c->where->where : NULL, where, sizeof where);
  kn_log(c->ctx, "whole: %s runs by itself: %s %s",
         c->where ? kn_opcode_describe(c->where->op).text : "a step", c->why, where);
}

/* Closes the piece [first, i): as one step, or as they are where it is not worth it. */
static kn_status close_piece(cutter *c, kn_step *steps, const uint8_t *time, uint32_t first, uint32_t i,
                             uint32_t *to) {
  uint32_t worth = 0;
  for (uint32_t k = first; k < i; k++) worth += time[k] == KN_WHOLE_WITHIN ? worth_of(c->p, &steps[k]) : 0;
  if (worth < WORTH) {
    for (uint32_t k = first; k < i; k++) steps[(*to)++] = steps[k];
    return KN_OK;
  }
  kn_step whole;
  KN_TRY(make_piece(c, steps + first, time + first, i - first, &whole));
  steps[(*to)++] = whole;
  return KN_OK;
}

static kn_status cut_steps(cutter *c, uint32_t block, uint8_t *time) {
  kn_plan *p = c->p;
  uint32_t n = p->blocks[block].n, first = 0, to = 0;
  kn_step *steps = p->blocks[block].steps;
  memset(c->device, 0, p->graph->nvalues + 1u);
  for (uint32_t i = 0; i < n; i++) {
    kn_step s = steps[i];
    time[i] = (uint8_t)time_of(c, steps + first, &steps[i]);
    if (time[i] != KN_WHOLE_WITHIN) continue;
    if (step_fits(c, &s)) {
      mark_step(&s, c->device);
      continue;
    }
    say_why(c);
    KN_TRY(close_piece(c, steps, time, first, i, &to));
    if (s.kind == KN_STEP_IF) {
      const bool outer = c->caught;
      c->caught |= kn_is_attempt(s.node);
      KN_TRY(cut_block(c, s.a));
      c->caught = outer;
      KN_TRY(cut_block(c, s.b));
    } else if (s.kind == KN_STEP_LOOP)
      KN_TRY(cut_block(c, p->loops[s.a].block));
    steps[to++] = s;
    first = i + 1;
    memset(c->device, 0, p->graph->nvalues + 1u);
  }
  KN_TRY(close_piece(c, steps, time, first, n, &to));
  p->blocks[block].n = to;
  return KN_OK;
}

static kn_status cut_block(cutter *c, uint32_t block) {
  const uint32_t n = c->p->blocks[block].n;
  const bool outer = c->top;
  uint8_t *time = kn_calloc(c->ctx->heap, n + 1u, 1);
  if (!time) return kn_fail_nomem(c->ctx, n);
  c->top = !block;
  kn_status st = cut_steps(c, block, time);
  c->top = outer;
  kn_free(c->ctx->heap, time, n + 1u);
  return st;
}

/* Lists are tensors where all is one piece, so that nobody else asks for them. */
static bool is_one_piece(cutter *c) {
  const kn_block *b = &c->p->blocks[0];
  bool fits = true;
  for (uint32_t i = 0; i < b->n && fits; i++)
    fits = time_of(c, b->steps, &b->steps[i]) != KN_WHOLE_WITHIN || step_fits(c, &b->steps[i]);
  return fits;
}

kn_status kn_plan_wholes(kn_context *ctx, kn_plan *p) {
  const uint32_t all = p->graph->nvalues + 1u;
  cutter c = {
      .ctx = ctx, .p = p, .device = kn_calloc(ctx->heap, all, 1), .wanted = kn_calloc(ctx->heap, all, 1)};
  if (c.device && p->flat) {
    c.lists = c.top = true;
    c.lists = is_one_piece(&c);
  }
  kn_status st = c.device && c.wanted ? cut_block(&c, 0) : kn_fail_nomem(ctx, all);
  if (st == KN_OK && p->nwholes) st = find_exports(&c);
  kn_free(ctx->heap, c.device, all);
  kn_free(ctx->heap, c.wanted, all);
  return st;
}

void kn_whole_free(kn_context *ctx, kn_whole *w) {
  kn_whole_unmake(ctx, w);
  if (w->refused) kn_free(ctx->heap, w->refused, strlen(w->refused) + 1);
}
