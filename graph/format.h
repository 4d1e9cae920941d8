/* Texts of nodes with values in them: print, write, write_error, warn, raise, assert. A text is as for Lua's
 * string.format: %s is a value as tostring gives it, %d %x %g … a number; beside these %w is a number as
 * io.write gives it, %% a percent sign, %z a zero byte. Texts from files are hostile until they were checked.
 */
#ifndef KN_FORMAT_H
#define KN_FORMAT_H
#include "graph/graph.h"
#include "graph/writer.h"

/* Which inputs of the node its text stands for: [first, nin). */
uint32_t kn_format_first(const kn_node *n);
/* Is the node's text one with values? Those of raise and assert are plain when no values are given. */
bool kn_format_used(const kn_node *n);
/* Does a text fit values of these types, one directive each? NULL, or why not (a static text). */
const char *kn_format_check(const char *text, kn_value *const *in, uint32_t n);
/* The text of a node that passed the check, with the values of a run. */
kn_status kn_format_node(kn_context *ctx, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars,
                         kn_writer *out);
/* A number or boolean as Lua's tostring. */
enum { KN_SCALAR_TEXT = 64 };
char *kn_scalar_text(const kn_scalar *s, char buf[KN_SCALAR_TEXT]);

#endif
