-- Times kiln on a CUDA device beside PyTorch there: eager, torch.compile, and that with max-autotune, in one run and in turns. Prints Markdown;
-- `run.sh` keeps it. What is timed is in rows.lua.
--   build/kiln spec/gpu/bench.lua [--rows TEXT] [--rounds N] [--alone] [--seconds N]
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../bench/?.lua;" .. package.path
local common = require "common"
local say, time_text = common.say, common.time_text
local all = dofile(here .. "/rows.lua")

local options = { rounds = 9, wanted = {}, seconds = 220 }
do
  local i = 1
  while arg[i] do
    if arg[i] == "--alone" then options.alone = true
    elseif arg[i] == "--rows" then i = i + 1; table.insert(options.wanted, arg[i])
    elseif arg[i] == "--rounds" then i = i + 1; options.rounds = tonumber(arg[i])
    elseif arg[i] == "--seconds" then i = i + 1; options.seconds = tonumber(arg[i])
    else common.die("bench: there is no option " .. arg[i]) end
    i = i + 1
  end
end
if not kiln.cuda.is_available() then
  for _, backend in ipairs(kiln.backends()) do
    if backend.name == "cuda" then common.die("bench: no device: " .. tostring(backend.reason)) end
  end
  common.die "bench: kiln was built without CUDA"
end

local modes = { "eager", "compile", "max-autotune" }
local peers = {}
if not options.alone then
  for _, mode in ipairs(modes) do
    local peer = common.start(mode, ("%s %s/peer.py %s"):format(common.quoted(common.python), common.quoted(here), mode), "TORCHINDUCTOR_MAX_AUTOTUNE_GEMM_BACKENDS=ATEN,TRITON")
    local said = peer:try "facts"
    if said then peers[#peers + 1], peer.facts = peer, said end
  end
end

local TURN = 0.02
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
  return math.max(1, math.ceil(n * TURN / math.max(t, TURN / 100)))
end

say(("# CUDA, %s"):format(os.date "%Y-%m-%d %H:%M"))
for _, backend in ipairs(kiln.backends()) do
  if backend.name == "cuda" then say("- kiln " .. kiln.version .. ", " .. backend.version) end
end
for _, peer in ipairs(peers) do say("- " .. peer.name .. ": " .. peer.facts) end
say ""
local line = common.table { { "row", 52 }, { "kiln graph", 10 }, { "kiln eager", 10 }, { "PyTorch", 10 }, { "compile", 10 },
  { "autotune", 10 }, { "ratio", 5 }, { "asked", 5 }, { "TFLOP/s", 8 }, { "GB/s", 7 } }
local started, sum, counted, timed, failed, copy, notes = kiln.clock(), 0, 0, 0, 0, nil, {}
for _, row in ipairs(all) do
  local wanted = #options.wanted == 0
  for _, text in ipairs(options.wanted) do wanted = wanted or row.name:find(text, 1, true) end
  if wanted and kiln.clock() - started > options.seconds then
    notes[#notes + 1] = row.name .. ": no time was left"
  elseif wanted then
    local sides, times = {}, {}
    local ok, case = pcall(row.make)
    if ok then
      local function side(name, make)
        local good, run = pcall(make)
        if good and pcall(run, 2) then sides[#sides + 1] = { name = name, run = run }
        else notes[#notes + 1] = ("%s, %s: %s"):format(row.name, name, tostring(run):gsub("\n.*", "")) end
      end
      local within = case.train and function(f) return f end or function(f) return function(...) return kiln.no_grad(f, ...) end end
      side("graph", function()
        local graph = kiln.script(case.f)
        return within(loop(function(...) return graph(...) end, case.inputs))
      end)
      side("lua", function() return within(loop(case.f, case.inputs)) end)
      for _, peer in ipairs(peers) do
        local said = peer:try("row " .. case.torch:gsub("\n", "\1"))
        if said == "ok" then sides[#sides + 1] = { name = peer.name, run = function(n) return peer:run(n) end }
        else notes[#notes + 1] = ("%s, %s: %s"):format(row.name, peer.name, said or "its process ended") end
      end
      for _, it in ipairs(sides) do it.n, times[it.name] = calls(it.run), {} end
      for round = 1, options.rounds do
        for i = 1, #sides do
          local it = sides[(i + round) % #sides + 1]
          table.insert(times[it.name], it.run(it.n) / it.n)
        end
      end
      local median, best = {}, nil
      for name, list in pairs(times) do median[name] = common.middle(list) end
      for _, mode in ipairs(modes) do
        if median[mode] then best = math.min(best or median[mode], median[mode]) end
      end
      local mine = median.graph
      if mine then timed = timed + 1 else failed = failed + 1 end
      if row.name:match "^copy" then copy = mine and case.bytes / mine end
      local ratio = mine and best and mine / best
      if ratio then sum, counted = sum + math.log(ratio), counted + 1 end
      local asked = case.aim and ("%.2f"):format(case.aim) or case.bandwidth and copy and mine and ("%.0f %%"):format(100 * case.bytes / mine / copy) or ""
      line { row.name, time_text(mine), time_text(median.lua), time_text(median.eager), time_text(median.compile),
        time_text(median["max-autotune"]), ratio and ("%.2f"):format(ratio) or "", asked, case.flops and mine and ("%.1f"):format(case.flops / mine * 1e-12) or "",
        case.bytes and mine and ("%.0f"):format(case.bytes / mine * 1e-9) or "" }
    else
      failed = failed + 1
      notes[#notes + 1] = row.name .. ": " .. tostring(case):gsub("\n.*", "")
    end
    case, sides = nil, nil
    collectgarbage()
    kiln.cuda.empty_cache()
  end
end
say ""
if counted > 0 then say(("%.3f on geometric average of %d rows"):format(math.exp(sum / counted), counted)) end
for _, note in ipairs(notes) do say("- " .. note) end

-- ---- one process from nothing to its first result ------------------------------------------------------------------
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
say(("- memory of the device, at most: %.1f MB"):format(kiln.cuda.max_memory_allocated() * 1e-6))
for _, peer in ipairs(peers) do peer:close() end
print(("%d passed, %d failed"):format(timed, failed)) -- rows that kiln could do
