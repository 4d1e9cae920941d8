-- Tables among the arguments: given twice, described by specs at any depth.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

test("one table as two arguments", function()
  local n = 0
  local g = kiln.script(function(a, b, x)
    if rawequal(a, b) then return a.t + b.t + x, a == b end
    return a.t * b.t * x, a == b
  end)
  local p, q = { t = T { 2.0 } }, { t = T { 3.0 } }
  for _ = 1, 2 do
    local y, same = g(p, p, T { 1.0 })
    equal(y:totable(), { 5.0 })
    equal(same, true)
    y, same = g(p, q, T { 1.0 })
    equal(y:totable(), { 6.0 })
    equal(same, false)
  end
end)

test("a table twice inside one argument", function()
  local g = kiln.script(function(a) return a[1].t + a[2].t, a[1] == a[2], a.deep.again == a[1] end)
  local p = { t = T { 2.0 } }
  local y, same, deep = g { p, p, deep = { again = p } }
  equal(y:totable(), { 4.0 })
  truth(same and deep, "the same")
  y, same, deep = g { p, { t = T { 5.0 } }, deep = { again = p } }
  equal(y:totable(), { 7.0 })
  equal(same, false)
  equal(deep, true)
  local loop = {}
  loop[1] = loop
  raises(function() g(loop) end, "contains itself")
end)

test("saved with a table given twice", function()
  local p = { t = T { 2.0 } }
  local g = kiln.script(function(a, b) return a.t + b.t end)
  equal(g(p, p):totable(), { 4.0 })
  local again = kiln.parse(tostring(g))
  equal(again(p, p):totable(), { 4.0 })
  raises(function() again(p, { t = T { 3.0 } }) end, "must be the same")
end)

test("specs in tables", function()
  local f = function(net, opts, x)
    for i = 1, 2 do x = x:matmul(net[i].w) + net[i].b end
    if opts.scale > 1 and opts.on then x = x * opts.scale end
    return x, opts.deep.n + 1
  end
  local layer = { w = kiln.spec("float32", { 2, 2 }), b = kiln.spec("float32", { 2 }) }
  local g = kiln.script(f, { inputs = {
    { layer, { w = kiln.spec("float32", { 2, "M" }), b = kiln.spec("float32", { "M" }) } },
    { scale = "float", on = "boolean", deep = { n = "integer" } }, kiln.spec("float32", { "N", 2 }),
  } })
  local w, b = T { { 1.0, 2 }, { 3.0, 4 } }, T { 0.5, -0.5 }
  local net, x = { { w = w, b = b }, { w = w, b = b } }, T { { 1.0, 1 }, { 0, 2 }, { 3, 1 } }
  for _, opts in ipairs { { scale = 2.5, on = true, deep = { n = 3 } }, { scale = 0.5, on = true, deep = { n = -1 } } } do
    local want, m = f(net, opts, x)
    local got, k = g(net, opts, x)
    equal(got:totable(), want:totable())
    equal(k, m)
  end
  raises(function() g(net, { scale = 1.5, on = true, deep = { n = "x" } }, x) end, "deep.n", "an integer is needed")
  raises(function() g({ { w = w, b = b } }, { scale = 1.5, on = true, deep = { n = 1 } }, x) end, "")
  raises(function() kiln.script(f, { inputs = { { a = { b = 3 } } } }) end, "inputs[1].a.b must be kiln.spec")
  raises(function() kiln.script(f, { inputs = { { [1.5] = "float" } } }) end, "keys must be strings or integers")
end)
