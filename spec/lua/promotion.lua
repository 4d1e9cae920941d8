-- What dtype an op on two operands gives: PyTorch's rule.
local check = require "check"

local function dtype_of(a, b) return (a + b).dtype end

check.test("two tensors", function()
  local make = {}
  for _, d in ipairs { "bool", "int64", "float32", "float64" } do make[d] = kiln.ones(2, { dtype = d }) end
  local wanted = {
    bool = { bool = "bool", int64 = "int64", float32 = "float32", float64 = "float64" },
    int64 = { int64 = "int64", float32 = "float32", float64 = "float64" },
    float32 = { float32 = "float32", float64 = "float64" },
    float64 = { float64 = "float64" },
  }
  for a, row in pairs(wanted) do
    for b, result in pairs(row) do
      check.equal(dtype_of(make[a], make[b]), result)
      check.equal(dtype_of(make[b], make[a]), result)
    end
  end
end)

check.test("a number never widens within its category", function()
  for d, wanted in pairs { bool = { "int64", "float32" }, int64 = { "int64", "float32" }, float32 = { "float32", "float32" },
                           float64 = { "float64", "float64" } } do
    local t = kiln.ones(2, { dtype = d })
    check.equal(dtype_of(t, 1), wanted[1])
    check.equal(dtype_of(1, t), wanted[1])
    check.equal(dtype_of(t, 1.5), wanted[2])
  end
  check.equal((kiln.ones(2, { dtype = "bool" }) | true).dtype, "bool")
end)

check.test("a tensor without dimensions gives way within its category", function()
  check.equal(dtype_of(kiln.ones(2), kiln.ones({}, { dtype = "float64" })), "float32")
  check.equal(dtype_of(kiln.ones(2, { dtype = "int64" }), kiln.ones({}, { dtype = "float64" })), "float64")
  check.equal(dtype_of(kiln.ones {}, kiln.ones({}, { dtype = "float64" })), "float64")
end)

check.test("division and means", function()
  check.tensor(kiln.tensor { 1, 2 } / 2, { 0.5, 1.0 }, "float32")
  check.tensor(kiln.tensor { 7 } // 2, { 3 }, "int64")
  check.tensor(kiln.tensor { true, true }:sum(), 2, "int64")
  check.tensor(kiln.tensor { 4 }:sqrt(), { 2.0 }, "float32")
end)

check.test("numbers keep their value beside float64", function()
  check.tensor(kiln.zeros(1, { dtype = "float64" }) + 0.1, { 0.1 }, "float64")
  check.tensor(kiln.tensor { math.maxinteger - 1 } + 1, { math.maxinteger }, "int64")
end)
