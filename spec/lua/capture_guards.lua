-- What a captured function read outside is guarded or read afresh: a change is seen at the next call.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local T = kiln.tensor

-- Calls both for real and captured; results must agree after every change.
local function follow(f, g, x)
  local want, got = table.pack(f(x)), table.pack(g(x))
  equal(got.n, want.n)
  for i = 1, want.n do
    if kiln.is_tensor(want[i]) then equal(got[i]:totable(), want[i]:totable()) else equal(got[i], want[i]) end
  end
end

scale = 2
test("a global changed between calls", function()
  local f = function(x) return x * scale end
  local g = kiln.script(f)
  local x = T { 1.0, 2 }
  follow(f, g, x)
  scale = 3
  follow(f, g, x)
  scale = 2.5
  follow(f, g, x)
  scale = 2
  follow(f, g, x)
end)

test("an upvalue changed between calls", function()
  local k, flag = 1, true
  local f = function(x) if flag then return x + k end return x - k end
  local g = kiln.script(f)
  follow(f, g, T { 1.0 })
  k = 2
  follow(f, g, T { 1.0 })
  flag = false
  follow(f, g, T { 1.0 })
  flag = nil
  follow(f, g, T { 1.0 })
end)

test("a function replaced between calls", function()
  local m = { act = function(x) return x:relu() end }
  local f = function(x) return m.act(x) end
  local g = kiln.script(f)
  follow(f, g, T { -1.0, 2 })
  m.act = function(x) return -x end
  follow(f, g, T { -1.0, 2 })
  m = { act = function(x) return x + 1 end }
  follow(f, g, T { -1.0, 2 })
end)

test("a field that was nil is filled", function()
  local m = {}
  local f = function(x) if m.bias then return x + m.bias end return x end
  local g = kiln.script(f)
  follow(f, g, T { 1.0 })
  m.bias = T { 5.0 }
  follow(f, g, T { 1.0 })
  m.bias = nil
  follow(f, g, T { 1.0 })
end)

test("a list that grows", function()
  local list = { T { 1.0 }, T { 2.0 } }
  local sum = function(x) for _, v in ipairs(list) do x = x + v end return x, #list end
  local g = kiln.script(sum)
  follow(sum, g, T { 0.0 })
  list[3] = T { 10.0 }
  follow(sum, g, T { 0.0 })
  list[1] = nil
  list[1] = T { 7.0 }
  follow(sum, g, T { 0.0 })
end)

test("keys of a table that is gone through", function()
  local t = { a = 1, b = 2 }
  local f = function(x) for _, v in pairs(t) do x = x + v end return x end
  local g = kiln.script(f)
  follow(f, g, T { 0.0 })
  t.c = 4
  follow(f, g, T { 0.0 })
  t.a = nil
  follow(f, g, T { 0.0 })
end)

test("a metatable changed", function()
  local C = { __index = { k = 2 } }
  local o = setmetatable({}, C)
  local f = function(x) return x * o.k end
  local g = kiln.script(f)
  follow(f, g, T { 3.0 })
  C.__index = { k = 5 }
  follow(f, g, T { 3.0 })
  C.__index.k = 6
  follow(f, g, T { 3.0 })
  setmetatable(o, { __index = function() return 7 end })
  follow(f, g, T { 3.0 })
  o.k = 8
  follow(f, g, T { 3.0 })
end)

test("parameters updated in place and replaced are seen without another capture", function()
  local w = T { 1.0, 2 }
  local m = { w = w }
  local captures = 0
  local f = function(x) return x * m.w end
  local g = kiln.script(f, { cache_limit = 1 }) -- a second capture would be an error
  follow(f, g, T { 3.0, 4 })
  w:mul_(2)
  follow(f, g, T { 3.0, 4 })
  m.w = T { 7.0, 8 }
  follow(f, g, T { 3.0, 4 })
  m.w = T { 7.0 } -- another size is another graph
  raises(function() g(T { 3.0, 4 }) end, "cache_limit", "m.w")
end)

test("two places that held one tensor", function()
  local w = T { 1.0 }
  local m = { a = w, b = w }
  local f = function(x) return x * m.a + m.b end
  local g = kiln.script(f)
  follow(f, g, T { 3.0 })
  m.b = T { 5.0 }
  follow(f, g, T { 3.0 })
  m.a = T { 6.0 }
  follow(f, g, T { 3.0 })
end)

test("arguments of other kinds", function()
  local f = function(x, o)
    if type(x) == "number" then return x + 1 end
    if o == nil then return x end
    if o == "double" then return x * 2 end
    return x * o
  end
  local g = kiln.script(f)
  local function both(...) follow(function(t) return f(table.unpack(t)) end, function(t) return g(table.unpack(t)) end, { ... }) end
  both(T { 1.0 })
  both(T { 1.0 }, "double")
  both(T { 1.0 }, 3)
  both(T { 1.0 }, 3.5)
  both(T { 1.0 }, 4)
  both(3)
  both(3.5)
end)

test("sizes: ones are literal, others free", function()
  local f = function(x, y) return x + y, x:size(1) end
  local g = kiln.script(f, { cache_limit = 2 })
  local function both(x, y)
    local a, n = f(x, y)
    local b, m = g(x, y)
    equal(b:totable(), a:totable())
    equal(m, n)
  end
  both(T { 1.0, 2 }, T { 3.0, 4 })
  both(T { 1.0, 2, 3 }, T { 3.0, 4, 5 })
  both(T { 1.0, 2, 3 }, T { 3.0 })
  raises(function() g(T { 1.0 }, T { 3.0 }) end, "cache_limit")
end)

test("dtype and rank of arguments", function()
  local f = function(x) return x + 1 end
  local g = kiln.script(f)
  follow(f, g, T { 1.5 })
  follow(f, g, T { 1, 2 })
  follow(f, g, T { { 1.5, 2 }, { 3, 4 } })
  follow(f, g, T(2.5))
end)

test("a free number that must be known is burnt in", function()
  local f = function(x, d) return x:sum(d) end
  local g = kiln.script(f)
  local x = T { { 1.0, 2 }, { 3, 4 } }
  for _, d in ipairs { 1, 2, -1 } do equal(g(x, d):totable(), f(x, d):totable()) end
  local t = { 10, 20, 30 }
  local pick = function(y, i) return y * t[i] end
  local h = kiln.script(pick)
  for i = 1, 3 do equal(h(T { 1.0 }, i):totable(), pick(T { 1.0 }, i):totable()) end
end)

test("tables of tensors as arguments", function()
  local f = function(b) return b.x * b.w[1] + b.w[2], b.name end
  local g = kiln.script(f, { cache_limit = 2 })
  local function both(b)
    local a, n = f(b)
    local c, m = g(b)
    equal(c:totable(), a:totable())
    equal(m, n)
  end
  both { x = T { 1.0 }, w = { T { 2.0 }, T { 3.0 } }, name = "a" }
  both { x = T { 4.0 }, w = { T { 5.0 }, T { 6.0 } }, name = "a" }
  both { x = T { 4.0 }, w = { T { 5.0 }, 6 }, name = "a" }
  raises(function() g { x = T { 4.0 }, w = { T { 5.0 }, 6 }, name = "b" } end, "cache_limit", "name")
end)

test("the limit lists the reasons", function()
  local x = kiln.ones(1, 2, 3, 4, 5)
  local k = 0
  local g = kiln.script(function(x) return x:sum(k) end, { cache_limit = 3 })
  for i = 1, 3 do
    k = i
    equal(g(x):totable(), x:sum(i):totable())
  end
  k = 5
  raises(function() g(x) end, "captured 3 times", "upvalue 'k' was", "is 5")
  k = 3
  equal(g(x):totable(), x:sum(3):totable())
end)

test("a number outside that changed is read afresh from then on", function()
  local cfg, k = { rate = 0.5, n = 1, on = 1 }, 2
  local function f(x)
    local y = x * cfg.rate + k
    for i = 1, cfg.n do y = y + i end
    if cfg.on > 0 then y = -y end
    return y, cfg.rate, k
  end
  local g = kiln.script(f)
  for i = 1, 30 do
    cfg.rate, k, cfg.n, cfg.on = i / 4, i, i % 4, i % 3 - 1
    local x = T { i * 1.0, -1 }
    local a, b, c = f(x)
    local d, e, m = g(x)
    equal({ d:totable(), e, m }, { a:totable(), b, c })
    equal({ math.type(e), math.type(m) }, { "float", "integer" })
  end
  equal(g:captures().n, 2)
  cfg.rate = 3 -- another kind is another graph
  equal({ select(2, g(T { 1.0 })) }, { 3, k })
  equal(g:captures().n, 3)
end)

test("what the function adds to an outside table is there at once", function()
  local function history()
    local s = {}
    return function(x)
      table.insert(s, x:sum():item())
      return s[#s], #s, select("#", table.unpack(s))
    end
  end
  local function fields()
    local s = { a = 1 }
    return function(x)
      s.k, s[1] = x:sum():item(), 2.5
      local n = 0
      for _ in pairs(s) do n = n + 1 end
      return n, #s, s.k
    end
  end
  for _, make in ipairs { history, fields } do
    local f, g = make(), kiln.script(make())
    for i = 1, 4 do equal({ g(kiln.ones(i)) }, { f(kiln.ones(i)) }) end
  end
  local s = {}
  raises(function()
    kiln.script(function(x)
      if x:sum():item() > 2 then s[1] = 1 end
      return #s
    end)(kiln.ones(3))
  end, "length of this table depends on tensor data")
end)

test("a number that is written once it was free is state", function()
  local c = { n = 1, step = 0 }
  local g = kiln.script(function(x, write)
    if write then c.n = c.n + 1 end
    return x * c.n
  end)
  local x = T { 1.0 }
  equal(g(x, false):totable(), { 1.0 })
  c.n = 5
  equal(g(x, false):totable(), { 5.0 })
  equal(g(x, true):totable(), { 6.0 })
  equal(g(x, true):totable(), { 7.0 })
  equal(c.n, 7)
end)

-- ---- state ----

test("a counter and a running mean", function()
  local function make()
    local count = 0
    local bn = { mean = T { 0.0 }, n = 0, training = true }
    return function(x)
      count = count + 1
      if bn.training then
        bn.mean = bn.mean * 0.5 + x:mean() * 0.5
        bn.n = bn.n + 1
      end
      return x - bn.mean, count, bn.n
    end, bn
  end
  local f, state_f = make()
  local h, state_h = make()
  local g = kiln.script(h, { cache_limit = 2 })
  for i = 1, 6 do
    local x = T { i * 1.0, 2 }
    local a, b, c = f(x)
    local d, e, k = g(x)
    equal(d:totable(), a:totable())
    equal({ e, k }, { b, c })
    equal(state_h.mean:totable(), state_f.mean:totable())
    equal(state_h.n, state_f.n)
    if i == 4 then state_f.training, state_h.training = false, false end
  end
end)

test("state written on one path of a branch, and in a loop", function()
  local function make()
    local hits, last = 0, 0.5
    return function(x)
      if x:sum() > 0 then
        hits = hits + 1
        last = x:sum():item()
      end
      while x:sum() > 1 do
        x = x * 0.5
        hits = hits + 10
      end
      return x, hits, last
    end
  end
  local f, g = make(), kiln.script(make())
  for i = -3, 5 do
    local x = T { i * 0.7, 0.1 }
    local a, b, c = f(x)
    local d, e, k = g(x)
    equal(d:totable(), a:totable())
    equal({ e, k }, { b, c })
  end
end)

test("a state number that becomes a float", function()
  local function make()
    local n = 0
    return function(x)
      n = n + x:sum():item()
      return n
    end
  end
  local f, g = make(), kiln.script(make())
  for i = 1, 3 do equal(g(T { i * 1.0 }), f(T { i * 1.0 })) end
end)

-- ---- specs ----

test("captured at once from specs", function()
  local g = kiln.script(function(x, w, n) return x:matmul(w) * n end,
    { inputs = { kiln.spec("float32", { "N", 2 }), kiln.spec("float32", { 2, 3 }), "integer" } })
  equal(g(kiln.ones(4, 2), kiln.ones(2, 3), 2).shape, { 4, 3 })
  equal(g(kiln.ones(1, 2), kiln.ones(2, 3), 5):totable(), { { 10.0, 10.0, 10.0 } })
  raises(function() g(kiln.ones(4, 3), kiln.ones(2, 3), 2) end, "x")
  check.truth(tostring(g):find("float32[N,2]", 1, true), "the named size in the text")
end)

test("specs hold for captures that follow", function()
  local k = 1
  local g = kiln.script(function(x) return x + k end, { inputs = { kiln.spec("float32", { "N" }) } })
  equal(g(T { 1.0 }):totable(), { 2.0 })
  k = 5
  equal(g(T { 1.0, 2 }):totable(), { 6.0, 7.0 })
  check.truth(tostring(g):find("float32[N]", 1, true), "the named size in the text")
end)

test("a call that fits no spec is no new capture", function()
  local g = kiln.script(function(x, n) return x * n end, { inputs = { kiln.spec("float32", { "N" }), "float" }, cache_limit = 2 })
  for _ = 1, 3 do
    raises(function() g(T { 1.0 }) end, "takes 2 arguments, got 1")
    raises(function() g() end, "takes 2 arguments, got 0")
    raises(function() g(T { 1.0 }, 1.0, 5) end, "takes 2 arguments, got 3")
  end
  equal(g(T { 1.0 }, 2.0, nil):totable(), { 2.0 })
  equal(tostring(g):find("captures"), nil)
end)

test("the text of several captures is that of the newest", function()
  local k = 1
  local g = kiln.script(function(x) return x + k end)
  g(T { 1.0 })
  k = 5
  g(T { 1.0 })
  check.truth(tostring(g):find("the newest of 2 captures", 1, true), tostring(g))
  equal(kiln.parse(tostring(g))(T { 1.0 }):totable(), { 6.0 })
end)

test("functions without arguments", function()
  equal(kiln.script(function() return kiln.ones(2) * 3 end)():totable(), { 3.0, 3.0 })
  equal(kiln.script(function() return 5 end, { inputs = {} })(), 5)
  equal(select("#", kiln.script(function() end)()), 0)
end)

test("options are known ones", function()
  raises(function() kiln.script(function(x) return x end, { inptus = {} }) end, "script: there is no option 'inptus'")
  raises(function() kiln.script(function(x) return x end, { {} }) end, "script: option names must be strings, got an integer")
end)

test("is_capturing", function()
  local f = function(x) if kiln.is_capturing() then return x + 1 end return x end
  equal(f(T { 1.0 }):totable(), { 1.0 })
  equal(kiln.script(f)(T { 1.0 }):totable(), { 2.0 })
  equal(kiln.is_capturing(), false)
end)

test("under no_grad, and parameters that require grad", function()
  local w = T { 2.0 }:requires_grad_()
  local g = kiln.script(function(x) return kiln.no_grad(function(y) return y * w end, x) end)
  equal(g(T { 3.0 }):totable(), { 6.0 })
  equal(g(T { 3.0 }).requires_grad, false)
end)

test("guards are listed", function()
  local k = 4
  local g = kiln.script(function(x) return x * k end)
  g(T { 1.0, 2 })
  local seen = {}
  for _, guard in ipairs(g:guards()) do seen[guard.kind .. " " .. guard.name] = guard.value end
  equal(seen["upvalue k"], "4")
end)
