-- `./dev bench`: every row of rows.lua timed by kiln and, where they are there, by PyTorch and by direct.c, in one run and in
-- turns, so that other work on the machine hits all alike. What it prints is a table in Markdown; README.md tells how to read it.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local list, code = require "rows", require "code"

local usage = [[
usage: ./dev bench [options]
  --rows TEXT     only rows whose group or name holds TEXT (may be given again)
  --threads LIST  thread counts, as in 1,2 (default: 1 and all cores)
  --rounds N      how often each side has its turn (default 21; slow rows less)
  --min           judge by the fastest turn, not the median
  --cpu           processor time, not time on the wall: with one thread, on a machine that does other work too
  --alone         without PyTorch
  --write         keep the table as spec/bench/results/DATE-eager.md]]

local function die(text)
  io.stderr:write(text, "\n")
  os.exit(2)
end

local function output_of(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local text = pipe:read "a"
  return pipe:close() and text:gsub("%s+$", "") or nil
end

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- ---- options ---------------------------------------------------------------------------------------------------

local options = { rows = {}, rounds = 21 }
do
  local i = 1
  local function value()
    i = i + 1
    return arg[i] or die(("bench: %s needs a value\n%s"):format(arg[i - 1], usage))
  end
  while arg[i] do
    local name = arg[i]
    if name == "--help" then
      print(usage)
      os.exit(true)
    elseif name == "--rows" then table.insert(options.rows, value())
    elseif name == "--threads" then options.threads = value()
    elseif name == "--rounds" then options.rounds = math.tointeger(tonumber(value())) or die(usage)
    elseif name == "--min" or name == "--cpu" or name == "--alone" or name == "--write" then options[name:sub(3)] = true
    else die(("bench: there is no option %s\n%s"):format(name, usage)) end
    i = i + 1
  end
end

local cores = math.tointeger(tonumber(output_of "nproc" or "1")) or 1
local thread_counts = {}
for n in (options.threads or (cores > 1 and "1," .. cores or "1")):gmatch "%d+" do
  thread_counts[#thread_counts + 1] = math.tointeger(tonumber(n))
end

local function wanted(row)
  for _, text in ipairs(options.rows) do
    if row.group:find(text, 1, true) or row.name:find(text, 1, true) then return true end
  end
  return #options.rows == 0
end

-- ---- sides: processes that take orders -------------------------------------------------------------------------

local kiln_program = arg[-1]
local build = kiln_program:match "^(.*)/[^/]*$" or "."
local python = os.getenv "KILN_PEER_PYTHON" or "python3"
local torch_version = not options.alone and output_of(quoted(python) .. " -c 'import torch; print(torch.__version__)'") or nil

local function exists(path)
  local file = io.open(path)
  return file and file:close() or false
end

local Side = {}
Side.__index = Side

local function start(name, command, threads)
  local fifo = os.tmpname()
  os.remove(fifo)
  assert(os.execute("mkfifo " .. quoted(fifo)))
  local env = ("KILN_NUM_THREADS=%d OMP_NUM_THREADS=%d MKL_NUM_THREADS=%d"):format(threads, threads, threads)
  if options.cpu then env = env .. " KILN_BENCH_CLOCK=cpu" end
  local side = setmetatable({ name = name }, Side)
  side.to = io.popen(("env %s %s >%s"):format(env, command, quoted(fifo)), "w")
  side.from = assert(io.open(fifo))
  os.remove(fifo)
  return side
end

function Side:ask(order)
  self.to:write(order, "\n")
  self.to:flush()
  return self.from:read "l" or die(("bench: %s ended while at work on: %s"):format(self.name, order))
end

function Side:close()
  self.to:close()
  self.from:close()
end

function Side:order(row)
  if self.name == "direct" then return row.direct end
  local setup, statement = code(row, self.name)
  return ("%s\2%s\2%s"):format(setup, statement, tostring(row.no_grad or false)):gsub("\n", "\1")
end

-- False with the reason when this side cannot do the row.
function Side:prepare(row)
  local order = self:order(row)
  if not order then return false end
  local answer = self:ask("row " .. order)
  if answer == "ok" then return true end
  return false, answer:gsub("^no ", "")
end

function Side:run(n)
  local answer = self:ask("run " .. n)
  return tonumber(answer) or die(("bench: %s: %s"):format(self.name, answer))
end

local function start_sides(threads)
  local sides = { start("kiln", ("%s %s/worker.lua"):format(quoted(kiln_program), quoted(here)), threads) }
  if torch_version then sides[2] = start("torch", ("%s %s/peer.py"):format(quoted(python), quoted(here)), threads) end
  local direct = build .. "/spec/bench-direct"
  if exists(direct) then sides[#sides + 1] = start("direct", quoted(direct), threads) end
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

local function middle(values)
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[n // 2 + 1] or (values[n // 2] + values[n // 2 + 1]) / 2
end

-- { [side name] = { median =, min = } }, seconds a call.
local function measure(sides, row)
  local able, calls, times, rounds = {}, {}, {}, options.rounds
  for _, side in ipairs(sides) do
    local ok, why = side:prepare(row)
    if ok then
      able[#able + 1] = side
      local each
      calls[side], each = calls_per_turn(side)
      times[side] = {}
      rounds = math.min(rounds, math.max(5, math.floor(MOST / (each * calls[side]))))
    elseif why then
      if side.name == "kiln" then die(("bench: %s: %s"):format(row.name, why)) end
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

local function time_text(seconds)
  if not seconds then return "" end
  if seconds < 1e-6 then return ("%.0f ns"):format(seconds * 1e9) end
  if seconds < 1e-3 then return ("%.2f us"):format(seconds * 1e6) end
  return ("%.2f ms"):format(seconds * 1e3)
end

-- The time that counts of a side, and kiln's as a share of the fastest other's.
local kind = options.min and "min" or "median"
local function share(result, which)
  local best
  for name, t in pairs(result) do
    if name ~= "kiln" then best = math.min(best or math.huge, t[which]) end
  end
  return best and result.kiln[which] / best
end

local columns = { "row", "kiln", "PyTorch", "direct", "ratio", "ratio of fastest", "limit", "rate" }
local widths = { 45, 9, 9, 9, 6, 16, 6, 22 }
local out = {}

local function say(text)
  print(text)
  out[#out + 1] = text
end

local function line(cells)
  for i, width in ipairs(widths) do
    local cell = cells[i] or ""
    local gap = (" "):rep(width - #cell)
    cells[i] = i == 1 and cell .. gap or gap .. cell
  end
  say("| " .. table.concat(cells, " | ") .. " |")
end

local function rule()
  local cells = {}
  for i, width in ipairs(widths) do cells[i] = ("-"):rep(width - (i == 1 and 0 or 1)) .. (i == 1 and "" or ":") end
  say("| " .. table.concat(cells, " | ") .. " |")
end

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

local function report(row, result)
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
  local sides, group, groups = start_sides(threads), nil, {}
  totals, copy_rate = {}, {}
  say(("\n## %d thread%s"):format(threads, threads == 1 and "" or "s"))
  for _, row in ipairs(list(false)) do
    if wanted(row) then
      if row.group ~= group then
        group = row.group
        groups[#groups + 1] = group
        say(("\n### %s\n"):format(group))
        line { table.unpack(columns) }
        rule()
      end
      report(row, measure(sides, row))
    end
  end
  summary(groups)
  for _, side in ipairs(sides) do side:close() end
end

-- ---- what ran where --------------------------------------------------------------------------------------------

local function heading()
  local onednn = "none"
  for _, backend in ipairs(kiln.backends()) do
    if backend.name == "onednn" then onednn = backend.available and backend.version or "none" end
  end
  local model = output_of "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1"
  if not model or model == "" then model = "unknown processor" end
  say(("# kiln, eager, %s"):format(os.date "%Y-%m-%d %H:%M"))
  say ""
  say(("- kiln %s, oneDNN %s (direct.c calls the same)"):format(kiln.version, onednn))
  say(torch_version and ("- PyTorch %s"):format(torch_version)
    or ("- alone: %s"):format(options.alone and "as asked" or ("`%s` cannot import torch (set KILN_PEER_PYTHON)"):format(python)))
  say(("- %s, %d cores; load before: %s"):format(model, cores, output_of "cut -d' ' -f1 /proc/loadavg" or "unknown"))
  say(("- %s, the %s of up to %d turns; ratio: kiln's time over that of the fastest peer; limit: the most it may be, `>` when "
    .. "it is more"):format(options.cpu and "processor time" or "time", options.min and "fastest" or "median", options.rounds))
end

heading()
for _, threads in ipairs(thread_counts) do pass(threads) end

if options.write then
  local path = ("%s/results/%s-eager.md"):format(here, os.date "%Y-%m-%d")
  local file = assert(io.open(path, "w"))
  file:write(table.concat(out, "\n"), "\n")
  file:close()
  io.stderr:write("written: ", path, "\n")
end
