/* Running graphs: control flow, sizes, slots, errors. How plans use memory is in test_plan.c. */
#include "spec/exec.h"

START_TEST(straight_line) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2,3], %k: float) {\n"
               "  slot param \"w\": float32[3,2]\n"
               "  %w = param \"w\"\n"
               "  %h: float32[2,2] = matmul %x, %w\n"
               "  %s: float32[] = to_tensor %k\n"
               "  %y: float32[2,2] = mul %h, %s\n"
               "  return %y, %k\n"
               "}\n");
  kn_tensor *x = f32(&r, DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6)),
            *w = f32(&r, DIMS(3, 2), LIST(1, 0, 0, 1, 1, 1));
  kn_rvalue out[2];
  FAILS(rig_ctx(&r), KN_STATE, "slot \"w\" has no data", RUN(&r, out, 2, T(x), NUM(2)));
  OK(rig_ctx(&r), kn_session_set_slot(r.s, 0, &(kn_rvalue){.tensor = w}));
  kn_tensor_release(w);
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), RUN(&r, out, 2, T(x), NUM(2)));
    gives(&out[0], DIMS(2, 2), LIST(8, 10, 20, 22));
    ck_assert(out[1].scalar.kind == KN_SCALAR_FLOAT && out[1].scalar.as.f == 2);
  }
  OK(rig_ctx(&r), RUN(&r, out, 2, T(x), INT(3))); /* an integer where a float is meant */
  gives(&out[0], DIMS(2, 2), LIST(12, 15, 30, 33));
  ck_assert(out[1].scalar.kind == KN_SCALAR_FLOAT && out[1].scalar.as.f == 3);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- if ---- */

START_TEST(both_branches) {
  rig r;
  rig_open(&r, "graph g(%x: float32[3]) {\n"
               "  %s: float32[] = sum %x\n"
               "  %f: float = item %s\n"
               "  %z = const 0.0\n"
               "  %c: boolean = lua.lt %z, %f\n"
               "  %y: float32[3], %n: number = if %c {\n"
               "    %a: float32[3] = neg %x\n"
               "    %one = const 1\n"
               "    yield %a, %one\n"
               "  } else {\n"
               "    %half = const 0.5\n"
               "    yield %x, %half\n"
               "  }\n"
               "  %w: float32[3] = add %y, %x\n"
               "  return %w, %y, %n\n"
               "}\n");
  kn_tensor *up = VEC(&r, 1, 2, 3), *down = VEC(&r, -1, -2, 1);
  kn_rvalue out[3];
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), RUN(&r, out, 3, T(up)));
    GIVES(&out[0], 0, 0, 0);
    GIVES(&out[1], -1, -2, -3);
    ck_assert(out[2].scalar.kind == KN_SCALAR_INT && out[2].scalar.as.i == 1);
    OK(rig_ctx(&r), RUN(&r, out, 3, T(down)));
    GIVES(&out[0], -2, -4, 2);
    ck_assert_ptr_ne(out[1].tensor, down); /* a result is never an input */
    GIVES(&out[1], -1, -2, 1);
    ck_assert(out[2].scalar.kind == KN_SCALAR_FLOAT && out[2].scalar.as.f == 0.5);
  }
  kn_tensor_release(up);
  kn_tensor_release(down);
  rig_close(&r);
}
END_TEST

START_TEST(nested_ifs) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %a: boolean, %b: boolean) {\n"
               "  %k: float32[2] = add %x, %x\n"
               "  %y: float32[2] = if %a {\n"
               "    %i: float32[2] = if %b {\n"
               "      %p: float32[2] = mul %k, %x\n"
               "      yield %p\n"
               "    } else {\n"
               "      yield %k\n"
               "    }\n"
               "    %q: float32[2] = neg %i\n"
               "    yield %q\n"
               "  } else {\n"
               "    %j: float32[2] = if %b {\n"
               "      yield %x\n"
               "    } else {\n"
               "      %m: float32[2] = mul %k, %k\n"
               "      yield %m\n"
               "    }\n"
               "    yield %j\n"
               "  }\n"
               "  %z: float32[2] = add %y, %k\n"
               "  return %z\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 3);
  kn_rvalue out[1];
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), BOOL(true), BOOL(true)));
  GIVES(out, 0, -12);
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), BOOL(true), BOOL(false)));
  GIVES(out, 0, 0);
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), BOOL(false), BOOL(true)));
  GIVES(out, 3, 9);
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), BOOL(false), BOOL(false)));
  GIVES(out, 6, 42);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* The early exit of a network with two heads: results of different sizes, picked by data. */
START_TEST(branches_of_two_sizes) {
  rig r;
  rig_open(&r, "graph g(%x: float32[4], %c: boolean) {\n"
               "  %y: float32[?] = if %c {\n"
               "    %a: float32[2] = slice %x {dim = 1, start = 2, stop = 3}\n"
               "    yield %a\n"
               "  } else {\n"
               "    yield %x\n"
               "  }\n"
               "  %z: float32[?] = neg %y\n"
               "  %n: integer = size %z {dim = 1}\n"
               "  %e: float32[1,?] = unsqueeze %z {dim = 1}\n"
               "  return %z, %n, %e\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2, 3, 4);
  kn_rvalue out[3];
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), RUN(&r, out, 3, T(x), BOOL(true)));
    GIVES(&out[0], -2, -3);
    gives(&out[2], DIMS(1, 2), LIST(-2, -3));
    ck_assert_int_eq(out[1].scalar.as.i, 2);
    OK(rig_ctx(&r), RUN(&r, out, 3, T(x), BOOL(false)));
    GIVES(&out[0], -1, -2, -3, -4);
    gives(&out[2], DIMS(1, 4), LIST(-1, -2, -3, -4));
    ck_assert_int_eq(out[1].scalar.as.i, 4);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- loops ---- */

/* A numeric for that may run no trip at all, carrying a tensor, two numbers and a value that stays. */
START_TEST(counted_loop) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %n: integer) {\n"
               "  %one = const 1\n"
               "  %zero = const 0\n"
               "  %skip: boolean = for_skip %one, %n, %one\n"
               "  %y: float32[2], %s: integer = if %skip {\n"
               "    yield %x, %zero\n"
               "  } else {\n"
               "    %count: integer = for_count %one, %n, %one\n"
               "    %t: float32[2], %sum: integer = loop (%i: integer = %one, %left: integer = %count, %h: "
               "float32[2] = %x,\n"
               "        %same: float32[2] = %x, %acc: integer = %zero) {\n"
               "      %h2: float32[2] = add %h, %same\n"
               "      %acc2: integer = lua.add %acc, %i\n"
               "      %more: boolean = lua.lt %zero, %left\n"
               "      %i2: integer = lua.add %i, %one\n"
               "      %left2: integer = lua.sub %left, %one\n"
               "      continue_if %more next(%i2, %left2, %h2, %same, %acc2) exit(%h2, %acc2)\n"
               "    }\n"
               "    yield %t, %sum\n"
               "  }\n"
               "  return %y, %s\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[2];
  for (int n = 0; n < 8; n++) {
    OK(rig_ctx(&r), RUN(&r, out, 2, T(x), INT(n)));
    GIVES(&out[0], 1 + n, 2 + 2 * n);
    ck_assert_int_eq(out[1].scalar.as.i, n * (n + 1) / 2);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* a, b = b, a + b and a transposition on itself: next values that lie in the bytes of parameters. */
START_TEST(carried_values_overlap) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %m: float32[2,2], %n: integer) {\n"
               "  %one = const 1\n"
               "  %a: float32[2], %b: float32[2], %q: float32[2,2], %k: integer = loop (%p: float32[2] = %x, "
               "%o: float32[2] = %x,\n"
               "      %t: float32[2,2] = %m, %i: integer = %one) {\n"
               "    %s: float32[2] = add %p, %o\n"
               "    %u: float32[2,2] = transpose %t\n"
               "    %more: boolean = lua.lt %i, %n\n"
               "    %i2: integer = lua.add %i, %one\n"
               "    continue_if %more next(%o, %s, %u, %i2) exit(%p, %s, %u, %i)\n"
               "  }\n"
               "  return %a, %b, %q, %k\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 10), *m = f32(&r, DIMS(2, 2), LIST(1, 2, 3, 4));
  kn_rvalue out[4];
  double fib[] = {1, 1, 2, 3, 5, 8, 13, 21, 34};
  for (int n = 1; n < 8; n++) {
    OK(rig_ctx(&r), RUN(&r, out, 4, T(x), T(m), INT(n)));
    GIVES(&out[0], fib[n - 1], 10 * fib[n - 1]);
    GIVES(&out[1], fib[n + 1], 10 * fib[n + 1]);
    gives(&out[2], DIMS(2, 2), n % 2 ? LIST(1, 3, 2, 4) : LIST(1, 2, 3, 4));
    ck_assert_int_eq(out[3].scalar.as.i, n);
  }
  kn_tensor_release(x);
  kn_tensor_release(m);
  rig_close(&r);
}
END_TEST

START_TEST(nested_loops) {
  rig r;
  rig_open(&r, "graph g(%x: float32[1], %n: integer) {\n"
               "  %one = const 1\n"
               "  %y: float32[1] = loop (%h: float32[1] = %x, %i: integer = %one) {\n"
               "    %w: float32[1] = mul %h, %x\n"
               "    %v: float32[1], %q: float32[1] = loop (%g: float32[1] = %h, %j: integer = %one) {\n"
               "      %g2: float32[1] = add %g, %w\n"
               "      %c: boolean = lua.lt %j, %i\n"
               "      %j2: integer = lua.add %j, %one\n"
               "      continue_if %c next(%g2, %j2) exit(%g2, %g)\n"
               "    }\n"
               "    %z: float32[1] = add %v, %q\n"
               "    %d: boolean = lua.lt %i, %n\n"
               "    %i2: integer = lua.add %i, %one\n"
               "    continue_if %d next(%z, %i2) exit(%z)\n"
               "  }\n"
               "  return %y\n"
               "}\n");
  kn_tensor *x = VEC(&r, 2);
  kn_rvalue out[1];
  double h = 2;
  for (int n = 1; n < 5; n++) {
    double w = h * 2, v = h, q = h;
    for (int j = 1; j <= n; j++) q = v, v += w;
    h = v + q;
    OK(rig_ctx(&r), RUN(&r, out, 1, T(x), INT(n)));
    GIVES(out, h);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* A list that grows: sizes that only the run knows, and a view of the arena among the values carried. */
START_TEST(growing_loop) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %n: integer) {\n"
               "  %one = const 1\n"
               "  %d: float32[2] = add %x, %x\n"
               "  %y: float32[?], %tail: float32[?] = loop (%h: float32[?] = %d, %v: float32[?] = %x, %i: "
               "integer = %one) {\n"
               "    %s: float32[] = sum %h\n"
               "    %k: float32[2] = mul %x, %s\n"
               "    %c: float32[?] = cat %h, %k\n"
               "    %part: float32[?] = slice %k {dim = 1, start = 1, stop = %i}\n"
               "    %more: boolean = lua.lt %i, %n\n"
               "    %i2: integer = lua.add %i, %one\n"
               "    continue_if %more next(%c, %part, %i2) exit(%c, %v)\n"
               "  }\n"
               "  return %y, %tail\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[2];
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), RUN(&r, out, 2, T(x), INT(1)));
    GIVES(&out[0], 2, 4, 6, 12);
    GIVES(&out[1], 1, 2);
    OK(rig_ctx(&r), RUN(&r, out, 2, T(x), INT(2)));
    GIVES(&out[0], 2, 4, 6, 12, 24, 48);
    GIVES(&out[1], 6);
    OK(rig_ctx(&r), RUN(&r, out, 2, T(x), INT(3)));
    GIVES(&out[0], 2, 4, 6, 12, 24, 48, 96, 192);
    GIVES(&out[1], 24, 48);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* ---- sizes ---- */

START_TEST(named_sizes) {
  rig r;
  rig_open(&r, "graph g(%x: float32[N,3], %y: float32[3,M], %z: float32[N,M]) {\n"
               "  %h: float32[N,M] = matmul %x, %y\n"
               "  %s: float32[N,M] = add %h, %z\n"
               "  %n: integer = size %s {dim = 1}\n"
               "  %m: integer = size %s {dim = 2}\n"
               "  %k: integer = lua.mul %n, %m\n"
               "  %v: float32[?] = reshape %s {sizes = {%k}}\n"
               "  return %v, %k\n"
               "}\n");
  kn_rvalue out[2];
  double ones[100];
  for (int i = 0; i < 100; i++) ones[i] = 1;
  for (int trial = 0; trial < 3; trial++)
    for (int n = 1; n < 4; n++)
      for (int m = 1; m < 9; m++) { /* more sizes than the cache holds */
        kn_tensor *x = f32(&r, DIMS(n, 3), ones), *y = f32(&r, DIMS(3, m), ones),
                  *z = f32(&r, DIMS(n, m), ones);
        OK(rig_ctx(&r), RUN(&r, out, 2, T(x), T(y), T(z)));
        ck_assert_int_eq(out[1].scalar.as.i, n * m);
        double four[100];
        for (int i = 0; i < 100; i++) four[i] = 4;
        gives(&out[0], DIMS(n * m), four);
        kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(z);
      }
  kn_tensor *x = f32(&r, DIMS(2, 3), ones), *y = f32(&r, DIMS(3, 4), ones), *z = f32(&r, DIMS(2, 5), ones);
  kn_tensor *i = make(r.c, KN_I64, DIMS(2, 3), ones), *t = f32(&r, DIMS(2), ones);
  kn_context *c = rig_ctx(&r);
  FAILS(c, KN_SHAPE, "size M is 4 in dimension 2 of input y, but 5 in dimension 2 of input z",
        RUN(&r, out, 2, T(x), T(y), T(z)));
  FAILS(c, KN_SHAPE, "input y: float32[3,M] is needed (got float32[2,3])", RUN(&r, out, 2, T(x), T(x), T(z)));
  FAILS(c, KN_DTYPE, "input x: float32[N,3] is needed (got int64[2,3])", RUN(&r, out, 2, T(i), T(y), T(z)));
  FAILS(c, KN_SHAPE, "input x: float32[N,3] is needed (got float32[2])", RUN(&r, out, 2, T(t), T(y), T(z)));
  FAILS(c, KN_ARG, "input z: float32[N,M] is needed (got an integer)", RUN(&r, out, 2, T(x), T(y), INT(1)));
  FAILS(c, KN_ARG, "graph g takes 3 inputs, got 2", RUN(&r, out, 2, T(x), T(y)));
  FAILS(c, KN_ARG, "graph g gives 2 results, room is for 1", RUN(&r, out, 1, T(x), T(y), T(z)));
  kn_tensor_release(x), kn_tensor_release(y), kn_tensor_release(z), kn_tensor_release(i),
      kn_tensor_release(t);
  rig_close(&r);
}
END_TEST

START_TEST(scalar_kinds) {
  rig r;
  rig_open(&r, "graph g(%i: integer, %f: float, %n: number, %b: boolean) {\n"
               "  return %i, %f, %n, %b\n"
               "}\n");
  kn_rvalue out[4];
  kn_context *c = rig_ctx(&r);
  OK(c, RUN(&r, out, 4, INT(1), NUM(2), NUM(3), BOOL(true)));
  ck_assert(out[2].scalar.kind == KN_SCALAR_FLOAT && out[3].scalar.as.b);
  FAILS(c, KN_ARG, "input i: a value of kind integer is needed (got a float)",
        RUN(&r, out, 4, NUM(1), NUM(2), INT(3), BOOL(true)));
  FAILS(c, KN_ARG, "input f: a value of kind float is needed (got a boolean)",
        RUN(&r, out, 4, INT(1), BOOL(0), INT(3), BOOL(true)));
  FAILS(c, KN_ARG, "input b: a value of kind boolean is needed (got an integer)",
        RUN(&r, out, 4, INT(1), INT(2), INT(3), INT(1)));
  rig_close(&r);
}
END_TEST

/* What sizes decide is decided by the plan: only one branch is there, and the other may even be impossible.
 */
START_TEST(sizes_decide) {
  rig r;
  rig_open_debug(&r,
                 "graph g(%x: float32[N]) {\n"
                 "  %n: integer = size %x {dim = 1}\n"
                 "  %three = const 3\n"
                 "  %small: boolean = lua.lt %n, %three\n"
                 "  %y: float32[?], %w: float32[?] = if %small {\n"
                 "    yield %x, %x\n"
                 "  } else {\n"
                 "    %t: float32[?] = slice %x {dim = 1, start = 1, stop = 3}    ; a.lua:4\n"
                 "    %f: float32[3] = reshape %t {sizes = {3}}\n"
                 "    %h: float32[3] = neg %f\n"
                 "    yield %h, %t\n"
                 "  }\n"
                 "  return %y, %w\n"
                 "}\n",
                 "exec");
  kn_tensor *two = VEC(&r, 1, 2), *four = VEC(&r, 1, 2, 3, 4);
  kn_rvalue out[2];
  OK(rig_ctx(&r), RUN(&r, out, 2, T(two)));
  GIVES(&out[0], 1, 2);
  GIVES(&out[1], 1, 2);
  ck_assert_ptr_null(strstr(r.log, "neg"));
  OK(rig_ctx(&r), RUN(&r, out, 2, T(four)));
  GIVES(&out[0], -1, -2, -3);
  GIVES(&out[1], 1, 2, 3);
  ck_assert_ptr_nonnull(strstr(r.log, "exec ref      neg            ref:plain"));
  ck_assert_ptr_nonnull(strstr(r.log, "%h float32[3]"));
  ck_assert_ptr_nonnull(strstr(r.log, "%t float32[3]                    a.lua:4"));
  ck_assert_ptr_null(strstr(r.log, "lua.lt"));
  kn_tensor_release(two), kn_tensor_release(four);
  rig_close(&r);
}
END_TEST

/* Sizes that make a node impossible are an error of the run, at the node, and only when it is reached. */
START_TEST(impossible_sizes) {
  rig r;
  rig_open(&r, "graph g(%x: float32[N], %y: float32[M], %c: boolean) {\n"
               "  %z: float32[?] = if %c {\n"
               "    %s: float32[?] = add %x, %y     ; a.lua:7 <- a.lua:20\n"
               "    %t: float32[?] = neg %s         ; a.lua:8\n"
               "    yield %t\n"
               "  } else {\n"
               "    yield %x\n"
               "  }\n"
               "  return %z\n"
               "}\n");
  kn_tensor *two = VEC(&r, 1, 2), *three = VEC(&r, 1, 2, 3);
  kn_rvalue out[1];
  OK(rig_ctx(&r), RUN(&r, out, 1, T(two), T(three), BOOL(false)));
  GIVES(out, 1, 2);
  FAILS(rig_ctx(&r), KN_SHAPE, "a.lua:7: add: ", RUN(&r, out, 1, T(two), T(three), BOOL(true)));
  OK(rig_ctx(&r), RUN(&r, out, 1, T(two), T(two), BOOL(true)));
  GIVES(out, -2, -4);
  kn_tensor_release(two), kn_tensor_release(three);
  rig_close(&r);
}
END_TEST

START_TEST(other_devices) {
  static const char *const texts[] = {
      "graph g() {\n  slot param \"k\": float32[2]@cuda\n  %k = param \"k\"\n  return %k\n}\n",
      "graph g(%x: float32[2]@cuda) {\n  return %x\n}\n"};
  static const char *const said[] = {"k is on device cuda", "x is on device cuda"};
  kn_context *c = suite_context();
  for (int i = 0; i < 2; i++) {
    kn_target t;
    kn_session *s;
    kn_graph *g = parse(c, texts[i]);
    ck_assert(kn_ref_backend.target(c, NULL, &t));
    FAILS(c, KN_UNSUPPORTED, said[i], kn_session_new(c, g, (const kn_target *[]){&t}, 1, &s));
    kn_graph_release(g);
  }
  suite_done(c);
}
END_TEST

/* ---- views ---- */

START_TEST(views) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2,3], %i: integer, %j: integer) {\n"
               "  %a: float32[2,3] = neg %x\n"
               "  %t: float32[3,2] = transpose %a\n"
               "  %flat: float32[6] = reshape %t {sizes = {6}}\n" /* has to copy: planned */
               "  %xt: float32[3,2] = transpose %x\n"
               "  %xflat: float32[6] = reshape %xt {sizes = {-1}}\n"    /* has to copy: when it runs */
               "  %row: float32[3] = select %a {dim = 1, index = %i}\n" /* offset known when it runs */
               "  %some: float32[2,?] = slice %a {dim = 2, start = %j}\n"
               "  %dbl: float32[2,?] = add %some, %some\n"
               "  %sum: float32[6] = add %flat, %xflat\n"
               "  %big: float32[4,3] = expand %row {sizes = {4, 3}}\n"
               "  %col: float32[2] = select %t {dim = 1, index = 2}\n"
               "  return %flat, %xflat, %row, %dbl, %sum, %big, %col, %t\n"
               "}\n");
  kn_tensor *x = f32(&r, DIMS(2, 3), LIST(1, 2, 3, 4, 5, 6));
  kn_rvalue out[8];
  kn_context *c = rig_ctx(&r);
  for (int n = 0; n < 3; n++) {
    OK(c, RUN(&r, out, 8, T(x), INT(n % 2 ? -1 : 0), INT(1)));
    GIVES(&out[0], -1, -4, -2, -5, -3, -6);
    GIVES(&out[1], 1, 4, 2, 5, 3, 6);
    if (n % 2)
      GIVES(&out[2], -4, -5, -6);
    else
      GIVES(&out[2], -1, -2, -3);
    gives(&out[3], DIMS(2, 2), LIST(-4, -6, -10, -12));
    GIVES(&out[4], 0, 0, 0, 0, 0, 0);
    ck_assert_int_eq(out[5].tensor->strides[0], 3); /* results are contiguous */
    if (n % 2)
      gives(&out[5], DIMS(4, 3), LIST(-4, -5, -6, -4, -5, -6, -4, -5, -6, -4, -5, -6));
    else
      gives(&out[5], DIMS(4, 3), LIST(-1, -2, -3, -1, -2, -3, -1, -2, -3, -1, -2, -3));
    GIVES(&out[6], -2, -5);
    gives(&out[7], DIMS(3, 2), LIST(-1, -4, -2, -5, -3, -6));
  }
  FAILS(c, KN_INDEX, "select: index 3 is out of range", RUN(&r, out, 8, T(x), INT(2), INT(1)));
  FAILS(c, KN_INDEX, "select: index -3 is out of range", RUN(&r, out, 8, T(x), INT(-3), INT(1)));
  kn_tensor *sq; /* an input that is not contiguous */
  OK(r.c, kn_apply(r.c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, &x, 1, &sq));
  kn_tensor *st = f32(&r, DIMS(3, 2), LIST(1, 4, 2, 5, 3, 6)), *back;
  OK(r.c, kn_apply(r.c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, &st, 1, &back));
  OK(c, RUN(&r, out, 8, T(back), INT(1), INT(2)));
  GIVES(&out[0], -1, -4, -2, -5, -3, -6);
  GIVES(&out[1], 1, 4, 2, 5, 3, 6);
  for (int i = 2; i < 8; i++) kn_tensor_release(out[i].tensor);
  kn_tensor_release(x), kn_tensor_release(sq), kn_tensor_release(st), kn_tensor_release(back);
  rig_close(&r);
}
END_TEST

/* Whatever a result is a view of, it does not change when the graph runs again. */
START_TEST(results_are_their_own) {
  rig r;
  rig_open(&r, "graph g(%x: float32[3], %j: integer, %c: boolean) {\n"
               "  %a: float32[3] = neg %x\n"
               "  %v: float32[?] = slice %a {dim = 1, start = %j}\n"
               "  %i: float32[3] = if %c {\n"
               "    yield %a\n"
               "  } else {\n"
               "    yield %x\n"
               "  }\n"
               "  %f: float32[3] = reshape %a {sizes = {3}}\n"
               "  return %v, %i, %f, %i, %x\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2, 3), *y = VEC(&r, 4, 5, 6);
  kn_rvalue a[5], b[5];
  OK(rig_ctx(&r), RUN(&r, a, 5, T(x), INT(1), BOOL(true)));
  OK(rig_ctx(&r), RUN(&r, b, 5, T(y), INT(1), BOOL(false)));
  ck_assert_ptr_eq(a[1].tensor, a[3].tensor); /* one value, one tensor */
  set_element(x, 0, 7);
  GIVES(&a[0], -2, -3);
  GIVES(&a[1], -1, -2, -3);
  GIVES(&a[2], -1, -2, -3);
  GIVES(&a[3], -1, -2, -3);
  GIVES(&a[4], 1, 2, 3);
  GIVES(&b[0], -5, -6);
  for (int i = 1; i < 5; i++) kn_tensor_release(b[i].tensor);
  kn_tensor_release(x), kn_tensor_release(y);
  rig_close(&r);
}
END_TEST

START_TEST(nothing_goes_in) {
  rig r;
  rig_open(&r, "graph g() {\n"
               "  %a: float32[2] = full {sizes = {2}, value = 3.0}\n"
               "  return %a\n"
               "}\n");
  kn_rvalue out[1];
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), kn_session_run(r.s, NULL, 0, out, 1));
    GIVES(&out[0], 3, 3);
  }
  rig_close(&r);
}
END_TEST

/* ---- undefined values, raise, assert ---- */

START_TEST(undefined_values) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %n: integer) {\n"
               "  %one = const 1\n"
               "  %none: float32[2] = undef\n"
               "  %unset: boolean = undef\n"
               "  %y: float32[2], %z: float32[2] = loop (%h: float32[2] = %none, %has: boolean = %unset, %i: "
               "integer = %one) {\n"
               "    %h2: float32[2] = if %has {\n"
               "      %a: float32[2] = add %h, %x      ; a.lua:3\n"
               "      yield %a\n"
               "    } else {\n"
               "      yield %x\n"
               "    }\n"
               "    %yes = const true\n"
               "    %more: boolean = lua.lt %i, %n\n"
               "    %i2: integer = lua.add %i, %one\n"
               "    continue_if %more next(%h2, %yes, %i2) exit(%h2, %h)\n"
               "  }\n"
               "  %two = const 2\n"
               "  %use: boolean = lua.le %two, %n\n"
               "  %w: float32[2] = if %use {\n"
               "    %m: float32[2] = neg %z\n"
               "    yield %m\n"
               "  } else {\n"
               "    yield %y\n"
               "  }\n"
               "  return %w\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[1];
  for (int i = 0; i < 2; i++) {
    OK(rig_ctx(&r), RUN(&r, out, 1, T(x), INT(1)));
    GIVES(out, 1, 2);
    OK(rig_ctx(&r), RUN(&r, out, 1, T(x), INT(4)));
    GIVES(out, -3, -6);
  }
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

START_TEST(undefined_is_not_used) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %c: boolean, %d: boolean) {\n"
               "  %y: float32[2] = if %c {\n"
               "    yield %x\n"
               "  } else {\n"
               "    %none: float32[2] = undef\n"
               "    yield %none\n"
               "  }\n"
               "  %z: float32[2] = if %d {\n"
               "    %a: float32[2] = neg %y          ; a.lua:5\n"
               "    yield %a\n"
               "  } else {\n"
               "    %gone: float32[2] = undef\n"
               "    %s: float32[2] = sin %gone       ; a.lua:9\n"
               "    yield %s\n"
               "  }\n"
               "  return %z\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[1];
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), BOOL(true), BOOL(true)));
  GIVES(out, -1, -2);
  FAILS(rig_ctx(&r), KN_FORMAT, "a.lua:5: neg: an input has no value",
        RUN(&r, out, 1, T(x), BOOL(false), BOOL(true)));
  FAILS(rig_ctx(&r), KN_FORMAT, "a.lua:9: sin: an input has no value",
        RUN(&r, out, 1, T(x), BOOL(true), BOOL(false)));
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

START_TEST(raise_and_assert) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %n: integer, %ok: boolean) {\n"
               "  assert %ok \"assertion failed!\"                    ; a.lua:2\n"
               "  %zero = const 0\n"
               "  %big: boolean = lua.lt %zero, %n\n"
               "  %y: float32[2] = if %big {\n"
               "    %h: float32[2] = neg %x\n"
               "    yield %h\n"
               "  } else {\n"
               "    raise \"n is too small\"                          ; a.lua:5 <- a.lua:9\n"
               "    %none: float32[2] = undef\n"
               "    yield %none\n"
               "  }\n"
               "  %seven = const 7\n"
               "  %left: integer = lua.sub %n, %seven\n"
               "  %m: integer = lua.mod %n, %left                      ; a.lua:12\n"
               "  return %y, %m\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[2];
  kn_context *c = rig_ctx(&r);
  OK(c, RUN(&r, out, 2, T(x), INT(2), BOOL(true)));
  GIVES(&out[0], -1, -2);
  FAILS(c, KN_RAISED, "assertion failed!", RUN(&r, out, 2, T(x), INT(2), BOOL(false)));
  ck_assert_str_eq(kn_error(c), "assertion failed!");
  FAILS(c, KN_RAISED, "", RUN(&r, out, 2, T(x), INT(0), BOOL(true)));
  ck_assert_str_eq(kn_error(c), "a.lua:5: n is too small");
  FAILS(c, KN_RAISED, "", RUN(&r, out, 2, T(x), INT(7), BOOL(true)));
  ck_assert_str_eq(kn_error(c), "a.lua:12: attempt to perform 'n%0'");
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

static void keep_all(void *ud, kn_out kind, const char *text, size_t len) {
  char *all = ud, mark[8];
  snprintf(mark, sizeof mark, "%d:", (int)kind);
  strcat(all, mark);
  strncat(all, text, len);
}

/* What Lua's tostring, string.format and io.write make of the values; in the order of the program. */
START_TEST(texts_with_values) {
  rig r;
  char all[2000] = "";
  rig_open(&r, "graph g(%x: float32[2], %n: integer, %f: float, %b: boolean) {\n"
               "  print %x, %n, %f, %b \"%s %s %s %s\\n\"\n"
               "  if %b {\n"
               "    write %n, %f \"%w %w%%%z\"\n"
               "  } else {\n"
               "    write_error %n, %f, %x \"%+5d|%-6.2f|%10s\"\n"
               "  }\n"
               "  warn \"@on\"\n"
               "  %one = const 1.5\n"
               "  %small: boolean = lua.lt %f, %one\n"
               "  assert %small, %f \"%g is large\"\n"
               "  print %f \"%d\\n\"                                     ; a.lua:9\n"
               "  return %n\n"
               "}\n");
  kn_session_context(r.s)->output = keep_all;
  kn_session_context(r.s)->output_ud = all;
  kn_tensor *x = VEC(&r, 1, 2.5);
  kn_rvalue out[1];
  OK(rig_ctx(&r), RUN(&r, out, 1, T(x), INT(-3), NUM(1), BOOL(true)));
  ck_assert_str_eq(all,
                   "0:{1.0000, 2.5000}\nfloat32[2] -3 1.0 true\n4:-3 1%2:@on0:1\n"); /* its zero ends it */
  all[0] = 0;
  FAILS(rig_ctx(&r), KN_RAISED, "a.lua:9: bad argument #2 to 'format' (number has no integer representation)",
        RUN(&r, out, 1, T(x), INT(7), NUM(-0.125), BOOL(false)));
  ck_assert_str_eq(all, "0:{1.0000, 2.5000}\nfloat32[2] 7 -0.125 false\n"
                        "3:   +7|-0.12 |{1.0000, 2.5000}\nfloat32[2]2:@on");
  FAILS(rig_ctx(&r), KN_RAISED, "1e+100 is large", RUN(&r, out, 1, T(x), INT(7), NUM(1e100), BOOL(true)));
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

/* A list that grows in a loop, read back in the other direction; elements may be undefined. */
START_TEST(lists) {
  rig r;
  rig_open(
      &r,
      "graph g(%x: float32[2], %n: integer, %at: integer) {\n"
      "  %none: list[float32[2]] = list\n"
      "  %empty: list[float32[2]] = list\n"
      "  %one = const 1\n"
      "  %all: list[float32[2]], %last: float32[2] = loop (%l: list[float32[2]] = %none, %y: float32[2] = %x,"
      " %i: integer = %one) {\n"
      "    %m: list[float32[2]] = append %l, %y\n"
      "    %z: float32[2] = add %y, %y\n"
      "    %j: integer = lua.add %i, %one\n"
      "    %more: boolean = lua.lt %i, %n\n"
      "    continue_if %more next(%m, %z, %j) exit(%m, %z)\n"
      "  }\n"
      "  %nothing: float32[2] = undef\n"
      "  %holes: list[float32[2]] = append %all, %nothing\n"
      "  %count: integer = length %holes\n"
      "  %t: float32[?,2] = list_stack %all                   ; a.lua:3\n"
      "  %e: float32[2] = element %holes, %at                 ; a.lua:4\n"
      "  %d: boolean = defined %e\n"
      "  %zero: integer = length %empty\n"
      "  return %t, %count, %d, %zero, %last\n"
      "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[5];
  kn_context *c = rig_ctx(&r);
  for (int at = 1; at <= 4; at++) {
    OK(c, RUN(&r, out, 5, T(x), INT(3), INT(at)));
    gives(&out[0], DIMS(3, 2), LIST(1, 2, 2, 4, 4, 8));
    ck_assert(out[1].scalar.as.i == 4 && out[2].scalar.as.b == (at < 4) && out[3].scalar.as.i == 0);
    GIVES(&out[4], 8, 16);
  }
  FAILS(c, KN_INDEX, "a.lua:4: element 5 of a list of 4 does not exist",
        RUN(&r, out, 5, T(x), INT(3), INT(5)));
  FAILS(c, KN_INDEX, "element 0 of a list", RUN(&r, out, 5, T(x), INT(3), INT(0)));
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

START_TEST(lists_in_lists) {
  rig r;
  rig_open(&r, "graph g(%x: float32[2], %n: integer) {\n"
               "  %rows: list[list[float32[2]]] = list\n"
               "  %k: list[integer] = list\n"
               "  %row: list[float32[2]] = list\n"
               "  %a: list[float32[2]] = append %row, %x\n"
               "  %y: float32[2] = neg %x\n"
               "  %b: list[float32[2]] = append %a, %y\n"
               "  %c: list[float32[2]] = append %a, %x\n"
               "  %r1: list[list[float32[2]]] = append %rows, %b\n"
               "  %r2: list[list[float32[2]]] = append %r1, %c\n"
               "  %k1: list[integer] = append %k, %n\n"
               "  %two = const 2\n"
               "  %one = const 1\n"
               "  %got: list[float32[2]] = element %r2, %n\n"
               "  %z: float32[2] = element %got, %two\n"
               "  %n2: integer = element %k1, %one\n"
               "  return %z, %n2\n"
               "}\n");
  kn_tensor *x = VEC(&r, 1, 2);
  kn_rvalue out[2];
  kn_context *c = rig_ctx(&r);
  OK(c, RUN(&r, out, 2, T(x), INT(1)));
  GIVES(&out[0], -1, -2);
  OK(c, RUN(&r, out, 2, T(x), INT(2)));
  GIVES(&out[0], 1, 2);
  ck_assert(out[1].scalar.as.i == 2);
  kn_tensor_release(x);
  rig_close(&r);
}
END_TEST

SUITE("exec", straight_line, both_branches, nested_ifs, branches_of_two_sizes, counted_loop,
      carried_values_overlap, nested_loops, growing_loop, named_sizes, scalar_kinds, sizes_decide,
      impossible_sizes, other_devices, views, results_are_their_own, nothing_goes_in, undefined_values,
      undefined_is_not_used, raise_and_assert, texts_with_values, lists, lists_in_lists)
