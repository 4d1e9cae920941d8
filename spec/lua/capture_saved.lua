-- What capture assumed of arguments holds after save and load, too: it is stored and checked at each run, or the graph is not
-- saved. One test for each kind of guard; graph/README.md has the table.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local T = kiln.tensor

local function plain() return T { { 1.0, 2, 3 }, { 4, 5, 6 } } end
local function turned() return T { { 1.0, 4 }, { 2, 5 }, { 3, 6 } }:t() end

local function saved(f, ...)
  local g, path = kiln.script(f), os.tmpname()
  g(...)
  local ok, why = pcall(g.save, g, path)
  local h = ok and kiln.load(path)
  local text = h and tostring(h)
  os.remove(path)
  if not ok then error(why, 0) end
  equal(tostring(kiln.parse(text)), (text:gsub("  ; %d+ guards?: [^\n]*\n", "")))
  return h, text
end

-- For these arguments the loaded graph does what the function does.
local function agrees(f, h, args)
  local mine, its = args(), args()
  local want, got = f(table.unpack(mine, 1, #mine)), h(table.unpack(its, 1, #its))
  equal(kiln.is_tensor(got) and got:totable() or got, kiln.is_tensor(want) and want:totable() or want)
  for i = 1, #mine do
    if kiln.is_tensor(mine[i]) then equal(its[i]:totable(), mine[i]:totable()) end
  end
end

for name, f in pairs {
  reshape = function(x) local y = x:reshape(6) y:add_(1) return y end,
  flatten = function(x) local y = x:flatten() y:add_(1) return y end,
  contiguous = function(x) local y = x:contiguous() y:add_(1) return y end,
} do
  test("layout: written through " .. name, function()
    local h, text = saved(f, turned())
    agrees(f, h, function() return { turned() } end)
    local x = plain()
    raises(function() h(x) end, "input x does not have the strides {1, 2} that the graph was made for")
    equal(x:totable(), plain():totable())
    truth(text:find("need %x strides {1, 2}", 1, true), text)
    h = saved(f, plain())
    agrees(f, h, function() return { plain() } end)
    raises(function() h(turned()) end, "input x is not contiguous, and the graph was made for one that is")
  end)
end

test("layout: kiln-run shows and checks it", function()
  local path = os.tmpname()
  local g = kiln.script(function(x) local y = x:reshape(6) y:add_(1) return y end)
  g(turned())
  g:save(path)
  local p = assert(io.popen(("'%s/kiln-run' '%s' --info 2>&1"):format(os.getenv "KILN_BUILD" or "build", path)))
  local text = p:read "a"
  p:close()
  os.remove(path)
  truth(text:find("input x: float32[2,3], strides {1, 2}", 1, true), text)
end)

test("layout: in a trace", function()
  local h = saved(function(x) local y = x:reshape(6) y:relu_() return y * 2 end, turned())
  raises(function() kiln.trace(function(x) return h(x) end, plain()) end, "strides")
end)

test("two arguments that are one tensor", function()
  local f = function(a, b) a:add_(1) return a + b end
  local x = plain()
  local h = saved(f, x, x)
  raises(function() h(plain(), plain()) end, "must be the same")
  h = saved(f, plain(), plain())
  agrees(f, h, function() return { plain(), plain() } end)
  raises(function() h(x, x) end, "shares memory")
  raises(function() h(x, x:view(3, 2):view(2, 3)) end, "shares memory")
  local same = function(a, b) if rawequal(a, b) then return a + 1 end return a + 2 end
  h = saved(same, plain(), plain())
  agrees(same, h, function() return { x, x } end)
  agrees(same, h, function() return { plain(), plain() } end)
end)

test("two arguments that are one table", function()
  local f = function(a, b) if a == b then return a.x + 1 end return a.x + b.x end
  local t, x = { x = plain() }, plain()
  local h = saved(f, t, t)
  equal(h(t, t):totable(), f(t, t):totable())
  raises(function() h({ x = x }, { x = x }) end, "argument 2 must be the same as a table before it")
  h = saved(f, { x = x }, { x = plain() })
  local a, b = { x = x }, { x = plain() }
  equal(h(a, b):totable(), f(a, b):totable())
  raises(function() h(a, a) end, "argument 2 must be another one than a table before it")
end)

test("tables: keys, missing fields, metatables", function()
  local f = function(t) return t.x * (t.k or 1) end
  local h = saved(f, { x = plain() })
  raises(function() h { x = plain(), k = 2 } end, "field k")
  raises(function() h { y = plain() } end, "field y")
  raises(function() h {} end, "a tensor is needed")
  raises(function() h(setmetatable({ x = plain() }, { __index = { k = 3 } })) end, "without a metatable")
end)

test("requires_grad and gradient mode", function()
  local h = saved(function(x) if x.requires_grad then return x * 2 end return x * 3 end, plain())
  equal(h(plain()):totable(), (plain() * 3):totable())
  raises(function() h(plain():requires_grad_()) end, "input x requires grad, and the graph was made for one that does not")
  local w = T { 1.0, 2 }:requires_grad_()
  local f = function(x) local l = (x * w):sum() l:backward() return w.grad end
  raises(function() saved(f, T { 3.0, 4 }) end, "save", "w.grad", "call it once more")
  h = saved(f, T { 3.0, 4 })
  equal(h(T { 5.0, 6 }):totable(), { 11.0, 14.0 }) -- its own w, with the gradient it had
  equal(h(T { 5.0, 6 }):totable(), { 16.0, 20.0 })
  equal(w.grad:totable(), { 6.0, 8.0 })
  raises(function() h(T { 5.0, 6 }:requires_grad_()) end, "requires grad")
  raises(function() kiln.no_grad(function() h(T { 5.0, 6 }) end) end, "was made with gradients on")
  h = kiln.no_grad(function() return saved(function(x) return (x * w).requires_grad and x or -x end, T { 1.0, 1 }) end)
  raises(function() h(T { 1.0, 1 }) end, "was made with gradients off")
  equal(kiln.no_grad(function() return h(T { 1.0, 1 }) end):totable(), { -1.0, -1.0 })
end)

test("a graph that asks for no gradients may be given what requires them", function()
  local h, text = saved(function(x) return x * x end, plain())
  local x = plain():requires_grad_()
  h(x):sum():backward()
  equal(x.grad:totable(), (plain() * 2):totable())
  truth(not text:find("need ", 1, true), text)
end)

test("dtype, rank, sizes", function()
  local f = function(x) return x:squeeze() end
  local h = saved(f, T { { 1.0, 2, 3 } })
  raises(function() h(plain()) end, "float32[1,3] is needed")
  raises(function() h(T { { 1, 2, 3 } }) end, "float32[1,3] is needed")
  raises(function() h(T { 1.0, 2, 3 }) end, "float32[1,3] is needed")
  h = saved(f, plain())
  raises(function() h(T { { 1.0, 2, 3 } }) end, "float32[2,3] is needed")
  f = function(x, y) return x + y end
  h = saved(f, plain(), plain())
  agrees(f, h, function() return { T { { 1.0, 2, 3 } }, plain() } end) -- sizes that are free may be 1
end)

test("arguments that were burnt in", function()
  local f = function(x, v) if v == 1 then return x:sum(v) end return v and x or -x end
  local other = { [1] = 2, a = "b", [true] = false, [2.5] = 1.5 }
  for v, w in pairs(other) do
    local h = saved(f, plain(), v)
    agrees(f, h, function() return { plain(), v } end)
    if v ~= 2.5 then raises(function() h(plain(), w) end, "the graph was made for " .. tostring(v) .. " here, got " .. tostring(w)) end
  end
  local h = saved(f, plain())
  raises(function() h(plain(), true) end, "takes 1 argument")
  raises(function() h() end, "a tensor is needed")
end)

test("numbers keep their kind", function()
  local f = function(x, n) return n // 2 end
  local h = saved(f, plain(), 5.0)
  equal(math.type(h(plain(), 5.0)), "float")
  raises(function() h(plain(), 5) end, "a float is needed")
  h = saved(f, plain(), 5)
  equal(math.type(h(plain(), 5)), "integer")
  raises(function() h(plain(), 5.0) end, "an integer is needed")
  local described = kiln.script(function(n) return n * 2 end, { inputs = { "float" } })
  equal(described(3), 6.0) -- described as a float: an integer becomes one
end)

test("functions and objects cannot be saved", function()
  raises(function() saved(function(x, f) return f(x) end, plain(), function(x) return x + 1 end) end, "save",
    "the argument 'f'", "upvalue")
  raises(function() saved(function(m, x) return m(x) end, kiln.nn.ReLU(), plain()) end, "the argument 'm'")
end)

test("a spec is checked for layout and grad before each call", function()
  local f = function(x) local y = x:reshape(6) y:add_(1) return y end
  local g = kiln.script(f, { inputs = { kiln.spec("float32", { 2, 3 }) } })
  equal(g(plain()):totable(), f(plain()):totable())
  for _ = 1, 10 do raises(function() g(turned()) end, "input x is not contiguous") end
  equal(g:captures().n, 1)
  g = kiln.script(function(x) return x.requires_grad and x or -x end, { inputs = { kiln.spec("float32", { 2, 3 }) } })
  raises(function() g(plain():requires_grad_()) end, "input x requires grad")
end)

test("the deterministic switch is of the run, not of the graph", function()
  local f = function(x) return x:index_add(1, T { 1, 1 }, x) end
  local h = saved(f, plain())
  kiln.use_deterministic_algorithms(true)
  local ok, why = pcall(agrees, f, h, function() return { plain() } end)
  kiln.use_deterministic_algorithms(false)
  truth(ok, why)
end)

test("a graph that begins from nil only once", function()
  local kept
  local f = function(x) if kept then x = x + kept end kept = x return x * 1 end
  local g, path = kiln.script(f), os.tmpname()
  g(T { 1.0 })
  raises(function() g:save(path) end, "save", "kept", "call it once more")
  g(T { 1.0 })
  g:save(path)
  local h = kiln.load(path)
  os.remove(path)
  for i = 3, 5 do equal(h(T { 1.0 }):totable(), { i + 0.0 }) end
end)
