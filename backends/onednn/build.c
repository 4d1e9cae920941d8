/* Making sequences: buffers and steps, the places of buffers in the workspace. What a group's step is, is in
 * build_conv.c, build_matmul.c and build_plain.c. */
#include "backends/onednn/slices.h"
#include "core/parallel.h"
#include <stdio.h>
#include <string.h>

enum { ALIGN = 64, ONE_THREAD_WORK = 1 << 20, WORK_OF_A_BYTE = 8, FIRST_ROOM = 32 };

void dn_use_threads(dn_builder *b, double work) {
  b->threads = work < ONE_THREAD_WORK ? 1 : kn_parallel_library_threads(b->ctx);
  dn_threads_set(b->lib, b->threads);
}

/* ---- arrays ---- */

static void *grow(dn_builder *b, void *array, uint32_t n, uint32_t *room, size_t size) {
  if (n < *room) return array;
  uint32_t more = *room ? 2 * *room : FIRST_ROOM;
  void *p = kn_realloc(b->q->heap, array, *room * size, more * size);
  if (!p) {
    b->status = kn_fail_nomem(b->ctx, more * size);
    return NULL;
  }
  *room = more;
  return p;
}

uint32_t dn_add_buffer(dn_builder *b, dn_buffer buffer, dn_md_ref md) {
  dn_sequence *q = b->q;
  if (dn_md_copy(b->lib, &buffer.md, md)) return DN_NO_BUFFER; /* before the array moves: md may lie in it */
  dn_buffer *all = grow(b, q->buffers, q->nbuffers, &q->buffer_room, sizeof *all);
  if (!all) {
    dn_md_free(b->lib, &buffer.md);
    return DN_NO_BUFFER;
  }
  q->buffers = all;
  buffer.bytes = b->lib->memory_desc_get_size(dn_ref(&buffer.md));
  if (buffer.at != DN_AT_WORK || buffer.same == DN_NO_BUFFER) buffer.same = q->nbuffers;
  buffer.first = buffer.next = DN_NO_BUFFER;
  buffer.images = b->images;
  all[q->nbuffers] = buffer;
  return q->nbuffers++;
}

static dn_step *add_step(dn_builder *b) {
  dn_sequence *q = b->q;
  dn_step *all = grow(b, q->steps, q->nsteps, &q->step_room, sizeof *all);
  if (!all) return NULL;
  q->steps = all;
  all[q->nsteps] = (dn_step){.group = b->group, .threads = 1, .like = q->nsteps};
  return &all[q->nsteps++];
}

dn_md_ref dn_md_of(dn_builder *b, uint32_t buffer) { return dn_ref(&b->q->buffers[buffer].md); }

static bool same_md(dn_builder *b, uint32_t buffer, dn_md_ref md) {
  return b->lib->memory_desc_equal(dn_md_of(b, buffer), md);
}

static dnnl_status_t strided(dn_builder *b, dn_md *md, int rank, const int64_t *dims,
                             const int64_t *strides) {
  dnnl_dims_t d, s;
  for (int i = 0; i < DNNL_MAX_NDIMS; i++) d[i] = i < rank ? dims[i] : 0, s[i] = i < rank ? strides[i] : 0;
  return dn_md_strides(b->lib, md, rank, d, s);
}

/* ---- values ---- */

kn_type dn_type_of(const dn_builder *b, const kn_value *v) {
  kn_type t = b->part->types[v->id];
  if (b->images) t.dims[0] = b->images;
  return t;
}

void dn_strides_of(dn_builder *b, const kn_value *v, int64_t strides[KN_MAX_RANK]) {
  if (b->made[v->id])
    kn_strides_contiguous(&b->part->types[v->id], strides);
  else if (b->vals)
    memcpy(strides, b->vals[v->id]->strides, sizeof b->vals[v->id]->strides);
  else
    kn_guess_strides(v, b->part->types, strides);
}

static bool dense(const kn_type *t, const int64_t *strides) {
  int64_t step = 1;
  for (int i = t->rank - 1; i >= 0; i--) {
    if (t->dims[i] != 1 && strides[i] != step) return false;
    step *= t->dims[i];
  }
  return true;
}

/* Does buffer i hold the elements of v, of all images or of the first as many? */
static bool holds(const dn_builder *b, uint32_t i, const kn_value *v) {
  const dn_buffer *at = &b->q->buffers[i];
  return at->value == v && at->at != DN_AT_FIXED && at->images == b->images && !at->later;
}

uint32_t dn_find_value(dn_builder *b, const kn_value *v) {
  for (uint32_t i = 0; i < b->q->nbuffers; i++)
    if (holds(b, i, v)) return i;
  return DN_NO_BUFFER;
}

/* Not at views of what the part itself makes. */
static bool look_at(dn_builder *b, const kn_value *v) {
  int64_t unused[KN_MAX_RANK];
  dn_sequence *q = b->q;
  dn_look x = {.value = v};
  if (b->made[v->id] || b->made[b->part->root[v->id]]) return true;
  for (uint32_t i = 0; i < q->nlooks; i++)
    if (q->looks[i].value == v) return true;
  const kn_slot *slot = kn_constant_of(v, unused);
  if (slot && dn_tensor_finite(slot->tensor)) {
    x.numbers = kn_tensor_data(slot->tensor);
    x.version = atomic_load(&slot->tensor->storage->version);
  }
  dn_look *all = grow(b, q->looks, q->nlooks, &q->look_room, sizeof *all);
  if (!all) return false;
  q->looks = all;
  all[q->nlooks++] = x;
  return true;
}

/* A value that others compute. Repeated elements are none of oneDNN's. */
static uint32_t given(dn_builder *b, const kn_value *v) {
  const kn_type cut = dn_type_of(b, v), *t = &cut;
  dn_buffer buffer = {.at = DN_AT_VALUE, .value = v, .given = !b->made[v->id]};
  int64_t strides[KN_MAX_RANK];
  dn_strides_of(b, v, buffer.strides);
  memcpy(strides, buffer.strides, sizeof strides);
  for (int i = 0; i < t->rank; i++) {
    if (t->dims[i] == 1 && strides[i] < 1) strides[i] = 1;
    if (strides[i] < 1) return DN_NO_BUFFER;
  }
  if (buffer.given && !look_at(b, v)) return DN_NO_BUFFER;
  if (b->images) buffer.pitch = (size_t)(b->images * buffer.strides[0]) * sizeof(float);
  buffer.plain = dense(t, strides);
  if (buffer.plain) kn_strides_contiguous(t, strides);
  dn_md md = {0};
  if (!t->rank || strided(b, &md, t->rank, t->dims, strides)) return DN_NO_BUFFER;
  uint32_t at = dn_add_buffer(b, buffer, dn_ref(&md));
  dn_md_free(b->lib, &md);
  return at;
}

uint32_t dn_buffer_of(dn_builder *b, const kn_value *v) {
  uint32_t at = dn_find_value(b, v);
  if (at == DN_NO_BUFFER && b->images) at = dn_slice_of_made(b, v);
  return at == DN_NO_BUFFER ? given(b, v) : at;
}

static uint32_t reorder_now(dn_builder *b, uint32_t from, uint32_t to) {
  dnnl_primitive_desc_t pd;
  dnnl_primitive_attr_t attr = NULL;
  if (to == DN_NO_BUFFER || b->lib->primitive_attr_create(&attr)) return DN_NO_BUFFER;
  dnnl_status_t s = b->lib->primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
  if (!s)
    s = b->lib->reorder_primitive_desc_create(&pd, dn_md_of(b, from), b->engine, dn_md_of(b, to), b->engine,
                                              attr);
  b->lib->primitive_attr_destroy(attr);
  if (s) return DN_NO_BUFFER;
  s = dn_add_step(b, pd, 2, (int[]){DNNL_ARG_FROM, DNNL_ARG_TO}, (uint32_t[]){from, to});
  return s ? DN_NO_BUFFER : to;
}

static uint32_t reorder(dn_builder *b, uint32_t from, uint32_t to) {
  int threads = b->threads;
  if (to != DN_NO_BUFFER) dn_use_threads(b, (double)b->q->buffers[from].bytes * WORK_OF_A_BYTE);
  to = reorder_now(b, from, to);
  b->threads = threads;
  dn_threads_set(b->lib, threads);
  return to;
}

uint32_t dn_buffer_reordered(dn_builder *b, const kn_value *v, dn_md_ref md) {
  uint32_t from = dn_buffer_of(b, v);
  if (from == DN_NO_BUFFER) return from;
  for (uint32_t i = 0; i < b->q->nbuffers; i++)
    if (holds(b, i, v) && same_md(b, i, md)) return i;
  return reorder(b, from,
                 dn_add_buffer(b, (dn_buffer){.at = DN_AT_WORK, .value = v, .same = DN_NO_BUFFER}, md));
}

uint32_t dn_buffer_plain(dn_builder *b, const kn_value *v) {
  uint32_t from = dn_buffer_of(b, v);
  for (uint32_t i = 0; from != DN_NO_BUFFER && i < b->q->nbuffers; i++)
    if (holds(b, i, v) && b->q->buffers[i].plain) return i;
  if (from == DN_NO_BUFFER) return from;
  const kn_type cut = dn_type_of(b, v), *t = &cut;
  int64_t strides[KN_MAX_RANK];
  kn_strides_contiguous(t, strides);
  dn_md md = {0};
  if (strided(b, &md, t->rank, t->dims, strides)) return DN_NO_BUFFER;
  uint32_t to = dn_add_buffer(
      b, (dn_buffer){.at = DN_AT_WORK, .value = v, .plain = true, .same = DN_NO_BUFFER}, dn_ref(&md));
  dn_md_free(b->lib, &md);
  return reorder(b, from, to);
}

uint32_t dn_buffer_as(dn_builder *b, uint32_t buffer, dn_md_ref md) {
  if (buffer == DN_NO_BUFFER || same_md(b, buffer, md)) return buffer;
  dn_buffer as = b->q->buffers[buffer];
  as.md = (dn_md){0};
  as.given = as.plain = false; /* looked at already, and not found again as the value's own */
  return dn_add_buffer(b, as, md);
}

static uint32_t vector(dn_builder *b, const kn_value *v, int rank, int dim, int64_t n) {
  uint32_t at = dn_buffer_plain(b, v);
  int64_t dims[KN_MAX_RANK], strides[KN_MAX_RANK];
  for (int i = 0; i < rank; i++) dims[i] = i == dim ? n : 1, strides[i] = i >= dim ? 1 : n;
  for (int i = dim - 1; i >= 0; i--) strides[i] = n;
  dn_md md = {0};
  if (at == DN_NO_BUFFER || strided(b, &md, rank, dims, strides)) return DN_NO_BUFFER;
  at = dn_buffer_as(b, at, dn_ref(&md));
  dn_md_free(b->lib, &md);
  return at;
}

/* What is not of images is the same for every slice of them. */
uint32_t dn_buffer_vector(dn_builder *b, const kn_value *v, int rank, int dim, int64_t n) {
  int64_t images = b->images;
  b->images = 0;
  uint32_t at = vector(b, v, rank, dim, n);
  b->images = images;
  return at;
}

uint32_t dn_buffer_packed(dn_builder *b, const kn_value *v, const kn_slot *slot, dn_md_ref from,
                          dn_md_ref to) {
  dn_packed *p;
  int64_t images = b->images;
  b->status = dn_packed_get(dn_state_shelf(b->state), b->ctx, b->engine, slot->tensor, from, to, &p);
  if (b->status != KN_OK) return DN_NO_BUFFER;
  b->images = 0;
  uint32_t at =
      dn_add_buffer(b, (dn_buffer){.at = DN_AT_FIXED, .value = v, .packed = p, .data = p->data}, to);
  b->images = images;
  if (at == DN_NO_BUFFER) dn_packed_release(dn_state_shelf(b->state), p);
  b->q->odd_constant |= !p->finite;
  return at;
}

/* A buffer that may be overwritten by the result: nobody reads it any more. */
static bool is_over(dn_builder *b, const kn_value *v, uint32_t at) {
  return b->q->buffers[at].at == DN_AT_WORK && b->uses[v->id] == 0 && b->cut->inner[v->id];
}

uint32_t dn_buffer_result(dn_builder *b, const dn_group *g, dn_md_ref md, bool plain, const kn_value *sum) {
  dn_buffer r = {.at = DN_AT_WORK, .value = g->out, .plain = plain, .same = DN_NO_BUFFER};
  bool leaves = b->images && b->leaves[g->out->id];
  if (!b->cut->inner[g->out->id] && plain && !leaves) r.at = DN_AT_VALUE;
  if (!sum) return leaves ? dn_first_slice(b, r, md) : dn_add_buffer(b, r, md);
  uint32_t from = dn_buffer_of(b, sum);
  if (from == DN_NO_BUFFER) return from;
  bool over = r.at == DN_AT_WORK && !leaves && sum != g->main->in[0];
  for (uint32_t i = 0; i < b->q->nbuffers; i++) {
    if (!holds(b, i, sum) || !same_md(b, i, md)) continue;
    from = i;
    if (!over || !is_over(b, sum, i)) continue;
    r.same = b->q->buffers[i].same;
    r.skip = b->q->buffers[i].skip, r.pitch = b->q->buffers[i].pitch;
    return dn_add_buffer(b, r, md);
  }
  return reorder(b, from, leaves ? dn_first_slice(b, r, md) : dn_add_buffer(b, r, md));
}

/* ---- steps ---- */

const char *dn_impl_of(dn_builder *b, dnnl_primitive_desc_t pd) {
  const char *impl = NULL;
  if (b->lib->primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &impl) || !impl) impl = "?";
  return impl;
}

bool dn_is_poor(dn_builder *b, dnnl_primitive_desc_t pd, bool gemm_too) {
  const char *impl = dn_impl_of(b, pd);
  if (gemm_too && strstr(impl, "gemm") && !strstr(impl, "brg")) return true;
  return !strncmp(impl, "ref", 3) || strstr(impl, ":ref") || strstr(impl, "+ref");
}

static void use(dn_builder *b, uint32_t buffer, uint32_t step) {
  dn_buffer *at = &b->q->buffers[b->q->buffers[buffer].same];
  if (at->first == DN_NO_BUFFER) at->first = step;
  at->last = step;
  if (b->q->buffers[buffer].bytes > at->bytes) at->bytes = b->q->buffers[buffer].bytes;
}

static void name_impl(dn_builder *b, dn_step *t, dnnl_primitive_desc_t pd) {
  int n = snprintf(t->impl, sizeof t->impl, "%s%s", dn_impl_of(b, pd), b->measured ? " (measured)" : "");
  if (b->images && n < DN_IMPL_TEXT)
    snprintf(t->impl + n, sizeof t->impl - (size_t)n, " (%d slices)", b->slices);
}

dnnl_status_t dn_add_step(dn_builder *b, dnnl_primitive_desc_t pd, uint32_t nargs, const int *arg,
                          const uint32_t *buffer) {
  dn_step *t = add_step(b);
  if (!t) {
    b->lib->primitive_desc_destroy(pd);
    return dnnl_out_of_memory;
  }
  uint32_t step = b->q->nsteps - 1;
  t->pd = pd;
  t->threads = b->threads;
  name_impl(b, t, pd);
  for (uint32_t i = 0; i < nargs; i++) {
    if (buffer[i] == DN_NO_BUFFER) return dnnl_unimplemented;
    t->arg[i] = arg[i], t->buffer[i] = buffer[i];
    use(b, buffer[i], step);
  }
  t->nargs = nargs;
  dn_md_ref scratch = b->lib->primitive_desc_query_md(pd, dnnl_query_exec_arg_md, DNNL_ARG_SCRATCHPAD);
  if (!scratch || b->lib->memory_desc_get_size(scratch) == 0) return dnnl_success;
  uint32_t at = dn_add_buffer(b, (dn_buffer){.at = DN_AT_WORK, .same = DN_NO_BUFFER}, scratch);
  if (at == DN_NO_BUFFER) return dnnl_out_of_memory;
  t->arg[t->nargs] = DNNL_ARG_SCRATCHPAD;
  t->buffer[t->nargs++] = at;
  use(b, at, step);
  return dnnl_success;
}

dnnl_status_t dn_repeat_step(dn_builder *b, uint32_t like, const uint32_t *buffer) {
  dn_step *t = add_step(b);
  if (!t) return dnnl_out_of_memory;
  uint32_t step = b->q->nsteps - 1;
  *t = b->q->steps[like];
  t->pd = NULL;
  t->more = false;
  for (uint32_t i = 0; i < t->nargs; i++) use(b, t->buffer[i] = buffer[i], step);
  return dnnl_success;
}

dnnl_status_t dn_finish_result(dn_builder *b, const dn_group *g, uint32_t buffer) {
  b->q->steps[b->q->nsteps - 1].main = true;
  return b->images ? dnnl_success : dn_bring_home(b, g, buffer);
}

dnnl_status_t dn_bring_home(dn_builder *b, const dn_group *g, uint32_t buffer) {
  if (b->q->buffers[buffer].at == DN_AT_VALUE || b->cut->inner[g->out->id]) return dnnl_success;
  const kn_type *t = &b->part->types[g->out->id];
  int64_t strides[KN_MAX_RANK];
  kn_strides_contiguous(t, strides);
  dn_md md = {0};
  dnnl_status_t s = strided(b, &md, t->rank, t->dims, strides);
  if (s) return s;
  uint32_t to = dn_add_buffer(b, (dn_buffer){.at = DN_AT_VALUE, .value = g->out, .plain = true}, dn_ref(&md));
  dn_md_free(b->lib, &md);
  return reorder(b, buffer, to) == DN_NO_BUFFER ? dnnl_unimplemented : dnnl_success;
}

/* ---- posts ---- */

const kn_value *dn_summed(const dn_group *g) {
  for (uint32_t i = 0; i < g->nposts; i++)
    if (g->posts[i].kind == DN_POST_SUM) return g->posts[i].value;
  return NULL;
}

static int64_t channels(const dn_builder *b, const dn_group *g) {
  const kn_type *t = &b->part->types[g->out->id];
  return t->dims[g->kind == DN_GROUP_CONV ? 1 : t->rank - 1];
}

static dnnl_status_t append(dn_builder *b, const dn_group *g, int rank, int channel, const dn_post *p,
                            dnnl_post_ops_t ops) {
  if (p->kind == DN_POST_FUNCTION)
    return dn_post_function(b->lib, ops, (dnnl_alg_kind_t)p->alg, p->alpha, p->beta);
  if (p->kind == DN_POST_SUM) return dn_post_sum(b->lib, ops);
  uint32_t at = dn_buffer_vector(b, p->value, rank, channel, channels(b, g));
  if (at == DN_NO_BUFFER) return dnnl_unimplemented;
  return b->lib->post_ops_append_binary(ops, (dnnl_alg_kind_t)p->alg, dn_md_of(b, at));
}

dnnl_status_t dn_posts_attr(dn_builder *b, const dn_group *g, int rank, int channel,
                            dnnl_primitive_attr_t *out) {
  dnnl_primitive_attr_t attr;
  dnnl_post_ops_t ops = NULL;
  dnnl_status_t s = b->lib->primitive_attr_create(&attr);
  if (s) return s;
  s = b->lib->primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
  if (!s && g->nposts) s = b->lib->post_ops_create(&ops);
  for (uint32_t i = 0; i < g->nposts && !s; i++) s = append(b, g, rank, channel, &g->posts[i], ops);
  if (!s && ops) s = b->lib->primitive_attr_set_post_ops(attr, ops);
  if (ops) b->lib->post_ops_destroy(ops);
  if (s)
    b->lib->primitive_attr_destroy(attr);
  else
    *out = attr;
  return s;
}

dnnl_status_t dn_posts_args(dn_builder *b, const dn_group *g, int rank, int channel, uint32_t *nargs,
                            int *arg, uint32_t *buffer) {
  for (uint32_t i = 0; i < g->nposts; i++) {
    if (g->posts[i].kind != DN_POST_CHANNEL) continue;
    arg[*nargs] = DNNL_ARG_ATTR_MULTIPLE_POST_OP((int)i) | DNNL_ARG_SRC_1;
    buffer[(*nargs)++] = dn_buffer_vector(b, g->posts[i].value, rank, channel, channels(b, g));
  }
  return dnnl_success;
}

/* ---- the workspace ---- */

static bool meet(const dn_buffer *a, const dn_buffer *b) {
  return a->first <= b->last && b->first <= a->last;
}

static bool is_placed(const dn_sequence *q, uint32_t i) {
  const dn_buffer *b = &q->buffers[i];
  return b->at == DN_AT_WORK && b->same == i && b->first != DN_NO_BUFFER;
}

/* The lowest place that is free as long as it is needed. */
static size_t lay_out(dn_sequence *q) {
  size_t top = 0;
  for (uint32_t i = 0; i < q->nbuffers; i++) {
    dn_buffer *b = &q->buffers[i];
    if (!is_placed(q, i)) continue;
    b->bytes = (b->bytes + ALIGN - 1) / ALIGN * ALIGN;
    bool moved = true;
    while (moved) {
      moved = false;
      for (uint32_t k = 0; k < i; k++) {
        const dn_buffer *o = &q->buffers[k];
        if (!is_placed(q, k) || !meet(b, o) || o->offset >= b->offset + b->bytes ||
            b->offset >= o->offset + o->bytes)
          continue;
        b->offset = o->offset + o->bytes;
        moved = true;
      }
    }
    if (b->offset + b->bytes > top) top = b->offset + b->bytes;
  }
  return top;
}

/* ---- all of it ---- */

static dnnl_status_t build_group(dn_builder *b, const dn_group *g) {
  switch (g->kind) {
  case DN_GROUP_CONV: return dn_build_conv(b, g);
  case DN_GROUP_MATMUL: return dn_build_matmul(b, g);
  case DN_GROUP_POOL:
  case DN_GROUP_MEAN: return dn_build_pool(b, g);
  case DN_GROUP_FUNCTION:
  case DN_GROUP_SUM: return dn_build_simple(b, g);
  default: break;
  }
  dn_step *t = add_step(b);
  if (!t) return dnnl_out_of_memory;
  for (uint32_t i = 0; i < g->main->ntensor; i++)
    if (!look_at(b, g->main->in[i])) return dnnl_out_of_memory;
  t->apart = t->main = true;
  return dnnl_success;
}

void dn_count_uses(dn_builder *b, const dn_group *g, int by) {
  uint32_t v[DN_MAX_POSTS + 2], n = dn_free_operands(g, v);
  for (uint32_t i = 0; i < n; i++) b->uses[v[i]] += (uint32_t)by;
}

/* Less of it next time. */
static void refuse(dn_builder *b, const dn_group *g) {
  uint8_t *f = &b->fold[g->first], whole = *f & DN_FOLD_WHOLE;
  if (b->images) {
    *f |= DN_FOLD_WHOLE;
    return;
  }
  bool leads = g->kind == DN_GROUP_CONV || g->kind == DN_GROUP_MATMUL || g->kind == DN_GROUP_SUM;
  *f = whole | (!leads || g->first == g->last ? 0 : g->nposts ? (uint8_t)(1 + g->nposts) : 1);
  if (!kn_debugging(b->ctx, KN_DEBUG_DISPATCH)) return;
  kn_log(b->ctx, "dispatch: onednn has nothing for %s with %u things folded in",
         kn_op_name((kn_op)g->main->op), g->nposts);
}

static dnnl_status_t finish(dn_builder *b) {
  dn_sequence *q = b->q;
  dnnl_status_t s = b->lib->stream_create(&q->stream, b->engine, dnnl_stream_default_flags);
  for (uint32_t i = 0; i < q->nsteps && !s; i++) {
    dn_step *t = &q->steps[i];
    if (t->apart) continue;
    if (t->like != i) {
      t->primitive = q->steps[t->like].primitive;
      continue;
    }
    dn_threads_set(b->lib, t->threads);
    s = b->lib->primitive_create(&t->primitive, t->pd);
    b->lib->primitive_desc_destroy(t->pd);
    t->pd = NULL;
  }
  size_t bytes = lay_out(q);
  if (!s && bytes) {
    q->work = kn_claim_kept(b->ctx, bytes);
    if (!q->work) {
      b->status = kn_fail_nomem(b->ctx, bytes);
      return dnnl_out_of_memory;
    }
    q->bytes = bytes;
  }
  for (uint32_t i = 0; i < q->nbuffers && !s; i++) {
    dn_buffer *u = &q->buffers[i];
    if (u->at == DN_AT_WORK) u->data = (char *)q->work + q->buffers[u->same].offset + u->skip;
    s = b->lib->memory_create(&u->memory, dn_ref(&u->md), b->engine, u->data);
  }
  for (uint32_t i = 0; i < q->nsteps && !s; i++)
    for (uint32_t k = 0; k < q->steps[i].nargs; k++)
      q->steps[i].args[k] = (dnnl_exec_arg_t){q->steps[i].arg[k], q->buffers[q->steps[i].buffer[k]].memory};
  return s;
}

dnnl_status_t dn_build_groups(dn_builder *b, uint32_t first, uint32_t end, bool *refused) {
  for (uint32_t i = first; i < end && b->status == KN_OK; i++) {
    const dn_group *g = &b->cut->groups[i];
    b->group = i;
    dn_count_uses(b, g, -1);
    dnnl_status_t s = build_group(b, g);
    if (s == dnnl_out_of_memory || b->status != KN_OK) return s;
    if (s) refuse(b, g), *refused = true;
    b->made[g->out->id] = true;
  }
  return dnnl_success;
}

static dnnl_status_t build(dn_builder *b, bool *refused) {
  dnnl_status_t s = dnnl_success;
  for (uint32_t i = 0; i < b->cut->n; i++) dn_count_uses(b, &b->cut->groups[i], 1);
  for (uint32_t i = 0, end; i < b->cut->n && !s && b->status == KN_OK; i = end)
    s = dn_build_stretch(b, i, &end, refused);
  return s || *refused || b->status != KN_OK ? s : finish(b);
}

kn_status dn_build(kn_context *ctx, dn_state *s, const kn_part *part, const dn_cut *cut,
                   kn_tensor *const *vals, uint8_t *fold, dn_sequence **out) {
  uint32_t all = part->graph->nvalues + 1;
  dn_sequence *q = kn_calloc(ctx->heap, 1, sizeof *q);
  if (!q) return kn_fail_nomem(ctx, sizeof *q);
  q->heap = ctx->heap;
  q->state = s;
  dn_builder b = {.ctx = ctx,
                  .state = s,
                  .lib = dn_state_library(s),
                  .engine = dn_state_engine(s),
                  .part = part,
                  .cut = cut,
                  .vals = vals,
                  .q = q,
                  .fold = fold,
                  .leaves = kn_calloc(ctx->heap, all, sizeof *b.leaves),
                  .uses = kn_calloc(ctx->heap, all, sizeof *b.uses),
                  .made = kn_calloc(ctx->heap, all, sizeof *b.made)};
  bool refused = false;
  if (!b.uses || !b.made || !b.leaves)
    b.status = kn_fail_nomem(ctx, all * sizeof *b.uses);
  else {
    int before = b.lib->omp_get_max_threads ? b.lib->omp_get_max_threads() : 0;
    dnnl_status_t st = build(&b, &refused);
    if (before) dn_threads_set(b.lib, before);
    if (st && b.status == KN_OK)
      b.status = kn_fail(ctx, st == dnnl_out_of_memory ? KN_NOMEM : KN_INTERNAL,
                         "oneDNN could not prepare a part of the graph: %s", dn_status_text(st));
  }
  kn_free(ctx->heap, b.uses, all * sizeof *b.uses);
  kn_free(ctx->heap, b.made, all * sizeof *b.made);
  kn_free(ctx->heap, b.leaves, all * sizeof *b.leaves);
  if (b.status == KN_OK && !refused)
    *out = q;
  else
    dn_sequence_free(q);
  return b.status == KN_OK && refused ? KN_UNSUPPORTED : b.status;
}
