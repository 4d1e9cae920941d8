/* Status values: what a fallible call answers. The sentence that explains a failure is in the context
 * (kn_error). On failure nothing is owed and out-parameters are untouched.
 * The values equal kiln.h's by static assertion in bindings/c; append, never renumber. */
#ifndef KN_STATUS_H
#define KN_STATUS_H

#define KN_STATUSES(X)                                                                                       \
  X(OK, 0, "ok")                                                                                             \
  X(NOMEM, 1, "out of memory")                                                                               \
  X(ARG, 2, "invalid argument")                                                                              \
  X(SHAPE, 3, "shape mismatch")                                                                              \
  X(DTYPE, 4, "dtype mismatch")                                                                              \
  X(INDEX, 5, "index out of range")                                                                          \
  X(STATE, 6, "wrong state for this call")                                                                   \
  X(UNSUPPORTED, 7, "not supported")                                                                         \
  X(IO, 8, "input/output error")                                                                             \
  X(FORMAT, 9, "malformed file or text")                                                                     \
  X(VERSION, 10, "version not understood")                                                                   \
  X(CAPTURE, 11, "cannot be captured")                                                                       \
  X(RAISED, 12, "error raised by the program")                                                               \
  X(LIMIT, 13, "limit reached")                                                                              \
  X(CANCELLED, 14, "cancelled")                                                                              \
  X(INTERNAL, 15, "internal error")

typedef enum kn_status {
#define X(name, value, text) KN_##name = value,
  KN_STATUSES(X)
#undef X
} kn_status;

/* Answer of an optional kernel that leaves the work to the next provider; never seen by users. */
#define KN_DECLINED ((kn_status)-1)

/* A short name in plain words; "unknown status" for anything else. Never NULL. */
const char *kn_status_text(kn_status s);

/* Return the status of `call` if it failed. */
#define KN_TRY(call)                                                                                         \
  do {                                                                                                       \
    kn_status kn_try_ = (call);                                                                              \
    if (kn_try_ != KN_OK) return kn_try_;                                                                    \
  } while (0)

#endif
