-- Results that are of one kind or another, depending on data: the caller gets the kind that eager code gives.
local check = require "check"
local compare = require "capture_compare"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

local agree = compare.case

agree("nil or a tensor", function(x) if x:sum() > 0 then return x * 2 end return nil end, { "T" })
agree("nil or a tensor, the first of two", function(x, y)
  local m
  if x:sum() > 0 then m = y:relu() end
  return m, x + 1
end, { "T", "T" })
agree("a number or a tensor", function(x)
  local s = x:sum():item()
  return s > 0 and s or x
end, { "T" })
agree("an integer, a float, a boolean, a string or nil", function(x, k)
  if k == 1 then return 1 elseif k == 2 then return x:sum():item() elseif k == 3 then return x:sum() > 0
  elseif k == 4 then return "four" elseif k == 5 then return nil end
  return x:ge(0):sum():item()
end, { "T", "I" })
agree("strings", function(x)
  local s = x:sum():item()
  return s > 1 and "large" or s > 0 and "small" or "negative", s == s and "number" or "nan"
end, { "T" })
agree("a table or nil", function(x) if x:sum() > 0 then return { x, n = 1 } end end, { "T" })
agree("one table or another", function(x, y)
  local a, b = { x }, { y, x, k = "b" }
  local t = x:sum() > 0 and a or b
  return t, a, b
end, { "T", "T" })
agree("a table that contains itself", function(x)
  local r = { t = x }
  r.next = r
  return r, { r, r.next }
end, { "T" })
agree("tables that contain each other, or nothing", function(x, y)
  local r, q = { t = x }, { t = y, n = 1 }
  r.next, q.next = q, r
  if x:sum() > 0 then q.next = q elseif y:sum() > 0 then r.next = nil end
  if x:sum() < -1 then r = q end
  return r, q.next, { q = q }
end, { "T", "T" })
agree("fields of one kind or another", function(x)
  local t = { x }
  if x:sum() > 0 then t.flag = true end
  if x:sum() < -1 then t[1] = "small" elseif x:sum() > 1 then t[1] = nil end
  return t
end, { "T" })
agree("more results on one path", function(x)
  local s = x:sum():item()
  if s > 1 then return x, s, "large" elseif s > 0 then return s end
end, { "T" })
agree("more results on one path, inside", function(x)
  local function f(y)
    if y:sum() > 1 then return y, 1 elseif y:sum() > 0 then return nil end
  end
  local a, b, c = f(x)
  local t = { (f(x * 2)), (f(-x)) }
  local function g(y) return f(y) end
  local d, e = g(x + 1)
  return t, a, b, c, d, e, g(x - 1)
end, { "T" })
agree("results of a chain of tails", function(x)
  local function f(y, n)
    if n == 0 then return end
    if y:sum() > 0 then return y, n end
    return f(y + 1, n - 1)
  end
  return f(x, 3)
end, { "T" })
agree("tensors of two dtypes", function(x) return x:sum() > 0 and x or x:gt(0) end, { "T" })
agree("tensors of two ranks", function(x) return x:sum() > 0 and x or x:sum() end, { "T" })
agree("from a loop", function(x)
  local found
  for i = 1, 4 do
    if x[i]:item() > 0.5 then found = i break end
    if x[i]:item() < -1.5 then found = x[i] break end
  end
  return found
end, { "T" })
agree("from a while", function(x)
  local last
  while x:sum() > 0.5 do
    x = x * 0.5
    last = x:sum():item()
  end
  return last, last and "ran" or false
end, { "T" }, { finite = true })
agree("an argument or nil", function(x, y) return x:sum() > 0 and x or nil, y:sum() > 0 and y or false end, { "T", "T" })

test("an argument that is returned is the tensor given", function()
  local g = kiln.script(function(x) if x:sum() > 0 then return x end return false end)
  local x = T { 1.0, 2 }
  truth(rawequal(g(x), x), "the same tensor")
  equal(g(T { -1.0, 0 }), false)
end)

-- ---- which tensor is which ----

agree("a view that is one of several results, and one by itself", function(x, y)
  local v = y:view(4)
  y[x:gt(0)] = 0
  if x:sum() >= 1 then return v, 1, { v }, v end
  return 1, { v }, nil, v
end, { "T", "T" })
agree("a view in a table of one path, and elsewhere", function(x, y)
  local v = y:view(4)
  y[x:gt(0)] = 0
  if x:sum() >= 1 then return v, 1, { v } end
  return 1, v
end, { "T", "T" })
agree("a view of what one path makes, in a table", function(x)
  local t, u
  if x:sum() >= 1 then
    local a = x * 2
    local v = a:view(4)
    a:add_(1)
    t, u = { v, a, v }, v
    if x:sum() > 2 then return t, v, 1 end
  end
  return t, 1, u
end, { "T" })
agree("views in tables that contain each other", function(x, y)
  local q = x * 2
  local v, w = q:view(4), q:view(2, 2)
  q:add_(1)
  local a = { v }
  local b = { w, a }
  a.b = b
  if x:sum() > 0 then a.c = { a, w } end
  if y:sum() > 0 then return a, w, v end
  return 1, y:sum() < -1 and v, b
end, { "T", "T" })
agree("one view or another in a table of one path", function(x, y)
  local t
  local q = x * 2
  local w = q:view(4)
  q:add_(1)
  if x:sum() >= 0 then
    local a = x * 2
    local v = a:view(4)
    a:add_(1)
    t = { y:sum() > 0 and v or 1, y:sum() < 1 and v or a, y:sum() > 0.5 and w, y:sum() > 0 and v:view(2, 2) }
  end
  return t, y:sum() < 0 and w or t and t[1]
end, { "T", "T" })
agree("two tensors of one value, made on one path", function(x, y)
  local t
  if x:sum() >= 1 then
    local a, b, d = x * 2, y * 3, y * 3
    b:copy_(a)
    d:copy_(x)
    t = { a, a, b, d, d, x }
  end
  return t, x
end, { "T", "T" })

test("saved and loaded, parsed and printed", function()
  local f = kiln.script(function(x)
    local s = x:sum():item()
    if s > 1 then return x, "large" elseif s > 0 then return s, { x } end
    return nil, s
  end, { inputs = { kiln.spec("float32", { "N" }) } })
  local path = os.tmpname()
  f:save(path)
  local loaded, parsed = kiln.load(path), kiln.parse(tostring(f))
  os.remove(path)
  truth(tostring(f):find("one_of{%", 1, true), tostring(f))
  equal(tostring(parsed), tostring(kiln.parse(tostring(parsed))))
  for _, g in ipairs { f, loaded, parsed } do
    local a, b = g(T { 1.0, 2 })
    equal(a:totable(), { 1.0, 2.0 })
    equal(b, "large")
    a, b = g(T { 0.5, 0.25 })
    equal(a, 0.75)
    equal(b[1]:totable(), { 0.5, 0.25 })
    a, b = g(T { -0.5, 0.25 })
    equal(a, nil)
    equal(b, -0.25)
  end
end)

test("a table that contains itself is kept in text and file", function()
  local f = kiln.script(function(x)
    local r = { x * 2 }
    r.next = { back = r }
    return r
  end, { inputs = { kiln.spec("float32", { "N" }) } })
  local path = os.tmpname()
  f:save(path)
  local loaded, parsed = kiln.load(path), kiln.parse(tostring(f))
  os.remove(path)
  truth(tostring(f):find("next = &2{back = &1}}", 1, true), tostring(f))
  equal(tostring(parsed), tostring(kiln.parse(tostring(parsed))))
  for _, g in ipairs { f, loaded, parsed } do
    local r = g(T { 1.0, 2 })
    equal(r[1]:totable(), { 2.0, 4.0 })
    truth(rawequal(r.next.back, r), "it is the table itself")
  end
  raises(function() kiln.parse "graph g(%x: float32[2]) {\n  return &1{%x}, &1\n}" end, "result 2 is malformed")
  raises(function() kiln.parse "graph g(&1{%x: float32[2], &1}) {\n  return %x\n}" end, "is missing here")
end)

test("malformed choices are refused", function()
  for text, why in pairs {
    ["one_of{%n, nil}"] = "two or more others", ["one_of{%x, nil, 1}"] = "an integer that says which",
    ["one_of{1, nil, 1}"] = "an integer that says which",
  } do
    raises(function() kiln.parse(("graph g(%%x: float32[2], %%n: integer) {\n  return %s\n}"):format(text)) end, why)
  end
  raises(function() kiln.parse("graph g(one_of{%n: integer, 1, 2}) {\n  return\n}") end, "1:")
  raises(function() kiln.parse("graph g(%n: integer) {\n  return one_of{%n, 1, 2}\n}")(3) end, "none of its 2 kinds")
end)
