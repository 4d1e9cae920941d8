/* What was measured on this machine: which of several implementations of one computation is the fastest.
 * Knows keys, names and times, and the file that remembers them; not what the computations are. One for each
 * root context (registry.h), used by all its children, from any thread.
 *
 * The file is text, "tune-MACHINE" in the folder for caches: two lines that name kiln's format and the
 * machine (processor, its instruction sets, backends with their versions), then a line for each key: 5d2f80a1
 * matmul t1 64x256 = packed | given 21.30, packed 17.85 Lines are only ever added, each by one write, so
 * several processes may do so at once; the last of a key counts. The first word is a sum over the rest: what
 * does not fit is left out, as is a file that names another machine. When there are too many lines, the newer
 * half is written anew. */
#ifndef KN_TUNE_H
#define KN_TUNE_H
#include "core/context.h"

enum { KN_TUNE_KEY = 320, KN_TUNE_NAME = 24, KN_TUNE_WAYS = 8, KN_TUNE_MOST = 4096 };

typedef struct kn_tuner kn_tuner;

/* dir: where the file is or will be, made when needed; NULL: what is measured is kept in memory only. */
kn_tuner *kn_tuner_new(kn_heap *heap, const char *dir, const char *machine); /* NULL: out of memory */
void kn_tuner_free(kn_tuner *t);                                             /* NULL is fine */
/* Of the file, "" where there is none. Borrowed. */
const char *kn_tuner_path(const kn_tuner *t);

/* The file is read at the first question. False: not known. */
bool kn_tuner_find(kn_context *ctx, kn_tuner *t, const char *key, char way[KN_TUNE_NAME]);
/* Remembers that `way` is the fastest; `times` says more, for readers of the file. Whatever goes wrong only
 * means that it will be measured again. */
void kn_tuner_note(kn_context *ctx, kn_tuner *t, const char *key, const char *way, const char *times);
/* How many keys are known, those of the file included once it was read. */
int kn_tuner_count(kn_tuner *t);

/* A computation that can be done in several ways. */
typedef struct kn_question {
  const char *key; /* without newlines and " = " */
  const char *ways[KN_TUNE_WAYS];
  bool light[KN_TUNE_WAYS];   /* it takes less memory than the others */
  size_t keeps[KN_TUNE_WAYS]; /* bytes that it needs from run to run */
  int n;                      /* ways[0]: by the fixed rule */
  double flops;               /* of the computation; little work is not measured */
  void *ud;
  bool (*begin)(void *ud); /* before the first trial; false: it cannot be measured */
  /* Computes it once, as quickly as that goes. False: it cannot be done in that way. */
  bool (*trial)(void *ud, int way, double *seconds);
  void (*end)(void *ud); /* after the last trial, also where begin failed */
} kn_question;

/* The way to go, 0 … n - 1, or -1 when nothing is known and the fixed rule holds: as the context's tuning has
 * it, and for as long as the plan may still measure. The first way stays unless another one is clearly
 * faster; one that takes less memory is taken where it is as fast, or where what the other one keeps saves
 * too little. */
int kn_tune(kn_context *ctx, kn_tuner *t, const kn_question *q);
/* Is there enough to do for a choice to matter? */
bool kn_tune_pays(double flops);

/* Words about this machine's processor that tell it from others, "" when it is not known. */
void kn_tune_processor(char *text, size_t size);

#endif
