-- kiln.checkpoint inside captured functions: values, gradients and the random stream are those of eager code, to the bit; what
-- the function computed is computed again for the gradient, and not kept.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor
local nn, F = kiln.nn, kiln.nn.functional

-- `make()` gives tensors that get gradients and a function of x and of kiln.checkpoint, or of a call as it is. Each way a step
-- is taken inside captured code, and around a captured function.
local function agree(name, make, ...)
  local inputs = { ... }
  test(name, function()
    local threads = kiln.get_num_threads()
    kiln.set_num_threads(1)
    kiln.use_deterministic_algorithms(true)
    local function run(call, whole, loss)
      kiln.manual_seed(5)
      local params, f = make()
      local function forward(x) return f(x, call) end
      forward = loss(forward)
      local step = whole(function(x)
        for _, p in ipairs(params) do p.grad = nil end
        local y = forward(x)
        y:backward()
        return y
      end)
      local all = {}
      for i, x in ipairs(inputs) do
        local y = step(x)
        all[i] = { y:totable() }
        for k, p in ipairs(params) do all[i][k + 1] = p.grad and p.grad:totable() or false end
      end
      all[#all + 1] = kiln.rand(1):item()
      return all
    end
    local function same(g) return g end
    local function plain(g, ...) return g(...) end
    local want = run(kiln.checkpoint, same, same)
    for i, got in ipairs { run(plain, same, same), run(kiln.checkpoint, kiln.script, same), run(kiln.checkpoint, same, kiln.script),
                           run(kiln.checkpoint, kiln.script, kiln.script) } do
      equal(got, want)
      truth(check.identical(got, want), "way " .. i .. " is the same to the bit")
    end
    kiln.use_deterministic_algorithms(false)
    kiln.set_num_threads(threads)
  end)
end

local function parameter(...) return nn.Parameter(kiln.randn(...)) end
local x4, x6 = kiln.randn(4, 3), kiln.randn(6, 3)

agree("blocks one after the other", function()
  local a, b, c = parameter(3, 8), parameter(8, 8), parameter(8, 1)
  return { a, b, c }, function(x, call)
    local h = call(function(v) return (v:matmul(a)):tanh():exp() + 1 end, x)
    h = call(function(v) return v:matmul(b):softmax(2) * v:log() end, h)
    return h:matmul(c):sum()
  end
end, x4, x6)

agree("dropout inside, and a draw after it", function()
  local a, b = parameter(3, 8), parameter(8, 1)
  return { a, b }, function(x, call)
    local h = call(function(v) return F.dropout(v:matmul(a):relu(), 0.5) * kiln.rand(8) end, x)
    return (h + kiln.randn(8)):matmul(b):sum()
  end
end, x4, x6, x4)

agree("branches and loops inside, and around", function()
  local a, b = parameter(3, 3), parameter(3)
  return { a, b }, function(x, call)
    local h = x
    for i = 1, 3 do
      h = call(function(v, n)
        if v:sum():item() > 0 then v = v:matmul(a):tanh() else v = v * b - n end
        while v:abs():max():item() > 1 do v = v / 2 * b:sigmoid() end
        return v
      end, h, i)
    end
    while h:abs():sum():item() > 0.1 do h = call(function(v) return v * b:cos() * 0.5 end, h) end
    if h:mean():item() > 0 then h = call(function(v) return v:exp() end, h) end
    return h:sum()
  end
end, x4, -x4, x6)

agree("one in another; several results; a tensor from around", function()
  local a, b = parameter(3, 4), parameter(4)
  return { a, b }, function(x, call)
    local outer = x.exp(x)
    local y, z = call(function(v, u)
      local s, t = call(function(w) return w:matmul(a):sin(), w * 2 end, v)
      return s * b, (t + u + outer):log1p()
    end, x * x, x:abs())
    return (y:sum() + z:sum()) * y:mean()
  end
end, x4, x6)

agree("views and writes to what it made", function()
  local a = parameter(3, 4)
  return { a }, function(x, call)
    local y = call(function(v)
      local h = v:matmul(a):exp()
      local k = h:clone()
      k[{ {}, 1 }] = h[{ {}, 2 }] * 3
      k:mul_(h)
      return k:t():reshape(-1)
    end, x)
    return (y * y):sum()
  end
end, x4, x6)

test("gradients of gradients", function()
  local function f(x) return kiln.checkpoint(function(v) return (v * v * v):sin() end, x) end
  local function twice(x)
    x = x:detach():requires_grad_()
    local g = kiln.grad(f(x):sum(), x, { create_graph = true })
    return g, kiln.grad((g * g):sum(), x)
  end
  local x = T { 0.3, -0.7, 1.1 }
  local g, h = twice(x)
  local i, j = kiln.script(twice)(x)
  check.near(i:totable(), g:totable(), 1e-6)
  check.near(j:totable(), h:totable(), 1e-4)
end)

test("what it computes is not kept", function()
  local w, x = nn.Parameter(kiln.randn(4)), kiln.randn(1000, 4)
  local function deep(v) for _ = 1, 8 do v = (v * w):sin() end return v end
  local function bytes(call)
    local step = kiln.script(function(v)
      w.grad = nil
      for _ = 1, 4 do v = call(deep, v) end
      v:sum():backward()
      return w.grad
    end)
    local g = step(x):totable()
    return step:memory(x), g
  end
  local all, g = bytes(function(f, v) return f(v) end)
  local few, h = bytes(kiln.checkpoint)
  truth(check.identical(g, h))
  truth(few < 0.55 * all, ("%d bytes are less than half of %d"):format(few, all))
end)

test("a call around it keeps less, too", function()
  local w = nn.Parameter(kiln.randn(4))
  local function kept(call)
    local f = kiln.script(function(x)
      for _ = 1, 4 do x = call(function(v) for _ = 1, 8 do v = (v * w):sin() end return v end, x) end
      return x:sum()
    end)
    local x = kiln.randn(1000, 4)
    f(x):backward()
    collectgarbage() collectgarbage()
    local before = kiln.memory_stats().allocated
    local y = f(x)
    collectgarbage() collectgarbage()
    local now = kiln.memory_stats().allocated - before
    y:backward()
    return now
  end
  local all, few = kept(function(f, v) return f(v) end), kept(kiln.checkpoint)
  truth(few < 0.3 * all, ("%d bytes are less than %d"):format(few, all))
end)

test("what eager code would do twice is refused, where gradients are on", function()
  local n, w = 0, nn.Parameter(T { 2.0 })
  local buffer = T { 0.0 }
  for _, f in ipairs {
    function(v) n = n + 1 return v * w end,
    function(v) buffer:add_(1) return v * w end,
    function(v) print("twice") return v * w end,
  } do
    raises(function() kiln.script(function(x) return kiln.checkpoint(f, x) end)(T { 1.0 }) end, "capture_checkpoint.lua",
           "kiln.checkpoint writes to something outside of it, or prints")
  end
  local count = kiln.script(function(x)
    return kiln.no_grad(function() return kiln.checkpoint(function(v) n = n + 1 return v * n end, x) end)
  end)
  equal(count(T { 1.0 }):item(), 1.0)
  equal(count(T { 1.0 }):item(), 2.0)
  local inside = kiln.script(function(x)
    return kiln.checkpoint(function(v) local k = 0 local t = {} for i = 1, 3 do k = k + i t[i] = v * k end return t[3] end, x)
  end)
  equal(inside(T { 1.0 }):item(), 6.0)
end)

test("what it is called with", function()
  local g = kiln.script(function(v) return v * 2 end)
  equal(kiln.script(function(x) return kiln.checkpoint(g, x) end)(T { 1.0 }):item(), 2.0)
  equal(kiln.script(function(x) return kiln.no_grad(g, x) end)(T { 1.0 }):item(), 2.0)
  local net = nn.Linear(2, 2)
  local x = kiln.randn(3, 2)
  truth(kiln.script(function(v) return kiln.checkpoint(net, v) end)(x):equal(net(x)))
  local function sentence(f) return select(2, pcall(f, x)) end
  for _, f in ipairs { function() return kiln.checkpoint(3) end, function() return kiln.checkpoint() end,
                       function(v) return kiln.checkpoint(function() error "at once" end, v) end } do
    equal(sentence(kiln.script(f)), sentence(f))
  end
  raises(function() kiln.script(function() return kiln.checkpoint(error, "at once") end)() end, "give it a Lua function")
end)
