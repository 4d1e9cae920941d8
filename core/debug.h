/* KILN_DEBUG topics: one table. Read once per context; output goes to the context's log callback. */
#ifndef KN_DEBUG_H
#define KN_DEBUG_H

#define KN_DEBUG_TOPICS(X)                                                                                   \
  X(PASSES, "passes", "each graph pass, what it changed")                                                    \
  X(DISPATCH, "dispatch", "which kernel ran an eager op, and why others declined")                           \
  X(CAPTURE, "capture", "captures, guards that failed, recaptures")                                          \
  X(MEM, "mem", "memory plans: buffers, lifetimes, totals")                                                  \
  X(EXEC, "exec", "each graph node as it runs: backend, implementation, Lua line")

typedef enum kn_debug {
#define X(e, name, doc) KN_DEBUG_##e,
  KN_DEBUG_TOPICS(X)
#undef X
      KN_DEBUG_COUNT
} kn_debug;

#endif
