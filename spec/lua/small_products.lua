-- Small products in graphs run with what follows them (backends/cpu/chain.c), however their operands lie: the bits are eager's.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local sizes = { -- rows, columns, and products of a sum
  { 1, 32, 10 }, { 1, 2, 32 }, { 8, 8, 8 }, { 3, 5, 7 }, { 4, 33, 31 }, { 5, 40, 40 }, { 16, 32, 16 }, { 2, 17, 240 },
  { 31, 16, 3 }, { 1, 1, 1 }, { 1, 512, 16 }, { 64, 8, 16 }, { 7, 64, 18 }, { 12, 12, 56 }, { 1, 30, 256 }, { 9, 4, 200 },
}

local ends = {
  bias = function(y, b) return (y + b):tanh() end,
  rows = function(y, b) return (y * b):softmax(2), y:relu() end,
  sums = function(y, b) return y:sum(2), (y - b):exp():amax(2, { keepdim = true }) end,
  column = function(y) return y + y:mean(2, { keepdim = true }) end,
  all = function(y, b) return (y + b):sum(), y:sum(1) end,
}

-- As made, turned, and every other element of something larger.
local function lying(how, n, m, dtype)
  if how == 1 then return kiln.randn(n, m, { dtype = dtype }) end
  if how == 2 then return kiln.randn(m, n, { dtype = dtype }):t() end
  return kiln.randn(n, 2 * m, { dtype = dtype }):narrow(2, 1, 2 * m):unfold(2, 1, 2):squeeze(3)
end

local function same(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if not check.identical(a[i], b[i], {}) then return false end
  end
  return true
end

for name, tail in pairs(ends) do
  test("products with " .. name .. " behind them", function()
    kiln.manual_seed(5)
    local function f(x, w, b) return tail(x:matmul(w), b) end
    for i, s in ipairs(sizes) do
      for _, dtype in ipairs { "float32", "float64" } do
        local g = kiln.script(f)
        for how = 1, 9 do
          local x, w = lying(how % 3 + 1, s[1], s[3], dtype), lying((how - 1) // 3 + 1, s[3], s[2], dtype)
          local b = kiln.randn(s[2], { dtype = dtype })
          truth(same(table.pack(f(x, w, b)), table.pack(g(x, w, b))), ("%d, %s, lying %d"):format(i, dtype, how))
        end
      end
    end
  end)
end

test("one operand for both factors, and as what follows", function()
  local x = kiln.randn(6, 6)
  local function f(a) return (a:matmul(a) + a):relu() * a end
  truth(check.identical(f(x), kiln.script(f)(x), {}))
end)

test("constant weights are turned once, and counted as packed", function()
  kiln.manual_seed(7)
  for _, s in ipairs(sizes) do
    local layer = kiln.nn.Linear(s[3], s[2]):eval()
    local x = kiln.randn(s[1], s[3])
    local g = kiln.script(function(a) return layer(a):relu() end, { inputs = { kiln.spec("float32", { s[1], s[3] }) } }):freeze()
    truth(g(x):allclose(layer(x):relu(), { rtol = 1e-5, atol = 1e-6 }), "a frozen layer")
    local _, parts = g:memory(x)
    if kiln.backends()[2].name ~= "ref" and s[1] * s[2] <= 512 and s[1] * s[2] * s[3] <= 8192 then
      equal(parts.packed, s[3] < 32 and s[3] > 1 and s[2] > 1 and 4 * s[2] * s[3] or 0)
    end
  end
end)

test("KILN_CHECK knows what of little elements is rounding of the product", function()
  local path = os.tmpname()
  check.write(path, [[
    kiln.manual_seed(3)
    local g = kiln.script(function(x, w, z) return x:matmul(w) - z end)
    local sign = kiln.script(function(x, w, z) return kiln.where(x:matmul(w):gt(z), z, -z) end)
    for i = 1, 40 do
      local x, w = kiln.randn(1 + i % 8, 40) * 100, kiln.randn(40, 1 + i % 3 * 8)
      local z = x:matmul(w)
      g(x, w, z)
      sign(x, w, z)
    end
    print "right"]])
  local run = io.popen(("KILN_CHECK=1 '%s' '%s' 2>&1"):format(check.program(), path))
  equal(run:read "a", "right\n")
  run:close()
  os.remove(path)
end)

test("they run as one", function()
  if kiln.backends()[2].name == "ref" then check.skip "nothing fuses here" end
  local g = kiln.script(function(x, w, b) return (x:matmul(w) + b):relu() end)
  local report = g:profile(kiln.randn(2, 8), kiln.randn(8, 16), kiln.randn(16), { runs = 2 })
  equal(report.nodes[1].op, "matmul + add + relu")
end)
