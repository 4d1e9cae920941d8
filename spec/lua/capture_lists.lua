-- Tables indexed by numbers that depend on data.
local check = require "check"
local compare = require "capture_compare"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

local agree = compare.case

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

-- ---- lists whose length depends on data ----

-- Gradients through them are an error still.
local no_gradients = { gradients = false, finite = true }
local function grows(name, f, letters) agree(name, f, letters, no_gradients) end

grows("appended to in a loop", function(x)
  local out = {}
  while x:sum() > 0.5 do
    x = x * 0.5 - 0.1
    out[#out + 1] = x
  end
  return #out, out[1], out[#out], out[0], #out > 0 and kiln.stack(out)
end, { "T" })
grows("by table.insert, beginning with one", function(x)
  local out = { x }
  while x:sum() > 0.5 do
    x = x * 0.5 - 0.1
    table.insert(out, x)
  end
  return kiln.stack(out), kiln.stack(out, 2), kiln.stack(out, -1), kiln.cat(out), kiln.cat(out, -1), out[2]
end, { "T" })
test("stacking none", function()
  local function f(x)
    local out = {}
    while x:sum() > 0.5 do
      x = x * 0.5 - 0.1
      out[#out + 1] = x
    end
    local t = kiln.stack(out)
    return t
  end
  compare.compare(f, kiln.script(f), { "T" }, 40, 1, no_gradients)
end)
grows("numbers, counted by hand", function(x, k)
  local out, n, s = {}, 0, 0
  while x:sum() > 0.5 do
    x = x * 0.5 - 0.1
    n = n + 1
    out[n] = x:sum():item()
  end
  for i, v in ipairs(out) do s = s + i * v end
  for i = 1, #out do s = s - out[i] end
  return s, #out, out[k]
end, { "T", "I" })
grows("integers and floats", function(x)
  local out, s = { 1, 2.5 }, 0
  while x:sum() > 0.5 do
    x = x * 0.5 - 0.1
    out[#out + 1] = #out
    out[#out + 1] = x:sum():item()
  end
  for i, v in ipairs(out) do s = v > 2 and s + v * i or s - i end
  return s, out[1], out[2], out[3], out[4]
end, { "T" })
grows("two lists, in branches", function(x)
  local a, b, t = {}, { 1 }, x
  while x:sum() > 0.5 do
    x = x * 0.5 - 0.1
    if x[1]:item() > 0.2 then a[#a + 1] = x else b[#b + 1] = #a end
  end
  for _, v in ipairs(a) do t = t + v end
  return #a, #b, t, b[#b]
end, { "T" })
grows("read in the loop, which is left early", function(x)
  local out = { x }
  while x:sum() > 0.5 do
    x = out[#out] * 0.75 + out[1] * 0.0625
    out[#out + 1] = x
    if #out > 5 then break end
  end
  return kiln.stack(out)
end, { "T" })
grows("two loops, one in the other", function(x)
  local out = {}
  while x:sum() > 0.5 do
    x = x * 0.5 - 0.1
    local y = x
    while y:sum() > 0 do
      y = y - 0.25
      out[#out + 1] = y
    end
  end
  return #out > 0 and kiln.cat(out) or x
end, { "T" }, 20)
grows("on one path", function(x)
  local out = {}
  if x[1]:item() > 0 then
    while x:sum() > 0.5 do
      x = x * 0.5 - 0.1
      out[#out + 1] = x
    end
  end
  return #out, out[1]
end, { "T" })
grows("by a function, in an object, stacked under pcall", function(x)
  local function push(t, v) t[#t + 1] = v end
  local o = { list = {}, n = 0 }
  repeat
    x = x * 0.5 - 0.1
    push(o.list, x)
    o.n = o.n + 1
  until not (x:sum() > 0.5)
  local ok, t = pcall(function() return kiln.stack(o.list) end)
  return o.n, #o.list, ok, t
end, { "T" })
grows("filtered", function(x)
  local kept, dropped, s = {}, {}, 0
  for i = 1, 4 do
    if x[i]:item() > 0 then kept[#kept + 1] = i else table.insert(dropped, x[i]) end
  end
  for _, i in ipairs(kept) do s = s * 10 + i end
  return s, #kept, #dropped > 0 and kiln.stack(dropped)
end, { "T" })
agree("what is returned of a loop with a known end stays a table", function(x)
  local out = {}
  for i = 1, 20 do
    if x:sum() < 0.5 then break end
    x = x * 0.5 - 0.1
    out[i] = x
  end
  return out
end, { "T" }, 20)

local function collect(x)
  local out = {}
  while x:sum() > 1 do
    x = x * 0.5
    out[#out + 1] = x
  end
  return #out, #out > 0 and kiln.stack(out)
end

test("lists that grow, saved and loaded", function()
  local path = os.tmpname()
  kiln.script(collect, { inputs = { kiln.spec("float32", { "N" }) } }):save(path)
  local g = kiln.load(path)
  os.remove(path)
  for _, x in ipairs { T { 0.5 }, T { 1.5 }, T { 4.0, 3 }, T { 100.0, 1, 2 } } do
    local n, t = collect(x)
    local m, u = g(x)
    equal(m, n)
    equal(u and u:totable(), t and t:totable())
  end
end)

test("one graph serves all lengths", function()
  local g = kiln.script(collect, { cache_limit = 1 })
  for n = 0, 40 do equal((g(T { 2.0 ^ n })), n) end
end)

test("what lists that grow cannot do is said", function()
  local function refuses(what, after)
    raises(function()
      kiln.script(function(x)
        local out = {}
        while x:sum() > 1 do
          x = x * 0.5
          out[#out + 1] = x
        end
        return after(out)
      end)(T { 4.0, 3 })
    end, "capture_lists.lua:", what)
  end
  refuses("return kiln.stack(list) instead", function(out) return #out > 0 and out end)
  refuses("a list whose length depends on tensor data", function(out)
    for _ in pairs(out) do return #out end
  end)
  refuses("a list whose length depends on tensor data", function(out) return #out, table.remove(out) end)
  refuses("put a clone of it there", function(out)
    local y = T { 1.0, 2 }:clone()
    y:add_(1)
    out[#out + 1] = y
    return kiln.stack(out)
  end)
  local g = kiln.script(function(x)
    local out = {}
    while x:sum() > 1 do
      x = x * 0.5
      out[#out + 1] = x
      out[1] = x
    end
    return #out
  end)
  raises(function() g(T { 8.0 }) end, "capture_lists.lua:", "set elsewhere than behind its end")
end)

-- A reshape that copies is made where the plan made its header: what keeps the tensor keeps another one.
test("lists of copies of views", function()
  local function f(x, y)
    local out, i = {}, 1
    while y[i] > 0 do
      out[#out + 1] = x[i]:t():reshape(6)
      i = i + 1
    end
    return kiln.stack(out), #out
  end
  local g = kiln.script(f)
  for n = 1, 3 do
    local x, y = kiln.randn(4, 2, 3), kiln.tensor { 1.0, n - 1.5, n - 2.5, -1 }
    local want, count = f(x, y)
    local got, counted = g(x, y)
    equal(counted, count)
    check.truth(check.identical(want, got, {}), "alike")
  end
end)
