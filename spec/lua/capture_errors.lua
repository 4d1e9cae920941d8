-- Errors of captured functions are those of the function itself, to the letter: text, names of operands, place; in
-- stripped functions too. Each function raises always, and once more on one path only.
local check = require "check"
local compare = require "capture_compare"
local x = kiln.tensor { 1.0, 2, -1, 0.5 }
local up
local rec = {}

local function message(f, ...)
  local ok, why = pcall(f, ...)
  check.truth(not ok, "it raises")
  return tostring(why)
end

-- Of a stripped function the engine says who called it, where it can.
local function bare_message(f, ...) return (message(f, ...):gsub("^[^:]*capture_errors%.lua:%d+: ", "")) end

local function raises(name, f)
  local function sometimes(t, s)
    if s:sum() > 0 then f(t) end
    return t
  end
  check.test(name, function()
    check.equal(message(kiln.script(f), x), message(f, x))
    check.equal(message(kiln.script(sometimes), x, x), message(sometimes, x, x))
    local g = compare.stripped(f)
    check.equal(bare_message(kiln.script(g), x), bare_message(g, x))
  end)
end

raises("a position of data that is 0", function(t) return t[t:gt(9):sum():item()] end)
raises("a position past the end, which nobody reads", function(t)
  local k, n, u = t * 2, 2, t
  for _ = 1, #t do u = u + k[n * n + 1] end
end)
raises("index a local", function() local a return a.b.c end)
raises("index a field", function() local a = {} return a.b.c end)
raises("index an upvalue", function() return up.b end)
raises("index a global", function() return not_there.b end)
raises("index by a constant", function() local k = "q" return rec[k].n end)
raises("index by an integer", function() return rec[1].n end)
raises("index a result", function() return (kiln.ones(2):dim()).x.y end)
raises("set in a local", function() local s s[1] = 1 end)
raises("set in a field", function() rec.n.m = 1 end)
raises("set in an upvalue", function() up.n = 1 end)
raises("a nil key", function() local t = {} t[nil] = 1 end)
raises("a key that is no number", function() local t = {} t[0 / 0] = 1 end)
raises("arithmetic on a global", function() return not_there + 1 end)
raises("arithmetic on a second operand", function() return 1 + not_there end)
raises("arithmetic on a field", function() local s = {} return s.n * s.m end)
raises("minus an upvalue", function() return -up end)
raises("bits of a table", function() return 1 | rec end)
raises("the length of nil", function() return #rec.list end)
raises("concatenation", function() return "a" .. rec.n .. "b" end)
raises("concatenation of a tensor", function(t) return t .. "b" end)
raises("comparison", function() return rec < 1 end)
raises("comparison of two", function() return rec <= rec end)
raises("call a field", function() return rec.f() end)
raises("call a method", function(t) return t:not_there() end)
raises("a misspelt method", function(t) return t:reluu() end)
raises("a misspelt method of a view", function(t) local v = t[{ { 1, 2 } }] v:ad_(1) return v:ssum() end)
raises("a misspelt function", function(t) return kiln.sofmax(t) end)
raises("a misspelt function of a module", function(t) return kiln.nn.functional.reluu(t) end)
raises("a misspelt class", function(t) return kiln.nn.Linaer(2, 3)(t) end)
raises("call a tensor", function(t) return t() end)
raises("call in a tail", function() return up() end)
raises("call a metamethod", function() return setmetatable({}, { __add = 5 }) + 1 end)
raises("an iterator", function() for _ in 5 do end end)
raises("pairs of nil", function() for _ in pairs(nil) do end end)
raises("ipairs of nothing", function() for _ in ipairs() do end end)
raises("the limit of a for", function() for _ = 1, {} do end end)
raises("the start of a for", function(t) for _ = t, 2 do end end)
raises("a step of zero", function() for _ = 1, 2, 0 do end end)
raises("a remainder by zero", function() local a = 0 return 1 % a end)
raises("an argument", function() return math.floor "a" end)
raises("an argument of a local function", function() local down = math.floor return down "a" end)
raises("comparison in max", function() return math.max(1, nil) end)
raises("unpack nil", function() return table.unpack(nil) end)
raises("insert far out", function() table.insert({}, 5, 1) end)
raises("concat of tables", function() return table.concat { {} } end)
raises("select 0", function() return select(0, 1) end)
raises("an op on nil", function(t) return t + nil end)
raises("error", function() error "here" end)
raises("error of the caller", function() error("here", 2) end)
raises("error without a place", function() error("here", 0) end)
raises("assert", function() assert(false) end)
raises("assert with a message", function() assert(nil, "here") end)
raises("assert on data", function(t) assert(t:sum() > 100, "here") end)
raises("the first of two errors", function(t) assert(t:sum() > 100, "here") return rec.n.m end)

-- What data is at fault for is raised though nobody uses the result; what sizes are, may be left out.
raises("a position of data out of range, not used", function(t) local _ = t[9 + t:gt(5):sum():item()] end)
raises("a position of data from the end, in a key", function(t)
  local _ = t:reshape(2, 2)[{ 1, -3 - t:gt(5):sum():item() }]
end)
raises("a position of data that is set", function(t) t:clone()[9 + t:gt(5):sum():item()] = 1 end)
raises("positions of data in a loop, not used", function(t)
  for i = 1, #t do
    i = t:gt(0):sum():item() + 4
    local _ = t[i]
  end
end)
raises("division by zero, not used", function(t) local _ = 1 // t:gt(5):sum():item() end)
raises("a step of zero of data", function(t) for _ = 1, 3, t:gt(5):sum():item() do end end)
local function fails(name, f)
  check.test(name, function()
    check.equal(message(kiln.script(f), x), message(f, x))
    check.equal(bare_message(kiln.script(compare.stripped(f)), x), bare_message(compare.stripped(f), x))
  end)
end
fails("division by zero", function(t) return 1 // t:gt(5):sum():item() end)
fails("a shape", function(t) return t:reshape(7) end)

-- A name that is not there is nil where it is not surely called.
check.test("a missing name that is only looked at", function()
  local function f(t)
    local g, h = kiln.sofmax, t.reluu
    return (g or kiln.relu)(t), h == nil
  end
  local y, is_nil = kiln.script(f)(x)
  check.tensor(y, x:relu():totable())
  check.equal(is_nil, true)
end)
