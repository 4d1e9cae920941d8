/* The library written in Lua, embedded: what the generator (lua/kiln/embed.c) writes. */
#ifndef KL_FILES_H
#define KL_FILES_H
#include <stddef.h>

typedef struct kl_file {
  const char *module; /* "kiln.nn.functional" */
  const char *chunk;  /* "=kiln/nn/functional.lua" */
  const char *data;
  size_t size;
} kl_file;

extern const kl_file kl_files[]; /* ended by a NULL module */

#endif
