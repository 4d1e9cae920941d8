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

-- Which tensor came back: the one that was given, or a fresh one whose elements are its own.
local function gives_back(g, want, x, ...)
  local y, z = g(x, ...)
  truth(rawequal(y, x) == want, "the tensor that was given")
  local before = x:cpu():sum():item()
  y:add_(1)
  truth((x:cpu():sum():item() ~= before) == want, "memory of the tensor that was given")
  y:sub_(1)
  return y, z
end

test("a loop gives back the very tensor that it was given where it ends at once", function()
  local function f(x, w, limit)
    local n = 0
    while n < 10 and x:sum():item() < limit do
      x = x:matmul(w):tanh()
      n = n + 1
    end
    return x
  end
  local g = kiln.script(f)
  local x, w = kiln.randn(4, 4), kiln.randn(4, 4) * 0.5
  local there, by = x:to "cuda", w:to "cuda"
  for _, limit in ipairs { 1e9, -1e9, 1e9, -1e9 } do same(f(x, w, limit), gives_back(g, limit < 0, there, by, limit)) end
end)

test("a branch, an early return, a loop in a loop", function()
  local function choose(x, c) if x:sum():item() > c then return x else return x * 2 end end
  local function early(x, c)
    for i = 1, 6 do
      if x:sum():item() > c then return x end
      x = x + 1
    end
    return x * 2
  end
  local function nested(x, c)
    local y = x
    for i = 1, 3 do
      while y:sum():item() < c do y = y * 2 end
      if y:sum():item() > 4 * c then y = x end
    end
    return y
  end
  local x = kiln.tensor { 1.0, 2.0, 3.5 }
  for _, f in ipairs { choose, early, nested } do
    local g = kiln.script(f)
    for _, c in ipairs { 3, 8, 20, 1000, 3 } do
      local y = f(x, c)
      same(y, gives_back(g, rawequal(y, x), x:to "cuda", c))
    end
  end
end)

test("two results that may be one, and none", function()
  local function f(x, trips)
    local best, most, last = x, -1e9, x
    for i = 1, trips do
      last = (last * 1.5):sin()
      local s = last:sum():item()
      if s > most then best, most = last, s end
    end
    return best, last
  end
  local function none(x, c)
    local found
    for i = 1, 4 do
      x = x * 2
      if x:sum():item() > c then found = x break end
    end
    return found, x
  end
  local x = kiln.tensor { 0.3, -0.2, 0.9 }
  local g, h = kiln.script(f), kiln.script(none)
  for trips = 0, 5 do
    local there = x:to "cuda"
    local a, b = f(x, trips)
    local c, d = g(there, trips)
    same(a, c)
    same(b, d)
    truth(rawequal(a, b) == rawequal(c, d) and rawequal(a, x) == rawequal(c, there) and rawequal(b, x) == rawequal(d, there))
  end
  for _, limit in ipairs { 1, 3, 1e9 } do
    local a, b = none(x, limit)
    local c, d = h(x:to "cuda", limit)
    truth((a == nil) == (c == nil) and rawequal(a, b) == rawequal(c, d))
    if a then same(a, c) end
    same(b, d)
  end
end)

test("what is stored may be an argument", function()
  local function make(first)
    local kept = first
    return function(x, c)
      if x:sum():item() > c then kept = x end
      return kept
    end
  end
  local x, y = kiln.tensor { 1.0, 2.0 }, kiln.tensor { 5.0, 6.0 }
  local a, b, c = x:to "cuda", y:to "cuda", kiln.tensor { 0.0, 0.0 }
  local there = c:to "cuda"
  local f, g = make(c), kiln.script(make(there))
  local cpu, cuda = { [x] = 1, [y] = 2, [c] = 3 }, { [a] = 1, [b] = 2, [there] = 3 }
  for _, it in ipairs { { x, a, 9 }, { x, a, 1 }, { y, b, 99 }, { y, b, 1 }, { x, a, 9 } } do
    local want, got = f(it[1], it[3]), g(it[2], it[3])
    same(want, got)
    truth(cpu[want] == cuda[got], "which tensor was kept")
  end
end)

test("gradients through loops that may give back what they were given", function()
  local function f(x, w, limit)
    local n = 0
    while n < 4 and x:sum():item() < limit do
      x = (x * w):tanh()
      n = n + 1
    end
    return (x * w):sum()
  end
  local g = kiln.script(f)
  for _, limit in ipairs { 1e9, -1e9 } do
    local grads = {}
    for k, device in ipairs { "cpu", "cuda" } do
      local x = kiln.tensor({ 0.5, -1.0, 2.0 }):to(device):requires_grad_()
      local w = kiln.tensor({ 1.5, 0.25, -0.5 }):to(device):requires_grad_()
      local loss = (device == "cpu" and f or g)(x, w, limit)
      loss:backward()
      grads[k] = { loss:reshape(1), x.grad, w.grad }
    end
    for i = 1, 3 do same(grads[1][i], grads[2][i]) end
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
  -- Saved, and loaded where it was or elsewhere.
  local path = os.tmpname()
  fast:save(path)
  local there, here = kiln.load(path), kiln.load(path, { device = "cpu" })
  kiln.no_grad(function() same(want, there(x:to "cuda")) same(want, here(x)) end)
  here:save(path)
  local again = kiln.load(path, { device = "cuda" })
  kiln.no_grad(function() same(want, again(x:to "cuda")) end)
  local ok, why = pcall(kiln.load, path, { place = "cpu" })
  truth(not ok and why:find "there is no option 'place'; there ")
  os.remove(path)
end)

test("saved state, constants and numbers on another device, and kiln-run there", function()
  local count = kiln.zeros(1)
  local function f(x, n)
    count:copy_(count + 1)
    local y = kiln.ones(3, { device = x.device }) * n
    while y:sum():item() < 50 do y = y * 2 + x end
    return y + count:to(x.device), y:sum():item()
  end
  local g = kiln.script(f)
  local path, input, output = os.tmpname(), os.tmpname(), os.tmpname()
  local x = kiln.tensor { 1.0, 2.0, 3.0 }
  g(x, 1.5)
  g:save(path)
  local here, there = kiln.load(path), kiln.load(path, { device = "cuda" })
  for n = 1, 3 do
    local a, s = here(x, n + 0.5)
    local b, t = there(x:to "cuda", n + 0.5)
    truth(b.is_cuda and near(s, t))
    same(a, b)
  end
  there:save(path)
  local want = kiln.load(path, { device = "cpu" })(x, 1.5)
  kiln.to_npy(input, x)
  for _, device in ipairs { "", " --device cpu", " --device cuda" } do
    local run = (os.getenv "KILN_BUILD" or "build") .. "/kiln-run " .. path .. device .. " --input x=" .. input .. " --input n=1.5 --output 1=" .. output
    truth(os.execute(run))
    same(want, kiln.from_npy(output))
  end
  for _, name in ipairs { path, input, output } do os.remove(name) end
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

test("a tensor that a run leaves undefined, and what would read it", function()
  local function f(x, m, c)
    local y
    if c > 0 then y = (x * 2 + 1):tanh() end
    local z = kiln.linalg.inv(m) -- which no launch does
    if c > 0 then z = (z + y) * y end
    return z * 2 + 1
  end
  local g = kiln.script(f)
  local x, m = kiln.tensor { 1.0, 2.0 }, kiln.tensor { { 2.0, 1.0 }, { 1.0, 3.0 } }
  for _, c in ipairs { 1, 1, -1, 2, -1 } do same(f(x, m, c), g(x:to "cuda", m:to "cuda", c)) end
end)

test("sentences name the device as eager ones do", function()
  local function f(x, k) return x[k] * 1 end
  local x = kiln.tensor({ 1.0, 2.0 }):to "cuda"
  local _, eager = pcall(f, x, 5)
  local _, captured = pcall(kiln.script(f), x, 5)
  truth(eager == captured and eager:find("float32[2]@cuda", 1, true), captured)
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

test("graphs for inference: constants there are folded as they are on the CPU", function()
  local nn = kiln.nn
  for _, dtype in ipairs { "float32", "bfloat16" } do
    local said, answers = {}, {}
    for i, device in ipairs { "cpu", "cuda" } do
      kiln.manual_seed(5)
      local net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(4 * 7 * 7, 10))
      net(kiln.randn(4, 3, 8, 8))
      net:eval():to(device):to(dtype)
      local function f(x) return net(x) * net[7].bias:exp():sum() + 0.5 end
      local g = kiln.script(f, { inputs = { kiln.spec(dtype, { "N", 3, 8, 8 }, { device = device }) } })
      local frozen, fast = g:freeze(), g:optimize_for_inference()
      local x = kiln.randn(2, 3, 8, 8):to(device):to(dtype)
      local off = dtype == "float32" and 1e-5 or 0.05
      truth(frozen(x):allclose(g(x), { rtol = off, atol = off }))
      answers[i] = fast(x):cpu():float()
      truth(answers[i]:allclose(f(x):cpu():float(), { rtol = off, atol = off }))
      local report = fast:report()
      said[i] = { folds = #report.folds, kept = 0 }
      for _, fold in ipairs(report.folds) do said[i].kept = said[i].kept + (fold.kept and 1 or 0) end
    end
    check.equal(said[2].folds, said[1].folds)
    check.equal(said[2].kept, said[1].kept)
    truth(dtype ~= "float32" or said[1].kept >= 3, tostring(said[1].kept))
  end
end)

-- A device that is there changes nothing for tensors that are not on it.
test("branches and loops hand on tensors of the CPU", function()
  local function chosen(x, y)
    local r, q = x, x
    if x:sum():item() > y:sum():item() then r = y end
    q = r
    if r:sum():item() > 3 then q = r * 2 end
    return r, q, x
  end
  local function best(x, n)
    local most, now = x, x
    for _ = 1, n do
      now = now * -0.9 + 0.3
      if now:sum():item() > most:sum():item() then most = now end
    end
    return most, now
  end
  local g, h = kiln.script(chosen), kiln.script(best)
  for _, from in ipairs { { 1.0, 1.0 }, { 3.0, 4.0 }, { -3.0, -4.0 } } do
    local x, y = kiln.tensor(from), kiln.tensor { 2.0, 2.5 }
    local r, q = chosen(x, y)
    local a, b, c = g(x, y)
    truth(rawequal(a, r) and rawequal(b, r) == rawequal(q, r) and rawequal(c, x))
    same(b, q)
    for n = 0, 4, 2 do
      local most, now = best(x, n)
      a, b = h(x, n)
      same(a, most)
      same(b, now)
    end
  end
end)

test("numbers that are tensors of the CPU, beside tensors of the device", function()
  local small, large = kiln.tensor(1.5), kiln.tensor(2.5)
  local function chosen(x)
    local s = small
    if x:sum():item() > 3 then s = large end
    return x * s, s * 1
  end
  local function made(x, n)
    local s = kiln.tensor(0.0)
    for _ = 1, n do
      s = kiln.tensor(x:sum():item())
      x = x * s + 0.5
    end
    return x, s
  end
  local g, h = kiln.script(chosen), kiln.script(made)
  for _, from in ipairs { { 1.0, 1.0 }, { 3.0, 4.0 } } do
    local x = kiln.tensor(from)
    local a, s = chosen(x)
    local b, t = g(x:to "cuda")
    same(a, b)
    same(s, t)
    a, s = made(x, 3)
    b, t = h(x:to "cuda", 3)
    same(a, b)
    same(s, t)
  end
end)

test("tensors of the CPU are handed on beside a launch, though they have no elements", function()
  local none, some = kiln.zeros(0):requires_grad_(), kiln.tensor({ 1.0, 2.0 }):requires_grad_()
  local g = kiln.script(function(x)
    local p, q = none:detach(), some:detach()
    for _ = 1, 3 do
      x = x * 1.5 + 1
      if x:sum():item() > 9 then x = x * 0.5 end
    end
    return x, p, q
  end)
  for _ = 1, 2 do
    local x, p, q = g(kiln.tensor({ 1.0, 2.0 }):to "cuda")
    same(x, kiln.tensor { 2.28125, 3.125 })
    truth(p:size(1) == 0 and not p.is_cuda)
    same(q, some:detach())
  end
end)
