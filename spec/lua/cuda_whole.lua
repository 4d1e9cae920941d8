-- Captured functions on cuda against the CPU: branches and loops on data of the device, training steps. Runs where there is a
-- device, be it one of software (`meson test cuda_lua`).
local check = require "check"
local test, truth = check.test, check.truth

if not kiln.cuda.is_available() then return end

local function near(a, b)
  return math.abs(a - b) <= 1e-5 * math.max(1, math.abs(a), math.abs(b))
end

local function same(x, y)
  x, y = x:to("cpu"):flatten(), y:to("cpu"):flatten()
  truth(x:size(1) == y:size(1))
  for i = 1, x:size(1) do truth(near(x[i]:item(), y[i]:item()), tostring(x) .. tostring(y)) end
end

test("a while whose branches depend on data", function()
  local function f(x, y, n)
    local i = 0
    while i < n and x:sum():item() < 100 do
      if y:sum():item() > 3 then
        x = x * 0.5 + y
      else
        x = (x + y):tanh() + 1
      end
      y = y + 0.25
      i = i + 1
    end
    return x * 1, y * 2
  end
  local g = kiln.script(f)
  for n = 0, 40, 8 do
    local x, y = kiln.tensor { 1.0, 2.0, 3.0 }, kiln.tensor { 0.5, 0.25, 0.125 } * n
    local a, b = f(x, y, n)
    local c, d = g(x:to "cuda", y:to "cuda", n)
    same(a, c)
    same(b, d)
  end
end)

test("an early end of a loop", function()
  local function f(x, limit)
    for i = 1, 50 do
      x = x * 1.25 + 0.5
      if x:amax():item() > limit then return x + i end
    end
    return x - 1
  end
  local g = kiln.script(f)
  for _, limit in ipairs { 1, 10, 1000, 1e9 } do
    local x = kiln.tensor { 1.0, -2.0, 3.0 }
    same(f(x, limit), g(x:to "cuda", limit))
  end
end)

test("whole steps of training, of which nothing waits", function()
  local function losses(device)
    kiln.manual_seed(3)
    local net = kiln.nn.Sequential { kiln.nn.Linear(4, 8), kiln.nn.ReLU(), kiln.nn.Linear(8, 3) }
    if device ~= "cpu" then net:to(device) end
    local opt = kiln.optim.Adam(net:parameters(), { lr = 0.05 })
    local step = kiln.script(function(x, t)
      opt:zero_grad()
      local loss = ((net(x) - t) ^ 2):mean()
      loss:backward()
      opt:step()
      return loss
    end)
    local x, t, list = kiln.randn(6, 4):to(device), kiln.randn(6, 3):to(device), {}
    for i = 1, 6 do list[i] = step(x, t):item() end
    return list
  end
  local a, b = losses "cpu", losses "cuda"
  for i = 1, 6 do truth(near(a[i], b[i]), a[i] .. " " .. b[i]) end
end)

test("graphs for inference, whose parameters are on the device", function()
  local nn = kiln.nn
  local net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)):eval()
  local x = kiln.randn(2, 1, 8, 8)
  local want = kiln.no_grad(function() return net(x) end)
  net:to "cuda"
  local g = kiln.script(net, { inputs = { kiln.spec("float32", { "N", 1, 8, 8 }, { device = "cuda" }) } })
  local fast = g:optimize_for_inference()
  kiln.no_grad(function() same(want, fast(x:to "cuda")) end)
  local ok, why = pcall(fast.save, fast, os.tmpname())
  truth(not ok and why:find "is on device cuda")
end)

test("an index out of range ends loops, and is forgotten with the run", function()
  local function int64(list) return kiln.tensor(list, { dtype = "int64" }):to "cuda" end
  local g = kiln.script(function(x, index, least)
    local n = 0
    x = x:index_select(1, index) * 1
    assert(x:sum():item() >= least, "too small")
    while x:sum():item() < 100 do
      x = x:index_select(1, index) * 2
      n = n + 1
    end
    return x * 1, n
  end)
  local line = debug.getinfo(1, "l").currentline - 8 -- of the index
  local x, good, bad = kiln.tensor({ 1.0, 2.0, 3.0 }):to "cuda", int64 { 1, 2, 3 }, int64 { 1, 4, 3 }
  for _, least in ipairs { 0, 1 } do
    local ok, why = pcall(g, x * 0, bad, least)
    truth(not ok and why:find("cuda_whole.lua:" .. line .. ": index_select: index 4 is out of range", 1, true), why)
    local y, n = g(x, good, least)
    same(y, x * 32)
    truth(n == 5)
  end
end)

test("dropout in branches and loops draws what the CPU draws", function()
  local drop = kiln.nn.Dropout(0.5)
  local function f(x, n)
    for i = 1, n do
      if x:sum():item() > 0 then x = drop(x) * 0.75 else x = x + kiln.rand_like(x) end
    end
    return x * 1
  end
  local g = kiln.script(f)
  local x = kiln.randn(10)
  for n = 0, 9, 3 do
    kiln.manual_seed(n)
    local want, after = f(x, n), kiln.rand(3)
    kiln.manual_seed(n)
    same(want, g(x:to "cuda", n))
    same(after, kiln.rand(3))
  end
end)

test("a recurrent net written out: x[t], out[t] = h", function()
  local function f(x, h, w)
    local out = kiln.zeros(x:size(1), 4, { device = x.device })
    for t = 1, x:size(1) do
      h = (x[t] + h:matmul(w)):tanh()
      out[t] = h
    end
    return out, h
  end
  local g = kiln.script(f)
  for n = 1, 7, 3 do
    local x, h, w = kiln.randn(n, 4), kiln.randn(4), kiln.randn(4, 4)
    local a, b = f(x, h, w)
    local c, d = g(x:to "cuda", h:to "cuda", w:to "cuda")
    same(a, c)
    same(b, d)
  end
end)

test("errors show numbers as they were", function()
  local function f(x, limit)
    for i = 1, 20 do
      x = x * 2
      local s = x:sum():item()
      assert(s < limit, ("trip %d: %.3f"):format(i, s))
    end
    return x * 1
  end
  local g = kiln.script(f)
  for _, limit in ipairs { 0, 10, 1000, 1e9 } do
    local x = kiln.tensor { 1.0, -2.0, 3.5 }
    local want, got = { pcall(f, x, limit) }, { pcall(g, x:to "cuda", limit) }
    truth(want[1] == got[1] and (want[1] or want[2] == got[2]), tostring(got[2]))
  end
end)

test("training through loops: what the trips have computed is kept in lists", function()
  local function losses(device)
    kiln.manual_seed(5)
    local cell = kiln.nn.Linear(8, 4)
    if device ~= "cpu" then cell:to(device) end
    local opt = kiln.optim.SGD(cell:parameters(), { lr = 0.1 })
    local step = kiln.script(function(x)
      opt:zero_grad()
      local h = x[1] * 0
      for t = 1, x:size(1) do h = cell(kiln.cat({ x[t], h }, 1)):tanh() end
      local p = cell(x:repeat_interleave(2, 2)):abs()
      for _ = 1, 70 do p = (p * 0.9):sin() end
      local loss = (h * h):sum() + p:mean()
      loss:backward()
      opt:step()
      return loss
    end)
    local x, list = kiln.randn(30, 4):to(device), {}
    for i = 1, 4 do list[i] = step(x):item() end
    return list
  end
  local a, b = losses "cpu", losses "cuda"
  for i = 1, 4 do truth(near(a[i], b[i]), a[i] .. " " .. b[i]) end
end)
