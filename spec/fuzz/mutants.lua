-- kiln spec/fuzz/mutants.lua: does spec/fuzz find faults? Each fault of graph/mutants.def is turned on in a process of its
-- own (this kiln must be built with -Dmutants=true), which runs random functions until one is not as it should be.
-- `./dev fuzz --mutants` runs it. An argument: only the mutants of that name.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local kiln_program = arg[-1] or "kiln"
local BOUND, MINUTES = 2000, 0.6 -- functions and time for each; twice the time is no end

local function run(mutant, last, minutes)
  local pipe = assert(io.popen(("KILN_MUTANT=%s timeout %d '%s' '%s/fuzz.lua' --first --minutes %g --seeds 1:%d 2>&1"):format(
    mutant, minutes * 120, kiln_program, here, minutes, last)))
  local text = pipe:read "a"
  local _, how, code = pipe:close()
  return text, how == "exit" and code or 255
end

-- What the first function that was not right said: its number and why.
local function verdict(text, code)
  local seed, why = text:match "first: f(%d+) ([^\n]*)"
  if seed then return math.tointeger(tonumber(seed)), why end
  if code == 124 then return nil, "no end" end
  if code > 1 then return 0, ("ended with %d: %s"):format(code, text:sub(-80):gsub("\n", " ")) end
end

local names = {}
for line in io.lines(here .. "/../../graph/mutants.def") do
  local name, what = line:match '^MUTANT%(([%w_]+), "(.*)"%)'
  if name and (not arg[1] or name == arg[1]) then names[#names + 1] = { name, what } end
end

local clean = run("none", 400, 10)
assert(not verdict(clean, 0), "without a mutant it fails: " .. clean:sub(-300))
local killed, left = 0, 0
for _, m in ipairs(names) do
  local seed, why = verdict(run(m[1], BOUND, MINUTES))
  if seed or why then killed = killed + 1 else left = left + 1 end
  print(("%-28s %-55s %s"):format(m[1], m[2],
    seed and ("%5d functions: %s"):format(seed, why:sub(1, 70)) or why or "NOT FOUND"))
end
print(("%d passed, %d failed"):format(killed, left))
os.exit(left == 0, true)
