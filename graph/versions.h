/* What files say of versions: of the format, and of each op and node kind that is used. A file is written
 * with the lowest versions that say all of it, so that older readers take what uses nothing new; a reader
 * refuses versions above its own and reads lower ones by what is told here. The table is in versions.c. */
#ifndef KN_VERSIONS_H
#define KN_VERSIONS_H
#include "graph/graph.h"

/* An op node as a file has it: what is needed to make it. */
typedef struct kn_old_node {
  kn_opcode op;
  const kn_attrs_any *attrs; /* of ops */
  kn_value *const *in;
  uint32_t nin;
  kn_value *const *dyn; /* numbers that stand in attrs */
  uint32_t ndyn;
} kn_old_node;

/* A version above 1 of an op or node kind. Rows of one op stand in the order of their versions. */
typedef struct kn_op_version {
  kn_opcode op;
  unsigned version;
  const char *what;               /* it brought */
  bool (*used)(const kn_node *n); /* does the node say what only this version says? */
  /* Of nodes in files of lower versions; NULL: as now. */
  const char *was;                 /* its name in them */
  void (*unsaid)(kn_attrs_any *a); /* what attributes were that are not written */
  /* Makes what an op, or a node kind that takes values alone, meant, by ops of now; gives the last node. Of
   * several rows that of the lowest version above the file's is asked. */
  kn_node *(*upgrade)(kn_builder *b, const kn_old_node *n);
} kn_op_version;

typedef struct kn_dialect {
  unsigned format;                       /* the newest that is known */
  unsigned (*needed)(const kn_graph *g); /* the lowest that says all of the graph; NULL: 1 */
  const kn_op_version *rows;
  uint32_t nrows;
} kn_dialect;
extern const kn_dialect kn_dialect_now; /* what this kiln speaks */

/* The newest version of an op. */
unsigned kn_version_newest(const kn_dialect *d, kn_opcode op);
/* The lowest that says the node. */
unsigned kn_version_needed(const kn_dialect *d, const kn_node *n);
/* An op by the name that it has, or had in a version below some row's. */
bool kn_version_parse(const kn_dialect *d, const char *text, size_t n, kn_opcode *out);

/* The versions that a file was written with, for the parser. */
typedef struct kn_versions {
  const kn_dialect *dialect;
  unsigned of[KN_OPCODE_COUNT]; /* 0: the file does not list it */
} kn_versions;
/* Sets what was meant by attributes that are not written; false where that has not changed. */
bool kn_version_unsaid(const kn_versions *v, kn_opcode op, kn_attrs_any *a);
/* The row whose `upgrade` nodes of the op go through; NULL: none. */
const kn_op_version *kn_version_upgrade(const kn_versions *v, kn_opcode op);
/* kn_graph_parse of a text of these versions; NULL: those of now. */
kn_status kn_graph_parse_as(kn_context *ctx, const char *text, size_t len, const kn_versions *versions,
                            kn_graph **out);

#endif
