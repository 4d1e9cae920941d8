# A part of ./dev: runs the fuzzers. See README.md.
# shellcheck shell=sh disable=SC2154 # $top and $build are ./dev's

fuzz_targets() { awk -F '[(,) ]+' '/^X/ { print $2 }' "$top/spec/fuzzers/targets.def"; }
fuzz_most() { awk -F '[(,) ]+' -v t="$1" '/^X/ && $2 == t { print $4 }' "$top/spec/fuzzers/targets.def"; }

fuzz_usage() {
  cat <<'END'
usage: ./dev fuzzers [TARGET ...] [--seconds N] [--engine libfuzzer|afl] [--keep]
  --seconds N   in all, shared by the targets; 60
  --keep        afterwards the corpus is what is left of it, and of what was found, when it is minimised
What ended a run is left in build-ENGINE/fuzz/TARGET/found: build/spec/fuzzers/fuzzers TARGET FILE runs it again.
END
  printf 'targets: %s\n' "$(fuzz_targets | tr '\n' ' ')"
}

# TARGET SECONDS: sets $runs.
fuzz_by_libfuzzer() {
  "$build/spec/fuzzers/fuzz_$1" "$home/corpus" "$start" -max_total_time="$2" -max_len="$(fuzz_most "$1")" -timeout=5 \
    -rss_limit_mb=1024 -artifact_prefix="$home/found/" -print_final_stats=1 >"$home/log" 2>&1 </dev/null || :
  runs=$(awk '/number_of_executed_units/ { n = $2 } END { print n + 0 }' "$home/log")
}

fuzz_by_afl() {
  AFL_CUSTOM_MUTATOR_LIBRARY="$top/build/spec/fuzzers/fuzz-mutator.so" KILN_FUZZ_TARGET=$1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 \
    AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_AUTORESUME=1 \
    afl-fuzz -i "$start" -o "$home/afl" -V "$2" -t 5000 -m none -G "$(fuzz_most "$1")" \
    "$build/spec/fuzzers/fuzz_$1" >"$home/log" 2>&1 </dev/null || :
  runs=$(awk '/^execs_done/ { n = $3 } END { print n + 0 }' "$home/afl/default/fuzzer_stats" 2>/dev/null || echo 0)
  for found in "$home"/afl/default/crashes/id* "$home"/afl/default/hangs/id*; do
    [ ! -e "$found" ] || cp "$found" "$home/found/$(cksum <"$found" | tr ' ' -)"
  done
}

# TARGET: the fewest inputs that reach what all reach.
fuzz_keep() {
  rm -rf "$home/kept"
  mkdir -p "$home/kept" "$start"
  set -- "$1" "$start" "$home/corpus"
  queue=$top/build-afl/fuzz/$1/afl/default/queue
  [ ! -d "$queue" ] || set -- "$@" "$queue"
  target=$1
  shift
  "$build/spec/fuzzers/fuzz_$target" -merge=1 -max_len="$(fuzz_most "$target")" -timeout=5 "$home/kept" "$@" >"$home/log" 2>&1 ||
    die "the corpus of $target could not be minimised: see $home/log"
  rm -rf "$start"
  mv "$home/kept" "$start"
}

fuzzers() {
  engine=libfuzzer seconds=60 targets='' keep=''
  while [ $# -gt 0 ]; do
    case $1 in
      --help)
        fuzz_usage
        return 0
        ;;
      --seconds | --engine)
        [ $# -gt 1 ] || die "$1 what? See ./dev fuzzers --help"
        if [ "$1" = --seconds ]; then seconds=$2; else engine=$2; fi
        shift
        ;;
      --keep) keep=yes ;;
      *)
        fuzz_targets | grep -q -x -e "$1" || die "there is no target $1: see ./dev fuzzers --help"
        targets="$targets $1"
        ;;
    esac
    shift
  done
  case $engine in libfuzzer | afl) ;; *) die "there is no engine $engine, only libfuzzer and afl" ;; esac
  [ "$engine$keep" != aflyes ] || die 'the corpus is minimised by libFuzzer, which takes what AFL++ has found, too'
  case $seconds in '' | *[!0-9]*) die "--seconds wants a number, not '$seconds'" ;; esac
  prepare_fuzzers
  ASAN_OPTIONS=allocator_may_return_null=1
  [ "$engine" = libfuzzer ] || ASAN_OPTIONS=$ASAN_OPTIONS:abort_on_error=1:symbolize=0:detect_leaks=0
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  export ASAN_OPTIONS UBSAN_OPTIONS
  [ "$targets" ] || targets=$(fuzz_targets)
  # shellcheck disable=SC2086 # the list is meant to be split
  each=$((seconds / $(printf '%s\n' $targets | wc -l)))
  passed=0 failed=0
  for target in $targets; do
    home=$build/fuzz/$target start=$top/spec/fuzzers/corpus/$target
    mkdir -p "$home/corpus"
    rm -rf "$home/found"
    mkdir "$home/found"
    if [ "$each" -gt 0 ]; then
      "fuzz_by_$engine" "$target" "$each"
      findings=$(find "$home/found" -type f | wc -l)
      printf '%-12s %12d executions, %d findings\n' "$target" "$runs" "$findings"
      if [ "$findings" -eq 0 ] && [ "$runs" -gt 0 ]; then
        passed=$((passed + 1))
      else
        failed=$((failed + 1))
        tail -n 40 "$home/log"
        find "$home/found" -type f
      fi
    fi
    [ -z "$keep" ] || fuzz_keep "$target"
  done
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ]
}
