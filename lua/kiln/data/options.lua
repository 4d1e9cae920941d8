-- The trailing table of options of kiln.data's functions: known names, the kinds they must have, defaults. Misspelt ones are
-- named, not ignored.
local fail = require("kiln").fail

local function kind_of(value)
  return math.type(value) == "integer" and "integer" or type(value)
end

-- "a", "a or b" fits?
local function fits(value, wanted)
  local kind = kind_of(value)
  for word in wanted:gmatch "%a+" do
    if word == kind or word == "number" and kind == "integer" then return true end
  end
  return false
end

--- known[name] = { "kind or kind", default }. Gives a new table with every default filled in.
return function(where, given, known)
  if given ~= nil and type(given) ~= "table" then fail("%s: options must be a table, got %s", where, type(given)) end
  local out = {}
  for name, row in pairs(known) do out[name] = row[2] end
  for name, value in pairs(given or {}) do
    local row = known[name]
    if not row then
      local names = {}
      for n in pairs(known) do names[#names + 1] = n end
      table.sort(names)
      fail("%s: there is no option '%s'; there are %s", where, tostring(name), table.concat(names, ", "))
    end
    if not fits(value, row[1]) then fail("%s: option '%s' must be a %s, got %s", where, name, row[1], kind_of(value)) end
    out[name] = value
  end
  return out
end
