-- One whole step of training of every class of model that the library and its samples have, at a tiny size: forward, loss,
-- backward, clipping, the optimiser's step, the schedule, a metric, dropout on. Eager and captured, three times, to the bit.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth
local nn, F, optim, metrics = kiln.nn, kiln.nn.functional, kiln.optim, kiln.metrics
local V, W = kiln.vision.models, kiln.text.models

local function step_of(c)
  local net, opt, schedule = c.net, c.optimizer(c.net:parameters()), nil
  if c.schedule then schedule = c.schedule(opt) end
  local meter = metrics.Accuracy()
  local function step(x, y)
    opt:zero_grad()
    local scores = c.scores(net, x)
    local loss = c.loss and c.loss(scores, y) or F.cross_entropy(scores, y)
    loss:backward()
    local norm = nn.utils.clip_grad_norm_(net:parameters(), 0.5)
    opt:step()
    if schedule then schedule:step() end
    meter:update(scores, y)
    return loss, norm, metrics.accuracy(scores, y)
  end
  return step, opt, meter
end

-- Everything that a caller can see after the steps.
local function train(make, script)
  kiln.manual_seed(3)
  local c = make()
  local step, opt, meter = step_of(c)
  local run, seen = script(step), {}
  for i = 1, 3 do
    local x, y = c.batch(i)
    local loss, norm, right = run(x, y)
    seen[i] = { loss:item(), norm:item(), right, opt.param_groups[1].lr }
  end
  local state = {}
  for name, t in pairs(c.net:state_dict()) do state[name] = t:totable() end
  local moments = {}
  for i, s in pairs(opt:state_dict().state) do
    moments[i] = {}
    for name, v in pairs(s) do moments[i][name] = kiln.is_tensor(v) and v:totable() or v end
  end
  return { seen, state, moments, meter:compute(), kiln.rand(2):totable() }
end

local function steps(name, make)
  test(name, function()
    local threads = kiln.get_num_threads()
    kiln.set_num_threads(1) -- small things: a second thread would only wait
    kiln.use_deterministic_algorithms(true)
    local ok, why = pcall(function()
      local want = train(make, function(f) return f end)
      local got = train(make, kiln.script)
      truth(check.identical(got, want), "they are the same to the bit")
      equal(got[1], want[1])
    end)
    kiln.use_deterministic_algorithms(false)
    kiln.set_num_threads(threads)
    if not ok then error(why, 0) end
  end)
end

-- ---- optimisers, schedules ----

local function adamw(list) return optim.AdamW(list, { lr = 0.01, weight_decay = 0.1 }) end
local function sgd(list) return optim.SGD(list, { lr = 0.05, momentum = 0.9, nesterov = true, weight_decay = 1e-3 }) end
local function cosine(opt) return optim.lr_scheduler.CosineAnnealingLR(opt, 5) end
local function steps_down(opt) return optim.lr_scheduler.StepLR(opt, 2, 0.5) end
local function one_cycle(opt) return optim.lr_scheduler.OneCycleLR(opt, { max_lr = 0.1, total_steps = 8 }) end

-- ---- images ----

local function images(channels, size, classes)
  return function(i)
    return kiln.randn(3 + i % 2, channels, size, size), kiln.randint(1, classes + 1, { 3 + i % 2 })
  end
end
local function call(net, x) return net(x) end

steps("LeNet", function()
  return { net = V.lenet(), optimizer = sgd, schedule = steps_down, scores = call, batch = images(1, 28, 10) }
end)
steps("ResNet of basic blocks", function()
  return { net = V.ResNet(V.BasicBlock, { 1, 1, 1, 1 }, { num_classes = 3, width = 4 }), optimizer = sgd, schedule = cosine, scores = call,
    batch = images(3, 32, 3) }
end)
steps("ResNet of bottlenecks", function()
  return { net = V.ResNet(V.Bottleneck, { 1, 1, 1, 1 }, { num_classes = 3, width = 4 }), optimizer = adamw, schedule = one_cycle, scores = call,
    batch = images(3, 32, 3) }
end)
steps("MobileNetV2", function()
  local net = V.MobileNetV2 { num_classes = 3, width_mult = 0.1, dropout = 0.3, inverted_residual_setting = { { 1, 16, 1, 1 }, { 2, 16, 2, 2 } } }
  return { net = net, optimizer = sgd, schedule = cosine, scores = call, batch = images(3, 32, 3) }
end)
steps("VisionTransformer", function()
  local net = V.VisionTransformer { image_size = 16, patch_size = 8, num_layers = 2, num_heads = 2, hidden_dim = 8, mlp_dim = 8, num_classes = 3,
    dropout = 0.1, attention_dropout = 0.1 }
  return { net = net, optimizer = adamw, schedule = cosine, scores = call, batch = images(3, 16, 3) }
end)

-- ---- text ----

local function tokens(vocabulary, length)
  return function(i)
    local ids = kiln.randint(1, vocabulary + 1, { 2 + i % 2, length + 1 })
    return ids[{ {}, { 1, length } }], ids[{ {}, { 2, length + 1 } }]
  end
end
local function first_result(net, x) return (net(x)):transpose(2, 3) end -- [N, classes, T]

for _, cell in ipairs { "LSTM", "GRU", "RNN" } do
  steps("CharRNN of " .. cell, function()
    local net = W.CharRNN { vocab_size = 11, embedding_size = 6, hidden_size = 8, num_layers = 2, dropout = 0.2, cell = cell }
    return { net = net, optimizer = adamw, schedule = steps_down, scores = first_result, batch = tokens(11, 7) }
  end)
end
steps("GPT-2", function()
  local net = W.GPT2LMHeadModel { vocab_size = 13, n_positions = 12, n_embd = 8, n_layer = 2, n_head = 2 }
  return { net = net, optimizer = adamw, schedule = cosine, scores = first_result, batch = tokens(13, 6) }
end)
steps("BERT with a head", function()
  local net = nn.ModuleDict { bert = W.BertModel { vocab_size = 13, hidden_size = 8, num_hidden_layers = 2, num_attention_heads = 2,
    intermediate_size = 16, max_position_embeddings = 12 }, head = nn.Linear(8, 3) }
  return { net = net, optimizer = adamw, schedule = one_cycle,
    scores = function(n, x)
      local _, pooled = n.bert(x, x:gt(2))
      return n.head(pooled)
    end,
    batch = function(i) return kiln.randint(1, 14, { 2 + i % 2, 7 }), kiln.randint(1, 4, { 2 + i % 2 }) end }
end)
steps("Llama", function()
  local net = W.Llama { vocab_size = 13, hidden_size = 8, intermediate_size = 12, num_hidden_layers = 2, num_attention_heads = 4,
    num_key_value_heads = 2, max_position_embeddings = 12 }
  return { net = net, optimizer = adamw, schedule = cosine, scores = first_result, batch = tokens(13, 6) }
end)

-- ---- gradients to the bit, however things lie in memory ----

test("products and sums of turned, cut and parted tensors: the gradients of one and the other", function()
  local W, B = nn.Parameter(kiln.randn(24, 8)), nn.Parameter(kiln.randn(24))
  local z, w = kiln.randn(4, 5, 8), kiln.randn(8)
  local conv = nn.Conv2d(3, 8, 8, { stride = 8 })
  local cases = {
    { { W, B }, function(z) return kiln.linear(z, W, B):reshape(4, 5, 2, 12):transpose(2, 3) end, z },
    { { W, B }, function(z) return kiln.linear(z:transpose(1, 2), W, B) end, z },
    { { W, B }, function(z)
      local h = kiln.linear(z, W, B):chunk(3, 3)
      for i = 1, 3 do h[i] = h[i]:unflatten(3, { 2, -1 }):permute(2, 3, 1, 4) end
      return h[1]:matmul(h[2]:transpose(3, 4)):matmul(h[3]):permute(3, 1, 2, 4):flatten(3, 4)
    end, z },
    { { conv.weight, conv.bias }, function(x)
      local y = conv(x)
      return y:reshape(y:size(1), 8, -1):permute(1, 3, 2) * w
    end, kiln.randn(4, 3, 16, 16) },
  }
  for i, case in ipairs(cases) do
    local parameters, f, x = table.unpack(case)
    local function step(x)
      local y = f(x)
      local loss = (y * y):sum()
      loss:backward()
      return loss
    end
    local function run(g)
      for _, p in ipairs(parameters) do p.grad = nil end
      local all = { g(x):clone() }
      for _, p in ipairs(parameters) do all[#all + 1] = p.grad:clone() end
      return all
    end
    local want, got = run(step), run(kiln.script(step))
    for k = 1, #want do truth(got[k]:equal(want[k]), ("case %d, tensor %d"):format(i, k)) end
  end
end)
