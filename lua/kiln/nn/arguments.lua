-- What the constructors of layers share: arguments checked and spread over dimensions, and their text. No layers here.
local kiln = require "kiln"
local fail = kiln.fail

local arguments = {}

local names = { "one", "two", "three" }

--- In the place of a default: an argument that has to be given, or one that may be nil.
arguments.needed, arguments.optional = {}, {}

local function known(fields)
  local list = {}
  for i = 1, #fields, 2 do list[#list + 1] = fields[i] end
  return table.concat(list, ", ")
end

local function checked(class, name, default, value)
  if value == nil and default == arguments.needed then fail("%s: %s is needed", class, name) end
  if value == nil and default ~= arguments.optional then value = default end
  if type(default) == "boolean" and type(value) ~= "boolean" then
    fail("%s: %s must be true or false, got %s", class, name, tostring(value))
  end
  return value
end

--- Arguments as in PyTorch: in order, or by name in a table that stands last, or both. `fields` is { name, default, … }.
--- Gives a table by name; an unknown name is an error.
function arguments.read(class, fields, ...)
  local given, n = { ... }, select("#", ...)
  local options, last = {}, given[n]
  if type(last) == "table" and #last == 0 and getmetatable(last) == nil then
    options, n = last, n - 1
  end
  if n > #fields // 2 then
    fail("%s: there are %d arguments too many%s", class, n - #fields // 2, #fields > 0 and "; there are " .. known(fields) or "")
  end
  local out, used = {}, {}
  for i = 1, #fields, 2 do
    local name, value = fields[i], nil
    if i // 2 < n then value = given[i // 2 + 1] end
    if value == nil then value = options[name] end
    used[name] = true
    out[name] = checked(class, name, fields[i + 1], value)
  end
  for name in pairs(options) do
    if not used[name] then
      fail("%s: there is no option '%s'%s", class, tostring(name), #fields > 0 and "; there are " .. known(fields) or "")
    end
  end
  return out
end

--- n, which has to be a positive integer.
function arguments.count(class, what, n)
  if math.type(n) ~= "integer" or n < 1 then
    fail("%s: %s must be a positive integer, got %s", class, what, type(n) == "string" and ("%q"):format(n) or tostring(n))
  end
  return n
end

--- v, which has to be an integer or a table of `dims` of them, as given.
function arguments.sizes(class, what, v, dims)
  local list = type(v) == "table" and v or { v }
  local fits = #list == 1 or #list == dims
  for i = 1, #list do fits = fits and math.type(list[i]) == "integer" end
  if not fits then fail("%s: %s must be an integer or a table of %s", class, what, names[dims]) end
  return v
end

--- The same as a list of `dims`.
function arguments.each(class, what, v, dims)
  arguments.sizes(class, what, v, dims)
  local list = {}
  for i = 1, dims do
    if type(v) == "table" then list[i] = v[i] or v[1] else list[i] = v end
  end
  return list
end

--- p, which has to be in [0, 1].
function arguments.probability(class, p)
  if type(p) ~= "number" or not (p >= 0 and p <= 1) then
    fail("%s: the probability must be in [0, 1], got %s", class, tostring(p))
  end
  return p
end

--- Sizes in short: 3, or 3x1.
function arguments.text(v)
  if type(v) ~= "table" then return tostring(v) end
  for i = 2, #v do
    if v[i] ~= v[1] then return table.concat(v, "x") end
  end
  return tostring(v[1])
end

return arguments
