-- kiln.cond and kiln.while_loop: the same eager, captured and traced.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local function line() return "control.lua:" .. debug.getinfo(2, "l").currentline .. ": " end

local w = kiln.tensor { 3.0, 4 }
local function branch(x)
  return kiln.cond(x:sum():gt(0), function(a) return a * w, a:sum() end, function(a) return a - 1, a:max() * 2 end, x)
end
local function loop(x, n)
  return kiln.while_loop(function(v, i) return i < n end, function(v, i)
    return kiln.cond(v:sum():lt(10), function() return v * 2, i + 1 end, function() return v + w, i + 2 end)
  end, x, 0)
end
local cases = { { 1.0, 2 }, { -1.0, -2 }, { 0.0, 0 }, { 0 / 0, 1 }, { 100.0, 2 } }

test("eager they run", function()
  equal({ kiln.cond(true, function(...) return ... end, error, 1, nil, 3) }, { 1, nil, 3 })
  equal(kiln.cond(kiln.tensor { 0.0 }, error, function() return "no" end), "no")
  equal({ kiln.while_loop(function(i, s) return i < 5 end, function(i, s) return i + 1, s .. i end, 1, "") }, { 5, "1234" })
  equal(branch(kiln.tensor { 1.0, 2 }):totable(), { 3.0, 8.0 })
  truth(kiln.cond(kiln.eye(2)):item() > 0) -- of a matrix alone it is its condition
  raises(function() kiln.cond(3, print, print) end, line(), "the condition must be a boolean or a tensor of one element, got an integer")
  raises(function() kiln.cond(nil, print, print) end, line(), "the condition must be a boolean or a tensor of one element, got nil")
  raises(function() kiln.cond(kiln.ones(2), print, print) end, line(), "condition: ", "a tensor of one element is needed (got ")
  raises(function() kiln.while_loop(function() return true end, function() end, 1) end, line(), "while_loop: the body gives 0 values for 1")
end)

test("captured they are branches and loops", function()
  local g, l = kiln.script(branch), kiln.script(loop)
  for _, values in ipairs(cases) do
    local x = kiln.tensor(values)
    truth(g:verify(x) and l:verify(x, 7) and l:verify(x, 0))
  end
  truth(tostring(g):find "= if " and tostring(l):find "= loop ")
  equal(#g:guards() > 0, true)
end)

test("traced both sides are seen", function()
  for _, first in ipairs { { 1.0, 2 }, { -1.0, -2 } } do
    local g = kiln.trace(branch, { kiln.tensor(first) }, { strict = true })
    truth(tostring(g):find "= if ")
    for _, values in ipairs(cases) do truth(g:verify(kiln.tensor(values))) end
  end
  local function count(x)
    local v = kiln.while_loop(function(v) return v:sum():lt(10) end, function(v) return v * 2 + w end, x)
    return v + kiln.rand(2)
  end
  local g = kiln.trace(count, { kiln.ones(2) }, { strict = true })
  for _, values in ipairs(cases) do truth(g:verify(kiln.tensor(values))) end
  w:add_(1)
  truth(g:verify(kiln.tensor { 1.0, 2 }))
  raises(function()
    kiln.trace(function(x) return (kiln.cond(x:sum():gt(0), function() return 1.5 end, function() return 2 end)) * x end, { kiln.ones(2) })
  end, line():gsub("%d+", function(n) return n - 1 end, 1), "cond: a result is a number that depends on the branch taken")
  local p = kiln.ones(2, { requires_grad = true })
  raises(function()
    kiln.trace(function(x)
      local y = kiln.cond(x:sum():gt(0), function() return p * x end, function() return p - x end)
      y:sum():backward()
      return p.grad
    end, { kiln.ones(2) })
  end, "backward in a traced function does not see into kiln.cond")
end)

test("a Graph called in a traced function is part of it", function()
  local inner = kiln.script(function(x, s)
    if x:sum():item() > 0 then return { y = x * w, x = x } end
    return { y = x - s, x = x }
  end)
  local function outer(x) return inner(x + 1, 3).y * 2, inner(x, 2.5).x end
  local g = kiln.trace(outer, { kiln.ones(2) }, { strict = true })
  truth(tostring(g):find "= if ")
  for _, values in ipairs(cases) do truth(g:verify(kiln.tensor(values))) end
  local number = kiln.script(function(x) return x:sum():item() end)
  raises(function() kiln.trace(function(x) return number(x) * x end, { kiln.ones(2) }) end, line(), "that depends on data")
end)
