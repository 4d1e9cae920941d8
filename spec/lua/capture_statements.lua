-- Statements at their edges: loops that do not run, steps of zero, integers that overflow, goto, to-be-closed variables,
-- coroutines around captured functions.
local check = require "check"
local compare = require "capture_compare"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

local agree = compare.case

agree("for: no trip", function(x)
  local n = 0
  for i = 1, 0 do n = n + i end
  for i = 3, 1 do x = x * 0 end
  for i = 1, 3, -1 do n = n + 1 end
  for i = 1.5, 1 do n = n + 1 end
  return n, x
end, { "T" })
agree("for: bounds on data, often none", function(x, k)
  local n, last = 0, nil
  for i = 1, x:gt(1):sum():item() do n = n + i last = i end
  for i = k, 2 do x = x + i end
  for i = 2, k, 2 do x = x - i end
  for i = k, -2, -1 do n = n + 1 end
  return n, last, x
end, { "T", "I" })
agree("for: sizes as bounds", function(x)
  local y = x
  for i = 1, #x do y = y + i end
  for i = #x, 1, -1 do y = y * 0.5 + i end
  for i = x:size(1) + 1, x:size(1) do y = y * 0 end
  return y
end, { "T" })
agree("for: floats add up", function(x, f)
  local n, sum = 0, 0
  for v = 0, 1, 0.1 do n = n + 1 sum = sum + v end
  for v = f, f + 1, 0.25 do n = n + 1 sum = sum + v end
  for v = 1, 0.2, -0.25 do n = n + 1 end
  return n, sum
end, { "T", "F" })
agree("for: a float bound of an integer loop", function(x, f)
  local n = 0
  for i = 1, f * 3 do n = n + i end
  for i = 1, 3.7 do n = n + i end
  return n
end, { "T", "F" })
agree("for: the control variable may be changed", function(x)
  local t = {}
  for i = 1, 3 do
    local j = i
    i = i * 10
    t[j] = i
  end
  return t, x
end, { "T" })
agree("for: errors", function(x, k)
  if k == 1 then for i = 1, 2, 0 do x = x + i end end
  if k == 2 then for i = 1.0, 2, 0 do x = x + i end end
  if k == 3 then for i = {}, 2 do x = x + i end end
  if k == 4 then for i = 1, "z" do x = x + i end end
  if k == 5 then for i = 1, 2, x do x = x + i end end
  if k == 6 then for i = 1, nil do x = x + i end end
  return x
end, { "T", "I" }, 60)
agree("for: a step on data", function(x, k)
  local n = 0
  for i = 1, 6, k do
    n = n + i
    if n > 50 then break end
  end
  return n
end, { "T", "I" }, 40)
agree("for: the largest integers", function(x)
  local n, last = 0, 0
  for i = math.maxinteger - 2, math.maxinteger do n = n + 1 last = i end
  for i = math.mininteger + 2, math.mininteger, -1 do n = n + 1 last = i end
  for i = math.maxinteger - 1, math.huge do n = n + 1 end
  for i = 1, -math.huge do n = n + 1 end
  return n, last
end, { "T" })
agree("integers wrap around", function(x, k)
  local m = math.maxinteger
  local s = x:gt(0):sum():item()
  return m + k, m * k, m + s, -(math.mininteger + s), (m + s) // 2, (m + s) % 7, 1 << (k + 60), m >> s, ~k
end, { "T", "I" })
agree("division and modulo", function(x, k)
  local s, f = x:gt(0):sum():item(), x[1]:item()
  return k // (s + 1), -k // (s + 1), k % -(s + 1), f // 0.0, -f // 0, f % math.huge, k / 0, k // 0.0, math.mininteger // -1
end, { "T", "I" })
agree("division by zero is an error on its line", function(x, k)
  -- Lua 5.4.4 names the line of the last instruction that might call: the divisions stand there
  if k > 3 then return x:size(1) // (k - #x // 4 * k) else return k % x:gt(0):sum():item() end
end, { "T", "I" }, 60)
agree("goto", function(x)
  local n = 0
  ::top::
  n = n + 1
  if x:sum() > 2 then x = x * 0.5 goto top end
  if n > 2 then goto done end
  for i = 1, 3 do
    for j = 1, 3 do
      if x[j]:item() > 0.5 then goto continue end
      if x[j]:item() < -1.5 then goto out end
      n = n + 10
    end
    ::continue::
    n = n + 100
  end
  ::out::
  n = n + 1000
  ::done::
  return n, x
end, { "T" }, { finite = true })
agree("goto out of nested functions' loops", function(x)
  local function first(y)
    local i = 0
    ::again::
    i = i + 1
    if i > 4 then return nil end
    if y[i]:item() <= 0 then goto again end
    return i
  end
  return first(x), first(-x)
end, { "T" })
agree("to-be-closed variables that are nil or false", function(x)
  local a <close> = nil
  for i = 1, 2 do
    local b <close> = false
    x = x + i
  end
  do
    local c <close> = x:sum() > 1e9 and false
    x = x * 2
  end
  return x, a
end, { "T" })
agree("constants", function(x)
  local k <const>, s <const> = 3, "x"
  if x:sum() > 0 then return x * k, s:rep(k) end
  return x, s .. k, #s, s:upper(), ("%d"):format(k), s == "x"
end, { "T" })
agree("select, pack, unpack", function(x, ...)
  local n = select("#", ...)
  local a, b = select(2, ...)
  local t = table.pack(x, ...)
  return n, a, b, t.n, (select(-1, ...)), table.unpack(t, 2, t.n)
end, { "T", "I", "F", "B" })
agree("repeat sees its locals", function(x)
  local n = 0
  repeat
    local s = x:sum():item()
    x = x * 0.5
    n = n + 1
  until s < 0.5 or n > 6
  return n, x
end, { "T" })
agree("comparisons of numbers across kinds", function(x, k)
  local f = x[1]:item()
  return k < f, k == k + 0.0, f <= k, 2 ^ 53 == 2 ^ 53 + k, math.maxinteger + 0.0 == math.maxinteger, k ~= k
end, { "T", "I" })
agree("number kinds of results", function(x, k)
  local f = x:sum():item()
  return k + 1, k / 1, k * 1.0, k ^ 2, k // 1.0, math.floor(f), math.max(k, f), math.abs(-k), f > 0 and k or f
end, { "T", "I" })
agree("long conditions", function(x, a, b)
  local s = x:sum():item()
  return (s > 0 and a or b) and not (a and s < 1) or (b and s > -1 and a) == true
end, { "T", "B", "B" })

test("captured functions run in coroutines", function()
  local g = kiln.script(function(x, k)
    for i = 1, k do x = x * 2 end
    return x, k
  end)
  local co = coroutine.wrap(function(x)
    for k = 1, 3 do x = coroutine.yield((g(x, k))) end
    return "done"
  end)
  equal(co(T { 1.0 }):totable(), { 2.0 })
  equal(co(T { 1.0 }):totable(), { 4.0 })
  equal(co(T { -1.0 }):totable(), { -8.0 })
  equal(co(T { 1.0 }), "done")
  -- captured for the first time inside one, and raising there
  local h = coroutine.wrap(function(x)
    local ok, why = pcall(kiln.script(function(y)
      if y:sum() > 0 then error "positive" end
      return y
    end), x)
    coroutine.yield(ok, why)
  end)
  local ok, why = h(T { 1.0 })
  equal(ok, false)
  truth(why:find("capture_statements.lua:%d+: positive"), why)
end)
