-- Llama models: the same logits and the same greedy tokens as transformers' (spec/golden/llama.py), with and without a
-- cache, eager and captured; the tokenizer of llama2.c's files; samples/stories.lua to the byte where its data is there.
local check = require "check"
local kiln = require "kiln"
local Llama = require("kiln.text.models.llama").Llama
local sentencepiece = require("kiln.text.sentencepiece").sentencepiece
local llama2c = require("kiln.text.models.llama2c").llama2c

local source = os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or "."

local golden = {}
do
  local file = assert(io.open(source .. "/spec/golden/llama.safetensors", "rb"))
  local length = string.unpack("<I8", file:read(8))
  local head, bytes = file:read(length), file:read "a"
  file:close()
  for name, dtype, shape, first, last in
    head:gmatch '"([^"]+)":{"dtype":"(%w+)","shape":%[([%d,]*)%],"data_offsets":%[(%d+),(%d+)%]}' do
    local size, kind, sizes = dtype == "F32" and 4 or 8, dtype == "F32" and "<f" or "<i8", {}
    for n in shape:gmatch "%d+" do sizes[#sizes + 1] = math.tointeger(tonumber(n)) end
    local values = {}
    for at = first + 1, last, size do values[#values + 1] = string.unpack(kind, bytes, math.tointeger(at)) end
    golden[name] = kiln.tensor(values, { dtype = dtype == "F32" and "float32" or "int64" }):reshape(sizes)
  end
end

local configs = {
  shared = { vocab_size = 67, hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2, num_attention_heads = 4,
             num_key_value_heads = 2, max_position_embeddings = 64 },
  tied = { vocab_size = 41, hidden_size = 24, intermediate_size = 40, num_hidden_layers = 1, num_attention_heads = 3,
           head_dim = 12, max_position_embeddings = 48, rms_norm_eps = 1e-5, tie_word_embeddings = true, rope_theta = 500.0 },
}

local function model_of(name)
  local model, state = Llama(configs[name]), {}
  for key, tensor in pairs(golden) do
    local own = key:match("^" .. name .. "%.state%.(.*)")
    if own then state[own] = tensor end
  end
  model:load_state_dict(state)
  return model:eval()
end

-- The largest difference, by the largest of what should be there.
local function relative(got, want)
  check.equal(got.shape, want.shape)
  return ((got - want):abs():max() / want:abs():max()):item()
end

for _, name in ipairs { "shared", "tied" } do
  check.test(name .. ": logits are transformers', eager and captured", function()
    local model, tokens, want = model_of(name), golden[name .. ".tokens"], golden[name .. ".logits"]
    kiln.no_grad(function()
      check.truth(relative(model(tokens), want) < 1e-5)
      local g = kiln.script(function(t) return model(t) end)
      check.truth(relative(g(tokens), want) < 1e-5)
    end)
  end)

  check.test(name .. ": piece by piece through a cache gives the same", function()
    local model, tokens, want = model_of(name), golden[name .. ".tokens"], golden[name .. ".logits"]
    kiln.no_grad(function()
      for _, cuts in ipairs { { 1, 11 }, { 4, 11 }, { 1, 2, 3, 7, 8, 11 }, { 10, 11 } } do
        local cache, from, parts = model:cache(2, 11), 1, {}
        for _, to in ipairs(cuts) do
          parts[#parts + 1] = model(tokens[{ {}, { from, to } }], cache)
          from = to + 1
        end
        check.equal(cache.length, 11)
        check.truth(relative(kiln.cat(parts, 2), want) < 1e-5)
      end
    end)
  end)

  check.test(name .. ": greedy decoding is transformers', eager and as one graph", function()
    local model, start, want = model_of(name), golden[name .. ".tokens"][{ { 1, 1 } }], golden[name .. ".greedy"]:totable()
    local g = kiln.script(function(t, n) return model:generate(t, n) end)
    kiln.no_grad(function()
      check.equal(model:generate(start, 20):totable(), want)
      check.equal(g(start, 20):totable(), want)
      local first = table.move(want, 1, 3, 1, {})
      check.equal(g(start, 3):totable(), first)
      local before = {}
      while want[#before + 1] ~= want[4] do before[#before + 1] = want[#before + 1] end
      check.equal(model:generate(start, 20, want[4]):totable(), before)
      local _, loops = tostring(g):gsub("= loop ", "")
      check.equal(loops, 1)
    end)
  end)

  check.test(name .. ": gradients reach every parameter", function()
    local model, tokens = model_of(name), golden[name .. ".tokens"]
    local logits = model(tokens)
    kiln.nn.functional.cross_entropy(logits:reshape(-1, logits:size(3)), tokens:reshape(-1)):backward()
    for key, p in model:named_parameters() do check.truth(p.grad and p.grad:abs():max():item() > 0, key) end
  end)
end

check.test("neighbours that turn together are halves with rows exchanged", function()
  local halves = model_of "shared"
  local config = {}
  for key, value in pairs(configs.shared) do config[key] = value end
  config.rope_interleaved = true
  local neighbours = Llama(config)
  neighbours:load_state_dict(halves:state_dict())
  kiln.no_grad(function()
    local tokens = golden["shared.tokens"]
    check.truth(relative(neighbours(tokens), halves(tokens)) > 1e-3)
    for i = 1, 2 do
      for _, part in ipairs { "q_proj", "k_proj" } do
        local w = neighbours.model.layers[i].self_attn[part].weight
        w:copy_(w:reshape(-1, 2, 4, 32):transpose(2, 3):reshape(w.shape):clone())
      end
    end
    check.truth(relative(neighbours(tokens), halves(tokens)) < 1e-5)
  end)
end)

check.test("misuse is refused", function()
  local c = configs.shared
  check.raises(function() Llama() end, "a table of sizes is needed, got nil")
  check.raises(function() Llama { hiden_size = 3 } end, "there is no option hiden_size")
  check.raises(function() Llama { hidden_size = 8 } end, "vocab_size must be a positive integer")
  check.raises(function()
    Llama { vocab_size = 8, hidden_size = 12, intermediate_size = 8, num_hidden_layers = 1, num_attention_heads = 3,
            num_key_value_heads = 2 }
  end, "cannot share")
  check.raises(function() Llama(c)(kiln.ones(1, 65, { dtype = "int64" })) end, "longer than max_position_embeddings")
end)

-- ---- the tokenizer -----------------------------------------------------------------------------------------------

local function tokenizer_file(pieces)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(string.pack("<i4", 8))
  local function put(piece, score) file:write(string.pack("<fi4", score, #piece), piece) end
  put("<unk>", 0) put("<s>", 0) put("</s>", 0)
  for i = 0, 255 do put(("<0x%02X>"):format(i), 0) end
  for _, piece in ipairs(pieces) do put(piece[1], piece[2]) end
  file:close()
  return path
end

check.test("sentencepiece: the best score is joined first; what has no piece is bytes", function()
  local path = tokenizer_file { { " ", -9 }, { "a", -9 }, { "b", -9 }, { "ab", -2 }, { " a", -1 }, { "é", -9 }, { "ba", -3 } }
  local t = sentencepiece(path)
  os.remove(path)
  check.equal(t.vocab_size, 266)
  check.equal(t:encode "", { 2 })
  check.equal(t:encode "ab", { 2, 264, 262 })                        -- " a", "b": better than "ab"
  check.equal(t:encode("bab", { bos = false, eos = true }), { 260, 262, 263, 3 }) -- " ", "b", "ab"
  check.equal(t:encode("é\xff", { bos = false }), { 260, 265, 4 + 255 })
  check.equal(t:encode("<s>", { bos = false }), { 260, 4 + 60, 4 + 115, 4 + 62 })
  for _, text in ipairs { "", "ab", " ab", "bab abba", "é\xff\xc3", "a\nb\0", "\x80\x80" } do
    check.equal(t:decode(t:encode(text)), text)
  end
  check.equal(t:decode(kiln.tensor { 2, 264, 3 }), "a")
  check.raises(function() t:decode { 999 } end, "id 999 is not among 1 to 266")
end)

check.test("sentencepiece: damaged files are refused", function()
  local path = tokenizer_file { { "abc", 1 } }
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "a"
  file:close()
  for _, case in ipairs { { 2, "too short" }, { #bytes - 1, "has 3 bytes, and 2 are left" }, { #bytes - 9, "cut short in piece" },
                          { 40 + 14 * 10, "fewer than" } } do
    local out = assert(io.open(path, "wb"))
    out:write(bytes:sub(1, case[1]))
    out:close()
    check.raises(function() sentencepiece(path) end, case[2])
  end
  os.remove(path)
  check.raises(function() sentencepiece(path) end, "No such file")
end)

-- ---- the sample --------------------------------------------------------------------------------------------------

local program
do
  local i = 0
  while arg[i] do i = i - 1 end
  program = arg[i + 1]
end

local function data(name)
  local place = os.getenv "KILN_DATA" or source .. "/../shared/data"
  local file = io.open(place .. "/llama2c/" .. name, "rb")
  if not file then check.skip("there is no llama2c/" .. name .. " in " .. place) end
  local bytes = file:read "a"
  file:close()
  return bytes, place
end

local function run(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return text, code
end

for _, how in ipairs { "", "--eager" } do
  check.test("stories.lua " .. how .. " tells the story to the byte", function()
    local want, place = data "expected_stdout_t0_n200.txt"
    local text, code = run(("'%s' '%s/samples/stories.lua' --data '%s' %s"):format(program, source, place, how))
    check.equal(code, 0)
    check.equal(text, want)
  end)
end

check.test("stories.lua goes on from a prompt", function()
  local _, place = data "stories260K.bin"
  local text, code = run(("'%s' '%s/samples/stories.lua' --data '%s' --steps 20 --prompt 'One day, Tom'"):format(program,
    source, place))
  check.equal(code, 0)
  check.equal(text:sub(1, 12), "One day, Tom")
  check.truth(#text > 20)
end)

check.test("llama2c: damaged files are refused", function()
  local bytes = data "stories260K.bin"
  local path = os.tmpname()
  for _, case in ipairs { { bytes:sub(1, 20), "too short" }, { bytes:sub(1, 5000), "cut short" },
                          { ("\0"):rep(100), "does not begin with the sizes" } } do
    local out = assert(io.open(path, "wb"))
    out:write(case[1])
    out:close()
    check.raises(function() llama2c(path) end, case[2])
  end
  os.remove(path)
end)
