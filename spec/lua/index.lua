-- t[key] and t[key] = value.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises

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

test("ipairs goes over the rows and stops", function()
  local t, seen = matrix(), {}
  for i, row in ipairs(t) do seen[i] = row:totable() end
  check.equal(seen, t:totable())
  for _ in ipairs(kiln.zeros(0, 3)) do error("there is no row") end
  local sum = 0
  for _, x in ipairs(kiln.arange(4)) do sum = sum + x:item() end
  check.equal(sum, 6)
  local step = ipairs(t)
  check.equal(step(t, 2), nil)
  check.raises(function() step(t, 3) end, "index: index 4 is out of range for dim 1 of size 2")
  check.raises(function() return t[3] end, "index: index 3 is out of range for dim 1 of size 2")
  check.raises(function() for _ in ipairs(kiln.tensor(1)) do end end, "more keys than dimensions")
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
  check.raises(function() return t[kiln.tensor { true }] end, "index: the mask does not fit the dims from 1 on (got int64[2,3], bool[1])")
  check.raises(function() return t[{ 1, 1, kiln.tensor { 1 } }] end, "more keys than dimensions")
  check.raises(function() return t[{ {}, kiln.tensor { 1, 4 } }] end, "index: key 2: index 4 is out of range for dim 2 of size 3 (indices start at 1)")
  check.raises(function() return t[kiln.tensor { 0 }] end, "index 0 is out of range for dim 1 of size 2")
  check.raises(function() return t[{ kiln.tensor { 1, -3 }, kiln.tensor { 1, 2 } }] end, "index -3 is out of range for dim 1 of size 2")
  check.raises(function() t[{ kiln.tensor { 1, 2 }, kiln.tensor { 1, 7 } }] = 0 end, "index 7 is out of range for dim 2 of size 3")
  check.raises(function() return t[{ {}, 4 }] end, "index: key 2: index 4 is out of range for dim 2 of size 3 (got int64[2,3])")
  check.raises(function() return t[{ kiln.tensor { 1, 2 }, kiln.tensor { 1, 2, 3 } }] end, "index: ", "[2]", "[3]")
  check.raises(function() return t[{ kiln.ones(2, 2, { dtype = "bool" }) }] end, "index: the mask does not fit the dims from 1 on (got int64[2,3], bool[2,2])")
  check.raises(function() return t[{ "...", 1, "..." }] end, '"..." may stand once in a key')
  check.raises(function() return t[{ "...", 1, 1, 1 }] end, "more keys than dimensions")
  check.raises(function() return t[{ kiln.tensor(true) }] end, "a mask without dimensions")
  check.raises(function() return kiln.index_put(t, { kiln.tensor { 9 } }, kiln.tensor { 1 }) end, "index_put: index 9 is out of range for dim 1 of size 2")
  check.raises(function() t[1] = "x" end, "the new value must be a tensor, a number or a table, got a string")
  check.raises(function() t[1] = kiln.zeros(4) end, "copy_", "[4]")
  check.raises(function() t[1] = { 1, 2 } end, "copy_")
  check.raises(function() t[t:gt(4)] = kiln.tensor { 1, 2, 3 } end, "3")
  tensor(t, matrix():totable())
end)

-- Keys into arange(1, 121):view(2, 3, 4, 5), the shape PyTorch gives and the sum of the elements, each times its place.
-- The sum also tells where a write of 1, 2, 3 … through the key went.
local function I(values) return kiln.tensor(values) end
local function M(values) return kiln.tensor(values) end
local keys = {
  { { {}, { 3, 3 }, -3, kiln.newaxis, I {{3, 4}} }, { 2, 1, 1, 1, 2 }, 906 },
  { { { 1, 1, 2 }, kiln.newaxis, I {2, 3}, {}, I(-1) }, { 1, 1, 2, 4 }, 1740 },
  { { I {-1}, I {2, -3}, { 1, 2 } }, { 2, 2, 5 }, 15020 },
  { { M {true, true}, "...", 3 }, { 2, 3, 4 }, 23900 },
  { { {}, I {3, 2} }, { 2, 2, 4, 5 }, 271080 },
  { { M {{false, false, true}, {false, true, false}}, I {{4, 4}, {-1, 1}}, kiln.newaxis, M {true, false, false, true, false} }, { 2, 2, 1 }, 758, true },
  { { kiln.newaxis, { 2, 2, 2 }, M {{false, false, true, false}, {false, false, true, false}, {false, false, false, false}}, "...", 1 }, { 1, 1, 2 }, 253 },
  { { "...", 1, 3, 3, 5 }, {  }, 55 },
  { { I(1), M {true, true, false}, "...", 2 }, { 2, 4 }, 912 },
  { { I(1), {}, { 2, 2 }, I {2, 3} }, { 3, 1, 2 }, 739 },
  { { I {2, 1}, M {{false, true, false, false}, {false, false, false, true}, {false, false, false, false}} }, { 2, 5 }, 2560 },
  { { kiln.newaxis, kiln.newaxis, { 1, 2 }, { 2, 2 }, 2, M {true, false, true, false, false} }, { 1, 1, 2, 1, 2 }, 692 },
  { { I(-1), I {3, 2}, "...", 1, 4 }, { 2 }, 272 },
  { { M {{false, true, true}, {false, false, false}}, "..." }, { 2, 4, 5 }, 38540 },
  { { I {-2, -1} }, { 2, 3, 4, 5 }, 583220 },
  { { { 2, 2 }, M {{false, false, false, true}, {false, false, false, false}, {false, false, true, false}} }, { 1, 2, 5 }, 5710 },
  { { I {1}, I {3}, M {{false, false, false, true, false}, {false, true, false, false, false}, {false, false, false, false, false}, {false, false, false, false, false}} }, { 2 }, 138 },
  { { I(-1), M {false, true, true}, M {{false, false, false, false, false}, {false, false, false, true, false}, {false, false, false, false, false}, {true, false, false, false, false}} }, { 2 }, 321 },
  { { "...", 1, 1 }, { 2, 3 }, 1421 },
  { { "...", 2, 3, 1 }, { 2 }, 213 },
  { { M {true, true} }, { 2, 3, 4, 5 }, 583220 },
  { { 1, { 3, 3 }, I {4}, I {3, 5} }, { 1, 2 }, 178 },
  { { I(2), -1, "..." }, { 4, 5 }, 23870 },
  { { { 1, 1 }, I {{1, 2}, {1, 3}} }, { 1, 2, 2, 4, 5 }, 105280, true },
  { { I(2), "...", 3, 5 }, { 3 }, 610 },
  { { I(2), I {1, 3}, {}, M {false, false, true, false, true} }, { 2, 4 }, 3680 },
  { { "...", 3, 1, 4 }, { 2 }, 252 },
  { { I {1} }, { 1, 3, 4, 5 }, 73810 },
  { { M {true, true}, M {true, false, true}, M {false, false, true, true} }, { 2, 5 }, 4935 },
  { { "...", 2, 2, 3, 5 }, {  }, 95 },
  { { I {-1, 2}, I {3, 1}, {}, I {4} }, { 2, 4 }, 3024 },
  { { { 2, 2, 2 }, {}, I {{3, 3}}, I {{5, 1}} }, { 1, 3, 1, 2 }, 2107 },
  { { { 2, 2 }, 2, I {-3}, I {1, 4} }, { 1, 2 }, 264 },
  { { -2, I {{3, 2}}, I {{3, 4}}, {} }, { 1, 2, 5 }, 2335 },
  { { M {{false, true, false}, {false, true, false}}, I {{-1, 3}} }, { 1, 2, 5 }, 4310 },
  { { I(2) }, { 3, 4, 5 }, 183610 },
}

test("several index tensors, masks, ranges and positions in a key", function()
  local a = kiln.arange(1, 121):view(2, 3, 4, 5)
  local places = kiln.arange(1, 121):view(2, 3, 4, 5)
  for i, case in ipairs(keys) do
    local key, shape, sum, twice = table.unpack(case)
    local got = a[key]
    local order = kiln.arange(1, got:numel() + 1)
    check.truth(table.concat(got.shape, ",") == table.concat(shape, ","), ("key %d: shape %s"):format(i, table.concat(got.shape, ",")))
    check.truth((got:reshape(-1) * order):sum():item() == sum, ("key %d: elements"):format(i))
    if not twice then
      local b = kiln.zeros(2, 3, 4, 5, { dtype = "int64" })
      b[key] = order:view(shape)
      check.truth((b * places):sum():item() == sum, ("key %d: written"):format(i))
      b[key] = 7
      equal(b:eq(7):sum():item(), got:numel())
    end
  end
end)

test("where separated index tensors put their dims", function()
  local a, i = kiln.zeros(2, 3, 4, 5), kiln.tensor { 1, 2 }
  equal(a[{ i, {}, i }].shape, { 2, 3, 5 })
  equal(a[{ {}, i, {}, i }].shape, { 2, 2, 4 })
  equal(a[{ {}, i, i }].shape, { 2, 2, 5 })
  equal(a[{ {}, i, 1, i }].shape, { 2, 2 })
  equal(a[{ 1, {}, i }].shape, { 3, 2, 5 })
  equal(a[{ "...", i, {}, 1 }].shape, { 2, 2, 4 })
  equal(a[{ {}, kiln.ones(3, 4, { dtype = "bool" }) }].shape, { 2, 12, 5 })
  equal(a[{ kiln.newaxis, 1, "...", kiln.newaxis }].shape, { 1, 3, 4, 5, 1 })
end)

test("repeated places: the last counts, accumulate adds", function()
  local t, twice = kiln.zeros(3), kiln.tensor { 1, 1, 2 }
  t[twice] = t[twice] + 1
  tensor(t, { 1.0, 1.0, 0.0 })
  tensor(kiln.zeros(3):index_put({ twice }, kiln.ones(3), true), { 2.0, 1.0, 0.0 })
  local m = kiln.zeros(2, 2)
  tensor(m:index_put_({ kiln.tensor { 1, 1, 2 }, kiln.tensor { 2, 2, -2 } }, kiln.tensor { 1.0, 2.0, 5.0 }, true), { { 0.0, 3.0 }, { 5.0, 0.0 } })
  tensor(m, { { 0.0, 3.0 }, { 5.0, 0.0 } })
end)

test("gradients flow through keys of every kind, read and written", function()
  local function random(...) return kiln.randn({ ... }, { dtype = "float64", requires_grad = true }) end
  local i, j = kiln.tensor { 1, -1 }, kiln.tensor { { 2, 1 }, { 3, 3 } }
  local m = kiln.tensor { { true, false, true }, { false, false, true } }
  equal(kiln.gradcheck(function(x) return x[{ i, {}, j }], x[{ {}, j, 2 }], x[{ m, i[1] }], x[m] end, random(2, 3, 3)), true)
  equal(kiln.gradgradcheck(function(x, v)
    local y = x * 2
    y[{ i, {}, kiln.tensor { 1, 2 } }] = v
    y[{ m, 3 }] = y[{ 1, 1, 1 }]:clone() * v[{ 2, 2 }]
    y[y:gt(1)] = 0.5
    return y * y
  end, { random(2, 3, 3), random(2, 3) }), true)
end)

test("more forms in place", function()
  local t = kiln.zeros(2, 3)
  t:index_add_(kiln.tensor { 2, 2 }, kiln.ones(2, 3), 1):index_copy_(kiln.tensor { 1 }, kiln.ones(1, 3) * 7, 1)
  tensor(t, { { 7.0, 7.0, 7.0 }, { 2.0, 2.0, 2.0 } })
  t:scatter_(kiln.tensor { { 1 }, { 3 } }, kiln.tensor { { -1.0 }, { -2.0 } }, 2)
  tensor(t, { { -1.0, 7.0, 7.0 }, { 2.0, 2.0, -2.0 } })
  t:scatter_add_(kiln.tensor { { 1 }, { 3 } }, kiln.tensor { { 1.0 }, { 1.0 } }, 2):cumsum_(2):tril_()
  tensor(t, { { 0.0, 0.0, 0.0 }, { 2.0, 4.0, 0.0 } })
  raises(function() t:index_add_(kiln.tensor { 3 }, kiln.ones(1, 3), 1) end, "index_add", "3")
  tensor(t, { { 0.0, 0.0, 0.0 }, { 2.0, 4.0, 0.0 } })
end)
