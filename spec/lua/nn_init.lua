-- kiln.nn.init: the distributions that the schemes promise, and what is refused.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises
local init = kiln.nn.init

local function moments(t) return t:mean():item(), t:std():item() end

test("uniform and normal, cut off or not", function()
  kiln.manual_seed(3)
  local t = init.uniform_(kiln.empty(100, 100), -2, 4)
  local mean, deviation = moments(t)
  check.near(mean, 1, 0.1)
  check.near(deviation, 6 / math.sqrt(12), 0.05)
  mean, deviation = moments(init.normal_(kiln.empty(100, 100), { std = 0.1, mean = 3 }))
  check.near(mean, 3, 0.01)
  check.near(deviation, 0.1, 0.01)
  t = init.trunc_normal_(kiln.empty(100, 100))
  check.truth(t:abs():max():item() <= 2 and t:abs():max():item() > 1.9, "within")
  check.near(t:std():item(), 0.8796, 0.02) -- of the normal distribution between -2 and 2
  t = init.trunc_normal_(kiln.empty(50, 100), 1, 2, 1, 1.5)
  check.truth(t:min():item() >= 1 and t:max():item() <= 1.5, "one side")
  check.near(t:mean():item(), 1.25, 0.02)
  raises(function() init.trunc_normal_(kiln.empty(2), 0, 1, 3, 2) end, "nn_init.lua:", "trunc_normal_: std must be positive and [a, b]")
end)

test("fixed values", function()
  tensor(init.constant_(kiln.empty(2), 3), { 3.0, 3.0 })
  tensor(init.zeros_(kiln.empty(1)), { 0.0 })
  tensor(init.ones_(kiln.empty(1)), { 1.0 })
  tensor(init.eye_(kiln.empty(2, 3)), { { 1.0, 0.0, 0.0 }, { 0.0, 1.0, 0.0 } })
  for dims = 1, 3 do
    local shape = { 4, 4, table.unpack({ 3, 3, 3 }, 1, dims) }
    local x = kiln.randn(1, 4, table.unpack({ 5, 5, 5 }, 1, dims))
    local conv = kiln.nn.functional[("conv%dd"):format(dims)]
    check.truth(conv(x, init.dirac_(kiln.empty(shape)), nil, { padding = 1 }):equal(x), "dirac_ lets through")
    shape[2] = 2
    check.truth(conv(x, init.dirac_(kiln.empty(shape), 2), nil, { padding = 1, groups = 2 }):equal(x), "in groups")
  end
  raises(function() init.eye_(kiln.empty(3)) end, "eye_: a tensor of 2 dimensions is needed, got 1")
  raises(function() init.dirac_(kiln.empty(3, 3)) end, "dirac_: a tensor of 3 to 5 dimensions is needed, got 2")
  raises(function() init.dirac_(kiln.empty(3, 3, 1), 2) end, "dirac_: groups = 2 does not divide 3 outputs")
  raises(function() init.constant_(kiln.empty(1)) end, "constant_: val is needed")
  raises(function() init.ones_(3) end, "ones_: a tensor is needed, got number")
end)

test("gains", function()
  equal(init.calculate_gain "linear", 1)
  check.near(init.calculate_gain "relu", math.sqrt(2))
  check.near(init.calculate_gain "tanh", 5 / 3)
  check.near(init.calculate_gain "selu", 0.75)
  check.near(init.calculate_gain("leaky_relu", 0.2), math.sqrt(2 / 1.04))
  check.near(init.calculate_gain "leaky_relu", math.sqrt(2 / 1.0001))
  raises(function() init.calculate_gain "softmax" end, "calculate_gain: there is no nonlinearity softmax")
end)

test("by inputs and outputs", function()
  kiln.manual_seed(4)
  local function shape() return kiln.empty(60, 20, 3, 3) end -- 180 inputs, 540 outputs
  local function near(t, deviation) check.near(t:std():item(), deviation, 0.05 * deviation) end
  near(init.kaiming_normal_(shape()), math.sqrt(2 / 180))
  near(init.kaiming_normal_(shape(), { mode = "fan_out", nonlinearity = "relu" }), math.sqrt(2 / 540))
  near(init.kaiming_normal_(shape(), { nonlinearity = "linear" }), math.sqrt(1 / 180))
  near(init.kaiming_uniform_(shape(), math.sqrt(5)), math.sqrt(1 / 180 / 3))
  near(init.kaiming_uniform_(shape(), 0, "fan_out"), math.sqrt(2 / 540))
  near(init.xavier_uniform_(shape()), math.sqrt(2 / 720))
  near(init.xavier_normal_(shape(), 3), 3 * math.sqrt(2 / 720))
  equal(init.xavier_normal == init.xavier_normal_, true)
  raises(function() init.xavier_normal_(kiln.empty(3)) end, "nn_init.lua:",
    "xavier_normal_: a tensor of at least 2 dimensions is needed, got 1")
  raises(function() init.kaiming_normal_(shape(), { mode = "fan" }) end, "kaiming_normal_: mode must be 'fan_in' or 'fan_out', got fan")
  raises(function() init.kaiming_normal_(shape(), { slope = 3 }) end, "kaiming_normal_: there is no option 'slope'")
end)

test("orthogonal and sparse", function()
  local t = init.orthogonal_(kiln.empty(3, 5))
  check.truth(t:matmul(t:t()):allclose(kiln.eye(3), { atol = 1e-5 }), "rows")
  t = init.orthogonal_(kiln.empty(6, 2, 2), 2)
  t = t:reshape(6, 4)
  check.truth(t:t():matmul(t):allclose(kiln.eye(4) * 4, { atol = 1e-5 }), "columns, with a gain")
  equal(init.orthogonal_(kiln.empty(4, 4, { dtype = "float64" })).dtype, "float64")
  t = init.sparse_(kiln.empty(10, 200), 0.25, 1)
  equal(t:eq(0):sum(1):eq(3):all():item(), true)
  check.near(t:std():item(), math.sqrt(0.7), 0.1)
  raises(function() init.sparse_(kiln.empty(2, 2), 2) end, "sparse_: sparsity must be in [0, 1], got 2")
end)

test("parameters stay what they are", function()
  local w = kiln.nn.Linear(3, 4).weight
  for _, name in ipairs { "normal_", "trunc_normal_", "orthogonal_", "kaiming_uniform_", "eye_", "zeros_" } do
    equal(init[name](w) == w, true)
    equal({ w.requires_grad, w.is_leaf }, { true, true })
  end
end)
