#!/bin/sh
# Checks of the tree as text: who includes whom, what stands where, how long, documented and formatted how.
# Needs no build. Run from anywhere: spec/check_tree.sh
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=spec/report.sh
. "$here/report.sh"
cd "$here/.." || exit 1

# Everything that is ours, without build folders and dot-files.
files() {
  find . -name '.?*' -prune -o -path './build*' -prune -o -type f "$@" -print | sed 's|^\./||' | LC_ALL=C sort
}

# shellcheck disable=SC2046 # no file of ours has a space in its name; the first check sees to it
{
  check 'no file name holds a space' "$(files -name '* *')"

  check 'files include what their room may include, from the top of the tree' \
    "$(awk -f spec/includes.awk $(files \( -name '*.c' -o -name '*.h' -o -name '*.def' \)))"

  # The rule file itself must be able to fail: each of these lines breaks one rule.
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  mkdir -p "$scratch/core" "$scratch/graph" "$scratch/backends/ref" "$scratch/backends/onednn" "$scratch/backends/cuda" \
    "$scratch/bindings/c" "$scratch/bindings/lua" "$scratch/samples" "$scratch/lua/capture"
  probe() { printf '#include %s\n' "$2" >"$scratch/$1"; }
  probe core/a.c '"graph/graph.h"'
  probe core/b.c '<lua.h>'
  probe core/c.c '"tensor.h"'
  probe core/d.c '"../core/tensor.h"'
  probe graph/a.c '"backends/backend.h"'
  probe graph/b.c '<oneapi/dnnl/dnnl.h>'
  probe backends/ref/a.c '"backends/onednn/onednn.h"'
  probe backends/ref/b.c '<oneapi/dnnl/dnnl.h>'
  probe backends/onednn/a.c '<lauxlib.h>'
  probe backends/cuda/a.c '<oneapi/dnnl/dnnl.h>'
  probe bindings/c/a.c '"lua/capture/capture.h"'
  probe bindings/c/b.c '"backends/ref/ref.h"'
  probe bindings/lua/a.c '"core/kernels/reduce.h"'
  probe lua/capture/a.c '"bindings/c/kiln.h"'
  probe samples/a.c '"core/tensor.h"'
  probe samples/b.c '<zlib.h>'
  missed=$(cd "$scratch" && find . -name '*.c' | sed 's|^\./||' | while read -r file; do
    [ "$(awk -f "$here/includes.awk" "$file")" ] || echo "$file: $(cat "$file")"
  done)
  check 'the include rules see every kind of wrong include' "$missed"

  check "what needs CUDA's headers stands under #ifdef KN_HAS_CUDA" \
    "$(awk -f spec/guarded.awk $(files \( -name '*.c' -o -name '*.h' -o -name '*.def' \)))"

  mkdir -p "$scratch/spec/cuda"
  printf '#include <cuda.h>\n' >"$scratch/spec/cuda/driver.h"
  printf '#include "spec/cuda/driver.h"\n' >"$scratch/spec/cuda/software.h"
  needed='#include "spec/cuda/software.h"'
  printf '%s\n' "$needed" >"$scratch/spec/bare.c"
  printf '#ifdef KN_HAS_CUDA\n#endif\n%s\n' "$needed" >"$scratch/spec/behind.c"
  printf '#ifdef KN_HAS_CUDA\n#else\n%s\n#endif\n' "$needed" >"$scratch/spec/otherwise.c"
  printf '#ifdef KN_HAS_ONEDNN\n%s\n#endif\n' "$needed" >"$scratch/spec/unlike.c"
  printf '#ifndef KN_HAS_CUDA\n#else\n#if 1\n%s\n#endif\n#endif\n' "$needed" >"$scratch/spec/right.c"
  seen=$(cd "$scratch" && awk -f "$here/guarded.awk" spec/*.c spec/cuda/*.h | cut -d: -f1 | tr '\n' ' ')
  check 'the rule of guards sees every kind of bare include, and no other' \
    "$([ "$seen" = 'spec/bare.c spec/behind.c spec/otherwise.c spec/unlike.c ' ] || echo "it saw $seen")"

  check 'only the known names stand at the top' "$(for name in *; do
    case $name in
      README.md | LICENSE | CHANGELOG.md | meson.build | meson_options.txt | dev | build | build-* | *.kiln) ;;
      core | graph | backends | lua | bindings | spec | samples) [ -d "$name" ] || echo "$name" ;;
      *) echo "$name" ;;
    esac
  done)"

  check 'no source file is longer than 800 lines' \
    "$(wc -l $(files \( -name '*.c' -o -name '*.h' -o -name '*.def' -o -name '*.lua' -o -name '*.sh' \)) |
      awk '$2 != "total" && $1 > 800 { print $2 ": " $1 " lines" }')"

  check 'every folder that holds files has a README.md' "$(files | awk '
    /^spec\/fuzzers\/corpus\// { next } # inputs only
    { dir = $0; if (!sub(/\/[^\/]*$/, "", dir)) dir = "."; held[dir]; if ($0 ~ /(^|\/)README\.md$/) has[dir] }
    END { for (dir in held) if (!(dir in has)) print dir }' | LC_ALL=C sort)"

  check 'every C and Lua file opens with a comment that says what it is' \
    "$(awk 'FNR == 1 { bang = /^#!/; if (!bang && !/^(\/\*|\/\/|--)/) print FILENAME }
        FNR == 2 && bang && !/^--/ { print FILENAME }' \
      $(files \( -name '*.c' -o -name '*.h' -o -name '*.def' -o -name '*.lua' \)))"

  check 'every op has one row in the op table' \
    "$(sed -n 's/^ *\(OP\|COMPOSITE\|ALIAS\)(\([a-z0-9_]*\),.*/\2/p' core/ops.def | sort | uniq -d)"

  # Other versions of clang-format wrap differently, so only the one we use may judge.
  if command -v clang-format >/dev/null && clang-format --version | grep -q 'version 14\.'; then
    check 'clang-format has nothing to change' \
      "$(clang-format --dry-run -Werror $(files \( -name '*.c' -o -name '*.h' \)) 2>&1 |
        sed -n 's/:[0-9]*:[0-9]*: error: .*//p' | sort -u)"
  else
    skip 'clang-format has nothing to change' 'clang-format 14 is not on this machine'
  fi
}
report
