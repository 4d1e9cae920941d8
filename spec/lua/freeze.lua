-- g:freeze: what becomes a constant and what stays, that results stay, the way to a file, the report.
local kiln = require "kiln"
local check = require "check"
local nn = require "kiln.nn"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local path = ("%s/kiln-freeze-%d.kiln"):format(os.getenv "TMPDIR" or "/tmp", math.random(0, math.maxinteger))

local function refused(f, text) raises(f, ("freeze.lua:%d: "):format(debug.getinfo(f, "S").linedefined) .. text) end
local function kinds(g)
  local slots = {}
  for kind, name in g:code() and tostring(g):gmatch "slot (%a+) \"(.-)\"" do slots[name] = kind end
  return slots
end
local function count(g, op) return select(2, tostring(g):gsub(" = " .. op .. " ", "")) end

local function convnet()
  kiln.manual_seed(3)
  local net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
    nn.Linear(8 * 4 * 4, 5))
  kiln.no_grad(function()
    net[2].running_mean:normal_()
    net[2].running_var:uniform_(0.5, 2)
    net[2].weight:normal_()
    net[2].bias:normal_()
  end)
  return net
end
local images = kiln.spec("float32", { "N", 3, 6, 6 })

test("parameters become constants, guards go, sizes stay free", function()
  local net = convnet():eval()
  local g = kiln.script(net, { inputs = { images } })
  local f, report = g:freeze()
  for name, kind in pairs(kinds(f)) do equal(kind, "const", name) end
  equal(f:parameters(), {})
  equal(f:guards(), {})
  truth(#report.guards == #g:guards() and report.guards[1].kind and report.guards[1].where, "the guards are listed")
  equal(#report.constants, 8)
  equal(count(f, "rsqrt"), 0)
  for n = 1, 3 do
    local x = kiln.randn(n, 3, 6, 6)
    truth(kiln.allclose(f(x), g(x), { rtol = 1e-5, atol = 1e-6 }), "results")
  end
  truth(not f(kiln.randn(1, 3, 6, 6)).requires_grad, "no gradient flows to constants")
  truth(tostring(report):find("constants: 8 parameters and buffers", 1, true), tostring(report))
  truth(rawequal(f:report(), report), "the report is kept")
  refused(function() g:report() end, "report: this Graph is not what g:freeze")
end)

test("later changes of the module are not seen, and the graph before sees them", function()
  local net = convnet():eval()
  local g = kiln.script(net, { inputs = { images } })
  local x = kiln.randn(2, 3, 6, 6)
  local f = g:freeze()
  local before, ours = f(x):totable(), kinds(f)
  kiln.no_grad(function()
    for _, p in ipairs(net:parameters()) do p:fill_(1) end
    net[2].running_mean:fill_(3)
  end)
  net[6] = nn.Linear(128, 5)
  net:train()
  equal(f(x):totable(), before)
  equal(kinds(f), ours)
  truth(not kiln.allclose(g(x), f(x)), "the live graph follows the module")
end)

test("what is preserved stays a parameter, and the very tensor", function()
  local net = convnet():eval()
  local g = kiln.script(net, { inputs = { images } })
  local f, report = g:freeze { preserve = { "self[6]" } }
  local names = {}
  for name in pairs(f:parameters()) do names[#names + 1] = name end
  table.sort(names)
  equal(names, { "self[6].bias", "self[6].weight" })
  equal(report.stay, { "self[6].weight", "self[6].bias" })
  local x = kiln.randn(2, 3, 6, 6)
  kiln.no_grad(function() net[6].bias:add_(100) end)
  truth(f(x):mean():item() > 50, "a change in place is seen")
  local y = f(x):sum()
  y:backward()
  equal(net[6].bias.grad:totable(), { 2.0, 2.0, 2.0, 2.0, 2.0 })
  truth(not net[1].weight.grad, "none flows to constants")
  equal(kinds(g:freeze { preserve = "self[1].weight" })["self[1].weight"], "param")
  refused(function() g:freeze { preserve = { "self[7].weight" } } end, "freeze: preserve: there is no parameter 'self[7].weight' in graph main; there are self[1].weight, ")
end)

test("saved and loaded it gives the same bits, frozen again the same text", function()
  local net = convnet():eval()
  local f = kiln.script(net, { inputs = { images } }):freeze()
  local x = kiln.randn(2, 3, 6, 6)
  f:save(path)
  local loaded = kiln.load(path)
  equal(loaded(x):totable(), f(x):totable())
  equal(tostring(loaded), tostring(f))
  equal(tostring(f:freeze()), tostring(f))
  equal(tostring(loaded:freeze()), tostring(f))
  equal(tostring(kiln.parse(tostring(f))), tostring(f))
  kiln.script(net, { inputs = { images } }):save(path)
  equal(tostring(kiln.load(path):freeze()), tostring(f))
  os.remove(path)
end)

test("state that is written stays state, and is the frozen graph's own", function()
  local net = convnet():train()
  local g = kiln.script(net, { inputs = { images } })
  local f, report = g:freeze()
  local slots = kinds(f)
  equal(slots["self[2].running_mean"], "state")
  equal(slots["self[2].num_batches_tracked"], "state")
  equal(slots["self[1].weight"], "const")
  truth(report.note:find "net:eval()", report.note)
  local mean, x = net[2].running_mean:totable(), kiln.randn(4, 3, 6, 6)
  kiln.manual_seed(1)
  local ours = f(x)
  equal(net[2].running_mean:totable(), mean)
  equal(f:parameters()["self[2].num_batches_tracked"]:item(), 1)
  kiln.manual_seed(1)
  truth(kiln.allclose(ours, g(x), { rtol = 1e-5, atol = 1e-6 }), "results")
  local was, now = net[2].running_mean, f:parameters()["self[2].running_mean"]
  truth(kiln.allclose(now, was, { rtol = 1e-5, atol = 1e-6 }), "constant filters have layouts of their own")
  net[2].running_mean:fill_(7)
  truth(f:parameters()["self[2].running_mean"]:totable()[1] ~= 7, "apart from the module")
end)

test("a captured training step keeps what it writes", function()
  local w, rate = kiln.randn(3):requires_grad_(), 0.5
  local function step(x)
    local loss = (w * x):sum()
    loss:backward()
    kiln.no_grad(function() w:sub_(w.grad * rate) end)
    w.grad = nil
    return loss
  end
  step(kiln.ones(3))
  local g = kiln.script(step)
  g(kiln.ones(3))
  local f = g:freeze()
  equal(kinds(f)["w"], "state")
  local before = w:totable()
  local a = f(kiln.ones(3)):item()
  local b = f(kiln.ones(3)):item()
  check.near(b, a - 1.5, 1e-5)
  equal(w:totable(), before)
end)

test("constants decide branches and are computed inside of loops", function()
  local w = kiln.tensor { 1.0, 2, 3 }
  local function f(x, n)
    local s, y = w:sum():item(), x
    if s < 0 then return x end
    for _ = 1, n do
      if y:sum():item() > s then y = y / (w + 1):exp() else y = y + w:exp() end
    end
    return y
  end
  local g = kiln.script(f, { inputs = { kiln.spec("float32", { 3 }), "integer" } })
  local h, report = g:freeze { samples = { { kiln.ones(3), 4 }, { kiln.zeros(3), 0 } } }
  equal(count(h, "exp"), 0)
  truth(tostring(h):find "const 6.0", tostring(h))
  equal(report.samples, 2)
  truth(report.error <= 1e-6, "measured")
  for n = 0, 5 do truth(kiln.allclose(h(kiln.ones(3), n), g(kiln.ones(3), n)), "results") end
end)

test("memory: views stay views, nothing grows that is large, tensors that are one stay one", function()
  local w, row = kiln.randn(200, 300), kiln.randn(1, 300)
  local other = w
  local g = kiln.script(function(x) return x:matmul(w:t()):matmul(other) + row:expand(4000, 300):exp():sum(1) end,
    { inputs = { kiln.spec("float32", { "N", 300 }) } })
  local f, report = g:freeze()
  truth(report.bytes <= (200 * 300 + 300) * 4 + 65536, report.bytes)
  equal(count(f, "transpose"), 1)
  local x = kiln.randn(2, 300)
  truth(kiln.allclose(f(x), g(x), { rtol = 1e-4, atol = 1e-3 }), "results")
end)

test("traced, built, parsed and loaded graphs; numbers from outside", function()
  local w = kiln.tensor { 2.0, 3 }
  local traced = kiln.trace(function(x) return x * w:exp() end, { kiln.ones(2) })
  local f = traced:freeze()
  w:fill_(0)
  check.near(f(kiln.ones(2))[1]:item(), math.exp(2), 1e-5)
  equal(kinds(f), { exp = "const" })
  local b = kiln.builder()
  local x = b:input("x", kiln.spec("float32", { 2 }))
  local built = b:build { y = x * kiln.ones(2):exp() + 1 }
  local h, report = built:freeze { samples = { { { x = kiln.ones(2) } } } }
  equal(report.error, 0.0)
  check.near(h { x = kiln.ones(2) }.y[1]:item(), math.exp(1) + 1, 1e-5)
  local parsed = kiln.parse [[
graph g(%x: float32[2]) {
  slot param "w": float32[2]
  %w = param "w"
  %y: float32[2] = add %x, %w
  return %y
}
]]
  refused(function() parsed:freeze() end, "freeze: slot w has no data, so it cannot become a constant")
end)

scale_of_frozen = 2
test("numbers from outside become constants, counters go on from where they are", function()
  local g = kiln.script(function(x) return x * scale_of_frozen end)
  local x = kiln.ones(2)
  for n = 2, 4 do
    scale_of_frozen = n
    g(x)
  end
  equal(kinds(g).scale_of_frozen, "param")
  local f = g:freeze()
  scale_of_frozen = 9
  equal(f(x):totable(), { 4.0, 4.0 })
  local count = 0
  local counted = kiln.script(function(y)
    count = count + 1
    return y * count
  end)
  counted(x)
  counted(x)
  local h = counted:freeze()
  equal(h(x):totable(), { 3.0, 3.0 })
  equal(h(x):totable(), { 4.0, 4.0 })
  equal(count, 2)
  equal(h:freeze()(x):totable(), { 5.0, 5.0 })
  refused(function() h:verify(x) end, "verify: this Graph was loaded or frozen, there is no function to compare it with")
end)

test("objects that a graph knows by identity are refused; samples that raise are told", function()
  local layer, x = nn.Linear(2, 2), kiln.ones(2)
  local g = kiln.script(function(net, y) return net(y) end)
  g(layer, x)
  refused(function() g:freeze() end, "freeze: the argument 'net' of graph freeze_")
  local picky = kiln.script(function(a)
    assert(a:sum():item() > 0, "not so")
    return a
  end, { inputs = { kiln.spec("float32", { 2 }) } })
  raises(function() picky:freeze { samples = { -x } } end, "freeze: ", "not so")
  local _, report = picky:freeze { samples = {} }
  equal(report.unmeasured, "there are no samples")
end)

test("mistakes are named", function()
  local g = kiln.script(function(x) return x + 1 end, { inputs = { kiln.spec("float32", { 2 }) } })
  refused(function() g:freeze(3) end, "freeze: options must be a table, got an integer")
  refused(function() g:freeze { keep = {} } end, "freeze: there is no option 'keep'; there are preserve, tolerance, samples")
  refused(function() g:freeze { preserve = 3 } end, "freeze: preserve must be a list of names of parameters")
  refused(function() g:freeze { tolerance = -1 } end, "freeze: tolerance must be a number that is not negative")
  refused(function() g:freeze { tolerance = { atol = 1 } } end, "freeze: tolerance.ulp must be a number")
  refused(function() g:freeze { samples = 3 } end, "freeze: samples must be a list of tables of arguments")
  refused(function() g:freeze { samples = { 3 } } end, "freeze: samples[1] must be a table of arguments, or a tensor, got an integer")
  refused(function() g:freeze { samples = { { kiln.ones(3) } } } end, "freeze: input x: float32[2] is needed (got float32[3])")
  raises(function() kiln.script(function(x) return x end):freeze() end, "this function has not been captured yet")
end)
