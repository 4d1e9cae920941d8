-- Tokenizers: bytes, characters, GPT-2's byte pairs against what transformers said; the JSON reader they use.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local text = kiln.text
local json = require "kiln.text.json"
local golden = (os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or ".") .. "/spec/golden/"

local function data_file(name)
  local ok, path = pcall(kiln.data.find, name)
  if not ok then check.skip("needs " .. name .. " in $KILN_DATA") end
  return path
end

local every_byte = {}
for b = 0, 255 do every_byte[b + 1] = string.char(b) end
every_byte = table.concat(every_byte)

-- Bytes of all kinds, good UTF-8 and bad, the same at every run.
local function random_bytes(n, seed)
  local state, out = seed, {}
  for i = 1, n do
    state = (state * 6364136223846793005 + 1442695040888963407)
    local r = (state >> 33) % 400
    out[i] = r < 256 and string.char(r) or r < 330 and " " or utf8.char((state >> 40) % 0xD000)
  end
  return table.concat(out)
end

-- ---- bytes, characters -------------------------------------------------------------------------------------------

test("bytes are their values plus 1, and come back", function()
  local t = text.ByteTokenizer()
  equal(t:encode "A\0\255", { 66, 1, 256 })
  equal(t.vocab_size, 256)
  for _, s in ipairs { "", "x", every_byte, random_bytes(10000, 3) } do equal(t:decode(t:encode(s)), s) end
  equal(tostring(t), "ByteTokenizer(256 tokens)")
end)

test("ids as a tensor and back, one id, an empty text", function()
  local t = text.ByteTokenizer()
  local ids = t:encode("hello", { tensor = true })
  equal(ids.dtype, "int64")
  equal(ids:totable(), { 105, 102, 109, 109, 112 })
  equal(t:decode(ids), "hello")
  equal(t:decode(ids:reshape(1, 5)), "hello")
  equal(t:decode(105), "h")
  equal(t:encode("", { tensor = true }).shape, { 0 })
  equal(t:decode {}, "")
end)

test("special tokens are one id wherever they stand, the longest first", function()
  local t = text.ByteTokenizer { special_tokens = { "<s>", "<s>>", "end" } }
  equal(t.vocab_size, 259)
  equal(t:encode "a<s>b", { 98, 257, 99 })
  equal(t:encode "<s>>end<s>", { 258, 259, 257 })
  equal(t:encode("<s>", { special = false }), { 61, 116, 63 })
  equal(t:decode { 98, 257, 99 }, "a<s>b")
  equal(t:decode({ 98, 257, 99 }, { skip_special = true }), "ab")
  equal(t:token_to_id "end", 259)
  equal(t:id_to_token(258), "<s>>")
end)

test("characters of a text, sorted by code point; saved and loaded", function()
  local t = text.CharTokenizer("hello\n wörld ☃\"\\", { special_tokens = { "<pad>" }, unknown = "☃" })
  local path = os.tmpname()
  t:save(path)
  local loaded = text.CharTokenizer.load(path)
  os.remove(path)
  for _, each in ipairs { t, loaded } do
    equal(each.vocab_size, 14)
    equal(each:id_to_token(1), "\n")
    equal(each:id_to_token(13), "☃")
    equal(each:token_to_id "<pad>", 14)
    equal(each:decode(each:encode "wörld <pad>☃"), "wörld <pad>☃")
    equal(each:decode(each:encode "xyz"), "☃☃☃")
  end
  equal(text.CharTokenizer("cba"):encode "abc", { 1, 2, 3 })
  equal(text.CharTokenizer({ "c", "b" }):encode "cb", { 1, 2 })
end)

test("misuse of tokenizers is told", function()
  local b, c = text.ByteTokenizer(), text.CharTokenizer "abc"
  raises(function() b:encode(5) end, "text.lua:", "ByteTokenizer.encode: a text is needed, got number")
  raises(function() b:decode { 1, 257 } end, "id 257 at position 2 is not one of 1 … 256")
  raises(function() b:decode { 0 } end, "id 0 at position 1")
  raises(function() b:decode "x" end, "a list of ids or a tensor is needed, got string")
  raises(function() text.ByteTokenizer { special_tokens = { "" } } end, "special token 1 must be a text that is not empty")
  raises(function() c:encode "abd" end, "the character \"d\" is not in the vocabulary")
  raises(function() c:encode "ab\xff" end, "byte 3 of the text is not UTF-8")
  raises(function() text.CharTokenizer(5) end, "a text to take the characters from")
  raises(function() text.CharTokenizer { "a", "a" } end, "entry 2, \"a\", is there twice")
  raises(function() text.CharTokenizer("abc", { unknown = "?" }) end, "unknown = \"?\" is not in the vocabulary")
  raises(function() text.BPETokenizer("only one") end, "the paths of the vocabulary")
  raises(function() text.BPETokenizer("/nowhere/a.json", "/nowhere/b") end, "/nowhere/a.json")
end)

-- ---- JSON ---------------------------------------------------------------------------------------------------------

test("JSON is read", function()
  equal(json.decode ' {"a": [1, -2.5, 1e3, true, false, "x"], "": {}, "n": null} ', { a = { 1, -2.5, 1000.0, true, false, "x" }, [""] = {} })
  equal(json.decode [["\"\\\/\b\f\n\r\t\u00e9\u2603\ud83d\ude00"]], "\"\\/\b\f\n\r\té☃😀")
  equal(json.decode "[]", {})
  equal(json.decode "0", 0)
  for _, s in ipairs { "", "plain", "\0\1\31\127", "\"\\\n", "é☃😀" } do equal(json.decode(json.quote(s)), s) end
end)

test("JSON that is none is refused with its place", function()
  for _, case in ipairs {
    { "", "byte 1: a value is needed" }, { "[1,]", "byte 4" }, { "[1 2]", "a comma or ]" }, { '{"a":1,"a":2}', "this key is there twice" },
    { '{a:1}', "a key in quotes" }, { '{"a" 1}', "a colon" }, { '"abc', "the string has no end" }, { '"\\x"', "no such escape" },
    { '"\\ud800"', "half of a surrogate pair" }, { '"\\udc00"', "half of a surrogate pair" }, { '"\\u12"', "four hexadecimal" },
    { "01", "a value is needed" }, { "1.", "not a number" }, { "[1] 2", "nothing may follow" }, { '"a\nb"', "control character" },
    { "\n\n  nul", "line 3" }, { '"\xff"', "not UTF-8" }, { ("["):rep(200), "brackets deep" }, { "trueish", "a value is needed" },
  } do raises(function() json.decode(case[1], "file.json") end, "file.json: line ", case[2]) end
end)

-- ---- GPT-2's byte pairs -------------------------------------------------------------------------------------------

local gpt2
local function tokenizer()
  gpt2 = gpt2 or text.BPETokenizer(data_file "tokenizers/gpt2_encoder.json", data_file "tokenizers/gpt2_vocab.bpe")
  return gpt2
end

local function zero_based(ids)
  local out = {}
  for i, id in ipairs(ids) do out[i] = id - 1 end
  return out
end

test("words are cut as transformers cuts them", function()
  for _, case in ipairs(json.read(golden .. "tokenizer.json").words) do equal(text.BPETokenizer.split(case.text), case.words) end
end)

test("ids are those of transformers' GPT2Tokenizer, and give the text again", function()
  local t = tokenizer()
  equal(t.vocab_size, 50257)
  equal(t:token_to_id "<|endoftext|>", 50257)
  for _, case in ipairs(json.read(golden .. "tokenizer.json").texts) do
    local ids = t:encode(case.text)
    equal(zero_based(ids), case.ids)
    equal(t:decode(ids), case.text)
  end
end)

test("whole texts: as many ids, the same checksum, the text again", function()
  local t = tokenizer()
  for name, wanted in pairs(json.read(golden .. "tokenizer.json").whole) do
    local whole = check.read(data_file("text/" .. name))
    local ids, checksum = t:encode(whole), 0
    for i = 1, #ids do checksum = (checksum * 31 + ids[i] - 1 + i - 1) % (1 << 40) end
    equal({ count = #ids, checksum = checksum }, wanted)
    truth(t:decode(ids) == whole, name .. " comes back")
  end
end)

test("any bytes come back from their ids", function()
  local t = tokenizer()
  for i, s in ipairs { every_byte, every_byte:reverse(), "\xc3", "a\xe2\x82", "\xf0\x9f\x98 \xed\xa0\x80x", ("\xff "):rep(50) } do
    truth(t:decode(t:encode(s)) == s, "text " .. i)
  end
  for seed = 1, 20 do
    local s = random_bytes(500, seed)
    truth(t:decode(t:encode(s, { special = false })) == s, "random text " .. seed)
  end
end)

test("a long run without a word's end stays fast", function()
  local t = tokenizer()
  local from = kiln.clock()
  local s = ("a"):rep(200000)
  truth(t:decode(t:encode(s)) == s, "it comes back")
  truth(kiln.clock() - from < 5, "it took long")
end)

test("damaged files are told apart", function()
  local vocab, merges = os.tmpname(), os.tmpname()
  local function try(v, m, ...)
    check.write(vocab, v)
    check.write(merges, m)
    raises(function() text.BPETokenizer(vocab, merges) end, ...)
  end
  try("[1]", "", "the id of '1'")
  try('{"a":0,"b":0}', "", "id 0 is there twice")
  try('{"a":0,"b":2}', "", "there is no 1")
  try('{"a":-1}', "", "must be a whole number from 0")
  try('{"☃":0}', "", "a character that stands for no byte")
  try('{"a":0}', "", "there is no token for byte 0")
  try('{"a":0', "", "line 1, byte 7")
  local whole = check.read(data_file "tokenizers/gpt2_encoder.json")
  try(whole, "#version: 0.2\nĠ t\nzzz qqqq\n", "line 3 is not two tokens")
  try(whole, "#version: 0.2\nĠ t extra\n", "line 2 is not two tokens")
  os.remove(vocab)
  os.remove(merges)
end)
