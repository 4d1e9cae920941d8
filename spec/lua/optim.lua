-- Optimisers against their recurrences, worked out here in plain Lua numbers.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local optim = kiln.optim

-- The parameter after each of `steps` steps on the loss 0.5 * a * p^2, whose gradient is a * p.
local function run(make, steps, a)
  local p = kiln.tensor({ 2.0, -1.0 }, { dtype = "float64", requires_grad = true })
  local opt = make { p }
  local path = {}
  for i = 1, steps do
    opt:zero_grad()
    local loss = (p * p):sum() * (0.5 * a)
    loss:backward()
    opt:step()
    path[i] = p:totable()
  end
  return path, opt
end

-- The same by a function update(p, g, state) on numbers.
local function by_hand(update, steps, a)
  local values, states, path = { 2.0, -1.0 }, { {}, {} }, {}
  for i = 1, steps do
    path[i] = {}
    for k = 1, 2 do
      values[k] = update(values[k], a * values[k], states[k])
      path[i][k] = values[k]
    end
  end
  return path
end

local function agree(make, update)
  check.near(run(make, 6, 1.5), by_hand(update, 6, 1.5), 1e-12)
end

test("SGD", function()
  agree(function(p) return optim.SGD(p, { lr = 0.1 }) end, function(p, g) return p - 0.1 * g end)
end)

test("SGD with momentum, weight decay, dampening, Nesterov", function()
  agree(function(p) return optim.SGD(p, { lr = 0.1, momentum = 0.9, weight_decay = 0.01 }) end, function(p, g, s)
    g = g + 0.01 * p
    s.v = s.v and 0.9 * s.v + g or g
    return p - 0.1 * s.v
  end)
  agree(function(p) return optim.SGD(p, { lr = 0.1, momentum = 0.8, dampening = 0.5 }) end, function(p, g, s)
    s.v = s.v and 0.8 * s.v + 0.5 * g or g
    return p - 0.1 * s.v
  end)
  agree(function(p) return optim.SGD(p, { lr = 0.1, momentum = 0.9, nesterov = true }) end, function(p, g, s)
    s.v = s.v and 0.9 * s.v + g or g
    return p - 0.1 * (g + 0.9 * s.v)
  end)
end)

local function adam(decay, decoupled)
  return function(p, g, s)
    if decoupled then p = p - 0.05 * decay * p else g = g + decay * p end
    s.t = (s.t or 0) + 1
    s.m = 0.9 * (s.m or 0) + 0.1 * g
    s.v = 0.999 * (s.v or 0) + 0.001 * g * g
    local m, v = s.m / (1 - 0.9 ^ s.t), s.v / (1 - 0.999 ^ s.t)
    return p - 0.05 * m / (math.sqrt(v) + 1e-8)
  end
end

test("Adam and AdamW", function()
  agree(function(p) return optim.Adam(p, { lr = 0.05 }) end, adam(0))
  agree(function(p) return optim.Adam(p, { lr = 0.05, weight_decay = 0.1 }) end, adam(0.1))
  agree(function(p) return optim.AdamW(p, { lr = 0.05, weight_decay = 0.1 }) end, adam(0.1, true))
end)

test("RMSprop", function()
  agree(function(p) return optim.RMSprop(p, { lr = 0.01, momentum = 0.5 }) end, function(p, g, s)
    s.q = 0.99 * (s.q or 0) + 0.01 * g * g
    s.v = 0.5 * (s.v or 0) + g / (math.sqrt(s.q) + 1e-8)
    return p - 0.01 * s.v
  end)
end)

test("a parameter without a grad stays", function()
  local a, b = kiln.ones(1):requires_grad_(), kiln.ones(1):requires_grad_()
  local opt = optim.SGD({ a, b }, { lr = 1 })
  a:sum():backward()
  opt:step()
  check.tensor(a, { 0.0 })
  check.tensor(b, { 1.0 })
  equal(a.requires_grad and a.is_leaf, true)
end)

test("state can be saved and taken up again", function()
  local function make(p) return optim.Adam(p, { lr = 0.1 }) end
  local whole = run(make, 6, 1.5)
  local first, opt = run(make, 3, 1.5)
  local p = kiln.tensor(first[3], { dtype = "float64", requires_grad = true })
  local second = optim.Adam({ p }, { lr = 99 })
  second:load_state_dict(opt:state_dict())
  equal(second.lr, 0.1)
  for _ = 1, 3 do
    second:zero_grad()
    local loss = (p * p):sum() * 0.75
    loss:backward()
    second:step()
  end
  check.near(p:totable(), whole[6], 1e-12)
end)

test("schedules", function()
  local p = kiln.ones(1):requires_grad_()
  local function rates(name, steps, ...)
    local opt = optim.SGD({ p }, { lr = 1.0 })
    local schedule = optim.lr_scheduler[name](opt, ...)
    local list = {}
    for i = 1, steps do
      schedule:step()
      list[i] = opt.lr
    end
    return list
  end
  check.near(rates("StepLR", 4, 2, 0.1), { 1, 0.1, 0.1, 0.01 })
  check.near(rates("ExponentialLR", 2, 0.5), { 0.5, 0.25 })
  check.near(rates("CosineAnnealingLR", 3, 2), { 0.5, 0, 0.5 })
  check.near(rates("LambdaLR", 2, function(epoch) return 1 / epoch end), { 1, 0.5 })
end)

test("it learns", function()
  kiln.manual_seed(5)
  local net = kiln.nn.Sequential(kiln.nn.Linear(2, 16), kiln.nn.Tanh(), kiln.nn.Linear(16, 2))
  local x, target = kiln.tensor { { 0.0, 0.0 }, { 0.0, 1.0 }, { 1.0, 0.0 }, { 1.0, 1.0 } }, kiln.tensor { 1, 2, 2, 1 }
  local opt = optim.Adam(net:parameters(), { lr = 0.05 })
  local loss
  for _ = 1, 150 do
    opt:zero_grad()
    loss = kiln.cross_entropy(net(x), target)
    loss:backward()
    opt:step()
  end
  check.truth(loss:item() < 0.05, "exclusive or is learnt")
  check.tensor(net(x):argmax(2), { 1, 2, 2, 1 })
end)

test("misuse is named", function()
  local p = kiln.ones(1):requires_grad_()
  raises(function() optim.SGD({}, { lr = 1 }) end, "SGD: the list of parameters is empty")
  raises(function() optim.SGD({ 1 }) end, "SGD: parameter 1 must be a tensor, got number")
  raises(function() optim.SGD({ p * 2 }) end, "computed from others")
  raises(function() optim.SGD({ p }, { rate = 1 }) end, "optim.lua:", "there is no option 'rate'; there are dampening, lr,")
  raises(function() optim.SGD({ p }, { lr = "fast" }) end, "option 'lr' must be a number, got string")
  raises(function() optim.Adam({ p }, { lr = -1 }) end, "lr must not be negative")
end)
