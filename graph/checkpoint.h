/* What a session has become, as a plain safetensors file: every slot that its runs write, and its random
 * numbers. What the file holds is told in graph/README.md. */
#ifndef KN_CHECKPOINT_H
#define KN_CHECKPOINT_H
#include "graph/exec.h"

enum { KN_CHECKPOINT_VERSION = 1 };

/* Takes the place of `path` when it is whole. Not while a run is under way. */
kn_status kn_session_checkpoint(kn_session *s, const char *path);
/* All of the file is read and checked before anything of the session changes. VERSION where the file is of a
 * newer kiln, FORMAT where it is damaged or no checkpoint, ARG where it does not fit the graph: then the
 * sentence names every slot that is missing, of another type, or too many, as far as it has room. */
kn_status kn_session_restore(kn_session *s, const char *path);

#endif
