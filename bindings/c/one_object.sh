#!/bin/sh
# One object made of a static library's many, whose only global names are those that public headers mark: a host may
# have names like ours, and a second library of the same kind beside this one.
#   one_object.sh IN.a OUT.a AR OBJCOPY COMPILER…
set -eu
in=$1 out=$2 ar=$3 objcopy=$4
shift 4
object=${out%.a}.o
trap 'rm -f "$object"' EXIT
"$@" -nostdlib -r -o "$object" -Wl,--whole-archive "$in" -Wl,--no-whole-archive
"$objcopy" --localize-hidden "$object"
rm -f "$out"
"$ar" rcs "$out" "$object"
