-- kiln.text.sentencepiece: the tokenizer of Llama models, from the tokenizer.bin files that llama2.c reads: pieces with
-- scores. Neighbours are joined while some piece is what they make, the best score first; characters without a piece are
-- written as bytes. Not a reader of SentencePiece's own .model files.
local kiln = require "kiln"
local fail = kiln.fail

local Tokenizer = {}
Tokenizer.__index = Tokenizer

-- The first entries of every such file: unknown, begin, end, and then the 256 bytes.
local BEGIN, END, FIRST_BYTE = 2, 3, 4

local function read_pieces(path, bytes)
  if #bytes < 4 then fail("sentencepiece: %s is too short to be a tokenizer", path) end
  local pieces, scores, at = {}, {}, 5 -- the longest piece, which nobody needs, comes first
  while at <= #bytes do
    if #bytes - at < 7 then fail("sentencepiece: %s is cut short in piece %d", path, #pieces + 1) end
    local score, length = string.unpack("<fi4", bytes, at)
    at = at + 8
    if length < 0 or length > #bytes - at + 1 then
      fail("sentencepiece: %s says that piece %d has %d bytes, and %d are left", path, #pieces + 1, length, #bytes - at + 1)
    end
    pieces[#pieces + 1], scores[#scores + 1] = bytes:sub(at, at + length - 1), score
    at = at + length
  end
  if #pieces < FIRST_BYTE + 255 then
    fail("sentencepiece: %s has %d pieces, fewer than the %d that stand for bytes", path, #pieces, FIRST_BYTE + 255)
  end
  return pieces, scores
end

--- sentencepiece(path): the tokenizer in that file. Ids count from 1: tokenizer.bos is 2, tokenizer.eos 3.
local function load(path)
  if type(path) ~= "string" then fail("sentencepiece: a path is needed, got %s", type(path)) end
  local file, why = io.open(path, "rb")
  if not file then fail("sentencepiece: %s", why) end
  local bytes = file:read "a"
  file:close()
  local pieces, scores = read_pieces(path, bytes)
  local ids = {}
  for id = #pieces, 1, -1 do -- the first of equals; what bytes are called is no text
    if id >= FIRST_BYTE + 256 then ids[pieces[id]] = id end
  end
  return setmetatable({ pieces = pieces, scores = scores, ids = ids, vocab_size = #pieces, bos = BEGIN, eos = END }, Tokenizer)
end

-- The ids of single characters; bytes for those that have none.
local function characters(self, text)
  local list, at = {}, 1
  while at <= #text do
    local character = text:match("^[\xc0-\xff][\x80-\xbf]+", at) or text:sub(at, at)
    local id = self.ids[character]
    if id then
      list[#list + 1] = id
    else
      for i = 1, #character do list[#list + 1] = FIRST_BYTE + character:byte(i) end
    end
    at = at + #character
  end
  return list
end

--- tokenizer:encode(text [, { bos = true, eos = false }]): a list of ids. Text begins with a space that is not its own, so
--- that its first word is a word like the others.
function Tokenizer:encode(text, options)
  if type(text) ~= "string" then fail("encode: a string is needed, got %s", type(text)) end
  local list = text ~= "" and characters(self, " " .. text) or {}
  while true do
    local best, best_at = nil, nil
    for i = 1, #list - 1 do
      local id = self.ids[self.pieces[list[i]] .. self.pieces[list[i + 1]]]
      if id and (not best or self.scores[id] > self.scores[best]) then best, best_at = id, i end
    end
    if not best then break end
    list[best_at] = best
    table.remove(list, best_at + 1)
  end
  if not options or options.bos ~= false then table.insert(list, 1, self.bos) end
  if options and options.eos then list[#list + 1] = self.eos end
  return list
end

--- tokenizer:piece(id [, previous]): the text of one id, as it comes behind another; nothing for begin, end and unknown.
function Tokenizer:piece(id, previous)
  local piece = self.pieces[id]
  if not piece then fail("decode: id %s is not among 1 to %d", tostring(id), self.vocab_size) end
  if id < FIRST_BYTE then return "" end
  if id < FIRST_BYTE + 256 then return string.char(id - FIRST_BYTE) end
  if previous == self.bos and piece:sub(1, 1) == " " then return piece:sub(2) end
  return piece
end

--- tokenizer:decode(ids): the text; ids is a list or a tensor. The space that encode put in front is taken away.
function Tokenizer:decode(ids)
  if kiln.is_tensor(ids) then ids = ids:totable() end
  if type(ids) ~= "table" then fail("decode: a list of ids is needed, got %s", type(ids)) end
  local out, previous = {}, self.bos
  for i, id in ipairs(ids) do
    out[i] = self:piece(id, previous)
    previous = id
  end
  return table.concat(out)
end

return { sentencepiece = load }
