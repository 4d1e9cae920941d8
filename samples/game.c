/* A game whose behaviour is written in Lua and whose creatures think with a saved graph, which is loaded anew
 * whenever its file changes. The positions are this program's memory: Lua sees them as a tensor.
 *
 *   kiln samples/game.lua seek brain.kiln     saves a brain: one that seeks the flag, or one that flees it
 *   game samples/game.lua brain.kiln          plays until SIGTERM or SIGINT; prints a line each second
 *
 * While it plays, save another brain over the file. A file that cannot be used changes nothing: the game goes
 * on with the brain that it has. The script is the game's own, and trusted; the file may be anybody's. */
#define _POSIX_C_SOURCE 200809L
#include "kiln_lua.h"
#include <lua.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { CREATURES = 200, TICKS = 50 /* a second */ };

static volatile sig_atomic_t stopped;

static void stop(int number) {
  (void)number;
  stopped = 1;
}

static void die(const char *what, const char *why) {
  fprintf(stderr, "game: %s: %s\n", what, why);
  exit(1);
}

/* ---- the model's file ---- */

typedef struct watched {
  const char *path;
  struct stat seen; /* all zero: never */
} watched;

/* Files are saved under another name and renamed: what is there is complete, and has a number of its own. */
static int has_changed(watched *w) {
  struct stat now;
  if (stat(w->path, &now)) return 0; /* about to be replaced, perhaps */
  int same = now.st_ino == w->seen.st_ino && now.st_size == w->seen.st_size &&
             now.st_mtim.tv_sec == w->seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == w->seen.st_mtim.tv_nsec;
  w->seen = now;
  return !same;
}

/* Loads the brain and has the script try it. Gives NULL, or why it keeps the one that it has. */
static const char *load(lua_State *L, const char *path) {
  kiln_context *ctx = kiln_lua_context(L);
  kiln_graph *graph;
  if (kiln_graph_load(ctx, path, NULL, &graph)) return kiln_error(ctx);
  kiln_status st = kiln_lua_push_graph(L, graph);
  kiln_graph_release(graph); /* Lua holds it now */
  if (st) return kiln_error(ctx);
  lua_setglobal(L, "candidate");
  return kiln_lua_call(L, "adopt", NULL, 0, NULL, 0) ? kiln_error(ctx) : NULL;
}

/* ---- the game ---- */

int main(int argc, char **argv) {
  if (argc != 3) die("usage", "game SCRIPT.lua BRAIN.kiln");
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
  sigaction(SIGINT, &(struct sigaction){.sa_handler = stop}, NULL);

  /* A tick that runs away ends, and is told; the game goes on. */
  const kiln_lua_options options = {
      .size = sizeof options, .memory_limit = 64 << 20, .instruction_limit = 1000000, .libraries = ""};
  lua_State *L;
  char error[512];
  if (kiln_lua_new(&options, &L, error, sizeof error)) die("kiln", error);
  if (kiln_lua_run_file(L, argv[1], 0)) die("the script", kiln_lua_error(L));

  static float places[CREATURES][2];
  for (int i = 0; i < CREATURES; i++) {
    places[i][0] = (float)(i % 20) - 9.5f;
    places[i][1] = (float)(i / 20 * 2) - 9.0f;
  }
  kiln_value arg = {.kind = KILN_TENSOR};
  if (kiln_tensor_wrap(kiln_lua_context(L), KILN_FLOAT32, 2, (const int64_t[]){CREATURES, 2}, places, NULL,
                       NULL, &arg.tensor))
    die("kiln", kiln_error(kiln_lua_context(L)));

  watched model = {.path = argv[2]};
  for (long tick = 0; !stopped; tick++) {
    if (has_changed(&model)) {
      const char *why = load(L, model.path);
      printf("%s: %s\n", model.path, why ? why : "a new brain");
    }
    kiln_value mean = {.kind = KILN_NIL};
    if (kiln_lua_call(L, "tick", &arg, 1, &mean, 1)) printf("%s\n", kiln_lua_error(L));
    if (mean.kind == KILN_FLOAT && tick % TICKS == 0)
      printf("%.2f from the flag; the first is at %.2f %.2f\n", mean.f, (double)places[0][0],
             (double)places[0][1]);
    kiln_value_clear(&mean);
    fflush(stdout);
    nanosleep(&(struct timespec){.tv_nsec = 1000000000 / TICKS}, NULL);
  }
  kiln_tensor_release(arg.tensor);
  kiln_lua_free(L);
  return 0;
}
