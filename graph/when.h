/* Values at the end of a loop's body: what they may be when the flag that says "go on" is known. Where the
 * branch that goes on yields a value, and the other one none, the next trip has one. */
#ifndef KN_WHEN_H
#define KN_WHEN_H
#include "graph/graph.h"

typedef bool (*kn_when_fn)(void *ud, const kn_value *v);

/* Asks fn of each value that v may be when the boolean `flag` is `truth`, until it says true, and gives that.
 * Both are seen where one region ends. What is not understood is v itself. */
bool kn_any_when(const kn_value *v, const kn_value *flag, bool truth, kn_when_fn fn, void *ud);

#endif
