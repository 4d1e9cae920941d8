-- Text files line by line, as a list and as a dataset. Tokenizers are in kiln.text.
local kiln = require "kiln"
local Dataset = require("kiln.data.dataset").Dataset
local read_bytes = require("kiln.data.file").read_bytes
local read_options = require "kiln.data.options"
local fail = kiln.fail

local known = { skip_empty = { "boolean", false }, trim = { "boolean", false } }

--- read_lines(path [, { skip_empty = false, trim = false }]): the lines without their ends (\n or \r\n) as a list. trim
--- takes blanks off both ends.
local function read_lines(path, options)
  options = read_options("read_lines", options, known)
  local text = read_bytes(path, "read_lines")
  if text:sub(1, 3) == "\xef\xbb\xbf" then text = text:sub(4) end
  local lines = {}
  for line, newline in text:gmatch "([^\n]*)(\n?)" do
    if line ~= "" or newline ~= "" then
      if newline ~= "" and line:byte(-1) == 13 then line = line:sub(1, -2) end
      if options.trim then line = line:match "^%s*(.-)%s*$" end
      if line ~= "" or not options.skip_empty then lines[#lines + 1] = line end
    end
  end
  return lines
end

--- TextLines(path [, the same options] [, transform]): a dataset of the lines of a file; transform(line) is what `get` gives.
local TextLines = Dataset:extend "TextLines"
function TextLines:init(path, options, transform)
  if type(options) == "function" then options, transform = nil, options end
  if transform ~= nil and type(transform) ~= "function" then fail("TextLines: transform must be a function, got %s", type(transform)) end
  self.lines, self.transform = read_lines(path, options), transform
end
function TextLines:len() return #self.lines end
function TextLines:get(i)
  local line = self.lines[i]
  if not line then fail("TextLines: there is no line %s of %d", tostring(i), #self.lines) end
  if self.transform then return self.transform(line) end
  return line
end

return { read_lines = read_lines, TextLines = TextLines }
