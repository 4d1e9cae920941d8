-- Gradients of loops below a number of bytes: trips are computed again from checkpoints. The gradients are those of all
-- that is kept, to the bit; what is kept stays below the limit.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor
local F = kiln.nn.functional

-- run(memory, script): what a function made for that limit leaves behind. All limits and eager agree.
local function agree(name, limits, run)
  test(name, function()
    local threads = kiln.get_num_threads()
    kiln.set_num_threads(1)
    kiln.use_deterministic_algorithms(true)
    local function once(memory, script)
      kiln.manual_seed(7)
      local all = { run(memory, script) }
      all[#all + 1] = kiln.rand(1):item()
      return all
    end
    local want = once(nil, function(f) return f end)
    equal(once(nil, kiln.script), want, "all kept")
    for _, memory in ipairs(limits) do equal(once(memory, kiln.script), want, memory .. " bytes") end
    kiln.use_deterministic_algorithms(false)
    kiln.set_num_threads(threads)
  end)
end

local few = { 9000, 16000, 100000, 1 << 30 }

agree("a while loop", few, function(memory, script)
  local w = T { 0.99, 1.01, 0.5 }:requires_grad_()
  local f = script(function(x)
    w.grad = nil
    local h, n = x * w, 0
    while n < 100 and h:abs():sum():item() > 0.001 do
      h = (h * w + 0.01):tanh() * 1.01
      n = n + 1
    end
    local y = h:sum()
    y:backward { memory = memory }
    return y:detach(), n
  end)
  local out = {}
  for i = 1, 3 do
    local y, n = f(T { i * 1.0, -1, 2 })
    out[i] = { y:item(), n, w.grad:totable() }
  end
  return out
end)

agree("draws come out the same", few, function(memory, script)
  local w = kiln.ones(8):requires_grad_()
  local f = script(function(x)
    local h = x * w
    for _ = 1, x:abs():sum():mul(8):item() // 1 do
      local unread = kiln.rand(3)
      h = F.dropout(h * w, 0.2) + kiln.randn(8) * 0.1 * w
      if unread:sum():item() > 1.5 then h = h * kiln.rand(8) end
    end
    local g = kiln.grad(h.sum(h), w, { memory = memory })
    return g, h:detach()
  end)
  local g, h = f(T { 0.5, 1, 1.5, 0.25, 0.1, 0.2, -1, -2 })
  return g:totable(), h:totable()
end)

agree("loops in loops, branches, and gradients to what is outside", { 20000, 60000, 1 << 24 }, function(memory, script)
  local w, v = T { 0.9, 0.8 }:requires_grad_(), T { 0.3, -0.2 }:requires_grad_()
  local f = script(function(x)
    w.grad, v.grad = nil, nil
    local scale = (x * v):exp()
    local h, i = x * w, 0
    while h:sum():item() < 40 and i < 30 do
      local t, j = h * scale, 0
      while t:sum():item() < 3 + i and j < 10 do
        t = t + w * w + 0.1
        j = j + 1
      end
      if t:sum():item() > 9 then h = h + t:sqrt() * w else h = h + t * v:sigmoid() end
      i = i + 1
    end
    (h * scale):sum():backward { memory = memory }
    return i
  end)
  local out = {}
  for k = 1, 3 do out[k] = { f(T { k * 0.5, 1.0 }), w.grad:totable(), v.grad:totable() } end
  return out
end)

agree("a loop on one path only, whose tensors grow", { 20000, 1 << 20 }, function(memory, script)
  local w = T { 0.5, 2.0 }:requires_grad_()
  local f = script(function(x, n)
    w.grad = nil
    local y = x * w
    if x:sum():item() > 0 then
      for i = 1, n do y = kiln.cat { y * 0.9, x * w * i } end
    end
    y:pow(2):sum():backward { memory = memory }
  end)
  local out = {}
  for k, s in ipairs { 1.0, -1.0, 2.0 } do
    f(T { s, s }, 3 + 5 * k)
    out[k] = w.grad:totable()
  end
  return out
end)

agree("of calls that require grad", few, function(memory, script)
  local x = T { 0.5, -0.25 }:requires_grad_()
  local f = script(function(a)
    local h, n = a, 0
    while n < 50 and h:sum():item() < 100 do
      h = h * 1.05 + (a * h):sin()
      n = n + 1
    end
    return h
  end, memory and { memory = memory })
  local y = f(x)
  y:sum():backward()
  y:sum():backward()
  return y:totable(), x.grad:totable()
end)

-- ---- what it costs ----

local function long(memory, n, width)
  local w = kiln.full({ width }, 0.97):requires_grad_()
  local f = kiln.script(function(x, trips)
    w.grad = nil
    local h, i = x * w, 0
    while i < trips do
      h = (h * w + 0.01):tanh()
      i = i + 1
    end
    local y = h:sum()
    y:backward { memory = memory }
    return y:item()
  end)
  local x = kiln.ones(width)
  f(x, 3)
  w.grad = nil
  kiln.empty_cache()
  collectgarbage()
  kiln.reset_peak_memory_stats()
  local before = kiln.memory_stats().allocated
  f(x, n)
  return w.grad:totable(), kiln.memory_stats().peak - before
end

test("100,000 trips below a megabyte", function()
  local want, all = long(nil, 100000, 16)
  local got, peak = long(1 << 20, 100000, 16)
  equal(got, want)
  truth(all > 50 << 20, all .. " bytes when all is kept")
  truth(peak <= 1 << 20, peak .. " bytes")
end)

test("peaks stay below their limits", function()
  local want = long(nil, 1000, 64)
  for _, memory in ipairs { 1 << 15, 1 << 16, 1 << 18, 1 << 20 } do
    local got, peak = long(memory, 1000, 64)
    equal(got, want)
    truth(peak <= memory, ("%d bytes of %d"):format(peak, memory))
  end
end)

-- ---- saved, refused ----

test("saved, it needs no Lua", function()
  kiln.manual_seed(2)
  local w = T { 0.9, 0.8 }:requires_grad_()
  local f = kiln.script(function(x)
    local h, n = x * w, 0
    while n < 40 and h:sum():item() < 30 do
      h = F.dropout(h * 1.1 + w, 0.1)
      n = n + 1
    end
    return kiln.grad(h:sum(), w, { memory = 20000 }), n
  end)
  local x, path = T { 1.0, 2.0 }, os.tmpname()
  f(x)
  f:save(path)
  local loaded = kiln.load(path)
  os.remove(path)
  truth(tostring(loaded):find("checkpoint_after", 1, true))
  kiln.manual_seed(5)
  local a, n = f(x)
  kiln.manual_seed(5)
  local b, m = loaded(x)
  truth(n > 3 and n == m)
  equal(b:totable(), a:totable())
end)

test("what cannot run twice is refused, and so is too little", function()
  local w = T { 0.5 }:requires_grad_()
  local function loop(memory, options)
    return kiln.script(function(x, n)
      local h = x * w
      for _ = 1, n do h = (h * w):tanh() end
      h:sum():backward { memory = memory, create_graph = options }
    end)
  end
  raises(function() loop(100)(T { 1.0 }, 5) end, "backward: 50 bytes, half of the memory given, must hold 1740 bytes of this loop")
  raises(function() loop(0)(T { 1.0 }, 5) end, "option 'memory' must be a whole number of bytes above 0, got 0")
  raises(function() loop "x" (T { 1.0 }, 5) end, "option 'memory' must be a whole number of bytes above 0, got string")
  raises(function() loop(1000, true)(T { 1.0 }, 5) end, "memory and create_graph do not go together")
  raises(function() (w * 2):sum():backward { memory = 0 } end, "option 'memory' must be a whole number of bytes above 0, got 0")
  raises(function() kiln.grad((w * 2):sum(), w, { memory = {} }) end, "option 'memory' must be")
  raises(function() kiln.script(print, { memory = -1 }) end, "C function")
  raises(function() kiln.script(function() end, { memory = -1 }) end, "memory must be a whole number of bytes above 0, got ")
  local host = kiln.ignore(function(t) return t * 2 end)
  raises(function()
    kiln.script(function(x, n)
      local h = x * w
      for _ = 1, n do h = host(h) * w end
      h:sum():backward { memory = 10000 }
    end)(T { 1.0 }, 5)
  end, "")
end)
