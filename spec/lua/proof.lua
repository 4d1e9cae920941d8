-- The 54 problems that the proof of bytecode capture was made with, each as a function of our own: on many inputs (ties,
-- zeros of both signs, infinities, nan, sizes from none to seven), eager beside captured, with names and lines and without.
-- What is compared stands in capture_compare.lua. The number before a name counts the problems.
local check = require "check"
local compare = require "capture_compare"
local T = kiln.tensor

local ticked = 0
local sizes = { 4, 4, 1, 2, 3, 7, 0 }

-- Eager loops that double or halve would not end for infinities: `finite`.
local function proof(number, name, letters, f, options)
  ticked = ticked + 1
  check.test(("%d in its place"):format(number), function() check.equal(ticked, number) end)
  local o = { runs = 120, bare = 30, sizes = sizes }
  for k, v in pairs(options or {}) do o[k] = v end
  compare.case(("%d, %s"):format(number, name), f, letters, o)
end

-- ---- branches ----

proof(1, "three arms", "TT", function(a, b)
  local out
  local s = a:sum()
  if s >= 1.5 then out = a - b elseif s >= -0.5 then out = a * b + 1 else out = b:neg() end
  return out
end)

proof(2, "an if in an if, and a second condition where the first fails", "TT", function(a, b)
  local out = a + 0.5
  if a:mean() >= 0 then
    if b:mean() >= 0 then out = out * b else out = out - b end
    out = out / 2
  elseif not (b:sum() <= 0) then
    out = out:sigmoid()
  end
  return out
end)

proof(3, "three ways out with their numbers", "T", function(a)
  if a:sum() >= 0.5 then return a, "first", 1 end
  local up = a:exp()
  if up:sum() >= 3 then return up, "second", 2.0 end
  return a - up, "third", 3
end)

proof(4, "a return inside nested ifs, code after them", "TT", function(a, b)
  local scale = 1
  if a:sum() > 0 then
    if b:sum() >= a:sum() then return b end
    scale = 3
  else
    scale = -1
  end
  local out = a * scale
  return out - b, scale
end)

proof(5, "and, or and not as values", "TT", function(a, b)
  local both = a:sum() >= 0 and b:sum() >= 0
  local pick = both and b or a
  local factor = (a:mean() > 0.5 or b:mean() > 0.5) and 0.25 or 4
  return pick * factor, both, not both, factor
end)

proof(6, "arms whose conditions are conjunctions and disjunctions", "TT", function(a, b)
  local s, u = a:sum(), b:sum()
  if s > 0 and u > 0 then a = a * 2
  elseif s < -1 and u < -1 then a = a / 2
  elseif s > 1 or u > 1 then a = a - b
  else a = a:abs() end
  return a
end)

-- ---- loops on data ----

proof(7, "a while with a way out in its body", "T", function(a)
  local trips = 0
  while a:abs():sum() > 0.25 do
    a = a / 4
    trips = trips + 1
    if a:mean() < 0.01 then break end
  end
  return a, trips
end, { finite = true })

proof(8, "a while with two ways out, and nil until one is taken", "TT", function(a, b)
  local left, found = 8, nil
  while b:abs():sum() > 0.5 do
    b = b * 0.75
    left = left - 1
    if left == 0 then found = b break end
    if (a - b):sum() > 2 then found = a left = -left break end
    a = a + 0.5
  end
  if found == nil then found = a * b end
  return found, left
end)

proof(9, "while true, left by a return", "T", function(a)
  local grown, trips = a * a + 0.25, 0
  while true do
    if grown:sum() >= 30 or grown:sum() ~= grown:sum() or trips == 12 then return grown, trips end
    grown = grown * 3
    trips = trips + 1
  end
end)

proof(10, "repeat whose condition reads a local of the body", "T", function(a)
  local trips = 0
  repeat
    local size = a:abs():sum()
    a = a * 2 - 0.125
    trips = trips + 1
  until size >= 8 or trips > 9
  return a, trips
end)

proof(11, "a while in a while, with a budget", "T", function(a)
  local outer, inner = 0, 0
  while outer < 4 do
    outer = outer + 1
    local part = a
    while part:abs():sum() > 0.5 do
      part = part * 0.25
      inner = inner + 1
      if inner >= 25 then break end
    end
    a = a - part
  end
  return a, outer, inner
end)

-- ---- numeric for ----

proof(12, "for, left when the sum is large", "T", function(a)
  local total = a * 0
  for i = 1, 6 do
    total = total + a * i * i
    if total:sum() > 12 then break end
  end
  return total
end)

proof(13, "for with a thousand trips", "T", function(a)
  local total = a - a
  for i = 1, 1000 do total = total * 0.5 + a / i end
  return total
end, { runs = 40, bare = 8 })

proof(14, "for downwards, and in quarters", "T", function(a)
  local total = a + 1
  for i = 9, 0, -4 do total = total * 0.5 - i end
  for v = 1.0, 0.0, -0.25 do total = total + v end
  for v = 2.0, 1.0, 0.5 do total = total * v end
  return total
end)

proof(15, "for up to and down from a number given", "TI", function(a, n)
  local total, k = a * 1, 0
  for i = 0, n do total = total - i end
  for i = n, -1, -3 do total = total + a * i k = k + i end
  return total, k
end)

proof(16, "for whose bounds are floats given", "TF", function(a, v)
  local total, trips = a * 1, 0
  for i = 1, v * 3 do total = total + i trips = trips + 1 end
  for w = -1.5, v do total = total - w trips = trips + 1 end
  for w = v, v + 1, 0.5 do trips = trips + 1 total = total + w end
  return total, trips
end)

proof(17, "ipairs over a list, pairs over a record", "T", function(a)
  local total = a * 0
  for i, part in ipairs { a, a - 1, a * a } do total = total * 0.5 + part * i end
  local weights, sum, keys = { first = 2, second = 0.5 }, 0, 0
  for _, w in pairs(weights) do sum = sum + w keys = keys + 1 end
  return total * sum, keys
end)

-- ---- closures ----

proof(18, "a counter by reference, counted differently on each side", "T", function(a)
  local balance = 10
  local function take(k)
    balance = balance - k
    return balance
  end
  if a:sum() > 0 then take(3) else take(1) take(1) end
  local last = take(0.5)
  return a * balance, balance, last
end)

proof(19, "closures that a loop makes, each with its own local", "T", function(a)
  local steps = {}
  for i = 1, 4 do
    local calls = 0
    steps[#steps + 1] = function(v)
      calls = calls + i
      return v * 0.5 + calls
    end
  end
  local out = a
  for _ = 1, 2 do
    for _, step in ipairs(steps) do out = step(out) end
  end
  return out
end)

proof(20, "a closure called by a while", "T", function(a)
  local log = { total = 0 }
  local function note(k) log.total = log.total * 2 + k end
  while a:abs():sum() > 0.25 do
    a = a * 0.25
    note(1)
  end
  return a, log.total
end, { finite = true })

proof(21, "another function on each side, over an upvalue set later", "TT", function(a, b)
  local k, f = 2, nil
  if a:sum() > b:sum() then
    f = function(v) return v - k end
  else
    f = function(v) return v / k end
  end
  k = 5
  return f(a), f(b)
end)

proof(22, "one maker on both sides, over another tensor", "TT", function(a, b)
  local function over(base) return function(v) return v + base * 2 end end
  local f
  if b:sum() > 0 then f = over(b) else f = over(a) end
  return f(a) - f(b)
end)

proof(23, "recursion by halves", "T", function(a)
  local function power(base, n)
    if n == 0 then return base * 0 + 1 end
    local half = power(base, n // 2)
    local square = half * half
    return n % 2 == 1 and square * base or square
  end
  return power(a, 11), power(a, 1)
end)

-- ---- tables ----

proof(24, "fields written on one side, in tables in tables", "TT", function(a, b)
  local st = { seen = 0, at = { b, note = { k = 1 } }, v = a }
  if a:sum() > 0 then
    st.v = st.v * b
    st.at.note.k = st.at.note.k + 1
  else
    st.at[1] = a
    st.extra = b
    st.extra = nil
    st.seen = 1
  end
  return st.v - st.at[1], st.at.note.k, st
end)

proof(25, "a table made on each side, changed afterwards", "TT", function(a, b)
  local r
  if a:sum() >= 0 then r = { v = a, more = { 10, a } } else r = { v = b, more = { 20, b } } end
  r.v = r.v * 2
  local more = r.more
  more[1] = more[1] + 1
  return r.v, more[1], more[2], r.more == more
end)

proof(26, "a while that makes a new record each trip", "T", function(a)
  local st = { h = a, n = 0, sum = 0.0 }
  while st.h:abs():sum() > 0.125 do
    st = { h = st.h / 8, n = st.n + 1, sum = st.sum + 0.5 }
  end
  return st.h, st.n, st.sum
end, { finite = true })

proof(27, "a while that changes a record by another name", "T", function(a)
  local st = { h = a, n = 0, { last = a * 0 } }
  local same = st
  while same.h:abs():sum() > 0.5 do
    st.h = st.h * 0.25
    same.n = same.n + 2
    st[1].last = same.h - 1
  end
  return st.h, same.n, same[1].last, st == same
end, { finite = true })

-- ---- nil, and values of other kinds ----

proof(28, "a mask that may not be there", "TT", function(a, b)
  local mask
  if b:sum() > 0 then mask = b:gt(0):to(b.dtype) end
  local out = a * 2
  if mask then out = out * mask end
  if mask == nil then out = out + 1 end
  return out
end)

proof(29, "a result that may be nil, a number or a string", "TT", function(a, b)
  local maybe
  if a:sum() > 0 then maybe = b + 0 end
  return maybe, a:sum() > 1 and 7 or a:sum() > 0 and 7.0 or "low"
end)

proof(30, "nil before the first trip", "T", function(a)
  local state, n = nil, 0
  while n < 3 or a:abs():sum() > 2 do
    if state then state = state * 0.5 + a else state = a - 1 end
    a = a * 0.5
    n = n + 1
  end
  return state, n
end, { finite = true })

-- ---- varargs and several values ----

proof(31, "varargs, counted, selected, summed and passed on", "TTT", function(...)
  local function total(...)
    local sum = select(1, ...)
    for i = 2, select("#", ...) do sum = sum * 2 + (select(i, ...)) end
    return sum, ...
  end
  local all = { ... }
  local sum, first = total(...)
  return sum, first, #all, select("#", ...), total(all[3], all[2], 0.5)
end)

proof(32, "a swap, when the wrong one is larger", "TT", function(a, b)
  local lo, hi = a, b
  for _ = 1, 4 do
    if lo:sum() > hi:sum() then lo, hi = hi, lo - 1 end
  end
  return lo, hi
end)

proof(33, "a swap in each trip of a while", "TT", function(a, b)
  local p, q, n = a, b, 0
  while (p - q):abs():sum() > 1 and n < 15 do
    p, q = q, p * 0.5 + q * 0.25
    n = n + 1
  end
  return p, q, n
end)

-- ---- goto ----

proof(34, "goto the end of the trip, from two places", "T", function(a)
  local out = a * 1
  for i = 1, 7 do
    if i % 3 == 0 then goto next end
    if (out + i):sum() > 18 then goto next end
    out = out + a * i
    ::next::
  end
  return out
end)

proof(35, "a loop made of goto", "T", function(a)
  local n = 0
  ::again::
  n = n + 1
  a = a * 0.25
  if a:abs():sum() > 0.5 and n < 30 then goto again end
  return a, n
end)

proof(36, "the next trip by goto, the end by break", "T", function(a)
  local n, kept = 0, a * 0
  while n < 20 do
    n = n + 1
    a = a * 0.75
    if a:sum() > 0.5 then goto skip end
    kept = kept + a
    if kept:sum() < -3 then break end
    ::skip::
  end
  return kept, a, n
end)

-- ---- numbers out of tensors ----

proof(37, "items in arithmetic, floors, minima", "T", function(a)
  local v = a:sum():item()
  local w = v * 3 - 1
  if w < v then w = w + v end
  if w == v then w = 0.0 end
  return a * w, math.floor(v) // 3, math.min(v, w, 1), v % 2, -v
end, { sizes = { 4, 1, 2, 7, 0 } })

proof(38, "what is true: tensors, numbers, handles", "T", function(a)
  local v, code = a:sum():item(), 0
  if a then code = code | 1 end
  if v then code = code | 2 end
  if a == 1 then code = code | 4 end
  if a ~= nil then code = code | 8 end
  if a == a then code = code | 16 end
  if not v then code = code | 32 end
  return code, v == v
end)

proof(39, "tensors compared: the same one or not", "TT", function(a, b)
  local c = b
  if a == b then return "same" elseif a:abs() == a:abs() then return "equal" elseif c == b then return "alias", c end
  return "other"
end)

proof(40, "an integer on one side, a float on the other", "T", function(a)
  local k
  if a:sum() < 0 then k = 3 else k = 0.5 end
  return a * k, k * 2, k, k // 1
end)

-- ---- effects ----

proof(41, "in place on one argument or the other way, seen by two names", "TT", function(a, b)
  local alias = a
  if b:sum() > 0 then a:sub_(b) else alias:mul_(3) end
  return alias * 2, alias == a
end)

proof(42, "a draw on one side only", "T", function(a)
  local noise = kiln.rand(2)
  if a:sum() > 0 then noise = noise * kiln.randn(2) end
  return noise, kiln.rand(1)
end)

proof(43, "errors and assertions on data", "T", function(a)
  local s = a:sum()
  if s >= 2 then error "above" end
  assert(s >= -2, "below")
  if s >= 1.5 then error("near", 0) end
  if s >= 2 then return "never" end
  return a - 1
end)

proof(44, "insert, remove, unpack", "TT", function(a, b)
  local l = { b }
  table.insert(l, a)
  table.insert(l, 1, a + b)
  l[#l + 1] = 5
  local first = table.remove(l, 1)
  return first, #l, table.unpack(l)
end)

proof(45, "strings told apart", "T", function(a)
  local mood = "flat"
  if a:sum():item() > 0 then mood = "up" elseif a:sum():item() < 0 then mood = "down" end
  local out
  if mood == "up" then out = a elseif mood == "down" then out = -a else out = a * 0 end
  return out, mood
end)

-- ---- classes ----

local function network()
  local Layer = {}
  Layer.__index = Layer
  Layer.__call = function(self, v) return self:apply(v) end
  function Layer:apply(v)
    self.calls = self.calls + 1
    return v * self.w + self.b
  end
  local function layer(w, b)
    return setmetatable({ w = T { w }:requires_grad_(), b = T { b }:requires_grad_(), calls = 0 }, Layer)
  end
  local Chain = setmetatable({}, { __call = function(class, ...) return setmetatable({ parts = { ... } }, class) end })
  Chain.__index = Chain
  Chain.__call = function(self, v)
    for _, part in ipairs(self.parts) do v = part(v) end
    return v
  end
  local first, last = layer(0.75, -0.25), layer(-1.5, 0.5)
  local net = Chain(first, function(v) return v:tanh() end, last)
  local function f(a)
    local out = net(a)
    if out:mean() > 0 then out = net(out) end
    return out
  end
  local function outside() return first.w, first.b, last.w, last.b, first.calls, last.calls end
  return f, outside
end

proof(46, "layers in a chain, with weights outside and gradients to them", "T", network, { make = true })

proof(47, "a class with arithmetic, made inside", "T", function(a)
  local Pair = {}
  Pair.__index = Pair
  local function pair(v, n) return setmetatable({ v = v, n = n }, Pair) end
  Pair.__sub = function(p, q) return pair(p.v - q.v, p.n + q.n) end
  Pair.__mul = function(p, k) return pair(p.v * k, p.n) end
  function Pair:value() return self.v * self.n end
  local p, q = pair(a, 1), pair(a * 0.5, 2)
  local r = p - q * 3
  if a:sum() > 0 then r = r - p end
  return r:value(), r.n
end)

proof(48, "an iterator that is a closure", "T", function(a)
  local function backwards(list)
    local i = #list + 1
    return function()
      i = i - 1
      if i > 0 then return i, list[i] end
    end
  end
  local out = a
  for i, v in backwards { a, a * 2, a - 3 } do out = out * 0.5 + v * i end
  return out
end)

proof(49, "an error that is never reached", "T", function(a)
  local parts = { w = a, b = 2 }
  local function part(name) return parts[name] or error("no part " .. name) end
  return part "w" * part "b"
end)

proof(50, "functions by their names", "T", function(a)
  local table_of = {
    square = function(v) return v * v end,
    less = function(v) return v - 0.5 end,
    soft = function(v) return v:tanh() end,
  }
  local out = a
  for _, name in ipairs { "less", "square", "soft", "less" } do out = table_of[name](out) end
  return out
end)

-- ---- searches ----

proof(51, "a flag that ends a while", "T", function(a)
  local done, n = false, 0
  while not done do
    a = a * 0.6
    n = n + 1
    if a:abs():sum() <= 0.5 then done = true elseif n == 7 then done = true end
  end
  return a, n, done
end)

proof(52, "the first that is large enough, or nil", "T", function(a)
  local found
  for i = 1, 5 do
    if not found and (a * i):sum() >= 3 then found = i end
  end
  return found
end)

proof(53, "a search by halves between numbers given", "TFF", function(a, lo, hi)
  for _ = 1, 7 do
    local mid = lo + (hi - lo) / 2
    if a:mean():item() >= mid then lo = mid else hi = mid end
  end
  return lo, hi, hi - lo
end)

proof(54, "out of two loops at once, by goto", "T", function(a)
  local total, n = a * 0, 0
  for i = 1, 4 do
    for j = i, 4 do
      total = total + a * (i + j)
      n = n + 1
      if total:sum() >= 15 then goto done end
    end
    total = total - 1
  end
  ::done::
  return total, n
end)

check.test("all 54 are there", function() check.equal(ticked, 54) end)
