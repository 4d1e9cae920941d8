-- pcall and xpcall inside captured functions: what eager code catches is caught, with the same message.
local check = require "check"
local compare = require "capture_compare"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth
local T = kiln.tensor

local agree = compare.case

agree("nothing is raised", function(x)
  local ok, y, n = pcall(function(a, b) return a * b, 3 end, x, 2)
  return ok, y, n
end, { "T" })
agree("an error on one path", function(x)
  local ok, y = pcall(function()
    if x:sum() > 0 then error "positive" end
    return x + 1
  end)
  return ok, y
end, { "T" })
agree("all results of it", function(x)
  return pcall(function()
    if x:sum() > 0 then error("positive", 0) end
    return x, 1, "three"
  end)
end, { "T" })
agree("the message has data", function(x)
  local ok, why = pcall(function()
    local s = x:sum():item()
    if s > 0 then error("sum is " .. s) elseif s < -1 then error(("%.2f is small"):format(s), 2) end
  end)
  return ok, why, type(why)
end, { "T" })
agree("assert", function(x)
  local ok, why = pcall(function() return assert(x:sum() > 0, "not positive") end)
  local more, it = pcall(function() assert(x:sum() < 1) return 1 end)
  return ok, why, more, it
end, { "T" })
agree("division and modulo by zero", function(x, k)
  local n = x:gt(0):sum():item()
  local a, b = pcall(function() return k // n, k % n end)
  local c, d = pcall(function() return k / n end)
  local e, f = pcall(function() return 1 << x[1]:item() end)
  return a, b, c, d, e
end, { "T", "I" })
agree("errors that are certain", function(x)
  local a, b = pcall(function() error "always" end)
  local c, d = pcall(function() return nil + 1 end)
  local e, f = pcall(function() return x.nothing.at_all end)
  local g, h = pcall(error, "bare")
  local i, j = pcall(error)
  local k, l = pcall(error, { code = 7 })
  return a, b, c, d, e, f, g, h, i, j, k, l.code
end, { "T" })
agree("what was written before a certain error stays", function(x)
  local log, n = {}, 0
  local ok, why = pcall(function()
    log[1], n = x, n + 1
    error({ "oops", x })
  end)
  return ok, why[1], why[2], log, n
end, { "T" })
agree("writes after all that may raise", function(x)
  local y, n = x, 0
  local ok = pcall(function()
    local s = x:sum():item()
    if s > 1 then error "large" end
    local z = x / s
    y, n = z, n + 1
  end)
  return ok, y, n
end, { "T" })
agree("shapes that do not fit", function(x)
  local k = x:gt(0):sum():item()
  local ok, y = pcall(function() return x[{ { 1, k + 1 } }] + x[{ { 1, 2 } }] end)
  return ok, y
end, { "T" }, { stripped = function(f) return function(...) return (f(...)) end end }) -- y names who called
agree("sizes of arguments", function(x, y)
  local ok, z = pcall(function() return x + y end)
  return ok, z
end, { "T", "T" })
agree("an index out of range", function(x, k)
  local ok, y = pcall(function() return x[k] end)
  return ok, ok and y
end, { "T", "I" })
agree("nested", function(x)
  local ok, a, b, c = pcall(function()
    local fine, why = pcall(function()
      if x:sum() > 0 then error("inner", 0) end
      return "no error"
    end)
    if x:sum() > 1 then error("outer after " .. tostring(fine), 0) end
    return fine, why, 3
  end)
  return ok, a, b, c
end, { "T" })
agree("raised again", function(x)
  local ok, why = pcall(function()
    local fine, inner = pcall(function() assert(x:sum() > 0, "low") end)
    if not fine then error(inner, 0) end
    return "fine"
  end)
  return ok, why
end, { "T" })
agree("not caught", function(x)
  local ok, why = pcall(function() if x:sum() > 0 then error "one" end end)
  if not ok then error("again: " .. why, 0) end
  return x
end, { "T" })
agree("in loops", function(x)
  local n, last = 0, nil
  for i = 1, 4 do
    local ok, why = pcall(function()
      if x[i]:item() > 0 then error("at " .. i, 0) end
      return x[i] * 2
    end)
    if ok then n = n + 1 else last = why end
  end
  return n, last
end, { "T" })
agree("in a loop on data", function(x)
  local tries, failed = 0, 0
  while x:sum() < 2 and tries < 20 do
    tries = tries + 1
    local ok, y = pcall(function()
      if x:sum() > 0.5 then error "half" end
      return x + 0.25
    end)
    if ok then x = y else failed = failed + 1 x = x * 2 end
  end
  return tries, failed, x
end, { "T" })
agree("a loop inside", function(x)
  local ok, n = pcall(function()
    local n, x = 0, x
    while x:sum() < 3 do
      x = x + 1
      n = n + 1
      if n > 2 then error(("%d trips"):format(n), 0) end
    end
    return n
  end)
  return ok, n, x
end, { "T" }, 5)
agree("random numbers drawn before the error stay drawn", function(x)
  local ok = pcall(function()
    local r = kiln.rand(4)
    if x:sum() > 0 then error "drawn" end
    return r
  end)
  return ok, kiln.rand(2)
end, { "T" })
agree("xpcall", function(x)
  local ok, a, b = xpcall(function(k)
    if x:sum() > 0 then error "positive" end
    return k, 2
  end, function(m) return "handled: " .. m end, 5)
  return ok, a, b
end, { "T" })
agree("xpcall with the message as it is", function(x)
  local ok, m = xpcall(function() return x:sum():item() // 0 - (1 // (x:sum() > 9e9 and 1 or 0)) end, function(m) return m end)
  local fine, n = xpcall(function() if x:sum() > 1 then error("no", 0) end return 1 end, tostring)
  return ok, m, fine, n
end, { "T" })
agree("or a default", function(x)
  local function try(f, ...)
    local ok, v = pcall(f, ...)
    return ok and v or nil
  end
  return try(function(y) return y:sum():item() // 0 end, x), try(function(y)
    if y:sum() > 0 then error "no" end
    return y
  end, x) or -x
end, { "T" })
agree("engine functions and callable tables", function(x, y)
  local double = setmetatable({}, { __call = function(_, a) assert(a:sum() > 0) return a * 2 end })
  local ok, z = pcall(kiln.add, x, y)
  local fine, w = pcall(double, x)
  local bad = pcall(nil)
  return ok, z, fine, bad, (select("#", pcall(function() end)))
end, { "T", "T" })
agree("errors of arguments", function(x)
  local a, b = pcall(pcall)
  local c, d = pcall(function() return ("x"):rep(2) .. {} end)
  local e, f = pcall(function() for i = 1, 10, 0 do end end)
  local g, h = pcall(function() for i = "a", 2 do end end)
  local i, j = pcall(string.rep)
  return a, b, c, d, e, f, g, h, i, j
end, { "T" })

test("saved, loaded, parsed", function()
  local g = kiln.script(function(x, y)
    local ok, z = pcall(function() return (x + y):sum():item() // x:gt(0):sum():item() end)
    return ok, z
  end, { inputs = { kiln.spec("float32", { "N" }), kiln.spec("float32", { "M" }) } })
  local path = os.tmpname()
  g:save(path)
  local loaded = kiln.load(path)
  os.remove(path)
  for _, f in ipairs { g, loaded, kiln.parse(tostring(g)) } do
    local ok, z = f(T { 1.0, 2 }, T { 3.0, 4 })
    equal(ok, true)
    equal(z, 5.0)
    ok, z = f(T { 1.0, 2 }, T { 3.0, 4, 5 })
    equal(ok, false)
    truth(z:find("capture_pcall.lua:%d+: add: sizes 2 and 3"), z)
  end
end)

test("limits are not caught", function()
  local g = kiln.script(function(x)
    local ok = pcall(function() while x:sum() < 1e30 do x = x * 1 end end)
    return ok
  end)
  truth(g, "a graph")
end)

test("writes before something that may raise are refused", function()
  raises(function()
    kiln.script(function(x)
      local log = {}
      local ok = pcall(function()
        log[1] = "began"
        if x:sum() > 0 then error "late" end
      end)
      return ok, log
    end)(T { 1.0 })
  end, "capture_pcall.lua:", "has written to a table, variable or tensor")
  raises(function()
    kiln.script(function(x)
      local ok = pcall(function() if x:sum() > 0 then error {} end end)
      return ok
    end)(T { 1.0 })
  end, "raises a table; only strings can be captured")
end)
