-- What a batch is made of: a list of examples becomes one tensor, or a table of them. This is the default; a DataLoader may
-- be given another.
local kiln = require "kiln"
local fail, is_tensor = kiln.fail, kiln.is_tensor

local function kind_of(value) return is_tensor(value) and "tensor" or type(value) end

local function stack(list, what)
  local first = table.concat(list[1].shape, ", ")
  for k = 2, #list do
    local shape = table.concat(list[k].shape, ", ")
    if shape ~= first then
      fail("DataLoader: %s differ in shape: [%s] in the first of the batch, [%s] in number %d; give them one shape, or a collate of your own",
        what, first, shape, k)
    end
  end
  return kiln.stack(list)
end

local collate

-- Tables, field by field. All must have the fields of the first.
local function fields(list, what)
  local out = {}
  for key in pairs(list[1]) do
    local column = {}
    for k, example in ipairs(list) do
      if example[key] == nil then fail("DataLoader: field %s of %s is missing in number %d of the batch", tostring(key), what, k) end
      column[k] = example[key]
    end
    out[key] = collate(column, "fields " .. tostring(key))
  end
  return out
end

--- default_collate(list): tensors are stacked, numbers and booleans become a tensor of them, strings a list, tables a
--- table with each field treated so.
function collate(list, what)
  what = what or "examples"
  local kind = kind_of(list[1])
  for k = 2, #list do
    if kind_of(list[k]) ~= kind then
      fail("DataLoader: %s differ in kind: a %s first, a %s as number %d of the batch", what, kind, kind_of(list[k]), k)
    end
  end
  if kind == "tensor" then return stack(list, what) end
  if kind == "number" or kind == "boolean" then return kiln.tensor(list) end
  if kind == "string" then return list end
  if kind == "table" then return fields(list, what) end
  fail("DataLoader: %s are of type %s, which makes no batch; give a collate of your own", what, kind)
end

return { default_collate = function(list) return collate(list) end }
