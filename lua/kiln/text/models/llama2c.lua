-- kiln.text.models.llama2c: reads the model files of llama2.c (a head of seven integers, then float32 weights in a fixed
-- order) into a Llama of this library. Only this first version of the format; quantised files are another.
local kiln = require "kiln"
local Llama = require("kiln.text.models.llama").Llama
local fail = kiln.fail

-- The float32 numbers of a file from an offset in bytes on, one tensor after the other.
local function reader(path, bytes, offset)
  return function(...)
    local count = 1
    for _, size in ipairs { ... } do count = count * size end
    if count > (#bytes - offset) // 4 then fail("llama2c: %s is cut short: it should hold more weights", path) end
    local t = kiln.frombuffer(bytes, { shape = { ... }, offset = offset })
    offset = offset + 4 * count
    return t
  end
end

--- llama2c(path): the model in that file.
local function llama2c(path)
  if type(path) ~= "string" then fail("llama2c: a path is needed, got %s", type(path)) end
  local bytes = kiln.io.read_file(path, { raw = true })
  if #bytes < 28 then fail("llama2c: %s is too short to be a model", path) end
  local head = kiln.frombuffer(bytes, { dtype = "int32", count = 7 }):totable()
  local dim, hidden, layers, heads, shared, vocab, longest = table.unpack(head)
  local tied = vocab > 0 -- it is said by the sign
  vocab = math.abs(vocab)
  if math.min(dim, hidden, layers, heads, shared, vocab, longest) < 1 or dim % heads ~= 0 or heads % shared ~= 0 then
    fail("llama2c: %s does not begin with the sizes of a model", path)
  end
  local width = dim // heads
  local take = reader(path, bytes, 28)
  local function each_layer(...)
    local list, all = {}, take(layers, ...)
    for i = 1, layers do list[i] = all[i] end
    return list
  end
  local embedding = take(vocab, dim)
  local of_layers = {
    { "input_layernorm", each_layer(dim) },
    { "self_attn.q_proj", each_layer(dim, dim) },
    { "self_attn.k_proj", each_layer(shared * width, dim) },
    { "self_attn.v_proj", each_layer(shared * width, dim) },
    { "self_attn.o_proj", each_layer(dim, dim) },
    { "post_attention_layernorm", each_layer(dim) },
    { "mlp.gate_proj", each_layer(hidden, dim) },
    { "mlp.down_proj", each_layer(dim, hidden) },
    { "mlp.up_proj", each_layer(hidden, dim) },
  }
  local state = { ["model.embed_tokens.weight"] = embedding, ["model.norm.weight"] = take(dim) }
  take(longest, width // 2) -- sines and cosines that nobody reads any more
  take(longest, width // 2)
  if not tied then state["lm_head.weight"] = take(vocab, dim) end
  local model = Llama {
    vocab_size = vocab, hidden_size = dim, intermediate_size = hidden, num_hidden_layers = layers,
    num_attention_heads = heads, num_key_value_heads = shared, max_position_embeddings = longest, rms_norm_eps = 1e-5,
    rope_interleaved = true, tie_word_embeddings = tied,
  }
  for i = 1, layers do
    for _, part in ipairs(of_layers) do state[("model.layers.%d.%s.weight"):format(i - 1, part[1])] = part[2][i] end
  end
  model:load_state_dict(state)
  return model
end

return { llama2c = llama2c }
