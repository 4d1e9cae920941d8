# Who may include whom. Reads source files (named from the top of the tree) and prints each include that the
# rules below do not allow. A rule is: room, then what its files may include, as prefixes of rooted paths, and
# in angle brackets what comes from outside besides the C library. Not allowed is what no prefix allows.
BEGIN {
  split("assert ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg " \
        "stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings tgmath threads time uchar " \
        "wchar wctype malloc dirent dlfcn fcntl glob pthread poll sched termios unistd " \
        "sys/ioctl sys/mman sys/stat sys/time sys/types sys/wait sys/resource sys/socket sys/un", libc_list, " ")
  for (i in libc_list) libc[libc_list[i] ".h"] = 1
  lua = " <lua.h> <lauxlib.h> <lualib.h> <luaconf.h>"

  rule("core", "core/ <omp.h>")
  rule("graph", "core/ graph/")
  rule("backends", "core/ graph/ backends/")           # the registry; see also another_backend()
  rule("backends/ref", "core/ graph/ backends/")
  rule("backends/onednn", "core/ graph/ backends/ <oneapi/dnnl/")
  rule("backends/cuda", "core/ graph/ backends/ <cuda.h> <cublasLt.h> <cudnn.h> <nvrtc.h>")
  rule("lua/capture", "core/ graph/ lua/capture/" lua)
  rule("lua/kiln", "lua/kiln/")                        # Lua files and the generator that embeds them
  rule("bindings/c", "core/ graph/ bindings/c/ backends/backend.h backends/registry.h")
  rule("bindings/io", "core/ bindings/io/ <png.h> <jpeglib.h> <jerror.h> <zlib.h> <archive.h> <archive_entry.h>")
  above = "core/ graph/ bindings/ lua/ backends/backend.h backends/registry.h"
  rule("bindings/lua", above lua " kiln.h") # the public header includes the other as hosts do
  rule("bindings/bin", above lua)
  rule("samples", "kiln.h <kiln.h> kiln_lua.h" lua)
}

function rule(room, allowed) { may[room] = " " allowed " " }

function room_of(path,   parts, n) {
  n = split(path, parts, "/")
  if (n > 2 && (parts[1] "/" parts[2]) in may) return parts[1] "/" parts[2]
  return parts[1]
}

# backends/X must not see backends/Y; the registry's own files stand directly in backends/.
function another_backend(room, path,   parts, n) {
  n = split(path, parts, "/")
  return parts[1] == "backends" && n > 2 && room ~ /^backends\// && parts[1] "/" parts[2] != room
}

function allowed_in(room, name,   list, n, i) {
  n = split(may[room], list, " ")
  for (i = 1; i <= n; i++) if (index(name, list[i]) == 1) return 1
  return 0
}

function offend(why) { printf "%s:%d: %s: %s\n", FILENAME, FNR, $0, why }

/^[ \t]*#[ \t]*include[ \t]/ {
  room = room_of(FILENAME)
  if (room == "spec") next
  if (!(room in may)) { offend("no rule for the room " room); next }
  name = $0
  sub(/^[ \t]*#[ \t]*include[ \t]*/, "", name)
  if (name ~ /^</) {
    sub(/>.*/, ">", name)
    plain = substr(name, 2, length(name) - 2)
    if (!(plain in libc) && !allowed_in(room, name)) offend("not for " room)
  } else if (name ~ /^"/) {
    name = substr(name, 2)
    sub(/".*/, "", name)
    if (name !~ /\// && room != "samples" && FILENAME != "bindings/lua/kiln_lua.h") offend("not written from the top of the tree")
    else if (name ~ /(^|\/)\.\.?\//) offend("not written from the top of the tree")
    else if (!allowed_in(room, name)) offend("not for " room)
    else if (another_backend(room, name)) offend("another backend")
    else if (room ~ /^bindings\/(lua|bin)$/ && name ~ /^core\/kernels\//) offend("kernels are core's own")
  } else if (name !~ /^[A-Z_]+/) offend("not understood")
}
