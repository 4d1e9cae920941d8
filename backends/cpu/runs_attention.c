/* Loops of attention for a block of queries: queries stand side by side in two vectors, keys one after the
 * other, so that tops and sums of a query's scores are made down columns and nothing goes across lanes.
 * Products read keys and weights element by element, unpacked. nan and rows of -inf need no care, as in
 * runs_softmax.c. Compiled once for each instruction set, with products and sums in one rounding. */
#include "backends/cpu/attention.h"
#include "backends/cpu/formula64.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/isa.h"

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* Keys, or queries, of a tile in registers with two vectors. */
#if CP_VECTOR == 64
enum { KEYS = 8, QUERIES = 8 };
#elif CP_VECTOR == 32
enum { KEYS = 6, QUERIES = 4 };
#else
enum { KEYS = 4, QUERIES = 4 };
#endif

static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

#define ATTEND(T, E, I)                                                                                      \
  typedef T vec_##E __attribute__((vector_size(CP_VECTOR), aligned(sizeof(T)), may_alias));                  \
  typedef I bits_##E __attribute__((vector_size(CP_VECTOR), aligned(sizeof(T)), may_alias));                 \
  enum { V_##E = CP_VECTOR / sizeof(T), BLOCK_##E = 2 * V_##E };                                             \
                                                                                                             \
  /* ---- room: queries, scores, an operand as scores lie, values side by side ---- */                       \
  static int64_t packed_width_##E(const cp_attend *a) {                                                      \
    return a->v_column == 1 && a->values % V_##E == 0 ? 0 : up(a->values, V_##E);                            \
  }                                                                                                          \
  static size_t room_##E(const cp_attend *a) {                                                               \
    return (size_t)(a->width * BLOCK_##E + 2 * a->keys * BLOCK_##E + a->keys * packed_width_##E(a)) *        \
               sizeof(T) +                                                                                   \
           64;                                                                                               \
  }                                                                                                          \
                                                                                                             \
  static void pack_queries_##E(const cp_attend *a, T *to) {                                                  \
    a->kit->pack(a->queries, BLOCK_##E, a->width, a->q, a->q_row, a->q_column, (char *)to);                  \
    const T by = (T)a->scale;                                                                                \
    if (a->scaled && a->divided)                                                                             \
      for (int64_t i = 0; i < a->width * BLOCK_##E; i++) to[i] /= by;                                        \
    else if (a->scaled)                                                                                      \
      for (int64_t i = 0; i < a->width * BLOCK_##E; i++) to[i] *= by;                                        \
  }                                                                                                          \
                                                                                                             \
  /* ---- scores ---- */                                                                                     \
  ALWAYS void some_scores_##E(const int keys, const cp_attend *a, const T *q, const T *k, T *to) {           \
    vec_##E s[KEYS][2];                                                                                      \
    UNROLL for (int r = 0; r < keys; r++) s[r][0] = s[r][1] = (vec_##E){0};                                  \
    for (int64_t p = 0; p < a->width; p++, q += BLOCK_##E, k += a->k_column) {                               \
      const vec_##E q0 = *(const vec_##E *)q, q1 = *(const vec_##E *)(q + V_##E);                            \
      UNROLL for (int r = 0; r < keys; r++) {                                                                \
        const vec_##E x = k[r * a->k_row] - (vec_##E){0};                                                    \
        s[r][0] += x * q0;                                                                                   \
        s[r][1] += x * q1;                                                                                   \
      }                                                                                                      \
    }                                                                                                        \
    UNROLL for (int r = 0; r < keys; r++, to += BLOCK_##E) {                                                 \
      *(vec_##E *)to = s[r][0];                                                                              \
      *(vec_##E *)(to + V_##E) = s[r][1];                                                                    \
    }                                                                                                        \
  }                                                                                                          \
  static void scores_##E(const cp_attend *a, const T *q, int64_t keys, T *to) {                              \
    const T *k = (const T *)a->k;                                                                            \
    int64_t s = 0;                                                                                           \
    for (; s + KEYS <= keys; s += KEYS) some_scores_##E(KEYS, a, q, k + s * a->k_row, to + s * BLOCK_##E);   \
    for (; s < keys; s++) some_scores_##E(1, a, q, k + s * a->k_row, to + s * BLOCK_##E);                    \
  }                                                                                                          \
                                                                                                             \
  /* ---- what is done to them ---- */                                                                       \
  ALWAYS vec_##E chosen_##E(bits_##E when, vec_##E yes, vec_##E no) {                                        \
    return (vec_##E)(((bits_##E)yes & when) | ((bits_##E)no & ~when));                                       \
  }                                                                                                          \
  static void limit_##E(const cp_score_op *o, int64_t queries, int64_t keys, T *x) {                         \
    I limits[BLOCK_##E];                                                                                     \
    int64_t least = keys;                                                                                    \
    for (int64_t i = 0; i < BLOCK_##E; i++) limits[i] = i < queries ? o->limits[i] : (I)keys;                \
    for (int64_t i = 0; i < queries; i++) least = limits[i] < least ? limits[i] : least;                     \
    const bits_##E l0 = *(const bits_##E *)limits, l1 = *(const bits_##E *)(limits + V_##E);                 \
    const vec_##E no = (T)o->number - (vec_##E){0};                                                          \
    for (int64_t s = least; s < keys; s++) {                                                                 \
      vec_##E *v = (vec_##E *)(x + s * BLOCK_##E);                                                           \
      const bits_##E at = (I)s - (bits_##E){0};                                                              \
      v[0] = chosen_##E((bits_##E)(at < l0), v[0], no);                                                      \
      v[1] = chosen_##E((bits_##E)(at < l1), v[1], no);                                                      \
    }                                                                                                        \
  }                                                                                                          \
  static void choose_##E(const cp_score_op *o, int64_t queries, int64_t keys, T *x) {                        \
    const bool *keep = (const bool *)o->data;                                                                \
    const bool kept = o->step == KN_SCORE_KEEP;                                                              \
    const T no = (T)o->number;                                                                               \
    for (int64_t s = 0; s < keys; s++, keep += o->column, x += BLOCK_##E) {                                  \
      if (o->row) {                                                                                          \
        for (int64_t i = 0; i < queries; i++) x[i] = keep[i * o->row] == kept ? x[i] : no;                   \
      } else if (*keep != kept) {                                                                            \
        for (int64_t i = 0; i < BLOCK_##E; i++) x[i] = no;                                                   \
      }                                                                                                      \
    }                                                                                                        \
  }                                                                                                          \
  static void add_##E(const cp_attend *a, const cp_score_op *o, int64_t keys, T *x, T *turned) {             \
    const T *y = (const T *)o->data;                                                                         \
    if (!o->row) {                                                                                           \
      for (int64_t s = 0; s < keys; s++)                                                                     \
        for (int64_t i = 0; i < BLOCK_##E; i++) x[s * BLOCK_##E + i] += y[s * o->column];                    \
      return;                                                                                                \
    }                                                                                                        \
    a->kit->pack(a->queries, BLOCK_##E, keys, o->data, o->row, o->column, (char *)turned);                   \
    for (int64_t i = 0; i < keys * BLOCK_##E; i++) x[i] += turned[i];                                        \
  }                                                                                                          \
  static void change_##E(const cp_attend *a, const cp_score_op *o, int64_t keys, T *x, T *turned) {          \
    const T by = (T)o->number;                                                                               \
    if (o->step == KN_SCORE_MUL)                                                                             \
      for (int64_t i = 0; i < keys * BLOCK_##E; i++) x[i] *= by;                                             \
    else if (o->step == KN_SCORE_DIV)                                                                        \
      for (int64_t i = 0; i < keys * BLOCK_##E; i++) x[i] /= by;                                             \
    else if (o->step == KN_SCORE_ADD)                                                                        \
      add_##E(a, o, keys, x, turned);                                                                        \
    else if (o->limits)                                                                                      \
      limit_##E(o, a->queries, keys, x);                                                                     \
    else                                                                                                     \
      choose_##E(o, a->queries, keys, x);                                                                    \
  }                                                                                                          \
                                                                                                             \
  /* ---- weights: exponentials, and one over their sums ---- */                                             \
  static void weigh_##E(int64_t keys, T *x, T *by) {                                                         \
    vec_##E t0 = (T)-INFINITY - (vec_##E){0}, t1 = t0, all0 = {0}, all1 = {0};                               \
    for (int64_t s = 0; s < keys; s++) {                                                                     \
      const vec_##E *v = (const vec_##E *)(x + s * BLOCK_##E);                                               \
      t0 = chosen_##E((bits_##E)(v[0] > t0), v[0], t0);                                                      \
      t1 = chosen_##E((bits_##E)(v[1] > t1), v[1], t1);                                                      \
    }                                                                                                        \
    T top[BLOCK_##E];                                                                                        \
    memcpy(top, &t0, sizeof t0);                                                                             \
    memcpy(top + V_##E, &t1, sizeof t1);                                                                     \
    for (int64_t from = 0; from < keys; from += 32) { /* sums of a few keys, then of these */                \
      const int64_t to = from + 32 < keys ? from + 32 : keys;                                                \
      for (int64_t s = from; s < to; s++) {                                                                  \
        T *restrict y = x + s * BLOCK_##E;                                                                   \
        for (int i = 0; i < BLOCK_##E; i++) y[i] = cp_below_##E(y[i] - top[i]);                              \
      }                                                                                                      \
      vec_##E s0 = {0}, s1 = {0};                                                                            \
      for (int64_t s = from; s < to; s++) {                                                                  \
        const vec_##E *v = (const vec_##E *)(x + s * BLOCK_##E);                                             \
        s0 += v[0], s1 += v[1];                                                                              \
      }                                                                                                      \
      all0 += s0, all1 += s1;                                                                                \
    }                                                                                                        \
    *(vec_##E *)by = 1 / all0;                                                                               \
    *(vec_##E *)(by + V_##E) = 1 / all1;                                                                     \
  }                                                                                                          \
  static void unkeep_##E(const cp_attend *a, int64_t keys, T *x, T *by) {                                    \
    for (int64_t i = 0; i < a->queries; i++) {                                                               \
      if (a->kept[i * a->kept_row]) continue;                                                                \
      for (int64_t s = 0; s < keys; s++) x[s * BLOCK_##E + i] = (T)a->unkept;                                \
      by[i] = 1;                                                                                             \
    }                                                                                                        \
  }                                                                                                          \
                                                                                                             \
  /* ---- results: `vectors` of some queries ---- */                                                         \
  ALWAYS void results_##E(const int vectors, const cp_attend *a, const T *x, const T *by, int64_t queries,   \
                          int64_t keys, const T *v, int64_t v_row, T *to, int64_t columns) {                 \
    vec_##E s[QUERIES][2];                                                                                   \
    UNROLL for (int r = 0; r < QUERIES; r++) UNROLL for (int j = 0; j < vectors; j++) s[r][j] =              \
        (vec_##E){0};                                                                                        \
    for (int64_t p = 0; p < keys; p++, x += BLOCK_##E, v += v_row) {                                         \
      vec_##E y[2];                                                                                          \
      UNROLL for (int j = 0; j < vectors; j++) y[j] = *(const vec_##E *)(v + j * V_##E);                     \
      UNROLL for (int r = 0; r < QUERIES; r++) {                                                             \
        const vec_##E w = x[r] - (vec_##E){0};                                                               \
        UNROLL for (int j = 0; j < vectors; j++) s[r][j] += w * y[j];                                        \
      }                                                                                                      \
    }                                                                                                        \
    T made[QUERIES][2 * V_##E];                                                                              \
    UNROLL for (int r = 0; r < QUERIES; r++) UNROLL for (int j = 0; j < vectors; j++) {                      \
      const vec_##E y = s[r][j] * by[r];                                                                     \
      *(vec_##E *)(made[r] + j * V_##E) = y;                                                                 \
    }                                                                                                        \
    for (int64_t r = 0; r < queries; r++) memcpy(to + r * a->to_row, made[r], (size_t)columns * sizeof(T));  \
  }                                                                                                          \
  static void multiply_##E(const cp_attend *a, const T *x, const T *by, int64_t keys, const T *v,            \
                           int64_t v_row) {                                                                  \
    for (int64_t i = 0; i < a->queries; i += QUERIES) {                                                      \
      const int64_t some = a->queries - i < QUERIES ? a->queries - i : QUERIES;                              \
      T *to = (T *)a->to + i * a->to_row;                                                                    \
      int64_t j = 0;                                                                                         \
      for (; j + V_##E < a->values; j += 2 * V_##E) {                                                        \
        const int64_t columns = a->values - j < 2 * V_##E ? a->values - j : 2 * V_##E;                       \
        results_##E(2, a, x + i, by + i, some, keys, v + j, v_row, to + j, columns);                         \
      }                                                                                                      \
      if (j < a->values) results_##E(1, a, x + i, by + i, some, keys, v + j, v_row, to + j, a->values - j);  \
    }                                                                                                        \
  }                                                                                                          \
                                                                                                             \
  /* ---- keys that no query looks at ---- */                                                                \
  static bool are_numbers_##E(const cp_attend *a, int64_t from) {                                            \
    T sum = 0;                                                                                               \
    for (int64_t s = from; s < a->keys; s++) {                                                               \
      const T *v = (const T *)a->v + s * a->v_row;                                                           \
      if (a->v_column == 1) {                                                                                \
        int64_t j = 0;                                                                                       \
        vec_##E zero = {0};                                                                                  \
        for (; j + V_##E <= a->values; j += V_##E) zero += *(const vec_##E *)(v + j) * 0;                    \
        for (; j < a->values; j++) sum += v[j] * 0;                                                          \
        for (int i = 0; i < V_##E; i++) sum += zero[i];                                                      \
      } else                                                                                                 \
        for (int64_t j = 0; j < a->values; j++) sum += v[j * a->v_column] * 0;                               \
    }                                                                                                        \
    return sum == 0;                                                                                         \
  }                                                                                                          \
  /* Their weights are zeros: so many keys are left, unless zero times a value is nan. */                    \
  static int64_t reach_##E(const cp_attend *a) {                                                             \
    int64_t reach = a->keys;                                                                                 \
    for (uint32_t o = 0; o < a->nops; o++) {                                                                 \
      int64_t most = 0;                                                                                      \
      if (!a->ops[o].limits || a->ops[o].number != -INFINITY) continue;                                      \
      for (uint32_t later = o + 1; later < a->nops; later++)                                                 \
        if (a->ops[later].step != KN_SCORE_KEEP || a->ops[later].number != -INFINITY) most = a->keys;        \
      for (int64_t i = 0; i < a->queries; i++)                                                               \
        most = a->ops[o].limits[i] > most ? a->ops[o].limits[i] : most;                                      \
      if (most < reach) reach = most;                                                                        \
    }                                                                                                        \
    if (reach == a->keys || (a->kept && a->unkept != 0)) return a->keys;                                     \
    return are_numbers_##E(a, reach) ? reach : a->keys;                                                      \
  }                                                                                                          \
                                                                                                             \
  static void block_##E(const cp_attend *a, char *room) {                                                    \
    const int64_t keys = reach_##E(a), wide = packed_width_##E(a);                                           \
    T *q = (T *)room, *x = q + a->width * BLOCK_##E, *turned = x + a->keys * BLOCK_##E,                      \
      *packed = turned + a->keys * BLOCK_##E, by[BLOCK_##E];                                                 \
    pack_queries_##E(a, q);                                                                                  \
    scores_##E(a, q, keys, x);                                                                               \
    for (uint32_t o = 0; o < a->nops; o++) change_##E(a, &a->ops[o], keys, x, turned);                       \
    weigh_##E(keys, x, by);                                                                                  \
    if (a->kept) unkeep_##E(a, keys, x, by);                                                                 \
    const T *v = (const T *)a->v;                                                                            \
    for (int64_t s = 0; wide && s < keys; s++)                                                               \
      for (int64_t j = 0; j < wide; j++)                                                                     \
        packed[s * wide + j] = j < a->values ? v[s * a->v_row + j * a->v_column] : 0;                        \
    multiply_##E(a, x, by, keys, wide ? packed : v, wide ? wide : a->v_row);                                 \
  }

ATTEND(float, f32, int32_t)
ATTEND(double, f64, int64_t)

extern const cp_attends CP(attends);
const cp_attends CP(attends) = {
    .queries = {[KN_F32] = BLOCK_f32, [KN_F64] = BLOCK_f64},
    .room = {[KN_F32] = room_f32, [KN_F64] = room_f64},
    .block = {[KN_F32] = block_f32, [KN_F64] = block_f64},
};
