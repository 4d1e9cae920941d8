-- `./dev bench eager`: every row of rows.lua timed by kiln and, where they are there, by PyTorch and by direct.c, in one run and in
-- turns, so that other work on the machine hits all alike. What it prints is a table in Markdown; README.md tells how to read it.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local list, code, common = require "rows", require "code", require "common"
local say, middle, time_text, quoted = common.say, common.middle, common.time_text, common.quoted

local options = common.options([[
usage: ./dev bench eager [options]
  --rows TEXT     only rows whose group or name holds TEXT (may be given again)
  --threads LIST  thread counts, as in 1,2 (default: 1 and all cores)
  --rounds N      how often each side has its turn (default 21; slow rows less)
  --min           judge by the fastest turn, not the median
  --cpu           processor time, not time on the wall: with one thread, on a machine that does other work too
  --alone         without PyTorch
  --write         keep the table as spec/bench/results/DATE-eager.md]], { "min", "cpu", "alone", "write" }, 21)

-- ---- sides -----------------------------------------------------------------------------------------------------

local torch_version = not options.alone
  and common.output_of(quoted(common.python) .. " -c 'import torch; print(torch.__version__)'") or nil

local function order_of(side, row)
  if side.name == "direct" then return row.direct end
  local setup, statement = code(row, side.name)
  return ("%s\2%s\2%s"):format(setup, statement, tostring(row.no_grad or false)):gsub("\n", "\1")
end

-- False with the reason when this side cannot do the row.
local function prepare(side, row)
  local order = order_of(side, row)
  if not order then return false end
  local answer = side:ask("row " .. order)
  if answer == "ok" then return true end
  return false, answer:gsub("^no ", "")
end

local function start_sides(threads)
  local environment = common.environment(threads, options)
  local sides = { common.start("kiln", ("%s %s/worker.lua"):format(quoted(common.kiln), quoted(here)), environment) }
  if torch_version then
    sides[2] = common.start("torch", ("%s %s/peer.py"):format(quoted(common.python), quoted(here)), environment)
  end
  local direct = common.build .. "/spec/bench-direct"
  if common.exists(direct) then sides[#sides + 1] = common.start("direct", quoted(direct), environment) end
  return sides
end

-- ---- timing ----------------------------------------------------------------------------------------------------

local TURN, MOST = 0.004, 0.4 -- seconds: a turn lasts at least so long; a side spends about so long on a row

-- How many calls fill a turn. The first call may make primitives and is not counted.
local function calls_per_turn(side)
  side:run(1)
  local n = 1
  while true do
    local t = side:run(n)
    if t >= TURN / 2 or n >= 1 << 24 then return math.max(1, math.ceil(n * TURN / math.max(t, TURN / 100))), t / n end
    n = n * 8
  end
end

-- { [side name] = { median =, min = } }, seconds a call.
local function measure(sides, row)
  local able, calls, times, rounds = {}, {}, {}, options.rounds
  for _, side in ipairs(sides) do
    local ok, why = prepare(side, row)
    if ok then
      able[#able + 1] = side
      local each
      calls[side], each = calls_per_turn(side)
      times[side] = {}
      rounds = math.min(rounds, math.max(5, math.floor(MOST / (each * calls[side]))))
    elseif why then
      if side.name == "kiln" then common.die(("bench: %s: %s"):format(row.name, why)) end
      io.stderr:write(("%s: %s: %s\n"):format(row.name, side.name, why))
    end
  end
  for round = 1, rounds do
    for i = 1, #able do
      local side = able[(i + round) % #able + 1]
      table.insert(times[side], side:run(calls[side]) / calls[side])
    end
  end
  local result = {}
  for _, side in ipairs(able) do
    result[side.name] = { median = middle(times[side]), min = times[side][1] }
  end
  return result
end

-- ---- the table -------------------------------------------------------------------------------------------------

-- The time that counts of a side, and kiln's as a share of the fastest other's.
local kind = options.min and "min" or "median"
local function share(result, which)
  local best
  for name, t in pairs(result) do
    if name ~= "kiln" then best = math.min(best or math.huge, t[which]) end
  end
  return best and result.kiln[which] / best
end

local heads = { { "row", 45 }, { "kiln", 9 }, { "PyTorch", 9 }, { "direct", 9 }, { "ratio", 6 }, { "ratio of fastest", 16 },
                { "limit", 6 }, { "rate", 22 } }

local copy_rate = {} -- bytes a second that direct.c copies, by bytes moved

local function rate(row, result)
  local t = result.kiln[kind]
  if row.work then return ("%.1f GFLOP/s"):format(2 * row.work / t * 1e-9) end
  if not row.bytes then return "" end
  local mine = row.bytes / t
  if row.direct and result.direct then copy_rate[row.bytes] = row.bytes / result.direct[kind] end
  local best
  for bytes, there in pairs(copy_rate) do -- the copy whose size is nearest
    if not best or math.abs(math.log(bytes / row.bytes)) < math.abs(math.log(best / row.bytes)) then best = bytes end
  end
  local text = ("%.1f GB/s"):format(mine * 1e-9)
  return best and ("%s, %.2f copy"):format(text, mine / copy_rate[best]) or text
end

local totals = {} -- by group: rows, rows within their limit, logarithms of ratios

local function report(line, row, result)
  local ratio, fastest = share(result, kind), share(result, "min")
  local miss = ratio and row.limit and ratio > row.limit
  line { row.name, time_text(result.kiln[kind]), time_text(result.torch and result.torch[kind]),
         time_text(result.direct and result.direct[kind]), ratio and ("%.2f"):format(ratio),
         fastest and ("%.2f"):format(fastest), row.limit and ("%s%.2f"):format(miss and "> " or "", row.limit), rate(row, result) }
  if not ratio then return end
  local sum = totals[row.group] or { rows = 0, limited = 0, within = 0, log = 0 }
  totals[row.group] = sum
  sum.rows, sum.log = sum.rows + 1, sum.log + math.log(ratio)
  if row.limit then sum.limited, sum.within = sum.limited + 1, sum.within + (miss and 0 or 1) end
end

local function summary(groups)
  say ""
  for _, group in ipairs(groups) do
    local sum = totals[group]
    if sum then
      say(("- %s: %.2f on geometric average of %d rows; %d of %d within their limit"):format(group,
        math.exp(sum.log / sum.rows), sum.rows, sum.within, sum.limited))
    end
  end
end

local function pass(threads)
  local sides, group, groups, line = start_sides(threads), nil, {}, nil
  totals, copy_rate = {}, {}
  say(("\n## %d thread%s"):format(threads, threads == 1 and "" or "s"))
  for _, row in ipairs(list(false)) do
    if options.wanted(row) then
      if row.group ~= group then
        group = row.group
        groups[#groups + 1] = group
        say(("\n### %s\n"):format(group))
        line = common.table(heads)
      end
      report(line, row, measure(sides, row))
    end
  end
  summary(groups)
  for _, side in ipairs(sides) do side:close() end
end

common.heading "kiln, eager"
say "- direct.c calls the same oneDNN"
say(torch_version and ("- PyTorch %s"):format(torch_version)
  or ("- alone: %s"):format(options.alone and "as asked" or ("`%s` cannot import torch (set KILN_PEER_PYTHON)"):format(common.python)))
say(("- %s, the %s of up to %d turns; ratio: kiln's time over that of the fastest peer; limit: the most it may be, `>` when "
  .. "it is more"):format(options.cpu and "processor time" or "time", options.min and "fastest" or "median", options.rounds))
for _, threads in ipairs(options.threads) do pass(threads) end
if options.write then common.keep(("%s/results/%s-eager.md"):format(here, os.date "%Y-%m-%d")) end
