-- The transformer (Vaswani et al., 2017) as modules: layers of the encoder and the decoder, stacks of them, both together.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local module = require "kiln.nn.module"
local ModuleList = require("kiln.nn.container").ModuleList
local Attention = require("kiln.nn.attention").MultiheadAttention
local Dropout = require("kiln.nn.dropout").Dropout
local LayerNorm = require("kiln.nn.norm").LayerNorm
local Linear = require("kiln.nn.linear").Linear
local Module, fail = module.Module, kiln.fail

local part = {}

-- ---- what the layers share -------------------------------------------------------------------------------------

local fields = { "dim_feedforward", 2048, "dropout", 0.1, "activation", "relu", "layer_norm_eps", 1e-5, "batch_first", false,
                 "norm_first", false, "bias", true }
local activations = { relu = F.relu, gelu = F.gelu }

local function activation_of(class, given)
  local f = activations[given] or given
  if type(f) ~= "function" and not module.is_module(f) then
    fail("%s: the activation must be 'relu', 'gelu' or a function, got %s", class, tostring(given))
  end
  return f
end

local function attention(width, heads, o)
  return Attention(width, heads, { dropout = o.dropout, batch_first = o.batch_first, bias = o.bias })
end

-- The two products between which the activation stands, norms and dropout: `parts` of these.
local function begin(self, width, heads, parts, ...)
  local o = arguments.read(self.name, fields, ...)
  self.activation, self.norm_first = activation_of(self.name, o.activation), o.norm_first
  self.self_attn = attention(width, heads, o)
  self.linear1 = Linear(width, arguments.count(self.name, "dim_feedforward", o.dim_feedforward), { bias = o.bias })
  self.dropout = Dropout(o.dropout)
  self.linear2 = Linear(o.dim_feedforward, width, { bias = o.bias })
  for i = 1, parts do
    self["norm" .. i] = LayerNorm(width, { eps = o.layer_norm_eps, bias = o.bias })
    self["dropout" .. i] = Dropout(o.dropout)
  end
  return o
end

local function feed_forward(self, x, dropout)
  return dropout(self.linear2(self.dropout(self.activation(self.linear1(x)))))
end

local function attend(attn, x, memory, mask, padding, is_causal)
  return (attn(x, memory, memory, { attn_mask = mask, key_padding_mask = padding, is_causal = is_causal, need_weights = false }))
end

-- ---- layers ----------------------------------------------------------------------------------------------------

--- TransformerEncoderLayer(width, heads [, dim_feedforward = 2048, dropout = 0.1, activation = "relu", layer_norm_eps = 1e-5,
--- batch_first = false, norm_first = false, bias = true]): attention to itself, then two products; the activation may be
--- "gelu" or a function. The decoder's layer has attention to the memory between them.
local EncoderLayer = Module:extend "TransformerEncoderLayer"
part.TransformerEncoderLayer = EncoderLayer

function EncoderLayer:init(width, heads, ...) begin(self, width, heads, 2, ...) end

--- forward(x [, { src_mask, src_key_padding_mask, is_causal }])
function EncoderLayer:forward(x, options)
  local o = options or {}
  local function look(y) return self.dropout1(attend(self.self_attn, y, y, o.src_mask, o.src_key_padding_mask, o.is_causal)) end
  if self.norm_first then
    x = x + look(self.norm1(x))
    return x + feed_forward(self, self.norm2(x), self.dropout2)
  end
  x = self.norm1(x + look(x))
  return self.norm2(x + feed_forward(self, x, self.dropout2))
end

--- TransformerDecoderLayer(width, heads [, options of TransformerEncoderLayer]): one that looks at the memory of an encoder, too.
local DecoderLayer = Module:extend "TransformerDecoderLayer"
part.TransformerDecoderLayer = DecoderLayer

function DecoderLayer:init(width, heads, ...)
  local o = begin(self, width, heads, 3, ...)
  self.multihead_attn = attention(width, heads, o)
end

--- forward(x, memory [, { tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, tgt_is_causal,
--- memory_is_causal }])
function DecoderLayer:forward(x, memory, options)
  local o = options or {}
  local function look(y) return self.dropout1(attend(self.self_attn, y, y, o.tgt_mask, o.tgt_key_padding_mask, o.tgt_is_causal)) end
  local function recall(y)
    return self.dropout2(attend(self.multihead_attn, y, memory, o.memory_mask, o.memory_key_padding_mask, o.memory_is_causal))
  end
  if self.norm_first then
    x = x + look(self.norm1(x))
    x = x + recall(self.norm2(x))
    return x + feed_forward(self, self.norm3(x), self.dropout3)
  end
  x = self.norm1(x + look(x))
  x = self.norm2(x + recall(x))
  return self.norm3(x + feed_forward(self, x, self.dropout3))
end

-- ---- stacks ----------------------------------------------------------------------------------------------------

local function stack(self, layer, count, norm)
  if not module.is_module(layer) then fail("%s: a layer is needed, got %s", self.name, type(layer)) end
  self.num_layers = arguments.count(self.name, "the number of layers", count)
  self.layers = ModuleList {}
  for _ = 1, count do self.layers:append(layer:clone()) end
  self.norm = norm
end

--- TransformerEncoder(layer, count [, norm]): copies of a layer, one after the other, and maybe a norm at the end.
local Encoder = Module:extend "TransformerEncoder"
part.TransformerEncoder = Encoder

function Encoder:init(layer, count, norm) stack(self, layer, count, norm) end

--- forward(x [, { mask, src_key_padding_mask, is_causal }])
function Encoder:forward(x, options)
  local o = options or {}
  for i = 1, self.num_layers do
    x = self.layers[i](x, { src_mask = o.mask, src_key_padding_mask = o.src_key_padding_mask, is_causal = o.is_causal })
  end
  return self.norm and self.norm(x) or x
end

--- TransformerDecoder(layer, count [, norm])
local Decoder = Module:extend "TransformerDecoder"
part.TransformerDecoder = Decoder

function Decoder:init(layer, count, norm) stack(self, layer, count, norm) end

--- forward(x, memory [, the options of the layer])
function Decoder:forward(x, memory, options)
  for i = 1, self.num_layers do x = self.layers[i](x, memory, options) end
  return self.norm and self.norm(x) or x
end

-- ---- both ------------------------------------------------------------------------------------------------------

--- Transformer([d_model = 512, nhead = 8, num_encoder_layers = 6, num_decoder_layers = 6, dim_feedforward = 2048, dropout = 0.1,
--- activation = "relu", custom_encoder, custom_decoder, layer_norm_eps = 1e-5, batch_first = false, norm_first = false, bias = true])
local Transformer = Module:extend "Transformer"
part.Transformer = Transformer

function Transformer:init(...)
  local o, of_layer = arguments.read("Transformer", { "d_model", 512, "nhead", 8, "num_encoder_layers", 6, "num_decoder_layers", 6,
    "dim_feedforward", 2048, "dropout", 0.1, "activation", "relu", "custom_encoder", arguments.optional, "custom_decoder",
    arguments.optional, "layer_norm_eps", 1e-5, "batch_first", false, "norm_first", false, "bias", true }, ...), {}
  for i = 1, #fields, 2 do of_layer[fields[i]] = o[fields[i]] end
  local function norm() return LayerNorm(o.d_model, { eps = o.layer_norm_eps, bias = o.bias }) end
  self.d_model, self.nhead, self.batch_first = o.d_model, o.nhead, o.batch_first
  self.encoder = o.custom_encoder or Encoder(EncoderLayer(o.d_model, o.nhead, of_layer), o.num_encoder_layers, norm())
  self.decoder = o.custom_decoder or Decoder(DecoderLayer(o.d_model, o.nhead, of_layer), o.num_decoder_layers, norm())
  for _, p in ipairs(self:parameters()) do
    if p:dim() > 1 then init.xavier_uniform(p) end
  end
end

--- forward(src, tgt [, { src_mask, tgt_mask, memory_mask, src_key_padding_mask, tgt_key_padding_mask,
--- memory_key_padding_mask, src_is_causal, tgt_is_causal, memory_is_causal }])
function Transformer:forward(src, tgt, options)
  local o = options or {}
  local memory = self.encoder(src, { mask = o.src_mask, src_key_padding_mask = o.src_key_padding_mask, is_causal = o.src_is_causal })
  return self.decoder(tgt, memory, { tgt_mask = o.tgt_mask, memory_mask = o.memory_mask,
    tgt_key_padding_mask = o.tgt_key_padding_mask, memory_key_padding_mask = o.memory_key_padding_mask,
    tgt_is_causal = o.tgt_is_causal, memory_is_causal = o.memory_is_causal })
end

--- The mask [size, size] that lets a position look at itself and what is before: 0 there, -inf elsewhere.
function Transformer.generate_square_subsequent_mask(size)
  return kiln.full({ size, size }, -math.huge):triu(1)
end

return part
