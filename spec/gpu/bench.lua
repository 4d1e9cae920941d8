-- Times kiln on a CUDA device beside PyTorch there: eager, torch.compile, and that with max-autotune, in one run and in turns. Prints Markdown;
-- `run.sh` keeps it. What is timed is in rows.lua.
--   build/kiln spec/gpu/bench.lua [--rows TEXT] [--rounds N] [--alone] [--seconds N] [--small]
-- Rows begin within so many seconds; --alone leaves PyTorch out; --small is for trying it without a GPU.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = ("%s/../bench/?.lua;%s/../lua/?.lua;%s"):format(here, here, package.path)
local common = require "common"
local say, time_text = common.say, common.time_text

local options = { rounds = 9, wanted = {}, seconds = 280 }
do
  local i = 1
  while arg[i] do
    if arg[i] == "--alone" then options.alone = true
    elseif arg[i] == "--small" then options.small = true
    elseif arg[i] == "--rows" then i = i + 1; table.insert(options.wanted, arg[i])
    elseif arg[i] == "--rounds" then i = i + 1; options.rounds = tonumber(arg[i])
    elseif arg[i] == "--seconds" then i = i + 1; options.seconds = tonumber(arg[i])
    else common.die("bench: there is no option " .. arg[i]) end
    i = i + 1
  end
end
local started = kiln.clock()
local function left() return options.seconds - (kiln.clock() - started) end
if not kiln.cuda.is_available() then
  for _, backend in ipairs(kiln.backends()) do
    if backend.name == "cuda" then common.die("bench: no device: " .. tostring(backend.reason)) end
  end
  common.die "bench: kiln was built without CUDA"
end
local all = loadfile(here .. "/rows.lua")(options.small)

-- ---- PyTorch's processes -----------------------------------------------------------------------------------------

local modes = { "eager", "compile", "max-autotune" }
local peers = {}

local function start(mode)
  return common.start(mode, ("%s %s/peer.py %s 2>/dev/null"):format(common.quoted(common.python), common.quoted(here), mode),
    "TORCHINDUCTOR_MAX_AUTOTUNE_GEMM_BACKENDS=ATEN,TRITON")
end

-- All at once, as each has much to make ready. Gives the answers by mode.
local function ask_all(order)
  local answers = {}
  for _, peer in ipairs(peers) do
    if not peer.process then peer.process = start(peer.mode) end
    peer.process.to:write(order, "\n")
    peer.process.to:flush()
  end
  for _, peer in ipairs(peers) do
    local said = peer.process.from:read "l"
    if not said then peer.process = nil end -- it has ended; the next row gets another
    answers[peer.mode] = said or "no: its process ended"
  end
  return answers
end

say(("# CUDA, %s"):format(os.date "%Y-%m-%d %H:%M"))
for _, backend in ipairs(kiln.backends()) do
  if backend.name == "cuda" then say("- kiln " .. kiln.version .. ", " .. backend.version) end
end
if not options.alone and not common.output_of(common.quoted(common.python) .. " -c 'print(1)'") then
  say(("- PyTorch: not there: %s does not run"):format(common.python))
elseif not options.alone then
  for _, mode in ipairs(modes) do peers[#peers + 1] = { mode = mode } end
  local facts = ask_all "facts"
  for i = #peers, 1, -1 do
    local said = facts[peers[i].mode]
    if said:find "^no" then table.remove(peers, i) end
  end
  for _, mode in ipairs(modes) do say(("- PyTorch, %s: %s"):format(mode, (facts[mode]:gsub("^no:? ", "not there: ")))) end
end

-- ---- one process from nothing to its first result ------------------------------------------------------------------

do
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write "local x = kiln.randn(64, 64, { device = 'cuda' })\nprint((x:matmul(x) + x):relu():sum():item())\n"
  file:close()
  local cold = {}
  for i = 1, 4 do
    local at = kiln.clock()
    os.execute(("%s %s >/dev/null"):format(common.quoted(common.kiln), common.quoted(script)))
    cold[i] = kiln.clock() - at
  end
  os.remove(script)
  say(("- cold start to the first result: %s at first, then %s"):format(time_text(cold[1]), time_text(common.middle { cold[2], cold[3], cold[4] })))
end

-- ---- what the host takes for a launch --------------------------------------------------------------------------------

do
  local net, x = kiln.nn.Sequential(kiln.nn.Linear(10, 32), kiln.nn.ReLU(), kiln.nn.Linear(32, 2)):to "cuda", kiln.randn(1, 10, { device = "cuda" })
  local graph, n = kiln.script(function(t) return net(t) end), options.small and 20 or 500
  kiln.no_grad(function()
    for _ = 1, 20 do graph(x) end
    local whole, driver = {}, {}
    for round = 1, 9 do
      kiln.cuda.synchronize()
      local before, at = kiln.cuda.launch_stats(), kiln.clock()
      for _ = 1, n do graph(x) end
      whole[round] = (kiln.clock() - at) / n
      local after = kiln.cuda.launch_stats()
      driver[round] = (after.seconds - before.seconds) / math.max(1, after.launches - before.launches)
    end
    local all_of_it, theirs = common.middle(whole), common.middle(driver)
    say(("- host time of a launch from Lua (MLP 10-32-2): %s, of which %s in the driver's call, %s ours"):format(time_text(all_of_it), time_text(theirs),
      time_text(math.max(0, all_of_it - theirs))))
  end)
end

-- ---- rows ------------------------------------------------------------------------------------------------------------

local TURN = options.small and 0 or 0.02
local function loop(f, inputs)
  return function(n)
    kiln.cuda.synchronize()
    local at = kiln.clock()
    for _ = 1, n do f(table.unpack(inputs)) end
    kiln.cuda.synchronize()
    return kiln.clock() - at
  end
end

local function calls(run)
  local n, t = 1, run(1)
  if t < TURN then t = run(1) end
  while t < TURN / 2 and n < 1 << 20 do n = n * 4; t = run(n) end
  return math.max(1, math.ceil(n * TURN / math.max(t, TURN / 100, 1e-9)))
end

local notes = {}
local function note(...) notes[#notes + 1] = string.format(...) end
local function first_line(text) return (tostring(text):gsub("\n.*", "")) end

-- { name, run } of kiln's captured and eager form, and of PyTorch's; gives the bytes that the captured form took, too.
local function sides_of(row, case)
  local sides, bytes = {}, nil
  local function side(name, make)
    local good, run = pcall(make)
    local why = run
    if good then good, why = pcall(run, 2) end
    if good then sides[#sides + 1] = { name = name, run = run } else note("%s, %s: %s", row.name, name, first_line(why)) end
  end
  local within = case.train and function(f) return f end or function(f) return function(...) return kiln.no_grad(f, ...) end end
  kiln.cuda.reset_peak_memory_stats()
  side("graph", function()
    local graph = kiln.script(case.f)
    return within(loop(function(...) return graph(...) end, case.inputs))
  end)
  bytes = kiln.cuda.max_memory_allocated()
  side("lua", function() return within(loop(case.f, case.inputs)) end)
  local limit = math.max(5, math.floor(math.min(case.train and 60 or 30, left())))
  local answers = ask_all(("row %d %s"):format(limit, (case.torch:gsub("\n", "\1"))))
  for _, peer in ipairs(peers) do
    local said = answers[peer.mode]
    if said == "ok" then
      sides[#sides + 1] = { name = peer.mode, run = function(n)
        local said = peer.process and peer.process:try("run " .. n)
        if not said then peer.process = nil end -- nothing may be written to what has ended
        return tonumber(said) or error(said or "its process ended", 0)
      end }
    else
      note("%s, %s: %s", row.name, peer.mode, said)
    end
  end
  return sides, bytes
end

-- Seconds a call by side, the middle of the rounds.
local function timed(row, sides)
  local times, medians = {}, {}
  for i = #sides, 1, -1 do
    local it = sides[i]
    local good, n = pcall(calls, it.run)
    it.n, times[it.name] = n, {}
    if not good then
      note("%s, %s: %s", row.name, it.name, first_line(n))
      table.remove(sides, i)
    end
  end
  for round = 1, options.rounds do
    for i = 1, #sides do
      local it = sides[(i + round) % #sides + 1]
      local good, t = pcall(it.run, it.n)
      if good then table.insert(times[it.name], t / it.n) end
    end
  end
  for name, list in pairs(times) do medians[name] = #list > 0 and common.middle(list) or nil end
  return medians
end

say ""
local line = common.table { { "row", 52 }, { "kiln graph", 10 }, { "kiln eager", 10 }, { "PyTorch", 10 }, { "compile", 10 },
  { "autotune", 10 }, { "ratio", 5 }, { "asked", 5 }, { "TFLOP/s", 8 }, { "GB/s", 7 } }
local sum, counted, done, failed, copy, memory = 0, 0, 0, 0, nil, {}

local function run_row(row)
  local good, case = pcall(row.make)
  if not good then
    failed = failed + 1
    return note("%s: %s", row.name, first_line(case))
  end
  local sides, bytes = sides_of(row, case)
  local median, best = timed(row, sides), nil
  for _, mode in ipairs(modes) do
    if median[mode] then best = math.min(best or median[mode], median[mode]) end
  end
  local mine = median.graph
  if mine then done = done + 1 else failed = failed + 1 end
  if row.name:match "^copy" then copy = mine and case.bytes / mine end
  local ratio = mine and best and mine / best
  if ratio then sum, counted = sum + math.log(ratio), counted + 1 end
  local part = case.bandwidth and copy and mine and case.bytes / mine / copy
  line { row.name, time_text(mine), time_text(median.lua), time_text(median.eager), time_text(median.compile),
    time_text(median["max-autotune"]), ratio and ("%.2f"):format(ratio) or "", case.aim and ("%.2f"):format(case.aim) or part and ("%.0f %%"):format(100 * part) or "",
    case.flops and mine and ("%.1f"):format(case.flops / mine * 1e-12) or "", case.bytes and mine and ("%.0f"):format(case.bytes / mine * 1e-9) or "" }
  if case.memory then
    local parts, answers = { ("kiln's graph %.0f MB"):format(bytes * 1e-6) }, ask_all "memory"
    for _, peer in ipairs(peers) do
      if tonumber(answers[peer.mode]) then parts[#parts + 1] = ("%s %.0f MB"):format(peer.mode, tonumber(answers[peer.mode]) * 1e-6) end
    end
    memory[#memory + 1] = row.name .. ": " .. table.concat(parts, ", ")
  end
end

for _, row in ipairs(all) do
  local wanted = #options.wanted == 0
  for _, text in ipairs(options.wanted) do wanted = wanted or row.name:find(text, 1, true) end
  if wanted and left() <= 0 then
    note("%s: no time was left", row.name)
  elseif wanted then
    run_row(row)
    collectgarbage()
    kiln.cuda.empty_cache()
  end
end
say ""
if counted > 0 then say(("%.3f of the fastest of PyTorch's, on geometric average of %d rows"):format(math.exp(sum / counted), counted)) end
for _, text in ipairs(memory) do say("- memory of the device, at most, " .. text) end
for _, text in ipairs(notes) do say("- " .. text) end
for _, peer in ipairs(peers) do
  if peer.process then peer.process:close() end
end
print(("%d passed, %d failed"):format(done, failed)) -- rows that kiln could do
