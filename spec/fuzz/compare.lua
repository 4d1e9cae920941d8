-- Runs one function eagerly and captured, side by side, on the same inputs and outside state, and compares all that a
-- caller can see: results (to the bit; nan is nan), kinds of number, number of results, which tables and tensors are the
-- same ones, arguments afterwards, outside state, the random stream, error messages. A failed call must leave
-- everything as it was; eager Lua does not promise that, so its state is put back.
local G = require "generate"
local D = require "distribution"
local same, show = require "check".identical, require "capture_compare".show -- of spec/lua
local M = {}

-- ---- instances ----

local libraries = { "kiln", "math", "table", "string", "ipairs", "pairs", "next", "select", "type", "assert", "error",
  "setmetatable", "getmetatable", "rawget", "rawset", "rawequal", "rawlen", "tostring", "tonumber", "pcall", "coroutine", "io" }

--- A function with state of its own: call, poke, peek, put.
local function instance(chunk, name, captured)
  local env = {}
  for _, lib in ipairs(libraries) do env[lib] = _G[lib] end
  local f, poke, peek, put = assert(load(chunk, name, "bt", env))()
  return { f = f, call = captured and kiln.script(f, { cache_limit = 64 }) or f, poke = poke, peek = peek, put = put }
end

-- ---- inputs ----

-- Halves from -1 to 1 make ties and zeros likely.
local function element(pick, coarse)
  if coarse then return (pick(5) - 3) / 2 end
  return (pick(4000) - 2000) / 1000
end

local function elements(pick, n)
  local t, coarse = {}, pick(10) <= 4
  for i = 1, n do t[i] = element(pick, coarse) end
  if pick(30) == 1 then t[pick(n)] = 0 / 0 end
  return t
end

--- The arguments of run i, twice: the same values, aliased alike.
local function arguments(pick, i, size)
  local x, y, q, z = elements(pick, size), elements(pick, size), elements(pick, 4), elements(pick, size)
  local k = i < 4 and pick(8) - 3 or element(pick, i % 2 == 0)
  local flag, alias, more = i < 6, pick(8) == 1, i == 6 and pick(3) - 1 or 0
  local n = element(pick, true)
  local function make()
    local function float(list) return kiln.tensor(list, { dtype = "float32", device = M.device }) end
    local tx = float(x)
    local ty = alias and tx or float(y)
    local rec = { t = float(z), n = n }
    local tq = kiln.tensor({ { q[1], q[2] }, { q[3], q[4] } }, { dtype = "float64", device = M.device })
    local list = { n = 6 + more, tx, ty, tq, k, flag, rec }
    for m = 1, more do list[6 + m] = float(m == 1 and y or z) end
    return list
  end
  return make(), make(), make
end

-- ---- a run ----

local function copies(list)
  local out = { n = list.n }
  for i = 1, list.n do out[i] = kiln.is_tensor(list[i]) and list[i]:clone() or list[i] end
  return out
end

local function run(side, args, seed)
  kiln.manual_seed(seed)
  local results = table.pack(pcall(side.call, table.unpack(args, 1, args.n)))
  return results, kiln.rand(1):item()
end

--- Was the call refused by capture, and not raised by the graph? A fresh one for these arguments tells.
local function refused(side, args)
  local g = kiln.script(side.f)
  pcall(g, table.unpack(args, 1, args.n))
  return not pcall(g.guards, g)
end

--- Of a stripped function the engine's messages begin with the line that called it: here.
local function message(results)
  return (tostring(results[2]):gsub("^[^:]*compare%.lua:%d+: ", ""))
end

local function compare_errors(a, b, eager, captured, args, before)
  local state = before[2]
  if eager[1] ~= captured[1] or message(eager) ~= message(captured) then
    if not captured[1] and refused(b, args) then return "refused", tostring(captured[2]) end
    return "differs", ("eager %s, captured %s"):format(eager[1] and "returns" or "raises " .. tostring(eager[2]),
      captured[1] and "returns" or "raises " .. tostring(captured[2]))
  end
  local now = table.pack(b.peek())
  for i = 1, state.n do
    if not same(state[i], now[i]) then
      return "differs", ("after the error %s, %s is %s, was %s"):format(tostring(captured[2]), D.peek[i], show(now[i]),
        show(state[i]))
    end
  end
  a.put(table.unpack(before[1], 1, before[1].n))
  b.put(table.unpack(state, 1, state.n))
  return "raised"
end

-- ---- other levels ----

local TOLERANCE = 1e-4 -- relative to the largest element; a level that rounds is measured against 1e-5

--- As near as rounding leaves it: sizes, dtypes, kinds, and which elements are no numbers, to the bit.
local function near(x, y, seen)
  if kiln.is_tensor(x) and kiln.is_tensor(y) and x.dtype == y.dtype and x.dtype:find "^float" then
    if not same(kiln.zeros_like(x:detach()), kiln.zeros_like(y:detach())) then return false end
    return kiln.allclose(x:detach(), y:detach(), { rtol = TOLERANCE, atol = TOLERANCE, equal_nan = true })
  elseif math.type(x) == "float" and math.type(y) == "float" then
    return x == y or (x ~= x and y ~= y) or math.abs(x - y) <= TOLERANCE * math.max(1, math.abs(x), math.abs(y))
  elseif type(x) == "string" and type(y) == "string" then
    return (x:gsub("%-0%.0", "0.0")) == (y:gsub("%-0%.0", "0.0")) -- the sign of zero is rounding
  elseif type(x) == "table" and type(y) == "table" and not seen[x] then
    seen[x] = true
    for k, v in pairs(x) do if not near(v, y[k], seen) then return false end end
    for k in pairs(y) do if x[k] == nil then return false end end
    return true
  end
  return seen[x] or same(x, y)
end

--- The frozen graph, and the one for inference, from the state that the captured call found.
local function compare_levels(b, i, make, state, captured)
  local now = copies(table.pack(b.peek()))
  local function put_back()
    local list = copies(state) -- what is written to
    b.put(table.unpack(list, 1, list.n))
  end
  for _, level in ipairs { "freeze", "optimize_for_inference" } do
    local fresh = kiln.script(b.f) -- of these arguments alone
    put_back()
    local ran = run({ call = fresh }, make(), i)
    if not ran[1] then return "differs", "captured afresh it raises " .. tostring(ran[2]) end
    put_back()
    local made, g = pcall(fresh[level], fresh)
    if not made then return "differs", level .. " raises " .. tostring(g) end
    local args = make()
    local results = run({ call = g }, args, i)
    if not results[1] then return "differs", level .. " makes a graph that raises " .. tostring(results[2]) end
    for k = 2, captured.n do
      if not near(captured[k], results[k], {}) then
        return "differs", ("result %d is %s captured, %s after %s"):format(k - 1, show(captured[k]), show(results[k]), level)
      end
    end
  end
  b.put(table.unpack(now, 1, now.n))
  return "same"
end

local function compare_run(a, b, i, pick, state)
  local args1, args2, make = arguments(pick, i, state.size)
  a.poke(i)
  b.poke(i)
  local before = { copies(table.pack(a.peek())), copies(table.pack(b.peek())) }
  local eager, draw = run(a, args1, i)
  local captured, other = run(b, args2, i)
  if not eager[1] or not captured[1] then return compare_errors(a, b, eager, captured, args2, before) end
  local map = state
  for k = 1, args1.n do
    if not same(args1[k], args2[k], map) then
      return "differs", ("argument %d is %s afterwards, captured %s"):format(k, show(args1[k]), show(args2[k]))
    end
  end
  if eager.n ~= captured.n then
    return "differs", ("%d results eager, %d captured"):format(eager.n - 1, captured.n - 1)
  end
  for k = 2, eager.n do
    if not same(eager[k], captured[k], map) then
      return "differs", ("result %d is %s eager, %s captured"):format(k - 1, show(eager[k]), show(captured[k]))
    end
  end
  local now1, now2 = table.pack(a.peek()), table.pack(b.peek())
  for k = 1, now1.n do
    if not same(now1[k], now2[k], map) then
      return "differs", ("%s is %s eager, %s captured"):format(D.peek[k], show(now1[k]), show(now2[k]))
    end
  end
  if draw ~= other then return "differs", "the random numbers drawn differ" end
  if M.levels then return compare_levels(b, i, make, before[2], captured) end
  return "same"
end

local function runs(text, name, n, seed, sizes)
  local a, b = instance(text, name), instance(text, name, true)
  local pick = G.stream(seed)
  local raised = 0
  for i = 1, n do
    local what, why = compare_run(a, b, i, pick, { tensors = true, size = sizes[(i - 1) % #sizes + 1] })
    if what == "raised" then
      raised = raised + 1
    elseif what ~= "same" then
      return what, ("run %d: %s"):format(i, why), raised
    end
  end
  return "same", nil, raised
end

--- Compares the function of this chunk on n inputs, and stripped on a few: "same", "refused" or "differs", and why. `sizes`
--- of x and y from run to run: 4.
function M.compare(text, name, n, seed, sizes)
  sizes = sizes or { 4 }
  if M.device then text = G.on_device(text, M.device) end
  local what, why, raised = runs(text, "=" .. name, n, seed, sizes)
  if what ~= "same" then return what, why, raised end
  what, why = runs(string.dump(assert(load(text, "=" .. name)), true), "=" .. name, 2, seed, sizes)
  return what, why and "stripped, " .. why, raised
end

return M
