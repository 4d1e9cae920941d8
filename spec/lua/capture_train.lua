-- Training inside captured functions: backward, kiln.grad, fields of gradients, optimisers; whole steps, to the bit.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim

-- Runs `train(script)` twice from the same seed, with functions as they are and captured; what it gives is the same.
local function agree(name, train)
  test(name, function()
    local threads = kiln.get_num_threads()
    kiln.set_num_threads(1) -- small things: a second thread would only wait
    kiln.use_deterministic_algorithms(true)
    local function run(script)
      kiln.manual_seed(11)
      local all = { train(script) }
      all[#all + 1] = kiln.rand(1):item()
      return all
    end
    local want = run(function(f) return f end)
    local got = run(kiln.script)
    kiln.use_deterministic_algorithms(false)
    kiln.set_num_threads(threads)
    equal(got, want)
    truth(check.identical(got, want), "they are the same to the bit")
  end)
end

local function values(list)
  local out = {}
  for i, t in ipairs(list) do out[i] = t and t:totable() or false end
  return out
end

local function grads(net)
  local out = {}
  for i, p in ipairs(net:parameters()) do out[i] = p.grad or false end
  return values(out)
end

-- ---- whole steps ----

local function step_of(net, opt, loss_of)
  return function(x, y)
    opt:zero_grad()
    local loss = loss_of(net(x), y)
    loss:backward()
    opt:step()
    return loss
  end
end

local optimisers = {
  { "SGD", {} },
  { "SGD", { momentum = 0.9 } },
  { "SGD", { momentum = 0.9, nesterov = true, weight_decay = 0.01 } },
  { "SGD", { momentum = 0.5, dampening = 0.1 } },
  { "Adam", { weight_decay = 0.01 } },
  { "AdamW", {} },
  { "RMSprop", { momentum = 0.5, weight_decay = 0.1 } },
  { "RMSprop", { centered = true, maximize = true } },
  { "Adam", { amsgrad = true, betas = { 0.8, 0.99 } } },
  { "Adamax", {} },
  { "NAdam", { decoupled_weight_decay = true, weight_decay = 0.1 } },
  { "RAdam", { betas = { 0.5, 0.6 } } },
  { "Adagrad", { lr_decay = 0.1, initial_accumulator_value = 0.5 } },
  { "Adadelta", {} },
  { "Rprop", {} },
  { "ASGD", { t0 = 2, lambd = 0.1 } },
}
for _, o in ipairs(optimisers) do
  local name, options = o[1], o[2]
  local text = {}
  for k, v in pairs(options) do text[#text + 1] = k .. " " .. (type(v) == "table" and table.concat(v, "-") or tostring(v)) end
  table.sort(text)
  agree("a step of " .. name .. " " .. table.concat(text, ", "), function(script)
    local net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    local opt = optim[name](net:parameters(), options)
    local step = script(step_of(net, opt, F.cross_entropy))
    local x, y, losses = kiln.randn(5, 6), kiln.randint(1, 4, { 5 }), {}
    for i = 1, 5 do losses[i] = step(x, y):item() end
    local state = {}
    for i, s in ipairs(opt.state) do
      state[i] = {}
      for k, v in pairs(s) do state[i][k] = kiln.is_tensor(v) and v:totable() or v end
    end
    return losses, values(net:parameters()), grads(net), state
  end)
end

-- Which backend computes a product depends on its size; a graph asks as eager does, also where it could not plan.
agree("few rows, many rows, and rows that a loop adds", function(script)
  local net = nn.Linear(64, 10)
  local out = {}
  local step = script(function(x, y)
    net.weight.grad, net.bias.grad = nil, nil
    local loss = F.cross_entropy(net(x), y)
    loss:backward()
    return loss
  end)
  for _, n in ipairs { 1, 5, 8, 9, 33 } do
    out[#out + 1] = step(kiln.rand(n, 64), kiln.randint(1, 11, { n })):item()
    out[#out + 1] = grads(net)
  end
  local grow = script(function(x)
    local h = x
    while h:sum():item() < 2000 do h = kiln.cat { h, x } end
    return h:matmul(net.weight:t()):exp()
  end)
  out[#out + 1] = kiln.no_grad(grow, kiln.rand(3, 64)):totable()
  return out
end)

local Running = nn.Module:extend "Running"
function Running:init() self:register_buffer("mean", kiln.zeros(6)) end
function Running:forward(x)
  if self.training then
    local mean = x:detach():mean { 1 }
    self.mean:mul_(0.9):add_(mean * 0.1)
    return x - mean
  end
  return x - self.mean
end

agree("a buffer's running values, and several steps in one call", function(script)
  local net = nn.Sequential(nn.Linear(4, 6), Running(), nn.Tanh(), nn.Linear(6, 1))
  local opt = optim.SGD(net:parameters(), { lr = 0.05, momentum = 0.9 })
  local x, y = kiln.randn(8, 4), kiln.randn(8, 1)
  local epoch = script(function(a, b)
    local loss
    for _ = 1, 3 do
      opt:zero_grad()
      loss = F.mse_loss(net(a), b)
      loss:backward()
      opt:step()
    end
    return loss
  end)
  local last
  for _ = 1, 4 do last = epoch(x, y):item() end
  return last, values(net:parameters()), values(net:buffers())
end)

agree("a loop of steps until the loss is small", function(script)
  local w = T { 4.0, -3 }:requires_grad_()
  local opt = optim.SGD({ w }, { lr = 0.2 })
  local fit = script(function(target)
    local n = 0
    local loss
    repeat
      opt:zero_grad()
      loss = ((w - target) * (w - target)):sum()
      loss:backward()
      opt:step()
      n = n + 1
    until loss:item() < 0.01 or n == 50
    return loss, n
  end)
  local a, n = fit(T { 1.0, 1.0 })
  local b, m = fit(T { -1.0, 2.0 })
  return a:item(), n, b:item(), m, w:totable()
end)

agree("a penalty on the gradient", function(script)
  local net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
  local opt = optim.Adam(net:parameters(), { lr = 0.05 })
  local step = script(function(x)
    opt:zero_grad()
    local at = x:detach():requires_grad_()
    local y = net(at)
    local g = kiln.grad(y:sum(), at, { create_graph = true })
    local loss = y:pow(2):mean() + (g * g):mean()
    loss:backward()
    opt:step()
    return loss, g
  end)
  local loss, g
  for _ = 1, 4 do loss, g = step(kiln.ones(4, 3)) end
  -- through gradients of gradients sums may be added in another order than eager's
  local all = { loss:item(), g:sum():item() }
  for _, p in ipairs(net:parameters()) do all[#all + 1] = p:sum():item() end
  for i, v in ipairs(all) do all[i] = ("%.5f"):format(v) end
  return all
end)

-- ---- gradients as state ----

agree("gradients add up over calls, and are read", function(script)
  local w = T { 2.0, 3 }:requires_grad_()
  local f = script(function(x)
    local before = w.grad
    local y = (x * w):sum()
    y:backward()
    return before and before * 1 or x * 0, w.grad * 2
  end)
  local out = {}
  for i = 1, 3 do out[i] = values { f(T { i, 1.0 }) } end
  w.grad = nil
  out[4] = values { f(T { 1.0, 1.0 }) }
  return out, w.grad:totable()
end)

agree("gradients set to nil are nil afterwards", function(script)
  local w = T { 2.0 }:requires_grad_()
  local f = script(function(x)
    (x * w):sum():backward()
    local g = w.grad * 1
    w.grad = nil
    return g
  end)
  return f(T { 3.0 }):totable(), f(T { 4.0 }):totable(), w.grad == nil
end)

agree("a parameter used on one path only", function(script)
  local a, b = T { 2.0 }:requires_grad_(), T { 3.0 }:requires_grad_()
  local f = script(function(x)
    a.grad, b.grad = nil, nil
    local y
    if x:sum() > 0 then y = x * a else y = x * b end
    y:sum():backward()
    local n = 0
    if a.grad then n = n + 1 a.grad = nil end
    if b.grad then n = n + 2 b.grad = nil end
    return n, y
  end)
  local n, y = f(T { 1.0 })
  local m, z = f(T { -1.0 })
  return n, m, y:totable(), z:totable()
end)

agree("requires_grad, is_leaf, detach, no_grad, grad modes", function(script)
  local w = T { 2.0 }:requires_grad_()
  local f = script(function(x)
    local y = x * w
    local z = kiln.no_grad(function() return y * 2 end)
    return y.requires_grad, x.requires_grad, w.requires_grad, y:detach().requires_grad, z.requires_grad, w.is_leaf, y.is_leaf,
      kiln.is_grad_enabled(), kiln.no_grad(kiln.is_grad_enabled)
  end)
  return { f(T { 1.0 }) }, { kiln.no_grad(f, T { 1.0 }) }
end)

agree("gradients that are there at the end on some path only", function(script)
  local a, b = T { 2.0 }:requires_grad_(), T { 3.0 }:requires_grad_()
  local fresh = script(function(x)
    a.grad, b.grad = nil, nil
    local y = x * a
    if x:sum() > 0 then y = y * b end
    y:sum():backward()
  end)
  local adding = script(function(x)
    local y = x:sum() > 0 and x * a or x * b
    y:sum():backward()
    for _ = 1, x:abs():item() // 1 do (x * b):sum():backward() end
    return a.grad and a.grad * 1
  end)
  local out = {}
  local function note() out[#out + 1] = { a.grad and a.grad:item() or false, b.grad and b.grad:item() or false } end
  for _, v in ipairs { 1.0, -1.0, 2.0, -2.0 } do fresh(T { v }) note() end
  a.grad, b.grad = nil, nil
  for _, v in ipairs { 0.5, -0.5, 2.0, -3.0 } do
    local g = adding(T { v })
    note()
    out[#out + 1] = g and g:item() or false
  end
  return out
end)

agree("backward with options", function(script)
  local a, b = T { 2.0, 1 }:requires_grad_(), T { 3.0, -1 }:requires_grad_()
  local f = script(function(x)
    a.grad, b.grad = nil, nil
    local y = x * a * b
    y:backward(x * 2, { inputs = { a }, retain_graph = true })
    y:sum():backward { inputs = a }
    local none = b.grad == nil
    y:sum():backward { create_graph = true, inputs = { b } }
    local second = kiln.grad(b.grad:sum(), a)
    b.grad = b.grad:detach()
    return none, second
  end)
  local none, second = f(T { 1.0, 2 })
  return none, second:totable(), a.grad:totable(), b.grad:totable()
end)

test("wrong options of backward are told as eager tells them", function()
  local w = T { 2.0 }:requires_grad_()
  local function both(text, f)
    raises(function() f(T { 1.0 }) end, text)
    raises(function() kiln.script(f)(T { 1.0 }) end, text)
  end
  both("backward: there is no option 'input'", function(x) (x * w):backward { input = w } end)
  both("grad: there is no option 'inputs'", function(x) return kiln.grad(x * w, w, { inputs = w }) end)
  both("backward: options must be a table, got ", function(x) (x * w):backward(x, 3) end)
  both("backward: the gradient must be a tensor, got ", function(x) (x * w):backward "x" end)
  both("backward: entry 1 of inputs must be a tensor, got ", function(x) (x * w):backward { inputs = { 1 } } end)
  both("backward: input 1 does not require grad", function(x) (x * w):backward { inputs = { x } } end)
  equal(w.grad, nil)
end)

agree("kiln.grad of several, with weights", function(script)
  local w, v = T { 1.0, 2 }:requires_grad_(), T { 3.0, 4 }:requires_grad_()
  local f = script(function(x)
    local a, b = x * w, w * v * x
    local g = kiln.grad({ a, b }, { w, v }, { grad_outputs = { x, x * 2 } })
    local unused = kiln.grad(a:sum(), { w, v }, { allow_unused = true })
    return g[1], g[2], unused[1], unused[2]
  end)
  local a, b, c, d = f(T { 0.5, 1 })
  return values { a, b, c }, d, w.grad == nil
end)

agree("a gradient clipped in place", function(script)
  local w = T { 1.0, 2 }:requires_grad_()
  local f = script(function(x)
    w.grad = nil
    (x * w * w):sum():backward()
    w.grad:clamp_(-1, 1)
    return w.grad * 1
  end)
  return f(T { 0.1, 5 }):totable(), f(T { 0.2, 5 }):totable(), w.grad:totable()
end)

-- ---- what it depends on ----

test("a frozen parameter is seen", function()
  local a, b = T { 2.0 }:requires_grad_(), T { 3.0 }:requires_grad_()
  local g = kiln.script(function(x)
    a.grad, b.grad = nil, nil
    (x * a * b):sum():backward()
  end)
  g(T { 1.0 })
  equal({ a.grad:item(), b.grad:item() }, { 3.0, 2.0 })
  b:requires_grad_(false)
  g(T { 1.0 })
  equal(a.grad:item(), 3.0)
  equal(b.grad, nil)
end)

test("errors are eager's", function()
  local w = T { 2.0, 3 }:requires_grad_()
  local function both(f, ...)
    local x = T { 1.0, 2 }
    raises(function() f(x) end, ...)
    raises(function() kiln.script(f)(x) end, ...)
  end
  both(function(x) (x * 2):sum():backward() end, "does not require grad")
  both(function(x) (x * w):backward() end, "a gradient must be given for a tensor")
  both(function(x) return kiln.grad((x * w):sum(), x) end, "grad: input 1 does not require grad")
  both(function(x) return kiln.grad(x * w, w) end, "a gradient must be given for a tensor")
  both(function(x) return kiln.grad({ (x * w):sum(), x * 2 }, w) end, "does not require grad")
  both(function(x) return kiln.grad(x * w, w, { grad_outputs = { x:sum() } }) end, "a gradient float32[] was given for a tensor")
  both(function(x) return kiln.grad(x * w, w, { grad_outputs = { kiln.cat { x, x } } }) end, "was given for a tensor")
  both(function(x) w:add_(x) return x * 2 end, "a leaf that requires grad is being changed in place")
  w.grad = nil
end)

test("the result of a step is on the tape as eager's, and its gradient is refused as there", function()
  local w = T { 2.0 }:requires_grad_()
  local opt = optim.SGD({ w }, { lr = 0.1 })
  local step = kiln.script(function(x)
    opt:zero_grad()
    local loss = (x * w * w):sum()
    loss:backward()
    opt:step()
    return loss
  end)
  local loss = step(T { 1.0 })
  truth(loss.requires_grad)
  raises(function() loss:backward() end, "overwrites")
end)

test("a learning rate that changes at every step is read, not burnt in", function()
  local function run(script)
    kiln.manual_seed(3)
    local net = nn.Linear(3, 2)
    local opt = optim.Adam(net:parameters(), { lr = 0.01 })
    local step = script(step_of(net, opt, F.mse_loss))
    for i = 1, 20 do
      opt.lr = 0.01 / i
      step(kiln.randn(5, 3), kiln.randn(5, 2))
    end
    return net.weight:totable(), step
  end
  kiln.use_deterministic_algorithms(true)
  local want = run(function(f) return f end)
  local got, step = run(kiln.script)
  kiln.use_deterministic_algorithms(false)
  equal(got, want)
  truth(step:captures().n <= 3, "a few captures")
end)

-- Every optimiser with every schedule, stopped in the middle: what state_dict gave goes on in other objects.
for _, name in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
  agree(name .. " with schedules, stopped and resumed", function(script)
    local function schedules(opt)
      local s = optim.lr_scheduler
      return { s.StepLR(opt, 2, 0.5), s.ExponentialLR(opt, 0.9), s.CosineAnnealingLR(opt, 6, 1e-4), s.LambdaLR(opt, function(e) return 1 / (1 + e) end) }
    end
    local function make()
      local net = nn.Sequential(nn.Linear(4, 6), Running(), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 2))
      local opt = optim[name](net:parameters(), { lr = 0.05, weight_decay = 0.01 })
      local step = script(step_of(net, opt, F.mse_loss))
      return net, opt, step
    end
    local out = {}
    for k = 1, 4 do
      local net, opt, step = make()
      local schedule, x, y = schedules(opt)[k], kiln.randn(6, 4), kiln.randn(6, 2)
      for _ = 1, 3 do
        out[#out + 1] = step(x, y):item()
        schedule:step()
      end
      local weights, state, at = net:state_dict(), opt:state_dict(), schedule:state_dict()
      local other, opt2, step2 = make()
      other:load_state_dict(weights)
      opt2:load_state_dict(state)
      local schedule2 = schedules(opt2)[k]
      schedule2:load_state_dict(at)
      for _ = 1, 3 do
        out[#out + 1] = step2(x, y):item()
        schedule2:step()
        out[#out + 1] = opt2.lr
      end
      out[#out + 1] = values(other:parameters())
      out[#out + 1] = values(other:buffers())
      for i, s in ipairs(opt2.state) do
        local list = {}
        for key, v in pairs(s) do list[key] = kiln.is_tensor(v) and v:totable() or v end
        out[#out + 1] = list
      end
    end
    return out
  end)
end

test("a step that was saved goes on where the file begins, in its session", function()
  kiln.use_deterministic_algorithms(true)
  kiln.manual_seed(1)
  local net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
  local opt = optim.Adam(net:parameters(), { lr = 0.01 })
  local g = kiln.script(step_of(net, opt, F.cross_entropy))
  local x, y, path = kiln.randn(5, 6), kiln.randint(1, 4, { 5 }), os.tmpname()
  g(x, y)
  g(x, y)
  g:save(path)
  local h = kiln.load(path)
  os.remove(path)
  for _ = 1, 4 do equal(h(x, y):item(), g(x, y):item()) end
  kiln.use_deterministic_algorithms(false)
end)

-- ---- how a step runs ----

local function is_native()
  for _, b in ipairs(kiln.backends()) do
    if b.available and b.name == "cpu" then return true end
  end
end

-- How many walks over elements the line takes that is marked so.
local function walks(g, line, ...)
  local n = 0
  for _, row in ipairs(g:profile(..., { runs = 1 }).nodes) do
    local numbers = row.op:find "^lua%." or row.op:find "^to_tensor" or row.op:find "_state"
    if not numbers and row.where and row.where:find(line, 1, true) then n = n + 1 end
  end
  return n
end

for _, o in ipairs(optimisers) do
  local name = o[1]
  if name ~= "RAdam" and name ~= "ASGD" then -- these ask how many steps there were
    test("an update of " .. name .. " is one walk over each parameter", function()
      if not is_native() then check.skip "nothing fuses here" end
      local threads = kiln.get_num_threads()
      local net = nn.Sequential(nn.Linear(96, 160), nn.ReLU(), nn.Linear(160, 96))
      local opt = optim[name](net:parameters(), o[2])
      local at
      local function step(x)
        opt:zero_grad()
        net(x):square():mean():backward()
        opt:step()
      end
      at = "capture_train.lua:" .. debug.getinfo(step, "S").linedefined + 3
      for _, n in ipairs { 1, 2 } do
        kiln.set_num_threads(n)
        local g, x = kiln.script(step), kiln.randn(8, 96)
        for _ = 1, 3 do g(x) end
        equal(walks(g, at, x), 4, n .. " threads")
      end
      kiln.set_num_threads(threads)
    end)
  end
end

test("what a step overwrites stays the tensor it is, to all that show its elements", function()
  for _, n in ipairs { 4, 1000 } do
    local w, at_once = nn.Parameter(kiln.ones(n)), kiln.ones(n)
    local view, handle = w:detach():narrow(1, 2, 2), w:detach()
    local opt = optim.SGD({ w }, { lr = 1, momentum = 0.5 })
    local fail = 0
    local step = kiln.script(function(x)
      opt:zero_grad()
      local loss = (w * x):sum()
      loss:backward()
      opt:step()
      at_once:add_(w:detach())
      if x:sum():item() < 0 then error "no" end
      return loss
    end)
    local x, want, sum, speed = kiln.ones(n), 1, 1, 0
    for i = 1, 6 do
      local y = (w * w):sum() -- keeps w for its gradient
      local m = opt.state[1].momentum_buffer
      equal(step(x):item(), 1.0 * want * n)
      speed = speed * 0.5 + 1
      want = want - speed
      sum = sum + want
      for _, t in ipairs { w, view, handle } do truth(t:eq(want):all():item(), "the new elements") end
      truth(at_once:eq(sum):all():item(), "a sum of them")
      truth(not m or m == opt.state[1].momentum_buffer, "its state stays the tensor it is")
      raises(function() y:backward() end, "changed in place")
      raises(function() step(-x) end, "no")
      truth(view:eq(want):all():item() and opt.state[1].momentum_buffer:eq(speed):all():item(), "an error undoes it")
      if i % 2 == 0 then
        kiln.no_grad(function() w:fill_(i) end)
        want = i
      end
    end
  end
end)

-- A layer keeps its input, what tanh gave and its result; the sums and products around tanh are computed again.
test("of a function of sums and products only what takes longer is kept for the gradient", function()
  local layers, n, width = 6, 256, 64
  local net = nn.ModuleList()
  for i = 1, layers do net:append(nn.Linear(width, width)) end
  local function act(x) return x * (((x + x * x * x * 0.044715) * 0.7978845608):tanh() + 1) * 0.5 end
  local step = kiln.script(function(x)
    for _, p in ipairs(net:parameters()) do p.grad = nil end
    for i = 1, #net do x = act(net[i](x)) end
    local loss = x:square():mean()
    loss:backward()
    return loss
  end)
  local x = kiln.randn(n, width)
  for _ = 1, 2 do step(x) end
  local _, m = step:memory(x)
  local each = m.arena / (4 * n * width * layers)
  truth(each < 4.5, ("%.2f tensors a layer"):format(each))
end)

test("a backward that reads one of several results", function()
  local function step()
    local w = T { { 0.5, -1.0 }, { 2.0, 0.25 } }:requires_grad_()
    return function(x)
      local y = (kiln.sort(x, 1) * w):matmul(x)
      local loss = (y * y):sum()
      loss:backward()
      local g = w.grad
      w.grad = nil
      return loss:detach(), g
    end
  end
  local f, g = step(), kiln.script(step())
  for i = 1, 3 do
    local x = T { { 1.0, -i }, { 0.5, 2.0 } }
    local loss, grad = f(x)
    local got, its = g(x)
    equal({ got:item(), its:totable() }, { loss:item(), grad:totable() })
  end
end)
