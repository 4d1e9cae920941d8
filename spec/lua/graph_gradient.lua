-- g:grad(): graphs of gradients.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

local function loss(x, w, n)
  local h = x
  for _ = 1, n do h = (h * w):sin() + h end
  if h:sum():item() > 0 then return (h * h):sum() end
  return h:sum() * 3
end

local function eager(x, w, n)
  x, w = x:detach():requires_grad_(), w:detach():requires_grad_()
  local y = loss(x, w, n)
  local g = kiln.grad(y, { x, w }, { allow_unused = true })
  return y:detach(), g[1] or nil, g[2] or nil
end

test("of all floating arguments, behind the value, of some", function()
  local g = kiln.script(loss)
  local all, some, both = g:grad(), g:grad { inputs = { 2 } }, g:grad { value = true, memory = 20000 }
  for i = 1, 4 do
    local x, w = T { 0.5 * i, -1.0 }, T { 1.0, i - 3.0 }
    local y, gx, gw = eager(x, w, i)
    local ax, aw = all(x, w, i)
    equal({ ax:totable(), aw:totable() }, { gx:totable(), gw:totable() })
    equal(some(x, w, i):totable(), gw:totable())
    local v, bx, bw = both(x, w, i)
    equal({ v:item(), bx:totable(), bw:totable() }, { y:item(), gx:totable(), gw:totable() })
  end
end)

test("one that takes no part is nil, on some path too", function()
  local g = kiln.script(function(a, b)
    if a:sum():item() > 0 then return (a * a):sum() end
    return (a * b):sum()
  end):grad()
  local x, y = g(T { 2.0 }, T { 3.0 })
  equal({ x:totable(), y }, { { 4.0 } })
  x, y = g(T { -2.0 }, T { 3.0 })
  equal({ x:totable(), y:totable() }, { { 3.0 }, { -2.0 } })
end)

test("saved and loaded", function()
  local path = os.tmpname()
  local x, w = T { 0.5, -1.0 }, T { 1.0, 2.0 }
  local _, gx, gw = eager(x, w, 3)
  local g = kiln.script(loss)
  local d = g:grad()
  d(x, w, 3)
  d:save(path)
  local a, b = kiln.load(path)(x, w, 3)
  equal({ a:totable(), b:totable() }, { gx:totable(), gw:totable() })
  os.remove(path)
end)

test("wrong use", function()
  local g = kiln.script(loss)
  raises(function() g:grad { input = 1 } end, "grad: there is no option 'input'; there are inputs, memory, value")
  raises(function() g:grad { inputs = 1 } end, "grad: option 'inputs' must be a table, got number")
  raises(function() g:grad(3) end, "grad: options must be a table, got number")
  raises(function() g:grad { inputs = { "x" } } end, "grad: entry 1 of inputs must be the position of an argument, got x")
  raises(function() g:grad { inputs = { 3 } }(T { 1.0 }, T { 1.0 }, 2) end, "grad: argument 3 is no floating tensor")
  local two = kiln.script(function(x) return x * 2 end):grad()
  truth(two(T { 1.0 }):item() == 2)
  raises(function() two(T { 1.0, 2 }) end, "")
  local loaded = kiln.parse "graph f(%x: float32[1]) {\n  return %x\n}\n"
  raises(function() loaded:grad() end, "grad: this graph was not captured from a function here")
end)
