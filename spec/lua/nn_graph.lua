-- Modules and Graphs together: Graphs as layers of containers and as fields, modules changed inside captured steps, and what
-- misuse says when it is captured.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim

local eager = os.getenv "KILN_CAPTURE" == "0"

local function names(iterator)
  local list = {}
  for name in iterator do list[#list + 1] = name end
  return list
end

test("a Graph is a layer of Sequential", function()
  local inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
  local net = nn.Sequential(nn.Linear(3, 4), kiln.script(inner), kiln.script(function(x) return x * 2 end), nn.Linear(4, 2))
  equal(names(net:named_parameters()), { "0.bias", "0.weight", "1.0.bias", "1.0.weight", "3.bias", "3.weight" })
  equal(net:get_parameter "1.0.weight", inner[1].weight)
  equal(#net:children(), 3)
  equal(tostring(net):match "2: [^\n]*", "2: Graph of Sequential  20 parameters")
  net:eval()
  equal(inner[2].training, false)
  local x = kiln.randn(5, 3)
  local plain = nn.Sequential(net[1], inner, function(y) return y * 2 end, net[4])
  truth(net(x):allclose(plain(x), { atol = 1e-6 }), "the same as without Graphs")
  truth(kiln.script(net)(x):allclose(plain(x), { atol = 1e-6 }), "captured")
  local other = net:state_dict()
  for name, t in pairs(other) do other[name] = kiln.full_like(t, 0.5) end
  net:load_state_dict(other)
  equal(inner[1].weight[1][1]:item(), 0.5)
  truth(net(x):allclose(plain(x), { atol = 1e-6 }), "after load_state_dict")
end)

test("it learns: its parameters are the network's, eager and in a captured step", function()
  for _, capture in ipairs { false, true } do
    kiln.manual_seed(4)
    local net = nn.Sequential(kiln.script(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 1))
    local opt = optim.Adam(net:parameters(), { lr = 0.05 })
    local x = kiln.randn(20, 3)
    local y = x:sum(2, true):tanh()
    local function step(a, b)
      net:zero_grad()
      local loss = F.mse_loss(net(a), b)
      loss:backward()
      opt:step()
      return loss
    end
    if capture then step = kiln.script(step) end
    local first = step(x, y):item()
    for _ = 1, 60 do step(x, y) end
    truth(step(x, y):item() < first / 10, "the loss falls")
  end
end)

test("what containers take of Graphs, and what not", function()
  local g = kiln.script(nn.Linear(2, 2))
  equal(#nn.ModuleList { g }:parameters(), 2)
  local dict = nn.ModuleDict { a = g }
  equal(dict:keys(), { "a" })
  equal(nn.module_of(dict.a).name, "Linear")
  equal(nn.module_of(kiln.ones(1)), nil)
  raises(function() nn.ModuleList { kiln.script(function(x) return x end) } end, "nn_graph.lua:",
    "ModuleList: entry 1 must be a module, got a Graph of a function")
  raises(function() nn.Sequential(kiln.ones(1)) end, "nn_graph.lua:", "Sequential: entry 1 must be a module, got tensor")
  raises(function() nn.Sequential(g):clone() end, "nn_graph.lua:", "clone: there is a Graph of a Linear in it")
  local path = os.tmpname()
  if not eager then
    g(kiln.ones(1, 2))
    g:save(path)
    local net = nn.Sequential(kiln.load(path), nn.ReLU())
    equal(#net:parameters(), 0) -- the weights of a file are the Graph's own
    truth(net(kiln.ones(1, 2)):equal(g(kiln.ones(1, 2)):relu()), "from a file")
  end
  os.remove(path)
end)

test("captured, a module's mode and gradients may be set, also of Graphs in it", function()
  local net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))
  local f = kiln.script(function(x)
    net:eval()
    return net(x)
  end)
  local x = kiln.ones(1, 2)
  truth(f(x):equal(net[1](x)), "eval")
  local shared = nn.Linear(2, 2)
  local two = nn.Sequential(shared, shared)
  two(x):sum():backward()
  kiln.script(function(t)
    two:zero_grad()
    return t
  end)(x)
  equal(shared.weight.grad, nil)
  local outer = nn.Sequential(kiln.script(nn.Linear(2, 2)), nn.ReLU())
  local function norm_of(t)
    outer:zero_grad()
    outer(t):sum():backward()
    return nn.utils.clip_grad_norm_(outer:parameters(), 0.1)
  end
  check.near(kiln.script(norm_of)(x):item(), norm_of(x):item(), 1e-6)
end)

test("misuse of layers says the same captured as eager", function()
  local bn, heads = nn.BatchNorm2d(3), nn.MultiheadAttention(4, 2)
  local vit = kiln.vision.models.VisionTransformer { image_size = 8, patch_size = 4, num_layers = 1, num_heads = 1, hidden_dim = 4,
    mlp_dim = 4 }
  for what, case in pairs {
    ["BatchNorm2d: an input of 4 dims is needed, got 2"] = function(x) return bn(x) end,
    ["BatchNorm2d: made for 3 channels, the input has 5 (dim 2)"] = function(x) return bn(x:reshape(1, 5, 2, 1)) end,
    ["query, key and value must all have 3 dims"] = function(x) return heads(x, x:unsqueeze(1), x) end,
    ["VisionTransformer: images [N, C, 8, 8] are needed, got 2 dims"] = function(x) return vit(x) end,
    ["VisionTransformer: the images are 5 x 2, the model's image_size is 8"] = function(x) return vit(x:reshape(1, 1, 5, 2)) end,
  } do
    raises(function() case(kiln.ones(2, 5)) end, "nn_graph.lua:", what)
    raises(function() kiln.script(case)(kiln.ones(2, 5)) end, "nn_graph.lua:", what)
  end
  local f = kiln.script(function(x, n)
    if n > 3 then kiln.fail("too many: %d of %s", n, "three") end
    return x * n
  end)
  local x = kiln.ones(1)
  equal(f(x, 2):item(), 2.0)
  raises(function() f(x, 4) end, "nn_graph.lua:", "too many: 4 of three")
  local _, why = kiln.script(function(t) return pcall(bn, t) end)(kiln.ones(2, 3))
  truth(why:find "BatchNorm2d: an input of 4 dims is needed", why)
end)

test("schedules may be stepped inside a captured step", function()
  local S = optim.lr_scheduler
  for name, make in pairs {
    StepLR = function(o) return S.StepLR(o, 2) end,
    MultiStepLR = function(o) return S.MultiStepLR(o, { 2, 4 }) end,
    ExponentialLR = function(o) return S.ExponentialLR(o, 0.9) end,
    CosineAnnealingLR = function(o) return S.CosineAnnealingLR(o, 5) end,
    CosineAnnealingWarmRestarts = function(o) return S.CosineAnnealingWarmRestarts(o, 3) end,
    OneCycleLR = function(o) return S.OneCycleLR(o, 0.5, 10, { cycle_momentum = false }) end,
    CyclicLR = function(o) return S.CyclicLR(o, 0.01, 0.5, { step_size_up = 3, cycle_momentum = false }) end,
    LinearLR = function(o) return S.LinearLR(o) end,
    ConstantLR = function(o) return S.ConstantLR(o) end,
    PolynomialLR = function(o) return S.PolynomialLR(o, 6, 2) end,
    LambdaLR = function(o) return S.LambdaLR(o, function(epoch) return 1 / (1 + epoch) end) end,
    MultiplicativeLR = function(o) return S.MultiplicativeLR(o, function() return 0.9 end) end,
    ChainedScheduler = function(o) return S.ChainedScheduler { S.LinearLR(o), S.ExponentialLR(o, 0.9) } end,
    SequentialLR = function(o) return S.SequentialLR(o, { S.LinearLR(o), S.ExponentialLR(o, 0.9) }, { 3 }) end,
  } do
    local seen = {}
    for i, capture in ipairs { false, true } do
      local p = kiln.ones(1, { requires_grad = true })
      local opt = optim.SGD({ p }, { lr = 0.1 })
      local schedule, list = make(opt), {}
      local function step()
        opt:zero_grad()
        local loss = (p * p):sum()
        loss:backward()
        opt:step()
        schedule:step()
        return loss
      end
      if capture then step = kiln.script(step) end
      for k = 1, 8 do
        list[2 * k - 1] = step():item()
        list[2 * k] = schedule:get_last_lr()[1]
        equal(list[2 * k], opt.param_groups[1].lr)
      end
      seen[i] = list
    end
    check.near(seen[2], seen[1], 1e-6)
    truth(seen[1][2] ~= seen[1][16], name .. " changes the rate")
  end
end)

test("metrics in captured functions", function()
  local scores, target = kiln.tensor { { 0.1, 0.9 }, { 0.8, 0.2 }, { 0.3, 0.7 } }, kiln.tensor { 2, 1, 1 }
  local function f(s, t) return kiln.metrics.accuracy(s, t), kiln.metrics.topk_accuracy(s, t, 2) end
  check.near({ kiln.script(f)(scores, target) }, { f(scores, target) })
  raises(function() kiln.script(f)(scores, target[{ { 1, 2 } }]) end, "nn_graph.lua:", "accuracy: scores must be [N, classes, ...]")
end)

test("LBFGS: a captured closure does what the eager one does, a captured step is refused", function()
  for _, given in ipairs { { max_iter = 4 }, { max_iter = 4, line_search_fn = "strong_wolfe" } } do
    local found = {}
    for i, capture in ipairs { false, true } do
      local p = kiln.tensor({ -1.2, 1.0 }, { dtype = "float64", requires_grad = true })
      local opt = optim.LBFGS({ p }, given)
      local function closure()
        opt:zero_grad()
        local a, b = p[1], p[2]
        local loss = (1 - a) ^ 2 + 100 * (b - a ^ 2) ^ 2
        loss:backward()
        return loss
      end
      local used = capture and kiln.script(closure) or closure
      for _ = 1, 5 do opt:step(used) end
      found[i] = p:totable()
      if not eager then
        raises(function() kiln.script(function() return opt:step(closure) end)() end, "nn_graph.lua:",
          "a step of it cannot be captured; capture the closure: opt:step(kiln.script(closure))")
      end
    end
    check.near(found[2], found[1], 1e-9)
    truth(found[1][1] ~= -1.2, "it moved")
  end
end)

-- ---- functions that layers are made of ---------------------------------------------------------------------------

test("F.bilinear and F.rrelu", function()
  local layer = nn.Bilinear(3, 4, 2)
  local a, b = kiln.randn(5, 3), kiln.randn(5, 4)
  truth(F.bilinear(a, b, layer.weight, layer.bias):equal(layer(a, b)), "with a bias")
  local first = (a[1]:reshape(1, 3):matmul(layer.weight[2]):matmul(b[1])):item()
  check.near(F.bilinear(a, b, layer.weight)[1][2]:item(), first, 1e-6)
  local x = kiln.tensor { -6.0, 2.0 }
  check.near(F.rrelu(x):totable(), { -6 * (1 / 8 + 1 / 3) / 2, 2 }, 1e-6)
  local y = F.rrelu(kiln.full({ 500 }, -1.0), 0.2, 0.4, true)
  truth(y:min():item() >= -0.4 and y:max():item() <= -0.2 and y:std():item() > 0.03, "drawn from the range")
end)

test("F.multi_head_attention_forward is what the module computes", function()
  for _, given in ipairs { {}, { add_bias_kv = true, add_zero_attn = true }, { kdim = 5, vdim = 3 }, { bias = false } } do
    local m = nn.MultiheadAttention(6, 2, given)
    local q, k, v = kiln.randn(4, 2, 6), kiln.randn(7, 2, given.kdim or 6), kiln.randn(7, 2, given.vdim or 6)
    local hidden, mask = kiln.rand(2, 7):lt(0.3), kiln.randn(4, 7)
    hidden[{ {}, 1 }] = false
    local want, weights = m(q, k, v, { key_padding_mask = hidden, attn_mask = mask })
    local function run(a, b, c, o)
      return F.multi_head_attention_forward(a, b, c, 6, 2, m.in_proj_weight, m.in_proj_bias, m.bias_k, m.bias_v, m.add_zero_attn, 0.0,
        m.out_proj.weight, m.out_proj.bias, o)
    end
    local o = { key_padding_mask = hidden, attn_mask = mask, use_separate_proj_weight = given.kdim ~= nil,
      q_proj_weight = m.q_proj_weight, k_proj_weight = m.k_proj_weight, v_proj_weight = m.v_proj_weight }
    for _, f in ipairs { run, kiln.script(run) } do
      local got, seen = f(q, k, v, o)
      truth(got:allclose(want, { atol = 1e-6 }) and seen:allclose(weights, { atol = 1e-6 }), "options by name")
    end
    local got = F.multi_head_attention_forward(q, k, v, 6, 2, m.in_proj_weight, m.in_proj_bias, m.bias_k, m.bias_v, m.add_zero_attn, 0.0,
      m.out_proj.weight, m.out_proj.bias, true, hidden, false, mask, o.use_separate_proj_weight, m.q_proj_weight, m.k_proj_weight,
      m.v_proj_weight)
    truth(got:allclose(want, { atol = 1e-6 }), "options in order")
  end
  local m = nn.MultiheadAttention(6, 2)
  local q = kiln.randn(4, 2, 6)
  local function run(o)
    return F.multi_head_attention_forward(q, q, q, 6, 2, m.in_proj_weight, m.in_proj_bias, nil, nil, false, 0.0, m.out_proj.weight,
      m.out_proj.bias, o)
  end
  local function projected(i) -- [L, N, E] as [N heads, L, E / heads]
    local x = kiln.linear(q, m.in_proj_weight:narrow(1, i * 6 + 1, 6), m.in_proj_bias:narrow(1, i * 6 + 1, 6))
    return x:reshape(4, 4, 3):transpose(1, 2)
  end
  truth(run({ static_k = projected(1), static_v = projected(2) }):allclose(run {}, { atol = 1e-6 }), "keys and values given")
  raises(function() F.multi_head_attention_forward(q, q, q, 8, 2) end, "nn_graph.lua:", "the query has a width of 6, embed_dim is 8")
  raises(function() F.multi_head_attention_forward(q, q, q, 6, 4) end, "nn_graph.lua:", "4 heads do not divide a width of 6")
end)
