#!/bin/sh
# The launcher's own behaviour: what it answers to wrong use, what it does on a machine without apt, and how the
# closing lines of the suite are summed. Builds nothing.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
top=$(CDPATH='' cd -- "$here/.." && pwd -P)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# expect STATUS PATTERN COMMAND...: nothing if it ends so and says so, else what it did.
expect() {
  want=$1 pattern=$2
  shift 2
  said=$("$@" 2>&1 </dev/null)
  got=$?
  [ "$got" -eq "$want" ] || printf 'exit status %d instead of %d: %s\n' "$got" "$want" "$said"
  printf '%s\n' "$said" | grep -q -e "$pattern" || printf 'no "%s" in: %s\n' "$pattern" "$said"
}

# ---- wrong use ----
check './dev help lists the commands' "$(expect 0 'run FILE.lua' "$top/dev" help)"
check './dev without a command is help' "$(expect 0 'run FILE.lua' "$top/dev")"
check 'a command that does not exist is refused' "$(expect 1 'no such command: frobnicate' "$top/dev" frobnicate)"
check './dev run wants a file' "$(expect 1 'run what' "$top/dev" run)"
check './dev fuzzers --help names the targets' "$(expect 0 'targets: kiln ir ' "$top/dev" fuzzers --help)"
check './dev fuzzers refuses a target that does not exist' "$(expect 1 'no target nosuch' "$top/dev" fuzzers nosuch)"
check './dev fuzzers refuses an engine that does not exist' "$(expect 1 'no engine steam' "$top/dev" fuzzers --engine steam)"
check './dev fuzzers wants a number of seconds' "$(expect 1 'wants a number' "$top/dev" fuzzers --seconds long)"
check './dev run wants a file that exists' "$(expect 1 'there is no file none.lua' "$top/dev" run none.lua)"

# ---- a machine with nothing but the basic commands: no compiler, no apt ----
mkdir "$scratch/bin"
for tool in sh dirname id cat env mktemp rm sed printf; do
  path=$(command -v "$tool") && [ -x "$path" ] && ln -s "$path" "$scratch/bin/$tool"
done
bare() { env -i PATH="$scratch/bin" HOME="$scratch" /bin/sh "$top/dev" build; }
check 'without apt the packages are named, with what they are for' \
  "$(expect 1 'no apt here.* gcc .*meson ninja-build' bare; expect 1 'gcc  *the C compiler' bare)"

# ---- as somebody who is neither root nor may become it ----
cat >"$scratch/bin/apt-get" <<END
#!/bin/sh
echo ran >>"$scratch/apt-ran"
END
chmod +x "$scratch/bin/apt-get"
rm -f "$scratch/bin/id"
printf '#!/bin/sh\necho 1000\n' >"$scratch/bin/id"
chmod +x "$scratch/bin/id"
check 'without root and sudo the command to run is named' \
  "$(expect 1 'neither root nor sudo.*apt-get install gcc' bare; ls "$scratch/apt-ran" 2>/dev/null)"

# ---- with sudo: it is used, in the open, without questions ----
printf '#!/bin/sh\necho "sudo $*" >>"%s"\nexit 1\n' "$scratch/sudo-ran" >"$scratch/bin/sudo"
chmod +x "$scratch/bin/sudo"
ln -s "$(command -v tail)" "$scratch/bin/tail"
check 'with sudo it is used, and a failed installation stops everything' \
  "$(expect 1 'could not install: gcc' bare
    grep -q 'sudo env DEBIAN_FRONTEND=noninteractive apt-get.* -y .*install gcc' "$scratch/sudo-ran" ||
      cat "$scratch/sudo-ran")"

# ---- the sum ----
block() { printf '===== %s =====\ntest: kiln:c / %s\nresult: %s\n----- stdout -----\n%s\n\n' "$@"; }
sum() { awk -f "$here/sum.awk" "$scratch/log"; }
{
  block 1/3 a 'exit status 0' 'noise
3 passed, 0 failed'
  block 2/3 b 'exit status 0' '4 passed, 0 failed, 2 skipped'
} >"$scratch/log"
check 'closing lines are summed' "$(expect 0 '^7 passed, 0 failed, 2 skipped$' sum)"
block 3/3 c 'exit status 1' '1 passed, 2 failed' >>"$scratch/log"
check 'a failed case fails the sum' "$(expect 1 '^8 passed, 2 failed, 2 skipped$' sum)"
block 1/1 d 'killed by signal 11 SIGSEGV' 'half' >"$scratch/log"
check 'a crash fails the sum' "$(expect 1 '^0 passed, 1 failed$' sum)"
block 1/1 e 'exit status 0' 'half' >"$scratch/log"
check 'a missing closing line fails the sum' "$(expect 1 '^0 passed, 1 failed$' sum)"
block 1/1 f 'exit status 23' '5 passed, 0 failed' >"$scratch/log"
check 'a bad end after a good closing line fails the sum' "$(expect 1 '^5 passed, 1 failed$' sum)"
: >"$scratch/log"
check 'an empty log fails the sum' "$(expect 1 '^0 passed, 1 failed$' sum)"

# ---- the scripts themselves ----
if command -v shellcheck >/dev/null; then
  check 'shellcheck finds nothing in the scripts' \
    "$(cd "$top" && shellcheck -x dev .ci/run spec/*.sh spec/fuzzers/*.sh 2>&1)"
else
  skip 'shellcheck finds nothing in the scripts' 'shellcheck is not on this machine'
fi
report
