-- Writes in place, views and index assignment inside captured functions: each function runs eagerly and captured on
-- many inputs, and all that a caller can see must agree, what became of the arguments included.
local check = require "check"
local compare = require "capture_compare"
local T = kiln.tensor

local options, other_words = {}, { words = false }
local function agree(name, f, letters, how) compare.case(name, f, letters, how or options) end

-- M: a matrix of 3 by 4; "same": the argument before once more.
function options.value(letter, random, args)
  if letter == "M" then
    local rows = {}
    for i = 1, 3 do
      rows[i] = {}
      for j = 1, 4 do rows[i][j] = random(-4, 4) / 2 end
    end
    return T(rows)
  end
  if letter == "same" then return args[#args] end
end
other_words.value = options.value

-- ---- tensors made inside ----

agree("in place", function(x)
  local y = x * 2
  y:add_(x):mul_(3)
  return y
end, { "T" })
agree("two names of one tensor", function(x)
  local y = x * 2
  local z = y
  z:add_(1)
  return y, z, y == z, y == x
end, { "T" })
agree("a value taken before stays", function(x)
  local y = x * 2
  local before = y + 0
  y:zero_()
  return before, y
end, { "T" })
agree("fill_, zero_, copy_, clamp_", function(x, y)
  local a, b, c = x * 1, x * 1, x * 1
  a:fill_(3)
  b:zero_()
  c:copy_(y):clamp_(-1, 1)
  return a, b, c
end, { "T", "T" })
agree("a copy is a tensor of its own", function(x, y)
  local a = x * 0
  a:copy_(y)
  a:add_(1)
  local b = x * 0
  b:copy_(y)
  return a, b, y
end, { "T", "T" })
agree("contents copied from an argument that changes later", function(x)
  local y = x * 0
  y:copy_(x)
  x:add_(1)
  return x, y
end, { "T" })
agree("another dtype", function(x)
  local n = x:gt(0):long()
  n:add_(1)
  n[2] = 70
  return n, n:sum()
end, { "T" })
agree("integers take what is cast", function(x)
  local n = x:gt(0):long()
  n:copy_(x * 3)
  return n
end, { "T" })
agree("a refused dtype", function(x)
  local n = x:gt(0):long()
  if x:sum() > 0 then n:add_(x) end
  return n
end, { "T" })
agree("a shape that does not fit", function(x)
  local y = x:sum()
  if x:sum() > 0 then y:add_(x) end
  return y
end, { "T" })
agree("broadcast into", function(x)
  local m = (x * 1):view(2, 2)
  m:mul_(T { 2.0, 3 })
  m[1]:copy_(m[2])
  return m
end, { "T" })

-- ---- branches ----

agree("on one path", function(x)
  local y = x * 2
  if x:sum() > 0 then y:add_(1) end
  return y
end, { "T" })
agree("on both", function(x)
  local y = x * 2
  if x:sum() > 0 then y:add_(1) else y:zero_() end
  y:mul_(2)
  return y
end, { "T" })
agree("made on both, written after", function(x)
  local y
  if x:sum() > 0 then y = x * 2 else y = x + 1 end
  y:add_(1)
  return y
end, { "T" })
agree("before an early return", function(x)
  local y = x * 2
  if x:sum() > 0 then
    y:add_(1)
    return y, x
  end
  y:sub_(1)
  return y, x
end, { "T" })
agree("in a nested call", function(x)
  local function twice(t)
    t:mul_(2)
    return t
  end
  local y = twice(x * 1)
  if x:sum() > 0 then twice(y) end
  return twice(y), y
end, { "T" })
agree("through a closure", function(x)
  local sum = kiln.zeros(4)
  local function add(t) sum:add_(t) end
  add(x)
  if x:sum() > 0 then add(x * 2) end
  return sum
end, { "T" })
agree("through a table", function(x)
  local t = { a = x * 1 }
  t.b = t.a
  t.a:add_(5)
  if x:sum() > 0 then t.b:mul_(2) end
  return t.a, t.b
end, { "T" })
agree("an error on some path", function(x)
  x:add_(1)
  if x:sum() > 4 then error "too large" end
  return x
end, { "T" })

-- ---- loops ----

agree("while", function(x)
  local y, n = x:abs() + 1, 0
  while y:sum() < 60 do
    y:add_(1)
    n = n + 1
  end
  return y, n
end, { "T" })
agree("an argument in a while", function(x)
  x:abs_():add_(1)
  while x:sum() < 60 do x:mul_(2) end
  return x
end, { "T" })
agree("made anew in each trip", function(x)
  local y = x:abs() + 1
  while y:sum() < 60 do
    y = y * 1.5
    y:add_(1)
  end
  return y
end, { "T" })
agree("made in the trip, forgotten after", function(x)
  local s, i = x:sum(), 0
  while s:abs():item() < 40 and i < 20 do
    local t = x * i
    t:add_(1)
    s = s + t:sum():abs()
    i = i + 1
  end
  return s
end, { "T" })
agree("for over rows", function(m)
  for i = 1, 3 do m[i] = m[i] + i end
  return m
end, { "M" })
agree("for of a free length", function(x, n)
  local y = kiln.zeros(8)
  for i = 1, n do y[i] = x:sum() * i end
  return y
end, { "T", "I" })
agree("break", function(x)
  local y = x * 1
  for i = 1, 10 do
    y:add_(i)
    if y:sum() > 20 then break end
    y:mul_(1.5)
  end
  return y
end, { "T" })
agree("an accumulator outside an inner loop", function(x)
  local sum = kiln.zeros(4)
  for _ = 1, 3 do
    local k = 0
    while sum:sum() < 10 and k < 3 do
      sum:add_(x:abs())
      k = k + 1
    end
    sum:mul_(0.5)
  end
  return sum
end, { "T" })

-- ---- views ----

agree("a view of what is written", function(x)
  local y = x * 2
  local v = y:view(2, 2)
  y:add_(1)
  local before = v + 0
  v:mul_(2)
  return y, v, before
end, { "T" })
agree("select", function(m)
  local r = m[2]
  r:add_(10)
  m[2][3] = 7
  return m, r
end, { "M" })
agree("negative and chained keys", function(m)
  m[-1][-1] = 5
  m[{ 1, { 2, 3 } }]:zero_()
  m[{ {}, 2 }] = 9
  return m * 1
end, { "M" })
agree("a range and steps", function(m)
  m[{ { 1, 2 }, { 2, 4, 2 } }]:mul_(3)
  m[{ {}, { 1, 4, 3 } }] = kiln.tensor { 1.0, 2 }
  return m * 1
end, { "M" })
agree("transpose and permute", function(m)
  m:t()[1]:add_(3)
  m:permute(2, 1)[{ { 2, 3 } }]:mul_(2)
  return m * 1
end, { "M" })
agree("unsqueeze, squeeze, flatten", function(m)
  m:unsqueeze(1):squeeze(1):add_(1)
  m:flatten()[5] = 50
  m:view(-1)[6] = 60
  return m * 1
end, { "M" })
agree("diagonal, unfold", function(m)
  m:diagonal():fill_(9)
  m:unfold(2, 2, 2)[{ {}, 2 }]:add_(1)
  return m * 1
end, { "M" })
agree("split, chunk, unbind", function(m)
  local a, b = table.unpack(m:split(2))
  a:add_(1)
  b:mul_(2)
  local rows = m:unbind()
  rows[1]:zero_()
  return m * 1, a * 1
end, { "M" })
agree("narrow", function(m)
  m:narrow(2, 2, 2):add_(1)
  return m * 1
end, { "M" })
agree("overlapping copies", function(x)
  x[{ { 2, 4 } }]:copy_(x[{ { 1, 3 } }])
  return x
end, { "T" })
agree("reshape that copies, and one that does not", function(m)
  local a, b = m:t():reshape(12), m:reshape(12)
  a:add_(1)
  b:mul_(2)
  return m * 1, a * 1, b * 1
end, { "M" })
agree("contiguous", function(m)
  local a, b = m:contiguous(), m:t():contiguous()
  a:add_(1)
  b:mul_(2)
  return m * 1, b * 1
end, { "M" })
agree("detach shares", function(x)
  local y = x:detach() * 1 -- what is written by way of detach has no history here, and eager keeps the one of y
  y:detach():add_(1)
  return y
end, { "T" })
agree("an expanded tensor is not written to", function(x)
  local y = (x * 1):view(4, 1):expand(4, 3)
  if x:sum() > 0 then y:add_(1) end
  return y * 1
end, { "T" })
agree("overlapping windows are not written to", function(x)
  local y = (x * 1):unfold(1, 2, 1)
  if x:sum() > 0 then y:add_(1) end
  return y * 1
end, { "T" })
agree("a view made on each path", function(m)
  local r
  if m:sum() > 0 then r = m[1] else r = m[2] end
  r:add_(10)
  return m * 1
end, { "M" })
agree("a view in a loop", function(m)
  local i = 1
  while i < 3 and m[i]:sum() < 20 do
    m[i]:add_(5)
    m[i + 1]:sub_(m[i])
    i = i + 1
  end
  return m * 1, i
end, { "M" })
agree("a position that depends on data", function(m)
  local i = m:sum(2):argmax():item()
  m[i] = 0
  m[{ i, 2 }] = 1
  m:select(1, i)[1] = 2
  return m * 1
end, { "M" })

-- ---- one tensor or another ----

agree("an alias made on one path", function(x)
  local y, z = x * 2, x * 3
  local a
  if x:sum() > 0 then a = y else a = z end
  a:add_(10)
  return y, z, a
end, { "T" })
agree("an argument or another", function(x, y)
  local a = x
  if x:sum() > 0 then a = y end
  a:add_(10)
  return a, x
end, { "T", "T" })
agree("an argument or a tensor made inside", function(x)
  local a = x
  if x:sum() > 0 then a = x + 1 end
  a:add_(10)
  return a, x
end, { "T" })
agree("in a loop", function(x)
  local y = x
  while y:sum() < 20 do
    y:add_(1)
    y = y * 1.5
  end
  return y, x
end, { "T" })
agree("changing places in a loop", function(x)
  local a, b, n = x * 1, x * 2, 0
  while a:sum() < 50 and n < 30 do
    a:add_(1)
    b:add_(2)
    a, b = b, a
    n = n + 1
  end
  return a, b, n
end, { "T" })
agree("in fields", function(x)
  local t = { a = x * 1 }
  t.b = t.a
  if x:sum() > 0 then t.b = t.a * 2 end
  t.b:add_(1)
  return t.a, t.b
end, { "T" })
agree("in a list for an op", function(x, y)
  local a = x * 1
  local b = a
  if y:sum() > 0 then b = y end
  b:mul_(2)
  local parts = { b, b[{ { 1, 2 } }], a }
  return kiln.cat(parts), a
end, { "T", "T" })
agree("a view of one or another", function(x, y)
  local a = x
  if y:sum() > 0 then a = y end
  local v = a:view(2, 2)
  v[1]:add_(1)
  a:mul_(2)
  return v * 1, x
end, { "T", "T" })

agree("a row of one or another in a loop", function(x, y)
  local u, s = x, x:sum()
  x:add_(x)
  for i = 1, #y do
    if y[2]:item() > 0 then u = u + 1 end
    s = s + u[i]
  end
  return s, u
end, { "T", "T" })

-- ---- what is returned ----

agree("an argument on some path, as it is", function(x, y)
  if x:sum() > 0 then return x, y end
  return y, x * 2
end, { "T", "T" })
agree("one result or another", function(x)
  local y, z = x * 2, x * 3
  return x:sum() > 0 and y or z, y, z
end, { "T" })
agree("a copy on some path is no argument", function(x, y)
  local z = y * 0
  if x:sum() > 0 then z:copy_(y) end
  return z, y
end, { "T", "T" })
agree("a clone is no argument", function(x) return x:clone(), x:contiguous(), x end, { "T" })
agree("a loop without trips gives its argument", function(x)
  while x:sum() > 1000 do x = x * 0.5 end
  return (x:sum() > -1000 and x or x + 1):sum()
end, { "T" })

check.test("an outside tensor that is returned is that tensor", function()
  local net = { w = T { 1.0, 2 }, b = T { 3.0, 4 } }
  local g = kiln.script(function(x)
    if x:sum() > 0 then return net.w end
    return net.b, net.w
  end)
  check.truth(rawequal(g(T { 1.0 }), net.w), "one")
  local b, w = g(T { -1.0 })
  check.truth(rawequal(b, net.b) and rawequal(w, net.w), "the other")
end)

-- ---- index assignment ----

agree("masks", function(m)
  m[m:gt(0)] = 7
  m[m:lt(0)] = m[m:lt(0)] * 2
  return m * 1
end, { "M" })
agree("index tensors", function(m)
  m[T { 3, 1 }] = 1
  m[{ T { 1, 2 }, T { 4, 3 } }] = T { 5.0, 6 }
  m[{ {}, T { 2, 1 } }] = m[{ {}, T { 1, 2 } }]
  return m * 1
end, { "M" })
agree("out of range on some path", function(x)
  if x:sum() > 0 then x[5] = 1 end
  return x
end, { "T" }, other_words)
agree("a value that does not fit", function(m)
  if m:sum() > 0 then m[1] = T { 1.0, 2 } end
  return m
end, { "M" }, other_words)

-- ---- arguments ----

agree("an argument", function(x) x:add_(1) end, { "T" })
agree("an argument, returned", function(x)
  x:add_(1)
  return x, x * 2, x
end, { "T" })
agree("on one path only", function(x, y)
  if x:sum() > 0 then y:add_(x) end
  return y:sum()
end, { "T", "T" })
agree("one given twice", function(x, y)
  x:add_(1)
  y:mul_(2)
  return x, y, x == y
end, { "T", "same" })
agree("two", function(x, y)
  x:add_(y)
  y:add_(x)
  x:copy_(y)
  return x, y, x == y
end, { "T", "T" })
agree("in a table", function(t, x)
  t:add_(1)
  local list = { t, x }
  for _, v in ipairs(list) do v:mul_(2) end
  return list
end, { "T", "T" })
agree("random fillers draw in order", function(x)
  local y = x * 1
  y:normal_()
  if x:sum() > 0 then x:uniform_(-1, 1) end
  y:bernoulli_(0.5)
  return y, x, kiln.rand(2)
end, { "T" })

check.test("tables of tensors as arguments", function()
  local f = function(p)
    p.w:sub_(p.g * 0.1)
    p.g:zero_()
    return p.w
  end
  local g = kiln.script(f)
  for _ = 1, 3 do
    local a = { w = T { 1.0, 2 }, g = T { 3.0, 4 } }
    local b = { w = T { 1.0, 2 }, g = T { 3.0, 4 } }
    local x, y = f(a), g(b)
    check.truth(rawequal(x, a.w) and rawequal(y, b.w), "the tensor itself")
    check.tensor(b.w, a.w:totable())
    check.tensor(b.g, a.g:totable())
  end
end)

check.test("the caller's tensor is the one that is written to, also when it is a view", function()
  local g = kiln.script(function(x) x:mul_(2) end)
  local m = T { { 1.0, 2 }, { 3, 4 } }
  g(m[2])
  check.near(m:totable(), { { 1, 2 }, { 6, 8 } })
  g(m:t()[1])
  check.near(m:totable(), { { 2, 2 }, { 12, 8 } })
  g(m:t())
  check.near(m:totable(), { { 4, 4 }, { 24, 16 } })
end)

check.test("arguments that lie in memory in other ways", function()
  local f = function(x)
    x:reshape(6):add_(1)
    return x:sum()
  end
  local g = kiln.script(f)
  local a, b = T { { 1.0, 2, 3 }, { 4, 5, 6 } }, T { { 1.0, 2, 3 }, { 4, 5, 6 } }
  for _ = 1, 2 do
    check.near(g(b):item(), f(a):item())
    check.near(g(b:t()):item(), f(a:t()):item()) -- a copy is written to
    check.tensor(b, a:totable())
  end
end)

check.test("arguments that share memory are refused, nothing is written", function()
  local g = kiln.script(function(x, y)
    x:add_(1)
    return x + y
  end)
  local m = T { 1.0, 2, 3 }
  g(T { 1.0, 2 }, T { 1.0, 2 })
  check.raises(function() g(m[{ { 1, 2 } }], m[{ { 2, 3 } }]) end, "shares memory")
  check.near(m:totable(), { 1, 2, 3 })
  check.near(g(m, m):totable(), { 4, 6, 8 }) -- one tensor twice is fine
end)

check.test("a tensor that may not be written to", function()
  local g = kiln.script(function(x) x:add_(1) end)
  g(T { 1.0, 2 })
  check.raises(function() g(T { 1.0 }:expand(3)) end, "expanded")
end)

check.test("the version counter goes up", function()
  local w = T { 1.0, 2 }:requires_grad_()
  local x = T { 3.0, 4 }
  local y = (w * x):sum()
  local g = kiln.script(function(t) t:add_(1) end)
  g(x)
  check.raises(function() y:backward() end, "changed")
end)

-- ---- tensors from outside ----

check.test("an upvalue", function()
  local w = T { 1.0, 2 }
  local same = w
  local g = kiln.script(function(x)
    w:add_(x)
    return w
  end)
  for i = 1, 3 do
    local r = g(T { 1.0, 1 })
    check.truth(rawequal(r, same), "the tensor itself")
    check.near(w:totable(), { 1 + i, 2 + i })
  end
  w = T { 10.0, 20 } -- another one is seen
  g(T { 1.0, 1 })
  check.near(w:totable(), { 11, 21 })
  check.near(same:totable(), { 4, 5 })
end)

check.test("fields, one tensor in two places, on one path", function()
  local net = { a = T { 1.0, 2 }, c = T { 5.0, 5 } }
  net.b = net.a
  local f = function(x)
    net.a:add_(x)
    if net.b:sum() > 6 then net.b:mul_(0.5) end
    return net.a + net.c
  end
  local g = kiln.script(f)
  local want = { { 2, 3 }, { 1.5, 2 }, { 2.5, 3 } }
  for i = 1, 3 do
    g(T { 1.0, 1 })
    check.near(net.a:totable(), want[i])
    check.truth(rawequal(net.a, net.b), "one tensor")
  end
  net.b = T { 0.0, 0 }
  g(T { 1.0, 1 })
  check.near(net.b:totable(), { 0, 0 })
  check.near(net.a:totable(), { 3.5, 4 })
end)

check.test("a place whose tensor is overwritten, and which then gets another", function()
  local function make()
    local mod = { w = T { 1.0, 2 } }
    return mod, mod.w, function(x)
      mod.w:add_(x)
      mod.w = mod.w * 2
      mod.w:sub_(1)
      return mod.w:sum()
    end
  end
  local a, first, f = make()
  local b, own, g = make()
  g = kiln.script(g)
  for _ = 1, 3 do
    check.near(g(T { 1.0, 1 }):item(), f(T { 1.0, 1 }):item())
    check.near(b.w:totable(), a.w:totable())
    check.near(own:totable(), first:totable())
  end
end)

check.test("a buffer and an argument that share memory are refused", function()
  local net = { w = T { 1.0, 2 } }
  local g = kiln.script(function(x)
    net.w:add_(x)
    return net.w + x
  end)
  g(T { 1.0, 1 })
  check.raises(function() g(net.w) end, "shares memory")
  check.near(net.w:totable(), { 2, 3 })
end)

check.test("a leaf that requires grad, as eager", function()
  local w = T { 1.0, 2 }:requires_grad_()
  local f = function(x) w:add_(x) end
  local g = kiln.script(f)
  check.raises(function() f(T { 1.0, 1 }) end, "leaf that requires grad")
  check.raises(function() g(T { 1.0, 1 }) end, "leaf that requires grad")
  check.near(w:detach():totable(), { 1, 2 })
  kiln.no_grad(function() g(T { 1.0, 1 }) end)
  check.near(w:detach():totable(), { 2, 3 })
end)

check.test("a write that would need a history is refused", function()
  local w = T { 2.0, 3 }:requires_grad_()
  local g = kiln.script(function(x, p)
    x:mul_(p)
    return x:sum()
  end)
  local x = T { 1.0, 1 }
  check.raises(function() g(x, w) end, "input x would get a history, and the graph overwrites it")
  check.near(x:totable(), { 1, 1 })
  check.raises(function() g(w, x) end, "requires grad")
  check.near(kiln.no_grad(function() return g(x, w):item() end), 5)
  check.near(x:totable(), { 2, 3 })
  local h = kiln.script(function(y, p) -- what is written has nothing to do with what requires grad
    y:add_(1)
    return (p * 2):sum()
  end)
  local y = T { 0.0 }
  h(y, w):backward()
  check.near(y:item(), 1)
  check.near(w.grad:totable(), { 2, 2 })
end)

check.test("a failed run leaves outside tensors alone", function()
  local w = T { 1.0, 2 }
  local g = kiln.script(function(x)
    w:add_(1)
    if x:sum() > 0 then error "no" end
    return w
  end)
  g(T { -1.0 })
  check.raises(function() g(T { 1.0 }) end, "no")
  check.near(w:totable(), { 2, 3 })
end)

check.test("the text form reads back and runs", function()
  local g = kiln.script(function(x)
    x[{ { 2, 3 } }] = 0
    return x:sum()
  end)
  g(T { 1.0, 2, 3, 4 })
  local text = tostring(g)
  local h = kiln.parse(text)
  check.truth(text:find("update %%x, "), text)
  check.truth(tostring(h):find("update %%x, "), "the same node")
  local x = T { 1.0, 2, 3, 4 }
  check.near(h(x):item(), 5)
  check.near(x:totable(), { 1, 0, 0, 4 })
end)

agree("nothing at first, made in one trip and overwritten in another that there is not", function(x, y)
  local u
  local a, b = { n = 1 }, { n = 2 }
  for i = 1, #x do
    if a.n <= b.n then
      local ok, e = pcall(function(v) return v * 0.5 end, x)
      if ok then u = e else error(x) end
      b.n = b.n + 1.5
    else
      u:copy_(y):add_(i)
    end
  end
  return u, x
end, { "T", "T" })

check.test("a tensor put outside stays apart from one that replaces it on a path", function()
  local mod = { w = T { 0.0, 0 } }
  local function f(x, y)
    local v = x * y
    mod.w = v
    if x:sum() > 0 then v = x + 1 end
    v:add_(1)
    return v + 0
  end
  local g = kiln.script(f)
  for _, x in ipairs { T { 1.0, 2 }, T { -1.0, -2 } } do
    local want = f(x, T { 3.0, 4 }):totable()
    local kept = mod.w:totable()
    check.near(g(x, T { 3.0, 4 }):totable(), want)
    check.near(mod.w:totable(), kept)
  end
end)
