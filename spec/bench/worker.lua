-- kiln's side of the bench, as a process of its own: reads orders on standard input, answers each with a line. Also used by the
-- suite as a function. Orders: `row` with setup, statement and whether inside no_grad, parted by "\2" and with "\1" for line
-- ends, answered `ok` or `no REASON`; `run N`, answered with the seconds that N times took.
local clock = os.getenv "KILN_BENCH_CLOCK" == "cpu" and "os.clock" or "kiln.clock"
local head, tail = "\nlocal clock = " .. clock .. "\nreturn function(n)\nlocal from = clock()\nfor _ = 1, n do\n", "\nend\nreturn clock() - from\nend"

local function compile(setup, statement, no_grad)
  local run = assert(load(setup .. head .. statement .. tail, "=row"))()
  if not no_grad then return run end
  return function(n) return kiln.no_grad(run, n) end
end

if ... == "module" then return compile end

local run
for line in io.lines() do
  local order, rest = line:match "^(%S+) ?(.*)$"
  if order == "row" then
    run = nil
    collectgarbage()
    local setup, statement, no_grad = rest:gsub("\1", "\n"):match "^(.-)\2(.-)\2(.*)$"
    local ok, made = pcall(compile, setup, statement, no_grad == "true")
    if ok then run = made end
    io.write(ok and "ok\n" or ("no %s\n"):format(tostring(made):gsub("\n.*", "")))
  elseif order == "run" then
    local ok, seconds = pcall(run, math.tointeger(tonumber(rest)))
    io.write(ok and ("%.9f\n"):format(seconds) or ("no %s\n"):format(tostring(seconds):gsub("\n.*", "")))
  end
  io.flush()
end
