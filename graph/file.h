/* The .kiln file: a valid safetensors file. Slot tensors are its tensors; the text IR and the records are
 * strings in __metadata__. Loading runs no code, maps the file, and checks every length, offset, checksum and
 * version before use. Files are untrusted. */
#ifndef KN_FILE_H
#define KN_FILE_H
#include "core/device.h"
#include "graph/graph.h"

enum { KN_FILE_VERSION = 1 };

typedef struct kn_entry { /* one named graph in a file */
  const char *name;
  kn_graph *graph;
} kn_entry;

/* Atomic: a temporary file in the same folder, then rename. Graphs share tensors by identity. Every tensor
 * slot needs its tensor (STATE where there is none). */
kn_status kn_file_save(kn_context *ctx, const char *path, const kn_entry *entries, uint32_t n);
/* Entries are owned by the caller: kn_file_free_entries. Tensors borrow the mapping, which lives until the
 * last is gone, or are copies on their device. All is on the device *on; NULL: as it was saved. */
kn_status kn_file_load(kn_context *ctx, const char *path, const kn_device_id *on, kn_entry **entries,
                       uint32_t *n);
/* From memory, as it was saved: copied when release is NULL, else taken over, also on failure: release is
 * called when the last tensor is gone, or at once. */
kn_status kn_file_load_memory(kn_context *ctx, const void *data, size_t size, kn_release_fn release, void *ud,
                              kn_entry **entries, uint32_t *n);
void kn_file_free_entries(kn_heap *h, kn_entry *entries, uint32_t n);

#endif
