-- What the constructors of layers share: arguments checked and spread over dimensions, and their text. No layers here.
local kiln = require "kiln"
local fail = kiln.fail

local arguments = {}

local names = { "one", "two", "three" }

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

--- p, or `default` where none is given, which has to be in [0, 1].
function arguments.probability(class, p, default)
  if p == nil then p = default end
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
