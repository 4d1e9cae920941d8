-- Messages of the engine in captured functions, arguments' sizes being free: the same as eager's, at the same line,
-- with the names of the composites and keys that the failing op was a part of; and values where eager gives values.
local check = require "check"

local function outcome(f, ...)
  local got = table.pack(pcall(f, ...))
  for i = 1, got.n do got[i] = tostring(got[i]) end
  return table.concat(got, " ", 1, got.n)
end

-- Arguments are made afresh, as they may be written to.
local function same(name, make, f)
  check.test(name, function()
    local wanted = outcome(f, make())
    check.equal(outcome(kiln.script(f), make()), wanted)
    check.truth(wanted:find "^true" or wanted:find "^false [^:]*capture_messages%.lua:%d+: ", wanted)
  end)
end

local function line() return kiln.tensor { 1.0, 2, 3 } end
local function square() return kiln.ones(2, 3) end
local function with(make, ...)
  local rest = table.pack(...)
  return function()
    local all = { make() }
    for i = 1, rest.n do all[i + 1] = rest[i] end
    return table.unpack(all, 1, rest.n + 1)
  end
end

-- ---- t[k] ----

same("a position out of range", line, function(t) return t[5] end)
same("a position from the end out of range", line, function(t) return t[-5] end)
same("position 0", with(line, 0), function(t, n) return t[n] end)
same("a position that is an argument", with(line, 4), function(t, n) return t[n] end)
same("a position out of data", line, function(t) return t[t:sum():long():item()] end)
same("the second key", square, function(t) return t[{ 1, 5 }] end)
same("a later key after a range", square, function(t) return t[{ { 1, 1 }, 4 }] end)
same("more keys than dims", line, function(t) return t[{ 1, 2 }] end)
same("a step of 0", line, function(t) return t[{ { 1, 3, 0 } }] end)
same("set out of range", line, function(t) t[5] = 1 return t end)
same("set the second key", square, function(t) t[{ 1, 5 }] = 1 return t end)
same("set what does not fit", line, function(t) t[{ { 1, 2 } }] = kiln.ones(3) return t end)
same("set nil", line, function(t) t[3] = nil return t end)
same("set more keys than dims", line, function(t) local s = t:sum() s[3] = 1 return s end)
same("set nil with more keys than dims", line, function(t) local s = t:sum() s[3] = nil return s end)
same("an index tensor", with(square, kiln.tensor { 1, 2, 1 }), function(t, k) return t[k] end)
same("an index tensor from the end", with(square, kiln.tensor { 1, -1, -2 }), function(t, k) return t[k] end)
same("an index tensor from the end, set", with(square, kiln.tensor { -1 }), function(t, k) t[k] = 7 return t end)
same("an index tensor of two dims", with(square, kiln.tensor { { 1, -1 }, { 2, 2 } }), function(t, k) return t[k] end)
same("an index tensor of no dims", with(square, kiln.tensor(-1)), function(t, k) return t[k] end)
same("an index tensor out of range", with(square, kiln.tensor { 1, 9 }), function(t, k) return t[k] end)
same("an index tensor out of range, from the end", with(square, kiln.tensor { 1, -3 }), function(t, k) return t[k] end)
same("an index tensor with 0", with(square, kiln.tensor { 0 }), function(t, k) return t[k] end)
same("an index tensor of no dims out of range", with(square, kiln.tensor(5)), function(t, k) return t[k] end)
same("an index tensor as the second key", with(square, kiln.tensor { 1, 4 }), function(t, k) return t[{ {}, k }] end)
same("an index tensor out of range, set", with(square, kiln.tensor { 1, 4 }), function(t, k) t[k] = 5 return t end)
same("a mask that fits", with(line, kiln.tensor { true, false, true }), function(t, m) return t[m] end)
same("a mask that is too long", with(line, kiln.tensor { true, true, false, false }), function(t, m) return t[m] end)
same("a mask that is too short", with(line, kiln.tensor { true, true }), function(t, m) return t[m] end)
same("a mask of rows", with(square, kiln.tensor { true, false, true }), function(t, m) return t[{ {}, m }] end)
same("a mask of rows that is too short", with(square, kiln.tensor { true, false }), function(t, m) return t[{ {}, m }] end)
same("a mask of two dims", with(square, kiln.ones(2, 2):gt(0)), function(t, m) return t[m] end)
same("a mask that does not fit, set", with(line, kiln.tensor { true, true }), function(t, m) t[m] = 5 return t end)

-- ---- parts of composites ----

same("cross_entropy", with(square, kiln.tensor { 1, 9 }), function(t, k) return t:cross_entropy(k) end)
same("one_hot", with(square, kiln.tensor { 1, 9 }), function(_, k) return kiln.one_hot(k, 3) end)
same("linear", with(line, kiln.ones(4, 4)), function(t, w) return kiln.linear(t, w) end)
same("mse_loss", with(line, kiln.ones(2)), function(t, y) return kiln.mse_loss(t, y) end)
same("einsum", with(square, kiln.ones(2, 2)), function(t, y) return kiln.einsum("ij,jk", t, y) end)
same("view", square, function(t) return t:view(4, 5) end)
same("layer_norm", with(line, 4), function(t, n) return kiln.layer_norm(t, { n }) end)
same("layer_norm of one", with(line, 1), function(t, n) return kiln.layer_norm(t, { n }) end)
same("layer_norm that fits", with(line, 3), function(t, n) return kiln.layer_norm(t, { n }) end)
same("layer_norm of two dims", with(square, 2), function(t, n) return kiln.layer_norm(t, { n, 4 }) end)
same("narrow", line, function(t) return t:narrow(1, 2, 5) end)
same("narrow that fits", line, function(t) return t:narrow(1, 2, 2) end)
same("a number that does not fit", with(line, 300), function(_, n) return kiln.full({ 2 }, n, { dtype = "uint8" }) end)
same("copy_", with(square, kiln.ones(4)), function(t, y) return t:copy_(y) end)
same("one within another", with(line, kiln.ones(2)), function(t, y) return kiln.nn.functional.huber_loss(t, y) end)

-- ---- others ----

same("a comparison of several elements", square, function(t) if t > 1 then return t end return 2 end)
same("a comparison that nobody asks", square, function(t) local _ = t <= 1 return t end)
same("numbers in a table that an op must know", with(square, { 2 }), function(t, d) return t:amax(d) end)
same("such numbers, wrong", with(square, { 2, 3 }), function(t, d) return t:amax(d) end)
same("no tensor", with(square, { 2 }), function(t, y) return kiln.allclose(t, y) end)
same("no function for no_grad", square, function(t) return kiln.no_grad(t) end)
same("nothing for enable_grad", square, function() return kiln.enable_grad() end)

-- ---- arguments that may not be written to ----

local function leaf() return kiln.ones(3, { requires_grad = true }) end
local function wide() return kiln.ones(1):expand(3) end
same("an expanded argument", wide, function(t)
  local y = t * 2
  t:add_(1)
  return y
end)
same("an expanded argument, by a range", wide, function(t) t[{ { 2, 3 } }] = 1 return t end)
same("a leaf", leaf, function(t)
  local y = t * 2
  t:mul_(2)
  return y
end)

-- Written to on some path only, it may not be written to now: the message is the graph's, the line that of the write.
check.test("a leaf, on some path only", function()
  local f = kiln.script(function(t, s)
    if s:sum() > 0 then
      t:add_(1)
    end
    return t * 2
  end)
  local here = debug.getinfo(1, "l").currentline - 4
  check.raises(function() f(leaf(), leaf()) end, ("capture_messages.lua:%d: graph "):format(here),
    "input t requires grad, and the graph overwrites it")
end)

-- A module of the library that is captured by itself has no line of the user's: the line is that of the call.
check.test("an error inside a scripted layer names the line of its call", function()
  local layer = kiln.nn.Sequential(kiln.nn.Linear(4, 2))
  local g, x = kiln.script(layer), kiln.ones(3, 5)
  local function lines(f)
    local _, message = pcall(function() return f(x) end)
    return message
  end
  check.equal(lines(g), lines(layer))
  check.equal(lines(g), lines(layer), "again")
end)

-- ---- saved and loaded ----

check.test("the names of composites are kept in a file", function()
  local path = os.tmpname()
  local function f(t, k) return t:cross_entropy(k) end
  local g = kiln.script(f, { inputs = { kiln.spec("float32", { "N", "C" }), kiln.spec("int64", { "N" }) } })
  g:save(path)
  local loaded = kiln.load(path)
  os.remove(path)
  check.raises(function() loaded(kiln.ones(2, 3), kiln.tensor { 1, 9 }) end, "cross_entropy: gather: index 9 is out of range")
  check.truth(not tostring(g):find("kiln/cross_entropy", 1, true), "the short text is without them")
end)
