/* Attributes of an op node as text: see attrs_text.c. */
#ifndef KN_ATTRS_TEXT_H
#define KN_ATTRS_TEXT_H
#include "graph/graph.h"
#include "graph/writer.h"

typedef void (*kn_put_value_fn)(void *ud, const kn_value *v);
/* "{dim = {2}, keepdim = true}" with `open` for the opening brace and what stands before it; nothing, and
 * false, when all are as by default. Values that stand for numbers are written by `put`. */
bool kn_put_attrs(kn_writer *s, const kn_node *n, const char *open, kn_put_value_fn put, void *ud);

#endif
