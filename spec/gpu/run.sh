#!/bin/bash
# Everything that needs a GPU, in one go: builds, tests, measures, and writes one dated file of results. It needs CUDA 13, gcc and
# ninja, no network; what else kiln is built with may come from a folder that `carry.sh` has filled.
#   spec/gpu/run.sh [--carry FOLDER] [--out FOLDER] [--software] [STEP...]
# Results go to FOLDER, or to spec/gpu/results. Steps are the rows below; without any named, all of them, within ten minutes: a step gets the
# time that is left at most, one that runs over is cut, and what it had said until then is kept. --software tries all of it, with small
# sizes, on the software device of the tests, in twenty times the time. Ends in a line `N passed, N failed`; without a device it says why and ends
# with 77.
set -uo pipefail

steps() { # name, most seconds, command; each ends in a line `N passed, N failed`, or fails
  cat <<'END'
build     120  build
counts     15  kiln_spec spec/lua/cuda_counts.lua
ops        45  suite test_cuda_sweep
gradients  60  suite test_grad_sweep
blas       20  suite test_cuda_blas
dnn        40  suite test_cuda_dnn
whole      20  suite test_cuda_whole
graphs     40  kiln_spec spec/lua/cuda_whole.lua spec/lua/autocast.lua spec/lua/device.lua
specs      40  kiln_spec --device cuda spec/lua/{autograd,index,inplace,linalg,nn,nn_utils,ops,optim,optim_groups,random}.lua
samples    45  kiln_spec spec/lua/device_samples.lua
bench     300  bench
END
}

usage() { sed -n 4p "$0" | cut -c3- >&2; exit 2; }
cd "$(dirname "$0")/../.." || exit 1
carry='' out=spec/gpu/results software='' wanted=()
while [ $# -gt 0 ]; do
  case "$1" in
    --carry) carry=${2:?$(usage)}; shift 2 ;;
    --software) software=yes; shift ;;
    --out) out=${2:?$(usage)}; shift 2 ;;
    -*) usage ;;
    *) wanted+=("$1"); shift ;;
  esac
done

# ---- what was carried -----------------------------------------------------------------------------------

# In a place that stays the same, as what is built knows it.
unpack() {
  root=${TMPDIR:-/tmp}/kiln-carried
  if [ ! -e "$root/complete" ]; then
    mkdir -p "$root"
    for deb in "$carry"/*.deb; do
      if command -v dpkg-deb >/dev/null; then dpkg-deb -x "$deb" "$root"
      else ar p "$deb" data.tar.xz | tar -C "$root" -xJ; fi || return 1
    done
    touch "$root/complete"
  fi
  local lib=$root/usr/lib/x86_64-linux-gnu include=$root/usr/include
  export CPATH="$include:$include/x86_64-linux-gnu${CPATH:+:$CPATH}"
  export LIBRARY_PATH="$lib:$root/lib/x86_64-linux-gnu${LIBRARY_PATH:+:$LIBRARY_PATH}"
  export LD_LIBRARY_PATH="$lib:$root/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export PKG_CONFIG="$root/usr/bin/pkgconf" PKG_CONFIG_SYSROOT_DIR="$root"
  export PKG_CONFIG_LIBDIR="$lib/pkgconfig:$root/usr/share/pkgconfig"
  export PATH="$PATH:$root/usr/bin"
}

# Python's packages may be the only place where cuDNN's headers and libraries are.
python_cuda() {
  local site
  site=$(python3 -c 'import nvidia, os; print(list(nvidia.__path__)[0])' 2>/dev/null) || return 0
  for folder in "$site"/*/include; do [ -d "$folder" ] && CPATH="${CPATH:+$CPATH:}$folder"; done
  [ -z "${CPATH:-}" ] || export CPATH
}

# ---- steps ----------------------------------------------------------------------------------------------

build() {
  command -v meson >/dev/null || { # where it is a module of Python's alone
    mkdir -p "$work/bin"
    printf '#!/bin/sh\nexec python3 -m mesonbuild.mesonmain "$@"\n' >"$work/bin/meson"
    chmod +x "$work/bin/meson"
    PATH="$work/bin:$PATH"
  }
  ./dev build && printf '1 passed, 0 failed\n'
}
kiln_spec() { "$build"/kiln spec/lua/run.lua "$@"; }
suite() { [ -x "$build/spec/$1" ] && "$build/spec/$1"; }
# Rows until 20 s before the step ends, so that what comes after them is there, too.
bench() { "$build"/kiln spec/gpu/bench.lua --seconds $((limit - 20)) ${software:+--small --rounds 1}; }

work=$(mktemp -d)
build=${KILN_BUILD:-$PWD/build}
trap 'rm -rf "$work"' EXIT
if [ "$software" ]; then
  export KILN_CUDA_LIBRARIES=$build/spec/cuda/sim
elif command -v nvidia-smi >/dev/null && nvidia-smi -L >"$work/gpus" 2>&1; then
  export KILN_SPEC_DEVICE=1 # C suites use it instead of the software device
else
  printf 'run.sh: there is no device here: %s\n' "$(head -n 1 "$work/gpus" 2>/dev/null || echo 'no nvidia-smi')" >&2
  exit 77
fi
[ -z "$carry" ] || unpack || { echo "run.sh: $carry could not be unpacked" >&2; exit 1; }
python_cuda
mkdir -p "$out"
results=$out/$(date +%F)-gpu.md
{
  printf '# kiln on a GPU, %s\n\n' "$(date '+%F %H:%M')"
  [ -z "$software" ] || printf -- '- the software device of the tests, small sizes: no time here means anything\n'
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | sed 's/^/- /'
  nvcc --version 2>/dev/null | sed -n 's/^Cuda compilation/- Cuda compilation/p'
  git describe --always --dirty 2>/dev/null | sed 's/^/- commit /'
} >"$results"

export -f build kiln_spec suite bench
export work software limit build
times=1
[ -z "$software" ] || times=20
passed=0 failed=0 limit=0 last=$((SECONDS + ${KILN_GPU_SECONDS:-$((590 * times))}))
while read -r name most command; do
  [ ${#wanted[@]} -eq 0 ] || [[ " ${wanted[*]} " == *" $name "* ]] || continue
  printf '== %s\n' "$name"
  start=$SECONDS
  most=$((most * times))
  limit=$((last - start < most ? last - start : most))
  if ((limit < 5)); then
    printf '\n## %s: no time was left for it\n' "$name" | tee -a "$results"
    ((failed += 1))
    continue
  fi
  timeout -k 5 "$limit" bash -c "$command" >"$work/log" 2>&1 </dev/null
  rc=$?
  tail -n 40 "$work/log"
  line=$(tail -n 1 "$work/log")
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
    ((passed += BASH_REMATCH[1], failed += BASH_REMATCH[2]))
    ((rc == 0 || BASH_REMATCH[2] > 0)) || ((failed += 1))
  else
    ((failed += 1))
    if ((rc == 124 || rc == 137)); then line="cut after $limit s"; else line="ended with $rc"; fi
  fi
  {
    printf '\n## %s: %s (%d s)\n' "$name" "$line" $((SECONDS - start))
    if [ "$name" = bench ] || [ "$name" = counts ]; then
      printf '\n' && cat "$work/log"
    elif ((rc != 0)); then
      printf '\n```\n' && tail -n 60 "$work/log" && printf '```\n'
    fi
  } >>"$results"
done < <(steps)
printf '\n%d passed, %d failed\n' "$passed" "$failed" | tee -a "$results"
((failed == 0))
