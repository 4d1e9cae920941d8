#!/bin/sh
# Checks of what was built, by its symbols: no Lua where none belongs, no state outside a context, nothing that
# exits or prints, nothing exported but kiln.h's names, and kiln.h clean as C99 and C++.
# KILN_BUILD names the build folder (default: build).
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
top=$(CDPATH='' cd -- "$here/.." && pwd -P)
cd "${KILN_BUILD:-$top/build}" || exit 1

for tool in nm objdump ldd; do
  command -v "$tool" >/dev/null || {
    skip 'checks of what was built' "$tool is not on this machine"
    report
    exit
  }
done

undefined() { nm -u "$@" 2>/dev/null | awk 'NF == 2 { sub(/@.*/, "", $2); print $2 }' | LC_ALL=C sort -u; }
exported() { nm -D --defined-only "$1" | awk '{ sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u; }
header=$top/bindings/c/kiln.h
host=samples/host

# ---- no Lua in libkiln, kiln-run and the C host ----
for file in libkiln.a libkiln.so kiln-run "$host"; do
  if [ ! -e "$file" ]; then
    check "$file is there" "$file was not built"
    continue
  fi
  check "$file holds no symbol of Lua" "$(nm "$file" 2>/dev/null | grep -E ' (lua|luaL|luaopen)_' | head -n 5)"
  case $file in
    *.a) ;;
    *) check "$file does not load Lua" "$(ldd "$file" | grep -i lua)" ;;
  esac
done
# That the two checks above can fail: the kiln executable does use Lua.
check 'kiln itself is seen to use Lua' "$(nm kiln | grep -q -E ' lua_[a-z]+' || echo 'no lua_ symbol in kiln')"

# ---- state, exits, prints ----
if undefined libkiln.a | grep -q -E '^__(asan|ubsan|tsan)'; then
  skip 'libkiln keeps no mutable state outside a context' 'sanitizers add theirs'
else
  # .data.rel.ro is constant once loaded: tables that hold addresses.
  check 'libkiln keeps no mutable state outside a context' "$(objdump -t libkiln.a | awk '
    /file format/ { member = $1 }
    { for (i = 1; i <= NF; i++)
        if ($i ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && $i !~ /^\.data\.rel\.ro/ && $NF !~ /^\./)
          print member " " $NF " in " $i }')"
fi
check 'libkiln never exits, aborts, jumps or prints by itself' "$(undefined libkiln.a | grep -x -E \
  'abort|exit|_exit|_Exit|quick_exit|longjmp|siglongjmp|v?printf|__v?printf_chk|puts|putchar|perror|stdout|stderr')"

# ---- what can be seen from outside ----
declared=$(grep -o -E '\bkiln_[a-z0-9_]+ *\(' "$header" | tr -d ' (' | LC_ALL=C sort -u)
check 'libkiln exports only names that kiln.h declares' "$(exported libkiln.so | while read -r name; do
  printf '%s\n' "$declared" | grep -q -x "$name" || echo "$name"
done)"
check 'libkiln exports something' "$(exported libkiln.so | grep -q . || echo 'not one symbol')"
check 'libkiln-lua exports only kiln_ and luaopen_ names' \
  "$(exported libkiln-lua.so | grep -v -E '^(kiln|luaopen_kiln)(_|$)')"

# ---- the public header ----
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '#include "kiln.h"\n#include "kiln_lua.h"\nint main(void) { return 0; }\n' >"$scratch/a.c"
cp "$scratch/a.c" "$scratch/a.cc"
check 'kiln.h and kiln_lua.h are clean C99' "$(cc -std=c99 -pedantic -Wall -Wextra -Wstrict-prototypes -Werror \
  -I"$top/bindings/c" -I"$top/bindings/lua" -fsyntax-only "$scratch/a.c" 2>&1)"
if command -v c++ >/dev/null; then
  check 'kiln.h and kiln_lua.h are clean C++' "$(c++ -std=c++11 -pedantic -Wall -Wextra -Werror -I"$top/bindings/c" \
    -I"$top/bindings/lua" -fsyntax-only "$scratch/a.cc" 2>&1)"
else
  skip 'kiln.h and kiln_lua.h are clean C++' 'no C++ compiler on this machine'
fi
report
