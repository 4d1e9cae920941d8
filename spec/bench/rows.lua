-- What `./dev bench eager` times: the one list of rows, each said once for all who run it. Not how it is timed (eager.lua) nor by
-- whom (worker.lua, peer.py, direct.c). What the file returns is list(tiny): the rows; tiny ones are the same with
-- small sizes, for the suite.
--
-- A row is { group, name, inputs = { "a 4 grad", … }, kiln = statement, torch = statement, and what applies of
--   setup = { kiln = code, torch = code }   more to be made before, once
--   no_grad = true                          timed inside no_grad
--   direct = "matmul 1 64 64 64 0 0"        what direct.c does for it, see there
--   bytes, work, elements                   read and written; multiply-adds; of the largest operand
--   limit                                   the most that its time may be of the fastest peer's
-- }. An input is a name, sizes as 2x3 and a word: a dtype, `grad`, `positive`, or `index` (classes 1 … 10). A statement that is
-- written as `y = …` is `local y = …` in Lua; where only one is given, PyTorch's is the same with a dot for a colon.
local rows, tiny
local LARGE, LARGE_WORK = 100000, 1 << 20 -- elements and multiply-adds from which a row has a limit: below, calls count

local function add(group, name, inputs, statement, more)
  local row = more or {}
  row.group, row.name, row.inputs = group, name, inputs
  row.kiln, row.torch = statement:gsub("^y =", "local y ="), row.torch or statement:gsub(":", ".")
  local large = group ~= "small" and (row.work or LARGE_WORK) >= LARGE_WORK and (row.elements or LARGE) >= LARGE
  row.limit = row.limit or large and 1.05 or nil
  rows[#rows + 1] = row
end

local function count_text(n) return ("%.0e"):format(n):gsub("e%+0*", "e") end

-- A row made of blocks of code: { setup, what is timed } for each side.
local function steps(group, name, kiln, torch, limit)
  rows[#rows + 1] = { group = group, name = name, inputs = {}, setup = { kiln = kiln[1], torch = torch[1] }, kiln = kiln[2],
                      torch = torch[2], limit = limit, no_grad = kiln.no_grad }
end

-- ---- small tensors: what an op costs by itself -----------------------------------------------------------------

local mlp = {
  { [[local net = kiln.nn.Sequential(kiln.nn.Linear(10, 32), kiln.nn.ReLU(), kiln.nn.Linear(32, 2))
      local x = kiln.randn(1, 10)]], "local y = net(x)" },
  { [[net = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
x = torch.randn(1, 10)]], "y = net(x)" },
}

local function small()
  add("small", "add 4", { "a 4", "b 4" }, "y = a + b", { limit = 0.25 })
  add("small", "add 4, with grad", { "a 4 grad", "b 4 grad" }, "y = a + b", { limit = 0.25 })
  add("small", "add 4 and a number", { "a 4" }, "y = a + 1")
  add("small", "relu 4", { "a 4" }, "y = a:relu()")
  add("small", "sum 4", { "a 4" }, "y = a:sum()")
  add("small", "index", { "a 4x4" }, "y = a[1]", { torch = "y = a[0]" })
  add("small", "item", { "a 1" }, "y = a:item()")
  add("small", "matmul 4x4", { "a 4x4", "b 4x4" }, "y = a:matmul(b)")
  add("small", "add 4, sum, backward", { "a 4 grad" }, "(a + a):sum():backward()")
  steps("small", "MLP 10-32-2 forward", mlp[1], mlp[2], 0.25)
  steps("small", "MLP 10-32-2 forward, no grad", { mlp[1][1], mlp[1][2], no_grad = true }, mlp[2], 0.25)
end

-- ---- elementwise and reductions --------------------------------------------------------------------------------

local function elementwise(n)
  local text, a, b, c = count_text(n), "a " .. n, "b " .. n, "c " .. n
  add("elementwise", "copy " .. text, { a, b }, "y = a:copy_(b)", { bytes = 8 * n, elements = n, direct = "copy " .. n })
  for _, op in ipairs { "+", "*" } do
    add("elementwise", ("a %s b %s"):format(op, text), { a, b }, ("y = a %s b"):format(op),
      { bytes = 12 * n, elements = n })
  end
  for _, op in ipairs { "exp", "tanh", "sigmoid", "relu" } do
    add("elementwise", ("%s %s"):format(op, text), { a }, ("y = a:%s()"):format(op), { bytes = 8 * n, elements = n })
  end
  add("elementwise", "gelu " .. text, { a }, "y = a:gelu()",
    { bytes = 8 * n, elements = n, torch = "y = gelu(a)", setup = { torch = "gelu = torch.nn.functional.gelu" } })
  add("elementwise", "a * b + c " .. text, { a, b, c }, "y = a * b + c",
    { bytes = 24 * n, elements = n })
end

local function reductions(n)
  local text = count_text(n)
  for _, op in ipairs { "sum", "mean", "amax", "argmax" } do
    add("reduction", ("%s %s"):format(op, text), { "a " .. n }, ("y = a:%s()"):format(op),
      { bytes = 4 * n, elements = n })
  end
  local columns = n >= 100000 and 1000 or 100
  local x = ("a %dx%d"):format(n // columns, columns)
  local shape = x:sub(3)
  for dim = 1, 2 do
    add("reduction", ("sum of dim %d, %s"):format(dim, shape), { x }, ("y = a:sum(%d)"):format(dim),
      { bytes = 4 * n, elements = n, torch = ("y = a.sum(%d)"):format(dim - 1) })
  end
  add("reduction", "softmax of dim 2, " .. shape, { x }, "y = a:softmax(2)",
    { bytes = 8 * n, elements = n, torch = "y = a.softmax(1)" })
end

local function dtypes(n)
  for _, dtype in ipairs { "int64", "int32", "float64", "bfloat16", "float16" } do
    local size = ({ int64 = 8, int32 = 4, float64 = 8, bfloat16 = 2, float16 = 2 })[dtype]
    add("dtype", ("a + b %s %s"):format(dtype, count_text(n)), { ("a %d %s"):format(n, dtype), ("b %d %s"):format(n, dtype) },
      "y = a + b", { bytes = 3 * size * n, elements = n })
  end
end

-- ---- matrix products -------------------------------------------------------------------------------------------

local function small_size(n) return tiny and math.min(n, 16) or n end

-- batch of m x k times k x n; `turned`: the second operand is stored as n x k.
local function matmul(name, batch, m, k, n, turned)
  m, k, n, batch = small_size(m), small_size(k), small_size(n), small_size(batch)
  local lead = batch > 1 and batch .. "x" or ""
  local b = turned and ("b %s%dx%d"):format(lead, n, k) or ("b %s%dx%d"):format(lead, k, n)
  add("matmul", name, { ("a %s%dx%d"):format(lead, m, k), b },
    turned and "y = a:matmul(b:transpose(-2, -1))" or "y = a:matmul(b)",
    { work = batch * m * k * n, direct = ("matmul %d %d %d %d %d"):format(batch, m, k, n, turned and 1 or 0) })
end

local function linear(name, m, k, n)
  m, k, n = small_size(m), small_size(k), small_size(n)
  add("matmul", name, { ("a %dx%d"):format(m, k), ("b %dx%d"):format(n, k), "c " .. n }, "y = kiln.linear(a, b, c)",
    { torch = "y = linear(a, b, c)", setup = { torch = "linear = torch.nn.functional.linear" }, work = m * k * n,
      direct = ("matmul %d %d %d %d %d"):format(1, m, k, n, 1) })
end

local function products()
  for _, n in ipairs { 8, 32, 64, 128, 256, 512, 1024 } do matmul(("%d^3"):format(n), 1, n, n, n) end
  matmul("row 1 x 512 x 512", 1, 1, 512, 512)
  matmul("column 512 x 512 x 1", 1, 512, 512, 1)
  for _, batch in ipairs { 1, 8 } do linear(("ResNet-50 linear %d x 2048 -> 1000"):format(batch), batch, 2048, 1000) end
  linear("transformer linear 512 x 512 -> 512", 512, 512, 512)
  linear("transformer linear 512 x 512 -> 2048", 512, 512, 2048)
  linear("transformer linear 512 x 2048 -> 512", 512, 2048, 512)
  matmul("attention scores 8 x 512 x 64 x 512", 8, 512, 64, 512, true)
  matmul("attention values 8 x 512 x 512 x 64", 8, 512, 512, 64)
  local t, d = small_size(512), small_size(64)
  local q = ("%dx%dx%dx%d"):format(1, 8, t, d)
  add("matmul", "scaled_dot_product_attention 8 x 512 x 64", { "a " .. q, "b " .. q, "c " .. q },
    "y = kiln.scaled_dot_product_attention(a, b, c)",
    { torch = "y = attend(a, b, c)", setup = { torch = "attend = torch.nn.functional.scaled_dot_product_attention" },
      work = 2 * 8 * t * t * d })
  local n = small_size(256)
  local square = (" %dx%d "):format(n, n)
  for _, dtype in ipairs { "float64", "int64", "int32" } do
    add("matmul", "256^3 " .. dtype, { "a" .. square .. dtype, "b" .. square .. dtype }, "y = a:matmul(b)", { work = n ^ 3 })
  end
end

-- ---- convolutions and what stands beside them ------------------------------------------------------------------

-- The different ones of ResNet-50: channels in and out, kernel, stride, size in.
local resnet50 = {
  { 3, 64, 7, 2, 224 }, { 64, 64, 1, 1, 56 }, { 64, 64, 3, 1, 56 }, { 64, 256, 1, 1, 56 }, { 256, 64, 1, 1, 56 },
  { 256, 128, 1, 1, 56 }, { 128, 128, 3, 2, 56 }, { 128, 512, 1, 1, 28 }, { 256, 512, 1, 2, 56 }, { 512, 128, 1, 1, 28 },
  { 128, 128, 3, 1, 28 }, { 512, 256, 1, 1, 28 }, { 256, 256, 3, 2, 28 }, { 256, 1024, 1, 1, 14 }, { 512, 1024, 1, 2, 28 },
  { 1024, 256, 1, 1, 14 }, { 256, 256, 3, 1, 14 }, { 1024, 512, 1, 1, 14 }, { 512, 512, 3, 2, 14 }, { 512, 2048, 1, 1, 7 },
  { 1024, 2048, 1, 2, 14 }, { 2048, 512, 1, 1, 7 }, { 512, 512, 3, 1, 7 },
}

local function convolution(batch, channels, filters, k, stride, size)
  local name = ("%d x %d -> %d, %dx%d/%d, %d"):format(batch, channels, filters, k, k, stride, size)
  channels, filters, size = small_size(channels), small_size(filters), small_size(size)
  local padding, out = k // 2, (size - 1) // stride + 1
  local x, w = ("x %dx%dx%dx%d"):format(batch, channels, size, size), ("w %dx%dx%dx%d"):format(filters, channels, k, k)
  add("convolution", name, { x, w }, ("y = conv2d(x, w, nil, %d, %d)"):format(stride, padding),
    { torch = ("y = conv2d(x, w, None, %d, %d)"):format(stride, padding),
      setup = { kiln = "local conv2d = kiln.conv2d", torch = "conv2d = torch.nn.functional.conv2d" },
      work = batch * filters * channels * k * k * out * out,
      direct = ("conv %d %d %d %d %d %d %d"):format(batch, channels, size, filters, k, stride, padding) })
end

-- Forward and both gradients.
local function convolution_backward(batch, channels, filters, k, stride, size)
  local name = ("%d x %d -> %d, %dx%d/%d, %d"):format(batch, channels, filters, k, k, stride, size)
  channels, filters, size = small_size(channels), small_size(filters), small_size(size)
  local padding, out = k // 2, (size - 1) // stride + 1
  local inputs = { ("x %dx%dx%dx%d grad"):format(batch, channels, size, size),
                   ("w %dx%dx%dx%d grad"):format(filters, channels, k, k), ("g %dx%dx%dx%d"):format(batch, filters, out, out) }
  add("convolution", name .. ", and backward", inputs, ("y = kiln.grad(kiln.conv2d(x, w, nil, %d, %d), { x, w }, "
    .. "{ grad_outputs = g })"):format(stride, padding),
    { torch = ("y = torch.autograd.grad(torch.conv2d(x, w, None, %d, %d), [x, w], g)"):format(stride, padding),
      work = 3 * batch * filters * channels * k * k * out * out })
end

local function layers()
  local c, size = small_size(64), small_size(112)
  local image = ("x 8x%dx%dx%d"):format(c, size, size)
  local bytes = 4 * 8 * c * size * size
  local function layer(name, input, kiln, torch, more)
    more = more or {}
    more.torch, more.setup = torch, { torch = "F = torch.nn.functional" }
    add("layer", name, input, kiln, more)
  end
  layer("max_pool2d 3x3/2, 8 x 64 x 112", { image }, "y = kiln.max_pool2d(x, 3, 2, 1)", "y = F.max_pool2d(x, 3, 2, 1)",
    { bytes = bytes * 5 // 4 })
  layer("max_pool2d 2x2, and backward, 32 x 16 x 28", { "x 32x16x28x28 grad", "g 32x16x14x14" },
    "y = kiln.grad(kiln.max_pool2d(x, 2), { x }, { grad_outputs = g })", "y = torch.autograd.grad(F.max_pool2d(x, 2), [x], g)")
  layer("mean of 8 x 2048 x 7 x 7", { "x 8x2048x7x7" }, "y = kiln.adaptive_avg_pool2d(x, 1)", "y = F.adaptive_avg_pool2d(x, 1)",
    { bytes = 4 * 8 * 2048 * 49 })
  local batch_norm = { image, "m " .. c, "v " .. c .. " positive", "w " .. c, "b " .. c }
  layer("batch_norm, 8 x 64 x 112", batch_norm, "y = kiln.batch_norm(x, m, v, w, b)", "y = F.batch_norm(x, m, v, w, b)",
    { bytes = 2 * bytes })
  layer("batch_norm in training, 8 x 64 x 112", batch_norm, "y = kiln.batch_norm(x, m, v, w, b, true)",
    "y = F.batch_norm(x, m, v, w, b, True)", { bytes = 2 * bytes })
  local tokens, width = small_size(512), small_size(512)
  local rows_in = { ("x %dx%d"):format(tokens, width), "w " .. width, "b " .. width }
  layer("layer_norm 512 x 512", rows_in, ("y = kiln.layer_norm(x, w, b, { %d })"):format(width),
    ("y = F.layer_norm(x, (%d,), w, b)"):format(width), { bytes = 8 * tokens * width })
  layer("cross_entropy 512 x 1000", { "x 512x1000", "t 512 index" }, "y = kiln.cross_entropy(x, t)", "y = F.cross_entropy(x, t)",
    { bytes = 4 * 512 * 1000 })
end

-- ---- training --------------------------------------------------------------------------------------------------

local function training(name, kiln_net, torch_net, input, batch, optimiser, options)
  local kiln_setup = ([[
local nn = kiln.nn
local net = %s
local opt = kiln.optim.%s(net:parameters(), { %s })
local x, t = kiln.randn(%s), kiln.randint(1, 11, { %d })]]):format(kiln_net, optimiser, options, input, batch)
  local torch_setup = ([[
nn = torch.nn
net = %s
opt = torch.optim.%s(net.parameters(), %s)
x, t = torch.randn(%s), torch.randint(0, 10, (%d,))
cross_entropy = torch.nn.functional.cross_entropy]]):format(torch_net, optimiser, options, input, batch)
  steps("training", ("%s, batch %d, %s"):format(name, batch, optimiser), { kiln_setup, [[
opt:zero_grad()
kiln.cross_entropy(net(x), t):backward()
opt:step()]] }, { torch_setup, [[
opt.zero_grad()
cross_entropy(net(x), t).backward()
opt.step()]] }, 1.05)
end

local function networks()
  local n, hidden, batch = small_size(784), small_size(256), small_size(64)
  local lines = { "nn.Linear(%d, %d)", "nn.ReLU()", "nn.Linear(%d, 10)" }
  local net = ("nn.Sequential(" .. table.concat(lines, ", ") .. ")"):format(n, hidden, hidden)
  for _, optimiser in ipairs { "SGD", "Adam" } do
    training("MLP 784-256-10", net, net, batch .. ", " .. n, batch, optimiser, "lr = 0.001")
  end
  batch = small_size(32)
  local function cnn(padding)
    return ([[nn.Sequential(nn.Conv2d(1, 16, 3, %s), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, %s), nn.ReLU(),
  nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 10))]]):format(padding, padding)
  end
  training("CNN 1x28x28, 16 and 32 filters", cnn "{ padding = 1 }", cnn "padding=1", batch .. ", 1, 28, 28", batch, "SGD",
    "lr = 0.001")
end

-- ---- the list --------------------------------------------------------------------------------------------------

return function(small_ones)
  rows, tiny = {}, small_ones
  local sizes = tiny and { 1000 } or { 1000, 10000, 100000, 1000000, 10000000 }
  small()
  for _, n in ipairs(sizes) do elementwise(n) end
  for _, n in ipairs(sizes) do reductions(n) end
  for _, n in ipairs(tiny and sizes or { 1000, 100000, 1000000 }) do dtypes(n) end
  products()
  for _, batch in ipairs(tiny and { 1 } or { 1, 8 }) do
    for _, layer in ipairs(resnet50) do convolution(batch, table.unpack(layer)) end
  end
  for _, at in ipairs { 3, 5, 14 } do convolution_backward(small_size(8), table.unpack(resnet50[at])) end
  layers()
  networks()
  return rows
end
