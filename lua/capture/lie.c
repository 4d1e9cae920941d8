/* How the elements of plain values lie: see lie.h. What ops make is in order; views rearrange it; of
 * arguments and outside tensors it is guarded, where somebody asks. What loops carry is taken to lie as it
 * does at the entry until they are closed, and looked at again at the end. */
#include "lua/capture/lie.h"
#include "graph/lie.h"
#include <string.h>

/* One walk to where a value comes from. */
typedef struct walk {
  kc_cap *c;
  const kn_value **param; /* carried by loops: lie as they are assumed to */
  uint32_t nparam;
  const kc_input **input; /* that are in order, which must be guarded */
  uint32_t ninput;
  const kn_slot **slot; /* the same */
  uint32_t nslot;
  bool open; /* a loop is not closed yet */
} walk;

static kn_lie lie_of(walk *w, const kn_value *v);

static struct kc_lain *lain(kc_cap *c, const kn_value *v) {
  if (v->id >= c->nlain) {
    uint32_t n = 2 * (v->id + 32);
    struct kc_lain *more = kc_new(c, n * sizeof *more);
    if (c->nlain) memcpy(more, c->lain, c->nlain * sizeof *more);
    c->lain = more;
    c->nlain = n;
  }
  return &c->lain[v->id];
}

static kn_lie of_input(walk *w, const kn_value *v) {
  kc_cap *c = w->c;
  for (uint32_t i = 0; i < c->ninput; i++) {
    const kc_input *in = &c->input[i];
    if (in->value != v || in->dim >= 0) continue;
    if (in->given && !kn_tensor_contiguous(in->given)) return kn_lie_unknown;
    w->input = kc_more(c, &c->arena, w->input, w->ninput, sizeof *w->input);
    w->input[w->ninput++] = in;
    return kn_lie_in_order;
  }
  return kn_lie_unknown;
}

static kn_lie of_slot(walk *w, const kn_slot *slot) {
  kc_cap *c = w->c;
  if (!slot->tensor || !slot->tensor->storage) return kn_lie_unknown;
  if (slot->kind == KN_SLOT_CONST) return kn_lie_of_strides(slot->tensor);
  if (!kn_tensor_contiguous(slot->tensor)) return kn_lie_unknown;
  w->slot = kc_more(c, &c->arena, w->slot, w->nslot, sizeof *w->slot);
  w->slot[w->nslot++] = slot;
  return kn_lie_in_order;
}

static kn_lie of_yield(walk *w, const kn_region *r, uint32_t at) {
  if (at < r->nyields && r->yields[at]) return lie_of(w, r->yields[at]);
  return w->open = true, kn_lie_in_order;
}

static kn_lie of_both(walk *w, const kn_value *a, const kn_value *b) {
  kn_lie x = lie_of(w, a), y = lie_of(w, b);
  return kn_lie_meet(&x, &y);
}

/* ---- names for sizes ---- */

/* A size that the graph does not name has one of its own: nobody else's is known to be the same. */
static kn_type named(const kn_value *v, const kn_type *type) {
  kn_type out = *type;
  for (int d = 0; d < out.rank; d++)
    if (out.dims[d] == KN_DIM_UNKNOWN) out.dims[d] = -((int64_t)1 << 40) - (int64_t)v->id * KN_MAX_RANK - d;
  return out;
}

static kn_type view_type(kc_cap *c, const kn_value *v);

static kn_type type_of(kc_cap *c, const kn_value *v) {
  if (lain(c, v)->typed) return lain(c, v)->type;
  bool view = v->def && kn_opcode_is_op(v->def->op) && kn_ops[v->def->op].op_class == KN_CLASS_VIEW;
  kn_type type = view ? view_type(c, v) : named(v, &v->type.tensor);
  lain(c, v)->type = type;
  lain(c, v)->typed = true;
  return type;
}

/* What is shaped by sizes of tensors has these. */
static void name_sizes(kc_cap *c, const kn_node *n, kn_type *type) {
  const kn_attrs_sizes *a = n->attrs;
  for (int d = 0; d < type->rank; d++) {
    int64_t size = a->sizes.v[d];
    const kn_value *s = kn_is_dyn(size) ? n->in[n->ntensor + kn_dyn_index(size)] : NULL;
    if (!s || !s->def || s->def->op != KN_NODE_size) continue;
    type->dims[d] = type_of(c, s->def->in[0]).dims[*(const int64_t *)s->def->attrs];
  }
}

static kn_type view_type(kc_cap *c, const kn_value *v) {
  const kn_node *n = v->def;
  kn_type in[KN_MAX_INPUTS], out[KN_MAX_OUTPUTS];
  for (uint32_t i = 0; i < n->ntensor; i++) in[i] = type_of(c, n->in[i]);
  if (kn_infer_types(c->ctx, (kn_op)n->op, n->attrs, in, (int)n->ntensor, out) != KN_OK)
    out[0] = v->type.tensor;
  if (n->op == KN_OP_reshape) name_sizes(c, n, &out[0]);
  return named(v, &out[0]);
}

static kn_lie of_node(walk *w, const kn_value *v) {
  const kn_node *n = v->def;
  if (kn_opcode_is_op(n->op)) {
    if (kn_ops[n->op].op_class != KN_CLASS_VIEW) return kn_lie_in_order;
    kn_lie of = lie_of(w, n->in[0]);
    const kn_type from = type_of(w->c, n->in[0]), to = type_of(w->c, v);
    return kn_lie_of_view((kn_op)n->op, n->attrs, &of, &from, &to);
  }
  switch ((int)n->op) {
  case KN_NODE_if: {
    kn_lie x = of_yield(w, n->regions[0], v->index), y = of_yield(w, n->regions[1], v->index);
    return kn_lie_meet(&x, &y);
  }
  case KN_NODE_loop: return of_yield(w, n->regions[0], 1 + n->regions[0]->nparams + v->index);
  case KN_NODE_select: return of_both(w, n->in[1], n->in[2]);
  case KN_NODE_detach: return lie_of(w, n->in[0]);
  case KN_NODE_param:
  case KN_NODE_load_state:
  case KN_NODE_tensor: return of_slot(w, n->slot);
  case KN_NODE_undef:
  case KN_NODE_to_tensor: return kn_lie_in_order;
  default: return kn_lie_unknown;
  }
}

static kn_lie lie_of(walk *w, const kn_value *v) {
  kc_cap *c = w->c;
  if (lain(c, v)->walk == c->lie_walk) return lain(c, v)->lie;
  kn_lie lie;
  if (v->def)
    lie = of_node(w, v);
  else if (v->region->owner && v->region->owner->op == KN_NODE_loop) {
    lie = lie_of(w, v->region->owner->in[v->index]);
    w->param = kc_more(c, &c->arena, w->param, w->nparam, sizeof *w->param);
    w->param[w->nparam++] = v;
  } else
    lie = v->region->owner ? kn_lie_unknown : of_input(w, v);
  lain(c, v)->walk = c->lie_walk;
  lain(c, v)->lie = lie;
  return lie;
}

/* Of loops' values as little is assumed as what comes by their back edges allows. */
static kn_lie walk_to(walk *w, const kn_value *v) {
  kc_cap *c = w->c;
  c->lie_walk++;
  kn_lie lie = lie_of(w, v);
  for (bool less = w->nparam > 0; less;) {
    less = false;
    for (uint32_t i = 0; i < w->nparam; i++) {
      const kn_value *p = w->param[i];
      const kn_node *loop = p->region->owner;
      kn_lie was = lain(c, p)->lie, entry = lie_of(w, loop->in[p->index]);
      kn_lie back = of_yield(w, p->region, 1 + p->index), now = kn_lie_meet(&entry, &back);
      now = kn_lie_meet(&now, &was);
      lain(c, p)->lie = now;
      less |= now.joined != was.joined || now.unit != was.unit;
    }
    if (!less) break;
    uint32_t before = c->lie_walk++;
    for (uint32_t i = 0; i < w->nparam; i++)
      if (lain(c, w->param[i])->walk == before) lain(c, w->param[i])->walk = c->lie_walk;
    lie = lie_of(w, v);
  }
  return lie;
}

/* ---- what is then guarded ---- */

static void guard_argument(kc_cap *c, uint32_t leaf, bool in_order) {
  for (uint32_t k = 0; k < c->nlaid; k++)
    if (c->laid[k].leaf == leaf) return;
  c->laid = kc_more(c, &c->keep, c->laid, c->nlaid, sizeof *c->laid);
  c->laid[c->nlaid++] = (struct kc_laid_leaf){leaf, in_order};
  c->doomed = true;
}

static void guard_slot(kc_cap *c, const kn_slot *slot, bool in_order) {
  for (kc_look *l = c->looks; l; l = l->next)
    if (l->slot == slot) l->laid = in_order ? KC_LAID_IN_ORDER : KC_LAID_OTHERWISE;
}

static void guard_all(const walk *w) {
  for (uint32_t i = 0; i < w->ninput; i++) guard_argument(w->c, w->input[i]->leaf, true);
  for (uint32_t i = 0; i < w->nslot; i++) guard_slot(w->c, w->slot[i], true);
}

/* An argument or outside tensor itself that does not lie in order: guarded, it is copied. */
static bool guard_other(kc_cap *c, const kn_value *v) {
  if (!v->def) {
    for (uint32_t i = 0; i < c->ninput; i++)
      if (c->input[i].value == v && c->input[i].dim < 0)
        return guard_argument(c, c->input[i].leaf, false), true;
    return false;
  }
  if (v->def->op != KN_NODE_param && v->def->op != KN_NODE_load_state) return false;
  return guard_slot(c, v->def->slot, false), true;
}

/* ---- asked ---- */

void kc_lie_begin(kc_cap *c, uint64_t place) {
  c->lie_place = place;
  c->record.viewed = c->record.viewed_as = NULL;
  c->lie_asked = c->lie_lost = NULL;
}

static void assume(kc_cap *c, const walk *w, kn_value *of, const kn_value *made) {
  guard_all(w);
  if (!w->open) return;
  c->assumed = kc_more(c, &c->arena, c->assumed, c->nassumed, sizeof *c->assumed);
  c->assumed[c->nassumed++] = (struct kc_assumed){of, made};
}

static bool in_order(walk *w, const kn_value *v) {
  kn_lie lie = walk_to(w, v);
  return kn_lie_contiguous(&lie, &v->type.tensor);
}

/* The copy is written to: saved graphs must know what is written then, too. */
static bool written(const kc_cap *c) { return kc_is_born(c, (kc_birth){KC_BORN_HERE, c->lie_place}); }

bool kc_lie_in_order(void *capture, kn_value *v) {
  kc_cap *c = capture;
  walk w = {.c = c};
  if (in_order(&w, v)) return assume(c, &w, v, NULL), true;
  bool view = v->def && kn_opcode_is_op(v->def->op); /* nobody else's tensor */
  if (view)
    c->lie_asked = v;
  else if (written(c) || !guard_other(c, v))
    c->lie_lost = kc_make_handle(c, v) ? NULL : v;
  return false;
}

static kc_res lost(kc_cap *c, const char *name) {
  return kc_fail(c,
                 "'%s' depends on how the elements of the tensor lie, which cannot be followed to where it "
                 "was made; use %s",
                 name, *name == 'v' ? "reshape" : "clone");
}

static bool shows(walk *w, const kn_value *of, const kn_value *made) {
  kn_lie lie = walk_to(w, of), as;
  const kn_type from = type_of(w->c, of), to = type_of(w->c, made);
  return kn_lie_shows(&lie, &from, &to, &as);
}

static bool may_view(kc_cap *c, kn_value *of, const kn_value *made) {
  walk w = {.c = c};
  if (!shows(&w, of, made)) return false;
  return assume(c, &w, of, made), true;
}

kc_res kc_lie_after(kc_cap *c, const kc_values *out) {
  if (c->lie_lost) return lost(c, "contiguous");
  if (c->lie_asked && out->n == 1 && kc_is_plain_tensor(out->v[0])) {
    c->pairs = kc_more(c, &c->arena, c->pairs, c->npairs, sizeof *c->pairs);
    c->pairs[c->npairs++] = (kc_meeting){c->lie_asked, out->v[0].v};
  }
  kn_value *of = c->record.viewed;
  return !of || may_view(c, of, c->record.viewed_as) || kc_make_handle(c, of) ? KC_GO : lost(c, "view");
}

kc_res kc_lie_pair(kc_cap *c, const kn_value *a, const kn_value *b) {
  for (uint32_t i = 0; i < c->npairs; i++) {
    const kc_meeting *m = &c->pairs[i];
    if ((m->a != a || m->b != b) && (m->a != b || m->b != a)) continue;
    if (!kc_make_handle(c, m->a)) return lost(c, "contiguous");
  }
  return KC_GO;
}

/* ---- at the end ---- */

static void note_there(kc_cap *c, const kn_region *r) {
  for (uint32_t i = 0; i < r->nparams; i++) lain(c, r->params[i])->there = true;
  for (const kn_node *n = r->first; n; n = n->next) {
    for (uint32_t i = 0; i < n->nout; i++) lain(c, n->out[i])->there = true;
    for (uint32_t i = 0; i < n->nregions; i++) note_there(c, n->regions[i]);
  }
}

kc_res kc_lie_end(kc_cap *c) {
  if (c->nassumed) note_there(c, c->b.graph->body);
  for (uint32_t i = 0; i < c->nassumed; i++) {
    const struct kc_assumed a = c->assumed[i];
    walk w = {.c = c};
    if (!lain(c, a.of)->there) continue; /* of a loop that was given up */
    if (a.made ? shows(&w, a.of, a.made) : in_order(&w, a.of))
      guard_all(&w);
    else if (!kc_make_handle(c, a.of))
      return lost(c, a.made ? "view" : "contiguous");
  }
  return KC_GO;
}
