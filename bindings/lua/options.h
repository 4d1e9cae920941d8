/* A trailing table of options of a function that is no op: each row names one and where its value goes. */
#ifndef KL_OPTIONS_H
#define KL_OPTIONS_H
#include "bindings/lua/state.h"

typedef enum kl_option_kind {
  KL_OPTION_INT,   /* int64_t, at least `least` */
  KL_OPTION_BOOL,  /* bool */
  KL_OPTION_DTYPE, /* kn_dtype */
  KL_OPTION_TEXT,  /* const char *, alive as long as the table */
  KL_OPTION_SIZES  /* kn_type: dims and rank of a list of sizes */
} kl_option_kind;

typedef struct kl_option {
  const char *name;
  kl_option_kind kind;
  void *at;
  int64_t least; /* of an INT */
} kl_option;

/* Reads the table at idx (nothing or nil: no options); `what` names the function in messages. Raises. Rows
 * end with a NULL name. Returns a bit per row that was given. */
unsigned kl_read_options(lua_State *L, int idx, const char *what, const kl_option *rows);

#endif
