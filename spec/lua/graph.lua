-- Graph objects: what they take and give, what they show, and the way to a file and back.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local function here() return "graph.lua:" .. debug.getinfo(2, "l").currentline .. ": " end

-- A place for files of this run.
local folder = os.getenv "TMPDIR" or "/tmp"
local path = ("%s/kiln-spec-%d.kiln"):format(folder, math.random(0, math.maxinteger))
local function with_file(f)
  return function()
    local ok, why = pcall(f)
    os.remove(path)
    if not ok then error(why, 0) end
  end
end

local text = [[
graph f(%x: float32[N,3], {scale = %s: float, mode = "train"}, %n: integer) {
  guard global "limit" = "3"                                     ; f.lua:1
  slot const "w": float32[3,2] = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
  slot param "b": float32[2]                                     ; f.lua:2
  slot state "count": integer = 0
  %w = tensor "w"
  %count = load_state "count"
  %one = const 1
  %c: integer = lua.add %count, %one
  store_state "count", %c
  %h: float32[N,2] = matmul %x, %w                               ; f.lua:3 <- g.lua:9
  %t: float32[] = to_tensor %s
  %y: float32[N,2] = mul %h, %t
  %zero = const 0
  %m: boolean = lua.lt %zero, %n
  assert %m "n must be positive"
  if %m {
    %k: float32[N,2] = relu %h
  } else {
  }
  return %y, {%x, label = "deep", count = %c, n = %n, {}}, nil, &1{}, &1{}, %y
}
]]
local x = kiln.tensor { { 1.0, 0, 0 }, { 0, 1.0, 0 }, { 0, 0, 2.0 }, { 0, 0, 0 } }
local options = { scale = 2.0, mode = "train" }

test("text in, text out", function()
  local shown = text:gsub("  guard [^\n]*\n", "")
  local guards = select(2, text:gsub("\n  guard ", "")) -- people get their number; g:guards() lists them
  if guards > 0 then shown = shown:gsub("{\n", "{\n  ; " .. guards .. " guard" .. (guards == 1 and "" or "s") .. ": g:guards()\n", 1) end
  equal(tostring(kiln.parse(text)), shown)
  local code = kiln.parse(text):code()
  truth(not code:find "slot " and code:find("local h = x:matmul(", 1, true), code)
  raises(function() kiln.parse "graph g(%x: float32[2]) {\n  %y = nosuch %x\n" end, here(), "parse: 2:8: there is no op or node 'nosuch'")
end)

test("a node that fails gives its own place, once", function()
  local function f(a, b)
    local c = a * 2
    return c + b
  end
  local line = debug.getinfo(1, "l").currentline - 2
  local ok, why = pcall(kiln.script(f), kiln.ones(2), kiln.ones(3))
  truth(not ok and why:match("^[^:]*graph%.lua:" .. line .. ": add: "), why)
end)

test("arguments and results keep their shape, kinds and identity", function()
  local g = kiln.parse(text)
  local y, r, nothing, a, b, again = g(x, options, 5)
  equal(y:totable(), { { 2.0, 4.0 }, { 6.0, 8.0 }, { 20.0, 24.0 }, { 0.0, 0.0 } })
  truth(rawequal(r[1], x), "an input returned is the value given")
  truth(rawequal(y, again), "one value returned twice is one value")
  truth(a == b and next(a) == nil and a ~= r[2], "one table returned twice is one table")
  equal(nothing, nil)
  equal({ r.label, r.count, r.n, r[2] }, { "deep", 1, 5, {} })
  equal(select("#", g(x, options, 5)), 6)
  local _, s = g(x, { scale = 2, mode = "train" }, 5.0) -- an integer is a float where one is wanted, 5.0 an integer
  equal({ s.count, s.n }, { 3, 5 })
end)

test("wrong arguments are named", function()
  local g = kiln.parse(text)
  raises(function() g(x, { scale = 2, mode = "eval" }, 5) end, here(), "argument 2.mode: the graph was made for train here, got eval")
  raises(function() g(x, { scale = 2 }, 5) end, here(), "argument 2.mode", "train", "nil")
  raises(function() g(x, { scale = 2, mode = "train", z = 3 }, 5) end, here(), "argument 2: the graph has no use for field z")
  raises(function() g(x, { scale = "a", mode = "train" }, 5) end, here(), "argument 2.scale: a number is needed, got a string")
  raises(function() g(x, 3, 5) end, here(), "argument 2: a table is needed, got an integer")
  raises(function() g(1, options, 5) end, here(), "argument 1 (x): a tensor is needed, got an integer")
  raises(function() g(x, options) end, here(), "argument 3 (n): an integer is needed, got nil")
  raises(function() g(x, options, 5.5) end, here(), "argument 3 (n): number has no integer representation")
  raises(function() g(x, options, 5, 7) end, here(), "takes 3 arguments, got 4")
  raises(function() g(kiln.ones(4, 4), options, 1) end, here(), "input x", "float32[N,3]", "float32[4,4]")
  raises(function() g(kiln.ones(4, 3, { dtype = "float64" }), options, 1) end, here(), "input x", "float64[4,3]")
  local ok, why = pcall(g, x, options, -1)
  equal({ ok, why }, { false, "n must be positive" })
  local _, r = g(x, options, 1)
  equal(r.count, 1) -- failed calls have stored nothing
end)

test("gradients flow where something requires grad", function()
  local g = kiln.parse(text)
  local leaf = kiln.ones(2, 3):requires_grad_()
  truth(g(leaf, options, 1).requires_grad)
  truth(not kiln.no_grad(function() return (g(leaf, options, 1)) end).requires_grad)
  truth(not g(leaf:detach(), options, 1).requires_grad)
end)

test("what is in it", function()
  local g = kiln.parse(text)
  local ops, depths = {}, {}
  for i, n in ipairs(g:nodes()) do ops[i], depths[i] = n.op, n.depth end
  equal(table.concat(ops, " "), "tensor load_state const lua.add store_state matmul to_tensor mul const lua.lt assert if relu")
  equal(table.concat(depths), "1111111111112")
  equal(g:nodes()[6], { op = "matmul", name = "h", where = "f.lua:3 <- g.lua:9", depth = 1 })
  equal(g:inputs()[1], { name = "x", type = "float32[N,3]", dtype = "float32", device = "cpu", shape = { "N", 3 } })
  equal(g:inputs()[3], { name = "n", type = "integer" })
  equal(#g:outputs(), 5)
  equal(g:guards(), { { kind = "global", name = "limit", value = "3", where = "f.lua:1" } })
  equal(g:parameters(), { count = 0 }) -- b has no data in a text
  g(x, options, 1)
  equal(g:parameters(), { count = 1 })
end)

test("planning ahead", function()
  local g = kiln.parse(text)
  truth(g:prepare { N = 7 } == g)
  local small, large = g:memory { N = 8 }, g:memory { N = 8000 }
  truth(small > 0 and large > 500 * small, "memory grows with N")
  equal(g:memory(x, options, 1), g:memory { N = 4 })
  raises(function() g:memory() end, here(), "size N is needed")
  raises(function() g:memory { N = "many" } end, here(), "size N is needed")
  raises(function() g:prepare { M = 3 } end, here(), "argument 1 (x)")
end)

test("save and load", with_file(function()
  local g = kiln.parse(text:gsub('  slot param[^\n]*\n', ""))
  g(x, options, 1)
  g:save(path)
  local l = kiln.load(path)
  equal(tostring(l), (tostring(g):gsub("= 0\n", "= 1\n", 1))) -- state as it was when saved
  local y, r = l(x, options, 1)
  truth(y:equal((g(x, options, 1))))
  equal(r.count, 2)
  equal(l:guards(), g:guards())
  raises(function() l:verify(x, options, 1) end, here(), "was loaded or frozen, there is no function")
end))

test("several in one file, sharing what they share", with_file(function()
  local net = kiln.nn.Linear(3, 2)
  local f, h = kiln.script(function(v) return net(v) end), kiln.script(function(v) return net(v):relu() end)
  f(x) h(x)
  kiln.save(path, { plain = f, relu = h })
  local t = kiln.load(path)
  truth(t.plain(x):equal(net(x)) and t.relu(x):equal(net(x):relu()))
  local one, other = t.plain:parameters(), t.relu:parameters()
  for name, p in pairs(one) do truth(p == other[name], name .. " is one tensor") end
  raises(function() kiln.save(path, {}) end, here(), "no graph")
  raises(function() kiln.save(path, { a = 3 }) end, here(), "a table of Graphs by name is needed, got an integer under a")
  raises(function() kiln.save(path, 3) end, here(), "a table of Graphs by name")
end))

test("saved weights are the present ones", with_file(function()
  local net = kiln.nn.Linear(3, 2)
  local f = kiln.script(function(v) return net(v) end)
  f(x)
  kiln.no_grad(function() net.weight:copy_(kiln.ones(2, 3)) end)
  net.bias = kiln.nn.Parameter and kiln.nn.Parameter(kiln.full(2, 5.0)) or net.bias
  f:save(path)
  truth(kiln.load(path)(x):equal(net(x)))
  truth(f:parameters()["net.weight"] == net.weight)
end))

test("files that are none", with_file(function()
  raises(function() kiln.load(path) end, here(), "cannot open", "No such file")
  raises(function() kiln.load(folder) end, here(), "not a regular file")
  local f = assert(io.open(path, "wb"))
  f:write(("x"):rep(100))
  f:close()
  raises(function() kiln.load(path) end, here(), path)
  raises(function() kiln.load() end, "load: a path is needed, got nil")
  raises(function() kiln.parse(text):save(path) end, here(), "slot \"b\" has no data")
  raises(function() kiln.parse(text:gsub("  slot param[^\n]*\n", "")):save(folder .. "/no/where.kiln") end, here(), "cannot write")
end))

test("loaded tensors may be written to, the file stays", with_file(function()
  local net = kiln.nn.Linear(3, 2)
  local f = kiln.script(function(v) return net(v) end)
  f(x)
  f:save(path)
  local l = kiln.load(path)
  local before = l(x)
  for _, p in pairs(l:parameters()) do p:zero_() end
  truth(kiln.load(path)(x):equal(before))
end))

test("verify agrees, and says where it does not", function()
  local bias = kiln.ones(3)
  local f = kiln.script(function(v)
    if v:sum():item() > 0 then return { v + bias, count = 1, v:exp() } end
    return { v, count = 2, v }
  end)
  truth(f:verify(x) and f:verify(-x, { rtol = 0, atol = 0 }))
  raises(function() f:verify(x, { rtol = -1 }) end, here(), "rtol")
  truth(kiln.script(function(v) return v + kiln.rand(4, 3) end):verify(x), "the same random numbers for both")

  local function cheat(make) -- behaves differently when captured
    local g = kiln.script(function(v) return make(v, kiln.is_capturing()) end)
    return function() g:verify(x) end
  end
  raises(cheat(function(v, captured) return v, { list = { v, captured and v + 1e-3 or v } } end), "graph.lua:",
    "result 2.list[2] differs: 12 of 12 elements, first [1,1]: 1.0", "in the graph, 1 in the function; at most by 0.001")
  raises(cheat(function(_, captured) return captured and 1.5 or 2.5 end), "result 1 differs: 1.5 in the graph, 2.5 in the function")
  raises(cheat(function(_, captured) return captured and 1 or 1.0 end), "result 1 differs: 1 in the graph, 1.0 in the function")
  raises(cheat(function(_, captured) return captured and "a" or "b" end), "'a' in the graph, 'b' in the function")
  raises(cheat(function(v, captured) return captured and v or v:sum() end), "float32[4,3]", "float32[]")
  raises(cheat(function(v, captured) return captured and v or {} end), "the graph gives a tensor, the function a table")
  raises(cheat(function(v, captured) if captured then return v end return v, v end), "the graph gives 1 results, the function 2")
  raises(cheat(function(v, captured) return captured and { v } or { v, more = 1 } end), "result 1.more differs")
  raises(cheat(function(v, captured) return captured and { v, more = 1 } or { v } end), "result 1.more differs")
  raises(cheat(function(v, captured) return v:argmax() + (captured and 1 or 0) end), "1 of 1 elements")
end)

test("verify lets the function keep its state once", function()
  local count = 0
  local f = kiln.script(function(v)
    count = count + 1
    return v * count
  end)
  f(x)
  truth(f:verify(x))
  equal(count, 2)
end)

test("random numbers are one stream, eager and captured", function()
  local function f(v) return v + kiln.rand(4, 3), kiln.randn(2) end
  local g = kiln.script(f)
  kiln.manual_seed(3)
  local a, b = f(x)
  local c = kiln.rand(2)
  kiln.manual_seed(3)
  local d, e = g(x)
  truth(a:equal(d) and b:equal(e) and c:equal(kiln.rand(2)))
end)

test("dropped graphs give their memory back", with_file(function()
  local net = kiln.nn.Linear(300, 300)
  local v = kiln.ones(8, 300)
  local f = kiln.script(function(u) return net(u) end)
  f(v)
  f:save(path)
  local function used()
    collectgarbage() collectgarbage()
    return kiln.memory_stats().allocated
  end
  local start
  for i = 1, 6 do
    kiln.load(path)(v)
    kiln.script(function(u) return net(u) + i end)(v)
    if i == 2 then start = used() end
  end
  truth(used() - start < 4096, ("%d bytes are still held"):format(used() - start))
end))
