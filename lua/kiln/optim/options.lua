-- The options of an optimiser: what there are, of which kind, in which range. One row of an optimiser's `options` table is a
-- name and its default; the default's kind (boolean, whole number, number) is the kind wanted.
local fail = require("kiln").fail

local options = {}

-- Where "not negative" does not say it all.
local function below_one(v) return v >= 0 and v < 1, "must be in [0, 1)" end
local ranges = {
  beta1 = below_one, beta2 = below_one,
  rho = function(v) return v >= 0 and v <= 1, "must be in [0, 1]" end,
  dampening = function(v) return v == v, "must be a number" end,
  etaminus = function(v) return v > 0 and v < 1, "must be in (0, 1)" end,
  etaplus = function(v) return v > 1, "must be above 1" end,
  history_size = function(v) return v >= 1, "must be at least 1" end,
  max_iter = function(v) return v >= 1, "must be at least 1" end,
  max_eval = function(v) return v >= 1, "must be at least 1" end,
}
local function not_negative(v) return v >= 0, "must not be negative" end

local function known(class)
  local names = {}
  for name in pairs(class.options) do names[#names + 1] = name end
  for name in pairs(class.optional) do names[#names + 1] = name end
  for name in pairs(class.pairs) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local function one(class, out, name, value)
  local default = class.options[name]
  local kind = default == nil and class.optional[name] or type(default)
  if type(value) ~= kind then fail("%s: option '%s' must be a %s, got %s", class.name, name, kind, type(value)) end
  if kind == "number" then
    local ok, why = (ranges[name] or not_negative)(value)
    if not ok then fail("%s: %s %s, got %s", class.name, name, why, tostring(value)) end
    if math.type(default) == "integer" or default == nil then
      value = math.tointeger(value) or fail("%s: %s must be a whole number, got %s", class.name, name, tostring(value))
    else
      value = value + 0.0
    end
  end
  out[name] = value
end

--- Is there an option of that name?
function options.has(class, name)
  return class.options[name] ~= nil or class.optional[name] ~= nil or class.pairs[name] ~= nil
end

--- What `given` says over what `base` says, checked. `skip`: names in given that are not options.
function options.merge(class, base, given, skip)
  local out = {}
  for name, value in pairs(base) do out[name] = value end
  for name, value in pairs(given) do
    local two = class.pairs[name]
    if skip and skip[name] then goto continue end
    if two then
      if type(value) ~= "table" or #value ~= 2 then
        fail("%s: option '%s' must be a list of 2 numbers, got %s", class.name, name,
          type(value) == "table" and #value .. " values" or type(value))
      end
      one(class, out, two[1], value[1])
      one(class, out, two[2], value[2])
    elseif not options.has(class, name) then
      fail("%s: there is no option '%s'; there are %s", class.name, tostring(name), known(class))
    else
      one(class, out, name, value)
    end
    ::continue::
  end
  if out.nesterov and (out.momentum <= 0 or out.dampening ~= 0) then
    fail("%s: nesterov needs a momentum above 0 and no dampening", class.name)
  end
  if class.check then class.check(out) end
  return out
end

return options
