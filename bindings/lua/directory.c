/* kiln.list_directory(path): the names in a folder, for readers of image folders. No walking, no patterns:
 * those are Lua's business. */
#define _POSIX_C_SOURCE 200809L
#include "bindings/lua/owned.h"
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static void close_directory(void *block) {
  DIR **d = block;
  if (*d) closedir(*d);
}

/* Behind links, as opening does. False for what is neither a folder nor a file, or has gone. */
static bool folder_or_file(DIR *d, const char *name, bool *folder) {
  struct stat s;
  if (fstatat(dirfd(d), name, &s, 0) != 0) return false;
  *folder = S_ISDIR(s.st_mode);
  return *folder || S_ISREG(s.st_mode);
}

/* Gives two lists, in no order: folders and files, without "." and "..". */
static int list_directory(lua_State *L) {
  const char *path = kl_check_text(L, 1, "list_directory", "a path", NULL);
  lua_settop(L, 1);
  DIR **d = kl_push_owned(L, sizeof *d, close_directory); /* 2 */
  lua_newtable(L);
  lua_newtable(L);
  *d = opendir(path);
  if (!*d) return kl_error(L, KN_IO, "list_directory: %s: %s", path, strerror(errno));
  lua_Integer count[2] = {0, 0};
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(*d);
    if (!entry) break;
    bool folder;
    const char *name = entry->d_name;
    if (!strcmp(name, ".") || !strcmp(name, "..") || !folder_or_file(*d, name, &folder)) continue;
    lua_pushstring(L, name);
    lua_rawseti(L, folder ? 3 : 4, ++count[folder ? 0 : 1]);
  }
  if (errno) return kl_error(L, KN_IO, "list_directory: %s: %s", path, strerror(errno));
  kl_give_back(L, 2);
  return 2;
}

void kl_open_directory(lua_State *L) {
  lua_pushcfunction(L, list_directory);
  lua_setfield(L, -2, "list_directory");
}
