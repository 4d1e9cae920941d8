/* Plain numbers that the rules bring in become constants at the start of the graph. */
#include "graph/grad/grad.h"
#include "graph/internal.h"
#include <string.h>

static bool same(const kn_scalar *a, const kn_scalar *b) {
  return a->kind == b->kind &&
         (a->kind == KN_SCALAR_BOOL ? a->as.b == b->as.b : !memcmp(&a->as, &b->as, sizeof a->as));
}

static void to_start(kn_builder *b, kn_node *n, kn_node *behind) {
  kn_node *at = behind ? behind->next : b->graph->body->first;
  if (at && at != n) kn_node_move_before(n, at);
}

kn_value *kn_pooled_number(void *ud, kn_tensor *t) {
  kn_number_pool *p = ud;
  kn_builder *b = p->b;
  if (t->type.rank || t->type.device != KN_CPU || !t->storage) {
    kn_slot *s = kn_add_slot(b, KN_SLOT_CONST, "const", &(kn_vtype){KN_V_TENSOR, t->type}, t);
    kn_region *at = b->at;
    b->at = b->graph->body;
    kn_value *v = kn_add_slot_node(b, KN_NODE_tensor, s);
    b->at = at;
    if (v) to_start(b, v->def, NULL);
    return v;
  }
  kn_scalar s = kn_scalar_read(t);
  for (uint32_t i = 0; i < p->n; i++)
    if (p->v[i]->type.tensor.dtype == t->type.dtype && same(&p->number[i], &s)) return p->v[i];
  kn_region *at = b->at;
  const kn_where *where = b->where;
  b->at = b->graph->body;
  b->where = NULL;
  kn_value *k = kn_add_const(b, s), *v = kn_add_to_tensor(b, k, kn_tensor_dtype(t));
  b->at = at;
  b->where = where;
  if (!v) return NULL;
  to_start(b, k->def, NULL);
  to_start(b, v->def, k->def);
  if (p->n < sizeof p->v / sizeof *p->v) {
    p->number[p->n] = s;
    p->v[p->n++] = v;
  }
  return v;
}
