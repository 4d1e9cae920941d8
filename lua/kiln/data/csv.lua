-- kiln.data.read_csv: tables from files of comma-separated values, quoted as RFC 4180 says. A Table holds columns, each of
-- one type, which is found by looking or given. It is no data frame: no joins, no groups.
local kiln = require "kiln"
local read_bytes = require("kiln.data.file").read_bytes
local read_options = require "kiln.data.options"
local fail = kiln.fail

local nan = 0 / 0

-- ---- fields ----------------------------------------------------------------------------------------------------

-- The text as records, each a list of fields with `line` and `columns`, where each field starts. `quoted[i]` says that
-- field i was in quotes, so that "" is a text and no missing value.
local function parse(text, where, delimiter)
  local at, line, line_start = 1, 1, 1
  local plain = ("^[^\"\r\n%s]*"):format(delimiter == "^" and "%^" or "%" .. delimiter)
  local function refuse(place, why) fail("%s: line %d, column %d: %s", where, line, place - line_start + 1, why) end

  -- The field in quotes that starts at `at`, and where what is behind it starts.
  local function quoted_field()
    local parts, from, first_line, first_column = {}, at + 1, line, at - line_start + 1
    while true do
      local quote = text:find('"', from, true)
      if not quote then fail("%s: line %d, column %d: this quote is never closed", where, first_line, first_column) end
      local piece = text:sub(from, quote - 1)
      for newline in piece:gmatch "()\n" do line, line_start = line + 1, from + newline end
      parts[#parts + 1] = piece
      if text:byte(quote + 1) ~= 34 then return table.concat(parts), quote + 1 end
      parts[#parts + 1] = '"'
      from = quote + 2
    end
  end

  if text:sub(1, 3) == "\xef\xbb\xbf" then at, line_start = 4, 4 end
  local records = {}
  while at <= #text do
    local record = { line = line, columns = {}, quoted = {} }
    repeat
      local start, value, behind = at, nil, nil
      local k = #record + 1
      record.columns[k] = start - line_start + 1
      if text:byte(at) == 34 then
        record.quoted[k] = true
        value, behind = quoted_field()
        at = behind
        local next_byte = text:sub(at, at)
        if next_byte ~= "" and next_byte ~= delimiter and next_byte ~= "\r" and next_byte ~= "\n" then
          refuse(at, ("behind a closing quote there must be '%s' or the end of the line"):format(delimiter))
        end
      else
        local _, last = text:find(plain, at)
        value, at = text:sub(at, last), last + 1
        if text:byte(at) == 34 then refuse(at, "a quote inside a field that does not start with one") end
      end
      record[k] = value
      local more = text:sub(at, at) == delimiter
      if more then at = at + 1 end
    until not more
    if text:byte(at) == 13 then at = at + 1 end
    if text:byte(at) == 10 then at = at + 1 end
    line, line_start = line + 1, at
    local blank = #record == 1 and record[1] == "" and not record.quoted[1]
    if not blank then records[#records + 1] = record end
  end
  return records
end

-- ---- types -----------------------------------------------------------------------------------------------------

local booleans = { ["true"] = true, ["True"] = true, ["TRUE"] = true, ["false"] = false, ["False"] = false, ["FALSE"] = false }

-- Numbers as data files write them: decimal, no hexadecimal. Gives nil for anything else.
local function number(text)
  if text:find "^%s*[+-]?%d+%s*$" then
    local n = tonumber((text:gsub("^%s*%+", "")))
    return n
  end
  if text:find "^%s*[+-]?%d*%.?%d*[eE]?[+-]?%d*%s*$" then return tonumber((text:gsub("^%s*%+", ""))) end
  local word = text:lower():match "^%s*([+-]?%a+)%s*$"
  if word == "inf" or word == "+inf" or word == "infinity" then return math.huge end
  if word == "-inf" or word == "-infinity" then return -math.huge end
  return nil
end

-- How each type reads a field, and what stands for a missing value. (A missing integer makes the column one of numbers.)
local kinds = {
  integer = { read = function(text)
    local n = number(text)
    return math.type(n) == "integer" and n or nil
  end },
  number = { read = function(text)
    local n = number(text)
    return n and n + 0.0
  end, missing = nan },
  boolean = { read = function(text) return booleans[text] end },
  string = { read = function(text) return text end, missing = false },
}
local order = { "integer", "number", "boolean", "string" }

-- The first type that reads every field of column c and has a value for those that are missing.
local function infer(records, c, missing)
  local any = false
  for _, kind in ipairs(order) do
    local good = true
    for _, record in ipairs(records) do
      if missing(record, c) then
        good = kinds[kind].missing ~= nil
      else
        any = true
        good = kinds[kind].read(record[c]) ~= nil
      end
      if not good then break end
    end
    if good then return any and kind or "string" end
  end
end

local function column_of(records, c, kind, missing, where, name)
  local out = {}
  for r, record in ipairs(records) do
    local value
    if missing(record, c) then
      value = kinds[kind].missing
      if value == nil then
        fail("%s: line %d, column %d: %s is missing, and %s columns have no value for that", where, record.line,
          record.columns[c], name, kind)
      end
    else
      value = kinds[kind].read(record[c])
      if value == nil then
        fail("%s: line %d, column %d: %s should be of type %s, got '%s'", where, record.line, record.columns[c], name, kind, record[c])
      end
    end
    out[r] = value
  end
  return out
end

-- ---- tables ----------------------------------------------------------------------------------------------------

local Table = {}
Table.__index = Table

--- The values of a column as a list: integers, numbers (nan where missing), booleans or strings (false where missing).
function Table:column(name)
  local column = self.columns[name]
  if not column then fail("column: there is no '%s'; there are %s", tostring(name), table.concat(self.names, ", ")) end
  return column
end

--- A tensor [rows, columns] of the columns named, or of all that hold numbers, in their order. float32 unless
--- { dtype = } says otherwise.
function Table:tensor(names, options)
  local dtype = read_options("tensor", options, { dtype = { "string", "float32" } }).dtype
  if names == nil then
    names = {}
    for _, name in ipairs(self.names) do
      if self.types[name] == "integer" or self.types[name] == "number" then names[#names + 1] = name end
    end
  end
  if type(names) ~= "table" then fail("tensor: a list of columns is needed, got %s", type(names)) end
  if #names == 0 then fail("tensor: there is no column of numbers") end
  local parts = {}
  for k, name in ipairs(names) do
    local column = self:column(name)
    if self.types[name] == "string" then fail("tensor: %s holds strings; classes('%s') numbers them", name, name) end
    if self.rows == 0 then parts[k] = kiln.zeros(0, { dtype = dtype }) else parts[k] = kiln.tensor(column):to(dtype) end
  end
  return kiln.stack(parts, 2)
end

--- The classes in a column: an int64 tensor of their numbers, from 1 on, and the list of their names in order.
function Table:classes(name)
  local column, names, number_of = self:column(name), {}, {}
  for r, value in ipairs(column) do
    if value == false and self.types[name] == "string" or value ~= value then
      fail("classes: %s is missing in row %d; without_missing() leaves such rows out", name, r)
    end
    if number_of[value] == nil then
      number_of[value] = true
      names[#names + 1] = value
    end
  end
  table.sort(names, function(a, b)
    if type(a) == "boolean" then return not a and b end
    return a < b
  end)
  for k, value in ipairs(names) do number_of[value] = k end
  local codes = {}
  for r, value in ipairs(column) do codes[r] = number_of[value] end
  return kiln.tensor(codes, { dtype = "int64" }), names
end

--- A Table of the rows where none of the columns named (all, if none are) is missing.
function Table:without_missing(names)
  local out = setmetatable({ names = self.names, types = self.types, columns = {}, rows = 0 }, Table)
  for _, name in ipairs(self.names) do out.columns[name] = {} end
  for r = 1, self.rows do
    local whole = true
    for _, name in ipairs(names or self.names) do
      local value = self:column(name)[r]
      whole = whole and value == value and not (value == false and self.types[name] == "string")
    end
    if whole then
      out.rows = out.rows + 1
      for _, name in ipairs(self.names) do out.columns[name][out.rows] = self.columns[name][r] end
    end
  end
  return out
end

Table.__len = function(self) return self.rows end

Table.__tostring = function(self)
  local parts = {}
  for k, name in ipairs(self.names) do parts[k] = name .. " (" .. self.types[name] .. ")" end
  return ("%d rows: %s"):format(self.rows, table.concat(parts, ", "))
end

-- ---- reading ---------------------------------------------------------------------------------------------------

local known = {
  header = { "boolean or table", true },
  delimiter = { "string", "," },
  types = { "table", {} },
  missing = { "table", { "", "NA", "N/A", "NaN", "nan", "null", "NULL" } },
}

local function names_of(records, header, where)
  local first = records[1]
  local names, seen = {}, {}
  for c = 1, #first do
    local name = type(header) == "table" and header[c] or header == true and first[c] or "column" .. c
    if type(name) ~= "string" then fail("%s: the name of column %d must be a string, got %s", where, c, type(name)) end
    if seen[name] then fail("%s: two columns are called '%s': %d and %d", where, name, seen[name], c) end
    names[c], seen[name] = name, c
  end
  if type(header) == "table" and #header ~= #first then
    fail("%s: %d names are given for %d columns", where, #header, #first)
  end
  return names, seen
end

local function to_table(text, where, given)
  local options = read_options(where, given, known)
  if not options.delimiter:find "^[^%w\"\r\n]$" then fail("%s: the delimiter must be one character such as ',' or ';'", where) end
  local records = parse(text, where, options.delimiter)
  if #records == 0 then fail("%s: there is nothing in it", where) end
  local names, known_names = names_of(records, options.header, where)
  for _, record in ipairs(records) do
    if #record ~= #names then
      fail("%s: line %d has %d field%s, the first line has %d", where, record.line, #record, #record == 1 and "" or "s", #names)
    end
  end
  if options.header == true then table.remove(records, 1) end

  local is_missing = {}
  for _, word in ipairs(options.missing) do is_missing[word] = true end
  local function missing(record, c) return is_missing[record[c]] and not record.quoted[c] end

  for name, kind in pairs(options.types) do
    if not known_names[name] then fail("%s: a type is given for '%s', but there are %s", where, tostring(name), table.concat(names, ", ")) end
    if not kinds[kind] then fail("%s: the type of %s must be one of %s, got %s", where, name, table.concat(order, ", "), tostring(kind)) end
  end
  local self = setmetatable({ names = names, types = {}, columns = {}, rows = #records }, Table)
  for c, name in ipairs(names) do
    self.types[name] = options.types[name] or infer(records, c, missing)
    self.columns[name] = column_of(records, c, self.types[name], missing, where, name)
  end
  return self
end

--- read_csv(path [, { header = true, delimiter = ",", types = {}, missing = { "", "NA", … } }]): a Table with `names`,
--- `columns` by name, `types` by name and `rows`. header is false where there is none, or a list of names.
--- types[name] is "integer", "number", "boolean" or "string"; the others are found by looking.
local function read_csv(path, options)
  return to_table(read_bytes(path, "read_csv"), ("read_csv: %s"):format(path), options)
end

--- parse_csv(text [, options]): the same of a string.
local function parse_csv(text, options)
  if type(text) ~= "string" then fail("parse_csv: a string is needed, got %s", type(text)) end
  return to_table(text, "parse_csv", options)
end

return { read_csv = read_csv, parse_csv = parse_csv }
