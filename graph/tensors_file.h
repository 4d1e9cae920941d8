/* Plain safetensors files: tensors by name and some texts, to and from others. Graphs are in file.h; what the
 * container demands is in safetensors.h. */
#ifndef KN_TENSORS_FILE_H
#define KN_TENSORS_FILE_H
#include "graph/graph.h"
#include "graph/mapping.h"
#include "graph/safetensors.h"

typedef struct kn_tensors_file {
  kn_mapping *map;
  kn_st_file header; /* names, types and metadata: alive until it is closed */
} kn_tensors_file;

/* Maps the file and checks all of it that is not data. Nothing is to be closed when it fails. */
kn_status kn_tensors_open(kn_context *ctx, const char *path, kn_tensors_file *out);
/* A tensor of the file, borrowing the mapping; copied where its bytes are not aligned for its dtype. */
kn_status kn_tensors_get(kn_context *ctx, const kn_tensors_file *f, const kn_st_tensor *t, kn_tensor **out);
void kn_tensors_close(kn_tensors_file *f);

/* The same where the two are apart. */
kn_status kn_tensor_in_file(kn_context *ctx, kn_mapping *map, const kn_st_file *f, const kn_st_tensor *t,
                            kn_tensor **out);

/* Numbers in files are tensors of rank 0: int64, float64 or bool. Does a type hold what a value of kind k may
 * be; a tensor of a number (kn_scalar_read gives it back). */
bool kn_scalar_stored_as(kn_vkind k, const kn_type *t);
kn_status kn_scalar_store(kn_context *ctx, const kn_scalar *x, kn_tensor **out);

typedef struct kn_named_tensor {
  kn_span name;
  kn_tensor *tensor; /* with data, on the CPU */
} kn_named_tensor;

/* Writes a file that takes the place of `path` when it is whole. Larger elements first, then by name; names
 * differ from each other and are valid UTF-8 without zero bytes, as are keys and values of the metadata.
 * KN_NO_SUM under kiln.checksum becomes the checksum of the file. */
kn_status kn_tensors_save(kn_context *ctx, const char *path, const kn_named_tensor *tensors, uint32_t n,
                          const kn_st_meta *meta, uint32_t nmeta);

#endif
