/* Opening oneDNN. Only its headers are needed to build: linking it would cost every start of a program
 * about 2.5 ms, so it is opened when a context first needs it. */
#ifndef KN_ONEDNN_LIBRARY_H
#define KN_ONEDNN_LIBRARY_H
#include "backends/onednn/compat.h"
#include <stdbool.h>
#include <stddef.h>

/* False with the reason: not installed, another major version than the headers', a function missing. */
enum { DN_VERSION_TEXT = 40 };
bool dn_library_open(dn_library *l, char version[DN_VERSION_TEXT], char *why, size_t size);
void dn_library_close(dn_library *l);
/* A oneDNN status in words. */
const char *dn_status_text(dnnl_status_t s);

/* oneDNN takes its thread count from the OpenMP runtime of the calling thread, when a primitive is made and
 * when it runs; both must see the same count. Returns the count to restore (0: nothing to restore). */
int dn_threads_set(const dn_library *l, int threads);
void dn_threads_restore(const dn_library *l, int before);

#endif
