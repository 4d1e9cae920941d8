-- Writing in place and through views while gradients are recorded. Expected values are PyTorch's.
local check = require "check"
local test, tensor, equal, raises, near = check.test, check.tensor, check.equal, check.raises, check.near

local function leaf(values) return kiln.tensor(values, { dtype = "float64", requires_grad = true }) end

test("a write through a view becomes part of its base's history", function()
  local x = leaf { 1, 2, 3, 4 }
  local y = x * 1
  y[{ { 2, 3 } }]:mul_(10)
  ;(y * kiln.tensor { 1.0, 2, 3, 4 }):sum():backward()
  tensor(x.grad, { 1.0, 20.0, 30.0, 4.0 })
end)

test("other views of the base see the write", function()
  local x = leaf { 1, 2, 3, 4 }
  local y = x * 1
  local v, row = y[{ { 1, 2 } }], y:view(2, 2)[2]
  y[{ { 2, 4 } }]:mul_(2)
  tensor(v, { 1.0, 4.0 })
  ;(v * 3 + row):sum():backward()
  tensor(x.grad, { 3.0, 6.0, 2.0, 2.0 })
end)

test("what is overwritten gets no gradient, what is written does", function()
  local x, w = leaf { { 1, 2 }, { 3, 4 } }, leaf { 5, 6 }
  local y = x * x
  y[{ {}, 1 }] = w
  y:sum():backward()
  tensor(x.grad, { { 0.0, 4.0 }, { 0.0, 8.0 } })
  tensor(w.grad, { 1.0, 1.0 })
end)

test("a plain tensor joins in when it is written with a history", function()
  local b, w = kiln.zeros(3), kiln.tensor(2.0, { requires_grad = true })
  local v = b[{ { 2, 3 } }]
  local u = b[{ { 1, 2 } }]
  v[1] = w
  equal({ b.requires_grad, v.requires_grad, u.requires_grad, b.is_leaf, v.is_leaf }, { true, true, true, false, false })
  ;(u * kiln.tensor { 5.0, 7.0 }):sum():backward()
  tensor(w.grad, 7.0)
end)

test("an accumulator filled in a loop", function()
  local x, out = leaf { 1, 2, 3 }, kiln.zeros(3, { dtype = "float64" })
  local h = kiln.zeros({}, { dtype = "float64" })
  for i = 1, 3 do
    h = h * 0.5 + x[i]
    out[i] = h * h
  end
  tensor(kiln.grad(out:sum(), x), { 2 * 1 + 0.5 * 2 * 2.5 + 0.25 * 2 * 4.25, 2 * 2.5 + 0.5 * 2 * 4.25, 2 * 4.25 })
end)

test("values that a gradient needs are kept when the op itself overwrites them", function()
  local x = leaf { 2, 3 }
  local y = x * 1
  y:mul_(y)
  y:pow_(2)
  y:sum():backward()
  tensor(x.grad, { 32.0, 108.0 })
  x.grad = nil
  y = x * 1
  y:exp_()
  y:log_()
  y:sum():backward()
  near(x.grad:totable(), { 1, 1 }, 1e-12)
end)

test("a value changed after it was saved is an error that names both ops", function()
  local x = leaf { 1, 2 }
  local y = x * 2
  local z = (y * y):sum()
  y[1] = 5
  raises(function() z:backward() end, "backward of mul", "changed in place by an assignment (copy_, fill_ or zero_) after it was saved for backward", "clone")
  local s = x:sigmoid()
  local t = s:sum()
  s:add_(1)
  raises(function() t:backward() end, "backward of sigmoid: result 1 was changed in place by add_", "use add,")
  local e = x + 0
  local f = (e + 1):sum() -- a sum needs no values
  e:add_(1)
  f:backward()
  tensor(x.grad, { 1.0, 1.0 })
  local d = x * 2
  local q = (d * d):sum()
  d:detach():zero_() -- shares the version counter
  raises(function() q:backward() end, "backward of mul", "changed in place by an assignment")
  local viewed = x * 2
  local r = (viewed * viewed):sum()
  kiln.no_grad(function() viewed[{ { 1, 1 } }]:fill_(3) end)
  raises(function() r:backward() end, "changed in place")
end)

test("leaves that require grad and views of them are refused", function()
  local x = leaf { { 1, 2 }, { 3, 4 } }
  raises(function() x:add_(1) end, "add_: a leaf that requires grad is being changed in place; do it under kiln.no_grad")
  raises(function() x[1] = 0 end, "a view of a leaf that requires grad is being changed in place")
  raises(function() x:t()[1]:mul_(2) end, "mul_: a view of a leaf")
  kiln.no_grad(function() x[1] = 0 end)
  tensor(x, { { 0.0, 0.0 }, { 3.0, 4.0 } })
  local v = kiln.no_grad(function() return x[2] end)
  equal(v.requires_grad, false)
  raises(function() v:mul_(2) end, "a view of a leaf that requires grad")
end)

test("views made under no_grad are not written to where gradients are recorded", function()
  local x = leaf { 1, 2 }
  local y = x * 2
  local v = kiln.no_grad(function() return y[{ { 1, 1 } }] end)
  raises(function() v:mul_(3) end, "mul_: a view that was made under no_grad or inference_mode is being changed in place")
  tensor(y, { 2.0, 4.0 })
  kiln.no_grad(function() v:mul_(3) end)
  tensor(y, { 6.0, 4.0 })
  y:mul_(2)
  raises(function() return v + 1 end, "add: input 1: it is a view that was made under no_grad")
end)

test("requires_grad_ on views and their bases", function()
  local b = kiln.ones(3)
  local v = b[{ { 1, 2 } }]:requires_grad_()
  equal({ v.is_leaf, b.requires_grad }, { true, false })
  b:add_(1)
  ;(v * v):sum():backward()
  tensor(v.grad, { 4.0, 4.0 })
  raises(function() v:add_(1) end, "a leaf that requires grad")
  local y = leaf { 1, 2 } * 2
  local u = y[1]
  raises(function() u:requires_grad_(false) end, "result of select")
  local base = kiln.ones(2)
  local early = base[{ {} }]
  base:requires_grad_()
  raises(function() early:add_(1) end, "a view of a leaf that requires grad")
end)

test("detached tensors share elements, not history", function()
  local x = leaf { 1, 2, 3 }
  local y = x * 2
  local d = y:detach()
  d[1] = 50
  tensor(y, { 50.0, 4.0, 6.0 })
  equal({ d.requires_grad, y.requires_grad }, { false, true })
  y:sum():backward()
  tensor(x.grad, { 2.0, 2.0, 2.0 })
  local w = leaf { 1 }
  d:mul_(w) -- a history of its own
  equal(d.requires_grad, true)
  tensor(kiln.grad(d:sum(), w), { 60.0 })
end)

test("a base that does not lie in order", function()
  local w, x = leaf { 3, 4 }, kiln.arange(1, 13):double():view(3, 4)
  local odd = x:t()[{ { 1, 4, 2 }, { 1, 3, 2 } }]:detach() -- {{1, 9}, {3, 11}}
  odd[{ {}, 2 }] = w * 2
  odd[1]:mul_(w)
  tensor(odd, { { 3.0, 24.0 }, { 3.0, 8.0 } })
  tensor(kiln.grad((odd * kiln.tensor { { 1.0, 2.0 }, { 3.0, 4.0 } }):sum(), w), { 17.0, 20.0 })
end)

test("parts of unbind, split and chunk are views of their own, and may be written", function()
  local x = leaf { 1, 2, 3, 4 }
  local y = x * 1
  local parts = y:unbind()
  parts[1]:mul_(3)
  y:split(2)[2]:mul_(5)
  y:chunk(2)[1][2] = 0
  ;(y * y):sum():backward()
  tensor(x.grad, { 18.0, 0.0, 150.0, 200.0 })
  equal(parts[2].requires_grad, true)
  tensor(parts[2], 0.0)
end)

test("higher orders go through writes", function()
  local x = leaf { 1, 2, 3 }
  local function f(v)
    local y = v * v
    y[{ { 1, 2 } }]:mul_(v[3])
    y[2] = y[1]:clone() * v[2]
    return (y * y):sum()
  end
  equal(kiln.gradcheck(f, x), true)
  local function g(v) return kiln.enable_grad(function() return kiln.grad(f(v), v, { create_graph = true }) end) end
  equal(kiln.gradcheck(g, x), true)
end)

test("what overlaps itself is not written to; what overlaps its source is copied first", function()
  raises(function() kiln.zeros(1):expand(3):add_(1) end, "add_: cannot write to an expanded tensor (dim 1 repeats")
  raises(function() kiln.zeros(3, 1):expand(3, 2):zero_() end, "expanded tensor (dim 2")
  local t = kiln.arange(1, 7):double()
  raises(function() t:unfold(1, 3, 1):add_(1) end, "add_: cannot write to a tensor some of whose elements are the same memory", "clone it first")
  tensor(t, { 1.0, 2.0, 3.0, 4.0, 5.0, 6.0 })
  t:unfold(1, 3, 3):add_(1) -- windows side by side do not overlap
  tensor(t, { 2.0, 3.0, 4.0, 5.0, 6.0, 7.0 })
  t:unfold(1, 2, 3)[2]:zero_()
  tensor(t, { 2.0, 3.0, 4.0, 0.0, 0.0, 7.0 })
  t[{ { 2, 5 } }]:copy_(t[{ { 1, 4 } }])
  tensor(t, { 2.0, 2.0, 3.0, 4.0, 0.0, 7.0 })
  t[{ { 1, 4 } }]:add_(t[{ { 3, 6 } }])
  tensor(t, { 5.0, 6.0, 3.0, 11.0, 0.0, 7.0 })
  local m = kiln.arange(1, 5):view(2, 2)
  m:copy_(m:t())
  tensor(m, { { 1, 3 }, { 2, 4 } })
end)

-- ---- random programs: what backward says of views, writes and assignments is compared with differences ----

local function random_program(seed)
  local state = seed
  local function draw(n) -- the same steps each time a program runs
    state = (state * 1103515245 + 12345) % 2147483648
    return (state >> 12) % n + 1
  end
  local function range(size)
    local a, b = draw(size), draw(size)
    return { math.min(a, b), math.max(a, b), draw(2) }
  end
  local function view_of(t)
    local rank = t:dim()
    if rank == 0 then return t[{}] end
    local kind, dim = draw(7), draw(rank)
    if kind == 1 then return t:select(dim, draw(t:size(dim))) end
    if kind == 2 and rank > 1 then return t:transpose(dim, draw(rank)) end
    if kind == 3 then return t:unsqueeze(dim) end
    if kind == 4 and t:is_contiguous() then return t:view(-1) end
    if kind == 5 and rank == 2 then return t:diagonal() end
    local r = range(t:size(dim))
    return t:slice(dim, r[1], r[2], r[3])
  end
  return function(x, w)
    state = seed
    local list = { x * 1, kiln.zeros(3, 4, { dtype = "float64" }), kiln.ones(4, 3, { dtype = "float64" }):t():detach() }
    for _ = 1, 8 do
      local t = list[draw(#list)]
      local kind = draw(9)
      if kind <= 3 and t:dim() < 4 then
        list[#list + 1] = view_of(t)
      elseif kind == 4 then
        t:mul_(w[{ 1, draw(2) }])
      elseif kind == 5 then
        t:copy_(w[{ draw(3), 1 }] * x[{ draw(3), draw(4) }])
      elseif kind == 6 then
        t:add_(list[draw(#list)]:sum() * 0.1)
      elseif kind == 7 then
        t:sin_()
      elseif kind == 8 and t:dim() > 0 then
        t[draw(t:size(1))] = w[{ draw(3), 2 }] * 3
      elseif kind == 9 and t:dim() > 0 then
        local a, b = draw(t:size(1)), draw(t:size(1)) -- equal indices would both be given the gradient, as in PyTorch
        t[kiln.tensor(a ~= b and { a, b } or { a })] = x[{ 1, 1 }]
      end
    end
    local sum = kiln.zeros({}, { dtype = "float64" })
    for i, t in ipairs(list) do sum = sum + (t:cos() * (0.3 + i)):sum() end
    return sum
  end
end

test("random programs of views and writes agree with differences", function()
  local first = tonumber(os.getenv "SEED") or os.time() % 100000
  for seed = first, first + (tonumber(os.getenv "COUNT") or 60) - 1 do
    kiln.manual_seed(seed)
    local x = kiln.rand(3, 4, { dtype = "float64", requires_grad = true })
    local w = kiln.rand(3, 2, { dtype = "float64", requires_grad = true })
    local f = random_program(seed)
    local ok, why = pcall(kiln.gradcheck, f, { x, w })
    check.truth(ok, ("seed %d: %s"):format(seed, why))
    if seed % 10 == 0 then
      ok, why = pcall(kiln.gradcheck, function(a, b)
        return kiln.enable_grad(function()
          local g = kiln.grad(f(a, b), { a, b }, { create_graph = true, allow_unused = true })
          return (g[1] or a) * 1, (g[2] or b) * 1
        end)
      end, { x, w })
      check.truth(ok, ("second order, seed %d: %s"):format(seed, why))
    end
  end
end)
