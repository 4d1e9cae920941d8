-- Tensors that captured functions put into outside places: the same objects that eager code would put there, call after
-- call. What writes in place do is in capture_mutate.lua.
local check = require "check"
local T = kiln.tensor

-- The function without what is known of its lines and names, with the same upvalues.
local function stripped(f)
  local g = assert(load(string.dump(f, true), "=stripped", "b"))
  for i = 1, 255 do
    if not debug.getupvalue(f, i) then return g end
    debug.upvaluejoin(g, i, f, i)
  end
end

local function keeps_once(name, make, way)
  check.test("the same tensor: " .. name, function()
    local f, look = make()
    local h, peek = make()
    local g = kiln.script(way(h))
    local function all(call, peek, i)
      local x = T { i, 2 * i }
      local list = { x, call(x) }
      for _, t in ipairs(peek()) do list[#list + 1] = t end
      return list
    end
    for i = 1.0, 5 do
      local a, b = all(f, look, i), all(g, peek, i)
      check.equal(#b, #a)
      for k = 1, #a do
        if kiln.is_tensor(a[k]) then check.near(b[k]:totable(), a[k]:totable()) else check.equal(b[k], a[k]) end
        for m = 1, k - 1 do
          check.equal(("%d, %d and %d: %s"):format(i, m, k, rawequal(b[k], b[m])),
            ("%d, %d and %d: %s"):format(i, m, k, rawequal(a[k], a[m])))
        end
      end
    end
  end)
end

-- make gives a function and one that tells what is outside now: of the argument, the results and these the same ones
-- must be one object, eager and captured.
local function keeps(name, make)
  keeps_once(name, make, function(f) return f end)
  keeps_once(name .. ", stripped", make, stripped)
end

local function two(body)
  return function()
    local mod, gt = { w = T { 1.0, 1 }, v = T { 2.0, 2 } }, T { 3.0, 3 }
    return body(mod, gt), function() return { mod.w, mod.v, gt } end
  end
end

keeps("one from outside, the one before overwritten", two(function(mod, gt)
  return function(x)
    mod.w:add_(x)
    mod.w = gt
  end
end))
keeps("an argument", two(function(mod) return function(x) mod.w = x end end))
keeps("an argument that is overwritten", two(function(mod)
  return function(x)
    x:add_(mod.w)
    mod.w = x
    return x
  end
end))
keeps("a view, which is one of several results", two(function(mod)
  return function(x)
    local a = x * 2 - 6
    local v = a:view(2)
    a:add_(1)
    mod.w = v
    if a:sum() > 0 then return v, 1 end
    return 1, v
  end
end))
keeps("a view, here or there or nowhere, and a result at times", two(function(mod)
  return function(x)
    local a = x * 2 - 6
    local v = a:view(2)
    a:add_(1)
    if x[1] > 3 then mod.w = v elseif x[1] > 2 then mod.v = v end
    if x[1]:eq(3) then return 1, v end
    return x[2] > 4 and v or 1, x[1] < 2 and v or 2
  end
end))
keeps("two change places", two(function(mod)
  return function(x)
    mod.w, mod.v = mod.v, mod.w
    return mod.w * x
  end
end))
keeps("two change places, one overwritten", two(function(mod)
  return function(x)
    mod.w:add_(x)
    mod.w, mod.v = mod.v, mod.w
    return mod.w
  end
end))
keeps("a result in two places", two(function(mod)
  return function(x)
    local h = x * mod.w
    mod.w, mod.v = h, h
    return h, h + 1
  end
end))
keeps("a new one in two places", two(function(mod)
  return function(x)
    local h = x * mod.w
    mod.w, mod.v = h, h
  end
end))
keeps("a new one, overwritten afterwards", two(function(mod)
  return function(x)
    local h = x * mod.w
    mod.w = h
    h:add_(1)
    mod.v = h
    return h
  end
end))
keeps("the one before is returned", two(function(mod)
  return function(x)
    local old = mod.w
    mod.w = x * old
    return old
  end
end))
keeps("one or another", two(function(mod)
  return function(x)
    if x:sum() > 5 then mod.w = x else mod.w = mod.v end
    return mod.w
  end
end))
keeps("a new one or one from outside", two(function(mod, gt)
  return function(x)
    local h = x + 1
    if x:sum() > 5 then mod.w = h else mod.w = gt end
    mod.v = h
  end
end))
keeps("one or another, one overwritten", two(function(mod, gt)
  return function(x)
    gt:add_(x)
    if x:sum() > 5 then mod.w = gt else mod.w = x end
  end
end))
keeps("an upvalue becomes another one", function()
  local u, v = T { 1.0, 2 }, T { 2.0, 2 }
  return function(x)
    u:add_(x)
    v:mul_(2)
    u = v
  end, function() return { u, v } end
end)
keeps("where nothing was", function()
  local mod, gt = {}, T { 1.0, 1 }
  return function(x)
    gt:add_(x)
    if not mod.h then mod.h = gt end
    return mod.h
  end, function() return { mod.h, gt } end
end)

-- Loops and branches hand tensors on as they are.
keeps("a loop that may not run, of an argument", two(function(mod)
  return function(x)
    local h, k = x, 0
    while k < 2 and h:sum() < 8 do
      h, k = h * 2, k + 1
    end
    return h
  end
end))
keeps("a loop that puts an outside tensor elsewhere", two(function(mod, gt)
  return function(x)
    local k = 0
    while k < 3 and x:sum() > k do
      mod.w = gt
      k = k + 1
    end
  end
end))
keeps("two that a loop carries and that are one at times", two(function(mod)
  return function(x)
    local a, b, k = x + 1, x + 2, 0
    while k < 4 and (a + b):sum() < 20 do
      b, a = a, k % 2 == 0 and a or a * 1.5
      k = k + 1
    end
    mod.w = b
    return a, b
  end
end))
keeps("nested loops", two(function(mod, gt)
  return function(x)
    local h, last, k = x, gt, 0
    repeat
      k = k + 1
      for _ = 1, k do
        if h:sum() < 4 then last = h end
      end
      h = h + 1
    until k > 2 or h:sum() > 7
    mod.v = last
    return last, h
  end
end))
keeps("one or another, returned twice", two(function(mod)
  return function(x)
    local h = x
    if x:sum() > 4 then h = x + mod.w end
    return h, h
  end
end))
keeps("a new one in a place, and a result on some path", two(function(mod, gt)
  return function(x)
    local h = x * 2
    mod.w = h
    if x:sum() > 5 then return gt end
    return h
  end
end))

-- Tensors that become one where paths meet are one in whatever still holds them.
keeps("one that a closure of another path holds is overwritten", two(function(mod)
  return function(x)
    local v, f = x * 2, nil
    do
      local kept = v
      f = function(a) return a + kept end
    end
    if x:sum() > 5 then
      f = function(a) return a * 3 end
      v = x:sin()
      if x:sum() > 10 then v = x:cos() end
    end
    v:zero_()
    return f(x), v
  end
end))
keeps("one that a table of another path holds is overwritten", two(function(mod)
  return function(x)
    local v = x * 2
    local holder = { deep = { v } }
    local k = 0
    while k < 3 and x:sum() > 5 + k do
      holder = { deep = { x } }
      v, k = x + k, k + 1
    end
    v:add_(1)
    return holder.deep[1], v
  end
end))

-- A view that only some path makes is one tensor in all results.
keeps("a view of some path, returned twice", two(function(mod)
  return function(x)
    local h = x * 2
    local kept = { v = x }
    if x:sum() > 5 then
      kept.v = h:view(2)
      h:add_(1)
    end
    return kept.v, h, kept.v
  end
end))
keeps("views of some paths, in several places of the results", two(function(mod)
  return function(x)
    local h = x * 2
    local v, w = h:view(2), h:view(2)
    local a, b, c = v, h, w
    if x:sum() > 5 then a, b = h, v end
    if x:sum() > 10 then b, c = w, v end
    h:add_(1)
    return a, b, c, a
  end
end))
