#!/bin/sh
# The samples that are programs of their own, on the digits: a C++ host, and a server of eight threads asked by three
# clients at once, beside samples/host, which tells what is right. spec/lua/digits.lua has that one. And what start.c
# measures: how long a fresh process takes to its first result, and that runs allocate nothing after it.
# KILN_BUILD names the build folder (default: build).
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
top=$(CDPATH='' cd -- "$here/.." && pwd -P)
build=${KILN_BUILD:-$top/build}
images=$top/samples/data/digits-images.idx3-ubyte labels=$top/samples/data/digits-labels.idx1-ubyte
scratch=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

check 'digits.lua trains and saves' "$(
  "$build/kiln" "$top/samples/digits.lua" --epochs 3 --quiet --data "$top/samples/data" --save digits.kiln >said 2>&1 || cat said
)"
"$build/samples/host" digits.kiln "$images" "$labels" predictions >said 2>&1
check 'samples/host runs' "$([ -s predictions ] || cat said)"
right=$(od -A n -v -t u1 -w1 -j 8 "$labels" | paste - predictions | awk '$2 == $1 + 1 { n++ } END { print n + 0 " of " NR " right" }')

if [ -x "$build/samples/hostpp" ]; then
  "$build/samples/hostpp" digits.kiln "$images" "$labels" >said 2>&1
  check 'the C++ host reads the digits as the C host does' "$([ "$(tail -n 1 said)" = "$right" ] || { echo "not $right:"; cat said; })"
  "$build/samples/hostpp" missing.kiln "$images" "$labels" >said 2>&1
  check 'the C++ host says what is wrong' "$(grep -q '^hostpp: .*missing.kiln' said || cat said)"
else
  skip 'the C++ host' 'no C++ compiler was there when this was built'
fi

"$build/samples/server" digits.kiln socket >served 2>&1 &
server=$!
tries=0
while ! grep -q '^serving' served && kill -0 "$server" 2>/dev/null && [ $((tries += 1)) -le 300 ]; do sleep 0.1; done
clients=
for client in 1 2 3; do
  "$build/samples/server" --ask socket "$images" "$labels" >"asked$client" 2>&1 &
  clients="$clients $!"
done
# shellcheck disable=SC2086 # a list
wait $clients
kill -TERM "$server"
wait "$server"
rc=$?
server=
check 'the server answers three clients as the C host does' "$(for client in 1 2 3; do
  [ "$(cat "asked$client")" = "$right, 0 failed" ] || { echo "not $right:"; cat "asked$client"; }
done)"
check 'all its threads have answered, and it leaves in order' "$(
  [ "$rc" -eq 0 ] || echo "exit status $rc"
  awk -v all="$(($(wc -l <predictions) * 3)) answers, 0 failed" '/^thread/ { threads++; answers += $3 } index($0, all) { told = 1 }
    END { if (threads != 8 || answers != all + 0 || !told) print threads " threads, " answers " answers, not " all }' served
  [ ! -e socket ] || echo 'its socket is still there'
)"

# ---- the first run, and the next thousand ----
# By the processor's time: the clock counts what others do on the machine, too.
if nm -u "$build/kiln-run" | grep -q -E ' __(asan|ubsan|tsan)'; then
  skip 'a first run takes less than 10 ms' 'sanitizers take their own time'
else
  for round in 1 2 3 4 5 6 7 8 9 10 11; do
    "$build/spec/start" digits.kiln >>started 2>&1 || echo 'first: 99 failed' >>started
    [ "$round" -gt 1 ] || : >started # that one has warmed the caches
  done
  sort -n -k 11 started | sed -n 5p # the median
  check 'the digits are loaded and run for the first time in less than 10 ms of the processor' \
    "$(sort -n -k 11 started | sed -n 5p | awk '!($11 > 0 && $11 < 10)' | grep . && cat started)"
  check 'a thousand runs more allocate nothing' "$(grep -v ' then 0 allocations in 1000 runs' started)"
fi
"$build/kiln" -e 'local w = kiln.ones(16, 16)
  kiln.script(function(x) local y = x:matmul(w):relu() return y, y:sum(1), y:sum():item() end,
    { inputs = { kiln.spec("float32", { 4, 16 }) } }):save "tensors.kiln"' >said 2>&1 || cat said
check 'two tensors among the results are two blocks a run' \
  "$("$build/spec/start" tensors.kiln 2>&1 | grep -v ' then 2000 allocations in 1000 runs')"
report
