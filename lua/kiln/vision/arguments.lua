-- How the functions and transforms of kiln.vision look at what they are given: images, sizes, paddings, choices. Not what
-- they do with it.
local kiln = require "kiln"
local fail = kiln.fail

local arguments = {}

--- An image or a batch of them, [..., C, H, W]: returns its height, its width and its number of channels.
function arguments.image(name, x)
  if not kiln.is_tensor(x) then fail("%s: an image is needed, a tensor [..., C, H, W], got %s", name, type(x)) end
  local shape = x.shape
  if #shape < 3 then fail("%s: an image is needed, a tensor [..., C, H, W], got one of %d dimensions", name, #shape) end
  return shape[#shape - 1], shape[#shape], shape[#shape - 2]
end

function arguments.is_floating(x)
  local dtype = x.dtype
  return dtype == "float32" or dtype == "float64" or dtype == "float16" or dtype == "bfloat16"
end

local function positive(name, what, n)
  if math.type(n) ~= "integer" or n < 1 then fail("%s: %s must be a positive integer, got %s", name, what, tostring(n)) end
  return n
end
arguments.positive = positive

--- A size, n or { height, width }: height and width, n twice.
function arguments.size(name, size)
  if type(size) ~= "table" then return positive(name, "the size", size), size end
  if #size ~= 2 then fail("%s: the size must be a number or { height, width }, got a table of %d", name, #size) end
  return positive(name, "the height", size[1]), positive(name, "the width", size[2])
end

--- n, { left and right, top and bottom } or { left, top, right, bottom }: left, top, right, bottom.
function arguments.padding(name, padding)
  local list = type(padding) == "table" and padding or { padding }
  for _, n in ipairs(list) do
    if math.type(n) ~= "integer" or n < 0 then
      fail("%s: padding must be whole numbers from 0 on, got %s", name, tostring(n))
    end
  end
  if #list == 1 then return list[1], list[1], list[1], list[1] end
  if #list == 2 then return list[1], list[2], list[1], list[2] end
  if #list == 4 then return list[1], list[2], list[3], list[4] end
  fail("%s: padding must be a number, { left and right, top and bottom } or { left, top, right, bottom }", name)
end

--- One of the strings that are keys of `choices`: what stands there.
function arguments.choice(name, what, value, choices)
  local found = choices[value]
  if found == nil then
    local list = {}
    for key in pairs(choices) do list[#list + 1] = "'" .. key .. "'" end
    table.sort(list)
    fail("%s: %s must be one of %s, got %s", name, what, table.concat(list, ", "), tostring(value))
  end
  return found
end

--- A trailing table of options that has no other keys than those of `known`.
function arguments.options(name, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" or kiln.is_tensor(options) then
    fail("%s: options must be a table, got %s", name, kiln.is_tensor(options) and "a tensor" or type(options))
  end
  for key in pairs(options) do
    local found = false
    for _, word in ipairs(known) do found = found or word == key end
    if not found then fail("%s: there is no option '%s'; there are %s", name, tostring(key), table.concat(known, ", ")) end
  end
  return options
end

return arguments
