/* Matrix products of the cpu backend to the last bit, in each of its instruction sets: what does not depend
 * on how operands lie. Values are compared with the reference's in test_backends.c. */
#include "backends/cpu/cpu.h"
#include "spec/tensors.h"

static uint64_t next(uint64_t *seed) {
  return *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
}

/* Numbers whose products round, [rows, columns] of them; seen through a turned tensor or not. */
static kn_tensor *rounding(kn_context *c, kn_dtype d, int64_t rows, int64_t columns, uint64_t seed,
                           bool turned) {
  kn_type type = type_of(d, turned ? DIMS(columns, rows) : DIMS(rows, columns));
  kn_tensor *t;
  OK(c, kn_tensor_new(c, &type, &t));
  if (turned) {
    t->type.dims[0] = rows, t->type.dims[1] = columns;
    t->strides[0] = 1, t->strides[1] = rows;
  }
  for (int64_t k = 0; k < rows * columns; k++)
    kn_element_put_float(d, element_at(t, k), (double)(next(&seed) >> 11) * 0x1p-52 - 1);
  return t;
}

/* Sums of few products do not depend on how the operands lie, nor on how many rows are asked for: the graph
 * of a step and the step itself may differ in both. */
START_TEST(short_sums) {
  static const int64_t ks[] = {1, 2, 3, 5, 8, 9, 16, 31};
  kn_context *c = suite_context();
  kn_dtype dtypes[] = {KN_F32, KN_F64};
  for (int i = 0; i < cp_provider_count() * 2; i++) {
    const kn_provider *p = cp_provider_at(i / 2);
    kn_dtype d = dtypes[i % 2];
    for (size_t k = 0; k < sizeof ks / sizeof *ks; k++)
      for (int64_t n = 1; n <= 35; n += n < 10 ? 1 : 5) {
        double want[40 * 35];
        for (int64_t m = 40; m > 0; m = m == 40 ? 9 : m - 1)
          for (int lay = 0; lay < 4; lay++) {
            kn_tensor *in[2] = {rounding(c, d, m, ks[k], 1, lay & 1), rounding(c, d, ks[k], n, 2, lay & 2)};
            kn_type type = type_of(d, DIMS(m, n));
            kn_tensor *out;
            OK(c, kn_tensor_new(c, &type, &out));
            OK(c, p->kernel[KN_OP_matmul](c, NULL, in, 2, &out));
            for (int64_t e = 0; e < m * n; e++) {
              if (m == 40 && !lay) want[e] = element(out, e);
              if (element(out, e) != want[e])
                ck_abort_msg("%s: element %d of [%d,%d] x [%d,%d], layout %d: %.9g, of more rows %.9g",
                             p->name, (int)e, (int)m, (int)ks[k], (int)ks[k], (int)n, lay, element(out, e),
                             want[e]);
            }
            kn_tensor_release(out);
            kn_tensor_release(in[0]), kn_tensor_release(in[1]);
          }
      }
  }
  suite_done(c);
}

/* Few rows with a matrix that is read in the order in which it lies: as of many rows, which tiles compute. */
START_TEST(streams) {
  static const int64_t ks[] = {33, 391, 800}, ns[] = {128, 300, 4200};
  kn_context *c = suite_context();
  for (int i = 0; i < cp_provider_count() * 2; i++) {
    const kn_provider *p = cp_provider_at(i / 2);
    kn_dtype d = i % 2 ? KN_F64 : KN_F32;
    for (int s = 0; s < 3; s++) {
      kn_tensor *b = rounding(c, d, ks[s], ns[s], 2, false), *many = rounding(c, d, 9, ks[s], 1, false),
                *want;
      kn_type type = type_of(d, DIMS(9, ns[s]));
      OK(c, kn_tensor_new(c, &type, &want));
      OK(c, p->kernel[KN_OP_matmul](c, NULL, (kn_tensor *[]){many, b}, 2, &want));
      for (int64_t m = 1; m <= 5; m++) {
        kn_tensor *a = rounding(c, d, m, ks[s], 1, false), *out;
        type = type_of(d, DIMS(m, ns[s]));
        OK(c, kn_tensor_new(c, &type, &out));
        OK(c, p->kernel[KN_OP_matmul](c, NULL, (kn_tensor *[]){a, b}, 2, &out));
        for (int64_t e = 0; e < m * ns[s]; e++)
          if (element(out, e) != element(want, e))
            ck_abort_msg("%s: element %d of [%d,%d] x [,%d]: %.9g, of more rows %.9g", p->name, (int)e,
                         (int)m, (int)ks[s], (int)ns[s], element(out, e), element(want, e));
        kn_tensor_release(a), kn_tensor_release(out);
      }
      kn_tensor_release(b), kn_tensor_release(many), kn_tensor_release(want);
    }
  }
  suite_done(c);
}

SUITE("products", short_sums, streams)
