-- kiln.ignore: a function stays a call of the host in captured, traced and built graphs, in files too.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local spec = kiln.spec

local calls = 0
local host = kiln.ignore(function(x, k)
  calls = calls + 1
  return x * k, calls, k > 2
end, { name = "scaled", results = { spec("float32", { "N" }), "integer", "boolean" } })

local function f(x)
  local k = x:sum():item() > 0 and 3 or 2
  local y, n, big = host(x + 1, k)
  if big then return y - 1, n end
  return y + 1, n
end

test("eager it is called", function()
  calls = 0
  local y, n = f(kiln.tensor { 1.0, 2 })
  equal({ y:totable(), n }, { { 5.0, 8.0 }, 1 })
  local p = kiln.ones(2, { requires_grad = true })
  truth(not host(p, 1).requires_grad)
  equal(tostring(host), "ignored function 'scaled' -> float32[N], integer, boolean")
end)

test("captured it is a node", function()
  local g = kiln.script(f)
  calls = 0
  local y, n = g(kiln.tensor { 1.0, 2 })
  equal({ y:totable(), n }, { { 5.0, 8.0 }, 1 })
  y, n = g(kiln.tensor { -1.0, -2 })
  equal({ y:totable(), n }, { { 1.0, -1.0 }, 2 })
  local text = tostring(g)
  truth(text:find('host_call %', 1, true) and text:find('"scaled"', 1, true))
  truth(kiln.parse(text)(kiln.tensor { 1.0, 2, 3 }):equal(kiln.tensor { 5.0, 8, 11 }))
  local kept
  local keep = kiln.ignore(function(x) kept = x end, { name = "keep" })
  local h = kiln.script(function(x) keep(x * 2) return x * 3 end)
  h(kiln.ones(2))
  equal(kept:totable(), { 2.0, 2.0 })
  h(kiln.zeros(2))
  equal(kept:totable(), { 0.0, 0.0 })
end)

test("no gradient flows through it", function()
  local still = kiln.ignore(function(x) return x * 5 end, { results = { spec("float32", { 2 }) } })
  local function g(x) return (still(x) * x):sum() end
  local x = kiln.tensor({ 1.0, 2 }, { requires_grad = true })
  g(x):backward()
  local eager = x.grad:totable()
  equal(eager, { 5.0, 10.0 })
  local y = kiln.tensor({ 1.0, 2 }, { requires_grad = true })
  kiln.script(g)(y):backward()
  equal(y.grad:totable(), eager)
end)

test("traced and built, too", function()
  local double = kiln.ignore(function(x) return x * 2 end, { results = { spec("float32", { 2 }) } })
  local t = kiln.trace(function(x) return double(x) + 1 end, { kiln.ones(2) }, { strict = true })
  truth(t:verify(kiln.tensor { 3.0, 4 }))
  truth(tostring(t):find('"ignore_' .. debug.getinfo(double.f, "S").linedefined .. '"', 1, true))
  local b = kiln.builder()
  local x = b:input("x", spec("float32", { 2 }))
  local g = b:build { y = double(x + 1) }
  equal(g { x = kiln.ones(2) }.y:totable(), { 4.0, 4.0 })
end)

test("a saved graph names it", function()
  local path = os.tmpname()
  local g = kiln.script(f)
  g(kiln.ones(2))
  g:save(path)
  local loaded = kiln.load(path)
  truth(loaded(kiln.tensor { 1.0, 2 }):equal(kiln.tensor { 5.0, 8 }))
  kiln.tracer.hosts.scaled = nil
  raises(function() loaded(kiln.ones(2)) end, "host function 'scaled' is not bound")
  kiln.tracer.hosts.scaled = host.f
  os.remove(path)
end)

test("what it gives is checked, what it raises is raised", function()
  local function with(g, results) return kiln.script(function(x) return (kiln.ignore(g, { results = results })) end) end
  local function run(g, results)
    local h = kiln.ignore(g, { results = results })
    return kiln.script(function(x) return h(x) end)(kiln.ones(2))
  end
  raises(function() run(function(x) return x:sum() end, { spec("float32", { 2 }) }) end, "result 1 must be float32[2] (got float32[])")
  raises(function() run(function(x) return 1.5 end, { "integer" }) end, "result 1 must be integer (got a float)")
  raises(function() run(function(x) return "s" end, { "integer" }) end, "result 1 is a string")
  raises(function() run(function(x) error "mine" end, {}) end, "ignore.lua:", "mine")
  local h = kiln.ignore(function() end)
  raises(function() kiln.script(function(x) h(x, "s") return x end)(kiln.ones(2)) end, "it can be given tensors, numbers and booleans")
  equal(select("#", h(1, 2)), 0)
  truth(with)
  raises(function() kiln.ignore(3) end, "ignore: a function is needed, got number")
  raises(function() kiln.ignore(print, { foo = 1 }) end, "ignore: there is no option 'foo'; there are name, results")
  raises(function() kiln.ignore(print, { name = 3 }) end, "ignore: name must be a string, got number")
  raises(function() kiln.ignore(print, { results = { "x" } }) end, "ignore: results[1] must be kiln.spec")
  raises(function() kiln.ignore(print, { name = "scaled" }) end, "ignore: the name 'scaled' is taken by another function")
end)

test("an error of it is caught by pcall, its place stands once", function()
  local calls = 0
  local h = kiln.ignore(function(x)
    calls = calls + 1
    if x:sum():item() > 2 then error "too much" end
    return x * 2
  end, { results = { spec("float32", { "N" }) } })
  local function caught(x)
    local ok, y = pcall(h, x)
    if ok then return y + 1 end
    return y
  end
  local function inside(x) return pcall(function() return h(x) end) end
  local function bare(x) local y = h(x) return y end
  for _, f in ipairs { caught, inside, bare } do
    local g = kiln.script(f)
    for _, x in ipairs { kiln.ones(2), kiln.ones(3) } do
      calls = 0
      local want = table.pack(pcall(f, x))
      local got = table.pack(pcall(g, x))
      equal(calls, 2)
      equal(got.n, want.n)
      for i = 1, want.n do
        if kiln.is_tensor(want[i]) then truth(want[i]:equal(got[i])) else equal(got[i], want[i]) end
      end
    end
  end
  calls = 0
  kiln.script(caught, { inputs = { spec("float32", { "N" }) } })
  equal(calls, 0) -- captured without calling it
end)
