/* The .kiln file: a valid safetensors file. Slot tensors are its tensors; the text IR and the records are
 * strings in __metadata__. Loading runs no code, maps the file, and checks every length, offset, checksum and
 * version before use. Files are untrusted. */
#ifndef KN_FILE_H
#define KN_FILE_H
#include "core/device.h"
#include "graph/vectors.h"
#include "graph/versions.h"

enum { KN_FILE_VERSION = 1 };

/* What whoever saved a file had to say, by names. */
typedef struct kn_note {
  const char *name, *text;
} kn_note;
typedef struct kn_notes {
  atomic_int refs;
  kn_arena arena; /* all of it */
  kn_note *list;
  uint32_t n;
} kn_notes;
kn_status kn_notes_new(kn_context *ctx, kn_notes **out); /* none yet */
/* Copies both. ARG where the name is taken, or one of them cannot stand in a file (UTF-8 without zero bytes;
 * names of 1 to KN_ENTRY_NAME_MAX bytes). */
kn_status kn_notes_add(kn_context *ctx, kn_notes *notes, const char *name, const char *text);
const char *kn_notes_find(const kn_notes *notes, const char *name); /* NULL: none; notes may be NULL */
kn_notes *kn_notes_retain(kn_notes *notes);
void kn_notes_release(kn_notes *notes); /* NULL is fine */

typedef struct kn_entry { /* one named graph in a file */
  const char *name;
  kn_graph *graph;
  kn_vectors *vectors; /* NULL: none */
  const char *origin;  /* what it was made of, "predict at net.lua:12"; NULL: not known */
  kn_notes *notes;     /* the file's, the same of all its entries; NULL: none */
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

/* As it was saved, but that all tensors stay on the host, whatever their slots' types say: to be looked at
 * and saved. */
kn_status kn_file_load_host(kn_context *ctx, const char *path, kn_entry **entries, uint32_t *n);

/* Both as by a kiln that speaks another dialect. */
kn_status kn_file_save_as(kn_context *ctx, const char *path, const kn_dialect *d, const kn_entry *entries,
                          uint32_t n);
kn_status kn_file_load_as(kn_context *ctx, const char *path, const kn_dialect *d, kn_entry **entries,
                          uint32_t *n);

/* What the file says of itself, as lines of text: versions, producer, ops, origins, notes, bytes. Its
 * checksum is checked, its graphs are not read; files of newer versions are described, too. Owned by the
 * caller: kn_free(heap, text, len + 1). */
kn_status kn_file_describe(kn_context *ctx, const char *path, char **text, size_t *len);
/* Loads `from` and saves it as of now, with the same bytes in its tensors, which stay on the host for it.
 * What is in its metadata beside what kiln knows is left out. */
kn_status kn_file_upgrade(kn_context *ctx, const char *from, const char *to);

#endif
