-- What `spec/gpu/bench.lua` times on a device: kiln's side here, PyTorch's as text (peer.py makes `f` and `inputs` of it, peer_models.py has
-- its models). Not how they are timed. Those asked most of come first, should time run out. A row is { f, inputs = {…}, torch = text, and
-- what applies of
--   flops, bytes   that must be computed and moved at least
--   train          a whole training step
--   memory         it is told how much each side takes
--   aim            the ratio to the fastest of PyTorch's that is asked for; `bandwidth`: the part of a copy's bandwidth }.
-- Each is a function, so that a row's memory is there only while it is timed. `small` (the argument) is for trying it without a GPU.
local small = ...
local loops = require "loops"
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim
local on = { device = "cuda" }
local rows = {}

local function row(name, make) rows[#rows + 1] = { name = name, make = make } end
local function randn(dtype, ...) return kiln.randn({ ... }, on):to(dtype) end
local function of(large, little) return small and little or large end
local function text(pattern, values) return (pattern:gsub("%$(%w+)", function(name) return tostring(values[name]) end)) end

-- ---- calls -------------------------------------------------------------------------------------------------------

row("MLP 10-32-2, batch 1", function()
  local net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2)):to "cuda"
  return { f = function(x) return net(x) end, inputs = { kiln.randn(1, 10, on) }, torch = [[
f = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
inputs = (torch.randn(1, 10),)]] }
end)

local TRIPS = of(1000, 20)
row(("while of %d trips"):format(TRIPS), function()
  return { f = loops.trips(TRIPS), inputs = { kiln.randn(8, 8, on), kiln.randn(8, 8, on) * 0.1, kiln.randn(8, on) * 0.1 }, aim = 0.2, torch = text([[
def f(x, w, b):
    n = 0
    while n < $TRIPS and x.sum().item() < 100:
        x = (x @ w + b).tanh()
        n += 1
    return x
inputs = (torch.randn(8, 8), torch.randn(8, 8) * 0.1, torch.randn(8) * 0.1)]], { TRIPS = TRIPS }) }
end)

local LAST = of(256, 8)
row(("greedy decode with early stop, at most %d"):format(LAST), function()
  local width, vocab = of(256, 16), of(1024, 32)
  return { f = loops.decoder(width, vocab, LAST), inputs = { kiln.tensor({ 2 }, on), kiln.zeros(1, width, on) }, aim = 0.2, torch = text([[
embed, cell, head = nn.Embedding($vocab, $width), nn.Linear(2 * $width, $width), nn.Linear($width, $vocab)
def f(token, h):
    n = 0
    while n < $LAST and token.item() != 0:
        h = cell(torch.cat((embed(token), h), 1)).tanh()
        token = head(h).argmax(1)
        n += 1
    return token, h
inputs = (torch.tensor([1]), torch.zeros(1, $width))]], { vocab = vocab, width = width, LAST = LAST }) }
end)

-- ---- products ----------------------------------------------------------------------------------------------------

for _, it in ipairs { { 8192, "bfloat16" }, { 4096, "float32" }, { 4096, "bfloat16" }, { 1024, "float32" } } do
  local n, dtype = of(it[1], it[1] // 128), it[2]
  row(("matmul %d, %s"):format(n, dtype), function()
    return { f = function(a, b) return a:matmul(b) end, inputs = { randn(dtype, n, n), randn(dtype, n, n) }, flops = 2.0 * n ^ 3,
      aim = 1 / 0.95, torch = ("inputs = tuple(torch.randn(%d, %d).to(torch.%s) for _ in range(2))\nf = torch.matmul"):format(n, n, dtype) }
  end)
end

local BATCH = of(64, 1)
for _, it in ipairs { { 64, 64, 56, 3, 1 }, { 256, 64, 56, 1, 1 }, { 128, 128, 28, 3, 1 }, { 512, 512, 7, 3, 1 } } do
  local from, to, size, kernel, stride = table.unpack(it)
  if small then from, to, size = from // 32, to // 32, 7 end
  row(("conv %d -> %d, %d x %d, batch %d, bfloat16"):format(from, to, kernel, kernel, BATCH), function()
    return { f = function(x, w) return F.conv2d(x, w, nil, { stride = stride, padding = kernel // 2 }) end,
      inputs = { randn("bfloat16", BATCH, from, size, size), randn("bfloat16", to, from, kernel, kernel) },
      flops = 2.0 * BATCH * to * from * (kernel * size // stride) ^ 2, aim = 1 / 0.95,
      torch = ([[
inputs = tuple(t.to(torch.bfloat16).to(memory_format=torch.channels_last) for t in (torch.randn(%d, %d, %d, %d), torch.randn(%d, %d, %d, %d)))
f = lambda x, w: F.conv2d(x, w, stride=%d, padding=%d)]]):format(BATCH, from, size, size, to, from, kernel, kernel, stride, kernel // 2) }
  end)
end

local N, HEADS, LONG = of(8, 1), of(16, 2), of(2048, 8)
row(("attention, %d x %d heads, %d x 64, causal, bfloat16"):format(N, HEADS, LONG), function()
  local function heads() return randn("bfloat16", N, HEADS, LONG, 64) end
  return { f = function(q, k, v) return F.scaled_dot_product_attention(q, k, v, { is_causal = true }) end,
    inputs = { heads(), heads(), heads() }, flops = 2.0 * N * HEADS * LONG ^ 2 * 64, aim = 1 / 0.95, torch = ([[
inputs = tuple(torch.randn(%d, %d, %d, 64).to(torch.bfloat16) for _ in range(3))
f = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)]]):format(N, HEADS, LONG) }
end)

-- ---- models: training in mixed precision on both sides, inference with weights of bfloat16 -------------------------

local function step(opt, loss_of)
  return function(...)
    opt:zero_grad()
    local loss = kiln.autocast("bfloat16", loss_of, ...)
    loss:backward()
    opt:step()
    return loss
  end
end

local TEXTS, LENGTH = of(4, 1), of(512, 4)
local gpt = of({ vocab_size = 50257, n_embd = 768, n_layer = 12, n_head = 12 }, { vocab_size = 50, n_embd = 16, n_layer = 1, n_head = 2 })
row(("GPT-2 small, training step, %d x %d, autocast"):format(TEXTS, LENGTH), function()
  local options = { embd_pdrop = 0, resid_pdrop = 0, attn_pdrop = 0 }
  for key, value in pairs(gpt) do options[key] = value end
  local net = kiln.text.models.GPT2LMHeadModel(options):to "cuda"
  local opt = optim.AdamW(net:parameters(), { lr = 0.0001 })
  return { train = true, memory = true, inputs = { kiln.randint(1, gpt.vocab_size + 1, { TEXTS, LENGTH + 1 }, on) }, flops = 6 * 124e6 * TEXTS * LENGTH,
    f = step(opt, function(x)
      local logits = net(x[{ {}, { 1, LENGTH } }])
      return F.cross_entropy(logits:reshape(-1, gpt.vocab_size), x[{ {}, { 2, LENGTH + 1 } }]:reshape(-1))
    end), torch = text([[
net = models.GPT2($vocab_size, width=$n_embd, layers=$n_layer, heads=$n_head)
optimiser = torch.optim.AdamW(net.parameters(), lr=0.0001, fused=True)
def loss_of(x):
    with autocast():
        return F.cross_entropy(net(x[:, :$LENGTH]).reshape(-1, $vocab_size), x[:, 1:].reshape(-1))
inputs = (torch.randint(0, $vocab_size, ($TEXTS, $LENGTH + 1)),)]], setmetatable({ TEXTS = TEXTS, LENGTH = LENGTH }, { __index = gpt })) }
end)

if not small then
  row("ResNet-50, batch 64, bfloat16", function()
    local net = kiln.vision.models.resnet50():eval():to "cuda":to "bfloat16"
    return { f = function(x) return net(x) end, inputs = { randn("bfloat16", 64, 3, 224, 224) }, flops = 64 * 8.2e9, aim = 1 / 0.95, memory = true,
      torch = [[
f = models.resnet50().eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
inputs = (torch.randn(64, 3, 224, 224).to(torch.bfloat16).to(memory_format=torch.channels_last),)]] }
  end)

  row("ResNet-50, training step, batch 64, autocast", function()
    local net = kiln.vision.models.resnet50():to "cuda"
    local opt = optim.SGD(net:parameters(), { lr = 0.001, momentum = 0.9 })
    return { train = true, memory = true, inputs = { kiln.randn(64, 3, 224, 224, on), kiln.randint(1, 1001, { 64 }, on) }, flops = 64 * 24.6e9,
      f = step(opt, function(x, y) return F.cross_entropy(net(x), y) end), torch = [[
net = models.resnet50().to(memory_format=torch.channels_last)
optimiser = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
def loss_of(x, y):
    with autocast():
        return F.cross_entropy(net(x), y)
inputs = (torch.randn(64, 3, 224, 224).to(memory_format=torch.channels_last), torch.randint(0, 1000, (64,)))]] }
  end)
end

-- ---- bandwidth ---------------------------------------------------------------------------------------------------

local ROWS, COLUMNS = of(16384, 8), of(4096, 64) -- 256 MB of float32
local function wide(name, reads, f, torch, dtype)
  dtype = dtype or "float32"
  row(("%s, %d x %d %s"):format(name, ROWS, COLUMNS, dtype), function()
    local bytes = ROWS * COLUMNS * (dtype == "float32" and 4 or 2)
    return { f = f, inputs = { randn(dtype, ROWS, COLUMNS), randn(dtype, COLUMNS) }, bytes = reads * bytes, bandwidth = 0.9,
      torch = ("inputs = (torch.randn(%d, %d).to(torch.%s), torch.randn(%d).to(torch.%s))\nf = lambda x, b: %s"):format(
        ROWS, COLUMNS, dtype, COLUMNS, dtype, torch) }
  end)
end

wide("copy", 2, function(x) return x:clone() end, "x.clone()")
table.insert(rows, 1, table.remove(rows)) -- what the others' bandwidth is a part of
wide("gelu(x + b)", 2, function(x, b) return F.gelu(x + b) end, "F.gelu(x + b)")
wide("softmax", 2, function(x) return x:softmax(2) end, "x.softmax(1)")
wide("layer norm", 2, function(x, b) return F.layer_norm(x, { COLUMNS }, b, b) end, "F.layer_norm(x, (x.shape[1],), b, b)")
wide("sum of rows", 1, function(x) return x:sum(2) end, "x.sum(1)")
wide("sum of columns", 1, function(x) return x:sum(1) end, "x.sum(0)")
wide("gelu(x + b)", 2, function(x, b) return F.gelu(x + b) end, "F.gelu(x + b)", "bfloat16")
wide("layer norm", 2, function(x, b) return F.layer_norm(x, { COLUMNS }, b, b) end, "F.layer_norm(x, (x.shape[1],), b, b)", "bfloat16")

return rows
