/* .npz files, NumPy's zip archives of .npy files: arrays by name. */
#ifndef KN_NPZ_H
#define KN_NPZ_H
#include "bindings/io/archives.h"
#include "core/tensor.h"

/* The next array of an archive that kn_archive_open has opened; *found false at the end. The name, without
 * its
 * ".npy", is valid until the next call. */
kn_status kn_npz_next(kn_context *ctx, kn_archive *a, kn_bytes *buffer, bool *found, const char **name,
                      size_t *length, kn_tensor **out);
kn_status kn_npz_add(kn_context *ctx, kn_zip *z, const char *name, kn_tensor *t);

#endif
