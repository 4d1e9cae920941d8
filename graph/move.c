/* A graph on another device: see kn_graph_move. */
#include "core/device.h"
#include "graph/graph.h"
#include "graph/verify.h"
#include <string.h>

static void move_type(kn_vtype *t, kn_device_id d) {
  if (kn_innermost(t->kind) == KN_V_TENSOR) t->tensor.device = (uint8_t)d;
}

/* Where an op makes its result. */
static void move_attrs(kn_node *n, kn_device_id d) {
  if (!kn_opcode_is_op(n->op) || !(kn_ops[n->op].flags & KN_FLAG_DEVICE)) return;
  for (const kn_field *f = kn_attrs_describe(kn_ops[n->op].attrs).fields; f->name; f++)
    if (!strcmp(f->name, "device")) *(int32_t *)kn_field_at((void *)(uintptr_t)n->attrs, f) = (int32_t)d;
}

/* Numbers as tensors are the host's, and so is what is made of nothing else. */
static kn_device_id device_of(const kn_node *n, kn_device_id d) {
  bool tensor = false, there = false;
  if (n->op == KN_NODE_to_tensor) return KN_CPU;
  if (kn_opcode_is_op(n->op) && kn_ops[n->op].flags & KN_FLAG_DEVICE) return d;
  for (uint32_t i = 0; i < n->nin; i++) {
    if (kn_innermost(n->in[i]->type.kind) != KN_V_TENSOR) continue;
    tensor = true;
    there |= n->in[i]->type.tensor.device == d;
  }
  return tensor && !there ? KN_CPU : d;
}

static void move_nodes(kn_region *r, kn_device_id d);

/* What a region takes is where it comes from; what a node gives where its regions have it. */
static void move_regions(kn_node *n, kn_device_id d) {
  const kn_region *first = n->regions[0], *last = n->regions[n->nregions - 1];
  const uint32_t carried = n->op == KN_NODE_loop ? 1 + first->nparams : 0;
  for (uint32_t i = 0; n->op == KN_NODE_loop && i < first->nparams; i++)
    move_type(&first->params[i]->type, (kn_device_id)n->in[i]->type.tensor.device);
  for (int i = 0; i < n->nregions; i++) move_nodes(n->regions[i], d);
  for (uint32_t i = 0; i < n->nout; i++) {
    const uint8_t a = first->yields[carried + i]->type.tensor.device,
                  b = last->yields[carried + i]->type.tensor.device;
    move_type(&n->out[i]->type, a == b ? (kn_device_id)a : d);
  }
}

static void move_nodes(kn_region *r, kn_device_id d) {
  KN_EACH_NODE (n, r) {
    move_attrs(n, d);
    if (n->nregions) {
      move_regions(n, d);
      continue;
    }
    const kn_device_id of = device_of(n, d);
    for (uint32_t i = 0; i < n->nout; i++) move_type(&n->out[i]->type, of);
  }
}

kn_status kn_graph_move(kn_context *ctx, kn_graph *g, kn_device_id d) {
  const kn_memory *m;
  KN_TRY(kn_device_memory(ctx, d, &m));
  for (uint32_t i = 0; i < g->nslots; i++) {
    kn_slot *s = g->slots[i];
    kn_tensor *there = NULL;
    if (s->tensor) KN_TRY(kn_move_to(ctx, s->tensor, d, &there));
    kn_tensor_release(s->tensor);
    s->tensor = there;
    move_type(&s->type, d);
  }
  for (uint32_t i = 0; i < g->body->nparams; i++) move_type(&g->body->params[i]->type, d);
  move_nodes(g->body, d);
  kn_status st = kn_graph_verify(ctx, g, true);
  if (st != KN_OK) kn_error_prefix(ctx, "graph %s cannot be moved to %s", g->name, kn_device_name(d));
  return st;
}
