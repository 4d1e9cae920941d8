-- Gradients through captured graphs called from eager code. That they equal the eager ones on random inputs is also
-- asked of every function of the other capture specs (capture_compare.lua).
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor
local F = kiln.nn.functional

local function double(t) return T(t, { dtype = "float64" }):requires_grad_() end

-- Differences agree with the gradients of the graph, and those with eager ones, to the bit where asked.
local function agree(name, f, inputs, exact)
  test(name, function()
    local g = kiln.script(f)
    truth(kiln.gradcheck(g, inputs))
    local want, got = kiln.grad(f(table.unpack(inputs)):sum(), inputs, { allow_unused = true }),
      kiln.grad(g(table.unpack(inputs)):sum(), inputs, { allow_unused = true })
    for i = 1, #inputs do
      if not want[i] then equal(got[i], false)
      elseif exact then equal(got[i]:totable(), want[i]:totable())
      else truth(got[i]:allclose(want[i], { rtol = 1e-12 })) end
    end
  end)
end

local x, y = double { 0.3, -0.7, 1.1 }, double { 1.5, 0.2, -0.4 }

agree("straight line", function(a, b) return (a * b + a * a * b):tanh() * a + a end, { x, y }, true)
agree("a branch", function(a, b) if (a * b):sum() > 0 then return a * b:exp() else return a / (b * b + 1) end end, { x, y })
agree("early returns", function(a, b)
  if a:sum() > 10 then return a end
  for i = 1, 3 do
    a = a * b
    if a:sum() < 0.1 then return a:sin() end
  end
  return a:cos()
end, { x, y })
agree("a while loop whose trips depend on data", function(a, b)
  while a:sum() < 4 do a = a + b * b * 0.5 + a:sigmoid() end
  return a * b
end, { x, y })
agree("repeat, with a value that is nil at first", function(a, b)
  local h, n = nil, 0
  repeat
    if h then h = h * b + a else h = a * a end
    n = n + 1
  until n == 4 or h:sum() > 50
  return h
end, { x, y })
agree("a numeric for over a free number", function(a, b)
  local s = a
  for i = 1, 5 do s = s + (a * i):sin() * b if s:sum() > 3 then break end end
  return s
end, { x, y })
agree("loops in loops", function(a, b)
  local s, i = a, 0
  while s:sum() < 6 do
    local t = b
    while t:sum() < 2 + i do t = t + a * a t = t * 1.1 end
    s = s + t * 0.5 + b:tanh()
    i = i + 1
  end
  return s
end, { x, y })
agree("closures and tables", function(a, b)
  local box = { v = a }
  local function push(t) box.v = box.v * t + 1 end
  if a:sum() > 0 then push(b) else push(a) end
  while box.v:sum() < 9 do push(b:exp()) end
  return box.v
end, { x, y })
agree("a choice of values", function(a, b)
  local t = a:sum() > b:sum() and a * 2 or b * 3
  return t * t
end, { x, y })

-- Lists that a loop collects, with all trips kept and with few bytes for them.
local function agree_lists(name, f)
  agree(name, f, { x, y })
  test(name .. ", below some bytes", function()
    local want = kiln.grad(f(x, y):sum(), { x, y })
    local g = kiln.script(f, { memory = 30000 })
    for i, got in ipairs(kiln.grad(g(x, y):sum(), { x, y })) do truth(got:allclose(want[i], { rtol = 1e-12 })) end
  end)
end
agree_lists("a list that is stacked", function(a, b)
  local out, h = {}, a
  while h:sum():item() < 4 do
    h = h + b:exp() * 0.3 + 0.1
    out[#out + 1] = h * a
  end
  return kiln.stack(out) * b
end)
agree_lists("a list that is gone through, and concatenated", function(a, b)
  local out, h = {}, a
  while h:sum():item() < 4 do
    h = h + b:exp() * 0.3 + 0.1
    out[#out + 1] = h * a
  end
  local s = a * b
  for i, v in ipairs(out) do s = s * 0.9 + v * v * i end
  return s + kiln.cat(out):sum()
end)
agree_lists("a list that is read while it grows", function(a, b)
  local out, h = { a * b }, a
  while h:sum():item() < 4 do
    h = h + out[#out]:tanh() + b:exp() * 0.3
    out[#out + 1] = h * out[1]
  end
  return out[#out] + out[1]
end)
agree_lists("a list that grows on one path, and is read on one", function(a, b)
  local out, h = {}, a
  while h:sum():item() < 6 do
    if h:sum():item() > 2 then out[#out + 1] = h * b end
    h = h + b:exp() * 0.3
  end
  if #out > 2 then return kiln.stack(out) end
  return h
end)

test("a whole module, to the bit", function()
  kiln.manual_seed(3)
  local net = kiln.nn.Sequential(kiln.nn.Linear(6, 8), kiln.nn.ReLU(), kiln.nn.Dropout(0), kiln.nn.Linear(8, 3))
  local g, data, labels = kiln.script(net), kiln.randn(5, 6), kiln.randint(1, 4, { 5 })
  local function train(f)
    for _, p in ipairs(net:parameters()) do p.grad = nil end
    local loss = F.cross_entropy(f(data), labels)
    loss:backward()
    local all = { loss:item() }
    for i, p in ipairs(net:parameters()) do all[i + 1] = p.grad:totable() end
    return all
  end
  local want = train(function(v) return net(v) end)
  equal(train(g), want)
  equal(train(g), want)
end)

test("what takes no part has no gradient, as eager", function()
  local f = function(a, b, c) if c:sum() > 0 then return a * 2 end return a + b:sum() end
  local g = kiln.script(f)
  for _, s in ipairs { 1.0, -1.0 } do
    local a, b = T { 1.0, 2 }:requires_grad_(), T { 3.0, 4 }:requires_grad_()
    g(a, b, T { s }):sum():backward()
    equal(a.grad:totable(), s > 0 and { 2.0, 2.0 } or { 1.0, 1.0 })
    equal(b.grad and b.grad:totable(), s < 0 and { 2.0, 2.0 } or nil)
  end
end)

test("log of 0 on the path not taken gives no nan", function()
  local g = kiln.script(function(a)
    local l = a:log()
    if a:sum() > 0 then return l * 2 else return a * 3 end
  end)
  local a = T { 0.0, 0.0 }:requires_grad_()
  g(a):sum():backward()
  equal(a.grad:totable(), { 3.0, 3.0 })
end)

test("several results, of which some are used", function()
  local w = T { 2.0 }:requires_grad_()
  local g = kiln.script(function(a) return { loss = (a * w):sum(), [1] = a + 1, n = a:sum():item() }, w end)
  local a = T { 1.0, 5 }:requires_grad_()
  local r = g(a)
  r.loss:backward()
  equal(w.grad:totable(), { 6.0 })
  equal(a.grad:totable(), { 2.0, 2.0 })
  r[1]:sum():backward()
  equal(a.grad:totable(), { 3.0, 3.0 })
end)

test("random draws are those of forward", function()
  local g = kiln.script(function(a) return a * kiln.rand(3) end)
  local a = kiln.ones(3):requires_grad_()
  local r = g(a)
  local before = kiln.rand(1):item()
  r:sum():backward()
  equal(a.grad:totable(), r:totable())
  kiln.manual_seed(5) g(a) local p = kiln.rand(1):item()
  kiln.manual_seed(5) g(a):sum():backward() equal(kiln.rand(1):item(), p)
  truth(before)
end)

test("detach, no_grad and inference inside", function()
  local g = kiln.script(function(a)
    local b = (a * 3):detach()
    local c = kiln.no_grad(function(t) return t * 5 end, a)
    return a * b + c
  end)
  local a = T { 2.0 }:requires_grad_()
  g(a):backward()
  equal(a.grad:totable(), { 6.0 })
  local h = kiln.script(function(v) return kiln.no_grad(function(t) return t * 5 end, v) end)
  truth(not h(a).requires_grad)
end)

test("a value changed in place after the call is an error", function()
  local g = kiln.script(function(a, b) return a * b end)
  local a, b = T { 2.0 }:requires_grad_(), T { 3.0 }
  local r = g(a, b)
  b:add_(1)
  raises(function() r:backward() end, "was changed in place by add_ after it was saved for backward")
end)

test("backward twice adds up, and grad mode decides", function()
  local g = kiln.script(function(a) return (a * a):sum() end)
  local a = T { 2.0 }:requires_grad_()
  local r = g(a)
  r:backward() r:backward()
  equal(a.grad:totable(), { 8.0 })
  truth(not kiln.no_grad(g, a).requires_grad)
  truth(not g(a:detach()).requires_grad)
end)

test("state written is still written", function()
  local m = { n = 0, mean = T { 0.0 } }
  local g = kiln.script(function(a)
    m.n = m.n + 1
    m.mean = m.mean * 0.5 + a:detach() * 0.5
    return a * m.mean
  end)
  local a = T { 4.0 }:requires_grad_()
  g(a):backward()
  equal(m.n, 1)
  equal(m.mean:totable(), { 2.0 })
  equal(a.grad:totable(), { 2.0 })
  g(a)
  equal(m.mean:totable(), { 3.0 })
end)

test("more parameters than a call usually has", function()
  local ws = {}
  for i = 1, 90 do ws[i] = T { i / 100 }:requires_grad_() end
  local g = kiln.script(function(a) for _, w in ipairs(ws) do a = a * w + a end return a end)
  g(T { 1.0 }):backward()
  local want = {}
  for i = 1, 90 do want[i] = ws[i].grad:item() ws[i].grad = nil end
  local a = T { 1.0 }
  for _, w in ipairs(ws) do a = a * w + a end
  a:backward()
  for i = 1, 90 do equal(ws[i].grad:item(), want[i]) end
end)

-- What both sides lend is a copy that a reshape made: the graph's own, which the next call makes anew.
test("a backward after later calls reads what a branch lent then", function()
  local w = T { 0.5, -1.0, 2.0, 0.25 }:requires_grad_()
  local f = function(a, c, n)
    local rows, flat, sum = a:reshape(4), a:flatten(), 0
    for i = 1, n do
      local side
      if c[i] > 0 then side = rows else side = flat end
      sum = sum + (side * w):tanh()
    end
    return sum:sum()
  end
  local g, want, got = kiln.script(f), {}, {}
  for i = 1, 4 do
    local a, c = T { { 0.1 * i, 0.2 }, { 0.3, -0.4 } }:t(), T { 1.0, -1.0, 1.0, -1.0 }
    want[i], got[i] = f(a, c, i % 2 + 2), g(a, c, i % 2 + 2)
  end
  for i = 1, 4 do equal(kiln.grad(got[i], w):totable(), kiln.grad(want[i], w):totable()) end
end)
