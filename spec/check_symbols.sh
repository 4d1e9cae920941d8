#!/bin/sh
# Checks of what was built, by its symbols: no Lua where none belongs, no state outside a context, nothing that
# exits or prints, nothing to be seen but the public headers' names, all of that as it was promised (the .abi files
# beside the headers), and kiln.h clean as C99 and C++.
# KILN_BUILD names the build folder (default: build). KILN_ABI=write adds to the .abi files what headers have anew.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
top=$(CDPATH='' cd -- "$here/.." && pwd -P)
cd "${KILN_BUILD:-$top/build}" || exit 1

for tool in nm objdump readelf ldd; do
  command -v "$tool" >/dev/null || {
    skip 'checks of what was built' "$tool is not on this machine"
    report
    exit
  }
done

undefined() { nm -u "$@" 2>/dev/null | awk 'NF == 2 { sub(/@.*/, "", $2); print $2 }' | LC_ALL=C sort -u; }
exported() { nm -D --defined-only "$1" | awk '{ sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u; }
host=samples/host
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

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
# writable FILE: sections with bytes that may be written to. .data.rel.ro is constant once loaded: tables that hold
# addresses.
writable() {
  readelf -SW "$1" | sed 's/^ *\[ *\([0-9]*\)\]/\1/' |
    awk '$1 ~ /^[0-9]+$/ && $(NF - 3) ~ /W/ && $2 !~ /^\.data\.rel\.ro/ && $6 !~ /^0+$/ { print $2 " has 0x" $6 " bytes" }'
}
# What says so by the names of symbols.
mutable() {
  objdump -t "$1" | awk '
    /file format/ { member = $1 }
    { for (i = 1; i <= NF; i++)
        if ($i ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && $i !~ /^\.data\.rel\.ro/ && $NF !~ /^\./)
          print member " " $NF " in " $i }'
}
for name in libkiln libkiln-lua; do
  what="$name keeps no mutable state outside a context"
  if undefined "$name.a" | grep -q -E '^__(asan|ubsan|tsan)'; then
    skip "$what" 'sanitizers add theirs'
  else
    check "$what" "$(mutable "$name.a")"
    check "$name has no section that can be written to" "$(writable "$name.a")"
  fi
done
# That these can fail: a counter, one per thread, a constant, and a table of addresses, which is none.
printf '%s\n' 'int seen(void);' 'const int *const *table(void);' 'static const int two = 2;' \
  'static const int *const all[] = {&two};' 'const int *const *table(void) { return all; }' >"$scratch/a.c"
cc -fPIC -c -o "$scratch/constant.o" "$scratch/a.c"
check 'tables of addresses are no mutable state' "$(mutable "$scratch/constant.o"; writable "$scratch/constant.o")"
for kind in 'static int n' 'static int n = 1' 'static _Thread_local int n' 'int n'; do
  printf '%s;\nint seen(void) { return n++; }\n' "$kind" >"$scratch/b.c"
  cc -fPIC -c -o "$scratch/state.o" "$scratch/b.c"
  check "$kind is seen as mutable state" "$(
    mutable "$scratch/state.o" | grep -q . || echo 'not by its symbol'
    writable "$scratch/state.o" | grep -q . || echo 'not by its section'
  )"
done
check 'libkiln never exits, aborts, jumps or prints by itself' "$(undefined libkiln.a | grep -x -E \
  'abort|exit|_exit|_Exit|quick_exit|longjmp|siglongjmp|v?printf|__v?printf_chk|puts|putchar|perror|stdout|stderr')"

# ---- what can be seen from outside ----
# abi HEADER: what it promises
abi() {
  cc -E -DKILN_API= -DKILN_LUA_API= -I"$top/bindings/c" -I"$top/bindings/lua" "$top/bindings/$1" |
    awk -v header="${1##*/}" -f "$here/abi.awk" | LC_ALL=C sort
}

# promised HEADER: is it what was promised? Lines of its .abi file begin with the version that they came with.
promised() {
  list=$top/bindings/${1%.h}.abi
  abi "$1" >"$scratch/abi"
  touch "$list"
  sed 's/^[^ ]* //' "$list" | LC_ALL=C sort >"$scratch/list"
  if [ "${KILN_ABI:-}" = write ]; then
    LC_ALL=C comm -13 "$scratch/list" "$scratch/abi" | sed "s/^/$version /" | cat "$list" - |
      LC_ALL=C sort -k 2 >"$scratch/new"
    cp "$scratch/new" "$list"
    sed 's/^[^ ]* //' "$list" | LC_ALL=C sort >"$scratch/list"
  fi
  LC_ALL=C comm -23 "$scratch/list" "$scratch/abi" | sed 's/^/gone, though binaries rely on it: /'
  LC_ALL=C comm -13 "$scratch/list" "$scratch/abi" |
    sed 's/^/not listed (KILN_ABI=write spec\/check_symbols.sh adds it): /'
}

functions() { sed -n -e '/^typedef/d' -e 's/.*\(\bkiln_[a-z0-9_]*\|luaopen_kiln\)(.*/\1/p' | LC_ALL=C sort -u; }
global() { nm -g --defined-only "$1" 2>/dev/null | awk 'NF == 3 { print $3 }' | LC_ALL=C sort -u; }
differ() { diff "$1" "$2" | grep '^[<>]'; }

version=$(sed -n "s/^ *version: '\(.*\)',$/\1/p" "$top/meson.build" | head -n 1)
for header in c/kiln.h lua/kiln_lua.h; do
  check "$header is what bindings/${header%.h}.abi promises" "$(promised "$header")"
done
abi c/kiln.h | functions >"$scratch/kiln"
{ cat "$scratch/kiln"; abi lua/kiln_lua.h | functions; } | LC_ALL=C sort -u >"$scratch/kiln-lua"
for name in kiln kiln-lua; do
  check "the headers of lib$name declare functions" "$([ -s "$scratch/$name" ] || echo 'not one was found')"
  exported "lib$name.so" | grep -v '^KILN_' >"$scratch/seen"
  check "lib$name.so exports what its headers declare, no more and no less" "$(differ "$scratch/$name" "$scratch/seen")"
  global "lib$name.a" >"$scratch/seen"
  check "lib$name.a has these as its only global names" "$(differ "$scratch/$name" "$scratch/seen")"
  check "lib$name.so is of the ABI that its name tells" "$(
    readelf -d "lib$name.so" | grep -q "SONAME.*\[lib$name\.so\.${version%%.*}\]" || echo 'another soname'
    nm -D --with-symbol-versions --defined-only "lib$name.so" | awk '$2 == "T"' | grep -v "@@KILN_${version%%.*}\$"
  )"
done
# That these can fail: a name that is gone, one that is new, one that means something else now.
printf '%s\n' '0.1.0 enum kiln_status: KILN_OK = 0' '0.1.0 int kiln_once(void)' '0.1.0 int kiln_version(void)' >"$scratch/was"
printf '%s\n' 'enum kiln_status: KILN_OK = 1' 'int kiln_new(void)' 'int kiln_version(void)' >"$scratch/is"
sed 's/^[^ ]* //' "$scratch/was" | LC_ALL=C sort | LC_ALL=C comm -3 - "$scratch/is" >"$scratch/differ"
check 'a promise that is broken is seen' "$([ "$(wc -l <"$scratch/differ")" -eq 4 ] || cat "$scratch/differ")"

# ---- the public headers ----
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
