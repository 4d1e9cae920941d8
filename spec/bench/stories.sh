#!/bin/sh
# Tokens a second of samples/stories.lua, captured, beside llama2.c on the same weights: runs in turn, then the medians
# and what kiln reaches of each. Compare on a quiet machine.
#
#   spec/bench/stories.sh RUN DATA [TURNS]
#
# RUN: llama2.c's run.c, built outside the tree with `cc -Ofast -fopenmp -march=native run.c -lm`. DATA: the folder that holds
# llama2c/stories260K.bin and llama2c/tok512.bin. TURNS: 20 unless told. llama2.c runs once with as many threads as it
# takes by itself and once with one: so small a model is often faster with one.
set -eu
[ $# -ge 2 ] || {
  sed -n '5,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
run=$1 data=$2 turns=${3:-20}
top=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)

llama() { "$run" "$data/llama2c/stories260K.bin" -t 0 -n 200 -z "$data/llama2c/tok512.bin" 2>&1 >/dev/null | sed -n 's/.*tok\/s: //p'; }
kiln() { "$top/build/kiln" "$top/samples/stories.lua" --data "$data" --time 2>&1 >/dev/null | sed -n 's/ tokens a second//p'; }

i=0
while [ "$i" -lt "$turns" ]; do
  echo "$(llama) $(OMP_NUM_THREADS=1 llama) $(kiln)"
  i=$((i + 1))
done | awk '
  function median(column, n,    i, k, t) {
    for (i = 2; i <= n; i++) {
      t = at[column, i]
      for (k = i - 1; k > 0 && at[column, k] > t; k--) at[column, k + 1] = at[column, k]
      at[column, k + 1] = t
    }
    return n % 2 ? at[column, (n + 1) / 2] : (at[column, n / 2] + at[column, n / 2 + 1]) / 2
  }
  { print; for (c = 1; c <= 3; c++) at[c, NR] = $c }
  END {
    for (c = 1; c <= 3; c++) m[c] = median(c, NR)
    printf "median of %d turns: llama2.c %.0f, with one thread %.0f, kiln %.0f tokens a second\n", NR, m[1], m[2], m[3]
    printf "kiln over llama2.c: %.2f, over it with one thread: %.2f\n", m[3] / m[1], m[3] / m[2]
  }'
