-- kiln.nn.functional: what layers and losses compute, as functions. They are ops of the engine, under PyTorch's names.
local kiln = require "kiln"

local F = {}

-- Ops that are used as functions of networks.
for _, name in ipairs {
  "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish",
  "hardsigmoid", "glu", "prelu", "threshold", "logsigmoid", "tanhshrink", "softshrink", "hardshrink", "tanh", "sigmoid",
  "softmax", "log_softmax", "linear", "embedding", "dropout", "one_hot", "conv1d", "conv2d", "conv_transpose1d",
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

function F.softmin(x, dim) return kiln.softmax(-x, dim) end

--- Lengths may be tables. The gradient is that of the log-probabilities themselves.
function F.ctc_loss(logp, targets, input_lengths, target_lengths, ...)
  if type(input_lengths) == "table" then input_lengths = kiln.tensor(input_lengths) end
  if type(target_lengths) == "table" then target_lengths = kiln.tensor(target_lengths) end
  return kiln.ctc_loss(logp, targets, input_lengths, target_lengths, ...)
end

-- Recurrent networks and cells.
for _, name in ipairs { "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell" } do
  F[name] = kiln[name]
end

-- Windows of an image as columns, and back. (kiln.unfold is the method: windows along one dimension.)
F.unfold, F.fold = kiln.im2col, kiln.col2im

return F
