-- When two values are the same to whoever sees them: by content, to the bit (nan is nan, -0 is not 0), numbers of one kind,
-- tensors of one dtype and shape; and what is one object on one side is one on the other. A helper of the specs that
-- compare eager with captured functions, and of spec/fuzz; it has no tests of its own.
local M = {}

local function same_number(a, b)
  if math.type(a) ~= math.type(b) then return false end
  if a ~= a then return b ~= b end
  return a == b and (a ~= 0 or 1 / a == 1 / b)
end

local function same_elements(a, b)
  if type(a) ~= "table" then return type(a) == "boolean" and a == b or type(a) == "number" and same_number(a, b) end
  if type(b) ~= "table" or #a ~= #b then return false end
  for i = 1, #a do
    if not same_elements(a[i], b[i]) then return false end
  end
  return true
end

local function same_tensor(a, b)
  return kiln.is_tensor(a) and kiln.is_tensor(b) and a.dtype == b.dtype and same_elements(a.shape, b.shape)
    and same_elements(a:totable(), b:totable())
end

--- `map` holds which table or tensor stands for which: give one for all values that are compared together.
function M.same(a, b, map)
  local kind = type(a)
  map = map or {}
  if kind ~= type(b) then return false end
  if kind == "number" then return same_number(a, b) end
  if kind ~= "table" and kind ~= "userdata" then return a == b end
  if map[a] or map[b] then return map[a] == b and map[b] == a end
  map[a], map[b] = b, a
  if kind == "userdata" then return same_tensor(a, b) end
  for k, v in pairs(a) do
    if not M.same(v, b[k], map) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

function M.show(v, seen)
  if kiln.is_tensor(v) then return (tostring(v):gsub("\n", " ")) end
  if type(v) ~= "table" then return tostring(v) end
  seen = seen or {}
  if seen[v] then return "{again}" end
  seen[v] = true
  local parts = {}
  for k, x in pairs(v) do parts[#parts + 1] = tostring(k) .. " = " .. M.show(x, seen) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

return M
