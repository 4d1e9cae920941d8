-- JSON as tokenizers' files need it: reading a whole text into tables, and writing a string. Objects and lists are both
-- tables, null is nil; numbers written as whole are integers.
local kiln = require "kiln"
local fail = kiln.fail

local json = {}
local MOST_DEEP = 100

local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function problem(s, at, what)
  local line = select(2, s.text:sub(1, at - 1):gsub("\n", "")) + 1
  fail("%s: line %d, byte %d: %s", s.name, line, at, what)
end

local function skip_blanks(s, at) return s.text:find("[^ \t\r\n]", at) or #s.text + 1 end

-- An escape by four hexadecimal digits, its backslash at `at`, with its second half where it is one of two: the character and what follows.
local function unicode_escape(s, at)
  local hex = s.text:match("^\\u(%x%x%x%x)", at)
  if not hex then problem(s, at, "four hexadecimal digits are needed after \\u") end
  local code = tonumber(hex, 16)
  if code >= 0xD800 and code < 0xDC00 then
    local low = tonumber(s.text:match("^\\u(%x%x%x%x)", at + 6) or "0", 16)
    if low < 0xDC00 or low > 0xDFFF then problem(s, at, "half of a surrogate pair") end
    return utf8.char(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00), at + 12
  elseif code >= 0xDC00 and code < 0xE000 then
    problem(s, at, "half of a surrogate pair")
  end
  return utf8.char(code), at + 6
end

-- The string whose opening quote is at `at`, and the place after it.
local function read_string(s, at)
  local text, parts, from = s.text, nil, at + 1
  while true do
    local stop = text:find('["\\%c]', from)
    if not stop then problem(s, at, "the string has no end") end
    local c, piece = text:sub(stop, stop), text:sub(from, stop - 1)
    if c == '"' then
      if parts then piece = table.concat(parts) .. piece end
      return piece, stop + 1
    elseif c ~= "\\" then
      if c ~= "\127" then problem(s, stop, "a control character in a string must be escaped") end
      piece, from = piece .. c, stop + 1
    else
      local e = text:sub(stop + 1, stop + 1)
      if e == "u" then
        c, from = unicode_escape(s, stop)
      else
        c, from = escapes[e], stop + 2
        if not c then problem(s, stop, "there is no such escape") end
      end
      piece = piece .. c
    end
    parts = parts or {}
    parts[#parts + 1] = piece
  end
end

local read_value

-- What is between brackets: `one(at)` reads an entry and gives the place after it.
local function read_entries(s, at, close, one)
  at = skip_blanks(s, at + 1)
  if s.text:sub(at, at) == close then return at + 1 end
  while true do
    at = skip_blanks(s, one(at))
    local c = s.text:sub(at, at)
    if c == close then return at + 1 end
    if c ~= "," then problem(s, at, ("a comma or %s is needed here"):format(close)) end
    at = skip_blanks(s, at + 1)
  end
end

local function read_object(s, at, depth)
  local out = {}
  return out, read_entries(s, at, "}", function(from)
    if s.text:sub(from, from) ~= '"' then problem(s, from, "a key in quotes is needed here") end
    local key, after = read_string(s, from)
    after = skip_blanks(s, after)
    if s.text:sub(after, after) ~= ":" then problem(s, after, "a colon is needed here") end
    if out[key] ~= nil then problem(s, from, "this key is there twice") end
    out[key], after = read_value(s, skip_blanks(s, after + 1), depth + 1)
    return after
  end)
end

local function read_list(s, at, depth)
  local out, n = {}, 0
  return out, read_entries(s, at, "]", function(from)
    local after
    n = n + 1
    out[n], after = read_value(s, from, depth + 1)
    return after
  end)
end

local words = { { "true", true }, { "false", false }, { "null", nil } }

local function read_number(s, at)
  local whole, rest = s.text:match("^(%-?%d+)(%.?%d*[eE]?[+-]?%d*)", at)
  local digits = whole and whole:gsub("^%-", "")
  if not whole or #digits > 1 and digits:sub(1, 1) == "0" then problem(s, at, "a value is needed here") end
  if rest ~= "" and not (rest:match "^%.%d+$" or rest:match "^%.%d+[eE][+-]?%d+$" or rest:match "^[eE][+-]?%d+$") then
    problem(s, at, "this is not a number")
  end
  local value = tonumber(whole .. rest)
  return value, at + #whole + #rest
end

function read_value(s, at, depth)
  if depth > MOST_DEEP then problem(s, at, ("more than %d brackets deep"):format(MOST_DEEP)) end
  local c = s.text:sub(at, at)
  if c == '"' then return read_string(s, at) end
  if c == "{" then return read_object(s, at, depth) end
  if c == "[" then return read_list(s, at, depth) end
  for _, word in ipairs(words) do
    if s.text:find("^" .. word[1] .. "%f[%W]", at) then return word[2], at + #word[1] end
  end
  return read_number(s, at)
end

--- decode(text [, name]): the value; `name` is how errors call the text.
function json.decode(text, name)
  local s = { text = text, name = name or "JSON" }
  local _, bad = utf8.len(text)
  if bad then problem(s, bad, "this is not UTF-8") end
  local value, at = read_value(s, skip_blanks(s, 1), 1)
  at = skip_blanks(s, at)
  if at <= #text then problem(s, at, "nothing may follow the value") end
  return value
end

function json.read(path)
  local file, why = io.open(path, "rb")
  if not file then fail("JSON: %s", why) end
  local text, problem_reading = file:read "a"
  file:close()
  if not text then fail("JSON: %s: %s", path, problem_reading) end
  return json.decode(text, path)
end

--- A string (valid UTF-8) as JSON.
function json.quote(text)
  return '"' .. text:gsub('[%c"\\]', function(c)
    if c == "\n" then return "\\n" end
    return (c == '"' or c == "\\") and "\\" .. c or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

return json
