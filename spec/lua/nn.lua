-- Modules, layers, losses.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises
local nn, F = kiln.nn, kiln.nn.functional

local function names(iterator)
  local list = {}
  for name in iterator do list[#list + 1] = name end
  return list
end

local Net = nn.Module:extend "Net"
function Net:init(n)
  self.second = nn.Linear(n, 2)
  self.first = nn.Linear(3, n)
  self:register_buffer("scale", kiln.tensor { 2.0 })
  self.frozen = nn.Parameter(kiln.ones(1))
  self.frozen.requires_grad = false
  self.note = "not a tensor"
end
function Net:forward(x) return self.second(self.first(x):relu()) * self.scale * self.frozen end

test("classes", function()
  local net = Net(4)
  equal(net(kiln.zeros(5, 3)).shape, { 5, 2 })
  local Wider = Net:extend "Wider"
  function Wider:init() Net.init(self, 8) end
  local wide = Wider()
  equal(wide.first.weight.shape, { 8, 3 })
  equal(wide(kiln.zeros(1, 3)).shape, { 1, 2 })
  equal(Wider.name, "Wider")
  raises(function() local m = nn.Module:extend("Empty")(); return m(1) end, "Empty: this module has no forward")
end)

test("parameters come in the order of their names", function()
  local net = Net(4)
  equal(names(net:named_parameters()), { "frozen", "first.bias", "first.weight", "second.bias", "second.weight" })
  equal(#net:parameters(), 5)
  equal(names(net:named_buffers()), { "scale" })
  equal(#net:modules(), 3)
  equal(names(net:named_modules()), { "", "first", "second" })
  local list = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
  equal(names(list:named_parameters()), { "0.bias", "0.weight", "2.bias", "2.weight" })
end)

test("a shared tensor is listed once", function()
  local a, b = nn.Linear(2, 2), nn.Linear(2, 2)
  b.weight = a.weight
  local both = nn.ModuleList { a, b }
  equal(#both:parameters(), 3)
  equal(names(nn.ModuleList { a, a }:named_parameters()), { "0.bias", "0.weight" })
end)

test("train, eval, zero_grad", function()
  local net = Net(4)
  equal(net.training, true)
  equal(net:eval() == net, true)
  equal(net.first.training, false)
  net:train()
  equal(net.second.training, true)
  net(kiln.ones(1, 3)):sum():backward()
  check.truth(net.second.weight.grad, "a grad is there")
  net:zero_grad()
  equal(net.second.weight.grad, nil)
end)

test("state goes from one module to another", function()
  local a, b = Net(4), Net(4)
  local x = kiln.randn(2, 3)
  check.truth(not a(x):equal(b(x)), "different at first")
  b:load_state_dict(a:state_dict())
  check.truth(a(x):equal(b(x)), "the same after")
  equal(b.first.weight.requires_grad, true)
  local state = a:state_dict()
  state["first.weight"] = nil
  state.extra = kiln.zeros(1)
  local before = b.second.bias:clone()
  state["second.bias"] = kiln.zeros(2)
  raises(function() b:load_state_dict(state) end, "nn.lua:", "missing first.weight", "unexpected extra")
  check.truth(b.second.bias:equal(before), "nothing was changed")
  b:load_state_dict(state, { strict = false })
  tensor(b.second.bias, { 0.0, 0.0 })
  raises(function() b:load_state_dict(Net(5):state_dict()) end, "first.bias is [5] there and [4] here")
end)

test("to another dtype", function()
  local net = Net(4)
  net:to "float64"
  equal(net.first.weight.dtype, "float64")
  equal(net.scale.dtype, "float64")
  equal(net.first.weight.requires_grad, true)
  equal(net.frozen.requires_grad, false)
  equal(#net:parameters(), 5)
  equal(net(kiln.zeros(1, 3, { dtype = "float64" })).dtype, "float64")
end)

test("text", function()
  local net = nn.Sequential(nn.Conv2d(1, 4, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(64, 1000), nn.Dropout(0.1))
  equal(tostring(net), [[
Sequential  65,040 parameters
  1: Conv2d(1 -> 4, 3)  40 parameters
  2: ReLU
  3: MaxPool2d(2)
  4: Flatten
  5: Linear(64 -> 1000)  65,000 parameters
  6: Dropout(0.1)]])
end)

test("layers compute what they say", function()
  local x = kiln.randn(2, 3)
  local linear = nn.Linear(3, 4)
  check.truth(linear(x):allclose(x:matmul(linear.weight:t()) + linear.bias), "Linear")
  equal(nn.Linear(3, 4, { bias = false }).bias, nil)
  local conv = nn.Conv2d(2, 6, { 3, 1 }, { stride = 2, padding = { 1, 0 }, groups = 2 })
  equal(conv.weight.shape, { 6, 1, 3, 1 })
  local image = kiln.randn(1, 2, 5, 5)
  check.truth(conv(image):equal(kiln.conv2d(image, conv.weight, conv.bias, { stride = 2, padding = { 1, 0 }, groups = 2 })),
    "Conv2d")
  equal(nn.MaxPool2d(2)(image).shape, { 1, 2, 2, 2 })
  equal(nn.AvgPool2d({ 2, 3 }, { stride = 1 })(image).shape, { 1, 2, 4, 3 })
  equal(nn.Flatten()(image).shape, { 1, 50 })
  check.truth(nn.Softmax(1)(x):equal(x:softmax(1)), "Softmax")
  check.truth(nn.Tanh()(x):equal(x:tanh()), "Tanh")
  check.truth(nn.Sequential { nn.ReLU(), function(y) return y * 2 end }(x):equal(x:relu() * 2), "Sequential of a table")
  equal(nn.Embedding(5, 3)(kiln.tensor { { 1, 5 } }).shape, { 1, 2, 3 })
end)

test("dropout only while training", function()
  local drop, x = nn.Dropout(0.5), kiln.ones(1000)
  local y = drop(x)
  local kept = y:gt(0):sum():item()
  check.truth(kept > 400 and kept < 600, "about half is kept")
  equal(y:max():item(), 2.0)
  drop:eval()
  check.truth(drop(x):equal(x), "all is kept")
end)

test("starting values", function()
  kiln.manual_seed(1)
  local w = nn.Linear(400, 50).weight
  local bound = 1 / math.sqrt(400)
  check.truth(w:abs():max():item() <= bound and w:abs():max():item() > 0.95 * bound, "kaiming with sqrt(5)")
  check.near(w:mean():item(), 0, 0.01)
  local t = nn.init.normal(kiln.empty(5000), 2, 0.5)
  check.near(t:mean():item(), 2, 0.05)
  check.near(t:std():item(), 0.5, 0.05)
  tensor(nn.init.ones(kiln.empty(2)), { 1.0, 1.0 })
  check.truth(nn.init.xavier_uniform(kiln.empty(30, 30)):abs():max():item() <= math.sqrt(0.1), "xavier")
end)

test("losses", function()
  local x, y = kiln.tensor { 0.0, 2.0 }, kiln.tensor { 1.0, 0.0 }
  check.near(F.l1_loss(x, y):item(), 1.5)
  check.near(F.l1_loss(x, y, "none"):totable(), { 1.0, 2.0 })
  check.near(F.smooth_l1_loss(x, y):item(), (0.5 + 1.5) / 2)
  local logits = kiln.tensor { 0.3, -2.0 }
  check.near(F.binary_cross_entropy_with_logits(logits, y):item(), F.binary_cross_entropy(logits:sigmoid(), y):item())
  check.near(F.binary_cross_entropy_with_logits(kiln.tensor { 500.0 }, kiln.tensor { 0.0 }):item(), 500.0)
  tensor(F.one_hot(kiln.tensor { 2, 1 }, 3), { { 0, 1, 0 }, { 1, 0, 0 } })
  local scores, target = kiln.randn(4, 3), kiln.tensor { 1, 2, 3, 1 }
  check.truth(nn.CrossEntropyLoss()(scores, target):equal(kiln.cross_entropy(scores, target)), "module and function")
  raises(function() F.l1_loss(x, y, "median") end, "nn.lua:", "'none', 'mean' or 'sum'")
end)

test("misuse is named", function()
  raises(function() nn.Linear(0, 1) end, "Linear: the number of inputs must be a positive integer, got 0")
  raises(function() nn.Conv2d(3, 4, 3, { groups = 2 }) end, "Conv2d: groups = 2 does not divide")
  raises(function() nn.Conv2d(3, 4, "x") end, "Conv2d: kernel must be")
  raises(function() nn.Dropout(1.5) end, "Dropout: the probability")
  raises(function() nn.Sequential(nn.ReLU(), 3) end, "Sequential: entry 2 must be a module, got number")
  raises(function() nn.Parameter(3) end, "Parameter: a tensor is needed, got number")
  raises(function() nn.ModuleList():append(3) end, "ModuleList: the entry must be a module, got number")
  raises(function() nn.Module.extend() end, "nn.lua:", "extend: a class is needed in front of the colon")
  raises(function() nn.Linear("2", 3) end, "must be a positive integer, got \"2\"")
  raises(function() nn.Linear(2, 3).parameters() end, "nn.lua:", "a module is needed in front of the colon")
  raises(function() nn.Linear(2, 3):load_state_dict() end, "load_state_dict: a table of tensors by name is needed, got nil")
end)

test("every part can be required by name", function()
  equal(require "kiln.nn" == kiln.nn, true)
  equal(require "kiln.nn.functional" == kiln.nn.functional, true)
  equal(require "kiln.optim" == kiln.optim, true)
  equal(rawget(kiln, "nn") == nn, true)
end)
