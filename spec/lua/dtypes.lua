-- The ten dtypes from Lua: making, converting, printing, numbers beside them, indices, files, captured code.
local check = require "check"
local test, equal, tensor, raises = check.test, check.equal, check.tensor, check.raises

local ints, floats = { "uint8", "int8", "int16", "int32", "int64" }, { "float16", "bfloat16", "float32", "float64" }
local methods = { float = "float32", double = "float64", half = "float16", bfloat16 = "bfloat16", char = "int8",
                  byte = "uint8", short = "int16", int = "int32", long = "int64", bool = "bool" }

test("each dtype can be made, looked at and converted to", function()
  for _, d in ipairs(ints) do
    tensor(kiln.tensor({ 1, 2 }, { dtype = d }), { 1, 2 }, d)
    tensor(kiln.arange(3, { dtype = d }), { 0, 1, 2 }, d)
    equal(kiln.full({}, 7, { dtype = d }):item(), 7)
    tensor(kiln.ones(2, { dtype = d }):sum(), 2, "int64")
  end
  for _, d in ipairs(floats) do
    tensor(kiln.tensor({ 1, 2.5 }, { dtype = d }), { 1.0, 2.5 }, d)
    tensor(kiln.linspace(0, 1, 3, { dtype = d }), { 0.0, 0.5, 1.0 }, d)
    equal(kiln.rand(4, { dtype = d }).dtype, d)
    equal(kiln.ones(2, { dtype = d, requires_grad = true }).requires_grad, true)
    tensor(kiln.tensor({ 1, 2 }, { dtype = d }):mean(), 1.5, d)
  end
  for name, d in pairs(methods) do
    local t = kiln.tensor { 1.0, 0.0, 100.0 }
    equal(t[name](t).dtype, d)
    check.truth(t:to(d):equal(t[name](t)), name)
    equal(t:to(kiln.zeros(1, { dtype = d })).dtype, d)
  end
  raises(function() kiln.zeros(2, { dtype = "float31" }) end,
    "there is no dtype 'float31'", "bool, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64")
end)

test("casts truncate, round and wrap around", function()
  tensor(kiln.tensor({ 2.9, -2.9, 300, -1e9, 0 / 0 }):to "int8", { 2, -2, 127, -128, 0 })
  tensor(kiln.tensor({ 2.9, -2.9, 300, 1 / 0 }):byte(), { 2, 0, 255, 255 })
  tensor(kiln.tensor({ 300, -1, 255 }):byte(), { 44, 255, 255 })
  tensor(kiln.tensor({ 2049, 2051, 65520, 1e-8 }, { dtype = "float64" }):half(), { 2048.0, 2052.0, 1 / 0, 0.0 })
  tensor(kiln.tensor({ 257.0, 259.0 }):bfloat16(), { 256.0, 260.0 })
  tensor(kiln.tensor({ 0.0, -0.5, 0 / 0 }):bool(), { false, true, true })
end)

test("printing", function()
  equal(tostring(kiln.tensor({ 1, -20, 3 }, { dtype = "int8" })), "{  1, -20,   3}\nint8[3]")
  equal(tostring(kiln.tensor({ 0.5, 65504 }, { dtype = "float16" })), "{    0.5000, 65504.0000}\nfloat16[2]")
  equal(tostring(kiln.tensor({ 1, 2 }, { dtype = "bfloat16" })), "{1.0, 2.0}\nbfloat16[2]")
end)

test("numbers must fit where they are stored", function()
  raises(function() kiln.tensor({ 300 }, { dtype = "int8" }) end, "tensor: 300 does not fit in int8 (-128 to 127)")
  raises(function() kiln.tensor({ -1 }, { dtype = "uint8" }) end, "-1 does not fit in uint8")
  raises(function() kiln.tensor({ 0 / 0 }, { dtype = "int64" }) end, "nan does not fit in int64")
  raises(function() kiln.full({ 2 }, 256, { dtype = "uint8" }) end, "full: 256 does not fit in uint8")
  raises(function() kiln.arange(300, { dtype = "uint8" }) end, "arange: 299 does not fit in uint8")
  raises(function() kiln.randint(300, { 2 }, { dtype = "int8" }) end, "randint: 299 does not fit in int8")
  raises(function() kiln.zeros(2, { dtype = "uint8" }):fill_(256) end, "256 does not fit in uint8")
  raises(function() kiln.zeros(2, { dtype = "int16" })[1] = 40000 end, "40000 does not fit in int16")
  tensor(kiln.tensor({ 1e6 }, { dtype = "float16" }), { 1 / 0 })
end)

test("numbers beside small integers keep their value, the result its dtype", function()
  local t = kiln.tensor({ 1, 200, 255 }, { dtype = "uint8" })
  tensor(t + 1, { 2, 201, 0 }, "uint8")
  tensor(t + 300, { 45, 244, 43 }, "uint8")
  tensor(t - 2, { 255, 198, 253 }, "uint8")
  tensor(t:lt(300), { true, true, true }, "bool")
  tensor(t:gt(-1), { true, true, true }, "bool")
  tensor(t:maximum(-1), { 1, 200, 255 }, "uint8")
  tensor(t // 300, { 0, 0, 0 }, "uint8")
  tensor(t * 0.5, { 0.5, 100.0, 127.5 }, "float32")
  tensor(t:half() * 2, { 2.0, 400.0, 510.0 }, "float16")
  tensor(t[1] + 1, 2, "uint8")
  raises(function() return t[1] + 300 end, "add: 300 does not fit in uint8")
  tensor(t[1]:lt(300), true)
  tensor(kiln.where(t:gt(100), t, 0), { 0, 200, 255 }, "uint8")
end)

test("indices of int32", function()
  local t, at = kiln.tensor { 10, 20, 30 }, kiln.tensor({ 3, 1 }, { dtype = "int32" })
  tensor(t[{ at }], { 30, 10 })
  tensor(t:index_select(at, 1), { 30, 10 })
  t[{ at }] = 0
  tensor(t, { 0, 20, 0 })
  raises(function() return t[{ at:short() }] end, "int64, int32 or bool, not int16")
end)

test("gradients in halves", function()
  local w = kiln.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "float16", requires_grad = true })
  local y = (kiln.ones(3, 2, { dtype = "float16" }):matmul(w)):tanh():sum()
  y:backward()
  equal(w.grad.dtype, "float16")
  equal(w.grad.shape, { 2, 2 })
end)

test("a network in halves", function()
  for _, d in ipairs { "float16", "bfloat16" } do
    kiln.manual_seed(5)
    local net = kiln.nn.Sequential(kiln.nn.Linear(8, 16), kiln.nn.GELU(), kiln.nn.Tanh(), kiln.nn.Linear(16, 3)):to(d)
    local x, target = kiln.randn(6, 8, { dtype = d }), kiln.tensor({ 1, 2, 3, 1, 2, 3 }, { dtype = "int32" })
    local sgd, first, last = kiln.optim.SGD(net:parameters(), { lr = 0.5 })
    for _ = 1, 50 do
      sgd:zero_grad()
      local loss = kiln.cross_entropy(net(x), target)
      equal(loss.dtype, d)
      loss:backward()
      for _, p in ipairs(net:parameters()) do equal(p.grad.dtype, d) end
      sgd:step()
      first, last = first or loss:item(), loss:item()
    end
    check.truth(last < 0.5 * first, "it learns in " .. d)
  end
end)

test("composites in halves are rounded once", function()
  local x = kiln.linspace(-4, 4, 257, { dtype = "float16" })
  for _, name in ipairs { "gelu", "softplus", "silu", "mish", "logsigmoid", "softsign" } do
    local f = kiln[name]
    check.truth(f(x):equal(f(x:float()):half()), name)
  end
  check.truth(kiln.layer_norm(x, { 257 }):equal(kiln.layer_norm(x:float(), { 257 }):half()), "layer_norm")
  equal(kiln.lerp(x, x:float(), 0.5).dtype, "float32")
end)

test("npy files", function()
  local path = os.tmpname()
  for _, list in ipairs { ints, floats, { "bool" } } do
    for _, d in ipairs(list) do
      local t = kiln.tensor({ 1, 0, 1 }):to(d)
      if d == "bfloat16" then
        raises(function() kiln.to_npy(path, t) end, "the .npy format has no bfloat16; cast the tensor to float32 first")
      else
        kiln.to_npy(path, t)
        local back = kiln.from_npy(path)
        equal(back.dtype, d)
        check.truth(back:equal(t), d)
      end
    end
  end
  os.remove(path)
end)

test("captured functions", function()
  local function f(x, k)
    local y = x * 2 + k
    if y:sum():item() > 10 then y = y - 1 end
    return y:half():float(), y
  end
  for _, list in ipairs { ints, floats } do
    for _, d in ipairs(list) do
      local x = kiln.tensor({ 1, 2, 3 }, { dtype = d })
      local g = kiln.script(f)
      for _, k in ipairs { 1, -3 } do
        local a, b = g(x, k)
        local wa, wb = f(x, k)
        check.truth(a:equal(wa) and b:equal(wb) and b.dtype == wb.dtype, d)
      end
    end
  end
end)

-- Beyond 2^53 not every integer is a double.
local BIG = (1 << 53) + 1

test("integers as attributes are exact", function()
  local most, least = math.maxinteger, math.mininteger
  tensor(kiln.full({ 2 }, BIG), { BIG, BIG })
  equal(kiln.full({}, most):item(), most)
  equal(kiln.full({}, least):item(), least)
  local x = kiln.tensor { BIG - 3, BIG, BIG + 5, most, least }
  tensor(kiln.full_like(x, -BIG), { -BIG, -BIG, -BIG, -BIG, -BIG })
  tensor(x:clamp(BIG - 1, BIG + 3), { BIG - 1, BIG, BIG + 3, BIG + 3, BIG - 1 })
  tensor(x:clamp { min = most - 1 }, { most - 1, most - 1, most - 1, most, most - 1 })
  tensor(x:clamp { max = least + 1 }, { least + 1, least + 1, least + 1, least + 1, least })
  tensor(kiln.arange((1 << 62) + 1, (1 << 62) + 4), { (1 << 62) + 1, (1 << 62) + 2, (1 << 62) + 3 })
  tensor(kiln.arange(most - 2, most), { most - 2, most - 1 })
  tensor(kiln.arange(least, least + 7, 3), { least, least + 3, least + 6 })
  tensor(kiln.arange(most, least, -(1 << 62)), { most, (1 << 62) - 1, -1, -(1 << 62) - 1 })
  tensor(kiln.tensor { 1 }:add(kiln.tensor { 1 }, { alpha = BIG }), { BIG + 1 })
  tensor(kiln.tensor { 1 }:sub(kiln.tensor { 1 }, { alpha = BIG }), { 1 - BIG })
  tensor(kiln.nn.functional.pad(kiln.tensor { 1 }, { 1, 0 }, "constant", BIG), { BIG, 1 })
  tensor(kiln.nn.functional.threshold(x, BIG, 7), { 7, 7, BIG + 5, most, 7 })
  tensor(kiln.nn.functional.hardtanh(x, BIG, BIG + 2), { BIG, BIG, BIG + 2, BIG + 2, BIG })
  tensor(kiln.addcmul(kiln.tensor { 0 }, kiln.tensor { 1 }, kiln.tensor { 1 }, { value = BIG }), { BIG })
  raises(function() kiln.full({ 2 }, BIG, { dtype = "int32" }) end, "9007199254740993 does not fit in int32")
  raises(function() kiln.arange(BIG, BIG - 2) end, "a step of 1 does not lead from 9007199254740993 to 9007199254740991")
  raises(function() kiln.arange(least, most) end, "too many elements")
end)

test("and so they are in a graph, written down and read again", function()
  local function f(t)
    return kiln.full({ 2 }, BIG), kiln.full_like(t, -BIG), t:clamp(BIG - 1, BIG + 3), kiln.arange(BIG, BIG + 4, 2),
      t:clamp(0.5 + 0.5, 1e300)
  end
  local x, path = kiln.tensor { BIG - 3, BIG, BIG + 5 }, os.tmpname()
  local g = kiln.script(f, { inputs = { kiln.spec("int64", { 3 }) } })
  check.truth(tostring(g):find "value = 9007199254740993" and tostring(g):find "value = %-9007199254740993")
  g:save(path)
  local loaded, want = kiln.load(path), table.pack(f(x))
  os.remove(path)
  for _, h in ipairs { g, loaded, kiln.parse(tostring(g)) } do
    for i, y in ipairs { h(x) } do check.truth(y:equal(want[i])) end
  end
  tensor(want[1], { BIG, BIG })
  tensor(want[4], { BIG, BIG + 2 })
end)
