-- Attention with many heads on tensors: projections, masks, heads. What MultiheadAttention (attention.lua) and
-- F.multi_head_attention_forward have in common; the attention itself is an op where nobody asks for the weights.
local kiln = require "kiln"
local fail = kiln.fail

-- Query, key and value [L, N, E] projected.
local function project(p, query, key, value)
  local width, weight, bias = p.embed_dim, p.in_proj_weight, p.in_proj_bias
  local function part(i, x, own)
    return kiln.linear(x, own or weight:narrow(1, (i - 1) * width + 1, width), bias and bias:narrow(1, (i - 1) * width + 1, width))
  end
  return part(1, query, p.q_proj_weight), part(2, key, p.k_proj_weight), part(3, value, p.v_proj_weight)
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

-- p: embed_dim, num_heads, head_dim, in_proj_weight or q_proj_weight, k_proj_weight and v_proj_weight, in_proj_bias, bias_k,
-- bias_v, add_zero_attn, dropout while training. o: the masks and what is wanted. batch_first: [N, L, E]. project_out(x) is the
-- last layer. Gives the output and the weights, averaged over the heads or [N, heads, L, S].
return function(name, p, query, key, value, o, batch_first, project_out)
  local attn_mask, key_padding_mask = o.attn_mask, o.key_padding_mask
  if not key or not value then
    fail("%s: a query, a key and a value are needed; attention of a sequence to itself is that of x, x, x", name)
  end
  local single = query:dim() == 2
  if query:dim() ~= 2 and query:dim() ~= 3 or key:dim() ~= query:dim() or value:dim() ~= query:dim() then
    fail("%s: query, key and value must all have 3 dims, or all 2 without a batch, got %d, %d and %d", name, query:dim(), key:dim(),
      value:dim())
  end
  if single then
    query, key, value = query:unsqueeze(2), key:unsqueeze(2), value:unsqueeze(2)
    if key_padding_mask then key_padding_mask = key_padding_mask:unsqueeze(1) end
  elseif batch_first then
    query, key, value = query:transpose(1, 2), key:transpose(1, 2), value:transpose(1, 2)
  end
  local q, k, v = project(p, query, key, value)
  local heads, added = p.num_heads, 0
  if p.bias_k then
    local function with(x, bias) return kiln.cat({ x, bias:expand_as(x:narrow(1, 1, 1)) }, 1) end
    k, v, added = with(k, p.bias_k), with(v, p.bias_v), 1
  end
  q, k, v = heads_of(q, heads), heads_of(k, heads), heads_of(v, heads)
  if o.static_k then k = o.static_k:unflatten(1, { -1, heads }) end
  if o.static_v then v = o.static_v:unflatten(1, { -1, heads }) end
  if p.add_zero_attn then
    local function with_zero(x) return kiln.pad(x, { 0, 0, 0, 1 }) end
    k, v, added = with_zero(k), with_zero(v), added + 1
  end
  if o.is_causal and not attn_mask then
    local seen = added > 0 and k:narrow(3, 1, k:size(3) - added) or k
    attn_mask = causal(q, seen)
  end
  local mask = merged(attn_mask, key_padding_mask, heads, added, q)
  local dropout = p.training and p.dropout or 0
  local out, weights
  if o.need_weights == false then
    if mask and mask.dtype == "bool" then mask = ~mask end
    out = kiln.scaled_dot_product_attention(q, k, v, mask, { dropout_p = dropout })
  else
    local scores = kiln.matmul(q / math.sqrt(p.head_dim), k:transpose(-2, -1))
    if mask then scores = scores + as_numbers(mask, scores) end
    weights = scores:softmax(-1)
    if dropout > 0 then weights = kiln.dropout(weights, dropout, true) end
    out = kiln.matmul(weights, v)
    if o.average_attn_weights ~= false then weights = weights:mean(2) end
    if single then weights = weights:squeeze(1) end
  end
  out = project_out(out:permute(3, 1, 2, 4):flatten(3, 4))
  if single then
    out = out:squeeze(2)
  elseif batch_first then
    out = out:transpose(1, 2)
  end
  if weights then return out, weights end
  return out
end
