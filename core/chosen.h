/* Which ops have kernels in this build: KN_WITH(name) is 1 or 0. All of them, unless Meson's option `ops`
 * names some; others are then refused by name where they are met, in files and calls alike (core/dispatch.c).
 */
#ifndef KN_CHOSEN_H
#define KN_CHOSEN_H

#ifdef KN_CHOSEN_OPS
#include "core/chosen_ops.h" /* made by choose_ops.sh: a KN_WITH_name for each row of the op table */
#define KN_WITH(name) KN_WITH_##name
#else
#define KN_WITH(name) 1
#endif

/* For tables by op: what it has there, or NULL, so that the linker drops what nothing leads to. */
#define KN_IF_WITH(name, value) (KN_WITH(name) ? (value) : NULL)

#endif
