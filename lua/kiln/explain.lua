-- kiln.explain(f, …): what a function became when it was captured, and what a run on these inputs did: a table that prints
-- itself. The numbers come from g:nodes(inputs…), g:guards() and g:captures(); here they are only put in order.
local kiln = require "kiln"

-- The records of `list` that have the same key, counted together; in the order in which keys are first met.
local function gather(list, key, add)
  local found, order = {}, {}
  for _, one in ipairs(list) do
    local k = key(one)
    if k ~= nil then
      local sum = found[k]
      if not sum then
        sum = {}
        found[k] = sum
        order[#order + 1] = sum
      end
      add(sum, one)
    end
  end
  return order
end

local function plus(sum, one, field) sum[field] = (sum[field] or 0) + (one[field] or 0) end

local function by_op(nodes)
  local ops = gather(nodes, function(n) return n.op end, function(sum, n)
    sum.op = n.op
    sum.count = (sum.count or 0) + 1
    plus(sum, n, "runs")
    plus(sum, n, "flops")
    plus(sum, n, "bytes")
  end)
  table.sort(ops, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.op < b.op
  end)
  return ops
end

local function branches_of(nodes)
  local list = {}
  for _, n in ipairs(nodes) do
    if n.op == "if" and not n.joins then
      list[#list + 1] = { where = n.where, taken = n.taken or 0, not_taken = n.not_taken or 0 }
    end
  end
  return list
end

local function loops_of(nodes, unrolled)
  local list = {}
  for _, n in ipairs(nodes) do
    if n.op == "loop" then list[#list + 1] = { kind = "kept", where = n.where, runs = n.runs or 0, trips = n.trips or 0 } end
  end
  local straight = gather(unrolled, function(u) return u.where or "?" end, function(sum, u)
    sum.kind, sum.where = "unrolled", u.where
    sum.runs = (sum.runs or 0) + 1
    plus(sum, u, "trips")
  end)
  return table.move(straight, 1, #straight, #list + 1, list)
end

local function calls_of(nodes)
  local list = {}
  for _, n in ipairs(nodes) do
    if n.host then list[#list + 1] = { name = n.host, where = n.where, runs = n.runs or 0 } end
  end
  return list
end

-- ---- as text ----

local function times(n) return n == 1 and "once" or n == 2 and "twice" or n .. " times" end
local function some(n, what) return n .. " " .. what .. (n == 1 and "" or "s") end

-- 1234567 as "1.23 M"; the unit names follow.
local function amount(x, unit)
  local big, i = { "", "k", "M", "G", "T", "P" }, 1
  while x >= 1000 and i < #big do x, i = x / 1000, i + 1 end
  return ((i == 1 and "%.0f " or "%.3g ") .. big[i] .. unit):format(x)
end

local function branch_text(b)
  if b.taken + b.not_taken == 0 then return "not reached" end
  if b.not_taken == 0 then return "taken " .. times(b.taken) end
  if b.taken == 0 then return "not taken, " .. times(b.not_taken) end
  return ("taken %s, not taken %s"):format(times(b.taken), times(b.not_taken))
end

local function loop_text(l)
  local again = l.runs == 1 and "" or l.runs == 0 and ", not reached" or ", entered " .. times(l.runs)
  if l.kind == "unrolled" then return "unrolled, " .. some(l.trips, "trip") .. (l.runs > 1 and " in " .. l.runs .. " places" or "") end
  return "kept, " .. some(l.trips, "trip") .. again
end

local function to_text(r)
  local out = {}
  local function put(...) out[#out + 1] = string.format(...) end
  local function section(list, title, line)
    if #list == 0 then return end
    put("%s", title)
    for _, one in ipairs(list) do put("  %s", line(one)) end
  end
  local function at(where, text) return ("%-24s %s"):format(where or "?", text) end
  put("graph %s: %s, about %s and %s a run", r.graph, some(r.nodes, "node"), amount(r.flops, "flop"), amount(r.bytes, "B"))
  if r.raised then put("the run raised: %s", r.raised) end
  put("captures: %d%s", r.captures, r.cache_limit and (" of %d (cache_limit)"):format(r.cache_limit) or "")
  section(r.recaptures, "captured again because", function(why) return why end)
  section(r.ops, "nodes by op", function(o)
    local cost = o.flops > 0 and (", %s, %s"):format(amount(o.flops, "flop"), amount(o.bytes, "B")) or ""
    return ("%5d  %-18s %s%s"):format(o.count, o.op, o.runs > 0 and "ran " .. times(o.runs) or "", cost)
  end)
  section(r.branches, "branches on data or sizes, for these inputs", function(b) return at(b.where, branch_text(b)) end)
  section(r.loops, "loops", function(l) return at(l.where, loop_text(l)) end)
  section(r.host_calls, "calls back into Lua", function(h) return at(h.where, ("%s, %s"):format(h.name, times(h.runs))) end)
  section(r.guards, "guards: another value means another capture", function(g)
    return at(g.where or "argument", ("%s '%s' = %s"):format(g.kind, g.name, g.value))
  end)
  return (table.concat(out, "\n"):gsub(" +\n", "\n"))
end

local Report = { __name = "explain", __tostring = to_text }

-- ---- the function ----

local function sum(list, field)
  local total = 0.0
  for _, one in ipairs(list) do total = total + (one[field] or 0) end
  return total
end

local function is_graph(f)
  local meta = type(f) == "userdata" and getmetatable(f)
  return type(meta) == "table" and meta.__name == "Graph"
end

--- What `f` (a function, a module or a Graph) is as a graph, and what a run on the arguments that follow does there. The
--- run is for the report alone: it writes nothing and draws no random numbers; functions that stay calls back into Lua are
--- called. Raises where capture refuses.
return function(f, ...)
  local g = f
  if not is_graph(f) then
    local meta = type(f) == "table" and getmetatable(f)
    if type(f) ~= "function" and not (type(meta) == "table" and meta.__call) then
      kiln.fail("explain: a function, module or Graph is needed, got %s", kiln.is_tensor(f) and "a tensor" or f == nil and "nil" or "a " .. type(f))
    end
    g = kiln.script(f, select("#", ...) == 0 and { inputs = {} } or nil)
  end
  local nodes, raised = g:nodes(...)
  local captures = g:captures()
  local ops = by_op(nodes)
  return setmetatable({
    graph = captures.name,
    nodes = #nodes,
    ops = ops,
    flops = sum(ops, "flops"),
    bytes = sum(ops, "bytes"),
    branches = branches_of(nodes),
    loops = loops_of(nodes, captures.unrolled),
    host_calls = calls_of(nodes),
    guards = g:guards(),
    captures = captures.n,
    recaptures = captures.reasons,
    cache_limit = captures.cache_limit,
    raised = raised,
  }, Report)
end
