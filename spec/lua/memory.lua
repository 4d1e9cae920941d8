-- Memory: what is counted, giving it back early, limits, and running out of it without harm.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises

local MB = 1000 * 1000

local function here() return "memory.lua:" .. debug.getinfo(2, "l").currentline .. ": " end

local function settle()
  collectgarbage()
  collectgarbage()
  kiln.reset_peak_memory_stats()
  return kiln.memory_stats()
end

local function limited(bytes, body)
  kiln.set_memory_limit(settle().allocated + bytes)
  local ok, why = pcall(body)
  kiln.set_memory_limit(nil)
  if not ok then error(why, 0) end
end

-- The most that was in use beyond what was there before.
local function peak_of(times, step)
  local before = settle().allocated
  for i = 1, times do step(i) end
  return kiln.memory_stats().peak - before
end

test("empty_cache", function()
  local t = kiln.zeros(1000000)
  t:release()
  local kept = kiln.memory_stats()
  equal(math.type(kept.cached), "integer")
  kiln.empty_cache()
  local after = kiln.memory_stats()
  equal(after.cached, 0)
  equal(after.allocated, kept.allocated)
  equal(kiln.full({ 3 }, 2):sum():item(), 6)
end)

test("memory_stats", function()
  local before = settle()
  equal(before.peak, before.allocated)
  equal(before.limit, nil)
  local t = kiln.zeros(1000)
  local during = kiln.memory_stats()
  equal(during.tensors, before.tensors + 1)
  truth(during.allocated >= before.allocated + 4000 and during.blocks >= before.blocks, "counted")
  t:release()
  local after = kiln.memory_stats()
  equal(after.tensors, before.tensors)
  truth(after.allocated < during.allocated and after.peak >= during.allocated, "given back")
  kiln.reset_peak_memory_stats()
  truth(kiln.memory_stats().peak < during.allocated, "the peak begins anew")
end)

test("a loop that drops 100 MB tensors stays flat", function()
  local peak = peak_of(6, function() return kiln.empty(25 * MB) end)
  truth(peak < 350 * MB, ("%d MB"):format(peak // MB))
  collectgarbage "generational"
  peak = peak_of(60, function() return kiln.empty(MB) end)
  truth(peak < 170 * MB, ("generational, 4 MB each: %d MB"):format(peak // MB))
  collectgarbage "incremental"
  peak = peak_of(4, function()
    local t <close> = kiln.empty(25 * MB)
    local view <close> = t[{ { 2, 5 } }]
  end)
  truth(peak < 101 * MB, ("closed: %d MB"):format(peak // MB))
end)

test("so do views of them and graphs of gradients", function()
  for _, mode in ipairs { "generational", "incremental" } do
    collectgarbage(mode)
    local kept
    local peak = peak_of(50, function() kept = kiln.empty(5, MB // 5):t()[{ 1, {} }] end)
    truth(peak < 150 * MB, ("%s views: %d MB"):format(mode, peak // MB))
    local w = kiln.ones(MB // 4):requires_grad_()
    peak = peak_of(50, function() return (w * w + w):exp() end)
    truth(peak < 150 * MB, ("%s tape: %d MB"):format(mode, peak // MB))
  end
end)

test("release gives up one handle; views and saved values keep the memory", function()
  local t = kiln.tensor { 1.0, 2, 3 }
  local view = t[{ { 2, 3 } }]
  t:release()
  t:release()
  check.tensor(view, { 2.0, 3.0 })
  local x = kiln.tensor({ 2.0, 3 }, { requires_grad = true })
  local square = x * x
  local loss = square:sum()
  square:release()
  loss:backward()
  check.tensor(x.grad, { 4.0, 6.0 })
  local grad = x.grad
  x:release()
  check.tensor(grad, { 4.0, 6.0 })
end)

test("a released tensor says so wherever it is used", function()
  local t, other = kiln.ones(2), kiln.ones(2)
  t:release()
  equal(tostring(t), "a tensor that was released")
  equal(kiln.is_tensor(t), false)
  local gone = "got a tensor that was released"
  raises(function() return t + 1 end, here(), "add: input 1", gone)
  raises(function() return other:add_(t) end, here(), "add_: input 2", gone)
  raises(function() return t.shape end, here(), gone)
  raises(function() return t:sum() end, here(), "sum: ", gone)
  raises(function() return t[1] end, here(), gone)
  raises(function() t[1] = 2 end, here(), gone)
  raises(function() other[1] = t end, here(), gone)
  raises(function() t.requires_grad = true end, here(), gone)
  raises(function() return #t end, here(), gone)
  raises(function() return t:backward() end, here(), gone)
  raises(function() return t:totable() end, here(), gone)
  raises(function() return kiln.cat { other, t } end, here(), "cat: entry 2", gone)
  raises(function() return kiln.grad(other, { t }) end, here(), gone)
  raises(function() return kiln.script(function(a) return a * 2 end)(t) end, gone)
end)

test("<close> releases at the end of the block, also after an error", function()
  local before = settle().tensors
  local kept
  do
    local t <close> = kiln.ones(2)
    kept = t
    equal(kiln.memory_stats().tensors, before + 1)
  end
  equal(kiln.memory_stats().tensors, before)
  raises(function() return kept + 1 end, "released")
  pcall(function()
    local t <close> = kiln.ones(2)
    kept = t
    error "stop"
  end)
  raises(function() return kept + 1 end, "released")
end)

test("a limit is an error that names the op and the bytes, and nothing else changes", function()
  limited(MB, function()
    local a = kiln.ones(100, 1000)
    raises(function() return a + kiln.ones(100, 1000):expand(3, 100, 1000) end, here(), "add: out of memory: wanted 1200000 more bytes with ",
      " in use and a limit of ")
    raises(function() return kiln.zeros(1000, 1000) end, here(), "zeros", "out of memory")
    raises(function() return a:matmul(kiln.ones(1000, 1000)) end, "out of memory")
    equal(a:sum():item(), 100000.0)
    equal(kiln.ones(1000):sum():item(), 1000.0)
  end)
  equal(kiln.ones(1000, 1000):sum():item(), 1e6)
end)

test("the limit reads back, and may be lower than what is in use", function()
  equal(kiln.set_memory_limit(10 * MB), nil)
  equal(kiln.memory_stats().limit, 10 * MB)
  equal(kiln.set_memory_limit(1), 10 * MB)
  raises(function() return kiln.ones(1) end, here(), "out of memory")
  equal(kiln.set_memory_limit(nil), 1)
  equal(kiln.set_memory_limit(nil), nil)
  for _, bad in ipairs { 0, -5, 1.5, "10", true, {} } do
    raises(function() kiln.set_memory_limit(bad) end, here(), "set_memory_limit: a number of bytes of at least 1, or nil for no limit")
  end
  raises(function() kiln.set_memory_limit() end, here(), "or nil for no limit, is needed")
end)

test("garbage is never why memory runs out", function()
  for _, how in ipairs { "restart", "stop" } do
    collectgarbage(how)
    limited(3 * MB, function()
      for _ = 1, 50 do kiln.ones(1000, 250) end -- 1 MB each, dropped
      for _ = 1, 10000 do kiln.ones(4) end
      local w = kiln.ones(1000):requires_grad_()
      for _ = 1, 500 do local _ = (w * 2):sum() end
      local g = kiln.script(function(x) return x:reshape(-1) * 2 + 1 end)
      for _ = 1, 30 do g(kiln.ones(1000, 100)) end
    end)
    collectgarbage "restart"
  end
end)

test("finalizers that run because memory is short must leave kiln alone", function()
  local said
  limited(MB, function()
    for _ = 1, 5 do
      setmetatable({}, { __gc = function() said = { pcall(function() return kiln.ones(2) end) } end })
      collectgarbage "stop"
      for _ = 1, 3 do kiln.ones(100, 1000) end
      collectgarbage "restart"
    end
  end)
  truth(said, "the finalizer ran")
  if not said[1] then truth(said[2]:find("cannot be used by a finalizer", 1, true), said[2]) end
  equal(kiln.ones(2):sum():item(), 2.0)
end)

test("no address space is an error like a limit", function()
  raises(function() return kiln.empty(1 << 50) end, here(), "out of memory: wanted 4503599627370496 more bytes with ")
  raises(function() return kiln.ones(2):expand(1 << 49, 2):clone() end, here(), "clone: out of memory")
  equal(kiln.ones(3):sum():item(), 3.0)
end)
