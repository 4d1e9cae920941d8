/* What the doors to bindings/io share: kiln.io is filled by readers.c, pictures.c and prefetcher.c. */
#ifndef KL_READERS_H
#define KL_READERS_H
#include "bindings/io/bytes.h"
#include "bindings/lua/options.h"
#include "bindings/lua/owned.h"

/* kl_check with "NAME: " before the sentence. */
void kl_checked(lua_State *L, kn_status st, const char *name);
/* An empty kn_bytes that the collector frees. */
kn_bytes *kl_push_bytes(lua_State *L);
/* A string, or a uint8 tensor that is contiguous: bytes that stay as long as the value does. */
const void *kl_check_bytes(lua_State *L, int idx, const char *name, size_t *n);
/* Into the table kiln.io, which is on top. */
void kl_open_pictures(lua_State *L);
void kl_open_prefetcher(lua_State *L); /* also kiln.prefetcher; the module is below */

#endif
