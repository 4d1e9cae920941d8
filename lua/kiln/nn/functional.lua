-- kiln.nn.functional: what layers and losses compute, as functions. They are ops of the engine, under PyTorch's names.
local kiln = require "kiln"
local attend = require "kiln.nn.attend"

local F = {}

-- Ops that are used as functions of networks.
for _, name in ipairs {
  "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish",
  "hardsigmoid", "glu", "prelu", "threshold", "logsigmoid", "tanhshrink", "softshrink", "hardshrink", "tanh", "sigmoid",
  "softmax", "log_softmax", "linear", "dropout", "one_hot", "conv1d", "conv2d", "conv_transpose1d",
  "conv_transpose2d", "max_pool1d", "avg_pool1d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
  "interpolate", "pad", "pixel_shuffle", "pixel_unshuffle", "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm",
  "scaled_dot_product_attention", "cosine_similarity", "pairwise_distance", "cross_entropy", "nll_loss", "mse_loss", "l1_loss",
  "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "cosine_embedding_loss",
  "triplet_margin_loss",
} do
  F[name] = kiln[name]
end

-- More of them: volumes, pooling, resampling, losses with margins.
for _, name in ipairs {
  "conv3d", "conv_transpose3d", "max_pool3d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_unpool1d", "max_unpool2d",
  "max_unpool3d", "adaptive_avg_pool1d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool3d", "grid_sample",
  "affine_grid", "channel_shuffle", "normalize", "local_response_norm", "alpha_dropout", "feature_alpha_dropout", "gumbel_softmax",
  "soft_margin_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss",
  "multilabel_soft_margin_loss", "poisson_nll_loss", "gaussian_nll_loss",
} do
  F[name] = kiln[name]
end
F.dropout1d, F.dropout2d, F.dropout3d = kiln.feature_dropout, kiln.feature_dropout, kiln.feature_dropout

-- Pooling that also gives the places of the maxima: max_pool2d(x, kernel [, stride, padding, dilation, ceil_mode,
-- return_indices]), or these in a table.
local function max_pool(plain, with_places)
  return function(x, kernel, stride, padding, dilation, ceil_mode, return_indices)
    if type(kernel) == "table" and kernel.kernel_size then
      local o = kernel
      kernel, stride, padding, dilation, ceil_mode, return_indices = o.kernel_size, o.stride, o.padding, o.dilation, o.ceil_mode,
        o.return_indices
    elseif type(stride) == "table" and #stride == 0 then
      local o = stride
      stride, padding, dilation, ceil_mode, return_indices = o.stride, o.padding, o.dilation, o.ceil_mode, o.return_indices
    end
    if return_indices then return with_places(x, kernel, stride, padding, dilation, ceil_mode) end
    return plain(x, kernel, stride, padding, dilation, ceil_mode)
  end
end
F.max_pool1d = max_pool(kiln.max_pool1d, kiln.max_pool1d_with_indices)
F.max_pool2d = max_pool(kiln.max_pool2d, kiln.max_pool2d_with_indices)
F.max_pool3d = max_pool(kiln.max_pool3d, kiln.max_pool3d_with_indices)

-- Convolutions whose padding may be "same" or "valid": conv2d(x, w, b, stride, padding, dilation, groups), or options in a
-- table.
local function conv(op, dims)
  local function run(x, w, b, stride, padding, dilation, groups)
    local o = type(b) == "table" and b or type(stride) == "table" and #stride == 0 and stride
    if o then
      if o == b then b = nil end
      stride, padding, dilation, groups = o.stride, o.padding, o.dilation, o.groups
    end
    if kiln.is_tensor(x) and x:dim() == dims + 1 then return run(x:unsqueeze(1), w, b, stride, padding, dilation, groups):squeeze(1) end
    if padding == "valid" then padding = 0 end
    if padding == "same" then
      local margins = {}
      for i = dims, 1, -1 do
        local apart = type(dilation) == "table" and (dilation[i] or dilation[1]) or dilation or 1
        local step = type(stride) == "table" and (stride[i] or stride[1]) or stride or 1
        if step ~= 1 then kiln.fail("conv%dd: padding = \"same\" needs a stride of 1", dims) end
        local all = apart * (w:size(2 + i) - 1)
        margins[#margins + 1] = all // 2
        margins[#margins + 1] = all - all // 2
      end
      x, padding = kiln.pad(x, margins), 0
    elseif type(padding) == "string" then
      kiln.fail("conv%dd: padding must be numbers, \"same\" or \"valid\", got %q", dims, padding)
    end
    return op(x, w, b, stride, padding, dilation, groups)
  end
  return run
end
F.conv1d, F.conv2d, F.conv3d = conv(kiln.conv1d, 1), conv(kiln.conv2d, 2), conv(kiln.conv3d, 3)

--- One input without its batch is a batch of one.
local function transposed(op, dims)
  return function(x, ...)
    if kiln.is_tensor(x) and x:dim() == dims + 1 then return op(x:unsqueeze(1), ...):squeeze(1) end
    return op(x, ...)
  end
end
F.conv_transpose1d, F.conv_transpose2d = transposed(kiln.conv_transpose1d, 1), transposed(kiln.conv_transpose2d, 2)
F.conv_transpose3d = transposed(kiln.conv_transpose3d, 3)

--- softmin(x [, dim = -1]): softmax of -x.
function F.softmin(x, dim) return kiln.softmax(-x, dim) end

--- Lengths may be tables. The gradient is that of the log-probabilities themselves.
function F.ctc_loss(logp, targets, input_lengths, target_lengths, ...)
  if type(input_lengths) == "table" then input_lengths = kiln.tensor(input_lengths, { device = logp.device }) end
  if type(target_lengths) == "table" then target_lengths = kiln.tensor(target_lengths, { device = logp.device }) end
  return kiln.ctc_loss(logp, targets, input_lengths, target_lengths, ...)
end

-- ---- embeddings ------------------------------------------------------------------------------------------------

-- Rows that are longer than max_norm made as long, in the weight itself, before they are read.
local function shorten(weight, index, o)
  kiln.no_grad(function()
    local line = index:flatten()
    weight:index_copy_(1, line, weight:index_select(1, line):renorm(o.norm_type or 2, 1, o.max_norm))
  end)
end

-- padding_idx may count from the end.
local function padding(weight, o)
  local at = o.padding_idx
  if at and at < 0 then return weight:size(1) + 1 + at end
  return at
end

-- How often each index is there.
local function frequency(weight, index)
  local line = index:flatten()
  local ones = kiln.ones_like(line):to(weight.dtype)
  local counts = kiln.zeros_like(weight:select(2, 1)):detach():index_add(1, line, ones)
  return counts:index_select(1, line):reshape_as(index)
end

--- embedding(index, weight [, { padding_idx, max_norm, norm_type = 2, scale_grad_by_freq }]): rows of the weight at 1-based
--- indices. The row padding_idx gets no gradient.
function F.embedding(index, weight, options)
  local o = options or {}
  if o.sparse then kiln.fail("embedding: there are no sparse gradients: leave out 'sparse'") end
  if o.max_norm then shorten(weight, index, o) end
  local rows = kiln.embedding(weight, index)
  if o.scale_grad_by_freq then -- the same values, and the gradient over how often
    local fixed = rows:detach()
    rows = fixed + (rows - fixed) / frequency(weight, index):unsqueeze(-1)
  end
  local pad = padding(weight, o)
  if pad then rows = kiln.where(index:eq(pad):unsqueeze(-1), rows:detach(), rows) end
  return rows
end

-- Rows [n, E] into bags: their sums, means or maxima. `bag` [n] is the 1-based bag of each row, `like` [B, E] zeros, `taken`
-- [n], where given, is false for rows that do not count.
local function pool(rows, bag, like, mode, taken)
  if mode == "max" then
    if taken ~= nil then rows = kiln.where(taken:unsqueeze(2), rows, -math.huge) end
    local most = like:scatter_reduce(1, bag:unsqueeze(2):expand_as(rows), rows, "amax", false)
    return taken ~= nil and kiln.where(most:eq(-math.huge), like, most) or most
  end
  if taken ~= nil then rows = kiln.where(taken:unsqueeze(2), rows, 0) end
  local sums = like:index_add(1, bag, rows)
  if mode == "sum" then return sums end
  local one = kiln.ones_like(bag):to(rows.dtype)
  if taken ~= nil then one = one * taken end
  return sums / kiln.zeros_like(like:select(2, 1)):index_add(1, bag, one):clamp(1):unsqueeze(2)
end

--- embedding_bag(index, weight [, { offsets, mode = "mean", per_sample_weights, max_norm, norm_type = 2, scale_grad_by_freq,
--- include_last_offset, padding_idx }]): the sum, mean or maximum of the rows of each bag. A bag is a row of index [B, N], or a
--- part of a list of indices that begins at an offset (1-based). An empty bag gives zeros.
function F.embedding_bag(index, weight, options)
  local o = options or {}
  local mode, offsets, given = o.mode or "mean", o.offsets, o.per_sample_weights
  if mode ~= "sum" and mode ~= "mean" and mode ~= "max" then
    kiln.fail("embedding_bag: mode must be 'sum', 'mean' or 'max', got %s", tostring(mode))
  end
  if given and mode ~= "sum" then kiln.fail("embedding_bag: per_sample_weights need the mode 'sum', got '%s'", mode) end
  if index:dim() == 2 then
    if offsets then kiln.fail("embedding_bag: rows of indices are bags of their own: leave out 'offsets'") end
  elseif index:dim() ~= 1 or not offsets then
    kiln.fail("embedding_bag: rows of indices [B, N] are needed, or a list of them and 'offsets'")
  end
  if o.scale_grad_by_freq and mode == "max" then
    kiln.fail("embedding_bag: scale_grad_by_freq does not go with the mode 'max'")
  end
  local bag, firsts
  if offsets then
    if o.include_last_offset then offsets = offsets:narrow(1, 1, offsets:size(1) - 1) end
    bag = kiln.searchsorted(offsets, kiln.ones_like(index):cumsum(1), { right = true }) - 1
    firsts = offsets
  else
    firsts = kiln.ones_like(index:select(2, 1)):cumsum(1)
    bag = firsts:unsqueeze(2):expand_as(index):flatten()
  end
  local line = index:flatten()
  local rows = F.embedding(line, weight, { max_norm = o.max_norm, norm_type = o.norm_type, scale_grad_by_freq = o.scale_grad_by_freq })
  if given then rows = rows * given:flatten():unsqueeze(2) end
  local like = kiln.zeros_like(kiln.embedding(weight, kiln.ones_like(firsts)):detach())
  local pad = padding(weight, o)
  return pool(rows, bag, like, mode, pad and line:ne(pad))
end

-- ---- losses that are no op -------------------------------------------------------------------------------------

local reductions = {
  none = function(t) return t end,
  mean = function(t) return t:mean() end,
  sum = function(t) return t:sum() end,
}

--- triplet_margin_with_distance_loss(anchor, positive, negative [, { distance_function = pairwise_distance, margin = 1,
--- swap = false, reduction = "mean" }])
function F.triplet_margin_with_distance_loss(anchor, positive, negative, options)
  local o = options or {}
  local distance, reduce = o.distance_function or kiln.pairwise_distance, reductions[o.reduction or "mean"]
  if not reduce then
    kiln.fail("triplet_margin_with_distance_loss: reduction must be 'none', 'mean' or 'sum', not '%s'", tostring(o.reduction))
  end
  local near, far = distance(anchor, positive), distance(anchor, negative)
  if o.swap then far = kiln.minimum(far, distance(positive, negative)) end
  return reduce((near - far + (o.margin or 1)):clamp(0))
end

-- ---- what layers with parameters compute -----------------------------------------------------------------------

--- bilinear(x1, x2, weight [, bias]): for each output o, x1 times weight[o] times x2, plus bias.
function F.bilinear(x1, x2, weight, bias)
  local y = kiln.einsum("...i,oij,...j->...o", x1, weight, x2)
  return bias and y + bias or y
end

--- rrelu(x [, lower = 1/8, upper = 1/3, training = false]): a negative slope, drawn for each element while training, else the
--- mean of both.
function F.rrelu(x, lower, upper, training)
  lower, upper = lower or 1 / 8, upper or 1 / 3
  if not training then return kiln.leaky_relu(x, (lower + upper) / 2) end
  local slope = kiln.rand_like(x) * (upper - lower) + lower
  return kiln.where(x:lt(0), x * slope, x)
end

-- The arguments behind out_proj_bias by name, where they are given in order.
local function heads_options(training, key_padding_mask, need_weights, attn_mask, use_separate_proj_weight, q_proj_weight, k_proj_weight,
                             v_proj_weight, static_k, static_v, average_attn_weights, is_causal)
  if type(training) == "table" then return training end
  return { training = training, key_padding_mask = key_padding_mask, need_weights = need_weights, attn_mask = attn_mask,
    use_separate_proj_weight = use_separate_proj_weight, q_proj_weight = q_proj_weight, k_proj_weight = k_proj_weight,
    v_proj_weight = v_proj_weight, static_k = static_k, static_v = static_v, average_attn_weights = average_attn_weights,
    is_causal = is_causal }
end

--- multi_head_attention_forward(query, key, value, embed_dim, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v,
--- add_zero_attn, dropout_p, out_proj_weight, out_proj_bias [, { training = true, key_padding_mask, need_weights = true, attn_mask,
--- use_separate_proj_weight = false, q_proj_weight, k_proj_weight, v_proj_weight, static_k, static_v, average_attn_weights = true,
--- is_causal = false }]): what nn.MultiheadAttention computes, on [L, N, E] or [L, E]; the options may come in this order, too.
function F.multi_head_attention_forward(query, key, value, embed_dim, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v,
                                        add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, ...)
  local o, name = heads_options(...), "multi_head_attention_forward"
  if query:size(-1) ~= embed_dim then kiln.fail("%s: the query has a width of %d, embed_dim is %d", name, query:size(-1), embed_dim) end
  if embed_dim % num_heads ~= 0 then kiln.fail("%s: %d heads do not divide a width of %d", name, num_heads, embed_dim) end
  local own = o.use_separate_proj_weight
  local p = { embed_dim = embed_dim, num_heads = num_heads, head_dim = embed_dim // num_heads, in_proj_weight = in_proj_weight,
    in_proj_bias = in_proj_bias, bias_k = bias_k, bias_v = bias_v, add_zero_attn = add_zero_attn, dropout = dropout_p,
    training = o.training ~= false, q_proj_weight = own and o.q_proj_weight or nil, k_proj_weight = own and o.k_proj_weight or nil,
    v_proj_weight = own and o.v_proj_weight or nil }
  return attend(name, p, query, key, value, o, false, function(x) return kiln.linear(x, out_proj_weight, out_proj_bias) end)
end

-- Recurrent networks and cells.
for _, name in ipairs { "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell" } do
  F[name] = kiln[name]
end

-- Windows of an image as columns, and back. (kiln.unfold is the method: windows along one dimension.)
F.unfold, F.fold = kiln.im2col, kiln.col2im

return F
