-- BERT (Devlin and others, 2018) and MiniLM, which is a small one, with the parameter names, options and defaults of
-- transformers, so that its safetensors files load as they are. Ids count from 1.
local kiln = require "kiln"
local nn = require "kiln.nn"
local options = require "kiln.text.options"
local fail = kiln.fail
local Module = nn.Module

local defaults = {
  vocab_size = 30522, hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12, intermediate_size = 3072,
  hidden_act = "gelu", hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1, max_position_embeddings = 512,
  type_vocab_size = 2, pad_token_id = 1, layer_norm_eps = 1e-12, initializer_range = 0.02, add_pooling_layer = true,
}

local function linear(inputs, outputs, o)
  local layer = nn.Linear(inputs, outputs)
  nn.init.normal(layer.weight, 0, o.initializer_range)
  nn.init.zeros(layer.bias)
  return layer
end

local function embedding(entries, o, padding)
  local layer = nn.Embedding(entries, o.hidden_size, { padding_idx = padding })
  nn.init.normal(layer.weight, 0, o.initializer_range)
  if padding then kiln.no_grad(function() layer.weight[padding] = 0 end) end
  return layer
end

local function norm(o) return nn.LayerNorm(o.hidden_size, { eps = o.layer_norm_eps }) end

-- ---- parts -----------------------------------------------------------------------------------------------------

local Embeddings = Module:extend "BertEmbeddings"
function Embeddings:init(o)
  self.word_embeddings = embedding(o.vocab_size, o, o.pad_token_id)
  self.position_embeddings = embedding(o.max_position_embeddings, o)
  self.token_type_embeddings = embedding(o.type_vocab_size, o)
  self.LayerNorm, self.dropout = norm(o), nn.Dropout(o.hidden_dropout_prob)
end
function Embeddings:forward(ids, types)
  local x = self.word_embeddings(ids) + self.position_embeddings.weight[{ { 1, ids:size(2) } }]
  if types then x = x + self.token_type_embeddings(types) else x = x + self.token_type_embeddings.weight[1] end
  return self.dropout(self.LayerNorm(x))
end

local SelfAttention = Module:extend "BertSelfAttention"
function SelfAttention:init(o)
  local n = o.hidden_size
  self.heads, self.width, self.p = o.num_attention_heads, n // o.num_attention_heads, o.attention_probs_dropout_prob
  self.query, self.key, self.value = linear(n, n, o), linear(n, n, o), linear(n, n, o)
end
function SelfAttention:split_heads(x) return x:reshape(x:size(1), x:size(2), self.heads, self.width):transpose(2, 3) end
function SelfAttention:forward(x, mask)
  local q, k, v = self:split_heads(self.query(x)), self:split_heads(self.key(x)), self:split_heads(self.value(x))
  local p = self.training and self.p or 0.0
  local y = kiln.scaled_dot_product_attention(q, k, v, mask, { dropout_p = p })
  return y:transpose(2, 3):reshape(x:size(1), x:size(2), self.heads * self.width)
end
function SelfAttention:extra() return ("%d heads of %d"):format(self.heads, self.width) end

-- A linear layer, then what came in added and normed.
local Output = Module:extend "BertOutput"
function Output:init(inputs, o)
  self.dense, self.LayerNorm, self.dropout = linear(inputs, o.hidden_size, o), norm(o), nn.Dropout(o.hidden_dropout_prob)
end
function Output:forward(x, before) return self.LayerNorm(self.dropout(self.dense(x)) + before) end

local Attention = Module:extend "BertAttention"
function Attention:init(o)
  self.self, self.output = SelfAttention(o), Output(o.hidden_size, o)
end
function Attention:forward(x, mask) return self.output(self.self(x, mask), x) end

local Intermediate = Module:extend "BertIntermediate"
function Intermediate:init(o)
  self.dense = linear(o.hidden_size, o.intermediate_size, o)
  self.act = options.activation("Bert", o.hidden_act)
end
function Intermediate:forward(x) return self.act(self.dense(x)) end

local Layer = Module:extend "BertLayer"
function Layer:init(o)
  self.attention, self.intermediate = Attention(o), Intermediate(o)
  self.output = Output(o.intermediate_size, o)
end
function Layer:forward(x, mask)
  local y = self.attention(x, mask)
  return self.output(self.intermediate(y), y)
end

local Encoder = Module:extend "BertEncoder"
function Encoder:init(o)
  local layers = {}
  for i = 1, o.num_hidden_layers do layers[i] = Layer(o) end
  self.layer = nn.ModuleList(layers)
end
function Encoder:forward(x, mask)
  for i = 1, #self.layer do x = self.layer[i](x, mask) end
  return x
end

local Pooler = Module:extend "BertPooler"
function Pooler:init(o) self.dense = linear(o.hidden_size, o.hidden_size, o) end
function Pooler:forward(x) return self.dense(x[{ {}, 1 }]):tanh() end

-- ---- the model -------------------------------------------------------------------------------------------------

--- BertModel(options): forward(ids [N, T] [, attention_mask [N, T] [, token_type_ids [N, T]]]): the last hidden states
--- [N, T, hidden_size], and unless add_pooling_layer = false what the pooler makes of the first [N, hidden_size]. The mask is
--- 1 (or true) for tokens and 0 for padding; types count from 1, and so does pad_token_id, whose row is not learnt.
local BertModel = Module:extend "BertModel"
function BertModel:init(given)
  local o = options.read("Bert", given, defaults)
  if o.hidden_size % o.num_attention_heads ~= 0 then
    fail("Bert: hidden_size %d must be divisible by num_attention_heads %d", o.hidden_size, o.num_attention_heads)
  end
  self.positions = o.max_position_embeddings
  self.embeddings, self.encoder = Embeddings(o), Encoder(o)
  if o.add_pooling_layer then self.pooler = Pooler(o) end
end

function BertModel:forward(ids, attention_mask, token_type_ids)
  ids = options.ids_of("Bert", ids)
  if not kiln.is_capturing() and ids:size(2) > self.positions then -- captured, the embedding says it
    fail("Bert: %d tokens are more than the %d positions of the model", ids:size(2), self.positions)
  end
  local mask
  if attention_mask then mask = attention_mask:ne(0):unsqueeze(2):unsqueeze(2) end
  local x = self.encoder(self.embeddings(ids, token_type_ids), mask)
  if self.pooler then return x, self.pooler(x) end
  return x
end

--- embed(ids [, attention_mask]): a vector of length 1 for each text, the mean of its tokens' hidden states, as the sentence
--- models of the MiniLM family make it.
function BertModel:embed(ids, attention_mask)
  ids = options.ids_of("Bert", ids)
  local x = self(ids, attention_mask)
  local mean
  if attention_mask then
    local weight = attention_mask:ne(0):to(x.dtype):unsqueeze(3)
    mean = (x * weight):sum(2) / weight:sum(2):clamp(1e-9)
  else
    mean = x:mean(2)
  end
  return kiln.normalize(mean, { dim = 2 })
end

--- load_state_dict(state [, options]): what BertModel of transformers saves, and the files of models with heads: "bert." in
--- front is taken off, the heads ("cls.", "classifier.") are left out, and so is the buffer of positions.
function BertModel:load_state_dict(state, how)
  if type(state) ~= "table" then return Module.load_state_dict(self, state, how) end
  local own = {}
  for name, t in pairs(state) do
    if type(name) == "string" then
      name = name:gsub("^bert%.", ""):gsub("LayerNorm%.gamma$", "LayerNorm.weight"):gsub("LayerNorm%.beta$", "LayerNorm.bias")
      local other = name:find "^cls%." or name:find "^classifier%." or name == "embeddings.position_ids"
      if not (other or not self.pooler and name:find "^pooler%.") then own[name] = t end
    end
  end
  return Module.load_state_dict(self, own, how)
end

--- all_MiniLM_L6([options]): a BertModel of the size of the sentence model all-MiniLM-L6-v2; use its `embed`.
local function all_MiniLM_L6(given)
  local o = { hidden_size = 384, num_hidden_layers = 6, num_attention_heads = 12, intermediate_size = 1536 }
  for key, value in pairs(given or {}) do o[key] = value end
  return BertModel(o)
end

return { BertModel = BertModel, all_MiniLM_L6 = all_MiniLM_L6 }
