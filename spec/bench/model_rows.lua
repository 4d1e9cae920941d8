-- What `./dev bench models` times: the one list of rows, and each as kiln has it; nets.py has the same for the peers, by the
-- name in `net`. Not how they are timed (models.lua) nor by whom (model_worker.lua, models.py). What the file returns is
-- list(tiny): the rows; tiny ones are small, for the suite.
--
-- A row is { group, name, net = "resnet18", sizes = { { "batch", 1 }, … }, and what applies of
--   limit     the most that its time may be of the fastest peer's (1.1 unless told)
--   bound     a sentence: what bounds it, where the numbers do not say it by themselves
-- }. Of the network `net` this file makes a case: { f =, inputs = { … }, train = it is a whole training step,
-- tables = { tensors of which only some rows are read } }.
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim
local vision, text = kiln.vision.models, kiln.text.models

local cases = {}

local function forward(net, ...)
  net:eval()
  return { f = function(...) return net(...) end, inputs = { ... } }
end

-- ---- images ----------------------------------------------------------------------------------------------------

function cases.mlp(s)
  return forward(nn.Sequential(nn.Linear(s.n, s.hidden), nn.ReLU(), nn.Linear(s.hidden, s.out)), kiln.randn(s.batch, s.n))
end

function cases.lenet(s) return forward(vision.lenet(), kiln.randn(s.batch, 1, 28, 28)) end

for _, name in ipairs { "resnet18", "resnet50", "mobilenet_v2" } do
  cases[name] = function(s) return forward(vision[name](), kiln.randn(s.batch, 3, s.size, s.size)) end
end

local Mnist = nn.Module:extend "Mnist" -- of samples/mnist.lua
function Mnist:init()
  self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, { padding = 1 }), nn.BatchNorm2d(16)
  self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, { padding = 1 }), nn.BatchNorm2d(32)
  self.fc1, self.drop, self.fc2 = nn.Linear(32 * 7 * 7, 64), nn.Dropout(0.3), nn.Linear(64, 10)
end
function Mnist:forward(x)
  x = F.max_pool2d(self.norm1(self.conv1(x)):relu(), 2)
  x = F.max_pool2d(self.norm2(self.conv2(x)):relu(), 2)
  x = self.fc1(x:flatten(2)):relu()
  return self.fc2(self.drop(x))
end

function cases.mnist(s) return forward(Mnist(), kiln.randn(s.batch, 1, 28, 28)) end

local function block(from, to)
  return nn.Sequential(nn.Conv2d(from, to, 3, { padding = 1, bias = false }), nn.BatchNorm2d(to), nn.ReLU())
end

function cases.cifar(s) -- of samples/cifar.lua
  local net = nn.Sequential(block(3, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2), block(64, 128), nn.MaxPool2d(2),
    block(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10))
  return forward(net, kiln.randn(s.batch, 3, 32, 32))
end

-- ---- branches and loops ----------------------------------------------------------------------------------------

local Digits = nn.Module:extend "Digits" -- predict of samples/digits.lua; not trained, it always goes the whole way
function Digits:init()
  self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, { padding = 1 }), nn.ReLU(), nn.MaxPool2d(2))
  self.cheap = nn.Sequential(nn.Flatten(), nn.Linear(12 * 4 * 4, 10))
  self.deepen = nn.Sequential(nn.Conv2d(12, 32, 3, { padding = 1 }), nn.ReLU())
  self.refine = nn.Conv2d(32, 32, 3, { padding = 1 })
  self.answer = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 10))
end
function Digits:forward(x)
  local features = self.stem(x)
  local chances = self.cheap(features):softmax(2)
  local confidence = chances:amax():item()
  if confidence >= 0.9 then return chances:argmax():item(), confidence, false end
  local h, steps = self.deepen(features), 0
  chances = self.answer(h):softmax(2)
  confidence = chances:amax():item()
  while confidence < 0.9 and steps < 3 do
    h = h + self.refine(h):relu()
    chances = self.answer(h):softmax(2)
    confidence = chances:amax():item()
    steps = steps + 1
  end
  return chances:argmax():item(), confidence, true
end

function cases.digits() return forward(Digits(), kiln.randn(1, 1, 8, 8)) end

function cases.loop(s)
  local trips = s.trips
  local function f(x, w, b)
    local n = 0
    while n < trips and x:sum():item() < 100 do
      x = (x:matmul(w) + b):tanh()
      n = n + 1
    end
    return x
  end
  return { f = f, inputs = { kiln.randn(s.n, s.n), kiln.randn(s.n, s.n) * 0.1, kiln.randn(s.n) * 0.1 } }
end

-- ---- sequences -------------------------------------------------------------------------------------------------

local function ids(classes, ...) return kiln.randint(1, classes + 1, { ... }) end

function cases.lstm(s)
  local net = nn.LSTM(s.width, s.width, s.layers, { batch_first = true })
  local case = forward(net, kiln.randn(s.batch, s.steps, s.width))
  case.f = function(x) return (net(x)) end
  return case
end

function cases.names(s) -- of samples/names.lua
  local net = text.CharRNN { vocab_size = 27, embedding_size = 32, hidden_size = 128, cell = "GRU" }
  local case = forward(net, ids(27, s.batch, s.steps))
  case.f = function(x) return (net(x)) end
  return case
end

local function gpt2_block(s)
  return text.GPT2Model({ n_embd = s.width, n_head = s.heads, n_layer = 1, vocab_size = 8, n_positions = 8 }):eval().h[1]
end

function cases.gpt2_decode(s)
  local net, past = gpt2_block(s), {}
  for i = 1, 2 do past[i] = kiln.randn(1, s.heads, s.past, s.width // s.heads) end
  local function f(x, before) -- the mask is the one that GPT2Model makes
    local n = before[1]:size(3)
    return net(x, before, kiln.ones(1, n + 1, { dtype = "bool" }):tril(n))
  end
  return { f = f, inputs = { kiln.randn(1, 1, s.width), past } }
end

function cases.gpt2_prefill(s)
  local net = gpt2_block(s)
  return { f = function(x) return net(x) end, inputs = { kiln.randn(1, s.tokens, s.width) } }
end

local function gpt() -- of samples/shakespeare.lua
  return text.GPT2LMHeadModel { vocab_size = 65, n_positions = 64, n_embd = 128, n_layer = 4, n_head = 4, embd_pdrop = 0,
    resid_pdrop = 0, attn_pdrop = 0 }
end

function cases.shakespeare(s)
  local net = gpt():eval()
  return { f = function(x) return (net(x)) end, inputs = { ids(65, s.batch, s.tokens) } }
end

function cases.minilm(s)
  local net = text.BertModel { hidden_size = s.width, num_hidden_layers = s.layers, num_attention_heads = s.heads,
    intermediate_size = s.inner, vocab_size = s.vocab, add_pooling_layer = false }
  local case = forward(net, ids(s.vocab, 1, s.tokens))
  case.tables = { net.embeddings.word_embeddings.weight }
  return case
end

function cases.stories(s) -- of samples/stories.lua, with weights of its sizes: one token, at a place of its caches
  local net = text.Llama { vocab_size = 512, hidden_size = 64, intermediate_size = 172, num_hidden_layers = 5,
    num_attention_heads = 8, num_key_value_heads = 4, max_position_embeddings = s.places, rope_interleaved = true,
    tie_word_embeddings = true }
  net:eval()
  local cache, past = net:cache(1, s.places), s.past
  cache.length = nil
  local function f(token, layers)
    local all = { length = past }
    for i = 1, #layers do all[i] = layers[i] end
    return net(token, all)
  end
  return { f = f, inputs = { ids(512, 1, 1), cache } }
end

-- ---- whole training steps --------------------------------------------------------------------------------------

local function step(opt, loss_of, ...)
  local function f(...)
    opt:zero_grad()
    local loss = loss_of(...)
    loss:backward()
    opt:step()
    return loss
  end
  return { f = f, inputs = { ... }, train = true }
end

function cases.train_mlp(s)
  local net = nn.Sequential(nn.Linear(s.n, s.hidden), nn.ReLU(), nn.Linear(s.hidden, 10))
  return step(optim.SGD(net:parameters(), { lr = 0.001 }), function(x, t) return F.cross_entropy(net(x), t) end,
    kiln.randn(s.batch, s.n), ids(10, s.batch))
end

function cases.train_cnn(s)
  local net = Mnist()
  return step(optim.Adam(net:parameters(), { lr = 0.001 }), function(x, t) return F.cross_entropy(net(x), t) end,
    kiln.randn(s.batch, 1, 28, 28), ids(10, s.batch))
end

function cases.train_gpt(s)
  local net, n = gpt(), s.tokens
  local function loss_of(x)
    local logits = net(x[{ {}, { 1, n } }])
    return F.cross_entropy(logits:reshape(-1, 65), x[{ {}, { 2, n + 1 } }]:reshape(-1))
  end
  return step(optim.AdamW(net:parameters(), { lr = 0.001, weight_decay = 0.1 }), loss_of, ids(65, s.batch, n + 1))
end

-- ---- the list --------------------------------------------------------------------------------------------------

local rows, tiny

-- Sizes as "batch=8 size=224"; those for the suite are given behind, where they differ.
local function add(group, name, net, sizes, small, more)
  local row = more or {}
  row.group, row.name, row.net, row.sizes, row.size = group, name, net, tiny and small or sizes, {}
  row.limit = row.limit or 1.1
  for key, value in row.sizes:gmatch "(%w+)=(%d+)" do row.size[key] = math.tointeger(tonumber(value)) end
  function row.case() return cases[net](row.size) end
  rows[#rows + 1] = row
end

return function(small_ones)
  rows, tiny = {}, small_ones
  add("images", "MLP 10-32-2, batch 1", "mlp", "batch=1 n=10 hidden=32 out=2", nil, { limit = 0.1,
    bound = "calls: 1,536 flops are nothing; what counts is what a call costs" })
  add("images", "LeNet, batch 1", "lenet", "batch=1")
  for _, name in ipairs { "ResNet-18", "ResNet-50", "MobileNetV2" } do
    local net = name == "MobileNetV2" and "mobilenet_v2" or name:lower():gsub("-", "")
    for _, batch in ipairs(tiny and { 1 } or { 1, 8 }) do
      add("images", ("%s, batch %d"):format(name, batch), net, ("batch=%d size=224"):format(batch),
        "batch=1 size=33")
    end
  end
  add("images", "mnist's CNN, batch 64", "mnist", "batch=64", "batch=2")
  add("images", "cifar's CNN, batch 64", "cifar", "batch=64", "batch=2")
  add("control", "digits, early exits", "digits", "")
  add("control", "while of 1,000 trips", "loop", "trips=1000 n=8", "trips=10 n=8", { limit = 0.1,
    bound = "calls: a trip is some 1,200 flops on 64 elements; what counts is what a trip costs" })
  add("sequences", "LSTM 256x2, 32 steps", "lstm", "layers=2 width=256 steps=32 batch=1", "layers=2 width=8 steps=3 batch=1")
  add("sequences", "names' GRU, 128 x 16", "names", "batch=128 steps=16", "batch=2 steps=3")
  add("sequences", "GPT-2 block, decode at 256", "gpt2_decode", "width=768 heads=12 past=256", "width=24 heads=3 past=5")
  add("sequences", "GPT-2 block, prefill 128", "gpt2_prefill", "width=768 heads=12 tokens=128", "width=24 heads=3 tokens=5")
  add("sequences", "MiniLM encoder, 128 tokens", "minilm", "layers=6 width=384 heads=12 inner=1536 tokens=128 vocab=30522",
    "layers=2 width=24 heads=3 inner=32 tokens=5 vocab=30")
  add("sequences", "shakespeare's GPT, 12 x 64", "shakespeare", "batch=12 tokens=64", "batch=1 tokens=5")
  add("sequences", "stories' Llama, decode at 128", "stories", "past=128 places=256", "past=4 places=8")
  add("training", "MLP 784-256-10, batch 64, SGD", "train_mlp", "batch=64 n=784 hidden=256", "batch=4 n=16 hidden=8")
  add("training", "mnist's CNN, batch 64, Adam", "train_cnn", "batch=64", "batch=2")
  add("training", "shakespeare's GPT, 12 x 64, AdamW", "train_gpt", "batch=12 tokens=64", "batch=1 tokens=5")
  return rows
end
