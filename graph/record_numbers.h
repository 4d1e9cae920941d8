/* What record.c's recorder has of kn_recorder (core/dispatch.h) for numbers; record_numbers.c. */
#ifndef KN_GRAPH_RECORD_NUMBERS_H
#define KN_GRAPH_RECORD_NUMBERS_H
#include "graph/record.h"

/* The place `at`, as a part of the composites w: kn_where_composite. */
const kn_where *kn_place_within(kn_builder *b, const kn_within *w, const kn_where *at);
kn_status kn_record_item(kn_recorder *base, kn_context *ctx, kn_tensor *t, kn_scalar *out);
kn_status kn_record_size(kn_recorder *base, kn_context *ctx, kn_tensor *t, int dim, kn_scalar *out);
kn_status kn_record_to_tensor(kn_recorder *base, kn_context *ctx, const kn_scalar *s, kn_dtype dtype,
                              kn_tensor **out);
kn_status kn_record_dynamic(kn_recorder *base, kn_context *ctx, const kn_scalar *s, int64_t *placeholder);
kn_status kn_record_expect(kn_recorder *base, kn_context *ctx, kn_tensor *t, int dim, int64_t wanted,
                           const char *sentence, kn_tensor *shown, kn_tensor *beside);
kn_status kn_record_position(kn_recorder *base, kn_context *ctx, const char *what, const kn_scalar *s,
                             bool last, kn_scalar *out);
kn_status kn_record_within(kn_recorder *base, kn_context *ctx, const kn_scalar *position, kn_tensor *part,
                           int dim, const char *name);

#endif
