-- kiln.autocast and kiln.amp: dtypes op by op, numbers against PyTorch's (spec/golden/autocast.txt), gradients, capture, files, the
-- scaler; on the CPU, and on a device where there is one.
local check = require "check"
local test, equal, near, truth, raises = check.test, check.equal, check.near, check.truth, check.raises
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim
local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

local devices = { "cpu" }
if kiln.cuda.is_available() then devices[2] = "cuda" end
local function everywhere(name, body)
  for _, device in ipairs(devices) do test(name .. ", " .. device, function() body(device) end) end
end

-- ---- what PyTorch gives ------------------------------------------------------------------------------------------

local function recorded()
  local cases = {}
  for line in io.lines(source .. "/spec/golden/autocast.txt") do
    local case, name, dtype, numbers = line:match "^(%S+) (%S+) (%S+): (.*)$"
    cases[case] = cases[case] or {}
    local list = {}
    for x in numbers:gmatch "%S+" do list[#list + 1] = tonumber(x) end
    cases[case][name] = { dtype = dtype, list = list }
  end
  return cases
end

-- The numbers of autocast.py.
local function wave(n, scale, ...)
  local count = 1
  for _, size in ipairs { ... } do count = count * size end
  local list = {}
  for i = 1, count do list[i] = math.sin(i * 0.37 + n) * scale end
  return kiln.tensor(list):reshape(...)
end

local function compare(case, results, half)
  local step = half == "bfloat16" and 2 ^ -8 or 2 ^ -11
  for name, wanted in pairs(case) do
    local got = results[name]
    truth(got, name)
    equal(got.dtype, wanted.dtype, name)
    local most = 0
    for _, x in ipairs(wanted.list) do most = math.max(most, math.abs(x)) end
    local far = (got:cpu():double():reshape(-1) - kiln.tensor(wanted.list, { dtype = "float64" })):abs():amax():item()
    -- a few roundings apart: sums go on in another order
    truth(far <= (wanted.dtype == half and 2 or 4) * step * most, ("%s is %g off, of %g"):format(name, far, most))
  end
end

-- The three cases of autocast.py as functions of tensors on a device; each gives results by name.
local cases = {
  mlp = {
    parameters = function() return { wave(1, 0.5, 6, 5), wave(2, 0.1, 6), wave(3, 0.5, 3, 6) } end,
    inputs = function() return { wave(4, 1, 4, 5), wave(5, 1, 4, 3), kiln.tensor { 1, 2, 3, 1 } } end,
    f = function(half, p, x, more, target)
      local h, y, z = kiln.autocast(half, function()
        local h = F.linear(x, p[1], p[2])
        local y = F.linear(h:relu(), p[3])
        return h, y, y * 2 + more
      end)
      local loss = F.cross_entropy(y:float(), target)
      return { h = h, y = y, z = z, loss = loss }, loss
    end },
  conv = {
    parameters = function() return { wave(1, 0.3, 3, 2, 3, 3), wave(2, 1, 3):abs() + 0.5, wave(3, 1, 3) } end,
    inputs = function() return { wave(4, 1, 2, 2, 4, 4), wave(6, 1, 2, 3, 4, 4), kiln.zeros(3), kiln.ones(3) } end,
    f = function(half, p, x, by, mean, var)
      local c, n = kiln.autocast(half, function()
        local c = F.conv2d(x, p[1], nil, { padding = 1 })
        return c, F.batch_norm(c, mean, var, p[2], p[3], true)
      end)
      return { c = c, n = n }, (n:float() * by):sum()
    end },
  products = {
    parameters = function() return {} end,
    inputs = function() return { wave(1, 1, 2, 3, 4), wave(2, 1, 2, 4, 3), wave(3, 1, 3, 3), wave(5, 1, 2, 3, 4), wave(6, 1, 2, 3, 4) } end,
    f = function(half, _, a, b, c, k, v)
      return kiln.autocast(half, function()
        return { bmm = kiln.bmm(a, b), addmm = kiln.addmm(c, a[1], b[1]), double = a:double():matmul(b:double()),
          off = kiln.autocast(false, function() return a:matmul(b) end), attention = F.scaled_dot_product_attention(a, k, v) }
      end)
    end },
}

local function moved(list, device)
  for i, t in ipairs(list) do list[i] = t:to(device) end
  return list
end

everywhere("numbers, dtypes and gradients are PyTorch's", function(device)
  local wanted = recorded()
  for name, case in pairs(cases) do
    for _, half in ipairs { "bfloat16", "float16" } do
      local p = moved(case.parameters(), device)
      for _, t in ipairs(p) do t:requires_grad_() end
      local results, loss = case.f(half, p, table.unpack(moved(case.inputs(), device)))
      if loss then loss:backward() end
      for i, t in ipairs(p) do results["grad" .. i] = t.grad end
      compare(wanted[name .. "-" .. half], results, half)
    end
  end
end)

everywhere("captured as eager, to the bit on the CPU", function(device)
  for _, case in pairs(cases) do
    local p, inputs = moved(case.parameters(), device), moved(case.inputs(), device)
    local function f(...) return (case.f("bfloat16", p, ...)) end
    local eager, graph = f(table.unpack(inputs)), kiln.script(f)(table.unpack(moved(case.inputs(), device)))
    for name, t in pairs(eager) do
      equal(graph[name].dtype, t.dtype, name)
      if device == "cpu" then truth(graph[name]:equal(t), name) else truth(graph[name]:allclose(t, { rtol = 0.02, atol = 0.02 }), name) end
    end
  end
end)

-- ---- op by op ------------------------------------------------------------------------------------------------------

local x, y = wave(1, 0.4, 4, 4) + 0.5, wave(2, 0.4, 4, 4) + 0.5
local rows = {
  low = { "matmul", "mm", "linear" },
  full = { "exp", "expm1", "log", "log1p", "log2", "log10", "acos", "asin", "tan", "cosh", "sinh", "rsqrt", "reciprocal", "sum", "mean", "prod",
    "logsumexp", "norm", "softplus" },
  as_given = { "relu", "neg", "abs", "sigmoid", "tanh", "sqrt", "gelu", "silu", "clone", "amax", "var" },
}

test("each op gets the dtype that suits it", function()
  kiln.autocast("bfloat16", function()
    local h = x:bfloat16()
    for _, name in ipairs(rows.low) do
      for _, pair in ipairs { { x, y }, { h, y }, { x, h }, { h, y:half() } } do equal(kiln[name](pair[1], pair[2]).dtype, "bfloat16", name) end
      equal(kiln[name](x:double(), y:double()).dtype, "float64", name)
    end
    for _, name in ipairs(rows.full) do
      equal(kiln[name](h).dtype, "float32", name)
      equal(kiln[name](x:double()).dtype, "float64", name)
    end
    for _, name in ipairs(rows.as_given) do
      equal(kiln[name](h).dtype, "bfloat16", name)
      equal(kiln[name](x).dtype, "float32", name)
    end
    for _, t in ipairs { h:softmax(2), h:log_softmax(2), h:cumsum(1), h:cumprod(1), h:pow(2), 2 ^ h, h ^ 0.1, F.layer_norm(h, { 4 }),
      F.mse_loss(h, h), F.cross_entropy(h, kiln.tensor { 1, 2, 3, 4 }), F.normalize(h) } do equal(t.dtype, "float32") end
    for _, t in ipairs { h + y, h * y, kiln.cat { h, y }, kiln.stack { h, y }, kiln.where(h:gt(0.5), h, y), kiln.addcmul(x, h, h), kiln.dot(h[1], y[1]),
      kiln.scatter_add(x, kiln.ones(1, 4, { dtype = "int64" }), h, 1), kiln.lerp(h, y, 0.5) } do equal(t.dtype, "float32") end
    near((h ^ 0.1)[{ 1, 1 }]:item(), h:float()[{ 1, 1 }]:item() ^ 0.1, 1e-6) -- the number was not rounded
    h:exp_() -- in place the tensor keeps its dtype
    equal(h.dtype, "bfloat16")
    equal(kiln.sum(kiln.tensor { 1, 2 }).dtype, "int64")
  end)
end)

test("layers", function()
  local image, line = kiln.randn(2, 4, 8, 8), kiln.randn(5, 2, 8)
  for _, it in ipairs {
    { nn.Conv2d(4, 4, 3), image, "bfloat16" }, { nn.ConvTranspose2d(4, 4, 3), image, "bfloat16" }, { nn.BatchNorm2d(4), image, "float32" },
    { nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), image, "bfloat16" },
    { nn.Sequential(nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4, { affine = true })), image, "bfloat16" },
    { nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4)), image, "float32" }, { nn.LSTM(8, 8), line, "bfloat16" }, { nn.GRU(8, 8), line, "bfloat16" },
    { nn.RNN(8, 8), line, "bfloat16" }, { nn.LSTMCell(8, 8), line[1], "bfloat16" }, { nn.GRUCell(8, 8), line[1], "bfloat16" },
    { nn.TransformerEncoderLayer(8, 2), line, "float32" } } do
    local net = it[1]
    local out = kiln.autocast("bfloat16", net, it[2])
    equal(out.dtype, it[3], tostring(net))
    out:float():sum():backward()
    for _, p in ipairs(net:parameters()) do equal(p.grad.dtype, "float32") end
    local whole = kiln.autocast("bfloat16", kiln.script(function(t) return (net(t)) end), it[2])
    equal(whole.dtype, it[3])
  end
end)

-- ---- modes ---------------------------------------------------------------------------------------------------------

test("on, off, nested, and as before after an error", function()
  equal(kiln.is_autocast_enabled(), false)
  equal(kiln.get_autocast_dtype(), nil)
  kiln.autocast("float16", function()
    equal(kiln.get_autocast_dtype(), "float16")
    truth(not pcall(kiln.autocast, "bfloat16", error, "on purpose"))
    equal(kiln.get_autocast_dtype(), "float16")
    kiln.autocast(false, function()
      equal(kiln.is_autocast_enabled(), false)
      equal(x:matmul(y).dtype, "float32")
    end)
  end)
  equal(kiln.is_autocast_enabled(), false)
  equal(select("#", kiln.autocast("float16", function() return 1, nil, 3, nil end)), 4)
end)

test("mistakes", function()
  raises(function() kiln.autocast("float32", print) end, '"float16", "bfloat16" or false (off) is needed, got float32')
  raises(function() kiln.autocast(true, print) end, "got a boolean")
  raises(function() kiln.autocast(print) end, "got a function")
  raises(function() kiln.autocast("float16") end, "autocast: a function to call is needed, got nil")
  raises(function() kiln.script(function(t) return kiln.autocast("float64", function() return t * 2 end) end)(x) end, "got float64")
  raises(function() kiln.script(function(t) return kiln.autocast("float16", 3) end)(x) end, "autocast: a function to call is needed")
  raises(function() kiln.autocast("float16", kiln.matmul, x, kiln.ones(3)) end, "matmul: ", "float16[4,4]")
end)

test("a graph belongs to the mode it was captured in", function()
  local g = kiln.script(function(t) return t:matmul(t) end)
  equal(g(x).dtype, "float32")
  equal(kiln.autocast("bfloat16", g, x).dtype, "bfloat16")
  equal(kiln.autocast("float16", g, x).dtype, "float16")
  equal(g(x).dtype, "float32")
  local said = {} -- of the last capture
  for _, guard in ipairs(g:guards()) do said[guard.kind .. " " .. guard.name] = guard.value end
  equal(said["mode autocast"], "float16")
end)

test("a saved graph has its casts", function()
  local net, path = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), os.tmpname()
  local g = kiln.script(function(t) return kiln.autocast("bfloat16", net, t) end, { inputs = { kiln.spec("float32", { "N", 4 }) } })
  g:save(path)
  local answer = kiln.autocast("bfloat16", net, x)
  truth(kiln.load(path)(x):equal(answer))
  truth(kiln.autocast("float16", kiln.load(path), x):equal(answer)) -- it is what it is
  os.remove(path)
  local fast = g:freeze()
  truth(fast(x):equal(answer))
  equal(select(2, fast:code():gsub(":cast%(", "")), 1) -- only the input's is left
end)

test("gradients do not depend on where backward is called", function()
  local function grads(inside, checkpointed)
    local w = wave(1, 0.5, 4, 4):requires_grad_()
    local function part(t) return t:matmul(w):tanh():matmul(w):softmax(2) end
    local function loss() return ((checkpointed and kiln.checkpoint(part, x) or part(x)) * y):sum() end
    if inside then
      kiln.autocast("bfloat16", function() loss():backward() end)
    else
      kiln.autocast("bfloat16", loss):backward()
    end
    return w.grad
  end
  local wanted = grads(false)
  truth(grads(true):equal(wanted))
  truth(grads(false, true):equal(wanted))
  truth(grads(true, true):equal(wanted))
end)

-- ---- training ------------------------------------------------------------------------------------------------------

everywhere("whole steps, eager and captured", function(device)
  local function train(captured)
    kiln.manual_seed(1)
    local net = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)):to(device)
    local opt, input, target = optim.AdamW(net:parameters(), { lr = 0.02 }), wave(1, 1, 12, 4):to(device), (kiln.arange(12) % 3 + 1):to(device)
    local function step(a, b)
      opt:zero_grad()
      local loss = kiln.autocast("bfloat16", function() return F.cross_entropy(net(a), b) end)
      loss:backward()
      opt:step()
      return loss
    end
    if captured then step = kiln.script(step) end
    local first, last = step(input, target):item(), nil
    for _ = 1, 40 do last = step(input, target):item() end
    truth(last < 0.75 * first, ("%g to %g"):format(first, last))
    equal(net[1].weight.dtype, "float32")
    return last
  end
  local eager, captured = train(false), train(true)
  if device == "cpu" then equal(captured, eager) else near(captured, eager, 0.02) end
end)

everywhere("the scaler leaves out steps whose gradients are not finite", function(device)
  for _, captured in ipairs { false, true } do
    local w = kiln.tensor({ 1.0, 2.0 }, { device = device }):requires_grad_()
    local opt = optim.SGD({ w }, { lr = 0.25 })
    local scaler = kiln.amp.GradScaler { init_scale = 8.0, growth_interval = 2, device = device }
    local function step(t)
      opt:zero_grad()
      scaler:scale((w * t):sum()):backward()
      scaler:step(opt)
      scaler:update()
    end
    if captured then step = kiln.script(step) end
    local function on(...) return kiln.tensor({ ... }, { device = device }) end
    step(on(1.0, 2.0))
    equal(table.concat(w:detach():totable(), " "), "0.75 1.5")
    step(on(math.huge, 2.0))
    equal(table.concat(w:detach():totable(), " "), "0.75 1.5")
    equal(scaler:get_scale(), 4.0)
    step(on(1.0, 0.0))
    equal(scaler:get_scale(), 4.0)
    step(on(1.0, 0.0))
    equal(scaler:get_scale(), 8.0)
    equal(table.concat(w:detach():totable(), " "), "0.25 1.5")
  end
end)

test("the scaler's mistakes, clipping, state", function()
  local w = kiln.tensor { 3.0, 4.0 }:requires_grad_()
  local opt, scaler = optim.SGD({ w }, { lr = 1.0 }), kiln.amp.GradScaler { init_scale = 2.0 ^ 10 }
  scaler:scale((w * w):sum() / 2):backward()
  scaler:unscale_(opt)
  near(nn.utils.clip_grad_norm_({ w }, 1.0):item(), 5.0, 1e-6)
  raises(function() scaler:unscale_(opt) end, "unscale_: that was done")
  scaler:step(opt)
  near(w[1]:item(), 2.4, 1e-6)
  local other = kiln.amp.GradScaler()
  other:load_state_dict(scaler:state_dict())
  equal(other:get_scale(), 2.0 ^ 10)
  raises(function() kiln.amp.GradScaler { scale = 1.0 } end, "there is no option 'scale'")
  raises(function() kiln.amp.GradScaler { init_scale = "1" } end, "init_scale must be a number, got string")
  raises(function() scaler:scale(3) end, "scale: a loss is needed, got number")
  raises(function() scaler:step(3) end, "step: an optimiser is needed, got number")
  local half = kiln.tensor({ 1.0 }, { dtype = "float16" }):requires_grad_()
  local wrong = optim.SGD({ half }, { lr = 1.0 })
  kiln.sum(half * 2):backward()
  raises(function() scaler:step(wrong) end, "unscale_: parameter 1 is float16")
  local off = kiln.amp.GradScaler { enabled = false }
  equal(off:scale(w), w)
  equal(off:get_scale(), 1.0)
end)
