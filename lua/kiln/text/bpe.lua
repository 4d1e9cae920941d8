-- Byte-pair encoding as GPT-2 does it (Radford and others, 2019; Sennrich, Haddow, Birch, 2016): the text is cut into
-- words by GPT-2's pattern, the bytes of a word are joined by the merges, lowest rank first. It reads GPT-2's own files.
-- Bytes that are not UTF-8 count as signs (no letter, number or space); any bytes come back from their ids as they were.
local kiln = require "kiln"
local json = require "kiln.text.json"
local kind = require "kiln.text.unicode".kind
local Tokenizer = require "kiln.text.tokenizer".Tokenizer
local fail = kiln.fail

--- BPETokenizer(vocab_file, merges_file [, { special_tokens = { "<|endoftext|>" } }]): encoder.json (vocab.json) and
--- vocab.bpe (merges.txt). Our ids are those of the file plus 1.
local BPE = Tokenizer:extend "BPETokenizer"

local MOST_CACHED = 1 << 16

-- ---- words -----------------------------------------------------------------------------------------------------

local ascii = {}
for b = 0, 127 do ascii[b] = kind(b) end

-- What stands at `at`, and the place after it.
local function look(text, at)
  local b = text:byte(at)
  if b < 128 then return ascii[b], at + 1 end
  if not utf8.len(text, at, at) then return "other", at + 1 end
  return kind(utf8.codepoint(text, at)), at + (b < 0xE0 and 2 or b < 0xF0 and 3 or 4)
end

local endings = { s = 2, t = 2, r = "re", v = "ve", m = 2, l = "ll", d = 2 }

-- How many bytes of an English ending ('s 't 're 've 'm 'll 'd) stand at an apostrophe, or nil.
local function ending(text, at)
  local found = endings[text:sub(at + 1, at + 1)]
  if type(found) == "string" then return text:sub(at + 1, at + 2) == found and 3 or nil end
  return found
end

-- The place after a run of one kind that starts at `at`.
local function run(text, at, wanted)
  local n = #text
  while at <= n do
    local found, after = look(text, at)
    if found ~= wanted then break end
    at = after
  end
  return at
end

-- The place after a run of white space at `at`, without its last character when something else follows and it is not
-- all there is: that one belongs to what follows.
local function blanks(text, at)
  local n, last = #text, at
  local first = at
  while at <= n do
    local found, after = look(text, at)
    if found ~= "space" then return last > first and last or at end
    last, at = at, after
  end
  return at
end

-- GPT-2's pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
local function word_end(text, at)
  local b = text:byte(at)
  if b == 39 then
    local length = ending(text, at)
    if length then return at + length end
  end
  local found, after = look(text, b == 32 and at < #text and at + 1 or at)
  if found ~= "space" then return run(text, after, found) end
  return blanks(text, at)
end

--- split(text): GPT-2's words, as a list of strings that together are the text.
function BPE.split(text)
  local words, at, n = {}, 1, 0
  while at <= #text do
    local after = word_end(text, at)
    n = n + 1
    words[n] = text:sub(at, after - 1)
    at = after
  end
  return words
end

-- ---- the files -------------------------------------------------------------------------------------------------

-- The files write bytes as characters that can be seen: printable Latin-1 as itself, the other bytes in order from 256.
local function byte_of_character()
  local out, others = {}, 0
  for b = 0, 255 do
    if b >= 33 and b <= 126 or b >= 161 and b <= 172 or b >= 174 then
      out[utf8.char(b)] = string.char(b)
    else
      out[utf8.char(256 + others)] = string.char(b)
      others = others + 1
    end
  end
  return out
end

-- A token of the file as bytes, or nil when it has a character that stands for no byte.
local function bytes_of(token, of_character)
  if not token:find "[^!-~]" then return token end
  local parts = {}
  for c in token:gmatch(utf8.charpattern) do
    if not of_character[c] then return nil end
    parts[#parts + 1] = of_character[c]
  end
  return table.concat(parts)
end

local function read_vocabulary(self, path, of_character, special)
  local vocabulary = json.read(path)
  if type(vocabulary) ~= "table" then fail("%s: %s holds no vocabulary", self.name, path) end
  local is_special, by_id, count = {}, {}, 0
  for _, piece in ipairs(special) do is_special[piece] = true end
  for token, id in pairs(vocabulary) do
    if math.type(id) ~= "integer" or id < 0 or type(token) ~= "string" then
      fail("%s: %s: the id of '%s' must be a whole number from 0", self.name, path, tostring(token))
    end
    if by_id[id + 1] then fail("%s: %s: id %d is there twice", self.name, path, id) end
    by_id[id + 1], count = token, count + 1
  end
  for id = 1, count do
    local token = by_id[id]
    if not token then fail("%s: %s: ids must follow each other, there is no %d", self.name, path, id - 1) end
    local bytes = is_special[token] and token or bytes_of(token, of_character)
    if not bytes then fail("%s: %s: token '%s' has a character that stands for no byte", self.name, path, token) end
    self:define(bytes)
  end
end

local function read_merges(self, path, of_character)
  local file, why = io.open(path, "rb")
  if not file then fail("%s: %s", self.name, why) end
  local number, rank = 0, 0
  for line in file:lines() do
    number = number + 1
    line = line:gsub("\r$", "")
    if line ~= "" and not (number == 1 and line:find "^#version") then
      local left, right = line:match "^(%S+) (%S+)$"
      left, right = left and bytes_of(left, of_character), right and bytes_of(right, of_character)
      local l, r, joined = self.ids[left or ""], self.ids[right or ""], self.ids[(left or "") .. (right or "")]
      if not (left and right and l and r and joined) then
        file:close()
        fail("%s: %s: line %d is not two tokens of the vocabulary that make a third", self.name, path, number)
      end
      rank = rank + 1
      local key = l << 32 | r
      if not self.ranks[key] then self.ranks[key], self.joined[key] = rank, joined end
    end
  end
  file:close()
end

function BPE:init(vocab_file, merges_file, options)
  if type(vocab_file) ~= "string" or type(merges_file) ~= "string" then
    fail("%s: the paths of the vocabulary (encoder.json) and of the merges (vocab.bpe) are needed", self.name)
  end
  local special = options and options.special_tokens or { "<|endoftext|>" }
  local of_character = byte_of_character()
  self.ranks, self.joined, self.cache, self.cached = {}, {}, {}, 0
  read_vocabulary(self, vocab_file, of_character, special)
  for b = 0, 255 do
    if not self.ids[string.char(b)] then fail("%s: %s: there is no token for byte %d", self.name, vocab_file, b) end
  end
  read_merges(self, merges_file, of_character)
  self:add_special(special)
end

-- ---- merging ---------------------------------------------------------------------------------------------------

-- Joins every l, r of the list, from left to right, in place.
local function join_all(list, l, r, joined)
  local n, at, to = #list, 1, 1
  while at <= n do
    if list[at] == l and list[at + 1] == r then
      list[to], at = joined, at + 2
    else
      list[to], at = list[at], at + 1
    end
    to = to + 1
  end
  for i = n, to, -1 do list[i] = nil end
end

local function merge(self, word)
  local list, ids, ranks = {}, self.ids, self.ranks
  for i = 1, #word do list[i] = ids[word:sub(i, i)] end
  while #list > 1 do
    local best, l, r
    for i = 1, #list - 1 do
      local rank = ranks[list[i] << 32 | list[i + 1]]
      if rank and (not best or rank < best) then best, l, r = rank, list[i], list[i + 1] end
    end
    if not best then break end
    join_all(list, l, r, self.joined[l << 32 | r])
  end
  return list
end

function BPE:add_ids(text, ids)
  local n, at, cache = #ids, 1, self.cache
  while at <= #text do
    local after = word_end(text, at)
    local word = text:sub(at, after - 1)
    local found = cache[word]
    if not found then
      found = merge(self, word)
      if self.cached == MOST_CACHED then cache, self.cache, self.cached = {}, {}, 0 end
      cache[word], self.cached = found, self.cached + 1
    end
    for i = 1, #found do ids[n + i] = found[i] end
    n, at = n + #found, after
  end
end

return { BPETokenizer = BPE }
