/* From the steps of a piece to its program: every value becomes a tensor that stays where it is, or a cell.
 * See whole.h. */
#include "graph/attempt.h"
#include "graph/format.h"
#include "graph/range.h"
#include "graph/whole.h"
#include <string.h>

enum { MOST_MAKES = 8 }; /* after which all that comes from outside is copied */

typedef struct lowering {
  kn_context *ctx;
  kn_plan *p;
  kn_whole *w;
  uint32_t *cell;   /* by value; 0: none yet */
  uint32_t *root;   /* by value: whose tensor of the plan it is; 0: it itself */
  uint32_t block;   /* steps go here */
  uint32_t pending; /* numbers from here on are in no step yet */
  bool touches;     /* some of those read or write tensors, or may be at fault */
} lowering;

static kn_status nomem(const lowering *l) { return kn_fail_nomem(l->ctx, 0); }

/* ---- steps ---- */

static kn_status push_step(lowering *l, kn_whole_step s) {
  kn_whole_block *b = &l->w->blocks[l->block];
  return kn_push(&l->w->arena, &b->steps, &b->n, &s, sizeof s) ? KN_OK : nomem(l);
}

static kn_status flush(lowering *l) {
  const uint32_t first = l->pending, n = l->w->nnumbers - first;
  if (!n) return KN_OK;
  l->pending = l->w->nnumbers;
  l->touches = false;
  return push_step(l, (kn_whole_step){.kind = KN_WHOLE_NUMBERS, .a = first, .b = n});
}

/* Before what reads or writes tensors: numbers made of numbers wait. */
static kn_status flush_tensors(lowering *l) { return l->touches ? flush(l) : KN_OK; }

/* A division of which the other number is never nothing. */
static bool divides_well(const kn_plan *p, const kn_node *n) {
  if (n->op != KN_NODE_lua_mod && n->op != KN_NODE_lua_idiv) return false;
  const kn_range by = kn_range_of(p, n->in[1]);
  return by.low > 0 || by.high < 0;
}

static bool may_fault(const lowering *l, const kn_whole_number *x) {
  switch (x->kind) {
  case KN_NUMBER_EVAL: return kn_data_may_raise(x->node) && !divides_well(l->p, x->node);
  case KN_NUMBER_WRITE: return kn_dtypes[kn_tensor_dtype(x->tensor)].category == KN_CAT_INT;
  default:
    return x->kind == KN_NUMBER_CHECK || x->kind == KN_NUMBER_FAIL || x->kind == KN_NUMBER_POSITION ||
           x->kind == KN_NUMBER_ELEMENT;
  }
}

static kn_status push_number(lowering *l, kn_whole_number x) {
  const bool fault = may_fault(l, &x);
  l->w->faults |= x.faults = fault;
  l->touches |= fault || x.tensor;
  return kn_push(&l->w->arena, &l->w->numbers, &l->w->nnumbers, &x, sizeof x) ? KN_OK : nomem(l);
}

static kn_status new_block(lowering *l, uint32_t *block) {
  const kn_whole_block none = {0};
  *block = l->w->nblocks;
  return kn_push(&l->w->arena, &l->w->blocks, &l->w->nblocks, &none, sizeof none) ? KN_OK : nomem(l);
}

static bool lies_there(const kn_tensor *to, const kn_tensor *from) {
  return from == to ||
         (from->storage && kn_tensor_data(from) == kn_tensor_data(to) && kn_tensor_contiguous(from));
}

static kn_status push_tensors(lowering *l, kn_whole_step s) {
  KN_TRY(flush_tensors(l));
  return push_step(l, s);
}

static kn_status copy(lowering *l, const kn_node *n, kn_tensor *to, kn_tensor *from) {
  if (lies_there(to, from)) return KN_OK;
  return push_tensors(l, (kn_whole_step){.kind = KN_WHOLE_COPY, .node = n, .to = to, .from = from});
}

/* ---- cells ---- */

static uint32_t new_cell(lowering *l) { return l->w->ncells++; }

static kn_status constant(lowering *l, int64_t value, uint32_t *cell) {
  for (uint32_t i = 0; i < l->w->nconstants; i++)
    if (l->w->constants[i].value == value) return *cell = l->w->constants[i].cell, KN_OK;
  const kn_whole_constant c = { *cell = new_cell(l), value};
  return kn_push(&l->w->arena, &l->w->constants, &l->w->nconstants, &c, sizeof c) ? KN_OK : nomem(l);
}

/* A list is how many it has: an empty one, at first. */
static bool is_number(const kn_value *v) { return kn_is_scalar(v->type.kind) || kn_is_list(v->type.kind); }

static kn_status cell_of(lowering *l, const kn_value *v, uint32_t *cell) {
  if (!l->cell[v->id] && kn_is_list(v->type.kind)) KN_TRY(constant(l, 0, &l->cell[v->id]));
  if (!l->cell[v->id]) { /* the host's: a number that the plan knows, or of this run */
    const kn_whole_cell up = {l->cell[v->id] = new_cell(l), v->id};
    if (!kn_push(&l->w->arena, &l->w->uploads, &l->w->nuploads, &up, sizeof up)) return nomem(l);
  }
  *cell = l->cell[v->id];
  return KN_OK;
}

static uint32_t out_cell(lowering *l, const kn_value *v) {
  if (!l->cell[v->id]) l->cell[v->id] = new_cell(l);
  return l->cell[v->id];
}

static kn_status move(lowering *l, uint32_t to, uint32_t from) {
  if (to == from) return KN_OK;
  return push_number(l, (kn_whole_number){.kind = KN_NUMBER_MOVE, .nin = 1, .in = {from}, .out = to});
}

/* Another value for the same number. */
static kn_status same_number(lowering *l, const kn_value *to, const kn_value *from) {
  uint32_t cell;
  if (l->p->known[to->id]) return KN_OK;
  KN_TRY(cell_of(l, from, &cell));
  if (l->cell[to->id]) return move(l, l->cell[to->id], cell);
  l->cell[to->id] = cell;
  return KN_OK;
}

/* ---- tensors ---- */

/* Arguments and state are seldom where they were. */
static bool is_moving(const kn_value *v) {
  while (v->def && kn_opcode_is_op(v->def->op) && kn_ops[v->def->op].op_class == KN_CLASS_VIEW)
    v = v->def->in[0];
  return v->def ? v->def->op == KN_NODE_load_state : !v->region->owner;
}

static kn_status new_home(lowering *l, const kn_tensor *t, kn_tensor **home) {
  kn_type type = t->type;
  type.device = (uint8_t)l->w->target->device;
  return kn_tensor_new(l->ctx, &type, home);
}

/* The one that is there may be gone by the next run, though another lies as it did. */
static kn_status header_of(lowering *l, const kn_tensor *t, kn_tensor **out) {
  KN_TRY(kn_tensor_wrap(l->ctx, &t->type, kn_tensor_data(t), NULL, NULL, out));
  memcpy((*out)->strides, t->strides, sizeof t->strides);
  return KN_OK;
}

/* A tensor from outside: as it is while it stays where it is. */
static kn_status add_input(lowering *l, const kn_value *v) {
  kn_tensor *t = l->p->vals[v->id];
  kn_whole *w = l->w;
  if (!t || !t->storage) return kn_fail(l->ctx, KN_UNSUPPORTED, "a tensor from outside has no value");
  const bool other = t->type.device != w->target->device;
  const bool moves = w->moves[v->id] || is_moving(v) || w->makes > MOST_MAKES;
  kn_whole_input in = {.value = v->id, .data = kn_tensor_data(t)};
  memcpy(in.strides, t->strides, sizeof in.strides);
  if (l->p->place[v->id] != KN_PLACE_CONST && (other || moves))
    KN_TRY(new_home(l, t, &in.home));
  else
    KN_TRY(header_of(l, t, &in.there));
  if (!kn_push(&w->arena, &w->inputs, &w->ninputs, &in, sizeof in)) {
    kn_tensor_release(in.home);
    kn_tensor_release(in.there);
    return nomem(l);
  }
  w->vals[v->id] = in.home ? in.home : in.there;
  return KN_OK;
}

static kn_status tensor_of(lowering *l, const kn_value *v, kn_tensor **out) {
  kn_tensor **t = &l->w->vals[v->id];
  const bool here = kn_plan_is_fixed(l->p, v->id) && l->p->types[v->id].device == l->w->target->device;
  if (!*t && (here || l->p->place[v->id] == KN_PLACE_CONST)) *t = l->p->header[v->id];
  if (!*t) KN_TRY(add_input(l, v));
  if (out) *out = *t;
  return KN_OK;
}

/* Another value for the same tensor. */
static kn_status same_tensor(lowering *l, const kn_value *to, const kn_value *from) {
  kn_whole *w = l->w;
  KN_TRY(tensor_of(l, from, &w->vals[to->id]));
  l->root[to->id] = l->root[from->id] ? l->root[from->id] : from->id;
  const kn_whole_lent lent = {.to = to->id, .from = l->root[to->id]};
  return kn_push(&w->arena, &w->lents, &w->nlents, &lent, sizeof lent) ? KN_OK : nomem(l);
}

/* The header that the plan made is the host's. */
static kn_status new_view(lowering *l, const kn_value *v) {
  kn_whole *w = l->w;
  kn_whole_lent lent = {.to = v->id};
  KN_TRY(kn_tensor_symbolic(l->ctx, &l->p->types[v->id], NULL, &lent.view));
  if (!kn_push(&w->arena, &w->lents, &w->nlents, &lent, sizeof lent)) {
    kn_tensor_release(lent.view);
    return nomem(l);
  }
  w->vals[v->id] = lent.view;
  return KN_OK;
}

/* ---- steps of the plan ---- */

static kn_status lower_block(lowering *l, uint32_t block, bool *dead);

/* A place that a number says: a part of its own. */
static kn_status lower_placed(lowering *l, const kn_node *n, const kn_node *source) {
  const bool grad = n->op == KN_OP_select_grad;
  const kn_value *whole = grad ? n->out[0] : n->in[0];
  const kn_type *type = &l->p->types[whole->id];
  const int64_t dim = ((const kn_attrs_select *)n->attrs)->dim;
  const uint32_t d = (uint32_t)(dim < 0 ? dim + type->rank : dim);
  kn_whole_number at = {.kind = KN_NUMBER_POSITION, .nin = 1, .size = type->dims[d], .node = source};
  kn_whole_step s = {.kind = n->op == KN_OP_select ? KN_WHOLE_PICK : KN_WHOLE_PUT, .node = source, .a = d};
  kn_tensor *base;
  KN_TRY(tensor_of(l, n->out[0], &s.to));
  KN_TRY(tensor_of(l, n->in[n->op == KN_OP_select_put], &s.from));
  KN_TRY(cell_of(l, n->in[n->ntensor], &at.in[0]));
  const kn_range there = kn_range_of(l->p, n->in[n->ntensor]);
  if (there.low >= 0 && there.high < at.size)
    s.cell = at.in[0];
  else {
    s.cell = at.out = new_cell(l);
    KN_TRY(push_number(l, at));
  }
  if (grad) KN_TRY(push_tensors(l, (kn_whole_step){.kind = KN_WHOLE_ZERO, .node = source, .to = s.to}));
  if (n->op == KN_OP_select_put) {
    KN_TRY(tensor_of(l, n->in[0], &base));
    KN_TRY(copy(l, source, s.to, base));
  }
  KN_TRY(flush(l)); /* which says the place */
  return push_step(l, s);
}

static kn_status lower_part(lowering *l, const kn_step *s) {
  const kn_part_plan *part = &l->p->parts[s->a];
  if (kn_node_is_placed(part->nodes[0], l->p->types))
    return lower_placed(l, part->nodes[0], part->sources[0]);
  KN_TRY(flush_tensors(l));
  for (uint32_t i = 0; i < part->n; i++) {
    const kn_node *n = part->nodes[i];
    l->w->faults |= kn_data_may_raise(n);
    if (kn_ops[n->op].flags & KN_FLAG_RANDOM) {
      if (!l->w->random) l->w->random = new_cell(l);
      l->w->draws |= l->block != 0;
    }
    for (uint32_t k = 0; k < n->ntensor; k++) KN_TRY(tensor_of(l, n->in[k], NULL));
    for (uint32_t k = 0; k < n->nout; k++) {
      if (l->p->place[n->out[k]->id] == KN_PLACE_SHELL)
        KN_TRY(new_view(l, n->out[k]));
      else
        KN_TRY(tensor_of(l, n->out[k], NULL));
    }
  }
  return push_step(l, (kn_whole_step){.kind = KN_WHOLE_PART, .node = s->node, .a = s->a});
}

static kn_status lower_number(lowering *l, const kn_node *n) {
  kn_whole_number x = {.kind = KN_NUMBER_EVAL, .op = n->op, .nin = n->nin, .node = n};
  for (uint32_t i = 0; i < n->nin; i++) KN_TRY(cell_of(l, n->in[i], &x.in[i]));
  x.out = out_cell(l, n->out[0]);
  return push_number(l, x);
}

/* The condition may be known. */
static kn_status lower_either(lowering *l, const kn_node *n) {
  const kn_range by = kn_range_of(l->p, n->in[0]);
  return by.low == by.high ? same_number(l, n->out[0], n->in[by.low ? 1 : 2]) : lower_number(l, n);
}

static kn_status lower_choose(lowering *l, const kn_node *n) {
  kn_tensor *to, *from;
  kn_whole_step s = {.kind = KN_WHOLE_IF, .node = n};
  const uint32_t outer = l->block;
  KN_TRY(cell_of(l, n->in[0], &s.cell));
  KN_TRY(flush(l));
  KN_TRY(tensor_of(l, n->out[0], &to));
  for (uint32_t side = 0; side < 2; side++) {
    KN_TRY(new_block(l, side ? &s.b : &s.a));
    l->block = side ? s.b : s.a;
    if (!l->p->undefined[n->in[1 + side]->id]) {
      KN_TRY(tensor_of(l, n->in[1 + side], &from));
      KN_TRY(copy(l, n, to, from));
    }
    l->block = outer;
  }
  return push_step(l, s);
}

/* A number that the text shows. */
static kn_status keep_number(lowering *l, const kn_node *n, const kn_value *v, uint32_t check) {
  kn_whole_number x = {.kind = KN_NUMBER_KEEP, .nin = 1, .node = n, .size = check};
  const kn_whole_kept kept = {.node = n, .value = v->id, .cell = x.out = new_cell(l)};
  KN_TRY(cell_of(l, v, &x.in[0]));
  if (!kn_push(&l->w->arena, &l->w->kept, &l->w->nkept, &kept, sizeof kept)) return nomem(l);
  return push_number(l, x);
}

static kn_status keep_tensor(lowering *l, const kn_node *n, const kn_value *v) {
  kn_whole_kept kept = {.node = n, .value = v->id};
  kn_tensor *t;
  KN_TRY(tensor_of(l, v, &t));
  KN_TRY(new_home(l, t, &kept.tensor));
  if (!kn_push(&l->w->arena, &l->w->kept, &l->w->nkept, &kept, sizeof kept)) {
    kn_tensor_release(kept.tensor);
    return nomem(l);
  }
  return copy(l, n, kept.tensor, t);
}

/* Tensors that the text shows are copied where the assertion fails. */
static kn_status keep_tensors(lowering *l, const kn_node *n, uint32_t cell) {
  kn_whole_number not = {.kind = KN_NUMBER_EVAL, .op = KN_NODE_lua_not, .nin = 1, .in = {cell}, .node = n};
  kn_whole_step fails = {.kind = KN_WHOLE_IF, .node = n};
  const uint32_t outer = l->block;
  bool any = false;
  for (uint32_t i = kn_format_first(n); i < n->nin; i++) any |= n->in[i]->type.kind == KN_V_TENSOR;
  if (!any) return KN_OK;
  if (n->op == KN_NODE_assert) {
    fails.cell = not .out = new_cell(l);
    KN_TRY(push_number(l, not ));
    KN_TRY(flush(l));
    KN_TRY(new_block(l, &fails.a));
    KN_TRY(new_block(l, &fails.b));
    l->block = fails.a;
  }
  for (uint32_t i = kn_format_first(n); i < n->nin; i++)
    if (n->in[i]->type.kind == KN_V_TENSOR) KN_TRY(keep_tensor(l, n, n->in[i]));
  l->block = outer;
  return n->op == KN_NODE_assert ? push_step(l, fails) : KN_OK;
}

static kn_status lower_check(lowering *l, const kn_node *n) {
  if (n->op == KN_NODE_assert && kn_range_of(l->p, n->in[0]).low == 1) return KN_OK;
  kn_whole_number x = {.kind = KN_NUMBER_FAIL, .node = n};
  if (n->op == KN_NODE_assert) {
    x.kind = KN_NUMBER_CHECK;
    x.nin = 1;
    KN_TRY(cell_of(l, n->in[0], &x.in[0]));
  }
  const uint32_t check = l->w->nnumbers;
  KN_TRY(push_number(l, x));
  for (uint32_t i = kn_format_first(n); i < n->nin; i++)
    if (kn_is_scalar(n->in[i]->type.kind)) KN_TRY(keep_number(l, n, n->in[i], check));
  return keep_tensors(l, n, x.in[0]);
}

/* ---- lists ---- */

static kn_status list_of(lowering *l, const kn_value *v, kn_whole_list *out) {
  kn_whole *w = l->w;
  *out = (kn_whole_list){.flat = l->p->flat[v->id]};
  for (uint32_t i = 0; i < w->nlists; i++)
    if (w->lists[i].flat == out->flat) return *out = w->lists[i], KN_OK;
  const kn_type type = kn_flat_type(out->flat);
  KN_TRY(kn_tensor_new(l->ctx, &type, &out->all));
  kn_status st = type.rank == 1 ? kn_tensor_new(l->ctx, &out->flat->type, &out->one) : KN_OK;
  if (st == KN_OK && !kn_push(&w->arena, &w->lists, &w->nlists, out, sizeof *out)) st = nomem(l);
  if (st == KN_OK) return KN_OK;
  kn_tensor_release(out->all);
  kn_tensor_release(out->one);
  return st;
}

/* The sizes have said that there is room. */
static kn_status lower_append(lowering *l, const kn_node *n) {
  kn_whole_list list;
  kn_whole_step put = {.kind = KN_WHOLE_PUT, .node = n};
  kn_whole_number more = {.kind = KN_NUMBER_EVAL, .op = KN_NODE_lua_add, .nin = 2, .node = n};
  KN_TRY(list_of(l, n->in[0], &list));
  KN_TRY(cell_of(l, n->in[0], &put.cell));
  put.to = list.all;
  if (n->in[1]->type.kind == KN_V_TENSOR)
    KN_TRY(tensor_of(l, n->in[1], &put.from));
  else {
    kn_whole_number x = {.kind = KN_NUMBER_WRITE, .nin = 1, .tensor = put.from = list.one, .node = n};
    KN_TRY(cell_of(l, n->in[1], &x.in[0]));
    KN_TRY(push_number(l, x));
  }
  KN_TRY(flush(l));
  KN_TRY(push_step(l, put));
  more.in[0] = put.cell;
  KN_TRY(constant(l, 1, &more.in[1]));
  more.out = out_cell(l, n->out[0]);
  return push_number(l, more);
}

static kn_status lower_element(lowering *l, const kn_node *n) {
  const bool tensor = n->out[0]->type.kind == KN_V_TENSOR;
  kn_whole_list list;
  kn_whole_step pick = {.kind = KN_WHOLE_PICK, .node = n};
  kn_whole_number at = {.kind = KN_NUMBER_ELEMENT, .nin = 2, .node = n};
  KN_TRY(list_of(l, n->in[0], &list));
  KN_TRY(cell_of(l, n->in[1], &at.in[0]));
  KN_TRY(cell_of(l, n->in[0], &at.in[1]));
  pick.cell = at.out = new_cell(l);
  KN_TRY(push_number(l, at));
  KN_TRY(flush(l));
  pick.from = list.all;
  pick.to = list.one;
  if (tensor) KN_TRY(tensor_of(l, n->out[0], &pick.to));
  KN_TRY(push_step(l, pick));
  if (tensor) return KN_OK;
  kn_whole_number x = {.kind = KN_NUMBER_READ, .tensor = list.one, .node = n};
  x.out = out_cell(l, n->out[0]);
  return push_number(l, x);
}

static kn_status lower_node(lowering *l, const kn_node *n, bool *dead) {
  kn_whole_number x = {.node = n};
  switch ((int)n->op) {
  case KN_NODE_item:
    x.kind = KN_NUMBER_READ;
    KN_TRY(tensor_of(l, n->in[0], &x.tensor));
    x.out = out_cell(l, n->out[0]);
    return push_number(l, x);
  case KN_NODE_to_tensor:
    x.kind = KN_NUMBER_WRITE;
    x.nin = 1;
    KN_TRY(tensor_of(l, n->out[0], &x.tensor));
    KN_TRY(cell_of(l, n->in[0], &x.in[0]));
    return push_number(l, x);
  case KN_NODE_assert: return lower_check(l, n);
  case KN_NODE_list_append: return lower_append(l, n);
  case KN_NODE_list_get: return lower_element(l, n);
  case KN_NODE_list_length: return same_number(l, n->out[0], n->in[0]);
  case KN_NODE_raise: *dead = true; return lower_check(l, n);
  case KN_NODE_detach:
  case KN_NODE_with_history: return same_tensor(l, n->out[0], n->in[0]);
  case KN_NODE_select: return n->out[0]->type.kind == KN_V_TENSOR ? lower_choose(l, n) : lower_either(l, n);
  default: return lower_number(l, n);
  }
}

/* What a region yields becomes the outputs of its node. */
static kn_status bind(lowering *l, const kn_step *s, int side, bool alone) {
  const kn_region *r = s->node->regions[side];
  const uint32_t first = s->kind == KN_STEP_LOOP ? 1 + r->nparams : 0;
  for (uint32_t i = 0; i < s->node->nout; i++) {
    const kn_value *to = s->node->out[i], *from = r->yields[first + i];
    kn_tensor *a, *b;
    if (is_number(to)) {
      uint32_t cell;
      if (l->p->known[to->id]) continue;
      if (alone) {
        KN_TRY(same_number(l, to, from));
        continue;
      }
      KN_TRY(cell_of(l, from, &cell));
      KN_TRY(move(l, out_cell(l, to), cell));
    } else if (l->p->undefined[from->id])
      continue; /* nobody reads it then */
    else if (kn_plan_is_fixed(l->p, to->id)) {
      KN_TRY(tensor_of(l, to, &a));
      KN_TRY(tensor_of(l, from, &b));
      KN_TRY(copy(l, s->node, a, b));
    } else
      KN_TRY(same_tensor(l, to, from));
  }
  return KN_OK;
}

static kn_status lower_side(lowering *l, const kn_step *s, int side, uint32_t *block, bool *dead) {
  const uint32_t outer = l->block;
  KN_TRY(new_block(l, block));
  l->block = *block;
  KN_TRY(lower_block(l, side ? s->b : s->a, dead));
  if (!*dead) KN_TRY(bind(l, s, side, false));
  KN_TRY(flush(l));
  l->block = outer;
  return KN_OK;
}

static kn_status lower_if(lowering *l, const kn_step *s, bool *dead) {
  kn_whole_step made = {.kind = KN_WHOLE_IF, .node = s->node};
  bool gone[2];
  KN_TRY(cell_of(l, s->node->in[0], &made.cell));
  for (uint32_t i = 0; i < s->node->nout; i++)
    if (is_number(s->node->out[i]) && !l->p->known[s->node->out[i]->id]) (void)out_cell(l, s->node->out[i]);
  KN_TRY(flush(l));
  KN_TRY(lower_side(l, s, 0, &made.a, &gone[0]));
  KN_TRY(lower_side(l, s, 1, &made.b, &gone[1]));
  *dead = gone[0] && gone[1];
  return push_step(l, made);
}

/* ---- loops ---- */

/* The buffer in whose bytes the tensor lies, or its storage. */
static const void *bytes_of(const kn_plan *p, const kn_tensor *t) {
  for (uint32_t i = 0; i < p->nbuffers; i++) {
    const kn_buffer *b = &p->buffers[i];
    if (b->header->storage != t->storage) continue;
    while (b->under) b = &p->buffers[b->under - 1];
    return b;
  }
  return t->storage;
}

static bool is_copied(kn_carry_how how) { return how == KN_CARRY_COPY || how == KN_CARRY_STAGED; }

static bool is_counted(const kn_loop_plan *loop, uint32_t i) {
  return loop->carry[i].how == KN_CARRY_NUMBER ||
         (loop->carry[i].how == KN_CARRY_HANDLE && kn_is_list(loop->node->regions[0]->params[i]->type.kind));
}

/* Does what the loop gives lie where the next trip's values go? Then the last trip must not put them there.
 */
static kn_status gives_params(lowering *l, const kn_loop_plan *loop, bool *gives) {
  const kn_region *r = loop->node->regions[0];
  *gives = false;
  for (uint32_t o = 0; o < loop->node->nout; o++) {
    const kn_value *v = r->yields[1 + r->nparams + o];
    kn_tensor *t;
    if (v->type.kind != KN_V_TENSOR || l->p->undefined[v->id]) continue;
    KN_TRY(tensor_of(l, v, &t));
    for (uint32_t i = 0; i < r->nparams; i++)
      *gives |= is_copied(loop->carry[i].how) &&
                bytes_of(l->p, l->p->header[r->params[i]->id]) == bytes_of(l->p, t);
  }
  return KN_OK;
}

static kn_status enter(lowering *l, const kn_loop_plan *loop) {
  const kn_region *r = loop->node->regions[0];
  for (uint32_t i = 0; i < r->nparams; i++) {
    const kn_value *v = r->params[i], *init = loop->node->in[i];
    kn_tensor *to, *from;
    uint32_t cell;
    if (is_counted(loop, i)) {
      KN_TRY(cell_of(l, init, &cell));
      KN_TRY(move(l, out_cell(l, v), cell));
    } else if (v->type.kind == KN_V_TENSOR && l->p->undefined[init->id])
      continue;
    else if (is_copied(loop->carry[i].how)) {
      KN_TRY(tensor_of(l, v, &to));
      KN_TRY(tensor_of(l, init, &from));
      KN_TRY(copy(l, loop->node, to, from));
    } else if (v->type.kind == KN_V_TENSOR)
      KN_TRY(same_tensor(l, v, init));
    else
      KN_TRY(same_number(l, v, init));
  }
  return KN_OK;
}

/* Tensors of the next trip: those that may overlap a parameter by way of their stages. */
static kn_status carry_tensors(lowering *l, const kn_loop_plan *loop) {
  const kn_region *r = loop->node->regions[0];
  kn_tensor *next, *to;
  for (uint32_t i = 0; i < r->nparams; i++) {
    if (loop->carry[i].how != KN_CARRY_STAGED || l->p->undefined[r->yields[1 + i]->id]) continue;
    KN_TRY(tensor_of(l, r->yields[1 + i], &next));
    KN_TRY(copy(l, loop->node, loop->carry[i].stage, next));
  }
  for (uint32_t i = 0; i < r->nparams; i++) {
    if (!is_copied(loop->carry[i].how) || l->p->undefined[r->yields[1 + i]->id]) continue;
    KN_TRY(tensor_of(l, r->params[i], &to));
    KN_TRY(tensor_of(l, r->yields[1 + i], &next));
    KN_TRY(copy(l, loop->node, to, loop->carry[i].how == KN_CARRY_STAGED ? loop->carry[i].stage : next));
  }
  return KN_OK;
}

/* Numbers of the next trip, all read before any is written; not those of a trip that there is not. */
static kn_status carry_numbers(lowering *l, const kn_loop_plan *loop, uint32_t more) {
  const kn_region *r = loop->node->regions[0];
  uint32_t *from = kn_arena_alloc(&l->w->arena, (r->nparams + 1u) * sizeof *from);
  if (!from) return nomem(l);
  for (uint32_t i = 0; i < r->nparams; i++) {
    if (!is_counted(loop, i)) continue;
    KN_TRY(cell_of(l, r->yields[1 + i], &from[i]));
    bool param = false; /* of those that are written before it is read */
    for (uint32_t k = 0; k < i; k++) param |= is_counted(loop, k) && l->cell[r->params[k]->id] == from[i];
    if (!param) continue;
    const uint32_t at = new_cell(l);
    KN_TRY(move(l, at, from[i]));
    from[i] = at;
  }
  for (uint32_t i = 0; i < r->nparams; i++) {
    const uint32_t to = l->cell[r->params[i]->id];
    if (!is_counted(loop, i) || to == from[i]) continue;
    KN_TRY(push_number(
        l, (kn_whole_number){.kind = KN_NUMBER_WHEN, .nin = 2, .in = {from[i], more}, .out = to}));
  }
  return KN_OK;
}

static kn_status back_edge(lowering *l, const kn_loop_plan *loop, uint32_t *more) {
  const kn_region *r = loop->node->regions[0];
  bool param = false, gives;
  KN_TRY(cell_of(l, r->yields[0], more));
  for (uint32_t i = 0; i < r->nparams; i++)
    param |= is_counted(loop, i) && l->cell[r->params[i]->id] == *more;
  if (param) {
    const uint32_t at = new_cell(l);
    KN_TRY(move(l, at, *more));
    *more = at;
  }
  KN_TRY(gives_params(l, loop, &gives));
  if (!gives) {
    KN_TRY(carry_tensors(l, loop));
    return carry_numbers(l, loop, *more);
  }
  const uint32_t outer = l->block;
  kn_whole_step again = {.kind = KN_WHOLE_IF, .node = loop->node, .cell = *more};
  KN_TRY(flush(l));
  KN_TRY(new_block(l, &again.a));
  KN_TRY(new_block(l, &again.b));
  l->block = again.a;
  KN_TRY(carry_tensors(l, loop));
  l->block = outer;
  KN_TRY(push_step(l, again));
  return carry_numbers(l, loop, *more);
}

static kn_status lower_loop(lowering *l, const kn_step *s, bool *dead) {
  const kn_loop_plan *loop = &l->p->loops[s->a];
  const uint32_t outer = l->block;
  kn_whole_step made = {.kind = KN_WHOLE_LOOP, .node = s->node};
  l->w->loops++;
  KN_TRY(enter(l, loop));
  KN_TRY(flush(l));
  KN_TRY(new_block(l, &made.a));
  l->block = made.a;
  KN_TRY(lower_block(l, loop->block, dead));
  if (*dead)
    made.cell = new_cell(l); /* nobody asks */
  else
    KN_TRY(back_edge(l, loop, &made.cell));
  KN_TRY(flush(l));
  l->block = outer;
  KN_TRY(push_step(l, made));
  return *dead ? KN_OK : bind(l, s, 0, true);
}

static kn_status lower_step(lowering *l, const kn_step *s, bool *dead) {
  switch (s->kind) {
  case KN_STEP_PART: return lower_part(l, s);
  case KN_STEP_NODE:
  case KN_STEP_NUMBER: return lower_node(l, s->node, dead);
  case KN_STEP_IF: return lower_if(l, s, dead);
  case KN_STEP_LOOP: return lower_loop(l, s, dead);
  case KN_STEP_BIND: return bind(l, s, (int)s->a, true);
  case KN_STEP_FAIL:
    *dead = true;
    return push_number(l,
                       (kn_whole_number){.kind = KN_NUMBER_FAIL, .node = s->node, .fail = l->p->fails[s->a]});
  case KN_STEP_STRANDS:
  case KN_STEP_WHOLE: break;
  }
  return kn_fail(l->ctx, KN_INTERNAL, "a step of the host is in a piece");
}

static kn_status lower_steps(lowering *l, const kn_step *steps, const uint8_t *time, uint32_t n, bool *dead) {
  *dead = false;
  for (uint32_t i = 0; i < n && !*dead; i++)
    if (!time || time[i] == KN_WHOLE_WITHIN) KN_TRY(lower_step(l, &steps[i], dead));
  return KN_OK;
}

static kn_status lower_block(lowering *l, uint32_t block, bool *dead) {
  return lower_steps(l, l->p->blocks[block].steps, NULL, l->p->blocks[block].n, dead);
}

/* ---- life ---- */

static kn_status lower(lowering *l) {
  kn_whole *w = l->w;
  const uint32_t all = l->p->graph->nvalues + 1u;
  bool dead;
  w->vals = kn_arena_alloc(&w->arena, all * sizeof(kn_tensor *));
  l->cell = kn_arena_alloc(&w->arena, all * sizeof *l->cell);
  l->root = kn_arena_alloc(&w->arena, all * sizeof *l->root);
  if (!w->vals || !l->cell || !l->root) return nomem(l);
  w->ncells = KN_CELL_EXPORTS;
  for (uint32_t i = 0; i < w->nexports; i++) l->cell[w->exports[i]] = new_cell(l);
  KN_TRY(new_block(l, &l->block));
  KN_TRY(lower_steps(l, w->steps, w->time, w->n, &dead));
  KN_TRY(flush(l));
  KN_TRY(kn_whole_prune(l->ctx, w));
  w->cells = kn_arena_alloc(&w->arena, w->ncells * sizeof *w->cells);
  for (uint32_t i = 0; w->cells && i < w->nconstants; i++)
    w->cells[w->constants[i].cell] = (kn_scalar){KN_SCALAR_INT, {.i = w->constants[i].value}};
  return w->cells ? KN_OK : nomem(l);
}

kn_status kn_whole_lower(kn_context *ctx, kn_plan *p, kn_whole *w) {
  lowering l = {.ctx = ctx, .p = p, .w = w};
  kn_whole_unmake(ctx, w);
  w->made = true;
  w->makes++;
  w->fresh = true;
  return lower(&l);
}

void kn_whole_unmake(kn_context *ctx, kn_whole *w) {
  if (w->launch) w->target->launcher->free(w->target->self, ctx, w->launch);
  for (uint32_t i = 0; i < w->ninputs; i++) {
    kn_tensor_release(w->inputs[i].home);
    kn_tensor_release(w->inputs[i].there);
  }
  for (uint32_t i = 0; i < w->nlents; i++) kn_tensor_release(w->lents[i].view);
  for (uint32_t i = 0; i < w->nkept; i++) kn_tensor_release(w->kept[i].tensor);
  for (uint32_t i = 0; i < w->nlists; i++) {
    kn_tensor_release(w->lists[i].all);
    kn_tensor_release(w->lists[i].one);
  }
  kn_arena_free(&w->arena);
  w->launch = NULL;
  w->made = w->faults = w->draws = false;
  w->loops = 0;
  w->blocks = NULL, w->numbers = NULL, w->vals = NULL, w->cells = NULL;
  w->inputs = NULL, w->uploads = NULL, w->lents = NULL, w->kept = NULL;
  w->lists = NULL, w->constants = NULL, w->nlists = w->nconstants = 0;
  w->nblocks = w->nnumbers = w->ncells = w->ninputs = w->nuploads = w->nlents = w->nkept = w->random = 0;
}
