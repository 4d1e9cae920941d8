/* Modes of pictures by name, for those who decode. */
#ifndef KL_PICTURES_H
#define KL_PICTURES_H
#include "bindings/io/image.h"
#include "bindings/lua/state.h"

#define KL_NAME(e, name, ...) " " name /* for the tables of modes, in messages */

kn_image_mode kl_check_mode(lua_State *L, const char *name, const char *mode); /* raises */

#endif
