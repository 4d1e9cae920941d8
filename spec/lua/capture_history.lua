-- Writes that change elements and leave the history: through detach(), or under no_grad. Gradients are eager's.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local T = kiln.tensor

local function plain(v) return kiln.is_tensor(v) and v:detach():totable() or v end

-- f gives a tensor or more, and may call backward; compared with w.grad and w afterwards.
local function agrees(name, f)
  test(name, function()
    local function go(run)
      local w = T { 1.0, 2, 3 }:requires_grad_()
      local got = table.pack(run(w))
      for i = 1, got.n do got[i] = plain(got[i]) end
      got.grad, got.w, got.leaf = w.grad and plain(w.grad), plain(w), w.is_leaf and w.requires_grad
      return got
    end
    equal(go(function(w) return kiln.script(function() return f(w) end)() end), go(f))
  end)
end

agrees("detach add", function(w) local h = w * 2; h:detach():add_(1); local l = (h * h):sum(); l:backward(); return l end)
agrees("detach add uses after", function(w) local h = w * 2; local d = h:detach(); d:add_(1); local l = (h * 3):sum(); l:backward(); return l end)
agrees("no_grad add", function(w) local h = w * 2; kiln.no_grad(function() h:add_(1) end) local l = (h * h):sum(); l:backward(); return l end)
agrees("no_grad view", function(w) local h = w * 2; kiln.no_grad(function() h[1] = 5 end) local l = (h * h):sum(); l:backward(); return l end)
agrees("no_grad view made outside", function(w) local h = w * 2; local v = h[{{1,2}}]; kiln.no_grad(function() v:mul_(3) end) local l = (h * h):sum() + v:sum(); l:backward(); return l end)
agrees("no_grad in leaf", function(w) local l1 = (w * w):sum(); kiln.no_grad(function() w:mul_(2) end) local l = (w * 5):sum(); l:backward(); return l end)
agrees("no_grad in leaf both", function(w) local l1 = (w * 3):sum(); kiln.no_grad(function() w:mul_(2) end) local l = (w * w):sum() + l1; l:backward(); return l end)
agrees("detached leaf", function(w) local l1 = (w * 3):sum(); w:detach():mul_(2) local l = (w * w):sum() + l1; l:backward(); return l end)
agrees("two steps", function(w) for i = 1, 3 do w.grad = nil; local l = (w * w):sum(); l:backward(); local g = w.grad kiln.no_grad(function() w:sub_(g * 0.1) end) end return w * 1 end)
agrees("branch", function(w) local h = w * 2; if h:sum() > 3 then h:detach():add_(1) end local l = (h * h):sum(); l:backward(); return l end)
agrees("loop", function(w) local h = w * 2; while h:sum() < 100 do kiln.no_grad(function() h:mul_(2) end) end local l = (h * h):sum(); l:backward(); return l end)
agrees("data from history", function(w) local h = w * 2; local z = w * 7; h:detach():copy_(z); local l = (h * h):sum(); l:backward(); return l end)
agrees("write with grad then nograd", function(w) local h = T{0.0,0,0}; h:add_(w); kiln.no_grad(function() h:add_(1) end); local l = (h * h):sum(); l:backward(); return l end)
agrees("nograd then with grad", function(w) local h = T{1.0,1,1}; kiln.no_grad(function() h:add_(w) end); h:mul_(w); local l = (h * h):sum(); l:backward(); return l end)
agrees("result history", function(w) local h = w * 2; kiln.no_grad(function() h:add_(1) end) return h * 1 end)
agrees("detach of detach", function(w) local h = w * 2; h:detach():detach():view(3)[1] = 9 local l = (h * h):sum(); l:backward(); return l, h end)
agrees("detached with grad mode value", function(w) local h = w * 2; local d = h:detach(); d:mul_(w) local l = (h * h):sum(); l:backward(); return l end)
agrees("branch both", function(w) local l1 = (w * 3):sum(); if l1 > 2 then kiln.no_grad(function() w:mul_(2) end) end local l = (w * w):sum() + l1; l:backward(); return l end)
agrees("loop both", function(w) local l1 = (w * 3):sum(); while w:sum() < 100 do kiln.no_grad(function() w:mul_(2) end) end local l = (w * w):sum() + l1; l:backward(); return l end)
agrees("grad of nonleaf", function(w) local h = w * 2; local a = (h * 3):sum(); kiln.no_grad(function() h:add_(1) end) local g = kiln.grad(a + (h * h):sum(), h) return g end)
agrees("inner", function(w) local p = T{1.0,2}:requires_grad_(); local a = (p * 3):sum(); kiln.no_grad(function() p:add_(1) end) local l = a + (p * p):sum() l:backward() return p.grad, p end)
agrees("argument", function(w) local h = w * 2; local f = function(x) kiln.no_grad(function() x:add_(1) end) return x * 2 end local y = f(h) y:sum():backward() return y, h end)
agrees("index under no_grad in loop", function(w) local h = w * 2; for i = 1, 3 do kiln.no_grad(function() h[i] = i end) end local l = (h * h):sum() l:backward() return l end)
agrees("detach in union", function(w) local h = w * 2; local k = w * 3 local z = h if h:sum() > 3 then z = k end z:detach():add_(1) local l = (h * h + k * k):sum() l:backward() return l end)

test("an argument with a history keeps it", function()
  local f = function(x) kiln.no_grad(function() x:add_(1) end) return x * x end
  local function go(run)
    local w = T { 1.0, 2 }:requires_grad_()
    local h = w * 2
    local ok, y = pcall(run, h)
    if ok then y:sum():backward() end
    return ok, plain(h), w.grad and plain(w.grad)
  end
  local ok, h, g = go(kiln.script(f))
  if ok then
    local _, want, grad = go(f)
    equal({ h, g }, { want, grad })
  else
    equal(h, { 2.0, 4.0 }) -- refused, and nothing has changed
  end
end)

test("an optimiser's writes leave no trace of it in the graph", function()
  local net = kiln.nn.Linear(3, 2)
  local opt = kiln.optim.AdamW(net:parameters(), { lr = 0.1 })
  local g = kiln.script(function(x)
    opt:zero_grad()
    local l = net(x):square():sum()
    l:backward()
    opt:step()
    return l
  end)
  for _ = 1, 3 do g(kiln.ones(1, 3)) end
  check.truth(not tostring(g):find("with_history", 1, true), tostring(g))
end)

-- ---- what is overwritten after a gradient has to read it ----

local held = T { 1.0, 2.0, 3.0 }
held:requires_grad_(true)
local function gradient(f)
  return function(x)
    f(x):backward()
    local g = held.grad
    held.grad = nil
    return g
  end
end
local function both(f, x)
  held.grad = nil
  local want = table.pack(pcall(f, x:clone()))
  held.grad = nil
  local got = table.pack(pcall(kiln.script(f), x:clone()))
  held.grad = nil
  local function text(r) return r[1] and r[2]:totable() or r[2] end
  equal(got[1], want[1])
  equal(text(got), text(want))
end

for name, f in pairs {
  ["through detach"] = function(x) local h = (held * 1):exp() local l = (h * x):sum() h:detach():add_(1) return l end,
  ["with gradients off"] = function(x)
    local h = (held * 1):exp()
    local l = (h * x):sum()
    kiln.no_grad(function() h:mul_(2) end)
    return l
  end,
  ["in place"] = function(x) local h = (held * 1):exp() local l = (h * h):sum() h:add_(x) return l end,
  ["by an assignment"] = function(x) local h = (held * 1):exp() local l = (h * h):sum() h[1] = 5 return l end,
  ["through a view"] = function(x) local h = held * 1 local l = (h[2] * h[3]):sum() h:detach()[1] = x[1] return l end,
  ["an argument"] = function(x) local l = (held * x):sum() x:add_(1) return l end,
  ["an argument, through a view"] = function(x) local l = (held * x):sum() x[{ { 1, 2 } }]:zero_() return l end,
  ["not read"] = function(x) local h = held * 2 local l = (h + x):sum() h:detach():add_(1) return l end,
  ["a copy"] = function(x) local h = (held * 1):exp() local l = (h * h):sum() h:clone():add_(x) return l end,
  ["itself, in place"] = function(x) local h = held * 1 h:mul_(x):exp_() return h:sum() end,
  ["before it is read"] = function(x) local h = held * 1 h:add_(x) return (h * h):sum() end,
  ["in a loop, not read"] = function(x)
    local h, n = held * 1, 0
    while n < x:sum() do h:add_(x) n = n + 3 end
    return h:sum()
  end,
} do
  test("overwritten " .. name, function() both(gradient(f), T { 1.0, 2.0, 3.0 }) end)
end

for name, f in pairs {
  ["on some path"] = function(x)
    local h = (held * 1):exp()
    local l = (h * h):sum()
    if x:sum() > 0 then h:detach():add_(1) end
    return l
  end,
  ["by a later trip"] = function(x)
    local h, n = held * 1, 0
    while n < x:sum() do h:exp_() n = n + 3 end
    return h:sum()
  end,
} do
  test("overwritten " .. name .. ": refused", function()
    raises(function() kiln.script(gradient(f))(T { 1.0, 2.0, 3.0 }) end,
      "after it was saved for backward; use")
  end)
end
