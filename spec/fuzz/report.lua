-- What a run of the fuzzer found: counted, written as lines that runs of other functions can be added to, and printed.
local D = require "distribution"
local M = {}
M.__index = M

M.MANY = 500 -- functions from which on shares are judged
local counted = { "functions", "calls", "same", "refused", "differs", "raised", "seconds" }

function M.new()
  local r = setmetatable({ features = {}, cases = {} }, M)
  for _, name in ipairs(counted) do r[name] = 0 end
  return r
end

--- One function: its features, what came of it ("same", "refused", "differs"), why, how many calls raised.
function M:add(seed, sort, features, what, why, raised, calls)
  self.functions = self.functions + 1
  self.calls = self.calls + calls
  self.raised = self.raised + (raised or 0)
  self[what] = self[what] + 1
  for name in pairs(features) do self.features[name] = (self.features[name] or 0) + 1 end
  if what ~= "same" then self.cases[#self.cases + 1] = { seed = seed, what = what, sort = sort, why = why } end
end

-- ---- as lines ----

function M:write(file)
  for _, name in ipairs(counted) do file:write(("count\t%.14g\t%s\n"):format(self[name], name)) end
  for name, k in pairs(self.features) do file:write(("feature\t%d\t%s\n"):format(k, name)) end
  for _, c in ipairs(self.cases) do
    file:write(("case\t%d\t%s\t%s\t%s\n"):format(c.seed, c.what, c.sort, (c.why:gsub("%s*\n%s*", " "))))
  end
  file:write "end\n"
end

--- Adds what :write wrote; false when its end is missing.
function M:read(file)
  for line in file:lines() do
    if line == "end" then return true end
    local what, n, rest = line:match "^(%a+)\t([%d.e+-]+)\t(.*)$"
    n = assert(tonumber(n), "no report: " .. line)
    if what == "count" then
      self[rest] = self[rest] + n
    elseif what == "feature" then
      self.features[rest] = (self.features[rest] or 0) + n
    else
      local how, sort, why = rest:match "^([^\t]*)\t([^\t]*)\t(.*)$"
      self.cases[#self.cases + 1] = { seed = math.tointeger(n), what = how, sort = sort, why = why }
    end
  end
  return false
end

-- ---- for people ----

--- What is alike in reasons of one kind: no numbers, no places.
function M.kind_of(why)
  return (why:gsub("^stripped, ", ""):gsub("^run %d+: ", ""):gsub("^[^ ]*:%d+: ", ""):gsub("%b{}", "{}")
    :gsub("%-?%d[%w.]*", "N"):sub(1, 160))
end

local function sorted(list, before)
  local out = {}
  for _, v in pairs(list) do out[#out + 1] = v end
  table.sort(out, before)
  return out
end

--- Every function that was refused or differs, in order.
function M:list()
  for _, c in ipairs(sorted(self.cases, function(a, b) return a.seed < b.seed end)) do
    print(("f%d %s (%s): %s"):format(c.seed, c.what, c.sort, c.why))
  end
end

function M:print()
  local n = math.max(self.functions, 1)
  print(("%d functions of %.0f calls, %.0f s of work (%.1f ms each): %d agree, %d refused (%.2f %%), %d differ; %d calls raised")
    :format(self.functions, self.calls / n, self.seconds, 1000 * self.seconds / n, self.same, self.refused,
      100 * self.refused / n, self.differs, self.raised))
  local kinds = {}
  for _, c in ipairs(sorted(self.cases, function(a, b) return a.seed < b.seed end)) do
    local key = ("%s: %s"):format(c.what, M.kind_of(c.why))
    kinds[key] = kinds[key] or { key = key, first = c.seed, n = 0 }
    kinds[key].n = kinds[key].n + 1
  end
  for _, k in ipairs(sorted(kinds, function(a, b) return a.n > b.n or a.n == b.n and a.key < b.key end)) do
    print(("%6d  %s (f%d)"):format(k.n, k.key, k.first))
  end
  print "in how many of the functions:"
  local shares = {}
  for name, k in pairs(self.features) do shares[#shares + 1] = { name = name, k = k } end
  for _, f in ipairs(sorted(shares, function(a, b) return a.k > b.k or a.k == b.k and a.name < b.name end)) do
    print(("%6.1f %%  %s"):format(100 * f.k / n, f.name))
  end
end

--- How many things are not as they should be; says which, beside the functions that differ.
function M:faults()
  local bad = self.differs
  local function fault(...)
    bad = bad + 1
    print("FAILED: " .. string.format(...))
  end
  if self.functions < M.MANY then return bad end
  if self.refused > self.functions * D.refused then fault "too many are refused" end
  for name in pairs(D.features()) do
    if (self.features[name] or 0) < self.functions * D.least then fault("too few have '%s'", name) end
  end
  if (self.features["tensor branches in loops"] or 0) < self.functions * D.in_loop then
    fault "too few have a tensor branch in a loop"
  end
  return bad
end

return M
