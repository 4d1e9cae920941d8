-- What the drivers of the bench share: options, processes that take orders, numbers and tables as text, the machine. Not what
-- is timed, nor how (eager.lua, models.lua).
local common = {}

function common.die(text)
  io.stderr:write(text, "\n")
  os.exit(2)
end

function common.output_of(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local text = pipe:read "a"
  return pipe:close() and text:gsub("%s+$", "") or nil
end

function common.quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

function common.exists(path)
  local file = io.open(path)
  return file and file:close() or false
end

common.cores = math.tointeger(tonumber(common.output_of "nproc" or "1")) or 1
common.kiln = arg[-1]
common.build = common.kiln:match "^(.*)/[^/]*$" or "."
common.python = os.getenv "KILN_PEER_PYTHON" or "python3"

-- ---- options ---------------------------------------------------------------------------------------------------

--- Options of the command line; `flags` are those without a value. `rows` is a list, `without` a set, `rounds` a number, `threads` a list of
--- numbers: 1 and all cores unless told.
function common.options(usage, flags, rounds)
  local options, is_flag, i = { rows = {}, without = {}, rounds = rounds, threads = {} }, {}, 1
  for _, name in ipairs(flags) do is_flag["--" .. name] = name end
  local function value()
    i = i + 1
    return arg[i] or common.die(("bench: %s needs a value\n%s"):format(arg[i - 1], usage))
  end
  while arg[i] do
    local name = arg[i]
    if name == "--help" then
      print(usage)
      os.exit(true)
    elseif name == "--rows" then table.insert(options.rows, value())
    elseif name == "--without" then options.without[value()] = true
    elseif name == "--rounds" then options.rounds = math.tointeger(tonumber(value())) or common.die(usage)
    elseif name == "--threads" then
      for n in value():gmatch "%d+" do table.insert(options.threads, math.tointeger(tonumber(n))) end
    elseif is_flag[name] then options[is_flag[name]] = true
    else common.die(("bench: there is no option %s\n%s"):format(name, usage)) end
    i = i + 1
  end
  if #options.threads == 0 then options.threads = common.cores > 1 and { 1, common.cores } or { 1 } end
  --- Is a row asked for?
  function options.wanted(row)
    for _, text in ipairs(options.rows) do
      if row.group:find(text, 1, true) or row.name:find(text, 1, true) then return true end
    end
    return #options.rows == 0
  end
  return options
end

-- ---- processes -------------------------------------------------------------------------------------------------

local Process = {}
Process.__index = Process

local function make_fifo()
  local fifo = os.tmpname()
  os.remove(fifo)
  assert(os.execute("mkfifo " .. common.quoted(fifo)))
  return fifo
end

--- Variables of the environment for so many threads.
function common.environment(threads, options)
  local text = ("KILN_NUM_THREADS=%d OMP_NUM_THREADS=%d MKL_NUM_THREADS=%d"):format(threads, threads, threads)
  return options.cpu and text .. " KILN_BENCH_CLOCK=cpu" or text
end

--- A process that reads orders and answers each with a line.
function common.start(name, command, environment)
  local fifo = make_fifo()
  local process = setmetatable({ name = name }, Process)
  process.to = io.popen(("env %s %s >%s"):format(environment, command, common.quoted(fifo)), "w")
  process.from = assert(io.open(fifo))
  os.remove(fifo)
  return process
end

--- The same, forked by a process that understands `open NAME FIFO FIFO`.
function common.fork(server, name)
  local to, from = make_fifo(), make_fifo()
  server:ask(("open %s %s %s"):format(name, to, from))
  local process = setmetatable({ name = name }, Process)
  process.to = assert(io.open(to, "w"))
  process.from = assert(io.open(from))
  os.remove(to)
  os.remove(from)
  return process
end

--- The answer, or nil when the process has ended.
function Process:try(order)
  self.to:write(order, "\n")
  self.to:flush()
  return self.from:read "l"
end

function Process:ask(order)
  return self:try(order) or common.die(("bench: %s ended while at work on: %s"):format(self.name, order))
end

function Process:run(n)
  local answer = self:ask("run " .. n)
  return tonumber(answer) or common.die(("bench: %s: %s"):format(self.name, answer))
end

function Process:close()
  self.to:close()
  self.from:close()
end

-- ---- numbers and tables ----------------------------------------------------------------------------------------

function common.middle(values)
  table.sort(values)
  local n = #values
  return n % 2 == 1 and values[n // 2 + 1] or (values[n // 2] + values[n // 2 + 1]) / 2
end

function common.time_text(seconds)
  if not seconds then return "" end
  if seconds < 1e-6 then return ("%.0f ns"):format(seconds * 1e9) end
  if seconds < 1e-3 then return ("%.2f us"):format(seconds * 1e6) end
  return ("%.2f ms"):format(seconds * 1e3)
end

local out = {}

--- Prints a line and remembers it for `keep`.
function common.say(text)
  print(text)
  io.flush()
  out[#out + 1] = text
end

--- A table in Markdown: heads { { "row", 45 }, … }; gives what prints a line of cells. The first column lies left.
function common.table(heads)
  local function line(cell)
    local cells = {}
    for i, head in ipairs(heads) do
      local text = cell(i, head) or ""
      local gap = (" "):rep(head[2] - utf8.len(text))
      cells[i] = i == 1 and text .. gap or gap .. text
    end
    common.say("| " .. table.concat(cells, " | ") .. " |")
  end
  line(function(_, head) return head[1] end)
  line(function(i, head) return i == 1 and ("-"):rep(head[2]) or ("-"):rep(head[2] - 1) .. ":" end)
  return function(cells) line(function(i) return cells[i] end) end
end

--- What ran where: the lines that every result begins with.
function common.heading(title)
  local onednn = "none"
  for _, backend in ipairs(kiln.backends()) do
    if backend.name == "onednn" then onednn = backend.available and backend.version or "none" end
  end
  local model = common.output_of "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1"
  if not model or model == "" then model = "unknown processor" end
  common.say(("# %s, %s"):format(title, os.date "%Y-%m-%d %H:%M"))
  common.say ""
  common.say(("- kiln %s, oneDNN %s"):format(kiln.version, onednn))
  common.say(("- %s, %d cores; load before: %s"):format(model, common.cores,
    common.output_of "cut -d' ' -f1 /proc/loadavg" or "unknown"))
end

--- What was printed, as a file.
function common.keep(path)
  local file = assert(io.open(path, "w"))
  file:write(table.concat(out, "\n"), "\n")
  file:close()
  io.stderr:write("written: ", path, "\n")
end

return common
