# What needs CUDA's headers stands under `#ifdef KN_HAS_CUDA`. Reads the tree's C files (named from its top) and prints each include that
# leads to one of them, be it through headers of ours, in what is compiled without them, too: all but backends/cuda and spec/cuda.
BEGIN { needs["<cuda.h>"] = needs["<cublasLt.h>"] = needs["<cudnn.h>"] = needs["<nvrtc.h>"] = 1 }

FNR == 1 { depth = 0 }

# 1: there are headers, -1: there are none, 0: nobody knows.
/^[ \t]*#[ \t]*if/ {
  cuda = /KN_HAS_CUDA/
  under[++depth] = !cuda ? 0 : /ifndef|!/ ? -1 : 1
}
/^[ \t]*#[ \t]*el/ { under[depth] = -under[depth] }
/^[ \t]*#[ \t]*endif/ { depth-- }

/^[ \t]*#[ \t]*include[ \t]/ {
  for (i = 1; i <= depth; i++) if (under[i] == 1) next
  n++
  from[n] = FILENAME
  line[n] = FILENAME ":" FNR ": " $0
  name[n] = $0
  sub(/^[ \t]*#[ \t]*include[ \t]*/, "", name[n])
  sub(/[ \t].*/, "", name[n])
  gsub(/"/, "", name[n])
}

END {
  do {
    more = 0
    for (i = 1; i <= n; i++) if (name[i] in needs && !(from[i] in needs)) more = needs[from[i]] = 1
  } while (more)
  for (i = 1; i <= n; i++) if (name[i] in needs && from[i] !~ /^(backends|spec)\/cuda\//) print line[i]
}
