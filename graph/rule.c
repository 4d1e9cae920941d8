/* Rules of rewriting, read from their text, and compared with nodes: see rewrite.h. */
#include "graph/rule.h"
#include "graph/internal.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

typedef struct reader {
  kn_compiled *c;
  const char *at;
  bool wrong;
} reader;

static bool is_constant_letter(char c) { return c >= 'a' && c <= 'c'; }
static bool is_letter(const char *s) {
  return islower((unsigned char)*s) && !isalnum((unsigned char)s[1]) && s[1] != '_' && s[1] != '.';
}

static void skip(reader *r) { r->at += strspn(r->at, " "); }

static bool take(reader *r, char c) {
  skip(r);
  if (*r->at != c) return false;
  r->at++;
  return true;
}

/* A letter for a constant, or a number. */
static char read_operand(reader *r, double *number) {
  skip(r);
  if (is_letter(r->at) && is_constant_letter(*r->at)) return *r->at++;
  char *end;
  *number = strtod(r->at, &end);
  r->wrong |= end == r->at;
  r->at = end;
  return 0;
}

static uint8_t read_term(reader *r);

static void read_op(reader *r, kn_term *t) {
  size_t n = strcspn(r->at, "( ,)");
  t->kind = KN_TERM_OP;
  r->wrong |= !kn_opcode_parse(r->at, n, &t->op);
  r->at += n;
  r->wrong |= !take(r, '(');
  do {
    skip(r);
    if (isupper((unsigned char)*r->at))
      t->attrs = *r->at++;
    else if (t->n == KN_TERM_ARGS)
      r->wrong = true;
    else {
      uint8_t arg = read_term(r);
      t->args[t->n++] = arg;
    }
  } while (!r->wrong && take(r, ','));
  r->wrong |= !take(r, ')');
}

static uint8_t read_term(reader *r) {
  uint8_t index = r->c->nterms++;
  if (r->c->nterms >= KN_TERMS) return r->wrong = true, 0;
  kn_term *t = &r->c->terms[index];
  skip(r);
  if (is_letter(r->at) && !is_constant_letter(*r->at)) {
    t->kind = KN_TERM_VALUE;
    t->letter = *r->at++;
    return index;
  }
  if (islower((unsigned char)*r->at) && !is_letter(r->at)) return read_op(r, t), index;
  t->letter = read_operand(r, &t->number);
  t->kind = t->letter ? KN_TERM_CONSTANT : KN_TERM_NUMBER;
  if (*r->at == '*' || *r->at == '/' || *r->at == '+') {
    t->kind = KN_TERM_COMPUTED;
    t->sign = *r->at++;
    t->right = read_operand(r, &t->right_number);
  }
  return index;
}

static bool is_elementwise(kn_opcode op) {
  return kn_opcode_is_op(op) && kn_ops[op].op_class == KN_CLASS_ELEMENTWISE;
}

/* Letters for values in the terms, as bits; whether all ops are elementwise. */
static uint32_t letters(const kn_compiled *c, uint32_t from, uint32_t end, bool *elementwise) {
  uint32_t bits = 0;
  *elementwise = true;
  for (uint32_t i = from; i < end; i++) {
    const kn_term *t = &c->terms[i];
    if (t->kind == KN_TERM_VALUE) bits |= 1u << KN_LETTER(t->letter);
    if (t->kind == KN_TERM_OP) *elementwise &= is_elementwise(t->op) || t->op == KN_OP_full_like;
  }
  return bits;
}

static bool read_rule(kn_compiled *c, const kn_rule *rule) {
  reader r = {.c = c, .at = rule->from};
  bool a, b;
  c->rule = rule;
  read_term(&r);
  r.wrong |= *r.at || c->terms[0].kind != KN_TERM_OP;
  r.at = rule->to;
  if (!r.wrong) c->to = read_term(&r);
  if (r.wrong || *r.at) return false;
  c->pointwise = letters(c, 0, c->to, &a) == letters(c, c->to, c->nterms, &b) && a && b;
  return true;
}

kn_status kn_rules_read(kn_rules *r, kn_builder *b, const kn_rule *rules) {
  *r = (kn_rules){.heap = b->ctx->heap};
  while (rules[r->n].from) r->n++;
  r->all = kn_calloc(r->heap, r->n, sizeof *r->all);
  if (!r->all) return kn_fail_nomem(b->ctx, r->n * sizeof *r->all);
  for (uint32_t i = 0; i < r->n; i++) {
    kn_compiled *c = &r->all[i];
    if (!read_rule(c, &rules[i]))
      return kn_fail(b->ctx, KN_INTERNAL, "the rule \"%s\" -> \"%s\" cannot be read", rules[i].from,
                     rules[i].to);
    kn_compiled **end = &r->first[c->terms[0].op];
    while (*end) end = &(*end)->next;
    *end = c;
  }
  return KN_OK;
}

void kn_rules_free(kn_rules *r) {
  if (r->all) kn_free(r->heap, r->all, r->n * sizeof *r->all);
}

/* ---- comparing ---- */

static bool number_of(const kn_scalar *s, double *out) {
  if (s->kind == KN_SCALAR_INT) *out = (double)s->as.i;
  if (s->kind == KN_SCALAR_FLOAT) *out = s->as.f;
  return s->kind == KN_SCALAR_FLOAT || (s->kind == KN_SCALAR_INT && *out < 0x1p53 && *out > -0x1p53);
}

/* A number, or a tensor of one number. */
static bool constant_of(const kn_value *v, double *out) {
  const kn_node *d = v->def;
  if (!d) return false;
  if (d->op == KN_NODE_const) return number_of(&d->scalar, out);
  if (d->op == KN_NODE_to_tensor)
    return d->in[0]->def && d->in[0]->def->op == KN_NODE_const && number_of(&d->in[0]->def->scalar, out);
  if (d->op != KN_OP_full_like) return false;
  *out = ((const kn_attrs_value *)d->attrs)->value;
  return true;
}

static bool same_number(double a, double b) { return a == b && signbit(a) == signbit(b); }

static bool matches(kn_match *m, const kn_compiled *c, uint32_t at, kn_value *v);

static bool matches_op(kn_match *m, const kn_compiled *c, const kn_term *t, const kn_node *n) {
  if (!n || n->op != t->op || n->nout != 1 || m->nnodes == KN_MATCH_NODES) return false;
  bool op = kn_opcode_is_op(n->op);
  if ((op ? n->ntensor : n->nin) != t->n) return false;
  if (op && !t->attrs && kn_ops[n->op].attrs != KN_ATTRS_none) return false;
  if (t->attrs) m->attrs[KN_LETTER(t->attrs)] = n;
  m->nodes[m->nnodes++] = n;
  for (uint32_t i = 0; i < t->n; i++)
    if (!matches(m, c, t->args[i], n->in[i])) return false;
  return true;
}

static bool matches(kn_match *m, const kn_compiled *c, uint32_t at, kn_value *v) {
  const kn_term *t = &c->terms[at];
  double number = 0;
  if (t->kind == KN_TERM_OP) return matches_op(m, c, t, v->def);
  if (t->kind != KN_TERM_VALUE && !constant_of(v, &number)) return false;
  if (t->kind == KN_TERM_NUMBER) {
    if (v->type.kind == KN_V_TENSOR && v->type.tensor.rank) m->wide = v;
    return same_number(number, t->number);
  }
  kn_value **have = &m->value[KN_LETTER(t->letter)];
  if (*have && *have != v) return false;
  *have = v;
  m->number[KN_LETTER(t->letter)] = number;
  return true;
}

bool kn_rule_matches(kn_match *m, const kn_compiled *c) { return matches_op(m, c, &c->terms[0], m->node); }

/* ---- numbers that are computed ---- */

double kn_term_number(const kn_match *m, const kn_term *t) {
  if (t->kind == KN_TERM_NUMBER) return t->number;
  double x = t->letter ? m->number[KN_LETTER(t->letter)] : t->number;
  double y = t->right ? m->number[KN_LETTER(t->right)] : t->right_number;
  return t->sign == '*' ? x * y : t->sign == '/' ? x / y : x + y;
}

bool kn_rule_exact_numbers(const kn_match *m, const kn_compiled *c) {
  bool computes = false, whole = !kn_dtype_is_float((kn_dtype)m->node->out[0]->type.tensor.dtype);
  for (uint32_t i = c->to; i < c->nterms; i++)
    if (c->terms[i].kind == KN_TERM_COMPUTED) {
      double x = kn_term_number(m, &c->terms[i]);
      computes = true;
      if (!isfinite(x) || x == 0) return false;
    }
  return !computes || !whole;
}
