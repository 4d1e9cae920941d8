-- The binding's functions inside captured code, where sizes, numbers and elements are known only when the graph runs: the
-- same answers as eager, or a refusal that says so.
local check = require "check"

local N = kiln.spec("float32", { "N", 3 })

-- f(x, i) captured once with a free first size and a free integer, compared on several of both.
local function agree(name, f, cases)
  check.test(name, function()
    local g = kiln.script(f, { inputs = { N, "integer" } })
    for _, case in ipairs(cases or { { 2, 1 }, { 5, 2 }, { 4, -1 } }) do
      kiln.manual_seed(case[1])
      local x = kiln.randn(case[1], 3)
      kiln.manual_seed(3)
      local wanted = table.pack(f(x, case[2]))
      kiln.manual_seed(3)
      local got = table.pack(g(x, case[2]))
      check.equal(got.n, wanted.n)
      for k = 1, wanted.n do
        if kiln.is_tensor(wanted[k]) then
          check.equal(got[k].dtype, wanted[k].dtype)
          check.equal(got[k].shape, wanted[k].shape)
          check.truth(got[k]:allclose(wanted[k], { equal_nan = true }), "result " .. k)
        else
          check.equal(got[k], wanted[k])
        end
      end
    end
  end)
end

agree("sizes", function(x, i) return x:size(1), #x, x.shape[1] * x.shape[2], x:numel(), x:dim(), x.dtype end)
agree("sizes as arguments", function(x, i)
  local n = x:size(1)
  return kiln.zeros(n, 2), kiln.ones({ n * 2 }), x:reshape(n * 3), x:reshape(-1):view(n, 3), kiln.full({ n }, 2.5),
    x:unsqueeze(1):expand(4, n, 3)
end)
agree("makers", function(x)
  return kiln.zeros_like(x), kiln.ones_like(x, { dtype = "int64" }), kiln.full_like(x, 2), kiln.rand_like(x),
    kiln.randn_like(x), kiln.rand(x:size(1)), kiln.tensor { 1, 2 }, kiln.eye(x:size(1)), kiln.arange(4)
end)
agree("ranges with free ends", function(x, i)
  local n = x:size(1)
  return kiln.arange(n), kiln.arange(i, i + n), kiln.arange(n, 0, -1), kiln.arange(0, n, 0.5), kiln.arange(n * 0.25),
    kiln.arange(i + 0.5, n + 9, 2), kiln.arange(1, n + 1, { dtype = "float32" }) * x:sum(2), kiln.arange { ["end"] = n, step = 2 },
    kiln.arange(x:gt(0):sum():item()), kiln.arange(x:abs():sum():item(), { dtype = "float64" }), kiln.arange(i + 1, i + 1),
    (kiln.arange(n):unsqueeze(2) + x):mean(1)
end)
check.test("a range whose end is not known: its gradient, saved, its mistakes", function()
  local function f(x, i) return (kiln.arange(i, i + x:size(1)):unsqueeze(2) * x):sum() end
  local g = kiln.script(f, { inputs = { N, "integer" } })
  local path = os.tmpname()
  g:save(path)
  local loaded = kiln.load(path)
  os.remove(path)
  for rows = 1, 4 do
    local x = kiln.randn(rows, 3, { requires_grad = true })
    local wanted = kiln.grad({ f(x, 3) }, { x })[1]
    for _, h in ipairs { g, loaded, kiln.parse(tostring(g)) } do
      check.equal(h(x, 3):item(), f(x, 3):item())
      check.truth(kiln.grad({ h(x, 3) }, { x })[1]:equal(wanted))
    end
  end
  local away = kiln.script(function(n, s) return kiln.arange(n, 0, s) end, { inputs = { "integer", "integer" } })
  check.equal(away(3, -1):totable(), { 3, 2, 1 })
  check.raises(function() away(3, 1) end, "a step of 1 does not lead from 3 to 0")
  check.raises(function() away(3, 0) end, "the step must not be 0")
  local narrow = kiln.script(function(n) return kiln.arange(n, { dtype = "uint8" }) end, { inputs = { "integer" } })
  check.equal(narrow(256):size(1), 256)
  check.raises(function() narrow(257) end, "256 does not fit in uint8")
  check.raises(function()
    kiln.script(function(x) return kiln.arange(x[1]:gt(0):any():item() and 2 or 2.5) end, { inputs = { N } })
  end, "give the dtype")
end)
agree("a free position", function(x, i) return x[i], x[{ i, 2 }], x[{ {}, i }], x:select(1, i) end)
agree("free ranges", function(x, i)
  return x[{ { 1, i } }], x[{ { i, -1 } }], x[{ { i, i }, { 1, 2 } }], x:slice(1, i, -1), x:narrow(1, 1, 2)
end)
agree("a size as the end of a range", function(x, i)
  local n = x:size(1)
  return x[{ { 1, n } }], x[{ { n, n } }], x[{ { 2, n - 0 } }], x[n]
end)
agree("free numbers beside tensors", function(x, i)
  return x + i, i - x, x * (i + 0.5), x:gt(i), kiln.where(x:gt(0), x, i), x ^ 2 / i, x:maximum(i), kiln.full({ 2 }, i)
end)
agree("numbers in tables", function(x, i)
  return kiln.tensor { i, 1 }, kiln.tensor { { i * 0.5, 1 }, { 2, i } }, kiln.tensor({ i, 2 }, { dtype = "float64" }),
    kiln.tensor { x:sum(), x:amax() }
end)
agree("elements as numbers", function(x, i)
  local s = x:sum():item()
  return s, s * 2 + i, x:argmax():item(), (x:amax() < 100), x[1][1] <= x[1][1], x:gt(0):any():item()
end)
agree("max and min", function(x)
  local v, p = x:max(2)
  local w, q = x:min { dim = 1, keepdim = true }
  return v, p, w, q, x:max(), x:min(0.5), x:max(x * 2)
end)
agree("masks and index tensors", function(x, i)
  return x[x:gt(0)], x[kiln.tensor { 2, 1 }], x[{ {}, kiln.tensor { 3, 1 } }], x[kiln.tensor { i }],
    x[x:sum(2):gt(-100)]
end, { { 2, 1 }, { 5, 2 } })
agree("conversions", function(x)
  return x:double(), x:long(), x:gt(0):float(), x:to "float64", x:t(), x:contiguous(), x:detach(), x:type_as(x:double()), x:cpu()
end)
agree("comparing whole tensors", function(x, i) return x:equal(x), x:equal(x + i), x:allclose(x + 1e-9), x:allclose(x + i) end)
agree("lists", function(x, i)
  local many = {}
  for k = 1, 70 do many[k] = x:sum() * k end
  return kiln.cat { x, x }, kiln.stack({ x, x * i }, -1), kiln.stack(many), kiln.cat({ x, x }, 2)
end)
agree("a loop over positions", function(x, i)
  local total = x[1]:sum() * 0
  for k = 1, x:size(1) do total = total + x[k]:sum() * k end
  return total
end)
agree("modules", (function()
  kiln.manual_seed(1)
  local net = kiln.nn.Sequential(kiln.nn.Linear(3, 8), kiln.nn.ReLU(), kiln.nn.Dropout(0.5), kiln.nn.Linear(8, 2),
    kiln.nn.LogSoftmax()):eval()
  return function(x) return net(x) end
end)())
agree("losses", function(x)
  local target = kiln.ones(x:size(1), { dtype = "int64" })
  return kiln.cross_entropy(x, target), kiln.nn.functional.smooth_l1_loss(x, x * 2), kiln.mse_loss(x, x + 1)
end)

check.test("position 0 is an error in the graph too", function()
  local g = kiln.script(function(x, i) return x[i] end, { inputs = { N, "integer" } })
  check.raises(function() g(kiln.zeros(2, 3), 0) end, "counting starts at 1")
  check.raises(function() g(kiln.zeros(2, 3), 3) end, "3")
end)

check.test("what needs the data itself is refused", function()
  for what, f in pairs {
    totable = function(x) return #x:totable() end,
    ["axis"] = function(x, i) return x:sum(x:gt(0):sum():item()) end,
  } do
    local ok, why = pcall(kiln.script, f, { inputs = { N, "integer" } })
    check.truth(not ok, what)
    check.truth(tostring(why):find("symbolic.lua:%d+"), tostring(why))
  end
end)
