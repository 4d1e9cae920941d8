# What a public header promises to binaries, a line each: functions, fields of structs by their place, numbers of enums.
# Reads what the preprocessor makes of the header (`cc -E -DKILN_API=`); -v header=NAME is the file that counts.
function tidy(s) {
  gsub(/[ \t]+/, " ", s)
  gsub(/^ | $/, "", s)
  gsub(/ ?\( ?/, "(", s)
  gsub(/ \)/, ")", s)
  return s
}

# "… { a; b; } NAME": what stands between the braces, and before them
function split_braces(s) {
  inside = s
  sub(/^[^{]*\{/, "", inside)
  sub(/\}[^}]*$/, "", inside)
  head = s
  sub(/ *\{.*/, "", head)
  sub(/^typedef /, "", head)
}

function declare(s, parts, n, i) {
  s = tidy(s)
  if (s !~ /\{/) {
    if (s != "" && s !~ /^struct [A-Za-z_]+$/) print s
    return
  }
  split_braces(s)
  n = split(inside, parts, head ~ /^enum/ ? "," : ";")
  for (i = 1; i <= n; i++)
    if (tidy(parts[i]) != "") print head (head ~ /^enum/ ? ": " : " field " i ": ") tidy(parts[i])
}

/^# [0-9]+ "/ {
  name = $3
  gsub(/"|.*\//, "", name)
  ours = name == header
  next
}

ours && !/^#/ {
  for (i = 1; i <= length($0); i++) {
    c = substr($0, i, 1)
    depth += (c == "{") - (c == "}")
    if (c == ";" && !depth) {
      declare(text)
      text = ""
    } else
      text = text c
  }
  text = text " "
}
