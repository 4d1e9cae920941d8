# Writes lua/kiln/text/unicode.lua: which code points are letters, numbers and white space. Asked is the tokenizer of
# transformers itself (the package `tokenizers`), by whether a code point joins a letter, a digit or a sign before it;
# so the ranges are those of the Unicode version that it has.
#   python3 spec/golden/unicode.py > lua/kiln/text/unicode.lua
from tokenizers import pre_tokenizers

split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str


def kind(c):
    for before, kind in (("a", "letters"), ("1", "numbers"), ("!", "others")):
        if len(split(before + chr(c))) == 1:
            return kind
    return "spaces"


ranges = {"letters": [], "numbers": [], "spaces": [], "others": []}
for c in range(0x110000):
    if 0xD800 <= c <= 0xDFFF or c == ord("'"):
        continue
    of = ranges[kind(c)]
    if of and of[-1][1] == c - 1:
        of[-1][1] = c
    else:
        of.append([c, c])

print("""-- Which code points are letters (category L), numbers (N) and white space in Unicode 16.0, as ranges. Written by
-- spec/golden/unicode.py. In a text: the distance from the end of the range before, a colon and how many more than one.
local function parse(text)
  local starts, ends, at, n = {}, {}, 0, 0
  for gap, more in text:gmatch "(%w+):?(%w*)" do
    n = n + 1
    starts[n] = at + tonumber(gap, 36)
    ends[n] = starts[n] + (more == "" and 0 or tonumber(more, 36))
    at = ends[n]
  end
  return { starts = starts, ends = ends }
end
""")


def base36(n):
    digits = ""
    while True:
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[n % 36] + digits
        n //= 36
        if n == 0:
            return digits


print("local ranges = {")
for name in ("letters", "numbers", "spaces"):
    print("  %s = parse [[" % name)
    at, line = 0, "   "
    for first, last in ranges[name]:
        word = " " + base36(first - at) + (":" + base36(last - first) if last > first else "")
        at = last
        if len(line) + len(word) > 118:
            print(line)
            line = "   "
        line += word
    print(line)
    print("  ]],")
print("""}

local function within(list, c)
  local low, high = 1, #list.starts
  while low <= high do
    local middle = (low + high) // 2
    if c < list.starts[middle] then high = middle - 1 elseif c > list.ends[middle] then low = middle + 1 else return true end
  end
  return false
end

local known = {}

--- "letter", "number", "space" or "other".
local function kind(c)
  local found = known[c]
  if not found then
    found = within(ranges.letters, c) and "letter" or within(ranges.numbers, c) and "number"
      or within(ranges.spaces, c) and "space" or "other"
    known[c] = found
  end
  return found
end

return { kind = kind }""")
