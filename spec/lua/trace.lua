-- kiln.trace: a function run once becomes a graph; what a trace cannot repeat is told, with its line.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local function line(offset) return "trace.lua:" .. debug.getinfo(2, "l").currentline + (offset or 0) .. ": " end
local said = {}
local quiet = { check_inputs = false, warn = function(text) said[#said + 1] = text end }
local checked = { warn = quiet.warn }
local function warned(part)
  local text = table.concat(said, "\n")
  said = {}
  if not text:find(part, 1, true) then error(("the warnings are %q, without %q"):format(text, part), 2) end
end

local function kinds(g)
  local list = {}
  for _, guard in ipairs(g:guards()) do list[#list + 1] = guard.kind .. " " .. guard.name end
  table.sort(list)
  return list
end

test("values are computed and recorded", function()
  local function f(x, y) return (x * 2 + y):relu(), { s = x:sum(), 3, deep = { y } } end
  local x, y = kiln.randn(3, 2), kiln.randn(2)
  local g = kiln.trace(f, { x, y })
  local a, r = g(x, y)
  local b, s = f(x, y)
  truth(a:equal(b) and r.s:equal(s.s) and rawequal(r.deep[1], y))
  equal(r[1], 3)
  truth(g:verify(kiln.randn(3, 2), kiln.randn(2)))
  truth(tostring(g):find("trace.lua:" .. debug.getinfo(f, "S").linedefined, 1, true), "places")
  truth(kiln.parse(tostring(g))(x, y):equal(b), "its text is a graph like any other")
  equal(kinds(g), {})
  raises(function() g(kiln.ones(4, 2), y) end, "input x: float32[3,2] is needed")
  equal(kiln.trace(kiln.eye(3)):item(), 3.0) -- of a matrix it is still the sum of the diagonal
end)

test("random numbers are drawn again, in order", function()
  local g = kiln.trace(function(x) return x + kiln.rand(3), kiln.randn(2) end, { kiln.zeros(3) })
  kiln.manual_seed(7)
  local a, b = g(kiln.zeros(3))
  kiln.manual_seed(7)
  truth(a:equal(kiln.rand(3)) and b:equal(kiln.randn(2)))
end)

test("where data becomes a Lua value", function()
  local x = kiln.tensor { 1.0, 2, 3 }
  local function branch(x)
    if x:sum():item() > 0 then return x + 1 end
    return x - 1
  end
  local at = line(-3)
  raises(function() kiln.trace(branch, { x }, { strict = true }) end, at, "trace: item: the data of a tensor (float32[])", "kiln.script keeps both sides")
  local cases = {
    function(x) return x:sum() < 3 and x or x + 1 end,
    function(x) return kiln.tensor(x:totable()) end,
    function(x) return #tostring(x) + x end,
    function(x) return x:equal(x + 1) and x or x * 2 end,
    function(x) for _ = 1, x:max():item() do x = x + 1 end return x end,
  }
  for i, f in ipairs(cases) do
    local text = "trace.lua:" .. debug.getinfo(f, "S").linedefined .. ": trace: "
    raises(function() kiln.trace(f, { x }, { strict = true }) end, text, "becomes a Lua value")
    local found = kinds(kiln.trace(f, { x }, quiet))
    truth(found[#found]:find "^data ", "case " .. i)
  end
  said = {}
  truth(branch(x):equal(kiln.trace(branch, { x }, quiet)(x)))
  warned(at .. "item: the data of a tensor")
  kiln.trace(branch, { x }, checked)
  warned "with the inputs perturbed the graph does not do what the function does: "
  raises(function() kiln.trace(branch, { x }, { strict = false, warn = error }) end, "item")
end)

test("it checks itself", function()
  local n = 1.0
  local function fickle(x) n = n + 1 return x * n end
  raises(function() kiln.trace(fickle, { kiln.ones(2) }, { strict = true }) end, "'n' changed from 1.0 to 2.0")
  local function sided(x) if kiln.is_tensor(x) and x:gt(0):all():item() then return x end return x * 0 end
  local g = kiln.trace(sided, { kiln.ones(2) }, quiet)
  raises(function() g:verify(kiln.ones(2):neg()) end, "verify: result 1 differs")
  local calls = 0
  kiln.trace(function(x) calls = calls + 1 return x + 1 end, { kiln.ones(2) }, { check_inputs = { { kiln.zeros(2) }, kiln.ones(2) }, warn = quiet.warn })
  equal(calls, 3)
  warned "'calls' changed from 0 to 1"
end)

test("sizes that depend on data are held", function()
  local g = kiln.trace(function(x) return x[x:gt(0)]:mean() end, { kiln.tensor { 1.0, -1, 3 } }, quiet)
  equal(g(kiln.tensor { 5.0, 7, -1 }):item(), 6.0)
  raises(function() g(kiln.tensor { 5.0, 7, 9 }) end, "has another size than when this graph was traced (2 in dim 1)")
end)

test("writes in place, through views and their bases", function()
  local function f(x)
    local y = x * 1
    local row, column = y[1], y[{ {}, 2 }]
    row:add_(10)
    column:mul_(2)
    y[{ 3, { 1, 2 } }] = kiln.tensor { 7.0, 8 }
    y:t():add_(1)
    local z = kiln.zeros(3)
    z:copy_(row)
    row:zero_()
    return y, row, column, z, y:reshape(9)
  end
  local g = kiln.trace(f, { kiln.randn(3, 3) })
  for _ = 1, 3 do truth(g:verify(kiln.randn(3, 3))) end
  local given = kiln.ones(2)
  local adds = kiln.trace(function(x) x:add_(1) return x end, { given }, quiet)
  equal(given:totable(), { 2.0, 2.0 })
  truth(rawequal(adds(given), given)) -- the caller's tensor
  equal(given:totable(), { 3.0, 3.0 })
  local t = kiln.trace(function(x) local y = kiln.zeros(2) y:copy_(x) return y end, { kiln.ones(2) })
  given = kiln.ones(2)
  t(given):add_(1)
  equal(given:totable(), { 1.0, 1.0 }) -- a copy is no alias
end)

test("tensors from outside are found by their place", function()
  local cfg = { w = kiln.full({ 2 }, 3.0), deep = { b = kiln.ones(2) } }
  local loose = (function() local t = kiln.ones(2) return function() return t end end)()
  local made = coroutine.wrap(function() coroutine.yield(kiln.full({ 2 }, 5.0)) end)()
  local holder = setmetatable({}, { __mode = "k", __index = function() return made end })
  local function f(x) return x * cfg.w + cfg.deep.b + loose() end
  local g = kiln.trace(f, { kiln.ones(2) })
  equal(kinds(g), { "parameter cfg.deep.b", "parameter cfg.w", "parameter t" })
  equal(g(kiln.ones(2)):totable(), { 5.0, 5.0 })
  cfg.w:add_(1)                 -- changed in place
  cfg.deep.b = kiln.zeros(2)    -- replaced
  equal(g(kiln.ones(2)):totable(), { 5.0, 5.0 })
  cfg.deep.b = kiln.zeros(3)
  raises(function() g(kiln.ones(2)) end, "cfg.deep.b", "float32[2]")
  cfg.deep.b = nil
  raises(function() g(kiln.ones(2)) end, "'cfg.deep.b' is not there any more")
  truth(holder)
end)

test("state: written in place, replaced, counted", function()
  local acc = { sum = kiln.zeros(2), mean = kiln.zeros(2) }
  local keep = acc.sum
  local function f(x)
    acc.sum:add_(x)
    acc.mean = acc.mean * 0.5 + x
    return acc.mean
  end
  local g = kiln.trace(f, { kiln.ones(2) }, quiet)
  equal({ acc.sum:totable(), acc.mean:totable() }, { { 1.0, 1.0 }, { 1.0, 1.0 } })
  g(kiln.ones(2))
  equal({ acc.sum:totable(), acc.mean:totable() }, { { 2.0, 2.0 }, { 1.5, 1.5 } })
  truth(rawequal(keep, acc.sum), "in place is in place")
  local text = tostring(g)
  truth(text:find('slot state "acc.sum"', 1, true) and text:find('slot state "acc.mean"', 1, true))
  local grown = {}
  raises(function() kiln.trace(function(x) grown.cache = x return x + 1 end, { kiln.ones(2) }, { strict = true }) end, "'grown' has 1 entries after the run, 0 before")
  local x = kiln.ones(4)
  local part = x[{ { 1, 2 } }]
  raises(function() kiln.trace(function() part:add_(1) return x + part:sum() end, {}) end, "share")
end)

test("modules, and a step of training", function()
  local nn = kiln.nn
  local net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
  local x, t = kiln.randn(5, 3), kiln.randn(5, 1)
  local g = kiln.trace(net, { x })
  equal(#g:guards(), 4)
  truth(g:verify(x))
  local opt = kiln.optim.Adam(net:parameters(), { lr = 0.1 })
  local function step(x, t)
    opt:zero_grad()
    local loss = kiln.nn.functional.mse_loss(net(x), t)
    loss:backward()
    return loss:detach()
  end
  local traced = kiln.trace(step, { x, t }, quiet)
  truth(traced(x, t):equal(step(x, t)))
  local sgd = kiln.optim.SGD(net:parameters(), { lr = 0.1 })
  local function whole(x, t)
    sgd:zero_grad()
    local loss = kiln.nn.functional.mse_loss(net(x), t)
    loss:backward()
    sgd:step()
    return loss:detach()
  end
  local start = net:state_dict()
  for k, v in pairs(start) do start[k] = v:clone() end
  local w = kiln.trace(whole, { x, t }, quiet)
  for _ = 1, 3 do w(x, t) end
  local ended = {}
  for k, v in pairs(net:state_dict()) do ended[k] = v:clone() end
  net:load_state_dict(start)
  for _ = 1, 4 do whole(x, t) end
  for k, v in pairs(net:state_dict()) do truth(v:equal(ended[k]), k .. " is as eager leaves it") end
end)

test("misuse", function()
  raises(function() kiln.trace(3, {}) end, line(), "trace: a function or module is needed, got a number")
  raises(function() kiln.trace(function() end, 3) end, line(), "trace: inputs must be a table of arguments, got number")
  raises(function() kiln.trace(function() end, {}, { foo = 1 }) end, line(), "trace: there is no option 'foo'; there are check_inputs, strict, rtol, atol, warn")
  raises(function() kiln.trace(function() end, {}, { strict = 1 }) end, line(), "trace: strict must be a boolean, got number")
  raises(function() kiln.trace(function() return print end, {}) end, line(), "trace: result 1 is a function, which a graph cannot take or give")
  raises(function() kiln.trace(function(x) return kiln.trace(function(y) return y end, { x }) end, { kiln.ones(2) }) end, line(), "already")
  raises(function() kiln.trace(function(x) error "mine" end, { kiln.ones(2) }) end, line(), "mine")
  truth(not kiln.is_capturing())
  equal(kiln.trace(function() return kiln.is_capturing(), 2.5, "s", nil end, {}, quiet)(), true)
  local g = kiln.trace(function(x, n) return x * n end, { kiln.ones(2), 3 })
  raises(function() g(kiln.ones(2), 4) end, "argument 2: the graph was made for 3 here, got 4")
end)

test("the self-check ends where loops do", function()
  local function double(x) return kiln.while_loop(function(a) return a:sum() < 10 end, function(a) return a * 2 end, x) end
  local g = kiln.trace(double, { kiln.ones(3) })
  for _, k in ipairs { 1, 3, 5 } do truth(g(kiln.ones(3) * k):equal(double(kiln.ones(3) * k))) end
end)

test("the self-check gives up where a loop of Lua does not end", function()
  local told = {}
  local g = kiln.trace(function(x)
    while x:sum():item() < 10 do x = x * 2 end
    return x
  end, { kiln.ones(3) }, { warn = function(text) told[#told + 1] = text end })
  truth(told[#told]:find("with the inputs perturbed .* it had not ended after 5 million instructions of Lua; give check_inputs"))
  equal(g(kiln.ones(3)):totable(), { 4.0, 4.0, 4.0 })
end)
