-- Where elements lie decides what `view` does: captured as eager, errors and their lines included.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local T = kiln.tensor

local function plain() return T { { 1.0, 2, 3 }, { 4, 5, 6 } } end
local function turned() return T { { 1.0, 4 }, { 2, 5 }, { 3, 6 } }:t() end

for name, f in pairs {
  ["of an argument"] = function(x) return x:view(6) end,
  ["that splits a dimension"] = function(x) return x:view(2, 3, 1) end,
  ["of a view"] = function(x) return x:t():view(6) end,
  ["of a row"] = function(x) return x[1]:view(3, 1) end,
  ["of a copy of a view"] = function(x) return x:view(6, 1):t():reshape(2, 3):t():reshape(6):view(3, 2):reshape(6) end,
  ["of a view of a copy of a view"] = function(x) return x:t():reshape(6):view(3, 2):t():view(6) end,
  ["of what may be a copy of a view"] = function(x) return x:t():reshape(3, 2, 1):view(3, 1, 2):view(6) end,
  ["as a function"] = function(x) return kiln.view(x, -1) end,
  ["beside one of a copy"] = function(x) local y = x * 1 return y:view(6) + x:view(6) end,
  ["of a reshape that is a copy"] = function(x) return x:view(2, 3):t():reshape(6):view(3, 2) end,
  ["again and again"] = function(x)
    local y = x:reshape(6)
    for _ = 1, 3 do y = y:view(2, 3):t():reshape(6) end
    return y
  end,
  ["on one path"] = function(x) if x:sum() > 0 then return x:view(6) end return x * 2 end,
} do
  test("view " .. name, function()
    local g = kiln.script(f)
    for _, x in ipairs { plain(), turned(), -plain(), -turned(), (-plain()):t():clone():t(), turned(), plain() } do
      local ok, want = pcall(f, x)
      local fine, got = pcall(g, x)
      equal(fine, ok)
      equal(ok and got:totable() or got, ok and want:totable() or want)
    end
  end)
end

test("view of what may be a copy of a view, written to", function()
  local f = function(x)
    local a = x:t():reshape(6)
    local b = a:view(2, 3):t():reshape(6)
    local c = b:view(6)
    a:add_(1)
    c:mul_(2)
    return a + b
  end
  local g = kiln.script(f)
  for _, make in ipairs { plain, turned, plain } do
    local x, y = make(), make()
    local want, got = f(x), g(y)
    equal(got:totable(), want:totable())
    equal(y:totable(), x:totable())
  end
end)

test("view of an argument, saved", function()
  local f = function(x) return x:view(6) end
  local g, path = kiln.script(f), os.tmpname()
  g(plain())
  g:save(path)
  local h = kiln.load(path)
  os.remove(path)
  equal(h(plain()):totable(), f(plain()):totable())
  raises(function() h(turned()) end, "input x is not contiguous, and the graph was made for one that is")
end)

test("view of a described argument", function()
  local g = kiln.script(function(x) return x:view(-1) end, { inputs = { kiln.spec("float32", { "N", 3 }) } })
  equal(g(plain()):totable(), { 1.0, 2.0, 3.0, 4.0, 5.0, 6.0 })
  raises(function() g(turned()) end, "input x is not contiguous")
end)

-- ---- tensors made inside, outside, carried on ----

local function same(f, ...)
  local g = kiln.script(f, { cache_limit = 16 })
  for _, x in ipairs { ... } do
    local want, got = table.pack(pcall(f, x)), table.pack(pcall(g, x))
    equal(got[1], want[1])
    equal(got.n, want.n)
    for i = 2, want.n do
      local w, v = want[i], got[i]
      equal(rawequal(v, x), rawequal(w, x))
      for k = 2, want.n do equal(rawequal(v, got[k]), rawequal(w, want[k])) end
      if kiln.is_tensor(w) then w, v = w:totable(), v:totable() end
      equal(v, w)
    end
  end
end

local outside, across = plain(), turned()
for name, f in pairs {
  ["made inside"] = function(x) return (x + 1):view(6) end,
  ["turned inside"] = function(x) return (x + 1):t():view(6) end,
  ["found outside"] = function(x) return outside:view(6) + x:sum() end,
  ["found outside, turned"] = function(x) return outside:t():view(6) + x:sum() end,
  ["found outside, not in order"] = function(x) return across:view(6) + x:sum() end,
  ["of a branch"] = function(x)
    local y
    if x:sum() > 0 then y = x + 1 else y = (x * 2):reshape(3, 2):t() end
    return y:view(6)
  end,
  ["carried by a loop"] = function(x)
    local y, n = x * 1, 0
    while n < x:sum() do y, n = y + 1, n + 9 end
    return y:view(6)
  end,
  ["turned by a loop"] = function(x)
    local y, n = kiln.stack({ x[1], x[2], x[1] * x[2] }), 0
    while n < x:sum() do y, n = y:t(), n + 9 end
    return y:view(9)
  end,
  ["in a loop that turns it"] = function(x)
    local y, n, all = kiln.stack({ x[1], x[2], x[1] * x[2] }), 0, 0
    while n < x:sum() do y, n, all = y:t(), n + 9, all + y:view(9) end
    return all
  end,
  ["of contiguous"] = function(x) return x:t():contiguous():view(6) end,
  ["of a part"] = function(x) return x:narrow(2, 1, 2):view(2, 2, 1), x[{ {}, 2 }]:view(1, 2) end,
  ["of a part, joined"] = function(x) return x:narrow(2, 1, 2):view(4) end,
  ["of what is repeated"] = function(x) return x[1]:expand(2, 3):view(6) end,
} do
  test("view, " .. name, function() same(f, plain(), turned(), -plain(), turned()) end)
end

test("a tensor outside that is viewed is put in another order", function()
  local w = plain()
  local f = function(x) return w:view(6) + x end
  local g = kiln.script(f)
  equal(g(T { 1.0 }):totable(), f(T { 1.0 }):totable())
  w = turned()
  raises(function() g(T { 1.0 }) end, "view: float32[2,3] is not laid out so that float32[6] shows it without a copy")
  w = plain() * 2
  equal(g(T { 1.0 }):totable(), f(T { 1.0 }):totable())
end)

for name, f in pairs {
  contiguous = function(x) return x:contiguous() end,
  ["contiguous, compared"] = function(x) local y = x:contiguous() return y == x, rawequal(y, x) end,
  ["contiguous of a view"] = function(x) local y = x:t() local z = y:contiguous() return z, y, y == z end,
  ["contiguous of a shape"] = function(x) local y = x:reshape(6) local z = y:contiguous() return z, y, y == z end,
  ["contiguous of one or another"] = function(x)
    local y = x
    if x:sum() > 0 then y = x:t() end
    local z = y:contiguous()
    return z, y
  end,
  ["contiguous in a loop"] = function(x)
    local y, n = x, 0
    while n < x:sum() do y, n = y:reshape(3, 2):t():contiguous(), n + 9 end
    return y
  end,
  to = function(x) return x:to("float32") end,
  float = function(x) return x:float() end,
  reshape = function(x) return x:reshape(2, 3) end,
  clone = function(x) return x:clone() end,
  detach = function(x) return x:detach() end,
} do
  test("which tensor it is: " .. name, function() same(f, plain(), turned(), -plain(), -turned(), plain()) end)
end

test("contiguous, then written to", function()
  local f = function(x) local y = x:contiguous() y:add_(1) return x + y end
  local g = kiln.script(f)
  for _, make in ipairs { plain, turned, plain } do
    local x, y = make(), make()
    equal(g(y):totable(), f(x):totable())
    equal(y:totable(), x:totable())
  end
end)

test("sizes stay free where views are sure whatever they are", function()
  local g = kiln.script(function(x)
    local b, t = x:size(1), x:size(2)
    local h = x:narrow(3, 3, 4):view(b, t, 2, 2):transpose(2, 3):contiguous()
    return h:view(b, 2, -1)
  end, { inputs = { kiln.spec("float32", { "B", "T", 6 }) } })
  for _, b in ipairs { 1, 3 } do
    local x = kiln.randn(b, 5, 6)
    equal(g(x):totable(), x:narrow(3, 3, 4):reshape(b, 5, 2, 2):transpose(2, 3):reshape(b, 2, -1):totable())
  end
  raises(function()
    kiln.script(function(x) return x:t():view(-1) end, { inputs = { kiln.spec("float32", { "A", "B" }) } })
  end, "whether 'tensor.view' gives a view or a copy depends on sizes")
end)

-- Chains of views at random, then one that may be refused or gives the tensor itself.
local function chain(pick)
  local lines, rank = { "local x = ... local y = x" .. (pick(2) == 1 and " + 0" or "") }, 3
  local function sizes(with)
    local d = {}
    for i = 1, rank do d[i] = ("y:size(%d)"):format(i) end
    with(d)
    return table.concat(d, ", ")
  end
  local function put(...) lines[#lines + 1] = "y = y:" .. string.format(...) end
  local steps = {
    function() put("transpose(%d, %d)", pick(rank), pick(rank)) end,
    function() put("select(%d, 1)", pick(rank)) rank = rank - 1 end,
    function() put("slice(%d, %d, -1, %d)", pick(rank), pick(2), pick(2)) end,
    function() put("unsqueeze(%d)", pick(rank + 1)) rank = rank + 1 end,
    function() put("unsqueeze(1):expand(%d%s)", pick(3), (", -1"):rep(rank)) rank = rank + 1 end,
    function() put("flatten(1, 2)") rank = rank - 1 end,
    function() put("narrow(%d, 1, %d)", pick(rank), pick(2)) end,
    function() put("reshape(%s)", sizes(function(d) table.insert(d, pick(rank + 1), "1") end)) rank = rank + 1 end,
  }
  for _ = 1, pick(4) do
    local step = pick(8)
    if rank > 1 and rank < 5 then steps[step]() end
  end
  lines[#lines + 1] = ({
    "return y:view(-1), y", "local z = y:contiguous() return z, y, rawequal(z, y)", "return y:contiguous():view(-1)",
    ("return y:view(%s)"):format(sizes(function(d) table.insert(d, pick(rank + 1), "1") end)),
    ("return y:view(%s)"):format(sizes(function(d) d[pick(rank)] = "-1, 2" end)),
  })[pick(5)]
  return table.concat(lines, "\n")
end

test("chains of views", function()
  local state = 7
  local function pick(n)
    state = (state * 1103515245 + 12345) % 2147483648
    return state // 65536 % n + 1
  end
  for _ = 1, 80 do
    local f = assert(load(chain(pick), "=chain"))
    same(f, kiln.randn(2, 4, 6), kiln.randn(4, 2, 2), kiln.randn(2, 4, 3):transpose(1, 3), kiln.randn(2, 2, 2))
  end
end)

-- Free sizes, which a plan knows, make constants of these: how they lie, and that they are one number all over, must
-- not show in the last bits of sums and products.
test("products and sums of what a plan knows", function()
  local function turned_table(x)
    local c = (kiln.arange(x:size(1)):to("float32"):unsqueeze(2) * 0.37 + kiln.arange(64):to("float32") * 0.11):sin()
    local u = c:t()
    return x:matmul(u), x[1]:matmul(u), u:matmul(x), u:sum(1), u:sum(2), u:reshape(-1)
  end
  local function one_number(x)
    local c = kiln.full_like(x, 0.1)
    return c:sum(), c:sum(1), c:mean(2), c:t():matmul(x), c[{ { 1, 2 } }]:sum(2), kiln.full_like(x, -0.0):sum(),
      kiln.ones_like(x):sum(2), kiln.full_like(x, 1.1):prod(2)
  end
  for _, f in ipairs { turned_table, one_number } do
    for _, dtype in ipairs { "float32", "float64" } do
      local g = kiln.script(f)
      for _, rows in ipairs { 3, 5, 20, 64, 100 } do
        local x = kiln.randn(rows, 64, { dtype = dtype })
        if f == turned_table then x = x:to "float32" end
        local want, got = { f(x) }, { g(x) }
        for i = 1, #want do check.truth(check.identical(want[i], got[i], {}), ("result %d of %d rows"):format(i, rows)) end
      end
    end
  end
end)
