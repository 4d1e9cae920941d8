-- What the tokenizers share: special tokens, ids as a list or a tensor, and bytes from ids. A tokenizer has `pieces` (the
-- bytes of each id, 1 … vocab_size) and `add_ids(text, ids)`, which appends the ids of text without special tokens.
local kiln = require "kiln"
local fail = kiln.fail

--- Tokenizer: what all tokenizers are; encode gives a list of ids from 1 on, decode a text.
local Tokenizer = { name = "Tokenizer" }
Tokenizer.__index = Tokenizer

local function construct(class, ...)
  local self = setmetatable({ pieces = {}, ids = {}, special = {}, special_first = {} }, class)
  self:init(...)
  self.vocab_size = #self.pieces
  return self
end

--- A new kind of tokenizer: its `init` fills `pieces` and `ids` with `define`, then calls `add_special`.
function Tokenizer:extend(name)
  local class = { name = name, __tostring = Tokenizer.tostring }
  class.__index = class
  return setmetatable(class, { __index = self, __call = construct })
end

function Tokenizer:tostring() return ("%s(%d tokens)"):format(self.name, self.vocab_size) end

--- The next id is these bytes.
function Tokenizer:define(piece)
  self.pieces[#self.pieces + 1] = piece
  self.ids[piece] = #self.pieces
end

--- Texts that are one token wherever they stand. Those that have no id yet get the next ones.
function Tokenizer:add_special(list)
  if list == nil then return end
  if type(list) ~= "table" then fail("%s: special_tokens must be a list of texts, got %s", self.name, type(list)) end
  for i, piece in ipairs(list) do
    if type(piece) ~= "string" or piece == "" then
      fail("%s: special token %d must be a text that is not empty, got %s", self.name, i, type(piece))
    end
    if not self.ids[piece] then self:define(piece) end
    if not self.special[self.ids[piece]] then
      self.special[self.ids[piece]] = true
      local same_first = self.special_first[piece:sub(1, 1)] or {}
      self.special_first[piece:sub(1, 1)] = same_first
      same_first[#same_first + 1] = piece
      table.sort(same_first, function(a, b) return #a > #b end) -- the longest that fits is taken
    end
  end
end

-- The next special token in the text at or after `from`: its first byte and itself.
local function next_special(self, text, from)
  local best, found
  for _, list in pairs(self.special_first) do
    for _, piece in ipairs(list) do
      local at = text:find(piece, from, true)
      if at and (not best or at < best or at == best and #piece > #found) then best, found = at, piece end
    end
  end
  return best, found
end

--- encode(text [, { special = true, tensor = false }]): the ids, as a list or as an int64 tensor. Special tokens in the
--- text are theirs unless special is false.
function Tokenizer:encode(text, options)
  if type(text) ~= "string" then fail("%s.encode: a text is needed, got %s", self.name, type(text)) end
  local ids, from = {}, 1
  if next(self.special) and not (options and options.special == false) then
    local at, piece = next_special(self, text, 1)
    while at do
      if at > from then self:add_ids(text:sub(from, at - 1), ids) end
      ids[#ids + 1] = self.ids[piece]
      from = at + #piece
      at, piece = next_special(self, text, from)
    end
  end
  if from <= #text then self:add_ids(from == 1 and text or text:sub(from), ids) end
  if not (options and options.tensor) then return ids end
  return #ids > 0 and kiln.tensor(ids, { dtype = "int64" }) or kiln.zeros(0, { dtype = "int64" })
end

--- decode(ids [, { skip_special = false }]): the bytes of a list, a tensor or one id.
function Tokenizer:decode(ids, options)
  if kiln.is_tensor(ids) then ids = ids:reshape { -1 }:totable() end
  if math.type(ids) == "integer" then ids = { ids } end
  if type(ids) ~= "table" then fail("%s.decode: a list of ids or a tensor is needed, got %s", self.name, type(ids)) end
  local out, skip = {}, options and options.skip_special
  for i = 1, #ids do
    local id = ids[i]
    local piece = self.pieces[id]
    if not piece then
      fail("%s.decode: id %s at position %d is not one of 1 … %d", self.name, tostring(id), i, self.vocab_size)
    end
    if not (skip and self.special[id]) then out[#out + 1] = piece end
  end
  return table.concat(out)
end

--- The id of these bytes, or nil; the bytes of an id, or nil.
function Tokenizer:token_to_id(piece) return self.ids[piece] end
function Tokenizer:id_to_token(id) return self.pieces[id] end

return { Tokenizer = Tokenizer }
