/* What steps of a launch may be beside ops, branches and loops: draws of which only the device knows how
 * many, places that numbers say, assertions, stores. */
#define _DEFAULT_SOURCE
#include "spec/whole_bench.h"

/* How many numbers are drawn is known when it has run; then the host's stream is where the CPU's would be. */
START_TEST(draws_in_branches_and_loops) {
  bench b;
  bench_open(&b, whole_draws);
  for (int n = 1; n < 9; n++) {
    kn_tensor *x = VEC(&b.r, 0.5, 0.25);
    AGREE(&b, 1, T(x), INT(n));
    ck_assert(rig_ctx(&b.r)->random.offset == kn_session_context(b.s)->random.offset);
    kn_tensor_release(x);
  }
  ck_assert(b.m.launches == 8 && b.m.waits == 8 && b.m.made == 1);
  bench_close(&b);
}
END_TEST

/* x[t], and out[t] = h: copies of places that numbers of the loop say; of places that there are not the rule
 * of the op says so. */
START_TEST(places_that_numbers_say) {
  bench b;
  bench_open(&b,
             "graph g(%x: float32[N,2], %n: integer, %first: integer) {\n"
             "  %zero = const 0\n"
             "  %one = const 1\n"
             "  %all = full_like %x {value = 0.0}\n"
             "  %h0 = full {sizes = {2}, value = 0.5}\n"
             "  %out: float32[N,2], %h: float32[2] = loop (%o: float32[N,2] = %all, %a: float32[2] = %h0, "
             "%i: integer = %first) {\n"
             "    %row = select %x {dim = 1, index = %i} ; f.lua:3\n"
             "    %b = add %row, %a\n"
             "    %o2 = select_put %o, %b {dim = 1, index = %i} ; f.lua:4\n"
             "    %j = lua.add %i, %one\n"
             "    %more = lua.lt %j, %n\n"
             "    continue_if %more next(%o2, %b, %j) exit(%o2, %b)\n"
             "  }\n"
             "  %g = select_grad %h, %x {dim = 1, index = %zero}\n"
             "  %gi = select_grad %h, %x {dim = 1, index = %first}\n"
             "  %z = add %g, %out\n"
             "  %zz = add %z, %gi\n"
             "  return %zz\n"
             "}\n");
  kn_tensor *x = make(b.r.c, KN_F32, DIMS(4, 2), LIST(1, 2, 3, 4, 5, 6, 7, 8));
  for (int n = -1; n < 6; n++)
    for (int first = -5; first < 5; first++) AGREE(&b, 1, T(x), INT(n), INT(first));
  ck_assert_int_eq(b.m.launches, 70);
  reads(&b, "copied in: %x\n"
            "number in: $4 = %first\n"
            "number in: $7 = %one\n"
            "number in: $9 = %n\n"
            "%o = copy %all\n"
            "%a = copy %h0\n"
            "numbers: $5 = $4\n"
            "loop\n"
            "  numbers: $6 = place $5 of 4\n"
            "  %row = %x[dim 1: $6]\n"
            "  %b = add\n"
            "  numbers: $8 = lua.add $5, $7\n"
            "           $10 = lua.lt $8, $9\n"
            "           $11 = place $5 of 4\n"
            "  %out[dim 1: $11] = %h\n"
            "  if $10\n"
            "    %a = copy %h\n"
            "  numbers: $5 = when $10: $8\n"
            "again if $10\n"
            "%g = select_grad\n"
            "numbers: $12 = place $4 of 4\n"
            "%gi = zeros\n"
            "%gi[dim 1: $12] = %h\n"
            "%z = add; %zz = add\n");
  kn_tensor_release(x);
  bench_close(&b);
}
END_TEST

/* Counters that the sizes bound: places need no check, assertions that always hold are gone, and with them
 * the numbers that only they read. */
START_TEST(counters_are_bounded) {
  bench b;
  bench_open(&b,
             "graph g(%x: float32[N,2]) {\n"
             "  %zero = const 0\n"
             "  %one = const 1\n"
             "  %two = const 2\n"
             "  %n = size %x {dim = 1}\n"
             "  %left = for_count %one, %n, %one\n"
             "  %h0 = full {sizes = {2}, value = 0.5}\n"
             "  %h: float32[2] = loop (%a: float32[2] = %h0, %was: integer = %one, %l: integer = %left, %t: "
             "integer = %one) {\n"
             "    %pos = lua.lt %zero, %t\n"
             "    %u = lua.sub %t, %one\n"
             "    %at = choose %pos, %u, %t\n"
             "    %in = lua.le %t, %n\n"
             "    assert %in, %t \"no %d\"\n"
             "    %row = select %x {dim = 1, index = %at} ; f.lua:3\n"
             "    %b = add %row, %a\n"
             "    %odd = lua.mod %t, %two\n"
             "    %col = select %b {dim = 1, index = %odd} ; f.lua:4\n"
             "    %c = mul %b, %col\n"
             "    %none = lua.eq %l, %zero\n"
             "    %l1 = lua.sub %l, %one\n"
             "    %t1 = lua.add %was, %one\n"
             "    %go = lua.not %none\n"
             "    continue_if %go next(%c, %t1, %l1, %t1) exit(%c)\n"
             "  }\n"
             "  %g: float32[2] = loop (%a2: float32[2] = %h, %i: integer = %n) {\n"
             "    %i1 = lua.sub %i, %one\n"
             "    %row2 = select %x {dim = 1, index = %i1} ; f.lua:5\n"
             "    %c2 = add %a2, %row2\n"
             "    %s = sum %c2\n"
             "    %v = item %s\n"
             "    %big = lua.lt %n, %v\n"
             "    %more: boolean = if %big {\n"
             "      %no = const false\n"
             "      yield %no\n"
             "    } else {\n"
             "      %yes = lua.lt %zero, %i1\n"
             "      yield %yes\n"
             "    }\n"
             "    continue_if %more next(%c2, %i1) exit(%c2)\n"
             "  }\n"
             "  return %g\n"
             "}\n");
  kn_tensor *x = make(b.r.c, KN_F32, DIMS(4, 2), LIST(0.5, 0.25, 0.125, 1, 0.5, 0.25, 0.75, 1));
  for (int n = 0; n < 3; n++) AGREE(&b, 1, T(x));
  ck_assert(b.m.launches == 3);
  reads(&b, "copied in: %x\n"
            "number in: $4 = %one\n"
            "number in: $6 = %left\n"
            "number in: $9 = %zero\n"
            "number in: $12 = %n\n"
            "number in: $14 = %two\n"
            "number in: $25 = %no\n"
            "%a = copy %h0\n"
            "numbers: $5 = $4\n"
            "         $7 = $6\n"
            "         $8 = $4\n"
            "loop\n"
            "  numbers: $11 = lua.sub $8, $4\n"
            "  %row = %x[dim 1: $11]\n"
            "  %b = add\n"
            "  numbers: $15 = lua.mod $8, $14\n"
            "  %col = %b[dim 1: $15]\n"
            "  %c = mul\n"
            "  %a = copy %h\n"
            "  numbers: $16 = lua.eq $7, $9\n"
            "           $17 = lua.sub $7, $4\n"
            "           $18 = lua.add $5, $4\n"
            "           $19 = lua.not $16\n"
            "           $5 = when $19: $18\n"
            "           $7 = when $19: $17\n"
            "           $8 = when $19: $18\n"
            "again if $19\n"
            "%a2 = copy %h\n"
            "numbers: $20 = $12\n"
            "loop\n"
            "  numbers: $21 = lua.sub $20, $4\n"
            "  %row2 = %x[dim 1: $21]\n"
            "  %c2 = add; %s = sum\n"
            "  numbers: $22 = item %s\n"
            "           $23 = lua.lt $12, $22\n"
            "  if $23\n"
            "    numbers: $24 = $25\n"
            "  else\n"
            "    numbers: $26 = lua.lt $9, $21\n"
            "             $24 = $26\n"
            "  %a2 = copy %g\n"
            "  numbers: $20 = when $24: $21\n"
            "again if $24\n");
  ck_assert(b.m.waits == 0);
  kn_tensor_release(x);
  bench_close(&b);
}
END_TEST

/* State that is stored in a branch: the host does so after the launch, if at all. */
START_TEST(stores_in_branches_come_afterwards) {
  bench b;
  bench_open(&b, "graph g(%x: float32[2]) {\n"
                 "  slot state \"m\": float32[2]\n"
                 "  slot state \"n\": integer = 0\n"
                 "  %one = const 1.0\n"
                 "  %nine = const 9.0\n"
                 "  %step = const 2\n"
                 "  %m = load_state \"m\"\n"
                 "  %n = load_state \"n\"\n"
                 "  %sum = sum %x\n"
                 "  %s = item %sum\n"
                 "  %big = lua.lt %one, %s\n"
                 "  %y: float32[2], %k: integer = if %big {\n"
                 "    %a = mul %x, %m\n"
                 "    %k1 = lua.add %n, %step\n"
                 "    yield %a, %k1\n"
                 "  } else {\n"
                 "    %none: float32[2] = undef\n"
                 "    yield %none, %n\n"
                 "  }\n"
                 "  %p = exp %x\n"
                 "  %q = add %p, %m\n"
                 "  if %big {\n"
                 "    store_state \"m\", %y\n"
                 "    store_state \"n\", %k\n"
                 "  } else {\n"
                 "  }\n"
                 "  %fine = lua.lt %s, %nine\n"
                 "  assert %fine \"too large\"\n"
                 "  return %q\n"
                 "}\n");
  kn_session *both[2] = {b.r.s, b.s};
  for (int i = 0; i < 2; i++) {
    kn_rvalue m = T(VEC(&b.r, 0.5, 2));
    OK(kn_session_context(both[i]), kn_session_set_slot(both[i], 0, &m));
    kn_tensor_release(m.tensor);
  }
  for (int k = 0; k < 12; k++) {
    kn_tensor *x = VEC(&b.r, k % 3, k == 7 ? 20 : 0.25 * k);
    kn_rvalue m[2], n[2];
    AGREE(&b, 1, T(x));
    for (int i = 0; i < 2; i++) {
      OK(kn_session_context(both[i]), kn_session_get_slot(both[i], 0, &m[i]));
      OK(kn_session_context(both[i]), kn_session_get_slot(both[i], 1, &n[i]));
    }
    ck_assert(same_result(&m[0], &m[1]) && same_result(&n[0], &n[1]));
    for (uint32_t slot = 0; slot < 2; slot++)
      ck_assert(kn_session_wrote(b.r.s, slot) == kn_session_wrote(b.s, slot));
    kn_tensor_release(m[0].tensor), kn_tensor_release(m[1].tensor), kn_tensor_release(x);
  }
  ck_assert(b.m.launches == 12 && b.m.made == 1);
  bench_close(&b);
}
END_TEST

/* Texts show numbers and tensors as they were at the fault, whatever became of them. */
START_TEST(texts_of_faults_show_what_there_was) {
  bench b;
  bench_open(&b, whole_fault_texts);
  for (int limit = -1; limit < 12; limit++) {
    kn_tensor *x = VEC(&b.r, limit == 5 ? -9 : 0.125, 0.25);
    AGREE(&b, 1, T(x), NUM(limit + 0.5));
    kn_tensor_release(x);
  }
  ck_assert(b.m.launches == 13);
  bench_close(&b);
}
END_TEST

/* Lists of which the sizes say how long they get are tensors, and their lengths numbers. */
START_TEST(lists_are_tensors) {
  bench b;
  bench_open(&b, "graph g(%x: float32[N,2], %which: integer) {\n"
                 "  %zero = const 0\n"
                 "  %one = const 1\n"
                 "  %n = size %x {dim = 1}\n"
                 "  %left = for_count %one, %n, %one\n"
                 "  %h0 = full {sizes = {2}, value = 0.5}\n"
                 "  %l0: list[float32[2]] = list\n"
                 "  %k0: list[integer] = list\n"
                 "  %h: float32[2], %l: list[float32[2]], %k: list[integer] = loop (%a: float32[2] = %h0, "
                 "%l1: list[float32[2]] = %l0, %k1: list[integer] = %k0, %c: integer = %left, %t: integer = "
                 "%zero) {\n"
                 "    %row = select %x {dim = 1, index = %t}\n"
                 "    %b = add %row, %a\n"
                 "    %s = sum %b\n"
                 "    %v = item %s\n"
                 "    %much = lua.lt %one, %v\n"
                 "    %l2: list[float32[2]] = append %l1, %b\n"
                 "    %l4: list[float32[2]] = if %much {\n"
                 "      %l3: list[float32[2]] = append %l2, %row\n"
                 "      yield %l3\n"
                 "    } else {\n"
                 "      yield %l2\n"
                 "    }\n"
                 "    %many = length %l4\n"
                 "    %k2: list[integer] = append %k1, %many\n"
                 "    %none = lua.eq %c, %zero\n"
                 "    %c1 = lua.sub %c, %one\n"
                 "    %t1 = lua.add %t, %one\n"
                 "    %go = lua.not %none\n"
                 "    continue_if %go next(%b, %l4, %k2, %c1, %t1) exit(%b, %l4, %k2)\n"
                 "  }\n"
                 "  %e: float32[2] = element %l, %which ; f.lua:7\n"
                 "  %last: integer = element %k, %n\n"
                 "  %f: float32[2] = element %l, %last\n"
                 "  %g = add %e, %f\n"
                 "  %y = add %g, %h\n"
                 "  return %y\n"
                 "}\n");
  for (int n = 1; n < 5; n++) {
    kn_tensor *x = make(b.r.c, KN_F32, DIMS(n, 2), LIST(-0.5, 0.25, 0.125, 1, -0.5, 0.25, 0.75, -1));
    for (int which = -1; which < 9; which++) AGREE(&b, 1, T(x), INT(which));
    kn_tensor_release(x);
  }
  ck_assert_int_eq(b.m.launches, 40);
  kn_run_memory memory; /* x, lists of 8 pairs and 4 numbers, one number */
  kn_tensor *last = make(b.r.c, KN_F32, DIMS(4, 2), LIST(1, 2, 3, 4, 5, 6, 7, 8));
  OK(kn_session_context(b.s), kn_session_prepare(b.s, (kn_rvalue[]){T(last), INT(1)}, 2, &memory));
  ck_assert_int_eq(memory.workspace, 32 + 64 + 32 + 8);
  kn_tensor_release(last);
  reads(&b, "copied in: %x\n"
            "number in: $7 = %left\n"
            "number in: $9 = %zero\n"
            "number in: $12 = %one\n"
            "number in: $23 = %which\n"
            "number in: $25 = %n\n"
            "constant: $4 = 0\n"
            "constant: $14 = 1\n"
            "%a = copy %h0\n"
            "numbers: $5 = $4\n"
            "         $6 = $4\n"
            "         $8 = $7\n"
            "         $10 = $9\n"
            "loop\n"
            "  %row = %x[dim 1: $10]\n"
            "  %b = add; %s = sum\n"
            "  numbers: $11 = item %s\n"
            "           $13 = lua.lt $12, $11\n"
            "  (list 1)[dim 1: $5] = %h\n"
            "  numbers: $15 = lua.add $5, $14\n"
            "  if $13\n"
            "    (list 1)[dim 1: $15] = %row\n"
            "    numbers: $17 = lua.add $15, $14\n"
            "             $16 = $17\n"
            "  else\n"
            "    numbers: $16 = $15\n"
            "  numbers: put $16 in (of list 2)\n"
            "  (list 2)[dim 1: $6] = (of list 2)\n"
            "  %a = copy %h\n"
            "  numbers: $18 = lua.add $6, $14\n"
            "           $19 = lua.eq $8, $9\n"
            "           $20 = lua.sub $8, $12\n"
            "           $21 = lua.add $10, $12\n"
            "           $22 = lua.not $19\n"
            "           $5 = when $22: $16\n"
            "           $6 = when $22: $18\n"
            "           $8 = when $22: $20\n"
            "           $10 = when $22: $21\n"
            "again if $22\n"
            "numbers: $24 = element $23, $16\n"
            "%e = (list 1)[dim 1: $24]\n"
            "numbers: $26 = element $25, $18\n"
            "(of list 2) = (list 2)[dim 1: $26]\n"
            "numbers: $27 = item (of list 2)\n"
            "         $28 = element $27, $16\n"
            "%f = (list 1)[dim 1: $28]\n"
            "%g = add; %y = add\n");
  bench_close(&b);
}
END_TEST

/* Of which two versions go on from one, or one that a loop has left behind is read: then places of one tensor
 * would be written twice. */
START_TEST(lists_that_part_stay_lists) {
  bench b;
  bench_open(&b, "graph g(%x: float32[N,2]) {\n"
                 "  %zero = const 0\n"
                 "  %one = const 1\n"
                 "  %two = const 2\n"
                 "  %n = size %x {dim = 1}\n"
                 "  %left = for_count %one, %n, %one\n"
                 "  %a = neg %x\n"
                 "  %b = exp %x\n"
                 "  %l: list[float32[N,2]] = list\n"
                 "  %la: list[float32[N,2]] = append %l, %a\n"
                 "  %lb: list[float32[N,2]] = append %l, %b\n"
                 "  %ea: float32[N,2] = element %la, %one\n"
                 "  %eb: float32[N,2] = element %lb, %one\n"
                 "  %s0 = sub %ea, %eb\n"
                 "  %m0: list[float32[N,2]] = list\n"
                 "  %was: list[float32[N,2]] = undef\n"
                 "  %y: float32[N,2] = loop (%t: float32[N,2] = %s0, %m: list[float32[N,2]] = %m0, %w: "
                 "list[float32[N,2]] = %was, %c: integer = %left) {\n"
                 "    %u = add %t, %b\n"
                 "    %m1: list[float32[N,2]] = append %m, %u\n"
                 "    %many = length %w\n"
                 "    %first = lua.lt %many, %one\n"
                 "    %v: float32[N,2] = if %first {\n"
                 "      yield %u\n"
                 "    } else {\n"
                 "      %before: float32[N,2] = element %w, %one\n"
                 "      %d = mul %before, %u\n"
                 "      yield %d\n"
                 "    }\n"
                 "    %none = lua.eq %c, %zero\n"
                 "    %c1 = lua.sub %c, %one\n"
                 "    %go = lua.not %none\n"
                 "    continue_if %go next(%v, %m, %m1, %c1) exit(%v)\n"
                 "  }\n"
                 "  return %y\n"
                 "}\n");
  for (int n = 1; n < 5; n++) {
    kn_tensor *x = make(b.r.c, KN_F32, DIMS(n, 2), LIST(-0.5, 0.25, 0.125, 1, -0.5, 0.25, 0.75, -1));
    AGREE(&b, 1, T(x));
    kn_tensor_release(x);
  }
  bench_close(&b);
}
END_TEST

SUITE("whole_steps", draws_in_branches_and_loops, places_that_numbers_say, counters_are_bounded,
      stores_in_branches_come_afterwards, texts_of_faults_show_what_there_was, lists_are_tensors,
      lists_that_part_stay_lists)
