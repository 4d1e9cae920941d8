-- Rows of a table, picked by index, one by one or a bag at a time. The arithmetic is in functional.lua.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local arguments = require "kiln.nn.arguments"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

local part = {}

-- The weight, given or random, and the options of both classes. The row at padding_idx begins as zeros.
local function begin(self, entries, width, options)
  arguments.count(self.name, "the number of entries", entries)
  arguments.count(self.name, "the width", width)
  if options.sparse then fail("%s: there are no sparse gradients: leave out 'sparse'", self.name) end
  local pad = options.padding_idx
  if pad ~= nil and (math.type(pad) ~= "integer" or pad == 0 or pad > entries or pad < -entries) then
    fail("%s: padding_idx must be one of the %d entries, got %s", self.name, entries, tostring(pad))
  end
  if pad and pad < 0 then pad = entries + 1 + pad end
  self.num_embeddings, self.embedding_dim, self.padding_idx = entries, width, pad
  self.max_norm, self.norm_type, self.scale_grad_by_freq = options.max_norm, options.norm_type, options.scale_grad_by_freq
  local weight = options._weight
  if weight == nil then
    weight = kiln.randn(entries, width)
    if pad then weight[pad] = 0 end
  elseif not kiln.is_tensor(weight) or weight:dim() ~= 2 or weight:size(1) ~= entries or weight:size(2) ~= width then
    fail("%s: _weight must be a tensor [%d, %d]", self.name, entries, width)
  end
  self.weight = Parameter(weight)
end

local function extra(self)
  return ("%d x %d%s%s"):format(self.num_embeddings, self.embedding_dim, self.mode and ", " .. self.mode or "",
    self.padding_idx and ", padding " .. self.padding_idx or "")
end

-- A layer with the rows of a tensor; frozen unless { freeze = false }.
local function from_pretrained(class, weight, options)
  if not kiln.is_tensor(weight) or weight:dim() ~= 2 then fail("%s.from_pretrained: a tensor of two dims is needed", class.name) end
  local given, freeze = { _weight = weight }, true
  for name, value in pairs(options or {}) do
    if name == "freeze" then freeze = value else given[name] = value end
  end
  local layer = class(weight:size(1), weight:size(2), given)
  layer.weight.requires_grad = not freeze
  return layer
end

--- Embedding(entries, width [, padding_idx, max_norm, norm_type = 2, scale_grad_by_freq = false]): rows of its weight at
--- 1-based indices. The row padding_idx (from the end when negative) starts as zeros and is not learnt; rows longer than
--- max_norm are shortened, in the weight, when they are looked up.
local Embedding = Module:extend "Embedding"
part.Embedding = Embedding

local optional = arguments.optional
function Embedding:init(entries, width, ...)
  begin(self, entries, width, arguments.read("Embedding", { "padding_idx", optional, "max_norm", optional, "norm_type", 2,
    "scale_grad_by_freq", false, "sparse", false, "_weight", optional }, ...))
end

function Embedding:forward(index)
  return F.embedding(index, self.weight, { padding_idx = self.padding_idx, max_norm = self.max_norm, norm_type = self.norm_type,
    scale_grad_by_freq = self.scale_grad_by_freq })
end
Embedding.extra = extra
--- Embedding.from_pretrained(weight [, { freeze = true, … }])
function Embedding.from_pretrained(weight, options) return from_pretrained(Embedding, weight, options) end

--- EmbeddingBag(entries, width [, max_norm, norm_type = 2, scale_grad_by_freq = false, mode = "mean", sparse, _weight,
--- include_last_offset = false, padding_idx]): the mean, sum or maximum of the rows of each bag. Called with indices [B, N], a bag a row;
--- or with a list of indices and the 1-based offsets at which bags begin. In the mode "sum" rows may have weights, a tensor like
--- the indices, as the third argument.
local EmbeddingBag = Module:extend "EmbeddingBag"
part.EmbeddingBag = EmbeddingBag

function EmbeddingBag:init(entries, width, ...)
  local options = arguments.read("EmbeddingBag", { "max_norm", optional, "norm_type", 2, "scale_grad_by_freq", false,
    "mode", "mean", "sparse", false, "_weight", optional, "include_last_offset", false, "padding_idx", optional }, ...)
  if options.mode ~= "sum" and options.mode ~= "mean" and options.mode ~= "max" then
    fail("EmbeddingBag: mode must be 'sum', 'mean' or 'max', got %s", tostring(options.mode))
  end
  begin(self, entries, width, options)
  self.mode, self.include_last_offset = options.mode, options.include_last_offset
end

function EmbeddingBag:forward(index, offsets, per_sample_weights)
  return F.embedding_bag(index, self.weight, { offsets = offsets, mode = self.mode, per_sample_weights = per_sample_weights,
    padding_idx = self.padding_idx, max_norm = self.max_norm, norm_type = self.norm_type,
    scale_grad_by_freq = self.scale_grad_by_freq, include_last_offset = self.include_last_offset })
end
EmbeddingBag.extra = extra
--- EmbeddingBag.from_pretrained(weight [, { freeze = true, mode = "mean", … }])
function EmbeddingBag.from_pretrained(weight, options) return from_pretrained(EmbeddingBag, weight, options) end

return part
