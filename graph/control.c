/* The builder's `if` and `loop`. */
#include "graph/graph.h"
#include "graph/internal.h"

static void *misfit(kn_builder *b, const char *what, const char *name, const kn_vtype *a, const kn_vtype *c) {
  char x[KN_TYPE_TEXT], y[KN_TYPE_TEXT];
  return kn_build_fail(b, kn_fail(b->ctx, KN_CAPTURE, "%s%s%s is %s on one path and %s on the other", what,
                                  name ? " " : "", name ? name : "", kn_vtype_text(b->graph, a, x, sizeof x),
                                  kn_vtype_text(b->graph, c, y, sizeof y)));
}

static kn_value *add_output(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name) {
  kn_value *v = kn_build_value(b, n->region, n, n->nout, type);
  if (!v || !kn_build_push(b, &n->out, &n->nout, &v, sizeof v)) return NULL;
  kn_value_name(b, v, name);
  return v;
}

kn_node *kn_add_if(kn_builder *b, kn_value *cond) {
  if (b->status != KN_OK) return NULL;
  if (!cond || cond->type.kind != KN_V_BOOL)
    return kn_build_fail(b, kn_fail(b->ctx, KN_INTERNAL, "if: a boolean is needed"));
  kn_node *n = kn_add_node(b, KN_NODE_if, NULL, &cond, 1, NULL, 0);
  if (!n) return NULL;
  n->regions[0] = kn_region_new(b, n);
  n->regions[1] = kn_region_new(b, n);
  if (b->status != KN_OK) return NULL;
  n->nregions = 2;
  return n;
}

kn_value *kn_if_output(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name, kn_value *a,
                       kn_value *c) {
  if (b->status != KN_OK || !n || !a || !c) return NULL;
  kn_vtype join;
  if (!kn_vtype_join(&a->type, &c->type, &join)) return misfit(b, "a value", name, &a->type, &c->type);
  if (type && !kn_vtype_join(&join, type, &join)) return misfit(b, "a value", name, &join, type);
  kn_region *then = n->regions[0], *other = n->regions[1];
  if (!kn_build_push(b, &then->yields, &then->nyields, &a, sizeof(kn_value *)) ||
      !kn_build_push(b, &other->yields, &other->nyields, &c, sizeof(kn_value *)))
    return NULL;
  return add_output(b, n, &join, name);
}

kn_node *kn_add_loop(kn_builder *b) {
  kn_node *n = kn_add_node(b, KN_NODE_loop, NULL, NULL, 0, NULL, 0);
  if (!n) return NULL;
  if (!(n->regions[0] = kn_region_new(b, n))) return NULL;
  n->nregions = 1;
  return n;
}

kn_value *kn_loop_param(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name, kn_value *init) {
  if (b->status != KN_OK || !n || !init) return NULL;
  kn_vtype join = init->type;
  if (type && !kn_vtype_join(&init->type, type, &join))
    return misfit(b, "a loop value", name, &init->type, type);
  if (!kn_build_push(b, &n->in, &n->nin, &init, sizeof init)) return NULL;
  n->ntensor = n->nin;
  return kn_add_param(b, n->regions[0], name, &join);
}

bool kn_loop_finish(kn_builder *b, kn_node *n, kn_value *flag, kn_value *const *next) {
  if (b->status != KN_OK || !n || !flag) return false;
  kn_region *r = n->regions[0];
  if (flag->type.kind != KN_V_BOOL || r->nyields) {
    kn_build_fail(b, kn_fail(b->ctx, KN_INTERNAL, "loop: the continue flag must be a boolean, set once"));
    return false;
  }
  kn_build_push(b, &r->yields, &r->nyields, &flag, sizeof flag);
  for (uint32_t i = 0; i < r->nparams; i++) {
    kn_value *v = next[i];
    if (!v) {
      kn_build_fail(b, kn_fail(b->ctx, KN_INTERNAL, "loop: next value %u is missing", i + 1));
      return false;
    }
    if (!kn_vtype_fits(&v->type, &r->params[i]->type)) {
      char x[KN_TYPE_TEXT], y[KN_TYPE_TEXT];
      const char *name = r->params[i]->name;
      kn_build_fail(b, kn_fail(b->ctx, KN_CAPTURE,
                               "a loop value%s%s is %s before the loop and %s after a trip", name ? " " : "",
                               name ? name : "", kn_vtype_text(b->graph, &r->params[i]->type, x, sizeof x),
                               kn_vtype_text(b->graph, &v->type, y, sizeof y)));
      return false;
    }
    kn_build_push(b, &r->yields, &r->nyields, &v, sizeof v);
  }
  return b->status == KN_OK;
}

kn_value *kn_loop_output(kn_builder *b, kn_node *n, const kn_vtype *type, const char *name, kn_value *exit) {
  if (b->status != KN_OK || !n || !exit) return NULL;
  kn_vtype join = exit->type;
  if (type && !kn_vtype_join(&exit->type, type, &join))
    return misfit(b, "a loop result", name, &exit->type, type);
  kn_region *r = n->regions[0];
  if (!kn_build_push(b, &r->yields, &r->nyields, &exit, sizeof exit)) return NULL;
  return add_output(b, n, &join, name);
}
