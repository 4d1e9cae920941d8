-- Gradients of gradients (create_graph) through captured functions that are called from eager code.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor
local nn = kiln.nn

-- First and second gradients of f for x and for the parameters, of f as it is and captured, from the same seed.
local function agree(name, f, x, params)
  test(name, function()
    local function run(g)
      kiln.manual_seed(3)
      local at = x:detach():clone():requires_grad_()
      local all = { at, table.unpack(params or {}) }
      local y = g(at)
      local first = kiln.grad(y:pow(2):sum(), all, { create_graph = true, allow_unused = true })
      local sum = kiln.zeros(1, { dtype = x.dtype })
      for i = 1, #all do if first[i] then sum = sum + (first[i] * first[i]):sum() end end
      local second = kiln.grad(sum:sum(), all, { create_graph = true, allow_unused = true })
      local third = kiln.grad((second[1] * at):sum(), all, { allow_unused = true })
      local out = { y:detach():totable(), kiln.rand(1):item() }
      for _, list in ipairs { first, second, third } do
        for i = 1, #all do out[#out + 1] = list[i] and list[i]:detach():totable() or {} end
      end
      return out
    end
    local want, captured = run(f), kiln.script(f)
    for _ = 1, 2 do
      local got = run(captured)
      for i = 1, #want do check.near(got[i], want[i], 1e-7 * (type(want[i]) == "table" and 100 or 1)) end
    end
  end)
end

local function double(list) return T(list, { dtype = "float64" }) end
local w = nn.Parameter(double { 0.3, -0.8, 1.2 })
local x = double { 0.5, -1.5, 0.7 }

agree("of ops", function(v) return (v * w):tanh() * v end, x, { w })
agree("a branch", function(v)
  if v:sum():item() > -1 then v = v * v * w end
  return v:exp()
end, x, { w })
agree("one that takes the other branch", function(v)
  local y = v * w
  if v:sum():item() > 0 then y = y:cos() * v end
  return y:sin()
end, -x, { w })
agree("random numbers", function(v) return (v * kiln.rand(3, { dtype = "float64" })):sin() * w end, x, { w })
agree("a checkpoint inside", function(v) return kiln.checkpoint(function(u) return (u * w):sin() * u end, v) end, x, { w })
agree("a parameter that one of two results needs", function(v) return (v * 2):exp() * w:sigmoid(), w * 3 end, x, { w })

test("gradgradcheck, and backward with create_graph", function()
  local f = kiln.script(function(v) return (v * v * w:detach()):sin() end)
  equal(kiln.gradgradcheck(f, x:detach():requires_grad_()), true)
  local g = kiln.script(function(v) return (v ^ 3):sum() end)
  local v = T { 2.0 }:requires_grad_()
  g(v):backward { create_graph = true }
  local d = v.grad
  v.grad = nil
  d:backward()
  equal(v.grad:item(), 12.0)
end)

test("through a loop on data twice, and three times is refused", function()
  local function f(v) while v:abs():max():item() > 0.2 do v = v * w:sin() * 0.7 end return v:exp() end
  local function run(g, order)
    local at = x:detach():clone():requires_grad_()
    local y = g(at):pow(2):sum()
    for i = 1, order do
      local d = kiln.grad(y, { at, w }, { create_graph = i < order })
      y = (d[1] * d[1]):sum() + (d[2] * d[2]):sum()
    end
    return y:item()
  end
  local g = kiln.script(f)
  check.near(run(g, 2), run(f, 2), 1e-9)
  raises(function() run(g, 3) end, "gradients through first are not supported yet")
end)

test("what cannot be computed again is refused; what was changed is an error", function()
  local n = 0
  local v = T { 2.0, 3.0 }:requires_grad_()
  local count = kiln.script(function(u) n = n + 1 return u * u * n end)
  raises(function() kiln.grad(count(v):sum(), v, { create_graph = true }) end, "keeps state", "call the function it was made of")
  equal(kiln.grad(count(v):sum(), v):totable(), { 8.0, 12.0 })
  local c = T { 1.0, 2.0 }
  local f = kiln.script(function(u) return u * u * c end)
  local y = f(v)
  c:mul_(2)
  raises(function() kiln.grad(y:sum(), v, { create_graph = true }) end, "changed")
end)
