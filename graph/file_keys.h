/* Keys in the metadata of a .kiln file, said once for writer and reader. */
#ifndef KN_FILE_KEYS_H
#define KN_FILE_KEYS_H
#include <stdbool.h>

#define KN_KEY_VERSION "kiln.version"   /* "1": the least of the format that says all of it */
#define KN_KEY_PRODUCER "kiln.producer" /* "kiln 0.1.0" */
#define KN_KEY_OPS                                                                                           \
  "kiln.ops" /* "add 1, if 1": ops and node kinds used, with the least version of their meaning that does    \
              */
#define KN_KEY_CHECKSUM "kiln.checksum"     /* CRC-64/XZ of the whole file with these 16 digits as 0 */
#define KN_KEY_CHECKPOINT "kiln.checkpoint" /* of checkpoints: "1" */
#define KN_KEY_RANDOM "kiln.random"         /* of checkpoints: "SEED COUNTER" */
#define KN_KEY_NOTE "kiln.note."            /* NAME: a text of whoever saved it */
#define KN_KEY_GRAPH "kiln.graph."          /* NAME: the text form */
#define KN_KEY_SLOTS "kiln.slots."   /* NAME: a JSON array, for each slot the tensor with its data, or null */
#define KN_KEY_ORIGIN "kiln.origin." /* NAME: "predict at net.lua:12" */
#define KN_KEY_VECTORS                                                                                       \
  "kiln.vectors." /* NAME: {"tolerance":"0.001","runs":[{"in":[tensors],"out":[tensors, or null]}]}; "" for  \
                     the tolerance that each dtype has */

enum { KN_ENTRY_NAME_MAX = 200 };
bool kn_entry_name(const char *name);

#endif
