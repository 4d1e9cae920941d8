#!/bin/sh
# What `meson install` leaves, moved elsewhere and used from outside: by a compiler with pkg-config and by a project
# with its own meson.build, shared and static, C99 and C++.
# KILN_BUILD names the build folder (default: build).
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
top=$(CDPATH='' cd -- "$here/.." && pwd -P)
build=${KILN_BUILD:-$top/build}
digits=$top/samples/data/digits
if nm -u "$build/kiln-run" | grep -q -E ' __(asan|ubsan|tsan)'; then
  skip 'what is installed works' 'sanitizers want to be in the host, too'
  report
  exit
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

# ---- installing ----
check 'meson install into DESTDIR' "$(DESTDIR=$scratch/dest meson install -C "$build" --no-rebuild >said 2>&1 || tail -n 20 said)"
header=$(find dest -name kiln.h)
mv "${header%/include/kiln.h}" moved
libs=$(cd moved && find lib* -name libkiln.a)
libs=$scratch/moved/${libs%/libkiln.a}
check 'headers, libraries, their .pc files and the programs are there' "$(
  for file in moved/include/kiln.h moved/include/kiln_lua.h moved/bin/kiln moved/bin/kiln-run "$libs/libkiln.so" "$libs/libkiln.so.0" \
    "$libs/libkiln.a" "$libs/libkiln-lua.so" "$libs/libkiln-lua.a" "$libs/pkgconfig/kiln.pc" "$libs/pkgconfig/kiln-lua.pc"; do
    [ -e "$file" ] || echo "$file"
  done
  find moved -type f ! -name 'libkiln*' ! -name 'kiln*'
)"
# A build folder that was configured before that option was the default keeps what it had.
if grep -q pcfiledir "$libs/pkgconfig/kiln.pc"; then
  check 'nothing says where it was to be installed' "$(grep -n -F "$(sed -n 's/^prefix=//p' "$build/meson-private/kiln.pc" |
    grep -v pcfiledir || echo /usr/local)" "$libs"/pkgconfig/*.pc)"
else
  skip 'the .pc files find their prefix' 'this build folder has pkgconfig.relocatable off'
  sed -i "s|^prefix=.*|prefix=$scratch/moved|" "$libs"/pkgconfig/*.pc
fi
export PKG_CONFIG_PATH="$libs/pkgconfig"
# Beside the shared library the static one is not taken: it is alone in a folder.
mkdir alone
ln -s "$libs"/lib*.a alone

moved/bin/kiln "$top/samples/digits.lua" --epochs 3 --quiet --limit 600 --data "$top/samples/data" --save digits.kiln >said 2>&1
check 'the kiln that was installed trains and saves' "$([ -s digits.kiln ] || cat said)"
check 'the kiln-run that was installed reads that' "$(moved/bin/kiln-run digits.kiln --info | grep -q '^input x' || echo 'it does not')"

# ---- a compiler with pkg-config ----
# uses KIND PROGRAM: does it run, with kiln as a library of this kind?
uses() {
  case $1 in
    shared) readelf -d "$2" | grep -q 'NEEDED.*libkiln' || echo 'it does not load libkiln' ;;
    static) readelf -d "$2" | grep 'NEEDED.*libkiln' ;;
  esac
  LD_LIBRARY_PATH=$libs "$2" digits.kiln "$digits-images.idx3-ubyte" "$digits-labels.idx1-ubyte" >said 2>&1 || cat said
  grep -q 'right' said || cat said
}

# Names of kiln's own that a host may use for something else.
cat >names.c <<'END'
int kn_apply(void);
int kn_tensor_new(void);
int cp_gemm_run(void);
int kn_apply(void) { return 1; }
int kn_tensor_new(void) { return 2; }
int cp_gemm_run(void) { return 3; }
END
# build SOURCE KIND COMPILER…
build() {
  source=$1 kind=$2
  shift 2
  flags='' more=''
  if [ "$kind" = static ]; then
    flags="--static --define-variable=libdir=$scratch/alone"
    cc -c names.c -o names.o && more=names.o
  fi
  # shellcheck disable=SC2046,SC2086 # lists
  "$@" -Wall -Wextra -Wpedantic -Wconversion -Werror "$source" $more -o program $(pkg-config $flags --cflags --libs kiln) -pthread 2>&1 &&
    uses "$kind" ./program
}
for kind in shared static; do
  check "a C99 host, $kind" "$(build "$top/samples/host.c" $kind cc -std=c99)"
  for compiler in g++ clang++; do
    if command -v $compiler >/dev/null; then
      check "a C++ host by $compiler, $kind" "$(build "$top/samples/host.cpp" $kind $compiler -std=c++11)"
    else
      skip "a C++ host, $kind" "$compiler is not on this machine"
    fi
  done
done

# ---- a host of Lua ----
cat >script.c <<'END'
#include <kiln.h>
#include <kiln_lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

int main(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "kiln", luaopen_kiln, 1);
  if (luaL_dostring(L, "print(kiln.script(function(x) return (x * 2):sum() end)(kiln.ones(3)):item(), 'right')"))
    puts(lua_tostring(L, -1));
  lua_close(L);
  return 0;
}
END
for kind in shared static; do
  flags=''
  [ "$kind" = shared ] || flags="--static --define-variable=libdir=$scratch/alone"
  # shellcheck disable=SC2046,SC2086 # lists
  check "a host of Lua, $kind" "$(cc -std=c99 -Wall -Wextra -Werror script.c -o program $(pkg-config $flags --cflags --libs kiln-lua) 2>&1 &&
    uses $kind ./program && { grep -q '^6' said || cat said; })"
done

if command -v lua5.4 >/dev/null; then
  check "Lua's own interpreter finds it by require" "$(LUA_CPATH="$libs/lua/5.4/?.so" \
    lua5.4 -e 'print((require "kiln").ones(3):sum():item())' >said 2>&1 || echo "exit status $?"; grep -v -x '3.0' said)"
else
  skip "Lua's own interpreter finds it by require" 'lua5.4 is not on this machine'
fi

# ---- a project of its own ----
mkdir project
cp "$top/samples/host.c" "$top/samples/host.cpp" project
cat >project/meson.build <<'END'
project('consumer', 'c', default_options: ['c_std=c99', 'cpp_std=c++11', 'warning_level=3', 'werror=true'])
kiln = dependency('kiln', version: '>=0.1', static: get_option('static'))
executable('host', 'host.c', dependencies: [kiln, dependency('threads')])
if add_languages('cpp', required: false, native: false)
  executable('hostpp', 'host.cpp', dependencies: [kiln, dependency('threads')])
endif
END
printf "option('static', type: 'boolean', value: false)\n" >project/meson_options.txt
for kind in shared static; do
  said=$(meson setup -Dstatic="$([ $kind = static ] && echo true || echo false)" "project/$kind" project 2>&1 &&
    meson compile -C "project/$kind" 2>&1)
  check "a Meson project, $kind" "$([ -x "project/$kind/host" ] || printf '%s\n' "$said" | tail -n 20
    for program in "project/$kind"/host*; do [ ! -f "$program" ] || uses $kind "$program"; done)"
done
report
