/* What suites of the C API share: statuses checked with their sentences. */
#ifndef SPEC_CAPI_H
#define SPEC_CAPI_H
#include "bindings/c/kiln.h"
#include "spec/suite.h"

/* The call must succeed; else `error`, the sentence, is shown. */
#define GOOD(call, error)                                                                                    \
  do {                                                                                                       \
    kiln_status st_ = (call);                                                                                \
    if (st_ != KILN_OK) ck_abort_msg("%s: %s: %s", #call, kiln_status_text(st_), error);                     \
  } while (0)
/* It must fail so, with `part` in the sentence. */
#define BAD(status, part, call, error)                                                                       \
  do {                                                                                                       \
    kiln_status st_ = (call);                                                                                \
    if (st_ != (status))                                                                                     \
      ck_abort_msg("%s: %s, not %s: %s", #call, kiln_status_text(st_), kiln_status_text(status), error);     \
    if (!strstr(error, part)) ck_abort_msg("%s: no \"%s\" in \"%s\"", #call, part, error);                   \
  } while (0)

#endif
