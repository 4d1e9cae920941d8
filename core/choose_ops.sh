#!/bin/sh
# Makes chosen_ops.h: for each row of the op table, whether its kernels are in this build. Called by Meson while it
# configures.
#   choose_ops.sh OPS.DEF NODES.DEF NAME-OR-FILE…
# Names of ops, and .kiln files, whose own list of ops is read.
set -eu
table=$1 nodes=$2
shift 2

# What graphs are run with, beside the ops that they hold: copies, views, lists, random numbers side by side.
always='cast cat clone copy_ expand fork_random full index_select join_random permute reshape select select_put slice slice_put
  squeeze stack strided strided_put to_device transpose unsqueeze'

wanted=$always
for word; do
  case $word in
    */* | *.kiln)
      # "kiln.ops":"add 1, if 1": names, each with its version
      ops=$(head -c 1000000 "$word" | tr -d '\n' | grep -a -o '"kiln\.ops":"[^"]*"' | head -n 1 | cut -d '"' -f 4 |
        tr ',' '\n' | awk '{ print $1 }')
      [ "$ops" ] || {
        echo "$word: no .kiln file, or it names no ops" >&2
        exit 1
      }
      wanted="$wanted $ops"
      ;;
    *) wanted="$wanted $word" ;;
  esac
done

awk -v wanted="$wanted" '
  BEGIN {
    n = split(wanted, list)
    for (i = 1; i <= n; i++) want[list[i]]
    print "/* Made by core/choose_ops.sh. */"
  }
  match($0, /^ *(OP|COMPOSITE|NODE)\([a-z0-9_.]+/) {
    row = substr($0, RSTART, RLENGTH)
    sub(/^ */, "", row)
    kind = row
    sub(/\(.*/, "", kind)
    sub(/.*\(/, "", row)
    if (kind == "NODE") { # in files by its text
      split($0, text, "\"")
      row = text[2]
    }
    known[row]
    if (kind != "NODE") print "#define KN_WITH_" row " " (row in want ? 1 : 0)
  }
  END {
    for (i = 1; i <= n; i++)
      if (!(list[i] in known)) {
        print "the option ops names " list[i] ", which is no op" | "cat >&2"
        exit 1
      }
  }' "$table" "$nodes"
