-- What `spec/gpu/bench.lua` times on a device: kiln's side here, PyTorch's as text (peer.py makes `f` and `inputs` of it). Not how they are
-- timed. A row is { name, f, inputs = {…}, torch = text, and what applies of
--   flops, bytes   that must be computed and moved at least
--   train          a whole training step
--   aim            the ratio to the fastest of PyTorch's that is asked for; `bandwidth`: the part of a copy's bandwidth }.
-- Each is a function, so that a row's memory is there only while it is timed.
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim
local on = { device = "cuda" }
local rows = {}

local function row(name, make) rows[#rows + 1] = { name = name, make = make } end
local function randn(dtype, ...) return kiln.randn(..., on):to(dtype) end

-- ---- bandwidth ---------------------------------------------------------------------------------------------------

local ROWS, COLUMNS = 16384, 4096 -- 256 MB of float32
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
wide("gelu(x + b)", 2, function(x, b) return F.gelu(x + b) end, "F.gelu(x + b)")
wide("gelu(x + b)", 2, function(x, b) return F.gelu(x + b) end, "F.gelu(x + b)", "bfloat16")
wide("sum of rows", 1, function(x) return x:sum(2) end, "x.sum(1)")
wide("sum of columns", 1, function(x) return x:sum(1) end, "x.sum(0)")
wide("softmax", 2, function(x) return x:softmax(2) end, "x.softmax(1)")
wide("layer norm", 2, function(x, b) return F.layer_norm(x, { COLUMNS }, b, b) end, "F.layer_norm(x, (x.shape[1],), b, b)")
wide("layer norm", 2, function(x, b) return F.layer_norm(x, { COLUMNS }, b, b) end, "F.layer_norm(x, (x.shape[1],), b, b)", "bfloat16")

-- ---- products ----------------------------------------------------------------------------------------------------

for _, it in ipairs { { 1024, "float32" }, { 4096, "float32" }, { 4096, "bfloat16" }, { 8192, "bfloat16" } } do
  local n, dtype = it[1], it[2]
  row(("matmul %d, %s"):format(n, dtype), function()
    return { f = function(a, b) return a:matmul(b) end, inputs = { randn(dtype, n, n), randn(dtype, n, n) }, flops = 2.0 * n ^ 3,
      aim = 1 / 0.95, torch = ("inputs = tuple(torch.randn(%d, %d).to(torch.%s) for _ in range(2))\nf = torch.matmul"):format(n, n, dtype) }
  end)
end

for _, it in ipairs { { 64, 64, 56, 3, 1 }, { 256, 64, 56, 1, 1 }, { 128, 128, 28, 3, 1 }, { 512, 512, 7, 3, 1 } } do
  local from, to, size, kernel, stride = table.unpack(it)
  row(("conv %d -> %d, %d x %d, batch 64, bfloat16"):format(from, to, kernel, kernel), function()
    return { f = function(x, w) return F.conv2d(x, w, nil, { stride = stride, padding = kernel // 2 }) end,
      inputs = { randn("bfloat16", 64, from, size, size), randn("bfloat16", to, from, kernel, kernel) },
      flops = 2.0 * 64 * to * from * (kernel * size // stride) ^ 2, aim = 1 / 0.95,
      torch = ([[
inputs = tuple(t.to(torch.bfloat16).to(memory_format=torch.channels_last) for t in (torch.randn(64, %d, %d, %d), torch.randn(%d, %d, %d, %d)))
f = lambda x, w: F.conv2d(x, w, stride=%d, padding=%d)]]):format(from, size, size, to, from, kernel, kernel, stride, kernel // 2) }
  end)
end

row("attention, 8 x 16 heads, 2048 x 64, causal, bfloat16", function()
  local function heads() return randn("bfloat16", 8, 16, 2048, 64) end
  return { f = function(q, k, v) return F.scaled_dot_product_attention(q, k, v, { is_causal = true }) end,
    inputs = { heads(), heads(), heads() }, flops = 2.0 * 8 * 16 * 2048 ^ 2 * 64, aim = 1 / 0.95, torch = [[
inputs = tuple(torch.randn(8, 16, 2048, 64).to(torch.bfloat16) for _ in range(3))
f = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)]] }
end)

-- ---- calls -------------------------------------------------------------------------------------------------------

row("MLP 10-32-2, batch 1", function()
  local net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2)):to "cuda"
  return { f = function(x) return net(x) end, inputs = { kiln.randn(1, 10, on) }, torch = [[
f = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
inputs = (torch.randn(1, 10),)]] }
end)

row("while of 1,000 trips", function()
  local function f(x, w, b)
    local n = 0
    while n < 1000 and x:sum():item() < 100 do
      x = (x:matmul(w) + b):tanh()
      n = n + 1
    end
    return x
  end
  return { f = f, inputs = { kiln.randn(8, 8, on), kiln.randn(8, 8, on) * 0.1, kiln.randn(8, on) * 0.1 }, aim = 0.2, torch = [[
def f(x, w, b):
    n = 0
    while n < 1000 and x.sum().item() < 100:
        x = (x @ w + b).tanh()
        n += 1
    return x
from torch._higher_order_ops.while_loop import while_loop
def whole(x, w, b):
    return while_loop(lambda n, x: (n < 1000) & (x.sum() < 100), lambda n, x: (n + 1, (x @ w + b).tanh()), (torch.tensor(0), x))
inputs = (torch.randn(8, 8), torch.randn(8, 8) * 0.1, torch.randn(8) * 0.1)]] }
end)

-- A token after the other until one is the end: a small network whose next input is its own answer.
row("greedy decode with early stop, at most 256", function()
  local width, vocab, last = 256, 1024, 256
  local embed, cell, head = nn.Embedding(vocab, width):to "cuda", nn.Linear(2 * width, width):to "cuda", nn.Linear(width, vocab):to "cuda"
  local function f(token, h)
    local n = 0
    while n < last and token:item() ~= 1 do
      h = cell(kiln.cat({ embed(token), h }, 2)):tanh()
      token = head(h):argmax(2)
      n = n + 1
    end
    return token, h
  end
  return { f = f, inputs = { kiln.tensor({ 2 }, on), kiln.zeros(1, width, on) }, aim = 0.2, torch = [[
embed, cell, head = nn.Embedding(1024, 256), nn.Linear(512, 256), nn.Linear(256, 1024)
def f(token, h):
    n = 0
    while n < 256 and token.item() != 0:
        h = cell(torch.cat((embed(token), h), 1)).tanh()
        token = head(h).argmax(1)
        n += 1
    return token, h
inputs = (torch.tensor([1]), torch.zeros(1, 256))]] }
end)

-- ---- models ------------------------------------------------------------------------------------------------------

row("ResNet-50, batch 64, bfloat16", function()
  local net = kiln.vision.models.resnet50():eval():to "cuda":to "bfloat16"
  return { f = function(x) return net(x) end, inputs = { randn("bfloat16", 64, 3, 224, 224) }, flops = 64 * 8.2e9, aim = 1 / 0.95, torch = [[
from torchvision import models
f = models.resnet50().eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
inputs = (torch.randn(64, 3, 224, 224).to(torch.bfloat16).to(memory_format=torch.channels_last),)]] }
end)

row("ResNet-50, training step, batch 64, bfloat16", function()
  local net = kiln.vision.models.resnet50():to "cuda":to "bfloat16"
  local opt = optim.SGD(net:parameters(), { lr = 0.001, momentum = 0.9 })
  return { train = true, inputs = { randn("bfloat16", 64, 3, 224, 224), kiln.randint(1, 1001, { 64 }, on) }, flops = 64 * 24.6e9,
    f = function(x, y)
      opt:zero_grad()
      local loss = F.cross_entropy(net(x):float(), y)
      loss:backward()
      opt:step()
      return loss
    end, torch = [[
from torchvision import models
net = models.resnet50().to(torch.bfloat16).to(memory_format=torch.channels_last)
optimiser = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
loss_of = lambda x, y: F.cross_entropy(net(x).float(), y)
inputs = (torch.randn(64, 3, 224, 224).to(torch.bfloat16).to(memory_format=torch.channels_last), torch.randint(0, 1000, (64,)))]] }
end)

row("GPT-2 small, training step, 4 x 512, bfloat16", function()
  local net = kiln.text.models.GPT2LMHeadModel { embd_pdrop = 0, resid_pdrop = 0, attn_pdrop = 0 }:to "cuda":to "bfloat16"
  local opt = optim.AdamW(net:parameters(), { lr = 0.0001 })
  return { train = true, inputs = { kiln.randint(1, 50258, { 4, 513 }, on) }, flops = 6 * 124e6 * 4 * 512,
    f = function(x)
      opt:zero_grad()
      local logits = net(x[{ {}, { 1, 512 } }])
      local loss = F.cross_entropy(logits:reshape(-1, 50257):float(), x[{ {}, { 2, 513 } }]:reshape(-1))
      loss:backward()
      opt:step()
      return loss
    end, torch = [[
from transformers import GPT2Config, GPT2LMHeadModel
net = GPT2LMHeadModel(GPT2Config(embd_pdrop=0, resid_pdrop=0, attn_pdrop=0)).to(torch.bfloat16)
optimiser = torch.optim.AdamW(net.parameters(), lr=0.0001, fused=True)
loss_of = lambda x: F.cross_entropy(net(x[:, :512]).logits.reshape(-1, 50257).float(), x[:, 1:].reshape(-1))
inputs = (torch.randint(0, 50257, (4, 513)),)]] }
end)

return rows
