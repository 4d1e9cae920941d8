-- Characters (code points of UTF-8) as tokens, those that a given text has, in the order of their code points.
local kiln = require "kiln"
local json = require "kiln.text.json"
local Tokenizer = require "kiln.text.tokenizer".Tokenizer
local fail = kiln.fail

--- CharTokenizer(text | list of characters [, { special_tokens =, unknown = "?" }]): `unknown` is the character that
--- stands for those that are not in the vocabulary; without it they are an error.
local Char = Tokenizer:extend "CharTokenizer"

local function check_utf8(what, text)
  local _, bad = utf8.len(text)
  if bad then fail("%s: byte %d of the text is not UTF-8; a ByteTokenizer takes any bytes", what, bad) end
end

local function characters_of(text)
  local seen, list = {}, {}
  for c in text:gmatch(utf8.charpattern) do
    if not seen[c] then
      seen[c] = true
      list[#list + 1] = c
    end
  end
  table.sort(list, function(a, b) return utf8.codepoint(a) < utf8.codepoint(b) end)
  return list
end

function Char:init(from, options)
  options = options or {}
  local list = from
  if type(from) == "string" then
    check_utf8(self.name, from)
    list = characters_of(from)
  elseif type(from) ~= "table" then
    fail("%s: a text to take the characters from, or a list of them, is needed, got %s", self.name, type(from))
  end
  for i, c in ipairs(list) do
    if type(c) ~= "string" or utf8.len(c) ~= 1 then fail("%s: entry %d is not one character", self.name, i) end
    if self.ids[c] then fail("%s: entry %d, %s, is there twice", self.name, i, json.quote(c)) end
    self:define(c)
  end
  self:add_special(options.special_tokens)
  if options.unknown then
    self.unknown = self.ids[options.unknown]
    if not self.unknown then fail("%s: unknown = %s is not in the vocabulary", self.name, json.quote(options.unknown)) end
  end
end

function Char:add_ids(text, ids)
  local n, known, unknown = #ids, self.ids, self.unknown
  check_utf8(self.name .. ".encode", text)
  for c in text:gmatch(utf8.charpattern) do
    n = n + 1
    ids[n] = known[c] or unknown or fail("%s.encode: the character %s is not in the vocabulary", self.name, json.quote(c))
  end
end

--- save(path): a JSON object with the characters, the special tokens and the unknown; CharTokenizer.load(path) reads it.
function Char:save(path)
  local characters, special = {}, {}
  for id, piece in ipairs(self.pieces) do
    local list = self.special[id] and special or characters
    list[#list + 1] = json.quote(piece)
  end
  local file, why = io.open(path, "wb")
  if not file then fail("CharTokenizer.save: %s", why) end
  local ok, problem = file:write('{"characters": [', table.concat(characters, ", "), '],\n "special_tokens": [',
    table.concat(special, ", "), "]", self.unknown and ',\n "unknown": ' .. json.quote(self.pieces[self.unknown]) or "", "}\n")
  if ok then ok, problem = file:close() end
  if not ok then fail("CharTokenizer.save: %s", problem) end
end

function Char.load(path)
  local saved = json.read(path)
  if type(saved) ~= "table" or type(saved.characters) ~= "table" then
    fail("CharTokenizer.load: %s is not a file that CharTokenizer wrote", path)
  end
  return Char(saved.characters, { special_tokens = saved.special_tokens, unknown = saved.unknown })
end

return { CharTokenizer = Char }
