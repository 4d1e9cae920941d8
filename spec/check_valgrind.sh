#!/bin/sh
# One small script from end to end (tensors, training, capture, save, load, run) under valgrind: no invalid
# access, no use of unset memory, nothing of ours lost. At most a minute.
# KILN_BUILD names the build folder (default: build).
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
build=${KILN_BUILD:-$here/../build}

what='tiny.lua is clean under valgrind'
if ! command -v valgrind >/dev/null; then
  skip "$what" 'valgrind is not on this machine'
elif nm -u "$build/kiln" | grep -q -E ' __(asan|ubsan|tsan)'; then
  skip "$what" 'this build has sanitizers in it'
else
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # oneDNN is held to instructions that valgrind knows; two threads show what one would hide.
  OMP_NUM_THREADS=2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 timeout 60 \
    valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=all \
    --errors-for-leak-kinds=all --num-callers=24 --suppressions="$here/valgrind.supp" \
    "$build/kiln" "$here/tiny.lua" >"$log" 2>&1
  rc=$?
  case $rc in
    0) check "$what" '' ;;
    124) check "$what" "it took longer than a minute: $(tail -n 5 "$log")" ;;
    *) check "$what" "exit status $rc: $(head -n 60 "$log")" ;;
  esac
fi
report
