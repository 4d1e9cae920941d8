/* Gradients of lists of tensors, and through what is done with them. The gradient of a list is a list as
 * long, whose elements may be undefined; the empty one stands for none at all, so it is never undefined
 * itself. */
#include "graph/grad/inside.h"

/* What was appended last has the last gradient. */
static void append_rule(kg_walk *w, kn_node *n, kn_value *g) {
  kn_builder *b = w->b;
  kn_region *at = b->at;
  kn_value *many = kn_add_list_length(b, g);
  kn_node *any = kn_add_if(b, kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){kg_integer(w, 0), many}, 2));
  if (!any) return;
  b->at = any->regions[0];
  kn_value *last = kn_add_list_get(b, g, many);
  kn_value *rest = kn_add_scalar(b, KN_NODE_lua_sub, (kn_value *[]){many, kg_integer(w, 1)}, 2);
  rest = kn_add_of_list(b, KN_NODE_list_first, g, rest);
  b->at = any->regions[1];
  kn_value *none = last ? kn_add_undef(b, &last->type) : NULL, *empty = kn_add_undef(b, &g->type);
  b->at = at;
  if (!kg_ok(w)) return;
  kg_add(w, n->in[1], (kn_gradient){kn_if_output(b, any, NULL, NULL, last, none), true});
  kg_add(w, n->in[0], (kn_gradient){kn_if_output(b, any, NULL, NULL, rest, empty), false});
}

/* How long a list of the forward graph was. */
static kn_value *length_of(kg_walk *w, kn_value *list) {
  kn_region *at = w->b->at;
  if (!kg_visible(list, at)) w->b->at = list->region;
  kn_value *n = kn_add_list_length(w->b, list);
  w->b->at = at;
  return kg_see(w, n);
}

static kn_value *element_gradient(kg_walk *w, kn_node *n, kn_value *g) {
  kn_value *list = n->in[0], *many = length_of(w, list), *i = kg_see(w, n->in[1]);
  kn_vtype element = kn_element_of(list->type);
  kn_value *none = kn_add_list(w->b, &element);
  return kg_ok(w) ? kn_add_list_with(w->b, (kn_value *[]){none, many, i, g}) : NULL;
}

/* The rows of g as a list. */
static kn_value *rows(kg_walk *w, kn_node *n, kn_value *g) {
  kn_builder *b = w->b;
  kn_region *at = b->at;
  kn_vtype element = kn_element_of(n->in[0]->type);
  kn_value *many = kn_add_size(b, g, 0), *none = kn_add_list(b, &element), *first = kg_integer(w, 0);
  kn_node *loop = kn_add_loop(b);
  if (!loop || !kg_ok(w)) return NULL;
  kn_value *i = kn_loop_param(b, loop, NULL, NULL, first), *list = kn_loop_param(b, loop, NULL, NULL, none);
  b->at = loop->regions[0];
  kn_node *row = kn_add_op(b, KN_OP_select, &(kn_attrs_select){.dim = 0, .index = KN_DYN(0)}, &g, 1, &i, 1);
  kn_value *next = kn_add_scalar(b, KN_NODE_lua_add, (kn_value *[]){i, kg_integer(w, 1)}, 2);
  kn_value *more = kn_add_scalar(b, KN_NODE_lua_lt, (kn_value *[]){next, many}, 2);
  kn_value *longer = row ? kn_add_append(b, list, row->out[0]) : NULL;
  b->at = at;
  if (!longer || !kn_loop_finish(b, loop, more, (kn_value *[]){next, longer})) return NULL;
  return kn_loop_output(b, loop, NULL, NULL, longer);
}

typedef kn_value *(*list_fn)(kg_walk *w, kn_node *n, kn_value *g);

/* Adds what `make` makes of g where g is defined to the list's gradient. */
static void where_defined(kg_walk *w, kn_node *n, kn_gradient g, list_fn make) {
  kn_builder *b = w->b;
  kn_region *at = b->at;
  if (!g.maybe) {
    kg_add(w, n->in[0], (kn_gradient){make(w, n, g.v), false});
    return;
  }
  kn_node *there = kn_add_if(b, kn_add_defined(b, g.v));
  if (!there) return;
  b->at = there->regions[0];
  kn_value *made = make(w, n, g.v);
  b->at = there->regions[1];
  kn_value *none = made ? kn_add_undef(b, &made->type) : NULL;
  b->at = at;
  if (kg_ok(w)) kg_add(w, n->in[0], (kn_gradient){kn_if_output(b, there, NULL, NULL, made, none), false});
}

void kg_list_rule(kg_walk *w, kn_node *n) {
  kn_gradient g = kg_find(w, n->out[0]);
  if (n->op == KN_NODE_list_append && n->out[0]->type.kind == KN_V_LIST)
    append_rule(w, n, g.v);
  else if (n->op == KN_NODE_list_get && n->in[0]->type.kind == KN_V_LIST)
    where_defined(w, n, g, element_gradient);
  else if (n->op == KN_NODE_list_stack)
    where_defined(w, n, g, rows);
  else
    kn_build_fail(w->b, kn_fail(w->ctx, KN_UNSUPPORTED, "gradients through %s are not supported yet",
                                n->op == KN_NODE_list_append || n->op == KN_NODE_list_get
                                    ? "lists of lists of tensors"
                                    : kn_opcode_describe(n->op).text));
}
