/* needs: gradients as nodes, which are no_grad.
 * does:  sums and products of the forward computation that elementwise nodes of a gradient read behind a
 * matrix product or the like are computed again there, from what is there anyhow: they need not be kept until
 * then. What takes longer than its bytes is kept, and what others read so far away. keeps: bits, effects,
 * order. Runs once, last: cse would undo it. */
#include "graph/passes/care.h"
#include "graph/pipeline.h"

enum { MOST = 8 }; /* nodes that are computed again for one value */

typedef struct fate {
  uint32_t place;    /* how many products and the like stand before it in its region */
  uint32_t last;     /* the place of the last node that reads its elements */
  bool late;         /* a gradient reads it at a later place, … */
  bool kept;         /* … or others do; or it cannot be computed again */
  uint32_t again_at; /* 1 + the place for which … */
  kn_value *again;   /* … this was made */
} fate;

typedef struct recompute {
  kn_builder *b;
  kn_care care;
  fate *of; /* by value id */
  uint32_t changes;
} recompute;

static bool is_long(const kn_node *n) {
  if (!kn_opcode_is_op(n->op)) return n->nregions > 0;
  const int c = kn_ops[n->op].op_class;
  return c == KN_CLASS_MATMUL || c == KN_CLASS_CONV || c == KN_CLASS_RECURRENT || c == KN_CLASS_ATTENTION ||
         c == KN_CLASS_LINALG;
}

/* As fast as memory gives its elements. */
static bool is_cheap(const kn_node *n) {
  return n->op == KN_OP_add || n->op == KN_OP_sub || n->op == KN_OP_mul || n->op == KN_OP_neg;
}

/* Made by an op of this region, and for no gradient. */
static bool is_forward(const kn_value *v, const kn_region *r) {
  return v->region == r && v->def && kn_opcode_is_op(v->def->op) && !v->def->no_grad;
}

static bool is_gradient(const kn_node *n) {
  return kn_opcode_is_op(n->op) && n->no_grad && kn_ops[n->op].op_class == KN_CLASS_ELEMENTWISE;
}

/* Sums to the sizes of a tensor, and those themselves, read none of its elements. */
static bool reads(const kn_node *n, uint32_t i) {
  return !(n->op == KN_OP_sum_to && i == 1) && n->op != KN_NODE_size;
}

static void note_read(recompute *c, const kn_node *top, const kn_value *v, bool gradient, uint32_t place) {
  fate *f = &c->of[v->id];
  if (v->region != top->region) return;
  if (f->last < place) f->last = place;
  if (f->place >= place) return;
  f->late |= gradient;
  f->kept |= !gradient;
}

/* What n, or a node in it, reads. */
static void note_reads(recompute *c, const kn_node *top, const kn_node *n, uint32_t place) {
  for (uint32_t i = 0; i < n->nin; i++)
    if (reads(n, i)) note_read(c, top, n->in[i], n == top && is_gradient(n), place);
  for (int k = 0; k < n->nregions; k++) {
    const kn_region *r = n->regions[k];
    KN_EACH_NODE (m, r) note_reads(c, top, m, place);
    for (uint32_t i = 0; i < r->nyields; i++) note_read(c, top, r->yields[i], false, place);
  }
}

static bool is_there(const recompute *c, const kn_value *v, const kn_region *r, uint32_t place) {
  const fate *f = &c->of[v->id];
  return v->region != r || !v->def || !kn_opcode_is_op(v->def->op) || (f->kept && f->last >= place);
}

/* How many nodes it takes to have v at that place; more than `most`, and no deeper: it cannot be. */
static uint32_t count(const recompute *c, const kn_value *v, const kn_region *r, uint32_t place,
                      uint32_t most) {
  if (kn_care_written(&c->care, v)) return most + 1; /* what it was then is not there any more */
  if (is_there(c, v, r, place)) return 0;
  if (!most || !is_forward(v, r) || !is_cheap(v->def)) return most + 1;
  uint32_t n = 1;
  for (uint32_t i = 0; i < v->def->nin && n <= most; i++) n += count(c, v->def->in[i], r, place, most - n);
  return n;
}

static kn_value *make(recompute *c, kn_value *v, kn_node *before, uint32_t place) {
  fate *f = &c->of[v->id];
  if (is_there(c, v, before->region, place)) return v;
  if (f->again_at == place + 1) return f->again;
  kn_value *in[KN_MAX_INPUTS];
  const kn_node *n = v->def;
  for (uint32_t i = 0; i < n->nin; i++)
    if (!(in[i] = make(c, n->in[i], before, place))) return NULL;
  c->b->where = n->where;
  kn_node *to = kn_add_node(c->b, n->op, n->attrs, in, n->nin, &v->type, 1);
  if (!to) return NULL;
  to->ntensor = n->ntensor;
  to->scalar = n->scalar;
  kn_node_move_before(to, before);
  c->changes++;
  f->again_at = place + 1;
  return f->again = to->out[0];
}

static void look(recompute *c, const kn_region *r) {
  uint32_t place = 0;
  KN_EACH_NODE (n, r) {
    place += is_long(n);
    note_reads(c, n, n, place);
    for (uint32_t i = 0; i < n->nout; i++) c->of[n->out[i]->id].place = c->of[n->out[i]->id].last = place;
  }
  for (uint32_t i = 0; i < r->nyields; i++)
    c->of[r->yields[i]->id] = (fate){.place = place, .last = UINT32_MAX, .kept = true};
  KN_EACH_NODE (n, r)
    for (uint32_t i = 0; i < n->nout; i++) {
      fate *f = &c->of[n->out[i]->id];
      if (f->late && !f->kept) f->kept = count(c, n->out[i], r, f->last, MOST) > MOST;
    }
}

static void change(recompute *c, kn_region *r) {
  uint32_t place = 0;
  look(c, r);
  c->b->at = r;
  KN_EACH_NODE (n, r) {
    place += is_long(n);
    for (uint32_t i = 0; n->no_grad && i < n->nin; i++) {
      const fate *f = &c->of[n->in[i]->id];
      if (f->place >= place || !f->late || f->kept || n->in[i]->region != r) continue;
      kn_value *v = make(c, n->in[i], n, place);
      if (v) n->in[i] = v;
    }
  }
  KN_EACH_NODE (n, r)
    for (int k = 0; k < n->nregions; k++) change(c, n->regions[k]);
}

static kn_status run(kn_builder *b, uint32_t *changes) {
  const kn_builder was = *b;
  const size_t bytes = (b->graph->nvalues + 1) * sizeof(fate);
  recompute c = {.b = b, .of = kn_calloc(b->ctx->heap, 1, bytes)};
  if (!c.of) return kn_fail_nomem(b->ctx, bytes);
  kn_status st = kn_care_begin(&c.care, b, false);
  if (st == KN_OK) {
    b->no_grad = true;
    change(&c, b->graph->body);
    kn_care_end(&c.care);
    b->at = was.at, b->where = was.where, b->no_grad = was.no_grad;
    *changes = c.changes;
    st = b->status;
  }
  kn_free(b->ctx->heap, c.of, bytes);
  return st;
}

const kn_pass kn_pass_recompute = {"recompute", run};
