/* Rules as they are read from their text, and comparing them with nodes. For rewrite.c alone. */
#ifndef KN_RULE_H
#define KN_RULE_H
#include "graph/rewrite.h"

enum { KN_TERM_ARGS = 3, KN_TERMS = 16 };
typedef enum kn_term_kind {
  KN_TERM_VALUE,    /* i x y z */
  KN_TERM_CONSTANT, /* a b c */
  KN_TERM_NUMBER,
  KN_TERM_COMPUTED, /* left sign right, which are letters or numbers */
  KN_TERM_OP
} kn_term_kind;

typedef struct kn_term {
  kn_term_kind kind;
  char letter;      /* VALUE, CONSTANT; COMPUTED: on the left, 0: number */
  char sign, right; /* COMPUTED */
  double number, right_number;
  kn_opcode op;
  char attrs; /* capital; 0: has none */
  uint8_t n, args[KN_TERM_ARGS];
} kn_term;

typedef struct kn_compiled {
  const kn_rule *rule;
  kn_term terms[KN_TERMS];
  uint8_t nterms, to;       /* where the replacement begins; the pattern is at 0 */
  bool pointwise;           /* every letter for a value is on both sides, all ops of `to` are elementwise */
  struct kn_compiled *next; /* of those that begin with the same op */
} kn_compiled;

typedef struct kn_rules {
  kn_compiled *first[KN_OPCODE_COUNT];
  kn_compiled *all;
  uint32_t n;
  kn_heap *heap;
} kn_rules;

kn_status kn_rules_read(kn_rules *r, kn_builder *b, const kn_rule *rules);
void kn_rules_free(kn_rules *r);
/* m->node is set; fills the rest but what `where` does. */
bool kn_rule_matches(kn_match *m, const kn_compiled *c);
double kn_term_number(const kn_match *m, const kn_term *t); /* NUMBER, COMPUTED */
/* Are the numbers that `to` computes such that they can be? */
bool kn_rule_exact_numbers(const kn_match *m, const kn_compiled *c);

#endif
