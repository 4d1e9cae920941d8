-- g:optimize_for_inference, and g:freeze with a tolerance: what is folded into weights, what that costs, what is
-- refused. Against the graph before.
local kiln = require "kiln"
local check = require "check"
local nn = require "kiln.nn"
local models = require("kiln.vision").models
local test, equal, truth = check.test, check.equal, check.truth

local path = ("%s/kiln-folds-%d.kiln"):format(os.getenv "TMPDIR" or "/tmp", math.random(0, math.maxinteger))
local runner = (os.getenv "KILN_BUILD" or "build") .. "/kiln-run"

local function count(g, op) return select(2, tostring(g):gsub(" = " .. op .. " ", "")) end
local function near(a, b, most)
  local error = ((a - b):abs():max() / b:abs():max()):item()
  truth(error <= most, ("differ by %g"):format(error))
end
-- Running values as after training.
local function stir(net)
  kiln.no_grad(function()
    for _, m in ipairs(net:modules()) do
      if m.running_var then
        m.running_mean:normal_()
        m.running_var:uniform_(0.5, 2)
        m.weight:uniform_(0.5, 1.5)
        m.bias:normal_()
      end
    end
  end)
  return net:eval()
end
local function script(f, ...)
  return kiln.script(f, { inputs = { ... } })
end
local function kept(report)
  local n = 0
  for _, fold in ipairs(report.folds) do n = n + (fold.kept and 1 or 0) end
  return n
end

for _, case in ipairs { { "resnet18", 20 }, { "mobilenet_v2", 52 } } do
  local name, folds = table.unpack(case)
  test(name .. ": every batch norm goes into its convolution", function()
    kiln.manual_seed(5)
    local net = stir(models[name] { num_classes = 4 })
    local g = script(net, kiln.spec("float32", { "N", 3, 32, 32 }))
    local x = kiln.randn(2, 3, 32, 32)
    local f, report = g:optimize_for_inference { samples = { x } }
    equal(#report.folds, folds)
    equal(kept(report), folds)
    equal(count(f, "mul") + count(f, "sub") + count(f, "rsqrt"), 0)
    equal(count(f, "conv2d"), folds)
    equal(report.folds[1].node, "conv2d + batch_norm")
    truth(report.folds[1].parameter:find "weight" and report.folds[1].error < 1e-5, "a fold tells of itself")
    truth(report.error > 0 and report.error <= 1e-5, report.error)
    local before = 0
    for _, p in pairs(g:parameters()) do before = before + p:numel() * 4 end
    truth(report.bytes <= before, "no more memory than before")
    local y, z
    kiln.no_grad(function() y, z = g(x), f(x) end)
    near(z, y, 1e-5)
    equal(tostring((f:optimize_for_inference { samples = { x } })), tostring(f))
    equal(tostring((f:freeze())), tostring(f))
    if name == "resnet18" then return end
    f:save(path)
    local loaded = kiln.load(path)
    equal(loaded(x):totable(), z:totable())
    equal(tostring(loaded), tostring(f))
    equal(tostring((loaded:optimize_for_inference { samples = { x } })), tostring(f))
    local p = assert(io.popen(("'%s' '%s' --info 2>&1"):format(runner, path)))
    local info = p:read "a"
    truth(p:close() and info:find "float32%[N,3,32,32%]", info)
    os.remove(path)
  end)
end

local function chain(n)
  kiln.manual_seed(11)
  local layers = {}
  for _ = 1, n do
    layers[#layers + 1] = nn.Conv2d(4, 4, 3, { padding = 1 })
    layers[#layers + 1] = nn.BatchNorm2d(4)
    layers[#layers + 1] = nn.ReLU()
  end
  return stir(nn.Sequential(table.unpack(layers)))
end

test("fifty folds stay within the budget, of ulps too; a smaller one keeps fewer", function()
  local net = chain(50)
  local g = script(net, kiln.spec("float32", { 1, 4, 6, 6 }))
  local x = kiln.randn(1, 4, 6, 6)
  local last
  for _, tolerance in ipairs { 1e-4, 1e-6, 3e-7, 1e-9 } do
    local f, report = g:freeze { tolerance = tolerance, samples = { x } }
    equal(#report.folds, 50)
    local most = math.max(tolerance, 1e-6) -- backends add up in another order where weights are constants
    truth(report.error <= most, ("%g is over %g"):format(report.error, tolerance))
    equal(report.over, report.error > tolerance)
    equal(tostring(report):find "over the tolerance with no fold made" ~= nil, report.over)
    local y, z
    kiln.no_grad(function() y, z = g(x), f(x) end)
    near(z, y, most * 1.01)
    truth(not last or kept(report) <= last, "fewer")
    last = kept(report)
    equal(count(f, "mul"), 50 - last)
    for _, fold in ipairs(report.folds) do truth(fold.kept or fold.why:find "tolerance", fold.why) end
  end
  truth(last < 5, "next to none at 1e-9")
  local _, report = g:freeze { tolerance = { ulp = 8 }, samples = { x } }
  truth(report.error <= 8 and kept(report) > 0, report.error)
  truth(tostring(report):find("tolerance: 8 ulp", 1, true), tostring(report))
end)

test("a batch norm of next to no variance is refused, the others are folded", function()
  local net = chain(3)
  kiln.no_grad(function()
    net[5].eps = 0
    net[5].running_var:fill_(1e-20)
    net[4].weight:mul_(1e-9)
    net[4].bias:fill_(1)
    net[5].running_mean:fill_(1)
  end)
  local g = script(net, kiln.spec("float32", { 1, 4, 6, 6 }))
  local f, report = g:optimize_for_inference()
  truth(report.samples == 1 and not report.unmeasured, "a sample was made")
  equal(report.folds[1].kept and report.folds[3].kept, true)
  equal(report.folds[2].kept, false)
  truth(report.folds[2].error > 1e-5 and report.folds[2].why:find "over the tolerance", report.folds[2].why)
  truth(report.error <= 1e-5, report.error)
  equal(count(f, "conv2d"), 3)
  net[5].running_var:fill_(0)
  _, report = script(net, kiln.spec("float32", { 1, 4, 6, 6 })):optimize_for_inference()
  equal(report.folds[2].why, "its scale or shift is not finite")
end)

local function one(name, net, spec, x, gone, most)
  test(name, function()
    local g = script(net, spec)
    local f, report = g:optimize_for_inference { samples = { x } }
    truth(kept(report) > 0, tostring(report))
    for op, n in pairs(gone) do equal(count(f, op), n) end
    local y, z
    kiln.no_grad(function() y, z = g(x), f(x) end)
    near(z, y, most or 1e-5)
    f:save(path)
    equal(kiln.load(path)(x):totable(), z:totable())
    os.remove(path)
  end)
end
kiln.manual_seed(2)
one("linear and batch norm", stir(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))),
  kiln.spec("float32", { "N", 6 }), kiln.randn(4, 6), { mul = 0, add = 2, matmul = 2 })
one("a convolution over sequences", stir(nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8))),
  kiln.spec("float32", { "N", 3, "L" }), kiln.randn(2, 3, 9), { mul = 0, add = 0 })
one("a transposed convolution", stir(nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8))),
  kiln.spec("float32", { "N", 3, 5, 5 }), kiln.randn(2, 3, 5, 5), { mul = 0, add = 1 })
one("a convolution by groups, without a bias", stir(nn.Sequential(nn.Conv2d(4, 8, 3, { groups = 4, bias = false }), nn.BatchNorm2d(8))),
  kiln.spec("float32", { "N", 4, "H", 5 }), kiln.randn(2, 4, 5, 5), { mul = 0, add = 0 })
local w, b = kiln.randn(8, 8), kiln.randn(8)
one("scales and sums of all kinds, views between", function(x)
  local h = kiln.linear(x, w, b):unsqueeze(2):transpose(1, 3)
  return -(3 - h / 2) * 0.5
end, kiln.spec("float32", { "N", 8 }), kiln.randn(3, 8), { mul = 0, sub = 0, neg = 0, div = 0, add = 1 })
one("the scale of attention", function(x)
  local q = kiln.linear(x, w, b):reshape(2, 3, 2, 4):transpose(2, 3)
  return (q / 2):matmul(x:reshape(2, 3, 2, 4):transpose(2, 3):transpose(3, 4))
end, kiln.spec("float32", { 2, 3, 8 }), kiln.randn(2, 3, 8), { div = 0 })
one("halves", stir(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))):to("bfloat16"),
  kiln.spec("bfloat16", { "N", 3, 6, 6 }), kiln.randn(2, 3, 6, 6):to("bfloat16"), {}, 4e-2)

test("a result that is read elsewhere too is not folded, nor a large weight that is used elsewhere", function()
  local kernel, scale = kiln.randn(2, 2, 1, 1), kiln.randn(2, 1, 1)
  local spec = kiln.spec("float32", { 1, 2, 3, 3 })
  local _, report = script(function(x)
    local h = x:conv2d(kernel)
    return h * scale, h
  end, spec):optimize_for_inference()
  equal(#report.folds, 0)
  local large = kiln.randn(200, 200)
  _, report = script(function(x) return x:matmul(large) * 2, x:matmul(large):relu() end,
    kiln.spec("float32", { 3, 200 })):optimize_for_inference()
  local shared = report.folds[1]
  truth(not shared or not shared.kept or report.bytes <= 200 * 200 * 4, tostring(report))
  _, report = script(function(x) return x:matmul(large) * 2, (x + 1):matmul(large) end,
    kiln.spec("float32", { 3, 200 })):optimize_for_inference()
  equal(report.folds[1].why, "its weight is used elsewhere, and would be there twice")
  equal(report.bytes, 200 * 200 * 4)
end)

test("inside of branches and loops", function()
  local net = chain(2)
  local g = script(function(x, n)
    for _ = 1, n do
      if x:sum():item() > 0 then x = net[2](net[1](x)) else x = net[5](net[4](x)):tanh() end
    end
    return x
  end, kiln.spec("float32", { "N", 4, 6, 6 }), "integer")
  local x = kiln.randn(2, 4, 6, 6)
  local f, report = g:optimize_for_inference { samples = { { x, 3 }, { -x, 2 } } }
  equal(kept(report), 2)
  equal(count(f, "mul"), 0)
  for n = 0, 4 do
    local y, z
    kiln.no_grad(function() y, z = g(x, n), f(x, n) end)
    near(z, y, 1e-5)
  end
  f, report = g:optimize_for_inference { samples = { { x, 0 } } }
  equal(report.folds[1].why, "the samples do not come there")
  truth(not report.folds[1].error and report.folds[1].kept, "it is said")
end)

test("preserved weights are not folded", function()
  local net = chain(2)
  local f, report = script(net, kiln.spec("float32", { 1, 4, 6, 6 })):optimize_for_inference { preserve = { "self[1]" } }
  equal(#report.folds, 1)
  truth(f:parameters()["self[1].weight"] and f:parameters()["self[1].bias"], "still there")
  f, report = f:optimize_for_inference()
  equal(kept(report), 1)
end)

test("samples are made where types tell how, else it is said", function()
  local net = chain(1)
  local _, report = script(net, kiln.spec("float32", { "N", 4, "H", "W" })):optimize_for_inference()
  equal(report.samples, 1)
  truth(report.folds[1].error >= 0, "measured")
  truth(tostring(report):find "on 1 sample of random numbers", tostring(report))
  _, report = script(function(x) return net(x:reshape(1, 4, 7, 7)) end, kiln.spec("float32", { "M" })):optimize_for_inference()
  truth(report.unmeasured:find "random inputs do not fit it", report.unmeasured)
  truth(report.folds[1].kept and not report.folds[1].error, "made all the same")
  truth(tostring(report):find "not measured: random inputs do not fit it", tostring(report))
  local seen = kiln.ignore(function(x) return x end, { name = "freeze_seen", results = { kiln.spec("float32", { 1, 4, 6, 6 }) } })
  _, report = script(function(x) return net(seen(x)) end, kiln.spec("float32", { 1, 4, 6, 6 })):optimize_for_inference()
  equal(report.unmeasured, "it calls functions of the host")
end)

test("measured on smaller inputs where the graph takes them, else on what it says", function()
  local net = stir(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
  local smaller = "of random numbers, smaller than the inputs"
  local function made(f, ...)
    local g = script(f, kiln.spec("float32", { ... }))
    local o, report = g:optimize_for_inference()
    equal(kept(report), #report.folds)
    truth(#report.folds > 0 and report.error >= 0 and report.folds[1].error >= 0, tostring(report))
    local x, y, z = kiln.randn(...), nil, nil
    kiln.no_grad(function() y, z = g(x), o(x) end)
    near(z, y, 1e-5)
    return tostring(report)
  end
  truth(made(net, 8, 3, 112, 112):find(smaller, 1, true), "images and rows")
  truth(made(net, 2, 3, 16, 16):find "of random numbers\n", "they are small already")
  local flat = function(x) return net(x):reshape(8, 4 * 110 * 110) end
  truth(made(flat, 8, 3, 112, 112):find "of random numbers\n", "it wants 8 rows")
  flat = function(x) return net(x):matmul(kiln.ones(110, 2)) end
  truth(made(flat, 8, 3, 112, 112):find(smaller, 1, true), "fewer rows only")
  local many = function(x) -- smaller, nothing comes to the fold
    local y = x:sum() * 0
    if (x * 0 + 1):sum():item() > 8 * 3 * 8 * 8 then y = net(x) end
    return y
  end
  truth(made(many, 8, 3, 8, 8 + 1):find "of random numbers\n", "the fold is met")
end)

test("measuring prints nothing, writes to no argument, draws no numbers of the program's", function()
  local net = chain(1)
  local g = script(function(x)
    print "once"
    local y = net(x) + kiln.rand(1)
    x:fill_(0)
    return y
  end, kiln.spec("float32", { 1, 4, 6, 6 }))
  local x = kiln.ones(1, 4, 6, 6)
  kiln.manual_seed(4)
  local want = kiln.rand(1):item()
  kiln.manual_seed(4)
  local _, report = g:optimize_for_inference { samples = { x } }
  equal(kept(report), 1)
  equal(x:sum():item(), 144.0)
  equal(kiln.rand(1):item(), want)
end)

test("what is no number stays none", function()
  local g = script(function(x) return x * 0, x - x, x:log():exp(), x:exp():log() end, kiln.spec("float32", { 4 }))
  local x = kiln.tensor { 0 / 0, math.huge, -1, 200 }
  local want, got = table.pack(g(x)), table.pack(g:optimize_for_inference()(x))
  for i = 1, 4 do equal(tostring(got[i]), tostring(want[i])) end
end)
