/* Is a field that a line reads only ever called there? Then a name that is not there is a mistake; elsewhere
 * it is nil, as in Lua. Off the bytecode alone. */
#ifndef KC_READS_H
#define KC_READS_H
#include "lua/capture/bytecode.h"

/* Some instruction of the line reads a field of this name, and what they read is surely called. */
bool kc_only_called(const kc_proto *p, int line, const char *name, size_t n);

#endif
