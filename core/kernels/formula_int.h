/* Arithmetic of whole numbers that formulas of elementwise.def and other kernels are made of. The part that C
 * and CUDA have in common: this text is compiled here and, as it is, for devices (FORMULA: how a function is
 * declared there). */
#ifndef KN_FORMULA_INT_H
#define KN_FORMULA_INT_H
#include <stdint.h>
#ifndef FORMULA
#define FORMULA static inline
#endif

/* int64 arithmetic wraps around. */
FORMULA int64_t kk_wrap_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
FORMULA int64_t kk_wrap_sub(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
FORMULA int64_t kk_wrap_mul(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }

/* The sign of b. MIN % -1 overflows; 0 has been refused before. */
FORMULA int64_t kk_mod_i64(int64_t a, int64_t b) {
  if (b == -1 || b == 0) return 0;
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
FORMULA int64_t kk_truncated_mod_i64(int64_t a, int64_t b) { return b == -1 || b == 0 ? 0 : a % b; }
FORMULA int64_t kk_floor_div_i64(int64_t a, int64_t b) {
  if (b == -1 || b == 0) return kk_wrap_sub(0, a);
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

/* Wraps around; a negative power of a whole number is whole only for 1 and -1, else 0 (as PyTorch has it
 * where powers are many: one negative power for all elements is refused before). */
FORMULA int64_t kk_pow_i64(int64_t base, int64_t power) {
  if (power < 0) return base == 1 ? 1 : base == -1 ? (power % 2 ? -1 : 1) : 0;
  int64_t result = 1;
  for (; power; power >>= 1) {
    if (power & 1) result = kk_wrap_mul(result, base);
    base = kk_wrap_mul(base, base);
  }
  return result;
}

/* Shifted out of the word, or by a negative number: 0, or what the sign fills in. */
FORMULA int64_t kk_shift_left(int64_t a, int64_t by) {
  return by < 0 || by > 63 ? 0 : (int64_t)((uint64_t)a << by);
}
FORMULA int64_t kk_shift_right(int64_t a, int64_t by) { return a >> (by < 0 || by > 63 ? 63 : by); }

FORMULA int64_t kk_limit_i64(int64_t x, int64_t low, int64_t high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

#endif
