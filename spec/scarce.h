/* An allocator that refuses: the n-th request, or that and all after it. For sweeps that let memory run out
 * at every place once. */
#ifndef SPEC_SCARCE_H
#define SPEC_SCARCE_H
#include <stdbool.h>
#include <stdlib.h>

typedef struct scarce {
  long left;     /* requests until a refusal; negative: none is refused */
  bool once;     /* only that one is */
  long refusals; /* so far */
} scarce;

static inline void *scarce_alloc(void *ud, void *p, size_t osize, size_t nsize) {
  scarce *s = ud;
  if (nsize == 0) {
    free(p);
    return NULL;
  }
  if (!p || nsize > osize) { /* who shrinks a block counts on success */
    if (s->left == 0) {
      s->refusals++;
      if (s->once) s->left = -1;
      return NULL;
    }
    if (s->left > 0) s->left--;
  }
  return realloc(p, nsize);
}

static inline void scarce_begin(scarce *s, long n, bool once) { *s = (scarce){.left = n, .once = once}; }

/* No more refusals; were there any? */
static inline bool scarce_end(scarce *s) {
  s->left = -1;
  return s->refusals > 0;
}

#endif
