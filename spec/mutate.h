/* Damaged texts of graphs, and running what is still a graph: errors are answers, crashes are not. */
#ifndef SPEC_MUTATE_H
#define SPEC_MUTATE_H
#include "core/dispatch.h"
#include "graph/exec.h"
#include "spec/suite.h"

typedef struct random_state {
  uint64_t s;
} random_state;

static inline unsigned random_below(random_state *r, unsigned n) {
  r->s = r->s * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)((r->s >> 33) % n);
}

/* Where c stands after one more character: numbers in names, strings and comments are left alone. */
static inline bool in_number(const char *c, char *inside) {
  if (*inside == '"')
    *inside = *c == '"' && c[-1] != '\\' ? 0 : '"';
  else if (*inside == ';')
    *inside = *c == '\n' ? 0 : ';';
  else if (*inside == '%' && strchr(" ,:)}\n", *c))
    *inside = 0;
  else if (!*inside && strchr("\";%", *c))
    *inside = *c;
  return !*inside && *c >= '0' && *c <= '9';
}

/* One or two numbers in the text become others: the result is still a graph more often than after random
 * damage. */
static inline char *mutate_numbers(const char *text, random_state *r) {
  static const char *const others[] = {"0",  "1", "2",   "3",       "4",          "5",  "-1",
                                       "-2", "8", "100", "1000000", "4294967297", "0.5"};
  unsigned places = 0, target[2];
  char *out = malloc(strlen(text) + 64), inside = 0;
  size_t at = 0;
  for (const char *c = text; *c; c++) places += in_number(c, &inside);
  for (int i = 0; i < 2; i++) target[i] = random_below(r, places ? 2 * places : 1);
  places = 0;
  inside = 0;
  for (const char *c = text; *c; c++) {
    bool digit = in_number(c, &inside);
    if (digit && (places == target[0] || places == target[1]))
      at += (size_t)sprintf(out + at, "%s", others[random_below(r, sizeof others / sizeof *others)]);
    else
      out[at++] = *c;
    places += digit;
  }
  out[at] = 0;
  return out;
}

/* Swaps two value names. */
static inline void mutate_names(char *text, random_state *r) {
  char *at[2] = {NULL, NULL};
  for (int k = 0; k < 2; k++) {
    char *p = text + random_below(r, (unsigned)strlen(text));
    at[k] = strchr(p, '%');
  }
  if (!at[0] || !at[1]) return;
  size_t n = 1 + strspn(at[0] + 1, "0123456789"), m = 1 + strspn(at[1] + 1, "0123456789");
  if (n == m && n > 1) memcpy(at[0], at[1], n);
}

/* One type or attribute in the text has another device. */
static inline char *mutate_devices(const char *text, random_state *r) {
  static const char *const others[][2] = {{"@cuda", ""},           {"]", "]@cuda"},
                                          {"\"cuda\"", "\"cpu\""}, {"\"cpu\"", "\"cuda\""},
                                          {"@cuda", "@cuda:0"},    {"@cuda", "@cuda:7"}};
  const char *const *way = others[random_below(r, sizeof others / sizeof *others)];
  const char *at = strstr(text + random_below(r, (unsigned)strlen(text)), way[0]);
  const size_t n = strlen(text);
  char *out = malloc(n + 64);
  if (!at) return memcpy(out, text, n + 1);
  sprintf(out, "%.*s%s%s", (int)(at - text), text, way[1], at + strlen(way[0]));
  return out;
}

/* A value of zeros; named sizes are what the seed says. */
static inline kn_status damaged_value(kn_context *c, const kn_vtype *t, uint64_t seed, kn_rvalue *out) {
  kn_type real = t->tensor;
  kn_tensor *host;
  size_t bytes;
  out->scalar = t->kind == KN_V_BOOL    ? (kn_scalar){KN_SCALAR_BOOL, {.b = seed & 1}}
                : t->kind == KN_V_FLOAT ? (kn_scalar){KN_SCALAR_FLOAT, {.f = 0.5}}
                                        : (kn_scalar){KN_SCALAR_INT, {.i = (int64_t)(seed % 5)}};
  if (t->kind != KN_V_TENSOR) return KN_OK;
  for (int d = 0; d < real.rank; d++)
    if (real.dims[d] < 0) real.dims[d] = 1 + (int64_t)(seed % 3);
  real.device = KN_CPU;
  KN_TRY(kn_tensor_new(c, &real, &host));
  if (kn_type_bytes(&real, &bytes)) memset(kn_tensor_data(host), 0, bytes);
  kn_status st = t->tensor.device == KN_CPU
                     ? (out->tensor = kn_tensor_retain(host), KN_OK)
                     : kn_apply(c, KN_OP_to_device, &(kn_attrs_device){.device = t->tensor.device}, &host, 1,
                                &out->tensor);
  kn_tensor_release(host);
  return st;
}

static inline kn_status run_damaged(kn_context *c, kn_graph *g, uint64_t seed,
                                    const kn_target *const *targets, int n) {
  kn_session *s;
  KN_TRY(kn_session_new(c, g, targets, n, &s));
  kn_session_set_step_limit(s, 300);
  uint32_t nin = g->body->nparams, nout = g->body->nyields;
  kn_rvalue *in = calloc(nin + 1, sizeof *in), *out = calloc(nout + 1, sizeof *out);
  kn_status st = KN_OK;
  for (uint32_t i = 0; i < g->nslots && st == KN_OK; i++) {
    kn_rvalue x = {0};
    if (g->slots[i]->tensor || g->slots[i]->type.kind != KN_V_TENSOR) continue;
    st = damaged_value(c, &g->slots[i]->type, seed, &x);
    if (st == KN_OK) (void)kn_session_set_slot(s, i, &x);
    kn_tensor_release(x.tensor);
  }
  for (uint32_t i = 0; i < nin && st == KN_OK; i++)
    st = damaged_value(c, &g->body->params[i]->type, seed, &in[i]);
  if (st == KN_OK) st = kn_session_run(s, in, nin, out, nout);
  for (uint32_t i = 0; i < nout && st == KN_OK; i++) kn_tensor_release(out[i].tensor);
  for (uint32_t i = 0; i < nin; i++) kn_tensor_release(in[i].tensor);
  free(in);
  free(out);
  kn_session_free(s);
  return st;
}

#endif
