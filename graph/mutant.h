/* KN_MUTANT(name): is this seeded fault (mutants.def) on? Always false but in a build with -Dmutants=true. It
 * is there to test the tests; nothing else may ask. */
#ifndef KN_MUTANT_H
#define KN_MUTANT_H
#ifdef KN_MUTANTS
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
enum {
#define MUTANT(name, what) KN_MUTANT_##name,
#include "graph/mutants.def"
#undef MUTANT
  KN_MUTANT_COUNT
};
static inline bool kn_mutant_on(int which) {
  static const char *const names[] = {
#define MUTANT(name, what) #name,
#include "graph/mutants.def"
#undef MUTANT
  };
  const char *on = getenv("KILN_MUTANT");
  return on && !strcmp(on, names[which]);
}
#define KN_MUTANT(name) kn_mutant_on(KN_MUTANT_##name)
#else
#define KN_MUTANT(name) false
#endif
#endif
