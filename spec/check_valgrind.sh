#!/bin/sh
# One small script from end to end (tensors, training, capture, save, load, run), and a slice of the sweep in which
# memory runs out at each call of kiln.h, under valgrind: no invalid access, no use of unset memory, nothing of ours
# lost.
# KILN_BUILD names the build folder (default: build).
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
build=${KILN_BUILD:-$here/../build}

# clean WHAT SECONDS PROGRAM [arguments]
clean() {
  what=$1 seconds=$2
  shift 2
  # oneDNN is held to instructions that valgrind knows; two threads show what one would hide.
  OMP_NUM_THREADS=2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 timeout "$seconds" \
    valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=all \
    --errors-for-leak-kinds=all --num-callers=24 --suppressions="$here/valgrind.supp" \
    "$@" >"$log" 2>&1
  rc=$?
  case $rc in
    0) check "$what" '' ;;
    124) check "$what" "it took longer than $seconds seconds: $(tail -n 5 "$log")" ;;
    *) check "$what" "exit status $rc: $(head -n 60 "$log")" ;;
  esac
}

tiny='tiny.lua is clean under valgrind'
scarce='kiln.h is clean under valgrind while memory runs out'
if ! command -v valgrind >/dev/null; then
  skip "$tiny" 'valgrind is not on this machine'
  skip "$scarce" 'valgrind is not on this machine'
elif nm -u "$build/kiln" | grep -q -E ' __(asan|ubsan|tsan)'; then
  skip "$tiny" 'this build has sanitizers in it'
  skip "$scarce" 'this build has sanitizers in it'
else
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  clean "$tiny" 60 "$build/kiln" "$here/tiny.lua"
  KILN_SWEEP=slice clean "$scarce" 220 "$build/spec/test_capi_scarce"
fi
report
