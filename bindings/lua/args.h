/* Reads an op's arguments from the Lua stack as its row of the op table and its attribute fields say: tensors
 * and numbers first, then the fields in order, then a table of options by field name. Nothing here raises. */
#ifndef KL_ARGS_H
#define KL_ARGS_H
#include "bindings/lua/state.h"

typedef struct kl_args {
  lua_State *L;
  kn_context *ctx;
  kn_op op;
  const kn_op_info *row;
  kn_attrs_info info;
  const char *name; /* the op as written by the user, for messages: "add_" */
  int next, top;    /* next argument on the stack, last one that is not the options table */
  int options;      /* where that is; 0: none */
  uint32_t given;   /* bit per field that has got its value */
  int n, nowned;
  kn_tensor *in[KN_MAX_INPUTS];    /* borrowed: from the stack or from `owned` */
  kn_tensor *owned[KN_MAX_INPUTS]; /* made of numbers */
  kn_attrs_any attrs;
  /* Options of ops that make tensors. */
  bool makes, requires_grad, cast, moves;
  kn_dtype dtype;      /* with `cast`: for makers without a dtype field */
  kn_device_id device; /* with `moves`: without a device field */
} kl_args;

/* Arguments at [first, top]. On failure nothing is owed. */
kn_status kl_args_read(kl_args *a, lua_State *L, kn_context *ctx, kn_op op, const char *name, int first,
                       int top);
void kl_args_done(kl_args *a); /* releases what was made of numbers */

/* The same in pieces, for ops whose positional arguments are special. */
void kl_args_open(kl_args *a, lua_State *L, kn_context *ctx, kn_op op, const char *name, int first, int top);
kn_status kl_args_inputs(kl_args *a);
kn_status kl_args_field(kl_args *a, const char *field, int idx); /* the value at idx is that field's */
kn_status kl_args_fields(kl_args *a);                            /* the positional fields that are left */
kn_status kl_args_options(kl_args *a); /* the options table; then what is missing is an error */

/* Applies what was read, options of makers included; out as kn_apply. */
kn_status kl_args_apply(kl_args *a, bool inplace, kn_tensor **out);
/* *t, which is owned, on that device: replaced where it was elsewhere, and released on failure. */
kn_status kl_move(kn_context *ctx, kn_device_id device, kn_tensor **t);

/* How a Lua integer becomes an attribute. */
typedef enum kl_rule {
  KL_PLAIN,    /* as it is */
  KL_POSITION, /* 1-based to 0-based, negative counts from the end */
  KL_LAST      /* inclusive end to exclusive stop */
} kl_rule;
/* `what` names it in messages: "select: index". Symbols are accepted when `dynamic`, as placeholders. */
kn_status kl_read_int(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
                      kl_rule rule, bool dynamic, int64_t *out);
/* A known number, or a boolean as 0 or 1. */
kn_status kl_read_number(lua_State *L, kn_context *ctx, int idx, const char *name, const char *what,
                         double *out);
kn_status kl_read_dtype(lua_State *L, kn_context *ctx, int idx, const char *name, kn_dtype *out);
kn_status kl_read_device(lua_State *L, kn_context *ctx, int idx, const char *name, kn_device_id *out);

/* ---- between args_fields.c and args.c ---- */

kn_status kl_args_wrong(kn_context *ctx, const char *name, const char *what, const char *wanted, lua_State *L,
                        int idx); /* "NAME: WHAT must be WANTED, got …" */
const kn_field *kl_args_find(const kl_args *a, const char *name);
kn_status kl_args_put(kl_args *a, const kn_field *f, int idx); /* the value at idx into the field */
bool kl_args_integer_like(lua_State *L, int idx);              /* a number, maybe of a graph */

#endif
