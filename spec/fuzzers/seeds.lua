-- Small valid inputs for every target, made by kiln itself: kiln seeds.lua FOLDER [TARGET]. What fuzzers start from
-- beside the corpus, which has grown out of them.
local kiln = require "kiln"
local nn, F, T = kiln.nn, kiln.nn.functional, kiln.tensor
local root, only = arg[1], arg[2]
local count = 0

local function put(target, bytes)
  if only and only ~= target then return end
  count = count + 1
  kiln.io.write_file(("%s/%s/seed%03d"):format(root, target, count), bytes)
end

local function of_file(write)
  local path = os.tmpname()
  write(path)
  local bytes = kiln.io.read_file(path)
  os.remove(path)
  return bytes
end

kiln.manual_seed(1)

-- ---- graphs ----
local graphs = {}
local function graph(f, ...)
  local g = kiln.script(f)
  for _ = 1, 2 do g(...) end
  graphs[#graphs + 1] = g
end

graph(nn.Linear(3, 2):eval(), kiln.ones(2, 3))
graph(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)):eval(), kiln.ones(1, 1, 6, 6))
graph(nn.GRU(2, 3):eval(), kiln.ones(4, 1, 2))
graph(function(x) return x:softmax(-1), x:argmax(), x:sum(1, true), (x * 2):amax() end, kiln.ones(2, 3))
graph(function(x, n)
  local total, i = 0, 0
  while i < n and x:sum():item() < 100 do
    x = x * 2
    total = total + x:mean():item()
    i = i + 1
  end
  return x, total, i
end, kiln.ones(2, 3), 4)
graph(function(x)
  if x:sum():item() > 0 then return { label = "more", x:relu() } end
  return { label = "less", -x }
end, kiln.ones(2, 3))
graph(function(x, i) return x[i], x:select(1, i), x:index_select(1, T({ 2, 1 }, { dtype = "int64" })) end, kiln.ones(3, 2), 2)
graph(function(x, i) return x:gather(2, i), x:masked_fill(x:gt(0), 1), x:cumsum(1), x:sort(1) end, kiln.ones(2, 3), T({ { 1 }, { 3 } }, { dtype = "int64" }))
graph(function(a, b) return a:matmul(b), a:t():contiguous(), kiln.cat({ a, a }, 1), a:reshape(-1), kiln.stack { a, a } end, kiln.ones(2, 3), kiln.ones(3, 2))
graph(function(x)
  local ok, why = pcall(function() if x:sum():item() > 3 then error "too much" end return x end)
  print("was", ok, x:sum():item())
  return ok and x or x * 0
end, kiln.ones(2, 3))
graph(function(x)
  local parts = {}
  for i = 1, x:size(1) do parts[#parts + 1] = x[i] * i end
  return kiln.stack(parts)
end, kiln.ones(3, 2))
graph(function(x) return F.dropout(x, 0.5, true), kiln.rand(2, 2), kiln.randint(5, { 3 }) end, kiln.ones(2, 2))
graph(function(q) return F.scaled_dot_product_attention(q, q, q), F.layer_norm(q, { 4 }), F.gelu(q) end, kiln.ones(1, 2, 3, 4))
do
  local net, host = nn.Linear(2, 1), kiln.ignore(function(x, k) return x * k end, { name = "host", results = { kiln.spec("float32", { "N" }) } })
  local opt = kiln.optim.SGD(net:parameters(), { lr = 0.1, momentum = 0.9 })
  graph(function(x, y)
    opt:zero_grad()
    local loss = F.mse_loss(net(x), y)
    loss:backward()
    opt:step()
    return loss
  end, kiln.ones(2, 2), kiln.ones(2, 1))
  graph(function(x) return host(x, 2) end, kiln.ones(3))
  graph(function(x) x:add_(1) return x:sum() end, kiln.ones(3))
end

for _, g in ipairs(graphs) do
  local file, text = of_file(function(path) g:save(path) end), tostring(g)
  if #file <= 8192 then put("kiln", file) end
  if #text <= 4096 then put("ir", text) put("passes", text) end
end

-- ---- tensors ----
local kinds = { "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64" }
for _, dtype in ipairs(kinds) do
  local t = kiln.ones(2, 3, { dtype = dtype })
  put("npy", of_file(function(path) kiln.to_npy(path, t) end))
end
put("npy", of_file(function(path) kiln.to_npy(path, kiln.zeros(0, 4)) end))
put("npy", of_file(function(path) kiln.to_npy(path, T(1.5)) end))
local some = { a = kiln.ones(2, 3), b = T({ 1, 2 }, { dtype = "int64" }), ["c.d"] = kiln.zeros(0) }
put("npz", of_file(function(path) kiln.to_npz(path, some) end))
put("packed", of_file(function(path) kiln.to_npz(path, some) end))
put("safetensors", of_file(function(path) kiln.to_safetensors(path, some, { format = "pt" }) end))
put("safetensors", of_file(function(path)
  kiln.to_safetensors(path, { h = kiln.ones(2, { dtype = "bfloat16" }), i = kiln.ones(3, { dtype = "bool" }) })
end))
put("safetensors", of_file(function(path) kiln.to_safetensors(path, {}) end))
put("checkpoint", of_file(function(path) -- but for its checksum, which the mutator puts right
  local meta = { ["kiln.checkpoint"] = "1", ["kiln.random"] = "1 2", ["kiln.checksum"] = ("0"):rep(16) }
  kiln.to_safetensors(path, { w = kiln.ones(2), n = T(4, { dtype = "int64" }) }, meta)
end))

-- ---- pictures ----
for channels = 1, 4 do
  local t = kiln.arange(channels * 12):reshape(channels, 3, 4):to "uint8"
  put("picture", kiln.io.encode_png(t))
  if channels % 2 == 1 then
    put("picture", kiln.io.encode_ppm(t))
    put("picture", kiln.io.encode_jpeg(t))
  end
end
put("picture", "P2 2 2 9\n0 1 2 9\n")
put("picture", "P3\n# c\n1 1 255 1 2 3\n")

-- ---- sound ----
for _, kind in ipairs { { 1, 8 }, { 1, 16 }, { 1, 24 }, { 1, 32 }, { 3, 32 }, { 3, 64 } } do
  local format, bits = table.unpack(kind)
  local data, block = ("\1\2\3\4\5\6\7\8"):rep(4), 2 * bits // 8
  local head = string.pack("<c4I4I2I2I4I4I2I2", "fmt ", 16, format, 2, 8000, 8000 * block, block, bits)
  put("wav", string.pack("<c4I4c4", "RIFF", 4 + #head + 8 + #data, "WAVE") .. head .. string.pack("<c4I4", "data", #data) .. data)
end

-- ---- archives, by the tools that are there ----
for _, tool in ipairs { "gzip -nc", "bzip2 -c", "xz -c", "zstd -c" } do
  local p = io.popen("printf 'some text, some text' | " .. tool .. " 2>/dev/null")
  local bytes = p:read "a"
  if p:close() and #bytes > 0 then put("packed", bytes) end
end
local p = io.popen("cd '" .. root .. "' && printf text >a && tar -cf - a 2>/dev/null | gzip -nc; rm -f a")
put("packed", p:read "a")
p:close()

print(count .. " inputs")
