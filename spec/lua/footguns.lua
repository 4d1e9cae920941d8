-- What users of other capture systems were hurt by, one test each. What a captured function does is what the eager one does,
-- or it is refused with a sentence; it is never something else without a word. Each test says which hazard it is.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local T = kiln.tensor

local function same(g, f, ...)
  local want, got = table.pack(f(...)), table.pack(g(...))
  equal(got.n, want.n)
  for i = 1, want.n do
    if kiln.is_tensor(want[i]) then equal(got[i]:totable(), want[i]:totable()) else equal(got[i], want[i]) end
  end
end

-- ---- silent specialisation: what was true while tracing is kept for ever ----

test("a branch on data goes both ways after capture", function()
  local function f(x) if x:sum() > 0 then return x * 2 end return x - 1 end
  local g = kiln.script(f, { cache_limit = 1 })
  same(g, f, T { 1.0, 2 })
  same(g, f, T { -1.0, -2 })
end)

test("a loop bound from data is not the one of the first call", function()
  local function f(x) local s = x * 0 for i = 1, x:gt(0):sum():item() do s = s + i end return s end
  local g = kiln.script(f, { cache_limit = 1 })
  same(g, f, T { 1.0, -1, 1 })
  same(g, f, T { 1.0, 1, 1 })
  same(g, f, T { -1.0, -1, -1 })
end)

test("a number argument is not frozen", function()
  local function f(x, k) if k > 1 then return x * k end return x + k end
  local g = kiln.script(f, { cache_limit = 1 })
  for _, k in ipairs { 2, 1, 0, 7 } do same(g, f, T { 1.0, 2 }, k) end
end)

test("a size is not frozen, in arithmetic, in loops and as an argument of ops", function()
  local function f(x)
    local n = x:size(1)
    local s = 0
    for i = 1, n do s = s + x[i] * i end
    return s / n, x:reshape(n // 2, 2):sum(1), n > 4 and 1 or 2
  end
  local g = kiln.script(f, { cache_limit = 1 })
  for _, n in ipairs { 4, 6, 2, 8 } do same(g, f, kiln.arange(n):double()) end
end)

test("globals, upvalues and fields that change are followed", function()
  local cfg = { scale = 2 }
  local bias = 1
  local function f(x) return x * cfg.scale + bias end
  local g = kiln.script(f)
  same(g, f, T { 1.0 })
  cfg.scale = 3
  same(g, f, T { 1.0 })
  bias = 5
  same(g, f, T { 1.0 })
  cfg = { scale = 7 }
  same(g, f, T { 1.0 })
end)

test("what is burnt in is listed", function()
  local mode = "fast"
  local g = kiln.script(function(x) if mode == "fast" then return x end return x * 2 end)
  g(T { 1.0 })
  local found
  for _, one in ipairs(g:guards()) do found = found or one.name == "mode" and one.value == '"fast"' end
  truth(found, "a guard for mode")
end)

test("a trace that follows one side of a branch says so", function()
  local function f(x) if x:sum() > 0 then return x * 2 end return x - 1 end
  raises(function() kiln.trace(f, { T { 1.0 } }, { strict = true }) end, "footguns.lua:")
end)

-- ---- the six silent mismatches of a tensor library's own list ----

test("results of one call are not overwritten by the next", function()
  local g = kiln.script(function(x) return x + 1, { x * 2 } end)
  local a, t = g(T { 1.0 })
  local b, u = g(T { 5.0 })
  equal({ a:item(), b:item(), t[1]:item(), u[1]:item() }, { 2.0, 6.0, 2.0, 10.0 })
  a:add_(100)
  equal(g(T { 1.0 }):item(), 2.0)
end)

test("results that are no tensors are not those of the first call", function()
  local function f(x) return x:sum():item(), x:size(1), x:sum() > 1, { n = #x }, "text" end
  local g = kiln.script(f)
  same(g, f, T { 1.0, 2 })
  same(g, f, T { -1.0, 2, 3 })
end)

test("the same tensor for two arguments", function()
  local function f(a, b) return a * 2 + b, a == b end
  local g = kiln.script(f)
  local x, y = T { 1.0 }, T { 5.0 }
  same(g, f, x, y)
  same(g, f, x, x)
  same(g, f, y, x)
end)

test("tensors reached through upvalues and tables are read at each call", function()
  local state = { w = T { 1.0 } }
  local v = T { 1.0 }
  local function f(x) return x * state.w + v end
  local g = kiln.script(f)
  same(g, f, T { 3.0 })
  state.w = T { 2.0 }
  same(g, f, T { 3.0 })
  v = T { 9.0 }
  same(g, f, T { 3.0 })
  state.w:mul_(4)
  same(g, f, T { 3.0 })
end)

test("one method captured for two objects does not mix them", function()
  local C = {}
  C.__index = C
  function C.new(k) return setmetatable({ w = T { k }, k = k }, C) end
  function C:run(x) return x * self.w + self.k end
  local a, b = C.new(2.0), C.new(3.0)
  local ga, gb = kiln.script(function(x) return a:run(x) end), kiln.script(function(x) return b:run(x) end)
  for i = 1, 3 do
    same(ga, function(x) return a:run(x) end, T { i + 0.0 })
    same(gb, function(x) return b:run(x) end, T { i + 0.0 })
  end
  local shared = kiln.script(function(o, x) return o:run(x) end)
  same(shared, function(o, x) return o:run(x) end, a, T { 1.0 })
  same(shared, function(o, x) return o:run(x) end, b, T { 1.0 })
end)

test("side effects happen at every call, not only at the first", function()
  local function make()
    local n, seen = 0, { last = 0.0 }
    return function(x)
      n = n + 1
      seen.last = x:sum():item()
      return x + n
    end, function() return n, seen.last end
  end
  local f, look_f = make()
  local h, look_h = make()
  local g = kiln.script(h)
  for i = 1, 5 do
    same(g, f, T { i * 1.0 })
    equal({ look_h() }, { look_f() })
  end
end)

test("constants made inside, and a number that turns into a tensor", function()
  local function f(x, k) return x + T { 1.0, 2 } * k, kiln.full({ 2 }, k) end
  local g = kiln.script(f)
  same(g, f, T { 1.0, 2 }, 2.0)
  same(g, f, T { 1.0, 2 }, 3.0)
end)

test("reading a tensor as a table is refused, with its line", function()
  local g = kiln.script(function(x) local t = x:totable() return x * t[1] end)
  raises(function() g(T { 2.0, 3 }) end, "footguns.lua:", "totable")
end)

test("a captured function called inside another one is that function", function()
  local k = 2
  local inner = kiln.script(function(x) return x * k end)
  local outer = kiln.script(function(x) return inner(x) + 1 end)
  equal(outer(T { 1.0 }):totable(), { 3.0 })
  k = 3
  equal(outer(T { 1.0 }):totable(), { 4.0 })
end)

-- ---- native control flow, and what explicit operators restrict ----

test("branches may return tensors of other sizes", function()
  local function f(x) local y if x:sum() > 0 then y = x[{ { 1, 2 } }] else y = x end return y * 2 end
  local g = kiln.script(f)
  same(g, f, T { 1.0, 2, 3 })
  same(g, f, T { -1.0, -2, -3 })
end)

test("branches may return their own argument", function()
  local function f(x, y) local z = x if x:sum() > 0 then z = y end return z, z == x end
  local g = kiln.script(f)
  same(g, f, T { 1.0 }, T { 2.0 })
  same(g, f, T { -1.0 }, T { 2.0 })
end)

test("branches of other dtypes", function()
  local function f(x) local y if x:sum() > 0 then y = x:long() else y = x end return y + 1 end
  local g = kiln.script(f)
  same(g, f, T { 1.5 })
  same(g, f, T { -1.5 })
  equal(g(T { 1.5 }).dtype, "int64")
  equal(g(T { -1.5 }).dtype, "float32")
end)

test("branches of which one requires grad and the other does not", function()
  local w = T { 2.0, 3 }:requires_grad_()
  local function f(x) local y if x:sum() > 0 then y = x * w else y = x * 2 end return (y * y):sum() end
  local g = kiln.script(f)
  same(g, f, T { -1.0, -2 })
  local x = T { 1.0, 2 }
  f(x):backward()
  local want = w.grad:totable()
  w.grad = nil
  g(x):backward()
  equal(w.grad:totable(), want)
end)

test("a branch that writes into what another name shows", function()
  local function f(x)
    local y = x * 1
    local row = y[1]
    if x:sum() > 0 then y:add_(10) else row:mul_(0) end
    return y, row
  end
  local g = kiln.script(f)
  same(g, f, T { 1.0, 2 })
  same(g, f, T { -1.0, -2 })
end)

test("closures, early exits and other Lua stand in branches and loops", function()
  local function f(x)
    local log = {}
    local function note(v) log[#log + 1] = v return v end
    for i = 1, 3 do
      if note(x * i):sum() > 4 then return i, #log end
    end
    return 0, #log
  end
  local g = kiln.script(f)
  for _, v in ipairs { 0.5, 1, 3, 5 } do same(g, f, T { v }) end
end)

test("in place in a branch", function()
  local function f(x) local y = x * 1 if x:sum() > 0 then y:add_(1) else y:mul_(2) end return y end
  local g = kiln.script(f)
  same(g, f, T { 1.0 })
  same(g, f, T { -1.0 })
end)

test("in place on an argument is seen by the caller", function()
  local function f(x) x:mul_(3) return x:sum() end
  local g = kiln.script(f)
  local a, b = T { 1.0, 2 }, T { 1.0, 2 }
  equal(g(a):item(), f(b):item())
  equal(a:totable(), b:totable())
end)

test("a loop without a bound, and its gradient", function()
  local function f(x) while x:abs():sum() > 1 do x = x * 0.5 end return (x * x):sum() end
  local g = kiln.script(f)
  same(g, f, T { 8.0, 3 })
  same(g, f, T { 100.0, -30 })
  local a, b = T { 8.0, 3 }:requires_grad_(), T { 8.0, 3 }:requires_grad_()
  f(a):backward()
  g(b):backward()
  equal(b.grad:totable(), a.grad:totable())
end)

-- ---- saved graphs are the graph that ran ----

test("optimised, saved, loaded: the same numbers, and again after saving again", function()
  local net = kiln.nn.Sequential(kiln.nn.Linear(3, 8), kiln.nn.ReLU(), kiln.nn.Linear(8, 2))
  net:eval()
  local function f(x) local y = net(x) if y:sum() > 0 then y = y:softmax(2) end return y, y:amax():item() end
  local g = kiln.script(function(x) return kiln.no_grad(f, x) end)
  local x = kiln.randn(5, 3)
  local want, top = g(x)
  local path = os.tmpname()
  local before
  for _ = 1, 3 do
    g:save(path)
    g = kiln.load(path)
    local got, best = g(x)
    equal(got:totable(), want:totable())
    equal(best, top)
    local file = assert(io.open(path, "rb"))
    local bytes = #file:read "a"
    file:close()
    truth(bytes > 4 * (3 * 8 + 8 + 8 * 2 + 2), "the weights are in the file: " .. bytes)
    truth(not before or before == bytes, "it does not drift")
    before = bytes
  end
  os.remove(path)
end)

-- ---- random numbers ----

test("the same seed draws the same numbers, eager and captured", function()
  local drop = kiln.nn.Dropout(0.5)
  local function f(x)
    local y = drop(x) + kiln.rand(4)
    if x:sum() > 0 then y = y * drop(x) end
    return y, kiln.randn(2)
  end
  local g = kiln.script(f)
  for i = 1, 4 do
    local x = T { 1.0, 2, -3, i * 0.5 - 1 }
    kiln.manual_seed(i)
    local a, b = f(x)
    local after = kiln.rand(1):item()
    kiln.manual_seed(i)
    local c, d = g(x)
    equal({ c:totable(), d:totable() }, { a:totable(), b:totable() })
    equal(kiln.rand(1):item(), after)
  end
end)

test("two calls do not draw the same numbers", function()
  local g = kiln.script(function(x) return x + kiln.rand(4) end)
  kiln.manual_seed(1)
  local a, b = g(T { 0.0, 0, 0, 0 }):totable(), g(T { 0.0, 0, 0, 0 }):totable()
  truth(a[1] ~= b[1] and a[2] ~= b[2])
end)

test("a draw whose result nobody reads still moves the stream", function()
  local function f(x) local _ = kiln.rand(3) return x + 1 end
  local g = kiln.script(f)
  kiln.manual_seed(5)
  f(T { 1.0 })
  local want = kiln.rand(1):item()
  kiln.manual_seed(5)
  g(T { 1.0 })
  equal(kiln.rand(1):item(), want)
end)

-- ---- state ----

test("running statistics, replaced or updated in place, and the training flag", function()
  local Norm = kiln.nn.Module:extend "FootgunNorm"
  function Norm:init(inplace) self.mean, self.inplace, self.seen = kiln.zeros(3), inplace, 0 end
  function Norm:forward(x)
    if self.training then
      self.seen = self.seen + 1
      if self.inplace then self.mean:mul_(0.9):add_(x:mean(1) * 0.1) else self.mean = self.mean * 0.9 + x:mean(1) * 0.1 end
    end
    return x - self.mean
  end
  for _, inplace in ipairs { false, true } do
    local a, b = Norm(inplace), Norm(inplace)
    local g = kiln.script(b)
    for i = 1, 6 do
      if i == 4 then a:eval() b:eval() end
      local x = kiln.randn(5, 3)
      equal(g(x):totable(), a(x):totable())
      equal(b.mean:totable(), a.mean:totable())
      equal(b.seen, a.seen)
    end
  end
end)

test("a counter in a module that is written on one path only", function()
  local function make()
    local m = { hits = 0 }
    return function(x) if x:sum() > 0 then m.hits = m.hits + 1 end return x * m.hits end, m
  end
  local f, m = make()
  local h, n = make()
  local g = kiln.script(h)
  for _, v in ipairs { 1.0, -1.0, 2.0, 0.0, 3.0 } do
    same(g, f, T { v })
    equal(n.hits, m.hits)
  end
end)

test("state is as before when a call raises", function()
  local m = { n = 0 }
  local g = kiln.script(function(x)
    m.n = m.n + 1
    if x:sum() > 1 then error "too much" end
    return x + m.n
  end)
  g(T { 0.0 })
  equal(m.n, 1)
  raises(function() g(T { 5.0 }) end, "too much")
  equal(m.n, 1) -- eager code would have left 2 behind
  equal(g(T { 0.0 }):item(), 2.0)
end)

-- ---- a comparison of many elements is no condition ----

test("the truth of several elements is an error, also where it is not read", function()
  local function f(x) local _ = x > 0 return x end
  raises(function() f(T { 1.0, 2 }) end, "a:lt(b) compares element by element")
  raises(function() kiln.script(f)(T { 1.0, 2 }) end, "footguns.lua:")
  raises(function() kiln.script(function(x) if x > 0 then return 1 end return 2 end)(T { 1.0, 2 }) end, "footguns.lua:")
end)

test("what Lua folds, and nobody means, is said once for each line", function()
  local path, out = os.tmpname(), os.tmpname()
  check.write(path, [[
local function inner(x, mask)
  if mask then return x * mask end -- it may be missing: no warning
  return x
end
local function f(x, n)
  if x == 0 then return 1 end
  local m = x:gt(0)
  if m then x = x + 1 end
  x = x ~= n and x * 2 or x
  assert(x:gt(-9):all())
  if x == nil or x == "none" or x == x then x = x + (not m and 1 or 2) end
  return inner(x, m)
end
local x = kiln.tensor { 1.0, 2 }
for _ = 1, 2 do
  local g = kiln.script(f)
  assert(g(x, 3):equal(f(x, 3)))
  g(x:reshape(1, 2), 3)
end
kiln.script(function(x) return (inner(x, x:gt(1))) end)(x)
kiln.script(kiln.nn.MultiheadAttention(4, 2))(kiln.ones(1, 2, 4), kiln.ones(1, 2, 4), kiln.ones(1, 2, 4))
]])
  os.execute(("'%s' '%s' >'%s' 2>&1"):format(check.program(), path, out))
  local said, lines = check.read(out), {}
  os.remove(path)
  os.remove(out)
  for line, what in said:gmatch "capture: [^\n]*:(%d+): (a tensor is %a+)" do lines[#lines + 1] = line .. " " .. what end
  table.sort(lines)
  equal(lines, { "10 a tensor is always", "11 a tensor is always", "6 a tensor is never", "8 a tensor is always", "9 a tensor is never" })
  local _, count = said:gsub("\n", "\n")
  equal(count, 5)
end)
