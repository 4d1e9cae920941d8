-- kiln.ignore(f [, {name =, results =}]): in a graph f stays a call of the host, by name, in the order of the program. It is
-- given tensors, numbers and booleans, and gives what `results` lists: kiln.spec(…), "float", "integer", "boolean"; without it,
-- nothing. No gradient flows through it, eager neither. A saved graph carries the name; who runs it binds a function to it.
local kiln = require "kiln"
local fail = kiln.fail
local hosts = kiln.tracer.hosts -- by name

local meta = { __call = kiln.call_host, __name = "ignored function" }
meta.__tostring = function(self) return ("ignored function '%s' -> %s"):format(self.name, table.concat(self.results, ", ")) end

local options = { name = true, results = true }
local scalars = { float = true, integer = true, boolean = true }

local function types(list)
  if type(list) ~= "table" then fail("ignore: results must be a list, got %s", type(list)) end
  local texts = {}
  for i, r in ipairs(list) do
    local text = type(r) == "userdata" and not kiln.is_tensor(r) and tostring(r) or r
    if not scalars[text] and not (type(r) == "userdata" and text:match "^%w+%[.*%]$") then
      fail('ignore: results[%d] must be kiln.spec(...), "float", "integer" or "boolean"', i)
    end
    texts[i] = text
  end
  return texts
end

-- A name of its own for each function without one.
local function free_name(f)
  local base, k = kiln.tracer.name_of(f), 1
  local name = base
  while hosts[name] and hosts[name] ~= f do
    k = k + 1
    name = base .. "." .. k
  end
  return name
end

return function(f, opts)
  if type(f) ~= "function" then fail("ignore: a function is needed, got %s", type(f)) end
  opts = opts or {}
  if type(opts) ~= "table" then fail("ignore: options must be a table, got %s", type(opts)) end
  for key in pairs(opts) do
    if not options[key] then fail("ignore: there is no option '%s'; there are name, results", tostring(key)) end
  end
  local name = opts.name or free_name(f)
  if type(name) ~= "string" or name == "" then fail("ignore: name must be a string, got %s", type(name)) end
  if hosts[name] and hosts[name] ~= f then fail("ignore: the name '%s' is taken by another function", name) end
  local results = types(opts.results or {})
  hosts[name] = f
  return setmetatable({ name = name, results = results, f = f }, meta)
end
