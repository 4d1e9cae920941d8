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
/* The elements, reading only those it shows (the tensor has data), a line end, and the type. */
void kn_show_tensor(const kn_tensor *t, const kn_print_options *how, kn_text_fn fn, void *ud);

#endif
