/* Graphs that several suites run: on a pretended launcher (whole_bench.h), on the software device
 * (cuda/stage.h). @D stands for the device behind the types of tensors. */
#ifndef SPEC_WHOLE_TEXTS_H
#define SPEC_WHOLE_TEXTS_H
#include <string.h>

enum { WHOLE_TEXT = 4000 };

/* The text with `device` for each @D. */
static inline const char *text_on(char made[WHOLE_TEXT], const char *text, const char *device) {
  size_t n = 0, length = strlen(device);
  for (const char *at = text; *at && n < WHOLE_TEXT - 16; at++) {
    if (strncmp(at, "@D", 2)) {
      made[n++] = *at;
      continue;
    }
    memcpy(made + n, device, length);
    n += length;
    at++;
  }
  made[n] = 0;
  return made;
}

/* Branches and loops in each other. */
static const char whole_nested[] = "graph g(%x: float32[N]@D, %y: float32[N]@D) {\n"
                                   "  %one = const 1.0\n"
                                   "  %ten = const 10.0\n"
                                   "  %sum = sum %x\n"
                                   "  %s = item %sum\n"
                                   "  %big = lua.lt %ten, %s\n"
                                   "  %z: float32[N]@D = if %big {\n"
                                   "    %n = neg %x\n"
                                   "    yield %n\n"
                                   "  } else {\n"
                                   "    %p: float32[N]@D, %q: float32[N]@D = loop (%a: float32[N]@D = %x, "
                                   "%b: float32[N]@D = %y, %k: float = %s) {\n"
                                   "      %c = add %a, %b\n"
                                   "      %l = lua.add %k, %one\n"
                                   "      %t: float32[] = to_tensor %l\n"
                                   "      %e = mul %c, %t\n"
                                   "      %odd = lua.lt %s, %k\n"
                                   "      %f: float32[N]@D = if %odd {\n"
                                   "        yield %e\n"
                                   "      } else {\n"
                                   "        yield %y\n"
                                   "      }\n"
                                   "      %more = lua.lt %l, %ten\n"
                                   "      continue_if %more next(%b, %f, %l) exit(%a, %f)\n"
                                   "    }\n"
                                   "    %r = sub %p, %q\n"
                                   "    yield %r\n"
                                   "  }\n"
                                   "  %w = add %z, %x\n"
                                   "  return %w\n"
                                   "}\n";

/* How many numbers are drawn is known when it has run. */
static const char whole_draws[] = "graph g(%x: float32[N]@D, %n: integer) {\n"
                                  "  %zero = const 0\n"
                                  "  %one = const 1\n"
                                  "  %half = const 1.5\n"
                                  "  %before = bernoulli %x\n"
                                  "  %y: float32[N]@D = loop (%a: float32[N]@D = %x, %i: integer = %n) {\n"
                                  "    %d = bernoulli %x\n"
                                  "    %s = sum %d\n"
                                  "    %v = item %s\n"
                                  "    %some = lua.lt %half, %v\n"
                                  "    %c: float32[N]@D = if %some {\n"
                                  "      %r = bernoulli %x\n"
                                  "      %ar = add %a, %r\n"
                                  "      yield %ar\n"
                                  "    } else {\n"
                                  "      %ad = add %a, %d\n"
                                  "      yield %ad\n"
                                  "    }\n"
                                  "    %j = lua.sub %i, %one\n"
                                  "    %more = lua.lt %zero, %j\n"
                                  "    continue_if %more next(%c, %j) exit(%c)\n"
                                  "  }\n"
                                  "  %after = bernoulli %x\n"
                                  "  %z = add %y, %after\n"
                                  "  %w = add %z, %before\n"
                                  "  return %w\n"
                                  "}\n";

/* What may go wrong at a trip. */
static const char whole_faults[] = "graph g(%x: float32[N]@D, %n: integer) {\n"
                                   "  %one = const 1\n"
                                   "  %seven = const 7\n"
                                   "  %y: float32[N]@D = loop (%a: float32[N]@D = %x, %i: integer = %n) {\n"
                                   "    %j = lua.sub %i, %one\n"
                                   "    %k = lua.idiv %seven, %j ; f.lua:3\n"
                                   "    %s = sum %a\n"
                                   "    %v = item %s\n"
                                   "    %fine = lua.lt %v, %seven\n"
                                   "    assert %fine \"too large\" ; f.lua:4\n"
                                   "    %u: uint8[] = to_tensor %k ; f.lua:5\n"
                                   "    %c = add %a, %u\n"
                                   "    %more = lua.le %one, %j\n"
                                   "    continue_if %more next(%c, %j) exit(%c)\n"
                                   "  }\n"
                                   "  return %y\n"
                                   "}\n";

/* Texts show numbers and tensors as they were at the fault, whatever became of them. */
static const char whole_fault_texts[] =
    "graph g(%x: float32[N]@D, %limit: float) {\n"
    "  %zero = const 0\n"
    "  %one = const 1\n"
    "  %y: float32[N]@D = loop (%a: float32[N]@D = %x, %i: integer = %zero) {\n"
    "    %s = sum %a\n"
    "    %v = item %s\n"
    "    %fine = lua.lt %v, %limit\n"
    "    %b = mul %a, %a\n"
    "    %most = amax %b\n"
    "    %m = item %most\n"
    "    assert %fine, %i, %m, %v, %a \"trip %d: %.2f, %s of %s\" ; f.lua:4\n"
    "    %c = add %a, %a\n"
    "    %j = lua.add %i, %one\n"
    "    %big = lua.lt %limit, %j\n"
    "    if %big {\n"
    "      raise %j, %limit \"%d trips, more than %g\" ; f.lua:6\n"
    "    } else {\n"
    "    }\n"
    "    %k = lua.mul %j, %one\n"
    "    %more = lua.lt %k, %limit\n"
    "    continue_if %more next(%c, %k) exit(%c)\n"
    "  }\n"
    "  return %y\n"
    "}\n";

#endif
