-- Damaged bytecode: a dump with bits of its instructions changed is loaded by Lua and given to capture, which never runs it in
-- Lua's own machine. Whatever is in it, capture refuses it or makes some graph of it; it does not crash, hang or read what is
-- not there. Counts and sizes are left alone: Lua's own loader does not survive those (spec/test_bytecode.c damages them).
local check = require "check"

local victims = {
  function(x) local s = x for i = 1, 3 do s = s + i end if s:sum() > 1 then return s, 2 end return x * 2 end,
  function(x) local t = { h = x, n = 0, x } while t.h:sum() > 1 and t.n < 3 do t.h = t.h * 0.5 t.n = t.n + 1 end return t.h, #t end,
  function(x, ...) local function f(a, ...) return a + 1, ... end local a, b = f(x, ...) return a, b == nil, select("#", ...) end,
  function(x) local up = 0 local function g() up = up + 1 return up end for _, v in ipairs { x, x } do x = x + v * g() end return x end,
}

local state = 7
local function random(n)
  state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
  return (state >> 33) % n + 1
end

-- Where the instructions of a stripped dump are: after header, number of upvalues, source, two lines, three bytes, a count.
local function instructions(dump)
  local at = 33
  local function number()
    local n = 0
    repeat
      local byte = dump:byte(at)
      n, at = n << 7 | (byte & 0x7f), at + 1
    until byte & 0x80 ~= 0
    return n
  end
  local name = number()
  at = at + math.max(name - 1, 0)
  number()
  number()
  at = at + 3
  local count = number()
  return at, 4 * count
end

check.test("capture of damaged functions", function()
  local rounds = tonumber(os.getenv "KILN_DAMAGE" or 400)
  local loaded, captured = 0, 0
  for round = 1, rounds do
    local dump = string.dump(victims[(round - 1) % #victims + 1], true)
    local start, size = instructions(dump)
    for _ = 1, random(3) do
      local at = start + random(size) - 1
      local byte = string.char(dump:byte(at) ~ (1 << (random(8) - 1)))
      dump = dump:sub(1, at - 1) .. byte .. dump:sub(at + 1)
    end
    local f = load(dump, "damaged", "b")
    if f then
      loaded = loaded + 1
      for i = 1, 20 do
        local name = debug.getupvalue(f, i)
        if not name then break end
        if i == 1 then debug.setupvalue(f, i, _ENV) end
      end
      local ok, why = pcall(kiln.script, f, { inputs = { kiln.spec("float32", { 2 }) } }) -- running it might never end
      if ok then captured = captured + 1 end
      check.truth(ok or type(why) == "string", "an error that is no text")
    end
  end
  check.truth(loaded == rounds and captured > rounds // 20, ("%d loaded, %d captured"):format(loaded, captured))
end)
