#!/bin/sh
# The smallest build: libkiln for one graph's ops, without Lua, gradients, CUDA and oneDNN, in a build folder and with a
# prefix of its own. It must give what the whole kiln gives, refuse the rest by name, and stay small.
# KILN_BUILD names the build folder (default: build). The first time takes half a minute; then only what has changed.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
top=$(CDPATH='' cd -- "$here/.." && pwd -P)
build=${KILN_BUILD:-$top/build}
small=$build/small prefix=$build/small/prefix
most=2000000 # bytes of libkiln.so, without symbols
if nm -u "$build/kiln-run" | grep -q -E ' __(asan|ubsan|tsan)'; then
  skip 'the smallest build' 'it is looked at without sanitizers'
  report
  exit
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

# ---- building ----
model=$build/small.kiln
"$build/kiln" "$top/samples/digits.lua" --epochs 3 --quiet --limit 600 --data "$top/samples/data" --save "$model" >said 2>&1
check 'digits.lua trains and saves' "$([ -s "$model" ] || cat said)"
[ -f "$small/build.ninja" ] || rm -rf "$small"
{
  if [ -d "$small" ]; then
    meson configure "$small" -Dops="$model" # the list may be another now
  else
    meson setup "$small" "$top" --prefix "$prefix" -Dbuildtype=minsize -Druntime_only=true -Dops="$model" -Dcuda=disabled \
      -Donednn=disabled -Disa=avx2
  fi && meson compile -C "$small" && meson install -C "$small" --no-rebuild
} >said 2>&1 </dev/null
check 'libkiln is built for the ops of a .kiln file, and installed into a prefix' \
  "$([ -x "$prefix/bin/kiln-run" ] || tail -n 30 said)"
check 'nothing of Lua is installed' "$(find "$prefix" -name '*lua*')"

# ---- what is in it ----
check 'it holds no gradient rule, no composite and no kernel of other ops' \
  "$(nm "$small/libkiln.so" | grep -E ' t kn_(vjp|composite)_| t kn_kernel_(erf|sort|conv2d_grad_input|rnn_layer)$')"
check 'the whole libkiln is seen to hold them' "$(for name in kn_vjp_erf kn_composite_gelu kn_kernel_sort; do
  nm "$build/libkiln.so" | grep -q " t $name\$" || echo "$name"
done)"
strip -o stripped "$small/libkiln.so"
size=$(wc -c <stripped)
strip -o stripped "$build/libkiln.so"
printf 'libkiln.so without symbols: %d bytes, the whole one %d\n' "$size" "$(wc -c <stripped)"
check "libkiln.so takes at most $most bytes" "$([ "$size" -le "$most" ] || echo "$size")"

# ---- what it does ----
digits=$top/samples/data/digits
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name kiln.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # a list
check 'a host is built with it' \
  "$(cc -std=c99 -Wall -Wextra -Werror "$top/samples/host.c" -o host $(pkg-config --cflags --libs kiln) 2>&1)"
export LD_LIBRARY_PATH="${PKG_CONFIG_PATH%/pkgconfig}"
./host "$model" "$digits-images.idx3-ubyte" "$digits-labels.idx1-ubyte" small >said 2>&1
"$build/samples/host" "$model" "$digits-images.idx3-ubyte" "$digits-labels.idx1-ubyte" whole >>said 2>&1
check 'the host reads every digit as with the whole libkiln' "$(if [ ! -s small ] || [ ! -s whole ]; then cat said; fi
  paste small whole | awk '{ d = $2 - $5 } ($1 != $4 || $3 != $6) && ($2 - 0.9) ^ 2 > 1e-8 || d * d > 1e-8' | head -n 5)"
"$build/kiln" -e 'kiln.script(function(x) return x:erf() end, { inputs = { kiln.spec("float32", { 4 }) } }):save "erf.kiln"'
check 'a graph with another op is refused, by its name and the option' \
  "$("$prefix/bin/kiln-run" erf.kiln 2>&1 | grep -v '^kiln-run: erf.kiln: .*erf: this build of kiln is without it (-Druntime_only, -Dops)$')"
"$top/core/choose_ops.sh" "$top/core/ops.def" "$top/graph/nodes.def" add mul add_all 2>said >/dev/null && echo 'no failure' >>said
check 'a name that is no op is refused while configuring' "$(grep -v -x 'the option ops names add_all, which is no op' said)"
report
