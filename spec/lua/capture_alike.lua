-- Tensors that are written to and that loops and branches mix up: places hold one of several, depending on data, and no
-- more of them than there are places may be carried on. Each function runs eagerly and captured on many inputs.
local check = require "check"
local agree = require "capture_compare".case

agree("a field that a method replaces on some path, again and again", function(x, y)
  local function step(o, a)
    if a:sum() < 0 then
      o.t = a
      return o.t
    end
    return o.t + a
  end
  local o, u = { t = y * 1 }, x * 1
  for i = 1, 14 do
    u = step(o, u * -0.5 + i - 7)
    u:add_(0.25)
  end
  return u, o.t, u == o.t
end, { "T", "T" })

agree("the same with as many trips as data says", function(x, y)
  local function step(o, a)
    if a:sum() < 0 then
      o.t = a
      return o.t
    end
    return o.t + a
  end
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
