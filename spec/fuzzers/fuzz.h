/* What the fuzzers share: contexts that last as long as the process, what is a finding
 * beside a crash, and the mutators. See README.md. */
#ifndef SPEC_FUZZ_H
#define SPEC_FUZZ_H
#include "core/context.h"
#include "spec/small_run.h"

/* ---- targets: any bytes, nothing left behind ---- */

#define X(name, mutator, most) void fuzz_##name(const uint8_t *data, size_t size);
#include "spec/fuzzers/targets.def"
#undef X

typedef enum fuzz_backend { FUZZ_REF, FUZZ_CPU, FUZZ_BACKENDS } fuzz_backend;
/* The process's, made at first use: one thread, no files, and little memory left in its heap. */
kn_context *fuzz_context(fuzz_backend b);
/* Aborts, with the sentence, where a status is none that bad input may lead to, or comes without a sentence.
 * Gives whether it is OK. */
bool fuzz_ok(kn_context *ctx, kn_status st);
/* Aborts with a text about what does not hold. */
#define FUZZ_HOLDS(condition) ((condition) ? (void)0 : fuzz_broken(#condition, __FILE__, __LINE__))
_Noreturn void fuzz_broken(const char *what, const char *file, int line);
/* Calls a target; aborts where it leaves memory behind each time it is called. */
void fuzz_call(void (*target)(const uint8_t *, size_t), const uint8_t *data, size_t size);
/* What inputs are made from: always the same for the same bytes. */
uint64_t fuzz_seed(const uint8_t *data, size_t size);
/* On both backends. */
void fuzz_run(kn_graph *g, uint64_t seed);
/* A path at which readers of files find the bytes, until the next call. */
const char *fuzz_path(const uint8_t *data, size_t size);

/* ---- mutators: data changed in place, at most `most` bytes, its new size given ---- */

typedef struct fuzz_change {
  uint8_t *data;
  size_t size, most;
  const uint8_t *other; /* another input, to take pieces of; NULL: none */
  size_t other_size;
  random_state r;
} fuzz_change;
void fuzz_change_bytes(fuzz_change *c); /* bits, numbers, pieces moved, taken out and put in */
void fuzz_change_text(fuzz_change *c);  /* a graph as text: tokens, lines, regions */
void fuzz_change_file(
    fuzz_change *c); /* safetensors and .kiln: the parts of the container, put together again */
void fuzz_change_npy(fuzz_change *c); /* the header, then lengths that fit */
void fuzz_change_npz(fuzz_change *c); /* an entry, then an archive that fits */

/* Puts bytes in the place of `cut` others; false, and nothing done, where there is no room. */
bool fuzz_splice(fuzz_change *c, size_t at, size_t cut, const void *with, size_t n);
bool fuzz_is_graph(const void *text, size_t size);
/* Takes over bytes if there is room for them. */
bool fuzz_take(fuzz_change *c, const void *p, size_t n);

#endif
