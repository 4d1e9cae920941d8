-- Tables indexed by numbers that depend on data.
local check = require "check"
local compare = require "capture_compare"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

local function agree(name, f, letters, n)
  test(name, function() compare.compare(f, kiln.script(f), letters, n or 40, 1, true) end)
  test(name .. ", stripped", function()
    local bare = load(string.dump(f, true))
    for i = 1, 255 do
      if not debug.getupvalue(f, i) then break end
      debug.upvaluejoin(bare, i, f, i)
    end
    compare.compare(bare, kiln.script(bare), letters, 10, 1, true)
  end)
end

local outside = { T { 1.0, 2 }, T { 3.0, 4 }, T { 5.0, 6 } }

agree("tensors by item()", function(x)
  local w = { x, x * 2, -x, x + 1 }
  return w[x:gt(0):sum():item()]
end, { "T" })
agree("numbers", function(x)
  local w = { 10, 20.5, 30 }
  local k = x:gt(0):sum():item()
  return w[k], w[k + 1], w[-k], w[k * 1.0], w[k + 0.5]
end, { "T" })
agree("by a number argument", function(x, k)
  local w = { x, x * 2, x * 3 }
  return w[k], w[2], w[k + 1]
end, { "T", "I" })
agree("by a float argument", function(x, k)
  local w = { x, x * 2, x * 3 }
  return w[k], w[k * 2]
end, { "T", "F" })
agree("an outside list", function(x) return outside[x:gt(0):sum():item()], #outside end, { "T" })
agree("strings and booleans", function(x)
  local names, flags = { "a", "b", "c" }, { true, false, true }
  local k = x:gt(0):sum():item()
  return names[k], flags[k], flags[k] and "yes" or "no"
end, { "T" })
agree("functions and tables", function(x)
  local layers = { function(y) return y + 1 end, function(y) return y * 2 end, { f = 3 }, function() return "four" end }
  local l = layers[x:gt(0):sum():item()]
  if type(l) == "function" then return l(x) end
  return l and l.f
end, { "T" })
agree("keys with gaps", function(x)
  local w = { [2] = x, [4] = -x, name = "w" }
  return w[x:gt(0):sum():item()], w.name
end, { "T" })
agree("nil is no number", function(x)
  local w = { 1, 2 }
  return w[x:gt(0):sum():item()] + 1
end, { "T" })
agree("set", function(x)
  local w = { x, x * 2, x * 3, x * 4 }
  local k = x:gt(0):sum():item()
  if k > 0 then w[k] = x:tanh() end
  return w
end, { "T" })
agree("counters", function(x)
  local count = { 0, 0, 0 }
  for i = 1, 4 do
    local k = x[i]:item() > 1 and 1 or x[i]:item() > 0 and 2 or 3
    count[k] = count[k] + 1
  end
  return count
end, { "T" })
agree("counters in a loop on data", function(x)
  local count, k = { 0, 0, 0 }, 1
  while x:sum() < 4 do
    x = x + 0.5
    k = k % 3 + 1
    count[k] = count[k] + x:sum():item()
  end
  return count, k
end, { "T" }, 20)
agree("a state machine", function(x)
  local next = { 2, 3, 1 }
  local state = 1
  for i = 1, 4 do if x[i]:item() > 0 then state = next[state] end end
  return state, ({ "red", "green", "blue" })[state]
end, { "T" })
agree("a list of lists", function(x)
  local m = { { x, 1 }, { -x, 2 } }
  local k = x:sum() > 0 and 1 or 2
  return m[k][1], m[k][2]
end, { "T" })
agree("ipairs with the index compared", function(x)
  local k = x:gt(0):sum():item()
  for i, v in ipairs { x, x * 2, x * 3 } do if i == k then return v, i end end
  return nil, k
end, { "T" })

test("one graph serves all numbers", function()
  local g = kiln.script(function(x, k) return ({ x, x * 2, x * 3 })[k] end, { cache_limit = 1 })
  for k = 1, 3 do equal(g(T { 1.0 }, k):totable(), { k * 1.0 }) end
  equal(g(T { 1.0 }, 4), nil)
end)

test("a list that would grow is an error when it runs", function()
  local g = kiln.script(function(x)
    local w = { x, x }
    w[x:gt(0):sum():item()] = -x
    return w
  end)
  equal(g(T { 1.0, -1 })[1]:totable(), { -1.0, 1.0 })
  raises(function() g(T { 1.0, 1, 1 }) end, "capture_lists.lua:", "a list of 2 is set where it has no element")
end)
