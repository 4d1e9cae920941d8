-- Plain data as JSON text, with the tensors in it put aside by name: nil-free tables, strings, numbers to the bit, booleans.
-- What JSON cannot say is an object of one key that begins with a dollar sign: $tensor, $number, $bytes, $table.
local kiln = require "kiln"
local json = require "kiln.text.json"
local fail = kiln.fail

local plain = {}
local MOST_DEEP = 30

local function number_text(v)
  if math.type(v) == "integer" then return tostring(v) end
  if v ~= v then return '{"$number":"nan"}' end
  if v == math.huge or v == -math.huge then return ('{"$number":"%sinf"}'):format(v < 0 and "-" or "") end
  local text = ("%.17g"):format(v)
  return text:find "[.e]" and text or text .. ".0"
end

local function string_text(s)
  if utf8.len(s) then return json.quote(s) end
  return '{"$bytes":"' .. s:gsub(".", function(c) return ("%02x"):format(c:byte()) end) .. '"}'
end

-- The name of a tensor at this path: its own, also where two paths read the same.
local function tensor_text(t, path, w)
  if not w.names[t] then
    local name, k = path, 1
    while w.tensors[name] do
      k = k + 1
      name = path .. "#" .. k
    end
    w.tensors[name], w.names[t] = t, name
  end
  return '{"$tensor":' .. json.quote(w.names[t]) .. "}"
end

local function kind_of(t)
  local n, texts, others = 0, 0, 0
  for key in pairs(t) do
    n = n + 1
    if type(key) == "string" and utf8.len(key) and key:sub(1, 1) ~= "$" then
      texts = texts + 1
    elseif not (math.type(key) == "integer" and key >= 1 and key <= #t) then
      others = others + 1
    end
  end
  if texts == n then return "object" end
  return texts == 0 and others == 0 and n == #t and "list" or "table"
end

local encode

local function table_text(value, path, w, depth)
  if depth > MOST_DEEP then fail("%s: %s lies more than %d tables deep, or holds itself", w.op, path, MOST_DEEP) end
  if getmetatable(value) then fail("%s: %s is an object without state_dict; plain data and tensors can be saved", w.op, path) end
  local kind, keys, parts = kind_of(value), {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) < type(b) end
    if type(a) == "boolean" then return a and not b end
    return a < b
  end)
  for i, key in ipairs(keys) do
    if type(key) == "table" or type(key) == "userdata" then fail("%s: a key in %s is a %s", w.op, path, type(key)) end
    local text = encode(value[key], path .. "." .. tostring(key), w, depth + 1)
    if kind == "object" then
      parts[i] = json.quote(key) .. ":" .. text
    else
      parts[i] = kind == "list" and text or "[" .. encode(key, path, w, depth) .. "," .. text .. "]"
    end
  end
  local all = table.concat(parts, ",")
  if kind == "object" then return "{" .. all .. "}" end
  return kind == "list" and "[" .. all .. "]" or '{"$table":[' .. all .. "]}"
end

function encode(value, path, w, depth)
  local kind = type(value)
  if kiln.is_tensor(value) then return tensor_text(value, path, w) end
  if kind == "number" then return number_text(value) end
  if kind == "string" then return string_text(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "table" then return table_text(value, path, w, depth) end
  fail("%s: %s is a %s; plain data and tensors can be saved", w.op, path, kind)
end

--- encode(value, tensors, op): the text; tensors are added to `tensors` by name.
function plain.encode(value, tensors, op)
  if type(value) ~= "table" then fail("%s: a table is needed, got %s", op, type(value)) end
  local w, parts, keys = { op = op, tensors = tensors, names = {} }, {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = json.quote(key) .. ":" .. encode(value[key], key, w, 1) end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function unhex(s, damaged)
  if #s % 2 ~= 0 or s:find "%X" then damaged "bytes that are not hexadecimal" end
  return (s:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end))
end

local decode

local numbers = { nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge }

local special = {
  ["$tensor"] = function(name, tensors, damaged)
    return type(name) == "string" and tensors[name] or damaged("the tensor " .. tostring(name) .. " is missing")
  end,
  ["$number"] = function(name, _, damaged) return numbers[name] or damaged("no number " .. tostring(name)) end,
  ["$bytes"] = function(hex, _, damaged) return unhex(type(hex) == "string" and hex or "?", damaged) end,
  ["$table"] = function(rows, tensors, damaged)
    local out = {}
    for _, row in ipairs(type(rows) == "table" and rows or damaged "a table without rows") do
      if type(row) ~= "table" or row[1] == nil then damaged "a table's row without key" end
      local key = decode(row[1], tensors, damaged)
      if key ~= key then damaged "nan as a key" end
      out[key] = decode(row[2], tensors, damaged)
    end
    return out
  end,
}

function decode(value, tensors, damaged)
  if type(value) ~= "table" then return value end
  local first = next(value)
  if special[first] then return special[first](value[first], tensors, damaged) end
  for key, part in pairs(value) do value[key] = decode(part, tensors, damaged) end
  return value
end

--- decode(text, tensors, name): the value again; `name` is how errors call the text.
function plain.decode(text, tensors, name)
  return decode(json.decode(text, name), tensors, function(what) fail("%s is damaged: %s", name, what) end)
end

return plain
