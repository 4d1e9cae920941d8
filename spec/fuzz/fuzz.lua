-- kiln spec/fuzz/fuzz.lua [options]: random Lua functions, eager against captured. `./dev fuzz` runs it.
--   --seeds A:B     these functions (1:2000)
--   --minutes N     stop after so many minutes
--   --reduce        print each failing function made small
--   --first         stop at the first function that differs
--   --show SEED     print one function as it is
--   --progress      say on standard error how far it is
-- Ends in `N passed, N failed` and fails when a function differs, when more than one in a thousand is refused, or when
-- a feature is too rare (distribution.lua says what that is).
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local compare, distribution = require "compare", require "distribution"
local generate, reduce = require "generate", require "reduce"

local RUNS, MANY = 6, 500 -- calls of each function; functions from which on shares are judged

local options = { first = 1, last = 2000, minutes = math.huge }
do
  local i = 1
  local function value(what)
    i = i + 1
    return arg[i] or error(("%s needs a value"):format(what), 0)
  end
  while arg[i] do
    local name = arg[i]
    if name == "--seeds" then
      local a, b = value(name):match "^(%d+):(%d+)$"
      options.first, options.last = math.tointeger(tonumber(a)), math.tointeger(tonumber(b))
      assert(options.first, "--seeds A:B")
    elseif name == "--minutes" then options.minutes = assert(tonumber(value(name)), "--minutes needs a number")
    elseif name == "--show" then options.show = assert(math.tointeger(tonumber(value(name))), "--show needs a number")
    elseif name == "--reduce" then options.reduce = true
    elseif name == "--first" then options.stop = true
    elseif name == "--progress" then options.progress = true
    else error(("unknown option %s; see the head of spec/fuzz/fuzz.lua"):format(name), 0) end
    i = i + 1
  end
end

local function try(tree, seed)
  local ok, what, why, raised = pcall(compare.compare, generate.text(tree), "f" .. seed, RUNS, seed)
  if not ok then return "differs", "the driver: " .. tostring(what) end
  return what, why, raised
end

-- What is alike in reasons of one kind: no numbers, no places.
local function kind_of(why)
  return (why:gsub("^stripped, ", ""):gsub("^run %d+: ", ""):gsub("^[^ ]*:%d+: ", ""):gsub("%b{}", "{}")
    :gsub("%-?%d[%w.]*", "N"):sub(1, 160))
end

-- The function itself, without what is the same in all.
local function body_of(text)
  return text:match "(local function f%(.*)return f, function"
end

local function print_small(tree, seed, what, why)
  local wanted = kind_of(why)
  local small = reduce.reduce(tree, function(t)
    if not load(generate.text(t)) then return false end
    local now, reason = try(t, seed)
    return now == what and kind_of(reason) == wanted
  end)
  print(("---- f%d %s: %s\n%s"):format(seed, what, select(2, try(small, seed)), body_of(generate.text(small))))
end

local count = { same = 0, refused = 0, differs = 0, raised = 0 }
local features, reasons = {}, {}

local function note(seed, what, why)
  local key = ("%s: %s"):format(what, kind_of(why))
  reasons[key] = reasons[key] or { key = key, what = what }
  table.insert(reasons[key], seed)
end

local function run()
  local started = kiln.clock()
  local n = 0
  for seed = options.first, options.last do
    local tree, used = generate.tree(seed)
    for name in pairs(used) do features[name] = (features[name] or 0) + 1 end
    local what, why, raised = try(tree, seed)
    n = n + 1
    count[what] = count[what] + 1
    count.raised = count.raised + (raised or 0)
    if what ~= "same" then
      note(seed, what, why)
      if what == "differs" and not options.stop then print(("f%d %s"):format(seed, why)) end
      if options.stop and what == "differs" then
        print(("first: f%d %s: %s"):format(seed, what, why:gsub("\n.*", "")))
        os.exit(1)
      end
      if options.reduce then print_small(tree, seed, what, why) end
    end
    if n % 20 == 0 then collectgarbage() end
    if options.progress and n % 100 == 0 then
      io.stderr:write(("\r%d: %d refused, %d differ "):format(n, count.refused, count.differs))
    end
    if kiln.clock() - started > options.minutes * 60 then break end
  end
  return n, kiln.clock() - started
end

local function sorted(list, before)
  local out = {}
  for _, v in pairs(list) do out[#out + 1] = v end
  table.sort(out, before)
  return out
end

local function report(n, seconds)
  print(("%d functions of %d calls, %.0f s: %d agree, %d refused (%.2f %%), %d differ; %d calls raised"):format(n, RUNS,
    seconds, count.same, count.refused, 100 * count.refused / n, count.differs, count.raised))
  for _, r in ipairs(sorted(reasons, function(a, b) return #a > #b or #a == #b and a.key < b.key end)) do
    print(("%6d  %s (f%d)"):format(#r, r.key, r[1]))
  end
  print "in how many of the functions:"
  local shares = {}
  for name, k in pairs(features) do shares[#shares + 1] = { name = name, k = k } end
  for _, f in ipairs(sorted(shares, function(a, b) return a.k > b.k or a.k == b.k and a.name < b.name end)) do
    print(("%6.1f %%  %s"):format(100 * f.k / n, f.name))
  end
end

if options.show then
  io.write(generate.text((generate.tree(options.show))))
  return
end
kiln.use_deterministic_algorithms(true)
local n, seconds = run()
report(n, seconds)
local bad = count.differs
if n >= MANY then
  if count.refused > n * distribution.refused then bad = bad + 1 print "FAILED: too many are refused" end
  for name, k in pairs(features) do
    if k < n * distribution.least then bad = bad + 1 print(("FAILED: too few have '%s'"):format(name)) end
  end
  if (features["tensor branches in loops"] or 0) < n * distribution.in_loop then
    bad = bad + 1
    print "FAILED: too few have a tensor branch in a loop"
  end
end
print(("%d passed, %d failed"):format(count.same, bad))
os.exit(bad == 0, true)
