/* The text form: prints and parses back to the same graph; it is what the file stores and what test cases are
 * written in. Dimensions and index attributes are 1-based in text. The whole grammar is in graph/README.md.
 *
 *   graph predict(%x: float32[N,1,8,8], {scale = %s: float}) {
 *     slot param "net.fc1.weight": float32[64,32]
 *     %fc1.weight = param "net.fc1.weight"
 *     %h: float32[N,32] = matmul %flat, %fc1.weight         ; digits.lua:31
 *     %p: float32[N] = sum %h {dim = {2}}                   ; digits.lua:32 <- digits.lua:80
 *     %c: boolean = item %q                                 ; digits.lua:33
 *     %y: float32[N,10] = if %c { … yield %a } else { … yield %b }
 *     %z: float32[N,10], %n: integer = loop (%t: float32[N,10] = %y, %i: integer = %zero) {
 *       … continue_if %more next(%t2, %i2) exit(%t2, %i2)
 *     }
 *     return %z, {label = "deep", count = %n}
 *   } */
#ifndef KN_TEXT_H
#define KN_TEXT_H
#include "graph/graph.h"

/* FULL is what the file stores. BRIEF is for people: guards are only counted, and places inside kiln's own
 * Lua library are left out; it parses back, too, less what it leaves out. */
typedef enum kn_text_form { KN_TEXT_FULL, KN_TEXT_BRIEF } kn_text_form;
/* Owned by the caller: kn_free(heap, text, len + 1). */
kn_status kn_graph_print(kn_context *ctx, const kn_graph *g, kn_text_form form, char **text, size_t *len);
/* A listing for people, as Lua would say it: see code.c. Owned by the caller as well. */
kn_status kn_graph_code(kn_context *ctx, const kn_graph *g, char **text, size_t *len);
/* Parses, verifies and finishes. Slots have no data (see kn_slot.tensor) unless written inline. FORMAT with
 * "line:column: sentence" on bad input; depth, counts and lengths are bounded. Never reads past len. */
kn_status kn_graph_parse(kn_context *ctx, const char *text, size_t len, kn_graph **out);
/* One node as text without its regions, for logs: "%h: float32[2,32] = matmul %x, %w". */
char *kn_node_text(const kn_node *n, char *buf, size_t size);
/* "digits.lua:31 <- digits.lua:80", "" when unknown. */
char *kn_where_text(const kn_where *w, char *buf, size_t size);
/* The innermost place that is the user's: not in kiln's own Lua library, whose chunks are named "kiln/…". w
 * itself when there is none. */
const kn_where *kn_where_user(const kn_where *w);
/* "kiln/softmax()": a composite that the node is a part of; errors of the node begin with its name. */
bool kn_where_composite(const kn_where *w);
/* kn_where_text of the user's places only. */
char *kn_where_brief(const kn_where *w, char *buf, size_t size);

#endif
