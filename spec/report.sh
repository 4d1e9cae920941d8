# shellcheck shell=sh
# What the check_*.sh share, read by `.`: counts and the closing line. Not a check itself.
#   check "what is true of the tree" "$offenders"   passes when there are none, else shows them
#   skip "what" "why"                               said aloud, so that nobody takes it for done
#   report                                          the closing line, and the exit status
passed=0 failed=0 skipped=0

check() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
    printf 'ok: %s\n' "$1"
  else
    failed=$((failed + 1))
    printf 'FAILED: %s; these break it:\n' "$1"
    printf '%s\n' "$2" | sed 's/^/    /'
  fi
}

skip() {
  skipped=$((skipped + 1))
  printf 'skipped: %s: %s\n' "$1" "$2"
}

report() {
  printf '%d passed, %d failed' "$passed" "$failed"
  [ "$skipped" -eq 0 ] || printf ', %d skipped' "$skipped"
  printf '\n'
  [ "$failed" -eq 0 ]
}
