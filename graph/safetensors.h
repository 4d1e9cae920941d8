/* The container of a .kiln file: a safetensors header (8 bytes of length, JSON) and the tensors' bytes behind
 * it. Everything is checked against the size of the input before it is used. */
#ifndef KN_SAFETENSORS_H
#define KN_SAFETENSORS_H
#include "core/tensor.h"
#include "graph/json.h"
#include "graph/mapping.h"

enum { KN_HEADER_MAX = 16 << 20 }; /* the format allows 100,000,000 */

typedef struct kn_st_tensor {
  kn_span name, dtype; /* dtype as written */
  int32_t rank;
  kn_type type;        /* sizes; dtype after kn_safetensors_check */
  uint64_t begin, end; /* in the data */
} kn_st_tensor;

typedef struct kn_st_meta {
  kn_span key, value;
  kn_span raw; /* the value as it stands in the header */
} kn_st_meta;

typedef struct kn_st_file {
  kn_arena arena; /* everything below */
  kn_map by_name, by_key;
  kn_st_tensor *tensors;
  uint32_t ntensors;
  kn_st_meta *meta;
  uint32_t nmeta;
  size_t data_at; /* where the data starts */
  uint64_t data_size;
} kn_st_file;

/* The header alone. `out` is to be freed in any case. Strings are decoded copies, raw ones point into
 * `bytes`. `kind` of file is what it is said not to be when it is none at all. */
kn_status kn_safetensors_read(kn_context *ctx, const void *bytes, size_t size, const char *kind,
                              kn_st_file *out);
/* Every tensor has a dtype known here, its bytes are where they should be: none missing, none shared, none
 * left. */
kn_status kn_safetensors_check(kn_context *ctx, kn_st_file *f);
/* Is the file, all of it, what its metadata's kiln.checksum says? */
kn_status kn_safetensors_check_sum(kn_context *ctx, const kn_st_file *f, const char *bytes, size_t size);
void kn_safetensors_free(kn_st_file *f);

kn_st_tensor *kn_safetensors_tensor(const kn_st_file *f, kn_span name);
const kn_st_meta *kn_safetensors_meta(const kn_st_file *f, const char *key);

/* ---- writing (safetensors_write.c) ---- */

/* The order of the data: larger elements first, so that all are aligned, then by name. */
bool kn_safetensors_before(const kn_type *a, kn_span name_a, const kn_type *b, kn_span name_b);
/* "name":{…} for a tensor whose data is next, at *at. */
void kn_safetensors_put(kn_writer *w, kn_span name, const kn_type *type, uint64_t *at);
/* Blanks after the header until the data is aligned; its length as the file begins with it. */
kn_status kn_safetensors_close_header(kn_context *ctx, kn_writer *w, unsigned char length[8]);
/* The checksum of a file of these pieces, in which KN_NO_SUM stands in its place; 16 digits. */
#define KN_NO_SUM "0000000000000000"
kn_status kn_safetensors_sum(kn_context *ctx, const kn_piece *pieces, size_t n, char *digits);
/* t, or a copy of it that is contiguous. */
kn_status kn_safetensors_dense(kn_context *ctx, kn_tensor *t, kn_tensor **out);

#endif
