/* Host slots: calls out of a graph to functions that whoever runs it has bound by name. Making, checking and
 * running such a node. */
#include "graph/host.h"
#include "graph/internal.h"
#include "graph/session.h"
#include <inttypes.h>
#include <string.h>

kn_node *kn_add_host_call(kn_builder *b, const char *name, kn_value *const *in, uint32_t n,
                          const kn_vtype *types, uint32_t nout) {
  const char *text = kn_build_text(b, name), *why;
  kn_node *made = text ? kn_add_node(b, KN_NODE_host_call, NULL, in, n, types, nout) : NULL;
  if (!made) return NULL;
  made->text = text;
  if ((why = kn_host_check(made)))
    return kn_build_fail(b, kn_fail(b->ctx, KN_ARG, "host_call %s: %s", text, why));
  return made;
}

const char *kn_host_check(const kn_node *n) {
  if (!n->text || !*n->text) return "it has no name";
  if (n->nin > KN_HOST_VALUES || n->nout > KN_HOST_VALUES) return "it has too many values";
  for (uint32_t i = 0; i < n->nin; i++)
    if (kn_is_list(n->in[i]->type.kind)) return "a list cannot be given to the host";
  for (uint32_t i = 0; i < n->nout; i++)
    if (kn_is_list(n->out[i]->type.kind)) return "the host cannot give a list";
  return NULL;
}

static int64_t read_size(const kn_builder *b, const char *s, size_t n) {
  int64_t size = 0;
  size_t i = 0;
  while (i < n && s[i] >= '0' && s[i] <= '9' && size < INT64_MAX / 16) size = size * 10 + (s[i++] - '0');
  if (n && i == n) return size;
  for (uint32_t k = 0; k < b->graph->nsymbols; k++)
    if (strlen(b->graph->symbols[k]) == n && !memcmp(b->graph->symbols[k], s, n)) return KN_DIM_SYMBOL(k);
  return KN_DIM_UNKNOWN;
}

bool kn_host_type(const kn_builder *b, const char *text, kn_vtype *out) {
  static const struct {
    const char *name;
    kn_vkind kind;
  } scalars[] = {{"integer", KN_V_INT}, {"float", KN_V_FLOAT}, {"boolean", KN_V_BOOL}};
  char name[32] = "";
  kn_dtype dtype;
  kn_vtype t = {.kind = KN_V_TENSOR};
  for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
    if (!strcmp(text, scalars[i].name)) return *out = (kn_vtype){.kind = scalars[i].kind}, true;
  size_t n = strcspn(text, "[");
  if (!text[n] || n >= sizeof name) return false;
  memcpy(name, text, n);
  if (!kn_dtype_parse(name, &dtype)) return false;
  t.tensor.dtype = (uint8_t)dtype;
  for (const char *s = text + n + 1; *s && *s != ']';) {
    size_t len = strcspn(s, ",]");
    if (t.tensor.rank == KN_MAX_RANK) return false;
    t.tensor.dims[t.tensor.rank++] = read_size(b, s, len);
    s += len + (s[len] == ',');
  }
  *out = t;
  return true;
}

/* ---- the slots of a graph ---- */

typedef struct search {
  const kn_node *found[256];
  uint32_t n;
} search;

static void look(const kn_region *r, search *s) {
  KN_EACH_NODE (n, r) {
    for (int i = 0; i < n->nregions; i++) look(n->regions[i], s);
    if (n->op != KN_NODE_host_call) continue;
    uint32_t k = 0;
    while (k < s->n && strcmp(s->found[k]->text, n->text)) k++;
    if (k == s->n && s->n < sizeof s->found / sizeof *s->found) s->found[s->n++] = n;
  }
}

const kn_node *kn_host_call(const kn_graph *g, uint32_t i) {
  search s = {.n = 0};
  look(g->body, &s);
  return i < s.n ? s.found[i] : NULL;
}

const char *kn_graph_host(const kn_graph *g, uint32_t i) {
  const kn_node *n = kn_host_call(g, i);
  return n ? n->text : NULL;
}

/* ---- running ---- */

static kn_status wrong(kn_context *ctx, const kn_node *n, uint32_t i, const kn_rvalue *v) {
  static const char *const kinds[] = {"an integer", "a float", "a boolean", "a symbol"};
  char want[KN_TYPE_TEXT], got[KN_TYPE_TEXT];
  return kn_fail(ctx, KN_ARG, "host function '%s': result %" PRIu32 " must be %s (got %s)", n->text, i + 1,
                 kn_vtype_text(NULL, &n->out[i]->type, want, sizeof want),
                 v->tensor ? kn_type_text(&v->tensor->type, got, sizeof got) : kinds[v->scalar.kind]);
}

static bool fits(const kn_vtype *want, const kn_rvalue *v) {
  kn_scalar_kind k = v->scalar.kind;
  if (want->kind == KN_V_TENSOR) {
    bool same = v->tensor && v->tensor->storage && v->tensor->type.dtype == want->tensor.dtype &&
                v->tensor->type.rank == want->tensor.rank && v->tensor->type.device == want->tensor.device;
    for (int d = 0; same && d < want->tensor.rank; d++)
      same = !kn_dim_known(want->tensor.dims[d]) || want->tensor.dims[d] == v->tensor->type.dims[d];
    return same;
  }
  if (v->tensor) return false;
  return want->kind == KN_V_BOOL    ? k == KN_SCALAR_BOOL
         : want->kind == KN_V_INT   ? k == KN_SCALAR_INT
         : want->kind == KN_V_FLOAT ? k == KN_SCALAR_FLOAT
                                    : k == KN_SCALAR_INT || k == KN_SCALAR_FLOAT;
}

kn_status kn_host_run(kn_session *s, const kn_node *n, const kn_rvalue *in, kn_rvalue *out) {
  if (!s->host)
    return kn_fail(s->ctx, KN_STATE,
                   "host function '%s' is not bound: the graph calls it, and nobody offers it", n->text);
  for (uint32_t i = 0; i < n->nout; i++) out[i] = (kn_rvalue){0};
  kn_status st = s->host(s->host_ud, s->ctx, n->text, in, n->nin, out, n->nout);
  for (uint32_t i = 0; i < n->nout && st == KN_OK; i++)
    if (!fits(&n->out[i]->type, &out[i])) st = wrong(s->ctx, n, i, &out[i]);
  for (uint32_t i = 0; i < n->nout && st != KN_OK; i++) kn_tensor_release(out[i].tensor);
  return st;
}

void kn_session_set_host(kn_session *s, kn_host_fn fn, void *ud) {
  s->host = fn;
  s->host_ud = ud;
}
