/* Texts of nodes with values in them: print, write, write_error, warn, raise, assert. A text is as for Lua's
 * string.format: %s is a value as tostring gives it, %d %x %g … a number; beside these %w is a number as
 * io.write gives it, %m the message of an error that was caught (graph/attempt.h), %% a percent sign, %z a
 * zero byte. Texts from files are hostile until they were checked.
 */
#ifndef KN_FORMAT_H
#define KN_FORMAT_H
#include "graph/attempt.h"
#include "graph/writer.h"

/* Which inputs of the node its text stands for: [first, nin). */
uint32_t kn_format_first(const kn_node *n);
/* Is the node's text one with values? Those of raise and assert are plain when no values are given. */
bool kn_format_used(const kn_node *n);
/* Does a text fit values of these types, one directive each? NULL, or why not (a static text). */
const char *kn_format_check(const char *text, kn_value *const *in, uint32_t n);
/* Of a KN_TREE_TEXT: are its fields values, and does its text fit them? */
const char *kn_format_check_tree(const kn_tree *t);
/* The text of a node that passed the check, with the values of a run. */
kn_status kn_format_node(kn_context *ctx, const kn_node *n, kn_tensor *const *vals, const kn_scalar *scalars,
                         const kn_caught *caught, kn_writer *out);
/* The same of any text that passed it. */
typedef struct kn_format_value {
  kn_tensor *tensor;
  kn_scalar scalar;
} kn_format_value;
typedef kn_format_value (*kn_format_fn)(const void *ud, uint32_t i); /* value i */
kn_status kn_format_text(kn_context *ctx, const char *text, kn_format_fn value, const void *ud,
                         const kn_caught *caught, kn_writer *out);
/* A number or boolean as Lua's tostring. */
enum { KN_SCALAR_TEXT = 64 };
char *kn_scalar_text(const kn_scalar *s, char buf[KN_SCALAR_TEXT]);

#endif
