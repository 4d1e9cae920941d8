-- t[key] and t[key] = value.
local check = require "check"
local test, tensor, equal = check.test, check.tensor, check.equal

local function matrix() return kiln.tensor { { 1, 2, 3 }, { 4, 5, 6 } } end

test("positions", function()
  local t = matrix()
  tensor(t[1], { 1, 2, 3 })
  tensor(t[-1], { 4, 5, 6 })
  tensor(t[{ 2, 3 }], 6)
  tensor(t[{ -1, -3 }], 4)
  tensor(t[2][2], 5)
end)

test("ranges are inclusive", function()
  local t = matrix()
  tensor(t[{ {}, { 1, 2 } }], { { 1, 2 }, { 4, 5 } })
  tensor(t[{ {}, { 2, -1 } }], { { 2, 3 }, { 5, 6 } })
  tensor(t[{ {}, { 1, -2 } }], { { 1, 2 }, { 4, 5 } })
  tensor(t[{ {}, { 1, 3, 2 } }], { { 1, 3 }, { 4, 6 } })
  tensor(t[{ {}, { -2, -2 } }], { { 2 }, { 5 } })
  tensor(t[{ { 2, 2 } }], { { 4, 5, 6 } })
  tensor(t[{ 1, { 2, 3 } }], { 2, 3 })
  tensor(t[{ {}, 2 }], { 2, 5 })
  equal(t[{ {}, { 3, 2 } }].shape, { 2, 0 })
  tensor(t[{}], matrix():totable())
end)

test("basic indexing gives views", function()
  local t = matrix()
  local row, column, all = t[1], t[{ {}, 2 }], t[{ {} }]
  row[1] = 10
  column:mul_(2)
  all[{ 2, 3 }] = 60
  tensor(t, { { 10, 4, 3 }, { 4, 10, 60 } })
end)

test("masks", function()
  local t = matrix()
  tensor(t[t:gt(2)], { 3, 4, 5, 6 })
  tensor(t[kiln.tensor { false, true }], { { 4, 5, 6 } })
  tensor(t[{ {}, kiln.tensor { true, false, true } }], { { 1, 3 }, { 4, 6 } })
  tensor(t[1][kiln.tensor { true, false, true }], { 1, 3 })
  equal(kiln.zeros(2, 3, 4)[kiln.ones(2, 3, { dtype = "bool" })].shape, { 6, 4 })
end)

test("index tensors", function()
  local t = matrix()
  tensor(t[kiln.tensor { 2, 1, 2 }], { { 4, 5, 6 }, { 1, 2, 3 }, { 4, 5, 6 } })
  tensor(t[{ {}, kiln.tensor { 3, 1 } }], { { 3, 1 }, { 6, 4 } })
  tensor(t[{ 2, kiln.tensor { 3, 1 } }], { 6, 4 })
  equal(t[kiln.tensor { { 1, 2 }, { 2, 1 } }].shape, { 2, 2, 3 })
  tensor(t[kiln.tensor { { 1 }, { 2 } }], { { { 1, 2, 3 } }, { { 4, 5, 6 } } })
end)

test("assignment", function()
  local t = matrix()
  t[1] = 0
  tensor(t, { { 0, 0, 0 }, { 4, 5, 6 } })
  t[{ {}, 1 }] = kiln.tensor { 7, 8 }
  tensor(t, { { 7, 0, 0 }, { 8, 5, 6 } })
  t[{ 2, { 2, 3 } }] = { 1, 2 }
  tensor(t, { { 7, 0, 0 }, { 8, 1, 2 } })
  t[{ { 1, 2 }, 3 }] = 9.7
  tensor(t, { { 7, 0, 9 }, { 8, 1, 9 } }, "int64")
  t[{}] = 1
  tensor(t, { { 1, 1, 1 }, { 1, 1, 1 } })
end)

test("assignment by mask and index", function()
  local t = matrix()
  t[t:gt(4)] = 0
  tensor(t, { { 1, 2, 3 }, { 4, 0, 0 } })
  t[t:eq(0)] = kiln.tensor { 8, 9 }
  tensor(t, { { 1, 2, 3 }, { 4, 8, 9 } })
  t[kiln.tensor { 2 }] = -1
  tensor(t, { { 1, 2, 3 }, { -1, -1, -1 } })
  t[{ {}, kiln.tensor { 3, 1 } }] = kiln.tensor { { 30, 10 }, { 31, 11 } }
  tensor(t, { { 10, 2, 30 }, { 11, -1, 31 } })
  t[kiln.tensor { true, false }] = 5
  tensor(t, { { 5, 5, 5 }, { 11, -1, 31 } })
  local wide = kiln.zeros(2, 2, 2)
  wide[kiln.tensor { { true, false }, { false, true } }] = 1
  tensor(wide, { { { 1.0, 1.0 }, { 0.0, 0.0 } }, { { 0.0, 0.0 }, { 1.0, 1.0 } } })
  local view = kiln.zeros(2, 3):t()
  view[view:eq(0)] = 2
  tensor(view[1], { 2.0, 2.0 })
end)

test("gradients flow through indexing", function()
  local x = kiln.arange(1, 7):float():reshape(2, 3):requires_grad_()
  local doubled = x[{ {}, { 2, 3 } }] * 2
  doubled:sum():backward()
  tensor(x.grad, { { 0.0, 2.0, 2.0 }, { 0.0, 2.0, 2.0 } })
  x.grad = nil
  x[kiln.tensor { 2, 2 }]:sum():backward()
  tensor(x.grad, { { 0.0, 0.0, 0.0 }, { 2.0, 2.0, 2.0 } })
  x.grad = nil
  x[x:gt(4)]:sum():backward()
  tensor(x.grad, { { 0.0, 0.0, 0.0 }, { 0.0, 1.0, 1.0 } })
end)

test("what does not fit is refused", function()
  local t = matrix()
  check.raises(function() return t[0] end, "index: position is 0, but counting starts at 1")
  check.raises(function() return t[3] end, "index.lua:", "3", "int64[2,3]")
  check.raises(function() return t[-3] end, "int64[2,3]")
  check.raises(function() return t[{ 1, 2, 3 }] end, "more keys than dimensions of int64[2,3]")
  check.raises(function() return t[{ { 1 } }] end, "{first, last}")
  check.raises(function() return t[{ { 0, 1 } }] end, "first is 0")
  check.raises(function() return t[{ {}, { 1, 0 } }] end, "last is 0")
  check.raises(function() return t[1.5] end, "must be an integer")
  check.raises(function() return t[{ "a" }] end, "must be an integer, got a string")
  check.raises(function() return t[true] end, "must be an integer, got a boolean")
  check.raises(function() return t[kiln.tensor { 1.0 }] end, "int64, int32 or bool, not float32")
  check.raises(function() return t[kiln.tensor { 3 }] end, "3")
  check.raises(function() return t[kiln.tensor { true }] end, "a mask of 1 does not fit dimension 1, of size 2")
  check.raises(function() return t[{ kiln.tensor { 1 }, kiln.tensor { 1 } }] end, "one index tensor at a time")
  check.raises(function() t[1] = "x" end, "the new value must be a tensor, a number or a table, got a string")
  check.raises(function() t[1] = kiln.zeros(4) end, "copy_", "[4]")
  check.raises(function() t[1] = { 1, 2 } end, "copy_")
  check.raises(function() t[t:gt(4)] = kiln.tensor { 1, 2, 3 } end, "3")
  tensor(t, matrix():totable())
end)
