/* Passes over the units of some rows of a step of recurrent layers. The equations are in
 * core/composite_rnn.c, the walk over the steps in rnn.c. Compiled once for each instruction set. */
#include "backends/cpu/formula32.h"
#include "backends/cpu/formula64.h"
#include "backends/cpu/rnn.h"

extern const cp_rnns CP(rnns);

/* Gate k of this row, of rows that are `width` gates wide; units lie side by side. */
#define READ(p, width, k) ((const T *)(p) + (row * (width) + (k)) * s->h)
#define WRITE(p, width, k) ((T *)(p) + (row * (width) + (k)) * s->h)
#define PART(k) ((const T *)s->part + row * s->part_row + (k)*s->h)
#define ROWS for (int64_t row = 0; row < s->rows; row++)
#define UNITS APART for (int64_t i = s->first; i < s->last; i++)
/* No pass reads what it writes elsewhere: more pointers than GCC would compare before a loop. */
#ifdef __clang__
#define APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define APART _Pragma("GCC ivdep")
#endif

/* What flows to the gates themselves, g, is added to what arrives at them. */
#define MORE(p, g, width)                                                                                    \
  if (g)                                                                                                     \
    for (int k = 0; k < (width); k++) {                                                                      \
      T *restrict at = WRITE(p, width, k);                                                                   \
      const T *restrict more = READ(g, width, k);                                                            \
      UNITS at[i] += more[i];                                                                                \
    }

#define LSTM(E, SIGMOID, TANH)                                                                               \
  static void lstm_layer_##E(const cp_units *s) {                                                            \
    ROWS {                                                                                                   \
      const T *restrict xi = READ(s->in[0], 4, 0), *restrict xf = READ(s->in[0], 4, 1),                      \
                        *restrict xg = READ(s->in[0], 4, 2), *restrict xo = READ(s->in[0], 4, 3);            \
      const T *restrict hi = PART(0), *restrict hf = PART(1), *restrict hg = PART(2),                        \
                        *restrict ho = PART(3);                                                              \
      const T *restrict before = READ(s->before, 1, 0);                                                      \
      T *restrict h = WRITE(s->out[0], 1, 0), *restrict c = WRITE(s->out[1], 1, 0);                          \
      T *restrict ti = WRITE(s->out[2], 4, 0), *restrict tf = WRITE(s->out[2], 4, 1),                        \
                  *restrict tg = WRITE(s->out[2], 4, 2), *restrict to = WRITE(s->out[2], 4, 3);              \
      UNITS {                                                                                                \
        const T in = SIGMOID(xi[i] + hi[i]), keep = SIGMOID(xf[i] + hf[i]);                                  \
        const T g = TANH(xg[i] + hg[i]), o = SIGMOID(xo[i] + ho[i]), now = keep * before[i] + in * g;        \
        c[i] = now, h[i] = o * TANH(now);                                                                    \
        ti[i] = in, tf[i] = keep, tg[i] = g, to[i] = o;                                                      \
      }                                                                                                      \
    }                                                                                                        \
  }                                                                                                          \
  static void lstm_layer_grad_##E(const cp_units *s) { /* gates, c, w_hh, c0, g_h, g_c, g_gates */           \
    ROWS {                                                                                                   \
      const T *restrict xi = READ(s->in[0], 4, 0), *restrict xf = READ(s->in[0], 4, 1),                      \
                        *restrict xg = READ(s->in[0], 4, 2), *restrict xo = READ(s->in[0], 4, 3);            \
      const T *restrict c = READ(s->in[1], 1, 0), *restrict before = READ(s->before, 1, 0);                  \
      const T *restrict gh = READ(s->in[4], 1, 0), *restrict gc = READ(s->in[5], 1, 0);                      \
      T *restrict dh = WRITE(s->out[1], 1, 0), *restrict dc = WRITE(s->out[2], 1, 0);                        \
      T *restrict ti = WRITE(s->out[0], 4, 0), *restrict tf = WRITE(s->out[0], 4, 1),                        \
                  *restrict tg = WRITE(s->out[0], 4, 2), *restrict to = WRITE(s->out[0], 4, 3);              \
      UNITS {                                                                                                \
        const T tc = TANH(c[i]), h = gh[i] + dh[i], all = gc[i] + dc[i] + h * xo[i] * (1 - tc * tc);         \
        ti[i] = all * xg[i], tf[i] = all * before[i], tg[i] = all * xi[i], to[i] = h * tc;                   \
        dc[i] = all * xf[i], dh[i] = 0;                                                                      \
      }                                                                                                      \
      MORE(s->out[0], s->in[6], 4)                                                                           \
      UNITS {                                                                                                \
        ti[i] = ti[i] * xi[i] * (1 - xi[i]), tf[i] = tf[i] * xf[i] * (1 - xf[i]);                            \
        tg[i] = tg[i] * (1 - xg[i] * xg[i]), to[i] = to[i] * xo[i] * (1 - xo[i]);                            \
      }                                                                                                      \
    }                                                                                                        \
  }

#define GRU(E, SIGMOID, TANH)                                                                                \
  static void gru_layer_##E(const cp_units *s) {                                                             \
    ROWS {                                                                                                   \
      const T *restrict xr = READ(s->in[0], 3, 0), *restrict xz = READ(s->in[0], 3, 1),                      \
                        *restrict xn = READ(s->in[0], 3, 2);                                                 \
      const T *restrict hr = PART(0), *restrict hz = PART(1), *restrict hn = PART(2);                        \
      const T *restrict br = (const T *)s->in[3], *restrict bz = br + s->h, *restrict bn = bz + s->h;        \
      const T *restrict before = READ(s->before, 1, 0);                                                      \
      T *restrict h = WRITE(s->out[0], 1, 0);                                                                \
      T *restrict tr = WRITE(s->out[1], 4, 0), *restrict tz = WRITE(s->out[1], 4, 1),                        \
                  *restrict tn = WRITE(s->out[1], 4, 2), *restrict tv = WRITE(s->out[1], 4, 3);              \
      UNITS {                                                                                                \
        const T r = SIGMOID(xr[i] + hr[i] + br[i]), z = SIGMOID(xz[i] + hz[i] + bz[i]);                      \
        const T v = hn[i] + bn[i], n = TANH(xn[i] + r * v);                                                  \
        h[i] = (1 - z) * n + z * before[i];                                                                  \
        tr[i] = r, tz[i] = z, tn[i] = n, tv[i] = v;                                                          \
      }                                                                                                      \
    }                                                                                                        \
  }                                                                                                          \
  static void gru_layer_grad_##E(const cp_units *s) { /* gates, h, w_hh, h0, g_h, g_gates */                 \
    const T *none = NULL;                                                                                    \
    ROWS {                                                                                                   \
      const T *restrict r = READ(s->in[0], 4, 0), *restrict z = READ(s->in[0], 4, 1),                        \
                        *restrict n = READ(s->in[0], 4, 2), *restrict v = READ(s->in[0], 4, 3);              \
      const T *restrict before = READ(s->before, 1, 0), *restrict gh = READ(s->in[4], 1, 0);                 \
      const T *gg = s->in[5] ? READ(s->in[5], 4, 0) : none;                                                  \
      T *restrict dh = WRITE(s->out[2], 1, 0);                                                               \
      T *restrict xr = WRITE(s->out[0], 3, 0), *restrict xz = WRITE(s->out[0], 3, 1),                        \
                  *restrict xn = WRITE(s->out[0], 3, 2);                                                     \
      T *restrict hr = WRITE(s->out[1], 3, 0), *restrict hz = WRITE(s->out[1], 3, 1),                        \
                  *restrict hn = WRITE(s->out[1], 3, 2);                                                     \
      UNITS {                                                                                                \
        const T g = gh[i] + dh[i];                                                                           \
        xz[i] = g * (before[i] - n[i]), xn[i] = g * (1 - z[i]), dh[i] = g * z[i];                            \
      }                                                                                                      \
      if (gg) UNITS xz[i] += gg[s->h + i], xn[i] += gg[2 * s->h + i];                                        \
      UNITS {                                                                                                \
        const T dn = xn[i] * (1 - n[i] * n[i]), dz = xz[i] * z[i] * (1 - z[i]);                              \
        xn[i] = dn, xr[i] = dn * v[i], hn[i] = dn * r[i], xz[i] = dz, hz[i] = dz;                            \
      }                                                                                                      \
      if (gg) UNITS xr[i] += gg[i], hn[i] += gg[3 * s->h + i];                                               \
      UNITS {                                                                                                \
        const T dr = xr[i] * r[i] * (1 - r[i]);                                                              \
        xr[i] = dr, hr[i] = dr;                                                                              \
      }                                                                                                      \
    }                                                                                                        \
  }

#define RNN(E, PICK, TANH)                                                                                   \
  static void rnn_layer_##E(const cp_units *s) {                                                             \
    ROWS {                                                                                                   \
      const T *restrict x = READ(s->in[0], 1, 0), *restrict h = PART(0);                                     \
      T *restrict to = WRITE(s->out[0], 1, 0);                                                               \
      if (s->relu) {                                                                                         \
        UNITS {                                                                                              \
          const T y = x[i] + h[i];                                                                           \
          to[i] = PICK((y > 0) | (y != y), y, 0);                                                            \
        }                                                                                                    \
      } else {                                                                                               \
        UNITS to[i] = TANH(x[i] + h[i]);                                                                     \
      }                                                                                                      \
    }                                                                                                        \
  }                                                                                                          \
  static void rnn_layer_grad_##E(const cp_units *s) { /* h, w_hh, g_h */                                     \
    ROWS {                                                                                                   \
      const T *restrict y = READ(s->in[0], 1, 0), *restrict gh = READ(s->in[2], 1, 0);                       \
      T *restrict to = WRITE(s->out[0], 1, 0), *restrict dh = WRITE(s->out[1], 1, 0);                        \
      UNITS {                                                                                                \
        const T g = gh[i] + dh[i];                                                                           \
        to[i] = s->relu ? PICK(y[i] > 0, g, 0) : g * (1 - y[i] * y[i]);                                      \
        dh[i] = 0;                                                                                           \
      }                                                                                                      \
    }                                                                                                        \
  }

#define T float
LSTM(f32, cp_sigmoid_f32, cp_tanh_f32)
GRU(f32, cp_sigmoid_f32, cp_tanh_f32)
RNN(f32, cp_pick_f32, cp_tanh_f32)
#undef T
#define T double
LSTM(f64, cp_sigmoid_f64, cp_tanh_f64)
GRU(f64, cp_sigmoid_f64, cp_tanh_f64)
RNN(f64, cp_pick_f64, cp_tanh_f64)
#undef T

#define X(op, ...) [KN_OP_##op] = {[KN_F32] = op##_f32, [KN_F64] = op##_f64},
const cp_rnns CP(rnns) = {{CP_RECURRENT(X)}};
#undef X
