# Sums the closing lines of all test programs in a log of `meson test` into one, the last line of `./dev test`.
# A program that ends without its closing line, or badly despite a good one, is a failure; so is an empty log.
function close_block() {
  if (name == "") return
  programs++
  if (!closed) {
    failed++
    printf "%s: no closing line (%s)\n", name, result
    return
  }
  passed += p
  failed += f
  skipped += s
  if (f == 0 && result !~ /^exit status 0/) {
    failed++
    printf "%s: %s, though its closing line is good\n", name, result
  }
}

/^=+ [0-9]+\/[0-9]+ =+$/ { close_block(); name = ""; result = "no result"; closed = 0; next }
/^test: / && name == "" { name = $0; sub(/^test: +/, "", name); next }
/^result: / && result == "no result" { result = $0; sub(/^result: +/, "", result); next }
/^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/ { p = $1; f = $3; s = $5 + 0; closed = 1; next }

END {
  close_block()
  if (programs == 0) {
    failed++
    print "no test program ran"
  }
  printf "%d passed, %d failed", passed, failed
  if (skipped) printf ", %d skipped", skipped
  printf "\n"
  exit failed > 0
}
