-- Tensors, modules and optimisers on a device. It runs where there is one, and on one without hardware in test_device_lua.c,
-- whose memory crashes who reads it on the host.
local check = require "check"
local equal, near, raises, truth = check.equal, check.near, check.raises, check.truth
local nn, optim = kiln.nn, kiln.optim

local works = false
for _, name in ipairs(kiln.devices()) do works = works or name == "cuda" end

local function test(name, body)
  check.test(name, function()
    if not works then check.skip "there is no device beside the CPU" end
    body()
  end)
end

check.test("why a device cannot be used", function()
  local x = kiln.ones(2)
  equal(kiln.devices()[1], "cpu")
  equal(x.device, "cpu")
  equal(x.is_cuda, false)
  equal(x:cpu(), x)
  equal(x:to "cpu", x)
  if works then return end
  raises(function() return x:to "cuda" end, "to: device cuda cannot be used here: ")
  raises(function() return x:cuda() end, "cuda: device cuda cannot be used here: ")
  raises(function() return kiln.zeros(2, { device = "cuda:0" }) end, "zeros: device cuda cannot be used here: ")
  raises(function() return kiln.zeros_like(x, { device = "cuda" }) end, "zeros_like: device cuda cannot be used here: ")
  raises(function() return kiln.tensor({ 1 }, { device = "cuda" }) end, "tensor: device cuda cannot be used here: ")
  raises(function() return nn.Linear(2, 2):cuda() end, "to: device cuda cannot be used here: ")
end)

check.test("devices that there are none of", function()
  local x = kiln.ones(2)
  for _, name in ipairs { "cuda:1", "cuda:7", "cuda:-1", "cuda:00", "cuda:", "cpu:1", "tpu", "CUDA", "", "@cuda", ("c"):rep(100) } do
    for _, f in ipairs {
      function() return x:to(name) end,
      function() return kiln.zeros(2, { device = name }) end,
      function() return kiln.tensor({ 1 }, { device = name }) end,
      function() return kiln.rand_like(x, { device = name }) end,
      function() return kiln.spec("float32", { 2 }, { device = name }) end,
      function() return nn.Linear(2, 2):to(name) end,
    } do raises(f, "device") end
  end
  for _, wrong in ipairs { 1, true, {}, print } do
    raises(function() return kiln.zeros(2, { device = wrong }) end, "device")
    raises(function() return kiln.spec("float32", { 2 }, { device = wrong }) end, "device")
  end
end)

test("there and back", function()
  local x = kiln.tensor { { 1.5, 2 }, { 3, 4 } }
  local y = x:to "cuda"
  equal(y.device, "cuda")
  equal(y.is_cuda, true)
  equal(y:cuda(), y)
  equal(y:to "cuda:0", y)
  equal(y:to { device = "cuda" }, y)
  equal({ x:to(y).device, y:to(x).device }, { "cuda", "cpu" }) -- another tensor says where
  equal(y:cpu().device, "cpu")
  equal(y:cpu():totable(), x:totable())
  equal(y:totable(), x:totable())
  equal(y.T:totable(), x.T:totable())
  equal(y:to("cpu", "int32"):totable(), { { 1, 2 }, { 3, 4 } })
  equal(x:to("cuda", "float16").dtype, "float16")
  equal(x:to("float64", "cuda").device, "cuda")
  equal(x:long():to { device = "cuda", dtype = "float64" }:totable(), { { 1.0, 2.0 }, { 3.0, 4.0 } })
  equal(y[2][1]:item(), 3.0)
  equal(y:tobytes(), x:tobytes())
  truth(tostring(y):find("float32[2,2]@cuda", 1, true), tostring(y))
  truth(tostring(y):find("1.5", 1, true), tostring(y))
  equal(("%s"):format(y:sum()), tostring(y:sum()))
end)

test("what makes tensors makes them there", function()
  local on = { device = "cuda" }
  local function there(t, list)
    equal(t.device, "cuda")
    equal(t:totable(), list)
  end
  there(kiln.zeros(2, on), { 0.0, 0.0 })
  there(kiln.ones({ 2 }, on), { 1.0, 1.0 })
  there(kiln.empty(0, on), {})
  there(kiln.full({ 2 }, 7, on), { 7, 7 })
  there(kiln.arange(3, on), { 0, 1, 2 })
  there(kiln.arange(1, 2, 0.5, on), { 1.0, 1.5 })
  there(kiln.linspace(0, 1, 3, on), { 0.0, 0.5, 1.0 })
  there(kiln.logspace(0, 2, 3, { base = 2, device = "cuda" }), { 1.0, 2.0, 4.0 })
  there(kiln.eye(2, on), { { 1.0, 0.0 }, { 0.0, 1.0 } })
  there(kiln.tensor({ 1, 2 }, on), { 1, 2 })
  there(kiln.tensor(kiln.tensor { 1, 2 }, on), { 1, 2 })
  there(kiln.tensor(kiln.tensor({ 1, 2 }, on)), { 1, 2 })
  there(kiln.zeros_like(kiln.ones(2), on), { 0.0, 0.0 })
  there(kiln.full_like(kiln.ones(2), 3, { dtype = "int64", device = "cuda" }), { 3, 3 })
  there(kiln.ones_like(kiln.ones(2, on)), { 1.0, 1.0 })
  there(kiln.tril_indices(2, 2, { device = "cuda" }), { { 1, 2, 2 }, { 1, 1, 2 } })
  for _, draw in ipairs { "rand", "randn" } do
    kiln.manual_seed(3)
    local here = kiln[draw](5)
    kiln.manual_seed(3)
    near(kiln[draw](5, on):totable(), here:totable(), 1e-6)
    equal(kiln[draw .. "_like"](kiln.zeros(2, on)).device, "cuda")
  end
  equal(kiln.randint(3, { 4 }, on).device, "cuda")
  equal(kiln.randperm(4, on):sort():totable(), { 1, 2, 3, 4 })
  equal(kiln.normal(0, 1, 3, on).device, "cuda")
  local p = kiln.ones(2, { device = "cuda", requires_grad = true })
  truth(p.is_leaf and p.requires_grad)
end)

test("devices meet", function()
  local x, y = kiln.ones(2), kiln.ones(2, { device = "cuda" })
  raises(function() return x + y end, "add: tensors are on different devices, cpu and cuda; t:to(\"cuda\") moves one")
  raises(function() return kiln.cat { y, x } end, "cat: tensors are on different devices")
  raises(function() return y:matmul(x) end, "matmul: tensors are on different devices")
  equal((y + 1).device, "cuda")
  equal((2 - y):totable(), { 1.0, 1.0 })
  equal((y * kiln.tensor(3.0)):totable(), { 3.0, 3.0 }) -- a number of the host
  equal(kiln.where(y:gt(0), y, 0):totable(), { 1.0, 1.0 })
  equal(y:equal(kiln.ones(2, { device = "cuda" })), true)
  equal(y:allclose(y + 1e-9), true)
  raises(function() return x:add_(y) end, "add")
  x:copy_(y * 5)
  equal(x:totable(), { 5.0, 5.0 })
  y:copy_(kiln.tensor { 1, 2 })
  equal(y:totable(), { 1.0, 2.0 })
  y:fill_(4):add_(1):mul_(2)
  equal(y:totable(), { 10.0, 10.0 })
  equal(y:zero_():totable(), { 0.0, 0.0 })
end)

test("indexing", function()
  local function look(t)
    local picked = {}
    local function keep(x) picked[#picked + 1] = x:totable() end
    keep(t[2])
    keep(t[{ {}, { 1, 2 } }])
    keep(t[{ { 1, -1, 2 } }])
    keep(t[kiln.tensor { 2, -1 }])
    keep(t[kiln.tensor({ 2, -1 }, { device = t.device })])
    keep(t[kiln.tensor({ 1 }, { device = t.device })[1]])
    keep(t[t:gt(3)])
    keep(t[t:gt(3):cpu()])
    keep(t[{ kiln.tensor { 1, 2 }, kiln.tensor { 3, 1 } }])
    t = t:clone()
    t[1] = 7
    t[{ 2, 3 }] = 8
    t[t:gt(7)] = -1
    t[kiln.tensor { 2 }] = kiln.tensor { 1, 2, 3 }
    t[t:lt(2)] = kiln.tensor { 9 }
    t[{ {}, kiln.tensor { 1 } }] = 0
    keep(t)
    return picked
  end
  local x = kiln.arange(1, 7):reshape(2, 3)
  equal(look(x:cuda()), look(x))
  raises(function() return x:cuda()[kiln.tensor { 3 }] end, "index 3 is out of range for dim 1 of size 2")
  raises(function() return x[kiln.tensor({ 1 }, { device = "cuda" })] end, "different devices")
end)

test("gradients are where their tensors are", function()
  local x = kiln.ones(2, { device = "cuda", requires_grad = true })
  local w = kiln.tensor(3.0, { requires_grad = true })
  local b = kiln.tensor({ 1.0, 2 }, { requires_grad = true }) -- on the CPU, moved on the way
  local loss = (x * w + b:cuda()):pow(2):sum()
  loss:backward()
  equal({ x.grad.device, w.grad.device, b.grad.device }, { "cuda", "cpu", "cpu" })
  equal({ x.grad:totable(), w.grad:item(), b.grad:totable() }, { { 24.0, 30.0 }, 18.0, { 8.0, 10.0 } })
  local twice = x * 2
  twice:sum():backward()
  equal(x.grad:totable(), { 26.0, 32.0 })
  raises(function() x.grad = kiln.ones(2) end, "a gradient float32[2] cannot be set for a tensor float32[2]@cuda")
  raises(function() (x * 2):backward(kiln.ones(2)) end, "a gradient float32[2] was given for a tensor float32[2]@cuda")
  local g = kiln.grad((x * x * x):sum(), { x }, { create_graph = true })[1]
  equal(kiln.grad(g:sum(), { x })[1]:totable(), { 6.0, 6.0 })
  local hooked
  x:register_hook(function(grad) hooked = grad.device end)
  x:sum():backward()
  equal(hooked, "cuda")
end)

-- What f gives for each device, from the same start.
local function both(f)
  local got = {}
  for _, device in ipairs { "cpu", "cuda" } do
    kiln.manual_seed(5)
    got[#got + 1] = f(device)
  end
  return got[1], got[2]
end

test("modules", function()
  local net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
  net.half_way = net[1].weight -- shared stays shared
  local before = net:state_dict()
  net(kiln.ones(2, 3)):sum():backward()
  equal(net:cuda(), net)
  for name, t in pairs(net:state_dict()) do
    equal(t.device, "cuda")
    truth(t:cpu():equal(before[name]) or name:find "running" or name:find "tracked", name)
  end
  equal(net.half_way, net[1].weight)
  equal(net[1].weight.grad.device, "cuda")
  equal(net(kiln.ones(2, 3, { device = "cuda" })).device, "cuda")
  raises(function() return net(kiln.ones(2, 3)) end, "different devices")
  net:to "float64"
  equal({ net[1].weight.device, net[1].weight.dtype }, { "cuda", "float64" })
  equal(net:cpu()[1].weight.device, "cpu")
  net:to("cuda", "float32"):load_state_dict(before) -- from the CPU
  truth(net[1].weight:cpu():equal(before["0.weight"]))
end)

test("layers compute there what they do here", function()
  local here, there = both(function(device)
    local net = nn.Sequential(nn.Conv2d(1, 4, 3, { padding = 1 }), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(),
      nn.Dropout(0.5), nn.Linear(16, 3)):to(device)
    local x = kiln.linspace(-1, 1, 32):reshape(2, 1, 4, 4):to(device)
    local loss = nn.functional.cross_entropy(net(x), kiln.tensor({ 1, 3 }, { device = device }))
    loss:backward()
    return { loss:item(), net[1].weight.grad:totable() }
  end)
  near(there, here, 1e-5)
  here, there = both(function(device)
    local rnn = nn.LSTM(3, 4, 2, { bidirectional = true }):to(device)
    local y = rnn(kiln.linspace(-1, 1, 30):reshape(5, 2, 3):to(device))
    local attend = nn.MultiheadAttention(8, 2):to(device)
    local z = attend(y, y, y)
    local text = nn.Embedding(5, 8):to(device)(kiln.tensor({ { 1, 5, 2 } }, { device = device }))
    z:sum():backward()
    return { y:totable(), z:totable(), text:totable(), rnn:parameters()[1].grad:totable() }
  end)
  near(there, here, 1e-5)
end)

for _, row in ipairs { { "SGD", { lr = 0.1, momentum = 0.9 } }, { "Adam", {} }, { "AdamW", { amsgrad = true } }, { "Adamax", {} },
  { "NAdam", {} }, { "RAdam", {} }, { "RMSprop", { momentum = 0.5, centered = true } }, { "Adagrad", {} }, { "Adadelta", {} },
  { "Rprop", {} }, { "ASGD", {} }, { "LBFGS", {} } } do
  test("steps of " .. row[1], function()
    local here, there = both(function(device)
      local net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)):to(device)
      local opt = optim[row[1]](net:parameters(), row[2])
      local x = kiln.linspace(-1, 1, 12):reshape(4, 3):to(device)
      local function closure()
        opt:zero_grad()
        local loss = net(x):pow(2):mean()
        loss:backward()
        return loss
      end
      for step = 1, 3 do
        opt:step(closure)
        if step == 2 then opt:load_state_dict(opt:state_dict()) end
      end
      nn.utils.clip_grad_norm_(net:parameters(), 0.1)
      for _, state in ipairs(opt:state_dict().state) do
        for _, t in pairs(state) do
          if kiln.is_tensor(t) and t:dim() > 0 then equal(t.device, device) end
        end
      end
      return { net[1].weight:totable(), net[3].bias:totable(), net[1].weight.grad:totable() }
    end)
    near(there, here, 1e-4)
  end)
end

test("files", function()
  local x, path = kiln.tensor({ { 1.5, 2 }, { 3, 4 } }, { device = "cuda" }), os.tmpname()
  kiln.to_npy(path, x.T)
  equal(kiln.from_npy(path):totable(), x.T:totable())
  kiln.to_npz(path, { x = x })
  equal(kiln.from_npz(path).x:totable(), x:totable())
  kiln.to_safetensors(path, { x = x, turned = x.T })
  equal(kiln.from_safetensors(path).turned:totable(), x.T:totable())
  os.remove(path)
end)

test("whatever is asked of data is answered by data", function()
  local x = kiln.tensor({ 3.0, 1, 2, 1 }, { device = "cuda" })
  equal({ x:max():item(), x:argmin():item(), x:any():item(), #x }, { 3.0, 2, true, 4 })
  equal(x:unique():totable(), { 1.0, 2.0, 3.0 })
  equal(x:nonzero():totable(), { { 1 }, { 2 }, { 3 }, { 4 } })
  equal(x:topk(2):totable(), { 3.0, 2.0 })
  equal(x:repeat_interleave(2):totable(), { 3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0 })
  equal(x:repeat_interleave(x:long()):totable(), { 3.0, 3.0, 3.0, 1.0, 2.0, 2.0, 1.0 })
  equal(nn.functional.one_hot(x:long()):sum(1):totable(), { 2, 1, 1 })
  equal(x:quantile(0.5):item(), 1.5)
  equal(x:masked_select(x:gt(1)):totable(), { 3.0, 2.0 })
  local calls = 0
  for _ = 1, #x do calls = calls + 1 end
  equal(calls, 4)
  raises(function() return x:gather(kiln.tensor({ 5 }, { device = "cuda" }), 1) end, "index 5 is out of range")
end)
