-- Graphs called inside captured functions: scripted ones are gone on in, traced, loaded, parsed and built ones copied.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor
local nn, F, optim = kiln.nn, kiln.nn.functional, kiln.optim

-- `make(script)` gives a function; called as it is, with the inner functions scripted, and with itself scripted besides, it
-- gives the same from the same seed, to the bit.
local function agree(name, make)
  test(name, function()
    local function run(inner, outer)
      kiln.manual_seed(11)
      local f, calls = make(inner)
      f = outer(f)
      local all = {}
      for i, given in ipairs(calls()) do
        local r = table.pack(pcall(f, table.unpack(given, 1, given.n or #given)))
        r.given, r.n = given, nil
        all[i] = r
      end
      all[#all + 1] = kiln.rand(1):item()
      return all
    end
    local function same(f) return f end
    local want = run(same, same)
    for _, got in ipairs { run(kiln.script, same), run(kiln.script, kiln.script) } do
      for i = 1, #want - 1 do equal(got[i][1] or got[i][2], want[i][1] or want[i][2]) end
      truth(check.identical(got, want, { tensors = true }), "they are the same to the bit")
    end
  end)
end

local function stripped(f) return load(string.dump(f, true)) end

-- Calls body with a graph of f, saved and loaded.
local function loaded(f, ...)
  local g, path = kiln.script(f), os.tmpname()
  g(...)
  g:save(path)
  local h = kiln.load(path)
  os.remove(path)
  return h
end

-- ---- scripted functions ----

agree("a scripted function in a branch and in a loop", function(script)
  local half = script(function(x, by) return x / by, x:sum() end)
  local twice = script(function(x) local y = half(x, 0.5) return y end)
  return function(x, n)
    local s
    if x:sum():item() > 0 then x, s = half(x, 4) else x = twice(x) + 1 end
    for i = 1, n do x = twice(x) - i end
    while x:abs():max():item() > 0.25 do x = half(x, 3) end
    return x, s
  end, function() return { { T { 1.0, 2 }, 3 }, { T { -4.0, 2, 1 }, 0 }, { T { 3.5 }, 5 }, { T { -1.0, -1 }, 1 } } end
end)

agree("two scripted functions call each other", function(script)
  local odd
  local even = script(function(x, n) if n == 0 then return x end return odd(x * 2, n - 1) end)
  odd = script(function(x, n) if n == 0 then return -x end return even(x + 1, n - 1) end)
  return function(x) return even(x, x:size(1)), odd(x[1]:sum(), #x) end,
         function() return { { T { 1.0, 2 } }, { T { 1.0, 2, 3 } }, { T { 7.0 } } } end
end)

test("recursion over data is refused, not followed without end", function()
  local f
  f = kiln.script(function(x) if x:sum():item() > 1 then return f(x / 2) end return x end)
  raises(function() f(T { 8.0 }) end, "capture_nested.lua", "nested more than", "write it as a loop")
end)

agree("the same graph called twice, on what it gave and on another", function(script)
  local seen = 0
  local step = script(function(x, w) seen = seen + 1 return (x * w):relu(), { w, n = seen } end)
  return function(x)
    local a, t = step(x, 2)
    local b, u = step(a - 1, x)
    return a, b, t, u, seen
  end, function() return { { T { 1.0, -2 } }, { T { 1.0, 2, 3 } }, { T { 3.0, 1 } } } end
end)

agree("what is written to inside is seen outside", function(script)
  local total = kiln.zeros(2)
  local counts = { n = 0 }
  local add = script(function(x, v) total:add_(x) counts.n = counts.n + 1 x:mul_(v) return total:sum() end)
  return function(x)
    local y = x * 1
    local s = add(x, 3)
    if s:item() > 4 then add(y, 2) end
    return s, x, y, total, counts.n
  end, function() return { { T { 1.0, 2 } }, { T { 4.0, 2 } }, { T { 0.5, 0.25 } } } end
end)

agree("random numbers and functions as arguments", function(script)
  local noise = script(function(x, f) return f(x + kiln.rand(2)), kiln.randn(2) end)
  local square = script(function(x) return x * x end)
  return function(x)
    local a, b = noise(x, square)
    local c = noise(x, function(v) return square(v) - kiln.rand(1) end)
    return a, b, c
  end, function() return { { T { 1.0, 2 } }, { T { 4.0, 2 } } } end
end)

agree("an error inside is the same error, and is caught", function(script)
  local strict = script(function(x) assert(x:sum():item() > 0, "too small") return x:log() end)
  return function(x, y)
    local ok, why = pcall(strict, y)
    if not ok then return why end
    return strict(x), why
  end, function()
    return { { T { 1.0 }, T { 2.0 } }, { T { 1.0 }, T { -2.0 } }, { T { -1.0 }, T { 2.0 } }, { T { 1.0 }, T { 3.0 } } }
  end
end)

test("errors have the line, and the chain of calls", function()
  local inner = kiln.script(function(a, b) return a:matmul(b) end)
  local line = debug.getinfo(1, "l").currentline - 1
  local outer = kiln.script(function(a, b) return inner(a, b) end)
  local function sentence(f) return select(2, pcall(f, kiln.ones(2, 3), kiln.ones(2, 3))) end
  equal(sentence(outer), sentence(inner))
  truth(sentence(outer):find("capture_nested.lua:" .. line .. ": ", 1, true), sentence(outer))
  local co = kiln.script(function(x) return coroutine.wrap(function() return x end)() end)
  raises(function() kiln.script(function(x) return co(x) end)(T { 1.0 }) end, "coroutine",
         "capture_nested.lua:" .. debug.getinfo(1, "l").currentline - 1, "inlined")
end)

test("an outside value of the inner function is guarded", function()
  local scale, w = 2, T { 1.0, 2.0 }
  local inner = kiln.script(function(x) return x * scale + w end)
  local outer = kiln.script(function(x) return inner(x):sum() end)
  local x = T { 1.0, 1 }
  equal(outer(x):item(), 7.0)
  equal(kiln.explain(outer, x).captures, 1)
  scale = 3
  equal(outer(x):item(), 9.0)
  w = T { 10.0, 20.0 }
  equal(outer(x):item(), 36.0)
  equal(kiln.explain(outer, x).captures, 2)
  truth(kiln.explain(outer, x).recaptures[1]:find("upvalue 'scale' was 2", 1, true))
  inner = kiln.script(function(x) return -x end)
  equal(outer(x):item(), -2.0)
  equal(kiln.explain(outer, x).captures, 3)
end)

test("without names and lines", function()
  local f = stripped(function()
    local kiln = require "kiln"
    local w = kiln.tensor { 2.0, 3.0 }
    local inner = kiln.script(function(x, n) for i = 1, n do x = x * w end return x, n end)
    return kiln.script(function(x) local a = inner(x, 2) if a:sum():item() > 30 then a = inner(a, 1) end return a end)
  end)
  local g = f()
  equal(g(T { 1.0, 1 }):totable(), { 4.0, 9.0 })
  equal(g(T { 10.0, 1 }):totable(), { 80.0, 27.0 })
end)

test("inside cond, while_loop, fork and a Graph of a Graph", function()
  local double = kiln.script(function(x) return x * 2 end)
  local less = kiln.script(function(x) return x:sum() < 20 end)
  local outer = kiln.script(function(x)
    local y = kiln.cond(x:sum() > 3, double, function(v) return v end, x)
    y = kiln.while_loop(less, double, y)
    local f = kiln.fork(double, y)
    return y, kiln.wait(f)
  end)
  for _, x in ipairs { T { 1.0, 1 }, T { 3.0, 1 } } do
    local y = (x:sum():item() > 3 and x * 2 or x)
    while y:sum():item() < 20 do y = y * 2 end
    local a, b = outer(x)
    truth(a:equal(y) and b:equal(y * 2))
  end
  local again = kiln.script(kiln.script(double))
  equal(again(T { 3.0 }):totable(), { 6.0 })
  equal(kiln.trace(function(x) return outer(x) end, { T { 1.0, 1 } })(T { 1.0, 1 }):totable(), { 16.0, 16.0 })
end)

test("described inputs hold inside, too", function()
  local inner = kiln.script(function(x, k, o) return x * k, math.type(k), math.type(o.n) end,
                            { inputs = { kiln.spec("float32", { "N", 2 }), "float", { n = "integer" } } })
  local outer = kiln.script(function(x, k, o) return inner(x, k, o) end)
  local x = kiln.ones(3, 2)
  local function texts(f, ...) local y, a, b = f(...) return { y:totable(), a, b } end
  equal(texts(outer, x, 3, { n = 4 }), texts(inner, x, 3, { n = 4 }))
  equal(texts(outer, x, 3.5, { n = 4.0 }), texts(inner, x, 3.5, { n = 4.0 }))
  raises(function() outer(kiln.ones(3, 3), 1, { n = 1 }) end, "argument 1 must be float32[?,2], got float32[3,3]")
  raises(function() outer(kiln.ones(3, 2, "int64"), 1, { n = 1 }) end, "argument 1 must be float32[?,2], got int64")
  raises(function() outer(x, "a", { n = 1 }) end, "argument 2 must be float, got string")
  raises(function() outer(x, 1, { n = 1.5 }) end, "argument 3.n must be integer")
  raises(function() outer(x, 1, x) end, "argument 3 must be a table")
  raises(function() kiln.script(function(v) return inner(v) end)(x) end, "takes 3 arguments, with 1")
  local square = kiln.script(function(x) return x:t() end, { inputs = { kiln.spec("float32", { "N", "N" }) } })
  local turn = kiln.script(function(v) return square(v) end)
  equal(turn(kiln.ones(2, 2)):totable(), kiln.ones(2, 2):totable())
  raises(function() turn(kiln.ones(2, 3)) end, "argument 1 must be float32[?,?]")
end)

-- ---- modules ----

local function trained(name, make, options)
  agree(name, function(script)
    local net = make(script)
    local params = net:parameters()
    local opt = optim.Adam(params, { lr = 0.05 })
    local model = script(net)
    return function(x, y)
      opt:zero_grad()
      local loss = F.mse_loss(model(x), y)
      loss:backward()
      opt:step()
      local grads = {}
      for i, p in ipairs(params) do grads[i] = p.grad:clone() end
      return loss, grads
    end, function()
      local x, y = kiln.randn(4, 3), kiln.randn(4, 2)
      return { { x, y }, { x, y }, { kiln.randn(6, 3), kiln.randn(6, 2) } }
    end
  end)
end

trained("a training step with a scripted model", function()
  return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.25), nn.Linear(5, 2))
end)

trained("a scripted function between the layers", function(script)
  local gate = script(function(x) if x:sum():item() > 0 then return x:sigmoid() end return x:tanh() end)
  return nn.Sequential(nn.Linear(3, 5), function(x) return gate(x) end, nn.Linear(5, 2))
end)

test("a loss and a gradient through a scripted function", function()
  local w = nn.Parameter(T { 1.0, 2.0 })
  local inner = kiln.script(function(x) return (x * w):tanh() end)
  local outer = kiln.script(function(x) return inner(inner(x)):sum() end)
  local x = T { 0.5, -1.0 }
  local function grad(f) w.grad = nil f(x):backward() return w.grad:totable() end
  local want = grad(function(v) v = (v * w):tanh() return (v * w):tanh():sum() end)
  equal(grad(outer), want)
  local step = kiln.script(function(v) w.grad = nil inner(inner(v)):sum():backward() return w.grad end)
  equal(step(x):totable(), want)
  local by = kiln.script(function(v) local g = kiln.grad(inner(v):sum(), w, { create_graph = true }) return kiln.grad(g:sum(), w) end)
  local g = kiln.grad((x * w):tanh():sum(), w, { create_graph = true })
  equal(by(x):totable(), kiln.grad(g:sum(), w):totable())
  kiln.no_grad(function() equal(outer(x):item(), outer(x):item()) end)
end)

-- ---- Graphs without a function ----

test("a loaded model inside", function()
  kiln.manual_seed(3)
  local net = nn.Linear(3, 2)
  local model = loaded(net, kiln.randn(4, 3))
  local outer = kiln.script(function(x, n)
    local y = model(x)
    for i = 1, n do y = model(kiln.cat({ y, x[{ {}, { 3, 3 } }] }, 2)) end
    return y
  end)
  local function plain(x, n)
    local y = net(x)
    for i = 1, n do y = net(kiln.cat({ y, x[{ {}, { 3, 3 } }] }, 2)) end
    return y
  end
  for n = 0, 2 do
    local x = kiln.randn(5, 3)
    truth(check.identical(outer(x, n), plain(x, n):detach()))
  end
  truth(kiln.explain(outer, kiln.randn(2, 3), 1).captures == 1)
  -- its parameters are read at each call, and trained through
  local w, x = model:parameters(), kiln.randn(5, 3)
  local mine = {}
  for name, p in pairs(w) do mine[name] = net[name:match "[^.]+$"] end
  kiln.no_grad(function() for name, p in pairs(w) do p:mul_(2) mine[name]:mul_(2) end end)
  truth(check.identical(outer(x, 1), plain(x, 1):detach()))
  for _, p in pairs(w) do p:requires_grad_() end
  outer(x, 1):sum():backward()
  plain(x, 1):sum():backward()
  for name, p in pairs(w) do truth(check.identical(p.grad, mine[name].grad), name) end
  local step = kiln.script(function(v)
    for _, p in pairs(w) do p.grad = nil end
    model(v):pow(2):sum():backward()
    local list = {}
    for name, p in pairs(w) do list[name] = p.grad end
    return list
  end)
  net:zero_grad()
  net(x):pow(2):sum():backward()
  for name, g in pairs(step(x)) do truth(check.identical(g, mine[name].grad), name) end
  raises(function() outer(kiln.randn(5, 4), 0) end, "matmul: inner sizes differ, 4 and 3")
end)

test("what arguments and results are", function()
  local g = kiln.parse [[
graph g(%x: float32[N], {scale = %s: float, mode = "a"}, %n: integer, %b: boolean) {
  slot const "w": float32[2] = {1.0, 2.0}
  %w = tensor "w"
  %t: float32[] = to_tensor %s
  %k: float32[N] = mul %x, %t
  %one = const 1
  %m: integer = lua.add %n, %one
  %y: float32[N] = if %b {
    yield %k
  } else {
    %j: float32[N] = neg %k
    yield %j
  }
  return %y, &1{%x, a = &1, m = %m, label = "deep", [3] = nil, &2{%k}}, %w, &2{%k}, true, %k
}
]]
  local function both(...)
    local f = kiln.script(function(...) return g(...) end)
    local want, got = table.pack(g(...)), table.pack(f(...))
    equal(#got, #want)
    truth(check.identical(got, want, { tensors = true }), "they are the same")
    return f
  end
  both(T { 1.0, 2, 3 }, { scale = 2, mode = "a" }, 3, true)
  both(T { 1.0 }, { scale = 2.5, mode = "a" }, 3.0, false)
  local f = kiln.script(function(...) return g(...) end)
  local x, o = T { 1.0 }, { scale = 1, mode = "a" }
  raises(function() f(x, { scale = 1, mode = "b" }, 1, true) end, 'argument 2.mode: the graph was made for "a" here')
  raises(function() f(x, { scale = 1, mode = "a", c = 1 }, 1, true) end, "the graph has no use for field argument 2.c")
  raises(function() f(x, o, 1.5, true) end, "argument 3 (n): an integer is needed")
  raises(function() f(x, o, 1, 1) end, "argument 4 (b): a boolean is needed")
  raises(function() f(1, o, 1, true) end, "argument 1 (x): a tensor is needed")
  raises(function() f(x, o, 1) end, "argument 4 (b): a boolean is needed")
  raises(function() f(x, o, 1, true, 5) end, "takes 4 arguments, with 5")
  raises(function() f(kiln.ones(1, "int64"), o, 1, true) end, "graph g: input 1 must be float32[N]")
  raises(function() f(kiln.ones(1, 2), o, 1, true) end, "graph g: input 1 must be float32[N]")
end)

test("its results are written to, and its arguments", function()
  local g = kiln.parse "graph g(%x: float32[N]) {\n  %y: float32[N] = relu %x\n  return %y, %x, %y\n}\n"
  local function f(x)
    local y, z, w = g(x)
    y:add_(1)
    z:mul_(3)
    return x, y, z, w, rawequal(y, w)
  end
  local x, y = T { -1.0, 2 }, T { -1.0, 2 }
  truth(check.identical({ kiln.script(f)(x) }, { f(y) }, { tensors = true }))
  truth(check.identical(x, y))
  local either = kiln.parse [[
graph g(%x: float32[N], %b: boolean) {
  %y: float32[N] = if %b {
    yield %x
  } else {
    %z: float32[N] = neg %x
    yield %z
  }
  return %y
}
]]
  equal(kiln.script(function(v) return either(v, true) * 2 end)(T { 1.0 }):totable(), { 2.0 })
  raises(function() kiln.script(function(v) local r = either(v, true) r:add_(1) return r end)(T { 1.0 }) end,
         "may give back one of the tensors given to it", "clone the result")
end)

test("a traced Graph inside reads where it was traced from", function()
  local t = { w = T { 1.0, 2.0 } }
  local b = T { 0.5, 0.5 }
  local traced = kiln.trace(function(x) return x * t.w + b end, { T { 1.0, 1 } })
  local outer = kiln.script(function(x) t.w = t.w + 1 return traced(traced(x)) end)
  local x = T { 1.0, 1.0 }
  local function plain() t.w = t.w + 1 return traced(traced(x)) end
  t.w = T { 1.0, 2.0 }
  local want = { plain(), plain() }
  t.w = T { 1.0, 2.0 }
  truth(check.identical({ outer(x), outer(x) }, want))
  b = T { 10.0, 20.0 }
  t.w = T { 1.0, 2.0 }
  want = plain()
  t.w = T { 1.0, 2.0 }
  truth(check.identical(outer(x), want))
  raises(function() outer(T { 1.0, 2, 3 }) end, "input 1 must be float32[2]")
end)

test("what Graphs do besides is refused", function()
  local count, w = 0, nn.Parameter(T { 1.0, 2.0 })
  local x = T { 1.0, 2.0 }
  local function refused(g, ...) raises(function() kiln.script(function(v) return g(v) end)(x) end, "g' (graph", ...) end
  refused(loaded(function(v) count = count + 1 return v * count end, x), "keeps state of its own, 'count'")
  refused(loaded(function(v) v:add_(1) return v end, x), "overwrites a tensor that is given to it")
  refused(loaded(function(v) return kiln.grad((v * w):sum(), w) end, x), "has gradients of its own")
  refused(loaded(function(v) if v:sum():item() > 0 then return v end return 1 end, x), "values of one kind or another")
  refused(kiln.parse "graph g(%x: float32[N], %y: float32[N]) {\n  return %x\n}\n", "argument 2 (y): a tensor is needed")
  local g = kiln.script(function(v) return v end)
  g(x)
  for _, method in ipairs { "parameters", "code", "save" } do
    raises(function() kiln.script(function() return g[method](g) end)() end, "the method '" .. method .. "' of 'g'", "call it outside")
  end
end)

test("a layer that needs its input in order", function()
  local g = loaded(function(x) return x:view(4) * 1 end, kiln.ones(2, 2))
  truth(tostring(g):find("need %x contiguous", 1, true))
  equal(kiln.script(function(x) return g(x * 2) end)(kiln.ones(2, 2)):totable(), { 2.0, 2.0, 2.0, 2.0 })
  local f = kiln.script(function(x) return g(x) end)
  equal(f(kiln.ones(2, 2)):totable(), { 1.0, 1.0, 1.0, 1.0 })
  raises(function() f(kiln.ones(2, 2):t()) end, "is not contiguous")
  raises(function() kiln.script(function(x) return g(x:t()) end)(kiln.ones(2, 2)) end, "needs its input 1 contiguous")
end)

test("kiln.lint goes on in a scripted function, and lets other Graphs be", function()
  local inner = kiln.script(function(x) return x * os.time() end)
  local g = kiln.parse "graph g(%x: float32[N]) {\n  return %x\n}\n"
  local text = tostring(kiln.lint(function(x) return inner(g(x)) end))
  truth(text:find("calls the C function 'os.time'", 1, true) and not text:find("'g'", 1, true), text)
end)
