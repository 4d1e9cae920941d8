/* The choice: what is known of a key, else trials. What is remembered, and the file, are in tune_file.c. */
#include "backends/tune_inside.h"
#include <stdio.h>
#include <string.h>

/* Work below which the fixed rule does: some 20 us of one core. */
#define LEAST_FLOPS 1e6
/* Trials of one key, and the share by which another way must be faster than the usual one. */
enum { MOST_ROUNDS = 7, LEAST_ROUNDS = 2 };
#define KEY_SECONDS 0.02
#define CLEARLY 0.95
#define NEARLY 1.02
/* A large copy that is kept has to save something in each call: so much for a byte, or a larger share than
 * that. Those who keep none lay the operand out anew each time, which is little beside many rows. */
enum { LARGE_COPY = 4 << 20 };
#define SECONDS_A_BYTE 25e-12
#define BY_FAR 1.15
/* A machine that is busy with something else gives no times: the two best ones of a way are further apart
 * than this, or ways than that. */
#define STEADY 1.1
#define LIKELY 8.0

bool kn_tune_pays(double flops) { return flops >= LEAST_FLOPS; }

static int way_named(const kn_question *q, const char *name) {
  for (int i = 0; i < q->n; i++)
    if (!strcmp(q->ways[i], name)) return i;
  return -1;
}

/* Is what `way` saves beside `light` too little for what it keeps? */
static bool saves_little(const kn_question *q, const double *best, int way, int light) {
  if (best[light] <= best[way] * NEARLY) return true;
  return q->keeps[way] >= LARGE_COPY && best[light] <= best[way] * BY_FAR &&
         best[light] - best[way] <= (double)q->keeps[way] * SECONDS_A_BYTE;
}

/* best: seconds; -1: does not work. */
static int fastest(const kn_question *q, const double *best) {
  int way = best[0] < 0 ? -1 : 0, light = -1;
  for (int i = 1; i < q->n; i++)
    if (best[i] >= 0 && (way < 0 || best[i] < best[way] * (way ? 1 : CLEARLY))) way = i;
  for (int i = 0; i < q->n; i++)
    if (q->light[i] && best[i] >= 0 && (light < 0 || best[i] < best[light])) light = i;
  return way >= 0 && light >= 0 && saves_little(q, best, way, light) ? light : way;
}

static bool is_quiet(const kn_question *q, const double *best, const double *next) {
  double least = 1e30;
  bool quiet = true;
  for (int i = 0; i < q->n; i++)
    if (best[i] >= 0 && best[i] < least) least = best[i];
  for (int i = 0; i < q->n; i++)
    if (best[i] >= 0) quiet &= next[i] <= best[i] * STEADY && best[i] <= least * LIKELY;
  return quiet;
}

/* The ways take turns, so that whatever else the machine does hits all of them. A first round is not counted:
 * it makes what later ones find made. -1: none of them worked, or nothing can be told from it. */
static int measure(kn_context *ctx, const kn_question *q, double best[KN_TUNE_WAYS]) {
  bool out[KN_TUNE_WAYS] = {false};
  double spent = 0, next[KN_TUNE_WAYS];
  for (int i = 0; i < q->n; i++) best[i] = next[i] = 1e30;
  for (int round = 0; round <= MOST_ROUNDS; round++) {
    if (round > LEAST_ROUNDS && (spent > KEY_SECONDS || ctx->tuning_left <= 0)) break;
    for (int i = 0; i < q->n; i++) {
      double seconds = 0;
      if (out[i]) continue;
      out[i] = !q->trial(q->ud, i, &seconds);
      spent += seconds;
      ctx->tuning_left -= seconds;
      if (!round || out[i]) continue;
      if (seconds < next[i]) next[i] = seconds;
      if (seconds < best[i]) next[i] = best[i], best[i] = seconds;
    }
  }
  for (int i = 0; i < q->n; i++)
    if (out[i]) best[i] = -1;
  return is_quiet(q, best, next) ? fastest(q, best) : -1;
}

static void say_times(const kn_question *q, const double *best, char *text, size_t size) {
  size_t at = 0;
  text[0] = 0;
  for (int i = 0; i < q->n && at < size; i++)
    if (best[i] >= 0)
      at += (size_t)snprintf(text + at, size - at, "%s%s %.2f", at ? ", " : "", q->ways[i], best[i] * 1e6);
}

int kn_tune(kn_context *ctx, kn_tuner *t, const kn_question *q) {
  kn_tuning tuning = kn_context_tuning(ctx);
  if (!t || tuning == KN_TUNING_FIXED || q->n < 2 || !kn_tune_pays(q->flops)) return -1;
  char name[KN_TUNE_NAME], times[KN_TUNE_TIMES];
  if (kn_tuner_find(ctx, t, q->key, name)) return way_named(q, name);
  const bool may = tuning == KN_TUNING_MEASURE && ctx->tuning_left > 0 && kn_tuner_begin(t);
  double best[KN_TUNE_WAYS];
  int way = may && q->begin(q->ud) ? measure(ctx, q, best) : -1;
  if (may) q->end(q->ud);
  if (may) kn_tuner_end(t);
  ctx->tuning_missed |= way < 0;
  if (way < 0) return -1;
  say_times(q, best, times, sizeof times);
  if (kn_debugging(ctx, KN_DEBUG_DISPATCH))
    kn_log(ctx, "dispatch: measured %s: %s (us: %s)", q->key, q->ways[way], times);
  kn_tuner_note(ctx, t, q->key, q->ways[way], times);
  return way;
}
