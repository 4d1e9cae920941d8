-- MultiheadAttention (Vaswani et al., 2017): the projections, the masks and the heads. The attention itself is an op where
-- nobody asks for the weights.
local kiln = require "kiln"
local F = require "kiln.nn.functional"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local Linear = require("kiln.nn.linear").Linear
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

--- MultiheadAttention(width, heads [, dropout = 0, bias = true, add_bias_kv = false, add_zero_attn = false, kdim, vdim,
--- batch_first = false])
local Attention = Module:extend "MultiheadAttention"

function Attention:init(width, heads, ...)
  local options = arguments.read("MultiheadAttention", { "dropout", 0, "bias", true, "add_bias_kv", false,
    "add_zero_attn", false, "kdim", arguments.optional, "vdim", arguments.optional, "batch_first", false }, ...)
  arguments.count("MultiheadAttention", "the width", width)
  arguments.count("MultiheadAttention", "the number of heads", heads)
  if width % heads ~= 0 then fail("MultiheadAttention: %d heads do not divide a width of %d", heads, width) end
  self.embed_dim, self.num_heads, self.head_dim = width, heads, width // heads
  self.kdim = arguments.count("MultiheadAttention", "kdim", options.kdim or width)
  self.vdim = arguments.count("MultiheadAttention", "vdim", options.vdim or width)
  self.dropout = arguments.probability("MultiheadAttention", options.dropout)
  self.batch_first, self.add_zero_attn = options.batch_first, options.add_zero_attn
  local function matrix(...) return Parameter(init.xavier_uniform(kiln.empty(...))) end
  if self.kdim == width and self.vdim == width then
    self.in_proj_weight = matrix(3 * width, width)
  else
    self.q_proj_weight, self.k_proj_weight = matrix(width, width), matrix(width, self.kdim)
    self.v_proj_weight = matrix(width, self.vdim)
  end
  self.out_proj = Linear(width, width, { bias = options.bias })
  if options.bias then
    self.in_proj_bias = Parameter(kiln.zeros(3 * width))
    init.zeros(self.out_proj.bias)
  end
  if options.add_bias_kv then
    self.bias_k = Parameter(kiln.randn(1, 1, width) / math.sqrt(width))
    self.bias_v = Parameter(kiln.randn(1, 1, width) / math.sqrt(width))
  end
end

-- Query, key and value [L, N, E] projected.
function Attention:project(query, key, value)
  local width, weight, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
  local function part(i, x, own)
    return kiln.linear(x, own or weight:narrow(1, (i - 1) * width + 1, width), bias and bias:narrow(1, (i - 1) * width + 1, width))
  end
  return part(1, query, self.q_proj_weight), part(2, key, self.k_proj_weight), part(3, value, self.v_proj_weight)
end

-- [L, N, E] as [N, heads, L, E / heads].
local function heads_of(x, heads)
  return x:unflatten(3, { heads, -1 }):permute(2, 3, 1, 4)
end

-- A mask as numbers to add: -inf where a bool one is true.
local function as_numbers(mask, x)
  if mask.dtype ~= "bool" then return mask:to(x.dtype) end
  return kiln.where(mask, -math.huge, kiln.zeros_like(mask):to(x.dtype))
end

-- Both masks and the places added at the end as one that broadcasts to [N, heads, L, S], or nil: bool, true where not to look,
-- while all are bool; else numbers to add.
local function merged(attn_mask, key_padding_mask, heads, added, x)
  if attn_mask and attn_mask:dim() == 3 then attn_mask = attn_mask:unflatten(1, { -1, heads }) end
  if key_padding_mask then key_padding_mask = key_padding_mask:unsqueeze(2):unsqueeze(2) end
  local a, b = attn_mask, key_padding_mask
  local bool = (not a or a.dtype == "bool") and (not b or b.dtype == "bool")
  if a and not bool then a = as_numbers(a, x) end
  if b and not bool then b = as_numbers(b, x) end
  if added > 0 and a then a = kiln.pad(a, { 0, added }) end
  if added > 0 and b then b = kiln.pad(b, { 0, added }) end
  if not a or not b then return a or b end
  return bool and (a | b) or a + b
end

-- Position i may look at those up to i.
local function causal(q, k)
  local ones = kiln.matmul(kiln.ones_like(q:select(-1, 1)):unsqueeze(-1), kiln.ones_like(k:select(-1, 1)):unsqueeze(-2))
  return ones:detach():select(1, 1):select(1, 1):triu(1):gt(0)
end

--- forward(query, key, value [, { key_padding_mask, need_weights = true, attn_mask, average_attn_weights = true,
--- is_causal = false }]) on [L, N, E], with batch_first [N, L, E], or [L, E]. A bool mask is true where not to look; numbers are
--- added to the scores. attn_mask is [L, S] or [N heads, L, S], key_padding_mask [N, S]. is_causal without an attn_mask makes
--- one. Gives the output and the weights, averaged over the heads or [N, heads, L, S].
function Attention:forward(query, key, value, options)
  options = options or {}
  local attn_mask, key_padding_mask = options.attn_mask, options.key_padding_mask
  local single = query:dim() == 2
  if query:dim() ~= 2 and query:dim() ~= 3 or key:dim() ~= query:dim() or value:dim() ~= query:dim() then
    fail("MultiheadAttention: query, key and value must all have 3 dims, or all 2 without a batch, got %d, %d and %d",
      query:dim(), key:dim(), value:dim())
  end
  if single then
    query, key, value = query:unsqueeze(2), key:unsqueeze(2), value:unsqueeze(2)
    if key_padding_mask then key_padding_mask = key_padding_mask:unsqueeze(1) end
  elseif self.batch_first then
    query, key, value = query:transpose(1, 2), key:transpose(1, 2), value:transpose(1, 2)
  end
  local q, k, v = self:project(query, key, value)
  local heads, added = self.num_heads, 0
  if self.bias_k then
    local function with(x, bias) return kiln.cat({ x, bias:expand_as(x:narrow(1, 1, 1)) }, 1) end
    k, v, added = with(k, self.bias_k), with(v, self.bias_v), 1
  end
  if self.add_zero_attn then
    local function with_zero(x) return kiln.pad(x, { 0, 0, 0, 0, 0, 1 }) end
    k, v, added = with_zero(k), with_zero(v), added + 1
  end
  q, k, v = heads_of(q, heads), heads_of(k, heads), heads_of(v, heads)
  if options.is_causal and not attn_mask then
    local seen = added > 0 and k:narrow(3, 1, k:size(3) - added) or k
    attn_mask = causal(q, seen)
  end
  local mask = merged(attn_mask, key_padding_mask, heads, added, q)
  local p = self.training and self.dropout or 0
  local out, weights
  if options.need_weights == false then
    if mask and mask.dtype == "bool" then mask = ~mask end
    out = F.scaled_dot_product_attention(q, k, v, mask, { dropout_p = p })
  else
    local scores = kiln.matmul(q / math.sqrt(self.head_dim), k:transpose(-2, -1))
    if mask then scores = scores + as_numbers(mask, scores) end
    weights = scores:softmax(-1)
    if p > 0 then weights = kiln.dropout(weights, p, true) end
    out = kiln.matmul(weights, v)
    if options.average_attn_weights ~= false then weights = weights:mean(2) end
    if single then weights = weights:squeeze(1) end
  end
  out = self.out_proj(out:permute(3, 1, 2, 4):flatten(3, 4))
  if single then
    out = out:squeeze(2)
  elseif self.batch_first then
    out = out:transpose(1, 2)
  end
  if weights then return out, weights end
  return out
end

function Attention:extra() return ("%d, %d head%s"):format(self.embed_dim, self.num_heads, self.num_heads == 1 and "" or "s") end

return { MultiheadAttention = Attention }
