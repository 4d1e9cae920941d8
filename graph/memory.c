/* The arena of a plan: offsets of buffers, so that no two that are live at the same time overlap. Lifetimes
 * are intervals of positions; buffers written in different branches of one `if` are never live together,
 * those of different strands of a section may always be. */
#include "graph/plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ALIGN = 64,
  DEVICE_ALIGN = 256,
  SORT_LIMIT = 4096
}; /* more buffers than that are placed in order of time */

/* What a buffer takes: never nothing, so that no two live ones have one address. */
static size_t room_of(const kn_buffer *b) {
  const size_t align = b->header->type.device == KN_CPU ? ALIGN : DEVICE_ALIGN;
  return b->bytes ? (b->bytes + align - 1) & ~(align - 1) : align;
}

static uint32_t depth_of(const kn_plan *p, uint32_t block) {
  uint32_t d = 0;
  while (p->blocks[block].parent != KN_NOWHERE) block = p->blocks[block].parent, d++;
  return d;
}

typedef enum meeting { IN_ORDER, NEVER, SIDE_BY_SIDE } meeting;

/* Of what stands in two blocks: in the two sides of one if, or in two strands of a section. */
static meeting meeting_of(const kn_plan *p, uint32_t a, uint32_t b) {
  uint32_t da = depth_of(p, a), db = depth_of(p, b);
  for (; da > db; da--) a = p->blocks[a].parent;
  for (; db > da; db--) b = p->blocks[b].parent;
  if (a == b) return IN_ORDER;
  while (p->blocks[a].parent != p->blocks[b].parent) a = p->blocks[a].parent, b = p->blocks[b].parent;
  const kn_block *x = &p->blocks[a], *y = &p->blocks[b];
  if (x->section && x->section == y->section) return SIDE_BY_SIDE;
  return x->owner && x->owner == y->owner ? NEVER : IN_ORDER;
}

static bool conflict(const kn_plan *p, const kn_buffer *a, const kn_buffer *b) {
  if (p->form == KN_PLAN_APART) return true;
  bool meet = a->first <= b->last && b->first <= a->last;
  if (!meet && !p->nsections) return false;
  meeting m = meeting_of(p, a->block, b->block);
  return m == SIDE_BY_SIDE || (meet && m == IN_ORDER);
}

static int by_size(const void *x, const void *y) {
  const kn_buffer *a = *(kn_buffer *const *)x, *b = *(kn_buffer *const *)y;
  if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
  if (a->first != b->first) return a->first < b->first ? -1 : 1;
  return a < b ? -1 : a > b;
}

static int by_time(const void *x, const void *y) {
  const kn_buffer *a = *(kn_buffer *const *)x, *b = *(kn_buffer *const *)y;
  if (a->first != b->first) return a->first < b->first ? -1 : 1;
  return by_size(x, y);
}

/* The lowest gap among the `n` placed ones (sorted by offset) that b conflicts with. False on overflow. */
static bool first_fit(const kn_plan *p, kn_buffer *b, kn_buffer *const *placed, uint32_t n, size_t room) {
  size_t at = 0;
  for (uint32_t i = 0; i < n; i++) {
    const kn_buffer *q = placed[i];
    if (at <= q->offset && q->offset - at >= room) break;
    if (!conflict(p, b, q)) continue;
    if (q->offset + room_of(q) > at) at = q->offset + room_of(q);
  }
  b->offset = at;
  return at <= SIZE_MAX / 2 - room;
}

static uint32_t forget_dead(kn_buffer **placed, uint32_t n, uint32_t now) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < n; i++)
    if (placed[i]->last >= now) placed[kept++] = placed[i];
  return kept;
}

/* Placing in order of time forgets what is dead: what stands in a strand then lives as long as the section.
 */
static void extend_strands(kn_plan *p) {
  for (uint32_t i = 0; i < p->nbuffers && p->nsections; i++)
    for (uint32_t b = p->buffers[i].block; b != KN_NOWHERE; b = p->blocks[b].parent) {
      const kn_section *x = p->blocks[b].section ? &p->sections[p->blocks[b].section - 1] : NULL;
      if (!x) continue;
      if (p->buffers[i].first > x->start) p->buffers[i].first = x->start;
      if (p->buffers[i].last < x->end) p->buffers[i].last = x->end;
    }
}

/* Those of one device among the n in `order`. */
static kn_status lay_out(kn_context *ctx, kn_plan *p, kn_device_id d, kn_buffer *const *order,
                         kn_buffer **placed) {
  const uint32_t n = p->nbuffers;
  const bool timed = n > SORT_LIMIT, apart = p->form == KN_PLAN_APART;
  uint32_t live = 0;
  for (uint32_t i = 0; i < n; i++) {
    kn_buffer *b = order[i];
    size_t room = room_of(b);
    if (b->none || b->under || b->store || b->header->type.device != d) continue;
    if (timed && !apart) live = forget_dead(placed, live, b->first);
    if (b->bytes > SIZE_MAX / 2 || p->bytes_apart > SIZE_MAX / 2 - room ||
        !first_fit(p, b, placed, live, room))
      return kn_fail(ctx, KN_NOMEM, "out of memory: the values of graph %s do not fit any address space",
                     p->graph->name);
    uint32_t at = live++;
    for (; at && placed[at - 1]->offset > b->offset; at--) placed[at] = placed[at - 1];
    placed[at] = b;
    p->bytes_apart += room;
    if (p->bytes[d] < b->offset + room) p->bytes[d] = b->offset + room;
  }
  return KN_OK;
}

kn_status kn_plan_layout(kn_context *ctx, kn_plan *p) {
  uint32_t n = p->nbuffers;
  kn_buffer **order = kn_arena_alloc(&p->arena, (n + 1) * sizeof *order);
  kn_buffer **placed = kn_arena_alloc(&p->arena, (n + 1) * sizeof *placed);
  if (!order || !placed) return kn_fail_nomem(ctx, (n + 1) * sizeof *order);
  for (uint32_t i = 0; i < n; i++) order[i] = &p->buffers[i];
  if (n > SORT_LIMIT) extend_strands(p);
  if (n) qsort(order, n, sizeof *order, n > SORT_LIMIT ? by_time : by_size);
  for (int d = 0; d < KN_DEVICE_COUNT; d++) KN_TRY(lay_out(ctx, p, (kn_device_id)d, order, placed));
  for (uint32_t i = 0; i < n; i++) {
    const kn_buffer *b = &p->buffers[i];
    while (b->under) b = &p->buffers[b->under - 1];
    p->buffers[i].offset = b->offset;
  }
  return KN_OK;
}

/* ---- KILN_DEBUG=mem ---- */

static const kn_value *find_value(const kn_region *r, uint32_t id) {
  for (uint32_t i = 0; i < r->nparams; i++)
    if (r->params[i]->id == id) return r->params[i];
  KN_EACH_NODE (n, r) {
    for (uint32_t i = 0; i < n->nout; i++)
      if (n->out[i]->id == id) return n->out[i];
    for (int i = 0; i < n->nregions; i++) {
      const kn_value *v = find_value(n->regions[i], id);
      if (v) return v;
    }
  }
  return NULL;
}

void kn_plan_log(kn_context *ctx, const kn_plan *p) {
  char type[KN_TYPE_TEXT], inputs[512] = "";
  size_t at = 0;
  const kn_region *body = p->graph->body;
  for (uint32_t i = 0; i < body->nparams && at < sizeof inputs - 1; i++) {
    bool tensor = body->params[i]->type.kind == KN_V_TENSOR;
    if (tensor && p->inputs[i].dtype < KN_DTYPE_COUNT)
      kn_type_text(&p->inputs[i], type, sizeof type);
    else
      kn_vtype_text(p->graph, &body->params[i]->type, type, sizeof type);
    int w = snprintf(inputs + at, sizeof inputs - at, "%s%s", i ? ", " : "", type);
    at = w < 0 || (size_t)w >= sizeof inputs - at ? sizeof inputs - 1 : at + (size_t)w;
  }
  size_t bytes = 0;
  for (int d = 0; d < KN_DEVICE_COUNT; d++) bytes += p->bytes[d];
  kn_log(ctx, "mem: plan of %s(%s): %u values in %zu bytes, %zu without sharing", p->graph->name, inputs,
         p->nbuffers, bytes, p->bytes_apart);
  for (uint32_t i = 0; i < p->nbuffers; i++) {
    const kn_buffer *b = &p->buffers[i];
    const kn_value *v = b->value ? find_value(body, b->value) : NULL;
    char name[64];
    if (!b->value)
      snprintf(name, sizeof name, "(staged)");
    else if (v && v->name)
      snprintf(name, sizeof name, "%%%s", v->name);
    else
      snprintf(name, sizeof name, "%%%u", b->value);
    if (b->none || b->store) continue;
    kn_log(ctx, "mem:   %-16s %-24s bytes %10zu  offset %10zu  steps %u-%u", name,
           kn_type_text(&b->header->type, type, sizeof type), b->bytes, b->offset, b->first, b->last);
  }
}
