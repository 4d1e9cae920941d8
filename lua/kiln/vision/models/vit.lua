-- Vision transformers (Dosovitskiy and others 2020): an image as a sequence of patches, with torchvision's parameter names and
-- starting values.
local kiln = require "kiln"
local nn = require "kiln.nn"
local parts = require "kiln.vision.models.parts"
local fail = kiln.fail

local model = {}

-- Two linear layers with GELU between them.
local function feed_forward(width, hidden, dropout)
  local mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout))
  for _, i in ipairs { 1, 4 } do
    parts.xavier(mlp[i].weight)
    parts.normal(mlp[i].bias, 1e-6)
  end
  return mlp
end

--- EncoderBlock{ hidden_dim =, num_heads =, mlp_dim =, dropout =, attention_dropout =, norm = }: attention and two linear layers, each beside its
--- input.
local Block = nn.Module:extend "EncoderBlock"
model.EncoderBlock = Block

function Block:init(o)
  self.ln_1 = o.norm(o.hidden_dim)
  self.self_attention = nn.MultiheadAttention(o.hidden_dim, o.num_heads, { dropout = o.attention_dropout, batch_first = true })
  self.dropout = nn.Dropout(o.dropout)
  self.ln_2 = o.norm(o.hidden_dim)
  self.mlp = feed_forward(o.hidden_dim, o.mlp_dim, o.dropout)
end

local without_weights = { need_weights = false }

function Block:forward(x)
  local y = self.ln_1(x)
  y = self.self_attention(y, y, y, without_weights)
  x = x + self.dropout(y)
  return x + self.mlp(self.ln_2(x))
end

-- Blocks under their names, encoder_layer_0 and so on, and in their order.
local Layers = nn.Module:extend "Layers"

function Layers:init(o)
  self.order = {}
  for i = 1, o.num_layers do
    self.order[i] = Block(o)
    self["encoder_layer_" .. i - 1] = self.order[i]
  end
end

function Layers:forward(x)
  for i = 1, #self.order do x = self.order[i](x) end
  return x
end

local Encoder = nn.Module:extend "Encoder"

function Encoder:init(o, length)
  self.pos_embedding = nn.Parameter(kiln.empty(1, length, o.hidden_dim))
  parts.normal(self.pos_embedding, 0.02)
  self.dropout = nn.Dropout(o.dropout)
  self.layers = Layers(o)
  self.ln = o.norm(o.hidden_dim)
end

function Encoder:forward(x) return self.ln(self.layers(self.dropout(x + self.pos_embedding))) end

local Heads = nn.Module:extend "Heads"

function Heads:init(width, classes, between)
  if between then
    self.pre_logits = nn.Linear(width, between)
    parts.truncated_normal(self.pre_logits.weight, math.sqrt(1 / width))
    parts.fill(self.pre_logits.bias, 0)
  end
  self.head = nn.Linear(between or width, classes)
  parts.fill(self.head.weight, 0)
  parts.fill(self.head.bias, 0)
end

function Heads:forward(x)
  if self.pre_logits then x = self.pre_logits(x):tanh() end
  return self.head(x)
end

local function layer_norm(width) return nn.LayerNorm(width, { eps = 1e-6 }) end

local sizes = { "image_size", "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim" }
local known = { "dropout", "attention_dropout", "num_classes", "representation_size", "norm_layer", "in_channels", table.unpack(sizes) }

--- VisionTransformer{ image_size =, patch_size =, num_layers =, num_heads =, hidden_dim =, mlp_dim = [, dropout = 0,
--- attention_dropout = 0, num_classes = 1000, representation_size =, norm_layer =, in_channels = 3] } on [N, C, size, size].
local VisionTransformer = nn.Module:extend "VisionTransformer"
model.VisionTransformer = VisionTransformer

function VisionTransformer:init(options)
  local o = parts.options("VisionTransformer", options, known)
  for _, key in ipairs(sizes) do
    if math.type(o[key]) ~= "integer" or o[key] < 1 then
      fail("VisionTransformer: %s must be a positive integer, got %s", key, tostring(o[key]))
    end
  end
  if o.image_size % o.patch_size ~= 0 then
    fail("VisionTransformer: patches of %d do not divide an image of %d", o.patch_size, o.image_size)
  end
  o.dropout, o.attention_dropout, o.norm = o.dropout or 0, o.attention_dropout or 0, o.norm_layer or layer_norm
  local channels, patch = o.in_channels or 3, o.patch_size
  self.image_size = o.image_size
  self.conv_proj = nn.Conv2d(channels, o.hidden_dim, patch, { stride = patch })
  parts.truncated_normal(self.conv_proj.weight, math.sqrt(1 / (channels * patch * patch)))
  parts.fill(self.conv_proj.bias, 0)
  self.class_token = nn.Parameter(kiln.zeros(1, 1, o.hidden_dim))
  local rows = o.image_size // patch
  self.encoder = Encoder(o, rows * rows + 1)
  self.heads = Heads(o.hidden_dim, o.num_classes or 1000, o.representation_size)
end

function VisionTransformer:forward(x)
  local size = self.image_size
  if x:dim() ~= 4 then fail("VisionTransformer: images [N, C, %d, %d] are needed, got %d dims", size, size, x:dim()) end
  if x:size(3) ~= size or x:size(4) ~= size then
    fail("VisionTransformer: the images are %d x %d, the model's image_size is %d", x:size(3), x:size(4), size)
  end
  x = self.conv_proj(x):flatten(3):transpose(2, 3)
  x = kiln.cat({ self.class_token:expand(x:size(1), -1, -1), x }, 2)
  return self.heads(self.encoder(x):select(2, 1))
end

-- ---- the sizes that have names ---------------------------------------------------------------------------------

--- vit_b_16([{ weights = path, num_classes =, image_size = 224, … }]), vit_b_32(…), vit_l_16(…), vit_l_32(…), vit_h_14(…): a
--- VisionTransformer of that size.
-- Patch, layers, heads, width, width between.
for name, row in pairs {
  vit_b_16 = { 16, 12, 12, 768, 3072 },
  vit_b_32 = { 32, 12, 12, 768, 3072 },
  vit_l_16 = { 16, 24, 16, 1024, 4096 },
  vit_l_32 = { 32, 24, 16, 1024, 4096 },
  vit_h_14 = { 14, 32, 16, 1280, 5120 },
} do
  model[name] = parts.loader(name, "heads.head.weight", function(options)
    local o = { patch_size = row[1], num_layers = row[2], num_heads = row[3], hidden_dim = row[4], mlp_dim = row[5], image_size = 224 }
    for key, value in pairs(options) do o[key] = value end
    return VisionTransformer(o)
  end)
end

return model
