-- Tensors that are written to and that loops and branches mix up: places hold one of several, depending on data, and no
-- more of them than there are places may be carried on. Each function runs eagerly and captured on many inputs.
local check = require "check"
local agree = require "capture_compare".case

local function step(o, a)
  if a:sum() < 0 then
    o.t = a
    return o.t
  end
  return o.t + a
end

agree("a field that a method replaces on some path, again and again", function(x, y)
  local o, u = { t = y * 1 }, x * 1
  for i = 1, 14 do
    u = step(o, u * -0.5 + i - 7)
    u:add_(0.25)
  end
  return u, o.t, u == o.t
end, { "T", "T" })

agree("the same with as many trips as data says", function(x, y)
  local o, u, k = { t = y * 1 }, x * 1, 0
  while k < 14 and u:sum() < 50 do
    k = k + 1
    u = step(o, u * -0.5 + k - 7)
    u:add_(0.25)
  end
  return u, o.t, k
end, { "T", "T" })

agree("two places that hold the same tensor in some trips", function(x, y)
  local kept, v = y * 1, x * 1
  for i = 1, 13 do
    if v:sum() > i - 6 then v = v * 0.5 - i end
    if v:sum() > -20 then kept = v end
    kept:add_(1)
  end
  return kept, v, kept == v
end, { "T", "T" })

agree("three places that hand tensors round", function(x, y)
  local a, b, c = x * 1, y * 1, x + y
  for i = 1, 9 do
    if a:sum() > 0 then a = b - i end
    if b:sum() > i then b = c end
    if c:sum() < i then c = a end
    a:mul_(0.5)
    c:add_(1)
  end
  return a, b, c, a == b, b == c, a == c
end, { "T", "T" })

agree("the function's arguments are called again while it waits for a call", function(x, y)
  local function both(a, n)
    if n > 1 then return a + 1, n - 1 end
    return a, n
  end
  local u, n = x * 1, y:sum():item()
  for i = 1, 14 do
    u, n = both(u, n)
    u:add_(0)
  end
  return u, n
end, { "T", "T" })

agree("a matrix turned round in a loop", function(x, y)
  local m = x:reshape(1, -1) * 1
  local k = 0
  while k < 20 and m:sum() < 60 do
    k = k + 1
    if m:sum() < y:sum() + k then m = m:t() end
    m:add_(1)
    m = m:t()
  end
  return m:reshape(-1), k
end, { "T", "T" })

agree("a matrix turned round is another tensor that shows the same elements", function(x)
  local m = x:reshape(1, -1) * 1
  local a, b = m:t(), m:t():t()
  a:add_(1)
  b:mul_(2)
  return m, b, m == b, a == m:t(), b:t()
end, { "T" })

agree("dims in three orders after each other", function(x)
  local m = (x:reshape(1, -1, 1) * 1):expand(2, x:size(1), 3):clone()
  local a = m:permute(3, 1, 2)
  local b = a:permute(3, 1, 2)
  local c = b:permute(3, 1, 2)
  b:select(1, 1):add_(1)
  c:select(3, 2):mul_(2)
  a:select(2, 1):sub_(x:size(1))
  return m, a, b, c, c:transpose(1, 3), b:permute(2, 3, 1)
end, { "T" })

agree("which of two became the other's name differs between paths", function(x, y)
  local u, v = y * 1, x * y
  for _ = 1, 3 do
    if v:sum() + x:sum() > 0 then u = x * v:sum() end
    for q, w in ipairs { u, v } do
      v:add_(-1)
      w:view(-1)[1]:mul_(2)
      if q == 1 then v = w end
    end
  end
  return v, u
end, { "T", "T" })

agree("records that follow each other", function(x, y)
  local r, q = { t = x * 1, n = 1 }, { t = y * 1, n = 2 }
  local k = 0
  while k < 14 and r.t:sum() < 100 do
    k = k + 1
    if r.t:sum() > q.t:sum() - k then q = r end
    r = { t = q.t + k, n = q.n + r.n }
    if r.n > 9 then r.t:mul_(0.5) end
  end
  return r.t, r.n, q.t, q.n, r == q, r.t == q.t, k
end, { "T", "T" })

agree("records that are swapped and replaced, with other things in them", function(x, y)
  local P = {}
  P.__lt = function(a, b) return a.t:sum() < b.t:sum() end
  P.__unm = function(a) return setmetatable({ t = -a.t, n = a.n + 1 }, P) end
  local p, q = setmetatable({ t = x, n = 1 }, P), setmetatable({ t = y, n = 2 }, P)
  for i = 1, 14 do
    if q < p then
      p = q
      q = -p
    elseif p.n > i then
      q = p
    end
    q.n = q.n + i
  end
  return p.t, p.n, q.t, q.n, p == q
end, { "T", "T" })

agree("records with a name or a number in them", function(x)
  local r, q = { v = 1 }, { v = "none" }
  for i = 1, 14 do
    if x:sum() > i - 7 then q = r end
    if (x * i):sum() > 3 then
      r = { v = "big" }
    else
      r = { v = x:sum():item() + i }
    end
    if type(q.v) == "number" then q.v = q.v + 1 end
  end
  return r.v, q.v, q == r
end, { "T" }, false)

agree("records that loops replace and alias", function(x, y)
  local r, q = { t = x, n = 1 }, { t = y, n = 0.5, o = x }
  for i = 1, 14 do
    if x:sum() > i - 7 then r = { t = x * i, n = i } end
    if y:sum() > i - 6 then q = r end
    if r.t:sum() > q.t:sum() then r = q end
    q.n = q.n + 1
    r.t = r.t + 0.5
  end
  return r.t, r.n, q.t, q.n, q.o, r == q
end, { "T", "T" })

agree("records as results, with as many trips as data says", function(x, y)
  local r, q, k = { t = x, n = 1 }, { t = y, n = 0.5, o = x }, 0
  while k < 14 and r.t:sum() < 40 do
    k = k + 1
    if x:sum() > k - 7 then r = { t = r.t + k, n = r.n + q.n } end
    if y:sum() > k - 6 then q, r = r, { t = q.t, n = k, o = q.o } end
    q.n = q.n + 1
  end
  return r, q, r == q, k
end, { "T", "T" })

agree("fields of different kinds in records that become one", function(x, y)
  local r = { v = 1 }
  for i = 1, 13 do
    local s = (x * i + y):sum()
    if s > 6 then r = { v = x, up = r.v }
    elseif s > 3 then r = { v = "text", n = i }
    elseif s > 0 then r = { v = i } end
    if s < -4 then r.n = nil elseif s < -2 then r.n = i end
  end
  return r.v, r.n, r.up, r
end, { "T", "T" })

agree("records in records, going round", function(x, y)
  local a, b = { t = x }, { t = y }
  a.next, b.next = b, a
  for i = 1, 5 do
    local s = (x * i - y):sum()
    if s > 3 then a = { t = a.t + 1, next = b } elseif s > 0 then b = { t = b.t - i, next = a } end
    if s < -2 then a.next = a end
    a.next.t = a.next.t * 0.5
  end
  return a.t, b.t, a.next.t, b.next.t, a.next == b, b.next == a, a == a.next
end, { "T", "T" })

agree("lists that are one or another", function(x, y)
  local l = { x, y }
  local m = l
  for i = 1, 13 do
    local s = (x - y * i):sum()
    if s > 2 then l = { l[2], x * i } elseif s < -2 then m = l end
    l[1] = l[1] + m[2]
    if s > 8 then m = { y, l[1] } end
  end
  return l[1], l[2], m[1], m[2], l == m
end, { "T", "T" })

agree("objects of a class", function(x, y)
  local P = {}
  P.__index = P
  P.__add = function(a, b) return setmetatable({ t = a.t + b.t, n = a.n + b.n }, P) end
  P.__le = function(a, b) return a.n <= b.n end
  function P.step(o, a)
    o.n = o.n + 0.5
    if a:sum() < 0 then o.t = a end
    return o.t - a
  end
  local p, q, u = setmetatable({ t = x, n = 1 }, P), setmetatable({ t = y, n = 2 }, P), x
  for i = 1, 13 do
    u = p:step(u * -0.5 + i - 7)
    if u:sum() > 1 then p = p + q elseif u:sum() > -3 then q = p end
    if p <= q then p = q end
  end
  return p.t, p.n, q.t, q.n, p == q
end, { "T", "T" })

agree("functions made in a loop that keep its variables", function(x, y)
  local k = 0
  local f = function(a) return a + k end
  local g = f
  for i = 1, 13 do
    local s = (x * i + y):sum()
    if s > 0 then
      f = function(a)
        i = i + 0.5
        k = k + i
        return a * i
      end
    elseif s < -4 then
      g = f
    end
    x = f(x) * 0.25
  end
  return x, f(y), g(y), f(y), k, f == g
end, { "T", "T" })

agree("functions that share a variable, and one that keeps itself", function(x, y)
  local f, g = function(a) return a end, function(a) return a - 1 end
  for i = 1, 4 do
    local s = (x - y * i):sum()
    if s > 1 then
      local n = i
      f, g = function(a) n = n + 1 return a * n end, function(a) return a + n end
    elseif s > -2 then
      local old = g
      g = function(a) return old(a) * 0.5 end
      f = old
    end
    x = f(g(x)) * 0.125
  end
  return x
end, { "T", "T" })

agree("a view that is kept while its tensor is replaced", function(x, y)
  local o, v = { t = y * 1 }, x * y
  for i = 1, #x do
    if y:max() * i > 1 then v = x - 0.5 end
    o.t = v:view(-1)
    v:copy_(x + i)
    if o.t:sum() > i then o.t:mul_(0.5) end
  end
  return v, o.t
end, { "T", "T" })

agree("two kept views, of one tensor or of two", function(x, y)
  local a, b, v = x:view(-1), y:view(1, -1), x * y
  for i = 1, 12 do
    if v:sum() > i - 6 then v = v * 0.5 - i end
    if v:sum() < 0 then a = v:view(-1) end
    if v:sum() * i > 3 then b = v:view(1, -1) end
    a:add_(1)
    b:mul_(0.5)
  end
  return v, a + 0, b + 0
end, { "T", "T" })

agree("a view of a view of a view, one more in every trip", function(x, y)
  local u, d, o, w = y, y:detach(), { t = y, last = y }, x * 1
  for i = 1, #x do
    local t = u:view(-1)
    x:mul_(2)
    u, w = t, w + x[i]
    o.last, o.t = o.t, o.last:unsqueeze(1):view_as(x)
    d = d:detach()
    if w:sum() > 40 then u:add_(1) else d:mul_(0.5) end
    if w:sum() * i < 3 then o.t:sub_(1) end
  end
  u[1] = 7
  y:add_(x)
  return w, u, d, o.t, o.last, u == d, o.t == o.last
end, { "T", "T" })

agree("views without gradients of views with, and the other way round", function(x)
  local w = (x * 1):view(-1):requires_grad_(true)
  local u, t = w, w
  kiln.no_grad(function() t, u = w:view(1, -1), u:view(1, -1):t() end)
  local v, s = t:view(-1), u:t()
  kiln.no_grad(function() w:add_(1) end)
  local a, b = v * 2, s * 3
  return a, b, a.requires_grad, b.requires_grad, w:view(1, -1):view(-1).requires_grad
end, { "T" })

agree("a tensor that one path has forgotten, at a loop's back edge", function(x, y, n)
  local v = x * y
  local r, q = { x }, { t = y, o = x }
  local class = { __eq = function(a, b) return a.n == b.n end }
  local p, o = setmetatable({ n = 1 }, class), setmetatable({ n = 2 }, class)
  for _ = n * 0.0 + 1, 2.5 do p = o end
  local a = q.t:view(2, 2):t():reshape(4)
  local b, k = a, 0
  while k < 4 and p == o do
    k = k + 1
    q.t = a
    local j = 0
    while j < 1 and v:min() >= b[1] do
      j = j + 1
      q = r
      v:copy_(x)
      v = x + kiln.rand(4)
    end
    b, a = a, v
    b = x + b
  end
  return x, v
end, { "T", "T", "F" })

agree("a table that one path returns and the others have forgotten", function(x, y)
  local P = {}
  P.__index = P
  function P.__eq(a, b) return a.n == b.n end
  local function new(t, n) return setmetatable({ t = t, n = n }, P) end
  local function step(o, a, n)
    o.n = o.n + n
    if a:sum() < 0 then o.t = a return o.t, n end
    return o.t + a, o.n
  end
  local u, v, q = nil, x * y, { t = y }
  local p, r = new(x, 1), new(y, 2)
  for i = 1, 2 do u = step(p, x * i, 1) end
  if y:sum() < 1 then
    q.t = u
    if x:sum() > 1 then
      u[1]:add_(1)
      return q
    end
    for i = 1, 3 do
      v[1]:add_(1)
      if x:sum() < -1 or step(r, v, 1.5):sum() > 1 then end
      v = x * i + x
    end
  end
  return x:sum():item(), r == p
end, { "T", "T" })

check.test("graphs stay small: alternatives do not add up over the trips", function()
  local function lines(trips)
    local g = kiln.script(function(x, y)
      local kept, v = y * 1, x * 1
      for i = 1, trips do
        if v:sum() > i - 6 then v = v * 0.5 - i end
        if v:sum() > -20 then kept = v end
        kept:add_(1)
      end
      return kept, v
    end)
    g(kiln.tensor { 1.0, 2 }, kiln.tensor { 3.0, 4 })
    return select(2, g:code():gsub("\n", ""))
  end
  local few, many = lines(4), lines(12)
  check.truth(many < 5 * few, ("%d lines for 4 trips, %d for 12"):format(few, many))
end)
