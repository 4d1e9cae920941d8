-- Captured functions on cuda, of which nodes share kernels, against eager ones there: the same bits. Runs where there is a
-- device, be it one of software (`meson test cuda_lua`).
local check = require "check"
local test, truth = check.test, check.truth

if not kiln.cuda.is_available() then return end
local nn = kiln.nn

local function same(a, b, what)
  truth(kiln.equal(a, b), what .. ": " .. tostring((a - b):abs():amax():item()))
end

-- f's results and the gradients of their sums, eager and captured.
local function agree(what, f, ...)
  local inputs = { ... }
  local function step()
    local y = f(inputs[1], inputs[2], inputs[3])
    return y, kiln.grad((y * y):sum(), inputs)
  end
  local a, da = step()
  local g = kiln.script(step)
  for _ = 1, 2 do
    local b, db = g()
    same(a, b, what)
    for i = 1, #da do same(da[i], db[i], what .. ", gradient " .. i) end
  end
end

local function input(...) return kiln.randn(...):to("cuda"):requires_grad_() end

test("norms, softmax and activations, with gradients", function()
  kiln.manual_seed(1)
  local x, w, b = input(6, 5, 48), input(48), input(48)
  agree("layer norm", function(x, w, b) return kiln.layer_norm(x, { 48 }, w, b) end, x, w, b)
  agree("rms norm", function(x, w) return kiln.rms_norm(x, { 48 }, w) end, x, w)
  agree("gelu", function(x, b) return kiln.gelu(x + b) end, x, b)
  agree("gelu by tanh", function(x, b) return kiln.gelu(x + b, "tanh") end, x, b)
  agree("silu", function(x, b) return kiln.silu(x) * b end, x, b)
  agree("softmax", function(x, b) return kiln.softmax(x * b, -1) end, x, b)
  agree("softmax of columns", function(x, b) return kiln.softmax(x + b, 1) * 3 end, x, b)
  agree("log_softmax", function(x, b) return kiln.log_softmax(x + b, -1):exp() end, x, b)
  agree("variance", function(x) return (x - x:mean(-1, true)):square():mean(-1, true):sqrt() * x end, x)
end)

test("halves are rounded between nodes", function()
  kiln.manual_seed(2)
  local x, b = kiln.randn(9, 64):to("cuda"), kiln.randn(64):to("cuda")
  for _, dtype in ipairs { "float16", "bfloat16" } do
    local function f(x, b)
      local y = (x * 1.7 + b):sigmoid() * x - b
      return kiln.softmax(y, -1), y:sum(-1), (y:float() * 3):mean(-1, true)
    end
    local x, b = x:to(dtype), b:to(dtype)
    local p, q, r = f(x, b)
    local s, t, u = kiln.script(f)(x, b)
    same(p, s, "softmax")
    same(q, t, "sum")
    same(r, u, "mean")
  end
end)

local function train(make_optimizer, captured)
  kiln.manual_seed(3)
  local net = nn.Sequential { nn.Linear(12, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5) }
  net:to "cuda"
  local opt = make_optimizer(net:parameters())
  local function step(x, t)
    opt:zero_grad()
    local loss = kiln.cross_entropy(net(x), t)
    loss:backward()
    opt:step()
    return loss
  end
  if captured then step = kiln.script(step) end
  local x, t = kiln.randn(8, 12):to "cuda", kiln.tensor({ 1, 2, 3, 4, 5, 1, 2, 3 }):long():to "cuda"
  local losses = {}
  for i = 1, 4 do losses[i] = step(x, t):item() end
  return losses, net:parameters()
end

test("steps of training, of all optimizers", function()
  local optimizers = {
    sgd = function(p) return kiln.optim.SGD(p, { lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.01 }) end,
    adam = function(p) return kiln.optim.Adam(p, { lr = 0.02, weight_decay = 0.01 }) end,
    adamw = function(p) return kiln.optim.AdamW(p, { lr = 0.02 }) end,
    rmsprop = function(p) return kiln.optim.RMSprop(p, { lr = 0.01, centered = true }) end,
  }
  for name, make in pairs(optimizers) do
    local a, p = train(make, false)
    local b, q = train(make, true)
    for i = 1, #a do truth(a[i] == b[i], name .. ": " .. a[i] .. " " .. b[i]) end
    for i = 1, #p do same(p[i], q[i], name .. ", parameter " .. i) end
  end
end)

test("copies of arguments are told", function()
  local x = kiln.randn(1000):to "cuda"
  local g = kiln.script(function(x) return x * 2 + 1 end)
  g(x)
  local _, told = g:memory(x)
  truth(told.workspace == 4000)
end)
