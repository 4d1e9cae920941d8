#!/bin/sh
# refused.sh STUB > refused.c: the functions that the toolkit's stub of libcuda exports, as weak ones that refuse.
# fake.c defines those that do not.
set -eu
cat <<'END'
/* Made by refused.sh. */
__attribute__((visibility("default"))) int cu_refused(void);
int cu_refused(void) { return 34; } /* CUDA_ERROR_STUB_LIBRARY */
#define REFUSED(name) __attribute__((weak, visibility("default"), alias("cu_refused"))) int name(void);
END
nm -D --defined-only "$1" | awk '$2 == "T" && $3 ~ /^cu[A-Z]/ { print "REFUSED(" $3 ")" }' | sort
