/* Versions of ops, as files name them: see versions.h. To change what an op means, or what can be said of it,
 * give it a row here; without `unsaid` and `upgrade` nodes of older files mean what they did. */
#include "graph/file.h"
#include <string.h>

static bool all_ones(const kn_ints *v) {
  for (int i = 0; i < v->n; i++)
    if (v->v[i] != 1) return false;
  return true;
}

/* Beyond windows of images. */
static bool other_rank(const kn_node *n) { return n->in[n->ntensor - 1]->type.tensor.rank != 4; }

static bool max_pool_options(const kn_node *n) {
  const kn_attrs_pool2d *a = n->attrs;
  return other_rank(n) || !all_ones(&a->dilation) || a->ceil_mode;
}

static bool avg_pool_options(const kn_node *n) {
  const kn_attrs_avg_pool2d *a = n->attrs;
  return other_rank(n) || a->ceil_mode || !a->count_include_pad || a->divisor_override;
}

static bool waiting_numbers(const kn_node *n) { return n->nin > n->ntensor; }

static const kn_op_version rows[] = {
    {.op = KN_OP_max_pool2d,
     .version = 2,
     .what = "dilation, ceil_mode, one and three dims",
     .used = max_pool_options},
    {.op = KN_OP_max_pool2d_grad,
     .version = 2,
     .what = "dilation, ceil_mode, one and three dims",
     .used = max_pool_options},
    {.op = KN_OP_avg_pool2d,
     .version = 2,
     .what = "ceil_mode, count_include_pad, divisor_override, one and three dims",
     .used = avg_pool_options},
    {.op = KN_OP_avg_pool2d_grad,
     .version = 2,
     .what = "ceil_mode, count_include_pad, divisor_override, one and three dims",
     .used = avg_pool_options},
    {.op = KN_OP_arange, .version = 2, .what = "numbers known when the graph runs", .used = waiting_numbers},
};

const kn_dialect kn_dialect_now = {
    .format = KN_FILE_VERSION, .rows = rows, .nrows = sizeof rows / sizeof *rows};

unsigned kn_version_newest(const kn_dialect *d, kn_opcode op) {
  unsigned v = 1;
  for (uint32_t i = 0; i < d->nrows; i++)
    if (d->rows[i].op == op) v = d->rows[i].version;
  return v;
}

unsigned kn_version_needed(const kn_dialect *d, const kn_node *n) {
  unsigned v = 1;
  for (uint32_t i = 0; i < d->nrows; i++)
    if (d->rows[i].op == n->op && d->rows[i].used(n)) v = d->rows[i].version;
  return v;
}

bool kn_version_parse(const kn_dialect *d, const char *text, size_t n, kn_opcode *out) {
  for (uint32_t i = 0; i < d->nrows; i++)
    if (d->rows[i].was && strlen(d->rows[i].was) == n && !memcmp(d->rows[i].was, text, n)) {
      *out = d->rows[i].op;
      return true;
    }
  return kn_opcode_parse(text, n, out);
}

static bool newer(const kn_versions *v, kn_opcode op, const kn_op_version *row) {
  return row->op == op && row->version > v->of[op];
}

/* The oldest change has the last word: it is what they were before it. */
bool kn_version_unsaid(const kn_versions *v, kn_opcode op, kn_attrs_any *a) {
  bool any = false;
  for (uint32_t i = v->dialect->nrows; i-- > 0;) {
    const kn_op_version *row = &v->dialect->rows[i];
    if (!newer(v, op, row) || !row->unsaid) continue;
    row->unsaid(a);
    any = true;
  }
  return any;
}

const kn_op_version *kn_version_upgrade(const kn_versions *v, kn_opcode op) {
  for (uint32_t i = 0; i < v->dialect->nrows; i++)
    if (newer(v, op, &v->dialect->rows[i]) && v->dialect->rows[i].upgrade) return &v->dialect->rows[i];
  return NULL;
}
