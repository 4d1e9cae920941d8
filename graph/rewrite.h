/* Rewriting: rules written as text, `mul(x, 1)` that becomes `x`, tried on every node of a graph. The rules
 * are passes/simplify.c's; here is what holds for all of them: a rule is applied only where the result surely
 * has the sizes and dtype it had, lies in memory as it did where that may matter, where nothing is lost that
 * could raise, no handle that somebody sees, no gradient. */
#ifndef KN_REWRITE_H
#define KN_REWRITE_H
#include "graph/folding.h"
#include "graph/passes/care.h"

/* In `from` and `to`:  op(x, y, A)  the op (or node kind) on these, with attributes A;
 *   i x y z  a value, the same one wherever the letter stands;   a b c  a constant number
 *   A B      attributes as they are found; in `to` also Z, which `where` makes
 *   1 0 -0 0.5   this number (0 is not -0), as an integer or float;   in `to` also  1/a  a*b  a+b */
typedef struct kn_match kn_match;
typedef struct kn_rule {
  const char *from, *to;
  bool (*where)(kn_match *m); /* what else must be; NULL: nothing */
} kn_rule;

enum { KN_MATCH_NODES = 8 };
struct kn_match {
  const kn_node *node; /* that may be replaced */
  kn_value *value[26]; /* by letter; of a, b, c the constant */
  double number[26];
  const kn_value *wide;     /* a literal that is a tensor with dims */
  const kn_node *attrs[26]; /* by capital: the node that has them */
  kn_attrs_any made;        /* Z */
  bool same_sizes;          /* by `where`: the replacement has the node's sizes, whatever these are */
  bool same_lie;            /* and its strides */
  const kn_node *nodes[KN_MATCH_NODES]; /* all that match, `node` first */
  uint32_t nnodes;
};
#define KN_LETTER(c) ((c) - ((c) >= 'a' ? 'a' : 'A'))

/* Rules end with a NULL `from`. `freely`: what gradients add up to may be rounded otherwise. */
kn_status kn_rewrite(kn_builder *b, const kn_rule *rules, bool freely, uint32_t *changes);
/* The same as folds, one for a node: find and make of a kn_folding. */
kn_status kn_rewrite_find(kn_builder *b, const kn_rule *rules, kn_fold **list, uint32_t *n);
bool kn_rewrite_make(kn_builder *b, const kn_fold *f, kn_value **to);
/* Does the tensor surely lie in order? */
bool kn_rewrite_in_order(const kn_value *v);

#endif
