#!/bin/sh
# The samples that are programs of their own, on the digits: a C++ host, and a server of eight threads asked by three
# clients at once, beside samples/host, which tells what is right. spec/lua/digits.lua has that one. A game that loads
# its model anew while it plays. Programs of others that load kiln as a Lua module: lua5.4, and lighttpd as a server.
# And what start.c measures: how long a fresh process takes to its first result, and that runs allocate nothing after it.
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

# until_told TEXT FILE: waits for what $server writes there, at most 30 seconds
until_told() {
  tries=0
  while ! grep -q -- "$1" "$2" && kill -0 "$server" && [ $((tries += 1)) -le 300 ]; do sleep 0.1; done 2>/dev/null
  grep -q -- "$1" "$2" || { echo "no '$1' in:" && cat "$2"; }
}

# end_server: politely; its exit status is left in $rc
end_server() {
  kill -TERM "$server"
  wait "$server"
  rc=$?
  server=
}

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
until_told '^serving' served
clients=
for client in 1 2 3; do
  "$build/samples/server" --ask socket "$images" "$labels" >"asked$client" 2>&1 &
  clients="$clients $!"
done
# shellcheck disable=SC2086 # a list
wait $clients
end_server
check 'the server answers three clients as the C host does' "$(for client in 1 2 3; do
  [ "$(cat "asked$client")" = "$right, 0 failed" ] || { echo "not $right:"; cat "asked$client"; }
done)"
check 'all its threads have answered, and it leaves in order' "$(
  [ "$rc" -eq 0 ] || echo "exit status $rc"
  awk -v all="$(($(wc -l <predictions) * 3)) answers, 0 failed" '/^thread/ { threads++; answers += $3 } index($0, all) { told = 1 }
    END { if (threads != 8 || answers != all + 0 || !told) print threads " threads, " answers " answers, not " all }' served
  [ ! -e socket ] || echo 'its socket is still there'
)"

# ---- a game that loads its brain anew ----
# brain MOOD: saved while it plays
brain() { "$build/kiln" "$top/samples/game.lua" "$1" brain.kiln >said 2>&1 || cat said; }
# spread: how far from the flag, each second, since the last line that has "brain"
spread() { awk '/brain/ { all = "" } / from the flag/ { all = all " " $1 } END { print all }' played; }
# seconds_of N: until it has told so many distances since
seconds_of() {
  tries=0
  while [ "$(spread | wc -w)" -lt "$1" ] && [ $((tries += 1)) -le 300 ]; do sleep 0.1; done
}
check 'game.lua saves a brain' "$(brain seek)"
"$build/samples/game" "$top/samples/game.lua" brain.kiln >played 2>&1 &
server=$!
seconds_of 3
check 'creatures that seek the flag come closer' "$(spread | awk '!($3 < $1 - 1)' | grep . && cat played)"
check 'a brain that flees is saved over it' "$(brain flee)"
until_told 'a new brain' played
seconds_of 3
check 'it is in use at once: they go away' "$(spread | awk '!($3 > $1 + 1)' | grep . && cat played)"
head -c 100 brain.kiln >half
mv half brain.kiln
check 'half a file is refused by name' "$(until_told 'brain.kiln: .*the file has' played)"
cp digits.kiln other
mv other brain.kiln
check 'and so is a graph that cannot steer' "$(until_told 'takes 1 argument, got 2' played)"
check 'the next brain' "$(brain seek)"
seconds_of 3
check 'is in use like the first' "$([ "$(grep -c 'a new brain' played)" -eq 3 ] || cat played)"
end_server
check 'and leaves in order' "$([ "$rc" -eq 0 ] || echo "exit status $rc")"

# ---- programs of others ----
if nm -u "$build/kiln-run" | grep -q -E ' __(asan|ubsan|tsan)'; then
  skip 'lua5.4 and lighttpd load kiln' 'sanitizers want to be in the host, too'
else
  export LUA_CPATH="$build/lib?-lua.so"
  if command -v lua5.4 >/dev/null; then
    for sample in tensors capture; do
      check "Lua's own interpreter runs samples/$sample.lua as kiln does" "$("$build/kiln" "$top/samples/$sample.lua" >own 2>&1
        lua5.4 "$top/samples/$sample.lua" >said 2>&1 || echo "exit status $?"
        diff own said)"
    done
    check 'it loads the graph that was saved, and leaves in order' "$(lua5.4 -e 'local kiln = require "kiln"
      local class = kiln.load "digits.kiln" (kiln.zeros(1, 1, 8, 8)) print(math.type(class))' >said 2>&1 || echo "exit status $?"
      [ "$(cat said)" = integer ] || cat said)"
  else
    skip 'lua5.4 loads kiln' 'lua5.4 is not on this machine'
  fi
  PATH=$PATH:/usr/sbin
  if ! command -v lighttpd >/dev/null || ! [ -e /usr/lib/lighttpd/mod_magnet.so ] || ! command -v curl >/dev/null; then
    skip 'lighttpd answers with a graph' 'lighttpd, lighttpd-modules-lua or curl is not on this machine'
  else
    tail -c +17 "$images" >pixels
    ask() { curl -s -S -m 60 --unix-socket web "$@" http://digits/; }
    (cd "$top" && DIGITS_MODEL=$scratch/digits.kiln DIGITS_SOCKET=$scratch/web exec lighttpd -D -f samples/lighttpd/digits.conf) >web.log 2>&1 &
    server=$!
    check 'lighttpd starts' "$(until_told 'server started' web.log)"
    check 'it answers each digit as the C host does' "$(ask --data-binary @pixels | diff - predictions | head -n 5; grep lua: web.log)"
    check 'and again, by the graph that it has' "$(mv digits.kiln away; ask --data-binary @pixels | diff - predictions | head -n 5; mv away digits.kiln)"
    check 'what is no image is refused' "$(ask --data abc | grep -v '^images of 64 bytes')"
    end_server
    check 'it leaves in order' "$([ "$rc" -eq 0 ] || { echo "exit status $rc"; cat web.log; })"
  fi
fi

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
