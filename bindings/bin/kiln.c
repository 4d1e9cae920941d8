/* The kiln executable: the stand-alone Lua interpreter with kiln in it. Options, exit codes, messages and the
 * prompt are those of `lua` 5.4, so that scripts and habits carry over; what it adds is the global `kiln`. */
#define _DEFAULT_SOURCE
#include "bindings/lua/kl.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct options {
  const char *program; /* named in messages; NULL at the prompt */
  char **argv;
  int argc;
  int script;      /* index of the script's name; argc: none */
  const char *bad; /* the option that was not understood */
  bool interactive, version, no_env, execute;
} options;

/* ---- messages ---- */

static void say(const char *program, const char *message) {
  if (program) fprintf(stderr, "%s: ", program);
  fprintf(stderr, "%s\n", message);
  fflush(stderr);
}

static int usage(const options *o) {
  char text[256];
  bool needs = o->bad[1] == 'e' || o->bad[1] == 'l';
  snprintf(text, sizeof text, needs ? "'%s' needs argument" : "unrecognized option '%s'", o->bad);
  say(o->program, text);
  fprintf(stderr,
          "usage: %s [options] [script [args]]\n"
          "  -e stat   run the string 'stat'\n"
          "  -l mod    require library 'mod' into global 'mod'\n"
          "  -l g=mod  require library 'mod' into global 'g'\n"
          "  -i        go to the prompt after running 'script'\n"
          "  -v        show the version of Lua\n"
          "  -E        ignore Lua's environment variables\n"
          "  -W        turn warnings on\n"
          "  --        end of the options\n"
          "  -         run the standard input\n",
          o->program);
  return EXIT_FAILURE;
}

static int report(lua_State *L, const options *o, int status) {
  if (status == LUA_OK) return status;
  const char *text = lua_tostring(L, -1);
  say(o->program, text ? text : "(error object is not a string)");
  lua_pop(L, 1);
  return status;
}

/* Turns any error value into text, with a traceback unless its __tostring says it all. */
static int explain(lua_State *L) {
  const char *text = lua_tostring(L, 1);
  if (!text) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  luaL_traceback(L, L, text, 1);
  return 1;
}

/* ---- interrupts ---- */

/* A signal handler gets no argument, so this one pointer has to be reachable by it. */
static lua_State *volatile interrupted;

static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted!");
}

/* The error is raised by a hook, where Lua is in a state that can take it; a second signal ends the process.
 */
static void on_interrupt(int number) {
  signal(number, SIG_DFL);
  lua_sethook(interrupted, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* Calls the function below its arguments. On failure the message is on the stack. */
static int call(lua_State *L, int nargs, int nresults) {
  int base = lua_gettop(L) - nargs;
  lua_pushcfunction(L, explain);
  lua_insert(L, base);
  interrupted = L;
  signal(SIGINT, on_interrupt);
  int status = lua_pcall(L, nargs, nresults, base);
  signal(SIGINT, SIG_DFL);
  lua_remove(L, base);
  return status;
}

/* ---- chunks ---- */

static int run_loaded(lua_State *L, const options *o, int status) {
  if (status == LUA_OK) status = call(L, 0, 0);
  return report(L, o, status);
}

static int run_string(lua_State *L, const options *o, const char *text, const char *name) {
  return run_loaded(L, o, luaL_loadbuffer(L, text, strlen(text), name));
}

/* -l mod or -l global=mod */
static int run_library(lua_State *L, const options *o, const char *argument) {
  const char *equals = strchr(argument, '=');
  const char *module = equals ? equals + 1 : argument;
  lua_pushlstring(L, argument, equals ? (size_t)(equals - argument) : strlen(argument));
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  int status = call(L, 1, 1);
  if (status == LUA_OK) {
    lua_pushglobaltable(L);
    lua_pushvalue(L, -3);
    lua_pushvalue(L, -3);
    lua_settable(L, -3);
    lua_settop(L, -4);
    return status;
  }
  report(L, o, status);
  lua_pop(L, 1);
  return status;
}

/* LUA_INIT_5_4 or LUA_INIT: code, or @file. */
static int run_init(lua_State *L, const options *o) {
  const char *name = "=LUA_INIT_" LUA_VERSION_MAJOR "_" LUA_VERSION_MINOR;
  const char *text = getenv(name + 1);
  if (!text) {
    name = "=LUA_INIT";
    text = getenv(name + 1);
  }
  if (!text) return LUA_OK;
  if (text[0] == '@') return run_loaded(L, o, luaL_loadfile(L, text + 1));
  return run_string(L, o, text, name);
}

/* Puts the entries of the table `arg` on the stack: a script may have changed it before. */
static int push_arguments(lua_State *L) {
  if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
  int n = (int)luaL_len(L, -1);
  luaL_checkstack(L, n + 3, "too many arguments to script");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
  lua_remove(L, -n - 1);
  return n;
}

static int run_script(lua_State *L, const options *o) {
  const char *name = o->argv[o->script];
  if (!strcmp(name, "-") && strcmp(o->argv[o->script - 1], "--")) name = NULL; /* standard input */
  int status = luaL_loadfile(L, name);
  if (status == LUA_OK) {
    int n = push_arguments(L);
    status = call(L, n, LUA_MULTRET);
  }
  return report(L, o, status);
}

/* ---- the prompt ---- */

static bool read_line(lua_State *L, bool first) {
  lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2");
  if (lua_isnil(L, -1))
    fputs(first ? "> " : ">> ", stdout);
  else
    fputs(luaL_tolstring(L, -1, NULL), stdout);
  fflush(stdout);
  lua_settop(L, first ? 0 : 1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  char part[512];
  bool any = false, ended = false;
  while (!ended && fgets(part, sizeof part, stdin)) {
    any = true;
    size_t n = strlen(part);
    ended = n > 0 && part[n - 1] == '\n';
    luaL_addlstring(&b, part, n - ended);
  }
  luaL_pushresult(&b);
  if (!any) lua_pop(L, 1);
  return any;
}

/* Did the compiler only miss the rest of the chunk? */
static bool incomplete(lua_State *L, int status) {
  static const char mark[] = "<eof>";
  if (status != LUA_ERRSYNTAX) return false;
  size_t n;
  const char *text = lua_tolstring(L, -1, &n);
  return n >= sizeof mark - 1 && !strcmp(text + n - (sizeof mark - 1), mark);
}

/* Reads a chunk: an expression, or lines until they are complete. -1 at the end of the input; else the
 * function, or the message, is all there is on the stack. */
static int read_chunk(lua_State *L) {
  lua_settop(L, 0);
  if (!read_line(L, true)) return -1;
  if (lua_tostring(L, 1)[0] == '=') { /* as in older Lua */
    lua_pushfstring(L, "return %s", lua_tostring(L, 1) + 1);
    lua_remove(L, 1);
  }
  const char *expression = lua_pushfstring(L, "return %s;", lua_tostring(L, 1));
  int status = luaL_loadbuffer(L, expression, strlen(expression), "=stdin");
  if (status == LUA_OK) {
    lua_replace(L, 1);
    lua_settop(L, 1);
    return status;
  }
  lua_settop(L, 1);
  for (;;) {
    size_t n;
    const char *text = lua_tolstring(L, 1, &n);
    status = luaL_loadbuffer(L, text, n, "=stdin");
    if (!incomplete(L, status)) break;
    lua_pop(L, 1);
    if (!read_line(L, false)) { /* the input ends: the error it is */
      status = luaL_loadbuffer(L, text, n, "=stdin");
      break;
    }
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  }
  lua_remove(L, 1);
  return status;
}

static void print_results(lua_State *L, const options *o) {
  int n = lua_gettop(L);
  if (n == 0) return;
  luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  if (lua_pcall(L, n, 0, 0) == LUA_OK) return;
  const char *why = lua_tostring(L, -1);
  say(o->program, lua_pushfstring(L, "error calling 'print' (%s)", why ? why : luaL_typename(L, -1)));
}

/* Tensors are printed as wide as the terminal is at the moment. */
static void follow_terminal(lua_State *L) {
  struct winsize size;
  if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col >= 20)
    kl_set_columns(L, size.ws_col);
}

static void prompt(lua_State *L, const options *caller) {
  options o = *caller;
  o.program = NULL; /* messages stand alone here */
  int status;
  while ((status = read_chunk(L)) != -1) {
    follow_terminal(L);
    if (status == LUA_OK) status = call(L, 0, LUA_MULTRET);
    if (status == LUA_OK)
      print_results(L, &o);
    else
      report(L, &o, status);
  }
  lua_settop(L, 0);
  fputs("\n", stdout);
  fflush(stdout);
}

/* ---- options ---- */

/* Does an option that takes an argument have one: glued on, or the next? Moves *i to it. */
static bool has_argument(const options *o, int *i) {
  if (o->argv[*i][2]) return true;
  ++*i;
  return *i < o->argc && o->argv[*i][0] != '-';
}

static bool read_options(options *o) {
  for (int i = 1; i < o->argc; i++) {
    const char *a = o->argv[i];
    bool alone = a[0] == '-' && a[1] && !a[2];
    o->script = i;
    if (a[0] != '-' || !a[1]) return true;
    o->bad = a;
    switch (a[1]) {
    case '-':
      if (!alone) return false;
      o->script = i + 1;
      return true;
    case 'E': o->no_env = true; break;
    case 'W': break;
    case 'i': o->interactive = o->version = true; break;
    case 'v': o->version = true; break;
    case 'e': o->execute = true; /* fall through */
    case 'l':
      if (!has_argument(o, &i)) return false;
      continue;
    default: return false;
    }
    if (!alone) return false;
  }
  o->script = o->argc;
  return true;
}

/* The options that do something, in order. */
static bool run_options(lua_State *L, const options *o) {
  for (int i = 1; i < o->script; i++) {
    const char *a = o->argv[i];
    if (a[1] == 'W') lua_warning(L, "@on", 0);
    if (a[1] != 'e' && a[1] != 'l') continue;
    const char *argument = a[2] ? a + 2 : o->argv[++i];
    int status = a[1] == 'e' ? run_string(L, o, argument, "=(command line)") : run_library(L, o, argument);
    if (status != LUA_OK) return false;
  }
  return true;
}

/* The global `arg`: the script at 0, its arguments after it, what stands before it at negative indices. */
static void make_arg(lua_State *L, const options *o) {
  int zero = o->script == o->argc ? 0 : o->script;
  lua_createtable(L, o->argc - zero, zero + 1);
  for (int i = 0; i < o->argc; i++) {
    lua_pushstring(L, o->argv[i]);
    lua_rawseti(L, -2, i - zero);
  }
  lua_setglobal(L, "arg");
}

/* ---- the program ---- */

static void print_version(bool all) {
  puts(LUA_COPYRIGHT);
  if (all) printf("kiln %s: tensors and graphs; kiln.help() says what there is\n", KN_VERSION_TEXT);
  fflush(stdout);
}

/* Everything that may raise, under one protected call. Returns true on success. */
static int run(lua_State *L) {
  const options *o = lua_touserdata(L, 1);
  lua_settop(L, 0);
  luaL_checkversion(L);
  if (o->version) print_version(false);
  if (o->no_env) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  make_arg(L, o);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  lua_settop(L, 0);
  lua_gc(L, LUA_GCGEN, 0, 0); /* as `lua` does: results die young, and their memory is warm for the next op */
  if (!o->no_env && run_init(L, o) != LUA_OK) return 0;
  if (!run_options(L, o)) return 0;
  if (o->script < o->argc && run_script(L, o) != LUA_OK) return 0;
  if (o->interactive) {
    prompt(L, o);
  } else if (o->script == o->argc && !o->execute && !o->version) {
    if (isatty(STDIN_FILENO)) {
      print_version(true);
      prompt(L, o);
    } else if (run_loaded(L, o, luaL_loadfile(L, NULL)) != LUA_OK) {
      return 0;
    }
  }
  lua_pushboolean(L, 1);
  return 1;
}

int main(int argc, char **argv) {
  options o = {
      .program = argc > 0 && argv[0][0] ? argv[0] : "kiln", .argv = argv, .argc = argc, .script = argc};
  if (!read_options(&o)) return usage(&o);
  lua_State *L = luaL_newstate();
  if (!L) {
    say(o.program, "cannot create state: not enough memory");
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, &o);
  int status = lua_pcall(L, 1, 1, 0);
  bool good = lua_toboolean(L, -1);
  report(L, &o, status);
  lua_close(L);
  return status == LUA_OK && good ? EXIT_SUCCESS : EXIT_FAILURE;
}
