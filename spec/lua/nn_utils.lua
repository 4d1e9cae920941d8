-- kiln.nn.utils: clipping, vectors, folding, weights that are made of other tensors.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises
local nn, utils = kiln.nn, kiln.nn.utils

local function with_gradients()
  local net = nn.Linear(2, 2)
  net.weight.grad = kiln.tensor { { 3.0, 0.0 }, { 0.0, -4.0 } }
  net.bias.grad = kiln.tensor { 0.0, 12.0 }
  return net
end

test("clip_grad_norm_", function()
  local net = with_gradients()
  check.near(utils.clip_grad_norm_(net:parameters(), 20):item(), 13)
  tensor(net.bias.grad, { 0.0, 12.0 })
  check.near(utils.clip_grad_norm_(net, 6.5):item(), 13)
  check.near(net.bias.grad:totable(), { 0.0, 6.0 }, 1e-5)
  check.near(net.weight.grad:totable(), { { 1.5, 0.0 }, { 0.0, -2.0 } }, 1e-5)
  net = with_gradients()
  check.near(utils.clip_grad_norm_(net:parameters(), 6, math.huge):item(), 12)
  check.near(net.bias.grad:totable(), { 0.0, 6.0 }, 1e-5)
  check.near(utils.clip_grad_norm_(with_gradients().weight, 1, { norm_type = 1 }):item(), 7)
  check.near(utils.get_total_norm({ kiln.tensor { 3.0 }, kiln.tensor { 4.0 } }):item(), 5)
  equal(utils.clip_grad_norm_({ kiln.ones(2) }, 1):item(), 0.0)
  net = with_gradients()
  net.bias.grad = kiln.tensor { 0.0, math.huge }
  raises(function() utils.clip_grad_norm_(net:parameters(), 1, { error_if_nonfinite = true }) end, "nn_utils.lua:",
    "clip_grad_norm_: the norm of the gradients is inf, nothing was clipped")
  tensor(net.weight.grad, { { 3.0, 0.0 }, { 0.0, -4.0 } })
  raises(function() utils.clip_grad_norm_(3, 1) end, "clip_grad_norm_: a list of tensors is needed, got number")
  raises(function() utils.clip_grad_norm_({ 3 }, 1) end, "clip_grad_norm_: entry 1 must be a tensor, got number")
  raises(function() utils.clip_grad_norm_(net) end, "clip_grad_norm_: max_norm must be a number, got nil")
end)

test("clip_grad_value_", function()
  local net = with_gradients()
  utils.clip_grad_value_(net:parameters(), 3.5)
  tensor(net.weight.grad, { { 3.0, 0.0 }, { 0.0, -3.5 } })
  tensor(net.bias.grad, { 0.0, 3.5 })
end)

test("a captured training step clips", function()
  local net = nn.Linear(2, 1)
  local list = net:parameters()
  local opt = kiln.optim.SGD(list, { lr = 0.5 })
  local function step(x)
    opt:zero_grad()
    net(x):pow(2):sum():backward()
    local norm = utils.clip_grad_norm_(list, 0.1)
    opt:step()
    return norm
  end
  local start, x = {}, kiln.ones(3, 2) * 5
  for name, t in pairs(net:state_dict()) do start[name] = t:detach():clone() end
  local want = step(x)
  local after = net.weight:detach():clone()
  net:load_state_dict(start)
  local got = kiln.script(step)(x)
  check.truth(got:allclose(want) and net.weight:allclose(after), "the same step")
  check.truth((after - start.weight):norm():item() <= 0.05 + 1e-6, "a short one")
end)

test("parameters as a vector", function()
  local a, b = nn.Linear(2, 3), nn.Linear(2, 3)
  local v = utils.parameters_to_vector(a:parameters())
  equal(v.shape, { 9 })
  check.truth(v:narrow(1, 1, 3):equal(a.bias), "in the order of the list")
  utils.vector_to_parameters(v, b:parameters())
  check.truth(b.weight:equal(a.weight) and b.weight.requires_grad, "and back")
  raises(function() utils.vector_to_parameters(kiln.ones(8), b:parameters()) end, "nn_utils.lua:",
    "vector_to_parameters: the vector has 8 elements and the parameters 9")
end)

-- Only what folding reads of a normalisation, so that the sum is written here.
local function normalisation(n)
  local bn = nn.Module:extend "Norm"()
  bn.weight, bn.bias = nn.Parameter(kiln.rand(n) + 0.5), nn.Parameter(kiln.randn(n))
  bn:register_buffer("running_mean", kiln.randn(n))
  bn:register_buffer("running_var", kiln.rand(n) + 0.5)
  bn.eps = 1e-3
  return bn
end

local function normalised(bn, y)
  return kiln.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, { eps = bn.eps })
end

test("folding a normalisation into the layer before it", function()
  local x = kiln.randn(2, 4, 6, 6)
  local bn = normalisation(6):eval()
  for _, options in ipairs { { bias = true }, { bias = false, groups = 2 } } do
    local conv = nn.Conv2d(4, 6, 3, options):eval()
    local fused = utils.fuse_conv_bn(conv, bn)
    check.truth(fused(x):allclose(normalised(bn, conv(x)), { atol = 1e-4 }), "convolution")
    local back = nn.ConvTranspose2d(4, 6, 3, options):eval()
    check.truth(utils.fuse_conv_bn_eval(back, bn, true)(x):allclose(normalised(bn, back(x)), { atol = 1e-4 }), "transposed")
    equal({ fused.name, fused.weight.requires_grad, fused.weight ~= conv.weight }, { "Conv2d", true, true })
  end
  local linear, rows = nn.Linear(3, 6):eval(), kiln.randn(5, 3)
  check.truth(utils.fuse_linear_bn_eval(linear, bn)(rows):allclose(normalised(bn, linear(rows)), { atol = 1e-5 }), "linear")
  raises(function() utils.fuse_conv_bn_eval(nn.Conv2d(4, 6, 3), bn) end, "nn_utils.lua:",
    "fuse_conv_bn_eval: both modules must be in eval mode")
  raises(function() utils.fuse_linear_bn_eval(nn.Linear(3, 5):eval(), bn) end, "fuse_linear_bn_eval: 5 outputs do not go with 6 features")
end)

local function names(net)
  local list = {}
  for name in pairs(net:state_dict()) do list[#list + 1] = name end
  table.sort(list)
  return list
end

test("weight_norm", function()
  local net, x = nn.Conv2d(2, 3, 3), kiln.randn(1, 2, 5, 5)
  local before = net(x)
  equal(utils.weight_norm(net) == net, true)
  equal(names(net), { "bias", "weight_g", "weight_v" })
  equal(net.weight_g.shape, { 3, 1, 1, 1 })
  check.truth(net(x):allclose(before, { atol = 1e-5 }), "nothing has changed")
  net(x):sum():backward()
  check.truth(net.weight_g.grad and net.weight_v.grad, "both are learnt")
  kiln.no_grad(function() net.weight_g:mul_(2) end)
  check.truth((net(x) - net.bias:reshape(1, 3, 1, 1)):allclose((before - net.bias:reshape(1, 3, 1, 1)) * 2, { atol = 1e-5 }), "twice as long")
  local copy, other = net:clone(), net(x)
  equal(names(copy), names(net))
  kiln.no_grad(function() copy.weight_g:zero_() end)
  check.truth(net(x):equal(other) and not copy(x):equal(other), "a copy is its own")
  utils.remove_weight_norm(net)
  equal(names(net), { "bias", "weight" })
  check.truth(net(x):allclose(other, { atol = 1e-5 }) and rawget(net, "_hooks") == nil, "removed")
  equal(utils.weight_norm(nn.Linear(2, 3), "weight", -1).weight_g:dim(), 0)
  raises(function() utils.weight_norm(net, "wight") end, "nn_utils.lua:", "weight_norm: Conv2d has no parameter 'wight'")
  raises(function() utils.weight_norm(net, { dim = 5 }) end, "weight_norm: dim must be -1 or from 1 to 4, got 5")
  raises(function() utils.remove_weight_norm(net) end, "remove_weight_norm: 'weight' is not made by weight_norm")
  utils.weight_norm(net)
  raises(function() utils.weight_norm(net) end, "weight_norm: 'weight' already is made by weight_norm")
end)

test("spectral_norm", function()
  local net, x = nn.Linear(4, 3), kiln.randn(5, 4)
  local w = net.weight:detach():clone()
  utils.spectral_norm(net)
  equal(names(net), { "bias", "weight_orig", "weight_u", "weight_v" })
  for _ = 1, 100 do net(x) end
  local top = kiln.linalg.svdvals(w)[1]
  check.truth(net.weight:allclose(w / top, { atol = 1e-4 }), "the largest singular value is 1")
  net:eval()
  local u = net.weight_u:clone()
  local want = net(x)
  check.truth(net.weight_u:equal(u), "in eval nothing follows")
  want:sum():backward()
  check.truth(net.weight_orig.grad, "learnt")
  utils.remove_spectral_norm(net)
  equal(names(net), { "bias", "weight" })
  check.truth(net(x):allclose(want, { atol = 1e-5 }), "removed")
  equal(utils.spectral_norm(nn.ConvTranspose2d(2, 5, 3)).weight_u.shape, { 5 })
  raises(function() utils.spectral_norm(net, "bias") end, "spectral_norm: 'bias' must have at least two dimensions")
end)

test("made weights are captured", function()
  local net = nn.Sequential(utils.weight_norm(nn.Linear(4, 3)), nn.Tanh(), utils.spectral_norm(nn.Linear(3, 2)))
  net:eval()
  local x = kiln.randn(5, 4)
  local g = kiln.script(net)
  for _ = 1, 3 do check.truth(g(x):allclose(net(x), { atol = 1e-6 }), "the same") end
end)
