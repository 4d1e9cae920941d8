-- kiln's sides of `./dev bench models`, each row in a process of its own. Also used by the suite as a function. The first
-- argument is `graph`, `lua` (eager) or `facts`, the second `small` for the sizes of the suite. Orders on standard input, each answered with
-- a line, `no REASON` when it fails: `row NAME` makes what the row needs, `facts` counts what it must compute and move (and
-- leaves behind on disk what a first run leaves there), `build` captures, plans and runs; `run N` gives seconds.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local clock = os.getenv "KILN_BENCH_CLOCK" == "cpu" and os.clock or kiln.clock

-- ---- memory ----------------------------------------------------------------------------------------------------

local function status(name)
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match("^" .. name .. ":%s*(%d+)")
    if kilobytes then return tonumber(kilobytes) * 1024 end
  end
end

local function forget_peak()
  collectgarbage()
  collectgarbage()
  local file = io.open("/proc/self/clear_refs", "w")
  if file then file:write("5"):close() end
  return status "VmRSS"
end

-- ---- a row ------------------------------------------------------------------------------------------------------

local function specs(value)
  if kiln.is_tensor(value) then return kiln.spec(value.dtype, value.shape) end
  local list = {}
  for key, x in pairs(value) do list[key] = specs(x) end
  return list
end

-- The graph that is timed: captured as it stands in the row; unless it trains, optimised for inference.
local function capture(case)
  local at = clock()
  local graph = kiln.script(case.f, { inputs = specs(case.inputs) })
  local captured, optimised, why = clock() - at, nil, nil
  local whole = graph
  if not case.train then
    at = clock()
    local ok, better = pcall(function() return graph:optimize_for_inference() end)
    if ok then graph, optimised = better, clock() - at else why = tostring(better):gsub("\n.*", ""):gsub("^%S+:%d+: ", "") end
  end
  return graph, { capture = captured, optimise = optimised, unoptimised = why }, whole
end

local function bytes_of(value, seen)
  if kiln.is_tensor(value) then return value:numel() * (value.dtype:match "64" and 8 or value.dtype == "bool" and 1 or 4) end
  local sum = 0
  if type(value) == "table" and not seen[value] then
    seen[value] = true
    for _, x in pairs(value) do sum = sum + bytes_of(x, seen) end
  end
  return sum
end

-- Flops of all nodes, and bytes that must be moved at least: what is outside (in training read and written) and the inputs.
local function facts(case)
  local graph, _, whole = capture(case)
  graph:prepare(table.unpack(case.inputs))
  local results = table.pack(graph(table.unpack(case.inputs)))
  local flops, outside = 0, 0
  for _, node in ipairs(whole:nodes(table.unpack(case.inputs))) do flops = flops + (node.flops or 0) end
  outside = bytes_of(whole:parameters(), {}) * (case.train and 2 or 1)
  outside = outside - bytes_of(case.tables or {}, {})
  return { flops = flops, bytes = outside + bytes_of(case.inputs, {}) + bytes_of(results, {}) }
end

local function timed(f, inputs, n)
  local at = clock()
  for _ = 1, n do f(table.unpack(inputs)) end
  return clock() - at
end

-- A loop and a clock that have run: by the first call of those, two microseconds, no graph is told.
local function known_clock(inputs)
  for _ = 1, 3 do timed(function() end, inputs, 1) end
end

-- The first run, and the median of the last runs up to the hundredth (or `most`), or up to as many as a second has.
local function runs(graph, inputs, most)
  local times, total = {}, 0
  known_clock(inputs)
  while #times < 2 or #times < (most or 100) and total < 1 do
    times[#times + 1] = timed(graph, inputs, 1)
    total = total + times[#times]
  end
  local last = table.move(times, math.max(2, #times - 10), #times, 1, {})
  table.sort(last)
  return times[1], last[(#last + 1) // 2]
end

local function build(case, most)
  local before = forget_peak()
  local graph, said = capture(case)
  local at = clock()
  graph:prepare(table.unpack(case.inputs))
  said.plan, said.planned = clock() - at, graph:memory(table.unpack(case.inputs))
  said.first, said.later = runs(graph, case.inputs, most)
  said.grew = math.max(0, status "VmHWM" - before)
  return graph, said
end

-- For one, two and three inputs without a table in between, as a script calls it.
local function loop(f, inputs)
  local a, b, c = table.unpack(inputs)
  if #inputs == 1 then
    return function(n)
      local at = clock()
      for _ = 1, n do local _ = f(a) end
      return clock() - at
    end
  elseif #inputs == 2 then
    return function(n)
      local at = clock()
      for _ = 1, n do local _ = f(a, b) end
      return clock() - at
    end
  end
  return function(n)
    local at = clock()
    for _ = 1, n do local _ = f(a, b, c) end
    return clock() - at
  end
end

-- In the mode that the row is for.
local function within(case, f, ...)
  if case.train then return f(...) end
  return kiln.no_grad(f, ...)
end

if ... == "module" then return { specs = specs, facts = facts, build = build, loop = loop, within = within } end

-- ---- orders ----------------------------------------------------------------------------------------------------

local mode, small = arg[1], arg[2] == "small"
local case, run

local function answer(values)
  local words = { "ok" }
  for key, value in pairs(values) do
    words[#words + 1] = key .. "=" .. (type(value) == "number" and ("%.9g"):format(value) or value:gsub("%s", "\1"))
  end
  return table.concat(words, " ")
end

local orders = {}

function orders.row(name)
  kiln.manual_seed(1)
  for _, row in ipairs(dofile(here .. "/model_rows.lua")(small)) do
    if row.name == name then case = row.case() end
  end
  if mode == "lua" then run = loop(case.f, case.inputs) end
  return answer {}
end

function orders.facts() return answer(within(case, facts, case)) end

function orders.build()
  local graph, said = within(case, build, case)
  run = loop(graph, case.inputs)
  return answer(said)
end

function orders.run(n) return ("%.9f"):format(within(case, run, math.tointeger(tonumber(n)))) end

for line in io.lines() do
  local order, rest = line:match "^(%S+) ?(.*)$"
  local ok, said = pcall(orders[order], rest)
  io.write(ok and said or "no " .. tostring(said):gsub("\n.*", ""), "\n")
  io.flush()
end
