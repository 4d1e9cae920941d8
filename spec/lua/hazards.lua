-- What is hazardous in Lua for capture, a case for each row of the list that its design began with: it does what eager
-- code does on every path, or is refused with the line, the reason and what to write instead.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local function shown(v)
  if kiln.is_tensor(v) then return v.dtype .. tostring(v) end
  if type(v) == "table" then
    local keys, parts = {}, {}
    for k in pairs(v) do keys[#keys + 1] = k end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, k in ipairs(keys) do parts[#parts + 1] = tostring(k) .. "=" .. shown(v[k]) end
    return "{" .. table.concat(parts, ",") .. "}"
  end
  return math.type(v) and math.type(v) .. tostring(v) or tostring(v)
end

local function outcome(f, ...)
  kiln.manual_seed(5)
  local got = table.pack(pcall(f, ...))
  for i = 1, got.n do got[i] = shown(got[i]) end
  return table.concat(got, " ", 1, got.n) .. " rng " .. kiln.get_rng_state().offset
end

local inputs = {
  function() return kiln.tensor { 1.0, 2, 3 } end,
  function() return kiln.tensor { -1.0, 0, 0.5 } end,
  function() return kiln.tensor { 0.0, 0, 0 } end,
  function() return kiln.tensor { 0 / 0, 1, -5 } end,
}

-- make() gives f afresh, with its outside world: it is called on all inputs, eager and captured, one after the other.
local function same(name, make)
  test(name, function()
    local f, again = make(), make()
    local g = kiln.script(again)
    for i, x in ipairs(inputs) do
      local want, got = outcome(f, x()), outcome(g, x())
      if want ~= got then error(("input %d: %s captured, %s eager"):format(i, got, want)) end
    end
  end)
end

local function refused(name, f, ...)
  local parts = { ... }
  test(name, function()
    check.raises(function() kiln.script(f)(kiln.ones(3)) end, "hazards.lua:", table.unpack(parts))
  end)
end

same("table write in a forked branch", function()
  return function(x)
    local t = { n = 1 }
    if x:sum() > 0 then t.h = x * 2 t.n = 2 else t.k = x end
    return t.h or x, t.n, t
  end
end)

same("upvalue write in a branch and a loop, through a nested closure", function()
  return function(x)
    local n, h = 0, x
    local function up(by) return function() n = n + by h = h * 0.5 end end
    local two = up(2)
    if x:sum() > 1 then two() end
    while h:sum() > 1 do up(1)() end
    return n, h
  end
end)

Count = 0
same("outside upvalue, global and field written", function()
  local calls, bn = 0, { mean = kiln.zeros(3), n = 0 }
  Count = 0
  return function(x)
    calls = calls + 1
    bn.n = bn.n + 2
    bn.mean = bn.mean * 0.9 + x * 0.1
    if x:sum() > 0 then calls = calls + 10 end
    return bn.mean, calls, bn.n
  end
end)
test("a global written", function()
  Count = 0
  local g = kiln.script(function(x) Count = Count + 1 return x * Count end)
  for i = 1, 4 do equal(g(kiln.ones(1)):item(), i + 0.0) end
  equal(Count, 4)
end)

same("outside slot that is nil at capture and set inside", function()
  local memo = {}
  return function(x)
    if not memo.h then memo.h = x * 2 end
    return memo.h + x
  end
end)

test("print, io.write", function()
  local path = os.tmpname()
  check.write(path, [[
    local f = function(x) print("sum", x:sum():item(), 1, 2.5) io.write(x:sum():item(), "\n") return x end
    if arg[1] then f = kiln.script(f) end
    f(kiln.ones(2)) f(kiln.ones(3))]])
  local function run(how)
    local pipe = assert(io.popen(("'%s' '%s' %s"):format(check.program(), path, how)))
    local text = pipe:read "a"
    pipe:close()
    return text
  end
  local want = run ""
  truth(#want > 20)
  equal(run "captured", want)
  os.remove(path)
end)

same("random draws", function()
  return function(x)
    if x:sum() > 0 then x = x + kiln.rand(3) end
    return x + kiln.randn(3)
  end
end)
refused("math.random", function(x) return x * math.random() end, "math.random", "use kiln.rand")

same("in-place ops", function()
  return function(x)
    local y, z = x * 2, x
    local v = y[{ { 1, 2 } }]
    if x:sum() > 0 then v:add_(5) z = y end
    y[3] = 7
    return y, v, z
  end
end)

same("different tables at a join", function()
  local out = { a = 1 }
  return function(x)
    local t = out
    if x:sum() > 0 then t = { a = x } end
    local u = x:amax() > 1 and { b = x } or { b = 2 }
    return t.a, u.b, t == out
  end
end)

same("nil or tensor, number or tensor, string or string at a join", function()
  return function(x)
    local a, b, s
    if x:sum() > 0 then a, b, s = x, 1, "up" else b, s = x * 3, "down" end
    local loss = 0
    if x:amax() > 0 then loss = loss + x:sum() end
    if s == "up" then b = b + 1 end
    return a, b, s, loss
  end
end)

same("the number of results differs by path", function()
  return function(x)
    if x:sum() > 0 then return x, 1, 2 end
    return x
  end
end)

same("integers and floats", function()
  return function(x)
    local n = x:gt(0):sum():item()
    local k = n
    if x:sum() > 0 then k = n + 0.5 end
    return n // 2, n / 2, k, k * 2, n == 2.0, n % 2
  end
end)

same("an error of an op whose result nobody reads", function()
  return function(x)
    local n = x:gt(0):sum():item() local _ = 7 % n, x[n + 1]
    return x
  end
end)

same("x == 0", function()
  return function(x)
    if x == 0 then return 1 end
    return x ~= 0, x
  end
end)

same("if x, x and y", function()
  return function(x)
    local m = x:gt(0)
    if m then x = x + 1 end
    return x and 2 or 3, not x, m and x
  end
end)

same("tensor == tensor", function()
  return function(x)
    local a, b = x, x + 1
    if x:sum() > 0 then b = a end
    return a == b, b == x, x == x, a ~= b
  end
end)

same("a key of data: one of several constants, or a number", function()
  local names, list = { up = 10, down = 20 }, { kiln.ones(3), kiln.ones(3) * 2, kiln.ones(3) * 3 }
  return function(x)
    local k = x:sum() > 0 and "up" or "down"
    local n = x:gt(0):sum():item()
    return names[k], list[n], x
  end
end)
refused("a tensor as a key", function(x) local t = {} t[x] = 1 return t[x] end, "a tensor is used as a table key")

same("a list that grows in a loop on data, then #", function()
  return function(x)
    local out, h, n = {}, x, 0
    while h:sum() > 0.5 and n < 8 do
      h, n = h * 0.5, n + 1
      out[#out + 1] = h
    end
    local count = #out
    if count > 0 then return kiln.stack(out), count end
    return x, count
  end
end)

same("the order of pairs", function()
  local t = { c = 3, a = 1, b = 2, [1] = 4, [2] = 5 }
  return function(x)
    local keys, sum = {}, x
    for k, v in pairs(t) do keys[#keys + 1] = tostring(k) sum = sum * 1.25 + v end
    return table.concat(keys, " "), sum
  end
end)

refused("# with a hole", function(x)
  local t = { x, nil, x }
  t[5] = x
  return #t
end, "the length of a table with holes is not defined by Lua")

same("error and assert on data", function()
  return function(x)
    assert(x:amax() < 2.5, "too large")
    if x:sum() < -1 then error("negative") end
    return x
  end
end)

same("pcall and xpcall", function()
  return function(x)
    local ok, why = pcall(function()
      if x:sum() > 0 then error("here") end
      return x * 2
    end)
    local _, said = xpcall(function() error({}, 0) end, function() return "handled" end)
    return ok, why, said
  end
end)

refused("a coroutine inside", function(x)
  local c = coroutine.wrap(function() coroutine.yield(x) end)
  return c()
end, "coroutine", "write a loop")
test("a captured function called in a coroutine", function()
  local g = kiln.script(function(x) if x:sum() > 0 then return x * 2 end return x end)
  local c = coroutine.wrap(function(x)
    while true do x = coroutine.yield(g(x)) end
  end)
  equal(c(kiln.ones(1)):item(), 2.0)
  equal(c(-kiln.ones(1)):item(), -1.0)
end)

same("classes", function()
  local V = {}
  V.__index = function(t, k) return k == "half" and V.wrap(t.x * 0.5) or rawget(V, k) end
  function V.wrap(x) return setmetatable({ x = x }, V) end
  V.__add = function(a, b) return V.wrap(a.x + b.x) end
  V.__unm = function(a) return V.wrap(-a.x) end
  V.__lt = function(a, b) return a.x:sum() < b.x:sum() end
  V.__le = function(a, b) return not (b.x:sum() < a.x:sum()) end
  V.__eq = function(a, b) return a.x:sum():item() == b.x:sum():item() end
  V.__len = function() return 3 end
  V.__call = function(self, y) return self.x + y end
  V.__newindex = function(t, k, v) rawset(t, k, v) rawset(t, "set", k) end
  return function(x)
    local a, b = V.wrap(x), V.wrap(x + 1)
    local c = a + -b
    c.extra = x
    local set, extra = c.set, c.extra
    if a < b then c = c + a end
    return c(x), #a, a <= b, a == b, a.half.x, set, extra
  end
end)
refused("__close that matters", function(x)
  local guard <close> = setmetatable({}, { __close = function() end })
  return x
end, "clos")
same("__concat", function()
  local t = setmetatable({}, {
    __concat = function(a, b) return (type(a) == "table" and "t" or a) .. (type(b) == "table" and "t" or b) end,
  })
  return function(x) return x, t .. "x" end
end)
same("a field on some path only, and __index", function()
  return function(x)
    local t = setmetatable({}, { __index = function() return 1 end })
    if x:sum() > 0 then t.n = 2 end
    return t.n, x
  end
end)
refused("__pairs", function(x)
  local t = setmetatable({}, { __pairs = function() return next, {}, nil end })
  for _ in pairs(t) do x = x + 1 end
  return x
end, "pairs() on a table with __pairs cannot be captured")

test("globals and constants changed later", function()
  Scale = 2
  local f = function(x) return x * Scale end
  local g = kiln.script(f)
  for _, s in ipairs { 2, 3, 2.5, 3 } do
    Scale = s
    equal(g(kiln.ones(1)):item(), f(kiln.ones(1)):item())
  end
  local mode = { fast = true }
  local h = kiln.script(function(x) if mode.fast then return x end return -x end)
  equal(h(kiln.ones(1)):item(), 1.0)
  mode.fast = false
  equal(h(kiln.ones(1)):item(), -1.0)
  truth(#h:guards() > 0)
end)

test("numbers as arguments", function()
  local g = kiln.script(function(x, n, dim) return (x * n):sum(dim) end)
  equal(g(kiln.ones(2, 3), 2, 1):totable(), { 4.0, 4.0, 4.0 })
  equal(g(kiln.ones(2, 3), 0.5, 1):totable(), { 1.0, 1.0, 1.0 })
  equal(g(kiln.ones(2, 3), 3, 2):totable(), { 9.0, 9.0 })
end)

same("strings chosen by data", function()
  return function(x)
    local s = x:sum() > 0 and "a" or "b"
    return s .. "c", #s, s == "a" and x or -x
  end
end)
refused("the length of a string of data", function(x) return #("n" .. x:sum():item()) end, "a string depends on tensor data, and may only be printed, raised or returned; return the number")

same("goto, continue, break out of two loops", function()
  return function(x)
    local n, h = 0, x
    for i = 1, 4 do
      for j = 1, 3 do
        if (h * j):sum() > 12 then goto done end
        if j == 2 then goto continue end
        n = n + 1
        h = h + 1
        ::continue::
      end
      if i == 3 then break end
    end
    ::done::
    return n, h
  end
end)
same("irreducible flow", function()
  local start = true
  return function(x)
    local n = 0
    if start then goto middle end
    ::top::
    n = n + 1
    x = x + 1
    ::middle::
    n = n + 10
    if x:sum() > 2 then x = x * 0.5 end
    if n < 30 then goto top end
    return n, x
  end
end)
refused("irreducible flow entered by data", function(x)
  local n = 0
  if x:sum() > 0 then goto middle end
  ::top::
  n = n + 1
  x = x + 1
  ::middle::
  n = n + 10
  if n < 30 then goto top end
  return n, x
end, "branches on tensor data are nested too deeply while unrolling")

same("a variable to be closed that is nil or false", function()
  return function(x)
    local a <close> = nil
    local b <close> = false
    return x, a, b
  end
end)

refused("debug", function(x) return debug.getinfo(1), x end, "debug.getinfo", "look outside")

same("recursion on known numbers", function()
  local function power(x, n) if n == 0 then return x end return power(x * 0.5, n - 1) end
  return function(x) return power(x, 6) end
end)
refused("recursion on data", function(x)
  local function halve(t) if t:sum() > 1 then return halve(t * 0.5) end return t end
  return halve(x)
end, "recursion that depends on tensor data cannot be captured; write it as a loop")

test("unrolling has a limit", function()
  local f = kiln.script(function(x)
    for i = 1, 30000 do
      local k = #tostring(i)
      x = (((x * k + k) * k + k) * k + k) * k + k
    end
    return x
  end)
  local line = debug.getinfo(1, "l").currentline - 6
  check.raises(function() f(kiln.ones(1)) end, "hazards.lua:",
    ("more than 200000: the loop at line %d is unrolled, 30000 trips; let it go on a condition"):format(line))
end)

refused("a closure made inside and returned", function(x) return function() return x end end,
  "result 1 is a function, which cannot be a result of a graph; return the values it needs, and make it outside")
refused("a closure made inside and stored", function(x) Made = function() return x end return x end,
  "writes 'Made', which exists outside and is now nil: only numbers, booleans and tensors can be put there; return the new value instead")

refused("a loop that never ends", function(x)
  while true do x = x * 0.5 end
end, "this loop never ends")

test("huge tables outside", function()
  local big = {}
  for i = 1, 200000 do big[i] = i end
  local g = kiln.script(function(x) return x * big[77] end)
  local before = kiln.clock()
  equal(g(kiln.ones(1)):item(), 77.0)
  truth(kiln.clock() - before < 1, "only what is read is looked at")
  equal(#g:guards() < 10, true)
end)
