/* What C owns while Lua may raise: a block in a userdata, given back when the collector (or the caller) says.
 */
#ifndef KL_OWNED_H
#define KL_OWNED_H
#include "bindings/lua/state.h"

/* Pushes `size` zeroed bytes; `give_back` is called on them once, at the latest when they are collected. It
 * must do with zeros, and with a Lua state that is closing: it may use no context. */
void *kl_push_owned(lua_State *L, size_t size, void (*give_back)(void *block));
void kl_give_back(lua_State *L, int idx); /* at once */

#endif
