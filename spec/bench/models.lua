-- `./dev bench models`: every row of model_rows.lua timed by kiln, as a graph and eager, and by what there is of PyTorch eager,
-- TorchScript, torch.compile and ONNX Runtime, in one run and in turns. Prints Markdown; README.md tells how to read it.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local list, common, machine = require "model_rows", require "common", require "machine"
local say, quoted, time_text = common.say, common.quoted, common.time_text

local options = common.options([[
usage: ./dev bench models [options]
  --rows TEXT     only rows whose group or name holds TEXT (may be given again)
  --threads LIST  thread counts, as in 1,2 (default: 1 and all cores)
  --rounds N      how often each side has its turn (default 15; slow rows less, at least 3)
  --min           judge by the fastest turn, not the median
  --cpu           processor time, not time on the wall: with one thread, on a machine that does other work too
  --alone         kiln only
  --without PEER  leaves out eager, torchscript, compile or onnxruntime (may be given again)
  --small         the sizes of the suite, to try the bench itself
  --wait          make the peers ready for all rows first, then wait for a line on standard input: for a machine to be made quiet
  --write         keep the tables as spec/bench/results/DATE-models.md]],
  { "min", "cpu", "alone", "small", "wait", "write" }, 15)
local kind = options.min and "min" or "median"

-- ---- sides -----------------------------------------------------------------------------------------------------

-- In the order of the table; `peer`: one of models.py.
local kinds = {
  { name = "graph", head = "kiln graph" }, { name = "lua", head = "kiln eager" },
  { name = "eager", head = "PyTorch", peer = true }, { name = "torchscript", head = "TorchScript", peer = true },
  { name = "compile", head = "compile", peer = true }, { name = "onnxruntime", head = "ONNX RT", peer = true },
}
local peers = not options.alone and machine.peers() or nil

local function start_server(threads)
  if not peers then return nil end
  return common.start("models.py", ("%s %s/models.py"):format(quoted(common.python), quoted(here)),
    common.environment(threads, options))
end

local function numbers(answer)
  local said = {}
  for name, value in answer:gmatch "(%w+)=(%S+)" do said[name] = tonumber(value) or value:gsub("\1", " ") end
  return said
end

-- Asks and tells whether that went well: what was said, or nil and why not.
local function attempt(side, order)
  local answer = side:try(order)
  if not answer then return nil, "its process ended" end
  if answer:match "^no " then return nil, answer:sub(4) end
  return numbers(answer)
end

local function start_kiln(threads, mode)
  return common.start(mode, ("%s %s/model_worker.lua %s %s"):format(quoted(common.kiln), quoted(here), mode,
    options.small and "small" or "whole"), common.environment(threads, options))
end

-- What a row must compute and move, by a process that ends before others are made ready.
local function count(threads, ready)
  local side, facts, why = start_kiln(threads, "facts"), nil, nil
  if attempt(side, "row " .. ready.row.name) then facts, why = attempt(side, "facts") end
  side:close()
  ready.facts, ready.refused["kiln's count of flops"] = facts, why
end

-- A row of which nothing is ready yet. ready.said: what sides said of themselves; ready.refused: why others cannot do it.
local function new_row(row) return { row = row, sides = {}, said = {}, refused = {} } end

-- Makes sides of a row ready, a process for each that can do it: those of the peers, or kiln's.
local function prepare(ready, server, threads, those_of_peers)
  local row = ready.row
  if not those_of_peers then count(threads, ready) end
  for _, k in ipairs(kinds) do
    local side
    if options.without[k.name] then ready.refused[k.head] = "left out, as asked"
    elseif those_of_peers and k.peer then side = server and common.fork(server, k.name)
    elseif not those_of_peers and not k.peer then side = start_kiln(threads, k.name) end
    if side then
      local said, why = attempt(side, "row " .. (k.peer and (row.net .. " " .. row.sizes):gsub(" $", "") or row.name))
      if said then
        ready.sides[#ready.sides + 1], ready.said[k.name] = side, said
      else
        ready.refused[k.head] = why
        side:close()
      end
    end
  end
end

-- The middle run 1 of processes that do nothing else: of a graph that takes a microsecond, one reading tells more of the
-- machine than of the graph.
local FRESH, BRIEF = 11, 10e-6
local function first_runs(said, row, threads)
  local all = { said.first / said.later }
  if said.later > BRIEF then return all[1] end
  while #all < FRESH do
    local side = start_kiln(threads, "graph")
    local again = attempt(side, "row " .. row.name) and attempt(side, "build")
    side:close()
    if not again then return nil end
    all[#all + 1] = again.first / again.later
  end
  return common.middle(all)
end

-- ---- timing ----------------------------------------------------------------------------------------------------

local TURN, MOST, REST = 0.006, 0.4, 0.05 -- seconds: a turn; of a side for a row; until others' threads sleep

local function calls_per_turn(side)
  local n, t = 1, side:run(1)
  if t >= TURN then t = side:run(1) end
  while t < TURN / 2 and n < 1 << 24 do
    n = n * 8
    t = side:run(n)
  end
  return math.max(1, math.ceil(n * TURN / math.max(t, TURN / 100))), t / n
end

local function rest(threads)
  local at = kiln.clock()
  while threads > 1 and kiln.clock() - at < REST do end
end

-- { [side name] = { median =, min = } }, seconds a call; what kiln's build said is in ready.said.graph.
local function measure(ready, threads)
  local able, calls, times, rounds = {}, {}, {}, options.rounds
  for _, side in ipairs(ready.sides) do
    local fit, why = true, nil
    if side.name == "graph" then
      fit, why = attempt(side, "build")
      ready.said.graph = fit or {}
      if fit then fit.cold = first_runs(fit, ready.row, threads) end
    end
    if fit then
      local each
      able[#able + 1], times[side] = side, {}
      calls[side], each = calls_per_turn(side)
      rounds = math.min(rounds, math.max(3, math.floor(MOST / (each * calls[side]))))
    else ready.refused["kiln graph"] = why end
  end
  for round = 1, rounds do
    for i = 1, #able do
      local side = able[(i + round) % #able + 1]
      rest(threads)
      table.insert(times[side], side:run(calls[side]) / calls[side])
    end
  end
  local result = {}
  for _, side in ipairs(able) do result[side.name] = { median = common.middle(times[side]), min = times[side][1] } end
  for _, side in ipairs(ready.sides) do side:close() end
  return result
end

-- ---- the tables ------------------------------------------------------------------------------------------------

-- The fastest peer.
local function best_of(result)
  local best
  for _, k in ipairs(kinds) do
    local t = k.peer and result[k.name]
    if t and (not best or t[kind] < result[best][kind]) then best = k.name end
  end
  return best
end

local function megabytes(bytes) return bytes and ("%.2f"):format(bytes * 1e-6) or "" end

local function times_table(done, peaks)
  local heads = { { "row", 33 } }
  for _, k in ipairs(kinds) do heads[#heads + 1] = { k.head, 11 } end
  for _, head in ipairs { { "ratio", 5 }, { "limit", 6 }, { "roofline", 8 }, { "bound by", 8 } } do heads[#heads + 1] = head end
  local line = common.table(heads)
  local sum = { rows = 0, within = 0, log = 0 }
  return function(ready, result)
    local row, cells = ready.row, { ready.row.name }
    for _, k in ipairs(kinds) do
      cells[#cells + 1] = result[k.name] and time_text(result[k.name][kind]) or ready.refused[k.head] and "no" or ""
    end
    local best, mine = best_of(result), result.graph and result.graph[kind]
    local ratio = best and mine and mine / result[best][kind]
    local miss = ratio and ratio > row.limit
    cells[8] = ratio and ("%.2f"):format(ratio) or ""
    cells[9] = (miss and "> " or "") .. ("%.2f"):format(row.limit)
    if ready.facts and mine then
      local least, what = peaks.least(ready.facts.flops, ready.facts.bytes)
      cells[10], cells[11] = ("%.0f %%"):format(100 * least / mine), least < 0.05 * mine and "calls" or what
    end
    line(cells)
    ready.result, ready.best, ready.miss = result, best, miss
    done[#done + 1] = ready
    if not ratio then return sum end
    sum.rows, sum.within, sum.log = sum.rows + 1, sum.within + (miss and 0 or 1), sum.log + math.log(ratio)
    return sum
  end
end

local function details_table(done)
  local line = common.table { { "row", 33 }, { "capture", 9 }, { "optimise", 9 }, { "plan", 9 }, { "run 1", 9 },
    { "run 100", 9 }, { "1 / 100", 7 }, { "planned", 8 }, { "grew", 8 }, { "least peer", 10 }, { "best peer", 9 },
    { "MFLOP", 9 }, { "MB", 8 } }
  for _, ready in ipairs(done) do
    local said, facts, least = ready.said.graph or {}, ready.facts or {}, nil
    for _, k in ipairs(kinds) do
      local grew = k.peer and ready.said[k.name] and ready.said[k.name].grew
      if grew then least = math.min(least or grew, grew) end
    end
    line { ready.row.name, time_text(said.capture), time_text(said.optimise), time_text(said.plan), time_text(said.first),
           time_text(said.later), said.cold and ("%.2f"):format(said.cold) or "", megabytes(said.planned),
           megabytes(said.grew), megabytes(least), megabytes(ready.best and ready.said[ready.best].grew),
           facts.flops and ("%.3f"):format(facts.flops * 1e-6) or "", megabytes(facts.bytes) }
  end
end

-- What bounds the rows that miss.
local function bounds(done, peaks)
  for _, ready in ipairs(done) do
    local text = ready.row.name .. " misses"
    if ready.miss and ready.facts then
      local mine, least, what = ready.result.graph[kind], peaks.least(ready.facts.flops, ready.facts.bytes)
      text = ("%s: at the peak its %s would take %s, kiln takes %.1f times that"):format(ready.row.name, what,
        time_text(least), mine / least)
    end
    if ready.miss then say("- " .. (ready.row.bound and text .. "; " .. ready.row.bound or text)) end
  end
end

-- Why others have no time, and what else went not as asked: each reason once.
local function reasons(done)
  local order, names = {}, {}
  local function add(text, name)
    if not names[text] then
      names[text] = {}
      order[#order + 1] = text
    end
    table.insert(names[text], name)
  end
  for _, ready in ipairs(done) do
    local why = ready.said.graph and ready.said.graph.unoptimised
    if why then add("kiln graph, as it was captured: " .. why, ready.row.name) end
    for side, because in pairs(ready.refused) do add(side .. ": " .. because, ready.row.name) end
  end
  for _, text in ipairs(order) do
    local all = #names[text] == #done
    say(("- %s (%s)"):format(text, all and "all rows" or table.concat(names[text], "; ")))
  end
end

-- ---- the whole -------------------------------------------------------------------------------------------------

local rows = {}
for _, row in ipairs(list(options.small)) do
  if options.wanted(row) then rows[#rows + 1] = row end
end

-- What a pass with so many threads needs. The peers, which take longest, are made ready here when it is to wait.
local function ready_pass(threads)
  local pass = { threads = threads, server = start_server(threads) }
  for i, row in ipairs(rows) do
    pass[i] = new_row(row)
    if options.wait then
      prepare(pass[i], pass.server, threads, true)
      io.stderr:write(("peers ready with %d: %s\n"):format(threads, row.name))
    end
  end
  return pass
end

local function run_pass(pass)
  local threads, done, sum = pass.threads, {}, nil
  local peaks = machine.peaks(common.environment(threads, options))
  say(("\n## %d thread%s\n"):format(threads, threads == 1 and "" or "s"))
  say(("Peaks: %s\n"):format(peaks.text))
  local line = times_table(done, peaks)
  for _, ready in ipairs(pass) do
    if not options.wait then prepare(ready, pass.server, threads, true) end
    prepare(ready, pass.server, threads, false)
    sum = line(ready, measure(ready, threads))
  end
  if pass.server then pass.server:close() end
  if sum and sum.rows > 0 then
    say(("\n%.3f on geometric average of %d rows (at most 0.9 is asked for); %d within their limit\n"):format(
      math.exp(sum.log / sum.rows), sum.rows, sum.within))
  else say "" end
  details_table(done)
  say ""
  bounds(done, peaks)
  reasons(done)
end

common.heading "kiln, models"
say(("- peers: %s"):format(peers and peers.text or options.alone and "none, as asked" or
  ("none: `%s` cannot import torch (set KILN_PEER_PYTHON)"):format(common.python)))
say(("- %s, the %s of up to %d turns; ratio: the graph's time over that of the fastest peer"):format(
  options.cpu and "processor time" or "time", options.min and "fastest" or "median", options.rounds))

local passes = {}
if options.wait then
  for i, threads in ipairs(options.threads) do passes[i] = ready_pass(threads) end
  io.stderr:write "all is ready: press Enter\n"
  io.read "l"
end
for i, threads in ipairs(options.threads) do run_pass(passes[i] or ready_pass(threads)) end
machine.report(peers)
if options.write then common.keep(("%s/results/%s-models.md"):format(here, os.date "%Y-%m-%d")) end
