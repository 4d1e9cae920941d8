/* What the files of the C API share: how its handles stand for core's objects. Contexts and tensors are
 * core's own under another name; graphs and sessions carry what the flat view of arguments and results needs.
 */
#ifndef KILN_HANDLE_H
#define KILN_HANDLE_H
#include "bindings/c/kiln.h"
#include "core/arena.h"
#include "core/context.h"
#include "core/tensor.h"
#include "graph/file.h"

static inline kn_context *core_context(kiln_context *c) { return (kn_context *)c; }
static inline kn_tensor *core_tensor(const kiln_tensor *t) { return (kn_tensor *)(uintptr_t)t; }

/* One input or output as C sees it. */
typedef struct kiln_leaf {
  const char *name, *label;
  const kn_value *value; /* NULL: a constant */
  const kn_tree *tree;   /* outputs: the constant or the value's place; NULL: none */
  uint32_t index;        /* of the value, in the body's parameters or yields */
} kiln_leaf;

struct kiln_graph {
  atomic_int refs;
  kn_heap *heap;   /* retained */
  kn_graph *graph; /* retained */
  kn_arena arena;  /* names and lists */
  kiln_leaf *in, *out;
  uint32_t nin, nout;
  kn_vectors *vectors; /* those of its file; NULL: none */
  kn_notes *notes;     /* its file's; NULL: none */
};

/* Statuses have the same numbers on both sides: asserted in context.c. */
static inline kiln_status outside(kn_status s) { return (kiln_status)s; }
/* Copies a struct that begins with its size, as much of it as the caller knows. */
void kiln_give(void *out, size_t out_size, void *filled, size_t size);
/* KILN_DTYPE when this version has no such dtype. */
kn_status kiln_core_dtype(kn_context *ctx, kiln_dtype d, kn_dtype *out);
kiln_dtype kiln_outside_dtype(kn_dtype d);
/* The flat lists of a graph. */
kn_status kiln_graph_wrap(kn_context *ctx, kn_graph *g, kiln_graph **out);
/* The same with what its file says of it. */
kn_status kiln_graph_of_entry(kn_context *ctx, const kn_entry *e, kiln_graph **out);

#endif
