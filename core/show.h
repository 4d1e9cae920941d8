/* A tensor as text, as tostring and print show it: elements in nested braces, then the type. Makes no memory
 * of its own; the text goes out piece by piece. */
#ifndef KN_SHOW_H
#define KN_SHOW_H
#include "core/context.h"
#include "core/tensor.h"

enum { KN_SHOW_PRECISION = 30 }; /* most digits after the point */
extern const kn_print_options kn_print_usual;

/* Takes a piece of the text; may leave by a long jump. */
typedef void (*kn_text_fn)(void *ud, const char *text, size_t n);
/* The elements, reading only those it shows, a line end, and the type. `t` has its data on the host; those of
 * another device are shown by what kn_to_host gave, with the device they are of. */
void kn_show_tensor(const kn_tensor *t, kn_device_id of, const kn_print_options *how, kn_text_fn fn,
                    void *ud);

#endif
