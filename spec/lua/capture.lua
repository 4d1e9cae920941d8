-- Capture: each function runs eagerly and captured on many inputs and must agree.
local check = require "check"
local compare = require "capture_compare"
local T = kiln.tensor

local agree = compare.case

-- ---- branches ----

agree("if, elseif", function(x, y)
  local z
  if x:sum() > 1 then z = x + y elseif x:sum() > -1 then z = x * y else z = -x end
  return z
end, { "T", "T" })
agree("nested if", function(x, y)
  local z = x
  if x:sum() > 0 then
    if y:sum() > 0 then z = z + 1 else z = z - 1 end
    z = z * 2
  elseif not (y:sum() < 0) then z = z:tanh() end
  return z
end, { "T", "T" })
agree("early returns", function(x)
  if x:sum() > 0 then return x, 1 end
  local y = x:relu()
  if y:sum() > 1 then return y, 2 end
  return y + x, 3
end, { "T" })
agree("early return inside an if", function(x, y)
  local z = 0
  if x:sum() > 0 then
    if y:sum() > 0 then return x end
    z = 1
  else z = 2 end
  local w = x * z
  return w + y
end, { "T", "T" })
agree("and, or", function(x, y)
  local c = x:sum() > 0 and y:sum() > 0
  local z = c and x or y
  local w = (x:sum() > 1 or y:sum() > 1) and 2 or 3
  return z * w, c, not c
end, { "T", "T" })
agree("conditions of several parts", function(x, y)
  if x:sum() > 0 and y:sum() > 0 then x = x + 1
  elseif x:sum() < -1 and y:sum() < -1 then x = x + 2
  elseif x:mean() > 0.1 or y:mean() > 0.1 then x = x + 3
  else x = x + 4 end
  return x
end, { "T", "T" })
agree("a value nil on one path", function(x, y)
  local m
  if x:sum() > 0 then m = y end
  local z = x + 1
  if m then z = z * m end
  if m == nil then z = z - 1 end
  return z
end, { "T", "T" })
agree("an integer or a float", function(x)
  local k
  if x:sum() > 0 then k = 1 else k = 2.5 end
  return x * k, k + 1, k
end, { "T" })
agree("a condition on a number argument", function(x, k)
  if k > 2 then return x * k end
  return x - k
end, { "T", "I" })
agree("truthiness of tensors and numbers", function(x)
  local n = x:sum():item()
  local r = 0
  if x then r = r + 1 end
  if n then r = r + 2 end
  if x == 0 then r = r + 4 end
  if x ~= nil then r = r + 8 end
  if x == x then r = r + 16 end
  return r
end, { "T" })
agree("tensors compared by handle", function(x, y)
  if x == y then return 1 elseif x:relu() == y:relu() then return 2 end
  local z = x:sum() > 0 and x or y
  if z == x then return 3 end
  return 4
end, { "T", "T" })
agree("strings chosen by a branch", function(x)
  local s = x:sum():item()
  local m = "a"
  if s > 0 then m = "b" end
  local r
  if m == "b" then r = x elseif m == "a" then r = -x end
  return r
end, { "T" })
agree("a key chosen by a branch", function(x)
  local t = { pos = x, neg = -x }
  local k = x:sum() > 0 and "pos" or "neg"
  return t[k]
end, { "T" })
agree("a boolean input", function(x, b)
  if b then x = x + 1 end
  return x, not b
end, { "T", "B" })

-- ---- loops ----

agree("while with a break", function(x)
  local n = 0
  while x:sum() > 0.5 do
    x = x * 0.5
    n = n + 1
    if x:mean() < 0.2 then break end
  end
  return x, n
end, { "T" }, { finite = true })
agree("while with two breaks", function(x, y)
  local n = 0
  local r
  while x:abs():sum() > 0.5 do
    x = x * 0.5
    n = n + 1
    if n > 5 then r = x break end
    if (x + y):sum() > 3 then r = y n = -n break end
    y = y - 1
  end
  if not r then r = x + y end
  return r, n
end, { "T", "T" })
agree("while true with a return", function(x)
  x = x:abs() + 0.1
  local k = 0
  while true do
    if x:sum() > 50 or x:sum() ~= x:sum() or k > 30 then return x, k end
    x = x * 2
    k = k + 1
  end
end, { "T" })
agree("repeat", function(x)
  local n = 0
  repeat
    local y = x:abs()
    x = y * 1.5 + 0.1
    n = n + 1
  until y:sum() > 10 or n > 20
  return x, n
end, { "T" })
agree("nested while", function(x)
  local n, m = 0, 0
  while n < 3 do
    n = n + 1
    local y = x
    while y:abs():sum() > 1 do
      y = y * 0.5
      m = m + 1
      if m > 40 then break end
    end
    x = x + y
  end
  return x, n, m
end, { "T" })
agree("for with a break", function(x)
  local s = x * 0
  for i = 1, 5 do
    s = s + x * i
    if s:sum() > 20 then break end
  end
  return s
end, { "T" })
agree("a long for", function(x)
  local s = x * 0
  for i = 1, 300 do s = s + x * (1 / i) end
  return s
end, { "T" }, 10)
agree("for, other steps", function(x)
  local s = x * 0
  for i = 10, 1, -3 do s = s * 0.5 + i end
  for v = 0.0, 1.0, 0.25 do s = s + v end
  return s
end, { "T" })
agree("for with a free bound", function(x, n)
  local s = x * 0
  for i = 1, n do s = s + i end
  for i = n, 1, -2 do s = s - i * x end
  return s
end, { "T", "I" })
agree("for with a free floating bound", function(x, n)
  local s = x * 0
  local k = 0
  for i = 1, n * 2 do s = s + i k = k + 1 end
  for v = 0.5, n do s = s - v end
  return s, k
end, { "T", "F" })
agree("for over a size", function(x)
  local s = x * 0
  for i = 1, x:size(1) do s = s + x[i] * i end
  return s, #x, x:size(1) * 2
end, { "T" })
agree("ipairs and pairs", function(x)
  local ws = { x, x * 2, x * 3 }
  local s = x * 0
  for i, w in ipairs(ws) do s = s + w * i end
  local n = 0
  for _, v in pairs { a = 1, b = 2.5 } do n = n + v end -- order is not defined
  return s + n
end, { "T" })
agree("ipairs over the rows of a tensor", function(x)
  local s, n = 0, 0
  for i, row in ipairs(x) do s, n = s + row * i, i end
  return s, n
end, { "T" })
agree("swaps carried by a while", function(x, y)
  local a, b, n = x, y, 0
  while (a - b):abs():sum() > 0.5 and n < 20 do
    a, b = b, (a + b) * 0.5
    n = n + 1
  end
  return a, b, n
end, { "T", "T" })
agree("goto continue", function(x)
  local s = x * 0
  for i = 1, 6 do
    if i % 2 == 0 then goto continue end
    if (s + i):sum() > 15 then goto continue end
    s = s + x * i
    ::continue::
  end
  return s
end, { "T" })
agree("a loop of gotos", function(x)
  local n = 0
  ::top::
  x = x * 0.5
  n = n + 1
  if x:abs():sum() > 0.3 then goto top end
  return x, n
end, { "T" }, { finite = true })
agree("continue in a while", function(x)
  local n, s = 0, x * 0
  while n < 20 do
    n = n + 1
    x = x * 0.9
    if x:sum() > 1 then goto cont end
    s = s + x
    if s:sum() < -10 then break end
    ::cont::
  end
  return s, n
end, { "T" })
agree("a carry that starts as nil", function(x)
  local h
  local n = 0
  while n < 4 or (x:sum() > 3 and n < 40) do
    if h then h = h + x else h = x * 2 end
    x = x * 0.9
    n = n + 1
  end
  if not h then return x end
  return h
end, { "T" })
agree("a carry that starts as a number", function(x)
  local h = 0
  local n = 0
  while x:sum() > 0.1 and n < 10 do
    if x:mean() > 0.2 then h = h + x end
    x = x * 0.5
    n = n + 1
  end
  return x + h
end, { "T" })
agree("flags", function(x)
  local done = false
  local n = 0
  while not done do
    x = x * 0.7
    n = n + 1
    if x:abs():sum() < 1 then done = true elseif n >= 8 then done = true end
  end
  return x, n, done
end, { "T" })
agree("a number searched for", function(x)
  local found = 0
  for i = 1, 4 do
    if found == 0 and (x * i):sum() > 4 then found = i end
  end
  return found
end, { "T" })
agree("binary search", function(x, lo, hi)
  for _ = 1, 8 do
    local mid = (lo + hi) / 2
    if x:sum():item() > mid then lo = mid else hi = mid end
  end
  return lo, hi
end, { "T", "F", "F" })
agree("leaving nested loops at once", function(x)
  local s, n = x * 0, 0
  for i = 1, 3 do
    for j = 1, 3 do
      s = s + x * (i * j)
      n = n + 1
      if s:sum() > 25 then goto out end
    end
  end
  ::out::
  return s, n
end, { "T" })
agree("a state machine of strings", function(x)
  local st = "init"
  local n = 0
  while st ~= "done" do
    n = n + 1
    if st == "init" then
      x = x * 2
      st = "grow"
    elseif st == "grow" then
      x = x + 1
      if x:sum() > 10 or n > 6 then st = "done" end
    end
  end
  return x, n
end, { "T" })
agree("newton's method", function(x)
  local n = 0
  local d = x
  repeat
    d = (x * x - 2) * 0.25
    x = x - d
    n = n + 1
  until d:abs():sum() < 1e-3 or n >= 20
  return x, n
end, { "T" })
agree("line search", function(x, g)
  local step = 1.0
  local f0 = (x * x):sum()
  while ((x - g * step) * (x - g * step)):sum() > f0 do
    step = step * 0.5
    if step < 1e-3 then return x, 0.0 end
  end
  return x - g * step, step
end, { "T", "T" })

-- ---- closures, calls ----

agree("a counter by reference", function(x)
  local n = 0
  local function inc(k) n = n + k return n end
  if x:sum() > 0 then inc(1) else inc(10) inc(5) end
  local m = inc(2)
  return x * n, n, m
end, { "T" })
agree("closures over loop variables", function(x)
  local fs = {}
  for i = 1, 3 do
    local k = i * 10
    fs[#fs + 1] = function(y) k = k + 1 return y * k + i end
  end
  local s = x
  for _ = 1, 2 do
    for _, f in ipairs(fs) do s = f(s) end
  end
  return s
end, { "T" })
agree("a closure changed in a while", function(x)
  local acc = 0
  local function add(v) acc = acc + v end
  while x:sum() > 0.1 do
    x = x * 0.5
    add(1)
  end
  return x, acc
end, { "T" }, { finite = true })
agree("closures chosen by a branch", function(x, y)
  local k = 1
  local f
  if x:sum() > 0 then f = function(a) return a * k end else f = function(a) return a + k end end
  k = 3
  return f(y)
end, { "T", "T" })
agree("closures of one function", function(x, y)
  local f
  local function mk(s) return function(a) return a * s end end
  if x:sum() > 0 then f = mk(x) else f = mk(y) end
  return f(y)
end, { "T", "T" })
agree("recursion on plain values", function(x)
  local function p(b, n)
    if n == 0 then return b * 0 + 1 end
    local h = p(b, n // 2)
    if n % 2 == 0 then return h * h else return h * h * b end
  end
  return p(x, 13)
end, { "T" })
agree("varargs", function(...)
  local function sum(...)
    local s = select(1, ...)
    for i = 2, select("#", ...) do s = s + (select(i, ...)) end
    return s, ...
  end
  local t = { ... }
  local s, a = sum(...)
  return s, a, #t, sum(t[1], 3)
end, { "T", "T", "T" })
agree("several results joined", function(x)
  local function f(v) if v:sum() > 0 then return v, 1 else return -v, 2 end end
  local a, b = f(x)
  local c, d = f(a - 1)
  return a + c, b + d
end, { "T" })
agree("tail calls", function(x)
  local function loop(v, n)
    if n == 0 then return v end
    return loop(v + n, n - 1)
  end
  return loop(x, 20)
end, { "T" })
agree("an iterator of its own", function(x)
  local function iter(t)
    local i = 0
    return function()
      i = i + 1
      if t[i] then return i, t[i] end
    end
  end
  local s = x
  for i, v in iter { x, x + 1, x + 2 } do s = s + v * i end
  return s
end, { "T" })
agree("strings dispatch", function(x)
  local ops = { relu = function(a) return a:relu() end, neg = function(a) return -a end }
  for _, n in ipairs { "relu", "neg", "relu" } do x = ops[n](x) + 1 end
  return x
end, { "T" })
agree("an error path not taken", function(x)
  local t = { x }
  local function get(i) return t[i] or error "no element" end
  return get(1) + x
end, { "T" })

-- ---- tables ----

agree("fields written on one path", function(x, y)
  local st = { h = x, c = { y, n = 0 } }
  if x:sum() > 0 then
    st.h = st.h + y
    st.c.n = st.c.n + 1
  else
    st.c[1] = x
    st.extra = x * 2
    st.extra = nil
  end
  return st.h + st.c[1], st.c.n, st
end, { "T", "T" })
agree("tables made on both paths", function(x, y)
  local t
  if x:sum() > 0 then t = { a = x, b = { 1, y } } else t = { a = y, b = { 2, x } } end
  t.a = t.a + 1
  local u = t.b
  u[1] = u[1] + 1
  return t.a, t.b[1], t.b[2]
end, { "T", "T" })
agree("a new table each trip", function(x)
  local st = { h = x, n = 0 }
  while st.h:sum() > 0.2 do st = { h = st.h * 0.5, n = st.n + 1 } end
  return st.h, st.n
end, { "T" }, { finite = true })
agree("one table changed each trip, by two names", function(x)
  local st = { h = x, n = 0, { k = x } }
  local al = st
  while st.h:sum() > 0.2 do
    al.h = al.h * 0.5
    st.n = st.n + 1
    st[1].k = al.h + 1
  end
  return st.h, st.n, al[1].k
end, { "T" }, { finite = true })
agree("table functions", function(x, y)
  local t = {}
  table.insert(t, x)
  table.insert(t, 1, y)
  t[#t + 1] = x + y
  local r = table.remove(t, 1)
  return r, #t, table.unpack(t)
end, { "T", "T" })
agree("tables as results, shared", function(x)
  local a = { x, n = 1 }
  return { a, a, b = { c = a } }, a
end, { "T" })
agree("outputs of an unrolled loop collected", function(x, w)
  local h = x * 0
  local outs = {}
  for t = 1, 6 do
    h = (h * 0.5 + x * w):tanh()
    outs[#outs + 1] = h
  end
  local s = outs[1]
  for i = 2, #outs do s = s + outs[i] end
  return s, #outs
end, { "T", "T" })

-- ---- numbers ----

agree("numbers from tensors", function(x)
  local a = x:sum():item()
  if a ~= a then a = 0.5 end
  local b = a * 2 + 1
  if b > a then b = b - a end
  if b == a then b = 0 end
  local c = math.floor(b) // 2
  local d = math.max(a, b, 0.5)
  return x * b, c, d, a % 3
end, { "T" })
agree("integers keep their kind", function(x, n)
  local s = x:gt(0):sum():item()
  return s + n, s * 2, s / 2, s // 2, s % 3, -s, s ~ n, s << 1, s == n, s <= n, 7 - s, 2 ^ s, s & 3, s | 8
end, { "T", "I" })
agree("integers and floats compared", function(n, f)
  return n < f, n <= f, n == f, f < n, math.abs(n), math.abs(f), math.floor(f), math.ceil(f), math.min(n, f)
end, { "I", "F" })
agree("math functions", function(f)
  return math.sqrt(math.abs(f)), math.exp(f), math.sin(f), math.cos(f), math.log(math.abs(f) + 1)
end, { "F" })
agree("random draws on one path", function(x)
  local a = kiln.rand(4)
  if x:sum() > 0 then a = a + kiln.rand(4) end
  local b = kiln.rand(4)
  return a, b
end, { "T" })
agree("errors and assertions on data", function(x)
  if x:sum() > 2 then error "too big" end
  assert(x:sum() > -2, "too small")
  if x:sum() > 2 then return x end
  return x + 1
end, { "T" })
agree("an error of Lua on one path", function(x)
  local y
  if x:sum() > -1 then y = 1 end
  return x + y
end, { "T" })

check.test("messages and lines of errors", function()
  local function f(x)
    if x:sum() > 2 then error "too big" end
    assert(x:sum() > -2, "too small")
    if x:sum() > 1 then error("no place", 0) end
    local function inner() error("the caller's", 2) end
    if x:sum() < -1 then inner() end
    return x
  end
  check.truth(compare.compare(f, kiln.script(f), { "T" }, 60) > 5, "some runs raise")
end)

-- ---- classes ----

local Lin = {}
Lin.__index = Lin
Lin.__call = function(self, x) return self:forward(x) end
function Lin.new(w, b) return setmetatable({ w = w, b = b }, Lin) end
function Lin:forward(x) return x * self.w + self.b end
local Seq = setmetatable({}, { __call = function(cls, ...) return setmetatable({ mods = { ... } }, cls) end })
Seq.__index = Seq
Seq.__call = function(self, x)
  for _, m in ipairs(self.mods) do x = m(x) end
  return x
end
local net = Seq(Lin.new(T { 0.5, -1, 2, 0.25 }, T { 1.0, 0, -1, 2 }), function(x) return x:relu() end,
  Lin.new(T { 1.0, 1, -1, 0.5 }, 1.5))
agree("modules called through metatables", function(x)
  local y = net(x)
  if y:mean() > 0 then y = net(y) end
  return y
end, { "T" })
agree("a class made inside", function(x)
  local C = {}
  C.__index = C
  C.__add = function(a, b) return setmetatable({ v = a.v + b.v }, C) end
  function C:get() return self.v end
  local a = setmetatable({ v = x }, C)
  local b = setmetatable({ v = x * 2 }, C)
  local c = a + b
  if x:sum() > 0 then c = c + a end
  return c:get()
end, { "T" })
local Base = {}
Base.__index = Base
function Base:f(x) return x + self.b end
local Derived = setmetatable({}, { __index = Base })
Derived.__index = Derived
function Derived:f(x) return Base.f(self, x) * 2 end
local derived = setmetatable({ b = 3 }, Derived)
agree("inheritance", function(x) return derived:f(x) end, { "T" })
agree("comparison metamethods", function(x)
  local V = {}
  V.__lt = function(a, b) return a.v:sum() < b.v:sum() end
  V.__le = function(a, b) return a.v:sum() <= b.v:sum() end
  V.__len = function(a) return a.v:sum():item() end
  V.__unm = function(a) return setmetatable({ v = -a.v }, V) end
  V.__eq = function(a, b) return a.v:sum():item() == b.v:sum():item() end
  local a, b = setmetatable({ v = x }, V), setmetatable({ v = x:relu() }, V)
  local r = 0
  if a < b then r = r + 1 end
  if a <= b then r = r + 2 end
  if a > b then r = r + 4 end
  if a == b then r = r + 8 end
  return r, #a, (-a).v
end, { "T" })

-- ---- models of the library ----

local nn = kiln.nn
local Net = nn.Module:extend "CaptureNet"
function Net:init()
  self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
  self.head = nn.Linear(4, 3)
  self.deep = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
end
function Net:forward(x)
  local h = self.body(x:reshape(1, 4))
  local cheap = self.head(h):softmax(2)
  local sure = cheap:amax()
  if sure > 0.4 then return cheap, sure:item(), 1 end
  local n = 0
  while h:abs():sum() > 0.3 do
    h = h * 0.5
    n = n + 1
    if n >= 10 then break end
  end
  return self.deep(h):softmax(2), sure:item(), n
end
kiln.manual_seed(3)
local model = Net()
model:eval()
check.test("a model with an early exit and a loop", function()
  compare.compare(function(x) return model(x) end, kiln.script(model), { "T" }, 40)
  compare.compare(function(x) return model(x) end, kiln.script(function(x) return model(x) end), { "T" }, 40)
end)

-- ---- found by spec/fuzz ----

agree("an upvalue on one path that a closure of one path holds", function(x, y)
  local f = function(a) return a end
  local t = x
  for i, v in ipairs { x, y } do
    if y:sum() > 0 then
      v = x * 2
      f = function(a) return a + v end
    end
    if i == 1 then t = v end
  end
  return t, f(x)
end, { "T", "T" })
agree("a closure's variable of one path, and another closure's of the path before", function(x, y, u)
  local t, v3, f = x, x * y
  for q, v in ipairs { x, y } do
    if v:sum() <= v3:sum() then
      f = function() return v end
      v, t = v3, u
    end
    if v:sum() <= v3:sum() then
      f = function() return v end
      v, t = v3, u
    end
    if q == 1 then t = v end
  end
  for _ = 1, 1 do f = function() v3 = t end end
  f()
  return v3
end, { "T", "T", "T" })
agree("a closure that a loop on sizes replaces now and then", function(x, y)
  local f = function(a) return a + 1 end
  local n = 0
  for i = 1, #x do
    if y[i] > 0 then
      local k = i
      f = function(a) n = n + k return a * y[1] end
    end
  end
  return f(x), n
end, { "T", "T" })
agree("a table that a loop on data replaces now and then", function(x, y)
  local best, other = { t = x, n = 0 }, nil
  other = best
  local i = 0
  while y:sum() > 0.1 and i < 6 do
    i = i + 1
    if (y - x):sum() < 1 then best = { t = y, n = i } end
    y = y * 0.5
  end
  return best.t, best.n, best == other, other.n
end, { "T", "T" })
agree("an upvalue that only a closure of one path reads", function(x, y)
  local f, k = function(a) return a end, y
  if x:sum() > 0 then
    f = function(a)
      if x < y * 0 + k:sum() then return a * k end
      return a
    end
  end
  x = x:sum()
  return f(y)
end, { "T", "T" })
agree("a view of one tensor or another, of which one may not exist", function(x, y, n)
  local u, z = y, nil
  x:add_(1)
  y:add_(1)
  if n < 2 then u = x - 1 end
  if u:sum() < 0 then z = x else z = u end
  return z[1]
end, { "T", "T", "I" })
agree("a value of one kind or another in a table given to an op", function(x, y)
  local z = y:sum()
  if x:sum() > 0 then z = y:gt(0) end
  return kiln.stack { kiln.ones(4), z + x }
end, { "T", "T" })
