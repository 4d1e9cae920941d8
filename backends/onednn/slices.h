/* Stretches of groups that compute a few images of the batch at a time, one after the other, so that what is
 * between them stays in the caches. The steps of the first slice are made as those of a whole batch are, for
 * fewer images; those of the others are the same on other buffers. */
#ifndef KN_ONEDNN_SLICES_H
#define KN_ONEDNN_SLICES_H
#include "backends/onednn/build.h"

/* Makes the steps of group `first` and, in slices or not, of those that go with it, up to `*end`. */
dnnl_status_t dn_build_stretch(dn_builder *b, uint32_t first, uint32_t *end, bool *refused);

/* A new buffer for all images, which lie as those of a slice do in `md`; gives the first slice of it. */
uint32_t dn_first_slice(dn_builder *b, dn_buffer whole, dn_md_ref md);
/* The first slice of a value that was made for all images before; DN_NO_BUFFER: it was not. */
uint32_t dn_slice_of_made(dn_builder *b, const kn_value *v);

#endif
