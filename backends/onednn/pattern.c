/* Functions of one tensor, by the nodes that graphs have for them. A row is the function in postfix: x is the
 * tensor, a and b are numbers that are found, anything else a number or an op. */
#include "backends/onednn/group.h"
#include <math.h>
#include <oneapi/dnnl/dnnl_types.h>
#include <stdlib.h>
#include <string.h>

typedef struct row {
  const char *name, *text;
  int alg;
  float alpha, beta;  /* or: */
  char first, second; /* 'a', 'b': the number found; 0: alpha and beta above */
} row;

static const row rows[] = {
    {"relu", "x relu", dnnl_eltwise_relu, 0, 0, 0, 0},
    {"clamp", "x clamp", dnnl_eltwise_clip, 0, 0, 'a', 'b'},
    {"clamp", "x b le b x a ge a x where where", dnnl_eltwise_clip, 0, 0, 'b', 'a'},
    {"leaky_relu", "x 0 gt x x a mul where", dnnl_eltwise_relu, 0, 0, 'a', 0},
    {"silu", "x x sigmoid mul", dnnl_eltwise_swish, 1, 0, 0, 0},
    {"hardswish", "x x 3 add clamp 0.16666667 mul mul", dnnl_eltwise_hardswish, 1.0f / 6, 0.5f, 0, 0},
    {"gelu", "x x 0.70710678 mul erf 1 add 0.5 mul mul", dnnl_eltwise_gelu_erf, 0, 0, 0, 0},
    {"gelu", "x x x x x mul mul 0.044715 mul add 0.79788456 mul tanh 1 add 0.5 mul mul",
     dnnl_eltwise_gelu_tanh, 0, 0, 0, 0},
    {"sigmoid", "x sigmoid", dnnl_eltwise_logistic, 0, 0, 0, 0},
    {"tanh", "x tanh", dnnl_eltwise_tanh, 0, 0, 0, 0},
    {"mul", "x a mul", dnnl_eltwise_linear, 0, 0, 'a', 0},
    {"add", "x b add", dnnl_eltwise_linear, 1, 0, 0, 'b'},
};

enum { MOST_STACK = 8, NUMBER_SLACK = 1000000 };

bool dn_number(const kn_value *v, double *x) {
  const kn_node *d = v->def;
  if (!d || v->type.kind != KN_V_TENSOR || v->type.tensor.rank) return false;
  if (d->op == KN_NODE_tensor && d->slot->tensor && kn_tensor_dtype(d->slot->tensor) == KN_F32) {
    *x = (double)*(const float *)kn_tensor_data(d->slot->tensor);
    return true;
  }
  if (d->op != KN_NODE_to_tensor || d->in[0]->def == NULL || d->in[0]->def->op != KN_NODE_const) return false;
  const kn_scalar *s = &d->in[0]->def->scalar;
  if (s->kind == KN_SCALAR_FLOAT) return *x = s->as.f, true;
  if (s->kind == KN_SCALAR_INT) return *x = (double)s->as.i, true;
  return false;
}

typedef struct term { /* a value, or a number that must be met */
  const kn_value *v;  /* NULL: not known yet, the number `name` */
  char name;          /* 'a', 'b', or 0 for `number` */
  double number;
} term;

typedef struct match {
  const kn_node *const *next;
  uint32_t n, x;
  double a, b;
  bool has_a, has_b;
  dn_found *f;
} match;

static bool same_number(double want, double got) { return fabs(want - got) <= fabs(want) / NUMBER_SLACK; }

/* Is value v what the term stands for? Binds a and b. */
static bool fits(match *m, const term *t, const kn_value *v) {
  double got;
  if (t->v) return t->v->id == v->id;
  if (!dn_number(v, &got)) return false;
  if (!t->name) return same_number(t->number, got);
  bool *has = t->name == 'a' ? &m->has_a : &m->has_b;
  double *to = t->name == 'a' ? &m->a : &m->b;
  if (*has) return *to == got;
  *to = got;
  return *has = true;
}

static bool reads_all(match *m, const kn_node *n, const term *args, uint32_t nargs, bool turned) {
  if (n->ntensor != nargs) return false;
  bool a = m->has_a, b = m->has_b;
  for (uint32_t i = 0; i < nargs; i++) {
    if (fits(m, &args[turned ? nargs - 1 - i : i], n->in[i])) continue;
    m->has_a = a, m->has_b = b;
    return false;
  }
  return true;
}

static bool take_attrs(match *m, const kn_node *n) {
  if (n->op != KN_OP_clamp) return true;
  const kn_attrs_clamp *c = n->attrs;
  if (m->has_a || m->has_b || n->nin > n->ntensor) return false;
  m->a = c->min, m->b = c->max;
  return m->has_a = m->has_b = true;
}

/* The node of this op that reads these; pushes its result. */
static bool apply(match *m, const char *op, size_t length, term *stack, uint32_t *depth) {
  for (uint32_t i = 0; i < m->n; i++) {
    const kn_node *n = m->next[i];
    if (!kn_opcode_is_op(n->op)) continue;
    const char *name = kn_op_name((kn_op)n->op);
    if (strlen(name) != length || memcmp(name, op, length) || n->ntensor > *depth) continue;
    const term *args = stack + *depth - n->ntensor;
    bool turns = n->op == KN_OP_add || n->op == KN_OP_mul;
    if (!reads_all(m, n, args, n->ntensor, false) && !(turns && reads_all(m, n, args, n->ntensor, true)))
      continue;
    if (!take_attrs(m, n) || m->f->n == DN_PATTERN_NODES) return false;
    for (uint32_t k = 0; k < n->ntensor; k++) m->f->reads += n->in[k]->id == m->x;
    m->f->nodes[m->f->n++] = n;
    *depth -= n->ntensor;
    stack[(*depth)++] = (term){.v = n->out[0]};
    return true;
  }
  return false;
}

static bool is_number(const char *s) { return (*s >= '0' && *s <= '9') || *s == '-'; }

static bool follow(match *m, const kn_value *x, const char *text) {
  term stack[MOST_STACK];
  uint32_t depth = 0;
  while (*text) {
    size_t length = strcspn(text, " ");
    if (length == 1 && *text == 'x')
      stack[depth++] = (term){.v = x};
    else if (length == 1 && (*text == 'a' || *text == 'b'))
      stack[depth++] = (term){.name = *text};
    else if (is_number(text))
      stack[depth++] = (term){.number = strtod(text, NULL)};
    else if (!apply(m, text, length, stack, &depth))
      return false;
    text += length;
    text += *text == ' ';
  }
  return depth == 1;
}

/* Nobody else reads what is between. */
static bool alone(const kn_part *part, const dn_found *f, uint32_t x, bool shared) {
  if (part->reads[x] != f->reads && !shared) return false;
  for (uint32_t i = 0; i + 1 < f->n; i++) {
    uint32_t reads = 0, v = f->nodes[i]->out[0]->id;
    for (uint32_t k = 0; k < f->n; k++)
      for (uint32_t j = 0; j < f->nodes[k]->ntensor; j++) reads += f->nodes[k]->in[j]->id == v;
    if (part->reads[v] != reads) return false;
  }
  return true;
}

/* The value as some node reads it. */
static const kn_value *reader_of(const kn_node *const *next, uint32_t n, uint32_t v) {
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t k = 0; k < next[i]->ntensor; k++)
      if (next[i]->in[k]->id == v) return next[i]->in[k];
  return NULL;
}

bool dn_find_function(const kn_part *part, const kn_node *const *next, uint32_t n, uint32_t v, bool shared,
                      dn_found *f) {
  const kn_value *x = reader_of(next, n, v);
  if (!x) return false;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const row *r = &rows[i];
    match m = {.next = next, .n = n, .x = v, .f = f};
    *f = (dn_found){.post = {.kind = DN_POST_FUNCTION, .alg = r->alg, .name = r->name}};
    if (!follow(&m, x, r->text) || !alone(part, f, v, shared)) continue;
    const kn_type *to = &part->types[f->nodes[f->n - 1]->out[0]->id], *from = &part->types[v];
    if (!kn_type_equal(to, from)) continue;
    if (!strcmp(r->name, "hardswish") && (m.a != 0 || m.b != 6)) continue;
    f->post.alpha = r->first == 'a' ? (float)m.a : r->first == 'b' ? (float)m.b : r->alpha;
    f->post.beta = r->second == 'a' ? (float)m.a : r->second == 'b' ? (float)m.b : r->beta;
    return true;
  }
  return false;
}
