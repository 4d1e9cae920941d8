-- kiln.training.CSVLogger: a row of a CSV file for each epoch or step, there for others to read as soon as it is written.
local kiln = require "kiln"
local fail = kiln.fail

local Logger = {}
Logger.__index = Logger

local function quote(text)
  if text:find '[,"\r\n]' then return '"' .. text:gsub('"', '""') .. '"' end
  return text
end

-- The shortest text that is the same number again.
local function number_text(v)
  if math.type(v) == "integer" then return tostring(v) end
  for digits = 6, 17 do
    local text = ("%." .. digits .. "g"):format(v)
    if tonumber(text) == v or v ~= v then return text end
  end
end

local function cell(value, column)
  if kiln.is_tensor(value) then value = value:item() end
  local kind = type(value)
  if kind == "nil" then return "" end
  if kind == "number" then return number_text(value) or tostring(value) end
  if kind == "string" then return quote(value) end
  if kind == "boolean" then return tostring(value) end
  fail("CSVLogger: column '%s' must be a number, string or boolean, got %s", column, kind)
end

-- The lines of a CSV text, ends of lines inside quotes not counted: where each complete one ends.
local function line_ends(text)
  local ends, quoted = {}, false
  for at, c in text:gmatch '()(["\n])' do
    if c == '"' then
      quoted = not quoted
    elseif not quoted then
      ends[#ends + 1] = at
    end
  end
  return ends
end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read "a"
  file:close()
  return text or ""
end

local function check_file(problem, path)
  if problem then fail("CSVLogger: %s: %s", path, tostring(problem):gsub("^.-: ", "")) end
end

local function put(self, text)
  local ok, why = self.file:write(text)
  if ok then ok, why = self.file:flush() end
  check_file(not ok and why or nil, self.path)
end

-- Leaves the first `rows` rows of the file and opens it behind them.
local function open_after(self, text, ends, rows)
  local keep = text:sub(1, ends[rows + 1] or 0)
  if self.file then self.file:close() end
  if keep ~= text then
    local other, why = io.open(self.path .. ".tmp", "wb")
    check_file(not other and why or nil, self.path)
    other:write(keep)
    other:close()
    local ok, problem = os.rename(self.path .. ".tmp", self.path)
    check_file(not ok and problem or nil, self.path)
  end
  local file, why = io.open(self.path, "ab")
  check_file(not file and why or nil, self.path)
  self.file, self.rows = file, rows
end

--- CSVLogger(path, columns [, { append = true }]): columns is a list of names. A file that is there is gone on with, when its
--- header is the same; a last row that was not finished is dropped. { append = false } starts it anew.
local function make(path, columns, options)
  if type(path) ~= "string" then fail("CSVLogger: a path is needed, got %s", type(path)) end
  if type(columns) ~= "table" or #columns == 0 then fail("CSVLogger: a list of the columns' names is needed, got %s", type(columns)) end
  for key in pairs(options or {}) do
    if key ~= "append" then fail("CSVLogger: there is no option '%s'; there is append", tostring(key)) end
  end
  local self = setmetatable({ path = path, columns = {}, known = {}, rows = 0 }, Logger)
  local names = {}
  for i, name in ipairs(columns) do
    if type(name) ~= "string" then fail("CSVLogger: column %d must be a string, got %s", i, type(name)) end
    if self.known[name] then fail("CSVLogger: the column '%s' is there twice", name) end
    self.columns[i], self.known[name], names[i] = name, true, quote(name)
  end
  local header = table.concat(names, ",") .. "\n"
  local text = (not options or options.append ~= false) and read(path) or ""
  local ends = line_ends(text)
  if #ends > 0 then
    if text:sub(1, ends[1]):gsub("\r\n$", "\n") ~= header then
      fail("CSVLogger: %s has other columns: %s", path, text:sub(1, ends[1] - 1))
    end
    open_after(self, text, ends, #ends - 1)
  else
    local file, why = io.open(path, "wb")
    check_file(not file and why or nil, path)
    self.file = file
    put(self, header)
  end
  return self
end

--- log{ epoch = 3, loss = 0.25 }: one row, written through at once. A column that is not given stays empty.
function Logger:log(row)
  if type(row) ~= "table" then fail("CSVLogger: a table by column is needed, got %s", type(row)) end
  if not self.file then fail("CSVLogger: %s is closed", self.path) end
  for key in pairs(row) do
    if not self.known[key] then
      fail("CSVLogger: there is no column '%s'; there are %s", tostring(key), table.concat(self.columns, ", "))
    end
  end
  local cells = {}
  for i, name in ipairs(self.columns) do cells[i] = cell(row[name], name) end
  put(self, table.concat(cells, ",") .. "\n")
  self.rows = self.rows + 1
  return self
end

function Logger:close()
  if self.file then self.file:close() end
  self.file = nil
end

--- How many rows there are, so that a run taken up from a checkpoint drops those written after it.
function Logger:state_dict() return { rows = self.rows } end

function Logger:load_state_dict(dict)
  if type(dict) ~= "table" or math.type(dict.rows) ~= "integer" or dict.rows < 0 then
    fail("load_state_dict: what state_dict() of a CSVLogger gave is needed")
  end
  if not self.file then fail("CSVLogger: %s is closed", self.path) end
  local text = read(self.path)
  local ends = line_ends(text)
  if #ends < dict.rows + 1 then
    fail("load_state_dict: %s has %d rows, fewer than the %d it had", self.path, #ends - 1, dict.rows)
  end
  open_after(self, text, ends, dict.rows)
end

return make
