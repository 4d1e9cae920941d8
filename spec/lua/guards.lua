-- Guards: the list is complete and readable, checks are cheap and take no memory, the reason of each recapture is told, and
-- what happens to parameters outside is always seen.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local T, nn = kiln.tensor, kiln.nn

local function has(text, part) truth(text:find(part, 1, true), part .. " in:\n" .. text) end

-- ---- the list ----

scale_of_guards = 3
test("every guard has kind, name, value and place", function()
  local cfg = { mode = "fast", flags = { true, false }, gain = 0.5, act = function(x) return x:relu() end }
  local w = T { 1.0, 2 }
  local line = debug.getinfo(1, "l").currentline + 1
  local function f(x, opts, n)
    local h = x * w * scale_of_guards
    if cfg.mode == "fast" and cfg.flags[1] then h = cfg.act(h) * cfg.gain end
    for _, v in pairs(opts.weights) do h = h + v end
    if opts.name == "deep" then h = h:sum(n) end
    if #cfg.flags > 1 then h = h + 1 end
    return setmetatable({}, nil) and h
  end
  local g = kiln.script(f)
  g(T { { 1.0, 2 } }, { weights = { 1.5, T { 1.0, 1 } }, name = "deep" }, 1)
  local by = {}
  for _, guard in ipairs(g:guards()) do
    for _, field in ipairs { "kind", "name", "value", "where" } do
      truth(type(guard[field]) == "string" and guard[field] ~= "", field .. " of " .. guard.kind .. " " .. tostring(guard.name))
    end
    has(guard.where, "guards.lua:")
    by[guard.kind .. " " .. guard.name] = guard
  end
  local function is(name, value, offset)
    truth(by[name], "there is a guard " .. name)
    equal(by[name].value, value)
    if offset then truth(by[name].where:match(":" .. line + offset .. "$"), by[name].where) end
  end
  is("type w", "float32[2]", 1)
  is("global scale_of_guards", "3", 1)
  is("field cfg.mode", '"fast"', 2)
  is("field cfg.flags[1]", "true", 2)
  is("field cfg.gain", "0.5", 2)
  is("argument opts.name", '"deep"', 0)
  is("argument n", "1", 0)
  is("size x, dim 1", "1", 0)
  is("dtype x", "float32 of 2 dimensions", 0)
  is("length cfg.flags", "2", 5)
end)

-- ---- what it costs ----

-- A function that looks at `n` fields: numbers, strings, booleans, functions, tables, nothing.
local function looks_at(n)
  local m, lines = {}, { "local m = ... return function(x) local s = 0" }
  for i = 1, n do
    local name = "f" .. i
    if i % 6 == 0 then m[name] = i / 4 elseif i % 6 == 1 then m[name] = i elseif i % 6 == 2 then m[name] = "s" .. i
    elseif i % 6 == 3 then m[name] = function() return 1 end elseif i % 6 == 4 then m[name] = { 1 } end
    lines[#lines + 1] = ("if m.%s == 12345 then s = s + 1 end"):format(name)
  end
  lines[#lines + 1] = "return x + s end"
  local g = kiln.script(load(table.concat(lines, "\n"))(m))
  return g, m
end

local function best(f, calls)
  local least = math.huge
  for _ = 1, 15 do
    local start = kiln.clock()
    for _ = 1, calls do f() end
    least = math.min(least, (kiln.clock() - start) / calls)
  end
  return least
end

test("a guard is checked in nanoseconds", function()
  local x = T { 1.0 }
  local few, many = looks_at(10), looks_at(1210)
  few(x)
  many(x)
  local more = #many:guards() - #few:guards()
  truth(more >= 1200, "guards " .. more)
  local a, b = best(function() few(x) end, 40), best(function() many(x) end, 40)
  local each = (b - a) / more * 1e9
  truth(each < 250, ("%.0f ns a guard"):format(each)) -- about 12 on a quiet machine; sanitizers and neighbours cost
end)

test("checking takes no memory", function()
  local x = T { 1.0 }
  local few, many = looks_at(10), looks_at(310)
  local function bytes(g)
    for _ = 1, 3 do g(x) end
    collectgarbage()
    collectgarbage "stop"
    local before = collectgarbage "count"
    for _ = 1, 50 do g(x) end
    local grown = collectgarbage "count" - before
    collectgarbage "restart"
    return grown
  end
  local a, b = bytes(few), bytes(many)
  truth(math.abs(b - a) < 1, ("%.1f and %.1f KB"):format(a, b))
end)

test("every kind of look is seen to change", function()
  local x = T { 1.0 }
  local g, m = looks_at(24)
  g(x)
  for i = 1, 24 do
    m["f" .. i] = 12345
    local k = 0
    for j = 1, 24 do k = k + (m["f" .. j] == 12345 and 1 or 0) end
    local fresh = kiln.script(function(y) return y + k end)
    if i <= 7 then -- eight captures
      equal(g(x):totable(), fresh(x):totable())
    else
      raises(function() g(x) end, "cache_limit")
    end
  end
end)

-- ---- being told ----

local source = os.getenv "KILN_SOURCE" or "."
local program = (os.getenv "KILN_BUILD" or "build") .. "/kiln"

test("KILN_DEBUG=capture says why each capture was made again", function()
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write [[
local k, m = 1, { mode = "a" }
local g = kiln.script(function(x) if m.mode == "b" then return x * k end return x + k end)
local x = kiln.ones(2)
g(x) k = 2 g(x) m.mode = "b" g(x) g(kiln.ones(2, 2)) g(x)
]]
  file:close()
  local p = assert(io.popen(("KILN_DEBUG=capture '%s' '%s' 2>&1"):format(program, path)))
  local text = p:read "a"
  p:close()
  os.remove(path)
  has(text, "again, because upvalue 'k' was 1 at ")
  has(text, "is 2")
  has(text, "again, because field 'm.mode' was \"a\" at ")
  has(text, "again, because argument 'x' was float32[?], is float32[2,2]")
  equal(select(2, text:gsub("again, because", "")), 3)
  truth(source)
end)

test("the error at the limit lists every reason", function()
  local k = 0
  local g = kiln.script(function(x) return x * k end, { cache_limit = 2 })
  g(T { 1.0 })
  k = 0.5
  g(T { 1.0 })
  local ok, why = pcall(g, T { { 1.0 } })
  truth(not ok)
  has(why, "captured 2 times already (cache_limit)")
  has(why, "\n  upvalue 'k' was 0 at ")
  has(why, "\n  argument 'x' was float32[1], is float32[1,1]")
  local _, again = pcall(g, T { { 1.0 } })
  equal(again:match "captured.*", why:match "captured.*") -- calls that are refused are no captures
  equal(#g:captures().reasons, 1)
end)

-- ---- parameters ----

local function follow(f, g, x)
  local want, got = f(x), g(x)
  equal(got:totable(), want:totable())
  equal(got.dtype, want.dtype)
end

local function make()
  local net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
  net:eval()
  local f = function(x) return kiln.no_grad(function(y) return net(y) end, x) end
  return net, f, kiln.script(f, { cache_limit = 2 })
end
local x = T { { 1.0, -2 }, { 0.5, 3 }, { 0, 1 } }

test("a parameter updated in place", function()
  local net, f, g = make()
  follow(f, g, x)
  kiln.no_grad(function()
    for _, p in ipairs(net:parameters()) do p:mul_(1.5):add_(0.25) end
  end)
  follow(f, g, x)
  equal(g:captures().n, 1)
end)

test("a parameter updated by an optimiser", function()
  local net, f, g = make()
  local opt = kiln.optim.SGD(net:parameters(), { lr = 0.5 })
  for _ = 1, 3 do
    follow(f, g, x)
    opt:zero_grad()
    net(x):square():sum():backward()
    opt:step()
  end
  follow(f, g, x)
  equal(g:captures().n, 1)
end)

test("a parameter replaced", function()
  local net, f, g = make()
  follow(f, g, x)
  net[1].weight = nn.Parameter(kiln.randn(3, 2))
  follow(f, g, x)
  net[3] = nn.Linear(3, 2)
  follow(f, g, x)
  truth(g:captures().n <= 2)
end)

test("a state loaded", function()
  local net, f, g = make()
  local other = make()
  follow(f, g, x)
  net:load_state_dict(other:state_dict())
  follow(f, g, x)
  equal(g(x):totable(), other(x):totable())
end)

test("a parameter of another dtype, or size", function()
  local net, f, g = make()
  follow(f, g, x)
  net:to "float64"
  raises(function() f(x) end, "dtype")
  local again = kiln.script(f)
  raises(function() again(x) end, "dtype")
  follow(f, g, x:double())
  equal(g(x:double()).dtype, "float64")
  local m = { w = T { 1.0, 2 } }
  local h = kiln.script(function(y) return y * m.w end)
  equal(h(T { 3.0 }):totable(), { 3.0, 6.0 })
  m.w = T { 1.0, 2, 3 }
  equal(h(T { 3.0 }):totable(), { 3.0, 6.0, 9.0 })
  m.w = T { 2 }
  equal(h(T { 3.0 }):totable(), { 6.0 })
  m.w = nil
  raises(function() h(T { 3.0 }) end, "mul", "nil")
end)

test("a parameter frozen and thawed", function()
  local net, f, g = make()
  follow(f, g, x)
  net[1].weight:requires_grad_(false)
  follow(f, g, x)
  net[1].weight:requires_grad_(true)
  follow(f, g, x)
  equal(g(x).requires_grad, false)
end)

test("a module put into training mode", function()
  local net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
  local g = kiln.script(function(y) return kiln.no_grad(function() return net(y) end) end)
  net:eval()
  local quiet = g(x):totable()
  equal(g(x):totable(), quiet)
  net:train()
  kiln.manual_seed(3)
  local want = kiln.no_grad(function() return net(x) end):totable()
  kiln.manual_seed(3)
  equal(g(x):totable(), want)
  net:eval()
  equal(g(x):totable(), quiet)
  equal(g:captures().n, 2)
end)

test("a tensor that was seen may go, and another take its place", function()
  local m = { w = T { 1.0 } }
  local g = kiln.script(function(y) return y * m.w end, { cache_limit = 1 })
  for i = 1, 50 do
    m.w = T { i + 0.0 }
    if i % 10 == 0 then collectgarbage() end
    equal(g(T { 2.0 }):totable(), { 2.0 * i })
  end
  m.w:release()
  raises(function() g(T { 2.0 }) end)
end)

test("a finalizer that replaces a parameter during a call", function()
  local m = { w = T { 1.0 } }
  local g = kiln.script(function(y) return y * m.w end, { cache_limit = 1 })
  for i = 1, 60 do
    m.w = T { 1.0 }
    setmetatable({}, { __gc = function() m.w = T { 2.0 } end })
    local v = g(T { 3.0 }):item()
    truth(v == 3.0 or v == 6.0, v)
    if i % 20 == 0 then collectgarbage() end
  end
end)
