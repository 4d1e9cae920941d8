#!/bin/sh
# Links a program against the toolkit's own libraries (and its stub of the driver) that names every function of
# backends/cuda/api.def: a name that is misspelt, or gone, is seen without a device. Nothing is run.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
cd "$here/.." || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

toolkit=
for dir in "${CUDA_PATH:-}" "${CUDA_HOME:-}" /usr/local/cuda; do
  [ "$dir" ] && [ -e "$dir/include/cuda.h" ] && toolkit=$dir && break
done

cat >"$scratch/names.c" <<'END'
#include <cublasLt.h>
#include <cuda.h>
#include <cudnn.h>
#include <nvrtc.h>
#define LIBRARY(name, files, doc)
#define FUNCTION(library, name) USE_##library(name)
#ifdef MISSPELT
void cuNoSuchFunction(void);
#endif
void *const names[] = {
#include "backends/cuda/api.def"
#ifdef MISSPELT
    (void *)&cuNoSuchFunction,
#endif
    0};
int main(void) { return names[0] == 0; }
END

# linked LIBRARY FILE [options]: what the linker says
linked() {
  library=$1 file=$2
  shift 2
  for name in DRIVER NVRTC BLAS DNN; do
    if [ "$name" = "$library" ]; then set -- "$@" "-DUSE_$name(name)=(void*)&name,"; else set -- "$@" "-DUSE_$name(name)="; fi
  done
  cc -w -I. -isystem "$toolkit/include" "$@" "$scratch/names.c" "$file" -Wl,--allow-shlib-undefined -o "$scratch/a.out" 2>&1 |
    grep -E 'undefined reference|error' | sort -u
}

# look LIBRARY FILE
look() {
  what="every function of $1 is in $2"
  if [ -z "$toolkit" ] || ! [ -e "$toolkit/lib64/$2" ]; then
    skip "$what" 'there is no such file of a CUDA toolkit'
  else
    check "$what" "$(linked "$1" "$toolkit/lib64/$2")"
  fi
}

look DRIVER stubs/libcuda.so
look NVRTC libnvrtc.so.13
look BLAS libcublasLt.so.13
look DNN libcudnn.so.9
if [ "$toolkit" ] && [ -e "$toolkit/lib64/stubs/libcuda.so" ]; then
  check 'a name that is not there is seen' \
    "$(linked DRIVER "$toolkit/lib64/stubs/libcuda.so" -DMISSPELT | grep -q cuNoSuchFunction || echo 'it is not')"
fi
report
