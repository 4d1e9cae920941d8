-- kiln spec/fuzz/fuzz.lua [options]: random Lua functions, eager against captured. `./dev fuzz` runs it.
--   --seeds A:B     these functions (1:2000)
--   --jobs N        in N processes
--   --minutes N     stop after so many minutes
--   --list          each function that is refused or differs, with its sort and the whole reason
--   --reduce        print each failing function made small
--   --first         stop at the first function that differs, or when far too many are refused
--   --show SEED     print one function as it is
--   --progress      say on standard error how far it is
--   --report FILE   write what was found as lines ("-": nothing else is printed); --sum FILE … adds such reports
--                   up and prints them
--   --levels        the frozen graph, and that for inference, beside the captured one, too
--   --device NAME   with tensors on that device
--   --part K/N      of the functions every N-th, from the K-th on
-- Ends in `N passed, N failed` and fails when a function differs, when too many are refused, or when a feature is too
-- rare (distribution.lua says what that is).
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. here .. "/../lua/?.lua;" .. package.path
local compare, generate, reduce, report = require "compare", require "generate", require "reduce", require "report"

local RUNS = 6 -- calls of each function
local FAR_TOO_MANY = 0.03 -- refusals that are no chance: where it stops at the first fault

local options = { first = 1, last = 2000, minutes = math.huge, jobs = 1, part = 1, parts = 1 }
do
  local i = 1
  local function value(what)
    i = i + 1
    return arg[i] or error(("%s needs a value"):format(what), 0)
  end
  local function pair(what, pattern)
    local a, b = value(what):match(pattern)
    a, b = math.tointeger(tonumber(a)), math.tointeger(tonumber(b))
    return assert(a and b and a, what .. " needs two numbers"), b
  end
  while arg[i] do
    local name = arg[i]
    if name == "--seeds" then options.first, options.last = pair(name, "^(%d+):(%d+)$")
    elseif name == "--part" then options.part, options.parts = pair(name, "^(%d+)/(%d+)$")
    elseif name == "--jobs" then options.jobs = assert(math.tointeger(tonumber(value(name))), "--jobs needs a number")
    elseif name == "--minutes" then options.minutes = assert(tonumber(value(name)), "--minutes needs a number")
    elseif name == "--show" then options.show = assert(math.tointeger(tonumber(value(name))), "--show needs a number")
    elseif name == "--report" then options.report = value(name)
    elseif name == "--sum" then
      options.sum = table.move(arg, i + 1, #arg, 1, {})
      i = #arg
    elseif name == "--list" then options.list = true
    elseif name == "--reduce" then options.reduce = true
    elseif name == "--levels" then compare.levels = true
    elseif name == "--device" then compare.device = value(name)
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

-- The function itself, without what is the same in all.
local function body_of(text)
  return text:match "(local function f%(.*)return f, function"
end

local function print_small(tree, seed, what, why)
  local wanted = report.kind_of(why)
  local small = reduce.reduce(tree, function(t)
    if not load(generate.text(t)) then return false end
    local now, reason = try(t, seed)
    return now == what and report.kind_of(reason) == wanted
  end)
  print(("---- f%d %s: %s\n%s"):format(seed, what, select(2, try(small, seed)), body_of(generate.text(small))))
end

local function at_once(seed, tree, what, why)
  if options.stop and what == "differs" then
    print(("first: f%d %s: %s"):format(seed, what, (why:gsub("\n.*", ""))))
    os.exit(1)
  end
  if what == "differs" and options.report ~= "-" then print(("f%d %s"):format(seed, why)) end
  if options.reduce then print_small(tree, seed, what, why) end
end

local function run(found)
  local started, cpu = kiln.clock(), os.clock()
  for seed = options.first + options.part - 1, options.last, options.parts do
    local tree, features, sort = generate.tree(seed)
    if options.stop then io.stderr:write("at f", seed, "\n") end -- so that who ends here is known
    local what, why, raised = try(tree, seed)
    found:add(seed, sort, features, what, why, raised, RUNS)
    if what ~= "same" then at_once(seed, tree, what, why) end
    if options.stop and found.functions >= report.MANY and found.refused > FAR_TOO_MANY * found.functions then
      print(("first: f%d of %d functions %d are refused"):format(seed, found.functions, found.refused))
      os.exit(1)
    end
    if found.functions % 20 == 0 then collectgarbage() end
    if options.progress and found.functions % 100 == 0 then
      io.stderr:write(("\r%d: %d refused, %d differ "):format(found.functions, found.refused, found.differs))
    end
    if kiln.clock() - started > options.minutes * 60 then break end
  end
  found.seconds = os.clock() - cpu
end

--- The same in several processes of this program, whose reports are added up.
local function run_jobs(found)
  local pipes, more = {}, ""
  if options.minutes < math.huge then more = more .. " --minutes " .. options.minutes end
  if compare.levels then more = more .. " --levels" end
  if compare.device then more = more .. " --device " .. compare.device end
  if options.progress then more = more .. " --progress" end
  for k = 1, options.jobs do
    pipes[k] = assert(io.popen(("'%s' '%s' --seeds %d:%d --part %d/%d --report -%s"):format(arg[-1] or "kiln", arg[0], options.first,
      options.last, k, options.jobs, more)))
  end
  for k, pipe in ipairs(pipes) do
    local whole = found:read(pipe)
    local ok, how, code = pipe:close()
    if not whole then error(("process %d of %d has no report: %s %s"):format(k, options.jobs, how, code), 0) end
  end
  for _, c in ipairs(found.cases) do
    if c.what == "differs" then print(("f%d %s"):format(c.seed, c.why)) end
  end
end

local function sum(found, files)
  for _, path in ipairs(files) do
    local file = assert(io.open(path))
    if not found:read(file) then error(path .. " is no whole report", 0) end
    file:close()
  end
end

if options.show then
  io.write(generate.text((generate.tree(options.show))))
  return
end
kiln.use_deterministic_algorithms(true)
local found = report.new()
if options.sum then
  sum(found, options.sum)
elseif options.jobs > 1 then
  assert(not options.stop and not options.reduce, "--first and --reduce want one process")
  run_jobs(found)
else
  run(found)
end
if options.report then
  local file = options.report == "-" and io.stdout or assert(io.open(options.report, "w"))
  found:write(file)
  if options.report == "-" then os.exit(true, true) end
  file:close()
end
if options.list then found:list() end
found:print()
local bad = found:faults()
print(("%d passed, %d failed"):format(found.same, bad))
os.exit(bad == 0, true)
