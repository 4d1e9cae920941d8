-- kiln.explain, g:code(), g:nodes(inputs…), g:captures(): what a person is told of a captured function.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local T = kiln.tensor

local function here(offset) return debug.getinfo(2, "S").short_src .. ":" .. debug.getinfo(2, "l").currentline + offset end
local function has(text, part) truth(text:find(part, 1, true), part .. " in:\n" .. text) end

local net = { w = T { { 1.0, 2 }, { 3, 4 } }, gain = 2 }
local first = here(1)
local function f(x, n)
  local h = x:matmul(net.w) * net.gain
  local k = 0
  if h:sum() > 10 then h = h * 0.5 else h = h - 1 end
  while h:sum() > 1 do
    h = h * 0.5
    if k < n then k = k + 1 end
  end
  for i = 1, 3 do h = h + i end
  return h, k
end
local line = tonumber(first:match "%d+$")
local function at(offset) return (first:gsub("%d+$", tostring(line + offset))) end

local function by(list, key, value)
  for _, one in ipairs(list) do
    if one[key] == value then return one end
  end
  error(("no %s in the list is %s"):format(key, value), 2)
end

test("nodes by op with what they cost", function()
  local r = kiln.explain(f, kiln.ones(4, 2), 3)
  local mm = by(r.ops, "op", "matmul")
  equal({ mm.count, mm.runs, mm.flops, mm.bytes }, { 1, 1, 2.0 * 4 * 2 * 2, 4.0 * (8 + 4 + 8) })
  local total = 0
  for _, o in ipairs(r.ops) do total = total + o.count end
  equal(total, r.nodes)
  truth(r.flops > mm.flops and r.bytes > mm.bytes)
end)

test("branches taken and not taken, with their lines", function()
  local r = kiln.explain(f, kiln.ones(1, 2), 1) -- h = {8, 12} * 0.5, halved 4 times to less than 1
  local if1 = by(r.branches, "where", at(3))
  equal({ if1.taken, if1.not_taken }, { 1, 0 })
  local if2 = by(r.branches, "where", at(6))
  equal({ if2.taken, if2.not_taken }, { 1, 3 })
  local zero = kiln.explain(f, kiln.zeros(1, 2), 1)
  if1 = by(zero.branches, "where", at(3))
  equal({ if1.taken, if1.not_taken }, { 0, 1 })
  if2 = by(zero.branches, "where", at(6))
  equal({ if2.taken, if2.not_taken }, { 0, 0 })
  has(tostring(zero), "not reached")
end)

test("loops kept and unrolled, with their trips", function()
  local r = kiln.explain(f, kiln.ones(1, 2), 1)
  local kept = by(r.loops, "kind", "kept")
  truth(kept.runs == 1 and kept.trips == 5 and kept.where == at(4), tostring(r)) -- the last one only asks
  local flat = by(r.loops, "kind", "unrolled")
  truth(flat.trips == 3 and flat.runs == 1 and flat.where == at(8), tostring(r))
  local nested = kiln.explain(function(x)
    for _ = 1, 2 do
      for _, v in ipairs { 1, 2, 3 } do x = x + v end
    end
    local i = 0
    while i < 4 do i, x = i + 1, x * 2 end
    repeat
      i, x = i - 1, x + 1
    until i == 0
    return x
  end, T { 1.0 })
  local trips = {}
  for _, l in ipairs(nested.loops) do trips[#trips + 1] = l.kind .. " " .. l.runs .. " " .. l.trips end
  table.sort(trips)
  equal(trips, { "unrolled 1 2", "unrolled 1 4", "unrolled 1 4", "unrolled 2 6" })
end)

test("guards have kind, name, value and place", function()
  local r = kiln.explain(f, kiln.ones(1, 2), 1)
  local w = by(r.guards, "name", "net.w")
  truth(w.value == "float32[2,2]" and w.where == at(1), tostring(r))
  local gain = by(r.guards, "name", "net.gain")
  equal({ gain.kind, gain.value, gain.where }, { "field", "2", at(1) })
  for _, g in ipairs(r.guards) do truth(g.kind and g.name and g.value, "a guard lacks a field") end
end)

test("recaptures and their reasons", function()
  local k = 1
  local g = kiln.script(function(x) return x + k end, { cache_limit = 3 })
  g(T { 1.0 })
  k = 5
  g(T { 1.0 })
  local r = kiln.explain(g, T { 1.0 })
  equal({ r.captures, #r.recaptures, r.cache_limit }, { 2, 1, 3 })
  has(r.recaptures[1], "upvalue 'k' was 1 at ")
  has(tostring(r), "captures: 2 of 3 (cache_limit)")
  has(tostring(r), "captured again because")
end)

test("the run behind it leaves no trace", function()
  local n, seen = 0, { mean = T { 0.0 } }
  local function step(x)
    n = n + 1
    seen.mean = seen.mean * 0.5 + x:mean()
    return x + kiln.rand(2) + n
  end
  kiln.manual_seed(1)
  local draw = kiln.rand(1):item()
  kiln.manual_seed(1)
  local g = kiln.script(step)
  kiln.explain(g, T { 1.0, 2 })
  equal(n, 0)
  equal(seen.mean:totable(), { 0.0 })
  equal(kiln.rand(1):item(), draw)
end)

test("calls back into Lua", function()
  local calls = 0
  local double = kiln.ignore(function(y)
    calls = calls + 1
    return y * 2
  end, { name = "double", results = { kiln.spec("float32", { 2 }) } })
  local r = kiln.explain(function(x) for _ = 1, 3 do x = double(x) end return x end, T { 1.0, 2 })
  equal(#r.host_calls, 3)
  truth(r.host_calls[1].runs == 1 and r.host_calls[1].name:find "double" and r.host_calls[1].where)
  equal(calls, 3)
  has(tostring(r), "calls back into Lua")
end)

test("a run that raises is told, what refuses capture is raised", function()
  local function bad(x)
    if x:sum() > 0 then error "too much" end
    return x
  end
  local r = kiln.explain(bad, T { 1.0 })
  has(r.raised, "too much")
  has(tostring(r), "the run raised: ")
  equal(kiln.explain(bad, T { -1.0 }).raised, nil)
  raises(function() kiln.explain(function(x) return os.time(), x end, T { 1.0 }) end, "os.time")
  raises(function() kiln.explain(nil) end, "explain: a function, module or Graph is needed")
  raises(function() kiln.explain(kiln.script(f)) end, "has not been captured yet")
end)

test("functions without arguments, modules, graphs from text", function()
  equal(kiln.explain(function() return kiln.ones(2) * 3 end).captures, 1)
  local r = kiln.explain(kiln.nn.Linear(2, 3), kiln.ones(4, 2))
  truth(r.flops >= 2 * 4 * 2 * 3)
  local g = kiln.script(f)
  g(kiln.ones(1, 2), 1)
  local back = kiln.parse(tostring(g):gsub("slot param [^\n]*\n", function(s) return s end), nil)
  truth(#back:nodes() == #g:nodes())
  equal(back:captures().n, 1)
end)

test("the listing is structured, with the program's names and places", function()
  local g = kiln.script(f)
  g(kiln.ones(1, 2), 1)
  local code = g:code()
  has(code, "-- x: float32[1,x_2]\n-- n: integer\n")
  has(code, "(x, n)\n")
  has(code, "local h = x:matmul(net.w) * 2.0")
  has(code, " then ")
  has(code, "while true do")
  has(code, "k + 1")
  has(code, "-- " .. at(1))
  truth(code:match "end\n$")
  local depth, deepest = 0, 0 -- blocks are closed
  for word in (code:gsub("%-%-[^\n]*", "")):gmatch "%a+" do
    if word == "function" or word == "then" or word == "do" then depth = depth + 1 end
    if word == "end" then depth = depth - 1 end
    deepest = math.max(deepest, depth)
  end
  equal(depth, 0)
  truth(deepest >= 3)
end)

test("the listing of state, results in tables, several values", function()
  local n = 0
  local g = kiln.script(function(t)
    n = n + 1
    local v, i = t.x:max(1)
    return { best = v, at = { i, n } }, t.x:size(1)
  end)
  g { x = T { 1.0, 3 } }
  local code = g:code()
  has(code, "({x = ")
  has(code, "\n  n = ")
  has(code, "return {best = v, at = {i, ")
end)
