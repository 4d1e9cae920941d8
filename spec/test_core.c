/* The ground floor of core: heap, arena, dtypes, types, attributes, contexts, tensors, numbers, devices, the
 * stream of random numbers. Ops have suites of their own. */
#include "core/arena.h"
#include "core/device.h"
#include "core/grad/tape.h"
#include "core/spare.h"
#include "spec/tensors.h"

/* ---- heap ---- */

START_TEST(heap_counts) {
  kn_heap *h = kn_heap_new(NULL, NULL, 0);
  char *a = kn_alloc(h, 100), *b = kn_calloc(h, 10, 5);
  for (int i = 0; i < 50; i++) ck_assert_int_eq(b[i], 0);
  kn_heap_stats s = kn_heap_read_stats(h);
  ck_assert_uint_eq(s.bytes, 150);
  ck_assert_uint_eq(s.blocks, 2);
  a[0] = 'x', a[99] = 'y';
  a = kn_realloc(h, a, 100, 300);
  ck_assert(a[0] == 'x' && a[99] == 'y');
  a = kn_realloc(h, a, 300, 20);
  ck_assert_uint_eq(kn_heap_read_stats(h).bytes, 70);
  ck_assert_uint_ge(kn_heap_read_stats(h).peak, 350);
  kn_free(h, a, 20);
  kn_free(h, b, 50);
  kn_free(h, NULL, 7);
  s = kn_heap_read_stats(h);
  ck_assert_uint_eq(s.bytes, 0);
  ck_assert_uint_eq(s.blocks, 0);
  kn_heap_release(h);
}

START_TEST(heap_limit) {
  kn_heap *h = kn_heap_new(NULL, NULL, 1000);
  void *a = kn_alloc(h, 900);
  ck_assert_ptr_nonnull(a);
  ck_assert_ptr_null(kn_alloc(h, 101));
  ck_assert_ptr_null(kn_realloc(h, a, 900, 1001));
  ck_assert_uint_eq(kn_heap_read_stats(h).bytes, 900);
  void *b = kn_alloc(h, 100);
  ck_assert_ptr_nonnull(b);
  kn_free(h, b, 100);
  kn_heap_set_limit(h, 2000);
  b = kn_alloc(h, 1000);
  ck_assert_ptr_nonnull(b);
  kn_free(h, b, 1000);
  kn_free(h, a, 900);
  ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
  kn_heap_release(h);
}

START_TEST(heap_peak) {
  kn_heap *h = kn_heap_new(NULL, NULL, 5000);
  kn_free(h, kn_alloc(h, 1000), 1000);
  ck_assert_uint_eq(kn_heap_read_stats(h).peak, 1000);
  ck_assert_uint_eq(kn_heap_read_stats(h).limit, 5000);
  void *a = kn_alloc(h, 10);
  kn_heap_reset_peak(h);
  ck_assert_uint_eq(kn_heap_read_stats(h).peak, 10);
  kn_free(h, a, 10);
  kn_heap_release(h);
}

/* Gives back a tensor the first time it is asked. */
typedef struct hoard {
  kn_tensor *t;
  int asked;
} hoard;

static void let_go(void *ud) {
  hoard *h = ud;
  h->asked++;
  kn_tensor_release(h->t);
  h->t = NULL;
}

START_TEST(reclaimers) {
  kn_context *c = suite_context(), *child = kn_context_child(c);
  hoard h = {NULL, 0}, second = {NULL, 0};
  kn_reclaimer one = {.fn = let_go, .ud = &h}, two = {.fn = let_go, .ud = &second};
  kn_type type = {.dtype = KN_F32, .rank = 1, .dims = {900}};
  kn_tensor *t, *u;
  OK(c, kn_tensor_new(c, &type, &h.t));
  kn_heap_set_limit(c->heap, kn_heap_read_stats(c->heap).bytes + 1000);
  kn_context_add_reclaimer(c, &one);
  kn_context_add_reclaimer(c, &two);
  FAILS(child, KN_NOMEM, "and a limit of ", kn_tensor_new(child, &type, &t)); /* maybe another thread's */
  ck_assert_int_eq(h.asked, 0);
  child->reclaims = true;
  OK(child, kn_tensor_new(child, &type, &t));
  ck_assert_int_eq(h.asked, 1);
  ck_assert_int_eq(second.asked, 1);
  FAILS(c, KN_NOMEM, "out of memory: wanted 3600 more bytes with ", kn_tensor_new(c, &type, &u));
  ck_assert_int_eq(h.asked, 2);
  kn_context_remove_reclaimer(c, &one);
  kn_context_remove_reclaimer(c, &one);
  FAILS(c, KN_NOMEM, "", kn_tensor_new(c, &type, &u));
  ck_assert_int_eq(h.asked, 2);
  ck_assert_int_eq(second.asked, 3);
  kn_context_remove_reclaimer(c, &two);
  kn_tensor_release(t);
  kn_context_free(child);
  suite_done(c);
}

static int spares_left;
static void count_leaving(void *ud, void *raw, size_t size) {
  (void)ud, (void)size;
  spares_left++;
  free(raw);
}

START_TEST(spare_blocks) {
  static kn_spares s;
  size_t whole = 0;
  ck_assert_ptr_null(kn_spares_take(&s, 1000, &whole));
  void *a = malloc(1200), *b = malloc(1100), *c = malloc(1100);
  kn_spares_put(&s, a, 1200, count_leaving, NULL);
  kn_spares_put(&s, b, 1100, count_leaving, NULL);
  kn_spares_put(&s, c, 1100, count_leaving, NULL);
  ck_assert_ptr_null(kn_spares_take(&s, 1201, &whole)); /* too small, or much too large */
  ck_assert_ptr_null(kn_spares_take(&s, 600, &whole));
  ck_assert_ptr_eq(kn_spares_take(&s, 1000, &whole), c); /* the last one that came */
  ck_assert_uint_eq(whole, 1100);
  ck_assert_ptr_eq(kn_spares_take(&s, 900, &whole), b);
  ck_assert_ptr_eq(kn_spares_take(&s, 1200, &whole), a);
  ck_assert_uint_eq(whole, 1200);
  ck_assert_uint_eq(atomic_load(&s.bytes), 0);
  for (int i = 0; i < 100; i++)
    kn_spares_put(&s, malloc(64 + 8 * (size_t)i), 64 + 8 * (size_t)i, count_leaving, NULL);
  ck_assert_int_eq(spares_left, 0);
  kn_spares_put(&s, a, KN_SPARE_MOST - 64 - 8 * 98, count_leaving,
                NULL); /* so many bytes: the oldest ones give way */
  ck_assert_int_eq(spares_left, 100);
  kn_spares_put(&s, b, 700, count_leaving, NULL);
  ck_assert_int_eq(spares_left, 100);
  kn_spares_put(&s, c, 200, count_leaving, NULL);
  ck_assert_int_eq(spares_left, 101);
  ck_assert_uint_eq(atomic_load(&s.bytes), 900);
  kn_spares_put(&s, malloc(64), (size_t)KN_SPARE_MOST + 1, count_leaving, NULL); /* never kept */
  ck_assert_int_eq(spares_left, 102);
  kn_spares_drop(&s, count_leaving, NULL);
  ck_assert_int_eq(spares_left, 104);
  ck_assert_uint_eq(atomic_load(&s.bytes), 0);
}
END_TEST

START_TEST(heap_with_spare_blocks) {
  enum { BIG = 1 << 20 };
  kn_heap *h = kn_heap_new(NULL, NULL, 0);
  for (int round = 0; round < 3; round++) { /* counted as if there were none */
    char *p = kn_alloc_aligned(h, BIG), *q = kn_alloc_aligned(h, BIG - 1000 * (size_t)round);
    ck_assert(p && q && p != q && (uintptr_t)p % 64 == 0 && (uintptr_t)q % 64 == 0);
    memset(p, 1, BIG), memset(q, 2, BIG - 1000 * (size_t)round);
    ck_assert_int_eq(p[BIG - 1], 1);
    ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 2);
    ck_assert_uint_eq(kn_heap_read_stats(h).calls, 2 * (uint64_t)(round + 1));
    kn_free_aligned(h, p, BIG);
    kn_free_aligned(h, q, BIG - 1000 * (size_t)round);
    ck_assert_uint_eq(kn_heap_read_stats(h).bytes, 0);
    ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
  }
  ck_assert_uint_lt(kn_heap_read_stats(h).peak, 2 * BIG + 1000);
#if !defined(__SANITIZE_ADDRESS__)
  ck_assert_uint_ge(kn_heap_read_stats(h).cached, 2 * BIG - 2000);
#endif
  kn_heap_empty_cache(h);
  ck_assert_uint_eq(kn_heap_read_stats(h).cached, 0);
  kn_free_aligned(h, kn_alloc_aligned(h, BIG), BIG);
  kn_heap_set_limit(h, BIG / 2); /* a spare block is no way around the limit */
  ck_assert_ptr_null(kn_alloc_aligned(h, BIG));
  ck_assert_uint_eq(kn_heap_read_stats(h).bytes, 0);
  void *small = kn_alloc_aligned(h, BIG / 4); /* and what is spare gives way to what is used */
  ck_assert_ptr_nonnull(small);
  kn_free_aligned(h, small, BIG / 4);
  kn_heap_release(h);
}
END_TEST

START_TEST(heap_overflow_and_zero) {
  kn_heap *h = kn_heap_new(NULL, NULL, 0);
  ck_assert_ptr_null(kn_calloc(h, SIZE_MAX / 2, 3));
  ck_assert_ptr_null(kn_alloc_aligned(h, SIZE_MAX - 8));
  void *a = kn_alloc(h, 0), *b = kn_alloc(h, 0);
  ck_assert(a && b && a != b);
  a = kn_realloc(h, a, 0, 0);
  kn_free(h, a, 0);
  kn_free(h, b, 0);
  for (size_t size = 0; size < 200; size += 33) {
    void *p = kn_alloc_aligned(h, size);
    ck_assert_uint_eq((uintptr_t)p % 64, 0);
    memset(p, 1, size);
    kn_free_aligned(h, p, size);
  }
  ck_assert_uint_eq(kn_heap_read_stats(h).bytes, 0);
  ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
  kn_heap_release(h);
}

static void *counting_alloc(void *ud, void *p, size_t osize, size_t nsize) {
  (void)osize;
  ++*(int *)ud;
  if (nsize) return realloc(p, nsize);
  free(p);
  return NULL;
}

START_TEST(heap_of_the_host) {
  int calls = 0;
  kn_heap *h = kn_heap_new(counting_alloc, &calls, 0);
  kn_context *c = kn_context_new(h, NULL);
  kn_heap_release(h);
  kn_tensor *t = make(c, KN_F32, DIMS(3), LIST(1, 2, 3));
  kn_context_free(c); /* the tensor keeps the heap */
  ck_assert(element(t, 2) == 3);
  kn_tensor_release(t);
  ck_assert_int_gt(calls, 5);
  ck_assert_int_eq(calls % 2, 0); /* each block was freed */
}

/* ---- arena ---- */

START_TEST(arena_holds) {
  kn_heap *h = kn_heap_new(NULL, NULL, 0);
  kn_arena a;
  kn_arena_init(&a, h);
  ck_assert_ptr_nonnull(kn_arena_alloc(&a, 0)); /* NULL would mean out of memory */
  char *text = kn_arena_strdup(&a, "kiln");
  int *big = kn_arena_alloc(&a, 100000);
  for (int i = 0; i < 25000; i++) ck_assert_int_eq(big[i], 0);
  for (int i = 0; i < 5000; i++) {
    char *p = kn_arena_alloc(&a, (size_t)i % 40);
    ck_assert_uint_eq((uintptr_t)p % 16, 0);
    memset(p, 0xff, (size_t)i % 40);
  }
  ck_assert_str_eq(text, "kiln");
  ck_assert_ptr_null(kn_arena_strdup(&a, NULL));
  int *list = NULL;
  for (int i = 0; i < 1000; i++) {
    list = kn_arena_grow(&a, list, (size_t)i, sizeof *list);
    list[i] = i;
  }
  for (int i = 0; i < 1000; i++) ck_assert_int_eq(list[i], i);
  ck_assert_ptr_null(kn_arena_alloc(&a, SIZE_MAX));
  kn_arena_free(&a);
  ck_assert_uint_eq(kn_heap_read_stats(h).blocks, 0);
  ck_assert_ptr_nonnull(kn_arena_dup(&a, "again", 6));
  kn_heap_set_limit(h, 1);
  ck_assert_ptr_null(kn_arena_alloc(&a, 1 << 20));
  kn_arena_free(&a);
  kn_heap_release(h);
}

/* ---- dtypes and types ---- */

START_TEST(dtypes) {
  kn_dtype d = KN_BOOL;
  for (int i = 0; i < KN_DTYPE_COUNT; i++) {
    ck_assert(kn_dtype_parse(kn_dtype_name((kn_dtype)i), &d));
    ck_assert_int_eq((int)d, i);
  }
  ck_assert(!kn_dtype_parse("float31", &d));
  ck_assert_int_eq(kn_dtype_promote(KN_BOOL, KN_I64), KN_I64);
  ck_assert_int_eq(kn_dtype_promote(KN_F32, KN_I64), KN_F32);
  ck_assert_int_eq(kn_dtype_promote(KN_F32, KN_F64), KN_F64);
  ck_assert_int_eq(kn_scalar_dtype(KN_SCALAR_FLOAT, KN_I64), KN_F32);
  ck_assert_int_eq(kn_scalar_dtype(KN_SCALAR_FLOAT, KN_F64), KN_F64);
  ck_assert_int_eq(kn_scalar_dtype(KN_SCALAR_INT, KN_BOOL), KN_I64);
  ck_assert_int_eq(kn_scalar_dtype(KN_SCALAR_INT, KN_F32), KN_F32);
  ck_assert_int_eq(kn_scalar_dtype(KN_SCALAR_BOOL, KN_BOOL), KN_BOOL);
  ck_assert(kn_f64_to_i64(-2.9) == -2 && kn_f64_to_i64(NAN) == 0);
  ck_assert(kn_f64_to_i64(1e300) == INT64_MAX && kn_f64_to_i64(-INFINITY) == INT64_MIN);
}

START_TEST(types) {
  char text[KN_TYPE_TEXT], tiny[8];
  kn_type t = type_of(KN_F32, DIMS(2, KN_DIM_UNKNOWN, KN_DIM_SYMBOL(3)));
  ck_assert_str_eq(kn_type_text(&t, text, sizeof text), "float32[2,?,s3]");
  ck_assert_str_eq(kn_type_text(&t, tiny, sizeof tiny), "float32");
  ck_assert(!kn_type_known(&t) && kn_type_numel(&t) == KN_DIM_UNKNOWN);
  t = type_of(KN_F64, SCALAR);
  ck_assert_str_eq(kn_type_text(&t, text, sizeof text), "float64[]");
  size_t bytes;
  ck_assert(kn_type_numel(&t) == 1 && kn_type_bytes(&t, &bytes) && bytes == 8);
  t = type_of(KN_I64, DIMS(1000, 0, 3));
  ck_assert(kn_type_numel(&t) == 0 && kn_type_bytes(&t, &bytes) && bytes == 0);
  t = type_of(KN_BOOL, DIMS(INT64_MAX / 8, 0, 3)); /* its strides would not fit */
  ck_assert(kn_type_numel(&t) == -2 && !kn_type_bytes(&t, &bytes));
  t = type_of(KN_I64, DIMS(INT64_MAX / 2, 3));
  ck_assert(kn_type_numel(&t) == -2 && !kn_type_bytes(&t, &bytes));
  t = type_of(KN_I64, DIMS(INT64_MAX / 4));
  ck_assert(!kn_type_bytes(&t, &bytes));
  kn_type u = type_of(KN_BOOL, DIMS(2)), v = type_of(KN_BOOL, DIMS(3));
  ck_assert(kn_type_equal(&u, &u) && !kn_type_equal(&u, &v));
  t = type_of(KN_BOOL,
              DIMS(INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX));
  ck_assert_uint_eq(strlen(kn_type_text(&t, text, sizeof text)), KN_TYPE_TEXT - 1);
}

/* ---- attributes ---- */

static void count_ints(void *ud, int64_t *v) {
  (void)v;
  ++*(int *)ud;
}

START_TEST(attributes) {
  for (int k = 0; k < KN_ATTRS_COUNT; k++) {
    kn_attrs_any a, b;
    memset(&a, 0x5a, sizeof a), memset(&b, 0x33, sizeof b);
    kn_attrs_default((kn_attrs_kind)k, &a);
    kn_attrs_default((kn_attrs_kind)k, &b);
    ck_assert(kn_attrs_equal((kn_attrs_kind)k, &a, &b));
    ck_assert_uint_le(kn_attrs_describe((kn_attrs_kind)k).size, sizeof a);
  }
  kn_attrs_conv2d a, b;
  kn_attrs_default(KN_ATTRS_conv2d, &a);
  ck_assert(a.stride.n == 1 && a.stride.v[0] == 1 && a.padding.v[0] == 0 && a.groups == 1);
  b = a;
  b.padding = DIMS(0, 1);
  ck_assert(!kn_attrs_equal(KN_ATTRS_conv2d, &a, &b));
  int ints = 0;
  kn_attrs_each_int(KN_ATTRS_conv2d, &b, count_ints, &ints);
  ck_assert_int_eq(ints, 5);
  kn_attrs_slice s;
  kn_attrs_default(KN_ATTRS_slice, &s);
  ck_assert(s.start == 0 && s.stop == KN_TO_END && s.step == 1);
  kn_attrs_info info = kn_attrs_describe(KN_ATTRS_slice);
  ck_assert(info.fields[0].required && !info.fields[1].required && !info.fields[4].name);
  ck_assert(kn_is_dyn(KN_DYN(7)) && kn_dyn_index(KN_DYN(7)) == 7);
  ck_assert(!kn_is_dyn(KN_NONE) && !kn_is_dyn(KN_TO_END) && !kn_is_dyn(KN_REQUIRED) && !kn_is_dyn(-1));
}

/* ---- contexts and errors ---- */

START_TEST(error_text) {
  kn_context *c = suite_context();
  ck_assert_str_eq(kn_error(c), "");
  ck_assert_int_eq(kn_fail(c, KN_SHAPE, "%d things", 3), KN_SHAPE);
  ck_assert_str_eq(kn_error(c), "3 things");
  kn_fail(c, KN_SHAPE, "twice: %s", kn_error(c));
  kn_error_prefix(c, "%s", "op");
  ck_assert_str_eq(kn_error(c), "op: twice: 3 things");
  char big[3 * KN_ERROR_SIZE];
  memset(big, 'x', sizeof big - 1);
  big[sizeof big - 1] = 0;
  kn_fail(c, KN_ARG, "%s", big);
  kn_error_prefix(c, "%s", "op");
  ck_assert_uint_eq(strlen(kn_error(c)), KN_ERROR_SIZE - 1);
  ck_assert(!strncmp(kn_error(c), "op: xxx", 7));
  kn_error_prefix(c, "%s", big);
  ck_assert_uint_lt(strlen(kn_error(c)), KN_ERROR_SIZE);
  ck_assert_str_eq(kn_status_text(KN_NOMEM), "out of memory");
  ck_assert_str_eq(kn_status_text((kn_status)99), "unknown status");
  ck_assert_str_eq(kn_status_text(KN_DECLINED), "unknown status");
  suite_done(c);
}

static void keep_log(void *ud, kn_out kind, const char *text, size_t len) {
  ck_assert_int_eq(kind, KN_OUT_LOG);
  ck_assert_uint_eq(strlen(text), len);
  snprintf(ud, 256, "%s", text);
}

static kn_status decline(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                         kn_tensor *const *out) {
  (void)ctx, (void)attrs, (void)in, (void)n, (void)out;
  return KN_DECLINED;
}

static kn_status always_seven(kn_context *ctx, const void *attrs, kn_tensor *const *in, int n,
                              kn_tensor *const *out) {
  (void)ctx, (void)attrs, (void)in, (void)n;
  *(float *)kn_tensor_data(out[0]) = 7;
  return KN_OK;
}

START_TEST(providers_in_order) {
  static const kn_provider shy = {.name = "shy", .kernel = {[KN_OP_neg] = decline, [KN_OP_exp] = decline}};
  static const kn_provider seven = {.name = "seven", .kernel = {[KN_OP_exp] = always_seven}};
  char log[256] = "";
  kn_context *c = kn_context_new(NULL, "exec,dispatch,nonsense");
  c->output = keep_log;
  c->output_ud = log;
  OK(c, kn_device_add(c, KN_CPU, &seven));
  OK(c, kn_device_add(c, KN_CPU, &shy));
  kn_tensor *x = number(c, KN_F32, 1), *y;
  OK(c, kn_apply(c, KN_OP_neg, NULL, &x, 1, &y));
  ck_assert(element(y, 0) == -1);
  ck_assert_str_eq(log, "dispatch: neg(float32[]) ran on ref (shy declined)");
  kn_tensor_release(y);
  OK(c, kn_apply(c, KN_OP_exp, NULL, &x, 1, &y));
  ck_assert(element(y, 0) == 7);
  ck_assert_str_eq(log, "dispatch: exp(float32[]) ran on seven (shy declined)");
  kn_tensor_release(y);
  c->providers[KN_CPU][2] = NULL; /* without the reference */
  FAILS(c, KN_UNSUPPORTED, "sin: no kernel for device cpu", kn_apply(c, KN_OP_sin, NULL, &x, 1, &y));
  while (!c->providers[KN_CPU][KN_MAX_PROVIDERS - 1]) OK(c, kn_device_add(c, KN_CPU, &shy));
  FAILS(c, KN_STATE, "no room", kn_device_add(c, KN_CPU, &shy));
  kn_tensor_release(x);
  suite_done(c);
}

START_TEST(children) {
  kn_context *c = suite_context();
  c->recorder = (kn_recorder *)(uintptr_t)1;
  kn_fail(c, KN_ARG, "mine");
  kn_context *child = kn_context_child(c);
  ck_assert(child->heap == c->heap && child->parent == c && !child->recorder);
  ck_assert_str_eq(kn_error(child), "");
  c->recorder = NULL;
  kn_context_free(child);
  kn_context_free(NULL);
  suite_done(c);
}

/* ---- tensors ---- */

static void note_release(void *ud, void *data, size_t bytes) {
  (void)data;
  *(size_t *)ud += bytes;
}

START_TEST(tensor_life) {
  kn_context *c = suite_context();
  float data[6] = {1, 2, 3, 4, 5, 6};
  size_t released = 0;
  kn_type type = type_of(KN_F32, DIMS(2, 3));
  kn_tensor *x, *alias, *view;
  OK(c, kn_tensor_wrap(c, &type, data, note_release, &released, &x));
  OK(c, kn_tensor_alias(c, x, &alias));
  OK(c, kn_apply(c, KN_OP_select, &(kn_attrs_select){.dim = 0, .index = 1}, &x, 1, &view));
  ck_assert(view->storage == x->storage && alias->storage == x->storage);
  expect(view, KN_F32, DIMS(3), LIST(4, 5, 6));
  kn_tensor_release(kn_tensor_retain(x));
  kn_tensor_release(x);
  kn_tensor_release(alias);
  ck_assert_uint_eq(released, 0);
  kn_tensor_release(view);
  ck_assert_uint_eq(released, sizeof data);
  kn_tensor_release(NULL);
  type = type_of(KN_F32, DIMS(-1));
  FAILS(c, KN_SHAPE, "float32[?] is too large or has unknown sizes",
        kn_tensor_wrap(c, &type, data, note_release, &released, &x));
  ck_assert_uint_eq(released, sizeof data); /* given back at once: no bytes are known */
  type = type_of(KN_F32, DIMS(INT64_MAX / 4, 8));
  FAILS(c, KN_SHAPE, "too large", kn_tensor_new(c, &type, &x));
  type = type_of(KN_F64, DIMS(0, 5));
  OK(c, kn_tensor_new(c, &type, &x));
  ck_assert(kn_tensor_contiguous(x) && kn_tensor_numel(x) == 0);
  kn_tensor_release(x);
  suite_done(c);
}

START_TEST(contiguity) {
  kn_context *c = suite_context();
  kn_tensor *x = make(c, KN_F32, DIMS(2, 1, 3), LIST(1, 2, 3, 4, 5, 6)), *t, *u;
  OK(c, kn_apply(c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 1}, &x, 1, &t));
  ck_assert(kn_tensor_contiguous(t)); /* a dim of size 1 moves nothing */
  OK(c, kn_apply(c, KN_OP_transpose, &(kn_attrs_swap){.dim0 = 0, .dim1 = 2}, &x, 1, &u));
  ck_assert(!kn_tensor_contiguous(u));
  ck_assert(kn_tensor_contiguous(x));
  kn_tensor_release(t), kn_tensor_release(u), kn_tensor_release(x);
  kn_type none = type_of(KN_F32, DIMS(0, 6));
  OK(c, kn_tensor_new(c, &none, &x));
  OK(c, kn_apply(c, KN_OP_slice, &(kn_attrs_slice){.dim = 1, .stop = KN_TO_END, .step = 2}, &x, 1, &t));
  ck_assert(kn_tensor_contiguous(t)); /* no elements lie in any order */
  OK(c, kn_apply(c, KN_OP_view, &(kn_attrs_sizes){.sizes = DIMS(3, 0)}, &t, 1, &u));
  kn_tensor_release(t), kn_tensor_release(u), kn_tensor_release(x);
  suite_done(c);
}

START_TEST(memory_limit) {
  kn_heap *h = kn_heap_new(NULL, NULL, 100000);
  kn_context *c = kn_context_new(h, NULL);
  kn_tensor *x, *big;
  OK(c,
     kn_apply(c, KN_OP_full, &(kn_attrs_fill){.sizes = DIMS(100), .value = 2, .dtype = KN_F64}, NULL, 0, &x));
  FAILS(c, KN_NOMEM, "full: out of memory: wanted 800000 more bytes",
        kn_apply(c, KN_OP_full, &(kn_attrs_fill){.sizes = DIMS(100000), .dtype = KN_F64}, NULL, 0, &big));
  kn_tensor_release(x);
  suite_done(c);
  kn_heap_release(h);
}

/* ---- numbers ---- */

START_TEST(numbers) {
  kn_context *c = suite_context();
  kn_scalar s;
  kn_tensor *x = make(c, KN_F32, DIMS(1, 1), LIST(2.5)), *y = make(c, KN_I64, DIMS(2), LIST(1, 2)), *z;
  OK(c, kn_item(c, x, &s));
  ck_assert(s.kind == KN_SCALAR_FLOAT && s.as.f == 2.5);
  FAILS(c, KN_SHAPE, "item: a tensor of one element is needed (got int64[2])", kn_item(c, y, &s));
  OK(c, kn_size(c, y, 0, &s));
  ck_assert(s.kind == KN_SCALAR_INT && s.as.i == 2);
  FAILS(c, KN_ARG, "size: dim 2 does not exist", kn_size(c, y, 1, &s));
  kn_tensor_release(x), kn_tensor_release(y);
  OK(c, kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_INT, {.i = 3}}, KN_F32, &z));
  expect(z, KN_F32, SCALAR, LIST(3));
  kn_tensor_release(z);
  OK(c, kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_FLOAT, {.f = -2.7}}, KN_I64, &z));
  expect(z, KN_I64, SCALAR, LIST(-2));
  kn_tensor_release(z);
  OK(c, kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_BOOL, {.b = true}}, KN_BOOL, &z));
  OK(c, kn_item(c, z, &s));
  ck_assert(s.kind == KN_SCALAR_BOOL && s.as.b);
  kn_tensor_release(z);
  int64_t large = INT64_C(9007199254740993); /* not a double */
  OK(c, kn_scalar_tensor(c, &(kn_scalar){KN_SCALAR_INT, {.i = large}}, KN_I64, &z));
  OK(c, kn_item(c, z, &s));
  ck_assert(s.kind == KN_SCALAR_INT && s.as.i == large);
  kn_tensor_release(z);
  FAILS(c, KN_STATE, "symbolic number",
        kn_scalar_tensor(c, &(kn_scalar){.kind = KN_SCALAR_SYMBOL}, KN_F32, &z));
  suite_done(c);
}

/* ---- random numbers ---- */

START_TEST(philox_known_answers) {
  /* Philox4x32-10 of all zeros, from the known answers that its authors published (Random123). */
  uint32_t w[4];
  kn_philox(0, 0, w);
  ck_assert_uint_eq(w[0], 0x6627e8d5);
  ck_assert_uint_eq(w[1], 0xe169c58d);
  ck_assert_uint_eq(w[2], 0xbc57ac4c);
  ck_assert_uint_eq(w[3], 0x9b00dbd8);
  kn_random r;
  kn_random_seed(&r, 5);
  ck_assert_uint_eq(kn_random_take(&r, 5), 0);
  ck_assert_uint_eq(kn_random_take(&r, 0), 2);
  ck_assert_uint_eq(kn_random_take(&r, 1), 2);
  kn_philox(5, 3, w);
  ck_assert_uint_eq(kn_random_word(5, 2, 6), w[2]);
  ck_assert(kn_uniform_f32(UINT32_MAX) < 1 && kn_uniform_f32(0) == 0);
  ck_assert(kn_uniform_f64(UINT32_MAX, UINT32_MAX) < 1);
}

/* ---- the op table ---- */

START_TEST(op_table) {
  for (int i = 0; i < KN_OP_COUNT; i++) {
    const kn_op_info *row = &kn_ops[i];
    kn_op op;
    ck_assert(kn_op_parse(row->name, &op) && op == (kn_op)i);
    ck_assert_msg(!row->composite == (row->infer && row->kernel), "%s", row->name);
    ck_assert_msg(!row->composite == (kn_ref_provider.kernel[i] != NULL), "%s", row->name);
    ck_assert_msg(row->min_in <= row->max_in && row->outs >= 1 && row->outs <= KN_MAX_OUTPUTS, "%s",
                  row->name);
    ck_assert_msg(strlen(row->doc) > 0, "%s", row->name);
  }
  kn_op op;
  ck_assert(!kn_op_parse("no_such_op", &op));
  kn_device_id d;
  ck_assert(kn_device_parse("cpu", &d) && d == KN_CPU && !kn_device_parse("abacus", &d));
}

SUITE("core", heap_counts, heap_limit, heap_peak, spare_blocks, heap_with_spare_blocks, reclaimers,
      heap_overflow_and_zero, heap_of_the_host, arena_holds, dtypes, types, attributes, error_text,
      providers_in_order, children, tensor_life, contiguity, memory_limit, numbers, philox_known_answers,
      op_table)
