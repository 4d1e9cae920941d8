/* .npy files, NumPy's format for one array: reading and writing, format versions 1.0 to 3.0. Files are
 * untrusted: every length is checked against the bytes that are there, nothing in a file is executed, and
 * what is not plain numbers (Python objects, records) is refused by name. */
#ifndef KN_NPY_H
#define KN_NPY_H
#include "core/tensor.h"

typedef struct kn_npy {
  kn_type type;  /* sizes as in the file */
  bool swapped;  /* not in this machine's byte order */
  bool fortran;  /* first dimension fastest */
  size_t offset; /* of the elements, from the start of the file */
  size_t bytes;  /* of the elements: just what the file has left */
} kn_npy;

/* Reads the header of a whole file in memory. False with a sentence. */
bool kn_npy_parse(const void *file, size_t size, kn_npy *out, char *why, size_t why_size);
/* The elements, row-major, in this machine's byte order: out has room for h->bytes. */
void kn_npy_elements(const kn_npy *h, const void *file, void *out);
/* The header of a row-major array of this type (sizes known): written to buf, its length returned. 0 for a
 * dtype that the format has no name for (bfloat16). */
enum { KN_NPY_HEADER = 512 };
size_t kn_npy_header(const kn_type *type, char buf[KN_NPY_HEADER]);

/* Files to tensors and back (npy_file.c). */
kn_status kn_npy_decode(kn_context *ctx, const void *bytes, size_t n, kn_tensor **out); /* a file in memory */
kn_status kn_npy_dense(kn_context *ctx, kn_tensor *t,
                       kn_tensor **out); /* t, or a copy that is contiguous, on the host */
kn_status kn_npy_read(kn_context *ctx, const char *path, kn_tensor **out);
kn_status kn_npy_write(kn_context *ctx, const char *path, kn_tensor *t);

#endif
