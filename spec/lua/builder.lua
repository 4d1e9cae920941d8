-- kiln.builder: graphs built by hand, line by line, from symbols.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local function line() return "builder.lua:" .. debug.getinfo(2, "l").currentline .. ": " end
local spec = kiln.spec

test("from a table by name to a table by name", function()
  local b = kiln.builder()
  local x = b:input("x", spec("float32", { "N", 3 }))
  local n = b:input("n", "integer")
  equal({ tostring(b), tostring(x), tostring(n) },
    { "builder(x: float32[N,3], n: integer)", "symbol x: float32[N,3]", "symbol n: integer" })
  local y = (x * 2 + 1):relu()
  equal(tostring(y), "symbol: float32[N,3]")
  local rows = n * 2 + x:size(1) // 1
  equal(tostring(rows), "symbol: integer")
  local g = b:build { y = y, rows = rows, half = n / 2, x = x, deep = { y:sum(), "text", 4 }, [1] = -n }
  local given = kiln.tensor { { 1.0, -1, 2 }, { 0, 3, -2 } }
  local r = g { x = given, n = 5 }
  equal(r.y:totable(), { { 3.0, 0.0, 5.0 }, { 1.0, 7.0, 0.0 } })
  equal({ r.rows, r.half, r[1], r.deep[2], r.deep[3] }, { 12, 2.5, -5, "text", 4 })
  truth(rawequal(r.x, given))
  equal(#g { x = kiln.zeros(4, 3), n = 1 }.y, 4)
  raises(function() g { x = given } end, line(), "argument 1.n: an integer is needed, got nil")
  raises(function() g { x = given, n = 1, m = 2 } end, "no use for field m")
  truth(kiln.parse(tostring(g)) { x = given, n = 5 }.rows == 12)
  truth(tostring(g):find("builder.lua:", 1, true), "places")
end)

test("every kind of op", function()
  local b = kiln.builder "named"
  local x = b:input("x", spec("float32", { 4, "M" }))
  local k = b:input("k", "integer")
  local w = kiln.ones(4, 4)
  local g = b:build {
    a = x[1], b = x[{ { 2, 3 } }], c = x:max(1), d = kiln.cat({ x, x }, 1), e = w:matmul(x), f = x:sum():item() * 2,
    g = kiln.zeros(k, 2), h = x:view(2, 2, -1), i = x:gt(0) & x:lt(2), j = 2 - x, l = x ^ 2,
  }
  local data = kiln.arange(12):reshape(4, 3):float()
  local r = g { x = data, k = 3 }
  local w2 = { a = data[1], b = data[{ { 2, 3 } }], c = data:max(1), d = kiln.cat({ data, data }, 1), e = w:matmul(data),
    g = kiln.zeros(3, 2), h = data:view(2, 2, -1), i = data:gt(0) & data:lt(2), j = 2 - data, l = data ^ 2 }
  for name, t in pairs(w2) do truth(r[name]:equal(t), name) end
  equal(r.f, 132.0)
  truth(tostring(g):find("graph named(", 1, true))
end)

test("writes in place", function()
  local b = kiln.builder()
  local x, z = b:input("x", spec("float32", { 2, "N" })), b:input("z", spec("float32", { 3 }))
  local y = x * 2
  local row = y[1]
  row:add_(10)
  y[{ 2, 1 }] = 0
  z:mul_(2)
  local g = b:build { y = y, row = row, z = z }
  local given = kiln.ones(3)
  local r = g { x = kiln.ones(2, 2), z = given }
  equal({ r.y:totable(), r.row:totable(), given:totable() }, { { { 12.0, 12.0 }, { 0.0, 2.0 } }, { 12.0, 12.0 }, { 2.0, 2.0, 2.0 } })
end)

test("branches and loops", function()
  local b = kiln.builder()
  local x, n = b:input("x", spec("float32", { "N" })), b:input("n", "integer")
  local scale = x * 10
  local y, which = kiln.cond(x:sum():gt(0), function(a) return a + 1, 1 end, function(a)
    if a:max():item() < -5 then return scale, 3 end
    return a - n, 2
  end, x)
  local s, i = kiln.while_loop(function(s, i) return i < n end, function(s, i)
    if s:sum():item() > 100 then return s, i + 2 end
    return kiln.cat { s, scale }, i + 1
  end, x, 0)
  local t = kiln.cond(true, function() return { deep = x } end, error)
  local r = kiln.cond(x:sum():lt(0), function() return { deep = x, k = "same" } end, function() return { k = "same", deep = -x } end)
  local g = b:build { y = y, which = which, s = s, i = i, t = t.deep, r = r.deep, k = r.k }
  local function run(values, n)
    local out = g { x = kiln.tensor(values), n = n }
    return out.y:totable(), out.which, out.s:totable(), out.i, out.r:totable(), out.k
  end
  equal({ run({ 1.0, 2 }, 2) }, { { 2.0, 3.0 }, 1, { 1.0, 2.0, 10.0, 20.0, 10.0, 20.0 }, 2, { -1.0, -2.0 }, "same" })
  equal({ run({ -1.0, -2 }, 0) }, { { -1.0, -2.0 }, 2, { -1.0, -2.0 }, 0, { -1.0, -2.0 }, "same" })
  equal({ run({ -10.0, -20 }, 1) }, { { -100.0, -200.0 }, 3, { -10.0, -20.0, -100.0, -200.0 }, 1, { -10.0, -20.0 }, "same" })
end)

test("a mistake leaves the builder as it was", function()
  local b = kiln.builder()
  local x = b:input("x", spec("float32", { 2, 3 }))
  raises(function() return x:matmul(x) end, line(), "matmul", "float32[2,3]")
  raises(function() return x + kiln.ones(4) end, line(), "add", "float32[2,3]", "float32[4]")
  raises(function() local _ = kiln.cond(x:sum():gt(0), function(a) return a:matmul(a) end, function(a) return a end, x) end, line(), "matmul")
  raises(function() local _ = kiln.cond(x:sum():gt(0), function(a) return a, 1 end, function(a) return a end, x) end, line(),
    "cond: 2 results when the condition is true, 1 when it is false")
  raises(function() local _ = kiln.cond(x:sum():gt(0), function(a) return a:sum() end, function(a) return a end, x) end, "cond: ")
  raises(function() local _ = kiln.cond(x:sum():gt(0), function(a) return "s" end, function(a) return a end, x) end, "cond: a result is of one kind")
  raises(function() local _ = kiln.while_loop(function(a) return true end, function(a) return a:sum() end, x) end, "while_loop: ")
  raises(function() local _ = kiln.while_loop(function(a) return a:sum() end, function(a) return "x" end, x) end, "while_loop: value 1 is float32[2,3] before a trip and no tensor or number after it")
  raises(function() local _ = kiln.while_loop(function(a) return 3, 4 end, function(a) return a end, x) end, "while_loop: the condition gives 2 values, not one")
  raises(function() local _ = kiln.while_loop(function(a) return true end, function(a) return a, a end, x) end, "while_loop: the body gives 2 values for 1")
  raises(function() return x:totable() end, line(), "totable: the elements are known only when the graph runs")
  raises(function() return kiln.ones(2, 3):add_(x) end, line(), "a symbol has no values that a real tensor could take")
  equal(b:build { y = x + 1 } { x = kiln.zeros(2, 3) }.y:sum():item(), 6.0)
end)

test("symbols are of one graph, and of an open one", function()
  local a, b = kiln.builder(), kiln.builder()
  local x, y = a:input("x", spec("float32", { 2 })), b:input("y", spec("float32", { 2 }))
  local n = a:input("n", "integer")
  raises(function() return x + y end, line(), "symbols of two builders in one op")
  raises(function() a:build { y = y } end, line(), "build: the result.y is a symbol of another builder")
  raises(function() return n < 3 end, line(), "a comparison of numbers known only when the graph runs")
  raises(function() return x:sum() < 3 and 1 end, line(), "known only")
  a:build { x = x }
  raises(function() return x + 1 end, line(), "symbol 'x' belongs to a graph that has been built")
  raises(function() return n + 1 end, line(), "symbol 'n' belongs to a graph that has been built")
  raises(function() a:input("z", "float") end, line(), "this builder has built its graph")
  raises(function() a:build {} end, line(), "this builder has built its graph")
  raises(function() return kiln.script(function(v) return v + y end)(kiln.ones(2)) end, "belongs to another graph")
  raises(function() return kiln.trace(function(v) return v + y end, { kiln.ones(2) }) end, "a symbol of a graph that is being built")
  local lost = kiln.builder():input("l", spec("float32", { 2 }))
  a, b = nil, nil
  collectgarbage()
  collectgarbage()
  kiln.builder()
  raises(function() return lost * 2 end, line(), "is not being built here")
  truth((kiln.ones(2) * 2):equal(kiln.full({ 2 }, 2.0)), "other work goes on beside")
end)

test("misuse", function()
  local b = kiln.builder()
  raises(function() b:input(3) end, line(), "input: a name is needed, got an integer")
  raises(function() b:input("x", 3) end, line(), 'input: x must be kiln.spec(...), "float", "integer" or "boolean", got an integer')
  b:input("x", "float")
  raises(function() b:input("x", "float") end, line(), "input: there is an input 'x' already")
  raises(function() b:build(3) end, line(), "build: a table of results is needed, as in b:build{ y = y }, got an integer")
  raises(function() b:build { f = print } end, line(), "build: the result.f is a function, which a graph cannot take or give")
  raises(function() b.build(3) end, line(), "a builder is needed, as in b:input(…), got an integer")
  raises(function() kiln.builder(3) end, line(), "builder: a name is needed, got an integer")
end)
