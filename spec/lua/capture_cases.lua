-- Capture, many small cases: each runs eagerly and captured on the same inputs (ties, zeros and nan among them), and once
-- more as bytecode without names or lines. What is compared stands in capture_compare.lua.
local check = require "check"
local compare = require "capture_compare"
local T = kiln.tensor
local count = 0

-- `letters` says the arguments: T tensor of 4, F float, I integer, B boolean.
local function case(name, letters, f, options)
  count = count + 1
  compare.case(name, f, letters, options)
end

-- ---- branches ----
case("if without else", "T", function(x) if x:sum() > 0 then x = x * 2 end return x end)
case("if not", "T", function(x) if not (x:sum() > 0) then return -x end return x end)
case("if with an empty side", "T", function(x) if x:mean() > 0 then else x = x + 1 end return x end)
case("three ifs in each other", "TTT", function(a, b, c)
  if a:sum() > 0 then if b:sum() > 0 then if c:sum() > 0 then return a + b + c end return a + b end return a end
  return c
end)
case("five arms", "T", function(x)
  local s = x:sum()
  if s > 3 then return x, 1 elseif s > 1 then return x * 2, 2 elseif s > 0 then return x * 3, 3 elseif s > -2 then return x * 4, 4 end
  return x * 5, 5
end)
case("and with three parts", "TTT", function(a, b, c) if a:sum() > 0 and b:sum() > 0 and c:sum() > 0 then return a end return b end)
case("or with three parts", "TTT", function(a, b, c) if a:sum() > 1 or b:sum() > 1 or c:sum() > 1 then return a end return c end)
case("and or mixed", "TT", function(a, b) if a:sum() > 0 and (b:sum() > 0 or b:mean() < -1) then return a * b end return a + b end)
case("a condition as a value", "TT", function(a, b) local c = a:sum() > b:sum() return c, not c, c == true, c ~= false end)
case("conditions compared", "TT", function(a, b) local c, d = a:sum() > 0, b:sum() > 0 return c == d, c ~= d end)
case("and gives the second", "TT", function(a, b) local v = a:sum() > 0 and b return v and v + 1 or a end)
case("or gives a default", "T", function(x) local v = x:sum() > 0 and 2 or 3 return x * v, v end)
case("nil or false", "T", function(x) local v if x:sum() > 1 then v = false end if v == nil then return 1 end return 2 end)
case("a flag decides later", "TT", function(a, b) local big = a:sum() > 1 local y = b * 2 if big then y = y - a end return y end)
case("the same condition twice", "T", function(x)
  local c = x:sum() > 0
  local y = x
  if c then y = y + 1 end
  y = y * 2
  if c then y = y - 1 end
  return y
end)
case("contradicting conditions", "T", function(x)
  local c, t = x:sum() > 0, nil
  if c then t = x end
  if not c then t = -x end
  return t + 0
end)
case("le and ge at ties", "T", function(x) local s = x[1] return s <= 0, s >= 0, s < 0, s > 0 end)
case("a tensor against an integer", "T", function(x) if x[1] > 0 then return 1 elseif x[1] < 0 then return -1 end return 0 end)
case("two tensors compared", "TT", function(a, b) if a[1] < b[1] then return a elseif a[1] <= b[1] then return b end return a + b end)
case("any and all", "T", function(x) if x:gt(0):all():item() then return 2 elseif x:gt(0):any():item() then return 1 end return 0 end)
case("a condition on a size", "T", function(x) if x:size(1) > 3 then return x * 2 end return x end)
case("a condition on a boolean argument", "TB", function(x, b) if b and x:sum() > 0 then return x end return b end)
case("conditions on numbers", "FI", function(f, i) if f > i then return f elseif f == i then return 0 end return i end)
case("min and max by hand", "TT", function(a, b) local m = a:sum() if b:sum() > m then m = b:sum() end return m end)
case("clamp by hand", "F", function(v) if v > 1 then v = 1.0 elseif v < -1 then v = -1.0 end return v end)
case("sign by hand", "T", function(x) local s = x:sum():item() return s > 0 and 1 or s < 0 and -1 or 0 end)

-- ---- early exits ----
case("return from both sides", "T", function(x) if x:sum() > 0 then return 1, x else return 2, -x end end)
case("return out of a for", "T", function(x) for i = 1, 4 do if (x * i):sum() > 4 then return i end end return 0 end)
case("return out of two fors", "T", function(x)
  for i = 1, 3 do for j = 1, 3 do if (x * i + j):sum() > 20 then return i, j end end end
  return 0, 0
end)
case("return out of a while", "T", function(x)
  local n = 0
  while n < 9 do n = n + 1 if (x * n):sum() > 6 then return n end end
  return -1
end)
case("return without values", "T", function(x) local function f(v) if v:sum() > 0 then return end return end return select("#", f(x)) end)
case("do blocks", "T", function(x) do local y = x if y:sum() > 0 then return y end end do return x - 1 end end)

-- ---- loops ----
case("while that may not run", "T", function(x) local n = 0 while x:sum() > 2 do x = x - 1 n = n + 1 end return x, n end, { finite = true })
case("while with and", "T", function(x) local n = 0 while n < 6 and x:sum() > 0.1 do x = x * 0.5 n = n + 1 end return x, n end)
case("while with or", "T", function(x) local n = 0 while n < 2 or x:sum() > 8 do x = x * 0.5 n = n + 1 if n > 30 then break end end return x, n end)
case("repeat once at least", "T", function(x) local n = 0 repeat x = x * 0.5 n = n + 1 until x:sum() < 1 or n > 9 return x, n end)
case("repeat sees its locals", "T", function(x) local n = 0 repeat n = n + 1 local y = x * n until y:sum() > 3 or n == 5 return n end)
case("while true with break", "T", function(x) local n = 0 while true do n = n + 1 x = x + 1 if x:sum() > 6 or n > 9 then break end end return x, n end)
case("a while in a while", "TT", function(x, y)
  local n = 0
  while x:sum() > 1 and n < 20 do
    x = x * 0.5
    n = n + 1
    while y:sum() > 1 and n < 20 do y = y * 0.7 n = n + 1 end
  end
  return x, y, n
end)
case("a while in a for", "T", function(x)
  local n = 0
  for _ = 1, 3 do while x:sum() > 1 and n < 30 do x = x * 0.6 n = n + 1 end x = x * 2 end
  return x, n
end)
case("a for in a while", "T", function(x)
  local n = 0
  while x:sum() > 2 and n < 8 do for i = 1, 2 do x = x * (0.4 * i) end n = n + 1 end
  return x, n
end)
case("an if in a while", "T", function(x)
  local n, ups = 0, 0
  while n < 6 do if x:sum() > 1 then x = x * 0.5 else x = x + 1 ups = ups + 1 end n = n + 1 end
  return x, ups
end)
case("a while on a number", "TF", function(x, f) local n = 0 while f > 0.1 do f = f / 2 n = n + 1 end return x * n, f end)
case("for up to a free number", "TI", function(x, n) for i = 1, n do x = x + i end return x end)
case("for down from a free number", "TI", function(x, n) local k = 0 for i = n, -2, -1 do k = k + i end return x * k end)
case("for with a step of two", "TI", function(x, n) local k = 0 for i = 0, n, 2 do k = k * 2 + i end return k, x end)
case("for over floats", "T", function(x) local s = 0 for v = 0, 1, 0.25 do s = s + v end return x + s end)
case("for that never runs", "T", function(x) for i = 3, 1 do x = x * i end return x end)
case("for over a size", "T", function(x) local s = 0 for i = 1, #x do s = s + x[i] * i end return s end)
case("for over a size with a break", "T", function(x) local n = 0 for i = 1, x:size(1) do if x[i] > 1 then break end n = n + 1 end return n end)
case("for whose limit is an item", "T", function(x)
  local n, s = x:gt(0):sum():item(), 0
  for i = 1, n do s = s + i end
  return s
end)
case("the loop variable is its own", "T", function(x) for i = 1, 3 do local j = i i = i * 10 x = x + i + j end return x end)
case("ipairs over a table of tensors", "TTT", function(a, b, c) local s = a * 0 for i, v in ipairs { a, b, c } do s = s + v * i end return s end)
case("ipairs that leaves early", "TTT", function(a, b, c) for i, v in ipairs { a, b, c } do if v:sum() > 1 then return i, v end end return 0, a end)
case("pairs over a record", "TT", function(a, b) local s = 0 for k, v in pairs { u = a } do s = s + v:sum():item() if k == "u" then s = s + b:sum():item() end end return s end)
case("next by hand", "T", function(x) local k, v = next { only = 3 } return x * v, k end)
case("a loop that swaps", "TT", function(a, b) local n = 0 while n < 5 do if a:sum() > b:sum() then a, b = b, a + 0.5 else a = a + 1 end n = n + 1 end return a, b end)
case("fibonacci of tensors", "TT", function(a, b) for _ = 1, 6 do a, b = b, a + b end return b end)
case("collatz", "I", function(n)
  if n < 1 then return 0 end
  local steps = 0
  while n ~= 1 and steps < 40 do if n % 2 == 0 then n = n // 2 else n = 3 * n + 1 end steps = steps + 1 end
  return steps
end)
case("power iteration", "T", function(x)
  local m = T { { 2.0, 1, 0, 0 }, { 1, 3, 0, 0 }, { 0, 0, 1, 0 }, { 0, 0, 0, 1 } }
  local n = 0
  repeat
    local y = m:matmul(x)
    local size = y:abs():amax()
    if size <= 1e-6 or size ~= size then break end
    x = y / size
    n = n + 1
  until n >= 5
  return x, n
end)
case("a running best", "TT", function(a, b)
  local best, at = a, 0
  for i = 1, 5 do local y = a + b * (i * 0.3) if y:sum() > best:sum() then best, at = y, i end end
  return best, at
end)
case("count and total", "T", function(x) local n, t = 0, 0 for i = 1, #x do local v = x[i]:item() if v > 0 then n = n + 1 t = t + v end end return n, t end)
case("a nil carry", "T", function(x) local last local n = 0 while n < 4 do if x:sum() > n then last = x * n end n = n + 1 end if last then return last end return n end)
case("a boolean carry", "T", function(x) local odd = false local n = 0 while x:sum() > 0.5 and n < 9 do x = x * 0.6 odd = not odd n = n + 1 end return odd, n end)
case("an integer that becomes a float", "T", function(x) local k, n = 1, 0 while x:sum() > 1 and n < 5 do k = k * 1.5 x = x * 0.5 n = n + 1 end return k end)

-- ---- goto ----
case("continue", "T", function(x) for i = 1, 5 do if (x + i):sum() > 8 then goto next end x = x + 0.5 ::next:: end return x end)
case("goto forward", "T", function(x) if x:sum() > 0 then goto done end x = -x ::done:: return x end)
case("goto out of two loops", "T", function(x)
  local n = 0
  for i = 1, 3 do for j = 1, 3 do n = n + 1 if (x * i * j):sum() > 9 then goto out end end end
  ::out::
  return n
end)
case("a loop of goto", "T", function(x) local n = 0 ::top:: n = n + 1 x = x * 0.5 if x:abs():sum() > 0.5 and n < 20 then goto top end return n end)
case("redo", "T", function(x) local n, again = 0, 0 while n < 3 do ::redo:: x = x + 1 if x:sum() < 3 and again < 4 then again = again + 1 goto redo end n = n + 1 end return x, again end)
case("two labels", "T", function(x) if x:sum() > 1 then goto a elseif x:sum() > 0 then goto b end do return 0 end ::a:: do return 1 end ::b:: return 2 end)

-- ---- functions ----
case("a local function", "T", function(x) local function f(v) return v * 2 + 1 end return f(f(x)) end)
case("a function that branches", "TT", function(a, b) local function big(v) return v:sum() > 1 end if big(a) and not big(b) then return a end return b end)
case("several results", "T", function(x) local function f(v) return v, v * 2, 3 end local a, b, c, d = f(x) return a + b, c, d end)
case("results cut to one", "T", function(x) local function f(v) return v, 9 end return (f(x)), { f(x) }, { f(x), f(x) } end)
case("results of both sides padded", "T", function(x) local function f(v) if v:sum() > 0 then return 1 end return 2, 3 end local a, b = f(x) return a, b == nil end)
case("a function as an argument", "T", function(x) local function twice(f, v) return f(f(v)) end return twice(function(v) return v:tanh() end, x) end)
case("a function returned", "T", function(x) local function adder(n) return function(v) return v + n end end return adder(2)(adder(3)(x)) end)
case("composition", "T", function(x) local function o(f, g) return function(v) return f(g(v)) end end return o(function(v) return v * 2 end, function(v) return v + 1 end)(x) end)
case("an upvalue written inside a branch", "T", function(x) local n = 0 local function up() n = n + 1 end if x:sum() > 0 then up() up() else up() end return n end)
case("an upvalue shared by two", "T", function(x) local v = x local function get() return v end local function set(w) v = w end if x:sum() > 0 then set(get() * 2) end set(get() + 1) return get() end)
case("a closure for each trip", "T", function(x) local fs = {} for i = 1, 3 do fs[i] = function() return x * i end end return fs[1]() + fs[3]() end)
case("a closure made on one side", "TT", function(a, b) local f = function(v) return v end if a:sum() > 0 then f = function(v) return v * 3 end end return f(b) end)
case("recursion on a counter", "T", function(x) local function f(v, n) if n == 0 then return v end return f(v * 0.5 + n, n - 1) end return f(x, 5) end)
case("mutual recursion", "T", function(x) local even, odd function even(n) if n == 0 then return true end return odd(n - 1) end function odd(n) if n == 0 then return false end return even(n - 1) end return even(4), odd(4), x end)
case("recursion over a tree", "TT", function(a, b)
  local function total(t) if kiln.is_tensor(t) then return t:sum() end local s = 0 for _, v in ipairs(t) do s = s + total(v) end return s end
  return total { a, { b, { a } } }
end)
case("a tail call on one side", "T", function(x) local function f(v) return v - 1 end if x:sum() > 0 then return f(x) end return x end)
case("varargs counted", "TTT", function(...) return select("#", ...), (select(2, ...)), (select(-1, ...)) end)
case("varargs forwarded", "TT", function(...) local function f(a, b, c) return a, b, c == nil end return f(...) end)
case("varargs in the middle", "TT", function(...) local function f(...) return ..., 5 end return f(...) end)
case("varargs as a table", "TTT", function(...) local t = table.pack(...) local s = 0 for i = 1, t.n do s = s + t[i]:sum():item() * i end return s end)
case("unpack with bounds", "TTT", function(a, b, c) return table.unpack({ a, b, c }, 2, 3) end)
case("a method", "T", function(x) local o = { k = 3 } function o:scale(v) return v * self.k end function o:twice(v) return self:scale(self:scale(v)) end return o:twice(x) end)

-- ---- tables ----
case("a record", "TT", function(a, b) local r = { a = a, b = b } r.a, r.b = r.b, r.a return r.a - r.b end)
case("a record made by a branch", "TT", function(a, b) local r = a:sum() > 0 and { v = a, n = 1 } or { v = b, n = 2 } return r.v, r.n end)
case("a field added on one side", "T", function(x) local r = {} if x:sum() > 0 then r.extra = x end return r.extra == nil, r.extra and r.extra + 1 or x end)
case("a field removed on one side", "T", function(x) local r = { v = x, k = 1 } if x:sum() > 0 then r.k = nil end return r.k or 7 end)
case("two names of one table", "T", function(x) local a = { v = x } local b = a if x:sum() > 0 then b.v = x * 2 end a.v = a.v + 1 return b.v, a == b end)
case("an alias on one side", "TT", function(a, b) local s, t = { v = a }, { v = b } if a:sum() > 0 then s = t end s.v = s.v + 1 return t.v, s.v, s == t end)
case("tables in tables", "T", function(x) local t = { a = { b = { c = x } } } if x:sum() > 0 then t.a.b.c = t.a.b.c * 2 end return t.a.b.c, t.a == t.a.b end)
case("a table that holds itself", "T", function(x) local t = { v = x } t.me = t return t.me.me.v * 2, t.me == t end)
case("a list filled and summed", "T", function(x) local l = {} for i = 1, 5 do l[#l + 1] = x * i end local s = l[1] for i = 2, #l do s = s + l[i] end return s, #l end)
case("a list written in a branch", "T", function(x) local l = { x, x + 1, x + 2 } if x:sum() > 0 then l[2] = l[3] end return l[1] + l[2] end)
case("a list reversed", "TTT", function(a, b, c) local l, r = { a, b, c }, {} for i = #l, 1, -1 do r[#r + 1] = l[i] end return r[1], r[2], r[3] end)
case("insert and remove", "TT", function(a, b) local l = {} table.insert(l, a) table.insert(l, 1, b) local v = table.remove(l) return v, #l, l[1] end)
case("a matrix of numbers", "T", function(x) local m = { { 1, 2 }, { 3, 4 } } local s = 0 for i = 1, 2 do for j = 1, 2 do s = s + m[i][j] * i end end return x * s end)
case("a queue", "T", function(x) local q, head = { x }, 1 while head <= 4 do q[#q + 1] = q[head] * 0.5 head = head + 1 end return q[#q], #q end)
case("a stack of tables", "T", function(x) local top for i = 1, 3 do top = { v = x * i, up = top } end local s = 0 while top do s = s + top.v top = top.up end return s end)
case("a table with booleans as keys", "T", function(x) local t = { [true] = 2, [false] = 3 } return x * t[true] + t[false] end)
case("a table with float keys", "T", function(x) local t = {} t[1.0] = 5 t[1.5] = 6 return x * t[1] + t[1.5] end)
case("a key chosen by data", "TT", function(a, b) local t = { hi = a, lo = b } local k = "lo" if a:sum() > 0 then k = "hi" end t[k] = t[k] * 2 return t.hi, t.lo end)
case("a set of names", "T", function(x) local seen = {} for _, n in ipairs { "a", "b", "a" } do seen[n] = (seen[n] or 0) + 1 end return x * seen.a, seen.b, seen.c == nil end)
case("a memo", "T", function(x) local memo = {} local function f(n) if not memo[n] then memo[n] = n < 2 and n or f(n - 1) + f(n - 2) end return memo[n] end return x + f(12) end)
case("records in a loop", "T", function(x)
  local s = { h = x, c = x * 0, n = 0 }
  while s.h:sum() > 0.5 and s.n < 9 do s = { h = s.h * 0.5, c = s.c + s.h, n = s.n + 1 } end
  return s.h, s.c, s.n
end)
case("two records swapped in a loop", "TT", function(a, b) local p, q, n = { v = a }, { v = b }, 0 while n < 3 do p, q = q, p p.v = p.v + 1 n = n + 1 end return p.v, q.v end)
case("a record with an optional field in a loop", "T", function(x) local s = { n = 0 } while s.n < 3 do if x:sum() > s.n then s.best = x * s.n end s.n = s.n + 1 end return s.best or x end)
case("results in a table", "TT", function(a, b) return { sum = a + b, parts = { a, b }, n = 2, name = "x", ok = a:sum() > 0 } end)
case("one table twice in the results", "T", function(x) local t = { x } return t, t, { t, t } end)
case("rawget, rawset, rawlen, rawequal", "T", function(x) local t = setmetatable({ 1 }, { __index = function() return 9 end }) rawset(t, "k", x) return rawget(t, "no") == nil, t.k, rawlen(t), rawequal(t, t) end)

-- ---- metatables ----
case("__index as a table", "T", function(x) local o = setmetatable({}, { __index = { k = 4 } }) return x * o.k, rawget(o, "k") == nil end)
case("__index as a function", "T", function(x) local o = setmetatable({}, { __index = function(_, k) return #k end }) return x * o.abc end)
case("a chain of __index", "T", function(x) local a = { k = 2 } local b = setmetatable({}, { __index = a }) local c = setmetatable({}, { __index = b }) a.k = 5 return x * c.k end)
case("__newindex", "T", function(x) local log = {} local o = setmetatable({}, { __newindex = function(_, k, v) log[k] = v end }) o.v = x return log.v, rawget(o, "v") == nil end)
case("__call", "T", function(x) local f = setmetatable({ k = 2 }, { __call = function(self, v, w) return v * self.k + (w or 1) end }) return f(x), f(x, 5) end)
case("arithmetic of objects", "T", function(x)
  local V = {}
  V.__add = function(a, b) return setmetatable({ v = a.v + b.v }, V) end
  V.__mul = function(a, b) return setmetatable({ v = type(b) == "number" and a.v * b or a.v * b.v }, V) end
  V.__unm = function(a) return setmetatable({ v = -a.v }, V) end
  V.__sub = function(a, b) return a + -b end
  local a, b = setmetatable({ v = x }, V), setmetatable({ v = x + 1 }, V)
  return (a * b - a * 2 + b).v
end)
case("__eq, __lt, __le of objects", "TT", function(a, b)
  local V = {}
  V.__eq = function(p, q) return p.v:sum():item() == q.v:sum():item() end
  V.__lt = function(p, q) return p.v:sum() < q.v:sum() end
  V.__le = function(p, q) return p.v:sum() <= q.v:sum() end
  local p, q = setmetatable({ v = a }, V), setmetatable({ v = b }, V)
  return p == q, p ~= q, p < q, p <= q, p > q, p >= q
end)
case("__len and __concat", "T", function(x) local o = setmetatable({}, { __len = function() return 7 end }) return x * #o end)
case("a class with a parent", "T", function(x)
  local A = {}
  A.__index = A
  function A.new(v) return setmetatable({ v = v }, A) end
  function A:f() return self.v * 2 end
  local B = setmetatable({}, { __index = A })
  B.__index = B
  function B.new(v) return setmetatable(A.new(v), B) end
  function B:f() return A.f(self) + 1 end
  return B.new(x):f(), getmetatable(A.new(x)) == A
end)
case("a class chosen by data", "T", function(x)
  local Up, Down = {}, {}
  Up.__index, Down.__index = Up, Down
  function Up.go(_, v) return v + 1 end
  function Down.go(_, v) return v - 1 end
  local o = setmetatable({}, x:sum() > 0 and Up or Down)
  return o:go(x)
end)

-- ---- numbers ----
case("integer division and remainder", "II", function(a, b) if b == 0 then return 0 end return a // b, a % b, a / b, -a // b, -a % b end)
case("division of an integer by zero", "I", function(a) return a // 0 end)
case("float division by zero", "F", function(a) return a / 0, a // 0, a % math.huge end)
case("bit operations", "II", function(a, b) return a & b, a | b, a ~ b, ~a, a << 2, a >> 1, a << -1, a >> 70 end)
case("wrapping integers", "I", function(a) return a + math.maxinteger, a * math.maxinteger, math.mininteger - a end)
case("powers and roots", "F", function(a) return a ^ 2, math.abs(a) ^ 0.5, math.sqrt(math.abs(a)) end)
case("integers compared with floats", "IF", function(i, f) return i == f, i < f, i <= f, i ~= f, f < i end)
case("math.type and tointeger", "IF", function(i, f) return math.type(i), math.type(f), math.tointeger(3.0), math.tointeger("x") == nil end)
case("floor, ceil, modf of numbers", "F", function(f) return math.floor(f), math.ceil(f), math.floor(f * 10) / 10 end)
case("min and max of many", "FFF", function(a, b, c) return math.max(a, b, c), math.min(a, b, c), math.max(a, 0), math.min(1, b) end)
case("nan", "T", function(x) local v = x[1]:item() return v ~= v, v == v, v < 0, v > 0 end)
case("an item as a factor", "TT", function(a, b) return a * b:sum():item(), b + a[1]:item() end)
case("an item of integers", "T", function(x) local n = x:gt(0):sum():item() return n, n + 1, n * 2.5, n // 2 end)
case("an item of booleans", "T", function(x) local b = (x[1] > 0):item() if b then return 1 end return b end)
case("arithmetic on sizes", "T", function(x) local n = x:size(1) return n * 2, n / 2, n // 3, n % 3, -n, n == 4 end)
case("a number formed in a loop", "TI", function(x, n) local h = 0 for i = 1, 6 do h = (h * 31 + n * i) % 1009 end return h, x end)
case("gcd", "II", function(a, b) a, b = math.abs(a), math.abs(b) local n = 0 while b ~= 0 and n < 20 do a, b = b, a % b n = n + 1 end return a end)
case("a polynomial", "F", function(v) local s = 0.0 for _, c in ipairs { 1, -2, 0.5, 3 } do s = s * v + c end return s end)
case("strings of numbers stay", "T", function(x) return x * tonumber "3", "a" .. 1 .. 2.5, #"abc", ("x"):rep(3) end)

-- ---- strings ----
case("strings chosen and compared", "T", function(x) local s = "low" if x:sum() > 0 then s = "high" end return s == "high" and 1 or 0 end)
case("strings as states", "T", function(x) local st, n = "a", 0 while st ~= "c" and n < 8 do n = n + 1 if st == "a" then x = x + 1 if x:sum() > 3 then st = "b" end else x = x * 2 st = "c" end end return x, n end)
case("string methods on plain strings", "T", function(x) local s = ("Relu"):lower() return x[s](x), s:sub(1, 2), s:find "l", s:upper() end)
case("string.format of plain values", "T", function(x) return x + #string.format("%d-%s", 12, "ab") end)

-- ---- tensors ----
case("indexing", "T", function(x) return x[1], x[-1], x[2] + x[3] end)
case("indexing by a loop", "T", function(x) local s = 0 for i = 1, 4 do s = s + x[i] * x[5 - i] end return s end)
case("reshaped and multiplied", "TT", function(a, b) return a:reshape(2, 2):matmul(b:reshape(2, 2)):reshape(4) end)
case("sizes as arguments of ops", "T", function(x) return x:reshape(x:size(1) // 2, 2):sum(2), x:view(1, #x) end)
case("stack and cat of a list", "TTT", function(a, b, c) return kiln.stack { a, b, c }, kiln.cat({ a, b }, 1) end)
case("where", "TT", function(a, b) return kiln.where(a:gt(b), a, b) end)
case("softmax and argmax", "T", function(x) return x:softmax(1), x:argmax() end)
case("several results of an op", "T", function(x) local v, i = x:max(1) local s, k = x:sort(1) return v, i, s, k end)
case("made inside", "T", function(x) return x + kiln.ones(4) * 2 + kiln.arange(4) + T { 1.0, 2, 3, 4 } end)
case("like another", "T", function(x) return kiln.zeros_like(x) + kiln.full_like(x, 3) end)
case("other dtypes", "T", function(x) return x:double() * 2, x:gt(0):long(), x:to "float16" end)
case("no_grad inside", "T", function(x) return kiln.no_grad(function() return x * 2 end) end)
case("a mean and a deviation", "T", function(x) local m = x:mean() local d = ((x - m) * (x - m)):mean():sqrt() if d > 0.5 then return (x - m) / d end return x - m end)
case("attention by hand", "TT", function(a, b) local q, k = a:reshape(2, 2), b:reshape(2, 2) return q:matmul(k:t()):softmax(2):matmul(k) end)
case("handles", "TT", function(a, b) local c = a return a == c, a == b, a ~= nil, kiln.is_tensor(a), type(a) end)
case("a tensor kept or made", "T", function(x) local y = x if x:sum() > 0 then y = x * 1 end return y == x, y end)

case("what is known on a path is known behind it", "TT", function(x, y)
  local v, s, l = y, x:sum(), { x }
  if s > 3.5 then v = x + error "too large" end
  if x:mean() > s then return v end
  local a = l[(x * y):size(1)] or v * (x:sum() >= 0 and x or y)
  return a, #{ a, x }
end)

case("__index of a field that is there on some path", "TT", function(x, y)
  local P = { n = 1, f = function(o) return o.t * 3 end }
  local function missing(o, k) return k == "twice" and o.n * 2 or P[k] end
  local p, q = setmetatable({ t = x }, { __index = P }), setmetatable({ t = y }, { __index = missing })
  if x:sum() > 0 then p.n = 5 q.n = 2 p.f = function(o) return o.t end end
  if y:sum() > 0 then p.n = nil q.twice = "set" elseif x:sum() < -2 then q.n = x end
  return p.n, p:f(), q.n, x:sum() < -2 and 0 or q.twice, q:f()
end)
case("__newindex of a field that is there on some path", "TT", function(x, y)
  local seen = 0
  local p = setmetatable({ t = x }, { __newindex = function(o, k, v) seen = seen + 1 rawset(o, k, v * 2) end })
  if x:sum() > 0 then p.n = 5 elseif y:sum() > 0 then p.t = nil end
  p.n = 7
  p.t = y
  p.n = p.n + 1
  return p.n, p.t, seen
end)

-- ---- random numbers ----
case("a draw", "T", function(x) return x + kiln.rand(4) end)
case("a draw on one side", "T", function(x) if x:sum() > 0 then x = x + kiln.rand(4) end return x, kiln.rand(1) end)
case("draws in a loop", "T", function(x) local n = 0 while n < 3 do if x:sum() < n then x = x + kiln.randn(4) end n = n + 1 end return x, kiln.rand(1) end)
case("dropout", "T", function(x) return kiln.nn.functional.dropout(x, 0.5, true) end)

-- ---- errors ----
case("error with a text", "T", function(x) if x:sum() > 1 then error "too large" end return x end)
case("error without a place", "T", function(x) if x:sum() > 1 then error("plain", 0) end return x end)
case("assert with a text", "T", function(x) assert(x:sum() < 2, "bounded") return x end)
case("assert passes its values on", "T", function(x) local v = assert(x, "never") return v + 1 end)
case("an error in a loop", "T", function(x) local n = 0 while n < 5 do n = n + 1 x = x * 1.5 if x:sum() > 20 then error "diverged" end end return x end)
case("an error in a called function", "T", function(x) local function f(v) if v:sum() > 2 then error "inner" end return v end return f(x) + f(x * 2) end)
case("nil called on one side", "T", function(x) local f if x:sum() < 1 then f = function(v) return v end end return f(x) end)
case("nil indexed on one side", "T", function(x) local t if x:sum() < 1 then t = { v = x } end return t.v end)
case("nil in arithmetic on one side", "T", function(x) local k if x:sum() < 1 then k = 2 end return x * (k + 1) end)
case("an error that Lua finds", "TI", function(x, n) return x * (10 // n) end)

check.test("there are enough cases", function() check.truth(count >= 150, count .. " cases") end)
