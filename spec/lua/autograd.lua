-- Autograd as seen from Lua. The gradient of every op is swept in C.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises

test("backward accumulates into leaves", function()
  local x = kiln.tensor({ 1.0, 2.0 }, { requires_grad = true })
  local w = kiln.tensor { 3.0, 4.0 }:requires_grad_()
  local y = (x * w):sum()
  equal(y.requires_grad, true)
  equal(y.is_leaf, false)
  equal(x.is_leaf, true)
  y:backward()
  tensor(x.grad, { 3.0, 4.0 })
  tensor(w.grad, { 1.0, 2.0 })
  local again = (x * 2):sum()
  again:backward()
  tensor(x.grad, { 5.0, 6.0 })
  x.grad = nil
  equal(x.grad, nil)
  x.grad = kiln.ones(2)
  tensor(x.grad, { 1.0, 1.0 })
end)

test("backward with a gradient given", function()
  local x = kiln.tensor({ 1.0, 2.0 }, { requires_grad = true })
  local y = x * x
  raises(function() y:backward() end, "float32[2]")
  y:backward(kiln.tensor { 1.0, 10.0 })
  tensor(x.grad, { 2.0, 40.0 })
  raises(function() (x * x):backward(3) end, "backward: the gradient must be a tensor, got an integer")
  raises(function() (x * x):backward(kiln.ones(3)) end, "[3]")
  raises(function() kiln.ones(1):backward() end, "grad")
end)

test("kiln.grad leaves grad fields alone", function()
  local x = kiln.tensor({ 2.0 }, { requires_grad = true })
  local unused = kiln.tensor({ 1.0 }, { requires_grad = true })
  tensor(kiln.grad(x ^ 3, x), { 12.0 })
  equal(x.grad, nil)
  local both = kiln.grad({ x * 2, x * 3 }, { x })
  tensor(both[1], { 5.0 })
  raises(function() kiln.grad(x * 2, { x, unused }) end, "grad: input 2 takes no part")
  local some = kiln.grad(x * 2, { x, unused }, { allow_unused = true })
  tensor(some[1], { 2.0 })
  equal(some[2], false)
  tensor(kiln.grad({ x * x }, x, { grad_outputs = { kiln.tensor { 10.0 } } }), { 40.0 })
  raises(function() kiln.grad(x * x, x, { grad_outputs = { x, x } }) end, "as many grad_outputs as outputs")
end)

test("higher orders", function()
  local x = kiln.tensor({ 2.0 }, { requires_grad = true })
  local first = kiln.grad(x ^ 4, x, { create_graph = true })
  tensor(first, { 32.0 })
  local second = kiln.grad(first, x, { create_graph = true })
  tensor(second, { 48.0 })
  tensor(kiln.grad(second, x), { 48.0 })
end)

test("grad mode", function()
  local x = kiln.tensor({ 1.0 }, { requires_grad = true })
  local a, b = kiln.no_grad(function(...)
    equal(kiln.is_grad_enabled(), false)
    return x * 2, ...
  end, "passed on")
  equal(a.requires_grad, false)
  equal(b, "passed on")
  equal(kiln.is_grad_enabled(), true)
  raises(function() kiln.no_grad(function() error("inside", 0) end) end, "inside")
  equal(kiln.is_grad_enabled(), true)
  kiln.no_grad(function()
    equal(kiln.enable_grad(function() return (x * 2).requires_grad end), true)
  end)
  equal(kiln.set_grad_enabled(false), true)
  equal(kiln.set_grad_enabled(true), false)
  equal(x:detach().requires_grad, false)
  equal((x * 2):detach():requires_grad_().is_leaf, true)
end)

test("requires_grad", function()
  raises(function() kiln.tensor({ 1 }, { requires_grad = true }) end, "int64")
  local x = kiln.tensor({ 1.0 }, { requires_grad = true })
  x.requires_grad = false
  equal(x.requires_grad, false)
  x.requires_grad = true
  local y = x * 2
  raises(function() y.requires_grad = false end, "grad")
  raises(function() x:add_(1) end, "add_: ", "leaf")
  kiln.no_grad(function() x:add_(1) end)
  tensor(x, { 2.0 })
end)

test("a copy has no history", function()
  local x = kiln.tensor({ 1.0 }, { requires_grad = true })
  equal(kiln.tensor(x * 2).requires_grad, false)
  equal((x * 2):clone().requires_grad, true)
end)

test("gradcheck tells right from wrong", function()
  local function random(...) return kiln.randn({ ... }, { dtype = "float64", requires_grad = true }) end
  equal(kiln.gradcheck(function(a, b) return (a:matmul(b)):tanh() end, { random(2, 3), random(3, 2) }), true)
  equal(kiln.gradcheck(function(x) return x:softmax(2), x:sum(1) end, random(3, 4)), true)
  raises(function() kiln.gradcheck(function(x) return x.detach(x) * x end, random(2)) end, "gradcheck: input 1, element 1")
  raises(function() kiln.gradcheck(function(x) return x end, kiln.randn(2):requires_grad_()) end, "must be float64")
  raises(function() kiln.gradcheck(function(x) return x end, kiln.randn(2)) end, "no input requires grad")
end)

test("a value changed after it was saved is noticed", function()
  local x = kiln.tensor({ 1.0, 2.0 }, { requires_grad = true })
  local h = x * 2
  local y = (h * h):sum()
  kiln.no_grad(function() h:add_(1) end)
  raises(function() y:backward() end, "mul")
end)

test("long chains are freed without deep recursion", function()
  local x = kiln.tensor({ 1.0 }, { requires_grad = true })
  local y = x
  for _ = 1, 100000 do y = y + 1 end
  y:backward()
  tensor(x.grad, { 1.0 })
  y = nil
  collectgarbage()
end)

test("hooks may release what the walk began at or goes to, or write over it", function()
  local x = kiln.ones(2):requires_grad_()
  local y = (x * 2):sum()
  y:register_hook(function()
    y:release()
    collectgarbage()
  end)
  y:backward()
  tensor(x.grad, { 2.0, 2.0 })

  local gone = kiln.ones(2):requires_grad_()
  local q = (gone * x):sum()
  q:register_hook(function() gone:release() end)
  q:backward { inputs = { gone, x } }
  tensor(x.grad, { 3.0, 3.0 })

  local z = x * 3
  z:register_hook(function()
    kiln.enable_grad(function() z:copy_(x) end)
    collectgarbage()
  end)
  z:backward(kiln.ones(2), { inputs = x })
  tensor(x.grad, { 6.0, 6.0 })

  local a = kiln.ones(4):requires_grad_() * 2
  local v = a[{ { 1, 2 } }]
  local s = (v * 3):sum()
  s:register_hook(function()
    kiln.enable_grad(function() v:mul_(2) end)
  end)
  tensor(kiln.grad(s, v), { 3.0, 3.0 })
end)

test("a leaf that is gone is not given to its hooks, though a saved tensor shares its gradient", function()
  local saved, calls = nil, 0
  local square = kiln.custom_function {
    forward = function(ctx, x)
      ctx:save_for_backward(x)
      return x * x
    end,
    backward = function(ctx, g)
      saved = ctx.saved_tensors[1]
      return g * saved * 2
    end,
  }
  local x = kiln.ones(2):requires_grad_()
  x:register_post_accumulate_grad_hook(function() calls = calls + 1 end)
  local y = square(x):sum()
  kiln.grad(y, x, { create_graph = true })
  y:backward()
  equal(calls, 1)
  local kept = saved
  x = nil
  collectgarbage()
  collectgarbage()
  y:backward()
  equal(calls, 1)
  tensor(kept, { 1.0, 1.0 })
end)

test("products with zeros have all their derivatives", function() -- PyTorch's numbers
  local function derivatives(f)
    local x = kiln.tensor({ { 0, 2, 3, 0 }, { 1.5, 0, 2, -1 }, { 1, 2, 3, 4 } }, { dtype = "float64", requires_grad = true })
    local v = (kiln.arange(12):double() % 5 - 2):reshape(3, 4)
    local y = f(x)
    local w, all = kiln.arange(1, y:numel() + 1):double():reshape_as(y), {}
    local t = (y * w):sum()
    for order = 1, 3 do
      local g = kiln.grad(t, x, { create_graph = true })
      g = type(g) == "table" and g[1] or g
      all[order], t = g, (g * v):sum()
    end
    return all
  end
  local d = derivatives(function(x) return x:prod(2) end)
  tensor(d[1], { { 0.0, 0.0, 0.0, 0.0 }, { 0.0, -6.0, 0.0, 0.0 }, { 72.0, 36.0, 24.0, 18.0 } })
  tensor(d[2], { { 6.0, 0.0, 0.0, -12.0 }, { 8.0, -5.0, 6.0, -12.0 }, { 6.0, 3.0, 42.0, 24.0 } })
  tensor(d[3], { { -6.0, -12.0, -8.0, 12.0 }, { -8.0, 8.0, 16.0, -20.0 }, { -108.0, -54.0, 24.0, -12.0 } })
  d = derivatives(function(x) return x:prod() end)
  tensor(d[2], kiln.zeros(3, 4):totable())
  tensor(d[3], { { 1728.0, 0.0, 0.0, -3456.0 }, { 0.0, 1728.0, 0.0, 0.0 }, { 0.0, 0.0, 0.0, 0.0 } })
  d = derivatives(function(x) return x:cumprod(2) end)
  tensor(d[1], { { 23.0, 0.0, 0.0, 0.0 }, { 5.0, 6.0, 0.0, 0.0 }, { 383.0, 187.0, 118.0, 72.0 } })
  tensor(d[2], { { 13.0, -22.0, -12.0, -48.0 }, { -8.0, 9.5, 3.0, -48.0 }, { 66.0, 33.0, 212.0, 96.0 } })
  tensor(d[3], { { -24.0, -48.0, -20.0, 48.0 }, { -4.0, 4.0, 8.0, -80.0 }, { -520.0, -260.0, 140.0, -48.0 } })
end)

test("an error in a hook is raised as it was; more is said where it came from a custom function", function()
  local function message(f) return select(2, pcall(f)) end
  local x = kiln.ones(2):requires_grad_()
  local long = ("long "):rep(1000)
  local h = x:register_hook(function() error(long, 0) end)
  equal(message(function() (x * 2):sum():backward() end), long)
  h:remove()
  x:register_hook(function() error "boom" end)
  local why = message(function() (x * 2):sum():backward() end)
  check.truth(why:match "^[^ ]*autograd%.lua:%d+: boom$", why)
  local bad = kiln.custom_function { forward = function(_, t) return t * 1 end, backward = function() error "inside" end, name = "bad" }
  why = message(function() bad(kiln.ones(2):requires_grad_()):sum():backward() end)
  check.truth(why:match "^[^ ]*autograd%.lua:%d+: backward of bad: [^ ]*autograd%.lua:%d+: inside$", why)
end)

test("a view keeps its gradient through writes", function()
  local x = kiln.arange(4.0):requires_grad_()
  local y = x * 1
  local v, w = y[{ { 1, 2 } }], y[{ { 2, 3 } }]
  v:retain_grad()
  w:retain_grad()
  v:mul_(3);
  (v * 2 + w):sum():backward()
  tensor(v.grad, { 2.0, 2.0 })
  tensor(w.grad, { 1.0, 1.0 })
  tensor(x.grad, { 6.0, 9.0, 1.0, 0.0 })
end)
