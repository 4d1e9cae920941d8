-- The library written in Lua on a device: what it makes by itself lies where it is given tensors. Runs where there is a device.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
if not kiln.cuda.is_available() then return end

local nn, F, V, on = kiln.nn, kiln.nn.functional, kiln.vision.functional, { device = "cuda" }
local image = kiln.rand(3, 8, 8, on)
local function doubles() return kiln.randn(3, { dtype = "float64", device = "cuda" }):requires_grad_() end

local rows = {
  ["vision.normalize"] = function() return V.normalize(image, { 0.5, 0.4, 0.3 }, { 0.2, 0.2, 0.2 }) end,
  ["vision.resize"] = function() return V.resize(image, { 4, 6 }) end,
  ["vision.rotate"] = function() return V.rotate(image, 30) end,
  ["vision.pad"] = function() return V.pad(V.pad(image, 2, { fill = { 0.1, 0.2, 0.3 } }), 2, { padding_mode = "symmetric" }) end,
  ["autograd.jacobian"] = function() return kiln.autograd.jacobian(function(v) return v * 2 end, kiln.randn(3, on)) end,
  ["autograd.hessian"] = function() return kiln.autograd.hessian(function(v) return (v ^ 3):sum() end, kiln.randn(3, on)) end,
  ["distributions"] = function() return kiln.distributions.Normal(kiln.zeros(3, on), 1.0):sample() end,
  ["spectral_norm"] = function() return nn.utils.spectral_norm(nn.Linear(3, 2):cuda())(kiln.ones(1, 3, on)) end,
  ["MultiheadAttention"] = function()
    local x = kiln.randn(5, 2, 8, on)
    return (nn.MultiheadAttention(8, 2):cuda()(x, x, x, { is_causal = true }))
  end,
  ["CTCLoss"] = function() return nn.CTCLoss()(kiln.randn(5, 2, 4, on):log_softmax(3), kiln.tensor({ { 2, 3 }, { 3, 4 } }):cuda(), { 5, 5 }, { 2, 2 }) end,
  ["FractionalMaxPool2d"] = function() return nn.FractionalMaxPool2d(2, { output_size = 3 })(kiln.randn(1, 2, 8, 8, on)) end,
  ["GPT-2 remembers"] = function()
    local net = kiln.text.models.GPT2LMHeadModel { vocab_size = 20, n_positions = 16, n_embd = 8, n_layer = 1, n_head = 2 }:cuda()
    equal(#net:generate({ 1, 2, 3 }, { max_new_tokens = 4 }), 7) -- a list goes where the model is
    return net:generate(kiln.tensor({ { 1, 2, 3 } }, on), { max_new_tokens = 2 })
  end,
  ["LBFGS"] = function()
    local net = nn.Linear(2, 2):cuda()
    local opt = kiln.optim.LBFGS(net:parameters())
    return opt:step(function()
      opt:zero_grad()
      local loss = net(kiln.ones(1, 2, on)):pow(2):sum()
      loss:backward()
      return loss
    end)
  end,
}
for name, f in pairs(rows) do
  test(name, function() equal(f().device, "cuda") end)
end

test("gradients by differences", function()
  truth(kiln.gradcheck(function(v) return (v * v):sum() end, { doubles() }))
  truth(kiln.gradgradcheck(function(v) return (v * v * v):sum() end, { doubles() }))
end)

test("loaders, metrics and traces", function()
  local scores, target = kiln.randn(4, 3, on), kiln.tensor({ 1, 2, 3, 1 }, on)
  equal(kiln.metrics.ConfusionMatrix(3):update(scores, target):matrix():sum():item(), 4)
  for _, x in kiln.data.DataLoader(kiln.data.TensorDataset(scores, target), { batch_size = 2, shuffle = true }):iter() do equal(x.device, "cuda") end
  for _, x in kiln.data.batches(2, scores, target, { shuffle = true }) do equal(x.device, "cuda") end
  local net = nn.Linear(3, 2):cuda()
  equal(kiln.trace(function(x) return net(x):relu() end, { scores })(scores).device, "cuda")
end)

test("what runs as one may round halves once", function()
  local net = nn.Linear(32, 32):cuda():to "bfloat16"
  local g, x = kiln.script(function(t) return net(t):relu() end), kiln.randn(16, 32):cuda():to "bfloat16"
  kiln.no_grad(g, x)
  truth(kiln.no_grad(g.verify, g, x))
end)

test("a profile waits for the device at each step", function()
  local net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)):cuda()
  local g, x = kiln.script(function(t) return net(t) end), kiln.randn(3, 4, on)
  kiln.no_grad(function()
    g(x)
    local before = kiln.cuda.launch_stats().syncs
    g:profile(x, { runs = 3 })
    truth(kiln.cuda.launch_stats().syncs - before >= 3 * 4)
  end)
end)

test("devices that are not", function()
  raises(function() return kiln.zeros(2):to("cuda:3") end, "there is no device 'cuda:3': one is used at a time")
  raises(function() return kiln.zeros(2, { device = "gpu" }) end, "there is no device 'gpu'; there are \"cpu\" and \"cuda\"")
end)
