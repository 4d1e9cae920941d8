-- GPT-2 (Radford and others, 2019) with the parameter names, options and defaults of transformers, so that its safetensors
-- files load as they are. Ids count from 1.
local kiln = require "kiln"
local nn = require "kiln.nn"
local options = require "kiln.text.options"
local generate = require "kiln.text.generate".generate
local fail = kiln.fail
local Module, Parameter = nn.Module, nn.Parameter

local defaults = {
  vocab_size = 50257, n_positions = 1024, n_embd = 768, n_layer = 12, n_head = 12, n_inner = false,
  activation_function = "gelu_new", resid_pdrop = 0.1, embd_pdrop = 0.1, attn_pdrop = 0.1, layer_norm_epsilon = 1e-5,
  initializer_range = 0.02, tie_word_embeddings = true,
}

local function normal(deviation, ...) return Parameter(nn.init.normal(kiln.empty(...), 0, deviation)) end

-- ---- parts -----------------------------------------------------------------------------------------------------

-- A linear layer whose weight is [inputs, outputs], as GPT-2's files have it.
local Conv1D = Module:extend "Conv1D"
function Conv1D:init(outputs, inputs, deviation)
  self.weight, self.bias = normal(deviation, inputs, outputs), Parameter(kiln.zeros(outputs))
end
function Conv1D:forward(x) return x:matmul(self.weight) + self.bias end
function Conv1D:extra() return ("%d -> %d"):format(self.weight:size(1), self.weight:size(2)) end

local Attention = Module:extend "GPT2Attention"
function Attention:init(o)
  self.heads, self.width, self.p = o.n_head, o.n_embd // o.n_head, o.attn_pdrop
  self.c_attn = Conv1D(3 * o.n_embd, o.n_embd, o.initializer_range)
  self.c_proj = Conv1D(o.n_embd, o.n_embd, o.initializer_range / math.sqrt(2 * o.n_layer))
  self.resid_dropout = nn.Dropout(o.resid_pdrop)
end

function Attention:split_heads(x) return x:reshape(x:size(1), x:size(2), self.heads, self.width):transpose(2, 3) end

--- forward(x, past, mask): past is { keys, values } of the tokens before, or nil; mask is true where to look, nil for what
--- came before. Gives the output and { keys, values } with these tokens.
function Attention:forward(x, past, mask)
  local parts = self.c_attn(x):chunk(3, 3)
  local q, k, v = self:split_heads(parts[1]), self:split_heads(parts[2]), self:split_heads(parts[3])
  if past then k, v = kiln.cat({ past[1], k }, 3), kiln.cat({ past[2], v }, 3) end
  local p = self.training and self.p or 0.0
  local y = kiln.scaled_dot_product_attention(q, k, v, mask, { dropout_p = p, is_causal = mask == nil })
  y = y:transpose(2, 3):reshape(x:size(1), x:size(2), self.heads * self.width)
  return self.resid_dropout(self.c_proj(y)), { k, v }
end
function Attention:extra() return ("%d heads of %d"):format(self.heads, self.width) end

local MLP = Module:extend "GPT2MLP"
function MLP:init(o)
  local inner = o.n_inner or 4 * o.n_embd
  self.c_fc = Conv1D(inner, o.n_embd, o.initializer_range)
  self.c_proj = Conv1D(o.n_embd, inner, o.initializer_range / math.sqrt(2 * o.n_layer))
  self.act = options.activation("GPT2", o.activation_function)
  self.dropout = nn.Dropout(o.resid_pdrop)
end
function MLP:forward(x) return self.dropout(self.c_proj(self.act(self.c_fc(x)))) end

local Block = Module:extend "GPT2Block"
function Block:init(o)
  self.ln_1 = nn.LayerNorm(o.n_embd, { eps = o.layer_norm_epsilon })
  self.attn = Attention(o)
  self.ln_2 = nn.LayerNorm(o.n_embd, { eps = o.layer_norm_epsilon })
  self.mlp = MLP(o)
end
function Block:forward(x, past, mask)
  local y, present = self.attn(self.ln_1(x), past, mask)
  x = x + y
  return x + self.mlp(self.ln_2(x)), present
end

-- ---- the model -------------------------------------------------------------------------------------------------

--- GPT2Model(options): the transformer without a head. forward(ids [N, T] [, past [, attention_mask [N, all]]]): the last
--- hidden states [N, T, n_embd], and what to give as past with the tokens that follow.
local GPT2Model = Module:extend "GPT2Model"

local function with_defaults(given)
  local o = options.read("GPT2", given, defaults)
  if o.n_embd % o.n_head ~= 0 then fail("GPT2: n_embd %d must be divisible by n_head %d", o.n_embd, o.n_head) end
  return o
end

function GPT2Model:init(given)
  local o = with_defaults(given)
  self.positions = o.n_positions
  self.wte, self.wpe = nn.Embedding(o.vocab_size, o.n_embd), nn.Embedding(o.n_positions, o.n_embd)
  nn.init.normal(self.wte.weight, 0, o.initializer_range)
  nn.init.normal(self.wpe.weight, 0, o.initializer_range)
  self.drop = nn.Dropout(o.embd_pdrop)
  local blocks = {}
  for i = 1, o.n_layer do blocks[i] = Block(o) end
  self.h = nn.ModuleList(blocks)
  self.ln_f = nn.LayerNorm(o.n_embd, { eps = o.layer_norm_epsilon })
end

-- Which of all tokens each of the new ones may look at, or nil where that is just those up to itself.
local function mask_of(new, before, attention_mask, device)
  if not attention_mask and before == 0 then return nil end
  local mask = kiln.ones(new, before + new, { dtype = "bool", device = device }):tril(before)
  if attention_mask then mask = mask & attention_mask:ne(0):unsqueeze(2):unsqueeze(2) end
  return mask
end

function GPT2Model:forward(ids, past, attention_mask)
  ids = options.ids_of("GPT2", ids)
  local new, before = ids:size(2), past and past[1][1]:size(3) or 0
  if not kiln.is_capturing() and before + new > self.positions then -- captured, the embedding says it
    fail("GPT2: %d tokens are more than the %d positions of the model", before + new, self.positions)
  end
  local x = self.wte(ids) + self.wpe.weight[{ { before + 1, before + new } }]
  x = self.drop(x)
  local mask, present = mask_of(new, before, attention_mask, ids.device), {}
  for i = 1, #self.h do x, present[i] = self.h[i](x, past and past[i], mask) end
  return self.ln_f(x), present
end

function GPT2Model:remembered(past) return past[1][1]:size(3) end

-- A state as GPT2LMHeadModel wants it: files without the prefix get it, buffers of old files are left out.
local function rename(state, prefix)
  local out = {}
  for name, t in pairs(state) do
    if type(name) == "string" and not name:find "%.attn%.bias$" and not name:find "%.attn%.masked_bias$" then
      if prefix == "" then name = name:gsub("^transformer%.", "") end
      if prefix ~= "" and not name:find "^transformer%." and not name:find "^lm_head%." then name = prefix .. name end
      out[name] = t
    end
  end
  return out
end

--- load_state_dict(state [, options]): names with or without "transformer." in front are taken.
function GPT2Model:load_state_dict(state, how)
  if type(state) ~= "table" then return Module.load_state_dict(self, state, how) end
  local own = rename(state, "")
  own["lm_head.weight"] = nil
  return Module.load_state_dict(self, own, how)
end

--- GPT2LMHeadModel(options): GPT-2 with the head that tells the next token. forward(ids [, past [, attention_mask]]): logits
--- [N, T, vocab_size], and the next past. The head has the weights of the embedding unless tie_word_embeddings = false.
local GPT2LMHeadModel = Module:extend "GPT2LMHeadModel"
function GPT2LMHeadModel:init(given)
  local o = with_defaults(given)
  self.positions = o.n_positions
  self.transformer = GPT2Model(given)
  if not o.tie_word_embeddings then
    self.lm_head = nn.Linear(o.n_embd, o.vocab_size, { bias = false })
    nn.init.normal(self.lm_head.weight, 0, o.initializer_range)
  end
end

function GPT2LMHeadModel:forward(ids, past, attention_mask)
  local x, present = self.transformer(ids, past, attention_mask)
  if self.lm_head then return self.lm_head(x), present end
  return kiln.linear(x, self.transformer.wte.weight), present
end

--- loss(ids [, labels]): the mean cross entropy of each label given the ids before it; labels are the ids unless given,
--- and -100 leaves one out, as in transformers (labels are not shifted, this does).
function GPT2LMHeadModel:loss(ids, labels)
  ids = options.ids_of("GPT2", ids)
  labels = labels and options.ids_of("GPT2", labels) or ids
  local logits = self(ids)
  local n = ids:size(2)
  local ahead = logits[{ {}, { 1, n - 1 } }]
  return kiln.cross_entropy(ahead:reshape(-1, logits:size(3)), labels[{ {}, { 2, n } }]:reshape(-1))
end

GPT2LMHeadModel.generate = generate
function GPT2LMHeadModel:remembered(past) return self.transformer:remembered(past) end

--- load_state_dict(state [, options]): what GPT2Model and GPT2LMHeadModel of transformers save. A head that is tied needs no
--- entry of its own; one that differs from the embedding is an error.
function GPT2LMHeadModel:load_state_dict(state, how)
  if type(state) ~= "table" then return Module.load_state_dict(self, state, how) end
  local own = rename(state, "transformer.")
  local head, embedding = own["lm_head.weight"], own["transformer.wte.weight"]
  if head and not self.lm_head then
    if kiln.is_tensor(head) and kiln.is_tensor(embedding) and not head:equal(embedding) then
      fail("GPT2LMHeadModel: lm_head.weight differs from the embedding: make the model with tie_word_embeddings = false")
    end
    own["lm_head.weight"] = nil
  end
  return Module.load_state_dict(self, own, how)
end

-- ---- its published sizes -----------------------------------------------------------------------------------------

local sizes = {
  gpt2 = {}, gpt2_medium = { n_embd = 1024, n_layer = 24, n_head = 16 },
  gpt2_large = { n_embd = 1280, n_layer = 36, n_head = 20 }, gpt2_xl = { n_embd = 1600, n_layer = 48, n_head = 25 },
}
local out = { GPT2Model = GPT2Model, GPT2LMHeadModel = GPT2LMHeadModel }
for name, size in pairs(sizes) do
  --- gpt2([options]), gpt2_medium(…), gpt2_large(…), gpt2_xl(…): a GPT2LMHeadModel of that size.
  out[name] = function(given)
    local o = {}
    for key, value in pairs(size) do o[key] = value end
    for key, value in pairs(given or {}) do o[key] = value end
    return GPT2LMHeadModel(o)
  end
end

return out
