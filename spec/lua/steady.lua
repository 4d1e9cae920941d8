-- The steady state: a graph that has run with these sizes takes no memory but that of the results it hands out. Every request
-- to the heap is counted, of whole calls from Lua, over the models of `./dev bench models`, in small.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local here = arg[0]:match "^(.*)/[^/]*$" or "."
local rows = dofile(here .. "/../bench/model_rows.lua")(true)

local function requests() return kiln.memory_stats().allocations end

-- What it takes to make the tensors in there, each once.
local function cost(value, seen)
  if seen[value] then return 0 end
  if kiln.is_tensor(value) then
    seen[value] = true
    local before = requests()
    local _ = kiln.empty(value.shape, { dtype = value.dtype })
    return requests() - before
  end
  local sum = 0
  if type(value) == "table" then
    seen[value] = true
    for _, x in pairs(value) do sum = sum + cost(x, seen) end
  end
  return sum
end

-- Requests of a call beyond its results: the least of several, for the binding's own lists grow now and then.
local function extra(g, inputs)
  local results, least
  for _ = 1, 2 do results = table.pack(g(table.unpack(inputs))) end
  local handed_out = cost(results, {})
  for _ = 1, 3 do
    local before = requests()
    results = table.pack(g(table.unpack(inputs)))
    local beyond = requests() - before - handed_out
    if not least or beyond < least then least = beyond end
  end
  return least
end

local function saved(g)
  local path = os.tmpname()
  g:save(path)
  local loaded = kiln.load(path)
  os.remove(path)
  return loaded
end

-- Large ones, of which others here have all that is in them, are done where time is no matter.
local whole = os.getenv "KILN_SWEEP" == "whole"
local large = { ["ResNet-50, batch 1"] = true, ["MobileNetV2, batch 1"] = true }

for _, row in ipairs(rows) do
  if whole or not large[row.name] then test(row.name, function()
    local case = row.case()
    local function forward()
      local g = kiln.script(case.f)
      equal(extra(g, case.inputs), 0)
      equal(extra(saved(g), case.inputs), 0)
    end
    if not case.train then return kiln.no_grad(forward) end
    local g = kiln.script(case.f)
    for _ = 1, 3 do g(table.unpack(case.inputs)) end
    equal(extra(g, case.inputs), 4) -- the loss has a history: a node and its names, what it saves, the loss's end of it
    equal(extra(saved(g), case.inputs), 0)
  end) end
end

test("loops and branches that go different ways", function()
  local function f(x, n)
    local i, best = 0, x
    while i < n do
      x = (x * 0.5 + 1):tanh()
      if x:sum() > 2 then best = best + x else best = x - best end
      i = i + 1
    end
    return best, i
  end
  local g = kiln.script(f)
  for _, n in ipairs { 1, 3, 100 } do equal(extra(g, { kiln.rand(3, 4), n }), 0) end
  equal(extra(saved(g), { kiln.rand(3, 4), 7 }), 0)
end)

test("operands that are copied into one piece, and what kernels work in", function()
  local F, w = kiln.nn.functional, kiln.rand(8, 6, 1, 1)
  local lstm = kiln.nn.LSTM(8, 8, 1, { batch_first = true })
  local g = kiln.script(function(x, y)
    return F.conv2d(x:transpose(3, 4), w, nil, { stride = 2 }), F.max_pool2d(x:transpose(3, 4), 2), (lstm(y))
  end)
  kiln.no_grad(function() equal(extra(g, { kiln.rand(2, 6, 12, 10), kiln.rand(5, 4, 8) }), 0) end)
end)

test("gradients lie where those before the last lay, unless the program keeps them", function()
  local net = kiln.nn.Linear(4, 3)
  local opt = kiln.optim.SGD(net:parameters(), { lr = 0.1 })
  local g = kiln.script(function(x)
    opt:zero_grad()
    local loss = net(x):square():sum()
    loss:backward()
    opt:step()
    return loss
  end)
  local kept, as_text, view = {}, {}, nil
  for i = 1, 6 do
    g(kiln.rand(2, 4))
    if i % 2 == 0 then
      kept[#kept + 1] = net.weight.grad
      as_text[#kept] = tostring(net.weight.grad)
    end
    if i == 3 then view = net.bias.grad:narrow(1, 2, 1) end
    if i == 3 then as_text.view = tostring(view) end
  end
  for i, grad in ipairs(kept) do equal(tostring(grad), as_text[i]) end
  equal(tostring(view), as_text.view)
end)

local function settle()
  collectgarbage()
  collectgarbage()
  kiln.reset_peak_memory_stats()
  return kiln.memory_stats().allocated
end

test("what g:memory says is what is taken", function()
  local function f(x, w)
    local h = (x:matmul(w) + 1):tanh()
    if h:sum() > 0 then h = h * 2 else h = h:exp() end
    return h + x, h:sum(2)
  end
  local g = kiln.script(f, { inputs = { kiln.spec("float32", { "N", 64 }), kiln.spec("float32", { 64, 64 }) } })
  local small, first = g:memory { N = 4 }
  equal(small, first.arena + first.workspace + first.packed)
  equal(first.results, 4 * (4 * 64 + 4))
  equal(first.state, 0)
  truth(first.plan > 0, "the plan takes something itself")
  local before = settle()
  local large, second = g:memory { N = 400 }
  equal(settle() - before, second.arena - first.arena + second.plan) -- one arena, and a plan for each
  local x, w = kiln.rand(400, 64), kiln.rand(64, 64)
  before = settle()
  local y, z = g(x, w)
  local taken, headers = kiln.memory_stats().peak - before, 2048
  truth(taken >= second.results and taken <= second.results + 2 * headers, ("%d of %d"):format(taken, second.results))
  equal(y:size(1) + z:size(1), 800)
end)

test("weights that are packed, and what a backend keeps in layouts of its own, are told", function()
  local onednn = false
  for _, b in ipairs(kiln.backends()) do onednn = onednn or b.name == "onednn" and b.available end
  if not onednn then check.skip "onednn is not available" end
  local net = kiln.nn.Sequential(kiln.nn.Conv2d(8, 16, 3), kiln.nn.ReLU(), kiln.nn.Conv2d(16, 16, 3)):eval()
  local f = kiln.script(net, { inputs = { kiln.spec("float32", { 1, 8, 20, 20 }) } }):optimize_for_inference()
  local x, before = kiln.rand(1, 8, 20, 20), settle()
  local all, m = f:memory(x)
  equal(all, m.arena + m.workspace + m.packed)
  truth(m.packed >= 4 * (16 * 8 * 9 + 16 * 16 * 9) and m.workspace > 0, ("%d, %d"):format(m.packed, m.workspace))
  truth(m.plan >= m.packed + m.workspace, "they are the plan's")
  truth(settle() - before >= all, "and are taken")
  local again = saved(f)
  local _, other = again:memory(x)
  equal(other.packed, m.packed)
  equal(select(2, f:memory(x)).packed, m.packed)
end)

test("g:prepare takes the memory, a step's copies are said", function()
  local net = kiln.nn.Linear(64, 64)
  local opt = kiln.optim.SGD(net:parameters(), { lr = 0.1 })
  local function step(x)
    local loss = net(x):square():mean()
    opt:zero_grad()
    loss:backward()
    opt:step()
    return loss
  end
  local g, x = kiln.script(step), kiln.rand(8, 64)
  for _ = 1, 2 do g(x) end
  local _, m = saved(g):memory(x)
  truth(m.state >= 4 * (64 * 64 + 64) and m.results == 4, ("%d, %d"):format(m.state, m.results))
  local loaded = saved(g)
  equal(loaded:prepare(x), loaded)
  local before = settle()
  loaded(x)
  truth(kiln.memory_stats().peak - before <= m.state + m.results + 16384, "what a first run takes beside it")
end)

-- With gradients off the results are all that a call makes anew; where they are on, they get a history.
test("a first call after g:prepare makes its results, and nothing else", function()
  local worker = loadfile(here .. "/../bench/model_worker.lua") "module"
  local some = { ["MLP 10-32-2, batch 1"] = true, ["LSTM 256x2, 32 steps"] = true, ["GPT-2 block, decode at 256"] = true,
    ["digits, early exits"] = true }
  for _, row in ipairs(rows) do
    if some[row.name] then
      some[row.name] = nil
      kiln.no_grad(function()
        local case = row.case()
        local g = kiln.script(case.f, { inputs = worker.specs(case.inputs) })
        g:prepare(table.unpack(case.inputs))
        local before = requests()
        local results = table.pack(g(table.unpack(case.inputs)))
        local all = requests() - before
        equal(all - cost(results, {}), 0)
      end)
    end
  end
  equal(next(some), nil)
end)

test("g:prepare runs it, and keeps nothing of that", function()
  local count = kiln.zeros(1)
  local x = kiln.ones(3)
  local function captured(f, ...) return kiln.script(f, { inputs = { ... } }) end
  local g = captured(function(y, n)
    count:add_(1)
    y:add_(1)
    local z = y * 2 + kiln.rand(3)
    while n > 0 do z, n = z + 1, n - 1 end
    return z:narrow(1, 1 + n * n, 1)
  end, kiln.spec("float32", { 3 }), "integer")
  kiln.manual_seed(5)
  local want = kiln.rand(1):item()
  kiln.manual_seed(5)
  equal(g:prepare(x, 2), g)
  equal(g:prepare(x, 1 << 40), g) -- a call would take hours
  equal(g:prepare(x, -5), g) -- or raise
  equal(count:item(), 0.0)
  equal(x:sum():item(), 3.0)
  equal(kiln.rand(1):item(), want)
  check.raises(function() g(x, -5) end, "narrow")
  equal(count:item(), 0.0)
  local said = captured(function(y)
    print(y:sum():item())
    return y
  end, kiln.spec("float32", { 3 }))
  said:prepare(x) -- prints nothing: the suite would see it
  equal(g:memory(x, 2) > 0, true)
end)

-- The way from Lua is warm, too: that is half of what a small graph's first call would take.
test("g:prepare calls what leaves nothing behind as a script does", function()
  local function calls(f)
    local g = kiln.script(f, { inputs = { kiln.spec("float32", { 3 }) } })
    local x, n = kiln.ones(3), 0
    debug.sethook(function() n = n + 1 end, "c")
    g:prepare(x)
    debug.sethook()
    return n - 2 -- prepare and sethook
  end
  equal(calls(function(y) return y * 2 end), 3)
  equal(calls(function(y) return y + kiln.rand(3) end), 0)
end)
