-- kiln spec/fuzz/mutants.lua [--jobs N] [--print] [NAME …]: does spec/fuzz find faults? Each fault of graph/mutants.def (or
-- those named) is turned on in a process of its own (this kiln must be built with -Dmutants=true), which runs random
-- functions until one is not as it should be: first the one that found it last (mutants_found.txt; --print writes that
-- list anew), then from the first on. `./dev fuzz --mutants` runs it.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local kiln_program = arg[-1] or "kiln"
local LAST = 3000 -- functions for each
local TOO_LONG, ONE_TOO_LONG = 300, 20 -- seconds of work after which all of them, and one, have no end
local FOUND = here .. "/mutants_found.txt"

local jobs, print_anew, wanted = 1, false, {}
do
  local i = 1
  while arg[i] do
    if arg[i] == "--jobs" then
      i = i + 1
      jobs = assert(math.tointeger(tonumber(arg[i])), "--jobs needs a number")
    elseif arg[i] == "--print" then print_anew = true
    else wanted[arg[i]] = true end
    i = i + 1
  end
end

local function start(mutant, first, last)
  local command = "ulimit -c 0; ulimit -t %d; KILN_MUTANT=%s KILN_NUM_THREADS=1 exec '%s' '%s/fuzz.lua' --first --seeds %d:%d 2>&1"
  local seconds = first == last and ONE_TOO_LONG or TOO_LONG
  return assert(io.popen(command:format(seconds, mutant, kiln_program, here, first, last)))
end

-- What the first function that was not right said: its number and why; nil when all were right. Where it is too many that
-- are refused, it is the last of them.
local function verdict(pipe)
  local text = pipe:read "a"
  local _, how, code = pipe:close()
  local seed, why = text:match "\nfirst: f(%d+) ([^\n]*)"
  if seed then return tonumber(seed), (why:gsub("^differs: ", "")) end
  local at = tonumber(text:match ".*at f(%d+)\n")
  if how == "exit" and code <= 1 then return nil end
  local cpu = how == "signal" and (code == 24 or code == 9) or code == 128 + 24 or code == 128 + 9
  return at, cpu and "no end" or ("ended with %s %d"):format(how, code)
end

local before, many = {}, {}
for line in io.lines(FOUND) do
  local name, seed, why = line:match "^([%w_]+) f(%d+) (.*)"
  if name then before[name], many[name] = tonumber(seed), why:find "^of %d+ functions" end
end

local names = {}
for line in io.lines(here .. "/../../graph/mutants.def") do
  local name, what = line:match '^MUTANT%(([%w_]+), "(.*)"%)'
  if name and (not next(wanted) or wanted[name]) then names[#names + 1] = { name = name, what = what } end
end

--- Runs each of these mutants on [first(m), last(m)], `jobs` at a time; done(m, seed, why) for each, in order.
local function run(list, first, last, done)
  for i = 1, #list + jobs - 1 do
    local m = list[i]
    if m then m.pipe = start(m.name, first(m), last(m)) end
    m = list[i - jobs + 1]
    if m then done(m, verdict(m.pipe)) end
  end
end

local clean = verdict(start("none", 1, 200))
assert(not clean, "without a mutant it fails: " .. tostring(clean))
local known, left = {}, {}
for _, m in ipairs(names) do
  if before[m.name] then known[#known + 1] = m end
end
local function from(m) return many[m.name] and 1 or before[m.name] end
run(known, from, function(m) return before[m.name] end,
  function(m, seed, why) m.seed, m.why = seed, why end)
for _, m in ipairs(names) do
  if not m.why then left[#left + 1] = m end
end
run(left, function() return 1 end, function() return LAST end, function(m, seed, why)
  if why == "no end" then seed, why = verdict(start(m.name, seed, seed)) end -- it alone
  m.seed, m.why = seed, why
end)

local killed = 0
local lines = {}
for _, m in ipairs(names) do
  if m.why then killed = killed + 1 end
  lines[#lines + 1] = ("%s f%s %s"):format(m.name, m.seed or "-", (m.why or "NOT FOUND"):sub(1, 90))
  print(("%-28s %-55s f%s: %s"):format(m.name, m.what, m.seed or "-", (m.why or "NOT FOUND"):sub(1, 70)))
end
if print_anew then
  local file = assert(io.open(FOUND, "w"))
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
end
print(("%d passed, %d failed"):format(killed, #names - killed))
os.exit(killed == #names, true)
