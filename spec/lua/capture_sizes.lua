-- Budgets: how large graphs get in the shapes of control flow that programs are made of, how long capture takes and how much
-- memory, and that what is too much is refused with the line of the loop. Sizes are counted, so they are the same everywhere.
local check = require "check"
local test, truth, raises = check.test, check.truth, check.raises
local T = kiln.tensor

local function captured(f, ...)
  local g = kiln.script(f)
  g(...)
  return g
end

-- A function written by a program: the body is n pieces, made by piece(i), between what stands before and after.
local function write(n, before, piece, after)
  local lines = { before }
  for i = 1, n do lines[#lines + 1] = piece(i) end
  lines[#lines + 1] = after
  return assert(load(table.concat(lines, "\n")))()
end

local x = T { 0.5, -1, 2, 0.25 }
local function nodes(f) return #captured(f, x):nodes() end

-- The graphs of n and 2 n pieces: twice as large and no more, and at most `most` nodes a piece.
local function linear(name, n, most, make)
  test(name, function()
    local small, large = nodes(make(n)), nodes(make(2 * n))
    truth(large <= 2.15 * small, ("%d nodes become %d"):format(small, large))
    truth(large / (2 * n) <= most, ("%.1f nodes a piece"):format(large / (2 * n)))
  end)
end

linear("if after if", 20, 11, function(n)
  return write(n, "return function(x) local s = x", function(i)
    return ("if (x + %d):sum() > %d then s = s + %d else s = s * 0.5 end"):format(i, i, i)
  end, "return s end")
end)
linear("return after return", 20, 12, function(n)
  return write(n, "return function(x)", function(i)
    return ("if (x + %d):sum() < %d then return x * %d end"):format(i, i, i)
  end, "return x end")
end)
linear("nested ifs with a return", 10, 26, function(n)
  return write(n, "return function(x) local s = x", function(i)
    return ("if s:sum() > %d then if s:mean() > %d then return s * %d end s = s + 1 else s = s - 1 end"):format(i, i, i)
  end, "return s end")
end)
linear("elseif with and", 8, 24, function(n)
  return write(n, "return function(x) local s = x if x:sum() > 100 then s = s + 1", function(i)
    return ("elseif x:sum() > %d and x:mean() > %d then s = s + %d"):format(-i, -i, i)
  end, "end return s end")
end)
linear("a value that is nil at first", 5, 18, function(n)
  return write(n, "return function(x) local a", function(i)
    return ("if (x * %d):sum() > 0 then if a then a = a + x else a = x end end"):format(i)
  end, "return a or x end")
end)
linear("loops one after the other", 10, 16, function(n)
  return write(n, "return function(x) local s = x", function(i)
    return ("while s:sum() > %d do s = s * 0.5 end"):format(i)
  end, "return s end")
end)
linear("records written on both sides", 10, 16, function(n)
  return write(n, "return function(x) local t = { h = x, n = 0 }", function(i)
    return ("if t.h:sum() > %d then t.h = t.h * 0.5 t.n = t.n + 1 else t.h = t.h + 1 end"):format(i)
  end, "return t.h, t.n end")
end)

test("an unrolled for with two breaks", function()
  local function make(n)
    return write(1, "return function(x) local s = x for i = 1, " .. n .. " do", function()
      return "s = s + x * i if s:sum() > 20 then break end if s:mean() < -3 then s = -s break end"
    end, "end return s end")
  end
  local eight, fifteen, long = nodes(make(8)), nodes(make(15)), nodes(make(400))
  truth(fifteen <= 2.15 * eight and eight <= 180, ("%d, %d"):format(eight, fifteen))
  truth(long <= 60, ("a long one is a loop: %d nodes"):format(long))
end)

test("unrolled loops in each other with a break", function()
  local function make(n)
    return load(([[return function(x)
      local s = x
      for i = 1, %d do
        for j = 1, %d do
          s = s + x * (i * j)
          if s:sum() > 25 then break end
        end
      end
      return s
    end]]):format(n, n))()
  end
  local four, eight = nodes(make(4)), nodes(make(8))
  truth(eight <= 4.6 * four and eight <= 1000, ("%d become %d, of 4 times as many trips"):format(four, eight))
end)

-- ---- time and memory ----

local function best(f, times)
  local least = math.huge
  for _ = 1, times do
    local start = kiln.clock()
    f()
    least = math.min(least, kiln.clock() - start)
  end
  return least
end

test("a function of a thousand nodes is captured in milliseconds", function()
  local straight = write(500, "return function(x) local s = x", function(i) return ("s = (s + %d):tanh()"):format(i) end, "return s end")
  local branchy = write(100, "return function(x) local s = x", function(i)
    return ("if (s + %d):sum() > %d then s = s + %d else s = s * 0.5 end"):format(i, i, i)
  end, "return s end")
  for name, f in pairs { straight = straight, branchy = branchy } do
    local n = nodes(f)
    truth(n >= 700, name .. " " .. n)
    local took = best(function() kiln.script(f, { inputs = { kiln.spec("float32", { 4 }) } }) end, 5) * 1e3 / n * 1000
    truth(took < 150, ("%s: %.1f ms for 1000 nodes"):format(name, took)) -- about 5 on a busy machine
  end
end)

test("ipairs over 2,000 entries is unrolled in time and memory", function()
  local list = {}
  for i = 1, 2000 do list[i] = T { i * 0.001, 1, 0, -1 } end
  local function f(y)
    local s = y
    for i, w in ipairs(list) do
      s = s + w * i
      if s:sum() > 1e9 then return s, i end
    end
    return s, 0
  end
  kiln.reset_peak_memory_stats()
  local start, before = kiln.clock(), kiln.memory_stats().allocated
  local g = kiln.script(f, { inputs = { kiln.spec("float32", { 4 }) } })
  local took, peak = kiln.clock() - start, kiln.memory_stats().peak - before
  truth(#g:nodes() < 40000, #g:nodes() .. " nodes")
  truth(peak < 100e6, ("%.0f MB"):format(peak / 1e6))
  truth(took < 10, ("%.2f s"):format(took))
  local a, i = f(x)
  local b, k = g(x)
  check.equal(b:totable(), a:totable())
  check.equal(k, i)
end)

-- ---- refusals name the loop ----

local function line_of(f) return debug.getinfo(f, "S").linedefined end

test("a loop that takes too many trips", function()
  local function f(y)
    local t = {}
    local k = 0

    while k < 10000000 do
      k = k + 1
      t[k % 7] = k
    end
    return y + k
  end
  raises(function() captured(f, x) end, (":%d: "):format(line_of(f) + 4), "line " .. line_of(f) + 4)
end)

test("a loop that unrolls to too many nodes", function()
  local t = {}
  for i = 1, 200100 do t[i] = 1 end
  local function f(y)
    local s = y

    for _, v in ipairs(t) do
      s = s + v
    end
    return s
  end
  raises(function() captured(f, x) end, "capture_sizes.lua:", "line " .. line_of(f) + 3)
end)
