/* Which groups go in slices, by the fixed rule; slices of buffers; the steps of all slices. */
#include "backends/onednn/slices.h"
#include <string.h>

/* A group is in a stretch when it moves more than twice what a core's cache holds, and of an image more than
 * its filters are, which every slice reads again. No slice moves more than fits there, unless an image does
 * or there were too many; where there would be all the same, as of a prime number of images, none is cut. */
enum { MOST_SLICES = 64, IMAGE_RANK = 4 };

/* ---- which ---- */

typedef struct stretch {
  int64_t batch, images;
  double most; /* bytes that some group moves of an image */
} stretch;

static double bytes_of(const dn_builder *b, uint32_t v) {
  return (double)kn_type_numel(&b->part->types[v]) * sizeof(float);
}

static bool is_of(const dn_builder *b, uint32_t v, int64_t batch) {
  const kn_type *t = &b->part->types[v];
  return t->rank == IMAGE_RANK && t->dims[0] == batch && t->dtype == KN_F32;
}

static bool goes(const dn_builder *b, const dn_group *g, stretch *s) {
  uint32_t v[DN_MAX_POSTS + 2], n = dn_free_operands(g, v);
  bool kind = g->kind == DN_GROUP_CONV || g->kind == DN_GROUP_POOL || g->kind == DN_GROUP_FUNCTION ||
              g->kind == DN_GROUP_SUM;
  if (!kind || b->fold[g->first] & DN_FOLD_WHOLE || !is_of(b, g->out->id, s->batch)) return false;
  double moved = bytes_of(b, g->out->id),
         filters = g->kind == DN_GROUP_CONV ? bytes_of(b, g->main->in[1]->id) : 0;
  for (uint32_t i = 0; i < n; i++) {
    if (!is_of(b, v[i], s->batch)) return false;
    moved += bytes_of(b, v[i]);
  }
  double image = moved / (double)s->batch;
  if (moved <= 2 * (double)b->ctx->cache || image < filters) return false;
  if (image > s->most) s->most = image;
  return true;
}

/* The end of the groups that go with `first`; s->images is 0 where they do not go in slices. */
static uint32_t find(const dn_builder *b, uint32_t first, stretch *s) {
  const kn_type *t = &b->part->types[b->cut->groups[first].out->id];
  uint32_t end = first;
  *s = (stretch){.batch = t->rank == IMAGE_RANK ? t->dims[0] : 1};
  while (s->batch > 1 && end < b->cut->n && goes(b, &b->cut->groups[end], s)) end++;
  if (end < first + 2) return first + 1;
  for (int64_t n = 1; n < s->batch; n++)
    if (s->batch % n == 0 && s->batch / n <= MOST_SLICES &&
        (!s->images || (double)n * s->most <= (double)b->ctx->cache))
      s->images = n;
  return end;
}

/* ---- buffers ---- */

static const dnnl_dims_t beginning = {0};

static uint32_t slice(dn_builder *b, uint32_t whole, dn_md_ref md) {
  dn_buffer s = b->q->buffers[whole];
  s.pitch = b->lib->memory_desc_get_size(dn_ref(&s.md)) / (size_t)b->slices;
  s.md = (dn_md){0};
  return dn_add_buffer(b, s, md);
}

static void dims_of(const kn_type *t, dnnl_dims_t dims) {
  for (int i = 0; i < DNNL_MAX_NDIMS; i++) dims[i] = i < t->rank ? t->dims[i] : 0;
}

/* oneDNN tells nobody what a layout is, so it is found among those that convolutions like. */
static const struct {
  dnnl_format_tag_t tag;
  const char *name;
} layouts[] = {{dnnl_abcd, "nchw"},
               {dnnl_acdb, "nhwc"},
               {dnnl_aBcd16b, "nChw16c"},
               {dnnl_aBcd8b, "nChw8c"},
               {dnnl_aBcd4b, "nChw4c"}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

const char *dn_layout_name(dn_builder *b, dn_md_ref md, const dnnl_dims_t dims) {
  for (int i = 0; i < LAYOUTS; i++) {
    dn_md m = {0};
    bool same =
        !dn_md_tag(b->lib, &m, IMAGE_RANK, dims, layouts[i].tag) && b->lib->memory_desc_equal(dn_ref(&m), md);
    dn_md_free(b->lib, &m);
    if (same) return layouts[i].name;
  }
  return NULL;
}

uint32_t dn_first_slice(dn_builder *b, dn_buffer whole, dn_md_ref md) {
  dnnl_dims_t all, some;
  kn_type cut = dn_type_of(b, whole.value);
  dims_of(&b->part->types[whole.value->id], all);
  dims_of(&cut, some);
  int64_t images = b->images;
  uint32_t at = DN_NO_BUFFER;
  for (int i = 0; i < LAYOUTS && at == DN_NO_BUFFER; i++) {
    dn_md of = {0}, part = {0};
    bool same = !dn_md_tag(b->lib, &of, IMAGE_RANK, all, layouts[i].tag) &&
                !dn_md_part(b->lib, &part, dn_ref(&of), some, beginning) &&
                b->lib->memory_desc_equal(dn_ref(&part), md);
    b->images = 0;
    if (same) at = dn_add_buffer(b, whole, dn_ref(&of));
    b->images = images;
    dn_md_free(b->lib, &of);
    dn_md_free(b->lib, &part);
    if (same && at == DN_NO_BUFFER) return at;
  }
  return at == DN_NO_BUFFER ? at : slice(b, at, md);
}

uint32_t dn_slice_of_made(dn_builder *b, const kn_value *v) {
  int64_t images = b->images;
  b->images = 0;
  uint32_t at = dn_find_value(b, v);
  b->images = images;
  if (at == DN_NO_BUFFER || b->q->buffers[at].given) return DN_NO_BUFFER;
  dnnl_dims_t some;
  kn_type cut = dn_type_of(b, v);
  dims_of(&cut, some);
  dn_md part = {0};
  if (dn_md_part(b->lib, &part, dn_md_of(b, at), some, beginning)) return DN_NO_BUFFER;
  at = slice(b, at, dn_ref(&part));
  dn_md_free(b->lib, &part);
  return at;
}

/* The same of the slice after; what is not of images is the same for all. */
static uint32_t next_of(dn_builder *b, uint32_t i) {
  dn_buffer next = b->q->buffers[i];
  if (!next.images) return i;
  if (next.next != DN_NO_BUFFER) return next.next;
  next.md = (dn_md){0};
  next.given = false; /* the first slice tells how the whole lies */
  next.later = true;
  next.skip += next.pitch;
  if (next.at == DN_AT_WORK && !next.pitch) next.same = next.same == i ? DN_NO_BUFFER : next_of(b, next.same);
  if (next.same == DN_NO_BUFFER && next.at == DN_AT_WORK && b->q->buffers[i].same != i) return DN_NO_BUFFER;
  uint32_t to = dn_add_buffer(b, next, dn_md_of(b, i));
  if (to != DN_NO_BUFFER) b->q->buffers[i].next = to;
  return to;
}

/* ---- steps ---- */

static dnnl_status_t repeat(dn_builder *b, uint32_t like) {
  uint32_t buffer[DN_STEP_ARGS], n = b->q->steps[like].nargs, of_images = 0;
  for (uint32_t i = 0; i < n; i++) {
    buffer[i] = next_of(b, b->q->steps[like].buffer[i]);
    if (buffer[i] == DN_NO_BUFFER) return dnnl_out_of_memory;
    of_images += b->q->buffers[buffer[i]].images != 0;
  }
  if (!of_images) return dnnl_success;
  b->q->steps[like].more = true;
  return dn_repeat_step(b, like, buffer);
}

/* What is read outside, each value once all slices of it are there. */
static dnnl_status_t bring_home(dn_builder *b, uint32_t first, uint32_t end) {
  dnnl_status_t s = dnnl_success;
  for (uint32_t i = first; i < end && !s; i++) {
    const dn_group *g = &b->cut->groups[i];
    b->group = i;
    if (b->leaves[g->out->id]) s = dn_bring_home(b, g, dn_find_value(b, g->out));
  }
  return s;
}

dnnl_status_t dn_build_stretch(dn_builder *b, uint32_t first, uint32_t *end, bool *refused) {
  stretch t;
  *end = find(b, first, &t);
  if (!t.images) return dn_build_groups(b, first, *end, refused);
  const dn_group *groups = b->cut->groups;
  for (uint32_t i = first; i < *end; i++) dn_count_uses(b, &groups[i], -1);
  for (uint32_t i = first; i < *end; i++) {
    uint32_t v = groups[i].out->id;
    b->leaves[v] = b->uses[v] || !b->cut->inner[v];
  }
  for (uint32_t i = first; i < *end; i++) dn_count_uses(b, &groups[i], 1);
  uint32_t from = b->q->nsteps;
  bool odd = false;
  b->images = t.images;
  b->slices = (int)(t.batch / t.images);
  dnnl_status_t s = dn_build_groups(b, first, *end, &odd);
  *refused |= odd;
  for (int k = 1; k < b->slices && !odd; k++)
    for (uint32_t to = b->q->nsteps; from < to && !s; from++) s = repeat(b, from);
  b->images = 0;
  return s || odd ? s : bring_home(b, first, *end);
}
