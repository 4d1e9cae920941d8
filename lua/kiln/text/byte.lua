-- Bytes as tokens: byte b is id b + 1, so any text has ids and comes back as it was.
local Tokenizer = require "kiln.text.tokenizer".Tokenizer

--- ByteTokenizer([{ special_tokens = { "<eos>", … } }]): special tokens follow the 256 bytes.
local Byte = Tokenizer:extend "ByteTokenizer"

function Byte:init(options)
  for b = 0, 255 do self:define(string.char(b)) end
  self:add_special(options and options.special_tokens)
end

function Byte:add_ids(text, ids)
  local n, from = #ids, 1
  while from <= #text do -- string.byte gives thousands of values at once
    local last = math.min(from + 4095, #text)
    local bytes = { text:byte(from, last) }
    for i = 1, #bytes do ids[n + i] = bytes[i] + 1 end
    n, from = n + #bytes, last + 1
  end
end

return { ByteTokenizer = Byte }
