/* The plan's first step: concrete sizes of every tensor, and the numbers that follow from sizes alone. Walks
 * the regions as a run would, but both branches of an open `if`, and a loop body until nothing changes any
 * more: a carried size that differs from trip to trip ends as unknown. Values only ever go from undefined
 * over known to unknown, so that ends. Nothing is allocated for tensors here; see place.c. */
#include "graph/plan.h"
#include "graph/when.h"
#include "graph/scalar.h"
#include <string.h>

typedef struct walk {
  kn_context *ctx;
  kn_plan *p;
  bool *entered; /* by parameter of a loop: facts are there from an earlier walk */
  bool *numbers; /* by value: a number as a tensor, for nodes of a device that keeps it there */
  bool other;    /* inputs have other sizes than the graph says, and so may any value */
  int depth;
} walk;

static kn_status walk_region(walk *w, const kn_region *r, bool *dead);

/* ---- facts about one value ---- */

static void set_type(kn_plan *p, const kn_value *v, const kn_type *t) {
  p->types[v->id] = *t;
  p->undefined[v->id] = p->maybe[v->id] = false;
}

static void set_undefined(kn_plan *p, const kn_value *v) {
  p->undefined[v->id] = kn_is_list(v->type.kind) /* nothing is known to be in it */
                        || kn_innermost(v->type.kind) == KN_V_TENSOR;
  p->maybe[v->id] = v->type.kind == KN_V_TENSOR;
  p->known[v->id] = false;
}

static void set_number(kn_plan *p, const kn_value *v, kn_scalar s) {
  p->scalars[v->id] = s;
  p->known[v->id] = true;
}

static void copy_fact(kn_plan *p, const kn_value *to, const kn_value *from) {
  p->types[to->id] = p->types[from->id];
  p->undefined[to->id] = p->undefined[from->id];
  p->maybe[to->id] = p->maybe[from->id];
  p->known[to->id] = p->known[from->id];
  if (p->known[to->id]) p->scalars[to->id] = p->scalars[from->id];
}

static bool same_number(const kn_scalar *a, const kn_scalar *b) {
  if (a->kind != b->kind) return false;
  if (a->kind == KN_SCALAR_BOOL) return a->as.b == b->as.b;
  return !memcmp(&a->as, &b->as, sizeof(int64_t)); /* bits: nan equals nan, 0 differs from -0 */
}

static bool join_sizes(kn_type *a, const kn_type *b) {
  bool changed = false;
  for (int i = 0; i < a->rank; i++)
    if (a->dims[i] != b->dims[i] && kn_dim_known(a->dims[i])) {
      a->dims[i] = KN_DIM_UNKNOWN;
      changed = true;
    }
  return changed;
}

/* The facts of a list of tensors are those of what it may hold. */
static bool join_list(kn_plan *p, uint32_t a, uint32_t b) {
  bool changed = false;
  if (p->maybe[b] && !p->maybe[a]) p->maybe[a] = changed = true;
  if (p->undefined[b]) return changed;
  if (!p->undefined[a]) return join_sizes(&p->types[a], &p->types[b]) || changed;
  p->types[a] = p->types[b];
  p->undefined[a] = false;
  return true;
}

/* The facts of a list of numbers are those of each of them. */
static bool join_numbers(kn_plan *p, uint32_t a, uint32_t b) {
  if (p->undefined[b]) return false;
  if (p->undefined[a]) {
    p->undefined[a] = false;
    p->known[a] = p->known[b];
    p->scalars[a] = p->scalars[b];
    return true;
  }
  if (!p->known[a] || (p->known[b] && same_number(&p->scalars[a], &p->scalars[b]))) return false;
  p->known[a] = false;
  return true;
}

/* What holds for both `to` and `from`, into `to`. True when `to` changed. */
static bool join_fact(kn_plan *p, const kn_value *to, const kn_value *from) {
  uint32_t a = to->id, b = from->id;
  if (kn_is_list(to->type.kind))
    return kn_innermost(to->type.kind) == KN_V_TENSOR ? join_list(p, a, b) : join_numbers(p, a, b);
  if (to->type.kind != KN_V_TENSOR) {
    if (!p->known[a] || (p->known[b] && same_number(&p->scalars[a], &p->scalars[b]))) return false;
    p->known[a] = false;
    return true;
  }
  bool changed = false;
  if (p->maybe[b] && !p->maybe[a]) p->maybe[a] = changed = true;
  if (p->undefined[b]) return changed;
  if (p->undefined[a]) {
    p->types[a] = p->types[b];
    p->undefined[a] = false;
    p->maybe[a] = true;
    return true;
  }
  return join_sizes(&p->types[a], &p->types[b]) || changed;
}

/* ---- nodes ---- */

/* Remember what goes wrong when this node is reached; the region is dead from here on. */
static kn_status plan_failure(walk *w, const kn_node *n, kn_status st, bool *dead) {
  if (st == KN_NOMEM) return st;
  kn_plan *p = w->p;
  kn_planned_failure *f = kn_arena_alloc(&p->arena, sizeof *f);
  const char *text = kn_arena_strdup(&p->arena, kn_error(w->ctx));
  if (!f || !text) return kn_fail_nomem(w->ctx, sizeof *f);
  *f = (kn_planned_failure){n, st, text};
  p->failure[n->out[0]->id] = f;
  for (uint32_t i = 0; i < n->nout; i++) set_undefined(p, n->out[i]);
  *dead = true;
  return KN_OK;
}

/* What the graph says of a value, for nodes whose rule needs sizes that the plan does not know. */
static void declared_type(walk *w, const kn_value *v) {
  kn_type t = v->type.tensor;
  for (int i = 0; i < t.rank; i++)
    if (w->other || !kn_dim_known(t.dims[i])) t.dims[i] = KN_DIM_UNKNOWN;
  set_type(w->p, v, &t);
}

static bool has_other_sizes(const kn_plan *p) {
  const kn_region *body = p->graph->body;
  bool other = false;
  for (uint32_t i = 0; i < body->nparams; i++) {
    const kn_type *t = &body->params[i]->type.tensor;
    bool given = body->params[i]->type.kind == KN_V_TENSOR && p->inputs[i].dtype < KN_DTYPE_COUNT;
    for (int d = 0; given && d < t->rank; d++)
      other |= kn_dim_known(t->dims[d]) && t->dims[d] != p->inputs[i].dims[d];
  }
  return other;
}

static kn_status walk_op(walk *w, const kn_node *n, bool *dead) {
  kn_plan *p = w->p;
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  bool exact = true;
  if (n->ntensor > KN_MAX_INPUTS || n->nout > KN_MAX_OUTPUTS)
    return kn_fail(w->ctx, KN_INTERNAL, "%s: too many inputs", kn_op_name((kn_op)n->op));
  for (uint32_t i = 0; i < n->ntensor; i++) {
    uint32_t id = n->in[i]->id;
    if (p->undefined[id]) {
      for (uint32_t k = 0; k < n->nout; k++) set_undefined(p, n->out[k]);
      return KN_OK;
    }
    in[i] = p->types[id];
    exact &= kn_type_known(&in[i]);
  }
  const void *attrs = n->attrs;
  kn_attrs_any room;
  bool folded = true;
  for (uint32_t i = n->ntensor; i < n->nin; i++) folded &= p->known[n->in[i]->id];
  kn_status st = folded ? kn_node_attrs_now(w->ctx, n, p->scalars, &room, &attrs) : KN_OK;
  if (st == KN_OK) st = kn_infer_types(w->ctx, (kn_op)n->op, attrs, in, (int)n->ntensor, out);
  if (st == KN_OK) st = kn_check_declared(w->ctx, n, in, out);
  if (st != KN_OK && st != KN_NOMEM && !(exact && folded)) {
    for (uint32_t i = 0; i < n->nout; i++) declared_type(w, n->out[i]);
    return KN_OK;
  }
  if (st != KN_OK) return plan_failure(w, n, st, dead);
  for (uint32_t i = 0; i < n->nout; i++) set_type(p, n->out[i], &out[i]);
  return KN_OK;
}

static void walk_scalar(walk *w, const kn_node *n) {
  kn_plan *p = w->p;
  kn_scalar in[3], out;
  p->known[n->out[0]->id] = false;
  for (uint32_t i = 0; i < n->nin; i++) {
    if (!kn_is_scalar(n->in[i]->type.kind) || !p->known[n->in[i]->id]) return;
    in[i] = p->scalars[n->in[i]->id];
  }
  /* What raises is left to the run, which raises in its turn. */
  if (kn_scalar_eval(w->ctx, n->op, in, n->nin, &out) == KN_OK) set_number(p, n->out[0], out);
}

static void walk_select(walk *w, const kn_node *n) {
  kn_plan *p = w->p;
  const kn_value *out = n->out[0], *c = n->in[0];
  if (p->known[c->id]) {
    copy_fact(p, out, n->in[p->scalars[c->id].as.b ? 1 : 2]);
  } else {
    copy_fact(p, out, n->in[1]);
    join_fact(p, out, n->in[2]);
  }
}

static void walk_size(walk *w, const kn_node *n) {
  kn_plan *p = w->p;
  uint32_t in = n->in[0]->id;
  int64_t dim = *(const int64_t *)n->attrs;
  p->known[n->out[0]->id] = false;
  if (p->undefined[in] || !kn_dim_known(p->types[in].dims[dim])) return;
  set_number(p, n->out[0], (kn_scalar){KN_SCALAR_INT, {.i = p->types[in].dims[dim]}});
}

static void walk_list(walk *w, const kn_node *n) {
  kn_plan *p = w->p;
  uint32_t out = n->out[0]->id, in = n->nin ? n->in[0]->id : 0;
  p->known[out] = false;
  if (kn_innermost(n->out[0]->type.kind) != KN_V_TENSOR) {
    if (n->op == KN_NODE_list_new) set_undefined(p, n->out[0]);
    if (n->op == KN_NODE_list_new) return;
    if (n->op == KN_NODE_list_append || kn_is_list(n->out[0]->type.kind)) copy_fact(p, n->out[0], n->in[0]);
    if (n->op == KN_NODE_list_append && kn_is_scalar(n->in[1]->type.kind)) join_numbers(p, out, n->in[1]->id);
    if (n->op == KN_NODE_list_get && p->known[in] && kn_is_scalar(n->out[0]->type.kind))
      set_number(p, n->out[0], p->scalars[in]);
    return;
  }
  switch ((int)n->op) {
  case KN_NODE_list_new:
    set_undefined(p, n->out[0]);
    p->maybe[out] = false;
    break;
  case KN_NODE_list_append:
    copy_fact(p, n->out[0], n->in[0]);
    if (p->undefined[n->in[1]->id])
      p->maybe[out] = true;
    else
      join_list(p, out, n->in[1]->id);
    break;
  case KN_NODE_list_first:
  case KN_NODE_list_thin: copy_fact(p, n->out[0], n->in[0]); break;
  case KN_NODE_list_sum:
  case KN_NODE_list_with:
    declared_type(w, n->out[0]);
    p->maybe[out] = true;
    break;
  case KN_NODE_list_get: {
    bool maybe = p->maybe[in], nothing = p->undefined[in];
    copy_fact(p, n->out[0], n->in[0]);
    p->maybe[out] = maybe;
    p->undefined[out] = nothing;
    break;
  }
  default: /* list_stack */
    if (p->undefined[in]) {
      declared_type(w, n->out[0]);
      break;
    }
    kn_vtype of = {.kind = KN_V_LIST, .tensor = p->types[in]}, stacked = kn_stacked(&of);
    set_type(p, n->out[0], &stacked.tensor);
  }
}

static void walk_defined(walk *w, const kn_node *n) {
  kn_plan *p = w->p;
  uint32_t in = n->in[0]->id;
  p->known[n->out[0]->id] = false;
  if (p->undefined[in] || !p->maybe[in])
    set_number(p, n->out[0], (kn_scalar){KN_SCALAR_BOOL, {.b = !p->undefined[in]}});
}

static kn_status walk_if(walk *w, const kn_node *n, bool *dead) {
  kn_plan *p = w->p;
  uint32_t c = n->in[0]->id;
  bool gone[2] = {true, true};
  for (int side = 0; side < 2; side++)
    if (!p->known[c] || p->scalars[c].as.b == (side == 0))
      KN_TRY(walk_region(w, n->regions[side], &gone[side]));
  *dead = gone[0] && gone[1];
  for (uint32_t i = 0; i < n->nout; i++) {
    if (*dead)
      set_undefined(p, n->out[i]);
    else if (gone[0] || gone[1])
      copy_fact(p, n->out[i], n->regions[gone[0]]->yields[i]);
    else {
      copy_fact(p, n->out[i], n->regions[0]->yields[i]);
      join_fact(p, n->out[i], n->regions[1]->yields[i]);
    }
  }
  return KN_OK;
}

static bool is_maybe(void *p, const kn_value *v) { return ((const kn_plan *)p)->maybe[v->id]; }

static bool may_miss_when(kn_plan *p, const kn_region *loop, const kn_value *v, bool goes_on) {
  return v->type.kind == KN_V_TENSOR && p->maybe[v->id] &&
         kn_any_when(v, loop->yields[0], goes_on, is_maybe, p);
}

/* The next value of a parameter is one of trips that are followed by another one. */
static bool join_next(kn_plan *p, const kn_region *loop, uint32_t i) {
  const kn_value *next = loop->yields[1 + i];
  const bool maybe = p->maybe[next->id];
  if (next->type.kind == KN_V_TENSOR) p->maybe[next->id] = may_miss_when(p, loop, next, true);
  const bool changed = join_fact(p, loop->params[i], next);
  p->maybe[next->id] = maybe;
  return changed;
}

static void copy_exit(kn_plan *p, const kn_value *to, const kn_region *loop, const kn_value *from) {
  copy_fact(p, to, from);
  if (from->type.kind == KN_V_TENSOR) p->maybe[to->id] = may_miss_when(p, loop, from, false);
}

static kn_status walk_loop(walk *w, const kn_node *n, bool *dead) {
  kn_plan *p = w->p;
  const kn_region *r = n->regions[0];
  /* A loop in a loop is walked again with facts that are weaker at most, so what was found before still holds
   * and nesting does not multiply the work. */
  for (uint32_t i = 0; i < r->nparams; i++) {
    bool *entered = &w->entered[r->params[i]->id];
    if (*entered)
      join_fact(p, r->params[i], n->in[i]);
    else
      copy_fact(p, r->params[i], n->in[i]);
    *entered = true;
  }
  bool changed = true;
  while (changed) {
    changed = *dead = false;
    KN_TRY(walk_region(w, r, dead));
    if (*dead) break;
    for (uint32_t i = 0; i < r->nparams; i++) changed |= join_next(p, r, i);
  }
  for (uint32_t i = 0; i < n->nout; i++) {
    if (*dead)
      set_undefined(p, n->out[i]);
    else
      copy_exit(p, n->out[i], r, r->yields[1 + r->nparams + i]);
  }
  return KN_OK;
}

/* What the plan knows is a constant, which kernels get by value. */
static bool is_kept_there(const walk *w, const kn_node *n) {
  return w->numbers[n->out[0]->id] && !w->p->known[n->in[0]->id];
}

static kn_status walk_node(walk *w, const kn_node *n, bool *dead) {
  kn_plan *p = w->p;
  if (kn_opcode_is_op(n->op)) {
    p->failure[n->out[0]->id] = NULL;
    return walk_op(w, n, dead);
  }
  switch ((int)n->op) {
  case KN_NODE_const: set_number(p, n->out[0], n->scalar); break;
  case KN_NODE_undef:
    set_undefined(p, n->out[0]);
    if (kn_is_list(n->out[0]->type.kind)) {
      p->maybe[n->out[0]->id] = false; /* an empty list */
    } else if (n->out[0]->type.kind != KN_V_TENSOR) {
      kn_scalar zero = {KN_SCALAR_INT, {.i = 0}};
      if (n->out[0]->type.kind == KN_V_FLOAT) zero = (kn_scalar){KN_SCALAR_FLOAT, {.f = 0}};
      if (n->out[0]->type.kind == KN_V_BOOL) zero = (kn_scalar){KN_SCALAR_BOOL, {.b = false}};
      set_number(p, n->out[0], zero);
    }
    break;
  case KN_NODE_tensor:
  case KN_NODE_param:
  case KN_NODE_load_state:
    p->known[n->out[0]->id] = false;
    if (n->slot->type.kind == KN_V_TENSOR) set_type(p, n->out[0], &n->slot->type.tensor);
    break;
  case KN_NODE_if: return walk_if(w, n, dead);
  case KN_NODE_loop: return walk_loop(w, n, dead);
  case KN_NODE_size: walk_size(w, n); break;
  case KN_NODE_to_tensor:
    set_type(p, n->out[0],
             &(kn_type){.dtype = (uint8_t) * (const kn_dtype *)n->attrs,
                        .device = (uint8_t)(is_kept_there(w, n) ? p->whole->device : KN_CPU)});
    break;
  case KN_NODE_select: walk_select(w, n); break;
  case KN_NODE_with_history:
  case KN_NODE_detach: copy_fact(p, n->out[0], n->in[0]); break;
  case KN_NODE_defined: walk_defined(w, n); break;
  case KN_NODE_list_new:
  case KN_NODE_list_append:
  case KN_NODE_list_get:
  case KN_NODE_list_first:
  case KN_NODE_list_thin:
  case KN_NODE_list_sum:
  case KN_NODE_list_with:
  case KN_NODE_list_stack: walk_list(w, n); break;
  case KN_NODE_list_bytes:
  case KN_NODE_list_length:
  case KN_NODE_item:
  case KN_NODE_same: p->known[n->out[0]->id] = false; break;
  case KN_NODE_host_call:
    for (uint32_t i = 0; i < n->nout; i++) {
      if (n->out[i]->type.kind == KN_V_TENSOR)
        declared_type(w, n->out[i]);
      else
        p->known[n->out[i]->id] = false;
    }
    break;
  case KN_NODE_attempt:
  case KN_NODE_caught: p->known[n->out[0]->id] = false; break;
  case KN_NODE_raise: *dead = true; break;
  case KN_NODE_store_state:
  case KN_NODE_update:
  case KN_NODE_print:
  case KN_NODE_write:
  case KN_NODE_write_error:
  case KN_NODE_warn:
  case KN_NODE_assert: break;
  default: walk_scalar(w, n);
  }
  return KN_OK;
}

static kn_status walk_region(walk *w, const kn_region *r, bool *dead) {
  if (w->depth > KN_PLAN_DEPTH)
    return kn_fail(w->ctx, KN_LIMIT, "the graph %s nests more than %d regions", w->p->graph->name,
                   KN_PLAN_DEPTH);
  w->depth++;
  *dead = false;
  for (const kn_node *n = r->first; n && !*dead; n = n->next) KN_TRY(walk_node(w, n, dead));
  w->depth--;
  return KN_OK;
}

static bool computes_on(const kn_node *n, uint8_t device) {
  bool all = kn_opcode_is_op(n->op);
  for (uint32_t i = 0; i < n->nout; i++) all &= n->out[i]->type.tensor.device == device;
  return all;
}

/* What anybody else reads is the host's. */
static void leave_numbers(const walk *w, const kn_region *r) {
  KN_EACH_NODE (n, r) {
    const bool there = computes_on(n, (uint8_t)w->p->whole->device);
    for (uint32_t i = 0; i < n->nin && !there; i++) w->numbers[n->in[i]->id] = false;
    for (int k = 0; k < n->nregions; k++) leave_numbers(w, n->regions[k]);
  }
  for (uint32_t i = 0; i < r->nyields; i++) w->numbers[r->yields[i]->id] = false;
}

/* What is known of numbers in lists is for the elements. */
static void forget_lists(kn_plan *p, const kn_region *r) {
  for (uint32_t i = 0; i < r->nparams; i++)
    p->known[r->params[i]->id] &= !kn_is_list(r->params[i]->type.kind);
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++) p->known[n->out[i]->id] &= !kn_is_list(n->out[i]->type.kind);
    for (int k = 0; k < n->nregions; k++) forget_lists(p, n->regions[k]);
  }
}

kn_status kn_plan_sizes(kn_context *ctx, kn_plan *p) {
  const kn_region *body = p->graph->body;
  const size_t all = (size_t)p->graph->nvalues + 1;
  walk w = {.ctx = ctx,
            .p = p,
            .entered = kn_arena_alloc(&p->arena, all),
            .numbers = kn_arena_alloc(&p->arena, all)};
  if (!w.entered || !w.numbers) return kn_fail_nomem(ctx, all);
  if (p->whole) memset(w.numbers, 1, all), leave_numbers(&w, body);
  w.other = has_other_sizes(p);
  for (uint32_t i = 0; i < body->nparams; i++)
    if (body->params[i]->type.kind == KN_V_TENSOR && p->inputs[i].dtype >= KN_DTYPE_COUNT)
      set_undefined(p, body->params[i]);
    else if (body->params[i]->type.kind == KN_V_TENSOR)
      set_type(p, body->params[i], &p->inputs[i]);
    else if (kn_innermost(body->params[i]->type.kind) == KN_V_TENSOR) { /* a list, of what only a run knows */
      declared_type(&w, body->params[i]);
      p->maybe[body->params[i]->id] = true;
    }
  bool dead;
  KN_TRY(walk_region(&w, body, &dead));
  forget_lists(p, body);
  return KN_OK;
}
