-- kiln.text.models.llama: the decoder of Llama models, with the names of Hugging Face's LlamaForCausalLM, so that a
-- safetensors file of theirs loads as it is: RMS norms, rotary positions, query heads that share keys and values, SwiGLU.
-- Token ids count from 1. Files of llama2.c are read by llama2c.lua.
local kiln = require "kiln"
local nn = require "kiln.nn"
local fail = kiln.fail

-- What Hugging Face calls them, and their defaults; those without one must be given.
local defaults = {
  vocab_size = false, hidden_size = false, intermediate_size = false, num_hidden_layers = false,
  num_attention_heads = false, num_key_value_heads = "num_attention_heads", head_dim = true,
  max_position_embeddings = 2048, rms_norm_eps = 1e-6, rope_theta = 10000.0, rope_interleaved = true,
  tie_word_embeddings = true,
}

local function settle(given)
  if type(given) ~= "table" then fail("Llama: a table of sizes is needed, got %s", type(given)) end
  local c = {}
  for name in pairs(given) do
    if defaults[name] == nil then fail("Llama: there is no option %s", tostring(name)) end
  end
  for _, name in ipairs { "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings" } do
    local n = given[name]
    if n == nil and name == "head_dim" then n = c.hidden_size // c.num_attention_heads end
    if n == nil then n = defaults[name] end
    if type(n) == "string" then n = c[n] end
    if math.type(n) ~= "integer" or n < 1 then fail("Llama: %s must be a positive integer, got %s", name, tostring(n)) end
    c[name] = n
  end
  c.rms_norm_eps = given.rms_norm_eps or defaults.rms_norm_eps
  c.rope_theta = given.rope_theta or defaults.rope_theta
  c.rope_interleaved, c.tie_word_embeddings = given.rope_interleaved == true, given.tie_word_embeddings == true
  if c.num_attention_heads % c.num_key_value_heads ~= 0 then
    fail("Llama: %d query heads cannot share %d heads of keys and values evenly", c.num_attention_heads, c.num_key_value_heads)
  end
  if c.head_dim % 2 ~= 0 then fail("Llama: rotary positions need an even head_dim, got %d", c.head_dim) end
  return c
end

-- ---- rotary positions --------------------------------------------------------------------------------------------

-- Two elements of a head turn together: neighbours as llama2.c has them, or one of the first and one of the second half as
-- Hugging Face has them. Both are the last dim seen as pairs; `pair` is which of the two dims holds the two.
-- Turned is x times cos plus the pairs exchanged times (-sin, sin).
local function rotary_tables(c, scale)
  local half = c.head_dim // 2
  local places = kiln.arange(c.max_position_embeddings, { dtype = "float64" }):reshape(-1, 1)
  local exponents = kiln.arange(half, { dtype = "float64" }) * (2.0 / c.head_dim)
  local angles = places / kiln.pow(c.rope_theta, exponents)
  local dim = c.rope_interleaved and 3 or 2
  local cos, sin = angles:cos() * scale, angles:sin() * scale
  return kiln.stack({ cos, cos }, dim):float(), kiln.stack({ -sin, sin }, dim):float()
end

-- The part of a table for the places start + 1 … start + t.
local function places(table, start, t)
  if t == 1 then return table[start + 1] end
  return table[{ { start + 1, start + t } }]
end

-- x is [N, heads, T, head_dim]; cos and sin hold T places.
local function rotate(self, x, cos, sin)
  local pairs_of = x:reshape(x:size(1), x:size(2), x:size(3), self.split[1], self.split[2])
  return (pairs_of * cos + pairs_of:flip(self.pair) * sin):reshape(x.shape)
end

-- ---- parts -------------------------------------------------------------------------------------------------------

local RMSNorm = nn.Module:extend "LlamaRMSNorm"
function RMSNorm:init(size, eps)
  self.weight = nn.Parameter(kiln.ones(size))
  self.eps, self.shape = eps, { size }
end
function RMSNorm:forward(x) return kiln.rms_norm(x, self.shape, self.weight, self.eps) end
function RMSNorm:extra() return ("%d, eps %g"):format(self.shape[1], self.eps) end

local function projection(from, to) return nn.Linear(from, to, { bias = false }) end

local Attention = nn.Module:extend "LlamaAttention"
function Attention:init(c)
  self.heads, self.shared, self.width = c.num_attention_heads, c.num_key_value_heads, c.head_dim
  self.pair = c.rope_interleaved and 5 or 4
  self.split = c.rope_interleaved and { c.head_dim // 2, 2 } or { 2, c.head_dim // 2 }
  self.q_proj = projection(c.hidden_size, c.num_attention_heads * c.head_dim)
  self.k_proj = projection(c.hidden_size, c.num_key_value_heads * c.head_dim)
  self.v_proj = projection(c.hidden_size, c.num_key_value_heads * c.head_dim)
  self.o_proj = projection(c.num_attention_heads * c.head_dim, c.hidden_size)
end

-- [N, T, heads * width] as [N, heads, T, width]
local function by_heads(x, n, t, heads, width)
  if t == 1 then return x:reshape(n, heads, 1, width) end
  return x:reshape(n, t, heads, width):transpose(2, 3)
end

--- x [N, T, H] at the places start + 1 … start + T, with keys and values of the places before them in the cache, if any.
function Attention:forward(x, turn, mask, layer, start)
  local n, t, heads, shared, width = x:size(1), x:size(2), self.heads, self.shared, self.width
  local q = rotate(self, by_heads(self.q_proj(x), n, t, heads, width), turn.q_cos, turn.q_sin)
  local k = rotate(self, by_heads(self.k_proj(x), n, t, shared, width), turn.cos, turn.sin)
  local v = by_heads(self.v_proj(x), n, t, shared, width)
  if layer then
    if t == 1 then
      layer.k[{ {}, {}, start + 1 }] = k:reshape(n, shared, width)
      layer.v[{ {}, {}, start + 1 }] = v:reshape(n, shared, width)
    else
      layer.k[{ {}, {}, { start + 1, start + t } }] = k
      layer.v[{ {}, {}, { start + 1, start + t } }] = v
    end
    k, v = layer.k[{ {}, {}, { 1, start + t } }], layer.v[{ {}, {}, { 1, start + t } }]
  end
  -- Query heads that share keys and values are rows of one product.
  local scores = q:reshape(n, shared, heads // shared * t, width):matmul(k:transpose(3, 4))
  if mask then
    local seen = scores:size(4)
    scores = scores:reshape(n, heads, t, seen):add(mask):reshape(n, shared, heads // shared * t, seen)
  end
  local out = scores:softmax(-1):matmul(v)
  if t > 1 then out = out:reshape(n, heads, t, width):transpose(2, 3) end
  return self.o_proj(out:reshape(n, t, heads * width))
end

local MLP = nn.Module:extend "LlamaMLP"
function MLP:init(c)
  self.gate_proj = projection(c.hidden_size, c.intermediate_size)
  self.up_proj = projection(c.hidden_size, c.intermediate_size)
  self.down_proj = projection(c.intermediate_size, c.hidden_size)
end
function MLP:forward(x) return self.down_proj(kiln.silu(self.gate_proj(x)) * self.up_proj(x)) end

local Layer = nn.Module:extend "LlamaDecoderLayer"
function Layer:init(c)
  self.self_attn, self.mlp = Attention(c), MLP(c)
  self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
  self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
end
function Layer:forward(x, turn, mask, layer, start)
  x = x + self.self_attn(self.input_layernorm(x), turn, mask, layer, start)
  return x + self.mlp(self.post_attention_layernorm(x))
end

local Model = nn.Module:extend "LlamaModel"
function Model:init(c)
  self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
  local layers = {}
  for i = 1, c.num_hidden_layers do layers[i] = Layer(c) end
  self.layers = nn.ModuleList(layers)
  self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
  local function keep(prefix, cos, sin)
    self:register_buffer(prefix .. "cos", cos, { persistent = false })
    self:register_buffer(prefix .. "sin", sin, { persistent = false })
  end
  keep("", rotary_tables(c, 1.0))
  keep("q_", rotary_tables(c, 1.0 / math.sqrt(c.head_dim))) -- scores are scaled by way of the queries
  self.longest = c.max_position_embeddings
end

-- 0 where a place may look, -inf at places that come later: [T, start + T]
local function later_places(t, start, on)
  local from, to = kiln.arange(start + 1, start + t + 1, on):reshape(-1, 1), kiln.arange(1, start + t + 1, on)
  return kiln.where(to:le(from), 0.0, -math.huge)
end

function Model:forward(tokens, cache)
  local t, start = tokens:size(2), 0
  if cache then start = cache.length end
  if start + t > self.longest then
    error("Llama: the text is longer than max_position_embeddings")
  end
  local x = self.embed_tokens(tokens)
  local turn, mask = {}, nil
  for _, name in ipairs { "cos", "sin", "q_cos", "q_sin" } do turn[name] = places(self[name], start, t) end
  if t > 1 then mask = later_places(t, start, { device = tokens.device }) end
  for i = 1, #self.layers do
    x = self.layers[i](x, turn, mask, cache and cache[i], start)
  end
  if cache then cache.length = start + t end
  return self.norm(x)
end

-- ---- the model ---------------------------------------------------------------------------------------------------

--- Llama{ vocab_size =, hidden_size =, intermediate_size =, num_hidden_layers =, num_attention_heads =,
--- num_key_value_heads =, max_position_embeddings =, rms_norm_eps =, rope_theta =, tie_word_embeddings =, … }: the names of
--- Hugging Face's config.json. rope_interleaved = true is llama2.c's order of the elements of a head.
local Llama = nn.Module:extend "LlamaForCausalLM"

function Llama:init(config)
  local c = settle(config)
  self.config = c
  self.model = Model(c)
  if not c.tie_word_embeddings then self.lm_head = projection(c.hidden_size, c.vocab_size) end
end

--- model(tokens [N, T] [, cache]): logits [N, T, vocab_size]. With a cache the tokens follow those that it has seen.
function Llama:forward(tokens, cache)
  local x = self.model(tokens, cache)
  if self.lm_head then return self.lm_head(x) end
  return kiln.linear(x, self.model.embed_tokens.weight)
end

--- Keys and values of texts to come: a list with a table { k =, v = } a layer, each [N, heads, places, head_dim], and how
--- many places are filled, `length`.
function Llama:cache(batch, places)
  local c, like = self.config, self.model.embed_tokens.weight
  local sizes = { batch or 1, c.num_key_value_heads, places or c.max_position_embeddings, c.head_dim }
  local kind = { dtype = like.dtype, device = like.device }
  local cache = { length = 0 }
  for i = 1, c.num_hidden_layers do cache[i] = { k = kiln.zeros(sizes, kind), v = kiln.zeros(sizes, kind) } end
  return cache
end

-- The most likely token behind the given ones: [1, 1].
local function likely(self, tokens, cache)
  return self:forward(tokens, cache)[{ {}, -1 }]:argmax(-1, true)
end

--- model:generate(tokens [1, T], count [, stop]): the most likely next token, again and again: int64 [n], at most `count` of
--- them, and without `stop` and what would follow. Captures: the whole decoding is then one graph.
function Llama:generate(tokens, count, stop)
  local cache, out, n = self:cache(1), kiln.zeros(count, { dtype = "int64", device = tokens.device }), 0
  local token = likely(self, tokens, cache)
  while n < count do
    local id = token:item()
    if id == stop then break end
    n = n + 1
    out[n] = id
    if n < count then token = likely(self, token, cache) end
  end
  return out:narrow(1, 1, n)
end

return { Llama = Llama }
