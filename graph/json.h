/* The little JSON that a safetensors header needs: objects, arrays, strings, whole numbers. Strict: no
 * duplicate keys (the caller checks), valid UTF-8, no zero bytes, numbers without sign, fraction or exponent.
 */
#ifndef KN_JSON_H
#define KN_JSON_H
#include "core/arena.h"
#include "graph/map.h"
#include "graph/writer.h"

typedef struct kn_json {
  kn_context *ctx;
  kn_arena *arena; /* decoded strings */
  const char *text, *p, *end;
  kn_status status; /* the first failure; all calls do nothing after it */
} kn_json;

bool kn_json_fail(kn_json *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool kn_json_expect(kn_json *j, char c);
bool kn_json_accept(kn_json *j, char c);
/* A string, decoded, ended by a zero. `raw` (may be NULL): where it stands in the text, without the quotes.
 */
bool kn_json_string(kn_json *j, kn_span *out, kn_span *raw);
bool kn_json_whole(kn_json *j, uint64_t *out);
bool kn_json_end(kn_json *j); /* only blanks are left */

void kn_put_json(kn_writer *s, const char *text, size_t n); /* as a string in quotes; text is valid UTF-8 */

#endif
